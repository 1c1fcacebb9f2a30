"""What the daemon does about the provider in use: asks whether it takes mail, decides, and remembers what it decided.

The loop makes its stack with the failover that comes out of it. Nothing is switched that can't be remembered: a daemon
that starts again would go back at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from reconciler import failover as memories
from reconciler import journal
from reconciler.daemon.failover import Course, Look, Terms, decided, is_due, looked, ruled
from reconciler.daemon.state import ProviderState
from reconciler.desired.spec import Spec
from reconciler.failover import Failover, Memory
from reconciler.problem import Problem, Severity
from reconciler.stack import Stack
from reconciler.targets.compose.reception import Tried


@dataclass(slots=True)
class Watch:
    """One stack's. ``problems`` are what went wrong with its memory."""

    problems: tuple[Problem, ...] = ()
    _place: tuple[Path, str] | None = None
    _course: Course = field(default_factory=Course)
    _terms: Terms | None = None
    _kept: Memory = field(default_factory=Memory)
    _tried: Tried = field(default_factory=Tried)
    _last: float | None = None

    # ------------------------------------------------------------------------------------------------ before a cycle
    def rule(self, data: Path, spec: Spec) -> Failover | None:
        """Return the failover that holds for a revision; where that says otherwise, it has ended."""
        if self._place != (data, spec.stack):
            self._recall(data, spec.stack)
        self._terms = Terms.of(spec)
        ruling = ruled(self._course, self._terms)
        if ruling is not self._course:
            self._course, self._tried, self._last = ruling, Tried(), None
        self._keep(self._course)
        return self._course.failover

    def _recall(self, data: Path, stack: str) -> None:
        self._place = (data, stack)
        self._kept, damage = memories.recall(data, stack)
        self._course = Course.recalled(self._kept)
        if damage:
            summary = f"{damage}, so consumers use what the directory says; nothing is switched for an hour"
            self.problems = (Problem("failover", summary, "look who writes there", Severity.WARNING),)

    def _keep(self, course: Course) -> bool:
        """Remember how it goes; tell whether that is done."""
        if course.memory == self._kept or self._place is None:
            return True
        try:
            memories.remember(*self._place, course.memory)
        except OSError as error:
            why = error.strerror or type(error).__name__
            summary = f"can't be remembered, so nothing is switched: {why}"
            hint = f"free space, or let the daemon's user write to {self._place[0]}"
            self.problems = (Problem("failover", summary, hint, Severity.WARNING),)
            return False
        self._kept, self.problems = course.memory, ()
        return True

    # ------------------------------------------------------------------------------------------------- after a cycle
    def look(self, stack: Stack, now: float, *, settled: bool, suspended: bool) -> bool:
        """Ask the provider in use, unless that was done a moment ago. Returns whether consumers are to be switched.

        ``now`` is monotonic, in seconds. ``stack`` is of the revision that `rule` heard of last. Only where it is
        ``settled`` a login may be tried: consumers have what is desired, so no guard keeps a password from its host.
        """
        terms = self._terms
        if terms is None or not (self._last is None or now - self._last >= terms.pause):
            return False
        seconds, self._last = (0.0 if self._last is None else now - self._last), now
        course = looked(
            self._course, self._seen(stack, terms, settled=settled, suspended=suspended), seconds, journal.now()
        )
        obstacles = _obstacles(stack, terms) if is_due(course, terms) else ()
        made = decided(course, terms, obstacles, journal.now())
        switched = made.failover != self._course.failover
        if switched and not self._keep(made):
            made, switched = replace(course, obstacles=("it can't be remembered",)), False
        self._course = made
        return switched

    def _seen(self, stack: Stack, terms: Terms, *, settled: bool, suspended: bool) -> Look:
        if suspended:
            return Look(None, suspended=True)
        found = stack.takes_mail(terms.provider, self._tried if settled else None)
        why = f"{found.why.where}: {found.why.summary}" if found.why else ""
        return Look(found.taken, why, found.refused)

    def due(self, now: float) -> float | None:
        """Return when to look again though no cycle is due, monotonic; None while there is nothing to watch closely."""
        if self._terms is None or self._last is None or self._course.calm or self._course.look.suspended:
            return None
        return max(now, self._last + self._terms.pause)

    @property
    def state(self) -> ProviderState | None:
        """How the provider stands; None where nobody stands in for it."""
        if self._terms is None:
            return None
        course, look = self._course, self._course.look
        names = (self._terms.provider, self._terms.to)
        return ProviderState(
            *names, look.taken, course.since, look.why, look.refused, course.obstacles, course.failover
        )


def _obstacles(stack: Stack, terms: Terms) -> tuple[str, ...]:
    """Say why the standby can't be used: name servers do not show its records, or it takes no mail itself."""
    reception = stack.takes_mail(terms.to, None)
    why = reception.why.summary if reception.why else "whether it takes mail can't be told"
    return (*stack.unpublished(terms.to), *([] if reception.taken else [f"{terms.to}: {why}"]))
