"""`reconciler fleet`: many stacks on PostgreSQL, each by the daemon's own cycle."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from reconciler.cli import session
from reconciler.cli.session import Session, environ
from reconciler.cli.times import endpoint, moment
from reconciler.problem import Problem, ReconcilerError

if TYPE_CHECKING:
    from reconciler.daemon.store import Signers
    from reconciler.fleet.source import Inventory
    from reconciler.fleet.table import Table

_PATH = click.Path(path_type=Path)
_NAMES = click.argument("stacks", nargs=-1, metavar="[STACK]...")
_ALL = click.option("--all", "everything", is_flag=True, help="The whole fleet.")


def _checked() -> None:
    """Raise `ReconcilerError` where the extra is not installed."""
    from importlib.util import find_spec

    missing = [name for name in ("psycopg", "psycopg_pool", "procrastinate") if find_spec(name) is None]
    if missing:
        summary = f"needs {', '.join(missing)}, which is not installed here"
        raise ReconcilerError(Problem("reconciler fleet", summary, "pip install 'mail-reconciler[fleet]'"))


@contextlib.contextmanager
def _table(*, checked: bool = True) -> Iterator[Table]:
    _checked()
    from reconciler.fleet import database
    from reconciler.fleet.table import Table

    with database.pool(database.conninfo(environ()), 2) as pool:
        if checked:
            database.check(pool)
        yield Table(pool)


@click.group()
def command() -> None:
    """Keep hundreds of stacks, on PostgreSQL.

    RECONCILER_DATABASE says where it is (postgresql://USER@HOST/NAME), or a file that RECONCILER_DATABASE_FILE names.
    """


# ------------------------------------------------------------------------------------------------------- init, work
@command.command()
@session.command
def init(session: Session) -> None:
    """Make the tables, or renew them for this release."""
    _checked()
    from reconciler.fleet import database

    info = database.conninfo(environ())
    with database.pool(info, 1) as pool:
        made = database.init(pool)
    place = database.shown(info)
    told = f"Made the tables of a fleet in {place}." if made else f"The tables in {place} are those of this release."
    session.console.result(told, {"format_version": "1.0", "made": made})


def _inventory(  # noqa: PLR0917 (as `InventoryBranch`)
    path: Path | None, repo: str | None, branch: str, data: Path, signers: Signers, accept: str
) -> Inventory | None:
    from reconciler.daemon.remote import Remote
    from reconciler.fleet.source import InventoryBranch, InventoryFile

    if repo is not None:
        return InventoryBranch(Remote.read(repo, branch), str(path or "fleet.yaml"), data, environ(), signers, accept)
    return InventoryFile(path) if path is not None else None


@command.command()
@click.option("--inventory", type=_PATH, envvar="RECONCILER_INVENTORY", help="The inventory, fleet.yaml; in --repo.")
@click.option("--repo", metavar="URL", envvar="RECONCILER_FLEET_REPO", help="The git repository that has it.")
@click.option("--branch", default="main", show_default=True, help="Its branch.")
@click.option("--group", "groups", multiple=True, metavar="NAME", help="Whose stacks to take (default); repeatable.")
@click.option("--ring", "rings", type=click.IntRange(min=0), multiple=True, help="Take this ring alone; repeatable.")
@click.option("--at-once", type=click.IntRange(1, 64), default=4, show_default=True, help="How many stacks at once.")
@click.option("--secrets", type=_PATH, envvar="RECONCILER_FLEET_SECRETS", help="The folder of the stacks' secrets.")
@click.option("--allowed-signers", type=_PATH, help="Take only what these SSH keys signed.")
@click.option("--accept-rewritten", metavar="COMMIT", default="", help="Take this one, though it has another history.")
@click.option("--notices", type=_PATH, help="A file with an address of Apprise on each line: who is told.")
@click.option(
    "--listen", metavar="HOST:PORT", callback=endpoint, help="Serve the fleet's page there; RECONCILER_TOKEN(_FILE)."
)
@click.option("--log", type=click.Choice(("console", "json")), help="How it logs (console on a terminal, else JSON).")
@session.command
def work(
    session: Session,
    *,
    inventory: Path | None,
    repo: str | None,
    branch: str,
    groups: tuple[str, ...],
    rings: tuple[int, ...],
    at_once: int,
    secrets: Path | None,
    allowed_signers: Path | None,
    accept_rewritten: str,
    notices: Path | None,
    listen: tuple[str, int] | None,
    log: str | None,
) -> int:
    """Take stacks as they are due, until a signal ends it.

    Any number of workers may run, on as many machines. SIGTERM ends after the writes that are under way. Without an
    inventory it takes what others have put into the database.
    """
    _checked()
    from reconciler.cli.daemon import stay_small
    from reconciler.daemon.checkout import check_accept
    from reconciler.daemon.logs import Log
    from reconciler.daemon.store import Signers
    from reconciler.fleet import worker

    check_accept(accept_rewritten)
    stay_small()
    as_json = log == "json" or (log is None and not sys.stderr.isatty())
    data = session.settings.own_data()
    signers = Signers(allowed_signers and allowed_signers.absolute())
    found = _inventory(inventory, repo, branch, data, signers, accept_rewritten)
    options = worker.Options(
        groups or ("default",), at_once, found, secrets, signers, rings or None, notices, listen, accept_rewritten
    )
    with session.stop.writing():
        lines = functools.partial(Log, as_json=as_json)
        worker.run(options, data, environ(), lines, session.stop.requested, session.trace)
    session.stop.check()
    return 0


# ------------------------------------------------------------------------------------------------------ what is there
@command.command()
@_NAMES
@session.command
def status(session: Session, *, stacks: tuple[str, ...]) -> int:
    """Show how the fleet stands, or some stacks.

    Ends with 1 where a person is needed, or the inventory is not taken.
    """
    _checked()
    from reconciler.fleet import overview

    with _table() as table:
        rows, whole = table.rows(_known(table, stacks) if stacks else None), table.whole()
        unseen, rollout = table.unseen(), table.rollout()
    told = overview.summary(rows, whole, unseen, rollout)
    text = overview.text(rows, told, full=bool(stacks) or session.options.verbose)
    session.console.result(text, overview.document(rows, told))
    return int(bool(told.problems) or any(row.stalled for row in rows))


@command.command()
@click.argument("stack")
@click.option("-n", "--number", type=click.IntRange(min=1), default=20, show_default=True, help="How many to list.")
@session.command
def history(session: Session, *, stack: str, number: int) -> None:
    """Show the last cycles of a stack, the latest first."""
    _checked()
    from reconciler.fleet import overview

    with _table() as table:
        runs = table.history(_known(table, (stack,))[0], number)
    session.console.result(overview.runs(runs), overview.history(runs))


# --------------------------------------------------------------------------------------------------- a person's word
@command.command()
@_NAMES
@_ALL
@click.option("--reason", required=True, metavar="TEXT", help="Why; whoever looks is told.")
@click.option("--until", type=moment, metavar="TIME", help="When it ends by itself: 2h, 7d, or 2026-11-29T18:00.")
@session.command
def suspend(
    session: Session, *, stacks: tuple[str, ...], everything: bool, reason: str, until: datetime | None
) -> None:
    """Have nothing written to some stacks, or to all, for a while. Workers go on looking and telling."""
    from reconciler.journal import now, who
    from reconciler.suspension import Suspension

    end = until.strftime("%Y-%m-%dT%H:%M:%SZ") if until else ""
    said = Suspension(" ".join(reason.split()) or "no reason", who(environ()), now(), end)
    _for_each(session, stacks, everything, lambda table, names: table.suspend(names, said), f"is {said}")


@command.command()
@_NAMES
@_ALL
@session.command
def resume(session: Session, *, stacks: tuple[str, ...], everything: bool) -> None:
    """Take a suspension back. What the inventory suspends stays suspended."""
    _for_each(session, stacks, everything, lambda table, names: table.suspend(names, None), "goes on")


@command.command()
@_NAMES
@_ALL
@session.command
def retry(session: Session, *, stacks: tuple[str, ...], everything: bool) -> None:
    """Have stacks looked at now, whatever failed before: a login that was refused is tried once more."""

    def again(table: Table, names: tuple[str, ...] | None) -> None:
        chosen = [row.name for row in table.rows()] if names is None else names
        table.due(chosen, "request", fresh=True)

    _for_each(session, stacks, everything, again, "is due now")


def _for_each(
    session: Session,
    stacks: tuple[str, ...],
    everything: bool,  # noqa: FBT001
    act: Callable[[Table, tuple[str, ...] | None], Any],
    told: str,
) -> None:
    from reconciler.report import values

    if bool(stacks) == everything:
        raise click.UsageError("name stacks, or say --all")
    with _table() as table:
        names = None if everything else _known(table, stacks)
        act(table, names)
    who = ", ".join(names or ("the whole fleet",))
    session.console.result(values.escape(f"{who} {told}."), {"format_version": "1.0", "stacks": list(names or ())})


def _known(table: Table, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names. Raises `ReconcilerError` for one that is no stack's."""
    from difflib import get_close_matches

    there = {row.name for row in table.rows(names)}
    for name in names:
        if name not in there:
            near = get_close_matches(name, [row.name for row in table.rows()], 1)
            hint = f"did you mean {near[0]}?" if near else "`reconciler fleet status -v` lists them"
            raise ReconcilerError(Problem(name, "is no stack of the fleet", hint))
    return names
