"""What a kind of resource is to a server from 0.16: what is read and written of it, and what puts it in force.

Each kind has a file below `kinds` with one `ResourceKind`; `target.KINDS` lists them. Beside it stands here what all of
them share: one `Reading` of the server, and the ids behind names.
"""

from __future__ import annotations

import contextlib
import enum
import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from reconciler.resources import Account, Live, Resource, Secret, SecretRef, Unreadable, Verdict
from reconciler.target import Change, Progress, Report, Reveal
from reconciler.targets.stalwart.jmap.api import Registry, Selection
from reconciler.targets.stalwart.jmap.batch import Unwritable, Write
from reconciler.targets.stalwart.survey import Omissions, fit

NOT_SHOWN = Unreadable("the server shows no secret: it is written when it is new, or something beside it changes")

MANUAL = {"@type": "Manual"}
"""How a domain's keys, records or certificates are managed: by us."""

Raw = Mapping[str, Any]

Judge = Callable[[Account, str], Verdict]
"""From a wanted account and its address to what is known of its password."""

SecretJudge = Callable[[str, SecretRef], Verdict]
"""Says of a setting's address and its declared secret whether the server has that one, as far as anyone knows."""

_R = TypeVar("_R", bound=Resource)
_LISTED = 8  # names in an error
_DEFAULT_ROLES = {"admin": "system administrator"}  # what the server calls the role that makes an Admin


def creation_of(name: str, entry: str) -> str:
    """Name the creation of an object, for what refers to it: no other entry has the same name.

    Ids there are letters, digits, - and _, and 255 at most (RFC 8620, 1.2).
    """
    return f"{name}-{hashlib.sha256(entry.encode()).hexdigest()[:10]}"


def unsaid(_: Secret) -> str:
    """Reveal nothing, in the shape of a hash: where only the shape of what is written matters."""
    return "$6$unsaid$" + "." * 86


class Effect(enum.Enum):
    """What puts a change in force."""

    RELOAD = "ReloadSettings"
    CACHES = "InvalidateCaches"
    RESTART = "restart"


class Ids:
    """The server's ids by name, and ``#NAME`` for what this run makes: domains once they are told, groups and roles.

    ``groups`` and ``roles`` are those that are wanted.
    """

    def __init__(self, registry: Registry, groups: Iterable[str] = (), roles: Iterable[str] = ()) -> None:
        self._names = {str(item["id"]): str(item["name"]).lower() for item in registry.get("Domain", ())}
        self._domains = {name: key for key, name in self._names.items()}
        self._roles = {str(it["id"]): str(it.get("description") or "") for it in registry.get("Role", ())}
        for name in sorted(set(roles) - set(self._roles.values())):
            self._roles[f"#{creation_of('Role', name)}"] = name
        self._groups: dict[str, str] = {}
        for item in registry.get("Account", ()):
            if item.get("@type") == "Group":
                self._groups[self.address(item)] = str(item["id"])
        for number, address in enumerate(groups):
            self._groups.setdefault(address, f"#g{number}")
        settings = next(iter(registry.get("SystemSettings", ())), {})
        self.default_domain = self._names.get(str(settings.get("defaultDomainId")), "")

    def make_domain(self, name: str) -> str:
        """Choose the creation id of a domain that this run makes."""
        creation = f"d{len(self._domains)}"
        self._domains[name] = f"#{creation}"
        return creation

    def domain(self, name: str) -> str | None:
        """Return a domain's id; None when there is none and none is made."""
        return self._domains.get(name)

    def the_domain(self, name: str) -> str:
        """Return a domain's id. Raises ValueError when there is none and none is made."""
        if name not in self._domains:
            raise ValueError(f"the server has no domain {name}: declare it, or an account or key below it")
        return self._domains[name]

    def domain_name(self, id: Any) -> str:
        """Return the name of a domain by its id, empty when it is not there."""
        return self._names.get(str(id), "")

    def address(self, item: Raw) -> str:
        """Return the address of an account, a group, a list or an alias: its name is only the local part."""
        return f"{item.get('name')}@{self.domain_name(item.get('domainId'))}".lower()

    def named(self, address: str) -> dict[str, Any]:
        """Return name and domain of an address; the name is only its local part. Raises ValueError as `the_domain`."""
        local, _, domain = address.rpartition("@")
        if not local:
            raise ValueError("has no address: declare stalwart.default_domain")
        return {"name": local, "domainId": self.the_domain(domain)}

    def group(self, name: str) -> str:
        """Return a group's id by its address, or a bare name by its local part; of one to be made as ``#NAME``.

        Raises `Unknown` when there is none, ValueError when there are several. An address is that one alone: another
        domain's group of the same local part is another group.
        """
        fold = str.lower if "@" in name else _local_part
        return _only("group", name, self._groups.items(), fold, self._groups)

    def group_names(self, ids: Iterable[str], known: Iterable[str]) -> tuple[str, ...]:
        """Return the groups' addresses, or of one that is known by its local part, that."""
        addresses = {key: address for address, key in self._groups.items()}
        found = (addresses.get(key, key) for key in ids)
        bare = {name for name in known if "@" not in name}
        return tuple(local if (local := item.partition("@")[0]) in bare else item for item in found)

    def role(self, name: str) -> str:
        """Return a role's id by its description, which counts in another case where no other one has it.

        Raises `Unknown` when there is none, ValueError when there are several.
        """
        roles = [(description, key) for key, description in self._roles.items()]
        own = _DEFAULT_ROLES.get(name)
        if own is not None and all(description.lower() != name for description, _ in roles):
            name = own
        known = {*ROLES, *(text.lower() for text in self._roles.values())} - set(_DEFAULT_ROLES.values())
        return _only("role", name, roles, str.lower, known)

    def role_names(self, ids: Iterable[str], known: Iterable[str]) -> Iterator[str]:
        """Yield what roles are called here: by a known name where it means that one, else by their descriptions."""
        wanted: dict[str, str] = {}
        for name in known:
            with contextlib.suppress(ValueError):
                wanted[self.role(name)] = name
        ours = {theirs: own for own, theirs in _DEFAULT_ROLES.items()}
        for key in ids:
            name = self._roles.get(key, key)
            yield wanted.get(key) or ours.get(name.lower(), name)


class Unknown(ValueError):
    """A name that the server has nothing of: what refers to it is done without."""


def _local_part(address: str) -> str:
    return address.partition("@")[0]


def _only(
    what: str, name: str, known: Iterable[tuple[str, str]], fold: Callable[[str], str], listed: Collection[str]
) -> str:
    """Return the id behind a name: exactly that one, else the only one that is the same once both are folded."""
    pairs = list(known)
    exact = [key for own, key in pairs if own == name]
    found = exact or [key for own, key in pairs if fold(own) == fold(name)]
    if len(found) > 1:
        raise ValueError(
            f"the server has several {what}s {name}: {', '.join(own for own, key in pairs if key in found)}"
        )
    if not found:
        shown = ", ".join(sorted(listed)[:_LISTED])
        raise Unknown(f"the server has no {what} {name}" + (f"; it has {shown}" if shown else ""))
    return found[0]


ROLES = {"user": "User", "admin": "Admin"}
"""Roles that are none of the server's but types of account."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One reading of a server, and the resources that are wanted there.

    ``domain`` is the default domain as it is declared, else as it is; a bare name such as ``admin`` is an address in
    it. ``report`` is told what stands in the way of what is wanted. ``judge`` knows of passwords, ``secrets`` of other
    secrets: the server shows none. ``changes`` are all of the run, where there is one: an address may go from one kind
    to another.
    """

    registry: Registry
    wanted: Sequence[Resource]
    ids: Ids
    domain: str
    reveal: Reveal
    report: Report
    judge: Judge = lambda *_: NOT_SHOWN
    secrets: SecretJudge = lambda *_: NOT_SHOWN
    progress: Progress = lambda _: None
    changes: Sequence[Change] = ()

    def of(self, kind: type[_R]) -> list[_R]:
        """List what is wanted of one kind."""
        return [item for item in self.wanted if isinstance(item, kind)]

    def items(self, name: str) -> Sequence[Raw]:
        """Return the objects of a kind of the server's."""
        return self.registry.get(name, ())

    def singleton(self, name: str) -> Raw:
        """Return the only object of a kind; empty where it was never written."""
        return next(iter(self.items(name)), {})


class ResourceKind:
    """One kind of resource, as the target sees it.

    ``resource`` is its class. ``objects`` are read always, ``surveyed`` by an import besides. ``in_force_by`` is what
    a stored change still needs.
    """

    resource: ClassVar[type[Resource]]
    objects: ClassVar[tuple[Selection, ...]] = ()
    surveyed: ClassVar[tuple[Selection, ...]] = ()
    in_force_by: ClassVar[Effect | None] = None
    unique: ClassVar[str] = "plan again: it was made meanwhile"
    """What to do where the server has another one of this name."""

    def has(self, resource: Resource) -> bool:
        """Whether a resource is one of this kind."""
        return isinstance(resource, self.resource)

    def reads(self, wanted: Sequence[Resource]) -> Iterable[Selection]:
        """Name the objects and properties to be read for what is wanted; one that others name, too, is read once."""
        del wanted
        return self.objects

    def live(self, reading: Reading) -> Iterator[Live]:
        """Yield what was read as live resources, and report what stands in the way of those that are wanted."""
        raise NotImplementedError

    def writes(self, changes: Sequence[Change], reading: Reading) -> Iterator[Write | Unwritable]:
        """Turn the changes of this kind into writes; a change without any is done."""
        raise NotImplementedError

    def effects(self, change: Change, write: Write | None = None) -> frozenset[Effect]:
        """Say what puts a change in force once a write is done; without one it was stored by an earlier run."""
        del change, write
        return frozenset({self.in_force_by} if self.in_force_by else ())

    def is_same(self, before: Live, now: Live | None) -> bool:
        """Whether what now has the id of a planned resource is still that one."""
        return now is not None and now.resource.address == before.resource.address

    def survey(self, reading: Reading, live: Sequence[Live], out: Omissions) -> Iterator[Live]:
        """Yield what an import takes of what is live, and note what it leaves out."""
        del reading
        return fit(live, "jmap", out)
