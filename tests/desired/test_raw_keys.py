"""What is known of Stalwart's settings without a server."""

import pytest

from reconciler.desired.raw_keys import ban_rate, in_config_file, notes, word_of
from reconciler.resources import AllowedIp, Listener, Setting


@pytest.mark.parametrize("value", ["off", "false", False, "never", "disable", 0, "0", "", "OFF"])
def test_every_spelling_of_off_is_one(value):
    assert ban_rate(value) == "off"


def test_rates_are_normalised_or_refused():
    assert ban_rate(" 030 / 1d") == "30/1d"
    for wrong in ("often", "30", "30/d", "30/1w", "0/1d", "30/0d"):
        with pytest.raises(ValueError, match="30/1d"):
            ban_rate(wrong)


@pytest.mark.parametrize(
    ("key", "word"),
    [
        ("lookup.default.hostname", "hostname"),
        ("report.domain", "default_domain"),
        ("server.auto-ban.scan.rate", "auto_ban/scan"),
        ("server.listener.x.bind", "listeners"),
        ("server.allowed-ip.10.0.0.0/8", "allowed_ips"),
        ("signature.rsa-x.selector", "dkim"),
        ("queue.limiter.inbound.ip.rate", None),
    ],
)
def test_raw_keys_that_are_words(key, word):
    assert word_of(key) == word


def test_what_lives_in_the_file():
    assert in_config_file("server.listener.x.bind")
    assert not in_config_file("server.allowed-ip.10.0.0.1")
    assert not in_config_file("lookup.default.hostname")
    assert in_config_file("lookup.default.hostname", ("lookup.*",))


def test_a_change_says_what_it_brings_along():
    rewrites = "the server rewrites config.toml and drops its comments"
    assert notes(Setting("auto_ban/scan", "off"), "rest") == (rewrites,)
    assert notes(Setting("auto_ban/scan", "off"), "jmap") == ("in force after the reload that ends apply",)
    assert notes(Setting("hostname", "x"), "rest") == ()
    assert notes(AllowedIp("10.0.0.0/8"), "rest") == ()
    assert notes(Listener("x", (), "smtp"), "rest") == (rewrites, "in force only after a restart of the container")
