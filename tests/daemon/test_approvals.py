"""What the daemon holds until a person approves it, and that healing never waits for that."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from daemon.test_loop import DIRECTORY, MAIL, content, watched  # noqa: F401 (a fixture)
from systems import System

from reconciler.daemon import approvals
from reconciler.daemon.approvals import Memory, approve, recall
from reconciler.daemon.document import document, standing
from reconciler.daemon.loop import Loop
from reconciler.daemon.notices import Known, due
from reconciler.daemon.state import Cause, Result
from reconciler.problem import ReconcilerError, Refused
from reconciler.resources import Account, Different, Same, Unreadable

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


# ------------------------------------------------------------------------------------------------ values of secrets
ACCOUNT = "account/noreply@mana.how"
SECRETS = PLAN + (
    "accounts:\n"
    "  noreply@mana.how: {password: {file: noreply}, description: Letters}\n"
    "  other@mana.how: {password: {file: other}}\n"
)
FIRST, SECOND, THIRD = "canary-first-8f2a", "canary-second-77c1", "canary-third-0b6d"


class Passwords:
    """What each account's password is in a system that compares: a hash there, and here the value."""

    def __init__(self, watched, monkeypatch):  # noqa: F811
        self.live: dict[str, str] = {}
        self.folder = watched.directory
        self.put(FIRST, "noreply")
        self.put("canary-other-5e5e", "other")
        monkeypatch.setattr(System, "observe", self.comparing(System.observe))
        monkeypatch.setattr(System, "apply", self.noting(System.apply))

    def put(self, value: str, name: str = "noreply") -> None:
        path = self.folder / name
        path.write_text(value)
        os.utime(path, ns=(0, (path.stat().st_mtime_ns // 10**9 + len(self.live) + 1) * 10**9))

    def comparing(self, observe):
        def compared(system, wanted, reveal):
            seen = observe(system, wanted, reveal)
            refs = {item.address: item.password for item in wanted if isinstance(item, Account)}

            def judge(item):
                known, ref = self.live.get(item.resource.address), refs.get(item.resource.address)
                if known is None or ref is None:
                    return item
                verdict = Same(ref) if reveal(ref) == known else Different()
                return replace(item, resource=replace(item.resource, password=verdict))

            return replace(seen, live=[judge(item) for item in seen.live])

        return compared

    def noting(self, apply):
        def noted(system, changes, reveal, stopped):
            for outcome in apply(system, changes, reveal, stopped):
                after = outcome.change.after
                if isinstance(after, Account) and "password" in outcome.change.fields:
                    self.live[after.address] = reveal(after.password)
                # What it had in the place of that was compared, and so is no more what the world holds.
                system.world.live = list({item.resource.address: item for item in system.world.live}.values())
                yield outcome

        return noted


@pytest.fixture
def secrets(agreed, monkeypatch):
    """A stack with two accounts that was agreed as a whole, and what their passwords are."""
    passwords = Passwords(agreed, monkeypatch)
    agreed.revise(SECRETS.replace("approval: plan", "approval: merge"))
    assert agreed.cycle(Cause.REVISION).cycle.result is Result.DONE
    agreed.revise(SECRETS)
    assert agreed.cycle(Cause.REVISION).cycle.result is Result.NOTHING
    assert passwords.live == {ACCOUNT: FIRST, "account/other@mana.how": "canary-other-5e5e"}
    return agreed, passwords


def leaves_no_canary(watched):  # noqa: F811
    for path in data(watched).rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert b"canary" not in content, path
            for value in (FIRST, SECOND, THIRD):
                assert hashlib.sha256(value.encode()).hexdigest().encode() not in content, path
            assert path.stat().st_mode & 0o077 == 0 or path.name == ".gitignore", path


@pytest.mark.parametrize("restart", [False, True])
def test_another_value_behind_the_same_reference_is_held_until_it_is_approved(secrets, restart):
    watched, passwords = secrets  # noqa: F811
    passwords.put(SECOND)
    if restart:
        restarted(watched)
    state = watched.cycle()
    assert held(state) == {ACCOUNT: f"reconciler approve {wait(state)}"}
    assert "{file: noreply} has another value than was agreed" in state.plan.held[0].summary
    assert passwords.live[ACCOUNT] == FIRST
    assert list(held(watched.cycle())) == [ACCOUNT]
    approve(data(watched), "mana", [wait(state)], "a person")
    assert watched.cycle().cycle.result is Result.DONE
    assert passwords.live[ACCOUNT] == SECOND
    assert watched.cycle().cycle.result is Result.NOTHING
    leaves_no_canary(watched)


@pytest.mark.parametrize("restart", [False, True])
def test_who_approves_one_value_approves_no_other(secrets, restart):
    watched, passwords = secrets  # noqa: F811
    passwords.put(SECOND)
    approve(data(watched), "mana", [wait(watched.cycle())], "a person")
    passwords.put(THIRD)
    if restart:
        restarted(watched)
    assert list(held(watched.cycle())) == [ACCOUNT]
    assert passwords.live[ACCOUNT] == FIRST
    passwords.put(SECOND)
    assert watched.cycle().cycle.result is Result.DONE
    assert passwords.live[ACCOUNT] == SECOND
    passwords.put(FIRST)  # an old one is another one, too
    assert list(held(watched.cycle())) == [ACCOUNT]
    approve(data(watched), "mana", [wait(watched.cycle())], "a person")
    watched.cycle()
    passwords.put(SECOND)  # was approved once, and that is over
    assert list(held(watched.cycle())) == [ACCOUNT]
    assert passwords.live[ACCOUNT] == FIRST


def test_all_else_heals_while_a_value_is_held(secrets):
    watched, passwords = secrets  # noqa: F811
    passwords.put(SECOND)
    watched.cycle()
    passwords.live["account/other@mana.how"] = "changed by hand"
    watched.world.alter(ACCOUNT, description="changed by hand")
    watched.world.alter(MAIL, content="198.51.100.7")
    state = watched.cycle()
    assert passwords.live == {ACCOUNT: FIRST, "account/other@mana.how": "canary-other-5e5e"}
    [account] = [item.resource for item in watched.world.live if item.resource.address == ACCOUNT]
    assert account.description == "Letters"
    assert content(watched.world) == "192.0.2.1"
    assert list(held(state)) == [ACCOUNT]


def test_a_lost_account_never_waits_for_its_value(secrets):
    watched, passwords = secrets  # noqa: F811
    passwords.put(SECOND)
    watched.cycle()
    watched.world.live = [item for item in watched.world.live if item.resource.target != "stalwart"]
    passwords.live.clear()
    assert watched.cycle().cycle.result is Result.DONE
    assert passwords.live[ACCOUNT] == SECOND
    assert watched.cycle().cycle.result is Result.NOTHING


def test_a_value_that_is_taken_back_leaves_nothing_to_approve(secrets):
    watched, passwords = secrets  # noqa: F811
    passwords.put(SECOND)
    named = wait(watched.cycle())
    passwords.put(FIRST)
    assert watched.cycle().cycle.result is Result.NOTHING
    with pytest.raises(Refused):
        approve(data(watched), "mana", [named], "a person")


@pytest.mark.parametrize("name", ["seal.key", "seals-mana.json"])
@pytest.mark.parametrize("damage", [None, b"", b"{", b"\xff" * 31, b'{"v": 1, "key": "\xc3\xa4", "seals": {}}'])
def test_without_its_knowledge_of_values_it_heals_says_so_and_knows_again(secrets, name, damage):
    watched, passwords = secrets  # noqa: F811
    path = data(watched) / name
    path.unlink() if damage is None else path.write_bytes(damage)
    restarted(watched)
    passwords.live[ACCOUNT] = "changed by hand"
    state = watched.cycle()
    assert passwords.live[ACCOUNT] == FIRST
    told = [item.summary for item in state.cycle.problems]
    gone = name == "seals-mana.json" and damage is None  # as at the first start
    assert any("whether a secret has changed" in item for item in told) is not gone
    assert watched.cycle().cycle.problems == ()
    passwords.put(SECOND)
    assert list(held(watched.cycle())) == [ACCOUNT]
    assert (data(watched) / "seal.key").stat().st_mode & 0o777 == 0o600


def test_a_key_is_made_once(secrets):
    watched, passwords = secrets  # noqa: F811
    key = (data(watched) / "seal.key").read_bytes()
    passwords.put(SECOND)
    watched.cycle()
    restarted(watched)
    watched.cycle()
    assert (data(watched) / "seal.key").read_bytes() == key
    assert len(key) == 32


def test_a_value_that_the_server_does_not_tell_of_stays_to_be_approved(secrets, monkeypatch):
    """From 0.16 a password may be known only once it is tried: until then nothing is known to have been agreed."""
    watched, passwords = secrets  # noqa: F811
    passwords.put(SECOND)
    told = System.observe

    def untold(system, wanted, reveal):
        seen = told(system, wanted, reveal)
        blind = Unreadable("never checked")
        live = [
            replace(it, resource=replace(it.resource, password=blind)) if it.resource.kind == "account" else it
            for it in seen.live
        ]
        return replace(seen, live=live)

    monkeypatch.setattr(System, "observe", untold)
    assert watched.cycle().cycle.result is Result.NOTHING
    monkeypatch.setattr(System, "observe", told)
    assert list(held(watched.cycle())) == [ACCOUNT]
    assert passwords.live[ACCOUNT] == FIRST


def test_a_new_reference_to_an_old_secret_lets_no_other_value_through(secrets):
    """An account that is new gets what its secret is now; what the others have of that secret is not agreed by that."""
    watched, passwords = secrets  # noqa: F811
    passwords.put(SECOND)
    watched.revise(SECRETS + "  third@mana.how: {password: {file: noreply}}\n")
    state = watched.cycle(Cause.REVISION)
    assert sorted(held(state)) == [ACCOUNT, "account/third@mana.how"]
    named = recall(data(watched), "mana").held["account/third@mana.how"]
    approve(data(watched), "mana", [named], "a person")
    state = watched.cycle()
    assert passwords.live["account/third@mana.how"] == SECOND
    assert list(held(state)) == [ACCOUNT]
    assert passwords.live[ACCOUNT] == FIRST
