"""One SMTP AUTH with new credentials, before any file changes: a mail server bans who guesses, so never a second."""

from __future__ import annotations

import contextlib
import smtplib
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from reconciler import http
from reconciler.desired.presets import tls_mode
from reconciler.problem import Problem
from reconciler.resources import Login, SecretRef
from reconciler.smtp import Door, Session, short, why_closed
from reconciler.targets.compose.program import redact

_API_KEY = "xkeysib-"  # of Brevo, whose SMTP keys begin with xsmtpsib-


@dataclass(frozen=True, slots=True)
class Credentials:
    """A login with its values revealed; it never leaves `prove`."""

    login: Login
    username: str
    password: str

    def __repr__(self) -> str:
        """Name the server only."""
        return f"Credentials({self.login.host}:{self.login.port})"


@dataclass(frozen=True, slots=True)
class Proof:
    """How the attempt ended: ``refused`` stops the switch, ``note`` says why nothing could be proved.

    ``sent`` says that the server got the credentials, and so counted an attempt if it did not like them; ``answered``
    that it said so.
    """

    refused: Problem | None = None
    note: str = ""
    sent: bool = field(default=False, compare=False)
    answered: bool = field(default=True, compare=False)


def prove(credentials: Credentials, doors: Sequence[Door]) -> Proof:
    """Log in once, over the TLS that the consumer is to use, at the first door that opens.

    ``doors`` are the addresses at which the login's server can be tried from here.
    """
    login = credentials.login
    where = f"{login.host}:{login.port}"
    if credentials.password.startswith(_API_KEY):
        return Proof(refused=_api_key(login, where))
    closed = []
    for door in doors:
        try:
            return _attempt(credentials, door, where)
        except ssl.SSLError as error:
            return Proof(refused=_untrusted(login, where, error))
        except (OSError, smtplib.SMTPServerDisconnected, smtplib.SMTPConnectError) as error:
            closed.append(f"{door[0]}:{door[1]} {short(error)}")
        except smtplib.SMTPException as error:
            return Proof(note=f"the login at {where} could not be tried: {type(error).__name__}")
    tried = "; ".join(closed) or "nothing that answers by this name runs in the project"
    return Proof(note=f"the login at {where} could not be tried from here: {tried}")


def greet(login: Login, doors: Sequence[Door]) -> Problem | None:
    """Say hello over the TLS that the consumer is to use, and return why nobody could hand in mail; no login is tried.

    The first door that answers at all decides.
    """
    where, closed = f"{login.host}:{login.port}", []
    for door in doors:
        try:
            return _greeted(login, door, where)
        except ssl.SSLError as error:
            return _untrusted(login, where, error)
        except smtplib.SMTPResponseException as error:  # 421, 554: RFC 5321 sections 3.1 and 3.8
            hint = "see its log: it is stopping, overloaded, or takes nothing from this address"
            return Problem(where, f"the server takes no mail: it answers {error.smtp_code}", hint)
        except (OSError, smtplib.SMTPException) as error:
            closed.append(f"{door[0]}:{door[1]} {why_closed(error)}")
    tried = "; ".join(closed) or "nothing that answers by this name runs in the project"
    return Problem(where, f"no mail server answers: {tried}", "start it; see its log, it may have blocked this address")


def reach(login: Login, doors: Sequence[Door]) -> Proof:
    """Say hello to a server that nobody logs in at: what it refuses is refused, what is silent from here is a note."""
    where, closed = f"{login.host}:{login.port}", []
    for door in doors:
        try:
            return Proof(refused=_greeted(login, door, where))
        except ssl.SSLError as error:
            return Proof(refused=_untrusted(login, where, error))
        except smtplib.SMTPResponseException as error:
            return Proof(
                refused=Problem(where, f"the server takes no mail: it answers {error.smtp_code}", "see its log")
            )
        except (OSError, smtplib.SMTPException) as error:
            closed.append(f"{door[0]}:{door[1]} {why_closed(error)}")
    tried = "; ".join(closed) or "nothing that answers by this name runs in the project"
    return Proof(note=f"the server {where} could not be tried from here: {tried}")


def _session(login: Login, door: Door) -> Session:
    return Session(login.host, login.port, door, verify=login.verify_tls, tls=tls_mode(login.tls, login.port))


def _authenticated(session: Session, credentials: Credentials) -> tuple[int, bytes]:
    answer = session.authenticate(credentials.username, credentials.password)
    with contextlib.suppress(smtplib.SMTPException, OSError):
        session.quit()
    return answer


def _attempt(credentials: Credentials, door: Door, where: str) -> Proof:
    with contextlib.ExitStack() as stack:
        session = _session(credentials.login, door)
        stack.callback(session.close)
        if not session.secure():
            hint = "offer STARTTLS there, or declare the port with implicit TLS (465)"
            return Proof(refused=Problem(where, "the server offers no STARTTLS: the password is not sent", hint))
        mechanisms = session.mechanisms
        if "PLAIN" not in mechanisms and "LOGIN" not in mechanisms:
            return Proof(refused=_no_auth(where, mechanisms))
        try:
            answer = _authenticated(session, credentials)
        except (smtplib.SMTPException, OSError) as error:
            return Proof(refused=_unanswered(where, error), sent=True, answered=False)
        return replace(_judged(credentials, where, *answer), sent=True)


def _greeted(login: Login, door: Door, where: str) -> Problem | None:
    with contextlib.closing(_session(login, door)) as session:
        code, text = session.ehlo()
        if code != 250:  # noqa: PLR2004 (RFC 5321 section 4.3.2)
            raise smtplib.SMTPResponseException(code, text)
        if not session.secure():
            hint = "offer STARTTLS there, or declare the port with implicit TLS (465)"
            return Problem(where, "the server offers no STARTTLS", hint)
        mechanisms = session.mechanisms
        with contextlib.suppress(smtplib.SMTPException, OSError):
            session.quit()
        return None if login.password is None or {"PLAIN", "LOGIN"} & set(mechanisms) else _no_auth(where, mechanisms)


def _judged(credentials: Credentials, where: str, code: int, text: bytes) -> Proof:
    """Read the answer to AUTH, RFC 4954 section 6."""
    named = credentials.login.username
    hidden = (credentials.password, *([credentials.username] if isinstance(named, SecretRef) else []))
    said = http.short(redact(f"{code} {text.decode(errors='replace')}", hidden).replace("\n", " "), 200)
    if code == 235:  # noqa: PLR2004
        return Proof()
    if 400 <= code < 500:  # noqa: PLR2004 (a transient failure proves nothing)
        return Proof(note=f"the login at {where} could not be tried: {said}")
    hint = f"check username and password of {credentials.login.account or named}; nothing was changed"
    return Proof(refused=Problem(where, f"the server refuses the login: {said}", hint))


def _no_auth(where: str, mechanisms: Sequence[str]) -> Problem:
    offered = f"offers only {', '.join(mechanisms)} as AUTH" if mechanisms else "offers no AUTH"
    return Problem(where, f"the server {offered}: nobody can log in there", "is it the submission port (587 or 465)?")


def _api_key(login: Login, where: str) -> Problem:
    hint = f"make an SMTP key at Brevo (SMTP & API) and put it into {login.password}; nothing was sent or changed"
    return Problem(where, f"the password {login.password} is a key for Brevo's API, which SMTP does not take", hint)


def refused_before(login: Login) -> Problem:
    """Say that a login was refused by an earlier run, so that it is not tried a second time."""
    hint = f"correct username or password of {login.account or login.username}; where the server was wrong, a person's "
    hint += "`reconciler apply` or the daemon's SIGHUP tries it again"
    summary = "the server has refused this login, and it is not tried again: a server bans who keeps trying"
    return Problem(f"{login.host}:{login.port}", summary, hint)


def _unanswered(where: str, error: Exception) -> Problem:
    """Judge a server that was reached, and then said nothing to AUTH: no other door is tried, it may count attempts."""
    cause = "gives no answer" if isinstance(error, TimeoutError) else f"ends the connection ({short(error)})"
    hint = "see its log: it may have blocked this address; check the password, then apply again; nothing was changed"
    return Problem(where, f"the server {cause} when the login is tried", hint)


def _untrusted(login: Login, where: str, error: ssl.SSLError) -> Problem:
    if isinstance(error, ssl.SSLCertVerificationError):
        hint = f"give {login.host} a certificate for this name, or set verify_tls: false for this provider"
        return Problem(where, f"the certificate is not trusted: {error.verify_message}", hint)
    cause = (error.reason or type(error).__name__).replace("_", " ").lower()
    return Problem(where, f"TLS fails: {cause}", "is it the right port? 465 begins with TLS, 587 with STARTTLS")
