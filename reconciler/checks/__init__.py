"""What `doctor` judges: one small pure function a check, over evidence that is gathered once for all of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from reconciler.checks import container, dns, mail, plan, probe, router, services, smtp, spf
from reconciler.checks.check import Check, Finding, find
from reconciler.checks.evidence import Evidence

CHECKS: tuple[Check[Any], ...] = (
    *plan.CHECKS,
    *container.CHECKS,
    *services.CHECKS,
    *smtp.CHECKS,
    *router.CHECKS,
    *dns.CHECKS,
    *spf.CHECKS,
    *mail.CHECKS,
    *probe.CHECKS,
)
"""Every check, in the order in which a mail goes: what is declared, the server, the service, the way out, the way
in, the names, what became of mail, and of one that was sent to see."""


def chosen(only: Collection[str]) -> Sequence[Check[Any]]:
    """Return the checks with these ids, or of these rooms (``dns``); all of them where none is named."""
    return [item for item in CHECKS if not only or item.id in only or item.room in only]


def judge(evidence: Evidence, only: Collection[str] = ()) -> tuple[Finding, ...]:
    """Let every chosen check judge the evidence. Asks nobody."""
    return tuple(find(item, evidence) for item in chosen(only))
