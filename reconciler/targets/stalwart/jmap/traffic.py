"""The queue and the log of Stalwart from 0.16.

Read in the schema of 0.16.18 (``x:QueuedMessage``, ``x:QueuedRecipient``, ``x:RecipientStatus``, ``x:DeliveryError``,
``x:Log``) and in the source of v0.16.18 (``crates/jmap/src/registry/mapping/{queued_message,log}.rs``): a get without
ids brings the first 500 messages; a log is there where a tracer writes one to a file, as a first start sets up, its
query takes no filter but a text and no position, and its newest line comes first. The id of a queued message is not
written there as in the log: it is a JMAP id of the same number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from reconciler.problem import TargetUnreadable
from reconciler.targets.stalwart.jmap.api import OBJECTS, JmapApi, Response
from reconciler.traffic import Fate, Queued, Recipient

_LINES = 4000  # of the log, at most
_ALPHABET = {letter: value for value, letter in enumerate("abcdefghijklmnopqrstuvwxyz792013")}
_FATES = {"TemporaryFailure": Fate.DEFERRED, "PermanentFailure": Fate.BOUNCED, "Completed": Fate.SENT}


def queue(api: JmapApi) -> tuple[Queued, ...]:
    """Read what waits. Raises `TargetUnreadable`, `Rejected`."""
    (found,) = api.call(("x:QueuedMessage/get", {"ids": None}))
    return tuple(_queued(item) for item in _listed(api, found, "QueuedMessage"))


def log(api: JmapApi) -> tuple[str, ...] | None:
    """Read the lines that name a message, as the server writes them; None where it writes no file.

    Raises `TargetUnreadable`, `Rejected`.
    """
    (found,) = api.call(("x:Log/query", {"filter": {"text": "queueId = "}, "limit": _LINES}))
    if found.error is not None and found.error.type == "invalidArguments":
        return None
    _check(api, found, "Log")
    ids = list(found.arguments.get("ids") or ())
    if not ids:
        return ()
    gets = [("x:Log/get", {"ids": ids[start : start + OBJECTS]}) for start in range(0, len(ids), OBJECTS)]
    return tuple(_line(item) for response in api.call(*gets) for item in _listed(api, response, "Log"))


def _listed(api: JmapApi, response: Response, name: str) -> Iterator[Mapping[str, Any]]:
    _check(api, response, name)
    yield from response.arguments.get("list") or ()


def _check(api: JmapApi, response: Response, name: str) -> None:
    if response.error is not None:
        hint = f"give the account the role admin, or the API key the rights sys{name}Get and sys{name}Query"
        summary = f"does not show {name} objects: {response.error.words()}"
        raise TargetUnreadable(api.connection.problem(summary, hint))


def _line(item: Mapping[str, Any]) -> str:
    words = (item.get("timestamp"), str(item.get("level") or "").upper(), f"({item.get('event')})", item.get("details"))
    time, level, event, details = (str(word or "") for word in words)
    return f"{time} {level} event {event} {details}"


def _queued(item: Mapping[str, Any]) -> Queued:
    found = item.get("recipients")
    recipients = found if isinstance(found, dict) else {}
    sender = str(item.get("returnPath") or "")
    return Queued(
        number(str(item["id"])),
        datetime.fromisoformat(str(item["createdAt"])),
        "" if sender == "<>" else sender,
        tuple(_recipient(address, each) for address, each in recipients.items() if isinstance(each, dict)),
    )


def number(id: str) -> int:
    """Read a JMAP id as the number that it is: base 32, with an alphabet of its own (``crates/types/src/id.rs``)."""
    value = 0
    for letter in id:
        value = value << 5 | _ALPHABET.get(letter, 0)
    return value


def _recipient(address: str, item: Mapping[str, Any]) -> Recipient:
    found = item.get("status")
    status = found if isinstance(found, dict) else {}
    names = ("responseCode", "responseEnhanced", "responseMessage", "errorMessage")
    words = " ".join(str(status[name]) for name in names if status.get(name))
    due = item.get("retryDue")
    return Recipient(
        address.lower(),
        _FATES.get(str(status.get("@type")), Fate.QUEUED),
        host=str(status.get("responseHostname") or ""),
        words=words or _ERRORS.get(str(status.get("errorType")), ""),
        attempts=int(item.get("retryCount") or 0),
        due=datetime.fromisoformat(due) if isinstance(due, str) else None,
    )


_ERRORS = {
    "dnsError": "DNS lookup failed",
    "connectionError": "Connection failed",
    "tlsError": "TLS error",
    "daneError": "DANE authentication failure",
    "mtaStsError": "MTA-STS auth failed",
    "rateLimited": "Rate limited",
    "concurrencyLimited": "Too many concurrent connections to remote server",
    "io": "Queue error",
}
