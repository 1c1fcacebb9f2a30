"""Where an entry stands in the compose files, and the text that lets the env file decide on it."""

from __future__ import annotations

import functools
import json
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reconciler.targets.compose.project import balanced

_PLAIN = re.compile(r"\$\{[\w.:/@+~^$-]*(?:\{[\w.:/@+~^$-]*\})*[\w.:/@+~^$-]*\}")  # needs no quotes in a block of YAML


@dataclass(frozen=True, slots=True)
class Place:
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
    if raw is None or secret or not balanced(raw):
        return f"${{{variable}:-}}" if secret else f"${{{variable}}}"
    return f"${{{variable}:-{raw}}}"


class Places:
    """The compose files as trees of nodes that know their lines."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._named = tuple(files)

    @functools.cached_property
    def files(self) -> list[tuple[Path, Any]]:
        """The files with their trees, read when the first place is asked for: most plans have nothing to point at."""
        return list(_with_included(self._named))

    def of(self, service: str, name: str | None = None) -> Place | None:
        """Find a variable's entry, or without a name the service's ``environment``, or else the service itself.

        The last file that has it wins. None when it can't be found; it may come from a file we don't follow.
        """
        for file, root in reversed(self.files):
            node = _child(_child(root, "services"), service)
            found = self._within(file, node, name, depth=0) if node is not None else None
            if found is not None:
                return found
        return None

    def _within(self, file: Path, service: Any, name: str | None, depth: int) -> Place | None:
        environment = _child(service, "environment")
        if name is None:
            place = environment if environment is not None else service
            return Place(
                file, _line(place), listed=_is_list(environment), flow=bool(getattr(environment, "flow_style", 0))
            )
        for key, listed in _entries(environment):
            if key.value.partition("=")[0] == name:
                return Place(file, _line(key), listed=listed, flow=bool(environment.flow_style))
        return self._extended(file, service, name, depth)

    def _extended(self, file: Path, service: Any, name: str, depth: int) -> Place | None:
        extends = _child(service, "extends")
        if extends is None or depth > 8:  # noqa: PLR2004 (files may extend each other in a circle)
            return None
        base = _child(extends, "service") or extends
        other = _child(extends, "file")
        path = file.parent / other.value if other is not None else file
        node = _child(_child(_load(path), "services"), str(base.value))
        return self._within(path, node, name, depth + 1) if node is not None else None


def _with_included(files: Sequence[Path]) -> Iterator[tuple[Path, Any]]:
    for file in files:
        root = _load(file)
        for item in getattr(_child(root, "include"), "value", None) or ():
            path = item if isinstance(item.value, str) else _child(item, "path")
            if path is not None and isinstance(path.value, str):
                included = file.parent / path.value
                yield included, _load(included)
        yield file, root


def _load(file: Path) -> Any:
    """Compose a file's tree of nodes; None when it is no YAML, of which Compose itself speaks better."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an anchor that is used twice is no concern of ours
            return YAML(typ="rt").compose(file.read_text(encoding="utf-8-sig"))
    except (YAMLError, OSError, UnicodeDecodeError):
        return None


def _child(node: Any, key: str) -> Any:
    """Return a mapping's value, through merge keys; what stands there itself wins."""
    pairs = list(_pairs(node))
    own = [value for name, value in pairs if name.value == key]
    return own[0] if own else None


def _pairs(node: Any, depth: int = 0) -> Iterator[tuple[Any, Any]]:
    if getattr(node, "id", "") != "mapping" or depth > 8:  # noqa: PLR2004 (merges may be circular)
        return
    merged: list[Any] = []
    for name, value in node.value:
        if name.value == "<<":
            merged += value.value if _is_list(value) else [value]
        else:
            yield name, value
    for item in merged:
        yield from _pairs(item, depth + 1)


def _entries(environment: Any) -> Iterator[tuple[Any, bool]]:
    if _is_list(environment):
        yield from ((item, True) for item in environment.value if isinstance(item.value, str))
    else:
        yield from ((name, False) for name, _ in _pairs(environment) if isinstance(name.value, str))


def _is_list(node: Any) -> bool:
    return getattr(node, "id", "") == "sequence"


def _line(node: Any) -> int:
    return int(node.start_mark.line) + 1
