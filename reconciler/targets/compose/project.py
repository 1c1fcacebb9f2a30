"""What the compose files say: the entries of a service, the variables that they interpolate, and their lines."""

from __future__ import annotations

import contextlib
import functools
import json
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reconciler import files as disk
from reconciler.desired.yaml import scan, shallow
from reconciler.problem import Problem, Severity, TargetUnreadable

LARGEST = 1 << 20  # bytes of a file in which lines are looked for
_READABLE = 1 << 16  # bytes of one that goes to the parser in Python, or is looked over for where it stops being YAML
NAMESPACES = ("network_mode", "ipc", "pid")  # of a service that may live in those of another
_PROGRAMS = ("provider", "models", "use_api_socket")  # what of a service makes Compose run one
_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_USED = re.compile(rf"(?<!\$)(?:\$\$)*\$(?:\{{({_NAME})|({_NAME}))")
_PLAIN = re.compile(r"\$\{[\w.:/@+~^$-]*(?:\{[\w.:/@+~^$-]*\})*[\w.:/@+~^$-]*\}")  # needs no quotes in a block of YAML


@dataclass(frozen=True, slots=True)
class Interpolation:
    """An entry that is one variable and nothing else, so that the env file decides on it.

    ``operator`` is empty, ``-``, ``:-``, ``?`` or ``:?``; ``default`` is what stands behind it.
    """

    variable: str
    operator: str = ""
    default: str = ""

    @property
    def may_be_empty(self) -> bool:
        """Whether an empty value reaches the container: with ``:`` the empty counts as unset."""
        return self.operator not in (":-", ":?") or (self.operator == ":-" and not self.default)


def interpolation(name: str, raw: str | None) -> Interpolation | None:
    """Read an entry as Compose does; None when the env file can't decide on it alone.

    ``raw`` is the entry as it is written, None for a bare ``KEY:``, which takes its value from the env file.
    """
    if raw is None:
        return Interpolation(name)
    if match := re.fullmatch(rf"\$({_NAME})", raw):
        return Interpolation(match[1])
    match = re.fullmatch(rf"\$\{{({_NAME})(?:(:?[-?])(.*))?\}}", raw, re.DOTALL)
    if match is None or not balanced(match[3] or ""):
        return None
    return Interpolation(match[1], match[2] or "", match[3] or "")


def balanced(text: str) -> bool:
    """Say whether no brace of the text closes one that was opened before it, or stays open."""
    depth = 0
    for character in text:
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth < 0:
            return False
    return depth == 0


def variables(text: str) -> Iterator[str]:
    """Yield the variables that a text interpolates."""
    for match in _USED.finditer(text):
        yield match[1] or match[2]


@dataclass(frozen=True, slots=True)
class Project:
    """A compose project: its name, its services as written, and what each would get now.

    ``written`` holds the ``environment`` of each service as it stands in the files, ``effective`` with everything
    interpolated and the service's own ``env_file`` merged in; a service of an inactive profile has none. ``uses``
    maps a variable to where it is interpolated (``SERVICE.KEY``, or ``SERVICE`` outside of its environment, also
    ``configs.KEY`` and ``secrets.KEY``); ``models``
    says whether it has any, which a plugin of Compose runs. ``env_files`` are the paths and formats of the files whose
    variables a service gets as a whole.
    """

    name: str
    written: Mapping[str, Mapping[str, str | None]]
    effective: Mapping[str, Mapping[str, str | None]]
    uses: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    services: Mapping[str, Any] = field(default_factory=dict)
    networks: Mapping[str, str] = field(default_factory=dict)
    volumes: Mapping[str, str] = field(default_factory=dict)
    models: bool = False
    secrets: Mapping[str, Any] = field(default_factory=dict)
    configs: Mapping[str, Any] = field(default_factory=dict)
    env_files: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, written: Mapping[str, Any], effective: Mapping[str, Any]) -> Project:
        """Make one of what ``config --no-interpolate`` and ``config`` answer."""
        services = written.get("services") or {}
        resolved = effective.get("services") or {}
        return cls(
            name=effective.get("name", ""),
            written={name: _environment(service) for name, service in services.items()},
            effective={name: effective_environment(service) for name, service in resolved.items()},
            uses=_uses(services, written),
            services=resolved,
            networks=_names_of(effective.get("networks")),
            volumes=_names_of(effective.get("volumes")),
            models=bool(effective.get("models")),
            secrets=effective.get("secrets") or {},
            configs=effective.get("configs") or {},
            env_files={name: tuple(_env_files(service)) for name, service in services.items()},
        )

    def interpolation(self, service: str, name: str) -> Interpolation | None:
        """Return the interpolation that a service's variable is, None for a literal and for a missing entry."""
        entries = self.written.get(service, {})
        return interpolation(name, entries[name]) if name in entries else None

    def inline(self, service: str) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
        """Yield the configs and secrets that a container is given a copy of when it is made.

        Each has its kind and name (``config NAME``), where the service finds it, and the file's own words for it.
        """
        for name, target, found in self._given(service):
            if "content" in found or "environment" in found:
                yield name, target, found

    def mounted(self, service: str) -> Iterator[tuple[str, str, str]]:
        """Yield the configs and secrets that are files of this machine, as `inline` does: each with that file."""
        for name, target, found in self._given(service):
            if file := found.get("file"):
                yield name, target, str(file)

    def _given(self, service: str) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
        settings = self.services.get(service) or {}
        for kind, items, folder in (("config", self.configs, "/"), ("secret", self.secrets, "/run/secrets")):
            for item in settings.get(f"{kind}s") or ():
                source, target = (item, item) if isinstance(item, str) else (item["source"], item.get("target"))
                yield f"{kind} {source}", posixpath.join(folder, target or source), items.get(source) or {}

    def configured(self, service: str, name: str) -> str | None:
        """Return what a new container of the service would get."""
        return self.effective.get(service, {}).get(name)

    def scale(self, service: str) -> int:
        """Return how many containers of a service the files ask for."""
        settings = self.services.get(service) or {}
        number = (settings.get("deploy") or {}).get("replicas", settings.get("scale", 1))
        return 1 if number is None else int(number)

    def restarted_with(self, service: str) -> tuple[str, ...]:
        """Name the services that Compose restarts along with this one (``depends_on: {restart: true}``)."""
        return tuple(name for name, settings in self.services.items() if service in _restarting(settings or {}))

    def sharers(self, service: str) -> tuple[str, ...]:
        """Name the services that live in a service's namespaces, and in theirs: they die with its container."""
        return self._following([service], _homes)[1:]

    def programs_of(self, services: Iterable[str]) -> tuple[str, ...]:
        """Name the services for which Compose runs a program on this machine when it brings these up.

        It is a plugin, by a name of its own; with ``use_api_socket`` what keeps this machine's logins to registries,
        which the container is given. Any service counts that may be made anew or restarted on account of these.
        """
        touched = self._following(services, lambda settings: (*_homes(settings), *_restarting(settings)))
        if self.models:
            return touched
        return tuple(name for name in touched if any((self.services.get(name) or {}).get(key) for key in _PROGRAMS))

    def check_programs(self, services: Iterable[str]) -> None:
        """Raise `TargetUnreadable` where Compose would run a program of this machine for one of the services."""
        if names := self.programs_of(services):
            summary = f"Compose would run a program of this machine for {', '.join(names)}"
            hint = "take provider, models and use_api_socket out of the compose file"
            raise TargetUnreadable(Problem("docker compose", summary, hint, Severity.REFUSED, "compose"))

    def _following(
        self, services: Iterable[str], followed: Callable[[Mapping[str, Any]], Iterable[str]]
    ) -> tuple[str, ...]:
        """Name the services, those that follow them, and so on from each; ``followed`` tells whom one follows."""
        followers: dict[str, list[str]] = {}
        for name, settings in self.services.items():
            for other in followed(settings or {}):
                followers.setdefault(other, []).append(name)
        found = dict.fromkeys(services)
        for name in (queue := list(found)):
            more = [item for item in followers.get(name, ()) if item not in found]
            found |= dict.fromkeys(more)
            queue += dict.fromkeys(more)
        return tuple(found)

    def names_of(self, service: str) -> set[str]:
        """Return the names under which a service is reached inside its networks."""
        settings = self.services.get(service) or {}
        networks = settings.get("networks")
        attachments = networks.values() if isinstance(networks, Mapping) else ()
        aliases = {alias for item in attachments for alias in (item or {}).get("aliases") or ()}
        return {service, *aliases, *filter(None, (settings.get("container_name"), settings.get("hostname")))}


def _homes(settings: Mapping[str, Any]) -> Iterator[str]:
    """Name the services whose namespaces one lives in."""
    for key in NAMESPACES:
        kind, _, name = str(settings.get(key) or "").partition(":")
        if kind == "service":
            yield name


def _restarting(settings: Mapping[str, Any]) -> Iterator[str]:
    """Name the services along with which one is restarted."""
    needs = settings.get("depends_on")
    for name, how in needs.items() if isinstance(needs, Mapping) else ():
        if (how or {}).get("restart"):
            yield name


def effective_environment(service: Mapping[str, Any] | None) -> dict[str, str | None]:
    """Return the environment of a service out of ``config``, which doubles every dollar in its output."""
    return {name: value if value is None else value.replace("$$", "$") for name, value in _environment(service).items()}


def _environment(service: Mapping[str, Any] | None) -> dict[str, str | None]:
    """Read the map or the list form."""
    entries = (service or {}).get("environment") or {}
    if isinstance(entries, Mapping):
        return {str(name): None if value is None else _text(value) for name, value in entries.items()}
    parts = [str(entry).partition("=") for entry in entries]
    return {name: value if equals else None for name, equals, value in parts}


def _env_files(service: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
    """Yield path and format of what a service has as ``env_file``; the format is empty where it is Compose's own."""
    entries = (service or {}).get("env_file") or ()
    for entry in [entries] if isinstance(entries, str | Mapping) else entries:
        path = entry if isinstance(entry, str) else entry.get("path") or ""
        yield str(path), "" if isinstance(entry, str) else str(entry.get("format") or "")


def _names_of(items: Mapping[str, Any] | None) -> dict[str, str]:
    """Map the keys of networks or volumes to what the engine calls them."""
    return {key: (item or {}).get("name", key) for key, item in (items or {}).items()}


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _uses(services: Mapping[str, Any], whole: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {}
    for kind in ("configs", "secrets"):
        for key, settings in (whole.get(kind) or {}).items():
            named = (settings or {}).get("environment")
            for variable in {*([str(named)] if named else []), *variables(str((settings or {}).get("content") or ""))}:
                found.setdefault(variable, []).append(f"{kind}.{key}")
    for service, settings in services.items():
        for name, raw in _environment(settings).items():
            for variable in [name] if raw is None else variables(raw):
                found.setdefault(variable, []).append(f"{service}.{name}")
        rest = {key: value for key, value in (settings or {}).items() if key != "environment"}
        for variable in {item for text in _texts(rest) for item in variables(text)}:
            found.setdefault(variable, []).append(service)
    return {variable: tuple(dict.fromkeys(places)) for variable, places in found.items()}


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        value = value.values()
    elif isinstance(value, str):
        yield value
        return
    elif not isinstance(value, list):
        return
    for item in value:
        yield from _texts(item)


# ------------------------------------------------------------------------------------------------------------ lines
@dataclass(frozen=True, slots=True)
class ComposeLine:
    """A line of a compose file, counted from 1, and how entries are written there."""

    file: Path
    line: int
    listed: bool = False  # "- KEY=value" instead of "KEY: value"
    flow: bool = False  # inside of {...} or [...]

    def __str__(self) -> str:
        """Render as ``FILE:LINE``."""
        return f"{self.file.name}:{self.line}"

    def entry(self, name: str, value: str) -> str:
        """Write an entry as it has to stand here."""
        text = f"{name}={value}" if self.listed else value
        plain = not self.flow and _PLAIN.fullmatch(value)
        quoted = text if plain else json.dumps(text, ensure_ascii=False)
        return f"- {quoted}" if self.listed and not self.flow else quoted if self.listed else f"{name}: {quoted}"


def open_up(variable: str, raw: str | None, *, secret: bool) -> str:
    """Return the interpolation to put in a literal's place; its default keeps what holds today, unless it is secret."""
    if raw is None or secret or not balanced(raw) or "\n" in raw:  # Compose takes no default of several lines
        return f"${{{variable}:-}}" if secret else f"${{{variable}}}"
    return f"${{{variable}:-{raw}}}"


class ComposeFiles:
    """The compose files as trees of nodes that know their lines."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._named = tuple(files)

    @functools.cached_property
    def files(self) -> list[tuple[Path, Any]]:
        """The files with their trees, read when the first place is asked for: most plans have nothing to point at."""
        return list(_with_included(self._named))

    def of(self, service: str, name: str | None = None) -> ComposeLine | None:
        """Find a variable's entry, or without a name the service's ``environment``, or else the service itself.

        The last file that has it wins. None when it can't be found; it may come from a file we don't follow.
        """
        for file, root in reversed(self.files):
            node = _child(_child(root, "services"), service)
            found = self._within(file, node, name, depth=0) if node is not None else None
            if found is not None:
                return found
        return None

    def _within(self, file: Path, service: Any, name: str | None, depth: int) -> ComposeLine | None:
        environment = _child(service, "environment")
        if name is None:
            place = environment if environment is not None else service
            return ComposeLine(
                file, _line(place), listed=_is_list(environment), flow=bool(getattr(environment, "flow_style", 0))
            )
        found = [(key, listed) for key, listed in _entries(environment) if key.value.partition("=")[0] == name]
        for key, listed in found[-1:] if _is_list(environment) else found[:1]:  # of a list's the last one holds
            return ComposeLine(file, _line(key), listed=listed, flow=bool(environment.flow_style))
        return self._extended(file, service, name, depth)

    def _extended(self, file: Path, service: Any, name: str, depth: int) -> ComposeLine | None:
        extends = _child(service, "extends")
        if extends is None or depth > 8:  # noqa: PLR2004 (files may extend each other in a circle)
            return None
        base = _child(extends, "service") or extends
        other = _child(extends, "file")
        path = file.parent / other.value if other is not None else file
        node = _child(_child(_load(path), "services"), str(base.value))
        return self._within(path, node, name, depth + 1) if node is not None else None


def _with_included(files: Sequence[Path]) -> Iterator[tuple[Path, Any]]:
    """Yield the files and those that they include, each once and behind what it includes; some, where they are many."""
    known, waiting = set[Path](), [(file, False) for file in reversed(files)]
    trees = dict[Path, Any]()
    while waiting:
        file, read = waiting.pop()
        if read:
            yield file, trees[file]
        elif file not in known and len(known) < _MOST_INCLUDED:  # files may include each other in a circle
            known.add(file)
            trees[file] = _load(file)
            waiting.append((file, True))
            waiting += [(inner, False) for inner in reversed(list(_included(file, trees[file])))]


def _included(file: Path, root: Any) -> Iterator[Path]:
    for item in getattr(_child(root, "include"), "value", None) or ():
        path = item if isinstance(item.value, str) else _child(item, "path")
        names = path.value if _is_list(path) else [path] if path is not None else ()
        for name in names:
            if isinstance(name.value, str):
                yield file.parent / name.value


_READ_TOO = frozenset({"include", "extends", "env_file", "label_file"})  # below these stand files that Compose reads
_MOST_FILES, _MOST_INCLUDED = 200, 50


def named_files(files: Sequence[Path]) -> frozenset[Path] | None:
    """Return the files that Compose reads for these: themselves, and what they name, whether it is there or not.

    None where that can't be told: a variable stands in a name, or there are too many of them.
    """
    found, waiting = set(files), list(files)
    while waiting:
        file = waiting.pop()
        for name in _names(_load(file)):
            if "$" in name or len(found) > _MOST_FILES:
                return None
            path = file.parent / name
            if path not in found and name.strip():
                found.add(path)
                waiting.append(path)
    return frozenset((*found, *(file.parent / ".env" for file in files)))


def _names(root: Any) -> Iterator[str]:
    """Yield all texts below the keys that name files; some of them are names of services, which does no harm."""
    waiting, seen = [(root, False)], set[tuple[int, bool]]()
    while waiting:
        node, named = waiting.pop()
        if (id(node), named) in seen:  # anchors may lead in circles
            continue
        seen.add((id(node), named))
        if getattr(node, "id", "") == "mapping":
            waiting += [(value, named or _scalar(key) in _READ_TOO) for key, value in node.value]
        elif _is_list(node):
            waiting += [(item, named) for item in node.value]
        elif named:
            yield _scalar(node)


def _scalar(node: Any) -> str:
    """Return what a scalar says; a list or a mapping, which may even be a key, says nothing."""
    return str(node.value) if getattr(node, "id", "") == "scalar" else ""


def _load(file: Path) -> Any:
    """Compose a file's tree of nodes; None when it is no YAML, of which Compose itself speaks better."""
    from ruamel.yaml.error import YAMLError

    try:
        text = text_of(file)
        try:
            return _tree(shallow(scan(text)))
        except YAMLError:  # `{image: mail:local}`, which go-yaml takes and the parser in C does not
            return _tree(shallow(scan(text, pure=True))) if len(text) <= _READABLE else None
    except (YAMLError, ValueError, AssertionError, disk.CannotRead):  # the parser in Python asserts
        return None


def text_of(file: Path) -> str:
    """Return a compose file's text, whatever somebody has put there. Raises `files.CannotRead` and ValueError."""
    return disk.read(file, LARGEST).decode("utf-8-sig")


def not_yaml(file: Path) -> tuple[int, str] | None:
    """Return the line of a file, from 1, where it stops being YAML, and why in the parser's words; None where it is.

    Compose names another line for some of them: up to 2.40 the one where what it was reading began, less one.
    """
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        text = text_of(file)
        if len(text) > _READABLE:
            return None
        for _ in shallow(scan(text)):
            pass
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        with contextlib.suppress(YAMLError, AssertionError, ValueError):
            for _ in shallow(scan(text, pure=True)):
                pass
            return None  # what go-yaml takes and the parser in C does not
        return (mark.line + 1 if mark else 1), " ".join(str(error.problem or error.context or "").split())
    except (YAMLError, ValueError, AssertionError, disk.CannotRead):
        return None
    return None


def _tree(stream: Iterator[Any]) -> Any:
    """Make nodes of a parser's events; None for more than one document. An alias of no anchor is a `ValueError`.

    Where an alias stands, there is the node of the last anchor of its name, which it may itself be a part of.
    """
    from ruamel.yaml import events, nodes

    stack, anchors = [nodes.SequenceNode("", [])], dict[str, Any]()
    for event in stream:
        if isinstance(event, events.CollectionEndEvent):
            _pair(stack.pop())
        elif isinstance(event, events.AliasEvent):
            if event.anchor not in anchors:
                raise ValueError
            stack[-1].value.append(anchors[event.anchor])
        elif isinstance(event, events.NodeEvent):
            node = _node(event)
            stack[-1].value.append(node)
            if event.anchor:
                anchors[event.anchor] = node
            if isinstance(event, events.CollectionStartEvent):
                stack.append(node)
    documents = stack[0].value
    return documents[0] if len(documents) == 1 else None


def _node(event: Any) -> Any:
    from ruamel.yaml import events, nodes

    if isinstance(event, events.ScalarEvent):
        return nodes.ScalarNode("", event.value, event.start_mark)
    kind = nodes.MappingNode if isinstance(event, events.MappingStartEvent) else nodes.SequenceNode
    return kind("", [], event.start_mark, flow_style=event.flow_style)


def _pair(node: Any) -> None:
    """Put each key of a mapping that has ended to its value."""
    if node.id == "mapping":
        node.value[:] = list(zip(node.value[::2], node.value[1::2], strict=True))


def _child(node: Any, key: str) -> Any:
    """Return a mapping's value, through merge keys; what stands there itself wins."""
    pairs = list(_pairs(node))
    own = [value for name, value in pairs if name.value == key]
    return own[0] if own else None


def _pairs(node: Any) -> Iterator[tuple[Any, Any]]:
    """Yield a mapping's own pairs, then those of each mapping that is merged into it, each once."""
    waiting, seen = [node], set()
    while waiting:
        node = waiting.pop()
        if getattr(node, "id", "") != "mapping" or id(node) in seen:  # merges may be circular, and many
            continue
        seen.add(id(node))
        merged: list[Any] = []
        for name, value in node.value:
            if name.value == "<<":
                merged += value.value if _is_list(value) else [value]
            else:
                yield name, value
        waiting += reversed(merged)


def _entries(environment: Any) -> Iterator[tuple[Any, bool]]:
    if _is_list(environment):
        yield from ((item, True) for item in environment.value if isinstance(item.value, str))
    else:
        yield from ((name, False) for name, _ in _pairs(environment) if isinstance(name.value, str))


def _is_list(node: Any) -> bool:
    return getattr(node, "id", "") == "sequence"


def _line(node: Any) -> int:
    return int(node.start_mark.line) + 1
