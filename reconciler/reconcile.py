"""The way of one stack from observing to a plan, and from an approved plan to an empty second one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from reconciler import guards, past
from reconciler.address import Address, target_of
from reconciler.desired.load import Directory, declaration
from reconciler.desired.spec import Spec
from reconciler.guards.approval import Approvals, judged, sealed
from reconciler.guards.evidence import Evidence
from reconciler.journal import Journal
from reconciler.plan import Plan, addresses, diff, order, phases
from reconciler.problem import Problem, ReconcilerError, Severity, once
from reconciler.resources import UNMANAGED, Account, Resource, Unreadable
from reconciler.settings import TARGETS
from reconciler.stack import Stack
from reconciler.target import Change, Observations, Outcome, Reason, Status, Stopped


@dataclass(frozen=True, slots=True)
class Effect:
    """What an apply did: the plan that was approved, how each change went, and the plan after observing again."""

    plan: Plan
    outcomes: tuple[Outcome, ...]
    after: Plan

    @property
    def proven(self) -> bool:
        """Whether nothing is left to do, seen by observing again."""
        return self.after.complete and not self.after.pending and not self.after.errors

    @property
    def remaining(self) -> tuple[Change, ...]:
        """What was approved and is still not as desired."""
        approved = {change.address for change in self.plan.changes}
        return tuple(change for change in self.after.pending if change.address in approved)


# ----------------------------------------------------------------------------------------------------------- plan
def make_plan(stack: Stack, gone: Collection[str] = ()) -> Plan:
    """Observe, compare and guard. Writes nothing anywhere. ``gone`` are addresses that were there a moment ago."""
    early, only = stack.desired(), stack.choice.only
    observations: Observations = stack.observe(early.resources)
    desired = stack.desired(observations)
    observations = stack.look_again(observations, early.resources, desired.resources)
    plan = diff(desired, observations, stack=stack.name, prune=stack.policy.prune)
    unknown = _unknown(stack.directory, plan, only, {*desired.removed, *gone})
    plan = sealed(narrow(plan, only), stack.unsealed(plan.changes))
    evidence = Evidence(plan, desired, observations, stack.policy, stack.known_public, today=stack.settings.today)
    evidence = _informed(stack, evidence)
    log, digest = stack.journal, stack.directory.digest
    last = log.last_whole()
    damage = (log.problem,) if log.problem else ()
    candidate = stack.candidate
    told = candidate.problems if candidate else ()
    failover = stack.failover
    unchanged = last is not None and (last.desired_hash, last.failover) == (digest, failover.name if failover else "")
    left = () if unchanged else tuple(_zones_left(past.zones(stack.applies), desired.zones or ()))
    seen = (guards.zone_meant(item, desired) for item in plan.problems)
    problems = once((*told, *unknown, *seen, *guards.check(evidence), *left, *damage))
    plan = replace(plan, problems=problems, desired_hash=digest)
    if stack.approvals is not None:
        plan = _judged(stack, plan, evidence, unchanged=unchanged)
    plan = _with_losses(plan, log)
    return replace(
        _told_unread(plan),
        unmerged=candidate.unmerged if candidate else None,
        head=(*stack.settings.shown(stack.chosen), *([f"the daemon has {failover}"] if failover else []), *plan.head),
        revision=stack.revision,
        failover=failover,
        receivers=stack.receivers,
        drift=tuple(change.address for change in plan.changes) if unchanged else (),
    )


def _zones_left(kept: Collection[str], declared: Collection[str]) -> Iterator[Problem]:
    """Name the zones that had records from here and are declared no longer. What stays is told when it is left."""
    for zone in sorted(frozenset(kept) - frozenset(declared)):
        summary = "was kept from here and is no longer declared: its records stay as they are"
        hint = f"declare it again; to give its records up, too, leave `{zone}: []` under `dns` until they are removed"
        yield Problem(f"dns/{zone}", summary, hint, Severity.WARNING)


def _informed(stack: Stack, evidence: Evidence) -> Evidence:
    """Find out what guards have to know from outside."""
    asked, remembered = guards.questions(evidence), guards.remembered(evidence)
    return replace(evidence, answers=stack.look(asked), past=stack.past(*remembered))


def _judged(stack: Stack, plan: Plan, evidence: Evidence, *, unchanged: bool) -> Plan:
    """Hold back what nobody has approved, and look again at what is left: guards have judged the whole of it.

    Where all of the directory was agreed, or was applied from here as it is (``unchanged``), only secrets can differ.
    """
    former, moved = stack.directory if unchanged else stack.former, frozenset[str]()
    same = former is not None and former.digest == stack.directory.digest
    if same and not stack.rekeyed(evidence.observations) and not any(item.unsealed for item in plan.changes):
        return plan
    before: Plan | None = None
    wanted = evidence.desired
    if former is not None:
        wanted, moved = stack.formerly(former, evidence.observations), elsewhere(former.spec, stack.spec)
        prune = former.spec.policy.prune.dns == "owned"
        before = narrow(diff(wanted, evidence.observations, stack=stack.name, prune=prune), stack.choice.only)
        before = sealed(before, stack.unsealed(before.changes))
    plan = judged(plan, before, stack.approvals or Approvals(), moved)
    if not plan.held:
        return plan
    if plan.instead:
        healing = replace(plan, changes=plan.instead, held=(), instead=())
        alone = guards.check(_informed(stack, replace(evidence, plan=healing, desired=wanted)))
        plan = replace(plan, instead=permitted(replace(healing, problems=alone)).changes)
    rest = guards.check(replace(evidence, plan=permitted(plan)))
    return replace(plan, problems=once((*plan.problems, *rest)))


def elsewhere(former: Spec, now: Spec) -> frozenset[str]:
    """Name the targets that are another system than they were; who logs in there, and with what, makes none."""
    return frozenset(
        name for name in TARGETS if _place(getattr(former.targets, name)) != _place(getattr(now.targets, name))
    )


def _place(target: Any) -> Any:
    """Return what of a target says which system it is."""
    if isinstance(target, tuple):
        return [_place(item) for item in target]
    return target and target.model_dump(exclude={"username", "password", "token", "recovery", "generation", "release"})


def _told_unread(plan: Plan) -> Plan:
    """Say of each change which of its secrets are not read before the merge: whether these differ is not known."""
    changes = (
        replace(item, notes=(*item.notes, *(f"{ref} is not read before the merge" for ref in item.after.held)))
        if item.after is not None and item.after.held
        else item
        for item in plan.changes
    )
    return replace(plan, changes=tuple(changes))


def _with_losses(plan: Plan, log: Journal) -> Plan:
    """Tell lost systems from new ones: what was never whole, as far as the journal knows, has lost nothing."""
    known = {target: entry.began for target in sorted(plan.lost) if (entry := log.last_whole(target))}
    new = plan.lost - known.keys()
    changes = (
        replace(item, reason=Reason.MISSING) if item.reason is Reason.LOST and item.target in new else item
        for item in plan.changes
    )
    return replace(plan, changes=tuple(changes), last_whole=next(iter(known.values()), "")) if plan.lost else plan


def narrow(plan: Plan, only: Sequence[str]) -> Plan:
    """Keep the changes of some addresses and what they need. An address also means all that lies below it."""
    if not only:
        return plan
    by_address = {change.address: change for change in plan.changes}
    chosen = {address for address in by_address if _chosen(address, only)}
    queue = list(chosen)
    while queue:
        needed = by_address[queue.pop()].needs - chosen
        chosen |= needed
        queue += needed
    return replace(
        plan,
        changes=tuple(change for change in plan.changes if change.address in chosen),
        adopted=tuple(change for change in plan.adopted if _chosen(change.address, only)),
    )


def permitted(plan: Plan, barred: Collection[str] = ()) -> Plan:
    """Leave out what is held, what guards forbid, what is ``barred`` (addresses), and all that needs any of these.

    The rest may go on, and what is to be done in place of what is held.

    A person's apply writes nothing at all where a guard refuses anything; where nobody watches, the rest is healed.
    """
    held = {problem.where for problem in plan.held}
    if held:
        left = [change for change in plan.changes if change.address not in held]
        plan = replace(plan, changes=tuple(sorted((*left, *plan.instead), key=order)), held=())
    scopes = {problem.scope or problem.where for problem in plan.refused} | set(barred)
    if not scopes:
        return plan
    changes = (*plan.changes, *plan.adopted)
    out = {change.address for change in changes if _lies_in(change, scopes)}
    while more := {change.address for change in changes if change.needs & out} - out:
        out |= more
    return replace(
        plan,
        changes=tuple(change for change in plan.changes if change.address not in out),
        adopted=tuple(change for change in plan.adopted if change.address not in out),
    )


def _lies_in(change: Change, scopes: Collection[str]) -> bool:
    return bool({change.target, change.resource.scope} & set(scopes)) or _among(change.address, tuple(scopes))


def _among(address: str, only: Sequence[str]) -> bool:
    return any(Address.parse(address).within(Address.parse(item)) for item in only)


def _chosen(address: str, only: Sequence[str]) -> bool:
    """Whether a person meant an address: by itself, by what it lies below, or by a pattern such as ``dns/*/TXT/*``."""
    return any(Address.parse(address).meant_by(item) for item in only)


def _unknown(directory: Directory, plan: Plan, only: Sequence[str], gone: Collection[str]) -> Iterator[Problem]:
    """Name the addresses that nothing has or had: a slip of the pen must not pass as "nothing to do".

    Of what is declared and could not be planned another problem says why.
    """
    from difflib import get_close_matches

    known = [*(address for address, _, _ in plan.compared), *gone]
    failed = [*(problem.where for problem in plan.errors), *(problem.scope for problem in plan.errors)]
    for item in only:
        if plan.complete and not any(_chosen(address, [item]) for address in (*known, *filter(None, failed))):
            if place := declaration(directory, item):
                hint = "`reconciler plan` without --only says what keeps it from that"
                yield Problem(f"--only {item}", f"is declared at {place} and could not be planned", hint)
                continue
            near = get_close_matches(item, known, n=3, cutoff=0.8)
            hint = f"did you mean {' or '.join(near)}?" if near else "`reconciler plan` names the addresses"
            yield Problem(f"--only {item}", "nothing of that address is declared or live", hint)


# ---------------------------------------------------------------------------------------------------- how it stands
@dataclass(slots=True)
class Fact:
    """All that is known of one address.

    ``place`` is where it is declared, ``untold`` the managed fields of which can't be told whether they are as wanted,
    with what was seen of each.
    """

    address: str
    place: str = ""
    wanted: Resource | None = None
    untold: tuple[tuple[str, Unreadable], ...] = ()
    change: Change | None = None
    adopted: bool = False
    unmanaged: bool = False
    unread: bool = False
    problems: tuple[Problem, ...] = ()


def facts(stack: Stack, plan: Plan) -> dict[str, Fact]:
    """Gather what the directory, a plan and the systems know, by address."""
    found: dict[str, Fact] = {}

    def fact(address: str) -> Fact:
        return found.setdefault(address, Fact(address))

    planned = {item.resource: item.address for item in (*plan.changes, *plan.adopted)}
    for address, resource in _named(stack.desired().resources):
        known = fact(planned.get(resource, address))
        known.wanted, known.place = resource, declaration(stack.directory, resource.address)
        known.unread = bool({resource.scope, resource.target, resource.address} & plan.unread)
    for address, wanted, live in plan.compared:
        if wanted is not None and live is not None and address in found:
            found[address].wanted = wanted  # a record that stays as it is is wanted as it is
            found[address].untold = tuple(_untold(wanted, live.resource))
    for change in (*plan.changes, *plan.adopted):
        known = fact(change.address)
        known.change, known.adopted = change, change in plan.adopted
        known.place = known.place or declaration(stack.directory, change.address)
    for address in plan.unmanaged:
        fact(address).unmanaged = True
    for problem in (*plan.problems, *plan.held):
        if problem.where in found:
            found[problem.where].problems += (problem,)
    return found


def _named(resources: Iterable[Resource]) -> Iterator[tuple[str, Resource]]:
    """Yield what is desired by address, as a plan names it."""
    groups: dict[tuple[str, ...], list[Resource]] = {}
    for resource in resources:
        groups.setdefault(resource.group, []).append(resource)
    for members in groups.values():
        yield from zip(addresses(members), members, strict=True)


def _untold(wanted: Resource, live: Resource) -> Iterator[tuple[str, Unreadable]]:
    """Yield the managed fields whose live value can't be told, such as the password of an account."""
    for name, want in wanted.values():
        have = getattr(live, name)
        if want is not UNMANAGED and isinstance(have, Unreadable):
            yield name, have


def standing(plan: Plan, target: str) -> tuple[str, tuple[str, ...]]:
    """Say how a system stands: ``in_sync``, ``pending``, ``lost``, ``refused``, ``unreadable``; and what is unread."""
    unread = tuple(sorted(scope for scope in plan.unread if target_of(scope) == target))
    if unread:
        return "unreadable", unread
    if target in plan.lost:
        return "lost", ()
    if any(target_of(problem.scope or problem.where) == target for problem in (*plan.refused, *plan.held)):
        return "refused", ()
    return ("pending" if any(change.target == target for change in plan.pending) else "in_sync"), ()


# ---------------------------------------------------------------------------------------------------------- apply
def apply(
    stack: Stack,
    plan: Plan,
    listen: Callable[[Outcome], None] = lambda _: None,
    stopped: Stopped = lambda: False,
) -> Effect:
    """Carry out an approved plan, phase by phase, then observe and plan again: an empty plan is the proof.

    `reconciler.applying` does it with lease and journal. Values that the server chooses become known after the first
    pass; a second one then makes the changes that waited for them, and those that are what was approved once the first
    has healed what they change; and no other. ``listen`` hears each outcome as it happens; ``stopped`` is asked between
    writes.
    """
    outcomes: list[Outcome] = []

    def run(changes: Iterable[Change]) -> None:
        for outcome in _run(stack, list(changes), outcomes, stopped):
            outcomes.append(outcome := _placed(stack, outcome))
            if outcome.change.kind == Account.kind and outcome.status is not Status.SKIPPED:
                stack.refusals.forget()  # what was refused may be right from now on
            listen(outcome)

    run(change for change in (*plan.changes, *plan.adopted) if not change.waits)
    waiting = {change.address: change for change in plan.changes if change.waits}
    if (waiting or plan.instead) and not stopped():
        now = make_plan(stack)
        run((*_now_known(now, waiting), *_now_approved(now, plan.instead)))
    return Effect(plan, tuple(outcomes), make_plan(stack, gone={change.address for change in plan.changes}))


def _placed(stack: Stack, outcome: Outcome) -> Outcome:
    """Say of a change that failed where the directory asks for it."""
    place = declaration(stack.directory, outcome.change.address) if outcome.status is Status.FAILED else ""
    return replace(outcome, notes=(*outcome.notes, f"declared at {place}")) if place else outcome


def _now_known(plan: Plan, waiting: Mapping[str, Change]) -> Iterator[Change]:
    """Yield the approved changes whose unknown values are known by now; nothing else may have become different."""
    for change in plan.changes:
        before = waiting.get(change.address)
        if before is not None and not change.waits and before.actions == change.actions:
            yield change


def _now_approved(plan: Plan, healed: Collection[Change]) -> Iterator[Change]:
    """Yield what is approved by now, of what was held while something in its place was healed."""
    companies = {change.resource.company for change in healed}
    for change in permitted(plan).changes:
        if change.resource.company in companies and not (change in plan.instead or change.waits):
            yield change


def _run(stack: Stack, changes: Sequence[Change], earlier: Sequence[Outcome], stopped: Stopped) -> Iterator[Outcome]:
    failed = {item.change.address for item in earlier if item.status is not Status.DONE}
    for phase in phases(changes):
        ready = []
        for change in phase:
            missing = sorted(change.needs & failed)
            if missing:
                yield _skipped(change, f"{missing[0]} was not done")
                failed.add(change.address)
            else:
                ready.append(change)
        for outcome in _phase(stack, ready, stopped):
            if outcome.status is not Status.DONE:
                failed.add(outcome.change.address)
            yield outcome


def _phase(stack: Stack, changes: Sequence[Change], stopped: Stopped) -> Iterator[Outcome]:
    """Hand one phase to its target; every change gets exactly one outcome, whatever happens."""
    if not changes:
        return
    left = {id(change): change for change in changes}
    if not stopped():
        try:
            for outcome in stack.targets[changes[0].target].apply(changes, stack.secrets, stopped):
                left.pop(id(outcome.change), None)
                yield outcome
        except ReconcilerError as error:
            for change in left.values():
                yield Outcome(change, Status.FAILED, error.problems[0] if error.problems else None)
            return
        except Exception as error:  # noqa: BLE001 (as in observe: the other phases go on)
            problem = stack.bug(changes[0].target, error)
            yield from (Outcome(change, Status.UNKNOWN, problem) for change in left.values())
            return
    for change in left.values():
        yield _skipped(change, "stopped before it was done")


def _skipped(change: Change, why: str) -> Outcome:
    return Outcome(change, Status.SKIPPED, Problem(change.address, why, "run apply again", scope=change.target))
