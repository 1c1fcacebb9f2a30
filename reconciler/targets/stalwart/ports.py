"""Whether a listener answers: a connection that speaks its protocol and takes leave, as no scanner does."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from reconciler.problem import Problem
from reconciler.resources import UNMANAGED, Listener, Live, Resource, Special
from reconciler.targets.stalwart.connection import wait_until
from reconciler.targets.stalwart.container import Container
from reconciler.targets.stalwart.survey import Omissions
from reconciler.url import is_loopback

_TIMEOUT = 2.0  # seconds for connecting, and for the first bytes
_OPENS = 20.0  # seconds until a listener answers once the API does

# What a server says first, and how one takes leave (RFC 5321, 2033, 3501, 1939, 5804). A published port of Docker
# accepts a connection and closes it when nothing listens behind it, so accepting alone proves nothing.
_GREETINGS = {
    "smtp": (b"220", b"QUIT\r\n"),
    "lmtp": (b"220", b"QUIT\r\n"),
    "imap": (b"* OK", b"a LOGOUT\r\n"),
    "pop3": (b"+OK", b"QUIT\r\n"),
    "managesieve": (b'"', b"LOGOUT\r\n"),
}


def port_of(bind: str) -> int:
    """Return the port of ``[::]:587``; 0 when there is none."""
    text = bind.rpartition(":")[2]
    return int(text) if text.isdigit() else 0


def open_listeners(
    listeners: Iterable[Listener], url_host: str, container: Container | None
) -> dict[str, bool | Special]:
    """Map each listener's name to whether it answers, asking all side by side."""
    items = list(listeners)
    if not items:
        return {}
    with ThreadPoolExecutor(max_workers=min(len(items), 16)) as pool:
        return dict(pool.map(lambda item: (item.name, is_open(item, url_host, container)), items))


def is_open(listener: Listener, url_host: str, container: Container | None) -> bool | Special:
    """Whether all ports of a listener answer; UNMANAGED where that can't be told from here."""
    verdicts: list[bool | Special] = []
    for bind in listener.bind:
        place = _place(bind, url_host, container)
        verdicts.append(UNMANAGED if place is None else _answers(*place, listener, certain=container is not None))
    if False in verdicts:
        return False
    return UNMANAGED if UNMANAGED in verdicts or not verdicts else True


def with_open(
    live: Sequence[Live], wanted: Iterable[Resource], url_host: str, container: Container | None
) -> list[Live]:
    """Say of the wanted listeners whether they answer."""
    names = {item.name for item in wanted if isinstance(item, Listener)}
    listeners = [item.resource for item in live if isinstance(item.resource, Listener) and item.resource.name in names]
    answers = open_listeners(listeners, url_host, container)
    return [
        replace(item, resource=replace(item.resource, open=answers[item.resource.name]))
        if isinstance(item.resource, Listener) and item.resource.name in answers
        else item
        for item in live
    ]


def answering(live: Sequence[Live], url_host: str, container: Container | None, omissions: Omissions) -> Iterator[Live]:
    """Yield all but the listeners that are stored and do not answer, and note those."""
    for item in with_open(live, [item.resource for item in live], url_host, container):
        if getattr(item.resource, "open", None) is False:
            hint = "restart the server's container, then declare it"
            omissions.note(item.resource.address, "is stored and does not answer", hint)
        else:
            yield item


def unopened(resource: Resource | None, url_host: str, container: Container | None) -> Problem | None:
    """Wait until a listener answers after a restart, and say where it does not; of anything else nothing is said."""
    if not isinstance(resource, Listener):
        return None
    if wait_until(lambda: is_open(resource, url_host, container) is not False, _OPENS):
        return None
    summary = f"does not answer at {', '.join(resource.bind)} though the container was restarted"
    hint = "look at the container's log: is the port taken, and is it published?"
    return Problem(resource.address, summary, hint)


def _place(bind: str, url_host: str, container: Container | None) -> tuple[str, int] | None:
    """Say where a port is to be reached from here: published by Docker, or at the address of the API.

    A loopback URL without a container may be the end of an SSH tunnel, which has no other ports.
    """
    address, port = bind.rpartition(":")[0].strip("[]"), port_of(bind)
    if is_loopback(address) and container is not None:
        return None  # only inside the container
    if container is not None and url_host not in container.aliases and not container.owns(url_host):
        return container.ports.get(port) if container.local else None
    if is_loopback(url_host):
        return None
    return url_host, port


def _answers(host: str, port: int, listener: Listener, *, certain: bool) -> bool | Special:
    """Connect and listen. Where a firewall may stand between (``certain`` is false), silence tells nothing."""
    try:
        with socket.create_connection((host, port), timeout=_TIMEOUT) as raw:
            return _speaks(raw, listener)
    except ConnectionError:
        return False
    except OSError:  # a timeout, no route, an unknown name
        return False if certain else UNMANAGED


def _speaks(raw: socket.socket, listener: Listener) -> bool:
    if not listener.tls_implicit:
        return _greets(raw, listener.protocol)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # whether it answers, not who
    try:
        with context.wrap_socket(raw) as encrypted:
            with contextlib.suppress(OSError):  # the handshake is the proof
                _greets(encrypted, listener.protocol)
            return True
    except (ssl.SSLError, OSError):
        return False


def _greets(connection: socket.socket, protocol: str) -> bool:
    if protocol == "http":
        connection.sendall(b"GET /healthz/live HTTP/1.0\r\nHost: localhost\r\n\r\n")
        return bool(connection.recv(64))
    greeting, leave = _GREETINGS.get(protocol, (b"", b""))
    said = connection.recv(512)
    with contextlib.suppress(OSError):
        connection.sendall(leave)
        connection.recv(512 if leave else 0)  # wait for the farewell, so that nobody counts this as a broken session
    return bool(said) and said.startswith(greeting)
