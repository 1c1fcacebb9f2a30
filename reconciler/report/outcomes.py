"""How an apply went, as text: a line for each change as it happens, and the end with its proof."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from reconciler.plan import Plan
from reconciler.problem import Problem
from reconciler.report import summary, text, values
from reconciler.target import Change

_NOTICEABLE = 0.05  # seconds; what came in one batch took none of its own
_MARKS = {"done": ("✓", "green"), "failed": ("✗", "red"), "unknown": ("?", "yellow"), "skipped": ("·", "yellow")}
_WORDS = {
    "failed": "failed",
    "unknown": "the answer was lost",
    "skipped": "skipped",
}


@dataclass(frozen=True, slots=True)
class Said:
    """An outcome and how long it took; ``status`` is done, failed, unknown or skipped."""

    change: Change
    status: str
    problem: Problem | None = None
    notes: tuple[str, ...] = ()
    seconds: float = 0.0


def line(said: Said, style: text.Style) -> str:
    """Render one outcome: what was done to what, how long it took, and why it was not."""
    mark, colour = _MARKS[str(said.status)]
    sign = summary.sign(said.change) if said.change.actions else "="
    duration = f"  {said.seconds:.1f} s" if said.seconds >= _NOTICEABLE else ""
    word = f"  {_WORDS[str(said.status)]}" if str(said.status) in _WORDS else ""
    what = f"{sign} {values.escape(said.change.address)}"
    first = f"  {style.paint(mark, colour)} {what}{style.paint(word, colour)}{duration}"
    return "\n".join([first, *_below(said)])


def _below(said: Said) -> Iterator[str]:
    if said.problem is not None:
        where = "" if said.problem.where == said.change.address else f"{values.escape(said.problem.where)}: "
        yield f"      {where}{values.escape(said.problem.summary)}"
        yield from [f"      → {values.escape(said.problem.hint)}"] if said.problem.hint else []
    yield from (f"      {values.escape(note)}" for note in said.notes)


def folds(change: Change, status: str, run: int) -> bool:
    """Whether an outcome need not be told: it went well, and ended a long ``run`` of `routine` changes of one kind."""
    return str(status) == "done" and not change.notes and run > text.FOLD


def routine(change: Change) -> bool:
    """Whether a change is a creation or an adoption."""
    return summary.sort(change) == "create" or not change.actions


def ending(
    plan: Plan, after: Plan | None, statuses: Sequence[str], word: str, id: str = "", *, restored: bool = False
) -> list[str]:
    """Render the end of an apply: how many changes, whether a second plan is empty, and what a restore can't do."""
    if after is None:
        return [summary.conclusion(plan)]
    done = sum(str(status) == "done" for status in statuses)
    took = f" Apply {id} in the journal." if id else ""
    lines = [f"{'Stopped on a signal: ' if word == 'stopped' else ''}{_changes(done)} made.{took}"]
    lines += [values.escape(line) for line in _remaining(after)]
    if plan.lost and done and restored:
        lines.append(summary.MAILBOXES)
    return lines


def _changes(number: int) -> str:
    return "1 change was" if number == 1 else f"{number:,} changes were"


def _remaining(after: Plan) -> Iterator[str]:
    if after.pending:
        yield f"{len(after.pending):,} still to be made:"
        yield from (f"  {summary.sign(change)} {change.address}" for change in after.pending[: text.FOLD])
        yield from ["  … (`reconciler plan` shows all)"] if len(after.pending) > text.FOLD else []
    yield from (f"{problem.where}: {problem.summary}" for problem in summary.stopping(after))
    if after.unread:
        yield f"Whether all is done can't be told: {', '.join(sorted(after.unread))} could not be read."
    elif not after.pending and not summary.stopping(after):
        yield f"A second plan is empty: {after.unchanged:,} resources are as they should be."
    restarts = [change for change in after.changes if change.restarts]
    yield from (f"A restart is due: {change.address}{_notes(change)}" for change in restarts)


def _notes(change: Change) -> str:
    return f" ({'; '.join(change.notes)})" if change.notes else ""
