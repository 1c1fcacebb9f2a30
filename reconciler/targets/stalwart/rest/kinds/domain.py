"""Domains of Stalwart up to 0.15: a name, a description, and a catch-all that is an e-mail of somebody else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from reconciler.desired.raw_keys import raw_key
from reconciler.names import domain_name
from reconciler.problem import Problem, Severity
from reconciler.resources import UNMANAGED, Account, Domain, Live, Resource, Setting, Shared, Special
from reconciler.target import Change
from reconciler.targets.stalwart.rest.kind import Import, Item, Reading
from reconciler.targets.stalwart.rest.principals import (
    Means,
    Operation,
    Principal,
    catch_alls,
    check_lengths,
    emails,
    matched,
    own_emails,
    set_to,
)

_CATCH_ALL, _SUB_ADDRESSING = "session.rcpt.catch-all", "session.rcpt.sub-addressing"  # for all domains at once


class Domains(Principal[Domain]):
    """The mail domains; what has addresses needs them first."""

    resource, types = Domain, ("domain",)
    undeclared = frozenset(("lists",))

    # ---------------------------------------------------------------------------------------------------------- reading
    def single(self, wanted: Sequence[Resource]) -> Iterable[str]:
        """Name the switches that hold for all domains."""
        del wanted
        return _CATCH_ALL, _SUB_ADDRESSING, f"{_SUB_ADDRESSING}.0.if"

    def live(self, reading: Reading) -> Iterator[Live]:
        """Yield all domains, and report what of the wanted ones this generation can't do."""
        wanted = {domain.name: domain for domain in reading.of(Domain)}
        holders = {entry: item for item in reading.items for entry in catch_alls(item)}
        for item in self.own(reading.items):
            name, known = item["name"], wanted.get(item["name"])
            domain = Domain(
                name,
                description=item.get("description") or None,
                catch_all=_catch_all(known, holders.get(f"@{name}"), reading),
                aliases=(),
                sub_addressing=_sub_addressing(reading),
            )
            if known is not None and _is_switched_off(known, reading):
                domain = replace(domain, sub_addressing=UNMANAGED)  # nothing can be done of it here
            yield Live(domain, id=name)
        spelled = {domain_name(name): name for name in reading.domains if domain_name(name) not in reading.domains}
        for domain in wanted.values():
            if name := spelled.get(domain.name):
                summary = f"the server has it as {name}, and {domain.name} would be a second domain beside it"
                hint = f"write it, and the addresses in it, as {domain.name} there; until then nothing of it is touched"
                reading.report(Problem(domain.address, summary, hint, scope=domain.address))
            if _is_switched_off(domain, reading):
                summary = f"{_SUB_ADDRESSING} is false on the server, which switches it off for all domains"
                hint = f"write `settings: {{{_SUB_ADDRESSING}: null}}` under stalwart"
                reading.report(Problem(domain.address, summary, hint))
            if isinstance(domain.catch_all, str) and not _switch(_CATCH_ALL, reading):
                summary = f"{_CATCH_ALL} is false on the server, which switches catch-alls off for all domains"
                hint = f"write `settings: {{{_CATCH_ALL}: null}}` under stalwart"
                reading.report(Problem(domain.address, summary, hint, Severity.WARNING))

    # -------------------------------------------------------------------------------------------------------- importing
    def imported(self, live: Sequence[Live], taken: Import) -> Iterator[Live]:
        """Yield all domains; what holds for all of them alike is a setting."""
        for item in live:
            domain = item.resource
            if isinstance(domain, Domain):
                domain = replace(domain, aliases=UNMANAGED, sub_addressing=UNMANAGED)
                if isinstance(domain.catch_all, str) and domain.catch_all.rpartition("@")[2] not in taken.domains:
                    domain = replace(domain, catch_all=_at_home(domain.catch_all, taken))
                if isinstance(domain.catch_all, str) and "@" not in domain.catch_all:
                    hint = "give its owner an address on the server, and import again"
                    taken.out.note(domain.address, "its catch-all goes to who has no address", hint)
                    domain = replace(domain, catch_all=UNMANAGED)
                yield replace(item, resource=domain)

    # ---------------------------------------------------------------------------------------------------------- writing
    def name(self, resource: Domain) -> str:
        """Return its name."""
        return resource.name

    def body(self, resource: Domain, means: Means) -> dict[str, Any]:
        """Return what creates it."""
        del means
        made = {"type": "domain", "name": resource.name}
        made |= {"description": resource.description} if isinstance(resource.description, str) else {}
        check_lengths(made)
        return made

    def operations(self, change: Change, before: Domain, after: Domain, means: Means) -> list[Operation]:
        """Return the operations that carry a change out."""
        del before, means
        operations = [set_to("description", after.description or "")] if "description" in change.fields else []
        check_lengths(operations)
        return operations

    def at_once(self, change: Change) -> Change:
        """Leave the catch-all for later: who has the address may have to be made first."""
        if "catch_all" not in change.fields or not isinstance(change.after, Domain):
            return change
        return replace(change, after=replace(change.after, catch_all=UNMANAGED))

    def afterwards(self, change: Change, items: Sequence[Item]) -> Iterator[tuple[str, list[Operation]]]:
        """Yield how the catch-all gets to who has the address: it is taken off first, as there is one for a domain."""
        domain = change.after
        if not isinstance(domain, Domain):
            return
        entry = f"@{domain.name}"
        holder = next((item["name"] for item in items if entry in catch_alls(item)), None)
        owner = next((item["name"] for item in items if domain.catch_all in own_emails(item)), None)
        if domain.catch_all is not None and owner is None:
            raise ValueError(f"nobody on the server has the address {domain.catch_all}")
        if holder is not None and holder != owner:
            yield holder, [{"action": "removeItem", "field": "emails", "value": entry}]
        if owner is not None and holder != owner:
            yield owner, [{"action": "addItem", "field": "emails", "value": entry}]


def _at_home(address: str, taken: Import) -> str:
    """Return another address of who has one in a domain that is not here; else his name."""
    holder = next((item for item in taken.items if address in own_emails(item)), {"name": address.partition("@")[0]})
    own = (text for text in own_emails(holder) if text.rpartition("@")[2] in taken.domains)
    return next(own, str(holder["name"]).partition("@")[0])


def _catch_all(wanted: Domain | None, holder: Item | None, reading: Reading) -> str | None:
    """Return the address of who gets what nobody else has: the wanted one, where it is one of several and stays."""
    if holder is None:
        return None
    own, known = own_emails(holder), wanted.catch_all if wanted else None
    if isinstance(known, str) and known in own:
        if not _leaves(holder, known, reading):
            return known
        own.remove(known)
    return own[0] if own else str(holder["name"])


def _leaves(holder: Item, address: str, reading: Reading) -> bool:
    """Whether an address is wanted at somebody else than who has it: the catch-all then has to follow it."""
    claims = [resource for resource in reading.wanted if address in emails(resource)]
    return bool(claims) and not any(_is(holder, resource) for resource in claims)


def _is(item: Item, resource: Resource) -> bool:
    """Whether a principal is what is wanted."""
    if isinstance(resource, Shared):
        return item["name"] in matched([item], [resource])
    return isinstance(resource, Account) and resource.login == item["name"]


def _sub_addressing(reading: Reading) -> bool | Special:
    """Return what holds for all domains; a rule of its own can't be told."""
    if f"{_SUB_ADDRESSING}.0.if" in reading.keys:
        return UNMANAGED
    return _switch(_SUB_ADDRESSING, reading)


def _switch(key: str, reading: Reading) -> bool:
    """Return how a switch is set once what is wanted is written; it is on where nothing is said."""
    for setting in reading.of(Setting):
        if setting.word.startswith("settings/") and raw_key(setting) == key:
            return str(setting.value).lower() != "false"
    return reading.keys.get(key) != "false"


def _is_switched_off(domain: Domain, reading: Reading) -> bool:
    """Whether a domain wants what is switched off for all of them."""
    return domain.sub_addressing is True and _sub_addressing(reading) is False
