"""`reconciler diff`: what changes in meaning between two revisions, without a system and without a secret."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import click

from reconciler.cli import session
from reconciler.cli.session import Session
from reconciler.problem import InvalidDirectory, Problem, Severity

if TYPE_CHECKING:
    from reconciler.desired.committed import Repository
    from reconciler.desired.comparison import Comparison
    from reconciler.desired.load import Directory
    from reconciler.report.comparison import Sides

_CHANGED = 2
_TOLD = 20  # mistakes of a base that are named


@click.command()
@click.argument("base")
@click.argument("head", required=False)
@click.option("--detailed-exitcode", is_flag=True, help="End with 2 when something changes.")
@session.command
def command(session: Session, *, base: str, head: str | None, detailed_exitcode: bool) -> int:
    """Show what changes in meaning between two git revisions.

    HEAD left out means the files on disk. No system is asked and no secret is read; order, comments, anchors and the
    file that an entry stands in mean nothing.

    Ends with 0, 2 with --detailed-exitcode where something changes, or 3 where HEAD is invalid.
    """
    from reconciler.desired.committed import Repository
    from reconciler.desired.comparison import compare
    from reconciler.report.comparison import Sides

    repository = Repository.holding(session.settings.state, session.settings.environ)
    former, at_base, mistakes = _former(repository, base)
    wanted, at_head, warnings = _wanted(session, repository, head)
    found = compare(former, wanted)
    if chosen := session.options.target:
        told = tuple(item for item in found.differences if item.target is None or item.target in chosen)
        found = replace(found, differences=told)
    sides = Sides(wanted.spec.stack, repository.shown, at_base, at_head, (*mistakes, *warnings))
    _show(session, sides, found)
    return _CHANGED if detailed_exitcode and found.differences else 0


def _former(repository: Repository, revision: str) -> tuple[Directory | None, str, tuple[Problem, ...]]:
    """Return as much of a revision's directory as can be read: a mistake there must not hide what mends it."""
    from reconciler.desired.load import salvage

    with repository.at(revision) as written:
        directory, problems = salvage(written.path)
        told = [replace(written.named(item), severity=Severity.WARNING) for item in problems[:_TOLD]]
    if told:
        summary = f"is invalid ({len(problems)} mistakes): what is wrong there counts as not there"
        told.insert(0, Problem(revision, summary, "what HEAD mends shows as new", Severity.WARNING))
    return directory, written.commit, (*told, *repository.others(written.commit))


def _wanted(
    session: Session, repository: Repository, revision: str | None
) -> tuple[Directory, str, tuple[Problem, ...]]:
    from reconciler.desired.load import load

    if revision is None:
        return session.directory(), "", ()
    with repository.at(revision) as written:
        try:
            return load(written.path), written.commit, repository.others(written.commit)
        except InvalidDirectory as error:
            raise InvalidDirectory(*map(written.named, error.problems)) from None


def _show(session: Session, sides: Sides, found: Comparison) -> None:
    from reconciler.report import comparison

    if session.console.output == "json":
        session.console.document(comparison.document(sides, found))
    elif session.console.output == "markdown":
        session.console.text(comparison.page(sides, found))
    else:
        session.console.text(comparison.render(sides, found, session.style))
