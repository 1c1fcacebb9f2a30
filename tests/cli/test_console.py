"""Whatever is printed, no character of it moves a cursor, hides or reorders: the second fence, behind the reports'."""

from __future__ import annotations

import json
import re
import sys
import unicodedata

import pytest

from reconciler.cli.console import Console
from reconciler.cli.session import Options, Session, Stop
from reconciler.plan import Plan
from reconciler.problem import Problem
from reconciler.stack import Choice

HOSTILE = "a\x1b]0;title\x07 \x1b[2J\x1b[1A\r\x08\x9b31m\u202eb\u200b\u2066c\ufeff\u2028d\x00\x7f"


@pytest.mark.parametrize("way", ["text", "note", "log", "result", "markdown", "document"])
def test_t2_no_way_out_lets_a_control_character_pass(way: str, capsys: pytest.CaptureFixture[str]) -> None:
    console = Console("markdown" if way == "markdown" else "text", verbose=True)
    if way == "document":
        console.document({HOSTILE: [HOSTILE]})
    elif way in ("result", "markdown"):
        console.result(HOSTILE, {})
    else:
        getattr(console, way)(HOSTILE)
    printed = "".join(capsys.readouterr())
    assert "title" in printed
    unsafe = [char for char in printed if unicodedata.category(char) in ("Cc", "Cf", "Zl", "Zp") and char != "\n"]
    assert not unsafe, printed.encode("unicode_escape")


ORDERS = (
    "::add-mask::dns",
    "  ::set-output name=code::0",
    "a ##[set-output name=code;]0",
    "##vso[task.x]y",
    "##TeamCity[z]",
    "\x1b[1m::add-mask::behind a colour",
    "#\x1b[m#[set-output name=code;]around one",
)


@pytest.mark.parametrize("way", ["text", "note", "log", "result", "markdown", "document"])
@pytest.mark.parametrize("order", ORDERS)
def test_t2_no_line_is_an_order_to_the_log_of_a_ci(way: str, order: str, capsys: pytest.CaptureFixture[str]) -> None:
    """GitHub's runner takes `::` at the begin of a line, behind blanks, and `##[` anywhere in it."""
    console = Console("markdown" if way == "markdown" else "text", verbose=True)
    said = f"first\n{order}\nlast [1]:: # # [2] ### a"
    if way == "document":
        console.document({said: [said]})
    elif way in ("result", "markdown"):
        console.result(said, {})
    else:
        getattr(console, way)(said)
    printed = "".join(capsys.readouterr())
    assert not re.search(r"(?m)^\s*::|##[A-Za-z]*\[", printed), printed
    if way == "document":
        assert json.loads(printed) == {said: [said]}
    else:
        assert "last [1]:: # # [2] ### a" in printed


def test_t2_colours_and_lines_of_ours_stay(capsys: pytest.CaptureFixture[str]) -> None:
    Console(colour=True).text("\x1b[32m+ a\x1b[0m\n\té → ⚠")
    assert capsys.readouterr().out == "\x1b[32m+ a\x1b[0m\n\té → ⚠\n"


@pytest.mark.parametrize("output", ["text", "markdown"])
def test_t2_a_secret_of_several_words_is_taken_out_before_it_is_set(
    output: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Set as Markdown its words stand apart, each as what it is; on a terminal they may stand on two lines."""
    session = Session(Stop())
    session.configure(Options(output=output))
    session.console.redact = lambda text: text.replace("zwei Wörter & 3 more", "[redacted {env: X}]")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    problem = Problem("stalwart", "the server says: no login with zwei Wörter & 3 more, and so on", "try again")
    plan = Plan("mana", problems=(problem,), head=("it says zwei Wörter & 3 more",))
    for width in range(30, 70, 3):
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        session.report(problem)
        session.show(plan, Choice())
        printed = "".join(capsys.readouterr())
        assert printed.count("redacted") == 3
        assert "zwei" not in printed
