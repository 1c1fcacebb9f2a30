"""What a program costs: wall time, CPU time and peak memory of its whole process, from the kernel."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_LAUNCHER = (sys.executable, "-I", "-S", str(Path(__file__).with_name("launch.py")))


@dataclass(frozen=True, slots=True)
class Run:
    """One run: seconds of wall and CPU (user and system), peak memory in bytes, and what it printed."""

    wall: float
    cpu: float
    peak: int
    output: str
    errors: str


def run(command: Sequence[str], cwd: Path, environment: Mapping[str, str]) -> Run:
    """Run a program to its end. Raises `SystemExit` where it fails: a failure has no speed."""
    with tempfile.TemporaryFile("w+") as told, tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        subprocess.run(
            [*_LAUNCHER, str(told.fileno()), *command],
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            pass_fds=[told.fileno()],
            check=True,
        )
        for file in (told, out, err):
            file.seek(0)
        wall, cpu, peak, code = json.load(told)
        done = Run(wall, cpu, peak, out.read(), err.read())
    if code:
        sys.exit(f"{' '.join(command)} ended with {code}:\n{done.output[-2000:]}{done.errors[-2000:]}")
    return done


@dataclass(frozen=True, slots=True)
class Cost:
    """The runs of one program at one task, and the requests that one run made."""

    runs: tuple[Run, ...]
    reads: int = 0
    writes: int = 0

    @property
    def wall(self) -> float:
        """Median, in seconds."""
        return self._median(lambda item: item.wall)

    @property
    def walls(self) -> tuple[float, float]:
        """The fastest and the slowest run, in seconds."""
        walls = [item.wall for item in self.runs]
        return min(walls), max(walls)

    @property
    def cpu(self) -> float:
        """Median, in seconds."""
        return self._median(lambda item: item.cpu)

    @property
    def peak(self) -> float:
        """Median, in MB (10^6 bytes)."""
        return self._median(lambda item: item.peak) / 1e6

    def _median(self, measure: Callable[[Run], float]) -> float:
        return statistics.median(measure(item) for item in self.runs)
