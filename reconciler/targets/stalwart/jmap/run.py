"""One apply to Stalwart from 0.16: nearly everything in one request, then what puts it in force, and a restart."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from reconciler.address import Address
from reconciler.desired import objects
from reconciler.problem import Problem, SecretUnreadable, TargetUnreadable
from reconciler.resources import Different, Group, Resource, Secret, Setting
from reconciler.target import Change, Outcome, Progress, Report, Reveal, Status, Stopped
from reconciler.targets.stalwart.connection import AnswerLost
from reconciler.targets.stalwart.container import Docker
from reconciler.targets.stalwart.jmap import batch
from reconciler.targets.stalwart.jmap.api import (
    LIMITS,
    UNANSWERED,
    Bootstrapping,
    Failure,
    JmapApi,
    Registry,
    Rejected,
    Selection,
    merged,
    public,
)
from reconciler.targets.stalwart.jmap.batch import Unwritable, Write
from reconciler.targets.stalwart.jmap.kind import NOT_SHOWN, Effect, Ids, Judge, Reading, ResourceKind
from reconciler.targets.stalwart.jmap.kinds.account import Passwords
from reconciler.targets.stalwart.jmap.kinds.setting import default_domain
from reconciler.targets.stalwart.jmap.pending import Pending
from reconciler.targets.stalwart.work import Item, restart_for, undone


def kind_of(kinds: Sequence[ResourceKind], resource: Resource) -> ResourceKind | None:
    """Return the kind of a resource; None for what another generation has."""
    return next((kind for kind in kinds if kind.has(resource)), None)


def selections(kinds: Sequence[ResourceKind], wanted: Sequence[Resource]) -> list[Selection]:
    """Return what is read of a server for some resources."""
    return merged(item for kind in kinds for item in kind.reads(wanted))


def read_registry(api: JmapApi, kinds: Sequence[ResourceKind], wanted: Sequence[Resource]) -> Registry:
    """Read what concerns the kinds. Raises `TargetUnreadable`, or `Bootstrapping` in that mode."""
    try:
        return api.read(selections(kinds, wanted))
    except Bootstrapping:
        raise
    except Rejected as error:
        raise api.unreadable(error) from error


def reading_of(
    registry: Registry,
    wanted: Sequence[Resource],
    domain: str,
    *,
    reveal: Reveal,
    report: Report,
    judge: Judge = lambda *_: NOT_SHOWN,
) -> Reading:
    """Put a reading together; ``domain`` is the default domain as far as the directory tells it."""
    places = (objects.place(item) for item in wanted if isinstance(item, Setting))
    roles = (place.entry for place in places if place is not None and place.name == "Role")
    ids = Ids(registry, (item.name for item in wanted if isinstance(item, Group)), roles)
    domain = default_domain(wanted) or domain or ids.default_domain
    return Reading(registry, wanted, ids, domain, reveal, report, judge)


_ACTIONS = {
    effect: Write("Action", "create", effect.value, {"@type": effect.value})
    for effect in (Effect.RELOAD, Effect.CACHES)
}

# What else keeps a server from reloading, and how to get it out of the way.
_UNBLOCK = {
    "SpamPyzor": "give the container working DNS and restart it, or write "
    "`objects: {SpamPyzor: {singleton: {enable: false}}}` under stalwart and run apply again"
}


@dataclass(slots=True, kw_only=True)
class _Item(Item):
    """One change under way.

    ``now`` is the change as planned, or brought up to date; ``open`` counts its writes without an answer, ``then`` are
    those that follow only where the others succeeded. ``effects`` put it in force. ``lost`` is why an answer never
    came.
    """

    now: Change
    open: int = 0
    then: tuple[Write, ...] = ()
    effects: frozenset[Effect] = frozenset()
    lost: Problem | None = None

    @property
    def stored(self) -> bool:
        """Whether the server has all of it."""
        return not self.open and not self.then and self.problem is None


@dataclass
class Run:
    """One apply. ``domain`` is the default domain as far as the directory tells it."""

    api: JmapApi
    kinds: Sequence[ResourceKind]
    passwords: Passwords
    progress: Progress
    docker: Docker | None
    pending: Pending
    domain: str

    def __post_init__(self) -> None:
        self._waiting = self.pending.addresses  # since an earlier run
        self._items: dict[int, _Item] = {}  # by the id of the change as it is now
        self._actions: dict[str, Failure | TargetUnreadable | None] = {}  # what was answered to them
        self._down: Problem | None = None

    def outcomes(self, changes: Sequence[Change], known: Registry | None, stopped: Stopped) -> Iterator[Outcome]:
        """Carry changes out and tell how each went; what is not told was not begun.

        ``known`` is the registry as it was just read. Without it the server is read again, and changes are brought up
        to date: what is to be created may be there by now.
        """
        registry = (
            read_registry(self.api, self.kinds, [change.resource for change in changes]) if known is None else known
        )
        self._begin(registry, changes, fresh=known is None)
        writes = list(self._writes(registry, changes))
        self.pending.note(item.change.address for item in self._all() if item.effects & _ACTIONS.keys())
        self._send([*writes, *self._due(item for item in self._all() if item.open)], stopped)
        self._send(self._following(), stopped)
        self._look_again()
        stored = (item for item in self._all() if item.stored)
        self._send([action for action in self._due(stored) if action.id not in self._actions], lambda: False)
        self._settle({effect for effect in _ACTIONS if self._actions.get(effect.value, UNANSWERED) is None})
        yield from self._told()

    def _all(self) -> list[_Item]:
        return list(self._items.values())

    # --------------------------------------------------------------------------------------------------------- drafting
    def _begin(self, registry: Registry, changes: Sequence[Change], *, fresh: bool) -> None:
        """Make the items; where the registry is newer than the plan, bring changes up to date."""
        live = _Present(registry, self.kinds, changes, self.domain) if fresh else None
        for change in changes:
            now = live.update(change) if live else change
            item = _Item(change=change, now=now or change)
            if now is None and not (change.deletes and live and live.shows(change)):  # gone is as wanted
                summary = "the server does not have what was planned with any more"
                item.fail(Problem(change.address, summary, "plan again"))
            if now is not None:
                item.open = 1  # to be drafted
            self._items[id(item.now)] = item

    def _writes(self, registry: Registry, changes: Sequence[Change]) -> Iterator[Write]:
        """Yield the writes of all items, and note of each how many it has."""
        wanted = [change.after for change in changes if change.after is not None]
        reading = reading_of(registry, wanted, self.domain, reveal=self.passwords.reveal, report=unheard)
        self.domain = reading.domain
        drafted = [item for item in self._all() if item.open]
        reading = replace(reading, progress=self.progress, changes=[item.now for item in drafted])
        for item in drafted:
            item.open = 0
        places: dict[Any, int] = {}  # one for all that are the same object to the server: their ranks go over them all
        for kind in self.kinds:
            place = places.setdefault(next((item.name for item in kind.objects), kind), len(places))
            ours = [item.now for item in drafted if kind.has(item.now.resource)]
            for draft in kind.writes(ours, reading):
                if isinstance(draft, Unwritable):
                    self._items[id(draft.change)].fail(draft.problem)
                elif self._is_first(kind, write := replace(draft, place=place)):
                    yield write
        for item in self._all():
            item.effects |= {Effect.RESTART} if item.now.restarts else frozenset()
            if item.change.address in self._waiting and (known := kind_of(self.kinds, item.now.resource)) is not None:
                item.effects |= known.effects(item.now)

    def _is_first(self, kind: ResourceKind, write: Write) -> bool:
        """Note a write of each of its items; those that follow others are sent later."""
        for change in write.changes:
            item = self._items[id(change)]
            item.effects |= kind.effects(change, write)
            if write.last:
                item.then = (*item.then, write)
            else:
                item.open += 1
        return not write.last

    def _due(self, items: Iterable[_Item]) -> list[Write]:
        """Return the actions that put items in force, each once."""
        wanted = {effect for item in items for effect in item.effects}
        return [action for effect, action in _ACTIONS.items() if effect in wanted]

    # ---------------------------------------------------------------------------------------------------------- sending
    def _following(self) -> list[Write]:
        """Return what was waiting for the success of other writes; from now on it is under way."""
        found: list[Write] = []
        for item in self._all():
            if item.then and not item.open and item.problem is None:
                found += item.then
                item.open, item.then = len(item.then), ()
        return found

    def _send(self, writes: Sequence[Write], stopped: Stopped) -> None:
        if self._down is not None:
            return
        for write, problem, _ in batch.run(self.api, writes, stopped):
            if isinstance(problem, TargetUnreadable):
                self._down = problem.problems[0]
            if write.object == "Action":
                self._actions[write.id] = problem
            for change in write.changes:
                self._answered(self._items[id(change)], write, problem)

    def _answered(self, item: _Item, write: Write, problem: Failure | TargetUnreadable | None) -> None:
        item.open -= 1
        gone = isinstance(problem, Failure) and problem.type == "notFound" and write.verb == "destroy"
        if isinstance(problem, AnswerLost):
            item.lost = problem.problems[0]
            self.passwords.renew(item.now, self.domain)
        elif isinstance(problem, TargetUnreadable):
            item.fail(problem.problems[0])
        elif problem is not None and not gone:
            self._refused(item, problem)
        elif not item.open:
            self.passwords.written(item.now, self.domain)

    def _refused(self, item: _Item, failure: Failure) -> None:
        address = item.change.address
        failed = {other.change.address for other in self._all() if other.problem is not None}
        missing = undone(item.change, failed)
        unmade = (
            failure.type == "invalidPatch" and missing is not None
        )  # a key of a set that refers to what is not made
        if unmade or failure.type == "invalidResultReference":
            item.fail(missing or Problem(address, failure.words(), "run apply again"), Status.SKIPPED)
        else:
            item.fail(Problem(address, failure.words(), _remedy(failure, kind_of(self.kinds, item.now.resource))))

    # --------------------------------------------------------------------------------------------- after a lost answer
    def _look_again(self) -> None:
        """Read again what may have been written: it is done if it is as desired. Nothing is sent twice."""
        lost = [item for item in self._all() if item.lost is not None]
        if not lost:
            return
        try:
            registry = read_registry(self.api, self.kinds, [item.now.resource for item in lost])
        except (TargetUnreadable, Rejected):
            registry = None
        present = (
            _Present(registry, self.kinds, [item.now for item in lost], self.domain) if registry is not None else None
        )
        if present is not None:
            self._down = None
            self._actions.clear()  # a reload may come twice
        for item in lost:
            if present is not None and present.shows(item.now):
                item.open, item.lost = 0, None
                self.passwords.written(item.now, self.domain)
            elif item.lost is not None:
                item.fail(item.lost, Status.UNKNOWN)

    # -------------------------------------------------------------------------------------------------- being in force
    def _told(self) -> Iterator[Outcome]:
        """Tell what is settled, restart where that is due, and tell the rest."""
        items = self._all()
        restarting = [item for item in items if item.stored and Effect.RESTART in item.effects]
        waiting = [item for item in items if restarting and (item in restarting or self._obstacle(item))]
        for item in items:
            if item not in waiting:
                yield from self._outcome(item)
        restarted = bool(restarting) and restart_for(restarting, self.docker, self.api.connection, self.progress)
        if restarted:
            self._settle(_ACTIONS)
        for item in waiting:
            if restarted:  # with everything that is stored
                item.effects = frozenset()
            yield from self._outcome(item)

    def _outcome(self, item: _Item) -> Iterator[Outcome]:
        obstacle = self._obstacle(item)
        if obstacle is not None:
            item.fail(obstacle)
        if not item.stored and item.problem is None:
            if self._down is None:
                return  # not begun
            item.fail(self._down, Status.SKIPPED)
        yield item.outcome

    def _obstacle(self, item: _Item) -> Problem | None:
        """Say what keeps a stored item from being in force."""
        for effect in sorted(item.effects & _ACTIONS.keys(), key=str) if item.stored else ():
            failure = self._actions.get(effect.value)
            if isinstance(failure, Failure):
                return _not_in_force(item.change.address, failure)
            unknown = failure.problems[0] if failure is not None else self._down
            if unknown is not None and (failure is not None or effect.value not in self._actions):
                summary = f"is stored, and whether it is in force can't be told: {unknown.summary}"
                return Problem(item.change.address, summary, unknown.hint)
        return None

    def _settle(self, done: Collection[Effect]) -> None:
        """Forget what is in force now, whoever wrote it, and what was never stored."""
        kinds = (kind for kind in self.kinds if kind.in_force_by is not Effect.RESTART)
        in_force_by = {kind.resource.kind: kind.in_force_by for kind in kinds}
        unwritten = {
            item.change.address for item in self._all() if item.status is not Status.UNKNOWN and not item.stored
        }
        self.pending.forget(
            address
            for address in self.pending.addresses
            if in_force_by.get(Address.parse(address).kind) in done or address in unwritten - self._waiting
        )


def _not_in_force(address: str, failure: Failure) -> Problem:
    """Say what keeps the server from taking what is stored: a reload fails as a whole (observed.md, 0.16.18)."""
    culprit = failure.object[0] if failure.object else ""
    said = public(failure.description) or failure.words()
    because = f"{culprit}: {said}" if culprit else said
    summary = f"is stored but not in force: the server keeps its old settings because of {because}"
    otherwise = f"correct {culprit or 'it'} and run apply again: a reload then puts in force all that is stored"
    return Problem(address, summary, _UNBLOCK.get(culprit, otherwise))


class _Present:
    """What the server has now, to compare planned changes with."""

    def __init__(
        self, registry: Registry, kinds: Sequence[ResourceKind], changes: Sequence[Change], domain: str
    ) -> None:
        self._kinds = kinds
        wanted = [change.after for change in changes if change.after is not None]
        # No password is known; what matters is decided by `update` and `shows`.
        reading = reading_of(registry, wanted, domain, reveal=_hidden, report=unheard, judge=lambda *_: Different())
        live = [item for kind in kinds for item in kind.live(reading)]
        self._by_address = {item.resource.address: item for item in live}
        self._by_id = {(type(item.resource), item.id): item for item in live}

    def update(self, change: Change) -> Change | None:
        """Bring a planned change up to date; None where what it is about is gone, or another has its id."""
        before = change.before
        if before is None:
            found = self._by_address.get(change.address)
            return replace(change, before=found) if found else change  # which compares it anew
        kind, now = kind_of(self._kinds, before.resource), self._by_id.get((type(before.resource), before.id))
        return change if kind is not None and kind.is_same(before, now) else None

    def shows(self, change: Change) -> bool:
        """Whether a change whose answer was lost has been made, as far as can be seen."""
        after, before = change.after, change.before
        if after is None:
            return before is not None and (type(before.resource), before.id) not in self._by_id
        found = self._by_address.get(after.address)
        if found is None:
            return False
        unlike = replace(change, before=found).fields.keys() - {"open"}
        return not (unlike - {"password"} if before is None else unlike)  # an account is made with its password


def unheard(_: Problem) -> None:
    """Report to nobody: the plan has told it."""


def _hidden(_: Secret) -> str:
    """Reveal nothing: what is live is compared without secrets."""
    raise SecretUnreadable


_REMEDIES = {
    "objectIsLinked": "remove those first, or with it",
    "notFound": "plan again: it has gone meanwhile",
    "forbidden": "give the account that applies the role admin, or the API key the right",
    "overQuota": "raise the limit on the server",
    "rateLimit": "try again later",
    "requestTooLarge": LIMITS,
    "limit": LIMITS,
}


def _remedy(failure: Failure, kind: ResourceKind | None) -> str:
    """Say what to do about what the server declined."""
    if failure.type == "objectIsLinked" and ("SystemSettings", "singleton") in failure.linked:
        return "it is the default domain: declare another stalwart.default_domain first, and remove what else is in it"
    if failure.type == "primaryKeyViolation" and kind is not None:
        return kind.unique
    return _REMEDIES.get(failure.type, "correct the value, or look at the server's log")
