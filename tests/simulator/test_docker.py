"""The fake engine, through the real `docker` package."""

from __future__ import annotations

import contextlib
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import docker
import httpx
import pytest

from reconciler.simulator.docker import CRASH_LOOPING, FAILING, SLOW, Behaviour, Container, Docker, Output
from reconciler.simulator.wire import Server

CHECK = {"Test": ["CMD-SHELL", "wget -q localhost"], "Interval": 120_000_000_000}


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def fake(clock: Clock) -> Docker:
    return Docker(clock=clock)


@pytest.fixture(params=["tcp", "unix"])
def server(request: pytest.FixtureRequest, fake: Docker, tmp_path: Path) -> Iterator[Server]:
    with Server(fake, unix=tmp_path / "docker.sock" if request.param == "unix" else None) as server:
        yield server
    assert server.crashes == []


@pytest.fixture
def client(server: Server) -> Iterator[docker.DockerClient]:
    with contextlib.closing(docker.DockerClient(base_url=server.url.replace("http://", "tcp://"))) as client:
        yield client


def health(client: docker.DockerClient, name: str) -> str:
    return client.containers.get(name).attrs["State"]["Health"]["Status"]


def test_the_version_is_negotiated_and_a_newer_one_refused(server: Server, client: docker.DockerClient) -> None:
    assert client.ping()
    assert client.api.api_version == "1.41"
    assert client.version()["Version"] == "20.10.24"
    assert client.info()["OSType"] == "linux"
    with (
        contextlib.closing(docker.APIClient(server.url.replace("http://", "tcp://"), version="1.44")) as newer,
        pytest.raises(docker.errors.APIError, match=r"client version 1\.44 is too new"),
    ):
        newer.containers()


def test_paths_work_with_and_without_the_version(fake: Docker) -> None:
    fake.run("web", "nginx")
    with Server(fake) as server:
        names = [
            httpx.get(f"{server.url}{path}").json()[0]["Names"]
            for path in ("/containers/json", "/v1.41/containers/json")
        ]
        missing = httpx.get(f"{server.url}/v1.41/swarm")
    assert names == [["/web"], ["/web"]]
    assert (missing.status_code, missing.json()) == (404, {"message": "page not found"})


def test_containers_are_found_by_label_name_and_state(fake: Docker, client: docker.DockerClient) -> None:
    fake.run("mana-mail", "stalwart", labels={"project": "mana", "service": "stalwart"})
    fake.run("mana-auth", "auth", labels={"project": "mana"})
    client.containers.get("mana-auth").stop()

    def names(**query: object) -> list[str]:
        return sorted(item.name for item in client.containers.list(**query))

    assert names() == ["mana-mail"]
    assert names(all=True) == ["mana-auth", "mana-mail"]
    assert names(all=True, filters={"label": ["project=mana", "service"]}) == ["mana-mail"]
    assert names(all=True, filters={"label": "project=other"}) == []
    assert names(all=True, filters={"name": "auth"}) == ["mana-auth"]
    assert names(filters={"status": "exited"}) == ["mana-auth"]


def test_inspect_shows_environment_image_mounts_networks_and_ports(fake: Docker, client: docker.DockerClient) -> None:
    fake.add_image("stalwart:v0.15", Env=["PATH=/bin", "A=image"], Volumes={"/opt/stalwart": {}}, Labels={"v": "0.15"})
    fake.add_network("mana_default", subnet="10.9.0.0/24")
    fake.run(
        "mana-mail",
        "stalwart:v0.15",
        env={"A": "ours", "B": "x=y"},
        labels={"l": "1"},
        networks={"mana_default": ["stalwart"]},
        binds=["stalwart_data:/opt/stalwart-mail", "/etc/hosts:/h:ro"],
        ports={"8080/tcp": ("127.0.0.1", 8443)},
    )
    shown = client.containers.get("mana-mail").attrs
    assert shown["Name"] == "/mana-mail"
    assert shown["Config"]["Env"] == ["PATH=/bin", "A=ours", "B=x=y"]
    assert shown["Config"]["Image"] == "stalwart:v0.15"
    assert shown["Config"]["Labels"] == {"v": "0.15", "l": "1"}
    assert shown["Image"] == client.images.get("stalwart:v0.15").id
    mounts = {item["Destination"]: (item["Type"], item.get("Name"), item["RW"]) for item in shown["Mounts"]}
    assert mounts["/opt/stalwart-mail"] == ("volume", "stalwart_data", True)
    assert mounts["/h"] == ("bind", None, False)
    assert len(mounts["/opt/stalwart"][1]) == 64  # only the image declares it: an anonymous volume
    network = shown["NetworkSettings"]["Networks"]["mana_default"]
    assert (network["IPAddress"], network["Gateway"]) == ("10.9.0.2", "10.9.0.1")
    assert network["Aliases"] == ["stalwart", shown["Id"][:12]]
    assert shown["NetworkSettings"]["Ports"] == {"8080/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8443"}]}
    inside = client.networks.get("mana_default").attrs
    assert inside["IPAM"]["Config"] == [{"Subnet": "10.9.0.0/24", "Gateway": "10.9.0.1"}]
    assert inside["Containers"][shown["Id"]]["IPv4Address"] == "10.9.0.2/24"


def test_a_restart_keeps_the_id_and_tells_the_hook(fake: Docker, client: docker.DockerClient, clock: Clock) -> None:
    restarted: list[str] = []
    fake.on_restart = restarted.append
    fake.run("mana-mail", "stalwart")
    before = client.containers.get("mana-mail").attrs
    clock.now += 60
    client.containers.get("mana-mail").restart(timeout=1)
    after = client.containers.get("mana-mail").attrs
    assert after["Id"] == before["Id"]
    assert after["State"]["StartedAt"] > before["State"]["StartedAt"]
    assert restarted == ["mana-mail"]


def test_health_follows_the_script(fake: Docker, client: docker.DockerClient, clock: Clock) -> None:
    fake.behaviours = {"slow": SLOW, "failing": FAILING}
    for name in ("well", "slow", "failing"):
        fake.run(name, "app", Healthcheck=CHECK)
    assert [health(client, name) for name in ("well", "slow", "failing")] == ["healthy", "starting", "unhealthy"]
    clock.now += 121
    assert health(client, "slow") == "healthy"


def test_the_health_check_run_by_hand_answers_at_once(fake: Docker, client: docker.DockerClient) -> None:
    fake.behaviours = {"slow": SLOW, "sick": Behaviour(verdict_after=120, passes=False)}
    command = ["/bin/sh", "-c", "wget -q localhost"]
    for name, code in (("slow", 0), ("sick", 1)):
        fake.run(name, "app", Healthcheck=CHECK)
        assert health(client, name) == "starting"
        assert client.containers.get(name).exec_run(command).exit_code == code


def test_a_crash_loop_counts_its_restarts(fake: Docker, client: docker.DockerClient, clock: Clock) -> None:
    fake.behaviours = {"app": CRASH_LOOPING, "once": CRASH_LOOPING}
    fake.run("app", "app")
    fake.run("once", "app", restart="no")
    first = client.containers.get("app").attrs
    clock.now += 3
    second = client.containers.get("app").attrs
    assert (first["State"]["Status"], first["State"]["Restarting"]) == ("restarting", True)
    assert second["RestartCount"] > first["RestartCount"] >= 1
    assert client.containers.get("once").attrs["State"]["Status"] == "exited"
    with pytest.raises(docker.errors.APIError, match="is restarting"):
        client.containers.get("app").exec_run("true")


def test_what_a_container_does_may_depend_on_its_environment(fake: Docker, client: docker.DockerClient) -> None:
    fake.script = lambda item: Behaviour(passes=item.environment.get("SMTP_HOST") == "stalwart")
    fake.run("good", "app", env={"SMTP_HOST": "stalwart"}, Healthcheck=CHECK)
    fake.run("bad", "app", env={"SMTP_HOST": "nowhere"}, Healthcheck=CHECK)
    assert [health(client, name) for name in ("good", "bad")] == ["healthy", "unhealthy"]


def test_programs_inside_answer_on_two_streams(fake: Docker, client: docker.DockerClient) -> None:
    def execute(container: Container, command: list[str]) -> Output | None:
        return Output(3, f"{container.name}\n".encode(), b"oops\n") if command == ["hello"] else None

    fake.execute = execute
    fake.run("app", "app")
    assert client.containers.get("app").exec_run(["hello"], demux=True) == (3, (b"app\n", b"oops\n"))
    code, text = client.containers.get("app").exec_run(["nothing"])
    assert code == 126
    assert b'exec: "nothing": executable file not found in $PATH' in text


def test_a_file_comes_as_an_archive(fake: Docker, client: docker.DockerClient) -> None:
    path = "/opt/stalwart/etc/config.toml"
    fake.files = lambda item, asked: b"[server]\n" if (item.name, asked) == ("mana-mail", path) else None
    fake.run("mana-mail", "stalwart")
    chunks, stat = client.containers.get("mana-mail").get_archive(path)
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
        member = archive.extractfile("config.toml")
        assert member is not None
        assert member.read() == b"[server]\n"
    assert (stat["name"], stat["size"]) == ("config.toml", 9)


def test_logs_come_framed(fake: Docker, client: docker.DockerClient) -> None:
    fake.run("app", "app").logs = b"one\ntwo\n"
    assert client.containers.get("app").logs() == b"one\ntwo\n"
    assert client.containers.get("app").logs(tail=1) == b"two\n"
