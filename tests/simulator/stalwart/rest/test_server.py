"""The rules of Stalwart 0.15 that the recordings don't show, one small test each."""

import base64
import http.client
import json
import smtplib
import socket
import ssl
import time
import tomllib

import argon2
import bcrypt
import passlib.hash
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from simulator.stalwart.rest.client import DOMAIN, HASH, PASSWORD, ask, basic, change, get, make, store

from reconciler.simulator.stalwart.rest.server import StalwartRest
from reconciler.simulator.wire import Hangup, Request, Server


def account(name="noreply", **more):
    return {"type": "individual", "name": name, "roles": ["user"], "secrets": [HASH], **more}


def get_account(fake, name="noreply"):
    return get(fake, f"/api/principal/{name}")


@pytest.fixture
def fake():
    """A server with a domain and one account in it."""
    fake = make()
    change(fake, "POST", "/api/principal", DOMAIN)
    change(fake, "POST", "/api/principal", account(emails=["noreply@example.org"]))
    return fake


# ---------------------------------------------------------------------------------------------------- authentication
def test_login_names_are_trimmed_and_lower_cased(fake):
    assert ask(fake, "GET", "/api/account/auth", auth=basic(" NoReply ", "a"))[0] == 200
    assert ask(fake, "GET", "/api/account/auth", auth=basic("noreply@example.org", "a"))[0] == 401


def test_a_directory_admin_and_the_fallback_admin_both_get_in(fake):
    change(fake, "POST", "/api/principal", account("admin", roles=["admin"]))
    assert ask(fake, "GET", "/api/principal", auth=basic("admin", "a"))[0] == 200
    assert ask(fake, "GET", "/api/principal")[0] == 200
    assert ask(fake, "GET", "/api/principal", auth=basic("admin", "b"))[0] == 401


@pytest.mark.parametrize(
    "stored",
    [
        "word",
        "{PLAIN}word",
        argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash("word"),
        bcrypt.hashpw(b"word", bcrypt.gensalt(4)).decode(),
        passlib.hash.ldap_salted_sha1.hash("word"),
        passlib.hash.sha256_crypt.using(rounds=1000).hash("word"),
        f"$app$phone${passlib.hash.sha512_crypt.using(rounds=1000).hash('word')}",
    ],
    ids=["clear", "plain", "argon2", "bcrypt", "ssha", "sha256-crypt", "app password"],
)
def test_secrets_are_hashes_by_their_prefix_or_clear_text(fake, stored):
    change(fake, "PATCH", "/api/principal/noreply", [{"action": "addItem", "field": "secrets", "value": stored}])
    assert ask(fake, "GET", "/api/account/auth", auth=basic("noreply", "word"))[0] == 200
    assert ask(fake, "GET", "/api/account/auth", auth=basic("noreply", "words"))[0] == 401


def test_an_api_key_works_as_bearer_under_api_only_and_as_basic(fake):
    key = {"type": "apiKey", "name": "key", "secrets": ["s"], "roles": ["admin"]}
    change(fake, "POST", "/api/principal", key)
    bearer = "Bearer api_" + base64.b64encode(b"key:s").decode()
    assert ask(fake, "GET", "/api/principal", auth=bearer)[0] == 200
    assert ask(fake, "GET", "/api/principal", auth=basic("key", "s"))[0] == 200
    assert ask(fake, "GET", "/jmap/session", auth=bearer)[0] == 401


def test_an_undecodable_header_is_challenged_and_a_wrong_password_is_not(fake):
    for auth, challenged in (("Basic ???", True), (basic("admin", "x"), False)):
        reply = fake(Request("GET", "/api/principal", "/api/principal", {}, {"authorization": auth}, b"", "127.0.0.1"))
        assert (reply.status, "WWW_Authenticate" in reply.headers) == (401, challenged)


def test_a_key_with_few_permissions_must_name_the_types_it_lists(fake):
    permissions = ["authenticate", "individual-list"]
    key = {"type": "apiKey", "name": "key", "secrets": ["s"], "enabledPermissions": permissions}
    change(fake, "POST", "/api/principal", key)
    assert ask(fake, "GET", "/api/principal", auth=basic("key", "s"))[0] == 403
    assert ask(fake, "GET", "/api/principal?types=individual", auth=basic("key", "s"))[0] == 200
    assert ask(fake, "GET", "/api/settings/list", auth=basic("key", "s"))[0] == 403


def test_nobody_grants_a_role_they_do_not_have(fake):
    key = {
        "type": "apiKey",
        "name": "key",
        "secrets": ["s"],
        "enabledPermissions": ["authenticate", "individual-create"],
    }
    change(fake, "POST", "/api/principal", key)
    status, body = ask(fake, "POST", "/api/principal", account("x", roles=["admin"]), auth=basic("key", "s"))
    assert (status, body["error"], body["details"]) == (200, "other", "Invalid role")


def test_a_role_of_ones_own_grants_what_it_enables(fake):
    role = {"type": "role", "name": "operator", "enabledPermissions": ["authenticate", "settings-list"]}
    change(fake, "POST", "/api/principal", role)
    change(fake, "POST", "/api/principal", account("op", roles=["operator"]))
    assert ask(fake, "GET", "/api/settings/list?prefix=server", auth=basic("op", "a"))[0] == 200
    assert ask(fake, "GET", "/api/principal", auth=basic("op", "a"))[0] == 403


def test_setting_ones_own_password_removes_app_passwords(fake):
    add = {"action": "addItem", "field": "secrets", "value": f"$app$phone${HASH}"}
    change(fake, "PATCH", "/api/principal/noreply", [add])
    assert get(fake, "/api/account/auth", auth=basic("noreply", "a"))["appPasswords"] == ["phone"]
    change(fake, "POST", "/api/account/auth", [{"type": "setPassword", "password": "new"}], auth=basic("noreply", "a"))
    assert ask(fake, "GET", "/api/account/auth", auth=basic("noreply", "a"))[0] == 401
    assert len(get_account(fake)["secrets"]) == 1


# -------------------------------------------------------------------------------------------------------------- bans
def test_the_failure_beyond_the_rate_bans_the_address_for_ever(fake):
    now = [0.0]
    fake = make(clock=lambda: now[0])
    wrong = {"auth": basic("admin", "x"), "client": "203.0.113.7"}
    assert {ask(fake, "GET", "/api/principal", **wrong)[0] for _ in range(100)} == {401}
    assert ask(fake, "GET", "/api/principal", **wrong)[0] == 429
    now[0] += 1e7
    fake.restart()
    with pytest.raises(Hangup):
        ask(fake, "GET", "/healthz/live", client="203.0.113.7")
    assert get(fake, "/api/settings/group?prefix=server.blocked-ip")["items"] == [{"_id": "203.0.113.7", "_value": ""}]


def test_a_banned_client_gets_its_connection_closed_without_a_byte(fake):
    store(fake, ("server.blocked-ip.127.0.0.1", ""))
    with Server(fake) as server:
        get(fake, "/api/settings/list?prefix=x")  # stored, and not yet in force
        ask(fake, "GET", "/api/reload/server.blocked-ip")
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        connection.request("GET", "/healthz/live")
        with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
            connection.getresponse()
        connection.close()


def test_failures_are_counted_by_login_name_too():
    fake = make()
    for number in range(100):
        ask(fake, "GET", "/api/principal", auth=basic("admin", "x"), client=f"203.0.113.{number}")
    assert ask(fake, "GET", "/api/principal", auth=basic("admin", "x"), client="198.51.100.1")[0] == 429
    assert ask(fake, "GET", "/api/principal", client="203.0.113.1")[0] == 200  # the right password is no failure


def test_a_missing_header_is_no_failure_and_loopback_is_trusted_unless_told_otherwise():
    fake = make()
    for _ in range(150):
        ask(fake, "GET", "/api/principal", auth=None, client="203.0.113.7")
        ask(fake, "GET", "/api/principal", auth=basic("admin", "x"))
    assert ask(fake, "GET", "/api/principal", client="203.0.113.7")[0] == 200
    fake = make(trust_loopback=False)
    statuses = [ask(fake, "GET", "/api/principal", auth=basic("admin", "x"))[0] for _ in range(101)]
    assert statuses[-1] == 429


def test_an_allowed_address_is_not_counted_but_a_ban_is_not_lifted_by_it(fake):
    store(fake, ("server.allowed-ip.203.0.113.0/24", ""), ("server.blocked-ip.203.0.113.9", ""))
    assert get(fake, "/api/reload")["errors"] == {}
    for _ in range(150):
        assert ask(fake, "GET", "/api/principal", auth=basic("admin", "x"), client="203.0.113.7")[0] == 401
    with pytest.raises(Hangup):
        ask(fake, "GET", "/api/principal", client="203.0.113.9")
    change(fake, "POST", "/api/settings", [{"type": "delete", "keys": ["server.blocked-ip.203.0.113.9"]}])
    with pytest.raises(Hangup):
        ask(fake, "GET", "/api/principal", client="203.0.113.9")
    get(fake, "/api/reload/server.blocked-ip")
    assert ask(fake, "GET", "/api/principal", client="203.0.113.9")[0] == 200


@pytest.mark.parametrize(("rate", "failures"), [("2/1d", 2), ("false", 200)])
def test_the_rate_is_the_one_in_force(fake, rate, failures):
    store(fake, ("server.auto-ban.auth.rate", rate))
    get(fake, "/api/reload")
    wrong = {"auth": basic("admin", "x"), "client": "203.0.113.7"}
    assert {ask(fake, "GET", "/api/principal", **wrong)[0] for _ in range(failures)} == {401}
    assert ask(fake, "GET", "/api/principal", **wrong)[0] == (429 if rate == "2/1d" else 401)


def test_purging_the_counters_forgives(fake):
    wrong = {"auth": basic("admin", "x"), "client": "203.0.113.7"}
    for _ in range(100):
        ask(fake, "GET", "/api/principal", **wrong)
    get(fake, "/api/store/purge/in-memory/default/rate-auth")
    assert ask(fake, "GET", "/api/principal", **wrong)[0] == 401


def test_a_path_only_scanners_ask_for_bans_at_once(fake):
    assert ask(fake, "GET", "/index.php", client="203.0.113.7")[0] == 429
    with pytest.raises(Hangup):
        ask(fake, "GET", "/healthz/live", client="203.0.113.7")


def test_an_account_without_unlimited_requests_is_limited_to_a_thousand_a_minute():
    fake = make(clock=lambda: 0.0)
    change(fake, "POST", "/api/principal", DOMAIN)
    change(fake, "POST", "/api/principal", account())
    statuses = [ask(fake, "GET", "/api/account/auth", auth=basic("noreply", "a"))[0] for _ in range(1001)]
    assert statuses == [200] * 1000 + [429]
    assert {ask(fake, "GET", "/api/account/auth")[0] for _ in range(1001)} == {200}


def test_an_anonymous_client_is_limited_to_a_hundred_a_minute():
    fake = make(clock=lambda: 0.0)
    statuses = [ask(fake, "GET", "/healthz/live", auth=None, client="203.0.113.7")[0] for _ in range(101)]
    assert statuses == [200] * 100 + [429]


# -------------------------------------------------------------------------------------------------------- principals
def test_one_namespace_for_all_types(fake):
    for kind in ("group", "list", "individual", "role", "apiKey"):
        _, body = ask(fake, "POST", "/api/principal", {"type": kind, "name": "Example.ORG"})
        assert body == {"error": "fieldAlreadyExists", "field": "name", "value": "example.org"}


def test_a_name_is_required_and_the_enterprise_is_not_here(fake):
    assert ask(fake, "POST", "/api/principal", {"type": "group"})[1] == {"error": "fieldMissing", "field": "name"}
    assert ask(fake, "POST", "/api/principal", {"type": "tenant", "name": "t"})[1]["error"] == "unsupported"


def test_only_the_first_password_is_kept_on_creation(fake):
    app = f"$app$phone${HASH}"
    change(fake, "POST", "/api/principal", account("x", secrets=["one", "two", app]))
    assert get_account(fake, "x")["secrets"] == ["one", app]


def test_texts_over_512_bytes_are_refused_alone_and_dropped_in_lists(fake):
    assert ask(fake, "POST", "/api/principal", account("x", description="d" * 513))[0] == 400
    change(fake, "POST", "/api/principal", account("x", secrets=["s" * 513, "short"]))
    assert get_account(fake, "x")["secrets"] == ["short"]


def test_a_patch_is_all_or_nothing(fake):
    before = fake.dump()
    updates = [
        {"action": "set", "field": "description", "value": "new"},
        {"action": "addItem", "field": "emails", "value": "new@example.org"},
        {"action": "addItem", "field": "roles", "value": "nobody"},
    ]
    assert ask(fake, "PATCH", "/api/principal/noreply", updates)[1] == {"error": "notFound", "item": "nobody"}
    assert fake.dump() == before


def test_set_of_a_membership_wipes_the_other_two(fake):
    change(fake, "POST", "/api/principal", {"type": "group", "name": "staff"})
    change(fake, "POST", "/api/principal", {"type": "list", "name": "news", "members": ["noreply"]})
    change(fake, "PATCH", "/api/principal/noreply", [{"action": "set", "field": "memberOf", "value": ["staff"]}])
    found = get_account(fake)
    assert found["memberOf"] == ["staff"]
    assert not {"roles", "lists"} & found.keys()
    assert ask(fake, "GET", "/api/account/auth", auth=basic("noreply", "a"))[0] == 403


def test_roles_can_not_be_patched_on_groups(fake):
    change(fake, "POST", "/api/principal", {"type": "group", "name": "staff"})
    update = [{"action": "addItem", "field": "roles", "value": "user"}]
    assert ask(fake, "PATCH", "/api/principal/staff", update)[1]["error"] == "other"


def test_secrets_are_removed_as_oddly_as_the_real_server_does(fake):
    for value in (f"$app$one${HASH}", f"$app$two${HASH}", "otpauth://totp/x?secret=ABC"):
        change(fake, "PATCH", "/api/principal/noreply", [{"action": "addItem", "field": "secrets", "value": value}])
    assert len(get_account(fake)["secrets"]) == 4
    remove = {"action": "removeItem", "field": "secrets", "value": "$app$one"}
    change(fake, "PATCH", "/api/principal/noreply", [remove])
    assert len(get_account(fake)["secrets"]) == 3
    change(fake, "PATCH", "/api/principal/noreply", [{**remove, "value": ""}])
    assert get_account(fake)["secrets"] == [HASH]


def test_the_first_alias_takes_the_place_of_a_removed_primary_address(fake):
    emails = ["z@example.org", "b@example.org", "a@example.org"]
    change(fake, "PATCH", "/api/principal/noreply", [{"action": "set", "field": "emails", "value": emails}])
    change(fake, "PATCH", "/api/principal/noreply", [{"action": "removeItem", "field": "emails", "value": emails[0]}])
    assert get_account(fake)["emails"] == ["a@example.org", "b@example.org"]


def test_addresses_are_lower_cased_and_another_account_has_none_of_them(fake):
    change(
        fake, "PATCH", "/api/principal/noreply", [{"action": "addItem", "field": "emails", "value": "A@Example.org"}]
    )
    assert get_account(fake)["emails"] == ["noreply@example.org", "a@example.org"]
    _, body = ask(fake, "POST", "/api/principal", account("x", emails=["a@example.org"]))
    assert body == {"error": "fieldAlreadyExists", "field": "emails", "value": "a@example.org"}
    change(
        fake, "PATCH", "/api/principal/noreply", [{"action": "removeItem", "field": "emails", "value": "A@example.org"}]
    )
    assert get_account(fake)["emails"] == ["noreply@example.org"]


def test_members_of_a_list_are_set_from_its_side_too(fake):
    change(fake, "POST", "/api/principal", {"type": "list", "name": "news"})
    change(fake, "PATCH", "/api/principal/news", [{"action": "set", "field": "members", "value": ["noreply"]}])
    assert get_account(fake)["lists"] == ["news"]
    assert get_account(fake)["roles"] == ["user"]
    change(fake, "DELETE", "/api/principal/news")
    assert "lists" not in get_account(fake)


def test_quota_zero_and_no_quota_differ_and_an_empty_description_is_kept_on_creation(fake):
    change(fake, "POST", "/api/principal", account("x", quota=0, description=""))
    assert "quota" not in get_account(fake, "x")
    change(fake, "PATCH", "/api/principal/x", [{"action": "set", "field": "quota", "value": 0}])
    assert get_account(fake, "x")["quota"] == 0
    assert get_account(fake, "x")["description"] == ""
    change(fake, "PATCH", "/api/principal/x", [{"action": "set", "field": "quota", "value": ""}])
    assert "quota" not in get_account(fake, "x")


def test_only_a_new_account_may_have_an_address_without_a_domain(fake):
    change(fake, "POST", "/api/principal", account("x", emails=["x"]))
    update = [{"action": "set", "field": "emails", "value": ["y"]}]
    assert ask(fake, "PATCH", "/api/principal/x", update)[1]["details"] == "Invalid email"


def test_a_long_text_in_a_list_is_dropped_on_creation_and_refused_in_a_change(fake):
    long = "x" * 600 + "@example.org"
    change(fake, "POST", "/api/principal", account("x", emails=["x@example.org", long]))
    assert get_account(fake, "x")["emails"] == ["x@example.org"]
    update = [{"action": "set", "field": "emails", "value": ["x@example.org", long]}]
    assert ask(fake, "PATCH", "/api/principal/x", update)[0] == 400


def test_a_membership_of_the_wrong_kind_is_refused_unless_it_is_there_already(fake):
    for kind, name in (("group", "staff"), ("list", "news")):
        change(fake, "POST", "/api/principal", {"type": kind, "name": name})

    def join(field, name, member="noreply"):
        update = [{"action": "addItem", "field": field, "value": name}]
        return ask(fake, "PATCH", f"/api/principal/{member}", update)[1]

    assert join("memberOf", "news")["reason"] == 'Principal "news" is not a Group, Individual.'
    assert join("roles", "staff")["reason"] == 'Principal "staff" is not a Role.'
    assert join("memberOf", "noreply", "staff")["reason"] == 'Principal "noreply" is not a Group.'
    assert join("roles", "user", "staff")["reason"] == 'Principal "user" cannot be added as a member.'
    assert join("lists", "news") == {"data": None}
    assert join("memberOf", "news") == {"data": None}
    assert ask(fake, "POST", "/api/principal", account("x", memberOf=["news"]))[1] == {
        "error": "notFound",
        "item": "news",
    }


def test_a_type_never_changes(fake):
    update = [{"action": "set", "field": "type", "value": "group"}]
    assert ask(fake, "PATCH", "/api/principal/noreply", update)[1]["details"] == "Invalid parameter"


def test_a_filter_is_whole_words(fake):
    assert get(fake, "/api/principal?filter=noreply")["total"] == 1
    assert get(fake, "/api/principal?filter=norep")["total"] == 0


def test_a_body_over_one_mebibyte_is_read_as_an_empty_one(fake):
    body = json.dumps(account("x", description="d")).encode()
    assert ask(fake, "POST", "/api/principal", body + b" " * (1 << 20))[0] == 400
    assert ask(fake, "POST", "/api/principal", body + b" " * 1000)[0] == 200


# ---------------------------------------------------------------------------------------------------------- settings
def test_operations_run_one_by_one_without_a_transaction(fake):
    operations = [
        {"type": "insert", "prefix": "x", "values": [["a", "1"]], "assert_empty": True},
        {"type": "insert", "prefix": "x", "values": [["b", "2"]], "assert_empty": True},
    ]
    assert ask(fake, "POST", "/api/settings", operations)[1] == {"error": "assertFailed"}
    assert get(fake, "/api/settings/keys?prefixes=x") == {"x.a": "1"}


def test_assert_empty_without_a_prefix_looks_at_the_first_key_only(fake):
    store(fake, ("x.b", "1"))
    operation = {"type": "insert", "prefix": None, "values": [["x.a", "1"], ["x.b", "2"]], "assert_empty": True}
    change(fake, "POST", "/api/settings", [operation])
    assert get(fake, "/api/settings/keys?keys=x.b") == {"x.b": "2"}


def test_delete_by_path_takes_one_exact_key(fake):
    store(fake, ("x", "1"), ("x.a", "2"))
    change(fake, "DELETE", "/api/settings/x")
    assert get(fake, "/api/settings/keys?keys=x,x.a") == {"x.a": "2"}


def test_clear_with_a_word_takes_only_what_holds_it(fake):
    store(fake, ("x.one", "Red"), ("x.two", "blue"))
    change(fake, "POST", "/api/settings", [{"type": "clear", "prefix": "x.", "filter": "red"}])
    assert get(fake, "/api/settings/keys?prefixes=x") == {"x.two": "blue"}


def test_settings_are_paged_from_one(fake):
    store(fake, *((f"x.{number}", "v") for number in range(5)))
    page = get(fake, "/api/settings/list?prefix=x&page=2&limit=2")
    assert page == {"total": 5, "items": {"2": "v", "3": "v"}}


def test_a_write_to_the_file_drops_its_comments_and_a_key_of_the_database_is_not_in_it(fake):
    fake.config_toml = "# mine\n" + fake.config_toml
    fake.restart()
    store(fake, ("lookup.default.hostname", "mail.example.org"))
    assert fake.config_toml.startswith("# mine")
    store(fake, ("server.auto-ban.scan.rate", "false"))
    assert "#" not in fake.config_toml
    assert "server.auto-ban.scan.rate = false\n" in fake.config_toml
    assert "hostname" not in fake.config_toml
    assert list(fake.config_toml.splitlines()) == sorted(fake.config_toml.splitlines())


def test_an_edit_of_the_file_counts_after_a_restart_and_a_write_before_that_undoes_it(fake):
    edit = '[server.listener.extra]\nbind = "[::]:2525"\nprotocol = "smtp"\n'
    fake.config_toml += edit
    get(fake, "/api/reload")
    assert get(fake, "/api/settings/list?prefix=server.listener.extra")["total"] == 0
    fake.restart()
    assert get(fake, "/api/settings/list?prefix=server.listener.extra")["total"] == 2


def test_a_key_of_the_database_found_in_the_file_wins_for_ever(fake):
    fake.config_toml += '\nlookup.default.hostname = "from-the-file.example"\n'
    fake.restart()
    store(fake, ("lookup.default.hostname", "mail.example.org"))
    key = "/api/settings/keys?keys=lookup.default.hostname"
    assert get(fake, key) == {"lookup.default.hostname": "from-the-file.example"}
    change(fake, "DELETE", "/api/settings/lookup.default.hostname")
    assert get(fake, key) == {"lookup.default.hostname": "from-the-file.example"}


def test_local_keys_of_ones_own_replace_the_list(fake):
    fake.config_toml += '\nconfig.local-keys = ["report.*", "authentication.*"]\n'
    fake.restart()
    store(fake, ("report.x", "1"), ("server.x", "2"))
    assert "report.x = 1" in fake.config_toml
    assert "server.x" not in fake.config_toml


def test_a_read_only_file_is_an_error_that_leaves_memory_changed(fake):
    fake.settings.read_only = True
    operation = {"type": "insert", "prefix": None, "values": [["server.x", "1"]], "assert_empty": False}
    assert ask(fake, "POST", "/api/settings", [operation])[0] == 500
    assert "server.x" not in fake.config_toml
    assert get(fake, "/api/settings/keys?keys=server.x") == {"server.x": "1"}


def test_macros_count_in_the_file_and_not_in_the_database(fake):
    fake.environment["HOST"] = "mail.example.org"
    store(fake, ("lookup.default.hostname", "%{env:HOST}%"))
    get(fake, "/api/reload")
    assert fake.core.hostname == "%{env:HOST}%"
    store(fake, ("server.hostname", "%{env:HOST}%"))
    get(fake, "/api/reload")
    assert fake.core.hostname == "mail.example.org"
    assert get(fake, "/api/settings/keys?keys=server.hostname") == {"server.hostname": "%{env:HOST}%"}


def test_a_reload_with_errors_installs_nothing(fake):
    store(fake, ("lookup.default.hostname", "mail.example.org"), ("server.auto-ban.auth.rate", "often"))
    errors = get(fake, "/api/reload")["errors"]
    assert errors == {"server.auto-ban.auth.rate": {"type": "parse", "error": 'Invalid rate value "often".'}}
    assert get(fake, "/api/dns/records/example.org")[0]["content"] == "10 stalwart."
    change(fake, "DELETE", "/api/settings/server.auto-ban.auth.rate")
    assert get(fake, "/api/reload?dry-run=1")["errors"] == {}
    assert get(fake, "/api/dns/records/example.org")[0]["content"] == "10 stalwart."
    assert get(fake, "/api/reload")["errors"] == {}
    assert get(fake, "/api/dns/records/example.org")[0]["content"] == "10 mail.example.org."


def test_without_dns_every_reload_fails_until_pyzor_is_off():
    fake = make(spam_host_broken=True)
    assert "spam-filter.pyzor.host" in get(fake, "/api/reload")["errors"]
    store(fake, ("spam-filter.pyzor.enable", "false"))
    assert get(fake, "/api/reload")["errors"] == {}


# -------------------------------------------------------------------------------------------------------------- DKIM
def test_a_new_key_signs_after_a_reload_and_its_public_half_is_what_is_published(fake):
    for algorithm in ("Ed25519", "Rsa"):
        body = {"id": None, "algorithm": algorithm, "domain": "example.org", "selector": algorithm.lower()}
        change(fake, "POST", "/api/dkim", body)
    assert fake.signing() == set()
    get(fake, "/api/reload")
    signing = {("example.org", "rsa", "rsa-sha256"), ("example.org", "ed25519", "ed25519-sha256")}
    assert fake.signing() == signing
    pem = get(fake, "/api/settings/keys?keys=signature.rsa-example.org.private-key")
    key = load_pem_private_key(next(iter(pem.values())).encode(), None)
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert get(fake, "/api/dkim/rsa-example.org") == base64.b64encode(public).decode()
    contents = [record["content"] for record in get(fake, "/api/dns/records/example.org")]
    assert f"v=DKIM1; k=rsa; h=sha256; p={base64.b64encode(public).decode()}" in contents


def test_another_id_signs_only_by_a_rule_of_ones_own(fake):
    body = {"id": "second", "algorithm": "Ed25519", "domain": "example.org", "selector": "two"}
    change(fake, "POST", "/api/dkim", body)
    get(fake, "/api/reload")
    assert fake.signing() == set()
    store(
        fake,
        ("auth.dkim.sign.0.if", "sender_domain == 'example.org'"),
        ("auth.dkim.sign.0.then", "['ed25519-' + sender_domain, 'second']"),
        ("auth.dkim.sign.1.else", "false"),
    )
    get(fake, "/api/reload")
    assert fake.signing() == {("example.org", "two", "ed25519-sha256")}


def test_a_key_that_can_not_be_read_passes_the_reload_and_does_not_sign(fake):
    names = ("algorithm", "domain", "selector", "private-key")
    values = ("ed25519-sha256", "example.org", "s", "not a key")
    store(fake, *((f"signature.ed25519-example.org.{name}", value) for name, value in zip(names, values, strict=True)))
    assert get(fake, "/api/reload")["errors"] == {}
    assert fake.signing() == set()
    assert ask(fake, "GET", "/api/dkim/ed25519-example.org")[1]["error"] == "other"


# What a real 0.15.5 answered to each, word for word.
@pytest.mark.parametrize(
    ("value", "error"),
    [
        ("10 / 1 d", None),
        ("10/1D", None),
        ("10/5", None),  # milliseconds
        ("none", None),
        ("Never", None),
        ("10", 'Invalid rate value "10".'),
        ("0/1d", 'Invalid rate value "0/1d".'),
        ("true", 'Invalid rate value "true".'),
        ("10/0d", 'Invalid duration value "0d".'),
        ("10/1w", 'Invalid duration value "1w".'),
    ],
)
def test_a_rate_is_read_as_the_server_reads_it(fake, value, error):
    key = "server.auto-ban.auth.rate"
    store(fake, (key, value))
    assert get(fake, "/api/reload")["errors"] == ({key: {"type": "parse", "error": error}} if error else {})


def test_a_removed_default_of_a_rate_limiter_is_missing(fake):
    key = "queue.limiter.inbound.ip.rate"
    change(fake, "POST", "/api/settings", [{"type": "delete", "keys": [key]}])
    assert get(fake, "/api/reload")["errors"] == {key: {"type": "parse", "error": "Missing property"}}
    store(fake, ("queue.limiter.inbound.ip.enable", "false"))
    assert get(fake, "/api/reload")["errors"] == {}


def test_an_address_that_is_none_is_told_by_its_prefix(fake):
    store(fake, ("server.allowed-ip.bogus", ""))
    error = {"type": "parse", "error": 'Invalid IP address value "bogus".'}
    assert get(fake, "/api/reload")["errors"] == {"server.allowed-ip": error}


# --------------------------------------------------------------------------------------------------------- lifecycle
def test_a_first_start_leaves_what_nobody_should_prune(fake):
    keys = get(fake, "/api/settings/list")["items"]
    assert {"oauth.key", "version.spam-filter", "report.domain"} <= keys.keys()
    assert any(key.startswith("queue.") for key in keys)
    assert "version.spam-filter" not in get(make(spam_host_broken=True), "/api/settings/list")["items"]


def test_a_wiped_volume_has_nothing_but_the_first_password(fake):
    key = "/api/settings/keys?keys=oauth.key"
    before = get(fake, key)
    fake.restart()
    assert get(fake, key) == before
    fake.wipe()
    assert get(fake, "/api/principal") == {"items": [], "total": 0}
    assert get(fake, key) != before


def test_the_password_of_the_environment_counts_at_the_first_start_only(fake):
    fake.environment["STALWART_ADMIN_PASSWORD"] = "another"
    fake.restart()
    assert ask(fake, "GET", "/api/principal", auth=basic("admin", "another"))[0] == 401
    fake.wipe()
    assert ask(fake, "GET", "/api/principal", auth=basic("admin", "another"))[0] == 200


def test_without_one_a_random_password_is_printed():
    fake = StalwartRest()
    assert fake.printed is not None
    assert ask(fake, "GET", "/api/principal", auth=basic("admin", fake.printed))[0] == 200


def test_a_dump_goes_through_json_and_brings_everything_back(fake):
    change(fake, "POST", "/api/dkim", {"algorithm": "Ed25519", "domain": "example.org", "selector": "s"})
    store(fake, ("server.listener.extra.bind", "127.0.0.1:2525"), ("server.listener.extra.protocol", "smtp"))
    state = json.loads(json.dumps(fake.dump()))
    other = StalwartRest()
    other.load(state)
    assert other.dump() == fake.dump()
    assert other.signing() == set()  # stored, and not in force: as it was
    get(other, "/api/reload")
    assert other.signing() == {("example.org", "s", "ed25519-sha256")}


def test_a_file_that_is_no_toml_does_not_start(fake):
    fake.config_toml = "server = ["
    with pytest.raises(tomllib.TOMLDecodeError):
        fake.restart()


# --------------------------------------------------------------------------------------------------------- listeners
SMTP = {
    "authentication.fallback-admin.user": "admin",
    "authentication.fallback-admin.secret": PASSWORD,
    "server.listener.submission.bind": "[::]:587",
    "server.listener.submission.protocol": "smtp",
    "server.listener.submissions.bind": "[::]:465",
    "server.listener.submissions.protocol": "smtp",
    "server.listener.submissions.tls.implicit": "true",
}


@pytest.fixture
def mail_server():
    """A server whose submission ports are open and whose loopback clients count."""
    with StalwartRest(config=SMTP, open_ports=True, trust_loopback=False) as fake:
        change(fake, "POST", "/api/principal", DOMAIN)
        change(fake, "POST", "/api/principal", account(emails=["noreply@example.org"]))
        yield fake


def trusting():
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def test_a_new_listener_opens_at_a_restart_and_not_at_a_reload(mail_server):
    assert mail_server.ports.keys() == {587, 465}
    store(mail_server, ("server.listener.extra.bind", "[::]:588"), ("server.listener.extra.protocol", "smtp"))
    assert get(mail_server, "/api/reload")["errors"] == {}
    assert 588 not in mail_server.ports
    mail_server.restart()
    with smtplib.SMTP("127.0.0.1", mail_server.ports[588]) as client:
        assert client.noop()[0] == 250


def test_smtp_takes_the_bare_login_over_tls_and_refuses_the_address(mail_server):
    with smtplib.SMTP("127.0.0.1", mail_server.ports[587]) as client:
        client.ehlo()
        assert not client.has_extn("auth")
        client.starttls(context=trusting())
        with pytest.raises(smtplib.SMTPAuthenticationError) as refused:
            client.login("noreply@example.org", "a")
        assert refused.value.smtp_code == 535
        assert client.login("noreply", "a")[0] == 235
        assert client.mail("noreply@example.org")[0] == 250
        assert client.mail("other@example.org")[0] == 501
    with smtplib.SMTP_SSL("127.0.0.1", mail_server.ports[465], context=trusting()) as client:
        assert client.login("noreply", "a")[0] == 235


def eventually(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_thirty_tls_hellos_on_a_plain_port_end_in_a_ban(mail_server):
    def hello(count):
        with socket.create_connection(("127.0.0.1", mail_server.ports[587])) as raw, pytest.raises(OSError):
            trusting().wrap_socket(raw)
        eventually(lambda: sum(mail_server.bans.lasting().values()) == count)  # it counts after the client has gone

    for count in range(1, 30):
        hello(count)
    with smtplib.SMTP("127.0.0.1", mail_server.ports[587]) as client:
        assert client.noop()[0] == 250
    hello(30)
    with pytest.raises(Hangup):
        ask(mail_server, "GET", "/healthz/live")
    with pytest.raises((smtplib.SMTPServerDisconnected, ConnectionResetError)):
        smtplib.SMTP("127.0.0.1", mail_server.ports[587])
