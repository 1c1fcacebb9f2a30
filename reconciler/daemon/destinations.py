"""Where notices go: each URL is a secret, and what is wrong with one is said without it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit

from reconciler.daemon.delivery import SCHEMES, scheme
from reconciler.desired.derivation import zone_records
from reconciler.desired.presets import PRESETS, Preset
from reconciler.desired.spec import Spec
from reconciler.names import host
from reconciler.problem import Problem, SecretUnreadable
from reconciler.target import Reveal
from reconciler.url import NoUrl, parse

_ENVIRONMENT = ("env", "credential")
_MAIL = ("mailto", "mailtos")


@dataclass(frozen=True, slots=True)
class Destination:
    """Somebody who is told. ``name`` is the reference to the URL, which alone is shown.

    ``internal`` says that it may lead to this machine and its networks: the environment's own URLs may. One that lies
    in a file is perhaps written by whoever writes the directory, and must not reach what only we can reach.
    """

    name: str
    url: str = field(repr=False)
    internal: bool = False


def destinations(spec: Spec, reveal: Reveal) -> tuple[tuple[Destination, ...], tuple[Problem, ...]]:
    """Return all who can be told, and what is wrong with the others.

    One that leads through the mail server or the provider whose outage it would tell of is none where it stands alone.
    """
    found, problems = [], list[Problem]()
    for ref in dict.fromkeys(spec.daemon.notices):
        try:
            url = reveal(ref).strip()
        except SecretUnreadable as error:
            problems += error.problems
            continue
        if scheme(url) in SCHEMES and "://" in url:
            found.append(Destination(str(ref), url, ref.source in _ENVIRONMENT))
        else:
            hint = "write an address of Apprise, such as ntfys://ntfy.sh/TOPIC, slack://... or mailtos://..."
            problems.append(Problem(str(ref), "is no address of a service that notices can be sent to", hint))
    if found and all(is_own_mail(spec, item.url) for item in found):
        summary = "leads through the very mail server or provider whose outage it would tell of"
        hint = "add another destination to daemon.notices (ntfy, a chat), or one whose SMTP host is not in use here"
        return (), (*problems, *(Problem(item.name, summary, hint) for item in found))
    return tuple(found), tuple(problems)


def is_own_mail(spec: Spec, url: str) -> bool:
    """Whether a message to a URL needs our own mail server, or the provider in use, to be sent or to arrive."""
    if scheme(url) not in _MAIL:
        return False
    try:
        parts = urlsplit(url)
        named = _name(unquote(parts.hostname or ""))
        query = parse_qs(parts.query)
    except ValueError:
        return False  # Apprise will not understand it either
    through = {_name(item) for item in query.get("smtp", [])} or {named}
    paths = [unquote(item) for item in parts.path.split("/")]
    recipients = [item for text in (*paths, *query.get("to", [])) for item in text.replace(";", ",").split(",") if item]
    domains = {_name(item.rpartition("@")[2].strip(" >")) for item in recipients if "@" in item} or {named}
    own = set(_own_hosts(spec))
    return bool(through & (own | set(_own_domains(spec, own)))) or domains <= set(_own_domains(spec, own))


def _own_hosts(spec: Spec) -> Iterator[str]:
    """Yield what our mail server and the providers in use are called."""
    if spec.stalwart.hostname:
        yield _name(spec.stalwart.hostname)
    if (server := spec.targets.stalwart) is not None:
        with contextlib.suppress(NoUrl):  # told where it is used
            yield parse(server.url).host
        if server.container:
            yield _name(server.container)
    smtp = spec.smtp
    used = {smtp.provider, *(consumer.provider for consumer in smtp.consumers.values())}
    for name, provider in smtp.providers.items():
        if name in used or provider.account is not None:
            yield _name(provider.host or PRESETS.get(provider.preset or "", Preset("")).host)


def _own_domains(spec: Spec, hosts: set[str]) -> Iterator[str]:
    """Yield the domains whose mail arrives at our server, as far as the directory says."""
    for record in zone_records(spec):
        if record.type == "MX" and str(record.content) in hosts:
            yield record.host


def _name(text: str) -> str:
    try:
        return host(text.strip())
    except ValueError:
        return text.strip().lower()
