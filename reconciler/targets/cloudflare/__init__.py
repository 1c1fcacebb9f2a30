"""DNS at Cloudflare: zones listed whole or not at all, changes written in atomic batches."""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar, cast

from reconciler.names import host
from reconciler.problem import Problem, SecretUnreadable, Severity
from reconciler.resources import Live, Observation, Record, Resource
from reconciler.target import Change, Outcome, Progress, Reveal, Status, Stopped
from reconciler.targets.cloudflare.listing import Access, Zone, find, listing
from reconciler.targets.cloudflare.transport import Failure, Line, Session, Unsent
from reconciler.targets.cloudflare.writing import Writing

API = "https://api.cloudflare.com/client/v4"

T = TypeVar("T")
R = TypeVar("R")


@dataclass(slots=True)
class _Seen:
    """What an observation has found so far."""

    live: list[Live] = field(default_factory=list)
    unread: set[str] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)
    head: list[str] = field(default_factory=list)

    def fail(self, zones: Sequence[str], failure: Failure) -> None:
        """Note that zones can't be read."""
        for zone in zones:
            self.unread.add(f"dns/{zone}")
            self.problems.append(failure.problem(f"dns/{zone}", f"dns/{zone}"))


class Cloudflare:
    """The zones of one stack at Cloudflare.

    ``tokens`` say which API token is for which zones, and where it is sent; ``base_url`` holds in place of every one's.
    ``patience`` is how many seconds one request may wait on Cloudflare's rate limit, ``timeout`` how many it may take.
    """

    name = "cloudflare"
    libraries = ("httpcore", "httpx", "cloudflare")

    def __init__(
        self,
        *,
        stack: str,
        zones: Sequence[str],
        tokens: Sequence[Access],
        base_url: str | None = None,
        progress: Progress = lambda _: None,
        patience: float = 310.0,
        timeout: float = 30.0,
    ) -> None:
        self._stack = stack
        self._zones = list(dict.fromkeys(host(zone) for zone in zones))
        self._tokens = [
            item._replace(
                zones=item.zones and frozenset(map(host, item.zones)), base_url=base_url or item.base_url or API
            )
            for item in tokens
        ]
        self._settings = (progress, patience, timeout)
        self._found: dict[str, Zone] = {}
        self._lines: dict[str, Line] = {}
        self._stop: Stopped = lambda: False

    def close(self) -> None:
        """Close the connections; they are also closed when the target goes."""
        for line in self._lines.values():
            line.http.close()
        self._lines.clear()

    def observe(self, wanted: Sequence[Resource], reveal: Reveal) -> Observation:  # noqa: ARG002 (zones are read whole)
        """List every zone, all of them side by side; see `Target.observe`.

        A zone whose listing fails or can't be trusted is unread, the others are not affected.
        """
        seen = _Seen()
        sessions: list[tuple[Session, list[str]]] = []
        for access, zones in self._by_token(seen).items():
            try:
                sessions.append((self._session(access, reveal), zones))
            except Failure as failure:
                seen.fail(zones, failure)
        found: list[tuple[Session, Zone]] = []
        for (session, zones), answer in zip(sessions, self._side_by_side(self._find, sessions), strict=True):
            if isinstance(answer, Failure):
                seen.fail(zones, answer)
            else:
                found += [(session, zone) for zone in self._sighted(zones, answer, seen)]
        for (_, zone), records in zip(found, self._side_by_side(_read, found), strict=True):
            if isinstance(records, Failure):
                del self._found[zone.name]
                seen.fail([zone.name], records)
            else:
                seen.live += records
                seen.head.append(f"Cloudflare {zone.name}: {len(records)} records")
        return Observation(self.name, seen.live, frozenset(seen.unread), tuple(seen.problems), tuple(seen.head))

    def apply(self, changes: Sequence[Change], reveal: Reveal, stopped: Stopped = lambda: False) -> Iterator[Outcome]:
        """Write the changes, zone by zone, in as few atomic batches as there can be; see `Target.apply`."""
        self._stop = stopped
        zones: dict[str, list[Change]] = defaultdict(list)
        for change in changes:
            zones[cast("Record", change.resource).zone].append(change)
        for name, members in zones.items():
            if stopped():
                return
            try:
                session, zone = self._reach(name, reveal)
            except Failure as failure:
                yield from (Outcome(item, Status.FAILED, failure.problem(item.address)) for item in members)
            else:
                yield from Writing(session, zone, self._stack).run(members, stopped)

    def _line(self, base_url: str) -> Line:
        if base_url not in self._lines:
            line = Line(base_url, *self._settings)
            weakref.finalize(self, line.http.close)
            self._lines[base_url] = line
        self._lines[base_url].stop = self._stop
        return self._lines[base_url]

    def _session(self, access: Access, reveal: Reveal) -> Session:
        line = self._line(access.base_url or API)  # before a secret is read: what is no address gets none
        try:
            value = reveal(access.token)
        except SecretUnreadable as error:
            cause = error.problems[0]
            summary = f"the token can't be read: {cause.where}: {cause.summary}"
            raise Unsent(summary, cause.hint or f"provide {access.token}") from None
        return Session(line, access.token, value)

    def _access(self, zone: str) -> Access:
        """Return the token that is for a zone. Raises `Unsent` where none is."""
        named = next((item for item in self._tokens if item.zones is not None and zone in item.zones), None)
        found = named or next((item for item in self._tokens if item.zones is None), None)
        if found is None:
            raise Unsent("no token is for this zone", "name it in targets.cloudflare")
        return found

    def _by_token(self, seen: _Seen) -> dict[Access, list[str]]:
        groups: dict[Access, list[str]] = defaultdict(list)
        for zone in self._zones:
            try:
                access = self._access(zone)
            except Unsent as failure:
                seen.fail([zone], failure)
            else:
                groups[access._replace(zones=None, account=None, zone_id=None)].append(zone)
        return groups

    def _side_by_side(self, call: Callable[[T], R], items: Sequence[T]) -> list[R | Failure]:
        def settle(item: T) -> R | Failure:
            try:
                return call(item)
            except Failure as failure:
                return failure

        if len(items) < 2:  # noqa: PLR2004 (one zone needs no thread)
            return [settle(item) for item in items]
        with ThreadPoolExecutor(min(8, len(items))) as pool:
            try:
                return list(pool.map(settle, items))
            except BaseException:
                for line in self._lines.values():
                    line.stopped.set()  # a signal came: nobody waits for a rate limit any more
                self.close()
                raise

    def _sighted(self, zones: list[str], found: Mapping[str, Sequence[Zone]], seen: _Seen) -> Iterator[Zone]:
        for name in zones:
            try:
                zone = self._access(name).choose(name, found.get(name, ()))
            except Unsent as failure:
                seen.fail([name], failure)
                continue
            self._found[name] = zone
            seen.problems += _unserved(zone)
            yield zone

    def _find(self, asked: tuple[Session, list[str]]) -> Mapping[str, Sequence[Zone]]:
        """Look zones up once: an id holds while this target lives, unless a listing fails."""
        _, zones = asked
        if all(name in self._found for name in zones):
            return {name: [self._found[name]] for name in zones}
        return find(asked)

    def _reach(self, name: str, reveal: Reveal) -> tuple[Session, Zone]:
        access = self._access(name)
        session = self._session(access, reveal)
        if name not in self._found:
            self._found[name] = access.choose(name, find((session, [name])).get(name, ()))
        return session, self._found[name]


def _unserved(zone: Zone) -> Iterator[Problem]:
    """Warn of a zone whose records nobody gets to see, or not from here."""
    where = f"dns/{zone.name}"
    if zone.status not in ("active", ""):
        summary = f"Cloudflare does not serve this zone: it is {zone.status}"
        hint = "set Cloudflare's name servers at the registrar; records can be kept before that"
        yield Problem(where, summary, hint, Severity.WARNING)
    if zone.type not in ("full", ""):
        summary = f"is a zone of type {zone.type}: its records are kept elsewhere, and what is here counts in part only"
        yield Problem(where, summary, "keep the records of mail where the zone's own are", Severity.WARNING)


def _read(found: tuple[Session, Zone]) -> list[Live]:
    session, zone = found
    return listing(session, zone.name, zone.id)
