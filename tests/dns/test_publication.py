"""Whether name servers show a record: by meaning, and by what each of them said."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.dns.publication import Answer, Publication, Question, publication, question
from reconciler.dns.records import dkim_record, record
from reconciler.resources import UNKNOWN

ZONE = "mana.how"
KEY = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="  # RFC 8463, appendix A
OTHER = "AAAAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURoA="
# 1024 bits, as SubjectPublicKeyInfo and as PKCS#1: RFC 6376, appendix C
SPKI = (
    "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDwIRP/UC3SBsEmGqZ9ZJW3/DkMoGeLnQg1fWn7/zYtIxN2SnFCjxOCKG9v3b4jYfcTNh5ijSsq"
    "631uBItLa7od+v/RtdC2UzJ1lWT947qR+Rcac2gbto/NMqJ0fzfVjH4OuKhitdY9tf6mcwGjaNBcWToIMmPSPDdQPNUYckcQ2QIDAQAB"
)
PKCS1 = base64.b64encode(base64.b64decode(SPKI)[22:]).decode()
WANTED = dkim_record(ZONE, ZONE, "s1", "ed25519", KEY)
RSA = dkim_record(ZONE, ZONE, "r1", "rsa", SPKI)


def seen(wanted, *values):
    return publication(wanted, {question(wanted): (Answer("ns1", values),)})


@pytest.mark.parametrize(
    "value",
    [
        f"v=DKIM1; k=ed25519; h=sha256; p={KEY}",
        f"k=ed25519;p={KEY};",
        f" p = {KEY} ; k = ed25519 ",
        f"v=DKIM1; k=ed25519; s=*; t=; p={KEY}",
        f"v=DKIM1; k=ed25519; s=email; t=s; n=for us; p={KEY}",
        f"v=DKIM1; k=ed25519; h=sha1:sha256; p={KEY[:20]} {KEY[20:]}",
    ],
)
def test_a_key_is_shown_whatever_way_it_is_written(value):
    assert seen(WANTED, value).everywhere


@pytest.mark.parametrize("value", [f"p={SPKI}", f"v=DKIM1; p={PKCS1}", f"v=DKIM1; k=rsa; h=sha256; p={SPKI}"])
def test_an_rsa_key_is_the_same_in_both_wrappings_and_without_its_algorithm(value):
    assert seen(RSA, value).everywhere


@pytest.mark.parametrize(
    "value",
    [
        "",
        "v=DKIM1; k=ed25519; p=",
        f"v=DKIM1; k=ed25519; p={OTHER}",
        f"v=DKIM1; p={KEY}",
        f"v=DKIM1; k=rsa; p={SPKI}",
        f"v=DKIM1; k=ed25519; t=y; p={KEY}",
        f"v=DKIM1; k=ed25519; t=s : y; p={KEY}",
        f"v=DKIM1; k=ed25519; h=sha1; p={KEY}",
        f"v=DKIM1; k=ed25519; s=tlsrpt; p={KEY}",
        f"v=DKIM2; k=ed25519; p={KEY}",
        f"v=DKIM1; k=ed25519; p={KEY}p={KEY}",
        f"v=DKIM1; k=ed25519; p={KEY}v=DKIM1; k=ed25519; p={KEY}",
        f"v=DKIM1; k=ed25519; h=sha256; p={OTHER}; p={KEY}",
        f'"v=DKIM1; k=ed25519; p={KEY}"',
        f"v=DKIM1; k=ed25519; p={KEY[:-4]}",
        "v=spf1 -all",
    ],
)
def test_what_no_receiver_verifies_with_is_not_shown(value):
    assert seen(WANTED, value) == Publication(missing=("ns1",))


def test_a_key_has_to_be_alone_at_its_name():
    assert not seen(WANTED, str(WANTED.content), "v=spf1 -all").everywhere
    assert not seen(WANTED, str(WANTED.content), str(WANTED.content)).everywhere


def test_a_key_that_is_not_known_yet_is_shown_nowhere():
    assert not seen(dkim_record(ZONE, ZONE, "s1", "ed25519", UNKNOWN), str(WANTED.content)).everywhere


@pytest.mark.parametrize(
    ("wanted", "value"),
    [
        (record(ZONE, "CNAME", "brevo1._domainkey", "B1.mana-how.dkim.brevo.com."), "b1.mana-how.dkim.brevo.com"),
        (record(ZONE, "MX", "send", "feedback.example", priority=10), "10 feedback.example"),
        (record(ZONE, "TXT", "@", '"brevo-code:abc"'), "brevo-code:abc"),
        (record(ZONE, "AAAA", "mail", "2001:db8:0:0::1"), "2001:db8::1"),
        (record(ZONE, "SRV", "_x._tcp", "1 2 25 mail.mana.how"), "1 2 25 mail.mana.how."),
        (record(ZONE, "CAA", "@", '0 issue "ca.example"'), '0 issue "ca.example"'),
        (record("müller.de", "TXT", "@", "x"), "x"),
    ],
)
def test_other_records_are_among_their_neighbours(wanted, value):
    assert seen(wanted, "192.0.2.99", value).everywhere
    assert seen(wanted, "other").missing


def test_what_is_missing_and_what_is_unread_are_two_things():
    asked = question(WANTED)
    answers = {asked: (Answer("ns1", (str(WANTED.content),)), Answer("ns2"), Answer("ns3", unread="it fails"))}
    found = publication(WANTED, answers)
    assert found == Publication(("ns1",), ("ns2",), (("ns3", "it fails"),))
    assert found.words == "ns2 does not show it yet; ns3 could not be asked (it fails)"
    assert publication(WANTED, {}).words == "no authoritative name server was found"
    assert seen(WANTED, str(WANTED.content)).words == ""


ANSWERS = st.lists(
    st.builds(
        Answer,
        st.uuids().map(str),
        st.lists(st.sampled_from([str(WANTED.content), "v=DKIM1; p=", f"k=ed25519; p={OTHER}", "x"]), max_size=3).map(
            tuple
        ),
        st.sampled_from(["", "", "no answer in time"]),
    ),
    max_size=5,
    unique_by=lambda answer: answer.server,
)


@given(ANSWERS)
def test_everywhere_means_that_each_server_showed_exactly_this_key(answers):
    found = publication(WANTED, {question(WANTED): tuple(answers)})
    right = [not answer.unread and answer.values == (str(WANTED.content),) for answer in answers]
    assert found.everywhere == (bool(right) and all(right))
    assert bool(found.words) == (not found.everywhere)
    assert len(found.shown) + len(found.missing) + len(found.unread) == len(answers)


@given(st.text(max_size=60))
def test_any_text_can_be_judged(text):
    assert not seen(WANTED, text).everywhere
    assert seen(record(ZONE, "TXT", "@", "wanted"), text).everywhere == (text == "wanted")


@given(st.permutations(["v=DKIM1", "k=ed25519", "h=sha256", f"p={KEY}", "s=*", "n=note"]), st.sampled_from(";,; , ;"))
def test_the_order_of_tags_means_nothing(tags, separator):
    value = f"{separator} ".join(tags)
    assert seen(WANTED, value).everywhere == (separator == ";")


def test_a_question_is_about_the_full_name():
    assert question(record(ZONE, "TXT", "@", "x")) == Question(ZONE, "TXT")
    assert question(dkim_record("müller.de", "müller.de", "s1", "ed25519", KEY)).host == (
        "s1._domainkey.xn--mller-kva.de"
    )
