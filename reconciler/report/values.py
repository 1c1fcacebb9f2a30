"""How one value is shown to a person: escaped, cut where it is long, and of a secret only its name."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

from reconciler.plan import sensitive
from reconciler.resources import (
    UNKNOWN,
    UNMANAGED,
    Different,
    Resource,
    Same,
    SecretRef,
    SecretText,
    Special,
    Unreadable,
)
from reconciler.secrecy import Withheld
from reconciler.target import Change

LONGEST = 120  # characters of one value on a line
HEAD, TAIL = 70, 30  # what is kept of a longer one
_CONTEXT = 20  # characters before the first difference of two long values
_NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
# Controls, invisible and bidirectional formats, surrogates, separators and odd blanks: what could forge a line or hide
# a part, or looks like what it is not.
_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"})


def escape(text: str) -> str:
    """Make every character visible that could move a cursor, break a line or reorder what is read."""
    if text.isprintable():  # none of them is
        return text
    return "".join(
        char if char == " " or unicodedata.category(char) not in _UNSAFE else _escaped(char) for char in text
    )


def _escaped(char: str) -> str:
    if char in _NAMED:
        return _NAMED[char]
    code = ord(char)
    if code < 0x100:  # noqa: PLR2004 (two hexadecimal digits)
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"  # noqa: PLR2004


def shorten(text: str) -> str:
    """Cut a long text in the middle and say how long it is."""
    if len(text) <= LONGEST:
        return text
    return f"{text[:HEAD]}…{text[-TAIL:]} ({len(text)} characters)"


def plain(value: Any) -> Any:
    """Return a value as JSON can hold it, without any secret: a reference as ``{env: NAME}``, a verdict as a word.

    What is not there (unmanaged, not known yet, another secret) is None.
    """
    match value:
        case Different() | Unreadable() | Special() | Withheld():
            return None
        case Same() | SecretRef() | SecretText():
            return str(value.ref if isinstance(value, Same) else value)
        case Mapping():
            return {str(name): plain(item) for name, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float) else str(value)


def secret(value: Any) -> bool:
    """Whether a value is a secret, or holds one somewhere inside."""
    if isinstance(value, Mapping):
        return any(secret(item) for item in value.values())
    if isinstance(value, list | tuple | set | frozenset):
        return any(secret(item) for item in value)
    return sensitive(value)


def sides(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return both sides of a change by their fields, and which of these are secrets or not known yet."""
    return {
        "before": _object(before),
        "after": _object(after),
        "before_sensitive": _mask(before),
        "after_sensitive": _mask(after),
        "after_unknown": {name: True for name, value in (after or {}).items() if value is UNKNOWN},
    }


def _object(fields: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if fields is None:
        return None
    return {name: _plain(name, value) for name, value in fields.items() if value is not UNMANAGED}


def _plain(name: str, value: Any) -> Any:
    if name == "data" and isinstance(value, tuple):
        return {key: plain(item) for key, item in value}
    return plain(value)


def _mask(fields: Mapping[str, Any] | None) -> dict[str, bool]:
    return {name: True for name, value in (fields or {}).items() if secret(value)}


def shown(name: str, value: Any) -> str:
    """Render a field's value for a person, on one line."""
    return shorten(_rendered(name, value))


def transition(name: str, before: Any, after: Any) -> str:
    """Render ``before → after``; of two long values the part that differs is shown."""
    old, new = _rendered(name, before), _rendered(name, after)
    short = shorten(old), shorten(new)
    if short[0] != short[1] or old == new:
        return f"{short[0]} → {short[1]}"
    start = max(_common(old, new) - _CONTEXT, 0)
    return f"…{shorten(old[start:])} → …{shorten(new[start:])}"


def _common(one: str, other: str) -> int:
    pairs = zip(one, other, strict=False)
    return next((index for index, (left, right) in enumerate(pairs) if left != right), min(len(one), len(other)))


def _rendered(name: str, value: Any) -> str:
    match value:
        case int() if name == "ttl" and value == 1:
            return "auto"  # Cloudflare's 1
        case int() if name == "quota":
            return _size(value)
        case str():
            return _quoted(escape(str(plain(value))))
        case Mapping():
            return "{" + ", ".join(f"{escape(str(key))}: {_rendered('', item)}" for key, item in value.items()) + "}"
        case list() | tuple() | set() | frozenset():
            return _listed(value)
    return escape(_word(value))


def _word(value: Any) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return "yes" if value else "no"
        case Different(compared=compared):
            return "another secret is set" if compared else "not compared under its old name"
        case Unreadable(why=why):
            return f"can't be told: {why}"
        case Special() | Withheld():
            return repr(value)
    return str(plain(value))


def _listed(value: Any) -> str:
    if value and all(isinstance(item, tuple) and len(item) == 2 for item in value):  # noqa: PLR2004 (name and value)
        return " ".join(f"{escape(str(key))}={_rendered('', item)}" for key, item in value)
    return "[" + ", ".join(_rendered("", item) for item in value) + "]"


def _quoted(text: str) -> str:
    if '"' in text:  # as a CAA's value has its own
        return f"'{text}'"
    return f'"{text}"' if not text or any(char in text for char in " ,'") else text


def _size(value: int) -> str:
    for unit, size in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if value and value % size == 0:
            return f"{value // size} {unit}"
    return f"{value} bytes"


# -------------------------------------------------------------------------------------------------- of a resource
def brief(resource: Resource) -> str:
    """Say in one line what a resource is, leaving out what its address says and what is at its default.

    Of a live one as `Change.live` has it: what is withheld of it is left out, too.
    """
    said = [item for item in resource.brief() if not isinstance(item.value, Withheld)]
    return ", ".join(escape(item.words) + ("" if item.name is None else shown(item.name, item.value)) for item in said)


def label(name: str) -> str:
    """Name a field as a person reads it."""
    return {"running": "running container", "configured": "env file", "open": "answers", "bind": "binds"}.get(
        name, name.replace("_", " ")
    )


def transitions(change: Change, show: Callable[[str, Any, Any], str] = transition) -> list[str]:
    """Render what an update changes, a text for each field."""
    fields = dict(change.fields)
    if fields.get("running") == fields.get("configured", ()):  # one value, wrong in both places
        return [show("", *fields["running"])]
    return [f"{label(name)}: {show(name, *pair)}" for name, pair in fields.items()]
