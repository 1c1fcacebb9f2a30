"""`reconciler init`: a small directory to start from."""

from __future__ import annotations

from pathlib import Path

import click

from reconciler import files
from reconciler.cli import session
from reconciler.cli.session import Session
from reconciler.problem import Problem, ReconcilerError


@click.command()
@session.command
def command(session: Session) -> None:
    """Write a small directory to start from. Nothing that exists is changed."""
    from reconciler.desired import starter
    from reconciler.report import values

    root, contents = session.settings.state, starter.files()
    taken = [name for name in contents if (root / name).exists() or (root / name).is_symlink()]
    if taken or any(root.glob("*.yaml")):
        summary = f"there is a directory already ({', '.join(taken) or 'it holds YAML'}), so nothing was written"
        raise ReconcilerError(Problem(str(root), summary, "name another with --state, or edit that one"))
    written = [_write(root / name, text) for name, text in contents.items()]
    listed = "\n".join(f"  {values.escape(str(path))}" for path in written)
    said = f"Written:\n{listed}\n\nEdit them, export the secrets they name, then: reconciler plan"
    session.console.result(said, {"format_version": "1.0", "written": [str(path) for path in written]})


def _write(path: Path, text: str) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.create(path, text.encode(), files.usual_mode())
    except OSError as error:
        hint = "name a directory that can be written with --state"
        raise ReconcilerError(Problem(str(path), f"can't be written: {error.strerror}", hint)) from None
    return path
