"""The official package as the transport: its generic calls with raw responses, its retries off.

What may be repeated is decided here, because a POST that is sent again after a lost answer is a second write; what
goes wrong is told apart by what may have happened at Cloudflare.
"""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from reconciler import heartbeat, http
from reconciler.problem import LeaseLost, Problem
from reconciler.resources import SecretRef
from reconciler.target import Progress, Stopped
from reconciler.url import NoUrl, parse

if TYPE_CHECKING:
    import httpx

_TRIES = 3
_PAUSE = 0.25  # seconds before the second try of a read
_GLANCE = 0.5  # seconds between two looks at whether to stop
_SILENCE = 60.0  # seconds to wait after a 429 that does not say how long
_ON_THE_WAY = "check base_url, and proxies on the way"
_LARGEST = 64 << 20  # bytes of an answer; five thousand records are 3 MiB


class Failure(Exception):
    """A request that did not do what it should: ``summary`` is the cause, ``hint`` the remedy."""

    def __init__(self, summary: str, hint: str = "") -> None:
        super().__init__(summary)
        self.summary = summary
        self.hint = hint

    def problem(self, where: str, scope: str = "") -> Problem:
        """Say at an address what went wrong; ``scope`` is what it blocks."""
        return Problem(where, self.summary, self.hint, scope=scope)


class Unsent(Failure):
    """No connection: nothing can have happened."""


class Lost(Failure):
    """No answer, or none that can be read: what was asked for may have happened."""


class Unending(Lost):
    """An answer larger or slower than any that is meant well: whoever answers so is not asked again."""


class Torn(Failure):
    """A listing that contradicts itself."""


class Throttled(Failure):
    """Refused for its rate: nothing happened, and nothing will for ``seconds``."""

    def __init__(self, summary: str, seconds: float) -> None:
        super().__init__(summary, "run it again when Cloudflare's limit (1,200 requests in 5 minutes) allows")
        self.seconds = seconds


class Refused(Failure):
    """The API said no: nothing happened. ``final`` is a no to whatever else is asked of this zone."""

    def __init__(self, what: str, text: str, hint: str, codes: frozenset[int], *, final: bool) -> None:
        super().__init__(f"{what}: {text}", hint)
        self.text = text
        self.codes = codes
        self.final = final


INVALID_TOKEN = 9109
TOKEN_CODES = frozenset({6003, 6102, 6103, 6111, 9106, INVALID_TOKEN})
ROUTE_CODES = frozenset({7000, 7003})
MISSING = 81044
QUOTA = 81045
CONTRADICTED = frozenset({MISSING, 81053, 81054, 81056, 81057, 81058})  # by what is there now
_NAMES = "names are relative to the zone, like mail, @ or _imaps._tcp"
_HOSTS = "write a whole host, like mail.example.com: no URL, no port, no address, no wildcard"
HINTS = {
    9000: f"correct its name: {_NAMES}",
    9003: "set proxied: false",
    9004: "set proxied: false: only A, AAAA and CNAME can be proxied",
    9005: "correct its content: an IPv4 address, like 192.0.2.1",
    9006: "correct its content: an IPv6 address, like 2001:db8::1",
    9007: f"correct its content: {_HOSTS}",
    9008: f"correct its content: {_HOSTS}",
    9009: f"correct its content: {_HOSTS}",
    9015: "shorten its content: 4,096 bytes are allowed, each string of 255 with one more",
    9021: "ttl must be auto, or 60 to 86400 seconds",
    9036: "correct its name, _SERVICE._PROTOCOL as in _imaps._tcp, and its data",
    9039: "an alias can't lead to its own name: correct content, or the name",
    9041: "set proxied: false",
    9051: "write printable ASCII alone: look for typographic quotes, dashes and blanks",
    9101: "correct its data: each part is there, and in its range",
    9150: "correct its name, _SERVICE._PROTOCOL as in _imaps._tcp: both begin with an underscore",
    9300: "remove tags: the zone's plan has none left",
    9313: "shorten the comment: our mark needs a part of Cloudflare's 100 characters",
    MISSING: "it changed since the plan: plan again",
    QUOTA: "remove records that are not needed, or choose a larger plan at Cloudflare",
    81053: "a CNAME stands alone at its name (RFC 1034 section 3.6.2): declare or remove the other record",
    81054: "a CNAME stands alone at its name (RFC 1034 section 3.6.2): declare or remove it",
    81056: "NS records delegate the whole name: nothing but DS can stand beside them",
    81057: "plan again: an equal record is adopted",
    81058: "plan again: an equal record is adopted",
    83011: "the TXT records of its name are longer than 8,192 bytes together: remove some, or shorten them",
}


def leaves(errors: Any) -> Iterator[tuple[int, str]]:
    """Yield code and text of errors; what is useful stands at the end of their chains (terraform#3217)."""
    for error in errors if isinstance(errors, list) else ():
        if not isinstance(error, dict):
            continue
        chain = list(leaves(error.get("error_chain")))
        yield from chain
        if not chain and isinstance(error.get("code"), int):
            yield error["code"], str(error.get("message") or "no reason given")


class Line:
    """What all requests share: the connections, patience, and whom to tell about waiting."""

    def __init__(self, base_url: str, progress: Progress, patience: float, timeout: float) -> None:
        """Prepare a client; nothing is sent yet. Raises `Unsent` for what is no URL, or would be asked in clear."""
        try:
            address = parse(base_url)
        except NoUrl as error:
            raise Unsent(f"can't connect: base_url {error.summary}", error.hint) from None
        if not address.may_go_plain():
            raise Unsent(f"{address.url} would get the token in clear text", "use https")
        self.base_url = address.url
        self.progress = progress
        self.patience = patience
        self.stopped = threading.Event()
        self.stop: Stopped = lambda: False  # what an application asks between its writes
        # One for all its tokens: a context for TLS takes long to make.
        bounds = http.Bounds(_LARGEST, seconds=2 * timeout, silence=timeout, connect=min(10.0, timeout))
        try:
            self.http = http.client(address, bounds, proxied=True, name="cloudflare")
        except http.Unsent as error:
            raise Unsent(f"{address.url}: can't connect: {error}", "or reach it without a proxy") from None

    def wait(self, seconds: float, why: str) -> None:
        """Wait, and say what for. Raises `Unsent` when a signal comes: a rate limit lasts minutes."""
        self.progress(f"Cloudflare: {why}; going on in {seconds:.0f} s" if seconds >= 1 else f"Cloudflare: {why}")
        heartbeat.waiting(seconds)
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if self.stop() or self.stopped.wait(min(left, _GLANCE)):
                raise Unsent("stopped while Cloudflare's rate limit was waited for", "run it again")


class Session:
    """Requests with one token."""

    def __init__(self, line: Line, ref: SecretRef, token: str) -> None:
        from cloudflare import Cloudflare as Sdk

        if not re.fullmatch(r"[!-~]+", token):
            raise Unsent(
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
        """Read, again after a throttling or a fault; ``right`` is what the token needs. Raises `Failure`."""
        began, tries, throttled = time.monotonic(), 0, 0
        while True:
            try:
                return self._send("GET", path, right, query=query)
            except Throttled as error:
                failure: Failure = error
                throttled += 1
                pause = _pause(error, throttled)
            except (Lost, Unsent) as error:
                failure, tries = error, tries + 1
                if tries == _TRIES or self._line.stopped.is_set() or isinstance(error, Unending):
                    raise
                pause = _PAUSE * 2 ** (tries - 1) * random.uniform(0.5, 1.0)  # noqa: S311 (no secret)
            if time.monotonic() - began + pause > self._line.patience:
                raise failure
            self._line.wait(pause, failure.summary)

    def post(self, path: str, body: Mapping[str, Any], right: str) -> dict[str, Any]:
        """Write once; again only after a throttling, which is a refusal. Raises `Failure`."""
        began, throttled = time.monotonic(), 0
        while True:
            try:
                return self._send("POST", path, right, body=body)
            except Throttled as error:
                throttled += 1
                pause = _pause(error, throttled)
                if time.monotonic() - began + pause > self._line.patience:
                    raise
                self._line.wait(pause, error.summary)

    def _send(
        self, method: str, path: str, right: str, *, query: Mapping[str, Any] | None = None, body: Any = None
    ) -> dict[str, Any]:
        what = f"{method} {self._line.base_url}{path}"
        response = self._exchange(what, method, path, query, body)
        status = response.status_code
        if status == 429:  # noqa: PLR2004 (Too Many Requests)
            asked = http.retry_after(response.headers, "x-ratelimit-reset")
            raise Throttled(f"{what}: too many requests (429)", _SILENCE if asked is None else asked)
        if status >= 500 or status == 408:  # noqa: PLR2004 (the server's fault; Request Timeout)
            raise Lost(f"{what}: Cloudflare failed with {status}", "try again; see https://www.cloudflarestatus.com")
        answer = http.parsed(response.content, _read_part)
        if isinstance(answer, dict) and answer.get("success") is True and response.is_success:
            return answer
        if isinstance(answer, dict) and (answer.get("success") is False or not response.is_success):
            raise self._refusal(what, status, answer.get("errors"), right)
        if response.is_success:
            raise Lost(f"{what}: the answer is not the API's JSON", _ON_THE_WAY)
        raise self._refusal(what, status, None, right)

    def _exchange(
        self, what: str, method: str, path: str, query: Mapping[str, Any] | None, body: Any
    ) -> httpx.Response:
        """Send a request and return its answer, whatever its status: it is whole, and within bounds."""
        import httpx
        from cloudflare import APIConnectionError, APIStatusError

        raw: Any = {"cast_to": httpx.Response}
        try:
            if method == "GET":
                answer = self._sdk.get(path, options={"params": query or {}, "follow_redirects": False}, **raw)
            else:
                answer = self._sdk.post(path, body=body, options={"follow_redirects": False}, **raw)
        except APIStatusError as error:
            return error.response
        except APIConnectionError as error:
            raise _broken(what, error.__cause__ or error) from None
        return cast("httpx.Response", answer)

    def _refusal(self, what: str, status: int, errors: Any, right: str) -> Refused:
        told = list(leaves(errors))
        codes = frozenset(code for code, _ in told)
        text = "; ".join(f"{message} ({code})" for code, message in dict(told).items())
        text = http.short((text or f"HTTP {status}, and no reason is given").replace(self._token, "(the token)"))
        if told and (status in (401, 403) or codes & TOKEN_CODES):
            return Refused(what, text, self._remedy(codes, text, right), codes, final=True)
        return Refused(what, text, _advice(codes), codes, final=bool(codes & ROUTE_CODES) or not told)

    def _remedy(self, codes: frozenset[int], text: str, right: str) -> str:
        """Say what a token lacks."""
        if "location" in text:
            return f"the token {self.ref} is bound to other IP addresses: allow this machine's in the token's filter"
        if INVALID_TOKEN in codes or "token" in text.lower():
            return f"the token {self.ref} is revoked, expired or mistyped: create one and store it there"
        if codes & TOKEN_CODES:
            return f"{self.ref} does not hold an API token: put the token there, not the Global API Key"
        return f"give the token {self.ref} the right {right} for this zone; a new zone may need some minutes"


_UNREAD = frozenset(
    {"created_on", "modified_on", "comment_modified_on", "tags_modified_on", "tags", "settings", "proxiable"}
)


def _read_part(item: dict[str, Any]) -> dict[str, Any]:
    """Leave out what nobody here reads while an answer is parsed: a third of five thousand records' memory."""
    return {name: value for name, value in item.items() if name not in _UNREAD}


def _advice(codes: frozenset[int]) -> str:
    """Say what to do about a refusal that is not the token's fault."""
    if codes & ROUTE_CODES:
        return "check base_url: it ends with /client/v4"
    return "; ".join(dict.fromkeys(HINTS[code] for code in sorted(codes) if code in HINTS)) if codes else _ON_THE_WAY


def _broken(what: str, error: BaseException) -> Failure:
    """Say which request did not get an answer, and whether it can have done anything."""
    if isinstance(error, LeaseLost):
        return Unsent(error.problems[0].summary, error.problems[0].hint)
    if isinstance(error, http.Endless):
        return Unending(f"{what}: {error}", _ON_THE_WAY)
    if not isinstance(error, http.Unsent):
        return Lost(f"{what}: no answer: {error}", "check the network, and plan again")
    if "SSL" in str(error) or "CERTIFICATE" in str(error):
        return Unsent(f"{what}: TLS failed: {error}", "check the clock, the CA certificates and proxies on the way")
    return Unsent(f"{what}: can't connect: {error}", "check the network, DNS and base_url")


def _pause(error: Throttled, count: int) -> float:
    """Return how long to wait after so many refusals in a row: a server may ask for 0 seconds for ever."""
    return max(error.seconds, min(_SILENCE, _PAUSE * 2.0 ** (count - 1)))
