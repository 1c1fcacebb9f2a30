"""DKIM keys as Stalwart 0.15 makes, reads and uses them, and the DNS records it proposes."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
)

from reconciler.simulator.stalwart.rest.answers import Failure

_HEADERS = ("From", "To", "Date", "Subject", "Message-ID")
ALGORITHMS = ("rsa-sha256", "ed25519-sha256")
_LETTERS = {"Rsa": "r", "Ed25519": "e"}
_ED25519_SEED = bytes.fromhex("06032b657004220420")  # OID 1.3.101.112, then the seed in two octet strings (RFC 8410)


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature that can sign."""

    domain: str
    selector: str
    algorithm: str  # rsa-sha256 | ed25519-sha256


def default_id(algorithm: str, domain: str) -> str:
    """Name the signature that the default rule signs with."""
    return f"{algorithm.lower()}-{domain}"


def new_signature(algorithm: str, domain: str, selector: str | None) -> dict[str, str]:
    """Make a key and return the settings below its id; ``algorithm`` is ``Rsa`` or ``Ed25519``."""
    today = dt.datetime.now(dt.UTC)
    return {
        "private-key": _new_rsa() if algorithm == "Rsa" else _new_ed25519(),
        "domain": domain,
        "selector": selector or f"{today:%Y%m}{_LETTERS[algorithm]}",
        "algorithm": f"{algorithm.lower()}-sha256",
        "canonicalization": "relaxed/relaxed",
        **{f"headers.{index}": name for index, name in enumerate(_HEADERS)},
        "report": "false",
    }


def _new_rsa() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return _pem("RSA PRIVATE KEY", key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption()))


def _new_ed25519() -> str:
    """Version 2 of PKCS#8, with the public key inside (RFC 5958): not every library can read that."""
    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes_raw()
    return _pem(
        "PRIVATE KEY",
        bytes.fromhex("30510201013005") + _ED25519_SEED + key.private_bytes_raw() + bytes.fromhex("812100") + public,
    )


def _pem(label: str, der: bytes) -> str:
    text = base64.b64encode(der).decode()
    lines = [text[start : start + 65] for start in range(0, len(text), 65)]  # 65, not the 64 of RFC 7468
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""])


def _der(pem: str) -> tuple[str, bytes]:
    match = re.search(r"-----BEGIN ([A-Z ]+)-----(.+?)-----END \1-----", pem, re.DOTALL)
    if not match:
        raise ValueError("no PEM block")
    try:
        return match[1], base64.b64decode(re.sub(r"\s", "", match[2]), validate=True)
    except binascii.Error as error:
        raise ValueError("no base64") from error


def public_key(algorithm: str, pem: str) -> str:
    """Return the base64 of ``p=``: of RSA the SubjectPublicKeyInfo, of Ed25519 the raw 32 bytes (RFC 8463).

    Raises `Failure`; an RSA key as PKCS#8 can't be read here, though it signs (observed.md).
    """
    reason = "Cryptography layer error: InvalidEncoding"
    try:
        label, der = _der(pem)
        public = _ed25519_public(der) if algorithm.startswith("ed25519") else _rsa_public(label, der)
    except ValueError as error:
        if algorithm.startswith("ed25519"):
            raise Failure("other", details="Crypto error", reason=f"Cryptography layer error: {reason}") from error
        raise Failure("other", details="Failed to read RSA DER", reason=reason) from error
    return base64.b64encode(public).decode()


def _ed25519_public(der: bytes) -> bytes:
    start = der.find(_ED25519_SEED) + len(_ED25519_SEED)
    if start < len(_ED25519_SEED) or len(der) < start + 32:
        raise ValueError("no Ed25519 key")
    return Ed25519PrivateKey.from_private_bytes(der[start : start + 32]).public_key().public_bytes_raw()


@functools.lru_cache(maxsize=256)
def _rsa_public(label: str, der: bytes, *, pkcs8: bool = False) -> bytes:
    """Return the public half. OpenSSL tests that the factors are prime, each time: 10 ms, at every reload."""
    if label != "RSA PRIVATE KEY" and not pkcs8:
        raise ValueError("not PKCS#1")
    key = load_der_private_key(der, None)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise ValueError("no RSA key")  # noqa: TRY004 (one kind of error for what can't be read)
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def readable_signature(keys: Mapping[str, str], name: str) -> Signature | None:
    """Read a signature for signing, where RSA may be PKCS#1 or PKCS#8; ``None`` when it can't sign."""
    parts = (keys.get(f"signature.{name}.{part}", "") for part in ("algorithm", "domain", "selector", "private-key"))
    algorithm, domain, selector, pem = parts
    if not domain or not selector or algorithm not in ALGORITHMS:
        return None
    try:
        label, der = _der(pem)
        if algorithm == "rsa-sha256":
            _rsa_public(label, der, pkcs8=True)
        else:
            _ed25519_public(der)
    except ValueError:
        return None
    return Signature(domain, selector, algorithm)


# ---------------------------------------------------------------------------------------------------------- signing
_STRING = r"'([^']*)'"


def signing_ids(rule: Iterable[tuple[str, str]], domain: str, *, local: bool) -> list[str]:
    """Name the signatures that ``auth.dkim.sign`` chooses for mail from a domain."""
    for condition, value in rule:
        if _holds(condition, domain, local=local):
            return ["".join(_terms(item, domain)) for item in _items(value)]
    return []


def _holds(condition: str, domain: str, *, local: bool) -> bool:
    if not condition:
        return True
    if re.fullmatch(r"is_local_domain\(\s*'[^']*'\s*,\s*sender_domain\s*\)", condition.strip()):
        return local
    match = re.fullmatch(rf"sender_domain\s*==\s*{_STRING}", condition.strip())
    return match is not None and match[1] == domain


def _items(value: str) -> list[str]:
    text = value.strip()
    if text in ("false", ""):
        return []
    return text[1:-1].split(",") if text.startswith("[") else [text]


def _terms(item: str, domain: str) -> Iterator[str]:
    for term in item.split("+"):
        text = term.strip()
        yield domain if text == "sender_domain" else text.strip("'\"")


# -------------------------------------------------------------------------------------------------------------- DNS
def dns_records(
    domain: str, hostname: str, signatures: Iterable[Mapping[str, str]], services: Iterable[tuple[str, int, bool]]
) -> list[dict[str, str]]:
    """Return the records the server would like; ``services`` are (protocol, port, implicit TLS)."""
    records = [("MX", f"{domain}.", f"10 {hostname}.")]
    if hostname != f"mail.{domain}":
        records.append(("CNAME", f"mail.{domain}.", f"{hostname}."))
    ordered = sorted(services, key=lambda item: (item[0], not item[2], item[1]))
    web = any(protocol == "http" and tls for protocol, _, tls in ordered)
    if web:
        records += [
            ("CNAME", f"{name}.{domain}.", f"{hostname}.") for name in ("autoconfig", "autodiscover", "mta-sts")
        ]
    records += _dkim_records(domain, signatures)
    if hostname == domain or hostname.endswith(f".{domain}"):  # twice the same name where they are equal
        records.append(("TXT", f"{hostname}.", "v=spf1 a ra=postmaster -all"))
    records.append(("TXT", f"{domain}.", "v=spf1 mx ra=postmaster -all"))
    records += _service_records(domain, hostname, ordered)
    if web:
        records.append(("TXT", f"_mta-sts.{domain}.", "v=STSv1; id=1"))
    address = f"mailto:postmaster@{domain}"
    records.append(("TXT", f"_dmarc.{domain}.", f"v=DMARC1; p=reject; rua={address}; ruf={address}"))
    records.append(("TXT", f"_smtp._tls.{domain}.", f"v=TLSRPTv1; rua={address}"))
    return [{"type": kind, "name": name, "content": content} for kind, name, content in records]


def _dkim_records(domain: str, signatures: Iterable[Mapping[str, str]]) -> Iterator[tuple[str, str, str]]:
    for item in signatures:
        if item.get("domain") == domain and "selector" in item:
            algorithm = item["algorithm"]
            try:
                key = public_key(algorithm, item.get("private-key", ""))
            except Failure:  # left out, as RSA in PKCS#8 is
                continue
            name = f"{item['selector']}._domainkey.{domain}."
            yield "TXT", name, f"v=DKIM1; k={algorithm.split('-')[0]}; h=sha256; p={key}"


def _service_records(
    domain: str, hostname: str, services: Iterable[tuple[str, int, bool]]
) -> Iterator[tuple[str, str, str]]:
    for protocol, port, tls in services:
        if protocol == "http" and tls:
            names = ["_jmap", "_caldavs", "_carddavs"]
        elif protocol == "smtp" and port > 25:
            names = ["_submissions" if tls else "_submission"]
        elif protocol in ("imap", "pop3"):
            names = [f"_{protocol}s" if tls else f"_{protocol}"]
        else:
            continue
        for name in names:
            yield "SRV", f"{name}._tcp.{domain}.", f"0 1 {port} {hostname}."
