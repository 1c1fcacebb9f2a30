"""Reasons to refuse a plan. Pure: every guard looks at values and returns problems; none writes or asks.

A guard refuses a scope (a target, a zone, a service). A person's `apply` then writes nothing at all and ends with 4.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from reconciler import keys
from reconciler.dkim.record import dkim_record, domain_name
from reconciler.dkim.record import name as key_name
from reconciler.dkim.rotation import free
from reconciler.dns.publication import Answers, Publication, Question, publication, question
from reconciler.dns.records import policy
from reconciler.dns.text import DKIM
from reconciler.plan import Change, Desired, Plan, Reason
from reconciler.problem import Problem, Severity
from reconciler.resources import (
    UNKNOWN,
    Account,
    AllowedIp,
    Domain,
    Live,
    Login,
    Observation,
    Record,
    SecretRef,
    SecretText,
    Setting,
    Signature,
    Variable,
)

# SHA-256 of secrets that everybody can read: defaults in public code, and the first words anybody tries.
PUBLIC_SECRETS = frozenset(
    {
        "791207901d3024fbf4d8fcace01198e66a6594fac3c4fcf2345554dc1e42d6e2",
        "057ba03d6c44104863dc7361fe4578965d1887360f90a0895882e58a6248fc86",
        "e2186dbdb1bb4193608605e84f33208765b5693b55edd4f730a719a100eeea6f",
        "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8",
        "8c6976e5b5410415bde908bd4dee15dfb167a9c873fc4bb8a81f6f2ab448a918",
        "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b",
        "8d969eef6ecad3c29a3a629280e686cf0c3f5d5a86aff3ca12020c923adc6c92",
        "ef797c8118f02dfb649607dd5d3f8c7623048c9c063d532cc95c5ed7a898a64f",
        "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225",
        "1c8bfe8f801d79745c4631d09fff36c82aa37fc4cce4fc946683d7b336b63032",
        "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "8d62793654e05588c70f1d45214b4b5b864f3487fc43640be976294fe36d728b",
        "63a8b6180e13691f924d77e0a617d4d54f3f5e59c5fb2ddf967b4a4540b28a1c",
        "c032f1b2c07148d5c19afa6c6dcaef998abf76f863089c04eab52133c0ee0815",
        "8f0e2f76e22b43e2855189877e7dc1e1e7d98c226c95db247cd1d547928334a9",
        "19513fdc9da4fb72a4a05eb66917548d3c90ff94d5419e1f2363eea89dfee1dd",
        "37a8eec1ce19687d132fe29051dca629d164e2c4958ba141d5f4133a33f0688f",
        "2737fc4b9a3f09d8fd3c8e6f8beefc9acd99d18842096c112fd5d871ac71fac2",
        "65e84be33532fb784c48129675f9eff3a682b27168c0ea744b2cf58ee02337c5",
        "f75778f7425be4db0369d09af37a6c2b9a83dea0e53e7bd57412e4b060e607f7",
    }
)


@dataclass(frozen=True, slots=True)
class Policy:
    """How far a plan may go.

    ``max_deletes`` is what the directory allows, ``allow_deletes`` what a person allows this once; ``administrator``
    is the login that the reconciler itself uses.
    """

    max_deletes: int = 3
    allow_deletes: int | None = None
    prune: bool = True
    administrator: str = ""


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that guards look at: the plan, what it comes from, and which references hold a secret known to be public.

    ``answers`` is what the name servers said to `questions`, ``today`` the day that counts as today.
    """

    plan: Plan
    desired: Desired
    observations: Mapping[str, Observation]
    policy: Policy
    public: frozenset[SecretRef] = frozenset()
    answers: Answers = field(default_factory=dict)
    today: dt.date = field(default_factory=lambda: dt.datetime.now(dt.UTC).date())

    @property
    def live(self) -> Iterator[Live]:
        """Every live resource of every target."""
        for seen in self.observations.values():
            yield from seen.live

    def deletions(self) -> list[Change]:
        """The removals that follow from absence: what ``removed`` names was asked for."""
        return [item for item in self.plan.changes if item.deletes and item.reason is Reason.NOT_IN_DESIRED]

    def records(self) -> list[Record]:
        """The DNS records there will be after the plan: live ones less those that go, and those that come."""
        gone = {id(change.before) for change in self.plan.changes if change.before is not None}
        stay = [live.resource for live in self.live if id(live) not in gone]
        come = [change.after for change in self.plan.changes if change.after is not None]
        return [item for item in (*stay, *come) if isinstance(item, Record)]


def check(evidence: Evidence) -> tuple[Problem, ...]:
    """Return every reason to refuse, and every warning, that the guards find."""
    return tuple(dict.fromkeys(problem for guard in GUARDS for problem in guard(evidence)))


def _refuse(where: str, summary: str, hint: str, scope: str) -> Problem:
    return Problem(where, summary, hint, Severity.REFUSED, scope)


def _warn(where: str, summary: str, hint: str, scope: str = "") -> Problem:
    return Problem(where, summary, hint, Severity.WARNING, scope)


# ------------------------------------------------------------------------------------------------------ deletions
def nothing_desired(evidence: Evidence) -> Iterator[Problem]:
    """A directory that declares nothing, while something of ours is live, is a mistake and never a wish."""
    if not evidence.desired.resources and evidence.plan.owned:
        count = sum(evidence.plan.owned.values())
        hint = "check RECONCILER_STATE and the last commit; to give the stack up, remove the marks at Cloudflare"
        for scope in evidence.plan.owned:
            yield _refuse(scope, f"the directory declares nothing, but {count} live records are ours", hint, scope)


def too_many_deletions(evidence: Evidence) -> Iterator[Problem]:
    """No more deletions than the policy or a person allows."""
    deletions = evidence.deletions()
    allowed = evidence.policy.allow_deletes
    limit = evidence.policy.max_deletes if allowed is None else max(allowed, evidence.policy.max_deletes)
    if len(deletions) > limit:
        source = "policy.max_deletes" if allowed is None else "--allow-deletes"
        for scope in sorted({change.resource.scope for change in deletions}):
            yield _refuse(
                scope,
                f"the plan deletes {len(deletions)} resources, {source} allows {limit}",
                f"if that is meant: reconciler apply --allow-deletes {len(deletions)}",
                scope,
            )


def zone_collapses(evidence: Evidence) -> Iterator[Problem]:
    """Two or more deletions that are more than half of our records in a zone, or all of them, need a person's word."""
    total = len(evidence.deletions())
    if (evidence.policy.allow_deletes or 0) >= max(total, 1):
        return
    kept = Counter(item.scope for item in evidence.desired.resources)
    for zone, count in sorted(Counter(change.resource.scope for change in evidence.deletions()).items()):
        ours = evidence.plan.owned.get(zone, 0)
        collapse = count > 1 and count * 2 > ours
        if collapse or (not kept[zone] and count == ours):
            what = "all" if count == ours else f"{count} of {ours}"
            hint = f"if that is meant: reconciler apply --allow-deletes {total}"
            yield _refuse(zone, f"the plan deletes {what} of our records in this zone", hint, zone)


def domain_in_use(evidence: Evidence) -> Iterator[Problem]:
    """A domain goes only when nobody has an address there: the server would leave accounts without a domain."""
    gone = {change.address for change in evidence.plan.changes if change.deletes}
    for change in evidence.plan.changes:
        if not (change.deletes and isinstance(change.resource, Domain)):
            continue
        name = change.resource.name
        users = [live.resource.address for live in evidence.live if _uses(live.resource, name)]
        left = [address for address in users if address not in gone]
        if left:
            hint = f"remove {', '.join(left)} too, or keep the domain"
            yield _refuse(change.address, f"{len(left)} accounts still have an address there", hint, "stalwart")


def _uses(resource: object, domain: str) -> bool:
    if not isinstance(resource, Account):
        return False
    aliases = resource.aliases if isinstance(resource.aliases, tuple) else ()
    return any(str(address).endswith(f"@{domain}") for address in (resource.name, resource.email, *aliases))


def address_taken(evidence: Evidence) -> Iterator[Problem]:
    """An address is one account's: another gets it only when this plan takes it away from the first."""
    accounts = [change for change in evidence.plan.changes if isinstance(change.resource, Account)]
    changed = {change.before.id: change for change in accounts if change.before is not None}
    held = {
        address: live
        for live in evidence.live
        if isinstance(live.resource, Account)
        for address in _mail_addresses(live.resource)
    }
    for change in accounts:
        for address in _mail_addresses(change.after) if isinstance(change.after, Account) else ():
            live = held.get(address)
            if live is None or (change.before is not None and live.id == change.before.id):
                continue
            holder, other = live.resource.address, changed.get(live.id)
            if other is None or (other.after is not None and not _gives_up(other, address)):
                hint = f"take it from there: declare {holder} without it, as its aliases or its address"
                yield _refuse(change.address, f"{address} is an address of {holder}", hint, "stalwart")
            elif other.deletes:
                hint = f"remove that first: reconciler apply --only {holder}"
                yield _refuse(
                    change.address, f"{address} is still an address of {holder}, which goes", hint, "stalwart"
                )


def _gives_up(change: Change, address: str) -> bool:
    """Whether an account no longer has an address after its change; what is unmanaged stays."""
    after, before = change.after, change.before.resource if change.before else None
    if not isinstance(after, Account) or not isinstance(before, Account):
        return False
    email = after.email if isinstance(after.email, str) else before.email
    aliases = after.aliases if isinstance(after.aliases, tuple) else before.aliases
    return address not in (email, *(aliases if isinstance(aliases, tuple) else ()))


def _mail_addresses(account: Account) -> Iterator[str]:
    if isinstance(account.email, str):
        yield account.email
    if isinstance(account.aliases, tuple):
        yield from account.aliases


def account_goes(evidence: Evidence) -> Iterator[Problem]:
    """An account's removal destroys its mailbox: said loudly, and refused for a login that is still in use."""
    for change in evidence.plan.changes:
        account = change.resource
        if not (change.deletes and isinstance(account, Account)):
            continue
        service = next((item.service for item, login in _logins(evidence) if _is_login(evidence, login, account)), None)
        if service is not None:
            hint = "switch the consumer to another provider or account first"
            yield _refuse(change.address, f"{service} logs in with it", hint, "stalwart")
        elif evidence.policy.administrator.lower() in (account.name, account.login):
            yield _refuse(
                change.address, "reconciler itself logs in with it", "change targets.stalwart first", "stalwart"
            )
        elif change.reason is not Reason.REMOVED:
            hint = f"say so in the directory: `removed: [{change.address}]`"
            yield _refuse(change.address, "its removal destroys a mailbox", hint, "stalwart")
        else:
            yield _warn(change.address, "its mailbox and every mail in it are destroyed", "there is no way back")


# ------------------------------------------------------------------------------------------------------------ DNS
def second_policy(evidence: Evidence) -> Iterator[Problem]:
    """Two SPF, DMARC or other policies at one name are an error to every receiver (`reconciler.dns.text`)."""
    names: dict[tuple[str, str, str], list[Record]] = defaultdict(list)
    for record in evidence.records():
        kind = policy(record)
        if kind is not None and kind is not DKIM:  # what stands at a key's name has guards of its own
            names[record.zone, record.name, kind.label].append(record)
    touched = {change.resource for change in evidence.plan.changes}
    for (zone, name, label), records in sorted(names.items()):
        if len(records) < 2:  # noqa: PLR2004 (one is right)
            continue
        address = f"dns/{zone}/TXT/{name}"
        summary = f"there would be {len(records)} {label} records at this name: receivers then ignore both"
        if touched.isdisjoint(records):
            yield _warn(address, summary.replace("would be", "are"), "delete the one that is wrong at Cloudflare")
        else:
            hint = "delete the other one at Cloudflare, or merge both into the one you declare"
            yield _refuse(address, summary, hint, f"dns/{zone}")


def exchange_reachable(evidence: Evidence) -> Iterator[Problem]:
    """A declared MX must lead to a host that takes mail: not behind Cloudflare's proxy, and not an alias.

    Cloudflare proxies HTTP only (semantics.md 17); an MX must not name a CNAME (RFC 2181 section 10.3).
    """
    hosts: dict[str, list[Record]] = defaultdict(list)
    for record in evidence.records():
        hosts[record.host].append(record)
    for item in evidence.desired.resources:
        if not (isinstance(item, Record) and item.type == "MX"):
            continue
        for host in hosts.get(str(item.content), ()):
            where = f"dns/{host.zone}/{host.type}/{host.name}"
            if host.type == "CNAME":
                hint = "give it an A or AAAA record of its own, or let the MX name the alias's target"
                yield _refuse(where, f"is an alias, and the MX of {item.zone} names it", hint, item.scope)
            elif host.type in ("A", "AAAA") and host.proxied:
                hint = "set `proxied: false`: Cloudflare's proxy takes no mail"
                yield _refuse(where, f"is proxied, and the MX of {item.zone} points to it", hint, item.scope)


# ----------------------------------------------------------------------------------------------------------- DKIM
def selector_still_signs(evidence: Evidence) -> Iterator[Problem]:
    """A published key stays while the server signs with it, and while that can't be told."""
    seen = evidence.observations.get("stalwart")
    gone = {change.address for change in evidence.plan.changes if change.deletes}
    signing = _signing(evidence)
    for change, record in _unpublished(evidence):
        key = signing.get(record.host)
        if key is not None and key.address not in gone:
            hint = f"remove the key first: `removed: [{key.address}]`, or let it retire with `stage: retiring`"
            yield _refuse(change.address, f"the server still signs with {key.address}", hint, record.scope)
        elif seen is None or not seen.complete:
            hint = "plan again with Stalwart reachable and without --target"
            yield _refuse(change.address, "whether the server still signs with it can't be told", hint, record.scope)
    for change, record in _replaced(evidence):
        key = signing.get(record.host)
        if key is not None and _publishes(record, key) and not _publishes(change.after, key):
            hint = "a new key takes a new selector: `reconciler dkim rotate`; or put public_key right"
            summary = f"would no longer publish the key that the server signs with as {key.address}"
            yield _refuse(change.address, summary, hint, record.scope)


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
    if (evidence.policy.allow_deletes or 0) >= max(len(removals), 1):
        return
    word = f"if the key is compromised: reconciler apply --allow-deletes {len(removals)}"
    signing = _signing(evidence)
    for change, record in removals:
        heirs = list(_heirs(evidence, record))
        for heir in heirs:
            reason = _needed_beside(evidence, record, heir, signing)
            if reason is not None:
                summary, hint = reason
                yield _refuse(change.address, summary, f"{hint}; {word}", record.scope)
        if not heirs and record.host in signing:
            summary = "goes together with its key: mail that it signed and that waits in a queue may fail DKIM"
            hint = "`stage: retiring` keeps it published for a week without signing"
            yield _warn(change.address, summary, hint, record.scope)


def _needed_beside(
    evidence: Evidence, record: Record, heir: Signature, signing: Mapping[str, Signature]
) -> tuple[str, str] | None:
    """Say why the record of a key stays although another is to sign in its place, and what to do; None where it may go.

    The week counts from the day the directory says. It can't be right while the server does not sign as it says.
    """
    waiting = "leave it at `stage: retiring` until then"
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
    seen = publication(_key_record(evidence, heir), evidence.answers)
    if not seen.everywhere:
        return f"stays until {heir.selector}, which took over from it, is published: {seen.words}", "run it again later"
    return None


def _heirs(evidence: Evidence, record: Record) -> Iterator[Signature]:
    """Yield the key that signs for a domain in place of one whose record goes; nothing needs a revoked one."""
    shown = keys.read(str(record.content))
    domain = record.host.partition("._domainkey.")[2]
    if not (shown.sound and shown.public):
        return
    for key in (item for item in evidence.desired.resources if isinstance(item, Signature)):
        if (domain_name(key.domain), key.algorithm) == (domain, shown.tag("k")) and key_name(
            key.selector, key.domain
        ) != record.host:
            yield key


def takes_over_unpublished(evidence: Evidence) -> Iterator[Problem]:
    """A key takes over from another one only when every name server shows its record: mail would be rejected.

    A domain's first key, and one that a recreated volume lost, have nothing to take over from: they only warn.
    """
    for change, key in _put_in_use(evidence):
        record = _key_record(evidence, key)
        where = f"dns/{record.zone}/TXT/{record.name}"
        if _takes_over(evidence, change, key):
            yield from _too_early(evidence, change, key, record)
        elif not _listed(evidence, record):
            summary, hint = f"signs before {where} is visible", "mail sent at once may fail DKIM"
            if record.scope not in _read_zones(evidence):
                summary, hint = f"whether {where} is published could not be seen", "plan again with its zone readable"
            if "cloudflare" not in evidence.observations:
                summary, hint = f"whether {where} is published was not looked at", "plan without --target"
            yield _warn(change.address, summary, hint, "stalwart")


def _too_early(evidence: Evidence, change: Change, key: Signature, record: Record) -> Iterator[Problem]:
    """Refuse a take-over that DNS is not ready for; warn where a week from the day it counts from is too short."""
    seen = publication(record, evidence.answers)
    if not seen.everywhere:
        summary = f"would sign before {record.host} is published: {seen.words}"
        yield _refuse(change.address, summary, _publishing(evidence, change, record, seen), f"dkim/{key.domain}")
    elif key.since is None or evidence.today - key.since > dt.timedelta(days=1):
        hint = f"write `since: {evidence.today}` to both keys: the old one has to stay published for 7 days from now"
        said = f"since {key.since}" if key.since else "nothing of since when"
        yield _warn(change.address, f"takes over today, and the directory says {said}", hint)


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


def _listed(evidence: Evidence, record: Record) -> bool:
    """Whether Cloudflare has a record; one whose zone is not declared is nobody's business here."""
    if record.zone not in {item.zone for item in evidence.desired.resources if isinstance(item, Record)}:
        return True
    records = (live.resource for live in evidence.live if isinstance(live.resource, Record))
    return any((item.host, item.content) == (record.host, record.content) for item in records)


def _read_zones(evidence: Evidence) -> set[str]:
    """Name the zones whose records were seen."""
    seen = evidence.observations.get("cloudflare")
    if seen is None or seen.target in seen.unread:
        return set()
    zones = {item.scope for item in evidence.desired.resources if isinstance(item, Record)}
    return zones - seen.unread


def _key_record(evidence: Evidence, key: Signature) -> Record:
    """Return the record that publishes a key: the declared one, or what it has to be in a zone that is not ours."""
    records = (item for item in evidence.desired.resources if isinstance(item, Record) and item.type == "TXT")
    derived = dkim_record(key.domain, key.domain, key.selector, key.algorithm, key.public_key)
    return next((item for item in records if item.host == key_name(key.selector, key.domain)), derived)


def _takes_over(evidence: Evidence, change: Change, key: Signature) -> bool:
    """Whether another key of its algorithm signs until then: another selector, or the same one with another key.

    Of a key whose removal was never put in force only the name is left: it may be of any algorithm.
    """
    if evidence.plan.lost:
        return False
    before = change.before.resource if change.before else None
    if isinstance(before, Signature) and before.signs and "public_key" in change.fields:
        return True
    return any(
        other.algorithm in (key.algorithm, "")
        and domain_name(other.domain) == domain_name(key.domain)
        and name != key_name(key.selector, key.domain)
        for name, other in _signing(evidence).items()
    )


# ------------------------------------------------------------------------------------------------------- providers
def provider_unpublished(evidence: Evidence) -> Iterator[Problem]:
    """Mail through a provider whose records nobody sees fails DMARC, or is sent under another name (facts.md 2.5)."""
    for service, provider, records in _switches(evidence):
        where, place = f"smtp/{service}", f"smtp.providers.{provider}"
        if not records:
            hint = f"{place} needs a valid `api_key`, or the records as its `dns`"
            yield _warn(where, f"will send through {provider}, and the records that DMARC needs are not known", hint)
        late: dict[str, list[str]] = defaultdict(list)
        for record in records:
            seen = publication(record, evidence.answers)
            if not seen.everywhere:
                late[seen.words].append(f"{record.host} ({record.type})")
        for words, names in late.items():
            summary = f"will send through {provider} before {', '.join(names)} can be seen: {words}"
            hint = f"mail may fail DMARC until then; `standby: true` at {place} publishes ahead"
            yield _warn(where, summary, hint)


def _switches(evidence: Evidence) -> Iterator[tuple[str, str, tuple[Record, ...]]]:
    """Yield service, provider and its records, for every service that a plan gives the host of another provider.

    A provider that needs no records is left out. Another password or login at the same host is no switch.
    """
    logins = {(item.service, login.host, login.provider) for item, login in _logins(evidence)}
    switched = {
        (service, provider)
        for change in evidence.plan.changes
        for service, host, provider in logins
        if isinstance(change.after, Variable) and change.after.service == service and _arrives(change, host)
    }
    for service, provider in sorted(switched):
        if provider in evidence.desired.provided:
            yield service, provider, evidence.desired.provided[provider]


def _arrives(change: Change, host: str) -> bool:
    """Whether a variable is going to name a host that it does not name yet, as far as its value can be seen."""
    before, after = change.fields.get("running", (None, None))
    return host in _seen_text(after) and host not in _seen_text(before)


def _seen_text(value: object) -> str:
    """Return what is not secret of a variable's value."""
    parts = value.parts if isinstance(value, SecretText) else (value,)
    return "".join(part for part in parts if isinstance(part, str))


def questions(evidence: Evidence) -> frozenset[Question]:
    """Return what guards have to know from the authoritative name servers; mostly nothing."""
    heirs = [key for change, key in _put_in_use(evidence) if _takes_over(evidence, change, key)]
    heirs += [heir for _, record in _unpublished(evidence) for heir in _heirs(evidence, record)]
    records = [_key_record(evidence, key) for key in heirs]
    records += [record for _, _, provided in _switches(evidence) for record in provided]
    return frozenset(question(record) for record in records)


# -------------------------------------------------------------------------------------------------------- secrets
def administrator_as_consumer(evidence: Evidence) -> Iterator[Problem]:
    """A service that sends mail must not hold the key to the whole server."""
    admins = [
        item
        for item in evidence.desired.resources
        if isinstance(item, Account) and isinstance(item.roles, tuple) and "admin" in item.roles
    ]
    for item, login in _logins(evidence):
        for admin in admins:
            if _is_login(evidence, login, admin):
                scope = f"smtp/{item.service}"
                hint = "give it an account of its own with `roles: [user]`"
                yield _refuse(scope, f"logs in with the administrator {admin.name}", hint, scope)


def _logins(evidence: Evidence) -> Iterator[tuple[Variable, Login]]:
    for item in evidence.desired.resources:
        if isinstance(item, Variable) and item.login is not None:
            yield item, item.login


def _is_login(evidence: Evidence, login: Login, account: Account) -> bool:
    """Whether a consumer logs in as this account: as the directory says, or by its name at a host of this stack."""
    if login.account is not None:
        return login.account == account.name
    names = (account.name, account.login, *_mail_addresses(account))
    return str(login.username).lower() in names and _at_home(evidence, login.host.lower())


def _at_home(evidence: Evidence, host: str) -> bool:
    """Whether a host is this stack's own mail server: a name of the compose network or in a mail domain of ours."""
    domains = [item.name for item in evidence.desired.resources if isinstance(item, Domain)]
    return "." not in host or any(host == name or host.endswith(f".{name}") for name in domains)


def known_secret(evidence: Evidence) -> Iterator[Problem]:
    """A secret that stands in public code, or that anybody tries first, protects nothing."""
    for item in evidence.desired.resources:
        for ref in _refs(item):
            if ref in evidence.public:
                hint = f"choose a new secret for {ref} and apply again"
                yield _refuse(item.address, f"the secret {ref} is publicly known", hint, item.target)


def _refs(resource: object) -> tuple[SecretRef, ...]:
    values: tuple[object, ...] = ()
    if isinstance(resource, Account):
        values = (resource.password,)
    elif isinstance(resource, Variable):
        values = (resource.running, *resource.candidates)
    elif isinstance(resource, Setting):
        values = (resource.value,)
    return tuple(
        ref
        for value in values
        for ref in ((value,) if isinstance(value, SecretRef) else value.refs if isinstance(value, SecretText) else ())
    )


def everyone_allowed(evidence: Evidence) -> Iterator[Problem]:
    """Allowing the whole Internet switches the ban off for everybody."""
    for item in evidence.desired.resources:
        if isinstance(item, AllowedIp) and item.network.endswith("/0"):
            yield _warn(item.address, "allows every address: nobody is ever banned", "name your own networks")


GUARDS: tuple[Callable[[Evidence], Iterator[Problem]], ...] = (
    nothing_desired,
    too_many_deletions,
    zone_collapses,
    domain_in_use,
    address_taken,
    account_goes,
    second_policy,
    exchange_reachable,
    selector_still_signs,
    selector_still_needed,
    takes_over_unpublished,
    provider_unpublished,
    administrator_as_consumer,
    known_secret,
    everyone_allowed,
)
