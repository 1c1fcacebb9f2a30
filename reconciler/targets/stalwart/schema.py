"""What a server from 0.16 has: its objects, their properties, variants and values, and whether it takes what we write.

A `Schema` is a table in the notation of `desired.objects`, with ``!`` behind the type of what a new object must say and
``~`` behind that of what is written once. That of the known release is ``jmap/needs.json``, which names all that the
target reads and writes, together with what a directory may declare under ``stalwart.objects``; any other is what the
server answers at ``/api/schema``.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reconciler.desired import objects
from reconciler.desired.objects import TYPE, Type

LARGEST = 8 << 20  # bytes of a schema as it is served, unpacked; that of 0.16.18 has 939,479
_MOST = 20_000  # entries of one part of it
_DEEPEST = 6  # sets of lists of ...
_LONGEST = 200  # characters of a name
_SHOWN = 12  # values that a problem lists

_FORMATS = {"secret": "secret", "secretText": "secret", "ipNetwork": "net", "duration": "ms", "size": "bytes"}
_FORMATS |= {"integer": "int", "unsignedInteger": "uint", "float": "float"}
_PLAIN = {"boolean": "bool", "utcDateTime": "date", "object": "object", "objectList": "list"}
_WORDS = {"text": "text", "secret": "text", "net": "text", "date": "text", "enum": "text"}
_WORDS |= {"int": "int", "uint": "int", "ms": "int", "bytes": "int"}  # what is alike on the wire
_SAID = ("text", "secret", "net", "id", "object")
"""Types of what a new object must say, unless it may be null or has a default: of an object, what is in its first
variant. A number has 0."""


@dataclass(frozen=True, slots=True)
class Property:
    """One property: its type, whether a new object must say it, and whether it is written once."""

    kind: Type
    needed: bool = False
    once: bool = False


@dataclass(frozen=True, slots=True)
class Objection:
    """Why a server does not take what would be written: ``name`` is the object's, ``path`` leads to the place.

    ``lacking`` is what is only not said, while all that is said is taken.
    """

    name: str
    path: str
    why: str
    lacking: bool = False

    def __str__(self) -> str:
        return self.why


@functools.cache
def _property(text: str) -> Property:
    bare = text.rstrip("!~")
    flags = text[len(bare) :]
    return Property(objects.type_of(bare), "!" in flags, "~" in flags)


class Schema:
    """The objects of one release by name. ``table`` has ``objects``, ``shapes``, ``unions`` and ``enums``."""

    def __init__(self, table: Mapping[str, Mapping[str, Any]]) -> None:
        self.table = table

    @classmethod
    def served(cls, document: Any) -> Schema:
        """Read what a server answers. Raises ValueError where that is no schema, or larger than any that is meant."""
        try:
            return cls(_Document(document).table())
        except (KeyError, TypeError, AttributeError, RecursionError, AssertionError) as error:
            raise ValueError("is no schema of a Stalwart") from error

    @classmethod
    def kept(cls, table: Any) -> Schema:
        """Take what `dump` wrote, parsed. Raises ValueError, and what a table damaged within makes it raise."""
        parts = ("objects", "shapes", "unions", "enums")
        if not isinstance(table, dict) or not all(isinstance(table.get(part), dict) for part in parts):
            raise ValueError("is no schema")
        try:
            for shape in table["shapes"].values():
                for text in shape.values():
                    _property(text)
        except AssertionError as error:
            raise ValueError("is no schema") from error
        return cls(table)

    def ours(self, names: Mapping[str, str], properties: Mapping[str, Mapping[str, str]]) -> Schema:
        """Return it with our names of objects and properties in place of the release's own."""
        if not names and not properties:
            return self
        table = {part: dict(found) for part, found in self.table.items()}
        for own, theirs in names.items():
            for part in ("objects", "unions", "shapes"):
                if theirs in table[part]:
                    table[part][own] = table[part].pop(theirs)
        for own, renamed in properties.items():
            back = {theirs: name for name, theirs in renamed.items()}
            for shape in {own, *filter(None, table["unions"].get(own, {}).values())} & table["shapes"].keys():
                table["shapes"][shape] = {back.get(key, key): text for key, text in table["shapes"][shape].items()}
        return Schema(table)

    def dump(self) -> bytes:
        """Return it as it is kept in a file, in the server's order: the first variant is what is meant unless said."""
        return json.dumps(self.table, separators=(",", ":")).encode()

    # ----------------------------------------------------------------------------------------------- what is there
    def knows(self, name: str) -> bool:
        """Whether there is an object of this name."""
        return name in self.table["objects"]

    def variants(self, name: str) -> Mapping[str, str | None]:
        """Map the variants of an object or union to their shapes; empty where there is only one."""
        found: Mapping[str, str | None] = self.table["unions"].get(name, {})
        return found

    def properties(self, name: str, variant: str | None = None) -> dict[str, Property]:
        """Return the properties of an object, of one of its variants where it has several."""
        shape = self.variants(name).get(variant or "") if self.variants(name) else name
        return {key: _property(text) for key, text in self.table["shapes"].get(shape or "", {}).items()}

    def found(self, name: str, key: str) -> list[Property]:
        """Return what a property is in each of an object's variants that has it."""
        shapes = [self.properties(name, variant) for variant in self.variants(name) or (None,)]
        return [shape[key] for shape in shapes if key in shape]

    def values(self, enum: str) -> tuple[str, ...]:
        """List the values of an enumeration; none where it takes whatever it is given."""
        return tuple(self.table["enums"].get(enum, ()))

    # ------------------------------------------------------------------------------------------ what we make of it
    def usable(self, name: str, variant: str | None, key: str) -> bool:
        """Whether a property is what we take it for, in this variant: what is not is neither read nor written."""
        if key in ("id", TYPE):
            return key == "id" or bool(self.variants(name)) == bool(known().variants(name))
        theirs = self.properties(name, variant).get(key)
        ours = known().properties(name, variant).get(key)
        return theirs is not None and (ours is None or self._alike(name, ours.kind, theirs.kind))

    def readable(self, name: str, key: str) -> bool:
        """Whether a property can be read in any of the object's variants."""
        return any(self.usable(name, variant, key) for variant in self.variants(name) or (None,))

    def _alike(self, owner: str, ours: Type, theirs: Type, depth: int = 0) -> bool:
        """Whether two types look alike on the wire, down to what we read of the objects inside."""
        if _word(ours) != _word(theirs):
            return False
        if ours.item is not None and theirs.item is not None:
            return self._alike(owner, ours.item, theirs.item, depth + 1)
        if ours.base not in ("object", "list") or not _needs(ours.of) or depth > _DEEPEST:
            return True
        if bool(known().variants(ours.of)) != bool(self.variants(theirs.of)):
            return False
        for variant in known().variants(ours.of) or (None,):
            if variant is not None and variant not in self.variants(theirs.of):
                continue  # seen where it is written
            there = self.properties(theirs.of, variant)
            for key, item in known().properties(ours.of, variant).items():
                if key not in there or not self._alike(ours.of, item.kind, there[key].kind, depth + 1):
                    return False
        return True

    def seen(self, name: str, item: Mapping[str, Any]) -> dict[str, Any]:
        """Return an object as it was read, without what is not what we take it for."""
        variant = item.get(TYPE)
        if not isinstance(variant, str) or variant not in known().variants(name):
            return dict(item)
        return {key: value for key, value in item.items() if self.usable(name, variant, key) or key == TYPE}

    def is_understood(self, name: str, item: Mapping[str, Any]) -> bool:
        """Whether what we take an object for, as it was read, is that: its other parts are nobody's to read.

        A variant that is not known is left alone.
        """
        variant = item.get(TYPE)
        if not isinstance(variant, str | None):
            return False
        if known().variants(name) and variant not in known().variants(name):
            return True
        return is_understood(
            name, {key: it for key, it in item.items() if key == TYPE or self.usable(name, variant, key)}
        )

    def required(self, name: str) -> tuple[str, ...]:
        """List what a singleton must say, and a new object whatever its variant."""
        shapes = [self.properties(name, variant) for variant in self.variants(name) or (None,)]
        return tuple(key for key, item in shapes[0].items() if self._must_say(item) and all(key in it for it in shapes))

    # ------------------------------------------------------------------------------------------- before it is sent
    def objections(
        self, name: str, verb: str, body: Mapping[str, Any], stored: Mapping[str, Any] | None = None
    ) -> Iterator[Objection]:
        """Yield what the server would not take of one object to be created, updated or destroyed.

        ``stored`` is a singleton as it was read: what is said there need not be said again.
        """
        if not self.knows(name):
            yield Objection(name, "", f"knows no {name} objects")
            return
        if verb == "create":
            yield from self._object(name, body, name, "")
        for path, value in body.items() if verb == "update" else ():
            yield from self._pointed(name, path, value)
        if stored is not None and verb == "update" and objects_singleton(self.table, name):
            for key in self.required(name):
                if key not in body and not self._said(self.found(name, key)[0].kind, stored.get(key)):
                    yield _missing(name, key)

    def spelled(self, name: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return a body with the values of its enumerations as this release spells them: ``en-US`` for ``en_US``."""
        variant = body.get(TYPE)
        shapes: list[str | None] = [variant] if variant in self.variants(name) else [*self.variants(name)] or [None]
        found = {key: item for shape in shapes for key, item in self.properties(name, shape).items()}
        return {key: self._respelled(found[key].kind, it) if key in found else it for key, it in body.items()}

    def _respelled(self, kind: Type, value: Any) -> Any:
        if kind.base == "enum" and isinstance(value, str):
            return self._spelled(kind, value) or value
        if not isinstance(value, Mapping):
            return value
        inner = kind.item or Type("object", kind.of)
        match kind.base:
            case "object":
                return self.spelled(kind.of, value)
            case "set":
                return {self._respelled(inner, key): it for key, it in value.items()}
            case "list" | "map":
                return {key: self._respelled(inner, it) for key, it in value.items()}
        return value

    def _spelled(self, kind: Type, value: str) -> str | None:
        """Return a value of an enumeration as it stands there; None where it does not."""
        known_values = self.values(kind.of)
        return value if value in known_values else next((it for it in known_values if same_locale(it, value)), None)

    def _pointed(self, name: str, path: str, value: Any) -> Iterator[Objection]:
        """Judge one part of a patch: a property, or what a JSON pointer leads to inside it."""
        first, *rest = path.split("/")
        if first == TYPE:
            if value not in self.variants(name):
                yield self._no_variant(name, name, "", value)
            return
        found = self.found(name, first)
        if not found or not self.readable(name, first):
            yield _unlike(name, first, there=bool(found))
            return
        tried = [list(self._inside(name, item.kind, rest, value, path)) for item in found]
        yield from min(tried, key=len)

    def _inside(self, name: str, kind: Type, rest: list[str], value: Any, path: str) -> Iterator[Objection]:
        if not rest:
            yield from self._value(name, kind, value, path)
        elif kind.base == "set" and kind.item is not None:
            yield from self._value(name, kind.item, rest[0], path)
        elif kind.base == "list" or (kind.base == "map" and kind.item is not None):
            inner = kind.item or Type("object", kind.of)
            if value is not None or len(rest) > 1:
                yield from self._inside(name, inner, rest[1:], value, path)
        elif kind.base == "object":
            found = self.found(kind.of, rest[0])
            tried = [list(self._inside(name, item.kind, rest[1:], value, path)) for item in found]
            yield from min(tried, key=len) if tried else (_unlike(name, path, there=False),)
        else:
            yield _unlike(name, path, there=True)

    def _value(self, name: str, kind: Type, value: Any, path: str) -> Iterator[Objection]:
        """Judge one value as JMAP has it: sets and lists are objects there."""
        if value is None:
            if not kind.optional and kind.base not in ("set", "list", "map"):
                yield Objection(name, path, f"does not take an empty {path} of {name}")
            return
        word = _word(kind)
        right: Any = {"bool": bool, "int": int, "float": (int, float), "text": str, "id": str}.get(word, Mapping)
        if not isinstance(value, right) or (isinstance(value, bool) and word != "bool"):
            yield _unlike(name, path, there=True)
        elif kind.base == "enum" and (known_values := self.values(kind.of)) and self._spelled(kind, value) is None:
            yield Objection(name, path, f"has no {value} for {path} of {name}: it takes {_listed(known_values)}")
        elif word == "int" and not (kind.low or 0) <= value <= (kind.high if kind.high is not None else value):
            if kind.base != "int" or kind.low is not None or kind.high is not None:
                yield Objection(name, path, f"takes {_range(kind)} for {path} of {name}")
        elif isinstance(value, Mapping):
            yield from self._many(name, kind, value, path)

    def _many(self, name: str, kind: Type, value: Mapping[str, Any], path: str) -> Iterator[Objection]:
        inner = kind.item or Type("object", kind.of)
        match kind.base:
            case "set":
                for item in value:
                    yield from self._value(name, inner, item, path)
            case "list" | "map":
                for item in value.values():
                    yield from self._value(name, inner, item, path)
            case "object":
                yield from self._object(kind.of, value, name, path)

    def _object(self, of: str, body: Mapping[str, Any], name: str, path: str) -> Iterator[Objection]:
        """Judge a whole object: its variant, its properties, and what it must say."""
        variants, variant = self.variants(of), body.get(TYPE)
        if variants and variant not in variants:
            yield self._no_variant(of, name, path, variant)
            return
        if TYPE in body and not variants:
            yield _unlike(name, path or TYPE, there=True)
            return
        found = self.properties(of, variant)
        for key, value in body.items():
            below = f"{path}/{key}" if path else key
            if key == TYPE:
                continue
            if key not in found or found[key].kind.server_set or (not path and not self.usable(of, variant, key)):
                yield _unlike(name, below, there=key in found)
            else:
                yield from self._value(name, found[key].kind, value, below)
        for key, item in found.items():
            if key not in body and self._must_say(item):
                yield _missing(name, f"{path}/{key}" if path else key)

    def _must_say(self, item: Property, depth: int = 0) -> bool:
        """Whether a new object lacks something without this property."""
        if not item.needed or item.kind.base != "object":
            return item.needed
        first = next(iter(self.variants(item.kind.of)), None)
        inside = self.properties(item.kind.of, first).values()
        return depth <= _DEEPEST and any(self._must_say(it, depth + 1) for it in inside)

    def _said(self, kind: Type, value: Any) -> bool:
        """Whether a value that was read is one that the server takes, and not what nobody has said yet."""
        if isinstance(value, Mapping) and kind.base == "object":
            inside = self.properties(kind.of, value.get(TYPE)).items()
            return all(not self._must_say(it) or self._said(it.kind, value.get(key)) for key, it in inside)
        return bool(value) and not (isinstance(value, int) and value < (kind.low or value))

    def _no_variant(self, of: str, name: str, path: str, variant: Any) -> Objection:
        place = f"{path} of {name}" if path else name
        return Objection(name, path, f"has no {place} of the type {variant}: it has {_listed(self.variants(of))}")


_LOCALE = re.compile(r"[a-z]{2,3}[_-]\w{2,8}")


def same_locale(one: str, other: str) -> bool:
    """Whether two texts name one locale: ``en_US`` up to 0.16.19, ``en-US`` since (releases.md)."""
    return bool(_LOCALE.fullmatch(one)) and one.replace("_", "-") == other.replace("_", "-")


def objects_singleton(table: Mapping[str, Mapping[str, Any]], name: str) -> bool:
    """Whether a table has one object of a kind, always."""
    return bool(table["objects"].get(name) == "singleton")


def _unlike(name: str, path: str, *, there: bool) -> Objection:
    if there:
        return Objection(name, path, f"takes something else as {path} of {name}")
    return Objection(name, path, f"has no property {path} of {name}")


def _missing(name: str, path: str) -> Objection:
    return Objection(name, path, f"needs {path} of {name}, which is not said here", lacking=True)


def _word(kind: Type) -> str:
    """Return what a type looks like on the wire."""
    return _WORDS.get(kind.base, kind.base)


def _listed(values: Iterable[str]) -> str:
    found = list(values)
    return ", ".join(found[:_SHOWN]) + (" ..." if len(found) > _SHOWN else "") if found else "none"


def _range(kind: Type) -> str:
    least = f"at least {kind.low:g}" if kind.low is not None else ""
    most = f"at most {kind.high:g}" if kind.high is not None else ""
    return " and ".join(filter(None, (least, most))) or "no number below 0"


# ---------------------------------------------------------------------------------------------------- what we need
@functools.cache
def _own() -> dict[str, Any]:
    """Read what the target reads and writes itself."""
    table: dict[str, Any] = json.loads((Path(__file__).parent / "jmap" / "needs.json").read_text("utf-8"))
    return table


def _needs(shape: str) -> bool:
    """Whether all that is known of an object is read or written by us: of others a directory names what it wants."""
    return shape in _own()["unions"] or shape in _own()["shapes"]


def key_properties(name: str) -> tuple[str, ...]:
    """Name the properties without which an object can't be told from others: without them nothing of it is read."""
    own: Mapping[str, list[str]] = _own()["keys"]
    key = objects.key_of(name)
    return tuple(own.get(name, ())) or (tuple(key.replace("/", "@").split("@")) if key and key != TYPE else ())


@functools.cache
def known() -> Schema:
    """Return all that is known of the known release: what we need, and what a directory may declare."""
    own = _own()
    table = objects.table()
    unions = {**table["unions"], **own["unions"]}
    for name in own["unions"].keys() & table["unions"].keys():
        unions[name] = {**table["unions"][name], **own["unions"][name]}
    shapes = {**table["shapes"], **own["shapes"]}
    for name in own["shapes"].keys() & table["shapes"].keys():
        shapes[name] = {**table["shapes"][name], **own["shapes"][name]}
    kinds = {name: "object" if key else "singleton" for name, key in table["objects"].items()}
    return Schema(
        {
            "objects": {**kinds, **own["objects"]},
            "shapes": shapes,
            "unions": unions,
            "enums": {**table["enums"], **own["enums"]},
        }
    )


# ---------------------------------------------------------------------------------------------------- what was read
_PLAINLY = {"bool": (bool,), "int": (int,), "float": (int, float), "text": (str,), "id": (str,)}


def is_understood(name: str, item: Mapping[str, Any]) -> bool:
    """Whether an object that was read is what the target takes it for: else a part would pass for nothing, or fail.

    What it is known by is text; any other part may be null. What the target does not read itself is not looked at.
    """
    return all(isinstance(item.get(key, ""), str) for key in _own_keys(name)) and _is_object(name, item)


@functools.cache
def _own_keys(name: str) -> tuple[str, ...]:
    return tuple(_own()["keys"].get(name, ()))


@functools.cache
def _own_shape(name: str, variant: str | None) -> tuple[Mapping[str, Type], frozenset[str]]:
    """Return what we read of an object, by name, and which of it one always has."""
    variants = _own()["unions"].get(name)
    shape = name if variants is None else variants.get(variant)
    found = {key: _property(text) for key, text in _own()["shapes"].get(shape, {}).items()}
    return {key: it.kind for key, it in found.items()}, frozenset(key for key, it in found.items() if it.needed)


def _is_object(name: str, value: Any, *, whole: bool = False) -> bool:
    if not isinstance(value, dict) or not isinstance(variant := value.get(TYPE), str | None):
        return False
    shape, needed = _own_shape(name, variant)
    if whole and any(value.get(key) is None for key in needed):
        return False
    return all(_is_of(shape[key], part) for key, part in value.items() if part is not None and key in shape)


def _is_of(kind: Type, value: Any) -> bool:
    """Whether a value is of a type as JMAP has it: sets and lists are objects there."""
    right = _PLAINLY.get(_word(kind))
    if right is not None:
        return type(value) in right
    if kind.base == "object":
        return _is_object(kind.of, value, whole=True)
    if not isinstance(value, dict):
        return False
    inner = kind.item or Type("object", kind.of)
    return kind.base == "set" or all(_is_of(inner, part) for part in value.values())


# -------------------------------------------------------------------------------------------------- what is served
class _Document:
    """A schema as the server answers it (jmap-0.16.md section 2), on its way to a table."""

    def __init__(self, document: Any) -> None:
        self._objects, self._schemas = _part(document, "objects"), _part(document, "schemas")
        self._fields, self._enums = _part(document, "fields"), _part(document, "enums")

    def table(self) -> dict[str, dict[str, Any]]:
        """Return the table."""
        kinds = {
            _name(full): str(item["type"])
            for full, item in self._objects.items()
            if full.startswith("x:") and item["type"] in ("object", "singleton")
        }
        unions, single = {}, {}
        for full, item in self._schemas.items():
            if item["type"] == "multiple":
                listed = {
                    _name(it["name"]): _name(it["schemaName"]) if "schemaName" in it else None
                    for it in item["variants"]
                }
                unions[_name(full)] = listed
            elif item["type"] == "single":
                single[_name(full)] = _name(item["schemaName"])
        shapes = {_name(full): self._shape(item) for full, item in self._fields.items()}
        shapes |= {name: shapes[shape] for name, shape in single.items() if name != shape and shape in shapes}
        enums = {_name(name): [_name(it["name"]) for it in values] for name, values in self._enums.items()}
        if not kinds or sum(map(len, enums.values())) > _MOST:
            raise ValueError("is no schema of a Stalwart")
        return {"objects": kinds, "shapes": shapes, "unions": unions, "enums": enums}

    def _shape(self, fields: Mapping[str, Any]) -> dict[str, str]:
        defaults = fields.get("defaults", {})
        return {_name(key): self._text(it, defaults.get(key)) for key, it in fields["properties"].items()}

    def _text(self, item: Mapping[str, Any], default: Any) -> str:
        """Write a property down; a new object must say one whose default is none that it takes."""
        kind = item["type"]
        text = self._type(kind) + {"serverSet": "="}.get(item["update"], "") + ("$" if item.get("enterprise") else "")
        bare = objects.type_of(text)
        many = kind["type"] in ("set", "objectList") and bool(kind.get("minItems"))
        if _word(bare) == "int":
            number = default if isinstance(default, int | float) else 0  # a duration may be text: it is in range
            unsaid = bool(bare.low and not isinstance(default, str) and number < bare.low)
        else:
            unsaid = default is None and (bare.base in _SAID or many)
        needed = unsaid and not (bare.server_set or bare.optional)
        return text + ("!" if needed else "") + ("~" if item["update"] == "immutable" else "")

    def _type(self, kind: Mapping[str, Any], depth: int = 0) -> str:  # noqa: PLR0911 (a line for each type)
        if depth > _DEEPEST:
            raise ValueError("is no schema of a Stalwart")
        optional = "?" if kind.get("nullable") else ""
        match kind["type"]:
            case "boolean" | "utcDateTime":
                return _PLAIN[kind["type"]] + optional
            case "string":
                return _FORMATS.get(kind["format"], "text") + optional
            case "number":
                low, high = kind.get("min"), kind.get("max")
                limits = f"[{_limit(low)}..{_limit(high)}]" if low is not None or high is not None else ""
                return _FORMATS[kind["format"]] + limits + optional
            case "enum":
                return f"enum:{_name(kind['enumName'])}{optional}"
            case "objectId":
                return f"id:{_name(kind['objectName']).partition('/')[0]}{optional}"
            case "set" | "map":
                inner = kind["class" if kind["type"] == "set" else "valueClass"]
                return f"{kind['type']}({self._type(inner, depth + 1)})"
            case "object" | "objectList":
                return f"{_PLAIN[kind['type']]}:{_name(kind['objectName'])}{optional}"
        return f"text{optional}"


def _part(document: Any, name: str) -> Mapping[str, Any]:
    part = document[name]
    if not isinstance(part, dict) or len(part) > _MOST:
        raise ValueError("is no schema of a Stalwart")
    return part


def _name(text: Any) -> str:
    if not isinstance(text, str) or not text or len(text) > _LONGEST or not text.isprintable():
        raise ValueError("is no schema of a Stalwart")
    return text.removeprefix("x:")


def _limit(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(value)
    return str(int(value)) if value == int(value) else ""
