"""A stand-in for the `docker compose` program: `python -m reconciler.simulator.compose ...`.

It knows the commands and flags that we call and refuses all others. It reads compose and env files as Compose 2.40
does, and brings services up on the engine that DOCKER_HOST names. Unlike the real one it runs one container a service,
and does not wait for the conditions of ``depends_on``.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import os
import re
import shlex
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote, urlencode, urlsplit

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from reconciler.simulator import dotenv

VERSION = "2.40.3"
FILES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
LABEL = "com.docker.compose"
UNHASHED = frozenset({"build", "pull_policy", "scale", "depends_on", "profiles"})
SPANS = {"interval": "Interval", "timeout": "Timeout", "start_period": "StartPeriod"}
POLL = 0.05  # seconds between two looks at a container's health


class Failure(Exception):
    """What ends the program with status 1; its argument is the message."""


# ------------------------------------------------------------------------------------------------------ YAML as Go
_INTEGER = re.compile(r"[-+]?(0b[01_]+|0o[0-7_]+|0x[0-9a-fA-F_]+|[0-9][0-9_]*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: dict[str, Any] = {"": None, "~": None, "null": None, "Null": None, "NULL": None}
_WORDS |= {word: word.lower() == "true" for word in ("true", "True", "TRUE", "false", "False", "FALSE")}


def read_yaml(path: Path) -> Any:
    """Read a YAML file with the types that go-yaml gives: `yes` is a text, `010` is 8; raises `Failure`."""
    try:
        with path.open(encoding="utf-8") as stream:
            node = YAML(typ="safe", pure=True).compose(stream)
    except FileNotFoundError as error:
        raise Failure(f"open {path}: no such file or directory") from error
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        raise Failure(f"failed to parse {path}: {error}") from error
    return _built(node) if node is not None else None


def _built(node: Node) -> Any:
    if isinstance(node, ScalarNode):
        return _scalar(node) if not node.style else node.value
    if isinstance(node, SequenceNode):
        return [_built(item) for item in node.value]
    assert isinstance(node, MappingNode)
    return _mapping(node)


def _mapping(node: MappingNode) -> dict[str, Any]:
    own: dict[str, Any] = {}
    merged: dict[str, Any] = {}
    for key, value in node.value:
        if key.value == "<<" and not key.style:
            for source in value.value if isinstance(value, SequenceNode) else [value]:
                merged = {**_built(source), **merged}
        elif key.value in own:
            raise Failure(f'mapping key "{key.value}" already defined')
        else:
            own[str(key.value)] = _built(value)
    return {**merged, **own}


def _scalar(node: ScalarNode) -> Any:
    text: str = node.value
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        digits = text.replace("_", "")
        octal = re.fullmatch(r"([-+]?)0([0-7]+)", digits)
        return (
            int(f"{octal[1]}0o{octal[2]}", 8) if octal else int(digits, 0 if digits.lstrip("+-")[1:2] in "box" else 10)
        )
    if _FLOAT.fullmatch(text):
        number = float(text)
        return int(number) if number == int(number) and abs(number) < 1e21 else number  # as Go prints them
    if re.fullmatch(r"\d{4}-\d{1,2}-\d{1,2}([Tt ].*)?", text):
        raise Failure(f"{text}: invalid jsonType time.Time")
    return text


def as_text(value: Any) -> str:
    """Write a scalar as Go prints it: 1.50 as 1.5, 1e3 as 1000, true as true."""
    return str(value).lower() if isinstance(value, bool) else str(value)


# ----------------------------------------------------------------------------------------------------- the project
@dataclass(slots=True)
class Project:
    """A loaded project. ``services``, ``networks`` and ``volumes`` are in Compose's canonical form."""

    name: str
    directory: Path
    files: list[Path]
    env_files: list[Path]  # those named on the command line
    environment: dict[str, str]
    services: dict[str, dict[str, Any]] = field(default_factory=dict)
    networks: dict[str, dict[str, Any]] = field(default_factory=dict)
    volumes: dict[str, dict[str, Any]] = field(default_factory=dict)
    extensions: dict[str, Any] = field(default_factory=dict)  # the keys that begin with x-

    def service(self, name: str) -> dict[str, Any]:
        """Find a service; raises `Failure`."""
        if name not in self.services:
            raise Failure(f"no such service: {name}")
        return self.services[name]


def load(options: argparse.Namespace, *, interpolate: bool = True) -> Project:
    """Read a project's files as the command line and the environment name them; raises `Failure`."""
    files = _files(options)
    directory = Path(options.project_directory or files[0].parent).absolute()
    named = [Path(name).absolute() for name in options.env_file or []]
    environment = _environment(named or [path for path in [directory / ".env"] if path.is_file()])
    model: dict[str, Any] = {}
    for path in files:
        model = _merge(model, _file(path, environment, interpolate=interpolate), lists=not interpolate)
    project = Project(_name(options, model, directory, environment), directory, files, named, environment)
    for name, service in (model.get("services") or {}).items():
        project.services[name] = _service(project, name, service or {}, interpolate=interpolate)
    project.extensions = {key: value for key, value in model.items() if key.startswith("x-")}
    _check_dependencies(project)
    used = {network for service in project.services.values() for network in service.get("networks") or {}}
    declared = model.get("networks") or {}
    pool: dict[str, Any] = {"ipam": {}} if interpolate else {}
    project.networks = {key: {**pool, **_named(project, key, declared.get(key))} for key in used | set(declared)}
    project.volumes = {key: _named(project, key, value) for key, value in (model.get("volumes") or {}).items()}
    return project


def _files(options: argparse.Namespace) -> list[Path]:
    """Name the compose files: an override file is read only where none is named."""
    named = options.file or [name for name in os.environ.get("COMPOSE_FILE", "").split(os.pathsep) if name]
    if named:
        return [Path(name).absolute() for name in named]
    directory = Path(options.project_directory or ".").absolute()
    first = next((directory / name for name in FILES if (directory / name).is_file()), None)
    if first is None:
        raise Failure("no configuration file provided: not found")
    override = first.with_name(first.name.replace("compose.", "compose.override."))
    return [first, override] if override.is_file() else [first]


def _environment(paths: Sequence[Path]) -> dict[str, str]:
    """Read the project's env files; what the process has wins over all of them."""
    values: dict[str, str] = {}
    for path in paths:
        values.update(_env_file(path, lambda name: os.environ.get(name, values.get(name))))
    return {**values, **os.environ}


def _env_file(path: Path, lookup: dotenv.Lookup) -> dict[str, str]:
    try:
        return dotenv.parse(path.read_bytes().decode().removeprefix("\ufeff").replace("\r\n", "\n"), lookup)
    except FileNotFoundError as error:
        raise Failure(f"couldn't find env file: {path}") from error
    except (OSError, UnicodeDecodeError, dotenv.InvalidEnvFile) as error:
        raise Failure(f"failed to read {path}: {error}") from error


def _name(options: argparse.Namespace, model: Mapping[str, Any], directory: Path, env: Mapping[str, str]) -> str:
    given = options.project_name or env.get("COMPOSE_PROJECT_NAME") or model.get("name")
    name = str(given or re.sub(r"[^-_a-z0-9]", "", directory.name.lower()).lstrip("-_"))
    if not re.fullmatch(r"[a-z0-9][-_a-z0-9]*", name):
        raise Failure(
            f'invalid project name "{name}": must consist only of lowercase alphanumeric characters, hyphens, and '
            "underscores as well as start with a letter or number"
        )
    return name


def _file(path: Path, environment: Mapping[str, str], *, interpolate: bool) -> dict[str, Any]:
    model: Any = read_yaml(path)
    if not isinstance(model, dict):
        raise Failure(f"{path}: top-level object must be a mapping")
    if interpolate:
        model = _interpolated(model, (), environment)
    for name, service in (model.get("services") or {}).items():
        if not isinstance(service, dict):
            raise Failure(f"validating {path}: services.{name} must be a mapping")
        if interpolate:
            _use_maps(service)
    return dict(model)


def _use_maps(service: dict[str, Any]) -> None:
    """Bring lists into the maps they stand for, so that they merge with another file's."""
    for key in ("environment", "labels"):
        if key in service:
            service[key] = _as_map(service[key])


def _interpolated(value: Any, path: tuple[str, ...], environment: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _interpolated(item, (*path, key), environment) for key, item in value.items()}
    if isinstance(value, list):
        return [_interpolated(item, (*path, f"[{index}]"), environment) for index, item in enumerate(value)]
    if not isinstance(value, str):
        return value
    place = ".".join(path).replace(".[", "[")
    try:
        return dotenv.interpolate(value, environment.get)
    except dotenv.MissingVariable as error:
        raise Failure(f"error while interpolating {place}: {error}") from error
    except dotenv.InvalidTemplate as error:
        message = f"invalid interpolation format for {place}.\nYou may need to escape any $ with another $."
        raise Failure(f"{message}\n{error}") from error


def _as_map(value: Any) -> dict[str, Any]:
    """Bring the list form (``KEY=value``, ``KEY``) into the map form."""
    if isinstance(value, list):
        pairs = [as_text(item).partition("=") for item in value]
        return {key: text if equals else None for key, equals, text in pairs}
    return dict(value or {})


def _env_file_entries(value: Any) -> list[dict[str, Any]]:
    entries = value if isinstance(value, list) else [value]
    return [
        {"path": item, "required": True} if isinstance(item, str) else {"required": True, **item} for item in entries
    ]


def _merge(base: Any, more: Any, key: str = "", *, lists: bool) -> Any:
    """Put one file's part over another's; ``lists`` is the form in which merged variables stay uninterpolated."""
    if key in ("environment", "labels") and lists:
        merged = {**_as_map(base), **_as_map(more)}
        return [name if value is None else f"{name}={as_text(value)}" for name, value in merged.items()]
    if isinstance(base, dict) and isinstance(more, dict):
        both = {name: _merge(base[name], more[name], name, lists=lists) for name in base.keys() & more.keys()}
        return {**base, **more, **both}
    if isinstance(base, list) and isinstance(more, list) and key not in ("command", "entrypoint", "test"):
        return [*base, *(item for item in more if item not in base)]
    return more


def _service(project: Project, name: str, raw: dict[str, Any], *, interpolate: bool) -> dict[str, Any]:
    """Bring a service into its canonical form; with interpolation its env files end up in its environment."""
    service = dict(raw)
    if isinstance(service.get("depends_on"), list):
        service["depends_on"] = {other: {"condition": "service_started"} for other in service["depends_on"]}
    if isinstance(service.get("networks"), list):
        service["networks"] = dict.fromkeys(service["networks"])
    if "image" not in service and "build" not in service:
        raise Failure(f'service "{name}" has neither an image nor a build context specified: invalid compose project')
    if "network_mode" not in service:
        service["networks"] = service.get("networks") or {"default": None}
    depends = (service.get("depends_on") or {}).items()
    if depends:
        service["depends_on"] = {other: {"required": True, **(how or {})} for other, how in depends}
    files = _env_file_entries(service.get("env_file") or [])
    service["env_file"] = [{**item, "path": str(project.directory / item["path"])} for item in files]
    if interpolate:
        service["environment"] = _resolved(project, service)
        service["labels"] = {key: as_text(item) for key, item in service.get("labels", {}).items()}
        service["command"] = _command(service.get("command"))
        service["entrypoint"] = _command(service.get("entrypoint"))
        if "mem_limit" in service:
            service["mem_limit"] = _bytes(as_text(service["mem_limit"]))
        if "healthcheck" in service:
            service["healthcheck"] = _healthcheck(service["healthcheck"])
    service["ports"] = [_port(item) for item in service.get("ports") or []]
    service["volumes"] = [_volume(project.directory, item) for item in service.get("volumes") or []]
    kept = ("command", "entrypoint")
    empty = ("env_file", "environment", "labels", "ports", "volumes")
    dropped = {"env_file"} if interpolate else set()
    return {
        key: value
        for key, value in service.items()
        if key not in dropped and (value or key not in empty) and (value is not None or (interpolate and key in kept))
    }


def _resolved(project: Project, service: Mapping[str, Any]) -> dict[str, str | None]:
    """Give a service's environment: its own entries over its env files, a key without value from the project's."""
    own = {
        key: project.environment.get(key) if value is None else as_text(value)
        for key, value in service.get("environment", {}).items()
    }
    filed: dict[str, str] = {}

    def lookup(name: str) -> str | None:
        for values in (project.environment, own, filed):
            if values.get(name) is not None:
                return values[name]
        return None

    for entry in service["env_file"]:
        path = Path(entry["path"])
        if path.is_file() or entry["required"]:
            raw = entry.get("format") == "raw"
            filed |= _raw_env_file(path) if raw else _env_file(path, lookup)
    return dict(sorted({**filed, **own}.items()))


def _raw_env_file(path: Path) -> dict[str, str]:
    lines = path.read_text("utf-8").splitlines()
    return dict(line.partition("=")[::2] for line in lines if "=" in line and not line.startswith("#"))


def _command(value: Any) -> list[str] | None:
    return shlex.split(value) if isinstance(value, str) else [as_text(item) for item in value] if value else None


def _healthcheck(raw: Mapping[str, Any]) -> dict[str, Any]:
    test = raw.get("test")
    if raw.get("disable"):
        return {"test": ["NONE"]}
    command = {"test": ["CMD-SHELL", test]} if isinstance(test, str) else {}
    return {**raw, **command, **{key: _duration(nanoseconds(raw[key])) for key in SPANS if key in raw}}


def _duration(span: int) -> str:
    """Write nanoseconds as Go does: 1m30s, 2m0s, 500ms."""
    if span < 10**9:
        return f"{span / 10**6:g}ms" if span else "0s"
    minutes, seconds = divmod(span / 10**9, 60)
    hours, minutes = divmod(int(minutes), 60)
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "") + f"{seconds:g}s"


def _bytes(text: str) -> str:
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([kmgt]?)i?b?", text.lower())
    if match is None:
        raise Failure(f"invalid size: '{text}'")
    return str(int(float(match[1]) * 1024 ** " kmgt".index(match[2] or " ")))


def _port(value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    text, _, protocol = as_text(value).partition("/")
    match = re.fullmatch(r"(?:(?:(?P<ip>\[[^]]*\]|[^:]+):)?(?P<published>\d*):)?(?P<target>\d+)", text)
    if match is None:
        raise Failure(f"invalid port: {text} (the stand-in reads no ranges and no variables here)")
    ip = {"host_ip": match["ip"].strip("[]")} if match["ip"] else {}
    published = {"published": match["published"]} if match["published"] else {}
    return {"mode": "ingress", **ip, "target": int(match["target"]), **published, "protocol": protocol or "tcp"}


def _volume(directory: Path, value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    source, colon, rest = value.partition(":")
    if not colon or re.fullmatch("[A-Za-z]", source):  # one letter is a drive of Windows, and no volume
        return {"type": "volume", "target": value, "volume": {}}
    target, _, mode = rest.partition(":")
    read_only = {"read_only": True} if "ro" in mode.split(",") else {}
    if source[:1] in ("/", ".", "~"):
        at = os.path.normpath(directory / Path(source).expanduser())
        return {"type": "bind", "source": at, "target": target, **read_only, "bind": {"create_host_path": True}}
    return {"type": "volume", "source": source, "target": target, **read_only, "volume": {}}


def _named(project: Project, key: str, value: Mapping[str, Any] | None) -> dict[str, Any]:
    """Give a network or volume its name on the engine."""
    settings = dict(value or {})
    return {"name": key if settings.get("external") else f"{project.name}_{key}", **settings}


def _check_dependencies(project: Project) -> None:
    for name, service in project.services.items():
        for other in service.get("depends_on") or {}:
            if other not in project.services:
                raise Failure(f'service "{name}" depends on undefined service "{other}": invalid compose project')


def digest(service: Mapping[str, Any]) -> str:
    """Hash what makes a container need to be made anew."""
    counted = {key: value for key, value in service.items() if key not in UNHASHED}
    return hashlib.sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()


def in_order(project: Project, names: Sequence[str], *, alone: bool) -> list[str]:
    """Put services behind those they depend on; ``alone`` leaves the ones out that were not named."""
    ordered: list[str] = []

    def visit(name: str) -> None:
        for other in project.service(name).get("depends_on") or {}:
            if other not in ordered:
                visit(other)
        if name not in ordered:
            ordered.append(name)

    for name in names or list(project.services):
        visit(name)
    return [name for name in ordered if not alone or not names or name in names]


# ------------------------------------------------------------------------------------------------------ the engine
class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


class Engine:
    """The Docker Engine that DOCKER_HOST names, spoken to in plain HTTP."""

    def __init__(self, host: str) -> None:
        """Take ``unix:///path`` or ``tcp://host:port``; raises `Failure` for anything else."""
        split = urlsplit(host)
        if split.scheme not in ("unix", "tcp", "http"):
            raise Failure(f"unable to parse docker host `{host}`")
        self.host = host
        self._connect: Callable[[], http.client.HTTPConnection] = (
            (lambda: _UnixConnection(split.path))
            if split.scheme == "unix"
            else (lambda: http.client.HTTPConnection(split.netloc))
        )

    def call(self, method: str, path: str, body: Any = None, **query: str) -> Any:
        """Make one request and parse its answer; raises `Failure` with the engine's message."""
        connection = self._connect()
        sent = None if body is None else json.dumps(body)
        target = f"/v1.41{path}" + (f"?{urlencode(query)}" if query else "")
        try:
            connection.request(method, target, sent, {"Content-Type": "application/json"} if sent else {})
            response = connection.getresponse()
            data = response.read()
        except OSError as error:
            raise Failure(f"Cannot connect to the Docker daemon at {self.host}. Is it running?") from error
        finally:
            connection.close()
        parsed = json.loads(data) if data.startswith((b"{", b"[")) else None
        if response.status >= 400:
            raise Failure(f"Error response from daemon: {(parsed or {}).get('message', response.reason)}")
        return parsed

    def containers(self, project: str, service: str = "", *, everything: bool = True) -> list[dict[str, Any]]:
        """List a project's containers in full, oldest first."""
        labels = [f"{LABEL}.project={project}", *([f"{LABEL}.service={service}"] if service else [])]
        filters = json.dumps({"label": labels})
        found = self.call("GET", "/containers/json", filters=filters, all=str(int(everything)))
        return [self.inspect(item["Id"]) for item in sorted(found, key=lambda item: item["Created"])]

    def inspect(self, name: str) -> dict[str, Any]:
        """Return all of one container."""
        found: dict[str, Any] = self.call("GET", f"/containers/{name}/json")
        return found


# ------------------------------------------------------------------------------------------------------ bringing up
@dataclass(frozen=True, slots=True)
class Up:
    """One ``up``: makes, makes anew, starts, and says each step on standard error as the real one does."""

    project: Project
    engine: Engine
    force: bool = False

    def bring(self, name: str) -> str:
        """Bring one service up and return its container's id."""
        service = self.project.service(name)
        found = self.engine.containers(self.project.name, name)
        found = self._without_surplus(found, digest(service))
        if not found:
            self._networks(service)
            say(self.name(name), "Creating")
            made = self._create(name, self.name(name), [])
            say(self.name(name), "Created")
        elif self.force or self._stale(found[0], service):
            made = self._recreate(name, found[0])
        elif found[0]["State"]["Running"]:
            say(self.name(name), "Running")
            return str(found[0]["Id"])
        else:
            made = found[0]["Id"]
        say(self.name(name), "Starting")
        self.engine.call("POST", f"/containers/{made}/start")
        say(self.name(name), "Started")
        return made

    def name(self, service: str) -> str:
        """Name a service's container."""
        return str(self.project.services[service].get("container_name") or f"{self.project.name}-{service}-1")

    def _without_surplus(self, found: list[dict[str, Any]], wanted: str) -> list[dict[str, Any]]:
        """Remove all but one: an `up` that was killed leaves the old container and the new, under its passing name."""
        ranked = sorted(found, key=lambda item: item["Config"]["Labels"].get(f"{LABEL}.config-hash") != wanted)
        for item in ranked[1:]:
            self.engine.call("DELETE", f"/containers/{item['Id']}", force="1")
        return ranked[:1]

    def _stale(self, container: Mapping[str, Any], service: Mapping[str, Any]) -> bool:
        if container["Config"]["Labels"].get(f"{LABEL}.config-hash") != digest(service):
            return True
        image = self.engine.call("GET", f"/images/{quote(str(service['image']))}/json")
        return bool(image["Id"] != container["Image"])

    def _recreate(self, name: str, old: Mapping[str, Any]) -> str:
        """Make the new one under a passing name, stop and remove the old one, rename: a kill in between leaves two."""
        final = self.name(name)
        say(final, "Recreate")
        anonymous = [item for item in old["Mounts"] if re.fullmatch("[0-9a-f]{64}", item.get("Name", ""))]
        made = self._create(name, f"{old['Id'][:12]}_{final}", anonymous)
        self.engine.call("POST", f"/containers/{old['Id']}/stop")
        self.engine.call("DELETE", f"/containers/{old['Id']}")
        self.engine.call("POST", f"/containers/{made}/rename", name=final)
        say(final, "Recreated")
        return made

    def _create(self, name: str, container: str, inherited: Sequence[Mapping[str, Any]]) -> str:
        service = self.project.services[name]
        first, *others = self._endpoints(name) or [("", {})]
        body = {
            **_config(service),
            "Labels": {**service.get("labels", {}), **self._labels(name)},
            "HostConfig": {**self._host(service, inherited), "NetworkMode": service.get("network_mode") or first[0]},
            "NetworkingConfig": {"EndpointsConfig": dict([first]) if first[0] else {}},
        }
        made = str(self.engine.call("POST", "/containers/create", body, name=container)["Id"])
        for network, settings in others:  # one at a time, before API 1.44
            self.engine.call("POST", f"/networks/{network}/connect", {"Container": made, "EndpointConfig": settings})
        return made

    def _endpoints(self, name: str) -> list[tuple[str, dict[str, Any]]]:
        networks = self.project.services[name].get("networks") or {}
        return [
            (
                self.project.networks[key]["name"],
                {"Aliases": [self.name(name), name, *((settings or {}).get("aliases") or [])]},
            )
            for key, settings in networks.items()
        ]

    def _labels(self, name: str) -> dict[str, str]:
        project = self.project
        labels = {
            "config-hash": digest(project.services[name]),
            "container-number": "1",
            "oneoff": "False",
            "project": project.name,
            "project.config_files": ",".join(str(path) for path in project.files),
            "project.working_dir": str(project.directory),
            "service": name,
            "version": VERSION,
        }
        if project.env_files:
            labels["project.environment_file"] = ",".join(str(path) for path in project.env_files)
        return {f"{LABEL}.{key}": value for key, value in labels.items()}

    def _host(self, service: Mapping[str, Any], inherited: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        bindings: dict[str, list[dict[str, str]]] = {}
        for port in service.get("ports", []):
            binding = {"HostIp": port.get("host_ip", ""), "HostPort": str(port.get("published", ""))}
            bindings.setdefault(f"{port['target']}/{port['protocol']}", []).append(binding)
        return {
            "Binds": [*self._binds(service), *(f"{item['Name']}:{item['Destination']}:rw" for item in inherited)],
            "PortBindings": bindings,
            "RestartPolicy": {"Name": service.get("restart", "no"), "MaximumRetryCount": 0},
        }

    def _binds(self, service: Mapping[str, Any]) -> Iterator[str]:
        for item in service.get("volumes", []):
            source = item.get("source")
            if item["type"] == "volume" and source:
                source = self.project.volumes.get(source, {"name": source})["name"]
            if source:
                yield f"{source}:{item['target']}:{'ro' if item.get('read_only') else 'rw'}"

    def _networks(self, service: Mapping[str, Any]) -> None:
        there = {item["Name"] for item in self.engine.call("GET", "/networks")}
        for key in service.get("networks") or {}:
            settings = self.project.networks[key]
            if settings["name"] in there:
                continue
            if settings.get("external"):
                raise Failure(f"network {settings['name']} declared as external, but could not be found")
            labels = {f"{LABEL}.network": key, f"{LABEL}.project": self.project.name, f"{LABEL}.version": VERSION}
            pools = [{"Subnet": pool["subnet"]} for pool in (settings.get("ipam") or {}).get("config") or []]
            body = {"Name": settings["name"], "Driver": "bridge", "Labels": labels, "IPAM": {"Config": pools}}
            self.engine.call("POST", "/networks/create", body)


def _config(service: Mapping[str, Any]) -> dict[str, Any]:
    """Write a service as the engine's ``Config``. A variable without a value stands there by its name alone."""
    environment = service.get("environment", {}).items()
    config: dict[str, Any] = {
        "Image": service.get("image"),
        "Env": [key if value is None else f"{key}={value}" for key, value in environment],
        "Cmd": service.get("command"),
        "Entrypoint": service.get("entrypoint"),
        "ExposedPorts": {f"{port['target']}/{port['protocol']}": {} for port in service.get("ports", [])},
    }
    check = service.get("healthcheck")
    if check:
        spans = {name: nanoseconds(check[key]) for key, name in SPANS.items() if key in check}
        config["Healthcheck"] = {"Test": check.get("test"), **spans, "Retries": int(check.get("retries", 0))}
    return config


def nanoseconds(text: str) -> int:
    """Read Go's duration, such as ``1m30s``; raises `Failure`."""
    units = {"h": 3600e9, "m": 60e9, "s": 1e9, "ms": 1e6, "us": 1e3, "ns": 1.0}
    if not re.fullmatch(r"(\d+(\.\d+)?(h|ms|m|s|us|ns))+", str(text)):
        raise Failure(f'time: invalid duration "{text}"')
    return int(sum(float(number) * units[unit] for number, unit in re.findall(r"([\d.]+)(h|ms|m|s|us|ns)", text)))


def await_health(engine: Engine, ids: Sequence[str], timeout: float | None) -> None:
    """Wait until containers are healthy, or run where they have no check; raises `Failure`. ``timeout`` in seconds."""
    deadline = None if timeout is None else time.monotonic() + timeout
    for key in ids:
        name = engine.inspect(key)["Name"].removeprefix("/")
        say(name, "Waiting")
        while not _is_healthy(engine.inspect(key)):
            if deadline is not None and time.monotonic() > deadline:
                raise Failure(f"application not healthy after {timeout:g}s")
            time.sleep(POLL)
        say(name, "Healthy")


def _is_healthy(container: Mapping[str, Any]) -> bool:
    """Judge as the real one does: a container that is being restarted counts as running where it has no check."""
    state, name = container["State"], container["Name"].removeprefix("/")
    if not state["Running"]:
        raise Failure(f"container {name} exited ({state['ExitCode']})")
    status = state.get("Health", {}).get("Status", "healthy")
    if status == "unhealthy":
        raise Failure(f"container {name} is unhealthy")
    return bool(status == "healthy")


def say(name: str, what: str) -> None:
    """Report progress where the real one does: on standard error."""
    sys.stderr.write(f" Container {name}  {what}\n")


# -------------------------------------------------------------------------------------------------------- commands
def _engine() -> Engine:
    return Engine(os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock")


def _version(options: argparse.Namespace) -> None:
    if options.format == "json":
        show(json.dumps({"version": f"v{VERSION}"}))
    else:
        show(VERSION if options.short else f"Docker Compose version v{VERSION}")


def _config_command(options: argparse.Namespace) -> None:
    project = load(options, interpolate=not options.no_interpolate)
    if options.quiet:
        return
    if options.services:
        show("\n".join(in_order(project, [], alone=False)))
    elif options.hash:
        names = sorted(project.services) if options.hash == "*" else options.hash.split(",")
        show("\n".join(f"{name} {digest(project.service(name))}" for name in names))
    elif options.format == "json":
        text = json.dumps(_model(project), indent=2, sort_keys=True, ensure_ascii=False)
        show(text if options.no_interpolate else text.replace("$", "$$"))
    else:
        raise Failure("the stand-in prints a configuration with --format json only")


def _model(project: Project) -> dict[str, Any]:
    model: dict[str, Any] = {"name": project.name, "networks": project.networks, "services": project.services}
    volumes = {"volumes": project.volumes} if project.volumes else {}
    return {**model, **volumes, **project.extensions}


def _up(options: argparse.Namespace) -> None:
    if not (options.detach or options.wait):
        raise Failure("the stand-in only starts detached: add -d")
    project = load(options)
    up = Up(project, _engine(), force=options.force_recreate)
    names = in_order(project, options.services, alone=options.no_deps)
    ids = [up.bring(name) for name in names]
    if options.wait:
        await_health(up.engine, ids, options.wait_timeout)


def _ps(options: argparse.Namespace) -> None:
    project = load(options)
    for item in _engine().containers(project.name, everything=options.all):
        service = item["Config"]["Labels"][f"{LABEL}.service"]
        if options.services and service not in options.services:
            continue
        shown = {"ID": item["Id"][:12], "Name": item["Name"].removeprefix("/"), "Service": service}
        state = item["State"]
        health = state.get("Health", {}).get("Status", "")
        status = {"State": state["Status"], "Health": health, "ExitCode": state["ExitCode"]}
        show(json.dumps({**shown, "Project": project.name, "Image": item["Config"]["Image"], **status}))


def show(text: str) -> None:
    """Print a result."""
    sys.stdout.write(f"{text}\n")


class _Parser(argparse.ArgumentParser):
    """Takes no abbreviated flags, and ends with 1 where argparse ends with 2."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, allow_abbrev=False, add_help=False)

    def error(self, message: str) -> NoReturn:
        raise Failure(message.replace("unrecognized arguments", "unknown flag"))


def parser() -> argparse.ArgumentParser:
    """Declare the flags we call: all others are refused."""
    top = _Parser(prog="docker compose")
    top.add_argument("-f", "--file", action="append")
    top.add_argument("--env-file", action="append")
    top.add_argument("-p", "--project-name")
    top.add_argument("--project-directory")
    top.add_argument("--progress", choices=("auto", "tty", "plain", "json", "quiet"))
    top.add_argument("--ansi", choices=("never", "always", "auto"))
    commands = top.add_subparsers(dest="command", required=True)
    version = commands.add_parser("version")
    version.add_argument("--short", action="store_true")
    version.add_argument("-f", "--format", dest="format")
    version.set_defaults(run=_version)
    config = commands.add_parser("config")
    config.add_argument("-q", "--quiet", action="store_true")
    config.add_argument("--services", action="store_true")
    config.add_argument("--no-interpolate", action="store_true")
    config.add_argument("--hash")
    config.add_argument("--format", choices=("json", "yaml"), default="yaml")
    config.set_defaults(run=_config_command)
    _declare_up(commands.add_parser("up"))
    listing = commands.add_parser("ps")
    listing.add_argument("--format", choices=("json",), required=True)
    listing.add_argument("-a", "--all", action="store_true")
    listing.add_argument("services", nargs="*")
    listing.set_defaults(run=_ps)
    return top


def _declare_up(up: argparse.ArgumentParser) -> None:
    up.add_argument("-d", "--detach", action="store_true")
    up.add_argument("--no-deps", action="store_true")
    up.add_argument("--no-build", action="store_true")
    up.add_argument("--pull", choices=("never",), required=True, help="the stand-in has no registry")
    up.add_argument("--force-recreate", action="store_true")
    up.add_argument("--wait", action="store_true")
    up.add_argument("--wait-timeout", type=int)
    up.add_argument("services", nargs="*")
    up.set_defaults(run=_up)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    try:
        options = parser().parse_args(arguments)
        options.run(options)
    except Failure as failure:
        sys.stderr.write(f"{failure}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
