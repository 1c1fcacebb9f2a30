"""Gathers how the mail server's container is: what the engine tells of it, and the end of its log."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from reconciler import url
from reconciler.checks.check import Unread
from reconciler.checks.evidence import Disk, ServerContainer
from reconciler.problem import Problem
from reconciler.stack import Stack

if TYPE_CHECKING:
    from reconciler.targets.stalwart.container import Container

_WEEK = "memory"
"""How the file begins, in the data directory, that knows how much memory the server used."""


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
        kills=tuple(dt.datetime.fromtimestamp(when, dt.UTC) for when in condition.kills),
        hours=_hours(stack, found.id, condition.memory),
        disks=tuple(_disks(found)),
        published=condition.published,
        local=found.local,
        admin=_admin(stack, condition.published),
        misplaced=docker.misplaced(found, generation),
        unpinned=_all(moves, *floating),
        closed=_all(closed),
        refused=_all(refused),
        log=tuple(log.splitlines()),
    )


def _hours(stack: Stack, container: str, used: int) -> tuple[int, ...]:
    if not used:
        return ()
    from reconciler.doctor import week

    return tuple(
        item.used for item in week.noted(stack.data / f"{_WEEK}-{stack.name}.json", container, used, time.time())
    )


def _disks(found: Container) -> Iterator[Disk]:
    """Yield the file systems of this machine that the container's data lies on, each once."""
    seen = set[int]()
    for mount in found.mounts if found.local else ():
        with contextlib.suppress(OSError):
            place = _seen(Path(mount.place))
            if mount.place and place.stat().st_dev not in seen:
                seen.add(place.stat().st_dev)
                told = os.statvfs(place)
                if told.f_blocks:
                    names = told.f_favail / told.f_files if told.f_files else 1.0
                    yield Disk(mount.path, told.f_bavail * told.f_frsize, told.f_blocks * told.f_frsize, names)


def _seen(place: Path) -> Path:
    """Return a path, or the nearest folder above it that we may look at: Docker's own is closed. Raises OSError."""
    try:
        place.stat()
    except PermissionError:
        return _seen(place.parent)
    return place


def _all(*problems: Problem | None) -> tuple[Problem, ...]:
    return tuple(item for item in problems if item is not None)


def _admin(stack: Stack, published: Mapping[int, tuple[str, ...]]) -> int:
    """Return the port of the management API inside the container: the one that its URL leads to."""
    server = stack.spec.targets.stalwart
    try:
        address = url.parse(stack.settings.stalwart_url or (server.url if server else ""))
    except url.NoUrl:
        return 0
    there = [port for port, hosts in published.items() if any(item.endswith(f":{address.port}") for item in hosts)]
    return there[0] if there else 0
