"""`reconciler doctor`: from symptoms to causes and remedies."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from reconciler.cli import session, times
from reconciler.cli.session import Session
from reconciler.problem import Problem, ReconcilerError

if TYPE_CHECKING:
    from reconciler.checks.check import Finding
    from reconciler.doctor import Wish
    from reconciler.stack import Stack

_WRONG = 7


@click.command()
@click.option("--only", multiple=True, metavar="ID", help="This check, or those of this room (dns); repeatable.")
@click.option("--list", "listed", is_flag=True, help="List the checks, and look at nothing.")
@click.option(
    "--since",
    type=times.seconds,
    metavar="TIME",
    help="Follow each mail of this time (5m, 2h) through the logs of the services and the server, and its queue. "
    "Addresses that the directory does not hold are masked; -v shows them.",
)
@click.option(
    "--probe",
    is_flag=False,
    flag_value="",
    metavar="[ADDRESS]",
    help="Send one mail with the login of each service, read it back and look at it. Without an address it goes to a "
    "declared mailbox, and is taken out of it again.",
)
@click.option(
    "--fix", is_flag=True, help="Apply what mends it, as apply, which shows it first; lift bans of our own addresses."
)
@click.option("-y", "--yes", is_flag=True, help="With --fix: do not ask; needed where there is no terminal.")
@session.command
def command(
    session: Session, *, only: tuple[str, ...], listed: bool, since: int | None, probe: str | None, fix: bool, yes: bool
) -> int:
    """Look why mail does not arrive, and say what to do.

    Changes nothing without --fix, and sends nothing without --probe. Ends with 0, 7 where something is wrong (warnings
    are not), or 1.
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
    wish = _wish(only, since, probe)
    findings = _examined(session, stack, only, wish)
    lifts = tuple(dict.fromkeys(entry for item in findings for entry in item.remedy.lifts))
    applies = any(report.is_applied(item) for item in findings)
    if fix and (lifts or applies):
        code = _applied(session, yes=yes) if applies else 0
        if not code and lifts:
            _lifted(session, lifts, yes=yes)
        return code or _code(_examined(session, session.stack(), only, wish))
    return _code(findings)


def _wish(only: Sequence[str], since: int | None, probe: str | None) -> Wish:
    """Say what is asked for besides. Raises `click.UsageError` where ``--only`` leaves its checks out."""
    from reconciler import checks
    from reconciler.doctor import Wish

    rooms = {item.room for item in checks.chosen(only)}
    for option, given, room in (("--since", since, "mail"), ("--probe", probe, "probe")):
        if given is not None and room not in rooms:
            raise click.UsageError(f"{option} is for the checks of {room}/, which --only leaves out: add --only {room}")
    return Wish(None if since is None else datetime.now(UTC) - timedelta(seconds=since), probe)


def _examined(session: Session, stack: Stack, only: Sequence[str], wish: Wish) -> tuple[Finding, ...]:
    from reconciler import checks
    from reconciler.doctor import gather
    from reconciler.report import doctor as report
    from reconciler.report import traffic as mail
    from reconciler.traffic import Traffic

    evidence = gather(stack, {item.room for item in checks.chosen(only)}, wish=wish)
    findings = checks.judge(evidence, only)
    session.console.done()
    text, document = report.text(stack.name, findings, session.style), report.document(findings)
    if isinstance(evidence.traffic, Traffic) and wish.since is not None:
        known = None if session.style.verbose else stack.addresses
        text = f"{mail.text(evidence.traffic, known, session.style)}\n{text}"
        document |= mail.document(evidence.traffic, known)
    session.console.result(text, document)
    return findings


def _code(findings: Sequence[Finding]) -> int:
    from reconciler.checks.check import Status

    return _WRONG if any(item.status is Status.ERROR for item in findings) else 0


def _applied(session: Session, *, yes: bool) -> int:
    """Apply what the directory wants, with what is observed anew; what is to be approved is held, as by `apply`."""
    from reconciler.cli import apply, approvals

    stack = session.stack()
    approvals.govern(session, stack, None, approvals.Given())
    return apply.settle(session, stack, yes=yes)


def _lifted(session: Session, entries: Sequence[str], *, yes: bool) -> None:
    """Lift bans of our own addresses, each by itself. Raises ReconcilerError without a yes."""
    from reconciler.doctor import bans
    from reconciler.report import values

    if not yes:
        _ask(session, f"Lift the ban of {values.escape(', '.join(entries))}?")
    for entry, gone in bans.lift(session.stack(), entries):
        said = "is not banned any more" if gone else "is banned again: what it does wrong goes on"
        session.console.text(f"{values.escape(entry)} {said}.")


def _ask(session: Session, question: str) -> None:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        hint = "read what it says, then call doctor --fix with --yes"
        raise ReconcilerError(Problem("doctor", "there is no terminal to ask on, so no ban was lifted", hint))
    session.console.done()
    if not click.confirm(question, err=True):
        raise ReconcilerError(Problem("doctor", "not confirmed, so no ban was lifted"))


def _known(only: Sequence[str]) -> None:
    """Refuse the name of a check that is none. Raises `click.UsageError`."""
    from reconciler import checks

    names = {*(item.id for item in checks.CHECKS), *(item.room for item in checks.CHECKS)}
    for name in only:
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            hint = f"did you mean {near[0]}?" if near else "`reconciler doctor --list` names all"
            raise click.UsageError(f"--only {name}: there is no such check; {hint}")
