"""What answers requests: https://www.tornadoweb.org in an event loop of its own. Imported with the first of them."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any, Protocol

from tornado.httpserver import HTTPServer
from tornado.ioloop import PeriodicCallback
from tornado.iostream import IOStream
from tornado.web import Application, HTTPError, RequestHandler

from reconciler.daemon.access import Access, Asked, Refusal
from reconciler.daemon.state import Cause
from reconciler.daemon.web import Site
from reconciler.report import json

_STATIC = Path(__file__).parent / "static"
_FILES = {"page.css": "text/css", "page.js": "text/javascript", "icon.svg": "image/svg+xml"}
_MOST = 64  # connections at a time
_LONGEST = 30.0  # seconds that one may last: it carries one request
_BOUNDS: dict[str, Any] = {
    "no_keep_alive": True,
    "idle_connection_timeout": 10.0,  # for all of a head
    "body_timeout": 5.0,
    "max_header_size": 16 << 10,
    "max_body_size": 4 << 10,
    "max_buffer_size": 64 << 10,
}
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def run(site: Site, listening: socket.socket, ended: socket.socket, grace: float) -> None:
    """Answer until the other end of ``ended`` is closed, then give answers under way their ``grace`` in seconds."""
    asyncio.run(_serve(site, listening, ended, grace))


async def _serve(site: Site, listening: socket.socket, ended: socket.socket, grace: float) -> None:
    kept: dict[str, Any] = {"site": site}
    routes: list[Any] = [
        ("/", _Page, kept),
        ("/status.json", _Status, kept),
        ("/healthz", _Health, kept),
        ("/readyz", _Ready, kept),
        ("/metrics", _Metrics, kept),
        ("/reconcile", _Reconcile, kept),
    ]
    await serve_routes(kept, routes, listening, ended, grace)


async def serve_routes(
    kept: dict[str, Any], routes: list[Any], listening: socket.socket, ended: socket.socket, grace: float
) -> None:
    """Answer by some routes of `Handler` and by what every page needs; ``kept`` is what they are made with."""
    routes = [*routes, *((f"/{name}", _File, kept | {"name": name}) for name in _FILES)]
    application = Application(
        routes, default_handler_class=_Missing, default_handler_args=kept, log_function=lambda _: None
    )
    server = _Server(application, **_BOUNDS)
    for connection in (listening, ended):
        connection.settimeout(0)
    server.add_socket(listening)
    sweeping = PeriodicCallback(server.sweep, 1000)
    sweeping.start()
    await asyncio.get_running_loop().sock_recv(ended, 1)
    sweeping.stop()
    server.stop()
    await asyncio.wait([asyncio.ensure_future(server.close_all_connections())], timeout=grace)


class _Server(HTTPServer):
    """A server of few connections, none of which lasts long, however slowly its other end sends or reads."""

    def initialize(self, *args: Any, **bounds: Any) -> None:
        """Begin without a connection (tornado calls this in place of ``__init__``)."""
        super().initialize(*args, **bounds)
        self._since: dict[IOStream, float] = {}

    def handle_stream(self, stream: IOStream, address: tuple[Any, ...]) -> None:
        """Take a new connection. Where there are too many the oldest is closed: whoever holds them shuts nobody out."""
        self.sweep()
        while len(self._since) >= _MOST:
            oldest = next(iter(self._since))
            del self._since[oldest]
            oldest.close()
        self._since[stream] = time.monotonic()
        super().handle_stream(stream, address)

    def sweep(self) -> None:
        """Close what has been open for too long, and forget what is closed."""
        oldest = time.monotonic() - _LONGEST
        for stream, since in self._since.items():
            if since < oldest:
                stream.close()
        self._since = {stream: since for stream, since in self._since.items() if not stream.closed()}


class Asking(Protocol):
    """What a page is made of, as far as all answers need it."""

    @property
    def access(self) -> Access:
        """Who may ask."""

    @property
    def unexpected(self) -> Callable[[Exception], None]:
        """Hears of what should not be."""


class Handler(RequestHandler):
    """What all answers share: who may ask, and what a browser may do with the answer."""

    site: Any

    def initialize(self, site: Asking) -> None:
        """Take what the page is made of (tornado calls this in place of ``__init__``)."""
        self.site = site

    def set_default_headers(self) -> None:
        """Say what a browser may do."""
        for name, value in _HEADERS.items():
            self.set_header(name, value)
        self.clear_header("Server")

    def prepare(self) -> None:
        """Refuse who may not ask."""
        request = self.request
        headers = {name.lower(): value for name, value in request.headers.items()}
        asked = Asked(request.method or "", request.path, request.remote_ip or "", headers, request.version)
        refusal = self.site.access.refusal(asked)
        if refusal is not None:
            self._refuse(refusal)

    def _refuse(self, refusal: Refusal) -> None:
        if refusal.status == HTTPStatus.UNAUTHORIZED:
            scheme = 'Basic realm="reconciler: any name, the token as password"' if refusal.asks else "Bearer"
            self.set_header("WWW-Authenticate", scheme)
        self.tell({"status": "refused", "reason": refusal.reason}, refusal.status)

    def tell(self, body: dict[str, Any], status: int = 200) -> None:
        """Answer with JSON."""
        self.set_status(status)
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.finish(json.dumps(body))

    def write_error(self, status_code: int, **_: Any) -> None:
        """Answer what went wrong, in JSON as well."""
        self.tell({"status": "error", "reason": HTTPStatus(status_code).phrase}, status_code)

    def log_exception(self, *error: Any) -> None:
        """Tell of what should not be."""
        if isinstance(error[1], Exception) and not isinstance(error[1], HTTPError):
            self.site.unexpected(error[1])

    def data_received(self, chunk: bytes) -> None:
        """Nobody streams a body here."""


class _Missing(Handler):
    def prepare(self) -> None:
        super().prepare()
        if not self._finished:
            raise HTTPError(404)


class _Page(Handler):
    def compute_etag(self) -> str:
        return f'W/"{self.site.version}"'

    def get(self) -> None:
        self.set_etag_header()
        if self.check_etag_header():  # before anything is rendered: an open page asks every two seconds
            self.set_status(304)
            return
        from reconciler.daemon.page import render

        self.finish(render(self.site.document(), self.site.hangs))

    head = get


class _Status(Handler):
    def get(self) -> None:
        self.tell(self.site.document())

    head = get


class _Health(Handler):
    def get(self) -> None:
        self._judge(self.site.hangs)

    head = get

    def _judge(self, reason: str) -> None:
        self.tell({"status": "failed", "reason": reason} if reason else {"status": "ok"}, 503 if reason else 200)


class _Ready(_Health):
    def get(self) -> None:
        self._judge(self.site.unready)

    head = get


class _Metrics(Handler):
    def get(self) -> None:
        text = self.site.metrics()
        if text is None:
            raise HTTPError(404)
        self.set_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.finish(text)

    head = get


class _Reconcile(Handler):
    def post(self) -> None:
        self.site.bell.ring(Cause.REQUEST)
        self.tell({"status": "accepted"}, 202)


class _File(Handler):
    name: str

    def initialize(self, site: Asking, name: str = "") -> None:
        super().initialize(site)
        self.name = name

    def get(self) -> None:
        self.set_header("Content-Type", f"{_FILES[self.name]}; charset=utf-8")
        self.finish((_STATIC / self.name).read_bytes())

    head = get
