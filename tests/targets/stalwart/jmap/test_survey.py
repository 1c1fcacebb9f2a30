"""What an import learns of a server from 0.16, and that a plan finds nothing else."""

import re
from dataclasses import replace

import pytest

from reconciler.problem import Refused, Severity, TargetUnreadable
from reconciler.resources import UNMANAGED, Account, AllowedIp, Domain, Group, Listener, MailingList, Setting, Signature
from reconciler.secrecy import Withheld
from reconciler.simulator.stalwart.jmap.server import StalwartJmap as Fake
from reconciler.simulator.wire import Fault, Server
from reconciler.targets.stalwart.passwords import hashed

from ..imported import plan_after as planned  # noqa: TID252 (shared with the other generation)
from ..imported import resources, survey, told  # noqa: TID252

HASH = hashed("hashed secret")
MANUAL = {"@type": "Manual"}
MANAGED = ("dkimManagement", "dnsManagement", "certificateManagement")


def plan_after(world, found, target=None):
    return planned(world, found, target)[0]


@pytest.fixture
def filled(newer):
    """A server that others have filled: two domains, and accounts."""
    domain = newer.create("Domain", name="mana.how", **dict.fromkeys(MANAGED, MANUAL))
    newer.create("Domain", name="second.org", **dict.fromkeys(MANAGED, MANUAL))
    newer.update("SystemSettings", "singleton", defaultHostname="mail.mana.how", defaultDomainId=domain)
    group = newer.create("Account", **{"@type": "Group"}, name="crew", domainId=domain)
    secret = {"0": {"@type": "Password", "secret": HASH}}
    newer.create(
        "Account",
        **{"@type": "User"},
        name="noreply",
        domainId=domain,
        credentials=secret,
        memberGroupIds={group: True},
        roles={"@type": "User"},
        quotas={"maxDiskQuota": 1 << 30},
        description='Sends: # "all" of it',
        aliases={"0": {"name": "z", "domainId": domain}, "1": {"name": "off", "domainId": domain, "enabled": False}},
    )
    boss = {"name": "boss", "domainId": domain, "credentials": secret, "roles": {"@type": "Admin"}}
    newer.create("Account", **{"@type": "User"}, **boss)
    newer.domain = domain
    return newer


def sign(world, keys, selector="s1", name="ED", **more):
    private = {"@type": "Text", "secret": keys[name]}
    body = {"@type": "Dkim1Ed25519Sha256", "domainId": world.domain, "selector": selector, "privateKey": private}
    return world.create("DkimSignature", **(body | more))


# --------------------------------------------------------------------------------------------------------- the round
def test_the_example_comes_back_as_it_was_applied(newer, newly_wanted):
    newer.apply(newly_wanted)
    found = survey(newer)
    plan = plan_after(newer, found)
    assert (plan.pending, plan.errors, plan.unread) == ((), (), frozenset())
    names = {item.address.replace("account/admin", "account/admin@mana.how") for item in newly_wanted}
    known = {item.resource.address for item in found.live}
    raw = {name for name in names if name.startswith(("stalwart/objects", "stalwart/settings"))}
    assert known == names - raw
    assert (found.hashes, found.private_keys, found.removed) == ({}, {}, ())


def test_an_empty_server_becomes_what_another_one_was(filled, keys):
    filled.update("Http", "singleton", useXForwarded=True)
    route = {"match": {"0": {"if": "is_local_domain(rcpt_domain)", "then": "'local'"}}, "else": "'relay'"}
    filled.update("MtaOutboundStrategy", "singleton", route=route)
    relay = {"@type": "Relay", "name": "relay", "address": "smtp.example.net", "port": 587}
    filled.create("MtaRoute", **relay, authUsername="u", authSecret={"@type": "File", "filePath": "/run/relay"})
    found = survey(filled)
    options = {"environment": {"STALWART_RECOVERY_ADMIN": filled.secrets["RECOVERY"]}, "configured": True}
    before = {kind: filled.objects(kind) for kind in ("Http", "MtaOutboundStrategy", "MtaRoute")}
    with Fake(**options) as other, Server(other) as server:
        target = filled.connect(url=server.url)
        filled.server = server
        list(target.apply(plan_after(filled, found, target).changes, filled.reveal))
        assert plan_after(filled, found, target).pending == ()
        for kind, items in before.items():
            without = [{name: value for name, value in item.items() if name != "id"} for item in filled.objects(kind)]
            for item in items:
                assert {name: value for name, value in item.items() if name != "id"} in without
        again = survey(filled)
    assert {it.resource.address for it in again.live} == {it.resource.address for it in found.live}
    assert again.objects == found.objects


def test_everything_is_read_in_as_few_requests_as_the_limits_allow(filled):
    filled.requests()
    filled.server.forget()
    survey(filled)
    assert len(filled.requests()) <= 9
    assert filled.server.writes() == [] or all(item.path == "/jmap" for item in filled.server.writes())


# ---------------------------------------------------------------------------------------------------------- accounts
def test_accounts_come_with_all_they_have_but_passwords(filled):
    found = survey(filled)
    accounts = resources(found, Account)
    noreply = accounts["account/noreply@mana.how"]
    assert (noreply.description, noreply.roles) == ('Sends: # "all" of it', ("user",))
    assert (noreply.aliases, noreply.groups, noreply.quota) == (("z@mana.how",), ("crew@mana.how",), 1 << 30)
    assert accounts["account/boss@mana.how"].roles == ("admin",)
    assert set(resources(found, Domain)) == {"domain/mana.how", "domain/second.org"}
    assert resources(found, Setting)["stalwart/default_domain"].value == "mana.how"
    said = "\n".join(told(found))
    assert "aliases that are disabled" in said
    assert plan_after(filled, found).pending == ()


def test_domains_groups_and_lists_come_with_all_they_have(filled):
    said = {"catchAllAddress": "Boss@mana.how", "subAddressing": {"@type": "Disabled"}, "description": "Ours"}
    filled.update("Domain", filled.domain, aliases={"Mana.DEV": True}, **said)
    (crew,) = (item["id"] for item in filled.objects("Account") if item["name"] == "crew")
    filled.update("Account", crew, description="All", aliases={"0": {"name": "team", "domainId": filled.domain}})
    recipients = {"A@Gmail.com": True, "boss@mana.how": True}
    filled.create("MailingList", name="news", domainId=filled.domain, description="News", recipients=recipients)
    found = survey(filled)
    domain = resources(found, Domain)["domain/mana.how"]
    assert (domain.description, domain.catch_all) == ("Ours", "boss@mana.how")
    assert (domain.aliases, domain.sub_addressing) == (("mana.dev",), False)
    assert resources(found, Group)["group/crew@mana.how"] == Group("crew@mana.how", "All", ("team@mana.how",))
    news = resources(found, MailingList)["list/news@mana.how"]
    assert news == MailingList("news@mana.how", "News", (), ("a@gmail.com", "boss@mana.how"))
    assert plan_after(filled, found).pending == ()


def test_what_can_t_be_said_of_them_costs_nothing_else(filled):
    rule = {"@type": "Custom", "customRule": {"match": {}, "else": "rcpt"}}
    filled.update("Domain", filled.domain, subAddressing=rule, aliases={"bad..x": True}, description="Ours")
    recipients = {"nomail": True, "boss@mana.how": True}
    filled.create("MailingList", name="news", domainId=filled.domain, recipients=recipients)
    filled.create("MailingList", name="odd", domainId=filled.domain, recipients={"a b@mana.how": True})
    (crew,) = (item["id"] for item in filled.objects("Account") if item["name"] == "crew")
    filled.update("Account", crew, **{"quotas/maxDiskQuota": 5})
    found = survey(filled)
    domain = resources(found, Domain)["domain/mana.how"]
    assert (domain.description, domain.aliases, domain.sub_addressing) == ("Ours", UNMANAGED, UNMANAGED)
    lists = resources(found, MailingList)
    assert lists["list/news@mana.how"].members == ("boss@mana.how",)
    assert lists["list/odd@mana.how"].members is UNMANAGED
    said = "\n".join(told(found))
    assert "mana.how: its subAddressing is a rule" in said
    assert "domain/mana.how: its aliases can't be declared" in said
    assert "news@mana.how: recipients that are no addresses" in said
    assert "list/odd@mana.how: its members can't be declared" in said
    assert "crew@mana.how: its quotas can't be declared" in said
    assert plan_after(filled, found).pending == ()


# -------------------------------------------------------------------------------------------------------- signatures
def test_keys_that_sign_are_imported_and_others_told(filled, keys):
    sign(filled, keys)
    sign(filled, keys, "s2", "ED2", stage="retiring")
    found = survey(filled)
    assert set(resources(found, Signature)) == {"dkim/mana.how/s1"}
    assert any("dkim/mana.how/s2: the server does not sign with it" in line for line in told(found))
    assert plan_after(filled, found).pending == ()


def test_keys_that_the_server_made_and_does_not_replace_are_imported(filled, keys):
    sign(filled, keys)
    filled.update("Domain", filled.domain, dkimManagement={"@type": "Automatic"})
    found = survey(filled)
    assert set(resources(found, Signature)) == {"dkim/mana.how/s1"}
    plan = plan_after(filled, found)
    assert (plan.pending, plan.errors) == ((), ())


def test_keys_that_the_server_replaces_by_itself_are_told(filled, keys):
    sign(filled, keys)
    server = filled.create(
        "DnsServer", description="dns", **{"@type": "Cloudflare", "secret": {"@type": "Value", "secret": "t" * 40}}
    )
    filled.update("Domain", filled.domain, dnsManagement={"@type": "Automatic", "dnsServerId": server})
    found = survey(filled)
    assert resources(found, Signature) == {}
    assert resources(found, Domain)["domain/mana.how"].manual is False
    said = "\n".join(told(found))
    assert "dkim/mana.how/s1" in said
    assert "adopt: [domain/mana.how]" in said


# ------------------------------------------------------------------------------------------------- words and objects
def test_a_fresh_server_s_objects_are_not_imported(filled):
    found = survey(filled)
    assert (found.objects, found.settings, found.removed) == ({}, {}, ())
    assert set(resources(found, Setting)) == {"stalwart/hostname", "stalwart/default_domain"}
    assert resources(found, Listener) == {}
    assert not any("is not there" in line for line in told(found))


def test_words_are_imported(filled):
    filled.update("Security", "singleton", scanBanRate=None, authBanRate={"count": 7, "period": 3600000})
    filled.create("AllowedIp", address="172.18.0.1/16")
    filled.create("NetworkListener", name="submission", bind={"[::]:587": True}, protocol="smtp")
    (pop3,) = (item["id"] for item in filled.objects("NetworkListener") if item["name"] == "pop3s")
    filled.call("NetworkListener/set", destroy=[pop3])
    filled.call("Action/set", create={"r": {"@type": "ReloadSettings"}})
    found = survey(filled)
    words = {name: item.value for name, item in resources(found, Setting).items()}
    assert words["stalwart/auto_ban/scan"] == "off"
    assert words["stalwart/auto_ban/auth"] == "7/1h"
    assert set(resources(found, AllowedIp)) == {"stalwart/allowed_ips/172.18.0.0/16"}
    assert set(resources(found, Listener)) == {"stalwart/listeners/submission"}
    assert found.removed == ("stalwart/listeners/pop3s",)
    assert found.objects == {}
    assert plan_after(filled, found).pending == ()


def test_objects_that_somebody_changed_or_made_are_imported(filled):
    filled.update("Http", "singleton", useXForwarded=True)
    filled.update("SpamPyzor", "singleton", enable=False)
    (throttle,) = (it["id"] for it in filled.objects("MtaInboundThrottle") if it["description"] == "Sender IP throttle")
    filled.update("MtaInboundThrottle", throttle, rate={"count": 50, "period": 1000})
    filled.create("Role", description="sender", enabledPermissions={"authenticate": True, "emailSend": True})
    found = survey(filled)
    assert found.objects == {
        "Http": {"singleton": {"useXForwarded": True}},
        "SpamPyzor": {"singleton": {"enable": False}},
        "MtaInboundThrottle": {"Sender IP throttle": {"rate": {"count": 50, "period": 1000}}},
        "Role": {"sender": {"enabledPermissions": ["authenticate", "emailSend"]}},
    }
    assert plan_after(filled, found).pending == ()


def test_a_secret_inside_an_object_is_told_and_left_out(filled):
    relay = {"@type": "Relay", "name": "relay", "address": "smtp.example.net", "port": 587, "authUsername": "u"}
    filled.create("MtaRoute", **relay, authSecret={"@type": "Value", "secret": "hush"})
    found = survey(filled)
    assert found.objects["MtaRoute"]["relay"]["@type"] == "Relay"
    assert "authSecret" not in found.objects["MtaRoute"]["relay"]
    assert any("MtaRoute relay authSecret: holds a secret" in line for line in told(found))
    assert "****" not in repr(found)
    assert plan_after(filled, found).pending == ()


def test_what_is_gone_or_there_twice_is_told(filled):
    ids = {item["description"]: item["id"] for item in filled.objects("MtaInboundThrottle")}
    filled.call("MtaInboundThrottle/set", destroy=[ids["Sender IP throttle"]])
    for _ in range(2):
        filled.create("Role", description="twin", enabledPermissions={"authenticate": True})
    found = survey(filled)
    assert found.objects == {}
    said = "\n".join(told(found))
    assert "MtaInboundThrottle Sender IP throttle: is not there, and a new server makes it" in said
    assert "Role twin: is there several times" in said


@pytest.mark.parametrize("name", ["a/b", "with space: #", "quo'te\"", "[x]", "ünï", "{{x}}"])
def test_an_object_may_have_any_name(filled, name):
    filled.create("MtaInboundThrottle", description=name, key={"remoteIp": True}, rate={"count": 5, "period": 1000})
    found = survey(filled)
    assert name in found.objects["MtaInboundThrottle"]
    assert plan_after(filled, found).pending == ()


def test_all_that_is_left_out_is_a_warning_in_one_line(filled):
    role = {"description": "line\nbreak", "enabledPermissions": {"authenticate": True}}
    filled.create("Role", **role)
    filled.create("Role", **role)
    found = survey(filled)
    assert found.omitted
    assert all(item.severity is Severity.WARNING and "\n" not in str(item) for item in found.omitted)


# ----------------------------------------------------------------------------------------------------------- refusals
def test_a_server_that_holds_nothing_is_refused(newer):
    with pytest.raises(Refused, match="has no domain and no account"):
        survey(newer)


def test_a_server_in_recovery_mode_is_refused(filled):
    filled.fake.environment["STALWART_RECOVERY_MODE"] = "1"
    filled.fake.restart()
    with pytest.raises(Refused, match="bootstrap or recovery mode"):
        survey(filled)


def test_a_server_in_bootstrap_mode_is_refused_and_asked_nothing(filled):
    filled.fake.lose_config()
    filled.server.forget()
    with pytest.raises(Refused, match="bootstrap or recovery mode"):
        survey(filled)
    assert sum(filled.server.counts.values()) == 1


def test_a_listing_that_is_cut_short_is_refused(filled):
    def short(reply):
        return replace(reply, body=re.sub(rb'"total": ?\d+', b'"total": 300', reply.body))

    filled.server.faults.append(Fault("POST", "/jmap", times=99, change=short))
    with pytest.raises(TargetUnreadable, match=r"lists \d+ of 300 "):
        survey(filled)


def test_what_looks_like_a_secret_in_the_servers_own_objects_is_withheld_and_never_shown(filled):
    filled.update("Http", "singleton", useXForwarded=True, responseHeaders={"X-Auth": "Bearer canary-1"})
    route = {"@type": "Relay", "address": "smtp.example.net", "port": 587, "protocol": "smtp"}
    filled.create("MtaRoute", **route, name="https://user:canary-2@h.example/x")
    found = survey(filled)
    assert "canary" not in repr(found)
    headers = found.objects["Http"]["singleton"]["responseHeaders"]
    assert {name: (type(item), item.value) for name, item in headers.items()} == {
        "X-Auth": (Withheld, "Bearer canary-1")
    }
    said = "\n".join(told(found))
    assert "MtaRoute: is known by a name or URL that holds a secret" in said
