"""What of a container is not as the compose files say, by name. Pure; values may be secrets, and are not told.

Compared are what Compose says of a service (``config --format json``) and what the engine says of its container, part
by part: where another release of Compose made the container, its own hash tells nothing.
"""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from reconciler.targets.compose.engine import PROJECT, Details
from reconciler.targets.compose.project import Project

Compared = Iterator[tuple[str, object, object]]
"""Name of a part, what the files say of it, and what is."""

_LABELS = f"{PROJECT.removesuffix('.project')}."
_RESTARTS = {"none": "no", "any": "always"}
_ALIKE = {  # what the engine has under another name; where the files say nothing its own settings count
    "userns_mode": "UsernsMode",
    "uts": "UTSMode",
    "cgroup": "CgroupnsMode",
    "cgroup_parent": "CgroupParent",
    "runtime": "Runtime",
    "isolation": "Isolation",
    "oom_score_adj": "OomScoreAdj",
    "oom_kill_disable": "OomKillDisable",
    "pids_limit": "PidsLimit",
    "cpu_shares": "CpuShares",
    "cpu_quota": "CpuQuota",
    "cpu_period": "CpuPeriod",
    "cpuset": "CpusetCpus",
    "mem_reservation": "MemoryReservation",
    "memswap_limit": "MemorySwap",
}
_COMPARED = frozenset(
    (
        *("cap_add", "cap_drop", "command", "configs", "cpus", "deploy", "device_cgroup_rules", "devices", "dns"),
        *("dns_opt", "dns_search", "entrypoint", "environment", "extra_hosts", "group_add", "healthcheck", "hostname"),
        *("image", "init", "ipc", "labels", "logging", "mem_limit", "network_mode", "networks", "pid", "ports"),
        *("privileged", "read_only", "restart", "secrets", "security_opt", "shm_size", "stdin_open", "stop_signal"),
        *("sysctls", "tmpfs", "tty", "ulimits", "user", "volumes", "working_dir", *_ALIKE),
    )
)
_HARMLESS = frozenset(  # what says nothing of a container, is not done, or gives it no right
    (
        *("attach", "build", "container_name", "depends_on", "develop", "domainname", "env_file", "expose", "extends"),
        *("label_file", "links", "mac_address", "platform", "profiles", "pull_policy", "scale", "stop_grace_period"),
    )
)
_ANY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104 (compared with, not bound to)
_SAID, _FOUND = ("host_ip", "published"), ("HostIp", "HostPort")
_Port = tuple[str, str, str]
_ELSEWHERE = ("service:", "container:")  # another container's namespace


def differences(
    details: Details, project: Project, service: str, image: Mapping[str, Any], ours: Collection[str]
) -> Iterator[str]:
    """Yield the names of what differs. ``ours`` are the variables that differ on our account."""
    wanted, inspected = project.services.get(service) or {}, details.inspected
    config, host = inspected.get("Config") or {}, inspected.get("HostConfig") or {}
    built = image.get("Config") or {}
    if image.get("Id") != inspected.get("Image"):
        yield "image"
        built = config  # what another image brings comes with it, and is not told part by part
    yield from _environment(details, project.effective.get(service, {}), built, ours)
    for name, said, found in (
        *_process(wanted, config, built),
        *_limits(wanted, host),
        *_surroundings(wanted, host),
        ("networks", *_networks(wanted, inspected, project)),
        ("volumes", *_volumes(wanted, host, built, project)),
        ("ports", *_ports(wanted, host)),
    ):
        if said != found:
            yield name


def unseen(project: Project, service: str) -> Iterator[str]:
    """Yield what the files say of a service that its container does not tell: a command that Compose runs in it."""
    wanted = project.services.get(service) or {}
    for name, said in wanted.items():
        if said and name not in _COMPARED | _HARMLESS and not name.startswith("x-"):
            yield name
    if (((wanted.get("deploy") or {}).get("resources") or {}).get("reservations") or {}).get("devices"):
        yield "deploy"


def _environment(
    details: Details, wanted: Mapping[str, str | None], built: Mapping[str, Any], ours: Collection[str]
) -> Iterator[str]:
    inherited = dict(entry.partition("=")[::2] for entry in built.get("Env") or ())
    expected = {**inherited, **{name: text for name, text in wanted.items() if text is not None}}
    names = (expected.keys() | details.environment.keys()) - set(ours)
    for name in sorted(names):
        if expected.get(name) != details.environment.get(name) and not (name in wanted and wanted[name] is None):
            yield f"environment {name}"


def _process(wanted: Mapping[str, Any], config: Mapping[str, Any], built: Mapping[str, Any]) -> Compared:
    for key, name in (("command", "Cmd"), ("entrypoint", "Entrypoint")):
        default = None if key == "command" and wanted.get("entrypoint") else built.get(name)
        said = wanted.get(key)
        yield key, _texts(said or default), list(config.get(name) or ())
    for key, name in (("user", "User"), ("working_dir", "WorkingDir"), ("stop_signal", "StopSignal")):
        yield key, wanted.get(key) or built.get(name) or "", config.get(name) or ""
    for key, name in (("tty", "Tty"), ("stdin_open", "OpenStdin")):
        yield key, bool(wanted.get(key)), bool(config.get(name))
    if wanted.get("hostname"):  # else it is the container's own
        yield "hostname", wanted["hostname"], config.get("Hostname")
    yield (
        "labels",
        _labels({**(built.get("Labels") or {}), **(wanted.get("labels") or {})}),
        _labels(config.get("Labels") or {}),
    )
    yield "healthcheck", _check(wanted, built), list((config.get("Healthcheck") or {}).get("Test") or ())


def _texts(items: Iterable[Any] | None) -> list[str]:
    return [str(item).replace("$$", "$") for item in items or ()]


def _labels(labels: Mapping[str, Any]) -> dict[str, str]:
    return {
        name: str(text).replace("$$", "$")
        for name, text in labels.items()
        if not name.startswith(_LABELS) and text is not None
    }


def _check(wanted: Mapping[str, Any], built: Mapping[str, Any]) -> list[str]:
    check = wanted.get("healthcheck") or {}
    if check.get("disable"):
        return ["NONE"]
    return _texts(check.get("test")) or list((built.get("Healthcheck") or {}).get("Test") or ())


def _limits(wanted: Mapping[str, Any], host: Mapping[str, Any]) -> Compared:
    deploy = wanted.get("deploy") or {}
    limits = (deploy.get("resources") or {}).get("limits") or {}
    yield "mem_limit", str(wanted.get("mem_limit") or limits.get("memory") or 0), str(host.get("Memory") or 0)
    cpus = float(wanted.get("cpus") or limits.get("cpus") or 0)
    yield "cpus", round(cpus * 1e9), host.get("NanoCpus") or 0
    if pids := limits.get("pids"):
        yield "pids_limit", str(pids), str(host.get("PidsLimit"))
    for key, name in _ALIKE.items():
        if wanted.get(key) is not None:
            yield key, str(wanted[key]), str(host.get(name))
    asked, there = _ulimits(wanted), {(it["Name"], it["Soft"], it["Hard"]) for it in host.get("Ulimits") or ()}
    yield "ulimits", asked & there, asked
    if wanted.get("shm_size"):  # else it is what the engine's own settings say
        yield "shm_size", str(wanted["shm_size"]), str(host.get("ShmSize"))
    policy = (deploy.get("restart_policy") or {}).get("condition") or str(wanted.get("restart") or "no")
    name = policy.partition(":")[0]
    yield "restart", _RESTARTS.get(name, name), (host.get("RestartPolicy") or {}).get("Name") or "no"
    if wanted.get("logging"):
        logging, found = wanted["logging"], host.get("LogConfig") or {}
        yield "logging", logging.get("driver", found.get("Type")), found.get("Type")
        yield "logging", logging.get("options") or {}, found.get("Config") or {}


def _ulimits(wanted: Mapping[str, Any]) -> set[tuple[str, Any, Any]]:
    limits = (wanted.get("ulimits") or {}).items()
    return {(name, it["soft"], it["hard"]) if isinstance(it, Mapping) else (name, it, it) for name, it in limits}


def _surroundings(wanted: Mapping[str, Any], host: Mapping[str, Any]) -> Compared:
    for key, name in (("privileged", "Privileged"), ("read_only", "ReadonlyRootfs")):
        yield key, bool(wanted.get(key)), bool(host.get(name))
    for key, name in (("cap_add", "CapAdd"), ("cap_drop", "CapDrop")):
        yield key, _capabilities(wanted.get(key)), _capabilities(host.get(name))
    for key, name in (("dns", "Dns"), ("dns_search", "DnsSearch"), ("group_add", "GroupAdd")):
        yield key, _texts(wanted.get(key)), [str(item) for item in host.get(name) or ()]
    for key, name in (("dns_opt", "DnsOptions"), ("device_cgroup_rules", "DeviceCgroupRules")):
        yield key, _texts(wanted.get(key)), [str(item) for item in host.get(name) or ()]
    asked, there = _protection(wanted.get("security_opt")), _protection(host.get("SecurityOpt"))
    yield "security_opt", asked, there if "label=disable" in asked else there - {"label=disable"}  # it goes with others
    yield "extra_hosts", _hosts(wanted.get("extra_hosts")), _hosts(host.get("ExtraHosts"))
    sysctls = {name: str(value) for name, value in (wanted.get("sysctls") or {}).items()}
    yield "sysctls", sysctls, dict(host.get("Sysctls") or {})
    yield "tmpfs", {item.partition(":")[0] for item in wanted.get("tmpfs") or ()}, set(host.get("Tmpfs") or {})
    devices = {(item.get("source"), item.get("target")) for item in wanted.get("devices") or ()}
    found = {(item.get("PathOnHost"), item.get("PathInContainer")) for item in host.get("Devices") or ()}
    yield "devices", devices, found
    for key, name in (("pid", "PidMode"), ("ipc", "IpcMode"), ("network_mode", "NetworkMode"), ("init", "Init")):
        if wanted.get(key) is not None and not str(wanted[key]).startswith(_ELSEWHERE):
            yield key, wanted[key], host.get(name)


def _protection(options: Iterable[str] | None) -> set[str]:
    """Return options of security in one spelling; of a profile, which the engine gets in full, that there is one."""
    found = {option.replace(":", "=", 1) for option in options or ()}
    named = {"no-new-privileges": "no-new-privileges=true"}
    return {
        "seccomp" if item.startswith("seccomp=") and item != "seccomp=unconfined" else named.get(item, item)
        for item in found
    }


def _capabilities(names: Iterable[str] | None) -> set[str]:
    return {name.upper().removeprefix("CAP_") for name in names or ()}


def _hosts(entries: Iterable[str] | None) -> set[str]:
    return {entry.replace("=", ":", 1) for entry in entries or ()}


def _networks(
    wanted: Mapping[str, Any], inspected: Mapping[str, Any], project: Project
) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    """Return the networks with the names that it has there besides those that are its own anyway."""
    said = wanted.get("networks") or {}
    config = inspected.get("Config") or {}
    own = {str(inspected.get("Name")).removeprefix("/"), str(inspected.get("Id"))[:12], config.get("Hostname")}
    own |= {(config.get("Labels") or {}).get(f"{_LABELS}service")}
    found = (inspected.get("NetworkSettings") or {}).get("Networks") or {}
    names = {project.networks.get(key, key): set((item or {}).get("aliases") or ()) - own for key, item in said.items()}
    if not names:
        return {}, {}
    return names, {name: set((item or {}).get("Aliases") or ()) - own for name, item in found.items()}


_Mount = tuple[str, bool, str]


def _volumes(
    wanted: Mapping[str, Any], host: Mapping[str, Any], built: Mapping[str, Any], project: Project
) -> tuple[dict[str, _Mount], dict[str, _Mount]]:
    """Return what is mounted where, as Compose asked for it: its source, whether it is only read, and which part of it.

    A volume without a name has no source.
    """
    said = {}
    for item in wanted.get("volumes") or ():
        source = str(item.get("source") or "")
        source = project.volumes.get(source, source) if item.get("type") == "volume" else source
        part = str((item.get("volume") or {}).get("subpath") or "")
        said[_place(item["target"])] = (source, bool(item.get("read_only")), part)
    found = _mounts(host)
    nobodys = {_place(target) for target in built.get("Volumes") or ()} | _files(wanted)  # an image's own are kept
    nobodys = {target for target in nobodys if target not in said}
    nameless = {target for target, (source, _, _) in said.items() if not source}
    return (
        {target: mount for target, mount in said.items() if target not in nameless},
        {target: mount for target, mount in found.items() if target not in nobodys | nameless},
    )


def _mounts(host: Mapping[str, Any]) -> dict[str, _Mount]:
    bound = (entry.split(":") for entry in host.get("Binds") or ())
    found = {_place(it[1]): (it[0], "ro" in ",".join(it[2:]).split(","), "") for it in bound if len(it) > 1}
    for item in host.get("Mounts") or ():
        part = str((item.get("VolumeOptions") or {}).get("Subpath") or "")
        found[_place(item.get("Target", ""))] = (str(item.get("Source") or ""), bool(item.get("ReadOnly")), part)
    return found


def source(details: Details, target: str) -> str | None:
    """Return what a container has mounted at a place, as Compose asked for it; None for nothing."""
    found = _mounts(details.inspected.get("HostConfig") or {}).get(_place(target))
    return found[0] if found else None


def _files(wanted: Mapping[str, Any]) -> set[str]:
    """Return where a service finds its configs and secrets."""
    found = set()
    for key, folder in (("configs", "/"), ("secrets", "/run/secrets")):
        for item in wanted.get(key) or ():
            target = item if isinstance(item, str) else item.get("target") or item.get("source")
            found.add(_place(posixpath.join(folder, str(target))))
    return found


def _place(target: str) -> str:
    return posixpath.normpath(target)


def _ports(wanted: Mapping[str, Any], host: Mapping[str, Any]) -> tuple[set[_Port], set[_Port]]:
    """Return what is published, and where; of a range of ports only that it is."""
    asked = wanted.get("ports") or ()
    exact = not any("-" in str(item.get("published") or "") for item in asked)
    said = {_port(f"{item.get('target')}/{item.get('protocol', 'tcp')}", item, _SAID, exact) for item in asked}
    nowhere: tuple[Mapping[str, Any], ...] = ({},)
    bindings = (host.get("PortBindings") or {}).items()
    return said, {_port(port, item, _FOUND, exact) for port, places in bindings for item in places or nowhere}


def _port(port: str, item: Mapping[str, Any], keys: tuple[str, str], exact: bool) -> _Port:  # noqa: FBT001
    """Return a port with the address and the number that it is published at."""
    if not exact:
        return port, "", ""
    address, number = (str(item.get(key) or "") for key in keys)
    return port, "" if address in _ANY_ADDRESS else address, number.removeprefix("0")
