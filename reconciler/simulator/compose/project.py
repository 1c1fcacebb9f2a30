"""A compose project in its canonical form: what its files, its env files and the environment make of it."""

from __future__ import annotations

import argparse
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reconciler.simulator.compose import dotenv
from reconciler.simulator.compose.failure import Failure
from reconciler.simulator.compose.goyaml import RESET, as_text, read_yaml

FILES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
SPANS = {"interval": "Interval", "timeout": "Timeout", "start_period": "StartPeriod"}


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
    contents: dict[str, Any] = field(default_factory=dict)  # `configs` and `secrets`
    extensions: dict[str, Any] = field(default_factory=dict)  # the keys that begin with x-

    def service(self, name: str) -> dict[str, Any]:
        """Find a service; raises `Failure`."""
        if name not in self.services:
            raise Failure(f"no such service: {name}")
        return self.services[name]


def load(options: argparse.Namespace, *, interpolate: bool = True) -> Project:
    """Read a project's files as the command line and the environment name them; raises `Failure`."""
    files = _files(options)
    directory = _clean(options.project_directory or files[0].parent)
    named = [_clean(name) for name in options.env_file or []]
    environment = _environment(named or [path for path in [directory / ".env"] if path.is_file()])
    model: dict[str, Any] = {}
    for path in files:
        model = _merge(model, _file(path, environment, interpolate=interpolate), lists=not interpolate)
    project = Project(_name(options, model, directory, environment), directory, files, named, environment)
    profiles = {item.strip() for item in environment.get("COMPOSE_PROFILES", "").split(",")}
    for name, service in (model.get("services") or {}).items():
        asked = set((service or {}).get("profiles") or ())
        if interpolate and asked and not asked & profiles:
            continue
        project.services[name] = _service(project, name, service or {}, interpolate=interpolate)
    project.contents = {
        kind: {key: _with_place(project, settings) for key, settings in model[kind].items()}
        for kind in ("configs", "secrets")
        if model.get(kind)
    }
    project.extensions = {key: value for key, value in model.items() if key.startswith("x-")}
    _check_dependencies(project)
    used = {network for service in project.services.values() for network in service.get("networks") or {}}
    declared = model.get("networks") or {}
    pool: dict[str, Any] = {"ipam": {}} if interpolate else {}
    project.networks = {key: {**pool, **_named(project, key, declared.get(key))} for key in used | set(declared)}
    project.volumes = {key: _named(project, key, value) for key, value in (model.get("volumes") or {}).items()}
    return project


def _with_place(project: Project, settings: Mapping[str, Any] | None) -> dict[str, Any]:
    """Name the file of a config or a secret as it lies from anywhere."""
    found = dict(settings or {})
    return found | {"file": str(_clean(project.directory / found["file"]))} if found.get("file") else found


def _clean(path: str | Path) -> Path:
    """Make a path absolute, without ``..``, as Go's filepath.Abs does: by its text alone."""
    return Path(os.path.abspath(path))  # noqa: PTH100 (pathlib would ask for symbolic links)


def _files(options: argparse.Namespace) -> list[Path]:
    """Name the compose files: an override file is read only where none is named."""
    named = options.file or [name for name in os.environ.get("COMPOSE_FILE", "").split(os.pathsep) if name]
    if named:
        return [_clean(name) for name in named]
    directory = _clean(options.project_directory or ".")
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
    written = str(model.get("name") or directory.name)  # made one that fits, also where a variable stands in it
    given = options.project_name or env.get("COMPOSE_PROJECT_NAME")
    name = str(given or re.sub(r"[^-_a-z0-9]", "", written.lower()).lstrip("-_"))
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
    included: dict[str, Any] = {}
    for item in model.pop("include", None) or ():
        named = item.get("path") if isinstance(item, dict) else item
        for name in named if isinstance(named, list) else [named]:
            other = _file(path.parent / str(name), environment, interpolate=interpolate)
            included = _merge(included, other, lists=not interpolate)
    for name, service in (model.get("services") or {}).items():
        if not isinstance(service, dict):
            raise Failure(f"validating {path}: services.{name} must be a mapping")
        if interpolate:
            _use_maps(service)
    return dict(_merge(included, model, lists=not interpolate))


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
        return {name: value for name, value in {**base, **more, **both}.items() if value is not RESET}
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


def nanoseconds(text: str) -> int:
    """Read Go's duration, such as ``1m30s``; raises `Failure`."""
    units = {"h": 3600e9, "m": 60e9, "s": 1e9, "ms": 1e6, "us": 1e3, "ns": 1.0}
    if not re.fullmatch(r"(\d+(\.\d+)?(h|ms|m|s|us|ns))+", str(text)):
        raise Failure(f'time: invalid duration "{text}"')
    return int(sum(float(number) * units[unit] for number, unit in re.findall(r"([\d.]+)(h|ms|m|s|us|ns)", text)))


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
