"""How people name a thing: ``account/noreply@mana.how``, ``dns/mana.how/TXT/@[spf1]``. Nothing else cuts addresses."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from reconciler.resources import KINDS

_TARGETS = {kind.kind: kind.target for kind in KINDS}
# How many parts stand behind a kind. The last takes what is left: the name of a record (RFC 2317) or of a setting may
# hold slashes, and a network does.
_PARTS = {kind.kind: len(kind.identity) for kind in KINDS} | {"stalwart": 2}


@dataclass(frozen=True, slots=True)
class Address:
    """A kind and what names a thing of it, as the parts between slashes; the fewer parts, the more it means.

    ``value`` is the head of a record's value, in brackets where several share type and name.
    """

    kind: str
    parts: tuple[str, ...] = ()
    value: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an address, or the beginning of one. Any text can be read; `str` gives it back."""
        kind, slash, rest = text.partition("/")
        if not slash:
            return cls(kind)
        parts = rest.split("/", _PARTS.get(kind, 1) - 1)
        name, bracket, value = parts[-1].partition("[")
        if kind == "dns" and bracket and value.endswith("]") and len(value) > 1:
            return cls(kind, (*parts[:-1], name), value[:-1])
        return cls(kind, tuple(parts))

    def __str__(self) -> str:
        """Render as people write it."""
        return "/".join((self.kind, *self.parts)) + (f"[{self.value}]" if self.value else "")

    @property
    def target(self) -> str | None:
        """The name of the target whose thing it is; None where no kind is called so."""
        return _TARGETS.get(self.kind)

    @property
    def name(self) -> str:
        """All that stands behind the kind."""
        return str(self).partition("/")[2]

    @property
    def parent(self) -> Address:
        """What it belongs to: ``smtp/SERVICE``, ``dns/ZONE``, ``dkim/DOMAIN``; an account is by itself."""
        return Address(self.kind, self.parts[:1])

    @property
    def place(self) -> Address:
        """Where it stands, whatever its value."""
        return Address(self.kind, self.parts)

    def meant_by(self, text: str) -> bool:
        """Whether a person's text means this thing: its address, the beginning of one, or a pattern with ``*``.

        What a name holds itself counts first: ``dns/mana.how/A/*.dev`` is a record.
        """
        text = text.rstrip("/") or text
        if self.within(Address.parse(text)):
            return True
        if "*" not in text:
            return False
        pattern = ".*".join(map(re.escape, text.split("*")))
        return re.fullmatch(rf"{pattern}(?:[/\[].*)?", str(self)) is not None

    def within(self, other: Address) -> bool:
        """Whether the other address means this thing, too: it is the same, or lies below it."""
        own, wider = str(self), str(other)
        return own == wider or own.startswith((f"{wider}/", f"{wider}["))


def target_of(scope: str) -> str:
    """Return the name of the target that a scope is a part of, or is; a text that is no scope gives itself."""
    return Address.parse(scope).target or scope
