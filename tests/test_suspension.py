"""A person's word that nothing is to be written for now: kept, ended, and never lost to damage."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from reconciler.problem import ReconcilerError
from reconciler.suspension import Suspension, current, resume, suspend

NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)
SAID = Suspension("the server moves", "anna@mail", "2026-11-29T11:00:00Z")
FILE = "suspended-mana.json"


def until(moment: datetime) -> Suspension:
    return Suspension("the server moves", "anna@mail", "2026-11-29T11:00:00Z", moment.isoformat())


def test_it_holds_from_suspend_to_resume(tmp_path: Path) -> None:
    data = tmp_path / ".reconciler"
    assert current(data, "mana") is None
    assert suspend(data, "mana", SAID) is None
    assert current(data, "mana") == SAID
    assert (data / FILE).stat().st_mode & 0o777 == 0o600
    assert resume(data, "mana") == SAID
    assert current(data, "mana") is None
    assert resume(data, "mana") is None


def test_stacks_are_suspended_each_by_itself(tmp_path: Path) -> None:
    suspend(tmp_path, "mana", SAID)
    assert current(tmp_path, "other") is None
    assert resume(tmp_path, "other") is None
    assert current(tmp_path, "mana") == SAID


def test_a_newer_word_takes_the_place_of_an_older_one(tmp_path: Path) -> None:
    suspend(tmp_path, "mana", SAID)
    newer = Suspension("it still moves", "ben@mail", "2026-11-29T12:00:00Z")
    assert suspend(tmp_path, "mana", newer) == SAID
    assert current(tmp_path, "mana") == newer


@pytest.mark.parametrize("zone", ["+00:00", "+09:00", "-05:00"])
def test_its_end_passes_by_itself(tmp_path: Path, zone: str) -> None:
    moment = datetime.fromisoformat(f"2026-11-29T12:00:00{zone}")
    suspend(tmp_path, "mana", until(moment))
    assert current(tmp_path, "mana", moment - timedelta(seconds=1)) is not None
    assert current(tmp_path, "mana", moment) is None
    assert current(tmp_path, "mana", moment + timedelta(days=9)) is None


def test_who_resumes_what_has_ended_is_told_that_it_had(tmp_path: Path) -> None:
    suspend(tmp_path, "mana", until(datetime(2020, 1, 1, tzinfo=UTC)))
    assert resume(tmp_path, "mana") is None
    assert not (tmp_path / FILE).exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[" * 5000,
        b"\xff",
        b"[]",
        b"null",
        b'{"reason": "x"}',
        b'{"reason": 1, "who": "a", "since": "b", "until": ""}',
        b'{"reason": "x", "who": "a", "since": "b", "until": "tomorrow"}',
        b'{"reason": "x", "who": "a", "since": "b", "until": "2026-11-29T12:00:00"}',
    ],
)
def test_what_can_not_be_read_holds_and_says_so(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    said = current(tmp_path, "mana", NOON)
    assert said is not None
    assert FILE in said.reason
    assert "reconciler resume" in said.reason
    assert (said.who, said.until) == ("", "")
    assert resume(tmp_path, "mana") is not None
    assert current(tmp_path, "mana") is None


def test_a_word_that_a_kill_tore_is_none_and_an_older_one_holds_on(tmp_path: Path) -> None:
    suspend(tmp_path, "mana", SAID)
    (tmp_path / f".new-{FILE}").write_text('{"reason": "ha')
    assert current(tmp_path, "mana") == SAID
    assert suspend(tmp_path, "mana", SAID) == SAID
    assert sorted(item.name for item in tmp_path.iterdir() if not item.name.startswith(".git")) == [FILE]


@pytest.mark.parametrize("make", [lambda path: path.symlink_to("elsewhere"), Path.mkdir, os.mkfifo])
def test_what_stands_in_its_place_holds_and_is_not_followed(tmp_path: Path, make: object) -> None:
    make(tmp_path / FILE)  # type: ignore[operator]
    said = current(tmp_path, "mana")
    assert said is not None
    assert "can't be read" in said.reason or "regular file" in said.reason
    if not (tmp_path / FILE).is_dir():
        assert resume(tmp_path, "mana") == said
        assert current(tmp_path, "mana") is None
        return
    with pytest.raises(ReconcilerError, match="can't be changed"):
        resume(tmp_path, "mana")


def test_where_it_can_not_be_kept_that_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ReconcilerError, match="can't be changed"):
        suspend(tmp_path / "file", "mana", SAID)


def test_no_text_of_a_person_breaks_it(tmp_path: Path) -> None:
    said = Suspension('"; rm -rf / \x1b[2J <b>\u202e\U0001f4a9', "a\nb", "c")
    suspend(tmp_path, "mana", said)
    assert current(tmp_path, "mana") == said
    assert json.loads((tmp_path / FILE).read_text())["who"] == "a\nb"
