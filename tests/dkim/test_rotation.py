"""The life of a key: each state's next step, and that no way through them leaves a signature nobody can verify."""

from __future__ import annotations

import base64
import datetime as dt
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from properties import tries

from reconciler.desired.spec.mail import Key
from reconciler.dkim import rotation
from reconciler.dkim.rotation import KeyFacts, Step, Turn, free
from reconciler.dns.publication import Answer, Answers, Question
from reconciler.dns.records import dkim_record
from reconciler.problem import Severity
from reconciler.resources import Signature

DOMAIN = "mana.how"
TODAY = dt.date(2026, 11, 22)
SERVERS = ("one", "two")
NOTHING = KeyFacts()


def public(selector: str) -> str:
    return base64.b64encode(selector.ljust(32).encode()).decode()


def key(selector: str, stage: str = "active", days: int | None = 0, **more: Any) -> Key:
    """Make a key; ``days`` ago is its ``since``."""
    facts: dict[str, Any] = {"selector": selector, "algorithm": "ed25519", "public_key": public(selector)}
    if days is not None:
        facts["since"] = (TODAY - dt.timedelta(days=days)).isoformat()
    facts |= {"stage": stage, "private_key": {"file": f"../secrets/{selector}.pem"}} | more
    return Key.model_validate({name: value for name, value in facts.items() if value is not None})


def answers(*shown: set[str] | str) -> Answers:
    """Say what each server shows: a set of selectors, or why it can't be asked."""
    names = {selector for item in shown if isinstance(item, set) for selector in item} | {"new", "old", "b"}
    return {
        Question(f"{selector}._domainkey.{DOMAIN}", "TXT"): tuple(_answer(*each, selector) for each in enumerate(shown))
        for selector in names
    }


def _answer(number: int, item: set[str] | str, selector: str) -> Answer:
    name = f"ns{number}"
    if isinstance(item, str):
        return Answer(name, unread=item)
    record = dkim_record(DOMAIN, DOMAIN, selector, "ed25519", public(selector))
    return Answer(name, values=(str(record.content),) if selector in item else ())


def signing(*selectors: str) -> tuple[Signature, ...]:
    return tuple(Signature(DOMAIN, name, "ed25519", public(name)) for name in selectors)


def step(*keys: Key, seen: KeyFacts = NOTHING) -> Step:
    (found,) = rotation.steps(DOMAIN, keys, TODAY, seen)
    return found


def written(step: Step) -> dict[str, str]:
    return {name: str(facts.get("stage", "")) for name, facts in step.changes.items()}


EVERYWHERE = answers({"new", "old"}, {"new", "old"})
NOWHERE = answers({"old"}, {"old"})


# ------------------------------------------------------------------------------------------------------- the table
@pytest.mark.parametrize(
    ("keys", "seen", "move", "changes", "words"),
    [
        ([key("old")], KeyFacts(), Turn.START, {}, ""),
        ([key("old"), key("gone", "retired")], KeyFacts(), Turn.START, {}, ""),
        ([key("gone", "retired")], KeyFacts(), Turn.REST, {}, "dkim generate mana.how --algorithm ed25519"),
        (
            [key("old"), key("new", "pending")],
            KeyFacts(EVERYWHERE),
            Turn.ACTIVATE,
            {"new": "active", "old": "retiring"},
            "every name server (2 asked) shows new",
        ),
        ([key("old"), key("new", "pending")], KeyFacts(NOWHERE), Turn.WAIT, {}, "ns0, ns1 do not show it yet"),
        (
            [key("old"), key("new", "pending")],
            KeyFacts(answers({"new"}, set())),
            Turn.WAIT,
            {},
            "ns1 does not show it yet",
        ),
        (
            [key("old"), key("new", "pending")],
            KeyFacts(answers({"new"}, "it fails")),
            Turn.BLOCKED,
            {},
            "ns1 could not be",
        ),
        ([key("old"), key("new", "pending")], KeyFacts(), Turn.BLOCKED, {}, "no authoritative name server was found"),
        ([key("new", "pending")], KeyFacts(EVERYWHERE), Turn.ACTIVATE, {"new": "active"}, "no other key signs"),
        ([key("new", "pending")], KeyFacts(NOWHERE), Turn.ACTIVATE, {"new": "active"}, "signs before it is published"),
        ([key("new", "pending")], KeyFacts(answers("x", "y")), Turn.ACTIVATE, {"new": "active"}, "could not be asked"),
        (
            [key("old"), key("b", "pending", 1), key("new", "pending", 2)],
            KeyFacts(EVERYWHERE),
            Turn.ACTIVATE,
            {"new": "active", "old": "retiring"},
            "new comes first; b follows in a rotation of its own",
        ),
        ([key("new", days=7), key("old", "retiring", 7)], KeyFacts(), Turn.WAIT, {}, "retired on 2026-11-23"),
        (
            [key("new", days=8), key("old", "retiring", 8)],
            KeyFacts(EVERYWHERE, server=signing("new")),
            Turn.RETIRE,
            {"old": "retired"},
            "the rotation is done",
        ),
        ([key("new", days=8), key("old", "retiring", 8)], KeyFacts(EVERYWHERE), Turn.BLOCKED, {}, "can't be told"),
        (
            [key("new", days=8), key("old", "retiring", 8)],
            KeyFacts(EVERYWHERE, server=signing("old")),
            Turn.DATE,
            {"old": "", "new": ""},
            "the server still signs with old",
        ),
        (
            [key("new", days=8), key("old", "retiring", 8)],
            KeyFacts(NOWHERE, server=signing("new")),
            Turn.WAIT,
            {},
            "stays retiring until new, which signs now, is published",
        ),
        (
            [key("new", days=8), key("old", "retiring", 8)],
            KeyFacts(answers({"new"}, "gone"), server=signing("new")),
            Turn.BLOCKED,
            {},
            "ns1 could not be asked",
        ),
        ([key("new", days=3), key("old", "retiring", 30)], KeyFacts(), Turn.WAIT, {}, "retired on 2026-11-27"),
        ([key("new"), key("old", "retiring", None)], KeyFacts(), Turn.DATE, {"old": ""}, "nothing says since when"),
        ([key("new"), key("old", "retiring", -5)], KeyFacts(), Turn.WAIT, {}, "a day to come"),
        ([key("old", "retiring", 8)], KeyFacts(server=()), Turn.RETIRE, {"old": "retired"}, ""),
        (
            [key("new", "pending"), key("old", "retiring", 1)],
            KeyFacts(EVERYWHERE),
            Turn.ACTIVATE,
            {"new": "active"},
            "no other key signs",
        ),
        ([key("a"), key("new", "pending"), key("old", "retiring", 1)], KeyFacts(), Turn.WAIT, {}, "old is retiring"),
        (
            [key("new", days=9), key("old", "retiring", 9), key("b", "retiring", 1)],
            KeyFacts(EVERYWHERE, server=signing("new")),
            Turn.RETIRE,
            {"old": "retired"},
            "b is retiring",
        ),
    ],
)
def test_every_state_has_a_next_step(
    keys: list[Key], seen: KeyFacts, move: Turn, changes: dict[str, str], words: str
) -> None:
    found = step(*keys, seen=seen)
    assert found.move is move
    assert written(found) == changes
    assert words in " ".join([found.said, found.then, *map(str, found.problems)])
    assert all(facts["since"] == TODAY for facts in found.changes.values())
    assert (move is Turn.BLOCKED) == any(problem.severity is Severity.ERROR for problem in found.problems)


def test_seven_full_days_lie_between_the_day_of_the_last_signature_and_the_day_it_goes() -> None:
    assert free(dt.date(2026, 11, 1)) == dt.date(2026, 11, 9)


def test_a_key_without_a_public_half_gets_it_when_it_retires() -> None:
    pending = key("new", "pending")
    held = key("old", public_key=None, private_key=None)
    blocked = step(held, pending, seen=KeyFacts(EVERYWHERE))
    assert blocked.move is Turn.BLOCKED
    assert "which holds the key" in blocked.problems[0].hint
    for seen in (KeyFacts(EVERYWHERE, server=signing("old")), KeyFacts(EVERYWHERE, halves={"old": public("old")})):
        assert step(held, pending, seen=seen).changes["old"]["public_key"] == public("old")
    named = key("old", public_key=None)
    assert "../secrets/old.pem" in step(named, pending, seen=KeyFacts(EVERYWHERE)).problems[0].hint


def test_only_what_has_to_be_known_is_asked() -> None:
    def asked(*keys: Key) -> tuple[set[str], list[str], bool]:
        needs = rotation.needs(DOMAIN, keys, TODAY)
        return (
            {item.host.partition(".")[0] for item in needs.questions},
            [x.selector for x in needs.halves],
            needs.server,
        )

    assert asked(key("old")) == (set(), [], False)
    assert asked(key("old"), key("new", "pending")) == ({"new"}, [], False)
    assert asked(key("old", public_key=None), key("new", "pending")) == ({"new"}, ["old"], False)
    assert asked(key("old", public_key=None, private_key=None), key("new", "pending")) == ({"new"}, ["old"], True)
    assert asked(key("new"), key("old", "retiring", 1)) == (set(), [], False)
    assert asked(key("new", days=8), key("old", "retiring", 8)) == ({"new"}, [], True)


def test_a_rotation_starts_only_while_none_is_under_way() -> None:
    rsa = key("r", algorithm="rsa", public_key=None)
    found = rotation.steps(DOMAIN, [rsa, key("new", days=8), key("old", "retiring", 1)], TODAY, KeyFacts())
    assert [item.move for item in found] == [Turn.REST, Turn.WAIT]
    assert "when that of ed25519 is done" in found[0].said
    assert [item.move for item in rotation.steps(DOMAIN, [rsa, key("new")], TODAY, KeyFacts())] == [Turn.START] * 2


# --------------------------------------------------------------------------------------------- every way through them
class Stack:
    """A domain whose directory, server and two name servers each go at a pace of their own."""

    def __init__(self, keys: list[Key]) -> None:
        self.keys, self.today, self.number = keys, TODAY, 0
        self.signing: set[str] = {item.selector for item in keys if item.stage == "active"}
        self.published = {item.selector for item in keys if item.stage != "retired"}
        self.shown: list[set[str]] = [set(self.published), set(self.published)]

    def apply(self) -> None:
        self.signing = {item.selector for item in self.keys if item.stage == "active"}
        self.published = {item.selector for item in self.keys if item.stage != "retired"}

    def rotate(self) -> list[Step]:
        signatures = tuple(Signature(DOMAIN, name, self[name].algorithm, public(name)) for name in self.signing)
        needs = rotation.needs(DOMAIN, self.keys, self.today)
        seen = KeyFacts(self._answers(needs.questions), server=signatures if needs.server else None)
        steps = rotation.steps(DOMAIN, self.keys, self.today, seen)
        before = {item.selector: item for item in self.keys}
        for found in steps:
            for selector, facts in found.changes.items():
                self._set(selector, facts)
            if found.move is Turn.START:
                self._start(found)
        self._check(before)
        return list(steps)

    def __getitem__(self, selector: str) -> Key:
        return next(item for item in self.keys if item.selector == selector)

    def _answers(self, questions: Any) -> Answers:
        found = {}
        for question in questions:
            item = self[question.host.partition(".")[0]]
            value = str(dkim_record(DOMAIN, DOMAIN, item.selector, item.algorithm, str(item.public_key)).content)
            found[question] = tuple(
                Answer(name, values=(value,) if item.selector in shown else ())
                for name, shown in zip(SERVERS, self.shown, strict=True)
            )
        return found

    def _set(self, selector: str, facts: Mapping[str, Any]) -> None:
        self.keys = [item.model_copy(update=dict(facts)) if item.selector == selector else item for item in self.keys]

    def _start(self, found: Step) -> None:
        self.number += 1
        made = key(f"new{self.number}", "pending")
        self.keys.append(made.model_copy(update={"since": self.today, "algorithm": found.algorithm}))

    def _check(self, before: Mapping[str, Key]) -> None:
        for item in self.keys:
            was = before.get(item.selector)
            beside = [other for other in before.values() if other.algorithm == item.algorithm and other is not was]
            if was is None:
                assert not any(other.stage in ("pending", "retiring") for other in before.values())
            elif (was.stage, item.stage) == ("pending", "active"):
                if any(other.stage == "active" for other in beside):
                    assert all(item.selector in shown for shown in self.shown), "took over unseen"
            elif (was.stage, item.stage) == ("retiring", "retired"):
                assert was.since is not None
                assert (self.today - was.since).days > 7
                assert item.selector not in self.signing, "gone while the server signs with it"
                for other in beside:
                    assert other.stage != "active" or all(other.selector in shown for shown in self.shown)
            elif (was.stage, item.stage) != ("active", "retiring"):
                assert was.stage == item.stage
        for algorithm in ("ed25519", "rsa"):
            assert sum((item.algorithm, item.stage) == (algorithm, "active") for item in self.keys) <= 1


STAGES = st.tuples(
    st.sampled_from(["pending", "active", "retiring", "retired"]),
    st.sampled_from(["ed25519", "rsa"]),
    st.one_of(st.none(), st.integers(-5, 20)),
)


@st.composite
def a_stack(draw: Any) -> Stack:
    found: list[Key] = []
    for number, (stage, algorithm, days) in enumerate(draw(st.lists(STAGES, min_size=1, max_size=6))):
        taken = stage == "active" and any((item.stage, item.algorithm) == (stage, algorithm) for item in found)
        made = key(f"k{number}", "retired" if taken else stage, days)
        found.append(made.model_copy(update={"algorithm": algorithm}))  # its public half is text here
    return Stack(found)


OPERATIONS = st.lists(st.sampled_from(["rotate", "apply", "day", "days", "one", "two"]), max_size=40)


@settings(max_examples=tries(300), deadline=None)
@given(stack=a_stack(), operations=OPERATIONS)
def test_no_order_of_events_breaks_a_signature_and_every_one_comes_to_an_end(
    stack: Stack, operations: list[str]
) -> None:
    for name in operations:
        if name in SERVERS:
            stack.shown[SERVERS.index(name)] = set(stack.published)
        elif name in ("day", "days"):
            stack.today += dt.timedelta(days=1 if name == "day" else 8)
        else:
            getattr(stack, name)()
    for _ in range(150):
        steps = stack.rotate()
        if all(item.move in (Turn.START, Turn.REST) for item in steps):
            break
        stack.apply()
        stack.shown = [set(stack.published), set(stack.published)]
        stack.today += dt.timedelta(days=1)
    else:
        raise AssertionError([(item.selector, item.stage, item.since) for item in stack.keys])
