"""One apply: the lease, an approved plan, and the journal from its first line to its last."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Self

from reconciler import fence, journal, reconcile
from reconciler.plan import Plan
from reconciler.problem import Problem, ReconcilerError, Refused
from reconciler.reconcile import Effect
from reconciler.report import json
from reconciler.stack import Stack
from reconciler.target import Change, Outcome, Status, Stopped


@dataclass(frozen=True, slots=True)
class Ending:
    """How an apply ended: ``word`` and ``id`` are the journal's. ``result`` is None where ``problems`` broke it off."""

    word: str
    id: str
    result: Effect | None = None
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Reporter:
    """Who hears of an apply while it goes on: each outcome, and what of the journal could not be written."""

    outcome: Callable[[Outcome], None] = lambda _: None
    warning: Callable[[Problem], None] = lambda _: None


class Apply:
    """One apply, between entering and leaving: what is planned, approved and carried out within it is under the lease.

    Entering raises `LeaseHeld` where another reconciler is still at work after ``wait`` seconds, and ReconcilerError
    where no lease can be taken. ``command`` tells others what holds it. A lease that is not heard of for too long may
    be taken by another: then nothing more is written.
    """

    def __init__(self, stack: Stack, command: str, wait: float = 0.0) -> None:
        self.stack, self._lease = stack, stack.lease(command, wait)
        self._held = ExitStack()

    def __enter__(self) -> Self:
        self._held.enter_context(self._lease)
        self._held.enter_context(fence.within(self._lease))
        return self

    def __exit__(self, *error: object) -> None:
        self._held.close()

    def carry_out(self, plan: Plan, reporter: Reporter, stopped: Stopped) -> Ending:
        """Apply an approved plan and write down how it went."""
        stack, log = self.stack, self.stack.journal
        entry = journal.entry(
            plan.stack,
            stack.settings.environ,
            targets=stack.chosen,
            lost=tuple(sorted(plan.lost)),
            revision=plan.revision,
            desired_hash=plan.desired_hash,
            fingerprint=plan.fingerprint,
            failover=plan.failover.name if plan.failover else "",
        )
        _warn(reporter, log.begin(entry))
        outcomes: list[Outcome] = []

        def hear(outcome: Outcome) -> None:
            outcomes.append(outcome)
            reporter.outcome(outcome)

        result: Effect | None = None
        problems: tuple[Problem, ...] = ()
        try:
            with fence.within(self._lease, stopped):
                result = reconcile.apply(stack, plan, hear, lambda: stopped() or self._lease.lost)
        except ReconcilerError as error:
            problems = error.problems
        finally:
            word = _word(result, outcomes)
            lost = self._lease.lost and word != "done"
            if lost:
                reporter.warning(self._lease.loss())
            word = "stopped" if stopped() or lost else word
            whole = result is not None and result.proven and not (stack.choice.targets or stack.choice.only)
            written = [_written(item, stack.secrets.redact) for item in outcomes]
            _warn(reporter, log.end(entry, word, written, whole=whole))
        return Ending(word, entry.id, result, problems)


def still_true(approved: Plan, now: Plan) -> Plan:
    """Return a plan that was made again after its approval. Raises `ReconcilerError` where it is another by now."""
    if approved.fingerprint != now.fingerprint or now.refused:
        summary = "what is live has changed since the plan was shown, so nothing was written"
        raise Refused(*now.refused, Problem("apply", summary, "call apply again and read the new plan"))
    return now


def _warn(reporter: Reporter, problem: Problem | None) -> None:
    if problem is not None:
        reporter.warning(problem)


def _word(result: Effect | None, outcomes: Sequence[Outcome]) -> str:
    """Say how it went, in the journal's words."""
    if result is not None and result.proven and not _bad(outcomes, result.remaining):
        return "done"
    return "partial" if any(item.status is Status.DONE for item in outcomes) else "failed"


def _bad(outcomes: Sequence[Outcome], remaining: Collection[Change]) -> bool:
    """Whether a change did not happen. A lost answer is no failure where it is done after all, nor is a due restart."""
    left = {change.address for change in remaining}
    for outcome in outcomes:
        unknown = outcome.status is Status.UNKNOWN and outcome.change.address in left
        skipped = outcome.status is Status.SKIPPED and not outcome.change.restarts
        if unknown or skipped or outcome.status is Status.FAILED:
            return True
    return False


def _written(outcome: Outcome, redact: Callable[[str], str]) -> journal.Written:
    change = json.change(outcome.change)
    problem = redact(outcome.problem.summary) if outcome.problem else ""
    actions = tuple(change["actions"]) or ("adopt",)
    sides = (json.redacted(change["before"], redact), json.redacted(change["after"], redact))
    return journal.Written(outcome.change.address, actions, str(outcome.status), change["reason"], *sides, problem)
