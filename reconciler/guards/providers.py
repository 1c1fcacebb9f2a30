"""Providers that mail is about to be sent through."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from reconciler.dns.publication import publication
from reconciler.guards.evidence import Evidence, warn
from reconciler.plan import Change
from reconciler.problem import Problem
from reconciler.resources import Record, SecretText, Variable


def provider_unpublished(evidence: Evidence) -> Iterator[Problem]:
    """Mail through a provider whose records nobody sees fails DMARC, or is sent under another name (facts.md 2.5)."""
    for service, provider, records in _switches(evidence):
        where, place = f"smtp/{service}", f"smtp.providers.{provider}"
        if not records:
            hint = f"{place} needs a valid `api_key`, or the records as its `dns`"
            yield warn(where, f"will send through {provider}, and the records that DMARC needs are not known", hint)
        late: dict[str, list[str]] = defaultdict(list)
        for record in records:
            seen = publication(record, evidence.answers)
            if not seen.everywhere:
                late[seen.words].append(f"{record.host} ({record.type})")
        for words, names in late.items():
            summary = f"will send through {provider} before {', '.join(names)} can be seen: {words}"
            hint = f"mail may fail DMARC until then; `standby: true` at {place} publishes ahead"
            yield warn(where, summary, hint)


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
