"""Where a secret may go in clear: this machine, and a container network."""

from __future__ import annotations

import pytest

from reconciler.url import is_loopback, may_go_plain


@pytest.mark.parametrize("host", ["localhost", "LocalHost", "mail.localhost", "127.0.0.1", "127.8.9.1", "::1"])
def test_this_machine(host: str) -> None:
    assert is_loopback(host)
    assert may_go_plain(f"http://[{host}]/" if ":" in host else f"http://{host}:8080/")


@pytest.mark.parametrize("host", ["", "localhost.example.com", "notlocalhost", "10.0.0.1", "128.0.0.1", "::2", "0"])
def test_another_machine(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("url", "may"),
    [
        ("https://mail.example.com", True),
        ("http://172.20.0.4:8080", True),
        ("http://stalwart:8080", True),
        ("http://mana.mail:8080", True),  # the declared container
        ("http://192.168.1.4", False),
        ("http://172.15.0.4", False),
        ("http://mail.example.com", False),
        ("http://[fd00::1]", False),
    ],
)
def test_another_machine_gets_secrets_over_tls_alone(url: str, *, may: bool) -> None:
    assert may_go_plain(url, "mana.mail") is may
