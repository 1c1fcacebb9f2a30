"""The moment by which something has to be over, whatever the other side does, and a connection made before it."""

from __future__ import annotations

import socket
import time
from ipaddress import ip_address

from reconciler.url import Admits, ip, is_loopback

_LOOPBACK = ("127.0.0.1", "::1")


class Deadline:
    """What is left of some ``seconds``, and of some ``bytes`` that may come in meanwhile."""

    def __init__(self, seconds: float, largest: float = float("inf")) -> None:
        self._at = time.monotonic() + seconds
        self._left = largest
        self.received = 0

    def left(self, at_most: float | None = None) -> float:
        """Return how many seconds to wait for something. Raises `TimeoutError` when all are over."""
        seconds = self._at - time.monotonic()
        if seconds <= 0:
            raise TimeoutError("timed out")
        return seconds if at_most is None else min(seconds, at_most)

    @property
    def over(self) -> bool:
        """Whether nothing is left of the time."""
        return time.monotonic() >= self._at

    def receive(self, connection: socket.socket, count: int, at_most: float | None = None) -> bytes:
        """Receive at most ``count`` bytes; none at the end. Raises `TimeoutError`, `TooMuch` and OSError."""
        connection.settimeout(self.left(at_most))
        data = connection.recv(count)
        self.received += len(data)
        if self.received > self._left:
            raise TooMuch("sends more than was asked for")
        return data

    def send(self, connection: socket.socket, data: bytes, at_most: float | None = None) -> None:
        """Send all of it, each part within ``at_most`` seconds. Raises OSError."""
        rest = memoryview(data)
        while rest:
            connection.settimeout(self.left(at_most))
            rest = rest[connection.send(rest) :]

    def connect(self, host: str, port: int, each: float | None = None, admits: Admits | None = None) -> socket.socket:
        """Connect to a parsed host by TCP, trying each of its addresses for at most ``each`` seconds. Raises OSError.

        `localhost` and names below it are this machine without asking anybody (RFC 6761). Where ``admits`` is given,
        a name that leads elsewhere raises `Elsewhere` before anything is sent.
        """
        failed: OSError = OSError("the name has no address")
        for family, address in _resolved(host, port):
            if admits is not None and not admits(ip_address(str(address[0]).partition("%")[0])):
                failed = Elsewhere(f"leads to {address[0]}, which is neither this machine nor a container network")
                continue
            connection = socket.socket(family, socket.SOCK_STREAM)
            try:
                connection.settimeout(self.left(each))
                connection.connect(address)
            except OSError as error:
                connection.close()
                failed = error
            else:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return connection
        raise failed


class TooMuch(OSError):
    """The other side sends more than any answer that is meant well."""


class Elsewhere(OSError):
    """A name leads to where it must not."""


def _resolved(host: str, port: int) -> list[tuple[int, tuple[str, int]]]:
    names = _LOOPBACK if ip(host) is None and is_loopback(host) else (host,)
    found = [item for name in names for item in socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)]
    return [(item[0], item[4]) for item in found]  # type: ignore[misc]  # (of TCP both are address and port)
