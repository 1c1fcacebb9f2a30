"""`reconciler suspend`: have the daemon write nothing for a while."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime

import click

from reconciler.cli import session
from reconciler.cli.session import Session, environ
from reconciler.cli.times import moment
from reconciler.problem import Problem, ReconcilerError


@click.command()
@click.option("--reason", required=True, metavar="TEXT", help="Why; whoever looks is told.")
@click.option("--until", type=moment, metavar="TIME", help="When it ends by itself: 2h, 7d, or 2026-11-29T18:00.")
@session.command
def command(session: Session, *, reason: str, until: datetime | None) -> None:
    """Have the daemon write nothing for a while.

    It goes on looking and telling. What is being written now is finished. A person's apply is not stopped. Without
    --until it holds until `reconciler resume`.
    """
    from reconciler.journal import now, who
    from reconciler.report import values
    from reconciler.suspension import Suspension, suspend

    reason = " ".join(reason.split())
    if not reason:
        raise click.UsageError("--reason: say in a few words why")
    if until is not None and until <= datetime.now(UTC):
        raise click.UsageError("--until: that moment has passed")
    stack = stack_of(session)
    end = until.strftime("%Y-%m-%dT%H:%M:%SZ") if until else ""
    said = Suspension(reason, who(environ()), now(), end)
    former = suspend(session.data, stack, said)
    _note(session, stack, former is not None)
    document = {"format_version": "1.0", "stack": stack, "suspended": asdict(said)}
    session.console.result(values.escape(f"{stack} is {said}."), document)


def stack_of(session: Session) -> str:
    """Name the stack: the directory's, or, where that can't be read, the only one that was applied from here."""
    try:
        return str(session.directory().spec.stack)
    except ReconcilerError:
        known = [path.name.removeprefix("lease-") for path in session.data.glob("lease-*")]
        if len(known) != 1:
            raise
        return known[0]


def _note(session: Session, stack: str, again: bool) -> None:  # noqa: FBT001
    from reconciler.lease import Lease
    from reconciler.report import text

    if again:
        session.console.note("It was suspended before: this takes the place of that.")
    if (holder := Lease(session.data, stack).holder()) is not None:
        summary = f"is at work (process {holder['pid']} on {holder['host']}) and ends what it has begun"
        session.console.note(text.problem(Problem(holder["command"] or "reconciler", summary)))
