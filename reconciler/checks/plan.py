"""Whether the systems are as the directory says: the first thing to know."""

from __future__ import annotations

from reconciler.address import Address
from reconciler.checks.check import Check, Remedy, Status, Unread, Verdict, error, ok, told, warn
from reconciler.checks.evidence import Evidence
from reconciler.plan import Plan
from reconciler.problem import Severity
from reconciler.resources import Signature

_SHOWN = 5  # changes that are named; `plan` lists all


def plan(evidence: Evidence) -> Plan | Unread:
    """Take the plan."""
    return evidence.plan


def _readable(plan: Plan) -> Verdict:
    fine = "every declared system answered, and could be read whole"
    if not plan.unread and not plan.errors:
        return ok(fine, *plan.head)
    return told(plan.errors, fine) if plan.errors else error(f"could not be read: {', '.join(sorted(plan.unread))}")


def _lost(plan: Plan) -> Verdict:
    if not plan.lost:
        return ok("no system has lost what it was given")
    known = f", which was whole on {plan.last_whole}" if plan.last_whole else ""
    named = " and ".join(sorted(plan.lost))
    return error(f"{named} holds nothing of what is declared{known}", *map(str, plan.causes), remedy=_apply(""))


def _as_desired(plan: Plan) -> Verdict:
    changes = [item for item in plan.changes if item.target not in plan.lost]
    if not changes:
        return ok(f"{plan.unchanged:,} resources are as declared")
    mail = [item for item in changes if item.target != "cloudflare" or item.address in plan.drift]
    named = [f"{item.address}: {item.reason.words}" for item in changes[:_SHOWN]]
    rest = [f"and {len(changes) - _SHOWN} more"] if len(changes) > _SHOWN else []
    say = error if mail else warn
    count = f"{len(changes):,} resource{'s are' if len(changes) > 1 else ' is'} not as declared"
    return say(count, *named, *rest, remedy=_apply(changes[0].address if len(changes) == 1 else ""))


def _refused(plan: Plan) -> Verdict:
    return told(plan.refused, "nothing that is declared is refused")


def _keys(plan: Plan) -> Verdict:
    """Tell what a plan warns of about keys, such as a private half that is not there."""
    warnings = (item for item in plan.problems if item.severity is Severity.WARNING)
    found = [item for item in warnings if Address.parse(item.where).kind == Signature.kind]
    return told(found, "no plan warns of a key", Status.WARN)


def _apply(address: str) -> Remedy:
    return Remedy("see `reconciler plan`, then apply it", "reconciler apply", address)


CHECKS = (
    Check(
        "plan/readable",
        "commands end with 1, the daemon says that it can't read a system",
        "a system does not answer, or refuses the login",
        "start it, or correct its entry under targets",
        "docs/getting-started.md",
        plan,
        _readable,
    ),
    Check(
        "plan/lost",
        "nobody can log in any more, mail is unsigned, settings are those of a fresh server",
        "the container was recreated and its data lay in no volume",
        "apply brings accounts, keys and settings back; then mend the volume",
        "docs/stalwart-releases.md",
        plan,
        _lost,
    ),
    Check(
        "plan/as-declared",
        "something was changed by hand, or was never applied",
        "the live systems differ from the directory",
        "see `reconciler plan`, then apply it",
        "docs/getting-started.md",
        plan,
        _as_desired,
    ),
    Check(
        "plan/keys",
        "nothing yet: a mail server that is lost comes back without its key, and mail is unsigned",
        "the private half of a key can't be read, or the key signs before it is visible",
        "do what its remedy says; a key whose private half is gone for good is rotated",
        "docs/dkim.md",
        plan,
        _keys,
    ),
    Check(
        "plan/refused",
        "apply ends with 4 and changes nothing",
        "a guard forbids what the directory wants",
        "do what its remedy says, or allow it with the option that it names",
        "README.md",
        plan,
        _refused,
    ),
)
