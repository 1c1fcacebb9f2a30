"""A container as it was, and how the engine makes it again where Compose would make another one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from reconciler import fence
from reconciler.docker import NotThere
from reconciler.targets.compose.engine import Container, Details, Engine

_NO_NETWORKS = ("host", "none", "container")
_SHORT = 12  # digits of an id that are its container's usual host name, and an alias of it
_ENDPOINT = ("IPAMConfig", "Links", "DriverOpts", "MacAddress")


@dataclass(frozen=True, slots=True)
class Recipe:
    """A container as it was before a switch.

    ``sick`` says that its health check failed, ``crashing`` that it ended again and again. ``contents`` are those that
    Compose copied into it when it was made, by their place.
    """

    container: Container
    details: Details
    sick: bool = False
    crashing: bool = False
    contents: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    @property
    def image(self) -> str:
        """The id of its image."""
        return str(self.details.inspected.get("Image") or "")

    @property
    def _networks(self) -> Mapping[str, Mapping[str, Any]]:
        return self.details.inspected.get("NetworkSettings", {}).get("Networks") or {}

    def unlike(self, now: Details) -> str:
        """Name what of a container is not as it was; nothing where all of it is."""
        then, found = self.details.inspected, now.inspected
        if then.get("Image") != found.get("Image"):
            return "image"
        if self.details.environment != now.environment:
            return "environment"
        for name in ("Cmd", "Entrypoint", "User", "WorkingDir", "Healthcheck"):
            if (then.get("Config") or {}).get(name) != (found.get("Config") or {}).get(name):
                return name.lower()
        networks = (found.get("NetworkSettings") or {}).get("Networks") or {}
        return "" if set(self._networks) == set(networks) else "networks"

    def again(self, engine: Engine, parents: Mapping[str, str]) -> str:
        """Make it again beside what has taken its place; return its id. It has its name only once it is put there.

        ``parents`` maps the ids of containers that are gone to those that came in their place.
        """
        fence.before_write()
        mode = str((self.details.inspected.get("HostConfig") or {}).get("NetworkMode") or "")
        networks = {} if mode.partition(":")[0] in _NO_NETWORKS else dict(self._networks)
        first = mode if mode in networks else next(iter(networks), "")
        body = self._body(engine, parents)
        if first:
            body["NetworkingConfig"] = {"EndpointsConfig": {first: self._endpoint(networks[first])}}
        made = engine.make(body, f"{self.container.id[:_SHORT]}_{self.container.name}")
        for name, endpoint in networks.items():
            if name != first:
                engine.attach(made, name, self._endpoint(endpoint))
        for place, archive in self.contents.items():
            engine.put(made, place, archive)
        return made

    def _body(self, engine: Engine, parents: Mapping[str, str]) -> dict[str, Any]:
        config = {
            key: value for key, value in (self.details.inspected.get("Config") or {}).items() if value is not None
        }
        if config.get("Hostname") == self.container.id[:_SHORT]:
            del config["Hostname"]
        host = dict(self.details.inspected.get("HostConfig") or {})
        for key in ("NetworkMode", "IpcMode", "PidMode"):
            kind, _, parent = str(host.get(key) or "").partition(":")
            if kind == "container" and parent in parents:
                host[key] = f"container:{parents[parent]}"
        if str(host.get("NetworkMode") or "").startswith("container:"):
            for key in ("Hostname", "ExposedPorts"):
                config.pop(key, None)
        host["Binds"] = [*(host.get("Binds") or ()), *self._anonymous(host)]
        return {**config, "Image": self._reference(engine, str(config.get("Image"))), "HostConfig": host}

    def _reference(self, engine: Engine, name: str) -> str:
        """Name its image as it did, where that name still means the same one."""
        try:
            return name if engine.image(name).get("Id") == self.image else self.image
        except NotThere:
            return self.image

    def _anonymous(self, host: Mapping[str, Any]) -> Iterator[str]:
        """Yield the volumes that only the image asks for: a new container would get new ones."""
        mounts = {item.get("Target") for item in host.get("Mounts") or ()}
        binds = {item.split(":")[1] for item in host.get("Binds") or () if ":" in item}
        for item in self.details.inspected.get("Mounts") or ():
            target = item.get("Destination")
            if item.get("Type") == "volume" and item.get("Name") and target not in mounts | binds:
                yield f"{item['Name']}:{target}:{'rw' if item.get('RW', True) else 'ro'}"

    def _endpoint(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return what is to be said of a place in a network: an address of its own only where one was asked for."""
        kept = {key: settings[key] for key in _ENDPOINT if settings.get(key) and key != "MacAddress"}
        aliases = [item for item in settings.get("Aliases") or () if item != self.container.id[:_SHORT]]
        return {**kept, "Aliases": aliases}
