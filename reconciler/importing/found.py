"""What a user asks to import, and what is live there: everything is read before anything is written."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from reconciler import git
from reconciler.names import host
from reconciler.problem import Problem, ReconcilerError, TargetUnreadable
from reconciler.resources import Account, Domain, Live, Record, Resource, SecretRef, Setting
from reconciler.secrets.store import open_store

if TYPE_CHECKING:
    from reconciler.settings import Settings
    from reconciler.target import Progress, Reveal
    from reconciler.targets.compose import Compose
    from reconciler.targets.compose.snapshot import Service
    from reconciler.targets.compose.snapshot import Survey as Project
    from reconciler.targets.stalwart.survey import Survey

R = TypeVar("R", bound=Resource)

ADMINISTRATOR = SecretRef("env", "STALWART_ADMIN_PASSWORD")
TOKEN = SecretRef("env", "CLOUDFLARE_API_TOKEN")
RECOVERY = SecretRef("env", "STALWART_RECOVERY_ADMIN")


@dataclass(frozen=True, slots=True)
class Request:
    """The systems to import, each optional, and the directory to write.

    ``store`` is where secrets go, as `reconciler.secrets.store.open_store` has it: relative to the directory.
    """

    out: Path
    stalwart: str | None = None
    username: str = "admin"
    container: str | None = None
    allow_plain_http: bool = False
    zones: Sequence[str] = ()
    compose: Path | None = None
    env_file: Path | None = None
    project: str | None = None
    stack: str | None = None
    store: str = "file:../secrets"
    recipients: Sequence[str] = ()

    def check(self, environ: Mapping[str, str]) -> None:
        """Raise `ReconcilerError` with all that stands in the way, before anything is asked.

        `Refused` where a link that a commit may have made would choose what is written.
        """
        git.refuse_leaving(self.out)
        problems = [*self._incomplete(), *self._unset(environ), *self._taken()]
        if problems:
            raise ReconcilerError(*problems)
        open_store(self.store, self.out, environ, self.recipients)

    def _incomplete(self) -> Iterator[Problem]:
        if not (self.stalwart or self.zones or self.compose):
            hint = "name at least one: --stalwart URL, --zone ZONE, --compose FILE"
            yield Problem("command line", "there is nothing to import from", hint)
        if self.compose is not None and not self.compose.is_file():
            yield Problem(str(self.compose), "the compose file does not exist", "correct --compose")
        for zone in self.zones:
            try:
                host(zone)
            except ValueError as error:
                yield Problem("--zone", str(error), "write it like example.com")
        if self.stack is not None and not re.fullmatch(r"[a-z0-9-]{1,24}", self.stack):
            yield Problem("--stack", "is no stack's name", "1 to 24 of a-z, 0-9 and -")

    def _unset(self, environ: Mapping[str, str]) -> Iterator[Problem]:
        needed = {ADMINISTRATOR: self.stalwart, TOKEN: self.zones}
        for ref, wanted in needed.items():
            if wanted and not environ.get(ref.name):
                what = "--stalwart" if ref == ADMINISTRATOR else "--zone"
                yield Problem(ref.name, f"is not set, and {what} needs it", f"export {ref.name} where reconciler runs")

    def _taken(self) -> Iterator[Problem]:
        """Refuse what can't be replaced in one step; an empty directory can."""
        if self.out.is_symlink():
            yield Problem(str(self.out), "is a link, which is not followed", "name what it leads to with --out")
        elif os.path.lexists(self.out) and not self.out.is_dir():
            yield Problem(str(self.out), "is no directory", "name another one with --out")
        elif self.out.is_dir() and (names := sorted(path.name for path in self.out.iterdir())):
            what = "there is a directory of YAML already" if _yaml(self.out) else f"is not empty ({names[0]})"
            yield Problem(str(self.out), f"{what}, so nothing was written", "name another one with --out")


def _yaml(directory: Path) -> bool:
    return any(directory.rglob("*.y*ml"))


def stack_name(*candidates: str) -> str:
    """Make a stack's name of the first candidate that holds one."""
    for text in candidates:
        name = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:24].strip("-")
        if name:
            return name
    return "mail"


_IMAGE = re.compile(r"(^|/)stalwart(labs)?/(stalwart|mail-server)(:|@|$)")


@dataclass(frozen=True, slots=True)
class Found:
    """What was read. A system that was not asked for is None or empty."""

    request: Request
    stack: str
    server: Survey | None = None
    zones: Mapping[str, Sequence[Live]] = field(default_factory=dict)
    project: Project | None = None
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def services(self) -> Sequence[Service]:
        """The compose project's services."""
        return self.project.services if self.project else ()

    def of(self, kind: type[R]) -> list[R]:
        """Return what the mail server has of a kind."""
        live = self.server.live if self.server else ()
        return [item.resource for item in live if isinstance(item.resource, kind)]

    @property
    def accounts(self) -> list[Account]:
        """The mail server's accounts."""
        return self.of(Account)

    @property
    def addresses(self) -> set[str]:
        """The addresses that something on the mail server has."""
        owned = {address for item in self.of(Resource) for address in item.mailboxes}
        return owned | {item.name for item in self.accounts}

    @property
    def hostname(self) -> str:
        """What the mail server calls itself, where that is set."""
        return next((str(item.value) for item in self.of(Setting) if item.word == "hostname"), "")

    def is_administrator(self, account: Account) -> bool:
        """Whether it is the account that the import itself logs in with; from 0.16 its login is an address."""
        username = self.request.username.lower()
        return username in (account.name, account.login) or f"{username}@{self._default_domain}" == account.name

    @property
    def _default_domain(self) -> str:
        declared = (str(item.value) for item in self.of(Setting) if item.word == "default_domain")
        domains = [item.name for item in self.of(Domain)]
        return next(declared, domains[0] if len(domains) == 1 else "")

    @property
    def mail_service(self) -> Service | None:
        """The compose service that is the mail server: the named container's, or that of its image."""
        wanted = self.request.container
        if wanted:
            return next((item for item in self.services if wanted in (item.container, item.name)), None)
        return next((item for item in self.services if _IMAGE.search(item.image)), None)

    @property
    def container(self) -> str | None:
        """The mail server's container."""
        service = self.mail_service
        return self.request.container or (service.container if service and service.container else None)

    def records(self, zone: str) -> list[tuple[Live, Record]]:
        """Return a zone's records, without those that can't be understood."""
        lives = (live for live in self.zones.get(zone, ()) if not live.unread)
        return [(live, live.resource) for live in lives if isinstance(live.resource, Record)]


def read(request: Request, settings: Settings, reveal: Reveal, progress: Progress) -> Found:
    """Read the systems, the compose project first: it says in which container the mail server runs.

    Raises `TargetUnreadable` where one can't be read, `Refused` where it is not what should be imported.
    """
    zones = tuple(dict.fromkeys(host(zone) for zone in request.zones))
    found = Found(replace(request, zones=zones), request.stack or "", environ=settings.environ)
    if request.compose is not None:
        progress("Reading the compose project")
        found = _with_project(found, settings, progress)
    # A server is named whole: `mail` alone is what everybody's is called, and a stack's name has to be its own.
    label = zones[0].partition(".")[0] if zones else (request.stalwart or "").partition("://")[2].partition(":")[0]
    project = found.project.project if found.project else ""
    found = replace(found, stack=found.stack or stack_name(project, label))
    if request.stalwart is not None:
        progress("Reading Stalwart")
        found = replace(found, server=_server(found, settings, reveal, progress))
    if zones:
        progress("Reading Cloudflare")
        found = replace(found, zones=_zones(found, settings, reveal, progress))
    return found


def _with_project(found: Found, settings: Settings, progress: Progress) -> Found:
    from reconciler.targets.compose.snapshot import env_file, survey

    file = (found.request.compose or Path()).absolute()
    chosen = found.request.env_file or env_file((file,), settings.docker_host)
    request = replace(found.request, env_file=chosen)
    project = survey(_compose(request, file, found.stack, settings, progress))
    return replace(found, request=request, project=project)


def _compose(request: Request, file: Path, stack: str, settings: Settings, progress: Progress) -> Compose:
    from reconciler.targets.compose import Compose

    return Compose(
        file=file,
        env_file=request.env_file or file.parent / ".env",
        project=request.project,
        stack=stack,
        program=settings.compose,
        docker_host=settings.docker_host,
        progress=progress,
    )


def _server(found: Found, settings: Settings, reveal: Reveal, progress: Progress) -> Survey:
    """Survey the mail server as the declared administrator, and nobody else.

    From 0.16 a lost server knows no administrator: where the recovery one is at hand, it tells that from a wrong
    password. What it sees is never imported.
    """
    survey = partial(_survey, found, settings, reveal, progress)
    try:
        return survey(passwords=(ADMINISTRATOR,))
    except TargetUnreadable as error:
        if settings.environ.get(RECOVERY.name):
            with contextlib.suppress(TargetUnreadable):
                survey(passwords=(), recovery=RECOVERY)
        raise error from None


def _survey(
    found: Found,
    settings: Settings,
    reveal: Reveal,
    progress: Progress,
    *,
    passwords: Sequence[SecretRef],
    recovery: SecretRef | None = None,
) -> Survey:
    from reconciler.targets.stalwart import Stalwart
    from reconciler.targets.stalwart.jmap.bootstrap import Setup

    request = found.request
    domain = request.zones[0] if request.zones else ""  # from 0.16 a login is an address: which, nobody has said yet
    server = Stalwart(
        url=settings.stalwart_url or request.stalwart or "",
        username=request.username,
        passwords=passwords,
        recovery=recovery,
        container=found.container,
        allow_plain_http=request.allow_plain_http,
        docker_host=settings.docker_host,
        setup=Setup("", domain),
        chosen_outside=True,
        progress=progress,
    )
    return server.survey(reveal)


def _zones(found: Found, settings: Settings, reveal: Reveal, progress: Progress) -> Mapping[str, Sequence[Live]]:
    from reconciler.targets.cloudflare import Cloudflare
    from reconciler.targets.cloudflare.listing import Access

    zones = found.request.zones
    target = Cloudflare(
        stack=found.stack,
        zones=zones,
        tokens=[Access(TOKEN)],
        base_url=settings.cloudflare_base_url,
        progress=progress,
    )
    try:
        seen = target.observe((), reveal)
    finally:
        target.close()
    if seen.unread:
        raise TargetUnreadable(*seen.problems)
    return {zone: [live for live in seen.live if live.resource.scope == f"dns/{zone}"] for zone in zones}
