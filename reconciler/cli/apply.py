"""`reconciler apply`: make the systems as the directory says, and prove it by planning again."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from reconciler.cli import session
from reconciler.cli.choice import Choice, choices
from reconciler.cli.session import Session
from reconciler.problem import Problem, ReconcilerError, Refused

if TYPE_CHECKING:
    from reconciler.journal import Entry
    from reconciler.plan import Change, Plan
    from reconciler.reconcile import Outcome, Result, Work
    from reconciler.report.json import Saved

PARTIAL = 6


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), required=False)
@choices
@click.option("-y", "--yes", is_flag=True, help="Do not ask; needed where there is no terminal.")
@session.command
def command(session: Session, *, file: Path | None, yes: bool, **given: Any) -> int:
    """Apply what plan shows, or a saved plan (FILE).

    A saved plan is applied only while it is still true. Without a terminal to ask on, --yes is needed.

    Ends with 0, 1 where nothing was done, 4 where a guard refuses the plan or a saved one is stale, 5 where another
    reconciler holds the lease, or 6 where it was applied in part.
    """
    choice = Choice(session.options.target, **given)
    saved = _read(file, choice) if file else None
    choice = _chosen(saved, file) if saved else choice
    work = session.work(session.directory(), **choice.as_dict())
    from reconciler.lease import Lease

    with Lease(session.settings.data, work.stack, "reconciler apply"):
        plan = _agreed(session, work, choice, saved, yes=yes)
        if plan.changes or plan.adopted:
            return _Apply(session, work, plan, choice).run()
        if session.console.output != "text":
            _Report(session, plan, choice).print("nothing")
        return 1 if plan.unread or plan.errors else 0


# ------------------------------------------------------------------------------------------------------ agreement
def _read(file: Path, choice: Choice) -> Saved:
    from reconciler.report import json

    if choice != Choice():
        raise click.UsageError("a saved plan knows its options: name FILE alone, or plan again with those options")
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "is not UTF-8 text"
        raise ReconcilerError(Problem(str(file), f"can't be read: {why}", "name a plan that was saved")) from None
    return json.load(text, str(file))


def _chosen(saved: Saved, file: Path | None) -> Choice:
    try:
        return Choice.saved(saved.options)
    except ValueError:
        hint = "save one with `reconciler plan --out FILE`"
        raise ReconcilerError(Problem(str(file), "is not a saved plan: its options are damaged", hint)) from None


def _agreed(session: Session, work: Work, choice: Choice, saved: Saved | None, *, yes: bool) -> Plan:
    """Show the plan and return it once it may be applied. Raises `Refused`, or ReconcilerError without a yes."""
    from reconciler.report import json

    plan = session.plan(work)
    if session.console.output == "text" or plan.refused:
        session.show(plan, choice.as_dict())
    if plan.refused:
        raise _Shown
    said = json.stale(saved, plan) if saved else []
    if said:
        hint = "plan again, and have that plan approved"
        raise Refused(*(Problem("saved plan", f"is stale: {line}", hint) for line in said))
    if yes or not (plan.changes or plan.adopted):
        return plan
    _ask(session, plan)
    return _still_true(plan, session.plan(work))  # a person may have thought for an hour


class _Shown(Refused):
    """A refusal whose reasons stand in the plan that was shown."""

    def __init__(self) -> None:
        super().__init__()


def _ask(session: Session, plan: Plan) -> None:
    hint = "read the plan, then call apply with --yes"
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise ReconcilerError(Problem("apply", "there is no terminal to ask on, so nothing was written", hint))
    session.console.done()
    number = len(plan.changes) + len(plan.adopted)
    if not click.confirm(f"Apply {'this change' if number == 1 else f'these {number} changes'}?", err=True):
        raise ReconcilerError(Problem("apply", "not confirmed, so nothing was written"))


def _still_true(approved: Plan, now: Plan) -> Plan:
    if approved.fingerprint != now.fingerprint or now.refused:
        summary = "what is live has changed since the plan was shown, so nothing was written"
        raise Refused(*now.refused, Problem("apply", summary, "call apply again and read the new plan"))
    return now


# ------------------------------------------------------------------------------------------------------ the apply
class _Apply:
    """One apply, from the journal's first line to its last."""

    def __init__(self, session: Session, work: Work, plan: Plan, choice: Choice) -> None:
        self.session, self.work, self.plan = session, work, plan
        self.report = _Report(session, plan, choice)
        self.entry = self._entry()

    def _entry(self) -> Entry:
        from reconciler import journal

        plan, targets = self.plan, tuple(self.work.targets)
        facts = {name: getattr(plan, name) for name in ("revision", "desired_hash", "fingerprint")}
        return journal.entry(
            plan.stack, self.session.settings.environ, targets=targets, lost=tuple(sorted(plan.lost)), **facts
        )

    def run(self) -> int:
        from reconciler import reconcile

        journal = self.session.journal(self.plan.stack)
        self._warn(journal.begin(self.entry))
        result: Result | None = None
        try:
            with self.session.stop.writing():
                result = reconcile.apply(self.work, self.plan, self.report.hear, self.session.stop.requested)
        except ReconcilerError as error:
            self.session.report(*error.problems)
        finally:
            word, whole = self._word(result), result is not None and self._whole(result)
            self._warn(journal.end(self.entry, word, self.report.written(), whole=whole))
        if result is not None:
            self.report.print(word, self.entry.id, result.after)
        self.session.stop.check()
        return {"done": 0, "failed": 1}.get(word, PARTIAL)

    def _whole(self, result: Result) -> bool:
        return result.proven and not self.work.only and not self.report.choice.targets

    def _word(self, result: Result | None) -> str:
        """Say how it went, in the journal's words."""
        from reconciler.reconcile import Status

        if self.session.stop.requested():
            return "stopped"
        done = any(item.status is Status.DONE for item in self.report.outcomes)
        if result is not None and result.proven and not _bad(self.report.outcomes, result.remaining):
            return "done"
        return "partial" if done else "failed"

    def _warn(self, problem: Problem | None) -> None:
        from reconciler.report import text

        if problem is not None:
            self.session.console.note(text.problem(problem))


def _bad(outcomes: Sequence[Outcome], remaining: Sequence[Change]) -> bool:
    """Whether a change did not happen. A lost answer is no failure where it is done after all, nor is a due restart."""
    from reconciler.reconcile import Status

    left = {change.address for change in remaining}
    for outcome in outcomes:
        unknown = outcome.status is Status.UNKNOWN and outcome.change.address in left
        skipped = outcome.status is Status.SKIPPED and not outcome.change.restarts
        if unknown or skipped or outcome.status is Status.FAILED:
            return True
    return False


class _Report:
    """What a person hears of an apply while it goes on, and at its end."""

    def __init__(self, session: Session, plan: Plan, choice: Choice) -> None:
        self.session, self.plan, self.choice = session, plan, choice
        self.restored = bool(session.last_whole(plan))  # asked before this apply makes it whole again
        self.outcomes: list[Outcome] = []
        self._seconds: list[float] = []
        self._since = time.monotonic()
        self._unsaid = 0
        self._run = 0  # how many creations or adoptions of one kind came last

    def hear(self, outcome: Outcome) -> None:
        """Take note of an outcome and print it at once; long runs of creations that went well are counted."""
        from reconciler.report import outcomes

        now, change = time.monotonic(), outcome.change
        alike = not self.outcomes or self.outcomes[-1].change.kind == change.kind
        self._run = (self._run if alike else 0) + 1 if outcomes.routine(change) else 0
        self.outcomes.append(outcome)
        self._seconds.append(now - self._since)
        self._since = now
        if self.session.console.output != "text":
            return
        if not self.session.options.verbose and outcomes.folds(change, outcome.status, self._run):
            self._unsaid += 1
            return
        self._say_count()
        self.session.console.text(self._line(len(self.outcomes) - 1))

    def _say_count(self) -> None:
        if self._unsaid:
            self.session.console.text(f"  … and {self._unsaid:,} more done")
            self._unsaid = 0

    def _line(self, index: int) -> str:
        from reconciler.report import outcomes

        item = self.outcomes[index]
        before = self.outcomes[index - 1].notes if index else ()
        notes = tuple(note for note in item.notes if note not in before)  # one recreation serves many variables
        said = outcomes.Said(item.change, item.status, item.problem, notes, self._seconds[index])
        return outcomes.line(said, self.session.style)

    def written(self) -> list[Any]:
        """Return the outcomes as the journal keeps them."""
        from reconciler.journal import Written
        from reconciler.report import json

        rows = []
        for item in self.outcomes:
            change = json.change(item.change)
            problem = self.session.console.redact(item.problem.summary) if item.problem else ""
            actions = tuple(change["actions"]) or ("adopt",)
            sides = (change["before"], change["after"])
            rows.append(Written(item.change.address, actions, str(item.status), change["reason"], *sides, problem))
        return rows

    def print(self, word: str, id: str = "", after: Plan | None = None) -> None:
        """Print the end: the proof, or what remains."""
        from reconciler.report import markdown, outcomes

        ending = outcomes.ending(
            self.plan, after, [item.status for item in self.outcomes], word, id, restored=self.restored
        )
        if self.session.console.output == "json":
            self.session.console.document(self._document(word, id, after))
        elif self.session.console.output == "markdown":
            lines = [self._line(index) for index in range(len(self.outcomes))]
            self.session.console.text(markdown.plan(self.plan) + "\n" + markdown.fenced("\n".join([*lines, *ending])))
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
