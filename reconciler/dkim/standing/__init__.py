"""Whether directory, server and name servers agree about each DKIM key, and what to do where they don't. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Collection, Iterable

from reconciler.desired.resources import zone_of
from reconciler.desired.spec import Spec
from reconciler.desired.spec.mail import Key
from reconciler.dkim.standing.key import KeyFacts, txt_name
from reconciler.dkim.standing.verdict import Agrees, Finding, Mismatch, Shown, Signing, Standing
from reconciler.dns import host
from reconciler.dns.publication import Answers, Question
from reconciler.problem import Problem
from reconciler.resources import SecretRef, Signature

__all__ = ["Agrees", "Finding", "Mismatch", "Shown", "Signing", "Standing", "questions", "standings"]

PublicHalf = Callable[[SecretRef, str], str | Problem]
"""From a private key's reference and its algorithm to the public key, or why it can't be told."""


def questions(spec: Spec, server: Collection[Signature] | None) -> frozenset[Question]:
    """Return what to ask the name servers: the name of every key that is declared or that the server has."""
    return frozenset(Question(txt_name(*item), "TXT") for item in _entries(spec, server or ()))


def standings(
    spec: Spec,
    server: Collection[Signature] | None,
    answers: Answers,
    today: dt.date,
    half: PublicHalf | None = None,
) -> tuple[Standing, ...]:
    """Compare every key that is declared or that the server has, in the order of the directory.

    ``server`` is None where the server was not read. ``half`` derives the public half of a private key; without it no
    private key is looked at.
    """
    found = []
    for (domain, selector), entry in _entries(spec, server or ()).items():
        held = tuple(item for item in server or () if (item.domain, item.selector) == (domain, selector))
        private = entry.private_key if entry else None
        key = KeyFacts(
            domain=domain,
            selector=selector,
            entry=entry,
            held=None if server is None else held,
            half=half(private, entry.algorithm) if half and entry and private and entry.stage != "retired" else None,
            answers=answers.get(Question(txt_name(domain, selector), "TXT"), ()),
            today=today,
            zone=zone_of(domain, spec.dns) if spec.targets.cloudflare else None,
        )
        found.append(key.standing())
    return tuple(found)


def _entries(spec: Spec, server: Iterable[Signature]) -> dict[tuple[str, str], Key | None]:
    """Name every key by domain and selector: a domain's declared ones, then those that only the server has."""
    declared = {(host(domain), key.selector): key for domain, entries in spec.dkim.items() for key in entries}
    others = sorted({(item.domain, item.selector) for item in server} - declared.keys())
    domains = list(dict.fromkeys(domain for domain, _ in (*declared, *others)))
    names = sorted([*declared, *others], key=lambda name: domains.index(name[0]))  # stable
    return {name: declared.get(name) for name in names}
