"""The schema that Stalwart from 0.16 serves at ``/api/schema``, and another one to judge by in place of its own.

The document has the real one's form, with what the fake knows of it: ``objects``, ``schemas`` (which properties an
object has, by its variants), ``fields`` (types and defaults) and ``enums``. In a changed one, ``was`` beside an object
or a property says what it is called in the fake's own: a renamed thing, which goes on as it was.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from reconciler.simulator.stalwart.jmap.registry import Kind, Table, own_table, wire_name

Document = Mapping[str, Any]

_TEXTS = {"secret": "secret", "network": "ipNetwork", "email": "emailAddress", "address": "ipAddress"}
_FORMATS = {"uint": "unsignedInteger", "int": "integer", "float": "float"}
_BASES = {"unsignedInteger": "uint", "integer": "int", "float": "float", "duration": "uint", "size": "uint"}
_BASES |= {"secret": "secret", "secretText": "secret", "ipNetwork": "network", "ipAddress": "address"}
_DURATION = re.compile(r"(\d+)(ms|s|m|h|d)")
_MILLISECONDS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_LIMITS = ("min", "max", "minItems", "maxItems", "nullable", "maxLength")


def document() -> dict[str, Any]:
    """Return the fake's own schema."""
    table = own_table()
    schemas: dict[str, Any] = {
        f"x:{name}": {"type": "single", "schemaName": f"x:{name}"}
        for name in table.shapes
        if name not in table.variants
    }
    for name, variants in table.variants.items():
        named = ({"name": key} | ({"schemaName": f"x:{shape}"} if shape else {}) for key, shape in variants.items())
        schemas[f"x:{name}"] = {"type": "multiple", "variants": list(named)}
    return {
        "objects": {f"x:{name}": {"type": kind} for name, kind in table.objects.items()},
        "schemas": schemas,
        "fields": {f"x:{name}": _fields(kinds) for name, kinds in table.shapes.items()},
        "enums": {name: [{"name": value} for value in values] for name, values in table.enums.items()},
    }


def fingerprint(schema: Document) -> str:
    """Return what a schema hashes to, as the address says it."""
    text = json.dumps(schema, sort_keys=True).encode()
    return base64.urlsafe_b64encode(hashlib.sha256(text).digest()).decode().rstrip("=")


def _fields(kinds: Mapping[str, Kind]) -> dict[str, Any]:
    update = {(False, False): "mutable", (True, False): "immutable", (False, True): "serverSet"}
    properties = {key: {"type": _type(it), "update": update[it.once, it.server_set]} for key, it in kinds.items()}
    defaults = {key: kind.default for key, kind in kinds.items() if kind.default is not None}
    return {"properties": properties} | ({"defaults": defaults} if defaults else {})


def _type(kind: Kind) -> dict[str, Any]:
    made: dict[str, Any]
    item = kind.item or Kind("string")
    match kind.base:
        case "bool":
            made = {"type": "boolean"}
        case "uint" | "int" | "float":
            made = {"type": "number", "format": _FORMATS[kind.base]}
        case "enum":
            made = {"type": "enum", "enumName": kind.of}
        case "id":
            made = {"type": "objectId", "objectName": f"x:{kind.of}"}
        case "date":
            made = {"type": "utcDateTime"}
        case "object" | "list":
            made = {"type": "object" if kind.base == "object" else "objectList", "objectName": f"x:{kind.of}"}
        case "set":
            made = {"type": "set", "class": _type(item)}
        case "map":
            made = {"type": "map", "keyClass": {"type": "string", "format": "string"}, "valueClass": _type(item)}
        case _:
            made = {"type": "string", "format": _TEXTS.get(kind.base, "string")}
    low, high = ("minItems", "maxItems") if kind.base in ("set", "list", "map") else ("min", "max")
    limits = {name: limit for name, limit in ((low, kind.low), (high, kind.high)) if limit is not None}
    return made | limits | ({"nullable": True} if kind.nullable else {})


# ---------------------------------------------------------------------------------------------------- another schema
def judging(schema: Document) -> Table:
    """Return the table that a schema makes of the fake's own: what it does not name is hidden, what is new is there.

    An object type that the fake does not know can't be served.
    """
    own = own_table()
    called = {}
    for full, item in schema["objects"].items():
        name = str(item.get("was", full)).removeprefix("x:")
        if full.startswith("x:") and name in own.objects:
            called[full.removeprefix("x:")] = name
    variants, hidden = dict(own.variants), set()
    for name, known in own.variants.items():
        shape = schema["schemas"].get(f"x:{name}", {})
        said = {
            it["name"]: str(it.get("schemaName", "")).removeprefix("x:") or None for it in shape.get("variants", ())
        }
        variants[name] = {**said, **{key: value for key, value in known.items() if key not in said}}
        hidden |= {(name, key) for key in known if key not in said}
    shapes = dict(own.shapes)
    for full, fields in schema["fields"].items():
        name = full.removeprefix("x:")
        shapes[name] = _kinds(own.shapes.get(name, {}), fields)
    enums = {**own.enums, **{name: [it["name"] for it in values] for name, values in schema["enums"].items()}}
    table = Table(own.objects, shapes, variants, enums, frozenset(hidden), called)
    for name, kinds in shapes.items():
        shapes[name] = {key: replace(kind, default=_as_read(kind, kind.default, table)) for key, kind in kinds.items()}
    return table


def _as_read(kind: Kind, default: Any, table: Table) -> Any:
    """Return a default as the server answers it.

    The real document has lists in it, durations such as ``1d``, and expressions of one value, which is their ``else``.
    """
    if kind.base in ("uint", "int") and isinstance(default, str) and (found := _DURATION.fullmatch(default)):
        return int(found[1]) * _MILLISECONDS[found[2]]
    if kind.base == "list" and isinstance(default, list):
        default = {str(index): item for index, item in enumerate(default)}
    if not isinstance(default, dict):
        return default
    if kind.base in ("list", "map"):
        inner = kind.item or Kind("object", kind.of)
        return {key: _as_read(inner, item, table) for key, item in default.items()}
    if kind.base != "object":
        return default
    known = table.variants.get(kind.of, {})
    shape = known.get(str(default.get("@type"))) if known else kind.of
    named = {wire_name(key, it): it for key, it in table.shapes.get(shape or "", {}).items()}
    if default.keys() == {"default"} and "else" in named:
        default = {"else": default["default"]}
    return {key: _as_read(named[key], item, table) if key in named else item for key, item in default.items()}


def _kinds(own: Mapping[str, Kind], fields: Mapping[str, Any]) -> dict[str, Kind]:
    """Return the properties of one table: the fake's own under their names of today, and what it has none for."""
    defaults, made = fields.get("defaults", {}), {}
    for name, item in fields["properties"].items():
        key = item.get("was", name)
        known, found = own.get(key), _kind(item["type"])
        flags = {"once": item["update"] == "immutable", "server_set": item["update"] == "serverSet"}
        if known is not None and _bare(_type(known)) == _bare(item["type"]):
            own_limits = replace(known, low=found.low, high=found.high, nullable=found.nullable)
            made[key] = replace(own_limits, wire=name, default=defaults.get(name), **flags)
        else:
            made[f"{name}*"] = replace(found, wire=name, default=defaults.get(name), **flags)
    return made | {key: replace(kind, wire="") for key, kind in own.items() if key not in made}


def _bare(kind: Mapping[str, Any]) -> Any:
    """Return what a type is, without its limits."""
    left_out = (*_LIMITS, "keyClass", *(("format",) if kind.get("type") == "string" else ()))  # a text is a text
    found = {key: value for key, value in kind.items() if key not in left_out}
    return json.dumps({key: _bare(it) if isinstance(it, Mapping) else it for key, it in found.items()}, sort_keys=True)


def _kind(kind: Mapping[str, Any]) -> Kind:
    """Read a type of the document."""
    of, item = str(kind.get("objectName", kind.get("enumName", ""))).removeprefix("x:"), None
    match kind["type"]:
        case "boolean" | "enum" | "map" | "set" | "object":
            base = {"boolean": "bool"}.get(kind["type"], kind["type"])
        case "objectId" | "objectList" | "utcDateTime" | "blobId":
            base = {"objectId": "id", "objectList": "list", "utcDateTime": "date", "blobId": "string"}[kind["type"]]
        case _:
            base = _BASES.get(kind.get("format", ""), "string")
    if base in ("set", "map"):
        item = _kind(kind["class" if base == "set" else "valueClass"])
    low, high = (kind.get(name, kind.get(f"{name}Items")) for name in ("min", "max"))
    return Kind(base, of, item, low, high, nullable=bool(kind.get("nullable")))
