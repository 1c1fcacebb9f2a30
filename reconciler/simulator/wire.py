"""HTTP for the fakes: a small threaded server that counts, delays and breaks answers on purpose.

A fake is a callable from `Request` to `Reply`. Everything a network can do to an answer (a delay, a lost answer, a
429, a cut listing) is a `Fault` put on the server by a test, so that no fake needs to know about faults.
"""

from __future__ import annotations

import contextlib
import json
import re
import selectors
import socket
import socketserver
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass(frozen=True, slots=True)
class Request:
    """What a client sent. ``path`` is percent-decoded and without its query; ``raw_path`` is as it was sent."""

    method: str
    path: str
    raw_path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]  # names in lower case
    body: bytes
    client: str

    def json(self) -> Any:
        """Parse the body; raises ValueError when it is not JSON."""
        return json.loads(self.body)

    def first(self, name: str, default: str = "") -> str:
        """Return a query parameter's first value."""
        values = self.query.get(name)
        return values[0] if values else default


@dataclass(frozen=True, slots=True)
class Reply:
    """What a fake answers. ``stream`` takes over the socket after the head was sent (Docker's hijacked calls)."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    stream: Callable[[socket.socket], None] | None = None

    @classmethod
    def of(cls, value: Any, status: int = 200, content_type: str = "application/json", **headers: str) -> Reply:
        """Make a reply of a JSON value."""
        return cls(status, json.dumps(value).encode(), content_type, headers)


class Hangup(Exception):
    """Raised by a fake that closes the connection without a byte, as Stalwart does with a banned address."""


@dataclass(slots=True)
class Fault:
    """What happens to the next ``times`` requests that match: nothing else of the server changes.

    ``reply`` answers without asking the fake; ``lose`` lets the fake do the work and then drops the answer;
    ``refuse`` drops the connection before the work; ``change`` rewrites the fake's answer; ``delay`` is in seconds.
    """

    method: str = ""
    path: str = ""  # a regular expression, searched in the raw path
    times: int = 1
    after: int = 0  # let this many matching requests pass first
    reply: Reply | None = None
    lose: bool = False
    refuse: bool = False
    change: Callable[[Reply], Reply] | None = None
    delay: float = 0.0

    def matches(self, request: Request) -> bool:
        """Say whether this request is meant, and use up one of ``after`` or ``times``."""
        if self.method not in ("", request.method) or not re.search(self.path, request.raw_path) or self.times <= 0:
            return False
        if self.after > 0:
            self.after -= 1
            return False
        self.times -= 1
        return True


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "simulator"
    sys_version = ""
    server: _ThreadingServer

    def setup(self) -> None:
        super().setup()
        with contextlib.suppress(OSError):  # not on a Unix socket
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError, TimeoutError):
            super().handle()

    def address_string(self) -> str:
        return self.client_address[0] if isinstance(self.client_address, tuple) else "local"

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent: tests and the demo print what matters."""

    def _answer(self) -> None:
        request = self._request()
        try:
            reply = self.server.owner.answer(request)
        except Hangup:
            self.close_connection = True
            self.connection.close()
            return
        self._send(reply)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = _answer  # noqa: N815 (http.server's names)

    def _request(self) -> Request:
        split = urlsplit(self.path)
        if "chunked" in self.headers.get("transfer-encoding", ""):
            body = b"".join(self._chunks())
        else:
            length = int(self.headers.get("content-length") or 0)
            body = self.rfile.read(length)
            if len(body) < length:  # no server carries out half a request
                raise ConnectionResetError
        return Request(
            method=self.command,
            path=unquote(split.path),
            raw_path=self.path,
            query=parse_qs(split.query, keep_blank_values=True),
            headers={name.lower(): value for name, value in self.headers.items()},
            body=body,
            client=self.address_string(),
        )

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline().split(b";")[0], 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def _send(self, reply: Reply) -> None:
        if reply.status == 101:
            head = ["HTTP/1.1 101 UPGRADED"]
        else:
            head = [f"HTTP/1.1 {reply.status} {self.responses.get(reply.status, ('',))[0]}"]
        if reply.stream is None:
            head += [f"Content-Length: {len(reply.body)}"]
        if reply.content_type:
            head += [f"Content-Type: {reply.content_type}"]
        head += [f"{name.replace('_', '-')}: {value}" for name, value in reply.headers.items()]
        # One write for head and body: two would meet Nagle and delayed acknowledgement, 40 ms a request.
        body = b"" if self.command == "HEAD" else reply.body
        self.wfile.write("\r\n".join([*head, "", ""]).encode() + body)
        if reply.stream is not None:
            reply.stream(self.connection)
            self.close_connection = True


class Prompt(socketserver.TCPServer):
    """Ends as soon as it is told to, and wakes for requests alone; the library's servers poll for their end."""

    def __init__(self, *args: Any, **options: Any) -> None:
        """Have what tells the end before there is a server that may be closed again."""
        self._told, self._bell = socket.socketpair()
        self._over = threading.Event()
        super().__init__(*args, **options)

    def serve_forever(self, poll_interval: float = 0.0) -> None:
        """Handle requests until `shutdown`; there is nothing to poll."""
        try:
            with selectors.PollSelector() as waiting:  # as the library: it takes no descriptor
                for end in (self, self._told):
                    waiting.register(end, selectors.EVENT_READ)
                while self._told not in [key.fileobj for key, _ in waiting.select()]:
                    self._handle_request_noblock()  # type: ignore[attr-defined]  # as the library does
        finally:
            self._over.set()

    def shutdown(self) -> None:
        """End `serve_forever`, which another thread runs or is about to, and wait for that."""
        self._bell.send(b"-")
        self._over.wait()

    def server_close(self) -> None:
        """Free the address."""
        super().server_close()
        self._told.close()
        self._bell.close()


class _ThreadingServer(Prompt, socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128
    block_on_close = False
    owner: Server

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep a client's broken connection out of the output; a fake's own bug is kept for the test to see."""
        import sys

        error = sys.exc_info()[1]
        if not isinstance(error, ConnectionError | OSError | ValueError):
            self.owner.crashes.append(error)


class _UnixServer(_ThreadingServer):
    address_family = socket.AF_UNIX

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, _ = super().get_request()
        return connection, ("local", 0)


class Server:
    """Serves a fake on a loopback port (or a Unix socket) until it is stopped.

    ``latency`` is added to every answer, in seconds. ``counts`` counts requests as ``"GET /path"`` without queries;
    ``requests`` holds the last ones whole.
    """

    def __init__(
        self,
        fake: Callable[[Request], Reply],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        unix: Path | None = None,
        latency: float = 0.0,
    ) -> None:
        """Bind the address at once, so that ``url`` is known before the server is started."""
        self.fake = fake
        self.latency = latency
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.counts: Counter[str] = Counter()
        self.crashes: list[BaseException | None] = []
        self._lock = threading.Lock()
        self._server: _ThreadingServer
        if unix is None:
            self._server = _ThreadingServer((host, port), _Handler)
            self.port: int = self._server.server_address[1]
            self.url = f"http://{host}:{self.port}"
        else:
            self._server = _UnixServer(str(unix), _Handler)
            self.port = 0
            self.url = f"unix://{unix}"
        self._server.owner = self
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def answer(self, request: Request) -> Reply:
        """Count the request, ask the fake, and let the faults have their way. Raises `Hangup`."""
        with self._lock:
            self.requests.append(request)
            self.counts[f"{request.method} {request.path}"] += 1
            fault = next((fault for fault in self.faults if fault.matches(request)), None)
        if self.latency or (fault and fault.delay):
            time.sleep(self.latency + (fault.delay if fault else 0))
        if fault is None:
            return self.fake(request)
        if fault.refuse:
            raise Hangup
        if fault.reply is not None:
            return fault.reply
        reply = self.fake(request)
        if fault.lose:
            raise Hangup
        return fault.change(reply) if fault.change else reply

    def writes(self) -> list[str]:
        """List the requests that may have changed something, as ``"METHOD /path"``."""
        return [f"{item.method} {item.path}" for item in self.requests if item.method not in ("GET", "HEAD", "OPTIONS")]

    def forget(self) -> None:
        """Forget the requests seen so far."""
        with self._lock:
            self.requests.clear()
            self.counts.clear()

    def start(self) -> Self:
        """Serve in a thread of its own."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop serving and free the address."""
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
