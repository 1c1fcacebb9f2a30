"""What a system's limit costs: whoever shares one with others waits its turn, right before a request.

The HTTP transport asks, by the name that its requests are counted under, so that no target has to know of it. Who
shares nothing is asked nothing, and pays by what the system itself refuses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_asked: ContextVar[Callable[[str], None]] = ContextVar("toll", default=lambda _: None)


@contextmanager
def paid_by(pay: Callable[[str], None]) -> Iterator[None]:
    """Have ``pay`` called before each request, in this thread and in those that run in a copy of its context.

    It is given the system's name and returns when the request may go out.
    """
    token = _asked.set(pay)
    try:
        yield
    finally:
        _asked.reset(token)


def pay(system: str) -> None:
    """Call right before a request to a system."""
    _asked.get()(system)
