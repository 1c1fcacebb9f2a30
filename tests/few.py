"""Which variants of a costly test `make test` runs: as few as show each value once. The others are `long`.

``@pytest.mark.few`` is for a test whose variants each take the whole way through the program. ``of`` says what a
variant stands for, where several stand for the same, such as the check that tells a planted defect; ``names`` are the
parameters that count, all of them where none is named. What the program is played through with both generations of
Stalwart is played with the newer one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator
from typing import Any

import pytest

# What a fixture calls the older generation, and the newer one beside it.
NEWER = {"rest": {"jmap"}, "applied": {"newer_applied", "newer"}, "stack": {"newer"}}


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    variants = [item for item in items if hasattr(item, "callspec") and item.get_closest_marker("long") is None]
    played, shown = defaultdict[Any, set[Any]](set), defaultdict[Any, set[Any]](set)
    for item in variants:
        for name, value in _strings(item):
            played[_test(item), name].add(value)
    for item in variants:
        known, shows = shown[_test(item)], set(_shows(item))
        if any(NEWER.get(value, set()) & played[_test(item), name] for name, value in _strings(item)) or (
            shows and shows <= known
        ):
            item.add_marker(pytest.mark.long)
        else:
            known |= shows


def _test(item: Any) -> Hashable:
    return item.path, item.originalname


def _strings(item: Any) -> Iterator[tuple[str, str]]:
    """Yield what names a generation: only what runs the whole program is played with both at length."""
    if item.path.parent.name == "e2e":
        yield from ((name, value) for name, value in item.callspec.params.items() if isinstance(value, str))


def _shows(item: Any) -> Iterator[Hashable]:
    mark = item.get_closest_marker("few")
    if mark is None:
        return
    of = mark.kwargs.get("of")
    for name, value in item.callspec.params.items():
        if name in (mark.args or item.callspec.params):
            yield name, repr(value) if of is None else of(value)
