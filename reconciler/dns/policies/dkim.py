"""DKIM key records (RFC 6376 section 3.6.1, RFC 8463) judged; `reconciler.keys` reads them. Pure."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping

from reconciler import keys
from reconciler.dns.policies import tags
from reconciler.dns.policies.reading import Fault, Reading, nearest
from reconciler.dns.policies.tags import Grammar, Tag

_GRAMMAR = Grammar(
    "v=DKIM1",
    ("k", "p", "h", "s", "t", "n"),
    names="[A-Za-z][A-Za-z0-9_]*",
    spaced=True,
    optional=True,
    free=("n",),
    extended=True,
)
_FIRM = 1024  # bits: verifiers take no shorter key for valid, RFC 8301 section 3.2
_ARMOUR = re.compile(r"-----(?:BEGIN|END) (?:RSA )?PUBLIC KEY-----")
_PRIVATE = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")
_WRAPPED = bytes.fromhex("302a300506032b6570032100")  # RFC 8410: what stands before the 32 bytes of an Ed25519 key


def parse(text: str, _name: str = "") -> Reading[keys.KeyRecord]:
    """Read a key record; no value where it holds no key that a verifier can use. A revoked one has an empty ``p=``."""
    record = keys.read(text)
    if record.doubled and not _PRIVATE.search(text):
        return Reading(None, (Fault("", "holds its value twice: it was pasted two times", "write it once"),))
    listed, faults, versioned = tags.read(text, _GRAMMAR)
    found = tags.by_name(listed)
    if "p" not in found:
        faults.append(Fault("", "has no p=, the key itself", "write p= with the key, or an empty p= to revoke it"))
    for tag in listed:
        faults += _printed(tag)
    faults += _usable(record, found)
    if record.public:
        faults += _key(record, found["p"], found)
    broken = not versioned or any(fault.breaks for fault in faults)
    return Reading(None if broken else record, tuple(faults))


def _printed(tag: Tag) -> Iterator[Fault]:
    if re.search(r"[^\t\r\n -~]", tag.value):
        yield tag.fault("holds a character that can't stand here", "write it in printable ASCII")


def _usable(record: keys.KeyRecord, found: Mapping[str, Tag]) -> Iterator[Fault]:
    """Tell of what keeps a verifier from using the key for mail, whatever the key is."""
    kind = record.tag("k")
    if kind not in keys.ALGORITHMS:
        meant = nearest(kind, keys.ALGORITHMS) or None
        yield found["k"].fault("is no algorithm: known are rsa and ed25519", "write k=rsa or k=ed25519", meant)
    if not record.takes_sha256:
        yield found["h"].fault("forbids sha256, which mail is signed with", value="sha256", breaks=False)
    if not record.for_mail:
        yield found["s"].fault("says that it is no key for mail", value="email", breaks=False)
    for flag in sorted(record.words("t") - {"y", "s"}):
        yield found["t"].fault(f"holds {flag[:20]}, and known are y and s", "take that out", breaks=False)


def _key(record: keys.KeyRecord, tag: Tag, found: Mapping[str, Tag]) -> Iterator[Fault]:
    """Judge the key itself, by its algorithm."""
    kind = record.tag("k")
    if kind not in keys.ALGORITHMS:
        return
    try:
        key = keys.public_key(kind, record.public)
        bits = keys.rsa_bits(key) if kind == "rsa" else _FIRM
    except (ValueError, IndexError) as error:
        yield _damaged(kind, record, found, str(error) if isinstance(error, ValueError) else "is cut short")
        return
    if bits < _FIRM:
        yield _shown(
            tag, f"is an RSA key of {bits} bits, and verifiers take none below {_FIRM}", "publish a longer key"
        )


def _damaged(kind: str, record: keys.KeyRecord, found: Mapping[str, Tag], why: str) -> Fault:
    """Say why ``p=`` holds no key of its algorithm, and what is right where that is evident."""
    tag, public = found["p"], record.public
    if _PRIVATE.search(tag.value):
        hint = "take it out at once, make another key, and publish the public half: reconciler dkim generate"
        return Fault("p=", "holds a private key, which everybody can read by now", hint, tag.at)
    plain = _ARMOUR.sub("", tag.value)
    if plain != tag.value and _is_key(kind, plain):
        return _shown(tag, "holds the lines of a PEM file", value="".join(plain.split()))
    other = next(item for item in keys.ALGORITHMS if item != kind)
    if _is_key(other, public):
        named = f"k={other}"
        cause = f"is a key of {other}, and the record says {'' if 'k' in found else 'by its silence '}k={kind}"
        written = found.get("k")
        if written is None:
            return Fault(tag.piece, cause, at=tag.at, instead=f"{named}; {tag.piece}")
        return Fault(written.piece, cause, at=written.at, instead=named)
    raw = _decoded(public)
    if kind == "ed25519" and raw.startswith(_WRAPPED):
        value = base64.b64encode(raw[len(_WRAPPED) :]).decode()
        return _shown(tag, "is wrapped, and an Ed25519 key is published bare (RFC 8463 section 4)", value=value)
    hint = "write p= with the whole key, from -----BEGIN PUBLIC KEY----- to its end, without these lines"
    return _shown(tag, f"{why}, so it is no key of {kind}", hint)


def _shown(tag: Tag, cause: str, hint: str = "", value: str | None = None) -> Fault:
    return Fault(tag.piece, cause, hint, tag.at, value and f"p={value}")


def _is_key(kind: str, text: str) -> bool:
    try:
        keys.public_key(kind, text)
    except (ValueError, IndexError):
        return False
    return True


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return b""
