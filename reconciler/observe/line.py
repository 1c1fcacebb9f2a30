"""Asks which address this line has on the Internet: its own router, or name servers that answer who asks them."""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from reconciler import http, url
from reconciler.desired.public_ip import Line, Told, agreed, ipv4, of_router
from reconciler.observe import igd, nameservers
from reconciler.problem import Problem, ReconcilerError

if TYPE_CHECKING:
    import httpx

AGE = 60.0
"""Seconds for which an answer counts: nobody is asked more often."""

_ROUTER, _WHOAMI = "RECONCILER_ROUTER", "RECONCILER_WHOAMI"
_BOUNDS = http.Bounds(1 << 16, seconds=5.0, silence=3.0, connect=2.0)  # a real answer has 1 to 8 KiB
_ATTEMPT, _LIMIT = 1.0, 4.0  # seconds for one datagram, and for all of them
_TRIES = 2  # UDP is lost at times


@dataclass(frozen=True, slots=True)
class Whoami:
    """A question that a name server answers with the address it came from."""

    host: str
    type: str
    rdclass: str
    server: str
    port: int = 53

    def __str__(self) -> str:
        """Render the server as a person knows it."""
        return url.shown(self.server, None if self.port == 53 else self.port)  # noqa: PLR2004 (DNS)


# As of 2026-11, by what is written of them; none could be asked where this was made.
WHOAMI = (
    Whoami("myip.opendns.com", "A", "IN", "208.67.222.222"),  # resolver1.opendns.com
    Whoami("o-o.myaddr.l.google.com", "TXT", "IN", "216.239.32.10"),  # ns1.google.com
    Whoami("whoami.cloudflare", "TXT", "CH", "1.1.1.1"),
)
"""Who is asked: three owners, three networks. By address, since a resolver on the way would answer with its own, and by
IPv4, which is what is asked for. `RECONCILER_WHOAMI` takes their place, so that one that ends needs no new release."""


@functools.cache
def line(router: str | None, whoami: Sequence[str]) -> Inquiry:
    """Return the one inquiry of this process; what it knows outlives a stack. Raises what `Inquiry` does."""
    return Inquiry(router, whoami)


class Inquiry:
    """Asks for the line's address, at most once in `AGE` seconds.

    ``router`` is the URL at which it tells its services (UPnP); without a path that of a FRITZ!Box, ``/igddesc.xml``.
    With one, nobody else is asked: only the router knows of CGNAT, and a tunnel of this machine is not the line.
    ``whoami`` (``NAME/TYPE[/CLASS]@HOST[:PORT]``) are asked in place of `WHOAMI`. Making one raises `ReconcilerError`
    for what is written in another way.
    """

    def __init__(self, router: str | None, whoami: Sequence[str] = ()) -> None:
        self._router = _parsed(router) if router else None
        self._whoami = tuple(map(_whoami, whoami)) or WHOAMI
        self._known, self._until = Line(), float("-inf")

    def __call__(self) -> Line:
        """Return the line's address, within about five seconds. Never raises."""
        if time.monotonic() >= self._until:
            self._known = self._asked()
            self._until = time.monotonic() + AGE
        return self._known

    def _asked(self) -> Line:
        if self._router is not None:
            return of_router(_router_told(self._router))
        end = time.monotonic() + _LIMIT
        said = nameservers.side_by_side(functools.partial(_told, end=end), self._whoami, end)
        return agreed([said.get(item) or Told(str(item), unread="no answer in time") for item in self._whoami])


# -------------------------------------------------------------------------------------------------------- the settings
def _whoami(text: str) -> Whoami:
    match = re.fullmatch(r"([A-Za-z0-9._-]+)/(A|TXT)(?:/(IN|CH))?@(\S+)", text)
    try:
        if match is not None:
            host, port = url.endpoint(match[4], 53)
            return Whoami(match[1], match[2], match[3] or "IN", host, port)
    except url.NoUrl:
        pass
    hint = "write NAME/TYPE@ADDRESS[:PORT], such as myip.opendns.com/A@208.67.222.222, or unset it"
    raise ReconcilerError(Problem(_WHOAMI, f"{text!r} is no question to a name server", hint))


def _parsed(text: str) -> url.Url:
    try:
        return url.parse(text)
    except url.NoUrl as error:
        raise ReconcilerError(Problem(_ROUTER, error.summary, "write it like http://192.168.178.1:49000")) from None


# ---------------------------------------------------------------------------------------------------------------- DNS
def _told(item: Whoami, *, end: float) -> Told:
    """Ask one name server; whatever it does ends in a value."""
    import dns.exception
    import dns.message

    query, why = dns.message.make_query(item.host, item.type, item.rdclass, use_edns=0, payload=1232), "no answer"
    for _ in range(_TRIES):
        try:
            left = min(_ATTEMPT, end - time.monotonic())
            return _read(item, nameservers.exchange((item.server, item.port), query, left))
        except dns.exception.Timeout:
            why = "no answer"
        except (OSError, EOFError) as error:
            why = nameservers.words(error)
        except Exception as error:  # noqa: BLE001 (an answer nobody thought of must not spoil the others')
            return Told(str(item), unread=f"an answer that makes no sense ({type(error).__name__})")
    return Told(str(item), unread=why)


def _read(item: Whoami, response: Any) -> Told:
    """Read the one address of an answer; a TXT may hold other texts beside it (Google's: the client's subnet)."""
    import dns.rcode

    if response.rcode() != dns.rcode.NOERROR:
        return Told(str(item), unread=f"says {dns.rcode.to_text(response.rcode())}")
    found = {ipv4(text) for text in nameservers.as_texts(response.resolve_chaining().answer or ())} - {""}
    return Told(str(item), *found) if len(found) == 1 else Told(str(item), unread="names no single IPv4 address")


# ------------------------------------------------------------------------------------------------------------- router
_SERVICE = re.compile(r"urn:[a-z-]+:service:WAN(?:IP|PPP)Connection:\d")
_MOST = 4  # services: an IGD has one or two


def _router_told(router: url.Url) -> Told:
    """Ask a router (UPnP Device Architecture 1.1, 2.3 and 3.2; IGD:1 WANIPConnection, 2.4.18)."""
    root, who = replace(router, path=""), f"the router at {router.authority}"
    try:
        with http.client(root, _BOUNDS, admits=url.is_home) as client:
            return Told(who, _external(client, igd.describe(client, root, router.path or "/igddesc.xml")))
    except igd.Unusable as error:
        return Told(who, unread=str(error))
    except http.Unanswered as error:
        return Told(who, unread=f"no answer: {error}")


def _external(client: httpx.Client, described: igd.Description) -> str:
    """Find the services that know, and return what the first of them with an address says. Raises `igd.Unusable`."""
    services = [(kind, where) for kind, where in described.services if _SERVICE.fullmatch(kind)]
    if not services:
        raise igd.Unusable("it describes no connection to the Internet")
    why = ""
    for kind, where in services[:_MOST]:
        try:
            return _address(client, described.service(kind, where))
        except igd.Unusable as error:
            why = why or str(error)
    raise igd.Unusable(why)


def _address(client: httpx.Client, service: igd.Service) -> str:
    said = igd.call(client, service, "GetExternalIPAddress")
    texts = [text for name, text in said if name == "NewExternalIPAddress"]
    found = ipv4(texts[0]) if len(texts) == 1 else ""
    if not found:
        raise igd.Unusable("it names no IPv4 address: the line is down, or has IPv6 alone")
    return found
