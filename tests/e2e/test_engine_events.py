"""The engine's events, of the fake and of a real one alike, and who is woken by them."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import docker
import pytest

from reconciler.daemon.board import Bell
from reconciler.daemon.events import Watcher
from reconciler.daemon.state import Cause
from reconciler.docker import Client
from reconciler.simulator.docker import Docker
from reconciler.simulator.wire import Server

pytestmark = [pytest.mark.xdist_group("engine"), pytest.mark.long]

PROJECT = "com.docker.compose.project"


@dataclass
class Place:
    """An engine, how it is reached, and a name that begins all that is made there."""

    client: docker.DockerClient
    host: str
    image: str
    prefix: str
    fake: Docker | None = None

    def container(self, name: str = "a", **settings: Any) -> Any:
        labels = {"stage": self.prefix, **settings.pop("labels", {})}
        named = f"{self.prefix}-{name}"
        return self.client.containers.create(self.image, ["sleep", "1000"], name=named, labels=labels, **settings)


@pytest.fixture(params=["fake", "real"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    prefix = f"reconciler-test-{uuid.uuid4().hex[:8]}"
    if request.param == "real":
        client, image = request.getfixturevalue("engine"), request.getfixturevalue("small_image")
        yield Place(client, request.getfixturevalue("engine_host"), image, prefix)
        for item in client.containers.list(all=True, filters={"label": f"stage={prefix}"}):
            item.remove(force=True)
        for volume in client.volumes.list():
            if volume.name.startswith(prefix):
                volume.remove(force=True)
        return
    fake = Docker()
    fake.add_image("base:local")
    with Server(fake) as server:
        host = server.url.replace("http://", "tcp://")
        with contextlib.closing(docker.DockerClient(base_url=host)) as client:
            yield Place(client, host, "base:local", prefix, fake)
        assert server.crashes == []


@pytest.fixture
def engine_host(engine: docker.DockerClient) -> str:
    import os

    return os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"


class Ears:
    """A bell that counts."""

    def __init__(self) -> None:
        self.bell = Bell()

    def rung(self, seconds: float = 10.0) -> bool:
        return self.bell.wait(seconds) is Cause.ENGINE

    def quiet(self) -> None:
        while self.bell.wait(1.5) is not None:
            pass


@contextlib.contextmanager
def listening(place: Place, *names: str, project: str = "") -> Iterator[Ears]:
    ears = Ears()
    watcher = Watcher(place.host, ears.bell)
    watcher.watch([f"{place.prefix}-{name}" for name in names], project)
    watcher.start()
    try:
        eventually(lambda: watcher.listening)
        yield ears
    finally:
        began = time.monotonic()
        watcher.close()
        assert time.monotonic() - began < 1.0
        assert "engine-events" not in [thread.name for thread in threading.enumerate()]


def eventually(true: Any, seconds: float = 15.0) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.02)


# ---------------------------------------------------------------------------------------------------- what it tells
@contextlib.contextmanager
def told(place: Place, filters: dict[str, list[str]], **settings: object) -> Iterator[Iterator[dict[str, Any]]]:
    """The stream as it comes: the package would leave its socket open."""
    connection = http.client.HTTPConnection("localhost")
    connection.sock = Client(place.host, "").connect(5)
    connection.sock.settimeout(30)
    connection.request("GET", "/events?" + urlencode({"filters": json.dumps(filters), **settings}))
    with contextlib.closing(connection), connection.getresponse() as response:
        yield (json.loads(line) for line in response)
        connection.sock and connection.sock.shutdown(socket.SHUT_RDWR)


def listen(stream: Iterator[dict[str, Any]], heard: list[dict[str, Any]]) -> None:
    """Hear all that comes, until the line is cut: http.client stumbles over that in ways of its own."""
    with contextlib.suppress(AttributeError, ValueError, OSError, http.client.HTTPException):
        heard.extend(stream)


def live(place: Place) -> None:
    """One life of a container and its volume."""
    volume = f"{place.prefix}_v"
    made = place.container(volumes={volume: {"bind": "/v", "mode": "rw"}}, labels={"x": "y"})
    made.start()
    made.rename(f"{place.prefix}-b")
    made.restart(timeout=0)
    made.stop(timeout=0)
    made.start()
    made.remove(force=True)
    place.client.volumes.get(volume).remove()


def ours(place: Place, heard: list[dict[str, Any]]) -> list[tuple[str, str, str, str]]:
    found = []
    for event in heard[:]:
        said = event["Actor"]["Attributes"]
        if place.prefix in str(event):
            assert event["timeNano"] // 10**9 == event["time"]
            assert event["scope"] == "local"
            if event["Type"] == "container":
                assert (event["id"], event["status"]) == (event["Actor"]["ID"], event["Action"])
                assert (said["x"], said["image"]) == ("y", place.image)
            name = said.get("name") or event["Actor"]["ID"]
            found.append((event["Type"], event["Action"], name, said.get("oldName", "")))
    return found


def test_what_the_engine_tells_of_a_life(place: Place) -> None:
    asked = {
        "type": ["container", "volume"],
        "event": ["create", "start", "die", "destroy", "rename", "stop", "restart"],
    }
    heard: list[dict[str, Any]] = []
    with told(place, filters=asked) as stream:
        thread = threading.Thread(target=listen, args=(stream, heard))
        thread.start()
        live(place)
        volume = f"{place.prefix}_v"
        eventually(lambda: ("volume", "destroy", volume, "") in ours(place, heard))
    thread.join(5)
    assert not thread.is_alive()
    old, new = (f"{place.prefix}{end}" for end in ("-a", "-b"))
    assert ours(place, heard) == [
        ("volume", "create", f"{place.prefix}_v", ""),
        ("container", "create", old, ""),
        ("container", "start", old, ""),
        ("container", "rename", new, f"/{old}"),
        ("container", "die", new, ""),
        ("container", "stop", new, ""),
        ("container", "start", new, ""),
        ("container", "restart", new, ""),
        ("container", "die", new, ""),
        ("container", "stop", new, ""),
        ("container", "start", new, ""),
        ("container", "die", new, ""),
        ("container", "destroy", new, ""),
        ("volume", "destroy", f"{place.prefix}_v", ""),
    ]


def test_what_happened_since_a_time_is_told_again(place: Place) -> None:
    made = place.container()
    created = first_event(place, made.id, since=0)
    assert created["Action"] == "create"
    made.start()
    moment = created["timeNano"] + 1
    assert first_event(place, made.id, since=f"{moment // 10**9}.{moment % 10**9:09d}")["Action"] == "start"


def first_event(place: Place, container: str, **settings: Any) -> dict[str, Any]:
    filters = {"event": ["create", "start"], "type": ["container"]}
    with told(place, filters=filters, **settings) as events:
        return next(event for event in events if event["Actor"]["ID"] == container)


# --------------------------------------------------------------------------------------------------- who is woken
def test_what_happens_to_a_watched_container_rings(place: Place) -> None:
    made = place.container()
    with listening(place, "a") as ears:
        made.start()
        assert ears.rung()
        ears.quiet()
        made.rename(f"{place.prefix}-b")  # which takes the name away
        assert ears.rung()
        made.rename(f"{place.prefix}-a")
        ears.quiet()
        made.remove(force=True)
        assert ears.rung()
        ears.quiet()
        place.container().start()  # another one of that name
        assert ears.rung()


def test_a_project_rings_by_its_label_and_its_volumes(place: Place) -> None:
    made = place.container(labels={PROJECT: place.prefix})
    with listening(place, project=place.prefix) as ears:
        made.start()
        assert ears.rung()
        ears.quiet()
        place.client.volumes.create(f"{place.prefix}_data")
        assert ears.rung()
        ears.quiet()
        place.client.volumes.get(f"{place.prefix}_data").remove()
        assert ears.rung()


def test_others_ring_nothing_and_neither_does_looking(place: Place) -> None:
    mine = place.container()
    mine.start()
    with listening(place, "a", project=f"{place.prefix}-other") as ears:
        place.container("b", labels={PROJECT: "elsewhere"}).start()
        place.client.volumes.create(f"{place.prefix}_w")
        mine.reload()
        if place.fake is None:
            mine.exec_run(["true"])
            mine.get_archive("/bin/sh")
        assert not ears.rung(1.5)


@pytest.mark.parametrize("place", ["real"], indirect=True)  # the fake's health follows from the clock: no event
def test_a_health_check_rings_by_its_verdict_and_an_update_too(place: Place) -> None:
    made = place.container(healthcheck={"test": ["CMD", "true"], "interval": 10**9, "retries": 1})
    with listening(place, "a") as ears:
        made.start()
        assert ears.rung()
        assert ears.rung()  # healthy, a second later
        ears.quiet()  # and then again every second, which is nothing new
        made.update(cpu_shares=512)
        assert ears.rung()


def test_restarting_it_ourselves_makes_one_more_cycle(place: Place) -> None:
    made = place.container()
    made.start()
    ears, cycles = Ears(), 0
    watcher = Watcher(place.host, ears.bell)
    watcher.watch([f"{place.prefix}-a"])
    watcher.start()
    try:
        eventually(lambda: watcher.listening)
        ears.bell.ring(Cause.START)
        while ears.bell.wait(3.0) is not None:
            watcher.settled()
            cycles += 1
            if cycles == 1:
                made.restart(timeout=0)  # what a cycle does
                time.sleep(1.0)
        assert cycles == 2
    finally:
        watcher.close()
