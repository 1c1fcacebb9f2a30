"""The server's own objects (``stalwart.objects``, from 0.16): what may be declared of them, and what values mean.

``objects_table.json`` says of each object its natural key ("" of a singleton), and of each property its type:
``?`` may be null, ``=`` is the server's, ``$`` belongs to the Enterprise edition.
It is derived from the server's schema by ``tests/desired/objects_table.py``, and read only when objects are declared.

A value is kept in the one form in which equal means the same: a set as a sorted tuple, a list as a tuple, an object or
map as `Parts`, a duration in ms, a size in bytes, a network canonical, a secret as its reference.
"""

from __future__ import annotations

import datetime as dt
import functools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path as File
from typing import Any

from reconciler.names import host, is_name
from reconciler.resources import SecretRef, Setting

PREFIX = "objects/"
SINGLETON = "singleton"
TYPE = "@type"
BOOTSTRAP = "Bootstrap"
"""What a server is given to leave bootstrap mode, and never again: it is no setting."""

_AFTER_RESTART = frozenset({"BlobStore", "Cache", "Coordinator", "DataStore", "InMemoryStore", "SearchStore"})
# Built when the process starts; a reload keeps them (0.16.18: common/src/cache/reload.rs, manager/boot.rs).

_REFUSED = {
    "enterprise": ("belongs to the Enterprise edition", "take it away: the free edition refuses it"),
    "account": ("belongs to the account that logs in, not to the server", "take it away"),
    "runtime": ("is no setting: the server makes and removes these by itself", "take it away"),
    "nameless": ("has no name to find it by again", "set it on the server itself"),
}
_ELSEWHERE = {"Domain": "name", "NetworkListener": "name"}  # kept under words of our own, and referred to from here
_REFERENCE = (
    "write {env: NAME}, {credential: NAME}, {file: PATH}, {sops: PATH#KEY}, {age: PATH} or {account: ADDRESS} in its "
    "place"
)
_REFERENCE_KEYS = frozenset({"env", "credential", "file", "sops", "age", "account"})
_RATE = re.compile(r"([0-9]{1,9})\s*/\s*(.+)")
_UNITS = {"": 1, "ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}

Path = tuple[str | int, ...]


class Misfit(ValueError):
    """A value that can't stand where it stands; ``path`` leads to it from the property on. It repeats no secret."""

    def __init__(self, summary: str, hint: str = "", path: Path = ()) -> None:
        super().__init__(summary)
        self.summary, self.hint, self.path = summary, hint, path

    def below(self, step: str | int) -> Misfit:
        """Return it as seen from one step further up."""
        return Misfit(self.summary, self.hint, (step, *self.path))


class Parts(Mapping[str, Any]):
    """An object's or map's values by name: immutable, in the names' order, equal to another with equal parts."""

    __slots__ = ("_parts",)

    def __init__(self, parts: Mapping[str, Any]) -> None:
        self._parts = {name: parts[name] for name in sorted(parts)}

    def __getitem__(self, name: str) -> Any:
        return self._parts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)

    def __hash__(self) -> int:
        return hash(tuple(self._parts.items()))

    def __repr__(self) -> str:
        return repr(self._parts)


# ------------------------------------------------------------------------------------------------------- the table
@dataclass(frozen=True, slots=True)
class Type:
    """The type of a property. ``of`` names the enumeration, object or union; ``item`` is what a set or map holds."""

    base: str
    of: str = ""
    item: Type | None = None
    low: float | None = None
    high: float | None = None
    optional: bool = False
    server_set: bool = False
    enterprise: bool = False


_TYPE = re.compile(
    r"(?:(?P<many>set|map)\((?P<item>.*)\)|(?P<base>\w+)(?::(?P<of>\w+))?(?:\[(?P<low>[^.]*)\.\.(?P<high>.*)\])?)"
    r"(?P<flags>[?=$]*)"
)


@functools.cache
def type_of(text: str) -> Type:
    """Read a type as the table writes it: ``set(text)``, ``uint[1..100]?``, ``object:Rate``."""
    match = _TYPE.fullmatch(text)
    if match is None:
        raise AssertionError(text)
    low, high, flags = match["low"], match["high"], match["flags"]
    return Type(
        match["many"] or match["base"],
        match["of"] or "",
        type_of(match["item"]) if match["many"] else None,
        float(low) if low else None,
        float(high) if high else None,
        optional="?" in flags,
        server_set="=" in flags,
        enterprise="$" in flags,
    )


@functools.cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(File(__file__).with_name("objects_table.json").read_text("utf-8"))
    return table


def table() -> Mapping[str, Mapping[str, Any]]:
    """Return the table's parts: ``objects``, ``shapes``, ``unions`` and ``enums``."""
    return _table()


def names() -> tuple[str, ...]:
    """List the kinds of objects that may be declared."""
    return tuple(_table()["objects"])


def key_of(name: str) -> str:
    """Return what names the objects of a kind: a property, ``@type``, ``name@domainId``, ``namespace/key``; or ""."""
    key: str = _ELSEWHERE.get(name) or _table()["objects"].get(name, "")
    return key


def is_singleton(name: str) -> bool:
    """Whether there is one object of this kind, always."""
    return not key_of(name)


def entry_name(name: str, entry: str) -> str:
    """Return a declared object's name as the server keeps it: addresses are in lower case."""
    return entry.lower() if "@" in key_of(name)[1:] else entry


def variants(name: str) -> Mapping[str, str | None]:
    """Map the types (``@type``) of an object or union to their shapes; empty where there is only one."""
    found: dict[str, str | None] = _table()["unions"].get(name, {})
    return found


def properties(name: str, variant: str | None = None) -> dict[str, Type]:
    """Return the properties of an object, of one of its types where it has several."""
    shape = variants(name).get(variant or "") if variants(name) else name
    return {key: type_of(text) for key, text in _table()["shapes"].get(shape, {}).items()}


def key_parts(name: str, entry: str) -> dict[str, str]:
    """Return the properties that a declared name stands for: ``{"name": "relay"}``. Raises `Misfit`."""
    key = key_of(name)
    separator = next((sign for sign in "@/" if sign in key[1:]), "")
    if not separator:
        return {key: entry}
    first, sign, second = entry.rpartition(separator) if separator == "@" else entry.partition(separator)
    if not sign or not first or not second:
        raise Misfit("is no name of such an object", f"write it as {key.replace('Id', '').upper()}")
    return dict(zip(key.split(separator), (first, second), strict=True))


# ------------------------------------------------------------------------------------------------ from YAML to values
def declared(name: str, entry: str, fields: Mapping[str, Any]) -> tuple[dict[str, Any], list[tuple[Path, Misfit]]]:
    """Read what the YAML says of one object: its properties' values, and what is wrong with paths from the entry on."""
    wrong: list[tuple[Path, Misfit]] = []
    values: dict[str, Any] = {}
    try:
        variant = _variant(name, entry, fields)
        own = key_parts(name, entry) if not is_singleton(name) else {}
    except Misfit as misfit:
        return {}, [(misfit.path, misfit)]
    known = properties(name, variant)
    for field, value in fields.items():
        try:
            if field == TYPE:
                values[field] = variant
            elif field in own:
                raise Misfit("is what the entry is called", "take it away here")  # noqa: TRY301 (one way out)
            else:
                values[field] = canonical(_property(known, field, _of(name, variant)), value)
        except Misfit as misfit:
            wrong.append(((field, *misfit.path), misfit))
    if not fields and own:
        wrong.append(((), Misfit("says nothing of it", "write {FIELD: VALUE}, or take it away")))
    if TYPE in own:
        values.pop(TYPE, None)
    return values, wrong


def refusal(name: str) -> tuple[str, str] | None:
    """Say why an object can't be declared at all: a summary and a hint. None where it can."""
    if name in _table()["objects"]:
        return None
    if name in _table()["refused"]:
        return _REFUSED[_table()["refused"][name]]
    return "is no object of the server", f"{_near(name, _table()['objects'])} {_speaks()}"


def _near(name: str, known: Iterator[str] | Mapping[str, Any]) -> str:
    from difflib import get_close_matches  # only mistakes ask

    lower = {item.lower(): item for item in known}
    found = get_close_matches(name.lower(), list(lower), 1)
    return f"did you mean {lower[found[0]]}?" if found else f"known are {', '.join(sorted(lower.values())[:40])}"


def _speaks() -> str:
    """Say for which release the table speaks; a plan goes by what the server itself has."""
    return f"(the names are those of Stalwart {_table()['release']})"


def _of(name: str, variant: str | None) -> str:
    return f"{name} of type {variant}" if variant else name


def _variant(name: str, entry: str, fields: Mapping[str, Any]) -> str | None:
    """Return the type of a declared object; its name says it where that is its key."""
    known = variants(name)
    if not known:
        return None
    said = fields.get(TYPE, entry if key_of(name) == TYPE else None)
    if key_of(name) == TYPE and said != entry:
        raise Misfit("is what the entry is called", "take it away here", (TYPE,))
    path = () if said is None or TYPE not in fields else (TYPE,)
    return _known_variant(known, said, path)


def _known_variant(known: Mapping[str, Any], said: Any, path: Path) -> str:
    if said is None:
        hint = f'write "{TYPE}": {next(iter(known))} among its fields'
        raise Misfit(f"must say its type: {_listed(known)}", hint, path)
    if said not in known:
        raise Misfit(f"must be {_listed(known)}", f"{_near(str(said), known)} {_speaks()}", path)
    return str(said)


def _listed(names: Mapping[str, Any]) -> str:
    shown = list(names)[:12]
    return ", ".join(shown) + (" ..." if len(names) > len(shown) else "")


def _property(known: Mapping[str, Type], field: str, what: str) -> Type:
    kind = known.get(field)
    if kind is None:
        raise Misfit(f"is no property of {what}", f"{_near(field, known)} {_speaks()}")
    if kind.server_set:
        raise Misfit("is set by the server alone", "take it away")
    if kind.enterprise:
        raise Misfit(*_REFUSED["enterprise"])
    if kind.base == "id" and kind.of not in _ELSEWHERE and kind.of not in _table()["objects"]:
        raise Misfit(f"refers to a {kind.of}, which nothing names", "set it on the server itself")
    return kind


def canonical(kind: Type, value: Any) -> Any:
    """Return the one form of a value that the YAML says. Raises `Misfit` where it can't be of that type."""
    if value is None:
        if kind.base in EMPTY:
            return EMPTY[kind.base]
        if not kind.optional:
            raise Misfit("can't be empty", "write a value, or take the line away: then it is left as it is")
        return None
    return _READERS[kind.base](kind, value)


def _boolean(_: Type, value: Any) -> bool:
    known = {"true": True, "on": True, "yes": True, "false": False, "off": False, "no": False}
    found = known.get(str(value).lower()) if isinstance(value, bool | str) else None
    if found is None:
        raise Misfit("must be true or false", "write one of the two")
    return found


def _text(kind: Type, value: Any) -> str | SecretRef:
    if isinstance(value, dict) and len(value) == 1 and value.keys() <= _REFERENCE_KEYS:
        return _secret(kind, value)  # a URL or a header may hold one
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict | list):
        raise Misfit("must be text", "is a dash, a colon or a brace too much? put text with these in quotes")
    if not str(value).strip():
        raise Misfit("is an empty text, which the server refuses", "write null to clear it")
    return str(value)


_CASED = {"SpamRule": str.upper, "SpamDnsblServer": str.upper, "SpamTag": str.upper, "SpamFileExtension": str.lower}


def stored_key(name: str, entry: str) -> str:
    """Return what an object is known by once the server has stored it.

    Most texts are trimmed, these are without blanks and in one case (0.16.18: registry/src/schema/structs_impl.rs).
    """
    if name in _CASED:
        return _CASED[name]("".join(entry.split()))
    return entry.strip()


def same_text(want: str, have: str) -> bool:
    """Whether what is read is what a server makes of a text: it trims most of them, and has host names in one case.

    Of 360 properties 290 are trimmed (0.16.18: registry/src/schema/structs_impl.rs); what outer blanks say elsewhere,
    nobody reads.
    """
    return want.strip() == have.strip() or (is_name(want.strip()) and host(want.strip()) == have)


def _secret(_: Type, value: Any) -> SecretRef:
    if not isinstance(value, dict):
        raise Misfit("is a secret written out: it must be a reference", _REFERENCE)
    if len(value) != 1 or not value.keys() <= _REFERENCE_KEYS:
        raise Misfit("must be a reference to a secret", _REFERENCE)
    ((source, name),) = value.items()
    if not isinstance(name, str) or not name or (source == "sops" and "#" not in name):
        raise Misfit("is no reference to a secret", _REFERENCE)
    return SecretRef(source, name)


def _network(_: Type, value: Any) -> str:
    try:
        return str(ip_network(str(value), strict=False))
    except ValueError:
        raise Misfit("is no address and no network", "write it like 172.18.0.0/16") from None


def _date(_: Type, value: Any) -> str:
    try:
        moment = dt.datetime.fromisoformat(str(value))
    except ValueError:
        raise Misfit("is no date and time", "write it like 2026-11-22T10:00:00Z") from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
    return moment.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _number(kind: Type, value: Any) -> int | float:
    whole = kind.base != "float"
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        raise Misfit("must be a whole number" if whole else "must be a number", "write it in digits alone")
    return _within(kind, value)


def _within(kind: Type, value: float) -> float:
    low = kind.low if kind.low is not None or kind.base in ("int", "float") else 0
    if (low is not None and value < low) or (kind.high is not None and value > kind.high):
        least = f"at least {low:g}" if low is not None else ""
        most = f"at most {kind.high:g}" if kind.high is not None else ""
        raise Misfit(f"must be {' and '.join(filter(None, (least, most)))}", "write a number in this range")
    return value


def _duration(kind: Type, value: Any) -> float:
    match = re.fullmatch(r"([0-9]{1,15})\s*(ms|s|m|h|d|)", str(value).strip().lower())
    if match is None or isinstance(value, bool):
        raise Misfit("is no duration", "write it like 30s, 5m, 12h or 1d, or in milliseconds")
    return _within(kind, int(match[1]) * _UNITS[match[2]])


def _size(kind: Type, value: Any) -> float:
    match = re.fullmatch(r"([0-9]{1,15})\s*(?:([kmgt])(i?)b?|b|)", str(value).strip().lower())
    if match is None or isinstance(value, bool):
        raise Misfit("is no size", "write it like 25 MiB or 500 MB, or in bytes")
    power = " kmgt".index(match[2]) if match[2] else 0
    return _within(kind, int(match[1]) * (1024 if match[3] else 1000) ** power)


def _enum(kind: Type, value: Any) -> str:
    known: list[str] = _table()["enums"][kind.of]
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if text not in known:
        values = dict.fromkeys(known)
        raise Misfit(f"must be {_listed(values)}", f"{_near(text, values)} {_speaks()}")
    return text


def _reference(kind: Type, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise Misfit(f"must be the name of a {kind.of}", f"write its {key_of(kind.of)}, not the server's id")
    return value.lower() if kind.of == "Domain" else value


def _object(kind: Type, value: Any) -> Parts | None:
    if kind.of == "Rate" and kind.optional and (value is False or str(value).lower() == "off"):
        return None
    value = _expanded(kind, value)
    known = variants(kind.of)
    if not isinstance(value, dict):
        names = {TYPE: ""} if known else properties(kind.of)
        raise Misfit("must be a map", f"write {{FIELD: VALUE}}, of {_listed(names)}")
    variant = _known_variant(known, value.get(TYPE), ()) if known else None
    fields = properties(kind.of, variant)
    made: dict[str, Any] = {TYPE: variant} if known else {}
    for name, item in value.items():
        try:
            if name != TYPE or not known:
                made[name] = canonical(_property(fields, name, _of(kind.of, variant)), item)
        except Misfit as misfit:
            raise misfit.below(name) from None
    return Parts(made)


def _expanded(kind: Type, value: Any) -> Any:
    """Write short forms out: ``30/1d`` of a rate, and the reference alone where a secret may come from elsewhere."""
    if kind.of == "Rate" and isinstance(value, str):
        match = _RATE.fullmatch(value.strip().lower())
        if match is None:
            raise Misfit("is no rate", "write it like 30/1d, or null for none")
        return {"count": int(match[1]), "period": match[2]}
    if isinstance(value, dict) and len(value) == 1 and value.keys() <= _REFERENCE_KEYS:
        for variant in variants(kind.of):
            for name, item in properties(kind.of, variant).items():
                if item.base == "secret":
                    return {TYPE: variant, name: value}
    return value


def _list(kind: Type, value: Any) -> tuple[Any, ...]:
    items = _items(value)
    return tuple(_item(Type("object", kind.of), item, index) for index, item in enumerate(items))


def _set(kind: Type, value: Any) -> tuple[Any, ...]:
    if isinstance(value, dict) and all(item is True for item in value.values()):
        value = list(value)
    if kind.item is None:
        raise AssertionError(kind)
    items = {_item(kind.item, item, index) for index, item in enumerate(_items(value))}
    if any(isinstance(item, SecretRef) for item in items):
        raise Misfit("is a set, in which no reference can stand", "write the values themselves")
    return tuple(sorted(items))


def _items(value: Any) -> list[Any]:
    if isinstance(value, dict) and all(isinstance(key, str) and key.isdecimal() for key in value):
        return [value[key] for key in sorted(value, key=int)]
    if not isinstance(value, list):
        raise Misfit("must be a list", "write [ONE, ANOTHER], or [] for an empty one")
    return value


def _item(kind: Type, value: Any, step: str | int) -> Any:
    try:
        return canonical(kind, value)
    except Misfit as misfit:
        raise misfit.below(step) from None


def _map(kind: Type, value: Any) -> Parts:
    if not isinstance(value, dict):
        raise Misfit("must be a map", "write {NAME: VALUE}")
    if kind.item is None:
        raise AssertionError(kind)
    return Parts({name: _item(kind.item, item, name) for name, item in value.items()})


EMPTY: Mapping[str, Any] = {"set": (), "list": (), "map": Parts({})}
"""What null means of these types: nothing in it."""

_READERS: dict[str, Callable[[Type, Any], Any]] = {
    "bool": _boolean,
    "text": _text,
    "secret": _secret,
    "net": _network,
    "date": _date,
    "int": _number,
    "uint": _number,
    "float": _number,
    "ms": _duration,
    "bytes": _size,
    "enum": _enum,
    "id": _reference,
    "object": _object,
    "list": _list,
    "set": _set,
    "map": _map,
}


def property_schema() -> dict[str, Any]:
    """Return the JSON Schema of ``stalwart.objects``, down to the names of properties: for completion in an editor."""
    made = {}
    for name in _table()["objects"]:
        shapes = [properties(name, variant) for variant in variants(name) or (None,)]
        known = {field: _described(kind) for shape in shapes for field, kind in shape.items() if not kind.server_set}
        tag = {"enum": list(variants(name)), "description": "Which sort of it: what else it has follows from that."}
        known |= {TYPE: tag} if variants(name) else {}
        entry = {"type": "object", "properties": known, "additionalProperties": False}
        alone = {**entry, "description": "There is one of it, always."}
        only = {"properties": {SINGLETON: alone}, "additionalProperties": False}
        made[name] = {
            "type": "object",
            "description": f"{name}, in the server's own words.",
            **(only if is_singleton(name) else {"additionalProperties": entry}),
        }
    return {"type": ["object", "null"], "properties": made, "patternProperties": {"^x[-:]": {}}}


_SORTS = {
    "bool": "true or false",
    "text": "a text",
    "net": "an address or a network",
    "date": "a date and time",
    "ms": "a time such as 30s or 5m",
    "bytes": "a size such as 5 MB",
    "secret": "a reference to a secret",
    "int": "a number",
    "uint": "a number",
    "float": "a number",
    "map": "a map",
    "enum": "one of a few words",
}


def _described(kind: Type) -> dict[str, Any]:
    made: dict[str, Any] = {"description": f"In the server's own words: {_sort(kind)}."}
    if kind.base == "bool":
        return made | {"type": "boolean"}
    if kind.base == "enum":
        made["enum"] = [*_table()["enums"][kind.of], *([None] if kind.optional else [])]
    return made


def _sort(kind: Type) -> str:
    """Say what a property holds, for a person."""
    if kind.base in ("set", "list"):
        inner = kind.item or Type("object", kind.of)
        said = f"a list, each entry {_sort(inner)}"
    elif kind.base == "id":
        said = f"the name of a {kind.of}"
    elif kind.base == "object":
        said = f"a map, as {kind.of} has it"
    else:
        said = _SORTS.get(kind.base, "a text")
    least = f", at least {kind.low:g}" if kind.low is not None else ""
    most = f", at most {kind.high:g}" if kind.high is not None else ""
    free = "; `null` for none" if kind.optional else ""
    return f"{said}{least}{most}{free}{' (Enterprise edition)' if kind.enterprise else ''}"


# --------------------------------------------------------------------------------------------------------- resources
def word(name: str, entry: str, field: str) -> str:
    """Name one property as a setting: ``objects/Http/useXForwarded``, ``objects/MtaRoute/relay/address``."""
    return f"{PREFIX}{name}/{field}" if is_singleton(name) else f"{PREFIX}{name}/{entry}/{field}"


@dataclass(frozen=True, slots=True)
class Place:
    """Which property of which object a setting is; ``entry`` is "" of a singleton."""

    name: str
    entry: str
    field: str

    @property
    def owner(self) -> tuple[str, str]:
        """The object it is a property of."""
        return self.name, self.entry


def place(setting: Setting) -> Place | None:
    """Read a setting's word; None where it is a word of ours, or ``settings/KEY``."""
    if not setting.word.startswith(PREFIX):
        return None
    name, _, rest = setting.word.removeprefix(PREFIX).partition("/")
    entry, _, field = rest.rpartition("/")
    return Place(name, entry, field)


def needs_restart(setting: Setting) -> bool:
    """Whether a property is in force only after a restart of the process; the others are after a reload."""
    found = place(setting)
    return found is not None and found.name in _AFTER_RESTART


def secrets(value: Any) -> Iterator[tuple[Path, SecretRef]]:
    """Yield the references inside a value with the paths to them."""
    if isinstance(value, SecretRef):
        yield (), value
    elif isinstance(value, Parts | tuple):
        steps = value.items() if isinstance(value, Parts) else enumerate(value)
        for step, item in steps:
            yield from (((step, *path), ref) for path, ref in secrets(item))


def with_secrets(value: Any, change: Callable[[SecretRef], SecretRef]) -> Any:
    """Return a value with other references in place of those in it."""
    if isinstance(value, SecretRef):
        return change(value)
    if isinstance(value, Parts):
        return Parts({name: with_secrets(item, change) for name, item in value.items()})
    return tuple(with_secrets(item, change) for item in value) if isinstance(value, tuple) else value
