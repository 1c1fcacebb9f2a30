"""How ``reconciler/desired/objects_table.json`` is made, from the schema that a Stalwart answers at ``/api/schema``.

``PYTHONPATH=tests python tests/desired/objects_table.py SCHEMA.json.gz > reconciler/desired/objects_table.json``
"""

import gzip
import json
import sys
from pathlib import Path

from tables import text

RELEASE = "0.16.18"
NEUTRAL = {"Account", "AllowedIp", "DkimSignature", "Domain", "NetworkListener"}  # words of our own: see spec.py
OWN = {"AccountPassword", "AccountSettings", "ApiKey", "AppPassword", "PublicKey", "SieveUserScript"}
RUNTIME = {
    *("Action", "ArfExternalReport", "BlockedIp", "ClusterNode", "DmarcExternalReport", "DmarcInternalReport", "Log"),
    *("QueuedMessage", "SpamTrainingSample", "Task", "TlsExternalReport", "TlsInternalReport"),
}
NAMELESS = {"AcmeProvider", "Certificate"}  # what would name them is the server's to say
ENTERPRISE = {"Metric"}  # refused by the server (crates/jmap/src/registry/mod.rs) though the schema does not say so
KEYS = {
    "MailingList": "name@domainId",
    "MemoryLookupKey": "namespace/key",
    "MemoryLookupKeyValue": "namespace/key",
    "Tracer": "@type",
}
LONGEST = 100  # values of an enumeration: those with more (time zones, events, permissions) are left to the server

_FORMATS = {
    **dict.fromkeys(("string", "text", "html", "uri", "emailAddress", "color", "ipAddress", "socketAddress"), "text"),
    "secret": "secret",
    "secretText": "secret",
    "ipNetwork": "net",
    "duration": "ms",
    "size": "bytes",
    "integer": "int",
    "unsignedInteger": "uint",
    "float": "float",
}


def derive(schema):
    """Return the table: objects, why others can't be declared, and the shapes, unions and enumerations they need."""
    table = {"release": RELEASE, "objects": {}, "refused": {}, "shapes": {}, "unions": {}, "enums": {}}
    queue = []
    for full, item in schema["objects"].items():
        name = full.removeprefix("x:")
        if full == name or item["type"] == "view" or name in NEUTRAL:
            continue
        if (why := _refusal(name, item)) is not None:
            table["refused"][name] = why
        else:
            table["objects"][name] = "" if item["type"] == "singleton" else _key(schema, full, name)
            queue.append(full)
    while queue:
        queue += _put(schema, table, queue.pop())
    return {name: dict(sorted(part.items())) if isinstance(part, dict) else part for name, part in table.items()}


def _refusal(name, item):
    if item.get("enterprise") or name in ENTERPRISE:
        return "enterprise"
    kinds = {"account": OWN, "runtime": RUNTIME, "nameless": NAMELESS}
    return next((why for why, names in kinds.items() if name in names), None)


def _key(schema, full, name):
    return KEYS.get(name) or schema["lists"][full]["labelProperty"]


def _put(schema, table, full):
    """Write down one type; return the types it needs."""
    name, shape = full.removeprefix("x:"), schema["schemas"][full]
    if shape["type"] == "multiple":
        table["unions"][name] = {
            item["name"]: item["schemaName"].removeprefix("x:") if "schemaName" in item else None
            for item in shape["variants"]
        }
        needed = {item["schemaName"] for item in shape["variants"] if "schemaName" in item}
    else:
        needed = {shape["schemaName"]}
    more = []
    for part in sorted(needed):
        part_name = part.removeprefix("x:")
        if part_name not in table["shapes"]:
            found = {key: _property(schema, table, item, more) for key, item in _properties(schema, part).items()}
            table["shapes"][part_name] = dict(sorted(found.items()))
    seen = table["shapes"].keys() | table["unions"].keys()
    return [item for item in dict.fromkeys(more) if item.removeprefix("x:") not in seen]


def _properties(schema, name):
    return schema["fields"].get(name, {}).get("properties", {})


def _property(schema, table, item, more):
    flags = "=" if item["update"] == "serverSet" else ""  # what is immutable is always a name
    paid = item.get("enterprise") or item["type"].get("objectName") == "x:Tenant"
    return _type(schema, table, item["type"], more) + flags + ("$" if paid else "")


def _type(schema, table, kind, more):  # noqa: PLR0911 (a line for each type)
    optional = "?" if kind.get("nullable") else ""
    match kind["type"]:
        case "boolean":
            return "bool"
        case "utcDateTime":
            return f"date{optional}"
        case "blobId":
            return "text"
        case "string":
            return _FORMATS[kind["format"]] + optional
        case "number":
            low, high = kind.get("min"), kind.get("max")
            limits = f"[{_limit(low)}..{_limit(high)}]" if low is not None or high is not None else ""
            return _FORMATS[kind["format"]] + limits + optional
        case "enum":
            values = [value["name"] for value in schema["enums"][kind["enumName"]]]
            if len(values) > LONGEST:
                return f"text{optional}"
            table["enums"][kind["enumName"]] = values
            return f"enum:{kind['enumName']}{optional}"
        case "objectId":
            return f"id:{kind['objectName'].removeprefix('x:')}{optional}"
        case "set":
            return f"set({_type(schema, table, kind['class'], more)})"
        case "map":
            return f"map({_type(schema, table, kind['valueClass'], more)})"
    more.append(kind["objectName"])
    tag = {"object": "object", "objectList": "list"}[kind["type"]]
    return f"{tag}:{kind['objectName'].removeprefix('x:')}{optional}"


def _limit(value):
    return "" if value is None else f"{value:g}" if value < 1e6 else str(int(value))


def main(path):
    """Print the table."""
    with gzip.open(Path(path)) as file:
        sys.stdout.write(text(derive(json.load(file))))


if __name__ == "__main__":
    main(sys.argv[1])
