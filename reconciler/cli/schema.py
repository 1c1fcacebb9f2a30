"""`reconciler schema`: the JSON Schema of the directory, for editors."""

from __future__ import annotations

import click

from reconciler.cli import session
from reconciler.cli.session import Session


@click.command()
@session.command
def command(session: Session) -> None:
    """Print the JSON Schema of the directory.

    Editors take it for completion and checks.
    """
    from reconciler.desired.spec import schema

    session.console.document(schema())
