"""``x:<Object>/query`` of Stalwart 0.16: filters, and pages that come in two ways."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reconciler.simulator.stalwart.jmap import registry
from reconciler.simulator.stalwart.jmap.envelope import Arguments, MethodError
from reconciler.simulator.stalwart.jmap.store import Store

MAX_RESULTS = 5000


def query(store: Store, name: str, arguments: Arguments) -> Arguments:
    """Return the ids that a query asks for. Raises `MethodError`."""
    wanted = _conditions(arguments.get("filter") or {})
    try:
        store.check_filter(name, wanted)
    except KeyError as error:
        message = f"Filter on property {error.args[0]} is not supported or invalid"
        raise MethodError("unsupportedFilter", message) from error
    items = list(store.tasks.items()) if name == "Task" else store.all(name)
    found = [key for key, value in items if store.matches(name, value, wanted)]
    page = _window if _cut_early(arguments) else _page
    return {"queryState": "n", "canCalculateChanges": True, **page(arguments, found)}


def _conditions(found: Mapping[str, Any]) -> dict[str, Any]:
    if "operator" not in found:
        return dict(found)
    if found["operator"] != "AND":
        raise MethodError("unsupportedFilter", "Only AND is supported in filters")
    return {key: value for item in found["conditions"] for key, value in _conditions(item).items()}


def _ascending(arguments: Arguments) -> bool:
    """Say whether the oldest come first; without a sort the newest do."""
    sort = arguments.get("sort")
    if not sort:
        return False
    if sort[0].get("property") != "id":
        message = f"Property {sort[0].get('property')} is not supported for sorting"
        raise MethodError("unsupportedSort", message)
    return bool(sort[0].get("isAscending", True))


def _limit(arguments: Arguments) -> int:
    return min(int(arguments.get("limit", MAX_RESULTS)), MAX_RESULTS)


def _cut_early(arguments: Arguments) -> bool:
    """Say whether the store cuts out the page, before it is sorted: not with a total, an offset or position zero."""
    position = arguments.get("position")
    return (
        not arguments.get("calculateTotal") and not arguments.get("anchorOffset") and (position is None or position > 0)
    )


def _window(arguments: Arguments, found: list[str]) -> Arguments:
    """Cut out a page in the order of age, and only then turn it round: the newest are on the last page.

    Seen on a real server. A client that asks for position 0 first gets its first page the other way round, from the
    newest, and all further ones like this: it misses some and gets others twice.
    """
    ascending = _ascending(arguments)
    if "anchor" in arguments:
        anchor = registry.decode_id(arguments["anchor"])
        found = [key for key in found if registry.decode_id(key) > anchor]
        start = 0
    else:
        start = arguments.get("position") or 0
    ids = found[start : start + max(_limit(arguments), 1)]
    return {"position": 0, "ids": ids if ascending else ids[::-1]}


def _page(arguments: Arguments, found: list[str]) -> Arguments:
    """Sort everything and cut out a page; a limit of zero is none."""
    if not _ascending(arguments):
        found.reverse()
    limit = _limit(arguments)
    start = _start(arguments, found)
    result: Arguments = {"position": start if start < len(found) else 0}
    result["ids"] = found[start : start + (limit or len(found))]
    if arguments.get("calculateTotal"):
        result["total"] = len(found)
    if len(found) > limit:
        result["limit"] = limit
    return result


def _start(arguments: Arguments, found: list[str]) -> int:
    if "anchor" in arguments:
        if arguments["anchor"] not in found:
            message = "An anchor argument was supplied, but it cannot be found in the results of the query."
            raise MethodError("anchorNotFound", message)
        return max(found.index(arguments["anchor"]) + int(arguments.get("anchorOffset", 0)), 0)
    position = int(arguments.get("position", 0))
    return max(position + len(found), 0) if position < 0 else position
