"""What all workers share: limits of accounts, one writer a server, refused logins, clocks that jump, and no secret."""

from __future__ import annotations

import subprocess
import threading
import time

import pytest
from fleet.estate import ADMIN, TOKEN, USER

from reconciler import fence
from reconciler.fleet.table import Ended, queues
from reconciler.fleet.turn import Claim
from reconciler.problem import LeaseHeld, LeaseLost
from reconciler.suspension import Suspension

pytestmark = pytest.mark.xdist_group("fleet")


# ------------------------------------------------------------------------------------------------------------ accounts
def test_an_account_takes_a_burst_and_then_its_rate_whoever_asks(hand):
    began = time.monotonic()
    waits = [hand.table.pay("acme", 3000.0) for _ in range(640)]
    lasted = time.monotonic() - began
    assert waits[:600] == [0.0] * 600, "a fifth of its window at once"
    assert 3.8 - lasted < waits[-1] < 4.1, "and one each tenth of a second from then on"
    assert hand.table.pay("other", 3000.0) == 0.0


def test_an_account_is_one_for_all_threads(hand):
    (began,) = hand.sql("SELECT clock_timestamp() AS at")

    def ask():
        for _ in range(20):
            hand.table.pay("acme", 300.0)

    threads = [threading.Thread(target=ask) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (found,) = hand.sql("SELECT next, clock_timestamp() AS at FROM fleet_accounts")
    lasted = (found["at"] - began["at"]).total_seconds()
    ahead = (found["next"] - began["at"]).total_seconds()
    assert 40 <= ahead <= 40 + lasted, "a burst of 60, and each of the others has a second of its own"


def test_nobody_waits_for_ever_where_the_clock_went_back(hand):
    hand.table.pay("acme", 3000.0)
    hand.sql("UPDATE fleet_accounts SET next = next + interval '1 day'")
    hand.table.pay("acme", 3000.0)
    assert hand.table.pay("acme", 3000.0) < 1.0


def test_requests_to_cloudflare_wait_their_turn_and_others_do_not(hand):
    began = time.monotonic()
    hand.sql("INSERT INTO fleet_accounts VALUES ('one', clock_timestamp() + interval '1 s')")
    hand.turn("one")
    assert time.monotonic() - began >= 1.0
    assert hand.row("one").state == "in_sync"
    claim = Claim(hand.table, hand.row("one"), 1.0)
    hand.sql("UPDATE fleet_accounts SET next = clock_timestamp() + interval '1 hour'")
    claim.pay("stalwart")


# ------------------------------------------------------------------------------------------------------------- servers
def test_one_stack_at_a_time_is_written_to_a_server(hand):
    hand.inventory("  one: {server: mx1}\n  two: {server: mx1}\n  three: {server: mx2}\n")
    rows = [hand.table.claim(name, "me") for name in ("one", "two", "three")]
    one, two, three = (Claim(hand.table, row, 1000.0) for row in rows)
    with one.writing(), three.writing(), pytest.raises(LeaseHeld, match="another stack is being written to mx1"):
        two.writing().__enter__()
    with two.writing():
        pass
    with one.writing():
        hand.lose("one")  # its worker is gone
        with two.writing():
            pass


def test_a_stack_whose_server_is_written_to_looks_only_and_is_due_again_in_a_moment(hand):
    hand.inventory("  one: {server: mx1}\n  two: {server: mx1}\n  three:\n")
    other = hand.table.claim("two", "another worker")
    assert hand.table.occupy(other, "mx1")
    hand.turn("one")
    row = hand.row("one")
    assert (hand.table.history("one", 1)[0].result, row.waits <= 2.0) == ("busy", True)
    assert hand.estate.tape.of("one") == []
    hand.table.leave(other)
    hand.turn("one")
    assert hand.row("one").state == "in_sync"


@pytest.mark.parametrize("word", ["command", "fleet", "inventory", "left out", "moved"])
def test_t14_a_word_that_comes_while_a_stack_is_looked_at_counts_before_anything_is_written(hand, monkeypatch, word):
    """To fetch and to compare may take minutes, and whoever suspends it is told that nothing is written."""
    stop = Suspension("stop", "ada", "2026-11-30T12:00:00Z")
    ways = {
        "command": lambda: hand.table.suspend(["one"], stop),
        "fleet": lambda: hand.table.suspend(None, stop),
        "inventory": lambda: hand.inventory("  one: {suspended: stop}\n  two:\n"),
        "left out": lambda: hand.inventory("  two:\n"),
        "moved": lambda: hand.inventory("  one: {branch: other}\n  two:\n"),
    }
    writing = Claim.writing

    def late(claim):
        ways[word]()
        return writing(claim)

    monkeypatch.setattr(Claim, "writing", late)
    hand.turn("one")
    assert hand.estate.tape.of("one") == []
    assert hand.table.history("one", 1)[0].result == "busy"


# -------------------------------------------------------------------------------------------------------------- logins
def test_a_refused_login_is_tried_once_by_one_worker_until_a_person_says_so(hand):
    hand.estate._write_secrets("one", STALWART_ADMIN_PASSWORD="mistyped")
    hand.turn("one", data="machine-a")
    row, refused = hand.row("one"), hand.estate.refused
    assert (refused["one"], row.state, row.stalled, bool(row.home)) == (1, "held", True, True)
    hand.turn("one", data="machine-a")
    assert hand.row("one").home == row.home, "while nobody asks it, too"
    hand.sql("UPDATE fleet_stacks SET ended = ended - interval '1 hour'")
    hand.sql("UPDATE fleet_stacks SET due = clock_timestamp()")
    hand.tend()
    queue = hand.sql("SELECT queue_name FROM procrastinate_jobs WHERE queueing_lock = 'stack one'")[0]["queue_name"]
    listening = {data: hand.worker(data=data).place.home for data in ("machine-a", "machine-b")}
    assert queue in queues(["default"], listening["machine-a"])
    assert queue not in queues(["default"], listening["machine-b"])
    hand.turn("one", data="machine-a")
    assert refused["one"] == 1, "who knows of it does not try again"
    hand.estate._write_secrets("one")
    hand.table.due(["one"], "request", fresh=True)
    hand.tend()
    queue = hand.sql("SELECT queue_name FROM procrastinate_jobs WHERE queueing_lock = 'stack one'")[0]["queue_name"]
    assert queue in queues(["default"], listening["machine-b"])
    hand.turn("one", data="machine-a")
    assert (hand.row("one").state, hand.row("one").home) == ("in_sync", None)


# --------------------------------------------------------------------------------------------------------- generations
def test_who_was_overtaken_may_write_nothing_and_ends_nothing(hand):
    first = hand.table.claim("one", "first")
    claim = Claim(hand.table, first, 1000.0)
    with fence.within(claim):
        fence.before_write()
        hand.lose("one")
        second = hand.table.claim("one", "second")
        with pytest.raises(LeaseLost, match="another worker has taken the stack, so nothing more was written"):
            fence.before_write()
    assert second.generation > first.generation
    assert not hand.table.end(first, Ended("done", "in_sync", 60.0, "interval"))
    assert hand.row("one").worker == "second"


def test_a_standby_that_lacks_the_last_takeover_gives_nobody_the_same_right_again(hand):
    first = hand.table.claim("one", "first")
    hand.sql("UPDATE fleet_stacks SET generation = generation - 1, worker = NULL, due = clock_timestamp()")
    hand.sql("DELETE FROM fleet_runs")
    second = hand.table.claim("one", "second")
    assert second.generation == first.generation
    assert not hand.table.holds(first)
    assert not hand.table.occupy(first, "mx1")
    assert not hand.table.end(first, Ended("done", "in_sync", 60.0, "interval"))
    assert hand.table.holds(second)


# -------------------------------------------------------------------------------------------------------------- clocks
TIMES = {
    "fleet_stacks": ("due", "began", "since", "proven", "ended"),
    "fleet_repositories": ("looked",),
    "fleet": ("looked",),
    "fleet_accounts": ("next",),
}


@pytest.mark.few(of=lambda jump: jump[0] == "-")
@pytest.mark.parametrize("jump", ["1 day", "-1 day", "10 minutes", "-10 minutes"])
def test_a_clock_that_jumps_delays_nothing_by_more_than_its_time(hand, jump):
    """All that is remembered moves the other way, which is the same."""
    hand.tend()
    hand.turn()
    for table, columns in TIMES.items():
        moved = ", ".join(f"{name} = {name} - interval '{jump}'" for name in columns)
        hand.sql(f"UPDATE {table} SET {moved}" + (" WHERE due <> 'infinity'" if table == "fleet_stacks" else ""))
    hand.estate.commit({"one": "198.51.100.1"})
    hand.sql("DELETE FROM procrastinate_jobs")
    hand.tend()
    waiting = {row["queueing_lock"] for row in hand.sql("SELECT queueing_lock FROM procrastinate_jobs")}
    assert waiting == {f"stack {name}" for name in hand.estate.names}
    hand.turn()
    assert [hand.estate.address(name) for name in hand.estate.names] == ["198.51.100.1", "192.0.2.1", "192.0.2.1"]
    assert all(0 < row.waits <= 60 for row in hand.table.rows())


# ------------------------------------------------------------------------------------------------------------- secrets
def test_no_secret_and_no_live_value_is_in_the_database_nor_in_its_log(hand):
    hand.tend()
    hand.turn()
    hand.estate.wipe("two")
    hand.estate.commit({"three": "203.0.113.33"})
    hand.estate._write_secrets("one", STALWART_ADMIN_PASSWORD="another-canary")
    hand.turn()
    hand.estate.cloudflare.tokens.clear()
    hand.turn()
    hand.tend()
    assert hand.row("one").stalled
    dump = subprocess.run(
        [str(hand.cluster.programs / "pg_dump"), hand.conninfo], check=True, capture_output=True, text=True
    ).stdout
    assert "fleet_stacks" in dump
    log = hand.cluster.log.read_text(errors="replace")
    assert "fleet_stacks" in log
    for text in (dump, log):
        for secret in (TOKEN, ADMIN, USER, "another-canary", "203.0.113.33", "192.0.2.1"):
            assert secret not in text


def test_a_stack_sees_its_own_secrets_and_none_of_the_worker_or_of_another(hand):
    hand.environ["RECONCILER_DATABASE"] = hand.environ["MY_TOKEN"] = TOKEN
    other = hand.estate.secrets / "two.env"
    for reference in ("{env: RECONCILER_DATABASE}", "{env: MY_TOKEN}", "{env: PATH}", f"{{file: {other}}}"):
        text = hand.estate.origin.tree / "stacks/one/reconciler.yaml"
        hand.estate.commit({"one": "192.0.2.1"})
        changed = text.read_text().replace("{env: USER_PASSWORD}", reference)
        hand.estate.origin.commit({"stacks/one/reconciler.yaml": changed})
        hand.turn("one")
        assert hand.row("one").state != "in_sync", reference
        assert hand.estate.accounts("one") == []
