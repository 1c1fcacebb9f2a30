"""The queue: procrastinate on PostgreSQL. One job is one cycle of one stack, which both its locks are named after.

No job is ever set for a later time, and none is retried by the engine: either would hold back all others of its lock.
When a stack is due stands in our table alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import procrastinate
from procrastinate import exceptions, jobs
from procrastinate.job_context import JobContext
from procrastinate.manager import JobManager
from procrastinate.sync_psycopg_connector import SyncPsycopgConnector
from psycopg_pool import PoolTimeout

from reconciler.fleet.table import QUEUE

if TYPE_CHECKING:
    from psycopg import AsyncConnection

    from reconciler.fleet.table import Table

_TASK = "cycle"
_POLL = 1.0  # seconds: nobody is told when a lock is free
_HEARTBEATS = 4  # in a lease
_NEVER = 1e8  # seconds: the engine's own heartbeats do not go on as long as its jobs
_LOOK = 0.2  # seconds between two looks at whether to end
_MOST = 500  # jobs that are made at a time
_TELLING = 5.0  # seconds in which the engine tells the database that a job has ended
_LONGEST = 3600.0  # seconds that a cycle may take, as in the daemon: one that takes longer hangs
_BESIDE = 4  # threads that the engine needs beside those of the cycles: names of hosts are looked up in them

PRIORITIES = {"request": 30, "revision": 30, "takeover": 20, "restore": 20}
"""What goes first, by the cause of a cycle; everything else is periodic, and has 0."""


# --------------------------------------------------------------------------------------------------------- the queue
class Queue:
    """Makes jobs of stacks that are due, and takes stacks over. Several may do so at once, from wherever."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._jobs = procrastinate.App(connector=SyncPsycopgConnector()).job_manager
        self._ends: dict[int, float] = {}

    def expect(self, job: int, seconds: float) -> None:
        """Note in how many seconds a job of this process should be gone: one that is still there then is taken over.

        The engine tells once that a job has ended: where the database is away at that moment, it stays for ever.
        """
        self._ends[job] = time.monotonic() + seconds

    def fill(self) -> int:
        """Make a job of each stack that is due and has none that waits; return how many."""
        with self._table.transaction() as at:
            locked = at.execute(_DUE, {"most": _MOST}).fetchall()
            # Only now, as we have the rows, it shows whether another made the jobs before us.
            names = [f"stack {row['name']}" for row in locked]
            there = {row["queueing_lock"] for row in at.execute(_WAITING, {"names": names}).fetchall()}
            made = [_job(row) for row in locked if f"stack {row['name']}" not in there]
            if made:
                self._jobs.batch_defer_jobs(made, connection=at)
            at.execute(_MOVE, {"names": list(PRIORITIES), "numbers": list(PRIORITIES.values())})
        return len(made)

    def take_over(self, lease: float) -> list[str]:
        """Take the stacks of workers of which nothing is heard, and of our own jobs that should be gone; name them.

        Job and stack go together: of several who do so at once one does, and nobody takes a stack away from whoever has
        it since.
        """
        late = [job for job, end in list(self._ends.items()) if end < time.monotonic()]
        with self._table.transaction() as at:
            rows = at.execute(_TAKE_OVER, {"lease": lease, "late": late}).fetchall()
            orphans = at.execute(_ORPHANS, {"lease": lease}).fetchall()
            left = at.execute("SELECT id FROM procrastinate_jobs WHERE id = ANY(%s)", (late,)).fetchall()
        for job in {*late} - {row["id"] for row in left}:
            self._ends.pop(job)  # not before it is gone
        return [row["name"] for row in (*rows, *orphans)]

    def purge(self) -> None:
        """Remove what jobs have left that ended badly; the others are removed as they end."""
        with self._table.transaction() as at:
            at.execute("DELETE FROM procrastinate_jobs WHERE status NOT IN ('todo', 'doing')")

    def counts(self) -> tuple[int, int]:
        """Return how many stacks wait for a worker, and how many are at work."""
        with self._table.transaction() as at:
            rows = at.execute("SELECT status::text, count(*) AS number FROM procrastinate_jobs GROUP BY 1").fetchall()
        known = {row["status"]: row["number"] for row in rows}
        return known.get("todo", 0), known.get("doing", 0)


def _job(row: Any) -> jobs.Job:
    stack = row["name"]
    return jobs.Job(
        id=None,
        queue=row["queue"],
        lock=f"stack {stack}",
        queueing_lock=f"stack {stack}",
        task_name=_TASK,
        task_kwargs={"stack": stack},
        priority=PRIORITIES.get(row["cause"], 0),
    )


_DUE = f"""
SELECT name, cause, {QUEUE} AS queue FROM fleet_stacks
WHERE listed AND due <= clock_timestamp() AND NOT EXISTS (
    SELECT 1 FROM procrastinate_jobs WHERE queueing_lock = 'stack ' || name AND status = 'todo')
ORDER BY due LIMIT %(most)s FOR UPDATE OF fleet_stacks SKIP LOCKED
"""  # noqa: S608 (of ours)
_WAITING = "SELECT queueing_lock FROM procrastinate_jobs WHERE queueing_lock = ANY(%(names)s) AND status = 'todo'"
# A job that waits goes by what is known now: of a stack that got a push meanwhile, or another group, or ring.
_MOVE = f"""
UPDATE procrastinate_jobs AS job SET queue_name = stack.queue, priority = greatest(job.priority, stack.priority)
FROM (SELECT 'stack ' || name AS lock, {QUEUE} AS queue, coalesce(number, 0) AS priority FROM fleet_stacks
    LEFT JOIN unnest(%(names)s::text[], %(numbers)s::integer[]) AS known (word, number) ON word = cause
    WHERE listed AND due <= clock_timestamp()) AS stack
WHERE job.queueing_lock = stack.lock AND job.status = 'todo'
    AND (job.queue_name <> stack.queue OR job.priority < stack.priority)
"""  # noqa: S608
# What is lost again right after it was taken over may be what ended its worker: each time it waits longer.
_PAUSE = "CASE WHEN cause = 'takeover' THEN least(greatest(2 * wait, %(lease)s), 3600) ELSE 0 END"
_DROPPED = f"""
worker = NULL, applying = NULL, generation = generation + 1, cause = 'takeover',
    wait = {_PAUSE}, due = clock_timestamp() + {_PAUSE} * interval '1 s'
"""
# As the engine's own question for stalled jobs, which it has for programs that await alone. A worker that was heard of
# in times to come was so before the clock went back.
_TAKE_OVER = f"""
WITH lost AS (
    SELECT job.id FROM procrastinate_jobs AS job LEFT JOIN procrastinate_workers AS worker ON worker.id = job.worker_id
    WHERE job.status = 'doing' AND (worker.id IS NULL OR job.id = ANY(%(late)s) OR worker.last_heartbeat NOT BETWEEN
        clock_timestamp() - %(lease)s * interval '1 s' AND clock_timestamp() + %(lease)s * interval '1 s')
    FOR UPDATE OF job SKIP LOCKED),
gone AS (DELETE FROM procrastinate_jobs WHERE id IN (SELECT id FROM lost) RETURNING id, args->>'stack' AS name),
dropped AS (
    UPDATE fleet_stacks SET {_DROPPED} WHERE name IN (SELECT name FROM gone) AND worker IS NOT NULL)
SELECT id, name FROM gone
"""  # noqa: S608 (of ours)
# A worker has them, as the table says, and no job of theirs runs: its end, or that of their cycle, was not told.
_ORPHANS = f"""
UPDATE fleet_stacks SET {_DROPPED}
WHERE worker IS NOT NULL
    AND began NOT BETWEEN clock_timestamp() - %(lease)s * interval '1 s' AND clock_timestamp()
    AND NOT EXISTS (SELECT 1 FROM procrastinate_jobs WHERE lock = 'stack ' || name AND status = 'doing')
RETURNING name
"""  # noqa: S608


# ------------------------------------------------------------------------------------------------------- the worker
@dataclass(frozen=True, slots=True)
class Engine:
    """Has the jobs of some ``listens`` done, each by ``turn`` with its stack; the ``queue`` hears that they ended."""

    queue: Queue
    conninfo: str = field(repr=False)
    turn: Callable[[str], None]
    listens: Sequence[str]
    at_once: int
    lease: float

    def run(self, stopped: Callable[[], bool]) -> None:
        """Work until ``stopped``. Returns, too, where the database goes away: then it is begun anew.

        Raises `ERRORS` where there is no connection to begin with.
        """
        logging.getLogger("procrastinate").setLevel(logging.CRITICAL)  # a job's end is told by us, without arguments
        asyncio.run(self._run(stopped))

    async def _run(self, stopped: Callable[[], bool]) -> None:
        asyncio.get_running_loop().set_exception_handler(_heard)
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(self.at_once + _BESIDE))
        app, manager = self._app()
        async with app.open_async():
            worker = asyncio.create_task(
                app.run_worker_async(
                    queues=self.listens,
                    name="reconciler",
                    concurrency=self.at_once,
                    fetch_job_polling_interval=_POLL,
                    delete_jobs="always",
                    install_signal_handlers=False,
                    update_heartbeat_interval=_NEVER,
                    stalled_worker_timeout=self.lease,
                )
            )
            beating = asyncio.create_task(self._beat(manager))
            while not (worker.done() or stopped()):
                await asyncio.wait({worker}, timeout=_LOOK)
            worker.cancel()  # it ends what has begun, which hears of the signal itself
            with contextlib.suppress(asyncio.CancelledError):
                await worker
            beating.cancel()

    async def _beat(self, manager: _Jobs) -> None:
        """Tell that the worker lives, whatever a try meets, until the last of its jobs has ended.

        The engine would stop with the first answer that does not come, unseen, and as soon as it is told to end.
        """
        while True:
            await asyncio.sleep(self.lease / _HEARTBEATS)
            if manager.worker is not None:
                with contextlib.suppress(exceptions.ConnectorException):
                    await manager.update_heartbeat(manager.worker)

    def _app(self) -> tuple[procrastinate.App, _Jobs]:
        connector = procrastinate.PsycopgConnector(
            conninfo=self.conninfo, min_size=1, max_size=4, timeout=self.lease, configure=_by_itself
        )
        app = procrastinate.App(connector=connector)
        app.job_manager = manager = _Jobs(connector)
        app.task(name=_TASK, pass_context=True)(self._cycle)
        return app, manager

    def _cycle(self, context: JobContext, stack: str) -> None:
        assert context.job.id is not None
        self.queue.expect(context.job.id, _LONGEST)
        try:
            self.turn(stack)
        finally:
            self.queue.expect(context.job.id, _TELLING)


class _Jobs(JobManager):
    """Knows the number of its worker."""

    worker: int | None = None

    async def register_worker(self) -> int:
        self.worker = await super().register_worker()
        return self.worker


async def _by_itself(made: AsyncConnection) -> None:
    """Have each statement count at once: a worker that is stopped between it and its commit would hold the job."""
    await made.set_autocommit(True)


def _heard(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log no job whose end can't be written down: it was taken over, or the database is away, as is told elsewhere."""
    if not isinstance(context.get("exception"), ERRORS):
        loop.default_exception_handler(context)


ERRORS = cast("tuple[type[Exception], ...]", (exceptions.ProcrastinateException, PoolTimeout, OSError))
"""What a worker ends with where its database goes away."""
