"""The lease: one holder, known to the others, freed by the kernel when it dies."""

from __future__ import annotations

import datetime as dt
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reconciler import files
from reconciler import lease as module
from reconciler.lease import Lease
from reconciler.problem import LeaseHeld, LeaseLost, ReconcilerError

HOLD = """
import sys
from pathlib import Path
from reconciler import lease
from reconciler.problem import LeaseLost
lease.DURATION = float(sys.argv[2])
with lease.Lease(Path(sys.argv[1]), "mana", "reconciler apply") as held:
    print("held", flush=True)
    for _ in sys.stdin:
        try:
            held.check()
            print("writes", flush=True)
        except LeaseLost as error:
            print(error, flush=True)
"""
BEFORE = """
import fcntl, json, os, sys
descriptor = os.open(sys.argv[1] + "/lease-mana", os.O_RDWR | os.O_CREAT)
fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
os.ftruncate(descriptor, 0)
os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "host": "h", "since": "s", "command": "c"}).encode(), 0)
print("held", flush=True)
sys.stdin.read()
"""


class Process(subprocess.Popen[str]):
    """A process that holds the lease until its standard input ends."""

    def says(self) -> str:
        assert self.stdout is not None
        return self.stdout.readline().strip()

    def writes(self) -> str:
        """Have it look whether it may write, and return what it says."""
        assert self.stdin is not None
        self.stdin.write("?\n")
        self.stdin.flush()
        return self.says()


@contextmanager
def another(data: Path, seconds: float = 600.0, program: str = HOLD) -> Iterator[Process]:
    """Another process that holds the lease, which runs out after so many seconds."""
    command = [sys.executable, "-c", program, str(data), str(seconds)]
    with Process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.says() == "held"
            yield process
        finally:
            process.kill()


class Clock:
    """The kernel's clock, as the test sets it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "clock", clock)
    return clock


@pytest.fixture(params=["with a name in the kernel", "by the file alone"])
def _names(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another container has names of its own in the kernel: the file has to do."""
    if request.param == "by the file alone":
        monkeypatch.setattr(module, "_name_in_kernel", lambda _path: None)


def test_it_is_taken_and_freed(tmp_path: Path) -> None:
    lease = Lease(tmp_path / ".reconciler", "mana")
    with lease:
        assert stat.S_IMODE(lease.path.stat().st_mode) == 0o600
        assert stat.S_IMODE(lease.path.parent.stat().st_mode) == 0o700
        assert lease.holder() is not None
    assert lease.holder() is None
    with lease:
        pass


def test_the_second_is_told_who_holds_it_and_since_when(tmp_path: Path) -> None:
    with another(tmp_path) as process:
        with pytest.raises(LeaseHeld) as caught, Lease(tmp_path, "mana"):
            pass
        assert caught.value.exit_code == 5
        said = str(caught.value)
        holder = Lease(tmp_path, "mana").holder()
        assert holder is not None
        assert holder["pid"] == process.pid
        assert f"process {process.pid} on {holder['host']} since {holder['since']} (reconciler apply)" in said


def test_the_same_process_can_not_take_it_twice(tmp_path: Path) -> None:
    with Lease(tmp_path, "mana"), pytest.raises(LeaseHeld), Lease(tmp_path, "mana"):
        pass


def test_stacks_do_not_wait_for_each_other(tmp_path: Path) -> None:
    with Lease(tmp_path, "mana"), Lease(tmp_path, "other"):
        assert Lease(tmp_path, "third").holder() is None


def test_a_killed_holder_leaves_it_free(tmp_path: Path) -> None:
    with another(tmp_path) as process:
        process.kill()
        process.wait()
        assert Lease(tmp_path, "mana").path.read_text() != ""
        with Lease(tmp_path, "mana") as lease:
            assert (lease.holder() or {})["pid"] == os.getpid()


# ------------------------------------------------------------------------------------------------------- who hangs
@pytest.mark.usefixtures("_names")
def test_a_stopped_holder_keeps_it_until_its_end_and_then_writes_nothing_more(tmp_path: Path) -> None:
    with another(tmp_path, 1.5) as process:
        os.kill(process.pid, signal.SIGSTOP)
        with pytest.raises(LeaseHeld, match="loses the lease after"), Lease(tmp_path, "mana"):
            pass
        with Lease(tmp_path, "mana", wait=20) as lease:
            assert lease.number == 2
            lease.check()
            os.kill(process.pid, signal.SIGCONT)
            assert "the lease was lost: nothing was heard of this process" in process.writes()
            lease.check()
            with pytest.raises(LeaseHeld), Lease(tmp_path, "mana"):
                pass
        assert "another reconciler took it" in process.writes(), "it stays lost when the other one has ended"
        with Lease(tmp_path, "mana") as lease:
            assert lease.number == 3


def test_progress_puts_the_end_off(tmp_path: Path) -> None:
    with another(tmp_path, 1.5) as process:
        end = time.monotonic() + 3
        while time.monotonic() < end:
            assert process.writes() == "writes"
            with pytest.raises(LeaseHeld), Lease(tmp_path, "mana"):
                pass


def test_a_holder_that_only_hears_answers_keeps_it(tmp_path: Path, clock: Clock) -> None:
    with Lease(tmp_path, "mana") as lease:
        for _ in range(10):
            clock.now += module.DURATION - 1
            lease.renew()
            with pytest.raises(LeaseHeld), Lease(tmp_path, "mana"):
                pass


def test_who_was_away_for_too_long_goes_on_where_nobody_took_it(tmp_path: Path, clock: Clock) -> None:
    with Lease(tmp_path, "mana") as lease:
        clock.now += 10 * module.DURATION
        lease.renew()  # says nothing yet: another one may have read the end before
        lease.check()
        with pytest.raises(LeaseHeld), Lease(tmp_path, "mana"):
            pass
        assert lease.number == 1


@pytest.mark.parametrize("away", [0.0, 10 * module.DURATION])
def test_it_is_taken_from_who_is_away(tmp_path: Path, clock: Clock, away: float) -> None:
    first, second = Lease(tmp_path, "mana"), Lease(tmp_path, "mana")
    with first:
        clock.now += module.DURATION + 1
        with second:
            clock.now += away
            with pytest.raises(LeaseLost):
                first.check()
            first.renew()
            with pytest.raises(LeaseLost):
                first.check()
            second.check()
        assert first.lost


def test_who_comes_back_waits_for_one_that_is_just_taking_it(tmp_path: Path, clock: Clock) -> None:
    """The end is read, then the file replaced: between the two its holder must not take heart."""
    found: list[object] = []

    def check() -> None:
        try:
            found.append(lease.check())
        except LeaseLost as error:
            found.append(error)

    with Lease(tmp_path, "mana") as lease:
        clock.now += module.DURATION + 1
        thread = threading.Thread(target=check)
        with files.begun(lease.path) as (_, name):
            thread.start()
            time.sleep(0.3)
            assert found == []
            name.replace(lease.path)
        thread.join()
        assert isinstance(found[0], LeaseLost)


def test_it_is_not_taken_twice_from_one_that_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    """The lock is ours, and the file still says what a dead holder wrote: another one may believe it."""
    killed = {"pid": 1, "number": 7, "boot": module.boot(), "renewed": 10.0, "expires": 610.0}
    (tmp_path / "lease-mana").write_text(json.dumps(killed))
    second, between = Lease(tmp_path, "mana"), [True]

    def name(_path: Path) -> None:
        if between:
            between.clear()
            second.__enter__()

    monkeypatch.setattr(module, "_name_in_kernel", name)
    with pytest.raises(LeaseHeld), Lease(tmp_path, "mana"):
        pass
    second.check()
    second.__exit__()


def test_a_file_system_that_names_no_file_twice_is_refused_with_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "has_name", lambda *_: False)
    with pytest.raises(ReconcilerError, match="another one each time"), Lease(tmp_path, "mana"):
        pass


def test_of_many_who_find_the_end_passed_one_takes_it(tmp_path: Path) -> None:
    with another(tmp_path, 0.2) as stopped:
        os.kill(stopped.pid, signal.SIGSTOP)
        time.sleep(0.3)
        command = [sys.executable, "-c", HOLD, str(tmp_path), "600"]
        pipe = subprocess.PIPE
        crowd = [Process(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True) for _ in range(6)]
        try:
            said = [process.says() for process in crowd]
            assert sorted(said) == ["", "", "", "", "", "held"]
            assert Lease(tmp_path, "mana").holder() is not None
        finally:
            for process in crowd:
                process.kill()
                process.communicate()


# ---------------------------------------------------------------------------------------------------------- clocks
@pytest.mark.parametrize("years", [-30, 30])
def test_a_wall_clock_that_jumps_neither_frees_nor_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock, years: int
) -> None:
    with Lease(tmp_path, "mana") as first:
        wall = time.time() + years * 365 * 86400
        monkeypatch.setattr(time, "time", lambda: wall)
        monkeypatch.setattr(module, "now", lambda: dt.datetime.fromtimestamp(wall, dt.UTC).isoformat())
        os.utime(first.path, (wall, wall))
        with pytest.raises(LeaseHeld), Lease(tmp_path, "mana"):
            pass
        first.check()
        clock.now += module.DURATION + 1
        with Lease(tmp_path, "mana"), pytest.raises(LeaseLost):
            first.check()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such clock")
def test_the_clock_counts_while_the_machine_sleeps() -> None:
    assert abs(module.clock() - time.clock_gettime(time.CLOCK_BOOTTIME)) < 5
    assert module.boot() == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def test_one_under_another_kernel_is_never_judged_by_our_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    with Lease(tmp_path, "mana"):
        monkeypatch.setattr(module, "boot", lambda: "another")
        clock.now += 10 * module.DURATION
        with pytest.raises(LeaseHeld, match="another machine, real or virtual"), Lease(tmp_path, "mana"):
            pass
        assert (Lease(tmp_path, "mana").holder() or {})["silence"] is None


def test_after_a_reboot_it_is_free_whatever_the_file_says(tmp_path: Path, clock: Clock) -> None:
    held = {"pid": 1, "number": 7, "boot": "before", "renewed": 9e6, "expires": 9e6 + 600}
    (tmp_path / "lease-mana").write_text(json.dumps(held))
    with Lease(tmp_path, "mana") as lease:
        assert lease.number == 8


# ------------------------------------------------------------------------------------------------------ other versions
def test_an_older_version_keeps_it_while_it_lives(tmp_path: Path, clock: Clock) -> None:
    with another(tmp_path, program=BEFORE) as process:
        clock.now += 1e6
        with pytest.raises(LeaseHeld, match="end that process"), Lease(tmp_path, "mana"):
            pass
        process.kill()
        process.wait()
        with Lease(tmp_path, "mana"):
            pass


def test_an_older_version_is_kept_out_before_and_after_it_is_taken_over(tmp_path: Path, clock: Clock) -> None:
    def tries() -> str:
        command = [sys.executable, "-c", BEFORE, str(tmp_path)]
        done = subprocess.run(command, input="", capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    with Lease(tmp_path, "mana"):
        assert "BlockingIOError" in tries()
        clock.now += module.DURATION + 1
        with Lease(tmp_path, "mana"):
            assert "BlockingIOError" in tries()
    assert tries() == "held\n"
    assert Lease(tmp_path, "mana").holder() is None


# ------------------------------------------------------------------------------------------------------- waiting
def test_who_waits_gets_it_when_the_holder_ends_and_is_told_once_who_that_is(tmp_path: Path) -> None:
    told: list[str] = []
    with another(tmp_path) as process:
        threading.Timer(1.5, process.kill).start()
        with Lease(tmp_path, "mana", wait=60, told=told.append):
            pass
        (said,) = told
        assert f"process {process.pid} on " in said


def test_a_full_disk_costs_words_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_put", full)
    with Lease(tmp_path, "mana") as lease:
        clock.now += 10 * module.DURATION
        lease.check()
        with pytest.raises(LeaseHeld), Lease(tmp_path, "mana"):
            pass
        lease.path.unlink()
        with pytest.raises(LeaseLost):
            lease.check()


# ------------------------------------------------------------------------------------------------------------ the rest
def test_a_child_does_not_inherit_it(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"], close_fds=False) as before:
        with Lease(tmp_path, "mana"), subprocess.Popen(["sleep", "60"], close_fds=False) as child:
            pass_on = Lease(tmp_path, "mana")
            child.terminate()
        with pass_on:
            before.terminate()


def test_an_error_inside_frees_it(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Lease(tmp_path, "mana"):
        raise ZeroDivisionError
    assert Lease(tmp_path, "mana").holder() is None


@pytest.mark.parametrize("make", [lambda path: path.symlink_to("elsewhere"), Path.mkdir])
def test_what_stands_in_its_place_is_refused_with_a_word(tmp_path: Path, make: object) -> None:
    make(tmp_path / "lease-mana")  # type: ignore[operator]
    with pytest.raises(ReconcilerError, match="nothing may be written") as caught, Lease(tmp_path, "mana"):
        pass
    assert "--data" in caught.value.problems[0].hint
    assert caught.value.exit_code == 1


def test_a_data_directory_that_is_none_is_refused_with_a_word(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ReconcilerError, match="nothing may be written"), Lease(tmp_path / "file", "mana"):
        pass


def test_a_read_only_directory_is_refused_with_a_word(tmp_path: Path) -> None:
    # Root may write to a directory that forbids it, but not make files in the kernel's.
    directory = Path("/sys/kernel") if os.geteuid() == 0 else tmp_path
    tmp_path.chmod(0o500)
    with pytest.raises(ReconcilerError, match="nothing may be written"), Lease(directory, "mana"):
        pass
    tmp_path.chmod(0o700)


def test_a_file_that_can_only_be_read_is_lock_enough(tmp_path: Path) -> None:
    (tmp_path / "lease-mana").touch(mode=0o400)
    with Lease(tmp_path, "mana"), pytest.raises(LeaseHeld), Lease(tmp_path, "mana"):
        pass


def test_a_damaged_holder_is_no_error(tmp_path: Path) -> None:
    with Lease(tmp_path, "mana") as lease:
        lease.path.write_bytes(b"\xff{")
        with pytest.raises(LeaseHeld, match="another reconciler is at work"), Lease(tmp_path, "mana"):
            pass
