"""Providers that need no more than their name: where they take submission, and what they have DNS show.

Ports as their documentation says. Amazon SES is missing: its host names the region.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from reconciler.desired import template, words
from reconciler.resources import Record

if TYPE_CHECKING:
    from reconciler.desired.spec.smtp import Smtp


@dataclass(frozen=True, slots=True)
class Need:
    """A kind of record that a provider asks for: its type, its name below the mail domain, and its value.

    ``name`` and ``value`` may hold ``*``; the name ``@`` is the domain itself.
    """

    type: str
    name: str
    value: str = "*"

    def fits(self, record: Record, domain: str) -> bool:
        """Whether a record is of this kind, for a mail domain (lower case, Punycode)."""
        name = domain if self.name == "@" else f"{self.name}.{domain}"
        value = str(record.content).lower()
        return record.type == self.type and fnmatchcase(record.host, name) and fnmatchcase(value, self.value)


# On a provider's shared addresses SPF passes for a domain of the provider, which is not aligned: DMARC passes only by
# a DKIM signature of the mail's own domain (RFC 7489 section 3.1; facts.md 2.5).
_DKIM = (Need("CNAME", "*._domainkey"), Need("TXT", "*._domainkey"))


@dataclass(frozen=True, slots=True)
class Preset:
    """A provider: ``port`` begins in clear and goes on with STARTTLS, ``implicit`` ones begin with TLS.

    ``needs`` are the kinds of records without which mail through it fails DMARC. ``has_api`` says that
    `reconciler.observe.providers` can ask it for them, ``secret_username`` that the user name is a key as well.
    """

    host: str
    port: int = 587
    implicit: tuple[int, ...] = (465,)
    needs: tuple[Need, ...] = _DKIM
    has_api: bool = False
    secret_username: bool = False


PRESETS: dict[str, Preset] = {
    "brevo": Preset("smtp-relay.brevo.com", needs=(*_DKIM, Need("TXT", "@", "*-code:*")), has_api=True),
    "mailgun": Preset("smtp.mailgun.org"),
    "mailgun-eu": Preset("smtp.eu.mailgun.org"),
    "postmark": Preset("smtp.postmarkapp.com", implicit=(), secret_username=True),
    "resend": Preset("smtp.resend.com", implicit=(465, 2465)),
    "smtp2go": Preset("mail.smtp2go.com", implicit=(465, 8465, 443)),
    "smtp2go-eu": Preset("mail-eu.smtp2go.com", implicit=(465, 8465, 443)),
}

IMPLICIT_TLS = frozenset({465, 2465, 8465}.union(*(preset.implicit for preset in PRESETS.values())))
"""Ports that begin with TLS: RFC 8314 section 3.3, and what Amazon SES and the presets offer beside it."""


def tls_mode(said: str | None, port: int) -> str:
    """Return how TLS begins with a provider: ``starttls``, ``implicit`` or ``none``; by its port where nobody says."""
    return said or ("implicit" if port in IMPLICIT_TLS else "starttls")


def has_secret_username(preset: str | None, host: str | None) -> bool:
    """Whether a provider's user name is a key as its password is: Postmark's token, Amazon SES' access key."""
    known = PRESETS.get(preset or "", Preset(host or ""))
    keyed = {item.host for item in PRESETS.values() if item.secret_username}
    name = (host or known.host).lower()
    return known.secret_username or name in keyed or fnmatchcase(name, "email-smtp*.amazonaws.com*")


def public_values(smtp: Smtp, logins: Iterable[str]) -> frozenset[str]:
    """Return the texts by which a live variable may be shown: where providers are, declared here or preset.

    So is what the consumers are told of each, as far as no login is in it. ``logins`` are the names of declared
    accounts, which are public, too.
    """
    hosts = {provider.host for provider in smtp.providers.values()} | {preset.host for preset in PRESETS.values()}
    ports = {str(provider.port) for provider in smtp.providers.values() if provider.port} | {"25", "587", "2525"}
    ports |= {str(port) for port in IMPLICIT_TLS}
    names = {it.username for it in smtp.providers.values() if not has_secret_username(it.preset, it.host)}
    ends = {f"{host}:{port}" for host in hosts for port in ports}
    told = set(_told(smtp))
    return frozenset(item for item in {*hosts, *ports, *ends, *names, *logins, *told} if isinstance(item, str))


def _told(smtp: Smtp) -> Iterator[str]:
    """Yield what each consumer would be told with each provider, as far as no login is in it."""
    for provider in smtp.providers.values():
        host, port = provider.door
        said = {"host": host, "port": str(port), "tls": provider.terms.tls, "from": provider.sender}
        known = {name: value for name, value in said.items() if isinstance(value, str)}
        for consumer in smtp.consumers.values():
            for entry in consumer.entries(provider).values():
                value = words.choose(entry.value, provider.terms)
                if isinstance(value, str) and template.slots(value) <= known.keys():
                    yield template.filled(value, known)
