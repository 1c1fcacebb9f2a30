"""A fake Stalwart 0.16.18: its management over JMAP at the wire, with its modes, rules, quirks and traps.

Facts come from recordings of a real server and from reading its source (docs: ``stalwart/jmap-0.16.md`` and
``observed.md``). State is kept where the real server keeps it: ``config`` is config.json, `Store` the data store,
`Core` the settings in force, `Blocks` the addresses in memory.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import hashlib
import json
import secrets
import string
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Self

from reconciler.simulator.stalwart import mailbox
from reconciler.simulator.stalwart.jmap import accounts, dkim, envelope, methods, registry, traffic
from reconciler.simulator.stalwart.jmap import core as cores
from reconciler.simulator.stalwart.jmap import schema as schemas
from reconciler.simulator.stalwart.jmap.methods import Caller
from reconciler.simulator.stalwart.jmap.session import protected_resource, session
from reconciler.simulator.stalwart.jmap.store import (
    Object,
    SetFailure,
    Store,
    first_objects,
    first_schedules,
    object_id,
)
from reconciler.simulator.stalwart.listeners import Door, Listener, Sockets
from reconciler.simulator.stalwart.passwords import hashed, verify
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
from reconciler.simulator.wire import Hangup, Reply, Request

VERSION = "0.16.18"
SCHEMA = "25gnm1_xB9bPk-puX9VTFMP1W5V-1muUWuK964-_uEw"  # what this release's schema hashes to
CONFIG: Object = {"@type": "RocksDb", "path": "/var/lib/stalwart/"}

_LETTERS = string.ascii_letters + string.digits
_CHALLENGE = (
    'Bearer realm="Stalwart Server", resource_metadata="/.well-known/oauth-protected-resource", '
    'Basic realm="Stalwart Server"'
)
_LINE = "═" * 60
_BANNER = f"""
{_LINE}
🔑 Stalwart bootstrap mode - temporary administrator account

   username: admin
   password: {{}}

This password is shown only once.
{_LINE}

"""  # on the error output; a client may rely on the lines of the name and the password
_RECOVERY_LISTENER = Listener("http-recovery", "http", ("[::]:8080",), tls=False)
_KEY_DELAY = 1.0  # seconds between a domain and its first key, and again to its second


class StalwartJmap:
    """A 0.16 server: call it with a `Request`, it answers with a `Reply`, or raises `Hangup` for a banned client.

    ``environment`` is the container's: STALWART_RECOVERY_ADMIN counts at every request, STALWART_RECOVERY_MODE at the
    start. ``configured`` says whether there is a config.json: without one the server comes up in bootstrap mode, and
    with no recovery administrator its one-time password is in ``printed``. ``no_dns`` is a container without DNS:
    every `ReloadSettings` fails until Pyzor is off. ``trust_loopback=False`` lets loopback clients be counted and
    banned. With ``open_ports`` the listeners are real sockets on ``listeners_host``, found in ``ports``. ``schema`` is
    another release's, in place of the fake's own: by it requests are judged from the next start on.
    """

    def __init__(
        self,
        *,
        environment: Mapping[str, str] | None = None,
        configured: bool = True,
        files: Mapping[str, str] | None = None,
        os_hostname: str = "stalwart",
        no_dns: bool = False,
        trust_loopback: bool = True,
        open_ports: bool = False,
        listeners_host: str = "127.0.0.1",
        clock: Callable[[], float] = time.time,
        schema: Mapping[str, Any] | None = None,
    ) -> None:
        """Start on an empty store."""
        self.schema = schema
        self.environment = dict(environment or {})
        self.files = dict(files or {})
        self.os_hostname = os_hostname
        self.no_dns = no_dns
        self.config: Object | None = dict(CONFIG) if configured else None
        self.printed = ""
        self._trust_loopback = trust_loopback
        self._clock = clock
        self._lock = threading.RLock()
        self.post = Post(
            "jmap",
            clock=clock,
            hostname=lambda: self.core.hostname,
            reached=self.mailboxes,
            signers=self._keys_of,
            own=self._owns,
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
        self._empty()
        self.restart()

    # ---------------------------------------------------------------------------------------------------- lifecycle
    def _empty(self) -> None:
        self.store = Store(self._clock)
        self.post.clear()
        self.blocks = cores.Blocks(self._clock, self._trust_loopback)

    def start_on(self, *, config: bool, data: bool) -> None:
        """Start again where config.json and the data are there or not, as a new container finds its volumes."""
        with self._lock:
            if not data:
                self._empty()
            self.config = (self.config or dict(CONFIG)) if config else None
        self.restart()

    def wipe_data(self) -> None:
        """Start again on an empty store behind an existing config.json."""
        self.start_on(config=True, data=False)

    def wipe_all(self) -> None:
        """Start again with nothing: bootstrap mode."""
        self.start_on(config=False, data=False)

    def lose_config(self) -> None:
        """Start again without config.json on a store that has data: bootstrap mode that refuses to set it up."""
        self.start_on(config=False, data=True)

    def restore_config(self) -> None:
        """Start again with config.json put back."""
        self.start_on(config=True, data=True)

    def restart(self) -> None:
        """Start the process again: settings are read, defaults put in, listeners bound, caches empty."""
        self._table = registry.own_table() if self.schema is None else schemas.judging(self.schema)
        with self._lock, registry.using(self._table):
            self.bootstrapping = self.config is None
            recovering = self.environment.get("STALWART_RECOVERY_MODE", "").lower() in ("1", "true")
            self.printed, self._salt = "", secrets.token_hex(8)
            self._recovery = self._recovery_admin()
            if not self.bootstrapping:
                self.store.initialized = True
            if not self.bootstrapping and not recovering:
                self._seed()
            # In bootstrap mode the store that counts is another one, and it is empty.
            self.core = cores.build_core(Store(self._clock) if self.bootstrapping else self.store, self.os_hostname)
            self.recovering = self.bootstrapping or recovering
            self.listeners = [_RECOVERY_LISTENER] if self.recovering else cores.listeners(self.store)
            self.blocks.read(self.store)
            self._signers: dict[str, frozenset[tuple[str, str, str]]] = {}
        self._bind()

    def _recovery_admin(self) -> tuple[str, str] | None:
        name, _, secret = self.environment.get("STALWART_RECOVERY_ADMIN", "").partition(":")
        if name.strip() and secret.strip():
            return name.strip(), secret.strip()
        if not self.bootstrapping:
            return None
        secret = "".join(secrets.choice(_LETTERS) for _ in range(16))
        self.printed = _BANNER.format(secret)
        return "admin", secret

    def _seed(self) -> None:
        """Put in what is missing: a type that has no object at all gets the defaults (traps.md 33)."""
        store = self.store
        first = list(first_objects(accounts.ROLES, lambda name: not store.ids(name)))
        made = [(name, store.insert(name, value)) for name, value in first]
        if not store.ids("MtaDeliverySchedule"):
            queues = {item["name"]: key for key, item in store.all("MtaVirtualQueue")}
            for name, value in first_schedules(queues) if queues.keys() >= {"local", "remote", "dsn"} else ():
                store.insert(name, value)
        roles = [key for name, key in made if name == "Role"]
        if roles and not store.ids("Authentication"):
            user, group, tenant, admin = roles
            own: Object = {"defaultUserRoleIds": {user: True}, "defaultGroupRoleIds": {group: True}}
            own |= {"defaultTenantRoleIds": {tenant: True, user: True}}
            own |= {"defaultAdminRoleIds": {admin: True, user: True}}
            store.insert("Authentication", registry.new("Authentication") | own)

    def route(self, port: int) -> int:
        """Return the port that a declared one has on loopback, or will have when a listener opens it."""
        return self._sockets.choose(port)

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
    def hostname(self) -> str:
        """The host name in force."""
        return self.core.hostname

    @property
    def policy(self) -> Mapping[str, Any]:
        """The rules for passwords in force: the Authentication singleton."""
        return self.core.authentication

    @property
    def ports(self) -> dict[int, int]:
        """The open ports: the declared one and the one that is really open on loopback."""
        return dict(self._sockets.ports)

    def signing(self) -> set[tuple[str, str, str]]:
        """Return (domain, selector, ``rsa-sha256`` or ``ed25519-sha256``) of the signatures that mail gets now.

        As with a mail, a domain that signs has its signers cached afterwards: a signature made later signs only after
        InvalidateCaches, or after another one of the domain was changed or removed (traps.md 27).
        """
        with self._lock:
            self._run_tasks()
            return {signer for key, domain in self._domains() for signer in self._signers_of(key, domain)}

    def mailboxes(self, address: str) -> set[str]:
        """Return the addresses of the accounts and groups that a mail to an address reaches now, and those elsewhere.

        An alias of a domain means the domain; a list hands on, but not to another list; what nobody has goes to the
        domain's catch-all.
        """
        with self._lock:
            return self._mailboxes(address.lower())

    def _mailboxes(self, address: str, hops: int = 0) -> set[str]:
        local, _, name = address.rpartition("@")
        found = accounts.domain(self.store, name)
        if found is None:
            return {address}
        key, domain = found
        plain = local if domain["subAddressing"]["@type"] == "Disabled" else local.partition("+")[0]
        owner = self.store.by_email(plain, key)
        if owner is None:
            other = domain["catchAllAddress"]
            return self._mailboxes(other, hops + 1) if other and hops < 2 else set()
        item = self.store.objects[owner[0]][owner[1]]
        if owner[0] == "Account":
            return {accounts.email(self.store, item)}
        recipients = item["recipients"] if hops == 0 else ()
        return {each for recipient in recipients for each in self._mailboxes(recipient, 1)}

    def _domains(self) -> list[tuple[str, Object]]:
        return [] if self.recovering else self.store.all("Domain")

    def _signers_of(self, key: str, domain: Object) -> frozenset[tuple[str, str, str]]:
        if key in self._signers:
            return self._signers[key]
        found = frozenset(
            (domain["name"], item["selector"], f"{dkim.algorithm(item)}-sha256")
            for _, item in self.store.all("DkimSignature")
            if item["domainId"] == key and item["stage"] == "active"
        )
        if found:  # that there is none is not remembered
            self._signers[key] = found
        return found

    def _keys_of(self, name: str) -> list[Signer]:
        """Return the keys that sign a mail of a domain now."""
        found = accounts.domain(self.store, name)
        if found is None:
            return []
        wanted = {(selector, kind) for _, selector, kind in self._signers_of(*found)}
        items = [item for _, item in self.store.all("DkimSignature") if item["domainId"] == found[0]]
        return [
            Signer(found[1]["name"], item["selector"], kind, self.secret_text(item["privateKey"]))
            for item in items
            if (item["selector"], kind := f"{dkim.algorithm(item)}-sha256") in wanted
        ]

    def _owns(self, name: str) -> bool:
        return accounts.domain(self.store, name) is not None

    def _take(self, handed: Handed) -> str:
        with self._lock:
            return self.post.take(handed)

    def dump(self) -> dict[str, Any]:
        """Return the whole state as JSON: equal states are equal dumps."""
        with self._lock:
            return {
                "config": registry.copied(self.config),
                "store": self.store.dump(),
                "counts": self.blocks.lasting(),
                "blocked": sorted(str(network) for network in self.blocks.networks),
                "listeners": [item.name for item in self.listeners],
            }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what `dump` returned, as after a restart, but with the listeners that were open."""
        with self._lock:
            self.config = registry.copied(state["config"])
            self.store = Store.load(self._clock, state["store"])
            self.post.clear()
            self.blocks.counts = Counter(state["counts"])
        self.restart()
        with self._lock:
            self.listeners = [item for item in self.listeners if item.name in state["listeners"]]
        self._bind()

    # ------------------------------------------------------------------------------------------------------- serving
    def __call__(self, request: Request) -> Reply:
        """Answer one request. Raises `Hangup` for a banned address: the connection closes without a byte."""
        with self._lock, registry.using(self._table):
            if self._is_blocked(request.client):
                raise Hangup
            self._run_tasks()
            try:
                return self._route(request)
            except HttpProblem as error:
                return problem(error)

    def _route(self, request: Request) -> Reply:
        match request.method, request.path.split("/")[1:]:
            case "POST", ["jmap"] | ["jmap", ""]:
                return self._jmap(request)
            case "GET", ["jmap", "download", account, key, _]:
                return self._download(self._caller(request), account, key, request.first("accept"))
            case "GET", ["jmap", "session"]:
                caller = self._caller(request) if "authorization" in request.headers else None
                return Reply.of(self._session(caller), content_type=JSON)
            case "GET", [".well-known", "jmap"]:
                return Reply(307, content_type="", headers={"Location": "/jmap/session"})
            case "GET", [".well-known", "oauth-protected-resource"]:
                self._limit("anonymous", request.client)
                return Reply.of(protected_resource(self._url), content_type=JSON)
            case "GET", ["healthz", "live" | "ready"]:
                body = {"type": "about:blank", "status": 200, "title": "OK", "detail": "OK"}
                return Reply.of(body, content_type=PROBLEM)
            case "GET", ["api", "schema", *rest]:
                self._caller(request)
                return self._schema("".join(rest))
            case "GET", ["api", "account"]:
                return Reply.of(self._account(self._caller(request)), content_type=JSON)
        if self.blocks.asked_for(self.core, self.store, request.client, request.path):
            raise too_many_failures()
        raise not_found()

    def _schema(self, asked: str) -> Reply:
        """Answer with the schema of this hash, or with the way to the only one there is."""
        found = SCHEMA if self.schema is None else schemas.fingerprint(self.schema)
        if asked != found:
            return Reply(302, content_type="", headers={"Location": f"/api/schema/{found}"})
        content = gzip.compress(json.dumps(schemas.document() if self.schema is None else self.schema).encode())
        headers = {"Content-Encoding": "gzip", "Cache-Control": "public, max-age=31536000, immutable"}
        return Reply(200, content, JSON, headers)

    @property
    def _url(self) -> str:
        """The server's own address; in bootstrap and recovery mode it has none (common/src/config/network.rs)."""
        return "" if self.recovering else f"https://{self.core.hostname}"

    def _jmap(self, request: Request) -> Reply:
        caller = self._caller(request)
        kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
        if kind != "application/json":
            return envelope.not_json()
        state = self._state(caller)
        return envelope.answer(request.body, state, lambda name, given: self._method(caller, name, given))

    def _method(self, caller: Caller, name: str, given: Object) -> Object:
        if self.recovering or name not in (*mailbox.METHODS, *traffic.METHODS):
            return methods.handle(self, caller, name, given)
        if name in traffic.METHODS:
            return traffic.handle(self.post, caller, name, given)
        try:
            return mailbox.handle(self.post, caller.name, caller.id, name, given)
        except mailbox.MailError as error:
            raise envelope.MethodError(error.kind, error.description) from None

    def _download(self, caller: Caller, account: str, key: str, kind: str) -> Reply:
        raw = mailbox.blob(self.post, caller.name, key) if account == caller.id else None
        if raw is None:
            raise not_found()
        return Reply(200, raw, kind or "application/octet-stream")

    def _state(self, caller: Caller | None) -> str:
        """Return the session's state: a hash of the caller's groups, and another one after each start."""
        groups = sorted(caller.account.get("memberGroupIds", ())) if caller and caller.account else ()
        return hashlib.sha256(" ".join((self._salt, *groups)).encode()).hexdigest()[:8]

    def _session(self, caller: Caller | None) -> Object:
        ids = caller.account["memberGroupIds"] if caller and caller.account else {}
        groups = {key: accounts.email(self.store, self.store.objects["Account"][key]) for key in ids}
        return session(self._url, caller, groups) | {"state": self._state(caller)}

    def _account(self, caller: Caller) -> Object:
        names = accounts.BOOTSTRAP_PERMISSIONS if self.bootstrapping else caller.permissions
        locale = caller.account["locale"] if caller.account else "POSIX"
        return {"permissions": sorted(names), "edition": "oss", "locale": locale}

    # ------------------------------------------------------------------------------------------------ authentication
    def _caller(self, request: Request) -> Caller:
        """Say who asks. Raises `HttpProblem`: 401, 402 for a second factor, 429 with a ban or beyond the rate."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "basic":
            self._limit("anonymous", request.client)
            raise unauthorized(WWW_Authenticate=_CHALLENGE)
        try:
            user, _, secret = base64.b64decode(token, validate=True).decode().partition(":")
        except (ValueError, binascii.Error):
            raise unauthorized(WWW_Authenticate=_CHALLENGE) from None
        caller = self._login(user.strip().lower(), secret)
        if caller is None or "authenticate" not in caller.permissions:
            if self._failed(request.client, user.strip().lower()):
                raise too_many_failures()
            raise unauthorized(WWW_Authenticate=_CHALLENGE)
        if caller.account is not None and (accounts.password(caller.account) or {}).get("otpAuth"):
            raise HttpProblem(402, "MFA code required", "A multi-factor authentication code is required")
        if "unlimitedRequests" not in caller.permissions:
            self._limit("authenticated", caller.id)
        return caller

    def _login(self, user: str, secret: str) -> Caller | None:
        """Try the recovery administrator, who shadows the bare name, then the directory."""
        if self._recovery is not None and user == self._recovery[0]:
            admin = Caller(accounts.RECOVERY_ID, user, accounts.ADMIN_PERMISSIONS)
            return admin if verify(self._recovery[1], secret, folds=True) else None
        if self.bootstrapping:
            return None
        found = accounts.find(self.store, user, self.core.default_domain)
        if found is None or not accounts.accepts(found[1], secret):
            return None
        key, account = found
        return Caller(key, accounts.email(self.store, account), accounts.permissions(self.store, account), account)

    def _failed(self, client: str, login: str) -> bool:
        return not self.recovering and self.blocks.failed_login(self.core, self.store, client, login)

    def _limit(self, kind: str, subject: str) -> None:
        if not self.blocks.within(f"rate-{kind}", subject, self.core.rates[kind]):
            raise too_many_requests()

    # ------------------------------------------------------------------------------------------------------ sockets
    def _is_blocked(self, client: str) -> bool:
        return not self.recovering and self.blocks.is_blocked(self.core, client)

    def _scan(self, client: str) -> None:
        with self._lock:
            self.blocks.scan(self.core, self.store, client)

    def _smtp_login(self, client: str, user: str, secret: str) -> list[str] | None:
        """Log in at a listener, and return the addresses that this login may send from."""
        with self._lock:
            caller = self._login(user.strip().lower(), secret)
            if caller is None or caller.account is None or "emailSend" not in caller.permissions:
                self._failed(client, user.strip().lower())
                return None
            return accounts.addresses(self.store, caller.account)

    # ------------------------------------------------------------------------------- what the methods ask the server
    def secret_text(self, value: Mapping[str, Any]) -> str:
        """Read a SecretText of the container. Raises OSError where its file or variable is not there."""
        match value["@type"]:
            case "File":
                found, what = self.files.get(value["filePath"]), f"file '{value['filePath']}'"
                reason = "No such file or directory (os error 2)"
            case "EnvironmentVariable":
                found, what = self.environment.get(value["variableName"]), f"variable '{value['variableName']}'"
                reason = "environment variable not found"
            case _:
                return str(value["secret"])
        if found is None:
            raise FileNotFoundError(f"Failed to read secret from {what}: {reason}")
        return found

    def act(self, variant: str) -> None:
        """Run an action. Raises `SetFailure` where a reload meets an error: then the old settings stay in force."""
        if variant == "ReloadSettings":
            cores.check_reload(self.store, no_dns=self.no_dns)
            self.core = cores.build_core(self.store, self.os_hostname)
        elif variant == "ReloadBlockedIps":
            self.blocks.read(self.store)
        elif variant == "InvalidateCaches":
            self._signers.clear()

    def changed(self, name: str, key: str, old: Object | None, new: Object | None) -> None:
        """Drop the signers that a write makes stale, and put off the keys of a domain that wants the server's own."""
        if name == "DkimSignature" and old is not None:  # a new one drops nothing: the trap
            for item in (old, new or old):
                self._signers.pop(item["domainId"], None)
        if name == "Domain" and new is not None and _is_automatic(new) and (old is None or not _is_automatic(old)):
            task = {"@type": "DkimManagement", "domainId": key}
            for order in range(len(new["dkimManagement"]["algorithms"])):
                self.store.schedule(task, self._clock() + _KEY_DELAY * (order + 1))

    def _run_tasks(self) -> None:
        for key, task in list(self.store.tasks.items()):
            if not self.recovering and task["@type"] == "DkimManagement" and task["at"] <= self._clock():
                del self.store.tasks[key]
                self._make_key(task["domainId"])

    def _make_key(self, domain_id: str) -> None:
        """Make the first of a domain's keys that is missing."""
        domain = self.store.get("Domain", domain_id)
        if domain is None or not _is_automatic(domain):
            return
        wanted = domain["dkimManagement"]
        for variant in sorted(wanted["algorithms"]):
            made = dkim.new_signature(domain_id, variant, wanted["selectorTemplate"], self._clock())
            items = [item for _, item in self.store.all("DkimSignature") if item["domainId"] == domain_id]
            if all((item["@type"], item["selector"]) != (variant, made["selector"]) for item in items):
                self.store.insert("DkimSignature", made | {"createdAt": self.store.now()})
                return

    def bootstrap_defaults(self) -> Object:
        """Return what the Bootstrap object reads, before and after it was written."""
        return registry.new("Bootstrap") | {"serverHostname": self.os_hostname, "defaultDomain": "example.org"}

    def bootstrap(self, values: Mapping[str, Any]) -> Object:
        """Write config.json, a domain, the settings and an administrator, whose password is shown this once.

        Raises `SetFailure`; what was written before an error stays (observed.md: two tracers).
        """
        hostname = _valid(values, "serverHostname", "Invalid server hostname")
        name = _valid(values, "defaultDomain", "Invalid default domain")
        if self.store.initialized:
            message = "The selected data store has already been initialized."
            raise SetFailure("invalidProperties", message, "dataStore")
        self.config = dict(values["dataStore"])
        self.store.insert("Tracer", values["tracer"])
        domain = registry.new("Domain") | {"name": name, "createdAt": self.store.now()}
        if not values["generateDkimKeys"]:
            domain["dkimManagement"] = {"@type": "Manual"}
        if (known := self.store.by_key("Domain", "name", name)) is not None:
            raise SetFailure("primaryKeyViolation", None, "defaultDomain", objectId=object_id("Domain", known[0]))
        key = self.store.insert("Domain", domain)
        self.changed("Domain", key, None, domain)
        settings = registry.new("SystemSettings") | {"defaultHostname": hostname, "defaultDomainId": key}
        self.store.update("SystemSettings", registry.SINGLETON, settings)
        secret = "".join(secrets.choice(_LETTERS) for _ in range(16))
        self.store.insert("Account", self._administrator(key, secret))
        return {"username": f"admin@{name}", "secret": secret}

    def _administrator(self, domain_id: str, secret: str) -> Object:
        credential = registry.new("Credential", "Password") | {
            "credentialId": "a",
            "secret": hashed(secret),
        }
        account = registry.new("Account") | {"name": "admin", "domainId": domain_id, "credentials": {"0": credential}}
        account |= {"roles": {"@type": "Admin"}, "description": "System administrator"}
        return account | {"createdAt": self.store.now()}


def _is_automatic(domain: Mapping[str, Any]) -> bool:
    return bool(domain["dkimManagement"]["@type"] == "Automatic")


def _valid(values: Mapping[str, Any], key: str, message: str) -> str:
    try:
        return registry.domain_name(values[key].strip())
    except ValueError:
        raise SetFailure("invalidProperties", message, key) from None
