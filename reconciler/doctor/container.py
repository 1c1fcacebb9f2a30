"""Gathers how the mail server's container is: what the engine tells of it, and the end of its log."""

from __future__ import annotations

from collections.abc import Mapping

from reconciler import url
from reconciler.checks.check import Unread
from reconciler.checks.evidence import ServerContainer
from reconciler.problem import Problem
from reconciler.stack import Stack


def gather(stack: Stack) -> ServerContainer | Unread | None:
    """Look at the declared container; None where none is declared."""
    from reconciler.targets.stalwart import container as docker
    from reconciler.targets.stalwart.moved import refused_by, tag_moves

    server = stack.spec.targets.stalwart
    if server is None or not server.container:
        return None
    engine = docker.Docker(server.container, stack.settings.docker_host)
    try:
        found, condition, log = engine.condition()
    except docker.DockerUnreachable as error:
        return Unread(str(error))
    generation = stack.generation or docker.keeper(found)
    floating = docker.unpinned(found, generation)
    moves = tag_moves(found, generation, lost=bool(floating))
    closed = docker.unrecoverable(found) if generation == "jmap" else None
    refused = refused_by(found, log) if condition.state != "running" or condition.restarts else None
    return ServerContainer(
        name=found.name,
        image=found.image,
        state=condition.state,
        health=condition.health,
        restarts=condition.restarts,
        exit_code=condition.exit_code,
        oom_killed=condition.oom_killed,
        memory=condition.memory,
        limit=condition.limit,
        published=condition.published,
        local=found.local,
        admin=_admin(stack, condition.published),
        misplaced=docker.misplaced(found, generation),
        unpinned=_all(moves, *floating),
        closed=_all(closed),
        refused=_all(refused),
        log=tuple(log.splitlines()),
    )


def _all(*problems: Problem | None) -> tuple[Problem, ...]:
    return tuple(item for item in problems if item is not None)


def _admin(stack: Stack, published: Mapping[int, tuple[str, ...]]) -> int:
    """Return the port of the management API inside the container: the one that its URL leads to."""
    server = stack.spec.targets.stalwart
    try:
        address = url.parse(stack.settings.stalwart_url or (server.url if server else ""))
    except url.NoAddress:
        return 0
    there = [port for port, hosts in published.items() if any(item.endswith(f":{address.port}") for item in hosts)]
    return there[0] if there else 0
