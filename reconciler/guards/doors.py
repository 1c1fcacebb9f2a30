"""The doors by which the reconciler gets to the mail server: what shuts them shuts everybody out who manages it."""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from reconciler.guards.evidence import Evidence, refuse, warn
from reconciler.problem import Problem
from reconciler.resources import AllowedIp, Listener, Observation, Setting
from reconciler.target import Change

_ENDPOINTS = (
    *("settings/http.allowed-endpoint", "settings/server.http.allowed-endpoint"),  # the latter up to 0.9
    "objects/Http/allowedEndpoints",
)
_BLOCKED = "settings/server.blocked-ip."
_PROXIES = ("settings/server.proxy.trusted-networks", "objects/SystemSettings/proxyTrustedNetworks")
_CERTIFICATES = (
    *("settings/certificate.", "settings/acme.", "settings/server.tls."),
    "objects/SystemSettings/defaultCertificateId",
)
_RATES = ("settings/http.rate-limit.", "objects/Http/rateLimitA")
_CONNECTIONS = ("settings/server.max-connections", "objects/SystemSettings/maxConnections")
_NEEDED = 60, 16
"""What a plan and an apply need at least: requests in a minute, and connections at a time."""
_JMAP = "objects/Jmap/"
SPOKEN = {
    "maxMethodCalls": 16,
    "getMaxResults": 500,
    "setMaxObjects": 500,
    "queryMaxResults": 500,
    "maxRequestSize": 10_000_000,
    "maxConcurrentRequests": 4,
}
"""What our requests count on from 0.16: the server's own defaults, but for the length of a listing's page."""
_STORES = {
    "settings/storage.data": "data elsewhere, and find no account, mail or key there",
    "settings/storage.blob": "mail elsewhere, and find none there",
    "settings/store.": "data elsewhere, and find no account, mail or key there",
    "objects/DataStore/": "data elsewhere, and find no account, mail or key there",
    "objects/BlobStore/": "mail elsewhere, and find none there",
}
_MOVES = frozenset(
    """
    @type type path host database bucket region endpoint container keyPrefix key-prefix clusterFile cluster-file stores
    storage.data storage.blob
    """.split()  # noqa: SIM905 (as people read it)
)
"""What of a store's settings says which one it is, and not how it is used."""


def own_door(evidence: Evidence) -> Iterator[Problem]:
    """No setting or listener shuts out whoever manages the server, or has it look for its data elsewhere."""
    for seen in evidence.observations.values():
        for change in evidence.plan.changes:
            if change.target != seen.target or not (seen.account or seen.login):
                continue
            if isinstance(change.resource, Setting):
                yield from _by_setting(change, change.resource, seen, evidence)
            elif isinstance(change.resource, Listener) and (why := _by_listener(change, seen, evidence)):
                hint = "declare another one with `protocol: http` first, and name it in targets.stalwart.url"
                yield refuse(change.address, why, hint, seen.target)


def _by_setting(change: Change, setting: Setting, seen: Observation, evidence: Evidence) -> Iterator[Problem]:
    word, value = setting.word, setting.value if change.after is not None else None
    if word.startswith(_ENDPOINTS) and value is not None:
        answers = list(_answers(evidence, word))
        hint = "let it answer 200 to /api and /jmap, from wherever reconciler runs"
        if not any("200" in item for item in answers):
            yield refuse(change.address, "the server would answer nobody any more, us neither", hint, seen.target)
        else:
            yield warn(change.address, "decides whom the server answers: it may shut us out", hint)
    elif word.startswith(_BLOCKED) and value is not None and _is_near(word.removeprefix(_BLOCKED), evidence):
        hint = "name addresses of others only, or let in your own with stalwart.allowed_ips"
        yield refuse(change.address, "blocks addresses from which reconciler itself may come", hint, seen.target)
    elif word.startswith(_PROXIES) and value is not None:
        hint = "leave out the networks from which reconciler reaches the server without that proxy"
        summary = "whoever comes from there has to speak the PROXY protocol: it may shut us out"
        yield warn(change.address, summary, hint, seen.target)
    elif word.startswith(_CERTIFICATES) and (evidence.policy.door or ("", 0))[0] == "https":
        hint = "look first whether the new one names the host of targets.stalwart.url and can be trusted from here"
        summary = "decides by which certificate the server proves who it is: one that we can't trust shuts us out"
        yield warn(change.address, summary, hint, seen.target)
    elif (word.startswith(_RATES) and _rate(value) < _NEEDED[0]) or (
        word in _CONNECTIONS and str(value).isdecimal() and int(str(value)) < _NEEDED[1]
    ):
        hint = f"allow {_NEEDED[0]} requests a minute and {_NEEDED[1]} connections at least"
        yield refuse(change.address, "the server would turn us away in the middle of a run", hint, seen.target)
    elif _is_too_little(word, value):
        hint = f"allow {SPOKEN[word.removeprefix(_JMAP)]} at least"
        yield refuse(change.address, "the server would take no request of ours any more", hint, seen.target)
    elif (elsewhere := _elsewhere(change, word)) and not seen.lost:
        hint = "move the data with the server's own tools first; then this is as it is, and no change"
        yield refuse(change.address, f"the server would look for its {elsewhere}", hint, seen.target)


_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def _rate(value: Any) -> float:
    """Return how many a minute a rate allows, as text (``100/1m``) or as an object; infinite for what is none."""
    if isinstance(value, Mapping):
        count, period = value.get("count"), value.get("period")
        return count * 60_000 / period if isinstance(count, int) and isinstance(period, int) and period else math.inf
    found = re.fullmatch(r"(\d{1,9})\s*/\s*(\d{1,9})\s*(ms|s|m|h|d)", str(value).strip())
    return int(found[1]) * 60_000 / (int(found[2]) * _UNITS[found[3]] or 1) if found else math.inf


def _answers(evidence: Evidence, word: str) -> Iterator[str]:
    """Yield each answer that a rule for requests may give, as it is declared: all entries of it are one rule."""
    rule = next(name for name in _ENDPOINTS if word.startswith(name))
    for item in evidence.desired.resources:
        if isinstance(item, Setting) and item.word.startswith(rule) and not item.word.endswith(".if"):
            yield from _results(item.value)


def _results(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from () if key == "if" else _results(part)
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _results(part)
    else:
        yield str(value)


def _is_near(text: str, evidence: Evidence) -> bool:
    """Whether addresses of this machine or of a private network are among those named, and are not let in anyway."""
    try:
        blocked = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    allowed = [it.network for it in evidence.desired.resources if isinstance(it, AllowedIp)]
    if any(blocked.version == it.version and blocked.subnet_of(it) for it in map(_network, allowed)):  # type: ignore[arg-type]
        return False
    return blocked.is_private or blocked.is_loopback or blocked.prefixlen < _WIDE[blocked.version]


_WIDE = {4: 8, 6: 16}
"""What is wider than that holds private networks, or ones that nobody can oversee."""


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    return ipaddress.ip_network(text, strict=False)


def _is_too_little(word: str, value: Any) -> bool:
    """Whether the server would take less than our requests have; nothing is no limit, or its default."""
    least = SPOKEN.get(word.removeprefix(_JMAP)) if word.startswith(_JMAP) else None
    return least is not None and str(value).isdecimal() and int(str(value)) < least


def _elsewhere(change: Change, word: str) -> str:
    """Say what a change has the server keep in another store, or have at another place; empty where nothing."""
    known = change.before is not None and change.fields.get("value", (None,))[0] is not None
    part = word.replace("/", ".").rpartition(".")[2]
    moved = known and (part in _MOVES or word.removeprefix("settings/") in _MOVES)
    return next((what for store, what in _STORES.items() if moved and word.startswith(store)), "")


def _by_listener(change: Change, seen: Observation, evidence: Evidence) -> str:
    """Say why a change of a listener shuts the door that the API is behind; empty where one stays open."""
    before = change.before.resource if change.before is not None else None
    if not isinstance(before, Listener) or before.protocol != "http":
        return ""
    after = {item.before.id: item.after for item in evidence.plan.changes if item.before is not None}
    had = _doors(it.resource for it in seen.live)
    left = _doors(after.get(it.id, it.resource) for it in seen.live) & had
    if not left:
        return "no listener would speak HTTP where one does now, and reconciler gets in by one"
    scheme, port = evidence.policy.door or ("", 0)
    if str(port) in {bind.rpartition(":")[2] for bind in before.bind} and (why := _by_options(change, scheme)):
        return why
    ours = {door for door in had if door[0].rpartition(":")[2] == str(port)}
    if ours and not any(door[0].rpartition(":")[2] == str(port) for door in left):
        return f"reconciler gets in by port {port}, where no listener would speak HTTP any more"
    if scheme == "http" and all(tls for _, tls in left) and not all(tls for _, tls in had):
        return "reconciler gets in without TLS, which no listener would speak any more"
    return ""


def _by_options(change: Change, scheme: str) -> str:
    """Say why what is said of the listener that we come by shuts us out; empty where it does not."""
    have, want = change.fields.get("proxy_networks", ((), ()))
    if set(want or ()) - set(have or ()):
        return "a connection from these networks would have to begin with a PROXY header, and reconciler sends none"
    if scheme == "https" and change.fields.get("tls", (None, None))[1] is False:
        return "reconciler gets in with TLS there, which the listener would not speak any more"
    _, most = change.fields.get("max_connections", (None, None))
    if isinstance(most, int) and most < _FEWEST:
        return f"so few connections ({most}) would leave none for reconciler"
    return ""


_FEWEST = 10  # connections that a listener should take at least, ours among them


def _doors(resources: Any) -> set[tuple[str, bool]]:
    """Return the addresses where HTTP is spoken, and whether with TLS."""
    found = (item for item in resources if isinstance(item, Listener) and item.protocol == "http")
    return {(bind, item.tls_implicit) for item in found for bind in item.bind}
