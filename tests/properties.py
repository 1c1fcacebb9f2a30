"""How many inputs a test of a property tries."""

from __future__ import annotations

import os

PROFILE = os.environ.get("RECONCILER_PROPERTIES") or "same"
QUICK = 4  # `make test` tries one of so many; `make test-all` tries them all, and `make explore` new ones


def tries(number: int) -> int:
    return max(5, number // QUICK) if PROFILE == "quick" else number
