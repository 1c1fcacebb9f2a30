"""The page and its neighbours, asked over real sockets: who gets what, within which bounds, and that it ends."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from daemon import states

from reconciler.daemon import board as boards
from reconciler.daemon import site as sites
from reconciler.daemon.board import Bell, Board
from reconciler.daemon.document import document
from reconciler.daemon.metrics import Tally
from reconciler.daemon.state import Cause, Sourced, State
from reconciler.daemon.web import serve
from reconciler.problem import ReconcilerError

TOKEN = "token-of-the-daemon"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


class Answer:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status, self.headers, self.body = response.status, response.headers, response.read()

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        return json.loads(self.body)


class Daemon:
    """A board with its page, and what was rung and reported."""

    def __init__(self, state: State, **options: Any) -> None:
        self.tally = Tally()
        self.board, self.bell, self.unexpected = Board(state, self.tally.take), Bell(), list[Exception]()
        known: dict[str, Any] = {"listen": ("127.0.0.1", 0), "token": TOKEN}
        known |= {"unexpected": self.unexpected.append, "tally": self.tally}
        self.server = serve(self.board, self.bell, **known | options)

    def ask(self, path: str = "/", method: str = "GET", body: bytes | None = None, **headers: str) -> Answer:
        with contextlib.closing(http.client.HTTPConnection(*self.server.address, timeout=20)) as connection:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            return Answer(connection.getresponse())

    def connect(self) -> socket.socket:
        return socket.create_connection(self.server.address, timeout=20)

    def raw(self, sent: bytes) -> bytes:
        """Send bytes as they are and return the beginning of what comes back; nothing where we are hung up on."""
        with self.connect() as connection, contextlib.suppress(ConnectionError):
            connection.sendall(sent)
            return connection.recv(65536)
        return b""


@contextlib.contextmanager
def running(state: State, **options: Any) -> Iterator[Daemon]:
    daemon = Daemon(state, **options)
    try:
        yield daemon
    finally:
        daemon.server.close()


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    with running(states.calm()) as made:
        yield made
        assert made.unexpected == []


# ------------------------------------------------------------------------------------------------------ what is told
def test_the_page_tells_what_a_person_asks(daemon: Daemon) -> None:
    page = daemon.ask().text
    for said in ("Everything is as desired", "Grace &lt;grace@mana.how&gt;", "Give the forum an account"):
        assert said in page
    for item in states.RESOURCES:
        assert item.address in page
    daemon.board.publish(states.troubled(), ended=True)
    page = daemon.ask().text
    for said in ("say so with --allow-deletes", "192.0.2.1", "was found empty and restored", "waits for a person"):
        assert said in page
    daemon.board.publish(states.suspended(), ended=True)
    assert "Suspended by ada@desk" in daemon.ask().text


def test_json_has_the_values_of_reconciler_status(daemon: Daemon) -> None:
    answer = daemon.ask("/status.json")
    assert answer.headers["Content-Type"].startswith("application/json")
    told, known = answer.json(), document(daemon.board.state, datetime.now(UTC))
    assert abs(told["source"].pop("age") - known["source"].pop("age")) < 60
    assert told == json.loads(json.dumps(known))


def test_what_has_not_changed_is_not_rendered_again(daemon: Daemon) -> None:
    first = daemon.ask()
    tag = first.headers["ETag"]
    same = daemon.ask(If_None_Match=tag)
    assert (same.status, same.body) == (304, b"")
    daemon.board.publish(states.drifted(), ended=True)
    changed = daemon.ask(If_None_Match=tag)
    assert changed.status == 200
    assert "1 change is left to make in Cloudflare" in changed.text


def test_secrets_that_were_revealed_are_replaced_everywhere() -> None:
    state = replace(states.calm(), stack="mana", source=replace(states.calm().source, where="git word-of-secret"))
    with running(state, redact=lambda text: text.replace("word-of-secret", "{env: X}")) as daemon:
        for path in ("/", "/status.json"):
            assert "word-of-secret" not in daemon.ask(path).text
            assert "{env: X}" in daemon.ask(path).text


def test_names_with_html_are_harmless() -> None:
    with running(states.troubled()) as daemon:
        answer = daemon.ask()
        assert "<img" not in answer.text
        assert "<script>" not in answer.text
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy


def test_a_large_stack_does_not_make_an_endless_page() -> None:
    many = states.facts(*(states.record(f"host-{number}") for number in range(5000)))
    with running(states.calm(facts=many)) as daemon:
        page = daemon.ask().text
        assert "4700 more as desired" in page
        assert len(page) < 300_000
        assert len(daemon.ask("/status.json").json()["resources"]) == 5000


# ------------------------------------------------------------------------------------------------------------ health
def test_health_fails_when_no_cycle_ends_for_three_intervals() -> None:
    with running(states.calm(interval=0.2)) as daemon:
        assert daemon.ask("/healthz").json() == {"status": "ok"}
        deadline = time.monotonic() + 10
        while (answer := daemon.ask("/healthz")).status == 200:
            assert time.monotonic() < deadline
            daemon.board.publish(daemon.board.state)  # that something is published is no sign of life
            time.sleep(0.05)
        assert answer.status == 503
        assert "no cycle has ended for" in answer.json()["reason"]
        assert "seems to hang" in daemon.ask().text
        daemon.board.publish(daemon.board.state, ended=True)
        assert daemon.ask("/healthz").status == 200


def test_health_fails_of_a_long_cycle_only_where_its_waits_do_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boards, "_BETWEEN", 0.2)
    with running(states.calm(interval=0.05)) as daemon:
        until = time.monotonic() + 1.5
        while time.monotonic() < until:  # ten times as long as three intervals
            daemon.board.expect(0.1)
            assert daemon.ask("/healthz").status == 200
            assert "seems to hang" not in daemon.ask().text
        daemon.board.expect(0.1)
        hung = time.monotonic()
        while daemon.ask("/healthz").status == 200:
            assert time.monotonic() < hung + 10
        assert time.monotonic() >= hung + 0.3, "the wait, and what comes of it, had this long"
        daemon.board.expect(60)
        assert daemon.ask("/healthz").status == 200
        daemon.board.publish(daemon.board.state, ended=True)
        eventually = time.monotonic() + 10
        while daemon.ask("/healthz").status == 200:  # what was granted was that cycle's
            assert time.monotonic() < eventually


def test_health_fails_of_a_cycle_that_goes_on_and_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boards, "_LONGEST", 0.5)
    with running(states.calm(interval=0.05)) as daemon:
        until = time.monotonic() + 10
        while daemon.ask("/healthz").status == 200:
            daemon.board.expect(60)
            assert time.monotonic() < until


def test_a_daemon_that_has_just_begun_is_no_hung_one() -> None:
    with running(State("", "2026-11-28T12:00:00Z", 0.0, Sourced(""))) as daemon:
        assert daemon.ask("/healthz").status == 200
        assert daemon.ask("/readyz").status == 503
        assert daemon.ask("/metrics").status == 200
        assert daemon.ask().status == 200


def test_it_is_ready_once_a_cycle_ended_and_something_good_is_known() -> None:
    with running(states.calm(cycle=None)) as daemon:
        assert (daemon.ask("/readyz").status, daemon.ask("/healthz").status) == (503, 200)
        daemon.board.publish(states.calm(source=replace(states.calm().source, revision=None)), ended=True)
        assert daemon.ask("/readyz").json() == {"status": "failed", "reason": "no good revision is known"}
        daemon.board.publish(states.calm(), ended=True)
        assert daemon.ask("/readyz").json() == {"status": "ok"}


# ---------------------------------------------------------------------------------------------------------- requests
def test_a_request_with_the_token_wakes_the_loop(daemon: Daemon) -> None:
    answer = daemon.ask("/reconcile", "POST", **BEARER)
    assert answer.status == 202
    assert daemon.bell.wait(0) is Cause.REQUEST


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({**BEARER, "Origin": "https://evil.example"}, 403),
        ({**BEARER, "Host": "evil.example"}, 403),
    ],
)
def test_nobody_else_wakes_it(daemon: Daemon, headers: dict[str, str], status: int) -> None:
    answer = daemon.ask("/reconcile", "POST", **headers)
    assert answer.status == status
    assert answer.json()["reason"]
    assert TOKEN not in answer.text
    assert daemon.bell.wait(0) is None


def test_whoever_is_not_on_this_machine_needs_the_token() -> None:
    with running(states.calm(), listen=("0.0.0.0", 0)) as daemon:
        daemon.server.address = ("127.0.0.1", daemon.server.address[1])
        for path in ("/", "/status.json", "/metrics", "/page.js", "/nothing"):
            assert daemon.ask(path).status == 401
            assert "mana" not in daemon.ask(path).text
        assert daemon.ask().headers["WWW-Authenticate"].startswith("Basic ")
        assert daemon.ask("/healthz").json() == {"status": "ok"}
        assert daemon.ask("/", **BEARER).status == 200


def test_a_proxy_that_hides_that_it_is_one_speaks_for_everybody(daemon: Daemon) -> None:
    """As nginx with `proxy_pass` alone: a loopback name as host, no header of its own, and HTTP/1.0."""
    for login, status in (("", b"401"), (f"Authorization: Bearer {TOKEN}\r\n", b"200")):
        with socket.create_connection(daemon.server.address, timeout=20) as proxy:
            proxy.sendall(f"GET / HTTP/1.0\r\nHost: 127.0.0.1:9780\r\nConnection: close\r\n{login}\r\n".encode())
            assert proxy.makefile("rb").readline().split()[1] == status


@pytest.mark.parametrize("header", ["X-Forwarded", "CDN-Loop", "X-Cluster-Client-IP", "Max-Forwards", "X-ARR-LOG-ID"])
def test_a_proxy_that_says_so_in_a_word_of_its_own_needs_the_token(daemon: Daemon, header: str) -> None:
    assert daemon.ask("/", **{header: "1"}).status == 401


def test_what_is_not_there_is_told_as_json(daemon: Daemon) -> None:
    for path, method, status in (("/nothing", "GET", 404), ("/", "DELETE", 401), ("/reconcile", "GET", 405)):
        answer = daemon.ask(path, method)
        assert answer.status == status
        assert answer.json()["reason"]
    assert daemon.ask("/status.json", "PUT", **BEARER).status == 405
    assert "Server" not in daemon.ask().headers


def test_no_page_may_frame_or_fetch_ours(daemon: Daemon) -> None:
    headers = daemon.ask().headers
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["Cache-Control"] == "no-store"
    assert "Access-Control-Allow-Origin" not in headers


# ------------------------------------------------------------------------------------------------------------ bounds
def test_a_large_head_or_body_is_refused(daemon: Daemon) -> None:
    assert b" 200 " not in daemon.raw(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 40_000 + b"\r\n\r\n")
    head = f"POST /reconcile HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
    assert b" 202 " not in daemon.raw(f"{head}Content-Length: 999999999\r\n\r\n".encode())
    assert b" 202 " not in daemon.raw(f"{head}Content-Length: 9000\r\n\r\n".encode() + b"x" * 9000)
    assert daemon.bell.wait(0) is None
    assert daemon.ask().status == 200


def test_who_sends_slowly_is_hung_up_on_and_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sites._BOUNDS, "idle_connection_timeout", 0.5)
    with running(states.calm()) as daemon, contextlib.ExitStack() as opened:
        slow = [opened.enter_context(daemon.connect()) for _ in range(10)]
        began = time.monotonic()
        for connection in slow:
            connection.sendall(b"GET / HTTP/1.1\r\n")
        assert daemon.ask().status == 200
        while time.monotonic() - began < 5:
            with contextlib.suppress(OSError):
                for connection in slow:
                    connection.sendall(b"X: y\r\n")
            time.sleep(0.1)
            if all(_is_closed(connection) for connection in slow):
                break
        assert time.monotonic() - began < 4


def _is_closed(connection: socket.socket) -> bool:
    connection.settimeout(0.02)
    try:
        return connection.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def test_who_does_not_read_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sites, "_LONGEST", 0.5)
    large = states.facts(*(states.record(f"host-{number}") for number in range(100)), place="x" * 100_000)
    with running(states.calm(facts=large)) as daemon, socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # or the kernel takes all of it for us
        connection.settimeout(20)
        connection.connect(daemon.server.address)
        connection.sendall(b"GET /status.json HTTP/1.1\r\nHost: localhost\r\n\r\n")
        connection.recv(1, socket.MSG_PEEK)
        time.sleep(2.5)
        got = b""
        with contextlib.suppress(ConnectionError):
            while piece := connection.recv(1 << 20):
                got += piece
        length = int(got.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        assert len(got) < length


def test_who_holds_all_connections_shuts_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is an end to how many are connected: the oldest goes. An answer takes no time in which it would get old."""
    monkeypatch.setattr(sites, "_MOST", 5)
    with running(states.calm()) as daemon, contextlib.ExitStack() as opened:
        idle = [opened.enter_context(daemon.connect()) for _ in range(5)]
        for connection in idle:
            connection.sendall(b"GET / HT")
        time.sleep(0.2)
        assert daemon.ask().status == 200
        assert _is_closed(idle[0])
        assert not any(map(_is_closed, idle[1:]))
        idle.append(opened.enter_context(daemon.connect()))  # in the place of the one that was answered
        assert daemon.ask().status == 200
        assert [_is_closed(connection) for connection in idle] == [True, True, False, False, False, False]


def test_nonsense_is_answered_or_hung_up_on(daemon: Daemon) -> None:
    for sent in (
        b"\x16\x03\x01\x02\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"A" * 100_000,
        b"\0" * 50 + b"\r\n\r\n",
    ):
        assert b" 200 " not in daemon.raw(sent)
    assert daemon.ask().status == 200


# ------------------------------------------------------------------------------------------------- beginning and end
def test_a_bug_while_rendering_is_reported_and_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with running(states.calm()) as daemon:
        daemon.ask()

        def broken(*_: object) -> str:
            raise RuntimeError(states.CANARY)

        monkeypatch.setattr("reconciler.daemon.page.render", broken)
        answer = daemon.ask()
        assert answer.status == 500
        assert states.CANARY not in answer.text
        assert [str(item) for item in daemon.unexpected] == [states.CANARY]
        assert daemon.ask("/healthz").status == 200


def test_it_ends_at_once_and_leaves_nothing_behind() -> None:
    for asked in (False, True):
        before = set(threading.enumerate())
        daemon = Daemon(states.calm())
        if asked:
            assert daemon.ask().status == 200
        idle = daemon.connect() if asked else None
        began = time.monotonic()
        daemon.server.close()
        assert time.monotonic() - began < 3
        assert set(threading.enumerate()) <= before
        with pytest.raises(OSError):
            daemon.connect()
        if idle:
            idle.close()


def test_an_address_that_is_taken_is_an_error_that_names_it(daemon: Daemon) -> None:
    with pytest.raises(ReconcilerError, match=r"--listen 127\.0\.0\.1:\d+: can't listen there: Address already in use"):
        serve(daemon.board, daemon.bell, daemon.server.address, None)


def test_no_page_without_a_token_beyond_this_machine() -> None:
    with pytest.raises(ReconcilerError, match="it needs a token"):
        serve(Board(states.calm()), Bell(), ("0.0.0.0", 0), None)


def test_a_page_that_nobody_opens_costs_nothing() -> None:
    script = """
import sys, http.client
from daemon import states
from reconciler.daemon.board import Bell, Board
from reconciler.daemon.metrics import Tally
from reconciler.daemon.web import serve
tally = Tally()
server = serve(Board(states.calm(), tally.take), Bell(), ("127.0.0.1", 0), None, tally=tally)
heavy = {"tornado", "jinja2", "prometheus_client"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
def ask(path):
    connection = http.client.HTTPConnection(*server.address); connection.request("GET", path)
    assert connection.getresponse().status == 200
ask("/healthz")
assert heavy & set(sys.modules) == {"tornado"}, heavy & set(sys.modules)
ask("/metrics"); ask("/")
server.close()
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd="tests", timeout=60)
