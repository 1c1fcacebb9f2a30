"""What Compose makes of its files, remembered as long as none of the files that it reads has changed."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reconciler.targets.compose.program import Program
from reconciler.targets.compose.project import named_files

Stamp = tuple[int, ...]


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

    def ask(self, program: Program, pool: Executor) -> Written:
        """Ask for all three side by side, or return what was answered before."""
        if self._known is not None and self._stamps == _stamps(self._stamps):
            return self._known
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
