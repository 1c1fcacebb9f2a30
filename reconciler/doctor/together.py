"""Several works side by side, in threads that a signal does not wait for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextvars import copy_context
from typing import TypeVar

_EACH = 1.0  # seconds after which a person is told again what is waited for

T = TypeVar("T")


def together(
    works: Mapping[str, Callable[[], T]], tell: Callable[[Sequence[str]], None] = lambda _: None
) -> dict[str, T]:
    """Do all works, and return what each returns by its name; raises what the first of them raised, when all are over.

    ``tell`` hears each second the names of those that are not.
    """
    found, failed = dict[str, T](), dict[str, BaseException]()

    def one(name: str, work: Callable[[], T]) -> None:
        try:
            found[name] = work()
        except BaseException as error:  # noqa: BLE001 (it is raised by who asked for the work)
            failed[name] = error

    threads = {
        name: threading.Thread(target=copy_context().run, args=(one, name, work), daemon=True)
        for name, work in works.items()
    }
    for thread in threads.values():
        thread.start()
    while left := [name for name, thread in threads.items() if thread.is_alive()]:
        threads[left[0]].join(_EACH)
        if threads[left[0]].is_alive():
            tell([name for name in left if threads[name].is_alive()])
    if failed:
        raise next(failed[name] for name in works if name in failed)
    return found
