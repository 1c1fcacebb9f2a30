"""An engine that is not there, restarts, hangs or talks nonsense is no error: what it tells are hints."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.daemon.board import Bell
from reconciler.daemon.events import Watched, Watcher
from reconciler.daemon.state import Cause
from reconciler.simulator.docker import Docker
from reconciler.simulator.wire import Server


def eventually(true: Callable[[], object], seconds: float = 15.0) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.02)


def descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


@contextlib.contextmanager
def watching(host: str, *names: str) -> Iterator[tuple[Watcher, Bell]]:
    """A watcher that ends within a second, and leaves neither thread nor socket."""
    bell = Bell()
    before = descriptors()
    watcher = Watcher(host, bell)
    watcher.watch(names)
    watcher.start()
    try:
        yield watcher, bell
    finally:
        began = time.monotonic()
        watcher.close()
        assert time.monotonic() - began < 1.0
        assert "engine-events" not in [thread.name for thread in threading.enumerate()]
    eventually(lambda: descriptors() <= before, 2)  # the fake's own end is closed by its thread


def test_a_socket_that_appears_later_is_heard(tmp_path: Path) -> None:
    path = tmp_path / "docker.sock"
    with watching(f"unix://{path}", "mail") as (watcher, bell):
        time.sleep(1.2)
        assert not watcher.listening
        fake = Docker()
        with Server(fake, unix=path):
            eventually(lambda: watcher.listening)
            fake.run("mail", "stalwart")
            assert bell.wait(5) is Cause.ENGINE
            fake.end_streams()


def test_an_engine_that_restarts_is_heard_again(tmp_path: Path) -> None:
    path = tmp_path / "docker.sock"
    fake = Docker()
    with Server(fake, unix=path):
        manager = watching(f"unix://{path}", "mail")
        watcher, bell = manager.__enter__()
        eventually(lambda: watcher.listening)
    fake.end_streams()
    path.unlink()
    eventually(lambda: not watcher.listening)
    with Server(fake, unix=path):
        fake.run("mail", "stalwart")  # while nobody listens
        assert bell.wait(10) is Cause.ENGINE  # as the engine remembers it
        fake.end_streams()
        manager.__exit__(None, None, None)


def test_many_events_are_few_rings() -> None:
    fake = Docker()
    fake.run("mail", "stalwart")
    with Server(fake) as server, watching(server.url.replace("http", "tcp"), "mail") as (watcher, bell):
        eventually(lambda: watcher.listening)
        began, rings = time.monotonic(), 0
        for _ in range(40):
            fake._tell(fake.named("mail"), "start")
        while bell.wait(2.0) is not None:
            rings += 1
        assert 2 <= rings <= 2 + (time.monotonic() - began - 2.0)  # at once, then each second, and when it was over


GARBAGE = [
    b"",
    b"SSH-2.0-OpenSSH\r\n",
    b"HTTP/1.1 500 no\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{not json",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"HTTP/1.1 200 OK\r\nDate: never\r\n\r\n[]\n",
    b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 100_000 + b"\n",
    b'HTTP/1.1 200 OK\r\n\r\n{"timeNano": 1, "Type": "container", "Action": 3, "Actor": []}\n',
    b'HTTP/1.1 200 OK\r\n\r\n{"timeNano": 1e999, "Type": "container"}\n',
    b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000,
    b"HTTP/1.1 101 Switching Protocols\r\n\r\n\x00\x01",
]


@contextlib.contextmanager
def speaking(said: bytes | None, *, close: bool) -> Iterator[tuple[str, list[socket.socket]]]:
    """An engine that says one thing to everybody; with None it accepts nobody."""
    taken: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0), backlog=0 if said is None else 8) as server:
        if said is None:
            fillers = [socket.socket() for _ in range(4)]
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(server.getsockname())

        def serve() -> None:
            with contextlib.suppress(OSError):
                while said is not None:
                    connection, _ = server.accept()
                    taken.append(connection)
                    with contextlib.suppress(OSError):
                        connection.sendall(said)
                    if close:
                        connection.close()

        threading.Thread(target=serve, daemon=True).start()
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}", taken
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
    for connection in [*taken, *(fillers if said is None else [])]:
        connection.close()


@pytest.mark.parametrize("close", [True, False])
@pytest.mark.parametrize("said", GARBAGE, ids=range(len(GARBAGE)))
def test_nonsense_is_borne_and_asked_again_later(said: bytes, close: bool) -> None:
    with speaking(said, close=close) as (host, taken):
        watcher = Watcher(host, Bell())
        watcher.start()
        eventually(lambda: taken)
        time.sleep(0.3)
        began = time.monotonic()
        watcher.close()
        assert time.monotonic() - began < 1.0
        assert "engine-events" not in [thread.name for thread in threading.enumerate()]
        assert len(taken) < 4  # it is not asked without a pause


def test_one_that_accepts_nobody_holds_nothing_up() -> None:
    with speaking(None, close=False) as (host, _), watching(host):
        time.sleep(0.3)


def test_one_line_without_end_is_dropped() -> None:
    endless = b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (3 << 20)
    with speaking(endless, close=False) as (host, taken):
        watcher = Watcher(host, Bell())
        watcher.start()
        eventually(lambda: len(taken) >= 2)  # so the first line was given up
        watcher.close()


def test_no_such_engine_is_no_error() -> None:
    for host in ("tcp://256.0.0.1:1", "nonsense://", "unix:///nonexistent"):
        with watching(host) as (watcher, bell):
            assert bell.wait(0.3) is None
            assert not watcher.listening


@given(
    kind=st.sampled_from(["container", "volume", "network"]),
    action=st.sampled_from(["start", "create", "exec_start: x", "health_status: healthy", "destroy", "mount"]),
    name=st.sampled_from(["mail", "web", "mana_data", "manager_data"]),
    label=st.sampled_from(["", "mana", "other"]),
)
def test_what_matters(kind: str, action: str, name: str, label: str) -> None:
    said = {"name": name} | ({"com.docker.compose.project": label} if label else {})
    event = json.loads(json.dumps({"Type": kind, "Action": action, "Actor": {"ID": name, "Attributes": said}}))
    container = (name == "mail" or label == "mana") and action in ("start", "destroy", "health_status: healthy")
    volume = name == "mana_data" and action in ("create", "destroy")
    wanted = {"container": container, "volume": volume}.get(kind, False)
    assert Watched(frozenset({"mail"}), "mana").has(event) is wanted
