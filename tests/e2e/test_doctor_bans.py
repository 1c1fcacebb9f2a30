"""`reconciler doctor` and bans: by the server's own list, on both generations; lifted one at a time, and no other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from reconciler.checks.check import Status

from . import jmapstage
from .test_doctor import World, bad, logged, told, world

__all__ = ["world"]
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
OURS, SECOND, THEIRS = "172.18.0.5", "172.18.0.50", "192.0.2.77"
ONLY = ("doctor", "--only", "smtp/bans")


class Server:
    """A stack of either generation, and whom its server does not talk to."""

    def __init__(self, stack: Any) -> None:
        self.stack = stack

    def ban(self, address: str, reason: str = "portScanning") -> None:
        if self.stack.generation == "jmap":
            jmapstage.create(self.stack.stage, "BlockedIp", address=address, reason=reason)
            jmapstage.ask(self.stack.stage, ("Action/set", {"create": {"r": {"@type": "ReloadBlockedIps"}}}))
        else:
            self.stack.rest.settings.insert({f"server.blocked-ip.{address}": ""})
            self.stack.rest.bans.read(self.stack.rest.settings)

    def listed(self) -> set[str]:
        if self.stack.generation == "jmap":
            return {item["address"] for _, item in self.stack.jmap.store.all("BlockedIp")}
        return set(self.stack.rest.settings.below("server.blocked-ip"))

    def talks_to(self, address: str) -> bool:
        return not self.stack.stage.stalwart._is_blocked(address)


@pytest.fixture(params=["applied", "newer_applied"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    stack = request.getfixturevalue(request.param)
    stack.edit("stalwart.yaml", "  allowed_ips: [172.18.0.0/16]\n", "")  # from 0.16 it would win over a ban
    yield Server(stack)
    stack.applied.restore(stack)


def allowed_no_more(server: Server) -> None:
    """Take the network from the list of those that are never banned, as it was before anybody declared it."""
    if server.stack.generation == "jmap":
        for key, item in list(server.stack.jmap.store.all("AllowedIp")):
            if item["address"].startswith("172.18."):
                jmapstage.ask(server.stack.stage, ("AllowedIp/set", {"destroy": [key]}))
        jmapstage.ask(server.stack.stage, ("Action/set", {"create": {"r": {"@type": "ReloadSettings"}}}))


def test_the_one_ban_is_lifted_and_no_other(server: Server) -> None:
    allowed_no_more(server)
    before = server.listed()
    for address in (OURS, THEIRS):
        server.ban(address)
    assert not server.talks_to(OURS)
    done = server.stack.expect(7, *ONLY)
    assert f"the server has banned {OURS}" in done.out
    assert "reconciler doctor --only smtp/bans --fix" in done.out
    assert server.listed() == {*before, OURS, THEIRS}  # looking changes nothing
    refused = server.stack.expect(1, *ONLY, "--fix")
    assert "no terminal to ask on" in refused.text
    assert server.listed() == {*before, OURS, THEIRS}
    done = server.stack.expect(0, *ONLY, "--fix", "--yes")
    assert f"{OURS} is not banned any more." in done.out
    assert server.listed() == {*before, THEIRS}
    assert server.talks_to(OURS)
    assert not server.talks_to(THEIRS)


def test_an_address_that_begins_like_ours_stays_banned(server: Server) -> None:
    """A prefix of keys, or a filter of texts, would take it along."""
    allowed_no_more(server)
    server.ban(OURS)
    before = server.listed()
    server.ban(SECOND, "manual")
    server.ban("172.18.0.0/30", "manual")
    server.stack.run(*ONLY, "--fix", "--yes")
    left = server.listed() - (before - {OURS})
    assert left == ({SECOND, "172.18.0.0/30"} if server.stack.generation == "jmap" else {"172.18.0.0/30"})


def test_who_was_banned_once_is_no_alarm(world: World) -> None:
    logged("WARN Banned due to scan (security.scan-ban) remoteIp = 172.18.0.5")(world)
    found = world.examine("smtp/bans")["smtp/bans"]
    assert found.status is Status.OK
    assert "none of ours is banned" in found.verdict.summary


def test_a_ban_that_the_log_does_not_name_any_more_is_told_by_the_list(world: World) -> None:
    jmapstage.create(world.stack.stage, "BlockedIp", address="172.18.0.5", reason="authFailure")
    found = world.examine("smtp/bans")
    assert set(bad(found)) == {"smtp/bans"}
    assert "wrong password" in told(found, "smtp/bans")
    assert found["smtp/bans"].remedy.lifts == ("172.18.0.5",)


def test_what_a_person_banned_is_left_to_a_person(world: World) -> None:
    for address in ("172.18.0.5", "10.1.0.0/16"):
        jmapstage.create(world.stack.stage, "BlockedIp", address=address, reason="manual")
    found = world.examine("smtp/bans")["smtp/bans"]
    assert found.status is Status.ERROR
    assert found.remedy.lifts == ()
    assert "x:BlockedIp/query" in found.remedy.text
