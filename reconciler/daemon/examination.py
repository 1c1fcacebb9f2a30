"""`doctor`, once an hour: what no plan tells, looked at after a cycle that left nothing to do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from reconciler import journal
from reconciler.checks.check import Finding, Status
from reconciler.daemon.cycle import Report
from reconciler.daemon.state import Result
from reconciler.problem import Problem, Severity
from reconciler.stack import Stack

FIRST, EACH = 600.0, 3600.0
"""Seconds after the start until the first one, when what was started with us has come up; and between two."""

_ROOMS = ("container", "services", "smtp", "router", "dns", "mail")  # what a plan tells, the cycle has told
_CALM = (Result.NOTHING, Result.DONE)


@dataclass(slots=True)
class Examination:
    """What the last one found, and when the next is due (``now`` is monotonic, in seconds)."""

    findings: tuple[Finding, ...] = ()
    ended: str = ""
    _due: float | None = None

    def look(self, stack: Stack, report: Report, now: float) -> None:
        """Examine the stack if it is time, and nothing is being mended."""
        if self._due is None:
            self._due = now + FIRST
        if now < self._due or report.result not in _CALM or report.plan is None or report.plan.unread:
            return
        from reconciler.doctor import examine

        self._due = now + EACH
        self.findings, self.ended = examine(stack, _ROOMS, report.plan), journal.now()

    def problems(self) -> Iterator[Problem]:
        """Yield what a person should see to; what an apply mends, the daemon does."""
        for item in self.findings:
            if item.status in (Status.WARN, Status.ERROR) and item.remedy.command != "reconciler apply":
                yield Problem(item.check.id, item.verdict.summary, item.remedy.text, Severity.WARNING)
