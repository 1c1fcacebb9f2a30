"""The schema for editors: every word explained, what is wrong underlined, and what is right let through (U14)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import format_page
import jsonschema
import pytest
import yaml

from reconciler.desired import starter
from reconciler.desired.load import load
from reconciler.desired.spec import manual, schema
from reconciler.problem import InvalidDirectory

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    return schema()


@pytest.fixture(scope="module")
def judge(made: dict[str, Any]) -> jsonschema.Draft202012Validator:
    jsonschema.Draft202012Validator.check_schema(made)
    return jsonschema.Draft202012Validator(made)


def _properties(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, list):
        for item in node:
            yield from _properties(item, path)
    elif isinstance(node, dict):
        for name, part in node.get("properties", {}).items():
            yield f"{path}.{name}", part
        for name, part in node.items():
            inner = part if name in ("properties", "$defs") and isinstance(part, dict) else {name: part}
            for key, value in inner.items():
                yield from _properties(value, f"{path}.{key}" if name in ("properties", "$defs") else path)


def test_u14_every_property_of_the_schema_has_a_description(made: dict[str, Any]) -> None:
    found = dict(_properties(made))
    assert len(found) > 1000
    assert [path for path, part in found.items() if not part.get("description")] == []


def test_u14_no_text_is_of_a_word_that_is_no_more(made: dict[str, Any]) -> None:
    link = made["$defs"]["Link"]["anyOf"][1]
    models = {**made["$defs"], "Link": link}
    known = {f"{model}.{name}" for model, shape in models.items() for name in shape.get("properties", ())}
    assert set(manual.WORDS) == known | set(made["properties"])
    assert set(manual.SHAPES) <= set(manual.WORDS)


def test_u14_the_page_has_every_word_as_the_schema_has() -> None:
    assert format_page.PAGE.read_text() == format_page.page(format_page.PAGE.read_text())
    assert "`smtp.links[].value`" in format_page.words()


HEAD = "version: 1\nstack: t\n"
WRONG = [
    "smtp: {providers: {a: {preset: nope}}}",
    "dns: {a.example: [{type: ZZ, name: a, content: b}]}",
    "dns: {a.example: [{type: A, content: 192.0.2.1}]}",
    "dns: {a.example: [{type: A, name: 'a b', content: 192.0.2.1}]}",
    "dns: {nodot: []}",
    "accounts: {'a b@example.com': {}}",
    "accounts: {a@example.com: {aliases: [nobody]}}",
    "accounts: {a@example.com: {quota: 1 parsec}}",
    "groups: {staff: {}}",
    "lists: {a@example.com: {members: [x]}}",
    "domains: {a.example: {catch_all: nobody}}",
    "dkim: {a.example: [{selector: -a, algorithm: rsa}]}",
    "dkim: {a.example: [{selector: a, algorithm: dsa}]}",
    "smtp: {consumers: {web: {app: nosuchapp, env: {}}}}",
    "removed: [a@example.com]",
    "adopt: [nothing]",
    "moved: [{from: a}]",
    "policy: {approval: maybe}",
    "stalwart: {listeners: {a: {bind: '[::]:25', protocol: gopher}}}",
    "stalwart: {listeners: {a: {bind: '[::]:25', protocol: smtp, proxy_networks: [everybody]}}}",
    "targets: {stalwart: {url: http://a}}",
    "accounts: {a@example.com: {password: hunter2}}",
]


@pytest.mark.parametrize("text", WRONG)
def test_u14_an_editor_underlines_what_validate_refuses(
    tmp_path: Path, judge: jsonschema.Draft202012Validator, text: str
) -> None:
    (tmp_path / "a.yaml").write_text(HEAD + text)
    with pytest.raises(InvalidDirectory):
        load(tmp_path)
    assert not judge.is_valid(yaml.safe_load(HEAD + text))


RIGHT = [
    "accounts: {admin: {}, a@example.com: {quota: 1 GiB, aliases: [], locked: true, locale: de_DE}, x-free: 1}",
    "dns: {bücher.de: [{type: a, name: '*', content: 192.0.2.1}], x-records: []}",
    "dns:\n",
    "removed:\n",
    "lists: {a@bücher.de: {members: null}}",
    "dkim: {a.example: [{selector: Mail.s1, algorithm: rsa}]}",
    "stalwart: {listeners: {a: {bind: ['[::]:25'], protocol: smtp, proxy_networks: ['10.0.0.0/8', '::1']}}}",
]


@pytest.mark.parametrize("text", RIGHT)
def test_u14_an_editor_lets_through_what_is_right(
    tmp_path: Path, judge: jsonschema.Draft202012Validator, text: str
) -> None:
    (tmp_path / "a.yaml").write_text(HEAD + text)
    load(tmp_path)
    assert [error.message for error in judge.iter_errors(yaml.safe_load(HEAD + text))] == []


def test_u14_the_example_and_the_starter_are_right_to_an_editor(judge: jsonschema.Draft202012Validator) -> None:
    texts = {path.name: path.read_text() for path in (ROOT / "desired-state").glob("*.yaml")}
    texts |= {name: text for name, text in starter.files("t").items() if name.endswith(".yaml")}
    assert len(texts) > 5
    for name, text in texts.items():
        loader = yaml.BaseLoader if name == "dkim.yaml" else yaml.SafeLoader  # to an editor a day is a text
        assert [error.message for error in judge.iter_errors(yaml.load(text, loader))] == [], name
