"""One stack, from a directory and the environment to observing, planning and applying."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self

from reconciler import git, reconcile
from reconciler.desired.load import Directory
from reconciler.desired.objects import BOOTSTRAP, SINGLETON, with_secrets
from reconciler.desired.resources import (
    Facts,
    account_login,
    default_domain,
    desire,
    private_keys,
    provider_questions,
    resolve,
    zone_records,
)
from reconciler.desired.spec import Spec, references
from reconciler.dns.names import host
from reconciler.dns.publication import Answers, Question
from reconciler.guards.evidence import Policy
from reconciler.guards.secrets import PUBLIC_SECRETS
from reconciler.journal import Journal
from reconciler.lease import Lease
from reconciler.observe.nameservers import look
from reconciler.observe.providers import Providers
from reconciler.plan import Desired, Plan
from reconciler.problem import Problem, ReconcilerError
from reconciler.reconcile import Effect, Work
from reconciler.resources import Observation, Record, Resource, SecretRef, Signature
from reconciler.secrets import PublicHalves, Secrets, public_half
from reconciler.settings import Settings
from reconciler.target import Observations, Outcome, Progress, Stopped, Target

if TYPE_CHECKING:
    from reconciler.dkim.verdict import Standing
    from reconciler.targets.stalwart.jmap.bootstrap import Setup

TARGETS = ("stalwart", "cloudflare", "compose")


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen by hand: a plan is narrowed to ``targets`` and addresses, or may do more than usual, once.

    ``check_passwords`` has passwords tried that can't be compared (Stalwart from 0.16): now, or where that was longer
    ago than a time.
    """

    targets: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    adopt: tuple[str, ...] = ()
    allow_deletes: int | None = None
    check_passwords: bool | timedelta = False

    @classmethod
    def saved(cls, options: Mapping[str, Any]) -> Self:
        """Read it from a saved plan. Raises ValueError for what no plan holds."""
        lists = {name: options.get(name, []) for name in ("targets", "only", "adopt")}
        allowed, checked = options.get("allow_deletes"), options.get("check_passwords", False)
        strings = all(isinstance(items, list) and all(isinstance(it, str) for it in items) for items in lists.values())
        number = allowed is None or (isinstance(allowed, int) and not isinstance(allowed, bool))
        if not (strings and number and isinstance(checked, bool)):
            raise ValueError("options")
        named = {name: tuple(items) for name, items in lists.items()}
        return cls(**named, allow_deletes=allowed, check_passwords=checked)

    def as_dict(self) -> dict[str, Any]:
        """Return it as a saved plan keeps it."""
        return asdict(self)


class Stack:
    """One stack: a directory, an environment, and the systems both name. Commands and a daemon work with it.

    Nothing is connected and no secret is read before they are needed; what was derived from secrets and what providers
    answered is remembered as long as the object lives. ``progress`` hears what is waited for, ``unexpected`` of
    exceptions that should not be. Making one raises `ReconcilerError` for a target that is not declared.
    """

    def __init__(
        self,
        directory: Directory,
        settings: Settings,
        choice: Choice = Choice(),
        *,
        progress: Progress = lambda _: None,
        unexpected: Callable[[Exception], None] = lambda _: None,
    ) -> None:
        self.directory, self.settings, self.choice, self.progress = directory, settings, choice, progress
        self.spec, self.name = directory.spec, directory.spec.stack
        named = (ref for _, ref in references(self.spec))
        self.secrets = Secrets(directory.path, settings.environ, directory.text, named)
        self.targets = self.connect(_chosen(self.spec, choice.targets))
        self._halves = PublicHalves(self.secrets)
        self._providers = Providers(self.secrets, settings.brevo_base_url, progress)
        self._work = Work(
            stack=self.name,
            desire=self.desired,
            targets=self.targets,
            reveal=self.secrets,
            policy=_policy(self.spec, choice.allow_deletes),
            only=choice.only,
            known_public=functools.partial(_known_public, self.secrets),
            look=self.look,
            today=settings.today,
            unexpected=unexpected,
        )

    def connect(self, names: Collection[str]) -> Mapping[str, Target]:
        """Make the targets of these names; the modules are imported only for those that take part."""
        makers = {"stalwart": self._stalwart, "cloudflare": self._cloudflare, "compose": self._compose}
        return {name: makers[name]() for name in TARGETS if name in names}

    @functools.cached_property
    def _commit(self) -> git.Revision:
        """Git, which is asked now and answers while the systems are observed."""
        return git.Revision(self.directory.path, self.directory.files, self.settings.environ)

    @property
    def revision(self) -> str:
        """The commit the directory is at, ``+`` behind it where a file of it differs; empty without git."""
        return self._commit.name()

    @property
    def journal(self) -> Journal:
        """What was applied to it from here."""
        return Journal(self.settings.data, self.name)

    def lease(self, command: str = "") -> Lease:
        """Return the right to write to it, to be entered; ``command`` tells others what holds it."""
        return Lease(self.settings.data, self.name, command)

    def desired(self, observed: Observations | None = None) -> Desired:
        """Return what should be, given what was observed; what it takes from outside is gathered first, and once."""
        keyed = {"stalwart", "cloudflare"} & set(self.targets)
        refs = private_keys(self.spec, check="stalwart" in (observed or {})) if keyed else ()
        asked = provider_questions(self.spec) if "cloudflare" in self.targets else None
        facts = Facts(
            {(ref, algorithm): self._halves.of(ref, algorithm) for ref, algorithm in refs},
            None if asked is None else {(item[0], item[3]): self._providers(*item) for item in asked},
        )
        return desire(self.spec, observed, facts, self.choice.adopt, declared=self._records)

    @functools.cached_property
    def _records(self) -> Sequence[Record]:
        return zone_records(self.spec)

    def observe(self, wanted: Iterable[Resource]) -> dict[str, Observation]:
        """Observe all targets side by side, with what is wanted of them."""
        return reconcile.observe(self._work, wanted)

    def look(self, questions: Collection[Question]) -> Answers:
        """Ask the authoritative name servers."""
        return look(questions, nameservers=self.settings.nameservers, progress=self.progress) if questions else {}

    def signatures(self, wanted: Iterable[Resource]) -> tuple[tuple[Signature, ...] | None, tuple[Problem, ...]]:
        """Return every signature that Stalwart has, and what it reports; None in place of them where it can't be read.

        Stalwart has to be a target of it. ``wanted`` is what is desired of it.
        """
        self.progress("Observing Stalwart")
        seen = self.observe(wanted)["stalwart"]
        if not seen.complete:
            return None, seen.problems
        return tuple(live.resource for live in seen.live if isinstance(live.resource, Signature)), seen.problems

    def standings(self, server: Sequence[Signature] | None) -> tuple[Standing, ...]:
        """Say of each key how directory, mail server and name servers agree; ``server`` is None where it is unread."""
        from reconciler.dkim import standing

        asked = standing.questions(self.spec, server)
        self.progress("Asking the name servers")
        # Private keys are Stalwart's secrets: without that target none is read.
        half = functools.partial(public_half, self.secrets) if "stalwart" in self.targets else None
        return standing.standings(self.spec, server, self.look(asked), self.settings.today, half)

    def plan(self) -> Plan:
        """Observe, compare and guard. Writes nothing anywhere."""
        commit = self._commit
        try:
            made = reconcile.make_plan(self._work)
        finally:
            commit.name()
        return self._told(made)

    def apply(
        self, plan: Plan, listen: Callable[[Outcome], None] = lambda _: None, stopped: Stopped = lambda: False
    ) -> Effect:
        """Carry out an approved plan and plan again; `reconciler.apply` does it with lease and journal."""
        result = reconcile.apply(self._work, plan, listen, stopped)
        return replace(result, after=self._told(result.after))

    def _told(self, plan: Plan) -> Plan:
        """Add what the environment overrides, which revision it is, and what changed without the directory."""
        log = self.journal
        last = log.last_whole()
        unchanged = last is not None and last.desired_hash == self.directory.digest
        return replace(
            plan,
            head=(*self.settings.shown(tuple(self.targets)), *plan.head),
            revision=self.revision,
            desired_hash=self.directory.digest,
            drift=tuple(change.address for change in plan.changes) if unchanged else (),
            problems=(*plan.problems, *((log.problem,) if log.problem else ())),
        )

    # ---------------------------------------------------------------------------------------------------- targets
    def _stalwart(self) -> Target:
        from reconciler.targets.stalwart import ADMINISTRATOR, PENDING, Stalwart
        from reconciler.targets.stalwart.jmap.passwords import FILE, PasswordChecks

        target, settings, due = self.spec.targets.stalwart, self.settings, self.choice.check_passwords
        if target is None:
            raise AssertionError
        url = settings.stalwart_url or target.url
        return Stalwart(
            url=url,
            username=target.username,
            passwords=[resolve(self.spec, item) for item in target.password],
            container=target.container,
            recovery=target.recovery,
            generation=target.generation,
            allow_plain_http=target.allow_plain_http,
            docker_host=settings.docker_host,
            setup=_setup(self.spec),
            kept=settings.data / f"{ADMINISTRATOR}-{self.name}.json",
            hide=self.secrets.hide,
            checks=PasswordChecks(settings.data / FILE, url, timedelta(0) if due is True else due or None),
            pending=settings.data / f"{PENDING}-{self.name}.json",
            progress=self.progress,
        )

    def _cloudflare(self) -> Target:
        from reconciler.targets.cloudflare import Cloudflare

        declared = self.spec.targets.cloudflare
        zones = {*self.spec.dns, *(zone for provider in self.spec.smtp.providers.values() for zone in provider.dns)}
        return Cloudflare(
            stack=self.name,
            zones=sorted(zones),
            tokens=[(item.token, item.zones) for item in declared],
            base_url=self.settings.cloudflare_base_url
            or next((item.base_url for item in declared if item.base_url), None),
            progress=self.progress,
        )

    def _compose(self) -> Target:
        from reconciler.targets.compose import Compose

        target, settings = self.spec.targets.compose, self.settings
        if target is None:
            raise AssertionError
        file = self.directory.path / target.file
        return Compose(
            file=file,
            env_file=self.directory.path / target.env_file if target.env_file else file.parent / ".env",
            project=target.project,
            stack=self.name,
            program=settings.compose,
            docker_host=settings.docker_host,
            routes=settings.routes,
            shared=[tuple(_end(end) for end in link.ends) for link in self.spec.smtp.links if link.value is None],
            progress=self.progress,
        )


def _chosen(spec: Spec, wanted: Sequence[str]) -> tuple[str, ...]:
    declared = tuple(name for name in TARGETS if getattr(spec.targets, name))
    missing = sorted(set(wanted) - set(declared))
    if missing:
        known = ", ".join(declared) or "none"
        hint = f"declare targets.{missing[0]} in the directory; declared: {known}"
        raise ReconcilerError(Problem(f"--target {missing[0]}", "the directory declares no such target", hint))
    return tuple(wanted) or declared


def _setup(spec: Spec) -> Setup:
    """Return what a server without any configuration is set up with."""
    from reconciler.targets.stalwart.jmap.bootstrap import Setup

    own = spec.stalwart.objects.get(BOOTSTRAP, {}).get(SINGLETON, {})
    fields = {name: with_secrets(value, functools.partial(resolve, spec)) for name, value in own.items()}
    hostname = spec.stalwart.hostname
    return Setup(host(hostname) if hostname else "", default_domain(spec) or "", fields)


def _end(text: str) -> tuple[str, str]:
    service, _, variable = text.rpartition(".")
    return service, variable


def _policy(spec: Spec, allow_deletes: int | None) -> Policy:
    server = spec.targets.stalwart
    return Policy(
        max_deletes=spec.policy.max_deletes,
        allow_deletes=allow_deletes,
        prune=spec.policy.prune.dns == "owned",
        administrator=_administrator(spec, server.username) if server else "",
    )


def _administrator(spec: Spec, username: str) -> str:
    """Name the declared account that the reconciler logs in as, if it is one."""
    names = (name for name, account in spec.accounts.items() if username in (name, account_login(name, account)))
    return next(names, username)


def _known_public(secrets: Secrets) -> frozenset[SecretRef]:
    return frozenset(ref for ref, digest in secrets.revealed().items() if digest in PUBLIC_SECRETS)
