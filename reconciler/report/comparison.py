"""What changes between two directories, as text, Markdown and JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from reconciler.desired.comparison import Comparison
from reconciler.difference import Difference
from reconciler.names import SHOWN
from reconciler.problem import Problem
from reconciler.report import comment, difference, json, markdown, summary, text, values
from reconciler.report.prose import code, prose
from reconciler.report.text import Style


@dataclass(frozen=True, slots=True)
class Sides:
    """What is compared: a stack's directory in its repository, at two commits; no ``head`` is the files on disk.

    ``problems`` are those of the two revisions themselves.
    """

    stack: str
    directory: str
    base: str
    head: str = ""
    problems: tuple[Problem, ...] = ()

    def __str__(self) -> str:
        """Render as ``1a2b3c4d5e6f → the files on disk``."""
        return f"{self.base[:SHOWN]} → {self.head[:SHOWN] or 'the files on disk'}"


# ------------------------------------------------------------------------------------------------------------ JSON
def document(sides: Sides, found: Comparison) -> dict[str, Any]:
    """Return a comparison as JSON, with ``changes`` as a plan has them."""
    return {
        "format_version": json.FORMAT_VERSION,
        "stack": sides.stack,
        "directory": sides.directory,
        "base": sides.base,
        "head": sides.head or None,
        "changes": [difference.change(item) for item in found.differences],
        "secrets": [{"reference": str(ref), **difference.place(place)} for ref, place in found.named],
        "problems": [json.problem(item) for item in (*sides.problems, *found.problems)],
        "unchanged": found.unchanged,
        "summary": _counts(found.differences),
    }


def _counts(differences: Sequence[Difference]) -> dict[str, int]:
    words = [difference.word(item) for item in differences]
    return {word: words.count(word) for word in ("create", "change", "delete", "leave")} | {
        "risks": sum(bool(item.risks) for item in differences)
    }


# ------------------------------------------------------------------------------------------------------------ text
def render(sides: Sides, found: Comparison, style: Style) -> str:
    """Render a comparison for a person. Ends with a newline."""
    sections = [[f"{style.title(values.escape(sides.stack))}  {values.escape(str(sides))}"]]
    sections += [[text.problem(item, style)] for item in (*sides.problems, *found.problems)]
    for heading, items in _groups(found.differences):
        sections.append([style.title(f"{heading}:"), *(difference.entry(item, style.paint) for item in items)])
    if found.named:
        named = [f"  {values.escape(str(ref))}  {difference.spot(place)}" for ref, place in found.named]
        sections.append([style.title(f"Secrets that {sides.base[:SHOWN]} does not name:"), *named])
    sections.append([style.title(_conclusion(found))])
    return "\n\n".join("\n".join(lines) for lines in sections) + "\n"


def _groups(differences: Sequence[Difference]) -> Iterator[tuple[str, list[Difference]]]:
    known = (difference.DIRECTORY, *summary.TARGET_NAMES.values())
    ordered = sorted(differences, key=lambda item: known.index(difference.heading(item)))
    for heading, items in groupby(ordered, key=difference.heading):
        yield heading, sorted(items, key=lambda item: not item.risks)


def _conclusion(found: Comparison) -> str:
    same = f"{found.unchanged:,} resources are the same."
    if not found.differences:
        return f"No difference in meaning: {same}"
    counts = _counts(found.differences)
    words = [f"{counts['create']:,} to create", f"{counts['change']:,} to change", f"{counts['delete']:,} to delete"]
    words += [f"{counts['leave']:,} not declared any more"] if counts["leave"] else []
    look = f" {counts['risks']:,} to look at (⚠)." if counts["risks"] else ""
    return f"Difference: {', '.join(words)}. {same}{look}"


# -------------------------------------------------------------------------------------------------------- Markdown
def marker(stack: str) -> str:
    """Return the hidden comment by which the one comment of a stack is found again."""
    return comment.marker(stack, "diff")


def page(sides: Sides, found: Comparison, limit: int = comment.LIMIT) -> str:
    """Render a comparison in at most ``limit`` characters: what a person has to look at stands outside of the fold."""
    made, counts = comment.Page(limit), _counts(found.differences)
    parts = [f"{counts[word]} {word}" for word in ("create", "change", "delete")]
    parts += [f"{counts['leave']} not declared any more"] if counts["leave"] else []
    parts += [f"⚠ {counts['risks']} to look at"] if counts["risks"] else []
    made.add([marker(sides.stack), f"### {prose(sides.stack)}: {' · '.join(parts)}", "", f"`{sides}`"])
    made.notices([f"> {comment.problem(item)}" for item in (*sides.problems, *found.problems)], made.room // 4)
    risky = [item for item in found.differences if item.risks]
    others = (item for item in found.differences if not item.risks)
    rest = sorted(others, key=lambda item: difference.word(item) == "create")  # of which the last are left out
    bare = [f"- {difference.word(item)} {code(item.address)}" for item in risky]
    shown = made.table(list(map(markdown.difference_row, risky)), bare=bare, third="where")
    named = ((code(str(ref)), code(difference.spot(place))) for ref, place in found.named)
    made.list([f"- names {ref} ({place})" for ref, place in named])
    made.table(list(map(markdown.difference_row, rest)), fold="Other differences", third="where")
    if made.left_out:
        all_of_it = "all" if shown == len(risky) else f"{shown} of {len(risky)}"
        whole = "Read all of it with `reconciler diff` before you approve it."
        made.add([f"**Truncated:** {made.left_out} lines do not fit; {all_of_it} to look at are shown. {whole}"])
    return "\n\n".join(made.parts) + "\n"
