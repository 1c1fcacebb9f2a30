"""`reconciler import`: write the directory from what is live."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from reconciler import git
from reconciler.cli import session
from reconciler.cli.session import Session
from reconciler.settings import TARGETS

if TYPE_CHECKING:
    from reconciler.importing import Result


@click.command("import")
@click.option("--stalwart", metavar="URL", help="The mail server's management API.")
@click.option("--username", default="admin", show_default=True, help="Whom to log in as; STALWART_ADMIN_PASSWORD.")
@click.option("--container", metavar="NAME", help="The mail server's container (the compose project's).")
@click.option("--allow-plain-http", is_flag=True, help="Send the password over http:// to another machine.")
@click.option("--zone", "zones", metavar="ZONE", multiple=True, help="A Cloudflare zone; repeatable.")
@click.option("--compose", type=click.Path(path_type=Path), metavar="FILE", help="The compose file.")
@click.option("--env-file", type=click.Path(path_type=Path), help="Its env file (the one the containers run with).")
@click.option("--project", metavar="NAME", help="The compose project (Compose's own choice).")
@click.option("--stack", metavar="NAME", help="What marks our records (the compose project, or the zone).")
@click.option(
    "--store",
    metavar="WHERE",
    default="file:../secrets",
    show_default=True,
    help="Where secrets go: file:FOLDER, age:FOLDER or sops:FILE, relative to the directory.",
)
@click.option("--recipient", "recipients", multiple=True, help="Who can decrypt them (age and sops); repeatable.")
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="The directory to write (desired-state).")
@session.command
def command(session: Session, *, out: Path | None, **given: Any) -> None:
    """Write the directory from what is live.

    Nothing is changed in any system. Secrets go to the store, never into YAML; the credentials come from the
    environment: STALWART_ADMIN_PASSWORD and CLOUDFLARE_API_TOKEN.

    Ends with 0, 1 where a system could not be read, or 4 where the mail server is empty or lost.
    """
    from reconciler.importing import Request, import_
    from reconciler.secrets import Secrets

    settings = session.settings
    request = Request(out=out or settings.state, **given)
    secrets = Secrets(request.out, settings.environ)
    session.console.redact = secrets.redact
    result = import_(request, settings, secrets, hide=secrets.hide, progress=session.console.step)
    session.console.result(_said(session, result), _document(result))


def _said(session: Session, result: Result) -> str:
    from reconciler.report import text, values

    style = session.style
    width = max(map(len, result.files))
    lines = [values.escape(line) for line in session.settings.shown(TARGETS)]
    lines += [style.title(f"Written to {values.escape(str(result.out))}:")]
    lines += [f"  {name.ljust(width)}  {values.escape(what)}" for name, what in result.files.items()]
    if result.secrets:
        lines += ["", style.title("Secrets that are stored:")]
        lines += [f"  {values.escape(str(ref))}" for ref in result.secrets]
        lines += (
            ["  git does not keep them: back them up"] if any(ref.source == "file" for ref in result.secrets) else []
        )
    if result.notes:
        lines += ["", style.title("Left out, or worth knowing:")]
        lines += [text.problem(note, style) for note in result.notes]
    return "\n".join([*lines, "", *_next(session, result)])


def _next(session: Session, result: Result) -> list[str]:
    state = f" --state {result.out}" if result.out != session.settings.state else ""
    needed = " and ".join(result.environment)
    begun = "" if git.checkout(result.out.resolve()) else " (`git init` first: this is no repository yet)"
    lines = [session.style.title("Next:"), f"  read the files, and commit them{begun}"]
    lines += [f"  keep {needed} in the environment, to which the directory refers"] if needed else []
    lines += [f"  reconciler plan{state}"]
    marks = f"  reconciler apply{state}  (marks the DNS records as ours, and changes nothing)"
    return [*lines, *([marks] if "dns.yaml" in result.files else [])]


def _document(result: Result) -> dict[str, Any]:
    from reconciler.report import json

    return {
        "format_version": "1.0",
        "directory": str(result.out),
        "files": dict(result.files),
        "secrets": [str(ref) for ref in result.secrets],
        "environment": list(result.environment),
        "problems": [json.problem(note) for note in result.notes],
    }
