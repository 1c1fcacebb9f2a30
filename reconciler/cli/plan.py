"""`reconciler plan`: observe, and show what apply would do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from reconciler import files
from reconciler.cli import session
from reconciler.cli.session import Session, choices
from reconciler.problem import Problem, ReconcilerError

if TYPE_CHECKING:
    from reconciler.plan import Plan
    from reconciler.stack import Choice

_PENDING = 2


@click.command()
@choices
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Save the plan to apply it later.")
@click.option("--detailed-exitcode", is_flag=True, help="End with 2 when changes are pending.")
@session.command
def command(session: Session, *, out: Path | None, detailed_exitcode: bool, **given: Any) -> int:
    """Show what apply would do.

    Nothing is written to any system.

    Ends with 0, 1 where a system could not be read (the rest is shown), 3 where the directory is invalid, or 4 where a
    guard refuses the plan.
    """
    from reconciler.stack import Choice

    choice = Choice(session.options.target, **given)
    plan = session.plan(session.stack(choice=choice))
    session.show(plan, choice)
    if out is not None:
        _save(session, plan, choice, out)
    return exit_code(plan, _PENDING if detailed_exitcode else 0)


def exit_code(plan: Plan, pending: int) -> int:
    """Return the code a plan ends with: refused, not complete, pending, or nothing to do."""
    if plan.refused:
        return 4
    if plan.unread or plan.errors:
        return 1
    return pending if plan.pending else 0


def _save(session: Session, plan: Plan, choice: Choice, path: Path) -> None:
    """Write the plan beside its place and move it there: a reader never sees half of it."""
    from reconciler.report import json

    led = path.parent.resolve()
    here = Path.cwd()
    if not os.path.normpath(path).startswith(("/", "..")) and not led.is_relative_to(here):
        hint = "name another file, or this one in full"
        raise ReconcilerError(Problem(str(path), f"a link leads it to {led}, so it was not written", hint))
    text = json.dumps(json.redacted(json.plan(plan, choice.as_dict()), session.console.redact))
    try:
        files.write(path, text.encode(), files.usual_mode())
    except OSError as error:
        raise ReconcilerError(Problem(str(path), f"can't be written: {error.strerror}", "name another file")) from None
    session.console.note(f"Saved. To apply exactly this: reconciler apply {path}")
