"""Tells long work from a hang: whoever waits for something says so and for how long, and whoever watches hears it.

There is no clock and no thread here: what hangs says nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_heard: ContextVar[Callable[[float], None]] = ContextVar("heard", default=lambda _: None)


@contextmanager
def heard_by(listener: Callable[[float], None]) -> Iterator[None]:
    """Have ``listener`` hear of each wait, in this thread and in those that run in a copy of its context."""
    token = _heard.set(listener)
    try:
        yield
    finally:
        _heard.reset(token)


def waiting(seconds: float) -> None:
    """Call before a wait that ends by itself: it takes so many seconds at most."""
    _heard.get()(seconds)
