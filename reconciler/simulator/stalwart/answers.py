"""How Stalwart 0.15 answers: ``{"data": ..}``, a management error with status 200, or a problem with a real status."""

from __future__ import annotations

from typing import Any

from reconciler.simulator.wire import Reply

JSON = "application/json; charset=utf-8"
PROBLEM = "application/problem+json"


class Failure(Exception):
    """A management error: status 200 and a body with ``error`` in place of ``data``."""

    def __init__(self, error: str, **body: Any) -> None:
        super().__init__(error)
        self.body = {"error": error, **body}


class HttpProblem(Exception):
    """An error of the protocol: a real status and a problem document (RFC 9457)."""

    def __init__(self, status: int, title: str, detail: str | None = None, **headers: str) -> None:
        super().__init__(title)
        self.status, self.title, self.detail, self.headers = status, title, detail, headers


def data(value: Any = None) -> Reply:
    """Answer what was asked for, or ``null`` for a change."""
    return Reply.of({"data": value}, content_type=JSON)


def failure(error: Failure) -> Reply:
    """Answer a management error."""
    return Reply.of(error.body, content_type=JSON)


def problem(error: HttpProblem) -> Reply:
    """Answer a problem document; without a detail there is no such key."""
    body = {"type": "about:blank", "status": error.status, "title": error.title}
    if error.detail is not None:
        body["detail"] = error.detail
    return Reply.of(body, error.status, PROBLEM, **error.headers)


def malformed(detail: str = "JSON deserialization failed") -> HttpProblem:
    """Refuse a body or parameters that can't be understood."""
    return HttpProblem(400, "Invalid parameters", detail)


def not_found() -> HttpProblem:
    """Refuse a path or method that is not there."""
    return HttpProblem(404, "Not Found", "The requested resource does not exist on this server.")


def forbidden() -> HttpProblem:
    """Refuse for lack of a permission."""
    return HttpProblem(403, "Forbidden", "You do not have enough permissions to access this resource.")


def unauthorized(**headers: str) -> HttpProblem:
    """Refuse missing or wrong credentials; under ``/api`` without a challenge."""
    return HttpProblem(401, "Unauthorized", "You have to authenticate first.", **headers)


def too_many_failures() -> HttpProblem:
    """Answer the request that gets an address banned; later ones get no byte."""
    return HttpProblem(
        429,
        "Too Many Authentication Attempts",
        "Your request has been rate limited due to too many authentication attempts.",
    )


def too_many_requests() -> HttpProblem:
    """Refuse a request beyond the rate limit."""
    return HttpProblem(
        429, "Too Many Requests", "Your request has been rate limited. Please try again in a few seconds."
    )


def position(text: str, end: int) -> str:
    """Say where a parser stood, as serde does: line and column of the last character it took."""
    head = text[:end]
    return f"at line {head.count(chr(10)) + 1} column {end - head.rfind(chr(10)) - 1}"
