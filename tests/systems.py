"""Systems in memory, or in a file for a program of its own: run as a script this is the real command line.

Knobs (`knobs.json` beside the file) say what goes wrong: ``unread`` targets tell that, ``down`` ones raise it;
``fail`` and ``unknown`` and ``lose`` addresses, ``hold`` an address (before it is written `held` appears, and it waits
for `go`), ``slow`` seconds of observing, ``boom`` a text that an unexpected exception quotes.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    import reconciler.__main__  # before the parts of it, as in the program: it starts in two thirds of the time

from reconciler import stack
from reconciler.desired.load import Directory, Places
from reconciler.desired.spec import Spec
from reconciler.desired.yaml import Mapping
from reconciler.guards.evidence import Policy
from reconciler.plan import Desired
from reconciler.problem import Problem, TargetUnreadable
from reconciler.resources import UNKNOWN, Account, Live, Observation, Resource, Same, SecretRef, Signature
from reconciler.settings import TARGETS, Settings
from reconciler.target import Change, Outcome, Status


class World:
    """What is live in all systems."""

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = directory
        self._live: list[Live] = []
        self._knobs: dict[str, Any] = {}

    @property
    def file(self) -> Path:
        assert self.directory
        return self.directory / "world.pickle"

    @property
    def live(self) -> list[Live]:
        if self.directory is None:
            return self._live
        return pickle.loads(self.file.read_bytes()) if self.file.exists() else []

    @live.setter
    def live(self, items: Sequence[Live]) -> None:
        self._live = list(items)
        if self.directory is not None:
            partial = self.file.with_suffix(".new")
            partial.write_bytes(pickle.dumps(self._live))
            partial.replace(self.file)

    @property
    def addresses(self) -> list[str]:
        return sorted(item.resource.address for item in self.live)

    @property
    def knobs(self) -> dict[str, Any]:
        path = self.directory / "knobs.json" if self.directory else None
        return json.loads(path.read_text()) if path and path.exists() else self._knobs

    def turn(self, **knobs: Any) -> None:
        self._knobs = knobs
        if self.directory is not None:
            (self.directory / "knobs.json").write_text(json.dumps(knobs))

    def put(self, resource: Resource, owner: str | None = None) -> None:
        self.live = [*self.live, Live(resource, owner=owner)]

    def alter(self, address: str, **fields: Any) -> None:
        self.live = [
            replace(item, resource=replace(item.resource, **fields)) if item.resource.address == address else item
            for item in self.live
        ]


class System:
    """One target of a world."""

    libraries = ()

    def __init__(self, name: str, world: World, stack: str) -> None:
        self.name, self.world, self.stack = name, world, stack

    def observe(self, wanted: Sequence[Resource], reveal: Any) -> Observation:
        knobs = self.world.knobs
        time.sleep(knobs.get("slow", 0))
        for item in wanted:
            if isinstance(item, Account) and isinstance(item.password, SecretRef):
                value = reveal(item.password)
                if "boom" in knobs:
                    raise RuntimeError(f"{knobs['boom']} {value}")
        problem = Problem(self.name, "does not answer", "start it", scope=self.name)
        if self.name in knobs.get("down", ()):
            raise TargetUnreadable(problem)
        if self.name in knobs.get("unread", ()):
            return Observation(self.name, unread=frozenset({self.name}), problems=(problem,))
        live = [item for item in self.world.live if item.resource.target == self.name]
        lost = self.name == "stalwart" and bool(wanted) and not live
        return Observation(self.name, live, head=(f"{self.name} in a file",), lost=lost)

    def apply(self, changes: Sequence[Change], reveal: Any, stopped: Any) -> Iterator[Outcome]:
        for change in changes:
            if stopped():
                return
            knobs = self.world.knobs
            if knobs.get("hold") == change.address:
                self._hold()
            if change.address in knobs.get("fail", ()):
                yield Outcome(change, Status.FAILED, Problem(change.address, "the system says no", "ask it nicely"))
            elif change.address in knobs.get("lose", ()):
                yield Outcome(change, Status.UNKNOWN, Problem(change.address, "the answer was lost"))
            else:
                self._write(change)
                unknown = change.address in knobs.get("unknown", ())
                yield Outcome(change, Status.UNKNOWN if unknown else Status.DONE)

    def _hold(self) -> None:
        (self.world.directory / "held").touch()
        while not (self.world.directory / "go").exists():
            time.sleep(0.01)

    def _write(self, change: Change) -> None:
        rest = [item for item in self.world.live if item != change.before]
        if change.after is not None:
            rest.append(Live(_stored(change.after), owner=self.stack))
        self.world.live = rest


def _stored(resource: Resource) -> Resource:
    if isinstance(resource, Account) and isinstance(resource.password, SecretRef):
        return replace(resource, password=Same(resource.password))
    if not isinstance(resource, Signature):
        return resource
    made = "NEWKEY" if resource.public_key is UNKNOWN else resource.public_key
    return replace(resource, public_key=made, private_key=None)


class Connected(stack.Stack):
    """The stack of a directory, but for where its targets are; the stand-in for `reconciler.stack.Stack`."""

    revision = "3f2a9c1"
    world: World | None = None

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.progress("Connecting")

    def connect(self, names: Collection[str]) -> dict[str, Any]:
        world = self.world or World(Path(os.environ["TEST_WORLD"]))
        return {name: System(name, world, self.name) for name in names}


class Wishing(Connected):
    """A stack in memory without a directory: ``wish`` is what is desired, or tells it from what was observed."""

    def __init__(
        self,
        wish: Any,
        names: Sequence[str] = TARGETS,
        *,
        policy: Policy | None = None,
        only: Sequence[str] = (),
    ) -> None:
        directory = Directory(Path("nowhere"), Spec(stack="mana"), Places(Mapping(".", 0)), (), "", "")
        super().__init__(directory, Settings.read({}, Path("nowhere")), stack.Choice(only=tuple(only)))
        self.wish, self.world, self.chosen, self.policy = wish, World(), tuple(names), policy or Policy()

    def desired(self, observed: Any = None) -> Desired:
        return self.wish(observed) if callable(self.wish) else Desired(self.wish)


@contextlib.contextmanager
def connected() -> Iterator[None]:
    """Put the stand-in in the place of the real one."""
    former, stack.Stack = stack.Stack, Connected
    try:
        yield
    finally:
        stack.Stack = former


if __name__ == "__main__":
    with connected():
        reconciler.__main__.main()
