"""The page in a real Chromium: read by an accessibility checker, on a phone, without JavaScript, and while it changes.

RECONCILER_SCREENSHOT=docs/status-page.png writes the picture that the README shows.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from daemon import states
from daemon.test_web import TOKEN, Daemon, running

from reconciler.daemon.state import State

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium-headless-shell", "chromium", "google-chrome"))), None)
PHONE = {"width": 320, "height": 640}
EVERY_STATE = {
    "calm": states.calm,
    "drifted": states.drifted,
    "troubled": states.troubled,
    "suspended": states.suspended,
}

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium (Debian: chromium-headless-shell)"),
    pytest.mark.xdist_group("chromium"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        made = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield made
        made.close()


class Tab:
    """A page in the browser, and what it complained about."""

    def __init__(self, browser: Any, daemon: Daemon, **options: Any) -> None:
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(15_000)
        self.said = list[str]()
        self.asked = list[str]()
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.url = "http://{}:{}/".format(*daemon.server.address)
        self.page.goto(self.url)

    def evaluate(self, script: str) -> Any:
        return self.page.evaluate(script)

    def see(self, text: str) -> None:
        """Wait until a text is visible."""
        self.page.get_by_text(text).first.wait_for()


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    with running(states.calm()) as made:
        yield made
        assert made.unexpected == []


@pytest.fixture
def tab(browser: Any, daemon: Daemon) -> Iterator[Any]:
    opened = list[Tab]()

    def make(state: State | None = None, **options: Any) -> Tab:
        if state is not None:
            daemon.board.publish(state, ended=True)
        opened.append(Tab(browser, daemon, **options))
        return opened[-1]

    yield make
    for item in opened:
        item.context.close()


@pytest.mark.few
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", EVERY_STATE)
def test_the_accessibility_checker_finds_nothing(tab: Any, name: str, scheme: str) -> None:
    opened = tab(EVERY_STATE[name](), color_scheme=scheme, viewport=PHONE if scheme == "dark" else None)
    opened.evaluate("document.querySelectorAll('details').forEach((item) => { item.open = true; })")
    opened.evaluate(files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8"))
    found = opened.evaluate("axe.run(document, {resultTypes: ['violations']})")
    assert found["passes"]
    assert [(item["id"], item["impact"], item["nodes"][0]["html"]) for item in found["violations"]] == []


@pytest.mark.parametrize("name", EVERY_STATE)
def test_a_phone_need_not_scroll_sideways(tab: Any, name: str) -> None:
    opened = tab(EVERY_STATE[name](), viewport=PHONE)
    opened.evaluate("document.querySelectorAll('details').forEach((item) => { item.open = true; })")
    assert opened.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_a_change_shows_without_reload(tab: Any, daemon: Daemon) -> None:
    opened = tab()
    opened.see("Everything is as desired.")
    opened.evaluate("window.kept = document.getElementById('live')")
    daemon.board.publish(states.drifted(), ended=True)
    opened.see("content: 198.51.100.9 → 192.0.2.1")
    assert opened.evaluate("window.kept === document.getElementById('live')"), "the page was not loaded again"
    assert opened.page.locator("#live").inner_text() == "1 change is left to make in Cloudflare."
    assert opened.page.title() == "mana: healing"
    daemon.board.publish(states.troubled(), ended=True)
    opened.see("say so with --allow-deletes")
    daemon.board.publish(states.calm(), ended=True)
    opened.page.locator("#problems").wait_for(state="detached")
    assert opened.page.locator("#live").inner_text() == "Everything is as desired."
    assert opened.said == []


def test_what_somebody_opened_stays_open_and_keeps_the_focus(tab: Any, daemon: Daemon) -> None:
    opened = tab()
    summary = opened.page.locator("#apply-a1b2c3d4 > summary")
    summary.focus()
    opened.page.keyboard.press("Enter")
    assert opened.page.locator("#apply-a1b2c3d4").get_attribute("open") is not None
    daemon.board.publish(states.calm(healed=(states.entry(), states.entry("00000009"))), ended=True)
    opened.page.locator("#apply-00000009").wait_for()
    assert opened.page.locator("#apply-a1b2c3d4").get_attribute("open") is not None
    assert opened.page.locator("#apply-00000009").get_attribute("open") is None
    assert opened.evaluate("document.activeElement.tagName") == "SUMMARY"


def test_a_daemon_that_is_gone_is_told(browser: Any) -> None:
    made = Daemon(states.calm())
    opened = Tab(browser, made)
    assert not opened.page.locator("#connection").is_visible()
    made.server.close()
    opened.see("No answer from the daemon")
    opened.context.close()


def test_names_with_html_in_them_are_harmless(tab: Any, daemon: Daemon) -> None:
    opened = tab()
    daemon.board.publish(states.troubled(), ended=True)  # taken over by the script, which is the harder way
    opened.see("a guard forbids <img src=x")
    assert opened.page.locator("main img, main script, [onerror]").count() == 0
    assert opened.page.title() == "mana: refused by a guard"
    opened.page.reload()
    assert opened.page.locator("main img, main script, [onerror]").count() == 0
    assert opened.page.title() == "mana: refused by a guard"
    assert {url.split("/")[2] for url in opened.asked} == {opened.url.split("/")[2]}, "nothing from elsewhere"
    assert opened.said == []


def test_a_script_that_got_in_all_the_same_would_not_run(tab: Any) -> None:
    opened = tab()
    opened.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"document.title=`owned`\">')")
    opened.page.wait_for_function("performance.now() > 0")
    opened.page.wait_for_timeout(300)
    assert "owned" not in opened.page.title()
    assert any("Content Security Policy" in text for text in opened.said)


def test_it_works_without_javascript(tab: Any) -> None:
    opened = tab(states.troubled(), java_script_enabled=False)
    assert opened.page.locator("noscript meta[http-equiv=refresh]").count() == 1 or "refresh" in opened.page.content()
    for said in ("refused by a guard", "say so with --allow-deletes", "192.0.2.1", "waits for a person"):
        opened.see(said)
    folded = opened.page.locator("#apply-00000001")
    folded.locator("summary").click()
    assert folded.get_attribute("open") is not None


def test_a_page_of_another_origin_can_neither_read_nor_post(tab: Any, daemon: Daemon) -> None:
    with running(states.calm()) as other:
        opened = tab()
        foreign = "http://{}:{}".format(*other.server.address)
        script = """async (options) => {
            try { return (await fetch(options.url, options)).status; } catch { return "refused"; }
        }"""
        opened.page.route(
            "**/*", lambda route: route.fulfill(body="<!doctype html>", content_type="text/html"), times=1
        )
        opened.page.goto("http://evil.example/")
        for url in (f"{foreign}/status.json", f"{foreign}/"):
            assert opened.page.evaluate(script, {"url": url}) == "refused"
            opened.page.evaluate(script, {"url": url, "mode": "no-cors"})
        post = {"url": f"{foreign}/reconcile", "method": "POST", "headers": {"Authorization": f"Bearer {TOKEN}"}}
        assert opened.page.evaluate(script, post) == "refused"
        opened.page.evaluate(script, {"url": f"{foreign}/reconcile", "method": "POST", "mode": "no-cors"})
        assert other.bell.wait(0) is None


def test_a_browser_elsewhere_gives_the_token_as_a_password(browser: Any) -> None:
    with running(states.calm(), listen=("0.0.0.0", 0)) as made:
        made.server.address = ("127.0.0.1", made.server.address[1])
        opened = Tab(browser, made, http_credentials={"username": "any", "password": TOKEN})
        opened.see("Everything is as desired.")
        made.board.publish(states.drifted(), ended=True)
        opened.see("1 change is left to make in Cloudflare.")
        opened.context.close()


def test_the_screenshot_is_small_and_of_the_page(tab: Any, tmp_path: Path) -> None:
    named = os.environ.get("RECONCILER_SCREENSHOT")
    opened = tab(states.shown(), viewport={"width": 640, "height": 1080})
    place = Path(named) if named else tmp_path / "page.png"
    opened.page.screenshot(path=place)
    assert 5_000 < place.stat().st_size < 150_000
