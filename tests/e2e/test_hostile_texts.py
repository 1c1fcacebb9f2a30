"""Texts of systems that somebody else filled: none forges a line, moves a cursor, renders, or repeats a secret."""

from __future__ import annotations

import base64
import json
import re
import unicodedata
from typing import Any

import pytest
from gfm import render

from reconciler.simulator.wire import Reply

from .stagefixtures import Stack

EVIL = (
    "x\r\n\n✓ FORGED line\n## FORGED title\n</details><!-- reconciler:plan:mana --> @FORGED <img src=FORGED> "
    "[FORGED](https://FORGED.example) | FORGED | ``` FORGED ``` \x1b[2J\x1b]8;;http://FORGED\x07 \u202eFORGED\u2066 "
    "\u200b\ufeff\x9b1A\x00 $FORGED$"
)
PATHS = {"stalwart": "/", "cloudflare": "/client/", "docker": "/v1"}


def tame(text: str, output: str) -> None:
    """Hold all that was printed, or kept, against what a text of a stranger must not do."""
    wild = [char for char in text if char != "\n" and unicodedata.category(char) in ("Cc", "Cf", "Zl", "Zp", "Cs")]
    assert not wild, (wild, text.encode("unicode_escape"))
    assert not re.search(r"(?m)^\W*FORGED", text), text
    if output == "markdown":
        bare = re.sub(r"(?s)(?<!`)(`+)(?!`).*?(?<!`)\1(?!`)", "CODE", text)
        assert not re.search(r"(?<!\\)\[FORGED|@FORGED|<img|(?<!\\)\|\s*FORGED|https://FORGED|(?<!\\)\$FORGED", bare), (
            bare
        )
        assert len(re.findall("<!-- reconciler:plan", bare)) <= 1
        for comment in re.findall(r"(?s)<!-- reconciler:plan.*?</sub>", text):  # behind it stands what is no Markdown
            page = render(comment)
            assert page.read() == []
            assert all(re.fullmatch(r"desired-state/[a-z]+\.yaml#L[0-9]+", str(link)) for link in page.links)
            assert "img" not in page.names
            assert len(page.comments) == 2


def everywhere(stack: Stack, *argv: str, secrets: tuple[str, ...] = ()) -> None:
    for output in ("text", "json", "markdown"):
        done = stack.run(*argv, "--output", output, "-v")
        assert "this is a bug" not in done.text, done.text
        for said in (done.out, done.err):
            tame(said, output)
            assert not [item for item in secrets if item in said], said
    for path in stack.data.rglob("*.json*"):
        tame(path.read_text(), "json")


@pytest.mark.few("generation")
@pytest.mark.parametrize("generation", ["rest", "jmap"])
@pytest.mark.parametrize("status", [200, 400, 403])
def test_t2_an_answer_that_quotes_us_and_more_is_told_without_it(request: Any, generation: str, status: int) -> None:
    stack: Stack = request.getfixturevalue("applied" if generation == "rest" else "newer_applied")
    token, password = stack.secrets["CLOUDFLARE_API_TOKEN"], stack.secrets["STALWART_ADMIN_PASSWORD"]
    login = base64.b64encode(f"admin:{password}".encode()).decode()
    said = f"{EVIL} {token} {password} Bearer {token[::1]} {login}"
    body: dict[str, Any] = dict.fromkeys(("title", "detail", "error", "message", "reason", "type", "details"), said)
    body |= {"success": False, "errors": [{"code": 1000, "message": said, "error_chain": [{"message": said}]}]}
    for system, path in PATHS.items():
        stack.fault(system, path=path, times=10**6, reply=Reply(status, json.dumps(body).encode()))
    for command in (("plan",), ("apply", "--yes"), ("status",)):
        everywhere(stack, *command, secrets=(token, password, login))


def test_t2_what_is_live_there_is_shown_on_one_line_each(applied: Stack) -> None:
    stack = applied
    stack.principal("noreply").description = EVIL
    stack.rest.settings.database[f"lookup.{EVIL}.x"] = EVIL
    for container in stack.stage.docker.containers.values():
        container.labels["org.example"] = EVIL
    for command in (("plan",), ("status",), ("explain", "account/noreply@mana.how"), ("history",)):
        everywhere(stack, *command)
    stack.watch = type(stack.watch)(stack)
