"""Bringing services up as Compose does: made, made anew, started, in its order."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from reconciler.simulator.compose import VERSION
from reconciler.simulator.compose.engine import LABEL, Engine
from reconciler.simulator.compose.failure import Failure
from reconciler.simulator.compose.project import SPANS, Project, nanoseconds

UNHASHED = frozenset({"build", "pull_policy", "scale", "depends_on", "profiles"})
POLL = 0.05  # seconds between two looks at a container's health


def digest(service: Mapping[str, Any]) -> str:
    """Hash what makes a container need to be made anew."""
    counted = {key: value for key, value in service.items() if key not in UNHASHED}
    return hashlib.sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()


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
