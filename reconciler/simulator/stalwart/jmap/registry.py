"""The object types of Stalwart 0.16 as a table, and what may be written into them.

``objects.json`` says of each property what the released schema says: its type, whether it may be null (``?``),
written only once (``!``) or never (``=``), its range, and its default; and of texts what only the source says
(0.16.18, ``registry/src/schema/structs_impl.rs``): whether they are ``trimmed``, or stored without blanks as ``upper``
or ``lower``. Values are kept as they look on the wire: a set
is ``{"value": true}``, a list is ``{"0": ..}``, a variant has an ``@type``; only secrets look otherwise when read.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import ipaddress
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from reconciler.simulator.stalwart import suffixes

MASK = "****"
ALPHABET = "abcdefghijklmnopqrstuvwxyz792013"
SINGLETON = "singleton"
Verb = Literal["create", "update"]


def encode_id(number: int) -> str:
    """Write a number as ids are: base 32 with an alphabet of its own."""
    head = encode_id(number >> 5) if number > 31 else ""
    return head + ALPHABET[number & 31]


def is_id(text: str) -> bool:
    """Say whether a text could be an id."""
    return set(text) <= set(ALPHABET)


def decode_id(text: str) -> int:
    """Read an id. Raises ValueError where a character is none of an id's."""
    number = 0
    for letter in text:
        number = number << 5 | ALPHABET.index(letter)
    return number


NO_ID = encode_id((1 << 64) - 1)  # what an id reads that was never set


class PatchError(Exception):
    """A value that a property can't take; ``path`` is where, as the server names it."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(message)
        self.path, self.message = path, message


@dataclass(frozen=True, slots=True)
class Kind:
    """The type of a property. ``of`` names an object type or an enumeration, ``item`` is what a set or map holds.

    ``wire`` is its name in another schema than the fake's own: None where it is the same, "" where it has none.
    """

    base: str
    of: str = ""
    item: Kind | None = None
    low: float | None = None
    high: float | None = None
    nullable: bool = False
    once: bool = False
    server_set: bool = False
    default: Any = field(default=None, hash=False, compare=False)
    wire: str | None = None


_NOTATION = re.compile(r"(?P<type>[^\[?!=]+)(\[(?P<low>[^.]*)\.\.(?P<high>[^\]]*)\])?(?P<flags>[?!=]*)")


def _kind(notation: str, default: Any = None) -> Kind:
    match = _NOTATION.fullmatch(notation)
    if match is None:
        raise ValueError(notation)
    base, _, rest = match["type"].partition(":")
    if base == "map":
        rest = re.sub(r"^(enum:)?[^:]+:", "", rest)
    flags = match["flags"]
    return Kind(
        base,
        rest if base in ("enum", "id", "object", "list") else "",
        _kind(rest) if base in ("set", "map") else None,
        float(match["low"]) if match["low"] else None,
        float(match["high"]) if match["high"] else None,
        nullable="?" in flags,
        once="!" in flags,
        server_set="=" in flags,
        default=default,
    )


@dataclass(frozen=True, eq=False)
class Table:
    """The object types, their properties by the fake's own names, their variants, and the values of enumerations.

    ``hidden`` are variants that the schema which counts does not have; ``called`` maps its names of objects to ours.
    """

    objects: Mapping[str, str]
    shapes: Mapping[str, Mapping[str, Kind]]
    variants: Mapping[str, Mapping[str, str | None]]
    enums: Mapping[str, Sequence[str]]
    hidden: frozenset[tuple[str, str]] = frozenset()
    called: Mapping[str, str] = field(default_factory=dict)

    @functools.cached_property
    def property_names(self) -> frozenset[str]:
        """The names of all properties of all types, as they are on the wire."""
        return frozenset(wire_name(*item) for found in self.shapes.values() for item in found.items())


@functools.cache
def own_table() -> Table:
    """Return the table of the release that the fake is."""
    found = json.loads(Path(__file__).with_name("objects.json").read_text(encoding="utf-8"))
    shapes = {
        name: {key: _kind(item) if isinstance(item, str) else _kind(*item) for key, item in kinds.items()}
        for name, kinds in found["fields"].items()
    }
    called = {name: name for name in found["objects"]}
    return Table(found["objects"], shapes, found["variants"], found["enums"], called=called)


_IN_USE: ContextVar[Table] = ContextVar("table")


def _table() -> Table:
    return _IN_USE.get(None) or own_table()


@contextlib.contextmanager
def using(table: Table) -> Iterator[None]:
    """Judge by another table meanwhile."""
    token = _IN_USE.set(table)
    try:
        yield
    finally:
        _IN_USE.reset(token)


def wire_name(key: str, kind: Kind) -> str:
    """Return what a property is called on the wire; "" where the schema has none."""
    return key if kind.wire is None else kind.wire


def object_types() -> Mapping[str, str]:
    """Return the object types by name: each is an ``object`` or a ``singleton``."""
    return _table().objects


def called(name: str) -> str | None:
    """Return our name of an object type; None where the schema has none of this name."""
    return _table().called.get(name)


def is_singleton(name: str) -> bool:
    """Say whether there is one object of this type at most."""
    return object_types().get(name) == "singleton"


def fields(name: str) -> Mapping[str, Kind]:
    """Return the properties of an object type that has no variants, or of a variant."""
    return _table().shapes.get(name, {})


def variants(name: str) -> Mapping[str, str | None]:
    """Return the variants of an object type and the names of their properties' tables; the first is the default."""
    return _table().variants.get(name, {})


def fields_of(name: str, value: Mapping[str, Any]) -> Mapping[str, Kind]:
    """Return the properties that this object has, by its ``@type`` where there are variants."""
    found = variants(name)
    if not found:
        return fields(name)
    inner = found[value["@type"]]
    return fields(inner) if inner else {}


def _by_wire(name: str, value: Mapping[str, Any]) -> dict[str, tuple[str, Kind]]:
    """Return the properties that this object has, by their names on the wire."""
    found = ((wire_name(key, kind), (key, kind)) for key, kind in fields_of(name, value).items())
    return {name: item for name, item in found if name}


# ---------------------------------------------------------------------------------------------------------- defaults
def copied(value: Any) -> Any:
    """Copy a value of JSON. The library's deep copy asks of each text what it is, which takes far longer."""
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    return [copied(item) for item in value] if isinstance(value, list) else value


def new(name: str, variant: str | None = None) -> dict[str, Any]:
    """Return an object as it is before anything was written into it."""
    found = variants(name)
    if not found:
        return {key: default(kind) for key, kind in fields(name).items()}
    variant = variant or next(iter(found))
    inner = found[variant]
    return {"@type": variant, **(new(inner) if inner else {})}


def of_old(name: str, value: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object as a store has had it for long: what only new ones have to say, it has said."""
    said = {key for key, kind in fields_of(name, value).items() if kind.wire not in (None, "", key)}
    return {key: "said of old" if key in said and item == "" else item for key, item in value.items()}


def default(kind: Kind) -> Any:
    """Return the value of a property that was never written."""
    if kind.default is not None:
        return _merged(kind, kind.default)
    if kind.nullable:
        return None
    return _blank(kind)


def _blank(kind: Kind) -> Any:
    match kind.base:
        case "set" | "map" | "list":
            return {}
        case "object":
            return new(kind.of)
        case "bool":
            return False
        case "uint" | "int" | "float":
            return 0
        case "enum":
            return _table().enums[kind.of][0]
        case "id":
            return NO_ID
        case _:
            return ""


def _merged(kind: Kind, value: Any) -> Any:
    """Fill up a default that says only what differs from the defaults below it."""
    if kind.base == "object":
        whole = of_old(kind.of, new(kind.of, value.get("@type")))
        inner = _by_wire(kind.of, whole)
        named = ((inner[name], item) for name, item in value.items() if name in inner)
        return whole | {key: _merged(found, item) for (key, found), item in named}
    if kind.base in ("list", "map"):
        item_kind = kind.item or Kind("object", kind.of)
        return {key: _merged(item_kind, item) for key, item in value.items()}
    return copied(value)


# ---------------------------------------------------------------------------------------------------------- patching
def patch(name: str, old: Mapping[str, Any], pointer: Sequence[str], value: Any, verb: Verb) -> dict[str, Any]:
    """Return the object with a value written at a JSON pointer, the whole object where that is empty.

    Raises `PatchError`.
    """
    found = _patch(Kind("object", name), old, list(pointer), value, where="/".join(pointer), verb=verb)
    return dict(found)


def _patch(kind: Kind, old: Any, pointer: list[str], value: Any, *, where: str, verb: Verb) -> Any:
    if kind.nullable:
        if value is None and not pointer:
            return None
        if old is None:
            old = _blank(kind)
    match kind.base:
        case "object":
            return _patch_object(kind, old, pointer, value, where=where, verb=verb)
        case "list" | "map":
            return _patch_items(kind, old, pointer, value, where=where, verb=verb)
        case "set":
            return _patch_set(kind, old, pointer, value, where)
        case _ if pointer:
            raise PatchError(where, "Invalid JSON Pointer path")
        case _:
            return _scalar(kind, value, where)


def _patch_object(kind: Kind, old: Any, pointer: list[str], value: Any, *, where: str, verb: Verb) -> Any:
    if pointer:
        changes = {pointer[0]: value}
    else:
        if variants(kind.of):
            variant = value.get("@type") if isinstance(value, dict) else None
            if variant not in variants(kind.of) or (kind.of, variant) in _table().hidden:
                raise PatchError(where, "Missing or invalid '@type' property in object")
            old = new(kind.of, variant)
        if not isinstance(value, dict):
            raise PatchError(where, "Invalid value type for object")
        changes = {key: item for key, item in value.items() if key != "@type"}
    found = dict(old)
    known = _by_wire(kind.of, found)
    for name, item in changes.items():
        path = where if pointer else f"{where}/{name}".lstrip("/")
        if name not in known:
            strange = not pointer and name not in _table().property_names
            raise PatchError(where, "Invalid key for object") if strange else PatchError(path, "Invalid property")
        key, inner = known[name]
        if inner.server_set:
            raise PatchError(path, "Cannot modify server set property")
        if inner.once and verb == "update":
            raise PatchError(path, "Cannot modify read-only property")
        old_value = found[key] if key in found else default(inner)
        found[key] = _patch(inner, old_value, pointer[1:], item, where=path, verb=verb)
    return found


def _patch_items(kind: Kind, old: Any, pointer: list[str], value: Any, *, where: str, verb: Verb) -> Any:
    item_kind = kind.item or Kind("object", kind.of)
    if pointer:
        found, key = dict(old), pointer[0]
        if kind.base == "list" and not key.isdigit():
            raise PatchError(where, "Invalid value for object property")
        if value is None and len(pointer) == 1:
            if kind.base == "list" and key not in found:
                raise PatchError(where, "Invalid value for object property")
            found.pop(key, None)
        else:
            base = found.get(key, _blank(item_kind))
            found[key] = _patch(item_kind, base, pointer[1:], value, where=where, verb=verb)
    elif isinstance(value, dict):
        if kind.base == "list" and not all(key.isdigit() for key in value):
            raise PatchError(where, "Invalid key for object property")
        found = {
            key: _patch(item_kind, _blank(item_kind), [], item, where=where, verb=verb) for key, item in value.items()
        }
    else:
        raise PatchError(where, "Invalid value for object property")
    return dict(sorted(found.items(), key=lambda pair: int(pair[0]))) if kind.base == "list" else found


def numbered(name: str, value: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object as it is stored: its lists count from 0 without gaps, whatever the keys were."""
    lists = {key for key, kind in fields_of(name, value).items() if kind.base == "list"}
    return {
        key: {str(index): each for index, each in enumerate(item.values())} if key in lists else item
        for key, item in value.items()
    }


_UNCHECKED = ("string", "domain", "email", "local", "host")  # what a set takes as it comes, where a property does not


def _patch_set(kind: Kind, old: Any, pointer: list[str], value: Any, where: str) -> Any:
    refused = PatchError(where, "Invalid value for object property")
    if len(pointer) > 1 or kind.item is None:
        raise refused
    changes = {pointer[0]: value} if pointer else value
    if not isinstance(changes, dict):
        raise refused
    found = dict(old) if pointer else {}
    for key, item in changes.items():
        if not isinstance(item, bool | None):
            raise PatchError(where, "Invalid key for object property")
        try:
            member = key if key and kind.item.base in _UNCHECKED else _scalar(kind.item, key, where)
        except PatchError as error:
            raise PatchError(where, "Invalid key for object property") from error
        if item:
            found[member] = True
        else:
            found.pop(member, None)
    return found


def _scalar(kind: Kind, value: Any, where: str) -> Any:
    match kind.base:
        case "bool":
            if isinstance(value, bool):
                return value
            message = "Invalid value for boolean property (expected true or false)"
        case "uint" | "int":
            if isinstance(value, int) and not isinstance(value, bool) and (value >= 0 or kind.base == "int"):
                return value
            sort = "unsigned integer" if kind.base == "uint" else "signed integer"
            expected = "non-negative integer" if kind.base == "uint" else "integer"
            message = f"Invalid value for {sort} property (expected {expected})"
        case "float":
            if isinstance(value, int | float) and not isinstance(value, bool):
                return value
            message = "Invalid value for float property (expected a number)"
        case _:
            if isinstance(value, str) and value:
                return _text(kind, value, where)
            message = "Invalid value for property."
    raise PatchError(where, message)


def _text(kind: Kind, value: str, where: str) -> str:
    """Read a property that is a text on the wire, in the form in which the server keeps it."""
    if kind.base == "enum" and value not in _table().enums.get(kind.of, (value,)):
        raise PatchError(where, f'Invalid value Str("{value}") for enum type {kind.of}.')
    if kind.base in _READERS:
        message, read = _READERS[kind.base]
        try:
            return read(value)
        except ValueError as error:
            raise PatchError(where, message) from error
    return value


_PRIVATE = ("corp", "home", "internal", "intranet", "lan", "local", "localdomain", "localhost", "private", "test")
_SUFFIXES = suffixes.PUBLIC.union(_PRIVATE)


def domain_name(value: str) -> str:
    """Return a domain's name in its canonical form. Raises ValueError, also for a suffix that nobody registers."""
    name = "".join(value.split()).lower()
    if not name.isascii():
        name = name.encode("idna").decode()  # UnicodeError is a ValueError
    label = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
    if len(name) > 253 or not re.fullmatch(rf"({label}\.)+([a-z]{{2,63}}|xn--[a-z0-9-]+)", name):
        raise ValueError(value)
    if name.rpartition(".")[2] not in _SUFFIXES:
        raise ValueError(value)
    return name


def _local_part(value: str) -> str:
    name = "".join(value.split()).lower()
    if not re.fullmatch(r"[^\s@\"(),:;<>\[\\\]]+", name):
        raise ValueError(value)
    return name


def _email(value: str) -> str:
    local, at, domain = value.strip().rpartition("@")
    if not at:
        raise ValueError(value)
    return f"{_local_part(local)}@{domain_name(domain)}"


def _host(value: str) -> str:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return domain_name(value)
    return value


def _trimmed(value: str) -> str:
    if not value.strip():
        raise ValueError(value)
    return value.strip()


def _network(value: str) -> str:
    found = ipaddress.ip_interface(value)  # a network keeps its host bits (observed.md)
    return str(found.ip) if found.network.num_addresses == 1 else str(found)


def _address(value: str) -> str:
    ipaddress.ip_address(value)
    return value


def _date(value: str) -> str:
    dt.datetime.fromisoformat(value)
    return value


def _id(value: str) -> str:
    decode_id(value)  # raises ValueError
    return value


_READERS: dict[str, tuple[str, Callable[[str], str]]] = {
    "domain": ("Invalid domain name", domain_name),
    "email": ("Invalid email address", _email),
    "local": ("Invalid email local part", _local_part),
    "host": ("Invalid hostname or IP address", _host),
    # What the server makes of a text before it stores it (0.16.18: registry/src/types/string.rs, StringValidator).
    "trimmed": ("String cannot be empty", _trimmed),
    "upper": ("", lambda value: "".join(value.split()).upper()),
    "lower": ("", lambda value: "".join(value.split()).lower()),
    "network": ("Failed to parse IpAddrOrMask from string", _network),
    "address": ("Failed to parse IpAddr from string", _address),
    "date": ("Failed to parse UTCDateTime from string", _date),
    "id": ("Failed to parse Id from string", _id),
}


# ------------------------------------------------------------------------------------------------ looking at a value
def validate(name: str, value: Mapping[str, Any]) -> list[dict[str, Any]]:
    """List what keeps an object from being stored, as the server's ``validationErrors``."""
    known = _by_wire(name, value).items()
    return [error for wire, (key, kind) in known if key in value for error in _invalid(wire, kind, value[key])]


def _invalid(key: str, kind: Kind, value: Any) -> Iterator[dict[str, Any]]:
    if value is None or kind.server_set:
        return
    if value in ("", NO_ID) and kind.base not in ("bool", "uint", "int", "float", "enum", "word", "date"):
        yield {"type": "Required", "property": key}
    elif kind.base in ("uint", "int", "float", "set", "list", "map"):
        size, sort = (len(value), "Length") if isinstance(value, dict) else (value, "Value")
        if kind.low is not None and size < kind.low:
            yield {"type": f"Min{sort}", "property": key, "required": int(kind.low)}
        if kind.high is not None and size > kind.high:
            yield {"type": f"Max{sort}", "property": key, "required": int(kind.high)}
    for of, item in _inner(kind, value):
        yield from validate(of, item)


def _inner(kind: Kind, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the objects inside a property's value, with the names of their types."""
    if value is None:
        return
    if kind.base == "object":
        yield kind.of, value
    elif kind.base == "list":
        yield from ((kind.of, item) for item in value.values())
    elif kind.base == "map" and kind.item and kind.item.base == "object":
        yield from ((kind.item.of, item) for item in value.values())


def references(name: str, value: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield what an object refers to: the type, the variant that it must have or an empty text, and the id."""
    for key, kind in fields_of(name, value).items():
        item = value.get(key)
        if kind.base == "id" and item not in (None, NO_ID) and not kind.server_set:
            of, _, variant = kind.of.partition("/")
            yield of, variant, item
        elif kind.base == "set" and kind.item and kind.item.base == "id":
            of, _, variant = kind.item.of.partition("/")
            yield from ((of, variant, member) for member in item or ())
        for of, inner in _inner(kind, item):
            yield from references(of, inner)


def render(name: str, value: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object as it is read: no secret can be (traps.md 17)."""
    shown = {"@type": value["@type"]} if "@type" in value else {}
    for wire, (key, kind) in _by_wire(name, value).items():
        item = value[key] if key in value else default(kind)
        if kind.base == "secret":
            shown[wire] = MASK
        elif key == "otpAuth":
            shown |= {wire: MASK} if item is not None else {}
        else:
            shown[wire] = _shown(kind, item)
    return shown


def _shown(kind: Kind, value: Any) -> Any:
    if value is None:
        return None
    if kind.base == "object":
        return render(kind.of, value)
    if kind.base == "list":
        return {key: render(kind.of, item) for key, item in value.items()}
    if kind.base == "map" and kind.item and kind.item.base == "object":
        return {key: render(kind.item.of, item) for key, item in value.items()}
    return copied(value)
