"""What the daemon knows after a cycle: the values that page, metrics, notices and `reconciler status` are made of.

Times are UTC in ISO 8601, as in the journal; durations are seconds.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from reconciler.checks.check import Finding
from reconciler.desired.load import Directory
from reconciler.failover import Failover
from reconciler.journal import Entry
from reconciler.plan import Plan
from reconciler.problem import Problem
from reconciler.reconcile import Fact
from reconciler.suspension import Suspension
from reconciler.target import Outcome


@dataclass(frozen=True, slots=True)
class Revision:
    """A whole and valid state of the directory, which may be healed to.

    Its ``policy`` is the one that counts for it: never looser than that of the revision before. Without git only
    ``directory`` is known. ``committer`` is who merged it; ``signer`` whose key signed it, empty where none was asked
    for.
    """

    directory: Directory
    commit: str = ""
    subject: str = ""
    author: str = ""
    committer: str = ""
    when: str = ""
    signer: str = ""


@dataclass(frozen=True, slots=True)
class Sourced:
    """What a source of desired state gives: the last good revision, and why nothing newer is taken.

    ``where`` is shown to people, so it holds no password. ``seen`` is the newest commit that was seen, good or not;
    ``reached`` when the source last answered, empty where it never did.
    """

    where: str
    branch: str = ""
    revision: Revision | None = None
    seen: str = ""
    reached: str = ""
    problems: tuple[Problem, ...] = ()


class Cause(enum.StrEnum):
    """Why a cycle began."""

    START = "start"
    INTERVAL = "interval"
    RETRY = "retry"  # a target's back-off is over
    REVISION = "revision"
    ENGINE = "engine"  # a watched container came, went or was recreated
    HANGUP = "hangup"  # SIGHUP
    REQUEST = "request"  # POST /reconcile
    FAILOVER = "failover"  # consumers are to be switched


class Result(enum.StrEnum):
    """How a cycle ended."""

    NOTHING = "nothing"  # everything is as desired
    DONE = "done"  # what differed was mended, and observing again found nothing left to do
    PARTIAL = "partial"  # something is left to do: refused, held back or failed
    FAILED = "failed"  # nothing could be done
    SUSPENDED = "suspended"  # it only looked
    BUSY = "busy"  # another reconciler holds the lease: it only looked
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Cycle:
    """One cycle, ended. ``outcomes`` are what it wrote; ``drift`` the addresses that no revision changed."""

    number: int
    cause: Cause
    began: str
    ended: str
    seconds: float
    result: Result
    outcomes: tuple[Outcome, ...] = ()
    drift: frozenset[str] = frozenset()
    lost: frozenset[str] = frozenset()
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class TargetState:
    """How one target stands.

    ``state`` is `reconcile.standing`'s word, or ``held`` where a person is needed, as after a refused login
    (``problem`` says for what); ``retry`` says when what failed is tried again. ``since`` is when that word began,
    ``succeeded`` when it was last as desired, ``failures`` how many cycles in a row failed there.
    """

    name: str
    state: str
    since: str
    pending: int = 0
    restarts: int = 0
    unread: tuple[str, ...] = ()
    failures: int = 0
    retry: str = ""
    succeeded: str = ""
    seconds: float = 0.0
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class Contest:
    """A field that somebody else keeps changing back: it is left alone for a while, and told with both values.

    ``ours`` and ``theirs`` are as they may be shown. ``until`` is when it is mended once more.
    """

    address: str
    field: str
    ours: str
    theirs: str
    times: int
    since: str
    until: str


@dataclass(frozen=True, slots=True)
class Loss:
    """A target that was found empty and was restored."""

    target: str
    when: str


@dataclass(frozen=True, slots=True)
class ProviderState:
    """How the provider stands that ``smtp.failover`` is about, and who stands in: ``to``.

    ``taken`` is whether it takes mail, None where that can't be told, and ``since`` when that began; ``why`` says what
    was seen, ``refused`` that it is the login. ``obstacles`` are why the standby can't be used although it is time,
    ``failover`` holds while it is used.
    """

    provider: str
    to: str
    taken: bool | None
    since: str = ""
    why: str = ""
    refused: bool = False
    obstacles: tuple[str, ...] = ()
    failover: Failover | None = None


@dataclass(frozen=True, slots=True)
class State:
    """Everything after a cycle. ``cycle`` is None before the first one has ended.

    ``plan`` is what is left to do, and ``facts`` what is known of each address; both are of the last time that the
    systems were looked at. ``losses`` are those of the last seven days, ``healed`` the last applies, oldest first.
    ``next`` is when the next cycle begins unless something wakes it. ``lease`` says who else is at work on the stack,
    as `Lease.holder` does; ``provider`` is None where nobody is to stand in for it. ``findings`` are those of the last
    `doctor`, which ended when ``examined`` says. ``problems`` are what a person should know beside what plan, source
    and targets tell.
    """

    stack: str
    started: str
    interval: float
    source: Sourced
    cycle: Cycle | None = None
    next: str = ""
    plan: Plan | None = None
    facts: Mapping[str, Fact] = field(default_factory=dict)
    targets: tuple[TargetState, ...] = ()
    contested: tuple[Contest, ...] = ()
    losses: tuple[Loss, ...] = ()
    suspended: Suspension | None = None
    healed: tuple[Entry, ...] = ()
    lease: Mapping[str, Any] | None = None
    provider: ProviderState | None = None
    findings: tuple[Finding, ...] = ()
    examined: str = ""
    problems: tuple[Problem, ...] = ()
