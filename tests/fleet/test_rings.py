"""A shared revision's way through the rings: judged as values, and in a fleet."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given as tried_with
from hypothesis import strategies as st

from reconciler.fleet.rings import Member, Standing, given, judged

HEAD = """\
interval: 60s
poll: 1s
lease: 2s
rings: [{healthy: 1s}, {}]
shared: {repo: REPO}
"""


def steps(newest, *standing):
    return [(item.ring, item.revision) for item in given(newest, 3, dict(enumerate(standing)))]


def test_a_fleet_without_any_gets_the_first_revision_at_once():
    assert steps("a") == [(0, "a"), (1, "a"), (2, "a")]


def test_a_revision_goes_on_when_the_ring_before_was_healthy_for_its_time():
    assert Standing(0, "b", 10.0).settles({"healthy": 10})
    assert not Standing(0, "b", 9.0).settles({"healthy": 10})
    assert not Standing(0, "b", None).settles({"healthy": 0})
    settled = [Standing(at, "a", 99.0, settled=True) for at in range(3)]
    assert steps("a", *settled) == []
    assert steps("b", *settled) == [(0, "b")]
    first = Standing(0, "b", 9.0)
    assert steps("b", first, *settled[1:]) == []
    assert steps("b", replace(first, settled=True), *settled[1:]) == [(1, "b")]
    passed = [replace(first, settled=True), Standing(1, "b", 0.0)]
    assert steps("b", *passed, settled[2]) == []
    assert steps("b", passed[0], replace(passed[1], settled=True), settled[2]) == [(2, "b")]


def test_a_newer_one_begins_at_the_first_ring_and_does_not_jump_over_any():
    standing = Standing(0, "b", 90.0, settled=True), Standing(1, "b", 5.0), Standing(2, "a", 9.0, settled=True)
    assert steps("c", *standing) == [(0, "c")]


@tried_with(
    st.lists(st.tuples(st.sampled_from(["in_sync", "failed", "stale", "healing"]), st.booleans())), st.integers(0, 3)
)
def test_more_ill_stacks_than_may_be_stop_it_and_those_ill_before_do_not_count(found, limit):
    members = [Member(f"s{at}", state, "b", "b", sound) for at, (state, sound) in enumerate(found)]
    healthy, stopped = judged(members, "b", limit)
    counted = [item for item in members if item.sound]
    ill = sum(item.state in ("failed", "stale") for item in counted)
    assert (bool(stopped) and not healthy) == (ill > limit or (bool(members) and not counted))
    assert healthy == (not stopped and not any(item.state == "healing" for item in counted))


def test_a_ring_whose_stacks_are_all_suspended_proves_nothing():
    asleep = Member("s1", "suspended", "b", "b", sound=True)
    assert judged([asleep], "b", 0) == (False, "all stacks of the ring are suspended, so none can tell")
    assert judged([asleep, Member("s2", "in_sync", "b", "b", sound=True)], "b", 0) == (True, "")
    assert judged([], "b", 0) == (True, "")


@pytest.fixture
def ringed(hand):
    """Stack one in ring 0, the others in ring 1, with a line of policy that they share."""
    hand.estate.origin.commit({"shared/policy.yaml": "policy: {max_deletes: 7}\n"})
    hand.inventory("  one: {ring: 0}\n  two:\n  three:\n", HEAD.replace("REPO", str(hand.estate.origin.bare)))
    for _ in range(2):
        hand.tend()
        hand.turn()
    settle(hand)
    return hand


def settle(hand):
    """Let the time pass that rings have to be healthy."""
    hand.tend()
    hand.sql("UPDATE fleet_rollout SET healthy = healthy - interval '1 hour'")
    hand.tend()


def test_all_have_the_shared_files_beside_their_own(ringed):
    assert [ringed.row(name).state for name in ringed.estate.names] == ["in_sync"] * 3
    assert len({ringed.row(name).shared for name in ringed.estate.names} - {""}) == 1
    assert ringed.row("one").taken["own"]["max_deletes"] == 7


def test_a_good_shared_change_goes_ring_by_ring_and_an_own_one_at_once(ringed):
    first = ringed.row("two").shared
    second = ringed.estate.origin.commit({"shared/policy.yaml": "policy: {max_deletes: 8}\n"})
    ringed.look()
    ringed.estate.commit({"two": "198.51.100.2"})
    ringed.look()
    ringed.turn()
    assert [ringed.row(name).shared for name in ("one", "two")] == [second, first]
    assert ringed.estate.address("two") == "198.51.100.2"
    settle(ringed)
    ringed.turn()
    assert {ringed.row(name).shared for name in ringed.estate.names} == {second}
    assert ringed.row("two").taken["own"]["max_deletes"] == 8


def test_a_bad_shared_change_stops_in_ring_0_and_says_why_and_goes_on_when_it_is_mended(ringed):
    good = ringed.row("one").shared
    bad = ringed.estate.origin.commit({"shared/policy.yaml": "policy: {max_deletes: lots}\n"})
    ringed.look()
    ringed.estate.wipe("one")
    ringed.turn()
    settle(ringed)
    one, two = ringed.row("one"), ringed.row("two")
    assert (one.tried, one.shared, one.state) == (bad, good, "stale")
    assert ringed.estate.accounts("one"), "it is healed to what was good before"
    assert (two.tried, two.state) == (good, "in_sync")
    stopped = ringed.table.rollout()[0].stopped
    assert stopped.startswith(f"{bad[:12]} made 1 of 1 stacks ill, and 0 may be: one (")
    assert any(problem.summary == stopped for problem in ringed.said)
    mended = ringed.estate.origin.commit({"shared/policy.yaml": "policy: {max_deletes: 9}\n"})
    ringed.look()
    ringed.turn("one")
    ringed.tend()
    assert (ringed.row("one").shared, ringed.table.rollout()[0].stopped) == (mended, "")
    settle(ringed)
    ringed.turn()
    assert {ringed.row(name).shared for name in ringed.estate.names} == {mended}


def test_stacks_that_were_looked_at_before_any_revision_was_known_do_not_stop_the_first_for_ever(hand):
    """As by a worker that begins while another one fetches the shared files."""
    hand.estate.origin.commit({"shared/policy.yaml": "policy: {max_deletes: 7}\n"})
    hand.inventory("  one: {ring: 0}\n  two:\n  three:\n", HEAD.replace("REPO", str(hand.estate.origin.bare)))
    hand.turn()
    assert {hand.row(name).state for name in hand.estate.names} == {"failed"}
    hand.tend()
    hand.turn()
    settle(hand)
    assert hand.table.rollout()[0].settled
    newer = hand.estate.origin.commit({"shared/policy.yaml": "policy: {max_deletes: 8}\n"})
    hand.look()
    hand.turn()
    settle(hand)
    hand.turn()
    assert {hand.row(name).shared for name in hand.estate.names} == {newer}


def test_a_stack_that_was_ill_before_neither_stops_a_revision_nor_proves_it(ringed):
    ringed.inventory("  one: {ring: 0}\n  two: {ring: 0}\n  three:\n")
    ringed.estate._write_secrets("two", STALWART_URL="http://127.0.0.1:9")
    ringed.turn()
    ringed.tend()
    newer = ringed.estate.origin.commit({"shared/policy.yaml": "policy: {max_deletes: 8}\n"})
    ringed.look()
    ringed.turn()
    ringed.tend()
    assert ringed.row("two").state == "unreadable"
    assert not ringed.row("two").sound
    assert ringed.table.rollout()[0].revision == newer
    assert ringed.table.rollout()[0].age is not None
