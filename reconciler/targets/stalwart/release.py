"""What differs between Stalwart's releases: one `Release` for each that we know, with the names of what it has.

The rest of the code uses the names of 0.16.18. Where a release calls an object or a property otherwise, its entry
here says so, and `jmap.api` translates in both directions.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reconciler.problem import Problem, Severity


@dataclass(frozen=True, slots=True)
class Release:
    """One release of Stalwart.

    ``objects`` maps a name of ours to the release's own (``{"DkimSignature": "DkimKey"}``), ``properties`` those of an
    object, by our name of it (``{"Account": {"quotas": "limits"}}``). ``facts`` is the file, below this folder, of
    what a fresh server of this release makes by itself.
    """

    name: str
    generation: str
    facts: str
    objects: Mapping[str, str] = field(default_factory=dict)
    properties: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def version(self) -> tuple[int, int]:
        """Major and minor number; what only the third one tells apart is one release to us."""
        major, minor, *_ = self.name.split(".")
        return int(major), int(minor)

    def defaults(self) -> dict[str, Any]:
        """Return what a fresh server makes: from 0.16 its ``listeners`` and its ``objects`` as they are declared."""
        return _facts(self.facts)

    def object(self, name: str) -> str:
        """Return what this release calls an object."""
        return self.objects.get(name, name)

    def property(self, object: str, name: str) -> str:
        """Return what this release calls a property, or the first part of a path such as ``aliases/1``."""
        first, slash, rest = name.partition("/")
        return self.properties.get(object, {}).get(first, first) + slash + rest

    def ours(self, object: str, item: Mapping[str, Any]) -> dict[str, Any]:
        """Return an object as it was read, with our names of its properties."""
        names = {theirs: own for own, theirs in self.properties.get(object, {}).items()}
        return {names.get(key, key): value for key, value in item.items()}


@functools.cache
def _facts(file: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(__file__).parent / file).read_text("utf-8"))
    return found


REST = Release("0.15.5", "rest", "rest/defaults.json")
JMAP = Release("0.16.18", "jmap", "jmap/defaults.json")

KNOWN = (REST, JMAP)
"""All that we know, the oldest first."""


def unknown(version: tuple[int, int] | None, where: str) -> Problem | None:
    """Warn of a server whose image says that it is newer than all that we know; None where it says nothing."""
    newest = KNOWN[-1]
    if version is None or version <= newest.version:
        return None
    told = ".".join(map(str, version))
    summary = f"is of release {told}, which is not known here: it is read as {newest.name}, the newest known one"
    hint = "read the plan before you apply it, or stay with the known release"
    return Problem(where, summary, hint, Severity.WARNING)
