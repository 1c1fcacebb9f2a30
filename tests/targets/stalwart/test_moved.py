"""A moved image is seen coming, and named when it has come: by the container's image, log and mounts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from reconciler.problem import Severity
from reconciler.simulator.docker import CRASH_LOOPING, Image
from reconciler.simulator.docker import Docker as Engine
from reconciler.simulator.wire import Server
from reconciler.targets.stalwart.container import Container, Docker, Mount, floats, keeper, look
from reconciler.targets.stalwart.moved import pin, store_too_old, tag_moved
from reconciler.targets.stalwart.release import MOVER, PINS

LATEST = "stalwartlabs/stalwart:latest"
PRIOR = (
    "2026-11-28T10:00:00Z ERROR The data store was created by a Stalwart version prior to 1.0 (schema version 3) and "
    "cannot be opened by this version.\n"
)
FIRST = "Migration aborted: You must first upgrade to version 0.15, please read https://example.org/upgrading\n"
STORES = {
    "0.16 to 1.x": (PRIOR, ("/etc/stalwart", "/var/lib/stalwart"), "jmap"),
    "0.15 to 1.x": (FIRST, ("/opt/stalwart",), "rest"),
    "0.16 to the branch before 1.0": (FIRST, ("/var/lib/stalwart",), "jmap"),
}


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def docker(engine: Engine) -> Iterator[Docker]:
    with Server(engine) as server:
        yield Docker("mana-mail", server.url.replace("http://", "tcp://"))
        assert not server.crashes


def run(engine: Engine, *places: str, **more: Any) -> Any:
    mounts = [{"Type": "volume", "Name": f"v{index}", "Destination": path} for index, path in enumerate(places)]
    made = engine.run("mana-mail", LATEST, **more)
    made.mounts = mounts
    return made


@pytest.mark.parametrize("name", STORES)
def test_a_store_that_is_too_old_for_its_image_is_named(engine: Engine, docker: Docker, name: str) -> None:
    said, places, generation = STORES[name]
    engine.add_image(LATEST)
    engine.behaviours["mana-mail"] = CRASH_LOOPING
    run(engine, *places).logs = said.encode()
    problem = store_too_old(docker)
    assert problem is not None
    assert problem.severity is Severity.ERROR
    assert "ends at each start and serves no mail" in problem.summary
    assert f"stalwartlabs/stalwart:v{PINS[generation].name}` (known good on {PINS[generation].good})" in problem.hint
    assert "never to be emptied" in problem.hint
    assert (MOVER in problem.hint) is (generation == "jmap")


def test_what_a_server_prints_otherwise_is_no_such_store(engine: Engine, docker: Docker) -> None:
    engine.add_image(LATEST)
    run(engine).logs = b"Upgrading the store from version 0.15 was not needed\n"
    assert store_too_old(docker) is None
    assert store_too_old(None) is None
    assert store_too_old(Docker("another", docker.host)) is None


def test_a_tag_that_means_another_image_is_named_before_it_is_started(engine: Engine, docker: Docker) -> None:
    engine.add_image(LATEST)
    run(engine)
    assert tag_moved(look(docker).container, "jmap") is None
    labels = {"org.opencontainers.image.version": "1.0.1"}
    engine.images[LATEST] = Image(LATEST, "sha256:" + "1" * 64, {"Labels": labels}, ())
    problem = tag_moved(look(docker).container, "jmap")
    assert problem is not None
    assert problem.severity is Severity.WARNING
    assert "it is release 1.0.1 by now" in problem.summary
    engine.images[LATEST] = Image(LATEST, "sha256:" + "2" * 64, {}, ())
    assert re.search("it is the image of .* by now", str(tag_moved(look(docker).container, "rest")))
    del engine.images[LATEST]
    assert tag_moved(look(docker).container, "jmap") is None


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("stalwartlabs/stalwart", True),
        (LATEST, True),
        ("stalwartlabs/stalwart:v0.16", True),
        ("stalwartlabs/stalwart:v1", True),
        ("registry.example.org:5000/stalwart", True),
        ("stalwartlabs/stalwart:v0.16.18", False),
        ("stalwartlabs/stalwart:0.15.5-alpine", False),
        ("stalwartlabs/stalwart:latest@sha256:00", False),
    ],
)
def test_a_tag_of_less_than_three_numbers_floats(image: str, expected: bool) -> None:
    assert floats(Container("mana-mail", image)) is expected


@pytest.mark.parametrize("image", [LATEST, "stalwartlabs/stalwart", "stalwartlabs/stalwart:v1@sha256:00"])
def test_what_to_pin_is_named_with_its_day(image: str) -> None:
    found = pin(Container("mana-mail", image), "jmap")
    assert found == f"`image: stalwartlabs/stalwart:v{PINS['jmap'].name}` (known good on {PINS['jmap'].good})"


def test_whose_data_there_are_is_told_by_the_volumes() -> None:
    def container(*paths: str) -> Container:
        return Container("mana-mail", LATEST, mounts=tuple(Mount(path, "v", anonymous=False) for path in paths))

    assert keeper(container("/opt/stalwart")) == "rest"
    assert keeper(container("/opt/stalwart-mail")) == "rest"
    assert keeper(container("/var/lib/stalwart", "/etc/stalwart")) == "jmap"
    assert keeper(container()) == "jmap"
