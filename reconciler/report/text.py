"""A plan as text for a person: what stops it, what it does, one line that sums it up; and how its apply went."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import click

from reconciler.plan import Plan
from reconciler.problem import Problem, Severity
from reconciler.report import difference, summary, values
from reconciler.target import Change, Reason

_HANGING = 4  # blanks before what follows a broken line
FOLD = 20  # creations of one kind in a row that are still listed one by one
NAMED = 5  # things that nobody declares and that are named
WIDTH = 100  # characters a line of fields may take before each gets its own
_COLOURS = {"+": "green", "~": "yellow", "-": "red", "±": "yellow", "↻": "cyan"}
_NOTICEABLE = 0.05  # seconds; what came in one batch took none of its own
_MARKS = {"done": ("✓", "green"), "failed": ("✗", "red"), "unknown": ("?", "yellow"), "skipped": ("·", "yellow")}
_WORDS = {
    "failed": "failed",
    "unknown": "the answer was lost",
    "skipped": "skipped",
}
_SEVERITIES = {
    Severity.REFUSED: ("✗", "red", "refused: "),
    Severity.ERROR: ("✗", "red", ""),
    Severity.WARNING: ("!", "yellow", ""),
}


@dataclass(frozen=True, slots=True)
class Style:
    """How much is shown and how: ``colour`` by meaning, ``verbose`` for lists in place of counts.

    ``quiet`` leaves out what asks for nothing: where a plan comes from, what is left alone, what went well. Never what
    a person may regret not to have read: a loss, a warning, a problem and its remedy. ``width`` is a terminal's, at
    which lines are broken between words; 0 breaks none.
    """

    colour: bool = False
    verbose: bool = False
    quiet: bool = False
    width: int = 0

    def wrapped(self, text: str) -> str:
        """Break lines that are wider than the terminal, what follows indented: it belongs to the line above."""
        return "\n".join(self._broken(line) for line in text.split("\n")) if self.width else text

    def _broken(self, line: str) -> str:
        if len(click.unstyle(line)) <= self.width:
            return line
        lead = len(line) - len(line.lstrip(" "))
        rows, room, begins = [line[:lead]], self.width - lead, True
        for word in line[lead:].split(" "):
            length = len(click.unstyle(word)) + (not begins)
            if not begins and length > room:
                rows.append(" " * (lead + _HANGING))
                length, room, begins = length - 1, self.width - lead - _HANGING, True
            rows[-1] += word if begins else f" {word}"
            room, begins = room - length, False
        return "\n".join(rows)

    def paint(self, text: str, colour: str | None = None, *, bold: bool = False) -> str:
        """Colour a text, where colours are on."""
        return click.style(text, fg=colour, bold=bold or None) if self.colour else text

    def title(self, text: str) -> str:
        """Set a heading off."""
        return self.paint(text, bold=True)


def plan(plan: Plan, style: Style = Style()) -> str:
    """Render a plan. Ends with a newline."""
    sections = [
        [] if style.quiet else _head(plan, style),
        *_unmerged(plan, style),
        _problems(summary.stopping(plan), style),
        _loss(plan, style),
        *_changes(plan, style),
        _held(plan, style),
        [] if style.quiet else _adopted(plan, style),
        [] if style.quiet else _unmanaged(plan, style),
        _problems(summary.warnings(plan), style),
        [style.title(values.escape(summary.conclusion(plan)))],
    ]
    return style.wrapped("\n\n".join("\n".join(lines) for lines in sections if lines) + "\n")


def problem(problem: Problem, style: Style = Style()) -> str:
    """Render a problem: where and what on one line, the remedy below."""
    mark, colour, word = _SEVERITIES[problem.severity]
    where, what = values.escape(problem.where), values.escape(problem.summary)
    line = f"{style.paint(mark, colour)} {style.title(where)}: {style.paint(word, colour)}{what}"
    return f"{line}\n    → {values.escape(problem.hint)}" if problem.hint else line


def change(change: Change, style: Style = Style(), *, drift: bool = False) -> str:
    """Render a change: its sign, its address and what becomes different; notes below, indented.

    ``drift`` says that the directory did not cause it: somebody changed the live system.
    """
    sign = summary.sign(change)
    line = f"{style.paint(f'{sign} {values.escape(change.address)}', _COLOURS[sign])}{_why(change, style, drift=drift)}"
    return "\n".join([*_with_fields(line, change), *(f"      {values.escape(note)}" for note in change.notes)])


def _head(plan: Plan, style: Style) -> list[str]:
    revision = f" at {values.escape(plan.revision)}" if plan.revision else ""
    lines = (*plan.head, *summary.receivers(plan))
    return [f"{style.title(values.escape(plan.stack))}{revision}", *(f"  {values.escape(line)}" for line in lines)]


def _unmerged(plan: Plan, style: Style) -> Iterator[list[str]]:
    """Say of what is not merged what is not used of it, and which secrets are not read."""
    if (of := plan.unmerged) is None:
        return
    yield [style.paint(line, "yellow") for line in summary.unmerged(of)]
    if of.unused:
        unused = [difference.entry(item, style.paint) for item in of.unused]
        yield [style.title("Not used before the merge:"), *unused]
    if of.unread:
        unread = [f"  {values.escape(str(ref))}  ({difference.spot(place)})" for ref, place in of.unread]
        yield [style.title("Not read before the merge:"), *unread]


def _problems(problems: tuple[Problem, ...], style: Style) -> list[str]:
    """Render problems below each other; a remedy that several in a row share stands once, below the last."""
    shown = []
    for _, run in groupby(problems, key=lambda item: item.hint):
        *above, last = run
        shown += [*(replace(item, hint="") for item in above), last]
    return [problem(item, style) for item in shown]


def _loss(plan: Plan, style: Style) -> list[str]:
    return [style.paint(line, "yellow") for line in summary.loss(plan)]


def _changes(plan: Plan, style: Style) -> Iterator[list[str]]:
    drift = frozenset(plan.drift)
    for target, changes in summary.blocks(plan):
        lines = [style.title(f"{summary.target_name(target)}:")]
        for run, long in summary.fold(changes, FOLD):
            if long and not style.verbose:
                lines.append(_folded(run, style))
            else:
                # What an emptied server lacks, nobody took away by hand.
                lines += [
                    f"  {change(item, style, drift=item.address in drift and target not in plan.lost)}" for item in run
                ]
        yield lines


def _folded(run: tuple[Change, ...], style: Style) -> str:
    lost = ", lost" if run[0].reason is Reason.LOST else ""
    scope = run[0].resource.scope
    what = scope if scope.startswith(f"{run[0].kind}/") else run[0].kind
    return f"  {style.paint(f'+ {len(run):,} × {values.escape(what)}/…', 'green')}{lost} (listed with -v)"


def _why(change: Change, style: Style, *, drift: bool) -> str:
    words = [style.paint("lost", "yellow")] if change.reason is Reason.LOST else []
    words += ["asked for"] if change.reason is Reason.REMOVED else []
    words += [change.reason.words] if change.reason is Reason.NOT_IN_DESIRED else []
    words += ["taken over"] if change.adopts else []
    words += ["drift"] if drift and change.reason is not Reason.LOST else []
    words += ["restart is due"] if change.restarts else []
    return f" ({', '.join(words)})" if words else ""


def _with_fields(line: str, change: Change) -> list[str]:
    if change.restarts:
        return [line]
    if change.before is None or change.deletes:
        brief = values.brief(change.shown)
        return [f"{line}  {brief}"] if brief else [line]
    fields = values.transitions(change)
    together = ", ".join(fields)
    if len(fields) == 1 or len(together) + len(change.address) <= WIDTH:
        return [f"{line}  {together}"]
    return [line, *(f"      {field}" for field in fields)]


def _held(plan: Plan, style: Style) -> list[str]:
    """Name what waits for a person, each with the way to approve it."""
    if not plan.held:
        return []
    title = style.title(f"Held, until a person approves {'it' if len(plan.held) == 1 else 'them'}:")
    told = (line for item in plan.held for line in (f"  {item.where}: {item.summary}", f"      → {item.hint}"))
    return [title, *map(values.escape, told)]


def _adopted(plan: Plan, style: Style) -> list[str]:
    if not plan.adopted:
        return []
    title = style.title("Adopted, equal already and from now on marked as ours:")
    if len(plan.adopted) > FOLD and not style.verbose:
        return [f"{title} {len(plan.adopted):,} (listed with -v)"]
    return [title, *(f"  = {values.escape(item.address)}" for item in plan.adopted)]


def _unmanaged(plan: Plan, style: Style) -> list[str]:
    if not plan.unmanaged:
        return []
    if style.verbose:
        return [style.title("Not declared and left alone:"), *(f"  {values.escape(item)}" for item in plan.unmanaged)]
    named = summary.left_alone(plan)
    if not named:
        return []
    if len(named) <= NAMED:
        return [f"Not declared and left alone: {', '.join(map(values.escape, named))}."]
    return [f"{len(named):,} live resources are not declared and left alone (-v lists)."]


# ------------------------------------------------------------------------------------------------------ an apply
@dataclass(frozen=True, slots=True)
class OutcomeLine:
    """An outcome and how long it took; ``status`` is done, failed, unknown or skipped."""

    change: Change
    status: str
    problem: Problem | None = None
    notes: tuple[str, ...] = ()
    seconds: float = 0.0


def line(said: OutcomeLine, style: Style) -> str:
    """Render one outcome: what was done to what, how long it took, and why it was not."""
    mark, colour = _MARKS[str(said.status)]
    sign = summary.sign(said.change) if said.change.actions else "="
    duration = f"  {said.seconds:.1f} s" if said.seconds >= _NOTICEABLE else ""
    word = f"  {_WORDS[str(said.status)]}" if str(said.status) in _WORDS else ""
    what = f"{sign} {values.escape(said.change.address)}"
    first = f"  {style.paint(mark, colour)} {what}{style.paint(word, colour)}{duration}"
    return "\n".join([first, *_below(said)])


def _below(said: OutcomeLine) -> Iterator[str]:
    if said.problem is not None:
        where = "" if said.problem.where == said.change.address else f"{values.escape(said.problem.where)}: "
        yield f"      {where}{values.escape(said.problem.summary)}"
        yield from [f"      → {values.escape(said.problem.hint)}"] if said.problem.hint else []
    yield from (f"      {values.escape(note)}" for note in said.notes)


def folds(change: Change, status: str, run: int) -> bool:
    """Whether an outcome need not be told: it went well, and ended a long ``run`` of `routine` changes of one kind."""
    return str(status) == "done" and not change.notes and run > FOLD


def asks_nothing(said: OutcomeLine) -> bool:
    """Whether an outcome went well and has nothing to tell, as ``quiet`` leaves out."""
    return str(said.status) == "done" and not said.notes


def routine(change: Change) -> bool:
    """Whether a change is a creation or an adoption."""
    return summary.sort(change) == "create" or not change.actions


def ending(plan: Plan, after: Plan | None, statuses: Sequence[str], word: str, id: str = "") -> list[str]:
    """Render the end of an apply: how many changes, whether a second plan is empty, and what a restore can't do."""
    if after is None:
        return [summary.conclusion(plan)]
    done = sum(str(status) == "done" for status in statuses)
    took = f" Apply {id} in the journal." if id else ""
    lines = [f"{'Stopped on a signal: ' if word == 'stopped' else ''}{_number_of(done)} made.{took}"]
    lines += [values.escape(line) for line in _remaining(after)]
    if plan.lost and done and plan.last_whole:
        lines.append(summary.MAILBOXES)
    return lines


def _number_of(number: int) -> str:
    return "1 change was" if number == 1 else f"{number:,} changes were"


def _remaining(after: Plan) -> Iterator[str]:
    if after.pending:
        yield f"{len(after.pending):,} still to be made:"
        yield from (f"  {summary.sign(change)} {change.address}" for change in after.pending[:FOLD])
        yield from ["  … (`reconciler plan` shows all)"] if len(after.pending) > FOLD else []
    yield from (f"{problem.where}: {problem.summary}" for problem in summary.stopping(after))
    yield from (f"Held: {problem.where} {problem.summary} (approve: {problem.hint})" for problem in after.held)
    if after.unread:
        yield f"Whether all is done can't be told: {', '.join(sorted(after.unread))} could not be read."
    elif not after.pending and not summary.stopping(after):
        yield f"A second plan is empty: {after.unchanged:,} resources are as they should be."
    restarts = [change for change in after.changes if change.restarts]
    yield from (f"A restart is due: {change.address}{_notes(change)}" for change in restarts)


def _notes(change: Change) -> str:
    return f" ({'; '.join(change.notes)})" if change.notes else ""
