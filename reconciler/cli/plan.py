"""`reconciler plan`: observe, and show what apply would do."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from reconciler import files
from reconciler.cli import approvals, session
from reconciler.cli.session import Session, choices
from reconciler.names import SHOWN
from reconciler.problem import InvalidDirectory, Problem, ReconcilerError

if TYPE_CHECKING:
    from reconciler.desired.load import Directory
    from reconciler.plan import Plan
    from reconciler.stack import Choice, Stack

_PENDING = 2


@click.command()
@choices
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Save the plan to apply it later.")
@click.option("--link-base", metavar="URL", help="Where the repository's files are shown, for links in Markdown.")
@click.option("--detailed-exitcode", is_flag=True, help="End with 2 when changes are pending.")
@click.option("--base", metavar="REV", help="Plan what is not merged: whom to trust is what this revision says.")
@click.option("--head", metavar="REV", help="The revision that is not merged (HEAD); with --base.")
@session.command
def command(
    session: Session,
    *,
    out: Path | None,
    link_base: str | None,
    detailed_exitcode: bool,
    base: str | None,
    head: str | None,
    **given: Any,
) -> int:
    """Show what apply would do.

    Nothing is written to any system. As Markdown it is the comment on a pull request; addresses lead to file and line,
    at GitHub where it runs in Actions.

    Where `policy.approval` is `plan` and a daemon with the same data directory knows what was agreed last, it says what
    would be held.

    With --base, a revision is planned that others wrote and nobody merged: systems, policy, compose files and secrets
    are those of the base, and what the revision says of these is shown and not used.

    Ends with 0, 1 where a system could not be read (the rest is shown), 3 where the directory is invalid, or 4 where a
    guard refuses the plan.
    """
    from reconciler.stack import Choice

    if head and not base:
        raise click.UsageError(
            "--head is the revision that is not merged: say with --base what it is to be merged into"
        )
    choice = Choice(session.options.target, **given)
    with _stack(session, choice, base, head or "HEAD") as stack:
        if base is None and out is None:  # what is saved is approved as a whole, and what is not merged by the merge
            approvals.preview(stack)
        plan = session.plan(stack)
        session.show(plan, choice, _links(session, stack.directory, plan, link_base))
        if out is not None:
            _save(session, stack, plan, out)
    return exit_code(plan, _PENDING if detailed_exitcode else 0)


@contextmanager
def _stack(session: Session, choice: Choice, base: str | None, head: str) -> Iterator[Stack]:
    if base is None:
        yield session.stack(choice=choice)
        return
    from reconciler.desired.committed import Repository

    repository = Repository.holding(session.settings.state, session.settings.environ)
    with ExitStack() as until:
        try:
            candidate = until.enter_context(repository.proposed(base, head))
        except InvalidDirectory as error:
            if session.console.output != "markdown":
                raise
            from reconciler.report import markdown

            # As the comment that it is: under the mark of the stack, which the work tree at the base names.
            session.console.text(markdown.unplanned(session.directory().spec.stack, head, error.problems))
            raise InvalidDirectory from None
        yield session.stack(choice=choice, candidate=candidate, revision=candidate.commit[:SHOWN])


def _links(session: Session, directory: Directory, plan: Plan, base: str | None) -> Mapping[str, str]:
    """Return links from the plan's addresses to their places, where they are shown."""
    if session.console.output != "markdown":
        return {}
    from reconciler.git import checkout
    from reconciler.report import links

    if base is not None and not links.is_base(base):
        raise click.UsageError("--link-base: is no http or https URL without blanks and brackets")
    real = Path(os.path.realpath(directory.path))
    folder = real.relative_to(checkout(real) or real.parent)
    where = links.actions_base(session.settings.environ, plan.revision) if base is None else base
    return links.links(directory, [change.address for change in plan.changes], folder, where)


def exit_code(plan: Plan, pending: int) -> int:
    """Return the code a plan ends with: refused, not complete, pending, or nothing to do."""
    if plan.refused:
        return 4
    if plan.unread or plan.errors:
        return 1
    return pending if plan.pending else 0


def _save(session: Session, stack: Stack, plan: Plan, path: Path) -> None:
    """Write the plan beside its place and move it there: a reader never sees half of it."""
    from reconciler import git
    from reconciler.report import json

    git.refuse_leaving(path.parent)  # a link in the file's own place is replaced
    led = path.parent.resolve()
    here = Path.cwd()
    if not os.path.normpath(path).startswith(("/", "..")) and not led.is_relative_to(here):
        hint = "name another file, or this one in full"
        raise ReconcilerError(Problem(str(path), f"a link leads it to {led}, so it was not written", hint))
    told = json.plan(plan, stack.choice.as_dict()) | {"seals": approvals.sealed(session, stack, plan)}
    text = json.dumps(json.redacted(told, session.console.redact))
    try:
        files.write(path, text.encode(), files.usual_mode())
    except OSError as error:
        raise ReconcilerError(Problem(str(path), f"can't be written: {error.strerror}", "name another file")) from None
    merged = f"To apply exactly this: reconciler apply {path}"
    session.console.note(f"Saved. {merged if plan.unmerged is None else 'It can not be applied: it is not merged.'}")
