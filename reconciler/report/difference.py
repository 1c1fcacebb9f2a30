"""What changes between two directories, as text, Markdown and JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from reconciler.desired.difference import Comparison, Difference, Risk
from reconciler.problem import Problem
from reconciler.report import json, markdown, summary, text, values
from reconciler.report.text import Style
from reconciler.target import Action

_DIRECTORY = "Directory"
_WORDS = {Risk.MAIL_FLOW: "may touch the flow of mail"}
_COLOURS = {"+": "green", "~": "yellow", "-": "red", "±": "yellow"}


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
        return f"{self.base[:_SHOWN]} → {self.head[:_SHOWN] or 'the files on disk'}"


_SHOWN = 12  # characters of a commit


# ------------------------------------------------------------------------------------------------------------ JSON
def document(sides: Sides, found: Comparison) -> dict[str, Any]:
    """Return a comparison as JSON, with ``changes`` as a plan has them."""
    return {
        "format_version": json.FORMAT_VERSION,
        "stack": sides.stack,
        "directory": sides.directory,
        "base": sides.base,
        "head": sides.head or None,
        "changes": [change(item) for item in found.differences],
        "secrets": [{"reference": str(ref), **_place(place)} for ref, place in found.named],
        "problems": [json.problem(item) for item in (*sides.problems, *found.problems)],
        "unchanged": found.unchanged,
        "summary": _counts(found.differences),
    }


def change(item: Difference) -> dict[str, Any]:
    """Return a difference as a plan has a change, with where it stands: in the head, or of what is gone in the base."""
    return {
        "address": item.address,
        "target": item.target,
        "kind": item.kind,
        "actions": [str(action) for action in item.actions],
        **json.sides(item.before, item.after),
        "reason": str(item.reason),
        "notes": list(item.notes),
        "risks": [str(risk) for risk in item.risks],
        "side": "base" if item.of_base else "head",
        **_place(item.place),
    }


def _place(place: Any) -> dict[str, Any]:
    return {"file": place.file if place else None, "line": (place.line or None) if place else None}


def _counts(differences: Sequence[Difference]) -> dict[str, int]:
    words = [_word(item) for item in differences]
    return {word: words.count(word) for word in ("create", "change", "delete", "leave")} | {
        "risks": sum(bool(item.risks) for item in differences)
    }


def _word(item: Difference) -> str:
    if not item.actions:
        return "leave"
    if item.actions == (Action.DELETE,):
        return "delete"
    return "create" if item.actions == (Action.CREATE,) else "change"


# ------------------------------------------------------------------------------------------------------------ text
def render(sides: Sides, found: Comparison, style: Style) -> str:
    """Render a comparison for a person. Ends with a newline."""
    sections = [[f"{style.title(values.escape(sides.stack))}  {values.escape(str(sides))}"]]
    sections += [[text.problem(item, style)] for item in (*sides.problems, *found.problems)]
    for heading, items in _groups(found.differences):
        sections.append([style.title(f"{heading}:"), *(_entry(item, style) for item in items)])
    if found.named:
        named = [f"  {values.escape(str(ref))}  {_at(place)}" for ref, place in found.named]
        sections.append([style.title(f"Secrets that {sides.base[:_SHOWN]} does not name:"), *named])
    sections.append([style.title(_conclusion(found))])
    return "\n\n".join("\n".join(lines) for lines in sections) + "\n"


def _groups(differences: Sequence[Difference]) -> Iterator[tuple[str, list[Difference]]]:
    known = {heading: position for position, heading in enumerate((_DIRECTORY, *summary.TARGET_NAMES.values()))}
    for heading, items in groupby(sorted(differences, key=lambda item: known[_heading(item)]), key=_heading):
        yield heading, sorted(items, key=lambda item: not item.risks)


def _heading(item: Difference) -> str:
    ours = item.resource is None and "/" not in item.address
    return _DIRECTORY if ours or item.target is None else summary.target_name(item.target)


def _sign(item: Difference) -> str:
    if set(item.actions) == {Action.DELETE, Action.CREATE}:
        return "±"
    return {"create": "+", "delete": "-", "change": "~", "leave": "·"}[_word(item)]


def _entry(item: Difference, style: Style) -> str:
    sign = _sign(item)
    head = style.paint(f"{sign} {values.escape(item.address)}", _COLOURS.get(sign))
    said = list(_what(item))
    one = len(said) == 1 and len(said[0]) < text.WIDTH
    where = f"  ({'was ' if item.of_base else ''}{_at(item.place)})" if item.place else ""
    mark = style.paint("⚠", "yellow") if item.risks else " "
    lines = [f"{mark} {head}{f'  {said[0]}' if one else ''}{where}", *(f"      {line}" for line in said if not one)]
    return "\n".join([*lines, *(f"      {style.paint(line, 'yellow')}" for line in _told(item))])


def _at(place: Any) -> str:
    return values.escape(f"{place.file}:{place.line}" if place and place.line else place.file if place else "")


def _what(item: Difference) -> Iterator[str]:
    """Say what becomes different, a text for each field; of what comes or goes what it is."""
    if item.before is not None and item.after is not None:
        yield from (f"{_label(name)}{values.transition(name, *pair)}" for name, pair in item.fields.items())
    elif item.resource is not None:
        yield from filter(None, [values.brief(item.resource)])
    else:
        side = item.after or item.before or {}
        given = ((name, value) for name, value in side.items() if value not in (None, False, ()))
        yield from (f"{_label(name)}{values.shown(name, value)}" for name, value in given)


def _label(name: str) -> str:
    """Name a field; what a variable or a setting is set to goes without one."""
    return "" if name in ("configured", "value") else f"{values.escape(name)}: "


def _told(item: Difference) -> Iterator[str]:
    yield from map(values.escape, item.notes)
    yield from (_WORDS[risk] for risk in item.risks if risk in _WORDS)


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
    return markdown.marker(stack, "diff")


def page(sides: Sides, found: Comparison, limit: int = markdown.LIMIT) -> str:
    """Render a comparison in at most ``limit`` characters: what a person has to look at stands outside of the fold."""
    made, counts = markdown.Page(limit), _counts(found.differences)
    parts = [f"{counts[word]} {word}" for word in ("create", "change", "delete")]
    parts += [f"{counts['leave']} not declared any more"] if counts["leave"] else []
    parts += [f"⚠ {counts['risks']} to look at"] if counts["risks"] else []
    made.add([marker(sides.stack), f"### {markdown.escape(sides.stack)}: {' · '.join(parts)}", "", f"`{sides}`"])
    made.notices([f"> {markdown.problem(item)}\n" for item in (*sides.problems, *found.problems)], made.room // 4)
    risky = [item for item in found.differences if item.risks]
    others = (item for item in found.differences if not item.risks)
    rest = sorted(others, key=lambda item: _word(item) == "create")  # of which the last are left out
    bare = [f"- {_word(item)} {markdown.code(item.address)}" for item in risky]
    shown = made.table(list(map(_row, risky)), bare=bare, third="where")
    made.list([f"- names {markdown.code(str(ref))} ({markdown.code(_at(place))})" for ref, place in found.named])
    made.table(list(map(_row, rest)), fold="Other differences", third="where")
    if made.left_out:
        all_of_it = "all" if shown == len(risky) else f"{shown} of {len(risky)}"
        whole = "Read all of it with `reconciler diff` before you approve it."
        made.add([f"**Truncated:** {made.left_out} lines do not fit; {all_of_it} to look at are shown. {whole}"])
    return "\n\n".join(made.parts) + "\n"


def _row(item: Difference) -> tuple[str, str]:
    texts = [markdown.cell(line) for line in _what(item)] + [markdown.escape(line) for line in _told(item)]
    where = markdown.cell(f"{'was ' if item.of_base else ''}{_at(item.place)}") if item.place else ""
    cells = (_sign(item), markdown.cell(item.address), where, "<br>".join(texts))
    return _heading(item), f"| {' | '.join(cells)} |"
