"""Groups and mailing lists of Stalwart from 0.16: addresses that several people share, or that lead elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from reconciler import names
from reconciler.desired.objects import TYPE
from reconciler.resources import Group, Live, MailingList
from reconciler.target import Change
from reconciler.targets.stalwart.jmap import addresses
from reconciler.targets.stalwart.jmap.addresses import Transfers
from reconciler.targets.stalwart.jmap.api import Selection
from reconciler.targets.stalwart.jmap.batch import Unwritable, Write
from reconciler.targets.stalwart.jmap.kind import Raw, Reading, ResourceKind
from reconciler.targets.stalwart.survey import Omissions
from reconciler.targets.stalwart.work import nobody_at, unusable

_READ = ("@type", "name", "domainId", "memberGroupIds", "aliases", "description")
_PLAIN: Raw = {
    "quotas": {},
    "roles": {TYPE: "Default"},
    "locale": "en_US",
    "timeZone": None,
    "permissions": {TYPE: "Inherit"},
}
"""What a group has that was only made; anything else can't be declared."""


class GroupKind(ResourceKind):
    """Groups. Who belongs to one is said, and written, at the account."""

    resource, unique = Group, addresses.UNIQUE
    objects = (Selection("Account", properties=_READ), Selection("Domain", properties=("name",)))
    surveyed = (Selection("Account", properties=tuple(_PLAIN)),)

    def live(self, reading: Reading) -> Iterator[Live]:
        """Yield all groups, under their addresses."""
        for item in _groups(reading):
            aliases = addresses.aliases_in(item, reading.ids)
            group = Group(reading.ids.address(item), item.get("description") or None, aliases)
            yield Live(group, id=str(item["id"]), detail=item)

    def writes(self, changes: Sequence[Change], reading: Reading) -> Iterator[Write | Unwritable]:
        """Create, change, or destroy; before it is destroyed nobody may be in it."""
        transfers = Transfers(reading)
        for change in changes:
            after, before = change.after, change.before
            try:
                if isinstance(after, Group) and before is None:
                    name = reading.ids.group(after.name).removeprefix("#")
                    made = {TYPE: "Group", **addresses.body(after, reading.ids)}
                    yield Write("Account", "create", name, made, (change,), transfers.rank(change))
                elif after is None and before is not None:
                    yield from _destroyed(change, before.id, reading)
                else:
                    yield from transfers.updates("Account", change, {})
            except ValueError as error:
                yield Unwritable(change, unusable(change.address, error))

    def survey(self, reading: Reading, live: Sequence[Live], out: Omissions) -> Iterator[Live]:
        """Note what else a group has."""
        for item in _groups(reading):
            address = reading.ids.address(item)
            out.options(address, item, _PLAIN)
            addresses.note_disabled(address, item, out)
        return super().survey(reading, live, out)


def _groups(reading: Reading) -> Iterator[Raw]:
    return (item for item in reading.items("Account") if item.get(TYPE) == "Group")


def _destroyed(change: Change, id: str, reading: Reading) -> Iterator[Write]:
    """Yield the writes that take everybody out of a group and destroy it: the server refuses one with members."""
    for item in reading.items("Account"):
        if id in (item.get("memberGroupIds") or {}):
            yield Write("Account", "update", str(item["id"]), {f"memberGroupIds/{id}": None}, (change,))
    yield Write("Account", "destroy", id, changes=(change,))


_OBJECT = "MailingList"
_LIST_READ = ("name", "domainId", "aliases", "description", "recipients")


class MailingListKind(ResourceKind):
    """Mailing lists. A recipient that is no address gets nothing, is no member, and stays."""

    resource, unique = MailingList, addresses.UNIQUE
    objects = (Selection(_OBJECT, properties=_LIST_READ), Selection("Domain", properties=("name",)))

    def live(self, reading: Reading) -> Iterator[Live]:
        """Yield all lists, under their addresses."""
        for item in reading.items(_OBJECT):
            address, aliases = reading.ids.address(item), addresses.aliases_in(item, reading.ids)
            members = tuple({found for it in item.get("recipients") or {} if (found := _member(it))})
            resource = MailingList(address, item.get("description") or None, aliases, members)
            yield Live(resource, id=str(item["id"]), detail=item)
        owners = [*reading.items("Account"), *reading.items(_OBJECT)]
        there = {reading.ids.address(it) for it in owners}
        there |= {address for it in owners for address in addresses.aliases_in(it, reading.ids)}
        domains = {str(it["name"]) for it in reading.items("Domain") if not it.get("catchAllAddress")}
        for wanted in reading.of(MailingList):
            for problem in nobody_at(wanted, there, domains, reading.wanted):
                reading.report(problem)

    def writes(self, changes: Sequence[Change], reading: Reading) -> Iterator[Write | Unwritable]:
        """Create, change, or destroy; recipients are written whole, as the server compares them letter by letter."""
        transfers = Transfers(reading)
        for number, change in enumerate(changes):
            try:
                if change.before is None:
                    made = addresses.body(change.after, reading.ids) | _recipients(change, {})
                    yield Write(_OBJECT, "create", f"l{number}", made, (change,), transfers.rank(change))
                elif change.after is None:
                    yield Write(_OBJECT, "destroy", change.before.id, changes=(change,))
                else:
                    members = _recipients(change, change.before.detail)
                    yield from transfers.updates(_OBJECT, change, members)
            except ValueError as error:
                yield Unwritable(change, unusable(change.address, error))

    def survey(self, reading: Reading, live: Sequence[Live], out: Omissions) -> Iterator[Live]:
        """Note aliases and recipients that are none."""
        for item in reading.items(_OBJECT):
            address = reading.ids.address(item)
            addresses.note_disabled(address, item, out)
            if not all(map(_member, item.get("recipients") or {})):
                out.note(address, "recipients that are no addresses are not imported", "they get nothing: remove them")
        return super().survey(reading, live, out)


def _member(recipient: str) -> str:
    """Return a recipient as members are compared, with its domain as DNS has it; empty where it is no address."""
    local, _, domain = recipient.strip().rpartition("@")
    return f"{local}@{names.host(domain)}".lower() if local and names.is_name(domain) else ""


def _recipients(change: Change, stored: Raw) -> dict[str, Any]:
    members = getattr(change.after, "members", ())
    if "members" not in change.fields or not isinstance(members, tuple):
        return {}
    kept = [item for item in stored.get("recipients") or {} if not _member(item)]
    return {"recipients": dict.fromkeys((*kept, *members), True)}
