"""The daemon for a long time, with faults at random: it ends as desired, and nothing of it grows or is left behind.

100 cycles in a normal run; `make soak` runs 500, with either generation of Stalwart.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from reconciler.simulator.wire import Fault, Reply

from .stagefixtures import Stack, wait_for

pytestmark = pytest.mark.long

CYCLES = int(os.environ.get("RECONCILER_SOAK", "100"))
WARM = 50  # cycles after which nothing grows any more
GENERATIONS = ["applied", "newer_applied"] if CYCLES > 100 else ["applied"]


@dataclass(frozen=True, slots=True)
class Held:
    """What a process holds, and the files of its stack."""

    kilobytes: int
    descriptors: int
    threads: int
    children: int
    files: frozenset[str]


def ends_the_others(child: str) -> bool:
    """Whether this is the one shell that stays, to end whatever is at work when the daemon is killed."""
    try:
        return b"while read -r sign group" in Path(f"/proc/{child}/cmdline").read_bytes()
    except FileNotFoundError:
        return False


class Daemon:
    """A daemon in a process of its own, whose log tells its cycles."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.log = stack.folder / "daemon.log"
        command = [sys.executable, "-m", "reconciler", "daemon", "--log", "json", "--interval", "1s"]
        with self.log.open("wb") as file:
            self.process = subprocess.Popen(
                [*command, "--listen", f"127.0.0.1:{self.port}"],
                env=stack.environ(),
                cwd=stack.example.path,
                stdout=file,
                stderr=file,
                stdin=subprocess.DEVNULL,
            )

    def cycles(self) -> list[dict[str, object]]:
        lines = [line for line in self.log.read_text().splitlines() if line.endswith('"msg": "cycle"}')]
        return [json.loads(line) for line in lines]

    def after(self, number: int) -> dict[str, object]:
        """Return how a cycle ended, as soon as it has."""

        def ended() -> bool:
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            return len(self.cycles()) >= number

        wait_for(ended, 90)
        return self.cycles()[number - 1]

    def calm(self) -> None:
        """Let it come to rest: asked again, it finds nothing to do."""
        for server in self.stack.stage.servers:
            server.faults.clear()
        for _ in range(6):
            number = len(self.cycles())
            self.process.send_signal(signal.SIGHUP)
            if self.after(number + 2)["result"] == "nothing":  # one may have been under way
                return
        raise AssertionError(self.log.read_text()[-3000:])

    def held(self) -> Held:
        root = Path(f"/proc/{self.process.pid}")
        status = dict(line.split(":", 1) for line in (root / "status").read_text().splitlines())
        children = (root / "task" / str(self.process.pid) / "children").read_text().split()
        children = [child for child in children if not ends_the_others(child)]
        folders = (self.stack.example.path, self.stack.scratch)
        files = frozenset(str(path) for folder in folders for path in folder.rglob("*"))
        return Held(
            int(status["VmRSS"].split()[0]),
            len(list((root / "fd").iterdir())),
            int(status["Threads"]),
            len(children),
            files,
        )

    def at_rest(self) -> Held:
        """Return what it holds between two cycles: children, and files not in their place yet, end with theirs."""
        seen: list[Held] = []

        def rests() -> bool:
            seen.append(self.held())
            return not seen[-1].children and not any("/.new-" in name for name in seen[-1].files)

        wait_for(rests, 30)
        return seen[-1]

    def close(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(40)
        finally:
            self.process.kill()


@pytest.fixture
def daemon(request: pytest.FixtureRequest) -> Iterator[Daemon]:
    if not Path("/proc/self/status").exists():
        pytest.skip("what a process holds is read from /proc")
    stack: Stack = request.getfixturevalue(request.param)
    made = Daemon(stack)
    yield made
    made.process.kill()
    made.process.wait()


# --------------------------------------------------------------------------------------------------------- bad luck
class Luck:
    """What happens before a cycle; the same each time, by its seed."""

    def __init__(self, stack: Stack) -> None:
        self.stack, self.dice = stack, random.Random(12)
        self.chances: list[Callable[[], None]] = [
            *[lambda: None] * 4,
            lambda: self.unwell(lose=True),
            lambda: self.unwell(refuse=True),
            lambda: self.unwell(delay=0.3),
            lambda: self.unwell(reply=Reply.of({"error": "broken"}, 500)),
            lambda: self.unwell(reply=Reply.of({"success": False, "errors": []}, 429, Retry_After="1")),
            self.engine_restarts,
            self.drift,
            self.loss_of_a_record,
            self.wipe,
        ]

    def strike(self) -> None:
        self.dice.choice(self.chances)()

    def unwell(self, **fault: object) -> None:
        server = self.dice.choice(self.stack.stage.servers[:3])
        times, after = self.dice.randint(1, 3), self.dice.randint(0, 4)
        server.faults.append(Fault(times=times, after=after, **fault))  # type: ignore[arg-type]

    def engine_restarts(self) -> None:
        self.stack.stage.docker_server.faults.append(Fault(times=6, refuse=True))

    def drift(self) -> None:
        record = self.dice.choice([item for item in self.stack.marked() if item["type"] in ("A", "TXT")])
        content = f"192.0.2.{self.dice.randint(1, 99)}" if record["type"] == "A" else '"changed by hand"'
        self.stack.stage.cloudflare.edit("mana.how", record["id"], content=content)

    def loss_of_a_record(self) -> None:
        self.stack.stage.cloudflare.remove("mana.how", self.dice.choice(self.stack.marked())["id"])

    def wipe(self) -> None:
        self.stack.stage.docker_server.faults.clear()  # a person's Compose is not what is tried here
        self.stack.stage.recreate_mail_server()


def lasting(stack: Stack) -> dict[str, object]:
    """Return what there is, but for what a server that was wiped makes for itself and what it lost of others."""
    found = stack.meaning()
    return {name: found[name] for name in ("records", "containers", "env", "listeners", "signing")}


@pytest.mark.parametrize("daemon", GENERATIONS, indirect=True)
def test_after_many_cycles_all_is_as_desired_and_nothing_has_grown(daemon: Daemon) -> None:
    stack, luck = daemon.stack, Luck(daemon.stack)
    stack.watch.server_lost = True
    stack.watch.touched |= {"mana-mail", "mana-core-auth"}
    final, warm = lasting(stack), None
    for number in range(1, CYCLES + 1):
        daemon.after(number)
        if number == WARM:
            daemon.calm()
            warm = daemon.at_rest()
        luck.strike()
        if luck.dice.random() < 0.7:
            daemon.process.send_signal(signal.SIGHUP)
    daemon.calm()
    end = daemon.at_rest()
    assert warm is not None
    assert lasting(stack) == final
    stack.expect(0, "plan", "--detailed-exitcode")
    assert end.kilobytes < 1.05 * warm.kilobytes
    assert end.descriptors <= warm.descriptors + 4, "some connections are kept"
    assert end.threads <= warm.threads + 2
    assert end.files == warm.files
    assert daemon.close() == 143
    text = daemon.log.read_text()
    assert "this is a bug" not in text
    assert "Traceback" not in text
    assert not [name for name, value in stack.secrets.items() if value in text]
