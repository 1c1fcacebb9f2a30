"""Domains of Stalwart from 0.16: what they say of themselves, and that keys and records are ours."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any

from reconciler.desired.objects import TYPE
from reconciler.names import domain_name, is_name
from reconciler.problem import Problem, Severity
from reconciler.resources import UNMANAGED, Domain, Live, Signature
from reconciler.target import Change
from reconciler.targets.stalwart.jmap.api import Selection
from reconciler.targets.stalwart.jmap.batch import LATE, RELEASE, Write
from reconciler.targets.stalwart.jmap.kind import MANUAL, Raw, Reading, ResourceKind
from reconciler.targets.stalwart.survey import Omissions, fit

_TWO_WRITERS = {"dkimManagement": "keys", "dnsManagement": "DNS records"}
_SAID = {"description": "description", "catch_all": "catchAllAddress", "sub_addressing": "subAddressing"}
_SUB_ADDRESSING = {"Enabled": True, "Disabled": False}
_PLAIN: Raw = {"isEnabled": True, "allowRelaying": False, "certificateManagement": MANUAL}
"""What a domain has that was only made; anything else can't be declared."""


class DomainKind(ResourceKind):
    """Domains. An update names only what differs."""

    resource, unique = Domain, "a name is one domain's, or the alias of one: remove it there first"
    objects = (
        Selection("Domain", properties=("name", "aliases", *_SAID.values(), *_TWO_WRITERS)),
    )  # not its zone file, which is computed
    surveyed = (Selection("Domain", properties=tuple(_PLAIN)),)

    def live(self, reading: Reading) -> Iterator[Live]:
        """Yield all domains."""
        wanted = {item.name: item for item in reading.of(Domain)}
        own_keys = {item.domain for item in reading.of(Signature) if item.private_key}
        for item in reading.items("Domain"):
            resource = _domain(item)
            ours = wanted.get(resource.name)
            if ours and ours.manual is not True:
                _check_writers(resource, item, reading, own=resource.name in own_keys)
            held = ours.aliases if ours and isinstance(ours.aliases, tuple) else resource.aliases
            _check_names(resource, _names(held) & _names(resource.aliases), reading)
            yield Live(resource, id=str(item["id"]), detail=item)

    def writes(self, changes: Sequence[Change], reading: Reading) -> Iterator[Write]:
        """Create, destroy, change, or take over from the server (traps.md 27 and 28).

        A name has one owner: aliases are given up before others take them, and one that was a domain itself is taken
        when that has gone.
        """
        gone = {change.resource.address for change in changes if change.after is None}
        for change in changes:
            after, before = change.after, change.before
            if not isinstance(after, Domain):
                yield Write("Domain", "destroy", before.id if before else "", changes=(change,))
                continue
            held = _names(getattr(before.resource, "aliases", ())) if before else frozenset()
            wanted = _names(after.aliases) if "aliases" in change.fields else held
            body = _body(change, after)
            unsaid = {it for it in before.detail.get("aliases") or () if not is_name(it)} if before else set()
            taken = {"aliases": dict.fromkeys(sorted(wanted | unsaid), True)} if wanted - held else {}
            if before is None:
                managed = dict.fromkeys((*_TWO_WRITERS, "certificateManagement"), MANUAL)
                body = {"name": after.name, **managed, **body, **taken}
                yield Write("Domain", "create", reading.ids.make_domain(after.name), body, (change,))
                continue
            if held - wanted:
                kept = dict.fromkeys(sorted((held & wanted) | unsaid), True)
                yield Write("Domain", "update", before.id, {"aliases": kept}, (change,), RELEASE)
            if body := body | dict.fromkeys(_automatic(before.detail), MANUAL):
                yield Write("Domain", "update", before.id, body, (change,))
            if taken:
                rank = LATE if any(f"domain/{name}" in gone for name in wanted) else 0
                yield Write("Domain", "update", before.id, taken, (change,), rank)

    def survey(self, reading: Reading, live: Sequence[Live], out: Omissions) -> Iterator[Live]:
        """Note what else a domain has."""
        for item in reading.items("Domain"):
            name = str(item.get("name"))
            out.options(name, item, _PLAIN)
            for alias in sorted(it for it in item.get("aliases") or () if not is_name(it)):
                hint = "change it on the server, or leave it: nothing touches it, and a restore does not know it"
                out.note(f"domain/{name}", f"its aliases can't be declared (is no domain name): {alias[:80]!r}", hint)
            if (item.get("subAddressing") or {}).get(TYPE) == "Custom":
                out.note(name, "its subAddressing is a rule, which can't be declared", "set it again on a new server")
            if found := list(_automatic(item)):
                what = " and ".join(_TWO_WRITERS[key] for key in found)
                hint = f"`adopt: [domain/{name}]` makes it Manual: the keys and records stay as they are, and are ours"
                out.note(name, f"the server manages its {what} by itself, and a plan says so", hint)
        for fitting in fit(live, "jmap", out):
            domain = fitting.resource
            if isinstance(domain, Domain):
                how = UNMANAGED if domain.sub_addressing is None else domain.sub_addressing
                domain = replace(domain, sub_addressing=how, aliases=domain.aliases or UNMANAGED)
            yield replace(fitting, resource=domain)


def _domain(item: Raw) -> Domain:
    """Return a domain as it is; sub-addressing by a rule of its own is neither on nor off."""
    return Domain(
        str(item["name"]),
        manual=not any(_automatic(item)),
        description=item.get("description") or None,
        catch_all=item.get("catchAllAddress") or None,
        aliases=tuple({domain_name(alias) for alias in item.get("aliases") or () if is_name(alias)}),
        sub_addressing=_SUB_ADDRESSING.get((item.get("subAddressing") or {}).get(TYPE, "Enabled")),
    )


def _body(change: Change, domain: Domain) -> dict[str, Any]:
    """Return what differs of a domain and refers to nothing; what a new one has by itself is not said."""
    values: dict[str, Any] = {
        "description": domain.description or None,  # an empty text is invalid
        "catchAllAddress": domain.catch_all,
        "subAddressing": {TYPE: "Enabled" if domain.sub_addressing else "Disabled"},
    }
    body = {theirs: values[theirs] for ours, theirs in _SAID.items() if ours in change.fields}
    return {name: value for name, value in body.items() if change.before or value is not None}


def _names(aliases: Any) -> frozenset[str]:
    """Return the aliases of a domain as far as they are managed."""
    return frozenset(aliases) if isinstance(aliases, tuple) else frozenset()


def _check_names(domain: Domain, aliases: Collection[str], reading: Reading) -> None:
    """Report a name that is wanted elsewhere and is an alias of a domain, which keeps it."""
    for other in reading.of(Domain):
        if other.name != domain.name:
            for name in sorted({other.name, *_names(other.aliases)} & set(aliases)):
                own = "a domain of its own" if name == other.name else f"one of {other.name}"
                summary = f"{name} is an alias of {domain.name} on the server, and can't be {own}"
                hint = f"take it away there: declare the other aliases of {domain.name}, or `aliases: []`"
                reading.report(Problem(other.address, summary, hint, scope=other.address))


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
