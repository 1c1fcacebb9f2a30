"""The server's own objects that the directory declares (``stalwart.objects``): read, compared and written.

Each declared property is a `Setting`. Only what is declared is compared: of an object inside a property the named
parts, while a list, a set or a map is meant as a whole. What is read is never written back: secrets in it are masked.
"""

from __future__ import annotations

import contextlib
import hmac
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reconciler.desired import objects
from reconciler.desired.objects import SINGLETON, TYPE, Misfit, Parts, Place, Type
from reconciler.problem import Problem, SecretUnreadable
from reconciler.resources import Different, Live, Resource, Same, SecretRef, Setting, Unreadable, Verdict
from reconciler.secrecy import Public
from reconciler.target import Change, Report, Reveal
from reconciler.targets.stalwart.jmap.api import Registry, Selection
from reconciler.targets.stalwart.jmap.batch import Unwritable, Verb, Write, bare
from reconciler.targets.stalwart.jmap.kind import Effect, Ids, Reading, ResourceKind, SecretJudge, creation_of
from reconciler.targets.stalwart.schema import same_locale
from reconciler.targets.stalwart.work import unusable

_HARMLESS = frozenset({"date", "enum", "net"})
"""Types of which no value can be a secret, as the directory reads them."""


class ObjectKind(ResourceKind):
    """Properties of the server's own objects."""

    resource = Setting
    in_force_by = Effect.RELOAD

    def has(self, resource: Resource) -> bool:
        """Whether it is a property of an object from 0.16."""
        return isinstance(resource, Setting) and objects.place(resource) is not None

    def reads(self, wanted: Sequence[Resource]) -> Iterator[Selection]:
        """Yield the declared properties, and what names the objects and those they refer to."""
        declared: dict[str, set[str]] = defaultdict(set)
        for place in (objects.place(item) for item in wanted if isinstance(item, Setting)):
            if place is None:
                continue
            declared[place.name].add(place.field)
            for kind in _types(place.name, place.field):
                for referred in _referred(kind, frozenset()):
                    declared[referred].update(())
        for name, fields in declared.items():
            tag = {TYPE} if objects.variants(name) else set()
            yield Selection(name, objects.is_singleton(name), tuple(sorted(fields | tag | set(_key_properties(name)))))

    def live(self, reading: Reading) -> Iterator[Live]:
        """Yield what is live of the wanted properties; of an object that is not there nothing."""
        return Names(reading.registry, reading.reveal).live(reading.of(Setting), reading.report, reading.secrets)

    def writes(self, changes: Sequence[Change], reading: Reading) -> Iterator[Write | Unwritable]:
        """Yield one write an object, those that others refer to first."""
        drafts: dict[tuple[str, str], _Draft] = {}
        for change in changes:
            place = place_of(change.resource)
            drafts.setdefault(place.owner, _Draft(place.name, place.entry)).changes.append(change)
        writing = _Writing(Names(reading.registry), drafts, reading.ids, reading.reveal)
        for draft in drafts.values():
            try:
                yield writing.write(draft)
            except (ValueError, SecretUnreadable) as error:
                yield from (Unwritable(change, unusable(change.address, error)) for change in draft.changes)

    def effects(self, change: Change, write: Write | None = None) -> frozenset[Effect]:
        """Stores and the like are built when the process starts."""
        if isinstance(change.resource, Setting) and objects.needs_restart(change.resource):
            return frozenset({Effect.RESTART})
        return super().effects(change, write)

    def is_same(self, before: Live, now: Live | None) -> bool:
        """Several properties share an id: one that is gone is refused by the server."""
        del before, now
        return True


def place_of(resource: Resource) -> Place:
    """Say which property of which object a raw setting is."""
    place = objects.place(resource) if isinstance(resource, Setting) else None
    if place is None:
        raise AssertionError(resource.address)
    return place


def _key_properties(name: str) -> tuple[str, ...]:
    key = objects.key_of(name)
    return tuple(key.replace("/", "@").split("@")) if key and key != TYPE else (key,) if key else ()


def _types(name: str, field: str) -> Iterator[Type]:
    """Yield what a property may be: its type in each of the object's variants."""
    for variant in objects.variants(name) or (None,):
        if (kind := objects.properties(name, variant).get(field)) is not None:
            yield kind


def _referred(kind: Type, seen: frozenset[str]) -> Iterator[str]:
    """Yield the kinds of objects that a type refers to."""
    if kind.base == "id":
        yield kind.of
    elif kind.item is not None:
        yield from _referred(kind.item, seen)
    elif kind.base in ("object", "list") and kind.of not in seen:
        for variant in objects.variants(kind.of) or (None,):
            for part in objects.properties(kind.of, variant).values():
                yield from _referred(part, seen | {kind.of})


# --------------------------------------------------------------------------------------------------------- reading
class Names:
    """One reading of the registry: its objects by the names that people use, and the other way round."""

    def __init__(self, registry: Registry, reveal: Reveal | None = None) -> None:
        """Name everything that was read. What the server names with an id is a name here from now on.

        ``reveal`` is for secrets in texts, which the server shows.
        """
        self._reveal = reveal
        self._domains = {str(item["id"]): str(item.get("name")) for item in registry.get("Domain", ())}
        self._found: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
        self._names: dict[tuple[str, str], str] = {}
        for kind, items in registry.items():
            for item in items if objects.key_of(kind) else ():
                name = self._name(kind, item)
                self._found[kind, name].append(item)
                self._names[kind, str(item["id"])] = name
        self._singletons = {kind: items[0] for kind, items in registry.items() if items}

    def _name(self, kind: str, item: Mapping[str, Any]) -> str:
        parts = [item.get(part) for part in _key_properties(kind)]
        if "domainId" in _key_properties(kind):
            parts[-1] = self._domains.get(str(parts[-1]), "")
        return ("@" if "@" in objects.key_of(kind)[1:] else "/").join(str(part) for part in parts)

    def entries(self, kind: str) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """Return the objects of a kind by the names that people use; mostly one each."""
        if objects.is_singleton(kind):
            return {SINGLETON: [self._singletons[kind]]} if kind in self._singletons else {}
        return {name: found for (of, name), found in self._found.items() if of == kind}

    def name_of(self, kind: str, id: str) -> str | None:
        """Return what people call the object with an id; None where that is not known."""
        return self._domains.get(id) if kind == "Domain" else self._names.get((kind, id))

    def find(self, name: str, entry: str) -> Sequence[Mapping[str, Any]]:
        """Return the objects that a declared one may be: none, one, or several that share their name."""
        if objects.is_singleton(name):
            return [self._singletons.get(name, {"id": SINGLETON})]
        return self._found.get((name, objects.stored_key(name, entry)), ())

    def id_of(self, kind: str, name: str) -> str | None:
        """Return the id of the only object with this name."""
        found = self._found.get((kind, objects.stored_key(kind, name)), ())
        return str(found[0]["id"]) if len(found) == 1 else None

    def live(self, wanted: Sequence[Setting], report: Report, judge: SecretJudge) -> Iterator[Live]:
        """Yield what is live of the wanted properties; of an object that is not there nothing."""
        owners: dict[tuple[str, str], dict[str, Setting]] = defaultdict(dict)
        for setting in wanted:
            if (place := objects.place(setting)) is not None:
                owners[place.owner][place.field] = setting
        for (name, entry), fields in owners.items():
            found = self.find(name, entry)
            if len(found) > 1:
                _report_ambiguous(name, entry, len(found), fields.values(), report)
            elif found:
                yield from self._properties(fields, found[0], judge)

    def _properties(self, fields: Mapping[str, Setting], item: Mapping[str, Any], judge: SecretJudge) -> Iterator[Live]:
        variant = item.get(TYPE)
        another = TYPE in fields and fields[TYPE].value != variant
        for name, setting in fields.items():
            kind = objects.properties(place_of(setting).name, variant).get(name)
            if name == TYPE:
                have = Public(variant) if variant in objects.variants(place_of(setting).name) else variant
            elif kind is None or another:  # what the other type has is gone with it
                have = None
            else:
                have = settled(setting.value, self._seen(setting, kind, item.get(name), judge))
            yield Live(Setting(setting.word, have), id=str(item["id"]), detail=fields if another else None)

    def _seen(self, setting: Setting, kind: Type, value: Any, judge: SecretJudge) -> Any:
        return _Comparison(setting.address, self._names, self._domains, judge, self._reveal).seen(
            kind, setting.value, value
        )


def _report_ambiguous(name: str, entry: str, count: int, settings: Iterable[Setting], report: Report) -> None:
    for setting in settings:
        summary = f"the server has {count} {name} objects called {entry}, so which one is meant can't be told"
        hint = "remove all but one of them on the server"
        report(Problem(setting.address, summary, hint, scope=setting.address))


@dataclass(frozen=True, slots=True)
class _Comparison:
    """How a live value looks beside a wanted one: in the same form, and reduced to what is wanted."""

    address: str
    names: Mapping[tuple[str, str], str]
    domains: Mapping[str, str]
    judge: SecretJudge
    reveal: Reveal | None = None

    def seen(self, kind: Type, want: Any, value: Any) -> Any:
        """Return a live value in its one form, without any secret."""
        if value in (None, ""):
            return objects.EMPTY.get(kind.base)
        if kind.base == "secret" or isinstance(want, SecretRef):
            return self._secret(kind, want, str(value))
        if kind.base == "id":
            return self.domains.get(str(value)) if kind.of == "Domain" else self.names.get((kind.of, str(value)))
        if kind.base in ("object", "list", "set", "map") and isinstance(value, dict):
            return getattr(self, f"_{kind.base}")(kind, want, value)
        with contextlib.suppress(Misfit):
            known = objects.canonical(kind, value)
            return Public(known) if kind.base in _HARMLESS else known
        return str(value)

    def _secret(self, kind: Type, want: Any, value: str) -> Verdict:
        """Judge a secret: the server shows one only where it stands in a text."""
        if not isinstance(want, SecretRef) or want.held:
            return Different()
        try:
            known = self.reveal(want) if self.reveal and kind.base != "secret" else None
        except SecretUnreadable:
            known = None
        if known is None:
            return self.judge(self.address, want)
        return Same(want) if hmac.compare_digest(known.encode(), value.encode()) else Different()

    def _set(self, kind: Type, _: Any, value: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(sorted(str(self.seen(_item(kind), None, item)) for item in value))

    def _map(self, kind: Type, want: Any, value: Mapping[str, Any]) -> Parts:
        wants = want if isinstance(want, Parts) else {}
        return Parts({name: self.seen(_item(kind), wants.get(name), item) for name, item in value.items()})

    def _object(self, kind: Type, want: Any, value: Mapping[str, Any]) -> Parts:
        variant = value.get(TYPE)
        known = objects.properties(kind.of, variant)
        wanted = want if isinstance(want, Parts) else {}
        another = wanted.get(TYPE, variant) != variant
        names = [name for name in (wanted or value) if name in known] if not another else []
        made: dict[str, Any] = {TYPE: variant} if variant else {}
        made |= {name: self.seen(known[name], wanted.get(name), value.get(name)) for name in names}
        return Parts(made)

    def _list(self, kind: Type, want: Any, value: Mapping[str, Any]) -> tuple[Any, ...]:
        items = [value[key] for key in sorted(value, key=int)]
        wants = want if isinstance(want, tuple) and len(want) == len(items) else (None,) * len(items)
        return tuple(self.seen(_item(kind), *pair) for pair in zip(wants, items, strict=True))


def settled(want: Any, have: Any) -> Any:
    """Return a live value as it is compared: the wanted one where all that can be told agrees."""
    if isinstance(have, Unreadable | Different | Same) or not _agrees(want, have):
        return have
    unreadable = next(_verdicts(have), None)
    return want if unreadable is None else unreadable


def _agrees(want: Any, have: Any) -> bool:
    match want, have:
        case SecretRef(), Unreadable():
            return True
        case SecretRef(), Same(ref=ref):
            return ref == want
        case Parts(), Parts():
            return want.keys() == have.keys() and all(_agrees(want[name], have[name]) for name in want)
        case str(), str():
            return want == have or same_locale(want, have) or objects.same_text(want, have)
        case tuple(), tuple():
            return len(want) == len(have) and all(map(_agrees, want, have))
    return bool(want == have)


def _verdicts(value: Any) -> Iterator[Unreadable]:
    if isinstance(value, Unreadable):
        yield value
    elif isinstance(value, Parts | tuple):
        for item in value.values() if isinstance(value, Parts) else value:
            yield from _verdicts(item)


# --------------------------------------------------------------------------------------------------------- writing
@dataclass(slots=True)
class _Draft:
    """One object that changes of a run create or change."""

    name: str
    entry: str
    changes: list[Change] = field(default_factory=list)

    @property
    def creation(self) -> str:
        """What others refer to it by while it is created."""
        return creation_of(self.name, self.entry)

    @property
    def id(self) -> str:
        """Its id; "" of one that is not there."""
        return next((item.before.id for item in self.changes if item.before), "")


def body(name: str, values: Mapping[str, Any], reveal: Reveal) -> dict[str, Any]:
    """Return an object's declared properties as the server takes them, such as those of ``Bootstrap``.

    Raises `SecretUnreadable`, and ValueError where something it refers to is not there.
    """
    writing = _Writing(Names({}), {}, Ids({}), reveal)
    return {key: writing.wire(_property(name, values.get(TYPE), key), value) for key, value in values.items()}


def _property(name: str, variant: str | None, field: str) -> Type:
    return Type("text") if field == TYPE else objects.properties(name, variant)[field]


@dataclass(slots=True)
class _Writing:
    """From values to what the server takes, with ids in place of names and secrets in place of references."""

    names: Names
    drafts: Mapping[tuple[str, str], _Draft]
    ids: Ids
    reveal: Reveal

    def write(self, draft: _Draft) -> Write:
        """Make one write of all changes of one object."""
        values = {place_of(item.resource).field: item for item in draft.changes}
        variant = self._variant(draft, values)
        made: dict[str, Any] = {}
        if not draft.id or TYPE in values:  # all of it: what is not named gets its default
            wanted = {key: getattr(item.resource, "value", None) for key, item in values.items()}
            wanted |= {key: it.value for key, it in self._siblings(draft).items()}
            wanted |= self._own(draft) | ({TYPE: variant} if variant else {})
            made = {key: self.wire(_property(draft.name, variant, key), value) for key, value in wanted.items()}
        else:
            for key, item in values.items():
                kind = _property(draft.name, variant, key)
                have = getattr(item.before.resource, "value", None) if item.before else None
                made |= self._patch(key, kind, getattr(item.resource, "value", None), have)
        verb: Verb = "update" if draft.id else "create"
        rank = self._rank(draft, frozenset())
        return Write(draft.name, verb, draft.id or draft.creation, made, tuple(draft.changes), rank)

    def _variant(self, draft: _Draft, values: Mapping[str, Change]) -> str | None:
        if not objects.variants(draft.name):
            return None
        if TYPE in values:
            return str(getattr(values[TYPE].resource, "value", ""))
        if objects.key_of(draft.name) == TYPE:
            return draft.entry
        found = self.names.find(draft.name, draft.entry)
        return found[0].get(TYPE) if found else None

    def _siblings(self, draft: _Draft) -> Mapping[str, Setting]:
        """Return all that is declared of an object whose type changes: the server forgets what it was."""
        details = (item.before.detail for item in draft.changes if item.before and item.before.detail)
        return next(details, {})

    def _own(self, draft: _Draft) -> dict[str, Any]:
        """Return the properties that name an object: set when it is made, and again when it becomes another type."""
        return {} if objects.is_singleton(draft.name) else objects.key_parts(draft.name, draft.entry)

    def _patch(self, path: str, kind: Type, want: Any, have: Any) -> dict[str, Any]:
        """Return what to set, by JSON pointer: inside an object that stays of its type only what differs."""
        same_type = isinstance(want, Parts) and isinstance(have, Parts) and want.get(TYPE) == have.get(TYPE)
        if kind.base != "object" or not same_type:
            return {path: self.wire(kind, want)}
        made: dict[str, Any] = {}
        known = objects.properties(kind.of, want.get(TYPE))
        for name, item in want.items():
            if name != TYPE and item != have.get(name):
                made |= self._patch(f"{path}/{name}", known[name], item, have.get(name))
        return made

    def _rank(self, draft: _Draft, seen: frozenset[tuple[str, str]]) -> int:
        """Count how many creations of this run have to come before, one after the other."""
        before = self._creations(draft) - seen
        return max((1 + self._rank(self.drafts[it], seen | {(draft.name, draft.entry)}) for it in before), default=0)

    def _creations(self, draft: _Draft) -> set[tuple[str, str]]:
        named = {
            reference
            for change in draft.changes
            for reference in _references(place_of(change.resource), getattr(change.resource, "value", None))
        }
        return {item for item in named if item in self.drafts and not self.drafts[item].id} - {
            (draft.name, draft.entry)
        }

    # ------------------------------------------------------------------------------------------------------- values
    def wire(self, kind: Type, value: Any) -> Any:
        """Return a value as JMAP has it: sets and lists are objects there (traps.md 4)."""
        made = value
        if isinstance(value, SecretRef):
            return self.reveal(value)
        match kind.base if value is not None else "":
            case "id":
                made = self._id(kind, value)
            case "net":
                made = bare(value)
            case "set":
                made = {str(self.wire(_item(kind), item)): True for item in value}
            case "list":
                made = {str(number): self.wire(_item(kind), item) for number, item in enumerate(value)}
            case "map":
                made = {name: self.wire(_item(kind), item) for name, item in value.items()}
            case "object":
                known = objects.properties(kind.of, value.get(TYPE))
                made = {name: it if name == TYPE else self.wire(known[name], it) for name, it in value.items()}
        return made

    def _id(self, kind: Type, name: str) -> str:
        found = self.ids.domain(name) if kind.of == "Domain" else self.names.id_of(kind.of, name)
        draft = self.drafts.get((kind.of, name))
        if found is None and draft is not None and not draft.id:
            found = f"#{draft.creation}"
        if found is None:
            raise ValueError(f"refers to the {kind.of} {name}, which is not there: make it first")
        return found


def _item(kind: Type) -> Type:
    """Return the type of what a set, list or map holds."""
    return kind.item or Type("object", kind.of)


def _references(place: Place, value: Any) -> Iterator[tuple[str, str]]:
    """Yield the objects that a property's value names."""
    for kind in _types(place.name, place.field):
        yield from _named(kind, value)


def _named(kind: Type, value: Any) -> Iterator[tuple[str, str]]:
    match kind.base, value:
        case "id", str():
            yield kind.of, value
        case "set" | "list", tuple():
            for inner in value:
                yield from _named(_item(kind), inner)
        case "map", Parts():
            for inner in value.values():
                yield from _named(_item(kind), inner)
        case "object", Parts():
            known = objects.properties(kind.of, value.get(TYPE))
            for name, inner in value.items():
                if name in known:
                    yield from _named(known[name], inner)
