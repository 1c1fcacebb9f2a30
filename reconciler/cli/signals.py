"""SIGINT and SIGTERM: at once where nothing is written, between two writes where something is."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_CODES = 128  # a shell's convention: 130 for SIGINT, 143 for SIGTERM


class Interrupted(BaseException):  # like KeyboardInterrupt: `except Exception` must not swallow it
    """A signal asks us to end."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.exit_code = _CODES + signum


class Stop:
    """Whether a signal has asked us to end.

    Outside `writing` a first signal raises `Interrupted`. Within it is only remembered, and `requested` says so to
    whoever is about to write next. A second signal ends the process at once; the kernel frees the lease.
    """

    def __init__(self) -> None:
        self._signum: int | None = None
        self._writing = False

    def requested(self) -> bool:
        """Say whether nothing more shall be written."""
        return self._signum is not None

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold signals back while something is written."""
        self._writing = True
        try:
            yield
        finally:
            self._writing = False

    def check(self) -> None:
        """Raise `Interrupted` where a signal was held back."""
        if self._signum is not None:
            raise Interrupted(self._signum)

    def _take(self, signum: int, _frame: FrameType | None) -> None:
        if self._signum is not None:
            os._exit(_CODES + signum)
        self._signum = signum
        if self._writing:
            os.write(2, b"\nStopping after the write that is under way; a second signal stops at once.\n")
        else:
            raise Interrupted(signum)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Listen to signals for a while; only the main thread can."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGINT, signal.SIGTERM)
        former = {number: signal.signal(number, self._take) for number in numbers}
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)
