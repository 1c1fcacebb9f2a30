"""HTTP to one Stalwart server, either generation: who we are, what may go wrong, and what to do about it."""

from __future__ import annotations

import base64
import contextlib
import enum
import json
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Self

from reconciler import fence, http
from reconciler.http import Answer
from reconciler.problem import Problem, SecretUnreadable, TargetUnreadable
from reconciler.refusals import Refusals
from reconciler.resources import SecretRef
from reconciler.secrets.schemes import clear, stored
from reconciler.target import Progress, Reveal
from reconciler.url import Admits, NoUrl, Url, parse

TARGET = "stalwart"
_PROBE = "/.well-known/oauth-protected-resource"
_READ = 60.0  # seconds of silence; a reload looks names up, which can take long
_LARGEST = 64 << 20  # bytes of one answer: 60,000 accounts
_BOUNDS = http.Bounds(_LARGEST, seconds=90.0, silence=_READ, connect=5.0)
_PATIENCE = 70.0  # seconds in all that are waited because of the rate limit of 1000 requests a minute
_PAUSE = 10.0  # seconds, where the server does not say how long


class AnswerLost(TargetUnreadable):
    """A request was sent and its answer never came: it may have been carried out or not."""


class NotFound(TargetUnreadable):
    """A path is not there: another generation, or no Stalwart at all."""


class Mode(enum.StrEnum):
    """What answers at the URL. From 0.16 a server without ``config.json``, or in recovery mode, names no resource."""

    REST = "rest"
    JMAP = "jmap"
    BOOTSTRAP = "bootstrap"

    @property
    def generation(self) -> str:
        """Return ``rest`` or ``jmap``, as the directory says it."""
        return "rest" if self is Mode.REST else "jmap"


@dataclass(frozen=True, slots=True)
class Credentials:
    """A login name and its password. ``source`` is ``declared``, ``saved``, ``recovery`` or ``log``."""

    username: str
    password: str = field(repr=False)
    source: str = field(default="declared", compare=False)

    def header(self, mode: Mode | None) -> str:
        """Return the value of ``Authorization``. From 0.16 an API key is a bearer token (jmap-0.16.md, section 1)."""
        if mode not in (None, Mode.REST) and self.password.startswith("API_"):
            return f"Bearer {self.password}"
        return f"Basic {base64.b64encode(f'{self.username}:{self.password}'.encode()).decode()}"


Fallback = Callable[[], tuple[str, str] | None]
"""Looks up a login name and its password where there may be one."""


@dataclass(slots=True)
class Login:
    """As whom we ask. Each password is tried once: the server bans who keeps trying (traps.md 34).

    ``domain`` is the default domain, which makes a bare ``username`` an address from 0.16: there the recovery
    administrator shadows its bare name (observed.md). ``recovery`` is ``user:password``; ``saved`` finds the
    administrator that bootstrapping answered, ``printed`` the one that the container's log shows. ``hide`` is told
    what no reference reveals as it is, and nobody may be shown. ``server`` says which one it is: what was refused by
    another one, or before its container was made anew, counts no more.
    """

    username: str
    passwords: Sequence[SecretRef]
    domain: str = ""
    recovery: SecretRef | None = None
    saved: Fallback = lambda: None
    printed: Fallback = lambda: None
    hide: Callable[[SecretRef, str], None] = lambda _ref, _value: None
    mode: Mode | None = None
    accepted: Credentials | None = None
    refused: Refusals = field(default_factory=Refusals)
    server: Callable[[], str] = lambda: ""
    unreadable: tuple[Problem, ...] = ()

    @property
    def recovers(self) -> bool:
        """Whether a recovery administrator is declared where one counts."""
        return self.recovery is not None and self.mode in (Mode.JMAP, Mode.BOOTSTRAP)

    @property
    def name(self) -> str:
        """What the declared passwords log in with at this server."""
        bare = self.mode in (None, Mode.REST) or "@" in self.username or not self.domain
        return self.username if bare else f"{self.username}@{self.domain}"

    def enter(self, mode: Mode) -> None:
        """Note what answers. What one mode accepts, another one may not."""
        if mode is not self.mode:
            self.mode, self.accepted = mode, None

    def candidates(self, reveal: Reveal) -> Iterator[Credentials]:
        """Yield what was accepted before, then what was not tried yet, each looked up when its turn comes.

        Raises `SecretUnreadable` at the end where nothing could be tried at all.
        """
        if self.accepted is not None:
            yield self.accepted
        failures: list[SecretUnreadable] = []
        for source in self._sources(reveal):
            try:
                found = source()
            except SecretUnreadable as error:
                failures.append(error)
                continue
            if found is not None and found != self.accepted and not self.was_refused(found):
                yield found
        self.unreadable = tuple(error.problems[0] for error in failures)
        if failures and self.accepted is None and self.refused.empty:
            raise failures[0]

    def refuse(self, credentials: Credentials) -> None:
        """Remember that the server refused a password."""
        self.refused.add(self.server(), credentials.username, credentials.password)
        if credentials == self.accepted:
            self.accepted = None

    def was_refused(self, credentials: Credentials) -> bool:
        """Whether the server has refused this before."""
        return not self.refused.empty and self.refused.holds(self.server(), credentials.username, credentials.password)

    def renewed(self) -> None:
        """Forget what was refused: we have just given ourselves another password."""
        self.refused.forget()
        self.accepted = None

    def _sources(self, reveal: Reveal) -> list[Callable[[], Credentials | None]]:
        """List where to look for a password, in the order to try them."""
        declared: list[Callable[[], Credentials | None]] = [
            partial(self._declared, it, reveal) for it in self.passwords
        ]
        recovery = partial(self._recovered, reveal)
        match self.mode:
            case Mode.JMAP:
                return [*declared, partial(self._found, self.saved, "saved"), recovery]
            case Mode.BOOTSTRAP:  # no declared account is known there; in recovery mode it is
                return [recovery, partial(self._found, self.printed, "log"), *declared]
        return declared

    def _declared(self, ref: SecretRef, reveal: Reveal) -> Credentials:
        return Credentials(self.name, clear(reveal(ref)))

    def _recovered(self, reveal: Reveal) -> Credentials | None:
        if self.recovery is None:
            return None
        user, _, password = (part.strip() for part in reveal(self.recovery).partition(":"))
        if not user or not password:
            hint = "write it as STALWART_RECOVERY_ADMIN of the container has it"
            raise SecretUnreadable(Problem(str(self.recovery), "is not user:password", hint))
        self.hide(self.recovery, password)
        kept = stored(password, folds=True)  # the server verifies it as it does any that it stores
        if kept is None or kept[1]:
            summary = "its password is a hash" if kept else "its password looks like a hash to the server and is none"
            hint = "give the clear one; before one that begins with $, _ or { write {PLAIN}, in the container's, too"
            raise SecretUnreadable(Problem(str(self.recovery), f"{summary}: nobody logs in with it", hint))
        return Credentials(user, kept[0], "recovery")

    def _found(self, look: Fallback, source: str) -> Credentials | None:
        found = look()
        return self.hidden(*found, source) if found else None

    def hidden(self, username: str, password: str, source: str) -> Credentials:
        """Make credentials of what the server chose, and see that nobody is shown them."""
        self.hide(SecretRef(source, username), password)
        return Credentials(username, password, source)


def trust() -> ssl.SSLContext:
    """Trust the system's authorities, SSL_CERT_FILE, and those that httpx brings along for systems without any."""
    import certifi

    context = ssl.create_default_context()
    with contextlib.suppress(OSError):
        context.load_verify_locations(certifi.where())
    return context


class Connection:
    """A client for one server, to be closed. Redirects are not followed: they would carry the password along."""

    def __init__(
        self,
        address: Url,
        login: Login,
        reveal: Reveal,
        progress: Progress,
        *,
        trust: Callable[[], ssl.SSLContext] = trust,
        admits: Admits | None = None,
        bounds: http.Bounds = _BOUNDS,
    ) -> None:
        """Prepare a client; nothing is sent yet. ``trust`` and ``admits`` are as `http.client` has them.

        No proxy of the environment is asked: the server is beside us, or has an address of its own.
        """
        self.url, self.login, self.reveal, self.progress = address.url, login, reveal, progress
        self.host = address.host
        self.where = f"Stalwart at {self.url}"
        self._client = http.client(address, bounds, trust=trust, admits=admits, name="stalwart")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def problem(self, summary: str, hint: str = "") -> Problem:
        """Make a problem with this server."""
        return Problem(self.where, summary, hint, scope=TARGET)

    def detect(self, declared: Mode | None = None) -> Mode:
        """Ask without credentials what answers, and send none to what is no Stalwart for certain (observed.md).

        A proxy may hide the path: then what is ``declared`` holds. Raises `TargetUnreadable`.
        """
        answer = self.probe(_PROBE)
        body = answer.json()
        if answer.status == 200 and isinstance(body, dict) and "resource" in body:  # noqa: PLR2004 (HTTP)
            return Mode.JMAP if body["resource"] else Mode.BOOTSTRAP
        if answer.status == 404 and answer.word("title"):  # noqa: PLR2004 (HTTP)
            return Mode.REST  # which has no such path; a proxy that hides it writes no problem document
        if declared is not None:
            return declared
        kind = answer.content_type.partition(";")[0] or "nothing"
        summary = f"answers {answer.status} with {kind} to {_PROBE}, as no Stalwart does"
        hint = (
            "check the url; where a proxy before it answers, write `generation: rest` (up to 0.15) or jmap (from 0.16)"
        )
        raise TargetUnreadable(self.problem(summary, hint))

    def probe(self, path: str) -> Answer:
        """Ask without credentials. Raises `TargetUnreadable` when no answer comes."""
        return self._checked(self._patient("GET", path, {}, None, None))

    def ask_as(self, username: str, password: str, path: str, body: Any = None) -> Answer:
        """Ask with another login, exactly once; with a ``body`` it is a POST that changes nothing of the stack.

        Raises `TargetUnreadable` when no answer comes.
        """
        method = "GET" if body is None else "POST"
        return self._exchange(method, path, {}, body, Credentials(username, password), reads=True)

    def leads_to(self, path: str) -> str:
        """Return where the server sends who asks for a path as our user; "" where it does not. It is not followed.

        Raises `TargetUnreadable` as `send` does.
        """
        answer = self.send("GET", path, moved=True)
        return answer.headers.get("location", "") if 300 <= answer.status < 400 else ""  # noqa: PLR2004 (HTTP)

    def send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Any = None,
        moved: bool = False,
        reads: bool = False,
    ) -> Answer:
        """Send a request as our user, and return an answer that is about the request itself; ``moved`` takes redirects.

        ``reads`` says of a POST that it changes nothing.

        Raises `AnswerLost` when it was sent and no answer came, `TargetUnreadable` for whatever stands between us
        and the API: the network, credentials, bans.
        """
        asked: Answer | None = None  # for a one-time code, which the recovery administrator has none of
        for credentials in self.login.candidates(self.reveal):
            answer = self._patient(method, path, params or {}, body, credentials, reads=reads)
            if answer.status == 402 and credentials.source != "recovery" and self.login.recovers:  # noqa: PLR2004
                asked = answer
                continue
            if answer.status != 401:  # noqa: PLR2004 (HTTP)
                answer = answer if moved and answer.status // 100 == 3 else self._checked(answer)  # noqa: PLR2004 (HTTP)
                self.login.accepted = credentials
                return answer
            self.login.refuse(credentials)
        if asked is not None:
            self._checked(asked)
        raise TargetUnreadable(self._refusal())

    def _refusal(self) -> Problem:
        """Say that no password gets in, and what would."""
        login = self.login
        untried = "".join(f"; {item.where} could not be tried: {item.summary}" for item in login.unreadable)
        if login.mode is Mode.BOOTSTRAP:
            summary = "is in bootstrap or recovery mode, where no password of ours gets in"
            hint = f"its recovery administrator does: {self._recovery()}"
        else:
            summary = f"refuses the password of {login.name}"
            summary += " and that of the recovery administrator" if login.recovers and not untried else ""
            lost = f"where the server lost its accounts, {self._recovery()}" if login.mode is Mode.JMAP else _INITIAL
            hint = f"correct targets.stalwart.username or password; {lost}"
        summary += "; what was refused is not tried again, as the server bans an address after 100 refused logins"
        return replace(self.problem(summary + untried, hint), lasting=True)

    def _recovery(self) -> str:
        """Say how the recovery administrator gets in: it is there, or its declaration and the container differ."""
        if not self.login.recovers:
            return recovery()
        return (
            f"see that {self.login.recovery} and STALWART_RECOVERY_ADMIN of the container hold the same user:password, "
            "and recreate the container: it keeps the one it was made with"
        )

    def _patient(
        self,
        method: str,
        path: str,
        params: Mapping[str, str],
        body: Any,
        credentials: Credentials | None,
        *,
        reads: bool = False,
    ) -> Answer:
        """Exchange, and wait where the rate limit says so: such a request was not carried out."""
        until, times = time.monotonic() + _PATIENCE, 0
        while True:
            answer = self._exchange(method, path, params, body, credentials, reads=reads)
            if answer.status != 429 or "Requests" not in answer.word("title"):  # noqa: PLR2004 (HTTP)
                return answer
            times += 1
            if time.monotonic() >= until or times > _PATIENCE:  # a server may ask for no pause at all, for ever
                return answer
            asked = http.retry_after(answer.headers)
            pause = min(_PAUSE if asked is None else asked, _PATIENCE)
            self.progress(f"{self.where}: waiting {pause:.0f} s for its rate limit")
            if not fence.wait(pause):
                return answer

    def _checked(self, answer: Answer) -> Answer:
        summary, hint = self._objection(answer)
        if answer.status in (502, 504):  # a proxy's, which may have passed the request on (RFC 9110, 15.6.3)
            raise AnswerLost(self.problem(summary, hint))
        if summary:
            raise TargetUnreadable(self.problem(summary, hint))
        return answer

    def _objection(self, answer: Answer) -> tuple[str, str]:
        user = self.login.name
        match answer.status:
            case 402:
                hint = "use an account without TOTP, an API key or, from 0.16, `recovery`"
                return f"asks {user} for a one-time code", hint
            case 429 if "Authentication" in answer.word("title"):
                return f"has banned this address for refused logins of {user}", self._lift()
            case 429:
                return "limits the rate of requests", "wait a minute"
            case status if 300 <= status < 400:  # noqa: PLR2004 (HTTP)
                return (
                    f"redirects to {_place(answer.headers.get('location', ''))}, which is not followed",
                    "write the API's own address as url",
                )
            case 502 | 503 | 504:
                return f"answers {answer.status}", _DOWN
        return "", ""

    def _exchange(
        self,
        method: str,
        path: str,
        params: Mapping[str, str],
        body: Any,
        credentials: Credentials | None,
        *,
        reads: bool = False,
    ) -> Answer:
        content = None if body is None else json.dumps(body).encode()
        headers = {"Accept": "application/json"} | ({"Content-Type": "application/json"} if content else {})
        headers |= {"Authorization": credentials.header(self.login.mode)} if credentials else {}
        request: dict[str, Any] = {"params": params or None, "content": content, "headers": headers}
        try:
            return http.exchange(self._client, method, path, reads=reads, **request)
        except http.Endless as error:  # what was asked for may have been done
            hint = "check the url, and proxies on the way"
            raise AnswerLost(self.problem(f"answers without end: {error}", hint)) from None
        except http.Unsent as error:
            raise TargetUnreadable(self._unconnected(error)) from None
        except http.Lost as error:
            raise AnswerLost(self._unanswered(error)) from None

    def _unconnected(self, error: http.Unsent) -> Problem:
        """Say why there is no connection: nothing was sent."""
        if http.timed_out(error):
            return self.problem("does not answer", "check the url, the network and firewalls")
        if _is_silence(error):
            return self._silence()
        if (cause := http.cause(error, ssl.SSLError)) is not None:
            return self.problem(*_tls(cause))
        reason = http.cause(error, OSError)
        return self.problem(f"can't be reached: {getattr(reason, 'strerror', None) or error}", _UNREACHED)

    def _unanswered(self, error: http.Lost) -> Problem:
        """Say what became of a request that was sent, as far as we know."""
        import httpcore

        if http.timed_out(error):
            return self.problem(f"did not answer within {_READ:.0f} s", "look at the server's log")
        if _is_silence(error):
            return self._silence()
        match error.__cause__:
            case httpcore.RemoteProtocolError():
                summary = "answers what is no HTTP, or breaks off in the middle"
                return self.problem(summary, "check the url and its port, and look at the server's log")
            case httpcore.ReadError() | httpcore.WriteError():
                return self._silence()
        return self.problem(f"answers what can't be understood: {error}", "check the url, and proxies on the way")

    def _silence(self) -> Problem:
        """What starts behind a port that Docker publishes closes connections just as one does that bans."""
        summary = "closed the connection without an answer: it is starting, or perhaps this address is banned"
        return self.problem(summary, f"try again in a minute; a ban stays: {self._lift()}")

    def _lift(self) -> str:
        """Say how a ban goes. It never expires; up to 0.15 an allowed address stays banned (traps.md 35)."""
        mode = self.login.mode
        return "; ".join(_LIFT[item] for item in (Mode.REST, Mode.JMAP) if mode in (None, item)) or _LIFT[Mode.JMAP]


_INITIAL = (
    "STALWART_ADMIN_PASSWORD of the container counts only when an empty volume is initialised, afterwards the password "
    "of the account or, in config.toml, of authentication.fallback-admin"
)
_DOWN = "the server or a proxy before it is starting or down: try again"
_UNREACHED = (
    "start the container, or wait: a first start downloads its spam rules; check the url and its published port: from "
    "0.16 a server in bootstrap mode answers at its port 8080 only"
)
_LIFT = {
    Mode.REST: (
        "up to 0.15 ask from another address, such as 127.0.0.1 inside the container: POST /api/settings with "
        '[{"type":"delete","keys":["server.blocked-ip.ADDRESS"]}], then GET /api/reload/server.blocked-ip; '
        "afterwards declare this network under allowed_ips, which prevents a ban but does not lift one"
    ),
    Mode.JMAP: (
        "from 0.16 ask from another address, such as 127.0.0.1 inside the container: POST /jmap with x:BlockedIp/query "
        "for the address, x:BlockedIp/set that destroys what it finds, and x:Action/set with ReloadBlockedIps; "
        "afterwards declare this network under allowed_ips, which from 0.16 overrides a ban too"
    ),
}


Connect = Callable[[Reveal], Connection]
"""Opens a connection as our user. Raises `TargetUnreadable` where that must not be."""


def recovery(service: str = "") -> str:
    """Say how a server that knows no account lets us in, with the text for the compose file (jmap-0.16.md, 5)."""
    under = f"the service {service}" if service else "its service"
    return (
        f"write `STALWART_RECOVERY_ADMIN: ${{STALWART_RECOVERY_ADMIN}}` under `environment:` of {under} in the compose "
        "file (in a list: `- STALWART_RECOVERY_ADMIN=${STALWART_RECOVERY_ADMIN}`) and "
        "`STALWART_RECOVERY_ADMIN=admin:PASSWORD` into the env file, recreate the container, and write "
        "`recovery: {env: STALWART_RECOVERY_ADMIN}` under targets.stalwart"
    )


def _is_silence(error: Exception) -> bool:
    """Whether the other side closed the connection before it said anything, in plain or where TLS should begin."""
    if any(http.cause(error, kind) for kind in (ConnectionResetError, BrokenPipeError, ssl.SSLEOFError)):
        return True
    return str(error).startswith("Server disconnected")  # httpcore has one exception for this and for what is no HTTP


def _place(location: str) -> str:
    """Name the host that an answer sends us to; the rest of what it says there may be our own request."""
    try:
        there = parse(location.partition("?")[0])
    except NoUrl:
        return "another path" if location.startswith("/") else "elsewhere"
    return f"{there.scheme}://{there.authority}/"


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


def wait_until(condition: Callable[[], bool], seconds: float, pause: float = 0.5) -> bool:
    """Ask until something is so; False when the time is over."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(pause)
    return True
