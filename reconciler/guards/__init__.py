"""Reasons to refuse a plan. Pure: every guard looks at values and returns problems; none writes or asks.

A guard refuses a scope (a target, a zone, a service). A person's `apply` then writes nothing at all and ends with 4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from reconciler.dns.publication import Question, question
from reconciler.guards import accounts, deletions, dkim, dns, doors, identity, secrets
from reconciler.guards.evidence import Evidence
from reconciler.guards.identity import zone_meant
from reconciler.problem import Problem
from reconciler.resources import Resource

__all__ = ["GUARDS", "check", "questions", "remembered", "zone_meant"]

GUARDS: tuple[Callable[[Evidence], Iterator[Problem]], ...] = (
    deletions.nothing_desired,
    deletions.too_many_deletions,
    deletions.zone_collapses,
    deletions.anothers_records,
    identity.address_moves,
    identity.left_behind,
    identity.domain_unknown,
    identity.stack_renamed,
    accounts.domain_in_use,
    accounts.address_taken,
    accounts.domain_taken,
    accounts.group_in_use,
    accounts.account_goes,
    accounts.own_access,
    doors.own_door,
    dns.second_policy,
    dns.unreadable_policy,
    dns.exchange_reachable,
    dns.service_reachable,
    dns.host_missing,
    dns.delegation_missing,
    dkim.selector_still_signs,
    dkim.selector_still_needed,
    dkim.takes_over_unpublished,
    dns.provider_unpublished,
    secrets.administrator_as_consumer,
    secrets.known_secret,
    secrets.everyone_allowed,
)


def check(evidence: Evidence) -> tuple[Problem, ...]:
    """Return every reason to refuse, and every warning, that the guards find."""
    return tuple(dict.fromkeys(problem for guard in GUARDS for problem in guard(evidence)))


def questions(evidence: Evidence) -> frozenset[Question]:
    """Return what guards have to know from the authoritative name servers; mostly nothing."""
    return frozenset(question(record) for record in (*dkim.asked(evidence), *dns.asked(evidence)))


def remembered(evidence: Evidence) -> tuple[frozenset[Resource], frozenset[Resource]]:
    """Return of what guards have to know whether it was applied from here, and of which of it whether commits tell.

    Commits are many: they are read only where something goes, or would be made a second time.
    """
    records = frozenset(evidence.leaving().values())
    boxes = frozenset(evidence.undeclared())
    return boxes | records, records | (boxes if any(identity.heirs(evidence)) else frozenset())
