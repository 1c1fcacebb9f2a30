"""The Docker Engine is asked by Docker's own package, and whatever it answers, a call ends and leads nowhere else."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import socket
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reconciler.docker import Client, EngineMemory, NotThere, _is_same
from reconciler.problem import TargetUnreadable
from reconciler.simulator.docker import Container, Docker
from reconciler.simulator.wire import Fault, Reply, Request, Server
from reconciler.targets.compose.engine import Engine
from reconciler.targets.stalwart.container import Docker as Declared
from reconciler.targets.stalwart.container import NoSuchContainer

VERSION = json.dumps({"ApiVersion": "1.41"}).encode()


class Recorded:
    """The fake engine, and what it was asked."""

    def __init__(self) -> None:
        self.engine = Docker()
        self.requests: list[Request] = []

    def __call__(self, request: Request) -> Reply:
        self.requests.append(request)
        return self.engine(request)


@pytest.fixture
def fake() -> Recorded:
    return Recorded()


@pytest.fixture(params=["tcp", "unix"])
def host(request: pytest.FixtureRequest, fake: Recorded, tmp_path: Path) -> Iterator[str]:
    path = tmp_path / "docker.sock"
    with Server(fake, unix=path if request.param == "unix" else None) as server:
        yield f"unix://{path}" if request.param == "unix" else server.url.replace("http://", "tcp://")
    assert server.crashes == []


# ---------------------------------------------------------------------------------------------------- who is speaking
def test_dockers_package_speaks_the_version_of_the_engine(fake: Recorded, host: str, monkeypatch, tmp_path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login somebody password not-a-real-one\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    fake.engine.run("web", "nginx", labels={"com.docker.compose.project": "mana"})
    with Engine(host) as engine:
        assert [item.name for item in engine.containers()] == ["web"]
        assert engine.inspect("web")["Name"] == "/web"
        with pytest.raises(NotThere, match="No such container"):
            engine.inspect("nobody")
    first, *others = fake.requests
    assert first.path == "/version"
    assert {item.path.split("/")[1] for item in others} == {"v1.41"}
    assert all(item.headers["user-agent"].startswith("docker-sdk-python/") for item in fake.requests)
    assert not any("authorization" in item.headers for item in fake.requests)


def test_what_is_asked_of_a_container(fake: Recorded, host: str) -> None:
    container = fake.engine.run("web", "nginx")
    fake.engine.files = lambda _, path: b"x" * 100_000 if path == "/etc/file" else None
    started = container.started
    with Client(host, "compose") as client:
        archive = client.archive("web", "/etc/file", 1 << 20)
        assert archive is not None
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            assert tar.getmembers()[0].size == 100_000
        assert client.archive("web", "/etc/file", 600) == archive[:600]
        assert client.archive("web", "/etc/none", 600) is None
        assert isinstance(client.log("web", 5, 1577836800.5), str)
        client.restart("web", 1)
    assert fake.engine.named("web").started >= started


def test_a_restart_may_take_as_long_as_its_container_takes_to_stop() -> None:
    engine = Docker()
    engine.run("web", "nginx")
    with Server(engine) as server, Client(server.url.replace("http://", "tcp://"), "compose", timeout=1) as client:
        client.inspect("web")
        server.faults += [Fault(path="/restart", delay=1.5), Fault(path="/restart", delay=1.5)]
        with pytest.raises(TargetUnreadable):
            client.restart("web", 0)
        client.restart("web", 3)


@pytest.mark.parametrize("name", ["", "../networks", "a/json", "-x", "a?b"])
def test_what_names_no_container_is_asked_of_nobody(fake: Recorded, host: str, name: str) -> None:
    with Client(host, "compose") as client, pytest.raises(NotThere):
        client.inspect(name)
    assert not any("containers" in item.path for item in fake.requests)


# ------------------------------------------------------------------------------------------------- what is misbehaved
Says = Callable[[socket.socket, str], None]


class Bad:
    """An engine that tells its version, and answers everything else in a way of its own."""

    def __init__(self, path: Path) -> None:
        self.says: Says = lambda *_: None
        self.asked: list[str] = []
        self._over = threading.Event()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()
        self.host = f"unix://{path}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, connection: socket.socket) -> None:
        with connection:
            data = b""
            while b"\r\n\r\n" not in data and (piece := connection.recv(65536)):
                data += piece
            line = data.partition(b"\r\n")[0].decode()
            self.asked.append(line)
            try:
                if " /version" in line:
                    connection.sendall(whole(VERSION))
                else:
                    self.says(connection, line)
            except OSError:
                return

    def drip(self, head: bytes) -> Says:
        def says(connection: socket.socket, _: str) -> None:
            connection.sendall(head)
            while not self._over.wait(0.05):
                connection.sendall(b"x")

        return says

    def close(self) -> None:
        self._over.set()
        self._socket.close()


def whole(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", "Connection: close", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


@pytest.fixture
def bad(tmp_path: Path) -> Iterator[Bad]:
    made = Bad(tmp_path / "bad.sock")
    yield made
    made.close()


CALLS: dict[str, Callable[[Client], object]] = {
    "inspect": lambda it: it.inspect("web"),
    "archive": lambda it: it.archive("web", "/etc/file", 1 << 20),
    "log": lambda it: it.log("web", 5),
    "restart": lambda it: it.restart("web", 0),
}


def test_what_the_kernel_ended_within_this_second_is_told() -> None:
    fake = Docker(clock=lambda: 1000.4)
    fake.run("web", "web:1")
    fake.kill_for_memory(fake.named("web"))
    with Server(fake) as server, Client(server.url.replace("http://", "tcp://"), "compose") as client:
        assert client.killed("web", 990.7, 1000.45) == (1000.0,)


@pytest.mark.few
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nX-Head: ",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n",
        b"HTTP/1.1 500 No\r\nContent-Length: 9000\r\n\r\n",
        b"HTTP/1.1 101 UPGRADED\r\nUpgrade: tcp\r\nConnection: Upgrade\r\n\r\n",
    ],
)
def test_an_engine_that_drips_has_an_end(bad: Bad, call: str, head: bytes) -> None:
    bad.says = bad.drip(head)
    began = time.monotonic()
    with Client(bad.host, "compose", timeout=1) as client, pytest.raises(TargetUnreadable):
        CALLS[call](client)
    assert time.monotonic() - began < 10


def test_what_is_too_large_is_not_read_packed_or_not(bad: Bad, monkeypatch) -> None:
    monkeypatch.setattr("reconciler.docker._LARGEST", 10_000)
    body = json.dumps({"Id": "x" * 100_000}).encode()
    packed = gzip.compress(body)
    assert len(packed) < 10_000
    for said in (whole(body), whole(packed, "Content-Encoding: gzip")):
        bad.says = lambda connection, _, said=said: connection.sendall(said)
        with Client(bad.host, "compose", timeout=5) as client, pytest.raises(TargetUnreadable, match="without end"):
            client.inspect("web")


def test_an_answer_is_unpacked_once_asked_for_or_not(bad: Bad) -> None:
    stat = base64.b64encode(b"{}").decode()
    said = whole(gzip.compress(b"archive"), "Content-Encoding: gzip", f"X-Docker-Container-Path-Stat: {stat}")
    bad.says = lambda connection, _: connection.sendall(said)
    with Client(bad.host, "compose", timeout=5) as client:
        assert client.archive("web", "/etc/file", 4) == b"arch"
    said = whole(
        gzip.compress(b'{"Id": "1", "Name": "/web"}'), "Content-Encoding: gzip", "Content-Type: application/json"
    )
    with Client(bad.host, "compose", timeout=5) as client:
        assert client.inspect("web") == {"Id": "1", "Name": "/web"}


def test_the_beginning_of_an_id_is_no_name(fake: Recorded, host: str) -> None:
    """`container: db` would be a stranger whose id begins so, and be read, believed and restarted."""
    stranger = fake.engine.run("stranger", "nginx")
    begins = stranger.id[:2]
    with Client(host, "stalwart") as client:
        assert client.inspect(stranger.id)["Name"] == client.inspect("stranger")["Name"] == "/stranger"
        for short in (begins, stranger.id[:12]):
            with pytest.raises(NotThere, match=f"no container {short}, and answers with another one"):
                client.inspect(short)
    started = stranger.started
    calls = Declared(begins, host)
    for call in (calls.inspect, calls.look, calls.log, calls.last_words, calls.restart, lambda: calls.holds("/etc")):
        with pytest.raises(NoSuchContainer):
            call()
    assert stranger.started == started
    fake.engine.run(begins, "nginx")
    assert calls.inspect().id == fake.engine.named(begins).id


@pytest.mark.parametrize(
    "body", [b"", b"null", b"no JSON", b"[" * 50_000, b'{"a":' * 500 + b"1" + b"}" * 500, b"[1, 2]", b'{"a": NaN}']
)
def test_what_can_not_be_understood_is_told(bad: Bad, body: bytes) -> None:
    bad.says = lambda connection, _: connection.sendall(whole(body, "Content-Type: application/json"))
    with Client(bad.host, "compose", timeout=5) as client:
        with pytest.raises(TargetUnreadable, match="can't be understood"):
            client.inspect("web")
        with pytest.raises(TargetUnreadable):
            client.log("web", 1)
    with Engine(bad.host) as engine, pytest.raises(TargetUnreadable, match="can't be understood"):
        engine.networks()


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [("404 No", b"[]", NotThere), ("404 No", b"<html>", NotThere), ("500 No", b"{}", TargetUnreadable)],
)
def test_a_refusal_is_one_whatever_it_says(bad: Bad, status: str, body: bytes, kind: type[Exception]) -> None:
    bad.says = lambda connection, _: connection.sendall(whole(body, status=status))
    with Client(bad.host, "compose", timeout=5) as client, pytest.raises(kind, match="refuses: HTTP"):
        client.inspect("web")


def test_no_redirect_is_followed(bad: Bad) -> None:
    with Server(lambda _: Reply.of({"Name": "elsewhere"})) as elsewhere:
        said = whole(b"", f"Location: {elsewhere.url}/containers/web/json", status="307 Go")
        bad.says = lambda connection, _: connection.sendall(said)
        with Client(bad.host, "compose", timeout=5) as client, pytest.raises(TargetUnreadable):
            client.inspect("web")
        assert elsewhere.requests == []
    assert len(bad.asked) == 2


def test_a_log_is_what_both_streams_printed_up_to_its_end(bad: Bad) -> None:
    pieces = b"".join(
        bytes([1 + at % 2, 0, 0, 0]) + len(text).to_bytes(4, "big") + text
        for at, text in enumerate([b"one\n", b"two\n", b""])
    )

    def says(connection: socket.socket, line: str) -> None:
        raw = "/json" in line
        connection.sendall(whole(b'{"Config": {"Tty": false}}' if raw else pieces + b"\1\0\0\0\0\0\0\x09cut"))

    bad.says = says
    with Client(bad.host, "compose", timeout=5) as client:
        assert client.log("web", 5) == "one\ntwo\ncut"


@pytest.mark.parametrize("version", ["", "1", "1.0", "x", "../..", None])
def test_a_version_that_is_none_is_told(tmp_path: Path, version: str | None) -> None:
    with (
        Server(lambda _: Reply.of({"ApiVersion": version}), unix=tmp_path / "docker.sock"),
        Client(f"unix://{tmp_path}/docker.sock", "compose", timeout=5) as client,
        pytest.raises(TargetUnreadable),
    ):
        client.inspect("web")


# -------------------------------------------------------------------------------------------------------------- ways
def test_ssh_gets_what_it_needs_and_nothing_more(fake: Recorded, tmp_path: Path, monkeypatch) -> None:
    """A stand-in for the ssh program notes its environment, and leads to the engine as the real one would."""
    program = tmp_path / "bin" / "ssh"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\nenv > {tmp_path}/environment\necho "$@" > {tmp_path}/arguments\n'
        f"exec {os.sys.executable} -c '{RELAY}' {tmp_path}/docker.sock\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("CLOUDFLARE_API_TOKEN", "not-a-real-token")
    fake.engine.run("web", "nginx")
    with Server(fake, unix=tmp_path / "docker.sock"), Client("ssh://me@engine", "compose", timeout=10) as client:
        assert client.inspect("web")["Name"] == "/web"
        assert client.remote
    assert "not-a-real-token" not in (tmp_path / "environment").read_text()
    assert (tmp_path / "arguments").read_text().strip() == "-l me -- engine docker system dial-stdio"


RELAY = """
import os, socket, sys, threading
engine = socket.socket(socket.AF_UNIX); engine.connect(sys.argv[1])
def up():
    while data := os.read(0, 65536): engine.sendall(data)
    engine.shutdown(socket.SHUT_WR)
threading.Thread(target=up, daemon=True).start()
while data := engine.recv(65536): os.write(1, data)
"""


# ----------------------------------------------------------------------------------------------------------- contexts
def context(folder: Path, name: str, host: str) -> None:
    from hashlib import sha256

    meta = folder / "contexts" / "meta" / sha256(name.encode()).hexdigest() / "meta.json"
    meta.parent.mkdir(parents=True)
    meta.write_text(json.dumps({"Name": name, "Metadata": {}, "Endpoints": {"docker": {"Host": host}}}))


def test_the_current_context_says_where_the_engine_is(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.delenv("DOCKER_CONTEXT", raising=False)
    context(tmp_path, "colima", "unix:///colima.sock")
    context(tmp_path, "server", "ssh://me@server")
    (tmp_path / "config.json").write_text('{"currentContext": "colima"}')
    assert Client(None, "compose").host == "unix:///colima.sock"
    monkeypatch.setenv("DOCKER_CONTEXT", "server")
    assert Client(None, "compose").host == "ssh://me@server"
    monkeypatch.setenv("DOCKER_CONTEXT", "default")
    assert Client(None, "compose").host == "unix:///var/run/docker.sock"
    monkeypatch.delenv("DOCKER_CONTEXT")
    for text in ("{}", "no JSON", "[]", '{"currentContext": "gone"}', '{"currentContext": 7}'):
        (tmp_path / "config.json").write_text(text)
        assert Client(None, "compose").host == "unix:///var/run/docker.sock", text


def test_a_context_in_the_folder_we_are_in_is_nobodys(tmp_path: Path, monkeypatch) -> None:
    context(tmp_path, "mine", "tcp://attacker.example:2375")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "none"))
    monkeypatch.setenv("DOCKER_CONTEXT", "mine")
    with pytest.raises(TargetUnreadable, match="no Docker context mine"):
        Client(None, "compose")


# ------------------------------------------------------------------------------------------ what is asked only once
def asked(fake: Recorded, host: str, memory: EngineMemory, name: str = "web") -> list[str]:
    """Look at a container, and return which paths were asked for."""
    before = len(fake.requests)
    memory.begin()
    with Engine(host, memory) as engine:
        assert len(engine.containers()) == len(fake.engine.containers)
        engine.networks()
        engine.inspect(name)
    memory.end()
    return [item.path for item in fake.requests[before:]]


@pytest.fixture
def web(fake: Recorded) -> Container:
    return fake.engine.run("web", "nginx", labels={"com.docker.compose.project": "mana"})


def test_where_nothing_changed_one_question_tells_so(fake: Recorded, host: str, web: Container) -> None:
    memory = EngineMemory()
    assert len(asked(fake, host, memory)) > 3
    assert asked(fake, host, memory) == ["/containers/json"]


@pytest.mark.parametrize("what", ["another", "gone", "stopped", "recreated"])
def test_what_happens_to_a_container_is_seen_at_once(fake: Recorded, host: str, web: Container, what: str) -> None:
    memory, labels = EngineMemory(), {"com.docker.compose.project": "mana"}
    asked(fake, host, memory)
    if what == "another":
        fake.engine.run("db", "postgres", labels=labels)
    elif what == "stopped":
        web.running = False
    else:
        del fake.engine.containers[web.id]
        fake.engine.run("web" if what == "recreated" else "other", "nginx", labels=labels)
    assert len(asked(fake, host, memory, "other" if what == "gone" else "web")) > 2


def test_outside_of_an_observation_everything_is_asked_for(fake: Recorded, host: str, web: Container) -> None:
    memory = EngineMemory()
    asked(fake, host, memory)
    with Engine(host, memory) as engine:
        before = len(fake.requests)
        engine.inspect("web")
        assert len(fake.requests) == before + 2


@pytest.mark.parametrize(
    ("before", "now", "same"),
    [
        ("Up 3 minutes", "Up 8 minutes", True),
        ("Up About a minute (healthy)", "Up About an hour (healthy)", True),
        ("Up 2 hours", "Up Less than a second", False),
        ("Up 3 days", "Up 5 seconds", False),
        ("Up 3 minutes (healthy)", "Up 8 minutes (unhealthy)", False),
        ("Up 3 minutes", "Up 8 minutes (Paused)", False),
        ("Exited (0) 3 minutes ago", "Exited (0) 3 minutes ago", True),
    ],
)
def test_a_restart_and_health_are_read_from_the_engines_own_words(before: str, now: str, same: bool) -> None:
    assert _is_same({"Id": "1", "Status": before}, {"Id": "1", "Status": now}) is same
