"""`dns.yaml`: the records of each zone that mail depends on; the others stay nobody's business here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from reconciler.desired.spec.dns import RecordEntry
from reconciler.dns.records import AUTO_TTL, check_data, head, marked, policy, record
from reconciler.importing.draft import Draft
from reconciler.importing.found import Found
from reconciler.importing.yaml import Inline
from reconciler.resources import UNMANAGED, Live, Record

_SHOWN = 12  # names that a note lists

# What mail providers verify a domain by.
_TEXT = re.compile(
    r"(brevo|sendinblue)-code[:=]|MS=ms\d|(zoho|protonmail|mailru|yandex)-verification[:=]|amazonses[:=]"
    r"|(mailjet|mailchimp|sendgrid|postmark|fastmail|smtp2go|resend|mailersend|sparkpost)[\w.-]*[:=]",
    re.IGNORECASE,
)
_LABELS = frozenset({"_domainkey", "_dmarc", "_report", "_smtp", "_mta-sts", "_bimi", "_amazonses", "_mailchannels"})
_HOSTS = ("mail", "autoconfig", "autodiscover", "mta-sts", "smtp", "imap", "pop", "pop3", "mx", "jmap")
# RFC 6186, 8314, 8620, 5804, 6764 (a mail server's calendars and contacts), and Outlook's.
_SERVICES = frozenset(
    f"_{name}"
    for name in (
        *("smtp", "submission", "submissions", "imap", "imaps", "pop3", "pop3s", "jmap", "sieve", "managesieve"),
        *("caldav", "caldavs", "carddav", "carddavs", "autodiscover"),
    )
)
_PORTS = frozenset(f"_{port}" for port in (24, 25, 110, 143, 465, 587, 993, 995, 2525, 4190))
_PROVIDERS = re.compile(
    r"(^|\.)(dkim\.brevo\.com|sendinblue\.com|brevo\.com|amazonses\.com|mtasv\.net|mailgun\.org|resend\.com"
    r"|smtp2go\.(com|net)|sendgrid\.net|mailjet\.com|mcsv\.net|mandrillapp\.com|sparkpostmail\.com|mailersend\.net"
    r"|zoho(mail)?\.(com|eu)|protonmail\.ch|outlook\.com|messagingengine\.com|migadu\.com)$"
)


def records(found: Found, derived: Iterable[Record], draft: Draft) -> dict[str, Any]:
    """Return the entries of each zone; what is left out is said. ``derived`` are records of keys that are kept."""
    content: dict[str, Any] = {}
    keys, closed = frozenset(derived), _closed(found)
    for zone in found.zones:
        mail, others = _split(found, zone, keys)
        kept = [(live, item) for live, item in _without_doubles(mail, draft) if _reaches(item, closed, draft)]
        content[zone] = [entry for live, item in kept if (entry := _entry(live, item, found, draft)) is not None]
        if others:
            shown = ", ".join(dict.fromkeys(f"{item.type} {item.name}" for _, item in others[:_SHOWN]))
            more = f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
            number = f"{len(others)} records are" if len(others) > 1 else "1 record is"
            draft.note(f"dns/{zone}", f"{number} not about mail and left out: {shown}{more}")
    return content


def _split(
    found: Found, zone: str, derived: frozenset[Record]
) -> tuple[list[tuple[Live, Record]], list[tuple[Live, Record]]]:
    """Part the records about mail from the others; in the order people read them."""
    there = sorted(found.records(zone), key=lambda pair: (pair[1].name != "@", _reversed(pair[1].name), pair[1].type))
    hosts = _hosts(found, [item for name in found.zones for _, item in found.records(name)])
    mail = [(live, item) for live, item in there if item not in derived and _concerns_mail(item, hosts)]
    others = [(live, item) for live, item in there if item not in derived and not _concerns_mail(item, hosts)]
    return mail, others


def _reversed(name: str) -> list[str]:
    return name.split(".")[::-1]


def _hosts(found: Found, there: list[Record]) -> frozenset[str]:
    """Name the hosts of mail: those that records about mail point to, the server's own, and what they are aliases of.

    A host without records of its own is served by a wildcard's (RFC 4592).
    """
    wanted = {found.hostname.lower()} | {f"{name}.{zone}" for name in _HOSTS for zone in found.zones}
    wanted |= {item.content for item in there if item.type == "MX" and isinstance(item.content, str)}
    wanted |= {str(dict(item.data or ()).get("target")) for item in there if item.type == "SRV" and _is_service(item)}
    named = {item.host for item in there}
    for host in [name for name in wanted if name not in named and name != found.hostname]:
        if host.partition(".")[0] not in _HOSTS:
            wanted.add(f"*.{host.partition('.')[2]}")
    while True:
        aliases = {str(item.content) for item in there if item.type == "CNAME" and item.host in wanted}
        if aliases <= wanted:
            return frozenset(wanted)
        wanted |= aliases


def _concerns_mail(item: Record, hosts: frozenset[str]) -> bool:
    labels = item.name.lower().split(".")
    if item.type == "MX" or _LABELS & set(labels):
        return True
    if item.type == "TXT":
        return policy(item) is not None or _TEXT.match(str(item.content)) is not None
    if item.type == "SRV":
        return _is_service(item)
    if item.type == "TLSA":
        return labels[0] in _PORTS
    if item.type == "CNAME" and _PROVIDERS.search(str(item.content)):
        return True
    return item.type in ("A", "AAAA", "CNAME") and item.host in hosts


def _is_service(item: Record) -> bool:
    return item.name.lower().partition(".")[0] in _SERVICES


def _entry(live: Live, item: Record, found: Found, draft: Draft) -> Inline | None:
    """Write a record as an entry; None, and said, where it can't be ours or would not come back as it is."""
    where = f"{item.address}[{head(item)}]"
    if live.fixed:
        draft.note(where, f"left out: {live.fixed}", "switch Email Routing off: your own server takes the mail")
        return None
    if live.owner not in (None, found.stack):
        draft.note(
            where,
            f"left out: it is marked as that of the stack {live.owner}",
            f"manage it there; if that is this stack: --stack {live.owner}",
        )
        return None
    entry = _written(item)
    if isinstance(item.comment, str) and _comment_fits(item.comment, found.stack):
        entry["comment"] = item.comment
    if not draft.fits(where, RecordEntry, _as_text(entry)):
        return None
    if not _comes_back(item, entry):
        draft.note(where, "left out: it can't be written so that it comes back as it is", "write it by hand")
        return None
    return entry


def _written(item: Record) -> Inline:
    entry = Inline(type=item.type, name=item.name)
    if item.data:
        entry["data"] = Inline(item.data)
    else:
        entry["content"] = item.content
    if item.priority is not None:
        entry["priority"] = item.priority
    if item.ttl != AUTO_TTL:
        entry["ttl"] = item.ttl
    if item.proxied:
        entry["proxied"] = True
    return entry


def _comment_fits(text: str, stack: str) -> bool:
    """Whether a comment can be declared: beside our mark it has to fit, and it can't look like one."""
    return marked(text, stack) is not None and not re.search(r"(^|\s)reconciler:[a-z0-9-]|[\r\n]", text)


def _as_text(value: Any) -> Any:
    """Return an entry as the YAML's reader gives it: every scalar a text."""
    if isinstance(value, dict):
        return {name: _as_text(item) for name, item in value.items()}
    return str(value).lower() if isinstance(value, bool | int) else value


def _comes_back(item: Record, entry: Inline) -> bool:
    fields = {name: entry.get(name) for name in ("content", "priority", "data")}
    try:
        made = record(item.zone, item.type, item.name, ttl=item.ttl, proxied=item.proxied, **fields)
        check_data(made)
    except ValueError:
        return False
    return replace(made, comment=UNMANAGED) == replace(item, comment=UNMANAGED)


def _without_doubles(there: Iterable[tuple[Live, Record]], draft: Draft) -> Iterator[tuple[Live, Record]]:
    """Leave out what the directory refuses as a second one: policies stand once."""
    seen = set()
    for live, item in there:
        kind = policy(item)
        if kind is not None and (item.name, kind) in seen:
            why = f"it is a second {kind.label} record at this name, and receivers take two for none"
            draft.note(item.address, f"left out: {item.content}: {why}", "join them into one, and remove the other")
            continue
        seen.add((item.name, kind))
        yield live, item


def _closed(found: Found) -> dict[str, str]:
    """Say of the hosts that no MX may name why: a plan with one would be refused."""
    why: dict[str, str] = {}
    for _, item in (pair for zone in found.zones for pair in found.records(zone)):
        if item.type == "CNAME":
            why[item.host] = "an alias, which no MX may name (RFC 2181 section 10.3)"
        elif item.type in ("A", "AAAA") and item.proxied:
            why[item.host] = "proxied by Cloudflare, which takes no mail"
    return why


def _reaches(item: Record, closed: Mapping[str, str], draft: Draft) -> bool:
    """Whether a record is no MX, or one whose mail arrives; say why not."""
    why = closed.get(str(item.content)) if item.type == "MX" else None
    if why is not None:
        hint = "correct that at Cloudflare, and import again, or declare the MX by hand"
        draft.note(item.address, f"left out: its host {item.content} is {why}", hint)
    return why is None
