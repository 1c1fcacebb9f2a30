"""What `doctor` found: as text for a person, as JSON for programs, and the table of all checks for its page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from reconciler.checks.check import Check, Finding, Remedy, Status
from reconciler.report import values
from reconciler.report.json import FORMAT_VERSION
from reconciler.report.text import Style

PLAIN = Style()
_NAMED = 2  # checks of a room that are not known for one reason, and named
_MARKS = {
    Status.ERROR: ("✗", "red"),
    Status.WARN: ("!", "yellow"),
    Status.UNKNOWN: ("?", "cyan"),
    Status.OK: ("✓", "green"),
    Status.SKIP: ("·", None),
}
_WORDS = {Status.ERROR: "wrong", Status.WARN: "to look at", Status.UNKNOWN: "not known", Status.OK: "well"}


def text(stack: str, findings: Sequence[Finding], style: Style = PLAIN) -> str:
    """Render what was found, what is worst first; what is well is a count, and listed with -v. Ends with a newline.

    ``quiet`` shows what is not well and nothing else: nothing at all where there is nothing.
    """
    told = [item for item in findings if style.verbose or item.status not in (Status.OK, Status.SKIP)]
    ranked = sorted(told, key=lambda item: -item.status.rank)
    shown = [(item.status, text) for item in ranked if (text := _finding(item, style, _sharing(item, ranked)))]
    # What takes no more than a line stands in a list with its like.
    groups = groupby(shown, lambda it: (it[0], "\n" in it[1]))
    blocks = [("\n\n" if several else "\n").join(block for _, block in group) for (_, several), group in groups]
    if not style.quiet:
        blocks = [style.title(values.escape(stack)), *blocks, style.title(conclusion(findings))]
    return "\n\n".join(blocks) + "\n" if blocks else ""


def _sharing(item: Finding, findings: Sequence[Finding]) -> Sequence[Finding]:
    """Return the findings that are not known for one reason, ``item`` among them: it is told once for all."""
    if item.status is not Status.UNKNOWN:
        return (item,)
    return [other for other in findings if other.status is item.status and other.verdict == item.verdict]


def _finding(item: Finding, style: Style, sharing: Sequence[Finding]) -> str:
    """Render what one check found; nothing where another one that shares its reason tells it."""
    if sharing[0] is not item:
        return ""
    mark, colour = _MARKS[item.status]
    named = ", ".join(other.check.id for other in sharing) if style.verbose else ", ".join(_named(sharing))
    head = f"{style.paint(mark, colour)} {style.title(named)}: {values.escape(item.verdict.summary)}"
    lines = [head, *(f"    {values.escape(line)}" for line in item.verdict.evidence)]
    if item.cause:
        lines.append(f"    cause: {values.escape(item.cause)}")
    lines += [f"    → {values.escape(line)}" for line in _remedy(item.remedy)]
    return "\n".join(lines)


def _named(findings: Sequence[Finding]) -> Iterator[str]:
    """Name checks; those of one room by their number where they are many."""
    for room, some in groupby(findings, key=lambda item: item.check.room):
        ids = [item.check.id for item in some]
        yield from ids if len(ids) <= _NAMED else [f"{len(ids)} checks of {room}"]


def _remedy(remedy: Remedy) -> Iterator[str]:
    if remedy.text:
        yield f"{remedy.text}{f': `{remedy.command}`' if remedy.command else ''}"
    elif remedy.command:
        yield f"`{remedy.command}`"


def is_applied(item: Finding) -> bool:
    """Whether an apply is the remedy of what is wrong."""
    return item.status in (Status.WARN, Status.ERROR) and item.remedy.command == "reconciler apply"


def conclusion(findings: Sequence[Finding]) -> str:
    """Sum up in one line."""
    count = Counter(item.status for item in findings)
    if not count[Status.ERROR] and not count[Status.WARN] and not count[Status.UNKNOWN]:
        return f"All is well: {count[Status.OK]} checks."
    parts = [f"{count[status]} {word}" for status, word in _WORDS.items() if count[status]]
    skipped = f" ({count[Status.SKIP]} had nothing to look at)" if count[Status.SKIP] else ""
    return f"{len(findings)} checks: {', '.join(parts)}{skipped}."


def document(findings: Sequence[Finding]) -> dict[str, Any]:
    """Return the contract's JSON of what was found."""
    return {"format_version": FORMAT_VERSION, "checks": [_entry(item) for item in findings]}


def _entry(item: Finding) -> dict[str, Any]:
    remedy = item.remedy
    return {
        "id": item.check.id,
        "status": str(item.status),
        "summary": item.verdict.summary,
        "evidence": list(item.verdict.evidence),
        "cause": item.cause,
        "remedy": {"text": remedy.text, "command": remedy.command, "change": remedy.change},
        "reference": item.check.reference,
    }


def listing(checks: Sequence[Check[Any]]) -> str:
    """List the checks with what a person sees where one fails."""
    width = max((len(item.id) for item in checks), default=0)
    return "".join(f"{item.id:<{width}}  {item.symptom}\n" for item in checks)


def catalogue(checks: Sequence[Check[Any]]) -> dict[str, Any]:
    """Return the same as JSON."""
    names = ("id", "symptom", "cause", "remedy", "reference")
    entries = [{name: getattr(item, name) for name in names} for item in checks]
    return {"format_version": FORMAT_VERSION, "checks": entries}


def table(checks: Sequence[Check[Any]]) -> str:
    """Render the table of ``docs/doctor.md``."""
    rows = [f"| `{item.id}` | {item.symptom} | {item.cause} | {item.remedy} |" for item in checks]
    return "\n".join(["| check | what you see | cause | remedy |", "|---|---|---|---|", *rows]) + "\n"
