"""A whole stack on loopback: the fakes of Stalwart, Cloudflare and the Docker Engine, wired to each other.

The demo, the end-to-end tests and `reconciler simulate` share it. The containers are those of a compose file, brought
up by the stand-in for `docker compose`; the mail server's container is the fake Stalwart: a restart of one restarts
the other, and a recreated one starts on whatever its volumes keep.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from ruamel.yaml import YAML

from reconciler.simulator.cloudflare import Cloudflare, Token
from reconciler.simulator.docker import Container, Docker
from reconciler.simulator.stalwart_listeners import Door, Sockets, certificate
from reconciler.simulator.stalwart_rest import StalwartRest
from reconciler.simulator.stalwart_settings import Listener
from reconciler.simulator.wire import Reply, Request, Server

MAIL_IMAGE = "stalwartlabs/stalwart"
VERSION = "v0.15.5"
DATA = "/opt/stalwart"  # where images 0.12 to 0.15 keep everything (setup-findings.md 1)
CONFIG = f"{DATA}/etc/config.toml"
DEFAULT_TOKEN = "simulated-token"  # noqa: S105 (opens nothing but the simulator)


@dataclass(frozen=True, slots=True)
class Project:
    """The compose project on the stage: its file, its env file, and the program that reads them."""

    file: Path
    env_file: Path

    @property
    def program(self) -> str:
        """The stand-in, as RECONCILER_COMPOSE names it."""
        return f"{sys.executable} -m reconciler.simulator.compose"

    def services(self) -> Mapping[str, Mapping[str, Any]]:
        """Read the services as they stand in the file."""
        content = YAML(typ="safe").load(self.file.read_text(encoding="utf-8")) or {}
        services: Mapping[str, Mapping[str, Any]] = content.get("services") or {}
        return services

    def up(self, docker_host: str, *services: str) -> None:
        """Bring services up; raises CalledProcessError, whose stderr says why it failed."""
        command = [*self.program.split(), "-f", str(self.file), "--env-file", str(self.env_file)]
        command += ["up", "-d", "--pull", "never"]
        keep = ("PATH", "HOME", "PYTHONPATH")
        environment = {name: os.environ[name] for name in keep if name in os.environ} | {"DOCKER_HOST": docker_host}
        subprocess.run([*command, *services], env=environment, check=True, capture_output=True, text=True)


class Stage:
    """The fakes, serving until they are stopped. ``latency`` is added to every answer, in seconds."""

    def __init__(
        self,
        zones: Iterable[str],
        project: Project | None = None,
        *,
        token: str = DEFAULT_TOKEN,
        admin_password: str = "",
        latency: float = 0.0,
        ports: tuple[int, int, int] = (0, 0, 0),
    ) -> None:
        """Set the stage; ``ports`` are those of Stalwart, Cloudflare and the Docker Engine, 0 takes a free one."""
        self.project = project
        self.docker = Docker()
        self.cloudflare = Cloudflare(zones, tokens={token: Token()})
        environment = {"STALWART_ADMIN_PASSWORD": admin_password} if admin_password else {}
        self.stalwart = StalwartRest(environment=environment, open_ports=True)
        self.docker.files = self._file
        self.docker.on_restart = self._restarted
        fakes: tuple[Callable[[Request], Reply], ...] = (self.stalwart, self.cloudflare, self.docker)
        self.servers = [Server(fake, port=port, latency=latency) for fake, port in zip(fakes, ports, strict=True)]
        self.stalwart_server, self.cloudflare_server, self.docker_server = self.servers
        self._container = ""
        self._relays: list[Sockets] = []
        self._routes: list[str] = []
        self._lock = threading.RLock()

    @property
    def docker_host(self) -> str:
        """Where the fake engine listens, as DOCKER_HOST names it."""
        return self.docker_server.url.replace("http://", "tcp://")

    @property
    def environment(self) -> dict[str, str]:
        """What points the reconciler at this stage and at nothing else."""
        found = {
            "STALWART_URL": self.stalwart_server.url,
            "CLOUDFLARE_BASE_URL": f"{self.cloudflare_server.url}/client/v4",
            "DOCKER_HOST": self.docker_host,
        }
        if self.project is not None:
            found["RECONCILER_COMPOSE"] = self.project.program
        # Nothing on the stage may be looked for elsewhere: a container's address could be somebody's real one.
        own = [f"stalwart:{port}=127.0.0.1:{real}" for port, real in self.stalwart.ports.items() if port in (465, 587)]
        found["RECONCILER_ROUTES"] = " ".join([*own, *self._routes])
        return found

    def start(self) -> Self:
        """Serve, and bring the compose project up."""
        for server in self.servers:
            server.start()
        if self.project is not None:
            self._make_images(self.project)
            self.project.up(self.docker_host)
            self._publish_ports()
        return self

    def stop(self) -> None:
        """Stop serving."""
        for server in self.servers:
            server.stop()
        self.stalwart.close()
        for relay in self._relays:
            relay.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def relay(self, host: str, port: int, username: str, password: str) -> None:
        """Put a provider's submission server on the stage: the only one its address leads to from now on."""

        def login(_: str, user: str, secret: str) -> list[str] | None:
            return [username] if (user, secret) == (username, password) else None

        door = Door(is_blocked=lambda _: False, login=login, scan=lambda _: None)
        sockets = Sockets("127.0.0.1", door, name=host)
        sockets.open([Listener(host, "smtp", (f"0.0.0.0:{port}",), tls=port == 465)])
        self._relays.append(sockets)
        self._routes.append(f"{host}:{port}=127.0.0.1:{sockets.ports[port]}")

    def trust(self, path: Path, *hosts: str) -> None:
        """Write the certificates of relays to a file, for SSL_CERT_FILE."""
        path.write_bytes(b"".join(certificate(host)[0] for host in hosts))

    def recreate_mail_server(self) -> None:
        """Do what `docker compose rm --stop` and `up` do to a volume mounted where the image keeps nothing.

        Not `up --force-recreate`: Compose hands a volume without a name on to the container it recreates, and only a
        container that was removed loses it.
        """
        container = self._mail_container()
        if self.project is None or container is None:
            self.stalwart.wipe()
            return
        del self.docker.containers[container.id]
        service = next(name for name, item in self.project.services().items() if _is_mail(str(item.get("image", ""))))
        self.project.up(self.docker_host, service)
        self._publish_ports()

    # ------------------------------------------------------------------------------------------------------- wires
    def _make_images(self, project: Project) -> None:
        for item in project.services().values():
            reference = str(item.get("image", ""))
            if _is_mail(reference):
                labels = {"org.opencontainers.image.version": VERSION}
                self.docker.add_image(reference, Volumes={DATA: {}}, Labels=labels)
            elif reference:
                self.docker.add_image(reference)

    def _mail_container(self) -> Container | None:
        return next((item for item in self.docker.containers.values() if _is_mail(item.image.reference)), None)

    def _publish_ports(self) -> None:
        """Let the container's published ports lead to the ports the fake server really opened."""
        container = self._mail_container()
        if container is None:
            return
        with self._lock:
            if container.id != self._container:
                self._started(container)
        real = self.stalwart.ports
        for name, bindings in (container.host.get("PortBindings") or {}).items():
            port = real.get(int(name.partition("/")[0]))
            for binding in bindings or () if port else ():
                binding.update(HostIp="127.0.0.1", HostPort=str(port))

    def _started(self, container: Container) -> None:
        """Start the server of a new container: on its old data only if a volume that outlives containers holds it."""
        first, self._container = not self._container, container.id
        self.stalwart.environment.update(container.environment)
        if first or DATA not in _declared(container):
            self.stalwart.wipe()
        else:
            self.stalwart.restart()

    def _restarted(self, name: str) -> None:
        container = self._mail_container()
        if container is not None and container.name == name:
            self.stalwart.restart()
            self._publish_ports()

    def _file(self, container: Container, path: str) -> bytes | None:
        return self.stalwart.config_toml.encode() if _is_mail(container.image.reference) and path == CONFIG else None


def _is_mail(reference: str) -> bool:
    return reference.partition(":")[0].endswith(MAIL_IMAGE)


def _declared(container: Container) -> set[str]:
    """Return where volumes and binds are mounted that outlive the container: not those that only the image declares."""
    binds = {str(item).split(":")[1] for item in container.host.get("Binds") or () if ":" in str(item)}
    return binds | {str(item.get("Target")) for item in container.host.get("Mounts") or ()}
