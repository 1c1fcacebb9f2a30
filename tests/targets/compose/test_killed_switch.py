# ruff: noqa: F811 - the fixture is asked for by its name
"""A switch, killed at each of its steps: what is there then, or after the next run, is the old state or the new one.

`make explore` tries every step, a normal run one in four.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from reconciler.simulator.docker import CRASH_LOOPING, HEALTHY
from reconciler.simulator.wire import Reply, Request
from reconciler.target import Status
from reconciler.targets.compose.envfile import quote

from .test_compose import ENV, HOST, NOTIFY, PASSWORD, SECRETS, World, statuses, world  # noqa: F401 (a fixture)

pytestmark = pytest.mark.long

EVERYWHERE = os.environ.get("RECONCILER_PROPERTIES") == "explore"

CHILD = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[3:4]
from targets.compose.test_compose import *
from reconciler.targets.compose import Compose
folder = Path(sys.argv[1])
target = Compose(
    file=folder / "docker-compose.macmini.yml", env_file=folder / ".env.macmini", project=None, stack="mana",
    program=sys.argv[4:], docker_host=sys.argv[2], patience=Patience(ready=0.5, settle=0.2, pause=0.05),
)
seen = target.observe([HOST, PASSWORD], reveal)
list(target.apply(diff(Desired([HOST, PASSWORD]), {"compose": seen}, stack="mana").changes, reveal))
"""
TESTS = Path(__file__).parents[2]


class Axe:
    """Counts what is written to the engine, and kills a process at one of the writes, before it or behind it."""

    def __init__(self, world: World, at: int | None = None, *, behind: bool = False) -> None:
        self.world, self.at, self.behind, self.count = world, at, behind, 0
        self.fake, self.lock = world.server.fake, threading.Lock()
        self.child: subprocess.Popen[bytes] | None = None

    def __call__(self, request: Request) -> Reply:
        writes = request.method in ("POST", "DELETE") and "/exec" not in request.path
        with self.lock:
            falls = writes and self.count == self.at
            self.count += writes
        if falls and not self.behind:
            self.kill()
        answer: Reply = self.fake(request)
        if falls and self.behind:
            self.kill()
        return answer

    def kill(self) -> None:
        assert self.child is not None
        self.child.send_signal(signal.SIGKILL)
        self.child.wait()

    def run(self) -> int:
        """Run a switch in a process of its own; return how often something was written."""
        world = self.world
        command = [sys.executable, "-c", CHILD, str(world.directory), world.docker_host, str(TESTS), *world.program]
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)])}
        world.server.fake = self
        try:
            with subprocess.Popen(command, env=environ, stderr=subprocess.PIPE) as self.child:
                _, said = self.child.communicate()
                assert self.child.returncode == (0 if self.at is None else -signal.SIGKILL), said.decode()
        finally:
            world.server.fake = self.fake
        return self.count


def settled(world: World) -> dict[str, Any]:
    """Return what there is: each container's name, whether it runs, and its variables."""
    return {
        item.name: (item.running, dict(item.environment), sorted(item.endpoints))
        for item in world.engine.containers.values()
    }


def begin(world: World, kind: str) -> None:
    world.engine.containers.clear()
    world.env_file.write_text(ENV)
    world.up()
    if kind == "is stopped":
        url = world.docker_host.replace("tcp://", "http://")
        urllib.request.urlopen(urllib.request.Request(f"{url}/containers/{NOTIFY}/stop", method="POST")).close()
    if kind == "file is right":
        values = {"SMTP_HOST": "smtp-relay.brevo.com", "SMTP_PASSWORD": SECRETS["NEW"]}
        world.env_file.write_text(ENV + "".join(f"{name}={quote(value)}\n" for name, value in values.items()))


KINDS = ("comes up", "goes back", "is stopped", "file is right")


@pytest.mark.parametrize("kind", KINDS)
def test_a_switch_that_is_killed_ends_in_the_old_or_the_new_state(world: World, kind: str) -> None:
    crashes = kind == "goes back"
    begin(world, kind)
    if crashes:
        world.engine.script = lambda it: (
            CRASH_LOOPING if it.environment.get("SMTP_HOST") == "smtp-relay.brevo.com" else HEALTHY
        )
    old = settled(world)
    writes = Axe(world).run()
    final = settled(world)
    assert (final == old) == crashes
    text = world.env_file.read_text()
    places = [(number, behind) for number in range(writes) for behind in (False, True)]
    for number, behind in places if EVERYWHERE else places[KINDS.index(kind) :: 4]:
        begin(world, kind)
        others = {name: key for name, key in world.ids().items() if name != NOTIFY}
        Axe(world, number, behind=behind).run()
        why = f"killed {'behind' if behind else 'before'} write {number} of {writes}"
        outcomes = world.apply(HOST, PASSWORD)  # the next run
        assert statuses(outcomes) <= {Status.FAILED if crashes else Status.DONE}, why
        assert settled(world) == final, why
        assert {name: key for name, key in world.ids().items() if name != NOTIFY} == others, why
        assert world.env_file.read_text() == text, why
        assert SECRETS["NEW"] not in repr(outcomes)
