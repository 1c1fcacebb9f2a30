"""Where the directory sends secrets to: what could be read in two ways, or goes in clear, is told at its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.desired.load import load
from reconciler.problem import InvalidDirectory

SECRET = "hunter2-canary"
STALWART = (
    "version: 1\nstack: mana\ntargets:\n  stalwart:\n    username: admin\n    password: {{env: A}}\n    url: {}\n"
)
CLOUDFLARE = (
    "version: 1\nstack: mana\ntargets:\n  cloudflare:\n  - {{token: {{env: A}}, zones: [a.example]}}\n"
    "  - token: {{env: B}}\n    base_url: {}\n    zones: [b.example]\n"
)
PLACES = {"targets.stalwart.url": (STALWART, 7), "targets.cloudflare[1].base_url": (CLOUDFLARE, 7)}
REFUSED = [
    *("http://134744072", "http://0x08080808", "http://evil\u3002example", "http://evil\uff0eexample"),
    *("http://127.1", "http://localhost.", "HTTP://Evil.Example", "hTTp://10.0.0.1", "http://localhost.evil.example"),
    *(f"http://{SECRET}@localhost", f"https://user:{SECRET}@api.example", f"https://api.example/?key={SECRET}"),
    *("http://[::ffff:8.8.8.8]", "http://[fe80::1%25eth0]", "https://api.example\\@evil.example", "https://a..b"),
    *("https://api.example:0", "https://api.example:99999", "https://api.example:", "https://%65vil.example"),
]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("text", REFUSED)
def test_t3_t4_an_address_is_judged_where_it_stands(text: str, place: str, tmp_path: Path) -> None:
    frame, line = PLACES[place]
    (tmp_path / "a.yaml").write_text(frame.format(f"'{text}'"))
    with pytest.raises(InvalidDirectory) as caught:
        load(tmp_path)
    (problem,) = caught.value.problems
    assert str(problem).startswith(f"a.yaml:{line}:")
    assert f"{place}: " in str(problem)
    assert "is no URL" in str(problem) or "in clear text" in str(problem)
    assert problem.hint
    assert SECRET not in str(caught.value) + repr(caught.value)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "text", ["HTTPS://API.Example/client/v4", "http://LOCALHOST:8080", "http://[::1]:8080/", "https://bücher.example"]
)
def test_t3_however_it_is_written_it_is_the_same_address(text: str, place: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(PLACES[place][0].format(f"'{text}'"))
    load(tmp_path)


@pytest.mark.parametrize(
    "host", ["0x7f.1", "127.1", "user@smtp.example", "smtp\uff0eexample", "[::1]", "smtp.example:25"]
)
def test_t4_the_host_of_a_provider_has_the_same_parser(host: str, tmp_path: Path) -> None:
    text = "version: 1\nstack: mana\nsmtp:\n  providers:\n    p:\n      port: 587\n      username: u\n"
    (tmp_path / "a.yaml").write_text(f"{text}      password: {{env: A}}\n      host: '{host}'\n")
    with pytest.raises(InvalidDirectory, match=r"a\.yaml:9:\d+: smtp\.providers\.p\.host: is no host"):
        load(tmp_path)
