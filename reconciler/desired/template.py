"""Templates such as ``smtp://{username|url}:{password|url}@{host}:{port}``: from text to parts, once and strictly."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

NAMES = ("host", "port", "username", "password", "from", "tls", "verify", "insecure_tls")
ESCAPES = ("url", "base64", "json", "address", "local", "domain")
VALUES = "values."
"""Begins the name of what a provider says besides: ``{values.region}``."""

_OWN = re.compile(r"values\.[A-Za-z_][A-Za-z0-9_-]*")

_PIECE = re.compile(r"(?P<brace>\{\{|\}\})|\{(?P<slot>[^{}]*)\}|(?P<text>[^{}]+)|(?P<stray>[{}])")


class WrongTemplate(ValueError):
    """A text that is no template. The message never repeats the text, which may hold a secret."""

    def __init__(self, summary: str, hint: str) -> None:
        super().__init__(summary)
        self.summary = summary
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Slot:
    """A place to fill: one of `NAMES` or ``values.NAME``, and how the value is written, as `escaped` has it."""

    name: str
    escape: str = ""


Part = str | Slot


def split(text: str) -> tuple[Part, ...]:
    """Split a template into texts and slots; ``{{`` and ``}}`` are braces. Raises `WrongTemplate`."""
    parts: list[Part] = []
    for piece in _PIECE.finditer(text):
        if piece["stray"]:
            raise WrongTemplate(f"has a single {piece['stray']}", f"write {piece['stray'] * 2} for a brace")
        part = _slot(piece["slot"]) if piece["slot"] is not None else (piece["text"] or piece["brace"][0])
        if isinstance(part, str) and parts and isinstance(parts[-1], str):
            parts[-1] += part
        else:
            parts.append(part)
    return tuple(parts)


def _slot(text: str) -> Slot:
    name, _, escape = text.partition("|")
    if name not in NAMES and not _OWN.fullmatch(name):
        known = ", ".join(f"{{{known}}}" for known in (*NAMES, "values.NAME"))
        raise WrongTemplate("has braces around what is no name", f"known are {known}; write {{{{ and }}}} for braces")
    if "|" in text and escape not in ESCAPES:
        known = ", ".join(f"{{{name}|{known}}}" for known in ESCAPES)
        raise WrongTemplate(f"has an unknown escape for {{{name}}}", f"known are {known}")
    return Slot(name, escape)


def slots(text: str) -> frozenset[str]:
    """Name the slots of a template. Raises `WrongTemplate`."""
    return frozenset(part.name for part in split(text) if isinstance(part, Slot))


def filled(text: str, said: Mapping[str, str]) -> str:
    """Fill a template with what its slots stand for."""
    return "".join(item if isinstance(item, str) else escaped(said[item.name], item.escape) for item in split(text))


def escaped(value: str, escape: str) -> str:
    """Write a value as an escape says.

    That is percent-encoded (``url``, RFC 3986), in Base64 (RFC 4648 section 4), or as it stands between the quotes of a
    string in JSON (RFC 8259 section 7). Of a mailbox (RFC 5322 section 3.4) it is the address alone, or a part of that.
    """
    if escape == "url":
        from urllib.parse import quote

        return quote(value, safe="")
    if escape == "base64":
        from base64 import b64encode

        return b64encode(value.encode(errors="surrogateescape")).decode()
    if escape == "json":
        import json

        return json.dumps(value, ensure_ascii=False)[1:-1]
    if escape in ("address", "local", "domain"):
        from email.utils import parseaddr

        address = parseaddr(value)[1]
        local, _, domain = address.rpartition("@")
        return {"address": address, "local": local, "domain": domain}[escape]
    return value
