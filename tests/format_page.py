"""How the table in ``docs/format.md`` is made from the schema: ``PYTHONPATH=. python tests/format_page.py``.

`desired/test_schema.py` holds the page to it. The texts are `reconciler/desired/spec/manual.py`'s.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reconciler.desired.spec import schema

PAGE = Path(__file__).parents[1] / "docs" / "format.md"
PLACE = re.compile(r"(?s)(<!-- words: made by tests/format_page.py -->\n).*?(<!-- /words -->)")
# Each model with where it stands in a directory.
PLACES = {
    "StalwartTarget": "targets.stalwart",
    "CloudflareTarget": "targets.cloudflare",
    "ComposeTarget": "targets.compose",
    "Policy": "policy",
    "Prune": "policy.prune",
    "Daemon": "daemon",
    "GitHub": "daemon.github",
    "Account": "accounts.ADDRESS",
    "Group": "groups.ADDRESS",
    "List": "lists.ADDRESS",
    "Domain": "domains.DOMAIN",
    "Key": "dkim.DOMAIN[]",
    "Record": "dns.ZONE[]",
    "Stalwart": "stalwart",
    "AutoBan": "stalwart.auto_ban",
    "Listener": "stalwart.listeners.NAME",
    "Smtp": "smtp",
    "Failover": "smtp.failover",
    "Provider": "smtp.providers.NAME",
    "Consumer": "smtp.consumers.SERVICE",
    "Link": "smtp.links[]",
    "Move": "moved[]",
}
_REFERENCE = "reference"
_LONGEST = 9  # values of an enumeration that are listed


def words() -> str:
    """Return the table: a row for each word."""
    made = schema()
    rows = [_row("", name, part) for name, part in made["properties"].items()]
    for model, place in PLACES.items():
        shape = made["$defs"][model]
        shape = shape["anyOf"][1] if model == "Link" else shape
        required = shape.get("required", ())
        rows += [_row(f"{place}.", name, part, needed=name in required) for name, part in shape["properties"].items()]
    return "\n".join(["| word | takes | what it says |", "|---|---|---|", *rows, ""])


def _row(place: str, name: str, part: dict[str, Any], *, needed: bool = False) -> str:
    takes = ", ".join(dict.fromkeys(_takes(part))) or "text"
    default = part.get("default")
    usual = f"; `{_plain(default)}` when absent" if default not in (None, [], {}, "") and not _is_long(default) else ""
    must = "; needed" if needed else ""
    return f"| `{place}{name}` | {takes}{usual}{must} | {part['description']} |"


def _is_long(value: Any) -> bool:
    return isinstance(value, dict)


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"[{', '.join(map(str, value))}]" if isinstance(value, list) else str(value)


def _takes(part: dict[str, Any]) -> Iterator[str]:
    """Say what a value may be, in a few words."""
    for inner in part.get("anyOf", ()):
        yield from _takes(inner)
    if "$ref" in part or part.get("maxProperties") == 1:
        yield _REFERENCE if "$ref" not in part else "map"
    elif "enum" in part:
        values = list(dict.fromkeys(str(it).upper() if str(it).upper() in part["enum"] else it for it in part["enum"]))
        listed = " ".join(f"`{it}`" for it in values if it is not None)
        yield listed if len(values) <= _LONGEST else f"one of {len(values)}"
    elif "const" in part:
        yield f"`{_plain(part['const'])}`"
    elif part.get("type") == "array":
        yield "list"
    elif part.get("type") == "object":
        yield "map"
    elif part.get("type") == "integer":
        low, high = part.get("minimum"), part.get("maximum")
        yield f"{low} to {high}" if low is not None else "number"
    elif part.get("type") == "boolean":
        yield "`true` `false`"
    elif part.get("type") == "null":
        yield "`null`"
    elif "type" in part:
        yield "text"


def page(text: str) -> str:
    """Return the page with the table as it is now."""
    return PLACE.sub(lambda match: f"{match[1]}{words()}{match[2]}", text)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
