"""Which application a service is, what its variables say of its provider, and what the directory says of it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import parseaddr
from itertools import product
from typing import TYPE_CHECKING

from reconciler.desired import template, words
from reconciler.desired.apps import APPS, App, Entry
from reconciler.desired.presets import tls_mode
from reconciler.desired.words import Choice, Terms, Value
from reconciler.secrecy import is_switch

if TYPE_CHECKING:
    from reconciler.targets.compose.snapshot import Service

_FORMS = {
    "host": r"\[[0-9A-Fa-f:.]+\]|[^\s:/@\[\]]+",
    "port": r"\d{1,5}",
    "username": r".*",
    "password": r".*",
    "from": r".*",
}
_SECRET = re.compile(r"/(?:var/)?run/secrets/([^/]+)")
_SWITCHES = (("true", "false"), ("1", "0"), ("yes", "no"), ("on", "off"))
_SENDS = re.compile(
    r"smtp|mail.*(host|server|port|url|dsn|user|login|pass|transport)|(host|server|url|dsn).*mail"
    r"|sendmail|sendgrid|mail(gun|jet|ersend|chimp)|postmark|sparkpost|brevo|sendinblue|mandrill",
    re.IGNORECASE,
)


def recognise(service: Service) -> str:
    """Name the application that a service is, by its image, else by the variables that only it has; empty for none."""
    by_image = (name for name, app in APPS.items() if app.is_image(service.image))
    if found := next(by_image, ""):
        return found
    environment = service.running[0] if service.running else {}
    known = [name for name, app in APPS.items() if app.sign and all(environment.get(item) for item in app.sign)]
    return max(known, key=lambda name: len(APPS[name].sign), default="")


def mail_variables(environment: Mapping[str, str]) -> list[str]:
    """Name the variables of an environment that look as if mail was sent by them."""
    return [name for name, value in sorted(environment.items()) if value and _SENDS.search(name)]


@dataclass(frozen=True, slots=True)
class Reading:
    """What an application's variables say: ``said`` is what templates are filled with, ``terms`` what choices go by.

    ``files`` maps a variable to the compose secret that its ``_FILE`` names in its place.
    """

    app: App
    said: Mapping[str, str] = field(repr=False)
    terms: Terms
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def sender(self) -> str:
        """Whom mail is from, where it says so."""
        return self.said.get("from", "")

    def text(self, value: Value | None) -> str | None:
        """Return what a value is with this provider; None where it says something that is not known."""
        chosen = words.choose(value, self.terms) if value is not None else None
        if not isinstance(chosen, str) or not template.slots(chosen) <= self.said.keys():
            return None
        return template.filled(chosen, self.said)


def read(name: str, service: Service) -> Reading | None:
    """Read what an application's variables say of its provider; None where they name no server."""
    app, environment = APPS[name], dict(service.running[0])
    files = {
        variable: found[1]
        for variable in app.variables
        for ending in ("_FILE", "__FILE")
        if (found := _SECRET.fullmatch(environment.get(f"{variable}{ending}", ""))) and found[1] in service.secrets
    }
    environment |= {variable: service.secrets[secret] for variable, secret in files.items()}
    said = _said(app, environment)
    if not said.get("host"):
        return None
    port = int(said.get("port") or _usual_port(app, environment))
    if port not in range(1, 65536):
        return None
    said = {"username": "", "password": "", **said, "port": str(port)}
    terms = max(_possible(port, said), key=lambda terms: _agreeing(app, environment, said, terms))
    return Reading(app, said, terms, files)


def _said(app: App, environment: Mapping[str, str]) -> dict[str, str]:
    """Return host, port, login and sender, out of whichever variables hold them."""
    said: dict[str, str] = {}
    parts: dict[str, str] = {}
    for name, entry in app.variables.items():
        for leaf in words.leaves(entry.value):
            if not environment.get(name) or not isinstance(leaf, str) or not template.slots(leaf):
                continue
            if found := re.fullmatch(_pattern(leaf), environment[name], re.DOTALL):
                groups = {key: value for key, value in found.groupdict().items() if value is not None}
                parts |= {key: value for key, value in groups.items() if key in ("local", "domain")}
                said = {**{key: value for key, value in groups.items() if key in _FORMS}, **said}
    if "local" in parts and "domain" in parts:
        said.setdefault("from", f"{parts['local']}@{parts['domain']}")
    return said


def _pattern(text: str) -> str:
    return "".join(
        re.escape(part)
        if isinstance(part, str)
        else f"(?P<{part.escape if part.escape in ('local', 'domain') else part.name}>{_FORMS[part.name]})"
        for part in template.split(text)
    )


def _usual_port(app: App, environment: Mapping[str, str]) -> str:
    """Return the port that an application takes where it is told none; 587 where that is not known."""
    entry = next((entry for entry in app.variables.values() if entry.value == "{port}"), Entry(""))
    if not isinstance(entry.assumed, Choice):
        return entry.assumed if isinstance(entry.assumed, str) else "587"
    modes = (Terms(word, verified=True, login=True) for word, _ in entry.assumed.options)
    best = max(modes, key=lambda terms: _agreeing(app, environment, {}, terms))
    return str(words.choose(entry.assumed, best))


def _possible(port: int, said: Mapping[str, str]) -> Iterator[Terms]:
    """Yield what the provider may be like, what its port says first; TLS from the start is seldom at another one."""
    usual = tls_mode(None, port)
    modes = dict.fromkeys((usual, words.STARTTLS, words.NO_TLS, words.IMPLICIT))
    yield from (Terms(mode, verified, bool(said["username"])) for mode, verified in product(modes, (True, False)))


def _agreeing(app: App, environment: Mapping[str, str], said: Mapping[str, str], terms: Terms) -> int:
    """Count the variables that are spelled as an application with such a provider is told."""
    reading = Reading(app, said, terms)
    chosen = {name: entry for name, entry in app.variables.items() if isinstance(entry.value, Choice)}
    return sum(
        _same(environment[name] if name in environment else reading.text(entry.assumed), reading.text(entry.value))
        for name, entry in chosen.items()
    )


def _same(one: str | None, other: str | None) -> bool:
    return one is not None and other is not None and (one == other or _truth(one) == _truth(other) != "")


def _truth(text: str) -> str:
    """Return ``true`` or ``false`` for a text that means one of them."""
    for yes, no in _SWITCHES:
        if text.lower() in (yes, no):
            return "true" if text.lower() == yes else "false"
    return ""


# ------------------------------------------------------------------------------------------------------- the file
@dataclass(frozen=True, slots=True)
class Said:
    """What the directory says of an application beside its name: ``own`` values, and what is left ``out`` and why."""

    own: Mapping[str, Value]
    out: Mapping[str, str]
    files: Mapping[str, str]


def said(reading: Reading, service: Service, *, sender: bool) -> Said:
    """Compare what runs with what the application's name brings; ``sender`` is whether its provider says that."""
    own: dict[str, Value] = {}
    out: dict[str, str] = {}
    environment = service.running[0]
    for name, entry in reading.app.variables.items():
        running = environment.get(name)
        if name in reading.files:
            out[name] = ""
        elif running is None and service.configured.get(name) is None:
            if not (entry.needs_from and not sender) and not _same_unset(reading, entry):
                out[name] = "left out: the service has no entry for it in the compose file"
        elif not service.settled(name):
            out[name] = "left out: the running container has another value than the compose files would give it"
        elif running is not None and (running != reading.text(entry.value) or (entry.needs_from and not sender)):
            own[name] = _respelled(entry.value, running, reading)
    return Said(own, out, dict.fromkeys(reading.files.values(), "{password}"))


def _same_unset(reading: Reading, entry: Entry) -> bool:
    return entry.assumed is not None and reading.text(entry.assumed) == reading.text(entry.value)


def _respelled(value: Value, running: str, reading: Reading) -> Value:
    """Return a choice in the spelling that runs (``True`` for ``true``), else what runs as it is."""
    if isinstance(value, Choice) and _same(running, reading.text(value)) and is_switch_like(running):
        return Choice(value.by, tuple((word, _spelled(item, running)) for word, item in value.options))
    return running.replace("{", "{{").replace("}", "}}")


def is_switch_like(text: str) -> bool:
    """Whether a text means on or off."""
    return is_switch(text) or bool(_truth(text))


def _spelled(value: Value, like: str) -> Value:
    if not isinstance(value, str):
        return value
    pair = next(pair for pair in _SWITCHES if like.lower() in pair)
    text = pair[0] if _truth(value) == "true" else pair[1]
    return text.upper() if like.isupper() else text.capitalize() if like[:1].isupper() else text


def same_sender(one: str, other: str) -> bool:
    """Whether two senders are one address, by whichever name."""
    return parseaddr(one)[1] == parseaddr(other)[1]
