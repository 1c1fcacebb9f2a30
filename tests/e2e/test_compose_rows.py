"""Compose as people run it, on a real engine with each real Compose: one test for each row of the cases from the field.

Each ends with the question whether anything is worse than before: every other container is the same one, running since
the same moment, and every byte of the env file that is not ours is as it was.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import pytest

from reconciler.plan import Desired, diff
from reconciler.problem import Severity
from reconciler.resources import Observation, Secret, SecretRef, Variable
from reconciler.simulator.docker import Docker
from reconciler.simulator.wire import Server
from reconciler.target import Change, Outcome, Status
from reconciler.targets.compose import Compose, Patience

pytestmark = [pytest.mark.xdist_group("engine"), pytest.mark.long]

PROGRAMS = [item for item in os.environ.get("RECONCILER_REAL_COMPOSE", "").split(os.pathsep) if item]
STAND_IN = "stand-in"  # the simulator's Compose on the simulator's engine, held to the same rows
BASE = """\
services:
  app:
    image: {image}
    init: true
    stop_grace_period: 1s
    command: [sleep, "1000"]
    environment:
      SMTP_HOST: ${{SMTP_HOST}}
      SMTP_PASSWORD: ${{SMTP_PASSWORD}}
  web:
    image: {image}
    init: true
    stop_grace_period: 1s
    command: [sleep, "1000"]
"""
CRASHES = Patience(ready=3, settle=2, pause=0.1)
"""For what ends soon after its start, on a machine that may be busy."""
ENV = "# mine\nSMTP_HOST=old\nSMTP_PASSWORD=oldpw\n"
NEW = "n$w \"pass'word\\"
NO_COMPOSE = "no real Docker Compose: RECONCILER_REAL_COMPOSE names none"


def reveal(_: Secret) -> str:
    return NEW


def wanted(name: str, value: Any, service: str = "app") -> Variable:
    return Variable(service, name, value, value)


HOST, PASSWORD = wanted("SMTP_HOST", "new"), wanted("SMTP_PASSWORD", SecretRef("env", "NEW"))
BOTH = (HOST, PASSWORD)


@dataclass
class Stack:
    """A project in a folder, and how we are told of it (``options``)."""

    folder: Path
    name: str
    engine: docker.DockerClient
    program: str
    host: str
    image: str
    fake: Docker | None = None
    options: dict[str, Any] = field(default_factory=dict)
    patience: Patience = field(default=Patience(ready=3, settle=0.3, pause=0.1))
    progress: list[str] = field(default_factory=list)

    @property
    def file(self) -> Path:
        return self.folder / "compose.yml"

    @property
    def env_file(self) -> Path:
        return self.folder / ".env"

    def edit(self, before: str, after: str) -> None:
        text = self.file.read_text()
        assert before in text
        self.file.write_text(text.replace(before, after, 1))

    def run(self, *arguments: str, env: Mapping[str, str] | None = None, folder: Path | None = None) -> str:
        """Call Compose as a person does, in the project's folder."""
        kept = {key: os.environ[key] for key in ("PATH", "HOME", "PYTHONPATH") if key in os.environ}
        kept |= {"DOCKER_HOST": self.host} if self.host else {}
        done = subprocess.run(
            [self.program, *arguments],
            cwd=folder or self.folder,
            env={**kept, **(env or {})},
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def up(self, *arguments: str, env: Mapping[str, str] | None = None) -> None:
        self.run("-p", self.name, "up", "-d", "--pull", "never", *arguments, env=env)

    def target(self, **options: Any) -> Compose:
        usual: dict[str, Any] = {
            "file": self.file,
            "env_file": self.env_file,
            "project": self.name,
            "stack": "rows",
            "program": (self.program,),
            "docker_host": self.host or None,
            "patience": self.patience,
            "progress": self.progress.append,
            "public": ("old", "new"),
        }
        return Compose(**{**usual, **self.options, **options})

    def plan(self, *variables: Variable, **options: Any) -> tuple[Observation, tuple[Change, ...]]:
        seen = self.target(**options).observe(variables, reveal)
        return seen, diff(Desired(variables), {"compose": seen}, stack="rows").changes

    def apply(self, *variables: Variable, **options: Any) -> list[Outcome]:
        """Apply what a plan shows, which nothing forbids; then a second plan is empty."""
        seen, changes = self.plan(*variables, **options)
        assert refusals(seen) == []
        outcomes = list(self.target(**options).apply(changes, reveal))
        if all(item.status is Status.DONE for item in outcomes):
            seen, left = self.plan(*variables, **options)
            assert (left, refusals(seen)) == ((), [])
        return outcomes

    def refused(self, *variables: Variable, **options: Any) -> str:
        """Return why a plan is refused; an apply of it changes nothing at all."""
        before = self.everything()
        seen, changes = self.plan(*variables, **options)
        (said,) = refusals(seen)
        assert {item.status for item in self.target(**options).apply(changes, reveal)} <= {Status.FAILED}
        assert self.everything() == before
        assert_silent(said)
        return said

    # -------------------------------------------------------------------------------------------------- what there is
    def containers(self) -> list[Any]:
        label = f"com.docker.compose.project={self.name}"
        return [item.attrs for item in self.engine.containers.list(all=True, filters={"label": label})]

    def of(self, service: str) -> list[Any]:
        found = [it for it in self.containers() if it["Config"]["Labels"]["com.docker.compose.service"] == service]
        return sorted(found, key=lambda item: item["Name"])

    def environment(self, service: str = "app") -> dict[str, str]:
        return dict(entry.partition("=")[::2] for entry in self.of(service)[0]["Config"]["Env"])

    def lives(self, *but: str) -> dict[str, tuple[str, str, str]]:
        """Return id, state and start of each container but those of some services."""
        return {
            item["Name"]: (item["Id"], item["State"]["Status"], item["State"]["StartedAt"])
            for item in self.containers()
            if item["Config"]["Labels"]["com.docker.compose.service"] not in but
        }

    def everything(self) -> tuple[Any, ...]:
        networks = self.engine.api.networks(filters={"label": f"com.docker.compose.project={self.name}"})
        files = {path.name: path.read_bytes() for path in sorted(self.folder.iterdir()) if path.is_file()}
        return self.lives(), sorted(item["Id"] for item in networks), files

    def configuration(self, service: str = "app") -> list[tuple[Any, ...]]:
        """Return what makes a service's containers what they are."""
        return [
            (
                item["Name"],
                item["Image"],
                {key: value for key, value in item["Config"].items() if key not in ("Hostname", "Image", "Env")},
                sorted(item["Config"]["Env"] or ()),  # Compose gives them in any order
                item["HostConfig"]["RestartPolicy"],
                item["State"]["Running"],
                {
                    name: sorted(set(network["Aliases"] or ()) - {item["Id"][:12]})
                    for name, network in item["NetworkSettings"]["Networks"].items()
                },
            )
            for item in self.of(service)
        ]

    def inside(self, *command: str) -> str:
        """Return what a program prints that runs in the container of ``app``."""
        key = self.engine.api.exec_create(self.of("app")[0]["Id"], list(command))["Id"]
        return str(self.engine.api.exec_start(key).decode())

    def not_ours(self) -> str:
        text = self.env_file.read_text()
        return re.sub(r"^# >>> reconciler rows.*?^# <<< reconciler rows\n", "", text, flags=re.DOTALL | re.MULTILINE)


def refusals(seen: Observation) -> list[str]:
    return [str(item) for item in seen.problems if item.severity is not Severity.WARNING]


def warnings(seen: Observation) -> str:
    return "\n".join(str(item) for item in seen.problems if item.severity is Severity.WARNING)


def problem(outcomes: list[Outcome]) -> str:
    assert {item.status for item in outcomes} == {Status.FAILED}
    assert_silent(outcomes)
    return str(outcomes[0].problem)


def assert_silent(*said: object) -> None:
    text = repr(said)
    assert "oldpw" not in text
    assert NEW not in text


@contextlib.contextmanager
def simulated(folder: Path) -> Iterator[tuple[docker.DockerClient, str, str, Docker]]:
    """A client of an engine that runs no process, a Compose, the engine's address, and that engine."""
    fake, program = Docker(), folder / STAND_IN
    fake.add_image("small:local", Env=["PATH=/bin"])
    command = f'PYTHONPATH="{Path(__file__).parents[2]}" exec "{sys.executable}" -m reconciler.simulator.compose'
    program.write_text(f'#!/bin/sh\n{command} "$@"\n')
    program.chmod(0o755)
    with Server(fake) as server:
        host = server.url.replace("http://", "tcp://")
        with contextlib.closing(docker.DockerClient(base_url=host)) as client:
            yield client, str(program), host, fake
        assert server.crashes == []


def tagged(engine: docker.DockerClient, image: str) -> str:
    """Give the image a name that nobody else moves to another one."""
    name = f"rows{uuid.uuid4().hex[:8]}"
    engine.api.tag(image, name, "1")
    return f"{name}:1"


def named(program: str | None) -> str:
    return Path(program).name if program else "none"


processes = pytest.mark.parametrize("stack", PROGRAMS or [None], indirect=True, ids=named)
"""For rows that need processes in their containers."""


@pytest.fixture(params=[*(PROGRAMS or [None]), STAND_IN], ids=named)
def stack(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stack]:
    with contextlib.ExitStack() as context:
        if request.param is None:
            pytest.skip(NO_COMPOSE)
        if request.param == STAND_IN:
            engine, program, host, fake = context.enter_context(simulated(tmp_path))
            image = "small:local"
        else:
            engine, image = (request.getfixturevalue(name) for name in ("engine", "small_image"))
            program, host, fake = request.param, os.environ.get("DOCKER_HOST", ""), None
            image = tagged(engine, image)
        made = Stack(tmp_path / "project", f"rows{uuid.uuid4().hex[:8]}", engine, program, host, image, fake)
        yield from _lived_in(made)


def _lived_in(made: Stack) -> Iterator[Stack]:
    made.folder.mkdir()
    made.file.write_text(BASE.format(image=made.image))
    made.env_file.write_text(ENV)
    made.env_file.chmod(0o600)
    try:
        yield made
    finally:
        for item in made.containers():
            made.engine.api.remove_container(item["Id"], force=True, v=True)
        for item in made.engine.api.networks(filters={"label": f"com.docker.compose.project={made.name}"}):
            made.engine.api.remove_network(item["Id"])
        with contextlib.suppress(docker.errors.APIError):
            made.engine.api.remove_image(f"{made.name}:2", force=True)
        if made.fake is None:
            made.engine.api.remove_image(made.image, force=True)


def another_image(stack: Stack) -> str:
    """Give the image a second name with another id."""
    name = f"{stack.name}:2"
    if stack.fake is not None:
        stack.fake.add_image(name, Env=["PATH=/bin"], Labels={"two": "2"})
        return name
    made = stack.engine.containers.create(stack.image, ["sleep", "1"])
    try:
        made.commit(stack.name, "2", changes="LABEL two=2")
    finally:
        made.remove()
    return name


# ---------------------------------------------------------------------------------------------- A. what rides along
def test_a_switch_changes_one_service(stack: Stack) -> None:
    """The base of every row, and back again."""
    stack.up()
    before = stack.lives("app")
    assert {item.status for item in stack.apply(*BOTH)} == {Status.DONE}
    assert (stack.environment()["SMTP_HOST"], stack.environment()["SMTP_PASSWORD"]) == ("new", NEW)
    assert stack.lives("app") == before
    assert stack.not_ours() == ENV
    assert "recreating" not in stack.env_file.read_text()


def test_c1_another_env_file_than_the_declared_one(stack: Stack) -> None:
    second = stack.folder / "second.env"
    second.write_text("LEVEL=debug\n")
    stack.edit("    environment:\n", "    environment:\n      LEVEL: ${LEVEL:-}\n")
    stack.run("-p", stack.name, "--env-file", ".env", "--env-file", "second.env", "up", "-d", "--pull", "never")
    said = stack.refused(*BOTH)
    assert f"env_file: [{stack.env_file}, {second}]" in said
    stack.options["env_file"] = [stack.env_file, second]  # the remedy, carried out
    before = stack.lives("app")
    assert {item.status for item in stack.apply(*BOTH)} == {Status.DONE}
    assert stack.environment()["LEVEL"] == "debug"
    assert (stack.env_file.read_text(), stack.lives("app")) == (ENV, before)
    assert second.read_text().startswith("LEVEL=debug\n# >>> reconciler rows")


def test_c1_variables_of_the_shell_and_of_a_secret_injector(stack: Stack) -> None:
    stack.edit(stack.image, "${IMAGE:-" + stack.image + "}")
    stack.edit("    environment:\n", "    environment:\n      API_KEY: ${API_KEY}\n")
    stack.env_file.write_text(ENV + "API_KEY=op://vault/item\n")
    stack.up(env={"IMAGE": another_image(stack), "API_KEY": "live-key"})
    said = stack.refused(*BOTH)
    assert "its image, environment API_KEY is not as the compose files say" in said
    assert "--with-service-changes" in said
    assert "live-key" not in said
    assert "op://" not in said


def test_c2_a_change_of_the_compose_file_that_was_not_applied(stack: Stack) -> None:
    stack.up()
    stack.edit(stack.image, another_image(stack))
    stack.edit('command: [sleep, "1000"]', 'command: [sleep, "999"]')
    assert "image, command" in stack.refused(*BOTH)
    before = stack.lives("app")
    seen, _ = stack.plan(*BOTH, with_service_changes=True)
    assert "its image, command is not as the compose files say, and is changed with it" in warnings(seen)
    outcomes = stack.apply(*BOTH, with_service_changes=True)
    assert {item.status for item in outcomes} == {Status.DONE}
    assert "image, command" in str(outcomes[0].notes)
    assert stack.of("app")[0]["Config"]["Cmd"] == ["sleep", "999"]
    assert (stack.lives("app"), stack.not_ours()) == (before, ENV)


@processes
def test_c2_a_change_that_breaks_is_taken_back_whole(stack: Stack) -> None:
    """The files that Compose copies into a container among it, which the engine would not."""
    stack.edit("    environment:\n", "    configs: [{source: c, target: /opt/c}]\n    environment:\n")
    stack.file.write_text(stack.file.read_text() + "configs: {c: {content: one}}\n")
    stack.up()
    configuration, before = stack.configuration(), stack.lives("app")
    stack.edit(stack.image, another_image(stack))
    stack.edit('command: [sleep, "1000"]', 'command: ["false"]')
    stack.edit(
        "    environment:\n", "    restart: always\n    networks: {default: {aliases: [other]}}\n    environment:\n"
    )
    stack.edit("content: one", "content: two")
    stack.patience = CRASHES
    said = problem(stack.apply(*BOTH, with_service_changes=True))
    assert "rolled back: it runs with its former values" in said
    assert stack.configuration() == configuration
    assert stack.inside("cat", "/opt/c") == "one"
    assert (stack.lives("app"), stack.env_file.read_text()) == (before, ENV)


RICH = """\
    hostname: host.example
    user: "0"
    working_dir: /tmp
    restart: on-failure:3
    mem_limit: 64m
    cpus: 0.5
    shm_size: 32m
    cap_add: [NET_ADMIN]
    extra_hosts: [old.example:192.0.2.1]
    ports: ["127.0.0.1::80", "9000"]
    volumes: [./one:/one, "data:/data:ro", /anonymous]
    tmpfs: [/scratch]
    healthcheck: {test: [CMD, "true"], interval: 30s}
    logging: {driver: json-file, options: {max-size: 1m}}
    sysctls: {net.core.somaxconn: 200}
    dns: 192.0.2.53
    stop_signal: SIGINT
    group_add: ["5"]
    devices: [/dev/null:/dev/other]
    networks: {default: {aliases: [mail]}}
    configs: [{source: c, target: /c}]
    labels: {money: "$$1"}
    security_opt: ["no-new-privileges:true"]
    pids_limit: 100
    oom_score_adj: 10
    ulimits: {nofile: 1000, nproc: {soft: 10, hard: 20}}
    dns_opt: ["ndots:1"]
"""
EDITS = {
    "host.example": ("other.example", "hostname"),
    "working_dir: /tmp": ("working_dir: /", "working_dir"),
    "on-failure:3": ("always", "restart"),
    "mem_limit: 64m": ("mem_limit: 65m", "mem_limit"),
    "cpus: 0.5": ("cpus: 0.4", "cpus"),
    "shm_size: 32m": ("shm_size: 33m", "shm_size"),
    "NET_ADMIN": ("SYS_TIME", "cap_add"),
    "192.0.2.1]": ("192.0.2.2]", "extra_hosts"),
    "::80": ("::81", "ports"),
    "./one:": ("./two:", "volumes"),
    "[/scratch]": ("[/other]", "tmpfs"),
    'CMD, "true"': ('CMD, "false"', "healthcheck"),
    "max-size: 1m": ("max-size: 2m", "logging"),
    "somaxconn: 200": ("somaxconn: 201", "sysctls"),
    "192.0.2.53": ("192.0.2.54", "dns"),
    "SIGINT": ("SIGTERM", "stop_signal"),
    '["5"]': ('["6"]', "group_add"),
    "/dev/other": ("/dev/another", "devices"),
    "[mail]": ("[post]", "networks"),
    "$$1": ("$$2", "labels"),
    '["no-new-privileges:true"]': ('["seccomp:unconfined"]', "security_opt"),
    "pids_limit: 100": ("pids_limit: 200", "pids_limit"),
    "oom_score_adj: 10": ("oom_score_adj: -900", "oom_score_adj"),
    "hard: 20": ("hard: 21", "ulimits"),
    "ndots:1": ("ndots:2", "dns_opt"),
}
UNSEEN = (  # what its container does not tell, or not in the same words
    "post_start: [{command: [touch, /tmp/mine], user: root, privileged: true}]",
    "pre_stop: [{command: [touch, /tmp/mine]}]",
    "volumes_from: [web]",
    "gpus: all",
    "annotations: {a: b}",
    "deploy: {resources: {reservations: {devices: [{capabilities: [gpu], count: 1}]}}}",
    "volumes: [data:/data]",  # which is read alone
)


@processes
def test_c2_what_differs_is_named_where_another_compose_made_it(stack: Stack) -> None:
    """Its hash may be made otherwise there, so that the engine has to tell."""
    stack.edit("    environment:\n", f"{RICH}    environment:\n")
    stack.file.write_text(stack.file.read_text() + "configs: {c: {content: hello}}\nvolumes: {data: {}}\n")
    stack.up()
    stack.program = next((item for item in PROGRAMS if item != stack.program), stack.program)
    assert refusals(stack.plan(*BOTH)[0]) == []
    for before, (after, _) in EDITS.items():
        stack.edit(before, after)
    said = stack.refused(*BOTH)
    assert set(re.findall(r"[a-z_]+", said.partition("its ")[2].partition(" is not")[0])) == {
        name for _, name in EDITS.values()
    }


@processes
def test_t1_nothing_rides_along_unseen_where_another_compose_made_it(stack: Stack) -> None:
    """A command that it runs in the container as root, on the way to the next switch."""
    stack.edit("    environment:\n", "    volumes: [data:/data:ro]\n    environment:\n")
    stack.file.write_text(f"{stack.file.read_text()}volumes: {{data: {{}}}}\n")
    stack.up()
    stack.program = next((item for item in PROGRAMS if item != stack.program), stack.program)
    usual = stack.file.read_text()
    for line in UNSEEN:
        text = usual.replace("volumes: [data:/data:ro]", "") if line.startswith("volumes: ") else usual
        stack.file.write_text(text.replace("    environment:\n", f"    {line}\n    environment:\n", 1))
        assert f"its {line.partition(':')[0]} is not as the compose files say" in stack.refused(*BOTH)


@processes
@pytest.mark.parametrize("kind", ["config", "secret"])
def test_t9_no_other_file_is_mounted_in_the_place_of_a_secret(stack: Stack, kind: str) -> None:
    """Compose's hash does not know where a secret lies, so any file of this machine would come with the next switch."""
    stack.edit("    environment:\n", f"    {kind}s: [{{source: s, target: /opt/s}}]\n    environment:\n")
    stack.file.write_text(f"{stack.file.read_text()}{kind}s: {{s: {{file: ./usual}}}}\n")
    (stack.folder / "usual").write_text("x")
    stack.up()
    assert refusals(stack.plan(*BOTH)[0]) == []
    stack.edit("./usual", "/etc/passwd")
    assert f"its {kind} s is not as the compose files say" in stack.refused(*BOTH)
    assert {item.status for item in stack.apply(*BOTH, with_service_changes=True)} == {Status.DONE}


def test_c2_what_is_edited_between_a_plan_and_its_apply(stack: Stack) -> None:
    stack.up()
    target, before = stack.target(), stack.lives()
    seen = target.observe(BOTH, reveal)
    assert refusals(seen) == []
    stack.edit('command: [sleep, "1000"]', 'command: [sleep, "999"]')
    changes = diff(Desired(BOTH), {"compose": seen}, stack="rows").changes
    assert "its command is not as the compose files say" in problem(list(target.apply(changes, reveal)))
    assert (stack.lives(), stack.env_file.read_text()) == (before, ENV)


def test_c2_a_network_with_another_definition(stack: Stack) -> None:
    stack.up()
    stack.file.write_text(
        stack.file.read_text() + "networks: {default: {driver_opts: {com.docker.network.driver.mtu: '1400'}}}\n"
    )
    said = stack.refused(*BOTH, with_service_changes=True)
    assert f"network {stack.name}_default" in said
    assert "docker compose up -d" in said


@processes
@pytest.mark.parametrize("kind", ["config", "secret"])
def test_c2_a_content_that_was_not_applied(stack: Stack, kind: str) -> None:
    """Compose copies it into a container when it makes one, and its hash says nothing of it."""
    stack.edit("    environment:\n", "    configs: [{source: c, target: /c}]\n    secrets: [s]\n    environment:\n")
    more = "configs: {d: {content: 'one $$two'}}\nsecrets: {s: {environment: S}}\n"
    stack.file.write_text(stack.file.read_text().replace("source: c", "source: d") + more)
    stack.env_file.write_text(f"{ENV}S=op://vault/item\n")
    stack.up(env={"S": "live-word"} if kind == "secret" else {})
    if kind == "config":
        assert refusals(stack.plan(*BOTH)[0]) == []
        stack.edit("d: {content: 'one $$two", "d: {content: 'three")
    said = stack.refused(*BOTH)
    assert f"its {kind} {'d' if kind == 'config' else 's'} is not as the compose files say" in said
    assert "live-word" not in said
    assert "op://" not in said
    stack.run("-p", stack.name, "up", "-d", "--no-deps", "--force-recreate", "--pull", "never", "app")  # the remedy
    assert {item.status for item in stack.apply(*BOTH)} == {Status.DONE}


def test_c3_replicas_are_kept(stack: Stack) -> None:
    stack.up("--scale", "app=3")
    before = stack.lives("app")
    assert {item.status for item in stack.apply(*BOTH)} == {Status.DONE}
    hosts = [dict(e.partition("=")[::2] for e in item["Config"]["Env"])["SMTP_HOST"] for item in stack.of("app")]
    assert hosts == ["new"] * 3
    assert (stack.lives("app"), stack.not_ours()) == (before, ENV)


SIDECAR = """\
  side:
    image: {image}
    init: true
    stop_grace_period: 1s
    command: [sleep, "1000"]
    network_mode: service:app
"""


def test_c4_a_sidecar_in_its_namespace_goes_with_it(stack: Stack) -> None:
    stack.file.write_text(stack.file.read_text() + SIDECAR.format(image=stack.image))
    stack.up()
    before = stack.lives("app", "side")
    seen, _ = stack.plan(*BOTH)
    assert "side shares its namespace and is recreated with it" in warnings(seen)
    assert {item.status for item in stack.apply(*BOTH)} == {Status.DONE}
    [app], [side] = stack.of("app"), stack.of("side")
    assert side["HostConfig"]["NetworkMode"] == f"container:{app['Id']}"
    assert side["State"]["Running"]
    assert (stack.lives("app", "side"), stack.not_ours()) == (before, ENV)


@processes
def test_c4_what_is_none_of_the_projects_services_is_not_left_in_a_dead_namespace(stack: Stack) -> None:
    """Nor what names the container, which Compose would not make anew with it."""
    stack.edit("    environment:\n", f"    container_name: {stack.name}-app\n    environment:\n")
    side = SIDECAR.format(image=stack.image).replace("network_mode: service:app", f'pid: "container:{stack.name}-app"')
    stack.file.write_text(stack.file.read_text() + side)
    stack.up("app")
    stack.up()
    mode = f"container:{stack.of('app')[0]['Id']}"
    guest = stack.engine.containers.run(stack.image, ["sleep", "1000"], detach=True, pid_mode=mode)
    try:
        said = stack.refused(*BOTH)
        assert re.search(rf"({guest.name}, {stack.name}-side-1|{stack.name}-side-1, {guest.name}) lives in its", said)
    finally:
        guest.remove(force=True)


@processes
def test_c4_a_sidecar_comes_back_with_it(stack: Stack) -> None:
    stack.file.write_text(stack.file.read_text() + SIDECAR.format(image=stack.image))
    stack.edit('command: [sleep, "1000"]', """command: [sh, -c, 'test "$$SMTP_HOST" != new || exit 3; sleep 1000']""")
    stack.edit("    environment:\n", "    restart: always\n    environment:\n")
    stack.up()
    before = stack.lives("app", "side")
    stack.patience = CRASHES
    assert "rolled back: it runs" in problem(stack.apply(*BOTH))
    [app], [side] = stack.of("app"), stack.of("side")
    assert side["HostConfig"]["NetworkMode"] == f"container:{app['Id']}"
    assert side["State"]["Running"]
    assert stack.environment()["SMTP_HOST"] == "old"
    assert (stack.lives("app", "side"), stack.env_file.read_text()) == (before, ENV)


def test_c5_what_depends_on_it_with_restart_is_restarted(stack: Stack) -> None:
    text = stack.file.read_text()
    stack.file.write_text(text + "    depends_on: {app: {condition: service_started, restart: true}}\n")
    stack.up()
    [before] = stack.of("web")
    seen, _ = stack.plan(*BOTH)
    assert "web depends on it with restart: true, and is restarted as well" in warnings(seen)
    assert {item.status for item in stack.apply(*BOTH)} == {Status.DONE}
    [after] = stack.of("web")
    assert after["Id"] == before["Id"]
    assert after["State"]["Running"]
    assert after["State"]["StartedAt"] > before["State"]["StartedAt"]
    assert stack.not_ours() == ENV


def test_c6_a_directory_that_was_moved_makes_no_second_stack(stack: Stack) -> None:
    stack.edit("    environment:\n", f"    container_name: {stack.name}-named\n    environment:\n")
    stack.folder = stack.folder.rename(stack.folder.with_name(stack.name))
    stack.run("up", "-d", "--pull", "never")
    stack.folder = stack.folder.rename(stack.folder.with_name("moved"))
    said = stack.refused(*BOTH, project=None)
    assert f"set targets.compose.project: {stack.name}" in said
    said = stack.refused(*BOTH)  # the first remedy, carried out
    command = re.search(r"`(.*?)`", said)
    assert command is not None
    environ = {**os.environ, **({"DOCKER_HOST": stack.host} if stack.host else {})}
    subprocess.run(command[1], shell=True, check=True, capture_output=True, env=environ)
    before = stack.lives("app")
    assert {item.status for item in stack.apply(*BOTH)} == {Status.DONE}
    assert [item["Name"] for item in stack.of("app")] == [f"/{stack.name}-named"]
    assert (stack.lives("app"), stack.not_ours()) == (before, ENV)
    assert stack.engine.api.networks(filters={"label": "com.docker.compose.project=moved"}) == []


@processes
def test_c6_what_can_t_be_started_leaves_no_container_behind(stack: Stack) -> None:
    """Its port is taken by another one, and none of it ran before."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports = f"    ports: ['127.0.0.1:{taken.getsockname()[1]}:80']\n"
        stack.edit("    environment:\n", f"{ports}    environment:\n")
        stack.up("web")
        before = stack.everything()
        said = problem(stack.apply(*BOTH))
    assert "rolled back: nothing of it runs, as before" in said
    assert stack.everything() == before


def test_c6_a_stranger_s_stack_whose_folder_is_gone_is_none_of_ours(stack: Stack) -> None:
    """It has a service of the same name, in a file of the same name, as most have."""
    other = stack.engine.containers.create(
        another_image(stack),
        ["sleep", "1"],
        labels={
            "com.docker.compose.project": f"{stack.name}x",
            "com.docker.compose.service": "app",
            "com.docker.compose.project.config_files": "/nowhere/compose.yml",
        },
    )
    try:
        stack.up("web")
        assert refusals(stack.plan(*BOTH)[0]) == []
    finally:
        other.remove()


# ------------------------------------------------------------------------------------------ B. who else is touched
def test_c7_a_line_that_is_made_of_ours(stack: Stack) -> None:
    text = ENV + "MAIL_URL=smtp://${SMTP_HOST}\n"
    stack.env_file.write_text(text)
    stack.file.write_text(stack.file.read_text() + "    environment: {MAIL_URL: '${MAIL_URL}'}\n")
    stack.up()
    before = stack.lives("app")
    seen, _ = stack.plan(*BOTH)
    assert ".env:4: MAIL_URL is made of SMTP_HOST" in warnings(seen)
    assert "web.MAIL_URL" in warnings(seen)
    assert not re.search(r"\.env:2: .*remove the line", warnings(seen))
    assert {item.status for item in stack.apply(*BOTH)} == {Status.DONE}
    stack.up("web")  # nothing that was advised, and nothing that was done, has emptied it
    assert stack.environment("web")["MAIL_URL"] == "smtp://old"
    assert (stack.lives("app"), stack.not_ours()) == (before, text)


def test_c8_who_reads_the_whole_env_file(stack: Stack) -> None:
    stack.file.write_text(
        stack.file.read_text() + "    env_file: .env\nconfigs: {mail: {content: 'host=${SMTP_HOST}'}}\n"
        "secrets: {pw: {environment: SMTP_PASSWORD}}\n"
    )
    stack.up()
    before = stack.lives("app")
    seen, _ = stack.plan(*BOTH)
    said = warnings(seen)
    assert "web reads the whole file (env_file)" in said
    assert "configs.mail" in said
    assert "secrets.pw" in said
    assert {item.status for item in stack.apply(*BOTH)} == {Status.DONE}
    assert (stack.lives("app"), stack.not_ours()) == (before, ENV)


def test_c8_whose_own_env_file_is_made_of_ours(stack: Stack) -> None:
    """And who reads the whole of it by a name that is a variable."""
    (stack.folder / "web.env").write_text("SMTP_HOST\nURL=smtp://${SMTP_HOST}\nAPART='${SMTP_HOST}'\n")
    stack.env_file.write_text(f"{ENV}WHERE=.env\n")
    stack.file.write_text(stack.file.read_text() + "    env_file: [web.env, '${WHERE:-other.env}']\n")
    stack.up()
    said = warnings(stack.plan(HOST)[0])
    assert "SMTP_HOST changes, which web.URL, web.SMTP_HOST also uses" in said
    assert "web reads the whole file (env_file)" in said


def test_c8_who_reads_it_raw_would_get_the_quotes(stack: Stack) -> None:
    stack.file.write_text(stack.file.read_text() + "    env_file: [{path: .env, format: raw}]\n")
    stack.up()
    assert "web reads it raw" in stack.refused(*BOTH)


def test_c8_a_consumer_that_reads_the_whole_env_file(stack: Stack) -> None:
    stack.edit(
        "    environment:\n      SMTP_HOST: ${SMTP_HOST}\n      SMTP_PASSWORD: ${SMTP_PASSWORD}\n",
        "    env_file: .env\n",
    )
    stack.up()
    said = "\n".join(refusals(stack.plan(*BOTH)[0]))
    assert "not ours to write" not in said
    assert "SMTP_HOST: ${SMTP_HOST" in said
    stack.edit(  # the remedy, carried out
        "    env_file: .env\n",
        "    env_file: .env\n    environment:\n      SMTP_HOST: ${SMTP_HOST}\n      SMTP_PASSWORD: ${SMTP_PASSWORD}\n",
    )
    assert {item.status for item in stack.apply(*BOTH)} == {Status.DONE}
    assert stack.environment()["SMTP_PASSWORD"] == NEW


def test_c9_several_files_a_project_directory_and_nested_includes(stack: Stack) -> None:
    more = stack.folder / "compose.more.yml"
    more.write_text("services: {app: {labels: {more: '1'}}}\n")
    (stack.folder / "inner").mkdir()
    (stack.folder / "inner" / "a.yml").write_text("include: [{path: [b.yml]}]\n")
    (stack.folder / "inner" / "b.yml").write_text(
        stack.file.read_text()
        .replace("  app:", "  job:")
        .replace("  web:", "  web2:")
        .split("  web2:")[0]
        .replace("${SMTP_HOST}", "literal")
    )
    stack.file.write_text("include: [inner/a.yml]\n" + stack.file.read_text())
    stack.run(
        "-p",
        stack.name,
        "--project-directory",
        str(stack.folder),
        "-f",
        "compose.yml",
        "-f",
        more.name,
        "up",
        "-d",
        "--pull",
        "never",
    )
    said = stack.refused(*BOTH)
    assert f"file: [{stack.file}, {more}]" in said
    stack.options |= {"file": [stack.file, more], "directory": stack.folder}
    seen, _ = stack.plan(wanted("SMTP_HOST", "new", "job"))
    assert any("b.yml:" in item for item in refusals(seen)), refusals(seen)
    before = stack.lives("app")
    assert {item.status for item in stack.apply(*BOTH)} == {Status.DONE}
    assert stack.of("app")[0]["Config"]["Labels"]["more"] == "1"
    assert (stack.lives("app"), stack.not_ours()) == (before, ENV)


def test_c10_a_neighbour_that_was_started_with_one_file_more(stack: Stack) -> None:
    (stack.folder / "debug.yml").write_text("services: {web: {labels: {debug: '1'}}}\n")
    stack.up()
    stack.run("-p", stack.name, "-f", "compose.yml", "-f", "debug.yml", "up", "-d", "--pull", "never", "web")
    before = stack.lives("app")
    assert {item.status for item in stack.apply(*BOTH)} == {Status.DONE}
    assert (stack.lives("app"), stack.not_ours()) == (before, ENV)


@pytest.mark.parametrize("kind", ["another stack", "sops", "dotenvx", "UTF-16", "git"])
def test_c11_an_env_file_that_is_not_for_us_to_write(stack: Stack, kind: str) -> None:
    stack.up()
    if kind == "another stack":
        ours = '# >>> reconciler other: x\nSMTP_HOST="theirs"\n# <<< reconciler other\n'
        stack.env_file.write_text(ENV + ours)
    elif kind == "sops":
        stack.env_file.write_text(
            "SMTP_HOST=ENC[AES256_GCM,data:oldpw,type:str]\nsops_version=3.9.0\nsops_mac=ENC[oldpw]\n"
        )
    elif kind == "dotenvx":
        stack.env_file.write_text("DOTENV_PUBLIC_KEY='02aa'\nSMTP_HOST=old\nSMTP_PASSWORD=encrypted:oldpw\n")
    elif kind == "UTF-16":
        stack.env_file.write_bytes(ENV.encode("utf-16"))
    else:
        for command in (["init", "-q"], ["add", ".env"]):
            subprocess.run(["git", "-C", str(stack.folder), *command], check=True, capture_output=True)
    before = stack.everything()
    seen, changes = stack.plan(*BOTH)
    said = "\n".join(refusals(seen))
    assert {"another stack": "the stack other", "git": "into .env, which git tracks"}.get(kind, kind) in said
    assert {item.status for item in stack.target().apply(changes, reveal)} <= {Status.FAILED}
    assert stack.everything() == before
    assert_silent(said, seen.problems)


@pytest.mark.parametrize("kind", ["git", "sops"])
def test_c11_a_secret_s_file_that_is_not_for_us_to_write(stack: Stack, kind: str) -> None:
    word = stack.folder / "word"
    word.write_text("oldpw" if kind == "git" else '{"data": "ENC[AES256_GCM,data:oldpw,iv:x,tag:y,type:str]"}')
    stack.edit("    environment:\n", "    secrets: [word]\n    environment:\n")
    stack.file.write_text(stack.file.read_text() + "secrets: {word: {file: ./word}}\n")
    stack.up()
    if kind == "git":
        for command in (["init", "-q"], ["add", "word"]):
            subprocess.run(["git", "-C", str(stack.folder), *command], check=True, capture_output=True)
    said = stack.refused(wanted("secrets/word", SecretRef("env", "NEW")))
    assert {"git": "into word, which git tracks", "sops": "encrypted by sops"}[kind] in said


# ------------------------------------------------------------------------------------------------- C. ready or not
@processes
def test_c12_waits_follow_what_the_file_declares(stack: Stack) -> None:
    """A start that takes longer than our patience, and a stop that does."""
    check = """{test: [CMD-SHELL, 'test -e /tmp/up'], interval: 1s, retries: 3, start_period: 30s}"""
    command = """[sh, -c, 'trap : TERM; sleep 3; touch /tmp/up; while :; do sleep 1; done']"""
    stack.edit('command: [sleep, "1000"]', f"command: {command}\n    healthcheck: {check}")
    stack.edit("stop_grace_period: 1s", "stop_grace_period: 2s")
    stack.up()
    stack.patience = Patience(ready=1, settle=1, pause=0.1)
    before = stack.lives("app")
    assert {item.status for item in stack.apply(*BOTH)} == {Status.DONE}
    [app] = stack.of("app")
    assert (app["State"]["Running"], app["RestartCount"]) == (True, 0)
    assert any(text.startswith("waiting for app to come up (") for text in stack.progress)
    assert (stack.lives("app"), stack.not_ours()) == (before, ENV)


@processes
def test_c13_a_health_check_that_was_red_before(stack: Stack) -> None:
    stack.edit(
        "    environment:\n", "    healthcheck: {test: [CMD, 'false'], interval: 1s, retries: 1}\n    environment:\n"
    )
    stack.up()
    while stack.of("app")[0]["State"]["Health"]["Status"] != "unhealthy":
        time.sleep(0.1)
    before = stack.lives("app")
    outcomes = stack.apply(*BOTH)
    assert {item.status for item in outcomes} == {Status.DONE}
    assert "the health check of app failed before, too" in str(outcomes[0].notes)
    assert stack.environment()["SMTP_HOST"] == "new"
    assert (stack.lives("app"), stack.not_ours()) == (before, ENV)


@processes
def test_c13_what_crashed_before_may_crash_still(stack: Stack) -> None:
    stack.edit('command: [sleep, "1000"]', 'command: ["false"]\n    restart: always')
    stack.up()
    while not stack.of("app")[0]["RestartCount"]:
        time.sleep(0.1)
    stack.patience = CRASHES
    before = stack.lives("app")
    seen, changes = stack.plan(*BOTH)
    outcomes = list(stack.target().apply(changes, reveal))
    assert (refusals(seen), {item.status for item in outcomes}) == ([], {Status.DONE})
    assert "app crashed again and again before, and still does" in str(outcomes[0].notes)
    assert stack.environment()["SMTP_HOST"] == "new"
    assert (stack.lives("app"), stack.not_ours()) == (before, ENV)


@processes
def test_c14_what_somebody_paused_is_paused(stack: Stack) -> None:
    stack.up()
    stack.run("-p", stack.name, "pause", "app")
    assert {item.status for item in stack.apply(*BOTH)} == {Status.DONE}
    assert stack.of("app")[0]["State"]["Paused"]
    assert stack.environment()["SMTP_HOST"] == "new"
    stack.edit('command: [sleep, "1000"]', 'command: ["false"]')
    stack.patience = CRASHES
    assert "rolled back" in problem(stack.apply(wanted("SMTP_HOST", "other"), PASSWORD, with_service_changes=True))
    assert stack.of("app")[0]["State"]["Paused"]
    assert stack.environment()["SMTP_HOST"] == "new"


@processes
@pytest.mark.parametrize("kind", ["a job", "no replicas", "stopped"])
def test_c14_what_does_not_run_stays_so(stack: Stack, kind: str) -> None:
    if kind == "a job":
        stack.edit('command: [sleep, "1000"]', 'command: ["true"]')
    elif kind == "no replicas":
        stack.edit("    environment:\n", "    deploy: {replicas: 0}\n    environment:\n")
    stack.up()
    if kind == "stopped":
        stack.run("-p", stack.name, "stop", "app")
    while any(item["State"]["Running"] for item in stack.of("app")):
        time.sleep(0.2)
    before = stack.lives("app")
    assert {item.status for item in stack.apply(*BOTH)} == {Status.DONE}
    assert not any(item["State"]["Running"] for item in stack.of("app"))
    assert (stack.lives("app"), stack.not_ours()) == (before, ENV)
    if kind != "no replicas":
        assert [item["State"]["Status"] for item in stack.of("app")] == ["created"]
        assert stack.environment()["SMTP_HOST"] == "new"
    stack.up("--scale", "app=1")
    assert stack.environment()["SMTP_HOST"] == "new"


# --------------------------------------------------------------------------------------------- D. secrets and words
@pytest.mark.parametrize("value", ["", "plain"])
def test_d_what_runs_is_not_shown_whatever_comes_in_its_place(stack: Stack, value: str) -> None:
    stack.up()
    seen, changes = stack.plan(wanted("SMTP_PASSWORD", value))
    assert_silent(seen.problems, [change.live for change in changes], [dict(change.fields) for change in changes])
    assert {item.status for item in stack.apply(wanted("SMTP_PASSWORD", value))} == {Status.DONE}
    assert stack.environment()["SMTP_PASSWORD"] == value


def test_d_compose_s_own_words_repeat_no_value(stack: Stack) -> None:
    stack.up()
    stack.file.write_text(stack.file.read_text() + "    ports: ['${SMTP_PASSWORD}']\n")
    seen, _ = stack.plan(*BOTH)
    assert seen.unread == {"compose"}
    assert_silent(seen.problems)


def test_d_a_key_that_stands_twice_in_a_list_is_named_where_it_holds(stack: Stack) -> None:
    listed = (
        "    environment:\n      - SMTP_HOST=dead\n      - SMTP_HOST=oldpw\n      - SMTP_PASSWORD=${SMTP_PASSWORD}\n"
    )
    stack.edit("    environment:\n      SMTP_HOST: ${SMTP_HOST}\n      SMTP_PASSWORD: ${SMTP_PASSWORD}\n", listed)
    said = "\n".join(refusals(stack.plan(HOST)[0]))
    assert "compose.yml:9" in said
    assert_silent(said)


def test_two_services_of_one_provider_are_recreated_in_one_up(stack: Stack, tmp_path: Path) -> None:
    log = tmp_path / "calls"
    wrapper = tmp_path / "compose"
    wrapper.write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >>{log}\nexec {stack.program} "$@"\n')
    wrapper.chmod(0o755)
    stack.file.write_text(stack.file.read_text() + "    environment: {HOST: '${SMTP_HOST}'}\n")
    stack.up()
    stack.options["program"] = (str(wrapper),)
    target, variables = stack.target(), (*BOTH, wanted("HOST", "new", "web"))
    seen = target.observe(variables, reveal)
    assert log.read_text().count("--dry-run") == 1
    assert refusals(seen) == []
    changes = diff(Desired(variables), {"compose": seen}, stack="rows").changes
    assert {item.status for item in target.apply(changes, reveal)} == {Status.DONE}
    ups = [line for line in log.read_text().splitlines() if " up -d " in line and "--dry-run" not in line]
    assert len(ups) == 1
    assert {stack.environment(name)[key] for name, key in (("app", "SMTP_HOST"), ("web", "HOST"))} == {"new"}
    assert stack.not_ours() == ENV
