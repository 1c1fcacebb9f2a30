"""Whether a write may still go out: asked where it leaves us, answered by whoever gave the right to write.

An apply stands within the lease's fence. The HTTP transport, Compose's `up` and the env file ask it right before each
write, so that no target, and none that comes later, has to know of it. Who stands within none is asked nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol


class Fence(Protocol):
    """Says whether we may write. Any thread may ask."""

    def check(self) -> None:
        """Raise `LeaseLost` where nothing may be written any more."""
        ...

    def renew(self) -> None:
        """Take note that work goes on."""
        ...


_fence: ContextVar[Fence | None] = ContextVar("fence", default=None)


@contextmanager
def within(fence: Fence) -> Iterator[None]:
    """Have a fence asked for a while, in this thread and in those that run in a copy of its context."""
    former = _fence.get()
    _fence.set(fence)
    try:
        yield
    finally:
        _fence.set(former)


def before_write() -> None:
    """Call right before something is written to a system. Raises `LeaseLost`: then it must not be."""
    if (fence := _fence.get()) is not None:
        fence.check()


def progress() -> None:
    """Call when a system has answered."""
    if (fence := _fence.get()) is not None:
        fence.renew()
