"""The compose target on a real engine: only the service that changes is recreated, and it comes back when it fails."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import docker
import pytest

from reconciler.plan import Change, Desired, diff
from reconciler.reconcile import Outcome, Status
from reconciler.resources import Login, Secret, SecretRef, Variable
from reconciler.targets.compose import Compose, Patience

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

    @property
    def env_file(self) -> Path:
        return self.directory / ".env.macmini"

    def compose(self, *arguments: str) -> None:
        files = ["-f", str(self.directory / "compose.yml"), "--env-file", str(self.env_file), "-p", self.project]
        subprocess.run(["docker", "compose", *files, *arguments], check=True, capture_output=True)

    def target(self) -> Compose:
        return Compose(
            file=self.directory / "compose.yml",
            env_file=self.env_file,
            project=self.project,
            stack="mana",
            docker_host=os.environ.get("DOCKER_HOST"),
            patience=Patience(ready=3, settle=2, pause=0.2),
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
