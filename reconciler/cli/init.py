"""`reconciler init`: a small directory to start from."""

from __future__ import annotations

import contextlib
import getpass
import os
import platform
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from reconciler import files, git
from reconciler.cli import session
from reconciler.cli.session import Session
from reconciler.problem import Problem, ReconcilerError


@click.command()
@click.option("--stack", metavar="NAME", help="What it is called: the mark of its records. Default: a name of its own.")
@click.option(
    "--service",
    type=click.Choice(("systemd", "launchd", "compose")),
    help="Write what has the daemon run as a service.",
)
@click.option("--github", is_flag=True, help="Write an action and workflows for GitHub, pinned to this release.")
@click.option(
    "--apply",
    "way",
    type=click.Choice(("daemon", "push", "runner")),
    default="daemon",
    show_default=True,
    help="With --github: who applies what is merged.",
)
@click.option("--example", is_flag=True, help="Write a whole example to try with `reconciler simulate`.")
@click.option("--branch", default="main", show_default=True, help="With --github: the branch that is put in force.")
@session.command
def command(
    session: Session,
    *,
    stack: str | None,
    service: str | None,
    github: bool,
    way: str,
    example: bool,
    branch: str,
) -> None:
    """Write a small directory to start from. Nothing that exists is changed.

    With --example it writes a whole one, with a compose file, keys and secrets of its own, to play with. With
    --service it writes into the current folder what has the daemon run for that directory as a service; with --github
    the workflows that plan pull requests and apply what is merged (docs/github.md).
    """
    from reconciler.desired import starter
    from reconciler.report import values

    if stack is not None and not re.fullmatch(r"[a-z0-9-]{1,24}", stack):  # what is written is run by others, too
        raise ReconcilerError(Problem("--stack", "is no stack's name", "1 to 24 of a-z, 0-9 and -"))
    if service is not None:
        _write_service(session, service)
        return
    if github:
        _write_workflows(session, stack, way, branch)
        return
    if example:
        _write_example(session)
        return
    root = session.settings.state
    stack = stack or starter.own_name(root.resolve(), platform.node())
    contents = starter.files(stack)
    with _held(root):
        taken = [name for name in contents if os.path.lexists(root / name)]
        if taken or any(root.glob("*.yaml")):
            summary = f"there is a directory already ({', '.join(taken) or 'it holds YAML'}), so nothing was written"
            raise ReconcilerError(Problem(str(root), summary, "name another with --state, or edit that one"))
        written = [_write(root / name, text) for name, text in contents.items()]
        written += _ignoring(root.parent)
    listed = "\n".join(f"  {values.escape(str(path))}" for path in written)
    named = session.naming()
    then = f"Edit them, then: reconciler validate{named}. Export the secrets they name, then: reconciler plan{named}"
    said = f"Written, as the stack {stack}:\n{listed}\n\n{then}"
    session.console.result(said, {"format_version": "1.0", "stack": stack, "written": [str(path) for path in written]})


_IGNORED = """\
# Kept out of git: journal and lease, private keys, env files with passwords.
.reconciler/
secrets/
.env*
"""


def _ignoring(folder: Path) -> list[Path]:
    """Write what git leaves out, where nothing says that yet."""
    path = folder / ".gitignore"
    return [] if os.path.lexists(path) else [_write(path, _IGNORED)]


def _write_example(session: Session) -> None:
    """Write the example beside where the directory is looked for, and say how to play it."""
    from reconciler.report import values
    from reconciler.simulator import example

    root = session.settings.state
    if root.name != "desired-state":
        hint = "name it so: --state FOLDER/desired-state"
        raise ReconcilerError(Problem(str(root), "the example's directory is called desired-state", hint))
    folder = root.parent
    with _telling(folder):
        try:
            made = example.copy(example.source(), folder)
        except FileExistsError as error:
            path, summary = folder / str(error), "is there already, so nothing was written"
            raise ReconcilerError(Problem(str(path), summary, "go to an empty folder")) from None
    written = sorted(path for path in (made.state, made.compose_file, made.env_file, folder / "secrets"))
    written += _ignoring(folder)
    listed = "\n".join(f"  {values.escape(str(path))}" for path in written)
    named = session.naming()
    then = f"Serve its systems: reconciler simulate{named}. It prints what to do in a second shell."
    said = f"Written:\n{listed}\n\n{then}"
    session.console.result(said, {"format_version": "1.0", "written": [str(path) for path in written]})


def _write_service(session: Session, kind: str) -> None:
    """Write the files of a service, filled in with where things are on this machine."""
    from reconciler.daemon.services import KINDS, Layout
    from reconciler.report import values

    program = Path(sys.argv[0]).absolute()
    state, data = session.settings.state.absolute(), session.settings.data.absolute()
    place = Layout(program, state, data, getpass.getuser(), _socket_group())
    contents = KINDS[kind](place)
    if taken := [name for name in contents if os.path.lexists(name)]:
        summary = "is there already, so nothing was written"
        raise ReconcilerError(Problem(taken[0], summary, "remove it, or go to another folder"))
    written = [_write(Path(name), text) for name, text in contents.items()]
    listed = "\n".join(f"  {values.escape(str(path))}" for path in written)
    said = f"Written:\n{listed}\n\nRead it: its head says how to install it, and where the secrets go."
    session.console.result(said, {"format_version": "1.0", "written": [str(path) for path in written]})


def _write_workflows(session: Session, stack: str | None, way: str, branch: str) -> None:
    """Write the action and the workflows at the top of the repository; what is there already stays as it is."""
    from reconciler.github.workflows import Subject, files
    from reconciler.report import values

    here, root = Path.cwd(), Path(os.path.normpath(session.settings.state.absolute()))
    if not (here / ".git").exists() or not root.is_relative_to(here):
        summary = "is not the top of a git repository that holds the directory"
        raise ReconcilerError(
            Problem(str(here), summary, "go to the repository's top (`git init` makes one), and name it with --state")
        )
    directory = root.relative_to(here).as_posix()
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_./-]*", directory):
        raise ReconcilerError(Problem(directory, "is no path that a workflow should hold", "use A-Z a-z 0-9 _ - . /"))
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_./-]*", branch):
        raise ReconcilerError(Problem("--branch", "is no branch that a workflow should hold", "such as main"))
    spec = session.directory().spec if stack is None or any(root.glob("*.yaml")) else None
    named = stack or (spec.stack if spec else "")
    planned = way == "daemon" and spec is not None and spec.daemon.plans
    contents = files(Subject(named, directory, branch, way, planned))
    _refuse_led_out(here, contents)
    kept = [name for name in contents if os.path.lexists(here / name)]
    for name, text in contents.items():
        if name not in kept:
            with _telling(here / name):
                (here / name).parent.mkdir(parents=True, exist_ok=True)
            _write(here / name, text)
    written = [name for name in contents if name not in kept]
    parts = [("Written:", written), ("Left as they are:", kept)]
    lists = ["\n".join([title, *(f"  {values.escape(name)}" for name in names)]) for title, names in parts if names]
    by_daemon = ["The daemon plans pull requests (daemon.plans), so no workflow does."] if planned else []
    said = "\n\n".join([*lists, *by_daemon, "Read docs/github.md: which keys go where, and how to protect the branch."])
    session.console.result(said, {"format_version": "1.0", "stack": named, "written": written, "kept": kept})


def _refuse_led_out(here: Path, names: Iterable[str]) -> None:
    """Refuse all files where a link on the way to one leads out of the repository, or to what git keeps there."""
    for name in names:
        if (link := git.leaving((here / name).parent)) is not None:
            shown = str(link.relative_to(here)) if link.is_relative_to(here) else str(link)
            raise ReconcilerError(Problem(shown, "is a link that leads out of the repository", "remove it"))


def _socket_group() -> int:
    """Return whose the engine's socket is; root's where there is none, as in Docker Desktop."""
    try:
        return Path("/var/run/docker.sock").stat().st_gid
    except OSError:
        return 0


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
