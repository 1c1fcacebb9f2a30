"""Networks that Stalwart from 0.16 never bans."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from reconciler.resources import AllowedIp, Live
from reconciler.target import Change
from reconciler.targets.stalwart.jmap.api import Kind
from reconciler.targets.stalwart.jmap.kind import Effect, Reading, ResourceKind
from reconciler.targets.stalwart.jmap.writes import Write, bare, creation_id

_ADDRESSES = "stalwart/allowed_ips/"
_REASON = "declared in the desired state"  # what an administrator reads beside it


class AllowedIpKind(ResourceKind):
    """Allowed networks. The server can't change one, and keeps it as it was typed (``172.18.0.1/16``)."""

    resource = AllowedIp
    objects = (Kind("AllowedIp", properties=("address",)),)
    in_force_by = Effect.RELOAD

    def live(self, reading: Reading) -> Iterator[Live]:
        """Yield all of them."""
        for item in reading.items("AllowedIp"):
            try:
                yield Live(AllowedIp(str(item.get("address"))), id=str(item["id"]))
            except ValueError:
                continue  # none that a directory could declare

    def writes(self, changes: Sequence[Change], reading: Reading) -> Iterator[Write]:
        """Create or destroy; one that is there is only to be put in force."""
        del reading
        for change in changes:
            known, resource = change.before.id if change.before else "", change.resource
            if change.deletes and known:
                yield Write("AllowedIp", "destroy", known, changes=(change,))
            elif not change.deletes and not known and isinstance(resource, AllowedIp):
                address = bare(resource.network)
                body = {"address": address, "reason": _REASON}
                yield Write("AllowedIp", "create", creation_id("ip", address), body, (change,))


def still_allowed(addresses: Iterable[str], live: Sequence[Live]) -> Iterator[Live]:
    """Yield the networks among addresses not in force that are not stored any more: the server still allows them."""
    there = {item.resource.address for item in live}
    for address in sorted(set(addresses) - there):
        if address.startswith(_ADDRESSES):
            yield Live(AllowedIp(address.removeprefix(_ADDRESSES), in_force=False))
