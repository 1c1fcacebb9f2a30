"""Deletions that follow from absence: how many may go at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from reconciler.guards.evidence import Evidence, refuse, warn
from reconciler.problem import Problem


def nothing_desired(evidence: Evidence) -> Iterator[Problem]:
    """A directory that declares nothing, while something of ours is live, is a mistake and never a wish."""
    if not evidence.desired.resources and evidence.plan.owned:
        count = sum(evidence.plan.owned.values())
        hint = "check RECONCILER_STATE and the last commit; to give the stack up, remove the marks at Cloudflare"
        for scope in evidence.plan.owned:
            yield refuse(scope, f"the directory declares nothing, but {count} live records are ours", hint, scope)


def too_many_deletions(evidence: Evidence) -> Iterator[Problem]:
    """No more deletions than the policy or a person allows."""
    deletions = evidence.deletions()
    allowed = evidence.policy.allow_deletes
    limit = evidence.policy.max_deletes if allowed is None else max(allowed, evidence.policy.max_deletes)
    if len(deletions) > limit:
        source = "policy.max_deletes" if allowed is None else "--allow-deletes"
        for scope in sorted({change.resource.scope for change in deletions}):
            yield refuse(
                scope,
                f"the plan deletes {len(deletions)} resources, {source} allows {limit}",
                f"if that is meant: reconciler apply --allow-deletes {len(deletions)}",
                scope,
            )


def zone_collapses(evidence: Evidence) -> Iterator[Problem]:
    """Two or more deletions that are more than half of our records in a zone, or all of them, need a person's word."""
    total = len(evidence.deletions())
    if (evidence.policy.allow_deletes or 0) >= max(total, 1):
        return
    kept = Counter(item.scope for item in evidence.desired.resources)
    for zone, count in sorted(Counter(change.resource.scope for change in evidence.deletions()).items()):
        ours = evidence.plan.owned.get(zone, 0)
        collapse = count > 1 and count * 2 > ours
        if collapse or (not kept[zone] and count == ours):
            what = "all" if count == ours else f"{count} of {ours}"
            hint = f"if that is meant: reconciler apply --allow-deletes {total}"
            yield refuse(zone, f"the plan deletes {what} of our records in this zone", hint, zone)


_SHOWN = 12  # addresses that a warning lists


def anothers_records(evidence: Evidence) -> Iterator[Problem]:
    """Records with our mark that this directory neither wrote nor ever declared are those of another with its name."""
    past, stack = evidence.past, evidence.plan.stack
    unwritten = {address: item for address, item in evidence.leaving().items() if item not in past.applied}
    never = sorted(address for address, item in unwritten.items() if item not in (past.committed or ()))
    if past.committed is not None and len(never) * 2 > len(unwritten):
        more = f" and {len(never) - _SHOWN} more" if len(never) > _SHOWN else ""
        summary = f"would go, and were never written or declared from here: {', '.join(never[:_SHOWN])}{more}"
        hint = f"does another directory say `stack: {stack}`, too? Then give one of them a name of its own"
        yield warn(f"stack {stack}", summary, hint)
