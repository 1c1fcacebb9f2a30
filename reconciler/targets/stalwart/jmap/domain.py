"""Domains of Stalwart from 0.16: made manual in everything, as keys and records are ours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from reconciler.desired.objects import TYPE
from reconciler.problem import Problem, Severity
from reconciler.resources import Domain, Live, Signature
from reconciler.target import Change
from reconciler.targets.stalwart.jmap.api import Kind
from reconciler.targets.stalwart.jmap.kind import MANUAL, Raw, Reading, ResourceKind
from reconciler.targets.stalwart.jmap.writes import Write
from reconciler.targets.stalwart.survey import Omissions, fit

_TWO_WRITERS = {"dkimManagement": "keys", "dnsManagement": "DNS records"}
_PLAIN: Raw = {
    "aliases": {},
    "isEnabled": True,
    "description": None,
    "catchAllAddress": None,
    "allowRelaying": False,
    "subAddressing": {TYPE: "Enabled"},
    "certificateManagement": MANUAL,
}
"""What a domain has that was only made; anything else can't be declared."""


class DomainKind(ResourceKind):
    """Domains. An update names only what differs."""

    resource = Domain
    objects = (Kind("Domain", properties=("name", "aliases", *_TWO_WRITERS)),)  # not its zone file, which is computed
    surveyed = (Kind("Domain", properties=tuple(_PLAIN)),)

    def live(self, reading: Reading) -> Iterator[Live]:
        """Yield all domains."""
        wanted = {item.name: item for item in reading.of(Domain)}
        own_keys = {item.domain for item in reading.of(Signature) if item.private_key}
        for item in reading.items("Domain"):
            resource = Domain(str(item["name"]), manual=not any(_automatic(item)))
            if resource.name in wanted and wanted[resource.name].manual is not True:
                _check_writers(resource, item, reading, own=resource.name in own_keys)
            for name in sorted(wanted.keys() & set(map(str.lower, item.get("aliases") or {}))):
                summary = f"is an alias of {resource.name} on the server, and can't be a domain of its own"
                hint = "take the alias away there"
                reading.report(Problem(f"domain/{name}", summary, hint, scope=f"domain/{name}"))
            yield Live(resource, id=str(item["id"]), detail=item)

    def writes(self, changes: Sequence[Change], reading: Reading) -> Iterator[Write]:
        """Create, destroy, or take over from the server (traps.md 27 and 28)."""
        for change in changes:
            after, before = change.after, change.before
            if isinstance(after, Domain) and before is None:
                body = {"name": after.name, **dict.fromkeys((*_TWO_WRITERS, "certificateManagement"), MANUAL)}
                yield Write("Domain", "create", reading.ids.make_domain(after.name), body, (change,))
            elif before is not None and after is None:
                yield Write("Domain", "destroy", before.id, changes=(change,))
            elif before is not None and (body := dict.fromkeys(_automatic(before.detail), MANUAL)):
                yield Write("Domain", "update", before.id, body, (change,))

    def survey(self, reading: Reading, live: Sequence[Live], out: Omissions) -> Iterator[Live]:
        """Note what else a domain has."""
        for item in reading.items("Domain"):
            name = str(item.get("name"))
            out.options(name, item, _PLAIN)
            if found := list(_automatic(item)):
                what = " and ".join(_TWO_WRITERS[key] for key in found)
                hint = f"`adopt: [domain/{name}]` makes it Manual: the keys and records stay as they are, and are ours"
                out.note(name, f"the server manages its {what} by itself, and a plan says so", hint)
        return fit(live, "jmap", out)


def _automatic(item: Raw) -> Iterator[str]:
    """Yield the properties by which the server manages a domain itself."""
    for name in _TWO_WRITERS:
        if (item.get(name) or MANUAL).get(TYPE) != "Manual":
            yield name


def _check_writers(domain: Domain, item: Raw, reading: Reading, *, own: bool) -> None:
    """Report a wanted domain whose keys or DNS the server manages itself (traps.md 27 and 28).

    It never replaces a key while DNS is not its own (jmap-0.16.md section 3): without keys of our ``own`` only a
    warning.
    """
    found = list(_automatic(item))
    if not found:
        return
    what = " and ".join(_TWO_WRITERS[name] for name in found)
    alone = found == ["dkimManagement"] and not own
    summary = f"the server manages its {what} by itself ({', '.join(found)} is Automatic)"
    summary += "" if alone else ": two writers"
    hint = (
        f"write `adopt: [{domain.address}]`, or `--adopt {domain.address}`: apply then sets it to Manual, and the "
        "keys and records stay as they are"
    )
    severity = Severity.WARNING if alone else Severity.ERROR
    reading.report(Problem(domain.address, summary, hint, severity, "" if alone else domain.address))
