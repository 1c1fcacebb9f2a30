"""The daemon: what it holds, what its cycles cost, how soon a lost server is back, and how soon a push is applied."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from cost import Cost, Run
from fakes import Remote, Stack
from goals import Goal, Row, wall_under, writes

TOKEN = "of-the-bench"
WARM, MEASURED = 20, 40  # cycles
LATENCY = 0.02  # seconds
STARTING = 3.0  # seconds that a mail server with an empty volume takes to start
GENERATIONS = {"rest": ("Stalwart 0.15", 3), "jmap": ("Stalwart 0.16", 1)}  # and the requests a cycle may make there
PATIENCE = 120.0  # seconds for anything that is waited for
_TICK = os.sysconf("SC_CLK_TCK")
_LOOK = 0.005  # seconds between two looks at the log


@dataclass(frozen=True, slots=True)
class Held:
    """What a process holds and has used: bytes that are resident, seconds of CPU of its own and of its children."""

    resident: int
    own: float
    children: float


class Daemon:
    """One that runs, seen from outside: its log, `/proc`, and its page's address."""

    def __init__(self, folder: Path, environment: Mapping[str, str], *words: str) -> None:
        shutil.rmtree(folder / "data", ignore_errors=True)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._listen = f"127.0.0.1:{free.getsockname()[1]}"
        self._log = folder / "daemon.log"
        command = [sys.executable, "-m", "reconciler", "daemon", "--log", "json", "--listen", self._listen, *words]
        with self._log.open("wb") as log:
            given = {**environment, "RECONCILER_TOKEN": TOKEN}
            self._process = subprocess.Popen(command, cwd=folder, env=given, stdin=subprocess.DEVNULL, stderr=log)

    def cycles(self) -> list[dict[str, Any]]:
        """Return what its log says of each cycle."""
        lines = (json.loads(line) for line in self._log.read_text().splitlines() if line.endswith("}"))
        return [line for line in lines if line.get("msg") == "cycle"]

    def wait(self, what: str, found: Callable[[list[dict[str, Any]]], object]) -> list[dict[str, Any]]:
        """Wait for its cycles to be so, and return them. Ends the program where they never are."""
        until = time.monotonic() + PATIENCE
        while not found(cycles := self.cycles()):
            if time.monotonic() > until or self._process.poll() is not None:
                sys.exit(f"the daemon: {what}\n{self._log.read_text()[-3000:]}")
            time.sleep(_LOOK)
        return cycles

    def poke(self) -> None:
        """Do what a hook of a repository does."""
        head = {"Authorization": f"Bearer {TOKEN}"}
        asked = urllib.request.Request(f"http://{self._listen}/reconcile", b"", head, method="POST")
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(asked, timeout=10):
            pass

    def settle(self) -> None:
        """Wait until a cycle that begins now, or was about to, finds nothing to do."""
        self.wait("does not begin", len)
        self.poke()
        known = len(self.cycles())
        self.wait("does not settle", lambda found: len(found) > known and found[-1]["result"] == "nothing")

    def held(self) -> Held:
        """Look at what it holds now."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        ticks = [int(item) / _TICK for item in fields[11:15]]
        resident = int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
        return Held(resident, ticks[0] + ticks[1], ticks[2] + ticks[3])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(60)
        finally:
            self._process.kill()


# ----------------------------------------------------------------------------------------------------------- the rows
def rows(root: Path, folder: Path, environment: Callable[..., dict[str, str]], runs: int) -> Iterator[Row]:
    """Measure all tasks with both generations of the mail server; ``environment`` makes a child's."""
    for generation in GENERATIONS:
        place = folder / f"daemon-{generation}"
        with Remote(Stack, root / "tests" / "example", place, generation) as stack:
            bench = Bench(stack, generation, place, environment(**stack.call("environment")), runs)
            bench.apply()
            yield bench.cycles()
            yield bench.restore()
            if generation == "rest":
                yield bench.push()


@dataclass(frozen=True, slots=True)
class Bench:
    """The example on its stage, in a folder of its own, after its first apply."""

    stack: Remote
    generation: str
    place: Path
    environment: Mapping[str, str]
    runs: int

    def apply(self) -> None:
        """Make all as desired."""
        command = [sys.executable, "-m", "reconciler", "apply", "--yes", *self.state]
        subprocess.run(command, cwd=self.place, env=self.environment, stdout=subprocess.DEVNULL, check=True)

    @property
    def state(self) -> tuple[str, str]:
        """How a command is told which directory of YAML it is."""
        return "--state", str(self.place / "desired-state")

    def daemon(self, *words: str) -> Daemon:
        """Start one over this stack."""
        return Daemon(self.place, self.environment, *self.state, *words)

    # -------------------------------------------------------------------------------------------------- the three rows
    def cycles(self) -> Row:
        """Measure cycles in which nothing has changed, one a second, and what is held before and after."""
        name, most = GENERATIONS[self.generation]
        _tell(f"the daemon, {name}: cycles without change")
        self.stack.call("reset", 0.0)
        with self.daemon("--interval", "1s") as daemon:
            daemon.wait("is not settled", lambda found: len(found) >= WARM and found[-1]["result"] == "nothing")
            began, number = daemon.held(), len(daemon.cycles())
            self.stack.call("reset", 0.0)
            found = daemon.wait("its cycles do not go on", lambda found: len(found) >= number + MEASURED)
            counts, ended = self.stack.call("counted"), daemon.held()
        cycles = found[number : number + MEASURED]
        if {item["result"] for item in cycles} != {"nothing"}:
            sys.exit(f"the daemon found something to do where nothing had changed: {cycles}")
        own, children = ((getattr(ended, side) - getattr(began, side)) / MEASURED for side in ("own", "children"))
        runs = tuple(Run(item["duration_ms"] / 1000, own, ended.resident, "", "") for item in cycles)
        each = {system: math.ceil(sum(counted) / MEASURED) for system, counted in counts.items()}
        written = math.ceil(sum(counted[1] for counted in counts.values()) / MEASURED)
        growth = ended.resident / began.resident - 1
        requests = ", ".join(f"{system} {number}" for system, number in each.items())
        children_said = f"beside it {children:.2f} s of CPU of children"
        return Row(
            f"daemon, {name}, a cycle without change",
            Cost(runs, sum(each.values()) - written, written),
            note=f"{requests}; {children_said}; memory {growth * 100:+.1f} % in {MEASURED} cycles",
            goals=(
                Goal(f"at most {most} + 1 + 1 requests", lambda _: tuple(each.values()) <= (most, 1, 1)),
                writes(0),
                Goal("under 0.1 s of its own CPU", lambda row: row.ours.cpu < 0.1),
                Goal("memory under 85 MB", lambda row: row.ours.peak < 85),
                Goal("memory does not grow", lambda _: growth < 0.01),
            ),
        )

    def restore(self) -> Row:
        """Measure from when a mail server that has lost its volume answers to when all is as desired, and proven."""
        name, _ = GENERATIONS[self.generation]
        _tell(f"the daemon, {name}: a lost volume")
        with self.daemon("--interval", "1h") as daemon:
            daemon.settle()
            cost = self._measured(daemon, lambda _: float(self.stack.call("lose", STARTING)))
        return Row(f"daemon, {name}, lost, restored and proven", cost, latency=LATENCY, goals=(wall_under(2),))

    def push(self) -> Row:
        """Measure from the end of a push, told by a hook, to when it is applied and proven."""
        _tell("the daemon: a push")
        repository, work = self.place / "mail.git", self.place / "work"
        _git(self.place, "init", "-q", "--bare", "-b", "main", str(repository))
        _git(self.place, "clone", "-q", str(repository), str(work))
        for name in ("desired-state", "secrets"):
            shutil.copytree(self.place / name, work / name)
        zone = work / "desired-state" / "dns.yaml"

        def push(number: int) -> float:
            zone.write_text(zone.read_text().replace(_address(number), _address(number + 1)))
            _push(work)
            pushed = time.time()
            daemon.poke()
            return pushed

        _push(work)
        with self.daemon("--interval", "1h", "--repo", str(repository)) as daemon:
            daemon.settle()
            cost = self._measured(daemon, push)
        name = "daemon, a push that a hook tells of, applied and proven"
        return Row(name, cost, latency=LATENCY, goals=(wall_under(10),))

    def _measured(self, daemon: Daemon, happens: Callable[[int], float]) -> Cost:
        """Let something happen, which tells when it has, and wait until a cycle has mended or applied it."""
        measured, reads, written = [], 0, 0
        for number in range(self.runs):
            before, known = daemon.held(), len(daemon.cycles())
            self.stack.call("reset", LATENCY)
            began = happens(number)
            daemon.wait("does nothing about it", lambda found, known=known: any(map(_is_done, found[known:])))  # type: ignore[misc]
            wall, after = time.time() - began, daemon.held()
            measured.append(Run(wall, after.own - before.own, after.resident, "", ""))
            counts = self.stack.call("counted").values()
            reads = max(reads, sum(counted[0] for counted in counts))
            written = max(written, sum(counted[1] for counted in counts))
            self.stack.call("reset", 0.0)
            daemon.settle()
        return Cost(tuple(measured), reads, written)


def _is_done(cycle: Mapping[str, Any]) -> bool:
    return cycle["result"] == "done" and not cycle["pending"]


def _address(number: int) -> str:
    """Return the mail server's address after so many pushes; the first is the example's."""
    return f"194.191.241.{139 + number}"


def _push(work: Path) -> None:
    for words in (("add", "-A"), ("commit", "-qm", "a change"), ("push", "-q", "origin", "HEAD:main")):
        _git(work, *words)


def _git(folder: Path, *words: str) -> None:
    named = ("-c", "user.name=bench", "-c", "user.email=bench@example.com")
    subprocess.run(["git", *named, *words], cwd=folder, check=True)


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
