"""Approval of each change by itself, where `policy.approval` is `plan`. Pure.

A change goes through where a plan that was approved has it (with the same address, before and after; of secrets the
same references), where a person names its fingerprint, or where it heals: the directory as it was before would have it
made as well, with the same values of secrets. Others are held. What belongs together is held together, and meanwhile is
healed to what was desired before: neither is a lost account missing nor a hand edit in force because somebody has yet
to approve another value.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from reconciler.plan import Approved, Plan, fingerprint
from reconciler.problem import Problem, Severity
from reconciler.resources import UNMANAGED, Account, SecretRef, Variable
from reconciler.target import Change

SHOWN = 16
"""Characters of a fingerprint that are shown to a person, and that one has to name at least."""


@dataclass(frozen=True, slots=True)
class Approvals:
    """All that was approved: whole plans, and fingerprints that a person named, or how they begin.

    A fingerprint is that of a change, or of a plan, for all of it. ``accepted`` are addresses at which what is wanted
    was approved and in force before: what differs there heals. ``command`` is how a person approves.
    """

    plans: Sequence[Approved] = ()
    named: frozenset[str] = frozenset()
    accepted: frozenset[str] = frozenset()
    command: str = "reconciler apply --approve"


def sealed(plan: Plan, broken: Mapping[SecretRef, str]) -> Plan:
    """Return a plan whose changes say which secrets they set anew that have another value than was agreed.

    ``broken`` are those secrets, with the seals of what they are now. What is created gets what is there: of the value
    before nothing is known, and an account that was lost does not wait.
    """
    if not broken:
        return plan
    return replace(plan, changes=tuple(_sealed(change, broken) for change in plan.changes))


def _sealed(change: Change, broken: Mapping[SecretRef, str]) -> Change:
    found = {ref: broken[ref] for ref in change.replaced if ref in broken}
    return replace(change, unsealed=tuple(sorted(found.items(), key=str))) if found else change


def judged(plan: Plan, former: Plan | None, approvals: Approvals, moved: Collection[str] = ()) -> Plan:
    """Return a plan with what of it is held, and with what is done in place of that.

    ``former`` is what the directory as it was before would have done now; None where that is not known: then nothing
    heals. ``moved`` are targets that are another system now than they were then: neither did the approved plan look at
    that one, nor is there anything to heal. A due restart is never held: what it puts in force is stored already.
    """
    healing = _Healing(item for item in (former.changes if former else ()) if item.target not in moved)
    changes = [healing.as_then(change) for change in plan.changes]
    judge = _Judge(plan, approvals, frozenset(moved))
    known = {change.address for change in changes if healing.has(change) or change.address in approvals.accepted}
    why = {change.address: judge.why(change) for change in changes if change.unsealed or change.address not in known}
    held = {address: words for address, words in why.items() if words}
    while more := dict(_drawn([change for change in changes if change.address in why], held)):
        held |= more
    reasons = [_problem(judge, change, held[change.address]) for change in changes if change.address in held]
    companies = {change.resource.company for change in changes if change.address in held}
    given = {change.address for change in changes if change.address not in held}
    open_ = (item for item in healing.changes if item.resource.company in companies and item.address not in given)
    instead = [left for item in open_ if (left := _without_unsealed(item)) is not None]
    waiting = {ref for change in changes if change.address in held for ref, _ in change.unsealed}
    # What would go is left to a person: no guard has looked at it beside the rest.
    return replace(
        plan,
        changes=tuple(_untried(item, waiting) for item in changes),
        held=tuple(reasons),
        instead=tuple(_untried(item, waiting) for item in instead if not item.deletes),
    )


def _without_unsealed(change: Change) -> Change | None:
    """Return what heals without setting a secret that nobody agreed to; None where nothing is left of it."""
    if not change.unsealed:
        return change
    if not isinstance(change.after, Account):
        return None
    left = replace(change, after=replace(change.after, password=UNMANAGED), unsealed=())
    return left if left.fields else None


def _untried(change: Change, waiting: Collection[SecretRef]) -> Change:
    """Let no password be tried that waits: what the service goes on with is the one that it has, which nobody knows."""
    after = change.after
    if not isinstance(after, Variable) or after.login is None or after.login.password not in waiting:
        return change
    return replace(change, after=replace(after, login=replace(after.login, password=None)))


def unmatched(plan: Plan, named: Collection[str]) -> Iterator[Problem]:
    """Refuse a fingerprint that a person named and that is no change's of a plan, or of several."""
    hint = "read the plan as it is now, and name what it shows"
    for item in sorted(named):
        found = [change for change in plan.changes if fingerprint(plan.stack, change).startswith(item)]
        if len(found) > 1:
            shown = " and ".join(change.address for change in found)
            yield Problem(f"--approve {item}", f"means more than one change: {shown}", "name more of it", _REFUSED)
        elif not found and not plan.fingerprint.startswith(item):
            summary = "is the fingerprint of no change that is due: what is live, or wanted, is another by now"
            yield Problem(f"--approve {item}", summary, hint, _REFUSED)


_REFUSED = Severity.REFUSED


class _Healing:
    """What the directory as it was before would do now."""

    def __init__(self, changes: Iterable[Change]) -> None:
        self.changes = tuple(changes)
        self._groups = defaultdict[tuple[str, ...], list[Change]](list)
        for change in self.changes:
            self._groups[change.resource.group].append(change)

    def has(self, change: Change) -> bool:
        """Whether it would do this, whatever it is called: the name of one of several values follows from the others.

        A due restart it always does: what that puts in force is stored already.
        """
        return change.restarts or self._find(change) is not None

    def as_then(self, change: Change) -> Change:
        """Let what heals need what it needed then, and be tried with the login of then: nothing that waits now."""
        former = self._find(change)
        return change if former is None else replace(change, needs=former.needs, after=former.after)

    def _find(self, change: Change) -> Change | None:
        return next((item for item in self._groups.get(change.resource.group, ()) if _alike(item, change)), None)


def _alike(one: Change, other: Change) -> bool:
    """Whether two changes do the same to the same, with the same secrets, which no live resource is compared by."""
    return _deed(one) == _deed(other)


def _deed(change: Change) -> tuple[object, ...]:
    names = ("private_key", "candidates", "clear")
    return (change.actions, change.before, change.after, *(getattr(change.after, name, None) for name in names))


class _Judge:
    def __init__(self, plan: Plan, approvals: Approvals, moved: Collection[str]) -> None:
        self._stack, self.approvals, self._moved = plan.stack, approvals, moved
        self._all = any(plan.fingerprint.startswith(item) for item in approvals.named)
        self.prints = {change.address: fingerprint(plan.stack, change) for change in plan.changes}

    def why(self, change: Change) -> str:
        """Say why a change is not approved; empty where it is."""
        own = self.prints[change.address]
        if self._all or any(own.startswith(item) and self._alone(item) for item in self.approvals.named):
            return ""
        if change.target in self._moved:
            return f"is not approved: targets.{change.target} leads to another place than when it was planned"
        known = [found for item in self.approvals.plans if (found := item.get(change.address))]
        if any(self._is(change, *item) for item in known):
            return ""
        if change.unsealed:
            names = ", ".join(str(ref) for ref, _ in change.unsealed)
            return f"is not approved: {names} has another value than was agreed"
        if known:
            return "is not what was approved: what is live, or wanted, is another than in the plan"
        return "is not approved: no approved plan has it"

    def _alone(self, named: str) -> bool:
        return sum(item.startswith(named) for item in self.prints.values()) == 1

    def _is(self, change: Change, approved: str, unknown: frozenset[str]) -> bool:
        return approved in (self.prints[change.address], fingerprint(self._stack, change, unknown))


def _drawn(changes: Sequence[Change], held: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield what has to wait since something waits that it needs, or that it belongs together with."""
    company = defaultdict[tuple[str, ...], list[str]](list)
    for change in changes:
        if change.address in held:
            company[change.resource.company].append(change.address)
    for change in changes:
        if change.address in held:
            continue
        if needed := sorted(change.needs & held.keys()):
            yield change.address, f"needs {needed[0]}, which is held"
        elif beside := company.get(change.resource.company):
            yield change.address, f"belongs together with {beside[0]}, which is held"


def _problem(judge: _Judge, change: Change, why: str) -> Problem:
    hint = f"{judge.approvals.command} {judge.prints[change.address][:SHOWN]}"
    return Problem(change.address, why, hint, _REFUSED, change.address)
