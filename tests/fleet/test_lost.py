"""What the database's answer is lost of, before or after it took effect: in the end every stack is looked at again.

A night has every statement of the fleet in it: a newer inventory, a push to a stack, a new revision of the shared files
through two rings, jobs that are made, taken, done and ended. Each statement once does not reach the database, and once
its answer does not reach us.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager, suppress
from itertools import count

import pytest
from fleet.test_rings import HEAD

from reconciler.fleet import database
from reconciler.fleet.database import DatabaseAway
from reconciler.fleet.table import queues
from reconciler.problem import Problem

pytestmark = pytest.mark.xdist_group("fleet")

LOST = DatabaseAway(Problem("the database", "does not answer", ""))
TIMES = {
    "fleet_stacks": ("due", "began", "since", "proven", "ended"),
    "fleet_repositories": ("looked",),
    "fleet": ("looked",),
    "fleet_rollout": ("healthy",),
    "fleet_accounts": ("next",),
}


STACKS = "  one: {ring: 0}\n  two:\n"


def head(estate, interval):
    text = HEAD.replace("REPO", str(estate.origin.bare)).replace("lease: 2s", "lease: 1m")
    return text.replace("interval: 60s", f"interval: {interval}s")


def asker():
    """Name what asks the database: the method of the table or of the queue."""
    frame = sys._getframe(2)
    while not frame.f_code.co_filename.endswith(("fleet/table.py", "fleet/engine.py")) or frame.f_code.co_name in (
        "transaction",
        "_all",
        "_one",
        "_do",
    ):
        frame = frame.f_back
    return frame.f_code.co_name


class Wire:
    """The way to the database. ``lost`` are whose next answers do not come, one after the other, and how."""

    def __init__(self, monkeypatch):
        self.seen, self.lost = [], []
        real = database.connection

        @contextmanager
        def connection(pool):
            name = asker()
            self.seen.append(name)
            mode = self.mode(name)
            if mode == "before":
                raise LOST
            with real(pool) as lent:
                yield lent
            if mode == "after":
                raise LOST

        monkeypatch.setattr(database, "connection", connection)

    def mode(self, name):
        """Whether an answer is lost now: before it takes effect, or after."""
        return self.lost.pop(0)[1] if self.lost and self.lost[0][0] == name else ""


class Night:
    """A fleet whose engine a test plays: it takes a job, has its turn, and ends it, as long as no answer is lost."""

    def __init__(self, hand, wire):
        self.hand, self.wire = hand, wire
        self.ask = hand.exits.enter_context(hand.pool.connection())
        self.worker = 0
        self.listens = queues(["default"], hand.worker().place.home)

    def sql(self, query, *values):
        done = self.ask.execute(query, values)
        return done.fetchall() if done.description else []

    def passes(self):
        """Let an hour pass."""
        for table, columns in TIMES.items():
            moved = ", ".join(f"{name} = {name} - interval '1 hour'" for name in columns)
            self.sql(f"UPDATE {table} SET {moved}" + (" WHERE due <> 'infinity'" if table == "fleet_stacks" else ""))
        self.sql("UPDATE fleet_stacks SET began = began - interval '1 hour' WHERE due = 'infinity'")

    def tend(self):
        """Do what each worker does beside, while ours lives."""
        self.sql("UPDATE procrastinate_workers SET last_heartbeat = clock_timestamp()")
        with suppress(DatabaseAway):
            self.hand.tend()

    def work(self):
        """Work as the engine does until no job is left. Where the database goes away it ends, and begins anew."""
        if not self.worker:
            self.worker = self.sql("INSERT INTO procrastinate_workers DEFAULT VALUES RETURNING id")[0]["id"]
        fetch = "SELECT id, args FROM procrastinate_fetch_job_v2(%s::varchar[], %s)"
        while (mode := self.wire.mode("fetch_job")) != "before":
            (job,) = self.sql(fetch, self.listens, self.worker)
            if mode == "after":
                break
            if job["id"] is None:
                return
            self.turn(job)
        self.sql("DELETE FROM procrastinate_workers WHERE id = %s", self.worker)
        self.worker = 0

    def turn(self, job):
        self.hand.queue.expect(job["id"], 3600)
        with suppress(DatabaseAway):
            self.hand.worker(listens=self.listens).turn(job["args"]["stack"])
        self.hand.queue.expect(job["id"], -1)
        if self.wire.mode("finish_job") != "before":
            self.sql("SELECT procrastinate_finish_job_v1(%s, 'succeeded', true)", job["id"])

    def is_over(self, address, shared, interval):
        """Whether all is as it was pushed, and every stack is due again some time."""
        rows = self.hand.table.rows()
        return (
            self.hand.table.whole().interval == interval
            and not self.sql("SELECT 1 FROM procrastinate_jobs")
            and not self.sql("SELECT 1 FROM fleet_stacks WHERE due = 'infinity' OR applying IS NOT NULL")
            and {(row.state, row.shared, row.worker, row.waits > 0) for row in rows}
            == {("in_sync", shared, None, True)}
            and self.hand.estate.address("one") == address
        )

    def run(self, number, *lost):
        """Push, and go on until all is done. Returns the names of what was asked meanwhile."""
        estate = self.hand.estate
        address = f"198.51.100.{number}"
        estate.commit({"one": address})
        shared = estate.origin.commit({"shared/policy.yaml": f"policy: {{max_deletes: {number}}}\n"})
        interval = 60 + number
        estate.inventory(head(estate, interval), STACKS)
        estate.tape.writes.clear()
        self.wire.seen.clear()
        self.wire.lost = list(lost)
        for _ in range(12):
            self.passes()
            self.tend()
            self.work()
            self.tend()
            if self.is_over(address, shared, interval) and not self.wire.lost:
                break
        else:
            told = [self.sql(f"SELECT * FROM {table}") for table in ("fleet_stacks", "procrastinate_jobs")]
            raise AssertionError(f"{lost} is never over: {told}")
        assert not self.hand.bugs
        assert len(estate.tape.writes) == 1, f"{lost}: {estate.tape.writes}"
        return set(self.wire.seen)


@pytest.fixture
def night(hand, monkeypatch):
    hand.estate.origin.commit({"shared/policy.yaml": "policy: {max_deletes: 1}\n"})
    hand.inventory(STACKS, head(hand.estate, 60))
    for _ in range(2):
        hand.tend()
        hand.turn("one", "two")
    return Night(hand, Wire(monkeypatch))


@pytest.mark.long
def test_whatever_answer_is_lost_every_stack_is_looked_at_again_and_nothing_is_written_twice(night):
    numbers = count(2)
    asked = night.run(next(numbers)) | {"fetch_job", "finish_job"}
    assert {
        "claim",
        "holds",
        "occupy",
        "leave",
        "end",
        "pay",
        "fill",
        "take_over",
        "seen",
        "give",
        "judge",
        "adopt",
    } <= asked
    for name in sorted(asked):
        for mode in ("before", "after"):
            night.run(next(numbers), (name, mode))


@pytest.mark.parametrize(
    "lost",
    [
        [("fetch_job", "after")],
        [("claim", "after")],
        [("end", "before"), ("take_over", "after")],
        [("finish_job", "before"), ("take_over", "before"), ("take_over", "before")],
    ],
)
def test_a_job_whose_answer_is_lost_holds_no_stack(night, lost):
    night.run(2, *lost)
