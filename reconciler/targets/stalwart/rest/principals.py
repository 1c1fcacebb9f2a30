"""Principals: what domains and accounts have in common, and whatever else the server keeps in its directory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from reconciler.resources import UNMANAGED, Special
from reconciler.target import Change
from reconciler.targets.stalwart.connection import Login
from reconciler.targets.stalwart.passwords import Hashes
from reconciler.targets.stalwart.rest.kind import Item, Kind, R

_LONGEST = 512  # bytes of one text; longer ones are refused, or in lists dropped without a word

Operation = dict[str, Any]
"""One step of a change, as the server takes it."""


class Principal(Kind[R]):
    """A kind that the server keeps in its directory: one request creates, changes or deletes one of them.

    ``types`` are the server's words for it. Names are one space for all kinds, and stored in lower case.
    """

    types: ClassVar[tuple[str, ...]]
    undeclared: ClassVar[frozenset[str]] = frozenset()
    """Fields that the directory has no words for, though it has for those of other kinds."""

    def name(self, resource: R) -> str:
        """Return the server's name for it."""
        raise NotImplementedError

    def body(self, resource: R, hashes: Hashes) -> dict[str, Any]:
        """Return what creates it, checked by `check_lengths`.

        Raises ValueError when a value can't be stored, `SecretUnreadable` when its password can't be read.
        """
        raise NotImplementedError

    def operations(self, change: Change, before: R, after: R, hashes: Hashes) -> list[Operation]:
        """Return the operations that carry a change out, empty when nothing differs. Raises as `body` does."""
        del change, before, after, hashes
        return []

    def addresses(self, resource: R) -> list[str]:
        """Return the addresses that it alone may have, the primary one first."""
        del resource
        return []

    def written(self, change: Change, login: Login) -> None:
        """Take note that a change was sent, and perhaps carried out; ``login`` is how we get in."""

    def own(self, items: Sequence[Item]) -> list[Item]:
        """Return the principals that are of this kind."""
        return [item for item in items if item.get("type") in self.types]


def in_turn(changes: Sequence[Change], of: Callable[[Change], Principal[Any]]) -> Iterator[tuple[Change, bool]]:
    """Order changes so that a name or address is given up before something else takes it: each is unique.

    In a circle somebody has to begin: True beside a change says that it gives up early what others wait for.
    """

    def claims(change: Change, resource: Any) -> Iterator[tuple[str, str]]:
        yield "name", of(change).name(resource)
        yield from (("address", item) for item in of(change).addresses(resource))

    held = {item: change for change in changes if change.before for item in claims(change, change.before.resource)}
    begun: set[int] = set()
    done: set[int] = set()

    def turn(change: Change) -> Iterator[tuple[Change, bool]]:
        if id(change) in begun:
            if id(change) not in done:
                yield change, True
            return
        begun.add(id(change))
        for item in claims(change, change.resource):
            holder = held.get(item, change)
            if holder is not change:
                yield from turn(holder)
        done.add(id(change))
        yield change, False

    for change in changes:
        yield from turn(change)


def addresses_after(before: Any, after: Any) -> list[str]:
    """Return the addresses of what has ``email`` and ``aliases`` once it is changed: what is not managed stays."""
    email = before.email if after.email is UNMANAGED else after.email
    aliases = before.aliases if after.aliases is UNMANAGED else after.aliases
    return emails(email, aliases)


def released(before: Any, after: Any) -> list[Operation]:
    """Return the operations that leave it only those of its addresses which it keeps."""
    kept = addresses_after(before, after)
    return [set_to("emails", [item for item in emails(before.email, before.aliases) if item in kept])]


def emails(email: str | Special | None, aliases: tuple[str, ...] | Special) -> list[str]:
    """List a primary address and its aliases, each once."""
    first = [email] if isinstance(email, str) else []
    return first + [alias for alias in (aliases if isinstance(aliases, tuple) else ()) if alias not in first]


def texts(item: Item, name: str) -> list[str]:
    """Return a list of texts; an absent one is empty, a bare text is a list of one."""
    value = item.get(name) or []
    return [value] if isinstance(value, str) else [text for text in value if isinstance(text, str)]


def set_to(field: str, value: Any) -> Operation:
    """Return the operation that sets a field."""
    return {"action": "set", "field": field, "value": value}


def members(field: str, have: Sequence[str], want: Sequence[str]) -> Iterator[Operation]:
    """Yield the operations that add and remove items: ``set`` of roles, memberOf or lists would wipe the others."""
    for name in sorted(set(want) - set(have)):
        yield {"action": "addItem", "field": field, "value": name}
    for name in sorted(set(have) - set(want)):
        yield {"action": "removeItem", "field": field, "value": name}


def check_lengths(value: Any) -> None:
    """Raise ValueError when a text of a body or of operations is longer than the server takes."""
    if isinstance(value, str) and len(value.encode()) > _LONGEST:
        raise ValueError(f"a text of {len(value.encode())} bytes is too long, the server takes up to {_LONGEST}")
    for inner in value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ():
        check_lengths(inner)
