"""Schemas as a later release might have them: the fake's own, which is made from the real one, with changes to it."""

import copy
import random
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
    *("Security", "SystemSettings", "MtaRoute", "Http", "Calendar"),
)
TYPES: tuple[Document, ...] = (
    {"type": "boolean"},
    {"type": "number", "format": "unsignedInteger"},
    {"type": "string", "format": "string"},
    {"type": "string", "format": "string", "nullable": True},
    {"type": "set", "class": {"type": "string", "format": "string"}},
    {"type": "map", "keyClass": {"type": "string", "format": "string"}, "valueClass": {"type": "boolean"}},
    {"type": "object", "objectName": "x:Rate"},
)
NEEDED = {"type": {"type": "string", "format": "string"}, "update": "mutable"}


def document() -> Document:
    """Return the fake's own schema, to be changed."""
    return copy.deepcopy(schemas.document())


def _renamed(value: Any, name: str, *, inside: bool) -> Any:
    """Return defaults with a property's new name, wherever it stands inside of others; at the top of its own."""
    if not isinstance(value, dict):
        return value
    return {
        f"{key}New" if key == name and inside else key: _renamed(item, name, inside=True) for key, item in value.items()
    }


def change(found: Document, seed: random.Random) -> str:  # noqa: PLR0911 (a line for each change)
    """Make one change among what the target uses and what it does not, and say which."""
    shape = f"x:{seed.choice(USED if seed.random() < 0.8 else tuple(name[2:] for name in sorted(found['fields'])))}"
    fields = found["fields"][shape]
    properties = fields["properties"]
    name = seed.choice(sorted(properties) or [""])
    union = found["schemas"][f"x:{seed.choice(UNIONS)}"]["variants"]
    enum = found["enums"][seed.choice(("DkimRotationStage", "NetworkListenerProtocol", *sorted(found["enums"])))]
    match seed.randrange(10):
        case 0 if name:
            del properties[name]
            return f"removes {shape}.{name}"
        case 1 if name:
            properties[f"{name}New"] = properties.pop(name)
            for item in found["fields"].values():
                item["defaults"] = _renamed(item.get("defaults", {}), name, inside=item is fields)
            return f"renames {shape}.{name}"
        case 2:
            properties["neededNew"] = copy.deepcopy(NEEDED)
            return f"needs {shape}.neededNew"
        case 3 if name and shape != "x:Rate":  # which can't hold itself
            properties[name]["type"] = copy.deepcopy(seed.choice(TYPES))
            fields.get("defaults", {}).pop(name, None)
            return f"makes {shape}.{name} a {properties[name]['type']}"
        case 4 if len(union) > 1:
            gone = union.pop(seed.randrange(len(union)))
            return f"removes the variant {gone['name']}"
        case 5:
            item = seed.choice(union)
            item["name"] += "New"
            return f"renames a variant to {item['name']}"
        case 6 if len(enum) > 1:
            return f"narrows an enumeration by {enum.pop(seed.randrange(len(enum)))['name']}"
        case 7:
            one = f"x:{seed.choice(OBJECTS)}"
            if one in found["objects"]:
                found["objects"][f"{one}New" if seed.random() < 0.5 else "x:Elsewhere"] = found["objects"].pop(one)
            return f"removes or renames {one}"
        case 8 if name and properties[name]["type"]["type"] in ("boolean", "number"):
            value = True if properties[name]["type"]["type"] == "boolean" else 7
            fields.setdefault("defaults", {})[name] = value
            return f"gives {shape}.{name} the default {value}"
        case _:
            properties["optionalNew"] = {"type": {"type": "boolean"}, "update": "mutable"}
            return f"adds {shape}.optionalNew"
