"""The workflows that users get, run by act: what each event does to the pull request, the issue and the systems."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from githubfake import ACTIONS, REPOSITORY, GitHub, Token
from ruamel.yaml import YAML

from reconciler.github.workflows import ACTION, Subject, files
from reconciler.simulator.wire import Fault, Reply

from .hosting import CANARIES, DNS, JOB, RECONCILER, WRITE, Hosted, install

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("act")]
SLOW = DNS.replace("192.0.2.2, ttl: 300", "192.0.2.2, ttl: 3600")
UNSEEN = "    - {type: A, name: unseen, content: 192.0.2.10, ttl: 60}\n"
MORE = "dns:\n  mana.test:\n    - {type: A, name: new, content: 192.0.2.9, ttl: 60}\n"
RECONCILER_ALONE = RECONCILER.replace(
    RECONCILER[RECONCILER.index("  stalwart:") : RECONCILER.index("  cloudflare:")], ""
)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The packages, and what the action's own script makes of them."""
    if shutil.which("act") is None:
        pytest.skip("act is not installed (.ci/run installs it)")
    house, temp = tmp_path_factory.mktemp("house"), tmp_path_factory.mktemp("runner")
    script = YAML(typ="safe").load(files(Subject("mana"))[ACTION])["runs"]["steps"][0]["run"]
    install(house, temp, script)
    [prepared] = temp.iterdir()
    return house, prepared


@pytest.fixture
def hosted(house: tuple[Path, Path], tmp_path: Path) -> Iterator[Callable[..., Hosted]]:
    github = GitHub({JOB: Token(ACTIONS, frozenset({"issues", "pull_requests", "statuses", "contents", "actions"}))})
    with github.server:
        made: list[Hosted] = []

        def host(apply: str = "push") -> Hosted:
            made.append(Hosted(tmp_path, *house, github, apply))
            made[-1].server.start()
            return made[-1]

        yield host
        for item in made:
            item.server.stop()
    assert github.server.crashes == []


HIJACK = "import pathlib; pathlib.Path('/tmp/reconciler-hijacked').touch()\n"


def comments(here: Hosted) -> list[str]:
    for canary in CANARIES:
        assert canary not in repr((here.github.comments, here.github.issues, here.github.statuses))
        assert all(canary.encode() not in item["zip"] for item in here.github.artifacts)
    return here.github.of(7)


def states(here: Hosted) -> dict[str, str]:
    """Return the last word on each commit."""
    return {item["sha"]: item["state"] for item in here.github.statuses}


def applied(here: Hosted) -> None:
    """Put the first revision in force."""
    ran = here.push()
    assert ran.code == 0, ran.log
    assert here.records() == {"mail.mana.how": ("192.0.2.1", 300), "www.mana.how": ("192.0.2.2", 300)}
    here.server.forget()


# ------------------------------------------------------------------------------------------------------ pull requests
def test_a_pull_request_shows_its_plan_once_however_often_it_is_pushed(hosted: Callable[..., Hosted]) -> None:
    here = hosted()
    applied(here)
    head = here.branch("slow", {"desired-state/dns.yaml": SLOW})
    ran = here.pull_request(7, "slow")
    assert ran.code == 0, ran.log
    [comment] = comments(here)
    assert comment.startswith("<!-- reconciler:plan:mana -->\n")
    assert "1 change" in comment
    assert "dns/mana.how/A/www" in comment
    assert head in comment
    assert [item["name"] for item in here.github.artifacts] == [f"reconciler-plan-{head}"]
    assert "dns/mana.how" in ran.log.partition("Summary -")[2]
    newer = here.branch("slow", {"desired-state/dns.yaml": SLOW.replace("3600", "7200")})
    assert here.pull_request(7, "slow", action="synchronize").code == 0
    [second] = comments(here)
    assert newer in second
    assert "7200" in second
    assert here.server.writes() == []


def test_a_runner_on_the_server_plans_what_it_applies_and_github_holds_no_key(hosted: Callable[..., Hosted]) -> None:
    here = hosted("runner")
    here.directly({"desired-state/reconciler.yaml": RECONCILER_ALONE})
    assert here.push().code == 0
    here.server.forget()
    loose = RECONCILER_ALONE.replace("max_deletes: 3", "max_deletes: 99")
    here.branch("slow", {"desired-state/dns.yaml": SLOW, "desired-state/reconciler.yaml": loose})
    ran = here.pull_request(7, "slow")
    assert ran.code == 0, ran.log
    [comment] = comments(here)
    assert "dns/mana.how/A/www" in comment
    assert "max_deletes" in comment  # shown, and not used
    assert here.server.writes() == []
    here.merge(7, "slow")
    assert here.push().code == 0
    assert here.records()["www.mana.how"] == ("192.0.2.2", 3600)


def test_a_fork_gets_what_changes_and_nothing_of_its_own_is_run(hosted: Callable[..., Hosted]) -> None:
    here, hijacked = hosted(), Path("/tmp/reconciler-hijacked")
    hijacked.unlink(missing_ok=True)
    action = (here.work / ACTION).read_text()
    files = {
        "desired-state/dns.yaml": SLOW,
        ACTION: action.replace("name: Run it\n", "name: Run it, changed by the fork\n"),
        "reconciler/__init__.py": HIJACK,
        "pip.py": HIJACK,
        "venv.py": HIJACK,
        "sitecustomize.py": HIJACK,
        "desired-state/.gitattributes": "*.yaml filter=x\n",
    }
    here.branch("change", files)
    ran = here.pull_request(7, "change", fork=True)
    assert ran.code == 0, ran.log
    assert "dns/mana.how" in ran.log.partition("Summary -")[2]
    assert "changed by the fork" not in ran.log
    assert "reconciler-plan/plan" not in ran.log
    assert not hijacked.exists()
    assert (comments(here), here.github.artifacts) == ([], [])
    assert (here.server.requests, here.github.server.requests) == ([], [])


def test_the_merge_queue_validates_against_what_it_merges_to(hosted: Callable[..., Hosted]) -> None:
    here = hosted()
    for name, text in (("slow", SLOW), ("mail", MORE)):
        here.branch(name, {f"desired-state/{'dns' if name == 'slow' else 'more'}.yaml": text})
    here.git("checkout", "--quiet", "--detach", "main")
    for name in ("slow", "mail"):
        here.git("merge", "--quiet", "--no-ff", "-m", f"queue {name}", name)
    group = {"base_sha": here.git("rev-parse", "main"), "head_sha": here.git("rev-parse", "HEAD")}
    ran = here.event("merge_group", "reconciler-plan.yml", {"action": "checks_requested", "merge_group": group}, {})
    assert ran.code == 0, ran.log
    told = ran.log.partition("Summary -")[2]
    assert "www" in told
    assert "mana.test" in told
    assert "reconciler-plan/plan" not in ran.log
    assert here.server.requests == []


def test_an_old_job_that_runs_again_posts_no_past_plan(hosted: Callable[..., Hosted]) -> None:
    here = hosted()
    applied(here)
    here.branch("slow", {"desired-state/dns.yaml": SLOW})
    here.git("branch", "old", "slow")
    here.branch("slow", {"desired-state/dns.yaml": SLOW.replace("3600", "7200")})
    assert here.pull_request(7, "slow").code == 0
    before = comments(here)
    ran = here.pull_request(7, "old", again=True)
    assert ran.code != 0
    assert "by now, and this is the plan of" in ran.log
    assert comments(here) == before


def test_what_is_invalid_is_told_and_plans_nothing(hosted: Callable[..., Hosted]) -> None:
    here = hosted()
    here.branch("wrong", {"desired-state/dns.yaml": DNS.replace("ttl: 300", "ttl: 7")})
    ran = here.pull_request(7, "wrong")
    assert ran.code != 0
    assert "must be" in ran.log
    assert "reconciler-plan/plan" not in ran.log
    assert comments(here) == []


def test_a_system_that_does_not_answer_is_in_the_comment_and_fails_the_job(hosted: Callable[..., Hosted]) -> None:
    here = hosted()
    here.branch("slow", {"desired-state/dns.yaml": SLOW})
    here.server.faults = [Fault(times=1000, reply=Reply.of({"success": False, "errors": []}, 403))]
    ran = here.pull_request(7, "slow")
    assert ran.code != 0
    [comment] = comments(here)
    assert '"approvable": false' in comment
    [kept] = here.github.artifacts
    assert b"cut.json" in kept["zip"]


# -------------------------------------------------------------------------------------------------------------- merges
def test_what_is_merged_is_put_in_force_and_said_of_its_commit(hosted: Callable[..., Hosted]) -> None:
    here = hosted()
    applied(here)
    here.branch("slow", {"desired-state/dns.yaml": SLOW})
    here.pull_request(7, "slow")
    tip = here.merge(7, "slow")
    ran = here.push()
    assert ran.code == 0, ran.log
    assert here.records()["www.mana.how"] == ("192.0.2.2", 3600)
    assert states(here) == {here.first: "success", tip: "success"}
    comments(here)


def test_two_merges_at_once_and_old_jobs_again_end_at_the_tip(hosted: Callable[..., Hosted]) -> None:
    here = hosted()
    applied(here)
    here.branch("slow", {"desired-state/dns.yaml": SLOW})
    here.branch("mail", {"desired-state/more.yaml": MORE})
    for number, name in ((7, "slow"), (8, "mail")):
        assert here.pull_request(number, name).code == 0
    tips = [here.merge(number, name) for number, name in ((7, "slow"), (8, "mail"))]
    wanted = {
        "mail.mana.how": ("192.0.2.1", 300),
        "www.mana.how": ("192.0.2.2", 3600),
        "new.mana.test": ("192.0.2.9", 60),
    }
    assert here.push(tips[0]).code == 0  # the first one's run; the second one's never came
    assert here.records() == wanted
    assert states(here) == {here.first: "success", tips[1]: "success"}
    here.server.forget()
    assert here.push(here.first).code == 0  # a person runs the first job of all again
    assert (here.records(), here.server.writes()) == (wanted, [])


def test_a_push_during_an_apply_is_the_next_runs(hosted: Callable[..., Hosted]) -> None:
    here = hosted()
    applied(here)
    here.branch("slow", {"desired-state/dns.yaml": SLOW})
    here.github.open(7, here.git("rev-parse", "slow"))
    first = here.merge(7, "slow")
    here.branch("slower", {"desired-state/dns.yaml": SLOW.replace("3600", "7200")})
    here.github.open(8, here.git("rev-parse", "slower"))
    later: list[str] = []

    def meanwhile(reply: Reply) -> Reply:
        later.append(here.merge(8, "slower"))
        return reply

    here.server.faults = [Fault(method="POST", change=meanwhile)]
    assert here.push(first).code == 0
    assert later
    assert here.records()["www.mana.how"][1] == 3600
    assert here.push(later[0]).code == 0
    assert here.records()["www.mana.how"][1] == 7200
    assert states(here) == {here.first: "success", first: "success", later[0]: "success"}


def test_what_can_not_be_put_in_force_is_said_too(hosted: Callable[..., Hosted]) -> None:
    here = hosted()
    here.server.faults = [Fault(times=1000, reply=Reply.of({"success": False, "errors": []}, 403))]
    assert here.push().code != 0
    assert states(here) == {here.first: "failure"}


def test_only_what_a_pull_request_showed_is_applied_where_plans_are_approved(hosted: Callable[..., Hosted]) -> None:
    """`policy.approval: plan`: the run finds out by itself what was shown, and for which head."""
    here = hosted()
    applied(here)
    policy = RECONCILER.replace("max_deletes: 3", "max_deletes: 3, approval: plan")
    here.directly({"desired-state/reconciler.yaml": policy})
    assert here.push().code == 0
    here.branch("slow", {"desired-state/dns.yaml": SLOW})
    here.branch("mail", {"desired-state/more.yaml": MORE})
    for number, name in ((7, "slow"), (8, "mail")):
        assert here.pull_request(number, name).code == 0
        here.merge(number, name)
    unseen = here.directly({"desired-state/more.yaml": f"{MORE}{UNSEEN}"})
    ran = here.push()
    assert ran.code != 0, ran.log
    assert "dns/mana.test/A/unseen" in ran.log, ran.log
    assert here.records()["www.mana.how"] == ("192.0.2.2", 3600)
    assert here.records()["new.mana.test"] == ("192.0.2.9", 60)
    assert "unseen.mana.test" not in here.records()
    assert states(here)[unseen] == "failure"


# --------------------------------------------------------------------------------------------------------------- drift
def test_a_hand_edit_becomes_an_issue_which_is_closed_when_it_is_healed(hosted: Callable[..., Hosted]) -> None:
    here = hosted()
    applied(here)
    assert here.schedule().code == 0
    assert here.github.issues == {}
    www = next(item for item in here.cloudflare.records("mana.how") if item["name"].startswith("www"))
    here.cloudflare.edit("mana.how", www["id"], content="198.51.100.7")
    here.server.forget()
    for _ in range(2):
        ran = here.schedule()
        assert ran.code == 0, ran.log
    [issue] = here.github.issues.values()
    assert issue["title"] == "mana: 1 resource differs from the main branch"
    assert "198.51.100.7" in issue["body"]
    assert issue["state"] == "open"
    assert here.server.writes() == []
    assert here.push().code == 0
    assert here.schedule().code == 0
    assert [item["state"] for item in here.github.issues.values()] == ["closed"]
    comments(here)


# ---------------------------------------------------------------------------------------------------------- the daemon
def test_the_daemon_applies_and_the_workflow_waits_for_its_word(hosted: Callable[..., Hosted], tmp_path: Path) -> None:
    """The default way: GitHub holds no key, and the server takes what is merged."""
    here = hosted("daemon")
    named = f"daemon: {{interval: 2s, github: {{repository: {REPOSITORY}, token: {{env: STATUSES}}}}}}\n"
    told = here.directly({"desired-state/reconciler.yaml": RECONCILER_ALONE + named})
    here.github.tokens["ghp_canaryDaemon"] = Token("ann", frozenset({"statuses"}))
    environ = {
        **here.environ,
        "CLOUDFLARE_API_TOKEN": WRITE,
        "CLOUDFLARE_BASE_URL": f"{here.server.url}/client/v4",
        "GITHUB_API_URL": here.github.server.url,
        "STATUSES": "ghp_canaryDaemon",
    }
    command = [sys.executable, "-m", "reconciler", "daemon", "--repo", f"file://{here.remote}"]
    command += ["--listen", "127.0.0.1:0", "--data", str(tmp_path / "daemon")]
    with (tmp_path / "daemon.log").open("w") as log:
        daemon = subprocess.Popen(command, env=environ, cwd=tmp_path, stdout=log, stderr=log)
        try:
            ran = here.push()
            assert ran.code == 0, ran.log
            assert states(here) == {told: "success"}
            assert here.records()["www.mana.how"] == ("192.0.2.2", 300)
            here.branch("wrong", {"desired-state/dns.yaml": DNS.replace("ttl: 300", "ttl: 7")})
            here.github.open(7, here.git("rev-parse", "wrong"))
            tip = here.merge(7, "wrong")
            ran = here.push()
            assert ran.code != 0
            assert states(here) == {told: "success", tip: "failure"}
            assert "is not taken: " in ran.log
        finally:
            daemon.terminate()
            daemon.wait(60)
    text = (tmp_path / "daemon.log").read_text() + repr(here.github.statuses)
    assert [canary for canary in (*CANARIES, "ghp_canaryDaemon") if canary in text] == []
