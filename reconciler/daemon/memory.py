"""What the daemon's last cycle told, kept in the data directory for `reconciler status`, beside the daemon or after it.

A file for each stack. Losing it loses words: nothing that is done goes by it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from reconciler import files
from reconciler.daemon.document import document, seconds_since
from reconciler.daemon.state import State
from reconciler.report.json import redacted

_KEPT = ("state", "since", "source", "cycle", "started", "interval", "next", "provider", "contested", "losses")
_LATE = 3  # intervals without a cycle: no daemon runs


@dataclass(slots=True)
class Memory:
    """Keeps it: `keep` hears of each cycle that ended. ``redact`` takes secrets out of texts."""

    data: Path
    redact: Callable[[str], str] = lambda text: text

    def keep(self, state: State) -> None:
        """Remember a state. A disk that is full or read-only costs these words alone."""
        if not state.stack or state.cycle is None:
            return
        told = document(state, datetime.fromisoformat(state.cycle.ended))
        kept = redacted({name: told[name] for name in _KEPT}, self.redact)
        try:
            files.make_private(self.data)
            files.write_private(_path(self.data, state.stack), json.dumps(kept).encode())
        except OSError:
            return


def recalled(data: Path, stack: str) -> dict[str, Any] | None:
    """Return what the last cycle of a daemon told of a stack, None where none did or it can't be read."""
    return files.recall(_path(data, stack), _parsed)[0]


def joined(known: Mapping[str, Any], told: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """Return a status document that was made without a daemon, with what a daemon's last cycle told.

    How things stand is as it was just seen; of the source the daemon tells, unless another revision lies here.
    """
    names = ("cycle", "started", "interval", "next", "provider", "contested", "losses")
    found = dict(known) | {name: told[name] for name in names}
    if told["state"] == known["state"]:
        found["since"] = told["since"]
    if not known["source"]["commit"] or known["source"]["commit"] == told["source"]["commit"]:
        found["source"] = told["source"] | {"age": seconds_since(told["source"]["reached"] or "", now)}
    return found


def is_late(told: Mapping[str, Any], now: datetime) -> bool:
    """Whether no daemon seems to run any more."""
    silence = seconds_since(told["cycle"]["ended"], now)
    return silence is None or silence > _LATE * float(told["interval"] or 0)


def _path(data: Path, stack: str) -> Path:
    return data / f"daemon-{stack}.json"


def _parsed(found: Any) -> dict[str, Any]:
    """Read what was kept. Raises LookupError, TypeError and ValueError for anything else."""
    told = {name: found[name] for name in _KEPT if name != "provider"} | {"provider": found.get("provider")}
    texts = [told["state"], told["cycle"]["ended"], told["cycle"]["result"]]
    if not all(isinstance(text, str) for text in texts) or not isinstance(told["interval"], int | float | None):
        raise TypeError("texts")
    for name in ("commit", "reached", "where"):
        if not isinstance(told["source"][name], str | None):
            raise TypeError(name)
    if not all(isinstance(told[name], list) for name in ("contested", "losses")):
        raise TypeError("lists")
    return told
