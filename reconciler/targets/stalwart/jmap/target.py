"""The target for Stalwart from 0.16: one or two requests observe it, and one writes nearly everything."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from reconciler.problem import Problem, SecretUnreadable, TargetUnreadable
from reconciler.resources import Different, Group, Observation, Resource, Secret
from reconciler.target import Change, Outcome, Progress, Report, Reveal, Status, Stopped
from reconciler.targets.stalwart import ports
from reconciler.targets.stalwart.connection import TARGET, AnswerLost, Connect, Connection
from reconciler.targets.stalwart.container import Docker, causes, look, unrecoverable, version
from reconciler.targets.stalwart.jmap import writes as jmap_writes
from reconciler.targets.stalwart.jmap.account import AccountKind, Passwords, unknown_administrator
from reconciler.targets.stalwart.jmap.api import (
    LIMITS,
    UNANSWERED,
    Bootstrapping,
    Failure,
    JmapApi,
    Registry,
    Rejected,
    merged,
    public,
)
from reconciler.targets.stalwart.jmap.domain import DomainKind
from reconciler.targets.stalwart.jmap.group import GroupKind
from reconciler.targets.stalwart.jmap.kind import NOT_SHOWN, Effect, Ids, Judge, Reading, ResourceKind
from reconciler.targets.stalwart.jmap.listener import ListenerKind
from reconciler.targets.stalwart.jmap.mailing_list import MailingListKind
from reconciler.targets.stalwart.jmap.objects import ObjectKind
from reconciler.targets.stalwart.jmap.passwords import PasswordChecks
from reconciler.targets.stalwart.jmap.pending import Pending
from reconciler.targets.stalwart.jmap.setting import AllowedIpKind, SettingKind, default_domain, still_allowed
from reconciler.targets.stalwart.jmap.signature import SignatureKind
from reconciler.targets.stalwart.jmap.writes import Unwritable, Write
from reconciler.targets.stalwart.release import unknown_release
from reconciler.targets.stalwart.survey import is_lost
from reconciler.targets.stalwart.work import Item, restart_for, undone

KINDS: tuple[ResourceKind, ...] = (
    DomainKind(),  # first: what this run makes of them has ids for all others
    GroupKind(),
    AccountKind(),
    MailingListKind(),
    SignatureKind(),
    SettingKind(),
    ObjectKind(),
    AllowedIpKind(),
    ListenerKind(),
)
"""What is kept on a server from 0.16. A new kind is a file beside these and an entry here."""

_IN_FORCE_BY = {kind.resource.kind: kind.in_force_by for kind in KINDS if kind.in_force_by is not Effect.RESTART}

_ENTERED = {
    "recovery": ", entered as its recovery administrator",
    "saved": ", entered as the administrator that it was set up with",
}


class StalwartJmap:
    """Stalwart from 0.16. ``connect`` opens a connection as our user; ``docker`` is the declared container.

    ``checks`` knows of passwords, ``domain`` is the default domain as far as the directory tells it, ``pending`` knows
    what is stored and perhaps not in force.
    """

    name = TARGET

    def __init__(
        self,
        connect: Connect,
        docker: Docker | None,
        progress: Progress,
        checks: PasswordChecks,
        domain: str = "",
        *,
        pending: Pending | None = None,
    ) -> None:
        """Remember how to get there; nothing is asked yet."""
        self._connect, self._docker, self._progress = connect, docker, progress
        self._checks, self._domain, self._pending = checks, domain, pending or Pending()
        self._registry: Registry | None = None
        self._container = ""  # its id, as far as it is known

    def forget(self) -> None:
        """Forget what was read: something else has changed the server."""
        self._registry = None

    # ------------------------------------------------------------------------------------------------------- observe
    def observe(self, wanted: Sequence[Resource], reveal: Reveal) -> Observation:
        """Read everything, asking Docker meanwhile. Raises `TargetUnreadable`, or `Bootstrapping` in that mode."""
        with self._connect(reveal) as connection:
            try:
                return self._observed(wanted, reveal, connection)
            finally:
                self._checks.save()

    def _observed(self, wanted: Sequence[Resource], reveal: Reveal, connection: Connection) -> Observation:
        problems: list[Problem] = []
        with ThreadPoolExecutor(max_workers=1) as pool:
            looking = pool.submit(look, self._docker)
            registry = self._registry = read(JmapApi(connection), wanted)
            found = looking.result()
        container = found.container
        self._container = container.id if container else ""
        judge = Passwords(connection, self._checks, reveal, problems.append, self._container).verdict
        reading = reading_of(registry, wanted, self._domain, reveal=reveal, report=problems.append, judge=judge)
        live = list(self._pending.shown(item for kind in KINDS for item in kind.live(reading)))
        live += still_allowed(self._pending.addresses, live)
        live = ports.with_open(live, wanted, connection.host, container)
        lost = is_lost(wanted, live)
        stranger = None if lost else unknown_administrator(connection, wanted)
        told = (unrecoverable(container), unknown_release(version(container), connection.where)) if container else ()
        known = (found.problem, *told, stranger, *self._checks.problems(), self._pending.problem)
        return Observation(
            TARGET,
            live=live,
            problems=(*problems, *(problem for problem in known if problem is not None)),
            head=(_head(connection), *self._checks.words()),
            lost=lost,
            cause=causes(container, "jmap") if lost and container else (),
            generation="jmap",
        )

    # --------------------------------------------------------------------------------------------------------- apply
    def apply(self, changes: Sequence[Change], reveal: Reveal, stopped: Stopped) -> Iterator[Outcome]:
        """Carry out changes in as few requests as the server's limits allow, then see that they are in force.

        What was last observed is taken as the present; before anything is removed the server is read again.
        """
        known = None if any(change.deletes for change in changes) else self._registry
        with self._connect(reveal) as connection:
            passwords = Passwords(connection, self._checks, reveal, _unheard, self._container)
            api = JmapApi(connection)
            run = _Run(api, passwords, self._progress, self._docker, self._pending, self._domain)
            try:
                yield from run.outcomes(changes, known, stopped)
            finally:
                self.forget()
                self._checks.save()


def _head(connection: Connection) -> str:
    """Name the server, and who got in where it was not the declared administrator."""
    accepted = connection.login.accepted
    return f"{connection.where}: 0.16 or later (JMAP)" + _ENTERED.get(accepted.source if accepted else "", "")


def kind_of(resource: Resource) -> ResourceKind | None:
    """Return the kind of a resource; None for what another generation has."""
    return next((kind for kind in KINDS if kind.has(resource)), None)


def read(api: JmapApi, wanted: Sequence[Resource]) -> Registry:
    """Read what concerns us. Raises `TargetUnreadable`, or `Bootstrapping` in that mode."""
    try:
        return api.read(merged(item for kind in KINDS for item in kind.reads(wanted)))
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
    ids = Ids(registry, (item.name for item in wanted if isinstance(item, Group)))
    domain = default_domain(wanted) or domain or ids.default_domain
    return Reading(registry, wanted, ids, domain, reveal, report, judge)


# ------------------------------------------------------------------------------------------------------------ apply
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
class _Run:
    """One apply. ``domain`` is the default domain as far as the directory tells it."""

    api: JmapApi
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
        registry = read(self.api, [change.resource for change in changes]) if known is None else known
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
        live = _Present(registry, changes, self.domain) if fresh else None
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
        reading = reading_of(registry, wanted, self.domain, reveal=self.passwords.reveal, report=_unheard)
        self.domain = reading.domain
        drafted = [item for item in self._all() if item.open]
        reading = replace(reading, progress=self.progress, changes=[item.now for item in drafted])
        for item in drafted:
            item.open = 0
        for kind in KINDS:
            ours = [item.now for item in drafted if kind.has(item.now.resource)]
            for draft in kind.writes(ours, reading):
                if isinstance(draft, Unwritable):
                    self._items[id(draft.change)].fail(draft.problem)
                elif self._is_first(kind, draft):
                    yield draft
        for item in self._all():
            item.effects |= {Effect.RESTART} if item.now.restarts else frozenset()
            if item.change.address in self._waiting and (known := kind_of(item.now.resource)) is not None:
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
        for write, problem, _ in jmap_writes.run(self.api, writes, stopped):
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
            self._refused(item, write, problem)
        elif not item.open:
            self.passwords.written(item.now, self.domain)

    def _refused(self, item: _Item, write: Write, failure: Failure) -> None:
        address = item.change.address
        failed = {other.change.address for other in self._all() if other.problem is not None}
        missing = undone(item.change, failed)
        unmade = (
            failure.type == "invalidPatch" and missing is not None
        )  # a key of a set that refers to what is not made
        if unmade or failure.type == "invalidResultReference":
            item.fail(missing or Problem(address, failure.words(), "run apply again"), Status.SKIPPED)
        else:
            item.fail(Problem(address, failure.words(), _remedy(failure, write)))

    # --------------------------------------------------------------------------------------------- after a lost answer
    def _look_again(self) -> None:
        """Read again what may have been written: it is done if it is as desired. Nothing is sent twice."""
        lost = [item for item in self._all() if item.lost is not None]
        if not lost:
            return
        try:
            registry = read(self.api, [item.now.resource for item in lost])
        except (TargetUnreadable, Rejected):
            registry = None
        present = _Present(registry, [item.now for item in lost], self.domain) if registry is not None else None
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
        unwritten = {
            item.change.address for item in self._all() if item.status is not Status.UNKNOWN and not item.stored
        }
        self.pending.forget(
            address
            for address in self.pending.addresses
            if _IN_FORCE_BY.get(address.partition("/")[0]) in done or address in unwritten - self._waiting
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

    def __init__(self, registry: Registry, changes: Sequence[Change], domain: str) -> None:
        wanted = [change.after for change in changes if change.after is not None]
        # No password is known; what matters is decided by `update` and `shows`.
        reading = reading_of(registry, wanted, domain, reveal=_hidden, report=_unheard, judge=lambda *_: Different())
        live = [item for kind in KINDS for item in kind.live(reading)]
        self._by_address = {item.resource.address: item for item in live}
        self._by_id = {(type(item.resource), item.id): item for item in live}

    def update(self, change: Change) -> Change | None:
        """Bring a planned change up to date; None where what it is about is gone, or another has its id."""
        before = change.before
        if before is None:
            found = self._by_address.get(change.address)
            return replace(change, before=found) if found else change  # which compares it anew
        kind, now = kind_of(before.resource), self._by_id.get((type(before.resource), before.id))
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


def _unheard(_: Problem) -> None:
    """Report to nobody: the plan has told it."""


def _hidden(_: Secret) -> str:
    """Reveal nothing: what is live is compared without secrets."""
    raise SecretUnreadable


_REMEDIES = {
    "objectIsLinked": "remove those first, or with it",
    "primaryKeyViolation": "plan again: it was made meanwhile",
    "notFound": "plan again: it has gone meanwhile",
    "forbidden": "give the account that applies the role admin, or the API key the right",
    "overQuota": "raise the limit on the server",
    "rateLimit": "try again later",
    "requestTooLarge": LIMITS,
    "limit": LIMITS,
}


def _remedy(failure: Failure, write: Write) -> str:
    """Say what to do about what the server declined."""
    if failure.type == "objectIsLinked" and ("SystemSettings", "singleton") in failure.linked:
        return "it is the default domain: declare another stalwart.default_domain first, and remove what else is in it"
    if failure.type == "primaryKeyViolation" and write.object in ("Account", "MailingList"):
        return "addresses are unique over accounts, groups and mailing lists: plan again, or take another one"
    if failure.type == "primaryKeyViolation" and write.object == "Domain":
        return "a name is one domain's, or the alias of one: remove it there first"
    return _REMEDIES.get(failure.type, "correct the value, or look at the server's log")
