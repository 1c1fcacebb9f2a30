"""Listeners of Stalwart up to 0.15: keys in ``config.toml``, in force only after a restart."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import ip_network
from typing import Any

from reconciler.desired.raw_keys import LISTENER
from reconciler.problem import Problem
from reconciler.resources import UNMANAGED, Listener, Live, Resource
from reconciler.target import Change, Reveal
from reconciler.targets.stalwart.ports import answering
from reconciler.targets.stalwart.rest.kind import Edit, Import, KeyKind, Reading, Stored, fresh, text_of


class Listeners(KeyKind[Listener]):
    """The ports that it listens on."""

    resource, prefixes, restarts = Listener, (LISTENER.removesuffix("."), "server.socket", "server.tls"), True

    def single(self, wanted: Sequence[Resource]) -> Iterable[str]:
        """Name what, with all below the prefixes, holds for a listener that says nothing of its own."""
        del wanted
        return (f"{_ALL}max-connections",)

    def live(self, reading: Reading) -> Iterator[Live]:
        """Yield all of them; whether they answer is found out elsewhere."""
        keys = reading.keys
        wanted = {item.name: item for item in reading.of(Listener)}
        for name in sorted({key.removeprefix(LISTENER).partition(".")[0] for key in keys.below(LISTENER)}):
            bind = tuple(keys[key] for key in _binds(keys, name))
            twin = wanted.get(name)
            if twin is not None and sorted(twin.bind) == sorted(bind):
                bind = twin.bind  # their order means nothing
            base = f"{LISTENER}{name}."
            implicit = keys.get(f"{base}tls.implicit", "false").lower() in ("true", "1")
            found = Listener(name, bind, keys.get(f"{base}protocol", ""), implicit, UNMANAGED, **_options(keys, name))
            yield Live(found, id=name)
        for name, item in wanted.items():
            if "." in name:  # its keys would be another listener's
                hint = "give it a name without one; from 0.16 any name will do"
                reading.report(
                    Problem(item.address, "up to 0.15 no listener has a dot in its name", hint, scope=item.address)
                )

    def edit(self, change: Change, before: Stored, reveal: Reveal, others: Sequence[Change]) -> Edit:
        """Write what is declared of it, and leave its other keys; a removal takes all of them."""
        del reveal, others
        listener = change.after
        if not isinstance(listener, Listener):
            return Edit(change, drop=tuple(before.below(f"{LISTENER}{getattr(change.resource, 'name', '')}.")))
        base = f"{LISTENER}{listener.name}."
        single = len(listener.bind) == 1
        put = {f"{base}bind" if single else f"{base}bind.{index}": bind for index, bind in enumerate(listener.bind)}
        put[f"{base}protocol"] = listener.protocol
        if listener.tls_implicit or f"{base}tls.implicit" in before:
            put[f"{base}tls.implicit"] = text_of(listener.tls_implicit)
        old = set(_binds(before, listener.name))
        for word, key in _KEYS.items():
            value = getattr(listener, word)
            if value is not UNMANAGED:
                old |= set(_entries(before, base + key))
                put |= _said(base + key, value)
        return Edit(change, tuple(sorted(old - put.keys())), put)

    def imported(self, live: Sequence[Live], taken: Import) -> Iterator[Live]:
        """Yield those that a fresh server does not have, or has otherwise, and that answer."""
        usual = {item.id: item.resource for item in self.live(Reading((), fresh()["keys"]))}
        there = {item.id for item in live}
        taken.removed += [item.address for name, item in usual.items() if name not in there]
        own = [item for item in live if item.resource != usual.get(item.id)]
        yield from answering(own, taken.host, taken.container, taken.out)


_KEYS = {
    "tls": "tls.enable",
    "tls_disable": "tls.disable-protocols",
    "proxy_networks": "proxy.trusted-networks",
    "max_connections": "max-connections",
    "backlog": "socket.backlog",
    "tls_disable_ciphers": "tls.disable-ciphers",
    "tls_ignore_client_order": "tls.ignore-client-order",
    "tls_timeout": "tls.timeout",
    "no_delay": "socket.nodelay",
    "reuse_address": "socket.reuse-addr",
    "reuse_port": "socket.reuse-port",
    "send_buffer": "socket.send-buffer-size",
    "receive_buffer": "socket.recv-buffer-size",
    "ttl": "socket.ttl",
    "tos": "socket.tos",
}
"""What is said of a listener besides, as 0.15.5 reads it (common/src/config/server/listener.rs)."""
_VERSIONS = {"0x0303": "TLSv1.2", "0x0304": "TLSv1.3"}


def _options(stored: Stored, name: str) -> dict[str, Any]:
    """Return what is said of a listener besides; what the server would not read is as the default."""
    made: dict[str, Any] = dict(Listener.USUAL)
    for word, key in _KEYS.items():
        values = [stored[item] for item in _entries(stored, f"{LISTENER}{name}.{key}")]
        if isinstance(made[word], tuple):
            read = (_VERSIONS.get(it, it) for it in values if word != "proxy_networks" or _is_network(it))
            made[word] = tuple(read) if values else ()
            continue
        everywhere = stored.get(_ALL + key) if word != "tls" else None  # of the one there is nothing for all
        text = values[0] if values else everywhere
        if text is not None:
            made[word] = _read(word, text.strip().lower(), made[word])
    return made


def _read(word: str, text: str, usual: Any) -> Any:
    """Read an option as the server does; one that it can't read is as the default."""
    if isinstance(usual, bool):
        return text not in ("false", "0")
    if word == "tls_timeout" and (match := re.fullmatch(r"(\d+)\s*(ms|s|m|h|d)", text)):
        return int(match[1]) * _SECONDS[match[2]]
    return int(text) if text.isdecimal() else usual


_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_ALL = "server."


def _is_network(text: str) -> bool:
    try:
        ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def _said(key: str, value: Any) -> dict[str, str]:
    """Return what says an option. One that says nothing has no key."""
    if isinstance(value, tuple):
        return {f"{key}.{number:04}": item for number, item in enumerate(value)}
    if value is None:
        return {}
    return {key: f"{value}s" if key.endswith(_KEYS["tls_timeout"]) else text_of(value)}


def _entries(stored: Stored, key: str) -> list[str]:
    """List the keys of an option: its own, or one for each entry (``bind``, or ``bind.0`` and so on)."""
    return [it for it in stored.below(key) if it == key or it.removeprefix(f"{key}.").isdecimal()]


def _binds(stored: Stored, name: str) -> list[str]:
    """List the keys of a listener's addresses."""
    return _entries(stored, f"{LISTENER}{name}.bind")
