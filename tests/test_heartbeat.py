"""Whoever waits for something says so before, with a bound; what hangs says nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import copy_context

import pytest

from reconciler import fence, heartbeat, http
from reconciler.process import COMPOSE, run
from reconciler.simulator.wire import Reply, Server
from reconciler.targets.cloudflare.transport import Line
from reconciler.url import parse


def request() -> None:
    bounds = http.Bounds(1000, seconds=5)
    with Server(lambda _: Reply.of({})) as server, http.client(parse(server.url), bounds) as client:
        http.exchange(client, "GET", "/")


def rate_limit() -> None:
    Line("https://api.cloudflare.com", lambda _: None, 1.0, 1.0).wait(0.01, "a rate limit")


@pytest.mark.parametrize(
    ("wait", "seconds"),
    [
        (request, 5),
        (lambda: run(COMPOSE, ["true"], {"PATH": "/usr/bin:/bin"}, limit=7), 7),
        (rate_limit, 0.01),
        (lambda: fence.wait(0.02), 0.02),
    ],
    ids=["a request", "a program", "Cloudflare's rate limit", "a try that comes later"],
)
def test_a_wait_is_told_with_its_bound(wait: Callable[[], object], seconds: float) -> None:
    told: list[float] = []
    with heartbeat.heard_by(told.append):
        wait()
        thread = threading.Thread(target=copy_context().run, args=(wait,))
        thread.start()
        thread.join()
    assert told == [seconds, seconds]
    wait()
    assert told == [seconds, seconds], "nobody listens any more"
