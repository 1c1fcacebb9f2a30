"""The heads of pull requests, read beside the branch that they are to be merged into, and never checked out.

    DATA/source/KEY/pulls/NUMBER   a bare repository: a cache, which goes with its pull request

Each has a store of its own, so that nothing that somebody pushed can hurt what the daemon heals to. What is planned is
what a merge would make: a head that lacks what the branch got meanwhile would else seem to undo that.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from reconciler.daemon.remote import Remote
from reconciler.daemon.source import resolved
from reconciler.daemon.state import Revision
from reconciler.daemon.store import CannotFetch, Store
from reconciler.daemon.taken import Limits
from reconciler.desired.committed import Repository
from reconciler.desired.unmerged import Candidate
from reconciler.git.objects import Damaged, Objects
from reconciler.names import SHOWN
from reconciler.problem import Problem, ReconcilerError

_LIMIT = 60.0  # seconds for a fetch
_NEAR, _FAR = 5.0, 60.0  # seconds between two looks at what is open, for a repository on this machine and elsewhere


class Heads:
    """The pull requests to one branch. ``folder`` is that of the branch's store.

    ``path`` is the directory's in the repository, ``pause`` how many seconds to leave between two questions which ones
    are open.
    """

    def __init__(
        self, folder: Path, remote: Remote, path: str, environ: Mapping[str, str], project: Path | None = None
    ) -> None:
        """``project`` is where relative paths of ``targets.compose`` are seen from; None: from the directory."""
        self._folder, self._remote, self.path = folder, remote, path
        self._environ, self._project = environ, project
        self.branch = remote.branch
        self.pause = _NEAR if remote.protocol == "file" else _FAR

    @contextmanager
    def proposed(self, number: int, head: str, base: Revision) -> Iterator[Candidate]:
        """Yield what a plan of a pull request's head is made of, merged into a revision that counts, before it is.

        Raises `ReconcilerError` for what whoever opened it can mend, and `CannotFetch`, `Damaged`, `CannotRun` and
        OSError where it can't be looked at.
        """
        store = Store(self._place(number), replace(self._remote, pull=number), self._environ, self._folder / "store")
        self._fetch(store, number, head)
        commit = head if store.descends(head, base.commit) else store.merge(base.commit, head)
        if not commit:
            hint = f"merge {self.branch} into it, or rebase it onto that"
            raise ReconcilerError(Problem(f"pull request {number}", f"conflicts with {self.branch}", hint))
        top = self._folder / "trees" / base.commit
        with Repository(top, Path(self.path), store).proposed(base.commit, commit) as found:
            # Whom to trust is what counts, which may be tighter than what the base's own text says.
            directory = Limits.of(base.directory.spec).hold(found.directory)
            told = found.unmerged and replace(found.unmerged, head=head)
            yield replace(found, directory=resolved(directory, self._project), commit=head, unmerged=told)

    def _fetch(self, store: Store, number: int, head: str) -> None:
        store.place.parent.mkdir(exist_ok=True)
        if store.fetched() == head:
            return
        try:
            found = store.fetch(head, _LIMIT)
        except Damaged:
            store.remove()
            found = store.fetch(head, _LIMIT)
        if found != head:
            summary = (
                f"has commit {found[:SHOWN]} as the head of pull request {number}, and GitHub's API says {head[:SHOWN]}"
            )
            raise CannotFetch(summary, "look whether --repo is the repository that daemon.github names")

    def came(self, base: str, head: str) -> Collection[str]:
        """Return the commits by which the branch went from one to another, and what they merged.

        Empty where that can't be told.
        """
        try:
            return Objects(self._folder / "store", self._environ).came(base, head)
        except Damaged:
            return ()

    def keep(self, numbers: Collection[int]) -> None:
        """Forget all pull requests but these."""
        kept = {self._place(number) for number in numbers}
        for place in self._folder.glob("pulls/*"):
            if place not in kept:
                shutil.rmtree(place, ignore_errors=True)

    def _place(self, number: int) -> Path:
        return self._folder / "pulls" / str(number)
