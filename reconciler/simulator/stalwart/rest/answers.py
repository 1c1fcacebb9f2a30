"""How Stalwart 0.15 answers: ``{"data": ..}``, a management error with status 200, or a problem with a real status."""

from __future__ import annotations

from typing import Any

from reconciler.simulator.stalwart.problems import JSON, HttpProblem
from reconciler.simulator.wire import Reply


class Failure(Exception):
    """A management error: status 200 and a body with ``error`` in place of ``data``."""

    def __init__(self, error: str, **body: Any) -> None:
        super().__init__(error)
        self.body = {"error": error, **body}


def data(value: Any = None) -> Reply:
    """Answer what was asked for, or ``null`` for a change."""
    return Reply.of({"data": value}, content_type=JSON)


def failure(error: Failure) -> Reply:
    """Answer a management error."""
    return Reply.of(error.body, content_type=JSON)


def malformed(detail: str = "JSON deserialization failed") -> HttpProblem:
    """Refuse a body or parameters that can't be understood."""
    return HttpProblem(400, "Invalid parameters", detail)


def forbidden() -> HttpProblem:
    """Refuse for lack of a permission."""
    return HttpProblem(403, "Forbidden", "You do not have enough permissions to access this resource.")


def position(text: str, end: int) -> str:
    """Say where a parser stood, as serde does: line and column of the last character it took."""
    head = text[:end]
    return f"at line {head.count(chr(10)) + 1} column {end - head.rfind(chr(10)) - 1}"
