"""Groups, lists, catch-alls and rules of the fake Stalwart 0.15, as a real one answered and delivered.

`groups-0.15.5.jsonl` is a recording of a real 0.15.5, made for this test: one request and its answer a line.
"""

import json
from pathlib import Path

import pytest
from simulator.stalwart.rest.client import ask, change, make, store

ALIAS = (
    ("session.rcpt.rewrite.0.if", r"matches('^([^@]+)@(one|two)\.org$', rcpt)"),
    ("session.rcpt.rewrite.0.then", "$1 + '@example.org'"),
    ("session.rcpt.rewrite.1.else", "false"),
)
PLAIN = (
    ("session.rcpt.sub-addressing.0.if", r"matches('^([^+@]+)\+[^@]*@(example\.org)$', rcpt)"),
    ("session.rcpt.sub-addressing.0.then", "$1 + '@' + $2"),
    ("session.rcpt.sub-addressing.1.else", "rcpt"),
)


def test_answers_as_the_real_server_did():
    fake = make(spam_host_broken=True)
    recording = Path(__file__).with_name("groups-0.15.5.jsonl").read_text(encoding="utf-8")
    for line in recording.splitlines():
        real = json.loads(line)
        assert ask(fake, real["method"], real["path"], real["body"]) == (real["status"], real["answer"]), line


@pytest.fixture
def fake():
    """A server with two domains, an account in each, a group and a list."""
    fake = make()
    for name in ("example.org", "other.org"):
        change(fake, "POST", "/api/principal", {"type": "domain", "name": name})
    for name, email in (("uwe", "uwe@example.org"), ("eva", "eva@other.org")):
        put(fake, "individual", name, roles=["user"], emails=[email])
    put(fake, "group", "box", roles=["user"], emails=["box@example.org"], members=["uwe"])
    put(fake, "list", "news", emails=["news@example.org"], members=["box", "uwe"], externalMembers=["a@gmail.com"])
    return fake


def put(fake, kind, name, **more):
    return change(fake, "POST", "/api/principal", {"type": kind, "name": name, **more})


def patch(fake, name, action, field, value):
    return change(fake, "PATCH", f"/api/principal/{name}", [{"action": action, "field": field, "value": value}])


def rules(fake, *pairs):
    store(fake, *pairs)
    assert change(fake, "GET", "/api/reload")["errors"] == {}


def test_mail_reaches_accounts_groups_and_what_a_list_names(fake):
    assert fake.mailboxes("uwe@example.org") == {"uwe"}
    assert fake.mailboxes("Uwe+shop@example.org") == {"uwe"}
    assert fake.mailboxes("box@example.org") == {"box"}
    assert fake.mailboxes("news@example.org") == {"box", "uwe", "a@gmail.com"}
    assert fake.mailboxes("nobody@example.org") == set()
    assert fake.mailboxes("b@gmail.com") == {"b@gmail.com"}


def test_a_group_without_the_permission_to_receive_gets_no_mail(fake):
    put(fake, "group", "mute", emails=["mute@example.org"], members=["uwe"])
    assert fake.mailboxes("mute@example.org") == set()
    answer = ask(fake, "PATCH", "/api/principal/mute", [{"action": "addItem", "field": "roles", "value": "user"}])
    assert answer[1]["reason"] == 'Principal "user" cannot be added as a member.'
    patch(fake, "mute", "addItem", "enabledPermissions", "email-receive")
    assert fake.mailboxes("mute@example.org") == {"mute"}


def test_a_list_hands_nothing_on_to_another_list(fake):
    put(fake, "list", "all", emails=["all@example.org"], externalMembers=["news@example.org", "eva@other.org"])
    assert fake.mailboxes("all@example.org") == {"eva"}


def test_a_catch_all_is_an_address_of_its_owner_and_can_be_off_for_all_domains(fake):
    patch(fake, "uwe", "addItem", "emails", "@example.org")
    assert fake.mailboxes("nobody@example.org") == {"uwe"}
    assert fake.mailboxes("nobody@other.org") == set()
    rules(fake, ("session.rcpt.catch-all", "false"))
    assert fake.mailboxes("nobody@example.org") == set()


def test_sub_addressing_is_off_for_all_domains_or_by_a_rule_for_one(fake):
    rules(fake, *PLAIN)
    assert (fake.mailboxes("uwe+a@example.org"), fake.mailboxes("eva+a@other.org")) == ({"uwe"}, set())
    change(fake, "POST", "/api/settings", [{"type": "clear", "prefix": "session.rcpt."}])
    rules(fake, ("session.rcpt.sub-addressing", "false"))
    assert (fake.mailboxes("uwe+a@example.org"), fake.mailboxes("uwe@example.org")) == (set(), {"uwe"})


def test_other_domains_mean_the_same_by_a_rule_that_rewrites(fake):
    rules(fake, *ALIAS)
    assert fake.mailboxes("uwe@one.org") == fake.mailboxes("uwe+a@two.org") == {"uwe"}
    assert fake.mailboxes("nobody@one.org") == set()
    assert fake.mailboxes("eva@one.org") == set()


def test_a_rule_counts_after_a_reload(fake):
    store(fake, ("session.rcpt.sub-addressing", "false"))
    assert fake.mailboxes("uwe+a@example.org") == {"uwe"}
