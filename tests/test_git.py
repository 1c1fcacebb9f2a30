"""What git says of a directory, and that nothing runs which its repository configures."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from reconciler import git
from reconciler.git import Revision


def run(where: Path, *arguments: str) -> str:
    config = ("-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "protocol.file.allow=always")
    command = ["git", "-C", str(where), *config, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with a directory of two files, and a home without any configuration."""
    top = tmp_path / "top"
    (top / "state" / "sub").mkdir(parents=True)
    (top / "state/a.yaml").write_text("version: 1\n")
    (top / "state/sub/b.yaml").write_text("stack: x\n")
    (top / "other.txt").write_text("x")
    run(tmp_path, "init", "-q", str(top))
    run(top, "add", "-A")
    run(top, "commit", "-qm", "first")
    return top


FILES = ("a.yaml", "sub/b.yaml")
ENVIRON = {"PATH": os.environ.get("PATH", os.defpath), "HOME": "/nonexistent", "TOKEN": "canary"}


def revision(path: Path, read: tuple[str, ...] = FILES) -> str:
    return Revision(path, read, ENVIRON).name()


def test_the_commit_is_named_and_whether_the_files_are_those_of_it(repository: Path) -> None:
    head, state = run(repository, "rev-parse", "HEAD")[:12], repository / "state"
    assert revision(state) == head
    (state / "sub/b.yaml").write_bytes(b"stack: x\r\n")  # as a checkout with other line ends has it
    assert revision(state) == head
    (state / "sub/b.yaml").write_text("stack: y\n")
    assert revision(state) == f"{head}+"
    run(repository, "add", "-A")
    assert revision(state) == f"{head}+"
    run(repository, "commit", "-qm", "second")
    assert revision(state) == run(repository, "rev-parse", "HEAD")[:12] != head
    assert revision(state, (*FILES, "new.yaml")).endswith("+")
    (state / "a.yaml").unlink()
    assert revision(state, FILES[1:]).endswith("+")


def test_where_there_is_no_commit_nothing_is_named(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    assert revision(tmp_path / "plain") == ""
    run(tmp_path, "init", "-q", str(tmp_path / "empty"))
    assert revision(tmp_path / "empty") == ""
    assert Revision(repository / "state", FILES, {"PATH": ""}).name() == ""


def test_a_work_tree_and_the_top_itself_are_known(repository: Path, tmp_path: Path) -> None:
    run(repository, "worktree", "add", "-q", str(tmp_path / "tree"))
    head = run(repository, "rev-parse", "HEAD")[:12]
    assert revision(tmp_path / "tree/state") == head
    assert revision(repository, ("state/a.yaml",)) == head


# ------------------------------------------------------------------------------------------------- what may not run
CONFIG = """
[core]
    fsmonitor = {run}
    hooksPath = {hooks}
    pager = {run}
    sshCommand = {run}
    askPass = {run}
    editor = {run}
    attributesFile = {attributes}
    worktree = {top}
    bare = false
    gitProxy = {run}
    alternateRefsCommand = {run}
[include]
    path = {included}
[alias]
    rev-parse = !{run}
    ls-tree = !{run}
    check-ignore = !{run}
    describe = !{run}
[pager]
    ls-tree = {run}
    rev-parse = {run}
[diff]
    external = {run}
[diff "d"]
    textconv = {run}
    command = {run}
[filter "f"]
    clean = {run}
    smudge = {run}
    process = {run}
    required = true
[merge "m"]
    driver = {run}
[gpg]
    program = {run}
[log]
    showSignature = true
[credential]
    helper = !{run}
[extensions]
    partialClone = origin
    worktreeConfig = true
[remote "origin"]
    url = ext::{run}
    promisor = true
    uploadpack = {run}
    vcs = ext
[protocol]
    allow = always
[protocol "ext"]
    allow = always
[submodule "sub"]
    update = !{run}
    url = ext::{run}
[uploadpack]
    packObjectsHook = {run}
[trailer "t"]
    command = {run}
[interactive]
    diffFilter = {run}
[sequence]
    editor = {run}
"""
HOOKS = ("post-index-change", "reference-transaction", "post-checkout", "fsmonitor-watchman", "pre-auto-gc")


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """A command that leaves a mark when it is run."""
    command = tmp_path / "command"
    command.write_text(f'#!/bin/sh\ntouch "{tmp_path}/ran"\n')
    command.chmod(0o755)
    return command


def arm(folder: Path, trap: Path, top: Path) -> None:
    """Let all that git may configure run the command, in a folder that is a repository for git."""
    hooks, included, attributes = (trap.parent / name for name in ("hooks", "included", "attributes"))
    hooks.mkdir(exist_ok=True)
    (folder / "hooks").mkdir(exist_ok=True)
    for name in HOOKS:
        for place in (hooks, folder / "hooks"):
            (place / name).unlink(missing_ok=True)
            (place / name).symlink_to(trap)
    included.write_text(f"[core]\n fsmonitor = {trap}\n")
    attributes.write_text("* filter=f diff=d merge=m\n")
    (folder / "info").mkdir(exist_ok=True)
    (folder / "info/attributes").write_text("* filter=f diff=d merge=m\n")
    filled = CONFIG.format(run=trap, hooks=hooks, included=included, attributes=attributes, top=top)
    for name in ("config", "config.worktree"):
        with (folder / name).open("a") as file:
            file.write(filled)


def bare(folder: Path) -> None:
    """Make what git takes for a bare repository and keeps as files of any other one."""
    for name in ("refs/heads", "objects/info"):
        (folder / name).mkdir(parents=True)
        (folder / name / ".keep").touch()
    (folder / "HEAD").write_text("ref: refs/heads/main\n")


def assert_nothing_runs(state: Path, trap: Path) -> str:
    said = revision(state)
    git.ignores(state / "secrets" / "key", ENVIRON)
    assert not (trap.parent / "ran").exists()
    return said


def test_t1_a_bare_repository_among_the_files_runs_nothing(repository: Path, trap: Path) -> None:
    state, head = repository / "state", run(repository, "rev-parse", "HEAD")[:12]
    bare(state)
    arm(state, trap, repository)
    run(repository, "add", "-A")
    with pytest.raises(subprocess.CalledProcessError):  # git itself falls for it
        run(state, "-c", "safe.bareRepository=all", "status")
    (trap.parent / "ran").unlink(missing_ok=True)
    assert assert_nothing_runs(state, trap) == head


@pytest.mark.parametrize("lost", [False, True])
def test_t1_a_repository_whose_own_configuration_is_hostile_runs_nothing(
    repository: Path, trap: Path, *, lost: bool
) -> None:
    (repository / ".gitattributes").write_text("* filter=f diff=d merge=m text eol=crlf\n")
    (repository / ".gitmodules").write_text(
        f'[submodule "sub"]\n path = state/sub\n url = ext::{trap}\n update = !{trap}\n'
    )
    arm(repository / ".git", trap, repository)
    os.utime(repository / "state/a.yaml", (1, 1))  # git would compare it anew
    subprocess.run(["git", "-C", repository, "status"], check=False, capture_output=True)
    assert (trap.parent / "ran").exists()  # it is hostile
    (trap.parent / "ran").unlink()
    if lost:  # git would fetch it from the promisor
        tree = run(repository, "-c", "core.fsmonitor=false", "rev-parse", "HEAD:state/sub")
        (repository / ".git/objects" / tree[:2] / tree[2:]).unlink()
        (trap.parent / "ran").unlink(missing_ok=True)
    assert_nothing_runs(repository / "state", trap)


@pytest.mark.parametrize("form", ["folder", "file", "link"])
def test_t1_a_repository_of_the_directory_s_own_runs_nothing(repository: Path, trap: Path, form: str) -> None:
    """As an archive could hold one: `.git` in the directory, or a file or a link that leads to it."""
    state = repository / "state"
    place = state / ".git" if form == "folder" else trap.parent / "elsewhere"
    run(repository, "clone", "-q", "--bare", str(repository), str(place))
    arm(place, trap, repository)
    if form == "file":
        (state / ".git").write_text(f"gitdir: {place}\n")
    if form == "link":
        (state / ".git").symlink_to(place)
    assert_nothing_runs(state, trap)


def test_t1_a_submodule_with_a_hostile_configuration_runs_nothing(repository: Path, trap: Path, tmp_path: Path) -> None:
    run(tmp_path, "clone", "-q", str(repository), str(tmp_path / "module"))
    run(repository, "submodule", "add", "-q", str(tmp_path / "module"), "state/module")
    run(repository, "commit", "-qm", "module")
    arm(repository / ".git/modules/state/module", trap, repository / "state/module")
    assert assert_nothing_runs(repository / "state", trap) == run(repository, "rev-parse", "HEAD")[:12]


def test_t1_git_gets_nothing_of_ours(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/git").write_text(f'#!/bin/sh\nenv >>"{tmp_path}/seen"; echo "$PWD" "$@" >>"{tmp_path}/seen"\n')
    (tmp_path / "bin/git").chmod(0o755)
    environ = {**os.environ, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "TOKEN": "canary", "GIT_DIR": "canary"}
    Revision(repository / "state", FILES, environ).name()
    git.ignores(repository / "state/key", environ)
    assert "canary" not in (tmp_path / "seen").read_text()
    assert (tmp_path / "seen").read_text().count("--git-dir=") == 3


def test_what_git_would_leave_out_is_known(repository: Path) -> None:
    (repository / ".gitignore").write_text("secrets/\n")
    asked = {name: git.ignores(repository / name, ENVIRON) for name in ("secrets/a", "state/a.yaml", "state/new")}
    assert asked == {"secrets/a": True, "state/a.yaml": False, "state/new": False}
    assert git.ignores(repository.parent / "elsewhere", ENVIRON) is True
    assert git.ignores(repository / "secrets/a", {"PATH": ""}) is None


def test_t12_a_folder_of_ours_in_which_git_tracks_a_file_is_told(repository: Path, tmp_path: Path) -> None:
    folder = repository / ".reconciler"
    assert git.tracked(folder, ENVIRON) is None
    folder.mkdir()
    (folder / "passwords.json").write_text("{}")
    assert git.tracked(folder, ENVIRON) is None
    run(repository, "add", "-f", str(folder))
    assert git.tracked(folder, ENVIRON) == ".reconciler/passwords.json"
    assert git.tracked(repository / "state/../.reconciler", ENVIRON) == ".reconciler/passwords.json"
    assert git.tracked(repository / "[.]reconciler", ENVIRON) is None
    assert git.tracked(tmp_path, ENVIRON) is None  # outside of every work tree
    run(repository, "rm", "-rq", "--cached", ".reconciler")
    (folder / "passwords.json").unlink()
    folder.rmdir()
    folder.symlink_to("state")
    assert git.tracked(folder, ENVIRON) is None
    run(repository, "add", "-f", ".reconciler")
    assert git.tracked(folder, ENVIRON) == ".reconciler"


def test_t10_a_link_that_leaves_the_work_tree_is_found_wherever_it_stands(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "state").mkdir(parents=True)
    (repository / "out").symlink_to(tmp_path / "elsewhere")
    (repository / "within").symlink_to("state")
    (repository / "inside").symlink_to(".git")
    (repository / "round").symlink_to("../elsewhere/../top/state")
    (tmp_path / "current").symlink_to(repository)
    assert git.leaving(repository / "out") == repository / "out"
    assert git.leaving(repository / "out" / "state") == repository / "out"
    assert git.leaving(repository / "inside" / "x") == repository / "inside"
    assert git.leaving(tmp_path / "current" / "out" / "state") == tmp_path / "current" / "out"
    for harmless in (repository / "state", repository / "within", repository / "round", tmp_path / "current" / "state"):
        assert git.leaving(harmless) is None


def test_t12_what_git_tracks_is_found_where_the_file_system_does_not_look_at_case(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository / "Infra" / ".Reconciler").mkdir(parents=True)
    (repository / "Infra" / ".Reconciler" / "journal.jsonl").write_text("")
    run(repository, "add", "-f", "-A")
    folded, lstat = repository / "infra" / ".reconciler", os.lstat
    lies = {"infra": "Infra", ".reconciler": ".Reconciler"}

    def there(path: str | Path) -> Path:  # as on a Mac, where both names lead to one folder
        return Path(*(lies.get(part, part) for part in Path(path).parts))

    monkeypatch.setattr(Path, "lstat", lambda self: lstat(there(self)))
    monkeypatch.setattr(Path, "is_dir", lambda self: stat.S_ISDIR(lstat(there(self)).st_mode))
    monkeypatch.setattr(os.path, "lexists", lambda path: os.access(there(path), os.F_OK))
    assert git.tracked(folded, ENVIRON) == "Infra/.Reconciler/journal.jsonl"


def test_no_attribute_hides_what_commits_added(repository: Path) -> None:
    (repository / ".gitattributes").write_text("* binary -diff\n")
    (repository / "state/c.yaml").write_text("dns: {mana.how: []}\n")
    run(repository, "add", "-A")
    run(repository, "commit", "-qm", "second")
    assert "dns: {mana.how: []}" in (git.added(repository / "state", ENVIRON) or "")
