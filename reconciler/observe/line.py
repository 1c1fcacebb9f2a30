"""Asks which address this line has on the Internet: its own router, or name servers that answer who asks them."""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

from reconciler import http, url
from reconciler.desired.public_ip import Line, Told, agreed, ipv4, of_router
from reconciler.observe import nameservers
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
    except url.NoAddress:
        pass
    hint = "write NAME/TYPE@ADDRESS[:PORT], such as myip.opendns.com/A@208.67.222.222, or unset it"
    raise ReconcilerError(Problem(_WHOAMI, f"{text!r} is no question to a name server", hint))


def _parsed(text: str) -> url.Address:
    try:
        return url.parse(text)
    except url.NoAddress as error:
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
class _Unusable(Exception):
    """Why the router did not tell."""


_SERVICE = re.compile(r"urn:[a-z-]+:service:WAN(?:IP|PPP)Connection:\d")
_MOST = 4  # services: an IGD has one or two
_BODY = """<?xml version="1.0"?>
<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" \
s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/">\
<s:Body><u:GetExternalIPAddress xmlns:u="{}"/></s:Body></s:Envelope>"""


def _router_told(router: url.Address) -> Told:
    """Ask a router (UPnP Device Architecture 1.1, 2.3 and 3.2; IGD:1 WANIPConnection, 2.4.18)."""
    root, who = replace(router, path=""), f"the router at {router.authority}"
    try:
        with http.client(root, _BOUNDS, admits=_is_near) as client:
            return Told(who, _external(client, root, router.path or "/igddesc.xml"))
    except _Unusable as error:
        return Told(who, unread=str(error))
    except http.Unanswered as error:
        return Told(who, unread=f"no answer: {error}")


def _is_near(found: url.IP) -> bool:
    """Whether an address is in a network of one's own: a router's name may be somebody else's on the Internet."""
    return found.is_private or found.is_loopback


def _external(client: httpx.Client, router: url.Address, path: str) -> str:
    """Find the services that know, and return what the first of them with an address says. Raises `_Unusable`."""
    described = _elements(http.exchange(client, "GET", path))
    services = [(kind, where) for kind, where in _services(described) if _SERVICE.fullmatch(kind)]
    if not services:
        raise _Unusable("it describes no connection to the Internet")
    why = ""
    for kind, where in services[:_MOST]:
        try:
            return _address(client, kind, _below(router, path, where))
        except _Unusable as error:
            why = why or str(error)
    raise _Unusable(why)


def _address(client: httpx.Client, kind: str, path: str) -> str:
    headers = {"content-type": 'text/xml; charset="utf-8"', "soapaction": f'"{kind}#GetExternalIPAddress"'}
    answer = http.exchange(client, "POST", path, content=_BODY.format(kind), headers=headers, reads=True)
    texts = [text for name, text in _elements(answer) if name == "NewExternalIPAddress"]
    found = ipv4(texts[0]) if len(texts) == 1 else ""
    if not found:
        raise _Unusable("it names no IPv4 address: the line is down, or has IPv6 alone")
    return found


def _below(router: url.Address, path: str, where: str) -> str:
    """Return the path of a service, which has to be the router's own: nobody is led elsewhere. Raises `_Unusable`."""
    try:
        found = url.parse(urljoin(router.url + path, where))
    except ValueError:
        raise _Unusable("it describes a service at an address that is none") from None
    if (found.scheme, found.host, found.port) != (router.scheme, router.host, router.port):
        raise _Unusable("it describes a service that is not its own")
    return found.path


def _services(elements: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return type and control URL of each service of a description."""
    found, now = [], dict[str, str]()
    for name, text in elements:
        if name == "service":
            found.append((now.get("serviceType", ""), now.get("controlURL", "")))
            now = {}
        else:
            now[name] = text
    return found


def _elements(answer: http.Answer) -> list[tuple[str, str]]:
    """Return local name and text of each element, in the order in which they end. Raises `_Unusable`.

    A document type, without which there are no entities, is refused: SOAP 1.1 section 3 allows none.
    """
    from xml.parsers import expat

    if answer.status != 200:  # noqa: PLR2004 (HTTP)
        raise _Unusable(f"it answers {answer.status}")
    found, texts = list[tuple[str, str]](), list[list[str]]()
    parser = expat.ParserCreate()

    def refuse(*_: object) -> None:
        raise _Unusable("its answer has a document type")

    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = lambda *_: texts.append([])
    parser.EndElementHandler = lambda name: found.append((name.rpartition(":")[2], "".join(texts.pop()).strip()))
    parser.CharacterDataHandler = lambda text: texts[-1].append(text)  # noqa: PLW0108 (of the innermost, each time)
    try:
        parser.Parse(answer.body, True)  # noqa: FBT003 (expat's own)
    except (expat.ExpatError, LookupError, ValueError):
        raise _Unusable("its answer is no XML") from None
    return found
