"""The lease: one holder, known to the others, freed by the kernel when it dies."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reconciler.lease import Lease
from reconciler.problem import LeaseHeld, ReconcilerError

HOLD = """
import sys
from pathlib import Path
from reconciler.lease import Lease
with Lease(Path(sys.argv[1]), "mana", "reconciler apply"):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another(data: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lease until its standard input ends."""
    command = [sys.executable, "-c", HOLD, str(data)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


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


def test_a_stopped_holder_keeps_it(tmp_path: Path) -> None:
    with another(tmp_path) as process:
        os.kill(process.pid, signal.SIGSTOP)
        with pytest.raises(LeaseHeld), Lease(tmp_path, "mana"):
            pass


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
