"""One stack of a directory, with targets that keep their world in memory."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from systems import Connected, World

from reconciler import journal
from reconciler.applying import Apply, Reporter
from reconciler.desired.load import load
from reconciler.problem import Refused
from reconciler.reconcile import make_plan
from reconciler.settings import Settings
from reconciler.stack import Choice, Stack

DIRECTORY = """\
version: 1
stack: mana
targets: {cloudflare: {token: {env: TOKEN}}}
dns: {mana.how: [{type: A, name: mail, content: 192.0.2.1}]}
"""


@pytest.fixture
def stack(tmp_path):
    (tmp_path / "reconciler.yaml").write_text(DIRECTORY)
    made = Connected(load(tmp_path), Settings.read({}, tmp_path, tmp_path / "data"))
    made.world = World()
    return made


def of(folder: Path, world: World, data: Path, text: str = DIRECTORY) -> Connected:
    folder.mkdir(exist_ok=True)
    (folder / "reconciler.yaml").write_text(text)
    made = Connected(load(folder), Settings.read({}, folder, data))
    made.world = world
    return made


def applied(made: Connected) -> None:
    with Apply(made, "test") as apply:
        assert apply.carry_out(make_plan(made), Reporter(), lambda: False).word == "done"


def test_l5_what_another_directory_of_this_name_wrote_is_not_ours_where_they_share_a_data_directory(tmp_path):
    """The other one's records bear our mark, and its applies stand in our journal."""
    world, data, other = World(), tmp_path / "data", DIRECTORY.replace("name: mail", "name: other")
    applied(of(tmp_path / "theirs", world, data, other))
    plan = make_plan(of(tmp_path / "ours", world, data))
    assert [item.address for item in plan.changes if item.deletes] == ["dns/mana.how/A/other"]
    assert [item.where for item in plan.problems if "were never written or declared from here" in item.summary] == [
        "stack mana"
    ]


def test_drift_is_told_where_another_directory_was_applied_since(tmp_path):
    world, data = World(), tmp_path / "data"
    ours = of(tmp_path / "ours", world, data)
    applied(ours)
    of(tmp_path / "theirs", World(), data).journal.begin(journal.entry("mana", {}, desired_hash="another"))
    theirs = of(tmp_path / "theirs", World(), data, DIRECTORY.replace("name: mail", "name: other"))
    applied(theirs)
    assert ours.journal.last_whole().desired_hash == ours.directory.digest
    world.live = []
    assert make_plan(ours).drift == ("dns/mana.how/A/mail",)


def test_a_directory_that_moved_with_its_data_directory_keeps_its_past(tmp_path):
    (tmp_path / "here").mkdir()
    applied(of(tmp_path / "here/state", World(), tmp_path / "here/.reconciler"))
    (tmp_path / "here").rename(tmp_path / "there")
    moved = of(tmp_path / "there/state", World(), tmp_path / "there/.reconciler")
    assert len(moved.journal.entries()) == 1


def test_a_revision_in_a_folder_of_its_own_is_the_same_directory(tmp_path):
    """Where revisions come from a branch, the files of each lie elsewhere."""
    settings = Settings.read({}, tmp_path / "state", tmp_path / "data")
    for revision in ("one", "two"):
        (tmp_path / revision).mkdir()
        (tmp_path / revision / "reconciler.yaml").write_text(DIRECTORY)
        made = Connected(load(tmp_path / revision), settings)
        made.world = World()
        applied(made)
    assert len(made.journal.entries()) == 2


def test_t12_a_data_directory_out_of_a_commit_is_refused_whoever_makes_the_stack(tmp_path):
    data = tmp_path / ".reconciler"
    data.mkdir()
    (data / "passwords.json").write_text("{}")
    of(tmp_path / "state", World(), data)
    for arguments in (["init", "-q"], ["add", "-f", str(data)]):
        subprocess.run(["git", "-C", str(tmp_path), *arguments], check=True, capture_output=True)
    with pytest.raises(Refused, match="which git tracks"):
        of(tmp_path / "state", World(), data)


@pytest.mark.parametrize(("known", "reason"), [(True, "lost"), (False, "missing")])
def test_an_empty_server_has_lost_something_only_where_it_once_was_whole(tmp_path, known, reason):
    text = DIRECTORY.replace(
        "targets: {", "targets: {stalwart: {url: 'http://localhost', username: a, password: {env: P}}, "
    )
    text = text.replace("dns:", "domains: {mana.how: {}}\ndns:")
    world, data = World(), tmp_path / "data"
    made = of(tmp_path / "state", world, data, text)
    if known:
        applied(made)
        world.live = []
    plan = make_plan(made)
    assert plan.lost == {"stalwart"}
    assert {str(item.reason) for item in plan.changes if item.target == "stalwart"} == {reason}
    assert bool(plan.last_whole) == known


@pytest.mark.parametrize(("last", "drift"), [("this one", 1), ("another", 0), (None, 0)])
def test_drift_is_what_the_directory_did_not_cause(stack, last, drift):
    if last:
        digest = stack.directory.digest if last == "this one" else last
        entry = journal.entry(
            "mana", {}, targets=("cloudflare",), lost=(), revision="", desired_hash=digest, fingerprint=""
        )
        stack.journal.begin(entry)
        stack.journal.end(entry, "done", [], whole=True)
    assert len(make_plan(stack).drift) == drift


def test_targets_are_chosen_once_and_in_the_order_of_all(tmp_path):
    compose = "compose: {file: ../docker-compose.yml}"
    (tmp_path / "reconciler.yaml").write_text(DIRECTORY.replace("targets: {", f"targets: {{{compose}, "))
    choice = Choice(("compose", "cloudflare", "compose"))
    made = Connected(load(tmp_path), Settings.read({}, tmp_path, tmp_path / "data"), choice)
    assert made.chosen == ("cloudflare", "compose")


def test_several_compose_files_and_env_files_reach_the_target_in_their_order(tmp_path):
    state = tmp_path / "desired-state"
    state.mkdir()
    compose = "compose: {file: [../a.yml, ../b.yml], env_file: [../.env, ../.env.mail], directory: .., project: p}"
    (state / "reconciler.yaml").write_text(DIRECTORY.replace("targets: {", f"targets: {{{compose}, "))
    choice = Choice(("compose",), with_service_changes=True)
    target = Stack(load(state), Settings.read({}, state, tmp_path / "data"), choice).targets["compose"]
    assert target.files == (tmp_path / "a.yml", tmp_path / "b.yml")
    assert target.env_files == (tmp_path / ".env", tmp_path / ".env.mail")
    assert (target.directory, target.with_service_changes) == (tmp_path, True)


def test_a_choice_survives_being_saved():
    choice = Choice(("cloudflare",), ("dns/mana.how/A/mail",), ("dns/mana.how/A/mail",), 3, check_passwords=True)
    choice = replace(choice, with_service_changes=True)
    assert Choice.saved(json.loads(json.dumps(choice.as_dict()))) == choice
    with pytest.raises(ValueError, match="options"):
        Choice.saved({"allow_deletes": True})
    with pytest.raises(ValueError, match="options"):
        Choice.saved({"allow_deletes": -1})
