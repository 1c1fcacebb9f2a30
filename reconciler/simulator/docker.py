"""The Docker Engine API on the wire, as far as the `docker` package, Compose's stand-in and our product use it.

Answers are shaped as Engine 20.10 (API 1.41) gave them to us. Nothing runs in a container here: what its process does
is a `Behaviour`, what stands in its files and what a program in it answers are callables put on the fake.
"""

from __future__ import annotations

import base64
import collections
import dataclasses
import gzip
import hashlib
import io
import ipaddress
import json
import re
import select
import socket
import struct
import tarfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import formatdate
from pathlib import PurePosixPath
from typing import Any, TypeVar

from reconciler.simulator.wire import Reply, Request

API_VERSION = "1.41"
ENGINE_VERSION = "20.10.24"
NEVER = "0001-01-01T00:00:00Z"  # Go's zero time, as the engine prints it
RESTART_PAUSE = 0.1  # seconds; the engine's first pause before it restarts a crashed container
EVENTS_KEPT = 256  # events that the engine remembers
EXEC_PAUSE = 0.1  # seconds; about what the engine takes to start a program
STREAM = "application/vnd.docker.raw-stream"


class Refusal(Exception):
    """An answer of the engine other than success: its status and its ``message``."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(status, message)
        self.status = status
        self.message = message


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What a container's process does once it is started.

    ``verdict_after`` is in seconds: until then its health is ``starting``, as with a health check whose interval is
    long. ``passes`` is what the check says, asked through ``exec`` at any time. ``crashes`` ends the process at once,
    again after every restart that the restart policy allows.
    """

    verdict_after: float = 0.0
    passes: bool = True
    crashes: bool = False


HEALTHY = Behaviour()
SLOW = Behaviour(verdict_after=120.0)
FAILING = Behaviour(passes=False)
CRASH_LOOPING = Behaviour(passes=False, crashes=True)


@dataclass(frozen=True, slots=True)
class Output:
    """What a program run in a container left behind."""

    exit_code: int = 0
    stdout: bytes = b""
    stderr: bytes = b""


@dataclass(slots=True)
class Image:
    """An image. ``config`` holds ``Env``, ``Volumes``, ``Healthcheck``, ``Labels``, ``Cmd`` in the engine's shapes."""

    reference: str
    id: str
    config: dict[str, Any]
    digests: tuple[str, ...] = ()


@dataclass(slots=True)
class Network:
    """A bridge network with one subnet; ``issued`` counts the addresses given so far."""

    name: str
    id: str
    subnet: ipaddress.IPv4Network
    labels: dict[str, str]
    issued: int = 1

    @property
    def gateway(self) -> str:
        """The subnet's first address."""
        return str(self.subnet[1])

    def issue(self) -> str:
        """Give out the next address."""
        self.issued += 1
        return str(self.subnet[self.issued])


@dataclass(slots=True)
class Endpoint:
    """A container's place in a network; ``address`` is empty while the container does not run."""

    aliases: list[str]
    address: str = ""


@dataclass(slots=True)
class Container:
    """A container. ``config`` and ``host`` are ``Config`` and ``HostConfig`` as the engine names them."""

    id: str
    name: str
    image: Image
    config: dict[str, Any]
    host: dict[str, Any]
    created: float
    mounts: list[dict[str, Any]] = field(default_factory=list)
    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    started: float | None = None
    finished: float | None = None
    exit_code: int = 0
    running: bool = False
    logs: bytes = b""
    times: dict[int, float] = field(default_factory=dict)  # of lines of the log, by their number; others are of now
    memory: int = 48 << 20  # bytes in use
    oom_killed: bool = False
    paused: bool = False
    contents: dict[str, bytes] = field(default_factory=dict)  # what was put into it, by its place

    def say(self, line: str, when: float) -> None:
        """Print a line at a time."""
        self.times[self.logs.count(b"\n")] = when
        self.logs += f"{line}\n".encode()

    @property
    def labels(self) -> dict[str, str]:
        """Its labels."""
        labels: dict[str, str] = self.config.get("Labels") or {}
        return labels

    @property
    def environment(self) -> dict[str, str]:
        """Its environment, as its process sees it."""
        return dict(item.partition("=")[::2] for item in self.config.get("Env") or [] if "=" in item)


@dataclass(slots=True)
class _Exec:
    container: Container
    command: list[str]
    tty: bool
    output: Output | None = None


def identify(*parts: str) -> str:
    """Make an id of 64 hexadecimal digits that only depends on what is given."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _moment(value: float | None) -> str:
    if value is None:
        return NEVER
    return datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _truth(value: str) -> bool:
    return value.lower() not in ("", "0", "no", "false", "none")


def _with_tag(reference: str) -> str:
    return reference if ":" in reference.rpartition("/")[2] or "@" in reference else f"{reference}:latest"


_ROUTES: list[tuple[str, str, Callable[..., Reply]]] = []
_Answer = TypeVar("_Answer", bound=Callable[..., Reply])


def _route(method: str, pattern: str) -> Callable[[_Answer], _Answer]:
    """Let a method of `Docker` answer a path; what the pattern's groups match are its arguments."""

    def register(answer: _Answer) -> _Answer:
        _ROUTES.append((method, pattern, answer))
        return answer

    return register


class Docker:
    """The fake engine: hand it to `wire.Server`.

    ``behaviours`` maps a container's name to what its process does; ``script`` decides where that depends on more,
    such as the environment. ``files`` gives a file's content in a container, or ``None`` where there is none.
    ``execute`` runs a program in a container, or gives ``None`` where there is no such program; the container's own
    health check is answered by its behaviour. ``on_start`` is told of a container when it starts for the first time,
    ``on_restart`` its name whenever it starts again, ``on_volume_removed`` a volume's name.
    """

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        """Begin with the three networks every engine has, and nothing else. ``clock`` gives seconds since 1970."""
        self.clock = clock
        self.containers: dict[str, Container] = {}
        self.images: dict[str, Image] = {}
        self.networks: dict[str, Network] = {}
        self.volumes: dict[str, dict[str, str]] = {}  # name to labels
        self.behaviours: dict[str, Behaviour] = {}
        self.script: Callable[[Container], Behaviour] = lambda it: self.behaviours.get(it.name, HEALTHY)
        self.files: Callable[[Container, str], bytes | None] = lambda _container, _path: None
        self.execute: Callable[[Container, list[str]], Output | None] = lambda _container, _command: None
        self.on_start: Callable[[Container], None] = lambda _container: None
        self.on_restart: Callable[[str], None] = lambda _name: None
        self.on_volume_removed: Callable[[str], None] = lambda _name: None
        self._execs: dict[str, _Exec] = {}
        self._serial = 0
        self._bridges = 0
        self._lock = threading.RLock()
        self._happened = threading.Condition(self._lock)
        self._events: collections.deque[dict[str, Any]] = collections.deque(maxlen=EVENTS_KEPT)
        self._told = 0  # events ever
        self._life = 0  # how often the streams of events were ended
        self.add_network("bridge")

    # ------------------------------------------------------------------------------------------- what tests set up
    def add_image(self, reference: str, *, digests: Iterable[str] = (), **config: Any) -> Image:
        """Make an image known; ``config`` as ``Env=[...]``, ``Volumes={"/data": {}}``, ``Healthcheck={...}``."""
        reference = _with_tag(reference)
        image = Image(reference, f"sha256:{identify('image', reference, repr(config))}", config, tuple(digests))
        self.images[reference] = image
        return image

    def add_network(self, name: str, *, subnet: str = "", labels: Mapping[str, str] | None = None) -> Network:
        """Make a network; without ``subnet`` it gets the next of 172.17.0.0/16, 172.18.0.0/16 and so on."""
        chosen = ipaddress.IPv4Network(subnet or f"172.{17 + self._bridges}.0.0/16")
        self._bridges += 0 if subnet else 1
        self.networks[name] = Network(name, identify("network", name), chosen, dict(labels or {}))
        return self.networks[name]

    def run(
        self,
        name: str,
        image: str,
        *,
        env: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        networks: Mapping[str, Iterable[str]] | None = None,
        binds: Iterable[str] = (),
        ports: Mapping[str, tuple[str, int]] | None = None,
        restart: str = "always",
        **config: Any,
    ) -> Container:
        """Create a container and start it, making the image and the networks (name to aliases) that are not there.

        ``ports`` maps ``8080/tcp`` to address and port on the host; ``config`` is more of the engine's ``Config``.
        """
        if _with_tag(image) not in self.images:
            self.add_image(image)
        for network in networks or {}:
            if network not in self.networks:
                self.add_network(network)
        published = {port: [{"HostIp": ip, "HostPort": str(at)}] for port, (ip, at) in (ports or {}).items()}
        container = self._create(
            name,
            {
                **config,
                "Image": image,
                "Env": [f"{key}={value}" for key, value in (env or {}).items()],
                "Labels": dict(labels or {}),
                "HostConfig": {
                    "Binds": list(binds),
                    "PortBindings": published,
                    "RestartPolicy": {"Name": restart, "MaximumRetryCount": 0},
                },
            },
        )
        for network, aliases in (networks or {"bridge": ()}).items():
            self._connect(container, network, aliases)
        self._start(container)
        return container

    def named(self, name: str) -> Container:
        """Find a container by name or id; raises `Refusal` (404) where there is none."""
        return self._container(name)

    # --------------------------------------------------------------------------------------------------- the wire
    def __call__(self, request: Request) -> Reply:
        """Answer one request."""
        try:
            with self._lock:
                reply = self._dispatch(request)
        except Refusal as refusal:
            reply = Reply.of({"message": refusal.message}, refusal.status)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            reply = Reply.of({"message": f"invalid request: {error}"}, 400)
        fixed = {"Api-Version": API_VERSION, "Ostype": "linux", "Server": f"Docker/{ENGINE_VERSION} (linux)"}
        return dataclasses.replace(reply, headers={**fixed, **reply.headers})

    def _dispatch(self, request: Request) -> Reply:
        path = self._unversioned(request.path)
        for method, pattern, answer in _ROUTES:
            match = re.fullmatch(pattern, path)
            if match and request.method in (method, "HEAD" if method == "GET" else method):
                return answer(self, request, *match.groups())
        raise Refusal(404, "page not found")

    @staticmethod
    def _unversioned(path: str) -> str:
        match = re.match(r"/v(\d+)\.(\d+)(?=/)", path)
        if not match:
            return path
        asked = (int(match[1]), int(match[2]))
        if asked > tuple(int(part) for part in API_VERSION.split(".")):
            asked_for = f"{match[1]}.{match[2]}"
            message = f"client version {asked_for} is too new. Maximum supported API version is {API_VERSION}"
            raise Refusal(400, message)
        return path[match.end() :]

    @_route("GET", "/_ping")
    def _ping(self, _: Request) -> Reply:
        return Reply(200, b"OK", "text/plain; charset=utf-8")

    @_route("GET", "/version")
    def _version(self, _: Request) -> Reply:
        version = {"Version": ENGINE_VERSION, "ApiVersion": API_VERSION, "MinAPIVersion": "1.12"}
        engine = {"Name": "Engine", "Version": ENGINE_VERSION, "Details": {"ApiVersion": API_VERSION}}
        return Reply.of({**version, "Os": "linux", "Arch": "amd64", "Components": [engine]})

    @_route("GET", "/info")
    def _info(self, _: Request) -> Reply:
        running = sum(item.running for item in self.containers.values())
        counts = {"Containers": len(self.containers), "ContainersRunning": running, "Images": len(self.images)}
        return Reply.of({**counts, "ServerVersion": ENGINE_VERSION, "OSType": "linux", "Name": "simulator"})

    # ------------------------------------------------------------------------------------------------------ events
    @_route("GET", "/events")
    def _stream_events(self, request: Request) -> Reply:
        """Tell what happens from now on, and what has happened ``since`` a time, until either side hangs up."""
        filters, since = _filters(request), request.first("since")
        life, seen = self._life, self._told
        earlier = [item for item in self._events if since and item["timeNano"] >= _nanoseconds(since)]
        if request.first("until"):  # the stream ends by itself
            until = _nanoseconds(request.first("until"))
            told = [item for item in earlier if item["timeNano"] <= until and _is_asked(item, filters)]
            return Reply(200, b"".join(json.dumps(item).encode() + b"\n" for item in told))

        def send(connection: socket.socket) -> None:
            queue, told = earlier, seen
            while (
                self._life == life and not select.select([connection], [], [], 0)[0]
            ):  # as long as the client is there
                for event in queue:
                    if _is_asked(event, filters):
                        connection.sendall(_chunk(json.dumps(event).encode() + b"\n"))
                with self._happened:
                    if self._told == told:
                        self._happened.wait(0.05)
                    fresh, told = self._told - told, self._told
                    queue = list(self._events)[len(self._events) - fresh :] if fresh else []

        headers = {"Transfer-Encoding": "chunked", "Date": formatdate(self.clock(), usegmt=True)}
        return Reply(200, headers=headers, stream=send)

    def end_streams(self) -> None:
        """Drop whoever listens to events, and forget what has happened, as an engine does that is restarted."""
        with self._happened:
            self._life += 1
            self._events.clear()
            self._happened.notify_all()

    def _tell(self, item: Container, action: str, **more: str) -> None:
        said = {**item.labels, "image": item.config["Image"], "name": item.name, **more}
        self._publish("container", action, item.id, said)

    def _publish(self, kind: str, action: str, identity: str, attributes: Mapping[str, str]) -> None:
        now = self.clock()
        event = {"Type": kind, "Action": action, "Actor": {"ID": identity, "Attributes": dict(attributes)}}
        if kind == "container":
            event = {"status": action, "id": identity, "from": attributes["image"], **event}
        with self._happened:
            self._events.append({**event, "scope": "local", "time": int(now), "timeNano": int(now * 1e9)})
            self._told += 1
            self._happened.notify_all()

    # ------------------------------------------------------------------------------------------ containers: reading
    @_route("GET", "/containers/json")
    def _list(self, request: Request) -> Reply:
        filters = _filters(request)
        everything = _truth(request.first("all")) or "status" in filters
        shown = [item for item in self.containers.values() if everything or self._state(item)["Running"]]
        matching = [item for item in shown if self._matches(item, filters)]
        newest_first = sorted(matching, key=lambda item: -item.created)
        return Reply.of([self._summary(item) for item in newest_first])

    def _matches(self, item: Container, filters: Mapping[str, list[str]]) -> bool:
        tests: dict[str, Callable[[str], bool]] = {
            "label": lambda text: _has_label(item.labels, text),
            "name": lambda text: re.search(text, f"/{item.name}") is not None or re.search(text, item.name) is not None,
            "id": item.id.startswith,
            "status": lambda text: self._state(item)["Status"] == text,
            "network": lambda text: text in item.endpoints,
        }
        for name, values in filters.items():
            if name not in tests:
                raise Refusal(400, f"Invalid filter '{name}'")
            if not (all if name == "label" else any)(tests[name](value) for value in values):
                return False
        return True

    def _summary(self, item: Container) -> dict[str, Any]:
        state = self._state(item)
        health = f" ({state['Health']['Status']})" if "Health" in state else ""
        return {
            "Id": item.id,
            "Names": [f"/{item.name}"],
            "Image": item.config["Image"],
            "ImageID": item.image.id,
            "Command": " ".join(item.config.get("Cmd") or []),
            "Created": int(item.created),
            "State": state["Status"],
            "Status": f"Up{health}" if state["Running"] else f"Exited ({item.exit_code})",
            "Labels": item.labels,
            "Ports": _short_ports(self._ports(item)),
            "Mounts": item.mounts,
            "HostConfig": {"NetworkMode": item.host.get("NetworkMode", "default")},
            "NetworkSettings": {"Networks": self._networks_of(item)},
        }

    @_route("GET", "/containers/([^/]+)/json")
    def _inspect(self, _: Request, name: str) -> Reply:
        item = self._container(name)
        state = self._state(item)
        restarts = state.pop("RestartCount")
        return Reply.of(
            {
                "Id": item.id,
                "Created": _moment(item.created),
                "Name": f"/{item.name}",
                "State": state,
                "RestartCount": restarts,
                "Image": item.image.id,
                "Config": item.config,
                "HostConfig": item.host,
                "Mounts": item.mounts,
                "NetworkSettings": {"Ports": self._ports(item), "Networks": self._networks_of(item)},
            }
        )

    def _state(self, item: Container) -> dict[str, Any]:
        """Tell the state from the time that passed since the start: nothing runs in between."""
        behaviour = self.script(item)
        age = self.clock() - item.started if item.started is not None else 0.0
        crashed = item.running and behaviour.crashes
        again = crashed and (item.host.get("RestartPolicy") or {}).get("Name", "no") not in ("", "no")
        alive = item.running and (again or not crashed)
        status = "restarting" if again else "running" if alive else "created" if item.started is None else "exited"
        status = "paused" if item.paused and status == "running" else status
        state = {
            "Status": status,
            "Running": alive,
            "Paused": alive and item.paused,
            "Restarting": again,
            "OOMKilled": item.oom_killed,
            "Dead": False,
            "Pid": 4242 if alive and not again else 0,
            "ExitCode": 1 if crashed else item.exit_code,
            "Error": "",
            "StartedAt": _moment(item.started),
            "FinishedAt": _moment(item.started if crashed else item.finished),
            "RestartCount": 1 + int(age / RESTART_PAUSE) if again else 0,
        }
        if _command_of_check(item) and item.started is not None:
            state["Health"] = _health(behaviour, age, alive=alive and not again)
        return state

    def _ports(self, item: Container) -> dict[str, Any]:
        exposed = dict.fromkeys(item.config.get("ExposedPorts") or {})
        return {**exposed, **(item.host.get("PortBindings") or {})} if item.running else {}

    def _networks_of(self, item: Container) -> dict[str, Any]:
        return {name: self._endpoint(item, name, endpoint) for name, endpoint in item.endpoints.items()}

    def _endpoint(self, item: Container, name: str, endpoint: Endpoint) -> dict[str, Any]:
        network = self.networks[name]
        up = bool(endpoint.address)
        return {
            "IPAMConfig": None,
            "Aliases": [*endpoint.aliases, item.id[:12]],
            "NetworkID": network.id,
            "EndpointID": identify("endpoint", item.id, name) if up else "",
            "Gateway": network.gateway if up else "",
            "IPAddress": endpoint.address,
            "IPPrefixLen": network.subnet.prefixlen if up else 0,
            "GlobalIPv6Address": "",
            "GlobalIPv6PrefixLen": 0,
        }

    @_route("GET", "/containers/([^/]+)/stats")
    def _stats(self, _: Request, name: str) -> Reply:
        """Tell of one moment what is asked of it: its memory."""
        item = self._container(name)
        used = item.memory if item.running else 0
        return Reply.of(
            {"memory_stats": {"usage": used, "limit": item.host.get("Memory") or 0, "stats": {}} if used else {}}
        )

    @_route("GET", "/containers/([^/]+)/logs")
    def _logs(self, request: Request, name: str) -> Reply:
        item = self._container(name)
        if not _truth(request.first("stdout")) and not _truth(request.first("stderr")):
            raise Refusal(400, "Bad parameters: you must choose at least one stream")
        tail = request.first("tail", "all")
        now, since = time.time(), float(request.first("since") or 0)
        timed = [(item.times.get(number, now), line) for number, line in enumerate(item.logs.splitlines(keepends=True))]
        stamped = _truth(request.first("timestamps"))
        lines = [(f"{_moment(when)} ".encode() if stamped else b"") + line for when, line in timed if when >= since]
        shown = b"".join(lines if tail == "all" else lines[-int(tail) :] if int(tail) else [])
        return Reply(200, shown if item.config.get("Tty") else _frame(1, shown), STREAM)

    @_route("GET", "/containers/([^/]+)/archive")
    def _archive(self, request: Request, name: str) -> Reply:
        item = self._container(name)
        path = request.first("path")
        content = item.contents.get(path) or self.files(item, path)
        if content is None:
            raise Refusal(404, f"Could not find the file {path} in container {name}")
        entry = tarfile.TarInfo(PurePosixPath(path).name)
        entry.size, entry.mtime = len(content), int(item.created)
        stat = {"name": entry.name, "size": entry.size, "mode": 0o644, "mtime": _moment(item.created), "linkTarget": ""}
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            archive.addfile(entry, io.BytesIO(content))
        encoded = base64.b64encode(json.dumps(stat).encode()).decode()
        headers, body = {"X-Docker-Container-Path-Stat": encoded}, buffer.getvalue()
        if "gzip" in request.headers.get("accept-encoding", ""):  # the engine compresses archives for who takes it
            headers, body = headers | {"Content-Encoding": "gzip"}, gzip.compress(body, 1)
        return Reply(200, body, "application/x-tar", headers)

    # ------------------------------------------------------------------------------------------ containers: writing
    @_route("PUT", "/containers/([^/]+)/archive")
    def _put(self, request: Request, name: str) -> Reply:
        item, folder = self._container(name), PurePosixPath(request.first("path"))
        with tarfile.open(fileobj=io.BytesIO(request.body)) as archive:
            for entry in archive.getmembers():
                if file := archive.extractfile(entry):
                    item.contents[str(folder / entry.name)] = file.read()
        return Reply(200, content_type="")

    @_route("POST", "/containers/([^/]+)/(pause|unpause)")
    def _pause(self, _: Request, name: str, word: str) -> Reply:
        item, pauses = self._container(name), word == "pause"
        if pauses:
            self._must_run(item)
        if item.paused == pauses:
            raise Refusal(409, f"Container {item.id} is {'already' if pauses else 'not'} paused")
        item.paused = pauses
        self._tell(item, word)
        return Reply(204, content_type="")

    @_route("POST", "/containers/create")
    def _create_request(self, request: Request) -> Reply:
        name = request.first("name") or identify("unnamed", str(self._serial))[:12]
        if not re.fullmatch(r"/?[a-zA-Z0-9][a-zA-Z0-9_.-]+", name):
            raise Refusal(400, f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
        body = request.json()
        endpoints: Mapping[str, Any] = (body.pop("NetworkingConfig", None) or {}).get("EndpointsConfig") or {}
        if len(endpoints) > 1:  # one only, before API 1.44
            listed = ", ".join(endpoints)
            raise Refusal(400, f"Container cannot be connected to network endpoints: {listed}")
        for network in endpoints:
            self._network(network)
        container = self._create(name.removeprefix("/"), body)
        for network, settings in endpoints.items():
            self._connect(container, network, (settings or {}).get("Aliases") or ())
        if not endpoints:
            mode = container.host.get("NetworkMode") or "default"
            if mode.startswith("container:"):
                self._container(mode.partition(":")[2])
            else:
                self._connect(container, "bridge" if mode == "default" else mode, ())
        return Reply.of({"Id": container.id, "Warnings": []}, 201)

    def _create(self, name: str, body: dict[str, Any]) -> Container:
        image = self._image(body["Image"])
        self._claim(name)
        self._serial += 1
        config = {**image.config, **{key: value for key, value in body.items() if value is not None}}
        host = config.pop("HostConfig", {})
        config["Env"] = _merged_env(image.config.get("Env") or [], body.get("Env") or [])
        config["Labels"] = {**(image.config.get("Labels") or {}), **(body.get("Labels") or {})}
        config.setdefault("Tty", False)
        created = self.clock()
        container = Container(identify(name, str(self._serial), str(created)), name, image, config, host, created)
        container.mounts = self._mounts(container)
        self.containers[container.id] = container
        self._tell(container, "create")
        return container

    def _mounts(self, item: Container) -> list[dict[str, Any]]:
        """List what is mounted; a volume that only the image declares gets a name nobody knows, and is lost with it."""
        mounts = [_bind(text) for text in item.host.get("Binds") or []]
        mounts += [_mount(entry) for entry in item.host.get("Mounts") or []]
        taken = {mount["Destination"] for mount in mounts}
        for path in item.config.get("Volumes") or {}:
            if path not in taken:
                mounts.append(_volume(identify("volume", item.id, path), path, writable=True))
        for mount in mounts:
            if mount["Type"] == "volume":
                self._add_volume(mount["Name"], {})
        return mounts

    def _claim(self, name: str) -> None:
        other = next((item for item in self.containers.values() if item.name == name), None)
        if other is not None:
            raise Refusal(
                409,
                f'Conflict. The container name "/{name}" is already in use by container "{other.id}". You have to '
                "remove (or rename) that container to be able to reuse that name.",
            )

    @_route("POST", "/containers/([^/]+)/start")
    def _start_request(self, _: Request, name: str) -> Reply:
        item = self._container(name)
        if item.running:
            return Reply(304, content_type="")
        self._start(item)
        return Reply(204, content_type="")

    def _start(self, item: Container) -> None:
        again = item.started is not None
        item.running, item.started, item.exit_code = True, self.clock(), 0
        for name, endpoint in item.endpoints.items():
            endpoint.address = self.networks[name].issue()
        self._tell(item, "start")
        if again:
            self.on_restart(item.name)
        else:
            self.on_start(item)

    @_route("POST", "/containers/([^/]+)/stop")
    def _stop_request(self, _: Request, name: str) -> Reply:
        item = self._container(name)
        if not item.running:
            return Reply(304, content_type="")
        self._stop(item)
        return Reply(204, content_type="")

    def _stop(self, item: Container) -> None:
        self._end(item, signal="15")
        self._tell(item, "stop")

    def kill_for_memory(self, item: Container) -> None:
        """Let the kernel end a container that needed more than its limit, and the restart policy start it again."""
        self._tell(item, "oom")
        item.exit_code = 137
        self._tell(item, "die", exitCode="137")
        item.started = self.clock()
        self._tell(item, "start")

    def _end(self, item: Container, signal: str) -> None:
        self._tell(item, "kill", signal=signal)
        item.running, item.finished, item.exit_code, item.paused = False, self.clock(), 0, False
        for endpoint in item.endpoints.values():
            endpoint.address = ""
        self._tell(item, "die", exitCode=str(item.exit_code))

    @_route("POST", "/containers/([^/]+)/restart")
    def _restart(self, _: Request, name: str) -> Reply:
        item = self._container(name)
        if item.running:
            self._stop(item)
        self._start(item)
        self._tell(item, "restart")
        return Reply(204, content_type="")

    @_route("DELETE", "/containers/([^/]+)")
    def _remove(self, request: Request, name: str) -> Reply:
        item = self._container(name)
        if item.running and not _truth(request.first("force")):
            raise Refusal(
                409,
                f"You cannot remove a running container {item.id}. Stop the container before attempting removal or "
                "force remove",
            )
        if item.running:
            self._end(item, signal="9")
        del self.containers[item.id]
        self._tell(item, "destroy")
        return Reply(204, content_type="")

    @_route("POST", "/containers/([^/]+)/rename")
    def _rename(self, request: Request, name: str) -> Reply:
        item = self._container(name)
        new = request.first("name")
        if new == item.name:
            raise Refusal(400, "Renaming a container with the same name as its current name")
        self._claim(new)
        old, item.name = item.name, new
        self._tell(item, "rename", oldName=f"/{old}")
        return Reply(204, content_type="")

    # --------------------------------------------------------------------------------------------- programs inside
    @_route("POST", "/containers/([^/]+)/exec")
    def _exec_create(self, request: Request, name: str) -> Reply:
        item = self._container(name)
        body = request.json()
        self._must_run(item)
        if not body.get("Cmd"):
            raise Refusal(400, "No exec command specified")
        self._serial += 1
        key = identify("exec", item.id, str(self._serial))
        self._execs[key] = _Exec(item, list(body["Cmd"]), bool(body.get("Tty")))
        return Reply.of({"Id": key}, 201)

    @_route("POST", "/exec/([^/]+)/start")
    def _exec_start(self, request: Request, key: str) -> Reply:
        it = self._exec(key)
        if it.output is not None:
            raise Refusal(409, f"Error: Exec command {key} has already run")
        self._must_run(it.container)
        it.output = self._execute(it.container, it.command)
        if (request.json() or {}).get("Detach"):
            return Reply(200, content_type="")
        frames = _frame(1, it.output.stdout) + _frame(2, it.output.stderr)
        sent = it.output.stdout + it.output.stderr if it.tty else frames

        def send(connection: socket.socket) -> None:
            # The docker package loses frames that arrive together with the head: it reads them past its own buffer.
            time.sleep(EXEC_PAUSE)
            connection.sendall(sent)

        if request.headers.get("upgrade", "").lower() == "tcp":
            return Reply(101, content_type=STREAM, headers={"Connection": "Upgrade", "Upgrade": "tcp"}, stream=send)
        return Reply(200, content_type=STREAM, stream=send)

    def _execute(self, item: Container, command: list[str]) -> Output:
        if command == _command_of_check(item):
            return Output(0 if self.script(item).passes else 1)
        output = self.execute(item, command)
        if output is not None:
            return output
        return Output(
            126,
            f"OCI runtime exec failed: exec failed: unable to start container process: exec: "
            f'"{command[0]}": executable file not found in $PATH: unknown\r\n'.encode(),
        )

    @_route("GET", "/exec/([^/]+)/json")
    def _exec_inspect(self, _: Request, key: str) -> Reply:
        it = self._exec(key)
        program, *arguments = it.command
        return Reply.of(
            {
                "ID": key,
                "Running": False,
                "ExitCode": it.output.exit_code if it.output else None,
                "ProcessConfig": {"tty": it.tty, "entrypoint": program, "arguments": arguments, "privileged": False},
                "ContainerID": it.container.id,
                "Pid": 0,
            }
        )

    # ---------------------------------------------------------------------------------- networks, volumes and images
    @_route("GET", "/networks")
    def _network_list(self, request: Request) -> Reply:
        filters = _filters(request)
        shown = [
            network
            for network in self.networks.values()
            if all(_has_label(network.labels, text) for text in filters.get("label", []))
            and ("name" not in filters or any(text in network.name for text in filters["name"]))
        ]
        return Reply.of([{**self._network_shape(network), "Containers": {}} for network in shown])

    @_route("GET", "/networks/([^/]+)")
    def _network_inspect(self, _: Request, name: str) -> Reply:
        network = self._network(name)
        inside = {
            item.id: {
                "Name": item.name,
                "IPv4Address": f"{endpoint.address}/{network.subnet.prefixlen}",
                "IPv6Address": "",
            }
            for item in self.containers.values()
            if (endpoint := item.endpoints.get(network.name)) and endpoint.address
        }
        return Reply.of({**self._network_shape(network), "Containers": inside})

    @staticmethod
    def _network_shape(network: Network) -> dict[str, Any]:
        pool = {"Subnet": str(network.subnet), "Gateway": network.gateway}
        return {
            "Name": network.name,
            "Id": network.id,
            "Scope": "local",
            "Driver": "bridge",
            "EnableIPv6": False,
            "IPAM": {"Driver": "default", "Options": {}, "Config": [pool]},
            "Internal": False,
            "Labels": network.labels,
        }

    @_route("POST", "/networks/create")
    def _network_create(self, request: Request) -> Reply:
        body = request.json()
        if body["Name"] in self.networks:
            raise Refusal(409, f"network with name {body['Name']} already exists")
        pools = (body.get("IPAM") or {}).get("Config") or [{}]
        network = self.add_network(body["Name"], subnet=pools[0].get("Subnet", ""), labels=body.get("Labels"))
        return Reply.of({"Id": network.id, "Warning": ""}, 201)

    @_route("DELETE", "/networks/([^/]+)")
    def _network_remove(self, _: Request, name: str) -> Reply:
        network = self._network(name)
        if any(network.name in item.endpoints for item in self.containers.values() if item.running):
            raise Refusal(403, f"error while removing network: network {network.name} has active endpoints")
        del self.networks[network.name]
        return Reply(204, content_type="")

    @_route("POST", "/networks/([^/]+)/connect")
    def _network_connect(self, request: Request, name: str) -> Reply:
        body = request.json()
        aliases = (body.get("EndpointConfig") or {}).get("Aliases") or ()
        self._connect(self._container(body["Container"]), name, aliases)
        return Reply(200, content_type="")

    def _connect(self, item: Container, name: str, aliases: Iterable[str]) -> None:
        network = self._network(name)
        address = network.issue() if item.running else ""
        item.endpoints[network.name] = Endpoint(list(aliases), address)

    @_route("POST", "/volumes/create")
    def _volume_create(self, request: Request) -> Reply:
        body = request.json()
        self._add_volume(body["Name"], body.get("Labels") or {})
        return Reply.of(self._volume_shape(body["Name"]), 201)

    @_route("GET", "/volumes")
    def _volume_list(self, _: Request) -> Reply:
        return Reply.of({"Volumes": [self._volume_shape(name) for name in self.volumes], "Warnings": None})

    @_route("GET", "/volumes/([^/]+)")
    def _volume_inspect(self, _: Request, name: str) -> Reply:
        return Reply.of(self._volume_shape(name))

    @_route("DELETE", "/volumes/([^/]+)")
    def _volume_remove(self, _: Request, name: str) -> Reply:
        self._volume_shape(name)
        users = [item.id for item in self.containers.values() if any(it.get("Name") == name for it in item.mounts)]
        if users:
            raise Refusal(409, f"remove {name}: volume is in use - [{', '.join(users)}]")
        del self.volumes[name]
        self._publish("volume", "destroy", name, {"driver": "local"})
        self.on_volume_removed(name)
        return Reply(204, content_type="")

    def _add_volume(self, name: str, labels: dict[str, str]) -> None:
        if name not in self.volumes:
            self.volumes[name] = labels
            self._publish("volume", "create", name, {"driver": "local"})

    def _volume_shape(self, name: str) -> dict[str, Any]:
        if name not in self.volumes:
            raise Refusal(404, f"get {name}: no such volume")
        path = f"/var/lib/docker/volumes/{name}/_data"
        return {"Name": name, "Driver": "local", "Mountpoint": path, "Labels": self.volumes[name], "Scope": "local"}

    @_route("GET", "/images/(.+)/json")
    def _image_inspect(self, _: Request, reference: str) -> Reply:
        image = self._image(reference)
        return Reply.of(
            {
                "Id": image.id,
                "RepoTags": [image.reference],
                "RepoDigests": list(image.digests),
                "Config": {"Env": None, "Cmd": None, "Volumes": None, "Labels": None, **image.config},
                "Os": "linux",
                "Architecture": "amd64",
            }
        )

    # -------------------------------------------------------------------------------------------------- finding it
    def _container(self, name: str) -> Container:
        for item in self.containers.values():
            if name in (item.id, item.name, f"/{item.name}"):
                return item
        begins = [item for item in self.containers.values() if item.id.startswith(name)]
        if len(begins) != 1:
            raise Refusal(404, f"No such container: {name}")
        return begins[0]

    def _network(self, name: str) -> Network:
        for network in self.networks.values():
            if name in (network.name, network.id, network.id[:12]):
                return network
        raise Refusal(404, f"network {name} not found")

    def _image(self, reference: str) -> Image:
        found = self.images.get(_with_tag(reference))
        found = found or next((image for image in self.images.values() if image.id == reference), None)
        if found is None:
            raise Refusal(404, f"No such image: {_with_tag(reference)}")
        return found

    def _exec(self, key: str) -> _Exec:
        if key not in self._execs:
            raise Refusal(404, f"No such exec instance: {key}")
        return self._execs[key]

    def _must_run(self, item: Container) -> None:
        state = self._state(item)
        if state["Restarting"]:
            raise Refusal(409, f"Container {item.id} is restarting, wait until the container is running")
        if not state["Running"]:
            raise Refusal(409, f"Container {item.id} is not running")


def _filters(request: Request) -> dict[str, list[str]]:
    """Read ``filters``: values are lists, or maps of value to true as the Go client sends them."""
    parsed = json.loads(request.first("filters") or "{}")
    return {
        name: [value for value, wanted in values.items() if wanted] if isinstance(values, dict) else list(values)
        for name, values in parsed.items()
    }


def _has_label(labels: Mapping[str, str], text: str) -> bool:
    key, equals, value = text.partition("=")
    return key in labels and (not equals or labels[key] == value)


def _is_asked(event: Mapping[str, Any], filters: Mapping[str, list[str]]) -> bool:
    """Whether an event passes filters; ``health_status`` means every verdict."""
    action = event["Action"]
    kinds, actions = filters.get("type", [event["Type"]]), filters.get("event", [action])
    return event["Type"] in kinds and (action in actions or action.partition(":")[0] in actions)


def _nanoseconds(text: str) -> int:
    """Read a time as the engine takes it: seconds since 1970, a dot and nine digits behind them or not."""
    seconds, _, rest = text.partition(".")
    return int(seconds) * 10**9 + int(rest.ljust(9, "0") or "0")


def _chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def _frame(stream: int, data: bytes) -> bytes:
    """Put the multiplexed stream's head (1 is stdout, 2 is stderr) before what was written."""
    return struct.pack(">BxxxL", stream, len(data)) + data if data else b""


def _merged_env(base: list[str], more: list[str]) -> list[str]:
    """Put a container's variables over its image's: a name alone takes one away, and is still listed."""
    return list({item.partition("=")[0]: item for item in [*base, *more]}.values())


def _command_of_check(item: Container) -> list[str]:
    """Return the health check's command as ``exec`` takes it; empty where there is none."""
    test: list[str] = (item.config.get("Healthcheck") or {}).get("Test") or []
    if test[:1] == ["CMD-SHELL"]:
        return ["/bin/sh", "-c", *test[1:]]
    return test[1:] if test[:1] == ["CMD"] else []


def _health(behaviour: Behaviour, age: float, *, alive: bool) -> dict[str, Any]:
    if not alive:
        return {"Status": "unhealthy", "FailingStreak": 0, "Log": []}
    if age < behaviour.verdict_after:
        return {"Status": "starting", "FailingStreak": 0, "Log": []}
    status, streak = ("healthy", 0) if behaviour.passes else ("unhealthy", 3)
    return {"Status": status, "FailingStreak": streak, "Log": [{"ExitCode": int(streak > 0), "Output": ""}]}


def _short_ports(ports: Mapping[str, list[dict[str, str]] | None]) -> list[dict[str, Any]]:
    shown: list[dict[str, Any]] = []
    for port, bindings in ports.items():
        number, _, protocol = port.partition("/")
        inner = {"PrivatePort": int(number), "Type": protocol or "tcp"}
        shown += [{**inner, "IP": item["HostIp"], "PublicPort": int(item["HostPort"])} for item in bindings or []]
        shown += [] if bindings else [inner]
    return shown


def _bind(text: str) -> dict[str, Any]:
    source, destination, *options = text.split(":")
    writable = "ro" not in options
    if source.startswith("/"):
        return _directory(source, destination, writable=writable)
    return _volume(source, destination, writable=writable)


def _mount(entry: Mapping[str, Any]) -> dict[str, Any]:
    writable = not entry.get("ReadOnly")
    if entry.get("Type") == "bind":
        return _directory(entry["Source"], entry["Target"], writable=writable)
    return _volume(entry.get("Source") or identify("volume", entry["Target"]), entry["Target"], writable=writable)


def _directory(source: str, destination: str, *, writable: bool) -> dict[str, Any]:
    return {"Type": "bind", "Source": source, "Destination": destination, "Mode": "", "RW": writable}


def _volume(name: str, destination: str, *, writable: bool) -> dict[str, Any]:
    source = f"/var/lib/docker/volumes/{name}/_data"
    kind = {"Type": "volume", "Name": name, "Driver": "local"}
    return {**kind, "Source": source, "Destination": destination, "Mode": "z", "RW": writable}
