"""The daemon, ended by SIGKILL at every write of every kind of work, and with every single operation refused in turn.

A run without a fault tells the writes, how often each object came and went, and the end. Each write then gets a run in
which the daemon dies at it, from the wire's side: no except and no finally runs. The next run has to come to the same
end, and both together have made and removed each object as often as the undisturbed run did.

`make explore` tries every place, a normal run one in six.
"""

from __future__ import annotations

import functools
import json
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import pytest

from reconciler.simulator.wire import Reply, Request

from .stagefixtures import OUR_ZONES, Done, Snapshot, Stack, Watch, _applied, wait_for
from .test_faults import Killed, unlike
from .test_keys_and_loss import DAY, hand_over, new_key
from .test_providers import PLAIN, PRESET, switch

pytestmark = pytest.mark.long

DAEMON = ("daemon", "--once", "--log", "json")
QUICK = "import reconciler.daemon.source; reconciler.daemon.source._QUIET = 0.02"  # nobody else is at work here
EVERYWHERE = os.environ.get("RECONCILER_PROPERTIES") == "explore"
T = TypeVar("T")


def tried(places: Sequence[T], rank: int) -> Sequence[T]:
    """Return where a fault is tried; each kind of work has another ``rank``, and so other places."""
    return places if EVERYWHERE else places[rank % min(6, len(places)) :: 6]


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


Work = Callable[[Stack], None]
WORK: tuple[Work, ...] = (first, change, rotation, provider, loss)


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
    rank: int
    writes: list[str] = field(default_factory=list)
    final: dict[str, Any] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    operations: list[Operation] = field(default_factory=list)
    recovered: dict[str, Counter[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, stack: Stack, rank: int) -> Scene:
        made = cls(stack, Snapshot.of(stack), dict(stack.env), rank)
        ledger = made.begin()
        stack.expect(0, *DAEMON, bug=QUICK)
        made.writes, made.final, made.counts = stack.writes(), made.state(), ledger.closed()
        asked = [(name, item) for name, server in servers(stack) for item in server.requests]
        made.operations = list(dict.fromkeys(it for name, request in asked for it in operations(name, request)))
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
        found = {**self.stack.meaning(), "kept": [name for name in kept if name.startswith("stalwart-")]}
        if self.stack.generation == "rest":  # as it was stored when the last reload came; what is stored now counts
            found["running"] = {key: value for key, value in found["running"].items() if key != "reconciler.pending"}
        return found

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
        assert counts + self.recovered[state] == self.counts, why


def fine(done: Done, codes: tuple[int, ...], why: str) -> None:
    assert done.code in codes, f"{why}:\n{done.text}"
    assert "this is a bug" not in done.text, f"{why}:\n{done.text}"
    assert "Traceback" not in done.text, f"{why}:\n{done.text}"


@pytest.fixture(params=["theatre", "newer_theatre"], ids=["rest", "jmap"])
def generation(request: pytest.FixtureRequest) -> Stack:
    found: Stack = request.getfixturevalue(request.param)
    return found


@functools.cache
def _begun(stack: Stack, work: Work) -> Scene:
    _applied(stack).restore(stack)
    work(stack)
    return Scene.of(stack, WORK.index(work) + (stack.generation == "jmap") * len(WORK))


def _scene(stack: Stack, work: Work) -> Scene:
    made = _begun(stack, work)
    made.begin()
    stack.watch = Watch(stack)
    stack.watch.server_lost = work in (first, loss)
    stack.watch.touched.add("mana-mail")
    return made


@pytest.fixture(params=WORK, ids=lambda work: work.__name__)
def scene(generation: Stack, request: pytest.FixtureRequest) -> Iterator[Scene]:
    """The example after its first apply, with work to do. What is not ours is as it was in the end."""
    stack, work = generation, request.param
    stack.secrets["NOREPLY_NEXT"] = "the-next-password"
    try:
        yield _scene(stack, work)
        stack.watch.check()
    finally:
        del stack.secrets["NOREPLY_NEXT"]
        stack.tape.watch = lambda _when: None


# --------------------------------------------------------------------------------------------------- killed anywhere
def test_rows_1_and_2_killed_at_every_write_the_next_run_comes_to_the_same_end(scene: Scene) -> None:
    places = [(number, after) for number in range(len(scene.writes)) for after in (False, True)]
    for number, after in tried(places, scene.rank):
        ledger = scene.begin()
        Killed(scene.stack, DAEMON, bug=QUICK).at_write(number, after=after)
        counts = ledger.closed()
        scene.ends_well(counts, f"killed {'after' if after else 'before'} write {number}: {scene.writes[number]}")


# -------------------------------------------------------------------------------------------- one operation is refused
@dataclass(frozen=True, slots=True)
class Operation:
    """One of the things that a request asks for: by its system, what is done, and to what."""

    system: str
    verb: str
    subject: str


def servers(stack: Stack) -> list[tuple[str, Any]]:
    return [("stalwart", stack.stage.stalwart_server), ("cloudflare", stack.stage.cloudflare_server)]


def operations(system: str, request: Request) -> Iterator[Operation]:
    """Yield what a request asks to be done; nothing where it only reads."""
    if request.path.endswith("/batch"):
        for verb, items in request.json().items():
            yield from (Operation(system, verb, json.dumps(item, sort_keys=True)) for item in items or ())
    elif request.path == "/jmap" and b'/set"' in request.body:
        for method, arguments, _ in request.json()["methodCalls"]:
            for verb in ("create", "update", "destroy") if method.endswith("/set") else ():
                yield from (Operation(system, f"{method} {verb}", key) for key in arguments.get(verb) or ())
    elif request.path == "/api/settings" and request.method == "POST":
        for item in request.json():
            keys = item.get("keys") or [key for key, _ in item["values"]]
            yield Operation(system, item["type"], keys[0])
    elif request.path.startswith("/api/principal") and request.method != "GET":
        name = request.json()["name"] if request.method == "POST" else request.path
        yield Operation(system, request.method, name)


def refusing(operation: Operation, system: str, request: Request, fake: Any) -> Reply:
    """Answer as a system does that refuses one operation: the newer Stalwart does the rest of the request."""
    if operation not in operations(system, request):
        answer: Reply = fake(request)
        return answer
    if system == "cloudflare":
        errors = [{"code": 1004, "message": "refused by the test"}]
        return Reply.of({"result": None, "success": False, "errors": errors, "messages": []}, 400)
    if request.path != "/jmap":
        return Reply.of({"error": "other", "details": "refused", "reason": "by the test"})
    return _part(operation, request, fake)


def _part(operation: Operation, request: Request, fake: Any) -> Reply:
    method, verb = operation.verb.split()
    body, refused = request.json(), {"type": "forbidden", "description": "refused by the test"}
    tags = set()
    for name, arguments, tag in body["methodCalls"]:
        if name == method and operation.subject in (arguments.get(verb) or ()):
            tags.add(tag)
            left = arguments[verb]
            arguments[verb] = (
                [item for item in left if item != operation.subject]
                if verb == "destroy"
                else {key: value for key, value in left.items() if key != operation.subject}
            )
    answer = json.loads(fake(replace(request, body=json.dumps(body).encode())).body)
    word = {"create": "notCreated", "update": "notUpdated", "destroy": "notDestroyed"}[verb]
    for _, found, tag in answer["methodResponses"]:
        if tag in tags:
            found[word] = {**(found.get(word) or {}), operation.subject: refused}
    return Reply.of(answer)


def test_rows_16_and_17_an_operation_that_is_refused_keeps_no_other_system_and_is_done_by_a_later_run(
    scene: Scene,
) -> None:
    """At Cloudflare it keeps nothing at another name either: what stands at one name may need each other."""
    stack = scene.stack
    fakes = [(name, server, server.fake) for name, server in servers(stack)]
    for operation in tried(scene.operations, scene.rank):
        scene.begin()
        for name, server, fake in fakes:
            server.fake = lambda request, name=name, fake=fake, it=operation: refusing(it, name, request, fake)
        try:
            fine(stack.run(*DAEMON, bug=QUICK), (0, 1, 6), f"{operation} was refused")
        finally:
            for _, server, fake in fakes:
                server.fake = fake
        left = unlike(scene.state(), scene.final)
        if operation.system == "cloudflare":
            assert set(left) <= {"records"}, f"{operation}: {left}"
            names = {json.loads(item)["name"] for side in left.get("records", ()) for item in side}
            assert len(names) <= 1, f"{operation}: {left}"
        else:
            assert "records" not in left, f"{operation}: {left}"
        stack.tape.watch = lambda _when: None
        fine(stack.run(*DAEMON, bug=QUICK), (0,), f"{operation} is not refused any more")
        assert unlike(scene.state(), scene.final) == {}, operation
