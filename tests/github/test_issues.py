"""The one issue about drift."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from githubfake import ACTIONS, GitHub

CHANGED = {"address": "dns/mana.how/A/www", "actions": ["update"]}
RESTART = {"address": "stalwart/listeners", "actions": ["restart"]}
MARK = "<!-- reconciler:drift:mana -->"


@pytest.fixture
def tell(call: Callable[..., Result], tmp_path: Path) -> Callable[..., Result]:
    def tell(*changes: dict[str, Any], complete: bool = True, text: str = "table") -> Result:
        plan, body = tmp_path / "plan.json", tmp_path / "plan.md"
        plan.write_text(json.dumps({"stack": "mana", "complete": complete, "changes": changes}))
        body.write_text(f"<!-- reconciler:plan:mana -->\n{text}\n")
        return call("issue", "--plan", str(plan), "--body", str(body))

    return tell


def issues(github: GitHub) -> list[tuple[str, str]]:
    return [(item["title"], item["state"]) for item in github.issues.values() if "pull_request" not in item]


def test_it_is_opened_brought_up_to_date_and_closed(github: GitHub, tell: Callable[..., Result]) -> None:
    assert "none" in tell().output
    assert "created" in tell(CHANGED).output
    assert "unchanged" in tell(CHANGED).output
    assert "updated" in tell(CHANGED, CHANGED, text="more").output
    one = "mana: 2 resources differ from the main branch"
    assert issues(github) == [(one, "open")]
    assert next(iter(github.issues.values()))["body"] == f"{MARK}\nmore\n"
    assert "closed" in tell(RESTART).output
    assert issues(github) == [(one, "closed")]
    assert github.comments[-1]["body"] == "Everything is as main says again."
    assert "created" in tell(CHANGED).output
    assert [state for _, state in issues(github)] == ["closed", "open"]


def test_one_is_not_closed_while_not_everything_could_be_read(github: GitHub, tell: Callable[..., Result]) -> None:
    tell(CHANGED)
    ended = tell(complete=False)
    assert ended.exit_code == 1
    assert "so it was not closed" in ended.output
    assert [state for _, state in issues(github)] == ["open"]
    assert tell(CHANGED, complete=False, text="in part").exit_code == 0
    assert next(iter(github.issues.values()))["body"].endswith("in part\n")


def test_others_are_left_alone_and_pull_requests_are_none(github: GitHub, tell: Callable[..., Result]) -> None:
    github.open(3, "a" * 40)
    github.issues[3] |= {"user": {"login": ACTIONS, "type": "Bot"}, "body": MARK}
    github.issues[4] = github._issue(4, {"login": "mallory", "type": "User"}, {"title": "x", "body": MARK})
    tell(CHANGED)
    tell()
    assert (github.issues[3]["state"], github.issues[4]["state"]) == ("open", "open")
    assert [item["state"] for item in github.issues.values() if item["number"] > 100] == ["closed"]


def test_of_two_that_were_opened_at_the_same_time_the_older_stays(github: GitHub, tell: Callable[..., Result]) -> None:
    tell(CHANGED)
    first = max(github.issues)
    github.issues[first + 1] = {**github.issues[first], "number": first + 1}
    github.number += 1
    tell(CHANGED, text="newer")
    assert (github.issues[first]["state"], github.issues[first + 1]["state"]) == ("open", "closed")


def test_what_is_no_plan_opens_nothing(github: GitHub, call: Callable[..., Result], tmp_path: Path) -> None:
    wrong = tmp_path / "plan.json"
    for text in ("{}", "[]", "", '{"changes": [{}], "complete": true}'):
        wrong.write_text(text)
        ended = call("issue", "--plan", str(wrong), "--body", str(wrong))
        assert (ended.exit_code, "is no plan" in ended.output) == (1, True)
    assert github.issues == {}
