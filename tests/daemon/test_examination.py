"""The daemon's hourly doctor: when it looks, and what of it is told."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from daemon import states
from daemon.test_metrics import samples, value

from reconciler import doctor
from reconciler.checks import CHECKS
from reconciler.checks.check import Finding, Remedy, Status, Verdict, ok
from reconciler.daemon import page
from reconciler.daemon.cycle import Report
from reconciler.daemon.document import document
from reconciler.daemon.examination import EACH, FIRST, Examination
from reconciler.daemon.metrics import Tally
from reconciler.daemon.state import Result
from reconciler.plan import Plan

NOW = datetime(2026, 11, 28, 12, 1, 0, tzinfo=UTC)
CALM = Report(Result.NOTHING, Plan("mana"))


def found(status: Status, remedy: Remedy = Remedy("do this")) -> Finding:  # noqa: B008 (frozen)
    return Finding(CHECKS[-1], Verdict(status, f"it is {status}", remedy=remedy))


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Collect what `doctor` is asked."""
    asked: list[Any] = []

    def examine(stack: Any, only: Any, plan: Any) -> tuple[Finding, ...]:
        asked.append((stack, only, plan))
        return (found(Status.ERROR),)

    monkeypatch.setattr(doctor, "examine", examine)
    return asked


def test_it_looks_a_while_after_the_start_and_then_each_hour(looked: list[Any]) -> None:
    examination, stack = Examination(), object()
    for now, times in ((0.0, 0), (FIRST - 1, 0), (FIRST, 1), (FIRST + 1, 1), (FIRST + EACH, 2)):
        examination.look(stack, CALM, now)  # type: ignore[arg-type]
        assert len(looked) == times, now
    assert looked[0][2] is CALM.plan
    assert "plan" not in looked[0][1]


@pytest.mark.parametrize("result", [Result.PARTIAL, Result.FAILED, Result.SUSPENDED, Result.BUSY, Result.STOPPED])
def test_it_waits_while_something_is_left_to_do(looked: list[Any], result: Result) -> None:
    examination, stack = Examination(), object()
    examination.look(stack, CALM, 0.0)  # type: ignore[arg-type]
    examination.look(stack, replace(CALM, result=result), FIRST)  # type: ignore[arg-type]
    assert not looked
    examination.look(stack, CALM, FIRST + 1)  # type: ignore[arg-type]
    assert looked


def test_what_an_apply_mends_and_what_is_well_is_not_told() -> None:
    mended = Remedy("apply", "reconciler apply")
    examination = Examination(
        (found(Status.ERROR), found(Status.WARN, mended), found(Status.UNKNOWN), found(Status.OK))
    )
    (told,) = examination.problems()
    assert (told.where, told.summary, told.hint) == (CHECKS[-1].id, "it is error", "do this")


def test_page_document_and_metrics_show_it() -> None:
    findings = (Finding(CHECKS[0], ok("fine")), found(Status.UNKNOWN), found(Status.ERROR))
    state = states.calm(findings=findings, examined="2026-11-28T12:00:00Z")
    shown = document(state, NOW)
    assert [item["status"] for item in shown["checks"]] == ["ok", "unknown", "error"]
    assert shown["examined"] == "2026-11-28T12:00:00Z"
    text = page.render(shown, "", NOW)
    assert "1 of 3 checks found nothing wrong" in text
    assert "it is unknown" in text
    numbers = samples(Tally(), state)
    assert value(numbers, "doctor_checks", status="error") == 1
    assert value(numbers, "doctor_checks", status="warn") == 0
    assert value(numbers, "doctor_timestamp_seconds") == datetime(2026, 11, 28, 12, tzinfo=UTC).timestamp()
    assert "doctor-title" not in page.render(document(states.calm(), NOW), "", NOW)
