"""From an address to the place in the YAML that declares it, or that it derives from."""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.address import Address
from reconciler.desired.load import Directory
from reconciler.desired.spec import Spec
from reconciler.dns.names import relative

Path = tuple[str | int, ...]


def place(directory: Directory, address: str) -> str:
    """Name file and line, of several candidates all; empty where the directory says nothing of that address."""
    found = [directory.places.of(*path) for path in dict.fromkeys(_paths(directory.spec, address))]
    return ", ".join(dict.fromkeys(str(item) for item in found if item is not None))


def _paths(spec: Spec, address: str) -> Iterator[Path]:
    named = Address.parse(address)
    match named.kind, named.parts:
        case "account" | "group" | "list" as kind, [name]:
            yield f"{kind}s", name
        case "domain", [name]:
            yield from _domain(spec, name)
        case "dkim", [domain, selector]:
            yield from _key(spec, domain, selector)
        case "dns", [zone, type, name]:
            yield from _record(spec, zone, type, name)
        case "smtp", [service, name]:
            yield from _variable(spec, service, name)
        case "stalwart", ["allowed_ips", *_]:  # a network is an entry of a list
            yield "stalwart", "allowed_ips"
        case "stalwart", words:
            yield ("stalwart", *words)


def _domain(spec: Spec, name: str) -> Iterator[Path]:
    """A domain follows from what is at home in it: its entry, the setting, the first account, group, list, or a key."""
    if name in spec.domains:
        yield "domains", name
    if spec.stalwart.default_domain == name:
        yield "stalwart", "default_domain"
    homes = [("accounts", key) for key in spec.accounts]
    homes += [("groups", key) for key in spec.groups] + [("lists", key) for key in spec.lists]
    yield from [home for home in homes if home[1].endswith(f"@{name}")][:1]
    if name in spec.dkim:
        yield "dkim", name


def _key(spec: Spec, domain: str, selector: str) -> Iterator[Path]:
    for index, key in enumerate(spec.dkim.get(domain, ())):
        if key.selector == selector:
            yield "dkim", domain, index


def _record(spec: Spec, zone: str, type: str, name: str) -> Iterator[Path]:
    for index, record in enumerate(spec.dns.get(zone, ())):
        if record.type.upper() == type and relative(record.name, zone) == name:
            yield "dns", zone, index
    for label, provider in spec.smtp.providers.items():
        for index, record in enumerate(provider.dns.get(zone, ())):
            if record.type.upper() == type and relative(record.name, zone) == name:
                yield "smtp", "providers", label, "dns", zone, index
    selector, dkim, below = name.partition("._domainkey")
    if dkim:
        yield from _key(spec, f"{below.strip('.')}.{zone}".lstrip("."), selector)


def _variable(spec: Spec, service: str, name: str) -> Iterator[Path]:
    if service in spec.smtp.consumers and name in spec.smtp.consumers[service].env:
        yield "smtp", "consumers", service, "env", name
    for index, link in enumerate(spec.smtp.links):
        if f"{service}.{name}" in link.ends:
            yield "smtp", "links", index
