"""What is yet to be told to somebody elsewhere: kept on disk, and tried again with growing pauses.

Whoever tells (notices to people, statuses to GitHub) does so beside the loop; a restart repeats and loses nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from reconciler import files
from reconciler.problem import Problem

LONGEST = timedelta(hours=1)  # between two tries
_FIRST = timedelta(minutes=1)


def pause(tries: int) -> timedelta:
    """Return how long to wait after so many tries in vain and one more."""
    doubled: int = 2 ** min(tries, 10)
    return min(LONGEST, _FIRST * doubled)


def is_due(at: str, now: datetime) -> bool:
    """Whether a try set for ``at`` (ISO 8601; empty: at once) may be made."""
    due = datetime.fromisoformat(at) if at else now
    return due <= now or due > now + LONGEST  # the clock went back


class Kept(Protocol):
    """What is known of what was told, and of what waits."""

    def as_json(self) -> bytes:
        """Write it as its file has it."""


K = TypeVar("K", bound=Kept)


class Memory(Generic[K]):
    """The file of what is kept. A lock, if threads share it, is its owner's."""

    def __init__(self, path: Path, parse: Callable[[Any], K], empty: K) -> None:
        """Recall it; where it is damaged or gone, nothing was told yet. ``parse`` raises for what is damaged."""
        self._path, self._unwritten = path, ""
        self.kept = files.recall(path, parse)[0] or empty

    def keep(self, kept: K) -> None:
        """Remember it, on disk where it has changed."""
        same, self.kept = kept == self.kept, kept
        if same and not self._unwritten:
            return
        try:
            files.write_private(self._path, kept.as_json())
            self._unwritten = ""
        except OSError as error:
            self._unwritten = error.strerror or type(error).__name__

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Say that it can't be written."""
        hint = "let reconciler's user write there; until then a restart tells things again"
        return (Problem(str(self._path), f"can't be written: {self._unwritten}", hint),) if self._unwritten else ()
