"""HTTP for all that we ask: one transport with bounds of size and time, and what became of a request without an answer.

The transport reads each answer to its end, whatever its status, before anybody sees it: no client above it can wait or
unpack without bounds. Redirects are never followed: they would carry a password or a token along. No error quotes a
request.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import select
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from reconciler import fence, heartbeat, throttle, url
from reconciler.deadline import Deadline, TooMuch
from reconciler.url import Admits, Url

if TYPE_CHECKING:
    import socket

    import httpcore
    import httpx

_E = TypeVar("_E", bound=BaseException)
_CONNECT = 10.0  # seconds for one address of a host
_OVERHEAD = 1 << 20  # bytes of heads, and of what surrounds the pieces of a body
_READS = frozenset({"GET", "HEAD", "OPTIONS"})
_DEEPEST = 64  # levels of JSON; what the APIs answer has about ten


class Unanswered(Exception):
    """No answer came. Its text is the cause; ``__cause__`` is the client's own error, where there is one."""


class Unsent(Unanswered):
    """There was no connection: nothing can have happened, and the request may be repeated."""


class Lost(Unanswered):
    """The request was sent, and its answer never came: it may have been carried out or not."""


class Endless(Lost):
    """The answer is larger, or takes longer, than any that is meant well."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one request may cost.

    ``largest`` is of the answer's body in bytes, unpacked. ``seconds`` are for all of it, from connecting to the last
    byte; ``silence`` for each wait in between, ``connect`` for each address of the host. What stands behind
    ``largest`` is not read where ``cut`` is set.
    """

    largest: int
    seconds: float
    silence: float | None = None
    connect: float = _CONNECT
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered. The names of ``headers`` are in lower case."""

    status: int
    body: bytes
    content_type: str
    headers: Mapping[str, str]

    def json(self) -> Any:
        """Parse the body; None when it is not JSON."""
        return parsed(self.body)

    def word(self, name: str) -> str:
        """Return a text of a problem document (RFC 9457), empty where there is none."""
        body = self.json()
        return str(body.get(name) or "") if isinstance(body, dict) else ""


spent: dict[tuple[str, str], tuple[int, float]] = {}
"""The requests so far, and the seconds they took together, by the client's name and the status ("none": no answer)."""
allowed: dict[str, int] = {}
"""How many more requests each system has last said that it takes in its present window, by the client's name."""
_LIMITS = ("x-ratelimit-remaining", "x-sib-ratelimit-remaining")  # Cloudflare's, and Brevo's
_DIGITS = 9
_spending = threading.Lock()


def _spend(name: str, code: str, seconds: float) -> None:
    with _spending:
        number, total = spent.get((name, code), (0, 0.0))
        spent[name, code] = (number + 1, total + seconds)


def _note_limit(name: str, headers: Mapping[str, str]) -> None:
    for word in _LIMITS:
        said = headers.get(word, "")
        if said.isascii() and said.isdecimal() and len(said) <= _DIGITS:
            allowed[name] = int(said)


def exchange(
    client: httpx.Client,
    method: str,
    path: str,
    *,
    bounds: Bounds | None = None,
    reads: bool = False,
    **request: Any,
) -> Answer:
    """Send one request once and read its answer, whatever its status. Raises `Unsent` and `Lost`, `LeaseLost`.

    ``client`` is one of `client`; ``bounds`` hold in place of its own. ``reads`` says of a POST that it changes
    nothing, so that the fence (`reconciler.fence`) is not asked.
    """
    import httpx

    extensions = {"bounds": bounds, "reads": reads}
    try:
        response = client.request(method, path, follow_redirects=False, extensions=extensions, **request)
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:  # the last of what no header may hold
        raise Unsent(f"can't be asked: {type(error).__name__}") from None
    headers = dict(response.headers)
    return Answer(response.status_code, response.content, headers.get("content-type", "")[:100], headers)


# --------------------------------------------------------------------------------------------------------------- JSON
def parsed(body: bytes, part: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """Parse JSON from outside; ``part`` is given every object, the innermost first.

    None for what is none, and for what no server means: nested without end, numbers that are none, halves of
    characters, which could not be written anywhere. It is UTF-8 (RFC 8259 section 8.1): of bytes, `json` would guess
    another coding, and let halves of characters through.
    """
    try:
        text = body.decode("utf-8-sig")
        value = json.loads(text, object_hook=part, parse_constant=_refuse, parse_float=_finite)
        if "\\ud" in text or "\\uD" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return None
    return value if _is_shallow(value) else None


def _refuse(_: str) -> float:
    raise ValueError("is no number")


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refuse(text)


def _is_shallow(value: Any) -> bool:
    level = [value]
    for _ in range(_DEEPEST):
        containers = [
            item.values() if isinstance(item, dict) else item for item in level if isinstance(item, dict | list)
        ]
        level = [inner for items in containers for inner in items if type(inner) in (dict, list)]
        if not level:
            return True
    return False


# ------------------------------------------------------------------------------------------------------------- client
Dial = Callable[[Deadline, Bounds], "socket.socket"]
"""Makes a connection to where a client's requests go. Raises OSError."""


def client(
    address: Url,
    bounds: Bounds,
    *,
    trust: Callable[[], ssl.SSLContext] | None = None,
    admits: Admits | None = None,
    proxied: bool = False,
    dial: Dial | None = None,
    headers: Mapping[str, str] | None = None,
    name: str = "other",
) -> httpx.Client:
    """Make a client for what lies below an address, to be closed; nothing is sent yet. Raises `Unsent`.

    ``trust`` says whose certificates count (those that httpx trusts when it is None): with TLS they are always
    verified. In clear a name must lead where ``admits`` allows, by itself where `Url.admits` does. ``proxied``
    goes through the proxy that the environment names, with TLS only: it sees none of what is sent. ``dial`` connects in
    place of TCP. ``name`` is what its requests are counted under.
    """
    import httpx

    dial = dial or _tcp(address, admits or address.admits)
    transport = _Transport(address, bounds, trust, dial, proxied=proxied, name=name)
    return httpx.Client(
        base_url=address.url,
        transport=cast("httpx.BaseTransport", transport),
        headers=headers,
        trust_env=False,
    )


def _tcp(address: Url, admits: Admits) -> Dial:
    def dial(deadline: Deadline, bounds: Bounds) -> socket.socket:
        return deadline.connect(address.host, address.port, bounds.connect, admits)

    return dial


class _Now(threading.local):
    """The request that this thread makes, and what it costs: its connection may be one that an earlier one made."""

    deadline: Deadline
    bounds: Bounds
    writes: bool


_now = _Now()


class _Transport:
    """What carries a request: an `httpx.BaseTransport` whose answers are whole, unpacked and within bounds."""

    def __init__(
        self,
        address: Url,
        bounds: Bounds,
        trust: Callable[[], ssl.SSLContext] | None,
        dial: Dial,
        *,
        proxied: bool,
        name: str,
    ) -> None:
        import httpcore
        import httpx

        self._address, self._bounds, self._name = address, bounds, name
        settings: dict[str, Any] = {"max_connections": 100, "max_keepalive_connections": 20, "keepalive_expiry": 5}
        if address.tls:
            settings["ssl_context"] = (trust or httpx.create_ssl_context)()
        through = _proxy(address) if proxied and address.tls else None
        if through is None:
            self._pool = httpcore.ConnectionPool(network_backend=cast("Any", _Backend(dial)), **settings)
        else:
            proxy, login = through
            backend = cast("Any", _Backend(_tcp(proxy, lambda _: True)))
            settings |= {"proxy_url": proxy.url, "proxy_auth": login, "network_backend": backend}
            self._pool = httpcore.HTTPProxy(**settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Carry out a request, and count it. Raises `Unsent` and `Lost`, and `LeaseLost` for one that writes."""
        throttle.wait(self._name)
        began, code = time.monotonic(), "none"
        try:
            response = self._carried(request)
            code = str(response.status_code)
            _note_limit(self._name, response.headers)
        finally:
            _spend(self._name, code, time.monotonic() - began)
        return response

    def _carried(self, request: httpx.Request) -> httpx.Response:
        import httpcore
        import httpx

        bounds = request.extensions.get("bounds") or self._bounds
        _now.writes = request.method not in _READS and not request.extensions.get("reads")
        heartbeat.waiting(bounds.seconds)
        _now.bounds, _now.deadline = bounds, Deadline(bounds.seconds, 4 * bounds.largest + _OVERHEAD)
        if request.headers.get("accept-encoding") != "identity":
            request.headers["accept-encoding"] = "gzip"
        target, silence = request.url, bounds.silence or bounds.seconds
        if (target.scheme, target.host) != (self._address.scheme, self._address.host):
            raise Unsent("the request would go elsewhere")
        sent = httpcore.Request(
            request.method,
            httpcore.URL(scheme=target.raw_scheme, host=target.raw_host, port=target.port, target=target.raw_path),
            headers=request.headers.raw,
            content=cast("Any", request.stream),
            extensions={"timeout": {"connect": None, "read": silence, "write": silence, "pool": bounds.seconds}},
        )
        try:
            answer = self._pool.handle_request(sent)
            try:
                content = _content(answer, bounds)
            finally:
                answer.close()
        except _errors() as error:
            raise unanswered(error, _now.deadline) from error
        fence.progress()
        # httpx would unpack again what is unpacked, and send a cookie on with the next login or token.
        headers = [item for item in answer.headers if item[0].lower() not in (b"content-encoding", b"set-cookie")]
        return httpx.Response(answer.status, headers=headers, content=content, request=request)


def _errors() -> tuple[type[Exception], ...]:
    """Return what may go wrong while an answer is read."""
    import httpcore

    return (
        OSError,
        zlib.error,
        httpcore.NetworkError,
        httpcore.TimeoutException,
        httpcore.ProtocolError,
        httpcore.ProxyError,
        httpcore.UnsupportedProtocol,
    )


# --------------------------------------------------------------------------------------------------------- the answer
def _content(answer: httpcore.Response, bounds: Bounds) -> bytes:
    """Read a body within its bounds. Raises `Lost`, and the errors of httpcore and zlib."""
    headers = [(name.lower(), value) for name, value in answer.headers]
    announced = next((value for name, value in headers if name == b"content-length"), b"")
    if announced.isdigit() and int(announced[:20]) > bounds.largest and not bounds.cut:
        raise Endless("the answer is too large")
    content = bytearray()
    for chunk in _unpacked(answer.iter_stream(), _coding(headers), bounds):
        content += chunk
        if len(content) > bounds.largest:
            if bounds.cut:
                break
            raise Endless("the answer is too large")
    del content[bounds.largest :]
    return bytes(content)


def _coding(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Return how a body is packed: not at all, or once with gzip, which alone is asked for. Raises `Lost`."""
    words = b",".join(value for name, value in headers if name == b"content-encoding").decode("ascii", "replace")
    codings = [word.strip().lower() for word in words.split(",") if word.strip().lower() not in ("", "identity")]
    if codings in ([], ["gzip"], ["x-gzip"]):
        return "gzip" if codings else ""
    raise Lost("the answer is packed in a way that was not asked for")


def _unpacked(chunks: Iterable[bytes], coding: str, bounds: Bounds) -> Iterator[bytes]:
    """Unpack a body piece by piece, never more of a piece than may still come."""
    if not coding:
        yield from chunks
        return
    unpack, left, empty = zlib.decompressobj(zlib.MAX_WBITS | 16), bounds.largest + 1, True
    for chunk in chunks:
        empty = empty and not chunk
        if unpack.eof and chunk:
            raise Lost("the answer goes on behind its end")
        piece = unpack.decompress(chunk, left)
        left = max(1, left - len(piece))
        yield piece
    if not (unpack.eof or empty):
        raise Lost("the answer breaks off")


def unanswered(error: BaseException, deadline: Deadline | None = None) -> Unanswered:
    """Tell a connection that was never made from an answer that never came, by the error of httpcore."""
    import httpcore

    never = httpcore.ConnectError | httpcore.ConnectTimeout | httpcore.PoolTimeout
    if isinstance(error, httpcore.ProxyError):  # behind its status stands what a proxy likes: it may be our own login
        return Unsent(f"the proxy answers {str(error).partition(' ')[0]}")
    if isinstance(error, never | httpcore.UnsupportedProtocol):
        return Unsent(str(error) or type(error).__name__)
    if isinstance(error, TooMuch) or (deadline is not None and deadline.received and deadline.over):
        return Endless("the answer does not end")
    text = str(error) or type(error).__name__
    if isinstance(error, httpcore.ProtocolError) and not text.startswith("Server disconnected"):
        text = "it is no HTTP, or breaks off"  # the error quotes it, and it may be our own request
    return Lost(text)


def short(text: str, most: int = 500) -> str:
    """Return what a server said, whole or not at all: half of a secret is not known for one."""
    return text if len(text) <= most else f"a text of {len(text)} characters"


def timed_out(error: Unanswered) -> bool:
    """Whether the other side took longer than the client's own bounds."""
    import httpcore

    return isinstance(error.__cause__, httpcore.TimeoutException)


def cause(error: BaseException, kind: type[_E]) -> _E | None:
    """Find an error of a kind among the causes of another one."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, kind):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None


def retry_after(headers: Mapping[str, str], *others: str) -> float | None:
    """Return the seconds that a refusal asks to wait (RFC 9110 section 10.2.3: a number or a date), None without any.

    ``others`` are headers in which a vendor says it where ``Retry-After`` does not stand.
    """
    text = next((headers[name] for name in ("retry-after", *others) if headers.get(name)), "")
    if re.fullmatch(r"\d{1,9}(\.\d+)?", text, re.ASCII):
        return float(text)
    from email.utils import parsedate_to_datetime

    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


# --------------------------------------------------------------------------------------------------------- connections
class _Backend:
    """What httpcore makes its connections with."""

    def __init__(self, dial: Dial) -> None:
        self._dial = dial

    def connect_tcp(self, host: str, port: int, timeout: float | None = None, **_: object) -> _Stream:  # noqa: ARG002
        """Connect; to where is settled by the address that was parsed, which ``host`` and ``port`` come from."""
        with _mapped("Connect"):
            return _Stream(self._dial(_now.deadline, _now.bounds))


class _Stream:
    """A connection on which every wait ends at the deadline of the request under way."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Receive what there is."""
        with _mapped("Read"):
            return _now.deadline.receive(self._socket, max_bytes, timeout)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send all of it; a part that is withheld leaves a request that nobody carries out."""
        if _now.writes and buffer:
            fence.before_write()
        with _mapped("Write"):
            _now.deadline.send(self._socket, buffer, timeout)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> _Stream:
        """Go over to TLS; a handshake is over within its timeout, however it drips."""
        with _mapped("Connect"):
            try:
                self._socket.settimeout(_now.deadline.left(timeout))
                return _Stream(ssl_context.wrap_socket(self._socket, server_hostname=server_hostname))
            except BaseException:
                self.close()
                raise

    def get_extra_info(self, info: str) -> Any:
        """Tell what httpcore asks of a connection."""
        if info != "is_readable":  # asked before a connection is used again
            return None
        waiting = select.poll()
        waiting.register(self._socket, select.POLLIN)
        return bool(waiting.poll(0))


@contextlib.contextmanager
def _mapped(phase: str) -> Iterator[None]:
    """Raise the errors of a connection as httpcore knows them."""
    import httpcore

    try:
        yield
    except TooMuch:
        raise
    except TimeoutError as error:
        raise getattr(httpcore, f"{phase}Timeout")(str(error) or "timed out") from error
    except OSError as error:
        raise getattr(httpcore, f"{phase}Error")(str(error)) from error


def _proxy(address: Url) -> tuple[Url, tuple[str, str] | None] | None:
    """Return the proxy that the environment names for an address, and its login. Raises `Unsent` for no http://."""
    from urllib.parse import unquote
    from urllib.request import getproxies, proxy_bypass

    named = getproxies()
    text = named.get("https") or named.get("all") or ""
    if not text or address.is_loopback or proxy_bypass(address.host):
        return None
    scheme, separator, rest = text.rpartition("://")
    login, _, place = rest.rpartition("@")
    try:
        through = url.parse(f"{scheme or 'http'}://{place.rstrip('/')}", ("http",))
    except url.NoUrl as error:
        kind = "is no http:// proxy, the only kind there is here" if separator else error.summary
        raise Unsent(f"HTTPS_PROXY or ALL_PROXY {kind}: write http://HOST:PORT, or name the host in NO_PROXY") from None
    user, _, password = login.partition(":")
    return through, ((unquote(user), unquote(password)) if login else None)
