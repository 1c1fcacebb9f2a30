"""The daemon, ended by SIGKILL at every write of every kind of work, and with every single operation refused in turn.

A run without a fault tells the writes, how often each object came and went, and the end. Each write then gets a run in
which the daemon dies at it, from the wire's side: no except and no finally runs. The next run has to come to the same
end, and both together have made and removed each object as often as the undisturbed run did.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from reconciler.simulator.wire import Hangup, Reply, Request

from .stagefixtures import OUR_ZONES, Done, Snapshot, Stack, _applied, wait_for
from .test_faults import Killed, Work, unlike
from .test_keys_and_loss import DAY, hand_over, new_key
from .test_providers import PLAIN, PRESET, switch

DAEMON = ("daemon", "--once", "--log", "json")
QUICK = "import reconciler.daemon.source; reconciler.daemon.source._QUIET = 0.02"  # nobody else is at work here
EVERYWHERE = os.environ.get("RECONCILER_PROPERTIES") == "explore"


# ---------------------------------------------------------------------------------------------------- kinds of work
def first(stack: Stack) -> None:
    """Nothing of ours is there yet."""
    stack.first.restore(stack)


def change(stack: Stack) -> None:
    """Something is new, other or gone in every system."""
    accounts = stack.example.state / "accounts.yaml"
    before = accounts.read_text()
    helper = "  helper@mana.how:\n    roles: [user]\n    password: {env: POSTMASTER_PASSWORD}\n"
    accounts.write_text(before + helper)
    stack.expect(0, *DAEMON, bug=QUICK)
    accounts.write_text(before.replace("Sends every", "Sends each"))
    stack.write("removed.yaml", "removed: [account/helper@mana.how]\n")
    stack.edit("dns.yaml", "194.191.241.139", "194.191.241.140")
    stack.edit("dns.yaml", "    - {type: TXT, name: _dmarc", "    - {type: TXT, name: _note")
    stack.edit("stalwart.yaml", "scan: off", "scan: 30/1d")
    stack.env["NOREPLY_PASSWORD"] = "the-next-password"


def rotation(stack: Stack) -> None:
    """A key that is published takes over from one that signs."""
    new, before = new_key(stack, "new"), (stack.example.state / "dkim.yaml").read_text()
    stack.be(DAY)
    (stack.example.state / "dkim.yaml").write_text(f"{before}{new}      stage: pending\n")
    stack.expect(0, *DAEMON, bug=QUICK)
    hand_over(stack, before, new, "retiring")


def provider(stack: Stack) -> None:
    """Another one delivers from now on, and asks for records."""
    stack.edit("smtp.yaml", PLAIN, PRESET.replace("      standby: true\n", ""))
    literal = 'SMTP_INSECURE_TLS: "true"'
    stack.example.edit("docker-compose.macmini.yml", literal, "SMTP_INSECURE_TLS: ${SMTP_INSECURE_TLS:-true}")
    switch(stack)


def loss(stack: Stack) -> None:
    """The mail server is as new: from 0.16 in bootstrap mode."""
    if stack.generation == "jmap":
        stack.jmap.wipe_all()
    else:
        stack.stage.recreate_mail_server()


WORK = (first, change, rotation, provider, loss)


# ------------------------------------------------------------------------------------------------- what is counted
def objects(stack: Stack) -> dict[str, str]:
    """Return what there is by its system's id, and what it is called where ids are others each time.

    Containers are left out: Compose makes them, and what it does when it is killed is its own.
    """
    found = {
        f"dns {zone} {item['id']}": f"{zone} {item['type']} {item['name']}"
        for zone in OUR_ZONES
        for item in stack.records(zone)
    }
    return found | (_registry(stack) if stack.generation == "jmap" else _directory(stack))


def _directory(stack: Stack) -> dict[str, str]:
    names = {f"principal {item['id']}": item["name"] for item in stack.rest.directory.dump()["principals"]}
    return names | {f"setting {key}": key for key in stack.settings()}


def _registry(stack: Stack) -> dict[str, str]:
    named = ("name", "selector", "address", "description")
    return {
        f"{kind} {key}": f"{kind} {next((value[name] for name in named if name in value), '')}"
        for kind, items in stack.jmap.dump()["store"]["objects"].items()
        for key, value in items.items()
    }


class Ledger:
    """Counts how often each object comes and goes, over every write that any system sees."""

    def __init__(self, stack: Stack) -> None:
        self.stack, self.counts, self.open = stack, Counter[str](), 0
        self._lock, self._known = threading.Lock(), objects(stack)
        stack.tape.watch = self._look

    def _look(self, when: str) -> None:
        with self._lock:
            self.open += 1 if when.startswith("before") else -1
            self.take()

    def take(self) -> None:
        """Compare with how it was."""
        former, self._known = self._known, objects(self.stack)
        self.counts.update(f"+ {self._known[key]}" for key in self._known.keys() - former.keys())
        self.counts.update(f"- {former[key]}" for key in former.keys() - self._known.keys())

    def closed(self) -> Counter[str]:
        """Return the counts when everything has ended that the systems are doing."""
        wait_for(lambda: not self.open)
        self.stack.tape.watch = lambda _when: None
        with self._lock:
            self.take()
        return self.counts


# --------------------------------------------------------------------------------------------------- one kind of work
@dataclass
class Scene:
    """A stack with work to do: from how it is now to the end that an undisturbed run brings."""

    stack: Stack
    start: Snapshot
    env: Mapping[str, str]
    writes: list[str] = field(default_factory=list)
    final: dict[str, Any] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    recovered: dict[str, Counter[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, stack: Stack) -> Scene:
        made = cls(stack, Snapshot.of(stack), dict(stack.env))
        ledger = made.begin()
        stack.expect(0, *DAEMON, bug=QUICK)
        made.writes, made.final, made.counts = stack.writes(), made.state(), ledger.closed()
        stack.expect(0, "plan", "--detailed-exitcode")
        return made

    def begin(self) -> Ledger:
        """Be as before the work."""
        self.start.restore(self.stack)
        self.stack.env.update(self.env)
        return Ledger(self.stack)

    def state(self) -> dict[str, Any]:
        """Return what there is in all systems, and which files we keep."""
        kept = sorted(path.name for path in self.stack.data.iterdir()) if self.stack.data.exists() else []
        return {**self.stack.meaning(), "kept": [name for name in kept if name.startswith("stalwart-")]}

    def ends_well(self, counts: Counter[str], why: str) -> None:
        """Run again: the same end, each object made and removed as often, and nothing left to do.

        From a state that was seen before, a run does what it did then.
        """
        state = json.dumps(self.state(), sort_keys=True, default=str)
        if state not in self.recovered:
            ledger = Ledger(self.stack)
            fine(self.stack.run(*DAEMON, bug=QUICK), (0,), why)
            assert unlike(self.state(), self.final) == {}, why
            self.recovered[state] = ledger.closed()
            assert self.stack.run("plan", "--detailed-exitcode").code == 0, why
        assert counts + self.recovered[state] == self.counts, why


def fine(done: Done, codes: tuple[int, ...], why: str) -> None:
    assert done.code in codes, f"{why}:\n{done.text}"
    assert "this is a bug" not in done.text, f"{why}:\n{done.text}"
    assert "Traceback" not in done.text, f"{why}:\n{done.text}"


@pytest.fixture(params=["theatre", "newer_theatre"], ids=["rest", "jmap"])
def theatre_(request: pytest.FixtureRequest) -> Stack:
    found: Stack = request.getfixturevalue(request.param)
    return found


@pytest.fixture(params=WORK, ids=lambda work: work.__name__)
def scene(theatre_: Stack, request: pytest.FixtureRequest) -> Iterator[Scene]:
    """The example after its first apply, with work to do."""
    stack = theatre_
    _applied(stack).restore(stack)
    stack.secrets["NOREPLY_NEXT"] = "the-next-password"
    try:
        request.param(stack)
        yield Scene.of(stack)
    finally:
        del stack.secrets["NOREPLY_NEXT"]
        stack.tape.watch = lambda _when: None


# --------------------------------------------------------------------------------------------------- killed anywhere
def test_rows_1_and_2_killed_at_every_write_the_next_run_comes_to_the_same_end(scene: Scene) -> None:
    """Just before a write is just after the one before it: a normal run tries both at the first one alone."""
    for number, what in enumerate(scene.writes):
        for after in (False, True) if EVERYWHERE or not number else (True,):
            ledger = scene.begin()
            Killed(scene.stack, DAEMON, bug=QUICK).at_write(number, after=after)
            scene.ends_well(ledger.closed(), f"killed {'after' if after else 'before'} write {number}: {what}")
