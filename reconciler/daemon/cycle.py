"""One cycle over one stack: observe, plan, apply what may be, prove; then what is known of each target."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from reconciler import journal
from reconciler.address import target_of
from reconciler.applying import Apply, Reporter
from reconciler.daemon.pace import Contests, Field, Pace
from reconciler.daemon.state import Contest, Result, TargetState
from reconciler.plan import Plan, public
from reconciler.problem import LeaseHeld, Problem, ReconcilerError
from reconciler.reconcile import facts, make_plan, permitted, standing
from reconciler.stack import Stack
from reconciler.target import Change, Outcome, Status, Stopped

if TYPE_CHECKING:
    from reconciler.reconcile import Fact

COMMAND = "reconciler daemon"


@dataclass(frozen=True, slots=True)
class Report:
    """What one cycle found and did. ``plan`` is what is left to do; it is None where nothing could be looked at."""

    result: Result
    plan: Plan | None = None
    facts: Mapping[str, Fact] = field(default_factory=dict)
    outcomes: tuple[Outcome, ...] = ()
    drift: frozenset[str] = frozenset()
    lost: frozenset[str] = frozenset()
    problems: tuple[Problem, ...] = ()


def look(stack: Stack, result: Result, problems: tuple[Problem, ...] = ()) -> Report:
    """Observe and plan, and write nothing."""
    plan = make_plan(stack)
    return Report(result, plan, facts(stack, plan), problems=problems)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a cycle hears and tells: each outcome, whether to stop, and when it writes (a signal waits so long)."""

    stopped: Stopped = lambda: False
    hear: Callable[[Outcome], None] = lambda _: None
    writing: Callable[[], AbstractContextManager[None]] = nullcontext


def heal(stack: Stack, former: Plan | None, barred: Collection[str], around: Surroundings) -> Report:
    """Observe, plan, apply all that no guard forbids and nobody contests (``barred``, addresses), and look again.

    ``former`` is the plan that the cycle before has left. Where another reconciler holds the lease, or no lease can be
    taken, it only looks.
    """
    try:
        with Apply(stack, COMMAND) as apply:
            plan = make_plan(stack)
            chosen = permitted(plan, barred)
            if not (chosen.changes or chosen.adopted):
                return Report(_unwritten(plan), plan, facts(stack, plan), lost=plan.lost)
            return replace(_applied(apply, plan, chosen, around), drift=frozenset(drifted(plan, former)))
    except LeaseHeld as error:
        return look(stack, Result.BUSY, error.problems)
    except ReconcilerError as error:  # no lease can be taken here
        return look(stack, Result.FAILED, error.problems)


def _applied(apply: Apply, plan: Plan, chosen: Plan, around: Surroundings) -> Report:
    stack, outcomes, warnings = apply.stack, list[Outcome](), list[Problem]()

    def heard(outcome: Outcome) -> None:
        outcomes.append(outcome)
        around.hear(outcome)

    with around.writing():
        ending = apply.carry_out(chosen, Reporter(heard, warnings.append), around.stopped)
    after = ending.result.after if ending.result else plan
    result = Result(ending.word)
    if result is Result.DONE and not _whole(after):
        result = Result.PARTIAL
    return Report(
        result,
        after,
        facts(stack, after),
        tuple(outcomes),
        lost=plan.lost,
        problems=(*ending.problems, *warnings),
    )


def drifted(plan: Plan, former: Plan | None) -> Iterator[str]:
    """Yield the addresses that differ although the directory is the same, and that were as desired before."""
    yield from plan.drift
    if former is None or (former.desired_hash, former.failover) != (plan.desired_hash, plan.failover):
        return
    if former.complete:
        before = {change.address for change in former.changes}
        yield from (change.address for change in plan.changes if change.address not in before)


def _whole(plan: Plan) -> bool:
    return not (plan.pending or plan.errors or plan.refused or plan.unread)


def _unwritten(plan: Plan) -> Result:
    """Say how a cycle ended in which nothing was to be written."""
    if _whole(plan):
        return Result.NOTHING
    return Result.FAILED if plan.unread and not plan.compared else Result.PARTIAL


# ------------------------------------------------------------------------------------------------------------- targets
@dataclass(slots=True)
class Paces:
    """When each target is asked again. ``interval`` is that of the cycles, in seconds."""

    interval: float
    dice: Callable[[], float] = random.random
    known: dict[str, Pace] = field(default_factory=dict)
    problems: dict[str, Problem] = field(default_factory=dict)
    starting: float = 0.0
    """Until when a container may still be starting: what can't be read so long is asked again at once."""

    def held(self, now: float) -> dict[str, Problem]:
        """Return the targets that are not asked now, with what was wrong the last time."""
        return {name: self.problems[name] for name, pace in self.known.items() if pace.retry > now}

    def forget(self, *targets: str) -> None:
        """Ask these again at once (without any: all): something has happened there."""
        for name in targets or tuple(self.known):
            self.known.pop(name, None)
            self.problems.pop(name, None)

    def note(self, report: Report, held: Collection[str], targets: Collection[str], now: float) -> None:
        """Take note of what a cycle showed of each target that took part in it."""
        for name in set(targets) - set(held):
            failure, writing = failed(report, name)
            if failure is None:
                self.forget(name)
            else:
                self.problems[name] = failure
                pace = self.known.get(name, Pace())
                starting = now < self.starting
                self.known[name] = pace.failed(now, self.interval, self.dice(), writing=writing, starting=starting)

    def resume(self, known: Mapping[str, Pace], lasting: Collection[str]) -> None:
        """Take over how targets failed elsewhere, and which of them wait for a person; what was wrong is told there."""
        self.known = dict(known)
        for name, pace in known.items():
            times = f"{pace.failures} time{'s' * (pace.failures != 1)} in a row"
            summary = f"failed {times}, and is asked again in a while"
            self.problems[name] = Problem(name, summary, scope=name, lasting=name in lasting)

    def next(self) -> float | None:
        """Return when the first of them is asked again."""
        return min((pace.retry for pace in self.known.values()), default=None)


def failed(report: Report, target: str) -> tuple[Problem | None, bool]:
    """Say why a target counts as failed, None where it does not; and whether that was when it was written."""
    for item in report.outcomes:
        if item.change.target == target and item.status in (Status.FAILED, Status.UNKNOWN):
            return item.problem or Problem(item.change.address, "was not done"), True
    if report.plan is None or standing(report.plan, target)[0] != "unreadable":
        return None, False
    found = next((item for item in report.plan.errors if target_of(item.scope or item.where) == target), None)
    return found or Problem(target, "can't be read"), False


def target_states(
    report: Report, targets: Collection[str], paces: Paces, former: Mapping[str, TargetState], clock: Clock
) -> tuple[TargetState, ...]:
    """Say how each target stands after a cycle; ``former`` is how it stood before."""
    return tuple(_target_state(report, name, paces, former.get(name), clock) for name in targets)


def _target_state(report: Report, name: str, paces: Paces, former: TargetState | None, clock: Clock) -> TargetState:
    plan, pace = report.plan, paces.known.get(name, Pace())
    word, unread = standing(plan, name) if plan is not None else ("unreadable", (name,))
    problem, now = paces.problems.get(name), journal.now()
    lasting = problem is not None and problem.lasting
    word = "held" if lasting else word
    changes = [change for change in plan.changes if change.target == name] if plan is not None else []
    same = former is not None and former.state == word
    return TargetState(
        name,
        word,
        former.since if former is not None and same else now,
        pending=sum(not change.restarts for change in changes),
        restarts=sum(change.restarts for change in changes),
        unread=unread,
        failures=pace.failures,
        retry=clock.told(pace.retry) if pace.failures and not lasting else "",
        succeeded=now if word == "in_sync" else former.succeeded if former else "",
        problem=problem,
    )


# ------------------------------------------------------------------------------------------------------------ contests
def mended_fields(report: Report, former: Plan | None) -> Iterator[Field]:
    """Yield the fields that a cycle has put back although nothing else was wanted before; a loss is no contest.

    ``former`` is the plan that the cycle before has left: by that another value may have been wanted, such as the
    line's former address.
    """
    before = {address: wanted for address, wanted, _ in former.compared} if former is not None else {}
    for item in report.outcomes:
        change = item.change
        moved = change.after is not None and before.get(change.address, change.after) != change.after
        if moved or change.target in report.lost:
            continue
        if change.address in report.drift and item.status is Status.DONE:
            yield from ((change.address, name) for name in changed_fields(change))


def changed_fields(change: Change) -> Collection[str]:
    """Name what differs; "" stands for whether it is there at all."""
    return change.fields if change.before is not None and change.after is not None else ("",)


def contests(contests: Contests, plan: Plan | None, now: float, clock: Clock) -> tuple[Contest, ...]:
    """Tell of the fields that differ and are left alone, with both values as they may be shown."""
    left = contests.open(now)
    found = []
    for change in plan.changes if plan is not None else ():
        for name in changed_fields(change):
            if (item := left.get((change.address, name))) is not None:
                theirs, ours = (str(public(value)) for value in change.fields.get(name, _sides(change)))
                times = (clock.told(item.since), clock.told(item.until))
                found.append(Contest(change.address, name, ours, theirs, len(item.times), *times))
    return tuple(found)


def _sides(change: Change) -> tuple[str, str]:
    """Say of a thing as a whole what is live and what is wanted."""
    return ("gone", "there") if change.before is None else ("there", "gone")


@dataclass(frozen=True, slots=True)
class Clock:
    """Tells monotonic seconds as the time of day; the difference of the two is taken anew for each cycle."""

    offset: float

    @classmethod
    def now(cls) -> Clock:
        """Compare the two clocks."""
        return cls(time.time() - time.monotonic())

    def told(self, seconds: float) -> str:
        """Return a monotonic time as UTC in ISO 8601."""
        return datetime.fromtimestamp(seconds + self.offset, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
