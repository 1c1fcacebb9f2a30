"""Gathers how the services that send mail run; their values are judged here, and never leave."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from reconciler.checks.check import Unread
from reconciler.checks.evidence import Service, Services
from reconciler.desired.spec.scalars import link_end
from reconciler.doctor import servicekeys
from reconciler.guards.secrets import PUBLIC_SECRETS
from reconciler.resources import SECRET_FILES, Variable
from reconciler.secrecy import is_secret_name
from reconciler.stack import Stack

if TYPE_CHECKING:
    from reconciler.targets.compose.engine import Details
    from reconciler.targets.compose.snapshot import Snapshot

_QUOTES = "\"'"


def gather(stack: Stack) -> Services | Unread | None:
    """Look at the containers of every consumer and every end of a link; None where there is no compose target."""
    from reconciler.targets.compose import Compose

    compose = stack.targets.get("compose")
    if not isinstance(compose, Compose):
        return None
    links = [tuple(link.ends) for link in stack.spec.smtp.links]
    wanted: dict[str, set[str]] = {}
    for item in stack.desired().resources:
        if isinstance(item, Variable) and not item.name.startswith(SECRET_FILES):
            wanted.setdefault(item.service, set()).add(item.name)
    for service, variable in (link_end(end) for ends in links for end in ends):
        wanted.setdefault(service, set()).add(variable)
    if not wanted:
        return None
    with compose.standing(wanted) as (snapshot, doors):
        return Services(
            services=tuple(_service(snapshot, name, sorted(names)) for name, names in sorted(wanted.items())),
            apart=tuple(ends for ends in links if len(set(_values(snapshot, ends))) > 1),
            links=len(links),
            trials=tuple(servicekeys.tried(stack, snapshot, doors)),
        )


def _service(snapshot: Snapshot, name: str, variables: Sequence[str]) -> Service:
    containers = snapshot.replicas(name)
    details = [snapshot.details[item.id] for item in containers if item.id in snapshot.details]
    if not details:
        return Service(name, containers=0, state="not running")
    worst = max(details, key=lambda item: (item.status != "running", item.health == "unhealthy", item.restarts))
    return Service(
        name,
        containers=len(containers),
        state=worst.status,
        health=worst.health,
        restarts=worst.restarts,
        outdated=tuple(item for item in _outdated(snapshot, name) if item not in variables),
        empty=tuple(item for item in variables if _any(details, item, lambda value: not value)),
        padded=tuple(item for item in variables if _any(details, item, _is_padded)),
        known=tuple(item for item in variables if is_secret_name(item) and _any(details, item, _is_known)),
    )


def _outdated(snapshot: Snapshot, service: str) -> Iterator[str]:
    """Yield the variables of a service that its files give another value than a container of it has."""
    for name in snapshot.project.written.get(service, {}):
        configured = snapshot.project.configured(service, name)
        if configured is not None and any(value != configured for value in snapshot.running(service, name)):
            yield name


def _any(details: Sequence[Details], name: str, holds: Callable[[str], bool]) -> bool:
    return any(holds(item.environment.get(name, "")) for item in details)


def _is_padded(value: str) -> bool:
    """Whether quotes or blanks stand about a value, which the program takes for a part of it."""
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in _QUOTES
    return quoted or value != value.strip()


def _is_known(value: str) -> bool:
    return bool(value) and hashlib.sha256(value.encode()).hexdigest() in PUBLIC_SECRETS


def _values(snapshot: Snapshot, ends: Sequence[str]) -> Iterator[str | None]:
    """Yield what each replica of each end has."""
    for service, variable in map(link_end, ends):
        yield from snapshot.running(service, variable)
