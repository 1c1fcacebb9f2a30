"""Signatures of messages, verified: dkimpy signs, and judges beside our own verifier whatever was done to a message."""

from __future__ import annotations

import base64
import datetime as dt
import re
from functools import cache
from typing import Any

import dkim
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import example, given
from hypothesis import strategies as st

from reconciler.dkim.verification import signatures, verify

NOW = dt.datetime(2026, 11, 30, tzinfo=dt.UTC)
MESSAGE = (
    b"From: Anna <anna@example.org>\r\nTo: b@there.example,\r\n\tc@there.example\r\n"
    b"Subject:  a   folded\r\n subject \r\n"
    b"Date: Mon, 30 Nov 2026 01:00:00 +0000\r\nMessage-ID: <1@example.org>\r\n\r\n"
    b"hello  there \r\n\r\n\tindented\t \r\n\r\n\r\n"
)
FORMS = [(head, body) for head in (b"simple", b"relaxed") for body in (b"simple", b"relaxed")]
ALGORITHMS = ("rsa-sha256", "ed25519-sha256")


@cache
def key(algorithm: str) -> tuple[bytes, str]:
    """Return a private key as dkimpy takes it, and the record of its public half."""
    if algorithm == "rsa-sha256":
        pair = rsa.generate_private_key(65537, 2048)
        pem = pair.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        der = pair.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return pem, f"v=DKIM1; k=rsa; p={base64.b64encode(der).decode()}"
    made = Ed25519PrivateKey.generate()
    raw = made.public_key().public_bytes_raw()
    return base64.b64encode(made.private_bytes_raw()), f"v=DKIM1; k=ed25519; p={base64.b64encode(raw).decode()}"


@cache
def signed(algorithm: str, form: tuple[bytes, bytes] = (b"relaxed", b"relaxed"), raw: bytes = MESSAGE) -> bytes:
    names = [b"from", b"to", b"subject", b"date", b"message-id", b"from"]
    made: bytes = dkim.sign(
        raw,
        b"s1",
        b"example.org",
        key(algorithm)[0],
        canonicalize=form,
        signature_algorithm=algorithm.encode(),
        include_headers=names,
    )
    return made + raw


def state(raw: bytes, record: str, number: int = 0) -> str:
    return verify(signatures(raw)[number], [record], NOW).state


def judged(raw: bytes, record: str) -> bool:
    """Let dkimpy judge; whatever it does not accept is no."""
    try:
        return bool(dkim.DKIM(raw).verify(dnsfunc=lambda *_, **__: record.encode()))
    except (dkim.DKIMException, ValueError, TypeError, IndexError, KeyError, UnicodeDecodeError):
        return False


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("form", FORMS)
def test_what_dkimpy_signs_verifies(algorithm: str, form: tuple[bytes, bytes]) -> None:
    raw, record = signed(algorithm, form), key(algorithm)[1]
    assert judged(raw, record)
    assert state(raw, record) == "valid"
    (found,) = signatures(raw)
    assert (found.place, found.algorithm) == ("s1._domainkey.example.org", algorithm)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("form", FORMS)
@given(data=st.data())
def test_whatever_is_done_to_a_message_dkimpy_and_we_agree(
    algorithm: str, form: tuple[bytes, bytes], data: Any
) -> None:
    raw, record = signed(algorithm, form), key(algorithm)[1]
    at = data.draw(st.integers(0, len(raw) - 1))
    instead = data.draw(st.sampled_from([b"", b" ", b"\t", b"\r\n ", b"x", b"\r\n", b"=", b":", b";", b"A"]))
    changed = raw[:at] + instead + raw[at + data.draw(st.integers(0, 2)) :]
    changed += b"" if changed.endswith(b"\r\n") else b"\r\n"  # as SMTP hands it on
    found = signatures(changed)
    ours = bool(found) and state(changed, record) == "valid"
    # Of what the two read apart, only what dkimpy takes and we do not is asked for: it parses what is no header field.
    if ours:
        assert judged(changed, record), changed
    elif judged(changed, record):
        assert _is_malformed(changed), changed


def _is_malformed(raw: bytes) -> bool:
    """Whether the header holds a line that is no field, or a tag list that is none, which dkimpy forgives."""
    head = raw.partition(b"\r\n\r\n")[0]
    lines = re.sub(rb"\r\n[ \t]", b"", head).split(b"\r\n")
    own = next((line for line in lines if line.lower().startswith(b"dkim-signature")), b"")
    return (
        any(not re.match(rb"[!-9;-~]+[ \t]*:", line) for line in lines)
        or b"\n" in head.replace(b"\r\n", b"")
        or not own
    )


@given(raw=st.binary(max_size=400), record=st.text(max_size=80))
@example(b"DKIM-Signature: v=1; a=rsa-sha256; d=\xff; s=a; h=from; bh=a; b=a\r\n\r\n", "v=DKIM1; p=")
@example(b"DKIM-Signature: v=1; a=rsa-sha256; d=a.example; s=a; h=from; bh=a; b=a; x=99999999999\r\n\r\n", "p=AA")
def test_nothing_that_a_mail_or_dns_holds_raises(raw: bytes, record: str) -> None:
    for head in (b"", b"DKIM-Signature: v=1; a=ed25519-sha256; d=a.example; s=a; h=from; bh="):
        for item in signatures(head + raw):
            assert verify(item, [record], NOW).state in ("no-key", "altered", "differs", "broken")


RSA = ALGORITHMS[0]


@pytest.mark.parametrize(
    ("old", "new", "wanted"),
    [
        (rb"hello", b"hullo", "altered"),
        (rb"Subject:  a", b"Subject: b", "differs"),
        (rb"v=1;", b"v=2;", "broken"),
        (rb"a=rsa-sha256", b"a=rsa-sha1", "broken"),
        (rb"h=from[^;]*;", b"h=to;", "broken"),
        (rb"i=@example.org", b"i=@elsewhere.example", "broken"),
        (rb"s=s1;", b"s=s1; x=1;", "broken"),
        (rb"s=s1;", b"s=s1; x=never;", "broken"),
        (rb"s=s1;", b"s=s1; s=s2;", "broken"),
        (rb"s=s1;", b"s=s1; l=99999;", "altered"),
    ],
)
def test_what_is_wrong_with_a_signature_is_told_apart(old: bytes, new: bytes, wanted: str) -> None:
    changed = re.sub(old, new, signed(RSA), count=1)
    assert changed != signed(RSA)
    assert state(changed, key(RSA)[1]) == wanted
    assert not judged(changed, key(RSA)[1])


@pytest.mark.parametrize(
    "record",
    ["", "hello", "v=DKIM1; p=", "v=DKIM1; k=ed25519; p=AAAA", "v=DKIM1; k=rsa; p=AAAA", "v=DKIM1; h=sha1; p={}"],
)
def test_what_is_no_key_for_it_is_told_as_that(record: str) -> None:
    text = record.replace("{}", key(RSA)[1].rpartition("p=")[2])
    assert state(signed(RSA), text) == "no-key"
    assert not judged(signed(RSA), text) or "h=sha1" in text  # which dkimpy does not look at (RFC 6376 3.6.1)
    assert verify(signatures(signed(RSA))[0], [], NOW).words == "DNS shows no key"
    assert "2 keys" in verify(signatures(signed(RSA))[0], [text, text], NOW).words


def test_a_key_that_is_too_short_is_none() -> None:
    modulus = b"\x02\x60" + b"\x7f" * 0x60  # 768 bits, which cryptography no longer makes
    der = b"\x30" + bytes([len(modulus) + 5]) + modulus + b"\x02\x03\x01\x00\x01"
    record = f"v=DKIM1; p={base64.b64encode(der).decode()}"
    assert "less than 1024 bits" in verify(signatures(signed(RSA))[0], [record], NOW).words


def test_two_signatures_are_verified_each_with_its_own_key() -> None:
    both = signed(ALGORITHMS[1]).removesuffix(MESSAGE) + signed(RSA)
    assert [item.algorithm for item in signatures(both)] == [ALGORITHMS[1], RSA]
    assert state(both, key(ALGORITHMS[1])[1], 0) == state(both, key(RSA)[1], 1) == "valid"
    assert state(both, key(RSA)[1], 0) == "no-key"  # of another algorithm


def test_a_field_that_is_added_under_an_over_signed_name_breaks_it() -> None:
    changed = signed(RSA).replace(b"From: Anna", b"From: Eve <eve@example.org>\r\nFrom: Anna", 1)
    assert state(changed, key(RSA)[1]) == "differs"
    assert not judged(changed, key(RSA)[1])
