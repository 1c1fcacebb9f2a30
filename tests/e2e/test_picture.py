"""The comment as GitHub shows it: the real plan of a pull request, through GitHub's own parser, in a real Chromium.

RECONCILER_SCREENSHOT=docs/comment.png writes the picture that the README shows.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import cmarkgfm
import pytest
from cmarkgfm.cmark import Options

from reconciler.github.comments import with_foot

from .test_unmerged import TTL, Pull, older  # noqa: F401 (a fixture)

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium-headless-shell", "chromium", "google-chrome"))), None)
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium (Debian: chromium-headless-shell)"),
    pytest.mark.xdist_group("chromium"),
]
OLD, NEW = "v=DMARC1; p=quarantine;", "v=DMARC1; p=reject;"
SERVICE = "{type: A, name: status, content: 194.191.241.139}"
MORE = """\
accounts:
  billing@mana.how: {password: {env: BILLING_PASSWORD}, description: Invoices, aliases: [invoices@mana.how]}
dkim:
  mana.test: [{selector: mana2027, algorithm: ed25519, stage: pending, public_key: "%s", private_key: {env: KEY}}]
dns:
  mana.test:
    - {type: MX, name: "@", content: mail.mana.how, priority: 10}
"""
PUBLIC = "oR3PJitX2xsZh5sFm1Lt5gMqR2jureP2WxVdY9CTjk4="
# As GitHub's light theme looks, with the fonts that are here.
CSS = """
* { box-sizing: border-box }
body { margin: 0; padding: 20px 20px 20px 68px; background: #fff; color: #1f2328; width: 900px;
  font: 14px/1.5 "Liberation Sans", Helvetica, Arial, sans-serif }
.face { position: absolute; left: 20px; top: 20px; width: 36px; height: 36px; border-radius: 50%; background: #0969da;
  color: #fff; font: bold 18px/36px "Liberation Sans", sans-serif; text-align: center }
.comment { border: 1px solid #d1d9e0; border-radius: 6px }
.head { background: #f6f8fa; border-bottom: 1px solid #d1d9e0; border-radius: 6px 6px 0 0; padding: 8px 16px;
  color: #59636e }
.head b { color: #1f2328 }
.head i { font-style: normal; border: 1px solid #d1d9e0; border-radius: 2em; padding: 0 7px; font-size: 12px;
  margin-left: 6px }
.body { padding: 16px; overflow-wrap: break-word }
.body > :last-child { margin-bottom: 0 }
h3 { margin: 0 0 12px; font-size: 1.25em; line-height: 1.25 }
p, ul, blockquote, table, details { margin: 0 0 12px }
blockquote { padding: 0 1em; color: #59636e; border-left: .25em solid #d1d9e0 }
blockquote p { margin: 0 0 6px }
ul { padding-left: 2em }
code { font: 85%/1.4 "Liberation Mono", ui-monospace, monospace; background: #818b981f; border-radius: 6px;
  padding: .2em .4em; white-space: break-spaces }
table { border-collapse: collapse; width: max-content; max-width: 100% }
th, td { padding: 6px 13px; border: 1px solid #d1d9e0; vertical-align: top; text-align: left }
tr:nth-child(2n) td { background: #f6f8fa }
th { font-weight: 600 }
a, a code { color: #0969da; text-decoration: none }
summary { cursor: pointer }
sub { font-size: 75%; color: #59636e }
"""


def real(pull: Pull, comment: str) -> str:
    """Name the systems that those of the stage stand for."""
    stage = pull.stack.stage.environment
    relay = stage["RECONCILER_ROUTES"].split()[0].rpartition("=")[2]
    names = {
        stage["STALWART_URL"]: "https://mail.mana.how",
        stage["CLOUDFLARE_BASE_URL"].removesuffix("/client/v4"): "https://api.cloudflare.com",
        stage["DOCKER_HOST"]: "tcp://docker:2375",
        relay: "mail.mana.how:587",
    }
    for name, meant in names.items():
        comment = comment.replace(name, meant)
    return comment


def page(comment: str) -> str:
    """Return a page that shows a comment as a reader at GitHub sees it."""
    extensions = ["table", "autolink", "strikethrough", "tasklist"]
    options = Options.CMARK_OPT_UNSAFE  # GitHub lets `details` through, too
    body = cmarkgfm.markdown_to_html_with_extensions(comment, options=options, extensions=extensions)
    head = "<b>mana-bot</b> commented now <i>bot</i>"
    parts = f'<div class="face">m</div><div class="comment"><div class="head">{head}</div>'
    return (
        f'<!doctype html><meta charset="utf-8"><title>comment</title><style>{CSS}</style>{parts}'
        f'<div class="body">{body}</div></div>'
    )


def test_the_comment_is_read_at_a_glance(older: Pull, tmp_path: Path) -> None:  # noqa: F811
    older.stack.edit("dns.yaml", "  mana.how:\n", f"  mana.how:\n    - {SERVICE}\n")
    older.commit()
    older.stack.expect(0, "apply", "--yes")
    older.stack.tape.forget()
    gone = ("dns.yaml", f"    - {SERVICE}\n", "")
    head = older.propose(TTL, ("dns.yaml", OLD, NEW), gone, more=MORE % PUBLIC)
    shown = ("plan", "--base", "main", "--head", "topic", "--link-base", f"https://github.com/mana/mail/blob/{head}")
    told = older.stack.expect(0, *shown, "--output", "markdown")
    older.search(told)
    with playwright.sync_playwright() as started:
        made = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        opened = made.new_page(viewport={"width": 920, "height": 600}, offline=True)
        asked: list[str] = []
        opened.on("request", lambda request: asked.append(request.url))
        opened.set_content(page(with_foot(real(older, told.out), head, "")))
        assert opened.inner_text("h3") == "mana: 4 create · 2 change · 1 delete"
        seen = opened.inner_text(".body")
        for words in ("Risk:", "dns/mana.how/A/status", "_dmarc", "is not read before the merge"):
            assert words in seen
        assert opened.evaluate("document.documentElement.scrollWidth") <= 920
        named = os.environ.get("RECONCILER_SCREENSHOT")
        place = Path(named) if named else tmp_path / "comment.png"
        opened.screenshot(path=place, full_page=True)
        made.close()
    assert asked == []
    assert 5_000 < place.stat().st_size < 200_000
