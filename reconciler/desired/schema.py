"""The JSON Schema of the files, for editors: ``reconciler schema``."""

from __future__ import annotations

from typing import Any

from reconciler.desired import objects
from reconciler.desired.spec import Spec

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema() -> dict[str, Any]:
    """Return the schema of one file. A file may hold any part of the directory, so nothing is required at its top."""
    made = Spec.model_json_schema(by_alias=True)
    made.pop("required", None)
    for name, part in made["properties"].items():
        if name not in {"version", "stack"}:  # `accounts:` with nothing below it is an empty map
            made["properties"][name] = {"anyOf": [part, {"type": "null"}]}
    made["$defs"] = {_yaml_name(name): part for name, part in made["$defs"].items()}
    made["$defs"]["Stalwart"]["properties"]["objects"] = objects.property_schema()
    link = made["$defs"]["Link"]
    made["$defs"]["Link"] = {"anyOf": [link["properties"]["in"], link]}
    return {"$schema": DIALECT, **_friendly(made), "title": "Desired state of a mail stack"}


def _friendly(node: Any) -> Any:
    """Drop the titles pydantic derives from names; allow numbers where text is expected, and keys that are free."""
    if isinstance(node, list):
        return [_friendly(item) for item in node]
    if not isinstance(node, dict):
        return node
    if isinstance(node.get("$ref"), str):
        node = node | {"$ref": _yaml_name(node["$ref"])}
    made = {key: _friendly(item) for key, item in node.items() if key != "title" or not isinstance(item, str)}
    if made.get("type") == "string" and not {"enum", "const", "format"} & made.keys():
        made["type"] = ["string", "number", "boolean"]  # a plain 123 is read as the text that was written
    if isinstance(made.get("additionalProperties"), dict):
        made["patternProperties"] = {"^x-[^@.]*$": {}}  # as `spec.is_free`
    return made


def _yaml_name(model: str) -> str:
    """Name a model as people speak of the thing: `RecordEntry` is called so to be no `resources.Record`."""
    return model.removesuffix("Entry")
