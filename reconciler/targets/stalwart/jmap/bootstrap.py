"""Out of bootstrap mode: what a 0.16 server without ``config.json`` is set up with, once, and the way on from there.

Such a server knows one object, serves no mail, and its container counts as healthy. ``x:Bootstrap/set`` writes
``config.json``, the domain and an administrator, whose password it answers once; a restart then brings the mail
service. It is never sent twice: a second one leaves things behind (observed.md), so that it was sent is on the disk
before, and the administrator before anything else happens.
"""

from __future__ import annotations

import contextlib
import enum
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reconciler.files import check_own, read_own, recall, write_private
from reconciler.problem import Problem, SecretUnreadable, Severity, TargetUnreadable
from reconciler.resources import Observation, Resource
from reconciler.target import Progress, Reveal
from reconciler.targets.stalwart.connection import TARGET, AnswerLost, Connect, Connection, Credentials, Mode
from reconciler.targets.stalwart.container import (
    CONFIG,
    DATA,
    RECOVERY,
    Container,
    Docker,
    DockerUnreachable,
    causes,
    look,
)
from reconciler.targets.stalwart.container import unrecoverable as no_recovery
from reconciler.targets.stalwart.jmap.api import Failure, JmapApi, Rejected, Response
from reconciler.targets.stalwart.jmap.kind import unsaid
from reconciler.targets.stalwart.jmap.kinds import raw_objects
from reconciler.targets.stalwart.jmap.recognition import Recognition
from reconciler.targets.stalwart.moved import tag_moves
from reconciler.targets.stalwart.release import JMAP, Release
from reconciler.targets.stalwart.survey import is_lost
from reconciler.targets.stalwart.work import restart

_SINGLETON = "singleton"
_WHICH = "is targets.stalwart.container the one behind the url? correct it or look at its log, then run apply again"
_ON_DISK = ("RocksDb", "Sqlite")  # stores whose description holds no password


class RestartDue(TargetUnreadable):
    """The server is set up, and somebody else has to restart it."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What a server is set up with: the declared host name and default domain, and ``objects.Bootstrap``."""

    hostname: str = ""
    domain: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The host name to set up."""
        return self.hostname or f"mail.{self.domain}"

    def values(self, reveal: Reveal) -> dict[str, Any]:
        """Return what is sent. Certificates, keys and records, which the wizard would make, are ours to make.

        Raises `SecretUnreadable`, and ValueError where something it refers to is not there.
        """
        return {
            "serverHostname": self.name,
            "defaultDomain": self.domain,
            "requestTlsCertificate": False,
            "generateDkimKeys": False,
            **raw_objects.body("Bootstrap", self.fields, reveal),
        }

    @property
    def config(self) -> str:
        """What ``config.json`` has to say, as far as it can be shown."""
        store = dict(self.fields.get("dataStore", {"@type": "RocksDb", "path": f"{DATA}/"}))
        if store.get("@type") in _ON_DISK:
            return f"`{json.dumps(store, separators=(',', ':'))}`"
        return "the data store of objects.Bootstrap as JSON"


class Administrator:
    """The administrator that setting a server up answered once, in a file for its owner only.

    The file says that ``x:Bootstrap/set`` was sent before it is, and goes when the declared administrator has got in.
    It belongs to the ``server`` at one URL: the directory chooses another one, and must not choose who gets this.
    """

    def __init__(self, path: Path, server: str) -> None:
        self.path, self.server = path, server
        self._before: bytes | None = None

    @property
    def is_sent(self) -> bool:
        """Whether a server was set up, whose declared administrator has not got in yet."""
        return self.path.exists()

    def read(self) -> tuple[str, str] | None:
        """Return login name and password; None where there is none, or it can't be read.

        Raises `SecretUnreadable` for that of another server.
        """

        def parse(found: Any) -> tuple[str, str, str]:
            return str(found["username"]), str(found["secret"]), str(found.get("server", ""))

        found = recall(self.path, parse)[0]
        if found is not None and found[2] != self.server:
            hint = "write that url again until the declared administrator has got in, or remove the file"
            raise SecretUnreadable(Problem(str(self.path), f"is of {found[2] or 'a server without a name'}", hint))
        return found and found[:2]

    def begin(self) -> None:
        """Note that the server is about to be set up. Raises `TargetUnreadable` where nothing can be noted."""
        with contextlib.suppress(OSError):
            self._before = read_own(self.path)
        self._write({}, "the server was not set up without it")

    def keep(self, answered: Credentials) -> None:
        """Keep who was answered. Raises `TargetUnreadable`."""
        content = {"server": self.server, "username": answered.username, "secret": answered.password}
        self._write(content, "the server is set up, and its recovery administrator gets in after a restart")

    def withdraw(self) -> None:
        """Put back what was there before: the server was not set up."""
        if self._before is None:
            self.discard()
            return
        with contextlib.suppress(OSError):
            write_private(self.path, self._before)

    def discard(self) -> None:
        """Remove the file, where that can be done: it does no harm."""
        with contextlib.suppress(OSError):
            check_own(self.path.parent)
            self.path.unlink()

    def _write(self, content: Mapping[str, str], then: str) -> None:
        try:
            write_private(self.path, json.dumps(content).encode())
        except OSError as error:
            summary = f"the server's administrator can't be kept there: {os.strerror(error.errno or 0)}"
            hint = f"free space, or name a writable directory with --data; {then}"
            raise TargetUnreadable(Problem(str(self.path), summary, hint, scope=TARGET)) from None


class _Stage(enum.Enum):
    """What there is behind a server in bootstrap mode."""

    NEW = "nothing"
    SET_UP = "config.json: it waits for a restart"
    POPULATED = "data without config.json"


class Bootstrap:
    """The way of one server out of bootstrap mode."""

    def __init__(
        self,
        connect: Connect,
        docker: Docker | None,
        setup: Setup,
        administrator: Administrator,
        progress: Progress,
        *,
        recognition: Recognition,
    ) -> None:
        self._connect, self._docker, self._setup = connect, docker, setup
        self._administrator, self._progress, self._recognition = administrator, progress, recognition

    # ------------------------------------------------------------------------------------------------------- observe
    def observe(self, wanted: Sequence[Resource], reveal: Reveal) -> Observation | None:
        """Look at a server that names no resource; None where it is in recovery mode, and knows its objects.

        What its release does not have is told now: nobody can ask again once it is set up. Raises `TargetUnreadable`
        where nobody gets in, or where it must not or can't be set up.
        """
        place = look(self._docker)
        container = place.container
        with self._connect(reveal) as connection:
            bare = _bare(connection)
            if bare is None:
                return None
            stage = self._stage()
            self._check(connection, stage)
            release = self._recognition.ask(connection)
            if stage is _Stage.NEW:
                self._accepts(connection, release, bare)
            notice = self._notice(connection, stage, container)
            unknown = self._recognition.problem(connection.where, container)
        told = (
            no_recovery(container) if container else None,
            unknown,
            tag_moves(container, Mode.JMAP.generation, lost=True),
        )
        problems = (notice, place.problem, *told, *_lacking(JmapApi(connection, release), wanted, self._setup))
        return Observation(
            TARGET,
            problems=tuple(problem for problem in problems if problem),
            head=(f"{connection.where}: 0.16 or later (JMAP), in bootstrap mode: it serves no mail",),
            lost=is_lost(wanted, ()),
            cause=causes(container, Mode.JMAP) if container else (),
            generation=Mode.JMAP.generation,
        )

    def _stage(self) -> _Stage:
        """Look into the container where that can be done, else go by what was noted here."""
        if self._docker is not None:
            with contextlib.suppress(DockerUnreachable):
                if self._docker.holds(CONFIG):
                    return _Stage.SET_UP
                return _Stage.POPULATED if self._docker.holds(DATA) else _Stage.NEW
        return _Stage.SET_UP if self._administrator.is_sent else _Stage.NEW

    def _check(self, connection: Connection, stage: _Stage) -> None:
        if stage is _Stage.POPULATED:
            raise TargetUnreadable(self._populated(connection))
        if stage is _Stage.NEW and not self._setup.domain:
            summary = "is not declared, and the server has to be set up with one: it is in bootstrap mode"
            hint = "write `default_domain: example.com` under stalwart"
            raise TargetUnreadable(Problem("stalwart/default_domain", summary, hint, scope=TARGET))

    def _accepts(self, connection: Connection, release: Release, bare: Mapping[str, Any]) -> None:
        """See that the release takes what it would be set up with, over what is there. Raises `TargetUnreadable`."""
        with contextlib.suppress(ValueError):  # told where it is sent
            values = self._setup.values(unsaid)
            found = release.schema.objections("Bootstrap", "update", values, bare) if release.schema else ()
            if why := "; ".join(map(str, found)):
                summary = f"can't be set up: this release of Stalwart {why}"
                hint = f"pin a release that is known (v{JMAP.name}), or set it up by its own page at /admin"
                raise TargetUnreadable(connection.problem(summary, hint))

    def _notice(self, connection: Connection, stage: _Stage, container: Container | None) -> Problem:
        summary = (
            "is in bootstrap mode: it has no config.json and serves no mail, though its container counts as healthy"
        )
        named = "" if self._setup.hostname else " (stalwart.hostname is not declared)"
        done = f"sets it up as {self._setup.name}{named} for {self._setup.domain}"
        if stage is _Stage.SET_UP:
            summary = "is in bootstrap mode and serves no mail: it has been set up, and its restart is due"
        if container is not None:
            steps = ([] if stage is _Stage.SET_UP else [done]) + [f"restarts the container {container.name}"]
            hint = f"apply {', '.join(steps)} and makes the rest"
        elif stage is _Stage.SET_UP:
            hint = self._due()
        else:
            hint = f"apply {done}; then {self._by_hand()}"
        return Problem(connection.where, summary, hint, Severity.WARNING)

    def _due(self) -> str:
        """Say what to do where we only noted that the server was set up: it may be another one by now."""
        path = self._administrator.path
        return f"{self._by_hand()}; where it has been restarted since, it is not set up: remove {path} and run apply"

    def _by_hand(self) -> str:
        name = self._docker.name if self._docker else "CONTAINER"
        return f"run `docker restart {name}`, then `reconciler apply` again"

    # --------------------------------------------------------------------------------------------------------- leave
    def leave(self, reveal: Reveal) -> None:
        """Set the server up unless it is, restart it, and log in as the administrator that it answered.

        Raises `RestartDue` where it can't be restarted from here, `TargetUnreadable` where it can't be set up.
        """
        with self._connect(reveal) as connection:
            stage = self._stage()
            self._check(connection, stage)
            release = self._recognition.ask(connection)
            if stage is _Stage.NEW:
                self._set_up(JmapApi(connection, release), reveal)
            self._restart(connection)

    def _set_up(self, api: JmapApi, reveal: Reveal) -> None:
        """Send it once. Whether or not an answer came: a restart shows what the server is."""
        try:
            values = self._setup.values(reveal)
        except ValueError as error:
            hint = "correct it, or take it away"
            raise TargetUnreadable(Problem("stalwart/objects/Bootstrap", str(error), hint, scope=TARGET)) from None
        self._progress(f"setting {api.connection.where} up as {self._setup.name}")
        self._administrator.begin()
        try:
            (response,) = api.call(("x:Bootstrap/set", {"update": {_SINGLETON: values}}))
        except AnswerLost:
            return
        except (TargetUnreadable, Rejected) as error:
            self._administrator.withdraw()
            raise api.unreadable(error) if isinstance(error, Rejected) else error from None
        self._answered(api.connection, response)

    def _answered(self, connection: Connection, response: Response) -> None:
        failure = response.failure(_SINGLETON)
        if failure is not None and failure.type not in ("unanswered", "primaryKeyViolation"):
            self._administrator.withdraw()
            raise TargetUnreadable(self._declined(connection, failure))
        made = response.updated(_SINGLETON)
        if "username" in made and "secret" in made:  # with an external directory there is none
            administrator = connection.login.hidden(str(made["username"]), str(made["secret"]), "saved")
            self._administrator.keep(administrator)

    def _restart(self, connection: Connection) -> None:
        """Restart the container that holds what was set up, and no other: a wrong name may be that of a database."""
        try:
            if self._docker is not None and not self._docker.holds(CONFIG):
                summary = f"can't be set up: the container {self._docker.name} has no {CONFIG} afterwards"
                raise TargetUnreadable(connection.problem(summary, _WHICH))
            restart(self._docker, connection, self._progress)
        except DockerUnreachable as error:
            summary = f"is set up and serves no mail before its restart, which can't be done from here: {error}"
            raise RestartDue(connection.problem(summary, self._due())) from None
        connection.login.enter(connection.detect())
        if connection.login.mode is Mode.BOOTSTRAP and _bare(connection) is not None:
            summary = "is in bootstrap mode again after its restart: it has no config.json"
            raise TargetUnreadable(connection.problem(summary, _WHICH))
        saved = self._administrator.read()
        if saved is not None:  # the declared password is not this one's yet: trying it would count as a refused login
            connection.login.accepted = connection.login.hidden(*saved, "saved")

    # ------------------------------------------------------------------------------------------------------- problems
    def _populated(self, connection: Connection) -> Problem:
        older = False
        if self._docker is not None:
            with contextlib.suppress(DockerUnreachable):
                older = self._docker.holds(f"{DATA}/etc/config.toml")
        if older:
            return self._older(connection)
        summary = (
            f"is in bootstrap mode because {CONFIG} is missing, and its data store holds data: it is not set up anew"
        )
        return connection.problem(summary, self._mount())

    def _mount(self) -> str:
        """Say how ``config.json`` comes back: the server then starts normally, whatever its store holds."""
        return (
            f"write {self._setup.config} to a file beside the compose file, readable for user 2000, mount it with "
            f"`- ./stalwart-config.json:{CONFIG}` under the service's `volumes:`, and recreate the container"
        )

    def _older(self, connection: Connection) -> Problem:
        summary = f"is in bootstrap mode, and {DATA} holds the data of a version before 0.16, which it can't use"
        hint = (
            f"mount a new volume at {DATA}: apply makes everything in this directory on it; the mail in the old one "
            "needs the server's own migration (its UPGRADING/v0_16.md)"
        )
        return connection.problem(summary, hint)

    def _declined(self, connection: Connection, failure: Failure) -> Problem:
        if "already been initialized" in failure.description:
            return self._populated(connection)
        if "older version" in failure.description:
            return self._older(connection)
        summary = f"can't be set up: {failure.words()}"
        if "save data store settings" in failure.description:  # a directory that it may not write; the store is made
            return connection.problem(summary, self._mount())
        return connection.problem(summary, "correct stalwart.hostname, stalwart.default_domain or objects.Bootstrap")


def _bare(connection: Connection) -> Mapping[str, Any] | None:
    """Return the ``x:Bootstrap`` of a server that knows nothing besides; None in any other mode: there is none."""
    api = JmapApi(connection)
    try:
        (response,) = api.call(("x:Bootstrap/get", {"ids": [_SINGLETON]}))
    except Rejected as error:
        raise api.unreadable(error) from None
    found = response.arguments.get("list")
    return next((item for item in found if isinstance(item, dict)), None) if isinstance(found, list) else None


def _lacking(api: JmapApi, wanted: Sequence[Resource], setup: Setup) -> tuple[Problem, ...]:
    """Say what the release does not have of what is wanted, where nothing is there but what it is set up with."""
    if api.release.schema is None:
        return ()
    from reconciler.targets.stalwart.jmap.drafting import Drafting  # here and below: in this mode alone
    from reconciler.targets.stalwart.jmap.run import reading_of, selections, unheard
    from reconciler.targets.stalwart.jmap.target import KINDS

    unread = api.lacks(selections(KINDS, wanted))
    fresh, due = (reading_of({}, wanted, setup.domain, reveal=unsaid, report=unheard) for _ in range(2))
    made = {"SystemSettings": [{"defaultHostname": setup.name, "defaultDomainId": setup.domain}]}
    return tuple(Drafting(api.release, api.release.schema, KINDS, made, unread).problems(fresh, due, {}))


_PRINTED = re.compile(r"^[ \t]*username:[ \t]*(\S+)[ \t\r]*\n[ \t]*password:[ \t]*(\S+)[ \t\r]*$", re.MULTILINE)


def printed(docker: Docker | None, leads_there: Callable[[Container], bool]) -> tuple[str, str] | None:
    """Find the administrator that the container's log shows: one-time, made at each start without a fixed one.

    ``leads_there`` says whether who is asked is that container for certain. Raises `SecretUnreadable` where it is not:
    the directory names both, and must not choose who gets what a log shows.
    """
    if docker is None:
        return None
    with contextlib.suppress(DockerUnreachable):
        container = docker.inspect()
        if RECOVERY in container.environment:
            return None
        found = _PRINTED.findall(docker.log())
        if found and not leads_there(container):
            summary = "shows a password that is for this container alone, and the url may lead elsewhere"
            hint = "write its published port on loopback or its name as url, or give that url as STALWART_URL"
            raise SecretUnreadable(Problem(f"the log of {docker.name}", summary, hint))
        return found[-1] if found else None
    return None
