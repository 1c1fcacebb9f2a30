"""Addresses that Stalwart up to 0.15 never bans: a key each, whose name is the network and whose value is empty."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence

from reconciler.desired.stalwart import ALLOWED_IP
from reconciler.resources import AllowedIp, Live
from reconciler.target import Change, Reveal
from reconciler.targets.stalwart.rest.keys import Edit, KeyKind
from reconciler.targets.stalwart.rest.kind import Keys, Reading


class AllowedIps(KeyKind[AllowedIp]):
    """The allowed addresses; they are written first, so that nothing that follows gets us banned."""

    resource, prefixes = AllowedIp, (ALLOWED_IP.removesuffix("."),)

    def live(self, reading: Reading) -> Iterator[Live]:
        """Yield all of them; one that nobody wants and that is in force until a reload is still there."""
        wanted = {_network(item.network): item.network for item in reading.of(AllowedIp)}
        for key in sorted(reading.keys):
            if key.startswith(ALLOWED_IP):
                name = key.removeprefix(ALLOWED_IP)
                network = _network(name)
                yield Live(AllowedIp(wanted.get(network, network)), id=name)
        for key in sorted(reading.leaving):
            name = key.removeprefix(ALLOWED_IP)
            if key.startswith(ALLOWED_IP) and _network(name) not in wanted:
                yield Live(AllowedIp(name), id=name)

    def edit(self, change: Change, before: Keys, reveal: Reveal, others: Sequence[Change]) -> Edit:
        """Write or remove its one key; a single address is stored without its length."""
        del before, reveal, others
        network = getattr(change.resource, "network", "")
        bare = network.removesuffix("/32") if ":" not in network else network.removesuffix("/128")
        key = f"{ALLOWED_IP}{change.before.id if change.before else bare}"
        return Edit(change, (key,), rank=0) if change.after is None else Edit(change, put={key: ""}, rank=0)


def _network(text: str) -> str:
    """Return a network in canonical form; the server keeps ``172.18.0.1/16`` as typed."""
    try:
        return str(ipaddress.ip_network(text, strict=False))
    except ValueError:
        return text
