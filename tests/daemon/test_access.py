"""Who may see and ask what."""

from __future__ import annotations

import base64

import pytest

from reconciler.daemon.access import Access, Asked, hostname

TOKEN = "token-of-the-daemon"
LOCAL = Access("127.0.0.1", TOKEN, frozenset({"status.mana.how"}))
EVERYWHERE = Access("0.0.0.0", TOKEN)
NOT_OURS = ("", "evil.example", "evil.example:9780", "127.0.0.1.evil.example", "localhost.evil.example", "192.0.2.1")
READ_IN_TWO_WAYS = ("127.0.0.1@evil.example", "[::1", "[::1]x", "0x7f.1", "localhost:evil")


def status(access: Access, method: str = "GET", path: str = "/", peer: str = "127.0.0.1", **headers: str) -> int:
    known = {"host": "127.0.0.1:9780"} | {name.replace("_", "-"): value for name, value in headers.items()}
    refusal = access.refusal(Asked(method, path, peer, known))
    return refusal.status if refusal else 200


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"any:{password}".encode()).decode()


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost:9780", "LOCALHOST", "[::1]:9780", "127.8.8.8:1", "x.localhost"]
)
def test_this_machine_needs_no_token(host: str) -> None:
    assert status(LOCAL, host=host) == 200


@pytest.mark.parametrize("host", [*NOT_OURS, *READ_IN_TWO_WAYS])
def test_a_name_that_is_not_ours_is_refused_whatever_it_leads_to(host: str) -> None:
    assert status(LOCAL, host=host) == 403
    assert status(LOCAL, host=host, authorization=f"Bearer {TOKEN}") == 403
    assert status(LOCAL, path="/healthz", host=host) == 403


def test_a_configured_name_needs_the_token_even_from_this_machine() -> None:
    assert status(LOCAL, host="status.mana.how") == 401
    assert status(LOCAL, host="status.mana.how", authorization=f"Bearer {TOKEN}") == 200


PROXIED = ("forwarded", "via", "x_forwarded_for", "x_forwarded_host", "x_forwarded_proto", "x_real_ip")


@pytest.mark.parametrize("header", [*PROXIED, "cf_connecting_ip", "tailscale_user_login", "x_original_url"])
def test_a_proxy_on_this_machine_speaks_for_everybody(header: str) -> None:
    assert status(LOCAL, **{header: "198.51.100.7"}) == 401


def test_who_listens_everywhere_needs_the_token_from_everybody() -> None:
    assert status(EVERYWHERE) == 401
    assert status(EVERYWHERE, host="192.0.2.7:9780", peer="192.0.2.9") == 401
    assert status(EVERYWHERE, host="192.0.2.7:9780", peer="192.0.2.9", authorization=f"bearer {TOKEN}") == 200
    assert status(EVERYWHERE, host="192.0.2.7:9780", peer="192.0.2.9", authorization=basic(TOKEN)) == 200
    assert status(EVERYWHERE, path="/healthz", host="192.0.2.7", peer="192.0.2.9") == 200


@pytest.mark.parametrize(
    "given", ["", "Bearer", "Bearer ", "Bearer wrong", f"Bearer {TOKEN}x", f"Token {TOKEN}", "Basic !", "Basic YQ=="]
)
def test_a_wrong_token_is_refused(given: str) -> None:
    assert status(EVERYWHERE, authorization=given) == 401
    assert status(LOCAL, "POST", "/reconcile", authorization=given) == 401


def test_nothing_is_told_or_done_where_no_token_is_set() -> None:
    for given in ("Bearer ", "Bearer None", basic("")):
        assert status(Access("127.0.0.1"), "POST", "/reconcile", authorization=given) == 401


def test_a_write_needs_the_token_in_a_form_that_no_browser_sends_by_itself() -> None:
    assert status(LOCAL, "POST", "/reconcile") == 401
    assert status(LOCAL, "POST", "/reconcile", authorization=basic(TOKEN)) == 401
    assert status(LOCAL, "POST", "/reconcile", authorization=f"Bearer {TOKEN}") == 200
    assert status(LOCAL, "POST", "/healthz") == 401


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "http://127.0.0.1:3000", "http://localhost:9780", "null", ""]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_page_of_another_origin_can_neither_read_nor_post(method: str, origin: str) -> None:
    assert status(LOCAL, method, "/reconcile", origin=origin, authorization=f"Bearer {TOKEN}") == 403


def test_our_own_page_may_read() -> None:
    assert status(LOCAL, origin="http://127.0.0.1:9780", sec_fetch_site="same-origin") == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_link_to_us_may_be_followed_and_nothing_more(site: str) -> None:
    assert status(LOCAL, sec_fetch_site=site, sec_fetch_mode="navigate") == 200
    assert status(LOCAL, path="/page.js", sec_fetch_site=site, sec_fetch_mode="no-cors") == 403
    assert status(LOCAL, "POST", sec_fetch_site=site, sec_fetch_mode="navigate", authorization=f"Bearer {TOKEN}") == 403


def test_a_host_is_read_in_one_way() -> None:
    assert hostname("[2001:DB8::1]:80") == "2001:db8::1"
    assert hostname("Mana.how.") == "mana.how"
    assert hostname("a:b:c") == ""
