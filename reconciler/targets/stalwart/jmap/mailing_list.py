"""Mailing lists of Stalwart from 0.16: their recipients are addresses, and nothing checks or links them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from reconciler import names
from reconciler.resources import Live, MailingList
from reconciler.target import Change
from reconciler.targets.stalwart.jmap import addresses
from reconciler.targets.stalwart.jmap.addresses import Transfers
from reconciler.targets.stalwart.jmap.api import Kind
from reconciler.targets.stalwart.jmap.kind import Raw, Reading, ResourceKind
from reconciler.targets.stalwart.jmap.writes import Unwritable, Write
from reconciler.targets.stalwart.survey import Omissions
from reconciler.targets.stalwart.work import unusable

_OBJECT = "MailingList"
_READ = ("name", "domainId", "aliases", "description", "recipients")


class MailingListKind(ResourceKind):
    """Mailing lists. A recipient that is no address gets nothing, is no member, and stays."""

    resource = MailingList
    objects = (Kind(_OBJECT, properties=_READ), Kind("Domain", properties=("name",)))

    def live(self, reading: Reading) -> Iterator[Live]:
        """Yield all lists, under their addresses."""
        for item in reading.items(_OBJECT):
            address, aliases = reading.ids.address(item), addresses.aliases_in(item, reading.ids)
            members = tuple({found for it in item.get("recipients") or {} if (found := _member(it))})
            resource = MailingList(address, item.get("description") or None, aliases, members)
            yield Live(resource, id=str(item["id"]), detail=item)

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
