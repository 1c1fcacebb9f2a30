"""What of a container is not as the compose files say, by name. Pure; values may be secrets, and are not told.

Compared are what Compose says of a service (``config --format json``) and what the engine says of its container, part
by part: where another release of Compose made the container, its own hash tells nothing.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from reconciler.targets.compose.engine import PROJECT, Container, Details
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
        *("privileged", "read_only", "restart", "runtime", "secrets", "security_opt", "shm_size", "stdin_open"),
        *("stop_signal",),
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
_SERVICE, _CONTAINER = "service:", "container:"  # another container's namespace
_USUAL = {  # what the engine has where the files say nothing
    "pid": ("",),
    "ipc": ("", "private", "shareable"),
    "runtime": ("", "runc"),
}
_NAMELESS = re.compile("[0-9a-f]{64}")  # what the engine calls a volume without a name
_SPREADING = frozenset(("shared", "slave", "private", "rshared", "rslave", "z", "Z"))  # and not what is usual: rprivate


def differences(
    details: Details,
    project: Project,
    service: str,
    image: Mapping[str, Any],
    ours: Collection[str],
    *,
    others: Sequence[Container] = (),
) -> Iterator[str]:
    """Yield the names of what differs.

    ``ours`` are the variables that differ on our account; ``others`` the containers that there are, in whose
    namespaces it may live.
    """
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
        *_namespaces(wanted, host, project, others),
        ("networks", *_networks(wanted, inspected, project)),
        ("volumes", *_volumes(wanted, inspected, built, project)),
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
    yield (
        "devices",
        {_device(item, ("source", "target", "permissions")) for item in wanted.get("devices") or ()},
        {_device(item, ("PathOnHost", "PathInContainer", "CgroupPermissions")) for item in host.get("Devices") or ()},
    )
    if wanted.get("init") is not None:
        yield "init", wanted["init"], host.get("Init")
    yield "runtime", *_said_or_usual("runtime", wanted, str(host.get("Runtime") or ""))


def _device(item: Mapping[str, Any], keys: tuple[str, str, str]) -> tuple[Any, Any, frozenset[str]]:
    source, target, rights = (item.get(key) for key in keys)
    return source, target, frozenset(rights or "rwm")


def _said_or_usual(key: str, wanted: Mapping[str, Any], found: str) -> tuple[str, str]:
    """Return what the files say and what is; where they say nothing, all that is usual is alike."""
    said = str(wanted.get(key) or "")
    return said, "" if not said and found in _USUAL[key] else found


def _namespaces(
    wanted: Mapping[str, Any], host: Mapping[str, Any], project: Project, others: Sequence[Container]
) -> Compared:
    for key, name in (("pid", "PidMode"), ("ipc", "IpcMode"), ("network_mode", "NetworkMode")):
        said, found = str(wanted.get(key) or ""), str(host.get(name) or "")
        if said.startswith((_SERVICE, _CONTAINER)):
            yield key, True, _lives_in(said, found, project, others)
        elif key in _USUAL:
            yield key, *_said_or_usual(key, wanted, found)
        elif said:  # else its networks tell
            yield key, said, found


def _lives_in(said: str, found: str, project: Project, others: Sequence[Container]) -> bool:
    """Say whether a container lives in the namespace that the files name.

    The engine may name its container by either name or id. One of a service that has gone since is as good as the next.
    """
    if not found.startswith(_CONTAINER):
        return False
    home = found.removeprefix(_CONTAINER)
    hosts = [item for item in others if home in (item.id, item.name)]
    if said.startswith(_SERVICE):
        service = said.removeprefix(_SERVICE)
        return all(item.project == project.name and item.service == service for item in hosts)
    name = said.removeprefix(_CONTAINER)
    return name == home or any(name == item.name or item.id.startswith(name) for item in hosts)


def _protection(options: Iterable[str] | None) -> set[str]:
    """Return options of security in one spelling; of a profile, which the engine gets in full, that there is one."""
    found = {option.replace(":", "=", 1) for option in options or ()}
    named = {"no-new-privileges": "no-new-privileges=true"}
    return {"seccomp" if _profile(item) is not None else named.get(item, item) for item in found}


def _profile(option: str) -> str | None:
    """Return what an option has as a profile of system calls: the files a path, the engine its content."""
    name, text = option[: len("seccomp")], option[len("seccomp=") :]
    return text if name == "seccomp" and text not in ("unconfined", "builtin") else None


def profiles(options: Iterable[str] | None) -> list[str]:
    """Return the profiles of system calls among options of security."""
    return [text for option in options or () if (text := _profile(option)) is not None]


def _capabilities(names: Iterable[str] | None) -> set[str]:
    return {name.upper().removeprefix("CAP_") for name in names or ()}


def _hosts(entries: Iterable[str] | None) -> set[str]:
    return {entry.replace("=", ":", 1) for entry in entries or ()}


_Attached = tuple[set[str], set[str]]


def _networks(
    wanted: Mapping[str, Any], inspected: Mapping[str, Any], project: Project
) -> tuple[dict[str, _Attached], dict[str, _Attached]]:
    """Return the networks, each with the names that it has there besides its own, and the addresses it asked for."""
    said = wanted.get("networks") or {}
    config = inspected.get("Config") or {}
    own = {str(inspected.get("Name")).removeprefix("/"), str(inspected.get("Id"))[:12], config.get("Hostname")}
    own |= {(config.get("Labels") or {}).get(f"{_LABELS}service")}
    found = (inspected.get("NetworkSettings") or {}).get("Networks") or {}
    if not said:
        return {}, {}
    return (
        {
            project.networks.get(key, key): _attached(item or {}, "aliases", item or {}, own)
            for key, item in said.items()
        },
        {
            name: _attached(item or {}, "Aliases", (item or {}).get("IPAMConfig") or {}, own)
            for name, item in found.items()
        },
    )


def _attached(item: Mapping[str, Any], names: str, addresses: Mapping[str, Any], own: set[Any]) -> _Attached:
    keys = ("ipv4_address", "ipv6_address", "IPv4Address", "IPv6Address")
    return set(item.get(names) or ()) - own, {str(addresses[key]) for key in keys if addresses.get(key)}


_Mount = tuple[str, bool, str, frozenset[str]]


def _volumes(
    wanted: Mapping[str, Any], inspected: Mapping[str, Any], built: Mapping[str, Any], project: Project
) -> tuple[dict[str, _Mount], dict[str, _Mount]]:
    """Return what is mounted where, as Compose asked for it.

    That is its source, whether it is only read, which part of it, and how what is mounted below it spreads. What has no
    name has its kind for a source.
    """
    said = {_place(item["target"]): _said_mount(item, project) for item in wanted.get("volumes") or ()}
    found = _mounts(inspected.get("HostConfig") or {})
    nobodys = {_place(target) for target in built.get("Volumes") or ()} | _files(wanted)  # an image's own are kept
    nobodys = {target for target in nobodys if target not in said}
    nameless = _nameless(inspected)
    for target, mount in said.items():
        if mount in _WITHOUT_NAME.values() and _NAMELESS.fullmatch(found.get(target, _NOTHING)[0] or "0" * 64):
            found.pop(target, None)
            found.update({target: nameless[target]} if target in nameless else {})
    return said, {target: mount for target, mount in found.items() if target not in nobodys}


_NOTHING: _Mount = ("", False, "", frozenset())
_WITHOUT_NAME: dict[str, _Mount] = {kind: (f"a {kind}", False, "", frozenset()) for kind in ("volume", "tmpfs")}


def _said_mount(item: Mapping[str, Any], project: Project) -> _Mount:
    kind, source = str(item.get("type")), str(item.get("source") or "")
    if not source and kind in _WITHOUT_NAME:
        return _WITHOUT_NAME[kind]
    bind = item.get("bind") or {}
    return (
        project.volumes.get(source, source) if kind == "volume" else source,
        bool(item.get("read_only")),
        str((item.get("volume") or {}).get("subpath") or ""),
        _SPREADING & {bind.get("propagation"), bind.get("selinux")},
    )


def _nameless(inspected: Mapping[str, Any]) -> dict[str, _Mount]:
    """Return where a container has volumes without a name, and memory, whoever asked for it."""
    found = {_place(target): "volume" for target in (inspected.get("Config") or {}).get("Volumes") or ()}
    for item in inspected.get("Mounts") or ():
        found[_place(item.get("Destination") or "")] = str(item.get("Type") or "volume")
    for item in (inspected.get("HostConfig") or {}).get("Mounts") or ():
        found[_place(item.get("Target") or "")] = str(item.get("Type") or "volume")
    return {target: _WITHOUT_NAME[kind] for target, kind in found.items() if kind in _WITHOUT_NAME}


def _mounts(host: Mapping[str, Any]) -> dict[str, _Mount]:
    found = {}
    for entry in host.get("Binds") or ():
        name, target, options = (*entry.split(":"), "", "")[:3]
        if target:
            words = frozenset(options.split(","))
            found[_place(target)] = (name, "ro" in words, "", words & _SPREADING)
    for item in host.get("Mounts") or ():
        part = str((item.get("VolumeOptions") or {}).get("Subpath") or "")
        spreading = _SPREADING & {(item.get("BindOptions") or {}).get("Propagation")}
        name = str(item.get("Source") or "")
        found[_place(item.get("Target", ""))] = (name, bool(item.get("ReadOnly")), part, spreading)
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
