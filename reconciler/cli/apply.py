"""`reconciler apply`: make the systems as the directory says, and prove it by planning again."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from reconciler.cli import approvals, session
from reconciler.cli.approvals import Fingerprint, Given
from reconciler.cli.session import Session, choices
from reconciler.cli.times import seconds
from reconciler.problem import Problem, ReconcilerError, Refused

if TYPE_CHECKING:
    from reconciler.applying import Apply
    from reconciler.plan import Plan
    from reconciler.report.json import Saved
    from reconciler.report.text import OutcomeLine
    from reconciler.stack import Choice, Stack
    from reconciler.target import Outcome

_PARTIAL = 6
_LARGEST = 256 << 20  # bytes of a saved plan


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), required=False)
@choices
@click.option(
    "--approve",
    type=Fingerprint(),
    multiple=True,
    metavar="FINGERPRINT",
    help="Let a held change through, or all of a plan; repeatable.",
)
@click.option("--head", multiple=True, metavar="COMMIT", help="The head that was merged, as who merged it says.")
@click.option("--base", metavar="REV", help="The revision before the merge: what that wanted is healed.")
@click.option(
    "--approved",
    type=click.Path(path_type=Path, dir_okay=False),
    multiple=True,
    metavar="PLAN.json",
    help="A plan that was approved; repeatable.",
)
@click.option("-y", "--yes", is_flag=True, help="Do not ask; needed where there is no terminal.")
@click.option("--wait", type=seconds, metavar="TIME", help="Wait so long for another reconciler: 2m.")
@session.command
def command(
    session: Session,
    *,
    file: Path | None,
    yes: bool,
    wait: int | None,
    approved: tuple[Path, ...],
    head: tuple[str, ...],
    base: str | None,
    approve: tuple[str, ...],
    **given: Any,
) -> int:
    """Apply what plan shows, or a saved plan (FILE).

    A saved plan is applied only while it is still true. Without a terminal to ask on, --yes is needed. Where
    `policy.approval` is `plan`, only what --approved plans have, what --approve names and what heals what --base wanted
    is applied; the rest is held and named.

    Ends with 0, 1 where nothing was done, 4 where a guard refuses the plan, a saved one is stale or all is held, 5
    where another reconciler holds the lease, or 6 where it was applied in part.
    """
    from reconciler.stack import Choice

    told = Given(approved, head, base, approve)
    if file is not None and told != Given():
        raise click.UsageError("a saved plan (FILE) goes without --approved, --approve, --base or --head")
    choice = Choice(session.options.target, **given)
    saved = _read(file, choice) if file else None
    directory, former, rewritten = approvals.directory(session, told)
    stack = session.stack(directory, _chosen(saved, file) if saved and file else choice)
    if saved is None:
        stack.rewritten = rewritten
        approvals.govern(session, stack, former, told)
    return settle(session, stack, saved, yes=yes, wait=wait or 0)


def settle(session: Session, stack: Stack, saved: Saved | None = None, *, yes: bool, wait: int = 0) -> int:
    """Show what is to be done, have it agreed to, do it and prove it; return the exit code. Raises `Refused`.

    What another target refuses never holds back the restore of one that is lost: on a terminal it is asked for.
    """
    from reconciler.report import summary

    _tell_suspension(session, stack)
    try:
        return _settle(session, stack, saved, yes=yes, wait=wait)
    except _Shown as refusal:
        if yes or saved is not None or not refusal.restorable or not _asks() or stack.approvals is not None:
            raise
        names = " and ".join(map(summary.target_name, refusal.restorable))
        if not click.confirm(f"{names} is empty and nothing of it is refused. Restore it alone?", err=True):
            raise
        choice = replace(stack.choice, targets=refusal.restorable)
        return _settle(session, session.stack(stack.directory, choice), yes=True, wait=wait)


def _settle(session: Session, stack: Stack, saved: Saved | None = None, *, yes: bool, wait: int) -> int:
    from reconciler.applying import Apply
    from reconciler.reconcile import permitted

    with Apply(stack, "reconciler apply", wait) as apply:
        plan = _agreed(session, stack, saved, yes=yes)
        chosen = permitted(plan)
        if chosen.changes or chosen.adopted:
            return _carry_out(session, apply, plan, chosen)
        approvals.remember(session, stack, plan)
        if session.console.output != "text":
            _Report(session, plan, stack.choice).print("held" if plan.held else "nothing")
        return 4 if plan.held else 1 if plan.unread or plan.errors else 0


def _tell_suspension(session: Session, stack: Stack) -> None:
    """Say that the daemon is told to write nothing: a person who applies may not know."""
    from reconciler.report import values
    from reconciler.suspension import current

    if (said := current(stack.data, stack.name)) is not None:
        session.console.note(values.escape(f"{stack.name} is {said}. That stops the daemon, not this apply."))


# ------------------------------------------------------------------------------------------------------ agreement
def _read(file: Path, choice: Choice) -> Saved:
    from reconciler.stack import Choice

    if choice != Choice():
        raise click.UsageError("a saved plan knows its options: name FILE alone, or plan again with those options")
    saved = approvals.read(file, _LARGEST)
    if saved.unmerged:
        hint = "merge it, plan again without --base, and apply that"
        raise Refused(Problem(str(file), "is a plan of what is not merged: it shows, and can't be applied", hint))
    return saved


def _chosen(saved: Saved, file: Path | None) -> Choice:
    from reconciler.stack import Choice

    try:
        return Choice.saved(saved.options)
    except ValueError:
        hint = "save one with `reconciler plan --out FILE`"
        raise ReconcilerError(Problem(str(file), "is not a saved plan: its options are damaged", hint)) from None


def _agreed(session: Session, stack: Stack, saved: Saved | None, *, yes: bool) -> Plan:
    """Show the plan and return it once it may be applied. Raises `Refused`, or ReconcilerError without a yes."""
    from reconciler.applying import still_true
    from reconciler.guards.approval import unmatched
    from reconciler.reconcile import permitted
    from reconciler.report import json

    plan = session.plan(stack)
    if session.console.output == "text" or plan.refused:
        session.show(plan, stack.choice)
    if plan.refused:
        raise _Shown(plan)
    said = json.stale(saved, plan) or approvals.revalued(session, stack, saved, plan) if saved else []
    if said:
        hint = "plan again, and have that plan approved"
        raise Refused(*(Problem("saved plan", f"is stale: {line}", hint) for line in said))
    if stack.approvals is not None and (wrong := tuple(unmatched(plan, stack.approvals.named))):
        raise Refused(*wrong)
    chosen = permitted(plan)
    if yes or not (chosen.changes or chosen.adopted):
        return plan
    _ask(session, chosen)
    return still_true(plan, session.plan(stack))  # a person may have thought for an hour


class _Shown(Refused):
    """A refusal whose reasons stand in the plan that was shown."""

    def __init__(self, plan: Plan) -> None:
        from reconciler.report import summary

        super().__init__()
        self.restorable = tuple(target for target in summary.unrefused(plan) if target in plan.lost)


def _asks() -> bool:
    """Whether there is a terminal to ask on."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def _ask(session: Session, plan: Plan) -> None:
    from reconciler.report import summary

    hint = "read the plan, then call apply with --yes"
    if not _asks():
        raise ReconcilerError(Problem("apply", "there is no terminal to ask on, so nothing was written", hint))
    session.console.done()
    number, unplanned = len(plan.changes) + len(plan.adopted), summary.unplanned(plan)
    question = f"Apply {'this change' if number == 1 else f'these {number} changes'}?"
    if not click.confirm(f"{unplanned} {question}" if unplanned else question, err=True):
        raise ReconcilerError(Problem("apply", "not confirmed, so nothing was written"))


# ------------------------------------------------------------------------------------------------------ the apply
def _carry_out(session: Session, apply: Apply, plan: Plan, chosen: Plan) -> int:
    from reconciler.applying import Reporter
    from reconciler.report import text

    report = _Report(session, plan, apply.stack.choice)
    reporter = Reporter(report.hear, lambda problem: session.console.note(text.problem(problem)))
    with session.stop.writing():
        ending = apply.carry_out(chosen, reporter, session.stop.requested)
    session.report(*ending.problems)
    if ending.result is not None:
        approvals.remember(session, apply.stack, ending.result.after, ending.result.outcomes)
        report.print(ending.word, ending.id, ending.result.after)
    session.stop.check()
    return {"done": 0, "failed": 1}.get(ending.word, _PARTIAL)


class _Report:
    """What a person hears of an apply while it goes on, and at its end."""

    def __init__(self, session: Session, plan: Plan, choice: Choice) -> None:
        self.session, self.plan, self.choice = session, plan, choice
        self.outcomes: list[Outcome] = []
        self._seconds: list[float] = []
        self._since = time.monotonic()
        self._unsaid = 0
        self._run = 0  # how many creations or adoptions of one kind came last

    def hear(self, outcome: Outcome) -> None:
        """Take note of an outcome and print it at once; long runs of creations that went well are counted."""
        from reconciler.report import text

        now, change = time.monotonic(), outcome.change
        alike = not self.outcomes or self.outcomes[-1].change.kind == change.kind
        self._run = (self._run if alike else 0) + 1 if text.routine(change) else 0
        self.outcomes.append(outcome)
        self._seconds.append(now - self._since)
        self._since = now
        if self.session.console.output != "text":
            return
        if self.session.options.quiet and text.asks_nothing(self._outcome(len(self.outcomes) - 1)):
            return
        if not self.session.options.verbose and text.folds(change, outcome.status, self._run):
            self._unsaid += 1
            return
        self._say_count()
        self.session.console.text(self._line(len(self.outcomes) - 1))

    def _say_count(self) -> None:
        if self._unsaid:
            self.session.console.text(f"  … and {self._unsaid:,} more done")
            self._unsaid = 0

    def _line(self, index: int) -> str:
        from reconciler.report import text

        return text.line(self._outcome(index), self.session.style)

    def _outcome(self, index: int) -> OutcomeLine:
        from reconciler.report import text

        item = self.outcomes[index]
        before = self.outcomes[index - 1].notes if index else ()
        notes = tuple(note for note in item.notes if note not in before)  # one recreation serves many variables
        return text.OutcomeLine(item.change, item.status, item.problem, notes, self._seconds[index])

    def print(self, word: str, id: str = "", after: Plan | None = None) -> None:
        """Print the end: the proof, or what remains."""
        from reconciler.report import markdown, prose, text

        ending = text.ending(self.plan, after, [item.status for item in self.outcomes], word, id)
        if self.session.console.output == "json":
            self.session.console.document(self._document(word, id, after))
        elif self.session.console.output == "markdown":
            lines = [self._line(index) for index in range(len(self.outcomes))]
            plan = self.plan.redacted(self.session.console.redact)
            self.session.console.text(markdown.plan(plan) + "\n" + prose.fenced("\n".join([*lines, *ending])))
        else:
            self._say_count()
            self.session.console.text("\n" + "\n".join(ending))

    def _document(self, word: str, id: str, after: Plan | None) -> dict[str, Any]:
        from reconciler.report import json

        rows = [
            json.change(item.change)
            | {"status": str(item.status), "seconds": round(seconds, 3), "notes": list(item.notes)}
            | {"problem": json.problem(item.problem) if item.problem else None}
            for item, seconds in zip(self.outcomes, self._seconds, strict=True)
        ]
        problems = [item.problem for item in self.outcomes if item.problem]
        base = json.problems([*(after or self.plan).problems, *problems])
        plan = json.plan(self.plan, self.choice.as_dict())
        return base | {
            "id": id,
            "stack": self.plan.stack,
            "result": word,
            "outcomes": rows,
            "plan": plan,
            "after": json.plan(after, self.choice.as_dict()) if after else None,
        }
