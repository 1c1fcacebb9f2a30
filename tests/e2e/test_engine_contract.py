"""What the fake engine and a real one must do alike; each test runs against both."""

from __future__ import annotations

import contextlib
import gzip
import io
import tarfile
import uuid
from collections.abc import Iterator

import docker
import pytest
from docker.models.containers import Container

from reconciler.simulator.docker import Docker, Output
from reconciler.simulator.wire import Server

# In the worker of the other tests that use a real engine (see test_compose_engine.py).
pytestmark = [pytest.mark.xdist_group("engine"), pytest.mark.long]

PASSWD = b"root:x:0:0::/:/bin/sh\n"


class Stage:
    """An engine to try things on, whose containers and networks go when the test ends."""

    def __init__(self, client: docker.DockerClient, image: str) -> None:
        self.client = client
        self.image = image
        self.prefix = f"reconciler-test-{uuid.uuid4().hex[:8]}"

    def container(self, name: str = "a", **settings: object) -> Container:
        return self.client.containers.create(
            self.image, ["sleep", "1000"], name=f"{self.prefix}-{name}", labels={"stage": self.prefix}, **settings
        )

    def clear(self) -> None:
        for item in self.client.containers.list(all=True, filters={"label": f"stage={self.prefix}"}):
            item.remove(force=True)


@pytest.fixture(params=["fake", "real"])
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    if request.param == "real":
        stage = Stage(request.getfixturevalue("engine"), request.getfixturevalue("small_image"))
        yield stage
        stage.clear()
        return
    fake = Docker()
    fake.add_image("base:local")
    fake.files = lambda _item, path: PASSWD if path == "/etc/passwd" else None
    said = ["sh", "-c", "echo hi; echo err >&2; exit 3"]
    fake.execute = lambda _item, command: Output(3, b"hi\n", b"err\n") if command == said else None
    with (
        Server(fake) as server,
        contextlib.closing(docker.DockerClient(base_url=server.url.replace("http://", "tcp://"))) as client,
    ):
        yield Stage(client, "base:local")


def refusal(call: object, *arguments: object, **settings: object) -> tuple[int, str]:
    with pytest.raises(docker.errors.APIError) as caught:
        call(*arguments, **settings)  # type: ignore[operator]
    return caught.value.status_code, caught.value.explanation


def test_what_is_missing(stage: Stage) -> None:
    client = stage.client
    assert refusal(client.containers.get, "nosuch") == (404, "No such container: nosuch")
    assert refusal(client.networks.get, "nosuch") == (404, "network nosuch not found")
    assert refusal(client.api.create_container, "nosuch") == (404, "No such image: nosuch:latest")
    assert refusal(client.api.exec_inspect, "nosuch")[0] == 404
    assert client.containers.list(filters={"label": "nosuch=1"}) == []


def test_the_beginning_of_an_id_is_taken_for_the_id(stage: Stage) -> None:
    made = stage.container()
    assert stage.client.containers.get(str(made.id)[:12]).name == made.name
    with pytest.raises(docker.errors.NotFound):
        stage.client.containers.get(str(made.name)[:-1])
    with pytest.raises(docker.errors.NotFound):
        stage.client.containers.get(str(made.name).upper())


def test_the_life_of_a_container(stage: Stage) -> None:
    made = stage.container(environment={"A": "x=y"})
    assert made.status == "created"
    assert refusal(stage.container)[0] == 409
    made.start()
    made.start()  # 304, which is no error
    made.reload()
    first = made.attrs["State"]["StartedAt"]
    assert (made.status, made.attrs["State"]["Running"], made.attrs["RestartCount"]) == ("running", True, 0)
    assert "A=x=y" in made.attrs["Config"]["Env"]
    assert refusal(made.remove)[0] == 409
    made.restart(timeout=0)
    made.reload()
    assert made.attrs["State"]["StartedAt"] > first
    made.stop(timeout=0)
    made.reload()
    assert (made.status, made.attrs["State"]["Running"]) == ("exited", False)
    assert refusal(made.exec_run, "true")[0] == 409
    assert refusal(made.rename, made.name)[0] == 400
    made.rename(f"{stage.prefix}-b")
    assert stage.client.containers.get(f"{stage.prefix}-b").id == made.id
    made.remove()
    assert refusal(stage.client.containers.get, made.id)[0] == 404


def test_a_variable_without_a_value_is_listed_by_its_name(stage: Stage) -> None:
    made = stage.container(environment=["A=1", "N"])
    made.reload()
    assert {"A=1", "N"} <= set(made.attrs["Config"]["Env"])


def test_programs_inside(stage: Stage) -> None:
    made = stage.container()
    made.start()
    said = made.exec_run(["sh", "-c", "echo hi; echo err >&2; exit 3"], demux=True)
    assert (said.exit_code, said.output) == (3, (b"hi\n", b"err\n"))
    missing = made.exec_run(["nosuchprogram"])
    assert missing.exit_code == 126
    assert b'exec: "nosuchprogram": executable file not found in $PATH' in missing.output


def test_files(stage: Stage) -> None:
    made = stage.container()
    chunks, stat = made.get_archive("/etc/passwd")
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
        member = archive.extractfile("passwd")
        assert member is not None
        assert member.read() == PASSWD
    assert (stat["name"], stat["size"]) == ("passwd", len(PASSWD))
    where = f"Could not find the file /nosuch in container {made.id}"
    assert refusal(made.get_archive, "/nosuch") == (404, where)


def test_a_file_that_is_put_there(stage: Stage) -> None:
    """Before it is started, as Compose does with the text of a config."""
    made, packed = stage.container(), io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        entry = tarfile.TarInfo("opt/new/c")
        entry.size = 3
        archive.addfile(entry, io.BytesIO(b"one"))
    assert made.put_archive("/", packed.getvalue())
    chunks, _ = made.get_archive("/opt/new/c")
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
        member = archive.extractfile("c")
        assert member is not None
        assert member.read() == b"one"


def test_what_is_paused(stage: Stage) -> None:
    made = stage.container()
    assert refusal(made.pause)[0] == 409
    made.start()
    made.pause()
    made.reload()
    assert (made.status, made.attrs["State"]["Running"], made.attrs["State"]["Paused"]) == ("paused", True, True)
    assert refusal(made.pause)[0] == 409
    made.unpause()
    assert refusal(made.unpause)[0] in (409, 500)
    made.reload()
    assert (made.status, made.attrs["State"]["Paused"]) == ("running", False)


@pytest.mark.parametrize(("accepted", "encoding"), [("gzip", "gzip"), ("gzip, deflate", "gzip"), ("identity", None)])
def test_l17_an_archive_is_compressed_for_who_takes_it(stage: Stage, accepted: str, encoding: str | None) -> None:
    made, api = stage.container(), stage.client.api
    url = f"{api.base_url}/v{api.api_version}/containers/{made.id}/archive"
    with api.get(url, params={"path": "/etc/passwd"}, headers={"Accept-Encoding": accepted}, stream=True) as response:
        assert response.headers.get("Content-Encoding") == encoding
        raw = response.raw.read()
    raw = gzip.decompress(raw) if encoding else raw
    with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
        assert archive.getnames() == ["passwd"]


def test_networks_give_addresses_to_what_runs(stage: Stage) -> None:
    network = stage.client.networks.create(f"{stage.prefix}-net", labels={"stage": stage.prefix})
    try:
        made = stage.container(network=network.name)
        made.reload()
        assert made.attrs["NetworkSettings"]["Networks"][network.name]["IPAddress"] == ""
        made.start()
        made.reload()
        mine = made.attrs["NetworkSettings"]["Networks"][network.name]
        network.reload()
        pool = network.attrs["IPAM"]["Config"][0]
        assert mine["Gateway"] == pool["Gateway"].partition("/")[0]
        assert network.attrs["Containers"][made.id]["IPv4Address"] == f"{mine['IPAddress']}/{mine['IPPrefixLen']}"
        assert made.id[:12] in mine["Aliases"]
        assert [item.name for item in stage.client.networks.list(filters={"label": f"stage={stage.prefix}"})] == [
            network.name
        ]
    finally:
        stage.clear()
        network.remove()
