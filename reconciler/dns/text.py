"""What TXT records say: strings quoted and joined, and the policies of which one may stand at a name. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from reconciler import keys
from reconciler.dns.policies import bimi, dkim, dmarc, spf, transport
from reconciler.dns.policies.reading import Reading

_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"\s*', re.DOTALL)
_SIMPLE = re.compile(r'"[^"\\]*"')
_ESCAPED = re.compile(rb"\\(\d{3}|.)", re.DOTALL)
_STRING_LIMIT = 255  # bytes in one character-string, RFC 1035 section 3.3


def read(_zone: str, name: str, content: str) -> str:
    """Normalise the content of a TXT record at a name: its strings joined, a key record written by its meaning.

    Raises ValueError for an empty one, which the API refuses.
    """
    text = joined(content)
    if not text:
        raise ValueError("TXT needs a content")
    if is_key_name(name) or text.startswith("v=DKIM1"):
        return keys.normal(text)
    return text


def joined(content: str) -> str:
    """Decode and join character-strings; what does not begin and end with a quote, or makes no strings, is as it is.

    The API stores either form (octodns-cloudflare#134, terraform#5351).
    """
    if not (content.startswith('"') and content.endswith('"')):
        return content
    if _SIMPLE.fullmatch(content):
        return content[1:-1]
    strings, position = [], 0
    while position < len(content):
        match = _STRING.match(content, position)
        if match is None:
            return content
        strings.append(_ESCAPED.sub(_unescape, match[1].encode()))
        position = match.end()
    try:
        return b"".join(strings).decode()
    except UnicodeDecodeError:
        return content


def _unescape(match: re.Match[bytes]) -> bytes:
    code = match[1]
    return bytes((int(code) & 255,)) if len(code) == 3 else code  # noqa: PLR2004 (\DDD, RFC 1035 section 5.1)


def quoted(text: str) -> str:
    r"""Write a text as character-strings of at most 255 bytes: ``"..." "..."``.

    Quotes and backslashes are escaped, and as ``\DDD`` whatever is not printable ASCII: the API refuses it bare.
    """
    raw = text.encode()
    chunks = [raw[at : at + _STRING_LIMIT] for at in range(0, len(raw), _STRING_LIMIT)]
    return " ".join(map(_string, chunks))


def size(text: str) -> int:
    """Return how many bytes a text takes as character-strings, each with its length before it."""
    raw = len(text.encode())
    return raw + -(-raw // _STRING_LIMIT)


def escaped(text: str) -> str:
    """Write a text as one string, however long it is: ``"..."``."""
    return _string(text.encode())


def _string(raw: bytes) -> str:
    return f'"{"".join(map(_escape, raw))}"'


def _escape(byte: int) -> str:
    if byte in b'"\\':
        return f"\\{byte:c}"
    return chr(byte) if 0x20 <= byte < 0x7F else f"\\{byte:03}"  # noqa: PLR2004 (printable ASCII)


# -------------------------------------------------------------------------------------------------------- policies
@dataclass(frozen=True, slots=True)
class MailPolicy:
    """A kind of text that receivers look for at a name, and of which they take two for none.

    ``written`` is how it begins, and ``read`` its grammar, given a text and the name it stands at. ``place`` is what is
    in the name of one, empty where any will do; ``selected`` the first part of such a name, where one is chosen.
    ``tags`` are names of tags by which it is known in its place, ``spaced`` says that blanks may stand in its
    beginning. ``remedy`` is what to do about a second one.
    """

    label: str
    written: str
    read: Callable[[str, str], Reading[Any]]
    place: str = ""
    selected: str = ""
    tags: tuple[str, ...] = ()
    spaced: bool = False
    remedy: str = "receivers take two for none: join them into one"

    @property
    def version(self) -> str:
        """How it begins, in lower case."""
        return self.written.lower()


SPF = MailPolicy("SPF", "v=spf1", spf.parse)
DKIM = MailPolicy(
    "DKIM",
    "v=DKIM1",
    dkim.parse,
    "_domainkey",
    "SELECTOR",
    spaced=True,
    remedy="which of them counts is undefined: a new key takes a selector of its own",
)
# RFC 7208 section 4.5, RFC 9989, RFC 8460 section 3, RFC 8461 section 3.1, BIMI; RFC 6376 section 3.6.2.2.
POLICIES = (
    SPF,
    MailPolicy("DMARC", "v=DMARC1", dmarc.parse, "_dmarc", tags=("p", "sp", "rua", "ruf"), spaced=True),
    MailPolicy("TLSRPT", "v=TLSRPTv1", transport.parse_reporting, "_smtp._tls", tags=("rua",)),
    MailPolicy("MTA-STS", "v=STSv1", transport.parse_sts, "_mta-sts", tags=("id",)),
    MailPolicy("BIMI", "v=BIMI1", bimi.parse, "_bimi", "default", tags=("l", "a"), spaced=True),
    DKIM,
)


def policy(name: str, content: object) -> MailPolicy | None:
    """Return the policy that a TXT record at a name holds; whatever stands at the name of a key is one."""
    if is_key_name(name):
        return DKIM
    match = _VERSION.match(content.lower()) if isinstance(content, str) else None
    if match is None:
        return None
    head, exact = f"v={match[1]}", match[0] == f"v={match[1]}"
    return next((item for item in POLICIES if item.version == head and (exact or item.spaced)), None)


_VERSION = re.compile(r"v\s*=\s*([^\s;]+)(?=[\s;]|$)")


def is_key_name(name: str) -> bool:
    """Whether a name is one of DKIM's (RFC 6376 section 3.6.2.1): a key's, or that of an alias to one."""
    return "._domainkey" in f".{name}"
