"""Records as a person writes them: what Cloudflare or a receiver would refuse is told at its place, and before."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from properties import tries

from reconciler.desired.load import doubts, load
from reconciler.problem import InvalidDirectory
from reconciler.simulator.cloudflare import Cloudflare, Refusal

ZONE = "mana.how"
DIGEST = "ab" * 32
MAIL = {"type": "A", "name": "mail", "content": "192.0.2.1"}
EXCHANGE = {"type": "MX", "name": "@", "priority": 10, "content": "mail.mana.how"}


def judged(path: Path, *records: dict, zone: str = ZONE, warnings: bool = False) -> list[tuple[str, str]]:
    """Load records of a zone; return where each problem is, below the zone, and what it says."""
    text = yaml.safe_dump({"version": 1, "stack": "mana", "dns": {zone: list(records)}}, allow_unicode=True)
    (path / "a.yaml").write_text(text)
    try:
        loaded = load(path)
        found = doubts(loaded) if warnings else ()
    except InvalidDirectory as error:
        found = error.problems
    told = (item.where.partition(": ")[2] for item in found)
    return [(where.removeprefix(f"dns.{zone}"), str(item)) for where, item in zip(told, found, strict=True)]


def text(name: str, content: str, **more: object) -> dict:
    return {"type": "TXT", "name": name, "content": content, **more}


# ------------------------------------------------------------------------------------------------ D1: names and hosts
@pytest.mark.parametrize("type", ["MX", "CNAME", "NS", "PTR"])
@pytest.mark.parametrize(
    ("content", "remedy"),
    [
        ("https://mail.mana.how", "write mail.mana.how"),
        ("https://user@mail.mana.how:8443/path?x=1", "write mail.mana.how"),
        ("mail.mana.how:25", "write mail.mana.how"),
        ("postmaster@mana.how", "write mana.how"),
        ("192.0.2.1", "make an A record"),
        ("2001:db8::1", "make an AAAA record"),
        ("*.mana.how", "a wildcard answers for other names"),
        ("mail.mana.how,b.mana.how", "write mail.mana.how"),
        ("[192.0.2.1]", "write a host"),
    ],
)
def test_d1_what_is_no_host_is_told_with_what_to_write(tmp_path, type, content, remedy):
    priority = {"priority": 10} if type == "MX" else {}
    ((where, said),) = judged(tmp_path, {"type": type, "name": "x", "content": content, **priority})
    assert where == "[0].content"
    assert remedy in said


@pytest.mark.parametrize("target", ["https://x.example", "192.0.2.1", "2001:db8::1", "x.example:587", "*.x.example"])
@pytest.mark.parametrize("type", ["SRV", "HTTPS", "NAPTR"])
def test_d1_a_target_among_parts_is_judged_as_any_other(tmp_path, type, target):
    data = {
        "SRV": {"priority": 0, "weight": 0, "port": 587, "target": target},
        "HTTPS": {"priority": 1, "target": target},
        "NAPTR": dict.fromkeys(("order", "preference"), 1)
        | {"flags": "S", "service": "x", "regex": "", "replacement": target},
    }
    ((where, _),) = judged(tmp_path, {"type": type, "name": "_x._tcp", "data": data[type]})
    assert where == ("[0].data.replacement" if type == "NAPTR" else "[0].data.target")


@pytest.mark.parametrize("content", ["shop.example/path", "shop.example/24", "a/b.example"])
@pytest.mark.parametrize("type", ["CNAME", "PTR"])
def test_d1_an_address_on_the_web_is_no_alias(tmp_path, content, type):
    assert judged(tmp_path, {"type": type, "name": "x", "content": content})[0][0] == "[0].content"


def test_u18_what_to_write_is_said_once(tmp_path):
    ((_, said),) = judged(tmp_path, {"type": "URI", "name": "_x._tcp", "priority": 1, "content": "https://x.example"})
    assert said.count("weight target") == 1


@pytest.mark.parametrize("content", ["mail.mana.how/", "192.0.2.1/24", "1.2.3"])
def test_d1_only_an_alias_may_lead_to_what_is_no_machine(tmp_path, content):
    assert judged(tmp_path, EXCHANGE | {"content": content})[0][0] == "[0].content"
    assert judged(tmp_path, {"type": "CNAME", "name": "1", "content": "1.0/25.2.0.192.in-addr.arpa"}) == []  # RFC 2317


def test_d1_the_records_own_name_is_no_target(tmp_path):
    ((where, said),) = judged(tmp_path, {"type": "CNAME", "name": "www", "content": "www.mana.how"})
    assert (where, "alias of itself" in said) == ("[0].content", True)


# ---------------------------------------------------------------------------------------------- D2: ranges and widths
@pytest.mark.parametrize(
    ("type", "content", "part"),
    [
        ("SRV", "0 0 99999 mail.mana.how", "port"),
        ("TLSA", f"9 1 1 {DIGEST}", "usage"),
        ("TLSA", f"3 2 1 {DIGEST}", "selector"),
        ("SMIMEA", f"3 1 3 {DIGEST}", "matching_type"),
        ("TLSA", "3 1 0 abc", "TLSA"),
        ("SSHFP", f"9 2 {DIGEST}", "algorithm"),
        ("SSHFP", f"4 3 {DIGEST}", "type"),
        ("DS", f"1 0 2 {DIGEST}", "algorithm"),
        ("DS", f"1 13 9 {DIGEST}", "digest_type"),
        ("DNSKEY", "257 4 13 AAAA", "protocol"),
        ("CAA", '300 issue "ca.example"', "flags"),
        ("CAA", '0 issu "ca.example"', "tag"),
        ("CAA", '0 issue "https://ca.example"', "value"),
        ("CAA", '0 issue "ca.example; nonsense"', "value"),
        ("CAA", '0 issuewild "a b"', "value"),
        ("CAA", '0 iodef "security@mana.how"', "value"),
        ("LOC", "91 0 0 N 0 0 0 E 0m 1m 1m 1m", "LOC"),
        ("LOC", "90 0 1 N 0 0 0 E 0m 1m 1m 1m", "lat_degrees"),
        ("LOC", "0 0 0 N 180 1 0 E 0m 1m 1m 1m", "long_degrees"),
        ("LOC", "0 0 0 N 0 0 0 E -100001m 1m 1m 1m", "altitude"),
        ("LOC", "0 0 0 N 0 0 0 E 0m 90000001m 1m 1m", "size"),
        ("AAAA", "fe80::1%eth0", "IPv6"),
    ],
)
def test_d2_a_number_that_means_nothing_is_refused_at_its_part(tmp_path, type, content, part):
    ((where, said),) = judged(tmp_path, {"type": type, "name": "_x._tcp", "content": content})
    assert where == "[0].content"
    assert part in said


@pytest.mark.parametrize(
    "content",
    [
        *('0 issue ";"', '0 issue ""', '128 issuewild "ca.example"', '0 issue "ca.example; validationmethods=dns-01"'),
        *('0 iodef "mailto:a@mana.how"', '0 issuemail "ca.example"', '0 issue "ca.example;accounturi=https://x/1;a=b"'),
    ],
)
def test_d2_what_authorities_understand_passes(tmp_path, content):
    assert judged(tmp_path, {"type": "CAA", "name": "@", "content": content}) == []


@pytest.mark.parametrize(
    "name", ["submission", "_submission", "submission._tcp", "_submission.tcp", "@", "*", "*._tcp"]
)
def test_d2_an_srv_stands_at_a_service_and_a_protocol(tmp_path, name):
    record = {"type": "SRV", "content": "0 0 587 mail.mana.how"}
    ((where, said),) = judged(tmp_path, record | {"name": name})
    assert where == "[0].name"
    assert "_imaps._tcp" in said
    assert judged(tmp_path, record | {"name": "_submission._tcp"}, record | {"name": "_imap._tcp.eu"}) == []


# ------------------------------------------------------------------------------------------ D3, D4, D7: what excludes
@pytest.mark.parametrize(
    "pair",
    [
        (EXCHANGE, {"type": "MX", "name": "@", "content": "."}),
        ({"type": "NS", "name": "sub", "content": "ns1.example"}, text("sub", "x")),
        ({"type": "NS", "name": "sub", "content": "ns1.example"}, EXCHANGE | {"name": "sub"}),
        ({"type": "CNAME", "name": "x", "content": "a.example"}, text("x", "v=spf1 -all")),
        tuple({"type": "MX", "name": "@", "content": ".", "priority": number} for number in (0, 5)),
        tuple({"type": "SRV", "name": "_imaps._tcp", "content": it} for it in ("0 0 0 .", "0 1 993 mail.mana.how")),
        tuple({"type": "HTTPS", "name": "www", "content": it} for it in ("0 cdn.example", "1 . alpn=h2")),
        tuple({"type": "SVCB", "name": "_x", "content": it} for it in ("0 a.example", "0 b.example")),
    ],
)
def test_d3_what_allows_nothing_beside_it_stands_alone(tmp_path, pair):
    for order in (pair, pair[::-1]):
        ((where, said),) = judged(tmp_path, *order)
        assert where in ("[0]", "[1]")
        assert "keep one" in said


def test_d3_a_delegation_goes_with_its_ds_and_its_glue(tmp_path):
    delegation = [{"type": "NS", "name": "sub", "content": f"ns{number}.example"} for number in (1, 2)]
    signer = {"type": "DS", "name": "sub", "content": f"1 13 2 {DIGEST}"}
    glue = {"type": "A", "name": "ns.sub", "content": "192.0.2.1"}
    assert judged(tmp_path, *delegation, signer, glue, warnings=True) == []
    ((where, said),) = judged(tmp_path, *delegation, text("deep.sub", "x"), warnings=True)
    assert where == "[2].name"
    assert "nobody sees it" in said


@pytest.mark.parametrize(("type", "content"), [("DS", f"1 13 2 {DIGEST}"), ("NS", "ns1.example")])
def test_d3_what_belongs_to_the_zone_above_is_refused_at_the_zone_itself(tmp_path, type, content):
    ((where, said),) = judged(tmp_path, {"type": type, "name": "@", "content": content})
    assert where == "[0].name"
    assert "registrar" in said


def test_d3_a_ds_without_its_delegation_is_warned_of(tmp_path):
    signer = {"type": "DS", "name": "sub", "content": f"1 13 2 {DIGEST}"}
    assert judged(tmp_path, signer) == []
    ((where, said),) = judged(tmp_path, signer, warnings=True)
    assert (where, "has no NS beside it" in said) == ("[0].name", True)


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("_mta-sts", "v=STSv1; id=1", "v=STSv1;id=2"),
        ("_smtp._tls", "v=TLSRPTv1; rua=mailto:a@mana.how", "v=TLSRPTv1;rua=mailto:b@mana.how"),
        ("s1._domainkey", "v=DKIM1; p=", "k=rsa; p=AAAA"),
        ("_dmarc", "v=DMARC1; p=none", "v = DMARC1 ; p=reject"),
        ("default._bimi", "v=BIMI1; l=", "v=BIMI1;l=https://mana.how/a.svg"),
        ("@", "v=spf1 -all", "V=SPF1 mx -all"),
    ],
)
def test_d4_a_policy_stands_once(tmp_path, name, first, second):
    ((where, said),) = judged(tmp_path, text(name, first), text(name, second))
    assert where == "[1]"
    assert "a.yaml:" in said.partition("the first is ")[2]


def test_d7_the_zones_own_alias_stands_beside_mail(tmp_path):
    apex = {"type": "CNAME", "name": "@", "content": "host.example"}
    assert judged(tmp_path, apex, EXCHANGE | {"content": ZONE}) == []
    assert judged(tmp_path, apex, MAIL | {"name": "@"}) != []


# --------------------------------------------------------------------------------------------- D6: texts as pasted
@pytest.mark.parametrize(
    ("name", "pasted", "right"),
    [
        ("_dmarc", "v=DMARC1\\; p=none", "v=DMARC1; p=none"),
        ("_dmarc", "v=DMARC1;\u00a0p=none", "v=DMARC1; p=none"),
        ("_dmarc", "v=DMARC1; p=none; rua=“mailto:a@mana.how”", "v=DMARC1; p=none; rua=mailto:a@mana.how"),
        ("_dmarc", 'v=DMARC1; p=none; rua="mailto:a@mana.how"', "v=DMARC1; p=none; rua=mailto:a@mana.how"),
        ("@", "v=spf1\u200b mx -all", "v=spf1 mx -all"),
        ("@", "v=spf1 mx –all", "v=spf1 mx -all"),
        ("s1._domainkey", '( "v=DKIM1; k=rsa; " "p=" )', "v=DKIM1; k=rsa; p="),
    ],
)
def test_d6_a_pasted_policy_is_told_with_the_value_to_write(tmp_path, name, pasted, right):
    found = judged(tmp_path, text(name, pasted), warnings=True)
    assert found[0][0] == "[0].content"
    assert f'write content: "{right}"' in found[0][1]
    assert judged(tmp_path, text(name, right), warnings=True) == [] or name == "s1._domainkey"


# ------------------------------------------------------------------------------------------- D8: valid, and no use
@pytest.mark.parametrize(
    ("records", "place", "said"),
    [
        ([MAIL | {"ttl": 300}, MAIL | {"content": "192.0.2.2", "ttl": 600}], "[1].ttl", "another ttl than a.yaml:"),
        ([MAIL | {"proxied": True}, MAIL | {"content": "192.0.2.2"}], "[1].proxied", "Cloudflare then proxies both"),
        ([EXCHANGE], "[0].content", "no address is declared"),
        ([EXCHANGE, text("mail", "x")], "[0].content", "no address is declared"),
        ([EXCHANGE | {"content": "mail.mana.how.mana.how"}, MAIL], "[0].content", "no address is declared"),
        ([EXCHANGE | {"content": "mail"}, MAIL], "[0].content", "mail.mana.how"),
        (
            [{"type": "SRV", "name": "_imaps._tcp", "content": "0 1 993 imap.mana.how"}],
            "[0].content",
            "no address is declared",
        ),
        ([EXCHANGE, MAIL | {"content": "192.168.1.5"}], "[0].content", "leads to 192.168.1.5, which nobody outside"),
        ([{"type": "TLSA", "name": "mail", "content": f"3 1 1 {DIGEST}"}], "[0].name", "like _25._tcp.mail"),
        ([{"type": "SMIMEA", "name": "ann", "content": f"3 1 1 {DIGEST}"}], "[0].name", "HASH._smimecert"),
        ([{"type": "OPENPGPKEY", "name": "ann", "content": "AQID"}], "[0].name", "HASH._openpgpkey"),
        ([MAIL | {"name": "mail.mana.com"}], "[0].name", "did you mean mail?"),
        ([MAIL | {"name": "mana.hwo"}], "[0].name", "did you mean @?"),
    ],
)
def test_d8_what_would_be_stored_and_serve_nobody_is_warned_of(tmp_path, records, place, said):
    assert judged(tmp_path, *records) == []
    ((where, told),) = judged(tmp_path, *records, warnings=True)
    assert where == place
    assert said in told


@pytest.mark.parametrize(
    "records",
    [
        [EXCHANGE, MAIL],
        [EXCHANGE, MAIL | {"name": "*"}],
        [EXCHANGE, {"type": "AAAA", "name": "mail", "content": "2001:db8::1"}],
        [EXCHANGE | {"content": "mx.example.net"}],
        [EXCHANGE | {"content": "mail.sub.mana.how"}, {"type": "NS", "name": "sub", "content": "ns1.example"}],
        [{"type": "MX", "name": "@", "content": "."}],
        [MAIL | {"ttl": 300}, MAIL | {"type": "AAAA", "content": "2001:db8::1", "ttl": 600}],
        [EXCHANGE, MAIL, MAIL | {"content": "192.168.1.5"}],
        [{"type": "TLSA", "name": "_25._tcp.mail", "content": f"3 1 1 {DIGEST}"}],
        [{"type": "TLSA", "name": "*._tcp", "content": f"3 1 1 {DIGEST}"}],
        [
            {"type": "TLSA", "name": "dane", "content": f"3 1 1 {DIGEST}"},
            {"type": "CNAME", "name": "_25._tcp", "content": f"dane.{ZONE}"},
        ],
        [{"type": "OPENPGPKEY", "name": f"{'a1' * 28}._openpgpkey", "content": "AQID"}],
    ],
)
def test_d8_what_is_served_is_not_warned_of(tmp_path, records):
    assert judged(tmp_path, *records, warnings=True) == []


# --------------------------------------------------------------------------------------------------- D9: where it is
@pytest.mark.parametrize(
    ("zone", "said"),
    [
        ("ma na.how", "is no domain name"),
        ("https://mana.how", "write mana.how"),
        ("mana.how:53", "write mana.how"),
        ("192.0.2.1", "is an address"),
        ("mana", "is no zone"),
        ("ma\u200bna.how", "ZERO WIDTH SPACE"),
        ("mana.how\u00a0", "NO-BREAK SPACE"),
        ("ma\u00adna.how", "SOFT HYPHEN"),
    ],
)
def test_d9_a_wrong_zone_is_told_once_and_as_that(tmp_path, zone, said):
    ((_, told),) = judged(tmp_path, MAIL, text("b", "x"), zone=zone)
    assert said in told
    assert "content" not in told


@pytest.mark.parametrize("name", ["a b", "a..b", "a:b", "ma\u200bil", "ma\u00adil", "a@b", "x*"])
def test_d9_a_wrong_name_is_told_at_the_name_whatever_the_content(tmp_path, name):
    for record in (MAIL, EXCHANGE, text("x", "y")):
        ((where, _),) = judged(tmp_path, record | {"name": name})
        assert where == "[0].name"


# ------------------------------------------------------------------------------------------------------- D10: lengths
def test_d10_a_text_and_all_texts_of_a_name_have_bounds(tmp_path):
    ((where, said),) = judged(tmp_path, text("x", "a" * 4081))
    assert (where, "4098 bytes" in said) == ("[0].content", True)
    assert judged(tmp_path, text("x", "a" * 4079)) == []
    ((where, said),) = judged(tmp_path, *(text("x", letter * 3000) for letter in "abc"))
    assert (where, "9000 bytes together" in said) == ("[2]", True)
    assert judged(tmp_path, *(text(letter, letter * 3000) for letter in "abc")) == []


# -------------------------------------------------------------------- D12: what we let through, Cloudflare takes
PIECES = st.sampled_from(
    [
        *("mail.mana.how", "https://x.example", "192.0.2.1", "2001:db8::1", "*.x.example", "x.example:25", ".", "a..b"),
        *("@", "0/25.example", "_x.example", "-x.example", "a b", "x" * 64 + ".example", "1.2.3", "mail"),
    ]
)
NAMES = st.sampled_from(["@", "mail", "*.x", "_imaps._tcp", "x._tcp", "-edge-", "0/25", "a..b", "a b", "*x", "Bücher"])


@settings(max_examples=tries(60))
@given(NAMES, st.sampled_from(["MX", "CNAME", "NS", "PTR", "SRV"]), PIECES)
def test_d12_what_is_valid_is_taken_by_the_api(tmp_path_factory, name, type, content):
    if type == "SRV":
        value = {"data": {"priority": 1, "weight": 1, "port": 25, "target": content}}
    else:
        value = {"content": content} | ({"priority": 1} if type == "MX" else {})
    record = {"type": type, "name": name, **value}
    if judged(tmp_path_factory.mktemp("d12"), record):
        return
    try:
        Cloudflare([ZONE]).add(ZONE, **record, ttl=1)
    except Refusal as refusal:
        raise AssertionError(refusal.chain) from None


# ----------------------------------------------------------------------- U10: what a hint says to do clears the problem
@pytest.mark.parametrize(
    "content",
    [
        "https://mail.mana.how",
        "mail.mana.how:25",
        "postmaster@mail.mana.how",
        "mail.mana.how/",
        "smtp://mail.mana.how:587",
    ],
)
@pytest.mark.parametrize("type", ["MX", "CNAME", "NS", "PTR"])
def test_u10_writing_what_the_hint_says_clears_the_problem(tmp_path, type, content):
    record = {"type": type, "name": "x", "content": content} | ({"priority": 1} if type == "MX" else {})
    found = judged(tmp_path, record)
    written = found[0][1].partition("(write ")[2].rstrip(")")
    assert judged(tmp_path, record | {"content": written}) == []


@pytest.mark.parametrize(
    "provider", ["{host: mail.example.net, port: 587, username: u, password: {env: P}, api_key: {env: K}}"]
)
def test_u10_an_api_key_that_leads_nowhere_is_told_to_go(tmp_path, provider):
    head = "version: 1\nstack: t\nsmtp: {providers: {p: "
    (tmp_path / "a.yaml").write_text(f"{head}{provider}}}}}\n")
    with pytest.raises(InvalidDirectory, match="take it away"):
        load(tmp_path)
    (tmp_path / "a.yaml").write_text(f"{head}{provider.replace(', api_key: {env: K}', '')}}}}}\n")
    load(tmp_path)
