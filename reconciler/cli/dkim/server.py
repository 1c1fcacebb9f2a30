"""What Stalwart signs with, for the commands that look at keys alone."""

from __future__ import annotations

from collections.abc import Iterable

from reconciler.cli.session import Session
from reconciler.problem import Problem
from reconciler.reconcile import Work, observe
from reconciler.resources import Resource, Signature


def signatures(
    session: Session, work: Work, wanted: Iterable[Resource]
) -> tuple[tuple[Signature, ...] | None, tuple[Problem, ...]]:
    """Return every signature that Stalwart has, and what it reports; None in place of them where it can't be read."""
    session.console.step("Observing Stalwart")
    seen = observe(work, wanted)["stalwart"]
    if not seen.complete:
        return None, seen.problems
    return tuple(live.resource for live in seen.live if isinstance(live.resource, Signature)), seen.problems
