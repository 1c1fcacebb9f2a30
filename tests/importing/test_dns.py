"""Which records mail depends on, and whether each comes back as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from reconciler.importing.dns import records
from reconciler.resources import Live, Setting
from reconciler.resources import Record as Resource

from .conftest import told

if TYPE_CHECKING:
    from .conftest import Parts

MAIL = [
    ("MX", "@", "mx1.mana.how", {"priority": 10}),
    ("A", "mx1", "192.0.2.1", {"ttl": 300}),
    ("AAAA", "mx1", "2001:db8::1", {}),
    ("A", "post", "192.0.2.2", {}),  # what the server calls itself
    ("CNAME", "autoconfig", "post.mana.how", {"proxied": True}),
    ("CNAME", "mail", "box.mana.how", {}),
    ("A", "box", "192.0.2.3", {}),  # the target of an alias
    ("TXT", "@", "v=spf1 mx -all", {}),
    ("TXT", "@", "brevo-code:abc", {"comment": "for the fallback"}),
    ("TXT", "_dmarc", "v=DMARC1; p=reject", {}),
    ("TXT", "_smtp._tls", "v=TLSRPTv1; rua=mailto:a@b.example", {}),
    ("TXT", "_mta-sts", "v=STSv1; id=1", {}),
    ("TXT", "default._bimi", "v=BIMI1; l=", {}),
    ("TXT", "s1._domainkey", 'v=DKIM1; n="odd \\ one; p=', {}),
    ("TXT", "*.news", 'v=spf1 moo="x" -all', {}),
    ("TXT", "_dmarc.xn--bcher-kva", "v=DMARC1; p=none", {}),
    ("CNAME", "brevo1._domainkey", "b1.mana-how.dkim.brevo.com", {}),
    ("CNAME", "pm-bounces", "pm.mtasv.net", {}),
    ("SRV", "_imaps._tcp", None, {"data": {"priority": 0, "weight": 1, "port": 993, "target": "post.mana.how"}}),
    ("TLSA", "_25._tcp.mx1", f"3 1 1 {'ab' * 32}", {}),
]
OTHERS = [
    ("A", "@", "192.0.2.80", {}),
    ("A", "www", "192.0.2.81", {}),
    ("TXT", "@", "google-site-verification=abc", {}),
    ("SRV", "_minecraft._tcp", "0 5 25565 www.mana.how", {"priority": 0}),
    ("TLSA", "_443._tcp.www", f"3 1 1 {'ab' * 32}", {}),
    ("CNAME", "shop", "shops.example.com", {}),
    ("CAA", "@", '0 issue "letsencrypt.org"', {}),
]


def entries(parts: Parts, zone: list[Any], draft: Any) -> list[Any]:
    found = parts.found(server=parts.server(Setting("hostname", "post.mana.how")), zone=zone)
    return list(records(found, (), draft)["mana.how"])


@pytest.mark.parametrize("item", MAIL, ids=lambda item: f"{item[0]} {item[1]}")
def test_a_record_about_mail_is_written(parts: Parts, item: Any) -> None:
    draft, (type_, name, content, more) = parts.draft(), item
    written = entries(parts, [parts.record(*it[:3], **it[3]) for it in MAIL], draft)
    assert [it for it in written if (it["type"], it["name"]) == (type_, name)]
    assert draft.notes == []
    for field in more.keys() - {"data"}:
        assert any(it.get(field) == more[field] for it in written if it["type"] == type_), content


def test_others_are_left_out_and_said(parts: Parts) -> None:
    draft = parts.draft()
    written = entries(parts, [parts.record(*it[:3], **it[3]) for it in (*MAIL, *OTHERS)], draft)
    assert len(written) == len(MAIL)
    assert f"{len(OTHERS)} records are not about mail" in told(draft)
    assert "A www" in told(draft)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"fixed": "Cloudflare keeps it itself (Email Routing)"}, "Email Routing"),
        ({"owner": "other"}, "the stack other"),
        ({"ttl": 30}, "60 to 86400"),
    ],
)
def test_what_cant_be_ours_is_left_out_and_said(parts: Parts, more: dict[str, Any], why: str) -> None:
    draft = parts.draft()
    assert entries(parts, [parts.record("MX", "@", "mx1.mana.how", priority=1, **more)], draft) == []
    assert why in told(draft)


@pytest.mark.parametrize(
    ("name", "head", "label"),
    [
        ("@", "v=spf1", "SPF"),
        ("_smtp._tls", "v=TLSRPTv1;", "TLSRPT"),
        ("_mta-sts", "v=STSv1;", "MTA-STS"),
        ("default._bimi", "v=BIMI1;", "BIMI"),
        ("s1._domainkey", "v=other;", "DKIM"),
    ],
)
def test_a_second_policy_is_left_out_and_said(parts: Parts, name: str, head: str, label: str) -> None:
    draft = parts.draft()
    zone = [parts.record("TXT", name, f"{head} {end}") for end in ("-all", "~all")]
    assert len(entries(parts, zone, draft)) == 1
    assert f"{head} ~all: it is a second {label} record" in told(draft)


def test_what_validate_would_refuse_is_left_out_and_said(parts: Parts) -> None:
    draft = parts.draft()
    assert entries(parts, [parts.record("TLSA", "_25._tcp.mx1", "3 1 1 abab")], draft) == []
    assert "left out: it can't be written so that it comes back as it is" in told(draft)


@pytest.mark.parametrize("text", ["v=spf1 {{x}} -all", "v=spf1 ip4:{public_ip} -all", "v=spf1 {x} -all"])
def test_braces_that_would_mean_something_else_are_left_out_and_said(parts: Parts, text: str) -> None:
    draft = parts.draft()
    assert entries(parts, [parts.record("TXT", "@", text)], draft) == []
    assert "left out" in told(draft)


def test_macros_of_spf_come_back(parts: Parts) -> None:
    text = "v=spf1 exists:%{ir}.x.example -all"
    (entry,) = entries(parts, [parts.record("TXT", "@", text)], parts.draft())
    assert entry["content"] == text


@pytest.mark.parametrize("host", [("A", "192.0.2.1", {"proxied": True}), ("CNAME", "box.mana.how", {})])
def test_an_exchange_that_takes_no_mail_is_left_out_and_said(parts: Parts, host: Any) -> None:
    draft, (type_, content, more) = parts.draft(), host
    zone = [parts.record("MX", "@", "mx1.mana.how", priority=1), parts.record(type_, "mx1", content, **more)]
    assert [entry["type"] for entry in entries(parts, zone, draft)] == [type_]
    assert "MX/@: left out: its host mx1.mana.how is" in told(draft)


@pytest.mark.parametrize(
    "comment",
    ["api token: dGhpcyBpcyBhIGNhbmFyeQ", "xkeysib-0f1e2d3c4b5a69788796a5b4c3d2e1f0", "https://me:canary@x.how"],
)
@pytest.mark.parametrize("owner", [None, "mana"])
def test_t3_a_secret_in_a_comment_stays_where_it_is(parts: Parts, comment: str, owner: str | None) -> None:
    draft = parts.draft()
    found = [parts.record("MX", "@", "mx1.mana.how", priority=1, comment=comment, owner=owner)]
    [entry] = entries(parts, found, draft)
    assert "comment" not in entry
    assert "its comment is left out: it looks like a secret" in told(draft)
    assert comment not in told(draft)


@pytest.mark.parametrize("comment", ["x" * 95, "about reconciler:mana and more"])
def test_a_comment_that_cant_be_declared_is_nobodys(parts: Parts, comment: str) -> None:
    draft = parts.draft()
    [entry] = entries(parts, [parts.record("MX", "@", "mx1.mana.how", priority=1, comment=comment)], draft)
    assert "comment" not in entry


def test_d5_an_exchange_that_only_a_proxied_wildcard_answers_for_is_left_out_and_said(parts: Parts) -> None:
    draft = parts.draft()
    zone = [parts.record("MX", "@", "in.mana.how", priority=1), parts.record("A", "*", "192.0.2.1", proxied=True)]
    assert [entry["type"] for entry in entries(parts, zone, draft)] == ["A"]
    assert "in.mana.how is proxied" in told(draft)


def test_the_host_that_a_wildcard_serves(parts: Parts) -> None:
    zone = [parts.record("MX", "@", "in.mana.how", priority=1), parts.record("A", "*", "192.0.2.1")]
    assert len(entries(parts, zone, parts.draft())) == 2


OURS = [
    *OTHERS,
    ("TXT", "@", "not a word about mail", {}),
    ("HTTPS", "@", "1 . alpn=h2", {}),
    ("NS", "dev", "ns1.example.net", {}),
]


@pytest.mark.parametrize("item", OURS, ids=lambda item: f"{item[0]} {item[1]} {item[2]}")
def test_l6_what_bears_our_mark_is_imported_whatever_it_is(parts: Parts, item: Any) -> None:
    draft, (type_, name, content, more) = parts.draft(), item
    [entry] = entries(parts, [parts.record(type_, name, content, owner="mana", **more)], draft)
    assert (entry["type"], entry["name"]) == (type_, name)
    [note] = draft.notes
    assert (note.where, note.summary) == ("stack mana", "1 record bears the mark of a stack of this name already")


def test_l6_an_exchange_of_ours_is_imported_even_where_a_plan_then_refuses_it(parts: Parts) -> None:
    draft = parts.draft()
    zone = [parts.record("MX", "@", "web.mana.how", priority=1, owner="mana"), parts.record("A", "web", "192.0.2.1")]
    zone[1:] = [parts.record("A", "web", "192.0.2.1", proxied=True)]
    assert [entry["type"] for entry in entries(parts, zone, draft)] == ["MX", "A"]
    assert "until then plans are refused" in told(draft)


def test_l6_what_bears_our_mark_and_cant_be_written_is_said_to_go(parts: Parts) -> None:
    draft = parts.draft()
    zone = [parts.record("TXT", "@", f"v=spf1 {end}", owner="mana") for end in ("-all", "~all")]
    assert len(entries(parts, zone, draft)) == 1
    assert "the first apply removes it" in told(draft)


def test_l10_what_cant_be_understood_is_left_out_with_a_note(parts: Parts) -> None:
    draft = parts.draft()
    made = Resource("mana.how", "SRV", "_imaps._tcp", "None")
    zone = [Live(made, "1", "mana", "it can't be understood (SRV needs data)", unread=True), parts.record(*MAIL[1][:3])]
    assert entries(parts, zone, draft) == []
    assert "dns/mana.how/SRV/_imaps._tcp: left out: it can't be understood" in told(draft)


def test_a_policy_that_receivers_cannot_read_is_imported_as_it_is_and_told(parts: Parts) -> None:
    draft, text = parts.draft(), "v=DMARC1\\; p=none"
    [entry] = entries(parts, [parts.record("TXT", "_dmarc", text)], draft)
    assert entry["content"] == text
    assert "dns/mana.how/TXT/_dmarc[DMARC1]: DMARC: stands in the brackets, quotes or escapes" in told(draft)
    assert 'write content: "v=DMARC1; p=none"' in told(draft)


def test_d3_of_records_that_say_the_opposite_one_is_imported(parts: Parts) -> None:
    zone = [parts.record("MX", "@", ".", priority=0), parts.record("MX", "@", "mx.example", priority=10)]
    draft = parts.draft()
    assert [it["content"] for it in entries(parts, zone, draft)] == ["mx.example"]
    assert "says that no mail is taken" in told(draft)
    assert [it["content"] for it in entries(parts, zone[:1], parts.draft())] == ["."]
