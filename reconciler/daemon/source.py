"""Where the daemon's revisions come from, and the one source without git: the directory on disk.

A source gives whole and valid states of the directory, and holds the last one whatever becomes of its origin.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from reconciler import git
from reconciler.daemon import taken
from reconciler.daemon.state import Revision, Sourced
from reconciler.daemon.taken import Taken
from reconciler.desired.files import MAX_ENTRIES
from reconciler.desired.load import Directory, load
from reconciler.journal import now
from reconciler.names import SHOWN
from reconciler.problem import InvalidDirectory, Problem, Refused, Severity

if TYPE_CHECKING:
    from reconciler.daemon.heads import Heads

FOLDER = "source"
"""The folder of the data directory that is the sources'."""

_QUIET = 0.4  # seconds for which nothing may change
_PATIENCE = 3.0  # seconds to wait for that
_TOLD = 20  # mistakes of one directory


class Source(Protocol):
    """Where revisions come from. Neither method raises for a fault of the source; both may run in any thread.

    ``pause`` is how many seconds to leave between two calls of `newest`.
    """

    pause: float

    @property
    def heads(self) -> Heads | None:
        """The pull requests to it, where it may have some."""

    def poll(self) -> Sourced:
        """Look for a newer revision and take it, within a bounded time; what is wrong is in the answer."""

    def newest(self) -> str:
        """Name what is there now, cheaply: another name than before is a reason to `poll`. Empty where unknown."""


class Folder:
    """The directory on disk, which is taken only when it is whole: nobody is at work on it, and it is valid.

    An editor replaces a file in several steps, and `git pull` many files one by one.
    """

    pause = 2.0
    heads: Heads | None = None

    def __init__(self, path: Path, data: Path) -> None:
        self.path = path.absolute()
        name = hashlib.sha256(os.fsencode(self.path)).hexdigest()[:16]
        self._memory = data / FOLDER / f"folder-{name}.json"
        self._taken: Taken | None = taken.recall(self._memory)
        self._revision: Revision | None = None
        self._files: tuple[str, ...] = ()  # that what was taken said something in
        self._judged: tuple[str, tuple[Problem, ...]] = ("", ())

    def newest(self) -> str:
        """Name the state of all files by their times, sizes and numbers."""
        return hashlib.sha256("\n".join(_look(self.path)).encode("utf-8", "surrogateescape")).hexdigest()

    def poll(self) -> Sourced:
        """Read it where it differs from what was judged before, as soon as nothing changes for a moment."""
        problems = self._judged[1]
        try:
            if self.newest() != self._judged[0]:
                name, found = self._whole()
                problems = self._judge(found)
                self._judged = (name, problems)
        except _AtWork as error:
            problems = (Problem(str(self.path), f"is not taken yet: {error.why}", error.hint, Severity.WARNING),)
        return Sourced(str(self.path), revision=self._revision, reached=now(), problems=problems)

    def _whole(self) -> tuple[str, Directory | InvalidDirectory]:
        """Return the directory, or why it is none, while nothing changes for a moment; and that state's name."""
        until = time.monotonic() + _PATIENCE
        while time.monotonic() < until:
            before = self.newest()
            time.sleep(_QUIET)
            found = self._loaded()
            if self.newest() == before:
                self._check_rest()
                return before, found
        raise _AtWork("it changes all the time", "it is taken as soon as nobody writes to it for a moment")

    def _loaded(self) -> Directory | InvalidDirectory:
        try:
            git.refuse_leaving(self.path)
            return load(self.path)
        except InvalidDirectory as error:
            return error
        except Refused as error:
            return InvalidDirectory(*error.problems)

    def _check_rest(self) -> None:
        """Raise `_AtWork` where somebody seems to be half through: git, or an editor that has moved a file aside."""
        top = git.checkout(self.path)
        if top is not None and (lock := top / ".git" / "index.lock").exists():
            raise _AtWork(f"git is at work ({lock})", "wait until it ends; where none runs, remove that file")
        for name in self._files:
            path = self.path / name
            if path.is_file():
                if not path.stat().st_size:
                    hint = f"finish saving; where nothing shall be in it, remove {name}"
                    raise _AtWork(f"{name} is empty, as in the middle of a save", hint)
            elif (aside := next(_named_like(path), None)) is not None:
                hint = f"finish saving; where {path.name} was meant to go, remove {aside} too"
                raise _AtWork(f"{name} is gone and {aside} is there, as in the middle of a save", hint)

    def _judge(self, found: Directory | InvalidDirectory) -> tuple[Problem, ...]:
        if isinstance(found, InvalidDirectory):
            return held(str(self.path), "is not taken", found.problems, self._revision)
        if self._revision is not None and found.digest == self._revision.directory.digest:
            return ()
        return self._take(found)

    def _take(self, directory: Directory) -> tuple[Problem, ...]:
        self._taken = Taken.after(self._taken, directory)
        self._revision = Revision(self._taken.hold(directory))
        self._files = tuple(name for name in directory.files if _says_something(self.path / name))
        try:
            taken.remember(self._memory, self._taken)
        except OSError as error:
            return (unwritable(self._memory, error),)
        return ()


class _AtWork(Exception):
    def __init__(self, why: str, hint: str) -> None:
        super().__init__(why, hint)
        self.why, self.hint = why, hint


def _look(path: Path) -> Iterator[str]:
    """Yield a line for each file and folder. What has a dot before its name shows in its folder's time alone."""
    yield os.path.realpath(path)
    number = 0
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in ("", *sorted(name for name in names if not name.startswith("."))):
            number += 1
            yield _facts(os.path.join(folder, name))  # noqa: PTH118 - the texts that os.walk gives
        if number > MAX_ENTRIES:
            return


def _facts(path: str) -> str:
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError as error:
        return f"{path} {error.errno}"
    return f"{path} {status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_mode}"


def _says_something(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except OSError:
        return True


def _named_like(path: Path) -> Iterator[str]:
    """Yield what may be a file on its way: ``dns.yaml~``, ``.dns.yaml.swp``, ``dns.yaml.tmp``, ``.dns.yaml.Xy12ab``."""
    try:
        names = sorted(item.name for item in path.parent.iterdir())
    except OSError:
        return
    yield from (name for name in names if path.name in name and name != path.name)


# ------------------------------------------------------------------------------------------- what all sources tell
def held(where: str, summary: str, why: Iterable[Problem], revision: Revision | None) -> tuple[Problem, ...]:
    """Say that something is not taken, what counts meanwhile, and the first reasons."""
    reasons = tuple(why)
    told = reasons[:_TOLD]
    left = f"; {len(reasons) - _TOLD} more mistakes are not shown" if len(reasons) > _TOLD else ""
    hint = "correct it; `reconciler validate` shows every mistake"
    return (Problem(where, f"{summary}: it is invalid{left}, {standing(revision)}", hint), *told)


def standing(revision: Revision | None) -> str:
    """Say what is healed to while nothing newer is taken."""
    if revision is None:
        return "and there is no earlier one to heal to"
    name = f"commit {revision.commit[:SHOWN]}" if revision.commit else "the last good state"
    return f"and {name} goes on being healed to"


def unwritable(path: Path, error: OSError) -> Problem:
    """Say that what was taken can't be remembered: it counts, but is lost with this process."""
    summary = f"can't be written, so a restart will not know this revision: {error.strerror or type(error).__name__}"
    return Problem(str(path), summary, "free space, or name a writable directory with --data", Severity.WARNING)


def resolved(directory: Directory, project: Path | None) -> Directory:
    """Return a directory whose compose project is seen from another place than its own; None: from its own."""
    compose = directory.spec.targets.compose
    if project is None or compose is None:
        return directory

    def seen(paths: str | tuple[str, ...]) -> str | tuple[str, ...]:
        return str(project / paths) if isinstance(paths, str) else tuple(str(project / name) for name in paths)

    paths = {name: seen(value) for name in ("file", "env_file", "directory") if (value := getattr(compose, name))}
    targets = directory.spec.targets.model_copy(update={"compose": compose.model_copy(update=paths)})
    return replace(directory, spec=directory.spec.model_copy(update={"targets": targets}))
