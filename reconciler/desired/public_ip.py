"""What follows the line's address: where it may stand, what it becomes, and which answers count. Pure.

An A record says ``content: {public_ip: true}``, which is the text `SLOT` from the spec on; an SPF record may
hold `SLOT` itself. Only IPv4 is followed: behind one line every machine has an IPv6 address of its own.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, ip_network

from reconciler.dns import text

SLOT = "{public_ip}"
LONGEST = "255.255.255.255"
"""An address that stands for any other where a text is judged before the line's is known."""

# A macro of SPF (RFC 7208 section 7.1) is no slot, and its braces are its own.
_MACRO = r"%\{[A-Za-z][0-9]*[rR]?[-.+,/_=]*\}"
_PIECE = re.compile(rf"(?P<brace>\{{\{{|\}}\}})|(?P<macro>{_MACRO})|(?P<slot>\{{public_ip\}})|(?P<stray>[{{}}])")
_LEAST = 2  # who have to agree


# ------------------------------------------------------------------------------------------------------------ texts
def is_template(type: str, name: str, content: str) -> bool:
    """Whether braces in a content mean something: that of an A record which follows, and the text of an SPF record."""
    if type == "A":
        return content == SLOT
    return type == "TXT" and "{" in content and text.policy(name, text.joined(content)) is text.SPF


def follows(template: str) -> bool:
    """Whether there is a place for the address in a template."""
    return any(piece["slot"] for piece in _PIECE.finditer(template))


def stray(template: str) -> str:
    """Return a brace of a template that is none of what may stand there; empty where there is none."""
    return next((piece["stray"] for piece in _PIECE.finditer(template) if piece["stray"]), "")


def filled(template: str, address: str) -> str:
    """Put an address into a template; ``{{`` and ``}}`` become braces, SPF's own macros stay."""
    return _PIECE.sub(
        lambda piece: address if piece["slot"] else piece["brace"][0] if piece["brace"] else piece[0], template
    )


# ---------------------------------------------------------------------------------------------------------- answers
@dataclass(frozen=True, slots=True)
class Told:
    """What one that was asked says: an address, or why it says none (``unread``)."""

    who: str
    address: str = ""
    unread: str = ""

    def __str__(self) -> str:
        """Render as a person reads it."""
        return f"{self.who}: {self.address or self.unread}"


@dataclass(frozen=True, slots=True)
class Line:
    """The line's address, as far as it can be told.

    Where there is no ``address``, ``why`` and ``hint`` say so; ``useless`` is set where there is one that nobody can
    reach. ``told`` are all addresses that somebody named.
    """

    address: str = ""
    why: str = ""
    hint: str = ""
    useless: bool = False
    told: frozenset[str] = frozenset()


def agreed(told: Sequence[Told]) -> Line:
    """Return the address that at least two of those who were asked name."""
    named = Counter(item.address for item in told if item.address)
    ranked = named.most_common(_LEAST)
    best, votes = ranked[0] if ranked else ("", 0)
    tied = len(ranked) == _LEAST and ranked[1][1] == votes
    if votes < _LEAST or tied:
        why = f"no two agree ({'; '.join(map(str, told))})"
        return Line(why=why, hint=_OFFLINE, told=frozenset(named))
    return _judged(best, frozenset(named))


def of_router(told: Told) -> Line:
    """Return the address that the line's own router names: it knows, so it is asked alone."""
    if not told.address:
        return Line(why=str(told), hint="check RECONCILER_ROUTER, and that the router tells its status by UPnP")
    return _judged(told.address, frozenset({told.address}))


_OFFLINE = "check that this machine reaches the Internet by UDP port 53, or name the line's router: RECONCILER_ROUTER"
_CGNAT = "ask the provider for a public IPv4 address of your own, or let the mail arrive at a server that has one"
_BEYOND = (
    ("100.64.0.0/10", "belongs to the provider, who shares one address among many (CGNAT, RFC 6598)", _CGNAT),
    ("192.0.0.0/29", "is that of a line with IPv6 alone (DS-Lite, RFC 6333)", _CGNAT),
    *(
        (
            network,
            "is a private one: another router stands between",
            "let that router pass its address on (bridge mode)",
        )
        for network in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
    ),
)


def _judged(address: str, told: frozenset[str]) -> Line:
    """Take an address that the whole Internet can reach, and no other."""
    found = IPv4Address(address)
    if found.is_global and not found.is_multicast:
        return Line(address, told=told)
    known = (item for item in _BEYOND if found in ip_network(item[0]))
    _, what, hint = next(known, ("", "is none of the Internet", _OFFLINE))
    why = f"{address} {what}: nobody can reach it from outside, so no mail can be received there"
    return Line(why=why, hint=hint, useless=True, told=told)


def ipv4(text: str) -> str:
    """Read an answer as an IPv4 address; empty for what is none, and for 0.0.0.0, which says that there is none now."""
    try:
        found = IPv4Address(text.strip())
    except AddressValueError:
        return ""
    return "" if found.is_unspecified else str(found)
