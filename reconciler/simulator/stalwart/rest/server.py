"""A fake Stalwart 0.15.5: its management REST API at the wire, with its rules, quirks and traps.

Facts come from recordings of a real server and from reading its source (docs: ``stalwart/rest-0.15.md`` and
``observed.md``). State is kept where the real server keeps it: `Settings` (``config.toml`` and database),
`Directory` (principals), `Bans` (counters), and the `Core` in force.
"""

from __future__ import annotations

import base64
import binascii
import functools
import json
import re
import secrets
import string
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import unquote

from passlib.hash import sha512_crypt  # type: ignore[import-untyped]

from reconciler.simulator.stalwart import mailbox
from reconciler.simulator.stalwart.listeners import Door, Sockets, bind_port
from reconciler.simulator.stalwart.passwords import verify
from reconciler.simulator.stalwart.post import Handed, Post, Signer
from reconciler.simulator.stalwart.problems import (
    JSON,
    PROBLEM,
    HttpProblem,
    not_found,
    problem,
    too_many_failures,
    too_many_requests,
    unauthorized,
)
from reconciler.simulator.stalwart.rest import dkim
from reconciler.simulator.stalwart.rest import settings as stored
from reconciler.simulator.stalwart.rest.answers import Failure, data, failure, forbidden, malformed, position
from reconciler.simulator.stalwart.rest.bans import Bans
from reconciler.simulator.stalwart.rest.directory import (
    ADMIN_PERMISSIONS,
    TYPES,
    Directory,
    Principal,
    permission,
)
from reconciler.simulator.wire import Hangup, Reply, Request

VERSION = "0.15.5"
BODY_LIMIT = 1 << 20  # bytes; a larger body is dropped and then read as an empty one
FALLBACK_ID = (1 << 32) - 1

_T = TypeVar("_T")
_LETTERS = string.ascii_letters + string.digits
_JMAP = "urn:ietf:params:jmap:"
_CAPABILITIES = (
    *("core", "mail", "calendars", "calendars:parse", "contacts", "contacts:parse", "filenode", "principals"),
    *("principals:availability", "submission", "vacationresponse", "sieve", "blob", "quota", "websocket"),
)
_CHALLENGE = 'Bearer realm="Stalwart Server", Basic realm="Stalwart Server"'


@dataclass(frozen=True, slots=True)
class _Caller:
    """Who asks, and what they may do. ``principal`` is ``None`` for the fallback administrator."""

    id: int
    name: str
    permissions: frozenset[str]
    principal: Principal | None = None

    def need(self, *permissions: str) -> None:
        """Raise `HttpProblem` unless the caller has these permissions."""
        if not self.permissions.issuperset(permissions):
            raise forbidden()


@functools.lru_cache(maxsize=64)
def _hashed(password: str) -> str:
    """Hash a password as a first start does. Tests start a server each, and would pay for it each time."""
    return str(sha512_crypt.using(rounds=5000).hash(password))


class StalwartRest:
    """A 0.15 server: call it with a `Request`, it answers with a `Reply`, or raises `Hangup` for a banned client.

    ``environment`` is the container's: ``STALWART_ADMIN_PASSWORD`` counts at the first start of an empty volume and
    never again; without it a random password is in ``printed``. ``config`` replaces what a first start writes into
    ``config.toml`` (flat keys). ``spam_host_broken`` is a container without DNS: no spam rules at the first start,
    and every reload ends in an error until Pyzor is off. ``trust_loopback=False`` lets loopback clients be counted
    and banned. With ``open_ports`` the listeners are real sockets on ``listeners_host``, found in ``ports``.
    ``settings.read_only = True`` is a ``config.toml`` that can't be written.
    """

    def __init__(
        self,
        *,
        environment: Mapping[str, str] | None = None,
        config: Mapping[str, str] | None = None,
        os_hostname: str = "stalwart",
        spam_host_broken: bool = False,
        trust_loopback: bool = True,
        open_ports: bool = False,
        listeners_host: str = "127.0.0.1",
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Start on an empty volume."""
        self.environment = dict(environment or {})
        self.os_hostname = os_hostname
        self.spam_host_broken = spam_host_broken
        self.printed: str | None = None
        self._config = config
        self._trust_loopback = trust_loopback
        self._clock = clock
        self._lock = threading.RLock()
        self.post = Post(
            "rest",
            clock=clock,
            hostname=lambda: self.core.hostname,
            reached=self.mailboxes,
            signers=self._signers,
            own=lambda name: name in self._domains(),
        )
        door = Door(
            self._is_blocked,
            self._smtp_login,
            self._scan,
            lambda: self.core.hostname,
            self.post.recipient,
            self._take,
        )
        self._sockets = Sockets(listeners_host, door)
        self._open_ports = open_ports
        self.wipe()

    # ---------------------------------------------------------------------------------------------------- lifecycle
    def wipe(self) -> None:
        """Start again on an empty volume: config.toml as a first start writes it, nothing else."""
        with self._lock:
            self.settings = stored.Settings(stored.render_toml(self._config or self._first_config()))
            self.directory = Directory()
            self.post.clear()
            self.bans = Bans(self._clock, self._trust_loopback)
        self.restart()

    def _first_config(self) -> dict[str, str]:
        password = self.environment.get("STALWART_ADMIN_PASSWORD")
        if password is None:
            password = self.printed = "".join(secrets.choice(_LETTERS) for _ in range(10))
        return stored.quickstart(_hashed(password))

    def restart(self) -> None:
        """Start the process again: config.toml is read, listeners are bound, bans stay.

        Raises `tomllib.TOMLDecodeError` where a person left a file with which the server doesn't start.
        """
        with self._lock:
            self.settings.read_file()
            self._seed()
            self._running = self._resolved()
            self.bans.read(self.settings)
            self.listeners = stored.listeners(self._running)
            self._build()
        self._bind()

    def _seed(self) -> None:
        """Put into the database what a first start does; the rules' version only if they could be downloaded."""
        database = self.settings.database
        database.setdefault("oauth.key", "".join(secrets.choice(_LETTERS) for _ in range(64)))
        if "version.spam-filter" not in database:
            for key, value in stored.DEFAULT_SETTINGS.items():
                database.setdefault(key, value)
            if not self.spam_host_broken:
                database["version.spam-filter"] = "2.0.5"

    def _resolved(self, *, everywhere: bool = False) -> dict[str, str]:
        """Return all settings with the macros of the file resolved; those of the database stay, but for records."""

        def value(match: re.Match[str]) -> str:
            if match[1] == "env":
                return self.environment.get(match[2], "")
            path = Path(match[2])
            return path.read_text("utf-8") if path.is_file() else ""

        keys = self.settings.merged()
        for key in keys if everywhere else self.settings.file:
            keys[key] = re.sub(r"%\{(env|file):([^}]*)\}%", value, keys[key])
        return keys

    def _build(self) -> None:
        self.core, _ = stored.build_core(self._running, self.os_hostname, no_dns=self.spam_host_broken)

    def _bind(self) -> None:
        if self._open_ports:
            self._sockets.open(self.listeners)

    def delay(self, seconds: float) -> None:
        """Let the listeners take longer for every answer."""
        self._sockets.latency = seconds

    def close(self) -> None:
        """Close the listeners' ports."""
        self._sockets.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -------------------------------------------------------------------------------------------- what tests look at
    @property
    def config_toml(self) -> str:
        """The text of ``config.toml``. Set it as a person with an editor would; it counts after a restart."""
        return self.settings.text

    @config_toml.setter
    def config_toml(self, text: str) -> None:
        self.settings.text = text

    @property
    def ports(self) -> dict[int, int]:
        """The open ports: the declared one and the one that is really open on loopback."""
        return dict(self._sockets.ports)

    def signing(self) -> set[tuple[str, str, str]]:
        """Return (domain, selector, ``rsa-sha256`` or ``ed25519-sha256``) of the signatures that mail gets now."""
        with self._lock:
            return {
                (signature.domain, signature.selector, signature.algorithm)
                for domain in self.directory.domains()
                for signature in self._signatures(domain)
            }

    def _signatures(self, domain: str) -> list[dkim.Signature]:
        names = dkim.signing_ids(self.core.sign, domain, local=domain in self._domains())
        return [found for name in names if (found := self.core.signatures.get(name))]

    def _signers(self, domain: str) -> list[Signer]:
        """Return the keys that sign a mail of a domain, each with what the settings in force have of it."""
        keys, running = [], self._running
        for item in self._signatures(domain):
            for name in stored.signature_ids(running):
                block = {part: running.get(f"signature.{name}.{part}", "") for part in ("domain", "selector")}
                if (block["domain"], block["selector"]) == (item.domain, item.selector):
                    pem = running[f"signature.{name}.private-key"]
                    keys.append(Signer(item.domain, item.selector, item.algorithm, pem))
        return keys

    def _domains(self) -> set[str]:
        return set(self.directory.domains())

    def _take(self, handed: Handed) -> str:
        with self._lock:
            return self.post.take(handed)

    def mailboxes(self, address: str) -> set[str]:
        """Name the accounts and groups that a mail to an address reaches now, and the addresses elsewhere.

        A list hands on, but not to another list; an address that nobody has goes to who has ``@DOMAIN``. A group that
        lacks the permission to receive, which only a role or an exception of its own gives it, gets none.
        """
        with self._lock:
            owner = self._recipient(address.lower())
            if not isinstance(owner, Principal) or owner.type != "list":
                return self._delivered(owner)
            everybody = self.directory.principals.values()
            members: list[Principal | str | None] = [item for item in everybody if owner.id in item.member_of]
            members += [self._recipient(each) for each in owner.free.get("externalMembers", ())]
            return {name for member in members for name in self._delivered(member)}

    def _recipient(self, address: str) -> Principal | str | None:
        """Find who has an address; one of another domain is its own."""
        tries = self.core.recipients.addresses(address)
        if tries[0].rpartition("@")[2] not in self.directory.domains():
            return tries[0]
        return next((item for each in tries if (item := self.directory.owner(each))), None)

    def _delivered(self, owner: Principal | str | None) -> set[str]:
        if owner is None or isinstance(owner, str):
            return {owner} if owner else set()
        may = owner.type != "list" and "email-receive" in self.directory.permissions(owner)
        return {owner.name} if may else set()

    def dump(self) -> dict[str, Any]:
        """Return the whole state as JSON: equal states are equal dumps."""
        with self._lock:
            return {
                "config_toml": self.settings.text,
                "file": dict(self.settings.file),
                "database": dict(self.settings.database),
                "directory": self.directory.dump(),
                "counts": self.bans.lasting(),
                "blocked": sorted(self.bans.blocked),
                "running": dict(self._running),
                "listeners": [item.name for item in self.listeners],
            }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what `dump` returned, with the core that was in force and the listeners that were open."""
        with self._lock:
            file, text = dict(state["file"]), state["config_toml"]
            self.settings = stored.Settings(text, dict(state["database"]), self.settings.read_only, file)
            self.directory = Directory.load(state["directory"])
            self.post.clear()
            self.bans.counts = Counter(state["counts"])
            self.bans.blocked = set(state["blocked"])
            self._running = dict(state["running"])
            self.listeners = [
                item for item in stored.listeners(self.settings.merged()) if item.name in state["listeners"]
            ]
            self._build()
        self._bind()

    # ------------------------------------------------------------------------------------------------------- serving
    def __call__(self, request: Request) -> Reply:
        """Answer one request. Raises `Hangup` for a banned address: the connection closes without a byte."""
        with self._lock:
            if self._is_blocked(request.client):
                raise Hangup
            try:
                return self._route(request)
            except Failure as error:
                return failure(error)
            except HttpProblem as error:
                return problem(error)

    def _route(self, request: Request) -> Reply:
        parts = [unquote(part) for part in request.raw_path.split("?")[0].split("/")[1:]]
        match request.method, parts:
            case "OPTIONS", ["api", *_]:
                return Reply(204, content_type="")
            case _, ["api", *rest]:
                caller = self._authenticate(request, api=True)
                self._limit_account(caller)
                return self._api(request, rest, caller)
            case "GET", ["healthz", "live" | "ready"]:
                self._limit_anonymous(request)
                body = {"type": "about:blank", "status": 200, "title": "OK", "detail": "OK"}
                return Reply.of(body, content_type=PROBLEM)
            case "GET", [".well-known", "jmap"]:
                return Reply(307, content_type="", headers={"Location": "/jmap/session"})
            case "GET", ["jmap", "session"]:
                return Reply.of(self._session(self._authenticate(request)), content_type=JSON)
            case "POST", ["jmap"] | ["jmap", ""]:
                caller = self._authenticate(request)
                return _jmap(request, self.post, caller)
            case "GET", ["jmap", "download", account, key, _]:
                caller = self._authenticate(request)
                raw = mailbox.blob(self.post, caller.name, key) if account == _jmap_id(caller.id) else None
                if raw is None:
                    raise not_found()
                return Reply(200, raw, request.first("accept") or "application/octet-stream")
        if self.bans.asked_for(self.core, self.settings, request.client, request.path):
            raise too_many_failures()
        raise not_found()

    def _api(self, request: Request, parts: list[str], caller: _Caller) -> Reply:
        match parts:
            case ["principal", *rest]:
                return self._principal(request, rest, caller)
            case ["settings", *rest]:
                return self._settings(request, rest, caller)
            case ["dkim", *rest]:
                return self._dkim(request, rest, caller)
            case ["reload", *rest] if request.method == "GET":
                caller.need("settings-reload")
                return self._reload(request, rest)
            case ["dns", "records", domain] if request.method == "GET":
                caller.need("domain-get")
                return data(self._dns_records(domain))
            case ["account", "auth"]:
                return self._account_auth(request, caller)
            case ["oauth"] if request.method == "POST":
                return _oauth(request, caller)
            case ["queue", "messages"] if request.method == "GET":
                caller.need("message-queue-list")
                items: list[Any] = self.post.rest()
                if "values" not in request.query:
                    items = [item["id"] for item in items]
                return data({"items": _page(request, items), "total": len(items), "status": True})
            case ["logs"] if request.method == "GET":
                caller.need("logs-view")
                return self._logs(request)
            case ["queue", "status"] if request.method == "GET":
                return data(value=True)
            case ["store", "purge", "in-memory", _, kind] if request.method == "GET":
                caller.need("purge-in-memory-store")
                self.bans.forgive(kind)
                return data()
        raise not_found()

    # ------------------------------------------------------------------------------------------------ authentication
    def _authenticate(self, request: Request, *, api: bool = False) -> _Caller:
        """Say who asks. Raises `HttpProblem`: 401, 403 without the right to log in, 429 with a ban."""
        challenge = {} if api else {"WWW_Authenticate": _CHALLENGE}
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if not scheme:
            raise unauthorized(**challenge)
        if scheme.lower() == "bearer":
            self._limit_anonymous(request)
            if not (api and token.startswith("api_")):
                raise unauthorized(**challenge)
            token = token.removeprefix("api_")
        try:
            user, colon, secret = base64.b64decode(token, validate=True).decode().partition(":")
        except (ValueError, binascii.Error):
            colon = ""
        if not colon:
            raise unauthorized(WWW_Authenticate=_CHALLENGE)
        caller = self._login(user.strip().lower(), secret, keys=True)
        if caller is None:
            if self.bans.failed_login(self.core, self.settings, request.client, user.strip().lower()):
                raise too_many_failures()
            raise unauthorized(**challenge)
        caller.need("authenticate")
        return caller

    def _login(self, user: str, secret: str, *, keys: bool = False) -> _Caller | None:
        """Ask the directory, then the fallback administrator, then the API keys; the login is the bare name."""
        found = self.directory.find(user)
        if found is not None and found.type == "individual" and found.accepts(secret):
            return self._caller(found)
        fallback = self.core.fallback
        if fallback is not None and user == fallback[0].lower() and verify(fallback[1], secret):
            return _Caller(FALLBACK_ID, fallback[0], ADMIN_PERMISSIONS)
        if keys and found is not None and found.type == "apiKey" and found.accepts(secret):
            return self._caller(found)
        return None

    def _caller(self, found: Principal) -> _Caller:
        return _Caller(found.id, found.name, self.directory.permissions(found), found)

    def _limit_anonymous(self, request: Request) -> None:
        if self.bans.trusts(request.client, self.core.allowed):
            return
        if not self.bans.within("rate-anonymous", request.client, self.core.rates["http.rate-limit.anonymous"]):
            raise too_many_requests()

    def _limit_account(self, caller: _Caller) -> None:
        allowed = self.bans.within("rate-account", str(caller.id), self.core.rates["http.rate-limit.account"])
        if not allowed and "unlimited-requests" not in caller.permissions:
            raise too_many_requests()

    def _account_auth(self, request: Request, caller: _Caller) -> Reply:
        caller.need("manage-passwords")
        if request.method == "GET":
            names = [secret.split("$")[2] for secret in caller.principal.app_passwords] if caller.principal else []
            otp = caller.principal is not None and caller.principal.otp is not None
            return data({"otpEnabled": otp, "appPasswords": names})
        match _body(request):
            case [{"type": "setPassword", "password": str(password)}] if request.method == "POST" and password:
                self._set_password(caller.principal, password)
                return data()
        raise malformed()

    def _set_password(self, principal: Principal | None, password: str) -> None:
        """Set one's own password: the fallback administrator's goes to config.toml in clear, and needs a reload."""
        if principal is None:
            self.settings.insert({"authentication.fallback-admin.secret": password})
        else:
            principal.remove_secret("")
            principal.add_secret(sha512_crypt.using(rounds=5000).hash(password))

    # ------------------------------------------------------------------------------------------------------ sockets
    def _is_blocked(self, client: str) -> bool:
        return self.bans.is_blocked(self.core, client)

    def _scan(self, client: str) -> None:
        with self._lock:
            self.bans.scan(self.core, self.settings, client)

    def _smtp_login(self, client: str, user: str, secret: str) -> list[str] | None:
        """Log in at a listener, and return the addresses that this login may send from."""
        with self._lock:
            caller = self._login(user.strip().lower(), secret)
            if caller is None or caller.principal is None or "email-send" not in caller.permissions:
                self.bans.failed_login(self.core, self.settings, client, user)
                return None
            return list(caller.principal.emails)

    # --------------------------------------------------------------------------------------------------- principals
    def _principal(self, request: Request, parts: list[str], caller: _Caller) -> Reply:
        match request.method, parts:
            case "GET", []:
                return self._principal_list(request, caller)
            case "POST", []:
                return self._principal_create(_body(request), caller)
            case (("GET" | "PATCH" | "DELETE"), [name]):
                return self._principal_one(request, self.directory.get(name), caller)
        raise not_found()

    def _principal_one(self, request: Request, item: Principal, caller: _Caller) -> Reply:
        match request.method:
            case "GET":
                caller.need(permission(item.type, "get"))
                return data(self.directory.render(item))
            case "PATCH":
                caller.need(permission(item.type, "update"))
                self.directory.patch(item, _body(request), caller.permissions)
            case _:
                caller.need(permission(item.type, "delete"))
                self.directory.delete(item)
        return data()

    def _principal_list(self, request: Request, caller: _Caller) -> Reply:
        """List principals; unknown types and fields are ignored, so that a typo asks for everything."""
        wanted = _words(request, "types") or _words(request, "type")
        types = [kind for kind in wanted if kind in TYPES]
        caller.need(*(permission(kind, "list") for kind in types or TYPES))
        words = request.first("filter")
        found = [item for item in self.directory.of_types(types) if self.directory.matches(item, words)]
        total = len(found)
        page = [] if request.first("count") else _page(request, found)
        fields = _words(request, "fields")
        return data({"items": [self.directory.render(item, fields) for item in page], "total": total})

    def _principal_create(self, body: Any, caller: _Caller) -> Reply:
        kind = body.get("type", "individual") if isinstance(body, dict) else ""
        if kind in TYPES:
            caller.need(permission(kind, "create"))
        kept_in = self.settings.merged().get("storage.directory", "")
        theirs = self.settings.merged().get(f"directory.{kept_in}.type", "internal").lower()
        if kind == "individual" and theirs != "internal":
            details = f"{theirs.upper()} directory cannot be managed. Only internal directories support inserts "
            raise Failure("unsupported", details=f"{details}and update operations.")
        new = self.directory.create(body, caller.permissions)
        if new.type == "domain" and "report.domain" not in self.settings.merged():
            self.settings.insert({"report.domain": new.name})
        return data(new.id)

    # ----------------------------------------------------------------------------------------------------- settings
    def _settings(self, request: Request, parts: list[str], caller: _Caller) -> Reply:
        match request.method, parts:
            case "GET", ["list"]:
                caller.need("settings-list")
                below = list(self.settings.below(request.first("prefix")).items())
                return data({"total": len(below), "items": dict(_page(request, below))})
            case "GET", ["group"]:
                caller.need("settings-list")
                groups = self._groups(request)
                return data({"total": len(groups), "items": _page(request, groups)})
            case "GET", ["keys"]:
                caller.need("settings-list")
                return data(self._keys(_words(request, "keys"), _words(request, "prefixes")))
            case "POST", []:
                caller.need("settings-update")
                self.settings.run(_body(request))
                return data()
            case "DELETE", [key]:
                caller.need("settings-delete")
                self.settings.delete([key])
                return data()
        raise not_found()

    def _keys(self, keys: list[str], prefixes: list[str]) -> dict[str, str]:
        starts = tuple(f"{prefix}." for prefix in prefixes)
        return {
            key: value
            for key, value in self.settings.merged().items()
            if key in keys or (starts and key.startswith(starts))
        }

    def _groups(self, request: Request) -> list[dict[str, str]]:
        below, suffix = self.settings.below(request.first("prefix")), request.first("suffix")
        word, column = request.first("filter").lower(), request.first("field")
        if suffix:
            ids = [key.removesuffix(f".{suffix}") for key in below if key.endswith(f".{suffix}")]
            groups = [
                {
                    "_id": name,
                    **{key[len(name) + 1 :]: value for key, value in below.items() if key.startswith(f"{name}.")},
                }
                for name in ids
            ]
        else:
            groups = [{"_id": key, "_value": value} for key, value in below.items()]
        shown = [[group.get(column, "")] if column else list(group.values()) for group in groups]
        return [
            group for group, texts in zip(groups, shown, strict=True) if any(word in text.lower() for text in texts)
        ]

    def _reload(self, request: Request, parts: list[str]) -> Reply:
        """Read the settings again: a core with errors is not installed. The file is not read from the disk."""
        self.bans.read(self.settings)
        if parts and parts[0] in ("server.blocked-ip", "lookup", "certificate"):
            return data({"warnings": {}, "errors": {}})
        keys = self._resolved()
        core, errors = stored.build_core(keys, self.os_hostname, no_dns=self.spam_host_broken)
        if not errors and "dry-run" not in request.query:
            self.core, self._running = core, keys
        return data({"warnings": {}, "errors": errors})

    # --------------------------------------------------------------------------------------------------------- DKIM
    def _dkim(self, request: Request, parts: list[str], caller: _Caller) -> Reply:
        match request.method, parts:
            case "POST", []:
                caller.need("dkim-signature-create")
                return self._dkim_create(request)
            case "GET", [name]:
                caller.need("dkim-signature-get")
                block = self.settings.below(f"signature.{name}")
                if block.get("algorithm") not in dkim.ALGORITHMS or "private-key" not in block:
                    raise not_found()
                return data(dkim.public_key(block["algorithm"], block["private-key"]))
        raise not_found()

    def _logs(self, request: Request) -> Reply:
        """Show the log file, the newest line first; where no tracer writes one, nothing can be shown."""
        kinds = [
            key for key, value in self._running.items() if re.fullmatch(r"tracer\.[^.]+\.type", key) and value == "log"
        ]
        if not kinds:
            raise Failure("unsupported", details="Tracer log path not configured")
        found = [entry for _, entry in self.post.entries(request.first("filter"))]
        shown = _page(request, found) if request.first("limit") else found[:100]
        return data({"items": shown, "total": len(found)})

    def _dkim_create(self, request: Request) -> Reply:
        """Make a key. One that exists is answered with the private key: the real server leaks it."""
        body = _body(request, serde=True)
        match body:
            case {"algorithm": str(algorithm), "domain": str(domain)}:
                if algorithm not in ("Rsa", "Ed25519"):
                    raise malformed(_unknown_algorithm(request.body.decode(), algorithm))
            case _:
                raise malformed(f"missing field `domain` {position(request.body.decode(), len(request.body.decode()))}")
        name = body.get("id") or dkim.default_id(algorithm, domain)
        key = f"signature.{name}.private-key"
        if (existing := self.settings.merged().get(key)) is not None:
            raise Failure("fieldAlreadyExists", field=key, value=existing)
        made = dkim.new_signature(algorithm, domain, body.get("selector"))
        self.settings.insert({f"signature.{name}.{part}": value for part, value in made.items()})
        return data()

    def _dns_records(self, domain: str) -> list[dict[str, str]]:
        """Propose records: the host name is that of the running core, keys and services are the stored ones."""
        keys = self._resolved(everywhere=True)
        signatures = [
            {key.removeprefix(base): value for key, value in keys.items() if key.startswith(base)}
            for base in (f"signature.{name}." for name in stored.signature_ids(keys))
        ]
        services = [
            (item.protocol, bind_port(bind), item.tls) for item in stored.listeners(keys) for bind in item.binds
        ]
        return dkim.dns_records(domain, self.core.hostname, signatures, services)

    # --------------------------------------------------------------------------------------------------------- JMAP
    def _session(self, caller: _Caller) -> dict[str, Any]:
        name = "Fallback Administrator" if caller.principal is None else caller.name
        account, web = _jmap_id(caller.id), f"{self.core.hostname}:{self._web_port()}"
        base = f"http://{web}/jmap"
        names = [f"{_JMAP}{word}" for word in _CAPABILITIES]
        return {
            "capabilities": _capabilities(web),
            "accounts": {account: _session_account(name, names[1:])},
            "primaryAccounts": dict.fromkeys(names[1:], account),
            "username": name,
            "apiUrl": f"{base}/",
            "downloadUrl": f"{base}/download/{{accountId}}/{{blobId}}/{{name}}?accept={{type}}",
            "uploadUrl": f"{base}/upload/{{accountId}}/",
            "eventSourceUrl": f"{base}/eventsource/?types={{types}}&closeafter={{closeafter}}&ping={{ping}}",
            "state": "3e25b2a0",
        }

    def _web_port(self) -> int:
        ports = (
            bind_port(bind)
            for item in self.listeners
            if item.protocol == "http" and not item.tls
            for bind in item.binds
        )
        return next(ports, 8080)


# ------------------------------------------------------------------------------------------------ reading a request
def _body(request: Request, *, serde: bool = False) -> Any:
    """Parse the body; with ``serde`` an error says where, as the parser of that call does."""
    body = request.body if len(request.body) <= BODY_LIMIT else b""
    try:
        return json.loads(body)
    except ValueError as error:
        if not serde:
            raise malformed() from error
        text = body.decode(errors="replace")
        what = "expected value" if text else "EOF while parsing a value"
        raise malformed(f"{what} {position(text, min(len(text), 1))}") from error


def _words(request: Request, name: str) -> list[str]:
    return [word for word in request.first(name).split(",") if word]


def _page(request: Request, items: list[_T]) -> list[_T]:
    """Cut out a page: pages count from 1 (0 is page one too), a limit of 0 is all."""
    page, limit = (int(text) if (text := request.first(name)).isdigit() else 0 for name in ("page", "limit"))
    start = max(page - 1, 0) * limit
    return items[start : start + limit] if limit else items


def _unknown_algorithm(text: str, algorithm: str) -> str:
    match = re.search(r'"algorithm"\s*:\s*"[^"]*"', text)
    where = position(text, match.end() if match else len(text))
    return f"unknown variant `{algorithm}`, expected `Rsa` or `Ed25519` {where}"


# ------------------------------------------------------------------------------------------------------ OAuth, JMAP
def _oauth(request: Request, caller: _Caller) -> Reply:
    """Give a one-time code, and by the way the only answer that tells the version."""
    caller.need("authenticate-oauth")
    match _body(request):
        case {"type": "code", "client_id": str()}:
            code = "".join(secrets.choice(_LETTERS) for _ in range(40))
            permissions = sorted(caller.permissions)
            return data({"code": code, "permissions": permissions, "version": VERSION, "isEnterprise": False})
    raise malformed()


def _jmap(request: Request, post: Post, caller: _Caller) -> Reply:
    """Answer JMAP: capabilities of the newer generation are unknown here, and so is every method of management."""
    text = request.body.decode(errors="replace")
    try:
        body = json.loads(text)
        using, calls = body["using"], [(str(call[0]), dict(call[1]), call[2]) for call in body["methodCalls"]]
    except (ValueError, LookupError, TypeError):
        return _not_request(f"Failed to parse JSON {position(text, len(text))}")
    known = {f"{_JMAP}{word}" for word in _CAPABILITIES}
    for word in using:
        if word not in known:
            return _not_request(f'Unknown capability: "{word}" {position(text, _after_item(text, word))}')
    responses: list[list[Any]] = []
    for name, arguments, tag in calls:
        responses.append(_answered(post, caller, name, _filled(arguments, responses), tag))
    return Reply.of({"methodResponses": responses, "sessionState": "3e25b2a0"}, content_type=JSON)


def _answered(post: Post, caller: _Caller, name: str, arguments: Mapping[str, Any], tag: Any) -> list[Any]:
    if name not in mailbox.METHODS:
        return ["error", {"type": "unknownMethod"}, tag]
    try:
        return [name, mailbox.handle(post, caller.name, _jmap_id(caller.id), name, arguments), tag]
    except mailbox.MailError as error:
        return ["error", {"type": error.kind, "description": error.description}, tag]


def _filled(arguments: Mapping[str, Any], earlier: list[list[Any]]) -> dict[str, Any]:
    """Put in what an earlier call of the request found: its ids (RFC 8620, section 3.7)."""
    reference = arguments.get("#ids")
    if reference is None:
        return dict(arguments)
    found = next(item for name, item, tag in earlier if [name, tag] == [reference["name"], reference["resultOf"]])
    return {**arguments, "ids": found[reference["path"].strip("/")]}


def _after_item(text: str, word: str) -> int:
    """Return where the parser stands after a list's item: behind the bracket, or the comma and its blanks."""
    match = re.compile(re.escape(json.dumps(word)) + r"\s*(\]|,\s*)").search(text)
    return match.end() if match else len(text)


def _not_request(detail: str) -> Reply:
    body = {"type": "urn:ietf:params:jmap:error:notRequest", "status": 400, "detail": detail}
    return Reply.of(body, 400, PROBLEM)


def _capabilities(web: str) -> dict[str, Any]:
    full: dict[str, Any] = {f"{_JMAP}{word}": {} for word in _CAPABILITIES}
    full[f"{_JMAP}core"] = {
        "maxSizeUpload": 50_000_000,
        "maxConcurrentUpload": 4,
        "maxSizeRequest": 10_000_000,
        "maxConcurrentRequests": 4,
        "maxCallsInRequest": 16,
        "maxObjectsInGet": 500,
        "maxObjectsInSet": 500,
        "collationAlgorithms": ["i;ascii-numeric", "i;ascii-casemap", "i;unicode-casemap"],
    }
    full[f"{_JMAP}sieve"] = {"implementation": "Stalwart v1.0.0"}
    full[f"{_JMAP}websocket"] = {"url": f"ws://{web}/jmap/ws", "supportsPush": True}
    return full


def _session_account(name: str, capabilities: list[str]) -> dict[str, Any]:
    return {
        "name": name,
        "isPersonal": True,
        "isReadOnly": False,
        "accountCapabilities": {word: {} for word in capabilities},
    }


def _jmap_id(number: int) -> str:
    """Write a number as JMAP ids are: base 32 with an alphabet of its own."""
    alphabet = "abcdefghijklmnopqrstuvwxyz792013"
    head = _jmap_id(number >> 5) if number > 31 else ""
    return head + alphabet[number & 31]
