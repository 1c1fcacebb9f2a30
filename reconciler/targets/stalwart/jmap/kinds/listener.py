"""Ports that Stalwart from 0.16 listens on. One is opened, moved or closed by a restart."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from reconciler.resources import UNMANAGED, Listener, Live
from reconciler.target import Change
from reconciler.targets.stalwart.jmap.api import Selection
from reconciler.targets.stalwart.jmap.batch import Write, bare
from reconciler.targets.stalwart.jmap.kind import Effect, Reading, ResourceKind, creation_of
from reconciler.targets.stalwart.release import JMAP
from reconciler.targets.stalwart.survey import Omissions, fit

_PROTOCOLS = {"manageSieve": "managesieve"}  # the only one that JMAP spells otherwise than our word
_PROPERTIES = {
    "tls": "useTls",
    "tls_disable": "tlsDisableProtocols",
    "proxy_networks": "overrideProxyTrustedNetworks",
    "max_connections": "maxConnections",
    "backlog": "socketBacklog",
    "tls_disable_ciphers": "tlsDisableCipherSuites",
    "tls_ignore_client_order": "tlsIgnoreClientOrder",
    "tls_timeout": "tlsTimeout",
    "no_delay": "socketNoDelay",
    "reuse_address": "socketReuseAddress",
    "reuse_port": "socketReusePort",
    "send_buffer": "socketSendBufferSize",
    "receive_buffer": "socketReceiveBufferSize",
    "ttl": "socketTtl",
    "tos": "socketTosV4",
}
_VERSIONS = {"TLSv1.2": "tls12", "TLSv1.3": "tls13"}
_OURS = {theirs: ours for ours, theirs in _VERSIONS.items()}
_MILLISECONDS = 1000
_SPELLED = {ours: theirs for theirs, ours in _PROTOCOLS.items()}


class ListenerKind(ResourceKind):
    """Listeners. Whether one answers is not known here."""

    resource = Listener
    objects = (
        Selection(
            "NetworkListener", properties=("name", "bind", "protocol", "tlsImplicit", *_PROPERTIES.values()), few=True
        ),
    )
    in_force_by = Effect.RESTART

    def live(self, reading: Reading) -> Iterator[Live]:
        """Yield all of them; addresses that mean the same are written as they are wanted."""
        twins = {item.name: item for item in reading.of(Listener)}
        for item in reading.items("NetworkListener"):
            name, bind = str(item.get("name")), tuple(item.get("bind") or ())
            twin = twins.get(name)
            if twin is not None and {*map(_socket, twin.bind)} == {*map(_socket, bind)}:
                bind = twin.bind  # [0::0]:587 is [::]:587
            protocol = str(item.get("protocol"))
            implicit = bool(item.get("tlsImplicit")) and item.get("useTls", True) is not False
            found = Listener(name, bind, _PROTOCOLS.get(protocol, protocol), implicit, UNMANAGED, **_options(item))
            yield Live(found, id=str(item["id"]))

    def writes(self, changes: Sequence[Change], reading: Reading) -> Iterator[Write]:
        """Create, change whole, or destroy; a restart that is due writes nothing."""
        del reading
        for change in changes:
            known, after = change.before.id if change.before else "", change.after
            if not isinstance(after, Listener):
                yield Write("NetworkListener", "destroy", known, changes=(change,))
            elif not change.restarts:
                body = _body(after)
                if known:
                    yield Write("NetworkListener", "update", known, body, (change,))
                else:
                    name = creation_of("NetworkListener", after.name)
                    yield Write("NetworkListener", "create", name, {"name": after.name, **body}, (change,))

    def survey(self, reading: Reading, live: Sequence[Live], out: Omissions) -> Iterator[Live]:
        """Take those that a fresh server does not have."""
        del reading
        fresh = fresh_listeners()
        return (item for item in fit(live, "jmap", out) if item.resource not in fresh)


def fresh_listeners() -> list[Listener]:
    """List the listeners of a fresh server."""
    found = JMAP.defaults()["listeners"].items()
    return [
        Listener(name, tuple(it["bind"]), it["protocol"], it["tls_implicit"], UNMANAGED, **Listener.USUAL)
        for name, it in found
    ]


def _body(listener: Listener) -> dict[str, Any]:
    made = {
        "bind": dict.fromkeys(listener.bind, True),
        "protocol": _SPELLED.get(listener.protocol, listener.protocol),
        "tlsImplicit": listener.tls_implicit,
    }
    for word, name in _PROPERTIES.items():
        value = getattr(listener, word)
        if isinstance(value, tuple):
            value = dict.fromkeys((_theirs(word, item) for item in value), True)
        elif word == "tls_timeout" and isinstance(value, int):
            value *= _MILLISECONDS
        made |= {} if value is UNMANAGED else {name: value}
    return made | ({"useTls": True} if listener.tls_implicit else {})


def _options(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is said of a listener besides; null is the server's default."""
    made: dict[str, Any] = dict(Listener.USUAL)
    for word, name in _PROPERTIES.items():
        if isinstance(value := item.get(name), Mapping):
            made[word] = tuple(_ours(word, it) for it in value)
        elif value is not None:
            seconds, rest = divmod(value, _MILLISECONDS) if word == "tls_timeout" else (value, 0)
            made[word] = value / _MILLISECONDS if rest else seconds
    return made


def _theirs(word: str, item: str) -> str:
    if word == "tls_disable_ciphers":
        return item.lower().replace("_", "-")
    return _VERSIONS[item] if word == "tls_disable" else bare(item)


def _ours(word: str, item: str) -> str:
    return item.upper().replace("-", "_") if word == "tls_disable_ciphers" else _OURS.get(item, item)


def _socket(bind: str) -> str:
    host, _, port = bind.rpartition(":")
    try:
        return f"{ipaddress.ip_address(host.strip('[]'))} {port}"
    except ValueError:
        return bind
