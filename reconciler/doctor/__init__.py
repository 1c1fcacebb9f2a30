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

_CALLED = {
    "container": "the container",
    "services": "the services",
    "conversations": "the mail servers",
    "names": "the name servers",
    "router": "the router",
    "blocked": "its bans",
    "traffic": "the queue",
}
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


def gather(stack: Stack, rooms: Collection[str], plan: Plan | Unread | None = None, wish: Wish = Wish()) -> Evidence:
    """Gather the evidence of some rooms: the plan first, which the others go by, then all else side by side.

    A mail that was sent is read back last: its way takes longest, and its keys are asked for then.
    """
    if plan is None:
        stack.progress("Observing")
        plan = _had(stack, lambda: make_plan(stack))
    sends = wish.probe is not None and "probe" in rooms
    target = probe.opened(stack, probe.target(stack, wish.probe or "")) if sends else None
    draft, began = probe.Draft(target) if target else None, dt.datetime.now(dt.UTC) - _SKEW
    # With the rooms that need them: SMTP and the router are judged by the container's log, too.
    works: dict[str, tuple[set[str], Callable[[], Any]]] = {
        "container": ({"container", "smtp", "router"}, lambda: container.gather(stack)),
        "services": ({"services"}, lambda: services.gather(stack)),
        "conversations": ({"smtp", *({"probe"} if sends else ())}, lambda: talks.gather(stack, plan, draft)),
        "names": ({"dns", "smtp", "router", *({"probe"} if sends else ())}, lambda: names.gather(stack, plan)),
        "router": ({"router"}, lambda: router.gather(stack)),
        "blocked": ({"smtp"}, lambda: bans.gather(stack, plan)),
        "traffic": ({"mail"}, lambda: traffic.gather(stack, plan, wish.since)),
    }
    wanted = {name: work for name, (needed, work) in works.items() if needed & set(rooms)}
    _tell(stack, list(wanted))
    had = {name: functools.partial(_had, stack, work) for name, work in wanted.items()}
    found = together(had, functools.partial(_tell, stack))
    if target is not None:
        stack.progress(f"Waiting for the mail at {target.address}")
        found["probes"] = _had(stack, lambda: probe.gather(stack, target, found.get("conversations"), began))
    return Evidence(
        plan=plan,
        container=found.get("container"),
        services=found.get("services"),
        conversations=found.get("conversations"),
        names=found.get("names"),
        router=found.get("router"),
        blocked=found.get("blocked"),
        now=dt.datetime.now(dt.UTC),
        probes=found.get("probes"),
        traffic=found.get("traffic"),
        generation=stack.generation or "jmap",
    )


def _tell(stack: Stack, names: Sequence[str]) -> None:
    if names:
        stack.progress(f"Looking at {', '.join(_CALLED[name] for name in names)}")


def _had(stack: Stack, work: Callable[[], Any]) -> Any:
    """Return what a work returns, or why it could not."""
    try:
        return work()
    except ReconcilerError as error:
        return Unread("; ".join(map(str, error.problems)))
    except Exception as error:  # noqa: BLE001 (one part that nobody thought of must not spoil the others)
        return Unread(stack.bug("doctor", error).summary)
