"""What all tests share."""

from __future__ import annotations

pytest_plugins = ["no_skip", "e2e.stagefixtures"]
