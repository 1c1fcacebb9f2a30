"""What a kind of Stalwart up to 0.15 says of itself, and what those that are flat keys have in common."""

from __future__ import annotations

import functools
import json
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, takewhile
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from reconciler.desired.raw_keys import LOCAL_KEYS, in_config_file, list_of
from reconciler.resources import Live, Resource
from reconciler.target import Change, Progress, Report, Reveal
from reconciler.targets.stalwart.container import Container
from reconciler.targets.stalwart.survey import Omissions

Keys = Mapping[str, str]
"""Settings as the server has them: flat keys, and texts as values."""


class Stored(dict[str, str]):
    """Settings, of which those below a prefix are found without going through all: keys are many."""

    @functools.cached_property
    def _sorted(self) -> list[str]:
        return sorted(self)

    def below(self, prefix: str) -> list[str]:
        """List the keys that begin with a prefix, sorted. It is not for what is changed afterwards."""
        start = bisect_left(self._sorted, prefix)
        return list(takewhile(lambda key: key.startswith(prefix), islice(self._sorted, start, None)))


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

    ``items`` are its principals, ``domains`` the names of its domains, ``keys`` its settings in force, ``waiting``
    what is written or removed and not in force until a reload, ``roles`` those that were made there, None where that is
    not known, ``shown`` the key records that it would publish, ``file`` what config.toml has, None where that is not
    known. Secrets are revealed by ``reveal``, problems told to ``report``.
    """

    def __init__(
        self,
        items: Sequence[Item],
        stored: Keys,
        wanted: Sequence[Resource] = (),
        *,
        roles: Collection[str] | None = None,
        shown: Mapping[str, str] | None = None,
        file: Keys | None = None,
        reveal: Reveal = lambda _: "",
        report: Report = lambda _: None,
        progress: Progress = lambda _: None,
    ) -> None:
        """Leave out what is stored and not in force: to us it isn't there yet."""
        self.waiting = frozenset(pending(stored))
        self.items, self.wanted, self.roles = items, wanted, roles
        self.shown, self.file = shown or {}, file
        self.domains = frozenset(item["name"] for item in items if item.get("type") == "domain")
        self.keys = Stored((key, value) for key, value in stored.items() if key not in self.waiting)
        self.reveal, self.report, self.progress = reveal, report, progress

    def of(self, kind: type[R]) -> list[R]:
        """Return what is wanted of one kind."""
        return [item for item in self.wanted if isinstance(item, kind)]


@dataclass(slots=True)
class Import:
    """What an import takes of one server. ``host`` is where its API is; the kinds fill in the rest of `Survey`."""

    items: Sequence[Item]
    keys: Stored
    out: Omissions
    host: str
    container: Container | None
    hashes: dict[str, str] = field(default_factory=dict)
    private_keys: dict[str, str] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)

    @property
    def domains(self) -> frozenset[str]:
        """The names of the server's domains."""
        return frozenset(item["name"] for item in self.items if item.get("type") == "domain")


class Kind(Generic[R]):
    """One kind: how what is live becomes a resource, and what an import takes of it."""

    resource: ClassVar[type[Resource]]

    def single(self, wanted: Sequence[Resource]) -> Iterable[str]:
        """Name the single keys that hold what is live of it."""
        del wanted
        return ()

    def below(self, wanted: Sequence[Resource]) -> Iterable[str]:
        """Name what, besides its `prefixes`, the keys lie below that hold what is live of it."""
        del wanted
        return ()

    def live(self, reading: Reading) -> Iterator[Live]:
        """Yield what is live of it, and report what stands in the way of what is wanted."""
        raise NotImplementedError

    def imported(self, live: Sequence[Live], taken: Import) -> Iterator[Live]:
        """Yield what a directory can declare, and note what it can't."""
        del taken
        yield from live


# --------------------------------------------------------------------------------------------------------- flat keys
@dataclass(frozen=True, slots=True)
class Edit:
    """What one change does to the keys: those of ``drop`` are removed, then ``put`` is written.

    Only whole keys are named: clearing a prefix, even one with a final dot, can take a neighbour along. ``make`` is a
    signature that the server makes itself (id, algorithm, domain, selector), ``made`` the keys that it writes for it.
    ``also`` is noted beside the keys until it is in force. Edits of a lower ``rank`` are written first.
    """

    change: Change
    drop: tuple[str, ...] = ()
    put: Keys = field(default_factory=dict)
    make: tuple[str, str, str, str] | None = None
    made: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    rank: int = 1

    @property
    def touched(self) -> frozenset[str]:
        """Everything that is not as before afterwards."""
        return frozenset((*self.drop, *self.written))

    def concerns(self, key: str) -> bool:
        """Whether what the server says of a key is about this edit: its own key, or the list that one of them is in."""
        name = list_of(key) or key
        return key in self.touched or any(list_of(own) == name for own in self.touched)

    @property
    def noted(self) -> tuple[str, ...]:
        """What is noted until it is in force."""
        return (*sorted(self.touched), *self.also)

    @property
    def written(self) -> frozenset[str]:
        """Everything that is there afterwards because of it."""
        return frozenset((*self.put, *self.made))

    @property
    def local(self) -> bool:
        """Whether it is written to ``config.toml``."""
        return any(in_config_file(item) for item in self.touched)

    def operations(self) -> Iterator[dict[str, Any]]:
        """Yield it as the server takes it."""
        if self.drop:
            yield {"type": "delete", "keys": list(self.drop)}
        if self.put:
            yield insert(self.put)

    def undo(self, before: Keys) -> Edit:
        """Return the edit that puts back what was there before."""
        was = {key: before[key] for key in self.touched if key in before}
        return Edit(self.change, tuple(sorted(self.touched - was.keys())), was)

    def unlike(self, now: Keys, written: Collection[str]) -> list[str]:
        """List the keys that the server reads otherwise than this edit wants; ``written`` are those of all edits."""
        kept = [key for key in self.drop if key in now and key not in written]
        missing = [key for key in self.made if key.endswith(".private-key") and key not in now]
        return [*kept, *missing, *(key for key, value in self.put.items() if now.get(key) != value)]


def insert(values: Keys) -> dict[str, Any]:
    """Return the operation that writes keys. ``assert_empty`` is mandatory, and values are texts."""
    return {"type": "insert", "prefix": None, "values": [list(item) for item in values.items()], "assert_empty": False}


class KeyKind(Kind[R]):
    """A kind that the server keeps as flat keys: all changes of one apply go in one request, and a reload follows.

    What is live of it are the keys below ``prefixes``, and those that `single` names.
    """

    prefixes: ClassVar[tuple[str, ...]] = ()
    restarts: ClassVar[bool] = False
    """Whether a change of it is in force only after a restart."""

    def edit(self, change: Change, before: Stored, reveal: Reveal, others: Sequence[Change]) -> Edit:
        """Turn a change into an edit of keys. ``before`` is what is stored, ``others`` are all changes of this apply.

        Raises ValueError when it can't be done, `SecretUnreadable` when a secret can't be read.
        """
        raise NotImplementedError

    def in_database(self, resource: R) -> Iterable[str]:
        """Name the keys of it that must not stand in ``config.toml``, where they would always win."""
        del resource
        return ()

    def means(self, text: str, resource: R, live: Resource | None) -> bool:
        """Whether such a key in the file holds what is wanted all the same; ``live`` is what the server reads."""
        raise NotImplementedError


def overridden(kind: KeyKind[R], file: Keys, resource: R, live: Resource | None) -> Iterator[str]:
    """Yield the keys of the database that ``config.toml`` has otherwise than wanted: the file always wins."""
    own = [value for key, value in file.items() if key.startswith("config.local-keys.")]
    patterns = (*own, "config.local-keys.*") if own else LOCAL_KEYS
    for key in kind.in_database(resource):
        if key in file and not in_config_file(key, patterns) and not kind.means(file[key], resource, live):
            yield key


def text_of(value: Any) -> str:
    """Return a value as the server stores it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


@functools.cache
def fresh() -> dict[str, Any]:
    """Return the ``keys`` that a fresh 0.15.5 has by itself, learnt from a real one, and patterns of keys.

    They name what the server makes anew (``generated``), loads from its maker (``downloaded``), or has from where and
    how it was installed (``installation``).
    """
    found: dict[str, Any] = json.loads(Path(__file__).with_name("defaults.json").read_text("utf-8"))
    return found
