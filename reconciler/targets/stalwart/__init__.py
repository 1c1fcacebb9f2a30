"""Stalwart, either generation: who answers at the URL, and the target that drives it.

``rest`` and ``jmap`` are targets over the same kinds: one file a kind, and one tuple of them. They share what gets
there (`connection`, `container`, `host`), what differs between releases (`release`), what holds for both
(`passwords`, `ports`, `survey`) and what an apply is made of (`work`). Nothing above this package knows versions.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from reconciler import url
from reconciler.docker import EngineMemory
from reconciler.problem import Problem, ReconcilerError, Refused, Severity, TargetUnreadable
from reconciler.refusals import Refusals
from reconciler.resources import Observation, Resource, SecretRef
from reconciler.target import Change, Outcome, Progress, Reveal, Status, Stopped
from reconciler.targets.stalwart import bans
from reconciler.targets.stalwart.connection import TARGET, Connection, Login, Mode, trust
from reconciler.targets.stalwart.container import Container, Docker, DockerUnreachable
from reconciler.targets.stalwart.jmap.api import Bootstrapping, JmapApi
from reconciler.targets.stalwart.jmap.api import Rejected as Declined
from reconciler.targets.stalwart.jmap.bootstrap import Administrator, Bootstrap, RestartDue, Setup, printed
from reconciler.targets.stalwart.jmap.password_checks import PasswordChecks
from reconciler.targets.stalwart.jmap.recognition import Recognition
from reconciler.targets.stalwart.mailbox import Mailbox
from reconciler.targets.stalwart.moved import store_refused
from reconciler.targets.stalwart.rest.api import Rejected, RestApi
from reconciler.targets.stalwart.rest.target import StalwartRest
from reconciler.traffic import Queued
from reconciler.url import Url

if TYPE_CHECKING:
    from reconciler.checks.evidence import Blocked
    from reconciler.targets.stalwart.jmap.target import StalwartJmap
    from reconciler.targets.stalwart.survey import Survey

ADMINISTRATOR = "stalwart-administrator"
"""How the file begins, in the data directory, that keeps the administrator that setting a server up answered."""

PENDING = "stalwart-pending"
"""How the file begins, in the data directory, that says what a server from 0.16 stored and may not go by."""

RELEASE = "stalwart-release"
"""How the file begins, in the data directory, that says which release a server from 0.16 was."""

_VERSIONS = {
    Mode.REST: "up to 0.15 (REST)",
    Mode.JMAP: "0.16 or later (JMAP)",
    Mode.BOOTSTRAP: "0.16 or later (JMAP), in bootstrap or recovery mode: it serves no mail",
}


class Stalwart:
    """The mail server at ``url``.

    ``passwords`` are tried in order, each once. ``recovery`` (``user:password``) gets into a 0.16 server that lost
    its accounts. ``generation`` refuses a server of the other one. ``container`` is the name of its container at the
    engine ``docker_host`` (None: the environment's). ``setup`` is what a server without any configuration is set up
    with, ``kept`` the file for the administrator that it then answers. ``hide`` is told what nobody may be shown,
    ``checks`` knows which passwords may be tried, ``pending`` is the file that says what was stored and may not be in
    force, ``progress`` tells a person what is waited for. ``release`` refuses others from 0.16 (``0.16``, ``1``);
    ``recognised`` is the file that remembers which one it was, ``refusals`` knows which logins were refused,
    ``engine`` what the Docker Engine answered. ``chosen_outside`` says that it is the environment that names the
    ``url``, and not the directory.
    """

    name = TARGET

    def __init__(
        self,
        *,
        url: str,
        username: str,
        passwords: Sequence[SecretRef],
        container: str | None = None,
        recovery: SecretRef | None = None,
        generation: str | None = None,
        allow_plain_http: bool = False,
        docker_host: str | None = None,
        setup: Setup | None = None,
        kept: Path = Path(".reconciler", f"{ADMINISTRATOR}.json"),
        hide: Callable[[SecretRef, str], None] = lambda _ref, _value: None,
        checks: PasswordChecks | None = None,
        pending: Path | None = None,
        release: str | None = None,
        recognised: Path | None = None,
        refusals: Refusals | None = None,
        engine: EngineMemory | None = None,
        chosen_outside: bool = False,
        progress: Progress = lambda _: None,
    ) -> None:
        """Remember how to get there; nothing is asked yet."""
        self.url, self.generation = url.rstrip("/"), generation
        self._allow_plain_http = allow_plain_http
        self._progress = progress
        self._docker = Docker(container, docker_host, engine) if container else None
        setup = setup or Setup()
        self._administrator = Administrator(kept, self.url)
        self._chosen_outside = chosen_outside
        self._login = Login(
            username,
            tuple(passwords),
            domain=setup.domain,
            recovery=recovery,
            saved=self._administrator.read,
            printed=lambda: printed(self._docker, self._leads_to),
            hide=hide,
            mode=Mode(generation) if generation else None,
            refused=Refusals() if refusals is None else refusals,
            server=self._server,
        )
        self._trust = functools.cache(trust)  # reading all authorities takes a tenth of a second
        self._found: Mode | None = None  # by the last observation
        self._known: Mode | None = None  # by the last one that was whole
        self._rest = StalwartRest(self._connect, self._docker, progress)
        self._checks, self._domain = checks or PasswordChecks(), setup.domain
        self._pending, self._recognition = pending, Recognition(recognised, self.url, release)
        self._bootstrap = Bootstrap(
            self._connect, self._docker, setup, self._administrator, progress, recognition=self._recognition
        )

    @functools.cached_property
    def _jmap(self) -> StalwartJmap:
        """The newer generation, imported where it is needed."""
        from reconciler.targets.stalwart.jmap.pending import Pending
        from reconciler.targets.stalwart.jmap.target import StalwartJmap

        return StalwartJmap(
            self._connect,
            self._docker,
            self._progress,
            self._checks,
            self._domain,
            pending=Pending(self._pending, self.url),
            recognition=self._recognition,
        )

    @property
    def libraries(self) -> tuple[str, ...]:
        """What observing imports."""
        return ("httpcore", "httpx", *(("requests", "docker") if self._docker else ()))

    def observe(self, wanted: Sequence[Resource], reveal: Reveal) -> Observation:
        """Read what is live. A request without credentials tells the generation first, whatever is declared.

        It is not asked for again after an observation that was whole, unless the next one fails.
        """
        known, self._known, self._found = self._known, None, self._known
        failure: ReconcilerError | None = None
        try:
            if known is not None:
                try:
                    return self._sure(self._observed(wanted, reveal, known))
                except ReconcilerError as error:
                    failure, self._found = error, None
            self._found = self._detected(reveal)
            if failure is not None and self._found is known:
                raise failure
            return self._sure(self._observed(wanted, reveal, self._found))
        except ReconcilerError as error:
            old = store_refused(self._docker) if self._found is None else None
            return self._unread((old, *error.problems) if old else error.problems)

    def _sure(self, seen: Observation) -> Observation:
        """Note which generation it was, where everything could be read."""
        if seen.complete and not seen.lost and self._found in (Mode.REST, Mode.JMAP):
            self._known = self._found
        return seen

    def apply(self, changes: Sequence[Change], reveal: Reveal, stopped: Stopped = lambda: False) -> Iterator[Outcome]:
        """Carry out the changes of one phase. Raises `TargetUnreadable` when the server is not one we drive."""
        found = self._found or self._detected(reveal)
        if found is Mode.REST:
            yield from self._rest.apply(changes, reveal, stopped)
            return
        if found is Mode.BOOTSTRAP and not stopped():
            try:
                self._bootstrap.leave(reveal)
            except RestartDue as due:
                yield from (_waits(change, due.problems[0]) for change in changes)
                return
            self._found = Mode.JMAP
            self._jmap.forget()
        try:
            yield from self._jmap.apply(changes, reveal, stopped)
        except Bootstrapping as error:  # since it was observed
            self._found = None
            raise TargetUnreadable(self._problem(error.summary, "plan again: the plan says what to do")) from None

    def survey(self, reveal: Reveal) -> Survey:
        """Read everything that a directory can declare, for an import.

        Raises `TargetUnreadable` where it can't be read whole, `Refused` for a server that holds nothing, or serves
        no mail.
        """
        found = self._detected(reveal)
        if found is Mode.BOOTSTRAP:
            hint = "a restart without STALWART_RECOVERY_MODE and with its config.json ends that; then import again"
            summary = "is in bootstrap or recovery mode: what it has can't be seen"
            raise Refused(replace(self._problem(summary, hint), severity=Severity.REFUSED))
        if found is Mode.REST:
            return self._rest.survey(reveal)
        try:
            return self._jmap.survey(reveal)
        except Bootstrapping as error:  # a proxy hid the probe
            raise Refused(replace(self._problem(error.summary, error.hint), severity=Severity.REFUSED)) from None

    def traffic(self, reveal: Reveal, *, logs: bool) -> tuple[tuple[Queued, ...], tuple[str, ...] | None]:
        """Read what waits in the queue and, with ``logs``, the lines of the log that name a message.

        None in place of the lines where the server writes no file that could be read. Raises `TargetUnreadable`.
        """
        found = self._found or self._detected(reveal)
        with self._connect(reveal) as connection:
            try:
                if found is Mode.REST:
                    from reconciler.targets.stalwart.rest import traffic as older

                    api = RestApi(connection, ())
                    return older.queue(api), older.log(api) if logs else ()
                from reconciler.targets.stalwart.jmap import traffic as newer

                return newer.queue(jmap := JmapApi(connection)), newer.log(jmap) if logs else ()
            except (Rejected, Declined) as error:
                raise TargetUnreadable(self._problem(error.summary, error.hint)) from None
            except (LookupError, TypeError, ValueError) as error:
                summary = "answers a queue or a log that can't be understood"
                raise TargetUnreadable(self._problem(summary, "another release than is known?")) from error

    @contextlib.contextmanager
    def mailbox(self, reveal: Reveal, username: str, password: str) -> Iterator[Mailbox]:
        """Open a mailbox with its owner's login, which is tried once. Raises `TargetUnreadable`, also for a refusal."""
        with self._connect(reveal) as connection:
            yield Mailbox(connection, self._login, username, password)

    # ------------------------------------------------------------------------------------------------------------- bans
    def banned(self, reveal: Reveal) -> tuple[Blocked, ...]:
        """List whom the server does not talk to. Raises `TargetUnreadable`."""
        with self._asking(reveal) as (connection, api):
            return bans.listed_by_rest(connection) if api is None else bans.listed_by_jmap(api)

    def lift(self, reveal: Reveal, entry: str) -> None:
        """Lift the one ban that is listed in these words, at once and for good. Raises `TargetUnreadable`."""
        with self._asking(reveal) as (connection, api):
            if api is not None:
                bans.lift_by_jmap(api, entry)
            elif entry in {item.entry for item in bans.listed_by_rest(connection)}:
                bans.lift_by_rest(connection, entry)

    @contextlib.contextmanager
    def _asking(self, reveal: Reveal) -> Iterator[tuple[Connection, JmapApi | None]]:
        """Open a connection, with the API of a server from 0.16."""
        found = self._found or self._detected(reveal)
        with self._connect(reveal) as connection:
            if found is Mode.REST:
                yield connection, None
                return
            yield connection, JmapApi(connection, self._recognition.release or self._recognition.ask(connection))

    # ------------------------------------------------------------------------------------------------------ generations
    def _detected(self, reveal: Reveal) -> Mode:
        """Find out what answers. Raises `TargetUnreadable`, also for the other generation than the declared one."""
        with self._connect(reveal) as connection:
            found = connection.detect(Mode(self.generation) if self.generation else None)
        if self.generation not in (None, found.generation):
            raise TargetUnreadable(self._mismatch(found))
        self._login.enter(found)
        return found

    def _observed(self, wanted: Sequence[Resource], reveal: Reveal, found: Mode) -> Observation:
        if found is Mode.REST:
            return self._rest.observe(wanted, reveal)
        recovering = False
        if found is Mode.BOOTSTRAP:
            seen = self._bootstrap.observe(wanted, reveal)
            if seen is not None:
                return seen
            self._found, recovering = Mode.JMAP, True
        try:
            seen = self._jmap.observe(wanted, reveal)
        except Bootstrapping as error:
            raise TargetUnreadable(self._problem(error.summary, error.hint)) from None
        if self._login.accepted is not None and self._login.accepted.source == "declared":
            self._administrator.discard()
        return replace(seen, problems=(self._recovering(), *seen.problems)) if recovering else seen

    def _recovering(self) -> Problem:
        summary = "is in recovery mode: it serves no mail, though its container counts as healthy"
        hint = "take STALWART_RECOVERY_MODE out of the service's `environment:` and recreate the container"
        return replace(self._problem(summary, hint), severity=Severity.WARNING, scope="")

    def _mismatch(self, found: Mode) -> Problem:
        path = url.parse(self.url).path  # it was parsed to ask there
        return self._problem(
            f"is {_VERSIONS[found]}, but targets.stalwart.generation is {self.generation}",
            (f"take {path} out of the url, where nothing is found below it; else " if path else "")
            + f"pin the image's tag to a version {_VERSIONS[Mode(self.generation or found.generation)]}, or write "
            f"`generation: {found.generation}`",
        )

    # ------------------------------------------------------------------------------------------------------ connecting
    def _server(self) -> str:
        """Say which server it is: by its address and, where it is declared, its container."""
        if self._docker is not None:
            with contextlib.suppress(DockerUnreachable):
                return f"{self.url} {self._docker.inspect().id}"
        return self.url

    def _connect(self, reveal: Reveal) -> Connection:
        """Open a connection; no credential goes over a line that others may read."""
        try:
            address = url.parse(self.url)
        except url.NoUrl as error:  # the environment's: the directory's was looked at when it was loaded
            where = "STALWART_URL, or targets.stalwart.url"
            raise TargetUnreadable(Problem(where, error.summary, error.hint, scope=TARGET)) from None
        admits = None if address.tls or self._allow_plain_http else self._private(address)
        anywhere = (lambda _: True) if self._allow_plain_http else None
        return Connection(address, self._login, reveal, self._progress, trust=self._trust, admits=admits or anywhere)

    def _private(self, address: Url) -> url.Admits:
        """Say where plain HTTP may lead: this machine, a private container network, those of the declared container.

        Raises `TargetUnreadable` for what leads elsewhere for certain; a name is held to it when it is connected to.
        """
        if address.is_loopback or (url.ip(address.host) and address.may_go_plain()):
            return address.admits
        if self._docker is not None:
            with contextlib.suppress(DockerUnreachable):
                container = self._docker.inspect()
                found = url.ip(address.host)
                if _is_called(container, address.host) or (found and _is_inside(container, found)):
                    return lambda ip: _is_inside(container, ip) or address.admits(ip)
        if address.may_go_plain(self._docker.name if self._docker else None):
            return address.admits
        raise TargetUnreadable(
            self._problem(
                "would send the administrator's password unencrypted",
                "use https://, an SSH tunnel to loopback, or the container's own name or address; where the line "
                "is safe all the same, write `allow_plain_http: true` under targets.stalwart",
            )
        )

    def _leads_to(self, container: Container) -> bool:
        """Whether the URL leads to a container, or the environment says so: it gets what no reference names."""
        address = url.parse(self.url)
        found = url.ip(address.host)
        inside = found is not None and _is_inside(container, found)
        private = _is_called(container, address.host) and not self._allow_plain_http
        return self._chosen_outside or address.is_loopback or inside or private

    def _problem(self, summary: str, hint: str) -> Problem:
        return Problem(f"Stalwart at {self.url}", summary, hint, scope=TARGET)

    def _unread(self, problems: Sequence[Problem]) -> Observation:
        return Observation(
            TARGET,
            unread=frozenset({TARGET}),
            problems=tuple(problems),
            head=(f"Stalwart at {self.url}: {_VERSIONS[self._found]}",) if self._found else (),
            generation=self._found.generation if self._found else None,
        )


def _waits(change: Change, due: Problem) -> Outcome:
    """Leave a change for later, when somebody has restarted the server."""
    return Outcome(change, Status.SKIPPED, Problem(change.address, due.summary, due.hint, scope=TARGET))


def _is_called(container: Container, host: str) -> bool:
    """Whether a host is one of the names that a container has in its networks."""
    return host in {name.lower() for name in (container.name, *container.aliases)}


def _is_inside(container: Container, found: url.IP) -> bool:
    """Whether an address is this machine's, or lies in the container's private networks."""
    return found.is_loopback or (container.owns(str(found)) and found.is_private)
