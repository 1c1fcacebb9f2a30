"""What the environment says: it overrides the directory, for tests and CI, and the plan's head shows that it did."""

from __future__ import annotations

import datetime as dt
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from reconciler import url
from reconciler.problem import Problem, ReconcilerError, Refused

TARGETS = ("stalwart", "cloudflare", "compose")

# What overrides the directory, and which target it matters to ("": all of them).
OVERRIDES = {
    "RECONCILER_STATE": "",
    "RECONCILER_DATA": "",
    "STALWART_URL": "stalwart",
    "CLOUDFLARE_BASE_URL": "cloudflare",
    "DOCKER_HOST": "compose",
    "RECONCILER_COMPOSE": "compose",
    "BREVO_BASE_URL": "cloudflare",
    "RECONCILER_NAMESERVERS": "",
    "RECONCILER_RESOLVERS": "",
    "RECONCILER_ROUTER": "cloudflare",
    "RECONCILER_WHOAMI": "cloudflare",
    "RECONCILER_TODAY": "",
    "RECONCILER_ROUTES": "compose",
    "RECONCILER_SECRETS": "",
}


@dataclass(frozen=True, slots=True)
class Settings:
    """Where things are, from the command line and the environment.

    ``environ`` is the whole environment, which secrets come from; ``state`` the directory of YAML; ``data`` where the
    journal and the lease are, which `own_data` judges. ``routes`` says where a mail server is reached from here for the
    proof of credentials (``RECONCILER_ROUTES="smtp.example:587=127.0.0.1:2525"``); the certificate still has to be the
    host's.
    ``nameservers`` (``HOST[:PORT] ...``) are asked in place of a zone's authoritative ones; ``router`` (a URL), or else
    ``whoami`` (``NAME/TYPE[/CLASS]@HOST[:PORT] ...``), tells the line's address (`observe.line`); ``resolvers``
    (``HOST[:PORT] ...``) are asked by `doctor` in place of two public ones; ``today`` counts as today.
    ``overrides`` names the variables that hold in place of what the directory or the command's default says.
    """

    state: Path
    data: Path
    environ: Mapping[str, str] = field(repr=False)
    stalwart_url: str | None = None
    cloudflare_base_url: str | None = None
    docker_host: str | None = None
    compose: tuple[str, ...] = ("docker", "compose")
    brevo_base_url: str | None = None
    nameservers: tuple[str, ...] = ()
    router: str | None = None
    whoami: tuple[str, ...] = ()
    resolvers: tuple[str, ...] = ()
    today: dt.date = field(default_factory=lambda: dt.datetime.now(dt.UTC).date())
    routes: Mapping[tuple[str, int], tuple[str, int]] = field(default_factory=dict)
    overrides: frozenset[str] = frozenset()

    @classmethod
    def read(cls, environ: Mapping[str, str], state: Path | None = None, data: Path | None = None) -> Settings:
        """Read the environment; ``state`` and ``data`` are what the command line says, which wins."""
        said = {"RECONCILER_STATE": state, "RECONCILER_DATA": data}
        overrides = frozenset(name for name in OVERRIDES if environ.get(name) and not said.get(name))
        state = state or Path(environ.get("RECONCILER_STATE") or "desired-state")
        data = data or Path(environ.get("RECONCILER_DATA") or state.resolve().parent / ".reconciler")
        return cls(
            state=state,
            data=data,
            environ=environ,
            stalwart_url=_url(environ, "STALWART_URL"),
            cloudflare_base_url=_url(environ, "CLOUDFLARE_BASE_URL"),
            docker_host=_url(environ, "DOCKER_HOST"),
            compose=tuple(shlex.split(environ.get("RECONCILER_COMPOSE") or "docker compose")),
            brevo_base_url=_url(environ, "BREVO_BASE_URL"),
            today=_today(environ.get("RECONCILER_TODAY", "")),
            nameservers=tuple(environ.get("RECONCILER_NAMESERVERS", "").replace(",", " ").split()),
            router=_url(environ, "RECONCILER_ROUTER"),
            whoami=tuple(environ.get("RECONCILER_WHOAMI", "").split()),
            resolvers=tuple(environ.get("RECONCILER_RESOLVERS", "").replace(",", " ").split()),
            routes=dict(_route(item) for item in environ.get("RECONCILER_ROUTES", "").split()),
            overrides=overrides,
        )

    def own_data(self) -> Path:
        """Return the data directory, in which everything is believed.

        Raises `Refused` where git has a file of it, which whoever opens a pull request made, and where other users may
        write there.
        """
        from reconciler import files, git

        if who := files.strangers(self.data):
            summary = f"{who}, and what lies there is believed"
            hint = "run it as the user whose it is, who alone may write there (chmod go-w), or name another with --data"
            raise Refused(Problem(str(self.data), summary, hint))

        if (file := git.tracked(self.data, self.environ)) is not None:
            summary = f"holds {file}, which git tracks: a commit may have put there what is no knowledge of ours"
            hint = "take its files out of git (`git rm -r --cached`), remove it, or name another directory with --data"
            raise Refused(Problem(str(self.data), summary, hint))
        return self.data

    def shown(self, targets: Sequence[str]) -> tuple[str, ...]:
        """Name the variables that override the directory for these targets, on one line. None holds a secret."""
        names = [name for name, target in OVERRIDES.items() if name in self.overrides and target in ("", *targets)]
        listed = ", ".join(f"{name}={self.environ[name]}" for name in names)
        return (f"set by the environment: {listed}",) if listed else ()


def _today(text: str) -> dt.date:
    """Read the day that counts as today, to see ahead of time what will be due. Raises `ReconcilerError`."""
    try:
        return dt.date.fromisoformat(text) if text else dt.datetime.now(dt.UTC).date()
    except ValueError:
        problem = Problem("RECONCILER_TODAY", f"{text!r} is no day", "write it like 2026-11-22, or unset it")
        raise ReconcilerError(problem) from None


def _url(environ: Mapping[str, str], name: str) -> str | None:
    """Read a URL that will be shown; raises `ReconcilerError`, which does not repeat it, where it holds a password."""
    text = environ.get(name, "")
    login = text.rpartition("@")[0].partition("://")[2]
    if "@" in text and (":" in login or not text.lower().startswith("ssh://")):  # a name alone may be a token
        problem = Problem(name, "holds a password, and URLs are shown", "leave it out: the directory says where it is")
        raise ReconcilerError(problem)
    return text or None


def _route(text: str) -> tuple[tuple[str, int], tuple[str, int]]:
    """Read ``HOST:PORT=HOST:PORT``; raises `ReconcilerError`."""
    try:
        host, there = text.split("=")
        return url.endpoint(host), url.endpoint(there)
    except ValueError:
        problem = Problem("RECONCILER_ROUTES", f"{text!r} is no route", "write smtp.example:587=127.0.0.1:2525")
        raise ReconcilerError(problem) from None
