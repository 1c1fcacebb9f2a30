"""What a switch would leave at the former provider's TLS mode, so that no mail would go out. Pure.

A variable that is not said by mode stays what it is. That does no harm while the mode stays, too; where another one
comes, whoever reads ``SMTP_SECURITY=starttls`` at a port that begins with TLS hangs, or the other way round.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from reconciler.desired.presets import tls_mode
from reconciler.problem import Problem, Severity
from reconciler.resources import Login
from reconciler.targets.compose.snapshot import Snapshot, View

_MAIL = re.compile(r"smtp|mail", re.IGNORECASE)
_MODE = re.compile(
    r"(?:^|[_.-])(?:use_?)?(?:ssl|tls|start_?tls|secure|security|encryption|protocol|scheme|connection_?security)"
    r"(?:[_.-]?(?:enabled?|mode|type|policy|auto|required?))?$",
    re.IGNORECASE,
)
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_ASIDE = re.compile(r"verif|skip|insecure|reject|cert|(?:^|_)ca(?:_|$)|cipher|version|trust|invalid", re.IGNORECASE)
_URL_MODE = re.compile(r"(smtps?|submissions?)(?:\+[a-z]+)?://", re.IGNORECASE)
_PORT_IN = re.compile(r":(\d{1,5})(?![\d.])")


def says_tls(name: str) -> bool:
    """Whether a variable is about how TLS begins with the mail server, by its name."""
    plain = _CAMEL.sub("_", name)
    return bool(_MAIL.search(name) and _MODE.search(plain)) and not _ASIDE.search(plain)


def left_behind(views: Sequence[View], snapshot: Snapshot) -> Iterator[Problem]:
    """Refuse each variable that stays at a TLS mode that the switch of its service leaves."""
    for service in dict.fromkeys(view.wanted.service for view in views):
        own = [view for view in views if view.wanted.service == service]
        login = next((view.wanted.login for view in own if view.wanted.login is not None), None)
        if login is None or not any(view.wanted.login and (view.misconfigured or view.stale) for view in own):
            continue
        new, former = tls_mode(login.tls, login.port), _former_mode(own, login)
        if former and former != new:
            names = dict.fromkeys((*_unmanaged(own, snapshot.project.effective.get(service, {})), *_fixed(own)))
            yield from (_refused(service, name, former, new) for name in names)


def _former_mode(views: Sequence[View], login: Login) -> str:
    """Return the mode that the container was started with, as far as its port tells it; empty where it does not."""
    for view in views:
        wanted, running = view.text or "", view.oldest or ""
        if wanted == str(login.port) and running.isdigit():
            return tls_mode(None, int(running))
        if f":{login.port}" in wanted and (found := _PORT_IN.findall(running)):
            return tls_mode(None, int(found[-1]))
    return ""


def _unmanaged(views: Sequence[View], environment: Mapping[str, str | None]) -> Iterator[str]:
    """Yield what is said of TLS, and nobody here declares."""
    managed = {view.wanted.name for view in views}
    yield from (name for name, value in environment.items() if name not in managed and value and says_tls(name))


def _fixed(views: Sequence[View]) -> Iterator[str]:
    """Yield what is declared, is the same for every mode, and runs so already: a plain value, or a URL's scheme."""
    for view in views:
        if view.wanted.by_tls or view.text is None or view.oldest is None:
            continue
        schemes = [found[1].lower() if (found := _URL_MODE.match(item)) else "" for item in (view.text, view.oldest)]
        if (view.text == view.oldest and view.text and says_tls(view.wanted.name)) or (
            schemes[0] and len(set(schemes)) == 1
        ):
            yield view.wanted.name


def _refused(service: str, name: str, former: str, new: str) -> Problem:
    summary = f"stays as it was for the TLS mode {former}, and the provider's is {new}: no mail would go out"
    hint = f"say it by mode under smtp.consumers.{service}.env: `{name}: {{starttls: ..., implicit: ..., none: ...}}`"
    scope = f"smtp/{service}"
    return Problem(f"{scope}/{name}", summary, f"{hint}, or name the application: `app: NAME`", Severity.REFUSED, scope)
