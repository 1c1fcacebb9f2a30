"""A moved image is seen coming, and named when it has come: by the container's image, log and mounts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from reconciler.problem import Severity
from reconciler.simulator.docker import CRASH_LOOPING, Image
from reconciler.simulator.docker import Docker as Engine
from reconciler.simulator.wire import Server
from reconciler.targets.stalwart.container import Container, Docker, Mount, floats, keeper, look, pin
from reconciler.targets.stalwart.moved import store_refused, tag_moves
from reconciler.targets.stalwart.release import MOVER, PINS

LATEST = "stalwartlabs/stalwart:latest"
PRIOR = (
    "2026-11-28T10:00:00Z ERROR The data store was created by a Stalwart version prior to 1.0 (schema version {}) and "
    "cannot be opened by this version.\n"
)
FIRST = "Migration aborted: You must first upgrade to version 0.15, please read https://example.org/upgrading\n"
STEPS = "Migration aborted: Upgrading to version 0.16 is a multi-step process, please read https://example.org/\n"
NEWER = "Unknown database schema version, expected 5 or below, found 6\n"
SINCE_016 = ("/etc/stalwart", "/var/lib/stalwart")
STORES = {  # what is said, where the volumes are, and which generation made the store
    "0.16 to 1.x": (PRIOR.format(6), SINCE_016, "jmap"),
    "0.15 to 1.x": (PRIOR.format(5), SINCE_016, "rest"),
    "0.15 to 1.x, where no number is told": (PRIOR.replace(" (schema version {})", ""), ("/opt/stalwart",), "rest"),
    "0.15 to 0.16": (STEPS, SINCE_016, "rest"),
    "0.15 to the branch before 1.0": (FIRST, ("/etc/stalwart", "/opt/stalwart"), "rest"),
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
    made = engine.run("mana-mail", **{"image": LATEST, **more})
    made.mounts = mounts
    return made


def refused(engine: Engine, docker: Docker, said: str, *places: str, image: str = LATEST) -> str:
    engine.add_image(image)
    engine.behaviours["mana-mail"] = CRASH_LOOPING
    run(engine, *places, image=image).logs = said.encode()
    problem = store_refused(docker)
    assert problem is not None
    assert problem.severity is Severity.ERROR
    assert "ends at each start and serves no mail" in problem.summary
    assert "never to be emptied" in problem.hint
    return str(problem)


@pytest.mark.parametrize("name", STORES)
def test_a_store_that_is_too_old_for_its_image_is_named(engine: Engine, docker: Docker, name: str) -> None:
    said, places, generation = STORES[name]
    told = refused(engine, docker, said, *places)
    assert "which an older release made" in told
    assert f"stalwartlabs/stalwart:v{PINS[generation].name}` (known good on {PINS[generation].good})" in told
    assert (MOVER in told) is (generation == "jmap")


def test_a_store_of_a_newer_release_is_named_with_what_opens_it(engine: Engine, docker: Docker) -> None:
    told = refused(engine, docker, NEWER, "/opt/stalwart", image="stalwartlabs/stalwart:v0.15.5")
    assert "which a newer release made" in told
    assert f"stalwartlabs/stalwart:v{PINS['jmap'].name}` (known good" in told
    assert "To go on" not in told


def test_an_image_that_is_pinned_already_is_not_named_as_the_remedy(engine: Engine, docker: Docker) -> None:
    """A 0.16 says so of a store from before 0.15, and of one that 1.x made."""
    told = refused(engine, docker, FIRST, *SINCE_016, image="stalwartlabs/stalwart:v0.16.18")
    assert "(release 0.16) does not open its store, which another release made" in told
    assert "write the release that it ran before and start it" in told


def test_a_store_that_another_process_has_is_named_after_what_the_first_start_said(
    engine: Engine, docker: Docker
) -> None:
    """On the branch before 1.0 only the first start over a store of 0.16 tells why; all later ones say this."""
    later = "Startup failed: Failed to write node id to store: Another process modified the record\n"
    assert "which an older release made" in refused(engine, docker, FIRST + later * 3, *SINCE_016)
    engine.containers.clear()
    told = refused(engine, docker, later * 3, *SINCE_016)
    assert f"the image {LATEST} takes its store for another process's" in told
    assert "write the release that it ran before and start it" in told


def test_what_a_server_prints_otherwise_is_no_such_store(engine: Engine, docker: Docker) -> None:
    engine.add_image(LATEST)
    run(engine).logs = b"Upgrading the store from version 0.15 was not needed\n"
    assert store_refused(docker) is None
    assert store_refused(None) is None
    assert store_refused(Docker("another", docker.host)) is None


def test_a_tag_that_means_another_image_is_named_before_it_is_started(engine: Engine, docker: Docker) -> None:
    engine.add_image(LATEST)
    run(engine)
    assert tag_moves(look(docker).container, "jmap", lost=True) is None
    labels = {"org.opencontainers.image.version": "1.0.1"}
    engine.images[LATEST] = Image(LATEST, "sha256:" + "1" * 64, {"Labels": labels}, ())
    problem = tag_moves(look(docker).container, "jmap", lost=True)
    assert problem is not None
    assert problem.severity is Severity.WARNING
    assert "it is release 1.0.1 by now" in problem.summary
    engine.images[LATEST] = Image(LATEST, "sha256:" + "2" * 64, {}, ())
    assert re.search("it is the image of .* by now", str(tag_moves(look(docker).container, "rest", lost=True)))
    del engine.images[LATEST]
    assert tag_moves(look(docker).container, "jmap", lost=True) is None


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


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("stalwartlabs/stalwart", True),
        (LATEST, True),
        ("registry.example.org:5000/stalwart:edge", True),
        ("stalwartlabs/stalwart:v0.16", False),
        ("stalwartlabs/stalwart:v1", False),
        ("stalwartlabs/stalwart:0.15.5-alpine", False),
        ("stalwartlabs/stalwart:latest@sha256:00", False),
    ],
)
def test_a_tag_that_leads_to_another_line_one_day_is_named_while_all_is_well(image: str, expected: bool) -> None:
    container = Container("mana-mail", image)
    told = tag_moves(container, "jmap", lost=False)
    assert (told is not None) is expected
    assert tag_moves(container, "jmap", lost=True) is None, "its causes say so"
    if told is not None:
        repository = image.removesuffix(":latest").removesuffix(":edge")
        assert f"write `image: {repository}:v{PINS['jmap'].name}` (known good on {PINS['jmap'].good})" in told.hint
        labelled = replace(container, labels={"org.opencontainers.image.version": "1.0.1"})
        assert f"write `image: {repository}:v1.0.1`;" in str(tag_moves(labelled, "jmap", lost=False))


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
