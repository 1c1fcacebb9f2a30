"""Whom the server does not talk to any more, as its API lists them, and how one of them is let in again.

Up to 0.15 a ban is a setting without a value and without an end (``server.blocked-ip.ADDRESS``), from 0.16 an object
with a reason and perhaps an end. What is deleted is in force after a reload of its own; up to 0.15 a restart lifts
nothing (observed.md, rest-0.15.md section 3, jmap-0.16.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reconciler.checks.evidence import Blocked
from reconciler.problem import Problem, TargetUnreadable, printable
from reconciler.targets.stalwart.connection import TARGET, Connection
from reconciler.targets.stalwart.jmap.api import JmapApi, Rejected, Selection
from reconciler.targets.stalwart.rest import api as rest

KEY = "server.blocked-ip"
_FIELDS = ("address", "reason", "createdAt", "expiresAt")
_RELOAD = ("x:Action/set", {"create": {"reload": {"@type": "ReloadBlockedIps"}}})


def listed_by_rest(connection: Connection) -> tuple[Blocked, ...]:
    """List the bans of a server up to 0.15. Raises `TargetUnreadable`."""
    try:
        found = rest.RestApi(connection, ()).keys((KEY,), ())
    except rest.Rejected as error:
        raise _declined(connection, error.summary) from error
    return tuple(_blocked(key.removeprefix(f"{KEY}.")) for key in sorted(found) if key.startswith(f"{KEY}."))


def lift_by_rest(connection: Connection, entry: str) -> None:
    """Delete the one key of an entry, and have the bans read again. Raises `TargetUnreadable`."""
    try:
        rest.RestApi(connection, ()).write([{"type": "delete", "keys": [f"{KEY}.{entry}"]}])
        answer = connection.send("GET", f"/api/reload/{KEY}")
    except rest.Rejected as error:
        raise _declined(connection, error.summary) from error
    if answer.status != 200:  # noqa: PLR2004 (HTTP)
        raise _declined(connection, f"answers {answer.status} when its bans are to be read again")


def listed_by_jmap(api: JmapApi) -> tuple[Blocked, ...]:
    """List the bans of a server from 0.16. Raises `TargetUnreadable`."""
    return tuple(_read(item) for item in _objects(api))


def lift_by_jmap(api: JmapApi, entry: str) -> None:
    """Destroy the one object of an entry, and have the bans read again. Raises `TargetUnreadable`."""
    found = [str(item["id"]) for item in _objects(api) if item.get("address") == entry]
    if not found:
        return
    try:
        destroyed, reloaded = api.call(("x:BlockedIp/set", {"destroy": found[:1]}), _RELOAD)
    except Rejected as error:
        raise api.unreadable(error) from error
    for failure in (destroyed.failure(found[0]), reloaded.failure("reload")):
        if failure is not None:
            raise _declined(api.connection, failure.words())


def _objects(api: JmapApi) -> list[dict[str, Any]]:
    try:
        return api.read([Selection("BlockedIp", properties=_FIELDS)])["BlockedIp"]
    except Rejected as error:
        raise api.unreadable(error) from error


def _read(item: Mapping[str, Any]) -> Blocked:
    return _blocked(*(str(item.get(name) or "") for name in _FIELDS))


def _blocked(*texts: str) -> Blocked:
    return Blocked(*(printable(text, 60) for text in texts))


def _declined(connection: Connection, why: str) -> TargetUnreadable:
    problem = Problem(connection.where, why, "lift it by hand: docs/doctor.md", scope=TARGET)
    return TargetUnreadable(problem)
