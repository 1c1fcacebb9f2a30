"""The goals, each a text and a test of what was measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cost import Cost

NO_CHANGE = "no change"
ONE_CHANGE = "one change"
FIRST_APPLY = "first apply"
BATCH = 200  # operations that one write request may hold, on every plan of Cloudflare's


@dataclass(frozen=True, slots=True)
class Row:
    """One task: ours, and octoDNS's where it was measured. ``latency`` is in seconds, ``note`` for the reader."""

    task: str
    ours: Cost
    octodns: Cost | None = None
    size: int = 0
    latency: float = 0.0
    note: str = ""
    goals: tuple[Goal, ...] = ()


@dataclass(frozen=True, slots=True)
class Goal:
    """What a row should be."""

    text: str
    met: Callable[[Row], bool]


def dns_goals(task: str, size: int, latency: float) -> tuple[Goal, ...]:
    """Return the goals of a task on one zone."""
    if task == NO_CHANGE:
        return (*_quiet(size), *(_LEAN if size == 10_000 else ()))
    if task == ONE_CHANGE:
        return (writes(1),)
    wanted = (writes(-(-size // BATCH)),)
    return (*wanted, _FORTY_TIMES) if (size, latency) == (1000, 0.05) else wanted


def writes(number: int) -> Goal:
    """Want exactly so many requests that write."""
    return Goal(f"{number} write{'s' * (number != 1)}", lambda row: row.ours.writes == number)


def requests_up_to(number: int) -> Goal:
    """Want no more requests than that."""
    return Goal(f"at most {number} requests", lambda row: row.ours.reads + row.ours.writes <= number)


def writes_up_to(number: int) -> Goal:
    """Want no more requests that write than that."""
    return Goal(f"at most {number} that write", lambda row: row.ours.writes <= number)


def wall_under(seconds: float) -> Goal:
    """Want the whole process to be done in less."""
    return Goal(f"under {seconds:g} s", lambda row: row.ours.wall < seconds)


def no_dearer_than(other: Cost) -> Goal:
    """Want what another checkout needs of the processor at most; a tenth is what a busy machine makes of it."""
    return Goal("no more CPU than beside", lambda row: row.ours.cpu <= other.cpu * 1.1)


def _quiet(size: int) -> tuple[Goal, ...]:
    two = Goal("at most 2 requests", lambda row: row.ours.reads <= 2)
    return (two, writes(0)) if size <= 5000 else (writes(0),)


def _beside(row: Row) -> Cost:
    if row.octodns is None:
        raise AssertionError(row.task)
    return row.octodns


_LEAN = (
    Goal("wall under half of octoDNS's", lambda row: row.ours.wall < _beside(row).wall / 2),
    Goal("peak below octoDNS's", lambda row: row.ours.peak < _beside(row).peak),
    Goal("peak under 80 MB", lambda row: row.ours.peak < 80),
)
_FORTY_TIMES = Goal("40 times faster than octoDNS", lambda row: row.ours.wall * 40 <= _beside(row).wall)
