"""The plans that merged pull requests showed: which are believed, and which are theirs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from githubfake import GitHub

from reconciler.github.api import GitHubError, Repository
from reconciler.github.artifacts import name, plan_of
from reconciler.github.workflows import APPLY
from reconciler.simulator.wire import Fault, Reply

A, B, BASE, ONE, TWO = (letter * 40 for letter in "ab012")


@pytest.fixture
def fetch(call: Callable[..., Result], tmp_path: Path) -> Callable[[str], dict[str, bytes]]:
    def fetch(commit: str) -> dict[str, bytes]:
        out = tmp_path / "approved"
        ended = call("approved", "--commit", commit, "--stack", "mana", "--out", str(out))
        assert ended.exit_code == 0, ended.output
        (tmp_path / "arguments").write_text(ended.output)
        return {file.name: file.read_bytes() for file in sorted(out.iterdir())}

    return fetch


def test_two_merges_at_once_have_two_plans_each_the_last_posted(
    github: GitHub, call: Callable[..., Result], fetch: Callable[[str], dict[str, bytes]], tmp_path: Path
) -> None:
    github.push(BASE)
    call("status", "--commit", BASE, "--stack", "mana", "--result", "success")
    for number, head, commit in ((1, A, ONE), (2, B, TWO)):
        github.open(number, head)
        github.leave(name(head), head, b'{"posted": 1}')
        github.leave(name(head), head, json.dumps({"revision": head[:12], "of": number}).encode())
        github.merge(number, commit)
    one, two = b'{"revision": "aaaaaaaaaaaa", "of": 1}', b'{"revision": "bbbbbbbbbbbb", "of": 2}'
    assert fetch(TWO) == {"1.json": one, "2.json": two}
    out = tmp_path / "approved"
    told = (tmp_path / "arguments").read_text().split("\n")
    assert told[:2] == ["--base", BASE]
    assert told[2:6] == ["--approved", str(out / "2.json"), "--head", "bbbbbbbbbbbb"]
    assert told[6:10] == ["--approved", str(out / "1.json"), "--head", "aaaaaaaaaaaa"]


def test_plans_are_not_led_out_of_a_checkout_by_a_link(
    github: GitHub, call: Callable[..., Result], tmp_path: Path
) -> None:
    github.push(BASE)
    call("status", "--commit", BASE, "--stack", "mana", "--result", "success")
    github.open(1, A)
    github.leave(name(A), A, json.dumps({"revision": A[:12]}).encode())
    github.merge(1, ONE)
    elsewhere, checkout = tmp_path / "elsewhere", tmp_path / "checkout"
    elsewhere.mkdir()
    (checkout / ".git").mkdir(parents=True)
    (checkout / "plans").symlink_to(elsewhere)
    for out in (checkout / "plans", checkout / "plans/new"):
        ended = call("approved", "--commit", ONE, "--stack", "mana", "--out", str(out))
        assert (ended.exit_code, "leads out of its checkout" in ended.output) == (4, True), ended.output
    assert list(elsewhere.iterdir()) == []


def test_a_plan_says_nothing_else_to_the_command(
    github: GitHub, call: Callable[..., Result], fetch: Callable[[str], dict[str, bytes]], tmp_path: Path
) -> None:
    """Who may leave an artifact may write anything into it."""
    github.open(1, A)
    github.leave(name(A), A, json.dumps({"revision": "aaaaaaa\n--approve\nffffffffffffffff"}).encode())
    github.merge(1, ONE)
    assert list(fetch(ONE)) == ["1.json"]
    assert (tmp_path / "arguments").read_text().strip() == ""


def test_what_is_in_force_already_needs_no_plan(
    github: GitHub, call: Callable[..., Result], fetch: Callable[[str], dict[str, bytes]]
) -> None:
    for number, head, commit in ((1, A, ONE), (2, B, TWO)):
        github.open(number, head)
        github.leave(name(head), head, b"{}")
        github.merge(number, commit)
    for stack, state in (("mana", "failure"), ("mana", "success"), ("other", "failure")):
        assert call("status", "--commit", ONE, "--stack", stack, "--result", state).exit_code == 0
    assert list(fetch(TWO)) == ["2.json"]


def test_the_commits_of_a_pull_request_hide_no_revision_and_are_none_in_force(
    github: GitHub, call: Callable[..., Result], fetch: Callable[[str], dict[str, bytes]], tmp_path: Path
) -> None:
    """However many there are, and whatever somebody said of them: what is in force is looked for on the branch."""
    github.push(BASE)
    assert call("status", "--commit", BASE, "--stack", "mana", "--result", "success").exit_code == 0
    github.open(1, A)
    brought = [f"{number:040x}" for number in range(1, 131)]
    github.merge(1, ONE, [*brought, A])
    assert call("status", "--commit", A, "--stack", "mana", "--result", "success").exit_code == 0
    github.leave(name(A), A, b"{}")
    assert list(fetch(ONE)) == ["1.json"]
    assert (tmp_path / "arguments").read_text().split("\n")[:2] == ["--base", BASE]


@pytest.mark.parametrize(("commits", "known"), [(51, True), (120, True), (320, False)])
def test_however_many_commits_a_rebase_puts_on_the_branch_the_policy_before_them_holds(
    github: GitHub,
    call: Callable[..., Result],
    fetch: Callable[[str], dict[str, bytes]],
    tmp_path: Path,
    *,
    commits: int,
    known: bool,
) -> None:
    """Without a base the newest directory would say by itself whether its changes need approval."""
    github.push(BASE)
    github.files[APPLY] = BASE
    assert call("status", "--commit", BASE, "--stack", "mana", "--result", "success").exit_code == 0
    for number in range(1, commits + 1):
        github.push(f"{number:040x}")
    if known:
        fetch(f"{commits:040x}")
        assert (tmp_path / "arguments").read_text().split("\n")[:2] == ["--base", BASE]
        return
    out = str(tmp_path / "approved")
    ended = call("approved", "--commit", f"{commits:040x}", "--stack", "mana", "--out", out)
    assert ended.exit_code == 1
    assert "no policy is known to hold" in ended.output + ended.stderr


def test_a_repository_that_is_old_when_it_begins_has_no_base(
    github: GitHub, fetch: Callable[[str], dict[str, bytes]], tmp_path: Path
) -> None:
    for number in range(320):
        github.push(f"{number:040x}")
    github.files[APPLY] = f"{319:040x}"
    fetch(f"{319:040x}")
    assert (tmp_path / "arguments").read_text().strip() == ""


def test_a_fork_can_not_leave_a_plan(github: GitHub, repository: Repository) -> None:
    github.leave(name(A), A, b"{}")
    github.leave(name(A), A, b'{"forged": 1}', fork=True)
    github.leave(name(A), B, b'{"of another head": 1}')
    assert plan_of(repository, A) == b"{}"
    github.artifacts[0]["expired"] = True
    assert plan_of(repository, A) is None


def test_a_plan_whose_comment_was_cut_approves_nothing_nor_does_the_one_before(
    github: GitHub, repository: Repository
) -> None:
    github.leave(name(A), A, b"{}")
    github.leave(name(A), A, b"{}", file="cut.json")
    assert plan_of(repository, A) is None


def test_the_store_does_not_get_the_token(github: GitHub, repository: Repository) -> None:
    github.leave(name(A), A, b"{}")
    assert plan_of(repository, A) == b"{}"
    stored = next(item for item in github.server.requests if item.path.startswith("/_store/"))
    assert "authorization" not in stored.headers


@pytest.mark.parametrize("place", ["http://store.example.com/x", "ftp://127.0.0.1/x", "", "https://user:pw@h/x"])
def test_a_store_in_clear_or_none_is_not_asked(github: GitHub, repository: Repository, place: str) -> None:
    github.leave(name(A), A, b"{}")
    github.server.faults = [Fault(path="/zip", reply=Reply(302, headers={"location": place}))]
    with pytest.raises(GitHubError, match="can't be downloaded"):
        plan_of(repository, A)


def test_an_archive_that_is_none_or_holds_something_else_is_an_error(github: GitHub, repository: Repository) -> None:
    github.leave(name(A), A, b"{}", file="../plan.json")
    assert plan_of(repository, A) is None
    github.artifacts[0]["zip"] = b"PK\x03\x04 torn"
    with pytest.raises(GitHubError, match="is no archive"):
        plan_of(repository, A)
    github.leave(name(A), A, b"x" * (17 << 20))
    with pytest.raises(GitHubError, match="too large"):
        plan_of(repository, A)
