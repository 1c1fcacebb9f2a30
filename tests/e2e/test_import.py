"""A live stack becomes a directory, is lost, and comes back from it; both generations."""

from __future__ import annotations

import json
import re
import shutil
from typing import Any

import pytest

from reconciler.simulator.stalwart.passwords import verify
from reconciler.simulator.stalwart.rest.directory import ADMIN_PERMISSIONS
from reconciler.simulator.wire import Reply

from . import jmapstage
from .stagefixtures import HASH, Stack, Watch

IMPORT = (
    *("import", "--stalwart", "http://localhost:8443", "--zone", "mana.how"),
    *("--compose", "docker-compose.macmini.yml", "--stack", "mana", "--out", "imported"),
)
NEW = ("--state", "imported", "--data", ".imported")
FORGOTTEN = ("NOREPLY_PASSWORD", "POSTMASTER_PASSWORD", "MANA_SERVICE_KEY", "BREVO_SMTP_KEY", "BREVO_API_KEY")
# What the server makes for itself: its key for tokens, whom it has banned; and what we noted there as due.
OWN = re.compile(r"oauth\.key|server\.blocked-ip|reconciler\.")
MADE = {"webPushKey", "encryptionKey", "signatureKey", "reason"}  # likewise in 0.16, and why an address is allowed
MAIL = [  # of other people's making, in the forms that a zone may hold
    {"type": "MX", "name": "lists", "content": "mx.lists.example", "priority": 0, "ttl": 3600},
    {"type": "TXT", "name": "_smtp._tls", "content": '"v=TLSRPTv1; rua=mailto:tls@mana.how"'},
    {"type": "TXT", "name": "*.news", "content": 'v=spf1 exists:"a b" \\ -all', "comment": "the newsletter: 100%"},
    {
        "type": "SRV",
        "name": "_imaps._tcp",
        "data": {"priority": 0, "weight": 1, "port": 993, "target": "mail.mana.how"},
    },
    {"type": "TLSA", "name": "_25._tcp.mail"}
    | {"data": {"usage": 3, "selector": 1, "matching_type": 1, "certificate": "ab" * 32}},
    {"type": "CNAME", "name": "brevo1._domainkey", "content": "b1.mana-how.dkim.brevo.com"},
    {"type": "TXT", "name": "@", "content": "brevo-code:1f2e3d"},
    {"type": "CNAME", "name": "autoconfig", "content": "mail.mana.how", "proxied": True},
    {"type": "TXT", "name": "long._domainkey", "content": "v=DKIM1; k=rsa; x=" + "0123456789" * 40},
    {"type": "TXT", "name": "_dmarc.xn--bcher-kva", "content": "v=DMARC1; p=reject"},
]


@pytest.fixture
def made_by_hand(applied: Stack) -> Stack:
    """The example as a person would have made it: without our marks and our block, and with mail of other people."""
    _without_words_of_their_own(applied)
    return _as_by_hand(applied)


@pytest.fixture
def newer_by_hand(newer_applied: Stack) -> Stack:
    found = [key for kind, key, item in jmapstage._objects(newer_applied.stage) if item.get("name") == "stranger"]
    groups = [key for kind, key, item in jmapstage._objects(newer_applied.stage) if item.get("name") == "crew"]
    [answer, other] = jmapstage.ask(
        newer_applied.stage, ("Account/set", {"destroy": found}), ("Account/set", {"destroy": groups})
    )
    assert "destroyed" in answer
    assert "destroyed" in other
    [domain] = [key for kind, key, item in jmapstage._objects(newer_applied.stage) if item.get("name") == "other.org"]
    jmapstage.ask(newer_applied.stage, ("Domain/set", {"update": {domain: {"description": None}}}))
    return _as_by_hand(newer_applied)


def _without_words_of_their_own(stack: Stack) -> None:
    directory = stack.rest.directory
    for name in ("crew", "robot", "friends", "stranger", "other.example"):
        directory.delete(directory.find(name))
    directory.create({"type": "domain", "name": "other.example"}, ADMIN_PERMISSIONS)
    body = {"type": "individual", "name": "guest", "emails": ["stranger@other.example"], "roles": ["user"]}
    directory.create({**body, "secrets": [HASH], "quota": 1234567}, ADMIN_PERMISSIONS)


def _as_by_hand(stack: Stack) -> Stack:
    cloud = stack.stage.cloudflare
    for item in [item for item in stack.records() if item["comment"] == "reconciler:mana"]:
        data = {name: item.get(name) for name in ("type", "name", "content", "ttl", "proxied", "priority", "data")}
        cloud.remove("mana.how", item["id"])
        cloud.add("mana.how", **{name: value for name, value in data.items() if value is not None})
    for item in MAIL:
        cloud.add("mana.how", **item)
    text = re.sub(r"(?m)^# (>>>|<<<) reconciler mana.*\n", "", stack.example.env_file.read_text())
    stack.example.env_file.write_text(text)
    shutil.rmtree(stack.example.state)
    shutil.copytree(stack.example.path / "secrets", stack.folder / "keys", dirs_exist_ok=True)
    shutil.rmtree(stack.example.path / "secrets")
    stack.tape.forget()
    stack.watch = Watch(stack)
    stack.watch.adopted = {item["id"] for item in stack.records()}
    return stack


# ------------------------------------------------------------------------------------------------------ there and back
def _imported(stack: Stack) -> dict[str, Any]:
    """Import, and see that nothing was changed, nothing is left to do, and nothing secret was shown."""
    before = stack.everything()
    done = stack.expect(0, *IMPORT, "--output", "json")
    assert (stack.writes(), stack.everything()) == ([], before)
    _nothing_secret(stack, done.text)
    plan = stack.expect(0, "plan", *NEW, "--detailed-exitcode", "--output", "json", drop=FORGOTTEN).json
    assert (plan["changes"], plan["complete"]) == ([], True)
    stack.expect(0, "apply", *NEW, "--yes", drop=FORGOTTEN)
    assert {line.split()[0] for line in stack.writes()} == {"cloudflare"}
    assert _zone(stack) == _zone_of(before), "only marks were set"
    return dict(done.json)


def _nothing_secret(stack: Stack, said: str) -> None:
    yaml = "".join(path.read_text() for path in (stack.example.path / "imported").iterdir())
    for name, value in stack.secrets.items():
        assert value not in said, name
        assert value not in yaml, name
    assert "PRIVATE KEY" not in yaml + said
    assert "$6$" not in yaml + said
    assert "$argon2" not in yaml + said
    for path in (stack.example.path / "secrets").iterdir():
        assert path.stat().st_mode & 0o077 == 0


def _zone(stack: Stack) -> list[str]:
    return _zone_of(stack.everything())


def _zone_of(everything: dict[str, Any]) -> list[str]:
    """Return what DNS answers of the zone: no marks, ids or times."""
    ours = ("type", "name", "content", "ttl", "proxied", "priority", "data")
    text = json.dumps(everything["cloudflare"])
    zones = json.loads(text)
    found = []

    def walk(item: Any) -> None:
        if isinstance(item, dict) and {"type", "name", "content"} <= item.keys():
            found.append(json.dumps({name: item.get(name) for name in ours}, sort_keys=True))
        elif isinstance(item, dict | list):
            for inner in item.values() if isinstance(item, dict) else item:
                walk(inner)

    walk(zones)
    assert found
    return sorted(found)


def _lose_everything(stack: Stack) -> None:
    """Lose the mail server's volumes and what the env file said of mail; the containers are made anew on that."""
    stack.watch.server_lost = True
    text = stack.example.env_file.read_text()
    stack.example.env_file.write_text(re.sub(r"(?m)^SMTP_.*\n", "", text))
    stack.stage.recreate_mail_server()
    if stack.generation == "jmap":
        stack.jmap.wipe_data()
    stack.stage.up("mana-notify")
    assert stack.container("mana-core-notify").environment["SMTP_PASSWORD"] == ""
    records, touched = stack.watch.adopted, {"mana-mail", "mana-core-notify"}
    stack.watch = Watch(stack)
    stack.watch.server_lost, stack.watch.adopted = True, records
    stack.watch.touched |= touched


def _listing(stack: Stack) -> dict[str, Any]:
    """Return a full listing of each system; of the env file what it means."""
    assert stack.stage.project is not None
    listing = stack.meaning() | {"env": dict(stack.stage.project.variables())}
    listing = {name: _unsalted(stack, value) for name, value in listing.items()}
    for name in ("settings", "running") if stack.generation == "rest" else ():
        listing[name] = {key: value for key, value in listing[name].items() if not OWN.match(key)}
    if stack.generation == "jmap":  # ids are chosen anew, and objects refer to each other by them
        listing["objects"] = sorted(_named(stack))
        listing["running"] = [sorted(re.findall(r"[\w./:]+", text)) for text in listing["running"]]
    return listing


def _unsalted(stack: Stack, value: Any) -> Any:
    """Put the name of a secret in the place of its hash, which a new server salts anew."""
    if isinstance(value, dict):
        return {key: _unsalted(stack, item) for key, item in value.items()}
    if isinstance(value, str) and value.startswith(("$6$", "$argon2id$")):
        return next((name for name, secret in stack.secrets.items() if verify(value, secret)), value)
    return value


def _named(stack: Stack) -> list[str]:
    """Return the store's objects with names in place of ids."""
    known = list(stack.secrets.items())
    items = list(jmapstage._objects(stack.stage))
    items = [entry for entry in items if entry[0] != "BlockedIp"]  # whom the server has banned
    names = {key: item["name"] for kind, key, item in items if kind in ("Domain", "MtaVirtualQueue")}
    found = []
    for kind, _, item in items:
        kept = json.loads(jmapstage._lasting(json.loads(json.dumps(item)), known))
        found.append(f"{kind} {json.dumps(_renamed(kept, names), sort_keys=True)}")
    return found


def _renamed(value: Any, names: dict[str, str], key: str = "") -> Any:
    if isinstance(value, dict):
        return {name: _renamed(item, names, name) for name, item in value.items() if name not in MADE}
    if isinstance(value, list):
        return [_renamed(item, names) for item in value]
    return names.get(value, value) if key in ("domainId", "defaultDomainId", "queueId") else value


def _same(found: dict[str, Any], before: dict[str, Any]) -> None:
    for name, value in before.items():
        if isinstance(value, dict):
            changed = {key for key in {*value, *found[name]} if value.get(key) != found[name].get(key)}
            assert {key: found[name].get(key) for key in changed} == {key: value.get(key) for key in changed}
        if isinstance(value, list):
            new = [item for item in found[name] if item not in value]
            assert (new, [item for item in value if item not in found[name]]) == ([], [])
        assert found[name] == value, name


def test_what_was_imported_brings_a_lost_stack_back_with_the_same_keys(made_by_hand: Stack) -> None:
    stack = made_by_hand
    said = _imported(stack)
    assert set(said["files"]) == {
        f"{name}.yaml" for name in ("accounts", "dkim", "dns", "reconciler", "smtp", "stalwart")
    }
    before, keys = _listing(stack), sorted(stack.rest.signing())
    _lose_everything(stack)
    stack.expect(0, "apply", *NEW, "--yes", drop=FORGOTTEN)
    _same(_listing(stack), before)
    assert sorted(stack.rest.signing()) == keys
    stack.expect(0, "plan", *NEW, "--detailed-exitcode", drop=FORGOTTEN)


def _give_what_was_asked_for(stack: Stack) -> None:
    """Do what the output of an import from 0.16 says: name where the other passwords are."""
    path = stack.example.path / "imported" / "accounts.yaml"
    text = path.read_text()
    hint = re.search(r"(?m)^  # (password: \{env: POSTMASTER_PASSWORD\})$", text)
    assert hint is not None
    path.write_text(text.replace("  postmaster@mana.how:\n", f"  postmaster@mana.how:\n    {hint[1]}\n"))


def test_a_newer_server_comes_back_with_new_keys(newer_by_hand: Stack) -> None:
    stack = newer_by_hand
    said = json.dumps(_imported(stack))
    assert "reconciler dkim rotate mana.how" in said
    assert "password: {env: POSTMASTER_PASSWORD}" in said
    _give_what_was_asked_for(stack)
    before, zone = _listing(stack), _zone(stack)
    _lose_everything(stack)
    done = stack.expect(6, "apply", *NEW, "--yes")
    assert done.out.count("~ dns/") == 2, "the new keys' records follow in the next run, and nothing else is left"
    assert _zone(stack) == zone
    stack.expect(0, "apply", *NEW, "--yes")
    stack.expect(0, "plan", *NEW, "--detailed-exitcode")
    after = _listing(stack)
    for name in ("objects", "records", "signing"):
        assert _without_keys(map(str, after.pop(name))) == _without_keys(map(str, before.pop(name))), name
    _same(after, before)


def _without_keys(texts: Any) -> list[str]:
    return sorted(text for text in texts if not re.search(r"2026|v1-", text))


def test_a_newer_server_whose_keys_are_at_hand_comes_back_with_them(newer_by_hand: Stack) -> None:
    stack = newer_by_hand
    _imported(stack)
    _give_what_was_asked_for(stack)
    path = stack.example.path / "imported" / "dkim.yaml"
    text = path.read_text()
    for selector in ("mana2026", "rsa2026"):
        shutil.copy(stack.folder / "keys" / f"{selector}.pem", stack.example.path / "secrets")
        text = re.sub(
            rf"(selector: {selector}\n      algorithm: \w+\n)",
            rf"\1      private_key: {{file: ../secrets/{selector}.pem}}\n",
            text,
        )
    path.write_text(text)
    stack.expect(0, "plan", *NEW, "--detailed-exitcode")
    before, keys = _listing(stack), jmapstage.public_keys(stack.stage)
    _lose_everything(stack)
    stack.expect(0, "apply", *NEW, "--yes")
    assert jmapstage.public_keys(stack.stage) == keys
    _same(_listing(stack), before)


# ----------------------------------------------------------------------------------------------------------- killed
KILL = """
import os, signal, sys
EVENTS = {{"os.mkdir", "os.rename", "os.link", "os.remove", "fcntl.flock", "os.rmdir"}}
left = {number}
def heard(event, arguments):
    global left
    writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
    if (event in EVENTS or writes) and {place!r} in os.path.realpath(str(arguments[0])) + str(arguments[-1]):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(heard)
"""


@pytest.mark.long
def test_killed_at_some_moment_it_leaves_no_half_directory(made_by_hand: Stack) -> None:
    stack = made_by_hand
    path, number = stack.example.path, 0
    stack.expect(0, *IMPORT)
    whole = _texts(path / "imported")
    while True:
        number += 6  # every one of them: tests/importing/test_directory.py
        for name in ("imported", "secrets"):
            shutil.rmtree(path / name, ignore_errors=True)
        done = stack.run(*IMPORT, bug=KILL.format(number=number, place=str(path)))
        assert done.code in (0, -9)
        if (path / "imported").exists():
            assert _texts(path / "imported") == whole
        if done.code == 0:
            break
    assert number > len(whole)
    assert stack.writes() == []
    assert not list(path.glob(".*import*"))


def _texts(path: Any) -> dict[str, str]:
    return {item.name: item.read_text() for item in path.iterdir()}


# ---------------------------------------------------------------------------------------------------------- refused
def test_a_wrong_password_is_no_empty_server(newer_by_hand: Stack) -> None:
    assert newer_by_hand.run(*IMPORT, STALWART_ADMIN_PASSWORD="another").code == 1
    assert newer_by_hand.writes() == []


@pytest.mark.parametrize("generation", ["rest", "jmap"])
def test_an_empty_server_is_refused(generation: str, request: pytest.FixtureRequest) -> None:
    stack: Stack = request.getfixturevalue({"rest": "made_by_hand", "jmap": "newer_by_hand"}[generation])
    stack.watch.server_lost = True
    stack.watch.touched |= {"mana-mail"}
    stack.stage.recreate_mail_server()
    if generation == "jmap":
        stack.jmap.wipe_data()
    stack.tape.forget()
    done = stack.run(*IMPORT)
    assert done.code == 4, done.text
    assert not (stack.example.path / "imported").exists()
    assert not (stack.example.path / "secrets").exists()
    assert stack.writes() == []


def test_what_cant_be_read_writes_nothing(made_by_hand: Stack) -> None:
    stack = made_by_hand
    stack.fault("cloudflare", path="/dns_records", reply=Reply(403), times=99)
    assert stack.run(*IMPORT).code == 1
    assert not (stack.example.path / "imported").exists()


def test_l10_one_value_that_can_not_be_said_costs_no_other(made_by_hand: Stack) -> None:
    """A key that is longer than YAML takes, a secret that no store takes, and text that would break or hide a line."""
    stack = made_by_hand
    hostile = (
        "x\r\n- {type: A}\n# \u202e::add-mask::x\u2066 ##[mask]y \x1b[2J '\" \\ #{a: b} !!python/object &a *b \u2028"
    )
    long = f"lookup.{'k' * 1100}.name"
    secret = f"lookup.{'s' * 300}.password"
    database = stack.rest.settings.database
    database |= {"lookup.big.password": "z" * 100_000, long: hostile, secret: "a-small-s3cret", "lookup.last.name": "x"}
    stack.principal("noreply").description = hostile
    done = stack.expect(0, *IMPORT)
    assert "lookup.big.password: left out: the secret is empty, over 64 KiB" in done.out
    written = {path.name: path.read_text() for path in (stack.example.path / "imported").iterdir()}
    assert all(char == "\n" or char.isprintable() for text in written.values() for char in text)
    plan = stack.expect(0, "plan", *NEW, "--detailed-exitcode", "--output", "json", drop=FORGOTTEN).json
    assert (plan["changes"], plan["complete"]) == ([], True)
    for key in (long, secret, "lookup.last.name"):
        del database[key]
    stack.principal("noreply").description = ""
    stack.expect(0, "apply", *NEW, "--yes", "--adopt", "account/noreply@mana.how", drop=FORGOTTEN)
    assert (database[long], database[secret], database["lookup.last.name"]) == (hostile, "a-small-s3cret", "x")
    assert stack.principal("noreply").description == hostile
    stack.watch.stalwart = stack.foreign()  # these settings are ours by now
