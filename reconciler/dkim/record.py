"""The record that publishes a DKIM key. Pure; `reconciler.keys` reads what it says."""

from __future__ import annotations

from reconciler.dns.names import key_name
from reconciler.dns.records import record
from reconciler.resources import UNKNOWN, Record, Special


def dkim_record(zone: str, domain: str, selector: str, algorithm: str, public_key: str | Special) -> Record:
    """Derive the record that publishes a DKIM key (RFC 6376 section 3.6.1, RFC 8463 section 4).

    ``zone`` may be a parent of ``domain``; ``public_key`` is as `keys.public_key` gives it, or UNKNOWN. Raises
    ValueError where the domain lies outside the zone.
    """
    content: str | Special = UNKNOWN
    if isinstance(public_key, str):
        content = f"v=DKIM1; k={algorithm}; h=sha256; p={public_key}"
    return record(zone, "TXT", f"{key_name(selector, domain)}.", content)
