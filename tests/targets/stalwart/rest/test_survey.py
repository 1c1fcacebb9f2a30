"""What an import learns of a server up to 0.15, and that a plan finds nothing else."""

from dataclasses import replace

import pytest

from reconciler.problem import Refused, Severity, TargetUnreadable
from reconciler.resources import Account, Domain, Group, Listener, MailingList, Setting, Signature
from reconciler.simulator.stalwart.rest.server import StalwartRest as Fake
from reconciler.simulator.wire import Fault, Reply, Server
from reconciler.targets.stalwart.passwords import hashed

from ..imported import plan_after, resources, survey, told  # noqa: TID252 (shared with the other generation)

HASH = hashed("hashed secret")


@pytest.fixture
def filled(world):
    """A server that others have filled: domains, accounts, and so on."""
    world.make(type="domain", name="mana.how")
    world.make(type="domain", name="second.org")
    world.make(type="group", name="crew", emails=["crew@mana.how"])
    secrets = [HASH, "$app$phone$x", "otpauth://totp/x?secret=JBSWY3DPEHPK3PXP"]
    emails = ["noreply@mana.how", "z@mana.how", "a@second.org"]
    more = {"quota": 1 << 30, "memberOf": ["crew"], "description": 'Sends: # "all" of it'}
    world.make(type="individual", name="noreply", secrets=secrets, emails=emails, roles=["user"], **more)
    world.make(type="individual", name="pm", secrets=[HASH], emails=["postmaster@second.org"], roles=["user"])
    world.make(type="individual", name="boss", secrets=[HASH], roles=["admin"])
    return world


# --------------------------------------------------------------------------------------------------------- the round
def test_the_example_comes_back_as_it_was_applied(world, wanted, keys):
    world.apply(wanted)
    found = survey(world)
    plan, again = plan_after(world, found)
    assert (plan.changes, plan.problems, plan.unread) == ((), (), frozenset())
    fresh = {"stalwart/listeners/submission"}  # a new server has it, too
    assert {item.address for item in again} == {item.address for item in wanted} - fresh
    assert (found.settings, found.secrets, found.removed) == ({"queue.limiter.inbound.ip.rate": "50/1s"}, {}, ())
    assert set(found.private_keys) == {"dkim/mana.how/mana2026", "dkim/mana.how/rsa2026"}
    assert found.private_keys["dkim/mana.how/mana2026"].strip() == keys["ED"].strip()


def test_a_survey_asks_three_times_and_writes_nothing(filled):
    filled.server.forget()
    survey(filled)
    assert sum(filled.server.counts.values()) == 3  # one of them tells the generation
    assert filled.server.writes() == []


def test_an_empty_server_becomes_what_another_one_was(filled, keys):
    filled.store({f"signature.ed25519-mana.how.{part}": value for part, value in key(keys).items()})
    filled.store({"lookup.default.hostname": "mail.mana.how", "queue.route.relay.type": "relay"})
    filled.store({"queue.route.relay.auth.secret": "r3lay secret", "server.auto-ban.scan.rate": "false"})
    filled.call("POST", "/api/settings", [{"type": "delete", "keys": ["queue.quota.size.enable"]}])
    found = survey(filled)
    before = filled.call("GET", "/api/settings/list?limit=0")["data"]["items"]
    people = {item["name"]: item for item in filled.call("GET", "/api/principal?limit=0")["data"]["items"]}
    with Fake(environment={"STALWART_ADMIN_PASSWORD": filled.secrets["ADMIN"]}) as other, Server(other) as server:
        target = filled.connect(url=server.url)
        plan, _ = plan_after(filled, found, target)
        filled.server = server
        for change_set in (plan, plan_after(filled, found, target)[0]):
            list(target.apply(change_set.changes, filled.reveal))
        assert plan_after(filled, found, target)[0].changes == ()
        after = filled.call("GET", "/api/settings/list?limit=0")["data"]["items"]
        for name in ("noreply", "pm", "boss"):
            now = filled.principal(name)
            for part in ("emails", "roles", "quota", "description", "memberOf"):
                assert now.get(part) == people[name].get(part)
            assert now["secrets"] == HASH or now["secrets"] == [HASH]
    generated = ("oauth.key", "authentication.fallback-admin.secret")
    differing = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)} - {*generated}
    assert {name for name in differing if not name.startswith("signature.")} == set()
    assert after["signature.ed25519-mana.how.private-key"].strip() == keys["ED"].strip()


def key(keys, selector="s1", domain="mana.how"):
    values = {"algorithm": "ed25519-sha256", "domain": domain, "selector": selector, "private-key": keys["ED"]}
    return {**values, "canonicalization": "relaxed/relaxed", "report": "false"}


# ---------------------------------------------------------------------------------------------------------- accounts
def test_accounts_come_with_all_they_have(filled):
    found = survey(filled)
    accounts = resources(found, Account)
    assert accounts["account/noreply@mana.how"] == Account(
        "noreply@mana.how",
        "noreply",
        "noreply@mana.how",
        'Sends: # "all" of it',
        ("user",),
        ("a@second.org", "z@mana.how"),
        ("crew@mana.how",),
        1 << 30,
    )
    assert accounts["account/postmaster@second.org"].login == "pm"
    assert accounts["account/boss"].email is None
    assert set(resources(found, Domain)) == {"domain/mana.how", "domain/second.org"}
    assert found.hashes == dict.fromkeys(("noreply@mana.how", "postmaster@second.org", "boss"), HASH)
    assert plan_after(filled, found)[0].changes == ()


def test_what_of_accounts_can_t_be_declared_is_told(filled):
    said = "\n".join(told(survey(filled)))
    assert "account/noreply@mana.how: app passwords and one-time codes are not imported" in said


def test_a_password_in_clear_text_is_a_secret_that_no_plan_changes(filled):
    filled.make(type="individual", name="old", secrets=["cl3ar text"], emails=["old@mana.how"], roles=["user"])
    found = survey(filled)
    assert found.hashes["old@mana.how"] == "cl3ar text"
    assert resources(found, Account)["account/old@mana.how"].enforce_password is False
    assert plan_after(filled, found)[0].changes == ()
    assert "cl3ar text" not in repr(found) + "".join(told(found))


def test_an_account_without_roles_or_password_stays_so(filled):
    filled.make(type="individual", name="bare", emails=["bare@mana.how"])
    found = survey(filled)
    assert resources(found, Account)["account/bare@mana.how"].roles == ()
    assert "bare@mana.how" not in found.hashes
    assert any("account/bare@mana.how: has no password" in line for line in told(found))


def test_a_catch_all_is_the_domain_s_and_costs_no_alias(filled):
    emails = ["all@mana.how", "al@mana.how", "@mana.how", "x@gone.example"]
    filled.make(type="domain", name="gone.example")
    filled.make(type="individual", name="all", secrets=[HASH], emails=emails, roles=["user"])
    filled.call("DELETE", "/api/principal/gone.example")
    found = survey(filled)
    assert resources(found, Account)["account/all@mana.how"].aliases == ("al@mana.how",)
    assert resources(found, Domain)["domain/mana.how"].catch_all == "all@mana.how"
    assert any("all: has addresses in domains that the server does not have" in line for line in told(found))
    assert plan_after(filled, found)[0].changes == ()


def test_groups_and_lists_come_with_all_they_have(filled):
    more = {"members": ["noreply", "crew"], "externalMembers": ["B@GMail.com"], "description": "All news"}
    filled.make(type="list", name="news", emails=["news@mana.how", "neues@mana.how"], **more)
    found = survey(filled)
    assert resources(found, Group) == {"group/crew@mana.how": Group("crew@mana.how", None, ())}
    members = ("noreply@mana.how", "crew@mana.how", "b@gmail.com")
    news = MailingList("news@mana.how", "All news", ("neues@mana.how",), members)
    assert resources(found, MailingList) == {"list/news@mana.how": news}
    plan, _ = plan_after(filled, found)
    assert (plan.changes, {item.where for item in plan.problems}) == ((), {"group/crew@mana.how"}), "it gets no mail"


def test_a_group_without_an_address_is_told_and_accounts_stay_in_it(filled):
    filled.make(type="group", name="bare")
    filled.call("PATCH", "/api/principal/pm", [{"action": "addItem", "field": "memberOf", "value": "bare"}])
    found = survey(filled)
    assert any("group/bare: can't be declared: its name" in line for line in told(found))
    assert resources(found, Account)["account/postmaster@second.org"].groups == ("bare",)
    assert plan_after(filled, found)[0].changes == ()


@pytest.mark.parametrize("name", ["with space", "semi;colon", "sl/ash", "new\nline", "quo'te\"", "ünï", "[brackets]"])
def test_a_name_that_no_directory_can_hold_is_told_and_left_out(filled, name):
    filled.make(type="individual", name=name, secrets=[HASH], roles=["admin"])
    found = survey(filled)
    assert all("\n" not in line for line in told(found))
    assert len(resources(found, Account)) == 3
    assert any("can't be declared: its name" in line for line in told(found))
    assert plan_after(filled, found)[0].changes == ()


def test_a_local_part_beyond_ascii_is_written_as_it_is(filled):
    """RFC 6531: only a domain is written otherwise in DNS."""
    emails = ["jürgen@mana.how", "juergen@mana.how", "jörg@mana.how"]
    filled.make(type="individual", name="juergen", emails=emails, secrets=[HASH], roles=["user"])
    found = survey(filled)
    account = resources(found, Account)["account/jürgen@mana.how"]
    assert (account.login, account.aliases) == ("juergen", ("juergen@mana.how", "jörg@mana.how"))
    assert not any("jürgen" in line for line in told(found))
    assert plan_after(filled, found)[0].changes == ()


# -------------------------------------------------------------------------------------------------------- signatures
def test_a_key_that_does_not_sign_is_told_and_left_out(filled, keys):
    filled.store({f"signature.ed25519-mana.how.{part}": value for part, value in key(keys).items()})
    filled.store({f"signature.other.{part}": value for part, value in key(keys, "s2").items()})
    found = survey(filled)
    assert set(resources(found, Signature)) == {"dkim/mana.how/s1"} == set(found.private_keys)
    assert any("dkim/mana.how/s2: the server does not sign with it" in line for line in told(found))


def test_options_of_a_key_that_can_t_be_declared_are_told(filled, keys):
    more = {"headers.0": "From", "headers.9": "Cc", "expire": "10d"}
    filled.store({f"signature.ed25519-mana.how.{part}": value for part, value in (key(keys) | more).items()})
    assert any("its options expire, headers.9" in line for line in told(survey(filled)))


def test_with_a_rule_of_its_own_the_default_ids_are_imported(filled, keys):
    filled.store({f"signature.ed25519-mana.how.{part}": value for part, value in key(keys).items()})
    filled.store({"auth.dkim.sign": "['ed25519-mana.how']"})
    found = survey(filled)
    assert found.settings["auth.dkim.sign"] == "['ed25519-mana.how']"
    assert plan_after(filled, found)[0].changes == ()


def test_a_key_that_can_t_be_read_is_told_and_left_out(filled, keys):
    for value in ("%{file:/run/key.pem}%", "no key"):
        values = key(keys) | {"private-key": value}
        filled.store({f"signature.ed25519-mana.how.{part}": value for part, value in values.items()})
        found = survey(filled)
        assert (resources(found, Signature), found.private_keys) == ({}, {})
        assert all(item.severity is Severity.WARNING for item in found.omitted)


# ---------------------------------------------------------------------------------------------------------- settings
def test_a_fresh_server_s_settings_are_not_imported(filled):
    found = survey(filled)
    assert (found.settings, found.secrets, found.removed) == ({}, {}, ())
    assert resources(found, Setting) == {"stalwart/default_domain": Setting("default_domain", "mana.how")}
    assert resources(found, Listener) == {}


def test_what_the_server_makes_or_loads_by_itself_is_not_imported(filled):
    loaded = {"spam-filter.rule.STWT_X.enable": "true", "asn.type": "resource", "lookup.trusted-domains.x.org": ""}
    made = {"server.blocked-ip.192.0.2.1": "", "acme.le.account-key": "k3y", "acme.le.cert": "c3rt"}
    filled.store(loaded | made)
    found = survey(filled)
    assert (found.settings, found.secrets) == ({}, {})
    assert any("asn.type" in line and "downloads them again" in line for line in told(found))
    assert not any("acme" in line or "blocked-ip" in line for line in told(found))


def test_settings_that_somebody_changed_are_imported(filled):
    changed = {
        "queue.limiter.inbound.ip.rate": "50/1s",
        "queue.route.relay.address": "smtp.example.net",
        "spam-filter.pyzor.enable": "false",
        "tracer.log.level": "debug",
        "sieve.trusted.scripts.x.contents": 'require "fileinto";\nkeep;',
    }
    filled.store(changed)
    filled.call("POST", "/api/settings", [{"type": "delete", "keys": ["queue.quota.size.messages"]}])
    found = survey(filled)
    assert found.settings == changed | {"queue.quota.size.messages": None}
    assert plan_after(filled, found)[0].changes == ()


def test_secrets_among_settings_are_apart_and_never_shown(filled):
    secret = {
        "queue.route.relay.auth.secret": "hush1",
        "webhook.w.headers": "Authorization: Basic aHVzaDI=",
        "tracer.t.endpoint": "https://user:hush3@example.net/x",
        "sieve.trusted.scripts.key.contents": "-----BEGIN PRIVATE KEY-----\nhush4",
    }
    filled.store(secret)
    found = survey(filled)
    assert found.secrets == secret
    assert not any(word in repr(found) + "".join(told(found)) for word in ("hush", "aHVzaDI", HASH))
    assert plan_after(filled, found)[0].changes == ()


def test_a_macro_is_no_secret(filled):
    filled.store({"queue.route.relay.auth.secret": "%{env:RELAY}%"})
    found = survey(filled)
    assert (found.settings, found.secrets) == ({"queue.route.relay.auth.secret": "%{env:RELAY}%"}, {})


def test_what_can_t_stand_in_a_directory_is_told(filled):
    filled.store(
        {
            "store.s3.type": "s3",
            "certificate.x.cert": "%{file:/x}%",
            "server.security.analysis.scan-ban": "false",
            "server.listener.submission.tls.enable": "true",
            "server.hostname": "other.mana.how",
            "lookup.default.hostname": "mail.mana.how",
        }
    )
    found = survey(filled)
    assert found.settings == {}
    assert "stalwart/hostname" not in resources(found, Setting)
    said = "\n".join(told(found))
    for name in ("store.s3.type", "certificate.x.cert", "scan-ban", "server.hostname"):
        assert name in said
    assert plan_after(filled, found)[0].changes == ()


def test_listeners_that_differ_are_imported_and_those_that_are_gone_are_named(filled):
    filled.store({"server.listener.submission.bind": "127.0.0.1:2587", "server.listener.mine.bind": "[::]:2525"})
    filled.store({"server.listener.mine.protocol": "smtp"})
    gone = ["server.listener.pop3.bind", "server.listener.pop3.protocol"]
    filled.call("POST", "/api/settings", [{"type": "delete", "keys": gone}])
    found = survey(filled)
    assert set(resources(found, Listener)) == {"stalwart/listeners/submission", "stalwart/listeners/mine"}
    assert found.removed == ("stalwart/listeners/pop3",)
    assert plan_after(filled, found)[0].changes == ()


# ----------------------------------------------------------------------------------------------------------- refusals
def test_a_server_that_holds_nothing_is_refused(world):
    with pytest.raises(Refused, match="has no domain and no account"):
        survey(world)
    world.make(type="individual", name="boss", secrets=[HASH], roles=["admin"])
    with pytest.raises(Refused, match="has no domain and no account"):
        survey(world)


@pytest.mark.parametrize("path", ["/api/principal", "/api/settings/list"])
def test_a_listing_that_is_cut_short_is_refused(filled, path):
    answer = {"data": {"total": 500, "items": [] if "principal" in path else {}}}
    filled.server.faults.append(Fault("GET", path, times=9, reply=Reply.of(answer)))
    with pytest.raises(TargetUnreadable, match="lists 0 of 500"):
        survey(filled)


def test_a_wrong_password_is_sent_once(filled):
    filled.secrets["ADMIN"] = "wrong"
    filled.connect()
    filled.server.forget()
    with pytest.raises(TargetUnreadable, match="refuses the password"):
        survey(filled)
    assert sum(filled.server.counts.values()) == 2


def test_nothing_of_a_survey_shows_a_secret(filled, keys):
    filled.store({f"signature.ed25519-mana.how.{part}": value for part, value in key(keys).items()})
    found = survey(filled)
    text = repr(found) + str(found) + "".join(told(found))
    assert HASH not in text
    assert "PRIVATE KEY" not in text
    assert HASH in repr(replace(found, settings={"x": HASH})), "what is shown is seen"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("webhook.a.signature-key", "canary"),
        ("http.headers.0", "X-Api-Key: canary"),
        ("webhook.a.url", "https://u:canary@h.example"),
    ],
)
def test_a_secret_among_the_settings_is_kept_apart(filled, key, value):
    filled.store({key: value})
    found = survey(filled)
    assert found.secrets == {key: value}
    assert "canary" not in repr(found)


def test_t15_headers_and_urls_with_a_query_are_secrets(filled):
    secret = {
        "webhook.a.url": "https://h.example/x?apikey=canary",
        "webhook.a.headers.0": "X-Whatever: canary",
        "webhook.b.url": "https://hooks.example/services/T0A1B2C3D/a1B2c3D4e5F6g7H8canary",
    }
    filled.store(secret)
    found = survey(filled)
    assert found.secrets == secret
    assert "canary" not in repr(found) + "".join(told(found))
