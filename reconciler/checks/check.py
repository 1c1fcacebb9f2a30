"""A check, and what one finds. Pure: a check is told what was gathered, and asks nobody."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from reconciler.problem import Problem

Part = TypeVar("Part")


class Status(enum.StrEnum):
    """How a check ended; the words of the contract's JSON. Ordered from what is fine to what is not."""

    SKIP = "skip"  # there is nothing of this kind
    OK = "ok"
    UNKNOWN = "unknown"  # it could not be found out
    WARN = "warn"  # mail flows, and will not for ever or not everywhere
    ERROR = "error"  # this is why mail does not flow

    @property
    def rank(self) -> int:
        """How bad it is."""
        return list(Status).index(self)


@dataclass(frozen=True, slots=True)
class Remedy:
    """What to do. ``command`` is one to run as it stands; ``change`` an address that `reconciler apply` mends.

    ``lifts`` are bans that ``doctor --fix`` lifts, in the server's words.
    """

    text: str = ""
    command: str = ""
    change: str = ""
    lifts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check says of what it looked at. ``evidence`` is what was seen, a line each, and never a secret."""

    status: Status
    summary: str
    evidence: tuple[str, ...] = ()
    cause: str = ""
    remedy: Remedy = field(default_factory=Remedy)


@dataclass(frozen=True, slots=True)
class Unread:
    """Stands for a part of the evidence that could not be gathered, and says why."""

    why: str


@dataclass(frozen=True, slots=True)
class Check(Generic[Part]):
    """One check.

    ``part`` takes what it looks at out of the evidence: `Unread` makes it unknown, None (nothing is declared) skips
    it, a verdict is one already. ``symptom`` is what a person sees, ``cause`` why, ``remedy`` what mends it in general:
    the row of the table in ``docs/doctor.md``. ``reference`` is the RFC or the page that says so.
    """

    id: str
    symptom: str
    cause: str
    remedy: str
    reference: str
    part: Callable[[Any], Part | Unread | Verdict | None]
    judge: Callable[[Part], Verdict]

    @property
    def room(self) -> str:
        """The part of its id before the slash."""
        return self.id.partition("/")[0]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found."""

    check: Check[Any]
    verdict: Verdict

    @property
    def status(self) -> Status:
        """How the check ended."""
        return self.verdict.status

    @property
    def cause(self) -> str:
        """Why it is so: what was seen says more than the table."""
        return self.verdict.cause or (self.check.cause if self.status in (Status.WARN, Status.ERROR) else "")

    @property
    def remedy(self) -> Remedy:
        """What to do about it; nothing where nothing is wrong."""
        if self.verdict.remedy.text or self.status not in (Status.WARN, Status.ERROR):
            return self.verdict.remedy
        given = self.verdict.remedy
        return replace(given, text=self.check.remedy)


def find(check: Check[Any], evidence: Any) -> Finding:
    """Let a check judge the evidence."""
    part = check.part(evidence)
    if part is None:
        return Finding(check, skip("nothing of this kind is declared"))
    if isinstance(part, Unread):
        return Finding(check, unknown(part.why))
    if isinstance(part, Verdict):
        return Finding(check, part)
    return Finding(check, check.judge(part))


# ------------------------------------------------------------------------------------------------- making verdicts
def ok(summary: str, *evidence: str) -> Verdict:
    """Say that all is well."""
    return Verdict(Status.OK, summary, evidence)


def skip(why: str) -> Verdict:
    """Say that there is nothing to judge."""
    return Verdict(Status.SKIP, why)


def unknown(why: str, *evidence: str) -> Verdict:
    """Say that it could not be found out."""
    return Verdict(Status.UNKNOWN, why, evidence)


def warn(summary: str, *evidence: str, cause: str = "", remedy: Remedy = Remedy()) -> Verdict:
    """Say that something will go wrong, or does for some."""
    return Verdict(Status.WARN, summary, evidence, cause, remedy)


def error(summary: str, *evidence: str, cause: str = "", remedy: Remedy = Remedy()) -> Verdict:
    """Say that something is wrong."""
    return Verdict(Status.ERROR, summary, evidence, cause, remedy)


def told(problems: Sequence[Problem], fine: str, status: Status = Status.ERROR) -> Verdict:
    """Make a verdict of problems that were found elsewhere; ``fine`` is said where there are none."""
    if not problems:
        return ok(fine)
    return worst(
        (Verdict(status, f"{item.where}: {item.summary}", remedy=Remedy(item.hint)) for item in problems), fine
    )


def worst(verdicts: Iterable[Verdict], fine: str) -> Verdict:
    """Make one verdict of those on several things: the worst speaks, the others are evidence.

    ``fine`` is said where all are well.
    """
    found = sorted(verdicts, key=lambda item: -item.status.rank)
    if not found:
        return skip("nothing of this kind is declared")
    first, *rest = found
    if first.status is Status.OK:
        return ok(fine, *(item.summary for item in found if item.summary))
    others = [line for item in rest if item.status.rank > Status.OK.rank for line in (item.summary, *item.evidence)]
    return Verdict(first.status, first.summary, (*first.evidence, *others), first.cause, first.remedy)
