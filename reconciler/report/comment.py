"""A comment at GitHub: found again by a hidden line, never too long, its long parts folded away."""

from __future__ import annotations

import builtins
import re
from collections.abc import Iterable, Sequence
from itertools import groupby

from reconciler.problem import Problem, Severity
from reconciler.report import values
from reconciler.report.prose import code, prose

LIMIT = 65536  # characters GitHub takes for a comment; here bytes, which are never fewer
_MARGIN = 900  # bytes for what is known last: that it was cut, and the facts for programs
_TABLES = 600  # for the headings of a table for each target, and its fold
_OPEN = 10  # rows that a fold shows without being asked


def marker(stack: str, what: str = "plan") -> str:
    """Return the hidden comment by which the one comment of a stack is found again: its first line."""
    return f"<!-- reconciler:{what}:{re.sub('[^a-z0-9-]', '', stack.lower())} -->"


def problem(problem: Problem) -> str:
    """Render a problem on one line."""
    word = {Severity.REFUSED: "**Refused** ", Severity.ERROR: "**Error** ", Severity.WARNING: ""}[problem.severity]
    return f"{word}{told(problem)}"


def told(problem: Problem) -> str:
    """Render where and what a problem is, and the remedy."""
    hint = f" → {prose(problem.hint)}" if problem.hint else ""
    return f"{code(values.shorten(problem.where))} {prose(problem.summary)}{hint}"


class Page:
    """What is written so far, the bytes that are left, and how many lines did not fit."""

    def __init__(self, limit: int = LIMIT) -> None:
        self.room, self.left_out, self.parts = limit - _MARGIN, 0, list[str]()

    def add(self, lines: Sequence[str]) -> None:
        """Add lines, whether or not they fit."""
        self.parts += self.aside(lines)

    def aside(self, lines: Sequence[str]) -> builtins.list[str]:
        """Take the room for lines that are to stand further below."""
        text = "\n".join(lines)
        self.room -= _size(text) + 2
        return [text] if lines else []

    def notices(self, lines: Sequence[str], room: int) -> None:
        """Add what fits, each line by itself: a long one hides none of the others."""
        shown = [line for line in lines if _size(line) <= room // 4] or lines
        shown = fitting(shown, room)
        self.left_out += len(lines) - len(shown)
        self.add(["\n\n".join(shown)] if shown else [])

    def table(
        self, rows: Sequence[tuple[str, str]], fold: str = "", *, bare: Sequence[str] = (), third: str = "why"
    ) -> int:
        """Add a table for each heading, with ``third`` over its third column; return how many rows fit.

        With ``fold`` it is folded away, and open where it is short. ``bare`` are the lines to show in place of all of
        it, where that does not fit.
        """
        if bare and sum(_size(row) + 1 for _, row in rows) + _TABLES > self.room:
            return self.list(bare)
        number = len(fitting([row for _, row in rows], self.room - _TABLES))
        self.left_out += len(rows) - number
        title = f"{fold} ({len(rows):,})" if fold else ""
        self.add(_fold(title, _tables(rows[:number], third), open=len(rows) <= _OPEN))
        return number

    def list(self, lines: Sequence[str], fold: str = "") -> int:
        """Add the lines that fit, and return how many those are."""
        shown = fitting(lines, self.room - _TABLES)
        self.left_out += len(lines) - len(shown)
        self.add(_fold(fold, "\n".join(shown)))
        return len(shown)


def fitting(lines: Iterable[str], room: int) -> list[str]:
    """Return the first lines, as many as fit into some bytes; what is behind them need not be made."""
    taken = []
    for line in lines:
        room -= _size(line) + 1
        if room < 0:
            break
        taken.append(line)
    return taken


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _tables(rows: Sequence[tuple[str, str]], third: str) -> str:
    tables = []
    for heading, members in groupby(sorted(rows, key=lambda row: row[0]), key=lambda row: row[0]):
        lines = [f"**{prose(heading)}**", "", f"| | resource | {third} | what |", "|-|-|-|-|"]
        tables.append("\n".join([*lines, *(row for _, row in members)]))
    return "\n\n".join(tables)


def _fold(title: str, body: str, *, open: bool = False) -> list[str]:
    if not body or not title:
        return [body] if body else []
    shown = " open" if open else ""
    return [f"<details{shown}><summary>{title}</summary>\n\n{body}\n\n</details>"]
