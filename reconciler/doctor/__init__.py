"""`doctor`: gathers evidence about one stack, once and side by side, and has every check judge it. Changes nothing."""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from reconciler import checks
from reconciler.checks.check import Finding, Unread
from reconciler.checks.evidence import Evidence
from reconciler.doctor import bans, container, names, probe, router, services, talks, traffic
from reconciler.doctor.together import together
from reconciler.plan import Plan
from reconciler.problem import ReconcilerError
from reconciler.reconcile import make_plan
from reconciler.stack import Stack

_SKEW = dt.timedelta(minutes=2)  # that a server's clock may be behind ours


@dataclass(frozen=True, slots=True)
class Wish:
    """What a person asks for besides: to follow mail ``since`` a time, and to send one to ``probe``.

    An empty address is a declared mailbox; None sends nothing.
    """

    since: dt.datetime | None = None
    probe: str | None = None


def examine(
    stack: Stack, only: Collection[str] = (), plan: Plan | None = None, wish: Wish = Wish()
) -> tuple[Finding, ...]:
    """Gather what the chosen checks need, and let them judge.

    ``plan`` is what was planned just now, where that was done. Never raises for a system's fault; `ReconcilerError` for
    a wish that can't be.
    """
    return checks.judge(gather(stack, {item.room for item in checks.chosen(only)}, plan, wish), only)


@dataclass(frozen=True, slots=True)
class _Given:
    """What the parts go by: the plan, a mail to send if a person asks for one, and since when mail is followed."""

    stack: Stack
    plan: Plan | Unread
    draft: probe.Draft | None
    since: dt.datetime | None


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of the evidence: the field it becomes, what a person calls it, the rooms of the checks that need it."""

    name: str
    called: str
    rooms: frozenset[str]
    gather: Callable[[_Given], Any]


_PARTS = (
    # SMTP and the router are judged by the container's log, too.
    _Part(
        "container",
        "the container",
        frozenset({"container", "smtp", "router"}),
        lambda given: container.gather(given.stack),
    ),
    _Part("services", "the services", frozenset({"services"}), lambda given: services.gather(given.stack)),
    _Part(
        "conversations",
        "the mail servers",
        frozenset({"smtp", "probe"}),
        lambda given: talks.gather(given.stack, given.plan, given.draft),
    ),
    _Part(
        "names",
        "the name servers",
        frozenset({"dns", "smtp", "router", "probe"}),
        lambda given: names.gather(given.stack, given.plan),
    ),
    _Part("router", "the router", frozenset({"router"}), lambda given: router.gather(given.stack)),
    _Part("blocked", "its bans", frozenset({"smtp"}), lambda given: bans.gather(given.stack, given.plan)),
    _Part(
        "traffic",
        "the queue",
        frozenset({"mail"}),
        lambda given: traffic.gather(given.stack, given.plan, given.since),
    ),
)


def gather(stack: Stack, rooms: Collection[str], plan: Plan | Unread | None = None, wish: Wish = Wish()) -> Evidence:
    """Gather the evidence of some rooms: the plan first, which the others go by, then all else side by side.

    A mail that was sent is read back last: its way takes longest, and its keys are asked for then.
    """
    if plan is None:
        stack.progress("Observing")
        plan = _had(stack, lambda: make_plan(stack))
    sends = wish.probe is not None and "probe" in rooms
    inbox = probe.opened(stack, probe.inbox(stack, wish.probe or "")) if sends else None
    given = _Given(stack, plan, probe.Draft(inbox) if inbox else None, wish.since)
    began, needed = dt.datetime.now(dt.UTC) - _SKEW, {room for room in rooms if sends or room != "probe"}
    wanted = {part.name: part for part in _PARTS if part.rooms & needed}

    def tell(names: Sequence[str]) -> None:
        if names:
            stack.progress(f"Looking at {', '.join(wanted[name].called for name in names)}")

    tell(list(wanted))
    works = {
        name: functools.partial(_had, stack, functools.partial(part.gather, given)) for name, part in wanted.items()
    }
    found = together(works, tell)
    if inbox is not None:
        stack.progress(f"Waiting for the mail at {inbox.address}")
        found["probes"] = _had(stack, lambda: probe.gather(stack, inbox, found.get("conversations"), began))
    return Evidence(plan=plan, now=dt.datetime.now(dt.UTC), generation=stack.generation or "jmap", **found)


def _had(stack: Stack, work: Callable[[], Any]) -> Any:
    """Return what a work returns, or why it could not."""
    try:
        return work()
    except ReconcilerError as error:
        return Unread("; ".join(map(str, error.problems)))
    except Exception as error:  # noqa: BLE001 (one part that nobody thought of must not spoil the others)
        return Unread(stack.bug("doctor", error).summary)
