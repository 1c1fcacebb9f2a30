"""HTTP to one Stalwart server, either generation: who we are, what may go wrong, and what to do about it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import urlsplit

from reconciler.problem import Problem, SecretUnreadable, TargetUnreadable
from reconciler.reconcile import Progress, Reveal
from reconciler.resources import SecretRef

if TYPE_CHECKING:
    import httpx

TARGET = "stalwart"
_CONNECT, _READ = 5.0, 60.0  # seconds; a reload looks names up, which can take long
_LARGEST = 64 << 20  # bytes of one answer: 60,000 accounts
_PATIENCE = 70.0  # seconds in all that are waited because of the rate limit of 1000 requests a minute
_PAUSE = 10.0  # seconds, where the server does not say how long


_E = TypeVar("_E", bound=BaseException)


class AnswerLost(TargetUnreadable):
    """A request was sent and its answer never came: it may have been carried out or not."""


class NotFound(TargetUnreadable):
    """A path is not there: another generation, or no Stalwart at all."""


@dataclass(slots=True)
class Login:
    """As whom we ask. Each password is tried once, new before old: the server bans who keeps trying."""

    username: str
    passwords: Sequence[SecretRef]
    accepted: str | None = None
    refused: set[bytes] = field(default_factory=set)

    def candidates(self, reveal: Reveal) -> Iterator[str]:
        """Yield the password that was accepted before, then those not tried yet. Raises `SecretUnreadable`."""
        if self.accepted is not None:
            yield self.accepted
        unreadable = None
        for ref in self.passwords:
            try:
                password = reveal(ref)
            except SecretUnreadable as error:
                unreadable = error
                continue
            if self._digest(password) not in self.refused and password != self.accepted:
                yield password
        if unreadable is not None and self.accepted is None and not self.refused:
            raise unreadable

    def refuse(self, password: str) -> None:
        """Remember that the server refused a password, by its digest."""
        self.refused.add(self._digest(password))
        if password == self.accepted:
            self.accepted = None

    def renewed(self) -> None:
        """Forget what was refused: we have just given ourselves another password."""
        self.refused.clear()
        self.accepted = None

    def _digest(self, password: str) -> bytes:
        return hashlib.sha256(f"{self.username}\0{password}".encode()).digest()


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server answered."""

    status: int
    body: bytes
    content_type: str
    headers: Mapping[str, str]

    def json(self) -> Any:
        """Parse the body; None when it is not JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    def word(self, name: str) -> str:
        """Return a text of a problem document (RFC 9457), empty where there is none."""
        body = self.json()
        return str(body.get(name) or "") if isinstance(body, dict) else ""


class Connection:
    """A client for one server, to be closed. Redirects are not followed: they would carry the password along."""

    def __init__(self, url: str, login: Login, reveal: Reveal, progress: Progress) -> None:
        """Prepare a client; nothing is sent yet."""
        import httpx

        self.url, self.login, self.reveal, self.progress = url.rstrip("/"), login, reveal, progress
        self.where = f"Stalwart at {self.url}"
        # No proxy from the environment: it would be told the password of a server beside us.
        self._client = httpx.Client(
            base_url=self.url,
            timeout=httpx.Timeout(_READ, connect=_CONNECT),
            verify=_trust() if self.url.startswith("https:") else False,
            trust_env=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    @property
    def host(self) -> str:
        """The host of the URL, in lower case."""
        return urlsplit(self.url).hostname or ""

    def problem(self, summary: str, hint: str = "") -> Problem:
        """Make a problem with this server."""
        return Problem(self.where, summary, hint, scope=TARGET)

    def probe(self, path: str) -> Answer:
        """Ask without credentials. Raises `TargetUnreadable` when no answer comes."""
        return self._exchange("GET", path, {}, None, None)

    def send(self, method: str, path: str, *, params: Mapping[str, str] | None = None, body: Any = None) -> Answer:
        """Send a request as our user, and return an answer that is about the request itself.

        Raises `AnswerLost` when it was sent and no answer came, `TargetUnreadable` for whatever stands between us
        and the API: the network, credentials, bans.
        """
        for password in self.login.candidates(self.reveal):
            answer = self._patient(method, path, params or {}, body, password)
            if answer.status != 401:  # noqa: PLR2004 (HTTP)
                self.login.accepted = password
                return self._checked(answer)
            self.login.refuse(password)
        raise TargetUnreadable(
            self.problem(
                f"refuses the password of {self.login.username}; it is not tried again, as the server bans an address "
                "after 100 refused logins",
                "correct targets.stalwart.username or password; STALWART_ADMIN_PASSWORD of the container counts only "
                "when an empty volume is initialised, afterwards the password of the account or, in config.toml, of "
                "authentication.fallback-admin",
            )
        )

    def _patient(self, method: str, path: str, params: Mapping[str, str], body: Any, password: str) -> Answer:
        """Exchange, and wait where the rate limit says so: such a request was not carried out."""
        waited = 0.0
        while True:
            answer = self._exchange(method, path, params, body, password)
            if answer.status != 429 or "Requests" not in answer.word("title") or waited >= _PATIENCE:  # noqa: PLR2004
                return answer
            pause = min(_seconds(answer.headers.get("retry-after")), _PATIENCE)
            self.progress(f"{self.where}: waiting {pause:.0f} s for its rate limit")
            time.sleep(pause)
            waited += max(pause, 1.0)

    def _checked(self, answer: Answer) -> Answer:
        summary, hint = self._objection(answer)
        if summary:
            raise TargetUnreadable(self.problem(summary, hint))
        return answer

    def _objection(self, answer: Answer) -> tuple[str, str]:
        user = self.login.username
        match answer.status:
            case 402:
                return f"asks {user} for a one-time code", "use an account without TOTP, or an API key"
            case 429 if "Authentication" in answer.word("title"):
                return f"has banned this address for refused logins of {user}", self._lift()
            case 429:
                return "limits the rate of requests", "wait a minute"
            case status if 300 <= status < 400:  # noqa: PLR2004 (HTTP)
                place = answer.headers.get("location", "elsewhere")[:200]
                return f"redirects to {place}, which is not followed", "write the API's own address as url"
            case 502 | 503 | 504:
                return f"answers {answer.status}", "the server or a proxy before it is starting or down: try again"
        return "", ""

    def _exchange(self, method: str, path: str, params: Mapping[str, str], body: Any, password: str | None) -> Answer:
        import httpx

        content = None if body is None else json.dumps(body).encode()
        auth = None if password is None else httpx.BasicAuth(self.login.username, password)
        headers = {"Accept": "application/json"} | ({"Content-Type": "application/json"} if content else {})
        try:
            with self._client.stream(
                method, path, params=params or None, content=content, headers=headers, auth=auth
            ) as response:
                return Answer(
                    response.status_code,
                    self._body(response),
                    response.headers.get("content-type", ""),
                    dict(response.headers),
                )
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise self._failure(error) from None  # its text may quote the request

    def _body(self, response: httpx.Response) -> bytes:
        body = bytearray()
        for chunk in response.iter_bytes():
            body += chunk
            if len(body) > _LARGEST:
                raise TargetUnreadable(self.problem(f"answers more than {_LARGEST >> 20} MiB", "check the url"))
        return bytes(body)

    def _failure(self, error: Exception) -> TargetUnreadable:
        import httpx

        match error:
            case httpx.ConnectTimeout():
                return TargetUnreadable(self.problem("does not answer", "check the url, the network and firewalls"))
            case httpx.ConnectError() if (cause := _cause(error, ssl.SSLError)) is not None:
                return TargetUnreadable(self.problem(*_tls(cause)))
            case httpx.ConnectError():
                reason = _cause(error, OSError)
                return TargetUnreadable(
                    self.problem(
                        f"can't be reached: {getattr(reason, 'strerror', None) or error}",
                        "start the container, or wait: a first start downloads its spam rules; check the url and its "
                        "published port",
                    )
                )
            case httpx.TimeoutException():
                return AnswerLost(self.problem(f"did not answer within {_READ:.0f} s", "look at the server's log"))
            case httpx.RemoteProtocolError() | httpx.ReadError() | httpx.WriteError():
                summary = "closed the connection without an answer: perhaps this address is banned"
                return AnswerLost(self.problem(summary, self._lift()))
        return AnswerLost(self.problem(f"can't be asked: {type(error).__name__}", "check the url"))

    def _lift(self) -> str:
        """Say how a ban goes: it never expires up to 0.15, and an allowed address stays banned (observed.md)."""
        return (
            "ask from another address, such as 127.0.0.1 inside the container: POST /api/settings with "
            '[{"type":"delete","keys":["server.blocked-ip.ADDRESS"]}], then GET /api/reload/server.blocked-ip; '
            "afterwards declare this network under allowed_ips, which prevents a ban but does not lift one"
        )


def _seconds(text: str | None) -> float:
    return float(text) if text and text.isdigit() else _PAUSE


def _cause(error: BaseException, kind: type[_E]) -> _E | None:
    """Find an error of a kind among the causes of another one."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, kind):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None


def _tls(error: ssl.SSLError) -> tuple[str, str]:
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"shows a certificate that can't be trusted: {error.verify_message}",
            "give the server a valid certificate, name its authority in SSL_CERT_FILE, or use http:// on loopback",
        )
    return (
        "does not speak TLS at this port",
        "use http:// for the plain port, on loopback or in the container's network",
    )


def _trust() -> ssl.SSLContext:
    """Trust the system's authorities, SSL_CERT_FILE, and those that httpx brings along for systems without any."""
    import certifi

    context = ssl.create_default_context()
    with contextlib.suppress(OSError):
        context.load_verify_locations(certifi.where())
    return context


def wait_until(condition: Callable[[], bool], seconds: float, pause: float = 0.5) -> bool:
    """Ask until something is so; False when the time is over."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(pause)
    return True
