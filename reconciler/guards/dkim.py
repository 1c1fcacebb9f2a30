"""DKIM keys: what signs is published, before it signs and for as long as mail needs it."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from reconciler import keys
from reconciler.dns.publication import Publication, publication
from reconciler.dns.records import dkim_record, policy
from reconciler.dns.text import DKIM
from reconciler.guards.evidence import Evidence, refuse, warn
from reconciler.names import domain_name, key_name
from reconciler.problem import Problem
from reconciler.resources import UNKNOWN, Record, Signature
from reconciler.target import Change


@dataclass(frozen=True, slots=True)
class _Standing:
    """What stands where, found once: keys are many.

    ``signing`` are the keys that the server signs with, or may, by the names of their records, and ``signs`` these
    names by their domains; ``wanted`` are the declared keys by their domains, ``records`` the declared TXT records by
    their names, ``zones`` those of declared records, ``shown`` what Cloudflare has.
    """

    signing: Mapping[str, Signature]
    signs: Mapping[str, Sequence[str]]
    wanted: Mapping[str, Sequence[Signature]]
    records: Mapping[str, Record]
    zones: frozenset[str]
    shown: frozenset[tuple[str, object]]

    @classmethod
    def of(cls, evidence: Evidence) -> _Standing:
        signing, signs = _signing(evidence), defaultdict[str, list[str]](list)
        for name, key in signing.items():
            signs[domain_name(key.domain)].append(name)
        wanted, records, zones = defaultdict[str, list[Signature]](list), dict[str, Record](), set[str]()
        for item in evidence.desired.resources:
            if isinstance(item, Signature):
                wanted[domain_name(item.domain)].append(item)
            elif isinstance(item, Record):
                zones.add(item.zone)
                if item.type == "TXT":
                    records.setdefault(item.host, item)
        live = (it.resource for it in evidence.live)
        shown = frozenset((item.host, item.content) for item in live if isinstance(item, Record))
        return cls(signing, signs, wanted, records, frozenset(zones), shown)


def selector_still_signs(evidence: Evidence) -> Iterator[Problem]:
    """A published key stays while the server signs with it, and while that can't be told."""
    seen = evidence.observations.get("stalwart")
    gone = {change.address for change in evidence.plan.changes if change.deletes}
    signing = _signing(evidence)
    for change, record in _unpublished(evidence):
        key = signing.get(record.host)
        if key is not None and key.address not in gone:
            hint = f"remove the key first: `removed: [{key.address}]`, or let it retire with `stage: retiring`"
            yield refuse(change.address, f"the server still signs with {key.address}", hint, record.scope)
        elif seen is None or not seen.complete:
            hint = "plan again with Stalwart reachable and without --target"
            yield refuse(change.address, "whether the server still signs with it can't be told", hint, record.scope)
    for change, record in _replaced(evidence):
        key = signing.get(record.host)
        if key is not None and _publishes(record, key) and not _publishes(change.after, key):
            hint = "a new key takes a new selector: `reconciler dkim rotate`; or put public_key right"
            summary = f"would no longer publish the key that the server signs with as {key.address}"
            yield refuse(change.address, summary, hint, record.scope)


def _signing(evidence: Evidence) -> dict[str, Signature]:
    """Map the names of key records to the keys that the server signs with, or may: one that is not in force yet."""
    held = [live.resource for live in evidence.live if isinstance(live.resource, Signature)]
    return {key_name(key.selector, key.domain): key for key in held if key.signs or not key.in_force}


def _publishes(record: object, key: Signature) -> bool:
    if not isinstance(record, Record) or not key.public_key:
        return False
    shown = keys.read(str(record.content))
    return shown.sound and shown.tag("p") == key.public_key


def _unpublished(evidence: Evidence) -> Iterator[tuple[Change, Record]]:
    """Yield the removals of published keys; another type at their name is one."""
    yield from (item for item in _key_changes(evidence) if not _stays(*item))


def _replaced(evidence: Evidence) -> Iterator[tuple[Change, Record]]:
    """Yield the changes after which a name publishes another key."""
    yield from (item for item in _key_changes(evidence) if _stays(*item) and "content" in item[0].fields)


def _key_changes(evidence: Evidence) -> Iterator[tuple[Change, Record]]:
    """Yield the changes of records that publish a key, and what each is until then."""
    for change in evidence.plan.changes:
        record = change.before.resource if change.before else None
        if isinstance(record, Record) and policy(record) is DKIM:
            yield change, record


def _stays(change: Change, record: Record) -> bool:
    return isinstance(change.after, Record) and change.after.type == record.type


def selector_still_needed(evidence: Evidence) -> Iterator[Problem]:
    """A key that another took over from stays published for a week, and until every name server shows the other.

    Mail that it signed may wait in a queue that long. Only a person's ``--allow-deletes`` removes it sooner.
    """
    seen = evidence.observations.get("stalwart")
    removals = list(_unpublished(evidence)) if seen is not None and seen.complete else []
    if (evidence.policy.allow_deletes or 0) >= len(removals):
        return
    word = f"if the key is compromised: reconciler apply --allow-deletes {len(removals)}"
    standing = _Standing.of(evidence)
    for change, record in removals:
        heirs = list(_heirs(standing, record))
        for heir in heirs:
            reason = _needed_beside(evidence, record, heir, standing)
            if reason is not None:
                summary, hint = reason
                yield refuse(change.address, summary, f"{hint}; {word}", record.scope)
        if not heirs and record.host in standing.signing:
            summary = "goes together with its key: mail that it signed and that waits in a queue may fail DKIM"
            hint = "`stage: retiring` keeps it published for a week without signing"
            yield warn(change.address, summary, hint, record.scope)


def _needed_beside(evidence: Evidence, record: Record, heir: Signature, standing: _Standing) -> tuple[str, str] | None:
    """Say why the record of a key stays although another is to sign in its place, and what to do; None where it may go.

    The week counts from the day the directory says. It can't be right while the server does not sign as it says.
    """
    from reconciler.dkim.rotation import free

    waiting, signing = "leave it at `stage: retiring` until then", standing.signing
    if record.host in signing:
        return f"its key signs until {heir.selector} takes over, in this very plan", "leave it at `stage: retiring`"
    if (
        key_name(heir.selector, heir.domain) not in signing
        or not signing[key_name(heir.selector, heir.domain)].in_force
    ):
        return f"stays until the server signs with {heir.selector} in its place", waiting
    if heir.since is None:
        hint = f"write `since` to {heir.address}: the day from which it signs"
        return f"since when {heir.selector} signs in its place is not known", hint
    until = free(heir.since)
    if evidence.today < until:
        return f"is needed until {until}: mail that it signed until {heir.since} may still be in a queue", waiting
    seen = publication(_key_record(standing, heir), evidence.answers)
    if not seen.everywhere:
        return f"stays until {heir.selector}, which took over from it, is published: {seen.words}", "run it again later"
    return None


def _heirs(standing: _Standing, record: Record) -> Iterator[Signature]:
    """Yield the key that signs for a domain in place of one whose record goes; nothing needs a revoked one."""
    shown = keys.read(str(record.content))
    domain = record.host.partition("._domainkey.")[2]
    if not (shown.sound and shown.public):
        return
    for key in standing.wanted.get(domain, ()):
        if key.algorithm == shown.tag("k") and key_name(key.selector, key.domain) != record.host:
            yield key


def takes_over_unpublished(evidence: Evidence) -> Iterator[Problem]:
    """A key takes over from another one only when every name server shows its record: mail would be rejected.

    A domain's first key, and one that a recreated volume lost, have nothing to take over from: they only warn.
    """
    put_in_use = list(_put_in_use(evidence))
    if not put_in_use:
        return
    standing, read_zones = _Standing.of(evidence), _read_zones(evidence)
    for change, key in put_in_use:
        record = _key_record(standing, key)
        where = f"dns/{record.zone}/TXT/{record.name}"
        if _takes_over(evidence, change, key, standing):
            yield from _too_early(evidence, change, key, record)
        elif not _listed(standing, record):
            summary, hint = f"signs before {where} is visible", "mail sent at once may fail DKIM"
            if record.scope not in read_zones:
                summary, hint = f"whether {where} is published could not be seen", "plan again with its zone readable"
            if record.target not in evidence.observations:
                summary, hint = f"whether {where} is published was not looked at", "plan without --target"
            yield warn(change.address, summary, hint, "stalwart")


def _too_early(evidence: Evidence, change: Change, key: Signature, record: Record) -> Iterator[Problem]:
    """Refuse a take-over that DNS is not ready for; warn where a week from the day it counts from is too short."""
    seen = publication(record, evidence.answers)
    if not seen.everywhere:
        summary = f"would sign before {record.host} is published: {seen.words}"
        yield refuse(change.address, summary, _publishing(evidence, change, record, seen), f"dkim/{key.domain}")
    elif key.since is None or evidence.today - key.since > dt.timedelta(days=1):
        hint = f"write `since: {evidence.today}` to both keys: the old one has to stay published for 7 days from now"
        said = f"since {key.since}" if key.since else "nothing of since when"
        yield warn(change.address, f"takes over today, and the directory says {said}", hint)


def _publishing(evidence: Evidence, change: Change, record: Record, seen: Publication) -> str:
    """Say how a key gets published before it takes over."""
    before = change.before.resource if change.before else None
    if record.content is UNKNOWN:
        return "make its key first, which DNS can then show: `reconciler dkim generate`"
    if seen.missing and isinstance(before, Signature) and before.signs and "public_key" in change.fields:
        return "a key that takes over needs a selector of its own: `reconciler dkim rotate`"
    if not (seen.shown or seen.unread) and record in evidence.desired.resources:
        return "publish it first: `stage: pending`, apply, then `stage: active`"
    return "run it again later; `reconciler dkim list` shows what each name server has"


def _put_in_use(evidence: Evidence) -> Iterator[tuple[Change, Signature]]:
    """Yield the changes after which a key signs that did not sign before."""
    for change in evidence.plan.changes:
        key = change.after
        if isinstance(key, Signature) and key.signs and change.fields.keys() & {"public_key", "signs"}:
            yield change, key


def _listed(standing: _Standing, record: Record) -> bool:
    """Whether Cloudflare has a record; one whose zone is not declared is nobody's business here."""
    return record.zone not in standing.zones or (record.host, record.content) in standing.shown


def _read_zones(evidence: Evidence) -> set[str]:
    """Name the zones whose records were seen."""
    seen = evidence.observations.get(Record.target)
    if seen is None or seen.target in seen.unread:
        return set()
    zones = {item.scope for item in evidence.desired.resources if isinstance(item, Record)}
    return zones - seen.unread


def _key_record(standing: _Standing, key: Signature) -> Record:
    """Return the record that publishes a key: the declared one, or what it has to be in a zone that is not ours."""
    derived = dkim_record(key.domain, key.domain, key.selector, key.algorithm, key.public_key)
    return standing.records.get(key_name(key.selector, key.domain), derived)


def _takes_over(evidence: Evidence, change: Change, key: Signature, standing: _Standing) -> bool:
    """Whether another key of its algorithm signs until then: another selector, or the same one with another key.

    Of a key whose removal was never put in force only the name is left: it may be of any algorithm.
    """
    if evidence.plan.lost:
        return False
    before = change.before.resource if change.before else None
    if isinstance(before, Signature) and before.signs and "public_key" in change.fields:
        return True
    others = standing.signs.get(domain_name(key.domain), ())
    return any(
        standing.signing[name].algorithm in (key.algorithm, "") and name != key_name(key.selector, key.domain)
        for name in others
    )


def asked(evidence: Evidence) -> Iterator[Record]:
    """Yield the records of which these guards have to know whether every name server shows them."""
    put_in_use, unpublished = list(_put_in_use(evidence)), list(_unpublished(evidence))
    if not put_in_use and not unpublished:
        return
    standing = _Standing.of(evidence)
    heirs = [key for change, key in put_in_use if _takes_over(evidence, change, key, standing)]
    heirs += [heir for _, record in unpublished for heir in _heirs(standing, record)]
    yield from (_key_record(standing, key) for key in heirs)
