"""A lost answer or half a request at every single write to a Stalwart from 0.16: the next run ends well."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from reconciler.simulator.wire import Hangup, Reply

from . import jmapstage
from .asking import ADMIN, RECOVERY, everything_is_right, settled
from .stagefixtures import Snapshot, Stack
from .test_faults import Killed, lost, unlike

ONLY = ("--target", "stalwart")  # the others have theirs in test_faults.py
Begin = Callable[[Stack], Snapshot]


def _empty(stack: Stack) -> Snapshot:
    return stack.first


def _bare(stack: Stack) -> Snapshot:
    return stack.bare


@pytest.fixture(params=[_empty, _bare])
def begin(request: pytest.FixtureRequest, newer: Stack) -> Snapshot:
    """An empty server, and one in bootstrap mode."""
    newer.watch.server_lost = request.param is _bare
    start: Snapshot = request.param(newer)
    start.restore(newer)
    return start


class Undisturbed:
    """An apply without a fault: its writes, and what is there then. The stack is as before."""

    def __init__(self, stack: Stack, begin: Snapshot) -> None:
        self.stack = stack
        stack.expect(0, "apply", "--yes", *ONLY)
        self.writes = {
            number: line for number, line in enumerate(stack.writes()) if line.split()[0] in ("stalwart", "docker")
        }
        everything_is_right(stack)
        self.final = stack.meaning()
        begin.restore(stack)

    def is_reached(self, why: str) -> None:
        """Apply again: the same is there, nothing twice, and a second plan is empty."""
        done = self.stack.run("apply", "--yes", *ONLY)
        assert done.code == 0, f"{why}:\n{done.text}"
        assert "A second plan is empty" in done.text or "Nothing to do" in done.text, f"{why}:\n{done.text}"
        assert unlike(self.stack.meaning(), self.final) == {}, why
        assert list(self.stack.data.glob("stalwart-administrator*")) == [], why


@pytest.mark.long
def test_every_answer_may_be_lost(newer: Stack, begin: Snapshot) -> None:
    undisturbed = Undisturbed(newer, begin)
    for number, what in undisturbed.writes.items():
        begin.restore(newer)
        newer.tape.at[number] = lost
        done = newer.run("apply", "--yes", *ONLY)
        assert done.code in (0, 1, 6), f"the answer to {what} was lost: {done.text}"
        assert "Traceback" not in done.text
        newer.tape.at.clear()
        undisturbed.is_reached(f"the answer to write {number} was lost: {what}")


@pytest.mark.long
def test_a_server_that_dies_amid_a_request_has_done_part_of_it(newer: Stack) -> None:
    """There is no transaction: what a request's first calls made is there (traps.md 5)."""
    undisturbed = Undisturbed(newer, newer.first)
    [write] = [number for number, line in undisturbed.writes.items() if line.endswith("/jmap")]
    total = 0
    for count in range(1, 16, 2):

        def part(_: Callable[[], Reply], count: int = count) -> Reply:
            nonlocal total
            request = newer.stage.stalwart_server.requests[-1]
            body = request.json()
            total = len(body["methodCalls"])
            body["methodCalls"] = body["methodCalls"][:count]
            newer.jmap(replace(request, body=json.dumps(body).encode()))
            raise Hangup

        newer.first.restore(newer)
        newer.tape.at[write] = part
        newer.run("apply", "--yes", *ONLY)
        newer.tape.at.clear()
        undisturbed.is_reached(f"the server died after call {count} of {total}")
        if count + 2 > total:
            break
    assert total > 4


def test_a_bootstrap_whose_answer_nobody_got_says_what_lets_us_in(bare: Stack) -> None:
    """Without a recovery administrator, who alone knows the new administrator's password is gone."""
    bare.example.edit("docker-compose.macmini.yml", RECOVERY, "")
    bare.stage.recreate_mail_server()
    bare.tape.forget()
    Killed(bare, ("apply", "--yes", *ONLY)).at_write(0, after=True)
    done = bare.expect(1, "apply", "--yes", "--target", "stalwart", drop=("STALWART_RECOVERY_ADMIN",))
    assert "STALWART_RECOVERY_ADMIN: ${STALWART_RECOVERY_ADMIN}" in done.text
    path = bare.example.compose_file
    path.write_text(path.read_text().replace("    environment:\n\n", f"    environment:\n{RECOVERY}\n"))
    bare.stage.recreate_mail_server()
    settled(bare, *ONLY)
    everything_is_right(bare)
    assert jmapstage.account(bare.stage, ADMIN) is not None
