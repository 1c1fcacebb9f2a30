"""Records as values: what means the same is equal, what does not is not."""

import base64
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.dns import records, types
from reconciler.dns.records import dkim_record
from reconciler.dns.text import quoted
from reconciler.resources import UNKNOWN, UNMANAGED, Record

ED25519 = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="  # RFC 8463, appendix A
ZONE = "mana.how"


def make(type, name="www", content=None, **rest):
    return records.record(ZONE, type, name, content, **rest)


@pytest.fixture(scope="module")
def rsa():
    """An RSA key's public half as PKCS#1 and as SubjectPublicKeyInfo."""
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(65537, 1024).public_key()
    shapes = (form.PublicFormat.PKCS1, form.PublicFormat.SubjectPublicKeyInfo)
    return [base64.b64encode(key.public_bytes(form.Encoding.DER, shape)).decode() for shape in shapes]


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("@", "@"),
        ("", "@"),
        ("mana.how", "@"),
        ("MANA.how.", "@"),
        ("Mail", "mail"),
        ("mail.mana.how", "mail"),
        ("mail.mana.how.", "mail"),
        ("*.apps", "*.apps"),
        ("_DMARC", "_dmarc"),
        ("münchen", "xn--mnchen-3ya"),
        ("MÜNCHEN.mana.how", "xn--mnchen-3ya"),
        ("例え。mana.how", "xn--r8jz45g"),
        ("*.例え", "*.xn--r8jz45g"),
        ("notmana.how", "notmana.how"),
    ],
)
def test_names_are_relative_lower_case_and_punycode(written, name):
    assert make("A", written, "192.0.2.1").name == name


@pytest.mark.parametrize("name", ["www.example.com.", "a b", "a..b", "x" * 64, ".".join(["abcdefgh"] * 30), '"'])
def test_what_is_no_name_of_the_zone_is_refused(name):
    with pytest.raises(ValueError, match=r"outside|no|not"):
        make("A", name, "192.0.2.1")


def test_the_zone_itself_is_normalised():
    assert (
        records.record("Münch.example.", "A", "www.münch.example", "192.0.2.1").address
        == "dns/xn--mnch-0ra.example/A/www"
    )


@pytest.mark.parametrize(
    ("type", "one", "other"),
    [
        ("CNAME", "Mail.Mana.HOW.", "mail.mana.how"),
        ("CNAME", "@", "mana.how"),
        ("CNAME", "münchen.example", "xn--mnchen-3ya.example"),
        ("NS", "NS1.example.", "ns1.example"),
        ("PTR", "Host.Example.", "host.example"),
        ("AAAA", "2001:DB8:0:0::1", "2001:db8::1"),
        ("TXT", '"a b"', "a b"),
        ("TXT", '"a" "b"', "ab"),
        ("TXT", r'"a\"b\\c\059"', 'a"b\\c;'),
        ("TXT", r'"\195\188"', "ü"),
        ("SRV", "10 5 587 Mail.mana.how.", "10 5 587 mail.mana.how"),
        ("CAA", "0 ISSUE letsencrypt.org", '0 issue "letsencrypt.org"'),
        ("TLSA", "3 1 1 AB CD", "3 1 1 abcd"),
        ("SSHFP", "4 2 ABCD", "4 2 abcd"),
        ("DS", "1 13 2 AB CD", "1 13 2 abcd"),
        ("HTTPS", '1 . alpn="h3,h2" ipv4hint=192.0.2.1', '1 . ipv4hint="192.0.2.1" alpn=h3,h2'),
        ("SVCB", "0 Svc.Example.", "0 svc.example"),
        ("OPENPGPKEY", "AAAA BBBB", "AAAABBBB"),
        ("LOC", "52 22 23.000 N 4 53 32 E -2.00m 0m 10000m 10m", "52 22 23 n 4 53 32.0 e -2m 0.00m 10000m 10m"),
        ("NAPTR", '1 2 "s" "SIP+D2U" "" _sip._udp.mana.how.', '1 2 S SIP+D2U "" _sip._udp.mana.how'),
        ("CERT", "1 2 3 AA AA", "1 2 3 AAAA"),
        ("DNSKEY", "257 3 13 AA AA", "257 3 13 AAAA"),
        ("SMIMEA", "3 1 1 AB", "3 1 1 ab"),
    ],
)
def test_what_means_the_same_is_equal(type, one, other):
    assert make(type, content=one) == make(type, content=other)


@pytest.mark.parametrize(
    ("type", "content", "data"),
    [
        ("SRV", "10 5 587 mail.mana.how", {"priority": 10, "weight": 5, "port": 587, "target": "mail.mana.how."}),
        ("SRV", "0 0 0 .", {"priority": 0, "weight": 0, "port": 0, "target": False, "proto": "_tcp"}),
        ("SRV", "0 0 1 @", {"priority": 0, "weight": 0, "port": 1, "target": "mana.how"}),
        ("CAA", '128 iodef "mailto:a@b.example"', {"flags": "128", "tag": "iodef", "value": "mailto:a@b.example"}),
        ("CAA", '0 issue ";"', {"flags": 0, "tag": "issue", "value": ";"}),
        ("CAA", r'0 issue "a \"b\""', {"flags": 0, "tag": "issue", "value": 'a "b"'}),
        ("HTTPS", "1 .", {"priority": 1, "target": ".", "value": ""}),
        ("TLSA", "3 1 1 ab", {"usage": 3, "selector": 1, "matching_type": 1, "certificate": "AB"}),
    ],
)
def test_content_and_data_are_two_ways_to_write_one_record(type, content, data):
    assert make(type, content=content) == make(type, data=data) == make(type, content="rendered otherwise", data=data)


def test_a_priority_may_stand_before_beside_or_inside():
    assert (
        make("MX", content="10 mail")
        == make("MX", content="mail.", priority=10)
        == make("MX", content="mail", data={"priority": 10})
    )
    assert make("SRV", content="5 587 mail", priority=10) == make("SRV", content="10 5 587 mail")
    data = {"weight": 1, "target": "https://mana.how"}
    assert make("URI", content='5 1 "https://mana.how"') == make("URI", data=data, priority=5)
    assert make("URI", data=data, priority=5).priority == 5
    assert make("SRV", content="10 5 587 mail").priority is None
    assert make("MX", content=".") == make("MX", content=".", priority=0)
    assert make("MX", content="mail", priority=0) != make("MX", content="mail", priority=1)


@pytest.mark.parametrize(
    ("type", "content", "rest"),
    [
        ("A", "2001:db8::1", {}),
        ("A", "mail.mana.how", {}),
        ("AAAA", "192.0.2.1", {}),
        ("A", None, {}),
        ("TXT", "", {}),
        ("TXT", '""', {}),
        ("MX", "mail.mana.how", {}),
        ("MX", "10 mail.mana.how", {"priority": 20}),
        ("SPF", "v=spf1 -all", {}),
        ("SRV", "5 587 mail", {}),
        ("SRV", None, {}),
        ("SRV", None, {"data": {"priority": 1, "weight": 1, "target": "x"}}),
        ("CAA", "x issue y", {}),
        ("TLSA", "3 1 1 xyz", {}),
        ("CNAME", "a b", {}),
        ("LOC", "x 22 23 N 4 53 32 E 1m 1m 1m 1m", {}),
    ],
)
def test_what_makes_no_record_is_said(type, content, rest):
    with pytest.raises(ValueError, match=r"\w"):
        make(type, content=content, **rest)


@pytest.mark.parametrize("text", ['"', '""x', 'a"', '"a', '"a" b "c"', "\\", r'"\"', "it's `so`", "a ; b;", ' " '])
def test_text_that_is_no_strings_stays_as_it_is(text):
    assert make("TXT", content=text).content == text


@pytest.mark.parametrize("size", [1, 254, 255, 256, 509, 510, 511, 764, 765, 766])
def test_strings_hold_255_bytes(size):
    wire = quoted("x" * size)
    assert [len(part) for part in re.findall(r'"(x*)"', wire)] == [255] * (size // 255) + [size % 255] * (
        size % 255 > 0
    )
    assert make("TXT", content=wire).content == "x" * size


@given(st.text(min_size=1, max_size=700).filter(lambda text: not (text[0] == text[-1] == '"')))
def test_any_text_survives_the_wire(text):
    wire = quoted(text)
    assert re.fullmatch(r'"[ -~]*"', wire)
    assert make("TXT", content=wire) == make("TXT", content=text)


def test_ttl_comment_and_proxied_have_one_form():
    assert make("A", content="192.0.2.1", ttl="auto").ttl == 1
    assert make("A", content="192.0.2.1", ttl=300).ttl == 300
    assert make("A", content="192.0.2.1", ttl=300, proxied=True).ttl == 1
    assert make("A", content="192.0.2.1").comment is UNMANAGED
    assert make("A", content="192.0.2.1", comment="").comment is None
    assert make("A", content="192.0.2.1", comment=" a ").comment == "a"


class TestDkim:
    @pytest.mark.parametrize(
        "text",
        [
            f"v=DKIM1; k=ed25519; h=sha256; p={ED25519}",
            f"k=ed25519;p={ED25519};",
            f" p = {ED25519[:20]} {ED25519[20:]} ;\n k=ed25519 ; t= ; s=* ; v=DKIM1",
            f'"v=DKIM1; k=ed25519; " "p={ED25519}"',
        ],
    )
    def test_a_key_is_compared_by_meaning(self, text):
        record = make("TXT", "mana2026._domainkey", text)
        assert record.content == f"v=DKIM1; k=ed25519; h=sha256; p={ED25519}"
        assert record == dkim_record(ZONE, ZONE, "mana2026", "ed25519", ED25519)

    def test_pkcs1_and_spki_are_one_key(self, rsa):
        pkcs1, spki = (make("TXT", "x._domainkey", f"v=DKIM1; p={key}") for key in rsa)
        assert pkcs1 == spki == dkim_record(ZONE, ZONE, "x", "rsa", rsa[1])
        assert quoted(spki.content).startswith('"v=DKIM1; k=rsa; h=sha256; p=')

    @pytest.mark.parametrize("tag", ["t=y", "s=email", "h=sha1", "n=note", "p="])
    def test_what_means_something_else_differs(self, tag):
        plain = f"v=DKIM1; k=ed25519; p={ED25519}"
        other = "v=DKIM1; k=ed25519; p=" if tag == "p=" else f"{plain}; {tag}"
        assert make("TXT", "x._domainkey", plain) != make("TXT", "x._domainkey", other)
        assert tag in make("TXT", "x._domainkey", other).content

    @pytest.mark.parametrize(
        "text",
        ["o=~", "v=DKIM1; p=!", f"v=DKIM1; p={ED25519}", "v=DKIM2; p=", "p=a; p=b", "v=DKIM1; k=new; p=AAAA", ";;"],
    )
    def test_what_can_not_be_understood_stays_as_it_is(self, text):
        assert make("TXT", "x._domainkey", text).content == text

    def test_only_keys_are_rewritten(self):
        assert make("TXT", "x", f"k=ed25519;p={ED25519}").content == f"k=ed25519;p={ED25519}"
        assert make("TXT", "x", f"v=DKIM1;k=ed25519;p={ED25519}").content.endswith(f"; p={ED25519}")

    def test_a_zone_may_be_a_parent_of_the_domain(self):
        record = dkim_record(ZONE, "news.mana.how", "s1", "ed25519", UNKNOWN)
        assert record.address == "dns/mana.how/TXT/s1._domainkey.news"
        assert record.content is UNKNOWN
        with pytest.raises(ValueError, match="outside"):
            dkim_record(ZONE, "example.com", "s1", "ed25519", ED25519)


@pytest.mark.parametrize(
    ("comment", "text", "stack"),
    [
        (None, None, None),
        ("", None, None),
        ("web", "web", None),
        ("reconciler:main", None, "main"),
        ("web reconciler:main", "web", "main"),
        ("a reconciler:other reconciler:main", "a reconciler:other", "main"),
        ("reconciler:main, see wiki", "reconciler:main, see wiki", None),
        ("areconciler:main", "areconciler:main", None),
        ("reconciler:Main", "reconciler:Main", None),
        ("reconciler:", "reconciler:", None),
        (f"reconciler:{'x' * 25}", f"reconciler:{'x' * 25}", None),
    ],
)
def test_the_mark_is_a_whole_word_at_the_end(comment, text, stack):
    assert records.owner(comment) == (text, stack)


@given(
    st.text(st.characters(categories=("L", "N", "Zs")), max_size=110), st.from_regex(r"[a-z0-9-]{1,24}", fullmatch=True)
)
def test_a_mark_is_found_again_or_does_not_fit(text, stack):
    text = text.strip() or None
    comment = records.marked(text, stack)
    if comment is None:
        assert len(text) + len(f" reconciler:{stack}") > 100
    else:
        assert len(comment) <= 100
        assert records.owner(comment) == (text, stack)


@pytest.mark.parametrize(
    ("record", "head"),
    [
        (make("TXT", "@", "v=spf1 a mx ~all"), "spf1"),
        (make("TXT", "_dmarc", "v=DMARC1; p=none"), "DMARC1"),
        (make("TXT", "@", "google-site-verification=abc"), "google-site-verification"),
        (make("TXT", "@", "brevo-code:0123"), "brevo-code"),
        (make("TXT", "@", "hello, world"), "hello-world"),
        (make("A", "@", "192.0.2.1"), "192.0.2.1"),
        (make("AAAA", "@", "2001:db8::1"), "2001:db8::1"),
        (make("MX", "@", "mail.mana.how", priority=10), "mail.mana.how"),
        (make("SRV", "_x._tcp", "1 2 3 mail.mana.how"), "mail.mana.how"),
        (make("CAA", "@", "0 issue letsencrypt.org"), "issue:letsencrypt.org"),
        (Record(ZONE, "TXT", "x", UNKNOWN), ""),
    ],
)
def test_the_head_tells_values_apart(record, head):
    assert records.head(record) == head


def test_numbers_go_out_as_numbers():
    record = make("LOC", "x", "52 22 23.5 N 4 53 32 E -2.00m 0m 10000m 10m")
    assert types.wire(record.type, dict(record.data))["lat_seconds"] == 23.5
    assert types.wire(record.type, dict(record.data))["altitude"] == -2


def test_no_library_is_loaded_for_records_without_parts():
    code = (
        "import sys; from reconciler.dns.records import check_data, record;"
        "check_data(record('mana.how', 'MX', '@', '10 mail')); check_data(record('mana.how', 'TXT', '@', 'x'));"
        "sys.exit('dns' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
