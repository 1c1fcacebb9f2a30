"""Whether a DKIM signature of a message verifies with a key record (RFC 6376, RFC 8301, RFC 8463). Pure.

dkimpy, the reference, is the judge in the tests and not a library here: it comes as source alone, to be built when it
is installed, and needs a second cryptographic library for Ed25519 (docs/adr/0001-libraries.md).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from reconciler import keys
from reconciler.letter import Field, Letter
from reconciler.names import host

_LEAST = 1024  # bits of an RSA key (RFC 8301, section 3.2)
_ALGORITHMS = {"rsa-sha256": "rsa", "ed25519-sha256": "ed25519"}
_NEEDED = ("v", "a", "b", "bh", "d", "h", "s")
_MOST = 20  # signatures of one message that are looked at
_LAST = re.compile(rb"(?:\r\n)+\Z")  # empty lines at the end
_SPACE = re.compile(rb"[ \t]+")


@dataclass(frozen=True, slots=True)
class MailSignature:
    """A signature of a message. ``domain`` is in lower case and in Punycode, ``algorithm`` such as ``rsa-sha256``."""

    domain: str
    selector: str
    algorithm: str
    tags: Mapping[str, str] = field(repr=False)
    own: Field = field(repr=False)
    letter: Letter = field(repr=False)

    @property
    def place(self) -> str:
        """The name at which its key is published."""
        return f"{self.selector}._domainkey.{self.domain}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of verifying: ``valid``, ``no-key``, ``altered``, ``differs`` or ``broken``, and in words."""

    state: str
    words: str


def signatures(raw: bytes) -> tuple[MailSignature, ...]:
    """Return the signatures of a message, the first one first; raises nothing, whatever it holds."""
    letter = Letter.read(raw)
    found = [item for item in letter.fields if item.name == "dkim-signature"]
    return tuple(_signature(letter, item) for item in found[:_MOST])


def _signature(letter: Letter, own: Field) -> MailSignature:
    pairs = [part.partition("=") for part in own.value.decode("utf-8", "replace").split(";")]
    names = [name.strip() for name, equals, _ in pairs if equals]
    tags = {name.strip(): re.sub(r"\s+", "", value) for name, equals, value in pairs if equals}
    if len(tags) != len(names):  # a tag that stands twice spoils them all (RFC 6376, section 3.2)
        tags = {"d": tags.get("d", ""), "s": tags.get("s", "")}
    try:
        domain = host(tags.get("d", ""))
    except ValueError:
        domain = ""
    return MailSignature(domain, tags.get("s", "").lower(), tags.get("a", "").lower(), tags, own, letter)


def verify(signature: MailSignature, records: Sequence[str], now: datetime) -> Verdict:
    """Verify a signature with what stands at its `place`: the texts of the TXT records there."""
    if why := next(_objections(signature, now), ""):
        return Verdict("broken", why)
    if why := next(_useless(signature, records), ""):
        return Verdict("no-key", f"DNS shows {why}")
    public = keys.public_key(_ALGORITHMS[signature.algorithm], keys.read(records[0]).public)
    field_of, body_of = (_FORMS[part] for part in _canonical(signature))
    if not _is_hash(signature, body_of[1](signature.letter.body)):
        return Verdict("altered", "its text is not what was signed")
    if not _is_signed(signature, b"".join(_hashed(signature, field_of[0])), public):
        return Verdict("differs", "it does not fit the key that DNS shows")
    return Verdict("valid", "it verifies")


def _objections(signature: MailSignature, now: datetime) -> Iterator[str]:
    """Say why a signature counts for nothing, whatever the key (RFC 6376, section 6.1.1)."""
    tags = signature.tags
    if missing := [name for name in _NEEDED if not tags.get(name)]:
        yield f"it lacks {missing[0]}=, or a tag stands twice"
        return
    if tags["v"] != "1" or not signature.domain:
        yield "it is of no version that is known"
    if signature.algorithm not in _ALGORITHMS:
        yield f"its algorithm {signature.algorithm[:20]} is none that receivers accept (RFC 8301)"
    if "from" not in _names(signature):
        yield "it does not cover From"
    if any(part not in _FORMS for part in _canonical(signature)):
        yield "its canonicalization is none that is known"
    agent = _agent(signature)
    if agent != signature.domain and not agent.endswith(f".{signature.domain}"):
        yield "its i= is not of its domain"
    if not re.fullmatch(r"[0-9]{0,12}", expires := tags.get("x", "")):
        yield "its x= is no time"
    elif expires and int(expires) < now.timestamp():
        yield f"it ended on {datetime.fromtimestamp(int(expires), UTC):%Y-%m-%d}"


def _useless(signature: MailSignature, records: Sequence[str]) -> Iterator[str]:
    """Say why what DNS shows is no key for a signature (RFC 6376, section 6.1.2)."""
    if len(records) != 1:
        yield f"{len(records)} keys, of which none counts (RFC 6376 section 3.6.2.2)" if records else "no key"
        return
    record, algorithm = keys.read(records[0]), _ALGORITHMS[signature.algorithm]
    if not record.is_key:
        yield "no key"
    if not record.public:
        yield "that the key is revoked (p= is empty)"
    if record.tag("k") != algorithm:
        yield f"a key of another algorithm ({record.tag('k')[:20]})"
    if not record.takes_sha256 or not record.for_mail:
        yield "a key that is not for mail"
    if "s" in record.words("t") and _agent(signature) != signature.domain:
        yield "a key that is not for sub-domains"
    try:
        public = keys.public_key(algorithm, record.public)
    except ValueError as error:
        yield f"a key that {error}"
        return
    if algorithm == "rsa" and keys.rsa_bits(public) < _LEAST:
        yield f"a key of less than {_LEAST} bits, which nobody accepts"


def _agent(signature: MailSignature) -> str:
    """Return the domain of the user for whom it is signed: that of i=, which is that of d= where it is not said."""
    return signature.tags.get("i", f"@{signature.domain}").rpartition("@")[2].lower()


def _canonical(signature: MailSignature) -> tuple[str, str]:
    head, _, body = signature.tags.get("c", "simple/simple").lower().partition("/")
    return head, body or "simple"


def _names(signature: MailSignature) -> list[str]:
    return [name.strip().lower() for name in signature.tags["h"].split(":")]


# -------------------------------------------------------------------------------------------------- canonicalization
def _simple_field(item: Field) -> bytes:
    return item.raw


def _relaxed_field(item: Field) -> bytes:
    """Unfold, and let any white space be one space (RFC 6376, section 3.4.2)."""
    value = _SPACE.sub(b" ", item.value.replace(b"\r\n", b"")).strip(b" ")
    return item.name.encode() + b":" + value


def _simple_body(body: bytes) -> bytes:
    return _LAST.sub(b"", re.sub(rb"\r?\n", b"\r\n", body)) + b"\r\n"


def _relaxed_body(body: bytes) -> bytes:
    lines = [_SPACE.sub(b" ", line).rstrip(b" ") for line in re.split(rb"\r?\n", body)]
    text = _LAST.sub(b"", b"\r\n".join(lines))
    return text + b"\r\n" if text else b""


_FORMS: Mapping[str, tuple[Callable[[Field], bytes], Callable[[bytes], bytes]]] = {
    "simple": (_simple_field, _simple_body),
    "relaxed": (_relaxed_field, _relaxed_body),
}


def _is_hash(signature: MailSignature, body: bytes) -> bool:
    length = signature.tags.get("l", "")
    if length:
        if not (length.isascii() and length.isdigit()) or int(length) > len(body):
            return False
        body = body[: int(length)]
    return base64.b64encode(hashlib.sha256(body).digest()).decode() == signature.tags["bh"]


def _hashed(signature: MailSignature, canonical: Callable[[Field], bytes]) -> Iterator[bytes]:
    """Yield the fields that were signed, the last one of a name first, and the signature itself without its value."""
    left = [item for item in signature.letter.fields if item.name and item is not signature.own]
    for wanted in _names(signature):
        at = next((number for number in range(len(left) - 1, -1, -1) if left[number].name == wanted), None)
        if at is not None:
            yield canonical(left.pop(at)) + b"\r\n"
    bare = re.sub(rb"((?:^|[;:])[ \t\r\n]*b[ \t\r\n]*=)[^;]*", rb"\1", signature.own.raw)
    name, _, value = bare.partition(b":")
    yield canonical(Field(signature.own.name, value, name + b":" + value))


def _is_signed(signature: MailSignature, data: bytes, public: str) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    raw = base64.b64decode(public)
    try:
        value = base64.b64decode(signature.tags["b"], validate=True)
        if signature.algorithm == "ed25519-sha256":  # RFC 8463, section 3: of the hash
            ed25519.Ed25519PublicKey.from_public_bytes(raw).verify(value, hashlib.sha256(data).digest())
            return True
        key = load_der_public_key(raw)
        if not isinstance(key, rsa.RSAPublicKey):
            return False
        key.verify(value, data, padding.PKCS1v15(), hashes.SHA256())
    except (InvalidSignature, ValueError, binascii.Error):
        return False
    return True
