"""`reconciler doctor`: from symptoms to causes and remedies."""

from __future__ import annotations

import click

from reconciler.cli import session
from reconciler.cli.session import Session

_WRONG = 7


@click.command()
@click.option("--only", multiple=True, metavar="ID", help="This check, or those of this room (dns); repeatable.")
@click.option("--list", "listed", is_flag=True, help="List the checks, and look at nothing.")
@session.command
def command(session: Session, only: tuple[str, ...], *, listed: bool) -> int:
    """Look why mail does not arrive, and say what to do. Changes nothing. Ends with 7 where something is wrong."""
    from reconciler import checks
    from reconciler.report import doctor as report

    chosen = checks.chosen(only)
    _known(only)
    if listed:
        session.console.result(report.listing(chosen), report.catalogue(chosen))
        return 0
    from reconciler.checks.check import Status
    from reconciler.doctor import examine

    stack = session.stack()
    findings = examine(stack, only)
    session.console.done()
    session.console.result(report.text(stack.name, findings, session.style), report.document(findings))
    return _WRONG if any(item.status is Status.ERROR for item in findings) else 0


def _known(only: tuple[str, ...]) -> None:
    """Refuse the name of a check that is none. Raises `click.UsageError`."""
    import difflib

    from reconciler import checks

    names = [item.id for item in checks.CHECKS]
    known = {*names, *(item.room for item in checks.CHECKS)}
    for name in only:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else "`reconciler doctor --list` names all"
            raise click.UsageError(f"--only {name}: there is no such check; {hint}")
