"""The directory as a commit has it, read without a checkout: its files are written aside as they were committed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from reconciler import files, git
from reconciler.desired.load import Directory, load
from reconciler.desired.spec import references
from reconciler.desired.spec.targets import several
from reconciler.desired.unmerged import Candidate, Doubtful, candidate
from reconciler.git import tree
from reconciler.git.objects import LINK, OTHER_REPOSITORY, Damaged, Entry, Objects
from reconciler.problem import InvalidDirectory, Problem, ReconcilerError, Severity
from reconciler.process import CannotRun
from reconciler.resources import SecretRef

_FILES = ("file", "sops", "age")  # references that name one


class NotHere(ReconcilerError):
    """A revision can't be read on this machine, whatever it says."""


@dataclass(frozen=True, slots=True)
class Committed:
    """A commit's files, for as long as they are needed. ``top`` is where they are, ``path`` the directory in there.

    ``commit`` is its name. ``shown`` is the directory's path in the repository.
    """

    commit: str
    top: Path
    path: Path
    shown: str

    def named(self, problem: Problem) -> Problem:
        """Name files as the repository does, not where they were written."""
        return replace(problem, where=problem.where.replace(f"{self.path}", self.shown))


class Repository:
    """A repository with a directory of desired state in it, and where files of one of its commits lie.

    ``top`` is that place, ``folder`` the directory's path in the repository.
    """

    def __init__(self, top: Path, folder: Path, objects: Objects) -> None:
        self.top, self._folder, self.objects = top, folder, objects

    @classmethod
    def holding(cls, directory: Path, environ: Mapping[str, str]) -> Self:
        """Return the one whose work tree a directory lies in. Raises `ReconcilerError` where it lies in none."""
        real = Path(os.path.realpath(directory))
        top = git.checkout(real)
        if top is None:
            hint = (
                "run it in a clone, or name a directory in one with --state; `git init` and a commit begin a repository"
            )
            raise ReconcilerError(Problem(str(directory), "lies in no repository of git, so it has no revisions", hint))
        return cls(top, real.relative_to(top), Objects(top / ".git", environ))

    @property
    def shown(self) -> str:
        """The directory's path in the repository."""
        return self._folder.as_posix()

    def commit(self, revision: str) -> str:
        """Return the commit that a name means here. Raises `ReconcilerError` where it means none."""
        with _told(revision):
            found = self.objects.commit(revision)
        if not found:
            raise ReconcilerError(self._unknown(revision))
        return found

    def _unknown(self, revision: str) -> Problem:
        with _told(revision):
            shallow, remote = self.objects.is_shallow(), self.objects.commit(f"origin/{revision}")
        if remote:
            return Problem(revision, "is no revision here", f"name it as origin/{revision}")
        if shallow:
            hint = "fetch the whole history: `git fetch --unshallow`; with actions/checkout say `fetch-depth: 0`"
            return Problem(
                revision, "is no revision here: only the newest commits were fetched (a shallow clone)", hint
            )
        return Problem(revision, "is no revision here", "look at `git log`, or fetch it: `git fetch origin`")

    def merged(self, base: str) -> tuple[str, ...]:
        """Return the newest commit here, and those that were merged since another. Raises `ReconcilerError`."""
        first, newest = self.commit(base), self.commit("HEAD")
        with _told(base):
            return self.objects.merged(first, newest)

    @contextmanager
    def at(self, revision: str, *, whole: bool = False) -> Iterator[Committed]:
        """Write the directory's files, or all of the ``whole`` commit, to a folder that is gone afterwards.

        Raises `ReconcilerError`. A commit without the directory has none there.
        """
        commit = self.commit(revision)
        below = b"" if whole or not self._folder.parts else os.fsencode(self._folder) + b"/"
        with ExitStack() as until:
            with _told(revision):
                top = Path(os.path.realpath(until.enter_context(files.folder())), self.top.name)
                tree.write(self.objects, commit, top, below)
                self._check_way(top)
            yield Committed(commit, top, top / self._folder, self.shown)

    def _check_way(self, top: Path) -> None:
        """Raise `tree.Unfit` where a link leads to the directory: it could lead anywhere."""
        for number in range(len(self._folder.parts)):
            way = Path(*self._folder.parts[: number + 1])
            if (top / way).is_symlink():
                raise tree.Unfit(f"has a link as {way}", "commit the folder itself")

    @contextmanager
    def proposed(self, base: str, head: str) -> Iterator[Candidate]:
        """Yield what a plan of ``head`` is made of before it is merged into ``base``, as `unmerged.candidate` does.

        Where the work tree is at the base, paths are seen from there; else from a copy of the base's files, which lacks
        what git does not have. Raises `ReconcilerError`.
        """
        commits = (self.commit(base), self.commit(head))  # a branch may move meanwhile
        apart = not self._is_at(commits[0])
        with self.at(commits[0], whole=apart) as old, self.at(commits[1]) as new:
            former, wanted = _loaded(old, base), _loaded(new, head)
            former = former if apart else replace(former, path=self.top / self._folder)
            refs = [ref for side in (former, wanted) for _, ref in references(side.spec) if ref.source in _FILES]
            full = frozenset(ref for ref in refs if Path(ref.name).is_absolute() and self._within(_file(ref)))
            doubtful = Doubtful(self._unlike(commits, refs), full if apart else frozenset())
            found = candidate(former, wanted, commits, doubtful)
            problems = (*self.others(commits[1]), *((_apart(base),) if apart else ()))
            yield replace(found, held=self._unseen(former) if apart else {}, problems=problems)

    def rewritten(self, base: str, now: Directory) -> frozenset[SecretRef]:
        """Return a directory's references whose files the newest commit has otherwise than another one has them.

        What git does not have has no other state. Raises `ReconcilerError`.
        """
        former, newest = self._sides((self.commit(base), self.commit("HEAD")))
        other = {path for path in former.keys() | newest.keys() if former.get(path) != newest.get(path)}
        named = ((ref, self.top / self._folder / _file(ref)) for _, ref in references(now.spec) if ref.source in _FILES)
        return frozenset(ref for ref, path in named if any(way in other for way in self._ways(path)))

    def _ways(self, path: Path) -> Iterator[bytes]:
        """Yield what of the repository a path leads by, after links and before."""
        for way in {Path(os.path.normpath(path)), Path(os.path.realpath(path))}:
            if way.is_relative_to(self.top):
                inside = way.relative_to(self.top)
                yield from (os.fsencode(part) for part in (inside, *inside.parents))

    def _is_at(self, commit: str) -> bool:
        """Whether the work tree has all files of a commit as they are there, and git has no others in it."""
        with _told(commit):
            known = {entry.path for entry in self.objects.entries(commit)}
            return self.objects.tracked() <= known and tree.is_whole(self.objects, commit, self.top)

    def _unseen(self, directory: Directory) -> Mapping[str, Problem]:
        """Say why the compose project can't be looked at from a copy of its files: others lie beside them."""
        compose = directory.spec.targets.compose
        paths = () if compose is None else (*several(compose.file), *several(compose.env_file))
        if not any(self._within(path) for path in paths):
            return {}
        summary = "is not looked at: the work tree is not at the base, and a pull request's files are not used"
        hint = "check the base out (`git checkout BASE`), and name the other revision with --head"
        return {"compose": Problem("targets.compose", summary, hint, scope="compose")}

    def _within(self, name: str) -> Path | None:
        """Return a path of the directory's as the repository names it; None where it leads out of that."""
        written = self.top / self._folder / name
        ways = (Path(os.path.normpath(written)), Path(os.path.realpath(written)))
        return next((way.relative_to(self.top) for way in ways if way.is_relative_to(self.top)), None)

    def _unlike(self, commits: Iterable[str], named: Iterable[SecretRef]) -> frozenset[SecretRef]:
        """Return the references whose files two commits do not have alike, or that a link in one of them leads to."""
        sides = self._sides(commits)
        return frozenset(ref for ref in named if not self._alike(ref, *sides))

    def _sides(self, commits: Iterable[str]) -> list[dict[bytes, Entry]]:
        sides = []
        for commit in commits:
            with _told(commit):
                sides.append({entry.path: entry for entry in self.objects.entries(commit)})
        return sides

    def _alike(self, ref: SecretRef, base: Mapping[bytes, Entry], head: Mapping[bytes, Entry]) -> bool:
        path = self._within(_file(ref))
        for way in (path, *path.parents) if path is not None else ():
            entry, other = (side.get(os.fsencode(way)) for side in (base, head))
            if entry != other or (entry is not None and entry.mode == LINK):
                return False
        return True

    def others(self, commit: str) -> tuple[Problem, ...]:
        """Warn of other repositories (submodules) in the directory: no commit of this one has their files."""
        with _told(commit):
            found = [
                it.path for it in self.objects.entries(commit, os.fsencode(self._folder)) if it.mode == OTHER_REPOSITORY
            ]
        summary = "is another repository (a submodule), whose files no commit of this one has: they are not read"
        return tuple(Problem(os.fsdecode(path), summary, "keep the files here", Severity.WARNING) for path in found)


def _file(ref: SecretRef) -> str:
    return ref.name.partition("#")[0] if ref.source == "sops" else ref.name


def _apart(base: str) -> Problem:
    summary = "is not at the base: paths are seen from a copy of the base's files, which lacks what git does not have"
    hint = f"check the base out (`git checkout {base}`), and name the other revision with --head"
    return Problem("the work tree", summary, hint, Severity.WARNING)


def _loaded(written: Committed, revision: str) -> Directory:
    try:
        return load(written.path)
    except InvalidDirectory as error:
        summary = "is invalid, so nothing can be planned of it"
        first = Problem(revision, summary, "correct it; `reconciler diff` shows what changes")
        raise InvalidDirectory(first, *map(written.named, error.problems)) from None


@contextmanager
def _told(revision: str) -> Iterator[None]:
    """Turn what git and the disk have against a revision into what a person can act on."""
    try:
        yield
    except tree.Unfit as error:
        raise ReconcilerError(Problem(revision, error.summary, error.hint)) from None
    except Damaged:
        hint = "look with `git fsck`; a clone that was made with --filter lacks files: fetch without it"
        raise NotHere(Problem(revision, "its files are not all here", hint)) from None
    except CannotRun as error:
        hint = "install git" if error.missing else "look at how busy this machine and its disk are"
        raise NotHere(Problem("git", error.why, hint)) from None
    except OSError as error:
        why = f"its files can't be written aside: {error.strerror or type(error).__name__}"
        hint = "free space in $TMPDIR; names that this file system can't tell apart can't be read here"
        raise NotHere(Problem(revision, why, hint)) from None
