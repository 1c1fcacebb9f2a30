"""A message as it lies in a mailbox: its header fields and its lines, and what is wrong with them. Pure.

The grammar is that of RFC 5322 (sections 2.1.1, 2.2, 3.6), of encoded words that of RFC 2047, of an
``Authentication-Results`` field that of RFC 8601. Python's `email` parses; what it forgives is looked for here.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import email
import email.policy
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import getaddresses, parsedate_to_datetime

LONGEST = 998  # characters of a line, without CRLF (RFC 5322, section 2.1.1)
_WORD = 75  # characters of an encoded word (RFC 2047, section 2)
_SKEW = timedelta(hours=24)
_ONCE = (
    *("date", "from", "sender", "reply-to", "to", "cc", "bcc", "message-id", "in-reply-to", "references", "subject"),
    *("mime-version", "content-type", "content-transfer-encoding"),
)
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_MESSAGE_ID = re.compile(rf"<{_ATOM}(\.{_ATOM})*@({_ATOM}(\.{_ATOM})*|\[[!-Z^-~]*\])>")
_ENCODED = re.compile(rb"=\?[^\s?]*\?[^\s?]*\?(?:(?!=\?[^=])[^\s])*?\?=")  # from one beginning to the next at most
_PARTS = re.compile(rb"=\?([!-~]+?)(?:\*[^?]*)?\?([BbQq])\?([!->@-~]*)\?=")
_NAME = re.compile(rb"[!-9;-~]+[ \t]*:")
_RESULT = re.compile(r"\b(?P<method>dkim|spf|dmarc|arc|iprev)\s*=\s*(?P<result>[a-z]+)")


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong: which part of a message it is of, and whether receivers refuse or spoil it for that.

    ``part`` is ``message-id``, ``header`` or ``lines``.
    """

    part: str
    words: str
    breaks: bool = True


@dataclass(frozen=True, slots=True)
class Field:
    """A header field: its name in lower case (empty for a line that is none), its value, and all of it as it stands."""

    name: str
    value: bytes
    raw: bytes


@dataclass(frozen=True, slots=True)
class Letter:
    """A message: its header fields in order, their lines ending with CRLF, and what stands behind them, as it came."""

    fields: tuple[Field, ...]
    body: bytes

    @classmethod
    def read(cls, raw: bytes) -> Letter:
        """Cut a message into its parts, whichever line ends it has."""
        found = re.match(rb"\r?\n", raw) or re.search(rb"\r?\n\r?\n", raw)
        head, body = (raw[: found.start()], raw[found.end() :]) if found else (raw, b"")
        lines = list[bytes]()
        for line in re.split(rb"\r?\n", head):
            if line[:1] in (b" ", b"\t") and lines:
                lines[-1] += b"\r\n" + line
            else:
                lines.append(line)
        return cls(tuple(map(_field, lines)), body)

    def all(self, name: str) -> tuple[str, ...]:
        """Return the values of the fields of a name, unfolded."""
        found = (field.value for field in self.fields if field.name == name)
        return tuple(re.sub(rb"\r?\n(?=[ \t])", b"", value).decode("utf-8", "replace").strip() for value in found)

    @property
    def sender(self) -> str:
        """The address of ``From``, in lower case; empty where there is none."""
        found = [address for _, address in getaddresses(list(self.all("from"))) if "@" in address]
        return found[0].lower() if found else ""


def _field(raw: bytes) -> Field:
    if not _NAME.match(raw):
        return Field("", raw, raw)
    name, _, value = raw.partition(b":")
    return Field(name.decode("ascii").strip().lower(), value, raw)


def faults(raw: bytes, now: datetime | None) -> tuple[Fault, ...]:
    """Say all that is wrong with a message, ``now`` being when it came; None does not hold its Date to that."""
    letter = Letter.read(raw)
    return (*_message_id(letter), *_fields(letter, now), *_encoding(letter), *_lines(raw), *_content(raw, letter))


def _message_id(letter: Letter) -> Iterator[Fault]:
    found = letter.all("message-id")
    if not found:
        yield Fault("message-id", "it has no Message-ID: Google refuses or files such mail as spam")
    for value in found[:1]:
        text = re.sub(r"\([^()]*\)", "", value).strip()
        if not _MESSAGE_ID.fullmatch(text):
            why = "two @ stand in it" if text.count("@") > 1 else "it is not <LEFT@RIGHT>"
            yield Fault("message-id", f"its Message-ID does not follow RFC 5322: {why}")


def _fields(letter: Letter, now: datetime | None) -> Iterator[Fault]:
    counts = Counter(field.name for field in letter.fields)
    for name in ("date", "from"):
        if not counts[name]:
            yield Fault("header", f"it has no {name.capitalize()}")
    for name in _ONCE:
        if counts[name] > 1:
            part = "message-id" if name == "message-id" else "header"
            yield Fault(part, f"{_called(name)} stands in it {counts[name]} times")
    for value in letter.all("date")[:1]:
        yield from _date(value, now)
    if counts["from"] and not letter.sender:
        yield Fault("header", "its From holds no address")
    if counts[""]:
        yield Fault("header", f"{counts['']} lines of its header are no fields")


def _date(value: str, now: datetime | None) -> Iterator[Fault]:
    try:
        when = parsedate_to_datetime(value)
    except (ValueError, IndexError):
        yield Fault("header", "its Date is none that RFC 5322 knows")
        return
    apart = (when if when.tzinfo else when.replace(tzinfo=UTC)) - now if now else timedelta(0)
    if abs(apart) > _SKEW:
        side = "behind" if apart < timedelta(0) else "ahead"
        yield Fault("header", f"its Date is {abs(apart).days} days {side}", breaks=False)


def _called(name: str) -> str:
    return {"message-id": "Message-ID", "mime-version": "MIME-Version"}.get(name, name.title())


def _encoding(letter: Letter) -> Iterator[Fault]:
    """Say which fields hold raw 8-bit text, or encoded words that are none."""
    for name, value in ((field.name, field.value) for field in letter.fields):
        if not value.isascii():
            yield Fault("header", f"{_called(name)} holds raw 8-bit text, which RFC 2047 would encode")
        for word in _ENCODED.findall(value):
            if why := _bad_word(word):
                yield Fault("header", f"an encoded word in {_called(name)} {why}", breaks=False)
        if b"=?" in value and b"=?" in _ENCODED.sub(b"", value):
            yield Fault("header", f"an encoded word in {_called(name)} does not end", breaks=False)


def _bad_word(word: bytes) -> str:
    found = _PARTS.fullmatch(word)
    if found is None:
        return "is none that RFC 2047 knows"
    charset, kind, text = found.groups()
    if len(word) > _WORD:
        return f"has {len(word)} characters, and may have {_WORD}"
    try:
        raw = _from_base64(text) if kind in b"Bb" else _from_q(text)
        codecs.decode(raw, charset.decode("ascii"))
    except LookupError:
        return "has a character set that nobody knows"
    except (ValueError, binascii.Error):
        return "can't be decoded"
    return ""


def _from_base64(text: bytes) -> bytes:
    return base64.b64decode(text, validate=True)


def _from_q(text: bytes) -> bytes:
    if re.search(rb"=(?![0-9A-Fa-f]{2})", text):
        raise ValueError
    return re.sub(rb"=([0-9A-Fa-f]{2})", lambda found: bytes([int(found[1], 16)]), text.replace(b"_", b" "))


def _lines(raw: bytes) -> Iterator[Fault]:
    bare = len(re.findall(rb"(?<!\r)\n", raw))
    if bare:
        yield Fault("lines", f"{bare} lines end with LF alone, where CRLF belongs: Google and others refuse that")
    if re.search(rb"\r(?!\n)", raw):
        yield Fault("lines", "a CR stands alone in it")
    longest = max(map(len, re.split(rb"\r\n|\n", raw)), default=0)
    if longest > LONGEST:
        yield Fault("lines", f"a line has {longest:,} characters, and may have {LONGEST}")
    if b"\0" in raw:
        yield Fault("lines", "a NUL stands in it")


def _content(raw: bytes, letter: Letter) -> Iterator[Fault]:
    message = email.message_from_bytes(raw, policy=email.policy.compat32)
    kinds = [part.get_content_type() for part in message.walk() if not part.is_multipart()]
    if "text/html" in kinds and "text/plain" not in kinds:
        yield Fault(
            "header", "it is HTML alone, without a part in plain text: filters count that against it", breaks=False
        )
    encoding = " ".join(letter.all("content-transfer-encoding")).lower()
    if not letter.body.isascii() and not message.is_multipart() and encoding not in ("8bit", "binary"):
        yield Fault("header", "its text is 8-bit, and no Content-Transfer-Encoding says so", breaks=False)


def results(letter: Letter, server: str) -> tuple[tuple[str, str], ...] | None:
    """Return what a receiving server found out, as method and result; None where it says nothing.

    Only what this server wrote counts: anybody can send a field along that praises itself (RFC 8601, section 5).
    """
    for value in letter.all("authentication-results"):
        name, _, rest = value.partition(";")
        if name.split(" ")[0].strip().lower() == server:
            plain = re.sub(r"\([^()]*\)", "", rest)
            return tuple((found["method"], found["result"]) for found in _RESULT.finditer(plain))
    return None
