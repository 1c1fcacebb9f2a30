"""Following a branch by the real git: what is taken, and what never takes the place of the last good one.

The numbers in names are those of the fault matrix.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from daemon.origin import ENVIRON, GITHUB, Origin, run, taken, told, yaml

from reconciler import files
from reconciler.daemon.checkout import Checkout, Following
from reconciler.daemon.remote import Remote
from reconciler.git import tree
from reconciler.problem import ReconcilerError, Severity
from reconciler.process import GIT_FETCH


@pytest.fixture
def origin(tmp_path: Path) -> Origin:
    return Origin(tmp_path / "there")


def away(origin: Origin) -> Path:
    """Make the repository unreachable; rename the result back to undo it."""
    return origin.bare.rename(origin.place / "away")


def deletes(checkout: Checkout) -> int:
    revision = checkout.poll().revision
    assert revision
    return revision.directory.spec.policy.max_deletes


# --------------------------------------------------------------------------------------------------- what is taken
def test_the_newest_commit_is_taken_with_what_it_says_of_itself(origin: Origin) -> None:
    first = origin.state()
    checkout = origin.checkout()
    sourced = checkout.poll()
    assert (taken(sourced), sourced.seen, sourced.branch, sourced.where) == (first, first, "main", str(origin.bare))
    assert sourced.revision
    assert (sourced.revision.subject, sourced.revision.author, sourced.revision.committer) == ("a change", "Ada", "Ada")
    assert sourced.revision.when.endswith("Z") <= (sourced.revision.when <= sourced.reached)
    assert sourced.problems == ()
    second = origin.state(2)
    assert checkout.newest() == second
    assert taken(checkout.poll()) == second


def test_all_files_of_the_commit_lie_there_as_they_were_committed(origin: Origin) -> None:
    origin.commit(
        {
            "desired-state/reconciler.yaml": yaml(),
            "docker-compose.yml": "services: {}\r\n$Id$\n",
            "secrets/mail.sops.yaml": "sops: {}\n",
            "bin/run": "#!/bin/sh\n",
            ".gitattributes": "* text eol=crlf ident\nsecrets export-ignore\n*.yml export-subst filter=lfs\n",
            "name with blank\tand tab/ü": "x",
            "empty": "",
        }
    )
    revision = origin.checkout().poll().revision
    assert revision
    top = revision.directory.path.parent
    assert (top / "docker-compose.yml").read_bytes() == b"services: {}\n$Id$\n"
    assert (top / "secrets/mail.sops.yaml").read_text() == "sops: {}\n"
    assert (top / "name with blank\tand tab/ü").read_text() == "x"
    assert (top / "empty").read_bytes() == b""
    listed = run(origin.tree, "ls-files", "-z").split("\0")[:-1]
    found = {str(item.relative_to(top)) for item in top.rglob("*") if not item.is_dir()}
    assert found == set(listed)


def test_a_file_that_goes_from_the_branch_goes_from_the_directory(origin: Origin) -> None:
    origin.commit({"desired-state/reconciler.yaml": yaml(), "desired-state/more.yaml": "removed: []\n"})
    checkout = origin.checkout()
    checkout.poll()
    origin.commit({"desired-state/more.yaml": None})
    revision = checkout.poll().revision
    assert revision
    assert revision.directory.files == ("reconciler.yaml",)
    assert not (revision.directory.path / "more.yaml").exists()


def test_old_files_are_removed_and_those_of_the_revision_before_stay_a_while(origin: Origin) -> None:
    checkout = origin.checkout()
    commits = []
    for number in range(1, 6):
        commits.append(origin.state(number))
        assert checkout.poll().problems == ()
    [trees] = (origin.place / "data/source").glob("*/trees")
    assert {item.name for item in trees.iterdir()} >= {commits[-1], commits[-2]}
    assert len(list(trees.iterdir())) <= 3


def test_the_directory_may_be_the_top_of_the_repository(origin: Origin) -> None:
    commit = origin.commit({"reconciler.yaml": yaml()})
    assert taken(origin.checkout(path=".").poll()) == commit


def test_a_repository_with_names_of_sha256_is_followed(tmp_path: Path) -> None:
    origin = Origin(tmp_path, "sha256")
    checkout = origin.checkout()
    for number in (1, 2):
        commit = origin.state(number)
        assert len(commit) == 64
        assert taken(checkout.poll()) == commit


def test_compose_files_are_seen_from_the_project_on_this_machine_where_one_is_named(origin: Origin) -> None:
    origin.state(more="targets: {compose: {file: ../docker-compose.yml, env_file: /etc/mail.env}}\n")
    seen = {}
    for project in (None, Path("/srv/mana/desired-state")):
        revision = origin.checkout(project=project).poll().revision
        assert revision
        seen[project] = revision.directory.spec.targets.compose
    for project, compose in seen.items():
        assert compose
        wanted = "../docker-compose.yml" if project is None else "/srv/mana/desired-state/../docker-compose.yml"
        assert (compose.file, compose.env_file) == (wanted, "/etc/mail.env")


def test_who_merged_on_githubs_pages_is_the_author_of_the_merge(origin: Origin) -> None:
    origin.state()
    run(origin.tree, "checkout", "-q", "-b", "topic")
    origin.state(4, committer=("Bob", "bob@example.com"), push=False)
    run(origin.tree, "checkout", "-q", "main")
    said = {"GIT_AUTHOR_NAME": "Mary Merger", "GIT_COMMITTER_NAME": GITHUB[0], "GIT_COMMITTER_EMAIL": GITHUB[1]}
    run(origin.tree, "merge", "-q", "--no-ff", "-m", "Merge pull request #1", "topic", **said)
    origin.push()
    checkout = origin.checkout()
    revision = checkout.poll().revision
    assert revision
    assert (revision.committer, revision.subject) == ("Mary Merger", "Merge pull request #1")
    origin.state(5, committer=GITHUB)  # squashed: nothing tells who pressed the button
    revision = checkout.poll().revision
    assert revision
    assert (revision.author, revision.committer) == ("Ada", "GitHub")


def test_texts_of_a_commit_are_bounded_and_printable(origin: Origin) -> None:
    subject = "red \x1b[31m\u202e\x07" + "x" * 5000
    origin.commit({"desired-state/reconciler.yaml": yaml()}, subject, "--author", "E\x1b[2Jve <eve@example.com>")
    revision = origin.checkout().poll().revision
    assert revision
    for text in (revision.subject, revision.author, revision.committer):
        assert text.isprintable()
        assert len(text) < 120
    assert revision.subject.startswith("red \\x1b[31m\\u202e\\x07xxx")


# ------------------------------------------------------------------------------------------- what is not taken
def test_f8_a_push_while_another_revision_is_applied_counts_next(origin: Origin) -> None:
    origin.state()
    checkout = origin.checkout()
    before = checkout.poll()
    held = before.revision
    origin.state(2)
    newest = origin.state(1)
    assert held
    assert (held.directory.path / "reconciler.yaml").read_text() == yaml()  # what is under way reads on
    assert taken(checkout.poll()) == newest
    assert (held.directory.path / "reconciler.yaml").read_text() == yaml()


@pytest.mark.parametrize("again", [False, True], ids=["running", "restarted"])
def test_f9_f10_a_branch_that_went_back_to_an_older_commit_is_held(origin: Origin, *, again: bool) -> None:
    old, new = origin.state(), origin.state(2)
    checkout = origin.checkout()
    assert taken(checkout.poll()) == new
    run(origin.tree, "reset", "-q", "--hard", old)
    origin.push()
    checkout = origin.checkout() if again else checkout
    sourced = checkout.poll()
    assert (taken(sourced), sourced.seen) == (new, old)
    [problem] = sourced.problems
    assert problem.severity is Severity.REFUSED
    assert f"went back to the older commit {old[:12]}" in problem.summary
    assert f"commit {new[:12]} goes on being healed to" in problem.summary
    assert f"--accept-rewritten {old[:12]}" in problem.hint


@pytest.mark.parametrize("again", [False, True], ids=["running", "restarted"])
@pytest.mark.parametrize("lost", [False, True], ids=["whole", "lost store"])
def test_f10_a_rewritten_branch_is_held_until_a_person_accepts_that_commit(
    origin: Origin, *, again: bool, lost: bool
) -> None:
    origin.state()
    good = origin.state(2)
    checkout = origin.checkout()
    checkout.poll()
    run(origin.tree, "commit", "-q", "--amend", "-m", "rewritten")
    run(origin.tree, "reset", "-q", "--hard", "HEAD~1")
    bad = origin.state(1)
    if lost:
        [store] = (origin.place / "data/source").glob("*/store")
        shutil.rmtree(store)
    checkout = origin.checkout() if again else checkout
    for _ in range(2):
        sourced = checkout.poll()
        assert (taken(sourced), sourced.seen) == (good, bad)
        assert "was rewritten" in told(sourced)
    assert taken(origin.checkout(accept=good).poll()) == good
    assert taken(origin.checkout(accept=bad[:12].upper()).poll()) == bad
    assert (taken(sourced := origin.checkout().poll()), sourced.problems) == (bad, ())  # and from there it goes on
    following = origin.state(5)
    assert taken(origin.checkout().poll()) == following


def test_f10_the_way_back_to_what_counts_needs_nobody(origin: Origin) -> None:
    good = origin.state()
    checkout = origin.checkout()
    checkout.poll()
    run(origin.tree, "commit", "-q", "--amend", "-m", "rewritten")
    origin.push()
    assert "was rewritten" in told(checkout.poll())
    run(origin.tree, "reset", "-q", "--hard", good)
    ahead = origin.state(1)
    assert (taken(sourced := checkout.poll()), sourced.problems) == (ahead, ())


def test_f11_an_unreachable_repository_does_not_take_the_last_good_one(origin: Origin) -> None:
    good = origin.state()
    checkout = origin.checkout()
    reached = checkout.poll().reached
    gone = away(origin)
    for checkout in (checkout, checkout, checkout, origin.checkout()):  # noqa: B020 - the last is a restart
        sourced = checkout.poll()
        assert (taken(sourced), sourced.reached) == (good, reached)
        assert "is not there, or we may not see it" in told(sourced)
        assert f"commit {good[:12]} goes on being healed to" in told(sourced)
        assert checkout.newest() == sourced.seen
        assert sourced.revision
        assert (sourced.revision.directory.path / "reconciler.yaml").read_text() == yaml()
    gone.rename(origin.bare)
    newest = origin.state(1)
    assert (taken(sourced := checkout.poll()), sourced.problems) == (newest, ())


def test_f11_what_was_never_reached_gives_nothing_and_says_so(origin: Origin) -> None:
    gone = away(origin)
    checkout = origin.checkout()
    sourced = checkout.poll()
    assert (sourced.revision, sourced.reached, sourced.seen, checkout.newest()) == (None, "", "", "")
    assert "no earlier one to heal to" in told(sourced)
    gone.rename(origin.bare)
    assert "has no branch main" in told(checkout.poll())  # nothing was pushed to it yet
    commit = origin.state()
    assert taken(checkout.poll()) == commit


def test_f11_a_branch_that_was_deleted_is_held(origin: Origin) -> None:
    good = origin.state()
    checkout = origin.checkout()
    checkout.poll()
    run(origin.bare, "update-ref", "-d", "refs/heads/main")
    run(origin.bare, "update-ref", "refs/heads/refs/heads/main", good)  # which a pattern would find
    sourced = checkout.poll()
    assert taken(sourced) == good
    assert "has no branch main" in told(sourced)


def test_f11_what_a_killed_fetch_has_left_stops_no_later_one(origin: Origin) -> None:
    origin.state()
    checkout = origin.checkout()
    checkout.poll()
    [store] = (origin.place / "data/source").glob("*/store")
    left = [store / name for name in ("refs/reconciler/seen.lock", "packed-refs.lock", "objects/pack/tmp_pack_abc123")]
    for path in left:
        path.write_text("half")
    newest = origin.state(1)
    assert (taken(sourced := checkout.poll()), sourced.problems) == (newest, ())
    assert not any(path.exists() for path in left)


def test_f11_a_commit_of_which_a_part_is_missing_there_is_not_taken(origin: Origin) -> None:
    good = origin.state()
    checkout = origin.checkout()
    checkout.poll()
    origin.state(1)
    blob = run(origin.bare, "rev-parse", "main:desired-state/reconciler.yaml")
    (origin.bare / "objects" / blob[:2] / blob[2:]).unlink()
    sourced = checkout.poll()
    assert taken(sourced) == good
    assert sourced.problems
    assert taken(origin.checkout().poll()) == good


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("broken.yaml", "accounts: [\n", "broken.yaml:"),
        ("typo.yaml", "acounts: {}\n", "typo.yaml:1:1: acounts"),
        ("twice.yaml", "version: 1\n", "stands twice"),
        ("old.yml", "removed: []\n", "ends in .yml"),
        ("binary.yaml", b"\xff\xfe\0", "UTF-16"),
    ],
)
def test_f12_an_invalid_commit_is_told_by_file_and_line_and_the_last_good_one_held(
    origin: Origin, name: str, content: str | bytes, says: str
) -> None:
    good = origin.state()
    checkout = origin.checkout()
    checkout.poll()
    bad = origin.commit({f"desired-state/{name}": content})
    for _ in range(2):
        sourced = checkout.poll()
        assert (taken(sourced), sourced.seen) == (good, bad)
        assert f"commit {bad[:12]} is not taken: it is invalid" in told(sourced)
        assert says in told(sourced)
        assert str(origin.place / "data") not in told(sourced)
    assert taken(origin.checkout().poll()) == good
    mended = origin.commit({f"desired-state/{name}": None})
    assert (taken(sourced := checkout.poll()), sourced.problems) == (mended, ())


def test_f12_of_many_mistakes_the_first_are_told(origin: Origin) -> None:
    origin.commit({"desired-state/reconciler.yaml": "".join(f"x{number}: 1\n" for number in range(500))})
    sourced = origin.checkout().poll()
    assert sourced.revision is None
    assert 10 < len(sourced.problems) < 50
    assert "more mistakes are not shown" in sourced.problems[0].summary


@pytest.mark.parametrize("left", ["nothing", "another folder", "no yaml", "only comments", "a file", "a submodule"])
def test_f13_an_empty_directory_is_no_desired_state(origin: Origin, left: str) -> None:
    good = origin.state()
    checkout = origin.checkout()
    checkout.poll()
    shutil.rmtree(origin.tree / "desired-state")
    (origin.tree / "README").write_text("gone")
    if left == "no yaml":
        (origin.tree / "desired-state").mkdir()
        (origin.tree / "desired-state/notes.txt").touch()
    elif left == "only comments":
        (origin.tree / "desired-state").mkdir()
        (origin.tree / "desired-state/a.yaml").write_text("# nothing\n")
    elif left == "another folder":
        (origin.tree / "renamed").mkdir()
        (origin.tree / "renamed/a.yaml").write_text(yaml())
    elif left == "a file":
        (origin.tree / "desired-state").write_text(yaml())
    elif left == "a submodule":
        raw_commit(origin, ("160000", good, "desired-state"))
    elif left == "nothing":
        (origin.tree / "README").unlink()
    bad = run(origin.tree, "rev-parse", "main") if left == "a submodule" else origin.commit()
    for checkout in (checkout, origin.checkout()):  # noqa: B020
        sourced = checkout.poll()
        assert (taken(sourced), sourced.seen) == (good, bad)
        assert sourced.problems


def test_a_link_as_the_directory_leads_nowhere_outside(origin: Origin, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/a.yaml").write_text(yaml())
    good = origin.state()
    checkout = origin.checkout()
    checkout.poll()
    shutil.rmtree(origin.tree / "desired-state")
    (origin.tree / "desired-state").symlink_to(tmp_path / "outside")
    origin.commit()
    sourced = checkout.poll()
    assert taken(sourced) == good
    assert "leaves the repository" in told(sourced)


def test_links_are_written_as_links_and_through_none_of_them(origin: Origin, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    origin.commit({"desired-state/reconciler.yaml": yaml(), "real/file": "x"})
    (origin.tree / "in").symlink_to("real/file")
    (origin.tree / "out").symlink_to(outside)
    (origin.tree / "desired-state/out.yaml").symlink_to(outside / "a.yaml")
    origin.commit()
    sourced = origin.checkout().poll()
    assert "out.yaml: is a link that leaves the directory" in told(sourced)
    (origin.tree / "desired-state/out.yaml").unlink()
    origin.commit()
    revision = origin.checkout().poll().revision
    assert revision
    top = revision.directory.path.parent
    assert (top / "in").read_text() == "x"
    assert (top / "out").readlink() == outside
    assert list(outside.iterdir()) == []


def raw_commit(origin: Origin, *entries: tuple[str, str, str]) -> str:
    """Push a commit whose tree has these (mode, object, name), which git itself would not make."""
    content = b"".join(f"{mode} {name}".encode() + b"\0" + bytes.fromhex(oid) for mode, oid, name in entries)
    (origin.place / "raw").write_bytes(content)
    made = run(origin.tree, "hash-object", "-t", "tree", "-w", "--literally", str(origin.place / "raw"))
    commit = run(origin.tree, "commit-tree", "-m", "raw", "-p", "HEAD", made)
    run(origin.tree, "update-ref", "refs/heads/main", commit)
    run(origin.tree, "push", "-q", "--force", "origin", "main:main")
    return commit


@pytest.mark.parametrize("name", ["..", ".git", "../../escaped.yaml", ".GIT", "sub/../../../escaped.yaml"])
@pytest.mark.parametrize("excused", [False, True])
def test_names_that_lead_out_of_the_files_are_not_written(
    origin: Origin, tmp_path: Path, name: str, *, excused: bool
) -> None:
    """Git refuses to fetch them, unless whoever runs it excuses such mistakes; then we do."""
    good = origin.state()
    kinds = ("hasDotgit", "hasDotdot", "fullPathname", "treeNotSorted")
    lax = {f"GIT_CONFIG_KEY_{number}": f"fetch.fsck.{kind}" for number, kind in enumerate(kinds)}
    lax |= {f"GIT_CONFIG_VALUE_{number}": "ignore" for number in range(len(kinds))}
    lax["GIT_CONFIG_COUNT"] = str(len(kinds))
    checkout = origin.checkout(**lax) if excused else origin.checkout()
    checkout.poll()
    state = run(origin.tree, "rev-parse", "HEAD:desired-state")
    blob = run(origin.tree, "rev-parse", "HEAD:desired-state/reconciler.yaml")
    raw_commit(origin, ("100644", blob, name), ("40000", state, "desired-state"))
    sourced = checkout.poll()
    if taken(sourced) != good:  # left out
        assert sourced.revision
        assert {item.name for item in sourced.revision.directory.path.parent.iterdir()} == {"desired-state"}
    assert list(tmp_path.rglob("escaped.yaml")) == []


def in_commit(origin: Origin, mode: str, name: str, content: bytes) -> str:
    """Push a commit that has the directory and one more entry, which git would not make from files."""
    (origin.place / "content").write_bytes(content)
    blob = run(origin.tree, "hash-object", "-w", str(origin.place / "content"))
    state = run(origin.tree, "rev-parse", "HEAD:desired-state")
    entries = sorted([(mode, blob, name), ("40000", state, "desired-state")], key=lambda entry: entry[2])
    return raw_commit(origin, *entries)


@pytest.mark.parametrize(
    ("mode", "name", "content"),
    [
        ("100644", "n" * 300, b"x"),  # no disk has such a name
        ("120000", "link", b"z" * 5000),  # nor such a link
        ("120000", "link", b""),
        ("120000", "link", b"a\0b"),
        ("160000", "module", b"x"),
    ],
)
def test_what_no_disk_can_hold_is_left_out_and_holds_nothing_up(
    origin: Origin, mode: str, name: str, content: bytes
) -> None:
    origin.state()
    commit = in_commit(origin, mode, name, content)
    sourced = origin.checkout().poll()
    assert (taken(sourced), sourced.problems) == (commit, ())
    assert sourced.revision
    assert [item.name for item in sourced.revision.directory.path.parent.iterdir()] == ["desired-state"]


def test_a_path_of_a_thousand_folders_is_left_out(origin: Origin) -> None:
    origin.state()
    (origin.place / "raw").write_bytes(b"")
    deep = run(origin.tree, "hash-object", "-w", str(origin.place / "raw"))
    for number in range(1000):
        mode = b"40000" if number else b"100644"
        (origin.place / "raw").write_bytes(mode + b" folder\0" + bytes.fromhex(deep))
        deep = run(origin.tree, "hash-object", "-t", "tree", "-w", "--literally", str(origin.place / "raw"))
    state = run(origin.tree, "rev-parse", "HEAD:desired-state")
    commit = raw_commit(origin, ("40000", deep, "deep"), ("40000", state, "desired-state"))
    sourced = origin.checkout().poll()
    assert (taken(sourced), told(sourced)) == (commit, "")


def test_a_name_that_this_disk_can_not_hold_is_the_commits_fault(
    origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An encrypting file system has 143 bytes for a name, a Mac's takes two spellings for one."""
    good = origin.state()
    checkout = origin.checkout()
    checkout.poll()
    monkeypatch.setattr(tree, "_LONGEST_NAME", 10_000)
    in_commit(origin, "100644", "n" * 300, b"x")
    sourced = checkout.poll()
    assert taken(sourced) == good
    assert "has a file whose name is too long for this disk: nnn" in told(sourced)
    assert "free space" not in told(sourced)
    first = trees(origin.place / "data").stat().st_mtime_ns
    checkout.poll()
    assert trees(origin.place / "data").stat().st_mtime_ns == first, "it was written again"


def test_a_tree_that_unfolds_without_end_is_told_and_looked_at_once(origin: Origin) -> None:
    good = origin.state()
    checkout = origin.checkout()
    checkout.poll()
    unfolding = run(origin.tree, "rev-parse", "HEAD:desired-state")
    for _ in range(9):
        (origin.place / "raw").write_bytes(
            b"".join(b"40000 folder%d\0" % number + bytes.fromhex(unfolding) for number in range(10))
        )
        unfolding = run(origin.tree, "hash-object", "-t", "tree", "-w", "--literally", str(origin.place / "raw"))
    state = run(origin.tree, "rev-parse", "HEAD:desired-state")
    commit = raw_commit(origin, ("40000", unfolding, "a"), ("40000", state, "desired-state"))
    sourced = checkout.poll()
    assert taken(sourced) == good
    assert f"commit {commit[:12]} says more than is read of one" in told(sourced)
    assert "look who made it" in told(sourced)
    began = time.monotonic()
    assert checkout.poll().problems == sourced.problems
    assert time.monotonic() - began < 1.0


@pytest.mark.parametrize("earlier", [False, True])
def test_a_shallow_repository_is_told_and_not_passed_over_in_silence(origin: Origin, *, earlier: bool) -> None:
    first, whole = origin.state(), origin.bare.rename(origin.place / "whole")
    shallow = ("clone", "-q", "--bare", "--depth=1", f"file://{whole}", str(origin.bare))
    checkout = origin.checkout()
    if earlier:
        run(origin.place, "clone", "-q", "--bare", str(whole), str(origin.bare))
        assert taken(checkout.poll()) == first
        shutil.rmtree(origin.bare)
    origin.state(2, push=False)
    origin.state(4, push=False)  # what the store has already needs not be there
    run(origin.tree, "push", "-q", str(whole), "HEAD:main")
    run(origin.place, *shallow)
    for _ in range(2):
        sourced = checkout.poll()
        assert taken(sourced) == (first if earlier else "")
        assert "it is a shallow clone" in told(sourced)
    run(origin.bare, "fetch", "-q", "--unshallow")
    assert taken(checkout.poll()) == origin.head


def test_more_than_any_directory_needs_is_not_taken(origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    good = origin.state()
    checkout = origin.checkout()
    checkout.poll()
    monkeypatch.setattr(tree, "LARGEST", 1000)
    origin.commit({"video.bin": "x" * 2000})
    revision = checkout.poll().revision  # what is no file of ours may be as large as it likes
    assert revision
    assert not (revision.directory.path.parent / "video.bin").exists()
    good = revision.commit
    origin.commit({"desired-state/large.yaml": "#" * 2000})
    sourced = checkout.poll()
    assert taken(sourced) == good
    assert "holds a YAML file of more than" in told(sourced)
    monkeypatch.setattr(tree, "MOST", 4)
    origin.commit({"desired-state/large.yaml": None, **{f"many/{number}": "" for number in range(9)}})
    sourced = checkout.poll()
    assert taken(sourced) == good
    assert "holds more than 4 files" in told(sourced)
    assert "keep the directory in a repository of its own" in told(sourced)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a program's files have no bound")
def test_a_fetch_without_end_does_not_fill_the_disk(origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    good = origin.state()
    monkeypatch.setattr("reconciler.daemon.store.GIT_FETCH", replace(GIT_FETCH, largest=200_000))
    checkout = origin.checkout()
    assert taken(checkout.poll()) == good
    origin.commit({"noise": os.urandom(1_000_000)})
    sourced = checkout.poll()
    assert taken(sourced) == good
    assert sourced.problems
    assert sum(path.stat().st_size for path in store(origin.place / "data").rglob("*") if path.is_file()) < 200_000


# ----------------------------------------------------------------------------------------------- 24: disks tear
def store(data: Path) -> Path:
    [found] = data.glob("source/*/store")
    return found


def trees(data: Path) -> Path:
    [found] = data.glob("source/*/trees")
    return found


def memory(data: Path) -> Path:
    [found] = data.glob("source/*/taken-*.json")
    return found


def cut(path: Path) -> None:
    path.chmod(0o644)
    os.truncate(path, path.stat().st_size // 2)


def packs(data: Path) -> list[Path]:
    return sorted(store(data).glob("objects/pack/*.pack"))


def instead(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def put(data: Path) -> None:
        place = store(data)
        shutil.rmtree(place)
        make(place)

    return put


DAMAGE: dict[str, Callable[[Path], object]] = {
    "store removed": lambda data: shutil.rmtree(store(data)),
    "store is a file": instead(Path.touch),
    "store is a pipe": instead(os.mkfifo),
    "store is a link": instead(lambda place: place.symlink_to("/etc")),
    "store is empty": instead(Path.mkdir),
    "packs cut": lambda data: [cut(pack) for pack in packs(data)],
    "packs removed": lambda data: [pack.unlink() for pack in packs(data)],
    "head empty": lambda data: (store(data) / "HEAD").write_text(""),
    "config of somebody else": lambda data: (store(data) / "config").write_text("[core]\n\tfsmonitor = /bin/false\n"),
    "refs torn": lambda data: (store(data) / "refs/reconciler/seen").write_text("\0" * 41),
    "memory cut": lambda data: cut(memory(data)),
    "memory empty": lambda data: memory(data).write_text(""),
    "memory of a newer one": lambda data: memory(data).write_text('{"v": 99}'),
    "memory of the wrong form": lambda data: memory(data).write_text('{"v": 1, "commit": [], "digest": 3}'),
    "memory is a pipe": lambda data: (memory(data).unlink(), os.mkfifo(data / "p"), (data / "p").rename(memory_name)),
    "file cut": lambda data: [cut(path) for path in trees(data).rglob("*.yaml")],
    "file removed": lambda data: [path.unlink() for path in trees(data).rglob("*.yaml")],
    "files removed": lambda data: shutil.rmtree(trees(data)),
    "everything removed": shutil.rmtree,
}
memory_name = Path()
WITHOUT_MEMORY = {name for name in DAMAGE if name.startswith(("memory", "everything"))}


@pytest.mark.few
@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("moved", [False, True], ids=["no push", "a push"])
def test_f24_whatever_tears_is_made_anew(origin: Origin, damage: str, *, moved: bool) -> None:
    global memory_name
    origin.state(1)
    commit, data = origin.state(2), origin.place / "data"
    running = origin.checkout()
    running.poll()
    memory_name = memory(data)
    DAMAGE[damage](data)
    if moved:
        commit = origin.state(3)
    for checkout in (running, origin.checkout(), origin.checkout()):
        sourced = checkout.poll()
        assert taken(sourced) == commit
        assert sourced.revision
        if damage != "file removed" or checkout is not running or moved:  # which a restart finds
            assert (sourced.revision.directory.path / "reconciler.yaml").exists()
    assert sourced.problems == () or damage == "memory is a pipe"
    gone = away(origin)
    assert taken(origin.checkout().poll()) == commit  # and it is whole again without a network
    gone.rename(origin.bare)


@pytest.mark.parametrize("damage", [name for name in DAMAGE if name not in WITHOUT_MEMORY])
def test_f24_and_without_a_network_what_one_copy_has_lost_the_other_one_gives(origin: Origin, damage: str) -> None:
    commit, data = origin.state(2), origin.place / "data"
    origin.checkout().poll()
    away(origin)
    DAMAGE[damage](data)
    sourced = origin.checkout().poll()
    assert taken(sourced) == commit
    assert sourced.revision
    assert (sourced.revision.directory.path / "reconciler.yaml").read_text() == yaml(2)


def test_f24_a_full_disk_holds_what_is_there(origin: Origin, small_disk: Path) -> None:
    good = origin.state()
    checkout = origin.checkout(small_disk)
    assert taken(checkout.poll()) == good
    origin.commit({"large": os.urandom(1 << 20)})
    for checkout in (checkout, checkout, origin.checkout(small_disk)):  # noqa: B020
        sourced = checkout.poll()
        assert taken(sourced) == good
        assert sourced.problems
    origin.commit({"large": None})


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "none", str(place)], check=False).returncode:
        pytest.skip("a small file system can't be mounted here (needs root)")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_f24_a_data_directory_that_can_not_be_written_is_told(origin: Origin, tmp_path: Path) -> None:
    origin.state()
    (tmp_path / "data").write_text("")
    sourced = origin.checkout(tmp_path / "data").poll()
    assert sourced.revision is None
    assert "--data" in told(sourced)


# ------------------------------------------------------------------------------------------------- a looser policy
def test_a_looser_policy_counts_from_the_next_revision_on(origin: Origin) -> None:
    origin.state(3, "never")
    checkout = origin.checkout()
    assert deletes(checkout) == 3
    origin.state(50, "owned")
    for each in (checkout, origin.checkout(), origin.checkout()):
        revision = each.poll().revision
        assert revision
        policy = revision.directory.spec.policy
        assert (policy.max_deletes, policy.prune.dns) == (3, "never")
    origin.commit({"elsewhere/README": "a commit that leaves the directory alone frees nothing"})
    assert deletes(checkout) == 3
    assert deletes(origin.checkout()) == 3
    commit = origin.state(50, "owned", "removed: []\n")
    for each in (checkout, origin.checkout()):
        revision = each.poll().revision
        assert revision
        policy = revision.directory.spec.policy
        assert (revision.commit, policy.max_deletes, policy.prune.dns) == (commit, 50, "owned")


def test_a_tighter_policy_counts_at_once_and_each_part_by_itself(origin: Origin) -> None:
    origin.state(50, "owned")
    checkout = origin.checkout()
    checkout.poll()
    origin.state(5, "owned")
    assert deletes(checkout) == 5
    origin.state(60, "never")
    revision = checkout.poll().revision
    assert revision
    policy = revision.directory.spec.policy
    assert (policy.max_deletes, policy.prune.dns) == (5, "never")


def test_a_policy_that_is_left_out_is_held_to_the_one_before(origin: Origin) -> None:
    origin.state(0)
    checkout = origin.checkout()
    checkout.poll()
    origin.commit({"desired-state/reconciler.yaml": "version: 1\nstack: mana\n"})
    assert deletes(checkout) == 0
    assert deletes(origin.checkout()) == 0


def test_revisions_that_are_not_taken_loosen_nothing(origin: Origin) -> None:
    origin.state(3)
    checkout = origin.checkout()
    checkout.poll()
    origin.state(50, "owned", "nonsense: 1\n")
    checkout.poll()
    origin.state(50)
    assert deletes(checkout) == 3


# ----------------------------------------------------------------------------------------- two at work, and one killed
def test_two_daemons_share_a_store_each_with_a_directory_of_its_own(origin: Origin) -> None:
    for number in range(1, 4):
        commit = origin.commit({"a/x.yaml": yaml(number), "b/x.yaml": yaml(number + 100)})
        both = [origin.checkout(path=path) for path in ("a", "b", "a")]
        with ThreadPoolExecutor() as pool:
            assert [taken(sourced) for sourced in pool.map(Checkout.poll, both)] == [commit] * 3
    assert len(list((origin.place / "data/source").iterdir())) == 2  # one store, and a .gitignore
    for path in ("a", "b"):
        revision = origin.checkout(path=path).poll().revision
        assert revision
        assert (revision.directory.path / "x.yaml").exists()


def test_another_process_that_fetches_is_not_waited_for_long(origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    good = origin.state()
    checkout = origin.checkout()
    checkout.poll()
    origin.state(1)
    monkeypatch.setattr("reconciler.daemon.checkout._PATIENCE", 0.2)
    with files.locked(store(origin.place / "data").parent):
        sourced = checkout.poll()
    assert taken(sourced) == good
    assert "another process is fetching" in told(sourced)


@pytest.mark.long
def test_f1_killed_at_any_moment_the_next_one_goes_on(origin: Origin) -> None:
    origin.commit({"desired-state/reconciler.yaml": yaml(), **{f"more/{n}": os.urandom(3000) for n in range(200)}})
    data, last = origin.place / "data", ""
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\nfrom daemon.origin import ENVIRON\n"
        "from reconciler.daemon.checkout import *\n"
        "checkout = Checkout(Following(Remote.read(sys.argv[2], 'main')), Path(sys.argv[3]), ENVIRON)\n"
        "print('ready', flush=True)\nprint(checkout.poll().revision.commit, flush=True)\n"
    )
    command = [sys.executable, "-c", program, str(Path(__file__).parents[1]), str(origin.bare), str(data)]
    for step in range(8):
        newest = origin.state(step)
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
            time.sleep(step * 0.03)
            process.send_signal(signal.SIGKILL)
            ended = process.stdout.read().strip()
        gone = away(origin)
        held = taken(origin.checkout().poll())
        gone.rename(origin.bare)
        assert held in {last, newest}
        assert not ended or held == newest
        last = held
    sourced = origin.checkout().poll()
    assert (taken(sourced), sourced.problems) == (newest, ())
    assert not [path for path in data.rglob("*") if path.name.startswith(("tmp_", ".new-", ".old-"))]


def test_the_store_stays_small_over_the_years(origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reconciler.daemon.store._MANY", 4)
    checkout = origin.checkout()
    for number in range(12):
        commit = origin.state(number)
        assert taken(checkout.poll()) == commit
    assert len(packs(origin.place / "data")) <= 6
    assert taken(origin.checkout().poll()) == commit


# ------------------------------------------------------------------------------------------------- configuration
@pytest.mark.parametrize("path", ["/etc", "../other", "a/../../b", ".git/x", "a\x1b"])
def test_a_path_that_is_none_in_a_repository_is_refused(origin: Origin, path: str) -> None:
    with pytest.raises(ReconcilerError, match="the path"):
        origin.checkout(path=path)


def test_what_is_accepted_must_name_one_commit(origin: Origin) -> None:
    with pytest.raises(ReconcilerError, match="too short"):
        origin.checkout(accept="abc")


def test_nothing_that_is_remembered_holds_a_secret_of_the_environment(origin: Origin) -> None:
    origin.state()
    checkout = origin.checkout(GIT_CONFIG_COUNT="1", GIT_CONFIG_KEY_0="http.extraHeader", GIT_CONFIG_VALUE_0="canary")
    assert "canary" not in str(checkout.poll())
    for path in (origin.place / "data").rglob("*"):
        if path.is_file():
            assert b"canary" not in path.read_bytes()
    assert json.loads(memory(origin.place / "data").read_bytes())["v"] == 1
    assert ENVIRON["TOKEN"] == "canary"


# ------------------------------------------------------------------------------------------- many who follow one branch
def alone(
    origin: Origin, path: str, data: str = "data", beside: Mapping[str, bytes] = {}, newest: str = ""
) -> Checkout:
    following = Following(Remote.read(str(origin.bare), "main"), path, alone=True)
    return Checkout(following, origin.place / data, ENVIRON, beside, lambda: newest)


def commit(origin: Origin, one: int, two: int) -> str:
    return origin.commit({"one/reconciler.yaml": yaml(one), "two/reconciler.yaml": yaml(two), "more": "text"})


def test_who_is_alone_has_the_files_below_its_path_and_no_others(origin: Origin) -> None:
    commit(origin, 3, 4)
    one = alone(origin, "one")
    assert deletes(one) == 3
    sourced = one.poll()
    assert sourced.revision is not None
    top = sourced.revision.directory.path.parent
    assert [path.name for path in top.iterdir()] == ["one"]
    assert deletes(alone(origin, "one")) == 3, "after a restart"


def test_many_who_are_alone_take_a_push_at_the_same_moment(origin: Origin) -> None:
    paths = [f"s{number}" for number in range(12)]
    origin.commit({f"{path}/reconciler.yaml": yaml(1) for path in paths})
    followers = [alone(origin, path) for path in paths]
    for expected in (1, 2, 3):
        if expected > 1:
            origin.commit({f"{path}/reconciler.yaml": yaml(expected) for path in paths})
        with ThreadPoolExecutor(len(paths)) as pool:
            found = list(pool.map(lambda follower: follower.poll(), followers))
        assert {told(sourced) for sourced in found} == {""}
        assert {taken(sourced) for sourced in found} == {origin.head}


def test_who_knows_the_newest_commit_asks_nobody(origin: Origin) -> None:
    head = commit(origin, 3, 4)
    assert deletes(alone(origin, "one")) == 3
    away(origin)
    assert told(alone(origin, "one", newest=head).poll()) == ""
    assert "is not there" in told(alone(origin, "one").poll())


def test_files_from_elsewhere_belong_to_each_state_and_are_judged_with_it(origin: Origin) -> None:
    origin.commit({"one/reconciler.yaml": "version: 1\nstack: mana\n"})
    policy = {"shared/policy.yaml": b"policy: {max_deletes: 7}\n"}
    assert deletes(alone(origin, "one", beside=policy)) == 7
    policy["shared/policy.yaml"] = b"policy: {max_deletes: 2}\n"
    assert deletes(alone(origin, "one", beside=policy)) == 2, "another one of them counts although no commit came"
    looser = {"shared/policy.yaml": b"policy: {max_deletes: 9}\n"}
    assert deletes(alone(origin, "one", beside=looser)) == 2, "and is never looser at once than what was before"
    wrong = alone(origin, "one", beside={"shared/policy.yaml": b"policy: {max_deletes: lots}\n"}).poll()
    assert wrong.revision is None
    assert "shared/policy.yaml:1:23: policy.max_deletes: must be a number" in told(wrong)


def test_what_another_machine_has_taken_counts_here_though_the_branch_is_bad_by_now(origin: Origin) -> None:
    good = commit(origin, 3, 4)
    first = alone(origin, "one")
    first.poll()
    assert first.taken is not None
    origin.commit({"one/reconciler.yaml": "nonsense: ["})
    other = alone(origin, "one", "elsewhere")
    other.remind(first.taken)
    sourced = other.poll()
    assert (taken(sourced), deletes(other)) == (good, 3)
    assert "goes on being healed to" in told(sourced)
