"""Where a DKIM key is published, and the record that publishes it. Pure; `reconciler.keys` reads what it says."""

from __future__ import annotations

from reconciler.dns.names import host
from reconciler.dns.records import record
from reconciler.resources import UNKNOWN, Record, Special


def domain_name(domain: str) -> str:
    """Return a key's domain as DNS has it. What is no name is in lower case: a server stores what it was given."""
    try:
        return host(domain)
    except ValueError:
        return domain.lower()


def name(selector: str, domain: str) -> str:
    """Return the full name of the record that publishes a key (RFC 6376 section 3.6.2.1)."""
    return f"{selector.lower()}._domainkey.{domain_name(domain)}"


def dkim_record(zone: str, domain: str, selector: str, algorithm: str, public_key: str | Special) -> Record:
    """Derive the record that publishes a DKIM key (RFC 6376 section 3.6.1, RFC 8463 section 4).

    ``zone`` may be a parent of ``domain``; ``public_key`` is as `keys.public_key` gives it, or UNKNOWN. Raises
    ValueError where the domain lies outside the zone.
    """
    content: str | Special = UNKNOWN
    if isinstance(public_key, str):
        content = f"v=DKIM1; k={algorithm}; h=sha256; p={public_key}"
    return record(zone, "TXT", f"{name(selector, domain)}.", content)
