"""The one comment on a pull request."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from githubfake import ACTIONS, GitHub

Call = Callable[..., Result]
HEAD, OLD = "a" * 40, "b" * 40
MARK = "<!-- reconciler:plan:mana -->"
RUN = "https://github.com/octo/mail/actions/runs/5"
FOOT = f"\n\n<sub>of {HEAD} · [run]({RUN})</sub>\n"


@pytest.fixture
def post(github: GitHub, call: Call, tmp_path: Path) -> Callable[..., Result]:
    github.open(7, HEAD)

    def post(text: str, head: str = HEAD, run: str = RUN) -> Result:
        file = tmp_path / "body.md"
        file.write_text(text)
        return call("comment", "--pull", "7", "--head", head, "--body", str(file), "--run", run)

    return post


def test_there_is_one_comment_whatever_is_pushed(github: GitHub, post: Callable[..., Result]) -> None:
    assert "created" in post(f"{MARK}\n### one").output
    assert "updated" in post(f"{MARK}\n### two").output
    assert "unchanged" in post(f"{MARK}\n### two").output
    assert github.of(7) == [f"{MARK}\n### two{FOOT}"]


def test_only_our_own_comment_is_touched(github: GitHub, post: Callable[..., Result]) -> None:
    theirs = [
        ("mallory", f"{MARK}\nI look like it"),
        ("github-actions", f"{MARK}\na person of that name"),
        (ACTIONS, f"quoted: {MARK}"),
        (ACTIONS, "<!-- reconciler:plan:other -->\nanother stack's"),
    ]
    for login, body in theirs:
        github.say(7, login, body)
    assert post(f"{MARK}\nours").exit_code == 0
    assert post(f"{MARK}\nours again").exit_code == 0
    assert github.of(7) == [*(body for _, body in theirs), f"{MARK}\nours again{FOOT}"]


def test_it_is_found_behind_hundreds_of_others(github: GitHub, post: Callable[..., Result]) -> None:
    for number in range(150):
        github.say(7, "bob", f"{number}")
    post(f"{MARK}\none")
    post(f"{MARK}\ntwo")
    assert [body for body in github.of(7) if body.startswith(MARK)] == [f"{MARK}\ntwo{FOOT}"]


def test_of_two_that_were_written_at_the_same_time_one_stays(github: GitHub, post: Callable[..., Result]) -> None:
    github.say(7, ACTIONS, f"{MARK}\nfirst")
    github.say(7, ACTIONS, f"{MARK}\nsecond")
    post(f"{MARK}\nnewest")
    assert github.of(7) == [f"{MARK}\nnewest{FOOT}"]


def test_an_old_job_that_runs_again_posts_nothing(github: GitHub, post: Callable[..., Result]) -> None:
    post(f"{MARK}\nnewest")
    ended = post(f"{MARK}\npast", OLD)
    assert ended.exit_code == 4
    assert "is at aaaaaaaaaaaa by now" in ended.output
    assert github.of(7) == [f"{MARK}\nnewest{FOOT}"]
    github.merge(7, "c" * 40)
    assert post(f"{MARK}\nafter").exit_code == 4
    assert github.of(7) == [f"{MARK}\nnewest{FOOT}"]


def test_a_limit_in_between_is_waited_for(github: GitHub, post: Callable[..., Result]) -> None:
    github.burst = 0
    assert "created" in post(f"{MARK}\none").output
    assert github.of(7) == [f"{MARK}\none{FOOT}"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no mark", "does not begin with the mark"),
        (f"{MARK} and more\n", "does not begin with the mark"),
        (f"{MARK}\n{'x' * 65536}", "of which GitHub takes 65536"),
    ],
)
def test_what_is_no_text_of_ours_is_not_posted(
    github: GitHub, post: Callable[..., Result], text: str, said: str
) -> None:
    ended = post(text)
    assert ended.exit_code == 1
    assert said in ended.output
    assert github.of(7) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("comment", "--pull", "7; id", "--head", HEAD, "--body", "x"),
        ("comment", "--pull", "7", "--head", "$(id)", "--body", "x"),
        ("wait", "--stack", "$(id)"),
        ("wait", "--stack", "mana", "--branch", "../../x"),
        ("status", "--commit", "main", "--stack", "mana", "--result", "success"),
    ],
)
def test_what_could_lead_elsewhere_is_no_argument(github: GitHub, call: Call, arguments: tuple[str, ...]) -> None:
    assert call(*arguments).exit_code == 1
    assert github.server.requests == []


def test_the_foot_is_left_out_where_it_does_not_fit_and_a_run_that_is_no_link(
    github: GitHub, post: Callable[..., Result]
) -> None:
    whole = f"{MARK}\n{'x' * (65536 - len(MARK) - 1)}"
    assert post(whole).exit_code == 0
    assert github.of(7) == [whole]
    post(f"{MARK}\ntext", run="https://x.example/) @everybody")
    assert github.of(7) == [f"{MARK}\ntext\n\n<sub>of {HEAD}</sub>\n"]
