"""Who is who: a slip in an address or a domain must not become another mailbox, or take one's address away."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import replace

from reconciler.address import Address
from reconciler.guards.evidence import Evidence, refuse, warn
from reconciler.plan import Desired
from reconciler.problem import Problem
from reconciler.resources import Account, Addressee, Domain, Record
from reconciler.target import Change

_ALIKE = 0.85  # of two addresses, by difflib: one letter of seven
_MANY = 10_000  # pairs of addresses that are compared letter by letter
_NEAR = 0.75  # of two domains


def address_moves(evidence: Evidence) -> Iterator[Problem]:
    """Up to 0.15 an account is known by its login: with another address its mail would no longer arrive."""
    for change in evidence.plan.changes:
        before, after = change.before.resource if change.before else None, change.after
        if not (isinstance(before, Account) and isinstance(after, Account) and before.email and after.email):
            continue
        old = f"account/{before.email}"
        kept = before.email in after.mailboxes or evidence.desired.moved.get(old) == change.address
        if isinstance(before.email, str) and isinstance(after.email, str) and not kept:
            summary = f"its login has the address {before.email} on the server, which would be taken away"
            hint = f"if it is renamed: {_moved(old, change.address)}; else give it a `login` of its own, or correct it"
            yield refuse(change.address, summary, hint, "stalwart")


def heirs(evidence: Evidence) -> Iterator[Change]:
    """Yield the accounts, groups and lists that would be made."""
    for change in evidence.plan.changes:
        if change.before is None and isinstance(change.after, Addressee):
            yield change


def left_behind(evidence: Evidence) -> Iterator[Problem]:
    """Name what was ours and nobody declares any more, and what looks like it and would be made beside it, empty."""
    if evidence.plan.lost:
        return
    made, left = [change.address for change in heirs(evidence)], list(evidence.undeclared())
    by_local = {_local(address): address for address in made}
    few = made if len(made) * len(left) <= _MANY else ()
    for resource in left:
        old, known = resource.address, evidence.past.knows(resource)
        heir = by_local.get(_local(old)) or next((address for address in few if _alike(old, address)), "")
        if heir and (known or _slip(evidence, old, heir)):
            summary = f"would be a second, empty mailbox: {old} is no longer declared, and may be the same one"
            hint = f"to keep its mail: {_moved(old, heir)}; to destroy it: `removed: [{old}]`; to have both: {_BOTH}"
            yield refuse(heir, summary, hint, "stalwart")
        elif heir:
            yield warn(
                heir, f"will be a new, empty mailbox: {old} is there already", f"if it is the same: {_moved(old, heir)}"
            )
        elif known:
            hint = f"to destroy it: `removed: [{old}]`; to rename it: {_moved(old, 'ADDRESS')}"
            yield warn(old, "was kept from here and is no longer declared: it stays as it is", hint)


def _slip(evidence: Evidence, old: str, new: str) -> bool:
    """Whether an address is most likely another one with a slip in its domain: that has neither zone nor key."""
    known = {*(evidence.desired.zones or ()), *evidence.desired.keyed}
    (mine, _, here), (theirs, _, there) = old.rpartition("@"), new.rpartition("@")
    return mine == theirs and _covered(here, known) and not _covered(there, known)


_BOTH = "declare both until the new one is there"


def _moved(old: str, new: str) -> str:
    return f"`moved: [{{from: {old}, to: {new}}}]`"


def _local(address: str) -> str:
    """Return kind and local part of what two addresses have in common where only their domains differ."""
    return address.rpartition("@")[0] or address


def _alike(old: str, new: str) -> bool:
    """Whether two addresses may be meant to be one: of one kind, and nearly the same."""
    from difflib import SequenceMatcher

    mine, theirs = Address.parse(old), Address.parse(new)
    return mine.kind == theirs.kind and SequenceMatcher(None, mine.name, theirs.name).ratio() >= _ALIKE


def domain_unknown(evidence: Evidence) -> Iterator[Problem]:
    """A mail domain without zone and key is most often a slip: nobody would sign its mail, or find its server."""
    from difflib import get_close_matches

    known = {*(evidence.desired.zones or ()), *evidence.desired.keyed}
    made = {change.address for change in evidence.plan.changes if change.before is None}
    for item in evidence.desired.resources if known else ():
        if isinstance(item, Domain) and not _covered(item.name, known):
            # A zone that is not there is rather the slip itself.
            there = [name for name in known if f"dns/{name}" not in evidence.plan.unread]
            near = get_close_matches(item.name, there, 1, _NEAR)
            if near or item.address in made:
                hint = "declare its zone under `dns`, or a key under `dkim`: without one its mail is not signed"
                hint = f"did you mean {near[0]}? Otherwise {hint}" if near else hint
                yield warn(item.address, "no zone and no DKIM key is declared for it", hint)


def stack_renamed(evidence: Evidence) -> Iterator[Problem]:
    """A stack that is called otherwise than its records say: they are another's from then on, and stay as they are."""
    stack, wanted = evidence.plan.stack, {item.address for item in evidence.desired.resources}
    owned = [live for live in evidence.live if live.owner]
    declared = Counter(live.owner for live in owned if live.resource.address in wanted)
    if not declared or any(live.owner == stack for live in owned):
        return
    former, number = declared.most_common(1)[0]
    records = "record that is declared bears" if number == 1 else "records that are declared bear"
    summary = f"{number} {records} the mark of the stack {former}, and none that of {stack}"
    hint = f"if it was called {former} before, write `stack: {former}` again: a stack knows its records by its name"
    yield warn(
        f"stack {stack}", summary, f"{hint}; if {former} is another stack, declare each record in one of them alone"
    )


def zone_meant(problem: Problem, desired: Desired) -> Problem:
    """Say of a zone that can't be read which domain's it may be meant to be: one declared that has no zone."""
    from difflib import get_close_matches

    scope = Address.parse(problem.scope)
    zones = desired.zones or frozenset()
    if scope.kind != Record.kind or scope.name not in zones:
        return problem
    zone = scope.name
    homes = {*desired.keyed, *(item.name for item in desired.resources if isinstance(item, Domain))}
    near = get_close_matches(zone, [name for name in homes if not _covered(name, zones)], 1, _NEAR)
    return replace(problem, hint=f"did you mean {near[0]}? Otherwise {problem.hint}") if near else problem


def _covered(domain: str, known: Collection[str]) -> bool:
    labels = domain.split(".")
    return any(".".join(labels[number:]) in known for number in range(len(labels)))
