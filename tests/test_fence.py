"""The fence: what writes is withheld on the wire, what reads goes on, in whichever way it is sent."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextvars import copy_context
from pathlib import Path

import httpx
import pytest

from reconciler import fence, http
from reconciler.dns.records import record
from reconciler.plan import Desired, diff
from reconciler.problem import LeaseLost, Problem, TargetUnreadable
from reconciler.resources import SecretRef
from reconciler.simulator.cloudflare import Cloudflare as FakeCloudflare
from reconciler.simulator.cloudflare import Token
from reconciler.simulator.wire import Reply, Server
from reconciler.target import Status
from reconciler.targets.cloudflare import Cloudflare
from reconciler.targets.cloudflare.listing import Access
from reconciler.targets.compose.envfile import EnvFile
from reconciler.targets.compose.program import Program
from reconciler.targets.compose.project import Project
from reconciler.targets.stalwart.connection import Connection, Credentials, Login, Mode
from reconciler.targets.stalwart.jmap.api import JmapApi
from reconciler.url import parse

CANARY = "canary-token-0123456789"
LOST = LeaseLost(Problem("lease", "the lease was lost", "apply again"))


class Gate:
    """A fence that lets a number of questions pass."""

    def __init__(self, passes: int = 0) -> None:
        self.passes, self.asked, self.renewed = passes, 0, 0

    def check(self) -> None:
        self.asked += 1
        if self.asked > self.passes:
            raise LOST

    def renew(self) -> None:
        self.renewed += 1


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(lambda _: Reply.of({"methodResponses": []})) as server:
        yield server


def client(server: Server) -> httpx.Client:
    return http.client(parse(server.url), http.Bounds(1000, seconds=5))


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_what_writes_is_not_sent(server: Server, method: str) -> None:
    with client(server) as asked, fence.within(Gate()), pytest.raises(LeaseLost):
        http.exchange(asked, method, "/", content=b"{}")
    assert server.requests == []
    with client(server) as asked:
        assert http.exchange(asked, method, "/", content=b"{}").status == 200, "who stands within none is asked nothing"


def test_what_reads_is_sent_and_its_answer_is_progress(server: Server) -> None:
    gate = Gate()
    with client(server) as asked, fence.within(gate):
        http.exchange(asked, "GET", "/")
        http.exchange(asked, "POST", "/", content=b"{}", reads=True)
    assert len(server.requests) == 2
    assert (gate.asked, gate.renewed) == (0, 2)


def test_a_request_that_is_withheld_halfway_is_none(server: Server) -> None:
    with client(server) as asked, fence.within(Gate(passes=1)), pytest.raises(LeaseLost):
        http.exchange(asked, "POST", "/", content=b'{"a": 1}')
    with client(server) as asked:
        http.exchange(asked, "GET", "/after")
    assert [item.path for item in server.requests] == ["/after"]


def test_a_lost_lease_is_seen_on_a_connection_that_is_open(server: Server) -> None:
    """A process may be stopped between two writes on one connection, and continued when another one is at work."""
    gate = Gate(passes=2)
    with client(server) as asked, fence.within(gate):
        http.exchange(asked, "POST", "/", content=b"{}")
        assert gate.asked == 2, "before the head and before the body, which is the last of it"
        with pytest.raises(LeaseLost):
            http.exchange(asked, "POST", "/", content=b"{}")
    assert len(server.requests) == 1


def test_it_is_asked_in_a_thread_that_has_the_context(server: Server) -> None:
    found: list[BaseException] = []

    def write() -> None:
        try:
            http.exchange(asked, "POST", "/", content=b"{}")
        except LeaseLost as error:
            found.append(error)

    with client(server) as asked, fence.within(Gate()):
        thread = threading.Thread(target=copy_context().run, args=(write,))
        thread.start()
        thread.join()
    assert found == [LOST]
    assert server.requests == []


def test_a_signal_ends_the_wait_for_a_rate_limit() -> None:
    """Row 28: within 30 seconds, though the server asks for a minute."""
    reply = Reply.of({"title": "Too Many Requests"}, 429, **{"Retry-After": "60"})
    login, began = Login("admin", (), mode=Mode.REST, accepted=Credentials("admin", "x")), time.monotonic()
    with Server(lambda _: reply) as server:
        connection = Connection(parse(server.url), login, lambda _: "x", lambda _: None)
        stopped = lambda: time.monotonic() - began > 1  # noqa: E731
        with connection, fence.within(Gate(9), stopped), pytest.raises(TargetUnreadable, match="rate"):
            connection.send("POST", "/api/principal", body={})
        assert server.writes() == ["POST /api/principal"]
    assert time.monotonic() - began < 20


# ------------------------------------------------------------------------------------------------------- each way out
def test_jmap_reads_by_post_and_writes_by_set(server: Server) -> None:
    login = Login("admin", ())
    login.mode, login.accepted = Mode.JMAP, Credentials("admin", "x")
    with Connection(parse(server.url), login, lambda _: "x", lambda _: None) as connection, fence.within(Gate()):
        api = JmapApi(connection)
        api.call(("x:Domain/get", {"ids": []}), ("x:Domain/query", {}))
        assert len(server.requests) == 1
        with pytest.raises(LeaseLost):
            api.call(("x:Domain/get", {"ids": []}), ("x:Domain/set", {"destroy": ["a"]}))
    assert len(server.requests) == 1


def test_the_env_file_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("A=1\n")
    former = EnvFile.read(path, "mana")
    with fence.within(Gate()), pytest.raises(LeaseLost):
        former.replace_on_disk(former.having({"B": "2"}))
    assert path.read_text() == "A=1\n"


def test_compose_is_not_started(tmp_path: Path) -> None:
    command = tmp_path / "compose"
    command.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    command.chmod(0o755)
    program = Program([str(command)], [tmp_path / "compose.yaml"], tmp_path / ".env", None, None)
    with fence.within(Gate()), pytest.raises(TargetUnreadable):
        program.up(Project("p", {}, {}), ["web"])
    assert not (tmp_path / "ran").exists()
    program.up(Project("p", {}, {}), ["web"])
    assert (tmp_path / "ran").exists()


def test_cloudflare_says_why_nothing_was_sent() -> None:
    with Server(FakeCloudflare(["mana.how"], tokens={CANARY: Token()})) as server:
        token = Access(SecretRef("env", "TOKEN"))
        target = Cloudflare(stack="main", zones=["mana.how"], tokens=[token], base_url=f"{server.url}/client/v4")
        wanted = [record("mana.how", "A", "www", "192.0.2.1")]
        plan = diff(Desired(wanted), {"cloudflare": target.observe([], lambda _: CANARY)}, stack="main")
        with fence.within(Gate()):
            (outcome,) = target.apply(plan.changes, lambda _: CANARY)
        target.close()
        assert outcome.status is Status.FAILED
        assert "the lease was lost" in str(outcome.problem)
        assert server.writes() == []


class Asked:
    def __init__(self, name, told):
        self.name, self.told = name, told

    def check(self):
        self.told.append(self.name)

    def renew(self):
        self.told.append(f"{self.name} renewed")


def test_the_outermost_fence_is_asked_last_and_none_of_them_twice():
    told = []
    outer, inner = Asked("generation", told), Asked("lease", told)
    with fence.within(outer), fence.within(inner), fence.within(inner):
        fence.before_write()
        fence.progress()
    assert told == ["lease", "generation", "generation renewed", "lease renewed"]
    fence.before_write()
    assert len(told) == 4
