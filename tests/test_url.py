"""One parser: what it takes is what the HTTP client and the resolver take, and what may go there in clear."""

from __future__ import annotations

import ipaddress
import socket

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from reconciler import url
from reconciler.url import NoUrl, Url, is_loopback, parse


@pytest.mark.parametrize("host", ["localhost", "LocalHost", "mail.localhost", "127.0.0.1", "127.8.9.1", "::1"])
def test_this_machine(host: str) -> None:
    assert is_loopback(url.host(host))
    assert parse(f"http://[{host}]/" if ":" in host else f"http://{host}:8080/").may_go_plain()


@pytest.mark.parametrize("host", ["", "localhost.example.com", "notlocalhost", "10.0.0.1", "128.0.0.1", "::2", "0"])
def test_another_machine(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("text", "may"),
    [
        ("https://mail.example.com", True),
        ("http://172.20.0.4:8080", True),
        ("http://stalwart:8080", True),
        ("http://mana.mail:8080", True),  # the declared container
        ("http://MANA.mail:8080", True),
        ("http://192.168.1.4", False),
        ("http://172.15.0.4", False),
        ("http://mail.example.com", False),
        ("http://[fd00::1]", False),
        ("http://localhost.evil.example", False),
        ("http://0.0.0.0", False),
        ("http://[::127.0.0.1]", False),
        ("http://xn--lcalhost-n4a", True),  # a bare name: where it leads is looked at when it is connected to
    ],
)
def test_another_machine_gets_secrets_over_tls_alone(text: str, *, may: bool) -> None:
    assert parse(text).may_go_plain("mana.mail") is may


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("HTTPS://Mail.Example.com", Url("https", "mail.example.com", 443)),
        ("hTTp://LOCALHOST:8080/a/b/", Url("http", "localhost", 8080, "/a/b")),
        ("https://bücher.example:8443", Url("https", "xn--bcher-kva.example", 8443)),
        ("http://[0:0:0:0:0:0:0:1]:80", Url("http", "::1", 80)),
        ("http://[FD00::0A]", Url("http", "fd00::a", 80)),
        ("https://stalwart_1", Url("https", "stalwart_1", 443)),
    ],
)
def test_t3_one_spelling_is_left(text: str, address: Url) -> None:
    assert parse(text) == address
    assert parse(address.url) == address


AMBIGUOUS = [
    "http://134744072",
    "http://0x08080808",
    "http://8.8.2056",
    "http://0x7f.1",
    "http://127.1",
    "http://0177.0.0.1",
    "http://127.0.0.01",
    "http://010.8.8.8",
    "http://1.2.3.4.5",
    "http://a.0x1f",
    "http://0",
    "http://localhost.",
    "http://127.0.0.1.",
    "http://evil\u3002example",
    "http://evil\uff0eexample",
    "http://evil\uff61example",
    "http://127\uff0e0.0.1",
    "http://\uff11\uff12\uff17.0.0.1",
    "http://\u0661\u0662\u0667.0.0.1",
    "http://\u2488com",
    "http://\u212aelvin",
    "http://loc\u00adalhost",
    "http://loc\u200balhost",
    "http://\uff45vil.example",
    "http://[::ffff:127.0.0.1]",
    "http://[::ffff:8.8.8.8]",
    "http://[fe80::1%25eth0]",
    "http://[fe80::1%eth0]",
    "http://[::1",
    "http://::1",
    "http://[127.0.0.1]",
    "http://[v1.a]",
    "http://[::1]evil.example",
    "http://evil.example[::1]",
    "http://s3cret@localhost",
    "http://127.0.0.1@evil.example",
    "http://127.0.0.1:80@evil.example",
    "http://:@localhost",
    "http://@localhost",
    "http://evil.example\\@localhost",
    "http:\\\\localhost",
    "http://localhost\\.evil.example",
    "http://local%68ost",
    "http://%6cocalhost",
    "http://localhost%00.evil.example",
    "http://local host",
    "http://localhost\t",
    " http://localhost",
    "http://local\nhost",
    "http://localhost\x00.evil.example",
    "http://",
    "http:///path",
    "http://:80",
    "http://localhost:",
    "http://localhost:0",
    "http://localhost:080",
    "http://localhost:99999",
    "http://localhost:+80",
    "http://localhost:8\u0660",
    "http://localhost:80:90",
    "http://-oproxycommand",
    "http://a..b",
    "http://.a",
    "http://localhost?x",
    "http://localhost#x",
    "http://localhost/../x",
    "http://localhost/%2e%2E/x",
    "http:localhost",
    "http:/localhost",
    "//localhost",
    "localhost:80",
    "ftp://localhost",
    "file:///etc/passwd",
    "unix:///var/run/docker.sock",
    "",
]


@pytest.mark.parametrize("text", AMBIGUOUS)
def test_t4_what_can_be_read_in_two_ways_is_refused(text: str) -> None:
    with pytest.raises(NoUrl) as caught:
        parse(text)
    assert caught.value.hint
    rest = text.rpartition("@")[0].partition("://")[2]
    assert len(rest) < 3 or rest not in caught.value.summary + caught.value.hint, "what may be a password is repeated"


@pytest.mark.parametrize(
    "text", ["127.1", "0x7f.0.0.1", "a.b.", "::ffff:1.2.3.4", "[::1]", "u@h", "a/b", "a:1", "", "a b"]
)
def test_t4_a_host_alone_has_the_same_parser(text: str) -> None:
    with pytest.raises(NoUrl):
        url.host(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Mail.Example:587", ("mail.example", 587)),
        ("127.0.0.1", ("127.0.0.1", 53)),
        ("[::1]:5301", ("::1", 5301)),
        ("::1", ("::1", 53)),
    ],
)
def test_host_and_port(text: str, found: tuple[str, int]) -> None:
    assert url.endpoint(text, 53) == found


# ------------------------------------------------------------------------- beside the HTTP client and the resolver
_PIECES = st.sampled_from(
    [
        *(
            "http",
            "HTTPS",
            "://",
            ":",
            "/",
            "//",
            "@",
            "[",
            "]",
            "%",
            "%25",
            "\\",
            ".",
            "..",
            "?",
            "#",
            " ",
            "\t",
            "-",
            "_",
        ),
        *(
            "localhost",
            "LocalHost",
            "evil.example",
            "127",
            "0",
            "1",
            "0x7f",
            "0177",
            "134744072",
            "::1",
            "::ffff:",
            "fe80::1",
        ),
        *(
            "\u3002",
            "\uff0e",
            "\uff11",
            "\u0661",
            "\u00df",
            "\u00fc",
            "\u212a",
            "\u200d",
            "\u00ad",
            "xn--",
            "x",
            "80",
            "443",
            "99999",
        ),
    ]
)
_HOSTS = st.lists(_PIECES, max_size=6).map("".join)


@given(
    st.one_of(
        st.lists(_PIECES, max_size=9).map("".join), _HOSTS.map(lambda host: f"http://{host}"), st.text(max_size=20)
    )
)
@example("http://ß.example")
@example("https://127.0.0.1:443")
def test_t4_what_is_taken_is_what_the_http_client_takes(text: str) -> None:
    try:
        address = parse(text)
    except NoUrl:
        return
    for theirs in (httpx.URL(text), httpx.URL(address.url)):
        port = theirs.port or {"http": 80, "https": 443}[theirs.scheme]
        assert (theirs.scheme, theirs.raw_host.decode(), port) == (address.scheme, address.host, address.port)
        assert not theirs.userinfo
    assert httpx.URL(address.url).path.rstrip("/") == address.path or "%" in address.path


_PART = st.one_of(
    st.integers(0, 2**32).map(str), st.integers(0, 255).map(hex), st.integers(0, 255).map(lambda n: f"0{n:o}")
)


@given(st.one_of(st.lists(_PART, min_size=1, max_size=5).map(".".join), st.ip_addresses().map(str), _HOSTS))
@example("127.1")
@example("0x7f.1")
@example("010.0.0.1")
def test_t4_a_number_is_the_address_that_the_resolver_makes_of_it(text: str) -> None:
    """`inet_aton`, which the resolver asks first, reads many things as addresses."""
    try:
        taken = url.host(text)
    except NoUrl:
        return
    try:
        found = socket.getaddrinfo(taken, 80, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except OSError:
        assert url.ip(taken) is None
        return
    addresses = {ipaddress.ip_address(item[4][0]) for item in found}
    assert addresses == {url.ip(taken)}
    assert is_loopback(taken) == all(item.is_loopback for item in addresses)
