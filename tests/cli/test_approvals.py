"""Approval of each change, from the command line: what was approved or heals is applied, the rest is held and named."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import systems

from reconciler.daemon import loop
from reconciler.resources import Different

POLICY = "policy: {max_deletes: 3, approval: plan}"
MAIL, WWW = "dns/mana.how/A/mail", "dns/mana.how/A/www"
SNEAKED = "account/sneaked@mana.how"
BASE_DNS = """\
dns:
  mana.how:
    - {type: A, name: mail, content: 192.0.2.1}
    - {type: A, name: www, content: 192.0.2.2, ttl: 300}
"""
HEAD_DNS = (
    BASE_DNS.replace("192.0.2.2, ttl: 300", "192.0.2.22, ttl: 300") + "    - {type: A, name: new, content: 192.0.2.3}\n"
)


def git(place: Any, *args: str) -> str:
    who = {f"GIT_{role}_{what}": "a@b.example" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    environ = {"PATH": os.environ["PATH"], "HOME": str(place.root), "GIT_CONFIG_NOSYSTEM": "1", **who}
    return subprocess.run(
        ["git", *args], cwd=place.root, env=environ, check=True, capture_output=True, text=True
    ).stdout


def commit(place: Any, message: str) -> str:
    git(place, "add", "desired-state")
    git(place, "commit", "-q", "--allow-empty", "-m", message)
    return git(place, "rev-parse", "HEAD").strip()


@pytest.fixture
def repo(place: Any, run: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A stack that is as its main branch says, whose policy is to approve plans."""
    monkeypatch.delattr(systems.Connected, "revision")  # git is asked
    monkeypatch.setattr(loop, "Stack", systems.Connected)
    place.write(
        (place.state / "reconciler.yaml").read_text().replace("policy: {max_deletes: 3}", POLICY), "reconciler.yaml"
    )
    git(place, "init", "-q", "-b", "main")
    place.base = commit(place, "base")
    assert run("apply", "--yes", "--approve", plan(run)["fingerprint"][:16]).exit_code == 0
    return place


def plan(run: Any, *args: str) -> dict[str, Any]:
    return json.loads(run("plan", "--output", "json", *args).stdout)


def propose(place: Any, run: Any, text: str = HEAD_DNS, name: str = "dns.yaml") -> tuple[str, Path]:
    """Commit a change on a branch and plan it; return its head and the plan."""
    git(place, "checkout", "-q", "-B", "change", "main")
    place.write(text, name)
    head = commit(place, "change")
    posted = place.root / "posted.json"
    posted.write_text(run("plan", "--output", "json").stdout)
    return head, posted


def merge(place: Any, squash: bool = False) -> None:
    git(place, "checkout", "-q", "main")
    git(place, "merge", "-q", *(["--squash"] if squash else ["--no-ff", "-m", "merge"]), "change")
    if squash:
        commit(place, "squashed")


def content(place: Any, address: str) -> str | None:
    return next((item.resource.content for item in place.world.live if item.resource.address == address), None)


def held(result: Any) -> list[str]:
    return [item["where"] for item in json.loads(result.stdout)["plan"]["held"]]


def test_without_approval_everything_is_held_and_named_with_the_way_to_approve_it(place: Any, run: Any) -> None:
    text = (place.state / "reconciler.yaml").read_text()
    place.write(text.replace("policy: {max_deletes: 3}", POLICY), "reconciler.yaml")
    result = run("apply", "--yes")
    assert result.exit_code == 4
    assert place.world.live == []
    assert "Held, until a person approves them:" in result.stdout
    for change in plan(run)["changes"]:
        assert f"{change['address']}: is not approved: no approved plan has it" in result.stdout
        assert f"reconciler apply --approve {change['fingerprint'][:16]}" in result.stdout


def test_an_approved_plan_is_applied_at_the_merge(repo: Any, run: Any) -> None:
    _, posted = propose(repo, run)
    merge(repo)
    assert run("apply", "--yes", "--base", repo.base).exit_code == 4
    result = run("apply", "--yes", "--base", repo.base, "--approved", str(posted))
    assert result.exit_code == 0, result.output
    assert (content(repo, WWW), content(repo, "dns/mana.how/A/new")) == ("192.0.2.22", "192.0.2.3")


@pytest.mark.parametrize("squash", [False, True])
def test_main_has_moved_meanwhile_and_what_was_approved_is_applied_all_the_same(
    repo: Any, run: Any, squash: bool
) -> None:
    head, posted = propose(repo, run)
    git(repo, "checkout", "-q", "main")
    place_more = "accounts:\n  noreply@mana.how:\n    password: {env: NOREPLY_PASSWORD}\n    description: moved\n"
    repo.write(place_more, "accounts.yaml")
    moved = commit(repo, "main moves")
    merge(repo, squash)
    given = ("--head", head) if squash else ()
    result = run("apply", "--yes", "--base", moved, "--approved", str(posted), *given)
    assert result.exit_code == 0, result.output  # what main wanted meanwhile heals
    assert content(repo, WWW) == "192.0.2.22"


def test_what_main_brought_itself_is_not_approved_by_the_plan_of_a_branch(repo: Any, run: Any) -> None:
    _, posted = propose(repo, run)
    git(repo, "checkout", "-q", "main")
    repo.write("accounts:\n  sneaked@mana.how: {password: {env: NOREPLY_PASSWORD}}\n", "more.yaml")
    commit(repo, "pushed to main by itself")
    merge(repo)
    result = run("apply", "--yes", "--base", repo.base, "--approved", str(posted), "--output", "json")
    assert result.exit_code == 6
    assert held(result) == [SNEAKED]
    assert SNEAKED not in repo.world.addresses
    assert content(repo, WWW) == "192.0.2.22"
    left = plan(run)
    assert [item["address"] for item in left["changes"]] == [SNEAKED]
    done = run("apply", "--yes", "--base", repo.base, "--approve", left["changes"][0]["fingerprint"][:16])
    assert done.exit_code == 0
    assert SNEAKED in repo.world.addresses


def test_a_hand_edit_is_healed_first_and_then_it_is_what_was_approved(repo: Any, run: Any) -> None:
    _, posted = propose(repo, run)
    merge(repo)
    repo.world.alter(WWW, content="198.51.100.7")  # after the plan was read
    repo.world.alter(MAIL, content="198.51.100.8")
    result = run("apply", "--yes", "--base", repo.base, "--approved", str(posted), "--output", "json")
    assert result.exit_code == 0, result.output
    rows = [(row["address"], row["after"]["content"]) for row in json.loads(result.stdout)["outcomes"]]
    assert rows == [
        (MAIL, "192.0.2.1"),
        ("dns/mana.how/A/new", "192.0.2.3"),
        (WWW, "192.0.2.2"),  # as main wanted it
        (WWW, "192.0.2.22"),  # as it was approved
    ]
    assert plan(run)["changes"] == []


def test_without_any_approval_drift_and_losses_heal(repo: Any, run: Any) -> None:
    propose(repo, run)
    merge(repo)
    repo.world.alter(WWW, content="198.51.100.7")
    repo.world.live = [item for item in repo.world.live if item.resource.target != "stalwart"]
    result = run("apply", "--yes", "--base", repo.base, "--output", "json")
    assert result.exit_code == 6
    assert content(repo, WWW) == "192.0.2.2"
    assert "account/noreply@mana.how" in repo.world.addresses
    assert sorted(held(result)) == ["dns/mana.how/A/new", WWW]


def test_a_later_push_voids_the_plan(repo: Any, run: Any) -> None:
    _, posted = propose(repo, run)
    repo.write(HEAD_DNS.replace("192.0.2.22", "192.0.2.99"))
    commit(repo, "later")
    merge(repo)
    result = run("apply", "--yes", "--base", repo.base, "--approved", str(posted))
    assert result.exit_code == 4
    assert "and not of what was merged" in result.stderr
    assert content(repo, WWW) == "192.0.2.2"


def _edited(posted: Path, **fields: Any) -> None:
    posted.write_text(json.dumps(json.loads(posted.read_text()) | fields))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"stack": "other"}, "is a plan of another stack"),
        ({"complete": False}, "is not complete, so it approves nothing"),
        ({"approvable": False}, "nobody was shown all of it"),
        ({"approvable": "yes"}, "nobody was shown all of it"),
        ({"revision": "", "desired_hash": "x"}, "is a plan of no revision"),
        ({"revision": "0" * 12, "desired_hash": "x"}, "is a plan of revision '000000000000'"),
        ({"changes": [{"address": WWW, "actions": ["update"], "fingerprint": 7}]}, "have a fingerprint"),
    ],
)
def test_a_plan_that_approves_nothing_is_refused_with_the_reason(
    repo: Any, run: Any, fields: dict[str, Any], said: str
) -> None:
    _, posted = propose(repo, run)
    merge(repo)
    _edited(posted, **fields)
    result = run("apply", "--yes", "--base", repo.base, "--approved", str(posted))
    assert result.exit_code == 4, result.output
    assert said in " ".join(result.stderr.split())
    assert content(repo, WWW) == "192.0.2.2"


@pytest.mark.parametrize("content", ["", "[]", "{}", "[" * 100_000, '{"format_version": "1.0", "changes": 3}', "\xff"])
def test_what_is_no_plan_at_all_is_an_error(repo: Any, run: Any, content: str) -> None:
    propose(repo, run)
    merge(repo)
    path = repo.root / "bad.json"
    path.write_bytes(content.encode("latin-1"))
    assert run("apply", "--yes", "--base", repo.base, "--approved", str(path)).exit_code == 1


def test_a_looser_policy_counts_from_the_next_revision_on(repo: Any, run: Any) -> None:
    loosened = (repo.state / "reconciler.yaml").read_text().replace("approval: plan", "approval: merge")
    git(repo, "checkout", "-q", "-B", "change", "main")
    repo.write(loosened, "reconciler.yaml")
    repo.write(HEAD_DNS)
    commit(repo, "loosen and change at once")
    merge(repo)
    result = run("apply", "--yes", "--base", repo.base)
    assert result.exit_code == 4
    assert content(repo, WWW) == "192.0.2.2"
    assert run("apply", "--yes", "--base", "HEAD").exit_code == 0  # the revision after it


def test_another_system_is_neither_healed_nor_covered_by_the_plan(repo: Any, run: Any) -> None:
    text = (repo.state / "reconciler.yaml").read_text()
    _, posted = propose(repo, run, text.replace("http://localhost:8443", "http://127.0.0.1:9"), "reconciler.yaml")
    merge(repo)
    repo.world.live = [item for item in repo.world.live if item.resource.target != "stalwart"]
    result = run("apply", "--yes", "--base", repo.base, "--approved", str(posted), "--output", "json")
    assert result.exit_code == 4
    assert "account/noreply@mana.how" in held(result)
    assert "leads to another place" in result.stdout


@pytest.mark.parametrize("named", ["xyz", "0123", "g" * 16])
def test_what_is_no_fingerprint_is_an_error(repo: Any, run: Any, named: str) -> None:
    result = run("apply", "--yes", "--approve", named)
    assert "is no fingerprint" in result.stderr


def test_a_fingerprint_of_nothing_that_is_due_is_refused(repo: Any, run: Any) -> None:
    propose(repo, run)
    merge(repo)
    result = run("apply", "--yes", "--base", repo.base, "--approve", "0" * 16)
    assert result.exit_code == 4
    assert "is the fingerprint of no change that is due" in " ".join(result.stderr.split())
    assert content(repo, WWW) == "192.0.2.2"


def test_what_the_daemon_holds_is_told_by_status_and_approved_by_a_command(repo: Any, run: Any) -> None:
    agreed = run("daemon", "--once", "--data", str(repo.data))
    assert agreed.exit_code == 0, agreed.output  # all of it is agreed
    propose(repo, run)
    merge(repo)
    assert run("daemon", "--once", "--data", str(repo.data)).exit_code == 4
    told = run("status").stdout
    names = [item["fingerprint"][:16] for item in plan(run)["changes"]]
    assert all(f"reconciler approve {name}" in told for name in names)
    wrong = run("approve", "0" * 16)
    assert wrong.exit_code == 4
    assert names[0] in wrong.stderr
    assert f"Approved: {WWW}" in run("approve", *names).stdout
    assert run("daemon", "--once", "--data", str(repo.data)).exit_code == 0
    assert content(repo, WWW) == "192.0.2.22"


def test_a_plan_says_what_would_be_held_where_the_daemon_knows_what_was_agreed(repo: Any, run: Any) -> None:
    repo.write(HEAD_DNS, "dns.yaml")
    assert plan(run)["held"] == []  # nobody knows what was agreed
    repo.write(BASE_DNS, "dns.yaml")
    assert run("daemon", "--once").exit_code == 0
    assert plan(run)["held"] == []
    repo.write(HEAD_DNS, "dns.yaml")
    named = {item["where"]: item["hint"].split()[-1] for item in plan(run)["held"]}
    assert set(named) == {WWW, "dns/mana.how/A/new"}
    assert "Held" in run("plan").output
    assert plan(run, "--out", str(repo.root / "plan.json"))["held"] == []  # what is saved is approved as a whole
    run("daemon", "--once")
    assert run("approve", *named.values()).exit_code == 0
    assert plan(run)["held"] == []
    assert run("apply", str(repo.root / "plan.json"), "--yes").exit_code == 0


def test_a_person_heals_to_what_the_daemon_knows_as_agreed(repo: Any, run: Any) -> None:
    assert run("daemon", "--once", "--data", str(repo.data)).exit_code == 0
    propose(repo, run)
    merge(repo)
    repo.world.alter(WWW, content="198.51.100.7")
    result = run("apply", "--yes", "--output", "json")
    assert result.exit_code == 6
    assert content(repo, WWW) == "192.0.2.2"
    assert sorted(held(result)) == ["dns/mana.how/A/new", WWW]


# ------------------------------------------------------------------------------------------------ values of secrets
NOREPLY, OTHER = "account/noreply@mana.how", "account/other@mana.how"


@pytest.fixture
def committed(repo: Any, run: Any) -> Any:
    """A stack whose passwords lie in files of the repository, as encrypted ones do."""
    repo.write(
        "accounts:\n"
        "  noreply@mana.how: {password: {file: noreply}}\n"
        "  other@mana.how: {password: {file: other}, description: Other}\n",
        "accounts.yaml",
    )
    for name in ("noreply", "other"):
        repo.write("canary-first", name)
    repo.base = commit(repo, "passwords")
    assert run("apply", "--yes", "--approve", plan(run)["fingerprint"][:16]).exit_code == 0
    return repo


def test_a_file_that_is_another_than_at_the_base_heals_nothing(committed: Any, run: Any) -> None:
    git(committed, "checkout", "-q", "-B", "change", "main")
    committed.write("canary-second", "noreply")
    commit(committed, "only a value")
    merge(committed)
    for address in (NOREPLY, OTHER):  # of the one the value is another, the other was changed by hand
        committed.world.alter(address, password=Different())
    shutil.rmtree(committed.data)  # as on a machine that a workflow gets for one run
    result = run("apply", "--yes", "--base", committed.base, "--output", "json")
    assert result.exit_code == 6, result.output
    assert held(result) == [NOREPLY]
    assert [row["address"] for row in json.loads(result.stdout)["outcomes"]] == [OTHER]
    [left] = plan(run)["changes"]
    assert run("apply", "--yes", "--base", committed.base, "--approve", left["fingerprint"][:16]).exit_code == 0
    assert plan(run)["changes"] == []


@pytest.mark.parametrize("link", [False, True])
def test_a_file_behind_a_link_is_known_by_what_it_leads_to(committed: Any, run: Any, link: bool) -> None:
    committed.write("canary-third", "kept")
    (committed.state / "noreply").unlink()
    (committed.state / "noreply").symlink_to("kept")
    base = commit(committed, "a link")
    if link:
        (committed.state / "noreply").unlink()
        committed.write("canary-fourth", "elsewhere")
        (committed.state / "noreply").symlink_to("elsewhere")
    commit(committed, "and then")
    shutil.rmtree(committed.data)
    committed.world.alter(NOREPLY, password=Different())
    result = run("apply", "--yes", "--base", base, "--output", "json")
    assert held(result) == ([NOREPLY] if link else [])


def test_without_a_daemon_an_apply_knows_by_itself_which_value_was_agreed(committed: Any, run: Any) -> None:
    assert json.loads((committed.data / "seals-mana.json").read_text())["seals"].keys() >= {"{file: noreply}"}
    committed.world.alter(NOREPLY, password=Different())
    assert run("apply", "--yes").exit_code == 0  # changed by hand
    committed.write("canary-second", "noreply")
    committed.world.alter(NOREPLY, password=Different())
    committed.world.alter(OTHER, description="by hand")
    result = run("apply", "--yes", "--output", "json")
    assert (result.exit_code, held(result)) == (6, [NOREPLY])
    named = plan(run)["changes"][0]["fingerprint"]
    committed.write("canary-third", "noreply")
    assert run("apply", "--yes", "--approve", named).exit_code == 4
    assert plan(run)["changes"][0]["fingerprint"] != named
    committed.write("canary-second", "noreply")
    assert run("apply", "--yes", "--approve", named).exit_code == 0
    for path in committed.data.iterdir():
        assert b"canary" not in path.read_bytes()


def test_a_saved_plan_agrees_to_the_values_that_it_sets(committed: Any, run: Any) -> None:
    committed.write("canary-second", "noreply")
    committed.world.alter(NOREPLY, password=Different())
    saved = str(committed.root / "plan.json")
    assert run("plan", "--out", saved).exit_code == 0
    assert run("apply", saved, "--yes").exit_code == 0
    committed.world.alter(NOREPLY, password=Different())  # by hand
    assert run("apply", "--yes").exit_code == 0
    assert plan(run)["changes"] == []


@pytest.mark.parametrize("created", [False, True])
def test_a_saved_plan_counts_for_the_values_that_its_secrets_had(committed: Any, run: Any, created: bool) -> None:
    """With either policy: what nobody knew of when the plan was agreed to is set nowhere."""
    text = (committed.state / "reconciler.yaml").read_text()
    committed.write(text.replace(POLICY, "policy: {max_deletes: 3}"), "reconciler.yaml")
    if created:
        committed.world.live = [item for item in committed.world.live if item.resource.address != NOREPLY]
    else:
        committed.world.alter(NOREPLY, password=Different())
    before, saved = committed.world.live, str(committed.root / "plan.json")
    assert run("plan", "--out", saved).exit_code == 0
    told = Path(saved).read_text()
    assert "canary" not in told
    committed.write("canary-second", "noreply")
    result = run("apply", saved, "--yes")
    assert (result.exit_code, committed.world.live) == (4, before)
    assert "{file: noreply} has another value than when it was planned" in " ".join(result.stderr.split())
    committed.write("canary-first", "noreply")
    assert run("apply", saved, "--yes").exit_code == 0
    assert committed.world.live != before


def test_a_saved_plan_of_another_data_directory_says_what_it_does_not_know(committed: Any, run: Any) -> None:
    committed.world.alter(NOREPLY, password=Different())
    saved = str(committed.root / "plan.json")
    assert run("plan", "--out", saved).exit_code == 0
    (committed.data / "seal.key").unlink()
    result = run("apply", saved, "--yes")
    assert result.exit_code == 0
    assert "is not known: it was made with another --data" in " ".join(result.stderr.split())
