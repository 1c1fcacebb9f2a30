"""What a receiver of mail sees: signs as the mail server would by now, and verifies by what each name server shows."""

from __future__ import annotations

import base64
import datetime as dt
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import dkim
import dns.message
import dns.query
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from .stagefixtures import OUR_ZONES, Stack

SEED = bytes.fromhex("06032b657004220420")  # OID 1.3.101.112, then the seed in two octet strings (RFC 8410)
RETRIES = dt.timedelta(days=7)  # how long a message may wait in a queue


@dataclass(frozen=True, slots=True)
class Signer:
    """A key that the server signs with."""

    domain: str
    selector: str
    algorithm: str  # rsa-sha256 | ed25519-sha256
    private: str = field(repr=False)

    def __str__(self) -> str:
        return f"{self.domain}/{self.selector}"

    def sign(self) -> bytes:
        """Return a message with its signature."""
        message = f"From: a@{self.domain}\r\nTo: b@there.example\r\nSubject: it\r\n\r\nhello\r\n".encode()
        words = (self.selector.encode(), self.domain.encode(), self._key())
        headers = [b"from", b"to", b"subject"]
        signature: bytes = dkim.sign(
            message, *words, signature_algorithm=self.algorithm.encode(), include_headers=headers
        )
        return signature + message

    def _key(self) -> bytes:
        """Return the key as dkimpy takes it: RSA as PKCS#1, of Ed25519 the seed."""
        if self.algorithm == "rsa-sha256":
            key = load_pem_private_key(self.private.encode(), None)
            return key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        der = base64.b64decode("".join(re.findall(r"(?m)^[A-Za-z0-9+/=]+$", self.private)))
        start = der.index(SEED) + len(SEED)
        return base64.b64encode(der[start : start + 32])


def signers(stack: Stack) -> Iterator[Signer]:
    """Yield the keys that mail from our domains is signed with now, as the server holds them."""
    keys = dict(_jmap_keys(stack) if stack.generation == "jmap" else _rest_keys(stack))
    for domain, selector, algorithm in stack.stage.stalwart.signing():
        if domain in OUR_ZONES:
            yield Signer(domain, selector, algorithm, keys[domain, selector])


def _rest_keys(stack: Stack) -> Iterator[tuple[tuple[str, str], str]]:
    running = stack.rest.dump()["running"]
    for name, selector in running.items():
        if name.startswith("signature.") and name.endswith(".selector"):
            head = name.removesuffix("selector")
            yield (running[f"{head}domain"], selector), running[f"{head}private-key"]


def _jmap_keys(stack: Stack) -> Iterator[tuple[tuple[str, str], str]]:
    store = stack.jmap.store
    for _, item in store.all("DkimSignature"):
        domain = store.get("Domain", item["domainId"])
        if domain is not None:
            yield (domain["name"], item["selector"]), stack.jmap.secret_text(item["privateKey"])


def refusal(message: bytes, server: str) -> str:
    """Verify a message by what one name server shows, and return why it fails; nothing where it does not."""
    asked = []

    def text(name: bytes, timeout: float = 5) -> bytes:
        host, _, port = server.partition(":")
        query = dns.message.make_query(name.decode(), "TXT", use_edns=0)
        reply, _ = dns.query.udp_with_fallback(query, host, port=int(port), timeout=timeout)
        found = [b"".join(item.strings) for rrset in reply.answer for item in rrset]
        asked.append(found)
        return found[0] if len(found) == 1 else b""  # what of several counts is open (RFC 6376 section 3.6.2.2)

    try:
        verified = dkim.DKIM(message).verify(dnsfunc=text)
    except dkim.DKIMException as error:
        return f"{type(error).__name__}: {error} ({asked})"
    return "" if verified else f"the signature is wrong ({asked})"


class Receivers:
    """Everybody who gets our mail, at once or days later. ``wrong`` is what went wrong for one of them.

    At every look, by every name server: what is signed now verifies, what was signed in the last seven days still
    does, and each of our domains has a key of each algorithm that signs.
    """

    def __init__(self, stack: Stack, today: dt.date) -> None:
        self.stack, self.today = stack, today
        self.wrong: list[str] = []
        self.looks = 0
        self.last: dict[Signer, dt.date] = {}
        self._messages: dict[Signer, bytes] = {}
        self._lock = threading.Lock()

    def look(self, when: str) -> None:
        """Look at the world; called from the servers' threads, whose exceptions nobody would see."""
        with self._lock:
            self.looks += 1
            try:
                self.wrong += [f"{when}: {item}" for item in self._found()]
            except Exception as error:  # noqa: BLE001 (whatever it is, the test must hear of it)
                self.wrong.append(f"{when}: {error!r}")

    def _found(self) -> Iterator[str]:
        now = set(signers(self.stack))
        self.last |= dict.fromkeys(now, self.today)
        for domain in OUR_ZONES:
            for algorithm in ("rsa-sha256", "ed25519-sha256"):
                if not any((item.domain, item.algorithm) == (domain, algorithm) for item in now):
                    yield f"nothing signs for {domain} with {algorithm}"
        for signer, day in self.last.items():
            if self.today - day > RETRIES:
                continue
            message = self._messages.get(signer) or self._messages.setdefault(signer, signer.sign())
            for server in self.stack.stage.dns.servers:
                if why := refusal(message, server):
                    yield f"{signer}, which signed last on {day}, fails at {server}: {why}"

    def all_is_well(self) -> None:
        """See that nothing went wrong so far."""
        self.look("at rest")
        assert self.wrong == []

    def forgetting(self) -> Callable[[], None]:
        """Return what goes back to what is known now, for a stage that is put back."""
        last, today = dict(self.last), self.today

        def back() -> None:
            self.last, self.today = dict(last), today

        return back
