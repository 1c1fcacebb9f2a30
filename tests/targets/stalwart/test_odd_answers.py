"""Answers with one part of another kind than it has: told as such, and never taken for what is missing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from reconciler.plan import Desired, diff
from reconciler.resources import Account, Domain, Resource, Setting
from reconciler.simulator.stalwart.jmap.schema import document
from reconciler.simulator.wire import Reply, Request
from reconciler.targets.stalwart.jmap.api import Failure, public
from reconciler.targets.stalwart.rest.api import _public

from .conftest import NewWorld, World

ODD: Sequence[Any] = (5, [None], {"a": {}})


def odd_ones(value: Any) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    """Yield a value with each of its parts in turn replaced: where, by what, and the whole."""
    for odd in ODD:
        yield (), odd, odd
    parts = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    for key, part in parts:
        for at, odd, changed in odd_ones(part):
            copy = value.copy()
            copy[key] = changed
            yield (str(key) if isinstance(value, dict) else "#", *at), odd, copy


def each_odd_answer(world: World, wanted: Sequence[Resource], path: str) -> Iterator[tuple[str, Any]]:
    """Yield what is observed with each odd answer to the requests for a path; one of a list stands for all."""
    fake, answers = world.server.fake, list[Reply]()

    def listening(request: Request) -> Reply:
        answer = fake(request)
        answers.extend([answer] if request.path == path else [])
        return answer

    world.server.fake = listening
    assert not world.plan(wanted).pending
    seen = set[str]()
    for at, odd, changed in odd_ones(json.loads(answers[-1].body)):
        where = f"{'.'.join(at)} is {odd}"
        if where in seen:
            continue
        seen.add(where)
        odd_answer = Reply.of(changed)
        world.server.fake = lambda request, odd=odd_answer: odd if request.path == path else fake(request)
        world.connect()
        yield where, world.observe(wanted)
    world.server.fake = fake


@pytest.mark.parametrize("path", ["/api/principal", "/api/settings/keys"])
def test_t12_an_odd_answer_up_to_0_15_is_no_empty_server(world: World, path: str) -> None:
    wanted = [
        Domain("mana.how"),
        Account("noreply@mana.how", "noreply", "noreply@mana.how", None, ("user",), ("bounce@mana.how",), quota=9),
        Setting("hostname", "mail.mana.how"),
    ]
    world.apply(wanted)
    for where, seen in each_odd_answer(world, wanted, path):
        plan = diff(Desired(tuple(wanted)), {"stalwart": seen}, stack="mana")
        assert not seen.lost, where
        assert not [change for change in plan.pending if change.deletes], where
        assert seen.unread or "name" not in where or "settings" in path, where


@pytest.mark.long
@pytest.mark.parametrize("known", [True, False], ids=["a release that is known", "one whose schema was asked for"])
def test_t12_an_odd_answer_from_0_16_is_no_empty_server(newer: NewWorld, known: bool) -> None:
    aliases = ("bounce@mana.how",)
    if not known:
        newer.fake.schema = {**document(), "objects": {**document()["objects"], "x:Exchange": {"type": "singleton"}}}
        newer.fake.restart()
    wanted = [
        Domain("mana.how"),
        Account("noreply@mana.how", email="noreply@mana.how", roles=("user",), aliases=aliases, quota=9),
        Setting("auto_ban/scan", "20/1d"),
    ]
    newer.apply(wanted)
    for where, seen in each_odd_answer(newer, wanted, "/jmap"):
        plan = diff(Desired(tuple(wanted)), {"stalwart": seen}, stack="mana")
        assert not seen.lost, where
        assert not [change for change in plan.pending if change.deletes], where
        assert seen.unread or not where.endswith(".id is 5"), where


def test_t12_a_listing_that_holds_something_twice_is_not_whole(world: World) -> None:
    wanted = [Domain("mana.how"), Account("noreply@mana.how", "noreply", "noreply@mana.how")]
    world.apply(wanted)
    fake = world.server.fake

    def twice(request: Request) -> Reply:
        answer = fake(request)
        if request.path != "/api/principal":
            return answer
        body = json.loads(answer.body)
        body["data"]["items"] = [body["data"]["items"][0]] * body["data"]["total"]
        return Reply.of(body)

    world.server.fake = twice
    seen = world.observe(wanted)
    assert seen.unread
    assert "lists 1 of 2 accounts and domains" in str(seen.problems[0])


def test_t12_an_odd_refusal_is_read_as_far_as_it_goes() -> None:
    for odd in ODD:
        body = dict.fromkeys(
            ("type", "description", "properties", "objectId", "linkedObjects", "validationErrors"), odd
        )
        assert Failure.of(body).words()


@pytest.mark.parametrize("shown", [public, _public])
def test_t2_what_a_server_says_is_shown_whole_or_not_at_all(shown: Any) -> None:
    secret = "relay pass word 0123456789"
    for before in range(250, 310):
        text = shown("x" * before + secret)
        assert secret in text or "relay" not in text
