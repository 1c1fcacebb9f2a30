"""The session object of Stalwart 0.16 (RFC 8620, section 2), and what an anonymous client is told."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from reconciler.simulator.stalwart.jmap.methods import Caller

_JMAP = "urn:ietf:params:jmap:"
_CAPABILITIES = (
    *("mail", "calendars", "calendars:parse", "contacts", "contacts:parse", "filenode", "principals"),
    *("principals:availability", "submission", "vacationresponse", "blob", "quota", "emailpush"),
)
_ACCOUNT = (*_CAPABILITIES, "websocket", "sieve", "mail:share")
_MANAGEMENT = "urn:stalwart:jmap"  # not among the capabilities of the session, only of the account

_PUSH_KEY = secrets.token_urlsafe(65)


def _capabilities(url: str) -> dict[str, Any]:
    full: dict[str, Any] = {f"{_JMAP}{word}": {} for word in _CAPABILITIES}
    full[f"{_JMAP}core"] = {
        "maxSizeUpload": 50_000_000,
        "maxConcurrentUpload": 4,
        "maxSizeRequest": 10_000_000,
        "maxConcurrentRequests": 4,
        "maxCallsInRequest": 16,
        "maxObjectsInGet": 500,
        "maxObjectsInSet": 500,
        "collationAlgorithms": ["i;ascii-numeric", "i;ascii-casemap", "i;unicode-casemap"],
    }
    full[f"{_JMAP}sieve"] = {"implementation": "Stalwart v1.0.0"}
    if url:
        full[f"{_JMAP}webpush-vapid"] = {"applicationServerKey": _PUSH_KEY}
    socket = url.replace("https", "wss", 1) or "ws"
    full[f"{_JMAP}websocket"] = {"url": f"{socket}/jmap/ws", "supportsPush": True}
    return full


def session(url: str, caller: Caller | None, groups: Mapping[str, str]) -> dict[str, Any]:
    """Return the session of a caller, or what anybody may see, but for its state.

    ``groups`` are the addresses of the caller's groups by id; in bootstrap mode ``url`` is empty.
    """
    names = [*(f"{_JMAP}{word}" for word in _ACCOUNT), _MANAGEMENT]
    owners = {caller.id: (caller.name, True)} if caller else {}
    owners |= {key: (name, False) for key, name in groups.items()}
    may = {"isReadOnly": False, "accountCapabilities": {name: {} for name in names}}
    return {
        "capabilities": _capabilities(url),
        "accounts": {key: {"name": name, "isPersonal": own, **may} for key, (name, own) in owners.items()},
        "primaryAccounts": dict.fromkeys(names, caller.id) if caller else {},
        "username": caller.name if caller else "",
        "apiUrl": f"{url}/jmap/",
        "downloadUrl": f"{url}/jmap/download/{{accountId}}/{{blobId}}/{{name}}?accept={{type}}",
        "uploadUrl": f"{url}/jmap/upload/{{accountId}}/",
        "eventSourceUrl": f"{url}/jmap/eventsource/?types={{types}}&closeafter={{closeafter}}&ping={{ping}}",
    }


def protected_resource(url: str) -> dict[str, Any]:
    """Return what tells the generations and the modes apart without a login: ``resource`` is empty in bootstrap."""
    scopes = ["openid", "offline_access", *(f"urn:ietf:params:oauth:scope:{it}" for it in ("mail", "contacts"))]
    return {
        "resource": url,
        "authorization_servers": [url],
        "scopes_supported": [*scopes, "urn:ietf:params:oauth:scope:calendars"],
        "bearer_methods_supported": ["header"],
    }
