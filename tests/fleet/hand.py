"""A fleet whose every step a test takes itself: the scheduler's, and the turns of workers that are no processes."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from fleet.cluster import PATIENCE, Cluster, wait_for
from fleet.estate import Estate

from reconciler.daemon.logs import Log
from reconciler.fleet import database, worker
from reconciler.fleet.engine import Queue
from reconciler.fleet.source import InventoryFile
from reconciler.fleet.table import QUEUE, Table, queues
from reconciler.fleet.tending import Tending
from reconciler.fleet.turn import Machine, Work

HEAD = "interval: 60s\npoll: 1s\nlease: 2s\n"


class Hand:
    """``table`` is what the fleet knows; `tend` does what each worker does beside, `turn` what it does with a stack."""

    def __init__(self, exits: ExitStack, cluster: Cluster, folder: Path, names: list[str], head: str = HEAD) -> None:
        self.exits, self.cluster, self.folder, self.head = exits, cluster, folder, head
        self.conninfo = cluster.fleet()
        exits.callback(cluster.drop, self.conninfo)
        self.estate = exits.enter_context(Estate(folder, names))
        self.pool = exits.enter_context(database.pool(self.conninfo, 8))
        self.table, self.said, self.bugs = Table(self.pool), [], []
        self.queue = Queue(self.table)
        self.environ = {"PATH": os.environ["PATH"], "HOME": str(folder), "LANG": "C.UTF-8"}
        self.tending = self.scheduler()
        self.inventory()

    def inventory(self, stacks: str = "", head: str | None = None) -> None:
        self.head = self.head if head is None else head
        self.estate.inventory(self.head, stacks)
        self.tending.look()

    def scheduler(self, data: str = "data") -> Tending:
        found = InventoryFile(self.folder / "fleet.yaml")
        where, groups = self.folder / data, ["default"]
        return Tending(
            self.table, self.queue, found, where, groups, self.environ, self.said.append, unexpected=self.bugs.append
        )

    def worker(self, name: str = "hand", data: str = "data", *, listens=None, stopped=lambda: False) -> Work:
        where = self.folder / data
        place = Machine(where, worker.home(where), self.environ, self.estate.secrets)
        shared = worker.Sharing(self.table, where, self.environ)
        return Work(
            self.table,
            name,
            place,
            queues(["default"], place.home) if listens is None else listens,
            shared.files,
            lambda stack, redact: Log(as_json=True, redact=redact, stack=stack),
            stopped,
            self.bugs.append,
        )

    def tend(self) -> None:
        self.tending.step()

    def look(self) -> None:
        """See what was pushed, as a scheduler does when it is its turn."""
        self.sql("UPDATE fleet_repositories SET looked = clock_timestamp() - interval '1 hour'")
        self.tend()

    def turn(self, *names: str, data: str = "data") -> None:
        """Have stacks looked at now by a worker who listens to all: what queues tell apart is tested with jobs."""
        listens = [row["queue"] for row in self.sql(f"SELECT {QUEUE} AS queue FROM fleet_stacks")]
        work, chosen = self.worker(data=data, listens=listens), list(names or self.estate.names)
        self.sql("UPDATE fleet_stacks SET due = clock_timestamp() WHERE name = ANY(%s) AND due <> 'infinity'", chosen)
        for name in chosen:
            work.turn(name)
        assert not self.bugs

    def lose(self, name: str) -> None:
        """Have a stack taken over from a worker that is gone."""
        self.sql("UPDATE fleet_stacks SET began = began - interval '1 hour' WHERE name = %s", name)
        assert name in self.queue.take_over(2.0)

    def row(self, name: str):
        (found,) = self.table.rows([name])
        return found

    def sql(self, query: str, *values: object) -> list[dict]:
        with database.connection(self.pool) as at:
            done = at.execute(query, values)
            return done.fetchall() if done.description else []

    # -------------------------------------------------------------------------------------------------- as processes
    def env(self, **more: str) -> dict[str, str]:
        given = {"RECONCILER_DATABASE": self.conninfo, "RECONCILER_FLEET_SECRETS": str(self.estate.secrets)}
        if "PYTHONPATH" in os.environ:
            given["PYTHONPATH"] = os.environ["PYTHONPATH"]
        return {**self.environ, **given, **more}

    def command(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "reconciler", "fleet", *words]
        return subprocess.run(
            command, env=self.env(**more), cwd=self.folder, capture_output=True, text=True, check=False
        )

    def start(self, *words: str, data: str = "data", inventory: bool = True) -> Worker:
        given = ["--inventory", str(self.folder / "fleet.yaml")] if inventory else []
        return self.exits.enter_context(Worker(self, [*given, *words], data))


class Worker:
    """A worker that is a process."""

    def __init__(self, hand: Hand, words: list[str], data: str) -> None:
        self.log = hand.folder / f"worker-{len(list(hand.folder.glob('worker-*')))}.log"
        command = [sys.executable, "-m", "reconciler", "fleet", "work", "--data", str(hand.folder / data), *words]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, env=hand.env(), cwd=hand.folder, stdout=log, stderr=log)
        self.pid = self.process.pid

    def working(self) -> Worker:
        wait_for(lambda: '"working"' in self.text or self.process.poll() is not None, why=lambda: self.text)
        assert self.process.poll() is None, self.text
        return self

    @property
    def text(self) -> str:
        return self.log.read_text()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self, seconds: float = PATIENCE) -> int:
        self.process.terminate()
        return self.process.wait(seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
