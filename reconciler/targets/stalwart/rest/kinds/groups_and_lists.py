"""Groups and mailing lists of Stalwart up to 0.15: addresses that several people share, or that lead elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from reconciler.names import host
from reconciler.problem import Problem, Severity
from reconciler.resources import Group, Live, MailingList
from reconciler.target import Change
from reconciler.targets.stalwart.rest.kind import Item, Reading
from reconciler.targets.stalwart.rest.principals import (
    Addressed,
    Means,
    Operation,
    catch_alls,
    check_lengths,
    kept,
    members,
    own_emails,
    set_to,
    texts,
)
from reconciler.targets.stalwart.survey import is_sayable
from reconciler.targets.stalwart.work import nobody_at


class Groups(Addressed[Group]):
    """The groups; who belongs to one is written at the account."""

    resource, types = Group, ("group",)
    undeclared = frozenset(("memberOf", "lists", "quota", "secrets", "locale"))

    def live(self, reading: Reading) -> Iterator[Live]:
        """Yield all of them; one that is wanted and gets no mail is reported."""
        for item, wanted, fields in self.said(reading, reading.of(Group)):
            if wanted and not texts(item, "roles") and "email-receive" not in texts(item, "enabledPermissions"):
                summary = "gets no mail: it lacks the permission email-receive, so what is sent to it bounces"
                hint = f"give {item['name']} that permission on the server; a group that apply makes has it"
                reading.report(Problem(wanted.address, summary, hint, Severity.WARNING))
            yield Live(Group(**fields), id=item["name"], detail=kept(item))

    def body(self, resource: Group, means: Means) -> dict[str, Any]:
        """Return what creates it. Without a role it would get no mail, and later the server takes none."""
        return super().body(resource, means) | {"roles": ["user"]}


class MailingLists(Addressed[MailingList]):
    """The lists. Members are written as addresses, those of accounts here too: so it needs no order, and no names."""

    resource, types = MailingList, ("list",)
    undeclared = frozenset(("memberOf", "lists", "quota", "secrets", "roles", "locale"))

    def live(self, reading: Reading) -> Iterator[Live]:
        """Yield all of them; a member that is a list itself is reported, since the server hands nothing on to it."""
        principals = {item["name"]: item for item in reading.items}
        lists = {address for item in self.own(reading.items) for address in own_emails(item)}
        for item, wanted, fields in self.said(reading, reading.of(MailingList)):
            known = wanted.members if wanted and isinstance(wanted.members, tuple) else ()
            names = texts(item, "members")
            found = {_plain(text) for text in texts(item, "externalMembers")}
            found |= {_address(principals.get(name, {"name": name}), known) for name in names}
            found = {text for text in found if is_sayable(text) or text in known}
            yield Live(MailingList(**fields, members=tuple(found)), id=item["name"], detail=kept(item))
        there = {address for item in reading.items for address in own_emails(item)}
        caught = {entry[1:] for item in reading.items for entry in catch_alls(item)}
        for resource in reading.of(MailingList):
            for problem in nobody_at(resource, there, reading.domains - caught, reading.wanted):
                reading.report(problem)
            known = resource.members if isinstance(resource.members, tuple) else ()
            for address in sorted(lists.intersection(known)):
                summary = f"its member {address} is a list, to which no list hands anything on"
                hint = "name the members of that list here"
                reading.report(Problem(resource.address, summary, hint, Severity.WARNING))

    def body(self, resource: MailingList, means: Means) -> dict[str, Any]:
        """Return what creates it."""
        made = super().body(resource, means)
        if isinstance(resource.members, tuple):
            made["externalMembers"] = list(resource.members)
        check_lengths(made)
        return made

    def operations(self, change: Change, before: MailingList, after: MailingList, means: Means) -> list[Operation]:
        """Return the operations that carry a change out; members that are names become addresses."""
        operations = super().operations(change, before, after, means)
        if "members" in change.fields and isinstance(after.members, tuple) and change.before:
            operations += [
                {"action": "removeItem", "field": "members", "value": name} for name in change.before.detail["members"]
            ]
            held = [text for text in change.before.detail["externalMembers"] if is_sayable(_plain(text))]
            if len(held) < len(change.before.detail["externalMembers"]):  # what is no address stays, and can't be set
                operations += members("externalMembers", held, after.members)
            else:
                operations.append(set_to("externalMembers", list(after.members)))
            check_lengths(operations)
        return operations


def _plain(text: str) -> str:
    """Return an address as it is compared: in lower case, its domain in Punycode."""
    local, at, domain = text.strip().lower().rpartition("@")
    try:
        return f"{local}{at}{host(domain)}"
    except ValueError:
        return f"{local}{at}{domain}"


def _address(item: Item, known: tuple[str, ...]) -> str:
    """Return the address of a member here: the one that is wanted, else its primary one, else its name."""
    own = own_emails(item)
    return next((text for text in own if text in known), own[0] if own else str(item["name"]))
