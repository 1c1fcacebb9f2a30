"""A whole stack on loopback: fakes of Stalwart, Cloudflare, Docker, name servers and Brevo, wired to each other.

The demo, the end-to-end tests and `reconciler simulate` share it. The containers are those of a compose file, brought
up by the stand-in for `docker compose`; the mail server's container is the fake Stalwart of either generation: a
restart of one restarts the other, and a recreated one starts on whatever its volumes keep, whoever recreates it. What
the fake Cloudflare has, two name servers show; Brevo looks there for its records.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from ruamel.yaml import YAML

from reconciler.simulator.brevo import Brevo
from reconciler.simulator.cloudflare import Cloudflare, Token
from reconciler.simulator.compose import dotenv
from reconciler.simulator.dns import NameServers
from reconciler.simulator.docker import Container, Docker
from reconciler.simulator.stalwart.jmap.server import StalwartJmap
from reconciler.simulator.stalwart.listeners import Door, Listener, Sockets, certificate
from reconciler.simulator.stalwart.post import Handed
from reconciler.simulator.stalwart.rest.server import StalwartRest
from reconciler.simulator.wire import Reply, Request, Server

MAIL_IMAGE = "stalwartlabs/stalwart"
Generation = Literal["rest", "jmap"]
VERSIONS = {"rest": "v0.15.5", "jmap": "v0.16.18"}
DATA = "/opt/stalwart"  # where images 0.12 to 0.15 keep everything (setup-findings.md 1)
VOLUMES = {"rest": (DATA,), "jmap": ("/etc/stalwart", "/var/lib/stalwart")}
CONFIGS = {"rest": f"{DATA}/etc/config.toml", "jmap": "/etc/stalwart/config.json"}
PORTS = 6
"""How many ports a stage takes: Stalwart, Cloudflare, the Docker Engine, Brevo, and two name servers (UDP and TCP)."""
DEFAULT_TOKEN = "simulated-token"  # noqa: S105 (opens nothing but the simulator)
DEFAULT_BREVO_KEY = "xkeysib-simulated"


@dataclass(frozen=True, slots=True)
class Project:
    """The compose project on the stage: its files, its env files, its directory, and the program that reads them."""

    file: Path | Sequence[Path]
    env_file: Path | Sequence[Path]
    directory: Path | None = field(default=None, kw_only=True)

    @property
    def files(self) -> Sequence[Path]:
        """The compose files, in order."""
        return [self.file] if isinstance(self.file, Path) else self.file

    @property
    def env_files(self) -> Sequence[Path]:
        """The env files, in order."""
        return [self.env_file] if isinstance(self.env_file, Path) else self.env_file

    @property
    def program(self) -> str:
        """The stand-in, as RECONCILER_COMPOSE names it."""
        return f"{sys.executable} -m reconciler.simulator.compose"

    def services(self) -> Mapping[str, Mapping[str, Any]]:
        """Read the services as they stand in the files: a later one's keys over an earlier one's."""
        services: dict[str, Mapping[str, Any]] = {}
        for file in self.files:
            content = YAML(typ="safe").load(file.read_text(encoding="utf-8")) or {}
            for name, service in (content.get("services") or {}).items():
                services[name] = {**services.get(name, {}), **(service or {})}
        return services

    def variables(self) -> Mapping[str, str]:
        """Read the env files; nothing of one that is not there, or that Compose would not take."""
        values: dict[str, str] = {}
        for file in self.env_files:
            with contextlib.suppress(OSError, ValueError):
                values |= dotenv.parse(file.read_text(encoding="utf-8"), values.get)
        return values

    def up(self, docker_host: str, *services: str, **shell: str) -> None:
        """Bring services up, with variables of a shell; raises CalledProcessError, whose stderr says why it failed."""
        command = self.program.split()
        for option, paths in (("-f", self.files), ("--env-file", self.env_files)):
            command += [part for path in paths for part in (option, str(path))]
        command += ["--project-directory", str(self.directory)] if self.directory else []
        command += ["up", "-d", "--pull", "never"]
        keep = ("PATH", "HOME", "PYTHONPATH")
        environment = {name: os.environ[name] for name in keep if name in os.environ} | {"DOCKER_HOST": docker_host}
        subprocess.run([*command, *services], env=environment | shell, check=True, capture_output=True, text=True)


class Stage:
    """The fakes, serving until they are stopped. ``latency`` is added to every answer, in seconds.

    ``admin_password`` is that of the administrator who gets in where there is no container to say so.
    """

    def __init__(
        self,
        zones: Iterable[str],
        project: Project | None = None,
        *,
        token: str = DEFAULT_TOKEN,
        brevo_key: str = DEFAULT_BREVO_KEY,
        admin_password: str = "",
        latency: float = 0.0,
        ports: Sequence[int] = (0,) * PORTS,
        generation: Generation = "rest",
        schema: Mapping[str, Any] | None = None,
    ) -> None:
        """Set the stage; ``ports`` are as `PORTS` counts them, 0 takes a free one.

        ``schema`` is that of another release from 0.16, which its server is then judged by.
        """
        zones = self._zones = tuple(zones)
        self.project = project
        self.docker = Docker()
        self.cloudflare = Cloudflare(zones, tokens={token: Token()})
        self.generation = generation
        self.stalwart = _server(generation, admin_password, schema=schema)
        self.dns = NameServers(self.cloudflare.shown, ports[4:])
        self.brevo = Brevo(zones, self.dns.values, keys=(brevo_key,))
        self.docker.files = self._file
        self.docker.on_start = self._first_started
        self.docker.on_restart = self._restarted
        self.docker.on_volume_removed = self._volume_removed
        fakes: tuple[Callable[[Request], Reply], ...] = (self.stalwart, self.cloudflare, self.docker, self.brevo)
        self.servers = [Server(fake, port=port, latency=latency) for fake, port in zip(fakes, ports[:4], strict=True)]
        self.stalwart_server, self.cloudflare_server, self.docker_server, self.brevo_server = self.servers
        self._container = ""
        self._held: dict[str, str] = {}  # what was mounted where in the server's last container
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
            "BREVO_BASE_URL": self.brevo_server.url,
            "RECONCILER_NAMESERVERS": " ".join(self.dns.servers),
        }
        if self.project is not None:
            found["RECONCILER_COMPOSE"] = self.project.program
        # Nothing on the stage may be looked for elsewhere: a container's address could be somebody's real one.
        own = [f"stalwart:{port}=127.0.0.1:{real}" for port, real in self._submission().items()]
        found["RECONCILER_ROUTES"] = " ".join([*own, *self._routes])
        return found

    def _submission(self) -> Mapping[int, int]:
        """Return where mail is handed in; the newer generation opens 587 only when it is told to, so say it ahead."""
        if isinstance(self.stalwart, StalwartJmap):
            return {port: self.stalwart.route(port) for port in (465, 587)}
        return {port: real for port, real in self.stalwart.ports.items() if port in (465, 587)}

    def start(self) -> Self:
        """Serve, and bring the compose project up."""
        for server in self.servers:
            server.start()
        self.dns.start()
        self.up()
        return self

    def stop(self) -> None:
        """Stop serving."""
        for server in self.servers:
            server.stop()
        self.dns.stop()
        self.stalwart.close()
        for relay in self._relays:
            relay.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def relay(self, host: str, port: int, username: str, password: str) -> None:
        """Put a provider's submission server on the stage: the only one its address leads to from now on.

        The zones of the stage are verified there: mail may be from any of their addresses.
        """

        def login(_: str, user: str, secret: str) -> list[str] | None:
            return [username, *(f"@{zone}" for zone in self._zones)] if (user, secret) == (username, password) else None

        def take(handed: Handed) -> str:
            """Hand the mail on, as a provider does: to the server of the stage, where its recipients are."""
            results = f"dkim=none; spf=pass smtp.mailfrom={handed.sender}"
            self.stalwart.post.receive(handed.sender, handed.recipients, handed.raw, results)
            return "250 2.0.0 OK: queued"

        door = Door(lambda _: False, login, lambda _: None, lambda: host, take=take)
        sockets = Sockets("127.0.0.1", door, name=host)
        sockets.open([Listener(host, "smtp", (f"0.0.0.0:{port}",), tls=port == 465)])
        self._relays.append(sockets)
        self._routes.append(f"{host}:{port}=127.0.0.1:{sockets.ports[port]}")

    def trust(self, path: Path, *hosts: str) -> None:
        """Write the certificates of relays to a file, for SSL_CERT_FILE."""
        path.write_bytes(b"".join(certificate(host)[0] for host in hosts))

    def recreate_mail_server(self, lost: str = "") -> None:
        """Do what `docker compose rm --stop` and `up` do to a volume mounted where the image keeps nothing.

        Not `up --force-recreate`: Compose hands a volume without a name on to the container it recreates, and only a
        container that was removed loses it. A volume mounted at ``lost`` is removed in between, too.
        """
        container = self._mail_container()
        if self.project is None or container is None:
            _start(self.stalwart, config=True, data=False)
            return
        del self.docker.containers[container.id]
        self.docker.volumes.pop(self._held.pop(lost, ""), None)
        service = next(name for name, item in self.project.services().items() if _is_mail(str(item.get("image", ""))))
        self.up(service)

    def upgrade(self) -> None:
        """Let the mail server's tag move to 0.16 and bring it up, as `docker compose pull` and `up` do."""
        self.stalwart.close()
        self.generation, self.stalwart = "jmap", _server("jmap", "", configured=False)
        self.stalwart_server.fake = self.stalwart
        self.up()

    def up(self, *services: str, **shell: str) -> None:
        """Pull what the compose file names by now, and bring the project up, or some of its services.

        ``shell`` are variables that are set there and win over the env file's.
        """
        if self.project is not None:
            self._make_images(self.project)
            self.project.up(self.docker_host, *services, **shell)
            self._publish_ports()

    # ------------------------------------------------------------------------------------------------------- wires
    def _make_images(self, project: Project) -> None:
        for item in project.services().values():
            reference = str(item.get("image", ""))
            if _is_mail(reference):
                labels = {"org.opencontainers.image.version": VERSIONS[self.generation]}
                self.docker.add_image(reference, Volumes={path: {} for path in VOLUMES[self.generation]}, Labels=labels)
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
                binding.update(HostIp=binding.get("HostIp") or "0.0.0.0", HostPort=str(port))

    def _started(self, container: Container) -> None:
        """Start the server of a new container: on its old data only if what holds them is mounted there again."""
        held, self._held = self._held, {it["Destination"]: it.get("Name") or it["Source"] for it in container.mounts}
        kept = {path for path, source in self._held.items() if held.get(path) == source}
        self._container = container.id
        if isinstance(self.stalwart, StalwartRest):
            self.stalwart.environment.update(container.environment)
            _start(self.stalwart, config=True, data=DATA in kept)
            return
        self.stalwart.environment = container.environment
        folder, data = VOLUMES["jmap"]
        config = _has_config(container) or (folder in kept and self.stalwart.config is not None)
        _start(self.stalwart, config=config, data=data in kept)
        self._log(container)

    def _first_started(self, container: Container) -> None:
        if _is_mail(container.image.reference):
            self._publish_ports()

    def _volume_removed(self, name: str) -> None:
        self._held = {path: source for path, source in self._held.items() if source != name}

    def _restarted(self, name: str) -> None:
        container = self._mail_container()
        if container is not None and container.name == name:
            self.stalwart.restart()
            self._log(container)
            self._publish_ports()

    def _log(self, container: Container) -> None:
        """Put what the process prints at its start into the container's log; the engine keeps it over restarts."""
        if isinstance(self.stalwart, StalwartJmap):
            container.logs += self.stalwart.printed.encode()

    def _file(self, container: Container, path: str) -> bytes | None:
        if not _is_mail(container.image.reference):
            return None
        if isinstance(self.stalwart, StalwartRest):
            return self.stalwart.config_toml.encode() if path == CONFIGS["rest"] else None
        if path == VOLUMES["jmap"][1]:  # there is a database in it, or nothing
            return b"" if self.stalwart.store.initialized else None
        is_config = path == CONFIGS["jmap"] and self.stalwart.config is not None
        return json.dumps(self.stalwart.config).encode() if is_config else None


def _server(
    generation: Generation, password: str, *, configured: bool = True, schema: Mapping[str, Any] | None = None
) -> StalwartRest | StalwartJmap:
    if generation == "jmap":
        environment = {"STALWART_RECOVERY_ADMIN": f"admin:{password}"} if password else {}
        return StalwartJmap(environment=environment, configured=configured, open_ports=True, schema=schema)
    environment = {"STALWART_ADMIN_PASSWORD": password} if password else {}
    return StalwartRest(environment=environment, open_ports=True)


def _start(server: StalwartRest | StalwartJmap, *, config: bool, data: bool) -> None:
    """Start a server on what its volumes kept; the older generation has config.toml among its data."""
    if isinstance(server, StalwartJmap):
        server.start_on(config=config, data=data)
    elif data:
        server.restart()
    else:
        server.wipe()


def _is_mail(reference: str) -> bool:
    return reference.partition(":")[0].endswith(MAIL_IMAGE)


def _has_config(container: Container) -> bool:
    """Say whether config.json is a file of the host's, by itself or in its folder."""
    path = Path(CONFIGS["jmap"])
    binds = {item["Destination"]: Path(item["Source"]) for item in container.mounts if item["Type"] == "bind"}
    sources = [binds[str(path)]] if str(path) in binds else []
    sources += [binds[str(path.parent)] / path.name] if str(path.parent) in binds else []
    return any(source.is_file() for source in sources)
