"""What Docker tells of the place a server runs in, looked at while the server itself is asked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from reconciler.problem import Problem, Severity, TargetUnreadable
from reconciler.reconcile import Progress
from reconciler.resources import Account, Domain, Listener, Live, Resource, Signature
from reconciler.targets.stalwart import ports
from reconciler.targets.stalwart.connection import Connection, wait_until
from reconciler.targets.stalwart.container import (
    ConfigFile,
    Container,
    Docker,
    DockerUnreachable,
    NoSuchContainer,
)

_COMES_BACK = 120.0  # seconds after a restart; a first start downloads its spam rules
_OPENS = 20.0  # seconds until a listener answers once the API does


@dataclass(frozen=True, slots=True)
class Place:
    """What Docker tells; nothing where no container is declared or the engine can't be asked."""

    container: Container | None = None
    file: ConfigFile | None = None
    problem: Problem | None = None


def look(docker: Docker | None, *, file: bool = False) -> Place:
    """Ask Docker about the declared container and, where it is wanted (up to 0.15), its ``config.toml``."""
    if docker is None:
        return Place()
    try:
        return Place(*docker.look()) if file else Place(docker.inspect())
    except NoSuchContainer as error:
        hint = "correct targets.stalwart.container: it is the container's name, not the service's"
        return Place(problem=Problem(f"container {docker.name}", str(error), hint, Severity.WARNING))
    except DockerUnreachable:
        return Place()


def with_open(live: Sequence[Live], wanted: Iterable[Resource], host: str, container: Container | None) -> list[Live]:
    """Say of the wanted listeners whether they answer."""
    names = {item.name for item in wanted if isinstance(item, Listener)}
    listeners = [item.resource for item in live if isinstance(item.resource, Listener) and item.resource.name in names]
    answers = ports.open_listeners(listeners, host, container)
    return [
        replace(item, resource=replace(item.resource, open=answers[item.resource.name]))
        if isinstance(item.resource, Listener) and item.resource.name in answers
        else item
        for item in live
    ]


def is_lost(wanted: Iterable[Resource], live: Iterable[Live]) -> bool:
    """Whether nothing of what is declared is there: domains, accounts and signatures together."""
    kinds = (Domain, Account, Signature)
    declared = {item.address for item in wanted if isinstance(item, kinds)}
    return bool(declared) and not declared & {item.resource.address for item in live}


def restart(docker: Docker | None, connection: Connection, progress: Progress) -> None:
    """Restart the container and wait until the server answers again.

    Raises `DockerUnreachable` when it can't be restarted from here, `TargetUnreadable` when it does not come back.
    """
    if docker is None:
        raise DockerUnreachable("no container is declared")
    progress(f"restarting the container {docker.name}")
    docker.restart()
    progress("waiting for Stalwart to answer again")
    if not wait_until(lambda: _answers(connection), _COMES_BACK):
        summary = f"does not answer {_COMES_BACK:.0f} s after the restart of its container"
        raise TargetUnreadable(connection.problem(summary, "look at its log"))


def unopened(address: str, listener: Listener, host: str, container: Container | None) -> Problem | None:
    """Wait until a listener answers after a restart, and say where it does not."""
    if wait_until(lambda: ports.is_open(listener, host, container) is not False, _OPENS):
        return None
    summary = f"does not answer at {', '.join(listener.bind)} though the container was restarted"
    return Problem(address, summary, "look at the container's log: is the port taken, and is it published?")


def _answers(connection: Connection) -> bool:
    try:
        connection.probe("/healthz/live")
    except TargetUnreadable:
        return False
    return True
