"""Has one conversation with each mail server that services use, as they do: one AUTH an account, EHLO and QUIT always.

A mail server bans who guesses or hurries. Nothing but SMTP is sent, at most three connections are made to a server, one
after the other, and a login that was refused before is not tried.
"""

from __future__ import annotations

import contextlib
import functools
import re
import smtplib
import ssl
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from email.utils import parseaddr
from typing import TYPE_CHECKING, Any

from reconciler.checks.check import Unread
from reconciler.checks.evidence import Certificate, Conversation
from reconciler.desired.derivation import provider_logins
from reconciler.desired.presets import tls_mode
from reconciler.doctor.together import together
from reconciler.plan import Plan
from reconciler.problem import SecretUnreadable, printable
from reconciler.resources import Login, SecretRef, Special, Variable
from reconciler.smtp import Door, Session, why_closed
from reconciler.stack import Stack

if TYPE_CHECKING:
    from reconciler.doctor.probe import Draft
    from reconciler.targets.compose.doors import Doors

_AGAIN = 3.0  # seconds until a second try tells a rate limit (5 a second) from a ban
_SAID = 200  # characters of an answer that are shown
_FROM = re.compile(r"(?:^|[_.])(?:from|sender)(?:$|[_.])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who uses a login: the services, and as whom they send."""

    login: Login
    services: tuple[str, ...]
    sender: str


def gather(stack: Stack, plan: Plan | Unread, draft: Draft | None = None) -> tuple[Conversation, ...] | Unread | None:
    """Talk to every server that a service uses; None where no service sends mail, or no compose project is known.

    With a ``draft`` each login that is accepted hands in one mail of it.
    """
    from reconciler.targets.compose import Compose

    compose, callers = stack.targets.get("compose"), tuple(_callers(stack, plan))
    if not isinstance(compose, Compose):
        return None
    if not callers:
        return _untold(stack, plan)
    by_host: dict[str, list[Caller]] = {}
    for caller in callers:
        by_host.setdefault(caller.login.host, []).append(caller)
    with compose.standing(()) as (_, doors):

        def of_one(some: Sequence[Caller]) -> list[Conversation]:
            return [_held(stack, caller, doors, draft) for caller in some]

        # Hosts side by side, and one conversation after the other with each of them.
        held = together({name: functools.partial(of_one, some) for name, some in by_host.items()})
        return tuple(talk for name in by_host for talk in held[name])


def _untold(stack: Stack, plan: Plan | Unread) -> Unread | None:
    """Say why no login of a service is known, where services are declared that send mail."""
    if not stack.spec.smtp.consumers:
        return None
    if isinstance(plan, Unread):
        return plan
    unread = sorted(plan.unread & {"stalwart", "compose"})
    return Unread(f"how services log in is not known: {' and '.join(unread)} could not be read") if unread else None


def _callers(stack: Stack, plan: Plan | Unread) -> Iterator[Caller]:
    """Yield each login once, with all the services that use it."""
    variables = list(variables_of(stack, plan))
    found: dict[str, dict[str, None]] = {}
    for item in variables:
        if item.login is not None:
            found.setdefault(item.login.provider, {})[item.service] = None
    for provider, services in found.items():
        logins = provider_logins(stack.spec, provider, stack.generation)
        if len(logins) == 1:
            yield Caller(logins[0], tuple(services), _sender(variables, services) or logins[0].account or "")


def variables_of(stack: Stack, plan: Plan | Unread) -> Iterator[Variable]:
    """Yield the variables that services should have: as planned, where the server's generation is known."""
    resources = stack.desired().resources if isinstance(plan, Unread) else (wanted for _, wanted, _ in plan.compared)
    yield from (item for item in resources if isinstance(item, Variable))


def _sender(variables: Sequence[Variable], services: Collection[str]) -> str:
    """Return the address that a service is told to send as, where one of its variables says it in clear."""
    for item in variables:
        text = item.configured
        if item.service in services and _FROM.search(item.name) and isinstance(text, str):
            address = parseaddr(text)[1]
            if "@" in address and address.isascii() and address.isprintable():  # what MAIL FROM can say (RFC 5321)
                return address
    return ""


def _held(stack: Stack, caller: Caller, doors: Doors, draft: Draft | None) -> Conversation:
    login = caller.login
    talk = Conversation(
        where=f"{login.host}:{login.port}",
        services=caller.services,
        account=login.account or "",
        anonymous=login.password is None,
        mode=tls_mode(login.tls, login.port),
        verified=login.verify_tls,
        sender=caller.sender,
    )
    places = doors.of(login)
    if not places:
        return replace(talk, closed="nothing that answers by this name runs in the project")
    talk, door = _greeted(talk, login, places)
    if door is None or (not talk.tls and talk.mode != "none"):
        return talk
    return _trusted(stack, talk, login, doors, door=door, draft=draft)


# --------------------------------------------------------------------------------------------------------- greeting
def _greeted(talk: Conversation, login: Login, places: Sequence[Door]) -> tuple[Conversation, Door | None]:
    """Connect at the first door that opens, and go as far as TLS; no door where that is not reached."""
    closed = []
    for door in places:
        at = f"{door[0]}:{door[1]}"
        try:
            return _secured(replace(talk, door=at), login, door), door
        except ssl.SSLError as error:
            return replace(talk, door=at, banner="TLS", tls_failure=_tls_words(error)), None
        except smtplib.SMTPServerDisconnected:
            return _ended(replace(talk, door=at), login, door)
        except smtplib.SMTPResponseException as error:  # 421, 554: RFC 5321 section 3.1
            said = f"{error.smtp_code} {_text(error.smtp_error)}"
            return replace(talk, door=at, closed=f"it answers {said}"), None
        except (OSError, smtplib.SMTPException) as error:
            closed.append(f"{at} {why_closed(error)}")
    return replace(talk, closed="; ".join(closed)), None


def _secured(talk: Conversation, login: Login, door: Door) -> Conversation:
    with contextlib.closing(Session(login.host, login.port, door, verify=False, tls=talk.mode)) as session:
        talk = replace(talk, banner=_text(session.banner) or "220")
        _, name = session.ehlo()
        talk = replace(talk, name=_text(name).split(" ")[0], starttls=session.has_extn("starttls"))
        try:
            secure = session.secure()
        except (ssl.SSLError, smtplib.SMTPException, OSError) as error:
            return replace(talk, tls_failure=_tls_words(error))
        if not secure or talk.mode == "none":
            return replace(talk, mechanisms=session.mechanisms)
        encrypted: Any = session.sock
        found, version = _read(encrypted.getpeercert(binary_form=True)), encrypted.version()
        talk = replace(talk, tls=version, certificate=found, mechanisms=session.mechanisms)
        with contextlib.suppress(smtplib.SMTPException, OSError):
            session.quit()
        return talk


def _ended(talk: Conversation, login: Login, door: Door) -> tuple[Conversation, Door | None]:
    """The server said nothing: a second try, some seconds later, tells its rate limit from a ban."""
    time.sleep(_AGAIN)
    try:
        later = _secured(talk, login, door)
    except (OSError, smtplib.SMTPException):
        return talk, None
    return replace(later, banner="", later=later.banner), door


def _read(encoded: bytes | None) -> Certificate | None:
    """Read what a server shows; None where it can't be understood."""
    from cryptography import x509

    try:
        found = x509.load_der_x509_certificate(encoded or b"")
    except ValueError:
        return None
    try:
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        hosts = [str(item.value) for item in names]
    except x509.ExtensionNotFound:
        hosts = [str(item.value) for item in found.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)]
    return Certificate(tuple(printable(host) for host in hosts), found.not_valid_after_utc)


# ------------------------------------------------------------------------------------------------------------ login
def _trusted(
    stack: Stack, talk: Conversation, login: Login, doors: Doors, *, door: Door, draft: Draft | None
) -> Conversation:
    """Over the TLS that the service has, log in once: where it looks at the certificate, so do we."""
    credentials, facts, untried = _credentials(stack, login, doors)
    talk = replace(talk, untried=untried)
    try:
        session = Session(login.host, login.port, door, verify=login.verify_tls, tls=talk.mode)
        with contextlib.closing(session):
            if not session.secure():
                return replace(talk, untried="no login was tried: there is no TLS any more")
            talk = _tried(session, talk, credentials, draft=draft, hide=stack.secrets.redact)
            with contextlib.suppress(smtplib.SMTPException, OSError):
                session.quit()
    except ssl.SSLCertVerificationError as error:
        shown = replace(talk.certificate, refused=error.verify_message) if talk.certificate else None
        why = "no login was tried: the service does not trust the certificate, either"
        return replace(talk, certificate=shown, untried=why)
    except (OSError, smtplib.SMTPException) as error:
        why = f"the server {why_closed(error)} before the login was over"
        return talk if talk.login else replace(talk, untried=why)
    if talk.login is not None and 500 <= talk.login[0] < 600:  # noqa: PLR2004 (RFC 5321 section 4.2.1)
        stack.refusals.add(*facts)
    return talk


def _credentials(stack: Stack, login: Login, doors: Doors) -> tuple[tuple[str, str] | None, tuple[str, ...], str]:
    """Return name and password, what a refusal is remembered by, and why there are none to be sent."""
    if doors.is_unsafe(login):
        return None, (), "no login was tried: anybody on the way could pose as the server"
    if login.password is None or login.username is None:
        return None, (), ""
    if isinstance(login.username, Special):
        return None, (), "which name to log in with is not known"
    try:
        name = stack.secrets(login.username) if isinstance(login.username, SecretRef) else login.username
        password = stack.secrets(login.password)
    except SecretUnreadable as error:
        return None, (), str(error)
    facts = (*doors.server(login), name, password)
    if stack.refusals.holds(*facts):
        return None, (), "no login was tried: it was refused before, and a server bans who keeps trying"
    return (name, password), facts, ""


def _tried(
    session: Session,
    talk: Conversation,
    credentials: tuple[str, str] | None,
    *,
    draft: Draft | None,
    hide: Callable[[str], str],
) -> Conversation:
    """Log in, and ask whether the services may send as they do; ``hide`` takes secrets out of the server's words."""
    from reconciler.targets.compose.program import redact

    def words(said: bytes | str) -> str:
        """Take secrets out before anything is cut: half of one is not known for one."""
        return _text(redact(hide(_decoded(said)), (credentials or ())[1:]))

    if credentials is None:
        return _asked(session, talk, words, draft) if talk.anonymous else talk
    if not {"PLAIN", "LOGIN"} & set(session.mechanisms):
        return replace(talk, untried="no login was tried: the server offers none")
    code, said = session.authenticate(*credentials)
    talk = replace(talk, login=(code, words(said)))
    return _asked(session, talk, words, draft) if code == 235 else talk  # noqa: PLR2004 (RFC 4954)


def _asked(
    session: Session, talk: Conversation, words: Callable[[bytes | str], str], draft: Draft | None
) -> Conversation:
    """Ask whether the services may send as they do; then hand in a mail, or take it back."""
    if not talk.sender:
        return talk
    try:
        answer, said = session.mail(talk.sender)
        talk = replace(talk, sending=(answer, words(said)))
        if draft is None or answer // 100 != 2:  # noqa: PLR2004 (RFC 5321 section 4.2.1)
            session.rset()
            return talk
        token, mail = draft.written(talk.sender)
        answer, said = session.post(draft.inbox.address, mail)
        return replace(talk, token=token, posted=(answer, words(said)))
    except (smtplib.SMTPException, OSError) as error:
        return replace(talk, untried=f"the server {why_closed(error)} while a mail was handed in") if draft else talk


# ------------------------------------------------------------------------------------------------------------ words
def _text(said: bytes | str) -> str:
    return printable(_decoded(said), _SAID)


def _decoded(said: bytes | str) -> str:
    text = said.decode(errors="replace") if isinstance(said, bytes) else said
    return text.replace("\n", " ")


def _tls_words(error: Exception) -> str:
    reason = getattr(error, "reason", None)
    return str(reason).replace("_", " ").lower() if reason else why_closed(error)
