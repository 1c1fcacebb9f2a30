"""The fleet's metrics in Prometheus' text format, prefix `reconciler_fleet_`. No label holds an address or a stack.

They are the table's, so each worker tells the same: scrape one, or take the maximum.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from reconciler import __version__
from reconciler.daemon.document import Word
from reconciler.fleet.overview import Summary
from reconciler.fleet.table import Row

if TYPE_CHECKING:
    from prometheus_client.core import Metric

_WORDS = tuple(str(word) for word in Word)


def render(told: Summary, rows: Sequence[Row], interval: float, waiting: int, working: int) -> bytes:
    """Return them all.

    ``interval`` is from cycle to cycle of a stack, ``waiting`` jobs wait for a worker, ``working`` are at work.
    """
    from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

    class Collector:
        def collect(self) -> Iterator[Metric]:
            yield from _metrics(told, rows, interval, waiting, working)

    registry = CollectorRegistry()
    registry.register(Collector())
    ProcessCollector(registry=registry)
    return generate_latest(registry)


def _metrics(told: Summary, rows: Sequence[Row], interval: float, waiting: int, working: int) -> Iterator[Metric]:
    from prometheus_client.core import GaugeMetricFamily

    def gauge(name: str, help: str, value: float) -> Metric:
        return GaugeMetricFamily(f"reconciler_fleet_{name}", help, value=value)

    version = GaugeMetricFamily("reconciler_build_info", "The release.", labels=["version"])
    version.add_metric([__version__], 1)
    yield version
    states = GaugeMetricFamily("reconciler_fleet_stacks", "Stacks by ring and state.", labels=["ring", "state"])
    for ring, counted in told.rings.items():
        for word in _WORDS:
            states.add_metric([str(ring), word], counted.get(word, 0))
    yield states
    yield gauge("interval_seconds", "From cycle to cycle of a stack.", interval)
    yield gauge("stalled", "Stacks where a person is needed.", told.stalled)
    yield gauge("problems", "Why an inventory, a repository or a ring goes no further.", len(told.problems))
    yield gauge("causes", "Different things that are wrong, at however many stacks.", len(told.causes))
    yield gauge("oldest_seconds", "Since the cycle ended that ended longest ago.", told.oldest[1] if told.oldest else 0)
    yield gauge("slowest_seconds", "Of the last cycles the longest.", told.slowest[1] if told.slowest else 0)
    yield gauge("overdue_seconds", "How late the latest stack is.", max((-row.waits for row in rows), default=0.0))
    yield gauge("waiting", "Stacks that wait for a worker.", waiting)
    yield gauge("working", "Stacks that workers are at.", working)
    yield gauge("suspended", "Whether all of it is suspended.", bool(told.suspended))
