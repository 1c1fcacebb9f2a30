"""What we rely on Stalwart for, in both generations: held against the fakes, and against real servers where there are.

Set STALWART_REST_URL or STALWART_JMAP_URL, with _USER and _PASSWORD beside them (for JMAP those of the recovery
administrator), to run the very same tests against servers to throw away, with an internal directory, a submission
listener and working reloads. The tests remove what they made, and everything that is named like theirs. All assertions
are about what a server answers.
"""

from __future__ import annotations

import contextlib
import os
import re
import smtplib
import ssl
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from passlib.hash import sha512_crypt
from targets.stalwart.imported import wanted as imported

from reconciler.keys import public_half
from reconciler.plan import Desired, diff
from reconciler.resources import Secret, SecretRef
from reconciler.simulator.dns import NameServers
from reconciler.simulator.stalwart.jmap.server import StalwartJmap
from reconciler.simulator.stalwart.rest.server import StalwartRest
from reconciler.simulator.wire import Hangup, Reply, Request, Server
from reconciler.targets.stalwart import Stalwart

from .stagefixtures import Done, Stack

pytestmark = pytest.mark.long

DOMAIN = "reconciler-test.example.org"
SPARE = "reconciler-spare.example.org"  # 0.16 keeps a default domain for ever: ours must be able to go
HASH = sha512_crypt.using(rounds=1000, salt="saltsalt").hash("admin pass")
BASE = f"""\
version: 1
stack: rt
targets:
  stalwart: {{username: "@USER@", password: {{env: ADMIN}}, recovery: {{env: RECOVERY}}, url: "@URL@"}}
accounts:
  rt-admin: {{description: Administrator, roles: [admin], password: {{env: ADMIN_HASH}}}}
  rt-sender@{DOMAIN}:
    roles: [user]
    password: {{env: SENDER}}
    aliases: [z@{DOMAIN}, a@{DOMAIN}]
    quota: 1 GiB
  rt-reports@{DOMAIN}: {{roles: [user], password: {{env: REPORTS}}}}
dkim:
  {DOMAIN}:
    - {{selector: ed1, algorithm: ed25519, private_key: {{file: ../ed1.pem}}, public_key: "@ED1@"}}
    - {{selector: rsa1, algorithm: rsa, private_key: {{file: ../rsa1.pem}}}}
stalwart:
  hostname: mail.{DOMAIN}
  allowed_ips: [192.0.2.0/24]
  auto_ban: {{scan: off}}
"""


@dataclass(frozen=True, slots=True)
class Account:
    """What a server says of an account; ``password`` only where it says it."""

    id: str
    roles: set[str]
    aliases: set[str]
    groups: set[str]
    quota: int | None
    description: str | None


@dataclass(frozen=True, slots=True)
class Shared:
    """What a server says of the group, the list and the domain: addresses and names as far as they are ours."""

    group: set[str] | None
    members: set[str]
    list: set[str] | None
    recipients: set[str]
    catch_all: str | None


@dataclass
class World:
    """A server behind a wire that counts, and a directory for it."""

    url: str
    wire: Server
    ports: dict[int, int]
    user: str
    password: str
    folder: Path
    stack: Stack
    environ: dict[str, str] = field(default_factory=dict)

    # ------------------------------------------------------------------------------------------- what a server says
    @property
    @abstractmethod
    def username(self) -> str:
        """As whom the reconciler logs in."""

    @abstractmethod
    def account(self, name: str) -> Account | None: ...

    @abstractmethod
    def published(self, selector: str) -> str | None:
        """The public half of a key that signs."""

    @abstractmethod
    def hostname(self) -> str: ...

    @abstractmethod
    def listeners(self) -> dict[str, set[str]]: ...

    @abstractmethod
    def crew(self) -> None:
        """Make the group rt-crew."""

    @abstractmethod
    def shared(self) -> Shared:
        """What is so of the group rt-staff, the list rt-news and the domain; members are accounts' local parts."""

    @abstractmethod
    def login_of(self, name: str) -> str:
        """What an account logs in with."""

    @abstractmethod
    def take_away(self) -> None:
        """Leave the server as a recreated volume would: nothing of ours is there."""

    # ------------------------------------------------------------------------------------------------ as a user does
    def write(self, *edits: tuple[str, str], more: str = "") -> None:
        text = BASE.replace("@USER@", self.username).replace("@URL@", self.wire.url)
        text = text.replace("@ED1@", public_half("ed25519", (self.folder / "ed1.pem").read_text()))
        for old, new in edits:
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        state = self.folder / "desired-state"
        state.mkdir(exist_ok=True)
        (state / "all.yaml").write_text(text + more)

    def run(self, code: int, *argv: str, **env: str) -> Done:
        secrets = {"ADMIN_HASH": HASH, "SENDER": "sender pass", "REPORTS": "$reports' \"pass", **self.environ}
        environ = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "LANG": "C.UTF-8", **secrets, **env}
        self.wire.forget()
        call = {"program": "reconciler", "argv": list(argv), "environ": environ, "cwd": str(self.folder)}
        done = self.stack.zygote.start({**call, "bug": "", "trace": ""}).wait()
        assert done.code == code, done.text
        return done

    def requests(self) -> int:
        return sum(self.wire.counts.values())

    def settle(self, **env: str) -> str:
        """Apply, and see that a second plan is empty and takes two requests beside the probe."""
        said = self.run(0, "apply", "--yes", **env).text
        self.run(0, "plan", "--detailed-exitcode", **env)
        assert self.requests() <= 3
        return said

    def log_in(self, name: str, password: str) -> int:
        """Log in to submission over STARTTLS, and return the answer's code."""
        port = int(next(iter(self.listeners()["submission"])).rpartition(":")[2])
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        host = urlsplit(self.url).hostname or ""
        with smtplib.SMTP(host, self.ports.get(port, port), timeout=20) as client:
            client.starttls(context=context)
            try:
                return client.login(name, password)[0]
            except smtplib.SMTPAuthenticationError as error:
                return error.smtp_code


class Rest(World):
    """Up to 0.15."""

    words = (
        *("lookup.default.hostname", "server.allowed-ip.192.0.2.0/24", "server.auto-ban.scan.rate", "report.domain"),
        *("http.rate-limit.account", "reconciler.pending"),
    )

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        return httpx.request(
            method, f"{self.url}{path}", json=body, auth=(self.user, self.password), timeout=60, trust_env=False
        ).json()

    def settings(self) -> dict[str, str]:
        found: dict[str, str] = self.ask("GET", "/api/settings/list?limit=0")["data"]["items"]
        return found

    @property
    def username(self) -> str:
        return self.user

    def login_of(self, name: str) -> str:
        return name

    def account(self, name: str) -> Account | None:
        found = self.ask("GET", f"/api/principal/{name}").get("data")
        if found is None:
            return None
        groups, roles = found.get("memberOf") or (), found.get("roles") or ()
        aliases = set(found.get("emails") or ()) - {f"{name}@{DOMAIN}"}
        quota, description = found.get("quota") or None, found.get("description")
        return Account(str(found["id"]), set(roles), aliases, set(groups), quota, description)

    def published(self, selector: str) -> str | None:
        for algorithm in ("ed25519", "rsa"):
            if self.settings().get(f"signature.{algorithm}-{DOMAIN}.selector") == selector:
                return str(self.ask("GET", f"/api/dkim/{algorithm}-{DOMAIN}").get("data"))
        return None

    def hostname(self) -> str:
        return self.settings()["lookup.default.hostname"]

    def listeners(self) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for key, value in self.settings().items():
            if match := re.fullmatch(r"server\.listener\.([^.]+)\.bind(\.\d+)?", key):
                found.setdefault(match[1], set()).add(value)
        return found

    def crew(self) -> None:
        self.ask("POST", "/api/principal", {"type": "group", "name": "rt-crew"})

    def shared(self) -> Shared:
        items = self.ask("GET", "/api/principal?types=individual,group,list&limit=0")["data"]["items"]
        emails = {item["name"]: list(texts(item.get("emails"))) for item in items}
        owners = {email: item for item in items for email in emails[item["name"]]}
        group, news = owners.get(f"rt-staff@{DOMAIN}", {}), owners.get(f"rt-news@{DOMAIN}", {})
        catcher = owners.get(f"@{DOMAIN}")
        return Shared(
            set(emails[group["name"]]) - {f"@{DOMAIN}"} if group else None,
            {name for name in texts(group.get("members")) if name.startswith("rt-")},
            set(emails[news["name"]]) if news else None,
            set(texts(news.get("externalMembers"))),
            emails[catcher["name"]][0] if catcher else None,
        )

    def take_away(self) -> None:
        ours = ("rt-admin", "rt-sender", "rt-renamed", "rt-reports", "rt-crew", "rt-staff", "rt-news", DOMAIN)
        for name in ours:
            self.ask("DELETE", f"/api/principal/{name}")
        mine = [
            key
            for key in self.settings()
            if key in self.words or re.match(rf"signature\..*{re.escape(DOMAIN)}|.*rt-new", key)
        ]
        self.ask("POST", "/api/settings", [{"type": "delete", "keys": mine}])
        assert self.ask("GET", "/api/reload")["data"]["errors"] == {}


class Jmap(World):
    """From 0.16: ``user`` is the recovery administrator, and the reconciler logs in as an account of its own."""

    def ask(self, method: str, **arguments: Any) -> dict[str, Any]:
        body = {"using": ["urn:ietf:params:jmap:core", "urn:stalwart:jmap"], "methodCalls": [[method, arguments, "0"]]}
        answer = httpx.post(
            f"{self.url}/jmap", json=body, auth=(self.user, self.password), timeout=60, trust_env=False
        ).json()
        name, found, _ = answer["methodResponses"][0]
        assert name == method, found
        return dict(found)

    def all(self, kind: str) -> list[dict[str, Any]]:
        ids = self.ask(f"x:{kind}/query")["ids"]
        return list(self.ask(f"x:{kind}/get", ids=ids)["list"])

    def act(self, *kinds: str) -> None:
        done = self.ask("x:Action/set", create={kind: {"@type": kind} for kind in kinds})
        assert set(done.get("created") or ()) == set(kinds), done

    @property
    def username(self) -> str:
        return "rt-admin"

    def login_of(self, name: str) -> str:
        return f"{name}@{DOMAIN}"

    def account(self, name: str) -> Account | None:
        everyone = self.all("Account")
        names = {item["id"]: item["name"] for item in everyone}
        found = next((item for item in everyone if item["emailAddress"] == f"{name}@{DOMAIN}"), None)
        if found is None:
            return None
        domains = {item["id"]: item["name"] for item in self.all("Domain")}
        aliases = {f"{item['name']}@{domains[item['domainId']]}" for item in found["aliases"].values()}
        roles = {found["roles"]["@type"].lower()}
        groups = {names[number] for number in found["memberGroupIds"]}
        return Account(found["id"], roles, aliases, groups, found["quotas"].get("maxDiskQuota"), found["description"])

    def published(self, selector: str) -> str | None:
        domains = {item["name"]: item["id"] for item in self.all("Domain")}
        signing = [
            item["publicKey"]
            for item in self.all("DkimSignature")
            if (item["domainId"], item["selector"], item["stage"]) == (domains.get(DOMAIN), selector, "active")
        ]
        assert len(signing) < 2, "no duplicates"
        return signing[0] if signing else None

    def hostname(self) -> str:
        return str(self.ask("x:SystemSettings/get", ids=["singleton"])["list"][0]["defaultHostname"])

    def listeners(self) -> dict[str, set[str]]:
        return {item["name"]: set(item["bind"]) for item in self.all("NetworkListener")}

    def crew(self) -> None:
        domains = {item["name"]: item["id"] for item in self.all("Domain")}
        group = {"@type": "Group", "name": "rt-crew", "domainId": domains[DOMAIN]}
        assert "g" in self.ask("x:Account/set", create={"g": group})["created"]

    def shared(self) -> Shared:
        domains = {item["name"]: item for item in self.all("Domain")}
        names = {item["id"]: name for name, item in domains.items()}
        accounts = self.all("Account")

        def addresses(item: dict[str, Any]) -> set[str]:
            owned = (item, *item["aliases"].values())
            return {f"{each['name']}@{names[each['domainId']]}" for each in owned}

        group = next((item for item in accounts if f"rt-staff@{DOMAIN}" in addresses(item)), None)
        news = next((item for item in self.all("MailingList") if f"rt-news@{DOMAIN}" in addresses(item)), None)
        return Shared(
            addresses(group) if group else None,
            {item["name"] for item in accounts if group and group["id"] in item.get("memberGroupIds", ())},
            addresses(news) if news else None,
            set(news["recipients"]) if news else set(),
            domains.get(DOMAIN, {}).get("catchAllAddress"),
        )

    def take_away(self) -> None:
        domains = {item["name"]: item["id"] for item in self.all("Domain")}
        if SPARE not in domains:
            manual = {
                name: {"@type": "Manual"} for name in ("dkimManagement", "dnsManagement", "certificateManagement")
            }
            made = self.ask("x:Domain/set", create={"d": {"name": SPARE, **manual}})
            domains[SPARE] = made["created"]["d"]["id"]
        spare = {"defaultHostname": "spare.example.org", "defaultDomainId": domains[SPARE]}
        self.ask("x:SystemSettings/set", update={"singleton": spare})
        self.ask("x:Security/set", update={"singleton": {"scanBanRate": {"count": 30, "period": 86400000}}})
        ours = domains.get(DOMAIN)
        self.remove("DkimSignature", lambda item: item["domainId"] == ours)
        self.remove("MailingList", lambda item: item["domainId"] == ours)
        for kind in ("User", "Group"):  # a group that has members stays
            self.remove("Account", lambda item, kind=kind: (item["domainId"], item["@type"]) == (ours, kind))
        self.remove("AllowedIp", lambda item: item["address"] == "192.0.2.0/24")
        self.remove("NetworkListener", lambda item: item["name"].startswith("rt-"))
        self.remove("Domain", lambda item: item["id"] == ours)
        self.act("ReloadSettings", "InvalidateCaches")

    def remove(self, kind: str, chosen: Any) -> None:
        ids = [item["id"] for item in self.all(kind) if chosen(item)]
        if ids:
            done = self.ask(f"x:{kind}/set", destroy=ids)
            assert set(done["destroyed"]) == set(ids), done


def texts(value: Any) -> list[str]:
    """Return a list of texts, of which one alone stands for itself."""
    return [value] if isinstance(value, str) else list(value or ())


# --------------------------------------------------------------------------------------------------- the servers
Opened = tuple[type[World], str, Server, dict[int, int], str, str]


@contextlib.contextmanager
def _fake_rest() -> Iterator[Opened]:
    with (
        StalwartRest(environment={"STALWART_ADMIN_PASSWORD": "fallback"}, open_ports=True) as fake,
        Server(fake) as wire,
    ):
        with Server(fake) as beside:
            yield Rest, beside.url, wire, fake.ports, "admin", "fallback"
        assert wire.crashes == []


@contextlib.contextmanager
def _fake_jmap() -> Iterator[Opened]:
    with (
        StalwartJmap(environment={"STALWART_RECOVERY_ADMIN": "admin:fallback"}, open_ports=True) as fake,
        Server(fake) as wire,
    ):
        with Server(fake) as beside:
            world = Jmap(beside.url, wire, {}, "admin", "fallback", Path(), None)  # type: ignore[arg-type]
            listener = {"name": "submission", "bind": {"[::]:587": True}, "protocol": "smtp"}
            assert "l" in world.ask("x:NetworkListener/set", create={"l": listener})["created"]
            fake.restart()
            yield Jmap, beside.url, wire, fake.ports, "admin", "fallback"
        assert wire.crashes == []


@contextlib.contextmanager
def _real(kind: type[World], name: str) -> Iterator[Opened]:
    url = os.environ[f"STALWART_{name}_URL"]
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:

        def passed_on(request: Request) -> Reply:
            kept = ("authorization", "content-type")
            headers = {name: request.headers[name] for name in kept if name in request.headers}
            try:
                answer = client.request(request.method, request.raw_path, content=request.body, headers=headers)
            except httpx.RemoteProtocolError as error:
                raise Hangup from error
            onward = {"Location": answer.headers["location"]} if "location" in answer.headers else {}
            kind = answer.headers.get("content-type", "")
            return Reply(answer.status_code, answer.content, kind, headers=onward)

        with Server(passed_on) as wire:
            yield kind, url, wire, {}, os.environ[f"STALWART_{name}_USER"], os.environ[f"STALWART_{name}_PASSWORD"]


_SERVERS = {
    "fake-rest": _fake_rest,
    "fake-jmap": _fake_jmap,
    "real-rest": lambda: _real(Rest, "REST"),
    "real-jmap": lambda: _real(Jmap, "JMAP"),
}
_THERE = [
    *("fake-rest", "fake-jmap"),
    *(f"real-{name.lower()}" for name in ("REST", "JMAP") if os.environ.get(f"STALWART_{name}_URL")),
]


@pytest.fixture(params=_THERE)
def world(request: pytest.FixtureRequest, tmp_path: Path, theatre: Stack) -> Iterator[World]:
    with _SERVERS[request.param]() as (kind, url, wire, ports, user, password):
        world = kind(url, wire, ports, user, password, tmp_path, theatre)
        own = {"ADMIN": password, "RECOVERY": ""} if kind is Rest else {"ADMIN": "admin pass"}
        world.environ = {"RECOVERY": f"{user}:{password}", **own}
        for name, key in (
            ("ed1", Ed25519PrivateKey.generate()),
            ("ed2", Ed25519PrivateKey.generate()),
            ("rsa1", generate_private_key(65537, 2048)),
        ):
            pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            (tmp_path / f"{name}.pem").write_bytes(pem)
        world.take_away()
        world.write()
        try:
            yield world
        finally:
            world.take_away()


def only(generation: str) -> pytest.MarkDecorator:
    """Run a test on one generation, as it is about something that the other one does not have."""
    return pytest.mark.parametrize("world", [name for name in _THERE if name.endswith(generation)], indirect=True)


def key(world: World, name: str) -> str:
    return public_half("rsa" if name.startswith("rsa") else "ed25519", (world.folder / f"{name}.pem").read_text())


def entry(world: World, name: str) -> str:
    public = key(world, name)
    return f'{{selector: {name}, algorithm: ed25519, private_key: {{file: ../{name}.pem}}, public_key: "{public}"}}'


# ------------------------------------------------------------------------------------------------------- the tests
def test_an_emptied_server_gets_the_same_keys_and_passwords(world: World) -> None:
    for reason in ("missing", "lost"):  # who was never whole has lost nothing
        plan = world.run(0, "plan", "--output", "json").json
        assert {item["reason"] for item in plan["changes"]} == {reason}
        world.settle()
        assert (world.published("ed1"), world.published("rsa1")) == (key(world, "ed1"), key(world, "rsa1"))
        assert world.hostname() == f"mail.{DOMAIN}"
        assert world.log_in(world.login_of("rt-sender"), "sender pass") == 235
        assert world.log_in(world.login_of("rt-reports"), "$reports' \"pass") == 235
        assert world.log_in(world.login_of("rt-sender"), "another pass") == 535
        world.take_away()


def test_each_part_of_an_account_follows_the_directory(world: World) -> None:
    world.settle()
    world.crew()
    former = world.account("rt-sender")
    assert former is not None
    assert (former.roles, former.aliases, former.quota) == ({"user"}, {f"z@{DOMAIN}", f"a@{DOMAIN}"}, 1 << 30)
    world.write(
        (f"aliases: [z@{DOMAIN}, a@{DOMAIN}]", f"aliases: [b@{DOMAIN}]\n    groups: [rt-crew]"),
        ("quota: 1 GiB", "quota: null\n    description: Sends"),
        (f"rt-sender@{DOMAIN}:\n    roles: [user]", f"rt-renamed@{DOMAIN}:\n    roles: [admin]"),
        more=f"moved: [{{from: account/rt-sender@{DOMAIN}, to: account/rt-renamed@{DOMAIN}}}]\n",
    )
    world.settle(SENDER="another pass")
    assert world.account("rt-sender") is None
    wanted = Account(former.id, {"admin"}, {f"b@{DOMAIN}"}, {"rt-crew"}, None, "Sends")
    assert world.account("rt-renamed") == wanted
    assert world.log_in(world.login_of("rt-renamed"), "another pass") == 235
    assert world.log_in(world.login_of("rt-renamed"), "sender pass") == 535


def test_what_removed_names_goes_and_nothing_else(world: World) -> None:
    world.settle()
    line = f"  rt-reports@{DOMAIN}: {{roles: [user], password: {{env: REPORTS}}}}\n"
    world.write((line, ""), more=f"removed: [account/rt-reports@{DOMAIN}]\n")
    world.settle()
    assert world.account("rt-reports") is None
    assert world.account("rt-sender") is not None


def test_a_group_a_list_and_a_catch_all_come_back_and_go_by_removed_only(world: World) -> None:
    reports = f"rt-reports@{DOMAIN}: {{roles: [user],"
    joined = (reports, f"rt-reports@{DOMAIN}: {{groups: [rt-staff@{DOMAIN}], roles: [user],")
    shared = f"groups: {{rt-staff@{DOMAIN}: {{description: Staff, aliases: [rt-team@{DOMAIN}]}}}}\n"
    news = f"aliases: [rt-neues@{DOMAIN}], members: [rt-reports@{DOMAIN}, rt-staff@{DOMAIN}, someone@gmail.com]"
    shared += f"lists: {{rt-news@{DOMAIN}: {{{news}}}}}\ndomains: {{{DOMAIN}: {{catch_all: rt-reports@{DOMAIN}}}}}\n"
    whole = Shared(
        {f"rt-staff@{DOMAIN}", f"rt-team@{DOMAIN}"},
        {"rt-reports"},
        {f"rt-news@{DOMAIN}", f"rt-neues@{DOMAIN}"},
        {f"rt-reports@{DOMAIN}", f"rt-staff@{DOMAIN}", "someone@gmail.com"},
        f"rt-reports@{DOMAIN}",
    )
    world.write(joined, more=shared)
    world.settle()
    assert world.shared() == whole
    world.take_away()
    world.settle()
    assert world.shared() == whole
    world.write(more=shared.replace(", someone@gmail.com]", "]").replace("catch_all: rt-reports", "catch_all: rt-team"))
    world.settle()
    fewer = whole.recipients - {"someone@gmail.com"}
    caught = {f"rt-team@{DOMAIN}", f"rt-staff@{DOMAIN}"}  # up to 0.15 it is whose address that is
    now = world.shared()
    assert replace(now, catch_all=None) == replace(whole, recipients=fewer, catch_all=None)
    assert now.catch_all in caught
    world.write()
    world.settle()
    assert world.shared() == now, "nothing goes because it is absent"
    left = (reports, f"rt-reports@{DOMAIN}: {{groups: [], roles: [user],")
    removed = f"removed: [group/rt-staff@{DOMAIN}, list/rt-news@{DOMAIN}]\n"
    world.write(left, more=f"domains: {{{DOMAIN}: {{catch_all: null}}}}\n{removed}")
    world.settle()
    assert world.shared() == Shared(None, set(), None, set(), None)
    assert world.account("rt-reports") is not None


def test_a_key_of_the_servers_own_is_kept_and_known(world: World) -> None:
    world.write((entry(world, "ed1"), "{selector: own1, algorithm: ed25519}"))
    world.settle()
    made = world.published("own1")
    assert made
    world.settle()
    assert world.published("own1") == made


def test_a_new_key_takes_over_and_the_old_one_goes_in_one_apply(world: World) -> None:
    world.settle()
    old = "{selector: ed1, algorithm: ed25519, stage: retired}"
    world.write((entry(world, "ed1"), f"{entry(world, 'ed2')}\n    - {old}"))
    text = f'"v=DKIM1; k=ed25519; p={key(world, "ed2")}"'
    shown = {
        "type": "TXT",
        "name": f"ed2._domainkey.{DOMAIN}",
        "content": text,
        "ttl": 1,
        "modified_on": "2026-11-22T12:00:00Z",
        "proxied": False,
    }
    with NameServers(lambda: {DOMAIN: (shown,)}) as names:
        world.environ["RECONCILER_NAMESERVERS"] = " ".join(names.servers)
        world.settle()
    assert world.published("ed2") == key(world, "ed2")
    assert world.published("ed1") is None
    assert world.published("rsa1") == key(world, "rsa1")


def test_a_listener_is_stored_and_its_restart_is_told(world: World) -> None:
    world.write(more='  listeners: {rt-new: {bind: "127.0.0.1:26998", protocol: smtp}}\n')
    assert "restart" in world.settle()
    assert world.listeners()["rt-new"] == {"127.0.0.1:26998"}
    world.write(more="removed: [stalwart/listeners/rt-new]\n")
    world.settle()
    assert "rt-new" not in world.listeners()


def test_what_was_applied_is_surveyed_and_nothing_is_left_to_plan(world: World) -> None:
    world.settle()
    secrets = {"ADMIN": world.password}
    target = Stalwart(url=world.url, username=world.user, passwords=[SecretRef("env", "ADMIN")], allow_plain_http=True)

    def reveal(ref: Secret) -> str:
        assert isinstance(ref, SecretRef)
        return secrets[ref.name]

    found = target.survey(reveal)
    names = {f"account/rt-{name}@{DOMAIN}" for name in ("sender", "reports")} | {f"dkim/{DOMAIN}/ed1"}
    names |= {f"dkim/{DOMAIN}/rsa1", "stalwart/hostname", "stalwart/allowed_ips/192.0.2.0/24", f"domain/{DOMAIN}"}
    assert names <= {item.resource.address for item in found.live}
    wanted, more = imported(found)
    secrets |= more
    plan = diff(Desired(tuple(wanted)), {"stalwart": target.observe(wanted, reveal)}, stack="rt")
    assert (plan.pending, plan.unread) == ((), frozenset())
    assert [str(problem) for problem in plan.errors] == []
    if found.generation == "rest":
        assert found.private_keys[f"dkim/{DOMAIN}/ed1"].strip() == (world.folder / "ed1.pem").read_text().strip()
        assert set(found.hashes) >= {"rt-admin", f"rt-sender@{DOMAIN}", f"rt-reports@{DOMAIN}"}


def test_a_wrong_password_is_sent_once(world: World) -> None:
    world.settle()
    said = world.run(1, "plan", ADMIN="wrong", RECOVERY="")
    assert world.requests() == 2, "the probe, and one try"
    assert "wrong" not in said.text.replace("wrong password", "")


# --------------------------------------------------------------------------------------------------- one generation
@only("rest")
def test_a_value_that_the_server_does_not_take_is_taken_back_alone(world: Rest) -> None:
    name = "http.rate-limit.account"
    world.write(more=f"  settings: {{{name}: 5000/1m}}\n")
    world.settle()
    world.write((f"hostname: mail.{DOMAIN}", f"hostname: new.{DOMAIN}"), more=f"  settings: {{{name}: bogus}}\n")
    assert name in world.run(6, "apply", "--yes").text
    keys = world.settings()
    assert (keys[name], keys["lookup.default.hostname"]) == ("5000/1m", f"new.{DOMAIN}")
    assert "reconciler.pending" not in keys
    assert world.ask("GET", "/api/reload")["data"]["errors"] == {}
    world.write(more=f"  settings: {{{name}: null}}\n")
    world.settle()
    assert name not in world.settings()


@only("rest")
def test_an_account_may_have_two_roles(world: Rest) -> None:
    world.write((f"rt-sender@{DOMAIN}:\n    roles: [user]", f"rt-sender@{DOMAIN}:\n    roles: [user, admin]"))
    world.settle()
    found = world.account("rt-sender")
    assert found is not None
    assert found.roles == {"user", "admin"}


@only("jmap")
def test_app_passwords_survive_a_new_password(world: Jmap) -> None:
    world.settle()
    sender = f"rt-sender@{DOMAIN}"
    with httpx.Client(base_url=world.url, auth=(sender, "sender pass"), timeout=60, trust_env=False) as client:
        create = {"a": {"description": "phone", "permissions": {"@type": "Inherit"}}}
        calls = [["x:AppPassword/set", {"create": create}, "0"]]
        body = {"using": ["urn:ietf:params:jmap:core", "urn:stalwart:jmap"], "methodCalls": calls}
        made = client.post("/jmap", json=body).json()["methodResponses"][0][1]["created"]["a"]["secret"]
    world.settle(SENDER="another pass")
    assert world.log_in(sender, "another pass") == 235
    assert world.log_in(sender, made) == 235


@only("jmap")
def test_a_password_that_a_person_changed_is_seen_only_when_asked(world: Jmap) -> None:
    world.settle()
    sender = world.account("rt-sender")
    assert sender is not None
    world.ask("x:Account/set", update={sender.id: {"credentials/0/secret": HASH}})
    assert "not checked since" in world.run(0, "plan", "--detailed-exitcode").text
    changes = world.run(0, "plan", "--check-passwords", "--output", "json").json["changes"]
    assert [item["address"] for item in changes] == [f"account/rt-sender@{DOMAIN}"]
    world.run(0, "apply", "--yes", "--check-passwords")
    assert world.log_in(f"rt-sender@{DOMAIN}", "sender pass") == 235
    world.run(0, "plan", "--check-passwords", "--detailed-exitcode")


@only("jmap")
def test_a_domain_that_the_server_keeps_by_itself_is_named(world: Jmap) -> None:
    world.settle()
    [number] = [item["id"] for item in world.all("Domain") if item["name"] == DOMAIN]
    automatic = {"@type": "Automatic"}
    done = world.ask("x:Domain/set", update={number: {"dkimManagement": automatic}})
    assert number in done["updated"], done
    problems = world.run(1, "plan", "--output", "json").json["problems"]
    assert any("dkimManagement" in item["summary"] + item["hint"] for item in problems)
    world.ask("x:Domain/set", update={number: {"dkimManagement": {"@type": "Manual"}}})
    world.remove("DkimSignature", lambda item: item["selector"].startswith("v1-"))


@only("jmap")
def test_two_keys_with_one_selector_are_named(world: Jmap) -> None:
    world.settle()
    [number] = [item["id"] for item in world.all("Domain") if item["name"] == DOMAIN]
    pem = (world.folder / "ed1.pem").read_text()
    twin = {"@type": "Dkim1Ed25519Sha256", "domainId": number, "selector": "ed1"}
    made = world.ask("x:DkimSignature/set", create={"t": {**twin, "privateKey": {"@type": "Text", "secret": pem}}})
    assert "t" in made["created"], made
    problems = world.run(0, "plan", "--output", "json").json["problems"]
    named = [item["where"] for item in problems if not item["where"].startswith("Stalwart at")]  # of a new release
    assert named == [f"dkim/{DOMAIN}/ed1"]
