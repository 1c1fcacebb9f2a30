"""The Docker Engine: the few calls that targets make, and what goes wrong as problems of ours.

The `docker` package speaks its API. By itself it has no end to its waits, reads whatever an engine answers, and gives
ssh our whole environment: so its requests are carried by our one client, within bounds.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import json
import os
import re
import socket
import ssl
import subprocess
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

from reconciler import http, process, url
from reconciler.deadline import Deadline
from reconciler.http import Bounds
from reconciler.problem import Problem, TargetUnreadable
from reconciler.url import Url

if TYPE_CHECKING:
    import docker
    import httpx
    import requests

# Functions import `docker` itself and none of its modules. It imports itself in circles, and two targets import it at
# the same time in two threads: two ways into the circle end in a deadlock of Python's import locks.
_TIMEOUT = 30  # seconds for one call to the engine
_LARGEST = 64 << 20  # bytes of an answer; what is told of a thousand containers is 5 MiB
_LOG = 16 << 20  # bytes of a log
_EVENTS = 1 << 20  # bytes of the 256 events that an engine remembers
_SOCKET = "unix:///var/run/docker.sock"
_LOCAL = Url("http", "localhost", 80)  # what a request down a socket calls its host
_PLACE = "tcp://localhost:2375"  # what the package is told of where the engine is, for its URLs
_OURS = ("content-encoding", "content-length", "transfer-encoding", "location")  # headers that our client deals with

_CHECK = re.compile(r"/exec(/[0-9a-f]+/start)?$")  # a POST that changes nothing: a health check run in its container

_allowed: ContextVar[Bounds] = ContextVar("allowed")


class Declined(TargetUnreadable):
    """The engine answers, and says no."""


class NotThere(Declined):
    """The engine answers, and has not what was asked for."""


class Client:
    """The engine behind ``host``, as in ``DOCKER_HOST``, or behind Docker's current context. Use it as a context.

    ``scope`` is what its problems block. Nothing is asked before the first call; every call raises `TargetUnreadable`,
    `NotThere` where a container is missing. Containers are told by id or name. A call is over within ``timeout``
    seconds, whatever the engine does; the first one takes a question for the engine's version besides. Making a client
    raises `TargetUnreadable` for a host that is none. ``memory`` answers for an engine where nothing changed.
    """

    def __init__(
        self, host: str | None, scope: str, timeout: int = _TIMEOUT, memory: EngineMemory | None = None
    ) -> None:
        self.scope, self._memory = scope, memory
        self.host = (host or context_host(scope)).replace("http+unix://", "unix://")
        self.address = self._parsed()
        self._bounds = Bounds(_LARGEST, timeout)
        self._client: docker.APIClient | None = None
        self._carrier: _Carrier | None = None
        self._lock = threading.Lock()
        self._programs: list[subprocess.Popen[bytes]] = []
        self._finish = weakref.finalize(self, _end, self._programs)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._carrier is not None:
            self._carrier.close()
            self._carrier = self._client = None
        _end(self._programs)

    def _parsed(self) -> Url | None:
        """Return where the engine is; None for one behind a socket."""
        if self.host.startswith("unix://"):
            return None
        text = self.host if "://" in self.host else f"tcp://{self.host}"
        try:
            return url.parse(text, ("tcp", "http", "https", "ssh"))
        except url.NoUrl as error:
            hint = "write DOCKER_HOST like unix:///var/run/docker.sock, tcp://127.0.0.1:2375 or ssh://user@server"
            raise TargetUnreadable(Problem("DOCKER_HOST", error.summary, hint, scope=self.scope)) from None

    @property
    def remote(self) -> bool:
        """Whether the engine runs on another machine, where our paths and loopback mean nothing."""
        return self.address is not None and (self.address.scheme == "ssh" or not self.address.is_loopback)

    def inspect(self, container: str) -> Mapping[str, Any]:
        """Return what the engine tells of a container, by its name or its whole id.

        An engine takes the beginning of an id, too: `db` would be another container where none is called so.
        """
        with self.reaching() as client:
            found = dict(client.inspect_container(_named(container)))
            if container not in (found.get("Id"), str(found.get("Name")).removeprefix("/")):
                raise NotThere(self._problem(f"has no container {container}, and answers with another one"))
            return found

    def memory(self, container: str) -> int:
        """Return the bytes of memory that a container uses, without what can be given back; 0 where it is not told."""
        with contextlib.suppress(TargetUnreadable), self.reaching() as client:
            found = client.stats(_named(container), stream=False, one_shot=True)["memory_stats"]
            spare = (found.get("stats") or {}).get("inactive_file") or 0
            return max(0, int(found.get("usage") or 0) - int(spare))
        return 0

    def killed(self, container: str, since: float, until: float) -> tuple[float, ...]:
        """Return when the kernel ended a process of a container for want of memory, in seconds since 1970.

        As far as the engine remembers: its last 256 events, since it was started itself.
        """
        # The package would read them as a stream without end; bounded like this the engine ends it.
        query = {"since": f"{since:.6f}", "until": f"{until:.6f}"}  # whole seconds would leave out the last one
        query["filters"] = json.dumps({"container": [_named(container)], "event": ["oom"]})
        with contextlib.suppress(TargetUnreadable), self.reaching(largest=_EVENTS) as client:
            answer = client.get(client.base_url + f"/v{client.api_version}/events", params=query)
            lines = answer.text.splitlines() if answer.ok else []
            return tuple(float(json.loads(line)["time"]) for line in lines if line.strip())
        return ()

    def image(self, reference: str) -> Mapping[str, Any]:
        """Return what the engine tells of an image that it has."""
        with self.reaching() as client:
            return dict(client.inspect_image(reference))  # type: ignore[no-untyped-call]

    def archive(self, container: str, path: str, largest: int) -> bytes | None:
        """Return the beginning of the archive (tar) of a file or directory in a container; None where there is none.

        The engine compresses for who accepts it (field.md, L17), which the package does not here.
        """
        with contextlib.suppress(NotThere), self.reaching(largest=largest, cut=True) as client:
            pieces, _ = client.get_archive(_named(container), path)
            return b"".join(pieces)
        return None

    def log(self, container: str, lines: int, since: float | None = None, *, stamped: bool = False) -> str:
        """Return the last lines that a container printed, ``since`` a time (seconds since 1970, with fractions).

        With ``stamped`` each begins with the time at which the engine got it (RFC 3339).
        """
        with self.reaching(largest=_LOG, cut=True) as client:
            found = client.logs(_named(container), tail=lines, since=since, timestamps=stamped)
            return str(found.decode(errors="replace"))

    def connect(self, seconds: float) -> socket.socket:
        """Open a connection for what has no end, such as events: it is the caller's to bound and to close.

        Raises OSError.
        """
        bounds, deadline = replace(self._bounds, connect=seconds), Deadline(seconds)
        if self.address is None:
            return _down_socket(self.host.removeprefix("unix://"))(deadline, bounds)
        if self.address.scheme == "ssh":
            return _over_ssh(self.address, self._programs)(deadline, bounds)
        connection = deadline.connect(self.address.host, self.address.port, seconds)
        if not self._tls:
            return connection
        try:
            context = _trust() if _has_keys() else ssl.create_default_context()
            return context.wrap_socket(connection, server_hostname=self.address.host)
        except BaseException:
            connection.close()
            raise

    def restart(self, container: str, stop: int) -> None:
        """Restart a container, which gets ``stop`` seconds to end; returns when it has been started again."""
        with self.reaching(seconds=self._bounds.seconds + stop) as client:
            client.restart(_named(container), timeout=stop)

    # ------------------------------------------------------------------------------------------------------- the wire
    @contextlib.contextmanager
    def reaching(self, **bounds: Any) -> Iterator[docker.APIClient]:
        """Yield the package's client, within `understanding`. ``bounds`` are fields of `Bounds` for its calls."""
        outside = _allowed.set(self._bounds)
        try:
            with self.understanding():
                client = self._connected()
                _allowed.set(replace(self._bounds, **bounds))
                yield client
        finally:
            _allowed.reset(outside)

    @contextlib.contextmanager
    def understanding(self) -> Iterator[None]:
        """Turn what goes wrong into a problem: the package believes any answer. Raises `TargetUnreadable`."""
        import docker

        try:
            yield
        except docker.errors.APIError as error:
            kind = NotThere if isinstance(error, docker.errors.NotFound) else Declined
            raise kind(self._problem(f"refuses: {http.short(str(error.explanation))}")) from error
        except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise self.unreachable("answers what can't be understood") from error
        except (http.Unanswered, docker.errors.DockerException, OSError) as error:  # the last of a certificate's files
            raise self.unreachable(_cause(error)) from error

    def _connected(self) -> docker.APIClient:
        with self._lock:
            if self._carrier is None:
                self._carrier = _Carrier(self._made(self.address), self._memory)
        if self._client is None:  # asked for by two threads at once it is made twice, rather than one after the other
            self._client = _speaking(self._carrier, self._bounds.seconds)
        return self._client

    def _made(self, address: Url | None) -> httpx.Client:
        """Make the client. Whom to ask is the environment's choice, which says by tcp:// that the way is safe."""
        if address is None:
            return http.client(
                _LOCAL, self._bounds, dial=_down_socket(self.host.removeprefix("unix://")), name="docker"
            )
        if address.scheme == "ssh":
            return http.client(_LOCAL, self._bounds, dial=_over_ssh(address, self._programs), name="docker")
        target = replace(address, scheme="https" if self._tls else "http")
        trust = _trust if _has_keys() else None
        return http.client(target, self._bounds, trust=trust, admits=lambda _: True, name="docker")

    @property
    def _tls(self) -> bool:
        return self.address is not None and (self.address.tls or (self.address.scheme == "tcp" and _has_keys()))

    def unreachable(self, cause: str) -> TargetUnreadable:
        """Make the error of an engine that does not do what it should."""
        return TargetUnreadable(self._problem(cause))

    def _problem(self, cause: str) -> Problem:
        hint = "start it, or let DOCKER_HOST name the machine it runs on (ssh://user@server)"
        if self.host.startswith("ssh://"):
            cause = cause.replace("can't be reached:", "can't be reached over SSH:")
            hint = f"docker -H {self.host} version has to work without a question (a key, a known host, docker there)"
        return Problem(f"Docker Engine {self.host}", cause, hint, scope=self.scope)


def _named(container: str) -> str:
    """Return a container's name or id as a part of a path. Raises `NotThere` for what names none."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", container):
        raise NotThere(Problem("Docker Engine", "has no container of such a name", "correct the name"))
    return container


def _cause(error: Exception) -> str:
    """Say why there is no answer, as the system calls it."""
    if isinstance(error, http.Endless):
        return f"answers without end: {error}"
    system = http.cause(error, OSError)
    return f"can't be reached: {getattr(system, 'strerror', None) or system or error}"


# ---------------------------------------------------------------------------------------------------- Docker's package
def _speaking(carrier: _Carrier, timeout: float) -> docker.APIClient:
    """Make the package's client, which speaks the engine's own version of the API. Raises what its calls do."""
    import docker

    def made(version: str) -> docker.APIClient:
        client = docker.APIClient(_PLACE, version, timeout=cast("int", timeout))
        client.trust_env = False  # a .netrc may hold a login for any host
        for scheme in ("http://", "https://"):
            client.mount(scheme, cast("Any", carrier))
        return client

    lowest = made(docker.constants.MINIMUM_DOCKER_API_VERSION)  # type: ignore[attr-defined]
    return made(str(lowest.version(api_version=False)["ApiVersion"]))


class _Carrier:
    """What carries the package's requests, a `requests.adapters.BaseAdapter`: our client, within its bounds."""

    def __init__(self, client: httpx.Client, memory: EngineMemory | None = None) -> None:
        self._client, self._memory = client, memory

    def send(self, request: requests.PreparedRequest, timeout: float | None = None, **_: object) -> requests.Response:
        """Carry out a request, which is over within ``timeout`` seconds. Raises `http.Unanswered`."""
        bounds = _allowed.get()
        if timeout is not None:  # longer for a restart
            bounds = replace(bounds, seconds=timeout)
        sent: dict[str, Any] = {"content": request.body, "headers": dict(request.headers), "bounds": bounds}
        sent["reads"] = _CHECK.search(request.path_url) is not None
        exchange: Callable[[str, str], http.Answer] = functools.partial(http.exchange, self._client, **sent)
        method, path = str(request.method), request.path_url
        answer = self._memory.answer(exchange, method, path) if self._memory else exchange(method, path)
        return _response(request, answer)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


class EngineMemory:
    """What an engine answered, as long as its list of containers is the same: then one request tells that it is.

    It answers between `begin` and `end`, which is while something is observed; in between, as when something is
    written, everything is asked for. What a container's own files hold is remembered, too; what it prints is not.
    """

    def __init__(self) -> None:
        self._answers: dict[str, http.Answer] = {}
        self._containers: list[Any] = []
        self._active, self._fresh = False, False
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Answer from now on; whether anything has changed is asked for once."""
        self._active, self._fresh = True, False

    def end(self) -> None:
        """Answer no more."""
        self._active = False

    def answer(self, exchange: Callable[[str, str], http.Answer], method: str, path: str) -> http.Answer:
        """Answer a request, or have it answered. Raises `http.Unanswered`."""
        if not self._active or method != "GET" or path.partition("?")[0].endswith("/logs"):
            return exchange(method, path)
        with self._lock:
            if not self._fresh:
                self._compare(exchange)
            known = self._answers.get(path)
        if known is None:
            known = exchange(method, path)
            if known.status == 200:  # noqa: PLR2004 (HTTP)
                self._answers[path] = known
        return known

    def _compare(self, exchange: Callable[[str, str], http.Answer]) -> None:
        """Forget everything where a container is not as it was."""
        found = exchange("GET", "/containers/json?all=1").json()
        listed = sorted(found, key=lambda item: str(item.get("Id"))) if isinstance(found, list) else []
        if not listed or len(listed) != len(self._containers) or not all(map(_is_same, self._containers, listed)):
            self._answers.clear()
        self._containers, self._fresh = listed, True


_SPANS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400, "week": 604_800, "month": 2_592_000}
_UP = re.compile(r"Up (?:(\d+|About an?|Less than a) )?(second|minute|hour|day|week|month|year)?s?")


def _is_same(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether a container is as it was listed before; what runs for a shorter time than then was restarted."""
    ignored = {"Status", "SizeRw", "SizeRootFs"}
    if any(before.get(name) != now.get(name) for name in {*before, *now} - ignored):
        return False
    then, since = str(before.get("Status")), str(now.get("Status"))
    return then.partition("(")[2] == since.partition("(")[2] and _uptime(since) >= _uptime(then)


def _uptime(status: str) -> float:
    """Return the seconds that an engine's words say, such as ``Up About an hour (healthy)``."""
    found = _UP.match(status)
    if found is None:
        return 0.0
    number = int(found[1]) if (found[1] or "").isdigit() else 0 if (found[1] or "").startswith("Less") else 1
    return float(number * _SPANS.get(found[2] or "", 31_536_000))


def _response(request: requests.PreparedRequest, answer: http.Answer) -> requests.Response:
    """Return an answer as the package takes it: whole, unpacked, and leading nowhere else."""
    import requests
    import urllib3

    headers = {name: value for name, value in answer.headers.items() if name not in _OURS}
    response = requests.Response()
    response.status_code, response.url, response.request = answer.status, str(request.url), request
    response.headers = requests.structures.CaseInsensitiveDict(headers)
    response.raw = urllib3.HTTPResponse(_Body(answer.body), headers, answer.status, preload_content=False)
    response.encoding = "utf-8"
    response.json = functools.partial(_json, answer)  # type: ignore[method-assign]
    return response


def _json(answer: http.Answer, **_: object) -> Any:
    """Parse an answer with care. Raises ValueError."""
    if answer.status >= 400:  # noqa: PLR2004 (HTTP)
        return {"message": answer.word("message") or f"HTTP {answer.status}"}
    body = answer.json()
    if body is None:
        raise ValueError("is no JSON")
    return body


class _Body(io.BytesIO):
    """A body that is here already, which the package takes for a connection: it looks for its socket within."""

    @property
    def fp(self) -> Self:
        """What would be read from."""
        return self

    raw = fp


# -------------------------------------------------------------------------------------------------- ways to an engine
def _has_keys() -> bool:
    return bool(os.environ.get("DOCKER_TLS_VERIFY") or os.environ.get("DOCKER_CERT_PATH"))


def _trust() -> ssl.SSLContext:
    """Trust the authority beside the key that we show, as the docker program does. Raises OSError."""
    folder = Path(os.environ.get("DOCKER_CERT_PATH") or Path.home() / ".docker")
    context = ssl.create_default_context(cafile=folder / "ca.pem")
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


def _down_socket(path: str) -> http.Dial:
    def dial(deadline: Deadline, _: Bounds) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(deadline.left())
            connection.connect(path)
        except BaseException:
            connection.close()
            raise
        return connection

    return dial


def _over_ssh(address: Url, programs: list[subprocess.Popen[bytes]]) -> http.Dial:
    def dial(_deadline: Deadline, _: Bounds) -> socket.socket:
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                programs.append(_ssh(address, theirs))
            except BaseException:
                ours.close()
                raise
        return ours

    return dial


def _ssh(address: Url, end: socket.socket) -> subprocess.Popen[bytes]:
    """Start the ssh program, which knows the user's keys and configuration. Raises OSError."""
    user = ["-l", address.user] if address.user else []
    port = ["-p", str(address.port)] if address.port != url.SSH_PORT else []  # else the one of its configuration
    command = ["ssh", *user, *port, "--", address.host, "docker system dial-stdio"]
    try:
        return process.spawn(process.SSH, command, os.environ, end=end.fileno())
    except process.CannotRun as error:
        raise OSError(errno.ENOENT, f"ssh {error.why}") from None


def _end(programs: list[subprocess.Popen[bytes]]) -> None:
    for program in programs:
        process.kill(program)
        program.wait()
        process.forget(program)
    programs.clear()


def context_host(scope: str) -> str:
    """Return the host of Docker's current context (Colima has one), as the docker program chooses it.

    The package does not know DOCKER_CONTEXT, and without a configuration it would look for contexts in the folder that
    we are in, which others may write. Raises `TargetUnreadable` where DOCKER_CONTEXT names none.
    """
    import docker

    name, context = os.environ.get("DOCKER_CONTEXT"), None
    if name == "default":
        return _SOCKET
    if docker.utils.config.find_config_file():  # type: ignore[attr-defined]
        with contextlib.suppress(Exception):  # what it raises for a file that can't be read is no more than that
            context = docker.context.ContextAPI.get_context(name)
    host = getattr(context, "Host", None)
    if name and not host:
        hint = "see docker context ls, and docker context use, or unset DOCKER_CONTEXT"
        raise TargetUnreadable(Problem("DOCKER_CONTEXT", f"there is no Docker context {name}", hint, scope=scope))
    return str(host or _SOCKET)
