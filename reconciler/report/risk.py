"""What of the flow of mail a plan touches, in a word for each change: what a reviewer has to look at first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from reconciler.dns.records import policy
from reconciler.dns.text import is_key_name
from reconciler.plan import Plan
from reconciler.resources import Record
from reconciler.target import Change

_ROUTES = frozenset({"MX", "SRV", "TLSA"})
_JUDGED_ANEW = frozenset({"MX", "TLSA", "SPF", "DMARC", "MTA-STS"})  # a first one changes what becomes of mail, too


def touched(plan: Plan) -> dict[str, str]:
    """Map the addresses of changes that touch the flow of mail to what of it: ``MX``, ``password``, ``listener``."""
    exchanges = _exchanges(plan)
    return {change.address: word for change in plan.changes if (word := _word(change, exchanges))}


def line(plan: Plan, words: Collection[str]) -> str:
    """Say in one line what is at risk, of the ``words`` of all changes; empty for nothing."""
    gone, due = (sum(getattr(change, name) for change in plan.changes) for name in ("deletes", "restarts"))
    counted = Counter(words)
    parts = [f"{gone:,} {'deletion' if gone == 1 else 'deletions'}"] if gone else []
    named = ", ".join(f"{word} × {number:,}" if number > 1 else word for word, number in sorted(counted.items()))
    parts += [f"the flow of mail ({named})"] if named else []
    parts += [f"{due:,} {'restart' if due == 1 else 'restarts'}"] if due else []
    return " · ".join(parts)


def _word(change: Change, exchanges: Collection[str]) -> str:
    if change.restarts:
        return ""
    before = change.before.resource if change.before else None
    records = [item for item in (before, change.after) if isinstance(item, Record)]
    if not records:
        return change.resource.touches(tuple(change.fields), new=before is None)
    words = [word for item in records if (word := _record(item, exchanges))]
    return next((word for word in words if before is not None or word in _JUDGED_ANEW), "")


def _record(record: Record, exchanges: Collection[str]) -> str:
    if record.type in _ROUTES:
        return record.type
    if is_key_name(record.name):
        return "DKIM"
    if (found := policy(record)) is not None:
        return found.label
    return "mail host" if record.host in exchanges else ""


def _exchanges(plan: Plan) -> frozenset[str]:
    """Name the hosts that mail goes to, as it is and as it should be."""
    both = ((wanted, live.resource if live else None) for _, wanted, live in plan.compared)
    changed = ((change.after, change.before.resource if change.before else None) for change in plan.changes)
    records = (item for pair in (*both, *changed) for item in pair if isinstance(item, Record))
    return frozenset(str(item.content) for item in records if item.type == "MX")
