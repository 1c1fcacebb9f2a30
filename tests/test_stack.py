"""One stack of a directory, with targets that keep their world in memory."""

from __future__ import annotations

import json

import pytest
from systems import Connected, World

from reconciler import journal
from reconciler.desired.load import load
from reconciler.reconcile import make_plan
from reconciler.settings import Settings
from reconciler.stack import Choice

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


def test_a_choice_survives_being_saved():
    choice = Choice(("cloudflare",), ("dns/mana.how/A/mail",), ("dns/mana.how/A/mail",), 3, check_passwords=True)
    assert Choice.saved(json.loads(json.dumps(choice.as_dict()))) == choice
    with pytest.raises(ValueError, match="options"):
        Choice.saved({"allow_deletes": True})
