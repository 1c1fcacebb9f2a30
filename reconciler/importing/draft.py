"""What an import is going to write, as it grows: secrets for the store, and what a person has to know."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError

from reconciler.desired.yaml import is_text
from reconciler.guards.secrets import PUBLIC_SECRETS
from reconciler.problem import Problem, ReconcilerError, Severity
from reconciler.resources import SecretRef
from reconciler.secrets.store import Store, unkept

_LONGEST = 190  # bytes of a name: a store takes 200 characters and a file system 255 bytes


@dataclass(slots=True)
class Draft:
    """What was decided so far. ``hide`` is told every secret, for the fence round what is printed."""

    store: Store
    hide: Callable[[SecretRef, str], None] = lambda _ref, _value: None
    secrets: dict[str, str] = field(default_factory=dict, repr=False)
    notes: list[Problem] = field(default_factory=list)

    def keep(self, name: str, value: str) -> SecretRef:
        """Have a secret stored once everything is decided, and return its reference. A value keeps its name."""
        name = _file_name(name)
        ref = self.store.reference(name)
        new = name not in self.secrets
        if self.secrets.setdefault(name, value) != value:
            hint = "rename the account, key or service that one of them is of"
            raise ReconcilerError(Problem(str(ref), "two secrets would have this name", hint))
        self.hide(ref, value)
        if new and hashlib.sha256(value.encode()).hexdigest() in PUBLIC_SECRETS:
            hint = "set a new one where it is used, and put that there: until then every plan is refused"
            self.note(str(ref), "is imported, and is publicly known", hint)
        return ref

    def keeps(self, where: str, value: str) -> bool:
        """Whether a secret can be kept; say why not: one value never costs the others."""
        if why := unkept(value):
            self.note(where, f"left out: {why}", "put it into the directory by hand, or correct it where it is")
        return not why

    def note(self, where: str, summary: str, hint: str = "") -> None:
        """Tell of something that is not in the directory, or not as a restore needs it."""
        self.notes.append(Problem(where, summary, hint, Severity.WARNING))

    def fits(self, where: str, form: Any, value: Any) -> bool:
        """Whether the directory takes a value for one of its models or types; say why not."""
        if not all(map(is_text, _texts(value))):
            self.note(where, "left out, as the directory can't say it: it holds a NUL or half a character")
            return False
        try:
            _adapter(form).validate_python(_as_read(value))
        except ValidationError as error:
            wrong = error.errors(include_url=False, include_input=False, include_context=True)
            told = [item[1] for part in wrong for item in part.get("ctx", {}).get("errors", ())]
            self.note(where, f"left out, as the directory can't say it: {told[0] if told else wrong[0]['msg']}")
            return False
        return True


def _as_read(value: Any) -> Any:
    """Return a value as the directory is read: of each number, and of true and false, the text that is written."""
    if isinstance(value, Mapping):
        return {name: _as_read(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_read(item) for item in value]
    return str(value).lower() if isinstance(value, bool | int | float) else value


def _texts(value: Any) -> Iterator[str]:
    """Yield each text in a value, those of its keys too."""
    left = [value]
    while left:
        item = left.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, Mapping):
            left += (*item, *item.values())
        elif isinstance(item, Sequence):
            left += item


@functools.cache
def _adapter(form: Any) -> TypeAdapter[Any]:
    return TypeAdapter(form)  # building one takes milliseconds, and a zone has thousands of records


def _file_name(name: str) -> str:
    """Make a name that any store takes, as that of a file or a key; one that had to change keeps apart from others."""
    text = re.sub(r"[\s/\[\]\"'\\\0]", "-", name)
    text = text if text[:1].isalnum() else f"x{text}"
    text = text.encode(errors="replace")[:_LONGEST].decode(errors="ignore")
    return text if text == name else f"{text}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"
