"""The queue: procrastinate on PostgreSQL. One job is one cycle of one stack, which both its locks are named after.

No job is ever set for a later time, and none is retried by the engine: either would hold back all others of its lock.
When a stack is due stands in our table alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import procrastinate
from procrastinate import exceptions, jobs
from procrastinate.job_context import JobContext
from procrastinate.sync_psycopg_connector import SyncPsycopgConnector

from reconciler.fleet.inventory import RINGS

if TYPE_CHECKING:
    from reconciler.fleet.table import Table

_TASK = "cycle"
_POLL = 1.0  # seconds: nobody is told when a lock is free
_HEARTBEATS = 4  # in a lease
_LOOK = 0.2  # seconds between two looks at whether to end
_MOST = 500  # jobs that are made at a time
_TELLING = 5.0  # seconds in which the engine tells the database that a job has ended

PRIORITIES = {"request": 30, "revision": 30, "takeover": 20, "restore": 20}
"""What goes first, by the cause of a cycle; everything else is periodic, and has 0."""


def queues(groups: Collection[str], home: str, rings: Collection[int] | None = None) -> list[str]:
    """Return what a worker listens to; ``home`` names its data, which alone remembers some stacks' refused logins."""
    taken = range(RINGS) if rings is None else sorted(rings)
    return [name for group in sorted(groups) for at in taken for name in (f"{group}/{at}", f"{group}/{at}@{home}")]


# --------------------------------------------------------------------------------------------------------- the queue
class Queue:
    """Makes jobs of stacks that are due. Several may do so at once, from wherever.

    ``ended`` is when the turns of this process's own jobs ended, by their numbers and the monotonic clock.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self._jobs = procrastinate.App(connector=SyncPsycopgConnector()).job_manager
        self.ended: dict[int, float] = {}

    def fill(self) -> int:
        """Make a job of each stack that is due and has none that waits; return how many."""
        with self._table.transaction() as at:
            found = at.execute(_DUE, {"most": _MOST}).fetchall()
            made = [_job(row) for row in found]
            if made:
                # What another scheduler made meanwhile is there: the rows are locked, so that is a person's own job.
                with contextlib.suppress(exceptions.AlreadyEnqueued), at.transaction():
                    self._jobs.batch_defer_jobs(made, connection=at)
            at.execute(_MOVE, {"names": list(PRIORITIES), "numbers": list(PRIORITIES.values())})
        return len(made)

    def orphans(self, lease: float) -> list[str]:
        """Name the stacks that a worker has, as the table says, while no job of theirs runs."""
        with self._table.transaction() as at:
            return [row["name"] for row in at.execute(_ORPHANS, {"lease": lease}).fetchall()]

    def stalled(self, lease: float) -> list[tuple[int, str]]:
        """Return the jobs of workers of which nothing was heard for so long, with their stacks.

        So are our own that have ended while the database was away: the engine tells it once, and holds them for ever.
        """
        before = time.monotonic() - _TELLING
        told = [job for job, ended in list(self.ended.items()) if ended < before]
        with self._table.transaction() as at:
            rows = at.execute(_STALLED, {"lease": lease, "ended": told}).fetchall()
        for job in told:
            del self.ended[job]
        return [(row["id"], row["stack"]) for row in rows]

    def drop(self, job: int) -> None:
        """Remove a job; whoever still runs it has lost its stack before."""
        with self._table.transaction() as at:
            at.execute("DELETE FROM procrastinate_jobs WHERE id = %s AND status = 'doing'", (job,))

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


_QUEUE = "worker_group || '/' || ring || CASE WHEN home IS NULL THEN '' ELSE '@' || home END"
_DUE = f"""
SELECT name, cause, {_QUEUE} AS queue FROM fleet_stacks
WHERE listed AND due <= clock_timestamp() AND NOT EXISTS (
    SELECT 1 FROM procrastinate_jobs WHERE queueing_lock = 'stack ' || name AND status = 'todo')
ORDER BY due LIMIT %(most)s FOR UPDATE OF fleet_stacks SKIP LOCKED
"""  # noqa: S608 (of ours)
# A job that waits goes by what is known now: of a stack that got a push meanwhile, or another group, or ring.
_MOVE = f"""
UPDATE procrastinate_jobs AS job SET queue_name = stack.queue, priority = greatest(job.priority, stack.priority)
FROM (SELECT 'stack ' || name AS lock, {_QUEUE} AS queue, coalesce(number, 0) AS priority FROM fleet_stacks
    LEFT JOIN unnest(%(names)s::text[], %(numbers)s::integer[]) AS known (word, number) ON word = cause
    WHERE listed AND due <= clock_timestamp()) AS stack
WHERE job.queueing_lock = stack.lock AND job.status = 'todo'
    AND (job.queue_name <> stack.queue OR job.priority < stack.priority)
"""  # noqa: S608
_ORPHANS = """
SELECT name FROM fleet_stacks WHERE worker IS NOT NULL AND began < clock_timestamp() - %(lease)s * interval '1 s'
    AND NOT EXISTS (SELECT 1 FROM procrastinate_jobs WHERE lock = 'stack ' || name AND status = 'doing')
"""
# As the engine's own question for stalled jobs, which it has for programs that await alone.
_STALLED = """
SELECT job.id, job.args->>'stack' AS stack FROM procrastinate_jobs AS job
LEFT JOIN procrastinate_workers AS worker ON worker.id = job.worker_id
WHERE job.status = 'doing' AND (worker.id IS NULL OR job.id = ANY(%(ended)s)
    OR worker.last_heartbeat < clock_timestamp() - %(lease)s * interval '1 s')
"""


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

        Raises the engine's errors where there is no connection to begin with.
        """
        logging.getLogger("procrastinate").setLevel(logging.CRITICAL)  # a job's end is told by us, without arguments
        asyncio.run(self._run(stopped))

    async def _run(self, stopped: Callable[[], bool]) -> None:
        connector = procrastinate.PsycopgConnector(conninfo=self.conninfo, min_size=1, max_size=4, timeout=self.lease)
        app = procrastinate.App(connector=connector)
        app.task(name=_TASK, pass_context=True)(self._cycle)
        asyncio.get_running_loop().set_exception_handler(_heard)
        async with app.open_async():
            worker = asyncio.create_task(
                app.run_worker_async(
                    queues=self.listens,
                    name="reconciler",
                    concurrency=self.at_once,
                    fetch_job_polling_interval=_POLL,
                    delete_jobs="always",
                    install_signal_handlers=False,
                    update_heartbeat_interval=self.lease / _HEARTBEATS,
                    stalled_worker_timeout=self.lease,
                )
            )
            while not (worker.done() or stopped()):
                await asyncio.wait({worker}, timeout=_LOOK)
            worker.cancel()  # it ends what has begun, which hears of the signal itself
            with contextlib.suppress(asyncio.CancelledError):
                await worker

    def _cycle(self, context: JobContext, stack: str) -> None:
        try:
            self.turn(stack)
        finally:
            if context.job.id is not None:
                self.queue.ended[context.job.id] = time.monotonic()


def _heard(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Say nothing of a job whose end could not be told: it was taken over, or the database is away. Both are told."""
    if not isinstance(context.get("exception"), ERRORS):
        loop.default_exception_handler(context)


ERRORS = cast("tuple[type[Exception], ...]", (exceptions.ProcrastinateException, OSError))
"""What a worker ends with where its database goes away."""
