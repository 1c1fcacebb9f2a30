"""Asks DNS about the domains that mail goes by: each authoritative name server, and two public resolvers."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

from reconciler.checks import dns as judged
from reconciler.checks import spf
from reconciler.checks.check import Unread
from reconciler.checks.evidence import Names
from reconciler.desired.public_ip import Line
from reconciler.dns.publication import Answers, Question, question
from reconciler.dns.records import policy
from reconciler.doctor.together import together
from reconciler.names import host
from reconciler.plan import Plan
from reconciler.resources import Record, Signature
from reconciler.stack import Stack

_MOST = 12  # rounds of questions that answers lead to; SPF alone may take ten
_RESOLVERS = ("1.1.1.1", "8.8.8.8")
"""Two public resolvers of two owners; `RECONCILER_RESOLVERS` takes their place."""


def gather(stack: Stack, plan: Plan | Unread) -> Names | Unread | None:
    """Ask for all that the checks of DNS want to know; None where no domain has mail."""
    from reconciler.observe.line import line
    from reconciler.observe.nameservers import ready

    ready()
    domains = tuple(sorted(set(_domains(stack))))
    if not domains:
        return None
    declared = tuple(_declared(plan))
    hostname = stack.spec.stalwart.hostname
    server = host(hostname) if hostname else ""
    found = Names(domains, server, declared, {}, mailboxes=_mailboxes(stack, plan), keyed=_keyed(plan))
    asked = {question(item) for item in declared}
    # None of the three waits for the others: who tells the line's address may be slow, or away.
    settings = stack.settings
    asks = settings.router or settings.whoami or not settings.nameservers  # given ones stand for the Internet
    works: dict[str, Callable[[], Any]] = {
        "line": line(settings.router, settings.whoami) if asks else Line,
        "resolvers": lambda: _public(stack, asked),
        "answers": lambda: _answered(stack, found).answers,
    }
    return _answered(stack, replace(found, **together(works)))


def _answered(stack: Stack, found: Names) -> Names:
    """Ask what is not asked yet, and what the answers lead to."""
    for _ in range(_MOST):
        if not (missing := set(_wanted(found)) - found.answers.keys()):
            break
        known = {**dict.fromkeys(missing, ()), **stack.look(missing)}
        found = replace(found, answers={**found.answers, **known})
    return found


def _domains(stack: Stack) -> Iterator[str]:
    """Yield every domain that has an address or a key here."""
    spec = stack.spec
    for name in (name for entries in spec.addressees.values() for name in entries):
        if "@" in name:
            yield host(name.rpartition("@")[2])
    yield from map(host, spec.dkim)


def _declared(plan: Plan | Unread) -> Iterator[Record]:
    """Yield the wanted records that mail depends on: MX, and the policies by which receivers believe it."""
    if isinstance(plan, Unread):
        return
    for _, wanted, _ in plan.compared:
        if isinstance(wanted, Record) and (wanted.type == "MX" or policy(wanted) is not None):
            yield wanted


def _keyed(plan: Plan | Unread) -> frozenset[str] | None:
    """Name the domains for which a key signs: on the server, or as declared where there is none; None if unread."""
    if isinstance(plan, Unread) or "stalwart" in plan.unread:
        return None
    found = (live.resource if live else wanted for _, wanted, live in plan.compared)
    return frozenset(item.domain for item in found if isinstance(item, Signature))


def _mailboxes(stack: Stack, plan: Plan | Unread) -> frozenset[str]:
    """Name every address that exists on the server; nothing where it could not be read, or takes any address."""
    if isinstance(plan, Unread) or "stalwart" in plan.unread or "stalwart" not in stack.chosen:
        return frozenset()
    if any(entry.catch_all for entry in stack.spec.domains.values()):
        return frozenset()
    live = (item.resource for _, _, item in plan.compared if item is not None)
    return frozenset(address for item in live for address in item.mailboxes)


def _wanted(found: Names) -> Iterator[Question]:
    """Yield every question to ask; earlier answers lead to some of them."""
    for domain in found.domains:
        yield Question(domain, "MX")
        yield Question(domain, "TXT")
        yield Question(f"_dmarc.{domain}", "TXT")
        for target in judged.exchanges(found, domain):
            yield from (Question(target, kind) for kind in ("A", "AAAA"))
        yield from (Question(place, "TXT") for place in judged.authorisations(found, domain))
        yield from spf.evaluated(found, domain).missing
    yield from (question(item) for item in found.declared)
    if found.host:
        yield from (Question(found.host, kind) for kind in ("A", "AAAA"))
    if found.line.address and not found.line.useless:
        reverse = Question(ipaddress.ip_address(found.line.address).reverse_pointer, "PTR")
        yield reverse
        for name in judged.shown(found, reverse.host, "PTR").all:
            yield from (Question(name.rstrip("."), kind) for kind in ("A", "AAAA"))


def _public(stack: Stack, questions: Collection[Question]) -> Mapping[str, Answers]:
    """Ask public resolvers what they still remember; nobody where given name servers stand for the Internet."""
    from reconciler.observe.nameservers import remembered

    settings = stack.settings
    given = settings.resolvers or (() if settings.nameservers else _RESOLVERS)
    return remembered(questions, given)
