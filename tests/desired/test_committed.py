"""The directory as a commit has it: read as it was committed, with the limits and errors of files, and nothing run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from daemon.origin import ENVIRON, Origin, run, yaml

from reconciler.desired.committed import Repository
from reconciler.desired.load import Directory, load, salvage
from reconciler.desired.spec import references
from reconciler.git.objects import Objects
from reconciler.problem import InvalidDirectory, ReconcilerError


@pytest.fixture
def origin(tmp_path: Path) -> Origin:
    return Origin(tmp_path / "a")


def repository(origin: Origin, state: str = "desired-state", top: Path | None = None) -> Repository:
    return Repository.holding((top or origin.tree) / state, ENVIRON)


def read(origin: Origin, revision: str = "HEAD") -> Directory:
    with repository(origin).at(revision) as written:
        return load(written.path)


def refused(origin: Origin, revision: str = "HEAD", top: Path | None = None) -> str:
    with pytest.raises(ReconcilerError) as raised, repository(origin, top=top).at(revision) as written:
        load(written.path)
    return str(raised.value)


def test_a_revision_is_read_whatever_lies_in_the_work_tree(origin: Origin) -> None:
    first = origin.state(1)
    origin.state(2)
    (origin.tree / "desired-state/reconciler.yaml").write_text("nonsense")
    for name, deletes in (("HEAD", 2), ("HEAD~1", 1), (first, 1), (first[:8], 1), ("main", 2)):
        assert read(origin, name).spec.policy.max_deletes == deletes
    assert (origin.tree / "desired-state/reconciler.yaml").read_text() == "nonsense"


def test_it_is_gone_afterwards_and_no_other_file_was_written(origin: Origin) -> None:
    origin.commit({"desired-state/reconciler.yaml": yaml(), "secrets/a.pem": "x", "docker-compose.yml": "x"})
    with repository(origin).at("HEAD") as written:
        assert [path.name for path in written.top.rglob("*")] == ["desired-state", "reconciler.yaml"]
        assert written.top.name == origin.tree.name
        assert written.top.parent.stat().st_mode & 0o077 == 0
    assert not written.top.exists()
    with repository(origin).at("HEAD", whole=True) as written:
        assert (written.path / "../secrets/a.pem").read_text() == "x"
    assert not written.top.exists()


def test_without_room_for_its_files_it_says_so(origin: Origin, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    origin.state()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    assert "its files can't be written aside: No such file or directory" in refused(origin)


def test_nothing_that_the_repository_configures_is_run(origin: Origin, tmp_path: Path) -> None:
    origin.commit({".gitattributes": "*.yaml filter=evil diff=evil text eol=crlf ident\n"})
    origin.state(7)
    ran = tmp_path / "ran"
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {ran}\ncat\n")
    program.chmod(0o755)
    for key in ("filter.evil.smudge", "filter.evil.process", "diff.evil.textconv", "core.fsmonitor", "core.sshCommand"):
        run(origin.tree, "config", key, str(program))
    for hook in ("post-checkout", "post-index-change", "reference-transaction"):
        (origin.tree / ".git/hooks" / hook).symlink_to(program)
    assert read(origin).spec.policy.max_deletes == 7
    assert not ran.exists()


def test_a_name_that_means_no_commit_is_told_with_the_remedy(origin: Origin, tmp_path: Path) -> None:
    origin.state(1)
    for name in ("nonsense", "--all", "HEAD..HEAD", "HEAD:desired-state", "-x", "a\nb", "f" * 40, ""):
        said = refused(origin, name)
        assert "is no revision here" in said
        assert "git fetch" in said
    run(tmp_path, "clone", "-q", "-b", "main", str(origin.bare), "clone")
    run(tmp_path / "clone", "checkout", "-q", "-b", "topic")
    run(tmp_path / "clone", "branch", "-q", "-D", "main")
    assert "name it as origin/main" in refused(origin, "main", tmp_path / "clone")


def test_a_shallow_clone_without_the_base_says_how_to_get_it(origin: Origin, tmp_path: Path) -> None:
    first = origin.state(1)
    origin.state(2)
    run(tmp_path, "clone", "-q", "--depth", "1", "-b", "main", f"file://{origin.bare}", "clone")
    said = refused(origin, first, tmp_path / "clone")
    assert "a shallow clone" in said
    assert "`fetch-depth: 0`" in said
    with repository(origin, top=tmp_path / "clone").at("HEAD") as written:
        assert load(written.path).spec.policy.max_deletes == 2


def test_a_clone_without_the_files_is_told(origin: Origin, tmp_path: Path) -> None:
    origin.state(1)
    run(origin.bare, "config", "uploadpack.allowFilter", "true")
    run(tmp_path, "clone", "-q", "--no-checkout", "--filter=blob:none", f"file://{origin.bare}", "clone")
    said = refused(origin, "origin/main", tmp_path / "clone")
    assert "its files are not all here" in said
    assert "--filter" in said


def test_where_there_is_no_repository_or_no_git_that_is_told(origin: Origin, tmp_path: Path) -> None:
    origin.state(1)
    with pytest.raises(ReconcilerError, match="lies in no repository of git"):
        Repository.holding(tmp_path / "desired-state", ENVIRON)
    with pytest.raises(ReconcilerError, match="install git"):
        Repository.holding(origin.tree / "desired-state", {"PATH": "/nonexistent"}).commit("HEAD")


def test_a_linked_work_tree_and_names_of_sha256_are_read(origin: Origin, tmp_path: Path) -> None:
    origin.state(3)
    run(origin.tree, "worktree", "add", "-q", "--detach", str(tmp_path / "linked"))
    with repository(origin, top=tmp_path / "linked").at("HEAD") as written:
        assert load(written.path).spec.policy.max_deletes == 3
    other = Origin(tmp_path / "b", "sha256")
    other.state(4)
    assert read(other).spec.policy.max_deletes == 4


def test_the_directory_may_be_the_top_of_the_repository(origin: Origin) -> None:
    origin.commit({"reconciler.yaml": yaml(5)})
    with repository(origin, ".").at("HEAD") as written:
        assert load(written.path).spec.policy.max_deletes == 5
        assert written.shown == "."


# --------------------------------------------------------------------------------------------------- what others write
def test_links_lead_nowhere_outside(origin: Origin, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/a.yaml").write_text(yaml(9))
    origin.commit({"desired-state/reconciler.yaml": yaml(), "other/b.yaml": "x"})
    for name, there in (
        ("out", tmp_path / "outside"),
        ("a", tmp_path / "outside/a.yaml"),
        ("up", Path("../other/b.yaml")),
    ):
        link = origin.tree / f"desired-state/{name}.yaml"
        link.symlink_to(there)
        origin.commit()
        assert f"{name}.yaml: is a link that leaves the directory" in refused(origin)
        link.unlink()
    (origin.tree / "desired-state/again.yaml").symlink_to("reconciler.yaml")
    origin.commit()
    assert "stands twice" in refused(origin)


@pytest.mark.parametrize("whole", [False, True])
def test_a_link_as_the_directory_is_not_followed(origin: Origin, tmp_path: Path, whole: bool) -> None:
    origin.commit({"real/desired-state/reconciler.yaml": yaml()})
    (tmp_path / "outside/desired-state").mkdir(parents=True)
    (tmp_path / "outside/desired-state/a.yaml").write_text(yaml(9))
    for name, there in (("desired-state", "real/desired-state"), ("way", str(tmp_path / "outside"))):
        (origin.tree / name).symlink_to(there)
        commit = origin.commit()
        (origin.tree / name).unlink()
        state = origin.tree / ("desired-state" if name == "desired-state" else "way/desired-state")
        with pytest.raises(ReconcilerError, match=r"has a link|does not exist"):  # noqa: SIM117
            with Repository.holding(state, ENVIRON).at(commit, whole=whole) as written:
                load(written.path)


def test_large_files_and_wrong_names_are_the_errors_they_are_on_disk(origin: Origin) -> None:
    origin.commit({"desired-state/reconciler.yaml": yaml(), "desired-state/large.yaml": "#" * (1 << 20) + "#"})
    assert "large.yaml: is larger than 1 MiB" in refused(origin)
    origin.commit({"desired-state/large.yaml": "#" * (9 << 20)})
    assert "holds a YAML file of more than 8 MiB" in refused(origin)
    origin.commit(
        {"desired-state/large.yaml": None, "desired-state/huge.bin": b"\0" * (9 << 20), "desired-state/a.yml": ""}
    )
    assert "a.yml: ends in .yml" in refused(origin)
    origin.commit({"desired-state/a.yml": None, "desired-state/\x1b[2Jname.yaml": "a: ["})
    assert "\x1b" not in refused(origin)


def test_another_repository_among_the_files_is_not_read_and_told(origin: Origin, tmp_path: Path) -> None:
    other = Origin(tmp_path / "other")
    other.commit({"a.yaml": yaml(9)})
    origin.state(1)
    run(origin.tree, "submodule", "add", "-q", str(other.bare), "desired-state/more")
    commit = origin.commit()
    assert read(origin).spec.policy.max_deletes == 1
    [problem] = repository(origin).others(commit)
    assert problem.where == "desired-state/more"
    assert "submodule" in problem.summary


def crafted(origin: Origin, entries: bytes) -> str:
    """Make a commit of a tree that no git writes."""
    tree = _object(origin, "tree", entries)
    return _object(origin, "commit", f"tree {tree}\nauthor a <a@b> 1 +0000\ncommitter a <a@b> 1 +0000\n\nx\n".encode())


def _object(origin: Origin, kind: str, content: bytes) -> str:
    path = origin.place / "object"
    path.write_bytes(content)
    return run(origin.tree, "hash-object", "-w", "--literally", "-t", kind, str(path))


@pytest.mark.parametrize("name", [b"..", b".", b"a/../../b", b".git"])
def test_names_that_lead_out_are_refused(origin: Origin, tmp_path: Path, name: bytes) -> None:
    origin.state(1)
    blob = _object(origin, "blob", yaml(9).encode())
    inner = _object(origin, "tree", b"100644 " + name + b"\0" + bytes.fromhex(blob))
    commit = crafted(origin, b"40000 desired-state\0" + bytes.fromhex(inner))
    said = refused(origin, commit)
    assert "names a file outside of itself" in said or "does not exist" in said or "holds no *.yaml" in said
    assert not (tmp_path / "b").exists()


def test_a_link_and_a_folder_of_one_name_write_nothing_outside(origin: Origin, tmp_path: Path) -> None:
    origin.state(1)
    outside = tmp_path / "outside"
    outside.mkdir()
    blob, link = _object(origin, "blob", b"x"), _object(origin, "blob", str(outside).encode())
    folder = _object(origin, "tree", b"100644 evil.yaml\0" + bytes.fromhex(blob))
    inner = _object(origin, "tree", b"120000 a\0" + bytes.fromhex(link) + b"40000 a\0" + bytes.fromhex(folder))
    commit = crafted(origin, b"40000 desired-state\0" + bytes.fromhex(inner))
    assert "is the same as another one on this disk" in refused(origin, commit)
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("names", [(b"a", b"a"), (b"a", b"a/b/c"), (b"a.yaml", b"a.yaml/x")])
def test_t10_no_link_is_written_through_a_link(origin: Origin, tmp_path: Path, names: tuple[bytes, bytes]) -> None:
    """It would get a name of the commit's choice, and lead where the commit says, anywhere on this machine."""
    origin.state(1)
    outside = tmp_path / "outside"
    outside.mkdir()
    away, key = (_object(origin, "blob", text) for text in (str(outside).encode(), b"/etc/passwd"))
    inner = b"120000 " + names[0] + b"\0" + bytes.fromhex(away)
    if b"/" in names[1]:
        inner += b"120000 " + names[1] + b"\0" + bytes.fromhex(key)
    else:
        inner += b"40000 a\0" + bytes.fromhex(_object(origin, "tree", b"120000 authorized\0" + bytes.fromhex(key)))
    commit = crafted(origin, b"40000 desired-state\0" + bytes.fromhex(_object(origin, "tree", inner)))
    assert "is the same as another one on this disk" in refused(origin, commit)
    assert list(outside.iterdir()) == []


def test_a_base_that_is_invalid_or_not_there_is_no_error_by_itself(origin: Origin) -> None:
    origin.commit({"README": "x"})
    with repository(origin).at("HEAD") as written:
        directory, problems = salvage(written.path)
    assert directory is None
    assert written.named(problems[0]).where == "desired-state"
    origin.commit({"desired-state/a.yaml": "stack: 1 2\n"})
    with pytest.raises(InvalidDirectory):
        read(origin)


def test_objects_name_what_is_not_there(origin: Origin) -> None:
    origin.state(1)
    found = Objects(origin.tree / ".git", ENVIRON)
    assert found.commit("HEAD") == origin.head
    assert found.commit("HEAD^{tree}") == ""
    assert os.path.exists(found.place)  # noqa: PTH110


# -------------------------------------------------------------------------------------------- before a merge
def account(ref: str) -> str:
    server = f"{{url: 'http://localhost', username: a, password: {ref}}}"
    return f"targets: {{stalwart: {server}}}\naccounts: {{a@b.how: {{password: {ref}}}}}\n"


def held(origin: Origin, base: str = "main", head: str = "topic") -> tuple[set[str], bool]:
    """Return where references are held, and whether paths are seen from the work tree."""
    with repository(origin).proposed(base, head) as found:
        spec = found.directory.spec
        return {str(path[0]) for path, ref in references(spec) if ref.held}, found.directory.path.is_relative_to(
            origin.tree
        )


def test_paths_are_seen_from_the_work_tree_only_while_it_is_the_base(origin: Origin) -> None:
    origin.commit(
        {"desired-state/a.yaml": yaml(more=account("{file: ../secrets/a}")), ".gitignore": "secrets\n", "b": "x"}
    )
    run(origin.tree, "checkout", "-q", "-b", "topic")
    origin.commit({"desired-state/c.yaml": "x-c: 1\n"}, push=False)
    assert held(origin) == (set(), False)
    run(origin.tree, "checkout", "-q", "main")
    assert held(origin) == (set(), True)
    (origin.tree / "secrets").mkdir()
    (origin.tree / "secrets/a").write_text("not one of git's")
    assert held(origin) == (set(), True)
    (origin.tree / "more").write_text("one of git's")
    run(origin.tree, "add", "more")
    assert held(origin) == (set(), False)
    run(origin.tree, "rm", "-qf", "more")
    (origin.tree / "b").write_text("y")
    assert held(origin) == (set(), False)


@pytest.mark.parametrize(
    "source", ["file: ../s/a", "age: ../s/a", "sops: '../s/a#k/../../../x'", "file: ../desired-state/../s/a"]
)
def test_a_file_that_two_commits_have_otherwise_is_the_head_s(origin: Origin, source: str) -> None:
    origin.commit({"desired-state/a.yaml": yaml(more=account(f"{{{source}}}")), "s/a": "x", "s/b": "x"})
    run(origin.tree, "checkout", "-q", "-b", "topic")
    origin.commit({"s/b": "y"}, push=False)
    run(origin.tree, "checkout", "-q", "main")
    assert held(origin) == (set(), True)
    for edit in ({"s/a": "y"}, {"s/a": None}):
        run(origin.tree, "checkout", "-q", "topic")
        origin.commit(edit, push=False)
        run(origin.tree, "checkout", "-q", "main")
        assert held(origin) == ({"accounts"}, True)


def test_what_a_link_leads_to_is_nobody_s(origin: Origin) -> None:
    origin.commit({"desired-state/a.yaml": yaml(more=account("{file: ../s/a}")), "real/a": "x"})
    (origin.tree / "s").symlink_to("real")
    origin.commit()
    run(origin.tree, "checkout", "-q", "-b", "topic")
    origin.commit({"real/a": "y"}, push=False)
    run(origin.tree, "checkout", "-q", "main")
    assert held(origin) == ({"accounts"}, True)


def test_a_path_in_full_into_another_revision_is_not_read_by_whatever_name(origin: Origin, tmp_path: Path) -> None:
    (tmp_path / "other-name").symlink_to(origin.tree)
    for top in (origin.tree, tmp_path / "other-name", f"{tmp_path}/x/../other-name"):
        run(origin.tree, "checkout", "-q", "-B", "main")
        origin.commit({"desired-state/a.yaml": yaml(more=account(f"{{file: {top}/s/a}}"))}, push=False)
        assert held(origin, head="main") == (set(), True)
        run(origin.tree, "checkout", "-q", "-B", "topic")
        origin.commit({"t": str(top)}, push=False)
        assert held(origin) == ({"targets", "accounts"}, False)
        assert held(origin, head="main") == ({"targets", "accounts"}, False)
