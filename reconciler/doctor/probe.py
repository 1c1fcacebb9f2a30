"""The probe: a mail that each service's login sends, as services do, and that is read back from the mailbox it went to.

It goes along with the one conversation that `talks` has with each mail server: the login is not made a second time. The
mailbox is opened with its owner's own password, once. What was sent is taken out again.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime

from reconciler import fence
from reconciler.checks.check import Unread
from reconciler.checks.evidence import Conversation, Probe, Signed
from reconciler.desired.derivation import account_login, resolve
from reconciler.dkim.verification import MailSignature, signatures, verify
from reconciler.dns.publication import Answer, Question
from reconciler.names import host
from reconciler.problem import Problem, ReconcilerError, TargetUnreadable, printable
from reconciler.resources import SecretRef
from reconciler.secrets.schemes import understood
from reconciler.stack import Stack
from reconciler.targets.stalwart import Stalwart
from reconciler.targets.stalwart.mailbox import MARK, Found, Mailbox
from reconciler.traffic import Fate, Message, Recipient, follow

PATIENCE = 30.0  # seconds until a mail should lie in a mailbox of the server that took it
FAR = 90.0  # and until one that goes through a provider should
_TRY = 5.0  # seconds in which our server has tried a mail once
_PAUSES = (0.05, 0.1, 0.2, 0.5)  # seconds between looks, then the last one again and again
_TEXT = """\
This mail was sent by `reconciler doctor --probe` to see whether mail arrives.
It is taken out of the mailbox when it was read. You may delete it.
"""


@dataclass(frozen=True, slots=True)
class Inbox:
    """Where test mails go: an address, and the login of its mailbox where that is ours to read.

    ``since`` is the mailbox's state before anything was sent, ``unread`` why it can't be read.
    """

    address: str
    account: str = ""
    login: str = ""
    password: SecretRef | None = None
    since: str = ""
    unread: str = ""


@dataclass(frozen=True, slots=True)
class Draft:
    """A test mail before it is known who sends it."""

    inbox: Inbox

    def written(self, sender: str) -> tuple[str, bytes]:
        """Return a token that no other mail has, and the mail (RFC 5322) with it in Subject, Message-ID and `MARK`."""
        token = f"probe-{secrets.token_hex(8)}"
        mail = EmailMessage(policy=SMTP)
        mail["From"] = f"reconciler doctor <{sender}>"
        mail["To"] = self.inbox.address
        mail["Subject"] = f"reconciler doctor {token}"
        mail["Date"] = format_datetime(datetime.now(UTC))
        mail["Message-ID"] = f"<{token}@{sender.rpartition('@')[2]}>"
        mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: nobody's absence answers it
        mail[MARK] = token
        mail.set_content(_TEXT, cte="7bit")
        return token, mail.as_bytes()


def inbox(stack: Stack, address: str) -> Inbox:
    """Say where test mails go: to this address, or without one to a declared mailbox that can be read.

    Raises `ReconcilerError` for what is no address, and where no mailbox can be read.
    """
    spec = stack.spec
    held = {name: entry for name, entry in spec.accounts.items() if isinstance(entry.password, SecretRef)}
    if address:
        local, at, domain = address.rpartition("@")
        if not (local and at and "." in domain and address.isascii() and address.isprintable() and " " not in address):
            raise ReconcilerError(Problem(f"--probe {printable(address)}", "is no e-mail address", "write NAME@DOMAIN"))
        wanted = f"{local.lower()}@{host(domain)}"
        for name, entry in held.items():
            if wanted in (name.lower(), *(str(alias).lower() for alias in entry.aliases or ())):
                return _ours(stack, wanted, name)
        return Inbox(wanted)
    mailboxes = [name for name in held if "@" in name]
    if not mailboxes:
        hint = "name one: doctor --probe ADDRESS"
        raise ReconcilerError(Problem("--probe", "no account with a mailbox and a password is declared", hint))
    first = min(mailboxes, key=lambda name: (not name.startswith("postmaster@"), name))
    return _ours(stack, first.lower(), first)


def _ours(stack: Stack, address: str, name: str) -> Inbox:
    entry = stack.spec.accounts[name]
    login = account_login(name, entry) if stack.generation == "rest" else name
    return Inbox(address, name, login, resolve(stack.spec, entry.password) if entry.password else None)


def opened(stack: Stack, inbox: Inbox) -> Inbox:
    """Note how the mailbox is before anything is sent, or why it can't be read. Never raises for a system's fault."""
    server = stack.targets.get("stalwart")
    if not inbox.account or not isinstance(server, Stalwart):
        return inbox
    try:
        with server.mailbox(stack.secrets, inbox.login, _password(stack, inbox)) as box:
            return replace(inbox, since=box.state())
    except ReconcilerError as error:
        return replace(inbox, unread="; ".join(item.summary for item in error.problems))


# -------------------------------------------------------------------------------------------------------- reading back
def gather(
    stack: Stack, inbox: Inbox, talks: Sequence[Conversation] | Unread | None, began: datetime
) -> tuple[Probe, ...] | Unread:
    """Read back what conversations have handed in since ``began``; why nothing was, where nothing was."""
    if isinstance(talks, Unread):
        return talks
    if not talks:
        return Unread("no service sends mail, or no compose project is known: nobody's login could be used")
    probes = tuple(_begun(talk, inbox) for talk in talks)
    server = stack.targets.get("stalwart")
    if isinstance(server, Stalwart) and any(probe.taken for probe in probes):
        probes = tuple(_read_back(stack, server, inbox, probes))
        probes = tuple(_followed(stack, server, probes, began))
    return _verified(stack, probes)


def _begun(talk: Conversation, inbox: Inbox) -> Probe:
    refused = talk.sending is not None and talk.sending[0] >= 300  # noqa: PLR2004 (RFC 5321)
    why = talk.closed or talk.tls_failure or talk.untried or ("its From is refused" if refused else "")
    return Probe(
        where=talk.where,
        services=talk.services,
        sender=talk.sender,
        recipient=inbox.address,
        token=talk.token,
        answer=talk.posted,
        unsent=why or ("who sends is not known" if not talk.sender else "its login is refused"),
        account=talk.account,
        mailbox=inbox.account,
    )


def _read_back(stack: Stack, server: Stalwart, inbox: Inbox, probes: Sequence[Probe]) -> Iterator[Probe]:
    """Look for each mail in the mailbox."""
    if not inbox.account or inbox.unread:
        yield from (replace(probe, unread=inbox.unread) for probe in probes)
        return
    try:
        with server.mailbox(stack.secrets, inbox.login, _password(stack, inbox)) as box:
            found = [_looked_for(stack, box, probe, inbox.since) if probe.taken else probe for probe in probes]
            found = [replace(probe, last=_last(box, probe.sender)) for probe in found]
    except ReconcilerError as error:
        why = "; ".join(item.summary for item in error.problems)
        found = [replace(probe, unread=why) for probe in probes]
    yield from found


def _password(stack: Stack, inbox: Inbox) -> str:
    """Reveal the password in clear. Raises `ReconcilerError`, also for a hash, with which nobody logs in."""
    if inbox.password is None:
        raise ReconcilerError(Problem(inbox.account, "its password is not declared"))
    try:
        value, is_hash = understood(stack.secrets(inbox.password))
    except ValueError as error:
        raise ReconcilerError(Problem(str(inbox.password), str(error))) from None
    if is_hash:
        raise ReconcilerError(Problem(str(inbox.password), "is a hash, with which nobody can log in"))
    return value


def _looked_for(stack: Stack, box: Mailbox, probe: Probe, since: str) -> Probe:
    began = time.monotonic()
    patience, turn = PATIENCE if probe.account else FAR, 0
    while True:
        found = box.find(probe.token, since)
        waited = time.monotonic() - began
        if found is not None:
            return _taken(box, replace(probe, waited=waited), found)
        pause = _PAUSES[min(turn, len(_PAUSES) - 1)]
        if waited + pause > patience or not fence.wait(pause):
            return replace(probe, waited=waited)
        stack.progress(f"Waiting for the mail through {probe.where} ({waited:.0f} s)")
        turn += 1


def _last(box: Mailbox, sender: str) -> bytes | None:
    found = box.last(sender.lower()) if sender else None
    return box.read(found) if found else None


def _taken(box: Mailbox, probe: Probe, found: Found) -> Probe:
    raw = box.read(found)
    try:
        left = box.remove(found)
    except TargetUnreadable as error:
        left = error.problems[0].summary
    return replace(probe, raw=raw, folder=found.folder, left=left)


def _followed(stack: Stack, server: Stalwart, probes: Sequence[Probe], began: datetime) -> Iterator[Probe]:
    """Say of mail that was not read what our server tells of it; it is given the time for a first try."""
    missing = {probe.token for probe in probes if probe.taken and probe.raw is None}
    found, why, until, turn = dict[str, Recipient](), "", time.monotonic() + _TRY, 0
    while missing and not why:
        try:
            waiting, lines = server.traffic(stack.secrets, logs=True)
        except ReconcilerError as error:
            why = f"the server's queue and log can't be read: {error.problems[0].summary}"
            break
        messages = follow(lines or (), waiting, began)
        found = {probe.token: item for probe in probes if (item := _fate(messages, probe)) is not None}
        settled = {token for token, item in found.items() if item.fate is not Fate.QUEUED}
        pause = _PAUSES[min(turn, len(_PAUSES) - 1)]
        if missing <= settled or time.monotonic() + pause > until or not fence.wait(pause):
            break
        turn += 1
    for probe in probes:
        yield replace(probe, fate=found.get(probe.token), untold=why) if probe.token in missing else probe


def _fate(messages: Sequence[Message], probe: Probe) -> Recipient | None:
    """Find what became of a mail: by its id, which our server answered, else by sender and recipient."""
    number = probe.answer[1].rpartition("id ")[2].rstrip(".") if probe.answer and probe.account else ""
    for message in reversed(messages):
        if number == f"{message.id:x}" if number else message.sender == probe.sender:
            found = [item for item in message.recipients if item.address == probe.recipient]
            if found:
                return found[0]
    return None


# ---------------------------------------------------------------------------------------------------------- signatures
def _verified(stack: Stack, probes: Sequence[Probe]) -> tuple[Probe, ...]:
    """Verify every signature with the keys that name servers show."""
    named = {probe: signatures(probe.raw or b"") for probe in probes}
    answers = stack.look({Question(item.place, "TXT") for found in named.values() for item in found})
    now = datetime.now(UTC)
    return tuple(
        replace(
            probe, signatures=tuple(_signed(item, answers.get(Question(item.place, "TXT"), ()), now) for item in found)
        )
        for probe, found in named.items()
    )


def _signed(signature: MailSignature, shown: Sequence[Answer], now: datetime) -> Signed:
    """Verify one signature by what each name server shows; one of them suffices to make it wrong."""
    made = Signed(signature.domain, signature.selector, signature.algorithm, "unread", "")
    heard = [item for item in shown if not item.unread]
    if not heard:
        return replace(made, words="; ".join(f"{item.server}: {item.unread}" for item in shown) or "no name server")
    found = [(verify(signature, item.values, now), item.server) for item in heard]
    verdict, server = next((pair for pair in found if pair[0].state != "valid"), found[0])
    return replace(made, state=verdict.state, words=verdict.words.replace("DNS", server))
