"""What the environment says: it overrides the directory, for tests and CI, and the plan's head shows that it did."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from reconciler.problem import Problem, ReconcilerError

SHOWN = (
    "STALWART_URL",
    "CLOUDFLARE_BASE_URL",
    "DOCKER_HOST",
    "RECONCILER_COMPOSE",
    "RECONCILER_NAMESERVERS",
    "RECONCILER_ROUTES",
)


@dataclass(frozen=True, slots=True)
class Settings:
    """Where things are, from the command line and the environment.

    ``environ`` is the whole environment, which secrets come from; ``state`` the directory of YAML; ``data`` where the
    journal and the lease are. ``routes`` says where a mail server is reached from here for the proof of credentials
    (``RECONCILER_ROUTES="smtp.example:587=127.0.0.1:2525"``); the certificate still has to be the host's.
    """

    state: Path
    data: Path
    environ: Mapping[str, str] = field(repr=False)
    stalwart_url: str | None = None
    cloudflare_base_url: str | None = None
    docker_host: str | None = None
    compose: tuple[str, ...] = ("docker", "compose")
    nameservers: tuple[str, ...] = ()
    routes: Mapping[tuple[str, int], tuple[str, int]] = field(default_factory=dict)

    @classmethod
    def read(cls, environ: Mapping[str, str], state: Path | None = None, data: Path | None = None) -> Settings:
        """Read the environment; ``state`` and ``data`` are what the command line says, which wins."""
        state = state or Path(environ.get("RECONCILER_STATE") or "desired-state")
        data = data or Path(environ.get("RECONCILER_DATA") or state.resolve().parent / ".reconciler")
        return cls(
            state=state,
            data=data,
            environ=environ,
            stalwart_url=environ.get("STALWART_URL") or None,
            cloudflare_base_url=environ.get("CLOUDFLARE_BASE_URL") or None,
            docker_host=environ.get("DOCKER_HOST") or None,
            compose=tuple(shlex.split(environ.get("RECONCILER_COMPOSE") or "docker compose")),
            nameservers=tuple(environ.get("RECONCILER_NAMESERVERS", "").replace(",", " ").split()),
            routes=dict(_route(item) for item in environ.get("RECONCILER_ROUTES", "").split()),
        )

    def shown(self) -> tuple[str, ...]:
        """Name the variables that override the directory, as ``NAME=value``; none of them holds a secret."""
        return tuple(f"{name}={self.environ[name]}" for name in SHOWN if self.environ.get(name))


def _route(text: str) -> tuple[tuple[str, int], tuple[str, int]]:
    """Read ``HOST:PORT=HOST:PORT``; raises `ReconcilerError`."""
    try:
        (host, port), (there, at) = (side.rsplit(":", 1) for side in text.split("="))
        return (host, int(port)), (there, int(at))
    except ValueError:
        problem = Problem("RECONCILER_ROUTES", f"{text!r} is no route", "write smtp.example:587=127.0.0.1:2525")
        raise ReconcilerError(problem) from None
