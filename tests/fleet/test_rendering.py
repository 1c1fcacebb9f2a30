"""The fleet's pages as texts: what a database or an inventory names breaks out of no place."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from daemon.test_rendering import Outline

from reconciler.fleet import overview, page
from reconciler.fleet.table import Row, Run
from reconciler.problem import Problem
from reconciler.report import values
from reconciler.suspension import Suspension

NOW = datetime(2026, 11, 30, tzinfo=UTC)
HOSTILE = ["<script>alert(1)</script>", '"><img src=x onerror=x>', "' onmouseover='x", "{{ 7 * 7 }}", "\u202ex\x1b[2J"]


def pages(text: str) -> tuple[str, str]:
    """Render both with a text wherever somebody else may choose one."""
    row = Row(
        name="one",
        declared={"repo": text, "branch": text, "directory": text, "suspended": None},
        ring=0,
        worker_group=text,
        listed=True,
        suspended=None,
        cause=text,
        generation=1,
        worker=text,
        began=NOW,
        applying=text,
        state=text,
        since=NOW,
        stalled=True,
        home=text,
        taken={"commit": text},
        shared=text,
        tried=text,
        sound=True,
        failures=3,
        carried=None,
        troubles=((text, text, text),),
        pending=1,
        proven=NOW,
        ended=NOW,
        seconds=1.0,
        age=1.0,
        waits=-1e6,
        lasts=1.0,
    )
    told = overview.Summary(
        {text: 1},
        {0: {text: 1}},
        1,
        (overview.Cause(text, text, text, (text,), lasting=True),),
        ("one", 1.0),
        ("one", 1.0),
        (Problem(text, text, text),),
        str(Suspension(text, text, "2026-11-28T11:00:00Z")),
    )
    run = Run("one", 1, NOW, NOW, text, text, text, text, text, 1, ((text, text, text),))
    fleet = page._render("fleet.html", told=told, rows=[overview.stack(row)], rollout={})
    runs = overview.history([run])["cycles"]
    return fleet, page._render("stack.html", row=overview.stack(row), declared=row.declared, runs=runs)


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_changes_what_the_pages_are_made_of(text: str) -> None:
    for shown, calm in zip(pages(text), pages("x"), strict=True):
        found = Outline(shown)
        assert found.elements == Outline(calm).elements
        assert values.escape(text) in found.text
