"""A switch on a real engine with each real Compose, ended by SIGKILL at its steps: the next run ends in the new state.

What falls is the whole process, at a write to the engine (its own or Compose's, which dies with it) or to a file.
`make explore` tries every step, a normal run one in eight, other ones with each Compose.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from reconciler.resources import SecretRef

from .gate import Gate
from .test_compose_rows import BASE, BOTH, ENV, NEW, PROGRAMS, Stack, assert_silent, processes, stack, wanted

__all__ = ["stack"]  # a fixture
pytestmark = [pytest.mark.xdist_group("engine"), pytest.mark.long]

EVERYWHERE = os.environ.get("RECONCILER_PROPERTIES") == "explore"
WORD = wanted("secrets/word", SecretRef("env", "NEW"))
WANTED = (*BOTH, WORD)
KINDS = ("runs", "is stopped")
CHILD = """
import os, signal, sys
from pathlib import Path
from e2e.test_compose_killed import WANTED
from e2e.test_compose_rows import reveal
from reconciler.plan import Desired, diff
from reconciler.targets.compose import Compose, Patience
folder, name, program, host, at = Path(sys.argv[1]), *sys.argv[2:5], int(sys.argv[5])
steps = 0
def fall(event, arguments):
    global steps
    if event in ("os.rename", "os.remove", "os.link") and str(folder) in str(arguments[:2]):
        if steps == at:
            os.kill(os.getpid(), signal.SIGKILL)
        steps += 1
target = Compose(
    file=folder / "compose.yml", env_file=folder / ".env", project=name, stack="rows", program=(program,),
    docker_host=host, patience=Patience(ready=3, settle=0.5, pause=0.1),
)
seen = target.observe(WANTED, reveal)
assert not seen.unread, seen.problems
sys.addaudithook(fall)
for item in target.apply(diff(Desired(WANTED), {"compose": seen}, stack="rows").changes, reveal):
    assert item.problem is None, item.problem
print(steps)
"""


class Axe(Gate):
    """A way to the engine on which a process is killed at one of its writes, before it or behind it."""

    def __init__(self, path: Path, engine: str) -> None:
        super().__init__(path, engine, [(method, ".*") for method in ("HEAD", "GET", "POST", "PUT", "DELETE")])
        self.count, self.at, self.behind = 0, -1, False
        self.victim: subprocess.Popen[str] | None = None
        self._counting = threading.Lock()

    def arm(self, at: int = -1, *, behind: bool = False) -> None:
        self.count, self.at, self.behind = 0, at, behind

    def _serve(self, client: socket.socket) -> None:
        head = client.recv(16, socket.MSG_PEEK).decode(errors="replace")
        writes = head.startswith(("POST", "DELETE"))
        with self._counting:
            falls = writes and self.count == self.at
            self.count += writes
        if falls and not self.behind:
            self._fell()
            return
        super()._serve(client)
        if falls:
            self._fell()

    def _fell(self) -> None:
        assert self.victim is not None
        self.victim.send_signal(signal.SIGKILL)
        self.victim.wait()


@dataclass
class Scene:
    """A service with variables and a secret's file that are about to change, beside one with which nothing may be."""

    stack: Stack
    kind: str
    axe: Axe
    way: str
    environ: dict[str, str] = field(default_factory=dict)

    def begin(self) -> None:
        """Be as before the switch."""
        for item in self.stack.of("app"):
            self.stack.engine.api.remove_container(item["Id"], force=True)
        for path in self.stack.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name not in ("compose.yml", ".env"):
                path.unlink()
        self.stack.env_file.write_text(ENV)
        (self.stack.folder / "word").write_text("oldpw")
        self.stack.up()
        if self.kind == "is stopped":
            self.stack.engine.api.stop(self.stack.of("app")[0]["Id"], timeout=0)

    def switch(self, at_file: int = -1) -> tuple[int, str]:
        """Switch in a process of its own; return how that ended, and what it printed."""
        stack = self.stack
        command = [sys.executable, "-c", CHILD, str(stack.folder), stack.name, stack.program, self.way, str(at_file)]
        with subprocess.Popen(command, env=self.environ, stdout=subprocess.PIPE, text=True) as self.axe.victim:
            said, _ = self.axe.victim.communicate()
        return self.axe.victim.returncode, said

    def state(self) -> tuple[Any, ...]:
        stack = self.stack
        files = {str(path): path.read_bytes() for path in stack.folder.rglob("*") if path.is_file()}
        files.pop(str(stack.folder / ".reconciler" / ".gitignore"), None)  # of a folder in which a file was made
        reads = [stack.inside("cat", "/run/secrets/word")] if self.kind == "runs" else []
        return stack.configuration(), [item["State"]["Status"] for item in stack.of("app")], reads, files


@pytest.fixture
def scene(stack: Stack, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    stack.file.write_text(
        BASE.format(image=stack.image).replace("    environment:\n", "    secrets: [word]\n    environment:\n")
        + "secrets: {word: {file: ./word}}\n"
    )
    stack.patience = replace(stack.patience, settle=0.5, pause=0.1)
    engine = (stack.host or "unix:///var/run/docker.sock").removeprefix("unix://")
    if "://" in engine:
        pytest.skip("the engine is behind no socket")
    tests = Path(__file__).parents[1]
    axe = Axe(tmp_path / "axe", engine)
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tests.parent), str(tests)])}
    try:
        yield Scene(stack, request.param, axe, f"unix://{tmp_path / 'axe'}", environ)
    finally:
        axe.close()


@processes
@pytest.mark.parametrize("scene", KINDS, indirect=True)
def test_a_switch_that_is_killed_on_a_real_engine_ends_in_the_new_state(scene: Scene) -> None:
    stack, axe = scene.stack, scene.axe
    scene.begin()
    others = stack.lives("app")
    axe.arm()
    code, said = scene.switch()
    assert code == 0
    final, places = scene.state(), [(number, behind) for number in range(axe.count) for behind in (False, True)]
    assert (stack.environment()["SMTP_HOST"], (stack.folder / "word").read_text()) == ("new", NEW)
    places += [(number, None) for number in range(int(said))]  # of files: before it is done
    rank = PROGRAMS.index(stack.program) + 2 * KINDS.index(scene.kind)
    for number, behind in places if EVERYWHERE else places[rank::8]:
        why = f"killed at {'file' if behind is None else 'behind' if behind else 'before'} {number} of {len(places)}"
        scene.begin()
        axe.arm(-1 if behind is None else number, behind=bool(behind))
        assert scene.switch(number if behind is None else -1)[0] == -signal.SIGKILL, why
        seen, changes = stack.plan(*WANTED)  # the next run
        outcomes = list(stack.target().apply(changes, lambda _: NEW))
        assert [item.problem for item in outcomes if item.problem] == [], why
        assert scene.state() == final, why
        assert stack.plan(*WANTED)[1] == (), why
        assert (stack.lives("app"), stack.not_ours()) == (others, ENV), why
        assert_silent(seen.problems, outcomes)
