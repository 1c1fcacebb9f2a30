"""A PostgreSQL for all tests of a process, and an estate of stacks with a worker that is no process of its own."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from fleet.cluster import Cluster, binaries
from fleet.hand import Hand


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    programs = binaries()
    if programs is None:
        pytest.skip("PostgreSQL 15 is missing (Debian: apt install postgresql-15)")
    if os.geteuid() == 0:
        try:
            pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("initdb refuses root, and there is no user postgres")
    made = Cluster(programs)
    yield made
    made.close()


@pytest.fixture
def hand(cluster, tmp_path) -> Iterator[Hand]:
    """Three stacks, and a fleet's hand over them: each step when the test says so."""
    with ExitStack() as exits:
        yield Hand(exits, cluster, tmp_path, ["one", "two", "three"])
