import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from reconciler.address import Address, target_of


@pytest.mark.parametrize(
    ("text", "address", "target"),
    [
        ("account/noreply@mana.how", Address("account", ("noreply@mana.how",)), "stalwart"),
        ("dkim/mana.how/s1", Address("dkim", ("mana.how", "s1")), "stalwart"),
        ("dns/mana.how/TXT/@[spf1]", Address("dns", ("mana.how", "TXT", "@"), "spf1"), "cloudflare"),
        ("dns/mana.how/PTR/1.0/25.2", Address("dns", ("mana.how", "PTR", "1.0/25.2")), "cloudflare"),
        ("stalwart/allowed_ips/172.18.0.0/16", Address("stalwart", ("allowed_ips", "172.18.0.0/16")), "stalwart"),
        ("stalwart/hostname", Address("stalwart", ("hostname",)), "stalwart"),
        ("smtp/notify/SMTP_HOST", Address("smtp", ("notify", "SMTP_HOST")), "compose"),
        ("dns", Address("dns"), "cloudflare"),
        ("smtp.providers.brevo", Address("smtp.providers.brevo"), None),
    ],
)
def test_an_address_has_parts(text, address, target):
    assert Address.parse(text) == address
    assert str(address) == text
    assert address.target == target


@settings(deadline=None)
@given(st.text(alphabet="dns/[]@aT~.", max_size=20) | st.from_regex(r"(dns|dkim|smtp|stalwart)(/[a-z\[\]/]{0,6}){0,5}"))
@example("dns/mana.how/TXT/@[spf1]")
@example("dns/z/TXT/a[b[c]]")
@example("dns/z/TXT/a[]")
@example("stalwart/allowed_ips/172.18.0.0/16")
def test_any_text_round_trips(text):
    read = Address.parse(text)
    assert str(read) == text
    assert Address.parse(str(read)) == read
    assert read.within(read)
    assert read.within(Address(read.kind))


@pytest.mark.parametrize(
    ("text", "wider", "expected"),
    [
        ("dns/mana.how/TXT/@[spf1]", "dns/mana.how/TXT/@", True),
        ("dns/mana.how/TXT/@[spf1]", "dns/mana.how", True),
        ("dns/mana.how/TXT/@[spf1]", "dns/mana.how/TXT/@[dmarc]", False),
        ("dns/mana.how.example/A/@", "dns/mana.how", False),
        ("stalwart/allowed_ips/172.18.0.0/16", "stalwart/allowed_ips", True),
        ("smtp/notifyd/HOST", "smtp/notify", False),
    ],
)
def test_what_lies_below(text, wider, expected):
    assert Address.parse(text).within(Address.parse(wider)) is expected


@pytest.mark.parametrize(
    ("scope", "target"),
    [
        ("dns/mana.how", "cloudflare"),
        ("dkim/mana.how/mana2026", "stalwart"),
        ("smtp/notify", "compose"),
        ("stalwart", "stalwart"),
        ("mail.yaml:3:1", "mail.yaml:3:1"),
        ("", ""),
    ],
)
def test_whose_a_scope_is(scope, target):
    assert target_of(scope) == target


def test_what_a_thing_belongs_to():
    assert str(Address.parse("smtp/notify/SMTP_HOST").parent) == "smtp/notify"
    assert str(Address.parse("account/a@mana.how").parent) == "account/a@mana.how"
