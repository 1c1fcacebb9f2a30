"""Whatever happens to a daemon, in whatever order: nothing of others goes, and in the end all is as desired."""

from __future__ import annotations

import io
import json
import os
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from systems import Connected, System, World

from reconciler import journal
from reconciler.daemon import loop as loops
from reconciler.daemon import metrics, notices
from reconciler.daemon import source as sources
from reconciler.daemon.board import Bell, Board
from reconciler.daemon.cycle import Surroundings
from reconciler.daemon.document import document
from reconciler.daemon.logs import Log
from reconciler.daemon.loop import Loop
from reconciler.daemon.parts import Parts
from reconciler.daemon.source import Folder
from reconciler.daemon.state import Cause, Result, Sourced, State
from reconciler.dns.records import record
from reconciler.report.json import redacted
from reconciler.resources import Domain
from reconciler.settings import Settings
from reconciler.target import Status

EXPLORE = os.environ.get("RECONCILER_PROPERTIES") == "explore"
SECRET = "planted-Gehe1mnis-4711"
MOST = 3  # deletes that the directory allows
NAMES = tuple(f"r{number}" for number in range(6))
TARGETS = ("stalwart", "cloudflare")
HEAD = f"""\
version: 1
stack: mana
targets:
  cloudflare: {{token: {{env: TOKEN}}}}
  stalwart: {{url: "http://127.0.0.1:8080", username: admin, password: {{env: ADMIN}}}}
policy: {{prune: {{dns: owned}}, max_deletes: {MOST}}}
domains: {{mana.how: {{}}}}
accounts:
  noreply@mana.how: {{roles: [user], password: {{env: NOREPLY}}}}
dns:
  mana.how:
    - {{type: TXT, name: "@", content: hello}}
"""
names = st.sampled_from(NAMES)


class Killed(BaseException):
    """No except of ours catches it."""


class AnyOrder(RuleBasedStateMachine):
    """A directory that is edited and saved, a daemon that may die at any write, systems that others change and lose."""

    def __init__(self) -> None:
        super().__init__()
        self.exits = ExitStack()
        self.folder = Path(self.exits.enter_context(tempfile.TemporaryDirectory()))
        self.state, self.data = self.folder / "state", self.folder / "data"
        self.state.mkdir()
        self.world, self.fuse, self.down, self.log = World(), -1, set[str](), io.StringIO()
        self.declared: dict[str, int] = {}
        self.strangers: list = []
        self.crashes: list[Exception] = []
        self.told: list[str] = []
        patch = self.exits.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(Connected, "world", self.world)
        patch.setattr(loops, "Stack", Connected)
        patch.setattr(sources, "_QUIET", 0.0)
        write = System._write
        patch.setattr(System, "_write", lambda system, change: self._write(write, system, change))

    def _write(self, write, system, change) -> None:
        if self.fuse == 0:
            self.fuse = -1
            raise Killed
        write(system, change)
        self.fuse -= 1
        if self.fuse == 0:
            self.fuse = -1
            raise Killed

    # ---------------------------------------------------------------------------------------------------- the daemon
    @initialize()
    def begin(self) -> None:
        self.stranger("s0", "192.0.2.90")
        self.save()
        self.start()

    def start(self) -> None:
        """Start a daemon, which knows what is on disk and nothing else."""
        environ = {"TOKEN": f"token-{SECRET}", "ADMIN": SECRET, "NOREPLY": SECRET}
        chosen = Settings.read(environ, self.state, self.data)
        self.redact = lambda text: text
        lines = Log(as_json=True, redact=self.redacted, stream=self.log)
        board = Board(State("", journal.now(), 300.0, Sourced("")))
        self.parts = Parts(chosen, board, Bell(), self.redacted, lines.cycle, self.crashes.append)
        self.loop = Loop(
            Folder(self.state, self.data),
            lambda: chosen,
            board,
            Bell(),
            interval=300.0,
            around=Surroundings(hear=lines.outcome),
            ended=self.parts.ended,
            unexpected=self.crashes.append,
            renewed=self.renewed,
        )
        self.known = notices.Known()

    def redacted(self, text: str) -> str:
        """Take out the secrets of the newest stack."""
        return self.redact(text)

    def renewed(self, stack) -> None:
        self.redact = stack.secrets.redact

    @rule(cause=st.sampled_from([Cause.INTERVAL, Cause.ENGINE, Cause.HANGUP, Cause.REVISION]))
    def cycle(self, cause: Cause) -> None:
        try:
            self.cycled(cause)
        except Killed:
            self.start()

    def cycled(self, cause: Cause) -> State:
        state = self.loop.cycle(cause)
        deleted = [it for it in state.cycle.outcomes if it.change.deletes and it.status is Status.DONE]
        assert len(deleted) <= MOST
        assert "this is a bug" not in str(state.cycle.problems)
        self.tell(state)
        return state

    def tell(self, state: State) -> None:
        """Say it in every form: nobody may read a secret there."""
        now = datetime.now(UTC)
        due, self.known = notices.due(self.known, state, now)
        self.told += [text for notice in due for text in notices.text(notice, self.redact)]
        self.told.append(json.dumps(redacted(document(state, now), self.redact)))
        self.told.append(metrics.render(self.parts.tally, state, now).decode())

    # ------------------------------------------------------------------------------------------------- who else acts
    @rule(name=names, number=st.integers(1, 9))
    def declare(self, name: str, number: int) -> None:
        self.declared[name] = number
        self.save()

    @rule(left=st.sets(names))
    def undeclare(self, left: set[str]) -> None:
        self.declared = {name: number for name, number in self.declared.items() if name in left}
        self.save()

    @rule(torn=st.sampled_from(["version: 1\nstack: [", "", "stack: mana\nnonsense: yes\n"]))
    def save_badly(self, torn: str) -> None:
        (self.state / "reconciler.yaml").write_text(torn)

    @rule()
    def save(self) -> None:
        lines = [f"    - {{type: A, name: {name}, content: 192.0.2.{it}}}\n" for name, it in self.declared.items()]
        (self.state / "reconciler.yaml").write_text(HEAD + "".join(lines))

    @rule(name=names, text=st.sampled_from(["198.51.100.1", "198.51.100.2"]))
    def drift(self, name: str, text: str) -> None:
        self.world.alter(f"dns/mana.how/A/{name}", content=text)

    @rule()
    def leak(self) -> None:
        """Somebody writes a password into a record of ours."""
        self.world.alter("dns/mana.how/TXT/@", content=f"it is {SECRET}")

    @rule(name=names)
    def lose(self, name: str) -> None:
        self.world.live = [it for it in self.world.live if it.resource.address != f"dns/mana.how/A/{name}"]

    @rule(name=st.sampled_from(["s0", "s1", "s2"]), text=st.sampled_from(["192.0.2.90", "192.0.2.91"]))
    def stranger(self, name: str, text: str) -> None:
        """Somebody else's record comes."""
        made = record("mana.how", "A", name, text)
        if made.address not in {item.resource.address for item in self.strangers}:
            self.world.put(made, owner="other" if name == "s1" else None)
            self.strangers.append(self.world.live[-1])

    @rule()
    def wipe(self) -> None:
        self.world.live = [item for item in self.world.live if item.resource.target != "stalwart"]

    @rule(system=st.sampled_from(TARGETS))
    def outage(self, system: str) -> None:
        self.down ^= {system}
        self.world.turn(down=sorted(self.down))

    @rule(what=st.sampled_from(["fail", "unknown", "lose"]), name=names)
    def unwell(self, what: str, name: str) -> None:
        self.world.turn(down=sorted(self.down), **{what: [f"dns/mana.how/A/{name}"]})

    @rule(writes=st.integers(0, 4))
    def kill_at(self, writes: int) -> None:
        """The daemon dies at its next write, or at one of those after it."""
        self.fuse = writes

    @rule()
    def restart(self) -> None:
        self.start()

    # ------------------------------------------------------------------------------------------- what always holds
    @invariant()
    def nothing_of_others_goes(self) -> None:
        assert [item for item in self.strangers if item not in self.world.live] == []

    def teardown(self) -> None:
        try:
            if hasattr(self, "loop"):
                self.in_the_end()
        finally:
            self.exits.close()

    def in_the_end(self) -> None:
        """Undisturbed, with a directory that asks for no deletes, it comes to an empty plan; and no secret got out."""
        self.fuse, self.down = -1, set()
        self.world.turn()
        self.declared = dict.fromkeys(NAMES, 5)
        self.save()
        for _ in range(3):
            state = self.cycled(Cause.REQUEST)
        assert state.cycle.result is Result.NOTHING, document(state, datetime.now(UTC))
        assert state.plan.complete
        assert not state.plan.changes
        assert {item.resource.content for item in self.world.live if "/A/r" in item.resource.address} == {"192.0.2.5"}
        assert Domain("mana.how").address in self.world.addresses
        assert self.crashes == []
        self.nothing_of_others_goes()
        kept = [path.read_bytes() for path in self.data.rglob("*") if path.is_file()]
        shown = "".join([self.log.getvalue(), *self.told, *(item.decode("utf-8", "replace") for item in kept)])
        assert "noreply@mana.how" in shown
        assert SECRET not in shown


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(
    max_examples=300 if EXPLORE else 12, stateful_step_count=50 if EXPLORE else 20, deadline=None
)
