"""What has to change so that the live systems are as desired. Pure: values in, a `Plan` out."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from reconciler.address import Address
from reconciler.difference import Difference
from reconciler.dns.records import excludes, head, marked, policy
from reconciler.dns.types import OTHER, TYPES
from reconciler.failover import Failover
from reconciler.problem import Place, Problem, Severity
from reconciler.resources import (
    KINDS,
    UNKNOWN,
    UNMANAGED,
    Account,
    Different,
    Live,
    Observation,
    Record,
    Resource,
    Same,
    SecretRef,
    SecretText,
    Signature,
    Special,
    Unreadable,
)
from reconciler.secrecy import Withheld
from reconciler.target import Action, Change, Reason, differences, update_actions


@dataclass(frozen=True, slots=True)
class Desired:
    """What the directory wants: resources that should exist, and what the directory says about what exists already.

    ``removed`` are addresses that should not exist; ``moved`` maps an old address to a new one; ``adopt`` are
    addresses that are taken over although they differ. ``kept`` are the groups of records of declared selectors:
    they are never removed because they are absent. ``stays`` are addresses of what is left as it is, whatever it is,
    since what it should be can't be told. ``notes`` maps an address to what a person should know of a change there.
    ``provided`` maps a published SMTP provider to the records that mail sent through it needs. ``zones`` are those that
    the directory declares: elsewhere nothing is removed because it is absent; None is all of them. ``keyed`` are the
    domains with a DKIM key. ``problems`` are what could not be derived.
    """

    resources: Sequence[Resource]
    removed: frozenset[str] = frozenset()
    moved: Mapping[str, str] = field(default_factory=dict)
    adopt: frozenset[str] = frozenset()
    kept: frozenset[tuple[str, ...]] = frozenset()
    stays: frozenset[str] = frozenset()
    notes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    provided: Mapping[str, tuple[Record, ...]] = field(default_factory=dict)
    zones: frozenset[str] | None = None
    keyed: frozenset[str] = frozenset()
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Receiver:
    """A host that secrets of the directory go to, as ``SCHEME://HOST:PORT`` or ``HOST:PORT``, and their references."""

    host: str
    secrets: tuple[SecretRef, ...]


@dataclass(frozen=True, slots=True)
class Unmerged:
    """What a plan is of that is not merged: the commits of its base and its head, neither of them shortened.

    ``unused`` is what the head says of whom to trust, which does not count before the merge; ``unread`` are the
    references that are not read before it, with their places.
    """

    base: str
    head: str
    unused: tuple[Difference, ...] = ()
    unread: tuple[tuple[SecretRef, Place | None], ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a person reads before an apply, and all that apply may do.

    ``unmanaged`` are live resources that nobody declared and nobody removes; ``adopted`` only get our mark;
    ``unchanged`` counts what is as it should be. ``receivers`` are the hosts that secrets go to. ``last_whole`` is when
    a system that is ``lost`` was last as it should be, as far as that is known: without it, it may as well be new.
    ``compared`` is everything that was looked at: its address, what is desired, and what is live. ``held`` says of
    those of the changes that wait for a person's approval why; its `Problem.where` is the change's address. ``instead``
    is done in place of them meanwhile: it heals what was desired before. What is ``unmerged`` can't be applied.
    ``causes`` are those of the ``problems`` that explain a loss.
    """

    stack: str
    changes: tuple[Change, ...] = ()
    adopted: tuple[Change, ...] = ()
    unmanaged: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    unread: frozenset[str] = frozenset()
    lost: frozenset[str] = frozenset()
    causes: tuple[Problem, ...] = ()
    last_whole: str = ""
    head: tuple[str, ...] = ()
    unchanged: int = 0
    owned: Mapping[str, int] = field(default_factory=dict)  # scope → how many live resources bear our mark
    drift: tuple[str, ...] = ()  # addresses of changes that the directory did not cause
    revision: str = ""
    desired_hash: str = ""
    failover: Failover | None = None  # it is planned with: consumers use the standby
    receivers: tuple[Receiver, ...] = ()
    held: tuple[Problem, ...] = ()
    instead: tuple[Change, ...] = ()
    unmerged: Unmerged | None = None
    compared: tuple[tuple[str, Resource | None, Live | None], ...] = field(default=(), repr=False)

    @property
    def complete(self) -> bool:
        """Whether every target could be read."""
        return not self.unread

    @property
    def refused(self) -> tuple[Problem, ...]:
        """What guards forbid."""
        return tuple(problem for problem in self.problems if problem.severity is Severity.REFUSED)

    @property
    def errors(self) -> tuple[Problem, ...]:
        """What can't be planned."""
        return tuple(problem for problem in self.problems if problem.severity is Severity.ERROR)

    @property
    def pending(self) -> tuple[Change, ...]:
        """The changes that are still to be made; a restart that is due is none of them."""
        return tuple(change for change in self.changes if not change.restarts)

    @property
    def applyable(self) -> bool:
        """Whether apply would do something."""
        more = len(self.changes) + len(self.adopted) + len(self.instead) > len(self.held)
        return more and not self.refused and self.unmerged is None

    def redacted(self, redact: Callable[[str], str]) -> Plan:
        """Return it with secrets taken out of its sentences.

        Where those are set as Markdown or broken into lines, a secret of several words would not be found any more.
        """

        def said(change: Change) -> Change:
            return replace(change, notes=tuple(map(redact, change.notes))) if change.notes else change

        return replace(
            self,
            changes=tuple(map(said, self.changes)),
            problems=tuple(item.redacted(redact) for item in self.problems),
            held=tuple(item.redacted(redact) for item in self.held),
            head=tuple(map(redact, self.head)),
        )

    @property
    def fingerprint(self) -> str:
        """A digest of what would be done: addresses, actions and values, of secrets only their names."""
        facts = [_facts(change) for change in (*self.changes, *self.adopted)]
        of = [self.stack, self.desired_hash]
        of += [self.unmerged.base, self.unmerged.head] if self.unmerged else []  # no other plan may pass for it
        text = json.dumps([*of, sorted(facts, key=str)], default=str, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


Approved = Mapping[str, tuple[str, frozenset[str]]]
"""A plan that was approved: by address the fingerprint of the change, and which of its fields were not known then."""


def fingerprint(stack: str, change: Change, unknown: Collection[str] = ()) -> str:
    """Return a digest of one change of a stack: its address, its actions and its values, of secrets only their names.

    Of those whose value is another than was agreed the seals count, too: who approves one value approves no other.
    Fields in ``unknown`` count as not known yet, whatever is known of them by now.
    """
    text = json.dumps([stack, *_facts(change, unknown)], default=str, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _facts(change: Change, unknown: Collection[str] = ()) -> list[Any]:
    values = {name: [str(public(before)), str(public(after))] for name, (before, after) in change.fields.items()}
    for name in unknown:
        if name in values:
            values[name][1] = repr(UNKNOWN)
    seals = [[str(ref), seal] for ref, seal in change.unsealed if seal]
    return [change.address, change.actions, values, *([seals] if seals else [])]


_UNTOLD: Mapping[type, str] = {
    Different: "(another secret)",
    Withheld: "(another value)",
    Unreadable: "(can't be told)",
}


def public(value: Any) -> Any:
    """Return a field's value as it may be shown: a secret as its reference, a verdict as a word."""
    if isinstance(value, Same):
        return str(value.ref)
    if isinstance(value, SecretRef | SecretText):
        return str(value)
    if isinstance(value, Different | Withheld | Unreadable):
        return _UNTOLD[type(value)]
    if isinstance(value, Special):
        return repr(value)
    return value


def sensitive(value: Any) -> bool:
    """Whether a field's value stands for a secret."""
    return isinstance(value, SecretRef | SecretText | Same | Different | Unreadable | Withheld)


_NAMED = 5  # of what waits for something that can't be made

_MAIL_TYPES = frozenset({"MX", "SRV", "TLSA"})


def touches_mail(before: Resource | None, *, gone: bool) -> bool:
    """Whether mail may be lost or refused by a change of what is there: routed, judged by it, or in it."""
    if isinstance(before, Record):
        return before.type in _MAIL_TYPES or policy(before) is not None
    return gone and isinstance(before, Account)


def addresses(slots: Sequence[Resource]) -> list[str]:
    """Name the things of one group; records that share type and name get the head of their value in brackets."""
    if len(slots) < 2 or not isinstance(slots[0], Record):  # noqa: PLR2004 (one needs nothing to be told apart)
        return [slot.address for slot in slots]
    heads = [head(slot) for slot in slots if isinstance(slot, Record)]
    # Two values with one head are told apart by a digest, which does not depend on what else is there.
    return [
        f"{slot.address}[{name if heads.count(name) == 1 else f'{name}~{_digest(slot)}'}]"
        for slot, name in zip(slots, heads, strict=True)
    ]


def _digest(resource: Resource) -> str:
    return hashlib.sha256(repr(_value(resource)).encode()).hexdigest()[:6]


def _value(resource: Resource) -> Any:
    return (resource.content, resource.data, resource.priority) if isinstance(resource, Record) else resource


# ------------------------------------------------------------------------------------------------------- diff
@dataclass(frozen=True, slots=True)
class _Pairing:
    """How the desired and the live members of one group belong together."""

    pairs: list[tuple[Resource, Live]]
    create: list[Resource]
    spare: list[Live]


def diff(
    desired: Desired,
    observations: Mapping[str, Observation],
    *,
    stack: str,
    prune: bool = True,
) -> Plan:
    """Compare what should be with what was observed.

    Only the targets in ``observations`` take part, and of them only what could be read. While any server is lost,
    nothing is deleted anywhere. ``prune`` is the policy for marked DNS records no longer declared.
    """
    return _Diff(desired, observations, stack, prune=prune).plan()


class _Diff:
    """One comparison: the inputs, and what has been found so far."""

    def __init__(self, desired: Desired, observations: Mapping[str, Observation], stack: str, *, prune: bool) -> None:
        self.desired, self.observations, self.stack, self.prune = desired, observations, stack, prune
        self.lost = frozenset(name for name, seen in observations.items() if seen.lost)
        self.unread = frozenset(scope for seen in observations.values() for scope in seen.unread)
        problems = (*desired.problems, *(item for seen in observations.values() for item in seen.problems))
        errors = {item.scope for item in problems if item.severity is Severity.ERROR and item.scope}
        self.blocked, self.errors = self.unread | errors | desired.stays, errors
        self.wanted = [item for item in desired.resources if item.target in observations and self._readable(item)]
        self.live = [item for seen in observations.values() for item in seen.live if self._readable(item.resource)]
        self.names: dict[int, str] = {}  # by identity: equal resources may be two things
        self.compared: list[tuple[str, Resource | None, Live | None]] = []
        self.changes: list[Change] = []
        self.adopted: list[Change] = []
        self.unmanaged: list[str] = []
        self.problems: list[Problem] = []
        self.unchanged = 0

    def plan(self) -> Plan:
        creates, spare = self._compare()
        creates, spare = self._moved(creates, spare)
        creates, spare = self._retyped(creates, spare)
        for resource in self._unobstructed(creates, spare):
            self._create(resource)
        for live in spare:
            self._leave_or_delete(live)
        self._keep_back()
        self._needs()
        return Plan(
            stack=self.stack,
            changes=tuple(sorted(self.changes, key=order)),
            adopted=tuple(sorted(self.adopted, key=order)),
            unmanaged=tuple(sorted(self.unmanaged)),
            problems=tuple(self._reported()),
            unread=self.unread,
            lost=self.lost,
            causes=tuple(item for seen in self.observations.values() for item in seen.cause),
            head=tuple(line for seen in self.observations.values() for line in seen.head),
            unchanged=self.unchanged,
            owned=self._owned(),
            compared=tuple(self.compared),
        )

    def _readable(self, resource: Resource) -> bool:
        """Whether nothing that was not read, and no error, stands in the way of planning this resource."""
        if not self.blocked:
            return True
        parent = Address.parse(resource.address).parent
        return not {resource.target, resource.scope, str(parent), resource.address} & self.blocked

    def _reported(self) -> Iterator[Problem]:
        for seen in self.observations.values():
            yield from (*seen.problems, *seen.cause)
        yield from (item for item in self.desired.problems if self._takes_part(item))
        yield from self.problems

    def _takes_part(self, problem: Problem) -> bool:
        """Whether a problem of the directory is about a target that is looked at: --target leaves the others out."""
        target = Address.parse(problem.where).target
        return target is None or target in self.observations

    def _owned(self) -> dict[str, int]:
        owned: dict[str, int] = defaultdict(int)
        for live in self.live:
            if self._ours(live):
                owned[live.resource.scope] += 1
        return dict(owned)

    def _ours(self, live: Live) -> bool:
        """Whether absence may remove it: it bears our mark, and stands in a zone that is declared."""
        zone = live.resource.zone if isinstance(live.resource, Record) else None
        declared = zone is None or self.desired.zones is None or zone in self.desired.zones
        return live.owner == self.stack and not live.fixed and declared

    def _compare(self) -> tuple[list[Resource], list[Live]]:
        """Pair what belongs together, note what differs, and return what is left on either side."""
        groups: dict[tuple[str, ...], tuple[list[Resource], list[Live]]] = defaultdict(lambda: ([], []))
        for resource in self.wanted:
            groups[resource.group][0].append(resource)
        for live in self.live:
            groups[live.resource.group][1].append(live)
        creates: list[Resource] = []
        spare: list[Live] = []
        for resources, lives in groups.values():
            pairing = _pair(resources, lives, self._ours)
            self._name(pairing)
            for resource, live in pairing.pairs:
                self._paired(resource, live)
            creates += pairing.create
            spare += pairing.spare
        return creates, spare

    def _name(self, pairing: _Pairing) -> None:
        """Give every member of a group its address; a pair is one thing."""
        things: list[tuple[Resource, Resource | None, Live | None]] = [
            (item, item, live) for item, live in pairing.pairs
        ]
        things += [(item, item, None) for item in pairing.create]
        things += [(live.resource, None, live) for live in pairing.spare]
        for (slot, item, live), name in zip(things, addresses([it[0] for it in things]), strict=True):
            self.names[id(slot)] = name
            self.compared.append((name, item, live))

    def _paired(self, resource: Resource, live: Live) -> None:
        fields = differences(resource, live.resource)
        if self._waits_for_lost(resource):
            return
        foreign = resource.marked and (live.owner != self.stack or bool(live.fixed))
        if not fields:
            self.unchanged += 1
            if foreign:
                self._adopt(resource, live)
        elif not foreign or self._adoptable(resource, live):
            self._update(resource, live, adopts=foreign)
        else:
            self._conflict(resource, live, differences(resource, live.resource.disclosed(resource)))

    def _waits_for_lost(self, resource: Resource) -> bool:
        """A record that derives from a key which a lost server does not show stays as it is."""
        return bool(self.lost) and isinstance(resource, Record) and resource.content is UNKNOWN

    def _adopt(self, resource: Resource, live: Live) -> None:
        if live.fixed or live.owner is not None:
            return  # Cloudflare's own record, or another stack's: equal is all we ask for
        if not _markable(live.resource, self.stack):
            summary = "is as desired but can't be marked as ours: its comment is too long for the mark"
            hint = "shorten the comment at Cloudflare; until then the record is never removed by itself"
            self.problems.append(Problem(self.names[id(resource)], summary, hint, Severity.WARNING))
            return
        self.adopted.append(Change(self.names[id(resource)], (), Reason.DIFFERS, live, resource, adopts=True))

    def _adoptable(self, resource: Resource, live: Live) -> bool:
        names = {self.names[id(resource)], resource.address}
        return live.owner is None and not live.fixed and bool(names & self.desired.adopt)

    def _conflict(self, resource: Resource, live: Live, fields: Mapping[str, tuple[Any, Any]]) -> None:
        address = self.names[id(resource)]
        shown = ", ".join(f"{name} is {public(have)!r}" for name, (have, _) in fields.items())
        if live.fixed:
            summary, hint = f"exists and can't be changed: {live.fixed}", "remove it where it was made"
        elif live.owner:
            summary = f"belongs to the stack {live.owner}"
            hint = "declare it in one stack only"
        else:
            summary = f"exists, is not ours and differs: {shown}"
            hint = f"take it over with `adopt: [{address}]` or `--adopt {address}`, or delete it at Cloudflare"
        self.problems.append(Problem(address, summary, hint, Severity.REFUSED, resource.scope))

    def _update(self, resource: Resource, live: Live, *, adopts: bool = False) -> None:
        change = Change(self.names[id(resource)], (Action.UPDATE,), Reason.DIFFERS, live, resource, adopts=adopts)
        secret = all(sensitive(want) for _, want in change.fields.values())
        reason = Reason.LOST if resource.target in self.lost else Reason.SECRET_DIFFERS if secret else Reason.DIFFERS
        self._add(replace(change, actions=update_actions(change.fields), reason=reason))

    def _create(self, resource: Resource) -> None:
        if self._waits_for_lost(resource):
            return
        reason = Reason.LOST if resource.target in self.lost else Reason.MISSING
        self._add(Change(self.names[id(resource)], (Action.CREATE,), reason, None, resource))

    def _add(self, change: Change) -> None:
        resource = change.resource
        self.changes.append(replace(change, notes=(*self.desired.notes.get(resource.address, ()), *resource.notes)))

    def _moved(self, creates: list[Resource], spare: list[Live]) -> tuple[list[Resource], list[Live]]:
        """Rename what `moved` names: the account to be created is the one that is there under its old address."""
        for old, new in self.desired.moved.items():
            live = next((item for item in spare if item.resource.address == old), None)
            resource = next((item for item in creates if item.address == new), None)
            if live is None or resource is None:
                continue
            self._update(resource, _uncompared(resource, live))
            creates = [item for item in creates if item is not resource]
            spare = [item for item in spare if item.resource.address != old]
        return creates, spare

    def _retyped(self, creates: list[Resource], spare: list[Live]) -> tuple[list[Resource], list[Live]]:
        """A change of type at one name is one change, in one batch, and no deletion; a lost server defers it."""
        leaving: dict[tuple[str, str], list[Live]] = defaultdict(list)
        for live in spare:
            if isinstance(live.resource, Record) and self._absent(live):
                leaving[live.resource.zone, live.resource.name].append(live)
        remaining, used = [], set()
        for resource in creates:
            lives = leaving.get((resource.zone, resource.name)) if isinstance(resource, Record) else None
            if not lives:
                remaining.append(resource)
                continue
            if self.lost:
                continue
            live = lives.pop(0)
            used.add(id(live))
            actions = (Action.DELETE, Action.CREATE)
            self._add(Change(self.names[id(resource)], actions, Reason.DIFFERS, live, resource))
        return remaining, [live for live in spare if id(live) not in used]

    def _unobstructed(self, creates: list[Resource], spare: list[Live]) -> Iterator[Resource]:
        """Leave out, and tell of, what something that stays does not let stand beside it at its name."""
        staying: dict[tuple[str, str], list[Live]] = defaultdict(list)
        for live in spare:
            if isinstance(live.resource, Record) and not self._absent(live):
                staying[live.resource.zone, live.resource.name].append(live)
        for resource in creates:
            beside = staying.get((resource.zone, resource.name), ()) if isinstance(resource, Record) else ()
            rival = next((live for live in beside if _clash(resource, live)), None)
            if rival is None:
                yield resource
            else:
                self._obstructed(resource, rival)

    def _obstructed(self, resource: Resource, rival: Live) -> None:
        address = self.names[id(rival.resource)]
        summary = f"can't be made beside {address}, which stays"
        summary += f": {rival.fixed}" if rival.fixed else ""
        hint = "remove that one at Cloudflare first, if it should go, or give this one another name"
        self.problems.append(Problem(self.names[id(resource)], summary, hint, Severity.REFUSED, resource.scope))

    def _goes(self, live: Live) -> bool:
        """Whether a live resource that nothing desired matches is to be deleted in this run."""
        return not self.lost and self._absent(live)

    def _absent(self, live: Live) -> bool:
        """Whether a live resource that nothing desired matches should not be there."""
        if not live.resource.marked:
            return live.resource.address in self.desired.removed and not self._only_signer(live.resource)
        return self.prune and self._ours(live) and live.resource.group not in self.desired.kept

    def _only_signer(self, resource: Resource) -> bool:
        """Whether a key has to go on signing, since the one that is to take over can't be planned."""
        return isinstance(resource, Signature) and any(
            isinstance(heir, Signature)
            and (heir.domain, heir.algorithm) == (resource.domain, resource.algorithm)
            and not self._readable(heir)
            for heir in self.desired.resources
        )

    def _leave_or_delete(self, live: Live) -> None:
        address = self.names[id(live.resource)]
        if not self._goes(live):
            self.unmanaged.append(address)
            return
        named = live.resource.address in self.desired.removed
        reason = Reason.REMOVED if named else Reason.NOT_IN_DESIRED
        self._add(Change(address, (Action.DELETE,), reason, live, None))

    def _keep_back(self) -> None:
        """Leave out what relies on something that an error keeps from being made, and say so once at that.

        Within one target: what is changed as a whole elsewhere goes on as a whole, and fails as one.
        """
        there = {item.resource.address for seen in self.observations.values() for item in seen.live}
        never = self.errors - there
        waiting: dict[str, list[str]] = defaultdict(list)
        for change in self.changes if never else ():
            relied = () if change.deletes else change.resource.requires(takes_over=change.before is not None)
            target = change.target
            if cause := next((it for it in relied if it in never and Address.parse(it).target == target), None):
                waiting[cause].append(change.address)
        left = {address for addresses in waiting.values() for address in addresses}
        self.changes = [change for change in self.changes if change.address not in left]
        for cause, names in sorted(waiting.items()):
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            summary = f"keeps back {', '.join(sorted(names)[:_NAMED])}{more}, which can't be without it"
            self.problems.append(Problem(cause, summary, "mend what stands in its way, and plan again"))

    def _needs(self) -> None:
        """Say which other changes each change depends on: a failed one skips only what needs it."""
        present: dict[str, list[str]] = defaultdict(list)
        for change in self.changes:
            if not change.deletes and change.resource.holds_back(change.fields, new=change.before is None):
                present[change.resource.essence].append(change.address)
        for index, change in enumerate(self.changes):
            if change.deletes:
                needs = frozenset(
                    other.address
                    for other in self.changes
                    if other.resource.precedes(change.resource, deleted=other.deletes)
                )
            else:
                wanted = change.resource.requires(takes_over=change.before is not None and not self.lost)
                needs = frozenset(it for item in wanted for it in present.get(item, ()) if it != change.address)
            if needs:
                self.changes[index] = replace(change, needs=needs)


def _markable(resource: Resource, stack: str) -> bool:
    """Whether our mark fits beside a live record's own comment."""
    comment = resource.comment if isinstance(resource, Record) and isinstance(resource.comment, str) else None
    return marked(comment, stack) is not None


def _uncompared(resource: Resource, live: Live) -> Live:
    """Let the password of a renamed account count as another: under its old name it was not compared."""
    if not (isinstance(resource, Account) and isinstance(live.resource, Account)):
        return live
    if not isinstance(resource.password, SecretRef) or live.resource.password is not UNMANAGED:
        return live
    return replace(live, resource=replace(live.resource, password=Different(compared=False)))


def _pair(resources: list[Resource], lives: list[Live], ours: Callable[[Live], bool]) -> _Pairing:
    """Pair the members of one group: equals first, then the same value, then ours in order, then what is nobody's."""
    if len(resources) == len(lives) == 1 and (not resources[0].marked or ours(lives[0])):
        return _Pairing([(resources[0], lives[0])], [], [])
    ranked = sorted(lives, key=lambda live: (not ours(live), live.owner is not None))  # ours, nobody's, others'
    pairs: list[tuple[Resource, Live]] = []

    def match(agrees: Callable[[Resource, Live], bool]) -> None:
        for resource in list(resources):
            live = next((item for item in ranked if agrees(resource, item)), None)
            if live is not None:
                resources.remove(resource)
                ranked.remove(live)
                pairs.append((resource, live))

    match(lambda resource, live: not differences(resource, live.resource))
    match(lambda resource, live: _value(resource) == _value(live.resource))
    match(lambda resource, live: not resource.marked or ours(live))
    match(lambda resource, live: isinstance(resource, Record) and _excludes(resource, live.resource))
    return _Pairing(pairs, resources, ranked)


def _clash(resource: Resource, live: Live) -> bool:
    """Whether the API would refuse a record beside one that is live at its name, whatever that is."""
    other = live.resource
    if not isinstance(resource, Record) or not isinstance(other, Record):
        return False
    unknown = live.unread and other.type == resource.type  # it may say the same
    return unknown or excludes(resource, other) or excludes(other, resource)


def _excludes(resource: Record, live: Resource) -> bool:
    """Whether a record of nobody's at the same type and name can't stand beside ours.

    Hosts and exchanges can't: mail or connections would be split between both. TXT records of one family (SPF, DMARC,
    a DKIM selector) can't either: two are undefined (RFC 7208 section 4.5, RFC 6376 section 3.6.2.2).
    """
    if not isinstance(live, Record):
        return False
    same = policy(resource)
    return TYPES.get(resource.type, OTHER).divided or (same is not None and same is policy(live))


# ------------------------------------------------------------------------------------------------------- order
_POSITIONS = {kind: position for position, kind in enumerate(KINDS)}


def order(change: Change) -> tuple[bool, int, str]:
    """Sort key: creations and updates in the order of KINDS, then removals backwards."""
    position = _POSITIONS[type(change.resource)]
    return (change.deletes, -position if change.deletes else position, change.address)


def phases(changes: Collection[Change]) -> list[tuple[Change, ...]]:
    """Split changes into runs of neighbours of one target: what one `Target.apply` is given.

    Without anything between them, DNS additions and DNS removals are neighbours, and so one atomic batch.
    """
    runs: list[list[Change]] = []
    for change in sorted(changes, key=order):
        if runs and runs[-1][0].target == change.target:
            runs[-1].append(change)
        else:
            runs.append([change])
    return [tuple(run) for run in runs]
