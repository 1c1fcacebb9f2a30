"""The daemon's log: a line for each change, for each problem that is new, and one for each cycle. On standard error."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any, TextIO

import structlog

from reconciler.daemon.state import State
from reconciler.problem import Problem, Severity
from reconciler.report.values import escape
from reconciler.target import Outcome, Status


class Log:
    """Writes it, as JSON or for a person's eye. ``redact`` is asked for each line: no secret is in it.

    ``fields`` stand in each line.
    """

    def __init__(
        self, *, as_json: bool, redact: Callable[[str], str], stream: TextIO | None = None, **fields: Any
    ) -> None:
        self._problems: frozenset[Problem] = frozenset()
        stream = stream or sys.stderr
        last = structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(colors=stream.isatty())
        self._logger: Any = structlog.wrap_logger(
            _Lines(stream),
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
                _harmless,
                *([structlog.processors.EventRenamer("msg")] if as_json else []),
                last,
                lambda _logger, _method, line: redact(str(line)),
            ],
        ).bind(**fields)

    def say(self, message: str, **fields: Any) -> None:
        """Write one line."""
        self._logger.info(message, **fields)

    def outcome(self, outcome: Outcome) -> None:
        """Tell of one change."""
        change = outcome.change
        facts = {"object": change.address, "action": ",".join(change.actions) or "adopt", "cause": str(change.reason)}
        if outcome.status is Status.DONE:
            self._logger.info("changed", target=change.target, **facts)
        else:
            why = str(outcome.problem) if outcome.problem else ""
            self._logger.warning("not changed", target=change.target, **facts, status=str(outcome.status), problem=why)

    def cycle(self, state: State) -> None:
        """Tell of a cycle, and of each problem that was not there at the one before."""
        problems = frozenset(_problems(state))
        for problem in sorted(problems - self._problems, key=str):
            write = self._logger.warning if problem.severity is Severity.WARNING else self._logger.error
            write("problem", where=problem.where, problem=problem.summary, hint=problem.hint, scope=problem.scope)
        for problem in sorted(self._problems - problems, key=str):
            self._logger.info("problem is over", where=problem.where, problem=problem.summary)
        self._problems = problems
        self._summary(state)

    def _summary(self, state: State) -> None:
        ended = state.cycle
        if ended is None:
            return
        revision, done = state.source.revision, Counter(str(item.status) for item in ended.outcomes)
        self._logger.info(
            "cycle",
            cycle=ended.number,
            cause=str(ended.cause),
            result=str(ended.result),
            commit=revision.commit[:12] if revision else "",
            duration_ms=round(ended.seconds * 1000),
            pending=len(state.plan.pending) if state.plan else None,
            problems=len(self._problems),
            **done,
        )


class _Lines:
    """Writes lines at once. One that can't be written is lost: a full disk must not end whoever heals."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def info(self, line: str) -> None:
        with contextlib.suppress(OSError):
            print(line, file=self._stream, flush=True)

    warning = error = info


def _problems(state: State) -> Iterator[Problem]:
    yield from state.source.problems
    if state.cycle is not None:
        yield from state.cycle.problems
    if state.plan is not None:
        yield from state.plan.problems


def _harmless(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Show each character that a terminal would act on: names come from strangers."""
    return {name: escape(value) if isinstance(value, str) else value for name, value in event.items()}
