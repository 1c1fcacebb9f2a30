"""The queue and the log of Stalwart 0.16 over JMAP (``crates/jmap/src/registry/mapping/{queued_message,log}.rs``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reconciler.simulator.stalwart.jmap.envelope import MethodError
from reconciler.simulator.stalwart.jmap.methods import MAX_OBJECTS, Caller
from reconciler.simulator.stalwart.jmap.registry import encode_id
from reconciler.simulator.stalwart.post import Post

METHODS = ("x:QueuedMessage/get", "x:Log/query", "x:Log/get")
_PAGE = 5000  # ids of one query


def handle(post: Post, caller: Caller, method: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Run one method. Raises `MethodError`."""
    kind, _, verb = method.removeprefix("x:").partition("/")
    if f"sys{kind}{verb.capitalize()}" not in caller.permissions:
        raise MethodError("forbidden", "You are not authorized to perform this action")
    run = {"x:QueuedMessage/get": _queue, "x:Log/query": _lines, "x:Log/get": _entries}[method]
    return {"accountId": caller.id, **run(post, arguments)}


def _queue(post: Post, arguments: Mapping[str, Any]) -> dict[str, Any]:
    wanted = arguments.get("ids")
    named = [item | {"id": encode_id(item["id"])} for item in post.jmap()]
    found = [item for item in named if wanted is None or item["id"] in wanted]
    return {"list": found[:MAX_OBJECTS], "notFound": []}


def _lines(post: Post, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """List the lines that hold a text, the newest first: it is paged by anchors alone."""
    wanted = arguments.get("filter") or {}
    if set(wanted) - {"text"} or arguments.get("position"):
        raise MethodError("invalidArguments", "Pagination is only possible using anchors for logs")
    found = [encode_id(number) for number, _ in post.entries(str(wanted.get("text", "")))]
    return {"queryState": "n", "position": 0, "ids": found[: min(arguments.get("limit") or _PAGE, _PAGE)]}


def _entries(post: Post, arguments: Mapping[str, Any]) -> dict[str, Any]:
    wanted = arguments.get("ids")
    if wanted is not None and len(wanted) > MAX_OBJECTS:
        raise MethodError("requestTooLarge")
    known = {encode_id(number): entry for number, entry in post.entries()}
    names = list(known)[:MAX_OBJECTS] if wanted is None else [name for name in wanted if name in known]
    found = [
        {
            "id": name,
            "timestamp": known[name]["timestamp"],
            "level": known[name]["level"].lower(),
            "event": known[name]["event_id"],
            "details": known[name]["details"],
        }
        for name in names
    ]
    return {"list": found, "notFound": []}
