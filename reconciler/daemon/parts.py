"""What stands around the loop: the page, the engine's events, notices, what metrics count, what `status` is told."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from reconciler import files
from reconciler.daemon.board import Bell, Board
from reconciler.daemon.memory import Memory
from reconciler.daemon.metrics import Tally
from reconciler.daemon.state import Cause, State
from reconciler.daemon.supervisor import Supervisor
from reconciler.problem import Problem, ReconcilerError, Refused
from reconciler.settings import Settings
from reconciler.stack import Choice, Stack

if TYPE_CHECKING:
    from reconciler.daemon.commits import Commits
    from reconciler.daemon.events import Watcher
    from reconciler.daemon.heads import Heads
    from reconciler.daemon.outbox import Outbox
    from reconciler.daemon.plans import Plans


_PATIENCE = 15.0  # seconds that one cycle waits for GitHub at its end


@dataclass(slots=True)
class Parts:
    """They hear of each cycle, in this order. ``redact`` takes secrets out of texts; `running` starts what waits.

    ``heads`` are the pull requests to what is followed, of which the ``choice`` of targets is planned.
    """

    settings: Settings
    board: Board
    bell: Bell
    redact: Callable[[str], str]
    log: Callable[[State], None] = lambda _: None
    unexpected: Callable[[Exception], None] = lambda _: None
    tally: Tally = field(default_factory=Tally)
    heads: Heads | None = None
    choice: Choice = field(default_factory=Choice)
    _supervisor: Supervisor = field(default_factory=Supervisor)
    _watcher: Watcher | None = None
    _outbox: Outbox | None = None
    _commits: Commits | None = None
    _plans: Plans | None = None
    _watched: Stack | None = None
    _once: bool = False

    @contextlib.contextmanager
    def once(self) -> Iterator[None]:
        """Tell GitHub of the cycles meanwhile, and at the end wait a moment until it knows."""
        self._once = True
        yield
        if self._commits is not None:
            self._commits.finish(_PATIENCE)

    @contextlib.contextmanager
    def running(self, listen: tuple[str, int]) -> Iterator[None]:
        """Serve the page and listen to the engine meanwhile. Raises ReconcilerError where nobody can listen there."""
        from reconciler.daemon.events import Watcher
        from reconciler.daemon.web import serve

        with contextlib.ExitStack() as exits:
            server = serve(
                self.board,
                self.bell,
                listen,
                token(self.settings.environ),
                redact=self.redact,
                unexpected=self.unexpected,
                tally=self.tally,
            )
            exits.callback(server.close)
            self._watcher = Watcher(self.settings.docker_host, self.bell)
            exits.callback(self._watcher.close)
            self._watcher.start()
            exits.callback(self._close)
            self._supervisor = Supervisor.read(self.settings.environ)
            exits.enter_context(self._supervisor.watching(self.board))
            yield

    def _close(self) -> None:
        for part in (self._outbox, self._commits, self._plans):
            if part is not None:
                part.close()

    def begun(self) -> None:
        """Hear that a cycle begins, which sees all that has happened so far."""
        if self._watcher is not None:
            self._watcher.settled()

    def taken(self, stack: Stack) -> None:
        """Hear that a revision was taken, before anything of it is put in force."""
        if (self._once or self._watcher is not None) and (commits := self._speaker(stack)) is not None:
            commits.taken(stack)

    def _speaker(self, stack: Stack) -> Commits | None:
        from reconciler.daemon.commits import Commits

        if self._commits is None and stack.spec.daemon.github is not None:
            url = self.settings.environ.get("GITHUB_API_URL", "")
            self._commits = Commits(stack.data, stack.name, url)
        return self._commits

    def _planner(self, stack: Stack) -> Plans | None:
        from reconciler.daemon.plans import Plans

        if self._plans is None and stack.spec.daemon.plans:
            self._plans = Plans(
                self.heads,
                stack.data,
                stack.name,
                self.choice.targets,
                url=self.settings.environ.get("GITHUB_API_URL", ""),
                ring=lambda: self.bell.ring(Cause.REVISION),
                unexpected=self.unexpected,
            )
        return self._plans

    def ended(self, stack: Stack | None, state: State) -> tuple[Problem, ...]:
        """Hear how a cycle ended; return what could not be told."""
        self.log(state)
        self.tally.take(state)
        self._supervisor.cycle(state)
        unkept = self._remembered(state)
        stack = stack or self._watched  # what keeps a cycle from having one is told to whom the former told things
        if stack is None or (self._watcher is None and not self._once):
            return unkept
        if (commits := self._speaker(stack)) is not None:
            commits.tell(stack, state)
            unkept += commits.problems
        if self._watcher is None:
            return unkept
        if stack is not self._watched:
            self._watched = stack
            self._watcher.watch(*stack.containers)
        if (plans := self._planner(stack)) is not None:
            plans.tell(stack, state)
            unkept += plans.problems
        return (*unkept, *self._told(stack, state))

    @property
    def unsaid(self) -> tuple[Problem, ...]:
        """What GitHub could not be told."""
        return self._commits.problems if self._commits is not None else ()

    def _remembered(self, state: State) -> tuple[Problem, ...]:
        """Keep a state for `reconciler status`; say why not, as where a commit has got into the data directory."""
        try:
            Memory(self.settings.own_data(), self.redact).keep(state)
        except Refused as error:
            return error.problems
        return ()

    def _told(self, stack: Stack, state: State) -> tuple[Problem, ...]:
        from reconciler.daemon.outbox import Outbox

        if self._outbox is None:
            if not stack.spec.daemon.notices:
                return ()
            self._outbox = Outbox(stack.data, stack.name, self.settings.environ)
        self._outbox.tell(stack, state)
        return self._outbox.problems


def token(environ: Mapping[str, str]) -> str | None:
    """Return what lets others than this machine in: ``RECONCILER_TOKEN``, or what ``RECONCILER_TOKEN_FILE`` holds.

    Raises ReconcilerError for a file that can't be read, or holds nothing.
    """
    path = Path(environ.get("RECONCILER_TOKEN_FILE", ""))
    if not path.name:
        return environ.get("RECONCILER_TOKEN") or None
    try:
        found = files.decoded(files.read(path), path).strip()
    except files.CannotRead as error:
        raise ReconcilerError(Problem("RECONCILER_TOKEN_FILE", error.summary, error.hint)) from None
    if not found:
        raise ReconcilerError(Problem("RECONCILER_TOKEN_FILE", f"{path} is empty", "write a long random word into it"))
    return found
