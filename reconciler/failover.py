"""That the daemon has failed over, as the data directory remembers it: the daemon, `plan`, `apply` and `status` ask it.

Where the file is damaged nothing has failed over as far as anybody knows: the consumers then use what the directory
says. How long ago the last switches were is unknown, too, so they count as made just now.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reconciler import files


@dataclass(frozen=True, slots=True)
class Failover:
    """Consumers use the provider ``to`` in place of ``provider``, which took no mail. It holds for one ``basis``.

    ``basis`` is a digest of what the directory says about providers (`reconciler.desired.failover.basis`). ``since``
    is UTC in ISO 8601; ``why`` is what was seen.
    """

    provider: str
    to: str
    since: str
    why: str
    basis: str

    @property
    def name(self) -> str:
        """What tells it from another one."""
        return f"{self.provider} to {self.to} since {self.since}"

    def __str__(self) -> str:
        """Render for people, without a stop."""
        return f"failed over from {self.name}: {self.why}"


@dataclass(frozen=True, slots=True)
class Memory:
    """What survives a restart. ``over`` and ``back`` are seconds of running since the last switches, None where long.

    Time in which the daemon did not run is not counted: no clock is to be trusted with it.
    """

    failover: Failover | None = None
    over: float | None = None
    back: float | None = None


def recall(data: Path, stack: str) -> tuple[Memory, str]:
    """Return what is remembered of a stack, and what is wrong with the file, empty where nothing is. Never raises."""
    path = place(data, stack)
    known, damage = files.recall(path, _parsed)
    if damage:
        return Memory(None, 0.0, 0.0), f"{path} {damage}"
    return known or Memory(), ""


def remember(data: Path, stack: str, memory: Memory) -> None:
    """Write it down, durable. Raises OSError."""
    files.write_private(place(data, stack), json.dumps(asdict(memory), ensure_ascii=False).encode() + b"\n")


def place(data: Path, stack: str) -> Path:
    """Name the file of a stack."""
    return data / f"failover-{stack}.json"


def _parsed(found: Any) -> Memory:
    """Read what `remember` wrote. Raises ValueError, TypeError and LookupError for what is none."""
    said, ages = found["failover"], (found["over"], found["back"])
    if not all(age is None or (type(age) in (int, float) and age >= 0) for age in ages):
        raise ValueError("ages")
    if said is None:
        return Memory(None, *ages)
    failover = Failover(**said)
    if not all(isinstance(text, str) for text in asdict(failover).values()):
        raise TypeError("texts")
    return Memory(failover, *ages)
