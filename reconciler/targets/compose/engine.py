"""The Docker Engine: what runs, with which environment, and whether it came up."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from reconciler.problem import Problem, TargetUnreadable

if TYPE_CHECKING:
    import docker

PROJECT = "com.docker.compose.project"
_ALIVE = ("running", "restarting", "paused")
_TIMEOUT = 30  # seconds for one call to the engine


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
        """List the containers of every compose project, running or not."""
        with self._reaching() as client:
            found = client.containers(all=True, filters={"label": PROJECT})
        return tuple(_container(item) for item in found)

    def networks(self) -> dict[str, tuple[str, ...]]:
        """Map the networks' names to their subnets."""
        with self._reaching() as client:
            found = client.networks()
        return {item["Name"]: _subnets(item) for item in found}

    def details(self, container: Container) -> Details:
        """Inspect a container."""
        with self._reaching() as client:
            return _details(client.inspect_container(container.id))

    def check(self, container: Container, command: Sequence[str]) -> bool:
        """Run a health check's command in the container, as the engine would, and say whether it passes."""
        try:
            with self._reaching() as client:
                made = client.exec_create(container.id, list(command))
                client.exec_start(made["Id"])
                return bool(client.exec_inspect(made["Id"]).get("ExitCode") == 0)
        except TargetUnreadable:  # it hangs, or the container stopped under it: its state is looked at next
            return False

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
        import docker.errors
        import requests.exceptions

        try:
            yield self._connect()
        except docker.errors.APIError as error:
            raise self._unreachable(f"refuses: {error.explanation or error}") from error
        except (docker.errors.DockerException, requests.exceptions.RequestException, OSError, ValueError) as error:
            raise self._unreachable(_cause(error)) from error

    def _connect(self) -> docker.APIClient:
        import docker.utils

        if self._client is None:
            import os

            settings = docker.utils.kwargs_from_env(environment={**os.environ, "DOCKER_HOST": self.host})
            ssh = self.host.startswith("ssh://")  # by the ssh program, which knows the user's keys and configuration
            self._client = docker.APIClient(**settings, version="auto", timeout=_TIMEOUT, use_ssh_client=ssh)
        return self._client

    def _unreachable(self, cause: str) -> TargetUnreadable:
        hint = "start it, or let DOCKER_HOST name the machine it runs on (ssh://user@server)"
        return TargetUnreadable(Problem(f"Docker Engine {self.host}", cause, hint, scope="compose"))


def _cause(error: BaseException) -> str:
    """Return the innermost cause: the `docker` package wraps it in up to five others."""
    text = str(error)
    if "paramiko" in text or "ssh" in text.lower():
        return f"can't be reached over SSH: {text}"
    innermost = error
    while innermost.__cause__ or innermost.__context__:
        innermost = innermost.__cause__ or innermost.__context__ or innermost
    return f"can't be reached: {getattr(innermost, 'strerror', None) or innermost}"


def _context_host() -> str:
    """Return the host of Docker's current context (Colima has one), which the compose program follows too."""
    import docker.context
    import docker.errors

    try:
        context = docker.context.ContextAPI.get_current_context()
    except (docker.errors.DockerException, OSError, ValueError):
        context = None
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


# ------------------------------------------------------------------------------------------------------ coming up
@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for a service: ``ready`` for its health check, ``settle`` for one without (seconds)."""

    ready: float = 60.0
    settle: float = 5.0
    pause: float = 0.5


def wait_until_up(
    engine: Engine, service: str, containers: Sequence[Container], patience: Patience, progress: Callable[[str], None]
) -> str:
    """Wait until a service's containers are up; return what is wrong with one, or nothing.

    The service's own health-check command is run at once instead of waiting for the engine to do so, since intervals
    of minutes are usual. Without a health check, running for a while without a restart is enough.
    """
    if not containers:
        return "no container of it runs"
    begin = time.monotonic()
    first = {item.id: engine.details(item) for item in containers}
    while True:
        waited = time.monotonic() - begin
        verdicts = [_verdict(engine, item, first[item.id], waited, patience) for item in containers]
        failed = [item for item in verdicts if item]
        if failed:
            return failed[0]
        if all(item is not None for item in verdicts):
            return ""
        progress(f"waiting for {service} to come up ({waited:.0f} s)")
        time.sleep(patience.pause)


def _verdict(engine: Engine, container: Container, first: Details, waited: float, patience: Patience) -> str | None:
    """Return what is wrong, an empty text when the container is up, None while that can't be told."""
    now = engine.details(container)
    if now.restarts > first.restarts or now.started != first.started or now.status == "restarting":
        return "it crashes and is restarted again and again"
    if now.status != "running":
        return f"it is {now.status} (exit code {now.exit_code})"
    if not now.check:
        return "" if waited >= patience.settle else None
    if now.health == "healthy" or engine.check(container, now.check):
        return ""
    if now.health == "unhealthy":
        return "its health check fails"
    return f"its health check did not pass within {patience.ready:.0f} seconds" if waited >= patience.ready else None
