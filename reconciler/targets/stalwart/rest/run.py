"""One apply to Stalwart up to 0.15: principals one by one, then all keys at once, a reload, and a restart."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from reconciler.desired.raw_keys import in_config_file
from reconciler.problem import Problem, SecretUnreadable, TargetUnreadable
from reconciler.secrecy import without_values
from reconciler.target import Change, Outcome, Progress, Reveal, Status, renewed
from reconciler.targets.stalwart.connection import AnswerLost
from reconciler.targets.stalwart.container import ConfigFile, Docker, look
from reconciler.targets.stalwart.passwords import Hashes
from reconciler.targets.stalwart.rest.api import Rejected, RestApi
from reconciler.targets.stalwart.rest.kind import PENDING, Edit, KeyKind, Keys, Reading, Stored, insert, pending
from reconciler.targets.stalwart.rest.principals import Means, Principal, released
from reconciler.targets.stalwart.work import Item, restart_for, undone, unusable

# What else keeps a server from reloading, and how to get it out of the way.
_UNBLOCK = {
    "spam-filter.pyzor.host": "give the container working DNS, or write `settings: {spam-filter.pyzor.enable: false}`, "
    "then run apply again"
}


Query = tuple[Sequence[str], Sequence[str]]
"""Prefixes, and single keys, that are read in one request."""


class Run:
    """One apply: what failed so far, and whether the server has become unreachable on the way."""

    def __init__(
        self, api: RestApi, reveal: Reveal, docker: Docker | None, progress: Progress, changes: Sequence[Change]
    ) -> None:
        """Make the hashes that the changes send; nothing is sent yet."""
        self._api, self._reveal, self._docker, self._progress = api, reveal, docker, progress
        self._means = Means(Hashes(changes, reveal, progress), changes, api.principals, api.roles)
        self._put_off: list[tuple[Principal[Any], Item]] = []
        self._down: Problem | None = None
        self._failed: set[str] = set()

    def _told(self, item: Item) -> Outcome:
        if item.status is not Status.DONE:
            self._failed.add(item.change.address)
        return item.outcome

    def _begun(self, change: Change) -> Item:
        """Begin a change; it is skipped where it can't even be tried."""
        item = Item(change=change)
        if self._down is not None:  # a problem of the server, not of this change
            item.status, item.problem = Status.SKIPPED, self._down
        elif (problem := undone(change, self._failed)) is not None:
            item.fail(problem, Status.SKIPPED)
        if item.problem is not None:
            self._failed.add(change.address)  # at once: what needs this one follows
        return item

    # ------------------------------------------------------------------------------------------------------ principals
    def principal(self, kind: Principal[Any], change: Change) -> Iterator[Outcome]:
        """Create, change or delete a principal, and look again where that alone can tell how it went.

        What of it waits for others is put off: `finish` tells the outcome.
        """
        item = self._begun(change)
        first = kind.at_once(change)
        if item.problem is None:
            self._sent(kind, item, first, self._send)
        if item.problem is None and first is not change:
            self._put_off.append((kind, item))
        else:
            yield self._told(item)

    def finish(self) -> Iterator[Outcome]:
        """Write what was put off. Nothing waits for that: what others need of it is there by now."""
        for kind, item in self._put_off:
            if self._down is None:
                self._sent(kind, item, item.change, self._send_afterwards)
            else:
                item.fail(self._down)
            yield item.outcome

    def _sent(
        self, kind: Principal[Any], item: Item, change: Change, send: Callable[[Principal[Any], Change], None]
    ) -> None:
        login = self._api.connection.login
        try:
            send(kind, change)
            kind.written(change, login)
        except AnswerLost as error:
            kind.written(change, login)
            self._look_again(kind, item, change, error.problems[0], Status.UNKNOWN)
        except TargetUnreadable as error:
            self._down = item.problem = error.problems[0]
            item.status = Status.FAILED
        except Rejected as error:
            problem = _declined(change, error)
            if error.error == "fieldAlreadyExists":  # perhaps our own, whose answer was lost
                self._look_again(kind, item, change, problem, Status.FAILED)
            else:
                item.fail(problem)
        except (ValueError, SecretUnreadable) as error:
            item.fail(unusable(change.address, error))

    def _send(self, kind: Principal[Any], change: Change) -> None:
        before, after = change.before, change.after
        if before is None:
            self._api.create(kind.body(change.resource, self._means))
        elif after is None:
            self._api.delete(before.id)
        elif operations := kind.operations(change, before.resource, after, self._means):
            self._api.patch(before.id, operations)

    def _send_afterwards(self, kind: Principal[Any], change: Change) -> None:
        for name, operations in kind.afterwards(change, self._api.principals()):
            self._api.patch(name, operations)

    def release(self, change: Change) -> None:
        """Take the addresses that something gives up from it before its own turn, as others in a circle want them."""
        if self._down is not None or change.before is None:
            return
        try:
            self._api.patch(change.before.id, released(change))
        except (TargetUnreadable, Rejected):
            return  # the change itself comes next and tells what is wrong

    def _look_again(
        self, kind: Principal[Any], item: Item, change: Change, problem: Problem, otherwise: Status
    ) -> None:
        """Read again what may have been written: done if it is as desired. Nothing is sent twice blindly."""
        try:
            if self._is_so(kind, change):
                return
        except TargetUnreadable as error:
            self._down = error.problems[0]
        except Rejected:
            pass
        item.fail(problem, otherwise)

    def _is_so(self, kind: Principal[Any], change: Change) -> bool:
        if change.after is None:
            return change.before is not None and self._api.principal(change.before.id) is None
        reading = Reading(self._api.principals(), {}, [change.after], reveal=self._reveal)
        return any(not ((now := renewed(change, live)) and now.fields) for live in kind.live(reading))

    # ------------------------------------------------------------------------------------------------------------ keys
    def keys(self, changes: Sequence[tuple[KeyKind[Any], Change]], query: Query) -> Iterator[Outcome]:
        """Write all in one request, put them in force, and see whether they are. ``query`` reads what is there."""
        items = [(kind, self._begun(change)) for kind, change in changes]
        tried = [(kind, item) for kind, item in items if item.problem is None]
        self._store([(kind, item) for kind, item in tried if not item.change.restarts], query)
        due = [
            item
            for kind, item in tried
            if item.change.restarts or (kind.restarts and item.problem is None and not item.change.deletes)
        ]
        yield from (self._told(item) for _, item in items if item not in due)
        if self._down is not None:
            for item in due:
                item.status, item.problem = Status.SKIPPED, self._down
        elif due:
            restart_for(due, self._docker, self._api.connection, self._progress, then="opens")
        yield from (self._told(item) for item in due)

    def _store(self, items: Sequence[tuple[KeyKind[Any], Item]], query: Query) -> None:
        try:
            if items:
                self._stored(items, query)
        except TargetUnreadable as error:
            self._down = error.problems[0]
            for _, item in items:
                item.status = Status.UNKNOWN if isinstance(error, AnswerLost) else Status.FAILED
                item.problem = self._down
        except Rejected as error:  # what follows the writing: the reload, reading back, the end of the note
            for _, item in items:
                if item.problem is None:
                    item.fail(_unproven(item.change, error), Status.UNKNOWN)

    def _stored(self, items: Sequence[tuple[KeyKind[Any], Item]], query: Query) -> None:
        before = Stored(self._api.keys(*query))
        others = [item.change for _, item in items]
        edits: list[tuple[Edit, Item]] = []
        for kind, item in items:
            try:
                edits.append((kind.edit(item.change, before, self._reveal, others), item))
            except (ValueError, SecretUnreadable) as error:
                item.fail(unusable(item.change.address, error))
        if not edits:
            return
        edits.sort(key=lambda pair: (pair[0].local, pair[0].rank))  # a read-only config.toml stops the request there
        only = [edit for edit, _ in edits]
        refusal = self._written(only, before)
        unmade = {} if refusal else self._made(only)
        ours, foreign = self._in_force(only, before)
        now = self._api.keys(*query)
        written = {key for edit in only for key in edit.written}
        for edit, item in edits:
            unlike = edit.unlike(now, written)
            problem = _objection(edit, ours, foreign)
            if problem is None and unlike:
                problem = unmade.get(edit.change.address)
            problem = problem or self._shortfall(edit, refusal, unlike)
            if problem is not None:
                lost = isinstance(refusal, AnswerLost) and unlike
                item.fail(problem, Status.UNKNOWN if lost else Status.FAILED)

    def _written(self, edits: Sequence[Edit], before: Keys) -> Rejected | AnswerLost | None:
        """Send all edits, with a note of what is not in force yet. Returns what came in place of success."""
        touched = dict.fromkeys((*pending(before), *(item for edit in edits for item in edit.noted)))
        operations = [insert({PENDING: ",".join(touched)})]
        operations += [operation for edit in edits for operation in edit.operations()]
        try:
            self._api.write(operations)
        except AnswerLost as error:
            return error
        except Rejected as error:
            self._take_back([edit for edit in edits if edit.local], before)
            return error
        return None

    def _made(self, edits: Sequence[Edit]) -> dict[str, Problem]:
        """Have the server make its keys, and return what came in place of success, by address."""
        problems = {}
        for edit in edits:
            address = edit.change.address
            try:
                if edit.make is not None:
                    self._api.make_key(*edit.make)
            except AnswerLost as error:
                problems[address] = error.problems[0]
            except Rejected as error:  # one that exists is ours: the id was empty a moment ago
                problems[address] = _declined(edit.change, error)
        return problems

    def _take_back(self, edits: Sequence[Edit], before: Keys) -> None:
        """Put back what was stored before. A read-only config.toml refuses this too, after changing its memory."""
        operations = [operation for edit in edits for operation in edit.undo(before).operations()]
        if operations:
            try:
                self._api.write(operations)
            except Rejected:
                return

    def _in_force(self, edits: Sequence[Edit], before: Keys) -> tuple[dict[str, str], dict[str, str]]:
        """Reload, and return what the server objects to: in what we wrote, and in what stands in the way.

        A bad value of ours is taken back, so that the others get in force.
        """
        errors = self._api.reload()
        bad = [edit for edit in edits if any(map(edit.concerns, errors))]
        ours = {key: text for key, text in errors.items() if any(edit.concerns(key) for edit in bad)}
        if bad:
            self._take_back(bad, before)
            errors = self._api.reload()
        if not errors:
            self._api.write([{"type": "delete", "keys": [PENDING]}])
        return ours, errors

    def _shortfall(self, edit: Edit, refusal: Rejected | AnswerLost | None, unlike: Sequence[str]) -> Problem | None:
        """Say why what is stored is not what was sent."""
        if isinstance(refusal, Rejected) and (edit.local or unlike):
            return _declined(edit.change, refusal)
        if not unlike:
            return None
        if isinstance(refusal, AnswerLost):
            return refusal.problems[0]
        key, address = min(unlike), edit.change.address
        if in_config_file(key):
            return Problem(address, f"{key} was written and reads otherwise", "look at config.toml and the log")
        return override(address, key, look(self._docker, file=True).file)


def override(address: str, key: str, file: ConfigFile | None) -> Problem:
    """Say that a key of the database stands in config.toml, where it wins for ever (traps.md 20 and 21)."""
    path = file.path if file else "config.toml"
    line = file.line_of(key) if file else f"`{key}`"
    return Problem(
        address,
        f"{key} belongs into the database but stands in {path}, and the file always wins",
        f"remove {line} from {path} and restart the container: a reload does not read the file",
        scope=address,
    )


def _objection(edit: Edit, ours: Mapping[str, str], foreign: Mapping[str, str]) -> Problem | None:
    """Say what keeps an edit from being in force."""
    address = edit.change.address
    for key, text in ours.items():
        if edit.concerns(key):
            hint = "correct the value; what was there before is back in force"
            if key in edit.drop and key not in edit.put:  # such as the rates that a first start writes
                hint = "the server has no default for it: write a value; what was there before is back in force"
            return Problem(address, f"the server does not take {key}: {text}", hint)
    for key, text in foreign.items():
        cause = f"{key}: {without_values(text)}"  # it may quote what somebody else wrote there
        summary = f"is stored but not in force: the server keeps its old settings because of {cause}"
        return Problem(address, summary, _UNBLOCK.get(key, f"correct {key}, then run apply again"))
    return None


def _unproven(change: Change, error: Rejected) -> Problem:
    """Say that something was sent, and that the server declined what would show that it is in force."""
    summary = f"was sent, and whether it is in force is not known: {error.summary}"
    return Problem(change.address, summary, error.hint or "run apply again; look at the server's log")


def _declined(change: Change, error: Rejected) -> Problem:
    """Say what the server declined, and what to do about it."""
    hint = "look at the server's log"
    match error.error:
        case "notFound" if "." in error.subject:
            hint = f"declare the domain {error.subject}: an address below it does, or make it on the server"
        case "notFound":
            hint = f"make {error.subject} on the server, or plan again: it was there a moment ago"
        case "fieldAlreadyExists":
            hint = "names and addresses are unique over all accounts, groups, lists and domains: plan again, or rename"
    return Problem(change.address, error.summary, error.hint or hint)
