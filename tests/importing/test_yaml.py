"""What is written means the same to the reader, whatever the text."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.desired.yaml import Mistake, parse, value
from reconciler.importing.directory import Inline, Noted, document
from reconciler.resources import SecretRef

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12) | st.from_regex(
    r"\A[-+0-9.eExoa-f:_, #@&*!|>%'\"{}\[\]?~]{0,8}\Z"
)


def read(content: dict[str, Any]) -> Any:
    mistakes: list[Mistake] = []
    node = parse(document(content, "a head"), "file.yaml", mistakes)
    assert mistakes == []
    assert node is not None
    return value(node, typed=True)


@given(TEXTS)
def test_every_text_comes_back(text: str) -> None:
    for content in (
        {"key": text},
        {"key": Inline(field=text)},
        {"key": [text, text]},
        {"key": [Inline(field=text)]},
        {"key": [{"a": text, "b": Noted(text, beside="why")}]},
        {f"{text}key": 1},
    ):
        assert read(content) == _plain(content)
        assert all(char == "\n" or char.isprintable() or char.isspace() for char in document(content))


@pytest.mark.parametrize("key", ["k" * 1100, "k\n" * 700, "\u200b" * 200])
def test_l10_a_key_of_any_length_comes_back(key: str) -> None:
    for content in (
        {key: 1},
        {"a": {key: {key: [1]}}},
        {"a": [{key: 1, "b": 2}]},
        {"a": [Inline({key: [Inline({key: "x"})]})]},
    ):
        assert read(content) == content
    assert read({"a": {key: Noted({"b": "c"}, ("above",), "beside")}}) == {"a": {key: {"b": "c"}}}
    assert read({"a": 1, "b": Noted({key: {"b": "c"}}, out=True)}) == {"a": 1}


@pytest.mark.parametrize("char", ["\u202e", "\u2066", "\u200b", "\U000e0061", "\x9b", "\ufeff"])
def test_t2_nothing_that_was_found_hides_or_reorders_a_line_that_is_written(char: str) -> None:
    content = {f"{char}key": [f"a{char}b", Inline(field=f"#{char}")]}
    assert char not in document(content)
    assert read(content) == content


def _plain(item: Any) -> Any:
    if isinstance(item, Noted):
        return _plain(item.value)
    if isinstance(item, dict):
        return {key: _plain(inner) for key, inner in item.items()}
    return [_plain(inner) for inner in item] if isinstance(item, list) else item


def test_it_is_written_as_a_person_would() -> None:
    entry = {"selector": "a", "private_key": SecretRef("file", "../s/a.pem")}
    content = {
        "stack": Noted("mana", beside="what marks ours"),
        "dkim": {"mana.how": [Noted({"selector": "b", "algorithm": "rsa"}, ("Left out.",), out=True), entry]},
        "dns": {"mana.how": [Inline(type="A", name="@", content="192.0.2.1", ttl=300)]},
    }
    assert document(content, "Head.") == (
        "# Head.\n"
        "stack: mana  # what marks ours\n"
        "\n"
        "dkim:\n"
        "  mana.how:\n"
        "    # Left out.\n"
        "    # - selector: b\n"
        "    #   algorithm: rsa\n"
        "    - selector: a\n"
        "      private_key: {file: ../s/a.pem}\n"
        "\n"
        "dns:\n"
        "  mana.how:\n"
        '    - {type: A, name: "@", content: 192.0.2.1, ttl: 300}\n'
    )
