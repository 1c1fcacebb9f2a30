"""The Docker Engine: the few calls that targets make, and what goes wrong as problems of ours.

Its API is asked without a version, which is the newest that an engine has. Docker's own package has no end to its
waits, and reads whatever an engine answers.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import socket
import ssl
import subprocess
import threading
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from reconciler import http, url
from reconciler.deadline import Deadline
from reconciler.http import Bounds
from reconciler.problem import Problem, TargetUnreadable
from reconciler.url import Address

if TYPE_CHECKING:
    import httpx

_TIMEOUT = 30  # seconds for one call to the engine
_LARGEST = 64 << 20  # bytes of an answer; what is told of a thousand containers is 5 MiB
_LOG = 16 << 20  # bytes of a log
_MISSING = 404
_SOCKET = "unix:///var/run/docker.sock"
_LOCAL = Address("http", "localhost", 80)  # what a request down a socket calls its host
_FRAME = 8  # bytes before each piece of a log: the stream, three zeros, the length


class Declined(TargetUnreadable):
    """The engine answers, and says no."""


class NotThere(Declined):
    """The engine answers, and has not what was asked for."""


class Client:
    """The engine behind ``host``, as in ``DOCKER_HOST``, or behind Docker's current context. Use it as a context.

    ``scope`` is what its problems block. Nothing is asked before the first call; every call raises `TargetUnreadable`,
    `NotThere` where a container is missing. Containers are told by id or name. A call is over within ``timeout``
    seconds, whatever the engine does. Making one raises `TargetUnreadable` for a host that is none.
    """

    def __init__(self, host: str | None, scope: str, timeout: int = _TIMEOUT) -> None:
        self.scope = scope
        self.host = (host or _context_host(scope)).replace("http+unix://", "unix://")
        self.address = self._parsed()
        self._bounds = Bounds(_LARGEST, timeout)
        self._client: httpx.Client | None = None
        self._lock = threading.Lock()
        self._programs: list[subprocess.Popen[bytes]] = []
        self._finish = weakref.finalize(self, _end, self._programs)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None
        _end(self._programs)

    def _parsed(self) -> Address | None:
        """Return where the engine is; None for one behind a socket."""
        if self.host.startswith("unix://"):
            return None
        text = self.host if "://" in self.host else f"tcp://{self.host}"
        try:
            return url.parse(text, ("tcp", "http", "https", "ssh"))
        except url.NoAddress as error:
            hint = "write DOCKER_HOST like unix:///var/run/docker.sock, tcp://127.0.0.1:2375 or ssh://user@server"
            raise TargetUnreadable(Problem("DOCKER_HOST", error.summary, hint, scope=self.scope)) from None

    @property
    def remote(self) -> bool:
        """Whether the engine runs on another machine, where our paths and loopback mean nothing."""
        return self.address is not None and (self.address.scheme == "ssh" or not self.address.is_loopback)

    def inspect(self, container: str) -> Mapping[str, Any]:
        """Return what the engine tells of a container."""
        with self.understanding():
            return dict(self.get(f"/containers/{_named(container)}/json"))

    def archive(self, container: str, path: str, largest: int) -> bytes | None:
        """Return the beginning of the archive (tar) of a file or directory in a container; None where there is none.

        The engine compresses for who accepts it (field.md, L17).
        """
        with contextlib.suppress(NotThere):
            asked = {"params": {"path": path}, "headers": {"Accept-Encoding": "identity"}}
            bounds = replace(self._bounds, largest=largest, cut=True)
            return self.ask("GET", f"/containers/{_named(container)}/archive", bounds, **asked).body
        return None

    def log(self, container: str, lines: int, since: datetime | None = None) -> str:
        """Return the last lines that a container printed, ``since`` a time (UTC, without a zone)."""
        raw = bool(self.inspect(container)["Config"].get("Tty"))
        params: dict[str, Any] = {"stdout": 1, "stderr": 1, "tail": lines}
        if since is not None:
            params["since"] = int(since.replace(tzinfo=UTC).timestamp())
        bounds = replace(self._bounds, largest=_LOG, cut=True)
        body = self.ask("GET", f"/containers/{_named(container)}/logs", bounds, params=params).body
        return (body if raw else b"".join(_pieces(body))).decode(errors="replace")

    def restart(self, container: str, stop: int) -> None:
        """Restart a container, which gets ``stop`` seconds to end; returns when it has been started again."""
        bounds = replace(self._bounds, seconds=self._bounds.seconds + stop)
        self.ask("POST", f"/containers/{_named(container)}/restart", bounds, params={"t": stop})

    # ------------------------------------------------------------------------------------------------------- the wire
    def get(self, path: str, **params: Any) -> Any:
        """Ask for JSON. Raises `TargetUnreadable`."""
        return self._json(self.ask("GET", path, params=params))

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Send JSON, and return what is answered to it; None for an answer that says nothing."""
        answer = self.ask("POST", path, json=body)
        return self._json(answer) if answer.content_type.startswith("application/json") else None

    def ask(self, method: str, path: str, bounds: Bounds | None = None, **request: Any) -> http.Answer:
        """Send one request. Raises `TargetUnreadable`."""
        try:
            answer = http.exchange(self._connected(), method, path, bounds=bounds, **request)
        except (http.Unanswered, OSError) as error:  # the latter of a certificate's files
            raise self.unreachable(_cause(error)) from error
        if answer.status < 400:  # noqa: PLR2004 (HTTP)
            return answer
        kind = NotThere if answer.status == _MISSING else Declined
        said = answer.word("message") or f"HTTP {answer.status}"
        raise kind(self._problem(f"refuses: {said[:500]}"))

    @contextlib.contextmanager
    def understanding(self) -> Iterator[None]:
        """Turn what is wrong with an answer into a problem: any is believed."""
        try:
            yield
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise self.unreachable("answers what can't be understood") from error

    def _json(self, answer: http.Answer) -> Any:
        body = answer.json()
        if body is None:
            raise self.unreachable("answers what can't be understood")
        return body

    def _connected(self) -> httpx.Client:
        with self._lock:
            if self._client is None:
                self._client = self._made(self.address)
            return self._client

    def _made(self, address: Address | None) -> httpx.Client:
        """Make the client. Whom to ask is the environment's choice, which says by tcp:// that the way is safe."""
        if address is None:
            return http.client(_LOCAL, self._bounds, dial=_down_socket(self.host.removeprefix("unix://")))
        if address.scheme == "ssh":
            return http.client(_LOCAL, self._bounds, dial=_over_ssh(address, self._programs))
        keys = bool(os.environ.get("DOCKER_TLS_VERIFY") or os.environ.get("DOCKER_CERT_PATH"))
        tls = address.tls or (address.scheme == "tcp" and keys)
        target = replace(address, scheme="https" if tls else "http")
        return http.client(target, self._bounds, trust=_trust if keys else None, admits=lambda _: True)

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


def _pieces(body: bytes) -> Iterator[bytes]:
    """Yield what was printed, of a log that says before each piece on which stream."""
    at = 0
    while at + _FRAME <= len(body):
        length = int.from_bytes(body[at + 4 : at + _FRAME], "big")
        yield body[at + _FRAME : at + _FRAME + length]
        at += _FRAME + length


# -------------------------------------------------------------------------------------------------- ways to an engine
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


def _over_ssh(address: Address, programs: list[subprocess.Popen[bytes]]) -> http.Dial:
    """Start the ssh program, which knows the user's keys and configuration, for each connection."""
    user = ["-l", address.user] if address.user else []
    port = ["-p", str(address.port)] if address.port != url.SSH_PORT else []  # else the one of its configuration

    def dial(_deadline: Deadline, _: Bounds) -> socket.socket:
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                programs.append(
                    subprocess.Popen(
                        ["ssh", *user, *port, "--", address.host, "docker system dial-stdio"],
                        env=_ssh_environment(),
                        stdin=theirs.fileno(),
                        stdout=theirs.fileno(),
                        process_group=0,  # an interrupt is ours to deal with
                    )
                )
            except BaseException:
                ours.close()
                raise
        return ours

    return dial


def _ssh_environment() -> dict[str, str]:
    """Give ssh what it needs: it would get our whole environment, secrets and all."""
    return {name: os.environ[name] for name in ("PATH", "HOME", "USER", "SSH_AUTH_SOCK") if name in os.environ}


def _end(programs: list[subprocess.Popen[bytes]]) -> None:
    for program in programs:
        program.kill()
        program.wait()
    programs.clear()


def _context_host(scope: str) -> str:
    """Return the host of Docker's current context (Colima has one), as the docker program chooses it.

    Raises `TargetUnreadable` where DOCKER_CONTEXT names none.
    """
    folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    asked = os.environ.get("DOCKER_CONTEXT")
    name = asked or _told(folder / "config.json", "currentContext") or "default"
    if name == "default":
        return _SOCKET
    meta = folder / "contexts" / "meta" / hashlib.sha256(name.encode()).hexdigest() / "meta.json"
    host = _told(meta, "Endpoints", "docker", "Host")
    if asked and not host:
        hint = "see docker context ls, or unset DOCKER_CONTEXT"
        raise TargetUnreadable(Problem("DOCKER_CONTEXT", f"there is no Docker context {name}", hint, scope=scope))
    return host or _SOCKET


def _told(file: Path, *keys: str) -> str:
    """Return a text out of a file of Docker's; empty where it is not there or says something else."""
    try:
        value = json.loads(file.read_bytes())
        for key in keys:
            value = value[key]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return ""
    return value if isinstance(value, str) else ""
