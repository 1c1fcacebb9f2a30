"""`reconciler resume`: let the daemon write again."""

from __future__ import annotations

from dataclasses import asdict

import click

from reconciler.cli import session
from reconciler.cli.session import Session
from reconciler.cli.suspend import stack_of


@click.command()
@session.command
def command(session: Session) -> None:
    """Let the daemon write again, from its next cycle on."""
    from reconciler.report import values
    from reconciler.suspension import resume

    stack = stack_of(session)
    former = resume(session.data, stack)
    said = f"{stack} goes on; it was {former}." if former else f"{stack} was not suspended."
    document = {"format_version": "1.0", "stack": stack, "was_suspended": asdict(former) if former else None}
    session.console.result(values.escape(said), document)
