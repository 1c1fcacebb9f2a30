"""How tables are written down that are made of a server's schema."""

import json


def text(table):
    """Write a table of tables as JSON, an entry a line, so that a diff shows what a release changed."""
    parts = []
    for name, part in table.items():
        if not isinstance(part, dict):
            parts.append(f" {json.dumps(name)}: {json.dumps(part)}")
            continue
        lines = ",\n".join(f"  {json.dumps(key)}: {json.dumps(item)}" for key, item in part.items())
        parts.append(f" {json.dumps(name)}: {{\n{lines}\n }}")
    return "{\n" + ",\n".join(parts) + "\n}\n"
