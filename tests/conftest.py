"""What all tests share."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from properties import PROFILE, tries

pytest_plugins = ["no_skip", "few", "e2e.stagefixtures"]

# What decides a landing tries the same inputs each time, `make test` the first of them. `make explore` tries with new
# ones; what it finds becomes an @example of its test.
settings.register_profile("same", derandomize=True, database=None, deadline=None)
settings.register_profile("explore", print_blob=True, deadline=None)
settings.register_profile("quick", settings.get_profile("same"), max_examples=tries(100))
settings.load_profile(PROFILE)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[object]:
    """What is collected stays until the end, so nobody looks through it for garbage: a third of the time that takes."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Work on half as many more as there are cores: who waits for a process or a server leaves its core to others."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores + cores // 2


@pytest.fixture(scope="session")
def facts() -> Callable[[str], Path]:
    """Find a page of the facts, which lie in RECONCILER_SHARED or beside the checkout; without them a test is left."""
    shared = Path(os.environ.get("RECONCILER_SHARED") or Path(__file__).parents[2] / "shared")

    def find(name: str) -> Path:
        page = shared / name
        if not page.exists():
            pytest.skip(f"{page} is missing (set RECONCILER_SHARED)")
        return page

    return find
