"""What Compose makes of its files, remembered as long as none of the files that it reads has changed."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reconciler.targets.compose.program import Program
from reconciler.targets.compose.project import named_files

Stamp = tuple[int, ...]
Steps = Mapping[tuple[str, str], Collection[str]]
"""What Compose would do, in its words, by kind and name: ``{("Container", "app-1"): {"Recreate", "Recreated"}}``."""

_MOMENT = 10.0  # seconds


@dataclass(frozen=True, slots=True)
class Written:
    """The program's version, and the project as it is written and as it is meant, with all variables put in."""

    version: Future[str]
    literal: Future[dict[str, Any]]
    effective: Future[dict[str, Any]]


@dataclass(slots=True)
class WrittenFiles:
    """Asks Compose where one of its files is not as it was the last time."""

    _stamps: dict[Path, Stamp] = field(default_factory=dict)
    _known: Written | None = None
    _rehearsed: tuple[object, float, Steps] | None = None  # of what, when, and what was said

    def rehearsal(self, of: object) -> Steps | None:
        """Return what a rehearsal said that was kept a moment ago: the files are as they were then, and so is ``of``.

        A moment only, since a network or an image may be another one meanwhile.
        """
        if self._known is None or self._rehearsed is None or self._stamps != _stamps(self._stamps):
            return None
        former, when, steps = self._rehearsed
        return steps if former == of and time.monotonic() - when < _MOMENT else None

    def keep(self, of: object, steps: Steps) -> None:
        """Keep what a rehearsal said."""
        self._rehearsed = of, time.monotonic(), steps

    def ask(self, program: Program, pool: Executor) -> Written:
        """Ask for all three side by side, or return what was answered before."""
        if self._known is not None and self._stamps == _stamps(self._stamps):
            return self._known
        self._rehearsed = None
        files = named_files((*program.files, program.env_file))
        self._stamps = _stamps(files or ())  # before they are read: a later change is seen then
        written = Written(
            pool.submit(program.version),
            pool.submit(program.config, interpolate=False),
            pool.submit(program.config),
        )
        self._known = written if files is not None else None
        return written

    def settled(self) -> None:
        """Forget an answer that was none: a failure is asked for again."""
        if self._known is not None and any(item.exception() for item in _futures(self._known)):
            self._known = None


def _futures(written: Written) -> Sequence[Future[Any]]:
    return written.version, written.literal, written.effective


def _stamps(files: Collection[Path]) -> dict[Path, Stamp]:
    return dict(_stamped(files))


def _stamped(files: Collection[Path]) -> Iterator[tuple[Path, Stamp]]:
    for path in files:
        try:
            found = os.stat(path)  # noqa: PTH116 (a link's target counts, too)
        except OSError:
            yield path, ()
        else:
            yield path, (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
