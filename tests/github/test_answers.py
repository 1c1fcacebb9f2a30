"""What GitHub's API answers is not believed to be what its documentation says: it is told, and orders nothing."""

from __future__ import annotations

import io
import json
import random
import re
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from githubfake import ACTIONS, GitHub
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.cli import github as commands
from reconciler.github import artifacts
from reconciler.github.api import GitHubError, Repository
from reconciler.simulator.wire import Fault, Reply

HEAD, MERGED, PLANNED = "a" * 40, "1" * 40, "<!-- reconciler:plan:mana -->\ntext\n"
ODD: tuple[Any, ...] = (None, 0, -1, True, 1.5, "", "x\n::add-mask::y", "#\x1b[1m#[set-output]", "../..", "9" * 5000)
ODD += ([], {}, [None], {"sha": None}, 10**30)


def mutated(value: Any, chance: random.Random) -> Any:
    """Return an answer with something else at one place."""
    if not isinstance(value, dict | list) or not value or chance.random() < 0.1:
        return chance.choice(ODD)
    copy = dict(value) if isinstance(value, dict) else list(value)
    at: Any = chance.choice(list(copy) if isinstance(copy, dict) else range(len(copy)))
    copy[at] = mutated(copy[at], chance)
    return copy


@pytest.mark.parametrize("seed", range(6))
def test_an_answer_of_any_shape_is_told_and_orders_nothing(
    github: GitHub, call: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """In none of ten requests, one after the other, with odd values at any place of the answer."""
    monkeypatch.setattr(commands, "_PATIENCE", 0.0)
    (tmp_path / "body.md").write_text(PLANNED)
    plan = {"stack": "mana", "complete": True, "changes": [{"address": "dns/mana.how/A/x", "actions": ["update"]}]}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    github.open(7, HEAD)
    github.open(8, "b" * 40)
    github.merge(8, MERGED)
    github.leave(artifacts.name("b" * 40), "b" * 40, b'{"revision": "bbbbbbbbbbbb"}')
    for number in (7, 8):
        github.say(number, ACTIONS, PLANNED)
    for number in (1, 2):
        drift = {"title": "t", "body": "<!-- reconciler:drift:mana -->\nx"}
        github.issues[number] = github._issue(number, {"login": ACTIONS, "type": "Bot"}, drift)
    body, out = str(tmp_path / "body.md"), str(tmp_path / "out")
    for command in (
        ("comment", "--pull", "7", "--head", HEAD, "--body", body),
        ("issue", "--plan", str(tmp_path / "plan.json"), "--body", body),
        ("wait", "--stack", "mana", "--limit", "0s"),
        ("approved", "--commit", MERGED, "--stack", "mana", "--out", out),
    ):
        for step in range(8):
            chance = random.Random(f"{seed} {command[0]} {step}")

            def lie(reply: Reply, chance: random.Random = chance) -> Reply:
                return Reply.of(mutated(json.loads(reply.body), chance), reply.status) if reply.body else reply

            github.server.faults = [Fault(after=step, change=lie)]
            ended = call(*command)
            assert "this is a bug" not in ended.output
            assert not re.search(r"(?m)^\s*::|##[a-z]*\[|\x1b", ended.output)
            if command[0] == "approved" and ended.exit_code == 0:
                said = ended.output.split("\n")
                assert all(re.fullmatch(rf"--\w+|[0-9a-f]{{7,64}}|{out}/\d+\.json|", line) for line in said)


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=5))
@settings(max_examples=200)
def test_an_archive_that_is_damaged_anywhere_is_an_error(places: list[tuple[int, int]]) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr(artifacts.FILE, json.dumps({"a": [*range(300)]}))
    archive = bytearray(packed.getvalue())
    for place, value in places:
        archive[place % len(archive)] = value
    repository = Repository.of("octo/mail", "token")
    with suppress(GitHubError):
        found = artifacts._unzipped(repository, bytes(archive))
        assert found is None or found.startswith(b"{")
