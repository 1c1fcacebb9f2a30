"""What comes of reading a policy's text: a value, and what is wrong, each fault with its piece and its remedy. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

MOST_FAULTS = 20  # of one text: nobody reads more, and a hostile text may hold thousands

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a text.

    ``piece`` is the very piece, which begins ``at`` that character, and ``cause`` the rest of a sentence about it; an
    empty piece is the text as a whole. ``instead`` is what is right in its place where that is evident (empty: nothing
    is), else ``hint`` says what to do. ``breaks`` says that the text is no policy by its grammar; otherwise it is one,
    and hardly says what is meant. ``in_name`` says that what is wrong is the name it stands at.
    """

    piece: str
    cause: str
    hint: str = ""
    at: int = 0
    instead: str | None = None
    breaks: bool = True
    in_name: bool = False


@dataclass(frozen=True, slots=True)
class Reading(Generic[T]):
    """A text that was read: the value, None where receivers take the text for none, and all that is wrong with it."""

    value: T | None
    faults: tuple[Fault, ...] = ()

    @property
    def is_valid(self) -> bool:
        """Whether the text is a policy by its grammar."""
        return self.value is not None and not any(fault.breaks for fault in self.faults)


def mended(text: str, faults: Iterable[Fault]) -> str:
    """Return a text with all that is evident put right; what is taken out goes with the separator before it."""
    evident = [fault for fault in faults if fault.instead is not None and not fault.in_name]
    parts: list[str] = []
    rest = len(text)
    for fault in sorted(evident, key=lambda item: (item.at, len(item.piece)), reverse=True):
        start, end = fault.at, min(fault.at + len(fault.piece), rest)
        if fault.piece and not fault.instead:
            start = len(text[:start].rstrip(" ;"))
        parts += [text[end:rest], fault.instead or ""] if start <= end else []
        rest = min(start, rest)
    return "".join(reversed([*parts, text[:rest]]))


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the one of some known words that another is most like; empty where it is like none."""
    from difflib import get_close_matches  # only mistakes ask

    word, names = word[:32].lower(), list(known)
    twisted = (name for name in names if sorted(name) == sorted(word))
    return next(twisted, "") or next(iter(get_close_matches(word, names, 1)), "")


def is_printable(text: str) -> bool:
    """Whether a text holds printable ASCII and blanks alone."""
    return re.search(r"[^ -~]", text) is None
