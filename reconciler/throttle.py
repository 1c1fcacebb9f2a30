"""A system's limit of requests that several share: whoever does waits its turn, right before each request.

The HTTP transport asks, by the name that its requests are counted under, so that no target has to know of it. Without
a throttle nobody waits, and the limit is felt by what the system itself refuses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_asked: ContextVar[Callable[[str], None]] = ContextVar("throttle", default=lambda _: None)


@contextmanager
def throttled_by(wait: Callable[[str], None]) -> Iterator[None]:
    """Have ``wait`` called before each request, in this thread and in those that run in a copy of its context.

    It is given the system's name and returns when the request may go out.
    """
    token = _asked.set(wait)
    try:
        yield
    finally:
        _asked.reset(token)


def wait(system: str) -> None:
    """Call right before a request to a system."""
    _asked.get()(system)
