"""`reconciler github`: what our action does at GitHub. Texts come out of files and the environment, never a script."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from reconciler import files, git
from reconciler.cli import session
from reconciler.cli.session import Session, environ
from reconciler.problem import Problem, ReconcilerError

if TYPE_CHECKING:
    from reconciler.github.api import Repository

_PATIENCE = 300.0  # seconds that a job may wait for GitHub's limits
_FILE = click.Path(path_type=Path, dir_okay=False)
_MAX_BODY = 1 << 20


def _like(pattern: str, example: str) -> Callable[[click.Context, click.Parameter, str], str]:
    """Make a callback that takes texts of one form."""

    def checked(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise click.BadParameter(f"write {example}")
        return value

    return checked


_COMMIT = _like("[0-9a-f]{40}|[0-9a-f]{64}", "the whole name of a commit: 40 of 0-9 and a-f")
_BRANCH = _like(r"(?!.*\.\.)[A-Za-z0-9_][A-Za-z0-9_./-]{0,200}", "the name of a branch, like main")
_STACK = _like("[a-z0-9-]{1,24}", "a stack's name: 1 to 24 of a-z, 0-9 and -")


def _seconds(_ctx: click.Context, _param: click.Parameter, value: str) -> float:
    from reconciler.desired.spec.targets import duration

    try:
        return float(duration(value))
    except ValueError:
        raise click.BadParameter("write it like 90s, 15m or 1h") from None


@click.group()
def command() -> None:
    """Do at GitHub what the workflows of `init --github` need.

    GITHUB_TOKEN, GITHUB_REPOSITORY and GITHUB_API_URL say where, as GitHub Actions sets them.
    """


def _repository(session: Session) -> Repository:
    from reconciler.github.api import Repository

    given = environ()
    token = given.get("GITHUB_TOKEN", "")
    session.console.redact = lambda text: text.replace(token, "***") if token else text
    return Repository.of(given.get("GITHUB_REPOSITORY", ""), token, given.get("GITHUB_API_URL", ""), _PATIENCE)


def _text(path: Path) -> str:
    try:
        return files.decoded(files.read(path, _MAX_BODY), path)
    except files.CannotRead as error:
        raise ReconcilerError(Problem(str(path), error.summary, error.hint)) from None


@command.command("comment")
@click.option("--pull", type=click.IntRange(min=1), required=True, help="The pull request's number.")
@click.option("--head", callback=_COMMIT, required=True, help="The commit that the text is about.")
@click.option("--body", type=_FILE, required=True, help="The text: what `plan --output markdown` printed.")
@click.option("--run", default="", metavar="URL", help="The job's run, which is linked.")
@session.command
def comment(session: Session, *, pull: int, head: str, body: Path, run: str) -> None:
    """Post the plan on a pull request, in place of the one posted before."""
    from reconciler.github import comments

    text = comments.with_foot(_text(body), head, run)
    done = comments.comment(_repository(session), pull, head, text)
    said = f"The comment on pull request {pull}: {done.what}. {done.url}".rstrip()
    session.console.result(said, {"format_version": "1.0", "comment": done.what, "url": done.url})


@command.command("issue")
@click.option("--plan", type=_FILE, required=True, help="The plan as JSON, which decides.")
@click.option("--body", type=_FILE, required=True, help="The same plan as Markdown.")
@session.command
def issue(session: Session, *, plan: Path, body: Path) -> int:
    """Open, bring up to date or close the issue about what differs from main."""
    from reconciler import http
    from reconciler.github import issues

    read = http.parsed(_text(plan).encode())
    verdict = issues.differs(read)
    done = issues.tell(_repository(session), read, _text(body))
    told = "" if verdict is not None else " Not everything could be read, so it was not closed."
    said = f"The issue about drift: {done.what}.{told} {done.url}".rstrip()
    session.console.result(said, {"format_version": "1.0", "issue": done.what, "url": done.url, "differs": verdict})
    return 0 if verdict is not None else 1


@command.command("wait")
@click.option(
    "--branch", callback=_BRANCH, default="main", show_default=True, help="Whose newest commit is waited for."
)
@click.option("--stack", callback=_STACK, required=True, help="Whose status: reconciler/STACK.")
@click.option("--limit", metavar="TIME", default="15m", show_default=True, callback=_seconds, help="At most so long.")
@session.command
def wait(session: Session, *, branch: str, stack: str, limit: float) -> int:
    """Wait until the daemon has put the newest commit of a branch in force. Ends with 1 where it could not."""
    from reconciler.github import statuses
    from reconciler.report import values

    def hear(text: str) -> None:
        session.console.note(values.escape(f"Waiting for {text}"))

    found = statuses.wait(_repository(session), branch, statuses.context(stack), limit, hear=hear)
    document = {"commit": found.commit, "state": str(found.word), "description": found.description}
    said = values.escape(f"{found.commit[:12]} {found.word}: {found.description}")
    session.console.result(said, {"format_version": "1.0", **document})
    return 0 if found.word is statuses.Word.SUCCESS else 1


@command.command("status")
@click.option("--commit", callback=_COMMIT, required=True, help="Of which commit.")
@click.option("--stack", callback=_STACK, required=True, help="Whose status: reconciler/STACK.")
@click.option("--result", "word", type=click.Choice(("pending", "success", "failure")), required=True, help="Which.")
@click.option("--description", default="", help="One sentence.")
@session.command
def status(session: Session, *, commit: str, stack: str, word: str, description: str) -> None:
    """Set a commit's status, as the daemon does where it applies."""
    from reconciler.github import statuses

    statuses.put(
        _repository(session), statuses.context(stack), statuses.Status(commit, statuses.Word(word), description)
    )
    session.console.result(f"{commit[:12]}: {word}", {"format_version": "1.0", "commit": commit, "state": word})


@command.command("approved")
@click.option("--commit", callback=_COMMIT, required=True, help="The tip that is to be applied.")
@click.option("--branch", callback=_BRANCH, default="main", show_default=True, help="The branch it is the tip of.")
@click.option("--stack", callback=_STACK, required=True, help="Whose plans.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="The folder for them.")
@session.command
def approved(session: Session, *, commit: str, branch: str, stack: str, out: Path) -> None:
    """Fetch the plans that the pull requests showed which were merged since the last revision put in force.

    What `reconciler apply` is told of them is printed, one argument a line.
    """
    from reconciler.github import artifacts, statuses

    git.refuse_leaving(out)
    found = artifacts.approved(_repository(session), commit, branch, statuses.context(stack))
    try:
        out.mkdir(parents=True, exist_ok=True)
        for number, content in found.plans.items():
            files.write(out / f"{number}.json", content, files.usual_mode())
    except OSError as error:
        raise ReconcilerError(Problem(str(out), f"can't be written: {error.strerror}", "name another")) from None
    arguments = found.arguments(out)
    session.console.result("\n".join(arguments), {"format_version": "1.0", "arguments": arguments})
