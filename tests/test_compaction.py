"""What stays of a journal that has grown too large, by the journal itself: whoever asks then gets the same answers."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from properties import tries

from reconciler import journal, past
from reconciler.compaction import kept
from reconciler.daemon.applied import losses
from reconciler.dns.records import record
from reconciler.journal import FILE, Entry, Journal, Written

SMALL, FEW = 20_000, 8_000  # bytes


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal that is large soon."""
    monkeypatch.setattr(journal, "LARGEST", SMALL)
    monkeypatch.setattr(journal, "_KEPT", FEW)
    monkeypatch.setattr(os, "fsync", lambda _: None)  # hundreds of applies would wait for the disk


def change(name: str, content: str = "192.0.2.1", **facts: Any) -> Written:
    known = {"actions": ("update",), "status": "done", "after": {"content": content}}
    return Written(f"dns/mana.how/A/{name}", **known | facts)


def apply(of: Journal, *rows: Written, whole: bool = True, **facts: Any) -> Entry:
    entry = journal.entry(of.stack or "", {"GITHUB_ACTOR": "anna"}, **{"targets": ("cloudflare",)} | facts)
    assert of.begin(entry) is None
    assert of.end(entry, "done" if whole else "partial", rows, whole=whole) is None
    return entry


def much(of: Journal, number: int = 200) -> None:
    """So many applies that nothing of before is among the newest."""
    for _ in range(number):
        apply(of, change("www"))


@pytest.mark.usefixtures("small")
def test_it_stays_small_and_the_newest_stay_as_they_are(tmp_path: Path) -> None:
    of = Journal(tmp_path, "mana")
    made = []
    for number in range(300):
        made.append(apply(of, change(f"host{number % 3}")))
        assert of.path.stat().st_size <= SMALL
    found = of.entries()
    assert of.problem is None
    assert [item.id for item in found[-10:]] == [item.id for item in made[-10:]]
    assert all(item.written and item.whole and not item.forgotten for item in found[-10:])
    assert len(found) < 60
    assert {path.name for path in tmp_path.iterdir()} <= {FILE, ".gitignore"}


@pytest.mark.usefixtures("small")
def test_the_last_that_left_nothing_to_do_is_known_for_each_target(tmp_path: Path) -> None:
    of, other = Journal(tmp_path, "mana", tmp_path / "ours"), Journal(tmp_path, "other", tmp_path / "theirs")
    mail = apply(of, targets=("stalwart", "cloudflare"), desired_hash="1")
    theirs = apply(other, targets=("compose",))
    last = apply(of, targets=("cloudflare",), failover="one to another")
    for _ in range(200):
        apply(of, change("www"), whole=False)
    fresh, theirs_again = (
        Journal(item.path.parent, item.stack, tmp_path / name) for item, name in ((of, "ours"), (other, "theirs"))
    )
    assert getattr(fresh.last_whole("stalwart"), "id", None) == mail.id
    assert fresh.last_whole() == replace(
        last,
        directory="ours",
        ended=fresh.last_whole().ended,
        result="done",
        whole=True,
        seconds=fresh.last_whole().seconds,
    )  # type: ignore[union-attr]
    assert getattr(theirs_again.last_whole("compose"), "id", None) == theirs.id
    assert fresh.last_whole("compose") is None
    assert len(fresh.entries()) < 60


@pytest.mark.usefixtures("small")
def test_losses_stay_losses(tmp_path: Path) -> None:
    of = Journal(tmp_path, "mana")
    apply(of, targets=("stalwart",), lost=("stalwart",))  # a new server
    lost = []
    for _ in range(3):
        much(of, 60)
        lost.append(apply(of, change("www"), targets=("stalwart",), lost=("stalwart",)))
    much(of)
    assert [item.when for item in losses(of.entries())] == [item.began for item in lost]


@pytest.mark.usefixtures("small")
def test_the_last_change_of_each_address_stays(tmp_path: Path) -> None:
    of = Journal(tmp_path, "mana")
    apply(of, change("www"), change("mail", "192.0.2.1"), change("old"), change("mail6", status="failed"))
    apply(of, change("mail", "192.0.2.2"), change("old", actions=("delete",), after=None))
    last = apply(of, change("mail", "192.0.2.3", status="failed"))
    much(of)
    found = of.entries()
    rows = [(item.id, row.address.rpartition("/")[2], row.status) for item in found for row in item.written]
    assert [row for row in rows if row[1] in ("mail", "old", "mail6")] == [
        (found[0].id, "mail6", "failed"),
        (found[1].id, "mail", "done"),
        (last.id, "mail", "failed"),
    ]
    assert [item.forgotten for item in found[:3]] == [3, 1, 0], "and how many are not listed is said"
    mail = [record("mana.how", "A", "mail", f"192.0.2.{number}") for number in (1, 2)]
    assert past.applied(found, mail) == {mail[1]}, "what was in force last was applied from here"


@pytest.mark.usefixtures("small")
def test_a_second_time_it_says_the_same(tmp_path: Path) -> None:
    of = Journal(tmp_path, "mana")
    first = apply(of, change("mail"), change("www"), targets=("stalwart",))
    for _ in range(5):
        much(of, 80)
    assert [(item.id, len(item.written), item.forgotten) for item in of.entries()[:1]] == [(first.id, 1, 1)]


@pytest.mark.usefixtures("small")
def test_an_apply_that_is_under_way_ends_as_it_began(tmp_path: Path) -> None:
    slow, quick = Journal(tmp_path, "slow"), Journal(tmp_path, "quick")
    entry = journal.entry("slow", {})
    slow.begin(entry)
    much(quick)
    slow.end(entry, "done", [change("mail")], whole=True)
    (found,) = slow.entries()
    assert (found.id, found.whole, len(found.written)) == (entry.id, True, 1)


@pytest.mark.usefixtures("small")
def test_what_needs_more_room_than_there_is_has_it_and_is_not_written_anew_each_time(tmp_path: Path) -> None:
    of = Journal(tmp_path, "mana")
    apply(of, *(change(f"host{number}") for number in range(400)))
    heads = set()
    for _ in range(100):
        apply(of, change("www"))
        heads.add(of.path.read_text().partition("\n")[0])
    assert {f"dns/mana.how/A/host{number}" for number in range(400)} <= {
        row.address for item in of.entries() for row in item.written
    }
    assert len(heads) < 5
    assert of.path.stat().st_size < 3 * 400 * 150


@pytest.mark.usefixtures("small")
def test_what_a_newer_version_wrote_is_left_alone(tmp_path: Path) -> None:
    of = Journal(tmp_path, "mana")
    line = json.dumps({"v": 2, "id": "n", "stack": "mana", "event": "something"})
    of.path.write_text(line + "\n")
    much(of, 100)
    assert of.path.read_text().startswith(line)
    assert of.path.stat().st_size > SMALL


@pytest.mark.usefixtures("small")
def test_damaged_lines_do_not_keep_it_large(tmp_path: Path) -> None:
    of = Journal(tmp_path, "mana")
    first = apply(of, change("mail"))
    with of.path.open("ab") as file:
        for line in (b"[1]", b'{"v":1,"id":"x","event":"began"}', b'{"v":1,"id":"x","event":[1]}', b"\xff" * SMALL):
            file.write(line + b"\n")
    second = apply(of, change("mail"))
    assert [item.id for item in of.entries()] == [first.id, second.id]
    assert of.path.stat().st_size < SMALL


@pytest.mark.usefixtures("small")
def test_a_full_disk_leaves_it_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    of = Journal(tmp_path, "mana")
    monkeypatch.setattr(journal.files, "write_private", full)
    first = apply(of, change("mail"))
    much(of, 100)
    assert of.entries()[0].id == first.id
    assert len(of.entries()) == 101


# ------------------------------------------------------------------------------------------------- kills and neighbours
def endings(number: int) -> Callable[..., None]:
    """Return what ends this process, without a word, right before the call of that number, and counts down."""
    left = [number]

    def count() -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    return count


def in_a_process(work: Callable[[], None]) -> int:
    """Run something in a fork of us, and return how it ended."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:  # noqa: BLE001
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.usefixtures("small")
def test_killed_at_any_moment_nothing_that_was_written_down_is_lost(tmp_path: Path) -> None:
    """Before each call by which it reaches the disk, of an apply that makes it too large."""
    full = tmp_path / "full"
    of = Journal(full, "mana")
    apply(of, change("mail"), targets=("stalwart",))
    apply(of, targets=("stalwart",), lost=("stalwart",))
    while of.path.stat().st_size < SMALL - 400:
        apply(of, change("www"))
    before = of.entries()
    shortened = 0
    for number in range(1, 200):
        folder = tmp_path / str(number)
        folder.mkdir(mode=0o700)
        (folder / FILE).write_bytes(of.path.read_bytes())
        mine = Journal(folder, "mana")

        def work(mine: Journal = mine, number: int = number) -> None:
            count = endings(number)
            for name in (
                "open",
                "write",
                "fsync",
                "ftruncate",
                "replace",
                "rename",
                "link",
                "close",
                "fchmod",
                "unlink",
            ):
                call = getattr(os, name)
                setattr(os, name, lambda *a, call=call, **b: (count(), call(*a, **b))[1])
            apply(mine, change("new"))

        code = in_a_process(work)
        found = mine.entries()
        assert mine.problem is None
        shortened += len(found) < len(before)
        assert found[0].written == before[0].written, "the last change of an address"
        assert losses(found) == losses(before)
        assert [item.id for item in found if item.id in {old.id for old in before[-8:]}] == [
            old.id for old in before[-8:]
        ]
        last = apply(mine, change("after"))
        assert mine.entries()[-1].id == last.id
        assert {path.name for path in folder.iterdir()} <= {FILE, ".gitignore"}, "and nothing is left behind"
        if code == 0:
            break
        assert code == -signal.SIGKILL
    assert number > 15
    assert shortened


def applies(folder: Path, stack: str, number: int) -> None:
    journal.LARGEST, journal._KEPT = SMALL, FEW
    of = Journal(folder, stack)
    for index in range(number):
        apply(of, change(f"host{index}", str(index)))


def test_two_processes_at_once_lose_nothing_of_each_other(tmp_path: Path) -> None:
    stacks, number = ("one", "two", "three"), 50
    context = multiprocessing.get_context("fork")
    running = [context.Process(target=applies, args=(tmp_path, stack, number)) for stack in stacks]
    for process in running:
        process.start()
    seen: set[tuple[str, str]] = set()
    while any(process.is_alive() for process in running):
        now = {(item.stack, row.address) for item in Journal(tmp_path, None).entries() for row in item.written}
        assert seen <= now, "who reads meanwhile sees a whole one"
        seen = now
    assert [process.exitcode for process in running] == [0, 0, 0]
    for stack in stacks:
        of = Journal(tmp_path, stack)
        found = of.entries()
        assert of.problem is None
        assert all(item.ended for item in found)
        assert [row.after["content"] for item in found for row in item.written if row.after] == [
            str(index) for index in range(number)
        ], "each address was changed once, and that stays"


# --------------------------------------------------------------------------------------------------------- any journal
@st.composite
def lines(draw: st.DrawFn) -> list[tuple[dict[str, Any], int]]:
    found: list[dict[str, Any]] = []
    for number in range(draw(st.integers(0, 12))):
        key = {"v": 1, "id": str(number), "stack": draw(st.sampled_from(["a", "b"]))}
        targets = draw(st.lists(st.sampled_from(["stalwart", "cloudflare"]), unique=True))
        lost = draw(st.sampled_from([[], ["stalwart"]]))
        found.append({**key, "event": "began", "began": f"{number:03}", "who": "me", "targets": targets, "lost": lost})
        if draw(st.booleans()):
            rows = [
                {
                    "address": draw(st.sampled_from(["x", "y", "z"])),
                    "actions": [draw(st.sampled_from(["create", "update", "delete"]))],
                    "status": draw(st.sampled_from(["done", "failed", "unknown"])),
                }
                for _ in range(draw(st.integers(0, 3)))
            ]
            whole = draw(st.booleans())
            found += [{**key, "event": "written", "written": rows}, {**key, "event": "ended", "whole": whole}]
    return [(line, 10) for line in found]


def told(items: Iterator[dict[str, Any]] | list[dict[str, Any]]) -> tuple[Any, ...]:
    """What anybody asks of a journal: the last that was whole, losses, and what is in force."""
    entries: dict[str, Entry] = {}
    for line in items:
        assert journal._take(entries, line)
    found = list(entries.values())
    newest = {(item.stack, target): item.id for item in found if item.whole for target in ("", *item.targets)}
    in_force: dict[tuple[str, str], str] = {}
    for item in found:
        for row in item.written:
            if row.status != "failed":
                in_force[item.stack, row.address] = item.id
            if row.status == "done" and row.actions == ("delete",):
                del in_force[item.stack, row.address]
    lost = {stack: losses([item for item in found if item.stack == stack]) for stack in ("a", "b")}
    return newest, lost, in_force


@settings(max_examples=tries(100), deadline=None)
@given(lines(), st.integers(0, 200))
def test_whatever_is_left_out_the_answers_are_the_same(given: list[tuple[dict[str, Any], int]], budget: int) -> None:
    whole = [line for line, _ in given]
    short = [dict(line) for line in kept(given, budget)]
    assert told(short) == told(whole)
    again = [dict(line) for line in kept([(line, 10) for line in short], budget)]
    assert told(again) == told(whole)
    if sum(size for _, size in given) <= budget:
        assert short == whole
