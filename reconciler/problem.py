"""What went wrong, where, and what to do about it: one value and one error tree for the whole product."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace


class Severity(enum.StrEnum):
    """How much a problem stops."""

    ERROR = "error"  # what it names can't be planned or applied
    REFUSED = "refused"  # a guard forbids it until a person says otherwise
    WARNING = "warning"  # worth knowing; stops nothing


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where something stands: a file relative to the directory, line and column from 1. Line 0 is the whole file."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        """Render as editors and terminals link it: ``dns.yaml:5:12``."""
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, for a person to read and act on.

    ``where`` is an address (``account/noreply@mana.how``), a place in a file (``dns.yaml:5:12: dns.mana.how[2].ttl``)
    or the name of a system with its URL. ``summary`` says what is wrong, ``hint`` what to do. Neither ever holds a
    secret's value. ``scope`` is what the problem makes unreadable or forbids: a target's name, or ``dns/ZONE``.
    ``lasting`` is what no waiting mends: a refused login, until another secret, server or container is there.
    """

    where: str
    summary: str
    hint: str = ""
    severity: Severity = Severity.ERROR
    scope: str = ""
    lasting: bool = False

    def redacted(self, redact: Callable[[str], str]) -> Problem:
        """Return it with secrets taken out of its texts, for a form in which they would not be found any more."""
        return replace(self, where=redact(self.where), summary=redact(self.summary), hint=redact(self.hint))

    def __str__(self) -> str:
        """Render as one line, the hint in brackets."""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{self.where}: {self.summary}{hint}"


def once(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Tell each thing once: a warning that says what something worse says of the same adds nothing."""
    found = tuple(dict.fromkeys(problems))
    worse = {(item.where, item.summary) for item in found if item.severity is not Severity.WARNING}
    return tuple(it for it in found if it.severity is not Severity.WARNING or (it.where, it.summary) not in worse)


def printable(text: str, limit: int = 80) -> str:
    """Make a piece of a hostile file safe to print on one line of a terminal."""
    text = "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)
    return text if len(text) <= limit else f"{text[:limit]}..."


class ReconcilerError(Exception):
    """The root of every error we raise on purpose: problems, and the exit code they end with."""

    exit_code = 1

    def __init__(self, *problems: Problem) -> None:
        super().__init__(*problems)
        self.problems = problems

    def __str__(self) -> str:
        """Render one problem a line."""
        return "\n".join(str(problem) for problem in self.problems)


class InvalidDirectory(ReconcilerError):
    """The directory does not say what should be: nothing is planned."""

    exit_code = 3


class Refused(ReconcilerError):
    """A guard forbids it, or the plan is stale."""

    exit_code = 4


class LeaseHeld(ReconcilerError):
    """Another reconciler is at work on this stack."""

    exit_code = 5


class SecretUnreadable(ReconcilerError):
    """A reference to a secret leads nowhere."""


class TargetUnreadable(ReconcilerError):
    """A system can't be reached, refuses us, or answers what can't be understood."""


class LeaseLost(TargetUnreadable):
    """Another reconciler may be at work by now: what was about to be written was not sent, and nothing else will be."""
