"""`reconciler approve`: let through what the daemon holds."""

from __future__ import annotations

import click

from reconciler.cli import session
from reconciler.cli.approvals import Fingerprint
from reconciler.cli.session import Session, environ


@click.command()
@click.argument("fingerprint", type=Fingerprint(), nargs=-1, required=True)
@session.command
def command(session: Session, *, fingerprint: tuple[str, ...]) -> None:
    """Let changes through that the daemon holds.

    `reconciler status` and the daemon's page show the FINGERPRINT of each. The daemon applies them in its next cycle. A
    commit that changes the directory before that voids it. Ends with 4 where nothing of that fingerprint waits.
    """
    from reconciler.cli.suspend import stack_of
    from reconciler.daemon.approvals import approve
    from reconciler.journal import now, who
    from reconciler.report import values

    stack = stack_of(session)
    found = approve(session.data, stack, fingerprint, f"{who(environ())}, {now()}")
    document = {"format_version": "1.0", "stack": stack, "approved": found}
    lines = [f"Approved: {address}" for address in sorted(found)]
    session.console.result("\n".join(map(values.escape, lines)), document)
