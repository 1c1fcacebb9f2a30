"""`suspend` and `resume`, who is told of them, and `apply --wait`."""

from __future__ import annotations

import json
import signal
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from reconciler.lease import Lease
from reconciler.suspension import current

FIRST = "dns/mana.how/A/mail"


def test_a_stack_is_suspended_until_it_is_resumed(run: Any, place: Any) -> None:
    result = run("suspend", "--reason", "the server moves")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("mana is suspended by ")
    assert result.stdout.endswith(": the server moves.\n")
    said = current(place.data, "mana")
    assert said is not None
    assert said.until == ""
    text = run("status").stdout
    assert f"It is suspended by {said.who} since {said.since}: the server moves." in text
    assert json.loads(run("status", "--output", "json").stdout)["suspended"] == {
        "reason": "the server moves",
        "who": said.who,
        "since": said.since,
        "until": "",
    }
    result = run("resume")
    assert (result.exit_code, current(place.data, "mana")) == (0, None)
    assert "mana goes on; it was suspended by" in result.stdout
    assert "mana was not suspended." in run("resume").stdout
    assert json.loads(run("status", "--output", "json").stdout)["suspended"] is None
    assert "uspended" not in run("status").stdout


@pytest.mark.parametrize("zone", [None, "+09:00"])
def test_it_may_end_by_itself(run: Any, place: Any, zone: str | None) -> None:
    moment = datetime.now(UTC).replace(microsecond=0) + timedelta(days=2)
    local = (
        moment.astimezone()
        if zone is None
        else moment.astimezone(datetime.fromisoformat(f"2026-01-01T00{zone}").tzinfo)
    )
    written = local.replace(tzinfo=None).isoformat() if zone is None else local.isoformat()
    document = json.loads(run("suspend", "--reason", "x", "--until", written, "--output", "json").stdout)
    assert document["suspended"]["until"] == moment.strftime("%Y-%m-%dT%H:%M:%SZ")
    assert current(place.data, "mana", moment) is None
    assert current(place.data, "mana", moment - timedelta(seconds=1)) is not None


def test_a_time_from_now(run: Any, place: Any) -> None:
    result = run("suspend", "--reason", "x", "--until", "2h")
    assert result.exit_code == 0
    said = current(place.data, "mana")
    assert said is not None
    assert abs(datetime.fromisoformat(said.until) - datetime.now(UTC) - timedelta(hours=2)) < timedelta(minutes=2)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "--reason"),
        (("--reason", " \n"), "--reason: say in a few words why"),
        (("--reason", "x", "--until", "2020-01-01"), "--until: that moment has passed"),
        (("--reason", "x", "--until", "soon"), "write it like 2h, 7d or"),
        (("--reason", "x", "--until", "9999-12-31T23:59:59-23:00"), "write it like 2h, 7d or"),
    ],
)
def test_a_slip_suspends_nothing(run: Any, place: Any, options: tuple[str, ...], said: str) -> None:
    result = run("suspend", *options)
    assert result.exit_code == 1
    assert said in result.stderr
    assert current(place.data, "mana") is None


def test_a_persons_apply_goes_on_and_says_so(run: Any, place: Any) -> None:
    run("suspend", "--reason", "the server\tmoves \x1b[2J", "--until", "1d")
    result = run("apply", "--yes")
    assert result.exit_code == 0
    assert "mana is suspended by " in result.stderr
    assert "the server moves" in result.stderr
    assert "\x1b" not in result.stderr
    assert "That stops the daemon, not this apply." in result.stderr
    assert FIRST in place.world.addresses
    document = json.loads(run("apply", "--yes", "--output", "json").stdout)
    assert document["result"] == "nothing"


def test_a_damaged_word_holds_and_is_told(run: Any, place: Any) -> None:
    place.data.mkdir()
    (place.data / "suspended-mana.json").write_text("{")
    assert "It is suspended: " in run("status").stdout
    assert "`reconciler resume` removes it" in run("apply", "--yes").stderr
    assert run("resume").exit_code == 0
    assert "uspended" not in run("status").stdout


def test_who_suspends_is_told_who_is_at_work_and_of_an_earlier_word(run: Any, place: Any) -> None:
    run("suspend", "--reason", "x")
    with Lease(place.data, "mana", "reconciler daemon"):
        result = run("suspend", "--reason", "y")
    assert "reconciler daemon: is at work (process " in result.stderr
    assert "It was suspended before" in result.stderr


def test_a_directory_that_is_invalid_today_can_be_suspended_where_one_stack_was_applied(run: Any, place: Any) -> None:
    place.write("bad: 1")
    assert run("suspend", "--reason", "x").exit_code == 3
    with Lease(place.data, "mana"):
        pass
    assert run("suspend", "--reason", "x").exit_code == 0
    assert current(place.data, "mana") is not None
    assert run("resume").exit_code == 0
    with Lease(place.data, "other"):
        pass
    assert run("suspend", "--reason", "x").exit_code == 3, "which one is meant can't be told"


# ---------------------------------------------------------------------------------------------------- apply --wait
def test_apply_waits_for_who_is_at_work(run: Any, place: Any) -> None:
    with Lease(place.data, "mana", "reconciler daemon") as lease:
        assert run("apply", "--yes").exit_code == 5
        timer = threading.Timer(1.0, lease.__exit__)
        timer.start()
        result = run("apply", "--yes", "--wait", "1m", "-v")
        timer.join()
    assert result.exit_code == 0
    assert "Waiting for the lease" in result.stderr
    assert "(reconciler daemon)" in result.stderr


def test_apply_waits_in_vain_and_can_be_interrupted(place: Any, wait_for: Any) -> None:
    with Lease(place.data, "mana"):
        began = time.monotonic()
        process = place.popen("apply", "--yes", "--wait", "1s")
        process.communicate(timeout=60)
        assert (process.returncode, time.monotonic() - began >= 1) == (5, True)
        process = place.popen("apply", "--yes", "--wait", "1h", "-v")
        assert process.stderr is not None
        while "Waiting for the lease" not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        assert process.returncode == 143


def test_status_says_since_when_a_holder_is_silent(run: Any, place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from reconciler import lease

    with Lease(place.data, "mana", "reconciler daemon"):
        assert "last heard of" not in run("status").stdout
        now = lease.clock()
        monkeypatch.setattr(lease, "clock", lambda: now + 90)
        assert "(reconciler daemon); last heard of 90 s ago." in run("status").stdout
