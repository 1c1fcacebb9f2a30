"""From a directory and the environment to everything one reconciliation needs. Commands and daemon begin here."""

from __future__ import annotations

import functools
import os
import subprocess
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

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
from reconciler.guards.evidence import Policy
from reconciler.guards.secrets import PUBLIC_SECRETS
from reconciler.journal import Journal
from reconciler.observe.halves import PublicHalves
from reconciler.observe.nameservers import look
from reconciler.observe.providers import Providers
from reconciler.plan import Desired
from reconciler.problem import Problem, ReconcilerError
from reconciler.reconcile import Work
from reconciler.resources import SecretRef
from reconciler.secrets.reveal import Secrets
from reconciler.settings import Settings
from reconciler.target import Observations, Progress, Target

if TYPE_CHECKING:
    from reconciler.targets.stalwart.jmap.bootstrap import Setup

TARGETS = ("stalwart", "cloudflare", "compose")


def work(
    directory: Directory,
    settings: Settings,
    *,
    targets: Sequence[str] = (),
    only: Sequence[str] = (),
    adopt: Sequence[str] = (),
    allow_deletes: int | None = None,
    check_passwords: bool | timedelta = False,
    progress: Progress = lambda _: None,
) -> Work:
    """Make everything a reconciliation needs; nothing is connected and no secret read yet.

    ``targets`` narrows to some of the declared systems. ``check_passwords`` has passwords tried that can't be compared
    (Stalwart from 0.16): now, or where that was longer ago than a time. Raises `ReconcilerError` for a target that is
    not declared.
    """
    spec = directory.spec
    chosen = _chosen(spec, targets)
    named = (ref for _, ref in references(spec))
    secrets = Secrets(directory.path, settings.environ, directory.text, named)
    made = _targets(
        directory, settings, secrets, progress, timedelta(0) if check_passwords is True else check_passwords or None
    )
    return Work(
        stack=spec.stack,
        desire=_desire(spec, chosen, secrets, Providers(secrets, settings.brevo_base_url, progress), tuple(adopt)),
        targets={name: made[name]() for name in TARGETS if name in chosen},
        reveal=secrets,
        policy=_policy(spec, allow_deletes),
        only=tuple(only),
        known_public=functools.partial(_known_public, secrets),
        head=settings.shown(chosen),
        revision=revision(directory.path),
        desired_hash=directory.digest,
        last_hash=_last_hash(settings.data, spec.stack),
        look=functools.partial(look, nameservers=settings.nameservers, progress=progress),
        today=settings.today,
    )


def _desire(
    spec: Spec, chosen: Collection[str], secrets: Secrets, providers: Providers, adopt: tuple[str, ...]
) -> Callable[[Observations | None], Desired]:
    """Return how to tell what should be: what it takes from outside is gathered first, and once."""
    halves = PublicHalves(secrets)
    declared = functools.cache(lambda: zone_records(spec))
    keyed = {"stalwart", "cloudflare"} & set(chosen)

    def derive(observed: Observations | None) -> Desired:
        refs = private_keys(spec, check="stalwart" in (observed or {})) if keyed else ()
        asked = provider_questions(spec) if "cloudflare" in chosen else None
        facts = Facts(
            {(ref, algorithm): halves.of(ref, algorithm) for ref, algorithm in refs},
            None if asked is None else {(item[0], item[3]): providers(*item) for item in asked},
        )
        return desire(spec, observed, facts, adopt, declared=declared())

    return derive


def _chosen(spec: Spec, wanted: Sequence[str]) -> tuple[str, ...]:
    declared = tuple(name for name in TARGETS if getattr(spec.targets, name))
    missing = sorted(set(wanted) - set(declared))
    if missing:
        known = ", ".join(declared) or "none"
        hint = f"declare targets.{missing[0]} in the directory; declared: {known}"
        raise ReconcilerError(Problem(f"--target {missing[0]}", "the directory declares no such target", hint))
    return tuple(wanted) or declared


def _targets(
    directory: Directory, settings: Settings, secrets: Secrets, progress: Progress, due: timedelta | None
) -> Mapping[str, functools.partial[Target]]:
    """Return how to make each target; the modules are imported only for those that take part."""
    return {
        "stalwart": functools.partial(_stalwart, directory, settings, secrets.hide, progress, due),
        "cloudflare": functools.partial(_cloudflare, directory, settings, progress),
        "compose": functools.partial(_compose, directory, settings, progress),
    }


def _stalwart(
    directory: Directory,
    settings: Settings,
    hide: Callable[[SecretRef, str], None],
    progress: Progress,
    due: timedelta | None,
) -> Target:
    from reconciler.targets.stalwart import ADMINISTRATOR, PENDING, Stalwart
    from reconciler.targets.stalwart.jmap.passwords import FILE, PasswordChecks

    target = directory.spec.targets.stalwart
    if target is None:
        raise AssertionError
    url = settings.stalwart_url or target.url
    return Stalwart(
        url=url,
        username=target.username,
        passwords=[resolve(directory.spec, item) for item in target.password],
        container=target.container,
        recovery=target.recovery,
        generation=target.generation,
        allow_plain_http=target.allow_plain_http,
        docker_host=settings.docker_host,
        setup=_setup(directory.spec),
        kept=settings.data / f"{ADMINISTRATOR}-{directory.spec.stack}.json",
        hide=hide,
        checks=PasswordChecks(settings.data / FILE, url, due),
        pending=settings.data / f"{PENDING}-{directory.spec.stack}.json",
        progress=progress,
    )


def _setup(spec: Spec) -> Setup:
    """Return what a server without any configuration is set up with."""
    from reconciler.targets.stalwart.jmap.bootstrap import Setup

    own = spec.stalwart.objects.get(BOOTSTRAP, {}).get(SINGLETON, {})
    fields = {name: with_secrets(value, functools.partial(resolve, spec)) for name, value in own.items()}
    hostname = spec.stalwart.hostname
    return Setup(host(hostname) if hostname else "", default_domain(spec) or "", fields)


def _cloudflare(directory: Directory, settings: Settings, progress: Progress) -> Target:
    from reconciler.targets.cloudflare import Cloudflare

    spec = directory.spec
    zones = {*spec.dns, *(zone for provider in spec.smtp.providers.values() for zone in provider.dns)}
    return Cloudflare(
        stack=spec.stack,
        zones=sorted(zones),
        tokens=[(item.token, item.zones) for item in spec.targets.cloudflare],
        base_url=settings.cloudflare_base_url
        or next((item.base_url for item in spec.targets.cloudflare if item.base_url), None),
        progress=progress,
    )


def _compose(directory: Directory, settings: Settings, progress: Progress) -> Target:
    from reconciler.targets.compose import Compose

    spec = directory.spec
    target = spec.targets.compose
    if target is None:
        raise AssertionError
    file = directory.path / target.file
    return Compose(
        file=file,
        env_file=directory.path / target.env_file if target.env_file else file.parent / ".env",
        project=target.project,
        stack=spec.stack,
        program=settings.compose,
        docker_host=settings.docker_host,
        routes=settings.routes,
        shared=[tuple(_end(end) for end in link.ends) for link in spec.smtp.links if link.value is None],
        progress=progress,
    )


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


def _last_hash(data: Path, stack: str) -> str | None:
    entry = Journal(data, stack).last_whole()
    return entry.desired_hash if entry else None


def revision(path: Path) -> str:
    """Name the commit the directory is at, ``+`` behind it when files differ from it; empty without git.

    Git gets nothing of our environment, which holds secrets, but what it needs to run.
    """
    passed = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    try:
        done = subprocess.run(
            ["git", "-C", str(path), "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
            env=passed,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
