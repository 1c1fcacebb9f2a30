"""`reconciler explain ADDRESS`: why a resource is as it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from reconciler.cli import session
from reconciler.cli.session import Session
from reconciler.problem import Problem, ReconcilerError

if TYPE_CHECKING:
    from reconciler.journal import Entry, Written
    from reconciler.reconcile import Fact

_SHOWN = 3  # addresses that may have been meant


@click.command()
@click.argument("address", type=session.AddressName())
@session.command
def command(session: Session, *, address: str) -> int:
    """Show why a resource is as it is.

    Where it is declared, what is live, what is planned and why, and what was last done to it.
    """
    from reconciler.address import Address
    from reconciler.reconcile import facts

    stack = session.stack()
    plan = session.plan(stack)
    known = facts(stack, plan)
    found = sorted(name for name in known if address in (name, str(Address.parse(name).place)))
    if not found:
        raise ReconcilerError(_unknown(address, known))
    last = _last_changes(stack.applies)
    texts = ["\n".join(_lines(known[name], last.get(name), session)) for name in found]
    document = {"format_version": "1.0", "resources": [_document(known[name], last.get(name)) for name in found]}
    session.console.result("\n\n".join(texts), document)
    return 1 if any(known[name].unread for name in found) else 0


def _unknown(address: str, facts: dict[str, Fact]) -> Problem:
    import difflib

    near = difflib.get_close_matches(address, facts, n=_SHOWN, cutoff=0.5)
    inside = [name for name in sorted(facts) if name.startswith(f"{address.rstrip('/')}/")]
    if inside:
        more = f" and {len(inside) - _SHOWN} more" if len(inside) > _SHOWN else ""
        hint = f"there are {', '.join(inside[:_SHOWN])}{more}: give one of them whole"
    elif near:
        hint = f"did you mean {' or '.join(near)}?"
    else:
        hint = f"write one such as {min(facts)}" if facts else "nothing is declared, and nothing is live"
    return Problem(address, "nothing of that address is declared or live", hint)


def _last_changes(entries: Iterable[Entry]) -> dict[str, tuple[Entry, Written]]:
    """Map an address to the last apply that touched it."""
    return {item.address: (entry, item) for entry in entries for item in entry.written}


def _lines(fact: Fact, last: tuple[Entry, Written] | None, session: Session) -> Iterator[str]:
    from reconciler.report import text, values

    yield session.style.title(values.escape(fact.address))
    yield f"  declared  {values.escape(fact.place) or 'nowhere'}"
    if fact.wanted is not None and values.brief(fact.wanted):
        yield f"  wanted    {'; '.join((values.brief(fact.wanted), *map(values.escape, fact.wanted.notes)))}"
    yield f"  live      {'; '.join((_live(fact), *_untold(fact)))}"
    yield f"  planned   {_planned(fact, session)}"
    yield from (f"  {text.problem(problem, session.style)}" for problem in fact.problems)
    if last is None:
        yield "  applied   never from here, as far as the journal knows"
    else:
        entry, item = last
        when = f"{', '.join(item.actions)} {item.status} in apply {entry.id}, {entry.began}, by {entry.who}"
        yield f"  applied   {values.escape(when)}"


def _untold(fact: Fact) -> Iterator[str]:
    from reconciler.report import values

    yield from (f"{values.label(name)} {values.shown(name, value)}" for name, value in fact.untold)


def _live(fact: Fact) -> str:
    from reconciler.report import values

    if fact.unread:
        return "could not be read"
    if fact.change is not None:
        return (values.brief(fact.change.live) or "is there") if fact.change.live else "is not there"
    if fact.unmanaged:
        return "is there"
    return "differs" if fact.problems else "as wanted"


def _planned(fact: Fact, session: Session) -> str:
    from reconciler.report import text

    if fact.adopted:
        return "only our mark: it is equal already"
    if fact.change is not None:
        reason = str(fact.change.reason).replace("_", " ")
        return f"{text.change(fact.change, session.style)}  [{reason}]"
    if fact.unmanaged:
        return "nothing: it is not declared and not ours, so it is left alone"
    return "nothing can be, see below" if fact.problems or fact.unread else "nothing: it is as it should be"


def _document(fact: Fact, last: tuple[Entry, Written] | None) -> dict[str, Any]:
    from reconciler.report import json

    return {
        "address": fact.address,
        "declared": fact.place or None,
        "change": json.change(fact.change) if fact.change else None,
        "adopted": fact.adopted,
        "unmanaged": fact.unmanaged,
        "unread": fact.unread,
        "untold": list(_untold(fact)),
        "problems": [json.problem(problem) for problem in fact.problems],
        "last": {"id": last[0].id, "began": last[0].began, "who": last[0].who, **asdict(last[1])} if last else None,
    }
