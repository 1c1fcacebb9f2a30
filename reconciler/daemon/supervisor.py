"""What the service manager that started us is told: sd_notify(3), sd_watchdog_enabled(3) of systemd.

Each word is one datagram to the socket that ``NOTIFY_SOCKET`` names. Without that variable nobody is told, and what
can't be told is let go: the loop does not depend on who watches it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from reconciler.daemon.board import Board
from reconciler.daemon.state import State

_LEAST = 900.0  # seconds that a cycle may take, however short the interval is: Compose alone may take 300 a service
_ROOM = 3  # times within systemd's limit that it is fed, of which one may be late


@dataclass(frozen=True, slots=True)
class Supervisor:
    """Who started us. ``address`` is the socket's path or, with ``@`` before it, its abstract name; empty for nobody.

    ``limit`` is how many seconds may pass between two signs of life, 0 where none are wanted. ``least`` is how long in
    seconds a cycle may take at least before no more are given.
    """

    address: str = ""
    limit: float = 0.0
    least: float = _LEAST

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Supervisor:
        """Read what systemd has put into the environment."""
        address, limit = environ.get("NOTIFY_SOCKET", ""), environ.get("WATCHDOG_USEC", "")
        ours = environ.get("WATCHDOG_PID", "") in ("", str(os.getpid()))
        return cls(address, int(limit) / 1e6 if ours and limit.isdecimal() else 0.0)

    def tell(self, **words: str | int) -> None:
        """Send words such as ``READY=1`` in one datagram."""
        if not self.address.startswith(("/", "@")):
            return
        name = "\0" + self.address[1:] if self.address[0] == "@" else self.address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
            line.settimeout(1.0)
            line.sendto("\n".join(f"{word}={value}" for word, value in words.items()).encode(), name)

    def cycle(self, state: State) -> None:
        """Tell of a cycle in the one line that ``systemctl status`` shows: numbers and words of ours, no text."""
        if state.cycle is not None:
            pending = f", {len(state.plan.pending)} pending" if state.plan else ""
            self.tell(STATUS=f"cycle {state.cycle.number}: {state.cycle.result}{pending}")

    @contextlib.contextmanager
    def watching(self, board: Board) -> Iterator[None]:
        """Say that the loop begins, and that it ends; meanwhile give signs of life for as long as cycles end."""
        self.tell(READY=1, STATUS="in the first cycle")
        over = threading.Event()
        feeding = threading.Thread(target=self._feed, args=(board, over), name="watchdog", daemon=True)
        if self.limit:
            feeding.start()
        try:
            yield
        finally:
            self.tell(STOPPING=1)
            over.set()

    def _feed(self, board: Board, over: threading.Event) -> None:
        while not over.is_set():
            why = board.hangs(self.least)
            self.tell(STATUS=f"hangs: {why}") if why else self.tell(WATCHDOG=1)
            over.wait(self.limit / _ROOM)
