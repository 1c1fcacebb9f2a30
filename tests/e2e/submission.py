"""Submission servers with a defect each: aiosmtpd where it can be, a script where no server would do so."""

from __future__ import annotations

import contextlib
import datetime as dt
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

NAME = "mail.mana.how"


def certificate(folder: Path, *, name: str = NAME, days: int = 365) -> tuple[Path, Path]:
    """Make a self-signed certificate that ends in so many days; return the files of it and of its key."""
    key, now = ec.generate_private_key(ec.SECP256R1()), dt.datetime.now(dt.UTC)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=400))
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = folder / f"{name}.{days}.pem", folder / f"{name}.{days}.key"
    files[0].write_bytes(made.public_bytes(Encoding.PEM))
    files[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return files


@dataclass
class Behaviour:
    """What a server does otherwise than a healthy one. ``auth``, ``mail`` and so on are answers in place of success.

    ``deliver`` gets what was handed in: sender, recipients, and the mail with CRLF.
    """

    name: str = NAME
    tls: bool = True
    offers: bool = True
    auth: str = ""
    mail: str = ""
    rcpt: str = ""
    data: str = ""
    deliver: Callable[[str, list[str], bytes], object] = lambda *_: None


class _Handler:
    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour

    async def handle_MAIL(self, _s: SMTP, _session: Session, envelope: Envelope, address: str, options: Any) -> str:
        if self.behaviour.mail:
            return self.behaviour.mail
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 OK"

    async def handle_RCPT(self, _s: SMTP, _session: Session, envelope: Envelope, address: str, _o: Any) -> str:
        if self.behaviour.rcpt:
            return self.behaviour.rcpt
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _s: SMTP, _session: Session, envelope: Envelope) -> str:
        if self.behaviour.data:
            return self.behaviour.data
        assert isinstance(envelope.content, bytes)
        self.behaviour.deliver(str(envelope.mail_from), list(envelope.rcpt_tos), envelope.content)
        return "250 2.0.0 OK: queued"


class _Server(Controller):
    def __init__(self, behaviour: Behaviour, files: tuple[Path, Path]) -> None:
        self.logins = 0
        self._behaviour, self._context = behaviour, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(*files)
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        super().__init__(_Handler(behaviour), hostname="127.0.0.1", port=port, ready_timeout=30)

    def factory(self) -> SMTP:
        behaviour = self._behaviour
        return SMTP(
            self.handler,
            hostname=behaviour.name,
            ident="ESMTP",
            tls_context=self._context if behaviour.tls else None,
            authenticator=self._login,
            auth_require_tls=True,
            auth_exclude_mechanism=[] if behaviour.offers else ["LOGIN", "PLAIN"],
        )

    def _login(self, *_: Any) -> AuthResult:
        self.logins += 1
        answer = self._behaviour.auth
        return AuthResult(success=not answer, handled=False, message=answer or None)


@contextlib.contextmanager
def submission(behaviour: Behaviour, files: tuple[Path, Path]) -> Iterator[tuple[int, Callable[[], int]]]:
    """Run a server; yields its port, and how many logins were tried."""
    server = _Server(behaviour, files)
    server.start()
    try:
        yield server.port, lambda: server.logins
    finally:
        server.stop()


@contextlib.contextmanager
def scripted(talk: Callable[[socket.socket, int], None]) -> Iterator[int]:
    """Serve each connection by a function, which is given the socket and how many came before; yields the port."""
    listening = socket.create_server(("127.0.0.1", 0))
    count = 0

    def serve() -> None:
        nonlocal count
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listening.accept()
                number, count = count, count + 1
                threading.Thread(target=handle, args=(connection, number), daemon=True).start()

    def handle(connection: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError), connection:
            connection.settimeout(5)
            talk(connection, number)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield listening.getsockname()[1]
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
