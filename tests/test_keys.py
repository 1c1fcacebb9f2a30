"""DKIM keys: every form one meets, compared by what they are."""

from __future__ import annotations

import base64
import contextlib

import dkim
import dns.rdatatype
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from dns.rdataclass import IN
from dns.rdtypes.ANY.TXT import TXT
from hypothesis import given
from hypothesis import strategies as st

from reconciler import keys
from reconciler.dns.records import dkim_record

# RFC 8463, appendix A.2 and A.1: the private seed and the public key that is published for it.
RFC_SEED = "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A="
RFC_PUBLIC = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="


def pem(body):
    return f"-----BEGIN PRIVATE KEY-----\n{base64.b64encode(body).decode()}\n-----END PRIVATE KEY-----\n"


@pytest.fixture(scope="module")
def rsa_key():
    return rsa.generate_private_key(65537, 2048)


def encoded(key, form):
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()


def test_the_key_of_the_rfc():
    version1 = bytes.fromhex("302e020100300506032b657004220420") + base64.b64decode(RFC_SEED)
    assert keys.public_half("ed25519", pem(version1)) == RFC_PUBLIC


def test_a_key_that_stalwart_made_is_pkcs8_of_version_2():
    public = base64.b64decode(RFC_PUBLIC)
    version2 = bytes.fromhex("3051020101300506032b657004220420") + base64.b64decode(RFC_SEED) + b"\x81\x21\x00" + public
    assert keys.public_half("ed25519", pem(version2)) == RFC_PUBLIC
    again = keys.private_pem("ed25519", pem(version2))
    assert serialization.load_pem_private_key(again.encode(), None).public_key().public_bytes_raw() == public


def test_rsa_in_either_form_is_one_key(rsa_key):
    forms = (serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL)
    halves = {keys.public_half("rsa", encoded(rsa_key, form)) for form in forms}
    assert len(halves) == 1
    assert halves.pop().startswith("MIIBIjANBgkqhki")
    assert all(keys.private_pem("rsa", encoded(rsa_key, form)).startswith("-----BEGIN RSA") for form in forms)


def test_public_keys_are_compared_by_key(rsa_key):
    spki, pkcs1 = (
        base64.b64encode(rsa_key.public_key().public_bytes(serialization.Encoding.DER, form)).decode()
        for form in (serialization.PublicFormat.SubjectPublicKeyInfo, serialization.PublicFormat.PKCS1)
    )
    assert keys.public_key("rsa", spki) == keys.public_key("rsa", pkcs1) == spki
    assert keys.public_key("rsa", f"{spki[:250]}\n  {spki[250:]}") == spki
    assert keys.rsa_bits(spki) == 2048


@pytest.mark.parametrize(
    ("algorithm", "text"),
    [("ed25519", "AAAA"), ("ed25519", "no base64!"), ("rsa", "AAAA"), ("rsa", RFC_PUBLIC), ("rsa", "")],
)
def test_what_is_no_key_is_refused(algorithm, text):
    with pytest.raises(ValueError):
        keys.public_key(algorithm, text)


def test_a_key_of_the_other_algorithm_is_refused_without_showing_it(rsa_key):
    secret = encoded(rsa_key, serialization.PrivateFormat.PKCS8)
    for algorithm, text in (("ed25519", secret), ("rsa", pem(b"x")), ("rsa", "nothing")):
        with pytest.raises(ValueError) as caught:
            keys.public_half(algorithm, text)
        assert text not in str(caught.value)


@given(st.binary(max_size=300))
def test_arbitrary_bytes_never_break_the_reader(body):
    with contextlib.suppress(ValueError):
        keys.public_key("rsa", base64.b64encode(body).decode())


@pytest.mark.parametrize("part", ["p", "q", "d", "dmp1", "dmq1", "iqmp", "n"])
def test_a_damaged_rsa_key_is_refused_without_showing_it(rsa_key, part):
    numbers = rsa_key.private_numbers()
    value = getattr(numbers.public_numbers if part == "n" else numbers, part)
    form = (serialization.Encoding.DER, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
    size = (value.bit_length() + 7) // 8
    raw = rsa_key.private_bytes(*form).replace(value.to_bytes(size), (value ^ 2).to_bytes(size))
    body = base64.encodebytes(raw).decode()
    with pytest.raises(ValueError, match="its numbers do not belong together"):
        keys.public_half("rsa", f"-----BEGIN RSA PRIVATE KEY-----\n{body}-----END RSA PRIVATE KEY-----\n")


def test_generated_keys_survive_the_way_there_and_back():
    key = ed25519.Ed25519PrivateKey.generate()
    text = encoded(key, serialization.PrivateFormat.PKCS8)
    assert keys.private_pem("ed25519", text).strip() == text.strip()


# ------------------------------------------------------------------------------------------------------- made by us
MESSAGE = b"From: noreply@mana.how\r\nTo: you@example.com\r\nSubject: keys\r\n\r\nSigned.\r\n"


def signed(algorithm, pem):
    """Sign a message as the server would; the library takes an Ed25519 key as the base64 of its seed."""
    if algorithm == "ed25519":
        loaded = serialization.load_pem_private_key(pem.encode(), None)
        pem = base64.b64encode(loaded.private_bytes_raw()).decode()
    header = dkim.sign(
        MESSAGE, b"s1", b"mana.how", pem.encode(), signature_algorithm=f"{algorithm}-sha256".encode(), linesep=b"\r\n"
    )
    return header + MESSAGE


def verified(message, value):
    """Verify a message while DNS shows a value: in character-strings of 255 bytes, which a verifier joins."""
    strings = [value[start : start + 255] for start in range(0, len(value), 255)]
    data = TXT(IN, dns.rdatatype.TXT, [item.encode() for item in strings])
    return dkim.verify(message, dnsfunc=lambda *_, **__: b"".join(data.strings))


@pytest.mark.parametrize("algorithm", ["ed25519", "rsa"])
def test_a_generated_key_signs_what_the_record_verifies(algorithm):
    pem, other = keys.generate(algorithm), keys.generate(algorithm)
    assert keys.private_pem(algorithm, pem) == pem
    record = dkim_record("mana.how", "mana.how", "s1", algorithm, keys.public_half(algorithm, pem))
    wrong = dkim_record("mana.how", "mana.how", "s1", algorithm, keys.public_half(algorithm, other))
    message = signed(algorithm, pem)
    assert verified(message, record.content)
    assert not verified(message, wrong.content)
    assert not verified(message.replace(b"Signed", b"Forged"), record.content)


def test_a_generated_rsa_key_verifies_in_both_public_forms():
    pem = keys.generate("rsa")
    assert keys.rsa_bits(keys.public_half("rsa", pem)) == 2048
    assert keys.rsa_bits(keys.public_half("rsa", keys.generate("rsa", 1024))) == 1024
    public = serialization.load_pem_private_key(pem.encode(), None).public_key()
    for form in (serialization.PublicFormat.SubjectPublicKeyInfo, serialization.PublicFormat.PKCS1):
        text = base64.b64encode(public.public_bytes(serialization.Encoding.DER, form)).decode()
        assert keys.public_key("rsa", text) == keys.public_half("rsa", pem)
        assert verified(signed("rsa", pem), f"v=DKIM1; k=rsa; h=sha256; p={text}")


def test_generated_keys_differ_and_no_other_algorithm_takes_them():
    made = {algorithm: keys.generate(algorithm) for algorithm in ("ed25519", "rsa")}
    assert keys.generate("ed25519") != made["ed25519"]
    for algorithm, other in (("ed25519", "rsa"), ("rsa", "ed25519")):
        with pytest.raises(ValueError, match=algorithm):
            keys.public_half(algorithm, made[other])
