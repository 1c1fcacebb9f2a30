"""One thing in an application's own words: which of several values holds, by what the provider in use is like. Pure.

``{starttls: starttls, implicit: force_tls, none: "off"}`` is a `Choice` by the provider's TLS mode; there are those by
whether its certificate is verified, and by whether one logs in at all. What stands inside may be a choice again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from reconciler.desired import template
from reconciler.resources import SecretRef

STARTTLS, IMPLICIT, NO_TLS = "starttls", "implicit", "none"
CHOICES = {
    "TLS mode": (STARTTLS, IMPLICIT, NO_TLS),
    "verification": ("verified", "unverified"),
    "login": ("login", "anonymous"),
}
OPTIONS = tuple(option for options in CHOICES.values() for option in options)


@dataclass(frozen=True, slots=True)
class Choice:
    """Values of which one holds: each with its word out of those that ``by``, a key of `CHOICES`, has."""

    by: str
    options: tuple[tuple[str, Value], ...]

    def __str__(self) -> str:
        """Render as it stands in the YAML."""
        return f"{{{', '.join(f'{word}: {value}' for word, value in self.options)}}}"


Value = str | SecretRef | Choice
"""What a variable is given: a template, a reference to a secret, or a choice of them."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a provider is like, as far as a choice goes by it. ``tls`` is one of the words for the TLS mode."""

    tls: str
    verified: bool
    login: bool

    def word(self, by: str) -> str:
        """Return the word that a choice is made by."""
        return {
            "TLS mode": self.tls,
            "verification": "verified" if self.verified else "unverified",
            "login": "login" if self.login else "anonymous",
        }[by]


def is_choice(value: Any) -> bool:
    """Whether a map in the YAML is meant as a choice."""
    return isinstance(value, Mapping) and any(key in OPTIONS for key in value)


def read(value: Any, leaf: Callable[[Any], str | SecretRef] = str) -> Value:
    """Read what stands in the YAML; ``leaf`` reads what is no choice. Raises `template.WrongTemplate`."""
    if not is_choice(value):
        return leaf(value)
    by = next(name for name, options in CHOICES.items() if any(key in options for key in value))
    strays = [key for key in value if key not in CHOICES[by]]
    if strays:
        known = " or ".join(f"{{{', '.join(f'{word}: ...' for word in options)}}}" for options in CHOICES.values())
        raise template.WrongTemplate(f"mixes words of a choice by {by} with others", f"write {known}")
    return Choice(by, tuple((word, read(item, leaf)) for word, item in value.items()))


def choose(value: Value, terms: Terms) -> str | SecretRef | Choice:
    """Return the value that holds; the choice itself where it has none for these terms."""
    if not isinstance(value, Choice):
        return value
    found = next((item for word, item in value.options if word == terms.word(value.by)), None)
    return value if found is None else choose(found, terms)


def leaves(value: Value) -> Iterator[str | SecretRef]:
    """Yield every value that may hold."""
    if isinstance(value, Choice):
        for _, item in value.options:
            yield from leaves(item)
    else:
        yield value


def slots(value: Value) -> frozenset[str]:
    """Name the slots of all templates in a value."""
    return frozenset().union(*(template.slots(item) for item in leaves(value) if isinstance(item, str)))


def is_filled(value: Value) -> bool:
    """Whether a value needs a provider: it has a slot, or is a choice."""
    return isinstance(value, Choice) or bool(slots(value))


def names_tls(value: Value) -> bool:
    """Whether a value says the TLS mode of whatever provider is in use."""
    if isinstance(value, Choice):
        return value.by == "TLS mode" or any(names_tls(item) for _, item in value.options)
    return "tls" in slots(value)
