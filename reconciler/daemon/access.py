"""Who may see and ask what: judged by a request's head alone. Pure.

A browser on this machine runs pages of everybody. So a request has to name us as its host (a name of somebody else's
that is made to lead here, DNS rebinding, is not ours), and must not come from a page of another origin. Whoever is not
on this machine needs the token. RFC 6750 (Bearer), RFC 7617 (Basic), https://www.w3.org/TR/fetch-metadata/.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field

OPEN = frozenset({"/healthz", "/readyz"})  # for whoever watches: they tell no name and no value
# What the headers of a proxy begin with. One that adds none may ask by HTTP/1.0, as nginx long did by itself.
_FORWARDED = (
    *("forwarded", "via", "x-real-ip", "x-client-ip", "x-original-", "x-envoy-", "true-client-ip"),
    *("x-forwarded", "x-cluster-", "x-scheme", "x-arr-", "x-amzn-", "x-azure-", "x-varnish", "client-ip"),
    *("cf-", "cdn-loop", "fastly-", "fly-", "max-forwards", "surrogate-", "tailscale-"),
)
_UNSPECIFIED = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 (compared with, not listened at)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is refused; ``status`` is of HTTP, ``asks`` whether a login would help."""

    status: int
    reason: str
    asks: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """The head of a request; the names of ``headers`` are in lower case, ``peer`` is the address it came from."""

    method: str
    path: str
    peer: str
    headers: Mapping[str, str]
    version: str = "HTTP/1.1"


@dataclass(frozen=True, slots=True)
class Access:
    """What holds for one listening address. ``names`` are more hosts that are ours, such as a proxy's before us."""

    host: str
    token: str | None = field(default=None, repr=False)
    names: frozenset[str] = frozenset()

    def refusal(self, asked: Asked) -> Refusal | None:
        """Say why a request is refused, None where it is not."""
        host = hostname(asked.headers.get("host", ""))
        if not self._is_ours(host):
            return Refusal(403, "the request names a host that is not ours: listen on it, or name it with --host")
        if _is_foreign(asked):
            return Refusal(403, "the request comes from a page of another origin")
        writes = asked.method not in ("GET", "HEAD")
        if asked.path in OPEN and not writes:
            return None
        if (writes or not self._is_local(host, asked)) and not self._is_told(asked, basic=not writes):
            return Refusal(401, "the token is needed: Authorization: Bearer TOKEN", asks=not writes)
        return None

    def _is_ours(self, host: str) -> bool:
        # A page can't make an address lead to another machine, so any address is ours where all are listened at.
        anywhere = self.host in _UNSPECIFIED and _address(host) is not None
        return bool(host) and (is_loopback(host) or host in {self.host.lower(), *self.names} or anywhere)

    def _is_local(self, host: str, asked: Asked) -> bool:
        """Whether somebody on this machine asks, without anybody between: a proxy here speaks for everybody."""
        between = asked.version == "HTTP/1.0" or any(name.startswith(_FORWARDED) for name in asked.headers)
        return is_loopback(self.host) and is_loopback(host) and is_loopback(asked.peer) and not between

    def _is_told(self, asked: Asked, *, basic: bool) -> bool:
        """Whether the token is known. A browser sends Basic by itself, also for a page that is none of ours."""
        scheme, _, given = asked.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "basic" and basic:
            given = _password(given)
        elif scheme.lower() != "bearer":
            return False
        return bool(self.token) and hmac.compare_digest(given.strip().encode(), (self.token or "").encode())


def hostname(text: str) -> str:
    """Return the host of a ``Host`` header in lower case, without port and brackets; empty for what is none."""
    host, port = text.lower(), ""
    if host.startswith("["):
        host, bracket, port = host[1:].partition("]")
        if not bracket or (port and not port.startswith(":")):
            return ""
    elif ":" in host:
        host, _, port = host.partition(":")
    if port.strip(":") and not port.strip(":").isdigit():
        return ""
    return host.removesuffix(".")


def is_loopback(host: str) -> bool:
    """Whether a host, by name or address, is this machine (RFC 6761 section 6.3)."""
    address = _address(host)
    return address.is_loopback if address else host == "localhost" or host.endswith(".localhost")


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _is_foreign(asked: Asked) -> bool:
    """Whether a page of another origin asks: that of another port is one, too. A link to us may be followed."""
    origin = asked.headers.get("origin")
    if origin is not None and origin.lower().partition("://")[2] != asked.headers.get("host", "").lower():
        return True
    site, mode = asked.headers.get("sec-fetch-site", "none"), asked.headers.get("sec-fetch-mode", "")
    followed = mode == "navigate" and asked.method in ("GET", "HEAD")
    return site not in ("none", "same-origin") and not followed


def _password(given: str) -> str:
    try:
        return base64.b64decode(given, validate=True).decode().partition(":")[2]
    except (binascii.Error, ValueError):
        return ""
