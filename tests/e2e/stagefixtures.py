"""The product against the simulator: the example on a stage that every test gets as new, and a watch over the rest.

`stack` is the example before its first apply, `applied` after it. Both hold things that are not ours in every system
and beside every file; after each test they must be there byte for byte, times of modification included.
"""

from __future__ import annotations

import contextlib
import copy
import datetime as dt
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from reconciler.simulator import example as examples
from reconciler.simulator.stage import Generation, Project, Stage
from reconciler.simulator.stalwart.jmap.server import StalwartJmap
from reconciler.simulator.stalwart.passwords import verify
from reconciler.simulator.stalwart.rest.directory import ADMIN_PERMISSIONS
from reconciler.simulator.stalwart.rest.server import StalwartRest
from reconciler.simulator.wire import Fault, Reply, Request, Server

from . import jmapstage

TESTS = Path(__file__).resolve().parents[1]
BREVO = ("smtp-relay.brevo.com", 587, "94cde5002@smtp-brevo.com")
NOBODY = "a.test/A@127.0.0.1:1 b.test/A@127.0.0.1:1"  # who tells the line's address; else the Internet is asked
OUR_ZONES = ("mana.how", "mana.test")  # the second one for tests that need one
ZONES = (*OUR_ZONES, "elsewhere.example")
# What `docker compose` is to the program. It is started several times by every command, so it imports next to nothing.
CLIENT = """\
#!{python} -IS
import _socket, os, sys
c = _socket.socket(_socket.AF_UNIX)
c.connect({socket!r})
call = {{"program": "compose", "argv": sys.argv[1:], "environ": dict(os.environ), "cwd": os.getcwd()}}
data = ascii({{**call, "control": {control!r}}}).encode() + b"\\n"
streams = b"".join(number.to_bytes(4, sys.byteorder) for number in range(3))
sent = c.sendmsg([data[:60000]], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, streams)])
if data[sent:]:  # else the answer may be there already, and the socket closed
    c.sendall(data[sent:])
answer = b""
while answer.count(b"\\n") < 2 and (more := c.recv(100)):
    answer += more
lines = answer.split()
code = int(lines[1]) if len(lines) > 1 else 1
sys.exit(code if code >= 0 else 128 - code)
"""
# What is ours in Stalwart's settings: the words and keys that the example declares, and our note of what is due.
OURS = re.compile(
    r"lookup\.default\.hostname|server\.allowed-ip\.172\.18\.0\.0/16|server\.auto-ban\.scan\.rate"
    r"|report\.domain|server\.listener\.(submission|extra)\..*|signature\..*|auth\.dkim\.sign.*|.*reconciler.*"
)
HASH = "$6$rounds=5000$foreign$" + "x" * 86


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return self.out + self.err

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True, slots=True)
class FastProject(Project):
    """A project whose `docker compose` is a fork of a process that has everything imported."""

    client: str = ""

    @property
    def program(self) -> str:
        return self.client


# ------------------------------------------------------------------------------------------------------- the zygote
class Zygote:
    """Starts programs as forks. ``control`` is asked by every call of Compose before it does anything."""

    def __init__(self, folder: Path) -> None:
        self.socket = str(folder / "zygote")
        self.client = folder / "docker-compose"
        self.calls: list[dict[str, Any]] = []
        self.order: Callable[[list[str]], Mapping[str, Any]]
        self.forget()
        self.control = Server(self._answer).start()
        compose = f"{self.socket}-compose"
        self.client.write_text(CLIENT.format(python=sys.executable, socket=compose, control=self.control.url))
        self.client.chmod(0o755)
        self._processes = [self._begin(self.socket, "reconciler"), self._begin(compose, "compose")]
        wait_for(lambda: all(map(self._listens, (self.socket, compose))))

    @staticmethod
    def _begin(path: str, program: str) -> subprocess.Popen[bytes]:
        environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        command = [sys.executable, str(TESTS / "e2e" / "zygote.py"), path, program]
        return subprocess.Popen(command, env=environment | {"PYTHONPATH": str(TESTS.parent), "LANG": "C.UTF-8"})

    def _listens(self, path: str) -> bool:
        assert all(process.poll() is None for process in self._processes), "the zygote died"
        with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
            probe.settimeout(5)
            probe.connect(path)
            return True
        return False

    def _answer(self, request: Request) -> Reply:
        told = request.json()
        self.calls.append(told)
        return Reply.of(dict(self.order(told["argv"])))

    def forget(self) -> None:
        """Be as new: no call was made, and Compose does what it does."""
        self.calls.clear()
        self.order = lambda _argv: {}

    def start(self, call: Mapping[str, Any]) -> Running:
        return Running(self.socket, call)

    def run(self, argv: Sequence[str], cwd: Path, environ: Mapping[str, str]) -> Done:
        """Run the program to its end."""
        call = {"program": "reconciler", "argv": list(argv), "environ": dict(environ), "cwd": str(cwd)}
        return self.start(call).wait()

    @staticmethod
    def kill(pid: int) -> None:
        """Kill a process that a call has announced."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        for process in self._processes:
            process.terminate()
            process.wait()
        self.control.stop()


class Running:
    """A command that runs."""

    def __init__(self, path: str, call: Mapping[str, Any]) -> None:
        self._files = [tempfile.TemporaryFile() for _ in range(2)]  # noqa: SIM115 (closed by `wait`)
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        with Path(os.devnull).open("rb") as nothing:
            data = ascii(call).encode() + b"\n"
            descriptors = [nothing.fileno(), *(file.fileno() for file in self._files)]
            sent = socket.send_fds(self._socket, [data[:60000]], descriptors)
            if data[sent:]:
                self._socket.sendall(data[sent:])
        self._lines = self._socket.makefile()
        self.pid = int(self._lines.readline())

    def kill(self, number: int = signal.SIGKILL) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def errors(self) -> str:
        return os.pread(self._files[1].fileno(), 1 << 20, 0).decode()

    def wait(self, seconds: float = 120) -> Done:
        self._socket.settimeout(seconds)
        try:
            code = int(self._lines.readline())
        finally:
            self.kill()
            self._lines.close()
            self._socket.close()
        texts = []
        for file in self._files:
            file.seek(0)
            texts.append(file.read().decode())
            file.close()
        return Done(code, *texts)


def wait_for(holds: Callable[[], Any], seconds: float = 60) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


# --------------------------------------------------------------------------------------------------------- the wire
@dataclass(slots=True)
class Tape:
    """All writes of all systems in the order in which they arrived, and what is to happen at some of them.

    ``at`` maps a number to a callable that is given the work as a callable and returns the answer. ``watch`` looks at
    the world before and after each of them.
    """

    writes: list[str] = field(default_factory=list)
    at: dict[int, Callable[[Callable[[], Reply]], Reply]] = field(default_factory=dict)
    watch: Callable[[str], None] = lambda _when: None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def forget(self) -> None:
        self.writes.clear()
        self.at.clear()

    def tap(self, name: str, fake: Callable[[Request], Reply]) -> Callable[[Request], Reply]:
        def tapped(request: Request) -> Reply:
            if not _writes(request):
                return fake(request)
            with self.lock:
                number = len(self.writes)
                self.writes.append(f"{name} {request.method} {request.path}")
            act, what = self.at.get(number), self.writes[number]
            self.watch(f"before {what}")
            try:
                return act(lambda: fake(request)) if act else fake(request)
            finally:
                self.watch(f"after {what}")

        return tapped


def _writes(request: Request) -> bool:
    if request.path.endswith("/api/oauth"):
        return False
    if request.path.rstrip("/") == "/jmap":
        return b'/set"' in request.body
    return request.method not in ("GET", "HEAD", "OPTIONS") or request.path.startswith("/api/reload")


# -------------------------------------------------------------------------------------------------------- the stack
class Stack:
    """The example on the stage, and the commands of a user who stands in its directory."""

    def __init__(self, folder: Path, zygote: Zygote, generation: Generation = "rest") -> None:
        self.folder = folder
        self.generation = generation
        self.scratch = folder / "tmp"
        self.scratch.mkdir()
        self.zygote = zygote
        self.example = examples.copy(TESTS / "example", folder / "stack")
        if generation == "jmap":
            jmapstage.declare(self.example)
        project = FastProject(self.example.compose_file, self.example.env_file, str(self.zygote.client))
        self.stage = Stage(
            ZONES,
            project,
            token=self.example.secrets["CLOUDFLARE_API_TOKEN"],
            brevo_key=self.example.secrets["BREVO_API_KEY"],
            admin_password=self.example.secrets["STALWART_ADMIN_PASSWORD"] if generation == "rest" else "",
            generation=generation,
        )
        host, port, username = BREVO
        self.stage.relay(host, port, username, self.example.secrets["BREVO_SMTP_KEY"])
        self.stage.trust(self.example.path / "relay.pem", host)
        self.tape = Tape()
        for name, server in zip(("stalwart", "cloudflare", "docker", "brevo"), self.stage.servers, strict=True):
            server.fake = self.tape.tap(name, server.fake)
        _with_health_checks(self.example)
        _strangers_on_disk(self.example)
        self.stage.start()
        _strangers(self.stage)
        self.env: dict[str, str] = {}
        self.bare = Snapshot.of(self)  # of a new server: from 0.16 that is bootstrap mode
        if generation == "jmap":
            jmapstage.server(self.stage).wipe_data()  # config.json is there
            self.stage._publish_ports()
        self._strangers_at_stalwart()
        self.first = Snapshot.of(self)
        self.applied: Snapshot | None = None
        self.watch: Watch

    # ------------------------------------------------------------------------------------------------ as a user does
    def environ(self, *, drop: tuple[str, ...] = (), **more: str) -> dict[str, str]:
        base = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.example.path),
            "LANG": "C.UTF-8",
            "TMPDIR": str(self.scratch),
            "SSL_CERT_FILE": str(self.example.path / "relay.pem"),
            "RECONCILER_WHOAMI": NOBODY,
            **self.example.secrets,
            **self.stage.environment,
            **self.env,
            **more,
        }
        return {name: value for name, value in base.items() if name not in drop}

    def start(self, *argv: str, drop: tuple[str, ...] = (), bug: str = "", trace: str = "", **env: str) -> Running:
        call = {"program": "reconciler", "argv": list(argv), "environ": self.environ(drop=drop, **env)}
        return self.zygote.start({**call, "cwd": str(self.example.path), "bug": bug, "trace": trace})

    def run(self, *argv: str, **options: Any) -> Done:
        done = self.start(*argv, **options).wait()
        assert "Exception ignored" not in done.err, done.err
        return done

    def expect(self, code: int, *argv: str, **options: Any) -> Done:
        done = self.run(*argv, **options)
        assert done.code == code, f"{argv} ended with {done.code}:\n{done.text}"
        return done

    def edit(self, name: str, old: str, new: str) -> None:
        self.example.edit(f"desired-state/{name}", old, new)

    def write(self, name: str, text: str) -> Path:
        path = self.example.state / name
        path.write_text(text, encoding="utf-8")
        return path

    def changes(self, *argv: str) -> dict[str, dict[str, Any]]:
        """Plan, and return the changes by address."""
        return {item["address"]: item for item in self.run("plan", "--output", "json", *argv).json["changes"]}

    # ------------------------------------------------------------------------------------------------ what is there
    @property
    def data(self) -> Path:
        return self.example.path / ".reconciler"

    @property
    def secrets(self) -> dict[str, str]:
        return self.example.secrets

    @property
    def rest(self) -> StalwartRest:
        assert isinstance(self.stage.stalwart, StalwartRest)
        return self.stage.stalwart

    @property
    def jmap(self) -> StalwartJmap:
        return jmapstage.server(self.stage)

    def principal(self, name: str) -> Any:
        """Return what the server keeps of a login of 0.15, or of an address of 0.16."""
        if self.generation == "jmap":
            return jmapstage.account(self.stage, name)
        return self.rest.directory.find(name)

    def settings(self) -> dict[str, str]:
        return self.rest.settings.merged()

    def _strangers_at_stalwart(self) -> None:
        if self.generation == "jmap":
            jmapstage.strangers(self.stage, HASH)
        else:
            _strangers_at_stalwart(self.rest)

    def foreign(self) -> Any:
        """Return everything at the mail server that is not ours."""
        if self.generation == "jmap":
            return jmapstage.foreign(self.stage)
        return {"principals": _foreign_principals(self), **_foreign_settings(self)}

    def records(self, zone: str = "mana.how") -> list[dict[str, Any]]:
        return self.stage.cloudflare.records(zone)

    def ours(self, zone: str = "mana.how") -> dict[tuple[str, str], dict[str, Any]]:
        """Return our records by type and name."""
        return {(item["type"], item["name"].removesuffix(zone).rstrip(".") or "@"): item for item in self.marked(zone)}

    def marked(self, zone: str = "mana.how") -> list[dict[str, Any]]:
        """Return all our records; some share type and name."""
        return [item for item in self.records(zone) if re.search(r"(^|\s)reconciler:mana$", item["comment"] or "")]

    def be(self, day: dt.date) -> None:
        """Let the commands from now on take this day for today."""
        self.env |= {"RECONCILER_TODAY": day.isoformat(), "RECONCILER_DRY_RUN": "no"}

    def container(self, name: str) -> Any:
        return self.stage.docker.named(name)

    def ids(self) -> dict[str, str]:
        return {item.name: item.id for item in self.stage.docker.containers.values()}

    def writes(self) -> list[str]:
        return list(self.tape.writes)

    def fault(self, system: str, **fault: Any) -> Fault:
        made = Fault(**fault)
        {"stalwart": self.stage.stalwart_server, "cloudflare": self.stage.cloudflare_server}.get(
            system, self.stage.docker_server
        ).faults.append(made)
        return made

    def everything(self) -> dict[str, Any]:
        """Return the state of all systems and files as it is, times and ids too."""
        return {
            "stalwart": {name: value for name, value in self.stage.stalwart.dump().items() if name != "counts"},
            "cloudflare": self.stage.cloudflare.dump(),
            "docker": _containers(self.stage),
            "env": self.example.env_file.read_bytes(),
        }

    def meaning(self) -> dict[str, Any]:
        """Return the state of all systems without what every run chooses anew: salts, ids and times."""
        known = list(self.secrets.items())
        chosen = ("id", "created_on", "modified_on", "comment_modified_on", "tags_modified_on")
        return {
            **(jmapstage.meaning(self.stage, known) if self.generation == "jmap" else _meaning(self.rest, known)),
            "records": sorted(
                json.dumps({key: value for key, value in item.items() if key not in chosen}, sort_keys=True)
                for zone in ZONES
                for item in self.records(zone)
            ),
            "containers": sorted(
                (_lasting(item.name), item.running, sorted(item.environment.items()))
                for item in self.stage.docker.containers.values()
            ),
            "env": self.example.env_file.read_text(),
        }

    def close(self) -> None:
        self.stage.stop()


def _meaning(rest: StalwartRest, known: list[tuple[str, str]]) -> dict[str, Any]:
    server = rest.dump()
    principals = []
    for item in server["directory"]["principals"]:
        stored = item.get("password")
        word = next((name for name, value in known if stored and stored != HASH and verify(stored, value)), stored)
        principals.append({**item, "id": 0, "password": word})
    return {
        "principals": sorted(principals, key=lambda item: str(item["name"])),
        "settings": {**server["file"], **server["database"]},
        "running": server["running"],
        "listeners": server["listeners"],
        "signing": sorted(rest.signing()),
    }


# ---------------------------------------------------------------------------------------------- what is not ours
def _strangers(stage: Stage) -> None:
    """Put things of other people beside ours in every system."""
    cloud = stage.cloudflare
    texts = [
        ("TXT", "site", "google-site-verification=abc", "do not touch"),
        ("A", "www", "192.0.2.80", None),
        ("A", "shop", "192.0.2.81", "reconciler:other"),
        ("TXT", "note", "one", "about reconciler:mana and more"),
        ("TXT", "note2", "two", "xreconciler:mana"),
        ("TXT", "note3", "three", "reconciler:mana2"),
        ("CNAME", "old", "elsewhere.example", ""),
        ("TXT", "old-selector._domainkey", "v=DKIM1; k=rsa; p=MIIB", "mailing service"),
    ]
    for kind, name, content, comment in texts:
        cloud.add("mana.how", type=kind, name=name, content=content, comment=comment)
    cloud.add("mana.how", type="TXT", name="routed", content="cloudflare's own", meta={"read_only": True})
    cloud.add("elsewhere.example", type="A", name="@", content="192.0.2.9", comment="reconciler:mana")
    stage.docker.run("stranger", "stranger:1", env={"SMTP_PASSWORD": "strangers-own"})
    stage.docker.volumes["strangers-volume"] = {}


def _strangers_at_stalwart(server: StalwartRest) -> None:
    app = "$app$phone$" + HASH
    for body in (
        {"type": "domain", "name": "other.example"},
        {"type": "group", "name": "crew", "emails": ["crew@other.example"]},
        {
            "type": "individual",
            "name": "stranger",
            "secrets": [HASH, app],
            "emails": ["stranger@other.example"],
            "memberOf": ["crew"],
            "roles": ["user"],
        },
        {"type": "apiKey", "name": "robot", "secrets": [HASH], "roles": ["admin"]},
        {"type": "list", "name": "friends", "emails": ["friends@other.example"], "externalMembers": ["a@b.example"]},
    ):
        server.directory.create({"description": "not ours", **body}, ADMIN_PERMISSIONS)
    server.settings.insert(
        {
            "server.blocked-ip.203.0.113.9": "",
            "server.allowed-ip.198.51.100.0/24": "",
            "queue.schedule.strangers.retry.0": "1m",
            "tracer.stranger.level": "info",
        }
    )
    server.restart()


def _with_health_checks(example: examples.Example) -> None:
    """Give the consumers a health check: what comes up without one is watched for seconds."""
    check = '    healthcheck: {test: ["CMD", "true"], interval: 120s}\n'
    text = example.compose_file.read_text()
    example.compose_file.write_text(re.sub(r"(?m)^(  mana-(?:auth|notify):\n)", rf"\1{check}", text))


def _strangers_on_disk(example: examples.Example) -> None:
    text = example.env_file.read_text() + "\n# a stranger's notes\nSTRANGER='a $b \"c'\n\n  export SPACED = 1\n"
    example.env_file.write_text(text)
    (example.path / ".env").write_text("NOT=ours\n")
    (example.path / ".env.macmini.bak").write_text("SMTP_PASSWORD=older\n")
    (example.path / "notes.txt").write_text("a neighbour\n")
    for path in example.path.iterdir():
        os.utime(path, ns=(10**18, 10**18))


class Watch:
    """What is not ours, as it was when a test began."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.marks = {item["id"]: item for zone in ZONES for item in stack.records(zone)}
        ours = self._ours()
        self.records = {key: item for key, item in self.marks.items() if key not in ours}
        self.stalwart = stack.foreign()
        self.docker = _containers(stack.stage)
        self.files = {path: _stat(path) for path in stack.example.path.iterdir() if path.is_file() and _foreign(path)}
        self.env = _without_block(stack.example.env_file.read_bytes())
        self.touched: set[str] = {"mana-core-notify"}
        if stack.generation == "jmap":  # the listener 587 needs its restart
            self.touched.add("mana-mail")
        self.adopted: set[str] = set()
        self.server_lost = False

    def _ours(self) -> set[str]:
        return {item["id"] for zone in OUR_ZONES for item in self.stack.marked(zone)}

    def check(self) -> None:
        stack = self.stack
        now = {item["id"]: item for zone in ZONES for item in stack.records(zone)}
        for key, item in self.records.items():
            assert key in self.adopted or now.get(key) == item, item
        ours = self._ours()
        assert {key for key in now if key not in ours} <= {*self.records, *self.adopted}, "a record without our mark"
        if not self.server_lost:
            former, found = self.stalwart, stack.foreign()
            assert {key: (former.get(key), found.get(key)) for key in {*former, *found}} == {
                key: (value, value) for key, value in former.items()
            }
        for name, item in _containers(stack.stage).items():
            assert name in self.touched or item == self.docker[name], name
        assert {path: _stat(path) for path in self.files} == self.files
        assert _without_block(stack.example.env_file.read_bytes()) == self.env
        for server in stack.stage.servers:
            assert server.crashes == []


def _foreign(path: Path) -> bool:
    return path.name not in ("docker-compose.macmini.yml", ".env.macmini")


def _stat(path: Path) -> tuple[bytes, int, int, int]:
    info = path.stat()
    return path.read_bytes(), info.st_mtime_ns, stat.S_IMODE(info.st_mode), info.st_ino


def _without_block(content: bytes) -> bytes:
    return re.sub(rb"(?ms)^# >>> reconciler mana.*?^# <<< reconciler mana[^\n]*\n", b"", content).rstrip(b"\n")


OUR_LOGINS = ("admin", "noreply", "postmaster", *OUR_ZONES, "robot2", "sender", "helper")


def _foreign_principals(stack: Stack) -> list[dict[str, Any]]:
    principals = stack.rest.directory.dump()["principals"]
    addresses = tuple(f"@{zone}" for zone in OUR_ZONES)
    return [
        item
        for item in principals
        if item["name"] not in OUR_LOGINS and not str(next(iter(item.get("emails", ())), "")).endswith(addresses)
    ]


def _foreign_settings(stack: Stack) -> dict[str, str]:
    server = stack.rest.dump()
    merged = {**server["file"], **{f"db:{key}": value for key, value in server["database"].items()}}
    return {key: value for key, value in merged.items() if not OURS.fullmatch(key.removeprefix("db:"))}


def _lasting(name: str) -> str:
    """Take off what Compose puts before the name of a container it recreates; a kill leaves it (semantics.md 6)."""
    return re.sub("^[0-9a-f]{12}_", "", name)


def _containers(stage: Stage) -> dict[str, Any]:
    found = {}
    for item in stage.docker.containers.values():
        host = {key: value for key, value in item.host.items() if key != "PortBindings"}  # the stage sets real ports
        fields = ("id", "config", "mounts", "created", "started", "finished", "running", "logs")
        found[_lasting(item.name)] = {name: copy.deepcopy(getattr(item, name)) for name in fields} | {"host": host}
    return found


# --------------------------------------------------------------------------------------------------- going back
@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything as it was at one moment."""

    docker: dict[str, Any]
    stalwart: Any
    cloudflare: Any
    container: str
    environment: dict[str, str]
    files: Path

    @classmethod
    def of(cls, stack: Stack) -> Snapshot:
        files = Path(tempfile.mkdtemp(dir=stack.folder)) / "files"
        shutil.copytree(stack.example.path, files, symlinks=True)
        stage = stack.stage
        return cls(
            copy.deepcopy({name: getattr(stage.docker, name) for name in _ENGINE}),
            copy.deepcopy(stage.stalwart.dump()),
            stage.cloudflare.dump(),
            stage._container,
            dict(stage.stalwart.environment),
            files,
        )

    def restore(self, stack: Stack) -> None:
        stage = stack.stage
        for name, value in copy.deepcopy(self.docker).items():
            setattr(stage.docker, name, value)
        stage.docker.behaviours.clear()
        stage._container = self.container
        stage.stalwart.environment = dict(self.environment)
        if isinstance(stage.stalwart, StalwartRest):
            stage.stalwart.settings.read_only = False
        else:
            stage.stalwart.no_dns = False
        stage.stalwart.load(self.stalwart)
        bans = stage.stalwart.bans if isinstance(stage.stalwart, StalwartRest) else stage.stalwart.blocks
        bans.counts.clear()
        stage.cloudflare.load(self.cloudflare)
        stage.dns.reset()
        stage._publish_ports()
        for server in stage.servers:
            server.faults.clear()
            server.crashes.clear()
            server.latency = 0
            server.forget()
        stack.tape.forget()
        stack.env.clear()
        stack.zygote.forget()
        _same_tree(self.files, stack.example.path)
        for path in stack.scratch.iterdir():  # a run that was killed leaves a folder here
            shutil.rmtree(path) if path.is_dir() else path.unlink()


_ENGINE = ("containers", "images", "networks", "volumes", "_execs", "_serial", "_bridges")


def _same_tree(source: Path, target: Path) -> None:
    """Make a tree as another one is, and leave alone what is equal already."""
    for path in sorted(target.rglob("*"), reverse=True):
        twin = source / path.relative_to(target)
        if path.is_symlink() or not twin.exists():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    for twin in sorted(source.rglob("*")):
        path = target / twin.relative_to(source)
        if twin.is_dir():
            path.mkdir(exist_ok=True)
        elif not path.exists() or path.read_bytes() != twin.read_bytes() or path.stat().st_mode != twin.stat().st_mode:
            path.unlink(missing_ok=True)
            shutil.copy2(twin, path)
        path.chmod(stat.S_IMODE(twin.stat().st_mode))


@contextlib.contextmanager
def _theatre(zygote: Zygote, generation: Generation) -> Iterator[Stack]:
    with tempfile.TemporaryDirectory(prefix="e2e-") as folder:
        stack = Stack(Path(folder), zygote, generation)
        try:
            yield stack
        finally:
            stack.close()


@contextlib.contextmanager
def _played(stack: Stack, start: Snapshot) -> Iterator[Stack]:
    """Begin as it was at some moment, and see afterwards that what is not ours is as it was."""
    start.restore(stack)
    stack.watch = Watch(stack)
    yield stack
    stack.watch.check()


def _applied(stack: Stack) -> Snapshot:
    if stack.applied is None:
        stack.first.restore(stack)
        stack.expect(0, "apply", "--yes")
        stack.applied = Snapshot.of(stack)
    return stack.applied


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    """Starts the program within milliseconds: it has all imports. All tests of a process share it."""
    with tempfile.TemporaryDirectory(prefix="e2e-") as folder:  # short: a Unix socket's path has 100 characters
        zygote = Zygote(Path(folder))
        try:
            yield zygote
        finally:
            zygote.close()


@pytest.fixture(scope="session")
def theatre(zygote: Zygote) -> Iterator[Stack]:
    """The stage that all tests of a process share."""
    with _theatre(zygote, "rest") as stack:
        yield stack


@pytest.fixture(scope="session")
def newer_theatre(zygote: Zygote) -> Iterator[Stack]:
    """The same with a mail server from 0.16."""
    with _theatre(zygote, "jmap") as stack:
        yield stack


@pytest.fixture
def stack(theatre: Stack) -> Iterator[Stack]:
    """The example before its first apply: Stalwart holds nothing of ours, the zone only other people's records."""
    with _played(theatre, theatre.first) as stack:
        yield stack


@pytest.fixture
def applied(theatre: Stack) -> Iterator[Stack]:
    """The example after its first apply."""
    with _played(theatre, _applied(theatre)) as stack:
        yield stack


@pytest.fixture
def newer(newer_theatre: Stack) -> Iterator[Stack]:
    """The example before its first apply to a 0.16 that has its config.json, and nothing of ours."""
    with _played(newer_theatre, newer_theatre.first) as stack:
        yield stack


@pytest.fixture
def newer_applied(newer_theatre: Stack) -> Iterator[Stack]:
    """The example after its first apply to a 0.16."""
    with _played(newer_theatre, _applied(newer_theatre)) as stack:
        yield stack


@pytest.fixture
def bare(newer_theatre: Stack) -> Iterator[Stack]:
    """The example before its first apply to a 0.16 in bootstrap mode: there is no config.json, and no data."""
    with _played(newer_theatre, newer_theatre.bare) as stack:
        stack.watch.server_lost = True
        yield stack
