"""Whom the mail server has banned, by its API: to be judged, and to be let in again where a person says so."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from reconciler import fence
from reconciler.checks.check import Unread
from reconciler.checks.evidence import Blocked
from reconciler.plan import Plan
from reconciler.stack import Stack
from reconciler.targets.stalwart import Stalwart


def gather(stack: Stack, plan: Plan | Unread) -> tuple[Blocked, ...] | Unread | None:
    """List the bans; None where no mail server takes part. One that could not be read is not asked again."""
    server = stack.targets.get("stalwart")
    if not isinstance(server, Stalwart):
        return None
    if isinstance(plan, Unread) or "stalwart" in plan.unread:
        return Unread("the mail server could not be read")
    return server.banned(stack.secrets)


def lift(stack: Stack, entries: Iterable[str]) -> Iterator[tuple[str, bool]]:
    """Let addresses in again, each by itself and under the lease, and say of each whether it is gone from the list.

    Nothing is deleted that is not listed in exactly these words. Raises `LeaseHeld` and `TargetUnreadable`.
    """
    server = stack.targets.get("stalwart")
    if not isinstance(server, Stalwart):
        return
    lease = stack.lease("reconciler doctor --fix")
    with lease, fence.within(lease):
        for entry in entries:
            server.lift(stack.secrets, entry)
            yield entry, all(item.entry != entry for item in server.banned(stack.secrets))
