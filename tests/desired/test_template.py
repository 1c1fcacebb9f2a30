from __future__ import annotations

import base64
import json
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from properties import tries

from reconciler.desired import template
from reconciler.desired.template import ESCAPES, NAMES, Slot, WrongTemplate, escaped

slots = st.builds(Slot, st.sampled_from([*NAMES, "values.region"]), st.sampled_from(["", *ESCAPES]))


def render(parts: list[str | Slot]) -> str:
    return "".join(
        part.replace("{", "{{").replace("}", "}}")
        if isinstance(part, str)
        else "{" + part.name + (f"|{part.escape}" if part.escape else "") + "}"
        for part in parts
    )


@settings(deadline=None, max_examples=tries(60))
@given(st.lists(st.text(min_size=1) | slots))
def test_what_is_written_is_read(parts: list[str | Slot]) -> None:
    joined: list[str | Slot] = []
    for part in parts:
        if isinstance(part, str) and joined and isinstance(joined[-1], str):
            joined[-1] += part
        else:
            joined.append(part)
    assert template.split(render(parts)) == tuple(joined)


def test_an_url() -> None:
    got = template.split("smtp://{username|url}:{password|url}@{host}:{port}/{{x}}")
    assert got == (
        *("smtp://", Slot("username", "url"), ":", Slot("password", "url"), "@", Slot("host"), ":", Slot("port")),
        "/{x}",
    )
    assert template.slots("{host}{{port}}") == {"host"}


@pytest.mark.parametrize(
    "text",
    ["{hunter2}", "{password|hunter2}", "{hunter2", "hunter2}", "{}", "{host|}", "{ host }", "{values.}", "{values}"],
)
def test_a_wrong_one_is_told_without_repeating_it(text: str) -> None:
    with pytest.raises(WrongTemplate) as caught:
        template.split(text)
    assert "hunter2" not in caught.value.summary + caught.value.hint
    assert caught.value.hint


@settings(deadline=None, max_examples=tries(200))
@given(st.text())
def test_escapes_are_read_back(value: str) -> None:
    assert json.loads(f'"{escaped(value, "json")}"') == value
    assert base64.b64decode(escaped(value, "base64"), validate=True).decode() == value
    assert unquote(escaped(value, "url")) == value
    assert escaped(value, "") == value


def test_a_mailbox_has_parts() -> None:
    mailbox = '"Mana, the shop" <no-reply@mana.how>'
    parts = {escape: escaped(mailbox, escape) for escape in ("address", "local", "domain")}
    assert parts == {"address": "no-reply@mana.how", "local": "no-reply", "domain": "mana.how"}
    assert escaped("a@b.example", "address") == "a@b.example"
