"""What the daemon's last cycle told, for `reconciler status` beside it or after it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from daemon import states

from reconciler.daemon.document import document
from reconciler.daemon.memory import Memory, is_late, joined, recalled

NOW = datetime(2026, 11, 28, 12, 3, 0, tzinfo=UTC)


def told(state: Any, place: Path) -> dict[str, Any]:
    Memory(place).keep(state)
    found = recalled(place, "mana")
    assert found
    return found


def seen_now(**source: Any) -> dict[str, Any]:
    """What a command sees by itself: no cycle, and of the source only what lies here."""
    state = states.calm(cycle=None, next="", interval=0.0, started="")
    revision = replace(states.REVISION, subject="", author="", committer="", when="", **source)
    return document(replace(state, source=replace(state.source, reached="", revision=revision)), NOW)


def test_a_command_tells_what_the_daemon_knows(tmp_path: Path) -> None:
    found = joined(seen_now(), told(states.calm(), tmp_path), NOW)
    assert found["cycle"]["number"] == 7
    assert found["next"] == "2026-11-28T12:05:00Z"
    assert found["since"] == "2026-11-28T10:00:00Z"
    assert found["source"]["committer"] == "Grace <grace@mana.how>"
    assert found["source"]["age"] == 180.0
    assert found["targets"] == json.loads(json.dumps(seen_now()["targets"]))


def test_what_is_seen_now_counts_more_than_what_was_told(tmp_path: Path) -> None:
    found = joined(seen_now(commit="1234567"), told(states.drifted(), tmp_path), NOW)
    assert found["state"] == "in_sync"
    assert found["source"]["commit"] == "1234567"
    assert found["cycle"]["result"] == "partial"


def test_a_daemon_that_runs_no_more_is_told_from_one_that_does(tmp_path: Path) -> None:
    last = told(states.calm(), tmp_path)
    assert not is_late(last, NOW)
    assert is_late(last, NOW + timedelta(minutes=30))


def test_no_secret_is_kept(tmp_path: Path) -> None:
    state = replace(states.calm(), source=replace(states.calm().source, where=f"git {states.CANARY}"))
    Memory(tmp_path, lambda text: text.replace(states.CANARY, "{env: X}")).keep(state)
    assert states.CANARY not in (tmp_path / "daemon-mana.json").read_text()
    assert (tmp_path / "daemon-mana.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("damage", ["", "{", "[]", "{}", '{"state": 1}', "[" * 10_000])
def test_a_damaged_file_costs_these_words_alone(damage: str, tmp_path: Path) -> None:
    told(states.calm(), tmp_path)
    (tmp_path / "daemon-mana.json").write_text(damage)
    assert recalled(tmp_path, "mana") is None


@pytest.mark.parametrize("name", ["state", "source", "cycle", "interval", "contested", "losses"])
@pytest.mark.parametrize("value", [None, 7.5, "text", {}, [[]]])
def test_another_shape_is_not_believed_or_does_no_harm(name: str, value: Any, tmp_path: Path) -> None:
    kept = told(states.calm(), tmp_path)
    (tmp_path / "daemon-mana.json").write_text(json.dumps(kept | {name: value}))
    found = recalled(tmp_path, "mana")
    if found is not None:
        is_late(found, NOW)
        assert joined(seen_now(), found, NOW)["state"] == "in_sync"


def test_a_disk_that_takes_nothing_ends_no_cycle(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    Memory(tmp_path / "file" / "data").keep(states.calm())
