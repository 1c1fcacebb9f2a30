"""The command line: one small module a command, imported when it is called."""

from __future__ import annotations

from reconciler.cli.program import program

__all__ = ["program"]
