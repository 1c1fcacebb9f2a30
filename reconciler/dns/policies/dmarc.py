"""DMARC policies (RFC 9989 section 4.7, which has no pct, rf and ri any more) as values. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from reconciler.dns.policies import reports, tags
from reconciler.dns.policies.reading import Fault, Reading, is_printable
from reconciler.dns.policies.tags import Grammar, Tag

_WORDS = {
    **dict.fromkeys(("p", "sp", "np"), ("none", "quarantine", "reject")),
    **dict.fromkeys(("adkim", "aspf"), ("r", "s")),
    "t": ("n", "y"),
    "psd": ("u", "n", "y"),
    "fo": ("0", "1", "d", "s", "d:s", "s:d"),
}
_GRAMMAR = Grammar(
    "v=DMARC1",
    ("p", "sp", "np", "rua", "ruf", "adkim", "aspf", "fo", "t", "psd"),
    names="[A-Za-z]+",
    gone={
        "pct": "a policy holds for all mail, and t=y asks for none of it yet (RFC 9989)",
        "rf": "reports have one format (RFC 9989)",
        "ri": "reports come once a day (RFC 9989)",
    },
    folded=True,
    spaced=True,
)
_REPORTS = "_report"  # the name of a record that lets others send reports here, RFC 9990 section 4


@dataclass(frozen=True, slots=True)
class Dmarc:
    """A policy as receivers take it: what is not said, or not understood, has its default.

    ``sp`` and ``np`` are what holds for sub-domains and for those that do not exist. ``testing`` is ``t=y``, ``psd``
    one of ``y n u``; ``rua`` and ``ruf`` are URIs as written. ``said`` are all tags as written, by their names.
    """

    p: str
    sp: str
    np: str
    adkim: str
    aspf: str
    fo: tuple[str, ...]
    testing: bool
    psd: str
    rua: tuple[str, ...]
    ruf: tuple[str, ...]
    said: Mapping[str, str]


def parse(text: str, name: str = "") -> Reading[Dmarc]:
    """Read a policy, given the name it stands at; no value where receivers ignore the text."""
    listed, faults, versioned = tags.read(text, _GRAMMAR)
    faults += tags.printed(listed)
    found = tags.by_name(listed)
    for tag in listed:
        faults += _JUDGES.get(tag.name, _nothing)(tag) if tag.value and is_printable(tag.value) else ()
    if "p" not in found and _REPORTS not in name.lower().split("."):
        hint = "write p=none, p=quarantine or p=reject behind v=DMARC1"
        faults.append(Fault("", "has no p=: receivers do nothing with mail that fails", hint, breaks=False))
    return Reading(_value(found) if versioned else None, tuple(faults))


def _nothing(_tag: Tag) -> Iterator[Fault]:
    yield from ()


def _word(tag: Tag) -> Iterator[Fault]:
    return tags.one_of(tag, _WORDS[tag.name])


def _reported(tag: Tag) -> Iterator[Fault]:
    return reports.judge(tag, ("mailto",), sized=True)


_JUDGES: Mapping[str, Callable[[Tag], Iterator[Fault]]] = {
    **dict.fromkeys(_WORDS, _word),
    **dict.fromkeys(("rua", "ruf"), _reported),
}


def _value(found: Mapping[str, Tag]) -> Dmarc:
    said = {tag.name: tag.value for tag in found.values()}
    words = {name: value.lower() for name, value in said.items() if value.lower() in _WORDS.get(name, ())}
    p = words.get("p", "none")
    sp = words.get("sp", p)
    return Dmarc(
        p=p,
        sp=sp,
        np=words.get("np", sp),
        adkim=words.get("adkim", "r"),
        aspf=words.get("aspf", "r"),
        fo=tuple(words.get("fo", "0").split(":")),
        testing=words.get("t") == "y",
        psd=words.get("psd", "u"),
        rua=reports.addresses(found["rua"]) if "rua" in found else (),
        ruf=reports.addresses(found["ruf"]) if "ruf" in found else (),
        said=said,
    )
