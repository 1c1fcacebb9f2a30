"""`reconciler status`: how things stand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from reconciler.cli import session
from reconciler.cli.session import Session
from reconciler.problem import Problem, ReconcilerError

if TYPE_CHECKING:
    from reconciler.journal import Entry, Journal
    from reconciler.plan import Plan
    from reconciler.suspension import Suspension


@click.command()
@session.command
def command(session: Session) -> int:
    """Show how things stand.

    How each system stands, what was applied last, and who is at work. Ends with 1 where a system can't be read.
    """
    from reconciler.report import json, text
    from reconciler.suspension import current

    stack = session.stack()
    plan = session.plan(stack)
    systems = {target: _standing(plan, target) for target in stack.chosen}
    last, damage = _last(stack.journal)
    holder, suspended = stack.lease().holder(), current(stack.data, stack.name)
    told = {item.where for item in damage}
    document = json.problems([*(item for item in plan.problems if item.where not in told), *damage]) | {
        "stack": plan.stack,
        "revision": plan.revision,
        "complete": plan.complete,
        "targets": systems,
        "last_apply": {key: value for key, value in asdict(last).items() if key != "written"} if last else None,
        "lease": dict(holder) if holder else None,
        "suspended": asdict(suspended) if suspended else None,
    }
    lines = [*_head(session, plan), *_systems(systems), "", *_journal(last), *_lease(holder), *_suspended(suspended)]
    problems = [text.problem(item, session.style) for item in (*plan.refused, *plan.errors, *damage)]
    session.console.result("\n".join([*lines, *([""] if problems else []), *problems]), document)
    return 1 if plan.unread or plan.errors else 0


def _standing(plan: Plan, target: str) -> dict[str, Any]:
    from reconciler.reconcile import standing

    state, unread = standing(plan, target)
    pending = sum(change.target == target for change in plan.pending)
    restarts = sum(change.target == target for change in plan.changes if change.restarts)
    return {"state": state, "pending": pending, "restarts": restarts, "unread": list(unread)}


def _last(log: Journal) -> tuple[Entry | None, list[Problem]]:
    try:
        entries = log.entries()
    except ReconcilerError as error:
        return None, list(error.problems)
    return (entries[-1] if entries else None), [log.problem] if log.problem else []


def _head(session: Session, plan: Plan) -> list[str]:
    from reconciler.report import values

    revision = f" at {values.escape(plan.revision)}" if plan.revision else ""
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


def _suspended(suspended: Suspension | None) -> list[str]:
    from reconciler.report import values

    return [values.escape(f"It is {suspended}.")] if suspended else []
