"""When consumers are switched to the standby, and when they go back. Pure: what is seen comes in, a decision goes out.

Time is what has passed between two looks on a clock that nobody sets, so a jump of the time of day does nothing. Only
an unbroken row of looks counts: what can't be told, a pause or a restart begins it anew. Each way is gone once an hour
at most. What a person says about providers ends a failover at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from reconciler.desired import failover as desired
from reconciler.desired.spec import Spec
from reconciler.failover import Failover, Memory

HOUR = 3600.0
LONGEST = 300.0  # seconds that one look may stand for: nobody looked for longer
_PAUSE = 60.0  # seconds between two looks
_STEP = 300.0  # seconds to which it is remembered how long ago something was


@dataclass(frozen=True, slots=True)
class Terms:
    """What the directory says: who stands in for whom, and after how many seconds."""

    provider: str
    to: str
    after: float
    back_after: float
    basis: str

    @classmethod
    def of(cls, spec: Spec) -> Self | None:
        """Read them; None where nobody stands in."""
        said, provider = spec.smtp.failover, spec.smtp.provider
        if said is None or provider is None:
            return None
        return cls(provider, said.to, said.after, said.back_after, desired.basis(spec))

    @property
    def pause(self) -> float:
        """Seconds to leave between two looks: a minute, or less where a shorter time has to be measured."""
        return min(_PAUSE, self.after / 2, self.back_after / 2)


@dataclass(frozen=True, slots=True)
class Look:
    """What one look showed: whether the provider takes mail, None where that can't be told.

    ``refused`` says that it is the login that it does not take. While somebody has ``suspended`` the stack no look
    counts.
    """

    taken: bool | None
    why: str = ""
    refused: bool = False
    suspended: bool = False


@dataclass(frozen=True, slots=True)
class Course:
    """How it goes. ``lasts`` is for how many seconds all looks agreed, ``since`` the time of day when that began.

    ``over`` and ``back`` are the seconds since the last switches, an hour at most. ``obstacles`` are why the standby
    can't be used although it is time.
    """

    failover: Failover | None = None
    basis: str = ""
    look: Look = Look(None)
    lasts: float = 0.0
    since: str = ""
    obstacles: tuple[str, ...] = ()
    over: float = HOUR
    back: float = HOUR

    @classmethod
    def recalled(cls, memory: Memory) -> Self:
        """Go on after a restart."""
        over, back = (HOUR if age is None else min(age, HOUR) for age in (memory.over, memory.back))
        return cls(memory.failover, memory.failover.basis if memory.failover else "", over=over, back=back)

    @property
    def memory(self) -> Memory:
        """What is to be remembered."""
        ages = (None if age >= HOUR else age // _STEP * _STEP for age in (self.over, self.back))
        return Memory(self.failover, *ages)

    @property
    def calm(self) -> bool:
        """Whether there is nothing to watch closely."""
        return self.failover is None and self.look.taken is True


def ruled(course: Course, terms: Terms | None) -> Course:
    """Heed what the directory says now: where it is another than what a failover was for, that has ended."""
    basis = terms.basis if terms is not None else ""
    if basis == course.basis:
        return course
    return Course(basis=basis, over=course.over, back=course.back)


def looked(course: Course, look: Look, seconds: float, now: str) -> Course:
    """Take note of a look, ``seconds`` after the one before; ``now`` is the time of day, to be shown."""
    passed = max(0.0, seconds)
    verdict = None if look.suspended else look.taken
    same = verdict is not None and verdict == course.look.taken
    return replace(
        course,
        look=replace(look, taken=verdict),
        lasts=course.lasts + min(passed, LONGEST) if same else 0.0,
        since=course.since if same else now,
        over=min(course.over + passed, HOUR),
        back=min(course.back + passed, HOUR),
    )


def is_due(course: Course, terms: Terms) -> bool:
    """Whether it is time for the standby: who can't be used then has to be found out."""
    return course.failover is None and course.look.taken is False and course.lasts >= terms.after


def decided(course: Course, terms: Terms, obstacles: Sequence[str], now: str) -> Course:
    """Switch over, go back, or leave it. ``obstacles`` say why the standby can't be used, where that `is_due`."""
    if is_due(course, terms):
        early = ("it was switched over less than an hour ago",) if course.over < HOUR else ()
        if early or obstacles:
            return replace(course, obstacles=(*early, *obstacles))
        failover = Failover(terms.provider, terms.to, now, course.look.why, terms.basis)
        return replace(course, failover=failover, obstacles=(), over=0.0)
    well = course.failover is not None and course.look.taken is True and course.lasts >= terms.back_after
    if well and course.back >= HOUR:
        return replace(course, failover=None, obstacles=(), back=0.0)
    return replace(course, obstacles=())
