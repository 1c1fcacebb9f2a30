"""Listings, whole or not at all: zones by their names, and the records of a zone."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from reconciler.dns.records import AUTO_TTL, owner, record
from reconciler.names import host
from reconciler.resources import Live, Record, SecretRef
from reconciler.targets.cloudflare.transport import Session, Torn

_PAGE = 5000  # records; the most that is served
_ZONES_PAGE = 50
READ_ZONES = "Zone → Zone → Read"
READ_RECORDS = "Zone → DNS → Read (Edit, to apply)"


@dataclass(frozen=True, slots=True)
class Zone:
    """A zone that was found: which token reaches it, and the id it has."""

    name: str
    ref: SecretRef
    id: str
    status: str


def find(wanted: tuple[Session, list[str]]) -> dict[str, Zone]:
    """Look zones up with one token: one by its name, several in the listing of all. Raises `Failure`."""
    session, names = wanted
    if len(names) == 1:
        items, *_ = _items(session.get("/zones", {"name": names[0]}, READ_ZONES), "the listing of zones")
        pages: Iterable[list[dict[str, Any]]] = [items]
    else:
        pages = _pages(session, "/zones", READ_ZONES, "the listing of zones", _ZONES_PAGE)
    found: dict[str, Zone] = {}
    for page in pages:
        for raw in page:
            try:
                name = host(raw.get("name"))
            except (ValueError, TypeError):
                continue
            if name in names and re.fullmatch(r"[A-Za-z0-9]+", str(raw.get("id"))):
                found[name] = Zone(name, session.ref, raw["id"], str(raw.get("status") or ""))
        if len(found) == len(names):
            break
    return found


def _items(answer: Mapping[str, Any], what: str) -> tuple[list[dict[str, Any]], int, int | None]:
    """Return one page's items, how many there are in total, and on how many pages. Raises `Torn`."""
    items, info = answer.get("result"), answer.get("result_info")
    total = info.get("total_count") if isinstance(info, dict) else None
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise Torn(f"{what} is no list of objects", "plan again")
    if isinstance(total, bool) or not isinstance(total, int):
        raise Torn(f"{what} does not say how long it is", "plan again")
    pages = cast("dict[str, Any]", info).get("total_pages")
    return items, total, pages if isinstance(pages, int) else None


def _pages(session: Session, path: str, right: str, what: str, size: int) -> Iterator[list[dict[str, Any]]]:
    """Yield a listing's pages until all that its total promises is there. Raises `Torn` where it is not."""
    seen: set[str] = set()
    page, total = 0, None
    while total is None or len(seen) < total:
        page += 1
        items, count, pages = _items(session.get(path, {"page": page, "per_page": size}, right), what)
        if total not in (None, count):
            raise Torn(f"{what} changed while it was read", "plan again")
        total = count
        for item in items:
            if not isinstance(item.get("id"), str) or item["id"] in seen:
                raise Torn(f"{what} holds something without an id, or twice", "plan again")
            seen.add(item["id"])
        last = not items or (pages is not None and page >= pages)
        yield items
        items.clear()  # one page at a time is in memory, not two
        if last:
            break
    if len(seen) != total or (pages is not None and page < pages):
        raise Torn(
            f"{what} is not as long as its total: {len(seen)} of {total}",
            "plan again; nothing is changed in this zone until the listing is whole",
        )


def listing(session: Session, zone: str, zone_id: str) -> list[Live]:
    """List a zone's records; once more where the listing contradicts itself. Raises `Failure`."""
    try:
        return _records(session, zone, zone_id)
    except Torn:
        return _records(session, zone, zone_id)


def _records(session: Session, zone: str, zone_id: str) -> list[Live]:
    pages = _pages(session, f"/zones/{zone_id}/dns_records", READ_RECORDS, f"the listing of {zone}", _PAGE)
    return [live for page in pages for raw in page if (live := _live(zone, raw)) is not None]


def _live(zone: str, raw: Mapping[str, Any]) -> Live | None:
    """Make a live record of what the API listed; None for SOA and the zone's own NS, which are Cloudflare's.

    ``detail`` is the comment as it stands, so that another's text is kept to the byte.
    """
    type_, name, comment, data = raw.get("type"), raw.get("name"), raw.get("comment"), raw.get("data")
    if not isinstance(type_, str) or not isinstance(name, str):
        raise Torn(f"the listing of {zone} holds a record without type or name", "plan again")
    if type_ == "SOA" or (type_ == "NS" and name == zone):
        return None
    comment = sys.intern(comment) if isinstance(comment, str) and comment else None  # thousands bear our mark
    text, stack = owner(comment) if comment else (None, None)
    try:
        resource = record(
            zone,
            type_,
            name,
            raw.get("content"),
            ttl=raw.get("ttl", AUTO_TTL),
            proxied=raw.get("proxied") is True,
            priority=raw.get("priority"),
            data=data if isinstance(data, dict) else None,
            comment=text,
        )
    except (ValueError, TypeError):  # what we can't read is shown as it is, and equals nothing that is desired
        resource = Record(zone, type_, name.removesuffix(f".{zone}"), str(raw.get("content")), comment=text)
    meta = raw.get("meta")
    fixed = "Cloudflare keeps it itself (Email Routing)" if isinstance(meta, dict) and meta.get("read_only") else ""
    return Live(resource, raw["id"], stack, fixed, comment)
