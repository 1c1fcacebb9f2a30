"""A branch of a git repository as the source of revisions.

What is on the branch counts only when all of it is here, it goes on from what counted before, somebody we know has
signed it (where that is asked for), and its directory is valid. Until then the last good one is held, across restarts
and without a network: its files lie in the data directory.

    DATA/source/KEY/store           a bare repository: a cache
    DATA/source/KEY/trees/COMMIT/   all files of a commit
    DATA/source/KEY/pulls/          heads of pull requests (`heads`)
    DATA/source/KEY/taken-PATH.json which one counts
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from reconciler import files, git
from reconciler.daemon import source, taken
from reconciler.daemon.heads import Heads
from reconciler.daemon.remote import Remote
from reconciler.daemon.source import FOLDER
from reconciler.daemon.state import Revision, Sourced
from reconciler.daemon.store import CannotFetch, Signers, Store
from reconciler.daemon.taken import Taken
from reconciler.desired.load import Directory, load
from reconciler.git import tree
from reconciler.git.objects import Damaged
from reconciler.journal import now
from reconciler.names import SHOWN
from reconciler.problem import InvalidDirectory, Problem, ReconcilerError, Severity, printable
from reconciler.process import CannotRun

_FIRST = 600.0  # seconds for the first fetch: nothing else is to be done
_LATER = 60.0  # seconds for a later one, while drift waits to be healed
_PATIENCE = 5.0  # seconds to wait for another process that fetches
_SHORTEST = 7  # characters of a commit that a person may name


_NEAR, _FAR = 2.0, 60.0  # seconds between two questions for the newest commit, on this machine and elsewhere


STORE = "store"
_TOLD = ("commit", "subject", "author", "committer", "when", "signer", "reached")


def folder(data: Path, remote: Remote) -> Path:
    """Return where all that is known of a branch lies; who works there locks it."""
    return data.absolute() / FOLDER / _name(remote.address, remote.branch)


@dataclass(frozen=True, slots=True)
class Following:
    """What the daemon's own configuration says of a repository: whom to trust stands here, never in what is fetched.

    ``path`` is the directory of YAML in it. ``signers`` must have signed the newest commit, where there are any.
    ``accept`` names a commit that may take the place of the last good one without descending from it. ``project`` is
    where relative paths of ``targets.compose`` are seen from; None: from the directory in the commit's files. Where
    many follow one branch, each is ``alone``: it has none but the files below its own path, and waits for no other.
    """

    remote: Remote
    path: str = "desired-state"
    signers: Signers = field(default_factory=Signers)
    accept: str = ""
    project: Path | None = None
    alone: bool = False


class Checkout:
    """Follows a branch. Making one raises `ReconcilerError` for what is wrong in its configuration.

    ``beside`` are files from elsewhere, by their names in the directory, that belong to each state of it. ``newest``
    names the branch's newest commit where somebody else has just asked for it; empty where it is to be asked for.
    """

    def __init__(
        self,
        following: Following,
        data: Path,
        environ: Mapping[str, str],
        beside: Mapping[str, bytes] = MappingProxyType({}),
        newest: Callable[[], str] = lambda: "",
    ) -> None:
        self._following, self._beside, self._told = _checked(following), beside, newest
        self.where, self._remote = following.remote.address, following.remote
        self.pause = _NEAR if self._remote.protocol == "file" else _FAR
        self._folder = folder(data, self._remote)
        self._path = _name(following.path)
        self._memory = self._folder / f"taken-{self._path}.json"
        self._store = Store(self._folder / STORE, self._remote, environ)
        self._trees = self._folder / (f"trees-{self._path}" if following.alone else "trees")
        self._below = following.path.strip("/").encode() if following.alone else b""
        self._locked = self._trees if following.alone else self._folder
        self.heads = Heads(self._folder, following.remote, following.path, environ, following.project)
        check_apart(following, self._folder, environ)
        self._taken: Taken | None = None
        self._revision: Revision | None = None
        self._known = False  # whether what is remembered was looked at
        self._seen = self._reached = ""
        self._invalid: tuple[str, tuple[Problem, ...]] = ("", ())
        self._limit = _FIRST

    def newest(self) -> str:
        """Ask the repository for the branch's commit: one short connection. What was last seen where it is silent."""
        try:
            self._seen = self._store.newest()
        except (CannotFetch, CannotRun):
            return self._seen
        self._reached = now()
        return self._seen

    def poll(self) -> Sourced:
        """Take the branch's newest commit where it may be taken. A first fetch may last ten minutes."""
        problems: list[Problem] = []
        try:
            for place in (self._folder.parent, self._folder, self._locked):
                files.make_private(place)
        except OSError as error:
            problems.append(_no_room(self._folder, error))
        if not self._known:
            self._recall()
        try:
            with files.locked(self._locked, _PATIENCE):
                problems.extend(self._follow())
        except _Held as error:
            problems.extend(error.problems)
        except BlockingIOError:
            problems.append(Problem(str(self._folder), "another process is fetching", "", Severity.WARNING))
        except OSError as error:
            problems.append(_no_room(self._folder, error))
        return Sourced(
            self.where, self._remote.branch, self._revision, self._seen, self._reached, tuple(dict.fromkeys(problems))
        )

    # --------------------------------------------------------------------------------------------- what counted before
    @property
    def taken(self) -> Taken | None:
        """What counts, as others may remember it."""
        return self._taken

    def remind(self, found: Taken) -> None:
        """Go on from what counted last, as another process has seen it: maybe on another machine.

        What leads there is fetched where it is not here, so that it counts though the branch has something bad by now.
        """
        known = taken.recall(self._memory)
        if known is not None and known.commit == found.commit:
            return
        with contextlib.suppress(CannotFetch, CannotRun, Damaged, BlockingIOError, OSError):
            files.make_private(self._folder.parent)
            files.make_private(self._folder)
            with files.locked(self._folder, _PATIENCE):
                if not self._store.has(found.commit):
                    self._store.fetch(self._store.newest(), _FIRST)
                taken.remember(self._memory, found)
        self._known = False

    def _recall(self) -> None:
        """Heal to what counted when we last ran, whether the repository answers or not."""
        self._known = True
        found = taken.recall(self._memory)
        if found is None:
            return
        self._taken, self._reached = found, self._reached or found.reached
        try:
            signer = self._signed_still(found)
            directory = self._restored(found)
        except (_Held, Damaged, CannotRun, tree.Unfit, OSError, InvalidDirectory):
            return  # what the branch has is judged next, and tells what is wrong
        if directory.digest != found.digest:  # other files lie beside it by now
            texts = {name: getattr(found, name) for name in _TOLD}
            self._taken = found = Taken.after(found, directory, **texts)
            with contextlib.suppress(OSError):
                taken.remember(self._memory, found)
        self._revision = self._revised(replace(found, signer=signer), directory)
        self._limit = _LATER

    def _signed_still(self, found: Taken) -> str:
        if not self._following.signers:
            return ""
        return self._signer(found.commit) if self._store.has(found.commit) or not found.signer else found.signer

    def _restored(self, found: Taken) -> Directory:
        """Read the files of a commit again; those that a disk has lost, or a power cut torn, are written anew."""
        place = self._trees / found.commit
        try:
            if not tree.is_whole(self._store, found.commit, place, self._below):
                tree.write(self._store, found.commit, place, self._below)
        except (Damaged, CannotRun):
            directory = self._load(place)
            if directory.digest == found.digest:
                return directory
            raise
        return self._load(place)

    def _load(self, place: Path) -> Directory:
        folder, path = place / self._following.path, self._following.path
        if not folder.resolve().is_relative_to(place.resolve()):
            raise tree.Unfit(f"has a link as {path}, which leaves the repository", "commit the folder itself")
        if not folder.is_dir():
            raise tree.Unfit(f"has no folder {path}", "correct --path, or add it to the branch")
        return load(folder, self._beside)

    # ------------------------------------------------------------------------------------------------- what is new
    def _follow(self) -> tuple[Problem, ...]:
        """Take the newest commit. Raises `_Held` where it is not taken."""
        standing = source.standing(self._revision)
        try:
            newest = self._seen = self._newest()
            self._reached = now()
            held = self._revision
            if held is not None and newest == held.commit and held.directory.path.is_dir():
                return ()
            try:
                return self._advance(newest)
            except Damaged:
                self._store.remove()
                return self._advance(newest)
        except CannotFetch as error:
            raise _Held(Problem(self.where, f"{error.summary}, {standing}", error.hint)) from None
        except CannotRun as error:
            hint = "install git" if error.missing else "look at how busy this machine and its disk are"
            raise _Held(Problem("git", f"{error.why}, {standing}", hint)) from None
        except Damaged:
            hint = f"look at the disk that {self._store.place} is on"
            raise _Held(Problem(self.where, f"what was fetched of it can't be read, {standing}", hint)) from None

    def _newest(self) -> str:
        """Name the branch's newest commit, by asking where who has just asked did so before we took a later one."""
        told, last = self._told(), self._taken
        known = told and last and told != last.commit and self._store.has(told)
        if known and last and self._store.descends(last.commit, told):
            told = ""
        return told or self._store.newest()

    def _advance(self, newest: str) -> tuple[Problem, ...]:
        commit = newest if self._store.fetched() == newest else self._fetch(newest)
        if self._invalid[0] == commit:
            raise _Held(*self._invalid[1])
        self._check_descent(commit)
        try:
            signer = self._signer(commit) if self._following.signers else ""
            return self._take(commit, signer, self._written(commit))
        except CannotRun as error:
            if not error.endless:
                raise
            summary = f"commit {commit[:SHOWN]} says more than is read of one, {source.standing(self._revision)}"
            hint = "look who made it: its names or its message have tens of MiB"
            self._invalid = (commit, (Problem(str(self._remote), summary, hint),))
            raise _Held(*self._invalid[1]) from None

    def _fetch(self, newest: str) -> str:
        try:
            if self._following.alone:  # others fetch the same
                with files.locked(self._folder, self._limit):
                    if self._store.fetched() != newest:
                        self._store.fetch(newest, self._limit)
                    self._seen = self._store.fetched()
                    self._store.tidy()
            else:
                self._seen = self._store.fetch(newest, self._limit)
        except CannotFetch:
            self._limit = min(_FIRST, 2 * self._limit)  # a large one may need longer
            raise
        self._limit = _LATER
        return self._seen

    def _check_descent(self, commit: str) -> None:
        """Raise `_Held` where the branch was rewritten: what counted is no longer in its history."""
        last = self._taken
        if last is None or commit == last.commit or self._store.descends(commit, last.commit):
            return
        if accepts(self._following.accept, commit):
            return
        raise _Held(strayed(self._remote, self._store, commit, last.commit, source.standing(self._revision)))

    def _signer(self, commit: str) -> str:
        signers = self._following.signers
        for path in (signers.ssh, signers.gpg):
            if path is not None and not path.exists():
                summary = f"is missing, so no signature can be checked, {source.standing(self._revision)}"
                raise _Held(Problem(str(path), summary, "put it back, or correct where it is"))
        signer = self._store.signer(commit, signers)
        if not signer:
            summary = f"commit {commit[:SHOWN]} is signed by nobody whom we know, {source.standing(self._revision)}"
            hint = f"sign the newest commit with a key that stands in {signers.ssh or signers.gpg} (git commit -S)"
            raise _Held(Problem(str(self._remote), summary, hint, Severity.REFUSED))
        return signer

    def _written(self, commit: str) -> Directory:
        """Write a commit's files and read its directory. Raises `_Held`."""
        place, said = self._trees / commit, f"commit {commit[:SHOWN]} "
        problems: tuple[Problem, ...]
        try:
            self._trees.mkdir(exist_ok=True)
            tree.sweep(self._trees, self._used())
            tree.write(self._store, commit, place, self._below)
            return self._load(place)
        except tree.Unfit as error:
            summary = f"{said}{error.summary}, {source.standing(self._revision)}"
            problems = (Problem(str(self._remote), summary, error.hint),)
        except InvalidDirectory as error:
            reasons = _within(error, place)
            problems = source.held(str(self._remote), f"{said}is not taken", reasons, self._revision)
        self._invalid = (commit, problems)
        raise _Held(*problems)

    def _take(self, commit: str, signer: str, directory: Directory) -> tuple[Problem, ...]:
        facts = self._store.describe(commit)
        texts = {name: printable(getattr(facts, name)) for name in ("subject", "author", "committer", "when")}
        signed = {"signer": printable(signer), "reached": self._reached}
        found = Taken.after(self._taken, directory, commit=commit, **signed, **texts)
        self._store.keep(commit, self._path)
        self._taken, self._revision = found, self._revised(found, directory)
        if not self._following.alone:
            self._store.tidy()
        try:
            taken.remember(self._memory, found)
        except OSError as error:
            return (source.unwritable(self._memory, error),)
        return ()

    def _revised(self, found: Taken, directory: Directory) -> Revision:
        directory = source.resolved(found.hold(directory), self._following.project)
        return Revision(directory, **{name: getattr(found, name) for name in _TOLD if name != "reached"})

    def _used(self) -> list[str]:
        """Name the commits that count for whoever follows this branch, at whatever path of it."""
        paths = [self._memory] if self._following.alone else self._folder.glob("taken-*.json")
        found = (taken.recall(path) for path in paths)
        return [item.commit for item in found if item is not None]


class _Held(Exception):
    """Why what the branch has is not taken."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__(*problems)
        self.problems = problems


def accepts(accept: str, commit: str) -> bool:
    """Whether a person has named a commit, which may then have another history than what counted."""
    return len(accept) >= _SHORTEST and commit.startswith(accept.lower())


def strayed(remote: Remote, store: Store, commit: str, former: str, standing: str) -> Problem:
    """Say that a commit does not come after the one that counted. Raises `Damaged`."""
    went_back = store.has(former) and store.descends(former, commit)
    how = "went back to the older" if went_back else "was rewritten: it does not lead to what counts, but to"
    summary = f"the branch {how} commit {commit[:SHOWN]}, which is not taken {standing}"
    hint = (
        f"look at what became of {former[:SHOWN]}; to take it, start with --accept-rewritten {commit[:SHOWN]}, "
        "or revert by a commit on top"
    )
    return Problem(str(remote), summary, hint, Severity.REFUSED)


def _within(error: InvalidDirectory, place: Path) -> tuple[Problem, ...]:
    """Name files as the repository does, not where they were written."""
    return tuple(replace(item, where=item.where.replace(f"{place}/", "")) for item in error.problems)


def _name(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _no_room(folder: Path, error: OSError) -> Problem:
    summary = f"nothing new can be fetched into it: {error.strerror or type(error).__name__}"
    return Problem(str(folder), summary, "free space, or name a writable directory with --data")


def _checked(following: Following) -> Following:
    path = PurePosixPath(following.path)
    if path.is_absolute() or ".." in path.parts or ".git" in path.parts or not following.path.isprintable():
        problem = Problem("the path", f"{following.path!a} is none in a repository", "write it like desired-state")
        raise ReconcilerError(problem)
    check_accept(following.accept)
    signers = Signers(*(path and path.absolute() for path in (following.signers.ssh, following.signers.gpg)))
    return replace(following, signers=signers)


def check_accept(accept: str) -> None:
    """Raise `ReconcilerError` for a name that may mean several commits."""
    if accept and len(accept) < _SHORTEST:
        raise ReconcilerError(Problem("--accept-rewritten", "is too short to mean one commit", "write 12 characters"))


def check_apart(following: Following, folder: Path, environ: Mapping[str, str]) -> None:
    """Refuse signers that whoever writes to the repository would choose: also in another clone of it."""
    remote = following.remote
    there = Path(remote.address)
    local = (there.parent if there.name == ".git" else there,) if remote.protocol == "file" else ()
    places = [place.resolve() for place in (folder.parent, *local)]
    for path in filter(None, (following.signers.ssh, following.signers.gpg)):
        real = path.resolve()
        within = any(real.is_relative_to(place) for place in places)
        cloned = (any(map(remote.is_of, git.origins(it, environ))) and git.tracked(it, environ) for it in (path, real))
        if within or any(cloned):
            summary = "lies in the repository that it is to judge"
            raise ReconcilerError(Problem(str(path), summary, "keep it outside, where only you write"))
