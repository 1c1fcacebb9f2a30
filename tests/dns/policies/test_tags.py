"""The grammars that are lists of tags: the RFCs' own examples, and each way to miss them."""

import pytest

from reconciler.dns.policies import bimi, dkim, dmarc, transport
from reconciler.dns.policies.reading import mended

DMARC, STS, TLSRPT, BIMI, DKIM = (dmarc.parse, transport.parse_sts, transport.parse_reporting, bimi.parse, dkim.parse)
ED25519 = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="  # RFC 8463, appendix A
RSA = (  # RFC 6376, appendix C
    "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDwIRP/UC3SBsEmGqZ9ZJW3/DkMoGeLnQg1fWn7/zYtIxN2SnFCjxOCKG9v3b4jYfcTNh5i"
    "jSsq631uBItLa7od+v/RtdC2UzJ1lWT947qR+Rcac2gbto/NMqJ0fzfVjH4OuKhitdY9tf6mcwGjaNBcWToIMmPSPDdQPNUYckcQ2QIDAQAB"
)
SHORT = (  # 512 bits: verifiers take none below 1024
    "MFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBALqbHeRLCyOdykC5SDLqI49ArYGYG1mqaH9/GnWjGavZM02fos4lc2w6tCchcUBNtJvGqKwhC5JEnx3R"
    "YoSX2ucCAwEAAQ=="
)
VALID = [
    # RFC 9989, appendix B, and RFC 7489's without what is gone
    (DMARC, "v=DMARC1; p=none; rua=mailto:dmarc-feedback@example.com"),
    (DMARC, "v=DMARC1; p=none; rua=mailto:dmarc-feedback@example.com; ruf=mailto:auth-reports@example.com"),
    (DMARC, "v=DMARC1; p=quarantine; rua=mailto:a@example.com,mailto:b@thirdparty.example.net; t=y"),
    (DMARC, "v=DMARC1; p=reject; sp=quarantine; np=reject; adkim=s; aspf=r; fo=d:s; psd=n; t=n;"),
    (DMARC, "v = DMARC1 ; p = REJECT ;rua= mailto:a@example.com , mailto:b@example.com"),
    (DMARC, "v=DMARC1; rua=mailto:a@example.com?subject=x; p=none"),
    # RFC 8461 section 3.1
    (STS, "v=STSv1; id=20160831085700Z;"),
    (STS, "v=STSv1;id=1;new.tag=some-value:x"),
    # RFC 8460 section 3
    (TLSRPT, "v=TLSRPTv1;rua=mailto:reports@example.com"),
    (TLSRPT, "v=TLSRPTv1; rua=https://reporting.example.com/v1/tlsrpt"),
    (TLSRPT, "v=TLSRPTv1; rua=mailto:reports@example.com,https://tlsreport.example.com/x?y=1;"),
    # BIMI, section 4.3
    (BIMI, "v=BIMI1; l=https://image.example.com/bimi/logo/example-bimi.svg;"),
    (BIMI, "v=BIMI1; l=https://x.example/logo.svg; a=https://x.example/vmc.pem; avp=brand"),
    (BIMI, "v=BIMI1; l=; a=;"),
    # RFC 6376 appendix C, RFC 8463 appendix A, section 3.6.1
    (DKIM, f"v=DKIM1; p={RSA}"),
    (DKIM, f"v=DKIM1; k=ed25519; p={ED25519}"),
    (DKIM, f"k=rsa; t=s:y; s=email; h=sha1:sha256; n=notes; with=more; p={RSA};"),
    (DKIM, f" v = DKIM1 ; p = {RSA[:60]} {RSA[60:]} "),
    (DKIM, "v=DKIM1; p="),
    (DKIM, f"v=DKIM1; g=*; k=rsa; p={RSA}"),
]


@pytest.mark.parametrize(("parse", "text"), VALID)
def test_what_is_right_is_read_without_a_word(parse, text):
    read = parse(text)
    assert (read.is_valid, read.faults) == (True, ())


def test_values_are_typed_and_have_their_defaults():
    policy = dmarc.parse("v=DMARC1; p=Reject; sp=none; rua=mailto:a@x.example, mailto:b@x.example; fo=d:s; t=y").value
    assert (policy.p, policy.sp, policy.np, policy.testing, policy.psd) == ("reject", "none", "none", True, "u")
    assert (policy.rua, policy.fo) == (("mailto:a@x.example", "mailto:b@x.example"), ("d", "s"))
    plain = dmarc.parse("v=DMARC1; p=bogus; adkim=x").value  # what is not understood has its default
    assert (plain.p, plain.sp, plain.np, plain.adkim, plain.aspf, plain.fo) == (
        "none",
        "none",
        "none",
        "r",
        "r",
        ("0",),
    )
    assert transport.parse_sts("v=STSv1; id=abc").value == transport.Sts("abc")
    assert transport.parse_reporting("v=TLSRPTv1; rua=mailto:a@x.example").value.rua == ("mailto:a@x.example",)
    assert bimi.parse("v=BIMI1; l=https://x.example/l.svg").value == bimi.Bimi("https://x.example/l.svg", "")
    assert dkim.parse(f"k=ed25519; p={ED25519}").value.public == ED25519


# A grammar, a text, the piece that is told, a word of its cause, and the text put right; empty where not evident.
BROKEN = [
    (DMARC, "v=DMARC1; p=qurantine", "p=qurantine", "not one of none", "v=DMARC1; p=quarantine"),
    (DMARC, "v=DMARC1; p=none; sp=bogus", "sp=bogus", "not one of", ""),
    (DMARC, "v=DMARC1; p=none; t=yes", "t=yes", "not one of", "v=DMARC1; p=none; t=y"),
    (DMARC, "v=DMARC1; p=none; psd=x", "psd=x", "not one of", ""),
    (DMARC, "v=DMARC1; p=none; adkim=strict", "adkim=strict", "not one of", "v=DMARC1; p=none; adkim=s"),
    (DMARC, "v=DMARC1; p=none; fo=0:1:d:s", "fo=0:1:d:s", "not one of", ""),
    (DMARC, "v=DMARC1; p=none; rua=a@x.example", "a@x.example", "mailto:", "v=DMARC1; p=none; rua=mailto:a@x.example"),
    (DMARC, "v=DMARC1; p=none; rua=mailto:x", "mailto:x", "no mailbox", ""),
    (
        DMARC,
        "v=DMARC1; p=none; rua=mailto: a@x.example",
        "mailto: a@x.example",
        "more than",
        "v=DMARC1; p=none; rua=mailto:a@x.example",
    ),
    (DMARC, "v=DMARC1; p=none; rua=reports", "reports", "no address", ""),
    (DMARC, "v=DMARC1; p=none; rua=", "rua=", "no value", ""),
    (
        DMARC,
        "v=DMARC1; p=none; rua=mailto:a@x.example; mailto:b@x.example",
        "; mailto:b@x.example",
        "comma",
        "v=DMARC1; p=none; rua=mailto:a@x.example,mailto:b@x.example",
    ),
    (DMARC, "v=DMARC1; p=none sp=none", " ", "semicolon before sp=", "v=DMARC1; p=none; sp=none"),
    (DMARC, "v=DMARC1; p:none", "p:none", "colon", "v=DMARC1; p=none"),
    (DMARC, "v=DMARC1;; p=none", ";", "too many", "v=DMARC1; p=none"),
    (DMARC, "v=DMARC1; p=none; p=reject", "p=reject", "another p=", ""),
    (DMARC, "v=DMARC1; p=none; hello", "hello", "no tag", ""),
    (DMARC, "p=none; rua=mailto:a@x.example", "", "begin", "v=DMARC1; p=none; rua=mailto:a@x.example"),
    (DMARC, "p=none; v=DMARC1", "v=DMARC1", "first", ""),
    (DMARC, "v=DMARC2; p=none", "v=DMARC2", "another version", ""),
    (DMARC, "v=DMARC1; p=none; sp=n\u00f6", "sp=n\u00f6", "character", ""),
    (STS, "v=STSv1", "", "no id=", ""),
    (STS, "v=STSv1; id=", "id=", "no value", ""),
    (STS, f"v=STSv1; id={'1' * 33}", f"id={'1' * 33}", "33 characters", ""),
    (STS, "v=STSv1; id=2026-01-31", "id=2026-01-31", "letters and digits", "v=STSv1; id=20260131"),
    (STS, "v=STSv1; id = 1", "id = 1", "blank", "v=STSv1; id=1"),
    (STS, "v=STSv1; ID=1", "", "no id=", ""),
    (STS, "v=STSv2; id=1", "v=STSv2", "version", ""),
    (TLSRPT, "v=TLSRPTv1; rua=a@x.example", "a@x.example", "mailto:", "v=TLSRPTv1; rua=mailto:a@x.example"),
    (TLSRPT, "v=TLSRPTv1; rua=http://x.example/", "http://x.example/", "nobody sends", ""),
    (TLSRPT, "v=TLSRPTv1", "", "no rua=", ""),
    (TLSRPT, "v=tlsrptv1; rua=mailto:a@x.example", "v=tlsrptv1", "version", ""),
    (
        BIMI,
        "v=BIMI1; l=http://x.example/l.svg",
        "l=http://x.example/l.svg",
        "https",
        "v=BIMI1; l=https://x.example/l.svg",
    ),
    (BIMI, "v=BIMI1; l=; a=https://192.0.2.1/x", "a=https://192.0.2.1/x", "https", ""),
    (BIMI, "v=BIMI1; l=; avp=brnd", "avp=brnd", "not one of", "v=BIMI1; l=; avp=brand"),
    (DKIM, "v=DKIM1; k=rsa", "", "no p=", ""),
    (DKIM, f"v=DKIM1; p={RSA[:-1]}", f"p={RSA[:-1]}", "not base64", ""),
    (DKIM, "v=DKIM1; p=aGVsbG8gd29ybGQ=", "p=aGVsbG8gd29ybGQ=", "no key of rsa", ""),
    (DKIM, f"v=DKIM1; p={RSA[:-40]}", f"p={RSA[:-40]}", "no key of rsa", ""),
    (DKIM, f"v=DKIM1; p={SHORT}", f"p={SHORT}", "512 bits", ""),
    (DKIM, f"v=DKIM1; p={ED25519}", f"p={ED25519}", "ed25519", f"v=DKIM1; k=ed25519; p={ED25519}"),
    (DKIM, f"v=DKIM1; k=rsa; p={ED25519}", "k=rsa", "ed25519", f"v=DKIM1; k=ed25519; p={ED25519}"),
    (DKIM, f"v=DKIM1; k=ed25519; p={RSA}", "k=ed25519", "rsa", f"v=DKIM1; k=rsa; p={RSA}"),
    (DKIM, f"v=DKIM1; k=ed25591; p={ED25519}", "k=ed25591", "no algorithm", f"v=DKIM1; k=ed25519; p={ED25519}"),
    (
        DKIM,
        f"k=ed25519; p=MCowBQYDK2VwAyEA{ED25519}",
        f"p=MCowBQYDK2VwAyEA{ED25519}",
        "wrapped",
        f"k=ed25519; p={ED25519}",
    ),
    (
        DKIM,
        f"p=-----BEGIN PUBLIC KEY-----{RSA}-----END PUBLIC KEY-----",
        f"p=-----BEGIN PUBLIC KEY-----{RSA}-----END PUBLIC KEY-----",
        "PEM",
        f"p={RSA}",
    ),
    (DKIM, f"p={RSA}; v=DKIM1", "v=DKIM1", "first", ""),
    (DKIM, f"v=DKIM2; p={RSA}", "v=DKIM2", "version", ""),
    (DKIM, f"v=DKIM1; p={RSA}p={RSA}", "", "twice", ""),
]


@pytest.mark.parametrize(("parse", "text", "piece", "cause", "right"), BROKEN)
def test_what_breaks_a_text_is_told_with_its_very_tag(parse, text, piece, cause, right):
    read = parse(text)
    assert not read.is_valid
    [fault] = [fault for fault in read.faults if fault.breaks]
    assert (fault.piece, text[fault.at : fault.at + len(piece)]) == (piece, piece)
    assert cause in fault.cause
    assert (mended(text, [fault]) if fault.instead is not None else "") == right
    assert right == "" or parse(right).is_valid
    assert right or fault.hint


DOUBTED = [
    (DMARC, "v=DMARC1; rua=mailto:a@x.example", "", "no p=", ""),
    (DMARC, "v=DMARC1; p=none; pct=50", "pct=50", "no tag any more", "v=DMARC1; p=none"),
    (DMARC, "v=DMARC1; ri=86400; p=none", "ri=86400", "no tag any more", "v=DMARC1; p=none"),
    (DMARC, "v=DMARC1; p=none; rf=afrf;", "rf=afrf", "no tag any more", "v=DMARC1; p=none;"),
    (
        DMARC,
        "v=DMARC1; p=none; rau=mailto:a@x.example",
        "rau=mailto:a@x.example",
        "ignore",
        "v=DMARC1; p=none; rua=mailto:a@x.example",
    ),
    (DMARC, "v=DMARC1; p=none; policy=none", "policy=none", "ignore", ""),
    (DMARC, "v=DMARC1; p=none; rua=https://x.example/", "https://x.example/", "nobody sends", ""),
    (
        DMARC,
        "v=DMARC1; p=none; rua=mailto:a@x.example!10m",
        "mailto:a@x.example!10m",
        "size",
        "v=DMARC1; p=none; rua=mailto:a@x.example",
    ),
    (DKIM, f"v=DKIM1; h=sha1; p={RSA}", "h=sha1", "sha256", f"v=DKIM1; h=sha256; p={RSA}"),
    (DKIM, f"v=DKIM1; s=tlsrpt; p={RSA}", "s=tlsrpt", "for mail", f"v=DKIM1; s=email; p={RSA}"),
    (DKIM, f"v=DKIM1; t=x; p={RSA}", "t=x", "known are y and s", ""),
    (BIMI, "v=BIMI1", "", "no l=", ""),
]


@pytest.mark.parametrize(("parse", "text", "piece", "cause", "right"), DOUBTED)
def test_what_is_valid_and_hardly_meant_is_doubted(parse, text, piece, cause, right):
    read = parse(text)
    assert read.is_valid
    [fault] = read.faults
    assert (fault.piece, fault.breaks) == (piece, False)
    assert cause in fault.cause
    assert (mended(text, [fault]) if fault.instead is not None else "") == right
    assert right or fault.hint


def test_a_record_that_lets_others_report_here_needs_no_policy():
    assert dmarc.parse("v=DMARC1", "x.example._report._dmarc.mana.how").faults == ()


def test_a_private_key_is_never_shown():
    text = "v=DKIM1; k=rsa; p=-----BEGIN PRIVATE KEY-----c2VjcmV0-----END PRIVATE KEY-----"
    [fault] = dkim.parse(text).faults
    assert "private key" in fault.cause
    assert "c2Vjc" not in repr(fault)
