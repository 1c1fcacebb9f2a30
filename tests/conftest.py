"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

pytest_plugins = ["no_skip", "e2e.stagefixtures"]


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
