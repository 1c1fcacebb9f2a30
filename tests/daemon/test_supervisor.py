"""What systemd is told, at a real socket; and what it is told no more of a loop that hangs."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from reconciler.daemon.board import Board
from reconciler.daemon.state import Sourced, State
from reconciler.daemon.supervisor import Supervisor


@dataclass
class Systemd:
    """The other end of ``NOTIFY_SOCKET``."""

    socket: socket.socket
    address: str

    def heard(self, seconds: float = 20.0) -> list[str]:
        """The next datagram's words; none where nothing comes."""
        self.socket.settimeout(seconds)
        try:
            return self.socket.recv(4096).decode().split("\n")
        except TimeoutError:
            return []


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Systemd]:
    address = str(tmp_path / "notify") if request.param == "path" else f"@reconciler-test-{os.getpid()}-{id(tmp_path)}"
    if request.param == "abstract" and sys.platform != "linux":
        pytest.skip("abstract names are Linux's")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind("\0" + address[1:] if address.startswith("@") else address)
        yield Systemd(bound, address)


def board(interval: float = 0.0) -> Board:
    return Board(State("one", "2026-11-29T00:00:00Z", interval, Sourced("")))


def environ(address: str, **words: object) -> dict[str, str]:
    return {"NOTIFY_SOCKET": address, **{name: str(value) for name, value in words.items()}}


def test_it_is_told_the_begin_signs_of_life_and_the_end(systemd: Systemd) -> None:
    supervisor = Supervisor.read(environ(systemd.address, WATCHDOG_USEC=300_000, WATCHDOG_PID=os.getpid()))
    with supervisor.watching(board()):
        assert systemd.heard() == ["READY=1", "STATUS=in the first cycle"]
        began = time.monotonic()
        assert [systemd.heard() for _ in range(4)] == [["WATCHDOG=1"]] * 4
        assert time.monotonic() - began > 0.25, "three times within the limit, not more"
    while (words := systemd.heard()) == ["WATCHDOG=1"]:
        pass
    assert words == ["STOPPING=1"]
    assert systemd.heard(0.3) in ([], ["WATCHDOG=1"])
    assert systemd.heard(0.3) == []


def test_a_hung_loop_is_fed_no_more_until_a_cycle_ends(systemd: Systemd) -> None:
    supervisor = Supervisor(systemd.address, limit=0.06, least=0.3)
    watched = board(interval=0.05)
    with supervisor.watching(watched):
        assert systemd.heard()[0] == "READY=1"
        until, words = time.monotonic() + 20, []
        while time.monotonic() < until and (words := systemd.heard()) == ["WATCHDOG=1"]:
            pass
        assert words == ["STATUS=hangs: no cycle has ended for 0 seconds: more than 3 intervals of 0.05 seconds"]
        assert "WATCHDOG=1" not in [word for _ in range(3) for word in systemd.heard()]
        watched.publish(watched.state, ended=False)
        assert "WATCHDOG=1" not in [word for _ in range(3) for word in systemd.heard()], "only a cycle's end counts"
        watched.publish(watched.state, ended=True)
        assert ["WATCHDOG=1"] in [systemd.heard() for _ in range(3)]


def test_a_short_interval_does_not_make_a_long_cycle_a_hung_one() -> None:
    assert Supervisor.read({}).least >= 3 * 300, "compose up alone may take 300 seconds"


@pytest.mark.parametrize(
    "words",
    [
        {},
        {"WATCHDOG_USEC": "300000"},
        {"NOTIFY_SOCKET": "/nowhere/at/all"},
        {"NOTIFY_SOCKET": "vsock:2:1234"},
        {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "300000", "WATCHDOG_PID": "1"},
        {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "soon"},
    ],
)
def test_nobody_there_is_no_trouble(words: dict[str, str]) -> None:
    with Supervisor.read(words).watching(board()):
        pass
    until = time.monotonic() + 10
    while "watchdog" in [thread.name for thread in threading.enumerate()]:
        assert time.monotonic() < until
        time.sleep(0.01)


def test_another_process_s_watchdog_is_not_ours(systemd: Systemd) -> None:
    assert Supervisor.read(environ(systemd.address, WATCHDOG_USEC=1000, WATCHDOG_PID=1)).limit == 0.0
    assert Supervisor.read(environ(systemd.address, WATCHDOG_USEC=2_000_000)).limit == 2.0


def test_the_daemon_says_so_and_ends_with_143(systemd: Systemd, tmp_path: Path) -> None:
    """SuccessExitStatus=143 in the unit: a signal's end is no failure."""
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "reconciler.yaml").write_text("version: 1\nstack: one\n")
    command = [sys.executable, "-m", "reconciler", "daemon", "--state", str(tmp_path / "state")]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command += ["--data", str(tmp_path / "data"), "--listen", f"127.0.0.1:{port}"]
    words = environ(systemd.address, WATCHDOG_USEC=1_000_000)
    with subprocess.Popen(command, env={**os.environ, **words}, stderr=subprocess.PIPE, text=True) as daemon:
        heard: list[str] = []
        while "STATUS=cycle 1: nothing, 0 pending" not in heard or "WATCHDOG=1" not in heard:
            more = systemd.heard(60)
            assert more, (heard, daemon.poll())
            heard += more
        assert heard[0] == "READY=1"
        daemon.send_signal(signal.SIGTERM)
        while "STOPPING=1" not in systemd.heard(60):
            pass
        daemon.communicate(timeout=60)
    assert daemon.returncode == 143
