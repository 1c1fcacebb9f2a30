"""Whether the Internet reaches the mail server: what can be told of it from inside, and what is no proof.

Nobody connects to the line's own address from here: a router may lead such a connection back although it lets nobody in
from outside, or end it although it lets everybody in. What counts is what the router says that it does, its address on
the Internet, and who has come: a session with a host of the Internet at port 25 proves the whole way.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reconciler.checks.check import Check, Remedy, Status, Unread, Verdict, error, ok, skip, unknown, warn, worst
from reconciler.checks.dns import shown
from reconciler.checks.evidence import Evidence, Forward, Names, Router, RouterTold
from reconciler.desired.public_ip import Told, of_router

_RELAY = 25
_SESSION = re.compile(r'(?:listenerId\s*=\s*"smtp"|\blocalPort\s*=\s*25\b)')
_REMOTE = re.compile(r'\bremoteIp\s*=\s*"?(?P<ip>[0-9a-fA-F.:]+)')
_MANY = 5  # sessions after which one single private address is no chance


@dataclass(frozen=True, slots=True)
class Way:
    """What the checks of this room look at: the router, what DNS shows, and who came to port 25 by the log.

    ``machine`` is the address of the one that the mail server runs on, empty where that is not known; ``doors`` are the
    ports of that machine that lead to each port of the container, where the engine told.
    """

    router: Router
    machine: str
    doors: Mapping[int, tuple[int, ...]]
    names: Names | None
    came: tuple[str, ...] | Unread


def way(evidence: Evidence) -> Way | Unread | None:
    """Take the way from the Internet."""
    found = evidence.router
    if found is None or isinstance(found, Unread):
        return found
    names = None if isinstance(evidence.names, Unread) else evidence.names
    container = Unread("no container is declared") if evidence.container is None else evidence.container
    if isinstance(container, Unread):
        return Way(found, found.to or found.here, {}, names, container)
    doors = {port: _outside(places) for port, places in container.published.items()}
    came = container.log if isinstance(container.log, Unread) else sessions(container.log)
    return Way(found, found.to or (found.here if container.local else ""), doors, names, came)


def _outside(places: tuple[str, ...]) -> tuple[int, ...]:
    return tuple(sorted({int(place.rpartition(":")[2]) for place in places}))


def sessions(lines: tuple[str, ...]) -> tuple[str, ...]:
    """Return the addresses that came to port 25, in the log's order."""
    found = (_REMOTE.search(line) for line in lines if _SESSION.search(line))
    return tuple(item["ip"] for item in found if item and _ip(item["ip"]) is not None)


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


# ---------------------------------------------------------------------------------------------------------- the router
def _answers(found: Way) -> Verdict:
    router = found.router
    if router.told is not None:
        return ok(f"{_name(router)} tells where it leads ports", f"{len(router.told.forwards)} forwards")
    if router.refuses:
        said = f"{_name(router)} refuses the login ({router.refuses}); it is not tried again"
        text = (
            "let `router.username` and `router.password` be a user of the router who may see its settings (FRITZ!Box: "
            "System > FRITZ!Box Users)"
        )
        return warn(said, remedy=Remedy(f"{text}; {_by_hand(found)}"))
    said = f"{_name(router)} can't be asked: {router.silent}"
    allow = (
        "a FRITZ!Box answers where Home Network > Network > Network Settings has `Allow access for applications`; one "
        "of another make may not know TR-064"
    )
    return Verdict(Status.UNKNOWN, said, remedy=Remedy(f"{allow}; {_by_hand(found)}"))


def _forwards(found: Way) -> Verdict:
    router = found.router
    if router.told is None:
        return Verdict(Status.UNKNOWN, f"{_name(router)} did not tell its forwards", remedy=Remedy(_by_hand(found)))
    fine = f"{_listed(router.needed)} lead{'s' if len(router.needed) == 1 else ''} to {found.machine or 'a machine'}"
    verdicts = [_forward(found, router.told, port) for port in router.needed]
    told = worst(verdicts, fine)
    wrong = [port for port, item in zip(router.needed, verdicts, strict=True) if item.status is not Status.OK]
    return told if not wrong else Verdict(told.status, told.summary, told.evidence, "", Remedy(_steps(found, wrong)))


def _forward(found: Way, told: RouterTold, port: int) -> Verdict:
    there = [item for item in told.forwards if item.external == port]
    tcp = [item for item in there if item.protocol == "TCP"]
    if not tcp:
        if there:
            return error(f"the router leads port {port} on by {there[0].protocol} alone: mail needs TCP")
        if told.whole:
            return error(f"the router does not lead port {port} to anybody")
        return unknown(f"the router names no forward of port {port}, and by UPnP it does not name all")
    faults = [_fault(found, port, item) for item in tcp]
    if "" in faults:
        if not found.machine:
            return unknown(f"port {port} leads to {tcp[0].client}: whether that is the mail server's machine")
        return ok(f"port {port} leads to {tcp[0].client}:{tcp[0].internal}")
    return error(f"port {port}: {faults[0]}")


def _fault(found: Way, port: int, item: Forward) -> str:
    """Say what is wrong with a forward by TCP; nothing where it is as it should be."""
    doors = found.doors.get(port, (port,))
    if not item.enabled:
        return f"its forward to {item.client} is switched off"
    if found.machine and item.client != found.machine:
        return f"the router leads it to {item.client}, and the mail server runs on {found.machine}"
    if item.internal not in doors:
        return f"the router leads it to port {item.internal}, and the mail server is at {_ports(doors)}"
    if item.remote:
        return f"the router lets {item.remote} in alone"
    return ""


def _address(found: Way) -> Verdict:
    router = found.router
    if router.told is None:
        return unknown(f"{_name(router)} did not tell its address on the Internet")
    if not router.told.wan:
        said = f"{_name(router)} has no IPv4 address on the Internet: no forward can work"
        cause = "the line is down, or has IPv6 alone (DS-Lite)"
        return error(said, cause=cause, remedy=Remedy("ask the provider for a public IPv4 address of your own"))
    line = of_router(Told("the router", router.told.wan))
    if not line.address:
        return error(f"no forward can work: the router's address {line.why}", remedy=Remedy(line.hint))
    return _leads_here(found, line.address) or ok(f"the router's address on the Internet is {line.address}")


def _leads_here(found: Way, wan: str) -> Verdict | None:
    """Say that the mail host's name, or what leaves, has another address than the router; None where all agree."""
    names = found.names
    if names is None:
        return None
    if names.host and (there := shown(names, names.host, "A").all) and wan not in there:
        said = f"{names.host} is {', '.join(there)}, and the router has {wan}: mail goes elsewhere"
        text = f"write `content: {{public_ip: true}}` at the A record of {names.host}"
        return error(said, cause="the line got another address", remedy=Remedy(text))
    if names.line.address and names.line.address != wan:
        said = f"mail leaves from {names.line.address}, and the router has {wan}"
        cause = "a VPN of this machine, or a second router or line, carries what leaves"
        return warn(said, cause=cause, remedy=Remedy("let SPF and PTR be those of the address from which mail leaves"))
    return None


# ----------------------------------------------------------------------------------------------- who came from there
def _came(found: Way) -> Verdict:
    if _RELAY not in found.router.needed:
        return skip("port 25 is not among router.forwards")
    if isinstance(found.came, Unread):
        return unknown(f"whether anybody came to port 25 is not known: {found.came.why}")
    outside = [item for item in found.came if (ip := _ip(item)) is not None and ip.is_global]
    if outside:
        count = len(outside)
        return ok(
            f"{count} session{'s' if count > 1 else ''} at port 25 came from the Internet", f"last: {outside[-1]}"
        )
    inside = set(found.came)
    if len(found.came) >= _MANY and len(inside) == 1:
        said = f"every session at port 25 comes from {inside.pop()}: the server does not see who it talks to"
        cause = "Docker passes connections on under an address of its own (Colima, rootless Docker)"
        text = (
            "run the server where the engine passes the clients' addresses on, as Docker on Linux does: else SPF fails "
            "for all mail that comes in, and a ban shuts everybody out"
        )
        return warn(said, cause=cause, remedy=Remedy(text))
    text = (
        "look from another line, such as a phone without WLAN: `nc -vz HOST 25`; from inside it proves nothing, "
        "whatever it says"
    )
    host = found.names.host if found.names else ""
    said = "the log names nobody from the Internet at port 25: whether it is open is not proved"
    return Verdict(Status.UNKNOWN, said, remedy=Remedy(text.replace("HOST", host or "HOST")))


# --------------------------------------------------------------------------------------------------------------- words
def _name(router: Router) -> str:
    model = router.told.model if router.told else ""
    return f"{model or 'the router'} at {router.where}"


def _listed(ports: tuple[int, ...]) -> str:
    return f"port{'s' if len(ports) > 1 else ''} {_ports(ports)}"


def _ports(ports: tuple[int, ...]) -> str:
    return ", ".join(map(str, ports))


def _steps(found: Way, ports: Sequence[int]) -> str:
    """Say what to do in the router for some ports, click by click where its make is known."""
    router, machine = found.router, found.machine or "the mail server's machine"
    wanted = "; ".join(f"port to device {min(found.doors.get(port, (port,)))}, external {port}" for port in ports)
    model = router.told.model if router.told else ""
    if model and "fritz" not in model.lower():
        return f"in {_name(router)}, under port forwarding, lead by TCP to {machine}: {wanted}"
    host = router.where.rpartition(":")[0]
    return (
        f"in the FRITZ!Box (http://{host}): Internet > Permit Access > Port Sharing > Add "
        f"Device for Sharing (Internet > Freigaben > Portfreigaben > Gerät für Freigaben hinzufügen), {machine}, "
        f"New Sharing > Port sharing > Other application, protocol TCP, {wanted}; `Enable sharing`, OK, Apply"
    )


def _by_hand(found: Way) -> str:
    return f"or look by hand: {_steps(found, found.router.needed)}"


CHECKS = (
    Check(
        "router/answers",
        "nobody can say whether the ports are open",
        "the router does not speak TR-064, or refuses the login",
        "allow access for applications, give it a user, or look by hand",
        "FRITZ!Box, TR-064 First Steps",
        way,
        _answers,
    ),
    Check(
        "router/forwards",
        "mail from outside does not arrive: connection timed out",
        "the router leads the port to nobody, to another machine, or to another port",
        "set the forward, as the remedy says step by step",
        "docs/doctor.md#ports-from-outside",
        way,
        _forwards,
    ),
    Check(
        "router/address",
        "the ports are forwarded, and still nobody comes in",
        "the router has no address of its own on the Internet (CGNAT, DS-Lite), or the name leads to another",
        "ask the provider for one, or let the record follow the line",
        "RFC 6598, RFC 6333",
        way,
        _address,
    ),
    Check(
        "router/from-outside",
        "`nc -z` says open, and no mail comes; or every client has the same address",
        "a connection from inside to one's own address proves nothing; Docker may hide who connects",
        "look from another line; let the engine keep the clients' addresses",
        "docs/doctor.md#ports-from-outside",
        way,
        _came,
    ),
)
