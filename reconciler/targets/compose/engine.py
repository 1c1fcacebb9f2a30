"""What the Docker Engine tells of a project: what runs, with which environment, and whether it came up.

That is decided in seconds, and never waited for in silence.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reconciler.docker import Client, EngineMemory, NotThere
from reconciler.problem import TargetUnreadable

PROJECT = "com.docker.compose.project"
_ALIVE = ("running", "restarting", "paused")
_LISTINGS = 6  # how often a listing is asked for again
_PAUSE = 0.5  # seconds between two of them: a removal takes that long on a busy machine
_TICK = 2.0  # seconds between two words on what is waited for
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


class Engine(Client):
    """The engine that a project runs on."""

    def __init__(self, host: str | None, memory: EngineMemory | None = None) -> None:
        super().__init__(host, "compose", memory=memory)

    @property
    def connections(self) -> int:
        """How many calls to make at once: over SSH every connection is a login of its own."""
        return 1 if self.host.startswith("ssh://") else 8

    def containers(self) -> tuple[Container, ...]:
        """List the containers of every compose project, running or not.

        Engine 20.10 answers 404 to the whole listing when one of them is removed meanwhile: it is asked for again.
        """
        for _ in range(_LISTINGS):
            with contextlib.suppress(NotThere), self.reaching() as client:
                found = client.containers(all=True, filters={"label": PROJECT})
                return tuple(_container(item) for item in found)
            time.sleep(_PAUSE)
        raise self.unreachable("lists no containers, as it removes one after the other")

    def networks(self) -> dict[str, tuple[str, ...]]:
        """Map the networks' names to their subnets."""
        with self.reaching() as client:
            return {item["Name"]: _subnets(item) for item in client.networks()}

    def details(self, container: Container) -> Details | None:
        """Inspect a container; None when it has gone since it was listed."""
        with contextlib.suppress(NotThere), self.reaching() as client:
            return _details(client.inspect_container(container.id))
        return None

    def check(self, container: Container, command: Sequence[str]) -> bool | None:
        """Run a health check's command in the container, as the engine would, and say whether it passes.

        None where it can't be run: the image lacks its program, which newer engines refuse to start. The package's own
        call to start it would wait at a connection without end.
        """
        try:
            with self.reaching() as client:
                made = client.exec_create(container.id, list(command))["Id"]
                start = f"{client.base_url}/v{client.api_version}/exec/{made}/start"
                client.post(start, json={"Detach": False, "Tty": False})
                code = client.exec_inspect(made).get("ExitCode")
        except TargetUnreadable:  # it hangs, or the container stopped under it: its state is looked at next
            return False
        return None if code in _NOT_RUN else code == 0

    def last_lines(self, container: Container, count: int = 5) -> str:
        """Return the end of a container's log; nothing where it can't be had."""
        try:
            return self.log(container.id, count)
        except TargetUnreadable:
            return ""


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


# ------------------------------------------------------------------------------------------------------- readiness
@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for a service: ``ready`` for its health check, ``settle`` for one without (seconds)."""

    ready: float = 60.0
    settle: float = 5.0
    pause: float = 0.5


@contextlib.contextmanager
def ticking(progress: Callable[[str], None], what: str) -> Iterator[None]:
    """Say what is done, and every two seconds that it still is, for as long as the context lasts."""
    done, begin = threading.Event(), time.monotonic()

    def tick() -> None:
        while not done.wait(_TICK):
            progress(f"{what} ({time.monotonic() - begin:.0f} s)")

    progress(what)
    thread = threading.Thread(target=tick, name="compose-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def wait_until_up(engine: Engine, containers: Sequence[Container], patience: Patience) -> str:
    """Wait until a service's containers are up; return what is wrong with one, or nothing.

    The service's own health-check command is run at once instead of waiting for the engine to do so, since intervals
    of minutes are usual. Without a health check, or with one whose program its image lacks, running for a while
    without a restart is enough.
    """
    if not containers:
        return "no container of it runs"
    begin = time.monotonic()
    first: dict[str, Details | None] = {item.id: engine.details(item) for item in containers}
    while True:
        waited = time.monotonic() - begin
        verdicts = [_verdict(engine, item, first[item.id], waited, patience) for item in containers]
        failed = [item for item in verdicts if item]
        if failed:
            return failed[0]
        if all(item is not None for item in verdicts):
            return ""
        time.sleep(patience.pause)


def _verdict(
    engine: Engine, container: Container, first: Details | None, waited: float, patience: Patience
) -> str | None:
    """Return what is wrong, an empty text when the container is up, None while that can't be told."""
    now = engine.details(container)
    if first is None or now is None:
        return "its container was removed meanwhile"
    if now.restarts > first.restarts or now.started != first.started or now.status == "restarting":
        return "it crashes and is restarted again and again"
    if now.status != "running":
        return f"it is {now.status} (exit code {now.exit_code})"
    passes = (now.health == "healthy" or engine.check(container, now.check)) if now.check else None
    if passes is None:
        return "" if waited >= patience.settle else None
    return "" if passes else _unhealthy(now, waited, patience)


def _unhealthy(now: Details, waited: float, patience: Patience) -> str | None:
    if now.health == "unhealthy":
        return "its health check fails"
    return f"its health check did not pass within {patience.ready:.0f} seconds" if waited >= patience.ready else None
