"""From what the parser stumbled over to what a person most likely did: a colon forgotten, a line indented too far.

The parser stops where nothing fits any more, which often is lines below the slip. Lines are named by their numbers:
what stands there may be a secret.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ruamel.yaml.error import MarkedYAMLError

_COLON = re.compile(r":(\s|$)")
_VALUE = re.compile(r":\s+[^\s#]")
_DASHES = re.compile(r"(-\s+)*")
_WORD = re.compile(r"[a-z_]+:")  # of the format; names of things are addresses, domains and the like
_INDENT = "indent it, and what belongs to it, like its neighbours"


class Slip(NamedTuple):
    """What a person most likely did, at a line and a column that count from 0."""

    line: int
    column: int
    summary: str
    hint: str


class _Line(NamedTuple):
    number: int
    indent: int
    words: str

    @property
    def depth(self) -> int:
        """The column where its key begins, behind the dashes of a list."""
        return self.indent + len(self.words) - len(self.said)

    @property
    def said(self) -> str:
        """What stands there without the dashes of a list."""
        return self.words[_DASHES.match(self.words).end() :]  # type: ignore[union-attr]


def slip(error: MarkedYAMLError, text: str) -> Slip | None:
    """Say what most likely was done; None where nothing speaks for anything."""
    mark, begun = error.problem_mark, error.context_mark
    if mark is None:
        return None
    problem, context = str(error.problem or ""), str(error.context or "")
    if "mapping values are not allowed" in problem:
        lines = list(_lines(text, mark.line + 1))
        return _colon(lines, mark.column) if lines and lines[-1].number == mark.line else None
    if begun is not None and "simple key" in context:
        return _no_colon(begun.line, begun.column)
    if begun is not None and begun.line < mark.line and ("flow" in context or "quoted" in context):
        what = "quote" if "quoted" in context else "bracket"
        return Slip(begun.line, begun.column, f"opens a {what} that is not closed", f"close the {what} where it ends")
    if "block" in context:
        return _misfit(list(_lines(text, mark.line)), mark.line, mark.column)
    return None


def _lines(text: str, end: int) -> Iterator[_Line]:
    """Yield the lines before ``end`` in which something stands."""
    for number, line in enumerate(text.split("\n")[:end]):
        words = line.strip()
        if words and not words.startswith("#"):
            yield _Line(number, len(line) - len(line.lstrip(" ")), words)


def _no_colon(line: int, column: int) -> Slip:
    return Slip(line, column, "has no colon", "end a key with a colon; text that goes on is indented below its key")


def _colon(lines: Sequence[_Line], column: int) -> Slip | None:
    """Judge a colon where no key can stand: the second of its line, or of a line that goes on with the one above."""
    *above, last = lines
    if not above or _COLON.search(last.words[: column - last.indent]) or last.words[0] in "{[\"'":
        return None
    former = above[-1]
    if not _COLON.search(former.said):
        return _no_colon(former.number, former.depth)
    if _VALUE.search(former.said) and last.indent > former.depth:
        summary = f"is indented further than line {former.number + 1}, which has its value already"
        return Slip(
            last.number, last.indent, summary, f"indent it as line {former.number + 1}: {_blanks(former.depth)}"
        )
    return None


def _misfit(above: Sequence[_Line], number: int, indent: int) -> Slip | None:
    """Judge a line that fits into nothing: by the indentations that are open above it, and by who closed its own."""
    opened: list[int] = []
    closed: dict[int, _Line] = {}
    for line in above:
        while opened and opened[-1] > line.indent:
            closed[opened.pop()] = line
        for depth in (line.indent, line.depth):
            opened += [depth] if not opened or depth > opened[-1] else []
    if indent in opened:
        alike = (line for line in above if line.indent == indent and re.match(r"-[^\s-]", line.words))
        if (tight := next(alike, None)) is not None:
            return Slip(tight.number, tight.indent, "has a dash without a blank after it", "write it as - KEY: VALUE")
        return None
    closer = closed.get(indent)
    if closer is not None and not _WORD.match(closer.said):
        summary = f"stands too far left: it ends what line {number + 1} still belongs to"
        return Slip(closer.number, closer.indent, summary, _INDENT)
    nearest = [*[depth for depth in opened if depth < indent][-1:], *[it for it in opened if it > indent][:1]]
    summary = f"is indented by {_blanks(indent)}, and nothing above that it could belong to is"
    return Slip(number, indent, summary, f"indent it by {' or '.join(map(str, nearest))}") if nearest else None


def _blanks(count: int) -> str:
    return "1 blank" if count == 1 else f"{count or 'no'} blanks"
