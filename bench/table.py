"""`results.md`: what was measured, on what, and which goals are met."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from cost import Cost
from goals import Goal, Row

_HEAD = (
    "task",
    "records",
    "latency",
    "requests (writes)",
    "wall",
    "CPU",
    "peak",
    "octoDNS: requests (writes)",
    "wall",
    "CPU",
    "peak",
    "octoDNS ÷ ours: wall",
    "CPU",
    "peak",
    "goals",
)
_ABOUT = """\
Wall and CPU (user and system) are seconds of the whole process, interpreter and imports included, peak is its resident
memory in MB (10^6 bytes). Medians; in brackets the fastest and the slowest run. Requests are counted by the fakes,
which run in processes of their own; questions to name servers are not among them. The fake Cloudflare has the same
records for both (ours with our mark) and allows 200 operations in a batch; octoDNS has its best settings: pages of
5,000, no page rules, no check of the file's order.
At Stalwart 0.16 the requests without login (the probe that tells the generation, and those that wait for a restart) and
the login that a server without accounts refuses are told apart. A restore counts with its proof, the second plan, and
hashes each password, which is most of its CPU. At the daemon, wall and CPU are of one cycle, and CPU is its own; peak
is what is resident afterwards. At a lost volume and a push wall is from when the empty server answers (three seconds
after its container was made), or the push has ended, to the end of the cycle that proves all to be as desired."""


def render(root: Path, rows: Sequence[Row], reference: Sequence[str], load: float) -> str:
    """Write the whole page. ``load`` is the machine's before the first run."""
    lines = [_line(_HEAD), _line("---" for _ in _HEAD), *(_line(_cells(row)) for row in rows)]
    missed = sum(not goal.met(row) for row in rows for goal in row.goals)
    total = sum(len(row.goals) for row in rows)
    paragraphs = (
        "# What it costs",
        "Written by `make bench`.",
        _listed(_facts(root, load)),
        _ABOUT,
        f"{total - missed} of {total} goals are met.",
        "\n".join(lines),
        _listed(reference),
    )
    return "\n\n".join(paragraphs) + "\n"


def _listed(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(row: Row) -> tuple[str, ...]:
    size = f"{row.size:,}" if row.size else ""
    task = f"{row.task}; {row.note}" if row.note else row.task
    ratio = _ratio(row.ours, row.octodns) if row.octodns else ("", "", "")
    goals = "; ".join(_verdict(goal, row) for goal in row.goals)
    return (task, size, f"{row.latency * 1000:.0f} ms", *_cost(row.ours), *_cost(row.octodns), *ratio, goals)


def _cost(cost: Cost | None) -> tuple[str, str, str, str]:
    if cost is None:
        return ("", "", "", "")
    fastest, slowest = cost.walls
    spread = f" ({fastest:.2f}–{slowest:.2f})" if len(cost.runs) > 1 else ""
    return (
        f"{cost.reads + cost.writes:,} ({cost.writes:,})",
        f"{cost.wall:.2f}{spread}",
        f"{cost.cpu:.2f}",
        f"{cost.peak:.0f}",
    )


def _ratio(ours: Cost, octodns: Cost) -> tuple[str, str, str]:
    pairs = ((octodns.wall, ours.wall), (octodns.cpu, ours.cpu), (octodns.peak, ours.peak))
    wall, cpu, peak = (f"{there / here:.1f}" for there, here in pairs)
    return wall, cpu, peak


def _verdict(goal: Goal, row: Row) -> str:
    return f"{goal.text}: {'met' if goal.met(row) else '**not met**'}"


def _facts(root: Path, load: float) -> tuple[str, ...]:
    versions = ", ".join(_versions("mail-reconciler", "cloudflare", "octodns", "octodns-cloudflare"))
    return (
        f"revision {_revision(root)}, {datetime.now(UTC):%Y-%m-%d}",
        f"Python {platform.python_version()}, {versions}",
        f"{platform.system()} {platform.machine()}, {_processor()}, {os.cpu_count()} cores, {_memory()} GB of memory",
        f"load of the machine before the first run: {load:.1f}; wall times mean little where it exceeds the cores",
    )


def _versions(*names: str) -> Iterator[str]:
    """Name what is installed: the daemon is measured without octoDNS."""
    for name in names:
        with contextlib.suppress(PackageNotFoundError):
            yield f"{name} {version(name)}"


def _revision(root: Path) -> str:
    command = ["git", "-C", str(root), "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return "unknown"
    return done.stdout.strip() or "unknown"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown processor"
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or "unknown processor")


def _memory() -> str:
    return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9:.0f}"
