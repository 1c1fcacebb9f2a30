"""Where a fleet's files come from: the inventory, what its repositories have that is new, and a stack's revisions."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from reconciler import files
from reconciler.daemon import checkout
from reconciler.daemon.checkout import Checkout, Following
from reconciler.daemon.heads import Heads
from reconciler.daemon.remote import Remote
from reconciler.daemon.state import Sourced
from reconciler.daemon.store import CannotFetch, Signers, Store
from reconciler.daemon.taken import Taken
from reconciler.desired.load import Directory
from reconciler.fleet import inventory
from reconciler.git.objects import LINK, OTHER_REPOSITORY, Damaged, Entry
from reconciler.names import SHOWN
from reconciler.problem import Problem, ReconcilerError, Severity, printable
from reconciler.process import CannotRun

_LIMIT = 600.0  # seconds for a fetch
_PATIENCE = 30.0  # seconds to wait for another process that fetches
_LARGEST = 1 << 20  # bytes of a file that is read
_MOST = 200  # files of a folder
_LATER = 100  # commits after one that are looked at for who stands for it


class Branch:
    """A branch whose files are read as they stand in a commit: nothing of it is written out.

    Its methods raise `ReconcilerError` for what is the repository's or git's fault. ``signers``, where there are any,
    must have signed what is `vouched` for. ``accept`` names a commit that may come though its history is another.
    """

    def __init__(
        self,
        remote: Remote,
        data: Path,
        environ: Mapping[str, str],
        signers: Signers | None = None,
        accept: str = "",
    ) -> None:
        self._remote, self._folder, self._accept = remote, checkout.folder(data, remote), accept
        self._signers = signers or Signers()
        checkout.check_apart(Following(remote, signers=self._signers), self._folder, environ)
        self._store = Store(self._folder / checkout.STORE, remote, environ)

    def newest(self) -> str:
        """Return the newest commit, all of which is here then."""
        try:
            newest = self._store.newest()
            if self._store.fetched() == newest:
                return newest
            files.make_private(self._folder.parent)
            files.make_private(self._folder)
            with files.locked(self._folder, _PATIENCE):
                return newest if self._store.fetched() == newest else self._store.fetch(newest, _LIMIT)
        except CannotFetch as error:
            raise ReconcilerError(Problem(str(self._remote), error.summary, error.hint)) from None
        except BlockingIOError:
            raise ReconcilerError(Problem(str(self._remote), "is being fetched by another process")) from None
        except (CannotRun, Damaged, OSError) as error:
            raise ReconcilerError(self._broken(error)) from None

    def vouched(self, commit: str, below: str) -> bool:
        """Whether somebody whom we know stands for what a commit has below a folder.

        Who signed it does, or a later one of the branch that has the same there: as in a stack's own branch, the newest
        commit of a push is signed and not each of it.
        """
        if not self._signers:
            return True
        folder = below.strip("/")
        try:
            for later in (commit, *self._store.since(commit, self._store.fetched())[:_LATER]):
                if self._store.signer(later, self._signers):
                    changed = self.changed(commit, later)
                    return changed is not None and not any(_is_below(path, folder) for path in changed)
        except (CannotRun, Damaged) as error:
            raise ReconcilerError(self._broken(error)) from None
        return False

    def unsigned(self, commit: str) -> Problem:
        """Say that nobody stands for a commit."""
        summary = f"commit {commit[:SHOWN]} is signed by nobody whom we know, so it is not taken"
        where = self._signers.ssh or self._signers.gpg
        hint = f"sign the newest commit with a key that stands in {where} (git commit -S)"
        return Problem(str(self._remote), summary, hint, Severity.REFUSED)

    def strayed(self, commit: str, former: str) -> Problem | None:
        """Say why a commit, which is here, does not come after the one that counted; None where it does."""
        try:
            if not former or commit == former or self._store.descends(commit, former):
                return None
            if checkout.accepts(self._accept, commit):
                return None
            return checkout.strayed(self._remote, self._store, commit, former, "the last good one holds")
        except (CannotRun, Damaged) as error:
            return self._broken(error)

    def has(self, commit: str) -> bool:
        """Whether a commit is here."""
        return self._store.has(commit)

    def last(self, commit: str, below: str) -> str:
        """Return the newest commit up to one that changed something below a folder; that one where none did."""
        try:
            return self._store.last(commit, below.strip("/")) or commit
        except (CannotRun, Damaged) as error:
            raise ReconcilerError(self._broken(error)) from None

    def changed(self, base: str, head: str) -> Sequence[str] | None:
        """Return the paths that differ between two commits; None where that can't be told."""
        try:
            return [path.decode("utf-8", "surrogateescape") for path in self._store.changed(base, head)]
        except (CannotRun, Damaged):
            return None

    def read(self, commit: str, below: str, *, largest: int = _LARGEST) -> Mapping[str, bytes]:
        """Return the files at or below a path, by their names there; links are none."""
        try:
            path = below.strip("/").encode()
            entries = [entry for entry in self._store.entries(commit, path) if _is_file(entry)]
            if large := next((entry for entry in entries if entry.size > largest), None):
                summary = f"{os.fsdecode(large.path)} has {large.size:,} bytes, of which {largest:,} are read"
                raise ReconcilerError(Problem(str(self._remote), printable(summary, 300), "split it"))
            if len(entries) > _MOST:
                hint = "keep only what stacks share there"
                raise ReconcilerError(Problem(str(self._remote), f"has more than {_MOST} files below {below}", hint))
            found = self._store.contents(entries)
            return {_within(entry.path, path): content for entry, content in found}
        except (CannotRun, Damaged) as error:
            raise ReconcilerError(self._broken(error)) from None

    def _broken(self, error: Exception) -> Problem:
        why = error.why if isinstance(error, CannotRun) else type(error).__name__
        return Problem(
            str(self._remote), f"can't be read here: {why}", f"look at git, and at the disk of {self._folder}"
        )


def _is_file(entry: Entry) -> bool:
    return entry.mode not in (LINK, OTHER_REPOSITORY)


def _is_below(path: str, folder: str) -> bool:
    return folder in ("", ".") or path == folder or path.startswith(f"{folder}/")


def _within(path: bytes, below: bytes) -> str:
    return path.removeprefix(below).lstrip(b"/").decode("utf-8", "replace")


# --------------------------------------------------------------------------------------------------------- inventory
class Inventory(Protocol):
    """Where the inventory is. ``read`` gives its text and what names this state of it; raises `ReconcilerError`."""

    where: str

    def read(self, former: str = "") -> tuple[str, str]:
        """Return the text, and the commit or the digest of the file. ``former`` is what counted of it before."""


class InventoryFile:
    """A file on this machine."""

    def __init__(self, path: Path) -> None:
        self.where, self._path = str(path), path

    def read(self, former: str = "") -> tuple[str, str]:  # noqa: ARG002 (a file has no history)
        """Read it."""
        import hashlib

        if not self._path.exists():
            raise inventory.missing(self.where)
        try:
            content = files.read(self._path)
            return files.decoded(content, self._path), hashlib.sha256(content).hexdigest()[:SHOWN]
        except files.CannotRead as error:
            raise ReconcilerError(Problem(self.where, error.summary, error.hint)) from None


class InventoryBranch:
    """A file in a branch of a repository."""

    def __init__(  # noqa: PLR0917 (as `Branch`, and the path in it)
        self,
        remote: Remote,
        path: str,
        data: Path,
        environ: Mapping[str, str],
        signers: Signers | None = None,
        accept: str = "",
    ) -> None:
        self.where, self._path = f"{path} in {remote}", path
        self._branch = Branch(remote, data, environ, signers, accept)

    def read(self, former: str = "") -> tuple[str, str]:
        """Read the newest."""
        commit = self._branch.newest()
        if problem := self._branch.strayed(commit, former):
            raise ReconcilerError(problem)
        if not self._branch.vouched(commit, self._path):
            raise ReconcilerError(self._branch.unsigned(commit))
        content = self._branch.read(commit, self._path).get("")
        if content is None:
            raise inventory.missing(self.where)
        try:
            return content.decode("utf-8"), commit
        except UnicodeDecodeError:
            raise ReconcilerError(Problem(self.where, "is no UTF-8", "save it as UTF-8")) from None


# ------------------------------------------------------------------------------------------------------------- a stack
Shared = tuple[str, Mapping[str, bytes]]
"""A revision of the shared files, and what they hold by their names; both empty where there are none."""


class Joined:
    """The source of one stack: its own branch, with the shared files that its ring has got (a `Source`).

    Where its own files do not go with the first of ``shared``, the next one is tried: what went well before.
    ``problems`` say what is wrong with shared files that can't be had. ``has_engine`` says that the stack was given a
    Docker Engine: whoever writes its directory can then do anything on that machine.
    """

    pause = 60.0
    heads: Heads | None = None

    def __init__(
        self,
        name: str,
        follow: Callable[[Mapping[str, bytes]], Checkout],
        former: Taken | None,
        *shared: Shared,
        problems: Sequence[Problem] = (),
        has_engine: bool = False,
    ) -> None:
        self._name, self._follow, self._former, self._shared = name, follow, former, shared
        self._problems, self._has_engine = problems, has_engine
        self.taken: Taken | None = None
        """What counts of the own branch."""
        self.good = ""
        """The revision of the shared files that counts."""
        self._came: Callable[[str, str], Collection[str]] = lambda _base, _head: ()

    def newest(self) -> str:
        """Nobody asks: each cycle polls."""
        return ""

    def poll(self) -> Sourced:
        """Take the newest own revision that goes with shared files."""
        problems = list(self._problems)
        sourced = Sourced("")
        for commit, content in self._shared:
            own = self._follow({f"shared/{name}": text for name, text in content.items()})
            if self._former is not None:
                own.remind(self._former)
            sourced = own.poll()
            problems += sourced.problems
            if sourced.revision is None:
                continue
            if (unfit := self._unfit(sourced.revision.directory)) is None:
                self.taken, self.good, self._came = own.taken, commit, own.heads.came
                break
            problems.append(unfit)
            sourced = replace(sourced, revision=None)
        return replace(sourced, problems=tuple(dict.fromkeys(problems)))

    def came(self, base: str, head: str) -> Collection[str]:
        """Tell by which commits the own branch went from one to another, and what they merged."""
        return self._came(base, head)

    def _unfit(self, directory: Directory) -> Problem | None:
        """Say why a directory is none of this stack."""
        targets = directory.spec.targets
        if directory.spec.stack != self._name:
            summary = f"says stack: {directory.spec.stack}, and the inventory calls it {self._name}"
            return Problem("stack", summary, "write one name in both: it marks what is ours")
        container = targets.stalwart is not None and targets.stalwart.container
        if self._has_engine or not (container or targets.compose is not None):
            return None
        hint = (
            f"write DOCKER_HOST=unix:///var/run/docker.sock into {self._name}.env of the workers' secrets, if whoever "
            "writes this directory may do anything on that machine; or take it out"
        )
        where = "targets.compose" if targets.compose is not None else "targets.stalwart.container"
        return Problem(where, "needs a Docker Engine, and the workers give this stack none", hint)
