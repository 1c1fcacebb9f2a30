"""What a worker does with a stack, and what the table knows then: a real database and git, and simulated systems."""

from __future__ import annotations

import threading

import pytest
from fleet.hand import HEAD

from reconciler.fleet.table import queues
from reconciler.problem import ReconcilerError

pytestmark = pytest.mark.xdist_group("fleet")


def jobs(hand):
    return hand.sql("SELECT queueing_lock, queue_name, priority, status::text FROM procrastinate_jobs ORDER BY 1")


def test_a_stack_is_made_as_desired_and_then_left_alone(hand):
    hand.tend()
    hand.turn()
    assert {name: hand.row(name).state for name in hand.estate.names} == dict.fromkeys(hand.estate.names, "in_sync")
    assert [hand.estate.address(name) for name in hand.estate.names] == ["192.0.2.1"] * 3
    assert all(hand.estate.accounts(name) for name in hand.estate.names)
    hand.estate.tape.writes.clear()
    hand.turn()
    assert hand.estate.tape.writes == []
    row = hand.row("one")
    assert (row.generation, row.worker, row.pending, row.failures) == (2, None, 0, 0)
    assert 50 < row.waits <= 60  # an interval, with jitter


def test_a_push_makes_the_stacks_due_that_it_changes_and_no_others(hand):
    hand.tend()
    hand.turn()
    hand.sql("DELETE FROM procrastinate_jobs")
    hand.estate.commit({"two": "198.51.100.2"})
    hand.look()
    assert [(job["queueing_lock"], job["priority"]) for job in jobs(hand)] == [("stack two", 30)]
    hand.turn("two")
    assert [hand.estate.address(name) for name in hand.estate.names] == ["192.0.2.1", "198.51.100.2", "192.0.2.1"]


def test_a_stack_has_one_job_that_waits_however_many_schedulers_there_are(hand):
    for _ in range(3):
        hand.tend()
        hand.scheduler().queue.fill()
    assert [job["queueing_lock"] for job in jobs(hand)] == ["stack one", "stack three", "stack two"]


def test_many_schedulers_at_the_same_moment_make_each_job_once(hand):
    started = threading.Barrier(6)

    def fill():
        started.wait()
        for _ in range(5):
            hand.queue.fill()

    threads = [threading.Thread(target=fill) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [job["queueing_lock"] for job in jobs(hand)] == ["stack one", "stack three", "stack two"]


def test_a_stack_waits_for_a_worker_of_its_group_and_ring(hand):
    hand.inventory("  one: {group: eu}\n  two: {ring: 1}\n  three:\n", f"{HEAD}rings: [{{}}, {{}}, {{}}]\n")
    hand.tend()
    named = {job["queueing_lock"]: job["queue_name"] for job in jobs(hand)}
    assert named["stack one"] in set(queues(["eu"], "home")) - set(queues(["default"], "home"))
    assert named["stack two"] in set(queues(["default"], "home", [1])) - set(queues(["default"], "home", [0, 2]))
    assert named["stack three"] in queues(["default"], "home", [2])
    hand.inventory("  one: {group: us}\n  two:\n  three:\n")
    hand.tend()
    assert {job["queue_name"] for job in jobs(hand) if job["queueing_lock"] == "stack one"} <= set(queues(["us"], ""))


def test_repositories_are_asked_by_workers_of_the_groups_that_have_stacks_there(hand):
    hand.inventory(f"  one: {{group: eu, repo: {hand.estate.origin.tree}}}\n  two:\n")
    assert [item[0] for item in hand.table.look(0, ["default"])] == [str(hand.estate.origin.bare)]
    assert [item[0] for item in hand.table.look(0, ["eu"])] == [str(hand.estate.origin.tree)]


def test_a_repository_that_is_away_is_told_and_forgotten_when_nobody_follows_it(hand):
    hand.inventory("  one: {repo: /nowhere}\n  two:\n")
    hand.tend()
    assert [where for where, _ in hand.table.unseen()] == ["/nowhere (main)"]
    hand.turn()
    assert [hand.row(name).state for name in ("one", "two")] == ["failed", "in_sync"]
    hand.inventory("  two:\n")
    assert hand.table.unseen() == []


def test_a_tender_goes_on_after_what_nobody_thought_of(hand, monkeypatch):
    steps = []

    def step(_):
        steps.append(1)
        raise ZeroDivisionError

    monkeypatch.setattr(type(hand.tending), "step", step)
    hand.tending.run(lambda: len(steps) >= 2)
    assert [type(error) for error in hand.bugs] == [ZeroDivisionError] * 2


def test_what_a_dead_worker_has_left_is_taken_over_by_its_heartbeat_alone(hand):
    hand.tend()
    hand.sql("INSERT INTO procrastinate_workers (last_heartbeat) VALUES (now() - interval '1 hour'), (now())")
    dead, alive = (row["id"] for row in hand.sql("SELECT id FROM procrastinate_workers ORDER BY last_heartbeat"))
    for stack, worker in (("one", dead), ("two", alive)):
        hand.sql(
            "UPDATE procrastinate_jobs SET status = 'doing', worker_id = %s WHERE queueing_lock = %s",
            worker,
            f"stack {stack}",
        )
        hand.table.claim(stack, "a worker")
    hand.tend()
    assert (hand.row("one").worker, hand.row("one").generation, hand.row("one").cause) == (None, 2, "takeover")
    assert (hand.row("two").worker, hand.row("two").generation) == ("a worker", 1)
    hand.tend()
    assert [(job["queueing_lock"], job["status"]) for job in jobs(hand)] == [
        ("stack one", "todo"),
        ("stack three", "todo"),
        ("stack two", "doing"),
    ]


def test_a_stack_whose_job_is_gone_is_not_forgotten(hand):
    hand.tend()
    hand.table.claim("one", "a worker of a database that was restored since")
    hand.sql("DELETE FROM procrastinate_jobs")
    hand.sql("UPDATE fleet_stacks SET began = began - interval '1 hour' WHERE name = 'one'")
    hand.tend()
    hand.tend()
    assert "stack one" in [job["queueing_lock"] for job in jobs(hand)]


def test_a_job_that_waits_moves_up_where_a_person_asks(hand):
    hand.tend()
    hand.turn()
    hand.sql("UPDATE fleet_stacks SET due = clock_timestamp(), cause = 'interval' WHERE name = 'one'")
    hand.sql("DELETE FROM procrastinate_jobs")
    hand.tend()
    assert [job["priority"] for job in jobs(hand)] == [0]
    hand.table.due(["one"], "request")
    hand.tend()
    assert [job["priority"] for job in jobs(hand)] == [30]


def test_drift_and_a_lost_volume_are_healed(hand):
    hand.turn()
    hand.estate.wipe("two")
    hand.turn()
    assert hand.estate.accounts("two")
    assert hand.row("two").state == "in_sync"
    last = hand.table.history("two", 5)
    assert [(run.result, run.changed > 0) for run in last] == [("done", True), ("done", True)]


def test_a_server_that_does_not_answer_is_tried_again_later_and_later_by_whichever_worker(hand):
    hand.turn("one")
    hand.estate._write_secrets("one", STALWART_URL="http://127.0.0.1:9")
    waits = []
    for data in ("data", "other", "data", "other"):
        hand.turn("one", data=data)
        row = hand.row("one")
        waits.append(row.waits)
        hand.sql("UPDATE fleet_stacks SET ended = ended - 100 * interval '1 s'")  # the pause has passed
    assert [row.failures, row.state] == [4, "unreadable"]
    assert waits[0] < 6 < waits[3] <= 40
    assert row.troubles == (("stalwart", "fails", "can't be read"),)
    assert hand.estate.address("one") == "192.0.2.1"


def test_the_inventory_says_which_stacks_there_are_and_keeps_what_is_known_of_those_it_drops(hand):
    hand.turn()
    written = hand.estate.tape.of("two")
    hand.inventory("  one:\n  four: {directory: stacks/two}\n")
    assert [row.name for row in hand.table.rows()] == ["four", "one"]
    assert hand.row("two").state == "in_sync"
    hand.turn("two")
    assert hand.row("two").generation == 1, "nobody works on what is not listed"
    hand.turn("four")
    assert hand.row("four").troubles[0][0] == "source", "its directory says another name"
    assert hand.row("four").stalled
    assert hand.estate.tape.of("two") == written


def test_an_invalid_inventory_is_told_and_the_last_good_one_holds(hand):
    hand.turn()
    (hand.folder / "fleet.yaml").write_text("stacks: {one: {repo: /x}, one: {repo: /y}}")
    hand.tending.look()
    hand.tending.look()
    assert [problem.summary for problem in hand.said] == ["stands twice"]
    assert [row.name for row in hand.table.rows()] == ["one", "three", "two"]
    assert "stands twice" in hand.table.whole().problems[0].summary
    hand.inventory()
    assert hand.table.whole().problems == ()


def test_a_suspended_stack_is_looked_at_and_not_written(hand):
    hand.inventory("  one: {suspended: moving}\n  two:\n  three:\n")
    hand.turn()
    assert hand.estate.tape.of("one") == []
    assert (hand.row("one").state, hand.row("two").state) == ("suspended", "in_sync")
    hand.inventory()
    hand.turn("one")
    assert hand.estate.accounts("one")


def test_a_bad_revision_is_not_taken_and_the_last_good_one_is_healed_to_on_any_machine(hand):
    hand.turn("one")
    good = hand.row("one").commit
    hand.estate.origin.commit({"stacks/one/reconciler.yaml": "nonsense: ["})
    hand.estate.wipe("one")
    hand.turn("one", data="another")  # which has never seen it
    row = hand.row("one")
    assert (row.commit, row.state) == (good, "stale")
    assert hand.estate.accounts("one")
    assert row.troubles[0][0] == "source"


def test_a_directory_that_is_gone_is_told_and_the_others_go_on(hand):
    hand.turn()
    hand.estate.origin.commit({"stacks/one/reconciler.yaml": None})
    hand.turn()
    assert [hand.row(name).state for name in ("one", "two", "three")] == ["stale", "in_sync", "in_sync"]


def test_an_entry_that_no_worker_can_begin_with_is_a_trouble_of_that_stack_alone(hand):
    (hand.estate.secrets / "one.env").write_text("not a line\n")
    hand.turn()
    assert [hand.row(name).state for name in ("one", "two", "three")] == ["failed", "in_sync", "in_sync"]
    assert hand.row("one").waits > 0


def test_a_worker_of_an_older_release_is_refused(hand):
    from reconciler.fleet import database

    hand.sql("UPDATE fleet SET release = '99.1'")
    with pytest.raises(ReconcilerError, match=r"kept by reconciler 99\.1, and this is .*, which is older"):
        database.check(hand.pool)
    with pytest.raises(ReconcilerError, match="older"):
        database.init(hand.pool)
