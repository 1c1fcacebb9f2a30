"""Listeners of Stalwart up to 0.15: keys in ``config.toml``, in force only after a restart."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

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
            yield Live(Listener(name, bind, keys.get(f"{base}protocol", ""), implicit, open=UNMANAGED), id=name)

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
        return Edit(change, tuple(key for key in _binds(before, listener.name) if key not in put), put)

    def imported(self, live: Sequence[Live], taken: Import) -> Iterator[Live]:
        """Yield those that a fresh server does not have, or has otherwise, and that answer."""
        usual = {item.id: item.resource for item in self.live(Reading((), fresh()["keys"]))}
        there = {item.id for item in live}
        taken.removed += [item.address for name, item in usual.items() if name not in there]
        own = [item for item in live if item.resource != usual.get(item.id)]
        yield from answering(own, taken.host, taken.container, taken.out)


def _binds(stored: Keys, name: str) -> list[str]:
    """List the keys of a listener's addresses: ``bind``, or ``bind.0`` and so on."""
    pattern = re.compile(re.escape(f"{LISTENER}{name}.bind") + r"(\.\d+)?")
    return sorted(key for key in stored if pattern.fullmatch(key))
