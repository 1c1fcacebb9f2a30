"""Several reconcilers at once: one writes. Who hangs loses the lease and writes nothing more; who is told to end does.

Fault rows 18 and 28: real processes against the simulator, which counts every write on its wire.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from reconciler.lease import Lease
from reconciler.simulator.wire import Reply

from .stagefixtures import Running, Stack, wait_for
from .test_faults import unlike

Work = Callable[[], Reply]
SHORT = "import reconciler.lease; reconciler.lease.DURATION = 3.0"


@pytest.fixture(params=["stack", "newer"])
def any_stack(request: pytest.FixtureRequest) -> Stack:
    """The example before its first apply, with either generation of Stalwart."""
    found: Stack = request.getfixturevalue(request.param)
    return found


def undisturbed(stack: Stack) -> tuple[list[str], dict[str, Any]]:
    """Apply alone; return the writes and what is there then. The stack is as before."""
    stack.expect(0, "apply", "--yes")
    found = stack.writes(), stack.meaning()
    stack.first.restore(stack)
    return found


@contextlib.contextmanager
def stopped(stack: Stack, number: int) -> Iterator[Running]:
    """Have an apply stopped (SIGSTOP) at one of its writes, whose answer it finds when it is continued."""
    at: list[str] = []

    def stop(work: Work) -> Reply:
        running.kill(signal.SIGSTOP)
        reply = work()
        at.append("write")
        return reply

    stack.tape.at[number] = stop
    running = stack.start("apply", "--yes", bug=SHORT)
    try:
        wait_for(lambda: at)
        stack.tape.at.clear()
        yield running
    finally:
        running.kill()


def ours(stack: Stack) -> list[str]:
    """Return what reconcilers wrote themselves: a Compose that one has started goes on without it."""
    return [line for line in stack.writes() if not line.startswith("docker")]


# ---------------------------------------------------------------------------------------------------- a holder hangs
@pytest.mark.long
def test_row_18_who_is_stopped_loses_the_lease_and_writes_nothing_more(any_stack: Stack) -> None:
    stack = any_stack
    writes, final = undisturbed(stack)
    last = max(number for number, line in enumerate(writes) if not line.startswith("docker"))
    for number in range(0, last, max(1, last // 2)):  # each has one of its own writes behind it
        stack.first.restore(stack)
        with stopped(stack, number) as first:
            before = ours(stack)
            denied = stack.expect(5, "apply", "--yes", bug=SHORT)
            assert f"process {first.pid} on " in denied.err
            assert ours(stack) == before, "who is denied the lease writes nothing"
            done = stack.expect(0, "apply", "--yes", "--wait", "1m", bug=SHORT)
            assert "A second plan is empty" in done.text or "Nothing to do" in done.text
            before = stack.writes()
            first.kill(signal.SIGCONT)
            lost = first.wait()
        assert lost.code == 6, lost.text
        assert "the lease was lost" in lost.err
        assert stack.writes() == before, f"stopped at {writes[number]}"
        assert unlike(stack.meaning(), final) == {}
        assert Lease(stack.data, "mana").holder() is None


def test_who_was_stopped_goes_on_where_nobody_took_the_lease(stack: Stack) -> None:
    _, final = undisturbed(stack)
    with stopped(stack, 2) as first:
        time.sleep(3.5)
        first.kill(signal.SIGCONT)
        done = first.wait()
    assert done.code == 0, done.text
    assert unlike(stack.meaning(), final) == {}


def test_who_waits_is_told_for_whom_and_goes_on_when_he_ends(stack: Stack) -> None:
    _, final = undisturbed(stack)
    waiting: list[Running] = []

    def second(work: Work) -> Reply:
        waiting.append(stack.start("-v", "apply", "--yes", "--wait", "2m"))
        wait_for(lambda: "Waiting for the lease" in waiting[0].errors())
        return work()

    stack.tape.at[3] = second
    first = stack.start("apply", "--yes")
    assert first.wait().code == 0
    done = waiting[0].wait()
    assert done.code == 0, done.text
    assert f"process {first.pid} on " in done.err
    assert unlike(stack.meaning(), final) == {}


def test_who_waits_in_vain_ends_with_5(stack: Stack) -> None:
    with Lease(stack.data, "mana"):
        began = time.monotonic()
        stack.expect(5, "apply", "--yes", "--wait", "2s")
        assert time.monotonic() - began >= 2
    assert stack.writes() == []


def test_a_killed_holder_keeps_nobody_waiting(stack: Stack) -> None:
    def kill(work: Work) -> Reply:
        first.kill()
        return work()

    stack.tape.at[1] = kill
    first = stack.start("apply", "--yes")
    assert first.wait().code == -signal.SIGKILL
    stack.tape.at.clear()
    stack.expect(0, "apply", "--yes")


# ----------------------------------------------------------------------------------------------------------- signals
class Told:
    """An apply that is told to end (SIGTERM) at one of its writes, before that is answered."""

    def __init__(self, stack: Stack, number: int, *, twice: bool = False) -> None:
        self.stack, self.twice = stack, twice
        self.over = threading.Event()
        stack.tape.at[number] = self.stop
        self.running = stack.start("apply", "--yes")
        self.done = self.running.wait(30)
        assert self.over.wait(30)  # what was written is done by the next test's start, and not after it
        stack.tape.at.clear()

    def stop(self, work: Work) -> Reply:
        try:
            return self._stopped(work)
        finally:
            self.over.set()

    def _stopped(self, work: Work) -> Reply:
        self.running.kill(signal.SIGTERM)
        wait_for(lambda: "Stopping after the write" in self.running.errors())
        if self.twice:
            self.running.kill(signal.SIGTERM)
            time.sleep(0.3)  # no answer yet: who waits for one would write on
            for call in self.stack.zygote.calls:  # what stands in for Compose is no child that ends with its parent
                if "up" in call["argv"]:
                    self.stack.zygote.kill(call["pid"])
        return work()


@pytest.mark.long
def test_row_28_a_signal_at_any_write_ends_it_after_that_write(any_stack: Stack) -> None:
    stack = any_stack
    writes, final = undisturbed(stack)
    for number, what in enumerate(writes):
        stack.first.restore(stack)
        told = Told(stack, number)
        assert told.done.code == 143, f"at {what}: {told.done.text}"
        rest = stack.writes()[number + 1 :]
        own = what.split()[0]
        assert all(line.startswith(own) or line.endswith("/restart") for line in rest), "what makes that write count"
        assert len(rest) <= 2 or what.startswith("docker"), (
            "a reload, and that it is no longer due; or the rest of an up"
        )
        assert Lease(stack.data, "mana").holder() is None
        assert '"result":"stopped"' in (stack.data / "journal.jsonl").read_text().splitlines()[-1]
        stack.expect(0, "apply", "--yes")
        assert unlike(stack.meaning(), final) == {}, what


@pytest.mark.long
def test_row_28_a_second_signal_at_any_write_ends_it_at_once(any_stack: Stack) -> None:
    stack = any_stack
    writes, _ = undisturbed(stack)
    for number, what in enumerate(writes):
        stack.first.restore(stack)
        told = Told(stack, number, twice=True)
        assert told.done.code == 143, f"at {what}: {told.done.text}"
        assert what.startswith("docker") or stack.writes()[number + 1 :] == [], what  # Compose is ended after it
        assert Lease(stack.data, "mana").holder() is None
