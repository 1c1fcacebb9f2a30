"""Problem documents (RFC 9457): how both generations refuse at the level of HTTP."""

from __future__ import annotations

from reconciler.simulator.wire import Reply

JSON = "application/json; charset=utf-8"
PROBLEM = "application/problem+json"


class HttpProblem(Exception):
    """An error of the protocol: a real status and a problem document (RFC 9457)."""

    def __init__(self, status: int, title: str, detail: str | None = None, **headers: str) -> None:
        super().__init__(title)
        self.status, self.title, self.detail, self.headers = status, title, detail, headers


def problem(error: HttpProblem) -> Reply:
    """Answer a problem document; without a detail there is no such key."""
    body = {"type": "about:blank", "status": error.status, "title": error.title}
    if error.detail is not None:
        body["detail"] = error.detail
    return Reply.of(body, error.status, PROBLEM, **error.headers)


def not_found() -> HttpProblem:
    """Refuse a path or method that is not there."""
    return HttpProblem(404, "Not Found", "The requested resource does not exist on this server.")


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
