"""Mail over JMAP at the fake Stalwart, both generations alike: the few methods of RFC 8621 that a reader needs.

Seen on real servers of both (observed.md, "The way of one mail"): ``Email/get`` with ``blobId``, and the download of a
blob; ``Email/changes`` is in the source of both. A message lies in a mailbox as it came in.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping, Sequence
from email import message_from_bytes, policy
from email.message import EmailMessage
from email.utils import getaddresses
from typing import Any

from reconciler.simulator.stalwart.post import Post, Stored

METHODS = ("Mailbox/get", "Email/changes", "Email/query", "Email/get", "Email/set")
_FOLDERS = {"inbox": ("a", "Inbox"), "junk": ("c", "Junk Mail")}
_TEXT = ":asText"


class MailError(Exception):
    """A call that fails as a whole."""

    def __init__(self, kind: str, description: str = "") -> None:
        super().__init__(kind)
        self.kind, self.description = kind, description


def handle(post: Post, name: str, account: str, method: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Run one method as the owner of the mailbox ``name``, whose id is ``account``. Raises `MailError`."""
    if arguments.get("accountId") != account:
        raise MailError("accountNotFound")
    box = post.boxes.setdefault(name, {})
    if method == "Email/set" and post.keeps:
        wanted = arguments.get("destroy") or []
        return {"accountId": account, "destroyed": None, "notDestroyed": {key: {"type": "forbidden"} for key in wanted}}
    state = f"s{len(post.arrivals.get(name, ()))}"
    if method == "Email/changes":
        return {"accountId": account, "newState": state, **_changes(post.arrivals.get(name, []), arguments)}
    found = {"Mailbox/get": _folders, "Email/query": _query, "Email/get": _get, "Email/set": _set}[method]
    return {"accountId": account, "state": state, **found(box, arguments)}


def blob(post: Post, name: str, key: str) -> bytes | None:
    """Return the message behind a blob's id; None where the mailbox has none."""
    item = post.boxes.get(name, {}).get(key.removeprefix("b"))
    return item.raw if item else None


def _folders(_: Mapping[str, Stored], arguments: Mapping[str, Any]) -> dict[str, Any]:
    wanted = arguments.get("ids")
    listed = [{"id": key, "name": name, "role": role} for role, (key, name) in _FOLDERS.items()]
    return {"list": [item for item in listed if wanted is None or item["id"] in wanted], "notFound": []}


def _changes(arrivals: Sequence[str], arguments: Mapping[str, Any]) -> dict[str, Any]:
    since = str(arguments.get("sinceState"))
    if not re.fullmatch(r"s\d+", since) or int(since[1:]) > len(arrivals):
        raise MailError("cannotCalculateChanges")
    created = list(arrivals[int(since[1:]) :])
    return {"oldState": since, "hasMoreChanges": False, "created": created, "updated": [], "destroyed": []}


def _query(box: Mapping[str, Stored], arguments: Mapping[str, Any]) -> dict[str, Any]:
    wanted, order = arguments.get("filter") or {}, arguments.get("sort") or [{}]
    if set(wanted) - {"from"} or order[0].get("property", "receivedAt") != "receivedAt":
        raise MailError("unsupportedFilter", "the fake knows the sender alone, and the order of arrival")
    items = [item for item in box.values() if str(wanted.get("from", "")) in str(_parsed(item).get("from", "")).lower()]
    items.sort(key=lambda item: item.received, reverse=not order[0].get("isAscending", True))
    return {"queryState": "q", "position": 0, "ids": [item.id for item in items][: arguments.get("limit") or None]}


def _parsed(item: Stored) -> EmailMessage:
    return message_from_bytes(item.raw, policy=policy.default)


def _get(box: Mapping[str, Stored], arguments: Mapping[str, Any]) -> dict[str, Any]:
    wanted = arguments.get("ids") or []
    found = [_shown(box[key], arguments.get("properties") or ("id",)) for key in wanted if key in box]
    return {"list": found, "notFound": [key for key in wanted if key not in box]}


def _shown(item: Stored, names: Any) -> dict[str, Any]:
    message = _parsed(item)
    ids = [text.strip().strip("<>") for text in message.get_all("message-id") or ()]
    known: dict[str, Any] = {
        "id": item.id,
        "blobId": f"b{item.id}",
        "mailboxIds": {_FOLDERS[item.folder][0]: True},
        "receivedAt": f"{dt.datetime.fromtimestamp(item.received, dt.UTC):%Y-%m-%dT%H:%M:%SZ}",
        "size": len(item.raw),
        "subject": message.get("subject"),
        "messageId": ids or None,
        "from": [{"name": name or None, "email": at} for name, at in getaddresses(message.get_all("from") or [])]
        or None,
    }
    shown: dict[str, Any] = {"id": item.id}
    for name in map(str, names):
        if name.startswith("header:") and name.endswith(_TEXT):
            value = message.get(name.removeprefix("header:").removesuffix(_TEXT))
            shown[name] = None if value is None else str(value)
        elif name in known:
            shown[name] = known[name]
        else:
            raise MailError("invalidArguments", f"unknown property {name}")
    return shown


def _set(box: dict[str, Stored], arguments: Mapping[str, Any]) -> dict[str, Any]:
    wanted = arguments.get("destroy") or []
    gone = [key for key in wanted if box.pop(key, None) is not None]
    missing = {key: {"type": "notFound"} for key in wanted if key not in gone}
    return {"destroyed": gone, "notDestroyed": missing or None}
