"""`reconciler.yaml` and `stalwart.yaml`: where the systems are, and what a recreated volume would lose of settings."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reconciler.desired.spec.stalwart import ListenerEntry, Stalwart
from reconciler.importing.directory import Inline, Noted
from reconciler.importing.draft import Draft
from reconciler.importing.found import ADMINISTRATOR, RECOVERY, TOKEN, Found
from reconciler.resources import UNMANAGED, AllowedIp, Listener, Setting
from reconciler.secrecy import Withheld

if TYPE_CHECKING:
    from reconciler.targets.stalwart.survey import Survey

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


def stalwart(found: Found, draft: Draft) -> dict[str, Any]:
    """Return the neutral words that differ from a fresh server's, then the server's own."""
    if found.server is None:
        return {}
    live = [item.resource for item in found.server.live]
    content: dict[str, Any] = {}
    for item in live:
        if isinstance(item, Setting):
            _put(content, item)
    allowed = sorted(item.network for item in live if isinstance(item, AllowedIp))
    if allowed:
        content["allowed_ips"] = allowed
    if "auto_ban" in content:
        rates = {word: rate for word, rate in content["auto_ban"].items() if _fits("auto_ban", {word: rate}, draft)}
        content["auto_ban"] = rates
    content = {word: value for word, value in content.items() if value != {} and _fits(word, value, draft)}
    listeners = sorted((item for item in live if isinstance(item, Listener)), key=lambda item: item.name)
    made = {item.name: entry for item in listeners if (entry := _sayable(item, draft))}
    return content | ({"listeners": made} if made else {}) | _own(found, draft)


def _put(content: dict[str, Any], item: Setting) -> None:
    """Put a neutral word in its place: ``auto_ban/scan`` below ``auto_ban``."""
    word, _, part = item.word.partition("/")
    if part:
        content.setdefault(word, {})[part] = item.value
    else:
        content[word] = item.value


def _listener(item: Listener) -> Inline:
    bind = item.bind[0] if len(item.bind) == 1 else list(item.bind)
    entry = Inline(bind=bind, protocol=item.protocol)
    if item.tls is False:
        entry["tls"] = "none"
    elif ListenerEntry.model_validate({"bind": bind, "protocol": item.protocol}).tls_implicit != item.tls_implicit:
        entry["tls"] = "implicit" if item.tls_implicit else "starttls"
    for word, usual in Listener.USUAL.items():
        value = getattr(item, word)
        if word != "tls" and value not in (usual, UNMANAGED):
            said = f"{value}s" if word == "tls_timeout" else value
            entry[word] = list(value) if isinstance(value, tuple) else said
    return entry


def _sayable(item: Listener, draft: Draft) -> Inline:
    """Return an entry with what of it can be said: one option that can't never costs another, nor another listener."""
    entry, made = _listener(item), Inline()
    parts = {"bind": {name: entry[name] for name in ("bind", "protocol", "tls") if name in entry}}
    parts |= {name: {name: value} for name, value in entry.items() if name not in parts["bind"]}
    for name, part in parts.items():
        where = item.address if name == "bind" else f"{item.address}: {name}"
        if draft.fits(where, Stalwart, {"listeners": {item.name: {**made, **part}}}):
            made.update(part)
        elif name == "bind":
            return Inline()
    return made


def _fits(word: str, value: Any, draft: Draft) -> bool:
    return draft.fits(f"stalwart/{word}", Stalwart, {word: value})


def _own(found: Found, draft: Draft) -> dict[str, Any]:
    """Return the raw keys or objects, one by one as far as the directory takes them; secrets by reference."""
    if found.server is None:
        return {}
    settings, objects = _settings(found.server, draft), _objects(found.server, draft)
    made: dict[str, Any] = {}
    if settings:
        made["settings"] = Noted(settings, ("In the server's own words, up to 0.15:",))
    if objects:
        made["objects"] = Noted(objects, ("In the server's own words, from 0.16:",))
    return made


def _settings(server: Survey, draft: Draft) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key in sorted({*server.settings, *server.secrets}):
        secret = server.secrets.get(key)
        if secret is not None and not draft.keeps(f"stalwart/settings/{key}", secret):
            continue
        if _fits("settings", {key: server.settings[key] if secret is None else {"env": "X"}}, draft):
            made[key] = server.settings[key] if secret is None else draft.keep(key, secret)
    return made


def _objects(server: Survey, draft: Draft) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for kind, entries in server.objects.items():
        for name, fields in entries.items():
            if not all(draft.keeps(f"stalwart/objects/{kind}/{name}", value) for value in _withheld(fields)):
                continue
            if _fits("objects", {kind: {name: _referring(fields, lambda *_: {"env": "X"})}}, draft):
                made.setdefault(kind, {})[name] = _referring(fields, draft.keep, f"{kind}.{name}")
    return made


def _withheld(fields: Any) -> list[str]:
    found: list[str] = []
    _referring(fields, lambda _, value: found.append(value))
    return found


def _referring(value: Any, keep: Callable[[str, str], Any], name: str = "") -> Any:
    """Return a value with what ``keep`` makes of each secret in it, under a name that leads to where it stands."""
    if isinstance(value, Mapping):
        return {key: _referring(item, keep, f"{name}.{key}") for key, item in value.items()}
    if isinstance(value, list):
        return [_referring(item, keep, f"{name}.{number}") for number, item in enumerate(value)]
    return keep(name, value.value) if isinstance(value, Withheld) else value
