"""All services of a project with the values that run and those that the files give them, for an import."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from reconciler.problem import Refused
from reconciler.targets.compose import snapshot as snapshots
from reconciler.targets.compose.engine import PROJECT, Engine

if TYPE_CHECKING:
    from reconciler.targets.compose import Compose
    from reconciler.targets.compose.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Service:
    """A service of the project. ``names`` are those it is reached by inside the project's networks.

    ``container`` is the name of what runs of it, empty where nothing does; ``running`` has the environment of each
    replica and ``configured`` what a new one would get. Any of those values may be a secret.
    """

    name: str
    image: str
    container: str
    names: frozenset[str]
    running: tuple[Mapping[str, str], ...] = field(repr=False)
    configured: Mapping[str, str | None] = field(repr=False)

    def settled(self, variable: str) -> bool:
        """Whether every replica has for a variable what a new container would get."""
        return all(item.get(variable) == self.configured.get(variable) for item in self.running)


@dataclass(frozen=True, slots=True)
class Survey:
    """A project as it runs."""

    project: str
    services: tuple[Service, ...]


def survey(target: Compose) -> Survey:
    """Read every service. Raises `TargetUnreadable`, and `Refused` where this would not be the stack that runs."""
    with Engine(target.docker_host) as engine:
        program = target.program(engine.host)
        names = tuple(program.config().get("services") or ())
        snapshot = snapshots.read(program, engine, target.stack, names)
        strangers = tuple(snapshots.identity(snapshot, program, engine))
    if strangers:
        raise Refused(*(replace(item, hint=f"{item.hint}; here: --compose, --project") for item in strangers))
    return Survey(snapshot.project.name, tuple(_service(name, snapshot) for name in names))


def _service(name: str, snapshot: Snapshot) -> Service:
    replicas = snapshot.replicas(name)
    inspected = [snapshot.details[item.id].environment for item in replicas if item.id in snapshot.details]
    settings = snapshot.project.services.get(name) or {}
    return Service(
        name=name,
        image=str(settings.get("image") or ""),
        container=replicas[0].name.removeprefix("/") if replicas else "",
        names=frozenset(snapshot.project.names_of(name)),
        running=tuple(inspected),
        configured=snapshot.project.effective.get(name, {}),
    )


def env_file(files: Sequence[Path], docker_host: str | None) -> Path | None:
    """Return the env file that the running containers of these compose files were made with, if it is here.

    Another one would give them other values (compose semantics 9). Raises `TargetUnreadable`.
    """
    with Engine(docker_host) as engine:
        containers = engine.containers()
    wanted = [str(file.resolve()) for file in files]
    for item in containers:
        recorded = item.labels.get(f"{PROJECT}.config_files", "").split(",")
        path = item.labels.get(f"{PROJECT}.environment_file", "")
        if path and [str(Path(file).resolve()) for file in recorded] == wanted and Path(path).is_file():
            return Path(path)
    return None
