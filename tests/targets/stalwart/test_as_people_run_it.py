"""Stalwart as people really run it: rows W1 to W11 of the cases from the field, on both generations."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from targets.stalwart.conftest import NewWorld, World, ref

from reconciler.desired import objects
from reconciler.desired.load import load
from reconciler.keys import public_half
from reconciler.plan import Plan
from reconciler.problem import InvalidDirectory, Severity
from reconciler.resources import UNMANAGED, Account, Domain, Group, Listener, Setting, Signature
from reconciler.target import Status

ZONE = "mana.how"


def raw(name: str, entry: str, **values: Any) -> list[Setting]:
    found, wrong = objects.declared(name, entry, values)
    assert not wrong
    return [Setting(objects.word(name, entry, key), value) for key, value in found.items()]


def settled(world: World, *wanted: Any) -> None:
    """Apply, and see that it is done and stays done."""
    outcomes = world.apply(wanted)
    assert [item.problem for item in outcomes.values() if item.status is not Status.DONE] == []
    assert changes(world.plan(wanted)) == []


def changes(plan: Plan) -> list[str]:
    return [change.address for change in plan.changes]


# --------------------------------------------------------------------------------- W1: what the server makes of texts
@pytest.mark.parametrize(
    ("name", "entry", "values"),
    [
        ("SieveSystemScript", "archive", {"contents": "require [];\nkeep;\n", "isActive": True}),
        ("SieveSystemScript", " spaced name ", {"contents": "\tkeep;", "description": "  for the archive  "}),
        ("HttpForm", "singleton", {"fieldEmail": " email ", "defaultSubject": "Form\n"}),
        ("SpamTag", "my tag", {"@type": "Score", "score": 2.5}),
        ("SpamFileExtension", "JS ", {"isBad": True}),
    ],
)
def test_w1_texts_are_compared_as_the_server_stores_them(newer: NewWorld, name: str, entry: str, values: Any) -> None:
    settled(newer, Domain(ZONE), *raw(name, entry, **values))


def test_w1_another_text_is_a_change_all_the_same(newer: NewWorld) -> None:
    settled(newer, Domain(ZONE), *raw("SieveSystemScript", "archive", contents="keep;\n"))
    (script,) = newer.objects("SieveSystemScript")
    newer.update("SieveSystemScript", script["id"], contents="discard;")
    settled(newer, Domain(ZONE), *raw("SieveSystemScript", "archive", contents="keep;\n"))
    assert newer.objects("SieveSystemScript")[0]["contents"] == "keep;"


# ------------------------------------------------------------------------------------------- W2: in one apply, in order
def test_w2_a_role_and_who_has_it_come_in_one_apply(newer: NewWorld) -> None:
    role = raw("Role", "Help desk", enabledPermissions=["authenticate"])
    holder = Account(f"help@{ZONE}", email=f"help@{ZONE}", roles=("Help desk",), password=ref("NOREPLY"))
    settled(newer, Domain(ZONE), *role, holder)
    again = replace(holder, name=f"b@{ZONE}", email=f"b@{ZONE}", roles=("user", "Help desk"))
    settled(newer, Domain(ZONE), *role, holder, again)
    roles = {item["description"]: item["id"] for item in newer.objects("Role")}
    found = {item["name"]: item["roles"] for item in newer.objects("Account") if item["@type"] == "User"}
    assert found["help"] == {"@type": "Custom", "roleIds": {roles["Help desk"]: True}}


def test_w2_a_role_that_fails_takes_who_has_it_along_and_nobody_else(newer: NewWorld) -> None:
    role = raw("Role", "Help desk", roleIds=["nobody knows"])
    holder = Account(f"help@{ZONE}", email=f"help@{ZONE}", roles=("Help desk",), password=ref("NOREPLY"))
    other = replace(holder, name=f"b@{ZONE}", email=f"b@{ZONE}", roles=("user",))
    outcomes = newer.apply([Domain(ZONE), *role, holder, other])
    found = {address: item.status for address, item in outcomes.items()}
    assert found[f"account/b@{ZONE}"] is Status.DONE
    assert found[f"account/help@{ZONE}"] is not Status.DONE


# ------------------------------------------------------------------------------------------------ W7: listener options
LISTENER = Listener(
    "submission",
    ("[::]:587",),
    "smtp",
    open=UNMANAGED,
    tls=True,
    tls_disable=("TLSv1.2",),
    proxy_networks=("172.18.0.0/16", "10.0.0.1"),
    max_connections=100,
    backlog=64,
    tls_disable_ciphers=("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS13_CHACHA20_POLY1305_SHA256"),
    tls_ignore_client_order=False,
    tls_timeout=30,
    no_delay=False,
    reuse_address=False,
    reuse_port=False,
    send_buffer=1 << 20,
    receive_buffer=65536,
    ttl=64,
    tos=16,
)


def options_of(world: World) -> Listener:
    (found,) = (item.resource for item in world.observe().live if item.resource.address == LISTENER.address)
    return replace(found, open=UNMANAGED)


def set_listener(world: World, wanted: Listener) -> None:
    world.apply([wanted])
    left = world.plan([wanted]).changes
    assert all(change.restarts for change in left), left  # nobody restarts this server


@pytest.mark.parametrize("generation", ["rest", "jmap"])
def test_w7_options_of_a_listener_are_kept_and_put_back(world: World, newer: NewWorld, generation: str) -> None:
    server = world if generation == "rest" else newer
    if generation == "jmap":
        server.apply([Domain(ZONE)])
    set_listener(server, LISTENER)
    assert options_of(server) == LISTENER
    only = Listener("submission", ("[::]:587",), "smtp", open=UNMANAGED)
    assert server.plan([only]).changes == ()  # what is not declared is left alone
    usual = replace(only, **Listener.USUAL)
    set_listener(server, usual)
    assert options_of(server) == usual


@pytest.mark.parametrize("generation", ["rest", "jmap"])
def test_w7_somebody_elses_change_is_drift(world: World, newer: NewWorld, generation: str) -> None:
    server = world if generation == "rest" else newer
    if generation == "jmap":
        server.apply([Domain(ZONE)])
    set_listener(server, LISTENER)
    if generation == "rest":
        server.store({"server.listener.submission.proxy.trusted-networks.0001": "0.0.0.0/0"})
    else:
        (item,) = (it for it in newer.objects("NetworkListener") if it["name"] == "submission")
        newer.update("NetworkListener", item["id"], overrideProxyTrustedNetworks={"0.0.0.0/0": True})
    (change,) = server.plan([LISTENER]).changes
    assert "proxy_networks" in change.fields


TLS13 = "TLS13_AES_256_GCM_SHA384, TLS13_AES_128_GCM_SHA256, TLS13_CHACHA20_POLY1305_SHA256"


@pytest.mark.parametrize(
    ("options", "fits"),
    [
        ("tls_disable: [TLSv1.2, TLSv1.3]", False),
        (f"tls_disable: [TLSv1.2], tls_disable_ciphers: [{TLS13}]", False),
        (f"tls_disable: [TLSv1.3], tls_disable_ciphers: [{TLS13}]", True),
        (f"tls_disable_ciphers: [{TLS13}]", True),
        ("tls: none, tls_disable: [TLSv1.2, TLSv1.3]", True),
        ("tls_timeout: null, send_buffer: null", True),
    ],
)
def test_w7_a_listener_that_could_speak_nothing_is_refused(tmp_path: Path, options: str, fits: bool) -> None:
    listener = f"{{bind: '[::]:587', protocol: smtp, {options}}}"
    (tmp_path / "a.yaml").write_text(f"version: 1\nstack: t\nstalwart: {{listeners: {{x: {listener}}}}}\n")
    if fits:
        load(tmp_path)
        return
    with pytest.raises(InvalidDirectory) as caught:
        load(tmp_path)
    assert "leaves nothing of TLS" in str(caught.value)


def test_w11_a_permission_by_its_former_name_is_told(tmp_path: Path) -> None:
    role = "{Role: {No POP: {disabledPermissions: [pop3-retr]}}}"
    for text, fits in ((role, False), (role.replace("pop3-retr", "pop3Retr"), True)):
        (tmp_path / "a.yaml").write_text(f"version: 1\nstack: t\nstalwart: {{objects: {text}}}\n")
        if fits:
            load(tmp_path)
        else:
            with pytest.raises(InvalidDirectory, match="write pop3Retr"):
                load(tmp_path)


@pytest.mark.parametrize("locale", ["en-US", "zh-Hant-TW", "sr_RS@latin", "POSIX", "gez_ET"])
def test_w11_a_locale_is_what_either_generation_calls_one(tmp_path: Path, locale: str) -> None:
    (tmp_path / "a.yaml").write_text(f"version: 1\nstack: t\naccounts: {{ann@mana.how: {{locale: {locale}}}}}\n")
    load(tmp_path)


def test_w7_what_holds_for_all_listeners_holds_for_one_that_says_nothing_up_to_0_15(world: World) -> None:
    only = Listener("submission", ("[::]:587",), "smtp", open=UNMANAGED)
    set_listener(world, only)
    for_all = {"server.socket.backlog": "100", "server.max-connections": "10", "server.tls.timeout": "2m"}
    world.store({**for_all, "server.socket.nodelay": "false"})
    found = options_of(world)
    assert (found.backlog, found.max_connections, found.tls_timeout, found.no_delay) == (100, 10, 120, False)
    set_listener(world, replace(only, backlog=1024, max_connections=10))
    assert options_of(world).backlog == 1024


# -------------------------------------------------------------------------------- W11: locked, and in which language
@pytest.mark.parametrize("generation", ["rest", "jmap"])
def test_w11_an_account_is_locked_and_opened_and_keeps_what_else_it_may(
    world: World, newer: NewWorld, generation: str
) -> None:
    server = world if generation == "rest" else newer
    account = Account(f"ann@{ZONE}", "ann", f"ann@{ZONE}", None, ("user",), password=ref("NOREPLY"))
    wanted = replace(account, locked=True, locale="de_DE")
    settled(server, Domain(ZONE), wanted)
    who = "ann" if generation == "rest" else f"ann@{ZONE}"
    assert not logs_in(server, who)
    if generation == "rest":
        server.call("PATCH", "/api/principal/ann", [_permission("addItem", "pop3-retr")])
    else:
        (item,) = (it for it in newer.objects("Account") if it["name"] == "ann")
        newer.update("Account", item["id"], **{"permissions/disabledPermissions/pop3Retr": True})
    settled(server, Domain(ZONE), wanted)  # somebody else's is left alone
    settled(server, Domain(ZONE), replace(wanted, locked=False, locale=None))
    assert logs_in(server, who)
    assert settled_permissions(server, generation) == {"pop3-retr" if generation == "rest" else "pop3Retr"}


def _permission(action: str, name: str) -> dict[str, str]:
    return {"action": action, "field": "disabledPermissions", "value": name}


def settled_permissions(server: World, generation: str) -> set[str]:
    if generation == "rest":
        return set(server.principal("ann").get("disabledPermissions", ()))
    (item,) = (it for it in server.objects("Account") if it["name"] == "ann")
    return set(item["permissions"].get("disabledPermissions", ()))


def logs_in(server: World, name: str) -> bool:
    import httpx

    answer = httpx.get(f"{server.server.url}/jmap/session", auth=(name, server.secrets["NOREPLY"]))
    return answer.status_code == 200


@pytest.mark.parametrize("generation", ["rest", "jmap"])
def test_w11_what_is_locked_comes_back_locked(world: World, newer: NewWorld, generation: str) -> None:
    server = world if generation == "rest" else newer
    account = Account(f"ann@{ZONE}", "ann", f"ann@{ZONE}", None, ("user",), password=ref("NOREPLY"), locked=True)
    settled(server, Domain(ZONE), replace(account, name=f"ben@{ZONE}", login="ben", email=f"ben@{ZONE}", locked=False))
    assert not any("ermissions" in str(it) for it in server.target.survey(server.reveal).omitted)
    settled(server, Domain(ZONE), replace(account, locale="fr_FR"))
    found = server.target.survey(server.reveal)
    (ann,) = (item.resource for item in found.live if item.resource.address == account.address)
    assert (ann.locked, ann.locale) == (True, "fr_FR")
    assert not any("ermissions" in str(problem) or "locale" in str(problem) for problem in found.omitted)


@pytest.mark.parametrize("generation", ["rest", "jmap"])
def test_w11_what_an_account_may_by_name_is_told_with_the_way_to_say_it(
    world: World, newer: NewWorld, generation: str
) -> None:
    server = world if generation == "rest" else newer
    settled(server, Domain(ZONE), account("ann"))
    if generation == "rest":
        server.call("PATCH", "/api/principal/ann", [_permission("addItem", "pop3-retr")])
    else:
        (item,) = (it for it in newer.objects("Account") if it["name"] == "ann")
        limits = {"@type": "Merge", "enabledPermissions": {}, "disabledPermissions": {"pop3Retr": True}}
        newer.update("Account", item["id"], permissions=limits)
    (told,) = [str(it) for it in server.target.survey(server.reveal).omitted if "ermissions can't" in str(it)]
    assert "name it in the account's `roles`" in told


def test_w11_that_way_holds_from_0_16(newer: NewWorld) -> None:
    role = raw("Role", "No POP", disabledPermissions=["pop3Retr"])
    limited = account("ann", roles=("user", "No POP"))
    settled(newer, Domain(ZONE), *role, limited)
    assert logs_in(newer, f"ann@{ZONE}")
    settled(newer, Domain(ZONE), *role, replace(limited, roles=("user",)))


@pytest.mark.parametrize(
    ("word", "value", "way"),
    [
        ("permissions", "{disabled: [pop3Retr]}", "name it in the account's `roles`"),
        ("disabledPermissions", "[pop3-retr]", "name it in the account's `roles`"),
        ("forward_to", "me@elsewhere.example", "`lists: {ADDRESS: {members: [...]}}`"),
        ("disabled", "true", "`locked: true`"),
        ("enabled", "false", "`locked: true`"),
        ("language", "de", "`locale: de_DE`"),
    ],
)
def test_w11_what_people_write_leads_to_how_it_is_said(tmp_path: Path, word: str, value: str, way: str) -> None:
    (tmp_path / "a.yaml").write_text(f"version: 1\nstack: t\naccounts: {{ann@mana.how: {{{word}: {value}}}}}\n")
    with pytest.raises(InvalidDirectory) as caught:
        load(tmp_path)
    assert way in str(caught.value)


# ------------------------------------------------------------------------------- W5: somebody else keeps the accounts
@pytest.mark.parametrize("generation", ["rest", "jmap"])
def test_w5_accounts_of_an_external_directory_are_left_alone_and_all_else_is_kept(
    world: World, newer: NewWorld, generation: str
) -> None:
    server = world if generation == "rest" else newer
    settled(server, Domain(ZONE))
    if generation == "rest":
        world.store({"directory.corp.type": "ldap", "directory.corp.url": "ldap://l", "storage.directory": "corp"})
    else:
        key = newer.create("Directory", **{"@type": "Ldap", "description": "corp", "baseDn": "dc=corp"})
        newer.update("Authentication", "singleton", directoryId=key)
        newer.create("Action", **{"@type": "ReloadSettings"})
    accounts = [
        Account(f"{name}@{ZONE}", name, f"{name}@{ZONE}", None, ("user",), password=ref("NOREPLY"))
        for name in ("ann", "ben")
    ]
    wanted = [
        Domain(ZONE),
        Domain("b.example.org"),
        Group(f"staff@{ZONE}"),
        Setting("hostname", "mx.mana.how"),
        *accounts,
    ]
    tries = len(server.server.requests)
    observed = server.observe(wanted)
    (told,) = [str(item) for item in observed.problems if "corp" in str(item)]
    assert "(LDAP)" in told
    assert "2 accounts" in told
    assert not observed.lost
    assert not any(b"n0reply" in item.body for item in server.server.requests[tries:])
    settled(server, *wanted)
    assert {item.resource.address for item in server.observe(wanted).live} >= {
        "domain/b.example.org",
        f"group/staff@{ZONE}",
    }


@pytest.mark.parametrize("generation", ["rest", "jmap"])
def test_w5_a_server_that_has_only_such_accounts_is_not_taken_for_empty(
    world: World, newer: NewWorld, generation: str
) -> None:
    server = world if generation == "rest" else newer
    if generation == "rest":
        world.store({"directory.corp.type": "sql", "storage.directory": "corp"})
    else:
        newer.apply([Domain(ZONE)])
        key = newer.create("Directory", **{"@type": "Oidc", "description": "corp", "issuerUrl": "https://id.example"})
        newer.update("Authentication", "singleton", directoryId=key)
    observed = server.observe([Account(f"ann@{ZONE}", "ann", f"ann@{ZONE}", password=ref("NOREPLY"))])
    assert not observed.lost


# ------------------------------------------------------------------------------------- W3, W4, W9: told by the plan
def account(name: str, **more: Any) -> Account:
    made = Account(f"{name}@{ZONE}", name, f"{name}@{ZONE}", None, ("user",), password=ref("NOREPLY"))
    return replace(made, **more)


def told(server: World, *wanted: Any) -> list[tuple[str, str]]:
    """What the plan says of what is wanted; what it says it of is not planned."""
    plan = server.plan([Domain(ZONE), *wanted])
    blocked = {item.scope for item in plan.problems if item.scope}
    assert blocked.isdisjoint(changes(plan))
    return [(item.where, item.summary) for item in plan.problems if item.severity is not Severity.WARNING]


def test_w3_a_group_or_a_role_that_is_gone_is_told_before_anything_is_written(world: World) -> None:
    settled(world, Domain(ZONE))
    found = told(world, account("a", groups=("gone",)), account("b", roles=("nosuch",)))
    assert [where for where, _ in found] == [f"account/a@{ZONE}", f"account/b@{ZONE}"]
    assert ["no group gone" in found[0][1], "no role nosuch" in found[1][1]] == [True, True]


@pytest.mark.parametrize("name", ["helpdesk", "key1", "crew"])
def test_w4_a_login_that_a_role_a_key_or_a_group_has_is_told(world: World, name: str) -> None:
    settled(world, Domain(ZONE))
    world.make(type="role", name="helpdesk")
    world.make(type="apiKey", name="key1", secrets=["x"], roles=["admin"])
    world.make(type="group", name="crew", emails=[f"crew2@{ZONE}"])
    ((where, summary),) = told(world, account(name))
    assert where == f"account/{name}@{ZONE}"
    assert f"the login {name} is the name of" in summary
    settled(world, Domain(ZONE), account("free"))


@pytest.mark.parametrize("address", ["n3", "c3", "b3"])
def test_w4_an_address_of_a_disabled_alias_is_told(newer: NewWorld, address: str) -> None:
    settled(newer, Domain(ZONE))
    domain = newer.objects("Domain")[0]["id"]

    def aliases(name: str) -> dict[str, Any]:
        return {"0": {"name": name, "domainId": domain, "enabled": False}}

    newer.create("MailingList", name="news", domainId=domain, recipients={}, aliases=aliases("n3"))
    for kind, name, alias in (("Group", "crew", "c3"), ("User", "bob", "b3")):
        newer.create("Account", **{"@type": kind}, name=name, domainId=domain, aliases=aliases(alias))
    for wanted in (account(address), account("zed", aliases=(f"{address}@{ZONE}",)), Group(f"{address}@{ZONE}")):
        ((where, summary),) = told(newer, wanted)
        assert where == wanted.address
        assert f"{address}@{ZONE} is an alias of" in summary
    if address == "b3":  # whose it is may have it
        settled(newer, Domain(ZONE), replace(account("bob", aliases=(f"b3@{ZONE}",)), password=UNMANAGED))


def test_w9_a_secret_that_ends_in_a_line_break_stays_as_it_is(world: World) -> None:
    world.secrets["TOKEN"] = "sec ret\n"
    settled(world, Setting("settings/queue.route.relay.auth.secret", ref("TOKEN")))


# ------------------------------------------------------------------------------------------- W6: keys in config.toml
def elsewhere(world: World, keys: Any, tmp_path: Path, source: str) -> tuple[dict[str, str], Signature]:
    """Return a key's settings as people write them, with a macro of a file or a variable, and the key as declared."""
    (tmp_path / "key.pem").write_text(keys["ED"])
    world.fake.environment["DKIM_KEY"] = keys["ED"]
    macro = {"file": f"%{{file:{tmp_path / 'key.pem'}}}%", "env": "%{env:DKIM_KEY}%"}[source]
    block = {"private-key": macro, "domain": ZONE, "selector": "s1", "algorithm": "ed25519-sha256"}
    key = Signature(ZONE, "s1", "ed25519", public_half("ed25519", keys["ED"]))
    return {f"signature.ed25519-{ZONE}.{name}": value for name, value in block.items()}, key


@pytest.mark.parametrize("source", ["file", "env"])
def test_w6_a_key_that_config_toml_refers_to_is_read_as_the_server_shows_it(
    world: World, keys: Any, tmp_path: Path, source: str
) -> None:
    settled(world, Domain(ZONE))
    block, key = elsewhere(world, keys, tmp_path, source)
    world.fake.settings.file.update(block)
    plan = world.plan([Domain(ZONE), key])
    assert changes(plan) == []
    assert [problem.severity for problem in plan.problems] == [Severity.WARNING]  # where it stands was not seen
    (live,) = (it.resource for it in world.observe([key]).live if isinstance(it.resource, Signature))
    assert live == key
    found = world.target.survey(world.reveal)
    assert [it.resource for it in found.live if isinstance(it.resource, Signature)] == [key]
    assert found.private_keys == {}
    said = "\n".join(map(str, found.omitted))
    assert block[f"signature.ed25519-{ZONE}.private-key"] in said
    assert keys["ED"].splitlines()[1] not in said


def test_w6_another_key_than_the_declared_one_is_told(world: World, keys: Any, tmp_path: Path) -> None:
    settled(world, Domain(ZONE))
    block, key = elsewhere(world, keys, tmp_path, "file")
    world.fake.settings.file.update(block)
    other = replace(key, public_key=public_half("ed25519", keys["ED2"]))
    ((where, summary),) = told(world, other)
    assert where == key.address
    assert "the server does not hold the key of the declared public_key" in summary
    world.secrets["ED2"] = keys["ED2"]
    (change,) = world.plan([Domain(ZONE), replace(other, private_key=ref("ED2"))]).changes
    assert change.fields["public_key"] == (key.public_key, other.public_key)


def test_w6_a_key_that_the_server_does_not_show_is_left_alone_and_told_of(
    world: World, keys: Any, tmp_path: Path
) -> None:
    """An RSA key as PKCS#8 signs, and the server has no public half for it (observed.md)."""
    settled(world, Domain(ZONE))
    (tmp_path / "key.pem").write_text(keys["RSA"])
    block = {"private-key": f"%{{file:{tmp_path / 'key.pem'}}}%", "domain": ZONE, "selector": "s1"}
    block["algorithm"] = "rsa-sha256"
    world.fake.settings.file.update({f"signature.rsa-{ZONE}.{name}": value for name, value in block.items()})
    plan = world.plan([Domain(ZONE), Signature(ZONE, "s1", "rsa", public_half("rsa", keys["RSA"]))])
    assert changes(plan) == []
    (problem,) = plan.problems
    assert "config.toml" in problem.summary
    said = "\n".join(map(str, world.target.survey(world.reveal).omitted))
    assert "its key can't be read" in said
    assert "must be text" not in said


# --------------------------------------------------------------------------------------------------------- W10: TOTP
def test_w10_where_the_administrator_has_a_one_time_code_the_recovery_administrator_gets_in(newer: NewWorld) -> None:
    admin = Account("admin", UNMANAGED, f"admin@{ZONE}", None, ("admin",), password=ref("ADMIN"))
    wanted = [Domain(ZONE), Setting("hostname", "mx.mana.how"), Setting("default_domain", ZONE), admin]
    settled(newer, *wanted)
    (item,) = (it for it in newer.objects("Account") if it["name"] == "admin")
    (place,) = (key for key, it in item["credentials"].items() if it["@type"] == "Password")
    otp = "otpauth://totp/x?secret=JBSWY3DPEHPK3PXP&algorithm=SHA1&digits=6&period=30"
    newer.update("Account", item["id"], **{f"credentials/{place}/otpAuth": otp})
    newer.connect()
    settled(newer, *wanted, account("new"))
    newer.connect(recovery=None)
    (problem,) = newer.observe(wanted).problems
    assert "one-time code" in problem.summary
    assert "`recovery`" in problem.hint


# ------------------------------------------------------------------------------------ W8: what a domain is besides
def test_w8_aliases_sub_addressing_and_the_catch_all_of_a_domain_come_back_after_a_loss(newer: NewWorld) -> None:
    domain = Domain(ZONE, None, "Ours", f"ann@{ZONE}", ("mana.example.org",), sub_addressing=False)
    domain = replace(domain, manual=UNMANAGED)
    settled(newer, domain, account("ann"))
    found = newer.target.survey(newer.reveal)
    (imported,) = (item.resource for item in found.live if isinstance(item.resource, Domain))
    assert replace(imported, manual=UNMANAGED) == domain
    assert not any("alias" in str(problem) or "subAddressing" in str(problem) for problem in found.omitted)


def test_w8_a_catch_all_comes_back_up_to_0_15(world: World) -> None:
    domain = Domain(ZONE, catch_all=f"ann@{ZONE}")
    settled(world, domain, account("ann"))
    (imported,) = (it.resource for it in world.target.survey(world.reveal).live if isinstance(it.resource, Domain))
    assert imported.catch_all == f"ann@{ZONE}"


# ------------------------------------------------------------------------------------------ W9: addresses of no one
@pytest.mark.parametrize("alias", ["*@mana.how", "@mana.how", "**@mana.how", "a*b@mana.how"])
def test_w9_an_alias_that_is_no_address_is_refused_with_the_word_for_it(tmp_path: Any, alias: str) -> None:
    (tmp_path / "a.yaml").write_text(f"version: 1\nstack: t\naccounts: {{ann@mana.how: {{aliases: ['{alias}']}}}}\n")
    with pytest.raises(InvalidDirectory) as caught:
        load(tmp_path)
    assert "catch_all" in str(caught.value)
