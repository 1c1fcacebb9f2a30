"""Metrics in Prometheus' text format, prefix `reconciler_`: https://prometheus.io/docs/instrumenting/exposition_formats/.

What happens is counted in plain numbers as each cycle ends; prometheus_client is imported by who first asks for it.
``provider`` is a target's name. No label holds an address or a value: there are as many series for a large directory as
for a small one.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from reconciler import __version__, http
from reconciler.checks.check import Status as CheckStatus
from reconciler.daemon.document import Word, seconds_since, standing
from reconciler.daemon.state import Cycle, Result, State, TargetState
from reconciler.failover import Failover
from reconciler.target import Change, Outcome, Status

if TYPE_CHECKING:
    from prometheus_client.core import Metric

_BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)  # seconds
_RESULTS = ("success", "error", "noop", "skipped")
_BAD = frozenset({Status.FAILED, Status.UNKNOWN})


@dataclass(slots=True)
class Tally:
    """What has happened since the start. `take` hears of each cycle that ended; any thread may read."""

    cycles: Counter[tuple[str, str]] = field(default_factory=Counter)  # by target and result
    changes: Counter[tuple[str, str, str]] = field(default_factory=Counter)  # by target, action and cause
    durations: Counter[float] = field(default_factory=Counter)  # by the bucket's end
    seconds: float = 0.0
    restores: int = 0
    blocked: int = 0
    failovers: int = 0
    _failover: Failover | None = None
    _blocked: frozenset[str] = frozenset()
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, state: State) -> None:
        """Count the cycle that ended with a state."""
        cycle = state.cycle
        if cycle is None:
            return
        with self._lock:
            self.seconds += cycle.seconds
            self.durations[next((end for end in _BUCKETS if cycle.seconds <= end), float("inf"))] += 1
            self.cycles.update((item.name, _result(item, cycle)) for item in state.targets)
            done = [item.change for item in cycle.outcomes if item.status is Status.DONE]
            self.changes.update(row for change in done for row in _rows(change, cycle))
            self.restores += len(cycle.lost & {change.target for change in done})
            blocked = frozenset(_blocked(state))
            self.blocked += len(blocked - self._blocked)
            self._blocked = blocked
            failover = state.provider.failover if state.provider else None
            self.failovers += failover is not None and failover != self._failover
            self._failover = failover

    def copied(self) -> Tally:
        """Return it as it is now."""
        with self._lock:
            counts = (Counter(self.cycles), Counter(self.changes), Counter(self.durations))
            return Tally(*counts, self.seconds, self.restores, self.blocked, self.failovers)


def _result(target: TargetState, cycle: Cycle) -> str:
    outcomes: list[Outcome] = [item for item in cycle.outcomes if item.change.target == target.name]
    if target.state == "unreadable" or any(item.status in _BAD for item in outcomes):
        return "error"
    if target.state == "held" or cycle.result in (Result.SUSPENDED, Result.BUSY):
        return "skipped"
    return "success" if outcomes else "noop"


def _rows(change: Change, cycle: Cycle) -> Iterator[tuple[str, str, str]]:
    cause = "restore" if change.target in cycle.lost else "drift" if change.address in cycle.drift else "git"
    yield from ((change.target, str(action), cause) for action in change.actions or ("adopt",))


def _blocked(state: State) -> Iterator[str]:
    """Yield the addresses that would be deleted, did a guard not refuse it."""
    refused = {item.name for item in state.targets if item.state == "refused"}
    changes = state.plan.changes if state.plan else ()
    yield from (change.address for change in changes if change.deletes and change.target in refused)


# -------------------------------------------------------------------------------------------------------- exposition
def render(tally: Tally, state: State, now: datetime) -> bytes:
    """Return all metrics as text."""
    from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
    from prometheus_client.registry import Collector

    class _Known(Collector):
        def collect(self) -> Iterator[Metric]:
            yield from _counted(tally.copied(), state)
            yield from _standing(state, now)
            yield from _source(state, now)
            yield from _requests()

    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    registry.register(_Known())
    return generate_latest(registry)


def _gauge(name: str, text: str, value: float) -> Metric:
    from prometheus_client.core import GaugeMetricFamily

    return GaugeMetricFamily(f"reconciler_{name}", text, value=value)


def _labelled(kind: str, name: str, text: str, labels: tuple[str, ...], rows: Any) -> Metric:
    """Make a family of ``gauge`` or ``counter`` from pairs of labels' values and a number."""
    from prometheus_client import core

    made: Any = {"gauge": core.GaugeMetricFamily, "counter": core.CounterMetricFamily}[kind]
    family: Metric = made(f"reconciler_{name}", text, labels=labels)
    for values, number in rows:
        family.add_metric(values, number)  # type: ignore[attr-defined]
    return family


def _counted(tally: Tally, state: State) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

    results = Counter({(item.name, result): 0 for item in state.targets for result in _RESULTS})
    results.update(tally.cycles)
    yield _labelled("counter", "reconcile", "Cycles, by how they went.", ("provider", "result"), results.items())
    yield _labelled(
        "counter",
        "changes_applied",
        "Changes made, by why: a revision, drift, or a lost volume.",
        ("provider", "action", "cause"),
        tally.changes.items(),
    )
    number, buckets = 0, []
    for end in (*_BUCKETS, float("inf")):
        number += tally.durations[end]
        buckets.append(("+Inf" if end == float("inf") else str(end), number))
    durations = HistogramMetricFamily(
        "reconciler_reconcile_duration_seconds", "How long cycles took.", labels=("provider", "phase")
    )
    durations.add_metric(("all", "cycle"), buckets, tally.seconds)
    yield durations
    yield CounterMetricFamily("reconciler_volume_restores", "Targets found empty and restored.", value=tally.restores)
    yield CounterMetricFamily("reconciler_deletes_blocked", "Deletions a guard refused.", value=tally.blocked)
    yield CounterMetricFamily("reconciler_provider_failovers", "Switches to the standby.", value=tally.failovers)


def _standing(state: State, now: datetime) -> Iterator[Metric]:
    build = (((__version__,), 1),)
    yield _labelled("gauge", "build_info", "The version that runs.", ("version",), build)
    yield _gauge("ready", "Whether everything is as desired.", float(standing(state) is Word.IN_SYNC))
    yield _gauge("suspended", "Whether a person suspended it.", float(state.suspended is not None))
    yield _gauge("contested_fields", "Fields that somebody else keeps changing back.", len(state.contested))
    yield _gauge("interval_seconds", "Seconds between two cycles.", state.interval)
    if state.cycle is not None:
        ended = _timestamp(state.cycle.ended, now)
        yield _gauge("last_reconcile_timestamp_seconds", "When a cycle last ended.", ended)
        held = state.cycle.result not in (Result.BUSY, Result.SUSPENDED)
        yield _gauge("lease_held", "Whether the lease was ours in the last cycle.", float(held))
    provider = ("provider",)
    succeeded = [((item.name,), _timestamp(item.succeeded, now)) for item in state.targets if item.succeeded]
    yield _labelled(
        "gauge", "last_success_timestamp_seconds", "When a target was last as desired.", provider, succeeded
    )
    failures = [((item.name,), item.failures) for item in state.targets]
    yield _labelled("gauge", "consecutive_failures", "Cycles in a row that failed there.", provider, failures)
    yield from _objects(state)
    yield from _provider(state)
    yield from _examination(state, now)


def _provider(state: State) -> Iterator[Metric]:
    """Tell of the SMTP provider that somebody stands in for; of one of which nothing is known only who is in use."""
    if state.provider is None:
        return
    names = (state.provider.provider, state.provider.to)
    if state.provider.taken is not None:
        rows = ((names[:1], float(state.provider.taken)),)
        yield _labelled("gauge", "provider_takes_mail", "Whether the provider takes mail.", ("smtp",), rows)
    over = ((names, float(state.provider.failover is not None)),)
    yield _labelled("gauge", "provider_failed_over", "Whether the standby is used in its place.", ("smtp", "to"), over)


def _examination(state: State, now: datetime) -> Iterator[Metric]:
    """Tell how the checks of the last `doctor` ended; nothing before the first one."""
    if not state.examined:
        return
    found = Counter(dict.fromkeys(CheckStatus, 0))
    found.update(item.status for item in state.findings)
    rows = [((str(status),), number) for status, number in found.items()]
    yield _labelled("gauge", "doctor_checks", "Checks of the last doctor, by how they ended.", ("status",), rows)
    yield _gauge("doctor_timestamp_seconds", "When doctor last ended.", _timestamp(state.examined, now))


def _objects(state: State) -> Iterator[Metric]:
    labels = ("provider", "kind")
    wanted = [fact.wanted for fact in state.facts.values() if fact.wanted is not None]
    managed = Counter((item.target, item.kind) for item in wanted)
    pending = Counter(dict.fromkeys(managed, 0))
    pending.update((item.target, item.kind) for item in (state.plan.pending if state.plan else ()))
    yield _labelled("gauge", "managed_objects", "Resources that are declared.", labels, managed.items())
    yield _labelled("gauge", "drift_objects", "Resources that are not as desired.", labels, pending.items())


def _source(state: State, now: datetime) -> Iterator[Metric]:
    good = state.source.revision
    if good is not None:
        row = (((good.commit, "true" if good.signer else "false"), 1),)
        yield _labelled("gauge", "source_info", "The revision that is healed to.", ("commit", "verified"), row)
    age = seconds_since(state.source.reached, now)
    if age is not None:
        yield _gauge("source_age_seconds", "Seconds since the source last answered.", age)
    failed = float(bool(state.source.problems))
    yield _gauge("source_failed", "Whether the newest revision can't be taken.", failed)


def _requests() -> Iterator[Metric]:
    from prometheus_client.core import SummaryMetricFamily

    rows = dict(http.spent)
    counts = [(key, number) for key, (number, _) in rows.items()]
    yield _labelled("counter", "api_requests", "HTTP requests, by status.", ("provider", "code"), counts)
    durations = SummaryMetricFamily(
        "reconciler_api_request_duration_seconds", "How long requests took.", labels=("provider",)
    )
    for name in sorted({name for name, _ in rows}):
        own = [value for (provider, _), value in rows.items() if provider == name]
        durations.add_metric((name,), sum(item[0] for item in own), sum(item[1] for item in own))
    yield durations
    left = [((name,), number) for name, number in dict(http.allowed).items()]
    text = "Requests that a system has last said that it takes for now."
    yield _labelled("gauge", "api_rate_limit_remaining", text, ("provider",), left)


def _timestamp(when: str, now: datetime) -> float:
    """Return a time of ours as seconds since 1970."""
    return now.timestamp() - (seconds_since(when, now) or 0.0)
