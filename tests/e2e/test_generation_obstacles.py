"""A Stalwart from 0.16 in its every day: what it costs to ask it, and what keeps an apply from its end."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

from reconciler.simulator.stalwart.jmap import registry
from reconciler.simulator.wire import Reply

from . import jmapstage
from .asking import ADMIN, PROBE, everything_is_right, log_in, problems, public_halves, settled, wire
from .stagefixtures import Stack

CONTAINER = "    container: mana-mail        # watched by the daemon; restarted only where a change needs it\n"


# --------------------------------------------------------------------------------------------------------- requests
def test_without_a_change_there_is_one_probe_and_one_request(newer_applied: Stack) -> None:
    newer_applied.expect(0, "plan")  # the server has been started anew, so its release is asked for once
    for command in (("plan", "--detailed-exitcode"), ("apply", "--yes")):
        wire(newer_applied)
        newer_applied.expect(0, *command)
        assert wire(newer_applied) == [PROBE, (ADMIN, "read")]
    assert newer_applied.writes() == []


@pytest.mark.long
def test_a_thousand_accounts_are_restored_in_two_writes_and_then_there(newer: Stack) -> None:
    text = "".join(
        f"  user{number}@mana.how: {{roles: [user], password: {{env: NOREPLY_PASSWORD}}}}\n" for number in range(1000)
    )
    newer.write("many.yaml", f"accounts:\n{text}")
    wire(newer)
    newer.expect(0, "apply", "--yes", "--target", "stalwart")
    assert [what for _, what in wire(newer)].count("write") <= 2
    everything_is_right(newer)
    for number in (0, 499, 500, 999):
        assert log_in(newer, f"user{number}@mana.how", newer.secrets["NOREPLY_PASSWORD"]) == 235
    newer.expect(0, "plan", "--detailed-exitcode", "--target", "stalwart")
    assert len(wire(newer)) <= 3


def test_more_accounts_than_one_answer_holds_are_all_seen(newer_applied: Stack) -> None:
    stack = newer_applied
    [domain] = [key for key, item in stack.jmap.store.all("Domain") if item["name"] == "mana.how"]
    credential = registry.new("Credential", "Password") | {"secret": "x", "credentialId": "a"}
    for number in range(1200):
        account = registry.new("Account", "User") | {"name": f"user{number}", "domainId": domain}
        stack.jmap.store.insert("Account", account | {"credentials": {"0": credential}})
    text = "".join(
        f"  user{number}@mana.how: {{roles: [user], enforce_password: false, password: {{env: NOREPLY_PASSWORD}}}}\n"
        for number in range(1200)
    )
    stack.write("many.yaml", f"accounts:\n{text}")
    stack.expect(0, "plan", "--target", "stalwart")
    wire(stack)
    stack.expect(0, "plan", "--detailed-exitcode", "--target", "stalwart")
    assert wire(stack) == [PROBE, (ADMIN, "read"), (ADMIN, "read")]


# ------------------------------------------------------------------------------------------ what has to be put in force
def test_a_further_key_signs_at_once(newer: Stack) -> None:
    """A signature that is made is not seen by a server that has signed for the domain before (traps.md 27)."""
    public = f"      public_key: {public_halves(newer)['rsa2026']}\n"
    newer.edit("dkim.yaml", "      algorithm: rsa\n", f"      algorithm: rsa\n      stage: pending\n{public}")
    settled(newer)
    assert signing(newer) == {"mana2026"}
    newer.edit("dkim.yaml", "      stage: pending\n", "")
    newer.expect(0, "apply", "--yes")
    assert signing(newer) == {"mana2026", "rsa2026"}
    assert sum(line.endswith("/restart") for line in newer.writes()) == 1, "that was for the listener"
    settled(newer)


def signing(stack: Stack) -> set[str]:
    return {selector for domain, selector, _ in stack.jmap.signing() if domain == "mana.how"}


def _without_pyzor(stack: Stack) -> None:
    stack.edit("stalwart.yaml", "  objects: {} ", "  objects: {SpamPyzor: {singleton: {enable: false}}} ")


def _with_dns(stack: Stack) -> None:
    stack.jmap.no_dns = False
    by_hand(stack)


@pytest.mark.parametrize(
    ("remedy", "words"),
    [
        (_without_pyzor, "write `objects: {SpamPyzor: {singleton: {enable: false}}}` under stalwart and run apply"),
        (_with_dns, "give the container working DNS and restart it"),
    ],
)
def test_a_reload_that_fails_is_told_with_what_clears_it(
    newer_applied: Stack, remedy: Callable[[Stack], None], words: str
) -> None:
    stack = newer_applied
    stack.jmap.no_dns = True
    stack.edit("stalwart.yaml", "hostname: mail.mana.how", "hostname: mx.mana.how")
    done = stack.run("apply", "--yes", "--target", "stalwart")
    assert done.code == 1
    assert "is stored but not in force" in done.text
    assert words in done.text
    assert stack.jmap.hostname == "mail.mana.how", "the old settings stay in force"
    remedy(stack)
    settled(stack, "--target", "stalwart")
    assert stack.jmap.hostname == "mx.mana.how"


def test_a_restart_that_is_due_anyway_needs_no_reload(newer: Stack) -> None:
    newer.jmap.no_dns = True
    settled(newer)
    everything_is_right(newer)


# --------------------------------------------------------------------------------- nobody can restart the container
def _undeclared(stack: Stack) -> str:
    stack.edit("reconciler.yaml", CONTAINER, "")
    return "CONTAINER"


def _unreachable(stack: Stack) -> str:
    stack.env["DOCKER_HOST"] = "tcp://127.0.0.1:9"
    return "mana-mail"


@pytest.mark.parametrize("cause", [_undeclared, _unreachable])
def test_what_cannot_be_restarted_is_told_and_then_done(newer: Stack, cause: Callable[[Stack], str]) -> None:
    name = cause(newer)
    done = newer.expect(0, "apply", "--yes", "--target", "stalwart")
    assert f"`docker restart {name}`" in done.text
    assert 587 not in newer.jmap.ports
    by_hand(newer)
    newer.env.pop("DOCKER_HOST", None)
    settled(newer)
    everything_is_right(newer)


@pytest.mark.parametrize("cause", [_undeclared, _unreachable])
def test_bootstrapping_stops_at_a_restart_that_others_have_to_make(bare: Stack, cause: Callable[[Stack], str]) -> None:
    name = cause(bare)
    told = f"run `docker restart {name}`, then `reconciler apply` again"
    assert told in bare.run("plan", "--target", "stalwart").text
    assert told in bare.expect(1, "apply", "--yes", "--target", "stalwart").text
    assert bare.jmap.bootstrapping
    assert told in bare.run("plan", "--target", "stalwart").text, "and again, until it is done"
    writes = bare.writes()
    bare.run("apply", "--yes", "--target", "stalwart")
    assert bare.writes() == writes, "it is set up once"
    by_hand(bare)
    bare.run("apply", "--yes", "--target", "stalwart")
    by_hand(bare)
    bare.env.pop("DOCKER_HOST", None)
    settled(bare)
    everything_is_right(bare)
    assert list(bare.data.glob("stalwart-administrator*")) == []


def by_hand(stack: Stack) -> None:
    """Do what was told: `docker restart` of the mail server's container."""
    url = f"{stack.stage.docker_server.url}/v1.41/containers/mana-mail/restart"
    with urllib.request.urlopen(urllib.request.Request(url, b"", method="POST")):
        pass


# ------------------------------------------------------------------------------------------------------- who answers
def test_the_other_generation_is_refused(stack: Stack, newer: Stack) -> None:
    for world, declared, found in ((stack, "jmap", "up to 0.15"), (newer, "rest", "0.16 or later")):
        world.edit("reconciler.yaml", "    username: admin\n", f"    username: admin\n    generation: {declared}\n")
        before = world.everything()
        plan = world.expect(1, "plan", "--output", "json", "--target", "stalwart").json
        assert (plan["changes"], plan["unread"]) == ([], ["stalwart"])
        [error] = [item for item in plan["problems"] if item["severity"] == "error"]
        assert found in error["summary"]
        assert "generation" in error["hint"]
        world.expect(1, "apply", "--yes", "--target", "stalwart")
        assert (world.everything(), world.writes()) == (before, [])


@pytest.mark.parametrize(("kind", "declared"), [("newer", "1"), ("newer", '"1"'), ("bare", "1")])
def test_another_release_than_the_declared_one_is_refused(
    request: pytest.FixtureRequest, kind: str, declared: str
) -> None:
    world: Stack = request.getfixturevalue(kind)
    world.edit("reconciler.yaml", "    username: admin\n", f"    username: admin\n    release: {declared}\n")
    before = world.everything()
    plan = world.expect(1, "plan", "--output", "json", "--target", "stalwart").json
    assert (plan["changes"], plan["unread"]) == ([], ["stalwart"])
    [error] = [item for item in plan["problems"] if item["severity"] == "error"]
    assert "is of release 0.16, but targets.stalwart.release is 1" in error["summary"]
    assert 'write `release: "0.16"`' in error["hint"]
    world.expect(1, "apply", "--yes", "--target", "stalwart")
    assert (world.everything(), world.writes()) == (before, [])
    world.edit("reconciler.yaml", f"release: {declared}", 'release: "0.16"')
    assert world.expect(0, "plan", "--output", "json", "--target", "stalwart").json["changes"]


def test_a_closed_connection_is_perhaps_a_ban(newer_applied: Stack) -> None:
    stack = newer_applied
    stack.fault("stalwart", refuse=True, times=10**6)
    [error] = [item for item in problems(stack, "--target", "stalwart") if item["severity"] == "error"]
    assert "perhaps this address is banned" in error["summary"]
    assert "x:BlockedIp/set" in error["hint"]


def test_a_wrong_password_is_tried_once(newer_applied: Stack) -> None:
    stack = newer_applied
    stack.env.update(STALWART_ADMIN_PASSWORD="wrong-one", STALWART_RECOVERY_ADMIN="rescuer:wrong-too")
    before = stack.everything()
    for command in (("plan",), ("apply", "--yes")):
        wire(stack)
        assert "refuses the password of admin@mana.how and that of the recovery" in stack.expect(1, *command).text
        assert wire(stack) == [PROBE, (ADMIN, "read"), ("rescuer", "read")]
    assert stack.everything() == before


def test_a_new_password_of_our_own_gets_in_through_recovery(newer_applied: Stack) -> None:
    stack = newer_applied
    stack.env["STALWART_ADMIN_PASSWORD"] = "the-next-0ne-of-ours"
    assert set(stack.changes("--target", "stalwart")) == {"account/admin"}
    settled(stack)
    everything_is_right(stack)


def test_a_ban_counts_no_login_of_ours_twice(newer: Stack) -> None:
    """The first apply to a server that has none of our accounts has exactly one login refused."""
    refused: list[str] = []
    fake = newer.stage.stalwart_server.fake

    def heard(request: Any) -> Reply:
        reply = fake(request)
        if reply.status == 401:
            refused.append(request.headers["authorization"])
        return reply

    newer.stage.stalwart_server.fake = heard
    try:
        settled(newer)
    finally:
        newer.stage.stalwart_server.fake = fake
    assert len(refused) == 1
    assert jmapstage.account(newer.stage, ADMIN) is not None
