"""A person's word that nothing is to be written to a stack for now: a file for each stack in the data directory.

The daemon asks before it writes; a person's own `apply` goes on and says so. The file is no cache but somebody's word,
maybe given while a server was moved: one that can't be read counts as given, without an end. What is wrongly not healed
is told and mended by `reconciler resume`; what is wrongly written may be neither.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from reconciler import files
from reconciler.problem import Problem, ReconcilerError


@dataclass(frozen=True, slots=True)
class Suspension:
    """A person's word that nothing is to be written for now. ``until`` is empty where it holds until `resume`.

    Times are UTC in ISO 8601. ``who`` and ``since`` are empty where the file can't be read; ``reason`` then says so.
    """

    reason: str
    who: str
    since: str
    until: str = ""

    def has_ended(self, now: datetime) -> bool:
        """Whether its end has passed."""
        return bool(self.until) and datetime.fromisoformat(self.until) <= now

    def __str__(self) -> str:
        """Render for people, without a stop."""
        who = f" by {self.who}" if self.who else ""
        since = f" since {self.since}" if self.since else ""
        return f"suspended{who}{since}{f' until {self.until}' if self.until else ''}: {self.reason}"


def current(data: Path, stack: str, now: datetime | None = None) -> Suspension | None:
    """Return the word that holds ``now``, None without any. Never raises: what can't be read is a suspension itself."""
    path = _path(data, stack)
    said, damage = files.recall(path, _parsed)
    if damage:
        reason = f"{path} {damage}, and it may say so; `reconciler resume` removes it"
        return Suspension(reason, "", "")
    return None if said is None or said.has_ended(now or datetime.now(UTC)) else said


def suspend(data: Path, stack: str, suspension: Suspension) -> Suspension | None:
    """Give one's word, in place of an earlier one, which is returned. Raises ReconcilerError."""
    path = _path(data, stack)
    with _changing(path):
        files.make_private(data)
        with files.locked(data):
            former = current(data, stack)
            files.write(path, json.dumps(asdict(suspension), ensure_ascii=False).encode() + b"\n")
    return former


def resume(data: Path, stack: str) -> Suspension | None:
    """Take one's word back, and return what held. Raises ReconcilerError."""
    path = _path(data, stack)
    with _changing(path):
        if not os.path.lexists(path):
            return None
        files.check_own(data)
        with files.locked(data):
            former = current(data, stack)
            path.unlink(missing_ok=True)
            files.settle(data)
    return former


def _path(data: Path, stack: str) -> Path:
    return data / f"suspended-{stack}.json"


@contextmanager
def _changing(path: Path) -> Iterator[None]:
    """Raise what goes wrong as a problem."""
    try:
        yield
    except OSError as error:
        hint = {errno.EAGAIN: "try again", errno.ENOSPC: "free some space"}.get(
            error.errno or 0, f"let your user write to {path.parent}, or remove what stands in the file's place"
        )
        why = error.strerror or type(error).__name__
        raise ReconcilerError(Problem(str(path), f"can't be changed: {why}", hint)) from None


def _parsed(found: Any) -> Suspension:
    """Read what `suspend` wrote. Raises ValueError, TypeError and LookupError for what is none."""
    fields = {name: found[name] for name in ("reason", "who", "since", "until")}
    if not all(isinstance(text, str) for text in fields.values()):
        raise TypeError("texts")
    if fields["until"] and datetime.fromisoformat(fields["until"]).tzinfo is None:
        raise ValueError("until")
    return Suspension(**fields)
