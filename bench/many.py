"""A fleet: what a cycle costs a worker, what a second worker adds, what it holds, and how soon a push is everywhere.

The stacks are the tests' estate (`tests/fleet/estate.py`): their fakes run in a process of their own, on the same
machine as the workers and PostgreSQL, so all of them share its cores.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cost import Cost, Run
from fakes import Remote
from goals import Goal, Row

STACKS, PUSHED = 1000, 200
LATENCY = 0.02  # seconds
CYCLES = 200  # that are measured
PATIENCE = 1800.0  # seconds for anything that is waited for
OVERHEAD = 400  # jobs without a cycle in them
HEAD = "interval: 7d\npoll: 1s\nlease: 1m\nrequests: 1000000\nrings: [{}, {}]\n"
_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Estates:
    """The stacks' systems and their repository, in a process of their own."""

    def __init__(self, root: Path, folder: Path, number: int) -> None:
        # A module of the bench would be taken for the tests' folder of the same name.
        sys.path[:] = [str(root / "tests"), *(item for item in sys.path if Path(item) != Path(__file__).parent)]
        sys.modules.pop("daemon", None)
        from fleet.estate import Estate

        folder.mkdir(parents=True)
        self.names = [f"s{at:04}" for at in range(number)]
        self.estate = Estate(folder, self.names).start()

    def inventory(self, pushed: int) -> None:
        """Write it; so many stacks are in ring 0."""
        entries = (f"  {name}: {{ring: {int(at >= pushed)}}}\n" for at, name in enumerate(self.names))
        self.estate.inventory(HEAD, "".join(entries))

    def latency(self, seconds: float) -> None:
        """Add it to every answer."""
        self.estate.stalwart.latency = self.estate.dns.latency = seconds

    def push(self, number: int, address: str) -> None:
        """Commit another address of the first stacks' mail hosts."""
        self.estate.commit(dict.fromkeys(self.names[:number], address))

    def applied(self, number: int, address: str) -> int:
        """Count the first stacks that have it."""
        return sum(self.estate.address(name) == address for name in self.names[:number])

    def close(self) -> None:
        """Stop serving."""
        self.estate.stop()


@dataclass(frozen=True, slots=True)
class Held:
    """What a worker's process has used and holds: seconds of CPU with its children's, bytes that are resident."""

    cpu: float
    resident: int


class Worker:
    """One that runs."""

    def __init__(self, folder: Path, environment: Mapping[str, str], name: str, at_once: int) -> None:
        inventory = str(folder / "estate" / "fleet.yaml")
        words = ("fleet", "work", "--log", "json", "--at-once", str(at_once), "--inventory", inventory)
        command = [sys.executable, "-m", "reconciler", *words, "--data", str(folder / name)]
        self._log = (folder / f"{name}.log").open("ab")
        self.process = subprocess.Popen(command, env=environment, stdout=self._log, stderr=self._log)

    def held(self) -> Held:
        """Look at it now."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return Held(sum(int(item) for item in fields[11:15]) / _TICK, int(fields[21]) * _PAGE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(120)
        finally:
            self.process.kill()
            self._log.close()


class Bench:
    """One fleet on a database of its own."""

    def __init__(self, exits: ExitStack, root: Path, folder: Path, environment: Callable[..., dict[str, str]]) -> None:
        sys.path.insert(0, str(root / "tests"))
        from fleet.cluster import Cluster, binaries

        from reconciler.fleet import database
        from reconciler.fleet.table import Table

        programs = binaries()
        assert programs is not None, "asked before"
        self.cluster = Cluster(programs)
        exits.callback(self.cluster.close)
        self.conninfo = self.cluster.database()
        self.pool = exits.enter_context(database.pool(self.conninfo, 4))
        database.init(self.pool)
        self.table, self.folder = Table(self.pool), folder
        self.estates = exits.enter_context(Remote(Estates, root, folder / "estate", STACKS))
        self.estates.call("inventory", PUSHED)
        more = {"RECONCILER_DATABASE": self.conninfo, "RECONCILER_FLEET_SECRETS": str(folder / "estate" / "secrets")}
        self.environment = environment(**more)

    def worker(self, name: str, at_once: int = 1) -> Worker:
        """Begin one."""
        return Worker(self.folder, self.environment, name, at_once)

    def ended(self) -> int:
        """Count the cycles that have ended."""
        with self.pool.connection() as at:
            found = at.execute("SELECT count(ended) AS number FROM fleet_runs").fetchone()
        return int(found["number"]) if found else 0

    def wait(self, what: str, holds: Callable[[], bool]) -> None:
        """Wait until something holds, or end the program."""
        until = time.monotonic() + PATIENCE
        while not holds():
            if time.monotonic() > until:
                sys.exit(f"the fleet: {what}")
            time.sleep(0.02)

    def due(self, number: int) -> None:
        """Have so many stacks looked at now, none of which has anything to do."""
        with self.pool.connection() as at:
            at.execute("DELETE FROM fleet_runs")
            at.execute(
                """UPDATE fleet_stacks SET due = clock_timestamp(), wait = 0, cause = 'interval'
                WHERE name IN (SELECT name FROM fleet_stacks ORDER BY name LIMIT %s)""",
                (number,),
            )

    def all_well(self) -> bool:
        """Whether all stacks are as desired."""
        with self.pool.connection() as at:
            found = at.execute("SELECT count(*) AS number FROM fleet_stacks WHERE state = 'in_sync'").fetchone()
        return bool(found and found["number"] == STACKS)

    # -------------------------------------------------------------------------------------------------------- the rows
    def held(self) -> Row:
        """Apply all stacks once, and look what the worker holds that has seen them."""
        with self.worker("first", 4) as worker:
            began = time.monotonic()
            self.wait("the first applies do not end", self.all_well)
            wall, held = time.monotonic() - began, worker.held()
        run = Run(wall / STACKS, held.cpu / STACKS, held.resident, "", "")
        goal = Goal("resident under 150 MB", lambda row: row.ours.peak < 150)
        return Row(f"fleet: first apply of a stack, of {STACKS:,} by one worker", Cost((run,)), goals=(goal,))

    def cycles(self, workers: int) -> tuple[float, Held]:
        """Run cycles without a change by so many workers; return how many a second there were, and what one cost."""
        with ExitStack() as exits:
            running = [exits.enter_context(self.worker(f"cycle{at}")) for at in range(workers)]
            self.due(20 * workers)
            self.wait("no cycle ends", lambda: self.ended() >= 20 * workers)
            before = [item.held().cpu for item in running]
            began = time.monotonic()
            self.due(CYCLES)
            self.wait("cycles do not end", lambda: self.ended() >= CYCLES)
            seconds = time.monotonic() - began
            after = [item.held() for item in running]
        cpu = sum(item.cpu for item in after) - sum(before)
        return CYCLES / seconds, Held(cpu / CYCLES, max(item.resident for item in after))

    def overhead(self) -> Row:
        """Pass jobs through that run no cycle: what the engine and the table cost of each."""
        from reconciler.fleet.engine import Engine, Queue
        from reconciler.fleet.table import Ended, queues

        done, queue = 0, Queue(self.table)

        def turn(name: str) -> None:
            nonlocal done
            row = self.table.claim(name, "bench")
            assert row is not None
            self.table.holds(row)
            self.table.end(row, Ended("nothing", "in_sync", 1e6, "interval", tried=row.tried))
            done += 1

        self.due(OVERHEAD)
        while queue.fill():  # so many at a time
            pass
        began, cpu = time.monotonic(), time.process_time()
        working = Engine(queue, self.conninfo, turn, queues(["default"], "bench"), 1, 60.0)
        working.run(lambda: done >= OVERHEAD)
        run = Run((time.monotonic() - began) / OVERHEAD, (time.process_time() - cpu) / OVERHEAD, 0, "", "")
        goal = Goal("under 20 ms", lambda row: row.ours.wall < 0.02)
        return Row("fleet: the queue's and the table's share of a cycle", Cost((run,)), goals=(goal,))

    def push(self) -> Row:
        """Push to many stacks of one ring, and wait until the last is proven."""
        with ExitStack() as exits:
            running = [exits.enter_context(self.worker(f"push{at}", 4)) for at in range(2)]
            self.due(8)
            self.wait("no cycle ends", lambda: self.ended() >= 8)
            before = sum(item.held().cpu for item in running)
            self.estates.call("push", PUSHED, "198.51.100.7")
            began = time.monotonic()
            self.wait("a push is not applied", lambda: self.estates.call("applied", PUSHED, "198.51.100.7") == PUSHED)
            self.wait("a push is not proven", self.all_well)
            wall, after = time.monotonic() - began, [item.held() for item in running]
        cpu, resident = sum(item.cpu for item in after) - before, max(item.resident for item in after)
        run = Run(wall, cpu, resident, "", "")
        return Row(f"fleet: a push to {PUSHED} stacks, until the last is proven", Cost((run,)), latency=LATENCY)


def rows(root: Path, folder: Path, environment: Callable[..., dict[str, str]]) -> Iterator[Row]:
    """Measure all of it; nothing where PostgreSQL is missing."""
    sys.path.insert(0, str(root / "tests"))
    from fleet.cluster import binaries

    if binaries() is None:
        print("the fleet is not measured: PostgreSQL 15 is missing", file=sys.stderr)
        return
    place = folder / "fleet"
    place.mkdir()
    with ExitStack() as exits:
        bench = Bench(exits, root, place, environment)
        yield bench.held()
        bench.estates.call("latency", LATENCY)
        speeds = {}
        for workers in (1, 2):
            speed, held = bench.cycles(workers)
            speeds[workers] = speed
            run = Run(1 / speed, held.cpu, held.resident, "", "")
            words = f"fleet: a cycle without change, {workers} worker{'s' * (workers > 1)} at one stack each"
            linear = Goal("twice one's within 15 %", lambda _: speeds[2] >= 0.85 * 2 * speeds[1])
            goals = (linear,) if workers > 1 else ()
            yield Row(f"{words}: {speed:.1f} a second", Cost((run,)), latency=LATENCY, goals=goals)
        yield bench.push()
        bench.estates.call("latency", 0.0)
        yield bench.overhead()


def on_paper(found: Sequence[Row]) -> Iterator[str]:
    """Say what 5,000 stacks, each looked at every 5 minutes, need by these figures."""
    cycles = [row for row in found if row.task.startswith("fleet: a cycle without change, 1 worker")]
    if not cycles:
        return
    cost, needed = cycles[0].ours, 5000 / 300
    waiting, busy = needed * cost.wall, needed * cost.cpu
    yield (
        f"5,000 stacks, each every 5 minutes, are {needed:.1f} cycles a second: {busy:.1f} cores of CPU "
        f"({cost.cpu * 1000:.0f} ms a cycle), and {waiting:.0f} stacks under way at a time at {LATENCY * 1000:.0f} ms "
        f"an answer, such as {max(1, round(busy / 0.7)):.0f} workers at {max(1, round(waiting / max(1, busy / 0.7)))} "
        "stacks at once."
    )


def smaller(number: int) -> None:
    """Measure with fewer stacks, for a look."""
    globals().update(STACKS=number, PUSHED=max(number // 5, 2), CYCLES=number, OVERHEAD=number)
