"""Rates, and who has used them up: what both generations count before they ban an address."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Rate:
    """So many in a period, in seconds."""

    requests: int
    period: float


@dataclass(slots=True)
class Attempts:
    """Counters, in the lookup store, so that they survive a restart.

    ``trust_loopback`` is how the real server is: 127.0.0.1 and ::1 are never counted.
    """

    clock: Callable[[], float]
    trust_loopback: bool = True
    counts: Counter[str] = field(default_factory=Counter)

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

    def trusts(self, client: str, allowed: Iterable[Network]) -> bool:
        """Say whether an address is never counted: loopback, a Unix socket, or one of the allowed networks."""
        try:
            address = ipaddress.ip_address(client)
        except ValueError:  # a Unix socket
            return True
        return (address.is_loopback and self.trust_loopback) or any(address in network for network in allowed)
