"""App passwords of the fake Stalwart 0.16: the server makes them, shows each once, and each account sees its own."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping
from typing import Any

from reconciler.simulator.stalwart.jmap import registry
from reconciler.simulator.stalwart.jmap.store import Object, SetFailure
from reconciler.simulator.stalwart.passwords import hashed, verify

KIND = "AppPassword"
PREFIX = "app_"
_LENGTH = 18  # random bytes; the number of the credential stands before them
_LETTERS = str.maketrans("abcdefghijklmnopqrstuvwxyz234567", registry.ALPHABET)


def own(account: Mapping[str, Any]) -> dict[str, Object]:
    """Return an account's app passwords by id, as objects of their own."""
    return {
        item["credentialId"]: {key: value for key, value in item.items() if key not in ("@type", "credentialId")}
        for item in account["credentials"].values()
        if item["@type"] == KIND
    }


def accepts(account: Mapping[str, Any], secret: str) -> bool:
    """Say whether this is one of an account's app passwords."""
    return any(verify(item["secret"], secret, folds=True) for item in own(account).values())


def create(account: Object, value: Any, now: str, most: int | None) -> Object:
    """Add an app password to an account and return its id and secret. Raises `SetFailure` beyond its quota."""
    if most is not None and len(own(account)) >= most:
        raise SetFailure("overQuota", f"You have exceeded your quota of {most} app passwords.")
    made = registry.patch(KIND, registry.new(KIND), [], value, "create")
    credentials = account["credentials"]
    number = max((registry.decode_id(item["credentialId"]) for item in credentials.values()), default=0) + 1
    text = base64.b32encode(number.to_bytes(4) + secrets.token_bytes(_LENGTH)).decode().rstrip("=")
    secret = PREFIX + text.lower().translate(_LETTERS)
    key = registry.encode_id(number)
    stored = made | {"@type": KIND, "credentialId": key, "createdAt": now, "secret": hashed(secret)}
    credentials[str(max(map(int, credentials), default=-1) + 1)] = stored
    return {"id": key, "secret": secret}


def update(account: Object, key: str, change: Mapping[str, Any]) -> None:
    """Change what may be changed of an app password. Raises `SetFailure`."""
    place = _place(account, key)
    made = own(account)[key]
    for pointer, item in change.items():
        made = registry.patch(KIND, made, pointer.split("/"), item, "update")
    account["credentials"][place] |= made


def destroy(account: Object, key: str) -> None:
    """Take an app password away. Raises `SetFailure`."""
    del account["credentials"][_place(account, key)]


def _place(account: Mapping[str, Any], key: str) -> str:
    for place, item in account["credentials"].items():
        if (item["@type"], item["credentialId"]) == (KIND, key):
            return str(place)
    raise SetFailure("notFound")
