"""`reconciler doctor` and what the mail server's container lives on: memory over a week, kills, and its disk."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docker
import pytest

from reconciler.checks.check import Status
from reconciler.doctor import week
from reconciler.targets.stalwart.container import Docker

from .stagefixtures import wait_for
from .test_doctor import BESIDE, Defect, World, bad, defect, told, world

__all__ = ["world"]
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
LIMIT = 256 << 20


def limited(world: World) -> None:
    world.mail.host["Memory"] = LIMIT


def used(*shares: float, now: float) -> Callable[[World], object]:
    """Let somebody have looked in these hours, the last one now: the engine told those shares of the limit."""

    def plant(world: World) -> None:
        limited(world)
        path = world.stack.data / "memory-mana.json"
        begun = time.time()
        for number, share in enumerate(shares):
            week.noted(path, world.mail.id, int(share * LIMIT), begun - (len(shares) - number) * week.HOUR)
        world.mail.memory = int(now * LIMIT)

    return plant


def killed(world: World) -> None:
    limited(world)
    world.open.callback(world.stack.stage.docker.end_streams)  # the engine remembers what happened
    world.stack.stage.docker.kill_for_memory(world.mail)
    world.stack.stage.docker.kill_for_memory(world.mail)


def disk(size: str, fill: int) -> Callable[[World], object]:
    """Put the server's volume on a small disk of its own, and fill it."""

    def plant(world: World) -> None:
        place = world.folder / "disk"
        place.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(place)], check=False).returncode:
            pytest.skip("may not mount a file system")
        world.open.callback(subprocess.run, ["umount", str(place)], check=True)
        (place / "mail").write_bytes(b"x" * fill)
        for mount in world.mail.mounts:
            if mount["Destination"] == "/var/lib/stalwart":
                mount["Source"] = str(place)

    return plant


DEFECTS: dict[str, Defect] = {
    "ended by the kernel and started again": defect(killed, "container/memory", "2 times"),
    "full at night": defect(used(0.2, 0.93, 0.2, now=0.2), "container/memory", "used 93% of its memory limit within"),
    "it grows": defect(used(*[0.2] * 30, now=0.6), "container/memory", "3.0 times what it usually did"),
    "a full disk": defect(disk("1m", 1 << 20), "container/disk", "is full"),
    "a disk that is nearly full": defect(disk("10m", int(9.7 * (1 << 20))), "container/disk", "is nearly full"),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_a_planted_defect_of_the_container_is_told_by_its_cause(world: World, name: str) -> None:
    planted = DEFECTS[name]
    planted.plant(world)
    found = world.examine("container")
    assert set(bad(found)) == {planted.check}
    assert planted.words in told(found, planted.check)
    assert found[planted.check].remedy.text


@pytest.mark.long
@pytest.mark.parametrize("name", DEFECTS)
def test_it_is_told_beside_two_others(world: World, name: str) -> None:
    rooms = [[item for item in BESIDE if BESIDE[item].check.startswith(room)] for room in ("dns/", "smtp/")]
    planted = [DEFECTS[name], *(BESIDE[names[list(DEFECTS).index(name) * 3]] for names in rooms)]
    for item in planted:
        item.plant(world)
    found = world.examine()
    for item in planted:
        assert item.check in bad(found), item.check
        assert item.words in told(found, item.check)


@pytest.mark.parametrize(
    "plant",
    [
        used(*[0.2] * 30, now=0.3),  # it goes up and down
        used(*[0.02] * 30, now=0.08),  # four times of next to nothing
        used(0.2, 0.2, now=0.6),  # too little is known
        disk("20m", 10 << 20),
    ],
)
def test_what_goes_up_and_down_is_no_alarm(world: World, plant: Callable[[World], object]) -> None:
    plant(world)
    found = world.examine("container")
    assert bad(found) == {}
    assert found["container/memory"].status in (Status.OK, Status.SKIP)


def test_what_is_known_of_a_week_is_bounded_and_another_containers_says_nothing(tmp_path: Path) -> None:
    path, now = tmp_path / "data" / "memory.json", 1_796_000_000.0
    for hour in range(400):
        found = week.noted(path, "one", 100 + hour, now + hour * week.HOUR)
    assert len(found) <= 24 * 7 + 1
    assert (found[-1].used, found[0].used) == (499, 499 - len(found) + 1)
    assert path.stat().st_mode & 0o077 == 0
    assert [item.used for item in week.noted(path, "one", 7, now + 399 * week.HOUR)][-1] == 499  # the most of an hour
    assert [item.used for item in week.noted(path, "another", 5, now + 399 * week.HOUR)] == [5]
    for damage in (b"{", b"[]", json.dumps({"container": "another", "hours": [["x", 1]]}).encode()):
        path.write_bytes(damage)
        assert [item.used for item in week.noted(path, "another", 5, now)] == [5]


@pytest.mark.long
def test_a_real_engine_tells_of_kills(engine: docker.DockerClient, small_image: str) -> None:
    command = ["/bin/busybox", "sh", "-c", "sleep 0.2; dd if=/dev/zero of=/dev/null bs=60M count=2; exit 3"]
    made: Any = engine.containers.run(
        small_image, command, detach=True, mem_limit="16m", restart_policy={"Name": "always"}
    )
    try:

        def kills() -> tuple[float, ...]:
            return Docker(made.name, os.environ.get("DOCKER_HOST")).condition()[1].kills

        wait_for(kills, 20)
        assert abs(kills()[-1] - dt.datetime.now(dt.UTC).timestamp()) < 60
    finally:
        made.remove(force=True, v=True)
