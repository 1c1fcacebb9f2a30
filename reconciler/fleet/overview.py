"""How a fleet stands: one summary, which `fleet status`, the page and the metrics are made of. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from reconciler.fleet.rings import Standing
from reconciler.fleet.table import UNSERVED, Row, Run, Whole
from reconciler.names import SHOWN
from reconciler.problem import Problem
from reconciler.report import json, values

_LISTED = 20  # stacks in trouble that are shown at once
_CAUSES = 10
_PATIENCE = 3  # intervals that something passing has to last before it is told


@dataclass(frozen=True, slots=True)
class Cause:
    """One thing that is wrong at one or more stacks."""

    target: str
    error: str
    title: str
    stacks: tuple[str, ...]
    lasting: bool = False
    """Whether a person is needed, or it has gone on for a while."""


@dataclass(frozen=True, slots=True)
class Summary:
    """The fleet in numbers. ``states`` counts stacks by their state, ``rings`` by ring and state.

    ``oldest`` is the stack whose last cycle ended longest ago, ``slowest`` the one whose took longest, each with its
    seconds.
    """

    states: Mapping[str, int]
    rings: Mapping[int, Mapping[str, int]]
    stalled: int
    causes: tuple[Cause, ...]
    oldest: tuple[str, float] | None
    slowest: tuple[str, float] | None
    problems: tuple[Problem, ...]
    suspended: str

    @property
    def total(self) -> int:
        """How many stacks there are."""
        return sum(self.states.values())


def state_of(row: Row) -> str:
    """Return the word for how a stack stands: suspended as soon as somebody says so, before a cycle has seen it."""
    return "suspended" if row.suspended is not None or row.declared.get("suspended") else row.state


def summary(
    rows: Sequence[Row],
    whole: Whole,
    unseen: Sequence[tuple[str, str]] = (),
    rollout: Mapping[int, Standing] = MappingProxyType({}),
) -> Summary:
    """Count the stacks. ``unseen`` are the repositories that don't answer, with what is wrong."""
    rings: dict[int, Counter[str]] = {}
    for row in rows:
        rings.setdefault(row.ring, Counter())[state_of(row)] += 1
    ended = [row for row in rows if row.ended is not None]
    oldest = max(ended, key=lambda row: row.age, default=None)
    slowest = max(ended, key=lambda row: row.seconds or 0.0, default=None)
    away = tuple(Problem(where, why, "the stacks go on with what they have") for where, why in unseen)
    return Summary(
        Counter(state_of(row) for row in rows),
        dict(sorted(rings.items())),
        sum(row.stalled for row in rows),
        tuple(_causes(rows, whole.interval)),
        (oldest.name, oldest.age) if oldest else None,
        (slowest.name, slowest.seconds or 0.0) if slowest else None,
        (
            *whole.problems,
            *away,
            *(_stopped(item) for item in rollout.values() if item.stopped),
            *_waiting(rows, whole.interval),
        ),
        str(whole.suspended) if whole.suspended else "",
    )


def _stopped(ring: Standing) -> Problem:
    return Problem(f"ring {ring.ring}", ring.stopped, "push what mends it; it goes on by itself once all are well")


def _waiting(rows: Sequence[Row], interval: float) -> Iterator[Problem]:
    """Say which groups have stacks that no worker takes: too few run, or none for that group or ring."""
    late: dict[str, list[str]] = {}
    for row in rows:
        if row.waits < -_PATIENCE * interval:
            late.setdefault(row.worker_group, []).append(row.name)
    for group, names in sorted(late.items()):
        summary = f"its stacks wait for a worker that does not come: {named(names)}"
        yield Problem(
            f"group {group}", summary, f"see that `fleet work --group {group}` runs, for each ring, or run more"
        )


def _causes(rows: Sequence[Row], interval: float) -> Iterator[Cause]:
    """Yield what is wrong, by how many stacks it is at: one cause is one line, at however many."""
    found: dict[tuple[str, str], tuple[str, list[Row]]] = {}
    for row in rows:
        for target, error, title in row.troubles:
            found.setdefault((target, error), (title, []))[1].append(row)
    for (target, error), (title, ill) in sorted(found.items(), key=lambda item: -len(item[1][1])):
        long = any(row.lasts > _PATIENCE * interval for row in ill)
        lasting = error != UNSERVED and (long or any(row.stalled for row in ill))
        yield Cause(target, error, title, tuple(row.name for row in ill), lasting)


# ----------------------------------------------------------------------------------------------------------- in words
def text(rows: Sequence[Row], told: Summary, *, full: bool = False) -> str:
    """Say it for people: the fleet in a few lines, and each stack that is in trouble; with ``full`` each stack."""
    return "\n".join(values.escape(line) for line in _lines(rows, told, full=full))


def _lines(rows: Sequence[Row], told: Summary, *, full: bool) -> Iterator[str]:
    yield f"{told.total} stack{'s' * (told.total != 1)}: {counted(told.states) or 'none is in the inventory'}"
    if told.suspended:
        yield f"The whole fleet is {told.suspended}"
    if len(told.rings) > 1:
        yield from (f"  ring {number}: {counted(states)}" for number, states in told.rings.items())
    for name, found in (("oldest", told.oldest), ("slowest", told.slowest)):
        if found is not None and told.total > 1:
            yield f"  {name}: {found[0]}, {found[1]:.1f} s"
    for problem in told.problems:
        yield str(problem)
    for cause in told.causes[:_CAUSES]:
        yield f"{cause.target}: {cause.title}: {named(cause.stacks)}"
    shown = list(rows) if full else [row for row in rows if state_of(row) != "in_sync"][:_LISTED]
    for row in shown:
        yield f"  {row.name:<24}  {state_of(row):<10}  {row.commit[:SHOWN] or '-':<12}  {_when(row)}"
        yield from (f"      {target}: {title}" for target, _, title in row.troubles if full)


def counted(states: Mapping[str, int]) -> str:
    """Say how many stacks stand how, the most first."""
    return ", ".join(f"{number} {state}" for state, number in sorted(states.items(), key=lambda item: -item[1]))


def named(stacks: Sequence[str]) -> str:
    """Name a few of many stacks."""
    first, more = ", ".join(stacks[:5]), len(stacks) - 5
    return f"{first} and {more} more" if more > 0 else first


def _when(row: Row) -> str:
    if row.worker is not None:
        return f"at work: {row.worker}"
    if row.ended is None:
        return "not looked at yet"
    wait = f"in {row.waits:.0f} s" if row.waits > 0 else "now"
    home = "; waits for the worker that knows its refused login" if row.home else ""
    return f"{row.age:.0f} s ago, next {wait}{home}"


def runs(found: Sequence[Run]) -> str:
    """List cycles of a stack."""
    lines = [
        f"{run.generation:>6}  {run.began:%Y-%m-%dT%H:%M:%SZ}  {run.cause:<9}  {run.result or 'no end':<9}  "
        f"{run.revision[:SHOWN] or '-':<12}  {run.changed} changed  {run.worker}"
        + "".join(f"\n        {target}: {title}" for target, _, title in run.troubles)
        for run in found
    ]
    return "\n".join(map(values.escape, "\n".join(lines).splitlines())) or "No cycle of it has begun yet."


# -------------------------------------------------------------------------------------------------------- as documents
def document(rows: Sequence[Row], told: Summary) -> dict[str, Any]:
    """Return it as JSON has it."""
    return json.problems(told.problems) | {
        "format_version": "1.0",
        "total": told.total,
        "states": dict(told.states),
        "stalled": told.stalled,
        "suspended": told.suspended or None,
        "rings": {str(number): dict(states) for number, states in told.rings.items()},
        "causes": [{"target": it.target, "title": it.title, "stacks": list(it.stacks)} for it in told.causes],
        "stacks": [stack(row) for row in rows],
    }


def stack(row: Row) -> dict[str, Any]:
    """Return one stack as JSON has it."""
    return {
        "stack": row.name,
        "state": state_of(row),
        "since": _time(row.since),
        "stalled": row.stalled,
        "ring": row.ring,
        "group": row.worker_group,
        "commit": row.commit or None,
        "shared": row.shared or None,
        "pending": row.pending,
        "failures": row.failures,
        "worker": row.worker,
        "generation": row.generation,
        "proven": _time(row.proven),
        "ended": _time(row.ended),
        "seconds": row.seconds,
        "age": round(row.age, 1),
        "next": None if row.worker else round(row.waits, 1),
        "home": row.home,
        "troubles": [{"target": target, "title": title} for target, _, title in row.troubles],
    }


def history(found: Sequence[Run]) -> dict[str, Any]:
    """Return cycles as JSON has them."""
    names = ("generation", "worker", "cause", "result", "revision", "shared", "changed")
    listed = [
        {name: getattr(run, name) for name in names}
        | {"began": _time(run.began), "ended": _time(run.ended), "troubles": [title for _, _, title in run.troubles]}
        for run in found
    ]
    return {"format_version": "1.0", "cycles": listed}


def _time(moment: datetime | None) -> str | None:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if moment else None
