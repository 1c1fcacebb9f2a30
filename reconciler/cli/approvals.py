"""What an apply is told of approvals: plans that were approved, for which heads, and the revision before the merge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from reconciler import files
from reconciler.problem import InvalidDirectory, Problem, ReconcilerError, Refused, Severity

if TYPE_CHECKING:
    from reconciler.cli.session import Session
    from reconciler.desired.load import Directory
    from reconciler.plan import Approved, Plan
    from reconciler.report.json import Saved
    from reconciler.resources import SecretRef
    from reconciler.stack import Stack
    from reconciler.target import Outcome

_LARGEST = 64 << 20  # bytes of a plan
_SHORTEST = 7  # characters of a commit
_FINGERPRINT = 16  # characters of a fingerprint that are shown, and so the fewest that are taken


class Fingerprint(click.ParamType[str]):
    """A fingerprint, or how one begins."""

    name = "fingerprint"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check its form."""
        text = str(value).lower()
        if not (_FINGERPRINT <= len(text) <= 64 and set(text) <= set("0123456789abcdef")):  # noqa: PLR2004 (SHA-256)
            self.fail(f"is no fingerprint: it has {_FINGERPRINT} characters or more of 0 to 9 and a to f", param, ctx)
        return text


@dataclass(frozen=True, slots=True)
class Given:
    """What the command line says: files of plans, heads that were merged, the revision before, and fingerprints."""

    approved: Sequence[Path] = ()
    head: Sequence[str] = ()
    base: str | None = None
    approve: Sequence[str] = ()


def directory(session: Session, given: Given) -> tuple[Directory, Directory | None, frozenset[SecretRef]]:
    """Return the directory, under the tighter policy of the two, and as it was at the base where one is given.

    Last come the references to files of the repository that are others now than they were there.
    """
    now = session.directory()
    if given.base is None:
        return now, None, frozenset()
    from reconciler.daemon.taken import Limits
    from reconciler.desired.committed import Repository
    from reconciler.desired.load import load

    repository = Repository.holding(session.settings.state, session.settings.environ)
    with repository.at(given.base) as written:
        try:
            former = load(written.path)
        except InvalidDirectory as error:
            hint = "name the last revision that was valid with --base"
            problems = tuple(map(written.named, error.problems[:3]))
            raise ReconcilerError(Problem(given.base, "is no valid directory", hint), *problems) from None
    rewritten = repository.rewritten(given.base, now)
    return Limits.of(now.spec).bounded(Limits.of(former.spec)).hold(now), former, rewritten


def govern(session: Session, stack: Stack, former: Directory | None, given: Given) -> None:
    """Have a stack's plans hold back what is not approved, where the policy says so.

    Where no base is given and a daemon knows what was agreed last, that is healed to.
    """
    from reconciler.daemon.approvals import settled
    from reconciler.guards.approval import Approvals
    from reconciler.secrets import seals

    if stack.spec.policy.approval == "merge":
        return
    plans = [_approved(session, stack, given, path) for path in given.approved]
    stack.former = former if given.base is not None else settled(stack)
    stack.approvals = Approvals(plans, frozenset(given.approve))
    stack.seals = seals.recall(stack.data, stack.name)


def remember(session: Session, stack: Stack, plan: Plan, outcomes: Sequence[Outcome] = ()) -> None:
    """Take note of the values of secrets after an apply of all of a directory whose changes are to be approved."""
    from reconciler.daemon.approvals import note_secrets
    from reconciler.report import text

    if stack.spec.policy.approval == "merge" or stack.choice.targets or stack.choice.only:
        return
    for problem in note_secrets(stack, plan, outcomes):
        session.console.note(text.problem(problem))


def preview(stack: Stack) -> None:
    """Have a stack's plan say what would be held, where a daemon knows what was agreed last.

    Where none does, that depends on what `apply` is told.
    """
    from reconciler.daemon import approvals
    from reconciler.secrets import seals

    if stack.spec.policy.approval == "merge":
        return
    if (former := approvals.settled(stack)) is not None:
        approvals.govern(stack, former)
    else:
        stack.seals = seals.recall(stack.data, stack.name)


def sealed(session: Session, stack: Stack, plan: Plan) -> dict[str, Any]:
    """Return by what it is seen, when a saved plan is applied, that a secret which it sets has another value by then.

    Nothing of what is not merged, which can't be applied.
    """
    from reconciler.report import text
    from reconciler.secrets import seals

    values = _values(stack, plan) if stack.candidate is None else {}
    try:
        return seals.sealed(stack.data, values) if values else {}
    except OSError as error:
        why = error.strerror or type(error).__name__
        summary = f"can't be written ({why}): whether a secret changes before the plan is applied will not be known"
        problem = Problem(str(stack.data), summary, "name a writable directory with --data", Severity.WARNING)
        session.console.note(text.problem(problem))
        return {}


def revalued(session: Session, stack: Stack, saved: Saved, plan: Plan) -> list[str]:
    """Say which secrets that a saved plan sets have another value than they had when it was made."""
    from reconciler.report import text
    from reconciler.secrets import seals

    values = _values(stack, plan)
    found = seals.others(stack.data, saved.seals, values) if values else []
    if found is None:
        summary = "whether the secrets that it sets are those of then is not known: it was made with another --data"
        problem = Problem("saved plan", summary, "make it with this data directory", Severity.WARNING)
        session.console.note(text.problem(problem))
    return [f"{ref} has another value than when it was planned" for ref in found or ()]


def _values(stack: Stack, plan: Plan) -> dict[SecretRef, str]:
    return stack.secrets.values(
        sorted({ref for change in plan.changes for ref in change.sets if not ref.held}, key=str)
    )


def _approved(session: Session, stack: Stack, given: Given, path: Path) -> Approved:
    from reconciler.report import json

    where = str(path)
    saved = read(path, _LARGEST)
    if saved.stack != stack.name:
        summary = f"is a plan of another stack ({saved.stack!a}), this is {stack.name}"
        raise Refused(Problem(where, summary, "name the plan of this stack"))
    if saved.desired_hash != stack.directory.digest:
        _check_head(session, stack, given, saved, where)
    return json.approved(saved, where)


def _check_head(session: Session, stack: Stack, given: Given, saved: Saved, where: str) -> None:
    """Refuse a plan of a revision that was not merged: a later push, whatever it holds, needs a plan of its own."""
    from reconciler.desired.committed import Repository

    heads: Sequence[str] = given.head
    if not heads and given.base is not None:
        heads = Repository.holding(session.settings.state, session.settings.environ).merged(given.base)
    if len(saved.revision) >= _SHORTEST and any(head.startswith(saved.revision) for head in heads):
        return
    said = f"is a plan of revision {saved.revision!a}, " if saved.revision else "is a plan of no revision, "
    if heads:
        shown = ", ".join(head[:12] for head in heads[:5])
        summary, hint = f"{said}and not of what was merged ({shown})", "plan the revision that is to be merged"
    else:
        summary = f"{said}and of another directory than {stack.directory.path} has now"
        hint = "name the revision before the merge with --base, or the head that was merged with --head"
    raise Refused(Problem(where, summary, hint))


def read(file: Path, largest: int) -> Saved:
    """Read a saved plan. Raises ReconcilerError."""
    from reconciler.report import json

    try:
        text = files.read(file, largest).decode()
    except UnicodeDecodeError:
        raise ReconcilerError(Problem(str(file), "can't be read: is not UTF-8 text", "name a saved plan")) from None
    except files.CannotRead as error:
        why = error.summary.removeprefix(f"{file}: ")
        raise ReconcilerError(Problem(str(file), f"can't be read: {why}", "name a saved plan")) from None
    return json.load(text, str(file))
