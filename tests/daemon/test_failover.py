"""When consumers are switched and when they go back: never in vain, never to and fro, never against git."""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from reconciler.daemon.failover import HOUR, LONGEST, Course, Look, Terms, decided, is_due, looked, ruled
from reconciler.failover import Memory, place, recall, remember

TERMS = Terms("stalwart", "brevo", 600.0, 3600.0, "basis")
GOOD, BAD, BLIND = Look(True), Look(False, "no mail server answers"), Look(None)
SUSPENDED = Look(False, suspended=True)
HIDDEN = ("brevo1._domainkey.mana.how (CNAME) can't be seen",)


def goes(course: Course, look: Look, seconds: float, obstacles: tuple[str, ...] = (), terms: Terms = TERMS) -> Course:
    seen = looked(ruled(course, terms), look, seconds, "2026-11-29T12:00:00Z")
    return decided(seen, terms, obstacles if is_due(seen, terms) else (), "2026-11-29T12:00:00Z")


def after(course: Course, look: Look, minutes: int, obstacles: tuple[str, ...] = ()) -> Course:
    for _ in range(minutes):
        course = goes(course, look, 60.0, obstacles)
    return course


def over(minutes: int = 11) -> Course:
    return after(Course(), BAD, minutes)


# -------------------------------------------------------------------------------------------------------- over and back
def test_it_goes_over_after_the_whole_time_and_not_before():
    assert over(10).failover is None
    switched = over(11).failover
    assert switched is not None
    assert (switched.provider, switched.to, switched.why) == ("stalwart", "brevo", "no mail server answers")


def test_it_goes_back_after_the_provider_was_well_for_the_whole_time():
    assert after(over(), GOOD, 60).failover is not None
    assert after(over(), GOOD, 61).failover is None


@pytest.mark.parametrize("between", [BAD, BLIND, SUSPENDED])
def test_one_look_that_is_not_good_begins_the_way_back_anew(between):
    course = goes(after(over(), GOOD, 59), between, 60.0)
    assert after(course, GOOD, 60).failover is not None
    assert after(course, GOOD, 61).failover is None


@pytest.mark.parametrize("between", [GOOD, BLIND, SUSPENDED])
def test_one_look_that_is_not_bad_begins_the_way_over_anew(between):
    assert after(goes(over(9), between, 60.0), BAD, 10).failover is None


def test_a_standby_whose_records_are_not_visible_is_not_used_and_the_reason_is_kept():
    course = after(Course(), BAD, 30, HIDDEN)
    assert course.failover is None
    assert course.obstacles == HIDDEN
    assert goes(course, BAD, 60.0).failover is not None
    assert goes(course, GOOD, 60.0).obstacles == ()


def test_a_second_round_trip_waits_for_its_hour_and_says_so():
    back = after(over(), GOOD, 61)
    assert back.failover is None
    assert after(back, BAD, 11).failover is not None, "the hour since it went over has passed"
    short = replace(TERMS, back_after=60.0)
    course = over()
    for _ in range(3):
        course = goes(course, GOOD, 60.0, terms=short)
    assert course.failover is None
    course = after(course, BAD, 30)
    assert course.failover is None
    assert course.obstacles == ("it was switched over less than an hour ago",)
    assert after(course, BAD, 30).failover is not None


# ------------------------------------------------------------------------------------------------------------------ git
@pytest.mark.parametrize("terms", [None, replace(TERMS, basis="another")])
def test_what_a_person_says_ends_it_at_once(terms):
    assert ruled(over(), terms).failover is None


def test_the_same_words_end_nothing():
    assert ruled(over(), TERMS).failover == over().failover


def test_what_was_ended_does_not_come_back_with_the_former_words():
    assert ruled(ruled(over(), replace(TERMS, basis="another")), TERMS).failover is None


# ---------------------------------------------------------------------------------------------------------------- clock
@pytest.mark.parametrize("seconds", [-1e9, 0.0, 1e9])
def test_a_jump_switches_nothing(seconds):
    course = goes(goes(Course(), BAD, 60.0), BAD, seconds)
    assert course.failover is None
    assert course.lasts <= LONGEST
    assert goes(goes(over(), GOOD, 60.0), GOOD, seconds).failover is not None


def test_a_pause_is_a_minute_at_most():
    assert TERMS.pause == 60.0
    assert replace(TERMS, after=2.0).pause == 1.0


LOOKS = st.sampled_from([GOOD, BAD, BLIND, SUSPENDED])
STEPS = st.tuples(
    LOOKS,
    st.floats(-1e4, 1e5),
    st.booleans(),  # whether the standby's records are visible
    st.sampled_from(["", "", "", "restart", "basis"]),
)


@given(st.lists(STEPS, max_size=200), st.floats(1.0, 4000.0), st.floats(1.0, 8000.0))
@example([(BAD, 60.0, True, "")] * 2 + [(GOOD, 60.0, True, "")] * 2 + [(BAD, 60.0, True, "")] * 80, 1.0, 1.0)
def test_whatever_is_seen_it_never_goes_to_and_fro(steps, long_bad, long_good):
    terms = replace(TERMS, after=long_bad, back_after=long_good)
    course, clock = Course(), 0.0
    switches: dict[bool, list[float]] = {True: [], False: []}
    for look, seconds, visible, event in steps:
        if event == "restart":
            course = Course.recalled(course.memory)
        elif event == "basis":
            terms = replace(terms, basis=terms.basis + "x")
            course = ruled(course, terms)
            assert course.failover is None
        before = ruled(course, terms)
        clock += max(0.0, seconds)
        course = goes(course, look, seconds, () if visible else HIDDEN, terms)
        if (before.failover is None) != (course.failover is None):
            switches[course.failover is not None].append(clock)
            assert not look.suspended
            assert look is (BAD if course.failover else GOOD)
            assert visible or course.failover is None
            assert course.lasts >= (long_bad if course.failover else long_good)
    for times in switches.values():
        assert all(later - earlier >= HOUR - 1e-6 for earlier, later in itertools.pairwise(times))


# --------------------------------------------------------------------------------------------------------------- memory
def test_it_survives_a_restart_and_begins_to_count_anew(tmp_path: Path):
    course = after(over(), GOOD, 59)
    remember(tmp_path, "mana", course.memory)
    assert place(tmp_path, "mana").stat().st_mode & 0o777 == 0o600
    memory, damage = recall(tmp_path, "mana")
    assert (memory, damage) == (course.memory, "")
    again = Course.recalled(memory)
    assert again.failover == course.failover
    assert goes(again, GOOD, 60.0).failover is not None
    assert after(again, GOOD, 61).failover is None


def test_without_a_file_nothing_has_failed_over(tmp_path: Path):
    assert recall(tmp_path, "mana") == (Memory(), "")


DAMAGED = [
    "", "{", "[]", "null", '{"failover": null}', '{"failover": null, "over": -1, "back": null}',
    '{"failover": null, "over": true, "back": null}', '{"failover": {"to": "brevo"}, "over": null, "back": null}',
    json.dumps(asdict(over().memory)).replace('"brevo"', "7"),
]  # fmt: skip


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_file_is_no_failover_and_nothing_is_switched_for_an_hour(tmp_path: Path, content: str):
    place(tmp_path, "mana").write_text(content)
    memory, damage = recall(tmp_path, "mana")
    assert "is damaged" in damage
    assert memory.failover is None
    course = after(Course.recalled(memory), BAD, 59)
    assert course.failover is None
    assert after(course, BAD, 2).failover is not None
