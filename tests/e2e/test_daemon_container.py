"""The daemon in its own container, on a real engine: the image is built from the Dockerfile, the service is that which
`reconciler init --service compose` writes; git, Compose and the engine are the real ones. The mail server is simulated.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import httpx
import pytest
from ruamel.yaml import YAML

from reconciler.daemon.services import Layout, compose

from . import rootfs
from .gate import Gate
from .mailserver import RELAY, RELAY_LOGIN, SUBMISSION

pytestmark = [pytest.mark.xdist_group("engine"), pytest.mark.long]

ROOT = Path(__file__).parents[2]
UID = os.getuid() or 65532
GROUP = os.getgid() or 4242  # who may speak to the engine
SECRETS = {
    "STALWART_ADMIN_PASSWORD": "canary-of-the-admin",
    "NOREPLY": "canary-of-noreply",
    "RELAY": "canary-of-the-relay",
}

STACK = """\
services:
  stalwart:
    image: {image}
    container_name: {prefix}-mail
    user: "0:0"
    entrypoint: [python, -I, /mailserver.py]
    healthcheck: {{disable: true}}
    stop_grace_period: 1s
    environment: {{STALWART_ADMIN_PASSWORD: canary-of-the-admin, RELAY_PASSWORD: canary-of-the-relay}}
    volumes: ["mail:/opt/stalwart", "{script}:/mailserver.py:ro"]
    networks: {{default: {{aliases: [relay]}}}}
  notify:
    image: {small}
    container_name: {prefix}-notify
    command: [/bin/sleep, "100000"]
    stop_grace_period: 1s
    environment:
      SMTP_HOST: ${{SMTP_HOST:-}}
      SMTP_PORT: ${{SMTP_PORT:-}}
      SMTP_USER: ${{SMTP_USER:-}}
      SMTP_PASSWORD: ${{SMTP_PASSWORD:-}}
      SMTP_INSECURE_TLS: ${{SMTP_INSECURE_TLS:-}}
volumes:
  mail: {{}}
"""

RECONCILER = """\
version: 1
stack: {prefix}
targets:
  stalwart:
    url: http://stalwart:8080
    username: admin
    password: {{credential: STALWART_ADMIN_PASSWORD}}
    container: {prefix}-mail
  compose: {{file: ../compose.yml, env_file: ../.env, project: {prefix}}}
daemon: {{interval: 4s}}
accounts:
  admin: {{roles: [admin], password: {{credential: STALWART_ADMIN_PASSWORD}}}}
  noreply@mana.how: {{description: Sends every mail, password: {{credential: NOREPLY}}}}
"""

SMTP = """\
smtp:
  provider: home
  providers:
    home: {{host: stalwart, port: {submission}, account: noreply@mana.how, verify_tls: false}}
    relay:
      host: relay
      port: {relay}
      username: relay-user
      password: {{credential: RELAY}}
      verify_tls: false
      standby: true
  consumers:
    notify:
      env:
        SMTP_HOST: "{{host}}"
        SMTP_PORT: "{{port}}"
        SMTP_USER: "{{username}}"
        SMTP_PASSWORD: "{{password}}"
        SMTP_INSECURE_TLS: "{{insecure_tls}}"
"""

HOME = {"SMTP_HOST": "stalwart", "SMTP_USER": "noreply", "SMTP_PASSWORD": SECRETS["NOREPLY"]}
AWAY = {"SMTP_HOST": "relay", "SMTP_USER": RELAY_LOGIN[0], "SMTP_PASSWORD": SECRETS["RELAY"]}
FAILOVER = "  failover: {to: relay, after: 3s, back_after: 6s}\n"


def git(folder: Path, *arguments: str) -> str:
    """Run git, also in the repository that belongs to the container's user."""
    named = ["-c", "user.name=Ada", "-c", "user.email=ada@example.com", "-C", str(folder)]
    with tempfile.NamedTemporaryFile("w", suffix=".gitconfig") as config:  # the only one that a push hands on
        config.write("[safe]\n\tdirectory = *\n")
        config.flush()
        environ = {**os.environ, "GIT_CONFIG_GLOBAL": config.name}
        ended = subprocess.run(["git", *named, *arguments], env=environ, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


# -------------------------------------------------------------------------------------------------------- the stack
@dataclass
class Server:
    """A machine with a compose project, a bare repository and the daemon's container."""

    engine: docker.DockerClient
    prefix: str
    folder: Path  # the compose project's
    work: Path  # a clone of the repository
    gate: Gate  # through which the daemon reaches the engine

    @property
    def daemon(self) -> Any:
        return self.engine.containers.get(f"{self.prefix}-daemon")

    def compose(self, *arguments: str) -> None:
        command = ["docker", "compose", "-f", "compose.yml", "--env-file", ".env", "-p", self.prefix, *arguments]
        ended = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr

    def push(self, **texts: str) -> str:
        """Write files of the directory, push them, and return the commit."""
        (self.work / "desired-state").mkdir(exist_ok=True)
        for name, text in texts.items():
            (self.work / "desired-state" / f"{name}.yaml").write_text(text)
        git(self.work, "add", "-A")
        git(self.work, "commit", "-qm", "a change")
        git(self.work, "push", "-q", "origin", "HEAD:main")
        return git(self.work, "rev-parse", "HEAD")

    def environment(self) -> dict[str, str]:
        entries = self.engine.containers.get(f"{self.prefix}-notify").attrs["Config"]["Env"]
        return dict(entry.partition("=")[::2] for entry in entries)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Ask the mail server itself, as its administrator."""
        mail = self.engine.containers.get(f"{self.prefix}-mail")
        [address] = [item["IPAddress"] for item in mail.attrs["NetworkSettings"]["Networks"].values()]
        login = ("admin", SECRETS["STALWART_ADMIN_PASSWORD"])
        answer = httpx.request(method, f"http://{address}:8080/api{path}", json=body, auth=login, trust_env=False)
        return answer.json().get("data")

    def accounts(self) -> dict[str, str]:
        """Name and description of each account but the administrator's."""
        try:
            items = self.ask("GET", "/principal?types=individual")["items"]
        except (httpx.HTTPError, docker.errors.APIError, ValueError, TypeError):
            return {}
        return {item["name"]: item.get("description", "") for item in items if item["name"] != "admin"}

    def uses(self, login: dict[str, str]) -> bool:
        """Whether the consumer sends its mail with a login."""
        with contextlib.suppress(docker.errors.NotFound):  # while it is made anew
            return login.items() <= self.environment().items()
        return False

    def provider(self) -> dict[str, Any]:
        """How the provider stands, as the daemon's page says."""
        return self.status().get("provider") or {}

    def status(self) -> dict[str, Any]:
        """What the daemon's own page says, asked from inside its container."""
        code = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9780/status.json').read().decode())"
        ended = self.daemon.exec_run(["python", "-I", "-c", code])
        return json.loads(ended.output) if ended.exit_code == 0 else {}

    def eventually(self, true: Callable[[], bool], seconds: float = 90.0) -> None:
        until = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < until, self.daemon.logs(tail=20).decode()
            time.sleep(0.2)


@pytest.fixture(scope="module")
def image(engine: docker.DockerClient, busybox: bytes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The daemon's image: the Dockerfile as it is, on what this machine has in the place of its base."""
    archive, mark = tmp_path_factory.mktemp("rootfs") / "rootfs.tar", uuid.uuid4().hex[:8]
    base, made = f"reconciler-test-rootfs:{mark}", f"reconciler-test-daemon:{mark}"
    path = rootfs.write(archive, busybox, _compose_plugin())
    try:
        subprocess.run(["docker", "import", "--change", f"ENV PATH={path}", archive, base], check=True)
        archive.unlink()
        arguments = {"BASE": base, "PACKAGES": "", "UID": str(UID)}
        options = [word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")]
        command = ["docker", "build", "-q", "--network", "none", "-t", made, *options, str(ROOT)]
        ended = subprocess.run(
            command, env={**os.environ, "DOCKER_BUILDKIT": "0"}, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, ended.stderr
        yield made
    finally:
        for name in (made, base):
            subprocess.run(["docker", "rmi", "-f", name], capture_output=True, check=False)


def _compose_plugin() -> Path:
    asked = ["docker", "info", "--format", "{{json .ClientInfo.Plugins}}"]
    said = subprocess.run(asked, capture_output=True, text=True, check=False).stdout or "[]"
    found = [Path(item["Path"]) for item in json.loads(said) or [] if item["Name"] == "compose"]
    if not found or shutil.which("ssh") is None:
        pytest.skip("there is no docker compose, or no ssh")
    return found[0].resolve()


@pytest.fixture
def server(engine: docker.DockerClient, image: str, small_image: str, tmp_path: Path) -> Iterator[Server]:
    host = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    if not host.startswith("unix://"):
        pytest.skip("the engine has no socket here")
    gate = Gate(tmp_path / "engine.sock", host.removeprefix("unix://"), allowed())
    os.chown(tmp_path / "engine.sock", -1, GROUP)
    (tmp_path / "engine.sock").chmod(0o660)
    made = Server(engine, f"reconciler-test-{uuid.uuid4().hex[:8]}", tmp_path / "mail", tmp_path / "work", gate)
    made.folder.mkdir()
    repository = made.folder / "mail.git"
    git(tmp_path, "init", "-q", "--bare", "-b", "main", str(repository))
    git(tmp_path, "clone", "-q", str(repository), str(made.work))
    (made.folder / ".env").touch()
    for name, value in SECRETS.items():
        (made.folder / name).write_text(value)
    script = shutil.copy(Path(__file__).parent / "mailserver.py", tmp_path / "mailserver.py")
    stack = YAML().load(STACK.format(image=image, small=small_image, prefix=made.prefix, script=script))
    with (made.folder / "compose.yml").open("w") as file:
        YAML().dump(pasted(stack, made, image, str(tmp_path / "engine.sock")), file)
    for path in (made.folder, *made.folder.rglob("*")):
        os.chown(path, UID, UID)
    for folder in (tmp_path, tmp_path.parent, tmp_path.parent.parent):  # the container's user has to get through
        folder.chmod(folder.stat().st_mode | 0o011)
    try:
        yield made
    finally:
        made.compose("down", "--timeout", "2", "--volumes")
        gate.close()


def allowed() -> list[tuple[str, str]]:
    """What docs/daemon.md says that a proxy has to let through: method and path, as a regular expression."""
    section = (ROOT / "docs" / "daemon.md").read_text().partition("## In a container")[2].partition("\n## ")[0]
    [block] = re.findall(r"```text\n(.*?)```", section, re.DOTALL)
    return [(method, r"(/v1\.\d+)?" + path) for method, path in (line.split() for line in block.splitlines())]


def pasted(stack: dict[str, Any], server: Server, image: str, socket_path: str) -> dict[str, Any]:
    """Put our service into a compose file, with this test's own names, branch and socket."""
    place = Layout(Path("reconciler"), server.folder / "desired-state", server.folder / ".reconciler", "ada", GROUP)
    [block] = compose(place).values()
    for there, here in {
        "command: [daemon, ": f"command: [daemon, --repo, {server.folder / 'mail.git'}, ",
        "source: /var/run/docker.sock": f"source: {socket_path}",
        "image: reconciler\n": f"image: {image}\n",
        "container_name: reconciler\n": f"container_name: {server.prefix}-daemon\n",
    }.items():
        assert there in block, there
        block = block.replace(there, here)
    service = YAML().load(block)
    service["services"]["reconciler"]["secrets"] = list(SECRETS)
    service["secrets"] = {name: {"file": str(server.folder / name)} for name in SECRETS}
    return {key: {**stack.get(key, {}), **service.get(key, {})} for key in ("services", "secrets", "volumes")}


# --------------------------------------------------------------------------------------------------------- the test
def test_the_daemon_in_its_container_follows_git_and_heals(server: Server) -> None:
    texts = {"submission": SUBMISSION, "relay": RELAY}
    first = server.push(reconciler=RECONCILER.format(prefix=server.prefix), smtp=SMTP.format(**texts))
    server.compose("up", "-d", "--pull", "never")

    # What the repository says is applied: the account, and the login that the consumer gets, proven before.
    server.eventually(lambda: server.uses(HOME))
    assert server.accounts() == {"noreply": "Sends every mail"}
    server.eventually(lambda: server.status().get("state") == "in_sync")
    assert server.status()["source"]["commit"] == first

    # A hand edit is healed.
    change = [{"action": "set", "field": "description", "value": "by hand"}]
    server.ask("PATCH", "/principal/noreply", change)
    assert server.accounts() == {"noreply": "by hand"}
    server.eventually(lambda: server.accounts() == {"noreply": "Sends every mail"})

    # The mail server is lost with its volume, and comes back as it was.
    mail = server.engine.containers.get(f"{server.prefix}-mail").id
    server.compose("rm", "--stop", "--force", "--volumes", "stalwart")
    server.engine.volumes.get(f"{server.prefix}_mail").remove()
    server.compose("up", "-d", "--pull", "never", "--no-deps", "stalwart")
    assert server.engine.containers.get(f"{server.prefix}-mail").id != mail
    server.eventually(lambda: server.accounts() == {"noreply": "Sends every mail"})

    # A push switches the provider; nothing but the consumer is recreated.
    kept = {name: server.engine.containers.get(f"{server.prefix}-{name}").id for name in ("mail", "daemon")}
    second = server.push(smtp=SMTP.format(**texts).replace("provider: home", "provider: relay"))
    server.eventually(lambda: server.uses(AWAY))
    assert {name: server.engine.containers.get(f"{server.prefix}-{name}").id for name in kept} == kept
    server.eventually(lambda: server.status().get("source", {}).get("commit") == second)
    server.eventually(lambda: server.status().get("state") == "in_sync")

    fails_over(server, SMTP.format(**texts))
    confined(server)
    assert server.gate.refused == set(), "nothing is asked of the engine that the documentation does not list"
    ended(server)


def fails_over(server: Server, smtp: str) -> None:
    """The mail port closes, the consumer runs through the standby; it opens, and after a while it is used again."""
    pushed = server.push(smtp=smtp.replace("  provider: home\n", f"  provider: home\n{FAILOVER}"))
    server.eventually(lambda: server.uses(HOME))
    server.eventually(lambda: server.status().get("source", {}).get("commit") == pushed)
    server.eventually(lambda: server.provider().get("taken") is True)
    kept = {name: server.engine.containers.get(f"{server.prefix}-{name}").id for name in ("mail", "daemon")}

    server.engine.containers.get(f"{server.prefix}-mail").kill("SIGUSR1")
    server.eventually(lambda: server.uses(AWAY))
    server.eventually(lambda: server.provider().get("failover") is not None)
    over = server.provider()["failover"]
    assert (over["provider"], over["to"]) == ("home", "relay")
    assert f"stalwart:{SUBMISSION}" in over["why"]
    server.eventually(lambda: server.status().get("state") == "in_sync")
    time.sleep(8)  # longer than it would take to go back
    assert server.uses(AWAY), "it does not go back while the port is closed"

    server.engine.containers.get(f"{server.prefix}-mail").kill("SIGUSR2")
    opened = time.monotonic()
    server.eventually(lambda: server.uses(HOME))
    assert time.monotonic() - opened >= 6, "it goes back only after it was healthy for the whole time"
    server.eventually(lambda: server.status().get("state") == "in_sync")
    assert server.provider()["failover"] is None
    assert {name: server.engine.containers.get(f"{server.prefix}-{name}").id for name in kept} == kept


def confined(server: Server) -> None:
    """It is somebody without rights, its root can't be written, its own check finds it well, and no secret is told."""
    said = server.daemon.exec_run(
        ["python", "-I", "-c", "import os; print(os.getuid()); open('/home/reconciler/x', 'w')"]
    )
    assert f"{UID}\n" in said.output.decode()
    assert "Read-only file system" in said.output.decode()
    check = server.daemon.attrs["Config"]["Healthcheck"]["Test"]
    assert check[0] == "CMD"
    assert server.daemon.exec_run(check[1:]).exit_code == 0
    told = server.daemon.logs().decode() + json.dumps(server.status())
    assert [name for name, value in SECRETS.items() if value in told] == []
    assert '"result": "done"' in told


def ended(server: Server) -> None:
    """SIGTERM ends it soon, by its own exit code."""
    daemon = server.daemon
    daemon.kill("SIGTERM")
    assert daemon.wait(timeout=60)["StatusCode"] == 143
