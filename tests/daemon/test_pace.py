"""Back-off of a target, and the end of a fight over a field."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from reconciler.daemon.cycle import Report, failed
from reconciler.daemon.pace import Carried, Contests, Pace
from reconciler.daemon.state import Result
from reconciler.plan import Plan
from reconciler.problem import Problem

FIELD = ("dns/mana.how/A/mail", "content")
HOUR = 3600.0


@given(st.integers(1, 200), st.floats(2.0, 7200.0), st.floats(0.0, 1.0), st.booleans())
def test_a_failure_is_tried_again_later_each_time_and_at_the_latest_at_its_cap(times, interval, dice, writing):
    pace, now, pauses = Pace(), 0.0, []
    for _ in range(times):
        pace = pace.failed(now, interval, dice, writing=writing)
        pauses.append(round(pace.retry - now, 3))
        now = pace.retry
    assert pace.failures == times
    assert pauses == sorted(pauses)
    assert 2.5 <= pauses[0] <= 5.0
    assert pauses[-1] <= (3600.0 if writing else max(interval, 30.0))


def test_what_restarts_a_service_is_done_five_times_in_five_minutes_at_most():
    pace, now, tries = Pace(), 0.0, 1
    while (pace := pace.failed(now, 2.0, 1.0, writing=True)).retry < 300.0:
        now, tries = pace.retry, tries + 1
    assert tries <= 6


def test_three_times_within_an_hour_is_a_contest():
    contests = Contests().mended([FIELD], 0.0).mended([FIELD], 600.0)
    assert not contests.open(600.0)
    contests = contests.mended([FIELD], 1200.0)
    assert set(contests.open(1200.0)) == {FIELD}
    assert contests.open(1200.0 + 899.0)
    assert not contests.open(1200.0 + 901.0)


def test_three_times_in_a_long_time_is_none():
    contests = Contests()
    for day in range(10):
        contests = contests.mended([FIELD], day * HOUR * 2)
    assert not contests.open(18 * HOUR)


def test_who_goes_on_is_left_alone_for_longer_each_time_up_to_a_day():
    contests, now, pauses = Contests(), 0.0, []
    for _ in range(40):
        contests = contests.mended([FIELD], now)
        if (item := contests.open(now).get(FIELD)) is not None:
            pauses.append(item.pause)
            now = item.until
        now += 1.0
    assert pauses[0] == 900.0
    assert pauses == sorted(pauses)
    assert pauses[-1] == 86_400.0


def test_a_contest_that_is_over_is_forgotten():
    contests = Contests()
    for now in (0.0, 1.0, 2.0):
        contests = contests.mended([FIELD], now)
    contests = contests.mended([], 3 * HOUR)
    assert contests.known == {}


@given(st.lists(st.tuples(st.floats(0.0, 100_000.0), st.sampled_from("abc")), max_size=60))
def test_what_is_known_stays_small_and_only_of_the_fields_that_were_mended(events):
    contests = Contests()
    for now, name in sorted(events):
        if ("x", name) not in contests.open(now):
            contests = contests.mended([("x", name)], now)
        assert all(len(item.times) <= 3 or not item.until for item in contests.known.values())
        assert set(contests.known) <= {("x", item) for item in "abc"}


def test_what_is_carried_to_another_process_is_what_it_was_however_its_clock_counts():
    contests = Contests()
    for at in (1000.0, 1010.0, 1020.0):
        contests = contests.mended([("dns/a.example/A/@", "ttl")], at)
    paces = {"stalwart": Pace(3, 1045.0)}
    said = json.loads(json.dumps(Carried("digest", paces, frozenset({"stalwart"}), contests).as_json(1030.0)))
    found = Carried.parse(said, now=50.0, age=10.0)  # its clock is 990 seconds behind, and ten have passed
    assert (found.digest, found.lasting) == ("digest", {"stalwart"})
    assert found.paces == {"stalwart": Pace(3, 55.0)}
    assert set(found.contests.open(50.0)) == {("dns/a.example/A/@", "ttl")}
    assert not found.contests.open(50.0 + 900.0)
    assert found.contests.known["dns/a.example/A/@", "ttl"].times == (10.0, 20.0, 30.0)


def test_a_target_that_can_not_be_read_says_why_whichever_of_its_things_it_is():
    why = Problem("account/noreply@mana.how", "two accounts have this name")
    plan = Plan("mana", unread=frozenset({"stalwart"}), problems=(Problem("dns/mana.how", "is no zone"), why))
    assert failed(Report(Result.FAILED, plan), "stalwart") == (why, False)
