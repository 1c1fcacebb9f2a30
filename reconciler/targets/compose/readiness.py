"""Whether a service came up: decided in seconds, never waited for in silence."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from reconciler.targets.compose.engine import Container, Details, Engine

_TICK = 2.0  # seconds between two words on what is waited for


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for a service: ``ready`` for its health check, ``settle`` for one without (seconds)."""

    ready: float = 60.0
    settle: float = 5.0
    pause: float = 0.5


@contextlib.contextmanager
def ticking(progress: Callable[[str], None], what: str) -> Iterator[None]:
    """Say what is done, and every two seconds that it still is, for as long as the context lasts."""
    done, begin = threading.Event(), time.monotonic()

    def tick() -> None:
        while not done.wait(_TICK):
            progress(f"{what} ({time.monotonic() - begin:.0f} s)")

    progress(what)
    thread = threading.Thread(target=tick, name="compose-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def wait_until_up(engine: Engine, containers: Sequence[Container], patience: Patience) -> str:
    """Wait until a service's containers are up; return what is wrong with one, or nothing.

    The service's own health-check command is run at once instead of waiting for the engine to do so, since intervals
    of minutes are usual. Without a health check, or with one whose program its image lacks, running for a while
    without a restart is enough.
    """
    if not containers:
        return "no container of it runs"
    begin = time.monotonic()
    first: dict[str, Details | None] = {item.id: engine.details(item) for item in containers}
    while True:
        waited = time.monotonic() - begin
        verdicts = [_verdict(engine, item, first[item.id], waited, patience) for item in containers]
        failed = [item for item in verdicts if item]
        if failed:
            return failed[0]
        if all(item is not None for item in verdicts):
            return ""
        time.sleep(patience.pause)


def _verdict(
    engine: Engine, container: Container, first: Details | None, waited: float, patience: Patience
) -> str | None:
    """Return what is wrong, an empty text when the container is up, None while that can't be told."""
    now = engine.details(container)
    if first is None or now is None:
        return "its container was removed meanwhile"
    if now.restarts > first.restarts or now.started != first.started or now.status == "restarting":
        return "it crashes and is restarted again and again"
    if now.status != "running":
        return f"it is {now.status} (exit code {now.exit_code})"
    passes = (now.health == "healthy" or engine.check(container, now.check)) if now.check else None
    if passes is None:
        return "" if waited >= patience.settle else None
    return "" if passes else _unhealthy(now, waited, patience)


def _unhealthy(now: Details, waited: float, patience: Patience) -> str | None:
    if now.health == "unhealthy":
        return "its health check fails"
    return f"its health check did not pass within {patience.ready:.0f} seconds" if waited >= patience.ready else None
