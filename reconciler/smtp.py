"""One SMTP session as a service has it: bounded in time and size, its way apart from the name that it checks."""

from __future__ import annotations

import base64
import smtplib
import socket
import ssl
from typing import Any

from reconciler import heartbeat, url
from reconciler.deadline import Deadline

_TIMEOUT = 5.0  # seconds for a connection, and for each answer as a whole
_VERDICT = 30.0  # seconds for the answer to AUTH, as servers make who guesses wait, and to a mail
_SESSION = 60.0  # seconds for all of it
_LARGEST = 1 << 16  # bytes of one answer; a real one has some hundred

Door = tuple[str, int]
"""Where a server is reached from here: host and port."""


class Session(smtplib.SMTP):
    """A session whose socket leads to a ``door``, while the certificate has to be that of the declared ``host``.

    Where not ``verify``, any certificate will do. ``tls`` is ``starttls``, ``implicit`` (RFC 8314) or ``none``. Making
    one connects, and raises OSError, `smtplib.SMTPException`, and `ssl.SSLError` where TLS fails.
    """

    def __init__(self, host: str, port: int, door: Door, *, verify: bool, tls: str) -> None:
        self._door, self._tls = door, tls
        self._context = _context(verify=verify)
        self.banner = b""
        heartbeat.waiting(_SESSION)
        self._deadline, self.patience = Deadline(_SESSION), _TIMEOUT
        super().__init__(url.host(host), port, local_hostname="localhost.localdomain", timeout=_TIMEOUT)

    def connect(self, *arguments: Any, **named: Any) -> tuple[int, bytes]:
        """Connect, and keep what the server greets with."""
        code, self.banner = super().connect(*arguments, **named)
        return code, self.banner

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:  # noqa: ARG002 (smtplib calls it so)
        connection = self._deadline.connect(*self._door, each=timeout)
        if self._tls != "implicit":
            return connection
        try:
            return self._context.wrap_socket(connection, server_hostname=host)
        except BaseException:
            connection.close()
            raise

    def send(self, s: Any) -> None:
        """Send a command, and wait no longer than for an answer."""
        if self.sock is not None:
            self.sock.settimeout(self._deadline.left(self.patience))
        super().send(s)

    def getreply(self) -> tuple[int, bytes]:
        """Read one answer, however many lines it has, within its bounds of time and size."""
        if self.file is None and self.sock is not None:  # a new one where TLS has begun
            self.file = _Lines(self.sock)
        if isinstance(self.file, _Lines):
            self.file.deadline = Deadline(self._deadline.left(self.patience), _LARGEST)
        return super().getreply()

    def secure(self) -> bool:
        """Go over to TLS where it is wanted and not on yet; False when the server offers none."""
        if self.ehlo_resp is None:
            self.ehlo()
        if self._tls != "starttls":
            return True
        if not self.has_extn("starttls"):
            return False
        self.starttls(context=self._context)
        self.ehlo()
        return True

    @property
    def mechanisms(self) -> tuple[str, ...]:
        """What the server offers as AUTH."""
        return tuple(self.esmtp_features.get("auth", "").upper().split())

    def authenticate(self, username: str, password: str) -> tuple[int, bytes]:
        """Send the credentials once. `smtplib.SMTP.login` tries every mechanism in turn, and a server counts each."""
        self.patience = _VERDICT
        if "PLAIN" in self.mechanisms:  # RFC 4616
            message = _encode(f"\0{username}\0{password}")
            answer = self.docmd("AUTH", f"PLAIN {message}")
        else:
            answer = self.docmd("AUTH", "LOGIN")
            for text in (username, password):
                if answer[0] != 334:  # noqa: PLR2004 (RFC 4954: the server is ready for the next part)
                    break
                answer = self.docmd(_encode(text))
        self.patience = _TIMEOUT
        return answer

    def post(self, recipient: str, message: bytes) -> tuple[int, bytes]:
        """Hand in a mail to one recipient, behind a MAIL FROM that was accepted; returns the last answer.

        One that refuses the recipient is followed by RSET.
        """
        answer = self.rcpt(recipient)
        if answer[0] // 100 != 2:  # noqa: PLR2004 (RFC 5321 section 4.2.1)
            self.rset()
            return answer
        self.patience = _VERDICT
        try:
            return self.data(message)
        except smtplib.SMTPDataError as error:
            return error.smtp_code, error.smtp_error if isinstance(error.smtp_error, bytes) else b""
        finally:
            self.patience = _TIMEOUT


class _Lines:
    """What `smtplib` reads lines from: a file of a socket would wait anew for every byte."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection, self._rest = connection, b""
        self.deadline = Deadline(0.0)

    def readline(self, limit: int) -> bytes:
        """Return the next line, or what there is of it at its limit or at the end. Raises OSError."""
        while b"\n" not in self._rest[:limit] and len(self._rest) < limit:
            data = self.deadline.receive(self._connection, limit)
            if not data:
                break
            self._rest += data
        end = min(limit, self._rest.find(b"\n") + 1 or limit)
        line, self._rest = self._rest[:end], self._rest[end:]
        return line

    def close(self) -> None:
        """Leave the socket to the session."""


def _context(*, verify: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def why_closed(error: Exception) -> str:
    """Say why there was no conversation, for a person."""
    if isinstance(error, smtplib.SMTPServerDisconnected | ConnectionResetError):
        return "ends the connection"
    return short(error)


def short(error: Exception) -> str:
    """Say what went wrong on the way, as the system calls it."""
    if isinstance(error, TimeoutError):
        return "does not answer"
    return getattr(error, "strerror", None) or type(error).__name__
