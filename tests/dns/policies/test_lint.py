"""What nearly is a policy is told as such, wherever it was copied from, and what its hint says to write clears it."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.dns.policies import lint
from reconciler.dns.records import record

KEY = "k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
WRITE = 'write content: "'

# A name, what was pasted there, and what is right.
PASTED = [
    ("@", "v=spf 1 mx -all", "v=spf1 mx -all"),
    ("@", "V=spf1 mx -all", "v=spf1 mx -all"),
    ("@", "v = spf1 mx -all", "v=spf1 mx -all"),
    ("@", " v=spf1 mx -all", "v=spf1 mx -all"),
    ("@", '"v=spf1 mx -all', "v=spf1 mx -all"),
    ("@", '"v=spf1 mx" "-all', "v=spf1 mx-all"),
    ("@", "'v=spf1 mx -all'", "v=spf1 mx -all"),
    ("@", "\u201cv=spf1 mx \u2013all\u201d", "v=spf1 mx -all"),
    ("@", "v=spf1\u00a0mx\u200b -all", "v=spf1 mx -all"),
    ("@", "\ufeffv=spf1 mx -all", "v=spf1 mx -all"),
    ("@", "v=spf1\tmx -all", "v=spf1 mx -all"),
    ("@", "v=spf1 include:b\u00fccher.example -all", "v=spf1 include:xn--bcher-kva.example -all"),
    ("@", "v=spf1, mx, -all", "v=spf1 mx -all"),
    ("@", "v=spf1; mx -all", "v=spf1 mx -all"),
    ("@", "v=spf10 mx -all", "v=spf1 mx -all"),
    ("@", "v=sfp1 mx -all", "v=spf1 mx -all"),
    ("@", "v:spf1 mx -all", "v=spf1 mx -all"),
    ("@", 'mana.how. 300 IN TXT "v=spf1 mx -all"', "v=spf1 mx -all"),
    ("_dmarc", "v=DMARC1\\; p=none\\; rua=mailto:a@x.example", "v=DMARC1; p=none; rua=mailto:a@x.example"),
    ("_dmarc", "v=dmarc1; p=none", "v=DMARC1; p=none"),
    ("_dmarc", "v=DMARC 1; p=none", "v=DMARC1; p=none"),
    ("_dmarc", "v=DMARC1 p=none", "v=DMARC1; p=none"),
    ("_dmarc", "v=DMARC1, p=none", "v=DMARC1; p=none"),
    ("_dmarc", "v=DMARK1; p=none", "v=DMARC1; p=none"),
    ("_dmarc", "v=DMARC; p=none", "v=DMARC1; p=none"),
    ("_dmarc", "\uff56=DMARC1\uff1b p=none", "v=DMARC1; p=none"),
    ("_dmarc", "p=none; rua=mailto:a@x.example", "v=DMARC1; p=none; rua=mailto:a@x.example"),
    ("_dmarc", '( "v=DMARC1; " "p=none" )', "v=DMARC1; p=none"),
    ("_mta-sts", "v=STSV1; id=1", "v=STSv1; id=1"),
    ("_mta-sts", "id=1", "v=STSv1; id=1"),
    ("_smtp._tls", "v=TLSRPT1; rua=mailto:a@x.example", "v=TLSRPTv1; rua=mailto:a@x.example"),
    ("default._bimi", "v=bimi1; l=", "v=BIMI1; l="),
    ("s1._domainkey", f"v=dkim1; {KEY}", f"v=DKIM1; {KEY}"),
    ("s1._domainkey", f"v=DKIM1\\; {KEY.replace(';', chr(92) + ';')}", f"v=DKIM1; {KEY}"),
    ("s1._domainkey", f's1._domainkey IN TXT ( "v=DKIM1; {KEY[:20]}" "{KEY[20:]}" ) ; -- DKIM', f"v=DKIM1; {KEY}"),
]


@pytest.mark.parametrize(("name", "text", "right"), PASTED)
def test_what_nearly_is_a_policy_is_told_and_its_hint_clears_it(name, text, right):
    told = lint.judge(name, text)
    assert told
    if right.endswith("mx-all"):  # the strings of a TXT record are joined without a blank
        right = "v=spf1 mx -all"
    assert f'{WRITE}{right}"' in {found.hint for found in told}
    assert lint.corrected(name, text) == right
    assert lint.judge(name, right) == ()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("@", "google-site-verification=abc"),
        ("@", "v=verifydomain MS=1234567"),
        ("@", "brevo-code:abc"),
        ("@", "MS=ms1234"),
        ("@", "spf2.0/mfrom mx -all"),
        ("@", "vspfx"),
        ("@", ""),
        ("@", "p=none"),
        ("_adsp._domainkey", "dkim=all"),
        ("_domainkey", "o=~; r=a@x.example"),
        ("_dmarc", "google-site-verification=abc"),
        ("_spf", "v=spf1 ip4:192.0.2.1"),
        ("x.example._report._dmarc", "v=DMARC1"),
        ("*._report._dmarc", "v=DMARC1;"),
        ("_dmarc.dev", "v=DMARC1; p=none"),
    ],
)
def test_of_what_is_none_or_right_nothing_is_said(name, text):
    assert lint.judge(name, text) == ()


@pytest.mark.parametrize(
    ("name", "text", "hint"),
    [
        ("@", "v=DMARC1; p=none", "write name: _dmarc"),
        ("dmarc", "v=DMARC1; p=none", "write name: _dmarc"),
        ("dev", "v=DMARC1; p=none", "write name: _dmarc.dev"),
        ("mta-sts", "v=STSv1; id=1", "write name: _mta-sts"),
        ("_tls", "v=TLSRPTv1; rua=mailto:a@x.example", "write name: _smtp._tls._tls"),
        ("smtp._tls", "v=TLSRPTv1; rua=mailto:a@x.example", "write name: _smtp._tls"),
        ("@", "v=BIMI1; l=", "write name: default._bimi"),
        ("mana2026", f"v=DKIM1; {KEY}", "write name: mana2026._domainkey"),
        ("mana2026.dev", f"v=DKIM1; {KEY}", "write name: mana2026._domainkey.dev"),
        ("mana2026.domainkey", f"v=DKIM1; {KEY}", "write name: mana2026._domainkey"),
    ],
)
def test_a_policy_where_nobody_looks_for_it_is_told(name, text, hint):
    [found] = lint.judge(name, text)
    assert (found.hint, found.in_name) == (hint, True)
    assert lint.judge(hint.removeprefix("write name: "), text) == ()
    assert lint.judge(name, text, led_to=True) == ()


def test_an_alias_may_lead_to_a_policy_by_another_name():
    policy = record("mana.how", "TXT", "policy", "v=DMARC1; p=none")
    alias = record("mana.how", "CNAME", "_dmarc", "policy.mana.how")
    assert lint.of_record(policy, lint.aliases([policy]))
    assert lint.of_record(policy, lint.aliases([policy, alias])) == ()


def test_spf_where_another_policy_is_looked_for_is_told():
    [found] = lint.judge("_dmarc", "v=spf1 mx -all")
    assert "receivers look for DMARC alone" in found.summary


# --------------------------------------------------------------------------------------------------- hostile texts
NAMES = ("@", "_dmarc", "s1._domainkey", "_smtp._tls", "_mta-sts", "default._bimi")
BEGINNINGS = ("", '"', "( ", "v", "v=spf1 ", "v=spf1 a:", "v=DMARC1; ", "v=DMARC1; rua=", "v=STSv1; id=", "v=DKIM1; p=")
PIECES = (
    *(" ", ";", ",", '"', "\\;", "(", ")", "%", "%{d", "a ", "a: ", "/1", ".", "a.", "a-", "mx,", "~all", "all "),
    *("p=none ", "p=none;", "mailto:", "mailto:a@b.example,", "k=", "TXT ", "\u200b", "\u00fc.", "\0", "v=", "=", "!1"),
)


@pytest.mark.parametrize("start", BEGINNINGS)
def test_a_text_of_64_kib_takes_no_more_than_its_length(start):
    """No clock: a quadratic reading of one would take minutes of this process's own time."""
    name = next((name for name in NAMES[1:] if name.strip("_s1.") in start.lower()), "@")
    began = time.process_time()
    for piece in PIECES:
        text = (start + piece * 65536)[:65536]
        for found in lint.judge(name, text):
            assert len(found.summary) < 400
            assert found.summary.isprintable()
    assert time.process_time() - began < 60


@given(st.sampled_from(NAMES), st.sampled_from(BEGINNINGS), st.text(max_size=60))
def test_no_text_is_too_odd(name, start, rest):
    for found in lint.judge(name, start + rest):
        assert found.summary.isprintable()
        assert found.hint
        assert found.hint.isprintable()


WORDS = st.sampled_from(
    [
        *(" ", ";", "; ", ",", "mx", "-all", "~all", "a:x.example", "ip4:192.0.2.1", "ip4:192.0.2.300"),
        *("includ:x.example", "include: ", "redirect=", "p=none", "p=qurantine", "rua=a@x.example"),
        *("mailto:a@x.example", "sp=", "pct=1", '"', "\\;", "id=1", "l=", "k=ed25519"),
        *("p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=", "\u00a0", "\u2013all", "\u201c"),
    ]
)
HEADS = st.sampled_from(
    ["v=spf1", "v=spf 1", '"v=spf1', "v=DMARC1", "v=DMARC1\\;", "v=DKIM1", "v=STSv1", "v=TLSRPTv1", "v=BIMI1", "V=spf1"]
)


@given(st.sampled_from(NAMES), HEADS, st.lists(WORDS, max_size=8))
def test_putting_right_what_is_evident_comes_to_an_end(name, head, words):
    """What a hint says to write has none of what it was written for; what follows from it is told in its turn."""
    text = head + " " + "".join(words)
    for _ in range(8):
        better = lint.corrected(name, text)
        if better == text:
            break
        text = better
    assert lint.corrected(name, text) == text
    assert not any(found.hint.startswith(WRITE) for found in lint.judge(name, text))
