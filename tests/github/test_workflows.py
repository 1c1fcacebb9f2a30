"""What `init --github` writes: what act does not enforce is asserted on the YAML, and the linters find nothing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from ruamel.yaml import YAML

from reconciler import __version__
from reconciler.cli import program
from reconciler.github.workflows import ACTION, APPLIES, LOCK, Subject, files

ROOT = Path(__file__).parents[2]
OURS = (".github/workflows/ci.yml", ".github/workflows/release.yml")
USES = re.compile(r"(?m)^\s*(?:- )?uses: (.+)$")
PINNED = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")


def parsed(text: str) -> Any:
    return YAML(typ="safe").load(text)


def workflows() -> Iterator[tuple[str, str]]:
    for apply in APPLIES:
        for name, text in files(Subject("mana", apply=apply)).items():
            if "/workflows/" in name:
                yield f"{apply}/{name}", text
    plan = ".github/workflows/reconciler-plan.yml"
    yield f"planned/{plan}", files(Subject("mana", planned=True))[plan]
    for name in OURS:
        yield name, (ROOT / name).read_text()


ALL = dict(workflows())
USERS = {name: text for name, text in ALL.items() if name not in OURS}


def named(end: str, apply: str = "daemon") -> Any:
    return parsed(files(Subject("mana", apply=apply))[f".github/workflows/reconciler-{end}.yml"])


@pytest.mark.parametrize("name", ALL)
def test_nothing_is_allowed_that_a_job_does_not_name(name: str) -> None:
    workflow = parsed(ALL[name])
    assert workflow["permissions"] == {}
    for job in workflow["jobs"].values():
        assert "timeout-minutes" in job
        assert set(job["permissions"].values()) <= {"read", "write"}


def test_where_the_daemon_plans_no_workflow_does_and_none_gets_a_key_for_it() -> None:
    written = files(Subject("mana", planned=True))[".github/workflows/reconciler-plan.yml"]
    assert set(parsed(written)["jobs"]) == {"validate"}
    assert "secrets." not in written
    assert set(named("plan")["jobs"]) == {"validate", "plan"}


@pytest.mark.parametrize("name", ALL)
def test_every_action_is_pinned_by_its_commit_and_keeps_no_token(name: str) -> None:
    for used in USES.findall(ALL[name]):
        assert used == "./.github/actions/reconciler" or PINNED.fullmatch(used), used
    for job in parsed(ALL[name])["jobs"].values():
        for step in job["steps"]:
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False


@pytest.mark.parametrize("name", [*ALL, "action"])
def test_no_text_of_others_becomes_part_of_a_script(name: str) -> None:
    text = ALL.get(name) or files(Subject("mana"))[ACTION]
    top = parsed(text)
    steps = [step for job in top.get("jobs", {}).values() for step in job["steps"]] or top["runs"]["steps"]
    assert [step["run"] for step in steps if "${{" in step.get("run", "")] == []


@pytest.mark.parametrize("name", ALL)
def test_no_workflow_runs_strangers_code_with_keys(name: str) -> None:
    triggers = parsed(ALL[name]).get("on") or parsed(ALL[name]).get(True)
    assert not {"pull_request_target", "workflow_run", "issue_comment"} & set(triggers)


def test_a_fork_gets_no_secret_and_no_permission_but_to_read() -> None:
    plan = named("plan")
    validate = plan["jobs"]["validate"]
    assert validate["permissions"] == {"contents": "read"}
    assert "environment" not in validate
    assert "secrets." not in str(validate)
    condition = " ".join(plan["jobs"]["plan"]["if"].split())
    assert "github.event.pull_request.head.repo.full_name == github.repository" in condition
    assert "github.event_name == 'pull_request'" in condition
    assert set(plan["on"]) == {"pull_request", "merge_group"}


def test_the_plan_has_a_read_only_token_and_may_write_a_comment_alone() -> None:
    job = named("plan")["jobs"]["plan"]
    assert job["environment"] == "mail-plan"
    assert job["permissions"] == {"contents": "read", "pull-requests": "write"}
    group = "mail-plan-${{ github.event.pull_request.number }}"
    assert job["concurrency"] == {"group": group, "cancel-in-progress": True}
    keys = [step["env"] for step in job["steps"] if "uses" in step and "env" in step]
    assert keys == [{"CLOUDFLARE_API_TOKEN": "${{ secrets.CLOUDFLARE_READ_TOKEN }}"}]


@pytest.mark.parametrize("job", ["validate", "plan"])
def test_the_action_that_plans_is_the_bases(job: str) -> None:
    """The checkout is of the merge, whose history has both sides; before anything is used of it the base is there."""
    checkout, base, use = named("plan")["jobs"][job]["steps"]
    assert checkout["with"]["fetch-depth"] == 0
    assert base["run"].startswith("git checkout --quiet --detach ")
    assert use["with"]["base"] == "HEAD"


@pytest.mark.parametrize("apply", APPLIES)
def test_what_is_applied_is_the_tip_one_after_the_other(apply: str) -> None:
    workflow = named("apply", apply)
    assert workflow["concurrency"] == {"group": "mail-apply", "cancel-in-progress": False}
    assert workflow["on"]["push"] == {"branches": ["main"]}
    [job] = workflow["jobs"].values()
    assert job["environment"] == "production"
    assert job["if"] == "github.ref_name == 'main'"
    checkout = next(step for step in job["steps"] if step.get("uses", "").startswith("actions/checkout@"))
    assert checkout["with"]["ref"] == "main"


def test_only_the_way_of_the_push_holds_a_key_and_only_of_cloudflare() -> None:
    held = {apply: re.findall(r"secrets\.(\w+)", str(named("apply", apply))) for apply in APPLIES}
    assert held == {"daemon": [], "push": ["CLOUDFLARE_API_TOKEN"], "runner": []}
    assert named("apply")["jobs"]["apply"]["permissions"] == {"contents": "read", "statuses": "read"}


def test_a_runner_that_stays_meets_branches_of_this_repository_alone_and_runs_nothing_of_them() -> None:
    for name, text in ALL.items():
        workflow = parsed(text)
        for job in workflow["jobs"].values():
            if "self-hosted" not in job["runs-on"]:
                continue
            if "pull_request" not in workflow["on"]:
                assert set(workflow["on"]) == {"push", "workflow_dispatch"}, name
                continue
            condition = " ".join(job["if"].split())
            assert "github.event.pull_request.head.repo.full_name == github.repository" in condition
            checkout, base, use = job["steps"]
            assert base["run"] == 'git checkout --quiet --detach "$GITHUB_SHA^1"'
            assert use["with"]["base"] == "HEAD"
            assert use["with"]["program"] == "reconciler"
            assert checkout["with"]["persist-credentials"] is False


def test_the_runner_plans_all_systems_and_github_holds_no_key_for_it() -> None:
    job = named("plan", "runner")["jobs"]["plan"]
    assert "target" not in job["steps"][-1]["with"]
    assert "secrets." not in str(job)
    assert "environment" not in job


def test_drift_is_looked_for_on_main_with_a_read_only_token() -> None:
    workflow = named("drift")
    assert set(workflow["on"]) == {"schedule", "workflow_dispatch"}
    [job] = workflow["jobs"].values()
    assert job["permissions"] == {"contents": "read", "issues": "write"}
    assert re.findall(r"secrets\.(\w+)", str(job)) == ["CLOUDFLARE_READ_TOKEN"]


def test_the_action_of_this_repository_is_the_one_that_is_written() -> None:
    assert (ROOT / ACTION).read_text() == files(Subject("mana"))[ACTION]
    assert f'VERSION: "{__version__}"' in (ROOT / ACTION).read_text()


def test_the_action_installs_our_package_and_not_another_s_of_the_program_s_name() -> None:
    name = parsed_toml()["project"]["name"]
    assert name != "reconciler", "somebody else's, on the index"
    assert re.findall(r'"([\w-]+)==\$VERSION"', (ROOT / ACTION).read_text()) == [name]


def test_the_lock_of_a_release_is_the_one_of_this_repository() -> None:
    build = parsed_toml()["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert build["requirements/run.txt"] == f"reconciler/{LOCK.name}"


def parsed_toml() -> Any:
    import tomllib

    return tomllib.loads((ROOT / "pyproject.toml").read_text())


# ------------------------------------------------------------------------------------------------------ init --github
@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    subprocess.run(["git", "init", "--quiet", "--initial-branch=main"], check=True)
    return tmp_path


def init(*arguments: str) -> Any:
    return CliRunner().invoke(program, ["init", *arguments])


def test_init_writes_what_is_missing_and_leaves_what_is_there(repository: Path) -> None:
    assert init("--stack", "mana").exit_code == 0
    (repository / ".github/workflows").mkdir(parents=True)
    mine = repository / ".github/workflows/reconciler-drift.yml"
    mine.write_text("mine\n")
    ended = init("--github", "--apply", "push")
    assert ended.exit_code == 0, ended.output
    expected = files(Subject("mana", apply="push"))
    for name, text in expected.items():
        assert (repository / name).read_text() == ("mine\n" if name.endswith("drift.yml") else text)
    assert "Left as they are:\n  .github/workflows/reconciler-drift.yml" in ended.output
    again = init("--github")
    assert "Written:" not in again.output
    assert (repository / ".github/workflows/reconciler-apply.yml").read_text() == expected[
        ".github/workflows/reconciler-apply.yml"
    ]


def test_init_writes_no_plan_job_where_the_directory_has_the_daemon_plan(repository: Path) -> None:
    assert init("--stack", "mana").exit_code == 0
    with (repository / "desired-state/reconciler.yaml").open("a") as file:
        file.write("daemon: {plans: true, github: {repository: octo/mail, token: {env: GITHUB}}}\n")
    ended = init("--github")
    assert "The daemon plans pull requests" in ended.output
    plan = parsed((repository / ".github/workflows/reconciler-plan.yml").read_text())
    assert set(plan["jobs"]) == {"validate"}
    (repository / ".github/workflows/reconciler-plan.yml").unlink()
    assert init("--github", "--apply", "push").exit_code == 0  # nobody else is there who could
    plan = parsed((repository / ".github/workflows/reconciler-plan.yml").read_text())
    assert set(plan["jobs"]) == {"validate", "plan"}


def test_init_names_the_directory_and_the_branch(repository: Path) -> None:
    assert init("--state", "mail/state", "--stack", "mana").exit_code == 0
    assert init("--github", "--state", "mail/state", "--branch", "trunk").exit_code == 0
    apply = parsed((repository / ".github/workflows/reconciler-apply.yml").read_text())
    assert apply["on"]["push"] == {"branches": ["trunk"]}
    use = apply["jobs"]["apply"]["steps"][-1]["with"]
    assert (use["state"], use["branch"], use["stack"]) == ("mail/state", "trunk", "mana")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--state", "../elsewhere"), "is not the top of a git repository"),
        (("--state", "a b"), "is no path that a workflow should hold"),
        (("--branch", "x; id"), "is no branch that a workflow should hold"),
        (("--stack", "mana; id"), "is no stack's name"),
        (("--stack", "mana"), "leads out of the repository"),
    ],
)
def test_init_writes_nothing_that_would_do_something_else(
    repository: Path, tmp_path_factory: pytest.TempPathFactory, arguments: tuple[str, ...], said: str
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    if said.startswith("leads"):
        (repository / ".github").symlink_to(elsewhere)
    ended = init("--github", *arguments)
    assert (ended.exit_code, said in ended.output) == (1, True), ended.output
    assert list(elsewhere.iterdir()) == []
    assert not (repository / ".github/workflows").exists()


@pytest.mark.parametrize("name", [".github", ".github/workflows", ".github/actions", ".github/actions/reconciler"])
@pytest.mark.parametrize("where", ["elsewhere", ".git/hooks"])
def test_init_follows_no_link_out_of_the_repository_on_the_way_to_any_file(
    repository: Path, tmp_path_factory: pytest.TempPathFactory, name: str, where: str
) -> None:
    led = tmp_path_factory.mktemp(where) if where == "elsewhere" else repository / where
    before = sorted(led.iterdir())
    (repository / name).parent.mkdir(parents=True, exist_ok=True)
    (repository / name).symlink_to(led)
    ended = init("--github", "--stack", "mana")
    assert (ended.exit_code, f"{name}: is a link that leads out" in ended.output) == (1, True), ended.output
    assert sorted(led.iterdir()) == before
    assert list((repository / ".github").rglob("*.yml")) == []


# ------------------------------------------------------------------------------------------------------- the linters
def _needed(name: str) -> str:
    beside = Path(sys.executable).parent / name  # zizmor is one of our requirements
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (.ci/run installs it)")
    return found


def _ran(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    return subprocess.run(command, check=False, cwd=folder, capture_output=True, text=True, env=environ)


@pytest.fixture(params=[*APPLIES, "planned", "ours"])
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "ours":
        return ROOT
    planned = request.param == "planned"
    place = Subject("mana", apply="daemon" if planned else request.param, planned=planned)
    for name, text in files(place).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / ".git").mkdir()
    return tmp_path


def test_actionlint_finds_nothing(tree: Path) -> None:
    found = [str(item) for item in sorted((tree / ".github/workflows").glob("*.yml"))]
    assert found
    ended = _ran([_needed("actionlint"), "-no-color", *found], tree)
    assert (ended.returncode, ended.stdout) == (0, "")


def test_zizmor_finds_nothing_of_medium_or_higher(tree: Path) -> None:
    command = [_needed("zizmor"), "--offline", "--persona", "auditor", "--min-severity", "medium", "--no-progress"]
    ended = _ran([*command, ".github"], tree)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "audit" in ended.stderr


def test_the_linters_would_find_something(tree: Path, tmp_path: Path) -> None:
    text = files(Subject("mana"))[".github/workflows/reconciler-plan.yml"]
    wrong = tmp_path / "wrong/.github/workflows/plan.yml"
    wrong.parent.mkdir(parents=True)
    wrong.write_text(
        text.replace('"$GITHUB_SHA^1"', '"${{ github.event.pull_request.title }}"').replace("runs-on", "run-on")
    )
    for command in (["actionlint", str(wrong)], ["zizmor", "--offline", "--min-severity", "medium", str(wrong)]):
        ended = _ran([_needed(command[0]), *command[1:]], tmp_path / "wrong")
        assert ended.returncode != 0
