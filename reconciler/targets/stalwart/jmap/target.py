"""The target for Stalwart from 0.16: one or two requests observe it, and one writes nearly everything."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from reconciler.plan import Change
from reconciler.problem import Problem, Severity
from reconciler.reconcile import Outcome, Progress, Report, Reveal, Stopped
from reconciler.resources import Account, Observation, Resource, SecretRef, Verdict
from reconciler.targets.stalwart import host, passwords, ports
from reconciler.targets.stalwart.connection import TARGET, Connect, Connection, Credentials
from reconciler.targets.stalwart.container import Docker, causes, unrecoverable
from reconciler.targets.stalwart.jmap.api import JmapApi, Registry
from reconciler.targets.stalwart.jmap.apply import Run
from reconciler.targets.stalwart.jmap.passwords import PasswordChecks, try_login
from reconciler.targets.stalwart.jmap.pending import Pending
from reconciler.targets.stalwart.jmap.reading import directory_of, live_of, read

_ENTERED = {
    "recovery": ", entered as its recovery administrator",
    "saved": ", entered as the administrator that it was set up with",
}


class StalwartJmap:
    """Stalwart from 0.16. ``connect`` opens a connection as our user; ``docker`` is the declared container.

    ``checks`` knows of passwords, ``domain`` is the default domain as far as the directory tells it, ``pending`` knows
    what is stored and perhaps not in force.
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
    ) -> None:
        """Remember how to get there; nothing is asked yet."""
        self._connect, self._docker, self._progress = connect, docker, progress
        self._checks, self._domain, self._pending = checks, domain, pending or Pending()
        self._registry: Registry | None = None
        self._container = ""  # its id, as far as it is known

    def forget(self) -> None:
        """Forget what was read: something else has changed the server."""
        self._registry = None

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
            looking = pool.submit(host.look, self._docker)
            registry = self._registry = read(JmapApi(connection), wanted)
            found = looking.result()
        container = found.container
        self._container = container.id if container else ""
        judge = _Passwords(connection, self._checks, reveal, problems.append, self._container).verdict
        live = list(live_of(directory_of(registry, wanted, self._domain), wanted, judge, reveal, problems.append))
        live = list(self._pending.shown(live))
        live = ports.with_open(live, wanted, connection.host, container)
        lost = host.is_lost(wanted, live)
        stranger = None if lost else _unknown_administrator(connection, wanted)
        known = (found.problem, unrecoverable(container) if container else None, stranger, *self._checks.problems())
        return Observation(
            TARGET,
            live=live,
            problems=(*problems, *(problem for problem in known if problem is not None)),
            head=(_head(connection), *self._checks.words()),
            lost=lost,
            cause=causes(container, "jmap") if lost and container else (),
            generation="jmap",
        )

    # --------------------------------------------------------------------------------------------------------- apply
    def apply(self, changes: Sequence[Change], reveal: Reveal, stopped: Stopped) -> Iterator[Outcome]:
        """Carry out changes in as few requests as the server's limits allow, then see that they are in force.

        What was last observed is taken as the present; before anything is removed the server is read again.
        """
        known = None if any(change.deletes for change in changes) else self._registry
        with self._connect(reveal) as connection:
            run = Run(
                JmapApi(connection),
                domain=self._domain,
                reveal=reveal,
                progress=self._progress,
                docker=self._docker,
                checks=self._checks,
                pending=self._pending,
                container=self._container,
            )
            try:
                yield from run.outcomes(changes, known, stopped)
            finally:
                self.forget()
                self._checks.save()


def _head(connection: Connection) -> str:
    """Name the server, and who got in where it was not the declared administrator."""
    accepted = connection.login.accepted
    return f"{connection.where}: 0.16 or later (JMAP)" + _ENTERED.get(accepted.source if accepted else "", "")


def _unknown_administrator(connection: Connection, wanted: Sequence[Resource]) -> Problem | None:
    """Warn where the declared login was refused and no declared account is it: apply would never make it work."""
    login = connection.login
    declared = {item.name for item in wanted if isinstance(item, Account)}
    if login.accepted is None or login.accepted.source not in _ENTERED or declared & {login.name, login.username}:
        return None
    hint = f"declare accounts.{login.username} with `roles: [admin]` and that password, or correct targets.stalwart"
    summary = f"does not take the declared password of {login.name}"
    return replace(connection.problem(summary, hint), severity=Severity.WARNING, scope="")


@dataclass(frozen=True, slots=True)
class _Passwords:
    """What is known of passwords, and from whom: the server shows none."""

    connection: Connection
    checks: PasswordChecks
    reveal: Reveal
    report: Report
    container: str

    def verdict(self, account: Account, address: str) -> Verdict:
        """Judge a wanted account's password; one that can't be read or stored is reported."""
        ref = account.password
        value = passwords.revealed(account, ref, self.reveal, self.report) if isinstance(ref, SecretRef) else None
        if value is None or not isinstance(ref, SecretRef):
            return passwords.UNUSABLE
        login = self.connection.login
        if address == login.name.lower():  # who we are was told by the server just now
            if login.accepted == Credentials(login.name, value):
                self.checks.answered(address, value, self.container, accepted=True)
            elif Credentials(login.name, value).digest in login.refused:
                self.checks.answered(address, value, self.container, accepted=False)
        attempt = functools.partial(try_login, self.connection)
        return self.checks.verdict(address, ref, self.reveal, attempt, self.container)
