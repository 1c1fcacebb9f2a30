"""`reconciler doctor`: from symptoms to causes and remedies."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from reconciler.cli import session
from reconciler.cli.session import Session

if TYPE_CHECKING:
    from reconciler.checks.check import Finding
    from reconciler.stack import Stack

_WRONG = 7


@click.command()
@click.option("--only", multiple=True, metavar="ID", help="This check, or those of this room (dns); repeatable.")
@click.option("--list", "listed", is_flag=True, help="List the checks, and look at nothing.")
@click.option("--fix", is_flag=True, help="Apply what mends it, where that does: as apply, which shows it first.")
@click.option("-y", "--yes", is_flag=True, help="With --fix: do not ask; needed where there is no terminal.")
@session.command
def command(session: Session, *, only: tuple[str, ...], listed: bool, fix: bool, yes: bool) -> int:
    """Look why mail does not arrive, and say what to do.

    Changes nothing without --fix. Ends with 0, 7 where something is wrong (warnings are not), or 1.
    """
    from reconciler import checks
    from reconciler.report import doctor as report

    _known(only)
    if listed:
        chosen = checks.chosen(only)
        session.console.result(report.listing(chosen), report.catalogue(chosen))
        return 0
    if fix and session.console.output != "text":
        raise click.UsageError(
            "--fix shows what it does as text: run `reconciler apply --output json`, then doctor again"
        )
    stack = session.stack()
    findings = _examined(session, stack, only)
    if fix and any(report.is_applied(item) for item in findings):
        return _mended(session, only, yes=yes)
    return _code(findings)


def _examined(session: Session, stack: Stack, only: Sequence[str]) -> tuple[Finding, ...]:
    from reconciler.doctor import examine
    from reconciler.report import doctor as report

    findings = examine(stack, only)
    session.console.done()
    session.console.result(report.text(stack.name, findings, session.style), report.document(findings))
    return findings


def _code(findings: Sequence[Finding]) -> int:
    from reconciler.checks.check import Status

    return _WRONG if any(item.status is Status.ERROR for item in findings) else 0


def _mended(session: Session, only: Sequence[str], *, yes: bool) -> int:
    """Apply what the directory wants, and look again: with what was observed anew."""
    from reconciler.cli import apply

    code = apply.settle(session, session.stack(), yes=yes)
    return code or _code(_examined(session, session.stack(), only))


def _known(only: Sequence[str]) -> None:
    """Refuse the name of a check that is none. Raises `click.UsageError`."""
    from reconciler import checks

    names = {*(item.id for item in checks.CHECKS), *(item.room for item in checks.CHECKS)}
    for name in only:
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            hint = f"did you mean {near[0]}?" if near else "`reconciler doctor --list` names all"
            raise click.UsageError(f"--only {name}: there is no such check; {hint}")
