"""Records that receivers of mail could not use, or miss."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from reconciler.dns.policies import lint
from reconciler.dns.publication import Answers, publication
from reconciler.dns.records import answering, leads_nowhere, mail_host, policy, undelegated
from reconciler.dns.text import DKIM
from reconciler.guards.evidence import Evidence, refuse, warn
from reconciler.problem import Problem
from reconciler.resources import Record, SecretText, Variable
from reconciler.target import Change


def second_policy(evidence: Evidence) -> Iterator[Problem]:
    """Two SPF, DMARC or other policies at one name are an error to every receiver (`reconciler.dns.text`)."""
    names: dict[tuple[str, str, str], list[Record]] = defaultdict(list)
    for record in evidence.records:
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
            yield warn(address, summary.replace("would be", "are"), "delete the one that is wrong at Cloudflare")
        else:
            hint = "delete the other one at Cloudflare, or merge both into the one you declare"
            yield refuse(address, summary, hint, f"dns/{zone}")


def unreadable_policy(evidence: Evidence) -> Iterator[Problem]:
    """A declared SPF, DMARC or other policy that receivers can't read as it is meant (`reconciler.dns.policies`)."""
    records = [item for item in evidence.desired.resources if isinstance(item, Record)]
    led_to = lint.aliases(records)
    for item in records:
        for found in lint.of_record(item, led_to):
            yield warn(item.address, found.summary, found.hint)


def exchange_reachable(evidence: Evidence) -> Iterator[Problem]:
    """A declared MX must lead to a host that takes mail: not behind Cloudflare's proxy, and not an alias.

    Cloudflare proxies HTTP only (semantics.md 17); an MX must not name a CNAME (RFC 2181 section 10.3).
    """
    for item in evidence.desired.resources:
        if not (isinstance(item, Record) and item.type == "MX"):
            continue
        for host in answering(evidence.hosts, str(item.content)):
            where = f"dns/{host.zone}/{host.type}/{host.name}"
            if host.type == "CNAME" and host.name != "@":  # the zone's own is flattened: addresses are what is seen
                hint = "give it an A or AAAA record of its own, or let the MX name the alias's target"
                yield refuse(where, f"is an alias, and the MX of {item.zone} names it", hint, item.scope)
            elif host.type in ("A", "AAAA") and host.proxied:
                hint = "set `proxied: false`: Cloudflare's proxy takes no mail"
                yield refuse(where, f"is proxied, and the MX of {item.zone} points to it", hint, item.scope)


def service_reachable(evidence: Evidence) -> Iterator[Problem]:
    """A declared SRV leads to a port that Cloudflare's proxy does not serve (semantics.md 17)."""
    for item in evidence.desired.resources:
        if isinstance(item, Record) and item.type == "SRV":
            target = str(dict(item.data or ()).get("target"))
            if any(host.proxied for host in answering(evidence.hosts, target)):
                hint = "set `proxied: false` there: Cloudflare's proxy serves nothing but HTTP"
                yield warn(item.address, f"leads to {target}, which is proxied", hint)


def host_missing(evidence: Evidence) -> Iterator[Problem]:
    """A declared MX or SRV that names a host of a zone of ours where no address is, declared or live."""
    zones = {item.zone for item in evidence.records}
    zones = {zone for zone in zones if not {f"dns/{zone}", Record.target} & evidence.plan.unread}
    for item in evidence.desired.resources:
        if isinstance(item, Record) and (target := mail_host(item)) and leads_nowhere(evidence.hosts, zones, target):
            yield warn(
                item.address, f"leads to {target}, which has no address", f"add an A or AAAA record for {target}"
            )


def delegation_missing(evidence: Evidence) -> Iterator[Problem]:
    """A DS needs NS at its name: Cloudflare makes none without, and takes none away from under one."""
    for item in evidence.records:
        if undelegated(evidence.hosts, item) and not {item.scope, item.target} & evidence.plan.unread:
            hint = "declare the NS of that name, or take the DS away, at Cloudflare where it is not declared"
            yield refuse(
                item.address, "would have no NS beside it, and Cloudflare allows no DS without", hint, item.scope
            )


def provider_unpublished(evidence: Evidence) -> Iterator[Problem]:
    """Mail through a provider whose records nobody sees fails DMARC, or is sent under another name (facts.md 2.5)."""
    for service, provider, records in _switches(evidence):
        where, place = f"smtp/{service}", f"smtp.providers.{provider}"
        if not records:
            hint = f"{place} needs a valid `api_key`, or the records as its `dns`"
            yield warn(where, f"will send through {provider}, and the records that DMARC needs are not known", hint)
        for words, names in unpublished(records, evidence.answers).items():
            summary = f"will send through {provider} before {', '.join(names)} can be seen: {words}"
            hint = f"mail may fail DMARC until then; `standby: true` at {place} publishes ahead"
            yield warn(where, summary, hint)


def unpublished(records: Iterable[Record], answers: Answers) -> Mapping[str, Sequence[str]]:
    """Return the records that not every name server shows, by what keeps them from it."""
    late: dict[str, list[str]] = defaultdict(list)
    for record in records:
        seen = publication(record, answers)
        if not seen.everywhere:
            late[seen.words].append(f"{record.host} ({record.type})")
    return late


def _switches(evidence: Evidence) -> Iterator[tuple[str, str, tuple[Record, ...]]]:
    """Yield service, provider and its records, for every service that a plan gives the host of another provider.

    A provider that needs no records is left out. Another password or login at the same host is no switch.
    """
    logins = {(item.service, login.host, login.provider) for item, login in evidence.logins()}
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


def asked(evidence: Evidence) -> Iterator[Record]:
    """Yield the records of which these guards have to know whether every name server shows them."""
    yield from (record for _, _, provided in _switches(evidence) for record in provided)
