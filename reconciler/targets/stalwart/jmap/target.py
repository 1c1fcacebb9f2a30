"""The target for Stalwart from 0.16: one or two requests observe it, and one writes nearly everything."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

from reconciler.desired.objects import TYPE
from reconciler.problem import Problem
from reconciler.resources import Live, Observation, Resource
from reconciler.target import Change, Outcome, Progress, Reveal, Stopped
from reconciler.targets.stalwart import external, ports
from reconciler.targets.stalwart.connection import TARGET, Connect, Connection
from reconciler.targets.stalwart.container import Docker, Host, causes, look, unrecoverable
from reconciler.targets.stalwart.jmap.addresses import hidden_conflicts
from reconciler.targets.stalwart.jmap.api import (
    Bootstrapping,
    JmapApi,
    Registry,
    Rejected,
    UnknownObject,
)
from reconciler.targets.stalwart.jmap.drafting import Drafting
from reconciler.targets.stalwart.jmap.kind import ResourceKind, unsaid
from reconciler.targets.stalwart.jmap.kinds.account import (
    AccountKind,
    Passwords,
    login_name,
    unknown_administrator,
    whose,
)
from reconciler.targets.stalwart.jmap.kinds.domain import DomainKind
from reconciler.targets.stalwart.jmap.kinds.groups_and_lists import GroupKind, MailingListKind
from reconciler.targets.stalwart.jmap.kinds.listener import ListenerKind, fresh_listeners
from reconciler.targets.stalwart.jmap.kinds.raw_objects import ObjectKind
from reconciler.targets.stalwart.jmap.kinds.setting import WORDS, AllowedIpKind, SettingKind, still_allowed
from reconciler.targets.stalwart.jmap.kinds.signature import SignatureKind
from reconciler.targets.stalwart.jmap.password_checks import PasswordChecks
from reconciler.targets.stalwart.jmap.pending import Pending
from reconciler.targets.stalwart.jmap.recognition import Recognition
from reconciler.targets.stalwart.jmap.run import Run, read_registry, reading_of, unheard
from reconciler.targets.stalwart.moved import hazards
from reconciler.targets.stalwart.survey import Omissions, Survey, is_lost, refuse_empty

KINDS: tuple[ResourceKind, ...] = (
    AllowedIpKind(),  # first, so that nothing that follows gets us banned
    DomainKind(),  # what this run makes of them has ids for all that follow
    SettingKind(),
    GroupKind(),
    AccountKind(),
    MailingListKind(),
    SignatureKind(),
    ObjectKind(),
    ListenerKind(),
)
"""What is kept on a server from 0.16, in the order of its writes; a removal goes backwards. A further kind is a file
below `kinds`, and an entry here."""

_ENTERED = {
    "recovery": ", entered as its recovery administrator",
    "saved": ", entered as the administrator that it was set up with",
}


class StalwartJmap:
    """Stalwart from 0.16. ``connect`` opens a connection as our user; ``docker`` is the declared container.

    ``checks`` knows of passwords, ``domain`` is the default domain as far as the directory tells it, ``pending`` knows
    what is stored and perhaps not in force, ``recognition`` which release it is.
    """

    name = TARGET

    def __init__(
        self,
        connect: Connect,
        docker: Docker | None,
        progress: Progress,
        checks: PasswordChecks,
        domain: str = "",
        *,
        pending: Pending | None = None,
        recognition: Recognition | None = None,
    ) -> None:
        """Remember how to get there; nothing is asked yet."""
        self._recognition = recognition or Recognition()
        self._connect, self._docker, self._progress = connect, docker, progress
        self._checks, self._domain, self._pending = checks, domain, pending or Pending()
        self._registry: Registry | None = None
        self._recognised = False  # whether its release was told since somebody else has changed it
        self._container = ""  # its id, as far as it is known

    def forget(self) -> None:
        """Forget what was read and which release it was: something else has changed the server."""
        self._registry, self._recognised = None, False

    # ------------------------------------------------------------------------------------------------------- observe
    def observe(self, wanted: Sequence[Resource], reveal: Reveal) -> Observation:
        """Read everything, asking Docker meanwhile. Raises `TargetUnreadable`, or `Bootstrapping` in that mode."""
        with self._connect(reveal) as connection:
            try:
                return self._observed(wanted, reveal, connection)
            finally:
                self._checks.save()

    def _observed(self, wanted: Sequence[Resource], reveal: Reveal, connection: Connection) -> Observation:
        problems: list[Problem] = []
        with ThreadPoolExecutor(max_workers=1) as pool:
            looking = pool.submit(look, self._docker)
            api = self._read(connection, wanted, looking)
            found = looking.result()
        container, registry = found.container, self._registry or {}
        self._container = container.id if container else ""
        declared, directory = wanted, _external(registry)
        if directory:
            problems += external.warning(wanted, directory, connection.where)
            wanted = external.others(wanted)
        judge = Passwords(connection, self._checks, reveal, problems.append, self._container).verdict
        reading = reading_of(registry, wanted, self._domain, reveal=reveal, report=problems.append, judge=judge)
        live = list(self._pending.shown(item for kind in KINDS for item in kind.live(reading)))
        problems += hidden_conflicts(reading)
        live = list(external.as_wanted(live, declared, directory)) if directory else live
        live += still_allowed(self._pending.addresses, live)
        live = ports.with_open(live, wanted, connection.host, container)
        problems += self._unsupported(api, wanted, live)
        lost = is_lost(wanted, live) and not api.unread
        problems += self._known(
            found, connection, None if lost else unknown_administrator(connection, declared), lost=lost
        )
        return Observation(
            TARGET,
            live=live,
            problems=tuple(problems),
            head=(_head(connection), *self._checks.words()),
            lost=lost,
            cause=causes(container, "jmap") if lost and container else (),
            generation="jmap",
            account=whose(connection, reading),
            login=login_name(connection, reading),
        )

    def _read(self, connection: Connection, wanted: Sequence[Resource], looking: Future[Host]) -> JmapApi:
        """Read everything by the words of the release that answers; one that is remembered is not asked for again.

        Raises as `observe`.
        """
        recognition, release, registry = self._recognition, self._recognition.release, None
        if release is not None:
            api = JmapApi(connection, release)
            with contextlib.suppress(UnknownObject):
                registry = read_registry(api, KINDS, wanted)
        container = looking.result().container
        if release is None or registry is None or not recognition.is_same(api.state, container):
            now = recognition.ask(connection)
            if registry is None or release is None or now.fingerprint != release.fingerprint:
                api = JmapApi(connection, now)
                registry = read_registry(api, KINDS, wanted)
            recognition.note(api.state, container)
        self._registry, self._recognised = registry, True
        return api

    def _known(self, found: Host, connection: Connection, stranger: Problem | None, *, lost: bool) -> Iterator[Problem]:
        """Yield what is known to be wrong with the container, the release, the login, and what is kept of it here."""
        container = found.container
        known = (
            found.problem,
            unrecoverable(container) if container else None,
            self._recognition.problem(connection.where, container),
            *hazards(container, "jmap", lost=lost),
            stranger,
            *self._checks.problems(),
            self._pending.problem,
        )
        yield from (problem for problem in known if problem is not None)

    def _unsupported(self, api: JmapApi, wanted: Sequence[Resource], live: Sequence[Live]) -> Iterator[Problem]:
        """Yield what the release does not have of what is wanted; of a known one all is known to be there."""
        if api.release.schema is None or self._registry is None:
            return
        drafting = Drafting(api.release, api.release.schema, KINDS, self._registry, frozenset(api.unread))
        fresh, due = (reading_of(self._registry, wanted, self._domain, reveal=unsaid, report=unheard) for _ in range(2))
        yield from drafting.problems(fresh, due, {item.resource.address: item for item in live})

    # --------------------------------------------------------------------------------------------------------- apply
    def apply(self, changes: Sequence[Change], reveal: Reveal, stopped: Stopped) -> Iterator[Outcome]:
        """Carry out changes in as few requests as the server's limits allow, then see that they are in force.

        What was last observed is taken as the present; before anything is removed the server is read again.
        """
        known = None if any(change.deletes for change in changes) else self._registry
        with self._connect(reveal) as connection:
            passwords = Passwords(connection, self._checks, reveal, unheard, self._container)
            release = self._recognition.release if self._recognised else None
            api = JmapApi(connection, release or self._recognition.ask(connection))
            run = Run(api, KINDS, passwords, self._progress, self._docker, self._pending, self._domain)
            try:
                yield from run.outcomes(changes, known, stopped)
            finally:
                self._registry = None
                if api.surprised:
                    self._recognition.forget()
                self._checks.save()

    # --------------------------------------------------------------------------------------------------------- import
    def survey(self, reveal: Reveal) -> Survey:
        """Read everything that can be declared in as few requests as the server's limits allow.

        Raises `TargetUnreadable`, `Refused` where nothing is there, `Bootstrapping` in that mode.
        """
        from reconciler.targets.stalwart.jmap.differing import Differing, everything, tell_of_downloads

        with self._connect(reveal) as connection:
            api, omissions = JmapApi(connection, self._recognition.ask(connection)), Omissions(connection.where)
            try:
                registry = api.read(everything(KINDS), lenient=True)
                tell_of_downloads(api, omissions)
            except Bootstrapping:
                raise
            except Rejected as error:
                raise api.unreadable(error) from error
        reading = reading_of(registry, WORDS, self._domain, reveal=reveal, report=omissions.tell)
        found = {kind: list(kind.live(reading)) for kind in KINDS}
        refuse_empty(connection.where, (item for items in found.values() for item in items))
        live = [item for kind, items in found.items() for item in kind.survey(reading, items, omissions)]
        live = list(ports.answering(live, connection.host, look(self._docker).container, omissions))
        listening = {str(item.get("name")) for item in reading.items("NetworkListener")}
        return Survey(
            "jmap",
            live=tuple(replace(item, detail=None) for item in live),
            objects=Differing(registry, KINDS, omissions).objects(),
            removed=tuple(item.address for item in fresh_listeners() if item.name not in listening),
            omitted=omissions.problems(),
        )


def _head(connection: Connection) -> str:
    """Name the server, and who got in where it was not the declared administrator."""
    accepted = connection.login.accepted
    return f"{connection.where}: 0.16 or later (JMAP)" + _ENTERED.get(accepted.source if accepted else "", "")


def _external(registry: Registry) -> str:
    """Name the directory that the server looks accounts up in, with its type; empty where it is its own."""
    settings = next(iter(registry.get("Authentication", ())), {})
    for item in registry.get("Directory", ()):
        if item.get("id") == settings.get("directoryId"):
            return f"{item.get('description')} ({str(item.get(TYPE)).upper()})"
    return ""
