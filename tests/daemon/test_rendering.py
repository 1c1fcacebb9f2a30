"""The page as a text: no name breaks out of its place, and ages read well."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest
from daemon import states
from hypothesis import example, given
from hypothesis import strategies as st

from reconciler.daemon.document import document
from reconciler.daemon.page import render
from reconciler.daemon.state import Contest, Sourced, State, Suspension
from reconciler.problem import Problem
from reconciler.report import values

NOW = datetime(2026, 11, 28, 12, 1, 0, tzinfo=UTC)


class Outline(HTMLParser):
    """The elements of a page with their attributes' names, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements, self.text = list[object](), ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, [name for name, _ in attrs]))

    def handle_data(self, data: str) -> None:
        self.text += data


def everywhere(text: str) -> State:
    """A state in which a text stands wherever somebody else may choose one."""
    item = states.record(text, text, type="TXT")
    revision = replace(states.REVISION, subject=text, author=text, committer=text, signer=text, commit=text)
    calm = states.calm(facts={"a": replace(states.facts(item)[item.address], place=text)})
    return replace(
        calm,
        stack=text,
        source=Sourced(text, text, revision, text, "2026-11-28T12:00:00Z", (Problem(text, text, text),)),
        contested=(Contest(text, text, text, text, 3, "2026-11-28T11:00:00Z", "2026-11-28T12:15:00Z"),),
        suspended=Suspension(text, text, "2026-11-28T11:00:00Z"),
        healed=(states.entry(who=text, lost=(text,), revision=text),),
        lease={"pid": text, "host": text, "command": text},
        cycle=replace(states.cycle(), drift=frozenset({text})),
    )


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=20))
@example("<script>alert(1)</script>")
@example('"><img src=x onerror=alert(1)>')
@example("' onmouseover='x")
@example("{{ 7 * 7 }}{% raw %}")
@example("]]><!--")
@example("\u202egnp.exe\x1b[2J")
def test_no_text_changes_what_the_page_is_made_of(text: str) -> None:
    expected = Outline(render(document(everywhere("x"), NOW), text.replace("x", "y"), NOW))
    found = Outline(render(document(everywhere(text), NOW), text, NOW))
    assert found.elements == expected.elements
    assert values.escape(text) in found.text.replace("\r", "\n") or "\r" in text


@pytest.mark.parametrize(
    ("when", "said"),
    [
        ("2026-11-28T12:01:00Z", "less than a minute ago"),
        ("2026-11-28T12:00:00Z", "1 minute ago"),
        ("2026-11-28T09:30:00Z", "2 hours ago"),
        ("2026-11-26T12:01:00Z", "2 days ago"),
        ("2026-11-28T12:01:30Z", "in less than a minute"),
        ("2026-11-28T12:05:00Z", "in 4 minutes"),
    ],
)
def test_ages_are_told_as_people_tell_them(when: str, said: str) -> None:
    assert f"({said})" in render(document(states.calm(next=when), NOW), "", NOW)


def test_a_word_of_which_little_is_known_is_shown_all_the_same() -> None:
    unread = states.calm(suspended=Suspension("the file can't be read", "", ""))
    assert "Suspended: the file can&#39;t be read." in render(document(unread, NOW), "", NOW)


def test_a_daemon_that_has_just_begun_has_a_page() -> None:
    page = render(document(State("", "2026-11-28T12:00:00Z", 0.0, Sourced("")), NOW), "", NOW)
    assert "<title>reconciler: starting</title>" in page
    assert "The first cycle has not ended yet." in page


def test_a_lease_of_which_little_is_known_is_shown_all_the_same() -> None:
    assert "process ? on ?" in render(document(states.calm(lease={"since": "x"}), NOW), "", NOW)
