"""`dkim.yaml`: the keys that sign, each with its private half where the server shows it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from reconciler.desired.resources import zone_of
from reconciler.desired.spec.mail import Key
from reconciler.dkim.record import dkim_record
from reconciler.importing.draft import Draft
from reconciler.importing.found import Found
from reconciler.importing.yaml import Noted
from reconciler.resources import Domain, Live, Record, Setting, Signature

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
    for name in _lone_domains(found, made.content):
        made.content[name] = Noted([], beside="a domain without accounts and keys")
    return made


def _lone_domains(found: Found, named: Collection[str]) -> list[str]:
    """Name the domains that nothing else in the directory would bring."""
    resources = [item.resource for item in found.server.live] if found.server else []
    aliases = [alias for item in found.accounts if isinstance(item.aliases, tuple) for alias in item.aliases]
    others = {address.rpartition("@")[2] for address in (*aliases, *(item.name for item in found.accounts))}
    others |= {str(item.value) for item in resources if isinstance(item, Setting) and item.word == "default_domain"}
    domains = [item.name for item in resources if isinstance(item, Domain)]
    return sorted(name for name in domains if name not in {*named, *others})


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
    zone = zone_of(key.domain, found.zones)
    if zone is None:
        return None, "", ""
    wanted = dkim_record(zone, key.domain, key.selector, key.algorithm, key.public_key)
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
