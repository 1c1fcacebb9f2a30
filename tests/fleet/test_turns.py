"""What a worker does with a stack, and what the table knows then: a real database and git, and simulated systems."""

from __future__ import annotations

import threading
from contextlib import suppress

import psycopg
import pytest
from fleet.estate import DIRECTORY
from fleet.hand import HEAD

from reconciler.fleet import database
from reconciler.fleet.database import DatabaseAway
from reconciler.fleet.notices import causes
from reconciler.fleet.overview import summary
from reconciler.fleet.table import Table, queues
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
    assert 54 <= hand.sql("SELECT wait FROM fleet_stacks WHERE name = 'one'")[0]["wait"] <= 60  # with jitter


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


@pytest.mark.parametrize("last", ["- interval '1 hour'", "+ interval '1 hour'"])
def test_what_a_dead_worker_has_left_is_taken_over_by_its_heartbeat_alone(hand, last):
    """Also where the clock goes back after it."""
    lease = 600
    hand.tend()
    (alive,) = hand.sql("INSERT INTO procrastinate_workers DEFAULT VALUES RETURNING id")
    (dead,) = hand.sql(f"INSERT INTO procrastinate_workers (last_heartbeat) VALUES (now() {last}) RETURNING id")
    for stack, worker in (("one", dead), ("two", alive)):
        hand.sql(TAKEN, worker["id"], f"stack {stack}")
        hand.table.claim(stack, "a worker")
    assert hand.queue.take_over(lease) == ["one"]
    assert (hand.row("one").worker, hand.row("one").generation, hand.row("one").cause) == (None, 2, "takeover")
    assert (hand.row("two").worker, hand.row("two").generation) == ("a worker", 1)
    hand.queue.fill()
    assert [(job["queueing_lock"], job["status"]) for job in jobs(hand)] == [
        ("stack one", "todo"),
        ("stack three", "todo"),
        ("stack two", "doing"),
    ]


TAKEN = "UPDATE procrastinate_jobs SET status = 'doing', worker_id = %s WHERE queueing_lock = %s"


def lost(hand, stack):
    """Take a stack's job by a worker of which nothing is known since."""
    hand.queue.fill()
    hand.sql(TAKEN, None, f"stack {stack}")
    assert hand.table.claim(stack, "a worker")
    assert hand.queue.take_over(600) == [stack]
    return hand.row(stack).waits


def test_a_stack_that_ends_each_worker_waits_longer_each_time_and_a_push_does_not(hand):
    hand.tend()
    waits = []
    for _ in range(5):
        waits.append(lost(hand, "one"))
        hand.sql("UPDATE fleet_stacks SET due = clock_timestamp() WHERE name = 'one'")
    assert [round(max(wait, 0), -2) for wait in waits] == [0, 600, 1200, 2400, 3600]
    hand.table.due(["one"], "revision")
    assert lost(hand, "one") <= 0


def test_a_cycle_that_hangs_in_a_worker_that_lives_holds_its_stack_no_longer(hand):
    hand.tend()
    (alive,) = hand.sql("INSERT INTO procrastinate_workers DEFAULT VALUES RETURNING id")
    hand.sql(TAKEN, alive["id"], "stack one")
    (job,) = hand.sql("SELECT id FROM procrastinate_jobs WHERE status = 'doing'")
    hand.table.claim("one", "a worker")
    hand.queue.expect(job["id"], 3600)
    assert hand.queue.take_over(600) == []
    hand.queue.expect(job["id"], -1)
    assert hand.queue.take_over(600) == ["one"]
    assert hand.queue.take_over(600) == []


@pytest.mark.parametrize(
    "moved",
    [
        "home = 'of another machine'",
        "worker_group = 'eu'",
        "ring = 1",
        "due = clock_timestamp() + interval '1 min'",
        "due = 'infinity', worker = 'another', generation = 7",
        "listed = false",
    ],
)
def test_a_job_that_its_stack_has_outrun_does_nothing(hand, moved):
    """It was made before the stack was taken, refused a login, or moved: nobody tries what is another's."""
    hand.tend()
    hand.sql(f"UPDATE fleet_stacks SET {moved} WHERE name = 'one'")
    before = hand.row("one")
    hand.worker(listens=queues(["default"], "mine", [0])).turn("one")
    assert (hand.row("one").generation, hand.row("one").worker) == (before.generation, before.worker)
    assert hand.table.history("one", 5) == []


def test_a_stack_waits_an_hour_for_the_data_that_remembers_its_refused_login_and_no_longer(hand):
    hand.tend()
    hand.sql("UPDATE fleet_stacks SET home = 'gone', due = clock_timestamp() - interval '50 min'")
    hand.tend()
    assert {row.home for row in hand.table.rows()} == {"gone"}
    hand.sql("UPDATE fleet_stacks SET due = due - interval '20 min'")
    hand.tend()
    assert {row.home for row in hand.table.rows()} == {None}
    assert {job["queue_name"] for job in jobs(hand)} <= set(queues(["default"], "any"))


def test_who_has_seen_an_older_commit_takes_nothing_back(hand):
    address, head = str(hand.estate.origin.bare), hand.estate.origin.head
    hand.tend()
    hand.turn()
    hand.table.seen(address, "main", "what it was before", "an older one", ["one"])
    assert hand.table.last_seen(address, "main") == head
    assert hand.row("one").waits > 0
    hand.table.seen(address, "main", head, "a newer one", ["one"])
    assert hand.table.last_seen(address, "main") == "a newer one"
    assert hand.row("one").waits <= 0 < hand.row("two").waits


def test_a_commit_that_was_seen_before_a_person_had_a_later_one_taken_is_no_branch_that_went_back(hand):
    hand.look()
    hand.turn("one")
    first = hand.estate.origin.head
    hand.estate.commit({"one": "198.51.100.2"})
    hand.table.due(["one"], "request", fresh=True)
    hand.turn("one")
    assert (hand.row("one").commit, hand.table.last_seen(str(hand.estate.origin.bare), "main", fresh=True)) == (
        hand.estate.origin.head,
        first,
    )
    hand.table.due(["one"], "interval")
    hand.turn("one")
    assert (hand.row("one").state, hand.row("one").troubles) == ("in_sync", ())


def test_a_worker_that_is_to_end_in_the_middle_of_an_apply_leaves_the_rest_to_the_next_at_once(hand):
    hand.tend()
    stopped = threading.Event()
    hand.estate.tape.before = lambda _stack, _request: stopped.set()
    hand.worker(stopped=stopped.is_set).turn("one")
    row = hand.row("one")
    assert hand.table.history("one", 1)[0].result == "stopped"
    assert (row.worker, row.waits <= 2.0, row.cause) == (None, True, "revision")
    hand.estate.tape.before = None
    hand.turn("one")
    assert hand.row("one").state == "in_sync"


def test_a_transaction_that_is_left_open_holds_up_nobody_for_long(hand, monkeypatch):
    monkeypatch.setattr(database, "_LIMITS", "SET idle_in_transaction_session_timeout = '100ms'")
    with suppress(psycopg.Error), database.pool(hand.conninfo, 1) as pool, pool.connection() as left:
        left.execute("BEGIN")
        left.execute("SELECT 1 FROM fleet_stacks FOR UPDATE")
        assert hand.table.claim("one", "a worker")


def test_a_connection_to_what_has_become_a_standby_is_not_kept(hand):
    with database.pool(hand.conninfo, 1) as pool:
        with pool.connection() as at:
            at.execute("SET default_transaction_read_only = on")
        table = Table(pool)
        with pytest.raises(DatabaseAway, match="read-only"):
            table.suspend(None, None)
        table.suspend(None, None)


def test_what_only_a_daemon_serves_is_told_and_wakes_nobody(hand):
    text = DIRECTORY.format(name="one", address="192.0.2.1") + "daemon: {notices: [{env: USER_PASSWORD}]}\n"
    hand.estate.origin.commit({"stacks/one/reconciler.yaml": text})
    hand.tend()
    hand.turn()
    hand.sql("UPDATE fleet_stacks SET since = since - interval '1 day'")
    told = summary(hand.table.rows(), hand.table.whole())
    assert [(item.target, item.title.split()[0], item.stacks) for item in told.causes] == [
        ("daemon", "notices,", ("one",))
    ]
    assert causes(told) == []


def test_a_group_whose_stacks_nobody_takes_is_told(hand):
    hand.inventory("  one: {group: eu}\n  two:\n  three:\n")
    hand.turn("two", "three")
    hand.sql("UPDATE fleet_stacks SET due = clock_timestamp() - interval '1 hour' WHERE name = 'one'")
    (problem,) = summary(hand.table.rows(), hand.table.whole()).problems
    assert str(problem).startswith(
        "group eu: its stacks wait for a worker that does not come: one (see that `fleet work"
    )


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
    hand.sql("UPDATE fleet SET release = '99.1'")
    with pytest.raises(ReconcilerError, match=r"kept by reconciler 99\.1, and this is .*, which is older"):
        database.check(hand.pool)
    with pytest.raises(ReconcilerError, match="older"):
        database.init(hand.pool)
