"""The fleet's page, which any worker serves: all in one place, and each stack's own behind its name."""

from __future__ import annotations

import asyncio
import functools
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reconciler.daemon import web
from reconciler.daemon.access import Access
from reconciler.fleet import metrics, overview
from reconciler.fleet.engine import Queue
from reconciler.fleet.overview import Summary
from reconciler.fleet.table import Row, Table
from reconciler.problem import ReconcilerError

if TYPE_CHECKING:
    from jinja2 import Environment

_CYCLES = 20  # that a stack's page lists
_FRESH = 1.0  # seconds for which an answer to `/healthz` counts


@dataclass(frozen=True, slots=True)
class Site:
    """What the page is made of."""

    table: Table
    queue: Queue
    access: Access
    unexpected: Callable[[Exception], None]

    def found(self) -> tuple[list[Row], Summary]:
        """Return the stacks, and how they stand together."""
        rows = self.table.rows()
        return rows, overview.summary(rows, self.table.whole(), self.table.unseen(), self.table.rollout())

    def page(self) -> str:
        """Return the fleet's page."""
        rows, told = self.found()
        shown = sorted(rows, key=lambda row: (overview.state_of(row) == "in_sync", row.name))
        return _render(
            "fleet.html", told=told, rows=[overview.stack(row) for row in shown], rollout=self.table.rollout()
        )

    def stack(self, name: str) -> str | None:
        """Return a stack's page; None where there is no such stack."""
        rows = self.table.rows([name])
        if not rows:
            return None
        runs = overview.history(self.table.history(name, _CYCLES))["cycles"]
        return _render("stack.html", row=overview.stack(rows[0]), declared=rows[0].declared, runs=runs)

    def document(self) -> Mapping[str, Any]:
        """Return all of it as JSON has it."""
        return overview.document(*self.found())

    def metrics(self) -> bytes:
        """Return the metrics."""
        rows, told = self.found()
        return metrics.render(told, rows, self.table.whole().interval, *self.queue.counts())


def _render(name: str, **values: Any) -> str:
    return _templates().get_template(name).render(**values, counted=overview.counted, named=overview.named)


@functools.cache
def _templates() -> Environment:
    from reconciler.daemon.page import templates

    return templates(Path(__file__).parent / "templates")


@contextmanager
def served(
    table: Table, queue: Queue, listen: tuple[str, int], token: str | None, unexpected: Callable[[Exception], None]
) -> Iterator[tuple[str, int]]:
    """Serve it meanwhile, and say where. Raises ReconcilerError where nobody can listen there."""
    access, listening = web.begin(listen, token)
    site = Site(table, queue, access, unexpected)

    def run(ended: socket.socket) -> None:
        asyncio.run(_serve(site, listening, ended))

    server = web.Server(listening, run, unexpected)
    try:
        yield server.address
    finally:
        server.close()


async def _serve(site: Site, listening: socket.socket, ended: socket.socket) -> None:
    from tornado.web import HTTPError

    from reconciler.daemon.site import Handler, serve_routes

    class Answer(Handler):
        """Answers with what the table says; 503 where that does not answer."""

        async def get(self, name: str = "") -> None:
            ask, kind = ANSWERS[self.request.path.partition("/stacks/")[0] or "/stacks"]
            try:
                said = await asyncio.to_thread(ask, name)
            except ReconcilerError as error:
                self.tell({"status": "failed", "reason": str(error)}, 503)
                return
            if said is None:
                raise HTTPError(404)
            if kind == _JSON:
                self.tell(dict(said))
                return
            self.set_header("Content-Type", f"{kind}; charset=utf-8")
            await self.finish(said)

        head = get

    class Health(Handler):
        """Answers anybody, so it tells no name: which database, and of which inventory, is the page's to say."""

        async def get(self) -> None:
            if await pulse.beats():
                self.tell({"status": "ok"})
            else:
                self.tell({"status": "failed", "reason": "the database does not answer"}, 503)

        head = get

    pulse = _Pulse(site.table.whole)
    ANSWERS: Mapping[str, tuple[Callable[[str], Any], str]] = {  # noqa: N806
        "/": (lambda _: site.page(), "text/html"),
        "/stacks": (site.stack, "text/html"),
        "/status.json": (lambda _: site.document(), _JSON),
        "/metrics": (lambda _: site.metrics(), "text/plain; version=0.0.4"),
    }
    kept: dict[str, Any] = {"site": site}
    paths = (r"/", r"/status\.json", r"/metrics", r"/stacks/([a-z0-9-]{1,24})")
    routes = [(r"/healthz", Health, kept), *((path, Answer, kept) for path in paths)]
    await serve_routes(kept, routes, listening, ended, web.GRACE)


class _Pulse:
    """Whether a question is answered; it is asked once a second at most, however many ask us.

    They may be anybody, and the connections to the database are the worker's own, too.
    """

    def __init__(self, ask: Callable[[], object]) -> None:
        self._ask, self._asking = ask, asyncio.Lock()
        self._at, self._beats = -_FRESH, False

    async def beats(self) -> bool:
        async with self._asking:
            if time.monotonic() - self._at >= _FRESH:
                try:
                    await asyncio.to_thread(self._ask)
                    self._beats = True
                except ReconcilerError:
                    self._beats = False
                self._at = time.monotonic()
            return self._beats


_JSON = "application/json"
