"""The one interface to a system: the changes it is given, and what it answers."""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from reconciler.problem import Problem
from reconciler.resources import (
    UNMANAGED,
    Account,
    Live,
    Observation,
    Resource,
    Same,
    Secret,
    SecretRef,
    Unreadable,
)

Reveal = Callable[[Secret], str]
"""From a secret's name to its value; raises `SecretUnreadable`. Only targets call it."""

Progress = Callable[[str], None]
"""Tells a person what is being waited for."""

Report = Callable[[Problem], None]
"""Takes note of a problem that does not end the reading of the rest."""

Stopped = Callable[[], bool]
"""Says whether a signal asks to end: what is under way is finished, nothing more is begun."""

Observations = Mapping[str, Observation]
"""What each target showed, by its name."""


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

    @property
    def words(self) -> str:
        """Say it to a person."""
        return {"secret_differs": "another secret is set", "not_in_desired": "no longer declared"}.get(self, str(self))


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between desired and live, and how it is mended.

    ``before`` is None for a creation, ``after`` for a deletion. ``fields`` maps a field's name to what is live and
    what is desired: it follows from the two, and whoever writes a change goes by it. ``needs`` are the addresses of
    changes without which this one must not happen. ``adopts`` says that the live resource is nobody's and becomes
    ours (Cloudflare: our mark is set in its comment). ``unsealed`` are the secrets that it would set anew and whose
    values are others than were agreed, each with the seal of its value.

    ``live`` is what may be shown of ``before``, and so are the live values in ``fields``: whoever tells a person of a
    change goes by these. Only targets, who need it to write, look at ``before`` itself.
    """

    address: str
    actions: tuple[Action, ...]
    reason: Reason
    before: Live | None = field(default=None, repr=False)
    after: Resource | None = None
    needs: frozenset[str] = frozenset()
    adopts: bool = False
    notes: tuple[str, ...] = ()
    unsealed: tuple[tuple[SecretRef, str], ...] = ()
    live: Resource | None = field(init=False, compare=False)
    fields: Mapping[str, tuple[Any, Any]] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        """Compare once, with what may be shown."""
        live = self.before.resource.disclosed(self.after) if self.before else None
        object.__setattr__(self, "live", live)
        object.__setattr__(self, "fields", _fields(live, self.after))

    @property
    def resource(self) -> Resource:
        """The resource it is about: the desired one, or the live one that goes."""
        if self.after is not None:
            return self.after
        if self.before is None:
            raise AssertionError(self.address)
        return self.before.resource

    @property
    def shown(self) -> Resource:
        """The same, as it may be shown."""
        return self.resource if self.live is None or self.after is not None else self.live

    @property
    def target(self) -> str:
        """The name of the target that carries it out."""
        return self.resource.target

    @property
    def kind(self) -> str:
        """The kind of its resource, the first part of its address."""
        return self.resource.kind

    @property
    def deletes(self) -> bool:
        """Whether something that exists is gone afterwards; a change of type at one name is no deletion."""
        return self.after is None

    @property
    def restarts(self) -> bool:
        """Whether only a restart is due: everything is stored, nothing is pending."""
        return self.actions == (Action.RESTART,)

    @property
    def sets(self) -> Iterator[SecretRef]:
        """The secrets whose values it writes."""
        for name in self.fields if self.after is not None else ():
            yield from self.after.set_by(name) if self.after is not None else ()

    @property
    def replaced(self) -> Iterator[SecretRef]:
        """Those of them that it sets anew at what is there already."""
        yield from self.sets if self.before is not None else ()

    @property
    def waits(self) -> bool:
        """Whether it can't be made before a value of it is known."""
        return self.after is not None and self.after.waits


def differences(desired: Resource, observed: Resource) -> dict[str, tuple[Any, Any]]:
    """Map the fields that are not as desired to what is live and what is desired.

    A field that the directory does not manage, or whose live value can't be told, does not differ.
    """
    found = {}
    for name, want in desired.values():
        have = getattr(observed, name)
        if want is UNMANAGED or have is UNMANAGED or want == have or isinstance(have, Unreadable):
            continue
        if isinstance(have, Same) and have.ref == want:
            continue
        found[name] = (have, want)
    return found


def _fields(before: Resource | None, after: Resource | None) -> dict[str, tuple[Any, Any]]:
    """Map the fields that a change is about to what is live and what is desired; None stands for what is not there."""
    if after is None:
        return {name: (have, None) for name, have in before.values() if have is not UNMANAGED} if before else {}
    if before is None:
        return {name: (None, want) for name, want in after.values() if want is not UNMANAGED}
    found = differences(after, before)
    others = {name: (getattr(before, name), getattr(after, name)) for name in after.identity if name in before.identity}
    others = {name: pair for name, pair in others.items() if pair[0] != pair[1]}
    return found | others if isinstance(after, Account) else others | found


def renewed(change: Change, live: Live | None) -> Change | None:
    """Bring a planned change up to date with what its target has just read in place of it, or with nothing there.

    None where nothing is left to do: what is to go is gone, or what should be is so.
    """
    if change.after is None:
        return replace(change, before=live) if live else None
    if live is None:
        return replace(change, before=None, actions=(Action.CREATE,))
    now = replace(change, before=live)
    if not now.fields and not now.adopts:
        return None
    retyped = change.actions == (Action.DELETE, Action.CREATE)
    return now if retyped or not now.fields else replace(now, actions=update_actions(now.fields))


def update_actions(fields: Mapping[str, Any]) -> tuple[Action, ...]:
    """Say what mends these fields of a resource that is there: where it only waits for it, a restart."""
    return (Action.RESTART,) if set(fields) == {"open"} else (Action.UPDATE,)


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
    """A system we keep in its desired state.

    ``libraries`` are what it imports when it observes: they have to be there before several do at once.
    """

    name: str

    @property
    def libraries(self) -> Collection[str]:
        """What observing imports, by name."""
        ...

    def observe(self, wanted: Sequence[Resource], reveal: Reveal) -> Observation:
        """Read the live resources of our kinds, whosever they are.

        ``wanted`` are this target's desired resources as far as they are known before anything is observed (fields
        may be UNKNOWN): they say which zones, services and secrets matter. Secret fields of the result are verdicts.
        Never raises for a system's fault: what can't be read is a problem and an unread scope.
        """
        ...

    def apply(self, changes: Sequence[Change], reveal: Reveal, stopped: Stopped) -> Iterator[Outcome]:
        """Carry out the changes of one phase, one outcome each. Doing it twice does no harm.

        ``stopped`` is asked before each write that can be left out; what then has no outcome was not begun.
        """
        ...
