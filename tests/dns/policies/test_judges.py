"""Our verdict beside that of others: pyspf for SPF; checkdmarc for DMARC, MTA-STS and TLS-RPT; dkimpy for keys.

Where we and a judge part, a row of a table names it with the reason; anything else is a fault of ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from unittest import mock

import dkim as dkimpy
import pytest
import spf as pyspf
from checkdmarc import dmarc as judge_dmarc
from checkdmarc import mta_sts as judge_sts
from checkdmarc import smtp_tls_reporting as judge_tlsrpt
from hypothesis import example, given
from hypothesis import strategies as st

from reconciler.dns.policies import dkim, dmarc, spf, transport

Reasons = dict[str, Callable[[str], bool]]


def agree(ours: bool, judged: bool, text: str, reasons: Reasons) -> None:
    named = [reason for reason, applies in reasons.items() if applies(text)]
    assert ours == judged or named, f"{text!r}: ours {ours}, the judge's {judged}"


# ------------------------------------------------------------------------------------------------------------- SPF
def says_pyspf(text: str) -> bool:
    """Read a record as pyspf does before it evaluates: all terms are judged, and the first one ends it."""
    query = pyspf.query(i="192.0.2.1", s="a@mana.how", h="mail.mana.how", strict=True)
    with mock.patch.object(pyspf, "DNSLookup", return_value=[]):
        try:
            query.check0(text[:7] + "?all " + text[7:], 0)
        except pyspf.PermError:
            return False
    return True


TERMS = st.sampled_from(
    [
        *("all", "-all", "~all", "?all", "+all", "ALL", "all:x", "all/24", "a", "mx", "a:x.example"),
        *("MX:x.example", "a/24", "a//64", "mx/24//64", "a:x.example/24//48", "a/33", "a//129", "a/024", "a:"),
        *("mx/", "a:x", "a:x.example.", "ptr", "ptr:x.example", "include:x.example", "-include:_spf.x.example"),
        *("include", "include:", "exists:%{i}.x.example", "exists:%{ir}.%{l1r+-}.%{d}", "exists:%{z}.x.example"),
        *("exists:%{i", "exists:%x.example", "exists:%%%_%-.example", "exists", "ip4:192.0.2.1"),
        *("ip4:192.0.2.0/24", "ip4:192.0.2.300", "ip4:192.0.2", "ip4:192.0.2.1/33", "ip4:", "ip4:192.0.02.1"),
        *("ip4:192.0.2.1/0", "ip4:192.0.2.1/", "ip4", "ip6:2001:db8::1", "ip6:2001:db8::/32", "ip6:::1"),
        *("ip6:2001:db8::/129", "ip6:192.0.2.1", "ip6:::ffff:192.0.2.1", "ip6:1::2::3", "ip4:2001:db8::1", "ip6:"),
        *("redirect=x.example", "redirect=", "redirect=x", "exp=x.example", "exp=%{d}", "exp=", "moo=cow"),
        *("moo=%{d}", "moo=", "moo=%x", "ra=postmaster", "includ:x.example", "mail.x.example", "192.0.2.1", "="),
        *(":", "-", "a:192.0.2.1", "mx,", "a:x.example,", "a:x.123", "a:x.1a", "a:x.a-b", "a:x.-b"),
        *("a:x_y.example", "ipv4:192.0.2.1", "a:x.example:25"),
    ]
)
SPF_REASONS: Reasons = {
    "RFC 7208 section 6 ignores modifiers that nobody knows, however often they stand; pyspf refuses a second one": (
        lambda text: max(text.lower().count(" moo="), text.lower().count(" ra=")) > 1
    ),
}


@given(st.lists(TERMS, max_size=4))
@example(["includ:x.example", "-all"])
def test_spf_is_valid_for_us_where_it_is_for_pyspf(terms: list[str]) -> None:
    text = " ".join(["v=spf1", *terms]) + (" " if not terms else "")
    agree(spf.parse(text).is_valid, says_pyspf(text), text, SPF_REASONS)


# ----------------------------------------------------------------------------------------------------------- DMARC
@pytest.fixture(autouse=True)
def _no_network() -> object:
    with (
        mock.patch.object(judge_dmarc, "get_mx_records", return_value=[{"hostname": "mail.mana.how"}]),
        mock.patch.object(judge_dmarc, "verify_dmarc_report_destination", return_value=None),
    ):
        yield


def says(parse: Callable[[str], object], error: type[Exception], text: str) -> bool:
    try:
        parse(text)
    except error:
        return False
    return True


POLICY = st.sampled_from(
    [
        *("p=none", "p=REJECT", "p=qurantine", "p=", "p = quarantine", "sp=reject", "sp=x", "np=none", "np=no"),
        *("t=y", "t=x", "psd=u", "psd=n", "psd=q", "adkim=s", "adkim=strict", "aspf=r", "aspf=x", "fo=0", "fo=d:s"),
        *("fo=0:1", "fo=x", "rua=mailto:a@mana.how", "rua=mailto:a@mana.how,mailto:b@mana.how", "rua=a@mana.how"),
        *("rua=mailto:a@mana.how!10m", "ruf=mailto:a@mana.how", "ruf=mailto:", "pct=50", "pct=x", "ri=1"),
        *("rf=afrf", "moo=cow", "hello", "", "=x", "p1=x"),
    ]
)
DMARC_REASONS: Reasons = {
    "RFC 9989 section 4.8 has the default in place of adkim, aspf and fo that nobody knows; by the ABNF it is none": (
        lambda text: re.search(r"adkim=strict|aspf=x|fo=0:1", text) is not None
    ),
    "RFC 6376 section 3.2, whose form it has, allows no tag twice; checkdmarc does not look at those it ignores": (
        lambda text: text.count("moo=") > 1
    ),
}


@given(st.lists(POLICY, max_size=5), st.sampled_from(["; ", ";", " ; "]))
@example(["p=none", "", "sp=none"], ";")
def test_dmarc_is_valid_for_us_where_it_is_for_checkdmarc(tags: list[str], separator: str) -> None:
    text = separator.join(["v=DMARC1", *tags])
    judged = says(lambda it: judge_dmarc.parse_dmarc_record(it, "mana.how"), judge_dmarc.DMARCError, text)
    agree(dmarc.parse(text).is_valid, judged, text, DMARC_REASONS)


@given(st.lists(POLICY, max_size=5))
def test_what_receivers_take_from_dmarc_is_what_checkdmarc_takes(tags: list[str]) -> None:
    read = dmarc.parse("; ".join(["v=DMARC1", *tags]))
    if read.is_valid and read.value is not None:
        parsed = judge_dmarc.parse_dmarc_record("; ".join(["v=DMARC1", *tags]), "mana.how")["tags"]
        ours = (read.value.p, read.value.sp, read.value.np, read.value.adkim, read.value.aspf, read.value.psd)
        assert ours == tuple(parsed[name]["value"] for name in ("p", "sp", "np", "adkim", "aspf", "psd"))
        assert read.value.testing == (parsed["t"]["value"] == "y")


# ------------------------------------------------------------------------------------------------- MTA-STS, TLS-RPT
FIELDS = st.sampled_from(
    [
        *("id=1", "id=20260131T120000Z", "id=", "id=a-b", f"id={'1' * 32}", f"id={'1' * 33}", "ID=1", "id =1"),
        *("x=y", "x.y=z", "x=a b", "x=a=b", "hello", "", "id=2", "rua=mailto:a@mana.how", "rua=https://mana.how/x"),
        *("rua=a@mana.how", "rua=", "rua=mailto:a@mana.how , https://mana.how/", "rua=ftp://mana.how/"),
        *("RUA=mailto:a@mana.how", "rua=mailto:x"),
    ]
)
FIELD_REASONS: Reasons = {
    "RFC 8461 section 3.2 ignores a second id=, but the ABNF has none that is wrong; checkdmarc looks at the first": (
        lambda text: len(re.findall(r"\bid ?=", text)) > 1
    ),
}


@given(st.lists(FIELDS, max_size=4), st.sampled_from(["; ", " ;"]), st.sampled_from(["", ";"]))
def test_mta_sts_and_tls_rpt_are_valid_for_us_where_they_are_for_checkdmarc(
    fields: list[str], separator: str, end: str
) -> None:
    text = separator.join(["v=STSv1", *fields]) + end
    judged = says(judge_sts.parse_mta_sts_record, judge_sts.MTASTSError, text)
    agree(transport.parse_sts(text).is_valid, judged, text, FIELD_REASONS)
    text = separator.join(["v=TLSRPTv1", *fields]) + end
    judged = says(judge_tlsrpt.parse_smtp_tls_reporting_record, judge_tlsrpt.SMTPTLSReportingError, text)
    agree(transport.parse_reporting(text).is_valid, judged, text, FIELD_REASONS)


# ------------------------------------------------------------------------------------------------------------ keys
ED25519 = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
KEYS = st.sampled_from(
    [
        *("v=DKIM1", "v=DKIM2", "k=ed25519", "k=rsa", "k=dsa", f"p={ED25519}", "p=AAAA", "p=", "p=!", "h=sha256"),
        *("s=email", "t=y", "n=some words", "x=y", "hello", "p"),
    ]
)


@given(st.lists(KEYS, max_size=4, unique_by=lambda tag: tag[0]))
def test_a_key_that_we_take_is_one_that_dkimpy_takes(tags: list[str]) -> None:
    """Only so: dkimpy takes what no verifier could use, such as a key of 3 bytes, until it verifies with it."""
    text = "; ".join(tags)
    read = dkim.parse(text)
    if read.is_valid and read.value is not None and read.value.public:
        key, *_ = dkimpy.evaluate_pk(b"x._domainkey.mana.how", text.encode())
        assert bytes(key) if read.value.tag("k") == "ed25519" else key
