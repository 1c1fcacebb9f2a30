"""The management API of Stalwart up to 0.15: its calls, and its errors, most of which come with status 200."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from reconciler.http import Answer, short
from reconciler.problem import TargetUnreadable
from reconciler.targets.stalwart.connection import AnswerLost, Connection, NotFound

# Types are named, because a listing of all needs the right to list each of them, and an unknown one returns everything.
_OTHERS = "role,tenant,resource,location,apiKey,oauthClient,other"
_LARGEST = 900_000  # bytes of a request: a body over 1 MiB is dropped and read as empty

_STRANGE = "check the url: a proxy, or another version than 0.11 to 0.15?"
_TEXTS = ("emails", "secrets", "roles", "memberOf", "lists", "members", "externalMembers", "enabledPermissions")


class Rejected(Exception):
    """The server understood a request and declined it. No text of it holds a secret.

    ``error`` is the server's word (``fieldAlreadyExists``, ``notFound``), ``subject`` the field or item it names.
    """

    def __init__(self, summary: str, error: str = "", subject: str = "", hint: str = "") -> None:
        super().__init__(summary)
        self.summary, self.error, self.subject, self.hint = summary, error, subject, hint


class RestApi:
    """The calls we need. All raise `TargetUnreadable` (nobody to talk to) or `Rejected` (declined)."""

    def __init__(self, connection: Connection, types: Sequence[str]) -> None:
        """Take note of the ``types`` of principals that are kept here."""
        self.connection, self._types = connection, ",".join(types)

    def principals(self, *, others: bool = False) -> list[dict[str, Any]]:
        """List what is kept of the directory whole, or not at all: a listing cut short raises.

        ``others`` adds what is never kept here: roles, API keys and so on, which needs the right to list each.
        """
        found = self.read("/api/principal", {"types": self._types + (f",{_OTHERS}" if others else ""), "limit": "0"})
        items = found.get("items") if isinstance(found, dict) else None
        if not isinstance(items, list) or not all(map(_is_principal, items)):
            raise TargetUnreadable(self.connection.problem("answers accounts that can't be understood", _STRANGE))
        listed, total = len({item["name"] for item in items}), found.get("total")
        if not listed == len(items) == total:
            summary = f"lists {listed} of {total} accounts and domains"
            raise TargetUnreadable(self.connection.problem(summary, "try again; nothing was compared or changed"))
        return items

    def roles(self) -> frozenset[str] | None:
        """List the roles that were made here; None where we may not, and so can't tell what there is."""
        try:
            found = self.read("/api/principal", {"types": "role", "limit": "0"})
        except (TargetUnreadable, Rejected):
            return None
        items = found.get("items") if isinstance(found, dict) else None
        if not isinstance(items, list) or not all(map(_is_principal, items)):
            return None
        return frozenset(item["name"] for item in items)

    def others(self) -> dict[str, str]:
        """Map names that are taken by what is never kept here (API keys and the like) to what they are.

        Names are one space. Where we may not list them it is empty, and the server refuses such a name itself.
        """
        try:
            found = self.read("/api/principal", {"types": _OTHERS, "fields": "name,type", "limit": "0"})
        except (TargetUnreadable, Rejected):
            return {}
        items = found.get("items") if isinstance(found, dict) else None
        known = items if isinstance(items, list) else []
        return {str(item.get("name")): str(item.get("type")) for item in known if isinstance(item, dict)}

    def principal(self, name: str) -> dict[str, Any] | None:
        """Read one by name, which is stored in lower case; None where there is none."""
        try:
            found = self.read(_path(name), {})
        except Rejected as error:
            if error.error == "notFound":
                return None
            raise
        return found if isinstance(found, dict) else None

    def create(self, body: Mapping[str, Any]) -> None:
        """Create a principal. Its texts must not be longer than 512 bytes: in lists they'd vanish without a word."""
        _data(self.connection.send("POST", "/api/principal", body=body))

    def patch(self, name: str, operations: Sequence[Mapping[str, Any]]) -> None:
        """Change a principal; all operations or none."""
        _data(self.connection.send("PATCH", _path(name), body=operations))

    def delete(self, name: str) -> None:
        """Delete a principal, and with an account its mailbox; one that is not there is fine."""
        try:
            _data(self.connection.send("DELETE", _path(name)))
        except Rejected as error:
            if error.error != "notFound":
                raise

    def keys(self, prefixes: Iterable[str], names: Iterable[str]) -> dict[str, str]:
        """Read settings below prefixes and by name; what is not set is absent."""
        found = self.read("/api/settings/keys", {"prefixes": ",".join(prefixes), "keys": ",".join(names)})
        if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
            raise TargetUnreadable(self.connection.problem("answers settings that can't be understood", _STRANGE))
        return found

    def key_records(self, domain: str) -> dict[str, str]:
        """Return the key records that the server would have a domain publish, by name; none where it does not say.

        Nowhere else does it tell the public half of a key that it reads from a file (rest-0.15.md, section 4).
        """
        try:
            found = self.read(f"/api/dns/records/{quote(domain, safe='')}", {})
        except (TargetUnreadable, Rejected):
            return {}
        items = [it for it in found if isinstance(it, dict)] if isinstance(found, list) else []
        texts = (it for it in items if it.get("type") == "TXT")
        named = {str(it.get("name")).removesuffix(".").lower(): str(it.get("content")) for it in texts}
        return {name: content for name, content in named.items() if "._domainkey." in name}

    def settings(self) -> dict[str, str]:
        """Read all settings whole, those of ``config.toml`` and secrets among them; a listing cut short raises."""
        found = self.read("/api/settings/list", {"limit": "0"})
        items = found.get("items") if isinstance(found, dict) else None
        if not isinstance(items, dict) or not all(isinstance(value, str) for value in items.values()):
            raise TargetUnreadable(self.connection.problem("answers settings that can't be understood", _STRANGE))
        if found.get("total") != len(items):
            summary = f"lists {len(items)} of {found.get('total')} settings"
            raise TargetUnreadable(self.connection.problem(summary, "try again"))
        return items

    def write(self, operations: Sequence[Mapping[str, Any]]) -> None:
        """Change settings, in one request where its size allows. No transaction: each operation is written at once."""
        for batch in _batches(operations):
            _data(self.connection.send("POST", "/api/settings", body=batch))

    def make_key(self, name: str, algorithm: str, domain: str, selector: str) -> None:
        """Have the server make a DKIM key. Its ``fieldAlreadyExists`` carries the private key: see `Rejected`."""
        body = {"id": name, "algorithm": algorithm.capitalize(), "domain": domain, "selector": selector}
        _data(self.connection.send("POST", "/api/dkim", body=body))

    def reload(self) -> dict[str, str]:
        """Put stored settings in force, and return what is wrong by key: then the old ones stay in force."""
        try:
            found = self.read("/api/reload", {})
        except AnswerLost:
            found = self.read("/api/reload", {})
        errors = found.get("errors") if isinstance(found, dict) else None
        if not isinstance(errors, dict):
            raise TargetUnreadable(self.connection.problem("answers a reload that can't be understood", _STRANGE))
        return {key: _reason(value) for key, value in errors.items()}

    def read(self, path: str, params: Mapping[str, str]) -> Any:
        """Ask for something, and return its ``data``; a right that is missing raises `TargetUnreadable`."""
        answer = self.connection.send("GET", path, params=params)
        if answer.status == 404:  # noqa: PLR2004 (HTTP)
            raise NotFound(self.connection.problem(f"has no {path}", "check the url: it is the root of the API"))
        if answer.status == 403:  # noqa: PLR2004 (HTTP)
            raise TargetUnreadable(
                self.connection.problem(
                    f"does not let {self.connection.login.username} read {path}",
                    "give the account the role admin, or the API key the rights to list, read and write principals, "
                    "settings and DKIM keys",
                )
            )
        if answer.status == 200 and answer.json() is None:  # noqa: PLR2004 (HTTP)
            kind = answer.content_type.partition(";")[0] or "nothing"
            raise TargetUnreadable(
                self.connection.problem(
                    f"answers {kind} where JSON belongs", "check the url: is this the port of the management API?"
                )
            )
        try:
            return _data(answer)
        except Rejected as error:
            if error.error:
                raise
            raise TargetUnreadable(self.connection.problem(error.summary, error.hint)) from None


def _is_principal(item: Any) -> bool:
    """Whether what is read of a principal is of its kind: nobody's password or address is nothing because it is odd.

    Texts may be one or several; of a domain ``members`` is a number (traps.md 13).
    """
    if not isinstance(item, dict) or not item.get("name"):
        return False
    lists = (value for key in _TEXTS if (value := item.get(key)) is not None and (item.get("type"), key) != _COUNTED)
    return (
        all(isinstance(item.get(key), str) for key in ("name", "type"))
        and isinstance(item.get("description"), str | None)
        and (item.get("quota") is None or type(item["quota"]) is int)
        and all(isinstance(text, str) for value in lists for text in (value if isinstance(value, list) else [value]))
    )


_COUNTED = ("domain", "members")


def _path(name: str) -> str:
    return f"/api/principal/{quote(name.lower(), safe='')}"


def _data(answer: Answer) -> Any:
    """Return ``data``. Success is that it is there: errors come with status 200 as well (rest-0.15.md, section 0)."""
    body = answer.json()
    if answer.status == 200 and isinstance(body, dict) and "data" in body:  # noqa: PLR2004 (HTTP)
        return body["data"]
    if isinstance(body, dict) and "error" in body:
        raise _management_error(body)
    hints = {
        500: "look at the server's log; is config.toml mounted read-only?",
        403: "give the account the role admin, or the API key the right to write",
    }
    detail = _public(f"{answer.word('title')}: {answer.word('detail')}".strip(": "))
    raise Rejected(f"the server answers {answer.status} {detail}".strip(), hint=hints.get(answer.status, ""))


def _management_error(body: Mapping[str, Any]) -> Rejected:
    """Put the server's error into words. ``value`` is never shown: it may be the private key."""
    error = str(body["error"])
    match error:
        case "fieldAlreadyExists":
            subject = str(body.get("field") or "")
            return Rejected(f"the server has that {_public(subject)} already", error, subject)
        case "fieldMissing":
            return Rejected(f"the server wants a {_public(str(body.get('field') or ''))}", error)
        case "notFound":
            subject = str(body.get("item") or "")
            return Rejected(f"the server knows no {_public(subject)}", error, subject)
        case "unsupported":
            return Rejected(f"the server does not offer this: {_public(str(body.get('details') or ''))}", error)
    parts = [_public(str(body[key])) for key in ("details", "reason") if body.get(key)]
    return Rejected(f"the server answers {_public(error)} {': '.join(parts)}".strip(), error)


def _public(text: str) -> str:
    """Let only such words of the server through that can't quote a secret of ours."""
    lowered = text.lower()
    if "private" in lowered or "secret" in lowered or "$" in text or "{" in text:
        return "(not shown: it may quote a secret)"
    return short(" ".join(text.split()), 300)


def _reason(value: Any) -> str:
    return _public(str(value.get("error") or value.get("type") or "")) if isinstance(value, dict) else ""


def _batches(operations: Sequence[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    batch: list[Mapping[str, Any]] = []
    size = 0
    for operation in operations:
        length = len(json.dumps(operation).encode()) + 2
        if batch and size + length > _LARGEST:
            yield batch
            batch, size = [], 0
        batch.append(operation)
        size += length
    if batch:
        yield batch
