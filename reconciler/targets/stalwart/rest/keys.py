"""Flat keys: what signatures, settings, allowed addresses and listeners of Stalwart up to 0.15 have in common."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from reconciler.desired.stalwart import LOCAL_KEYS, in_config_file
from reconciler.plan import Change
from reconciler.reconcile import Reveal
from reconciler.targets.stalwart.rest.kind import Keys, Kind, R


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

    def edit(self, change: Change, before: Keys, reveal: Reveal, others: Sequence[Change]) -> Edit:
        """Turn a change into an edit of keys. ``before`` is what is stored, ``others`` are all changes of this apply.

        Raises ValueError when it can't be done, `SecretUnreadable` when a secret can't be read.
        """
        raise NotImplementedError

    def in_database(self, resource: R) -> Iterable[str]:
        """Name the keys of it that must not stand in ``config.toml``, where they would always win."""
        del resource
        return ()

    def means(self, text: str, resource: R) -> bool:
        """Whether such a key in the file holds what is wanted all the same."""
        raise NotImplementedError


def overridden(kind: KeyKind[R], file: Keys, resource: R) -> Iterator[str]:
    """Yield the keys of the database that ``config.toml`` has otherwise than wanted: the file always wins."""
    own = [value for key, value in file.items() if key.startswith("config.local-keys.")]
    patterns = (*own, "config.local-keys.*") if own else LOCAL_KEYS
    for key in kind.in_database(resource):
        if key in file and not in_config_file(key, patterns) and not kind.means(file[key], resource):
            yield key


def text_of(value: Any) -> str:
    """Return a value as the server stores it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
