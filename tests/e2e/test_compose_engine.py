"""The compose target on a real engine: only the service that changes is recreated, and it comes back when it fails."""

from __future__ import annotations

import gc
import os
import shutil
import socket
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import docker
import pytest

from reconciler.plan import Desired, diff
from reconciler.resources import Login, Secret, SecretRef, Variable
from reconciler.target import Change, Outcome, Status
from reconciler.targets.compose import Compose, Patience

# One worker: an engine answers 404 to a listing while another test removes a container.
pytestmark = [pytest.mark.xdist_group("engine"), pytest.mark.long]

COMPOSE = """\
services:
  mana-auth:
    image: {image}
    command: [sleep, "1000"]
    init: true
    environment: {{MANA_SERVICE_KEY: "${{MANA_SERVICE_KEY}}"}}
  mana-notify:
    image: {image}
    restart: always
    stop_grace_period: 1s
    depends_on: [stalwart]
    init: true
    command: [sh, -c, 'test "$$SMTP_HOST" != crashing || exit 3; sleep 1000']
    healthcheck: {{test: [CMD-SHELL, 'test "$$SMTP_HOST" != sick'], interval: 120s}}
    environment:
      SERVICE_KEY: ${{MANA_SERVICE_KEY}}
      SMTP_HOST: ${{SMTP_HOST:-stalwart}}
      SMTP_PASSWORD: ${{SMTP_PASSWORD:-}}
      SMTP_INSECURE_TLS: ${{SMTP_INSECURE_TLS:-true}}
  stalwart:
    image: {image}
    command: [sleep, "1000"]
    init: true
    networks: {{default: {{aliases: [mail]}}}}
"""
ENV = "# mine\nMANA_SERVICE_KEY=key\n"
SECRET = "a $ecret with \"quotes\" and 'more' \\ \n of it"


def reveal(_: Secret) -> str:
    return SECRET


@dataclass
class Stack:
    """A compose project of three containers."""

    directory: Path
    project: str
    engine: docker.DockerClient
    patience: Patience = field(default=Patience(ready=3, settle=1, pause=0.1))
    progress: list[str] = field(default_factory=list)
    docker_host: str | None = field(default_factory=lambda: os.environ.get("DOCKER_HOST"))

    @property
    def env_file(self) -> Path:
        return self.directory / ".env.macmini"

    def compose(self, *arguments: str) -> None:
        files = ["-f", str(self.directory / "compose.yml"), "--env-file", str(self.env_file), "-p", self.project]
        subprocess.run(["docker", "compose", *files, *arguments], check=True, capture_output=True)

    def edit(self, before: str, after: str) -> None:
        """Change the compose file, and bring up what it says then."""
        file = self.directory / "compose.yml"
        assert before in file.read_text()
        file.write_text(file.read_text().replace(before, after))
        self.compose("up", "-d", "--pull", "never", "--timeout", "0")

    def target(self) -> Compose:
        return Compose(
            file=self.directory / "compose.yml",
            env_file=self.env_file,
            project=self.project,
            stack="mana",
            docker_host=self.docker_host,
            patience=self.patience,
            progress=self.progress.append,
        )

    def ids(self) -> dict[str, str]:
        label = f"com.docker.compose.project={self.project}"
        found = self.engine.containers.list(filters={"label": label})
        return {item.labels["com.docker.compose.service"]: item.id for item in found}

    def environment(self, service: str) -> dict[str, str]:
        entries = self.engine.containers.get(self.ids()[service]).attrs["Config"]["Env"]
        return dict(entry.partition("=")[::2] for entry in entries)

    def plan(self, *wanted: Variable) -> tuple[Change, ...]:
        seen = self.target().observe(wanted, reveal)
        assert [item for item in seen.problems if item.severity != "warning"] == []
        assert seen.networks["default"]
        return diff(Desired(wanted), {"compose": seen}, stack="mana").changes

    def apply(self, *wanted: Variable) -> list[Outcome]:
        return list(self.target().apply(self.plan(*wanted), reveal))


@pytest.fixture
def stack(engine: docker.DockerClient, small_image: str, tmp_path: Path) -> Iterator[Stack]:
    if (
        shutil.which("docker") is None
        or subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode
    ):
        pytest.skip("there is no docker compose")
    made = Stack(tmp_path, f"reconciler-{uuid.uuid4().hex[:8]}", engine)
    (tmp_path / "compose.yml").write_text(COMPOSE.format(image=small_image))
    made.env_file.write_text(ENV)
    try:
        made.compose("up", "-d", "--pull", "never")
        yield made
    finally:
        made.compose("down", "--timeout", "0", "--volumes")


def variable(name: str, value: str | SecretRef, login: Login | None = None) -> Variable:
    return Variable("mana-notify", name, value, value, login)


def test_a_switch_recreates_one_container_and_goes_back(stack: Stack) -> None:
    brevo = (
        variable("SMTP_HOST", "smtp-relay.brevo.com"),
        variable("SMTP_PASSWORD", SecretRef("env", "BREVO")),
        variable("SMTP_INSECURE_TLS", "false"),
    )
    before = stack.ids()
    outcomes = stack.apply(*brevo)
    assert [(item.status, item.problem) for item in outcomes] == [(Status.DONE, None)] * 3
    after = stack.ids()
    assert after.pop("mana-notify") != before.pop("mana-notify")
    assert after == before
    environment = stack.environment("mana-notify")
    assert environment["SMTP_HOST"] == "smtp-relay.brevo.com"
    assert environment["SMTP_PASSWORD"] == SECRET
    assert environment["SMTP_INSECURE_TLS"] == "false"
    assert stack.env_file.read_text().startswith(ENV)
    assert stack.plan(*brevo) == ()

    home = (variable("SMTP_HOST", "stalwart"), variable("SMTP_INSECURE_TLS", "true"))
    assert {item.status for item in stack.apply(*home)} == {Status.DONE}
    assert stack.environment("mana-notify")["SMTP_HOST"] == "stalwart"
    assert {**stack.ids(), "mana-notify": ""} == {**before, "mana-notify": ""}
    assert stack.plan(*home) == ()


@pytest.mark.parametrize(("host", "said"), [("crashing", "it crashes"), ("sick", "health check did not pass")])
def test_a_service_that_does_not_come_up_is_brought_back(stack: Stack, host: str, said: str) -> None:
    before = stack.ids()
    outcomes = stack.apply(variable("SMTP_HOST", host), variable("SMTP_PASSWORD", SecretRef("env", "BREVO")))
    assert {item.status for item in outcomes} == {Status.FAILED}
    assert outcomes[0].problem is not None
    assert said in outcomes[0].problem.summary
    assert "rolled back: it runs with its former values" in outcomes[0].problem.summary
    assert stack.env_file.read_text() == ENV
    environment = stack.environment("mana-notify")
    assert (environment["SMTP_HOST"], environment["SMTP_PASSWORD"]) == ("stalwart", "")
    after = stack.ids()
    assert {**after, "mana-notify": ""} == {**before, "mana-notify": ""}


def test_a_mail_server_of_the_project_is_tried_at_its_own_address(stack: Stack) -> None:
    """Nothing listens there: the engine's own address of the alias is what was tried."""
    login = Login("mail", 587, "noreply", SecretRef("env", "BREVO"), verify_tls=False)
    [outcome] = stack.apply(variable("SMTP_PASSWORD", SecretRef("env", "BREVO"), login))
    networks = stack.engine.containers.get(stack.ids()["stalwart"]).attrs["NetworkSettings"]["Networks"]
    [address] = [item["IPAddress"] for item in networks.values()]
    assert f"mail:587 could not be tried from here: {address}:587" in outcome.notes[0]
    assert outcome.status is Status.DONE


CHECK = """[CMD-SHELL, 'test "$$SMTP_HOST" != sick']"""


@pytest.mark.parametrize("check", ["[CMD, curl, -f, localhost]", "[CMD-SHELL, curl -f localhost]"])
def test_a_health_check_whose_program_the_image_lacks_decides_nothing(stack: Stack, check: str) -> None:
    """The engine would call the container unhealthy for ever, whatever runs in it."""
    stack.edit(CHECK, check)
    [outcome] = stack.apply(variable("SMTP_HOST", "elsewhere"))
    assert (outcome.status, outcome.problem) == (Status.DONE, None)
    assert stack.environment("mana-notify")["SMTP_HOST"] == "elsewhere"
    [outcome] = stack.apply(variable("SMTP_HOST", "crashing"))  # while a crash still does
    assert outcome.problem is not None
    assert "it crashes" in outcome.problem.summary
    assert stack.environment("mana-notify")["SMTP_HOST"] == "elsewhere"


def test_nothing_slow_is_waited_for_in_silence(stack: Stack) -> None:
    """Neither the old container's stop, nor a health check that takes its time."""
    stack.edit("    stop_grace_period: 1s\n", "    stop_grace_period: 3s\n")
    stack.edit("sleep 1000'", "trap : TERM; while :; do sleep 1; done'")
    stack.edit(CHECK, "[CMD-SHELL, 'sleep 3']")
    stack.patience = Patience(ready=30)
    [outcome] = stack.apply(variable("SMTP_HOST", "elsewhere"))
    assert (outcome.status, outcome.problem) == (Status.DONE, None)
    ticks = [text.rpartition(" (")[0] for text in stack.progress if text.endswith(" s)")]
    assert set(ticks) == {"recreating mana-notify", "waiting for mana-notify to come up"}


@pytest.fixture
def ssh_host(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An SSH server on loopback, on whose machine the engine runs; the port stands in the client's configuration."""
    place, server = tmp_path_factory.mktemp("ssh"), shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    if server is None or shutil.which("ssh") is None:
        pytest.skip("there is no OpenSSH server (Debian: openssh-server)")
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(place / name)], check=True)
    (place / "known").write_text("engine " + (place / "host.pub").read_text())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (place / "sshd").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {place}/host\nPidFile none\nUsePAM no\nStrictModes no\n"
        f"PermitRootLogin yes\nAuthorizedKeysFile {place}/user.pub\n"
        f"SetEnv DOCKER_HOST={os.environ.get('DOCKER_HOST', 'unix:///var/run/docker.sock')}\n"
    )
    (place / "config").write_text(
        f"Host engine\n  HostName 127.0.0.1\n  Port {port}\n  HostKeyAlias engine\n  IdentityFile {place}/user\n"
        f"  UserKnownHostsFile {place}/known\n  BatchMode yes\n  LogLevel ERROR\n"
    )
    (place / "bin").mkdir()
    (place / "bin" / "ssh").write_text(
        f'#!/bin/sh\nenv >> {place}/environment\nexec {shutil.which("ssh")} -F {place}/config "$@"\n'
    )
    (place / "bin" / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{place / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("SMTP_PASSWORD", "canary-password")
    with subprocess.Popen([server, "-D", "-e", "-f", str(place / "sshd")], stderr=subprocess.PIPE, text=True) as daemon:
        try:
            assert daemon.stderr is not None
            said = daemon.stderr.readline()
            if "listening" not in said:
                pytest.skip(f"sshd does not start here: {said}")
            yield "ssh://engine"
            assert "canary" not in (place / "environment").read_text()
        finally:
            daemon.terminate()
            gc.collect()  # what the package leaves open is reported here and not in the next test


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")  # docker's
def test_an_engine_on_another_machine_is_reached_over_ssh(stack: Stack, ssh_host: str) -> None:
    """By the ssh program and its configuration: here an alias with a port of its own."""
    before = stack.ids()
    stack.docker_host, stack.patience = ssh_host, Patience(ready=60)
    login = Login("stalwart", 587, "noreply", SecretRef("env", "BREVO"), verify_tls=False)
    [outcome] = stack.apply(variable("SMTP_HOST", "elsewhere", login))
    assert (outcome.status, outcome.problem) == (Status.DONE, None)
    assert "another machine" in outcome.notes[0]
    assert stack.environment("mana-notify")["SMTP_HOST"] == "elsewhere"
    assert {**stack.ids(), "mana-notify": ""} == {**before, "mana-notify": ""}
    assert stack.plan(variable("SMTP_HOST", "elsewhere")) == ()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")  # docker's
def test_an_ssh_that_does_not_work_says_how_to_try_it(stack: Stack, ssh_host: str) -> None:
    stack.docker_host = "ssh://nowhere.invalid"
    seen = stack.target().observe([variable("SMTP_HOST", "elsewhere")], reveal)
    assert seen.unread == {"compose"}
    assert "can't be reached over SSH" in seen.problems[0].summary
    assert "docker -H ssh://nowhere.invalid version" in seen.problems[0].hint
