"""Stalwart, either generation: who answers at the URL, and the target that drives it.

Both generations are targets over the same kinds and share `Connection`, `passwords`, `ports` and `container`.
Nothing above this package knows versions.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from reconciler.plan import Change
from reconciler.problem import Problem, ReconcilerError, TargetUnreadable
from reconciler.reconcile import Outcome, Progress, Reveal, Stopped
from reconciler.resources import Observation, Resource, SecretRef
from reconciler.targets.stalwart.connection import TARGET, Connection, Login, NotFound
from reconciler.targets.stalwart.container import Container, Docker, DockerUnreachable, is_loopback
from reconciler.targets.stalwart.rest import StalwartRest

_PROBE = "/.well-known/oauth-protected-resource"  # 0.16 answers it to everyone, 0.15 has no such path (observed.md)
_VERSIONS = {"rest": "up to 0.15 (REST)", "jmap": "0.16 or later (JMAP)"}


class Stalwart:
    """The mail server at ``url``.

    ``passwords`` are tried in order, each once. ``recovery`` (``user:password``) gets into a 0.16 server that lost
    its accounts. ``generation`` refuses a server of the other one. ``container`` is the name of its container at the
    engine ``docker_host`` (None: the environment's). ``progress`` tells a person what is waited for.
    """

    name = TARGET

    def __init__(
        self,
        *,
        url: str,
        username: str,
        passwords: Sequence[SecretRef],
        container: str | None = None,
        recovery: SecretRef | None = None,
        generation: str | None = None,
        allow_plain_http: bool = False,
        docker_host: str | None = None,
        progress: Progress = lambda _: None,
    ) -> None:
        """Remember how to get there; nothing is asked yet."""
        self.url, self.generation, self.recovery = url.rstrip("/"), generation, recovery
        self._allow_plain_http = allow_plain_http
        self._login = Login(username, tuple(passwords))
        self._docker = Docker(container, docker_host) if container else None
        self._progress = progress
        self._rest = StalwartRest(self._connect, self._docker, progress)

    def observe(self, wanted: Sequence[Resource], reveal: Reveal) -> Observation:
        """Read what is live. The first request that observes also tells the generation: 0.16 has no such path."""
        try:
            if self.generation == "jmap":
                self._refuse_other(reveal)
            return self._rest.observe(wanted, reveal)
        except NotFound as error:
            return self._unread(self._unknown_server(reveal, error))
        except ReconcilerError as error:
            return self._unread(error.problems)

    def apply(self, changes: Sequence[Change], reveal: Reveal, stopped: Stopped = lambda: False) -> Iterator[Outcome]:
        """Carry out the changes of one phase. Raises `TargetUnreadable` when the server is not one we drive."""
        if self.generation == "jmap":
            self._refuse_other(reveal)
        yield from self._rest.apply(changes, reveal, stopped)

    # ------------------------------------------------------------------------------------------------------ connecting
    def _connect(self, reveal: Reveal) -> Connection:
        """Open a connection; no credential goes over a line that others may read."""
        parts = urlsplit(self.url)
        if parts.scheme == "http" and not self._allow_plain_http and not self._is_private(parts.hostname or ""):
            raise TargetUnreadable(
                self._problem(
                    "would send the administrator's password unencrypted",
                    "use https://, an SSH tunnel to loopback, or the container's own name or address; where the line "
                    "is safe all the same, write `allow_plain_http: true` under targets.stalwart",
                )
            )
        return Connection(self.url, self._login, reveal, self._progress)

    def _is_private(self, host: str) -> bool:
        """Whether plain HTTP stays on this machine: loopback, the declared container, or its private network."""
        if is_loopback(host):
            return True
        if self._docker is None:
            return False
        if host == self._docker.name:
            return True
        try:
            return _is_own(host, self._docker.inspect())
        except DockerUnreachable:
            return False

    # ------------------------------------------------------------------------------------------------------ generations
    def _probe(self, reveal: Reveal) -> str | None:
        """Ask without credentials which generation answers; None when it is neither for certain."""
        with self._connect(reveal) as connection:
            answer = connection.probe(_PROBE)
        body = answer.json()
        return "jmap" if answer.status == 200 and isinstance(body, dict) and "resource" in body else None  # noqa: PLR2004

    def _refuse_other(self, reveal: Reveal) -> None:
        """Raise for every server while JMAP is declared: this version drives the other generation."""
        found = self._probe(reveal) or "rest"
        raise TargetUnreadable(self._not_driven() if found == "jmap" else self._mismatch(found))

    def _unknown_server(self, reveal: Reveal, missing: NotFound) -> Sequence[Problem]:
        try:
            found = self._probe(reveal)
        except TargetUnreadable as error:
            return error.problems
        if found is None:
            return missing.problems
        return (self._mismatch(found) if self.generation else self._not_driven(),)

    def _mismatch(self, found: str) -> Problem:
        return self._problem(
            f"is {_VERSIONS[found]}, but targets.stalwart.generation is {self.generation}",
            f"pin the image's tag to a version {_VERSIONS[self.generation or 'rest']}, or write `generation: {found}`",
        )

    def _not_driven(self) -> Problem:
        return self._problem(
            "is 0.16 or later; this version of the reconciler drives up to 0.15",
            "pin the image's tag to a version up to 0.15, such as stalwartlabs/stalwart:v0.15.5",
        )

    def _problem(self, summary: str, hint: str) -> Problem:
        return Problem(f"Stalwart at {self.url}", summary, hint, scope=TARGET)

    def _unread(self, problems: Sequence[Problem]) -> Observation:
        return Observation(TARGET, unread=frozenset({TARGET}), problems=tuple(problems))


def _is_own(host: str, container: Container) -> bool:
    """Whether a host is the container, or lies in its private networks with every address it has."""
    if host in container.aliases:
        return True
    try:
        found = {str(item[4][0]) for item in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError:
        return False
    return all(container.owns(address) and ipaddress.ip_address(address).is_private for address in found)
