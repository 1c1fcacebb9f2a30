"""What a kind of Stalwart up to 0.15 says of itself; each has a file of its own."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from reconciler.reconcile import Progress, Report, Reveal
from reconciler.resources import Live, Resource
from reconciler.targets.stalwart.container import Container
from reconciler.targets.stalwart.survey import Omissions

Keys = Mapping[str, str]
"""Settings as the server has them: flat keys, and texts as values."""

Item = Mapping[str, Any]
"""A principal as the server lists it."""

R = TypeVar("R", bound=Resource)

PENDING = "reconciler.pending"
"""Names what we have stored and not yet put in force, in the server itself, so that a run that was killed between
writing and reloading is seen by the next one. It is gone after every reload without errors."""


def pending(stored: Keys) -> tuple[str, ...]:
    """List the keys that are stored and not in force."""
    return tuple(item for item in stored.get(PENDING, "").split(",") if item)


class Reading:
    """What one server has, and what is wanted of it.

    ``items`` are its principals, ``domains`` the names of its domains, ``keys`` its settings in force, ``leaving`` what
    is removed and in force until a reload. Secrets are revealed by ``reveal``, problems told to ``report``.
    """

    def __init__(
        self,
        items: Sequence[Item],
        stored: Keys,
        wanted: Sequence[Resource] = (),
        *,
        reveal: Reveal = lambda _: "",
        report: Report = lambda _: None,
        progress: Progress = lambda _: None,
    ) -> None:
        """Leave out what is stored and not in force: to us it isn't there yet."""
        waiting = frozenset(pending(stored))
        self.items, self.wanted = items, wanted
        self.domains = frozenset(item["name"] for item in items if item.get("type") == "domain")
        self.keys = {key: value for key, value in stored.items() if key not in waiting}
        self.leaving = waiting - stored.keys()
        self.reveal, self.report, self.progress = reveal, report, progress

    def of(self, kind: type[R]) -> list[R]:
        """Return what is wanted of one kind."""
        return [item for item in self.wanted if isinstance(item, kind)]


@dataclass(slots=True)
class Import:
    """What an import takes of one server. ``host`` is where its API is; the kinds fill in the rest of `Survey`."""

    items: Sequence[Item]
    keys: Keys
    out: Omissions
    host: str
    container: Container | None
    hashes: dict[str, str] = field(default_factory=dict)
    private_keys: dict[str, str] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)


class Kind(Generic[R]):
    """One kind: how what is live becomes a resource, and what an import takes of it."""

    resource: ClassVar[type[Resource]]

    def single(self, wanted: Sequence[Resource]) -> Iterable[str]:
        """Name the single keys that hold what is live of it."""
        del wanted
        return ()

    def live(self, reading: Reading) -> Iterator[Live]:
        """Yield what is live of it, and report what stands in the way of what is wanted."""
        raise NotImplementedError

    def imported(self, live: Sequence[Live], taken: Import) -> Iterator[Live]:
        """Yield what a directory can declare, and note what it can't."""
        del taken
        yield from live


@functools.cache
def fresh() -> dict[str, Any]:
    """Return the ``keys`` that a fresh 0.15.5 has by itself, learnt from a real one, and patterns of keys.

    They name what the server makes anew (``generated``), loads from its maker (``downloaded``), or has from where and
    how it was installed (``installation``).
    """
    found: dict[str, Any] = json.loads(Path(__file__).with_name("defaults.json").read_text("utf-8"))
    return found
