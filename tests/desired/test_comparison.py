"""What changes in meaning between two directories: nothing for another order or style, something for another word."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from properties import tries

from reconciler.address import Address
from reconciler.desired.comparison import Comparison, compare
from reconciler.desired.derivation import desire
from reconciler.desired.load import Directory, load, salvage
from reconciler.desired.spec import Spec
from reconciler.desired.spec.scalars import Model
from reconciler.difference import Difference, Risk
from reconciler.problem import InvalidDirectory
from reconciler.resources import UNMANAGED
from reconciler.target import Action, Reason

ED25519 = "oR3PJitX2xsZh5sFm1Lt5gMqR2jureP2WxVdY9CTjk4="
OTHER = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
CHECK = {"service": "web", "port": 80, "path": "/templates", "header": "X-Service-Key"}
DOCUMENT: dict[str, Any] = {
    "version": 1,
    "stack": "mana",
    "targets": {
        "stalwart": {
            "url": "http://localhost:8443",
            "username": "admin",
            "password": [{"env": "ADMIN_NEW"}, {"env": "ADMIN_OLD"}],
            "container": "mana-mail",
        },
        "cloudflare": [
            {"token": {"env": "CF"}, "zones": ["mana.how", "mana.example"]},
            {"token": {"env": "CF_2"}, "zones": ["x.how"]},
        ],
        "compose": {"file": "../docker-compose.yml"},
    },
    "policy": {"max_deletes": 3},
    "daemon": {
        "notices": [{"env": "NOTICE_1"}, {"env": "NOTICE_2"}],
        "github": {"repository": "ada/mail", "token": {"env": "GITHUB"}},
    },
    "router": {"address": "192.168.178.1", "forwards": [25, 465], "password": {"env": "ROUTER"}},
    "accounts": {
        "admin": {"roles": ["admin"], "password": {"env": "ADMIN_NEW"}},
        "noreply@mana.how": {"password": {"env": "NOREPLY"}, "aliases": ["a@mana.how", "b@mana.how"], "quota": "1 GiB"},
        "till@mana.how": {"password": {"env": "TILL"}, "groups": ["office@mana.how"], "description": "Till"},
        "old@mana.how": {"password": {"env": "OLD"}},
    },
    "groups": {"office@mana.how": {"aliases": ["info@mana.how"]}},
    "lists": {"news@mana.how": {"members": ["till@mana.how", "reader@example.org"]}},
    "domains": {"mana.how": {"catch_all": "till@mana.how"}},
    "dkim": {
        "mana.how": [
            {"selector": "one", "algorithm": "ed25519", "public_key": ED25519, "private_key": {"env": "KEY"}},
            {"selector": "two", "algorithm": "ed25519", "public_key": OTHER, "stage": "pending", "since": "2026-11-01"},
        ]
    },
    "dns": {
        "mana.how": [
            {"type": "A", "name": "mail", "content": "192.0.2.1"},
            {"type": "A", "name": "home", "content": {"public_ip": True}},
            {"type": "MX", "name": "@", "content": "mail.mana.how", "priority": 10},
            {"type": "MX", "name": "@", "content": "backup.mana.how", "priority": 20, "comment": "the other one"},
            {"type": "TXT", "name": "@", "content": "v=spf1 ip4:{public_ip} a mx ~all"},
            {"type": "TXT", "name": "_dmarc", "content": "v=DMARC1; p=none", "ttl": 300},
            {
                "type": "SRV",
                "name": "_imaps._tcp",
                "data": {"priority": 1, "weight": 1, "port": 993, "target": "m.mana.how"},
            },
            {"type": "CNAME", "name": "www", "content": "mana.how", "proxied": True},
        ],
        "mana.example": [],
    },
    "stalwart": {
        "hostname": "mail.mana.how",
        "default_domain": "mana.how",
        "allowed_ips": ["172.18.0.0/16", {"network": "mail"}],
        "auto_ban": {"scan": "30/1d"},
        "listeners": {"submission": {"bind": "[::]:587", "protocol": "smtp"}},
        "settings": {"queue.quota.x": "1", "server.max-connections": "8192"},
        "objects": {
            "Http": {"singleton": {"useXForwarded": True}},
            "Bootstrap": {"singleton": {"tracer": {"@type": "Stdout"}}},
        },
    },
    "smtp": {
        "provider": "own",
        "failover": {"to": "brevo"},
        "providers": {
            "own": {"host": "stalwart", "port": 587, "account": "noreply@mana.how", "verify_tls": False},
            "brevo": {
                "preset": "brevo",
                "standby": True,
                "username": "me",
                "password": {"env": "BREVO"},
                "api_key": {"env": "API"},
            },
            "spare": {
                "host": "smtp.example.org",
                "port": 465,
                "username": "me",
                "password": {"env": "SPARE"},
                "dns": {"mana.how": [{"type": "TXT", "name": "spare", "content": "x"}]},
            },
        },
        "consumers": {
            "web": {
                "env": {"SMTP_URL": "smtp://{username|url}:{password|url}@{host}:{port}", "SMTP_USER": "{username}"}
            },
            "auth": {"provider": "brevo", "env": {"SMTP_PASSWORD": "{password}", "FROM": "a@mana.how"}},
        },
        "links": [{"value": {"env": "SHARED"}, "in": ["web.KEY", "auth.KEY"], "check": CHECK}, ["web.A", "auth.A"]],
    },
    "removed": ["account/gone@mana.how"],
    "moved": [{"from": "account/former@mana.how", "to": "account/till@mana.how"}],
    "adopt": ["dns/mana.how/A/mail"],
}
ORDERED = {"password"}  # new, then old


# ---------------------------------------------------------------------------------------------- one meaning, many texts
class Writer:
    """Writes a document in some style: any order, quotes, comments, anchors, several files."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)

    def shuffled(self, items: Any) -> list[Any]:
        items = list(items)
        self.dice.shuffle(items)
        return items

    def flow(self, value: Any, name: str = "") -> str:
        if isinstance(value, dict):
            return (
                "{" + ", ".join(f"{self.scalar(k)}: {self.flow(v, k)}" for k, v in self.shuffled(value.items())) + "}"
            )
        if isinstance(value, list):
            items = value if name in ORDERED else self.shuffled(value)
            return "[" + ", ".join(self.flow(item) for item in items) + "]"
        return self.scalar(value)

    def scalar(self, value: Any) -> str:
        if not isinstance(value, str):
            return json.dumps(value)
        return self.dice.choice([json.dumps(value), "'" + value.replace("'", "''") + "'"])

    def block(self, value: Any, indent: str, name: str, anchors: list[str]) -> str:
        comment = self.dice.choice(["", "", f"{indent}# a word: [about\n"])
        if isinstance(value, dict) and value and self.dice.random() < 0.7:
            lines = (
                f"{indent}{self.scalar(k)}:{self.tail(v, indent, k, anchors)}" for k, v in self.shuffled(value.items())
            )
            return "\n" + comment + "".join(lines)
        if isinstance(value, list) and value and self.dice.random() < 0.7:
            items = value if name in ORDERED else self.shuffled(value)
            return "\n" + comment + "".join(f"{indent}- {self.flow(item)}\n" for item in items)
        if isinstance(value, dict | list) and self.dice.random() < 0.3:
            anchors.append(self.flow(value, name))
            return f" *a{len(anchors) - 1}\n"
        return f" {self.flow(value, name)}{self.dice.choice(['', '  # said'])}\n"

    def tail(self, value: Any, indent: str, name: str, anchors: list[str]) -> str:
        return self.block(value, indent + "  ", name, anchors)

    def file(self, part: dict[str, Any]) -> str:
        anchors: list[str] = []
        body = "".join(f"{key}:{self.block(value, '  ', key, anchors)}" for key, value in self.shuffled(part.items()))
        heads = "".join(f"x-{index}: &a{index} {text}\n" for index, text in enumerate(anchors))
        return heads + body

    def files(self, document: dict[str, Any]) -> dict[str, str]:
        parts: dict[str, dict[str, Any]] = {}
        for key, value in document.items():
            if key in ("accounts", "dns", "dkim", "groups"):
                for name, entry in value.items():
                    parts.setdefault(self.dice.choice(["a", "b", "sub/c"]), {}).setdefault(key, {})[name] = entry
            else:
                parts.setdefault(self.dice.choice(["a", "b", "sub/c"]), {})[key] = value
        return {f"{name}.yaml": self.file(part) for name, part in parts.items()}


def read(place: Path, document: dict[str, Any], seed: int = 0) -> Directory:
    path = place / str(len(list(place.iterdir())))
    for name, text in Writer(seed).files(document).items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)
    return load(path)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("directories")


@settings(max_examples=tries(40))
@given(seed=st.integers(1, 10**6))
def test_another_order_style_and_spread_over_files_is_no_difference(place: Path, seed: int) -> None:
    found = compare(read(place, DOCUMENT), read(place, DOCUMENT, seed))
    assert found.differences == found.named == ()
    assert found.unchanged > 30


# ------------------------------------------------------------------------------------------- each word that is another
def at(document: Any, *path: str | int) -> Any:
    for step in path:
        document = document[step]
    return document


NEW = {"selector": "three", "algorithm": "ed25519", "public_key": OTHER, "stage": "pending"}
SPF = "v=spf1 ip4:{public_ip} a mx -all"
# For each word of the format, by its path in the models: where it is put, and what. None takes it out.
WORDS: dict[str, tuple[tuple[str | int, ...], Any]] = {
    "stack": (("stack",), "other"),
    "targets.stalwart.url": (("targets", "stalwart", "url"), "https://evil.example"),
    "targets.stalwart.username": (("targets", "stalwart", "username"), "root"),
    "targets.stalwart.password": (("targets", "stalwart", "password"), [{"env": "ADMIN_OLD"}, {"env": "ADMIN_NEW"}]),
    "targets.stalwart.container": (("targets", "stalwart", "container"), "other"),
    "targets.stalwart.recovery": (("targets", "stalwart", "recovery"), {"env": "RECOVERY"}),
    "targets.stalwart.generation": (("targets", "stalwart", "generation"), "jmap"),
    "targets.stalwart.release": (("targets", "stalwart", "release"), "1"),
    "targets.stalwart.allow_plain_http": (("targets", "stalwart", "allow_plain_http"), True),
    "targets.cloudflare.token": (("targets", "cloudflare", 0, "token"), {"env": "OTHER"}),
    "targets.cloudflare.base_url": (("targets", "cloudflare", 0, "base_url"), "https://evil.example"),
    "targets.cloudflare.zones": (("targets", "cloudflare", 0, "zones"), ["mana.how", "mana.example", "y.how"]),
    "targets.cloudflare.account": (("targets", "cloudflare", 0, "account"), "me"),
    "targets.cloudflare.zone_id": (
        ("targets", "cloudflare", 1),
        {"token": {"env": "CF_2"}, "zones": ["x.how"], "zone_id": "0" * 32},
    ),
    "targets.compose.file": (("targets", "compose", "file"), "../other.yml"),
    "targets.compose.env_file": (("targets", "compose", "env_file"), "../.env.other"),
    "targets.compose.directory": (("targets", "compose", "directory"), ".."),
    "targets.compose.project": (("targets", "compose", "project"), "other"),
    "policy.prune.dns": (("policy", "prune"), {"dns": "never"}),
    "policy.max_deletes": (("policy", "max_deletes"), 30),
    "policy.approval": (("policy", "approval"), "plan"),
    "daemon.interval": (("daemon", "interval"), "1h"),
    "daemon.check_passwords": (("daemon", "check_passwords"), "1d"),
    "daemon.notices": (("daemon", "notices"), [{"env": "NOTICE_1"}]),
    "daemon.plans": (("daemon", "plans"), True),
    "daemon.github.repository": (("daemon", "github", "repository"), "ada/other"),
    "daemon.github.token": (("daemon", "github", "token"), {"env": "OTHER"}),
    "router.address": (("router", "address"), "192.168.178.2:5000"),
    "router.forwards": (("router", "forwards"), [25]),
    "router.username": (("router", "username"), "reconciler"),
    "router.password": (("router", "password"), {"env": "OTHER"}),
    "router.to": (("router", "to"), "192.168.178.131"),
    "accounts.description": (("accounts", "till@mana.how", "description"), "Tilly"),
    "accounts.roles": (("accounts", "till@mana.how", "roles"), ["admin"]),
    "accounts.password": (("accounts", "till@mana.how", "password"), {"env": "OTHER"}),
    "accounts.aliases": (("accounts", "noreply@mana.how", "aliases"), []),
    "accounts.quota": (("accounts", "noreply@mana.how", "quota"), None),
    "accounts.groups": (("accounts", "till@mana.how", "groups"), []),
    "accounts.locked": (("accounts", "noreply@mana.how", "locked"), True),
    "accounts.locale": (("accounts", "noreply@mana.how", "locale"), "de_DE"),
    "accounts.enforce_password": (("accounts", "till@mana.how", "enforce_password"), False),
    "accounts.login": (("accounts", "till@mana.how", "login"), "tilly"),
    "groups.description": (("groups", "office@mana.how", "description"), "Office"),
    "groups.aliases": (("groups", "office@mana.how", "aliases"), ["hello@mana.how"]),
    "lists.description": (("lists", "news@mana.how", "description"), "News"),
    "lists.aliases": (("lists", "news@mana.how", "aliases"), ["letter@mana.how"]),
    "lists.members": (("lists", "news@mana.how", "members"), ["till@mana.how"]),
    "domains.description": (("domains", "mana.how", "description"), "Ours"),
    "domains.catch_all": (("domains", "mana.how", "catch_all"), None),
    "domains.aliases": (("domains", "mana.how", "aliases"), ["mana.example"]),
    "domains.sub_addressing": (("domains", "mana.how", "sub_addressing"), False),
    "dkim.selector": (("dkim", "mana.how", 1, "selector"), "third"),
    "dkim.algorithm": (("dkim", "mana.how", 1), {"selector": "two", "algorithm": "rsa", "private_key": {"env": "RSA"}}),
    "dkim.stage": (("dkim", "mana.how", 0, "stage"), "retiring"),
    "dkim.public_key": (("dkim", "mana.how", 1, "public_key"), ED25519),
    "dkim.private_key": (("dkim", "mana.how", 0, "private_key"), {"env": "OTHER"}),
    "dkim.since": (("dkim", "mana.how", 1, "since"), "2026-11-02"),
    "dns.type": (("dns", "mana.how", 7), {"type": "A", "name": "www", "content": "192.0.2.1", "proxied": True}),
    "dns.name": (("dns", "mana.how", 0, "name"), "post"),
    "dns.content": (("dns", "mana.how", 4, "content"), SPF),
    "dns.ttl": (("dns", "mana.how", 0, "ttl"), 300),
    "dns.proxied": (("dns", "mana.how", 7, "proxied"), False),
    "dns.priority": (("dns", "mana.how", 2, "priority"), 11),
    "dns.comment": (("dns", "mana.how", 3, "comment"), "another"),
    "dns.data": (("dns", "mana.how", 6, "data", "port"), 994),
    "stalwart.hostname": (("stalwart", "hostname"), "mx.mana.how"),
    "stalwart.default_domain": (("stalwart", "default_domain"), None),
    "stalwart.allowed_ips": (("stalwart", "allowed_ips", 0), "172.19.0.0/16"),
    "stalwart.allowed_ips.network": (("stalwart", "allowed_ips", 1), {"network": "web"}),
    "stalwart.auto_ban.scan": (("stalwart", "auto_ban", "scan"), "off"),
    "stalwart.auto_ban.auth": (("stalwart", "auto_ban", "auth"), "10/1d"),
    "stalwart.auto_ban.abuse": (("stalwart", "auto_ban", "abuse"), "10/1d"),
    "stalwart.auto_ban.loiter": (("stalwart", "auto_ban", "loiter"), "10/1d"),
    "stalwart.listeners.bind": (("stalwart", "listeners", "submission", "bind"), "[::]:588"),
    "stalwart.listeners.protocol": (("stalwart", "listeners", "submission", "protocol"), "lmtp"),
    "stalwart.listeners.tls_disable": (("stalwart", "listeners", "submission", "tls_disable"), ["TLSv1.2"]),
    "stalwart.listeners.proxy_networks": (("stalwart", "listeners", "submission", "proxy_networks"), ["10.0.0.0/8"]),
    "stalwart.listeners.max_connections": (("stalwart", "listeners", "submission", "max_connections"), 9),
    "stalwart.listeners.backlog": (("stalwart", "listeners", "submission", "backlog"), 9),
    **{
        f"stalwart.listeners.{word}": (("stalwart", "listeners", "submission", word), value)
        for word, value in {
            "tls_disable_ciphers": ["TLS13_AES_128_GCM_SHA256"],
            "tls_timeout": "30s",
            **dict.fromkeys(("tls_ignore_client_order", "no_delay", "reuse_address", "reuse_port"), False),
            **dict.fromkeys(("send_buffer", "receive_buffer"), "1 MiB"),
            **dict.fromkeys(("ttl", "tos"), 64),
        }.items()
    },
    "stalwart.listeners.tls": (("stalwart", "listeners", "submission", "tls"), "implicit"),
    "stalwart.settings": (("stalwart", "settings", "server.max-connections"), "10"),
    "stalwart.objects": (("stalwart", "objects", "Bootstrap", "singleton", "tracer"), {"@type": "Journal"}),
    "smtp.provider": (("smtp", "provider"), "spare"),
    "smtp.failover.to": (("smtp", "failover"), None),
    "smtp.failover.after": (("smtp", "failover", "after"), "20m"),
    "smtp.failover.back_after": (("smtp", "failover", "back_after"), "2h"),
    "smtp.providers.host": (("smtp", "providers", "own", "host"), "evil.example"),
    "smtp.providers.port": (("smtp", "providers", "own", "port"), 465),
    "smtp.providers.account": (("smtp", "providers", "own", "account"), "till@mana.how"),
    "smtp.providers.username": (("smtp", "providers", "spare", "username"), {"env": "SPARE_USER"}),
    "smtp.providers.password": (("smtp", "providers", "spare", "password"), {"env": "OTHER"}),
    "smtp.providers.verify_tls": (("smtp", "providers", "spare", "verify_tls"), False),
    "smtp.providers.tls": (("smtp", "providers", "spare", "tls"), "none"),
    "smtp.providers.sender": (("smtp", "providers", "spare", "from"), "news@mana.how"),
    "smtp.providers.values": (("smtp", "providers", "spare", "values"), {"region": "eu"}),
    "smtp.providers.preset": (("smtp", "providers", "spare", "preset"), "resend"),
    "smtp.providers.standby": (("smtp", "providers", "spare", "standby"), True),
    "smtp.providers.api_key": (("smtp", "providers", "brevo", "api_key"), {"env": "OTHER"}),
    "smtp.providers.dns": (("smtp", "providers", "spare", "dns", "mana.how", 0, "content"), "y"),
    "smtp.consumers.provider": (("smtp", "consumers", "auth", "provider"), None),
    "smtp.consumers.app": (("smtp", "consumers", "web", "app"), "grafana"),
    "smtp.consumers.secrets": (("smtp", "consumers", "web", "secrets"), {"smtp_password": "{password}"}),
    "smtp.consumers.env": (("smtp", "consumers", "web", "env", "SMTP_USER"), "x-{username}"),
    "smtp.links.value": (("smtp", "links", 0, "value"), {"env": "OTHER"}),
    "smtp.links.ends": (("smtp", "links", 1), ["web.A", "auth.B"]),
    "smtp.links.check.service": (("smtp", "links", 0, "check"), CHECK | {"service": "auth"}),
    "smtp.links.check.port": (("smtp", "links", 0, "check"), CHECK | {"port": 81}),
    "smtp.links.check.path": (("smtp", "links", 0, "check"), CHECK | {"path": "/other"}),
    "smtp.links.check.header": (("smtp", "links", 0, "check"), CHECK | {"header": "X-Other"}),
    "removed": (("removed",), ["account/gone@mana.how", "account/other@mana.how"]),
    "moved.source": (("moved", 0, "from"), "account/else@mana.how"),
    "moved.target": (("moved", 0, "to"), "account/noreply@mana.how"),
    "adopt": (("adopt",), []),
}


def words(model: type[Model] = Spec, before: str = "") -> Iterator[str]:
    """Yield the path of each word that the format has, by the models alone."""
    for name, field in model.model_fields.items():
        inner = list(dict.fromkeys(models(field.annotation)))
        for item in inner:
            yield from words(item, f"{before}{name}.")
        if not inner or name == "allowed_ips":
            yield f"{before}{name}"


def models(annotation: Any) -> Iterator[type[Model]]:
    if isinstance(annotation, type) and issubclass(annotation, Model):
        yield annotation
    for part in get_args(annotation):
        yield from models(part)


def test_every_word_of_the_format_has_a_row() -> None:
    known = {word for word in words() if word != "version" and not word.startswith("smtp.providers.dns.")}
    assert known | {"smtp.providers.dns"} == set(WORDS)


def changed(path: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    document = copy.deepcopy(DOCUMENT)
    if value is None:
        del at(document, *path[:-1])[path[-1]]
    else:
        at(document, *path[:-1])[path[-1]] = value
    return document


@pytest.mark.parametrize("word", WORDS)
def test_another_word_is_a_difference_there_and_back(place: Path, word: str) -> None:
    old, new = read(place, DOCUMENT), read(place, changed(*WORDS[word]), 7)
    forth, back = compare(old, new), compare(new, old)
    assert forth.differences, word
    assert back.differences, word
    for found in (forth, back):
        assert all(item.place and item.place.line for item in found.differences), found.differences
        assert not any(_same(item) for item in found.differences)


def _same(item: Difference) -> bool:
    return item.before == item.after and Action.DELETE not in item.actions


# ------------------------------------------------------------------ exactly the resources whose derived value differs
def derived(spec: Spec) -> dict[str, list[str]]:
    """Map each address to all that is derived there, with what no live thing is compared by."""
    found: dict[str, list[str]] = {}
    for item in desire(spec).resources:
        without = ("login", "clear") if item.kind == "smtp" else ()  # which no consumer is told
        values = [(field.name, getattr(item, field.name)) for field in fields(item) if field.name not in without]
        found.setdefault(item.address, []).append(repr(values))
    return {address: sorted(values) for address, values in found.items()}


def mentioned(found: Comparison) -> set[str]:
    names = [item.address for item in found.differences if item.resource is not None or item.kind == "dkim"]
    names += [item.former.address for item in found.differences if item.former is not None]
    return {str(Address.parse(name).place) for name in names}


def told(item: Difference) -> tuple[Any, ...]:
    return item.address, item.actions, item.reason, item.fields, item.notes, item.risks


@settings(max_examples=tries(60))
@given(chosen=st.sets(st.sampled_from(sorted(WORDS)), min_size=1, max_size=4), seed=st.integers(1, 10**6))
def test_exactly_the_resources_are_mentioned_whose_derived_value_differs(
    place: Path, chosen: set[str], seed: int
) -> None:
    document = copy.deepcopy(DOCUMENT)
    for word in sorted(chosen):
        path, value = WORDS[word]
        try:
            parent = at(document, *path[:-1])
            parent.pop(path[-1], None) if value is None else parent.__setitem__(path[-1], value)
        except (KeyError, TypeError):  # what another one has taken out
            continue
    old = read(place, DOCUMENT)
    try:
        new = read(place, document, seed)
    except InvalidDirectory:  # words that do not go together
        assume(False)
    before, after = derived(old.spec), derived(new.spec)
    differing = {address for address in before | after if before.get(address) != after.get(address)}
    comparison = compare(old, new)
    assert [told(item) for item in comparison.differences] == [
        told(item) for item in compare(read(place, DOCUMENT, seed + 1), read(place, document, seed + 2)).differences
    ]
    found = mentioned(comparison)
    assert {name for name in found if not name.startswith("dkim/")} == {
        it for it in differing if not it.startswith("dkim/")
    }
    assert {it for it in differing if it.startswith("dkim/")} <= found


# ----------------------------------------------------------------------------------------------- what a person is told
def difference(place: Path, *, old: dict[str, Any] = DOCUMENT, **new: Any) -> dict[str, Difference]:
    found = compare(read(place, old), read(place, {**old, **new}))
    return {item.address: item for item in found.differences}


def without(name: str, *path: str | int) -> dict[str, Any]:
    document = copy.deepcopy(DOCUMENT)
    del at(document, *path)[name]
    return document


def test_an_account_that_is_not_declared_any_more_stays_and_one_that_is_removed_goes(place: Path) -> None:
    less = without("old@mana.how", "accounts")
    left = difference(place, **less)["account/old@mana.how"]
    assert (left.actions, left.risks, left.of_base) == ((), (), True)
    assert left.notes == ("not declared any more: left as it is",)
    removed = ["account/gone@mana.how", "account/old@mana.how"]
    gone = difference(place, **less | {"removed": removed})["account/old@mana.how"]
    assert (gone.actions, gone.reason) == ((Action.DELETE,), Reason.REMOVED)
    assert set(gone.risks) == {Risk.DELETION, Risk.MAIL_FLOW}
    assert gone.former is not None
    [unknown] = difference(place, removed=["account/gone@mana.how", "account/else@mana.how"]).values()
    assert (unknown.address, unknown.actions) == ("account/else@mana.how", (Action.DELETE,))


def test_a_record_that_is_not_declared_any_more_goes_where_absence_may_remove_it(place: Path) -> None:
    less = copy.deepcopy(DOCUMENT)
    less["dns"]["mana.how"].pop(0)
    gone = difference(place, **less)["dns/mana.how/A/mail"]
    assert (gone.actions, gone.reason) == ((Action.DELETE,), Reason.NOT_IN_DESIRED)
    assert Risk.DELETION in gone.risks
    kept = difference(place, **less | {"policy": {"max_deletes": 3, "prune": {"dns": "never"}}})
    assert kept["dns/mana.how/A/mail"].actions == ()
    elsewhere = difference(place, dns={"mana.example": []})
    assert elsewhere["dns/mana.how"].notes == ("its records are left as they are",)
    assert elsewhere["dns/mana.how/A/mail"].actions == ()
    assert elsewhere["dns/mana.how/A/mail"].notes == ("its zone is not declared any more: left as it is",)


def test_a_target_that_is_taken_out_touches_nothing(place: Path) -> None:
    targets = {name: value for name, value in DOCUMENT["targets"].items() if name != "cloudflare"}
    found = difference(place, targets=targets)
    assert found["targets.cloudflare[{env: CF}]"].risks == (Risk.TARGET,)
    assert found["dns/mana.how/A/mail"].actions == ()


def test_a_change_of_type_and_a_rename_are_one_difference_each(place: Path) -> None:
    records = copy.deepcopy(DOCUMENT["dns"])
    records["mana.how"][7] = {"type": "A", "name": "www", "content": "192.0.2.1"}
    retyped = difference(place, dns=records)
    assert set(retyped) == {"dns/mana.how/A/www"}
    assert set(retyped["dns/mana.how/A/www"].actions) == {Action.DELETE, Action.CREATE}
    accounts = copy.deepcopy(DOCUMENT["accounts"])
    accounts["new@mana.how"] = accounts.pop("old@mana.how")
    moved = [*DOCUMENT["moved"], {"from": "account/old@mana.how", "to": "account/new@mana.how"}]
    renamed = difference(place, accounts=accounts, moved=moved)
    assert set(renamed) == {"account/new@mana.how"}
    assert renamed["account/new@mana.how"].actions == (Action.UPDATE,)
    assert renamed["account/new@mana.how"].notes == ("renamed from account/old@mana.how, and keeps its mailbox",)


def test_a_field_that_is_left_to_the_server_is_no_longer_managed(place: Path) -> None:
    [item] = difference(place, **changed(*WORDS["accounts.quota"])).values()
    assert item.fields == {"quota": (2**30, UNMANAGED)}


@pytest.mark.parametrize(
    ("word", "risk", "said"),
    [
        ("targets.stalwart.url", Risk.TARGET, "secrets go there"),
        ("targets.cloudflare.base_url", Risk.TARGET, "secrets go there"),
        ("targets.stalwart.allow_plain_http", Risk.TARGET, "in clear"),
        ("targets.compose.file", Risk.TARGET, ""),
        ("policy.max_deletes", Risk.POLICY, "looser"),
        ("daemon.plans", Risk.POLICY, "pull requests are planned"),
        ("router.address", Risk.HOST, "the router's login goes there"),
        ("stack", Risk.POLICY, "former mark"),
        ("smtp.provider", Risk.MAIL_FLOW, ""),
        ("smtp.providers.host", Risk.HOST, "the login goes elsewhere"),
        ("smtp.providers.verify_tls", Risk.HOST, "not checked any more"),
        ("dns.priority", Risk.MAIL_FLOW, ""),
    ],
)
def test_what_has_to_be_looked_at_stands_out(place: Path, word: str, risk: Risk, said: str) -> None:
    found = difference(place, **changed(*WORDS[word])).values()
    marked = [item for item in found if risk in item.risks]
    assert marked
    assert any(said in note for item in marked for note in (*item.notes, ""))


def test_a_policy_that_is_tighter_is_told_and_is_no_risk(place: Path) -> None:
    [item] = difference(place, policy={"max_deletes": 1, "prune": {"dns": "never"}}).values()
    assert item.fields == {"max_deletes": (3, 1), "prune.dns": ("owned", "never")}
    assert item.risks == item.notes == ()
    for tight in ({"prune": {"dns": "never"}}, {"approval": "plan"}):
        [looser] = difference(place, old=DOCUMENT | {"policy": tight}, policy={}).values()
        assert looser.risks == (Risk.POLICY,)


def test_what_is_said_anew_with_the_value_that_holds_anyway_is_no_difference(place: Path) -> None:
    said = {"max_deletes": 3, "prune": {"dns": "owned"}, "approval": "merge"}
    assert (
        difference(place, old=DOCUMENT | {"policy": {}}, policy=said, daemon=DOCUMENT["daemon"] | {"plans": False})
        == {}
    )


def test_against_nothing_everything_is_new(place: Path) -> None:
    head = read(place, DOCUMENT)
    found = compare(None, head)
    assert {item.address for item in found.differences} >= set(derived(head.spec)) - {
        "dns/mana.how/MX/@",
        "dns/mana.how/TXT/@",
    }
    assert all(item.before is None or item.kind in ("daemon", "smtp") for item in found.differences)
    assert found.unchanged == 0


def test_the_place_is_that_of_the_word_that_is_another(tmp_path: Path) -> None:
    old = "stack: x\ntargets: {cloudflare: {token: {env: T}}}\ndns:\n  x.how:\n"
    old += "    - type: A\n      name: a\n      content: 192.0.2.1\n"
    found = []
    for name, text in (("old", old), ("new", old.replace("192.0.2.1", "192.0.2.2").replace("env: T", "env: U"))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.yaml").write_text(text)
        found.append(load(tmp_path / name))
    comparison = compare(*found)
    places = {item.address: (item.place, item.of_base) for item in comparison.differences}
    assert {name: (str(at), of_base) for name, (at, of_base) in places.items()} == {
        "targets.cloudflare[{env: T}]": ("a.yaml:2:11", True),
        "targets.cloudflare[{env: U}]": ("a.yaml:2:11", False),
        "dns/x.how/A/a": ("a.yaml:7:16", False),
    }
    assert [(str(ref), str(at)) for ref, at in comparison.named] == [("{env: U}", "a.yaml:2:24")]


# ----------------------------------------------------------------------------------------- a base that is not valid
def test_of_an_invalid_directory_what_is_valid_by_itself_is_read(place: Path) -> None:
    document = copy.deepcopy(DOCUMENT)
    document["accounts"]["noreply@mana.how"]["quotas"] = "1"  # the provider and its consumers rely on it
    document["dns"]["mana.how"][1]["type"] = "NONSENSE"
    document["nonsense"] = 1
    place = place / "invalid"
    place.mkdir(exist_ok=True)
    with pytest.raises(InvalidDirectory) as raised:
        read(place, document)
    [path] = place.iterdir()
    directory, problems = salvage(path)
    assert problems == raised.value.problems
    assert directory is not None
    assert set(directory.spec.accounts) == set(DOCUMENT["accounts"]) - {"noreply@mana.how"}
    assert [item.name for item in directory.spec.dns["mana.how"]].count("home") == 0
    found = {item.address: item for item in compare(directory, read(place, DOCUMENT)).differences}
    assert found["account/noreply@mana.how"].actions == (Action.CREATE,)
    assert "account/till@mana.how" not in found
    assert "dns/mana.how/CNAME/www" not in found


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a: [",
        "- a\n",
        "stack: [x]\n",
        "accounts: {a@b.c: {password: x}}\n",
        "stack: x\naccounts: [\n",
        "\x00",
        "\ufeff",
    ],
)
def test_whatever_a_directory_holds_it_can_be_salvaged(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    (tmp_path / "b.yml").write_text("")
    directory, problems = salvage(tmp_path)
    assert problems
    if directory is not None:
        compare(directory, directory)
    assert salvage(tmp_path / "nowhere")[0] is None
