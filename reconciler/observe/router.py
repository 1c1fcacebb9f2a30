"""Asks the line's router which ports it leads to whom, and which address it has on the Internet (TR-064).

Sources: AVM, "TR-064 First Steps", "WANIPConnection" and "WANPPPConnection"; UPnP IGD:1, WANIPConnection 2.4. A
FRITZ!Box describes itself at ``/tr64desc.xml`` and takes a login by digest (RFC 7616), in which no password is sent;
others that know TR-064 do alike. One that only speaks UPnP tells what programs opened, and nothing of what a person
wrote: what it does not name may be there all the same.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from reconciler import http, url
from reconciler.checks.evidence import Forward, RouterTold
from reconciler.desired.public_ip import ipv4
from reconciler.observe import igd
from reconciler.problem import printable

if TYPE_CHECKING:
    import httpx

_BOUNDS = http.Bounds(1 << 17, seconds=4.0, silence=3.0, connect=2.0)  # a description has up to 40 KiB
_ALL = 10.0  # seconds for everything that is asked
_MOST = 200  # forwards that are read
_CONNECTION = re.compile(r"urn:(?P<by>dslforum-org|schemas-upnp-org):service:WAN(?:IP|PPP)Connection:\d")
_CONNECTIONS = 4
_NONE, _BEYOND, _UNKNOWN_ACTION = 714, 713, (401, 602)  # UPnP's codes: no such entry, no such index, no such action


class RouterRefuses(Exception):
    """The router does not take the login, or wants one."""


class RouterSilent(Exception):
    """The router can't be asked; the text says why."""


@dataclass(frozen=True, slots=True)
class Login:
    """Who logs in at the router. It gets a digest of the password, never the password."""

    username: str
    password: str


def ask(host: str, port: int, login: Login | None, wanted: Sequence[int], bounds: http.Bounds = _BOUNDS) -> RouterTold:
    """Read forwards and address, within some ten seconds. ``wanted`` are ports that are looked for one by one, too.

    A refused login is not sent a second time. Raises `RouterRefuses` and `RouterSilent`.
    """
    root = url.Url("http", host, port)
    end = time.monotonic() + _ALL
    try:
        with http.client(root, bounds, admits=url.is_home, name="router") as client:
            return _told(_Conversation(client, _auth(login), end), root, wanted)
    except igd.NotLetIn as error:
        raise RouterRefuses(str(error)) from None
    except igd.Unusable as error:
        raise RouterSilent(str(error)) from None
    except http.Unanswered as error:
        raise RouterSilent(f"no answer: {error}") from None


def _auth(login: Login | None) -> httpx.Auth | None:
    if login is None:
        return None
    import httpx

    return httpx.DigestAuth(login.username, login.password)


@dataclass(frozen=True, slots=True)
class _Conversation:
    client: httpx.Client
    auth: httpx.Auth | None
    end: float

    def say(self, service: igd.Service, action: str, **arguments: str | int) -> dict[str, str]:
        if time.monotonic() >= self.end:
            raise igd.Unusable("it did not tell everything in time")
        given = {f"New{name}": value for name, value in arguments.items()}
        return dict(igd.call(self.client, service, action, given, self.auth))


def _told(talk: _Conversation, root: url.Url, wanted: Sequence[int]) -> RouterTold:
    described, services, whole = _described(talk, root)
    forwards, addresses, failed = list[Forward](), list[str](), list[igd.Fault]()
    for service in services:
        try:
            addresses += _address(talk, service)
            listed = list(_listed(talk, service))
            missing = set(wanted) - {item.external for item in listed}
            forwards += [*listed, *_looked_up(talk, service, sorted(missing))]
        except igd.Fault as error:  # of two connections one is not in use
            failed.append(error)
    if len(failed) == len(services):
        raise failed[0]
    return RouterTold(
        model=printable(described.model, 60),
        wan=next(iter(addresses), ""),
        forwards=tuple(dict.fromkeys(forwards)),
        whole=whole,
    )


def _described(talk: _Conversation, root: url.Url) -> tuple[igd.Description, Sequence[igd.Service], bool]:
    """Return what the router says of itself, its connections, and whether they tell of all forwards."""
    failed = None
    for path in ("/tr64desc.xml", "/igddesc.xml", "/rootDesc.xml"):  # the last as miniupnpd has it
        try:
            found = igd.describe(talk.client, root, path)
        except igd.Unusable as error:
            failed = failed or error
            continue
        services = list(_connections(found))
        if services:
            return found, services, any("dslforum" in item.kind for item in services)
    raise failed or igd.Unusable("it describes no connection to the Internet")


def _connections(found: igd.Description) -> Iterator[igd.Service]:
    known = [(kind, where) for kind, where in found.services if _CONNECTION.fullmatch(kind)]
    yield from (found.service(kind, where) for kind, where in known[:_CONNECTIONS])


def _address(talk: _Conversation, service: igd.Service) -> Iterator[str]:
    found = ipv4(talk.say(service, "GetExternalIPAddress").get("NewExternalIPAddress", ""))
    if found:
        yield found


def _listed(talk: _Conversation, service: igd.Service) -> Iterator[Forward]:
    """Yield the entries in order: as many as there are, or until the router says that there is none at an index."""
    most = _number(_unless(partial(talk.say, service, "GetPortMappingNumberOfEntries"), *_UNKNOWN_ACTION))
    for index in range(_MOST if most is None else min(most, _MOST)):
        said = _unless(partial(talk.say, service, "GetGenericPortMappingEntry", PortMappingIndex=index), _BEYOND)
        if said is None:
            return
        if (found := _forward(said)) is not None:
            yield found


def _looked_up(talk: _Conversation, service: igd.Service, wanted: Sequence[int]) -> Iterator[Forward]:
    """Yield the entries of single ports: a list may be cut."""
    for port in wanted:
        key: dict[str, str | int] = {"RemoteHost": "", "ExternalPort": port, "Protocol": "TCP"}
        ask = partial(talk.say, service, "GetSpecificPortMappingEntry", **key)
        said = _unless(ask, _NONE, *_UNKNOWN_ACTION)
        if said is not None and (found := _forward({**{f"New{name}": str(it) for name, it in key.items()}, **said})):
            yield found


def _unless(say: Callable[[], dict[str, str]], *codes: int) -> dict[str, str] | None:
    """Return what is said; None where the router says no with one of some codes."""
    try:
        return say()
    except igd.Fault as error:
        if error.code not in codes:
            raise
        return None


def _number(said: dict[str, str] | None) -> int | None:
    text = (said or {}).get("NewPortMappingNumberOfEntries", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 6 else None  # noqa: PLR2004 (16 bits)


def _forward(said: dict[str, str]) -> Forward | None:
    """Read an entry; None for one that makes no sense."""
    ports = [said.get(f"New{name}Port", "") for name in ("External", "Internal")]
    if not all(re.fullmatch(r"\d{1,5}", port, re.ASCII) for port in ports):
        return None
    remote = said.get("NewRemoteHost", "")
    return Forward(
        protocol=printable(said.get("NewProtocol", ""), 8).upper(),
        external=int(ports[0]),
        internal=int(ports[1]),
        client=printable(said.get("NewInternalClient", ""), 64),
        enabled=said.get("NewEnabled", "").strip() == "1",
        remote="" if remote in ("", "0.0.0.0") else printable(remote, 64),  # noqa: S104 (read, not bound)
    )
