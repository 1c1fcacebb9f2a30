"""`smtp.yaml`: which provider the running containers hand their mail to, and by which variables they are told."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from reconciler import url
from reconciler.desired import template
from reconciler.desired.apps import APPS
from reconciler.desired.presets import PRESETS, has_secret_username, tls_mode
from reconciler.desired.spec.scalars import EnvName, is_free
from reconciler.desired.spec.smtp import EnvValue, Link
from reconciler.desired.words import Choice, Value
from reconciler.importing import applications
from reconciler.importing.applications import Reading
from reconciler.importing.directory import Inline, Noted
from reconciler.importing.draft import Draft
from reconciler.importing.found import ADMINISTRATOR, Found
from reconciler.resources import Account, SecretRef
from reconciler.secrecy import is_secret_name, looks_secret

if TYPE_CHECKING:
    from reconciler.targets.compose.snapshot import Service

_ROLES = {
    "host": re.compile(r"(HOST|HOSTNAME|SERVER)", re.IGNORECASE),
    "port": re.compile(r"PORT", re.IGNORECASE),
    "username": re.compile(r"((HOST_|AUTH_|SMTP_)?(USER|USERNAME|USER_NAME)|LOGIN)", re.IGNORECASE),
    "password": re.compile(r"((HOST_|AUTH_|SMTP_|USER_)?(PASS|PASSWORD|PASSWD|PWD|PW))", re.IGNORECASE),
    "insecure_tls": re.compile(r"(INSECURE(_TLS|_SKIP_VERIFY)?|TLS_INSECURE|(TLS_)?SKIP_VERIFY)", re.IGNORECASE),
}
_MAIL = re.compile(r"(?:[A-Z0-9]+[_.])*?(?:SMTP|MAILER|EMAIL|MAIL)[_.]", re.IGNORECASE)
_URL = re.compile(r"(smtps?)://([^@/]*)@([^/?#]*)(.*)", re.DOTALL)
_SUBMISSION = {"smtp": 587, "smtps": 465}  # where a URL names no port (RFC 8314 section 3.3)
_SHORTEST_KEY = 8  # characters; shorter values agree by chance


@dataclass(frozen=True, slots=True)
class Submission:
    """How one service hands its mail in. ``prefix`` begins the names of its variables, ``account`` is whose login.

    ``username`` and ``password`` are those of the running container, and empty where nobody logs in. ``tls`` is the
    mode that its variables say; ``app`` the application that it is, ``reading`` what that says.
    """

    service: Service
    prefix: str
    host: str
    port: int
    username: str
    password: str = field(repr=False)
    verify_tls: bool = True
    account: str | None = None
    tls: str = ""
    app: str = ""
    reading: Reading | None = field(default=None, repr=False)

    @property
    def values(self) -> Mapping[str, str]:
        """What a template's names stand for."""
        insecure = "false" if self.verify_tls else "true"
        own = {"host": self.host, "port": str(self.port), "username": self.username, "password": self.password}
        return own | {"insecure_tls": insecure, "tls": tls_mode(self.tls, self.port)}


def submissions(found: Found, draft: Draft) -> list[Submission]:
    """Find out how each running service hands its mail in; who does so in a way that can't be said is told of."""
    made: list[Submission] = []
    for service in found.services:
        if service is found.mail_service:
            continue
        if is_free(service.name):
            summary = "left out: its name begins with x-, as what is free for anchors in the directory does"
            draft.note(f"smtp/{service.name}", summary, "call the service otherwise, and import again")
            continue
        if not service.running:
            if any(_role(name) == "host" or _URL.fullmatch(value or "") for name, value in service.configured.items()):
                draft.note(f"smtp/{service.name}", "left out: no container of it runs", "start it, and import again")
            continue
        submission = _submission(service, draft)
        if submission is not None and not _is_administrators(found, submission, draft):
            made.append(_with_account(found, submission, made, draft))
    return made


def _role(name: str) -> str:
    """Say which part of a login a variable holds; nothing where it is not about mail."""
    match = _MAIL.match(name)
    rest = name[match.end() :] if match else ""
    return next((role for role, pattern in _ROLES.items() if pattern.fullmatch(rest)), "")


def _submission(service: Service, draft: Draft) -> Submission | None:
    if app := applications.recognise(service):
        found = _of_app(service, app, draft)
        if found is not None or APPS[app].why_none:
            return found
        if APPS[app].setup and not applications.mail_variables(service.running[0]):
            summary = f"left out: it is {APPS[app].title}, and none of its variables names a mail server"
            draft.note(f"smtp/{service.name}", summary, f"docs/applications.md shows how, and then app: {app}")
    return _of_names(service, draft)


def _of_app(service: Service, app: str, draft: Draft) -> Submission | None:
    """Read the variables of an application; say why nothing is imported of one that has none."""
    if why := APPS[app].why_none:
        draft.note(
            f"smtp/{service.name}",
            f"left out: {APPS[app].title} takes its mail server from no variable: {why}",
            APPS[app].remedy,
        )
        return None
    reading = applications.read(app, service)
    if reading is None or not _is_host(reading.said["host"]):
        return None
    said, terms = reading.said, reading.terms
    port = int(said["port"])
    tls = "" if terms.tls == tls_mode(None, port) else terms.tls
    login = said["username"], said["password"]
    if bool(login[0]) != bool(login[1]):
        return None
    return Submission(service, "", said["host"], port, *login, terms.verified, tls=tls, app=app, reading=reading)


def _of_names(service: Service, draft: Draft) -> Submission | None:
    environment = service.running[0]
    for name in sorted(environment):
        if _URL.fullmatch(environment[name]) and (made := _of_url(service, name)) is not None:
            return made
    hosts = [name for name in sorted(environment) if _role(name) == "host" and environment[name]]
    found = [made for name in hosts if (made := _of_variables(service, _prefix(name))) is not None]
    if hosts and not found:
        summary = "left out: it submits its mail without a login, or by variables that are not known here"
        draft.note(f"smtp/{service.name}", summary, "declare it by hand under smtp.consumers")
    elif not hosts and (names := applications.mail_variables(environment)):
        summary = f"left out: it may send mail, by variables that are not known here: {', '.join(names)}"
        draft.note(
            f"smtp/{service.name}", summary, "declare them by hand under smtp.consumers, where they are for that"
        )
    return found[0] if found else None


def _prefix(name: str) -> str:
    match = _MAIL.match(name)
    return match[0] if match else name


def _of_variables(service: Service, prefix: str) -> Submission | None:
    environment = service.running[0]
    mine = sorted((name for name in environment if name.startswith(prefix) and _role(name)), key=len)
    values = {_role(name): environment[name] for name in mine}  # SMTP_PASSWORD before SMTP_PWD, where both are there
    host, _, port = values.get("host", "").partition(":")
    port = values.get("port") or port or "587"
    if not (_is_host(host) and values.get("username") and values.get("password") and re.fullmatch(r"\d{1,5}", port)):
        return None
    insecure = values.get("insecure_tls", "false").lower() == "true"
    return Submission(service, prefix, host, int(port), values["username"], values["password"], not insecure)


def _is_host(text: str) -> bool:
    """Whether the directory may name it."""
    try:
        return bool(url.host(text))
    except url.NoUrl:
        return False


def _of_url(service: Service, name: str) -> Submission | None:
    try:
        parts = urlsplit(service.running[0][name])
        port = parts.port or _SUBMISSION[parts.scheme]
    except ValueError:
        return None
    host = parts.hostname or ""
    if not (_is_host(host) and parts.username and parts.password):
        return None
    prefix = _prefix(name) if _MAIL.match(name) else name
    return Submission(service, prefix, host, port, unquote(parts.username), unquote(parts.password))


# ------------------------------------------------------------------------------------------------- whose login is it?
def _is_administrators(found: Found, item: Submission, draft: Draft) -> bool:
    """Whether a service logs in as an administrator: declared, every plan would be refused for it."""
    account = _account(found, item)
    if account is None or not isinstance(account.roles, tuple) or "admin" not in account.roles:
        return False
    hint = "give it an account of its own with `roles: [user]`, and import again"
    draft.note(f"smtp/{item.service.name}", f"left out: it logs in with the administrator {account.name}", hint)
    return True


def _account(found: Found, item: Submission) -> Account | None:
    """Return the account of this stack's mail server that a login names."""
    return next((one for one in _served(found, item.host) if _name(found, one) == item.username), None)


def _with_account(found: Found, item: Submission, others: Sequence[Submission], draft: Draft) -> Submission:
    """Name the account of this stack's mail server that a service logs in as, where its password is that account's."""
    account = _account(found, item)
    if account is None:
        return item
    if _is_password(found, account, item, others):
        return replace(item, account=account.name)
    summary = f"its login is that of {account.name}, but its password is not"
    draft.note(f"smtp/{item.service.name}", summary, f"give it the account's: `account: {account.name}` in smtp.yaml")
    return item


def _served(found: Found, host: str) -> list[Account]:
    """Return the accounts that a host has: those of our mail server, or none."""
    service = found.mail_service
    names = {found.hostname, found.container, *(service.names if service else ())} - {None, ""}
    return found.accounts if host in names else []


def _name(found: Found, account: Account) -> str:
    """Return the login that the server's generation wants (contract: `account`)."""
    if found.server is not None and found.server.generation == "jmap":
        return account.name
    return account.login if isinstance(account.login, str) else account.name.partition("@")[0]


def _is_password(found: Found, account: Account, item: Submission, others: Sequence[Submission]) -> bool:
    """Whether it is the account's; from 0.16, which shows no hash, the first that is seen counts as that."""
    from reconciler.targets.stalwart.passwords import matches

    known = next((other.password for other in others if other.account == account.name), None)
    if known is not None:
        return known == item.password
    if found.server is not None and found.server.generation == "rest":
        stored = found.server.hashes.get(account.name)
        return bool(stored and matches(item.password, stored))
    return not found.is_administrator(account) or item.password == found.environ.get(ADMINISTRATOR.name)


# ------------------------------------------------------------------------------------------------------- the file
def smtp(found: Found, items: Sequence[Submission], draft: Draft) -> dict[str, Any]:
    """Return providers, consumers and links; nothing where no service sends mail."""
    if not items:
        return {}
    names, providers = _named(found, items)
    usual = Counter(names.values()).most_common(1)[0][0]
    content: dict[str, Any] = {"provider": usual, "providers": {}, "consumers": {}}
    senders = {name: _sender([item for item in items if names[item.service.name] == name]) for name in providers}
    for name, item in providers.items():
        content["providers"][name] = _provider(name, item, draft) | ({"from": senders[name]} if senders[name] else {})
    for item in items:
        service = item.service.name
        own = {} if names[service] == usual else {"provider": names[service]}
        given = _app(item, draft, sender=bool(senders[names[service]])) if item.app else {"env": _env(item, draft)}
        content["consumers"][service] = ({"app": item.app} if item.app else {}) | own | given
    links = [ends for ends in _links(found, items) if draft.fits("smtp.links", Link, ends)]
    if links:
        content["links"] = Noted(links, ("Values that services must agree on.",))
    return content


def _sender(items: Sequence[Submission]) -> str:
    """Return whom the mail of all applications with one provider is from, where that is one for all; else nothing."""
    senders = [item.reading.sender for item in items if item.reading is not None]
    same = all(sender and applications.same_sender(sender, senders[0]) for sender in senders)
    return max(senders, key=len) if senders and same else ""


def _app(item: Submission, draft: Draft, *, sender: bool) -> dict[str, Any]:
    """Return what the directory says of an application beside its name, and tell what is left out."""
    if item.reading is None:
        raise AssertionError(item.app)
    where, service = f"smtp/{item.service.name}", item.service
    said = applications.said(item.reading, service, sender=sender)
    env: dict[str, Any] = {}
    for name, why in said.out.items():
        env[name] = None
        if why:
            hint = f"write it there, docker compose up -d --no-deps {service.name}, and take it out of env here"
            draft.note(f"{where}/{name}", why, hint)
    for name, value in said.own.items():
        kept = _own_value(name, value, item, draft)
        if kept is not None:
            env[name] = kept
    known = {*item.reading.app.variables, *(f"{name}{end}" for name in said.out for end in ("_FILE", "__FILE"))}
    more = [name for name in applications.mail_variables(service.running[0]) if name not in known]
    if more:
        draft.note(
            where, f"left out: {', '.join(more)}: no part of app: {item.app}", "declare what a switch has to change"
        )
    return ({"env": env} if env else {}) | ({"secrets": dict(said.files)} if said.files else {})


def _own_value(name: str, value: Value, item: Submission, draft: Draft) -> Any:
    if isinstance(value, Choice):
        return _plain(value)
    running = item.service.running[0][name]
    if looks_secret(name, running) or (item.password and item.password in running):
        where = f"smtp/{item.service.name}/{name}"
        return draft.keep(f"{item.service.name}.{name}", running) if draft.keeps(where, running) else None
    return value


def _plain(value: Value) -> Any:
    """Return a choice as it stands in the YAML."""
    return Inline({word: _plain(item) for word, item in value.options}) if isinstance(value, Choice) else value


def _named(found: Found, items: Sequence[Submission]) -> tuple[dict[str, str], dict[str, Submission]]:
    """Give each login a provider's name, and say which service has which."""
    names: dict[str, str] = {}
    providers: dict[str, Submission] = {}
    for item in items:
        same = next((name for name, other in providers.items() if other.values == item.values), None)
        if same is None:
            base = _provider_name(found, item)
            same = next(name for name in _numbered(base) if name not in providers)
            providers[same] = item
        names[item.service.name] = same
    return names, providers


def _numbered(base: str) -> Iterator[str]:
    yield base
    number = 2
    while True:
        yield f"{base}-{number}"
        number += 1


def _preset(host: str) -> str | None:
    return next((name for name, preset in PRESETS.items() if preset.host == host), None)


def _provider_name(found: Found, item: Submission) -> str:
    service = found.mail_service
    if item.account and service and not is_free(service.name):
        return service.name
    labels = item.host.split(".")
    name = _preset(item.host) or (labels[-2] if len(labels) > 1 and not labels[-1].isdigit() else labels[0])
    return re.sub(r"^(x-)+", "", re.sub(r"[^A-Za-z0-9-]+", "-", name)) or "provider"


def _provider(name: str, item: Submission, draft: Draft) -> dict[str, Any]:
    preset = _preset(item.host)
    where: dict[str, Any] = {"host": item.host, "port": item.port}
    if preset is not None:
        usual = PRESETS[preset].port == item.port
        where = {"preset": preset} | ({} if usual else {"port": item.port})
    if item.tls:
        where["tls"] = item.tls
    if not item.username:
        pass  # nobody logs in
    elif item.account is not None:
        where["account"] = Noted(item.account, beside="its password, and the login that the server's version wants")
    else:
        username: str | SecretRef = item.username
        if has_secret_username(preset, item.host):
            username = draft.keep(f"smtp.{name}.username", item.username)
        where |= {"username": username, "password": draft.keep(f"smtp.{name}", item.password)}
    return where if item.verify_tls else where | {"verify_tls": Noted(value=False, beside="as the services have it")}


def _env(item: Submission, draft: Draft) -> dict[str, Any]:
    """Return the variables of a service that run as they are configured: templates, plain values, references."""
    environment, made = item.service.running[0], dict[str, Any]()
    for name in sorted(environment, key=lambda name: (_order(name), name)):
        if not name.startswith(item.prefix):
            continue
        where = f"smtp/{item.service.name}/{name}"
        if not item.service.settled(name):
            summary = "left out: the running container has another value than the compose files would give it"
            draft.note(where, summary, f"docker compose up -d --no-deps {item.service.name}, and import again")
            continue
        value = _value(name, environment[name], item, draft)
        if value is None:
            continue
        read = {value.source: value.name} if isinstance(value, SecretRef) else value
        if draft.fits(where, dict[EnvName, EnvValue], {name: read}):
            made[name] = value
    return made


def _order(name: str) -> int:
    roles = ("host", "port", "username", "password", "", "insecure_tls")
    return roles.index(_role(name))


def _value(name: str, value: str, item: Submission, draft: Draft) -> str | SecretRef | None:
    role, values = _role(name), item.values
    if role in values and value == values[role]:
        return f"{{{role}}}"
    if role == "host" and value == f"{item.host}:{item.port}":
        return "{host}:{port}"
    if _URL.fullmatch(value):
        found = next((text for text in _templates(value) if template.filled(text, values) == value), None)
        if found is not None:
            return found
    if value == item.password and is_secret_name(name):  # the same under another name: it changes with it
        return "{password}"
    if looks_secret(name, value) or item.password in value:
        where = f"smtp/{item.service.name}/{name}"
        return draft.keep(f"{item.service.name}.{name}", value) if draft.keeps(where, value) else None
    return value.replace("{", "{{").replace("}", "}}")


def _templates(url: str) -> Iterator[str]:
    """Yield ways in which a URL may be made of a login; the rest of it stays as it is."""
    match = _URL.fullmatch(url)
    scheme, rest = (match[1], match[4].replace("{", "{{").replace("}", "}}")) if match else ("", "")
    for escape in ("|url", ""):
        for port in (":{port}", ""):
            yield f"{scheme}://{{username{escape}}}:{{password{escape}}}@{{host}}{port}{rest}"


# ---------------------------------------------------------------------------------------------------------- links
def _links(found: Found, items: Sequence[Submission]) -> Iterator[list[str]]:
    """Yield the keys that a service shares with another one: equal values under names that say so."""
    consumers = {item.service.name for item in items}
    places: dict[str, list[tuple[str, str]]] = {}
    for service in found.services:
        for name, value in service.running[0].items() if service.running else ():
            if re.search(r"_KEY$|_SECRET$|_TOKEN$", name) and len(value) >= _SHORTEST_KEY and service.settled(name):
                places.setdefault(value, []).append((service.name, name))
    for ends in places.values():
        shortest = min((name for _, name in ends), key=len)
        agreeing = [(service, name) for service, name in ends if name == shortest or name.endswith(f"_{shortest}")]
        services = {service for service, _ in agreeing}
        if len(services) > 1 and services & consumers:
            yield [f"{service}.{name}" for service, name in agreeing]
