"""One client: what became of a request that got no answer, and answers within bounds."""

from __future__ import annotations

import gzip
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest

from reconciler import http
from reconciler.url import parse

BOUNDS = http.Bounds(1000, seconds=0.5, silence=0.3)


class Server:
    """Says the same to everyone who asks, in pieces with a pause between them, and closes."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.pause = 0.0
        self.asked = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                _take(connection)
                self.asked += 1
                try:
                    for piece in self.pieces:
                        connection.sendall(piece)
                        time.sleep(self.pause)
                except OSError:
                    continue

    def close(self) -> None:
        self._socket.close()


def _take(connection: socket.socket) -> None:
    """Read a whole request: what is left unread when a connection is closed resets it."""
    data = b""
    while b"\r\n\r\n" not in data and (piece := connection.recv(65536)):
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    length = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
    while len(body) < length and (piece := connection.recv(65536)):
        body += piece


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.fixture
def client(server) -> Iterator[httpx.Client]:
    with http.client(parse(server.url), BOUNDS, headers={"connection": "close"}) as made:
        yield made


def test_an_answer_is_an_answer_whatever_its_status_and_no_redirect_is_followed(server, client) -> None:
    server.pieces = [b"HTTP/1.1 307 Temporary\r\nLocation: /elsewhere\r\nContent-Length: 13\r\n\r\n", b'{"title":"no"}']
    answer = http.exchange(client, "POST", "/", content=b"{}")
    assert (answer.status, answer.headers["location"], server.asked) == (307, "/elsewhere", 1)
    assert answer.json() is None, "an answer cut short is none"
    server.pieces = [b"HTTP/1.1 404 No\r\nContent-Length: 14\r\n\r\n", b'{"title":"no"}']
    assert http.exchange(client, "GET", "/").word("title") == "no"


def test_where_nobody_listens_nothing_was_sent() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = parse(f"http://127.0.0.1:{unused.getsockname()[1]}")
        with http.client(address, BOUNDS) as client, pytest.raises(http.Unsent) as caught:
            http.exchange(client, "POST", "/")
    assert not http.timed_out(caught.value)
    assert http.cause(caught.value, ConnectionRefusedError)


@pytest.mark.parametrize(
    "pieces", [[], [b"220 mail.example ESMTP\r\n"], [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"]]
)
def test_what_breaks_off_may_have_been_carried_out(server, client, pieces) -> None:
    server.pieces = pieces
    with pytest.raises(http.Lost):
        http.exchange(client, "POST", "/")
    assert server.asked == 1, "nothing is sent twice"


def test_silence_is_a_lost_answer_that_timed_out(server, client) -> None:
    server.pieces, server.pause = [b"HTTP/1.1 200 OK\r\n"], 1.0
    with pytest.raises(http.Lost) as caught:
        http.exchange(client, "GET", "/")
    assert http.timed_out(caught.value)


def test_an_answer_may_not_be_larger_than_its_bound_packed_or_not(server, client) -> None:
    packed = gzip.compress(bytes(5000))
    assert len(packed) < BOUNDS.largest
    for head, content in (
        (b"Content-Length: 5000", b""),
        (b"Connection: close", bytes(5000)),
        (b"Content-Encoding: gzip\r\nContent-Length: %d" % len(packed), packed),
    ):
        server.pieces = [b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n", content]
        with pytest.raises(http.Endless):
            http.exchange(client, "GET", "/")


@pytest.mark.parametrize("coding", [b"gzip", b"x-gzip", b"GZIP", b"identity, gzip"])
def test_a_packed_answer_is_unpacked_once(server, client, coding: bytes) -> None:
    for status, said in ((b"200 OK", b'{"title":"yes"}'), (b"403 No", b'{"title":"no"}')):
        packed = gzip.compress(said)
        head = b"HTTP/1.1 %s\r\nContent-Encoding: %s\r\nContent-Length: %d\r\n\r\n" % (status, coding, len(packed))
        server.pieces = [head + packed]
        answer = http.exchange(client, "GET", "/")
        assert (answer.status, answer.body) == (int(status[:3]), said)


def test_an_answer_that_drips_has_an_end(server, client) -> None:
    server.pieces, server.pause = [b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n", *[b"x"] * 900], 0.05
    began = time.monotonic()
    with pytest.raises(http.Endless):
        http.exchange(client, "GET", "/")
    assert time.monotonic() - began < 5


def test_how_long_to_wait() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    past = format_datetime(datetime.now(UTC) - timedelta(days=1), usegmt=True)
    assert http.retry_after({"retry-after": "7"}) == 7.0
    assert 50 < (http.retry_after({"retry-after": soon}) or 0) <= 60
    assert http.retry_after({"retry-after": past}) == 0.0
    assert http.retry_after({"x-reset": "3"}, "x-reset") == 3.0
    assert http.retry_after({"retry-after": "1", "x-reset": "3"}, "x-reset") == 1.0
    for text in ("", "soon", "-1", "٣", "9" * 30):
        assert http.retry_after({"retry-after": text}) is None, text


def test_t12_no_cookie_goes_from_one_login_to_the_next(server, client) -> None:
    server.pieces = [b"HTTP/1.1 200 OK\r\nSet-Cookie: session=of-another; Path=/\r\nContent-Length: 0\r\n\r\n"]
    assert http.exchange(client, "GET", "/").status == 200
    assert not client.cookies
