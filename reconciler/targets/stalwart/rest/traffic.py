"""The queue and the log of Stalwart up to 0.15.

Read in the source of v0.15.5 (``crates/http/src/management/{queue,log}.rs``, ``crates/smtp/src/queue/mod.rs``): with
``values`` the queue comes whole, the status of a recipient is ``"scheduled"`` or an object with one of ``completed``,
``temp_fail``, ``perm_fail``; a log is there where a tracer writes one to a file, as a first start sets up, and comes
with its newest line first. Of the queue an empty one was recorded.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from reconciler.targets.stalwart.rest.api import Rejected, RestApi
from reconciler.traffic import Fate, Queued, Recipient, said

_LINES = "4000"  # of the log, at most
_FATES = {"completed": Fate.SENT, "temp_fail": Fate.DEFERRED, "perm_fail": Fate.BOUNCED}


def queue(api: RestApi) -> tuple[Queued, ...]:
    """Read what waits. Raises `TargetUnreadable`, `Rejected`."""
    found = api.read("/api/queue/messages", {"values": "1", "limit": "0"})
    items = found.get("items") if isinstance(found, dict) else None
    return tuple(_queued(item) for item in items or () if isinstance(item, dict))


def log(api: RestApi) -> tuple[str, ...] | None:
    """Read the lines that name a message, as the server writes them; None where it writes no file.

    Raises `TargetUnreadable`, `Rejected`.
    """
    try:
        found = api.read("/api/logs", {"filter": "queueId = ", "limit": _LINES})
    except Rejected as error:
        if error.error == "unsupported":
            return None
        raise
    items = found.get("items") if isinstance(found, dict) else None
    names = ("timestamp", "level", "event", "event_id", "details")
    rows = ([str(item.get(name) or "") for name in names] for item in items or () if isinstance(item, dict))
    return tuple(f"{time} {level} {words} ({event}) {details}" for time, level, words, event, details in rows)


def _queued(item: Mapping[str, Any]) -> Queued:
    recipients = tuple(_recipient(each) for each in item.get("recipients") or () if isinstance(each, dict))
    sender = str(item.get("return_path") or "")
    return Queued(int(item["id"]), datetime.fromisoformat(str(item["created"])), sender, recipients)


def _recipient(item: Mapping[str, Any]) -> Recipient:
    status = item.get("status")
    name, words = next(iter(status.items())) if isinstance(status, dict) and status else ("", "")
    due = item.get("next_retry")
    return Recipient(
        str(item.get("address") or "").lower(),
        _FATES.get(name, Fate.QUEUED),
        words=said(str(words)),
        attempts=int(item.get("retry_num") or 0),
        due=datetime.fromisoformat(due) if isinstance(due, str) else None,
    )
