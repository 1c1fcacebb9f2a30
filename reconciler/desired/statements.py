"""What a directory says beside its resources: where the systems are, how far to go, who delivers, what to let go. Pure.

A statement is no resource: nothing live is compared with it. It decides what becomes of resources, so whoever reads
what changes between two directories has to see it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from reconciler.address import Address
from reconciler.desired import objects
from reconciler.desired.spec import Spec
from reconciler.desired.spec.scalars import Model
from reconciler.desired.spec.stalwart import NetworkEntry
from reconciler.desired.words import Choice
from reconciler.desired.yaml import Path
from reconciler.names import host
from reconciler.plan import Desired
from reconciler.resources import SECRET_FILES, UNKNOWN, Record, Signature, Variable


@dataclass(frozen=True, slots=True)
class Statement:
    """One thing that is said: ``address`` as in the YAML, or that of the resource it decides about.

    ``kind`` is the key at the top of the file, ``target`` the system that it matters to, where that is one. ``path``
    leads to it; the names in ``values`` are the steps from there, with dots between.
    """

    address: str
    kind: str
    target: str | None
    path: Path
    values: Mapping[str, Any] = field(default_factory=dict)


def told(desired: Desired) -> Iterator[str]:
    """Name what resources tell all about: providers whose records are published, and variables whose value is known."""
    yield from (f"smtp.providers.{name}" for name in desired.provided)
    variables = (item for item in desired.resources if isinstance(item, Variable))
    yield from (item.address for item in variables if item.configured is not UNKNOWN or item.candidates)


def statements(spec: Spec, told: Collection[str]) -> Iterator[Statement]:
    """Yield what a directory says, without what is ``told`` elsewhere."""
    yield Statement("stack", "stack", None, (), {"stack": spec.stack})
    yield from _targets(spec)
    yield Statement("policy", "policy", None, ("policy",), _said(spec.policy))
    notices = tuple(sorted(spec.daemon.notices, key=str))
    yield Statement("daemon", "daemon", None, ("daemon",), _said(spec.daemon) | {"notices": notices})
    if spec.router is not None:
        forwards = tuple(sorted(spec.router.forwards))
        yield Statement("router", "router", None, ("router",), _said(spec.router) | {"forwards": forwards})
    yield from _zones(spec)
    yield from _keys(spec)
    yield from _server(spec)
    yield from _smtp(spec, told)
    for name in ("removed", "adopt"):
        for index, address in enumerate(getattr(spec, name)):
            yield Statement(f"{name}[{address}]", name, Address.parse(address).target, (name, index))
    for index, move in enumerate(spec.moved):
        target = Address.parse(move.source).target
        yield Statement(f"moved[{move.source}]", "moved", target, ("moved", index), {"to": move.target})


def _said(model: Model, *without: str) -> dict[str, Any]:
    """Return a model's values by their names, those of a model in it with a dot between."""
    found: dict[str, Any] = {}
    for name, value in model:
        if name in without:
            continue
        if isinstance(value, Model):
            found |= {f"{name}.{inner}": item for inner, item in _said(value).items()}
        else:
            found[name] = value
    return found


def _targets(spec: Spec) -> Iterator[Statement]:
    targets = spec.targets
    for name in ("stalwart", "compose"):
        if (target := getattr(targets, name)) is not None:
            yield Statement(f"targets.{name}", "targets", name, ("targets", name), _said(target))
    tokens = [item.token for item in targets.cloudflare]
    for index, item in enumerate(targets.cloudflare):
        zones = tuple(sorted(map(host, item.zones))) if item.zones is not None else None
        more = f" {' '.join(zones or ())}" if tokens.count(item.token) > 1 else ""
        name = f"targets.cloudflare[{item.token}{more}]"
        path = ("targets", "cloudflare", index)
        yield Statement(name, "targets", "cloudflare", path, _said(item) | {"zones": zones})


def _zones(spec: Spec) -> Iterator[Statement]:
    """A zone that is declared, with or without records: in any other one nothing goes because it is absent."""
    for zone in spec.dns if spec.targets.cloudflare else ():
        yield Statement(f"dns/{host(zone)}", "dns", Record.target, ("dns", zone))


def _keys(spec: Spec) -> Iterator[Statement]:
    """A DKIM key with its stage, which decides whether it is published and whether it signs."""
    target = Signature.target if spec.targets.stalwart else Record.target
    for domain, keys in spec.dkim.items():
        for index, key in enumerate(keys):
            name = f"dkim/{host(domain)}/{key.selector}"
            yield Statement(name, "dkim", target, ("dkim", domain, index), _said(key, "selector"))


def _server(spec: Spec) -> Iterator[Statement]:
    """What is known of the mail server only with the systems at hand: a network's subnets, and how it is set up."""
    if spec.targets.stalwart is None:
        return
    for index, entry in enumerate(spec.stalwart.allowed_ips):
        if isinstance(entry, NetworkEntry):
            name = f"stalwart/allowed_ips/{entry.network}"
            yield Statement(name, "stalwart", "stalwart", ("stalwart", "allowed_ips", index))
    for entry_name, fields in spec.stalwart.objects.get(objects.BOOTSTRAP, {}).items():
        path = ("stalwart", "objects", objects.BOOTSTRAP, entry_name)
        yield Statement(f"stalwart/objects/{objects.BOOTSTRAP}", "stalwart", "stalwart", path, fields)


def _smtp(spec: Spec, told: Collection[str]) -> Iterator[Statement]:
    smtp = spec.smtp
    own = _said(smtp, "providers", "consumers", "links", "failover")
    if smtp.failover is not None:
        own |= {f"failover.{name}": value for name, value in _said(smtp.failover).items()}
    yield Statement("smtp", "smtp", "compose", ("smtp",), own)
    for name, provider in smtp.providers.items():
        values = _said(provider, "dns")
        if f"smtp.providers.{name}" not in told:
            values["dns"] = _entries(provider.dns)
        yield Statement(f"smtp.providers.{name}", "smtp", "compose", ("smtp", "providers", name), values)
    for service, consumer in smtp.consumers.items():
        given = {f"env.{name}": (name, it) for name, it in consumer.env.items()}
        given |= {f"{SECRET_FILES}{name}": (f"{SECRET_FILES}{name}", it) for name, it in consumer.secrets.items()}
        said = {
            key: str(it) if isinstance(it, Choice) else it
            for key, (name, it) in given.items()
            if f"smtp/{service}/{name}" not in told
        }
        values = {"app": consumer.app, "provider": consumer.provider, **said}
        yield Statement(f"smtp.consumers.{service}", "smtp", "compose", ("smtp", "consumers", service), values)
    for index, link in enumerate(smtp.links):
        checked = _said(link.check) if link.check is not None else {}
        if link.value is None or checked:
            name = f"smtp.links[{' '.join(sorted(link.ends))}]"
            yield Statement(name, "smtp", "compose", ("smtp", "links", index), checked)


def _entries(zones: Mapping[str, Collection[Model]]) -> tuple[str, ...]:
    """Return a line for each record of a provider that is not published."""
    said = ((host(zone), entry) for zone, entries in zones.items() for entry in entries)
    return tuple(sorted(" ".join([zone, *_words(entry)]) for zone, entry in said))


def _words(entry: Model) -> Iterator[str]:
    yield from (f"{name}={value}" for name, value in entry if value not in (None, False, "auto"))
