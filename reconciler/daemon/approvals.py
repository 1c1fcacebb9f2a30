"""Approval where nobody watches: what a stack's directory last wanted with everybody's consent, and what waits since.

    DATA/settled-STACK.json    the texts of the directory all of which was approved, or was desired by a mere merge
    DATA/approval-STACK.json   what is held now, and the fingerprints that a person has approved
    DATA/seals-STACK.json      by which it is seen that a secret has another value than was agreed (`secrets.seals`)
    DATA/pulls-STACK.json      the plans that pull requests show, which a merge approves (`posted`)

The first two are of one state of the directory: a later commit that changes it voids what was approved and not yet
done. Losing them loses consent, never safety: what can't be told to heal is held until a person approves it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from reconciler import files
from reconciler.daemon import posted
from reconciler.desired.load import Directory, load
from reconciler.guards.approval import SHOWN, Approvals
from reconciler.plan import Plan, fingerprint
from reconciler.problem import Problem, ReconcilerError, Refused, Severity
from reconciler.resources import Resource, SecretRef, Unreadable, references
from reconciler.secrets import seals
from reconciler.stack import Stack
from reconciler.target import Outcome, Status

_VERSION = 1
_COMMAND = "reconciler approve"


# ------------------------------------------------------------------------------------------------- what is remembered
@dataclass(frozen=True, slots=True)
class Memory:
    """What was held of one state of a directory, by its ``digest``.

    ``held`` maps addresses to the fingerprints of what waits now, ``since`` are all that ever waited, ``accepted``
    those of them that were as desired then. ``approved`` maps fingerprints to who approved them, and when. ``came`` are
    the commits by which this state came, and what they merged.
    """

    digest: str = ""
    held: Mapping[str, str] = field(default_factory=dict)
    since: tuple[str, ...] = ()
    accepted: tuple[str, ...] = ()
    approved: Mapping[str, str] = field(default_factory=dict)
    came: tuple[str, ...] = ()


def recall(data: Path, stack: str) -> Memory:
    """Return what is remembered; a damaged file says nothing."""
    return files.recall(_path(data, stack), _parsed)[0] or Memory()


def approve(data: Path, stack: str, named: Collection[str], who: str) -> Mapping[str, str]:
    """Let held changes through in the daemon's next cycle: address and fingerprint of each. Raises `ReconcilerError`.

    ``named`` are fingerprints, or how they begin. None is approved where one of them is that of nothing that waits.
    """
    path = _path(data, stack)
    try:
        files.check_own(data)
        with files.locked(data):
            memory = recall(data, stack)
            found = _found(memory, named)
            approved = {**memory.approved, **dict.fromkeys(found.values(), who)}
            _remember(path, replace(memory, approved=approved))
    except OSError as error:
        summary = f"can't be changed: {error.strerror or type(error).__name__}"
        raise ReconcilerError(Problem(str(path), summary, f"let your user write to {path.parent}")) from None
    return found


def _found(memory: Memory, named: Collection[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for item in named:
        meant = {address: told for address, told in memory.held.items() if told.startswith(item)}
        if len(meant) != 1:
            waiting = ", ".join(f"{told[:SHOWN]} ({address})" for address, told in sorted(memory.held.items())[:12])
            summary = "means several of what waits" if meant else "is the fingerprint of nothing that waits"
            hint = f"what waits: {waiting}" if waiting else "nothing waits: look at `reconciler status`"
            raise Refused(Problem(item, summary, hint))
        found |= meant
    return found


def _content(directory: Directory, name: str) -> bytes:
    return directory.given[name] if name in directory.given else files.read(directory.path / name)


def _path(data: Path, stack: str) -> Path:
    return data / f"approval-{stack}.json"


def _remember(path: Path, memory: Memory) -> None:
    files.write_private(path, json.dumps({"v": _VERSION, **asdict(memory)}).encode())


def _parsed(said: Any) -> Memory:
    if said["v"] != _VERSION:
        raise ValueError(said["v"])
    maps = {name: {str(key): str(item) for key, item in said[name].items()} for name in ("held", "approved")}
    since, accepted = (tuple(map(str, said[name])) for name in ("since", "accepted"))
    came = tuple(map(str, said.get("came", ())))  # absent in what an older version wrote
    return Memory(str(said["digest"]), maps["held"], since, accepted, maps["approved"], came)


# ---------------------------------------------------------------------------------------------------- in each cycle
class Approving:
    """What a daemon does about approval before and after each cycle of its one stack.

    ``came`` tells by which commits a branch went from one to another, and what they merged.
    """

    def __init__(self, came: Callable[[str, str], Collection[str]] = lambda _base, _head: ()) -> None:
        self._came = came
        self._settled: Directory | None = None
        self._commit = ""  # at which all was agreed

    def begin(self, stack: Stack) -> tuple[Problem, ...]:
        """Tell a stack what its plans may do; return what could not be written down."""
        stack.approvals = stack.former = None
        stack.seals = seals.Seals()
        if stack.spec.policy.approval == "merge":
            seals.forget(stack.data, stack.name)
            return self._settle(stack)
        former = self._former(stack)
        untold = () if former and former.digest == stack.directory.digest else self._note_merges(stack)
        govern(stack, former)
        return untold

    def end(self, stack: Stack, plan: Plan | None, outcomes: Iterable[Outcome] = ()) -> tuple[Problem, ...]:
        """Take note of what a plan after the cycle holds; where it holds nothing, all of the directory is agreed."""
        if plan is None or stack.approvals is None:
            return ()
        untold = note_secrets(stack, plan, outcomes)
        if _is_whole(plan):
            return (*untold, *self._settle(stack), *self._forget(stack))
        return (*untold, *_note(stack, plan))

    def _former(self, stack: Stack) -> Directory | None:
        if self._settled is None:
            self._settled, self._commit = _agreed(stack)
        return self._settled

    def _note_merges(self, stack: Stack) -> tuple[Problem, ...]:
        """Take note of what was merged since all was agreed: what was posted there is approved."""
        commit = stack.revision
        if not (self._commit and commit) or self._commit == commit:
            return ()
        came = tuple(sorted(self._came(self._commit, commit)))
        return _changed(stack, lambda memory: replace(memory, came=came))

    def _settle(self, stack: Stack) -> tuple[Problem, ...]:
        """Remember the directory as it is: what it wants is healed from now on, whatever comes."""
        directory, commit = stack.directory, stack.revision
        former = self._former(stack)
        if former is not None and (former.digest, self._commit) == (directory.digest, commit):
            return ()
        try:
            texts = {name: _content(directory, name).decode() for name in directory.files}
            found = _loaded(directory.path, texts)
            if found is None or found.digest != directory.digest:
                return ()  # somebody is at work on the files: the next cycle takes them
            self._settled, self._commit = found, commit
            said = {"v": _VERSION, "files": texts, "commit": commit}
            files.write_private(_place(stack), json.dumps(said).encode())
        except (OSError, UnicodeDecodeError, files.CannotRead) as error:
            why = getattr(error, "strerror", None) or type(error).__name__
            hint = "free space, or name a writable directory with --data"
            summary = f"can't be written ({why}): after a restart what heals may wait for approval"
            return (Problem(str(_place(stack)), summary, hint, Severity.WARNING),)
        return ()

    def _forget(self, stack: Stack) -> tuple[Problem, ...]:
        """Let approvals count no more once all is agreed: a secret's value that comes back needs one of its own."""
        agreed = self._settled is not None and self._settled.digest == stack.directory.digest
        none = Memory(stack.directory.digest)
        return _changed(stack, lambda _: none) if agreed and _of(stack) != none else ()


def govern(stack: Stack, former: Directory | None) -> None:
    """Have a stack's plans hold what waits, where its policy says so.

    Where all of its directory is agreed, these are the values of secrets, of which no posted plan says anything.
    """
    if stack.spec.policy.approval == "merge":
        return
    memory, digest = _of(stack), stack.directory.digest
    agreed = former is not None and former.digest == digest
    plans = () if agreed else posted.approved(stack.data, stack.name, memory.came, digest)
    stack.former, stack.seals = former, seals.recall(stack.data, stack.name)
    stack.approvals = Approvals(plans, frozenset(memory.approved), frozenset(memory.accepted), _COMMAND)


def _is_whole(plan: Plan) -> bool:
    return plan.complete and not plan.errors and not plan.held


def note_secrets(stack: Stack, plan: Plan, outcomes: Iterable[Outcome]) -> tuple[Problem, ...]:
    """Take note of the values of secrets: of those that were approved and set, and those that are in force.

    ``plan`` is what is left to do. Whether one is in force that the server does not tell of (a password, from 0.16) is
    not known: of that the value counts that was agreed before. Return what can't be written, or was lost.
    """
    wanted = [(item, live) for _, item, live in plan.compared if item is not None]
    waiting = {ref for change in plan.changes for ref, _ in change.unsealed}
    set_anew = [item.change for item in outcomes if item.status is Status.DONE]
    if stack.approvals is not None:
        done = {ref for change in set_anew for ref, _ in change.unsealed}
    else:  # all of it was approved at once
        done = {ref for change in set_anew for ref in change.replaced}
    if whole := _is_whole(plan):
        untold = {ref for item, live in wanted if live is not None for ref in _untold(item, live.resource)}
        done |= {ref for item, _ in wanted for ref in _held_by(item)} - untold
    read = stack.read((item for item, _ in wanted), done - waiting, whole=whole)
    return seals.note(stack.data, stack.name, read)


def _held_by(resource: Resource) -> Iterator[SecretRef]:
    for _, value in resource.declared():
        yield from references(value)


def _untold(wanted: Resource, live: Resource) -> Iterator[SecretRef]:
    """Yield the secrets of fields of which can't be told what is live."""
    for name, want in wanted.values():
        if isinstance(getattr(live, name, None), Unreadable):
            yield from references(want)


def settled(stack: Stack) -> Directory | None:
    """Return a stack's directory as it was when all of it was agreed; None where that is not known."""
    return _agreed(stack)[0]


def _agreed(stack: Stack) -> tuple[Directory | None, str]:
    """Return it with the commit it was of, empty where that is not known."""
    found, _ = files.recall(_place(stack), _texts)
    return (_loaded(stack.directory.path, found[0]), found[1]) if found else (None, "")


def _place(stack: Stack) -> Path:
    return stack.data / f"settled-{stack.name}.json"


def _texts(said: Any) -> tuple[dict[str, str], str]:
    if said["v"] != _VERSION:
        raise ValueError(said["v"])
    texts = {str(name): str(text) for name, text in said["files"].items()}
    return texts, str(said.get("commit", ""))  # absent in what an older version wrote


def _loaded(path: Path, texts: Mapping[str, str]) -> Directory | None:
    try:
        return load(path, {name: text.encode() for name, text in texts.items()}, alone=True)
    except ReconcilerError:  # as of a version that took what this one does not
        return None


def _of(stack: Stack) -> Memory:
    """Return what is remembered of the directory as it is: of another state nothing counts."""
    memory = recall(stack.data, stack.name)
    return memory if memory.digest == stack.directory.digest else Memory(stack.directory.digest)


def _note(stack: Stack, plan: Plan) -> tuple[Problem, ...]:
    names = {problem.where for problem in plan.held}
    held = {item.address: fingerprint(plan.stack, item) for item in plan.changes if item.address in names}
    due = {change.address for change in plan.changes}
    there = {address for address, wanted, live in plan.compared if wanted is not None and live is not None}

    def noted(memory: Memory) -> Memory:
        since = {*memory.since, *held}
        accepted = {*memory.accepted, *((since & there) - due)}
        return replace(memory, held=held, since=tuple(sorted(since)), accepted=tuple(sorted(accepted)))

    return _changed(stack, noted)


def _changed(stack: Stack, change: Callable[[Memory], Memory]) -> tuple[Problem, ...]:
    """Change what is remembered of the directory as it is; say where it can't be written."""
    path = _path(stack.data, stack.name)
    try:
        files.make_private(stack.data)
        with files.locked(stack.data):
            new = change(_of(stack))
            if new != recall(stack.data, stack.name):
                _remember(path, new)
    except OSError as error:
        summary = f"can't be written ({error.strerror or type(error).__name__}): nothing that is held can be approved"
        return (Problem(str(path), summary, "free space, or name a writable directory with --data", Severity.WARNING),)
    return ()
