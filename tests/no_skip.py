"""Where RECONCILER_NO_SKIP=1 is set, a skipped test is a failed run: CI has everything, so nothing may be missing.

A pytest plugin, loaded by ``pytest_plugins`` in the root ``conftest.py``. It works under pytest-xdist too: the
controlling process sees every report.
"""

from __future__ import annotations

import os

import pytest

_skipped: dict[str, str] = {}


def _forbidden() -> bool:
    return os.environ.get("RECONCILER_NO_SKIP") == "1"


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    return str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else str(report.longrepr)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        _skipped[report.nodeid] = _reason(report)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.skipped:
        _skipped[report.nodeid] = _reason(report)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _skipped and _forbidden() and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _skipped and _forbidden():
        terminalreporter.section("skipped, which RECONCILER_NO_SKIP=1 forbids", red=True)
        for name, reason in sorted(_skipped.items()):
            terminalreporter.line(f"{name}: {reason}", red=True)
