"""Listings, whole or not at all: zones by their names, and the records of a zone."""

from __future__ import annotations

import re
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar, cast

from reconciler.dns import types
from reconciler.dns.records import AUTO_TTL, InvalidRecord, owner, record
from reconciler.names import host
from reconciler.resources import Live, Record, SecretRef
from reconciler.targets.cloudflare.transport import Session, Torn, Unending, Unsent

T = TypeVar("T")

_PAGE = 5000  # records; the most that is served
_ZONES_PAGE = 50
_MOST, _LISTING = 1_000_000, 600.0  # records, and seconds, of one listing
_NUL = re.compile(r"\0|(?<!\\)(?:\\\\)*\\000")  # as it is, or as a TXT record's escape of it
READ_ZONES = "Zone → Zone → Read"
EDIT_RECORDS = "Zone → DNS → Edit"
READ_RECORDS = "Zone → DNS → Read (Edit, to apply)"


@dataclass(frozen=True, slots=True)
class Zone:
    """A zone that was found: which token reaches it, the id it has, and in which account it is."""

    name: str
    ref: SecretRef
    id: str
    status: str
    type: str = ""
    account_id: str = ""
    account: str = ""

    def __str__(self) -> str:
        """Render what tells it from another of its name."""
        return f"{self.id} ({self.status or 'no status'}) in the account {self.account or '?'} ({self.account_id})"


class Access(NamedTuple):
    """A token, the zones it is for (None: all that no other names), and which of several of one name is meant.

    ``account`` is an account's id or name, ``zone_id`` a zone's own id. The token is sent to ``base_url`` alone.
    """

    token: SecretRef
    zones: Collection[str] | None = None
    account: str | None = None
    zone_id: str | None = None
    base_url: str | None = None

    def choose(self, name: str, found: Sequence[Zone]) -> Zone:
        """Choose the zone that is meant among all of its name: the active one. Raises `Unsent` where none or two are.

        A zone that moved to another account, or that somebody else has begun to add there, has the same name.
        """
        if not found:
            raise Unsent(
                f"the token {self.token} sees no zone of this name",
                f"add {name} at Cloudflare, or give the token {READ_ZONES} and {EDIT_RECORDS} for it",
            )
        meant = [zone for zone in found if self._means(zone)]
        left = [zone for zone in meant if zone.status == "active"] or meant
        shown = "; ".join(map(str, left or found))
        if not left:
            hint = "correct `account` or `zone_id` in targets.cloudflare"
            raise Unsent(f"the token {self.token} sees this zone elsewhere only: {shown}", hint)
        if len(left) > 1:
            hint = "say which with `account` or `zone_id` in targets.cloudflare, or use a token for one account alone"
            raise Unsent(f"the token {self.token} sees {len(left)} zones of this name: {shown}", hint)
        return left[0]

    def _means(self, zone: Zone) -> bool:
        known = (zone.account_id, zone.account.casefold())
        account = self.account is None or self.account in known or self.account.casefold() in known
        return account and self.zone_id in (None, zone.id)


def find(wanted: tuple[Session, list[str]]) -> dict[str, list[Zone]]:
    """Look zones up with one token: one by its name, several in the listing of all; several may have one name.

    Pages of zones can't overlap (50 are the most of one), so a zone that moved to a page that was read is not seen:
    what is then not there, or not active, is asked for by its name. Raises `Failure`.
    """
    session, names = wanted
    if len(names) == 1:
        return _once_more(lambda: _zones(session, names, {"name": names[0]})[0])
    found, pages = _once_more(lambda: _zones(session, names, {}))
    for name in names if pages > 1 else ():
        if all(zone.status != "active" for zone in found.get(name, ())):
            found |= find((session, [name]))
    return found


def _zones(session: Session, names: Collection[str], query: Mapping[str, Any]) -> tuple[dict[str, list[Zone]], int]:
    """Return the zones of some names out of a listing, and how many pages that has."""
    pages = 0
    found: dict[str, list[Zone]] = defaultdict(list)
    asked = {"per_page": _ZONES_PAGE, **query}
    for page in _pages(session, "/zones", READ_ZONES, "the listing of zones", asked):
        pages += 1
        for zone in _told(session, page):
            if zone.name in names:
                found[zone.name].append(zone)
    return dict(found), pages


def _told(session: Session, page: Sequence[Mapping[str, Any]]) -> Iterator[Zone]:
    """Yield the zones of a page that can be understood."""
    for raw in page:
        try:
            name = host(raw.get("name"))
        except (ValueError, TypeError):
            continue
        if isinstance(raw.get("id"), str) and re.fullmatch(r"[A-Za-z0-9]+", raw["id"]):
            account = raw.get("account")
            account = account if isinstance(account, dict) else {}
            told = (raw.get("status"), raw.get("type"), account.get("id"), account.get("name"))
            yield Zone(name, session.ref, raw["id"], *(str(item or "") for item in told))


def _once_more(read: Callable[[], T]) -> T:
    """Read a listing, and once more where it contradicts itself."""
    try:
        return read()
    except Torn:
        return read()


def _items(answer: Mapping[str, Any], what: str) -> tuple[list[dict[str, Any]], int, Mapping[str, Any]]:
    """Return one page's items, how many there are in total, and what else it says of itself. Raises `Torn`."""
    items, info = answer.get("result"), answer.get("result_info")
    total = info.get("total_count") if isinstance(info, dict) else None
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise Torn(f"{what} is no list of objects", "plan again")
    if isinstance(total, bool) or not isinstance(total, int):
        raise Torn(f"{what} does not say how long it is", "plan again")
    return items, total, cast("dict[str, Any]", info)


def _pages(  # noqa: PLR0917 (what is asked, and how)
    session: Session, path: str, right: str, what: str, query: Mapping[str, Any], size: int = 0
) -> Iterator[list[dict[str, Any]]]:
    """Yield a listing's pages until all that its total promises is there. Raises `Torn` where it is not.

    Where something goes and something else comes meanwhile, the total stays, and what moves to a page that was read is
    not seen. So with a ``size`` that the server takes each page is one shorter than the last one: the n-th begins with
    n - 1 of what that ended with, and by these it is seen that nothing moved.
    """
    seen: set[str] = set()
    page, total, until = 0, None, time.monotonic() + _LISTING
    end, shrinks = list[str](), bool(size)
    while total is None or len(seen) < total:
        page += 1
        if time.monotonic() > until or (total or 0) > _MOST:
            raise Unending(f"{what} does not end: {len(seen)} of {total}", "check base_url, and proxies on the way")
        again = page - 1 if shrinks else 0
        asked = {"per_page": size - again} if size else {}
        items, count, info = _items(session.get(path, {"page": page, **query, **asked}, right), what)
        if total not in (None, count):
            raise Torn(f"{what} changed while it was read", "plan again")
        total, pages = count, info.get("total_pages")
        shrinks = shrinks and info.get("per_page") == asked.get("per_page")
        ids = [item.get("id") for item in items]
        if again and (not shrinks or set(ids[:again]) != set(end[-again:])):
            raise Torn(f"{what} changed while it was read", "plan again")
        del items[:again]
        for item in items:
            if not isinstance(item.get("id"), str) or item["id"] in seen:
                raise Torn(f"{what} holds something without an id, or twice", "plan again")
            seen.add(item["id"])
        end = [str(name) for name in ids]
        last = not items or (isinstance(pages, int) and page >= pages)
        yield items
        items.clear()  # one page at a time is in memory, not two
        if last:
            break
    if len(seen) != total or (isinstance(pages, int) and page < pages):
        raise Torn(
            f"{what} is not as long as its total: {len(seen)} of {total}",
            "plan again; nothing is changed in this zone until the listing is whole",
        )


def listing(session: Session, zone: str, zone_id: str) -> list[Live]:
    """List a zone's records; once more where the listing contradicts itself. Raises `Failure`."""
    return _once_more(lambda: _records(session, zone, zone_id))


def _records(session: Session, zone: str, zone_id: str) -> list[Live]:
    pages = _pages(session, f"/zones/{zone_id}/dns_records", READ_RECORDS, f"the listing of {zone}", {}, size=_PAGE)
    return [live for page in pages for raw in page if (live := _live(zone, raw)) is not None]


def _check_sayable(type_: str, *texts: Any) -> None:
    """Raise `InvalidRecord` for what no directory can declare, and so nobody can keep: it never goes by being absent.

    Our mark on it was copied by somebody, or is of a later version's.
    """
    if type_ not in types.TYPES:
        raise InvalidRecord("no directory can declare records of this type")
    if any(isinstance(text, str) and _NUL.search(text) for text in texts):
        raise InvalidRecord("it holds a NUL, which no directory can say")


def _live(zone: str, raw: Mapping[str, Any]) -> Live | None:
    """Make a live record of what the API listed; None for SOA and the zone's own NS, which are Cloudflare's.

    ``detail`` is the comment as it stands, so that another's text is kept to the byte. What can't be understood is
    shown as far as it can be, and never written.
    """
    type_, name, comment, data = raw.get("type"), raw.get("name"), raw.get("comment"), raw.get("data")
    if not isinstance(type_, str) or not isinstance(name, str):
        raise Torn(f"the listing of {zone} holds a record without type or name", "plan again")
    comment = sys.intern(comment) if isinstance(comment, str) and comment else None  # thousands bear our mark
    text, stack = owner(comment) if comment else (None, None)
    if type_ == "SOA" or (type_ == "NS" and name == zone and stack is None):
        return None
    meta, why = raw.get("meta"), ""
    parts = (*(data.values() if isinstance(data, dict) else ()), raw.get("priority"), raw.get("ttl"))
    fixed = "Cloudflare keeps it itself (Email Routing)" if isinstance(meta, dict) and meta.get("read_only") else ""
    try:
        if any(isinstance(part, dict | list | bool) for part in parts):
            raise TypeError  # noqa: TRY301 (as what `record` can't read)
        _check_sayable(type_, name, raw.get("content"), comment)
        resource = record(
            zone,
            type_,
            f"{name}.",  # it is whole
            raw.get("content"),
            ttl=raw.get("ttl", AUTO_TTL),
            proxied=raw.get("proxied") is True,
            priority=raw.get("priority"),
            data=data if isinstance(data, dict) else None,
            comment=text,
        )
    except (ValueError, TypeError, ArithmeticError) as error:
        why = f"it can't be understood ({error if isinstance(error, InvalidRecord) else 'a value of another kind'})"
        within = "@" if name == zone else name.removesuffix(f".{zone}")
        resource = Record(zone, type_, within, str(raw.get("content")), comment=text)
    return Live(resource, raw["id"], stack, fixed or why, comment, unread=bool(why))
