"""The table of types: what dnspython refuses no part accepts, and what is wrong is said where it stands."""

import dns.name
import dns.rdata
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.dns.records import InvalidRecord, check_data, excludes, policy, record
from reconciler.dns.types import TYPES, zone_file
from reconciler.names import host, invisible

ZONE = "mana.how"
GOOD = {
    "CAA": '0 issue "letsencrypt.org; accounturi=https://x"',
    "CERT": "1 2 3 AAAA",
    "DNSKEY": "257 3 13 AAAA",
    "DS": f"1 13 2 {'ab' * 32}",
    "HTTPS": '1 . alpn="h2,h3" port=443',
    "LOC": "52 22 23.5 N 4 53 32 E -2.00m 0m 10000m 10m",
    "NAPTR": r'10 10 "S" "SIP+D2U" "!^.*\\.$!sip:\"x\"@y!" _sip._udp.mana.how',
    "OPENPGPKEY": "AAAA",
    "SMIMEA": f"3 1 1 {'ab' * 32}",
    "SRV": "0 1 587 mail.mana.how",
    "SSHFP": f"4 2 {'ab' * 32}",
    "SVCB": "0 svc.example",
    "TLSA": f"3 1 1 {'ab' * 32}",
    "URI": '10 1 "https://mana.how/?a=b;c"',
}


def make(type, content=None, name=None, **rest):
    return record(ZONE, type, name or ("_x._tcp" if type == "SRV" else "www"), content, **rest)


def test_every_type_with_parts_has_an_example():
    assert GOOD.keys() - {"OPENPGPKEY"} == {kind for kind, row in TYPES.items() if row.parts}


@pytest.mark.parametrize("type", GOOD)
def test_what_a_type_may_hold_passes(type):
    made = make(type, GOOD[type])
    check_data(made)
    if made.data:
        again = make(type, data=dict(made.data), priority=made.priority)
        check_data(again)
        assert again == made


@pytest.mark.parametrize(
    ("type", "content", "place"),
    [
        ("SRV", "0 1 99999 mail.mana.how", ("data", "port")),
        ("CAA", '300 issue "x"', ("data", "flags")),
        ("CAA", '0 is-sue "x"', ("data", "tag")),
        ("TLSA", "3 1 1 abc", ("data",)),
        ("TLSA", "3 1 1 abcd", ("data",)),
        ("TLSA", f"300 1 1 {'ab' * 32}", ("data", "usage")),
        ("SSHFP", "4 2 abcd", ("data",)),
        ("DS", "1 13 2 abcd", ("data",)),
        ("LOC", "91 0 0 N 0 0 0 E 0 1 1 1", ("data",)),
        ("HTTPS", "1 . nonsense=1", ("data",)),
        ("HTTPS", "70000 .", ("data", "priority")),
        ("CERT", "70000 2 3 AAAA", ("data",)),
        ("URI", '10 1 ""', ("data",)),
        ("OPENPGPKEY", "A", ("content",)),
    ],
)
def test_what_it_may_not_hold_is_refused_at_its_place(type, content, place):
    with pytest.raises(InvalidRecord) as caught:
        check_data(make(type, content))
    assert caught.value.place == place


PIECES = st.one_of(
    st.integers(-1, 70000).map(str),
    st.sampled_from(["N", "E", "issue", "mail.mana.how", ".", "1_0", "+1", "0x1", "1e3", "nan", "inf", "ab" * 32]),
    st.text(st.characters(codec="ascii"), max_size=8),
    st.text(st.characters(categories=("Nd", "L", "P", "Zs", "Cf")), max_size=5),
)


@given(st.data())
def test_no_part_accepts_what_dnspython_refuses(data):
    kind = data.draw(st.sampled_from([kind for kind, row in TYPES.items() if row.parts]))
    good = dict(make(kind, GOOD[kind]).data)
    part = data.draw(st.sampled_from(list(TYPES[kind].parts)))
    given = good | {part: data.draw(PIECES)}
    priority = 10 if TYPES[kind].prioritised else None
    try:
        made = make(kind, data=given, priority=priority)
        check_data(made)
    except InvalidRecord:
        return
    dns.rdata.from_text("IN", kind, zone_file(kind, dict(made.data), priority), origin=dns.name.root)


@pytest.mark.parametrize(
    ("arguments", "place"),
    [
        (("ma na.how", "A", "www", "192.0.2.1"), ("zone",)),
        ((ZONE, "A", "a b", "192.0.2.1"), ("name",)),
        ((ZONE, "A", "www.example.com.", "192.0.2.1"), ("name",)),
        ((ZONE, "MX", "@", "mail"), ("priority",)),
        ((ZONE, "A", "www", "192.0.2.999"), ("content",)),
        ((ZONE, "CNAME", "www", "a b"), ("content",)),
        ((ZONE, "SRV", "www", "x"), ("content",)),
    ],
)
def test_a_mistake_is_put_where_it_is(arguments, place):
    with pytest.raises(InvalidRecord) as caught:
        record(*arguments)
    assert caught.value.place == place


def test_a_mistake_in_a_part_names_the_part():
    with pytest.raises(InvalidRecord, match="port of SRV") as caught:
        make("SRV", data={"priority": 0, "weight": 0, "port": "x", "target": "."})
    assert caught.value.place == ("data", "port")


@pytest.mark.parametrize(
    ("name", "said"),
    [("ma\u00a0il", "NO-BREAK SPACE"), ("ma\u200eil", "LEFT-TO-RIGHT MARK")],
)
def test_an_invisible_character_is_called_by_its_name(name, said):
    with pytest.raises(ValueError, match=f"invisible character {said}"):
        host(name)
    assert invisible("mail b") == ""


def test_policies_that_stand_once():
    texts = {"SPF": "v=spf1 -all", "DMARC": "v=DMARC1; p=none", "TLSRPT": "v=TLSRPTv1; rua=mailto:a@b.example"}
    texts |= {"MTA-STS": "v=STSv1; id=1", "BIMI": "v=BIMI1; l=https://x", "DKIM": "v=DKIM1; p="}
    assert {label: policy(make("TXT", content)).label for label, content in texts.items()} == {it: it for it in texts}
    assert policy(make("TXT", "anything", name="s1._domainkey")).label == "DKIM"
    assert policy(make("TXT", "v=spf10")) is policy(make("A", "192.0.2.1")) is None


def test_an_alias_stands_alone_but_at_the_zone_itself():
    alias, root = make("CNAME", "mail"), make("CNAME", "mail.example", name="@")
    assert excludes(alias, make("TXT", "x"))
    assert not excludes(make("TXT", "x"), alias)
    assert excludes(root, make("A", "192.0.2.1", name="@"))
    assert not excludes(root, make("MX", "10 mail", name="@"))
