"""Workers as processes of their own: what they do together, and what becomes of it when they or the database die."""

from __future__ import annotations

import json
import signal
import threading

import pytest
from fleet.cluster import PATIENCE, free_port, wait_for
from fleet.hand import HEAD
from psycopg_pool import AsyncConnectionPool

from reconciler.fleet.engine import ERRORS, Engine

pytestmark = pytest.mark.xdist_group("fleet")


@pytest.fixture
def hand(hand):
    """A fleet with a lease that a worker keeps also where the machine is busy with other things."""
    hand.inventory(head=HEAD.replace("lease: 2s", "lease: 10s"))
    return hand


def all_in_sync(hand):
    return all(row.state == "in_sync" and row.worker is None for row in hand.table.rows())


def hold(hand, stack):
    """Stop at a stack's next write: returns what tells that it came, and what lets it go on."""
    came, go = threading.Event(), threading.Event()

    def before(name, _request):
        if name == stack and not came.is_set():
            came.set()
            go.wait(PATIENCE)

    hand.estate.tape.before = before
    hand.exits.callback(go.set)
    return came, go


def test_a_worker_does_it_all_and_ends_when_it_is_told_to(hand):
    assert "holds no fleet yet" in hand.command("work", RECONCILER_DATABASE=hand.cluster.database()).stderr
    worker = hand.start("--log", "json").working()
    wait_for(lambda: all_in_sync(hand), why=lambda: worker.text)
    hand.estate.commit({"two": "198.51.100.2"})
    wait_for(lambda: hand.estate.address("two") == "198.51.100.2", why=lambda: worker.text)
    assert worker.end() == 143
    done = hand.command("status", "--output", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["states"] == {"in_sync": 3}
    assert hand.command("history", "two").stdout.splitlines()[0].split()[2] == "revision"
    assert hand.sql("SELECT count(*) AS left FROM procrastinate_jobs WHERE status <> 'todo'") == [{"left": 0}]


def test_a_worker_that_is_killed_in_the_middle_of_a_write_is_taken_over(hand):
    came, go = hold(hand, "two")
    first = hand.start("--log", "json", "--at-once", "1")
    assert came.wait(PATIENCE), first.text
    first.signal(signal.SIGKILL)
    go.set()
    killed = hand.row("two").generation
    second = hand.start("--log", "json")
    wait_for(lambda: all_in_sync(hand), why=lambda: second.text)
    assert hand.row("two").generation > killed
    assert hand.table.history("two", 10)[-1].ended is None, "its end was never told"
    assert hand.estate.address("two") == "192.0.2.1"
    assert len([item for item in hand.estate.cloudflare.records("two.example") if item["type"] == "A"]) == 1
    assert second.end() == 143


@pytest.mark.long
def test_a_worker_that_was_stopped_for_longer_than_its_lease_writes_nothing_when_it_wakes_up(hand):
    came, go = hold(hand, "two")
    first = hand.start("--log", "json", "--at-once", "1", data="machine-a")
    assert came.wait(PATIENCE), first.text
    first.signal(signal.SIGSTOP)
    second = hand.start("--log", "json", data="machine-b")
    wait_for(lambda: hand.row("two").state == "in_sync", why=lambda: second.text)
    taken = hand.row("two").generation
    written = hand.estate.tape.of("two")
    first.signal(signal.SIGCONT)
    go.set()
    wait_for(lambda: "another worker has taken the stack" in first.text, why=lambda: first.text)
    assert hand.estate.tape.of("two") == written, "what it was about to write next never came"
    assert hand.row("two").generation == taken
    assert hand.row("two").state == "in_sync"
    assert "Traceback" not in first.text
    assert (first.end(), second.end()) == (143, 143)


@pytest.mark.long
def test_the_database_is_restarted_and_its_connections_are_cut_while_workers_work(hand):
    worker = hand.start("--log", "json").working()
    wait_for(lambda: all_in_sync(hand), why=lambda: worker.text)
    hand.cluster.cut()
    hand.estate.commit({"one": "198.51.100.1"})
    wait_for(lambda: hand.estate.address("one") == "198.51.100.1", why=lambda: worker.text)
    hand.cluster.stop()
    hand.cluster.start()
    hand.estate.commit({"two": "198.51.100.2"})
    wait_for(lambda: hand.estate.address("two") == "198.51.100.2", why=lambda: worker.text)
    wait_for(lambda: all_in_sync(hand), why=lambda: worker.text)
    assert worker.end() == 143


REFUSED = """
CREATE FUNCTION refused() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'away'; END $$;
CREATE TRIGGER refused BEFORE DELETE ON procrastinate_jobs FOR EACH ROW EXECUTE FUNCTION refused();
"""


BEATS = """
CREATE SEQUENCE refusals;
CREATE FUNCTION refused() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN PERFORM nextval('refusals'); RAISE 'away'; END $$;
CREATE TRIGGER refused BEFORE UPDATE ON procrastinate_workers FOR EACH ROW EXECUTE FUNCTION refused();
"""


def begin(hand, turn=lambda _: None):
    """Run the engine in a thread; returns what ends it."""
    working, stopped = Engine(hand.queue, hand.conninfo, turn, ["default/0"], 1, 2.0), threading.Event()
    thread = threading.Thread(target=working.run, args=(stopped.is_set,), daemon=True)
    hand.exits.callback(thread.join)
    hand.exits.callback(stopped.set)
    thread.start()
    wait_for(lambda: hand.sql("SELECT 1 FROM procrastinate_workers"))
    return stopped


def is_heard_of(hand):
    """Wait until the worker tells once more that it lives."""
    (now,) = hand.sql("SELECT clock_timestamp() AS at")
    wait_for(lambda: hand.sql("SELECT 1 FROM procrastinate_workers WHERE last_heartbeat > %s", now["at"]))


def test_a_worker_goes_on_telling_that_it_lives_after_it_could_not_once(hand):
    """The engine itself does not, and works on: each stack would be taken from it as soon as it had it."""
    begin(hand)
    hand.sql(BEATS)
    wait_for(lambda: hand.sql("SELECT 1 FROM refusals WHERE is_called"))
    hand.sql("DROP TRIGGER refused ON procrastinate_workers")
    is_heard_of(hand)


def test_a_worker_that_is_told_to_end_lives_until_its_last_job_has_ended(hand):
    came, go = threading.Event(), threading.Event()

    def turn(_):
        came.set()
        go.wait(PATIENCE)

    hand.queue.fill()
    stopped = begin(hand, turn)
    hand.exits.callback(go.set)
    assert came.wait(PATIENCE)
    stopped.set()
    is_heard_of(hand)
    is_heard_of(hand)


def test_a_database_that_is_away_for_long_is_what_a_worker_knows_to_wait_for(hand, monkeypatch):
    monkeypatch.setattr(AsyncConnectionPool.open, "__defaults__", (False, 0.3))
    away = f"postgresql://postgres@127.0.0.1:{free_port()}/fleet"
    with pytest.raises(ERRORS):
        Engine(hand.queue, away, lambda _: None, ["default/0"], 1, 2.0).run(lambda: False)


def test_as_many_stacks_are_worked_on_at_once_as_was_said(hand):
    hand.inventory("".join(f"  s{at}: {{directory: s{at}}}\n" for at in range(12)))
    hand.queue.fill()
    together, stopped = threading.Barrier(12), threading.Event()
    working = Engine(hand.queue, hand.conninfo, lambda _: together.wait(PATIENCE), ["default/0"], 12, 60.0)
    thread = threading.Thread(target=working.run, args=(stopped.is_set,))
    thread.start()
    try:
        wait_for(lambda: not hand.sql("SELECT 1 FROM procrastinate_jobs"))
    finally:
        together.abort()
        stopped.set()
        thread.join()


def test_a_job_whose_end_could_not_be_told_holds_its_stack_no_longer(hand):
    worker = hand.start("--log", "json").working()
    wait_for(lambda: all_in_sync(hand), why=lambda: worker.text)
    wait_for(lambda: not hand.sql("SELECT 1 FROM procrastinate_jobs"), why=lambda: worker.text)
    hand.sql(REFUSED)
    hand.estate.commit({"two": "198.51.100.2"})
    wait_for(lambda: hand.estate.address("two") == "198.51.100.2" and all_in_sync(hand), why=lambda: worker.text)
    hand.sql("DROP TRIGGER refused ON procrastinate_jobs")
    assert hand.sql("SELECT status::text FROM procrastinate_jobs") == [{"status": "doing"}]
    hand.estate.commit({"two": "198.51.100.3"})
    wait_for(lambda: hand.estate.address("two") == "198.51.100.3" and all_in_sync(hand), why=lambda: worker.text)
    assert "nothing was heard of its end" in worker.text
    assert worker.end() == 143


@pytest.mark.long
def test_the_database_dies_in_the_middle_of_an_apply_and_nothing_more_is_written_until_it_is_back(hand):
    came, go = hold(hand, "two")
    worker = hand.start("--log", "json", "--at-once", "1")
    assert came.wait(PATIENCE), worker.text
    hand.cluster.stop()
    try:
        before = hand.estate.tape.of("two")
        go.set()
        wait_for(lambda: "does not answer" in worker.text, why=lambda: worker.text)
        assert hand.estate.tape.of("two") == before
        done = hand.command("status")
        assert done.returncode == 1
        assert "does not answer" in done.stderr
        assert "start it, or correct the address" in done.stderr
    finally:
        hand.cluster.start()
    wait_for(lambda: all_in_sync(hand), why=lambda: worker.text)
    assert worker.end() == 143


@pytest.mark.long
def test_two_workers_share_the_stacks_and_each_is_done_once(hand):
    workers = [hand.start("--log", "json", data=f"machine-{name}") for name in "ab"]
    wait_for(lambda: len(hand.table.rows()) == 3 and all_in_sync(hand), why=lambda: workers[0].text + workers[1].text)
    for name in hand.estate.names:
        assert len(hand.estate.tape.of(name)) == len(set(hand.estate.tape.of(name))) + 1  # two principals, one path
    assert [worker.end() for worker in workers] == [143, 143]
