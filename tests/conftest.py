"""What all tests share."""

from __future__ import annotations

import contextlib
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
def pytest_collection(session: pytest.Session) -> Iterator[object]:
    """What is collected stays until the end, so nobody looks through it for garbage: a third of the time that takes."""
    gc.disable()
    try:
        _import_share(session)
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def _import_share(session: pytest.Session) -> None:
    """Import a worker's share of the files, so that the cache gets the assertions of each rewritten by one of them.

    All workers collect the same in the same order: in a fresh checkout each would rewrite every file itself.
    """
    worker = getattr(session.config, "workerinput", None)
    if worker is None or session.config.args != session.config.getini("testpaths"):
        return
    number, of = int(worker["workerid"].removeprefix("gw")), worker["workercount"]
    for path in sorted(Path(__file__).parent.rglob("test_*.py"))[number::of]:
        with contextlib.suppress(Exception, pytest.skip.Exception):  # the collection tells of it
            assert pytest.Module.from_parent(session, path=path).obj


@pytest.hookimpl(trylast=True)  # after pytest-xdist's own
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Name a test's group where the controller reads it: at the end of its id.

    Since pytest 9.2 an id is no longer what pytest-xdist 3.8 writes to (https://github.com/pytest-dev/pytest-xdist/issues/1386),
    and what a group shares, such as a database, was made by each worker.
    """
    if not getattr(config.option, "loadgroup", False):
        return
    for item in items:
        mark = item.get_closest_marker("xdist_group")
        if mark is not None and not item.nodeid.endswith(f"@{mark.args[0]}"):
            item._id = type(item.id).parse(f"{item.nodeid}@{mark.args[0]}")


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
