"""What a release does not have of what is wanted, told before anything is written: writes are drafted, and judged.

Drafted is what the kinds would write, with no secret in it: each wanted resource as if it were new, to find what the
release does not know of it, and the changes that are due, to find also what it needs and we do not say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from reconciler.desired import objects
from reconciler.problem import Problem
from reconciler.resources import UNKNOWN, Live, Resource, Setting
from reconciler.target import Action, Change, Reason
from reconciler.targets.stalwart.jmap.api import Registry
from reconciler.targets.stalwart.jmap.batch import Write, references
from reconciler.targets.stalwart.jmap.kind import Effect, Reading, ResourceKind
from reconciler.targets.stalwart.release import JMAP, Release
from reconciler.targets.stalwart.schema import Objection, Schema

_REMEDY = (
    f"take it out of the directory and keep it on the server itself, or stay with a release that is known: v{JMAP.name}"
)


@dataclass(frozen=True)
class Drafting:
    """The drafts of one reading. ``unread`` are the objects that were not read, as the release has them otherwise."""

    release: Release
    schema: Schema
    kinds: Sequence[ResourceKind]
    registry: Registry
    unread: frozenset[str]

    def problems(self, fresh: Reading, due: Reading, live: Mapping[str, Live]) -> Iterator[Problem]:
        """Yield one problem for each wanted resource that needs what the release does not have.

        ``fresh`` and ``due`` are two readings of the same server and for the same resources, as drafting uses up the
        ids in them; ``live`` is what is there, by address.
        """
        writes = list(self._due(due, live))
        told: dict[str, str] = {}
        for address, why in (*self._unreadable(fresh), *self._unknown(fresh), *self._lacking(writes)):
            told.setdefault(address, why)
        while more := dict(_depending([write for _, write in writes], told)):
            told |= more
        named = f"release {self.release.name}" if self.release.name else "this release"
        for address, why in told.items():
            yield Problem(address, f"{named} of Stalwart {why}", _REMEDY, scope=address)

    def _unreadable(self, reading: Reading) -> Iterator[tuple[str, str]]:
        """Yield the resources of kinds that can't be read at all."""
        for kind in self.kinds:
            own = [item for item in reading.wanted if kind.has(item)]
            for resource in own:
                needed = {it.name for it in kind.objects[:1]} | {it.name for it in kind.objects if it.name == "Domain"}
                needed |= {it.name for it in kind.reads([resource])} if not kind.objects else set()
                for name in sorted(needed & self.unread):
                    yield resource.address, f"has no {name} objects as they are known here"

    def _unknown(self, reading: Reading) -> Iterator[tuple[str, str]]:
        """Yield what the release does not know of resources, each drafted as new and by itself."""
        for kind in self.kinds:
            for changes in _alone([item for item in reading.wanted if kind.has(item)]):
                for write in self._drafts(kind, changes, reading):
                    for found in self.schema.objections(write.object, write.verb, write.body):
                        if not found.lacking:
                            yield from ((change.address, str(found)) for change in _blamed(write, found))
                    for change in changes:
                        yield from self._actions(kind, change, write)

    def _due(self, reading: Reading, live: Mapping[str, Live]) -> Iterator[tuple[ResourceKind, Write]]:
        """Yield the writes of the changes that are due."""
        changes = [_change(item, live.get(item.address)) for item in reading.wanted]
        changes = [change for change in changes if change.before is None or change.fields]
        reading = replace(reading, changes=changes)
        for kind in self.kinds:
            own = [change for change in changes if kind.has(change.resource)]
            yield from ((kind, write) for write in self._drafts(kind, own, reading))

    def _lacking(self, writes: Sequence[tuple[ResourceKind, Write]]) -> Iterator[tuple[str, str]]:
        """Yield what the release does not take of the changes that are due."""
        for kind, write in writes:
            stored = next(iter(self.registry.get(write.object, ())), {})
            for found in self.schema.objections(write.object, write.verb, write.body, stored):
                yield from ((change.address, str(found)) for change in _blamed(write, found))
            for change in write.changes:
                yield from self._actions(kind, change, write)

    def _actions(self, kind: ResourceKind, change: Change, write: Write) -> Iterator[tuple[str, str]]:
        """Yield what would put a change in force and is not there."""
        for effect in sorted(kind.effects(change, write) - {Effect.RESTART}, key=str):
            for found in self.schema.objections("Action", "create", {"@type": effect.value}):
                yield change.address, f"{found}, which puts it in force"

    @staticmethod
    def _drafts(kind: ResourceKind, changes: Sequence[Change], reading: Reading) -> list[Write]:
        """Return what a kind would write; what it can't is told elsewhere."""
        return [item for item in kind.writes(changes, reading) if isinstance(item, Write)]


def _alone(wanted: Sequence[Resource]) -> Iterator[list[Change]]:
    """Yield the changes that make each resource; the properties of one object of the server's are one."""
    groups: dict[Any, list[Change]] = {}
    for resource in wanted:
        place = objects.place(resource) if isinstance(resource, Setting) else None
        groups.setdefault(place.owner if place else resource.address, []).append(_change(resource, None))
    yield from groups.values()


def _depending(writes: Sequence[Write], told: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the resources that refer to what can't be made."""
    made = {f"#{it.id}": it.changes[0].address for it in writes if it.verb == "create" and it.changes}
    lost = {name: address for name, address in made.items() if address in told}
    for write in writes:
        part = next((it.address for it in write.changes if it.address in told), "") if write.verb == "create" else ""
        for change in write.changes if part else ():
            if change.address not in told:
                yield change.address, f"can't have {part}, without which the object is not made"
        for name in references(write, lost):
            for change in write.changes:
                if change.address not in told:
                    yield change.address, f"can't have {lost[name]}, which it refers to"


def _blamed(write: Write, found: Objection) -> Sequence[Change]:
    """Return the changes of a write that an objection is about: of several properties the one it names."""
    first = found.path.partition("/")[0]
    places = {id(it): objects.place(it.resource) for it in write.changes if isinstance(it.resource, Setting)}
    own = [it for it in write.changes if (place := places.get(id(it))) is not None and place.field == first]
    return own or write.changes


def _change(resource: Resource, live: Live | None) -> Change:
    """Make the change that brings a resource about, without what is not known yet."""
    unknown = {name: None for name, value in resource.values() if value is UNKNOWN}
    resource = replace(resource, **unknown) if unknown else resource
    action, reason = (Action.UPDATE, Reason.DIFFERS) if live else (Action.CREATE, Reason.MISSING)
    return Change(resource.address, (action,), reason, before=live, after=resource)
