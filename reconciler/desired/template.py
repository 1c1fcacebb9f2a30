"""Templates such as ``smtp://{username|url}:{password|url}@{host}:{port}``: from text to parts, once and strictly."""

from __future__ import annotations

import re
from dataclasses import dataclass

NAMES = ("host", "port", "username", "password", "insecure_tls")
ESCAPES = ("url",)

_PIECE = re.compile(r"(?P<brace>\{\{|\}\})|\{(?P<slot>[^{}]*)\}|(?P<text>[^{}]+)|(?P<stray>[{}])")


class WrongTemplate(ValueError):
    """A text that is no template. The message never repeats the text, which may hold a secret."""

    def __init__(self, summary: str, hint: str) -> None:
        super().__init__(summary)
        self.summary = summary
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Slot:
    """A place to fill: one of `NAMES`, and how the value is escaped: as it is (``""``) or percent-encoded (``url``)."""

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
    if name not in NAMES:
        known = ", ".join(f"{{{known}}}" for known in NAMES)
        raise WrongTemplate("has braces around what is no name", f"known are {known}; write {{{{ and }}}} for braces")
    if "|" in text and escape not in ESCAPES:
        raise WrongTemplate(f"has an unknown escape for {{{name}}}", f"known is {{{name}|url}}")
    return Slot(name, escape)


def slots(text: str) -> frozenset[str]:
    """Name the slots of a template. Raises `WrongTemplate`."""
    return frozenset(part.name for part in split(text) if isinstance(part, Slot))
