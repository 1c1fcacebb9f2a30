"""The sockets of the fake Stalwart: real TCP ports on loopback that speak as much SMTP as a submission needs."""

from __future__ import annotations

import base64
import binascii
import contextlib
import datetime as dt
import functools
import socket
import socketserver
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reconciler.simulator.stalwart.post import Handed
from reconciler.simulator.wire import Prompt

_TLS_HELLO = b"\x16\x03"


@dataclass(frozen=True, slots=True)
class Listener:
    """A listener as stored: ``binds`` are ``ADDRESS:PORT``."""

    name: str
    protocol: str
    binds: tuple[str, ...]
    tls: bool


@dataclass(frozen=True, slots=True)
class Door:
    """What a connection asks the server about: each takes the client's address first."""

    is_blocked: Callable[[str], bool]
    login: Callable[[str, str, str], list[str] | None]  # user, secret; the addresses, or @DOMAIN, to send from
    scan: Callable[[str], object]  # something only a scanner sends
    hostname: Callable[[], str]  # what it calls itself
    recipient: Callable[[str], str] = lambda _: "250 2.1.5 OK"  # the answer to RCPT TO
    take: Callable[[Handed], str] = lambda _: "250 2.0.0 OK"  # the answer to the end of DATA


def bind_port(bind: str) -> int:
    """Return the port of ``ADDRESS:PORT``, 0 when there is none."""
    port = bind.rpartition(":")[2]
    return int(port) if port.isdigit() else 0


class Sockets:
    """The open ports. ``ports`` maps a declared port to the one that is really open.

    A declared port from 1024 up is taken itself when it is free; any other gets a port of the system's choice, and
    keeps it when it is opened again.
    """

    def __init__(self, host: str, door: Door, name: str = "localhost") -> None:
        """Remember where to listen; ``name`` is the host that the certificate is for."""
        self.host = host
        self.name = name
        self.door = door
        self.latency = 0.0  # seconds, added to every answer
        self.ports: dict[int, int] = {}
        self._servers: list[_Port] = []
        self._chosen: dict[int, int] = {}

    def choose(self, port: int) -> int:
        """Choose a free port for a declared one that is not open yet, and return it."""
        if port not in self._chosen:
            with socket.create_server((self.host, 0)) as server:
                self._chosen[port] = server.getsockname()[1]
        return self._chosen[port]

    def open(self, listeners: Iterable[Listener]) -> None:
        """Open the ports of these listeners, after closing all others."""
        self.close()
        for listener in listeners:
            for port in {bind_port(bind) for bind in listener.binds} - {0, *self.ports}:
                server = self._bind(port, listener)
                self._servers.append(server)
                self.ports[port] = self._chosen[port] = server.server_address[1]
                threading.Thread(target=server.serve_forever, daemon=True).start()

    def _bind(self, port: int, listener: Listener) -> _Port:
        try:
            wanted = self._chosen.get(port, port if port >= 1024 else 0)
            return _Port(self.host, wanted, listener, self)
        except OSError:
            return _Port(self.host, 0, listener, self)

    def close(self) -> None:
        """Close all ports."""
        for server in self._servers:
            server.shutdown()
            server.server_close()
        self._servers.clear()
        self.ports.clear()


class _Port(Prompt, socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False

    def __init__(self, host: str, port: int, listener: Listener, sockets: Sockets) -> None:
        self.listener, self.door, self.name, self.sockets = listener, sockets.door, sockets.name, sockets
        super().__init__((host, port), _Connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep a client's broken connection out of the output."""


class _Connection(socketserver.BaseRequestHandler):
    server: _Port

    def handle(self) -> None:
        self.client: str = self.client_address[0]
        self.connection: socket.socket = self.request
        self.senders: list[str] | None = None
        self.user, self.sender, self.recipients = "", "", list[str]()
        if self.server.listener.protocol != "smtp" or self.server.door.is_blocked(self.client):
            return  # the port answers, and that is all
        with contextlib.suppress(OSError, ssl.SSLError), contextlib.ExitStack() as stack:
            self.encrypted = self.server.listener.tls
            if self.encrypted:
                self._start_tls(stack)
            else:
                self._plain(stack)
            self._converse(stack)

    def _plain(self, stack: contextlib.ExitStack) -> None:
        self.lines = stack.enter_context(self.connection.makefile("rb"))

    def _start_tls(self, stack: contextlib.ExitStack) -> None:
        self.connection = stack.enter_context(_tls(self.server.name).wrap_socket(self.connection, server_side=True))
        self.encrypted = True
        self._plain(stack)

    def _say(self, text: str) -> None:
        time.sleep(self.server.sockets.latency)
        self.connection.sendall(f"{text}\r\n".encode())

    def _converse(self, stack: contextlib.ExitStack) -> None:
        self._say(f"220 {self.server.door.hostname()} Stalwart ESMTP at your service")
        while first := self.lines.peek(len(_TLS_HELLO)):  # a hello may hold no line's end, and its sender be gone
            if first.startswith(_TLS_HELLO):
                self.server.door.scan(self.client)
                return
            line = self.lines.readline(1024)
            word, _, rest = line.decode(errors="replace").strip().partition(" ")
            match word.upper():
                case "EHLO" | "HELO":
                    self._greet()
                case "STARTTLS" if not self.encrypted:
                    self._say("220 2.0.0 Ready to start TLS.")
                    self._start_tls(stack)
                case "AUTH" if self.encrypted:
                    if not self._auth(rest):
                        return
                case "MAIL":
                    self._mail(rest)
                case "RCPT":
                    self._recipient(rest)
                case "DATA":
                    self._data()
                case "NOOP" | "RSET":
                    self.sender, self.recipients = "", []
                    self._say("250 2.0.0 OK")
                case "QUIT":
                    self._say("221 2.0.0 Bye.")
                    return
                case _:
                    self._say("500 5.5.1 Invalid command.")

    def _greet(self) -> None:
        """Offer AUTH only over TLS and not on port 25, as the default expression does."""
        submission = all(bind_port(bind) != 25 for bind in self.server.listener.binds)
        words = [f"{self.server.door.hostname()} you had me at EHLO", *([] if self.encrypted else ["STARTTLS"])]
        words += ["AUTH PLAIN LOGIN"] if self.encrypted and submission else []
        words.append("ENHANCEDSTATUSCODES")
        lines = list[str]()
        for word in words[:-1]:
            lines.append(f"250-{word}")
        self._say("\r\n".join([*lines, f"250 {words[-1]}"]))

    def _auth(self, rest: str) -> bool:
        """Try a login, and say whether the conversation goes on: it ends with a ban."""
        mechanism, _, initial = rest.partition(" ")
        try:
            if mechanism.upper() == "PLAIN":
                _, user, secret = self._answer("", initial).split("\0")
            else:
                user, secret = self._answer("VXNlcm5hbWU6", initial), self._answer("UGFzc3dvcmQ6", "")
        except (ValueError, binascii.Error):
            self._say("501 5.5.2 Invalid response.")
            return True
        self.senders = self.server.door.login(self.client, user, secret)
        if self.senders is not None:
            self.user = user
            self._say("235 2.7.0 Authentication succeeded.")
        elif not self.server.door.is_blocked(self.client):
            self._say("535 5.7.8 Authentication credentials invalid.")
        else:
            return False
        return True

    def _answer(self, challenge: str, initial: str) -> str:
        if not initial:
            self._say(f"334 {challenge}")
            initial = self.lines.readline(1024).decode().strip()
        return base64.b64decode(initial, validate=True).decode()

    def _mail(self, rest: str) -> None:
        address = rest.partition("<")[2].partition(">")[0].lower()
        if self.senders is None:
            self._say("503 5.5.1 You must authenticate first.")
        elif not {address, f"@{address.rpartition('@')[2]}"} & set(self.senders):
            self._say("501 5.5.4 You are not allowed to send from this address.")
        else:
            self.sender = address
            self._say("250 2.1.0 OK")

    def _recipient(self, rest: str) -> None:
        address = rest.partition("<")[2].partition(">")[0].lower()
        if not self.sender:
            self._say("503 5.5.1 MAIL is required first.")
            return
        answer = self.server.door.recipient(address)
        if answer.startswith("2"):
            self.recipients.append(address)
        self._say(answer)

    def _data(self) -> None:
        if not self.recipients:
            self._say("503 5.5.1 RCPT is required first.")
            return
        self._say("354 Start mail input; end with <CRLF>.<CRLF>")
        lines = list[bytes]()
        while (line := self.lines.readline(65536)) not in (b".\r\n", b""):
            lines.append(line.removeprefix(b"."))
        port = min((bind_port(bind) for bind in self.server.listener.binds), default=0)
        handed = Handed(
            self.client,
            self.server.listener.name,
            port,
            self.user,
            self.sender,
            tuple(self.recipients),
            b"".join(lines),
        )
        self.sender, self.recipients = "", []
        self._say(self.server.door.take(handed))


@functools.cache
def certificate(host: str) -> tuple[bytes, bytes]:
    """Make a certificate of its own signature, as a server without another has: certificate and key, both PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=365))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(Encoding.PEM), key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@functools.cache
def _tls(host: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tls.pem"
        path.write_bytes(b"".join(certificate(host)))
        context.load_cert_chain(path)
    return context
