"""The loop: level-triggered, woken early by whoever knows of something, and never ended by what one cycle meets.

Each cycle takes the newest good revision and looks at everything anew: a hint that is lost costs time, never safety.
The stack is kept between cycles with its connections, its login and what was parsed, as long as neither the directory
nor a secret's file has changed and nothing went wrong.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Collection
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from datetime import timedelta

from reconciler import heartbeat, journal
from reconciler.daemon import cycle as cycles
from reconciler.daemon.applied import Applied
from reconciler.daemon.approvals import Approving
from reconciler.daemon.board import Bell, Board
from reconciler.daemon.cycle import Clock, Paces, Report, Surroundings
from reconciler.daemon.examination import Examination
from reconciler.daemon.pace import Carried, Contests
from reconciler.daemon.source import Source
from reconciler.daemon.state import Cause, Cycle, Result, Revision, Sourced, State
from reconciler.daemon.watch import Watch
from reconciler.desired.load import Directory
from reconciler.problem import Problem, ReconcilerError
from reconciler.reconcile import standing
from reconciler.secrets import Secrets
from reconciler.settings import Settings
from reconciler.stack import Choice, Stack
from reconciler.suspension import current

INTERVAL = 300.0
"""Seconds from one cycle to the next, where nothing else is said."""

_RENEWED = 3600.0  # seconds that a stack is kept at most: what providers answered, and which day it is, grows old
_JITTER = 0.1  # of the interval: many who start at one time do not ask at one time
_MOMENT = 5.0  # seconds: a fetch takes one, and who hangs is heard in a later cycle
_FAR = 10.0  # seconds: who is asked less often than that is far away, and each question costs
_STARTING = 60.0  # seconds that a container which has just come may need until it answers
_SETTLED = 0.5  # seconds that what the engine tells is waited for to end: an `up` makes several containers


@dataclass(slots=True)
class Loop:
    """One stack's daemon. ``settings`` makes new settings, ``interval`` holds in place of the directory's where given.

    ``begun`` and ``ended`` are told of each cycle, and what the latter can't do is a problem of it; ``renewed`` of each
    new stack, whose secrets are to be kept out of all that is shown; ``unexpected`` of exceptions that should not be.
    ``came`` tells by which commits the source went from one to another, and what they merged.
    """

    source: Source
    settings: Callable[[], Settings]
    board: Board
    bell: Bell
    choice: Choice = field(default_factory=Choice)
    interval: float | None = None
    around: Surroundings = field(default_factory=Surroundings)
    begun: Callable[[], None] = lambda: None
    ended: Callable[[Stack | None, State], tuple[Problem, ...]] = lambda _stack, _state: ()
    unexpected: Callable[[Exception], None] = lambda _: None
    renewed: Callable[[Stack], None] = lambda _: None
    came: Callable[[str, str], Collection[str]] = lambda _base, _head: ()
    _directory: Directory | None = None
    _resumed: str = ""
    _kept: tuple[Stack, float] | None = None
    _secrets: Secrets | None = None
    _paces: Paces = field(default_factory=lambda: Paces(INTERVAL))
    _contests: Contests = field(default_factory=Contests)
    _watch: Watch = field(default_factory=Watch)
    _applied: Applied = field(default_factory=Applied)
    _examination: Examination = field(default_factory=Examination)
    _approving: Approving = field(init=False)
    _number: int = 0
    _newest: str = ""
    _poll: _Poll | None = None

    def __post_init__(self) -> None:
        """What is approved goes by what was merged."""
        self._approving = Approving(self.came)

    # ------------------------------------------------------------------------------------------------------- for ever
    def run(self) -> None:
        """Go on until a signal ends it."""
        cause: Cause = Cause.START
        while not self.around.stopped():
            self.cycle(cause)
            cause = self._wait()

    def _wait(self) -> Cause:
        """Wait for the next cycle; say why it begins."""
        until, cause = self.due()
        self.board.publish(replace(self.board.state, next=Clock.now().told(until)))
        while (left := until - time.monotonic()) > 0 and not self.around.stopped():
            rung = self.bell.wait(min(left, self.source.pause), self.around.stopped)
            if rung is Cause.ENGINE:
                time.sleep(_SETTLED)
            if rung is not None:
                return rung
            if self.source.newest() != self._newest:
                return Cause.REVISION
        return cause

    def due(self) -> tuple[float, Cause]:
        """Return when the next cycle begins, monotonic, and why, where nothing wakes it before."""
        now, interval = time.monotonic(), self._paces.interval
        due = now + interval * (1 - _JITTER * random.random())  # noqa: S311 (no secret)
        early = [max(at, now) for at in (self._paces.next(), self._watch.due(now)) if at is not None]
        until = min((due, *early))
        return until, Cause.RETRY if until < due else Cause.INTERVAL

    # --------------------------------------------------------------------------------------- one that goes on elsewhere
    @property
    def carried(self) -> Carried:
        """What the next cycle has to know of those before, where another process runs it."""
        digest = self._directory.digest if self._directory is not None else self._resumed
        lasting = frozenset(name for name, problem in self._paces.problems.items() if problem.lasting)
        return Carried(digest, dict(self._paces.known), lasting, self._contests)

    def resume(self, carried: Carried) -> None:
        """Go on where another process has left off; no cycle of this one has begun yet."""
        self._resumed = carried.digest
        self._paces.resume(carried.paces, carried.lasting)
        self._contests = carried.contests

    # ------------------------------------------------------------------------------------------------------ one cycle
    def cycle(self, cause: Cause) -> State:
        """Run one cycle and publish what is known then. It never raises."""
        with heartbeat.heard_by(self.board.expect):
            return self._cycle(cause)

    def _cycle(self, cause: Cause) -> State:
        began, start = journal.now(), time.monotonic()
        self._number += 1
        self.begun()
        sourced = self._sourced()
        self._woken(cause, sourced)
        report, stack = self._report(sourced)
        ended = Cycle(
            self._number,
            cause,
            began,
            journal.now(),
            round(time.monotonic() - start, 3),
            report.result,
            report.outcomes,
            report.drift,
            report.lost,
            report.problems,
        )
        state = self._state(sourced, report, stack, ended)
        if problems := (*self._watch.problems, *self._examination.problems(), *self.ended(stack, state)):
            state = replace(state, problems=problems)
        self.board.publish(state, ended=True)
        return state

    def _sourced(self) -> Sourced:
        """Take the newest revision, and remember by what name a newer one is told from it."""
        near = self.source.pause < _FAR
        name = self.source.newest() if near else ""
        sourced = self._polled()
        self._newest = name if near else sourced.seen
        return sourced

    def _polled(self) -> Sourced:
        """Poll the source. Once there is a good revision, healing waits only a moment for one that hangs."""
        former = self.board.state.source
        if self._poll is None:
            self._poll = _Poll(self.source)
        if not self._poll.ended.wait(_MOMENT if former.revision is not None else None):
            return former
        ended, self._poll = self._poll, None
        return ended.given or replace(former, problems=ended.problems)

    def _woken(self, cause: Cause, sourced: Sourced) -> None:
        """Let nothing wait that may be otherwise now: a person asks, a container was made anew, a revision came."""
        if cause is Cause.ENGINE:
            self._paces.starting = time.monotonic() + _STARTING
            self._paces.forget("stalwart", "compose")
        directory = sourced.revision.directory if sourced.revision is not None else self._directory
        known = self._directory is None and directory is not None and directory.digest == self._resumed
        revised, self._directory = directory is not self._directory and not known, directory
        if cause in (Cause.HANGUP, Cause.REQUEST) or revised:
            self._paces.forget()
            self._contests = Contests()
        if cause in (Cause.HANGUP, Cause.REQUEST) and self._kept is not None:
            self._kept[0].refusals.forget()
            self._kept = None

    def _report(self, sourced: Sourced) -> tuple[Report, Stack | None]:
        if sourced.revision is None:
            return Report(Result.FAILED, problems=sourced.problems), None
        stack: Stack | None = None
        try:
            stack = self._stack(sourced.revision)
            return self._healed(stack), stack
        except ReconcilerError as error:
            return Report(Result.FAILED, problems=error.problems), stack
        except Exception as error:  # noqa: BLE001 (a cycle that meets what nobody thought of must not end the loop)
            self.unexpected(error)
            self._kept = None
            summary = f"this is a bug: {type(error).__name__} in a cycle"
            return Report(Result.FAILED, problems=(Problem("daemon", summary, "report it with the log"),)), stack

    def _stack(self, revision: Revision) -> Stack:
        """Return the stack of a revision: the one of the last cycle, while nothing it goes by has changed."""
        now, failover = time.monotonic(), None
        if self._switches(revision):
            data = self._kept[0].data if self._kept is not None else self.settings().own_data()
            failover = self._watch.rule(data, revision.directory.spec)
        if self._kept is not None:
            stack, since = self._kept
            same = stack.directory is revision.directory and stack.failover == failover
            if same and now - since < _RENEWED and not stack.secrets.stale:
                return stack
        declared = revision.directory.spec.daemon
        self._paces.interval = self.interval or declared.interval or INTERVAL
        checked = timedelta(seconds=declared.check_passwords) if declared.check_passwords else False
        choice = replace(self.choice, check_passwords=self.choice.check_passwords or checked)
        stack = Stack(
            revision.directory,
            self.settings(),
            choice,
            unexpected=self.unexpected,
            unattended=True,
            revision=revision.commit or None,
            failover=failover,
        )
        if self._secrets is not None:  # the page shows what the last cycle heard, also while this one begins
            stack.secrets.remember(self._secrets)
        self._kept, self._secrets = (stack, now), stack.secrets
        self.renewed(stack)
        return stack

    def _switches(self, revision: Revision) -> bool:
        """Whether it is this daemon that gives consumers their values."""
        declared = revision.directory.spec.targets.compose is not None
        return declared and (not self.choice.targets or "compose" in self.choice.targets)

    def _look(self, stack: Stack, report: Report) -> None:
        """See whether the provider in use takes mail; what is decided then is done by a cycle that begins at once."""
        if "compose" not in stack.chosen:
            return
        suspended = current(stack.data, stack.name) is not None
        settled = report.plan is not None and standing(report.plan, "compose")[0] == "in_sync"
        if self._watch.look(stack, time.monotonic(), settled=settled, suspended=suspended):
            self._paces.forget("compose")
            self._contests = Contests()
            self.bell.ring(Cause.FAILOVER)

    def _healed(self, stack: Stack) -> Report:
        now = time.monotonic()
        stack.held = {name: why for name, why in self._paces.held(now).items() if name in stack.chosen}
        former = self.board.state.plan
        untold = self._approving.begin(stack)
        if current(stack.data, stack.name) is not None:
            report = cycles.look(stack, Result.SUSPENDED)
        else:
            barred = {address for address, _ in self._contests.open(now)}
            report = cycles.heal(stack, former, barred, self.around)
        untold = (*untold, *self._approving.end(stack, report.plan, report.outcomes))
        report = replace(report, problems=(*report.problems, *untold))
        now = time.monotonic()
        self._paces.note(report, stack.held, stack.chosen, now)
        self._contests = self._contests.mended(cycles.mended_fields(report, former), now)
        if report.plan is None or report.plan.errors or report.plan.unread:
            self._kept = None  # what could not be read is read anew, not remembered
        self._look(stack, report)
        self._examination.look(stack, report, time.monotonic())
        return report

    # ------------------------------------------------------------------------------------------------ what is known now
    def _state(self, sourced: Sourced, report: Report, stack: Stack | None, ended: Cycle) -> State:
        former, clock, now = self.board.state, Clock.now(), time.monotonic()
        if stack is None:
            return replace(former, source=sourced, cycle=ended)
        self._applied.look(stack)
        states = {item.name: item for item in former.targets}
        return replace(
            former,
            stack=stack.name,
            interval=self._paces.interval,
            source=sourced,
            cycle=ended,
            plan=report.plan or former.plan,
            facts=report.facts if report.plan is not None else former.facts,
            targets=cycles.target_states(report, stack.chosen, self._paces, states, clock),
            contested=cycles.contests(self._contests, report.plan, now, clock),
            losses=self._applied.losses,
            suspended=current(stack.data, stack.name),
            next="",  # what was said of this cycle; of the next one is told when it is waited for
            healed=self._applied.latest,
            lease=stack.lease().holder(),
            provider=self._watch.state if "compose" in stack.chosen else None,
            findings=self._examination.findings,
            examined=self._examination.ended,
            problems=(),
        )


class _Poll:
    """A poll that is under way in a thread of its own, which ends with the process."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.given: Sourced | None = None
        self.problems: tuple[Problem, ...] = ()
        self.ended = threading.Event()
        threading.Thread(target=copy_context().run, args=(self._run,), name="source", daemon=True).start()

    def _run(self) -> None:
        try:
            self.given = self._source.poll()
        except Exception as error:  # noqa: BLE001 (what a source does not promise; the loop goes on)
            summary = f"this is a bug: {type(error).__name__} while looking for revisions"
            self.problems = (Problem("source", summary, "report it with the log"),)
        finally:
            self.ended.set()
