"""What has to change so that the live systems are as desired. Pure: values in, a `Plan` out."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from reconciler.resources import Live, Resource


class Action(enum.StrEnum):
    """What is done to a resource; the words of the plan's JSON."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"
    RESTART = "restart"


class Reason(enum.StrEnum):
    """Why; the words of the plan's JSON."""

    MISSING = "missing"
    LOST = "lost"
    DIFFERS = "differs"
    SECRET_DIFFERS = "secret_differs"  # noqa: S105 (a word, not a secret)
    NOT_IN_DESIRED = "not_in_desired"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between desired and live, and how it is mended.

    ``before`` is None for a creation, ``after`` for a deletion. ``fields`` maps a field's name to what is live and
    what is desired. ``needs`` are the addresses of changes without which this one must not happen. ``adopts`` says
    that the live resource is nobody's and becomes ours (Cloudflare: our mark is set in its comment).
    """

    address: str
    actions: tuple[Action, ...]
    reason: Reason
    before: Live | None = None
    after: Resource | None = None
    fields: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    needs: frozenset[str] = frozenset()
    adopts: bool = False
    notes: tuple[str, ...] = ()

    @property
    def resource(self) -> Resource:
        """The resource it is about: the desired one, or the live one that goes."""
        if self.after is not None:
            return self.after
        if self.before is None:
            raise AssertionError(self.address)
        return self.before.resource

    @property
    def target(self) -> str:
        """The name of the target that carries it out."""
        return self.resource.target

    @property
    def kind(self) -> str:
        """The kind of its resource, the first part of its address."""
        return self.resource.kind
