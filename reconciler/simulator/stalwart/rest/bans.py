"""Rates and bans of Stalwart 0.15: who is counted, who is banned, and what survives a restart."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from reconciler.simulator.stalwart.bans import Attempts, Rate
from reconciler.simulator.stalwart.rest.settings import Core, Settings

# Paths that get a client banned at once when nothing else answers them (rest-0.15.md, section 1).
_BANNED_PATHS = ("*.php*", "*.cgi*", "*.asp*", "*/wp-*", "*/php*", "*/cgi-bin*", "*xmlrpc*", "*../*", "*wordpress*")


@dataclass(slots=True)
class Bans(Attempts):
    """The counters, and the addresses that get no byte."""

    blocked: set[str] = field(default_factory=set)

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
        if self.trusts(client, core.allowed):
            return False
        if self.within("rate-auth", client, rate) and self.within("rate-auth", f"login {login}", rate):
            return False
        self._ban(settings, client)
        return True

    def scan(self, core: Core, settings: Settings, client: str) -> bool:
        """Count what only a scanner does, such as TLS on a plain port: the thirtieth bans at 30/1d (observed.md)."""
        rate = core.rates["server.auto-ban.scan.rate"]
        if rate is None or self.trusts(client, core.allowed):
            return False
        if self.within("rate-scan", client, Rate(rate.requests - 1, rate.period)):
            return False
        self._ban(settings, client)
        return True

    def asked_for(self, core: Core, settings: Settings, client: str, path: str) -> bool:
        """Ban for a path that only a scanner asks for, and say whether it was one."""
        if core.rates["server.auto-ban.scan.rate"] is None or self.trusts(client, core.allowed):
            return False
        if not any(fnmatchcase(path, pattern) for pattern in _BANNED_PATHS):
            return False
        self._ban(settings, client)
        return True
