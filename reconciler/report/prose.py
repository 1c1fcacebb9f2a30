"""Texts in Markdown that mean what they say: whatever a value holds becomes no markup, link, mention or reference.

Only words are set as text, by a list of what a word is. All else (an address, a path, a value) is set as code, in which
neither CommonMark nor GitHub reads anything: no ``@name``, ``#1``, ``:tada:``, URL, formula, commit or HTML.
"""

from __future__ import annotations

import re

from reconciler.report import values

_WORD = re.compile(r"[(\"']?(?:[A-Za-z]?[a-z]*(?:['-][a-z]+)*|[A-Z]{1,12}|[0-9]{1,6})[\"')]?[.,;:!?]?")
# Two pieces of code never touch each other: their backticks would be one run. A reference to a secret is one piece.
_PARTS = re.compile(r"(?<!\S)(?:`[^`]+`|\{[a-z]+: [^{}`\s]+\})(?=[.,;:!?]?(?:\s|$))|\s|[^\s]+")
_COMMIT = re.compile(r"\b[0-9a-f]{7,40}\b", re.IGNORECASE)  # becomes a link where a commit begins so
_LONGEST = 30  # characters of a word
_TAIL = ".,;!?"


def prose(text: str) -> str:
    """Set a text for a person: words as text, values as code, and so what stands in backticks between blanks."""
    parts = _PARTS.findall(" ".join(values.escape(text).split()))
    return "".join(_part(part, first=not at) for at, part in enumerate(parts))


def _part(part: str, *, first: bool) -> str:
    if len(part) > 1 and part[0] == part[-1] == "`" and "`" not in part[1:-1]:
        return code(part[1:-1])
    listed = first and part[0].isdigit()  # "1." begins a list
    if part == " " or (_WORD.fullmatch(part) and len(part) <= _LONGEST and not listed and not _COMMIT.search(part)):
        return part
    tail = part[-1] if part[-1] in _TAIL and len(part) > 1 else ""
    return code(part.removesuffix(tail)) + tail


def code(text: str) -> str:
    """Set a text as code on one line: its fence is longer than any run of backticks in it."""
    safe = values.escape(text)
    fence = "`" * (max((len(run) for run in re.findall("`+", safe)), default=0) + 1)
    # A dollar sign beside a backtick begins a formula at GitHub; one blank on either side is taken off again.
    padded = not safe.strip() or safe[0] in "`$ " or safe[-1] in "`$ "
    blank = " " if padded else ""
    return f"{fence}{blank}{safe}{blank}{fence}"


def cell(text: str) -> str:
    """Keep a text, as the others here return it, in one cell of a table: there a pipe needs a backslash even as code.

    A backslash before it is shown by its number, since parsers differ in which of the two escapes the other.
    """
    return re.sub(r"(?<!\\)(\\*)\|", lambda found: "\\x5c" * len(found[1]) + "\\|", text)


def fenced(text: str) -> str:
    """Set a text as a block of code; the fence is longer than any run of backticks in it."""
    fence = "`" * max(3, max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    return f"{fence}\n{text.rstrip()}\n{fence}\n"
