"""The target for Stalwart up to 0.15: two requests observe it, and changes go in as few as its API allows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from reconciler.problem import Problem, TargetUnreadable
from reconciler.resources import Observation, Resource
from reconciler.target import Change, Outcome, Progress, Reveal, Stopped
from reconciler.targets.stalwart.connection import TARGET, Connect, Connection
from reconciler.targets.stalwart.container import Docker, causes, look
from reconciler.targets.stalwart.ports import with_open
from reconciler.targets.stalwart.rest.account import Accounts
from reconciler.targets.stalwart.rest.api import Rejected, RestApi
from reconciler.targets.stalwart.rest.apply import Run, override
from reconciler.targets.stalwart.rest.domain import Domains
from reconciler.targets.stalwart.rest.group import Groups
from reconciler.targets.stalwart.rest.kind import PENDING, KeyKind, Kind, Reading, overridden
from reconciler.targets.stalwart.rest.listener import Listeners
from reconciler.targets.stalwart.rest.mailing_list import MailingLists
from reconciler.targets.stalwart.rest.principals import Principal, in_turn
from reconciler.targets.stalwart.rest.setting import AllowedIps, Settings
from reconciler.targets.stalwart.rest.signature import Signatures
from reconciler.targets.stalwart.survey import is_lost

KINDS: tuple[Kind[Any], ...] = (
    *(Domains(), Groups(), Accounts(), MailingLists()),
    *(Signatures(), Settings(), AllowedIps(), Listeners()),
)
"""All there is of this generation: a further kind is a file, and an entry here."""

_PRINCIPALS = {kind.resource: kind for kind in KINDS if isinstance(kind, Principal)}
_KEYS = {kind.resource: kind for kind in KINDS if isinstance(kind, KeyKind)}


class StalwartRest:
    """Stalwart up to 0.15. ``connect`` opens a connection as our user; ``docker`` is the declared container."""

    name = TARGET

    def __init__(self, connect: Connect, docker: Docker | None, progress: Progress) -> None:
        """Remember how to get there; nothing is asked yet."""
        self._connect, self._docker, self._progress = connect, docker, progress

    def observe(self, wanted: Sequence[Resource], reveal: Reveal) -> Observation:
        """Read everything in two requests, asking Docker meanwhile. Raises `TargetUnreadable`."""
        with self._connect(reveal) as connection:
            try:
                return self._observed(wanted, reveal, connection)
            except Rejected as error:
                hint = error.hint or "look at the server's log, then try again"
                raise TargetUnreadable(connection.problem(error.summary, hint)) from error

    def _observed(self, wanted: Sequence[Resource], reveal: Reveal, connection: Connection) -> Observation:
        problems: list[Problem] = []
        with ThreadPoolExecutor(max_workers=1) as pool:
            looking = pool.submit(look, self._docker, file=True)
            api = RestApi(connection)
            items, stored = api.principals(), api.keys(*_query(wanted))
            report, progress = problems.append, self._progress
            reading = Reading(items, stored, wanted, reveal=reveal, report=report, progress=progress)
            live = [item for kind in KINDS for item in kind.live(reading)]
            host = looking.result()
        live = with_open(live, wanted, connection.host, host.container)
        problems += [host.problem] if host.problem else []
        for item in wanted if host.file else ():
            if (kind := _KEYS.get(type(item))) is not None and host.file is not None:
                keys = overridden(kind, host.file.keys, item)
                problems += [override(item.address, key, host.file) for key in keys]
        lost = is_lost(wanted, live)
        return Observation(
            TARGET,
            live=live,
            problems=tuple(problems),
            head=(f"{connection.where}: up to 0.15 (REST)",),
            lost=lost,
            cause=causes(host.container) if lost and host.container else (),
            generation="rest",
        )

    def apply(self, changes: Sequence[Change], reveal: Reveal, stopped: Stopped) -> Iterator[Outcome]:
        """Carry out changes: principals, then keys all at once; removals of principals last."""
        principals = [change for change in changes if type(change.resource) in _PRINCIPALS]
        keys = [(kind, change) for change in changes if (kind := _KEYS.get(type(change.resource)))]
        with self._connect(reveal) as connection:
            run = Run(RestApi(connection), reveal, self._docker, self._progress, principals)
            for change, early in in_turn([item for item in principals if not item.deletes], _principal_of):
                if stopped():
                    return
                if early:
                    run.release(change)
                else:
                    yield from run.principal(_principal_of(change), change)
            yield from run.finish()
            if keys and not stopped():
                yield from run.keys(keys, _query(change.resource for _, change in keys))
            for change in (item for item in principals if item.deletes):
                if stopped():
                    return
                yield from run.principal(_principal_of(change), change)


def _principal_of(change: Change) -> Principal[Any]:
    return _PRINCIPALS[type(change.resource)]


def _query(resources: Iterable[Resource]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return prefixes and single keys that hold what is live of all kinds, in one request."""
    items = list(resources)
    single = {PENDING, *(key for kind in KINDS for key in kind.single(items))}
    return tuple(prefix for kind in _KEYS.values() for prefix in kind.prefixes), tuple(sorted(single))
