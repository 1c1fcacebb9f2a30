"""What Docker tells about the container that Stalwart runs in: its ports, networks, mounts, files and log."""

from __future__ import annotations

import contextlib
import io
import ipaddress
import re
import tarfile
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from reconciler import http
from reconciler.docker import Client, EngineMemory, NotThere
from reconciler.problem import Problem, Severity, TargetUnreadable
from reconciler.secrets.schemes import stored
from reconciler.targets.stalwart.connection import recovery
from reconciler.targets.stalwart.release import PINS

_CONFIG_LIMIT = 1 << 20  # bytes of config.toml; a real one has a few thousand
_TIMEOUT = 10  # seconds for one answer of the engine
_STOP = 30  # seconds that Stalwart gets to stop before it is killed
CONFIG, DATA = "/etc/stalwart/config.json", "/var/lib/stalwart"  # of 0.16: where its data store is, and the store
RECOVERY = "STALWART_RECOVERY_ADMIN"  # user:password of who gets in whatever the server has lost
_HEAD = 1 << 16  # bytes of a directory's archive that are looked at; only the first file matters
_LAST = 200  # lines of the log of a server that ends at once
_WEEK = 7 * 24 * 3600  # seconds
_LINES = 5000  # of the log; the one-time password is printed at the start

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class DockerUnreachable(Exception):
    """The engine can't be asked, or does not know the container; the text says which and why."""


class NoSuchContainer(DockerUnreachable):
    """The engine answers, and has no container of that name."""


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount. ``source`` is the volume's name or the host's path; an anonymous volume dies with its container."""

    path: str
    source: str
    anonymous: bool
    place: str = ""  # on the engine's machine


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """``config.toml`` as it is on the disk. ``keys`` are flat, as the server names them."""

    path: str
    text: str
    keys: Mapping[str, str]

    def line_of(self, key: str) -> str:
        """Say where a key stands: ``line 12: `hostname = ...` under [lookup.default]``, never with its value."""
        section = ""
        for number, line in enumerate(self.text.splitlines(), 1):
            name, equals, _ = (part.strip() for part in line.partition("="))
            if head := re.match(r"\[([^\[\]]+)\]", line.strip()):
                section = head[1].strip()
            elif equals and name and "#" not in name and self._names(section, name, key):
                under = f" under [{section}]" if section else ""
                return f"line {number}: `{name} = ...`{under}"
        return f"`{key}`"

    @staticmethod
    def _names(section: str, name: str, key: str) -> bool:
        full = re.sub("[\"']", "", f"{section}.{name}" if section else name)
        full = ".".join(part.strip() for part in full.split("."))
        return key == full or key.startswith(f"{full}.")


@dataclass(frozen=True, slots=True)
class Container:
    """What matters of a container: ``ports`` maps its TCP ports to address and port on the host of the engine.

    ``environment`` has the names of its variables that say something, never a value; ``recovers`` says whether anybody
    can log in with the one of `RECOVERY`, where there is one; ``started`` is when its process was, as the engine writes
    it; ``newer`` says which image its tag means by now, where that is another one; ``hollow`` are places of its data
    that no volume covers and that hold no file: its store is a database elsewhere.
    """

    name: str
    image: str
    labels: Mapping[str, str] = field(default_factory=dict)
    volumes: tuple[str, ...] = ()  # what its image declares as VOLUME
    mounts: tuple[Mount, ...] = ()
    ports: Mapping[int, tuple[str, int]] = field(default_factory=dict)
    networks: tuple[Network, ...] = ()
    aliases: frozenset[str] = frozenset()
    local: bool = True  # the engine runs on this machine, so a published port is a port of ours
    environment: frozenset[str] = frozenset()
    recovers: bool = True
    id: str = ""
    started: str = ""
    newer: str = ""
    hollow: frozenset[str] = frozenset()

    @property
    def service(self) -> str:
        """What the compose file calls it."""
        return self.labels.get("com.docker.compose.service", self.name)

    @property
    def holds_line(self) -> bool:
        """Whether its image stays within one line of releases, whose stores are alike: ``v0.16``, ``v1.0.1``."""
        return "@" in self.image or re.match(r"v?(0\.\d|[1-9])", self.tag) is not None

    @property
    def tag(self) -> str:
        """The tag that its image is named by; empty for none."""
        return self.image.rpartition("/")[2].partition("@")[0].partition(":")[2]

    def owns(self, address: str) -> bool:
        """Whether an address lies in one of the container's own networks."""
        with contextlib.suppress(ValueError):
            return any(ipaddress.ip_address(address) in network for network in self.networks)
        return False


@dataclass(frozen=True, slots=True)
class Condition:
    """How a container is now, for `doctor`.

    ``memory`` and ``limit`` are in bytes, 0 where the engine does not tell them or there is none. ``kills`` are the
    times (seconds since 1970) at which the kernel ended a process of it in the last week. ``published`` maps its TCP
    ports to where they are on the host, as ``0.0.0.0:587``.
    """

    state: str
    health: str
    restarts: int
    exit_code: int
    oom_killed: bool
    memory: int
    limit: int
    kills: tuple[float, ...]
    published: Mapping[int, tuple[str, ...]]


class Docker:
    """One container of one engine. The `docker` package is imported when it is first asked.

    ``host`` is as in ``DOCKER_HOST``; None takes the environment's. ``memory`` is as `reconciler.docker.Client` has it.
    """

    def __init__(self, name: str, host: str | None = None, memory: EngineMemory | None = None) -> None:
        """Remember whom to ask about what; nothing is asked yet."""
        self.name, self.host, self._memory = name, host, memory

    def inspect(self) -> Container:
        """Look at the container; raises `DockerUnreachable`."""
        with self._engine() as engine:
            return self._inspected(engine)

    def look(self) -> tuple[Container, ConfigFile | None]:
        """Look at the container, and read its ``config.toml``: None where there is none or it can't be understood.

        Raises `DockerUnreachable`.
        """
        with self._engine() as engine:
            container = self._examined(engine)
            for directory in _data_directories(container):
                path = f"{directory}/etc/config.toml"
                if (archive := engine.archive(container.id, path, 2 * _CONFIG_LIMIT)) is not None:
                    return container, _config_file(path, archive)
            return container, None

    def _inspected(self, engine: Client, raw: Mapping[str, Any] | None = None) -> Container:
        raw = raw or engine.inspect(self.name)
        tagged = _image(engine, (raw.get("Config") or {}).get("Image"))
        own = tagged if tagged.get("Id") == raw.get("Image") else _image(engine, raw.get("Image"))
        container = _container(self.name, raw, own, local=not engine.remote)
        return replace(container, newer=_newer(tagged, raw)) if floats(container) else container

    def examine(self) -> Container:
        """Look at the container, and into places of its data that no volume covers. Raises `DockerUnreachable`."""
        with self._engine() as engine:
            return self._examined(engine)

    def _examined(self, engine: Client, raw: Mapping[str, Any] | None = None) -> Container:
        container = self._inspected(engine, raw)
        bare = [path for path in _bare(container, _places(container, keeper(container))) if path in _STORES]
        hollow = frozenset(path for path in bare if not _holds(engine, container.id, path))
        # Without its configuration a server is new: it says nothing of where its store would be.
        if not hollow or not any(_holds(engine, container.id, path) for path in _CONFIGS):
            return container
        return replace(container, hollow=hollow)

    def condition(self) -> tuple[Container, Condition, str]:
        """Look at the container, how it is, and what it printed last. Raises `DockerUnreachable`.

        The lines are those since somebody started it: those of an earlier start too where the engine starts it again
        and again by itself.
        """
        with self._engine() as engine:
            raw = engine.inspect(self.name)
            now = time.time()
            kills = engine.killed(raw["Id"], now - _WEEK, now)
            condition = _condition(raw, engine.memory(raw["Id"]), kills)
            return self._examined(engine, raw), condition, engine.log(raw["Id"], _LINES, _since(raw))

    def holds(self, path: str) -> bool:
        """Whether the container has this file, or a file in this directory. Raises `DockerUnreachable`.

        No file is read: neither data nor a configuration with passwords is ours to look at.
        """
        with self._engine() as engine:
            return _holds(engine, engine.inspect(self.name)["Id"], path)

    def log(self) -> str:
        """Read what the container printed since it was started, at most its last lines. Raises `DockerUnreachable`."""
        with self._engine() as engine:
            found = engine.inspect(self.name)
            return engine.log(found["Id"], _LINES, _started(found))

    def printed(self, since: float) -> str:
        """Read what the container printed since a time, at most its last lines. Raises `DockerUnreachable`."""
        with self._engine() as engine:
            return engine.log(engine.inspect(self.name)["Id"], _LINES, since)

    def last_words(self) -> tuple[Container, str]:
        """Look at the container, and read its last lines since somebody started it. Raises `DockerUnreachable`.

        Those of an earlier start too where the engine starts it again and again by itself.
        """
        with self._engine() as engine:
            found = engine.inspect(self.name)
            return self._inspected(engine), engine.log(found["Id"], _LAST, _since(found))

    def restart(self) -> None:
        """Restart the container; returns when it has been started again. Raises `DockerUnreachable`."""
        with self._engine() as engine:
            engine.restart(engine.inspect(self.name)["Id"], _STOP)

    @contextlib.contextmanager
    def _engine(self) -> Iterator[Client]:
        try:
            with Client(self.host, "stalwart", _TIMEOUT, self._memory) as engine:
                yield engine
        except NotThere as error:
            raise NoSuchContainer(f"Docker knows no container {self.name}") from error
        except TargetUnreadable as error:
            why = http.short(error.problems[0].summary.partition("\n")[0], 200)
            raise DockerUnreachable(f"Docker can't be asked about {self.name}: {why}") from error
        except (LookupError, TypeError, ValueError, AttributeError) as error:  # any answer is believed
            raise DockerUnreachable(f"Docker answers what can't be understood about {self.name}") from error


def floats(container: Container) -> bool:
    """Whether a container's image is named by a tag that means another one from time to time."""
    return "@" not in container.image and re.match(r"v?\d+\.\d+\.\d+", container.tag) is None


def _since(raw: Mapping[str, Any]) -> float | None:
    """Return when somebody started a container, where the engine did not start it again itself."""
    return None if raw.get("RestartCount") else _started(raw)


def _started(raw: Mapping[str, Any]) -> float:
    """Return when a container was started, in seconds since 1970."""
    return datetime.fromisoformat(raw["State"]["StartedAt"]).timestamp()


def _image(engine: Client, reference: str | None) -> Mapping[str, Any]:
    """Return what the engine tells of an image; nothing of one that was removed while its container runs."""
    with contextlib.suppress(TargetUnreadable):
        return engine.image(reference) if reference else {}
    return {}


def _newer(tagged: Mapping[str, Any], raw: Mapping[str, Any]) -> str:
    """Say which image the tag of a container means by now: its release, or its day; "" where it is the same."""
    labels = (tagged.get("Config") or {}).get("Labels") or {}
    if not tagged.get("Id") or not raw.get("Image") or tagged["Id"] == raw["Image"]:
        return ""
    told = labels.get("org.opencontainers.image.version")
    return f"release {told}" if told else f"the image of {str(tagged.get('Created') or 'another day')[:10]}"


def keeper(container: Container) -> str:
    """Say which generation keeps its data where the container has volumes: ``rest`` or ``jmap``."""
    kept = [mount for mount in container.mounts if not mount.anonymous]
    older = any(_covers(mount, path) for mount in kept for _, paths in _KEPT[1:] for path in paths)
    newer = any(_covers(mount, DATA) for mount in kept)  # a config.json can name any place
    return "rest" if older and not newer else "jmap"


def _container(name: str, raw: Mapping[str, Any], image: Mapping[str, Any], *, local: bool) -> Container:
    config = raw.get("Config") or {}
    declares = (image.get("Config") or config).get("Volumes")  # in the container's, some clients put their mounts too
    endpoints = ((raw.get("NetworkSettings") or {}).get("Networks") or {}).values()
    return Container(
        name=name,
        image=config.get("Image") or "",
        labels=config.get("Labels") or {},
        volumes=tuple(sorted(declares or {})),
        mounts=tuple(_mounts(raw.get("Mounts") or ())),
        ports=dict(_ports((raw.get("NetworkSettings") or {}).get("Ports") or {})),
        networks=tuple(_networks(endpoints)),
        aliases=frozenset({name, *(alias for item in endpoints for alias in item.get("Aliases") or ())}),
        local=local,
        environment=frozenset(_variables(config.get("Env") or ())),
        recovers=_recovers(config.get("Env") or ()),
        id=raw.get("Id") or "",
        started=str((raw.get("State") or {}).get("StartedAt") or ""),
    )


def _variables(raw: Sequence[str]) -> Iterator[str]:
    """Yield the names of the variables that are in force: Compose sets what nobody wrote into the env file to ''."""
    for name, _, value in (item.partition("=") for item in raw):
        user, _, password = value.partition(":")
        if password.strip() and user.strip() if name == RECOVERY else value:  # the server takes nothing else
            yield name


def _recovers(raw: Sequence[str]) -> bool:
    """Whether the server verifies anything with its recovery administrator's password, which may be a hash."""
    values = dict(item.partition("=")[::2] for item in raw)
    return stored(values.get(RECOVERY, "").partition(":")[2].strip(), folds=True) is not None


def _mounts(raw: Sequence[Mapping[str, Any]]) -> Iterator[Mount]:
    for item in raw:
        source = item.get("Name") or item.get("Source") or ""
        anonymous = item.get("Type") == "volume" and re.fullmatch(r"[0-9a-f]{64}", source) is not None
        yield Mount((item.get("Destination") or "").rstrip("/"), source, anonymous, str(item.get("Source") or ""))


def _condition(raw: Mapping[str, Any], memory: int, kills: tuple[float, ...]) -> Condition:
    state = raw.get("State") or {}
    bindings = (raw.get("NetworkSettings") or {}).get("Ports") or {}
    return Condition(
        state=state.get("Status") or "",
        health=(state.get("Health") or {}).get("Status") or "",
        restarts=int(raw.get("RestartCount") or 0),
        exit_code=int(state.get("ExitCode") or 0),
        oom_killed=bool(state.get("OOMKilled")),
        memory=memory,
        kills=kills,
        limit=int((raw.get("HostConfig") or {}).get("Memory") or 0),
        published={
            int(spec.partition("/")[0]): tuple(f"{_bracketed(item.get('HostIp'))}:{item['HostPort']}" for item in found)
            for spec, found in bindings.items()
            if found and spec.partition("/")[2] in ("", "tcp")
        },
    )


def _bracketed(host: str | None) -> str:
    host = host or "0.0.0.0"  # noqa: S104 (read, not bound)
    return f"[{host}]" if ":" in host else host


def _ports(raw: Mapping[str, Any]) -> Iterator[tuple[int, tuple[str, int]]]:
    for spec, bindings in raw.items():
        port, _, protocol = spec.partition("/")
        if protocol in ("", "tcp") and bindings:
            host = bindings[0].get("HostIp") or "127.0.0.1"
            everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (read, not bound)
            yield int(port), (everywhere.get(host, host), int(bindings[0]["HostPort"]))


def _networks(endpoints: Any) -> Iterator[Network]:
    for item in endpoints:
        for address, length in (("IPAddress", "IPPrefixLen"), ("GlobalIPv6Address", "GlobalIPv6PrefixLen")):
            if item.get(address):
                yield ipaddress.ip_network(f"{item[address]}/{item[length]}", strict=False)


def _config_file(path: str, archive: bytes) -> ConfigFile | None:
    try:
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            member = files.next()
            content = files.extractfile(member) if member and member.isfile() else None
            text = content.read(_CONFIG_LIMIT).decode() if content else ""
        return ConfigFile(path, text, dict(_flat("", tomllib.loads(text))))
    except (tarfile.TarError, ValueError, RecursionError):  # of a file that somebody nested without end, too
        return None


def _holds(engine: Client, container: str, path: str) -> bool:
    archive = engine.archive(container, path, _HEAD)
    return archive is not None and _has_file(archive)


def _has_file(head: bytes) -> bool:
    """Whether an archive that begins so has a file in it; a volume's file system may bring ``lost+found`` along."""
    with (
        contextlib.suppress(tarfile.TarError, RecursionError),
        tarfile.open(fileobj=io.BytesIO(head), mode="r|") as archive,
    ):
        return any(not member.isdir() and "lost+found" not in member.name for member in archive)
    return False


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield a TOML value's flat keys, as the server names them."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _flat(f"{prefix}.{name}" if prefix else name, inner)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _flat(f"{prefix}.{index:04}", inner)
    else:
        yield prefix, str(value).lower() if isinstance(value, bool) else str(value)


# ------------------------------------------------------------------------------------ image by version against mounts
# Where an image keeps its data, by the version it began with (setup-findings.md 1, from the Dockerfiles).
_KEPT = (
    ((0, 16), ("/etc/stalwart", "/var/lib/stalwart")),
    ((0, 12), ("/opt/stalwart",)),
    ((0, 0), ("/opt/stalwart-mail",)),
)
_TO_016 = "0.15 to 0.16, which keeps its data elsewhere and starts without a mail service"
_EVERYWHERE = tuple(path for _, paths in _KEPT for path in paths)
_OLDER = ("/opt/stalwart", "/opt/stalwart-mail")  # one of them, where an image does not tell its version
_PARTS = ("etc", "data")  # what lies in these: the configuration, and the store as the configuration has it at first
_STORES = (DATA, *(f"{path}/data" for path in _OLDER))
_CONFIGS = (CONFIG, *(f"{path}/etc/config.toml" for path in _OLDER))


def version(container: Container) -> tuple[int, int] | None:
    """Return the image's version, from its tag or its label; None where neither says it."""
    major, _, rest = _release(container).partition(".")
    return (int(major), int(rest.partition(".")[0])) if rest else None


def pin(container: Container, generation: str) -> str:
    """Say what to write as image: what is known to work with this program, and since when."""
    release = PINS[generation]
    return f"`image: {_repository(container)}:v{release.name}` (known good on {release.good})"


def runs(container: Container) -> str:
    """Say what to write as image, so that it stays the one that runs; "" where its labels do not tell its release."""
    release = _release(container)
    return f"`image: {_repository(container)}:v{release}`" if release.count(".") == 2 else ""  # noqa: PLR2004 (x.y.z)


def _repository(container: Container) -> str:
    """Return an image without its tag."""
    repository = container.image.partition("@")[0]
    head, _, tag = repository.rpartition(":")
    return head if head and "/" not in tag else repository


def _tested(generation: str) -> str:
    """Return what to pin where the image does not tell its version."""
    return PINS[generation].name


def _release(container: Container) -> str:
    """Return the image's version in full, such as ``0.15.5``; empty where neither tag nor label says it."""
    for text in (container.tag, container.labels.get("org.opencontainers.image.version", "")):
        if match := re.match(r"v?(\d+\.\d+(\.\d+)?)", text):
            return match[1]
    return ""


def _data_directories(container: Container) -> tuple[str, ...]:
    """Return where this image keeps its data: what it declares as VOLUME, else what its version is known to use."""
    if container.volumes:
        return container.volumes
    known = version(container)
    if known is None:
        return _OLDER
    return next(paths for since, paths in _KEPT if known >= since)


def causes(container: Container, generation: str = "rest") -> tuple[Problem, ...]:
    """Say what of a container's set-up loses its data, each with the line of the compose file to write instead.

    ``generation`` is what was found at the URL; an image does not always tell its version.
    """
    return (*misplaced(container, generation, lost=True), *unpinned(container, generation))


def unpinned(container: Container, generation: str) -> tuple[Problem, ...]:
    """Say that the image's tag is one that has moved before."""
    return tuple(_floating(container, f"container {container.name}", _tested(generation)))


def misplaced(container: Container, generation: str, *, lost: bool = False) -> tuple[Problem, ...]:
    """Say where the image keeps data that lies in no volume, and which volumes keep nothing of it.

    ``lost``: nothing is there any more that had to be saved first.
    """
    kept = _kept(container)
    paths = _places(container, generation)
    bare = [path for path in _bare(container, paths) if lost or path not in container.hollow]
    unused = [mount for mount in kept if _is_unused(mount, paths)]
    return tuple(_misplaced(container, f"container {container.name}", bare, unused, lost=lost))


def _places(container: Container, generation: str) -> tuple[str, ...]:
    """Return where a server of this generation in this image keeps its data."""
    return _KEPT[0][1] if generation == "jmap" and not container.volumes else _data_directories(container)


def _kept(container: Container) -> list[Mount]:
    return [mount for mount in container.mounts if not mount.anonymous]


def _bare(container: Container, paths: Sequence[str]) -> list[str]:
    """Return the places of data that no volume covers."""
    kept = _kept(container)
    bare = [path for path in paths if not any(_covers(mount, path) or _is_config(mount, path) for mount in kept)]
    if paths == _OLDER and len(bare) < len(paths):  # the image does not tell its version: one place is enough
        return []
    parts = [part for path in bare for part in _parts(kept, path)]
    return [path for path in parts if not any(_covers(mount, path) for mount in kept)]


def _parts(kept: Sequence[Mount], path: str) -> tuple[str, ...]:
    """Return a place, or what matters in it where volumes are mounted below it: up to 0.15 some mount each part."""
    below = path in _OLDER and any(mount.path.startswith(f"{path}/") for mount in kept)
    return tuple(f"{path}/{part}" for part in _PARTS) if below else (path,)


def unrecoverable(container: Container) -> Problem | None:
    """Warn of a container whose server, from 0.16, lets nobody in once it has lost its accounts."""
    loss = "a server that lost its accounts lets nobody in to restore them"
    if RECOVERY not in container.environment:
        summary, hint = f"has no {RECOVERY} (user:password): {loss}", recovery(container.service)
    elif not container.recovers:
        summary = f"the password of {RECOVERY} looks like a hash to the server and is none: {loss}"
        hint = "write {PLAIN} before it or another one, in the env file, and recreate the container"
    else:
        return None
    return Problem(f"container {container.name}", summary, hint, Severity.WARNING)


def _misplaced(
    container: Container, where: str, bare: Sequence[str], unused: Sequence[Mount], *, lost: bool
) -> Iterator[Problem]:
    """Bring together the places that no volume covers and the volumes that stand elsewhere: one cause, one remedy."""
    for index, path in enumerate(bare):
        # From 0.16 nothing in an older volume is of use: it is not put in the new place.
        mount = unused[index] if index < len(unused) and path not in _KEPT[0][1] else None
        there = f"{path}, and no named volume is mounted there: whatever recreates the container loses it"
        if mount is None:
            name = "stalwart_etc" if path.startswith("/etc/") else "stalwart_data"
            name += "_new" if name in {_written(container, item) for item in container.mounts} else ""
            summary = f"the image {container.image} keeps data in {there}"
            hint = (
                f"write `- {name}:{path}` under the service's `volumes:`, and `{name}:` under those of the whole file"
            )
        else:
            source = _written(container, mount)
            summary = (
                f"{source} is mounted at {mount.path}, where the image {container.image} keeps nothing: its data is in "
                f"{there}"
            )
            hint = f"write `- {source}:{path}` under the service's `volumes:`, in place of `- {source}:{mount.path}`"
        yield Problem(where, summary, hint if lost else f"{_save(container, path)}; then {hint}", Severity.WARNING)
    for mount in unused if set(bare) & set(_KEPT[0][1]) else unused[len(bare) :]:
        source = _written(container, mount)
        summary = f"{source} is mounted at {mount.path}, where the image {container.image} keeps nothing"
        kept = "what is in the volume stays in it" if bare else "the data directory has a volume"
        if bare and _covers(mount, _KEPT[1][1][0]):
            kept += f", and {pin(container, 'rest')} opens it again"
        hint = f"take `- {source}:{mount.path}` out of the service's `volumes:`; {kept}"
        yield Problem(where, summary, hint, Severity.WARNING)


def _save(container: Container, path: str) -> str:
    """Say how to save what lies in a place: the change recreates the container, which begins with an empty volume."""
    command = f"docker compose stop {container.service} && docker cp -a {container.name}:{path} saved"
    return f"save what is there, as docs/doctor.md shows (`{command}`)"


def _written(container: Container, mount: Mount) -> str:
    """Return what the compose file calls a volume: Compose puts the project's name before it."""
    project = container.labels.get("com.docker.compose.project", "")
    return mount.source.removeprefix(f"{project}_") if project else mount.source


def _covers(mount: Mount, path: str) -> bool:
    return path == mount.path or path.startswith(f"{mount.path}/")


def _is_config(mount: Mount, path: str) -> bool:
    """Whether a mount is the one file that a directory of 0.16 holds: where its data store is."""
    return path == "/etc/stalwart" and mount.path == CONFIG


def _is_unused(mount: Mount, paths: Sequence[str]) -> bool:
    """Whether a mount stands where only another version of the image keeps data."""
    return any(_covers(mount, path) for path in _EVERYWHERE) and not any(
        _covers(mount, path) or mount.path.startswith(f"{path}/") for path in paths
    )


def _floating(container: Container, where: str, tested: str) -> Iterator[Problem]:
    name, _, tag = container.image.rpartition("/")[2].partition("@")[0].partition(":")
    if tag in ("", "latest") and floats(container):
        repository = container.image.removesuffix(":latest")
        pinned = f"v{_release(container) or tested}"
        later = (version(container) or (0, 0)) >= (1, 0)
        move = "0.16 to 1.x, which opens no store of 0.16" if later else _TO_016
        yield Problem(
            where,
            f"the image {container.image} is not pinned: {name}:latest moved from {move}",
            f"write `image: {repository}:{pinned}`",
            Severity.WARNING,
        )


@dataclass(frozen=True, slots=True)
class Host:
    """What Docker tells; nothing where no container is declared or the engine can't be asked."""

    container: Container | None = None
    file: ConfigFile | None = None
    problem: Problem | None = None


def look(docker: Docker | None, *, file: bool = False) -> Host:
    """Ask Docker about the declared container and, where it is wanted (up to 0.15), its ``config.toml``."""
    if docker is None:
        return Host()
    try:
        return Host(*docker.look()) if file else Host(docker.examine())
    except NoSuchContainer as error:
        hint = (
            "start its service if the container was removed; else correct targets.stalwart.container: it is the "
            "container's name, not the service's"
        )
        return Host(problem=Problem(f"container {docker.name}", str(error), hint, Severity.WARNING))
    except DockerUnreachable:
        return Host()
