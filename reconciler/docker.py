"""The Docker Engine: one client, what goes wrong as problems of ours, and the few calls that targets make."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from reconciler import process
from reconciler.problem import Problem, TargetUnreadable
from reconciler.url import is_loopback

if TYPE_CHECKING:
    import docker

# Functions import `docker` itself and none of its modules. It imports itself in circles, and two targets import it at
# the same time in two threads: two ways into the circle end in a deadlock of Python's import locks.
_TIMEOUT = 30  # seconds for one call to the engine
_MISSING = 404


class NotThere(TargetUnreadable):
    """The engine answers, and has not what was asked for."""


class Client:
    """The engine behind ``host``, as in ``DOCKER_HOST``, or behind Docker's current context. Use it as a context.

    ``scope`` is what its problems block. Nothing is asked before the first call; every call raises `TargetUnreadable`,
    `NotThere` where a container is missing. Containers are told by id or name.
    """

    def __init__(self, host: str | None, scope: str, timeout: int = _TIMEOUT) -> None:
        self.scope = scope
        self.host = host or _context_host(scope)
        self._timeout = timeout
        self._client: docker.APIClient | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    @property
    def remote(self) -> bool:
        """Whether the engine runs on another machine, where our paths and loopback mean nothing."""
        parts = urlsplit(self.host)
        if parts.scheme in ("tcp", "http", "https"):
            return not is_loopback(parts.hostname or "")
        return bool(self.host) and parts.scheme not in ("unix", "npipe")

    def inspect(self, container: str) -> Mapping[str, Any]:
        """Return what the engine tells of a container."""
        with self.reaching() as client:
            return dict(client.inspect_container(container))

    def archive(self, container: str, path: str, largest: int) -> bytes | None:
        """Return the beginning of the archive (tar) of a file or directory in a container; None where there is none.

        The engine compresses for who accepts it (field.md, L17). The package's own call can't let go of an archive of
        gigabytes before its end.
        """
        with self.reaching() as client:
            url = f"{client.base_url}/v{client.api_version}/containers/{container}/archive"
            plain = {"Accept-Encoding": "identity"}
            with client.get(url, params={"path": path}, headers=plain, stream=True, timeout=self._timeout) as response:
                if response.status_code == _MISSING:
                    return None
                response.raise_for_status()
                return bytes(response.raw.read(largest))

    def log(self, container: str, lines: int, since: datetime | None = None) -> str:
        """Return the last lines that a container printed, ``since`` a time (UTC, without a zone)."""
        with self.reaching() as client:
            return str(client.logs(container, tail=lines, since=since).decode(errors="replace"))

    def restart(self, container: str, stop: int) -> None:
        """Restart a container, which gets ``stop`` seconds to end; returns when it has been started again."""
        with self.reaching() as client:
            client.restart(container, timeout=stop)

    @contextlib.contextmanager
    def reaching(self) -> Iterator[Any]:
        """Yield the package's client, and turn what goes wrong into a problem."""
        import docker
        import requests

        try:
            yield self._connect()
        except docker.errors.NotFound as error:
            raise NotThere(self._problem(f"refuses: {error.explanation or error}")) from error
        except docker.errors.APIError as error:
            raise self.unreachable(f"refuses: {error.explanation or error}") from error
        except (docker.errors.DockerException, requests.exceptions.RequestException, OSError, ValueError) as error:
            raise self.unreachable(_cause(error)) from error
        except (LookupError, TypeError, AttributeError) as error:  # the package trusts every answer
            raise self.unreachable("answers what can't be understood") from error

    def _connect(self) -> docker.APIClient:
        import docker
        from docker.utils import kwargs_from_env  # it is there by now

        if self._client is None:
            ssh = self.host.startswith("ssh://")  # by the ssh program, which knows the user's keys and configuration
            host = _with_port(self.host) if ssh else self.host
            if ssh:
                _keep_environment_from_ssh()
            settings = kwargs_from_env(environment={**os.environ, "DOCKER_HOST": host})
            self._client = docker.APIClient(**settings, version="auto", timeout=self._timeout, use_ssh_client=ssh)
        return self._client

    def unreachable(self, cause: str) -> TargetUnreadable:
        """Make the error of an engine that does not do what it should."""
        return TargetUnreadable(self._problem(cause))

    def _problem(self, cause: str) -> Problem:
        hint = "start it, or let DOCKER_HOST name the machine it runs on (ssh://user@server)"
        if self.host.startswith("ssh://"):
            cause = cause.replace("can't be reached:", "can't be reached over SSH:")
            hint = f"docker -H {self.host} version has to work without a question (a key, a known host, docker there)"
        return Problem(f"Docker Engine {self.host}", cause, hint, scope=self.scope)


def _cause(error: BaseException) -> str:
    """Return the innermost cause: the `docker` package wraps it in up to five others."""
    innermost = error
    while innermost.__cause__ or innermost.__context__:
        innermost = innermost.__cause__ or innermost.__context__ or innermost
    return f"can't be reached: {getattr(innermost, 'strerror', None) or innermost}"


def _keep_environment_from_ssh() -> None:
    """Start the `docker` package's ssh with what it needs: it would get our whole environment, secrets and all."""
    from docker.transport import sshconn

    class Socket(sshconn.SSHSocket):
        def connect(self, **_: object) -> None:  # type: ignore[override]
            user = ["-l", self.user] if self.user else []
            port = ["-p", self.port] if self.port else []
            command = ["ssh", *user, *port, "--", self.host, "docker system dial-stdio"]
            try:
                self.proc = process.spawn(process.SSH, command, os.environ, heard=True)
            except process.CannotRun as error:
                raise OSError(errno.ENOENT, f"ssh {error.why}") from None

        def close(self) -> None:
            """End ssh, and close the socket that the package only pretends to use and leaves open."""
            with contextlib.suppress(OSError):  # ssh may have gone by itself
                super().close()
            socket.socket.close(self)
            if self.proc:
                process.forget(self.proc)

    if sshconn.SSHSocket.__name__ == "SSHSocket":
        sshconn.SSHSocket = Socket  # type: ignore[misc]


def _with_port(host: str) -> str:
    """Add the port that the user's SSH configuration names: the `docker` package would insist on 22."""
    parts = urlsplit(host)
    if parts.port or not parts.hostname:
        return host
    try:
        asked = ["ssh", "-G", "--", parts.hostname]
        said = process.run(process.SSH, asked, os.environ, limit=_TIMEOUT).output
    except process.CannotRun:  # without the program connecting fails next, and says why
        return host
    port = re.search(r"^port (\d+)$", said, re.MULTILINE)
    return f"ssh://{parts.netloc}:{port[1]}" if port else host


def _context_host(scope: str) -> str:
    """Return the host of Docker's current context (Colima has one), as the docker program chooses it.

    The `docker` package does not know DOCKER_CONTEXT. Raises `TargetUnreadable` where that names none.
    """
    import docker

    name = os.environ.get("DOCKER_CONTEXT")
    try:
        context = docker.context.ContextAPI.get_context(name)
    except (docker.errors.DockerException, OSError, ValueError):
        context = None
    if name and context is None:
        hint = "see docker context ls, or unset DOCKER_CONTEXT"
        raise TargetUnreadable(Problem("DOCKER_CONTEXT", f"there is no Docker context {name}", hint, scope=scope))
    host = getattr(context, "Host", None)
    return str(host or "unix:///var/run/docker.sock").replace("http+unix://", "unix://")
