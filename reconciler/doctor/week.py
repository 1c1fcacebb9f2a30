"""How much memory a container used in the last week: one figure an hour, kept in the data directory.

The engine tells of this moment alone. Whoever looks, the daemon or a person, adds to what is known; losing the file
loses this knowledge and nothing else.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reconciler import files

HOUR, WEEK = 3600, 7 * 24 * 3600


@dataclass(frozen=True, slots=True)
class Sample:
    """The most that was seen within an hour: ``at`` is its beginning in seconds since 1970, ``used`` are bytes."""

    at: int
    used: int


def noted(path: Path, container: str, used: int, now: float) -> tuple[Sample, ...]:
    """Add what a container uses now, and return what is known of its last week, the oldest first.

    Another container's figures say nothing of this one; its id tells them apart.
    """
    known, _ = files.recall(path, lambda document: _parsed(document, container))
    hours = {item.at: item.used for item in known or () if now - WEEK <= item.at <= now}
    hour = int(now) // HOUR * HOUR
    if used > hours.get(hour, 0):
        hours[hour] = used
        with contextlib.suppress(OSError):  # a disk that is full is told elsewhere
            files.make_private(path.parent)
            document = {"container": container, "hours": sorted(hours.items())}
            files.write_private(path, json.dumps(document).encode())
    return tuple(Sample(at, used) for at, used in sorted(hours.items()))


def _parsed(document: Any, container: str) -> tuple[Sample, ...]:
    if document["container"] != container:
        return ()
    return tuple(Sample(int(at), int(used)) for at, used in document["hours"])
