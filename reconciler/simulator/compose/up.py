"""Bringing services up as Compose does: made, made anew, started, in its order."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from reconciler.simulator.compose import VERSION
from reconciler.simulator.compose.engine import LABEL, Engine
from reconciler.simulator.compose.failure import Failure
from reconciler.simulator.compose.project import SPANS, Project, nanoseconds

# What of a service the engine takes as it is, by its names there.
_CONFIG = {
    "user": "User",
    "working_dir": "WorkingDir",
    "stop_signal": "StopSignal",
    "tty": "Tty",
    "stdin_open": "OpenStdin",
    "hostname": "Hostname",
}
_HOST = {
    "init": "Init",
    "privileged": "Privileged",
    "read_only": "ReadonlyRootfs",
    "cap_add": "CapAdd",
    "cap_drop": "CapDrop",
    "dns": "Dns",
    "extra_hosts": "ExtraHosts",
    "sysctls": "Sysctls",
    "pid": "PidMode",
    "ipc": "IpcMode",
}
UNHASHED = frozenset({"build", "pull_policy", "scale", "depends_on", "profiles"})

POLL = 0.05  # seconds between two looks at a container's health


def digest(service: Mapping[str, Any]) -> str:
    """Hash what makes a container need to be made anew."""
    counted = {key: value for key, value in service.items() if key not in UNHASHED}
    if "deploy" in counted:
        counted["deploy"] = {key: value for key, value in counted["deploy"].items() if key != "replicas"}
    return hashlib.sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()


def network_digest(settings: Mapping[str, Any]) -> str:
    """Hash what makes a network need to be made anew."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Up:
    """One ``up``: makes, makes anew, starts, and says each step on standard error as the real one does.

    With ``dry`` it says it only. ``scales`` are numbers of containers in place of the files'.
    """

    project: Project
    engine: Engine
    force: bool = False
    dry: bool = False
    start: bool = True
    scales: Mapping[str, int] = field(default_factory=dict)
    remade: dict[str, str] = field(default_factory=dict)  # by the id of a container that came in another one's place
    stopped: set[str] = field(default_factory=set)

    def bring(self, name: str) -> list[str]:
        """Bring one service up and return its containers' ids."""
        service = self._placed(self.project.service(name))
        found = self._without_surplus(self.engine.containers(self.project.name, name), service, self._scale(name))
        ids = [self._kept(name, service, item) for item in found]
        taken = [int(item["Config"]["Labels"].get(f"{LABEL}.container-number", 1)) for item in found]
        for offset in range(self._scale(name) - len(found)):
            number = max(taken, default=0) + 1 + offset
            final = self.name(name, number)
            self.say(final, "Creating")
            ids.append("" if self.dry else self._create(name, service, final, number, []))
            self.say(final, "Created")
            self._start(final, ids[-1])
        return ids

    def _kept(self, name: str, service: Mapping[str, Any], container: Mapping[str, Any]) -> str:
        final = self._final(name, container)
        if self.force or self._stale(container, service):
            made = self._recreate(name, service, container, final)
        elif container["State"]["Running"] and container["Id"] not in self.stopped:
            self.say(final, "Running")
            return str(container["Id"])
        else:
            made = str(container["Id"])
        self._start(final, made)
        return made

    def _start(self, name: str, container: str) -> None:
        if not self.start:
            return
        self.say(name, "Starting")
        if not self.dry:
            self.engine.call("POST", f"/containers/{container}/start")
        self.say(name, "Started")

    def name(self, service: str, number: int = 1) -> str:
        """Name a service's container."""
        return str(self.project.services[service].get("container_name") or f"{self.project.name}-{service}-{number}")

    def _final(self, service: str, container: Mapping[str, Any]) -> str:
        return self.name(service, int(container["Config"]["Labels"].get(f"{LABEL}.container-number", 1)))

    def say(self, name: str, what: str) -> None:
        """Report progress on a container."""
        say(name, what, prefix=" DRY-RUN MODE - " if self.dry else "")

    def _scale(self, name: str) -> int:
        service = self.project.service(name)
        declared = (service.get("deploy") or {}).get("replicas", service.get("scale", 1))
        return int(self.scales.get(name, declared))

    def _placed(self, service: Mapping[str, Any]) -> dict[str, Any]:
        """Say which container a service shares its namespaces with."""
        placed = dict(service)
        for key in ("network_mode", "ipc", "pid"):
            kind, _, parent = str(service.get(key) or "").partition(":")
            if kind == "service":
                found = self.engine.containers(self.project.name, parent)
                if not found:
                    raise Failure(f"cannot share network namespace with service {parent}: container missing")
                placed[key] = f"container:{self.remade.get(found[0]['Id'], found[0]['Id'])}"
        return placed

    def _without_surplus(
        self, found: list[dict[str, Any]], service: Mapping[str, Any], number: int
    ) -> list[dict[str, Any]]:
        """Remove what is too much: an `up` that was killed leaves an old container and a new one."""
        ranked = sorted(found, key=lambda item: self._stale(item, service))
        for item in ranked[number:]:
            self.say(item["Name"].removeprefix("/"), "Removed")
            if not self.dry:
                self.engine.call("DELETE", f"/containers/{item['Id']}", force="1")
        return ranked[:number]

    def _stale(self, container: Mapping[str, Any], service: Mapping[str, Any]) -> bool:
        if container["Config"]["Labels"].get(f"{LABEL}.config-hash") != digest(service):
            return True
        image = self.engine.call("GET", f"/images/{quote(str(service['image']))}/json")
        return bool(image["Id"] != container["Image"])

    def _recreate(self, name: str, service: Mapping[str, Any], old: Mapping[str, Any], final: str) -> str:
        """Make the new one under a passing name, stop and remove the old one, rename: a kill in between leaves two."""
        self.say(final, "Recreate")
        made = f"to come in place of {old['Id']}"
        if not self.dry:
            anonymous = [item for item in old["Mounts"] if re.fullmatch("[0-9a-f]{64}", item.get("Name", ""))]
            number = int(old["Config"]["Labels"].get(f"{LABEL}.container-number", 1))
            made = self._create(name, service, f"{old['Id'][:12]}_{final}", number, anonymous)
            self.engine.call("POST", f"/containers/{old['Id']}/stop")
            self.engine.call("DELETE", f"/containers/{old['Id']}")
            self.engine.call("POST", f"/containers/{made}/rename", name=final)
        self.remade[old["Id"]] = made
        self.say(final, "Recreated")
        return made

    def _create(
        self,
        name: str,
        service: Mapping[str, Any],
        container: str,
        number: int,
        inherited: Sequence[Mapping[str, Any]],
    ) -> str:
        first, *others = self._endpoints(name) or [("", {})]
        body = {
            **_config(service),
            "Labels": {**service.get("labels", {}), **self._labels(name, service, number)},
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

    def _labels(self, name: str, service: Mapping[str, Any], number: int) -> dict[str, str]:
        project = self.project
        labels = {
            "config-hash": digest(service),
            "container-number": str(number),
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
        named = {item["target"] for item in service.get("volumes", [])}  # what the file names takes the place
        return {
            **{name: service[key] for key, name in _HOST.items() if service.get(key) is not None},
            "Binds": [
                *self._binds(service),
                *(f"{item['Name']}:{item['Destination']}:rw" for item in inherited if item["Destination"] not in named),
            ],
            "Memory": int(service.get("mem_limit", 0)),
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

    def networks(self, services: Sequence[str]) -> None:
        """Make the networks of services that are not there, and anew those whose definition is another."""
        there = {item["Name"]: item for item in self.engine.call("GET", "/networks")}
        for key in dict.fromkeys(key for name in services for key in self.project.service(name).get("networks") or {}):
            settings = self.project.networks[key]
            name, found = settings["name"], there.get(settings["name"])
            if settings.get("external"):
                if found is None:
                    raise Failure(f"network {name} declared as external, but could not be found")
                continue
            hashed = (found or {}).get("Labels", {}).get(f"{LABEL}.config-hash")
            if found is not None and hashed in (None, network_digest(settings)):
                continue
            if found is not None and not self._removed(key, name, services):
                continue
            say(name, "Creating", "Network", " DRY-RUN MODE - " if self.dry else "")
            if not self.dry:
                self.engine.call("POST", "/networks/create", self._network(key, settings))

    def _removed(self, key: str, name: str, services: Sequence[str]) -> bool:
        """Stop what of the services is in a network and remove it, which fails where others are in it still."""
        for service in services:
            if key in (self.project.service(service).get("networks") or {}):
                for item in self.engine.containers(self.project.name, service):
                    self.say(item["Name"].removeprefix("/"), "Stopped")
                    self.stopped.add(item["Id"])
                    if not self.dry:
                        self.engine.call("POST", f"/containers/{item['Id']}/stop")
        say(name, "Removed", "Network", " DRY-RUN MODE - " if self.dry else "")
        if not self.dry:
            try:
                self.engine.call("DELETE", f"/networks/{name}")
            except Failure:
                return False
        return True

    def _network(self, key: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        labels = {
            f"{LABEL}.network": key,
            f"{LABEL}.project": self.project.name,
            f"{LABEL}.version": VERSION,
            f"{LABEL}.config-hash": network_digest(settings),
        }
        pools = [{"Subnet": pool["subnet"]} for pool in (settings.get("ipam") or {}).get("config") or []]
        return {"Name": settings["name"], "Driver": "bridge", "Labels": labels, "IPAM": {"Config": pools}}


def _config(service: Mapping[str, Any]) -> dict[str, Any]:
    """Write a service as the engine's ``Config``. A variable without a value stands there by its name alone."""
    environment = service.get("environment", {}).items()
    config: dict[str, Any] = {
        **{name: service[key] for key, name in _CONFIG.items() if service.get(key) is not None},
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


def say(name: str, what: str, kind: str = "Container", prefix: str = "") -> None:
    """Report progress where the real one does: on standard error."""
    sys.stderr.write(f"{prefix} {kind} {name}  {what}\n")
