"""The settings of Stalwart 0.15: flat keys in ``config.toml`` and in the database, and the core built from them."""

from __future__ import annotations

import functools
import ipaddress
import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from reconciler.simulator.stalwart.bans import Network, Rate
from reconciler.simulator.stalwart.listeners import Listener
from reconciler.simulator.stalwart.problems import HttpProblem
from reconciler.simulator.stalwart.rest import recipients
from reconciler.simulator.stalwart.rest.answers import Failure, malformed
from reconciler.simulator.stalwart.rest.dkim import Signature, readable_signature

# Which keys live in the file (rest-0.15.md, section 5); a pattern with "!" wins over the others.
LOCAL_KEYS = (
    "store.*",
    "directory.*",
    "tracer.*",
    "server.*",
    "!server.blocked-ip.*",
    "!server.allowed-ip.*",
    "certificate.*",
    "config.local-keys.*",
    "authentication.fallback-admin.*",
    "cluster.*",
    "storage.data",
    "storage.blob",
    "storage.lookup",
    "storage.fts",
    "storage.directory",
    "enterprise.license-key",
)

# What a first start puts into the database and nobody else should ever prune.
DEFAULT_SETTINGS = {
    "queue.connection.default.description": "Default connection settings",
    "queue.connection.default.timeout.connect": "5m",
    "queue.limiter.inbound.ip.enable": "true",
    "queue.limiter.inbound.ip.key": "remote_ip",
    "queue.limiter.inbound.ip.rate": "5/1s",
    "queue.limiter.inbound.sender.enable": "true",
    "queue.limiter.inbound.sender.key.0": "sender_domain",
    "queue.limiter.inbound.sender.key.1": "rcpt",
    "queue.limiter.inbound.sender.rate": "25/1h",
    "queue.quota.size.enable": "true",
    "queue.quota.size.messages": "100000",
    "queue.quota.size.size": "10737418240",
    "queue.route.local.description": "Local delivery route",
    "queue.route.local.type": "local",
    "queue.route.mx.description": "MX delivery route",
    "queue.route.mx.ip-lookup": "ipv4_then_ipv6",
    "queue.route.mx.limits.multihomed": "2",
    "queue.route.mx.limits.mx": "5",
    "queue.route.mx.type": "mx",
    "queue.schedule.dsn.description": "Delivery Status Notification delivery schedule",
    "queue.schedule.dsn.expire-type": "attempts",
    "queue.schedule.dsn.max-attempts": "10",
    "queue.schedule.dsn.queue-name": "dsn",
    "queue.schedule.dsn.retry.0": "15m",
    "queue.schedule.dsn.retry.1": "30m",
    "queue.schedule.dsn.retry.2": "1h",
    "queue.schedule.dsn.retry.3": "2h",
    "queue.schedule.local.description": "Local delivery schedule",
    "queue.schedule.local.expire": "3d",
    "queue.schedule.local.expire-type": "ttl",
    "queue.schedule.local.notify.0": "1d",
    "queue.schedule.local.notify.1": "3d",
    "queue.schedule.local.queue-name": "local",
    "queue.schedule.local.retry.0": "2m",
    "queue.schedule.local.retry.1": "5m",
    "queue.schedule.local.retry.2": "10m",
    "queue.schedule.local.retry.3": "15m",
    "queue.schedule.local.retry.4": "30m",
    "queue.schedule.local.retry.5": "1h",
    "queue.schedule.local.retry.6": "2h",
    "queue.schedule.remote.description": "Remote delivery schedule",
    "queue.schedule.remote.expire": "3d",
    "queue.schedule.remote.expire-type": "ttl",
    "queue.schedule.remote.notify.0": "1d",
    "queue.schedule.remote.notify.1": "3d",
    "queue.schedule.remote.queue-name": "remote",
    "queue.schedule.remote.retry.0": "2m",
    "queue.schedule.remote.retry.1": "5m",
    "queue.schedule.remote.retry.2": "10m",
    "queue.schedule.remote.retry.3": "15m",
    "queue.schedule.remote.retry.4": "30m",
    "queue.schedule.remote.retry.5": "1h",
    "queue.schedule.remote.retry.6": "2h",
    "queue.schedule.report.description": "DMARC and TLS report delivery schedule",
    "queue.schedule.report.expire-type": "attempts",
    "queue.schedule.report.max-attempts": "8",
    "queue.schedule.report.queue-name": "report",
    "queue.schedule.report.retry.0": "30m",
    "queue.schedule.report.retry.1": "1h",
    "queue.schedule.report.retry.2": "2h",
    "queue.tls.default.allow-invalid-certs": "false",
    "queue.tls.default.description": "Default TLS settings",
    "queue.tls.invalid-tls.allow-invalid-certs": "true",
    "queue.tls.invalid-tls.description": "Allow invalid TLS certificates",
    "queue.virtual.dsn.description": "Delivery Status Notification delivery queue",
    "queue.virtual.dsn.threads-per-node": "5",
    "queue.virtual.local.description": "Local delivery queue",
    "queue.virtual.local.threads-per-node": "25",
    "queue.virtual.remote.description": "Remote delivery queue",
    "queue.virtual.remote.threads-per-node": "50",
    "queue.virtual.report.description": "DMARC and TLS report delivery queue",
    "queue.virtual.report.threads-per-node": "5",
    "report.analysis.addresses": "postmaster@*",
}

_LISTENERS = (
    ("smtp", "smtp", 25, False),
    ("submission", "smtp", 587, False),
    ("submissions", "smtp", 465, True),
    ("imap", "imap", 143, False),
    ("imaptls", "imap", 993, True),
    ("pop3", "pop3", 110, False),
    ("pop3s", "pop3", 995, True),
    ("sieve", "managesieve", 4190, False),
    ("https", "http", 443, True),
    ("http", "http", 8080, False),
)

_OFF = frozenset({"", "0", "false", "never", "disable", "disabled"})  # what turns a rate off
_UNLIMITED = frozenset({"false", "none", "unlimited"})  # what a rate itself takes for none
_UNITS = {"": 0.001, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_RATES = {
    "server.auto-ban.auth.rate": "100/1d",
    "server.auto-ban.abuse.rate": "35/1d",
    "server.auto-ban.loiter.rate": "150/1d",
    "server.auto-ban.scan.rate": "30/1d",
    "http.rate-limit.account": "1000/1m",
    "http.rate-limit.anonymous": "100/1m",
}
_SIGN_RULE = "['rsa-' + sender_domain, 'ed25519-' + sender_domain]"
_NO_DNS = "Invalid address: failed to lookup address information: Name or service not known"


def quickstart(secret: str) -> dict[str, str]:
    """Return what a first start writes into ``config.toml``; ``secret`` is the fallback administrator's, hashed."""
    keys = {
        "authentication.fallback-admin.secret": secret,
        "authentication.fallback-admin.user": "admin",
        "directory.internal.store": "rocksdb",
        "directory.internal.type": "internal",
        "store.rocksdb.compression": "lz4",
        "store.rocksdb.path": "/opt/stalwart/data",
        "store.rocksdb.type": "rocksdb",
        "storage.directory": "internal",
        "tracer.log.ansi": "false",
        "tracer.log.enable": "true",
        "tracer.log.level": "info",
        "tracer.log.path": "/opt/stalwart/logs",
        "tracer.log.prefix": "stalwart.log",
        "tracer.log.rotate": "daily",
        "tracer.log.type": "log",
        **{f"storage.{use}": "rocksdb" for use in ("data", "blob", "fts", "lookup")},
    }
    for name, protocol, port, tls in _LISTENERS:
        keys[f"server.listener.{name}.bind"] = f"[::]:{port}"
        keys[f"server.listener.{name}.protocol"] = protocol
        if tls:
            keys[f"server.listener.{name}.tls.implicit"] = "true"
    return keys


# ------------------------------------------------------------------------------------------------------ config.toml
def render_toml(keys: Mapping[str, str]) -> str:
    """Write flat keys as the server does: sorted, one a line, without comments or sections."""
    return "".join(f"{_toml_key(key)} = {_toml_value(value)}\n" for key, value in sorted(keys.items()))


def _toml_key(key: str) -> str:
    return ".".join(part if re.fullmatch(r"[\w-]+", part, re.ASCII) else json.dumps(part) for part in key.split("."))


def _toml_value(value: str) -> str:
    bare = value in ("true", "false") or re.fullmatch(r"-?(0|[1-9]\d*)(\.\d+)?", value, re.ASCII)
    return value if bare else json.dumps(value, ensure_ascii=False)


def parse_toml(text: str) -> dict[str, str]:
    """Read ``config.toml`` into flat keys; raises `tomllib.TOMLDecodeError`, with which the server doesn't start."""
    keys: dict[str, str] = {}

    def flatten(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for name, inner in value.items():
                flatten(f"{prefix}.{name}" if prefix else name, inner)
        elif isinstance(value, list):
            for index, inner in enumerate(value):
                flatten(f"{prefix}.{index:04}", inner)
        else:
            keys[prefix] = str(value).lower() if isinstance(value, bool) else str(value)

    flatten("", tomllib.loads(text, parse_float=str))
    return keys


# --------------------------------------------------------------------------------------------------------- settings
@functools.lru_cache(maxsize=4096)
def _matches(key: str, patterns: tuple[str, ...]) -> bool:
    """Say whether a key is one of these. Every request asks it of all keys."""
    if any(fnmatchcase(key, item[1:]) for item in patterns if item.startswith("!")):
        return False
    return any(fnmatchcase(key, item) for item in patterns)


@dataclass(slots=True)
class Settings:
    """All settings. ``text`` is the file as it is on the disk, ``file`` what the process read from it or wrote."""

    text: str
    database: dict[str, str] = field(default_factory=dict)
    read_only: bool = False
    file: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.file:
            self.read_file()

    def read_file(self) -> None:
        """Read the file again, as only a start does."""
        self.file = parse_toml(self.text)

    def merged(self) -> dict[str, str]:
        """Return everything in key order; a key of the file wins, a local key in the database is ignored."""
        local = self._local_keys()
        stored = {key: value for key, value in self.database.items() if not _matches(key, local)}
        return dict(sorted((stored | self.file).items()))

    def is_local(self, key: str) -> bool:
        """Say whether a key is written to the file."""
        return _matches(key, self._local_keys())

    def _local_keys(self) -> tuple[str, ...]:
        own = [value for name, value in self.file.items() if name.startswith("config.local-keys.")]
        return (*own, "config.local-keys.*") if own else LOCAL_KEYS

    def below(self, prefix: str) -> dict[str, str]:
        """Return the keys below a prefix, with the prefix and its dot taken off; everything when it is empty."""
        start = f"{prefix}." if prefix and not prefix.endswith(".") else prefix
        return {key[len(start) :]: value for key, value in self.merged().items() if key.startswith(start)}

    def insert(self, values: Mapping[str, str]) -> None:
        """Write keys, each to where it lives. Raises `HttpProblem` when the file can't be written."""
        local = {key: value for key, value in values.items() if self.is_local(key)}
        self.database.update({key: value for key, value in values.items() if key not in local})
        if local:
            self.file.update(local)
            self._write_file()

    def delete(self, keys: Iterable[str]) -> None:
        """Remove exact keys; one that is in the file against the rules stays there."""
        before = len(self.file)
        for key in keys:
            (self.file if self.is_local(key) else self.database).pop(key, None)
        if len(self.file) != before:
            self._write_file()

    def clear(self, prefix: str, word: str | None = None) -> None:
        """Remove all keys that begin with the raw prefix: no dot is added, so ``aa`` takes ``aab.`` along."""
        self.delete(
            [
                key
                for key, value in self.merged().items()
                if key.startswith(prefix) and (word is None or word in key.lower() or word in value.lower())
            ]
        )

    def _write_file(self) -> None:
        if self.read_only:  # what is in memory has changed all the same
            raise HttpProblem(500, "Internal Server Error")
        self.text = render_toml(self.file)

    def run(self, operations: Any) -> None:
        """Do what ``POST /api/settings`` asks: one after the other, each written at once, no transaction."""
        if not isinstance(operations, list) or not all(_is_operation(item) for item in operations):
            raise malformed()
        for item in operations:
            match item["type"]:
                case "delete":
                    self.delete(item["keys"])
                case "clear":
                    self.clear(item["prefix"], item.get("filter"))
                case _:
                    self._insert_operation(item)

    def _insert_operation(self, item: Mapping[str, Any]) -> None:
        prefix = item.get("prefix")
        values = {f"{prefix}.{key}" if prefix else key: value for key, value in item["values"]}
        if item["assert_empty"]:
            taken = bool(self.below(prefix)) if prefix else next(iter(values), "") in self.merged()
            if taken:
                raise Failure("assertFailed")
        self.insert(values)


def _is_operation(item: Any) -> bool:
    match item:
        case {"type": "delete", "keys": list(keys)}:
            return all(isinstance(key, str) for key in keys)
        case {"type": "clear", "prefix": str()}:
            return isinstance(item.get("filter"), str | None)
        case {"type": "insert", "values": list(pairs), "assert_empty": bool()}:
            return isinstance(item.get("prefix"), str | None) and all(_is_pair(pair) for pair in pairs)
    return False


def _is_pair(pair: Any) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and all(isinstance(part, str) for part in pair)


# ------------------------------------------------------------------------------------------------------------- core
@dataclass(frozen=True, slots=True)
class Core:
    """What is in force: built from the settings at a start and by a reload without errors."""

    hostname: str
    rates: Mapping[str, Rate | None]
    allowed: tuple[Network, ...]
    blocked: tuple[Network, ...]
    fallback: tuple[str, str] | None
    signatures: Mapping[str, Signature]
    sign: tuple[tuple[str, str], ...]  # (condition, value), first match wins
    recipients: recipients.Recipients


def build_core(keys: Mapping[str, str], hostname: str, *, no_dns: bool) -> tuple[Core, dict[str, dict[str, str]]]:
    """Build a core and list what is wrong, by key. ``hostname`` is the machine's; macros are resolved already."""
    errors: dict[str, dict[str, str]] = {}
    if no_dns and keys.get("spam-filter.pyzor.enable") not in ("false", "0"):
        errors["spam-filter.pyzor.host"] = {"type": "build", "error": _NO_DNS}
    rates: dict[str, Rate | None] = {}
    for key, default in _RATES.items():
        try:
            rates[key] = parse_rate(keys.get(key, default))
        except ValueError as error:
            errors[key] = {"type": "parse", "error": str(error)}
            rates[key] = parse_rate(default)
    _limiters(keys, errors)
    _blocks(keys, errors)
    user, secret = (keys.get(f"authentication.fallback-admin.{part}") for part in ("user", "secret"))
    core = Core(
        hostname=keys.get("server.hostname") or keys.get("lookup.default.hostname") or hostname,
        rates=rates,
        allowed=_networks(keys, "server.allowed-ip.", errors),
        blocked=tuple(net for net in _networks(keys, "server.blocked-ip.", errors) if net.num_addresses > 1),
        fallback=(user, secret) if user and secret else None,
        signatures=_signatures(keys),
        sign=_sign_rule(keys),
        recipients=recipients.read(keys, errors),
    )
    return core, errors


def parse_rate(text: str) -> Rate | None:
    """Read ``30/1d``; ``None`` is off. Raises ValueError in the server's words."""
    if text.lower() in _OFF or text in _UNLIMITED:
        return None
    requests, slash, period = text.partition("/")
    if not slash or not requests.strip().isdigit() or not int(requests):
        raise ValueError(f'Invalid rate value "{text}".')
    match = re.fullmatch(r"(\d+)([a-z]*)", re.sub(r"\s", "", period).lower())
    if not match or not int(match[1]) or match[2] not in _UNITS:
        raise ValueError(f'Invalid duration value "{period}".')
    return Rate(int(requests), max(int(match[1]) * _UNITS[match[2]], 1.0))


def _limiters(keys: Mapping[str, str], errors: dict[str, dict[str, str]]) -> None:
    """Say which rate limiters of the queue lack their rate: a default that is removed does not come back."""
    names = {match[0] for key in keys if (match := re.match(r"queue\.limiter\.(inbound|outbound)\.[^.]+", key))}
    for name in sorted(names):
        key = f"{name}.rate"
        if keys.get(f"{name}.enable") == "false":
            continue
        if key not in keys:
            errors[key] = {"type": "parse", "error": "Missing property"}
            continue
        try:
            parse_rate(keys[key])
        except ValueError as error:
            errors[key] = {"type": "parse", "error": str(error)}


def _blocks(keys: Mapping[str, str], errors: dict[str, dict[str, str]]) -> None:
    """Say which numbered ``if`` blocks are broken: one is read whole, in the order of its keys (expr/if_block.rs)."""
    found: dict[str, list[tuple[str, str]]] = {}
    for key in sorted(keys):
        if match := re.fullmatch(r"(.+)\.(\d+)\.(if|then|else)", key):
            found.setdefault(match[1], []).append((match[2], match[3]))
    for base, parts in found.items():
        if base not in keys and (said := _broken(parts)):
            errors[base] = {"type": "parse", "error": said}


def _broken(parts: Sequence[tuple[str, str]]) -> str:
    last = found_else = ""
    then = False
    for place, word in parts:
        match word:
            case "if" if place != last:
                if last and not then:
                    return f"Missing 'then' in 'if' condition {int(last) + 1}."
                last, then = place, False
            case "else" if found_else and place != found_else:
                return "Multiple 'else' found"
            case "else" if not found_else:
                if not last:
                    return "Found 'else' before 'if'"
                found_else = place
            case "then" if found_else:
                return "Found 'then' in 'else' block"
            case "then" if place != last:
                return "Found 'then' without 'if'"
            case "then":
                then = True
    if last and not then:
        return f"Missing 'then' in 'if' condition {int(last) + 1}"
    return "Missing 'else'" if last and not found_else else ""


def _networks(keys: Mapping[str, str], prefix: str, errors: dict[str, dict[str, str]]) -> tuple[Network, ...]:
    found = []
    for key in keys:
        if key.startswith(prefix):
            try:
                found.append(ipaddress.ip_network(key.removeprefix(prefix), strict=False))
            except ValueError:
                word = "address" if "/" not in key else "mask"
                error = f'Invalid IP {word} value "{key.removeprefix(prefix)}".'
                errors[prefix.removesuffix(".")] = {"type": "parse", "error": error}
    return tuple(found)


def signature_ids(keys: Mapping[str, str]) -> list[str]:
    """Name the signatures that have an algorithm, in key order."""
    pattern = re.compile(r"signature\.(.+)\.algorithm")
    return [match[1] for key in sorted(keys) if (match := pattern.fullmatch(key))]


def _signatures(keys: Mapping[str, str]) -> dict[str, Signature]:
    """Return those that can sign. Keys are read when they are first used: a reload knows no error of theirs."""
    found = {name: readable_signature(keys, name) for name in signature_ids(keys)}
    return {name: signature for name, signature in found.items() if signature}


def _sign_rule(keys: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Read ``auth.dkim.sign``: a value, or numbered ``if``/``then``/``else`` branches."""
    if single := keys.get("auth.dkim.sign"):
        return (("", single),)
    branches: dict[int, dict[str, str]] = {}
    for key, value in keys.items():
        if match := re.fullmatch(r"auth\.dkim\.sign\.(\d+)\.(if|then|else)", key):
            branches.setdefault(int(match[1]), {})[match[2]] = value
    if not branches:
        return (("is_local_domain('*', sender_domain)", _SIGN_RULE), ("", "false"))
    ordered = [branches[index] for index in sorted(branches)]
    return tuple((item.get("if", ""), item.get("then", item.get("else", "false"))) for item in ordered)


def listeners(keys: Mapping[str, str]) -> list[Listener]:
    """Return the stored listeners that have a protocol."""
    found = []
    for key, protocol in sorted(keys.items()):
        if match := re.fullmatch(r"server\.listener\.(.+)\.protocol", key):
            base = f"server.listener.{match[1]}"
            bind = f"{base}.bind"
            binds = [
                value
                for name, value in sorted(keys.items())
                if name.startswith(bind) and re.fullmatch(r"(\.\d+)?", name.removeprefix(bind))
            ]
            tls = keys.get(f"{base}.tls.implicit") == "true"
            found.append(Listener(match[1], protocol, tuple(binds), tls))
    return found
