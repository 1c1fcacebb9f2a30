"""Listeners of Stalwart up to 0.15: keys in ``config.toml``, in force only after a restart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import ip_network
from typing import Any

from reconciler.desired.raw_keys import LISTENER
from reconciler.resources import UNMANAGED, Listener, Live
from reconciler.target import Change, Reveal
from reconciler.targets.stalwart.ports import answering
from reconciler.targets.stalwart.rest.kind import Edit, Import, KeyKind, Keys, Reading, fresh, text_of


class Listeners(KeyKind[Listener]):
    """The ports that it listens on."""

    resource, prefixes, restarts = Listener, (LISTENER.removesuffix("."),), True

    def live(self, reading: Reading) -> Iterator[Live]:
        """Yield all of them; whether they answer is found out elsewhere."""
        keys = reading.keys
        wanted = {item.name: item for item in reading.of(Listener)}
        for name in sorted({key.removeprefix(LISTENER).partition(".")[0] for key in keys if key.startswith(LISTENER)}):
            bind = tuple(keys[key] for key in _binds(keys, name))
            twin = wanted.get(name)
            if twin is not None and sorted(twin.bind) == sorted(bind):
                bind = twin.bind  # their order means nothing
            base = f"{LISTENER}{name}."
            implicit = keys.get(f"{base}tls.implicit", "false").lower() in ("true", "1")
            found = Listener(name, bind, keys.get(f"{base}protocol", ""), implicit, UNMANAGED, **_options(keys, name))
            yield Live(found, id=name)

    def edit(self, change: Change, before: Keys, reveal: Reveal, others: Sequence[Change]) -> Edit:
        """Write what is declared of it, and leave its other keys; a removal takes all of them."""
        del reveal, others
        listener = change.after
        if not isinstance(listener, Listener):
            base = f"{LISTENER}{getattr(change.resource, 'name', '')}."
            return Edit(change, drop=tuple(key for key in before if key.startswith(base)))
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
}
"""What is said of a listener besides, as 0.15.5 reads it (common/src/config/server/listener.rs)."""
_VERSIONS = {"0x0303": "TLSv1.2", "0x0304": "TLSv1.3"}


def _options(stored: Keys, name: str) -> dict[str, Any]:
    """Return what is said of a listener besides; what the server would not read is as the default."""
    made: dict[str, Any] = dict(Listener.USUAL)
    for word, key in _KEYS.items():
        values = [stored[item] for item in _entries(stored, f"{LISTENER}{name}.{key}")]
        if values and word == "tls":
            made[word] = values[0].lower() not in ("false", "0")
        elif values and isinstance(made[word], tuple):
            made[word] = tuple(_VERSIONS.get(it, it) for it in values if word != "proxy_networks" or _is_network(it))
        elif values and values[0].isdecimal():
            made[word] = int(values[0])
    return made


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
    return {key: text_of(value)}


def _entries(stored: Keys, key: str) -> list[str]:
    """List the keys of an option: its own, or one for each entry (``bind``, or ``bind.0`` and so on)."""
    entry = f"{key}."
    return sorted(it for it in stored if it == key or (it.startswith(entry) and it.removeprefix(entry).isdecimal()))


def _binds(stored: Keys, name: str) -> list[str]:
    """List the keys of a listener's addresses."""
    return _entries(stored, f"{LISTENER}{name}.bind")
