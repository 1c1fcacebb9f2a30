"""What GitHub is told of each revision: a commit status, by which a workflow and a branch's rules know how it ended.

It is decided by the loop, which waits for nobody, and sent beside it: what can't be sent waits in the data directory,
and is tried again when GitHub allows it. Only what is newer of one commit is kept.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

from reconciler.daemon import backlog
from reconciler.daemon.state import Cycle, Result, State
from reconciler.github.api import GitHubError, Invalid, Repository, is_commit
from reconciler.github.statuses import Status, Word, context, put, short
from reconciler.problem import Problem, ReconcilerError, Severity
from reconciler.stack import Stack

_VERSION = 1
_KEPT = 30  # commits that are remembered
_MOST = 20  # statuses of one commit, of which GitHub takes 1,000: what changes with every cycle is not told for ever
_ENDING = 1.0  # seconds that `close` waits
_HINT = "its token needs the permission to write commit statuses of that repository; docs/github.md"


# ------------------------------------------------------------------------------------------------------ what is said
def verdict(state: State) -> tuple[Status, ...]:
    """Say how the revisions stand that a cycle was about: the one kept up, and a newer one that was not taken. Pure."""
    source, found = state.source, list[Status]()
    commit = source.revision.commit if source.revision else ""
    if commit and (said := _of_cycle(state)) is not None:
        found.append(Status(commit, *said))
    wrong = [item for item in source.problems if item.severity is not Severity.WARNING]
    if wrong and source.seen and source.seen != commit:
        found.append(Status(source.seen, Word.FAILURE, f"is not taken: {_sentence(wrong[0])}"))
    return tuple(item for item in found if is_commit(item.commit))


def _of_cycle(state: State) -> tuple[Word, str] | None:
    cycle = state.cycle
    if cycle is None or cycle.result is Result.STOPPED:
        return None
    if cycle.result in (Result.NOTHING, Result.DONE):
        return Word.SUCCESS, "is in force: everything is as it says"
    if cycle.result is Result.SUSPENDED:
        return Word.PENDING, "waits: the daemon is suspended"
    if cycle.result is Result.BUSY:
        return Word.PENDING, "waits: another reconciler is at work"
    problems = [item for item in _problems(state, cycle) if item.severity is not Severity.WARNING]
    refused = [item for item in problems if item.severity is Severity.REFUSED]
    retried = any(target.retry for target in state.targets)
    first = next(iter((*refused, *problems)), None)
    said = _sentence(first) if first else "something is left to do; see `reconciler status`"
    if retried and not refused:
        return Word.PENDING, f"is tried again: {said}"
    return Word.FAILURE, f"is not in force as a whole: {said}"


def _problems(state: State, cycle: Cycle) -> Iterator[Problem]:
    """Yield all that stands between a revision and its being in force, what was done first."""
    yield from cycle.problems
    yield from (item.problem for item in cycle.outcomes if item.problem)
    if state.plan is not None:
        yield from state.plan.problems
        waiting = (state.facts.get(change.address) for change in state.plan.changes)
        yield from (problem for fact in waiting if fact is not None for problem in fact.problems)
    yield from (target.problem for target in state.targets if target.problem)


def _sentence(problem: Problem) -> str:
    return f"{problem.where}: {problem.summary}"


# ---------------------------------------------------------------------------------------------------- what is known
@dataclass(frozen=True, slots=True)
class _Said:
    word: str
    description: str
    times: int = 0
    """How often something was sent of this commit."""

    @classmethod
    def parse(cls, value: Any) -> Self:
        return cls(str(Word(value["word"])), str(value["description"]), int(value["times"]))


@dataclass(frozen=True, slots=True)
class _Kept:
    """What was sent and what waits, by commit, the newest last; how often it was tried in vain, and when again."""

    sent: Mapping[str, _Said] = field(default_factory=dict)
    waiting: Mapping[str, _Said] = field(default_factory=dict)
    tries: int = 0
    next: str = ""
    why: str = ""

    @classmethod
    def parse(cls, value: Any) -> Self:
        if value["version"] != _VERSION:
            raise ValueError("version")
        sent, waiting = (
            {str(commit): _Said.parse(item) for commit, item in value[name].items()} for name in ("sent", "waiting")
        )
        if value["next"]:
            datetime.fromisoformat(value["next"])
        return cls(sent, waiting, int(value["tries"]), str(value["next"]), str(value["why"]))

    def as_json(self) -> bytes:
        sides = {
            name: {commit: {"word": it.word, "description": it.description, "times": it.times} for commit, it in s}
            for name, s in (("sent", self.sent.items()), ("waiting", self.waiting.items()))
        }
        return json.dumps(
            {"version": _VERSION, **sides, "tries": self.tries, "next": self.next, "why": self.why}
        ).encode()

    def with_more(self, status: Status) -> Self:
        """Let a status wait where it says something new.

        A success stays: what goes wrong later is no matter of the revision, and people are told of it elsewhere.
        """
        known = self.waiting.get(status.commit) or self.sent.get(status.commit)
        said = _Said(str(status.word), short(status.description), known.times if known else 0)
        if known is not None:
            same = (known.word, known.description) == (said.word, said.description)
            if same or known.word == Word.SUCCESS or (known.times >= _MOST and said.word != Word.SUCCESS):
                return self
        waiting = {
            **{commit: it for commit, it in self.waiting.items() if commit != status.commit},
            status.commit: said,
        }
        return replace(self, waiting=dict(list(waiting.items())[-_KEPT:]))

    def without(self, commit: str, said: _Said) -> Self:
        """Take a status out that was sent; a newer one of the same commit goes on waiting."""
        sent = {**self.sent, commit: replace(said, times=said.times + 1)}
        waiting = {name: it for name, it in self.waiting.items() if (name, it) != (commit, said)}
        if commit in waiting:
            waiting[commit] = replace(waiting[commit], times=said.times + 1)
        return replace(self, sent=dict(list(sent.items())[-_KEPT:]), waiting=waiting, tries=0, next="", why="")


def _now() -> datetime:
    return datetime.now(UTC)


# ------------------------------------------------------------------------------------------------------- the sender
class Commits:
    """The statuses of one stack's revisions. Neither `taken` nor `tell` waits for anybody, or raises."""

    def __init__(self, data: Path, stack: str, url: str = "", clock: Callable[[], datetime] = _now) -> None:
        """Recall what was said; where that is damaged or gone, it is said anew. ``url`` is the API's."""
        self._stack, self._url, self._clock = stack, url, clock
        self._memory = backlog.Memory(data / f"statuses-{stack}.json", _Kept.parse, _Kept())
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._repository: Repository | None = None
        self._wrong: tuple[Problem, ...] = ()

    def taken(self, stack: Stack) -> None:
        """Say that a revision was taken and is about to be put in force."""
        commit = stack.revision or ""
        if is_commit(commit):
            self._say(
                stack, Status(commit, Word.PENDING, "was taken by the daemon and is being put in force"), begins=True
            )

    def tell(self, stack: Stack, state: State) -> None:
        """Say how a cycle ended."""
        self._say(stack, *verdict(state))

    def _say(self, stack: Stack, *statuses: Status, begins: bool = False) -> None:
        declared = stack.spec.daemon.github
        if declared is None:
            return
        try:
            token = stack.secrets(declared.token).strip()
            self._repository, self._wrong = Repository.of(declared.repository, token, self._url), ()
        except ReconcilerError as error:
            self._wrong = tuple(replace(item, where="daemon.github", hint=_HINT) for item in error.problems)
        with self._lock:
            kept = self._memory.kept
            for status in statuses:
                if begins and (status.commit in kept.sent or status.commit in kept.waiting):
                    continue
                kept = kept.with_more(replace(status, description=stack.secrets.redact(status.description)))
            self._memory.keep(kept)
            if kept.waiting and self._is_due() and self._repository and self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._send, name="statuses", daemon=True)
                self._thread.start()

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What stands between GitHub and the statuses: worth knowing, and nothing that stops healing."""
        with self._lock:
            why, lost, wrong = self._memory.kept.why, self._memory.problems, self._wrong
        unsent = (Problem("daemon.github", f"a commit status can't be set: {why}", _HINT),) if why else ()
        return tuple(replace(item, severity=Severity.WARNING) for item in (*wrong, *unsent, *lost))

    def finish(self, seconds: float) -> None:
        """Wait so long until all is sent that can be sent now, and begin nothing more."""
        if (thread := self._thread) is not None:
            thread.join(seconds)
        self.close()

    def close(self) -> None:
        """Begin nothing more. What is under way is hardly waited for: it is written down as not sent."""
        self._closed = True
        if (thread := self._thread) is not None:
            thread.join(_ENDING)

    def _is_due(self) -> bool:
        return backlog.is_due(self._memory.kept.next, self._clock())

    # -------------------------------------------------------------------------------------------- beside the loop
    def _send(self) -> None:
        """Send what waits, one after the other, until nothing does or GitHub wants to be left alone."""
        while (chosen := self._next()) is not None:
            repository, commit, said = chosen
            try:
                put(repository, context(self._stack), Status(commit, Word(said.word), said.description))
            except Invalid as error:  # such as of a commit that is gone: it must keep no other from being told
                with self._lock:
                    kept = self._memory.kept.without(commit, said)
                    self._memory.keep(replace(kept, why=error.problem.summary))
            except GitHubError as error:
                with self._lock:
                    self._memory.keep(self._failed(error))
            else:
                with self._lock:
                    self._memory.keep(self._memory.kept.without(commit, said))

    def _next(self) -> tuple[Repository, str, _Said] | None:
        with self._lock:
            if self._closed or self._repository is None or not self._memory.kept.waiting or not self._is_due():
                self._thread = None
                return None
            commit, said = next(iter(self._memory.kept.waiting.items()))
            return self._repository, commit, said

    def _failed(self, error: GitHubError) -> _Kept:
        """Return what is known after a failure: when GitHub is asked again, and not before it allows that."""
        pause = min(backlog.LONGEST, max(backlog.pause(self._memory.kept.tries), timedelta(seconds=error.retry or 0.0)))
        why = error.problem.summary
        return replace(
            self._memory.kept, tries=self._memory.kept.tries + 1, next=(self._clock() + pause).isoformat(), why=why
        )
