"""`reconciler history`: what was applied, when, by whom."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from reconciler.cli import session
from reconciler.cli.session import Session
from reconciler.problem import InvalidDirectory, Problem, ReconcilerError

if TYPE_CHECKING:
    from reconciler.journal import Entry, Written


@click.command()
@click.argument("id", required=False)
@click.option("-n", "--number", type=click.IntRange(min=1), default=20, show_default=True, help="How many to list.")
@session.command
def command(session: Session, *, id: str | None, number: int) -> None:
    """Show what was applied.

    Lists applies, the latest first, or shows one (ID) change by change.
    """
    from reconciler.journal import Journal
    from reconciler.report import text

    log = Journal(session.data, _stack(session))
    entries = log.entries()
    if log.problem is not None:
        session.console.note(text.problem(log.problem))
    if id is not None:
        entry = _named(entries, id)
        session.console.result("\n".join(_details(entry)), {"format_version": "1.0", "apply": asdict(entry)})
        return
    latest = entries[: -number - 1 : -1]
    several = len({entry.directory for entry in entries if entry.directory}) > 1
    lines = [_line(entry, several=several) for entry in latest] or [
        "Nothing was applied from here yet, as far as the journal knows."
    ]
    lines += [f"… and {len(entries) - number} earlier (-n)"] if len(entries) > number else []
    session.console.result("\n".join(lines), {"format_version": "1.0", "applies": [asdict(entry) for entry in latest]})


def _stack(session: Session) -> str | None:
    """Name the stack; of a directory that is invalid today, history is shown all the same: that of all stacks."""
    try:
        return str(session.directory().spec.stack)
    except InvalidDirectory:
        return None


def _named(entries: list[Entry], id: str) -> Entry:
    found = [entry for entry in entries if entry.id.startswith(id)]
    if len(found) != 1:
        summary = "several applies begin so" if found else "no such apply is in the journal"
        raise ReconcilerError(Problem(f"history {id}", summary, "`reconciler history` lists them"))
    return found[0]


def _line(entry: Entry, *, several: bool) -> str:
    from reconciler.report import values

    counted = Counter(item.status for item in entry.written) + Counter({"no longer listed": entry.forgotten})
    did = ", ".join(f"{count} {status}" for status, count in counted.items())
    of = f"  {entry.directory}" if several else ""
    revision = entry.revision[:12] or "-"
    return values.escape(
        f"{entry.id}  {entry.began}  {entry.stack}  {revision:<12}  {_result(entry):<8}  {did or '-'}  {entry.who}{of}"
    )


def _result(entry: Entry) -> str:
    return entry.result or "no end"


def _details(entry: Entry) -> list[str]:
    from reconciler.report import values

    head = [
        f"Apply {entry.id} of {entry.stack}{f' at {entry.revision}' if entry.revision else ''}",
        f"  by       {entry.who}",
        *([f"  of       {entry.directory} (seen from the data directory)"] if entry.directory else []),
        f"  began    {entry.began}",
        f"  ended    {entry.ended or 'never: it was killed, or is running'}"
        + (f" ({entry.seconds:.1f} s)" * bool(entry.ended)),
        f"  result   {_result(entry)}{', nothing was left to do' if entry.whole else ''}",
        f"  plan     {entry.fingerprint}",
        *([f"  failover {entry.failover}"] if entry.failover else []),
        *([f"  lost     {', '.join(entry.lost)}"] if entry.lost else []),
    ]
    what = "change of it is" if entry.forgotten == 1 else "changes of it are"
    left_out = [f"  {entry.forgotten} {what} no longer listed"] if entry.forgotten else []
    return [values.escape(line) for line in [*head, *(_change(item) for item in entry.written), *left_out]]


_SIGNS = {"create": "+", "update": "~", "delete": "-", "restart": "↻"}


def _change(item: Written) -> str:
    sign = (
        "±" if {"create", "delete"} <= set(item.actions) else _SIGNS.get(item.actions[0] if item.actions else "", "=")
    )
    what = f"{sign} {', '.join(item.actions)}"
    because = f": {item.summary}" if item.summary else ""
    return f"  {item.status:<8} {what:<15} {item.address}{_values(item)}{because}"


def _values(item: Written) -> str:
    from reconciler.report import values

    before, after = item.before or {}, item.after or {}
    if not before or not after:
        return ""
    names = [name for name in after if name in before and before[name] != after[name]]
    said = ", ".join(
        f"{name}: {values.shown(name, before[name])} → {values.shown(name, after[name])}" for name in names
    )
    return f"  {said}" if said else ""
