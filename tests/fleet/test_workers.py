"""Workers as processes of their own: what they do together, and what becomes of it when they or the database die."""

from __future__ import annotations

import json
import signal
import threading

import pytest
from fleet.cluster import wait_for

pytestmark = pytest.mark.xdist_group("fleet")


def all_in_sync(hand):
    return all(row.state == "in_sync" and row.worker is None for row in hand.table.rows())


def hold(hand, stack):
    """Stop at a stack's next write: returns what tells that it came, and what lets it go on."""
    came, go = threading.Event(), threading.Event()

    def before(name, _request):
        if name == stack and not came.is_set():
            came.set()
            go.wait(60)

    hand.estate.tape.before = before
    hand.exits.callback(go.set)
    return came, go


def test_a_worker_does_it_all_and_ends_when_it_is_told_to(hand):
    assert "holds no fleet yet" in hand.command("work", RECONCILER_DATABASE=hand.cluster.database()).stderr
    worker = hand.start("--log", "json").working()
    wait_for(lambda: all_in_sync(hand), 60, lambda: worker.text)
    hand.estate.commit({"two": "198.51.100.2"})
    wait_for(lambda: hand.estate.address("two") == "198.51.100.2", 10, lambda: worker.text)
    assert worker.end() == 143
    done = hand.command("status", "--output", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["states"] == {"in_sync": 3}
    assert hand.command("history", "two").stdout.splitlines()[0].split()[2] == "revision"
    assert hand.sql("SELECT count(*) AS left FROM procrastinate_jobs WHERE status <> 'todo'") == [{"left": 0}]


def test_a_worker_that_is_killed_in_the_middle_of_a_write_is_taken_over(hand):
    came, go = hold(hand, "two")
    first = hand.start("--log", "json", "--at-once", "1")
    assert came.wait(60), first.text
    first.signal(signal.SIGKILL)
    go.set()
    killed = hand.row("two").generation
    second = hand.start("--log", "json")
    wait_for(lambda: all_in_sync(hand), 60, lambda: second.text)
    assert hand.row("two").generation > killed
    assert hand.table.history("two", 10)[-1].ended is None, "its end was never told"
    assert hand.estate.address("two") == "192.0.2.1"
    assert len([item for item in hand.estate.cloudflare.records("two.example") if item["type"] == "A"]) == 1
    assert second.end() == 143


@pytest.mark.long
def test_a_worker_that_was_stopped_for_longer_than_its_lease_writes_nothing_when_it_wakes_up(hand):
    came, go = hold(hand, "two")
    first = hand.start("--log", "json", "--at-once", "1", data="machine-a")
    assert came.wait(60), first.text
    first.signal(signal.SIGSTOP)
    second = hand.start("--log", "json", data="machine-b")
    wait_for(lambda: hand.row("two").state == "in_sync", 60, lambda: second.text)
    taken = hand.row("two").generation
    written = hand.estate.tape.of("two")
    first.signal(signal.SIGCONT)
    go.set()
    wait_for(lambda: "another worker has taken the stack" in first.text, 30, lambda: first.text)
    assert hand.estate.tape.of("two") == written, "what it was about to write next never came"
    assert hand.row("two").generation == taken
    assert hand.row("two").state == "in_sync"
    assert "Traceback" not in first.text
    assert (first.end(), second.end()) == (143, 143)


@pytest.mark.long
def test_the_database_is_restarted_and_its_connections_are_cut_while_workers_work(hand):
    worker = hand.start("--log", "json").working()
    wait_for(lambda: all_in_sync(hand), 60, lambda: worker.text)
    hand.cluster.cut()
    hand.estate.commit({"one": "198.51.100.1"})
    wait_for(lambda: hand.estate.address("one") == "198.51.100.1", 40, lambda: worker.text)
    hand.cluster.stop()
    hand.cluster.start()
    hand.estate.commit({"two": "198.51.100.2"})
    wait_for(lambda: hand.estate.address("two") == "198.51.100.2", 40, lambda: worker.text)
    wait_for(lambda: all_in_sync(hand), 40, lambda: worker.text)
    assert worker.end() == 143


REFUSED = """
CREATE FUNCTION refused() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'away'; END $$;
CREATE TRIGGER refused BEFORE DELETE ON procrastinate_jobs FOR EACH ROW EXECUTE FUNCTION refused();
"""


def test_a_job_whose_end_could_not_be_told_holds_its_stack_no_longer(hand):
    worker = hand.start("--log", "json").working()
    wait_for(lambda: all_in_sync(hand), 60, lambda: worker.text)
    wait_for(lambda: not hand.sql("SELECT 1 FROM procrastinate_jobs"), 20, lambda: worker.text)
    hand.sql(REFUSED)
    hand.estate.commit({"two": "198.51.100.2"})
    wait_for(lambda: hand.estate.address("two") == "198.51.100.2" and all_in_sync(hand), 20, lambda: worker.text)
    hand.sql("DROP TRIGGER refused ON procrastinate_jobs")
    assert hand.sql("SELECT status::text FROM procrastinate_jobs") == [{"status": "doing"}]
    hand.estate.commit({"two": "198.51.100.3"})
    wait_for(lambda: hand.estate.address("two") == "198.51.100.3" and all_in_sync(hand), 20, lambda: worker.text)
    assert "nothing was heard of its end" in worker.text
    assert worker.end() == 143


@pytest.mark.long
def test_the_database_dies_in_the_middle_of_an_apply_and_nothing_more_is_written_until_it_is_back(hand):
    came, go = hold(hand, "two")
    worker = hand.start("--log", "json", "--at-once", "1")
    assert came.wait(60), worker.text
    hand.cluster.stop()
    try:
        before = hand.estate.tape.of("two")
        go.set()
        wait_for(lambda: "does not answer" in worker.text, 30, lambda: worker.text)
        assert hand.estate.tape.of("two") == before
        done = hand.command("status")
        assert done.returncode == 1
        assert "does not answer" in done.stderr
        assert "start it, or correct the address" in done.stderr
    finally:
        hand.cluster.start()
    wait_for(lambda: all_in_sync(hand), 60, lambda: worker.text)
    assert worker.end() == 143


@pytest.mark.long
def test_two_workers_share_the_stacks_and_each_is_done_once(hand):
    workers = [hand.start("--log", "json", data=f"machine-{name}") for name in "ab"]
    wait_for(lambda: len(hand.table.rows()) == 3 and all_in_sync(hand), 60, lambda: workers[0].text + workers[1].text)
    for name in hand.estate.names:
        assert len(hand.estate.tape.of(name)) == len(set(hand.estate.tape.of(name))) + 1  # two principals, one path
    assert [worker.end() for worker in workers] == [143, 143]
