"""DNS at Cloudflare: zones listed whole or not at all, changes written in atomic batches."""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar, cast

from reconciler.names import host
from reconciler.problem import Problem, SecretUnreadable, Severity
from reconciler.resources import Live, Observation, Record, Resource, SecretRef
from reconciler.target import Change, Outcome, Progress, Reveal, Status, Stopped
from reconciler.targets.cloudflare.listing import READ_ZONES, Zone, find, listing
from reconciler.targets.cloudflare.transport import Failure, Line, Session, Unsent
from reconciler.targets.cloudflare.writing import EDIT_RECORDS, Writing

API = "https://api.cloudflare.com/client/v4"

T = TypeVar("T")
R = TypeVar("R")


class Token(NamedTuple):
    """An API token, the zones it is for (None: all that no other names), and where alone it is sent."""

    ref: SecretRef
    zones: frozenset[str] | None
    base_url: str


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

    ``tokens`` are API tokens, each with the zones it is for (None: all that no other names), and its base URL where it
    has one. ``base_url`` holds in place of every one. ``patience`` is how many seconds one request may wait on
    Cloudflare's rate limit, ``timeout`` how long it may be silent.
    """

    name = "cloudflare"

    def __init__(
        self,
        *,
        stack: str,
        zones: Sequence[str],
        tokens: Sequence[tuple[SecretRef, Sequence[str] | None] | tuple[SecretRef, Sequence[str] | None, str | None]],
        base_url: str | None = None,
        progress: Progress = lambda _: None,
        patience: float = 310.0,
        timeout: float = 30.0,
    ) -> None:
        self._stack = stack
        self._zones = list(dict.fromkeys(host(zone) for zone in zones))
        self._tokens = [
            Token(
                ref, None if names is None else frozenset(map(host, names)), base_url or (own[0] if own else "") or API
            )
            for ref, names, *own in tokens
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
        for token, zones in self._by_token(seen).items():
            try:
                sessions.append((self._session(token, reveal), zones))
            except Failure as failure:
                seen.fail(zones, failure)
        found: list[tuple[Session, Zone]] = []
        for (session, zones), answer in zip(sessions, self._side_by_side(self._find, sessions), strict=True):
            if isinstance(answer, Failure):
                seen.fail(zones, answer)
            else:
                found += [(session, zone) for zone in self._sighted(session, zones, answer, seen)]
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

    def _session(self, token: Token, reveal: Reveal) -> Session:
        line = self._line(token.base_url)  # before a secret is read: what is no address gets none
        try:
            value = reveal(token.ref)
        except SecretUnreadable as error:
            hint = next((problem.hint for problem in error.problems if problem.hint), "")
            raise Unsent(f"the token can't be read: {error}", hint or f"provide {token.ref}") from None
        return Session(line, token.ref, value)

    def _token(self, zone: str) -> Token | None:
        named = next((item for item in self._tokens if item.zones is not None and zone in item.zones), None)
        return named or next((item for item in self._tokens if item.zones is None), None)

    def _by_token(self, seen: _Seen) -> dict[Token, list[str]]:
        groups: dict[Token, list[str]] = defaultdict(list)
        for zone in self._zones:
            token = self._token(zone)
            if token is None:
                seen.fail([zone], Unsent("no token is for this zone", "name it in targets.cloudflare"))
            else:
                groups[token].append(zone)
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

    def _sighted(self, session: Session, zones: list[str], found: dict[str, Zone], seen: _Seen) -> Iterator[Zone]:
        for name in zones:
            zone = found.get(name)
            if zone is None:
                seen.fail([name], _unseen(name, session.ref))
                continue
            self._found[name] = zone
            if zone.status not in ("active", ""):
                seen.problems.append(_inactive(zone))
            yield zone

    def _find(self, asked: tuple[Session, list[str]]) -> dict[str, Zone]:
        """Look zones up once: an id holds while this target lives, unless a listing fails."""
        _, zones = asked
        if all(name in self._found for name in zones):
            return {name: self._found[name] for name in zones}
        return find(asked)

    def _reach(self, name: str, reveal: Reveal) -> tuple[Session, Zone]:
        token = self._token(name)
        if token is None:
            raise Unsent("no token is for this zone", "name it in targets.cloudflare")
        session = self._session(token, reveal)
        if name not in self._found:
            found = find((session, [name]))
            if name not in found:
                raise _unseen(name, token.ref)
            self._found[name] = found[name]
        return session, self._found[name]


def _unseen(name: str, ref: SecretRef) -> Failure:
    return Unsent(
        f"the token {ref} sees no zone of this name",
        f"add {name} at Cloudflare, or give the token {READ_ZONES} and {EDIT_RECORDS} for it",
    )


def _inactive(zone: Zone) -> Problem:
    return Problem(
        f"dns/{zone.name}",
        f"Cloudflare does not serve this zone: it is {zone.status}",
        "set Cloudflare's name servers at the registrar; records can be kept before that",
        Severity.WARNING,
    )


def _read(found: tuple[Session, Zone]) -> list[Live]:
    session, zone = found
    return listing(session, zone.name, zone.id)
