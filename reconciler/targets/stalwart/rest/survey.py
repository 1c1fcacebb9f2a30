"""What an import learns of a server up to 0.15: what the kinds take of it, and raw settings unlike a fresh server's."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from reconciler.desired import raw_keys as words
from reconciler.problem import TargetUnreadable
from reconciler.resources import Setting
from reconciler.target import Reveal
from reconciler.targets.stalwart.connection import Connection
from reconciler.targets.stalwart.container import Container, Docker, look
from reconciler.targets.stalwart.rest.api import Rejected, RestApi
from reconciler.targets.stalwart.rest.kind import PENDING, Import, Item, Keys, Reading, fresh, pending
from reconciler.targets.stalwart.rest.principals import Principal, own_emails
from reconciler.targets.stalwart.rest.target import KINDS
from reconciler.targets.stalwart.survey import Omissions, Survey, check, fit, looks_secret

_SHADOWS = {"server.hostname": "hostname", "lookup.default.domain": "default_domain"}  # other spellings of words
_KNOWN_FIELDS = frozenset(
    (
        *("type", "id", "name", "emails", "secrets", "description", "quota", "usedQuota", "roles", "memberOf", "lists"),
        *("members", "externalMembers"),
    )
)
_OTHERS = {
    "role": ("roles", "make them on a new server before you apply: accounts may have them"),
    "apiKey": ("API keys", "make new ones on a new server"),
}


def survey(connection: Connection, reveal: Reveal, docker: Docker | None) -> Survey:
    """Read everything in two requests. Raises `TargetUnreadable`, and `Refused` where nothing is there."""
    api = RestApi(connection)
    try:
        items, keys = api.principals(others=True), api.settings()
    except Rejected as error:
        raise TargetUnreadable(connection.problem(error.summary, error.hint or "look at the server's log")) from error
    return _survey(connection, items, keys, reveal, look(docker).container)


def _survey(
    connection: Connection, items: Sequence[Item], stored: Keys, reveal: Reveal, container: Container | None
) -> Survey:
    """Put everything together. Raises `Refused` where nothing is there."""
    out = Omissions(connection.where)
    reading = Reading(items, stored, [Setting(word, None) for word in words.WORD_KEYS], reveal=reveal, report=out.tell)
    live = {kind: list(kind.live(reading)) for kind in KINDS}
    check(connection.where, [item for found in live.values() for item in found])
    taken = Import(items, reading.keys, out, connection.host, container)
    imported = [item for kind, found in live.items() for item in kind.imported(list(fit(found, "rest", out)), taken)]
    settings, secrets = _raw(reading.keys, pending(stored), out)
    _tell_of_others(items, out)
    return Survey(
        "rest",
        live=tuple(imported),
        hashes=taken.hashes,
        private_keys=taken.private_keys,
        settings=settings,
        secrets=secrets,
        removed=tuple(taken.removed),
        omitted=out.problems(),
    )


def _tell_of_others(items: Sequence[Item], out: Omissions) -> None:
    """Tell of what else is in the server's directory."""
    kinds = {word: kind for kind in KINDS if isinstance(kind, Principal) for word in kind.types}
    domains = {item["name"] for item in items if item.get("type") == "domain"}
    for item in items:
        word, name = str(item.get("type")), str(item["name"])
        if kind := kinds.get(word):
            known = _KNOWN_FIELDS - kind.undeclared
            for field in sorted(key for key, value in item.items() if key not in known and value):
                out.note(name, f"its {field} can't be declared", "set them again on a new server")
            if any(address.rpartition("@")[2] not in domains for address in own_emails(item)[1:]):
                hint = "they get no mail: they are left out"
                out.note(name, "has addresses in domains that the server does not have", hint)
        else:
            what, hint = _OTHERS.get(word, (f"principals of the type {word}", "make them anew on a new server"))
            out.note(name, f"{what} can't be declared", hint)


def _raw(keys: Keys, waiting: Sequence[str], out: Omissions) -> tuple[dict[str, str | None], dict[str, str]]:
    """Return raw settings that a fresh server does not have like this, and those of them that are secret."""
    usual: Keys = fresh()["keys"]
    for key in waiting:
        hint = "see that the server reloads (GET /api/reload without errors), then import again"
        out.note(key, "is stored and not in force", hint)
    settings: dict[str, str | None] = {}
    secrets: dict[str, str] = {}
    for key in sorted((keys.keys() | usual.keys()) - {PENDING, *waiting}):
        value = keys.get(key)
        if value == usual.get(key) or not _declarable(key, value, out):
            continue
        if value and not value.startswith("%{") and (words.is_secret(key) or looks_secret(value)):
            secrets[key] = value
        else:
            settings[key] = value
    return settings, secrets


def _declarable(key: str, value: str | None, out: Omissions) -> bool:
    """Whether a raw setting may stand in the directory; tell of it where it is lost with its volume."""
    if words.word_of(key) in words.WORD_KEYS:
        return False
    reason = next((said for applies, *said in _REASONS if applies(key)), None)
    if reason is None:
        return True
    why, hint = reason
    if why and value is not None:
        out.note(key, why, hint)
    return False


def _is(group: str, key: str) -> bool:
    """Whether a key is one of a group of patterns: ``generated``, ``downloaded`` or ``installation``."""
    return any(fnmatchcase(key, pattern) for pattern in fresh()[group])


def _is_worded(key: str) -> bool:
    """Whether a key is part of what has words of its own, and is read there."""
    listener = key.startswith(words.LISTENER) and re.search(r"\.(bind(\.\d+)?|protocol|tls\.implicit)$", key)
    return bool(listener) or key.startswith((words.ALLOWED_IP, words.SIGNATURE))


_REASONS: tuple[tuple[Any, str, str], ...] = (
    (_is_worded, "", ""),
    (functools.partial(_is, "generated"), "", ""),
    (lambda key: key.startswith("server.blocked-ip."), "", ""),
    (
        functools.partial(_is, "downloaded"),
        "come from the server's maker and are not imported",
        "a new server downloads them again; what you changed among them, declare under stalwart.settings",
    ),
    (
        functools.partial(_is, "installation"),
        "describe how the server was installed and are not imported",
        "a new server gets them from its first start, or from its config.toml",
    ),
    (
        lambda key: key.startswith("certificate."),
        "certificates are not imported",
        "put them on a new server as you did on this one, or let ACME get them",
    ),
    (
        lambda key: key in _SHADOWS,
        "is used in place of stalwart.hostname and stalwart.default_domain, and can't be declared",
        "write the word, and take this key away on the server",
    ),
    (
        lambda key: words.word_of(key) is not None,
        "belong to listeners or bans, and can't be declared",
        "set them again on a new server",
    ),
    (
        lambda key: not words.is_known(key),
        "are settings of no version: they are stored and never read",
        "they are left out: remove them on the server",
    ),
)
