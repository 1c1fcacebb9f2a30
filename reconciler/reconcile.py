"""The one interface to a system, and the way from observing to an empty second plan."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from reconciler import guards
from reconciler.address import Address
from reconciler.dns.publication import Look
from reconciler.guards.evidence import Evidence, Past, Policy
from reconciler.plan import Desired, Plan, diff, phases
from reconciler.problem import Problem, ReconcilerError
from reconciler.resources import Observation, Resource, SecretRef
from reconciler.target import Change, Observations, Outcome, Reveal, Status, Stopped, Target

_HEEDED = 0.2  # seconds: a signal that comes just before a wait for a lock does not end that wait


@dataclass(frozen=True, slots=True)
class Work:
    """Everything one reconciliation needs: what should be, the systems, and how far it may go.

    ``desire`` is the function from what was observed (None before that) to what is desired. ``only`` narrows the plan
    to addresses. ``known_public`` names the secrets read so far whose value everybody knows. ``look`` asks the
    authoritative name servers, where a guard has to know what they show; ``past`` tells which resources were applied
    from here, and which of some were declared by commits. ``today`` is the day that guards count from.
    ``unexpected`` is told of exceptions that should not be.
    """

    stack: str
    desire: Callable[[Observations | None], Desired]
    targets: Mapping[str, Target]
    reveal: Reveal
    policy: Policy = field(default_factory=Policy)
    only: tuple[str, ...] = ()
    known_public: Callable[[], frozenset[SecretRef]] = frozenset
    look: Look = lambda _: {}
    past: Callable[[Collection[Resource], Collection[Resource]], Past] = lambda _asked, _committed: Past()
    today: dt.date = field(default_factory=lambda: dt.datetime.now(dt.UTC).date())
    unexpected: Callable[[Exception], None] = lambda _: None


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
def observe(work: Work, wanted: Iterable[Resource]) -> dict[str, Observation]:
    """Observe all targets side by side; a target that fails is unread, the others go on."""
    resources = tuple(wanted)

    found: dict[str, Observation] = {}

    def one(target: Target) -> None:
        try:
            seen = target.observe([item for item in resources if item.target == target.name], work.reveal)
        except ReconcilerError as error:
            seen = Observation(target.name, unread=frozenset({target.name}), problems=error.problems)
        except Exception as error:  # noqa: BLE001 (an answer nobody thought of must not stop the other targets)
            seen = Observation(target.name, unread=frozenset({target.name}), problems=(_bug(work, target.name, error),))
        found[target.name] = seen

    if len(work.targets) == 1:  # no thread: it would have a heap of its own, beside what this one has freed
        one(*work.targets.values())
        return found
    # Daemons: a signal ends the program at once, while one of them still waits for a system that hangs.
    threads = [threading.Thread(target=one, args=(target,), daemon=True) for target in work.targets.values()]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(_HEEDED)
    return {name: found[name] for name in work.targets}


def _bug(work: Work, where: str, error: Exception) -> Problem:
    """Make a problem of an exception that should not be. Its text is not shown: it may quote anything."""
    work.unexpected(error)
    summary = f"this is a bug: {type(error).__name__} while working with {where}"
    return Problem(where, summary, "run it again with -v and report what it prints", scope=where)


def make_plan(work: Work, gone: Collection[str] = ()) -> Plan:
    """Observe, compare and guard. Writes nothing anywhere. ``gone`` are addresses that were there a moment ago."""
    observations = observe(work, work.desire(None).resources)
    desired = work.desire(observations)
    plan = diff(desired, observations, stack=work.stack, prune=work.policy.prune)
    unknown = _unknown(plan, work.only, {*desired.removed, *gone})
    plan = narrow(plan, work.only)
    evidence = Evidence(plan, desired, observations, work.policy, work.known_public(), today=work.today)
    asked = guards.questions(evidence)
    evidence = replace(
        evidence, answers=work.look(asked) if asked else {}, past=work.past(*guards.remembered(evidence))
    )
    return replace(plan, problems=tuple(dict.fromkeys((*unknown, *plan.problems, *guards.check(evidence)))))


def narrow(plan: Plan, only: Sequence[str]) -> Plan:
    """Keep the changes of some addresses and what they need. An address also means all that lies below it."""
    if not only:
        return plan
    by_address = {change.address: change for change in plan.changes}
    chosen = {address for address in by_address if _among(address, only)}
    queue = list(chosen)
    while queue:
        needed = by_address[queue.pop()].needs - chosen
        chosen |= needed
        queue += needed
    return replace(
        plan,
        changes=tuple(change for change in plan.changes if change.address in chosen),
        adopted=tuple(change for change in plan.adopted if _among(change.address, only)),
    )


def _among(address: str, only: Sequence[str]) -> bool:
    return any(Address.parse(address).within(Address.parse(item)) for item in only)


def _unknown(plan: Plan, only: Sequence[str], gone: Collection[str]) -> Iterator[Problem]:
    """Name the addresses that nothing has or had: a slip of the pen must not pass as "nothing to do"."""
    from difflib import get_close_matches

    known = [*(address for address, _, _ in plan.compared), *gone]
    for item in only:
        if plan.complete and not any(_among(address, [item]) for address in known):
            near = get_close_matches(item, known, n=3, cutoff=0.8)
            hint = f"did you mean {' or '.join(near)}?" if near else "`reconciler plan` names the addresses"
            yield Problem(f"--only {item}", "nothing of that address is declared or live", hint)


# ---------------------------------------------------------------------------------------------------------- apply
def apply(
    work: Work,
    plan: Plan,
    listen: Callable[[Outcome], None] = lambda _: None,
    stopped: Stopped = lambda: False,
) -> Effect:
    """Carry out an approved plan, phase by phase, then observe and plan again: an empty plan is the proof.

    Values that the server chooses become known after the first pass; a second one then makes the changes that waited
    for them, and no other. ``listen`` hears each outcome as it happens; ``stopped`` is asked between writes.
    """
    outcomes: list[Outcome] = []

    def run(changes: Iterable[Change]) -> None:
        for outcome in _run(work, list(changes), outcomes, stopped):
            outcomes.append(outcome)
            listen(outcome)

    run(change for change in (*plan.changes, *plan.adopted) if not change.waits)
    waiting = {change.address: change for change in plan.changes if change.waits}
    if waiting and not stopped():
        run(_now_known(make_plan(work), waiting))
    return Effect(plan, tuple(outcomes), make_plan(work, gone={change.address for change in plan.changes}))


def _now_known(plan: Plan, waiting: Mapping[str, Change]) -> Iterator[Change]:
    """Yield the approved changes whose unknown values are known by now; nothing else may have become different."""
    for change in plan.changes:
        before = waiting.get(change.address)
        if before is not None and not change.waits and before.actions == change.actions:
            yield change


def _run(work: Work, changes: Sequence[Change], earlier: Sequence[Outcome], stopped: Stopped) -> Iterator[Outcome]:
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
        for outcome in _phase(work, ready, stopped):
            if outcome.status is not Status.DONE:
                failed.add(outcome.change.address)
            yield outcome


def _phase(work: Work, changes: Sequence[Change], stopped: Stopped) -> Iterator[Outcome]:
    """Hand one phase to its target; every change gets exactly one outcome, whatever happens."""
    if not changes:
        return
    left = {id(change): change for change in changes}
    if not stopped():
        try:
            for outcome in work.targets[changes[0].target].apply(changes, work.reveal, stopped):
                left.pop(id(outcome.change), None)
                yield outcome
        except ReconcilerError as error:
            for change in left.values():
                yield Outcome(change, Status.FAILED, error.problems[0] if error.problems else None)
            return
        except Exception as error:  # noqa: BLE001 (as in observe: the other phases go on)
            problem = _bug(work, changes[0].target, error)
            yield from (Outcome(change, Status.UNKNOWN, problem) for change in left.values())
            return
    for change in left.values():
        yield _skipped(change, "stopped before it was done")


def _skipped(change: Change, why: str) -> Outcome:
    return Outcome(change, Status.SKIPPED, Problem(change.address, why, "run apply again", scope=change.target))
