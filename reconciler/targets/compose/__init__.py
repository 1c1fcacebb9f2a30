"""Docker Compose: the environment of the services that send mail, by way of the env file their entries interpolate."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reconciler import files
from reconciler.docker import EngineMemory
from reconciler.problem import Problem, SecretUnreadable, Severity, TargetUnreadable
from reconciler.refusals import Refusals
from reconciler.resources import Live, Login, Observation, Resource, Variable
from reconciler.target import Outcome, Progress, Reveal, Status, Stopped
from reconciler.targets.compose.engine import Engine, Patience
from reconciler.targets.compose.program import Program

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from reconciler.smtp import Door
    from reconciler.target import Change
    from reconciler.targets.compose.doors import Doors
    from reconciler.targets.compose.reception import Reception, Tried
    from reconciler.targets.compose.snapshot import Snapshot, View
    from reconciler.targets.compose.written import WrittenFiles

__all__ = ["Compose", "Patience", "VariableDetail"]


@dataclass(frozen=True, slots=True)
class VariableDetail:
    """What `explain` tells of a live variable: the variable of the env file that decides on it, and who shares it."""

    writes: str
    also_used_by: tuple[str, ...]


class Compose:
    """The compose project of one stack.

    ``shared`` are the links that only must agree, each a sequence of ``(service, variable)``. ``routes`` says where a
    mail server is reached from here instead (``{("smtp.example", 587): ("127.0.0.1", 2525)}``), for the proof of
    credentials; the certificate still has to be that of the declared host. Of several env files the last one wins, and
    is written. ``with_service_changes`` takes along what else ``up`` would change of a service. ``public`` are the
    texts that may be shown where they are live: the declared providers' hosts and the like. ``refusals`` knows which
    logins were refused, ``memory`` what the engine answered.
    """

    name = "compose"
    libraries = ("httpcore", "httpx", "requests", "docker")

    def __init__(
        self,
        *,
        file: Path | Sequence[Path],
        env_file: Path | Sequence[Path],
        project: str | None,
        stack: str,
        directory: Path | None = None,
        with_service_changes: bool = False,
        program: Sequence[str] = ("docker", "compose"),
        docker_host: str | None = None,
        shared: Sequence[Sequence[tuple[str, str]]] = (),
        progress: Progress = lambda _: None,
        patience: Patience = Patience(),  # noqa: B008 (frozen)
        routes: Mapping[Door, Door] | None = None,
        public: Collection[str] = (),
        refusals: Refusals | None = None,
        memory: EngineMemory | None = None,
    ) -> None:
        self.files = tuple(item.absolute() for item in ([file] if isinstance(file, Path) else file))
        env_files = [env_file] if isinstance(env_file, Path) else env_file
        self.env_files = tuple(item.absolute() for item in env_files)
        self.directory = directory.absolute() if directory else None
        self.with_service_changes = with_service_changes
        self.project = project
        self.stack = stack
        self.command = tuple(program)
        self.docker_host = docker_host
        self.shared = tuple(tuple(group) for group in shared)
        self.progress = progress
        self.patience = patience
        self.routes = dict(routes or {})
        self.public = frozenset(public)
        self.refusals = Refusals() if refusals is None else refusals
        self._memory = memory
        self._written: WrittenFiles | None = None  # made where it is needed first

    def program(self, host: str) -> Program:
        """Return the program, called for the engine at ``host``: both follow the same one."""
        return Program(self.command, self.files, self.env_files, self.project, host, directory=self.directory)

    @property
    def written(self) -> WrittenFiles:
        """What Compose makes of the files; whoever looks again asks it only where one of them is not as it was."""
        from reconciler.targets.compose.written import WrittenFiles

        self._written = self._written or WrittenFiles()
        return self._written

    def observe(self, wanted: Sequence[Resource], reveal: Reveal) -> Observation:
        """Compare each wanted variable with the running container and with what the files would give it.

        A consumer that can't be switched as a whole is a problem whose scope is ``smtp/SERVICE``.
        """
        from reconciler.targets.compose import snapshot as snapshots

        files.sweep_for(self.env_files[-1].resolve())
        variables = [item for item in wanted if isinstance(item, Variable)]
        services = {item.service for item in variables} | {name for group in self.shared for name, _ in group}
        try:
            with Engine(self.docker_host, self._memory) as engine:
                program = self.program(engine.host)
                snapshot = snapshots.read(program, engine, self.stack, services, self.written)
                strangers = tuple(snapshots.identity(snapshot, program, engine, services)) if services else ()
                return self._observation(snapshot, variables, reveal, strangers, (program, engine))
        except TargetUnreadable as error:
            return Observation(self.name, unread=frozenset({self.name}), problems=error.problems)

    def _observation(
        self,
        snapshot: Snapshot,
        wanted: Sequence[Variable],
        reveal: Reveal,
        strangers: Sequence[Problem],
        asked: tuple[Program, Engine],
    ) -> Observation:
        from reconciler.targets.compose.snapshot import Values, views

        values = Values(reveal)
        seen, unreadable = views(snapshot, wanted, values)
        live = []
        for view in seen:
            why = "the desired value can't be read" if view.wanted.address in unreadable else ""
            resource = values.observed(view, self.public, why)
            if resource is not None:
                live.append(Live(resource, id=view.variable, detail=_detail(view, snapshot)))
        return Observation(
            self.name,
            live=live,
            problems=tuple(dict.fromkeys(strangers or self._problems(snapshot, seen, unreadable, asked))),
            head=(
                f"compose project {snapshot.shown_name or 'named by a variable'}, Docker Compose {snapshot.version}",
            ),
            networks=snapshot.networks,
        )

    def _problems(
        self,
        snapshot: Snapshot,
        seen: Sequence[View],
        unreadable: Mapping[str, SecretUnreadable],
        asked: tuple[Program, Engine],
    ) -> Iterator[Problem]:
        from reconciler.targets.compose import judge
        from reconciler.targets.compose.forecast import foresee
        from reconciler.targets.compose.project import ComposeFiles
        from reconciler.targets.compose.tlsmode import left_behind

        found = tuple(judge.problems(seen, snapshot, ComposeFiles(self.files), self.public))
        yield from found
        # Here alone: an apply is given what changes, and not all that is declared.
        yield from left_behind(seen, snapshot)
        barred = {problem.scope for problem in found if problem.severity is not Severity.WARNING}
        able = [view for view in seen if judge.scope(view.wanted.service) not in barred]
        program, engine = asked
        yield from judge.foreseen(
            foresee(snapshot, program, engine, able, self.written), allowed=self.with_service_changes
        )
        for view in seen:
            if error := unreadable.get(view.wanted.address):
                yield from judge.unreadable(view, error)
        yield from judge.disagreements(self.shared, snapshot)

    def apply(self, changes: Sequence[Change], reveal: Reveal, stopped: Stopped = lambda: False) -> Iterator[Outcome]:
        """Prove the credentials, write the env file, recreate the services that changed, and roll back what fails."""
        from reconciler.targets.compose.switch import Switch

        try:
            engine = Engine(self.docker_host)
        except TargetUnreadable as error:
            yield from (Outcome(change, Status.FAILED, error.problems[0]) for change in changes)
            return
        with engine:
            yield from Switch(self, engine, reveal).apply(changes, stopped)

    @contextlib.contextmanager
    def standing(self, services: Iterable[str]) -> Iterator[tuple[Snapshot, Doors]]:
        """Yield the project as it is, with the details of some services, and the ways to its mail servers.

        Raises `TargetUnreadable`.
        """
        from reconciler.targets.compose import snapshot as snapshots
        from reconciler.targets.compose.doors import Doors

        with Engine(self.docker_host, self._memory) as engine:
            snapshot = snapshots.read(self.program(engine.host), engine, self.stack, services, self.written)
            yield snapshot, Doors(snapshot, engine, self.routes)

    def takes_mail(self, login: Login, reveal: Reveal, tried: Tried | None) -> Reception:
        """Ask the server of a login whether mail can be handed in; `reception.ask` says what ``tried`` is for."""
        from reconciler.targets.compose.reception import Reception, ask

        try:
            with self.standing(()) as (_, doors):
                return ask(login, doors, self.refusals, reveal, tried)
        except TargetUnreadable as error:
            return Reception(None, error.problems[0])


def _detail(view: View, snapshot: Snapshot) -> VariableDetail:
    own = f"{view.wanted.service}.{view.wanted.name}"
    uses = snapshot.project.uses.get(view.variable, ()) if view.variable else ()
    return VariableDetail(view.variable, tuple(use for use in uses if use != own))
