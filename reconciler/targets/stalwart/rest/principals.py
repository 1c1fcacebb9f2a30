"""Principals: what domains, groups, accounts and lists have in common, and whose an address is."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, TypeVar

from reconciler.desired.raw_keys import LONGEST
from reconciler.resources import UNMANAGED, Account, Group, Live, Resource, Shared
from reconciler.target import Change
from reconciler.targets.stalwart.connection import Login
from reconciler.targets.stalwart.passwords import Hashes
from reconciler.targets.stalwart.rest.kind import Import, Item, Kind, R, Reading
from reconciler.targets.stalwart.survey import is_sayable

A = TypeVar("A", bound=Shared)

Operation = dict[str, Any]
"""One step of a change, as the server takes it."""


class Means:
    """What the changes of one apply are written with: hashes of passwords, and who is called what on the server."""

    def __init__(
        self,
        hashes: Hashes,
        changes: Sequence[Change],
        listing: Callable[[], Sequence[Item]],
        roles: Callable[[], Collection[str] | None],
    ) -> None:
        """Take note of the logins that are wanted; the directory and its ``roles`` are read when first needed."""
        self.hashes, self._listing, self._roles = hashes, listing, functools.cache(roles)
        self._logins = {change.after.login for change in changes if isinstance(change.after, Account)}
        found = [(change.before, change.after) for change in changes if isinstance(change.after, Group)]
        self._groups = {address: before.id for before, after in found if before for address in emails(after)}
        self._given = set[str]()

    @functools.cached_property
    def _items(self) -> Sequence[Item]:
        return self._listing()

    def name(self, resource: Shared) -> str:
        """Choose the server's name for something new: its local part, as logins are, where nobody else has it."""
        local = local_part(resource.name)
        taken = {str(item["name"]) for item in self._items} | self._logins | self._given
        name = resource.name if local in taken else local
        self._given.add(name)
        if isinstance(resource, Group):
            self._groups |= dict.fromkeys(emails(resource), name)
        return name

    def groups(self, names: Iterable[str]) -> list[str]:
        """Return the server's names of groups that are named by address or name; what is not there is left out."""
        known = named(self._items) | self._groups if names else {}
        return [known[name] for name in names if name in known]

    def roles(self, names: Sequence[str]) -> list[str]:
        """Return roles as the server has them; what it does not know is left out, and who has none of his is a user."""
        made = self._roles() if asks(names) else None
        return [name.lower() for name in names if not unknown_role(name, made)] or (["user"] if names else [])


ROLES = frozenset({"user", "admin", "tenant-admin"})
"""The roles that a server up to 0.15 has by itself."""


def asks(names: Iterable[str]) -> bool:
    """Whether some of these roles have to be made first."""
    return not {name.lower() for name in names} <= ROLES


def unknown_role(name: str, made: Collection[str] | None) -> bool:
    """Whether the server certainly has no such role; ``made`` are those that it has besides its own, if known."""
    return made is not None and name.lower() not in ROLES and name.lower() not in made


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

    def body(self, resource: R, means: Means) -> dict[str, Any]:
        """Return what creates it, checked by `check_lengths`.

        Raises ValueError when a value can't be stored, `SecretUnreadable` when its password can't be read.
        """
        raise NotImplementedError

    def operations(self, change: Change, before: R, after: R, means: Means) -> list[Operation]:
        """Return the operations that carry a change out, empty when nothing differs. Raises as `body` does."""
        raise NotImplementedError

    def at_once(self, change: Change) -> Change:
        """Return the part of a change that can be written before everything else is there: all of it, as a rule."""
        return change

    def afterwards(self, change: Change, items: Sequence[Item]) -> Iterator[tuple[str, list[Operation]]]:
        """Yield what of a change is written when everything else is there, by the principals' names. Raises as `body`.

        ``items`` is the directory as it is by then.
        """
        del change, items
        yield from ()

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
        yield from (("address", item) for item in emails(resource))

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


# ------------------------------------------------------------------------------------------------------- addresses
def emails(resource: Resource | None) -> list[str]:
    """List the addresses that a resource alone may have, the primary one first and each once."""
    if isinstance(resource, Account):
        first = resource.email
    elif isinstance(resource, Shared):
        first = resource.name if resource.primary else None
    else:
        return []
    aliases = resource.aliases if isinstance(resource.aliases, tuple) else ()
    return list(dict.fromkeys((*([first] if isinstance(first, str) else ()), *aliases)))


def emails_after(before: Resource, after: Resource) -> list[str]:
    """List the addresses of a resource once it is changed: what is not managed stays."""
    kept = {name: getattr(before, name) for name in ("email", "aliases") if getattr(after, name, None) is UNMANAGED}
    return emails(replace(after, **kept))


def mended(change: Change) -> Iterator[Operation]:
    """Yield the operations that give something its addresses.

    They are added and removed one by one, so that catch-alls, addresses of domains that are gone and those that nobody
    can say stay. Only the primary one has a position: where it changes, all are set.
    """
    if change.before is None or change.after is None:
        return
    have, want = emails(change.before.resource), emails_after(change.before.resource, change.after)
    if have[:1] == want[:1]:
        yield from members("emails", have, want)
    else:
        known = {*have, *want}
        others = [text for text in texts(change.before.detail, "emails") if text.lower() not in known]
        yield set_to("emails", [*want, *others])


def released(change: Change) -> list[Operation]:
    """Return the operations that leave something only those of its addresses which it keeps."""
    if change.before is None or change.after is None:
        return []
    kept = emails_after(change.before.resource, change.after)
    return list(
        members("emails", emails(change.before.resource), [it for it in emails(change.before.resource) if it in kept])
    )


def own_emails(item: Item) -> list[str]:
    """List the addresses of a principal as the server has them, without its catch-alls: ``@DOMAIN`` is one."""
    return [text.lower() for text in texts(item, "emails") if not text.startswith("@")]


def catch_alls(item: Item) -> tuple[str, ...]:
    """List the catch-alls of a principal: ``@DOMAIN`` among its addresses."""
    return tuple(text.lower() for text in texts(item, "emails") if text.startswith("@"))


def kept(item: Item) -> Item:
    """Return what of a principal its writer reads again. No secret is in it."""
    return {name: texts(item, name) for name in ("emails", "members", "externalMembers")}


def aliases_of(item: Item, primary: str | None, reading: Reading, wanted: Resource | None) -> tuple[str, ...]:
    """Return the addresses of a principal beside the primary one.

    One of a domain that the server does not have gets no mail, and one that the directory has no words for is nobody's
    to change: they are there only where they are wanted.
    """
    known = emails(wanted)
    found = {text for text in own_emails(item) if text != primary}
    usual = {text for text in found if text.rpartition("@")[2] in reading.domains and is_sayable(text)}
    return tuple(sorted(usual | found.intersection(known)))


def named(items: Iterable[Item], wanted: Iterable[Group] = ()) -> dict[str, str]:
    """Map every local part, name and address of a group to the server's name for it: the one to be shown is last."""
    groups = [item for item in items if item.get("type") == "group"]
    declared = {group.name: name for name, group in matched(groups, list(wanted)).items()}
    addresses = {address: str(item["name"]) for item in groups for address in reversed(own_emails(item))}
    names = {str(item["name"]): str(item["name"]) for item in groups}
    return (
        {part: found[0] for part, found in _by_part(addresses).items() if len(found) == 1}
        | names
        | addresses
        | declared
    )


def _by_part(addresses: Mapping[str, str]) -> dict[str, list[str]]:
    """Map the local parts of groups' addresses to the groups' names: one that several have names none of them."""
    found: dict[str, list[str]] = {}
    for address, name in addresses.items():
        names = found.setdefault(local_part(address), [])
        names += [] if name in names else [name]
    return found


def matched(items: Sequence[Item], wanted: Sequence[A]) -> dict[str, A]:
    """Map names to the wanted groups or lists that they are: by primary address, else by a name that is its own.

    A name is, where it is the whole address, or its local part and every address it has is of the same domain.
    """
    first = {own_emails(item)[0]: item["name"] for item in items if own_emails(item)}
    names = {item["name"]: {text.rpartition("@")[2] for text in own_emails(item)} for item in items}
    found: dict[str, A] = {}
    rest = {resource.name: resource for resource in wanted}
    for address, name in first.items():
        if address in rest:
            found[name] = rest.pop(address)
    for address, resource in rest.items():
        local, _, domain = address.partition("@")
        fitting = (name for name in (address, local) if name in names and (name == address or names[name] <= {domain}))
        name = next((name for name in fitting if name not in found), None)
        if name is not None:
            found[name] = resource
    return found


def local_part(address: str) -> str:
    """Return what is before the ``@``."""
    return address.partition("@")[0]


class Addressed(Principal[A]):
    """A kind whose things are known by their primary address."""

    def name(self, resource: A) -> str:
        """Return its primary address; which name the server has for it is settled when it is made."""
        return resource.name

    def said(self, reading: Reading, wanted: Sequence[A]) -> Iterator[tuple[Item, A | None, dict[str, Any]]]:
        """Yield the principals, which of the wanted each is, and the fields that all such kinds have."""
        own = self.own(reading.items)
        pairs = matched(own, wanted)
        taken = {resource.name for resource in pairs.values()}
        for item in own:
            resource, primary = pairs.get(item["name"]), next(iter(own_emails(item)), "")
            name = resource.name if resource else primary if primary and primary not in taken else item["name"]
            aliases = aliases_of(item, name, reading, resource)
            fields = {"name": name, "description": item.get("description") or None, "aliases": aliases}
            yield item, resource, fields | {"primary": not resource or primary == name}

    def body(self, resource: A, means: Means) -> dict[str, Any]:
        """Return what creates it."""
        made = {"type": self.types[0], "name": means.name(resource), "emails": emails(resource)}
        made |= {"description": resource.description} if isinstance(resource.description, str) else {}
        check_lengths(made)
        return made

    def operations(self, change: Change, before: A, after: A, means: Means) -> list[Operation]:
        """Return the operations that carry a change out."""
        del before, means
        operations = [set_to("description", after.description or "")] if "description" in change.fields else []
        if {"aliases", "primary"} & change.fields.keys():
            operations += mended(change)
        check_lengths(operations)
        return operations

    def imported(self, live: Sequence[Live], taken: Import) -> Iterator[Live]:
        """Yield those that have their address, in a domain that the server has: an apply would make both."""
        held = {item["name"]: own_emails(item) for item in taken.items}
        for item in live:
            resource = item.resource
            if not isinstance(resource, Shared) or "@" not in resource.name:
                yield item
            elif resource.name.rpartition("@")[2] not in taken.domains:
                taken.out.note(resource.address, "lies in a domain that the server does not have", _FOREIGN)
            elif resource.name not in held[item.id]:
                taken.out.note(resource.address, "is called so and does not have that address", _CALLED)
            else:
                yield item


_CALLED = "it is left out: give it the address on the server, or another name, and import again"
_FOREIGN = "it gets no mail and is left out: make the domain on the server, or remove it there"


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
    if isinstance(value, str) and len(value.encode()) > LONGEST:
        raise ValueError(f"a text of {len(value.encode())} bytes is too long, the server takes up to {LONGEST}")
    for inner in value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ():
        check_lengths(inner)
