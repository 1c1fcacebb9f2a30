"""What a value becomes in Markdown: itself, and nothing that GitHub acts on."""

from __future__ import annotations

import pytest
from gfm import render
from hypothesis import given
from hypothesis import strategies as st

from reconciler.report import values
from reconciler.report.prose import cell, code, fenced, prose

NASTY = (
    *("@octocat", "@org/team", "#1", "GH-1", "a/b#1", "deadbeef", "0123456789abcdef", ":tada:", "https://evil.example"),
    *("www.evil.example", "a@evil.example", "<img src=x onerror=y>", "<!--", "-->", "</details>", "<details>", "]]>"),
    *("`", "``", "```", "~~~", "|", "\\|", "\\\\|", "\\", "\\`", "**", "__", "~~", "[a](http://e.example)", "![a](b)"),
    *(
        "[",
        "]",
        "](",
        "!",
        "$",
        "$`",
        "`$",
        "$$",
        "&lt;",
        "&#64;",
        "\n",
        "\n\n",
        "\r",
        "- ",
        "1. ",
        "# ",
        "> ",
        "    ",
        "\t",
    ),
    *(
        "===",
        "---",
        "|-|",
        "<a href=x>",
        "javascript:alert(1)",
        "ftp://e.example",
        "mailto:a@b.example",
        "[^1]",
        "a",
        " ",
    ),
    *(
        "word",
        "it's",
        "(so)",
        "done.",
        "é",
        "\u202e",
        "\u200b",
        "\u2028",
        "\x00",
        "\x1b[31m",
        "::warning::",
        "[ ]",
        "xmpp:",
    ),
)
texts = st.lists(st.one_of(st.sampled_from(NASTY), st.text(max_size=4)), max_size=8).map("".join)
spaced = st.lists(st.one_of(st.sampled_from(NASTY), st.text(max_size=4)), max_size=8).map(" ".join)


@given(texts)
def test_code_is_one_span_with_the_whole_text(text: str) -> None:
    page = render(f"before {code(text)} after")
    assert page.names == {"p", "code"}
    shown = "".join(page.within("code"))
    assert shown in (values.escape(text), f" {values.escape(text)} ")  # nothing but blanks keeps those beside it
    assert page.read() == []


@given(st.one_of(texts, spaced))
def test_a_sentence_is_text_and_code_and_says_all_it_said(text: str) -> None:
    page = render(f"**Error** {prose(text)}")
    assert page.names <= {"p", "strong", "code"}
    assert page.read() == []
    said = "".join(part for path, part in page.texts if "strong" not in path)
    assert "".join(said.split()).replace("`", "") == "".join(values.escape(text).split()).replace("`", "")


@given(st.one_of(texts, spaced))
def test_a_sentence_at_the_begin_of_a_line_makes_no_block(text: str) -> None:
    assert render(prose(text)).names <= {"p", "code"}
    assert render(f"> {prose(text)}").names <= {"blockquote", "p", "code"}
    assert render(f"- {prose(text)}").names <= {"ul", "li", "p", "code"}


@given(texts, spaced)
def test_neither_leaves_its_cell(value: str, sentence: str) -> None:
    page = render(f"| a | b |\n|-|-|\n| {cell(code(value))} | {cell(prose(sentence))} |\n")
    assert page.rows() == [2, 2]
    assert page.names <= {"table", "thead", "tbody", "tr", "th", "td", "code"}
    assert page.read() == []


@given(texts)
def test_a_block_of_code_ends_where_we_end_it(text: str) -> None:
    page = render(f"{fenced(values.escape(text))}\nafter\n")
    assert page.names == {"pre", "code", "p"}
    assert [part for path, part in page.texts if "pre" not in path and part.strip()] == ["after"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("is not declared, so it goes.", "is not declared, so it goes."),
        ("plan again, with `--only A`", "plan again, with `--only A`"),
        ("the zone mana.how has 3 records", "the zone `mana.how` has 3 records"),
        ("ask a@b.example, or (https://x.example).", "ask `a@b.example`, or `(https://x.example)`."),
        ("see GH-1 and #2 of deadbeef or -deadbeef", "see `GH-1` and `#2` of `deadbeef` or `-deadbeef`"),
        ("1. one", "`1`. one"),
        ("{env: KEY} is not read; {sops: a.yaml#b}.", "`{env: KEY}` is not read; `{sops: a.yaml#b}`."),
        ("{env: KEY}{env: KEY} x", "`{env:` `KEY}{env:` `KEY}` x"),
    ],
)
def test_words_stay_words(text: str, shown: str) -> None:
    assert prose(text) == shown


@pytest.mark.parametrize("content", ["`", "``", "a```b", "`a`", "", "a`b``c", "$x$"])
def test_code_spans_use_a_fence_longer_than_any_run(content: str) -> None:
    assert "".join(render(code(content)).within("code")).strip() == content
    assert fenced("a\n````\nb").startswith("`````\n")
