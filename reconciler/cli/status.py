"""`reconciler status`: how things stand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from reconciler.cli import session
from reconciler.cli.session import Session
from reconciler.problem import Problem, ReconcilerError

if TYPE_CHECKING:
    from reconciler.daemon.state import State, TargetState
    from reconciler.failover import Failover
    from reconciler.journal import Entry, Journal
    from reconciler.plan import Plan
    from reconciler.stack import Stack
    from reconciler.suspension import Suspension

_APPLIES = 20  # that are told of


@click.command()
@session.command
def command(session: Session) -> int:
    """Show how things stand.

    How each system stands, what was applied last, and who is at work. Ends with 1 where a system can't be read.
    """
    from reconciler.daemon import approvals, memory
    from reconciler.daemon.document import document
    from reconciler.report import text

    stack = session.stack()
    approvals.govern(stack, approvals.settled(stack))
    state = _state(stack, session.plan(stack))
    plan, last = state.plan, state.healed[-1] if state.healed else None
    if plan is None:
        raise AssertionError
    now = datetime.now(UTC)
    known, told = document(state, now), memory.recalled(stack.data, stack.name)
    known = memory.joined(known, told, now) if told else known
    lines = [*_head(session, plan), *_systems(known["targets"]), "", *_journal(last), *_lease(known["lease"])]
    lines += _failover(stack.failover)
    lines += _suspended(state.suspended)
    lines += _daemon(told, now) if told else []
    problems = [
        text.problem(item, session.style) for item in (*plan.refused, *plan.held, *plan.errors, *state.problems)
    ]
    session.console.result("\n".join([*lines, *([""] if problems else []), *problems]), known)
    return 1 if plan.unread or plan.errors else 0


def _state(stack: Stack, plan: Plan) -> State:
    """Return what a daemon would know of the stack: from a look at the systems, and from the data directory."""
    from reconciler.daemon.state import Revision, Sourced, State
    from reconciler.reconcile import facts
    from reconciler.suspension import current

    entries, damage = _entries(stack.journal)
    told = {item.where for item in damage}
    revision = Revision(stack.directory, plan.revision)
    return State(
        stack.name,
        started="",
        interval=0.0,
        source=Sourced(str(stack.directory.path), revision=revision),
        plan=replace(plan, problems=tuple(item for item in plan.problems if item.where not in told)),
        facts=facts(stack, plan),
        targets=tuple(_standing(plan, target) for target in stack.chosen),
        suspended=current(stack.data, stack.name),
        healed=tuple(entries[-_APPLIES:]),
        lease=stack.lease().holder(),
        problems=tuple(damage),
    )


def _standing(plan: Plan, target: str) -> TargetState:
    from reconciler.daemon.state import TargetState
    from reconciler.reconcile import standing

    state, unread = standing(plan, target)
    pending = sum(change.target == target for change in plan.pending)
    restarts = sum(change.target == target for change in plan.changes if change.restarts)
    return TargetState(target, state, "", pending, restarts, unread)


def _entries(log: Journal) -> tuple[list[Entry], list[Problem]]:
    try:
        entries = log.entries()
    except ReconcilerError as error:
        return [], list(error.problems)
    return entries, [log.problem] if log.problem else []


def _head(session: Session, plan: Plan) -> list[str]:
    from reconciler.report import values

    beside = " and what is not committed" if (plan.revision or "").endswith("+") else ""
    revision = f" at {values.escape((plan.revision or '').removesuffix('+'))}{beside}" if plan.revision else ""
    return [session.style.title(values.escape(plan.stack)) + revision]


def _systems(systems: Mapping[str, Mapping[str, Any]]) -> list[str]:
    from reconciler.report import summary

    lines = []
    for target, standing in systems.items():
        number = standing["pending"]
        changes = f"{number:,} {'change' if number == 1 else 'changes'} pending"
        words = {
            "in_sync": "in sync",
            "pending": changes,
            "lost": f"empty: new, or lost; {changes}",
            "refused": f"refused by a guard; {changes}",
            "unreadable": f"could not be read{_parts(target, standing['unread'])}",
        }
        restart = f"; {standing['restarts']} restart due" if standing["restarts"] else ""
        lines.append(f"  {summary.target_name(target):<12}{words[standing['state']]}{restart}")
    return lines


def _parts(target: str, unread: list[str]) -> str:
    from reconciler.report import values

    return "" if unread == [target] else f": {values.escape(', '.join(unread))}"


def _journal(last: Entry | None) -> list[str]:
    from reconciler.report import values

    if last is None:
        return ["Nothing was applied from here yet, as far as the journal knows."]
    revision = f" of {last.revision}" if last.revision else ""
    result = last.result or "not ended: it is running, or was killed"
    return [values.escape(f"Last apply {last.id}{revision}: {result}, {last.ended or last.began} by {last.who}.")]


def _lease(holder: Mapping[str, Any] | None) -> list[str]:
    from reconciler.lease import QUIET
    from reconciler.report import values

    if holder is None:
        return []
    pid, host, since, command = (holder[name] for name in ("pid", "host", "since", "command"))
    quiet = f"; last heard of {holder['silence']:.0f} s ago" if (holder["silence"] or 0) > QUIET else ""
    return [values.escape(f"The lease is held by process {pid} on {host} since {since} ({command or '?'}){quiet}.")]


def _failover(failover: Failover | None) -> list[str]:
    from reconciler.report import values

    return [values.escape(f"The daemon has {failover}.")] if failover else []


def _suspended(suspended: Suspension | None) -> list[str]:
    from reconciler.report import values

    return [values.escape(f"It is {suspended}.")] if suspended else []


def _daemon(told: Mapping[str, Any], now: datetime) -> list[str]:
    from reconciler.daemon import memory
    from reconciler.report import values

    cycle = f"The daemon's last cycle ended {told['cycle']['ended']}: {told['cycle']['result']}"
    if memory.is_late(told, now):
        return [values.escape(f"{cycle}. It seems not to run any more.")]
    due = told["next"] or f"within {told['interval']:g} s of that"
    return [values.escape(f"{cycle}; the next one is due {due}.")]
