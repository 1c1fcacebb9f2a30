"""What differs between Stalwart's releases: one `Release` for each that we know, with the names of what it has.

The rest of the code uses the names of 0.16.18. Where a release calls an object or a property otherwise, its entry
here says so, and `jmap.api` translates in both directions. From 0.16 a server says which release it is by the
fingerprint of its schema (`schema`), and nothing else of it does (jmap-0.16.md, section 2).
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from reconciler.targets.stalwart.schema import Schema


@dataclass(frozen=True, slots=True)
class Release:
    """One release of Stalwart.

    ``objects`` maps a name of ours to the release's own (``{"DkimSignature": "DkimKey"}``), ``properties`` those of an
    object, by our name of it (``{"Account": {"quotas": "limits"}}``). ``facts`` is the file, below this folder, of
    what a fresh server of this release makes by itself. ``fingerprint`` is that of its schema, from 0.16. ``schema``
    is what the server has, in our names, where that is not what we know (`schema.known`). ``good`` is the day on which
    it was last found to work with this program, "" of one that was never.
    """

    name: str
    generation: str
    facts: str
    objects: Mapping[str, str] = field(default_factory=dict)
    properties: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    fingerprint: str = ""
    schema: Schema | None = None
    good: str = ""

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


REST = Release("0.15.5", "rest", "rest/defaults.json", good="2026-11-28")
JMAP = Release(
    "0.16.18",
    "jmap",
    "jmap/defaults.json",
    fingerprint="25gnm1_xB9bPk-puX9VTFMP1W5V-1muUWuK964-_uEw",
    good="2026-11-29",
)
NEXT = replace(JMAP, name="1.0.0", fingerprint="DDhRuZ-8HWWq6-vowwroCUlG1SuhKdNxfEx6wWOH8vY", good="")
"""A branch of August 2026 before 1.0.0, the nearest to it that was seen: what it has is asked of the server."""

_OTHERS: Mapping[str, str] = {
    "aJJKvnpsjjwAEzJ0eKDWdfSLK_RvBKsLhk8BwCq-7qA": "0.16.0",
    "_pIIRU33XTKDaP9kLFoPsYXayXbaRi79QFBUrdgixCY": "0.16.1",
    "BzNqAzrQXuc-FYcvnkey9hBXkjMDd9HrgWlyb4S9I7E": "0.16.3",
    "2-nY_zZI8RUaBuk0LUqvnkfBeJgPdViYvXF3xHDF7cI": "0.16.5",
    "nGrZtt6AUdU1bcCirQQzKiHbnluseipQ1zi4wqAu0AY": "0.16.8",
    "-bCNRlw73NjcmJBDrWwU7hhuRX8FL4IZLWsQ_-iZh0o": "0.16.9",
    "wtAcis1aWGGJNdxRmc-Mibt95tE_ulNQWxYULQ7a094": "0.16.10",
    "nvdIm9lmWr6eYd0LhUUTOCKQrZ6EP2w7aPmfNXw7qzI": "0.16.11",
    "lV3eX4039eN4Y1KtcoXv5vnm6_-nGt_bHuLB6jlkFZQ": "0.16.12",
    "sEuYGmxMEGuoMkdYNGUNw9kpFzscVRfeSRk44yRmcU8": "0.16.13",
    "qQQwt8D3vhw4vce7JomKDhDe2qHJF57xVqRrzVNvfoQ": "0.16.14",
    "MjKRgWQ7QGv43RPM0RInQz5vWEbl8tEbG7GbfVQ-hJg": "0.16.15",
    "qrkHgLr93kiURU26l8rguSd0PEsyxYI-FWo9nC3v_0Y": "0.16.16",
    "ST4-Htw_Qs0PG8gso3aBbpFcHQs1HSLULWG7iBAOz80": "0.16.17",
}
"""Names of releases that this program was never tried with, by their fingerprints: of several with one schema, the
newest. What they have is asked of the server. From the public repository, where the fingerprint lies beside the schema
(``resources/schema``)."""

KNOWN = (REST, JMAP)
"""All that this program was made for, the oldest first."""

PINS: Mapping[str, Release] = {release.generation: release for release in KNOWN if release.good}
"""What to pin today: for each generation the newest release that is known to be good, with the day it was seen so."""

MOVER = "0.16.27"
"""The release of 0.16 from which Stalwart's own program moves a store to 1.x, and to no other (releases.md)."""

_SINCE_1 = ("Exchange", "OAuthGrant", "IndexQueueStatus")  # objects that no 0.16 has (releases.md)


def recognised(fingerprint: str, schema: Schema | None = None) -> Release:
    """Return the release with this fingerprint: one that is not known has what ``schema`` says, and perhaps a name."""
    known = {release.fingerprint: release for release in (JMAP, NEXT)}.get(fingerprint)
    if known is JMAP:
        return JMAP
    found = known or replace(JMAP, name=_OTHERS.get(fingerprint, ""), fingerprint=fingerprint, good="")
    return found if schema is None else replace(found, schema=schema.ours(found.objects, found.properties))


def line(release: Release) -> str:
    """Return ``0.15``, ``0.16`` or ``1``: which releases store and name things alike."""
    if release.name:
        major, minor = release.version
        return str(major) if major else f"{major}.{minor}"
    later = release.schema is not None and any(map(release.schema.knows, _SINCE_1))
    return "1" if later else "0.16"
