"""Records that receivers of mail could not use."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from reconciler.dns.records import policy
from reconciler.dns.text import DKIM
from reconciler.guards.evidence import Evidence, refuse, warn
from reconciler.problem import Problem
from reconciler.resources import Record


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
            yield warn(address, summary.replace("would be", "are"), "delete the one that is wrong at Cloudflare")
        else:
            hint = "delete the other one at Cloudflare, or merge both into the one you declare"
            yield refuse(address, summary, hint, f"dns/{zone}")


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
                yield refuse(where, f"is an alias, and the MX of {item.zone} names it", hint, item.scope)
            elif host.type in ("A", "AAAA") and host.proxied:
                hint = "set `proxied: false`: Cloudflare's proxy takes no mail"
                yield refuse(where, f"is proxied, and the MX of {item.zone} points to it", hint, item.scope)
