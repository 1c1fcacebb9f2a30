"""What is known about Stalwart's settings without asking a server: words, keys, where they live, what they cost."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any

from reconciler.desired import objects
from reconciler.resources import AllowedIp, Listener, Resource, Setting, Signature

WORD_KEYS = {
    "hostname": "lookup.default.hostname",
    "default_domain": "report.domain",
    "auto_ban/auth": "server.auto-ban.auth.rate",
    "auto_ban/abuse": "server.auto-ban.abuse.rate",
    "auto_ban/loiter": "server.auto-ban.loiter.rate",
    "auto_ban/scan": "server.auto-ban.scan.rate",
}
"""The neutral words that are one key up to 0.15. ``server.hostname`` would do for the first, but lives in the file."""

DEFAULT_RATES = {
    "auto_ban/auth": "100/1d",
    "auto_ban/abuse": "35/1d",
    "auto_ban/loiter": "150/1d",
    "auto_ban/scan": "30/1d",
}
"""What holds while a ban rate is not set (0.15: common/src/listener/blocked.rs; 0.16 the same)."""

LONGEST = 512
"""Bytes of one text that is no setting (rest-0.15.md section 2); longer ones are refused, or in lists dropped without a
word."""

ALLOWED_IP, LISTENER, SIGNATURE = "server.allowed-ip.", "server.listener.", "signature."

LOCAL_KEYS = (
    *("store.*", "directory.*", "tracer.*", "server.*", "!server.blocked-ip.*", "!server.allowed-ip.*"),
    *("certificate.*", "config.local-keys.*", "authentication.fallback-admin.*", "cluster.*", "storage.data"),
    *("storage.blob", "storage.lookup", "storage.fts", "storage.directory", "enterprise.license-key"),
)
"""Which keys live in ``config.toml`` and not in the database (0.15: common/src/manager/config.rs); ``!`` wins."""

_OFF = {"off", "false", "never", "disable", "0", ""}
_RATE = re.compile(r"(\d+)\s*/\s*(\d+)\s*(ms|s|m|h|d)")
_KNOWN = frozenset(
    (
        *("acme", "ai", "asn", "auth", "authentication", "bayes", "cache", "calendar", "certificate", "changes"),
        *("cluster", "config", "contacts", "dane", "dav", "directory", "dns", "dnsbl", "email", "enterprise", "eval"),
        *("file-storage", "form", "global", "http", "http-lookup", "imap", "jmap", "lookup", "management", "metrics"),
        *("oauth", "object", "push", "queue", "report", "resolver", "schedule", "session", "sharing", "sieve"),
        *("signature", "spam-filter", "storage", "store", "task", "telemetry", "tracer", "tracing", "version"),
        *("webadmin", "webhook"),
    )
)
_KNOWN_OF_SERVER = frozenset(
    (
        *("allowed-ip", "asn", "auto-ban", "blocked-ip", "fail2ban", "hostname", "http", "listener"),
        *("max-connections", "proxy", "run-as", "socket", "tls"),
    )
)
_SECRET = re.compile(
    r"(^|[.-])(secret|password|passwd|token|(private|api|signature|secret|account|hmac|license|azure-access)-key)(\.|$)"
)
_PARENTS = ((ALLOWED_IP, "allowed_ips"), (LISTENER, "listeners"), ("server.auto-ban.", "auto_ban"), (SIGNATURE, "dkim"))


def ban_rate(value: Any) -> str:
    """Normalise a ban rate to ``off`` or ``30/1d``; raises ValueError when it is neither.

    The server takes ``false``, ``never``, ``disable``, ``0`` and the empty text as off (observed.md, 0.15.5).
    """
    text = str(value).strip().lower()
    if text in _OFF:
        return "off"
    match = _RATE.fullmatch(text)
    if not match or not int(match[1]) or not int(match[2]):
        raise ValueError("must be off, or a rate such as 30/1d: so many in so many ms, s, m, h or d")
    return f"{int(match[1])}/{int(match[2])}{match[3]}"


def word_of(key: str) -> str | None:
    """Name the neutral word that a raw key is the other spelling of; None where there is none."""
    for word, own in WORD_KEYS.items():
        if key == own:
            return word
    if key.startswith(LISTENER) and not _OF_LISTENER.search(key):
        return None  # of these there are some twenty, most of them of the socket
    return next((word for prefix, word in _PARENTS if key.startswith(prefix)), None)


_OF_LISTENER = re.compile(
    r"\.(bind|protocol|proxy\.trusted-networks|max-connections"
    r"|tls\.(implicit|enable|disable-protocols|disable-ciphers|ignore-client-order|timeout)"
    r"|socket\.(backlog|nodelay|reuse-addr|reuse-port|send-buffer-size|recv-buffer-size|ttl|tos))(\.\d+)?$"
)


def is_known(key: str) -> bool:
    """Whether a version up to 0.15 has settings that begin like a raw key.

    A key the server does not know is stored and never read: `server.security.analysis.scan-ban`, which guides
    recommend, is one (setup-findings.md 4).
    """
    first, _, rest = key.partition(".")
    if first == "server":
        return rest.partition(".")[0] in _KNOWN_OF_SERVER
    return first in _KNOWN and bool(rest)


def is_secret(key: str) -> bool:
    """Whether what a raw key holds is a secret, by its name."""
    return _SECRET.search(key) is not None


def in_config_file(key: str, patterns: Iterable[str] = LOCAL_KEYS) -> bool:
    """Whether a raw key lives in ``config.toml``; ``config.local-keys`` there may give other patterns."""
    patterns = tuple(patterns)
    if any(fnmatchcase(key, item[1:]) for item in patterns if item.startswith("!")):
        return False
    return any(fnmatchcase(key, item) for item in patterns)


_ENTRY = re.compile(r"(.+)\.\d+(\.(if|then|else))?")


def list_of(key: str) -> str:
    """Name the list that a raw key is an entry of, as ``session.rcpt.relay.0.if`` of ``session.rcpt.relay``; or "".

    The server reads such a list whole, and takes none of its settings where it is broken.
    """
    entry = _ENTRY.fullmatch(key)
    return entry[1] if entry else ""


def raw_key(resource: Setting) -> str:
    """Return the key that a word or ``settings/KEY`` is stored under up to 0.15."""
    return WORD_KEYS.get(resource.word) or resource.word.removeprefix("settings/")


def notes(resource: Resource, generation: str | None) -> tuple[str, ...]:
    """Say what a change of this resource brings along. ``generation`` is ``rest``, ``jmap``, or None when unknown."""
    said = []
    if generation == "rest" and _local(resource):
        said.append("the server rewrites config.toml and drops its comments")
    if isinstance(resource, Listener):
        said.append("in force only after a restart of the container")
    of_listener = isinstance(resource, Setting) and raw_key(resource).startswith(LISTENER)
    if isinstance(resource, Setting) and (of_listener or objects.needs_restart(resource)):
        said.append("in force only after a restart of the container")
    elif generation == "jmap" and isinstance(resource, Setting | AllowedIp):
        said.append("in force after the reload that ends apply")
    elif generation == "jmap" and isinstance(resource, Signature):
        said.append("in force after the caches are emptied, which ends apply")
    return tuple(said)


def _local(resource: Resource) -> bool:
    if isinstance(resource, Setting):
        return in_config_file(raw_key(resource))
    return isinstance(resource, Listener)
