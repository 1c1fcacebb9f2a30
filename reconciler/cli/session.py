"""What the commands share: the options, the console, signals, and the way from a directory to a plan."""

from __future__ import annotations

import functools
import itertools
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from reconciler.cli.console import Console
from reconciler.problem import Problem
from reconciler.settings import TARGETS, Settings

if TYPE_CHECKING:  # each of them imports pydantic, ruamel.yaml or more
    from click.shell_completion import CompletionItem

    from reconciler.desired.load import Directory
    from reconciler.desired.unmerged import Candidate
    from reconciler.failover import Failover
    from reconciler.plan import Plan
    from reconciler.report.text import Style
    from reconciler.stack import Choice, Stack

OUTPUTS = ("text", "json", "markdown")
_META = "reconciler.options"

Decorated = TypeVar("Decorated", bound=Callable[..., Any] | click.Command)

Function = TypeVar("Function", bound=Callable[..., Any])


# --------------------------------------------------------------------------------------------------------- options
@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says, wherever on it."""

    state: Path | None = None
    data: Path | None = None
    target: tuple[str, ...] = ()
    output: str = "text"
    no_color: bool = False
    verbose: bool = False
    quiet: bool = False

    @classmethod
    def of(cls, ctx: click.Context) -> Options:
        """Gather them from a context."""
        return cls(**ctx.meta.get(_META, {}))

    def colour(self, environ: Mapping[str, str], *, terminal: bool) -> bool:
        """Whether to colour: on a terminal, and elsewhere with FORCE_COLOR (https://force-color.org).

        NO_COLOR (https://no-color.org: any value but the empty one) and ``--no-color`` win over both.
        """
        if self.no_color or environ.get("NO_COLOR"):
            return False
        if environ.get("FORCE_COLOR", "") not in ("", "0", "false"):
            return True
        return terminal and environ.get("TERM") != "dumb"


def _store(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    """Remember a value in the meta data, which a command shares with its group: the one behind the command wins."""
    stored: dict[str, Any] = ctx.meta.setdefault(_META, {})
    name = str(param.name)
    if value in (None, False, ()):
        return
    stored[name] = (*stored.get(name, ()), *value) if isinstance(value, tuple) else value


_QUIET: dict[str, Any] = {"expose_value": False, "callback": _store}


def common(decorated: Decorated) -> Decorated:
    """Add the options to a command or a group."""
    directory = click.Path(path_type=Path)
    for option in (
        click.option("-v", "--verbose", is_flag=True, help="Show all of a list, log each step.", **_QUIET),
        click.option(
            "-q", "--quiet", is_flag=True, help="Leave out what asks for nothing (plan, apply, doctor).", **_QUIET
        ),
        click.option("--no-color", is_flag=True, help="No colours; NO_COLOR does the same.", **_QUIET),
        click.option("--output", type=click.Choice(OUTPUTS), help="How results are printed (text).", **_QUIET),
        click.option(
            "--target", type=click.Choice(TARGETS), multiple=True, help="This system only; repeatable.", **_QUIET
        ),
        click.option("--data", type=directory, help="Journal, lease, caches (.reconciler beside the state).", **_QUIET),
        click.option("--state", type=directory, help="The directory of YAML (desired-state).", **_QUIET),
    ):
        decorated = option(decorated)
    return decorated


class AddressName(click.ParamType[str]):
    """An address, which a shell completes from what the directory declares: no system is asked."""

    name = "address"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002
        """Return the declared addresses that begin so; none where the directory can't be read."""
        from click.shell_completion import CompletionItem

        from reconciler.desired.derivation import desire
        from reconciler.desired.load import load
        from reconciler.problem import ReconcilerError

        said = ctx.meta.get(_META, {}).get("state")
        try:
            session = Session(Stop())
            session.options = Options(state=Path(said) if said else None)
            found = {item.address for item in desire(load(session.settings.state).spec).resources}
        except (ReconcilerError, OSError):
            return []
        return [CompletionItem(address) for address in sorted(found) if address.startswith(incomplete)]


def choices(decorated: Callable[..., Any]) -> Callable[..., Any]:
    """Add what a plan is narrowed to or widened by to a command."""
    for option in (
        click.option(
            "--with-service-changes",
            is_flag=True,
            help="Take along what else of a service is not as the compose files say.",
        ),
        click.option(
            "--check-passwords",
            is_flag=True,
            help="Log in once as each account (Stalwart from 0.16 shows no password).",
        ),
        click.option("--allow-deletes", type=click.IntRange(min=0), metavar="N", help="Allow up to N deletions, once."),
        click.option(
            "--adopt",
            type=AddressName(),
            multiple=True,
            metavar="ADDRESS",
            help="Take over what exists and differs; repeatable.",
        ),
        click.option(
            "--only",
            type=AddressName(),
            multiple=True,
            metavar="ADDRESS",
            help="This resource, and what it needs; a pattern with * is taken, too. Repeatable.",
        ),
    ):
        decorated = option(decorated)
    return decorated


def wants_json(args: list[str]) -> bool:
    """Whether JSON was asked for on a command line that may be wrong: its error is then JSON too."""
    pairs = itertools.pairwise(args)
    return "--output=json" in args or any(pair == ("--output", "json") for pair in pairs)


def environ() -> Mapping[str, str]:
    """Return the environment, which secrets and overrides come from."""
    return os.environ


# --------------------------------------------------------------------------------------------------------- signals
# SIGINT and SIGTERM end us at once where nothing is written, between two writes where something is.
_CODES = 128  # a shell's convention: 130 for SIGINT, 143 for SIGTERM


class Interrupted(BaseException):  # like KeyboardInterrupt: `except Exception` must not swallow it
    """A signal asks us to end."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.exit_code = _CODES + signum


class Stop:
    """Whether a signal has asked us to end.

    Outside `writing` a first signal raises `Interrupted`. Within it is only remembered, and `requested` says so to
    whoever is about to write next. A second signal ends the process at once; the kernel frees the lease.
    """

    def __init__(self) -> None:
        self._signum: int | None = None
        self._writing = False

    def requested(self) -> bool:
        """Say whether nothing more shall be written."""
        return self._signum is not None

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold signals back while something is written."""
        self._writing = True
        try:
            yield
        finally:
            self._writing = False

    def check(self) -> None:
        """Raise `Interrupted` where a signal was held back."""
        if self._signum is not None:
            raise Interrupted(self._signum)

    def _take(self, signum: int, _frame: FrameType | None) -> None:
        if self._signum is not None:
            os._exit(_CODES + signum)
        self._signum = signum
        if self._writing:
            os.write(2, b"\nStopping after the write that is under way; a second signal stops at once.\n")
        else:
            raise Interrupted(signum)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Listen to signals for a while; only the main thread can."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGINT, signal.SIGTERM)
        former = {number: signal.signal(number, self._take) for number in numbers}
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)


# ------------------------------------------------------------------------------------------------------ one call
class Session:
    """One call of the program."""

    def __init__(self, stop: Stop, *, as_json: bool = False) -> None:
        self.stop = stop
        self.options = Options()
        self.console = Console("json" if as_json else "text")

    def configure(self, chosen: Options) -> None:
        """Take the options as they are known once the command line is read."""
        colour = chosen.colour(environ(), terminal=sys.stdout.isatty())
        self.options = chosen
        self.console = Console(chosen.output, colour=colour, verbose=chosen.verbose)

    @functools.cached_property
    def settings(self) -> Settings:
        """What the environment and the options say together. Raises `Refused` where a commit may have said it."""
        settings = Settings.read(environ(), self.options.state or self._found(), self.options.data)
        for path in (settings.state, settings.data.parent):
            if os.path.realpath(path) != os.path.abspath(path):  # noqa: PTH100 (most have no link, and need no git)
                from reconciler import git

                git.refuse_leaving(path)
        return settings

    def _found(self) -> Path | None:
        """Look for the directory from here up to the top of the git checkout; None where it need not, or can't, be.

        Outside of one nobody is asked: above, other people may write.
        """
        name, here = Path("desired-state"), Path.cwd()
        if environ().get("RECONCILER_STATE") or name.exists():
            return None
        top = next((folder for folder in (here, *here.parents) if (folder / ".git").exists()), None)
        if top is None:
            return None
        for folder in here.parents:
            if not folder.is_relative_to(top):
                break
            if any((folder / name).glob("*.yaml")):
                return Path(os.path.relpath(folder / name))
        return None

    def naming(self) -> str:
        """Return the options that a command needs to find the same directory: what is printed can be pasted."""
        import shlex

        said = {"--state": self.options.state, "--data": self.options.data}
        return "".join(f" {option} {shlex.quote(str(value))}" for option, value in said.items() if value)

    @functools.cached_property
    def data(self) -> Path:
        """The data directory, as `Settings.own_data` judges it."""
        return self.settings.own_data()

    @property
    def style(self) -> Style:
        """How text is shown."""
        from reconciler.report.text import Style

        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
        return Style(self.console.colour, self.options.verbose, self.options.quiet, width)

    def directory(self) -> Directory:
        """Read the directory. Raises `InvalidDirectory` with every mistake in it."""
        from reconciler.desired.load import load

        return load(self.settings.state)

    def stack(
        self,
        directory: Directory | None = None,
        choice: Choice | None = None,
        *,
        candidate: Candidate | None = None,
        revision: str | None = None,
    ) -> Stack:
        """Connect to the systems of a directory, which is read where none is given; nothing of it is observed yet.

        A ``candidate`` has a directory of its own, and its ``revision`` is given.
        """
        from reconciler.stack import Choice, Stack

        choice = choice or Choice(self.options.target)
        directory = candidate.directory if candidate else directory or self.directory()
        stack = Stack(
            directory,
            self.settings,
            choice,
            progress=self.console.step,
            unexpected=self.trace,
            revision=revision,
            failover=self._failover(directory),
            candidate=candidate,
        )
        self.console.redact = stack.secrets.redact
        return stack

    def _failover(self, directory: Directory) -> Failover | None:
        """Return the failover that the daemon has made, where the directory is what it was made for."""
        from reconciler.desired.failover import basis
        from reconciler.failover import place, recall
        from reconciler.report import values

        stack = directory.spec.stack
        if directory.spec.targets.compose is None or not place(self.settings.data, stack).exists():
            return None
        memory, damage = recall(self.settings.own_data(), stack)
        if damage:
            self.console.note(values.escape(f"Whether the daemon has failed over can't be told: {damage}."))
        failover = memory.failover
        if failover is None or failover.basis == basis(directory.spec):
            return failover
        said = f"The daemon has {failover}. This directory says otherwise about providers, which ends that."
        self.console.note(values.escape(said))
        return None

    def trace(self, error: BaseException) -> None:
        """Print where an exception comes from, for whoever asked for more: redacted, and never any locals."""
        if self.console.verbose:
            import traceback

            self.console.note("".join(traceback.format_exception(error)).rstrip())

    def plan(self, stack: Stack) -> Plan:
        """Observe and plan."""
        from reconciler.reconcile import make_plan

        self.console.step("Observing")
        plan = make_plan(stack)
        self.console.done()
        return plan

    def show(self, plan: Plan, choice: Choice, links: Mapping[str, str] | None = None) -> None:
        """Print a plan in the form that was asked for; as Markdown with ``links`` from addresses to their places."""
        if self.console.output == "json":
            from reconciler.report import json

            self.console.document(json.plan(plan, choice.as_dict()))
        elif self.console.output == "markdown":
            from reconciler.report import markdown

            self.console.text(markdown.plan(plan.redacted(self.console.redact), links=links))
        else:
            from reconciler.report import text

            self.console.text(text.plan(plan.redacted(self.console.redact), self.style))

    def report(self, *problems: Problem) -> None:
        """Print why a command failed: to standard error, or as the JSON or Markdown that was asked for."""
        from reconciler.report import json, text

        # Before they are set as Markdown, or broken into lines: there a secret of several words is none any more.
        problems = tuple(item.redacted(self.console.redact) for item in problems)
        if self.console.output == "json" and problems:
            self.console.document(json.problems(problems))
            return
        if self.console.output == "markdown" and problems:
            from reconciler.report import markdown

            self.console.text(markdown.failed(problems))
            return
        for problem in problems:
            width = shutil.get_terminal_size().columns if sys.stderr.isatty() else 0
            style = text.Style(colour=self.console.colour, width=width)
            self.console.note(style.wrapped(text.problem(problem, style)))


def command(function: Function) -> Function:
    """Make a function a command's body: it takes the session first and returns an exit code, or None for 0."""

    @functools.wraps(function)
    def body(ctx: click.Context, /, **parameters: Any) -> Any:
        session: Session = ctx.obj
        session.configure(Options.of(ctx))
        return function(session, **parameters)

    return cast("Function", common(click.pass_context(body)))
