"""The Docker Engine: what runs, with which environment, and whether it came up."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from reconciler.problem import Problem, TargetUnreadable

if TYPE_CHECKING:
    import docker

# Functions import `docker` itself and none of its modules. It imports itself in circles, and the Stalwart target
# imports it at the same time in another thread: two ways into the circle end in a deadlock of Python's import locks.
PROJECT = "com.docker.compose.project"
_ALIVE = ("running", "restarting", "paused")
_TIMEOUT = 30  # seconds for one call to the engine
_LISTINGS = 6  # how often a listing is asked for again
_PAUSE = 0.5  # seconds between two of them: a removal takes that long on a busy machine
_NOT_RUN = (126, 127)  # exit codes of what can't be executed, and of what is not found


@dataclass(frozen=True, slots=True)
class Container:
    """A container of a compose service, as the engine lists it. ``created`` is in seconds since 1970."""

    id: str
    name: str
    labels: Mapping[str, str]
    state: str
    created: int
    addresses: tuple[str, ...]
    ports: Mapping[int, tuple[str, int]]  # private TCP port → where it is published, any address as ""

    @property
    def project(self) -> str:
        """The compose project it belongs to."""
        return self.labels.get(PROJECT, "")

    @property
    def service(self) -> str:
        """The service it is a replica of."""
        return self.labels.get(f"{PROJECT[:-8]}.service", "")

    @property
    def one_off(self) -> bool:
        """Whether ``compose run`` made it, which is nobody's service."""
        return self.labels.get(f"{PROJECT[:-8]}.oneoff", "").lower() == "true"

    @property
    def replica(self) -> str:
        """Which of the service's containers it is."""
        return self.labels.get(f"{PROJECT[:-8]}.container-number", "1")


@dataclass(frozen=True, slots=True)
class Details:
    """What inspecting a container adds."""

    environment: Mapping[str, str]
    status: str
    health: str
    restarts: int
    started: str
    exit_code: int
    check: tuple[str, ...]  # the health check's command, empty without one


def newest(containers: Sequence[Container], service: str) -> tuple[Container, ...]:
    """Return the living container of each replica of a service.

    A killed ``up`` leaves a twin named ``<id12>_<name>``: of two with one number the newest living one counts.
    """
    living = [item for item in containers if item.service == service and not item.one_off and item.state in _ALIVE]
    by_replica = {item.replica: item for item in sorted(living, key=lambda item: item.created)}
    return tuple(by_replica[replica] for replica in sorted(by_replica))


class Engine:
    """The engine behind ``docker_host``, or behind Docker's current context. Use it as a context."""

    def __init__(self, docker_host: str | None) -> None:
        self.host = docker_host or _context_host()
        self._client: docker.APIClient | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    @property
    def remote(self) -> bool:
        """Whether the engine runs on another machine, where our paths mean nothing."""
        local = (
            "unix://",
            "npipe://",
            "tcp://127.",
            "tcp://localhost",
            "tcp://[::1]",
            "http://127.",
            "http://localhost",
        )
        return bool(self.host) and not self.host.startswith(local)

    @property
    def connections(self) -> int:
        """How many calls to make at once: over SSH every connection is a login of its own."""
        return 1 if self.host.startswith("ssh://") else 8

    def containers(self) -> tuple[Container, ...]:
        """List the containers of every compose project, running or not.

        Engine 20.10 answers 404 to the whole listing when one of them is removed meanwhile: it is asked for again.
        """
        import docker

        with self._reaching() as client:
            for _ in range(_LISTINGS):
                with contextlib.suppress(docker.errors.NotFound):
                    found = client.containers(all=True, filters={"label": PROJECT})
                    return tuple(_container(item) for item in found)
                time.sleep(_PAUSE)
        raise self._unreachable("lists no containers, as it removes one after the other")

    def networks(self) -> dict[str, tuple[str, ...]]:
        """Map the networks' names to their subnets."""
        with self._reaching() as client:
            found = client.networks()
        return {item["Name"]: _subnets(item) for item in found}

    def details(self, container: Container) -> Details | None:
        """Inspect a container; None when it has gone since it was listed."""
        import docker

        with self._reaching() as client:
            try:
                return _details(client.inspect_container(container.id))
            except docker.errors.NotFound:
                return None

    def check(self, container: Container, command: Sequence[str]) -> bool | None:
        """Run a health check's command in the container, as the engine would, and say whether it passes.

        None where it can't be run: the image lacks its program.
        """
        import docker

        try:
            with self._reaching() as client:
                made = client.exec_create(container.id, list(command))
                with contextlib.suppress(docker.errors.APIError):  # newer engines refuse to start what is not there
                    client.exec_start(made["Id"])
                code = client.exec_inspect(made["Id"]).get("ExitCode")
        except TargetUnreadable:  # it hangs, or the container stopped under it: its state is looked at next
            return False
        return None if code in _NOT_RUN else code == 0

    def last_lines(self, container: Container, count: int = 5) -> str:
        """Return the end of a container's log; nothing where it can't be had."""
        try:
            with self._reaching() as client:
                return str(client.logs(container.id, tail=count).decode(errors="replace"))
        except TargetUnreadable:
            return ""

    @contextlib.contextmanager
    def _reaching(self) -> Iterator[Any]:
        """Yield the client, and turn what goes wrong into a problem."""
        import docker
        import requests

        try:
            yield self._connect()
        except docker.errors.APIError as error:
            raise self._unreachable(f"refuses: {error.explanation or error}") from error
        except (docker.errors.DockerException, requests.exceptions.RequestException, OSError, ValueError) as error:
            raise self._unreachable(_cause(error)) from error
        except (LookupError, TypeError, AttributeError) as error:  # the package trusts every answer
            raise self._unreachable("answers what can't be understood") from error

    def _connect(self) -> docker.APIClient:
        import docker
        from docker.utils import kwargs_from_env  # it is there by now

        if self._client is None:
            ssh = self.host.startswith("ssh://")  # by the ssh program, which knows the user's keys and configuration
            host = _with_port(self.host) if ssh else self.host
            if ssh:
                _keep_environment_from_ssh()
            settings = kwargs_from_env(environment={**os.environ, "DOCKER_HOST": host})
            self._client = docker.APIClient(**settings, version="auto", timeout=_TIMEOUT, use_ssh_client=ssh)
        return self._client

    def _unreachable(self, cause: str) -> TargetUnreadable:
        hint = "start it, or let DOCKER_HOST name the machine it runs on (ssh://user@server)"
        if self.host.startswith("ssh://"):
            cause = cause.replace("can't be reached:", "can't be reached over SSH:")
            hint = f"docker -H {self.host} version has to work without a question (a key, a known host, docker there)"
        return TargetUnreadable(Problem(f"Docker Engine {self.host}", cause, hint, scope="compose"))


def _cause(error: BaseException) -> str:
    """Return the innermost cause: the `docker` package wraps it in up to five others."""
    innermost = error
    while innermost.__cause__ or innermost.__context__:
        innermost = innermost.__cause__ or innermost.__context__ or innermost
    return f"can't be reached: {getattr(innermost, 'strerror', None) or innermost}"


def _ssh_environment() -> dict[str, str]:
    return {name: os.environ[name] for name in ("PATH", "HOME", "USER", "SSH_AUTH_SOCK") if name in os.environ}


def _keep_environment_from_ssh() -> None:
    """Start the `docker` package's ssh with what it needs: it would get our whole environment, secrets and all."""
    from docker.transport import sshconn

    class Socket(sshconn.SSHSocket):
        def connect(self, **_: object) -> None:  # type: ignore[override]
            user = ["-l", self.user] if self.user else []
            port = ["-p", self.port] if self.port else []
            self.proc = subprocess.Popen(
                ["ssh", *user, *port, "--", self.host, "docker system dial-stdio"],
                env=_ssh_environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                process_group=0,  # an interrupt is ours to deal with
            )

        def close(self) -> None:
            """End ssh, and close the socket that the package only pretends to use and leaves open."""
            with contextlib.suppress(OSError):  # ssh may have gone by itself
                super().close()
            socket.socket.close(self)

    if sshconn.SSHSocket.__name__ == "SSHSocket":
        sshconn.SSHSocket = Socket  # type: ignore[misc]


def _with_port(host: str) -> str:
    """Add the port that the user's SSH configuration names: the `docker` package would insist on 22."""
    parts = urlsplit(host)
    if parts.port or not parts.hostname:
        return host
    try:
        asked = ["ssh", "-G", "--", parts.hostname]
        said = subprocess.run(
            asked, capture_output=True, text=True, check=False, timeout=_TIMEOUT, env=_ssh_environment()
        ).stdout
    except (OSError, subprocess.TimeoutExpired):  # without the program connecting fails next, and says why
        return host
    port = re.search(r"^port (\d+)$", said, re.MULTILINE)
    return f"ssh://{parts.netloc}:{port[1]}" if port else host


def _context_host() -> str:
    """Return the host of Docker's current context (Colima has one), as the docker program chooses it.

    The `docker` package does not know DOCKER_CONTEXT. Raises `TargetUnreadable` where that names none.
    """
    import docker

    name = os.environ.get("DOCKER_CONTEXT")
    try:
        context = docker.context.ContextAPI.get_context(name)
    except (docker.errors.DockerException, OSError, ValueError):
        context = None
    if name and context is None:
        hint = "see docker context ls, or unset DOCKER_CONTEXT"
        raise TargetUnreadable(Problem("DOCKER_CONTEXT", f"there is no Docker context {name}", hint, scope="compose"))
    host = getattr(context, "Host", None)
    return str(host or "unix:///var/run/docker.sock").replace("http+unix://", "unix://")


def _container(item: Mapping[str, Any]) -> Container:
    networks = (item.get("NetworkSettings") or {}).get("Networks") or {}
    return Container(
        id=item["Id"],
        name=(item.get("Names") or ["/"])[0].lstrip("/"),
        labels=item.get("Labels") or {},
        state=item.get("State", ""),
        created=int(item.get("Created") or 0),
        addresses=tuple(network["IPAddress"] for network in networks.values() if (network or {}).get("IPAddress")),
        ports={
            port["PrivatePort"]: (_address(port.get("IP") or ""), port["PublicPort"])
            for port in item.get("Ports") or ()
            if port.get("PublicPort") and port.get("Type", "tcp") == "tcp"
        },
    )


def _address(ip: str) -> str:
    return "" if ip in ("0.0.0.0", "::") else ip  # noqa: S104 (compared with, not bound to)


def _details(item: Mapping[str, Any]) -> Details:
    state, config = item["State"], item["Config"]
    return Details(
        environment=dict(entry.partition("=")[::2] for entry in config.get("Env") or ()),
        status=state.get("Status", ""),
        health=(state.get("Health") or {}).get("Status", ""),
        restarts=int(item.get("RestartCount") or 0),
        started=state.get("StartedAt", ""),
        exit_code=int(state.get("ExitCode") or 0),
        check=_check(config),
    )


def _check(config: Mapping[str, Any]) -> tuple[str, ...]:
    test = (config.get("Healthcheck") or {}).get("Test") or ["NONE"]
    if test[0] == "CMD-SHELL":
        return (*(config.get("Shell") or ("/bin/sh", "-c")), test[1])
    return tuple(test[1:]) if test[0] == "CMD" else ()


def _subnets(network: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(item["Subnet"] for item in (network.get("IPAM") or {}).get("Config") or () if item.get("Subnet"))
