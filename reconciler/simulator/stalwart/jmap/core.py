"""What of the stored settings of Stalwart 0.16 is in force, and who is banned."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from reconciler.simulator.stalwart.bans import Attempts, Network, Rate
from reconciler.simulator.stalwart.jmap import registry
from reconciler.simulator.stalwart.jmap.store import Object, SetFailure, Store, object_id
from reconciler.simulator.stalwart.listeners import Listener

_NO_DNS = "Invalid address: failed to lookup address information: Name or service not known"


@dataclass(frozen=True, slots=True)
class Core:
    """The settings in force: built at a start, and by a `ReloadSettings` that met no error."""

    hostname: str
    default_domain: str | None
    authentication: Mapping[str, Any]
    rates: Mapping[str, Rate | None]
    paths: tuple[str, ...]
    allowed: tuple[Network, ...]


def build_core(store: Store, os_hostname: str) -> Core:
    """Read the stored settings."""
    system, security, http = (store.singleton(name) for name in ("SystemSettings", "Security", "Http"))
    domain = store.get("Domain", system["defaultDomainId"])
    rates = {name: _rate(security[f"{name}BanRate"]) for name in ("auth", "scan")}
    rates |= {name: _rate(http[f"rateLimit{name.capitalize()}"]) for name in ("anonymous", "authenticated")}
    networks = [*system["proxyTrustedNetworks"], *(item["address"] for _, item in store.all("AllowedIp"))]
    return Core(
        hostname=system["defaultHostname"] or os_hostname,
        default_domain=domain["name"] if domain else None,
        authentication=store.singleton("Authentication"),
        rates=rates,
        paths=tuple(security["scanBanPaths"]),
        allowed=tuple(ipaddress.ip_network(network, strict=False) for network in networks),
    )


def check_reload(store: Store, *, no_dns: bool) -> None:
    """Refuse a reload as a whole where one setting can't be built (observed.md). Raises `SetFailure`."""
    if no_dns and store.singleton("SpamPyzor")["enable"]:
        raise SetFailure("validationFailed", _NO_DNS, objectId=object_id("SpamPyzor", registry.SINGLETON))


def _rate(value: Mapping[str, int] | None) -> Rate | None:
    if value is None or not value["count"]:  # another schema may have no count
        return None
    return Rate(value["count"], max(value["period"] / 1000, 1.0))


def listeners(store: Store) -> list[Listener]:
    """Return the stored listeners; a process opens those that it finds at its start."""
    return [
        Listener(item["name"], item["protocol"], tuple(item["bind"]), tls=item["tlsImplicit"])
        for _, item in store.all("NetworkListener")
    ]


@dataclass(slots=True)
class Blocks(Attempts):
    """The counters, and the banned addresses in memory; an allowed address is never banned.

    Other than there, an entry of the allow list overrides a block.
    """

    networks: list[Network] = field(default_factory=list)

    def read(self, store: Store) -> None:
        """Take the banned addresses from the store, as a start and `ReloadBlockedIps` do."""
        self.networks = [ipaddress.ip_network(item["address"], strict=False) for _, item in store.all("BlockedIp")]

    def is_blocked(self, core: Core, client: str) -> bool:
        """Say whether an address gets no byte."""
        if self.trusts(client, core.allowed):
            return False
        address = ipaddress.ip_address(client)
        return any(address in network for network in self.networks)

    def failed_login(self, core: Core, store: Store, client: str, login: str) -> bool:
        """Count a failed login, for the address and for the login name, and say whether it got the address banned."""
        rate = core.rates["auth"]
        if self.trusts(client, core.allowed):
            return False
        if self.within("rate-auth", client, rate) and self.within("rate-auth", f"login {login}", rate):
            return False
        return self._ban(store, client, "authFailure")

    def scan(self, core: Core, store: Store, client: str) -> bool:
        """Count what only a scanner does, such as TLS on a plain port."""
        rate = core.rates["scan"]
        if rate is None or self.trusts(client, core.allowed):
            return False
        if self.within("rate-scan", client, Rate(rate.requests - 1, rate.period)):
            return False
        return self._ban(store, client, "portScanning")

    def asked_for(self, core: Core, store: Store, client: str, path: str) -> bool:
        """Ban for a path that only a scanner asks for, and say whether it was one."""
        if self.trusts(client, core.allowed) or not any(fnmatchcase(path, pattern) for pattern in core.paths):
            return False
        return self._ban(store, client, "portScanning")

    def _ban(self, store: Store, client: str, reason: str) -> bool:
        self.networks.append(ipaddress.ip_network(client))
        if store.by_key("BlockedIp", "address", client) is None:
            entry: Object = registry.new("BlockedIp") | {"address": client, "reason": reason, "createdAt": store.now()}
            store.insert("BlockedIp", entry)
        return True
