"""What the compose files say: each entry of a service's environment, and the variable that it interpolates."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_USED = re.compile(rf"(?<!\$)(?:\$\$)*\$(?:\{{({_NAME})|({_NAME}))")


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
    maps a variable to where it is interpolated (``SERVICE.KEY``, or ``SERVICE`` outside of its environment).
    """

    name: str
    written: Mapping[str, Mapping[str, str | None]]
    effective: Mapping[str, Mapping[str, str | None]]
    uses: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    services: Mapping[str, Any] = field(default_factory=dict)
    networks: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, written: Mapping[str, Any], effective: Mapping[str, Any]) -> Project:
        """Make one of what ``config --no-interpolate`` and ``config`` answer."""
        services = written.get("services") or {}
        resolved = effective.get("services") or {}
        return cls(
            name=effective.get("name", ""),
            written={name: _environment(service) for name, service in services.items()},
            effective={name: effective_environment(service) for name, service in resolved.items()},
            uses=_uses(services),
            services=resolved,
            networks={
                key: (network or {}).get("name", key) for key, network in (effective.get("networks") or {}).items()
            },
        )

    def interpolation(self, service: str, name: str) -> Interpolation | None:
        """Return the interpolation that a service's variable is, None for a literal and for a missing entry."""
        entries = self.written.get(service, {})
        return interpolation(name, entries[name]) if name in entries else None

    def configured(self, service: str, name: str) -> str | None:
        """Return what a new container of the service would get."""
        return self.effective.get(service, {}).get(name)

    def restarted_with(self, service: str) -> tuple[str, ...]:
        """Name the services that Compose restarts along with this one (``depends_on: {restart: true}``)."""
        return tuple(
            name
            for name, other in self.services.items()
            if isinstance(needs := (other or {}).get("depends_on"), Mapping)
            and (needs.get(service) or {}).get("restart")
        )

    def names_of(self, service: str) -> set[str]:
        """Return the names under which a service is reached inside its networks."""
        settings = self.services.get(service) or {}
        networks = settings.get("networks")
        attachments = networks.values() if isinstance(networks, Mapping) else ()
        aliases = {alias for item in attachments for alias in (item or {}).get("aliases") or ()}
        return {service, *aliases, *filter(None, (settings.get("container_name"), settings.get("hostname")))}


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


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _uses(services: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {}
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
