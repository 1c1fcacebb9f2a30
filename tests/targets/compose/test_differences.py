"""What differs between the compose files and a container, part by part; with the real thing in `test_compose_rows`."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from reconciler.targets.compose.differences import differences
from reconciler.targets.compose.engine import Container, Details, Engine
from reconciler.targets.compose.forecast import _Rehearsal
from reconciler.targets.compose.project import Project
from reconciler.targets.compose.snapshot import Snapshot

DB, ALIEN, ANONYMOUS = "d" * 64, "a" * 64, "0" * 64
ONE = {"type": "bind", "source": "/one", "target": "/one"}


def container(number: str, service: str, project: str = "p") -> Container:
    labels = {"com.docker.compose.project": project, "com.docker.compose.service": service}
    return Container(number, f"{project}-{service}-1", labels, "running", 1, (), {})


OTHERS = (container(DB, "db"), container(ALIEN, "db", "alien"))


def details(host: Any, networks: Any = None, **more: Any) -> Details:
    inspected = {"HostConfig": host, "NetworkSettings": {"Networks": networks or {}}, **more}
    return Details({}, "running", "", 0, "", 0, (), inspected)


def differing(said: Any, host: Any, networks: Any = None, **more: Any) -> list[str]:
    project = Project(
        "p", {}, {}, services={"app": said}, volumes={"data": "p_data"}, networks={"default": "p_default"}
    )
    return list(differences(details(host, networks, **more), project, "app", {}, (), others=OTHERS))


ALIKE: list[tuple[Any, Any]] = [
    ({}, {"Runtime": "runc", "IpcMode": "private", "PidMode": ""}),
    ({"pid": "service:db"}, {"PidMode": f"container:{DB}"}),
    ({"pid": "service:db"}, {"PidMode": "container:" + "e" * 64}),  # one that was made anew since
    ({"ipc": "container:alien-db-1"}, {"IpcMode": f"container:{ALIEN}"}),
    ({"network_mode": "container:gone"}, {"NetworkMode": "container:gone"}),
    ({"devices": [{"source": "/dev/a", "target": "/dev/a", "permissions": "rwm"}]}, {
        "Devices": [{"PathOnHost": "/dev/a", "PathInContainer": "/dev/a", "CgroupPermissions": "mrw"}]
    }),
    ({"volumes": [ONE]}, {"Binds": ["/one:/one:rw"]}),
    ({"volumes": [{**ONE, "bind": {"propagation": "rprivate"}}]}, {"Binds": ["/one:/one:rw"]}),
    ({"volumes": [{**ONE, "bind": {"propagation": "rshared"}}]}, {"Binds": ["/one:/one:rw,rshared"]}),
    ({"volumes": [{**ONE, "bind": {"propagation": "rslave"}}]}, {
        "Mounts": [{"Source": "/one", "Target": "/one", "BindOptions": {"Propagation": "rslave"}}]
    }),
    ({"volumes": [{"type": "volume", "target": "/etc"}]}, {"Mounts": [{"Type": "volume", "Target": "/etc"}]}),
    ({"volumes": [{"type": "volume", "target": "/etc"}]}, {"Binds": [f"{ANONYMOUS}:/etc"], "Mounts": [
        {"Type": "volume", "Target": "/etc", "Source": ANONYMOUS}
    ]}),
    ({"volumes": [{"type": "tmpfs", "target": "/etc"}]}, {"Mounts": [{"Type": "tmpfs", "Target": "/etc"}]}),
]  # fmt: skip
DIFFERENT: list[tuple[str, Any, Any]] = [
    ("runtime", {}, {"Runtime": "kata"}),
    ("pid", {}, {"PidMode": "host"}),
    ("ipc", {}, {"IpcMode": "host"}),
    ("pid", {"pid": "service:db"}, {"PidMode": ""}),
    ("pid", {"pid": "service:db"}, {"PidMode": f"container:{ALIEN}"}),
    ("ipc", {"ipc": "container:alien-db-1"}, {"IpcMode": "private"}),
    ("network_mode", {"network_mode": "container:p-db-1"}, {"NetworkMode": f"container:{ALIEN}"}),
    ("devices", {"devices": [{"source": "/dev/a", "target": "/dev/a", "permissions": "rwm"}]}, {
        "Devices": [{"PathOnHost": "/dev/a", "PathInContainer": "/dev/a", "CgroupPermissions": "r"}]
    }),
    ("volumes", {"volumes": [{**ONE, "bind": {"propagation": "rshared"}}]}, {"Binds": ["/one:/one:rw"]}),
    ("volumes", {"volumes": [{**ONE, "bind": {"selinux": "Z"}}]}, {"Binds": ["/one:/one:rw"]}),
    ("volumes", {"volumes": [{"type": "volume", "target": "/etc"}]}, {}),
    ("volumes", {"volumes": [{"type": "volume", "target": "/data"}]}, {"Binds": ["p_data:/data:rw"]}),
    ("volumes", {"volumes": [{"type": "tmpfs", "target": "/etc"}]}, {}),
    ("volumes", {"volumes": [{"type": "tmpfs", "target": "/data"}]}, {"Mounts": [
        {"Type": "volume", "Target": "/data"}
    ]}),
]  # fmt: skip


@pytest.mark.parametrize(("said", "host"), ALIKE)
def test_what_is_as_the_files_say(said: Any, host: Any) -> None:
    assert differing(said, host) == []


@pytest.mark.parametrize(("name", "said", "host"), DIFFERENT)
def test_what_would_ride_along_is_named(name: str, said: Any, host: Any) -> None:
    assert differing(said, host) == [name]


def test_a_volume_without_a_name_that_another_program_asked_for() -> None:
    said = {"volumes": [{"type": "volume", "target": "/etc"}]}
    assert differing(said, {}, Mounts=[{"Type": "volume", "Name": ANONYMOUS, "Destination": "/etc"}]) == []


def test_an_address_of_its_own() -> None:
    said = {"networks": {"default": {"ipv4_address": "192.0.2.9"}}}
    there = {"p_default": {"IPAMConfig": {"IPv4Address": "192.0.2.9"}}}
    assert differing(said, {}, there) == []
    assert differing(said, {}, {"p_default": {"IPAMConfig": None}}) == ["networks"]
    assert differing({"networks": {"default": None}}, {}, there) == ["networks"]


def riding(folder: Path, project: Project, host: Any, content: str | None = None) -> tuple[str, ...] | None:
    """Name what would ride along where Compose itself sees no difference."""
    mine = container("c" * 64, "app")
    snapshot = SimpleNamespace(project=project, folder=folder, kept=lambda _: [mine], env_file=None)
    engine = SimpleNamespace(content=lambda *_: content)
    rehearsal = _Rehearsal(cast("Snapshot", snapshot), (), {mine.id: details(host)})
    return rehearsal.riding("app", {}, cast("Engine", engine))


@pytest.mark.parametrize("kind", ["config", "secret"])
def test_a_file_that_is_not_mounted_at_all_differs(tmp_path: Path, kind: str) -> None:
    services = {"app": {f"{kind}s": [{"source": "s", "target": "/host"}]}}
    given: Any = {f"{kind}s": {"s": {"file": "/"}}}
    project = Project("p", {}, {}, services=services, **given)
    assert riding(tmp_path, project, {"Binds": []}) == (f"{kind} s",)
    assert riding(tmp_path, project, {"Mounts": [{"Type": "bind", "Source": "/", "Target": "/host"}]}) is None


def test_a_content_that_is_not_there_at_all_differs(tmp_path: Path) -> None:
    services = {"app": {"configs": [{"source": "c", "target": "/etc/passwd"}]}}
    project = Project("p", {}, {}, services=services, configs={"c": {"content": "hello"}})
    assert riding(tmp_path, project, {}) == ("config c",)
    assert riding(tmp_path, project, {}, "hello") is None


def test_a_profile_that_says_something_else_by_now(tmp_path: Path) -> None:
    project = Project("p", {}, {}, services={"app": {"security_opt": ["seccomp:./p.json"]}})
    profile, host = tmp_path / "p.json", {"SecurityOpt": ['seccomp={"defaultAction":"SCMP_ACT_ERRNO"}']}
    assert riding(tmp_path, project, host) == ("security_opt",), "one that can't be read"
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ERRNO"}, indent=2))
    assert riding(tmp_path, project, host) is None
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW"}))
    assert riding(tmp_path, project, host) == ("security_opt",)
