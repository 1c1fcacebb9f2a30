"""DNS at Cloudflare: zones listed whole or not at all, changes written in atomic batches.

The official package is the transport: its generic calls with raw responses, its retries off. What may be repeated is
decided here, because a POST that is sent again after a lost answer is a second write.
"""

from __future__ import annotations

import json
import random
import re
import sys
import threading
import time
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar, cast

from reconciler.desired import dns
from reconciler.plan import Change, differences
from reconciler.problem import Problem, SecretUnreadable, Severity
from reconciler.reconcile import Outcome, Progress, Reveal, Status, Stopped
from reconciler.resources import UNKNOWN, UNMANAGED, Live, Observation, Record, Resource, SecretRef

if TYPE_CHECKING:
    import httpx

API = "https://api.cloudflare.com/client/v4"
BATCH_LIMIT = 200  # operations; what every plan allows
_PAGE = 5000  # records; the most that is served
_ZONES_PAGE = 50
_TRIES = 3
_PAUSE = 0.25  # seconds before the second try of a read
_SILENCE = 60.0  # seconds to wait after a 429 that does not say how long
_ON_THE_WAY = "check base_url, and proxies on the way"
_LARGEST = 64 << 20  # bytes of an answer; five thousand records are 3 MiB

T = TypeVar("T")
R = TypeVar("R")


# ---------------------------------------------------------------------------------------------------- what goes wrong
class _Failure(Exception):
    """A request that did not do what it should: ``summary`` is the cause, ``hint`` the remedy."""

    def __init__(self, summary: str, hint: str = "") -> None:
        super().__init__(summary)
        self.summary = summary
        self.hint = hint

    def problem(self, where: str, scope: str = "") -> Problem:
        return Problem(where, self.summary, self.hint, scope=scope)


class _Unsent(_Failure):
    """No connection: nothing can have happened."""


class _Lost(_Failure):
    """No answer, or none that can be read: what was asked for may have happened."""


class _Torn(_Failure):
    """A listing that contradicts itself."""


class _Throttled(_Failure):
    """Refused for its rate: nothing happened, and nothing will for ``seconds``."""

    def __init__(self, summary: str, seconds: float) -> None:
        super().__init__(summary, "run it again when Cloudflare's limit (1,200 requests in 5 minutes) allows")
        self.seconds = seconds


class _Refused(_Failure):
    """The API said no: nothing happened. ``final`` is a no to whatever else is asked of this zone."""

    def __init__(self, what: str, text: str, hint: str, codes: frozenset[int], *, final: bool) -> None:
        super().__init__(f"{what}: {text}", hint)
        self.text = text
        self.codes = codes
        self.final = final


_INVALID_TOKEN = 9109
_TOKEN_CODES = frozenset({6003, 6102, 6103, 6111, 9106, _INVALID_TOKEN})
_ROUTE_CODES = frozenset({7000, 7003})
_MISSING = 81044
_QUOTA = 81045
_CONTRADICTED = frozenset({_MISSING, 81053, 81054, 81056, 81057, 81058})  # by what is there now
_HINTS = {
    9003: "set proxied: false",
    9004: "set proxied: false: only A, AAAA and CNAME can be proxied",
    9021: "ttl must be auto, or 60 to 86400 seconds",
    9041: "set proxied: false",
    9300: "remove tags: the zone's plan has none left",
    9313: "shorten the comment: our mark needs a part of Cloudflare's 100 characters",
    _MISSING: "it changed since the plan: plan again",
    _QUOTA: "remove records that are not needed, or choose a larger plan at Cloudflare",
    81053: "a CNAME stands alone at its name (RFC 1034 section 3.6.2): declare or remove the other record",
    81054: "a CNAME stands alone at its name (RFC 1034 section 3.6.2): declare or remove it",
    81056: "NS records delegate the whole name: nothing but DS can stand beside them",
    81057: "plan again: an equal record is adopted",
    81058: "plan again: an equal record is adopted",
}


def _leaves(errors: Any) -> Iterator[tuple[int, str]]:
    """Yield code and text of errors; what is useful stands at the end of their chains (terraform#3217)."""
    for error in errors if isinstance(errors, list) else ():
        if not isinstance(error, dict):
            continue
        chain = list(_leaves(error.get("error_chain")))
        yield from chain
        if not chain and isinstance(error.get("code"), int):
            yield error["code"], str(error.get("message") or "no reason given")


# ------------------------------------------------------------------------------------------------------ the transport
class _Line:
    """What all requests share: the connections, patience, and whom to tell about waiting."""

    def __init__(self, base_url: str, progress: Progress, patience: float, timeout: float) -> None:
        import httpx

        self.base_url = base_url
        self.progress = progress
        self.patience = patience
        self.timeout = timeout
        self.stopped = threading.Event()
        # A context for TLS takes long to make: none for plain http, and one for all tokens.
        self.http = httpx.Client(
            verify=base_url.startswith("https:"), timeout=httpx.Timeout(timeout, connect=min(10.0, timeout))
        )

    def wait(self, seconds: float, why: str) -> None:
        """Wait, and say what for."""
        self.progress(f"Cloudflare: {why}; going on in {seconds:.0f} s" if seconds >= 1 else f"Cloudflare: {why}")
        if self.stopped.wait(seconds):
            raise _Unsent("interrupted")


class _Session:
    """Requests with one token."""

    def __init__(self, line: _Line, ref: SecretRef, token: str) -> None:
        from cloudflare import Cloudflare as Sdk

        if not re.fullmatch(r"[!-~]+", token):
            raise _Unsent(
                f"the secret {ref} holds white space or characters that no token has",
                "put the API token there, alone, without quotes or a line break",
            )
        self._line = line
        self.ref = ref
        self._token = token
        self._sdk = Sdk(api_token=token, base_url=line.base_url, http_client=line.http, max_retries=0)
        # The package would prefer what the environment holds (CLOUDFLARE_EMAIL, CLOUDFLARE_API_KEY) to our token.
        self._sdk.api_email = self._sdk.api_key = self._sdk.user_service_key = None
        # It would start `uname` and read what distribution this is, to say so in a header.
        self._sdk._platform = "Unknown"  # noqa: SLF001 (it has no other way to be told)

    def get(self, path: str, query: Mapping[str, Any], right: str) -> dict[str, Any]:
        """Read, again after a throttling or a fault; ``right`` is what the token needs. Raises `_Failure`."""
        waited, tries = 0.0, 0
        while True:
            try:
                return self._send("GET", path, right, query=query)
            except _Throttled as error:
                failure: _Failure = error
                pause = error.seconds
            except (_Lost, _Unsent) as error:
                failure, tries = error, tries + 1
                if tries == _TRIES or self._line.stopped.is_set():
                    raise
                pause = _PAUSE * 2 ** (tries - 1) * random.uniform(0.5, 1.0)  # noqa: S311 (no secret)
            waited += pause
            if waited > self._line.patience:
                raise failure
            self._line.wait(pause, failure.summary)

    def post(self, path: str, body: Mapping[str, Any], right: str) -> dict[str, Any]:
        """Write once; again only after a throttling, which is a refusal. Raises `_Failure`."""
        waited = 0.0
        while True:
            try:
                return self._send("POST", path, right, body=body)
            except _Throttled as error:
                waited += error.seconds
                if waited > self._line.patience:
                    raise
                self._line.wait(error.seconds, error.summary)

    def _send(
        self, method: str, path: str, right: str, *, query: Mapping[str, Any] | None = None, body: Any = None
    ) -> dict[str, Any]:
        what = f"{method} {self._line.base_url}{path}"
        response, content = self._exchange(what, method, path, query, body)
        status = response.status_code
        if status == 429:  # noqa: PLR2004 (Too Many Requests)
            raise _Throttled(f"{what}: too many requests (429)", _retry_after(response.headers))
        if status >= 500 or status == 408:  # noqa: PLR2004 (the server's fault; Request Timeout)
            raise _Lost(f"{what}: Cloudflare failed with {status}", "try again; see https://www.cloudflarestatus.com")
        try:
            text, content = content.decode(), b""  # megabytes: not both of them beside what they are parsed into
            answer = json.loads(text)
        except (ValueError, RecursionError):
            answer = None
        if isinstance(answer, dict) and answer.get("success") is True and response.is_success:
            return answer
        if isinstance(answer, dict) and (answer.get("success") is False or not response.is_success):
            raise self._refusal(what, status, answer.get("errors"), right)
        if response.is_success:
            raise _Lost(f"{what}: the answer is not the API's JSON", _ON_THE_WAY)
        raise self._refusal(what, status, None, right)

    def _exchange(
        self, what: str, method: str, path: str, query: Mapping[str, Any] | None, body: Any
    ) -> tuple[httpx.Response, bytes]:
        """Send a request and read its answer, whatever its status."""
        import httpx
        from cloudflare import APIConnectionError, APIStatusError, Stream

        raw: Any = {"cast_to": httpx.Response, "stream": True, "stream_cls": Stream[httpx.Response]}
        try:
            if method == "GET":
                answer = self._sdk.get(path, options={"params": query or {}, "follow_redirects": False}, **raw)
            else:
                answer = self._sdk.post(path, body=body, options={"follow_redirects": False}, **raw)
            response = cast("httpx.Response", answer)
            return response, _body(what, response, self._line.timeout)
        except APIStatusError as error:
            return error.response, error.response.content
        except APIConnectionError as error:
            raise _broken(what, error.__cause__ or error) from None
        except httpx.HTTPError as error:
            raise _broken(what, error) from None

    def _refusal(self, what: str, status: int, errors: Any, right: str) -> _Refused:
        leaves = list(_leaves(errors))
        codes = frozenset(code for code, _ in leaves)
        text = "; ".join(f"{message} ({code})" for code, message in dict(leaves).items())
        text = (text or f"HTTP {status}, and no reason is given").replace(self._token, "(the token)")[:500]
        if leaves and (status in (401, 403) or codes & _TOKEN_CODES):
            return _Refused(what, text, self._remedy(codes, text, right), codes, final=True)
        return _Refused(what, text, _advice(codes), codes, final=bool(codes & _ROUTE_CODES) or not leaves)

    def _remedy(self, codes: frozenset[int], text: str, right: str) -> str:
        """Say what a token lacks."""
        if "location" in text:
            return f"the token {self.ref} is bound to other IP addresses: allow this machine's in the token's filter"
        if _INVALID_TOKEN in codes or "token" in text.lower():
            return f"the token {self.ref} is revoked, expired or mistyped: create one and store it there"
        if codes & _TOKEN_CODES:
            return f"{self.ref} does not hold an API token: put the token there, not the Global API Key"
        return f"give the token {self.ref} the right {right} for this zone; a new zone may need some minutes"


def _advice(codes: frozenset[int]) -> str:
    """Say what to do about a refusal that is not the token's fault."""
    if codes & _ROUTE_CODES:
        return "check base_url: it ends with /client/v4"
    return "; ".join(dict.fromkeys(_HINTS[code] for code in sorted(codes) if code in _HINTS)) if codes else _ON_THE_WAY


def _body(what: str, response: httpx.Response, timeout: float) -> bytes:
    """Read an answer's body, within bounds of size and time: a server that drips would hold us for ever."""
    chunks, size, deadline = [], 0, time.monotonic() + 4 * timeout
    announced = response.headers.get("content-length", "")
    try:
        if announced.isdecimal() and int(announced) > _LARGEST:
            raise _Lost(f"{what}: the answer is too large", _ON_THE_WAY)
        for chunk in response.iter_bytes():
            chunks.append(chunk)
            size += len(chunk)
            if size > _LARGEST or time.monotonic() > deadline:
                raise _Lost(f"{what}: the answer does not end", _ON_THE_WAY)
    finally:
        response.close()
    return b"".join(chunks)


def _broken(what: str, cause: BaseException) -> _Failure:
    """Tell a connection that was never made from an answer that never came."""
    import httpx

    text = str(cause) or type(cause).__name__
    if isinstance(cause, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout | httpx.UnsupportedProtocol):
        if "SSL" in text or "CERTIFICATE" in text:
            return _Unsent(f"{what}: TLS failed: {text}", "check the clock, the CA certificates and proxies on the way")
        return _Unsent(f"{what}: can't connect: {text}", "check the network, DNS and base_url")
    return _Lost(f"{what}: no answer: {text}", "check the network, and plan again")


def _retry_after(headers: Mapping[str, str]) -> float:
    """Return the seconds that a 429 asks for; RFC 9110 section 10.2.3 allows a date too."""
    text = headers.get("retry-after") or headers.get("x-ratelimit-reset") or ""
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return _SILENCE


# --------------------------------------------------------------------------------------------------------- reading
_READ_ZONES = "Zone → Zone → Read"
_READ_RECORDS = "Zone → DNS → Read (Edit, to apply)"
_EDIT_RECORDS = "Zone → DNS → Edit"


def _items(answer: Mapping[str, Any], what: str) -> tuple[list[dict[str, Any]], int, int | None]:
    """Return one page's items, how many there are in total, and on how many pages. Raises `_Torn`."""
    items, info = answer.get("result"), answer.get("result_info")
    total = info.get("total_count") if isinstance(info, dict) else None
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise _Torn(f"{what} is no list of objects", "plan again")
    if isinstance(total, bool) or not isinstance(total, int):
        raise _Torn(f"{what} does not say how long it is", "plan again")
    pages = cast("dict[str, Any]", info).get("total_pages")
    return items, total, pages if isinstance(pages, int) else None


def _pages(session: _Session, path: str, right: str, what: str, size: int) -> Iterator[list[dict[str, Any]]]:
    """Yield a listing's pages until all that its total promises is there. Raises `_Torn` where it is not."""
    seen: set[str] = set()
    page, total = 0, None
    while total is None or len(seen) < total:
        page += 1
        items, count, pages = _items(session.get(path, {"page": page, "per_page": size}, right), what)
        if total not in (None, count):
            raise _Torn(f"{what} changed while it was read", "plan again")
        total = count
        for item in items:
            if not isinstance(item.get("id"), str) or item["id"] in seen:
                raise _Torn(f"{what} holds something without an id, or twice", "plan again")
            seen.add(item["id"])
        last = not items or (pages is not None and page >= pages)
        yield items
        items.clear()  # one page at a time is in memory, not two
        if last:
            break
    if len(seen) != total or (pages is not None and page < pages):
        raise _Torn(
            f"{what} is not as long as its total: {len(seen)} of {total}",
            "plan again; nothing is changed in this zone until the listing is whole",
        )


def _listing(session: _Session, zone: str, zone_id: str) -> list[Live]:
    """List a zone's records; once more where the listing contradicts itself. Raises `_Failure`."""
    try:
        return _records(session, zone, zone_id)
    except _Torn:
        return _records(session, zone, zone_id)


def _records(session: _Session, zone: str, zone_id: str) -> list[Live]:
    pages = _pages(session, f"/zones/{zone_id}/dns_records", _READ_RECORDS, f"the listing of {zone}", _PAGE)
    return [live for page in pages for raw in page if (live := _live(zone, raw)) is not None]


def _live(zone: str, raw: Mapping[str, Any]) -> Live | None:
    """Make a live record of what the API listed; None for SOA and the zone's own NS, which are Cloudflare's.

    ``detail`` is the comment as it stands, so that another's text is kept to the byte.
    """
    type_, name, comment, data = raw.get("type"), raw.get("name"), raw.get("comment"), raw.get("data")
    if not isinstance(type_, str) or not isinstance(name, str):
        raise _Torn(f"the listing of {zone} holds a record without type or name", "plan again")
    if type_ == "SOA" or (type_ == "NS" and name == zone):
        return None
    comment = sys.intern(comment) if isinstance(comment, str) and comment else None  # thousands bear our mark
    text, owner = dns.owner(comment) if comment else (None, None)
    try:
        resource = dns.record(
            zone,
            type_,
            name,
            raw.get("content"),
            ttl=raw.get("ttl", dns.AUTO_TTL),
            proxied=raw.get("proxied") is True,
            priority=raw.get("priority"),
            data=data if isinstance(data, dict) else None,
            comment=text,
        )
    except (ValueError, TypeError):  # what we can't read is shown as it is, and equals nothing that is desired
        resource = Record(zone, type_, name.removesuffix(f".{zone}"), str(raw.get("content")), comment=text)
    meta = raw.get("meta")
    fixed = "Cloudflare keeps it itself (Email Routing)" if isinstance(meta, dict) and meta.get("read_only") else ""
    return Live(resource, raw["id"], owner, fixed, comment)


# ---------------------------------------------------------------------------------------------------------- the target
@dataclass(frozen=True, slots=True)
class _Zone:
    """A zone that was found: which token reaches it, and the id it has."""

    name: str
    ref: SecretRef
    id: str
    status: str


@dataclass(slots=True)
class _Seen:
    """What an observation has found so far."""

    live: list[Live] = field(default_factory=list)
    unread: set[str] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)
    head: list[str] = field(default_factory=list)

    def fail(self, zones: Sequence[str], failure: _Failure) -> None:
        """Note that zones can't be read."""
        for zone in zones:
            self.unread.add(f"dns/{zone}")
            self.problems.append(failure.problem(f"dns/{zone}", f"dns/{zone}"))


class Cloudflare:
    """The zones of one stack at Cloudflare.

    ``tokens`` are API tokens, each with the zones it is for (None: all that no other names). ``patience`` is how many
    seconds one request may wait on Cloudflare's rate limit, ``timeout`` how many it may take.
    """

    name = "cloudflare"

    def __init__(
        self,
        *,
        stack: str,
        zones: Sequence[str],
        tokens: Sequence[tuple[SecretRef, Sequence[str] | None]],
        base_url: str | None = None,
        progress: Progress = lambda _: None,
        patience: float = 310.0,
        timeout: float = 30.0,
    ) -> None:
        self._stack = stack
        self._zones = list(dict.fromkeys(dns.host(zone) for zone in zones))
        self._tokens = [(ref, None if names is None else {dns.host(name) for name in names}) for ref, names in tokens]
        self._settings = ((base_url or API).rstrip("/"), progress, patience, timeout)
        self._found: dict[str, _Zone] = {}
        self._opened: _Line | None = None

    def close(self) -> None:
        """Close the connections; they are also closed when the target goes."""
        if self._opened is not None:
            self._opened.http.close()
            self._opened = None

    def observe(self, wanted: Sequence[Resource], reveal: Reveal) -> Observation:  # noqa: ARG002 (zones are read whole)
        """List every zone, all of them side by side; see `Target.observe`.

        A zone whose listing fails or can't be trusted is unread, the others are not affected.
        """
        seen = _Seen()
        sessions: list[tuple[_Session, list[str]]] = []
        for ref, zones in self._by_token(seen).items():
            try:
                sessions.append((self._session(ref, reveal), zones))
            except _Failure as failure:
                seen.fail(zones, failure)
        found: list[tuple[_Session, _Zone]] = []
        for (session, zones), answer in zip(sessions, self._side_by_side(_find, sessions), strict=True):
            if isinstance(answer, _Failure):
                seen.fail(zones, answer)
            else:
                found += [(session, zone) for zone in self._sighted(session, zones, answer, seen)]
        for (_, zone), records in zip(found, self._side_by_side(_read, found), strict=True):
            if isinstance(records, _Failure):
                seen.fail([zone.name], records)
            else:
                seen.live += records
                seen.head.append(f"Cloudflare {zone.name}: {len(records)} records")
        return Observation(self.name, seen.live, frozenset(seen.unread), tuple(seen.problems), tuple(seen.head))

    def apply(self, changes: Sequence[Change], reveal: Reveal, stopped: Stopped = lambda: False) -> Iterator[Outcome]:
        """Write the changes, zone by zone, in as few atomic batches as there can be; see `Target.apply`."""
        zones: dict[str, list[Change]] = defaultdict(list)
        for change in changes:
            zones[cast("Record", change.resource).zone].append(change)
        for name, members in zones.items():
            if stopped():
                return
            try:
                session, zone = self._reach(name, reveal)
            except _Failure as failure:
                yield from (Outcome(item, Status.FAILED, failure.problem(item.address)) for item in members)
            else:
                yield from _Writing(session, zone, self._stack).run(members, stopped)

    def _line(self) -> _Line:
        if self._opened is None:
            self._opened = _Line(*self._settings)
            weakref.finalize(self, self._opened.http.close)
        return self._opened

    def _session(self, ref: SecretRef, reveal: Reveal) -> _Session:
        try:
            token = reveal(ref)
        except SecretUnreadable as error:
            hint = next((problem.hint for problem in error.problems if problem.hint), "")
            raise _Unsent(f"the token can't be read: {error}", hint or f"provide {ref}") from None
        return _Session(self._line(), ref, token)

    def _token(self, zone: str) -> SecretRef | None:
        named = next((ref for ref, zones in self._tokens if zones is not None and zone in zones), None)
        return named or next((ref for ref, zones in self._tokens if zones is None), None)

    def _by_token(self, seen: _Seen) -> dict[SecretRef, list[str]]:
        groups: dict[SecretRef, list[str]] = defaultdict(list)
        for zone in self._zones:
            ref = self._token(zone)
            if ref is None:
                seen.fail([zone], _Unsent("no token is for this zone", "name it in targets.cloudflare"))
            else:
                groups[ref].append(zone)
        return groups

    def _side_by_side(self, call: Callable[[T], R], items: Sequence[T]) -> list[R | _Failure]:
        def settle(item: T) -> R | _Failure:
            try:
                return call(item)
            except _Failure as failure:
                return failure

        if len(items) < 2:  # noqa: PLR2004 (one zone needs no thread)
            return [settle(item) for item in items]
        with ThreadPoolExecutor(min(8, len(items))) as pool:
            try:
                return list(pool.map(settle, items))
            except BaseException:
                self._line().stopped.set()  # a signal came: nobody waits for a rate limit any more
                self.close()
                raise

    def _sighted(self, session: _Session, zones: list[str], found: dict[str, _Zone], seen: _Seen) -> Iterator[_Zone]:
        for name in zones:
            zone = found.get(name)
            if zone is None:
                seen.fail([name], _unseen(name, session.ref))
                continue
            self._found[name] = zone
            if zone.status not in ("active", ""):
                seen.problems.append(_inactive(zone))
            yield zone

    def _reach(self, name: str, reveal: Reveal) -> tuple[_Session, _Zone]:
        ref = self._token(name)
        if ref is None:
            raise _Unsent("no token is for this zone", "name it in targets.cloudflare")
        session = self._session(ref, reveal)
        if name not in self._found:
            found = _find((session, [name]))
            if name not in found:
                raise _unseen(name, ref)
            self._found[name] = found[name]
        return session, self._found[name]


def _unseen(name: str, ref: SecretRef) -> _Failure:
    return _Unsent(
        f"the token {ref} sees no zone of this name",
        f"add {name} at Cloudflare, or give the token {_READ_ZONES} and {_EDIT_RECORDS} for it",
    )


def _inactive(zone: _Zone) -> Problem:
    return Problem(
        f"dns/{zone.name}",
        f"Cloudflare does not serve this zone: it is {zone.status}",
        "set Cloudflare's name servers at the registrar; records can be kept before that",
        Severity.WARNING,
    )


def _find(wanted: tuple[_Session, list[str]]) -> dict[str, _Zone]:
    """Look zones up with one token: one by its name, several in the listing of all. Raises `_Failure`."""
    session, names = wanted
    if len(names) == 1:
        items, *_ = _items(session.get("/zones", {"name": names[0]}, _READ_ZONES), "the listing of zones")
        pages: Iterable[list[dict[str, Any]]] = [items]
    else:
        pages = _pages(session, "/zones", _READ_ZONES, "the listing of zones", _ZONES_PAGE)
    found: dict[str, _Zone] = {}
    for page in pages:
        for raw in page:
            try:
                name = dns.host(raw.get("name"))
            except (ValueError, TypeError):
                continue
            if name in names and re.fullmatch(r"[A-Za-z0-9]+", str(raw.get("id"))):
                found[name] = _Zone(name, session.ref, raw["id"], str(raw.get("status") or ""))
        if len(found) == len(names):
            break
    return found


def _read(found: tuple[_Session, _Zone]) -> list[Live]:
    session, zone = found
    return _listing(session, zone.name, zone.id)


# ---------------------------------------------------------------------------------------------------------- writing
class _Now:
    """A zone's records by id and by group."""

    def __init__(self, lives: Iterable[Live]) -> None:
        self.ids: dict[str | None, Live] = {}
        self.groups: dict[tuple[str, ...], list[Live]] = defaultdict(list)
        for live in lives:
            self.ids[live.id] = live
            self.groups[live.resource.group].append(live)


@dataclass(frozen=True, slots=True)
class _Operation:
    """What one change sends: a deletion, a patch, a new record, or, for a change of type, the first and the last."""

    change: Change
    delete: str | None = None
    patch: dict[str, Any] | None = None
    post: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        return sum(part is not None for part in (self.delete, self.patch, self.post))

    @property
    def growth(self) -> int:
        return (self.post is not None) - (self.delete is not None)

    def holds(self, now: _Now) -> bool:
        """Say whether what is live now is what this operation makes."""
        after = self.change.after
        if self.delete in now.ids or after is None:
            return self.delete not in now.ids
        if self.patch is None:
            return any(not differences(after, item.resource) for item in now.groups.get(after.group, ()))
        item = now.ids.get(self.patch["id"])
        if item is None or differences(after, item.resource):
            return False
        return "comment" not in self.patch or (item.detail or "") == self.patch["comment"]

    def outcome(self, status: Status, failure: _Failure | None = None) -> Outcome:
        problem = None if failure is None else failure.problem(self.change.address)
        return Outcome(self.change, status, problem, self.notes if status is Status.DONE else ())


def _forbidden(change: Change, stack: str) -> _Failure | None:
    """Say why a change must not be made, whatever the plan says: the last fence before others' records."""
    live = change.before
    if change.after is not None and cast("Record", change.after).content is UNKNOWN:
        return _Unsent("its content is not known yet", "plan again")
    if live is None:
        return None
    if live.fixed:
        return _Unsent(f"it can't be changed: {live.fixed}", "remove it where it was made")
    if live.owner not in (None, stack) or (change.after is None and live.owner is None):
        owner = f"the stack {live.owner}" if live.owner else "nobody we know"
        return _Unsent(f"it belongs to {owner}", "remove it at Cloudflare, if it should go")
    return None


def _operation(change: Change, stack: str) -> _Operation:
    live, after = change.before, cast("Record | None", change.after)
    if after is None:
        return _Operation(change, delete=cast("Live", live).id)
    if live is not None and cast("Record", live.resource).type == after.type:
        return _patching(change, live, after, stack)
    text = None if after.comment is UNMANAGED else cast("str | None", after.comment)
    comment, notes = _comment(text, stack)
    post = {"type": after.type, "name": dns.absolute(after.name, after.zone), "ttl": after.ttl, **_value(after)}
    if after.type in dns.PROXIABLE:
        post["proxied"] = after.proxied
    post["comment"] = comment
    return _Operation(change, delete=None if live is None else live.id, post=post, notes=notes)


def _patching(change: Change, live: Live, after: Record, stack: str) -> _Operation:
    """Send what must change, and nothing else: what a PATCH leaves out stays (a PUT would put defaults there)."""
    before = cast("Record", live.resource)
    body: dict[str, Any] = {}
    if (before.content, before.data, before.priority) != (after.content, after.data, after.priority):
        body |= _value(after)
    if before.proxied != after.proxied:
        body |= {"proxied": after.proxied, "ttl": after.ttl}
    elif before.ttl != after.ttl:
        body["ttl"] = after.ttl
    kept = live.detail if live.owner is None else before.comment  # another's text is kept to the byte
    text = kept if after.comment in (UNMANAGED, before.comment) else after.comment
    comment, notes = _comment(cast("str | None", text), stack)
    if comment != (live.detail or ""):
        body["comment"] = comment
    return _Operation(change, patch={"id": live.id, **body} if body else None, notes=notes)


def _comment(text: str | None, stack: str) -> tuple[str, tuple[str, ...]]:
    comment = dns.marked(text, stack)
    if comment is not None:
        return comment, ()
    return text or "", ("our mark does not fit into its comment: it is kept as declared, but never removed by us",)


def _value(record: Record) -> dict[str, Any]:
    """Return what a record says, in the API's words. A priority of 0 must be sent (RFC 7505)."""
    content = dns.quoted(str(record.content)) if record.type == "TXT" else record.content
    value: dict[str, Any] = {"content": content} if record.data is None else {"data": dns.wire_data(record)}
    return value if record.priority is None else value | {"priority": record.priority}


_Unit = list[_Operation]
"""Operations at one name: they may need each other, and so are never torn apart."""


class _Writing:
    """The changes of one zone on their way."""

    def __init__(self, session: _Session, zone: _Zone, stack: str) -> None:
        self._session = session
        self._zone = zone
        self._stack = stack
        self._ended: _Failure | None = None  # why nothing else is sent

    def run(self, changes: Sequence[Change], stopped: Stopped) -> Iterator[Outcome]:
        units: dict[str, _Unit] = defaultdict(list)
        for change in changes:
            if failure := _forbidden(change, self._stack):
                yield Outcome(change, Status.FAILED, failure.problem(change.address))
                continue
            operation = _operation(change, self._stack)
            if operation.size:
                units[cast("Record", change.resource).name].append(operation)
            else:
                yield operation.outcome(Status.DONE)
        for batch in _packed(units.values()):
            if stopped():
                return
            yield from self._write(batch)

    def _write(self, units: Sequence[_Unit], *, again: bool = False, settled: bool = False) -> Iterator[Outcome]:
        """Write units as one batch, which happens as a whole or not at all.

        ``again`` says that an answer to it was lost before, ``settled`` that the zone was listed on its account.
        """
        if not units:
            return
        if self._ended is not None:
            yield from _each(units, Status.SKIPPED, self._ended)
            return
        try:
            self._batch(units)
        except _Refused as refusal:
            yield from self._refused(units, refusal, settled=settled)
        except _Lost as loss:
            yield from self._lost(units, loss, again=again)
        except _Failure as failure:
            self._ended = failure
            yield from _each(units, Status.FAILED, failure)
        else:
            yield from _each(units, Status.DONE)

    def _batch(self, units: Sequence[_Unit]) -> None:
        operations = [operation for unit in units for operation in unit]
        # A DS needs an NS at its name: it goes before the NS, and comes after it.
        deletes = sorted(
            (item for item in operations if item.delete), key=lambda item: _type(item.change.before) != "DS"
        )
        posts = sorted((item for item in operations if item.post), key=lambda item: item.post["type"] == "DS")  # type: ignore[index]
        body: dict[str, list[Any]] = {
            "deletes": [{"id": item.delete} for item in deletes],
            "patches": [item.patch for item in operations if item.patch],
            "posts": [item.post for item in posts],
        }
        body = {verb: items for verb, items in body.items() if items}
        path = f"/zones/{self._zone.id}/dns_records/batch"
        result = self._session.post(path, body, _EDIT_RECORDS).get("result")
        told = {verb: result.get(verb) for verb in body} if isinstance(result, dict) else {}
        if {verb: len(items or ()) for verb, items in told.items()} != {
            verb: len(items) for verb, items in body.items()
        }:
            raise _Lost("the answer to the batch does not say what was done", "plan again")

    def _refused(self, units: Sequence[_Unit], refusal: _Refused, *, settled: bool) -> Iterator[Outcome]:
        """Write what a refusal does not mean: one record must not hold up the rest."""
        if refusal.final:
            self._ended = refusal
            yield from _each(units, Status.FAILED, refusal)
        elif _QUOTA in refusal.codes:
            growing = [sum(operation.growth for operation in unit) > 0 for unit in units]
            yield from _each(
                [unit for unit, grows in zip(units, growing, strict=True) if grows], Status.FAILED, refusal
            )
            rest = [unit for unit, grows in zip(units, growing, strict=True) if not grows]
            yield from self._write(rest) if len(rest) < len(units) else _each(rest, Status.FAILED, refusal)
        elif refusal.codes & _CONTRADICTED and not settled:
            yield from self._contradicted(units, refusal)
        else:
            yield from self._parted(units, refusal)

    def _contradicted(self, units: Sequence[_Unit], refusal: _Refused) -> Iterator[Outcome]:
        """The zone changed since the plan: list it, settle what that settles, and write the rest."""
        try:
            now = self._relist()
        except _Failure as failure:
            self._ended = failure
            yield from _each(units, Status.FAILED, failure)
            return
        rest: list[_Unit] = []
        for unit in units:
            left = []
            for operation in unit:
                before = operation.change.before
                if operation.holds(now):
                    yield operation.outcome(Status.DONE)
                elif before is not None and before.id not in now.ids:
                    yield operation.outcome(Status.FAILED, _Unsent("it changed since the plan", "plan again"))
                else:
                    left.append(operation)
            if left:
                rest.append(left)
        if sum(map(len, rest)) == sum(map(len, units)):
            yield from self._parted(rest, refusal)
        else:
            yield from self._write(rest)

    def _parted(self, units: Sequence[_Unit], refusal: _Refused) -> Iterator[Outcome]:
        """Write a refused batch in parts: the API names no operation, but its text may, and halving always tells."""
        named = self._named(units, refusal.text)
        if len(units) == 1:
            yield from _each(units, Status.FAILED, refusal)
        elif named is not None:
            yield from self._write([unit for unit in units if unit is not named], settled=True)
            yield from self._write([named], settled=True)
        else:
            middle = len(units) // 2
            yield from self._write(units[:middle], settled=True)
            yield from self._write(units[middle:], settled=True)

    def _named(self, units: Sequence[_Unit], text: str) -> _Unit | None:
        def means(unit: _Unit) -> bool:
            name = dns.absolute(cast("Record", unit[0].change.resource).name, self._zone.name)
            return re.search(rf"(?<![\w.-]){re.escape(name)}(?![\w-]|\.\w)", text) is not None

        named = [unit for unit in units if means(unit)]
        return named[0] if len(named) == 1 else None

    def _lost(self, units: Sequence[_Unit], loss: _Lost, *, again: bool) -> Iterator[Outcome]:
        """An answer is lost: only the zone can tell what happened, and a batch that did not may be sent once more."""
        try:
            now = self._relist()
        except _Failure:
            self._ended = loss
            yield from _each(units, Status.UNKNOWN, loss)
            return
        operations = [operation for unit in units for operation in unit]
        true = [operation.holds(now) for operation in operations]
        if not any(true) and not again:
            yield from self._write(units, again=True)
            return
        if not all(true):
            self._ended = loss
        for operation, holds in zip(operations, true, strict=True):
            yield operation.outcome(Status.DONE) if holds else operation.outcome(Status.UNKNOWN, loss)

    def _relist(self) -> _Now:
        return _Now(_listing(self._session, self._zone.name, self._zone.id))


def _type(live: Live | None) -> str:
    return "" if live is None else cast("Record", live.resource).type


def _each(units: Iterable[_Unit], status: Status, failure: _Failure | None = None) -> Iterator[Outcome]:
    for unit in units:
        for operation in unit:
            yield operation.outcome(status, failure)


def _packed(units: Iterable[_Unit]) -> list[list[_Unit]]:
    """Pack units into as few batches as they fit into; only a name with more than a batch's worth is torn apart."""
    batches: list[list[_Unit]] = []
    room: list[tuple[int, list[_Unit]]] = []
    for unit in (part for whole in units for part in _parts(whole)):
        size = sum(operation.size for operation in unit)
        index = next((index for index, (left, _) in enumerate(room) if left >= size), len(room))
        if index == len(room):
            batches.append([])
            room.append((BATCH_LIMIT, batches[-1]))
        left, batch = room.pop(index)
        batch.append(unit)
        if left > size:
            room.insert(index, (left - size, batch))
    return batches


def _parts(unit: _Unit) -> Iterator[_Unit]:
    """Cut what is too large for a batch, removals first."""
    if sum(operation.size for operation in unit) <= BATCH_LIMIT:
        yield unit
        return
    ordered = sorted(unit, key=lambda operation: operation.growth)
    step = BATCH_LIMIT // 2
    yield from (ordered[at : at + step] for at in range(0, len(ordered), step))
