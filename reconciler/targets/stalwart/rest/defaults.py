"""What a fresh 0.15.5 has by itself (``defaults.json``, learnt from a real one)."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any


@functools.cache
def facts() -> dict[str, Any]:
    """Return its ``keys``, and patterns of keys.

    They name what the server makes anew (``generated``), loads from its maker (``downloaded``), or has from where and
    how it was installed (``installation``).
    """
    found: dict[str, Any] = json.loads(Path(__file__).with_name("defaults.json").read_text("utf-8"))
    return found
