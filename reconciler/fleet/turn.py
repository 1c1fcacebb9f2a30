"""One stack's turn on a worker: it is taken, the daemon's own cycle runs, and the table is told how it ended."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from reconciler import fence, files, journal, suspension, throttle
from reconciler.daemon import document, notices, taken
from reconciler.daemon.board import Bell, Board
from reconciler.daemon.checkout import Checkout, Following
from reconciler.daemon.cycle import Surroundings
from reconciler.daemon.loop import Loop
from reconciler.daemon.pace import Carried
from reconciler.daemon.remote import Remote
from reconciler.daemon.state import Cause, Result, Sourced, State
from reconciler.daemon.store import Signers
from reconciler.fleet.database import DatabaseAway
from reconciler.fleet.secrets import environment
from reconciler.fleet.source import Joined, Shared
from reconciler.fleet.table import UNSERVED, Ended, Row, Table, Troubles, Whole
from reconciler.problem import LeaseHeld, LeaseLost, Problem, ReconcilerError, printable
from reconciler.settings import Settings
from reconciler.suspension import Suspension

if TYPE_CHECKING:
    from reconciler.daemon.logs import Log
    from reconciler.stack import Stack

STACKS = "stacks"
"""The folder of the workers' data that holds each stack's."""
FRESH = "request"
"""The cause of a cycle that a person asked for: what was refused is tried again."""

_AGAIN = 2.0  # seconds until a stack is tried again whose apply could not begin, or was broken off


@dataclass(frozen=True, slots=True)
class Machine:
    """What a worker has on its machine: its data, the secrets of its stacks, and the environment it was started in.

    ``home`` is the data's name: a login that was refused is remembered there, and nowhere else. ``signers`` must have
    signed what is taken, where there are any; ``accept`` names a commit that may come though its history is another.
    """

    data: Path
    home: str
    environ: Mapping[str, str] = field(repr=False)
    secrets: Path | None = None
    signers: Signers = field(default_factory=Signers)
    accept: str = ""


class Claim:
    """The right to write to a stack: it is ours while nobody has taken it after us (a `reconciler.fence.Fence`)."""

    def __init__(self, table: Table, row: Row, requests: float) -> None:
        self._table, self.row, self._requests = table, row, requests

    def check(self) -> None:
        """Ask the table. Raises `LeaseLost`, also where it does not answer: then nobody knows."""
        try:
            if self._table.holds(self.row):
                return
        except DatabaseAway as error:
            summary = "the fleet's database does not answer, so nothing more was written"
            raise LeaseLost(Problem(f"stack {self.row.name}", summary, error.problems[0].hint)) from None
        summary = "another worker has taken the stack, so nothing more was written"
        hint = "this one was stopped, or was not heard of for too long; the other goes on"
        raise LeaseLost(Problem(f"stack {self.row.name}", summary, hint))

    def renew(self) -> None:
        """The worker's heartbeat does that."""

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Have the mail server for ourselves. Raises `LeaseHeld` where another stack is written there.

        So it does where the stack is another one by now than that whose cycle began, or suspended: to fetch and to
        compare may have taken minutes.
        """
        row = self.row
        if not self._table.is_wanted(row, datetime.now(UTC)):
            summary = "the stack was suspended, or its entry changed, while it was looked at"
            raise LeaseHeld(Problem(f"stack {row.name}", summary, "it is looked at again in a moment"))
        server = str(row.declared.get("server") or f"stack {row.name}")
        if not self._table.occupy(row, server):
            summary = f"another stack is being written to {server}: one at a time"
            raise LeaseHeld(Problem(f"stack {row.name}", summary, "it is tried again in a moment"))
        try:
            yield
        finally:
            self._table.leave(row)

    def pay(self, system: str) -> None:
        """Wait for the turn of a request to Cloudflare; all stacks of the account share them."""
        if system != "cloudflare":
            return
        wait = self._table.pay(self.row.account, self._requests)
        while wait > 0 and fence.wait(min(wait, 1.0)):
            wait -= 1.0


@dataclass(slots=True)
class Work:
    """What a worker does with a stack's name. ``shared`` returns a revision of the shared files, ``log`` makes a log.

    ``listens`` is what it takes stacks from. ``stopped`` says that a signal asks to end; ``unexpected`` hears of
    exceptions that should not be.
    """

    table: Table
    name: str
    place: Machine
    listens: Sequence[str]
    shared: Callable[[str], Shared]
    log: Callable[[str, Callable[[str], str]], Log]
    stopped: Callable[[], bool] = lambda: False
    unexpected: Callable[[Exception], None] = lambda _: None

    def turn(self, name: str) -> None:
        """Take a stack and run its cycle. Where the database goes away, others will see that nobody ended it."""
        try:
            row = self.table.claim(name, self.name, self.listens)
            if row is not None:
                self.table.end(row, self._ended(row))
        except DatabaseAway:
            raise  # the worker tells of it
        except Exception as error:
            self.unexpected(error)
            raise

    def _ended(self, row: Row) -> Ended:
        try:
            return self._cycle(row)
        except DatabaseAway:
            raise
        except ReconcilerError as error:  # its place here, or its entry, is wrong: the other stacks go on
            trouble = ("stack", printable(error.problems[0].summary, 100), "can't be begun on the worker")
            self._say(row, error.problems)
            return _failed(row, self.table.whole(), trouble)
        except Exception as error:  # noqa: BLE001 (what nobody thought of must not end the worker)
            self.unexpected(error)
            return _failed(row, self.table.whole(), ("stack", type(error).__name__, "met a bug on the worker"))

    def _say(self, row: Row, problems: tuple[Problem, ...]) -> None:
        log = self.log(row.name, lambda text: text)
        for problem in problems:
            log.say("problem", where=problem.where, problem=problem.summary, hint=problem.hint)

    def _cycle(self, row: Row) -> Ended:
        whole, began = self.table.whole(), time.monotonic()
        claim = Claim(self.table, row, whole.requests)
        data = self.place.data / STACKS / row.name
        files.make_private(data.parent)
        files.make_private(data)
        _suspend(data, row, whole)
        environ = environment(self.place.environ, self.place.secrets, row.name)
        tried = self.table.revision(row.ring)
        source = self._source(row, tried, has_engine="DOCKER_HOST" in environ)
        settings = Settings.read(environ, None, data)
        loop, log = self._loop(row, source, settings, claim, whole.interval)
        with fence.within(claim, self.stopped), throttle.throttled_by(claim.pay):
            state = loop.cycle(_cause(row.cause))
        ended = _told(row, state, loop, source, self.place.home)
        ended = replace(ended, tried=tried, seconds=round(time.monotonic() - began, 3))
        log.say("cycle", cause=row.cause, result=ended.result, state=ended.state, commit=_commit(state)[:12])
        for problem in document.problems(state):
            log.say("problem", where=problem.where, problem=problem.summary, hint=problem.hint)
        return ended

    def _source(self, row: Row, tried: str, *, has_engine: bool) -> Joined:
        entry, place = row.declared, self.place
        project = Path(entry["project"]) if entry.get("project") else None
        remote = Remote.read(entry["repo"], entry["branch"])
        following = Following(
            remote, entry["directory"], place.signers, accept=place.accept, project=project, alone=True
        )
        newest = self.table.last_seen(entry["repo"], entry["branch"], fresh=True) if row.cause != FRESH else ""

        def follow(beside: Mapping[str, bytes]) -> Checkout:
            return Checkout(following, place.data, place.environ, beside, lambda: newest)

        former = taken.parsed(row.taken) if row.taken else None
        shared, why = self._shared(dict.fromkeys(item for item in (tried, row.shared) if item) or ("",))
        return Joined(row.name, follow, former, *shared, problems=why, has_engine=has_engine)

    def _shared(self, revisions: Iterable[str]) -> tuple[Sequence[Shared], Sequence[Problem]]:
        """Return the shared files that can be had, and why others can't. Raises `ReconcilerError` where none can."""
        found, why = list[Shared](), list[Problem]()
        for revision in revisions:
            try:
                found.append(self.shared(revision))
            except ReconcilerError as error:
                why += error.problems
        if not found:
            raise ReconcilerError(*why)
        return found, why

    def _loop(self, row: Row, source: Joined, settings: Settings, claim: Claim, interval: float) -> tuple[Loop, Log]:
        hidden: list[Callable[[str], str]] = [lambda text: text]
        log = self.log(row.name, lambda text: hidden[-1](text))  # noqa: PLW0108 (it is another one later)

        def renewed(stack: Stack) -> None:
            hidden.append(stack.secrets.redact)
            if row.cause == FRESH:
                stack.refusals.forget()

        loop = Loop(
            source,
            lambda: settings,
            Board(State(row.name, journal.now(), interval, Sourced(str(row.declared["repo"])))),
            Bell(),
            interval=interval,
            around=Surroundings(self.stopped, log.outcome, claim.writing),
            unexpected=self.unexpected,
            renewed=renewed,
            came=source.came,
        )
        if row.carried:
            loop.resume(Carried.parse(row.carried, time.monotonic(), row.age))
        return loop, log


def _suspend(data: Path, row: Row, whole: Whole) -> None:
    """Let the cycle find a suspension as the daemon's does: the inventory's, a command's, or the whole fleet's."""
    declared = row.declared.get("suspended")
    said = [Suspension(str(declared), "the inventory", "")] if declared else []
    said += [item for item in (row.suspended, whole.suspended) if item is not None]
    if said:
        suspension.suspend(data, row.name, said[0])
    else:
        suspension.resume(data, row.name)


def _cause(cause: str) -> Cause:
    try:
        return Cause(cause)
    except ValueError:
        return Cause.START


def _commit(state: State) -> str:
    """Return the revision that is healed to, empty without any."""
    return state.source.revision.commit if state.source.revision else ""


def _told(row: Row, state: State, loop: Loop, source: Joined, home: str) -> Ended:
    """Say of a cycle what the table is to know: words of ours, names and addresses, and no value."""
    assert state.cycle is not None
    word = str(document.Word.SUSPENDED if state.suspended else document.standing(state))
    wait, cause = _next(row, state, loop, word)
    failures = max((item.failures for item in state.targets), default=0)
    return Ended(
        result=str(state.cycle.result),
        state=word,
        wait=wait,
        cause=cause,
        stalled=document.is_stalled(state, document.standing(state)),
        home=home if document.waiting(state) else None,
        taken=taken.said(source.taken) if source.taken else None,
        shared=source.good if source.taken else row.shared,
        failures=failures if state.plan is not None else row.failures + 1,
        carried=loop.carried.as_json(time.monotonic()),
        troubles=(*_troubles(state), *_unserved(state)),
        pending=len(state.plan.pending) if state.plan else 0,
        changed=sum(item.status == "done" for item in state.cycle.outcomes),
    )


def _next(row: Row, state: State, loop: Loop, word: str) -> tuple[float, str]:
    """Say in how many seconds the next cycle begins, and why."""
    until, cause = loop.due()
    wait = max(0.0, until - time.monotonic())
    if state.cycle is not None and state.cycle.result in (Result.BUSY, Result.STOPPED):
        return _AGAIN, row.cause  # nothing is done yet, or half of it
    if state.plan is None:  # nothing could be looked at: no target tells how often that was so
        wait = min(wait, _pause(row.failures))
    return wait, "restore" if word == "lost" else str(cause)


def _troubles(state: State) -> Troubles:
    found = notices.troubles(state, datetime.now(UTC))
    return tuple((item.target, item.error, item.title) for item in found)


def _unserved(state: State) -> Troubles:
    if state.source.revision is None:
        return ()
    declared = state.source.revision.directory.spec.daemon
    if not (declared.notices or declared.github or declared.plans):
        return ()
    return (("daemon", UNSERVED, "notices, github and plans are a stack's own daemon's: no fleet serves them"),)


def _pause(failures: int) -> float:
    """Return how long to wait after so many cycles in a row that could not even begin, and one more."""
    paused: float = 5.0 * 2 ** min(failures, 10) * (0.5 + random.random() / 2)  # noqa: S311 (no secret)
    return paused


def _failed(row: Row, whole: Whole, trouble: tuple[str, str, str]) -> Ended:
    """Say of a cycle that could not run when it is tried again."""
    failures = row.failures + 1
    wait = min(_pause(row.failures), max(whole.interval, 30.0))
    return Ended(
        "failed",
        "failed",
        wait,
        "retry",
        stalled=True,
        home=row.home,
        shared=row.shared,
        tried=row.tried,
        failures=failures,
        carried=row.carried or {},
        troubles=(trouble,),
        pending=row.pending,
    )
