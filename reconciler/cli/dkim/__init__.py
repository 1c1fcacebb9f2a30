"""`reconciler dkim`: keys and their lifecycle."""

from __future__ import annotations

import click

from reconciler.cli import options
from reconciler.cli.program import Lazy

COMMANDS = {
    "list": "reconciler.cli.dkim.list",
    "generate": "reconciler.cli.dkim.generate",
    "rotate": "reconciler.cli.dkim.rotate",
}


@click.command(cls=Lazy, modules=COMMANDS)
@options.common
def command() -> None:
    """DKIM keys: what is where, a new one, and the next step of a rotation."""
