"""The options that `plan` and `apply` share: what a plan is narrowed to or widened by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click


def choices(decorated: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to a command."""
    for option in (
        click.option(
            "--check-passwords",
            is_flag=True,
            help="Log in once as each account (Stalwart from 0.16 shows no password).",
        ),
        click.option("--allow-deletes", type=click.IntRange(min=0), metavar="N", help="Allow up to N deletions, once."),
        click.option(
            "--adopt", multiple=True, metavar="ADDRESS", help="Take over what exists and differs; repeatable."
        ),
        click.option("--only", multiple=True, metavar="ADDRESS", help="This resource, and what it needs; repeatable."),
    ):
        decorated = option(decorated)
    return decorated
