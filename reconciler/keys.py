"""DKIM keys as text: public halves and key records as DNS publishes them, private halves as a server reads them."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

ALGORITHMS = ("ed25519", "rsa")

# SubjectPublicKeyInfo of an RSA key is this AlgorithmIdentifier (RFC 8017 A.1: rsaEncryption, NULL) and a BIT STRING.
_RSA_ALGORITHM = bytes.fromhex("300d06092a864886f70d0101010500")

_ED25519_ALGORITHM = bytes.fromhex("06032b6570")  # RFC 8410 section 3: id-Ed25519, no parameters


def generate(algorithm: str, bits: int = 2048) -> str:
    """Make a private key of ``ed25519`` or ``rsa`` (of so many bits), in PEM as `private_pem` gives it.

    2048 bits is what signers should use (RFC 8301 section 3.2) and the least that Stalwart takes from 0.16.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

    key = ed25519.Ed25519PrivateKey.generate() if algorithm == "ed25519" else rsa.generate_private_key(65537, bits)
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    encoded: bytes = key.private_bytes(*form)
    return private_pem(algorithm, encoded.decode())


def public_key(algorithm: str, text: str) -> str:
    """Normalise a DKIM public key to the base64 that DNS publishes.

    Ed25519 is the base64 of the raw 32 bytes (RFC 8463 section 4). RSA is SubjectPublicKeyInfo; PKCS#1, which RFC 6376
    section 3.6.1 also allows (erratum 3017), is wrapped, so that equal keys are equal texts. White space, also
    between the chunks of a TXT record, is ignored. Raises ValueError when the text is no key of that algorithm.
    """
    try:
        raw = base64.b64decode(re.sub(r"\s+", "", text), validate=True)
    except binascii.Error as error:
        raise ValueError("is not base64") from error
    if algorithm == "ed25519":
        if len(raw) != 32:  # noqa: PLR2004 (RFC 8032: a public key is 32 octets)
            raise ValueError(f"is {len(raw)} bytes long, an Ed25519 key is 32")
    else:
        raw = _spki(raw)
    return base64.b64encode(raw).decode()


def rsa_bits(key: str) -> int:
    """Return the modulus length of a normalised RSA public key, in bits."""
    modulus = _integers(_pkcs1(base64.b64decode(key)))[0]
    return int.from_bytes(modulus).bit_length()


def public_half(algorithm: str, pem: str) -> str:
    """Derive the public key (as `public_key` gives it) from a private key in PEM, PKCS#8 or PKCS#1.

    Raises ValueError when the PEM is no private key of that algorithm; the message holds nothing of it.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519

    key = _load(algorithm, pem)
    if isinstance(key, ed25519.Ed25519PrivateKey):
        raw = key.public_key().public_bytes_raw()
    else:
        raw = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(raw).decode()


def private_pem(algorithm: str, pem: str) -> str:
    """Rewrite a private key as Stalwart reads it: PKCS#1 for RSA, PKCS#8 for Ed25519.

    RSA in PKCS#8 signs, but `GET /api/dkim/ID` and `/api/dns/records` can't read it (observed.md, 0.15.5). Raises
    ValueError as `public_half` does.
    """
    from cryptography.hazmat.primitives import serialization

    form = (
        serialization.PrivateFormat.PKCS8 if algorithm == "ed25519" else serialization.PrivateFormat.TraditionalOpenSSL
    )
    encoded: bytes = _load(algorithm, pem).private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    return encoded.decode()


# ----------------------------------------------------------------------------------------------------- key records
_DEFAULTS = {"v": "DKIM1", "k": "rsa", "h": "sha256", "s": "*", "t": ""}
_TAG = re.compile(r"[A-Za-z][A-Za-z0-9_]*")  # RFC 6376 section 3.2
_CHUNK = 16  # characters of base64 that do not repeat by chance
_PASTED = re.compile(rf"p=[A-Za-z0-9+/]{{{_CHUNK}}}|v=DKIM1")


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """The text of a TXT record read as a key record (RFC 6376 section 3.6.1).

    ``tags`` are those that are written, of a doubled one the first; ``sound`` is whether they make a tag list to the
    letter, in which none stands twice (section 3.2); ``doubled`` whether one value was pasted twice.
    """

    tags: Mapping[str, str]
    sound: bool
    doubled: bool

    def tag(self, name: str) -> str:
        """Return a tag's value or, where it is not written, what its absence means."""
        return self.tags.get(name, _DEFAULTS.get(name, ""))

    def words(self, name: str) -> frozenset[str]:
        """Return the words of a tag that holds several, between colons."""
        return frozenset(word.strip() for word in self.tag(name).split(":") if word.strip())

    @property
    def is_key(self) -> bool:
        """Whether it is meant as a key record at all."""
        return self.tag("v") == "DKIM1" and "p" in self.tags and all(map(_TAG.fullmatch, self.tags))

    @property
    def takes_sha256(self) -> bool:
        """Whether it may verify what mail is signed with (RFC 8301 section 3.1)."""
        hashes = self.words("h")
        return not hashes or "sha256" in hashes

    @property
    def for_mail(self) -> bool:
        """Whether it is a key for mail."""
        services = self.words("s")
        return not services or bool(services & {"*", "email"})

    @property
    def public(self) -> str:
        """What ``p=`` holds, without white space; empty for a revoked key."""
        return re.sub(r"\s+", "", self.tags.get("p", ""))


def read(text: str) -> KeyRecord:
    """Read a text as a key record. Raises nothing: DNS holds anything."""
    written = text.strip().removesuffix(";").split(";")
    pairs = [(name.strip(), value.strip(), equals) for name, equals, value in (item.partition("=") for item in written)]
    sound = all(equals and _TAG.fullmatch(name) for name, _, equals in pairs)
    names = [name for name, *rest in pairs if name or any(rest)]
    tags = {name: value for name, value, equals in reversed(pairs) if name or value or equals}
    return KeyRecord(tags, sound and len(tags) == len(names), _is_doubled(names, tags.get("p", "")))


def _is_doubled(names: Sequence[str], public: str) -> bool:
    """Whether one value was pasted twice: with its tags, behind its own ``p=``, or base64 behind base64."""
    text = re.sub(r"\s+", "", public)
    middle = len(text) // 2
    twice = middle >= _CHUNK and text[:middle] == text[middle:]
    return twice or names.count("p") > 1 or names.count("v") > 1 or bool(_PASTED.search(text))


@lru_cache(maxsize=1024)
def normal(text: str) -> str:
    """Write a key record by its meaning; what can't be understood stays as it is.

    Order, white space, a last semicolon and spelt-out defaults mean nothing, nor does the wrapping of an RSA key.
    ``h=sha256`` counts as a default too: every signer uses it (RFC 8301). Other tags (``t=y``) are kept.
    """
    record = read(text)
    if not (record.sound and record.is_key and record.tag("k") in ("rsa", "ed25519")):
        return text
    try:
        key = public_key(record.tag("k"), record.public) if record.public else ""  # empty: revoked, section 3.6.1
    except ValueError:
        return text
    shown = [tag for tag in _DEFAULTS if tag in ("v", "k", "h") or record.tag(tag) != _DEFAULTS[tag]]
    shown += sorted(record.tags.keys() - _DEFAULTS.keys() - {"p"})
    return "; ".join([*(f"{tag}={record.tag(tag)}" for tag in shown), f"p={key}"])


# ------------------------------------------------------------------------------------------------------- encodings
def _load(algorithm: str, pem: str) -> Any:  # a private key of cryptography, which is imported lazily
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    try:
        if algorithm == "ed25519":
            return _ed25519(pem)
        # OpenSSL would test the factors for being prime, which takes longer than the rest of a plan of ten records.
        key = serialization.load_pem_private_key(pem.encode(), password=None, unsafe_skip_rsa_key_validation=True)
    except Exception:  # noqa: BLE001 (cryptography's own errors may quote the input)
        raise ValueError(f"is not an unencrypted private key in PEM of the algorithm {algorithm}") from None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise ValueError(f"is a private key, but not of the algorithm {algorithm}")  # noqa: TRY004 (the value is wrong)
    if not _fits(key.private_numbers()):
        raise ValueError("is a damaged RSA key: its numbers do not belong together")
    return key


def _fits(key: Any) -> bool:
    """Whether the numbers of an RSA key make one key (RFC 8017, 3.2): a damaged one would sign what nobody verifies."""
    modulus, exponent = key.public_numbers.n, key.public_numbers.e
    if min(key.p, key.q) < 3 or key.p * key.q != modulus:  # noqa: PLR2004 (the least odd prime)
        return False
    inverse = all(key.d * exponent % (prime - 1) == 1 for prime in (key.p, key.q))
    halves = key.dmp1 == key.d % (key.p - 1) and key.dmq1 == key.d % (key.q - 1)
    return inverse and halves and key.iqmp * key.q % key.p == 1


def _ed25519(pem: str) -> Any:
    """Read PKCS#8 of either version: a key that Stalwart made is version 2 (RFC 5958), which cryptography refuses."""
    from cryptography.hazmat.primitives.asymmetric import ed25519

    match = re.fullmatch(r"\s*-----BEGIN PRIVATE KEY-----(.+)-----END PRIVATE KEY-----\s*", pem, re.DOTALL)
    if match is None:
        raise ValueError("is not PKCS#8")
    content, _ = _read(base64.b64decode(re.sub(r"\s+", "", match[1])), 0x30)
    _, rest = _read(content, 0x02)  # the version
    algorithm, rest = _read(rest, 0x30)
    if algorithm != _ED25519_ALGORITHM:
        raise ValueError("is another algorithm")
    seed, _ = _read(_read(rest, 0x04)[0], 0x04)  # RFC 8410 section 7: CurvePrivateKey is an OCTET STRING
    return ed25519.Ed25519PrivateKey.from_private_bytes(seed)


def _spki(der: bytes) -> bytes:
    """Return SubjectPublicKeyInfo of an RSA key given as that or as PKCS#1."""
    body = _pkcs1(der)
    _integers(body)
    return _tlv(0x30, _RSA_ALGORITHM + _tlv(0x03, b"\0" + body))


def _pkcs1(der: bytes) -> bytes:
    content, rest = _read(der, 0x30)
    if rest:
        raise ValueError("has bytes behind the key")
    if content.startswith(_RSA_ALGORITHM):
        bits, rest = _read(content[len(_RSA_ALGORITHM) :], 0x03)
        if rest or not bits.startswith(b"\0"):
            raise ValueError("is not an RSA public key")
        return bits[1:]
    return der


def _integers(pkcs1: bytes) -> tuple[bytes, bytes]:
    content, _ = _read(pkcs1, 0x30)
    modulus, rest = _read(content, 0x02)
    exponent, rest = _read(rest, 0x02)
    if rest:
        raise ValueError("is not an RSA public key")
    return modulus, exponent


def _read(der: bytes, tag: int) -> tuple[bytes, bytes]:
    """Split one DER element of that tag off: its content and what follows (X.690 section 8.1)."""
    if len(der) < 2 or der[0] != tag:  # noqa: PLR2004 (tag and length)
        raise ValueError("is not an RSA public key")
    length, start = der[1], 2
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(der[2:start])
    if len(der) < start + length:
        raise ValueError("is cut short")
    return der[start : start + length], der[start + length :]


def _tlv(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:  # noqa: PLR2004 (X.690 8.1.3.4: the short form)
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes((tag, 0x80 | len(length))) + length + content
