"""The records that both programs are given: the same ones, a fifth of each of five types, in the YAML of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ZONE = "bench.example"
TOKEN = "0123456789abcdefghijklmnopqrstuvwxyzABCD"  # opens nothing but the fake
STACK = "bench"
MARK = f"reconciler:{STACK}"
TTL = 300  # seconds; octoDNS writes an automatic one in words of its own


@dataclass(frozen=True, slots=True)
class Sample:
    """One record. ``value`` is a host without its last dot, an address, or plain text."""

    type: str
    name: str
    value: str
    priority: int | None = None


def samples(size: int, *, changed: bool = False) -> Iterator[Sample]:
    """Make ``size`` records; with ``changed`` the first one has another address."""
    for number in range(size):
        name = f"host{number}"
        match number % 5:
            case 0:
                address = f"192.0.{number // 250 % 250}.{number % 250}"
                yield Sample("A", name, "198.51.100.1" if changed and not number else address)
            case 1:
                yield Sample("AAAA", name, f"2001:db8::{number:x}")
            case 2:
                yield Sample("CNAME", name, f"target{number}.example.net")
            case 3:
                yield Sample("TXT", name, f"verification={number:032x}")
            case _:
                yield Sample("MX", name, "mail.example.net", priority=10)


def zones_of(size: int) -> list[str]:
    """Name so many zones."""
    return [f"zone{number}.example.org" for number in range(size)]


def write_reconciler(state: Path, records: Iterator[Sample]) -> None:
    """Write a directory of desired state with Cloudflare alone. A zone stands in one file: 10,000 are 0.8 MiB."""
    state.mkdir(parents=True)
    targets = "{cloudflare: {token: {env: CLOUDFLARE_API_TOKEN}}}"
    (state / "reconciler.yaml").write_text(f"version: 1\nstack: {STACK}\ntargets: {targets}\n")
    with (state / "dns.yaml").open("w") as file:
        file.write(f"dns:\n  {ZONE}:\n")
        for record in records:
            priority = "" if record.priority is None else f", priority: {record.priority}"
            value = f'"{record.value}"'
            file.write(f"    - {{type: {record.type}, name: {record.name}, content: {value}, ttl: {TTL}{priority}}}\n")


def write_accounts(state: Path, size: int) -> None:
    """Write a directory of desired state with Stalwart alone, its administrator, and so many accounts."""
    state.mkdir(parents=True)
    target = (
        '{url: "http://localhost", username: admin, password: {env: STALWART_ADMIN_PASSWORD}, '
        "recovery: {env: STALWART_RECOVERY_ADMIN}, container: mana-mail}"
    )
    (state / "reconciler.yaml").write_text(f"version: 1\nstack: {STACK}\ntargets: {{stalwart: {target}}}\n")
    with (state / "accounts.yaml").open("w") as file:
        file.write("accounts:\n  admin: {roles: [admin], password: {env: STALWART_ADMIN_PASSWORD}}\n")
        for number in range(size):
            file.write(f"  user{number}@mana.how: {{password: {{env: NOREPLY_PASSWORD}}}}\n")


def write_octodns(directory: Path, records: Iterator[Sample], url: str, per_page: int) -> None:
    """Write octoDNS's configuration and zone file, with what makes it fastest.

    Its pages as large as Cloudflare's (``per_page``), no page rules, the zone file's order not checked.
    """
    directory.mkdir(parents=True)
    (directory / "config.yaml").write_text(
        "providers:\n"
        f"  config: {{class: octodns.provider.yaml.YamlProvider, directory: {directory}, enforce_order: false}}\n"
        "  cloudflare:\n"
        "    class: octodns_cloudflare.CloudflareProvider\n"
        f"    token: {TOKEN}\n"
        f"    api_url: {url}/client/v4\n"
        "    min_ttl: 60\n"
        "    pagerules: false\n"
        f"    records_per_page: {per_page}\n"
        f"zones:\n  {ZONE}.: {{sources: [config], targets: [cloudflare]}}\n"
    )
    with (directory / f"{ZONE}.yaml").open("w") as file:
        for record in records:
            host = f"{record.value}." if record.type in ("CNAME", "MX") else record.value
            value = f'"{host}"'
            if record.priority is not None:
                value = f"{{exchange: {value}, preference: {record.priority}}}"
            file.write(f"{record.name}: {{type: {record.type}, ttl: {TTL}, value: {value}}}\n")
