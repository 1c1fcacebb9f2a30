"""`reconciler daemon`: follow the desired state, heal what differs, tell what a person should know."""

from __future__ import annotations

import contextlib
import gc
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from reconciler import journal
from reconciler.cli import session
from reconciler.cli.session import Session, environ
from reconciler.cli.times import endpoint

if TYPE_CHECKING:
    from reconciler.daemon.logs import Log
    from reconciler.daemon.loop import Loop
    from reconciler.daemon.parts import Parts
    from reconciler.daemon.source import Source
    from reconciler.daemon.state import State
    from reconciler.problem import Problem
    from reconciler.stack import Stack

_CODES = {"nothing": 0, "done": 0, "suspended": 0, "failed": 1, "busy": 5, "partial": 6, "stopped": 6}
_PATH = click.Path(path_type=Path)


def _seconds(_ctx: click.Context, _param: click.Parameter, value: str | None) -> float | None:
    from reconciler.desired.spec.targets import duration

    try:
        return None if value is None else float(duration(value))
    except ValueError:
        raise click.BadParameter("write it like 90s, 5m or 12h") from None


@click.command()
@click.option("--repo", metavar="URL", envvar="RECONCILER_REPO", help="Follow this git repository, not --state.")
@click.option("--branch", default="main", show_default=True, envvar="RECONCILER_BRANCH", help="Its branch.")
@click.option(
    "--path", default="desired-state", show_default=True, envvar="RECONCILER_PATH", help="The directory of YAML in it."
)
@click.option(
    "--allowed-signers", type=_PATH, envvar="RECONCILER_ALLOWED_SIGNERS", help="Take only what these SSH keys signed."
)
@click.option("--keyring", type=_PATH, help="Or what the GPG keys in this folder signed.")
@click.option("--accept-rewritten", metavar="COMMIT", default="", help="Take this one, though it has another history.")
@click.option(
    "--interval", metavar="TIME", callback=_seconds, envvar="RECONCILER_INTERVAL", help="From cycle to cycle."
)
@click.option(
    "--listen",
    default="127.0.0.1:9780",
    show_default=True,
    metavar="HOST:PORT",
    callback=endpoint,
    envvar="RECONCILER_LISTEN",
    help="Where the status page is; anywhere but on this machine it needs RECONCILER_TOKEN(_FILE).",
)
@click.option("--test-notice", is_flag=True, help="Send one to each address of daemon.notices, and end.")
@click.option("--once", is_flag=True, help="Run one cycle and end as apply does.")
@click.option("--log", type=click.Choice(("console", "json")), help="How it logs (console on a terminal, else JSON).")
@session.command
def command(
    session: Session,
    *,
    repo: str | None,
    branch: str,
    path: str,
    allowed_signers: Path | None,
    keyring: Path | None,
    accept_rewritten: str,
    interval: float | None,
    listen: tuple[str, int],
    test_notice: bool,
    once: bool,
    log: str | None,
) -> int:
    """Follow the desired state and heal what differs.

    It goes on until a signal ends it. SIGHUP begins a cycle; SIGTERM ends after the write that is under way. Whom to
    trust is said here alone, never in what is followed.
    """
    from reconciler.daemon.logs import Log
    from reconciler.daemon.state import Cause

    if test_notice:
        return _try_notices(session)
    stay_small()
    as_json = log == "json" or (log is None and not sys.stderr.isatty())
    lines = Log(as_json=as_json, redact=_redacting(session))
    signers = (allowed_signers, keyring)
    source = _checkout(session, repo, branch, path, signers, accept_rewritten) if repo else _folder(session, signers)
    loop, parts = _loop(session, source, interval, lines)
    if once:
        with parts.once():
            ended = loop.cycle(Cause.START)
        _tell(session, parts.unsaid)
        return _code(ended)
    with parts.running(listen), _hangup(loop):
        loop.run()
    session.stop.check()
    return 0


def _tell(session: Session, problems: Iterable[Problem]) -> None:
    """Print what stops nothing."""
    from reconciler.report import text

    for problem in problems:
        session.console.note(text.problem(problem))


_TRIM_THRESHOLD, _ARENA_MAX = -1, -8  # of glibc's malloc.h
_TRIMMED = 1 << 16  # bytes at the heap's end that are given back


def stay_small() -> None:
    """Give memory back, which a short run has no need to: garbage is collected, and threads share one heap (glibc)."""
    import ctypes

    gc.set_threshold(700, 10, 10)
    if (adjust := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        adjust(_ARENA_MAX, 1)
        adjust(_TRIM_THRESHOLD, _TRIMMED)


def _redacting(session: Session) -> Callable[[str], str]:
    """Return what takes the secrets of the newest stack out of a text."""
    return lambda text: session.console.redact(text)  # noqa: PLW0108 (it is another one later)


def _try_notices(session: Session) -> int:
    """Send a notice to each address, and say of each whether it arrived."""
    from reconciler.daemon.outbox import try_each
    from reconciler.report import values

    arrivals = try_each(session.stack(), environ())
    lines = [f"{item.name}: {item.why or 'arrived'}" for item in arrivals]
    rows = [{"notice": item.name, "arrived": not item.why, "problem": item.why or None} for item in arrivals]
    none = "No notices are declared: write `daemon: {notices: [{env: NAME}]}` into reconciler.yaml."
    session.console.result("\n".join(map(values.escape, lines)) or none, {"format_version": "1.0", "notices": rows})
    return int(any(item.why for item in arrivals) or not arrivals)


def _folder(session: Session, signers: tuple[Path | None, Path | None]) -> Source:
    """Follow the directory on disk. Who asks for signatures there is told that files have none."""
    from reconciler.daemon.source import Folder

    if any(signers):
        raise click.UsageError("--allowed-signers and --keyring are about the commits of --repo")
    return Folder(session.settings.state, session.data)


def _checkout(  # noqa: PLR0917 (as the options stand)
    session: Session, repo: str, branch: str, path: str, signers: tuple[Path | None, Path | None], accept: str
) -> Source:
    """Follow a branch. Where a directory is named besides, it says from where the compose project is seen."""
    from reconciler.daemon.checkout import Checkout, Following
    from reconciler.daemon.remote import Remote
    from reconciler.daemon.store import Signers

    said = session.options.state is not None or "RECONCILER_STATE" in environ()
    project = session.settings.state.absolute() if said else None
    following = Following(Remote.read(repo, branch), path, Signers(*signers), accept, project)
    return Checkout(following, session.data, environ())


def _loop(session: Session, source: Source, interval: float | None, lines: Log) -> tuple[Loop, Parts]:
    from reconciler.daemon.board import Bell, Board
    from reconciler.daemon.cycle import Surroundings
    from reconciler.daemon.loop import INTERVAL, Loop
    from reconciler.daemon.parts import Parts
    from reconciler.daemon.state import Sourced, State
    from reconciler.settings import Settings
    from reconciler.stack import Choice

    def renewed(stack: Stack) -> None:
        session.console.redact = stack.secrets.redact
        parts.taken(stack)

    options, settings = session.options, session.settings
    board = Board(State("", journal.now(), interval or INTERVAL, Sourced("")))
    heads, choice = source.heads, Choice(options.target)
    parts = Parts(settings, board, Bell(), _redacting(session), lines.cycle, session.trace, heads=heads, choice=choice)
    loop = Loop(
        source,
        lambda: Settings.read(environ(), options.state, options.data),
        board,
        parts.bell,
        choice,
        interval,
        Surroundings(session.stop.requested, lines.outcome, session.stop.writing),
        parts.begun,
        parts.ended,
        session.trace,
        renewed,
        heads.came if heads else lambda _base, _head: (),
    )
    return loop, parts


@contextlib.contextmanager
def _hangup(loop: Loop) -> Iterator[None]:
    """Begin a cycle on SIGHUP."""
    from reconciler.daemon.state import Cause

    former = signal.signal(signal.SIGHUP, lambda *_: loop.bell.ring(Cause.HANGUP))
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, former)


def _code(state: State) -> int:
    """Return the exit code of `apply` that says the same."""
    if state.source.revision is None:
        return 3 if state.source.reached else 1
    if state.cycle is None:
        return 1
    if state.plan is not None and (state.plan.refused or state.plan.held) and not state.cycle.outcomes:
        return 4
    return _CODES[state.cycle.result]
