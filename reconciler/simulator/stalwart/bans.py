"""Rates and bans of Stalwart 0.15: who is counted, who is banned, and what survives a restart."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from reconciler.simulator.stalwart.rest.settings import Core, Rate, Settings

# Paths that get a client banned at once when nothing else answers them (rest-0.15.md, section 1).
_BANNED_PATHS = ("*.php*", "*.cgi*", "*.asp*", "*/wp-*", "*/php*", "*/cgi-bin*", "*xmlrpc*", "*../*", "*wordpress*")


@dataclass(slots=True)
class Bans:
    """Counters (in the lookup store, so they survive a restart) and the addresses that get no byte.

    ``trust_loopback`` is how the real server is: 127.0.0.1 and ::1 are never counted.
    """

    clock: Callable[[], float]
    trust_loopback: bool = True
    counts: Counter[str] = field(default_factory=Counter)
    blocked: set[str] = field(default_factory=set)

    def within(self, kind: str, subject: str, rate: Rate | None) -> bool:
        """Count one event, and say whether the rate allows it. No rate allows everything."""
        if rate is None:
            return True
        key = f"{kind}:{subject}:{int(self.clock() // rate.period)}"
        self.counts[key] += 1
        return self.counts[key] <= rate.requests

    def lasting(self) -> dict[str, int]:
        """Return the counters that may end in a ban; those of request rates are gone in a minute."""
        return {key: count for key, count in self.counts.items() if key.startswith(("rate-auth:", "rate-scan:"))}

    def forgive(self, kind: str) -> None:
        """Forget one kind of counters, as the purge of an in-memory store does."""
        for key in [key for key in self.counts if key.startswith(f"{kind}:")]:
            del self.counts[key]

    def is_allowed(self, core: Core, client: str) -> bool:
        """Say whether an address is never banned: loopback and the allow list of the running core."""
        try:
            address = ipaddress.ip_address(client)
        except ValueError:  # a Unix socket
            return True
        return (address.is_loopback and self.trust_loopback) or any(address in network for network in core.allowed)

    def is_blocked(self, core: Core, client: str) -> bool:
        """Say whether an address is banned; the allow list is not asked."""
        if client in self.blocked:
            return True
        try:
            address = ipaddress.ip_address(client)
        except ValueError:
            return False
        return any(address in network for network in core.blocked)

    def read(self, settings: Settings) -> None:
        """Take the banned addresses from the database; networks belong to the core."""
        self.blocked = set(settings.below("server.blocked-ip"))

    def _ban(self, settings: Settings, client: str) -> None:
        settings.insert({f"server.blocked-ip.{client}": ""})
        self.blocked.add(client)

    def failed_login(self, core: Core, settings: Settings, client: str, login: str) -> bool:
        """Count a failed login, for the address and for the login name, and say whether it got the address banned."""
        rate = core.rates["server.auto-ban.auth.rate"]
        if self.is_allowed(core, client):
            return False
        if self.within("rate-auth", client, rate) and self.within("rate-auth", f"login {login}", rate):
            return False
        self._ban(settings, client)
        return True

    def scan(self, core: Core, settings: Settings, client: str) -> bool:
        """Count what only a scanner does, such as TLS on a plain port: the thirtieth bans at 30/1d (observed.md)."""
        rate = core.rates["server.auto-ban.scan.rate"]
        if rate is None or self.is_allowed(core, client):
            return False
        if self.within("rate-scan", client, Rate(rate.requests - 1, rate.period)):
            return False
        self._ban(settings, client)
        return True

    def asked_for(self, core: Core, settings: Settings, client: str, path: str) -> bool:
        """Ban for a path that only a scanner asks for, and say whether it was one."""
        if core.rates["server.auto-ban.scan.rate"] is None or self.is_allowed(core, client):
            return False
        if not any(fnmatchcase(path, pattern) for pattern in _BANNED_PATHS):
            return False
        self._ban(settings, client)
        return True
