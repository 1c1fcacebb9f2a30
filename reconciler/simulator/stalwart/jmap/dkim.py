"""DKIM keys and the DNS zone as Stalwart 0.16 makes and shows them."""

from __future__ import annotations

import base64
import datetime as dt
import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from reconciler.simulator.stalwart.jmap import registry
from reconciler.simulator.stalwart.jmap.store import Object, SetFailure, Store

_RSA_BITS = 2048  # the least that it takes
_BROKEN = "Failed to validate DKIM signature: DKIM build error (dkim.build-error): reason = "
Read = Callable[[Mapping[str, Any]], str]  # of a SecretText; raises OSError where there is no such file or variable
_REQUIRED = ("secret", "domainId", "selector")  # in the server's order


def algorithm(signature: Mapping[str, Any]) -> str:
    """Return ``rsa`` or ``ed25519``."""
    return "rsa" if "Rsa" in signature["@type"] else "ed25519"


def check(signature: Mapping[str, Any], old: Mapping[str, Any] | None, read: Read) -> None:
    """Try to build a signer of a signature's key when it changed. Raises `SetFailure`."""
    if old is not None and old["privateKey"] == signature["privateKey"]:
        return
    errors = {error["property"] for error in registry.validate("DkimSignature", signature)}
    if missing := [name for name in _REQUIRED if name in errors]:
        details = ", ".join(f"Property '{name}' is required" for name in missing)
        raise SetFailure("invalidProperties", f"{_BROKEN}DKIM signature validation failed, details = [{details}]")
    try:
        _load(signature, read)
    except OSError as error:
        raise SetFailure("invalidProperties", f"{_BROKEN}{error}") from error
    except ValueError as error:
        what = f"Cryptography layer error: {error}, details = Failed to build {algorithm(signature).upper()} key"
        raise SetFailure("invalidProperties", f"{_BROKEN}{what}") from error


def _load(signature: Mapping[str, Any], read: Read) -> rsa.RSAPrivateKey | Ed25519PrivateKey:
    """Return the private key. Raises OSError where the container has no such file, ValueError for what is no key."""
    secret = read(signature["privateKey"])
    key = _parsed(secret)
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size < _RSA_BITS:
        raise ValueError("TooSmall")
    if isinstance(key, rsa.RSAPrivateKey if algorithm(signature) == "rsa" else Ed25519PrivateKey):
        return key
    raise ValueError("WrongAlgorithm")


@functools.lru_cache(maxsize=256)
def _parsed(secret: str) -> Any:
    """Return a private key. OpenSSL tests that the factors of an RSA key are prime, each time: 10 ms."""
    try:
        return load_pem_private_key(secret.encode(), None)
    except ValueError as error:
        raise ValueError("InvalidEncoding") from error


def public_key(signature: Mapping[str, Any], read: Read) -> str | None:
    """Return the base64 of ``p=``, nothing for a key that can't be read any more."""
    try:
        public = _load(signature, read).public_key()
    except (OSError, ValueError):
        return None
    if isinstance(public, rsa.RSAPublicKey):
        return base64.b64encode(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()
    return base64.b64encode(public.public_bytes_raw()).decode()


def new_signature(domain_id: str, variant: str, template: str, now: float) -> Object:
    """Make a key as the server does for a domain whose ``dkimManagement`` is automatic."""
    key: rsa.RSAPrivateKey | Ed25519PrivateKey
    if "Rsa" in variant:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    else:
        key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    signature = registry.new("DkimSignature", variant)
    signature |= {"domainId": domain_id, "privateKey": {"@type": "Text", "secret": pem}}
    signature["selector"] = _selector(template, algorithm(signature), now)
    return signature


def _selector(template: str, name: str, now: float) -> str:
    text = template.replace("{version}", "1").replace("{algorithm}", name)
    head, found, rest = text.partition("{date-")
    if not found:
        return text
    form, _, tail = rest.partition("}")
    return f"{head}{dt.datetime.fromtimestamp(now, dt.UTC):{form}}{tail}"


# ---------------------------------------------------------------------------------------------------------------- DNS
_SERVICES = (("caldavs", 443), ("carddavs", 443), ("imaps", 993), ("jmap", 443), ("pop3s", 995), ("submissions", 465))


def zone(store: Store, domain_id: str, domain: Mapping[str, Any], hostname: str, read: Read) -> str:
    """Write the records the server would like, in the format of a zone file (``dnsZoneFile``)."""
    records = [*_keys(store, domain_id, domain["name"], read), *_records(domain["name"], hostname)]
    return "".join(f"{name}. IN {record}\n" for name, record in records)


def _keys(store: Store, domain_id: str, name: str, read: Read) -> Iterator[tuple[str, str]]:
    for _, signature in store.all("DkimSignature"):
        if signature["domainId"] == domain_id and (key := public_key(signature, read)):
            text = f"v=DKIM1; k={algorithm(signature)}; h=sha256; p={key}"
            yield f"{signature['selector']}._domainkey.{name}", f"TXT {_quoted(text)}"


def _records(name: str, hostname: str) -> Iterator[tuple[str, str]]:
    if hostname.endswith(f".{name}"):
        yield hostname, 'TXT "v=spf1 a -all"'
    yield name, 'TXT "v=spf1 mx -all"'
    yield name, f"MX 10 {hostname}."
    yield f"_dmarc.{name}", f'TXT "v=DMARC1; p=reject; rua=mailto:postmaster@{name}"'
    for service, port in _SERVICES:
        yield f"_{service}._tcp.{name}", f"SRV 0 1 {port} {hostname}."
    digest = hashlib.sha256(hostname.encode()).digest()
    yield f"mta-sts.{name}", f"CNAME {hostname}."
    yield f"_mta-sts.{name}", f'TXT "v=STSv1; id={int.from_bytes(digest[:7])}"'
    yield f"_smtp._tls.{name}", f'TXT "v=TLSRPTv1; rua=mailto:postmaster@{name}"'
    yield f"ua-auto-config.{name}", f"CNAME {hostname}."
    yield f"_ua-auto-config.{name}", f'TXT "v=UAAC1; a=sha256; d={base64.b64encode(digest).decode()}"'
    yield f"autoconfig.{name}", f"CNAME {hostname}."
    yield f"autodiscover.{name}", f"CNAME {hostname}."


def _quoted(text: str) -> str:
    """Write a text in strings of 255 characters at most (RFC 1035, section 3.3), in lines where there are several."""
    parts = [text[start : start + 255] for start in range(0, len(text), 255)]
    if len(parts) == 1:
        return f'"{text}"'
    return "(\n" + "\n".join(f'    "{part}"' for part in parts) + "\n)"
