"""One difference between two directories, as the lines of each form of a report."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from reconciler.difference import Difference, Risk
from reconciler.problem import Place
from reconciler.report import summary, values
from reconciler.target import Action

DIRECTORY = "Directory"
"""The heading of what is said of no single system."""

_LONGEST = 100  # characters a line of fields may take before each gets its own
_WORDS = {Risk.MAIL_FLOW: "may touch the flow of mail"}
_COLOURS = {"+": "green", "~": "yellow", "-": "red", "±": "yellow"}


def change(item: Difference) -> dict[str, Any]:
    """Return a difference as a plan has a change, with where it stands: in the head, or of what is gone in the base."""
    return {
        "address": item.address,
        "target": item.target,
        "kind": item.kind,
        "actions": [str(action) for action in item.actions],
        **values.sides(item.before, item.after),
        "reason": str(item.reason),
        "notes": list(item.notes),
        "risks": [str(risk) for risk in item.risks],
        "side": "base" if item.of_base else "head",
        **place(item.place),
    }


def place(place: Place | None) -> dict[str, Any]:
    """Return where something stands, as JSON has it."""
    return {"file": place.file if place else None, "line": (place.line or None) if place else None}


def word(item: Difference) -> str:
    """Say which sort a difference counts as: ``create``, ``change``, ``delete`` or ``leave``."""
    if not item.actions:
        return "leave"
    if item.actions == (Action.DELETE,):
        return "delete"
    return "create" if item.actions == (Action.CREATE,) else "change"


def heading(item: Difference) -> str:
    """Name what a difference stands under: a system, or the directory itself."""
    ours = item.resource is None and "/" not in item.address
    return DIRECTORY if ours or item.target is None else summary.target_name(item.target)


def sign(item: Difference) -> str:
    """Return the sign that a difference is shown with."""
    if set(item.actions) == {Action.DELETE, Action.CREATE}:
        return "±"
    return {"create": "+", "delete": "-", "change": "~", "leave": "·"}[word(item)]


def entry(item: Difference, paint: Callable[[str, str | None], str]) -> str:
    """Render a difference for a person: what it is about, what is said differently, where, and why to look."""
    shown, said = sign(item), list(what(item))
    head = paint(f"{shown} {values.escape(item.address)}", _COLOURS.get(shown))
    one = len(said) == 1 and len(said[0]) < _LONGEST
    where = f"  ({at(item)})" if item.place else ""
    mark = paint("⚠", "yellow") if item.risks else " "
    lines = [f"{mark} {head}{f'  {said[0]}' if one else ''}{where}", *(f"      {line}" for line in said if not one)]
    return "\n".join([*lines, *(f"      {paint(line, 'yellow')}" for line in told(item))])


def at(item: Difference) -> str:
    """Say where a difference stands."""
    return f"{'was ' if item.of_base else ''}{spot(item.place)}"


def spot(place: Place | None) -> str:
    """Render a place as file and line."""
    return values.escape(f"{place.file}:{place.line}" if place and place.line else place.file if place else "")


def what(item: Difference) -> Iterator[str]:
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


def told(item: Difference) -> Iterator[str]:
    """Say what else there is to know of it."""
    yield from map(values.escape, item.notes)
    yield from (_WORDS[risk] for risk in item.risks if risk in _WORDS)
