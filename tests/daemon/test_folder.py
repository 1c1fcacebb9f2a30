"""The directory on disk as a source: taken when it is whole, held while somebody is at work on it."""

from __future__ import annotations

import itertools
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from daemon.origin import run, told, yaml

from reconciler.daemon.source import Folder
from reconciler.daemon.state import Sourced

MORE = "accounts:\n  a@example.com: {password: {env: A}}\n"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    place = tmp_path / "desired-state"
    place.mkdir()
    (place / "reconciler.yaml").write_text(yaml())
    (place / "more.yaml").write_text(MORE)
    return place


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reconciler.daemon.source._QUIET", 0.1)
    monkeypatch.setattr("reconciler.daemon.source._PATIENCE", 1.0)


def folder(state: Path) -> Folder:
    return Folder(state, state.parent / "data")


def digest(sourced: Sourced) -> str:
    assert sourced.revision
    return sourced.revision.directory.digest


def deletes(source: Folder) -> int:
    revision = source.poll().revision
    assert revision
    return revision.directory.spec.policy.max_deletes


def test_a_whole_directory_is_taken_and_a_change_of_it_too(state: Path) -> None:
    source = folder(state)
    first = source.poll()
    assert (first.where, first.problems, first.seen) == (str(state), (), "")
    assert first.reached
    assert source.poll().revision is first.revision
    (state / "reconciler.yaml").write_text(yaml(1))
    second = source.poll()
    assert digest(second) != digest(first)
    assert second.problems == ()


def test_a_touched_file_is_no_other_revision(state: Path) -> None:
    source = folder(state)
    revision = source.poll().revision
    os.utime(state / "more.yaml")
    assert source.poll().revision is revision


def test_f12_an_invalid_one_is_told_and_the_last_good_one_held(state: Path) -> None:
    source = folder(state)
    good = source.poll().revision
    (state / "more.yaml").write_text("acounts: {}\n")
    for _ in range(2):
        sourced = source.poll()
        assert sourced.revision is good
        assert "more.yaml:1:1: acounts" in told(sourced)
        assert "the last good state goes on being healed to" in told(sourced)
    (state / "more.yaml").write_text(MORE)
    sourced = source.poll()
    assert (sourced.revision, sourced.problems) == (good, ())


@pytest.mark.parametrize("how", ["no files", "no directory", "only comments", "a file", "a link to nowhere"])
def test_f13_an_empty_one_is_no_desired_state(state: Path, how: str) -> None:
    source = folder(state)
    good = source.poll().revision
    shutil.rmtree(state)
    if how in ("no files", "only comments"):
        state.mkdir()
    if how == "only comments":
        (state / "a.yaml").write_text("# nothing\n")
    elif how == "a file":
        state.write_text(yaml())
    elif how == "a link to nowhere":
        state.symlink_to(state.parent / "nowhere")
    sourced = source.poll()
    assert sourced.revision is good
    assert good is not None
    assert sourced.problems
    assert folder(state).poll().revision is None


def rename_aside(state: Path, between: Callable[[], None]) -> None:
    """Save as vim does: the file goes aside, a new one is written, the old one is removed."""
    (state / "more.yaml").rename(state / "more.yaml~")
    between()
    (state / "more.yaml").write_text(MORE.replace("a@", "b@"))
    (state / "more.yaml~").unlink()


def truncate(state: Path, between: Callable[[], None]) -> None:
    """Save as a shell does: the file is emptied, then written; its first line alone is valid."""
    with (state / "more.yaml").open("w") as file:
        between()
        file.write(MORE.replace("a@", "b@"))


def write_new(state: Path, between: Callable[[], None]) -> None:
    """Save as sed -i or rsync do: a new file with another name, then a rename."""
    (state / ".more.yaml.Xy12ab").write_text(MORE.replace("a@", "b@"))
    (state / "more.yaml").unlink()
    between()
    (state / ".more.yaml.Xy12ab").rename(state / "more.yaml")


@pytest.mark.parametrize("save", [rename_aside, truncate, write_new])
@pytest.mark.parametrize("seconds", [0.02, 0.5])
def test_a_save_in_the_middle_of_an_edit_is_no_revision(
    state: Path, save: Callable[[Path, Callable[[], None]], None], seconds: float
) -> None:
    source = folder(state)
    before = digest(source.poll())
    seen: set[str] = set()
    saving = threading.Thread(target=save, args=(state, lambda: time.sleep(seconds)))
    saving.start()
    while saving.is_alive():
        seen.add(digest(source.poll()))
    saving.join()
    after = digest(source.poll())
    assert after != before
    assert seen <= {before, after}


@pytest.mark.parametrize("aside", ["more.yaml~", ".more.yaml.swp", "more.yaml.tmp", ".more.yaml.Xy12ab", "#more.yaml#"])
def test_a_save_that_stands_still_half_way_is_held_and_told(state: Path, aside: str) -> None:
    source = folder(state)
    good = source.poll().revision
    (state / "more.yaml").rename(state / aside)
    for _ in range(2):
        sourced = source.poll()
        assert sourced.revision is good
        assert f"more.yaml is gone and {aside} is there" in told(sourced)
    (state / aside).unlink()  # it was meant to go
    sourced = source.poll()
    assert sourced.problems == ()
    assert sourced.revision is not good


def test_a_file_that_was_emptied_is_held_and_told(state: Path) -> None:
    (state / "nothing.yaml").touch()  # one that always was empty is none
    source = folder(state)
    good = source.poll().revision
    (state / "more.yaml").write_text("")
    sourced = source.poll()
    assert sourced.revision is good
    assert "more.yaml is empty, as in the middle of a save" in told(sourced)
    (state / "more.yaml").unlink()
    sourced = source.poll()
    assert sourced.problems == ()
    assert sourced.revision is not good


def test_backups_and_swap_files_beside_their_file_hold_nothing(state: Path) -> None:
    for name in ("more.yaml~", ".more.yaml.swp", ".#more.yaml"):
        (state / name).write_text("x")
    source = folder(state)
    assert source.poll().revision
    (state / "more.yaml").write_text(MORE.replace("a@", "b@"))
    sourced = source.poll()
    assert sourced.problems == ()
    assert sourced.revision
    assert list(sourced.revision.directory.spec.accounts) == ["b@example.com"]


def test_git_at_work_on_the_files_is_waited_for(state: Path) -> None:
    run(state.parent, "init", "-q", str(state.parent))
    source = folder(state)
    good = source.poll().revision
    lock = state.parent / ".git/index.lock"
    lock.touch()
    (state / "reconciler.yaml").write_text(yaml(1))
    sourced = source.poll()
    assert sourced.revision is good
    assert f"git is at work ({lock})" in told(sourced)
    lock.unlink()
    assert deletes(source) == 1


def test_what_changes_all_the_time_is_not_taken(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = folder(state)
    good = source.poll().revision
    numbers, sleep = itertools.count(), time.sleep

    def busy(seconds: float) -> None:
        sleep(0.02)
        (state / "reconciler.yaml").write_text(yaml(next(numbers)))

    (state / "more.yaml").unlink()
    with monkeypatch.context() as patched:
        patched.setattr(time, "sleep", busy)
        began = time.monotonic()
        sourced = source.poll()
    assert time.monotonic() - began < 20
    assert sourced.revision is good
    assert "it changes all the time" in told(sourced)
    assert source.poll().problems == ()


def test_its_newest_name_changes_with_the_files_and_with_nothing_else(state: Path) -> None:
    source = folder(state)
    names = [source.newest()]
    assert source.newest() == names[0]
    for change in (
        lambda: (state / "new.yaml").write_text("removed: []\n"),
        (state / "sub").mkdir,
        (state / "sub/deep.yaml").touch,
        lambda: (state / "new.yaml").write_text("removed: [ ]\n"),
        (state / "new.yaml").unlink,
        lambda: shutil.rmtree(state),
    ):
        change()
        names.append(source.newest())
        assert source.newest() == names[-1]
    assert len(set(names)) == len(names)


def test_a_data_directory_among_the_files_is_none_of_them(state: Path) -> None:
    source = Folder(state, state / ".reconciler")
    assert source.poll().revision
    source.poll()
    name = source.newest()
    for line in range(3):
        (state / ".reconciler/journal.jsonl").write_text(f"{line}\n")
        source.newest()
    assert source.poll().problems == ()
    (state / ".reconciler/journal.jsonl").write_text("more\n")
    assert source.newest() == name


def test_a_link_that_is_turned_to_another_directory_is_followed(state: Path, tmp_path: Path) -> None:
    link = tmp_path / "current"
    link.symlink_to(state)
    source = Folder(link, tmp_path / "data")
    assert deletes(source) == 3
    shutil.copytree(state, tmp_path / "next")
    (tmp_path / "next/reconciler.yaml").write_text(yaml(1))
    (tmp_path / "turned").symlink_to(tmp_path / "next")
    (tmp_path / "turned").rename(link)
    assert deletes(source) == 1


def test_a_looser_policy_counts_from_the_next_revision_on(state: Path) -> None:
    source = folder(state)
    assert deletes(source) == 3
    (state / "reconciler.yaml").write_text(yaml(50))
    assert deletes(source) == 3
    assert deletes(folder(state)) == 3  # a restart is no revision
    (state / "more.yaml").unlink()
    assert deletes(folder(state)) == 50
    (state / "reconciler.yaml").write_text(yaml(2, "never"))
    assert deletes(source) == 2


@pytest.mark.parametrize("damage", ["{", "[]", '{"v": 1}', "\0" * 100, '{"v": 1, "digest": "x", "own": 3}'])
def test_f24_a_damaged_memory_costs_that_knowledge_alone(state: Path, damage: str) -> None:
    folder(state).poll()
    [memory] = (state.parent / "data/source").glob("folder-*.json")
    memory.write_text(damage)
    sourced = folder(state).poll()
    assert sourced.problems == ()
    assert sourced.revision
    assert folder(state).poll().revision


def test_f24_a_memory_that_can_not_be_written_is_told(state: Path) -> None:
    (state.parent / "data").write_text("")
    sourced = folder(state).poll()
    assert sourced.revision
    assert "a restart will not know this revision" in told(sourced)
