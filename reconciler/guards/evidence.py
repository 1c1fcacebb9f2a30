"""What guards look at, and how they say what they found. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from reconciler.dns.publication import Answers
from reconciler.dns.records import Hosts
from reconciler.plan import Desired, Plan
from reconciler.problem import Problem, Severity
from reconciler.resources import (
    Account,
    Addressee,
    Domain,
    Live,
    Login,
    Observation,
    Record,
    Resource,
    SecretRef,
    Variable,
)
from reconciler.target import Change, Reason


@dataclass(frozen=True, slots=True)
class Policy:
    """How far a plan may go.

    ``max_deletes`` is what the directory allows, ``allow_deletes`` what a person allows this once; ``administrator``
    is the account that the reconciler itself logs in as, ``username`` by which name, ``passwords`` where the passwords
    are that it tries with it, ``door`` the scheme and port by which it reaches the mail server.
    """

    max_deletes: int = 3
    allow_deletes: int | None = None
    prune: bool = True
    administrator: str = ""
    username: str = ""
    passwords: tuple[SecretRef, ...] = ()
    door: tuple[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Past:
    """What of all that guards ask about was this directory's before.

    ``applied`` was made or changed from here, ``committed`` was declared by a commit: None where that can't be told.
    """

    applied: frozenset[Resource] = frozenset()
    committed: frozenset[Resource] | None = None

    def knows(self, resource: Resource) -> bool:
        """Whether it was this directory's, as far as that can be told."""
        return resource in self.applied or resource in (self.committed or ())


@dataclass(frozen=True)  # without slots: what several guards ask for is worked out once
class Evidence:
    """All that guards look at: the plan, what it comes from, and which references hold a secret known to be public.

    ``answers`` is what the name servers said to `questions`, ``past`` what became known of what they ask about,
    ``today`` the day that counts as today.
    """

    plan: Plan
    desired: Desired
    observations: Mapping[str, Observation]
    policy: Policy
    public: frozenset[SecretRef] = frozenset()
    answers: Answers = field(default_factory=dict)
    past: Past = field(default_factory=Past)
    today: dt.date = field(default_factory=lambda: dt.datetime.now(dt.UTC).date())

    @property
    def live(self) -> Iterator[Live]:
        """Every live resource of every target."""
        for seen in self.observations.values():
            yield from seen.live

    def deletions(self) -> list[Change]:
        """The removals that follow from absence: what ``removed`` names was asked for."""
        return [item for item in self.plan.changes if item.deletes and item.reason is Reason.NOT_IN_DESIRED]

    def leaving(self) -> dict[str, Record]:
        """The records that would go because they bear our mark, by address: nobody declares them, or another type."""
        gone = ((change, change.before.resource) for change in self.plan.changes if change.before is not None)
        return {
            change.address if change.deletes else record.address: record
            for change, record in gone
            if isinstance(record, Record) and (change.after is None or change.resource.group != record.group)
        }

    def undeclared(self) -> Iterator[Resource]:
        """Yield the accounts, groups and lists that are live, that nobody declares, and that stay."""
        gone = {change.before.resource.address for change in self.plan.changes if change.before is not None}
        gone |= self.desired.removed
        for _, wanted, live in self.plan.compared:
            box = live.resource if live is not None and wanted is None else None
            if isinstance(box, Addressee) and box.address not in gone:
                yield box

    @cached_property
    def records(self) -> Sequence[Record]:
        """The DNS records there will be after the plan: live ones less those that go, and those that come."""
        gone = {id(change.before) for change in self.plan.changes if change.before is not None}
        stay = [live.resource for live in self.live if id(live) not in gone]
        come = [change.after for change in self.plan.changes if change.after is not None]
        return [item for item in (*stay, *come) if isinstance(item, Record)]

    @cached_property
    def hosts(self) -> Hosts:
        """These by their full names."""
        return Hosts(self.records)

    def logins(self) -> Iterator[tuple[Variable, Login]]:
        """Yield the variables that a consumer logs in by, and how."""
        for item in self.desired.resources:
            if isinstance(item, Variable) and item.login is not None:
                yield item, item.login

    def consumers(self, account: Account) -> Iterator[str]:
        """Yield the services that log in as an account: as the directory says, or by its name at a host of ours."""
        domains = [item.name for item in self.desired.resources if isinstance(item, Domain)]
        names = (account.name, account.login, *account.mailboxes)
        for item, login in self.logins():
            host = login.host.lower()  # a name of the compose network, or one in a mail domain of ours
            at_home = "." not in host or any(host == name or host.endswith(f".{name}") for name in domains)
            named = str(login.username or "").lower()
            by_name = login.account is None and at_home and named in names and bool(named)
            if by_name or login.account == account.name:
                yield item.service


def refuse(where: str, summary: str, hint: str, scope: str) -> Problem:
    """Make a reason to refuse a scope."""
    return Problem(where, summary, hint, Severity.REFUSED, scope)


def warn(where: str, summary: str, hint: str, scope: str = "") -> Problem:
    """Make a warning, which stops nothing."""
    return Problem(where, summary, hint, Severity.WARNING, scope)
