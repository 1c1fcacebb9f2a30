"""Six applications on a real engine: imported, switched to another provider and back, and nothing else has changed.

Each is a small image that checks what it is told, as the application would by failing to send.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import docker
import pytest
from applications import NAMED, documented
from ruamel.yaml import YAML

pytestmark = [pytest.mark.xdist_group("engine"), pytest.mark.long]

NEWER = os.environ.get("RECONCILER_REAL_COMPOSE", "").split(os.pathsep)[-1] or "docker compose"
APPS = ("vaultwarden", "gitea", "authelia", "grafana", "nextcloud", "paperless-ngx")
UNSET = {"SMTP_ACCEPT_INVALID_HOSTNAMES", "GF_SMTP_SKIP_VERIFY"}  # no entry, as in most compose files
SECRET = "PAPERLESS_EMAIL_HOST_PASSWORD"
CHECKS = {
    "vaultwarden": "$$SMTP_PORT:$$SMTP_SECURITY in 587:starttls|465:force_tls",
    "gitea": "$$GITEA__mailer__SMTP_PORT:$$GITEA__mailer__PROTOCOL in 587:smtp+starttls|465:smtps",
    "authelia": "$$AUTHELIA_NOTIFIER_SMTP_ADDRESS in submission://*:587|submissions://*:465",
    "grafana": "$$GF_SMTP_HOST:$$GF_SMTP_STARTTLS_POLICY in *:587:MandatoryStartTLS|*:465:NoStartTLS",
    "nextcloud": "$$SMTP_PORT:$$SMTP_SECURE in 587:tls|465:ssl",
    "paperless-ngx": "$$PAPERLESS_EMAIL_HOST:$$(cat $$PAPERLESS_EMAIL_HOST_PASSWORD_FILE) in "
    "mail.*:p@ss*|new.*:next-word",
}
SPARE = {"host": "new.invalid", "port": 465, "username": "other", "password": {"env": "SPARE"}}
BROKEN = SPARE | {"host": "broken.invalid"}


def variable(app: str, name: str) -> str:
    return re.sub(r"\W", "_", f"{app}_{name}").upper()


def values(app: str) -> dict[str, str]:
    told = {name: value.replace("example.org", "invalid") for name, value in documented(app, "starttls").items()}
    return {name: value for name, value in told.items() if name not in UNSET | {SECRET}}


@dataclass
class Stack:
    """A folder with a compose file, and the project that runs from it."""

    folder: Path
    project: str
    engine: docker.DockerClient
    program: str = "docker compose"

    def compose(self, *arguments: str) -> None:
        command = ["docker", "compose", "-f", str(self.folder / "compose.yml"), "-p", self.project, *arguments]
        subprocess.run(command, check=True, capture_output=True)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "SPARE": "next-word", "PYTHONPATH": os.environ.get("PYTHONPATH", str(Path.cwd()))}
        environment["RECONCILER_COMPOSE"] = self.program
        command = [sys.executable, "-m", "reconciler", *arguments]
        return subprocess.run(command, env=environment, cwd=self.folder, capture_output=True, text=True, check=False)

    def containers(self) -> dict[str, dict]:
        label = f"com.docker.compose.project={self.project}"
        found = self.engine.containers.list(filters={"label": label})
        return {item.labels["com.docker.compose.service"]: item.attrs for item in found}

    def environment(self) -> dict[str, dict[str, str]]:
        return {
            app: dict(
                entry.partition("=")[::2] for entry in found["Config"]["Env"] or () if not entry.startswith("PATH=")
            )
            for app, found in self.containers().items()
        }

    def theirs(self) -> dict[str, bytes]:
        """Every byte of the folder that is not ours to write."""
        kept = re.sub(
            rb"^# >>> reconciler .*?^# <<< reconciler \S+\n",
            b"",
            (self.folder / ".env").read_bytes(),
            flags=re.MULTILINE | re.DOTALL,
        )
        return {".env": kept, "compose.yml": (self.folder / "compose.yml").read_bytes()}

    def choose(self, name: str) -> None:
        yaml, file = YAML(), self.folder / "desired-state" / "smtp.yaml"
        content = yaml.load(file)
        first = next(iter(content["smtp"]["providers"]))
        for key, provider in {"spare": SPARE, "broken": BROKEN}.items():
            content["smtp"]["providers"][key] = provider | {"from": NAMED}
        content["smtp"]["provider"] = name or first
        text = io.StringIO()
        yaml.dump(content, text)
        file.write_text(text.getvalue())


@pytest.fixture
def stack(engine: docker.DockerClient, small_image: str, tmp_path: Path) -> Iterator[Stack]:
    if (
        shutil.which("docker") is None
        or subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode
    ):
        pytest.skip("there is no docker compose")
    services = {
        app: {
            "image": small_image,
            "init": True,
            "stop_grace_period": "1s",
            "command": ["sh", "-c", f"case {CHECKS[app]}) exec sleep 1000;; esac; exit 3"],
            "environment": {name: f"${{{variable(app, name)}}}" for name in values(app)},
        }
        for app in APPS
    }
    services["paperless-ngx"]["environment"][f"{SECRET}_FILE"] = "/run/secrets/paper_word"
    services["paperless-ngx"]["secrets"] = ["paper_word"]
    services["db"] = {"image": small_image, "init": True, "command": ["sleep", "1000"]}
    content = {"services": services, "secrets": {"paper_word": {"file": "./paper_word"}}}
    text = io.StringIO()
    YAML().dump(content, text)
    (tmp_path / "compose.yml").write_text(text.getvalue())
    (tmp_path / "paper_word").write_text("p@ss wo:rd\n")
    lines = [f"{variable(app, name)}='{value}'" for app in APPS for name, value in values(app).items()]
    (tmp_path / ".env").write_text("\n".join(["# mine", *lines, "OTHER=1  # stays", ""]))
    made = Stack(tmp_path, f"reconciler-{uuid.uuid4().hex[:8]}", engine)
    try:
        made.compose("up", "-d", "--pull", "never")
        yield made
    finally:
        made.compose("down", "--timeout", "0", "--volumes")


def test_six_applications_are_imported_switched_and_switched_back(stack: Stack) -> None:
    before, environment, theirs = stack.containers(), stack.environment(), stack.theirs()
    assert set(before) == {*APPS, "db"}

    done = stack.run(
        "import", "--compose", "compose.yml", "--project", stack.project, "--stack", "six", "--out", "desired-state"
    )
    assert done.returncode == 0, done.stderr
    consumers = YAML(typ="safe").load(stack.folder / "desired-state" / "smtp.yaml")["smtp"]["consumers"]
    out = {"env": {SECRET: None}, "secrets": {"paper_word": "{password}"}}
    assert consumers == {app: {"app": app} | (out if app == "paperless-ngx" else {}) for app in APPS}
    done = stack.run("plan", "--detailed-exitcode")
    assert done.returncode == 0, done.stdout + done.stderr

    stack.choose("spare")
    done = stack.run("apply", "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    assert stack.run("plan", "--detailed-exitcode").returncode == 0
    switched = stack.environment()
    for app in APPS:
        wanted = documented(app, "implicit").items()
        told = {name: value.replace("mail.example.org", "new.invalid") for name, value in wanted}
        told = {name: {"me": "other", "p@ss wo:rd": "next-word"}.get(value, value) for name, value in told.items()}
        shown = {name: value for name, value in told.items() if name not in UNSET | {SECRET}}
        assert shown.items() <= switched[app].items(), app
    assert (stack.folder / "paper_word").read_text() == "next-word"
    assert stack.containers()["db"]["Id"] == before["db"]["Id"]
    assert stack.containers()["db"]["State"]["StartedAt"] == before["db"]["State"]["StartedAt"]
    assert stack.theirs() == theirs

    stack.program = NEWER  # from here on another release, as after an upgrade: it made none of what runs
    stack.choose("broken")  # paperless ends by itself
    done = stack.run("apply", "--yes")
    assert done.returncode != 0, done.stdout
    assert "next-word" not in done.stdout + done.stderr
    assert (stack.folder / "paper_word").read_text() == "next-word"
    assert stack.environment()["paperless-ngx"] == switched["paperless-ngx"]

    stack.choose("")
    done = stack.run("apply", "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    assert stack.run("plan", "--detailed-exitcode").returncode == 0
    assert stack.environment() == environment
    assert (stack.folder / "paper_word").read_text() == "p@ss wo:rd"
    assert stack.containers()["db"]["Id"] == before["db"]["Id"]
    assert stack.theirs() == theirs
    assert [path.name for path in stack.folder.iterdir() if path.name.endswith("reconciler-former")] == []
