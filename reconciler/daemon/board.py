"""Where the daemon's threads meet: one publishes what it knows, the others read it and may wake it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from reconciler.daemon.state import Cause, State


class Board:
    """The newest `State`, for readers in other threads.

    ``heard`` are told of each one with which a cycle ended, in the thread that publishes it: they return at once.
    """

    def __init__(self, state: State, *heard: Callable[[State], None]) -> None:
        self._state, self._heard = state, heard
        self._number = 0
        self._changed = threading.Condition()
        self._beat = time.monotonic()
        self._granted = 0.0  # when the wait under way has to be over, and what comes of it, monotonic

    @property
    def state(self) -> State:
        """The newest one."""
        return self._state

    @property
    def number(self) -> int:
        """How often one was published."""
        return self._number

    @property
    def silence(self) -> float:
        """Seconds since a cycle last ended (or since the start): what `/healthz` and a watchdog go by."""
        return time.monotonic() - self._beat

    def hangs(self, least: float = 0.0) -> str:
        """Say why the loop seems to hang, empty while it does not: ``least`` seconds are granted to any cycle.

        A cycle that takes longer than three short intervals is at work as long as each of its waits ends in time, for
        an hour at most: `expect`.
        """
        interval, silence = self._state.interval or _UNTOLD, self.silence
        at_work = silence <= _LONGEST and time.monotonic() < self._granted
        if at_work or silence <= max(least, _SILENT * interval):
            return ""
        return f"no cycle has ended for {silence:.0f} seconds: more than {_SILENT} intervals of {interval:g} seconds"

    def expect(self, seconds: float) -> None:
        """Hear of a wait in the cycle under way, of so many seconds at most."""
        with self._changed:
            self._granted = max(self._granted, time.monotonic() + seconds + _BETWEEN)

    def publish(self, state: State, *, ended: bool = False) -> None:
        """Put up a new one; ``ended`` says that a cycle has come to its end with it."""
        with self._changed:
            self._state, self._number = state, self._number + 1
            if ended:
                self._beat, self._granted = time.monotonic(), 0.0
            self._changed.notify_all()
        for listener in self._heard if ended else ():
            listener(state)

    def wait(self, number: int, seconds: float) -> int:
        """Wait until more than ``number`` were published, at most so long. Returns how many were."""
        with self._changed:
            self._changed.wait_for(lambda: self._number > number, seconds)
            return self._number


_UNTOLD = 300.0  # seconds between cycles until the first one tells
_SILENT = 3  # intervals without the end of a cycle: the loop hangs
_BETWEEN = 60.0  # seconds of our own work between two waits; a thousand passwords are hashed in ten
_LONGEST = 3600.0  # seconds that one cycle may take; Compose alone may take five minutes a service


class Bell:
    """Wakes the loop. Whoever rings says why; of several that ring before it wakes the first counts."""

    def __init__(self) -> None:
        self._rung = threading.Event()
        self._cause: Cause | None = None

    def ring(self, cause: Cause) -> None:
        """Begin a cycle now, or right after the one that runs. Safe in any thread and in a signal's handler."""
        self._cause = self._cause or cause
        self._rung.set()

    def wait(self, seconds: float, ended: Callable[[], bool] = lambda: False) -> Cause | None:
        """Wait for a ring, at most so long; None where nobody rang, or ``ended`` says so meanwhile."""
        until = time.monotonic() + seconds
        while not ended() and not self._rung.wait(max(0.0, min(_HEEDED, until - time.monotonic()))):
            if time.monotonic() >= until:
                return None
        cause, self._cause = self._cause, None
        self._rung.clear()
        return cause


_HEEDED = 0.5  # seconds: a signal that comes just before a wait does not end that wait
