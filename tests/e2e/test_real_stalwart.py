"""What we rely on a Stalwart 0.15 for, held against the fake, and against a real one where there is one.

Set STALWART_REST_URL, STALWART_REST_USER and STALWART_REST_PASSWORD to run the same tests against a server to throw
away, with an internal directory, a submission listener and working reloads. They remove what they made, and every
account, key and word that is named like theirs. All assertions are about what the server answers.
"""

from __future__ import annotations

import contextlib
import os
import re
import smtplib
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from passlib.hash import sha512_crypt

from reconciler.keys import public_half
from reconciler.simulator.stalwart_rest import StalwartRest
from reconciler.simulator.wire import Hangup, Reply, Request, Server

from .stagefixtures import Done, Stack

URL = os.environ.get("STALWART_REST_URL", "")
DOMAIN = "reconciler-test.example"
OURS = ("rt-admin", "rt-sender", "rt-renamed", "rt-reports", "rt-crew", DOMAIN)
WORDS = (
    *("lookup.default.hostname", "server.allowed-ip.192.0.2.0/24", "server.auto-ban.scan.rate", "report.domain"),
    *("http.rate-limit.account", "reconciler.pending"),
)
BASE = f"""\
version: 1
stack: rt
targets:
  stalwart: {{username: "@USER@", password: {{env: ADMIN}}, url: "@URL@"}}
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

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        return httpx.request(
            method, f"{self.url}{path}", json=body, auth=(self.user, self.password), timeout=60, trust_env=False
        ).json()

    def settings(self) -> dict[str, str]:
        found: dict[str, str] = self.ask("GET", "/api/settings/list?limit=0")["data"]["items"]
        return found

    def principal(self, name: str) -> dict[str, Any]:
        answer = self.ask("GET", f"/api/principal/{name}")
        return answer.get("data") or answer

    def published(self, algorithm: str) -> str:
        """The public half of the key that signs."""
        return str(self.ask("GET", f"/api/dkim/{algorithm}-{DOMAIN}").get("data"))

    def take_away(self) -> None:
        """Leave the server as a recreated volume would: nothing of ours is there."""
        for name in OURS:
            self.ask("DELETE", f"/api/principal/{name}")
        mine = [
            key
            for key in self.settings()
            if key in WORDS or re.match(rf"signature\..*{re.escape(DOMAIN)}|.*rt-new", key)
        ]
        self.ask("POST", "/api/settings", [{"type": "delete", "keys": mine}])
        assert self.ask("GET", "/api/reload")["data"]["errors"] == {}

    # ------------------------------------------------------------------------------------------------ as a user does
    def write(self, *edits: tuple[str, str], more: str = "") -> None:
        text = BASE.replace("@USER@", self.user).replace("@URL@", self.wire.url)
        text = text.replace("@ED1@", public_half("ed25519", (self.folder / "ed1.pem").read_text()))
        for old, new in edits:
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        state = self.folder / "desired-state"
        state.mkdir(exist_ok=True)
        (state / "all.yaml").write_text(text + more)

    def run(self, code: int, *argv: str, **env: str) -> Done:
        secrets = {"ADMIN": self.password, "ADMIN_HASH": HASH, "SENDER": "sender pass", "REPORTS": "$reports' \"pass"}
        environ = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "LANG": "C.UTF-8", **secrets, **env}
        self.wire.forget()
        call = {"program": "reconciler", "argv": list(argv), "environ": environ, "cwd": str(self.folder)}
        done = self.stack.zygote.start({**call, "bug": "", "trace": ""}).wait()
        assert done.code == code, done.text
        return done

    def settle(self, **env: str) -> str:
        """Apply, and see that a second plan is empty and takes two requests; returns what was said."""
        said = self.run(0, "apply", "--yes", **env).text
        self.run(0, "plan", "--detailed-exitcode", **env)
        assert sum(self.wire.counts.values()) == 2
        return said

    def log_in(self, user: str, password: str) -> int:
        """Log in to submission over STARTTLS, and return the answer's code."""
        bind = self.settings()["server.listener.submission.bind"]
        port = int(bind.rpartition(":")[2])
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        host = urlsplit(self.url).hostname or ""
        with smtplib.SMTP(host, self.ports.get(port, port), timeout=20) as client:
            client.starttls(context=context)
            try:
                return client.login(user, password)[0]
            except smtplib.SMTPAuthenticationError as error:
                return error.smtp_code


HASH = sha512_crypt.using(rounds=1000, salt="saltsalt").hash("admin pass")


@contextlib.contextmanager
def _fake() -> Iterator[tuple[str, Server, dict[int, int], str, str]]:
    with (
        StalwartRest(environment={"STALWART_ADMIN_PASSWORD": "fallback"}, open_ports=True) as fake,
        Server(fake) as wire,
    ):
        with Server(fake) as beside:
            yield beside.url, wire, fake.ports, "admin", "fallback"
        assert wire.crashes == []


@contextlib.contextmanager
def _real() -> Iterator[tuple[str, Server, dict[int, int], str, str]]:
    with httpx.Client(base_url=URL, timeout=60, trust_env=False) as client:

        def passed_on(request: Request) -> Reply:
            headers = {name: request.headers[name] for name in ("authorization",) if name in request.headers}
            try:
                answer = client.request(request.method, request.raw_path, content=request.body, headers=headers)
            except httpx.RemoteProtocolError as error:
                raise Hangup from error
            return Reply(answer.status_code, answer.content, answer.headers.get("content-type", ""))

        with Server(passed_on) as wire:
            yield URL, wire, {}, os.environ["STALWART_REST_USER"], os.environ["STALWART_REST_PASSWORD"]


@pytest.fixture(params=["fake", *(["real"] if URL else [])])
def world(request: pytest.FixtureRequest, tmp_path: Path, theatre: Stack) -> Iterator[World]:
    with {"fake": _fake, "real": _real}[request.param]() as (url, wire, ports, user, password):
        world = World(url, wire, ports, user, password, tmp_path, theatre)
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


def key(world: World, name: str) -> str:
    return public_half("rsa" if name.startswith("rsa") else "ed25519", (world.folder / f"{name}.pem").read_text())


def entry(world: World, name: str) -> str:
    public = key(world, name)
    return f'{{selector: {name}, algorithm: ed25519, private_key: {{file: ../{name}.pem}}, public_key: "{public}"}}'


def test_an_emptied_server_gets_the_same_keys_and_passwords(world: World) -> None:
    for _ in range(2):
        plan = world.run(0, "plan", "--output", "json").json
        assert {item["reason"] for item in plan["changes"]} == {"lost"}
        world.settle()
        assert (world.published("ed25519"), world.published("rsa")) == (key(world, "ed1"), key(world, "rsa1"))
        assert world.principal("rt-admin")["secrets"] == [HASH]
        assert world.log_in("rt-sender", "sender pass") == 235
        assert world.log_in("rt-reports", "$reports' \"pass") == 235
        assert world.log_in(f"rt-sender@{DOMAIN}", "sender pass") == 535
        world.take_away()


def test_each_part_of_an_account_follows_the_directory(world: World) -> None:
    world.settle()
    world.ask("POST", "/api/principal", {"type": "group", "name": "rt-crew"})
    number = world.principal("rt-sender")["id"]
    world.write(
        (f"aliases: [z@{DOMAIN}, a@{DOMAIN}]", f"aliases: [b@{DOMAIN}]\n    groups: [rt-crew]"),
        ("quota: 1 GiB", "quota: null\n    description: Sends"),
        (f"rt-sender@{DOMAIN}:\n    roles: [user]", f"rt-renamed@{DOMAIN}:\n    roles: [user, admin]"),
        more=f"moved: [{{from: account/rt-sender@{DOMAIN}, to: account/rt-renamed@{DOMAIN}}}]\n",
    )
    world.settle(SENDER="another pass")
    found = world.principal("rt-renamed")
    assert (found["id"], found["description"], found["memberOf"]) == (number, "Sends", ["rt-crew"])
    assert (sorted(found["roles"]), found.get("quota")) == (["admin", "user"], None)
    assert found["emails"] == [f"rt-renamed@{DOMAIN}", f"b@{DOMAIN}"]
    assert world.log_in("rt-renamed", "another pass") == 235
    assert world.log_in("rt-renamed", "sender pass") == 535


def test_what_removed_names_goes_and_nothing_else(world: World) -> None:
    world.settle()
    line = f"  rt-reports@{DOMAIN}: {{roles: [user], password: {{env: REPORTS}}}}\n"
    world.write((line, ""), more=f"removed: [account/rt-reports@{DOMAIN}]\n")
    world.settle()
    assert world.principal("rt-reports") == {"error": "notFound", "item": "rt-reports"}
    assert world.principal("rt-sender")["name"] == "rt-sender"


def test_a_key_of_the_servers_own_is_kept_and_known(world: World) -> None:
    world.write((entry(world, "ed1"), "{selector: own1, algorithm: ed25519}"))
    world.settle()
    made = world.published("ed25519")
    stored = world.settings()[f"signature.ed25519-{DOMAIN}.private-key"]
    assert public_half("ed25519", stored) == made
    world.settle()
    assert world.published("ed25519") == made


def test_a_new_key_takes_over_and_the_old_one_goes_in_one_apply(world: World) -> None:
    world.settle()
    old = "{selector: ed1, algorithm: ed25519, stage: retired}"
    world.write((entry(world, "ed1"), f"{entry(world, 'ed2')}\n    - {old}"))
    world.settle()
    assert world.published("ed25519") == key(world, "ed2")
    assert [value for name, value in world.settings().items() if name.endswith(".selector") and DOMAIN in name] == [
        "ed2",
        "rsa1",
    ]


def test_a_value_that_the_server_does_not_take_is_taken_back_alone(world: World) -> None:
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


def test_a_listener_is_stored_and_its_restart_is_told(world: World) -> None:
    world.write(more='  listeners: {rt-new: {bind: "127.0.0.1:26998", protocol: smtp}}\n')
    assert "restart" in world.settle()
    assert world.settings()["server.listener.rt-new.bind"] == "127.0.0.1:26998"
    world.write(more="removed: [stalwart/listeners/rt-new]\n")
    world.settle()
    assert not [name for name in world.settings() if name.startswith("server.listener.rt-new.")]


def test_a_wrong_password_is_sent_once(world: World) -> None:
    world.run(1, "plan", ADMIN="wrong")
    assert sum(world.wire.counts.values()) == 1
