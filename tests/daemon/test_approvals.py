"""What the daemon holds until a person approves it, and that healing never waits for that."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from daemon.test_loop import DIRECTORY, MAIL, content, watched  # noqa: F401 (a fixture)

from reconciler.daemon import approvals
from reconciler.daemon.approvals import Memory, approve, recall
from reconciler.daemon.document import document, standing
from reconciler.daemon.loop import Loop
from reconciler.daemon.notices import Known, due
from reconciler.daemon.state import Cause, Result
from reconciler.problem import ReconcilerError, Refused

PLAN = DIRECTORY + "policy: {approval: plan, max_deletes: 9}\n"
MERGE = DIRECTORY + "policy: {approval: merge, max_deletes: 9}\n"
CHANGED = PLAN.replace("192.0.2.1}", "192.0.2.2}")
TEXT = "dns/mana.how/TXT/@"


@pytest.fixture
def agreed(watched):  # noqa: F811
    """A stack that is as a revision says, of which everything was agreed."""
    watched.revise(MERGE)
    assert watched.cycle(Cause.START).cycle.result is Result.DONE
    watched.revise(PLAN)
    assert watched.cycle(Cause.REVISION).cycle.result is Result.NOTHING
    return watched


def data(watched):  # noqa: F811
    return watched.loop.settings().data


def restarted(watched):  # noqa: F811
    former = watched.loop
    watched.loop = Loop(watched.source, former.settings, former.board, former.bell, interval=300.0)


def held(state) -> dict[str, str]:
    return {item.where: item.hint for item in state.plan.held}


def wait(state) -> str:
    return next(iter(held(state).values())).split()[-1]


def test_a_change_is_held_told_and_done_once_it_is_approved(agreed):
    agreed.revise(CHANGED)
    state = agreed.cycle(Cause.REVISION)
    assert state.cycle.result is Result.PARTIAL
    assert content(agreed.world) == "192.0.2.1"
    assert held(state) == {MAIL: f"reconciler approve {recall(data(agreed), 'mana').held[MAIL][:16]}"}
    told = document(state, datetime.now(UTC))
    assert told["state"] == "refused"
    assert MAIL in [item["where"] for item in told["problems"]]
    notices, _ = due(Known(), state, datetime.now(UTC))
    assert any("a change waits for approval" in str(notice) for notice in notices)
    assert approve(data(agreed), "mana", [wait(state)], "a person") == {MAIL: recall(data(agreed), "mana").held[MAIL]}
    assert agreed.cycle().cycle.result is Result.DONE
    assert content(agreed.world) == "192.0.2.2"
    assert agreed.cycle().cycle.result is Result.NOTHING


@pytest.mark.parametrize("restart", [False, True])
def test_drift_and_losses_heal_while_something_is_held(agreed, restart):
    agreed.revise(CHANGED)
    agreed.cycle(Cause.REVISION)
    if restart:
        restarted(agreed)
    agreed.world.alter(MAIL, content="198.51.100.7")
    agreed.world.live = [
        it for it in agreed.world.live if it.resource.address != TEXT and it.resource.target != "stalwart"
    ]
    state = agreed.cycle()
    assert content(agreed.world) == "192.0.2.1"  # as was agreed last
    assert sorted(agreed.world.addresses) == [MAIL, TEXT, "domain/mana.how"]
    assert list(held(state)) == [MAIL]


@pytest.mark.parametrize("restart", [False, True])
def test_what_was_approved_heals_while_something_else_is_held(agreed, restart):
    agreed.revise(CHANGED.replace("hello", "goodbye"))
    state = agreed.cycle(Cause.REVISION)
    assert sorted(held(state)) == [MAIL, TEXT]
    approve(data(agreed), "mana", [held(state)[MAIL].split()[-1]], "a person")
    assert list(held(agreed.cycle())) == [TEXT]
    if restart:
        restarted(agreed)
    agreed.world.alter(MAIL, content="198.51.100.7")
    assert list(held(agreed.cycle())) == [TEXT]
    assert content(agreed.world) == "192.0.2.2"


def test_a_later_commit_voids_what_was_approved_and_not_done(agreed):
    agreed.revise(CHANGED)
    approve(data(agreed), "mana", [wait(agreed.cycle(Cause.REVISION))], "a person")
    agreed.revise(CHANGED.replace("hello", "goodbye"))
    state = agreed.cycle(Cause.REVISION)
    assert sorted(held(state)) == [MAIL, TEXT]
    assert content(agreed.world) == "192.0.2.1"


def test_a_commit_that_takes_it_back_leaves_nothing_held(agreed):
    agreed.revise(CHANGED)
    agreed.cycle(Cause.REVISION)
    agreed.revise(PLAN)
    state = agreed.cycle(Cause.REVISION)
    assert (state.cycle.result, held(state)) == (Result.NOTHING, {})


def test_a_first_start_without_any_agreement_holds_all_and_says_so(watched):  # noqa: F811
    watched.revise(PLAN)
    state = watched.cycle(Cause.START)
    assert watched.world.live == []
    assert sorted(held(state)) == [MAIL, TEXT, "domain/mana.how"]
    assert str(standing(state)) in ("refused", "lost")
    approve(data(watched), "mana", [hint.split()[-1] for hint in held(state).values()], "a person")
    assert watched.cycle().cycle.result is Result.DONE


@pytest.mark.parametrize(
    "damage", ["{", "[]", '{"v": 2}', '{"v": 1, "files": 3}', '{"v": 1, "files": {"a.yaml": "x"}}']
)
def test_damaged_memories_hold_and_never_apply(agreed, damage):
    restarted(agreed)
    for name in ("settled-mana.json", "approval-mana.json"):
        (data(agreed) / name).write_text(damage)
    agreed.revise(CHANGED)
    state = agreed.cycle(Cause.REVISION)
    assert list(held(state)) == [MAIL]
    assert content(agreed.world) == "192.0.2.1"
    assert approve(data(agreed), "mana", [wait(state)], "a person")


def test_nothing_is_approved_where_one_fingerprint_is_of_nothing_that_waits(agreed):
    agreed.revise(CHANGED)
    state = agreed.cycle(Cause.REVISION)
    with pytest.raises(Refused) as caught:
        approve(data(agreed), "mana", [wait(state), "0" * 16], "a person")
    assert wait(state) in caught.value.problems[0].hint
    assert recall(data(agreed), "mana").approved == {}


def test_a_data_directory_that_is_not_there_is_told(tmp_path):
    with pytest.raises(ReconcilerError):
        approve(tmp_path / "none", "mana", ["0" * 16], "a person")
    assert recall(tmp_path / "none", "mana") == Memory()


def test_what_can_not_be_written_is_told_and_held_all_the_same(agreed, monkeypatch):
    agreed.revise(CHANGED)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(approvals.files, "write_private", full)
    state = agreed.cycle(Cause.REVISION)
    assert list(held(state)) == [MAIL]
    assert any("nothing that is held can be approved" in item.summary for item in state.cycle.problems)


def test_the_memory_is_data_and_holds_no_secret(agreed):
    agreed.revise(CHANGED)
    agreed.cycle(Cause.REVISION)
    texts = json.loads((data(agreed) / "settled-mana.json").read_text())["files"]
    assert texts == {"reconciler.yaml": PLAN}
