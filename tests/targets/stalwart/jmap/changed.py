"""Schemas as a later release might have them: the fake's own, which is made from the real one, with changes to it."""

import copy
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from reconciler.simulator.stalwart.jmap import schema as schemas

Document = dict[str, Any]

USED = (
    *("UserAccount", "GroupAccount", "Domain", "Dkim1Signature", "MailingList", "NetworkListener", "SystemSettings"),
    *("Security", "AllowedIp", "EmailAlias", "PasswordCredential", "SecretTextValue", "Rate", "Role", "CustomRoles"),
    *("MtaRouteRelay", "Http", "SecretKeyValue", "Jmap"),
)
UNIONS = (
    *("Account", "Action", "CertificateManagement", "Credential", "DkimManagement", "DkimSignature", "DnsManagement"),
    *("SecretText", "SubAddressing", "UserRoles", "MtaRoute", "SecretKeyOptional"),
)
OBJECTS = (
    *("Account", "Action", "AllowedIp", "DkimSignature", "Domain", "MailingList", "NetworkListener", "Role"),
    *("Security", "SystemSettings", "MtaRoute", "Http", "Jmap", "Calendar"),
)
UNUSED = ("Calendar",)
TYPES: tuple[Document, ...] = (
    {"type": "boolean"},
    {"type": "number", "format": "unsignedInteger"},
    {"type": "string", "format": "string"},
    {"type": "string", "format": "string", "nullable": True},
    {"type": "set", "class": {"type": "string", "format": "string"}},
    {"type": "map", "keyClass": {"type": "string", "format": "string"}, "valueClass": {"type": "boolean"}},
    {"type": "object", "objectName": "x:Rate"},
)
_DEFAULTED = ("x:MailExchanger", "x:Service")
"""Items of a list that a fresh server has by default: no release has a default that it would not take itself."""

NEEDED = {"type": {"type": "string", "format": "string"}, "update": "mutable"}


@dataclass(frozen=True)
class Changed:
    """One change. ``part`` is what it changes, ``more`` whether the release only takes or says more than before."""

    said: str
    part: str
    more: bool = False


def document() -> Document:
    """Return the fake's own schema, to be changed."""
    return copy.deepcopy(schemas.document())


def in_use(found: Document) -> set[str]:
    """Return all that what we use consists of: objects, unions, shapes and enumerations, by their names."""
    seen: set[str] = set()
    due = [f"x:{name}" for name in OBJECTS if name not in UNUSED]
    while due:
        if (name := due.pop()) not in seen:
            seen.add(name)
            item = found["schemas"].get(name, {})
            due += [it["schemaName"] for it in (item, *item.get("variants", ())) if "schemaName" in it]
            kinds = found["fields"].get(name, {}).get("properties", {}).values()
            due += [inner for kind in kinds for inner in _inside(kind["type"])]
    return seen


def _inside(kind: Document) -> Iterator[str]:
    yield from (kind[key] for key in ("objectName", "enumName") if key in kind and kind["type"] != "objectId")
    for key in ("class", "valueClass"):
        yield from _inside(kind[key]) if key in kind else ()


def _renamed(value: Any, name: str, *, inside: bool) -> Any:
    """Return defaults with a property's new name, wherever it stands inside of others; at the top of its own."""
    if not isinstance(value, dict):
        return value
    return {
        f"{key}New" if key == name and inside else key: _renamed(item, name, inside=True) for key, item in value.items()
    }


def change(found: Document, seed: random.Random) -> Changed:  # noqa: PLR0911 (a line for each change)
    """Make one change among what the target uses and what it does not, and say which."""
    shape = f"x:{seed.choice(USED if seed.random() < 0.8 else tuple(name[2:] for name in sorted(found['fields'])))}"
    fields = found["fields"][shape]
    properties = fields["properties"]
    name = seed.choice(sorted(properties) or [""])
    union = found["schemas"][of := f"x:{seed.choice(UNIONS)}"]["variants"]
    listed = seed.choice(("DkimRotationStage", "NetworkListenerProtocol", *sorted(found["enums"])))
    enum = found["enums"][listed]
    match seed.randrange(10):
        case 0 if name:
            del properties[name]
            return Changed(f"removes {shape}.{name}", shape)
        case 1 if name:
            properties[f"{name}New"] = properties.pop(name)
            for item in found["fields"].values():
                item["defaults"] = _renamed(item.get("defaults", {}), name, inside=item is fields)
            return Changed(f"renames {shape}.{name}", shape)
        case 2 if shape not in _DEFAULTED:
            properties["neededNew"] = copy.deepcopy(NEEDED)
            return Changed(f"needs {shape}.neededNew", shape)
        case 3 if name and shape != "x:Rate" and shape not in _DEFAULTED:  # a rate can't hold itself
            properties[name]["type"] = copy.deepcopy(seed.choice(TYPES))
            fields.get("defaults", {}).pop(name, None)
            return Changed(f"makes {shape}.{name} a {properties[name]['type']}", shape)
        case 4 if len(union) > 1:
            gone = union.pop(seed.randrange(len(union)))
            return Changed(f"removes the variant {gone['name']}", of)
        case 5:
            item = seed.choice(union)
            item["name"] += "New"
            return Changed(f"renames a variant to {item['name']}", of)
        case 6 if len(enum) > 1:
            return Changed(f"narrows {listed} by {enum.pop(seed.randrange(len(enum)))['name']}", listed)
        case 7:
            one = f"x:{seed.choice(OBJECTS)}"
            if one in found["objects"]:
                found["objects"][f"{one}New" if seed.random() < 0.5 else "x:Elsewhere"] = found["objects"].pop(one)
            return Changed(f"removes or renames {one}", one)
        case 8 if name and properties[name]["type"]["type"] in ("boolean", "number"):
            kind = properties[name]["type"]
            value = True if kind["type"] == "boolean" else max(7, kind.get("min", 0))
            fields.setdefault("defaults", {})[name] = value
            return Changed(f"gives {shape}.{name} the default {value}", shape, more=True)
        case _:
            properties["optionalNew"] = {"type": {"type": "boolean"}, "update": "mutable"}
            return Changed(f"adds {shape}.optionalNew", shape, more=True)
