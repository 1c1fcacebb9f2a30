"""`reconciler explain ADDRESS`: why a resource is as it is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

from reconciler.cli import session
from reconciler.cli.session import Session
from reconciler.problem import Problem, ReconcilerError

if TYPE_CHECKING:
    from reconciler.journal import Entry, Written
    from reconciler.plan import Plan
    from reconciler.resources import Resource
    from reconciler.stack import Stack
    from reconciler.target import Change


@click.command()
@click.argument("address")
@session.command
def command(session: Session, *, address: str) -> int:
    """Show why a resource is as it is.

    Where it is declared, what is live, what is planned and why, and what was last done to it.
    """
    from reconciler.address import Address

    stack = session.stack()
    plan = session.plan(stack)
    facts = _known(stack, plan)
    found = sorted(name for name in facts if address in (name, str(Address.parse(name).place)))
    if not found:
        raise ReconcilerError(_unknown(address, facts))
    last = _last_changes(session, plan.stack)
    texts = ["\n".join(_lines(facts[name], last.get(name), session)) for name in found]
    document = {"format_version": "1.0", "resources": [_document(facts[name], last.get(name)) for name in found]}
    session.console.result("\n\n".join(texts), document)
    return 1 if any(facts[name].unread for name in found) else 0


@dataclass
class Fact:
    """All that is known of one address."""

    address: str
    place: str = ""
    wanted: Resource | None = None
    untold: tuple[str, ...] = ()  # fields of which can't be told whether they are as wanted, and why
    change: Change | None = None
    adopted: bool = False
    unmanaged: bool = False
    unread: bool = False
    problems: tuple[Problem, ...] = ()


def _known(stack: Stack, plan: Plan) -> dict[str, Fact]:
    """Gather what the directory, the plan and the systems know, by address."""
    from reconciler.desired.load import declaration

    facts: dict[str, Fact] = {}

    def fact(address: str) -> Fact:
        return facts.setdefault(address, Fact(address))

    planned = {item.resource: item.address for item in (*plan.changes, *plan.adopted)}
    for address, resource in _named(stack.desired().resources):
        known = fact(planned.get(resource, address))
        known.wanted, known.place = resource, declaration(stack.directory, resource.address)
        known.unread = bool({resource.scope, resource.target, resource.address} & plan.unread)
    for address, wanted, live in plan.compared:
        if wanted is not None and live is not None and address in facts:
            facts[address].untold = tuple(_untold(wanted, live.resource))
    for change in (*plan.changes, *plan.adopted):
        known = fact(change.address)
        known.change, known.adopted = change, change in plan.adopted
        known.place = known.place or declaration(stack.directory, change.address)
    for address in plan.unmanaged:
        fact(address).unmanaged = True
    for problem in plan.problems:
        if problem.where in facts:
            facts[problem.where].problems += (problem,)
    return facts


def _untold(wanted: Resource, live: Resource) -> Iterator[str]:
    """Yield the managed fields whose live value can't be told, such as the password of an account."""
    from reconciler.report import values
    from reconciler.resources import UNMANAGED, Unreadable

    for name, want in wanted.values():
        have = getattr(live, name)
        if want is not UNMANAGED and isinstance(have, Unreadable):
            yield f"{values.label(name)} {values.shown(name, have)}"


def _named(resources: Iterable[Resource]) -> Iterator[tuple[str, Resource]]:
    """Yield what is desired by address, as a plan names it."""
    from reconciler.plan import addresses

    groups: dict[tuple[str, ...], list[Resource]] = defaultdict(list)
    for resource in resources:
        groups[resource.group].append(resource)
    for members in groups.values():
        yield from zip(addresses(members), members, strict=True)


def _unknown(address: str, facts: dict[str, Fact]) -> Problem:
    import difflib

    near = difflib.get_close_matches(address, facts, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "`reconciler plan -v` lists addresses"
    return Problem(address, "nothing of that address is declared or live", hint)


def _last_changes(session: Session, stack: str) -> dict[str, tuple[Entry, Written]]:
    """Map an address to the last apply that touched it; a journal that can't be read knows none."""
    try:
        entries = session.journal(stack).entries()
    except ReconcilerError:
        return {}
    return {item.address: (entry, item) for entry in entries for item in entry.written}


def _lines(fact: Fact, last: tuple[Entry, Written] | None, session: Session) -> Iterator[str]:
    from reconciler.report import text, values

    yield session.style.title(values.escape(fact.address))
    yield f"  declared  {values.escape(fact.place) or 'nowhere'}"
    if fact.wanted is not None and values.brief(fact.wanted):
        yield f"  wanted    {values.brief(fact.wanted)}"
    yield f"  live      {'; '.join((_live(fact), *fact.untold))}"
    yield f"  planned   {_planned(fact, session)}"
    yield from (f"  {text.problem(problem, session.style)}" for problem in fact.problems)
    if last is None:
        yield "  applied   never from here, as far as the journal knows"
    else:
        entry, item = last
        when = f"{', '.join(item.actions)} {item.status} in apply {entry.id}, {entry.began}, by {entry.who}"
        yield f"  applied   {values.escape(when)}"


def _live(fact: Fact) -> str:
    from reconciler.report import values

    if fact.unread:
        return "could not be read"
    if fact.change is not None:
        return (values.brief(fact.change.before.resource) or "is there") if fact.change.before else "is not there"
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
        "untold": list(fact.untold),
        "problems": [json.problem(problem) for problem in fact.problems],
        "last": {"id": last[0].id, "began": last[0].began, "who": last[0].who, **asdict(last[1])} if last else None,
    }
