"""Whether a write may still go out: asked where it leaves us, answered by whoever gave the right to write.

An apply stands within the lease's fence, and in a fleet within that of the stack's generation, too. The HTTP
transport, Compose's `up` and the env file ask right before each write, so that no target, and none that comes later,
has to know of it. Who stands within none is asked nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

from reconciler import heartbeat

_HEEDED = 0.2  # seconds between two looks at whether to go on waiting


class Fence(Protocol):
    """Says whether we may write. Any thread may ask."""

    def check(self) -> None:
        """Raise `LeaseLost` where nothing may be written any more."""
        ...

    def renew(self) -> None:
        """Take note that work goes on."""
        ...


_fences: ContextVar[tuple[Fence, ...]] = ContextVar("fences", default=())
_stopped: ContextVar[Callable[[], bool]] = ContextVar("stopped", default=lambda: False)


@contextmanager
def within(fence: Fence, stopped: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Have a fence asked for a while, in this thread and in those that run in a copy of its context.

    Those around it are asked after it: the outermost has the last word. ``stopped`` says whether a signal asks to end:
    what is waited for is then waited for no longer.
    """
    former = _fences.get(), _stopped.get()
    _fences.set(former[0] if fence in former[0] else (*former[0], fence))
    _stopped.set(stopped)
    try:
        yield
    finally:
        _fences.set(former[0])
        _stopped.set(former[1])


def before_write() -> None:
    """Call right before something is written to a system. Raises `LeaseLost`: then it must not be."""
    for fence in reversed(_fences.get()):
        fence.check()


def progress() -> None:
    """Call when a system has answered."""
    for fence in _fences.get():
        fence.renew()


def wait(seconds: float) -> bool:
    """Wait before something is tried again. False where a signal asks to end: then it must not be."""
    heartbeat.waiting(seconds)
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        if _stopped.get()():
            return False
        time.sleep(min(left, _HEEDED))
    return True
