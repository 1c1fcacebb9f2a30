"""SPF's grammar: what RFC 7208 gives as examples, and each way to miss it."""

from ipaddress import ip_network

import pytest

from reconciler.dns.policies.reading import mended
from reconciler.dns.policies.spf import Macro, parse, pieces

# RFC 7208: sections 1.2, 3, 5, 6, 7.4 and appendix A, and the terms that its grammar allows.
VALID = [
    "v=spf1 +mx a:colo.example.com/28 -all",
    "v=spf1 a:authorized-spf.example.org -all",
    "v=spf1 +all",
    "v=spf1 a -all",
    "v=spf1 a:example.org -all",
    "v=spf1 mx -all",
    "v=spf1 mx:example.org -all",
    "v=spf1 mx mx:example.org -all",
    "v=spf1 mx/30 mx:example.org/30 -all",
    "v=spf1 ip4:192.0.2.128/28 -all",
    "v=spf1 include:example.com include:example.net -all",
    "v=spf1 exists:%{ir}.%{l1r+-}._spf.%{d} -all",
    "v=spf1 redirect=example.com",
    "v=spf1 redirect=_spf.example.com",
    "v=spf1 -include:ip4._spf.%{d} -include:ptr._spf.%{d} +all",
    "v=spf1 mx:example.com include:example.net. -all",
    "v=spf1 exists:%{ir}.sbl.example.org -all",
    "v=spf1 mx -all exp=explain._spf.%{d}",
    "v=spf1 exists:_h.%{h}._l.%{l}._o.%{o}._i.%{i}._spf.%{d} ?all",
    "v=spf1 a mx/24//64 a:example.org//48 ip6:2001:db8::/32 ip6:::1 ~all",
    "v=spf1 ip4:0.0.0.0/0 ip6:::ffff:192.0.2.1/128 -all",
    "v=spf1   A  MX:Example.ORG   -ALL  ",
    "v=spf1 exists:%{i}.100/86400.rate.%{d} a:%%%_/.example.de/27 -all",
    "v=spf1 ra=postmaster rp=100 rr=e:f moo=cow.%{d} -all",
    "v=spf1 include:a.b.example -all",
    "v=spf1 a:xn--bcher-kva.example a:mail.x-1 -all",
]


@pytest.mark.parametrize("text", VALID)
def test_what_is_right_is_read_without_a_word(text):
    read = parse(text)
    assert (read.is_valid, read.faults) == (True, ())


def test_terms_are_typed():
    value = parse("v=spf1 ?a:x.example/24//64 -ip4:192.0.2.5/24 ip6:2001:db8::1 ~all exp=e.%{d}").value
    a, four, six, end = value.terms
    assert (a.qualifier, a.name, a.domain, a.prefix4, a.prefix6) == ("?", "a", "x.example", 24, 64)
    assert (four.qualifier, four.network) == ("-", ip_network("192.0.2.0/24"))
    assert (six.qualifier, six.network) == ("+", ip_network("2001:db8::1"))
    assert (end.qualifier, end.name, value.exp, value.redirect) == ("~", "all", "e.%{d}", "")
    assert pieces("%{ir}.%{L1r+-}._spf%%.%{d}x") == (
        Macro("i", reverse=True),
        ".",
        Macro("L", 1, reverse=True, delimiters="+-"),
        "._spf",
        "%",
        ".",
        Macro("d"),
        "x",
    )


def test_look_ups_are_those_that_can_be_reached():
    ten = " ".join(f"a:h{number}.example" for number in range(10))
    assert parse(f"v=spf1 {ten} -all").value.lookups == 10
    assert parse(f"v=spf1 {ten} ip4:192.0.2.1 -all exp=x.example").value.lookups == 10
    assert parse(f"v=spf1 {ten} -all mx").value.lookups == 10
    for more in ("mx -all", "redirect=x.example", "?include:x.example -all", "ptr -all", "exists:%{i}.x.example -all"):
        read = parse(f"v=spf1 {ten} {more}")
        assert read.value is None
        assert any("11 look-ups" in fault.cause for fault in read.faults)


# A text, the piece that is told, a word of its cause, and the text put right; empty where that is not evident.
BROKEN = [
    ("v=spf1 ip4:192.0.2.300 -all", "ip4:192.0.2.300", "no IPv4 address", ""),
    ("v=spf1 ip4:192.0.02.1 -all", "ip4:192.0.02.1", "no IPv4 address", ""),
    ("v=spf1 ip4:192.0.2 -all", "ip4:192.0.2", "no IPv4 address", ""),
    ("v=spf1 ip4:192.0.2.1/33 -all", "ip4:192.0.2.1/33", "0 to 32", ""),
    ("v=spf1 ip4:192.0.2.0/024 -all", "ip4:192.0.2.0/024", "0 to 32", ""),
    ("v=spf1 ip4: -all", "ip4:", "no address", ""),
    ("v=spf1 ip4:2001:db8::1 -all", "ip4:2001:db8::1", "behind ip6:", "v=spf1 ip6:2001:db8::1 -all"),
    ("v=spf1 ip6:192.0.2.1 -all", "ip6:192.0.2.1", "behind ip4:", "v=spf1 ip4:192.0.2.1 -all"),
    ("v=spf1 ip6:2001:db8::1/129 -all", "ip6:2001:db8::1/129", "0 to 128", ""),
    ("v=spf1 ip6:fe80::1%eth0 -all", "ip6:fe80::1%eth0", "no IPv6 address", ""),
    ("v=spf1 ip4:192.0.2.0/255.255.255.0 -all", "ip4:192.0.2.0/255.255.255.0", "mask", "v=spf1 ip4:192.0.2.0/24 -all"),
    ("v=spf1 192.0.2.1 -all", "192.0.2.1", "behind ip4:", "v=spf1 ip4:192.0.2.1 -all"),
    ("v=spf1 -a:192.0.2.1 -all", "-a:192.0.2.1", "behind ip4:", "v=spf1 -ip4:192.0.2.1 -all"),
    ("v=spf1 ipv4:192.0.2.1 -all", "ipv4:192.0.2.1", "no mechanism", "v=spf1 ip4:192.0.2.1 -all"),
    ("v=spf1 includ:x.example -all", "includ:x.example", "no mechanism", "v=spf1 include:x.example -all"),
    ("v=spf1 ~inclde:x.example -all", "~inclde:x.example", "no mechanism", "v=spf1 ~include:x.example -all"),
    ("v=spf1 include -all", "include", "no domain", ""),
    ("v=spf1 include: -all ", "include:", "domain", ""),
    ("v=spf1 include: x.example -all", "include: x.example", "blank", "v=spf1 include:x.example -all"),
    ("v=spf1 mx - all", "- all", "blank", "v=spf1 mx -all"),
    ("v=spf1 mx-all", "mx-all", "blank before all", "v=spf1 mx -all"),
    ("v=spf1 ip4:192.0.2.1~all", "ip4:192.0.2.1~all", "blank before all", "v=spf1 ip4:192.0.2.1 ~all"),
    ("v=spf1 mx, a -all", "mx,", "behind it", "v=spf1 mx a -all"),
    ("v=spf1 mx,a,-all", "mx,a,-all", "between", "v=spf1 mx a -all"),
    ("v=spf1 mx -all;", "-all;", "behind it", "v=spf1 mx -all"),
    ("v=spf1 mx -all:x.example", "-all:x.example", "behind all", "v=spf1 mx -all"),
    ("v=spf1 a:mail -all", "a:mail", "no whole domain", ""),
    ("v=spf1 a:mail.example:8080 -all", "a:mail.example:8080", "no whole domain", ""),
    ("v=spf1 a:x.example/33 -all", "a:x.example/33", "more bits", ""),
    ("v=spf1 mx//129 -all", "mx//129", "more bits", ""),
    ("v=spf1 mx/ -all", "mx/", "colon", "v=spf1 mx -all"),
    ("v=spf1 include:https://x.example/ -all", "include:https://x.example/", "web", "v=spf1 include:x.example -all"),
    ("v=spf1 exists:%{i.x.example -all", "exists:%{i.x.example", "no macro", ""),
    ("v=spf1 exists:%{z}.x.example -all", "exists:%{z}.x.example", "no macro", ""),
    ("v=spf1 exists:%i.x.example -all", "exists:%i.x.example", "no macro", ""),
    ("v=spf1 exists:%{i0}.x.example -all", "exists:%{i0}.x.example", "takes no part", ""),
    ("v=spf1 exists:%{t}.x.example -all", "exists:%{t}.x.example", "explanations only", ""),
    ("v=spf1 moo=%x -all", "moo=%x", "no macro", ""),
    ("v=spf1 redirect:x.example", "redirect:x.example", "modifier", "v=spf1 redirect=x.example"),
    ("v=spf1 -redirect=x.example", "-redirect=x.example", "modifier", "v=spf1 redirect=x.example"),
    ("v=spf1 redirect= -all", "redirect=", "domain", ""),
    ("v=spf1 redirect=a.example redirect=b.example", "redirect=b.example", "second", ""),
    ("v=spf1 exp=a.example exp=b.example -all", "exp=b.example", "second", ""),
    ("v=spf1 mail.x.example -all", "mail.x.example", "no mechanism", ""),
    ("v=spf1 = -all", "=", "no mechanism", ""),
    ("v=spf1 a:\u00fc.example -all", "a:\u00fc.example", "character", ""),
]


@pytest.mark.parametrize(("text", "piece", "cause", "right"), BROKEN)
def test_what_breaks_a_record_is_told_with_its_very_term(text, piece, cause, right):
    read = parse(text)
    assert read.value is None
    [fault] = [fault for fault in read.faults if fault.breaks]
    assert (fault.piece, text[fault.at : fault.at + len(piece)]) == (piece, piece)
    assert cause in fault.cause
    assert (mended(text, [fault]) if fault.instead is not None else "") == right
    assert right == "" or parse(right).is_valid
    assert right or fault.hint


DOUBTED = [
    ("v=spf1", "", "no all", "v=spf1 ~all"),
    ("v=spf1 mx", "", "no all", "v=spf1 mx ~all"),
    ("v=spf1 mx ~all -all", "-all", "second all", "v=spf1 mx ~all"),
    ("v=spf1 -all ip4:192.0.2.1", "ip4:192.0.2.1", "behind all", ""),
    ("v=spf1 ptr -all", "ptr", "skip", ""),
    ("v=spf1 -all redirect=x.example", "", "both", ""),
    ("v=spf1 v=spf1 -all", "v=spf1", "second version", "v=spf1 -all"),
    ("v=spf1 ip4=192.0.2.1 -all", "ip4=192.0.2.1", "ignored", "v=spf1 ip4:192.0.2.1 -all"),
    ("v=spf1 redirct=x.example -all", "redirct=x.example", "ignored", "v=spf1 redirect=x.example -all"),
    ("v=spf1 a:x.example-all", "a:x.example-all", "no blank", "v=spf1 a:x.example -all"),
    ("v=spf1 include:a@b.example -all", "include:a@b.example", "no domain can be called", ""),
    ("v=spf1 include:a..example -all", "include:a..example", "empty or longer", ""),
]


@pytest.mark.parametrize(("text", "piece", "cause", "right"), DOUBTED)
def test_what_is_valid_and_hardly_meant_is_doubted(text, piece, cause, right):
    read = parse(text)
    assert read.is_valid
    [fault] = [fault for fault in read.faults if cause in fault.cause]
    assert (fault.piece, fault.breaks) == (piece, False)
    assert (mended(text, [fault]) if fault.instead is not None else "") == right
    assert right or fault.hint


def test_a_record_that_is_there_to_be_included_needs_no_end():
    assert parse("v=spf1 ip4:192.0.2.1", "_spf.x.example").faults == ()


@pytest.mark.parametrize("text", ["", "v=spf10 mx", "v=spf1;", "spf1 -all", " v=spf1 -all"])
def test_another_version_is_no_record(text):
    assert parse(text).value is None
