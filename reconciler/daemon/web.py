"""The status page and its neighbours: a thread of its own that reads the board and can ring the bell.

Until somebody connects it costs a socket and a thread that sleeps: what serves and renders is imported then.
"""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from reconciler.daemon.access import Access, is_loopback
from reconciler.daemon.board import Bell, Board
from reconciler.daemon.document import document
from reconciler.daemon.metrics import Tally, render
from reconciler.problem import Problem, ReconcilerError
from reconciler.report import json

GRACE = 5.0
"""Seconds that answers under way get when a page is closed."""


@dataclass(frozen=True, slots=True)
class Site:
    """What the page is made of. ``redact`` takes secrets out of texts; ``unexpected`` hears of what should not be."""

    board: Board
    bell: Bell
    access: Access
    redact: Callable[[str], str] = lambda text: text
    unexpected: Callable[[Exception], None] = lambda _: None
    tally: Tally | None = None
    boot: str = field(default_factory=lambda: datetime.now(UTC).strftime("%H%M%S%f"))

    def document(self) -> dict[str, Any]:
        """Return how things stand now."""
        found: dict[str, Any] = json.redacted(document(self.board.state, datetime.now(UTC)), self.redact)
        return found

    def metrics(self) -> bytes | None:
        """Return all metrics as text; None where nobody counts."""
        return render(self.tally, self.board.state, datetime.now(UTC)) if self.tally is not None else None

    @property
    def version(self) -> str:
        """What changes with all that the page shows, but for ages."""
        return f"{self.boot}-{self.board.number}-{int(bool(self.hangs))}"

    @property
    def hangs(self) -> str:
        """Why the loop seems to hang; empty while it does not."""
        return self.board.hangs()

    @property
    def unready(self) -> str:
        """Why nothing is known yet that could be healed to; empty where it is."""
        state = self.board.state
        if state.cycle is None:
            return "the first cycle has not ended yet"
        return "" if state.source.revision else "no good revision is known"


def serve(
    board: Board,
    bell: Bell,
    listen: tuple[str, int],
    token: str | None,
    *,
    names: Iterable[str] = (),
    redact: Callable[[str], str] = lambda text: text,
    unexpected: Callable[[Exception], None] = lambda _: None,
    tally: Tally | None = None,
) -> Server:
    """Serve the page at an address, in a thread, until the result is closed.

    ``names`` are more hosts under which it may be asked for. ``tally`` counts for `/metrics`, which is not there
    without it. Raises ReconcilerError where nobody can listen there, and for any address but loopback without a token.
    """
    access, listening = begin(listen, token, names)
    site = Site(board, bell, access, redact, unexpected, tally)

    def run(ended: socket.socket) -> None:
        from reconciler.daemon.site import run

        run(site, listening, ended, GRACE)

    return Server(listening, run, unexpected)


def begin(listen: tuple[str, int], token: str | None, names: Iterable[str] = ()) -> tuple[Access, socket.socket]:
    """Listen at an address, and say who may ask there. Raises ReconcilerError as `serve` does."""
    where = f"--listen {listen[0]}:{listen[1]}"
    if token is None and not is_loopback(listen[0]):
        summary = "whoever reaches that address could read the page: it needs a token"
        raise ReconcilerError(Problem(where, summary, "set RECONCILER_TOKEN_FILE, or listen on 127.0.0.1"))
    access = Access(listen[0].lower(), token, frozenset(name.lower() for name in names))
    try:
        return access, _listening(*listen)
    except OSError as error:
        summary = f"can't listen there: {error.strerror or type(error).__name__}"
        raise ReconcilerError(Problem(where, summary, "name a free address of this machine")) from None


def _listening(host: str, port: int) -> socket.socket:
    family = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
    both = host == "::" and socket.has_dualstack_ipv6()
    return socket.create_server((host, port), family=family, dualstack_ipv6=both)


class Server:
    """A page that is served. ``address`` is where: with port 0 the system chose one.

    ``run`` answers, from the first connection on, until the other end of the socket that it is given is closed.
    """

    def __init__(
        self,
        listening: socket.socket,
        run: Callable[[socket.socket], None],
        unexpected: Callable[[Exception], None] = lambda _: None,
    ) -> None:
        self.address: tuple[str, int] = listening.getsockname()[:2]
        self._listening, self._answer, self._unexpected = listening, run, unexpected
        self._end, self._ended = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="page", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take no more requests, and wait a while for the answers under way."""
        self._end.close()
        self._thread.join(2 * GRACE)

    def _run(self) -> None:
        with self._listening, self._ended:
            try:
                if self._asked():
                    self._answer(self._ended)
            except Exception as error:  # noqa: BLE001 (the page may fail, the loop goes on; a watcher sees no answer)
                self._unexpected(error)

    def _asked(self) -> bool:
        """Wait for the first connection; False where it is closed before."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._listening, selectors.EVENT_READ)
            selector.register(self._ended, selectors.EVENT_READ)
            return all(key.fileobj is not self._ended for key, _ in selector.select())
