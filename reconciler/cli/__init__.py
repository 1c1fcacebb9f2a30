"""The command line: each command is imported when it is called, and ends with one of the contract's exit codes."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from importlib import import_module
from typing import Any, NoReturn

import click

from reconciler import __version__
from reconciler.cli.session import Interrupted, Session, Stop, common, wants_json
from reconciler.problem import Problem, ReconcilerError

# In the order of `--help`: each with its module, which has it as `command`.
COMMANDS = {
    "init": "reconciler.cli.init",
    "import": "reconciler.cli.importing",
    "validate": "reconciler.cli.validate",
    "schema": "reconciler.cli.schema",
    "diff": "reconciler.cli.diff",
    "plan": "reconciler.cli.plan",
    "apply": "reconciler.cli.apply",
    "daemon": "reconciler.cli.daemon",
    "approve": "reconciler.cli.approve",
    "suspend": "reconciler.cli.suspend",
    "resume": "reconciler.cli.resume",
    "status": "reconciler.cli.status",
    "history": "reconciler.cli.history",
    "explain": "reconciler.cli.explain",
    "dkim": "reconciler.cli.dkim",
    "doctor": "reconciler.cli.doctor",
    "fleet": "reconciler.cli.fleet",
    "simulate": "reconciler.cli.simulate",
}
HIDDEN = {"github": "reconciler.cli.github"}
"""What no person calls: the steps of our own action."""
_EPILOG = """Shell completion: eval "$(_RECONCILER_COMPLETE=bash_source reconciler)" in ~/.bashrc; zsh_source and
fish_source likewise."""


class Commands(click.Group):
    """The one place where errors become words and exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        """Name the commands, in the order of `--help`."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import a command: `--version` must not wait for all of them."""
        module = (COMMANDS | HIDDEN).get(cmd_name)
        if module is None:
            return None
        command: click.Command = import_module(module).command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; of one that is none, say which is meant. Raises `click.UsageError`."""
        if args and args[0] not in COMMANDS | HIDDEN and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS, 1)
            meant = f"did you mean `{near[0]}`?" if near else "`reconciler --help` lists them"
            ctx.fail(f"there is no command {args[0]!r}; {meant}")
        return super().resolve_command(ctx, args)

    def main(
        self,
        args: Any = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,  # noqa: FBT001, FBT002, ARG002 (click's signature)
        **extra: Any,
    ) -> NoReturn:
        """Run a command and exit."""
        arguments = list(sys.argv[1:] if args is None else args)
        session = Session(Stop(), as_json=wants_json(arguments))
        try:
            with session.stop.installed():
                result = super().main(arguments, prog_name, complete_var, standalone_mode=False, obj=session, **extra)
            code = result if isinstance(result, int) else 0
        except (Exception, Interrupted) as error:  # noqa: BLE001 (the last line of defence)
            code = _ended_by(error, session)
            if isinstance(error, Interrupted) and threading.active_count() > 1:
                _leave(code)
        finally:
            session.console.done()
        sys.exit(_printed(session, code))


def _leave(code: int) -> NoReturn:
    """End without waiting for threads that wait for a system; the kernel frees the lease."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    os._exit(code)


def _ended_by(error: BaseException, session: Session) -> int:
    """Say why a command ended, and return its exit code."""
    match error:
        case Interrupted():
            session.console.note("Interrupted.")
            return error.exit_code
        case ReconcilerError():
            session.report(*error.problems)
            return error.exit_code
        case click.Abort():
            session.report(
                Problem("standard input", "ended before there was an answer", "use --yes without a terminal")
            )
        case click.UsageError() if session.console.output != "json":
            error.show()
        case click.ClickException():
            session.report(Problem("command line", error.format_message(), "see `reconciler --help`"))
        case _:
            _bug(error, session)
    return 1  # click's own code for usage errors is 2, which means "changes are pending" here


def _bug(error: BaseException, session: Session) -> None:
    summary = f"this is a bug in reconciler {__version__}: {type(error).__name__}"
    session.report(Problem("reconciler", summary, "run it again with -v and report what it prints"))
    session.trace(error)


def _printed(session: Session, code: int) -> int:
    """Turn a success into an error where its result could not be printed, as to a full disk."""
    if session.console.broken and code in (0, 2):
        session.console.note(f"reconciler: the result could not be printed: {session.console.failure}")
        return 1
    return code


@click.command(
    cls=Commands,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@common
@click.version_option(__version__, prog_name="reconciler")
def program() -> None:
    """Keep a self-hosted mail stack as a directory of YAML says: Stalwart, Cloudflare DNS and Docker Compose."""
