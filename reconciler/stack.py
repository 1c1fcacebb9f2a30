"""One stack: a directory, the environment, the systems that both name, and what is asked of them."""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextvars import copy_context
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

from reconciler import git
from reconciler.address import Address
from reconciler.desired.derivation import (
    Facts,
    account_login,
    default_domain,
    desire,
    follows_line,
    private_keys,
    provider_logins,
    provider_questions,
    resolve,
    zone_of,
    zone_records,
)
from reconciler.desired.failover import failed_over
from reconciler.desired.load import Directory
from reconciler.desired.objects import BOOTSTRAP, SINGLETON, with_secrets
from reconciler.desired.presets import public_values
from reconciler.desired.public_ip import Line
from reconciler.desired.receivers import receivers
from reconciler.desired.spec import Spec, references
from reconciler.desired.spec.scalars import link_end
from reconciler.desired.unmerged import Candidate
from reconciler.dns.publication import Answers, Question, question
from reconciler.docker import EngineMemory
from reconciler.failover import Failover
from reconciler.guards.approval import Approvals
from reconciler.guards.dns import unpublished
from reconciler.guards.evidence import Past, Policy
from reconciler.guards.secrets import PUBLIC_SECRETS
from reconciler.journal import Entry, Journal
from reconciler.lease import Lease
from reconciler.names import host
from reconciler.plan import Desired, Receiver
from reconciler.problem import Problem, ReconcilerError, Severity
from reconciler.refusals import Refusals
from reconciler.resources import UNKNOWN, Domain, Observation, Record, Resource, SecretRef, Signature, texts
from reconciler.resources import references as references_in
from reconciler.secrets import PublicHalves, Secrets, public_half
from reconciler.secrets.seals import Read, Seals
from reconciler.settings import TARGETS, Settings
from reconciler.target import Change, Observations, Progress, Target
from reconciler.url import NoUrl, Url, parse

if TYPE_CHECKING:
    from reconciler.dkim.findings import Standing
    from reconciler.dkim.rotation import KeyFacts, Needs
    from reconciler.observe.providers import Providers
    from reconciler.targets.compose.reception import Reception, Tried
    from reconciler.targets.stalwart.jmap.bootstrap import Setup

REFUSALS = "refusals"
"""How the file begins, in the data directory, that remembers which logins were refused."""

_HEEDED = 0.2  # seconds: a signal that comes just before a wait for a lock does not end that wait


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen by hand: a plan is narrowed to ``targets`` and addresses, or may do more than usual, once.

    ``check_passwords`` has passwords tried that can't be compared (Stalwart from 0.16): now, or where that was longer
    ago than a time. ``with_service_changes`` takes along what else is changed of a service that is recreated.
    """

    targets: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    adopt: tuple[str, ...] = ()
    allow_deletes: int | None = None
    check_passwords: bool | timedelta = False
    with_service_changes: bool = False

    @classmethod
    def saved(cls, options: Mapping[str, Any]) -> Self:
        """Read it from a saved plan. Raises ValueError for what no plan holds."""
        lists = {name: options.get(name, []) for name in ("targets", "only", "adopt")}
        allowed, checked = options.get("allow_deletes"), options.get("check_passwords", False)
        changes = options.get("with_service_changes", False)
        strings = all(isinstance(items, list) and all(isinstance(it, str) for it in items) for items in lists.values())
        number = allowed is None or (isinstance(allowed, int) and not isinstance(allowed, bool) and allowed >= 0)
        if not (strings and number and isinstance(checked, bool) and isinstance(changes, bool)):
            raise ValueError("options")
        named = {name: tuple(items) for name, items in lists.items()}
        return cls(**named, allow_deletes=allowed, check_passwords=checked, with_service_changes=changes)

    def as_dict(self) -> dict[str, Any]:
        """Return it as a saved plan keeps it."""
        return asdict(self)


class Stack:
    """One stack: a directory, an environment, and the systems both name. Commands and a daemon work with it.

    Nothing is connected and no secret is read before they are needed; what was derived from secrets and what providers
    answered is remembered as long as the object lives. ``chosen`` names the targets that take part, ``policy`` is how
    far a plan may go. ``progress`` hears what is waited for, ``unexpected`` of exceptions that should not be. Making
    one raises `ReconcilerError` for a target that is not declared, and `Refused` for a data directory out of a commit.

    Where nobody watches (``unattended``), logins that were refused are remembered beyond its life. ``held`` are targets
    that are not asked for now, with the reason: they are unread. ``revision`` is the directory's; None asks git. With a
    ``failover`` the spec is not quite the directory's: consumers use the standby. ``generation`` is the mail server's,
    once it was observed. Where there are ``approvals``, a plan holds back what they do not cover and what does not heal
    what ``former`` wanted, the directory as it was before; None where that is not known. ``seals`` tell which values
    secrets had then, and ``rewritten`` are those that lie in other files now. ``candidate`` is what is planned before
    it is merged, if that is so, whose directory this is.
    """

    def __init__(
        self,
        directory: Directory,
        settings: Settings,
        choice: Choice = Choice(),
        *,
        progress: Progress = lambda _: None,
        unexpected: Callable[[Exception], None] = lambda _: None,
        unattended: bool = False,
        revision: str | None = None,
        failover: Failover | None = None,
        candidate: Candidate | None = None,
    ) -> None:
        self.directory, self.settings, self.choice = directory, settings, choice
        self.progress, self.unexpected = progress, unexpected
        self.failover = failover
        self.spec = failed_over(directory.spec) if failover else directory.spec
        self.name = self.spec.stack
        self.chosen = _chosen(self.spec, choice.targets)
        self.data = settings.own_data()
        self.policy = _policy(self.spec, choice.allow_deletes, settings.stalwart_url)
        named = {ref: path for path, ref in references(self.spec)}
        place = functools.partial(_place, directory, named)
        self.secrets = Secrets(directory.path, settings.environ, self._public, named, place)
        self._halves = PublicHalves(self.secrets)
        self.refusals = Refusals(self.data / f"{REFUSALS}-{self.name}.json" if unattended else None)
        self.held: Mapping[str, Problem] = candidate.held if candidate else {}
        self.candidate = candidate
        self.former: Directory | None = None
        self.approvals: Approvals | None = None
        self.seals = Seals()
        self.rewritten: frozenset[SecretRef] = frozenset()
        self.generation: str | None = None
        self._wanted: Sequence[Resource] = ()
        self._said = ""
        self._given = revision
        self._line: Line | None = None
        self._journal: Journal | None = None
        self._engine = EngineMemory() if unattended else None

    @functools.cached_property
    def targets(self) -> Mapping[str, Target]:
        """The systems that take part, by name."""
        return self.connect(self.chosen)

    def connect(self, names: Collection[str]) -> Mapping[str, Target]:
        """Make the targets of these names; the modules are imported only for those that take part."""
        makers = {"stalwart": self._stalwart, "cloudflare": self._cloudflare, "compose": self._compose}
        return {name: makers[name]() for name in TARGETS if name in names}

    @functools.cached_property
    def _commit(self) -> git.Revision | None:
        """Git, which is asked now and answers while the systems are observed; None where the revision was given."""
        if self._given is not None:
            return None
        return git.Revision(self.directory.path, self.directory.files, self.settings.environ)

    @property
    def revision(self) -> str:
        """The commit the directory is at, ``+`` behind it where a file of it differs; empty without git."""
        return self._commit.name() if self._commit is not None else self._given or ""

    @property
    def journal(self) -> Journal:
        """What was applied to it from here."""
        if self._journal is None:
            self._journal = Journal(self.data, self.name, self.settings.state)
        return self._journal

    @property
    def applies(self) -> Sequence[Entry]:
        """What the journal tells of its applies, oldest first; nothing where it can't be read: it only adds words."""
        try:
            return self.journal.entries()
        except ReconcilerError:
            return ()

    def lease(self, command: str = "", wait: float = 0.0) -> Lease:
        """Return the right to write to it, to be entered; ``command`` tells others what holds it.

        ``wait`` is how many seconds to wait for another holder, who is told as progress.
        """
        return Lease(self.data, self.name, command, wait, self.progress)

    def desired(self, observed: Observations | None = None) -> Desired:
        """Return what should be, given what was observed; what it takes from outside is gathered first, and once."""
        found = self._desired(self.spec, observed, self._records)
        self._wanted, self._said = found.resources, ""
        return found

    def _public(self) -> str:
        """Return all that the directory says in clear: as it is written, as it is meant, and what follows from it.

        A text may be written with escapes, in pieces, in other letters, and files have names: all of it is said.
        """
        if not self._said:
            said = (self.directory.text, *self.directory.files, *self.directory.places.texts(), *texts(self._wanted))
            self._said = "\n".join(dict.fromkeys(said))
        return self._said

    def formerly(self, former: Directory, observed: Observations) -> Desired:
        """Return what another state of the directory would want here and now, with the systems and secrets of this.

        A private key that is another by now is not in force: what is published is the one that was agreed.
        """
        spec = failed_over(former.spec) if self.failover else former.spec
        return self._desired(spec, observed, zone_records(spec), self.rekeyed(observed))

    def _desired(
        self,
        spec: Spec,
        observed: Observations | None,
        records: Sequence[Record],
        rekeyed: Mapping[SecretRef, str] = MappingProxyType({}),
    ) -> Desired:
        keyed = {Signature.target, Record.target} & set(self.chosen)
        refs = private_keys(spec, check="stalwart" in (observed or {})) if keyed else ()
        asked = provider_questions(spec) if Record.target in self.chosen else None
        facts = Facts(
            {
                (ref, algorithm): rekeyed.get(ref) or self._halves.of(ref, algorithm)
                for ref, algorithm in refs
                if not ref.held
            },
            None if asked is None else {(item[0], item[3]): self._providers(*item) for item in asked},
            self._line,
        )
        return desire(spec, observed, facts, self.choice.adopt, declared=records)

    # ------------------------------------------------------------------------------------------- values of secrets
    def unsealed(self, changes: Iterable[Change]) -> dict[SecretRef, str]:
        """Return the secrets that changes set anew and whose value is another than was agreed, with their seals."""
        if not (self.seals.agreed or self.rewritten):
            return {}
        refs = {ref for change in changes for ref in change.replaced if not ref.held}
        values = self.secrets.values(ref for ref in refs if self.seals.knows(ref))
        broken = {ref: seal for ref, value in values.items() if (seal := self.seals.broken(ref, value))}
        return dict.fromkeys(refs & self.rewritten, "") | broken

    def rekeyed(self, observed: Observations) -> dict[SecretRef, str]:
        """Return the private keys that are others than were agreed, with the public halves of those that were.

        A key that the server has lost is none of them: it gets what is there, and what is published follows.
        """
        known = self.seals.halves
        found = {
            ref: known[str(ref)] for ref, half in self._halves.known().items() if known.get(str(ref), half) != half
        }
        server = observed.get("stalwart")
        if not found or server is None or not server.complete:
            return found
        held = {live.resource.public_key for live in server.live if isinstance(live.resource, Signature)}
        return {ref: half for ref, half in found.items() if half in held}

    def read(self, resources: Iterable[Resource], agreed: Collection[SecretRef], *, whole: bool) -> Read:
        """Say what was read of the secrets in resources and of private keys, for `secrets.seals.note`."""
        refs = {ref for item in resources for _, value in item.declared() for ref in references_in(value)}
        halves = self._halves.known()
        values = self.secrets.values({ref for ref in refs | halves.keys() if ref in self.secrets and not ref.held})
        left = {ref for _, ref in references(self.spec)} if whole else None
        return Read(values, halves, {*agreed, *(halves if whole else ())}, left)

    @functools.cached_property
    def _providers(self) -> Providers:
        from reconciler.observe.providers import Providers

        return Providers(self.secrets, self.settings.brevo_base_url, self.progress)

    @functools.cached_property
    def _inquiry(self) -> Callable[[], Line] | None:
        """Who tells the line's address; None where nothing follows it."""
        if Record.target not in self.chosen or not follows_line(self.spec, self._records):
            return None
        from reconciler.observe.line import line

        return line(self.settings.router, self.settings.whoami)

    @functools.cached_property
    def _records(self) -> Sequence[Record]:
        return zone_records(self.spec)

    def observe(self, wanted: Iterable[Resource]) -> dict[str, Observation]:
        """Observe all targets side by side, with what is wanted; a target that fails is unread, the others go on.

        The line's address is asked for meanwhile, where something follows it: `desired` goes by the last answer.
        """
        resources, found = tuple(wanted), dict[str, Observation]()
        commit = self._commit
        if self._engine:
            self._engine.begin()
        try:
            self._observe(resources, found)
        finally:
            if self._engine:
                self._engine.end()
            if commit is not None:
                commit.name()
        self.generation = (found["stalwart"].generation if "stalwart" in found else None) or self.generation
        return {name: found[name] for name in self.targets}

    def look_again(self, found: Observations, early: Iterable[Resource], now: Iterable[Resource]) -> Observations:
        """Observe those targets again that judged without a value which another target's answer has told since.

        ``early`` is what was wanted then, ``now`` what is wanted with all that was ``found``.
        """
        late, known = tuple(now), {item.address: item for item in early}
        live = {item.resource.address: item.resource for seen in found.values() for item in seen.live}
        names = {
            item.target
            for item in late
            if item.target in found and found[item.target].complete
            if (before := known.get(item.address)) and item.was_judged_blind(before, live.get(item.address))
        }
        return {**found, **{name: self._one(self.targets[name], late) for name in names}}

    def _one(self, target: Target, resources: Iterable[Resource]) -> Observation:
        unread = frozenset({target.name})
        if (why := self.held.get(target.name)) is not None:
            return Observation(target.name, unread=unread, problems=(why,))
        try:
            return target.observe([item for item in resources if item.target == target.name], self.secrets)
        except ReconcilerError as error:
            return Observation(target.name, unread=unread, problems=error.problems)
        except Exception as error:  # noqa: BLE001 (an answer nobody thought of must not stop the other targets)
            return Observation(target.name, unread=unread, problems=(self.bug(target.name, error),))

    def _observe(self, resources: Sequence[Resource], found: dict[str, Observation]) -> None:
        def one(target: Target) -> None:
            found[target.name] = self._one(target, resources)

        works: list[Callable[[], None]] = [functools.partial(one, target) for target in self.targets.values()]
        if (inquiry := self._inquiry) is not None:
            works.append(functools.partial(self._ask, inquiry))
        _import_libraries(self.targets.values())
        if len(works) == 1:  # no thread: it would have a heap of its own, beside what this one has freed
            works[0]()
            return
        # Daemons: a signal ends the program at once, while one of them still waits for a system that hangs.
        # Each with the lease's fence about it, which an answer there is a sign of life to.
        threads = [threading.Thread(target=copy_context().run, args=(work,), daemon=True) for work in works]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(_HEEDED)

    def _ask(self, inquiry: Callable[[], Line]) -> None:
        try:
            self._line = inquiry()
        except Exception as error:  # noqa: BLE001 (as of a target: the record stays as it is)
            self._line = Line(why=self.bug("the line's address", error).summary)

    def bug(self, where: str, error: Exception) -> Problem:
        """Make a problem of an exception that should not be. Its text is not shown: it may quote anything."""
        self.unexpected(error)
        summary = f"this is a bug: {type(error).__name__} while working with {where}"
        return Problem(where, summary, "run it again with -v and report what it prints", scope=where)

    @property
    def addresses(self) -> frozenset[str]:
        """Name every e-mail address that the directory holds."""
        entries = [item for kind in self.spec.addressees.values() for item in kind.items()]
        names = {name for own, entry in entries for name in (own, *(entry.aliases or ()))}
        return frozenset(name.lower() for name in names if "@" in name)

    @property
    def known_public(self) -> frozenset[SecretRef]:
        """Name the secrets read so far whose value everybody knows."""
        return frozenset(ref for ref, digest in self.secrets.revealed().items() if digest in PUBLIC_SECRETS)

    def look(self, questions: Collection[Question]) -> Answers:
        """Ask the authoritative name servers; before a merge those of the base's zones alone."""
        if self.candidate is not None:
            questions = {item for item in questions if zone_of(item.host, self.candidate.zones) is not None}
        if not questions:
            return {}
        from reconciler.observe.nameservers import look

        return look(questions, nameservers=self.settings.nameservers, progress=self.progress)

    def takes_mail(self, provider: str, tried: Tried | None) -> Reception:
        """Ask a declared provider whether it takes mail; `reception.ask` says what ``tried`` is for.

        Compose has to be a target of it: through that leads the way to a server of the project.
        """
        from reconciler.targets.compose import Compose
        from reconciler.targets.compose.reception import Reception

        logins, compose = provider_logins(self.directory.spec, provider, self.generation), self.targets["compose"]
        if not logins or not isinstance(compose, Compose):
            why = Problem(f"smtp.providers.{provider}", "has no login that is known", "declare its account's password")
            return Reception(None, why)
        login = logins[0] if len(logins) == 1 else replace(logins[0], username=UNKNOWN)
        return compose.takes_mail(login, self.secrets, tried)

    def unpublished(self, provider: str) -> tuple[str, ...]:
        """Say which records that mail through a provider needs not every authoritative name server shows."""
        needed = self.desired().provided.get(provider)
        if needed is None:  # it needs none
            return ()
        if not needed:
            return ("the records that DMARC needs are not known",)
        late = unpublished(needed, self.look({question(record) for record in needed}))
        return tuple(f"{', '.join(names)} can't be seen: {words}" for words, names in late.items())

    def past(self, asked: Collection[Resource], committed: Collection[Resource]) -> Past:
        """Tell which resources were applied from here, and of some whether commits declared them."""
        if not asked:
            return Past()
        from reconciler import past

        applied = past.applied(self.applies, asked)
        left = set(committed) - applied
        text = git.added(self.directory.path, self.settings.environ) if left else ""
        return Past(applied, None if text is None else past.committed(text, left))

    @property
    def containers(self) -> tuple[frozenset[str], str]:
        """Name the declared container, and the compose project as it is called where nothing says otherwise."""
        server, compose = self.spec.targets.stalwart, self.spec.targets.compose
        named = frozenset({server.container}) if server is not None and server.container else frozenset[str]()
        if compose is None:
            return named, ""
        paths, _, directory = compose.places(self.directory.path)
        folder = (directory or paths[0].resolve().parent).name.lower()
        return named, compose.project or re.sub(r"[^a-z0-9_-]", "", folder).lstrip("_-")

    # ------------------------------------------------------------------------------------------------------- dkim
    def signatures(self, wanted: Iterable[Resource]) -> tuple[tuple[Signature, ...] | None, tuple[Problem, ...]]:
        """Return every signature that Stalwart has, and what it reports; None in place of them where it can't be read.

        Stalwart has to be a target of it. ``wanted`` is what is desired of it.
        """
        self.progress("Observing Stalwart")
        seen = self.observe(wanted)["stalwart"]
        if not seen.complete:
            return None, seen.problems
        return tuple(live.resource for live in seen.live if isinstance(live.resource, Signature)), seen.problems

    def standings(self) -> tuple[tuple[Standing, ...], tuple[Problem, ...], bool]:
        """Say of each key how directory, mail server and name servers agree.

        The problems are what Stalwart reports of its keys, or why it was not asked; last comes whether it was read.
        """
        from reconciler.dkim import standing

        server: tuple[Signature, ...] | None = None
        hint = "declare targets.stalwart, or leave --target out"
        problems: tuple[Problem, ...] = (
            Problem("Stalwart", "was not asked: it is no target here", hint, Severity.WARNING),
        )
        if "stalwart" in self.chosen:
            # Without the keys' halves: whether they could be written is a matter for a plan.
            desired = (item for item in self.desired().resources if isinstance(item, Signature))
            server, problems = self.signatures(
                [replace(item, public_key=UNKNOWN, private_key=None) for item in desired]
            )
            if server is not None:
                problems = tuple(item for item in problems if Address.parse(item.where).kind == Signature.kind)
        asked = standing.key_questions(self.spec, server)
        self.progress("Asking the name servers")
        # Private keys are Stalwart's secrets: without that target none is read.
        half = functools.partial(public_half, self.secrets) if "stalwart" in self.chosen else None
        found = standing.standings(self.spec, server, self.look(asked), self.settings.today, half)
        return found, problems, server is not None

    def key_facts(self, domain: str, needs: Needs) -> tuple[KeyFacts, tuple[Problem, ...]]:
        """Find out what the next steps of a domain's rotation depend on, and why Stalwart could not be asked.

        A private key that can't be read here tells nothing. Stalwart is asked only where that decides something.
        """
        from reconciler.dkim.rotation import KeyFacts

        answers = self.look(needs.questions)
        named = ((key, key.private_key) for key in needs.halves)
        derived = {key.selector: public_half(self.secrets, ref, key.algorithm) for key, ref in named if ref is not None}
        halves = {selector: half for selector, half in derived.items() if isinstance(half, str)}
        if not needs.server and all(key.selector in halves for key in needs.halves):
            return KeyFacts(answers, halves), ()
        if "stalwart" not in self.chosen:
            missing = self.spec.targets.stalwart is None
            absent = Problem("Stalwart", "was not asked: it is no target here", "leave --target out")
            return KeyFacts(answers, halves), (_undeclared(self.spec, "stalwart") if missing else absent,)
        wanted = [item for item in self.desired().resources if isinstance(item, Domain | Signature)]
        held, problems = self.signatures(wanted)
        if held is None:
            return KeyFacts(answers, halves), problems
        return KeyFacts(answers, halves, tuple(item for item in held if item.domain == host(domain))), ()

    @functools.cached_property
    def receivers(self) -> tuple[Receiver, ...]:
        """The hosts that secrets of the directory go to."""
        settings = self.settings
        named = {"stalwart": settings.stalwart_url, "cloudflare": settings.cloudflare_base_url}
        named |= {"brevo": settings.brevo_base_url, "docker": settings.docker_host or self._context_host()}
        named["github"] = settings.environ.get("GITHUB_API_URL")
        services = self.secrets.key_services(ref for _, ref in references(self.spec))
        return receivers(self.spec, self.chosen, named, settings.routes, services)

    def _context_host(self) -> str | None:
        """Return where Docker's context has the engine; None where none is asked, or the context is not there."""
        if "compose" not in self.chosen:
            return None
        from reconciler.docker import context_host

        try:
            return context_host("compose")
        except ReconcilerError:  # the target says so
            return None

    # ---------------------------------------------------------------------------------------------------- targets
    def _stalwart(self) -> Target:
        from reconciler.targets.stalwart import ADMINISTRATOR, PENDING, RELEASE, Stalwart
        from reconciler.targets.stalwart.jmap.password_checks import FILE, PasswordChecks

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
            kept=self.data / f"{ADMINISTRATOR}-{self.name}.json",
            hide=self.secrets.hide,
            checks=PasswordChecks(self.data / FILE, url, timedelta(0) if due is True else due or None),
            pending=self.data / f"{PENDING}-{self.name}.json",
            release=target.release,
            recognised=self.data / f"{RELEASE}-{self.name}.json",
            refusals=self.refusals,
            engine=self._engine,
            chosen_outside=settings.stalwart_url is not None,
            progress=self.progress,
        )

    def _cloudflare(self) -> Target:
        from reconciler.targets.cloudflare import Cloudflare
        from reconciler.targets.cloudflare.listing import Access

        declared = self.spec.targets.cloudflare
        zones = {*self.spec.dns, *(zone for provider in self.spec.smtp.providers.values() for zone in provider.dns)}
        return Cloudflare(
            stack=self.name,
            zones=sorted(zones),
            tokens=[Access(item.token, item.zones, item.account, item.zone_id, item.base_url) for item in declared],
            base_url=self.settings.cloudflare_base_url,
            progress=self.progress,
        )

    def _compose(self) -> Target:
        from reconciler.targets.compose import Compose

        target, settings = self.spec.targets.compose, self.settings
        if target is None:
            raise AssertionError
        compose_files, env_files, directory = target.places(self.directory.path)
        # By what is not merged no live value is shown: its providers and accounts could be ten thousand guesses.
        known = self.candidate.base if self.candidate else self.spec
        return Compose(
            file=compose_files,
            env_file=env_files,
            directory=directory,
            with_service_changes=self.choice.with_service_changes,
            project=target.project,
            stack=self.name,
            program=settings.compose,
            docker_host=settings.docker_host,
            routes=settings.routes,
            public=public_values(known.smtp, _logins(known)),
            shared=[tuple(map(link_end, link.ends)) for link in self.spec.smtp.links if link.value is None],
            refusals=self.refusals,
            memory=self._engine,
            progress=self.progress,
        )


def _chosen(spec: Spec, wanted: Sequence[str]) -> tuple[str, ...]:
    declared = tuple(name for name in TARGETS if getattr(spec.targets, name))
    for name in sorted(set(wanted) - set(declared)):
        raise ReconcilerError(_undeclared(spec, name))
    return tuple(name for name in declared if not wanted or name in wanted)


def _undeclared(spec: Spec, name: str) -> Problem:
    known = ", ".join(item for item in TARGETS if getattr(spec.targets, item)) or "none"
    hint = f"declare targets.{name} in the directory; declared: {known}"
    return Problem(f"--target {name}", "the directory declares no such target", hint)


def _setup(spec: Spec) -> Setup:
    """Return what a server without any configuration is set up with."""
    from reconciler.targets.stalwart.jmap.bootstrap import Setup

    own = spec.stalwart.objects.get(BOOTSTRAP, {}).get(SINGLETON, {})
    fields = {name: with_secrets(value, functools.partial(resolve, spec)) for name, value in own.items()}
    hostname = spec.stalwart.hostname
    return Setup(host(hostname) if hostname else "", default_domain(spec) or "", fields)


def _place(directory: Directory, named: Mapping[SecretRef, tuple[str | int, ...]], ref: SecretRef) -> str:
    """Name file and line of a reference; empty for one that the directory does not hold."""
    return str(directory.places.of(*named[ref]) or "") if ref in named else ""


def _logins(spec: Spec) -> Iterator[str]:
    """Yield the names that declared accounts log in with."""
    for name, account in spec.accounts.items():
        yield from (name, account_login(name, account))


def _policy(spec: Spec, allow_deletes: int | None, url: str | None) -> Policy:
    server = spec.targets.stalwart
    reached = _parsed(url or server.url) if server else None
    return Policy(
        max_deletes=spec.policy.max_deletes,
        allow_deletes=allow_deletes,
        prune=spec.policy.prune.dns == "owned",
        administrator=_administrator(spec, server.username) if server else "",
        username=server.username if server else "",
        passwords=tuple(resolve(spec, item) for item in server.password) if server else (),
        door=(reached.scheme, reached.port) if reached else None,
    )


def _parsed(url: str) -> Url | None:
    try:
        return parse(url)
    except NoUrl:  # told where it is used
        return None


def _administrator(spec: Spec, username: str) -> str:
    """Name the declared account that the reconciler logs in as, if it is one."""
    names = (name for name, account in spec.accounts.items() if username in (name, account_login(name, account)))
    return next(names, username)


def _import_libraries(targets: Iterable[Target]) -> None:
    """Import what targets will, one after the other: threads that come to a circle from two sides end in a deadlock."""
    for name in dict.fromkeys(name for target in targets for name in target.libraries):
        import_module(name)
