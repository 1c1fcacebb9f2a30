"""Shared mailboxes of Stalwart from 0.16, which are accounts of the type Group to the server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from reconciler.desired.objects import TYPE
from reconciler.plan import Change
from reconciler.resources import Group, Live
from reconciler.targets.stalwart.jmap import addresses
from reconciler.targets.stalwart.jmap.addresses import Transfers
from reconciler.targets.stalwart.jmap.api import Kind
from reconciler.targets.stalwart.jmap.kind import Raw, Reading, ResourceKind
from reconciler.targets.stalwart.jmap.writes import Unwritable, Write
from reconciler.targets.stalwart.survey import Omissions
from reconciler.targets.stalwart.work import unusable

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

    resource = Group
    objects = (Kind("Account", properties=_READ), Kind("Domain", properties=("name",)))
    surveyed = (Kind("Account", properties=tuple(_PLAIN)),)

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
