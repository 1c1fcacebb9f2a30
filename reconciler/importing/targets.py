"""`reconciler.yaml`: where the systems are, and how far the reconciler may go with them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from reconciler.importing.found import Found
from reconciler.importing.request import ADMINISTRATOR, RECOVERY, TOKEN
from reconciler.importing.yaml import Inline, Noted

_MOVES = "what it is now; declared, it refuses a server of the other one"
_WATCHED = "restarted only where a change needs it"


def reconciler(found: Found) -> dict[str, Any]:
    """Return the file's content. Nothing of the environment's overrides gets into it."""
    targets: dict[str, Any] = {}
    if found.server is not None:
        targets["stalwart"] = _stalwart(found, found.server.generation)
    if found.zones:
        targets["cloudflare"] = {"token": TOKEN}
    if found.request.compose is not None:
        targets["compose"] = _compose(found, found.request.compose)
    return {
        "version": 1,
        "stack": Noted(found.stack, beside="names the ownership mark, the lease and the metrics"),
        "targets": targets,
        "policy": {
            "prune": Noted(Inline(dns="owned"), beside="remove marked records that are no longer declared; or: never"),
            "max_deletes": Noted(3, beside="a plan that deletes more is refused until it is allowed by hand"),
        },
    }


def _stalwart(found: Found, generation: str) -> dict[str, Any]:
    made: dict[str, Any] = {
        "url": found.request.stalwart,
        "username": found.request.username,
        "password": ADMINISTRATOR,
    }
    if generation == "jmap":
        note = "gets into a server that lost its accounts"
        made["recovery"] = Noted(RECOVERY, beside=note, out=not _can_recover(found))
    if found.container:
        made["container"] = Noted(found.container, beside=_WATCHED)
    if found.request.allow_plain_http:
        made["allow_plain_http"] = True
    return made | {"generation": Noted(generation, beside=_MOVES, out=True)}


def _can_recover(found: Found) -> bool:
    """Whether the server's container has the recovery administrator, so that the reference leads somewhere."""
    service = found.mail_service
    return bool(service and any(item.get(RECOVERY.name) for item in service.running))


def _compose(found: Found, file: Path) -> dict[str, Any]:
    out = found.request.out.resolve()
    made: dict[str, Any] = {"file": _relative(file, out)}
    if found.request.env_file is not None:
        made["env_file"] = _relative(found.request.env_file, out)
    if found.request.project is not None:
        made["project"] = found.request.project
    return made


def _relative(path: Path, out: Path) -> str:
    return Path(os.path.relpath(path.parent.resolve() / path.name, out)).as_posix()
