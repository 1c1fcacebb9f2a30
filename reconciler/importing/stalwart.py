"""`stalwart.yaml`: what a recreated volume would lose of the server's settings."""

from __future__ import annotations

from typing import Any

from reconciler.desired.spec.stalwart import ListenerEntry, Stalwart
from reconciler.importing.draft import Draft
from reconciler.importing.found import Found
from reconciler.importing.yaml import Inline, Noted
from reconciler.resources import AllowedIp, Listener, Setting


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
    listeners = {item.name: _listener(item) for item in live if isinstance(item, Listener)}
    if listeners:
        content["listeners"] = dict(sorted(listeners.items()))
    content = {word: value for word, value in content.items() if _fits(word, value, draft)}
    return content | _own(found, draft)


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
    if ListenerEntry.model_validate({"bind": bind, "protocol": item.protocol}).tls_implicit != item.tls_implicit:
        entry["tls"] = "implicit" if item.tls_implicit else "starttls"
    return entry


def _fits(word: str, value: Any, draft: Draft) -> bool:
    return draft.fits(f"stalwart/{word}", Stalwart, {word: value})


def _own(found: Found, draft: Draft) -> dict[str, Any]:
    """Return the raw keys or objects, one by one as far as the directory takes them; secrets by reference."""
    if found.server is None:
        return {}
    settings: dict[str, Any] = {}
    for key, value in sorted({**found.server.settings, **found.server.secrets}.items()):
        if _fits("settings", {key: {"env": "X"} if key in found.server.secrets else value}, draft):
            settings[key] = draft.keep(key, found.server.secrets[key]) if key in found.server.secrets else value
    objects: dict[str, Any] = {}
    for kind, entries in found.server.objects.items():
        for name, fields in entries.items():
            if _fits("objects", {kind: {name: fields}}, draft):
                objects.setdefault(kind, {})[name] = fields
    made: dict[str, Any] = {}
    if settings:
        made["settings"] = Noted(settings, ("In the server's own words, up to 0.15:",))
    if objects:
        made["objects"] = Noted(objects, ("In the server's own words, from 0.16:",))
    return made
