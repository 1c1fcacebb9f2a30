"""BIMI assertion records (draft-brand-indicators-for-message-identification, section 4.3) as values. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from reconciler.dns.policies import tags
from reconciler.dns.policies.reading import Fault, Reading, is_printable
from reconciler.dns.policies.tags import Grammar, Tag

_GRAMMAR = Grammar("v=BIMI1", ("l", "a", "avp", "lps"), names="[A-Za-z][A-Za-z0-9_]*", folded=True, spaced=True)
_URL = re.compile(r"https://[A-Za-z0-9.\[\]:-]+(/[^\s,]*)?", re.IGNORECASE)
_NAMED = re.compile(r"https://(?=[^/]*[A-Za-z])[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+(:\d+)?(/[^\s,]*)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Bimi:
    """Where a logo and its evidence are, as URLs; without a ``logo`` the domain says that it shows none."""

    logo: str
    evidence: str


def parse(text: str, _name: str = "") -> Reading[Bimi]:
    """Read an assertion record."""
    listed, faults, versioned = tags.read(text, _GRAMMAR)
    found = tags.by_name(listed)
    for tag in listed:
        faults += _judge(tag)
    if "l" not in found:
        hint = "write l= with the URL of the logo, or an empty l= to show none"
        faults.append(Fault("", "has no l=, the logo", hint, breaks=False))
    return Reading(_value(found) if versioned else None, tuple(faults))


def _judge(tag: Tag) -> Iterator[Fault]:
    if not is_printable(tag.piece.replace("\t", " ")):
        yield tag.fault("holds a character that can't stand here", "write it in printable ASCII")
    elif tag.name == "avp":
        yield from tags.one_of(tag, ("brand", "personal"))
    elif tag.name in ("l", "a") and tag.value and not (_URL if tag.name == "l" else _NAMED).fullmatch(tag.value):
        secure = tag.value.replace("http://", "https://", 1)
        instead = secure if secure != tag.value and _NAMED.fullmatch(secure) else None
        yield tag.fault("is no URL that begins with https://", "write it like https://example.com/logo.svg", instead)


def _value(found: Mapping[str, Tag]) -> Bimi:
    values = {tag.name: tag.value for tag in found.values()}
    return Bimi(values.get("l", ""), values.get("a", ""))
