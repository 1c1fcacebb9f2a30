"""One difference between what two directories say: values, for whoever compares and for whoever tells. Pure."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from reconciler.problem import Place
from reconciler.resources import UNMANAGED, Resource
from reconciler.target import Action, Reason


def differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Map what is said differently to both values; UNMANAGED stands for what is not said."""
    names = dict.fromkeys((*after, *before))
    pairs = {name: (before.get(name, UNMANAGED), after.get(name, UNMANAGED)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


class Risk(enum.StrEnum):
    """Why a person has to look at a difference; the words of the JSON."""

    TARGET = "target"  # which systems are spoken to, and how: all secrets go there
    POLICY = "policy"  # more may happen without being asked for
    HOST = "host"  # who gets a login, or whether its certificate counts
    DELETION = "deletion"
    MAIL_FLOW = "mail_flow"  # mail may be lost or refused


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference between two directories. ``before`` and ``after`` are all that they say of one thing, if anything.

    ``actions`` are what an apply would do to systems that are as the first one says; where there is none, what is no
    longer declared is left as it is. ``place`` is where the second one says it; ``of_base`` is whether it is where
    the first one did, as the second says nothing. ``resource`` is what it is about, None for what is no resource.
    """

    address: str
    kind: str
    target: str | None
    actions: tuple[Action, ...]
    reason: Reason
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None
    place: Place | None = None
    of_base: bool = False
    risks: tuple[Risk, ...] = ()
    notes: tuple[str, ...] = ()
    former: Resource | None = field(default=None, repr=False)
    resource: Resource | None = field(default=None, repr=False)

    @property
    def gone(self) -> bool:
        """Whether the second directory says nothing of it."""
        return self.after is None

    @property
    def fields(self) -> dict[str, tuple[Any, Any]]:
        """Map what is said differently to both values."""
        return differing(self.before or {}, self.after or {})
