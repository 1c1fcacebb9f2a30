"""`dkim.yaml` and `dns.yaml`: the keys that sign, and the records of each zone that mail depends on."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from reconciler.desired.derivation import zone_of
from reconciler.desired.public_ip import filled, is_template
from reconciler.desired.spec.dns import RecordEntry
from reconciler.desired.spec.mail import Key
from reconciler.dns.policies import lint
from reconciler.dns.records import (
    AUTO_TTL,
    Hosts,
    alone,
    answering,
    check_data,
    dkim_record,
    head,
    marked,
    policy,
    record,
)
from reconciler.importing.directory import Inline, Noted
from reconciler.importing.draft import Draft
from reconciler.importing.found import Found
from reconciler.resources import UNMANAGED, Live, Record, Signature
from reconciler.secrecy import is_secret_form

SERVER_ONLY = (
    "The server alone holds this key: with its volume it is lost.",
    "`reconciler dkim rotate {domain}` replaces it by one of our own.",
)


@dataclass(slots=True)
class Keys:
    """What goes into the file, and the records that follow from it, which then stand nowhere else."""

    content: dict[str, Any] = field(default_factory=dict)
    derived: set[Record] = field(default_factory=set)
    count: int = 0


def keys(found: Found, draft: Draft) -> Keys:
    """Decide on every key. One that DNS does not show as it would be written stays in the file as a comment."""
    made, entries = Keys(), defaultdict[str, list[Any]](list)
    kept: set[str] = set()
    for key in _signatures(found):
        entry = _entry(found, key, draft)
        if not draft.fits(key.address, Key, _plain(entry)):
            continue
        record, why, hint = _publication(found, key)
        if not why and f"{key.domain}/{key.algorithm}" in kept:
            why, hint = f"is a second {key.algorithm} key of its domain that signs", "let one of them retire"
        if why:
            draft.note(key.address, f"left out: {why}", hint)
            above = (f"{key.selector} is left out: {why}.", f"{hint[0].upper()}{hint[1:]}.")
            entries[key.domain].append(Noted(entry, above, out=True))
            continue
        kept.add(f"{key.domain}/{key.algorithm}")
        made.derived |= {record} if record else set()
        entries[key.domain].append(_noted(entry, key, draft))
        made.count += 1
    for domain, listed in entries.items():
        real = [item for item in listed if not (isinstance(item, Noted) and item.out)]
        inner = [item.value if isinstance(item, Noted) else item for item in listed]
        made.content[domain] = listed if real else Noted(inner, _reasons(listed), out=True)
    return made


def _reasons(listed: list[Noted]) -> tuple[str, ...]:
    return tuple(line for item in listed for line in item.above)


def _signatures(found: Found) -> Iterator[Signature]:
    live = found.server.live if found.server else ()
    signatures = [item.resource for item in live if isinstance(item.resource, Signature)]
    yield from sorted(signatures, key=lambda item: (item.domain, item.algorithm, item.selector))


def _entry(found: Found, key: Signature, draft: Draft) -> dict[str, Any]:
    entry: dict[str, Any] = {"selector": key.selector, "algorithm": key.algorithm}
    private = found.server.private_keys.get(key.address) if found.server else None
    if private is not None:
        entry["public_key"] = key.public_key
        entry["private_key"] = draft.keep(f"{key.selector}.{key.domain}.pem", private)
    return entry


def _plain(entry: dict[str, Any]) -> dict[str, Any]:
    """Return an entry as the models read it, its references written out."""
    return {name: {value.source: value.name} if name == "private_key" else value for name, value in entry.items()}


def _noted(entry: dict[str, Any], key: Signature, draft: Draft) -> Any:
    if "private_key" in entry:
        return entry
    draft.note(
        key.address,
        "the server shows no private keys: it alone holds this one, and with its volume it is lost",
        f"reconciler dkim rotate {key.domain}: replaces it by a key of our own",
    )
    return Noted(entry, tuple(line.format(domain=key.domain) for line in SERVER_ONLY))


def _publication(found: Found, key: Signature) -> tuple[Record | None, str, str]:
    """Return the record that publishes a key, else why the plan after the import would change something.

    A domain whose zone is not imported has no record here, and nothing to change.
    """
    if not isinstance(key.public_key, str) or not key.public_key:
        return None, "the server's key can't be read", "see what the server says of it"
    try:
        zone = zone_of(key.domain, found.zones)
        if zone is None:
            return None, "", ""
        wanted = dkim_record(zone, key.domain, key.selector, key.algorithm, key.public_key)
    except ValueError as error:
        return None, f"no record can publish it: {error}", "give it a selector and a domain that DNS can have"
    there = [(live, item) for live, item in found.records(zone) if item.host == wanted.host]
    if not there:
        return None, f"{wanted.host} is not published", "take the # away, and the next apply publishes it"
    why = _obstacle(there, wanted, found.stack)
    hint = "to have the server's key published, take the # away in dkim.yaml, and its old record out of dns.yaml"
    return (None, why, hint) if why else (there[0][1], "", "")


def _obstacle(there: list[tuple[Live, Record]], wanted: Record, stack: str) -> str:
    """Say why the records at a key's name would not stay as they are; nothing where they would."""
    live, item = there[0]
    if len(there) > 1:
        return f"{wanted.host} has {len(there)} records, of which verifiers take any"
    if live.owner not in (None, stack):
        return f"its record is marked as that of the stack {live.owner}"
    if live.fixed:
        return f"its record can't be changed: {live.fixed}"
    return "" if _same(item, wanted) else f"{wanted.host} {_difference(item, wanted)}"


def _same(item: Record, wanted: Record) -> bool:
    return (item.type, item.content, item.ttl, item.proxied) == (wanted.type, wanted.content, wanted.ttl, False)


def _difference(item: Record, wanted: Record) -> str:
    if item.type != "TXT":
        return f"is a {item.type} to {item.content}"
    if item.content != wanted.content:
        return "publishes another key than the one the server signs with"
    return f"has ttl {item.ttl}, and a key's record is kept at ttl auto"


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
    _note_mark(found, draft)
    keys, closed = frozenset(derived), _closed(found)
    for zone in found.zones:
        mail, others = _split(found, zone, keys)
        kept = [(live, item) for live, item in _without_doubles(mail, draft) if _reaches(live, item, closed, draft)]
        written = [(live, _record_entry(live, item, found, draft)) for live, item in kept]
        content[zone] = [entry for _, entry in written if entry is not None]
        _note_unreadable(found, [item for (_, item), (_, entry) in zip(kept, written, strict=True) if entry], draft)
        _note_ours(found, mail, {live.id for live, entry in written if entry is not None}, draft)
        _note_unread(found.zones[zone], draft)
        if others:
            shown = ", ".join(dict.fromkeys(f"{item.type} {item.name}" for _, item in others[:_SHOWN]))
            more = f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
            number = f"{len(others)} records are" if len(others) > 1 else "1 record is"
            draft.note(f"dns/{zone}", f"{number} not about mail and left out: {shown}{more}")
    return content


def _split(
    found: Found, zone: str, derived: frozenset[Record]
) -> tuple[list[tuple[Live, Record]], list[tuple[Live, Record]]]:
    """Part the records about mail, and ours of any kind, from the others; in the order people read them.

    What bears our mark and is not declared would be removed by the first plan.
    """
    there = sorted(found.records(zone), key=lambda pair: (pair[1].name != "@", _reversed(pair[1].name), pair[1].type))
    hosts = _hosts(found, [item for name in found.zones for _, item in found.records(name)])
    mail: list[tuple[Live, Record]] = []
    others: list[tuple[Live, Record]] = []
    for live, item in there:
        if item not in derived:
            (mail if live.owner == found.stack or _concerns_mail(item, hosts) else others).append((live, item))
    return mail, others


def _note_mark(found: Found, draft: Draft) -> None:
    """Tell of a name that is in use: this directory was imported before, or another one has it and would lose all."""
    ours = sum(live.owner == found.stack for lives in found.zones.values() for live in lives)
    if ours and found.request.stack is None:
        summary = f"{ours} record{'s bear' if ours > 1 else ' bears'} the mark of a stack of this name already"
        hint = "if that is another directory's, import again with --stack and a name of its own"
        draft.note(f"stack {found.stack}", summary, hint)


def _note_ours(found: Found, mail: Iterable[tuple[Live, Record]], written: Collection[str], draft: Draft) -> None:
    """Tell of what bears our mark and could not be written."""
    for live, item in mail:
        if live.owner == found.stack and live.id not in written:
            summary = "bears our mark and is not in the directory: the first apply removes it"
            hint = "declare it by hand, or take the mark out of its comment at Cloudflare"
            draft.note(f"{item.address}[{head(item)}]", summary, hint)


def _note_unreadable(found: Found, written: Iterable[Record], draft: Draft) -> None:
    """Tell of policies that receivers can't read as they are meant; they are imported as they are."""
    led_to = lint.aliases(item for zone in found.zones for _, item in found.records(zone))
    for item in written:
        for fault in lint.of_record(item, led_to):
            draft.note(f"{item.address}[{head(item)}]", fault.summary, fault.hint)


def _note_unread(lives: Iterable[Live], draft: Draft) -> None:
    for live in lives:
        if live.unread:
            draft.note(live.resource.address, f"left out: {live.fixed}", "see it at Cloudflare; it stays as it is")


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


def _record_entry(live: Live, item: Record, found: Found, draft: Draft) -> Inline | None:
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
    if isinstance(item.comment, str) and is_secret_form(item.comment):
        hint = "take it out at Cloudflare: all who may read the zone can read it; undeclared it stays as it is"
        draft.note(where, "its comment is left out: it looks like a secret", hint)
    elif isinstance(item.comment, str) and _comment_fits(item.comment, found.stack):
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
    braced = is_template(item.type, item.name, str(item.content)) and filled(str(made.content), "") != made.content
    return replace(made, comment=UNMANAGED) == replace(item, comment=UNMANAGED) and not braced


def _without_doubles(there: Iterable[tuple[Live, Record]], draft: Draft) -> Iterator[tuple[Live, Record]]:
    """Leave out what the directory refuses beside another: policies stand once, and what says that there is nothing."""
    pairs, seen = list(there), set()
    types = Counter((item.name, item.type) for _, item in pairs)
    for live, item in pairs:
        if types[item.name, item.type] > 1 and (said := alone(item)):
            types[item.name, item.type] -= 1
            draft.note(
                item.address, f"left out: it {said}, and another {item.type} of its name says otherwise", "keep one"
            )
            continue
        kind = policy(item)
        if kind is not None and (item.name, kind) in seen:
            why = f"it is a second {kind.label} record at this name, and receivers take two for none"
            draft.note(item.address, f"left out: {item.content}: {why}", "join them into one, and remove the other")
            continue
        seen.add((item.name, kind))
        yield live, item


def _closed(found: Found) -> dict[str, str]:
    """Say of the hosts that an MX names, and that none may name, why: a plan with one would be refused."""
    hosts = Hosts(item for zone in found.zones for _, item in found.records(zone))
    why: dict[str, str] = {}
    for name in {str(item.content) for there in hosts.values() for item in there if item.type == "MX"}:
        for item in answering(hosts, name):
            if item.type == "CNAME" and item.name != "@":
                why[name] = "an alias, which no MX may name (RFC 2181 section 10.3)"
            elif item.type in ("A", "AAAA") and item.proxied:
                why[name] = "proxied by Cloudflare, which takes no mail"
    return why


def _reaches(live: Live, item: Record, closed: Mapping[str, str], draft: Draft) -> bool:
    """Whether a record is no MX, or one whose mail arrives; say why not. An undeclared one of ours would be removed."""
    why = closed.get(str(item.content)) if item.type == "MX" else None
    if why is not None and live.owner is not None:
        draft.note(item.address, f"its host {item.content} is {why}", "correct that: until then plans are refused")
        return True
    if why is not None:
        hint = "correct that at Cloudflare, and import again, or declare the MX by hand"
        draft.note(item.address, f"left out: its host {item.content} is {why}", hint)
    return why is None
