"""Groups, lists and domains of the fake Stalwart 0.16, as a real one answered and delivered.

`groups-0.16.18.jsonl` is a recording of a real 0.16.18, made for this test: one call and its answer a line.
"""

import json
from pathlib import Path

import pytest
from simulator.stalwart.jmap.client import MANUAL, PASSWORD, change, create, one, request, run, server


def test_answers_as_the_real_server_did():
    fake = server()
    recording = Path(__file__).with_name("groups-0.16.18.jsonl").read_text(encoding="utf-8")
    for line in recording.splitlines():
        real = json.loads(line)
        assert json.loads(request(fake, real["call"]).body)["methodResponses"][0][:2] == real["answer"], line


@pytest.fixture
def fake():
    """A server with two domains, an account in each, a group and a list."""
    fake = server()
    domain = create(fake, "Domain", name="example.org", aliases={"example.net": True}, **MANUAL)
    other = create(fake, "Domain", name="other.org", subAddressing={"@type": "Disabled"}, **MANUAL)
    group = create(fake, "Account", **{"@type": "Group"}, name="box", domainId=domain)
    secret = {"credentials": {"0": {"@type": "Password", "secret": PASSWORD}}}
    create(fake, "Account", **{"@type": "User"}, name="uwe", domainId=domain, memberGroupIds={group: True}, **secret)
    create(fake, "Account", **{"@type": "User"}, name="eva", domainId=other, **secret)
    recipients = {"box@example.org": True, "eva@other.org": True, "a@gmail.com": True}
    create(fake, "MailingList", name="news", domainId=domain, recipients=recipients)
    return fake


def test_mail_reaches_accounts_groups_and_what_a_list_names(fake):
    assert fake.mailboxes("uwe@example.org") == {"uwe@example.org"}
    assert fake.mailboxes("Box@example.net") == {"box@example.org"}
    assert fake.mailboxes("news@example.org") == {"box@example.org", "eva@other.org", "a@gmail.com"}
    assert fake.mailboxes("nobody@example.org") == set()
    assert fake.mailboxes("b@gmail.com") == {"b@gmail.com"}


def test_sub_addressing_is_a_matter_of_each_domain(fake):
    assert fake.mailboxes("uwe+shop@example.net") == {"uwe@example.org"}
    assert fake.mailboxes("eva+shop@other.org") == set()


def test_a_list_hands_nothing_on_to_another_list(fake):
    create(
        fake, "MailingList", name="all", domainId="b", recipients={"news@example.org": True, "uwe@example.org": True}
    )
    assert fake.mailboxes("all@example.org") == {"uwe@example.org"}


def test_a_catch_all_gets_what_nobody_has_under_every_name_of_the_domain(fake):
    change(fake, "Domain", "b", catchAllAddress="eva@other.org")
    assert fake.mailboxes("nobody@example.net") == {"eva@other.org"}
    change(fake, "Domain", "c", catchAllAddress="nobody@example.org")
    change(fake, "Domain", "b", catchAllAddress="nobody@other.org")
    assert fake.mailboxes("nobody@example.org") == set()


def test_lists_in_an_object_count_from_zero_when_they_are_read(fake):
    change(fake, "Account", "b", aliases={"3": {"name": "x", "domainId": "b"}, "7": {"name": "y", "domainId": "b"}})
    found = one(fake, "x:Account/get", {"ids": ["b"]})["list"][0]["aliases"]
    assert [(key, item["name"]) for key, item in found.items()] == [("0", "x"), ("1", "y")]


def test_no_reload_is_needed_for_an_address(fake):
    assert "created" in run(fake, "InvalidateCaches")
    create(fake, "MailingList", name="late", domainId="b", recipients={"uwe@example.org": True})
    assert fake.mailboxes("late@example.org") == {"uwe@example.org"}
