"""A worker: a process that takes stacks of its groups as they are due, and tends the fleet beside that."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from reconciler import __version__, files
from reconciler.daemon.parts import token
from reconciler.daemon.remote import Remote
from reconciler.daemon.store import Signers
from reconciler.fleet import database, engine
from reconciler.fleet.engine import Queue
from reconciler.fleet.notices import Notices, destinations
from reconciler.fleet.source import Branch, Inventory, Shared
from reconciler.fleet.table import Table, queues
from reconciler.fleet.tending import Tending
from reconciler.fleet.turn import Machine, Work
from reconciler.names import SHOWN
from reconciler.problem import Problem, ReconcilerError

if TYPE_CHECKING:
    from reconciler.daemon.logs import Log

_KEPT = 4  # revisions of the shared files, beside the newest
_FIRST, _LONGEST = 0.5, 15.0  # seconds until the database is tried again


@dataclass(frozen=True, slots=True)
class Options:
    """What a worker is told on its command line. ``rings`` None is all of them."""

    groups: Collection[str]
    at_once: int
    inventory: Inventory | None
    secrets: Path | None = None
    signers: Signers = field(default_factory=Signers)
    rings: Collection[int] | None = None
    notices: Path | None = None
    listen: tuple[str, int] | None = None
    accept: str = ""


def home(data: Path) -> str:
    """Return the name of a data directory, which it keeps. Raises `ReconcilerError` where none can be written."""
    path = data / "home"
    try:
        files.make_private(data)
        if not path.exists():
            with contextlib.suppress(FileExistsError):
                files.create(path, secrets.token_hex(8).encode())
        return files.read_own(path).decode("ascii")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or type(error).__name__
        raise ReconcilerError(
            Problem(str(path), f"can't be kept: {why}", "name a writable directory with --data")
        ) from None


class Sharing:
    """The shared files, at any revision of them; what was read is kept, as many stacks have the same."""

    def __init__(self, table: Table, data: Path, environ: Mapping[str, str], signers: Signers | None = None) -> None:
        self._table, self._data, self._environ, self._signers = table, data, environ, signers
        self._known: dict[tuple[str, str], Mapping[str, bytes]] = {}

    def files(self, revision: str) -> Shared:
        """Return a revision's. Raises `ReconcilerError` where they can't be had.

        So it does where there are some and none is known yet: without them a stack would be made into something else.
        """
        declared = self._table.whole().shared
        if not declared:
            return "", {}
        if not revision:
            hint = (
                "see whether their repository can be reached, and its newest commit is signed where that is asked for"
            )
            raise ReconcilerError(Problem("shared", "no revision of the shared files is known yet", hint))
        key = (str(declared), revision)
        if key not in self._known:
            remote = Remote.read(declared["repo"], declared["branch"])
            branch = Branch(remote, self._data, self._environ, self._signers)
            if not branch.has(revision):
                branch.newest()
            if not branch.vouched(revision, declared["directory"]):
                raise ReconcilerError(branch.unsigned(revision))
            content = branch.read(revision, declared["directory"])
            if not content:
                summary = f"has no files below {declared['directory']} at {revision[:SHOWN]}"
                hint = "correct shared.directory of the inventory, or take shared out of it"
                raise ReconcilerError(Problem(str(remote), summary, hint))
            self._known = {
                **dict(list(self._known.items())[-_KEPT:]),
                key: content,
            }
        return revision, self._known[key]


def name() -> str:
    """Return how others call this process, with its release."""
    return f"{socket.gethostname()} process {os.getpid()} ({__version__})"


def run(  # noqa: PLR0917 (a worker is all of it)
    options: Options,
    data: Path,
    environ: Mapping[str, str],
    log: Callable[..., Log],
    stopped: Callable[[], bool],
    unexpected: Callable[[Exception], None],
) -> None:
    """Work until ``stopped``. Raises `ReconcilerError` for what keeps it from beginning at all."""
    conninfo = database.conninfo(environ)
    with database.pool(conninfo, options.at_once + 3) as pool:
        database.check(pool)
        table, lines = Table(pool), log(redact=lambda text: text)

        def say(problem: Problem) -> None:
            lines.say("problem", where=problem.where, problem=problem.summary, hint=problem.hint)

        place = Machine(data, home(data), environ, options.secrets, options.signers, options.accept)
        listens, queue = queues(options.groups, place.home, options.rings), Queue(table)
        work = Work(
            table,
            name(),
            place,
            listens,
            shared=Sharing(table, data, environ, options.signers).files,
            log=lambda stack, redact: log(redact=redact, stack=stack),
            stopped=stopped,
            unexpected=unexpected,
        )
        tending = _tending(options, table, queue, place, say, unexpected)
        tending.step()
        beside = threading.Thread(target=copy_context().run, args=(tending.run, stopped), name="tending", daemon=True)
        beside.start()
        lease = table.whole().lease
        lines.say("working", groups=",".join(sorted(options.groups)), at_once=options.at_once, lease=lease)
        working = engine.Engine(queue, conninfo, work.turn, listens, options.at_once, lease)
        with _page(table, queue, options.listen, environ, unexpected):
            _go_on(partial(working.run, stopped), conninfo, say, stopped)
        beside.join(10)


def _tending(  # noqa: PLR0917
    options: Options,
    table: Table,
    queue: Queue,
    place: Machine,
    say: Callable[[Problem], None],
    unexpected: Callable[[Exception], None],
) -> Tending:
    places = destinations(options.notices) if options.notices else ()
    return Tending(
        table,
        queue,
        options.inventory,
        place.data,
        options.groups,
        place.environ,
        say,
        Notices(table, places, place.environ, say),
        options.signers,
        unexpected,
        options.accept,
    )


@contextlib.contextmanager
def _page(
    table: Table,
    queue: Queue,
    listen: tuple[str, int] | None,
    environ: Mapping[str, str],
    unexpected: Callable[[Exception], None],
) -> Iterator[None]:
    if listen is None:
        yield
        return
    from reconciler.fleet.page import served

    with served(table, queue, listen, token(environ), unexpected):
        yield


def _go_on(
    work: Callable[[], None], conninfo: str, say: Callable[[Problem], None], stopped: Callable[[], bool]
) -> None:
    """Begin anew as long as the database comes and goes."""
    pause = _FIRST
    while not stopped():
        began = time.monotonic()
        try:
            work()
            error: Exception | None = None
        except engine.ERRORS as found:
            error = found
        if stopped():
            return
        if time.monotonic() - began > _LONGEST:
            pause = _FIRST
        told = database.away(conninfo, error or RuntimeError("its connections were cut")).problems[0]
        say(told)
        until = time.monotonic() + pause
        while time.monotonic() < until and not stopped():
            time.sleep(0.1)
        pause = min(2 * pause, _LONGEST)
