"""The journal: what it remembers, and that nothing that happens to it stops an apply."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from reconciler import files, journal
from reconciler.journal import FILE, Entry, Journal, Written
from reconciler.problem import ReconcilerError, Severity

DONE = Written("dns/mana.how/A/mail", ("update",), "done", "differs", {"ttl": 1}, {"ttl": 300})


def apply(
    of: Journal, *, result: str = "done", whole: bool = True, targets: tuple[str, ...] = ("cloudflare",)
) -> Entry:
    entry = journal.entry(of.stack or "", {"GITHUB_ACTOR": "anna"}, revision="3f2a", targets=targets)
    assert of.begin(entry) is None
    assert of.end(entry, result, [DONE], whole=whole) is None
    return entry


def test_an_apply_is_read_back(tmp_path: Path) -> None:
    of = Journal(tmp_path / ".reconciler", "mana")
    entry = apply(of)
    (read,) = of.entries()
    assert (read.id, read.revision, read.result, read.whole, read.who) == (entry.id, "3f2a", "done", True, "anna (CI)")
    assert read.written == (DONE,)
    assert read.targets == ("cloudflare",)
    assert read.began.endswith("Z")
    assert read.ended is not None


def test_it_is_its_owners_alone(tmp_path: Path) -> None:
    of = Journal(tmp_path / ".reconciler", "mana")
    apply(of)
    assert stat.S_IMODE(of.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(of.path.parent.stat().st_mode) == 0o700


def test_it_only_grows(tmp_path: Path) -> None:
    of = Journal(tmp_path, "mana")
    apply(of)
    before = of.path.read_bytes()
    apply(of)
    assert of.path.read_bytes().startswith(before)
    assert len(of.path.read_text().splitlines()) == 6


def test_several_stacks_share_it(tmp_path: Path) -> None:
    mana, other = Journal(tmp_path, "mana"), Journal(tmp_path, "other")
    apply(mana)
    apply(other)
    assert [entry.stack for entry in mana.entries()] == ["mana"]
    assert [entry.stack for entry in Journal(tmp_path, None).entries()] == ["mana", "other"]


def test_two_directories_of_one_stack_are_told_apart(tmp_path: Path) -> None:
    ours, theirs = (Journal(tmp_path, "mana", tmp_path / name) for name in ("ours", "theirs"))
    old = apply(Journal(tmp_path, "mana"))  # as it was written before a directory was noted
    first, second = apply(ours), apply(theirs)
    assert [entry.id for entry in ours.entries()] == [old.id, first.id]
    assert ours.entries()[1].written == (DONE,)
    assert getattr(theirs.last_whole(), "id", None) == second.id
    every = Journal(tmp_path, "mana").entries()
    assert [entry.directory for entry in every] == ["", "ours", "theirs"]
    assert ours.problem is None


def test_last_whole_is_the_last_that_left_nothing_to_do(tmp_path: Path) -> None:
    of = Journal(tmp_path, "mana")
    assert of.last_whole() is None
    first = apply(of, targets=("stalwart", "cloudflare"))
    second = apply(of)
    apply(of, result="partial", whole=False)
    assert getattr(of.last_whole(), "id", None) == second.id
    assert getattr(of.last_whole("stalwart"), "id", None) == first.id
    assert of.last_whole("compose") is None


def test_a_killed_apply_has_no_end(tmp_path: Path) -> None:
    of = Journal(tmp_path, "mana")
    of.begin(journal.entry("mana", {}))
    (entry,) = of.entries()
    assert (entry.ended, entry.result, entry.written) == (None, "", ())


def test_a_torn_last_line_costs_itself_alone(tmp_path: Path) -> None:
    of = Journal(tmp_path, "mana")
    first = apply(of)
    with of.path.open("a") as file:
        file.write('{"v":1,"event":"began","id":"to')
    second = apply(of)
    assert [entry.id for entry in of.entries()] == [first.id, second.id]


@pytest.mark.parametrize(
    "line",
    [
        b"\xff\xfe\x00",
        b"[1]",
        b"{}",
        b"null",
        b'{"v":1,"id":"x","event":"began"}',
        b'{"v":1,"id":"x","stack":"mana","event":"written","written":[1]}',
        b'{"v":1,"id":"x","stack":"mana","event":"ended"}',
        b'{"v":"1","id":"x"}',
        b"[" * 10_000,
    ],
)
def test_damaged_lines_are_left_out(tmp_path: Path, line: bytes) -> None:
    of = Journal(tmp_path, "mana")
    first = apply(of)
    with of.path.open("ab") as file:
        file.write(line + b"\n")
    second = apply(of)
    assert [entry.id for entry in of.entries()] == [first.id, second.id]


def test_a_newer_format_is_refused_with_a_word_and_still_written_to(tmp_path: Path) -> None:
    of = Journal(tmp_path, "mana")
    apply(of)
    with of.path.open("a") as file:
        file.write(json.dumps({"v": 2, "id": "n", "stack": "mana"}) + "\n")
    with pytest.raises(ReconcilerError, match="a newer reconciler wrote this journal") as caught:
        of.entries()
    assert caught.value.problems[0].hint
    assert of.last_whole() is None
    apply(of)


def test_it_is_read_once_as_long_as_nobody_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of, read = Journal(tmp_path, "mana"), files.read_own
    first, reads = apply(of), list[Path]()
    monkeypatch.setattr(files, "read_own", lambda path: (reads.append(path), read(path))[1])
    assert of.entries() == of.entries()
    assert reads == [of.path]
    second = apply(Journal(tmp_path, "mana"))
    assert [entry.id for entry in of.entries()] == [first.id, second.id]


def test_none_is_no_error(tmp_path: Path) -> None:
    assert Journal(tmp_path / "missing", "mana").entries() == []


def test_a_place_that_can_not_be_written_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    problem = Journal(tmp_path / "file", "mana").begin(journal.entry("mana", {}))
    assert problem is not None
    assert problem.severity is Severity.WARNING
    assert "--data" in problem.hint


def test_a_read_only_directory_is_a_warning(tmp_path: Path) -> None:
    # Root may write to a directory that forbids it, but not make files in the kernel's.
    directory = Path("/sys/kernel") if os.geteuid() == 0 else tmp_path
    tmp_path.chmod(0o500)
    problem = Journal(directory, "mana").begin(journal.entry("mana", {}))
    tmp_path.chmod(0o700)
    assert problem is not None
    assert problem.severity is Severity.WARNING


def test_a_full_disk_is_a_warning_and_tears_no_line(tmp_path: Path) -> None:
    import resource
    import signal

    of = Journal(tmp_path, "mana")
    first = apply(of)
    before = of.path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    former = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 20, limits[1]))  # the disk takes 20 bytes more
    try:
        problem = of.begin(journal.entry("mana", {}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, former)
    assert problem is not None
    assert of.path.read_bytes() == before
    apply(of)
    assert len(of.entries()) == 2
    assert of.entries()[0].id == first.id


@pytest.mark.parametrize("make", [lambda path: path.symlink_to("/dev/null"), os.mkfifo, Path.mkdir])
def test_what_stands_in_its_place_is_not_followed_and_hangs_nothing(tmp_path: Path, make: object) -> None:
    make(tmp_path / FILE)  # type: ignore[operator]
    of = Journal(tmp_path, "mana")
    assert of.begin(journal.entry("mana", {})) is not None


@pytest.mark.parametrize(
    ("environ", "said"), [({"GITHUB_ACTOR": "anna"}, "anna (CI)"), ({"GITLAB_USER_LOGIN": "bo"}, "bo (CI)"), ({}, "@")]
)
def test_who(environ: dict[str, str], said: str) -> None:
    assert said in journal.who(environ)
