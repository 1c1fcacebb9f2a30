"""Rules and traps of the fake Stalwart 0.16 that the recordings don't show."""

import base64
import json
import smtplib
import socket
import ssl

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from passlib.hash import sha512_crypt
from simulator.stalwart.jmap.client import (
    ADMIN,
    MANUAL,
    PASSWORD,
    call,
    change,
    create,
    one,
    read,
    refused,
    request,
    run,
    send,
    server,
)

from reconciler.simulator.stalwart.jmap.server import StalwartJmap
from reconciler.simulator.wire import Hangup


class Clock:
    def __init__(self):
        self.now = 1_795_000_000.0

    def __call__(self):
        return self.now


def key():
    private = Ed25519PrivateKey.generate()
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return {"@type": "Text", "secret": pem}


def signature(fake, domain, selector, **values):
    own = {"@type": "Dkim1Ed25519Sha256", "domainId": domain, "selector": selector, "privateKey": key()}
    return create(fake, "DkimSignature", **own, **values)


@pytest.fixture
def fake():
    return server()


@pytest.fixture
def domain(fake):
    return create(fake, "Domain", name="oak.test", **MANUAL)


def user(fake, domain, name="ann", secret=PASSWORD, **values):
    credentials = {"0": {"@type": "Password", "secret": secret}}
    return create(fake, "Account", **{"@type": "User"}, name=name, domainId=domain, credentials=credentials, **values)


def settle(fake, domain):
    change(fake, "SystemSettings", "singleton", defaultHostname="mail.oak.test", defaultDomainId=domain)
    run(fake, "ReloadSettings")


# --------------------------------------------------------------------------------------------------------- the envelope
def test_an_id_made_by_one_call_is_known_to_the_next(fake):
    calls = (
        ("x:Domain/set", {"create": {"d": {"name": "oak.test", **MANUAL}}}),
        ("x:Account/set", {"create": {"u": {"@type": "User", "name": "ann", "domainId": "#d"}}}),
        ("x:Account/get", {"ids": ["#u"], "properties": ["emailAddress"]}),
    )
    assert call(fake, *calls)[2]["list"][0]["emailAddress"] == "ann@oak.test"


def test_within_a_call_only_what_was_made_before_is_known(fake, domain):
    user = {"@type": "User", "name": "ann", "domainId": domain, "memberGroupIds": {"#g": True}}
    group = {"@type": "Group", "name": "crew", "domainId": domain}
    made = one(fake, "x:Account/set", {"create": {"u": user, "g": group}})
    assert (set(made["created"]), made["notCreated"]["u"]["type"]) == ({"g"}, "invalidPatch")
    again = {"h": {**group, "name": "band"}, "v": {**user, "name": "bea", "memberGroupIds": {"#h": True}}}
    made = one(fake, "x:Account/set", {"create": again})["created"]
    assert read(fake, "Account", made["v"]["id"])["memberGroupIds"] == {made["h"]["id"]: True}


def test_a_reference_to_what_failed_within_the_call_fails_alone(fake, domain):
    created = {
        "g": {"@type": "Group", "name": "not(a)name", "domainId": domain},
        "u": {"@type": "User", "name": "ann", "domainId": domain, "memberGroupIds": {"#g": True}},
        "v": {"@type": "User", "name": "bea", "domainId": domain},
    }
    answer = one(fake, "x:Account/set", {"create": created})
    assert (set(answer["created"]), set(answer["notCreated"])) == ({"v"}, {"g", "u"})


def test_an_update_of_what_is_no_id_is_passed_over_in_silence(fake):
    answer = one(fake, "x:Domain/set", {"update": {"NOT-AN-ID": {"description": "x"}}})
    assert answer == {"accountId": "d333333"}


def test_a_result_reference_that_leads_nowhere_fails_the_call(fake):
    given = {"#ids": {"resultOf": "9", "name": "x:Domain/query", "path": "/ids"}}
    assert one(fake, "x:Domain/get", given)["type"] == "invalidResultReference"


def test_a_result_reference_reads_every_item(fake, domain):
    user(fake, domain)
    reference = {"resultOf": "0", "name": "x:Account/get", "path": "/list/*/domainId"}
    answers = call(fake, ("x:Account/get", {"ids": None}), ("x:Domain/get", {"#ids": reference}))
    assert [item["name"] for item in answers[1]["list"]] == ["oak.test"]


def test_what_is_not_a_request_is_a_problem(fake):
    for body in (b"{}", b"[]", b'{"using": [], "methodCalls": [["x:Domain/get"]]}'):
        reply = send(fake, "POST", "/jmap", body)
        assert (reply.status, json.loads(reply.body)["type"]) == (400, "urn:ietf:params:jmap:error:notRequest")


def test_sixteen_calls_pass_and_seventeen_do_not(fake):
    assert request(fake, *[("x:Domain/query", {})] * 16).status == 200
    assert request(fake, *[("x:Domain/query", {})] * 17).status == 400


# -------------------------------------------------------------------------------------------------------------- limits
def test_what_is_beyond_five_hundred_is_left_out_silently_or_refused(fake, domain):
    for start in (0, 300):
        created = {
            f"u{at}": {"@type": "User", "name": f"user{at}", "domainId": domain} for at in range(start, start + 300)
        }
        assert len(one(fake, "x:Account/set", {"create": created})["created"]) == 300
    assert len(one(fake, "x:Account/get", {"ids": None, "properties": ["name"]})["list"]) == 500
    found = one(fake, "x:Account/query", {"calculateTotal": True})
    assert (len(found["ids"]), found["total"]) == (600, 600)
    assert one(fake, "x:Account/get", {"ids": found["ids"][:501]})["type"] == "requestTooLarge"


def test_pages_are_cut_in_the_order_of_age_unless_the_first_position_or_a_total_is_asked_for(fake, domain):
    ids = [user(fake, domain, f"user{at}") for at in range(6)]
    pages = [one(fake, "x:Account/query", {"limit": 2, "position": at})["ids"] for at in (0, 2, 4)]
    assert pages == [[ids[5], ids[4]], [ids[3], ids[2]], [ids[5], ids[4]]]  # the two oldest never come
    total = {"limit": 2, "calculateTotal": True}
    pages = [one(fake, "x:Account/query", {**total, "position": at})["ids"] for at in (0, 2, 4)]
    assert [key for page in pages for key in page] == ids[::-1]
    pages = [one(fake, "x:Account/query", {"limit": 2, **anchor})["ids"] for anchor in ({}, {"anchor": ids[1]})]
    assert pages == [[ids[1], ids[0]], [ids[3], ids[2]]]


def test_a_singleton_is_read_only_by_its_name(fake):
    change(fake, "Security", "singleton", authBanRate=None)
    assert one(fake, "x:Security/get", {"ids": None})["list"] == []
    assert one(fake, "x:Security/query", {})["type"] == "unknownMethod"
    assert read(fake, "Security")["scanBanRate"] == {"count": 30, "period": 86_400_000}


# ------------------------------------------------------------------------------------------------------------- writing
def test_an_array_and_an_empty_text_are_no_values(fake, domain):
    for values in ({"aliases": ["a.test"]}, {"description": ""}):
        assert change(fake, "Domain", domain, **values)["notUpdated"][domain]["type"] == "invalidPatch"


def test_a_pointer_changes_one_item(fake, domain):
    aliases = {"0": {"name": "ada", "domainId": domain}, "1": {"name": "ava", "domainId": domain}}
    account = user(fake, domain, aliases=aliases)
    change(fake, "Account", account, **{"aliases/0/enabled": False, "aliases/1": None, "quotas/maxDiskQuota": 7})
    found = read(fake, "Account", account)
    assert [(item["name"], item["enabled"]) for item in found["aliases"].values()] == [("ada", False)]
    assert found["quotas"] == {"maxDiskQuota": 7}


def test_a_pointer_adds_and_removes_a_member_of_a_set(fake, domain):
    change(fake, "Domain", domain, **{"aliases/b.test": True, "aliases/a.test": True})
    change(fake, "Domain", domain, **{"aliases/b.test": None})
    assert read(fake, "Domain", domain)["aliases"] == {"a.test": True}


def test_what_is_written_once_and_what_only_the_server_writes(fake):
    address = create(fake, "AllowedIp", address="10.0.0.0/8")
    error = change(fake, "AllowedIp", address, address="10.0.0.0/9")["notUpdated"][address]
    assert error["description"] == "Cannot modify read-only property"
    assert refused(fake, "Domain", name="a.test", createdAt="2026-01-01T00:00:00Z")["description"] == (
        "Cannot modify server set property"
    )


def test_a_reference_to_nothing_and_to_the_wrong_kind(fake, domain):
    account = user(fake, domain)
    assert refused(fake, "Account", **{"@type": "User"}, name="b", domainId="zz") == {
        "type": "invalidForeignKey",
        "objectId": {"object": "Domain", "id": "zz"},
    }
    groups = {"name": "b", "domainId": domain, "memberGroupIds": {account: True}}
    assert refused(fake, "Account", **{"@type": "User"}, **groups)["type"] == "invalidForeignKey"


def test_addresses_are_unique_over_accounts_and_lists(fake, domain):
    account = user(fake, domain, aliases={"0": {"name": "ada", "domainId": domain}})
    for name in ("ann", "ada"):
        error = refused(fake, "MailingList", name=name, domainId=domain, recipients={"x@y.test": True})
        assert (error["type"], error["objectId"]) == ("primaryKeyViolation", {"object": "Account", "id": account})


def test_a_domain_may_not_be_the_alias_of_another(fake, domain):
    create(fake, "Domain", name="a.test", aliases={"b.test": True}, **MANUAL)
    assert refused(fake, "Domain", name="b.test", **MANUAL)["properties"] == ["name"]
    assert refused(fake, "Domain", name="c.test", aliases={"oak.test": True})["properties"] == ["aliases"]


def test_the_default_domain_can_not_be_removed(fake, domain):
    settle(fake, domain)
    error = one(fake, "x:Domain/set", {"destroy": [domain]})["notDestroyed"][domain]
    assert error["linkedObjects"] == [{"object": "SystemSettings", "id": "singleton"}]


def test_removing_changing_and_missing(fake, domain):
    account = user(fake, domain)
    answer = one(fake, "x:Account/set", {"update": {account: {"description": "x"}}, "destroy": [account, "zz"]})
    assert answer["notUpdated"][account]["type"] == "willDestroy"
    assert answer["destroyed"] == [account]
    assert answer["notDestroyed"] == {"zz": {"type": "notFound"}}
    assert one(fake, "x:Account/get", {"ids": [account]})["notFound"] == [account]


def test_a_singleton_is_not_removed(fake):
    error = one(fake, "x:Security/set", {"destroy": ["singleton"]})["notDestroyed"]["singleton"]
    assert error["type"] == "singleton"


def test_the_first_settings_name_the_default_domain(fake, domain):
    error = change(fake, "SystemSettings", "singleton", defaultHostname="mail.oak.test")["notUpdated"]["singleton"]
    assert error["validationErrors"] == [{"type": "Required", "property": "defaultDomainId"}]


def test_a_secret_reads_as_a_mask_and_the_mask_is_stored_where_it_is_sent(fake):
    relay = {"@type": "Relay", "name": "relay", "address": "smtp.test.net"}
    route = create(fake, "MtaRoute", **relay, authSecret={"@type": "Value", "secret": "first"})
    shown = read(fake, "MtaRoute", route)["authSecret"]
    assert shown == {"@type": "Value", "secret": "****"}
    change(fake, "MtaRoute", route, authSecret=shown)
    assert fake.store.get("MtaRoute", route)["authSecret"]["secret"] == "****"


def test_a_route_takes_an_expression(fake):
    route = {"match": {"0": {"if": "is_local_domain(rcpt_domain)", "then": "'local'"}}, "else": "'relay'"}
    change(fake, "MtaOutboundStrategy", "singleton", route=route)
    assert read(fake, "MtaOutboundStrategy")["route"] == route


def test_the_filter_finds_by_name_and_refuses_what_is_not_indexed(fake, domain):
    account = user(fake, domain)
    user(fake, domain, "bea")
    assert one(fake, "x:Account/query", {"filter": {"name": "ann", "domainId": domain}})["ids"] == [account]
    assert one(fake, "x:Account/query", {"filter": {"text": "ANN"}})["ids"] == [account]
    assert one(fake, "x:Role/query", {"filter": {"description": "group"}})["ids"] != []
    assert one(fake, "x:Account/query", {"filter": {"description": "x"}})["type"] == "unsupportedFilter"


# ------------------------------------------------------------------------------------------------- passwords and logins
@pytest.mark.parametrize(
    "secret",
    [
        # as a real server judges them
        *("short", "password", "12345678", "passw0rd1", "aaaaaaaaaaaa", "x" * 129, "correcthorse", "summer2026"),
        *("a1b2c3d4e5", "{SHA}abc"),
    ],
)
def test_a_weak_password_is_refused(fake, domain, secret):
    credentials = {"0": {"@type": "Password", "secret": secret}}
    account = {"@type": "User", "name": "ann", "domainId": domain, "credentials": credentials}
    error = refused(fake, "Account", **account)
    assert (error["type"], error["properties"]) == ("invalidProperties", ["secret"])


@pytest.mark.parametrize(
    "secret", ["Tr0ub4dor&3", "correct horse battery", "noreply-password", "kR7_pQ2vLm9sXz", "secret-password-1"]
)
def test_a_strong_password_is_taken(fake, domain, secret):
    user(fake, domain, secret=secret)
    assert request(fake, auth=f"ann@oak.test:{secret}").status == 200


def test_a_strong_password_is_stored_hashed_and_a_hash_as_it_is(fake, domain):
    hashed = sha512_crypt.using(rounds=5000).hash("weak")
    first, second = user(fake, domain), user(fake, domain, "bea", hashed)
    stored = [fake.store.get("Account", key)["credentials"]["0"]["secret"] for key in (first, second)]
    assert stored[0].startswith("$argon2id$")
    assert stored[1] == hashed
    assert request(fake, auth="bea@oak.test:weak").status == 200
    assert request(fake, auth="bea@oak.test:other").status == 401


def test_a_bare_name_logs_in_only_when_the_default_domain_is_in_force(fake, domain):
    user(fake, domain)
    change(fake, "SystemSettings", "singleton", defaultHostname="mail.oak.test", defaultDomainId=domain)
    assert request(fake, auth=f"ann:{PASSWORD}").status == 401
    assert request(fake, auth=f"ann@oak.test:{PASSWORD}").status == 200
    run(fake, "ReloadSettings")
    assert request(fake, auth=f"ann:{PASSWORD}").status == 200


def test_the_recovery_administrator_shadows_the_bare_name(fake, domain):
    user(fake, domain, "admin", roles={"@type": "Admin"})
    settle(fake, domain)
    assert request(fake, auth=f"admin:{PASSWORD}").status == 401
    answer = one(fake, "x:Domain/query", {}, auth=f"admin@oak.test:{PASSWORD}")
    assert answer["ids"] == [domain]


def test_without_a_recovery_administrator_nobody_gets_into_an_empty_store():
    assert request(StalwartJmap(), auth=ADMIN).status == 401


def test_permissions_come_from_roles_and_from_the_account(fake, domain):
    role = create(fake, "Role", description="Readers", enabledPermissions={"sysDomainGet": True})
    user(fake, domain, "ann", roles={"@type": "Custom", "roleIds": {role: True}})
    granted = {"authenticate": True, "sysDomainQuery": True}
    own = {"@type": "Replace", "enabledPermissions": granted, "disabledPermissions": {}}
    user(fake, domain, "bea", permissions=own)
    assert request(fake, auth=f"ann@oak.test:{PASSWORD}").status == 401  # may do something, but not log in
    answers = call(fake, ("x:Domain/query", {}), ("x:Domain/get", {}), auth=f"bea@oak.test:{PASSWORD}")
    assert [answer.get("type") for answer in answers] == [None, "forbidden"]


def test_a_second_factor_is_asked_for(fake, domain):
    account = user(fake, domain)
    change(fake, "Account", account, **{"credentials/0/otpAuth": "otpauth://totp/x?secret=ABC"})
    assert request(fake, auth=f"ann@oak.test:{PASSWORD}").status == 402
    assert read(fake, "Account", account)["credentials"]["0"]["otpAuth"] == "****"


# ---------------------------------------------------------------------------------------------------------------- DKIM
def test_a_domain_signs_with_a_new_key_only_when_its_signers_are_not_cached(fake, domain):
    signature(fake, domain, "first")
    assert fake.signing() == {("oak.test", "first", "ed25519-sha256")}
    signature(fake, domain, "second")
    assert len(fake.signing()) == 1
    run(fake, "InvalidateCaches")
    assert len(fake.signing()) == 2


def test_changing_and_removing_a_key_counts_at_once(fake, domain):
    first, _ = signature(fake, domain, "first"), signature(fake, domain, "second")
    assert len(fake.signing()) == 2
    change(fake, "DkimSignature", first, stage="retiring")
    assert {selector for _, selector, _ in fake.signing()} == {"second"}


def test_the_same_selector_twice_is_accepted(fake, domain):
    assert signature(fake, domain, "same") != signature(fake, domain, "same")


def test_a_domain_that_is_not_manual_gets_two_keys_of_the_servers_own():
    clock = Clock()
    fake = server(clock=clock)
    create(fake, "Domain", name="oak.test")
    assert len(one(fake, "x:Task/query", {})["ids"]) == 2
    assert fake.signing() == set()
    clock.now += 3
    assert {algorithm for _, _, algorithm in fake.signing()} == {"rsa-sha256", "ed25519-sha256"}
    assert one(fake, "x:Task/query", {})["ids"] == []


def test_a_key_in_a_file_is_read_in_the_container(domain, fake):
    private = {"@type": "File", "filePath": "/run/secrets/dkim.pem"}
    own = {"@type": "Dkim1Ed25519Sha256", "domainId": domain, "selector": "s", "privateKey": private}
    assert "No such file" in refused(fake, "DkimSignature", **own)["description"]
    fake.files[private["filePath"]] = key()["secret"]
    signature_id = create(fake, "DkimSignature", **own)
    found = read(fake, "DkimSignature", signature_id)
    assert found["privateKey"] == private
    assert len(base64.b64decode(found["publicKey"])) == 32
    fake.files.clear()
    assert "publicKey" not in read(fake, "DkimSignature", signature_id)


def test_a_key_of_another_algorithm_is_refused(fake, domain):
    own = {"@type": "Dkim1RsaSha256", "domainId": domain, "selector": "s", "privateKey": key()}
    assert "WrongAlgorithm" in refused(fake, "DkimSignature", **own)["description"]


# ------------------------------------------------------------------------------------------------- modes and restarts
def bootstrap(fake, domain="oak.test", **values):
    wanted = {"serverHostname": f"mail.{domain}", "defaultDomain": domain, "generateDkimKeys": False, **values}
    return change(fake, "Bootstrap", "singleton", **wanted)


def test_bootstrap_mode_answers_once_and_ends_with_the_process():
    fake = server(configured=False)
    made = bootstrap(fake)["updated"]["singleton"]
    error = bootstrap(fake)["notUpdated"]["singleton"]
    assert (error["type"], error["properties"]) == ("primaryKeyViolation", ["defaultDomain"])
    assert one(fake, "x:Domain/query", {})["type"] == "forbidden"
    fake.restart()
    assert one(fake, "x:Domain/query", {}, auth=f"{made['username']}:{made['secret']}")["ids"] == ["b"]
    assert len(one(fake, "x:Tracer/query", {})["ids"]) == 2
    assert bootstrap(fake)["notUpdated"]["singleton"]["type"] == "forbidden"
    assert one(fake, "x:Bootstrap/get", {"ids": ["singleton"]})["notFound"] == ["singleton"]


def test_an_emptied_store_is_a_normal_start_with_defaults(fake, domain):
    fake.wipe_data()
    assert one(fake, "x:Domain/query", {})["ids"] == []
    assert len(one(fake, "x:NetworkListener/query", {})["ids"]) == 7
    assert json.loads(send(fake, "GET", "/.well-known/oauth-protected-resource", auth=None).body)["resource"] != ""


def test_data_without_config_json_are_not_set_up_anew(fake, domain):
    fake.lose_config()
    assert json.loads(send(fake, "GET", "/api/account").body)["permissions"] == [
        "sysBootstrapGet",
        "sysBootstrapUpdate",
    ]
    assert bootstrap(fake)["notUpdated"]["singleton"]["properties"] == ["dataStore"]
    fake.restore_config()
    assert one(fake, "x:Domain/query", {})["ids"] == [domain]


def test_a_type_that_was_emptied_gets_its_defaults_back(fake):
    found = one(fake, "x:MtaRoute/query", {})["ids"]
    one(fake, "x:MtaRoute/set", {"destroy": found})
    fake.restart()
    assert len(one(fake, "x:MtaRoute/query", {})["ids"]) == 2


def test_recovery_mode_has_the_whole_registry_and_no_mail(fake, domain):
    fake.environment["STALWART_RECOVERY_MODE"] = "1"
    fake.restart()
    assert [listener.protocol for listener in fake.listeners] == ["http"]
    assert one(fake, "x:Domain/query", {})["ids"] == [domain]


def test_a_reload_without_dns_keeps_the_old_settings(domain, fake):
    fake.no_dns = True
    change(fake, "SystemSettings", "singleton", defaultHostname="mail.oak.test", defaultDomainId=domain)
    assert run(fake, "ReloadSettings")["notCreated"]["it"]["objectId"] == {"object": "SpamPyzor", "id": "singleton"}
    assert fake.hostname != "mail.oak.test"
    change(fake, "SpamPyzor", "singleton", enable=False)
    assert "created" in run(fake, "ReloadSettings")
    assert fake.hostname == "mail.oak.test"


def test_the_state_can_be_saved_and_loaded(fake, domain):
    user(fake, domain)
    create(fake, "NetworkListener", name="late", protocol="smtp", bind={"[::]:587": True})
    state = json.loads(json.dumps(fake.dump()))
    other = server(configured=False)
    other.load(state)
    assert other.dump() == fake.dump()
    assert "late" not in [listener.name for listener in other.listeners]
    assert request(other, auth=f"ann@oak.test:{PASSWORD}").status == 200
    assert refused(other, "Domain", name="oak.test", **MANUAL)["type"] == "primaryKeyViolation"


# ---------------------------------------------------------------------------------------------------------------- bans
CLIENT = "198.51.100.7"


def test_failed_logins_ban_and_a_ban_is_lifted_by_two_calls(fake):
    for _ in range(100):
        assert request(fake, auth="ann@oak.test:wrong", client=CLIENT).status == 401
    assert request(fake, auth="ann@oak.test:wrong", client=CLIENT).status == 429
    with pytest.raises(Hangup):
        request(fake, client=CLIENT)
    fake.restart()
    with pytest.raises(Hangup):
        request(fake, client=CLIENT)
    found = one(fake, "x:BlockedIp/query", {"filter": {"address": CLIENT}})["ids"]
    assert read(fake, "BlockedIp", found[0])["reason"] == "authFailure"
    one(fake, "x:BlockedIp/set", {"destroy": found})
    with pytest.raises(Hangup):
        request(fake, client=CLIENT)
    run(fake, "ReloadBlockedIps")
    assert request(fake, client=CLIENT).status == 200


def test_an_allowed_address_overrides_a_block_once_it_is_in_force(fake):
    create(fake, "BlockedIp", address=CLIENT)
    assert request(fake, client=CLIENT).status == 200
    run(fake, "ReloadBlockedIps")
    create(fake, "AllowedIp", address="198.51.100.0/24")
    with pytest.raises(Hangup):
        request(fake, client=CLIENT)
    run(fake, "ReloadSettings")
    assert request(fake, client=CLIENT).status == 200


def test_anonymous_requests_are_limited(fake):
    statuses = [
        send(fake, "GET", "/.well-known/oauth-protected-resource", auth=None, client=CLIENT).status for _ in range(101)
    ]
    assert statuses[-2:] == [200, 429]


# ------------------------------------------------------------------------------------------------------------- sockets
def starttls(port):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    client = smtplib.SMTP("127.0.0.1", port)
    client.starttls(context=context)
    return client


def test_a_listener_opens_with_the_next_start_and_submission_takes_the_address():
    with server(open_ports=True) as fake:
        assert set(fake.ports) == {25, 443, 465, 993, 995, 4190, 8080}
        domain = create(fake, "Domain", name="oak.test", **MANUAL)
        user(fake, domain, aliases={"0": {"name": "ada", "domainId": domain}})
        create(fake, "NetworkListener", name="submission", protocol="smtp", bind={"[::]:587": True})
        settle(fake, domain)
        assert 587 not in fake.ports
        fake.restart()
        with starttls(fake.ports[587]) as client:
            assert client.login("ann@oak.test", PASSWORD)[0] == 235
            assert client.mail("ada@oak.test")[0] == 250
            assert client.mail("bea@oak.test")[0] == 501
        with starttls(fake.ports[587]) as client:
            assert client.login("ann", PASSWORD)[0] == 235
        with starttls(fake.ports[587]) as client, pytest.raises(smtplib.SMTPAuthenticationError):
            client.login("ann@oak.test", "wrong")


def test_thirty_tls_hellos_on_a_plain_port_ban():
    with server(open_ports=True, trust_loopback=False) as fake:
        for _ in range(30):
            with socket.create_connection(("127.0.0.1", fake.ports[25])) as connection:
                connection.recv(100)
                connection.sendall(b"\x16\x03\x01\x00\x05hello\n")
                assert connection.recv(100) == b""
        with pytest.raises(Hangup):
            request(fake)


def test_a_server_without_config_json_has_no_mail():
    with server(configured=False, open_ports=True) as fake:
        assert set(fake.ports) == {8080}
