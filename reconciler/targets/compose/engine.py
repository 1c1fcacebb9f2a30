"""What the Docker Engine tells of a project: what runs, with which environment, and whether it came up.

That is decided in seconds, and never waited for in silence.
"""

from __future__ import annotations

import contextlib
import io
import re
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from reconciler.docker import Client, EngineMemory, NotThere
from reconciler.problem import TargetUnreadable

PROJECT = "com.docker.compose.project"
ALIVE = ("running", "restarting", "paused")
TWIN = re.compile(r"[0-9a-f]{12}_")  # how Compose names a container that is to take another one's place
CRASHES = "it crashes and is restarted again and again"
_LISTINGS = 6  # how often a listing is asked for again
_PAUSE = 0.5  # seconds between two of them: a removal takes that long on a busy machine
_TICK = 2.0  # seconds between two words on what is waited for
_CALL = 30.0  # seconds for a call, besides what it waits for
LARGEST_FILE = 2 << 20  # bytes of the archive of a content that stands in a compose file
_GRACE = 10  # seconds, as is Docker's own
_LASTING = 10.0  # seconds after which the engine takes a start for one that lasts
_INTERVAL, _RETRIES = 30.0, 3  # of a health check that says no more
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
    network_mode: str = ""
    image: str = ""  # as it is named, its id where that name means another one by now

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
    inspected: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def runs(self) -> bool:
        """Whether its process is there."""
        return self.status in ALIVE

    @property
    def restarts_itself(self) -> bool:
        """Whether the engine starts it again when it ends well: it is no job."""
        policy = (self.inspected.get("HostConfig") or {}).get("RestartPolicy") or {}
        return policy.get("Name") in ("always", "unless-stopped")

    @property
    def grace(self) -> float:
        """How many seconds it may take to stop."""
        seconds = (self.inspected.get("Config") or {}).get("StopTimeout")
        return float(_GRACE if seconds is None else seconds)

    @property
    def start_period(self) -> float:
        """How many seconds its health check may fail after a start."""
        return _seconds((self.inspected.get("Config") or {}).get("Healthcheck") or {}, "StartPeriod")

    @property
    def age(self) -> float:
        """For how many seconds it has run."""
        try:
            began = datetime.fromisoformat(f"{self.started[:19]}+00:00")
        except ValueError:
            return 0.0
        return (datetime.now(UTC) - began).total_seconds()

    def start_time(self, patience: Patience) -> float:
        """Return how many seconds it may take to become healthy, as its file says.

        An interval that is longer than our patience tells how often is looked, and not how long a start takes.
        """
        check = (self.inspected.get("Config") or {}).get("Healthcheck") or {}
        interval, retries = _seconds(check, "Interval") or _INTERVAL, check.get("Retries") or _RETRIES
        tries = retries * (interval + (_seconds(check, "Timeout") or 0)) if interval <= patience.ready else 0.0
        return self.start_period + max(patience.ready, tries)


def newest(containers: Sequence[Container], service: str) -> tuple[Container, ...]:
    """Return the living container of each replica of a service.

    A killed ``up`` leaves a twin named ``<id12>_<name>``: of two with one number the newest living one counts.
    """
    return _newest([item for item in containers if _is_of(item, service) and item.state in ALIVE])


def stopped(
    containers: Sequence[Container], service: str, *, interrupted: bool = False, twins: bool = False
) -> tuple[Container, ...]:
    """Return the container of each replica of a service that is stopped: none where one of it runs.

    Nor is it stopped where an ``up`` was interrupted: the old one is, and the new one has yet to be named or started.
    With ``twins`` that was not to be started either.
    """
    mine = [item for item in containers if _is_of(item, service)]
    if interrupted or any(item.state in ALIVE or (TWIN.match(item.name) and not twins) for item in mine):
        return ()
    return _newest([item for item in mine if item.state in ("exited", "created")])


def _is_of(container: Container, service: str) -> bool:
    return container.service == service and not container.one_off


def _newest(containers: Sequence[Container]) -> tuple[Container, ...]:
    by_replica = {item.replica: item for item in sorted(containers, key=lambda item: item.created)}
    return tuple(by_replica[replica] for replica in sorted(by_replica))


class Engine(Client):
    """The engine that a project runs on."""

    def __init__(self, host: str | None, memory: EngineMemory | None = None) -> None:
        super().__init__(host, "compose", memory=memory)

    @property
    def connections(self) -> int:
        """How many calls to make at once: over SSH every connection is a login of its own."""
        return 1 if self.host.startswith("ssh://") else 8

    def containers(self, *, every: bool = False) -> tuple[Container, ...]:
        """List the containers of every compose project, running or not; with ``every`` those of no project, too.

        Engine 20.10 answers 404 to the whole listing when one of them is removed meanwhile: it is asked for again.
        """
        for _ in range(_LISTINGS):
            with contextlib.suppress(NotThere), self.reaching() as client:
                found = client.containers(all=True, filters={} if every else {"label": PROJECT})
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

    def content(self, container: Container, path: str) -> str | None:
        """Return what a file in a container says, running or not; None where there is none, or it is a large one."""
        archive = self.archive(container.id, path, LARGEST_FILE)
        with (
            contextlib.suppress(tarfile.TarError, UnicodeDecodeError),
            tarfile.open(fileobj=io.BytesIO(archive or b"")) as tar,
        ):
            file = tar.extractfile(tar.getmembers()[0])
            return file.read().decode() if file is not None else None
        return None

    def make(self, body: Mapping[str, Any], name: str) -> str:
        """Create a container from the engine's own description of one; return its id."""
        with self.reaching() as client:
            made = client.create_container_from_config(dict(body), name)  # type: ignore[no-untyped-call]
            return str(made["Id"])

    def put(self, container: str, path: str, archive: bytes) -> None:
        """Put a file into a container that has yet to be started, from the archive of another one's."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=io.BytesIO(archive)) as old, tarfile.open(fileobj=packed, mode="w") as new:
            for member in old.getmembers()[:1]:
                content = old.extractfile(member)
                member.name = path.lstrip("/")
                new.addfile(member, content)
        with self.reaching() as client:
            client.put_archive(container, "/", packed.getvalue())

    def start(self, container: str) -> None:
        """Start a container."""
        with self.reaching() as client:
            client.start(container)

    def remove(self, container: str, grace: float) -> None:
        """Stop a container, which gets ``grace`` seconds, and remove it; one that is not there is fine."""
        with contextlib.suppress(NotThere), self.reaching(seconds=_CALL + grace) as client:
            client.stop(container, timeout=int(grace))
            client.remove_container(container, force=True)

    def pause(self, container: str) -> None:
        """Stop a container's processes where they are, as somebody had done with the one before."""
        with self.reaching() as client:
            client.pause(container)

    def namespaces(self, container: Container) -> frozenset[str]:
        """Return whose namespaces a container lives in: ``container:ID`` for each; nothing where it has gone."""
        with contextlib.suppress(NotThere), self.reaching() as client:
            host = client.inspect_container(container.id).get("HostConfig") or {}
            return frozenset(str(host.get(name) or "") for name in ("NetworkMode", "PidMode", "IpcMode"))
        return frozenset()

    def rename(self, container: str, name: str) -> None:
        """Give a container another name."""
        with self.reaching() as client:
            client.rename(container, name)

    def attach(self, container: str, network: str, endpoint: Mapping[str, Any]) -> None:
        """Connect a container to a network, with the settings that inspecting it gave."""
        with self.reaching() as client:
            client.connect_container_to_network(
                container,
                network,
                aliases=list(endpoint.get("Aliases") or ()),
                links=[tuple(item.split(":", 1)) for item in endpoint.get("Links") or ()],
                driver_opt=endpoint.get("DriverOpts") or None,
                **{f"{kind}_address": text for kind, text in _asked_addresses(endpoint)},
            )

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
        network_mode=(item.get("HostConfig") or {}).get("NetworkMode") or "",
        image=item.get("Image") or "",
    )


def _asked_addresses(endpoint: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the addresses that were asked for in a network, by ``ipv4`` and ``ipv6``."""
    for kind, text in (endpoint.get("IPAMConfig") or {}).items():
        if kind in ("IPv4Address", "IPv6Address") and text:
            yield kind[:4].lower(), str(text)


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
        inspected=item,
    )


def _seconds(check: Mapping[str, Any], name: str) -> float:
    """Read a time of a health check, which the engine has in nanoseconds."""
    return float((check.get(name) or 0) / 1e9)


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


def wait_until_up(engine: Engine, containers: Sequence[Container], patience: Patience, *, sick: bool = False) -> str:
    """Wait until a service's containers are up; return what is wrong with one, or nothing.

    The service's own health-check command is run at once instead of waiting for the engine to do so, since intervals
    of minutes are usual. Without a health check, or with one whose program its image lacks, or that failed before
    (``sick``), running for a while without a restart is enough. A job that has ended well has come up, too.
    """
    if not containers:
        return "no container of it runs"
    begin = time.monotonic()
    first: dict[str, Details | None] = {item.id: engine.details(item) for item in containers}
    while True:
        waited = time.monotonic() - begin
        verdicts = [_verdict(engine, item, first[item.id], waited, patience, sick=sick) for item in containers]
        failed = [item for item in verdicts if item]
        if failed:
            return failed[0]
        if all(item is not None for item in verdicts):
            return ""
        time.sleep(patience.pause)


def _verdict(
    engine: Engine, container: Container, first: Details | None, waited: float, patience: Patience, *, sick: bool
) -> str | None:
    """Return what is wrong, an empty text when the container is up, None while that can't be told."""
    now = engine.details(container)
    if first is None or now is None:
        return "its container was removed meanwhile"
    if now.restarts > first.restarts or now.started != first.started or now.status == "restarting":
        return CRASHES
    ended_well = now.status == "exited" and now.exit_code == 0 and not now.restarts_itself
    if ended_well or now.status == "paused":  # by a person, who lets it go on
        return ""
    if now.status != "running":
        return f"it is {now.status} (exit code {now.exit_code})"
    passes = (now.health == "healthy" or engine.check(container, now.check)) if now.check else None
    if passes is None or (sick and not passes):
        return "" if waited >= patience.settle else None
    return "" if passes else _unhealthy(now, waited, patience)


def _unhealthy(now: Details, waited: float, patience: Patience) -> str | None:
    if now.health == "unhealthy":
        return "its health check fails"
    limit = now.start_time(patience)
    return f"its health check did not pass within {limit:.0f} seconds" if waited >= limit else None


def is_crashing(details: Details) -> bool:
    """Whether a container ends again and again: the engine waits longer each time, until it has run for ten seconds."""
    return details.status == "restarting" or (details.restarts > 0 and details.age < _LASTING)


def is_sick(engine: Engine, container: Container, details: Details) -> bool:
    """Whether a running container's health check fails."""
    if details.status != "running" or not details.check or details.health == "healthy":
        return False
    return details.health == "unhealthy" or (
        details.age > details.start_period and engine.check(container, details.check) is False
    )
