"""A real SMTP server for the proof of credentials."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from reconciler.resources import Login, SecretRef


class _AnyPort(Controller):
    """The controller, which does not know the port that the kernel chose for 0."""

    def _trigger_server(self) -> None:
        assert self.server is not None
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()


@dataclass
class MailServer:
    """A real SMTP server with STARTTLS and AUTH; ``attempts`` are the logins that it saw."""

    port: int
    attempts: list[tuple[str, str]]

    def login(self, secret: str = "NEW", host: str = "localhost", *, verify_tls: bool = False) -> Login:
        return Login(host, self.port, "noreply", SecretRef("env", secret), verify_tls)


def self_signed(directory: Path, *names: str) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    now = dt.datetime.now(dt.UTC)
    alternatives: list[x509.GeneralName] = [x509.DNSName(item) for item in names]
    alternatives.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = directory / "cert.pem", directory / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


Serve = Callable[..., MailServer]


@pytest.fixture
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Start mail servers that accept one password."""
    controllers = []

    def start(password: str, *, tls: bool = True, auth: bool = True, **options: Any) -> MailServer:
        attempts: list[tuple[str, str]] = []

        def authenticate(_server: SMTP, _session: Any, _envelope: Any, _mechanism: str, data: Any) -> AuthResult:
            assert isinstance(data, LoginPassword)
            attempts.append((data.login.decode(), data.password.decode()))
            if data.password.decode() == password:
                return AuthResult(success=True)
            return AuthResult(success=False, handled=False, message="535 5.7.8 Authentication credentials invalid.")

        context = None
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self_signed(tmp_path_factory.mktemp("tls"), "localhost", "stalwart"))
        extra = {"authenticator": authenticate} if auth else {"auth_exclude_mechanism": ["LOGIN", "PLAIN"]}
        controller = _AnyPort(
            object(), hostname="127.0.0.1", port=0, tls_context=context, auth_require_tls=tls, **extra, **options
        )
        controllers.append(controller)
        controller.start()
        return MailServer(controller.port, attempts)

    yield start
    for controller in controllers:
        controller.stop()
