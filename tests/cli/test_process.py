"""The program as a real process: signals, pipes, terminals, and two at once."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reconciler.journal import Journal
from reconciler.lease import Lease
from reconciler.resources import Record

Wait = Callable[[Callable[[], Any]], None]
FIRST, SECOND = "dns/mana.how/A/mail", "dns/mana.how/A/www"


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=120)
    assert "canary" not in out + err
    return process.returncode, out, err


def held(place: Any, wait_for: Wait, address: str, *args: str) -> subprocess.Popen[str]:
    """Start an apply and return once it is about to write an address."""
    place.world.turn(hold=address)
    process = place.popen("apply", "--yes", *args)
    wait_for((place.root / "held").exists)
    return process


def go(place: Any) -> None:
    (place.root / "go").touch()


# ------------------------------------------------------------------------------------------------------ exit codes
def test_the_codes_of_a_real_process(place: Any) -> None:
    assert finish(place.popen("plan", "--detailed-exitcode"))[0] == 2
    assert finish(place.popen("apply", "--yes"))[0] == 0
    assert finish(place.popen("plan", "--detailed-exitcode"))[0] == 0
    assert finish(place.popen("nonsense"))[0] == 1
    place.write("bad: 1")
    assert finish(place.popen("plan"))[0] == 3


def test_python_m_reconciler() -> None:
    done = subprocess.run([sys.executable, "-m", "reconciler", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("reconciler, version ")


def test_completion(place: Any) -> None:
    environment = {"_RECONCILER_COMPLETE": "bash_complete", "COMP_WORDS": "reconciler st", "COMP_CWORD": "1"}
    process = place.popen(environment=environment)
    assert finish(process)[:2] == (0, "plain,status\n")


# ------------------------------------------------------------------------------------------------------ two at once
def test_the_second_apply_ends_with_5_and_is_told_who_is_at_work(place: Any, wait_for: Wait) -> None:
    first = held(place, wait_for, FIRST)
    code, out, err = finish(place.popen("apply", "--yes"))
    assert (code, out) == (5, "")
    assert f"process {first.pid} on " in err
    assert "(reconciler apply)" in err
    code, out, _ = finish(place.popen("status"))
    assert f"The lease is held by process {first.pid}" in out
    assert finish(place.popen("plan"))[0] == 0, "a plan needs no lease"
    go(place)
    assert finish(first)[0] == 0
    assert Lease(place.data, "mana").holder() is None


def test_the_lease_of_a_killed_apply_is_free(place: Any, wait_for: Wait) -> None:
    first = held(place, wait_for, SECOND)
    first.kill()
    finish(first)
    place.world.turn()
    assert finish(place.popen("apply", "--yes"))[0] == 0
    killed, last = Journal(place.data, "mana").entries()
    assert (killed.ended, last.result) == (None, "done")
    assert "no end" in finish(place.popen("history"))[1]


# ------------------------------------------------------------------------------------------------------ signals
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_lets_the_write_finish_and_stops_before_the_next(
    place: Any, wait_for: Wait, number: signal.Signals, code: int
) -> None:
    process = held(place, wait_for, FIRST)
    assert process.stderr is not None
    process.send_signal(number)
    noticed = process.stderr.readline() + process.stderr.readline()
    assert "Stopping after the write that is under way" in noticed
    go(place)
    ended, out, _ = finish(process)
    assert ended == code
    assert place.world.addresses == [FIRST]
    assert f"✓ + {FIRST}" in out
    assert "Stopped on a signal: 1 change was made." in out
    assert "still to be made" in out
    assert Lease(place.data, "mana").holder() is None
    (entry,) = Journal(place.data, "mana").entries()
    assert entry.result == "stopped"
    assert {item.address: item.status for item in entry.written}[FIRST] == "done"
    place.world.turn()
    assert finish(place.popen("apply", "--yes"))[0] == 0, "the next run converges"


def test_a_second_signal_ends_it_at_once(place: Any, wait_for: Wait) -> None:
    process = held(place, wait_for, FIRST)
    assert process.stderr is not None
    process.send_signal(signal.SIGTERM)
    process.stderr.readline()
    process.stderr.readline()
    process.send_signal(signal.SIGINT)
    assert finish(process)[0] == 130
    assert place.world.addresses == []
    assert Lease(place.data, "mana").holder() is None


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_nothing_is_written_ends_a_plan(place: Any, number: signal.Signals, code: int) -> None:
    place.world.turn(slow=2)
    process = place.popen("plan", "-v")
    assert process.stderr is not None
    while "Observing" not in process.stderr.readline():
        pass
    process.send_signal(number)
    ended, out, err = finish(process)
    assert (ended, out) == (code, "")
    assert "Interrupted." in err
    assert "Traceback" not in err


# ------------------------------------------------------------------------------------------------------ pipes
def test_a_reader_that_goes_away_does_not_end_an_apply(place: Any, wait_for: Wait) -> None:
    process = held(place, wait_for, FIRST)
    assert process.stdout is not None
    process.stdout.close()
    go(place)
    assert process.stderr is not None
    err = process.stderr.read()
    process.stderr.close()
    assert (process.wait(), err) == (0, "")
    assert len(place.world.addresses) == 4


def test_a_reader_that_goes_away_is_quiet(place: Any) -> None:
    read, write = os.pipe()
    os.close(read)
    process = place.popen("plan", stdout=write)
    os.close(write)
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_result_that_can_not_be_printed_is_an_error_but_an_apply_is_finished(place: Any) -> None:
    with Path("/dev/full").open("w") as full:
        process = place.popen("apply", "--yes", stdout=full)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "could not be printed" in err
    assert len(place.world.addresses) == 4


def test_an_ascii_locale_prints_what_it_can(place: Any) -> None:
    environment = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    place.world.turn(unread=["stalwart"])
    code, out, err = finish(place.popen("plan", environment=environment))
    assert (code, err) == (1, "")
    assert "\\u2717 stalwart: does not answer" in out


# ------------------------------------------------------------------------------------------------------ terminals
class Terminal:
    """A process that believes a person sits in front of it."""

    def __init__(self, place: Any, *args: str, environment: dict[str, str] | None = None) -> None:
        self.master, slave = pty.openpty()
        self.process = place.popen(
            *args, stdin=slave, stdout=slave, stderr=slave, environment={"TERM": "xterm"} | (environment or {})
        )
        os.close(slave)
        self.seen = ""

    def until(self, text: str) -> None:
        end = time.monotonic() + 60
        while text not in self.seen:
            assert time.monotonic() < end, self.seen
            assert self._read() or text in self.seen, self.seen

    def _read(self) -> bool:
        if not select.select([self.master], [], [], 1)[0]:
            return True
        try:
            got = os.read(self.master, 65536)
        except OSError:  # Linux: the other end is closed
            return False
        self.seen += got.decode(errors="replace")
        return bool(got)

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def end(self) -> int:
        while self._read():
            if self.process.poll() is not None and not select.select([self.master], [], [], 0)[0]:
                break
        os.close(self.master)
        return self.process.wait(timeout=60)


def test_apply_asks_on_a_terminal_and_takes_no_for_an_answer(place: Any) -> None:
    terminal = Terminal(place, "apply")
    terminal.until("Apply these 4 changes? [y/N]")
    terminal.type("n\n")
    assert terminal.end() == 1
    assert "not confirmed, so nothing was written" in terminal.seen
    assert place.world.live == []


def test_apply_asks_on_a_terminal_and_does_it(place: Any) -> None:
    terminal = Terminal(place, "apply")
    terminal.until("[y/N]")
    terminal.type("y\n")
    assert terminal.end() == 0
    assert len(place.world.live) == 4
    assert "\x1b[32m+ dns/mana.how/A/mail" in terminal.seen


def test_what_changed_while_a_person_thought_is_not_overwritten(place: Any) -> None:
    assert finish(place.popen("apply", "--yes"))[0] == 0
    place.world.alter(FIRST, ttl=60)
    terminal = Terminal(place, "apply")
    terminal.until("Apply this change? [y/N]")
    place.world.alter(FIRST, ttl=120)
    terminal.type("y\n")
    assert terminal.end() == 4
    assert "what is live has changed since the plan was shown" in terminal.seen
    assert [item.resource.ttl for item in place.world.live if item.resource.address == FIRST] == [120]


@pytest.mark.parametrize("off", [{"NO_COLOR": "1"}, {"TERM": "dumb"}, None])
def test_colours_can_be_switched_off(place: Any, off: dict[str, str] | None) -> None:
    terminal = Terminal(place, "plan", *([] if off else ["--no-color"]), environment=off)
    assert terminal.end() == 0
    assert "+ dns/mana.how/A/mail" in terminal.seen
    assert "\x1b[3" not in terminal.seen


def test_a_long_step_shows_on_a_terminal_and_is_erased(place: Any) -> None:
    place.world.turn(slow=2.5)
    terminal = Terminal(place, "plan")
    assert terminal.end() == 0
    assert re.search(r"\r\x1b\[KObserving … [0-9]+ s", terminal.seen)
    assert "\r\x1b[K\x1b[1mmana" in terminal.seen


def test_json_on_a_terminal_is_json(place: Any) -> None:
    terminal = Terminal(place, "plan", "--output", "json")
    assert terminal.end() == 0
    assert json.loads(terminal.seen)["stack"] == "mana"


def test_u1_the_restore_of_an_empty_server_is_asked_for_though_another_system_is_refused(place: Any) -> None:
    place.world.put(Record("mana.how", "A", "mail", "198.51.100.9"))
    terminal = Terminal(place, "apply")
    terminal.until("Restore it alone? [y/N]")
    said = " ".join(terminal.seen.split())  # broken where the terminal ends
    assert "Refused: nothing will be written. The rest can go on by itself: --target stalwart." in said
    terminal.type("y\n")
    assert terminal.end() == 0
    assert "account/noreply@mana.how" in place.world.addresses
    assert not any(address.startswith("dns/") and "www" in address for address in place.world.addresses)
