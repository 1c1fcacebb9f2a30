"""What a network, a system or a kill can do at every single write: the next run ends where an undisturbed one does.

One run without faults tells all writes and the final state. Then each write gets its fault in a run of its own, and a
second run has to bring the same state: nothing missing, nothing twice.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from reconciler.simulator.wire import Hangup, Reply

NOTIFY = "mana-core-notify"
Work = Callable[[], Reply]


def undisturbed(stack: Any) -> tuple[list[str], dict[str, Any]]:
    """Apply without a fault; return the writes and what is there then. The stack is as before."""
    stack.expect(0, "apply", "--yes")
    found = stack.writes(), stack.meaning()
    stack.first.restore(stack)
    return found


def lost(work: Work) -> Reply:
    """Do the work and lose the answer."""
    work()
    raise Hangup


class Killed:
    """Runs of a command that are killed at a chosen moment."""

    def __init__(self, stack: Any, command: Sequence[str] = ("apply", "--yes"), *, bug: str = "") -> None:
        self.stack, self.command, self.bug = stack, command, bug
        self.running: Any = None

    def kill(self) -> None:
        """End the reconciler, and Compose where it is at work, without a word."""
        self.running.kill()
        for call in self.stack.zygote.calls:
            if "up" in call["argv"]:
                self.stack.zygote.kill(call["pid"])

    def at_write(self, number: int, *, after: bool) -> None:
        def act(work: Work) -> Reply:
            if after:
                work()
            self.kill()
            raise Hangup

        self.stack.tape.at[number] = act
        self._run()

    def at_compose(self, word: str) -> None:
        """Kill when Compose is called with an argument that contains a word."""

        def order(argv: list[str]) -> dict[str, Any]:
            if any(word in item for item in argv):
                self.kill()
                return {"exit": 1}
            return {}

        self.stack.zygote.order = order
        self._run()

    def _run(self) -> None:
        self.running = self.stack.start(*self.command, bug=self.bug)
        done = self.running.wait()
        assert done.code == -signal.SIGKILL, done.text
        self.stack.tape.at.clear()
        self.stack.zygote.order = lambda _argv: {}


def unlike(found: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """Return what differs, as small as it can be shown."""
    differing: dict[str, Any] = {}
    for name, value in wanted.items():
        if isinstance(value, dict):
            other = found[name] or {}
            keys = [key for key in {*value, *other} if value.get(key) != other.get(key)]
            differing |= {f"{name} {key}": (other.get(key), value.get(key)) for key in keys}
        elif isinstance(value, list) and found[name] != value:
            only = (
                [item for item in found[name] if item not in value],
                [item for item in value if item not in found[name]],
            )
            differing[name] = only if any(only) else (found[name], value)
        elif found[name] != value:
            differing[name] = (found[name], value)
    return differing


class Oracle:
    """Says whether a run from a state ends where it should; a state that was seen before needs no second run."""

    def __init__(self, stack: Any, final: dict[str, Any]) -> None:
        self.stack, self.final = stack, final
        self.seen: set[str] = set()

    def converges(self, why: str) -> None:
        state = json.dumps(self.stack.meaning(), sort_keys=True, default=str)
        if state in self.seen:
            return
        self.seen.add(state)
        done = self.stack.run("apply", "--yes")
        assert done.code == 0, f"{why}:\n{done.text}"
        assert unlike(self.stack.meaning(), self.final) == {}, why


# ------------------------------------------------------------------------------------------- at every write
@pytest.mark.long
def test_killed_before_or_after_the_env_file_is_written_the_next_run_brings_the_same_state(stack: Any) -> None:
    """Between two writes to a system (`test_killed.py` has those): Compose tries the file out, and is then called."""
    _, final = undisturbed(stack)
    oracle = Oracle(stack, final)
    for word in ("/fd/", "up"):
        stack.first.restore(stack)
        Killed(stack).at_compose(word)
        oracle.converges(f"killed when Compose was called with {word}")


@pytest.mark.long
def test_every_answer_may_be_lost(stack: Any) -> None:
    writes, final = undisturbed(stack)
    oracle = Oracle(stack, final)
    for number, what in enumerate(writes):
        stack.first.restore(stack)

        stack.tape.at[number] = lost
        done = stack.run("apply", "--yes")
        assert done.code in (0, 6), f"the answer to {what} was lost: {done.text}"
        assert "Traceback" not in done.text
        stack.tape.at.clear()
        oracle.converges(f"the answer to write {number} was lost: {what}")


@pytest.mark.long
def test_compose_killed_midway_is_rolled_back_or_reported_and_then_done(stack: Any) -> None:
    writes, final = undisturbed(stack)
    oracle = Oracle(stack, final)
    for number, what in enumerate(writes):
        if not what.startswith("docker"):
            continue
        stack.first.restore(stack)

        def kill(work: Work) -> Reply:
            work()
            stack.zygote.kill(stack.zygote.calls[-1]["pid"])
            raise Hangup

        stack.tape.at[number] = kill
        done = stack.run("apply", "--yes")
        assert done.code == 6, f"{what}: {done.text}"
        assert "smtp/mana-notify" in done.text
        stack.tape.at.clear()
        oracle.converges(f"Compose was killed after {what}")


# ---------------------------------------------------------------------------------------- one system is unwell
GARBAGE = {
    "500": Reply.of({"error": "broken"}, 500),
    "503": Reply(503, b"<html>down</html>", "text/html"),
    "no JSON": Reply(200, b"<html>hello</html>", "text/html"),
    "half a JSON": Reply(200, b'{"data": {"items": [{"id": 1', "application/json"),
    "another JSON": Reply.of({"data": 7, "result": "x", "success": True}),
    "null": Reply(200, b"null"),
}
PATHS = {"stalwart": "/api/", "cloudflare": "/client/", "docker": "/v1"}


@pytest.mark.few
@pytest.mark.parametrize("system", PATHS)
@pytest.mark.parametrize("kind", [*GARBAGE, "hang up"])
def test_one_system_unwell_and_the_others_go_on(stack: Any, system: str, kind: str) -> None:
    """Nothing is planned for the system that is unwell, and everything for the others."""
    fault = {"refuse": True} if kind == "hang up" else {"reply": GARBAGE[kind]}
    made = stack.fault(system, path=PATHS[system], times=10**6, **fault)
    plan = stack.expect(1, "plan", "--output", "json").json
    target = "compose" if system == "docker" else system
    assert plan.get("complete") is False, plan
    problems = [item for item in plan["problems"] if item["severity"] == "error"]
    assert problems
    assert all(item["where"] and item["summary"] and item["hint"] for item in problems), problems
    assert not [item for item in plan["changes"] if item["target"] == target]
    others = {item["target"] for item in plan["changes"]}
    assert others >= {"stalwart", "cloudflare"} - {target}
    done = stack.expect(6, "apply", "--yes")
    assert "Traceback" not in done.text
    assert {line.split()[0] for line in stack.writes()} >= others - {"compose"}
    made.times = 0
    assert stack.expect(2, "plan", "--detailed-exitcode", "--output", "json").json["complete"]


@pytest.mark.parametrize("system", ["stalwart", "cloudflare"])
def test_a_rate_limit_is_waited_for(stack: Any, system: str) -> None:
    body = {"title": "Too Many Requests", "success": False, "errors": [{"code": 971, "message": "slow down"}]}
    reply = Reply.of(body, 429, Retry_After="1")
    stack.fault(system, path=PATHS[system], reply=reply, times=1)
    stack.fault(system, method="POST", path=PATHS[system], reply=reply, times=1)
    stack.expect(0, "apply", "--yes")


def test_half_a_listing_deletes_nothing_and_is_no_loss(applied: Any) -> None:
    def half(reply: Reply) -> Reply:
        body = json.loads(reply.body)
        if isinstance(body.get("result"), list):
            body["result"] = body["result"][: len(body["result"]) // 2]
        elif isinstance(body.get("data"), dict) and isinstance(body["data"].get("items"), list):
            body["data"]["items"] = body["data"]["items"][:1]
        return Reply(reply.status, json.dumps(body).encode(), reply.content_type)

    applied.fault("cloudflare", path="/dns_records", change=half, times=10**6)
    applied.fault("stalwart", path="/api/principal", change=half, times=10**6)
    before = applied.everything()
    plan = applied.expect(1, "plan", "--output", "json").json
    assert (plan["complete"], plan["changes"]) == (False, [])
    assert {"stalwart", "dns/mana.how"} <= set(plan["unread"])
    applied.expect(1, "apply", "--yes")
    assert applied.everything() == before
    assert applied.writes() == []


def test_an_empty_listing_of_a_full_zone_writes_nothing_there(applied: Any) -> None:
    def empty(reply: Reply) -> Reply:
        body = json.loads(reply.body)
        body["result"] = []
        return Reply(reply.status, json.dumps(body).encode(), reply.content_type)

    applied.fault("cloudflare", path="/dns_records", change=empty, times=10**6)
    assert applied.expect(1, "plan", "--output", "json").json["changes"] == []
    applied.expect(1, "apply", "--yes")
    assert applied.writes() == []


# ------------------------------------------------------------------------------------------------- signals
@pytest.mark.parametrize("number", [0, 2, 5, 8])
def test_sigterm_ends_after_the_write_under_way(stack: Any, number: int) -> None:
    def stop(work: Work) -> Reply:
        running.kill(signal.SIGTERM)
        wait_until(lambda: "Stopping after the write" in running.errors())
        return work()

    stack.tape.at[number] = stop
    running = stack.start("apply", "--yes")
    done = running.wait()
    assert done.code == 143, done.text
    system = stack.writes()[number].split()[0]
    rest = stack.writes()[number + 1 :]
    assert all(line.startswith(system) for line in rest), "what is under way ends, nothing else begins"
    assert '"result":"stopped"' in (stack.data / "journal.jsonl").read_text()
    stack.tape.at.clear()
    stack.expect(0, "apply", "--yes")


@pytest.mark.parametrize("system", ["stalwart", "cloudflare", "docker"])
def test_a_system_that_hangs_can_be_interrupted(stack: Any, system: str) -> None:
    server = {"stalwart": stack.stage.stalwart_server, "cloudflare": stack.stage.cloudflare_server}.get(
        system, stack.stage.docker_server
    )
    stack.fault(system, path=PATHS[system], delay=20)
    running = stack.start("plan")
    wait_until(lambda: server.requests)
    running.kill(signal.SIGTERM)
    assert running.wait(15).code == 143


def test_two_at_once_and_one_of_them_waits_for_nobody(stack: Any) -> None:
    def second(work: Work) -> Reply:
        found.append(stack.run("apply", "--yes"))
        return work()

    found: list[Any] = []
    stack.tape.at[0] = second
    assert stack.start("apply", "--yes").wait().code == 0
    assert found[0].code == 5
    assert "another reconciler is at work" in found[0].err


def wait_until(holds: Callable[[], Any]) -> None:
    import time

    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


# ------------------------------------------------------------------------------------- a service that fails
def test_a_service_that_does_not_come_up_gets_its_former_values_back(applied: Any) -> None:
    from reconciler.simulator.docker import CRASH_LOOPING, HEALTHY

    applied.env["NOREPLY_PASSWORD"] = "a-password-it-dies-of"
    applied.secrets["NOREPLY_NEXT"] = "a-password-it-dies-of"
    docker, former = applied.stage.docker, docker_script(applied)
    before, env_file = applied.container(NOTIFY).environment, applied.example.env_file.read_bytes()
    docker.script = lambda it: (
        CRASH_LOOPING if it.environment.get("SMTP_PASSWORD") == applied.env["NOREPLY_PASSWORD"] else HEALTHY
    )
    try:
        done = applied.expect(6, "apply", "--yes")
        assert "rolled back" in done.text
        assert applied.container(NOTIFY).environment == before
        assert applied.example.env_file.read_bytes() == env_file
        docker.script = former
        applied.expect(0, "apply", "--yes")
        assert applied.container(NOTIFY).environment["SMTP_PASSWORD"] == "a-password-it-dies-of"
    finally:
        docker.script = former
        del applied.secrets["NOREPLY_NEXT"]


def docker_script(stack: Any) -> Any:
    return stack.stage.docker.script
