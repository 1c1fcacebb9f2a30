"""Whatever a later release names otherwise, lacks or needs: it is told before a write, and nothing unknown is sent."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from reconciler.desired import objects
from reconciler.problem import Severity
from reconciler.resources import (
    Account,
    AllowedIp,
    Domain,
    Group,
    Listener,
    MailingList,
    Resource,
    SecretRef,
    Setting,
    Signature,
)
from reconciler.simulator.stalwart.jmap.server import StalwartJmap
from reconciler.simulator.wire import Server
from reconciler.targets.stalwart.jmap.bootstrap import Setup
from reconciler.targets.stalwart.passwords import hashed

from ..conftest import ADMIN, NewWorld, ref  # noqa: TID252 (the fixtures of the folder above)
from .changed import change, document, in_use

EXPLORES = os.environ.get("RECONCILER_PROPERTIES") == "explore"
TRIED = 2000 if EXPLORES else 60
UNKNOWN = ("unknownMethod", "invalidPatch", "validationFailed", "invalidArguments", "invalidProperties")
HASH = hashed("a password")


@pytest.fixture(scope="module")
def everything(request: pytest.FixtureRequest) -> list[Resource]:
    """One of each kind, with all that it can say."""
    from reconciler.keys import public_half

    keys = request.getfixturevalue("keys")
    relay: Mapping[str, Any] = {"@type": "Relay", "address": "smtp.example.org", "port": 587, "authUsername": "u"}
    secret = objects.Parts({"@type": "Value", "secret": SecretRef("env", "RELAY")})
    return [
        Domain("mana.how", description="Own", catch_all="postmaster@mana.how", aliases=("mana.org",)),
        Domain("example.org", sub_addressing=False),
        Group("team@mana.how", "Team", ("all@mana.how",)),
        Account("admin", "admin", "admin@mana.how", "Administrator", ("admin",), password=ref("ADMIN")),
        Account(
            "a@mana.how",
            "a",
            "a@mana.how",
            "Somebody",
            ("user",),
            aliases=("b@mana.how", "c@mana.how"),
            groups=("team@mana.how",),
            quota=1 << 30,
            password=ref("HASH"),
        ),
        Account("plain@mana.how", "plain", "plain@mana.how", roles=("user",), password=ref("HASH")),
        MailingList("news@mana.how", "News", (), ("a@mana.how", "else@example.net")),
        Signature("mana.how", "ed1", "ed25519", public_half("ed25519", keys["ED"]), private_key=ref("ED")),
        Signature("mana.how", "rsa1", "rsa", public_half("rsa", keys["RSA"]), private_key=ref("RSA")),
        Setting("hostname", "mail.mana.how"),
        Setting("default_domain", "mana.how"),
        Setting("auto_ban/scan", "off"),
        Setting("auto_ban/auth", "50/1h"),
        AllowedIp("172.18.0.0/16"),
        Listener("submission", ("[::]:587",), "smtp"),
        Listener("sieve2", ("[::]:4191",), "managesieve"),
        *(Setting(objects.word("MtaRoute", "relay", name), value) for name, value in relay.items()),
        Setting(objects.word("MtaRoute", "relay", "authSecret"), secret),
        Setting(objects.word("Http", "", "useXForwarded"), True),
        Setting(objects.word("Jmap", "singleton", "maxMethodCalls"), 20),
    ]


def _is_reading(item: Mapping[str, Any]) -> bool:
    """Whether only a reading was declined: of who answered before, by the names that it had."""
    return str(item.get("description")).endswith(("/get", "/query"))


class Watched(StalwartJmap):
    """A fake that keeps what it declined."""

    def __init__(self, **options: Any) -> None:
        self.declined: list[Any] = []
        super().__init__(**options)

    def __call__(self, request: Any) -> Any:
        reply = super().__call__(request)
        if request.path == "/jmap" and reply.status == 200:
            import json

            for name, answer, _ in json.loads(reply.body)["methodResponses"]:
                found = [answer] if name == "error" else []
                for level in ("notCreated", "notUpdated", "notDestroyed"):
                    found += (answer.get(level) or {}).values()
                self.declined += [(name, item) for item in found if item.get("type") in UNKNOWN]
            self.declined = [(name, item) for name, item in self.declined if not _is_reading(item)]
        return reply


def secrets(keys: Mapping[str, str]) -> dict[str, str]:
    return {"ADMIN": ADMIN, "HASH": HASH, "RELAY": "relay-secret", "RECOVERY": "admin:rec0very secret", **keys}


def blocked(problems: Any) -> set[str]:
    return {item.scope for item in problems if item.severity is Severity.ERROR and item.scope}


def told_before_it_is_set_up(everything: Sequence[Resource], keys: Mapping[str, str], found: Any) -> set[str]:
    """Plan for a server in bootstrap mode, and return what is told."""
    environment = {"STALWART_RECOVERY_ADMIN": "admin:rec0very secret"}
    with StalwartJmap(environment=environment, schema=found, configured=False) as fake, Server(fake) as server:
        options = {"recovery": ref("RECOVERY"), "setup": Setup("mail.mana.how", "mana.how")}
        plan = NewWorld(fake, server, secrets(keys), options).plan(everything)
        assert not server.crashes
        return blocked(plan.problems)


def hold(everything: Sequence[Resource], keys: Mapping[str, str], numbers: Sequence[int], *, before: bool) -> None:
    """Apply to a server whose schema has changed, ``before`` or after it was filled."""
    found, said = document(), []
    environment = {"STALWART_RECOVERY_ADMIN": "admin:rec0very secret"}
    with Watched(environment=environment) as fake, Server(fake) as server:
        options = {"recovery": ref("RECOVERY"), "setup": Setup("mail.mana.how", "mana.how")}
        world = NewWorld(fake, server, secrets(keys), options)
        if not before:
            world.apply(everything)
        said = [change(found, random.Random(number)) for number in numbers]
        ours = in_use(document())
        fake.schema = found
        fake.restart()
        plan = world.plan(everything)
        told = blocked(plan.problems)
        outcomes = list(world.target.apply(plan.changes, world.reveal))
        note = (said, [(str(it.where), it.summary) for it in plan.problems if it.severity is Severity.ERROR])
        assert plan.complete, note
        assert not before or told | {it.address for it in plan.changes} >= {it.address for it in everything}, note
        assert not told or any(it.part in ours and not it.more for it in said), note
        if before and not any(it.part == "x:Bootstrap" for it in said):
            assert told_before_it_is_set_up(everything, keys, found) == told, note
        assert not fake.declined, (note, fake.declined)
        failed = [(item.change.address, item.problem) for item in outcomes if item.problem is not None]
        assert not failed, (note, failed)
        again = world.plan(everything)
        left = {item.address for item in again.changes}
        assert not left, (note, left)
        assert blocked(again.problems) == told, note
        assert not server.crashes


@pytest.mark.long
@settings(max_examples=TRIED, deadline=None, suppress_health_check=list(HealthCheck), derandomize=not EXPLORES)
@given(numbers=st.lists(st.integers(0, 1 << 30), min_size=1, max_size=3), before=st.booleans())
@example(numbers=[0], before=True)
@example(numbers=[12651461], before=False)
@example(numbers=[88821], before=False)
@example(numbers=[207707358], before=True)
@example(numbers=[7987], before=True)
@example(numbers=[1294], before=True)
def test_every_problem_is_named_before_a_write_and_nothing_unknown_is_sent(
    everything: list[Resource], keys: Mapping[str, str], numbers: list[int], before: bool
) -> None:
    hold(everything, keys, numbers, before=before)
