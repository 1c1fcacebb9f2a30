"""What Docker tells of the host a server runs on, looked at while the server itself is asked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from reconciler.problem import Problem, Severity
from reconciler.resources import Account, Domain, Live, Resource, Signature
from reconciler.targets.stalwart.container import (
    ConfigFile,
    Container,
    Docker,
    DockerUnreachable,
    NoSuchContainer,
)


@dataclass(frozen=True, slots=True)
class Host:
    """What Docker tells; nothing where no container is declared or the engine can't be asked."""

    container: Container | None = None
    file: ConfigFile | None = None
    problem: Problem | None = None


def look(docker: Docker | None, *, file: bool = False) -> Host:
    """Ask Docker about the declared container and, where it is wanted (up to 0.15), its ``config.toml``."""
    if docker is None:
        return Host()
    try:
        return Host(*docker.look()) if file else Host(docker.inspect())
    except NoSuchContainer as error:
        hint = "correct targets.stalwart.container: it is the container's name, not the service's"
        return Host(problem=Problem(f"container {docker.name}", str(error), hint, Severity.WARNING))
    except DockerUnreachable:
        return Host()


def is_lost(wanted: Iterable[Resource], live: Iterable[Live]) -> bool:
    """Whether nothing of what is declared is there: domains, accounts and signatures together."""
    kinds = (Domain, Account, Signature)
    declared = {item.address for item in wanted if isinstance(item, kinds)}
    return bool(declared) and not declared & {item.resource.address for item in live}
