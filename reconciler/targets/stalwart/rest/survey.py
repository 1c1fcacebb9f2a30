"""What an import learns of a server up to 0.15: accounts with their hashes, keys with their private halves, settings.

What a fresh 0.15.5 has by itself (``rest_defaults.json``, learnt from a real one) need not be declared. Its patterns
name what the server makes anew (``generated``), loads from its maker (``downloaded``), or has from where and how it
was installed (``installation``).
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from reconciler.desired import stalwart as words
from reconciler.problem import TargetUnreadable
from reconciler.reconcile import Reveal
from reconciler.resources import Account, Listener, Live, Setting, Signature
from reconciler.secrets.reveal import is_crypt_hash
from reconciler.targets.stalwart import host, passwords
from reconciler.targets.stalwart.connection import Connection
from reconciler.targets.stalwart.container import Container, Docker
from reconciler.targets.stalwart.rest import principals as rest_principals
from reconciler.targets.stalwart.rest import settings as rest_settings
from reconciler.targets.stalwart.rest.api import Rejected, RestApi
from reconciler.targets.stalwart.survey import Omissions, Survey, answering, check, fit, looks_secret

_SHADOWS = {"server.hostname": "hostname", "lookup.default.domain": "default_domain"}  # other spellings of words
_KNOWN_FIELDS = frozenset(
    ("type", "id", "name", "emails", "secrets", "description", "quota", "usedQuota", "roles", "memberOf", "lists")
)
_KINDS = {
    "group": ("groups", "make them on a new server before you apply: accounts may be in them"),
    "role": ("roles", "make them on a new server before you apply: accounts may have them"),
    "list": ("mailing lists", "make them anew on a new server"),
    "apiKey": ("API keys", "make new ones on a new server"),
}
_KEY_OPTIONS = {"algorithm", "domain", "private-key", "selector"}


def survey(connection: Connection, reveal: Reveal, docker: Docker | None) -> Survey:
    """Read everything in two requests. Raises `TargetUnreadable`, and `Refused` where nothing is there."""
    api = RestApi(connection)
    try:
        items, keys = api.principals(others=True), api.settings()
    except Rejected as error:
        raise TargetUnreadable(connection.problem(error.summary, error.hint or "look at the server's log")) from error
    return _Reading(connection, items, keys, reveal).survey(host.look(docker).container)


@functools.cache
def _facts() -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(Path(__file__).with_name("defaults.json").read_text("utf-8"))
    return facts


def _is(group: str, key: str) -> bool:
    """Whether a key is one of a group of patterns: ``generated``, ``downloaded`` or ``installation``."""
    return any(fnmatchcase(key, pattern) for pattern in _facts()[group])


class _Reading:
    """One reading of a server, and what is left out of it."""

    def __init__(
        self, connection: Connection, items: Sequence[Mapping[str, Any]], keys: Mapping[str, str], reveal: Reveal
    ) -> None:
        self._connection, self._items, self._reveal = connection, items, reveal
        self._settings = rest_settings.Reading(keys, [Setting(word, None) for word in words.WORD_KEYS])
        self._keys = self._settings.keys
        self._out = Omissions(connection.where)
        self._waiting = rest_settings.pending(keys)

    def survey(self, container: Container | None) -> Survey:
        """Put everything together. Raises `Refused` where nothing is there."""
        directory = list(rest_principals.Principals(self._items, ()).live(self._reveal, self._out.tell))
        check(self._connection.where, directory)
        accounts, hashes = self._accounts(fit(directory, "rest", self._out))
        found = list(fit(self._settings.live(self._reveal, self._out.tell), "rest", self._out))
        signatures = [item for item in found if isinstance(item.resource, Signature) and self._signs(item)]
        listeners = list(self._listeners(found, container))
        others = [item for item in found if not isinstance(item.resource, Signature | Listener) and self._says(item)]
        private = {item.resource.address: self._keys[f"{words.SIGNATURE}{item.id}.private-key"] for item in signatures}
        settings, secrets = self._raw()
        self._principals()
        return Survey(
            "rest",
            live=(*accounts, *signatures, *others, *listeners),
            hashes=hashes,
            private_keys=private,
            settings=settings,
            secrets=secrets,
            removed=tuple(self._closed()),
            omitted=self._out.problems(),
        )

    # ------------------------------------------------------------------------------------------------------ directory
    def _accounts(self, live: Iterable[Live]) -> tuple[list[Live], dict[str, str]]:
        """Return domains and accounts, and the passwords as they are stored."""
        stored = {str(item["name"]): item for item in self._items if item.get("type") != "domain"}
        found: list[Live] = []
        hashes: dict[str, str] = {}
        for item in live:
            account = item.resource
            if isinstance(account, Account):
                own = list(self._passwords(account, rest_principals.secrets_of(stored[item.id])))
                hashes |= {account.name: own[0]} if own else {}
                compared = not own or is_crypt_hash(own[0])
                quota = account.quota or None  # 0 is none, and nothing else that could be declared
                account = replace(account, enforce_password=compared, quota=quota)
            found.append(replace(item, resource=account))
        return found, hashes

    def _passwords(self, account: Account, stored: Sequence[str]) -> Iterator[str]:
        """Yield the passwords that a directory can hold, the one that counts first, and tell of the others."""
        own = [secret for secret in stored if passwords.is_password(secret)]
        if len(own) < len(stored):
            hint = "whoever owns the account makes new ones on a new server"
            self._out.note(account.address, "app passwords and one-time codes are not imported", hint)
        if len(own) > 1:
            hint = "the first one is imported, which is the only one that is compared"
            self._out.note(account.address, "has several passwords", hint)
        if not own:
            hint = "write a `password` for it: after a loss it is made without one"
            self._out.note(account.address, "has no password that could be imported", hint)
        for secret in own[:1]:
            try:
                passwords.check(secret)
            except ValueError as error:
                self._out.note(account.address, f"its password {error}", "set another one on the server")
                return
            if not is_crypt_hash(secret):
                hint = "it is imported with `enforce_password: false`: take that away, and apply writes a hash"
                self._out.note(account.address, "its password is stored in clear text, or as an unknown hash", hint)
            yield secret

    def _principals(self) -> None:
        """Tell of what else is in the server's directory."""
        for item in self._items:
            kind, name = str(item.get("type")), str(item["name"])
            if kind in ("individual", "superuser", "domain"):
                known = _KNOWN_FIELDS - ({"description", "lists"} if kind == "domain" else set())
                more = sorted(key for key, value in item.items() if key not in known | {"members"} and value)
                hint = "set them again on a new server"
                for field in more:
                    self._out.note(name, f"its {field} can't be declared", hint)
            else:
                what, hint = _KINDS.get(kind, (f"principals of the type {kind}", "make them anew on a new server"))
                self._out.note(name, f"{what} can't be declared", hint)

    # ---------------------------------------------------------------------------------------- signatures and listeners
    def _signs(self, live: Live) -> bool:
        """Whether a key can be declared as one that signs; tell why where it can't."""
        signature = live.resource
        if not isinstance(signature, Signature):
            return False
        own = live.id == rest_settings.signing_id(signature.algorithm, signature.domain)
        if not own:
            hint = "only rsa-DOMAIN and ed25519-DOMAIN do; their records in DNS are imported as they are"
            self._out.note(signature.address, f"the server does not sign with it, or not by its id {live.id}", hint)
        elif not isinstance(signature.public_key, str) or not signature.public_key:
            hint = "give the key as `private_key` in dkim.yaml"
            self._out.note(signature.address, "its key can't be read", hint)
            return False
        elif strange := sorted(self._strange_options(live.id)):
            hint = "after a loss it signs as the server's own keys do"
            self._out.note(signature.address, f"its options {', '.join(strange)} can't be declared", hint)
        return own

    def _strange_options(self, name: str) -> Iterator[str]:
        """Yield the options of a key that another one, made by the server or by us, would not have."""
        block = rest_settings.signature_block(self._keys, name)
        usual = rest_settings.USUAL_OPTIONS
        for key, value in block.items():
            part = key.removeprefix(f"{words.SIGNATURE}{name}.")
            if part not in _KEY_OPTIONS and usual.get(part) != value:
                yield part

    def _says(self, live: Live) -> bool:
        """Whether a word is set at all, and is what counts."""
        setting = live.resource
        if not isinstance(setting, Setting):
            return True
        shadow = self._keys.get("server.hostname") if setting.word == "hostname" else None
        return setting.value is not None and shadow in (None, setting.value)

    def _listeners(self, found: Sequence[Live], container: Container | None) -> Iterator[Live]:
        """Yield the listeners that a fresh server does not have, or has otherwise, and that answer."""
        fresh = {item.name: item for item in _fresh_listeners()}
        own = [item for item in found if isinstance(item.resource, Listener)]
        own = [item for item in own if item.resource != fresh.get(item.id)]
        yield from answering(own, self._connection.host, container, self._out)

    def _closed(self) -> Iterator[str]:
        """Yield the listeners of a fresh server that are not there."""
        for listener in _fresh_listeners():
            if not any(key.startswith(f"{words.LISTENER}{listener.name}.") for key in self._keys):
                yield listener.address

    # --------------------------------------------------------------------------------------------------- raw settings
    def _raw(self) -> tuple[dict[str, str | None], dict[str, str]]:
        """Return raw settings that a fresh server does not have like this, and those of them that are secret."""
        fresh: Mapping[str, str] = _facts()["keys"]
        for key in self._waiting:
            hint = "see that the server reloads (GET /api/reload without errors), then import again"
            self._out.note(key, "is stored and not in force", hint)
        settings: dict[str, str | None] = {}
        secrets: dict[str, str] = {}
        for key in sorted(self._keys.keys() | fresh.keys()):
            value = self._keys.get(key)
            if value == fresh.get(key) or not self._declarable(key, value):
                continue
            if value and not value.startswith("%{") and (words.is_secret(key) or looks_secret(value)):
                secrets[key] = value
            else:
                settings[key] = value
        return settings, secrets

    def _declarable(self, key: str, value: str | None) -> bool:
        """Whether a raw setting may stand in the directory; tell of it where it is lost with its volume."""
        if key == rest_settings.PENDING or key in self._waiting or words.word_of(key) in words.WORD_KEYS:
            return False
        reason = next((said for applies, *said in _REASONS if applies(key)), None)
        if reason is None:
            return True
        why, hint = reason
        if why and value is not None:
            self._out.note(key, why, hint)
        return False


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


def _fresh_listeners() -> list[Listener]:
    """Return the listeners of a fresh server."""
    keys: Mapping[str, str] = _facts()["keys"]
    found = rest_settings.Reading(keys, ()).live(lambda _: "", lambda _: None)
    return [item.resource for item in found if isinstance(item.resource, Listener)]
