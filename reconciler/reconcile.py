"""The one interface to a system, and the way from observing to an empty second plan."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from reconciler.plan import Change
from reconciler.problem import Problem
from reconciler.resources import Observation, Resource, Secret

Reveal = Callable[[Secret], str]
"""From a secret's name to its value; raises `SecretUnreadable`. Only targets call it."""

Progress = Callable[[str], None]
"""Tells a person what is being waited for."""


class Status(enum.StrEnum):
    """How a change went."""

    DONE = "done"
    FAILED = "failed"
    UNKNOWN = "unknown"  # the answer was lost: only observing again can tell
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one change went; ``problem`` says why it did not, ``notes`` what else a person should know."""

    change: Change
    status: Status
    problem: Problem | None = None
    notes: tuple[str, ...] = ()


class Target(Protocol):
    """A system we keep in its desired state."""

    name: str

    def observe(self, wanted: Sequence[Resource], reveal: Reveal) -> Observation:
        """Read the live resources of our kinds, whosever they are.

        ``wanted`` are this target's desired resources as far as they are known before anything is observed (fields
        may be UNKNOWN): they say which zones, services and secrets matter. Secret fields of the result are verdicts.
        Never raises for a system's fault: what can't be read is a problem and an unread scope.
        """
        ...

    def apply(self, changes: Sequence[Change], reveal: Reveal) -> Iterator[Outcome]:
        """Carry out the changes of one phase, one outcome each. Doing it twice does no harm."""
        ...
