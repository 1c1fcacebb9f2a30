"""Where a mail server is reached from here, and which server that is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from reconciler import url
from reconciler.desired.presets import tls_mode
from reconciler.resources import Login
from reconciler.smtp import Door
from reconciler.targets.compose.engine import Engine
from reconciler.targets.compose.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Doors:
    """The way from here to the servers that logins name. ``routes`` are as in `Compose`."""

    snapshot: Snapshot
    engine: Engine
    routes: Mapping[Door, Door]

    def of(self, login: Login) -> Sequence[Door]:
        """Say where a login's server can be tried from here, what is likelier first."""
        door = (url.host(login.host), login.port)
        if door in self.routes:
            return [self.routes[door]]
        services = self._services(login)
        return self._inside(login.port, services) if services else [door]

    def of_service(self, service: str, port: int) -> Sequence[Door]:
        """Say where a port of a service's containers is reached from here; nowhere where the way is not safe."""
        if (service, port) in self.routes:
            return [self.routes[service, port]]
        return [] if self.engine.remote else self._inside(port, [service])

    def is_unsafe(self, login: Login) -> bool:
        """Whether anybody on the way could read a login: it goes to another machine, and no certificate counts."""
        if (url.host(login.host), login.port) in self.routes:
            return False
        inside = bool(self._services(login))
        if tls_mode(login.tls, login.port) == "none":
            return not inside or self.engine.remote
        return inside and self.engine.remote and not login.verify_tls

    def server(self, login: Login) -> Iterator[str]:
        """Say which server it is: by its address and, where it runs in the project, its containers."""
        yield f"{login.host}:{login.port}"
        for service in self._services(login):
            yield from (item.id for item in self.snapshot.replicas(service))

    def _services(self, login: Login) -> list[str]:
        project = self.snapshot.project
        return [service for service in project.services if login.host in project.names_of(service)]

    def _inside(self, port: int, services: Sequence[str]) -> list[Door]:
        """Say where to reach a service of the project: as published, or inside its network.

        Either way the server sees an address of the project's network. The published port comes first, since a
        container's own address leads nowhere on macOS, where the engine runs in a virtual machine.
        """
        containers = [item for service in services for item in self.snapshot.replicas(service)]
        here = self.engine.address.host if self.engine.remote and self.engine.address else "127.0.0.1"
        published = [item.ports[port] for item in containers if port in item.ports]
        inside = [] if self.engine.remote else [(ip, port) for item in containers for ip in item.addresses]
        return [(ip or here, port) for ip, port in published] + inside
