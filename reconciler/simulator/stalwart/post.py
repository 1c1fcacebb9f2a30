"""What becomes of a mail at the fake Stalwart: it is signed, queued, delivered here or handed on, and each step logged.

One room for both generations, which call some events otherwise. The lines are as the servers write them to the log file
that a first start sets up (``crates/trc/src/serializers/text.rs``; the events, their keys and their order from
``crates/smtp/src/queue/{spool,dsn}.rs`` and ``crates/smtp/src/outbound/*.rs`` of v0.15.5 and v0.16.18): the keys of the
span come first, so that each line of a delivery repeats the id, sender and recipients of its message. Nothing of this
is in the container's log, as in a real one of whose tracers none writes to the console.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import itertools
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from email import message_from_bytes
from email.utils import format_datetime
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

LOCAL = "localhost"  # what a delivery into a mailbox has as its host
_RETRY = 120.0  # seconds until a second attempt
_EXPIRES = 3 * 86400.0

# What stands before the seed of an Ed25519 key (RFC 8410); the server's own are version 2, which few others read.
_SEED = bytes.fromhex("06032b657004220420")

QUEUED = {
    "rest": ("queue.queue-message-authenticated", "queue.queue-message", "queue.queue-dsn"),
    "jmap": ("queue.authenticated-message-queued", "queue.message-queued", "queue.dsn-queued"),
}
"""What the generations call it when a submission, a mail from outside, and a bounce are queued."""

_WORDS = {
    "queue.queue-message-authenticated": "Queued message submission for delivery",
    "queue.authenticated-message-queued": "Queued message submission for delivery",
    "queue.queue-message": "Queued message for delivery",
    "queue.message-queued": "Queued message for delivery",
    "queue.queue-dsn": "Queued DSN for delivery",
    "queue.dsn-queued": "Queued DSN for delivery",
    "queue.rescheduled": "Message rescheduled for delivery",
    "delivery.attempt-start": "Delivery attempt started",
    "delivery.attempt-end": "Delivery attempt ended",
    "delivery.completed": "Delivery completed",
    "delivery.domain-delivery-start": "New delivery attempt for domain",
    "delivery.connect": "Connecting to remote server",
    "delivery.connect-error": "Connection error",
    "delivery.delivered": "Message delivered",
    "delivery.rcpt-to-rejected": "SMTP RCPT TO rejected",
    "delivery.dsn-success": "DSN success notification",
    "delivery.dsn-perm-fail": "DSN permanent failure notification",
    "message-ingest.ham": "Message ingested",
    "message-ingest.spam": "Possible spam message ingested",
}


@dataclass(frozen=True, slots=True)
class Signer:
    """A key that signs (RFC 6376, RFC 8463); ``pem`` is PKCS#1 or PKCS#8. ``algorithm`` is such as ``rsa-sha256``."""

    domain: str
    selector: str
    algorithm: str
    pem: str = field(repr=False)

    def sign(self, raw: bytes) -> bytes:
        """Return the header field that signs a message, over those of the headers that the server signs and it has."""
        head, _, body = raw.partition(b"\r\n\r\n")
        fields = {name.lower(): value for line in _unfolded(head) for name, _, value in [line.partition(b":")]}
        names = [name for name in (b"From", b"To", b"Date", b"Subject", b"Message-ID") if name.lower() in fields]
        digest = base64.b64encode(hashlib.sha256(_relaxed(body)).digest())
        own = b"v=1; a=%s; s=%s; d=%s; c=relaxed/relaxed; h=%s; t=%d; bh=%s; b=" % (
            self.algorithm.encode(),
            self.selector.encode(),
            self.domain.encode(),
            b":".join(names),
            int(time.time()),
            digest,
        )
        lines = [b"%s:%s\r\n" % (name.lower(), _spaced(fields[name.lower()])) for name in names]
        value = self._signature(b"".join([*lines, b"dkim-signature:" + own]))
        return b"DKIM-Signature: " + own + base64.b64encode(value) + b"\r\n"

    def _signature(self, data: bytes) -> bytes:
        if self.algorithm == "ed25519-sha256":
            der = base64.b64decode("".join(re.findall(r"(?m)^[A-Za-z0-9+/=]+$", self.pem)))
            seed = der[(start := der.index(_SEED) + len(_SEED)) : start + 32]
            return Ed25519PrivateKey.from_private_bytes(seed).sign(hashlib.sha256(data).digest())
        key = load_pem_private_key(self.pem.encode(), None)
        if isinstance(key, rsa.RSAPrivateKey):
            return key.sign(data, padding.PKCS1v15(), hashes.SHA256())
        raise TypeError(type(key))


def _unfolded(head: bytes) -> list[bytes]:
    return re.split(rb"\r\n", re.sub(rb"\r\n(?=[ \t])", b"", head))


def _spaced(text: bytes) -> bytes:
    return re.sub(rb"[ \t]+", b" ", text).strip()


def _relaxed(body: bytes) -> bytes:
    lines = [re.sub(rb"[ \t]+", b" ", line).rstrip(b" ") for line in body.split(b"\r\n")]
    while lines and not lines[-1]:
        lines.pop()
    return b"".join(line + b"\r\n" for line in lines)


@dataclass(frozen=True, slots=True)
class Handed:
    """A mail as it was handed in: by whom, for whom, and where. ``user`` is empty where nobody logged in."""

    client: str
    listener: str
    port: int
    user: str
    sender: str
    recipients: tuple[str, ...]
    raw: bytes = field(repr=False)


@dataclass(slots=True)
class Stored:
    """A mail in a mailbox."""

    id: str
    raw: bytes = field(repr=False)
    received: float
    folder: str = "inbox"


@dataclass(slots=True)
class Waiting:
    """A recipient of a message in the queue; ``answer`` is the last one that the other server gave."""

    address: str
    due: float
    expires: float
    attempts: int = 0
    host: str = ""
    answer: str = ""


@dataclass(slots=True)
class Queued:
    """A message in the queue."""

    id: int
    created: float
    sender: str
    size: int
    client: str
    port: int
    recipients: list[Waiting]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server outside says to a recipient. Code 0 is a connection that could not be made."""

    code: int = 250
    enhanced: str = "2.0.0"
    text: str = "OK"

    @property
    def words(self) -> str:
        """As the server tells it (``impl Display for Error`` in ``crates/smtp/src/queue/mod.rs``)."""
        if not self.code:
            return f"Connection failed: {self.text}"
        return f"Code: {self.code}, Enhanced code: {self.enhanced}, Message: {self.text}"

    def error(self, address: str) -> str:
        """Return what the queue and the log tell of it as an error."""
        return self.words if not self.code else f"Unexpected response for RCPT TO:<{address}>: {self.words}"


class Post:
    """The queue, the mailboxes and the log of one server.

    ``outside`` says how servers elsewhere answer, by an address or a domain; others take everything. ``held`` keeps
    all mail in the queue without a try, as a paused queue does; with ``spam`` all goes to that folder, with ``keeps``
    nobody may delete.
    """

    def __init__(
        self,
        generation: str,
        *,
        clock: Callable[[], float],
        hostname: Callable[[], str],
        reached: Callable[[str], Iterable[str]],
        signers: Callable[[str], Iterable[Signer]],
        own: Callable[[str], bool],
    ) -> None:
        """``reached`` names the mailboxes, and addresses elsewhere, that an address leads to; nobody is an error.

        ``signers`` are those of a sender's domain, ``own`` says whether a domain is the server's.
        """
        self._names, self._clock, self._hostname = QUEUED[generation], clock, hostname
        self._reached, self._signers, self._own = reached, signers, own
        self.outside: dict[str, Answer] = {}
        self.clear()

    def clear(self) -> None:
        """Be a new volume: no mail, no queue, no log."""
        self.boxes: dict[str, dict[str, Stored]] = {}
        self.arrivals: dict[str, list[str]] = {}  # the ids of all that ever came to a mailbox
        self.queue: dict[int, Queued] = {}
        self.lines: list[str] = []
        self.held = False
        self.spam = self.keeps = False
        self.outside.clear()
        self._ids = itertools.count(int(self._clock()) << 22 | 7)
        self._blobs = itertools.count(1)

    # ---------------------------------------------------------------------------------------------------- handing in
    def recipient(self, address: str) -> str:
        """Answer RCPT TO of who has logged in."""
        if self._own(_domain(address)) and not set(self._reached(address)):
            return "550 5.1.2 Mailbox does not exist."
        return "250 2.1.5 OK"

    def take(self, handed: Handed) -> str:
        """Answer the end of DATA: sign the mail, queue it, and try to deliver it at once."""
        if not handed.raw.strip():
            return "550 5.7.7 Failed to parse message."
        raw, number = handed.raw, next(self._ids)
        if handed.user:
            raw = b"".join(signer.sign(handed.raw) for signer in self._signers(_domain(handed.sender))) + raw
        span = f'listenerId = "{handed.listener}", localPort = {handed.port}, remoteIp = {handed.client}, '
        self._deliver(number, replace(handed, raw=raw), span, self._names[0 if handed.user else 1])
        return f"250 2.0.0 Message queued with id {number:x}."

    def receive(self, sender: str, recipients: Iterable[str], raw: bytes, results: str = "") -> None:
        """Take a mail from another server, at port 25, which gets what was found out of it as a header field."""
        head = f"Authentication-Results: {self._hostname()};\r\n\t{results}\r\n".encode() if results else b""
        handed = Handed("203.0.113.9", "smtp", 25, "", sender, tuple(recipients), head + raw)
        self.take(handed)

    def _deliver(self, number: int, mail: Handed, span: str, event: str) -> None:
        now, size = self._clock(), len(mail.raw)
        times = f"nextRetry = {_time(now)}, nextDsn = {_time(now + 86400)}, expires = {_time(now + _EXPIRES)}"
        self._log(event, f"{span}{_envelope(number, mail.sender, mail.recipients)}, size = {size}, {times}")
        waiting = [Waiting(address, now, now + _EXPIRES) for address in mail.recipients]
        self.queue[number] = Queued(number, now, mail.sender, size, mail.client, mail.port, waiting)
        if not self.held:
            self._attempt(self.queue[number], mail)

    def _attempt(self, item: Queued, mail: Handed) -> None:
        listed = [rcpt.address for rcpt in item.recipients]
        span = (
            f'queueId = {item.id}, queueName = "remote", from = "{item.sender or "<>"}", to = {_list(listed)}, '
            f"size = {item.size}, total = {len(listed)}"
        )
        self._log("delivery.attempt-start", span)
        failed = [rcpt for rcpt in item.recipients if not self._try(rcpt, mail.raw, span)]
        item.recipients = [rcpt for rcpt in failed if rcpt.due]
        refused = [rcpt for rcpt in failed if not rcpt.due]
        for rcpt in refused:
            self._log(
                "delivery.dsn-perm-fail",
                f'{span}, to = "{rcpt.address}", hostname = "{rcpt.host}", details = "{rcpt.answer}", total = 0',
            )
        if refused and item.sender:
            self._bounce(item, refused, span, mail)
        if item.recipients:
            due = min(rcpt.due for rcpt in item.recipients)
            times = f"nextRetry = {_time(due)}, nextDsn = {_time(item.created + 86400)}"
            self._log("queue.rescheduled", f"{span}, {times}, expires = {_time(item.created + _EXPIRES)}")
        else:
            self._log("delivery.completed", f"{span}, elapsed = 0ms")
            del self.queue[item.id]
        self._log("delivery.attempt-end", f"{span}, elapsed = 12ms")

    def _try(self, rcpt: Waiting, raw: bytes, span: str) -> bool:
        """Deliver to one recipient, here and elsewhere, and say whether nothing is left to do."""
        domain = _domain(rcpt.address)
        self._log("delivery.domain-delivery-start", f'{span}, domain = "{domain}", total = 1')
        boxes = set(self._reached(rcpt.address))
        away = {name for name in boxes if "@" in name and not self._own(_domain(name))}
        for name in boxes - away:
            self._store(name, raw, span)
        if away:
            return self._hand_on(rcpt, domain, span)
        where = f'to = "{rcpt.address}", hostname = "{LOCAL}"'
        self._log("delivery.dsn-success", f'{span}, {where}, code = 250, details = "OK"')
        return True

    def _hand_on(self, rcpt: Waiting, domain: str, span: str) -> bool:
        host = f"mx.{domain}"
        answer = self.outside.get(rcpt.address) or self.outside.get(domain) or Answer()
        rcpt.host, rcpt.attempts = host, rcpt.attempts + 1
        rcpt.answer = "" if answer.code == 250 else answer.error(rcpt.address)
        where = f'hostname = "{host}"'
        if answer.code == 250:
            said = f'code = 250, details = "{answer.text}"'
            self._log("delivery.delivered", f'{span}, {where}, to = "{rcpt.address}", {said}, elapsed = 80ms')
            self._log("delivery.dsn-success", f'{span}, to = "{rcpt.address}", {where}, {said}')
            return True
        if not answer.code:
            cause = f'causedBy = Mail authentication error (mail-auth.io) {{ details = "{answer.text}" }}'
            self._log("delivery.connect-error", f'{span}, domain = "{domain}", {where}, {cause}, elapsed = 30000ms')
        else:
            said = f'code = {answer.code}, details = "{answer.text}"'
            self._log("delivery.rcpt-to-rejected", f'{span}, {where}, to = "{rcpt.address}", {said}, elapsed = 40ms')
        rcpt.due = 0.0 if answer.code >= 500 else self._clock() + _RETRY
        return False

    def _bounce(self, item: Queued, refused: Iterable[Waiting], span: str, mail: Handed) -> None:
        """Send the sender what could not be delivered, under the span of the delivery that failed."""
        lines = "".join(f"<{rcpt.address}> (host '{rcpt.host}' rejected it)\r\n" for rcpt in refused)
        text = f"Your message could not be delivered to the following recipients:\r\n\r\n{lines}"
        head = f"From: MAILER-DAEMON@{self._hostname()}\r\nTo: {item.sender}\r\nSubject: Failed to deliver message\r\n"
        ids = f"Message-ID: <{next(self._blobs)}@{self._hostname()}>\r\nDate: {_date(self._clock())}\r\n"
        raw = f"{head}{ids}\r\n{text}".encode()
        bounce = replace(mail, sender="", recipients=(item.sender,), raw=raw)
        self._deliver(next(self._ids), bounce, f"{span}, ", self._names[2])

    def _store(self, name: str, raw: bytes, span: str) -> None:
        key = f"e{next(self._blobs)}"
        folder = "junk" if self.spam else "inbox"
        self.boxes.setdefault(name, {})[key] = Stored(key, raw, self._clock(), folder)
        self.arrivals.setdefault(name, []).append(key)
        event = "message-ingest.spam" if self.spam else "message-ingest.ham"
        message_id = _field(raw, b"message-id").strip("<>")
        self._log(event, f'{span}, accountId = 3, documentId = 1, messageId = "{message_id}", size = {len(raw)}')

    # --------------------------------------------------------------------------------------------------------- telling
    def _log(self, event: str, keys: str) -> None:
        self.lines.append(f"{_time(self._clock())} INFO {_WORDS[event]} ({event}) {keys}")

    def entries(self, text: str = "") -> Iterator[tuple[int, dict[str, str]]]:
        """Yield the lines that hold a text, the newest first, each with its number and its parts."""
        for number, line in reversed(list(enumerate(self.lines))):
            if text in line:
                time, level, rest = line.split(" ", 2)
                words, _, rest = rest.partition(" (")
                event, _, details = rest.partition(")")
                yield (
                    number,
                    {
                        "timestamp": time,
                        "level": level,
                        "event": words,
                        "event_id": event,
                        "details": details.strip(),
                    },
                )

    def rest(self) -> list[dict[str, Any]]:
        """Return the queue as ``GET /api/queue/messages?values`` does (``http/src/management/queue.rs``)."""
        return [
            {
                "id": item.id,
                "return_path": item.sender,
                "recipients": [
                    {
                        "address": rcpt.address,
                        "queue": "remote",
                        "status": {"temp_fail": f"Error for {rcpt.host}: {rcpt.answer}"}
                        if rcpt.answer
                        else "scheduled",
                        "retry_num": rcpt.attempts,
                        "next_retry": _time(rcpt.due),
                        "next_notify": _time(item.created + 86400),
                        "expires": _time(rcpt.expires),
                    }
                    for rcpt in item.recipients
                ],
                "created": _time(item.created),
                "size": item.size,
                "blob_hash": "q" * 43,
            }
            for item in self.queue.values()
        ]

    def jmap(self) -> list[dict[str, Any]]:
        """Return the queue as ``x:QueuedMessage/get`` does (``registry/mapping/queued_message.rs``)."""
        return [
            {
                "id": item.id,
                "blobId": f"c{item.id}",
                "createdAt": _time(item.created),
                "envId": None,
                "flags": {"authenticated": True},
                "priority": 0,
                "receivedFromIp": item.client,
                "receivedViaPort": item.port,
                "returnPath": item.sender or "<>",
                "size": item.size,
                "nextRetry": _time(min(rcpt.due for rcpt in item.recipients)),
                "nextNotify": _time(item.created + 86400),
                "recipients": {rcpt.address: _waiting(rcpt, item) for rcpt in item.recipients},
            }
            for item in self.queue.values()
        ]


def _waiting(rcpt: Waiting, item: Queued) -> dict[str, Any]:
    status: dict[str, Any] = {"@type": "Scheduled"}
    if rcpt.answer:
        status = {"@type": "TemporaryFailure", "responseHostname": rcpt.host, "errorType": "unexpectedResponse"}
        if rcpt.answer.startswith("Connection"):
            status |= {"errorType": "connectionError", "errorMessage": rcpt.answer.partition(": ")[2]}
        else:
            code, enhanced, text = (part.partition(": ")[2] for part in rcpt.answer.split(": ", 1)[1].split(", ", 2))
            status |= {"errorCommand": f"RCPT TO:<{rcpt.address}>", "responseCode": int(code)}
            status |= {"responseEnhanced": enhanced, "responseMessage": text}
    return {
        "expires": {"@type": "Ttl", "expiresAt": _time(rcpt.expires)},
        "flags": {},
        "notifyCount": 0,
        "notifyDue": _time(item.created + 86400),
        "orcpt": None,
        "queueName": "remote",
        "retryCount": rcpt.attempts,
        "retryDue": _time(rcpt.due),
        "status": status,
    }


def _envelope(number: int, sender: str, recipients: Iterable[str]) -> str:
    return f'queueId = {number}, from = "{sender or "<>"}", to = {_list(recipients)}'


def _list(addresses: Iterable[str]) -> str:
    return "[" + ", ".join(f'"{address}"' for address in addresses) + "]"


def _domain(address: str) -> str:
    return address.rpartition("@")[2].lower()


def _time(seconds: float) -> str:
    return f"{dt.datetime.fromtimestamp(seconds, dt.UTC):%Y-%m-%dT%H:%M:%SZ}"


def _date(seconds: float) -> str:
    return format_datetime(dt.datetime.fromtimestamp(seconds, dt.UTC))


def _field(raw: bytes, name: bytes) -> str:
    return str(message_from_bytes(raw).get(name.decode(), "")).strip()
