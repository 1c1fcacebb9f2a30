"""`reconciler init`: a small directory to start from."""

from __future__ import annotations

import contextlib
import os
import platform
import re
from collections.abc import Iterator
from pathlib import Path

import click

from reconciler import files
from reconciler.cli import session
from reconciler.cli.session import Session
from reconciler.problem import Problem, ReconcilerError


@click.command()
@click.option("--stack", metavar="NAME", help="What it is called: the mark of its records. Default: a name of its own.")
@session.command
def command(session: Session, stack: str | None) -> None:
    """Write a small directory to start from. Nothing that exists is changed."""
    from reconciler.desired import starter
    from reconciler.report import values

    root = session.settings.state
    if stack is not None and not re.fullmatch(r"[a-z0-9-]{1,24}", stack):
        raise ReconcilerError(Problem("--stack", "is no stack's name", "1 to 24 of a-z, 0-9 and -"))
    stack = stack or starter.own_name(root.resolve(), platform.node())
    contents = starter.files(stack)
    with _held(root):
        taken = [name for name in contents if os.path.lexists(root / name)]
        if taken or any(root.glob("*.yaml")):
            summary = f"there is a directory already ({', '.join(taken) or 'it holds YAML'}), so nothing was written"
            raise ReconcilerError(Problem(str(root), summary, "name another with --state, or edit that one"))
        written = [_write(root / name, text) for name, text in contents.items()]
    listed = "\n".join(f"  {values.escape(str(path))}" for path in written)
    then = "Edit them, then: reconciler validate. Export the secrets they name, then: reconciler plan"
    said = f"Written, as the stack {stack}:\n{listed}\n\n{then}"
    session.console.result(said, {"format_version": "1.0", "stack": stack, "written": [str(path) for path in written]})


@contextlib.contextmanager
def _held(root: Path) -> Iterator[None]:
    """Make the directory, and let no other command write there. A link in its place could lead anywhere."""
    if root.is_symlink():
        raise ReconcilerError(Problem(str(root), "is a link, which is not followed", "name what it leads to"))
    with contextlib.ExitStack() as held:
        with _telling(root):
            root.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(files.locked(root.parent))
            root.mkdir(exist_ok=True)
        yield


@contextlib.contextmanager
def _telling(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        hint = "name a directory that can be written with --state"
        raise ReconcilerError(Problem(str(path), f"can't be written: {error.strerror}", hint)) from None


def _write(path: Path, text: str) -> Path:
    with _telling(path):
        files.create(path, text.encode(), files.usual_mode())
    return path
