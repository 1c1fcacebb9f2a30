"""The stand-in for `docker compose`: by itself on the fake engine, and beside the real program where there is one.

RECONCILER_REAL_COMPOSE may name real programs (paths, separated as in PATH); `docker compose` is tried otherwise.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from properties import tries

from reconciler.simulator import compose
from reconciler.simulator.docker import CRASH_LOOPING, FAILING, SLOW, Behaviour, Docker
from reconciler.simulator.wire import Fault, Server

LABEL = "com.docker.compose"
STACK = """
services:
  notify:
    image: notify:local
    container_name: core-notify
    restart: always
    depends_on: [mail]
    environment:
      PORT: 3013
      SMTP_HOST: ${SMTP_HOST:-mail}
      SMTP_PASSWORD: ${SMTP_PASSWORD:-}
    ports: ["3013:3013"]
    healthcheck: {test: "wget -q localhost", interval: 120s}
  mail:
    image: mail:local
    environment:
      - ADMIN=${ADMIN:?say who}
    volumes: ["data:/opt/mail"]
volumes:
  data:
"""


class Program:
    """The stand-in in one project directory, with an environment of its own."""

    def __init__(self, directory: Path, host: str) -> None:
        self.directory = directory
        self.host = host
        self.write("compose.yaml", STACK)
        self.write(".env", "ADMIN=me\n")

    def write(self, name: str, text: str) -> None:
        (self.directory / name).write_text(text)

    def __call__(self, *arguments: str, **environment: str) -> tuple[int, str, str]:
        return stand_in(
            ["--project-directory", str(self.directory), *arguments], self.directory, self.host, environment
        )

    def up(self, *more: str, **environment: str) -> tuple[int, str, str]:
        return self("up", "-d", "--no-deps", "--no-build", "--pull", "never", *more, **environment)


def stand_in(
    arguments: list[str], directory: Path, host: str = "", environment: Mapping[str, str] | None = None
) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(directory),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch.dict(os.environ, {"DOCKER_HOST": host, **(environment or {})}, clear=True),
    ):
        code = compose.main(arguments)
    return code, out.getvalue(), err.getvalue()


@pytest.fixture
def fake() -> Docker:
    fake = Docker()
    fake.add_image("notify:local")
    fake.add_image("mail:local")
    return fake


@pytest.fixture
def server(fake: Docker) -> Iterator[Server]:
    with Server(fake) as server:
        yield server
    assert server.crashes == []


@pytest.fixture
def program(tmp_path: Path, server: Server) -> Program:
    return Program(tmp_path, server.url)


# ------------------------------------------------------------------------------------------------------ by itself
def test_it_runs_as_a_program(tmp_path: Path) -> None:
    run = [sys.executable, "-m", "reconciler.simulator.compose", "version", "--short"]
    result = subprocess.run(run, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3])
    assert result.stdout == "2.40.3\n"


def test_a_service_is_made_with_compose_s_labels(program: Program, fake: Docker) -> None:
    program.write("mine.env", "ADMIN=me\nSMTP_PASSWORD='p$w'\n")
    assert program("--env-file", "mine.env", "-f", "compose.yaml", "-p", "mana", "up", "-d", "--pull", "never")[0] == 0
    container = fake.named("core-notify")
    assert container.environment == {"PORT": "3013", "SMTP_HOST": "mail", "SMTP_PASSWORD": "p$w"}
    labels = {key.removeprefix(f"{LABEL}."): value for key, value in container.labels.items()}
    assert labels["project"] == "mana"
    assert labels["service"] == "notify"
    assert labels["project.working_dir"] == str(program.directory)
    assert labels["project.config_files"] == str(program.directory / "compose.yaml")
    assert labels["project.environment_file"] == str(program.directory / "mine.env")
    code, text, _ = program("--env-file", "mine.env", "-p", "mana", "config", "--hash", "notify")
    assert (code, text) == (0, f"notify {labels['config-hash']}\n")
    assert container.endpoints["mana_default"].aliases == ["core-notify", "notify"]
    assert fake.named("mana-mail-1").mounts[0]["Name"] == "mana_data"


def test_only_a_changed_service_is_made_anew(program: Program, fake: Docker) -> None:
    program.up("notify", "mail")
    before = {item.name: item.id for item in fake.containers.values()}
    assert program.up("notify", "mail")[0] == 0
    assert {item.name: item.id for item in fake.containers.values()} == before
    program.write(".env", "ADMIN=me\nSMTP_HOST=smtp.example\n")
    assert program.up("notify", "mail")[0] == 0
    after = {item.name: item.id for item in fake.containers.values()}
    assert after.keys() == before.keys()
    assert [name for name in before if after[name] != before[name]] == ["core-notify"]
    assert fake.named("core-notify").environment["SMTP_HOST"] == "smtp.example"


def test_no_deps_leaves_the_others_alone(program: Program, fake: Docker) -> None:
    assert program.up("notify")[0] == 0
    assert [item.name for item in fake.containers.values()] == ["core-notify"]
    assert program("up", "-d", "--pull", "never", "notify")[0] == 0
    assert len(fake.containers) == 2


@pytest.mark.parametrize("path", ["/stop", "/rename", "/start"])
def test_an_up_that_was_killed_is_finished_by_the_next(
    program: Program, fake: Docker, server: Server, path: str
) -> None:
    program.up("notify")
    program.write(".env", "ADMIN=me\nSMTP_HOST=smtp.example\n")
    server.faults = [Fault(method="POST", path=rf"{path}($|\?)", refuse=True)]
    assert program.up("notify")[0] == 1
    assert program.up("notify")[0] == 0
    [container] = fake.containers.values()
    assert container.name.endswith("core-notify")  # its passing name stays where it was killed before the renaming
    assert container.running
    assert container.environment["SMTP_HOST"] == "smtp.example"


def test_a_required_variable_of_another_service_stops_everything(program: Program, fake: Docker) -> None:
    program.write(".env", "")
    code, _, error = program.up("notify")
    assert code == 1
    assert "services.mail.environment" in error
    assert "required variable ADMIN is missing a value: say who" in error
    assert fake.containers == {}
    assert program("config", "-q")[0] == 1


def test_the_process_s_environment_wins_over_the_env_file(program: Program) -> None:
    program.write(".env", "ADMIN=me\nSMTP_HOST=file\n")
    _, text, _ = program("config", "--format", "json", SMTP_HOST="process")
    assert json.loads(text)["services"]["notify"]["environment"]["SMTP_HOST"] == "process"


@pytest.mark.parametrize(
    ("behaviour", "code", "message"),
    [
        (Behaviour(), 0, "Healthy"),
        (Behaviour(verdict_after=0.3), 0, "Healthy"),
        (FAILING, 1, "container core-notify is unhealthy"),
        (SLOW, 1, "application not healthy after 1s"),
    ],
)
def test_waiting(program: Program, fake: Docker, behaviour: Behaviour, code: int, message: str) -> None:
    fake.behaviours["core-notify"] = behaviour
    ended, _, said = program.up("--wait", "--wait-timeout", "1", "notify")
    assert ended == code
    assert message in said


def test_waiting_for_what_has_no_check(program: Program, fake: Docker) -> None:
    program.write("compose.yaml", "services:\n  a: {image: mail:local}\n  b: {image: mail:local, restart: always}\n")
    fake.script = lambda _item: CRASH_LOOPING
    code, _, said = program.up("--wait", "a")
    assert code == 1
    assert "-a-1 exited (1)" in said
    assert program.up("--wait", "b")[0] == 0  # as the real one: what is being restarted counts as running


def test_ps_shows_what_runs(program: Program, fake: Docker) -> None:
    program.up("notify", "mail")
    fake.named("core-notify").running = False
    _, text, _ = program("ps", "--format", "json")
    shown = [json.loads(line) for line in text.splitlines()]
    assert [(item["Service"], item["State"]) for item in shown] == [("mail", "running")]
    _, text, _ = program("ps", "-a", "--format", "json", "notify")
    assert json.loads(text)["State"] == "exited"


def test_a_project_is_called_after_its_directory_however_that_is_written(program: Program) -> None:
    (program.directory / "inner").mkdir()
    ask = ("config", "--format", "json")
    code, text, _ = program("--project-directory", "inner/..", "-f", "inner/../compose.yaml", *ask)
    assert (code, text) == (0, program(*ask)[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--nope", "config"], "--nope"),
        (["up", "-d", "--pull", "never", "-y"], "-y"),
        (["up", "-d", "--pull", "never", "--wait-time", "3"], "--wait-time"),
        (["up", "-d", "--pull", "never", "nosuch"], "no such service: nosuch"),
        (["config", "--hash", "nosuch"], "no such service: nosuch"),
        (["--env-file", "nosuch.env", "config", "-q"], "couldn't find env file"),
        (["-f", "nosuch.yaml", "config", "-q"], "no such file or directory"),
        (["-p", "Z z", "config", "-q"], "invalid project name"),
        (["explode"], "explode"),
    ],
)
def test_refusals_end_with_1(program: Program, arguments: list[str], message: str) -> None:
    code, _, error = program(*arguments)
    assert code == 1
    assert message in error


def test_no_engine_and_no_image(program: Program, fake: Docker) -> None:
    fake.images.clear()
    code, _, error = program.up("notify")
    assert code == 1
    assert "No such image: notify:local" in error
    code, _, error = program.up("notify", DOCKER_HOST="tcp://127.0.0.1:1")
    assert code == 1
    assert "Cannot connect to the Docker daemon at tcp://127.0.0.1:1" in error


# ---------------------------------------------------------------------------------------------- beside the real one
def real_programs() -> list[list[str]]:
    named = os.environ.get("RECONCILER_REAL_COMPOSE")
    if named:
        return [[path] for path in named.split(os.pathsep)]
    if shutil.which("docker"):
        found = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
        return [["docker", "compose"]] if found.returncode == 0 else []
    return []


REAL = real_programs()
KEPT = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
Real = Callable[[list[str], Path, Mapping[str, str]], tuple[int, str, str]]
Both = Callable[[Path, list[str], dict[str, str]], tuple[Any, Any]]


@pytest.fixture(scope="module", params=REAL or [None], ids=lambda it: Path(it[-1]).name if it else "none")
def real(request: pytest.FixtureRequest) -> Real:
    """Run the real program in a directory."""
    if request.param is None:
        pytest.skip("no real Docker Compose: neither RECONCILER_REAL_COMPOSE nor `docker compose`")

    def run(arguments: list[str], directory: Path, environment: Mapping[str, str]) -> tuple[int, str, str]:
        ended = subprocess.run(
            [*request.param, *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=directory,
            env={**KEPT, **environment},
            stdin=subprocess.DEVNULL,
        )
        assert ended.returncode in (0, 1), ended.stderr
        return ended.returncode, ended.stdout, ended.stderr

    return run


@pytest.fixture(scope="module")
def both(real: Real) -> Both:
    """Return a function that gives the model the stand-in makes of a directory, and the real program's."""

    def models(directory: Path, arguments: list[str], environment: dict[str, str]) -> tuple[Any, Any]:
        mine = stand_in(arguments, directory, environment={**KEPT, **environment})
        theirs = real(arguments, directory, environment)
        return tuple(json.loads(text) if code == 0 else None for code, text, _ in (mine, theirs))

    return models


def environments(model: Any) -> Any:
    return model and {name: service.get("environment") for name, service in model["services"].items()}


TABLE = {
    "plain": ("A=1\nB = two words # comment\n", "[A, B]", {}),
    "quotes": ("A=\"x # y\\n\"\nB='$A \\n'\n", "[A, B]", {}),
    "escapes": ('A="\\$ \\\\ \\" \\t \\q"\n', "[A]", {}),
    "interpolation": ("A=1\nB=${A}-${C:-d}-$$-$A\n", "[B]", {}),
    "the process wins": ("A=1\nB=${A}\n", "[A, B]", {"A": "2"}),
    "export and colon": ("export A=1\nB: 2\n\n# C=3\n  D=4\nP\n", "[A, B, C, D, P]", {"P": "p"}),
    "no equals sign": ("A\nB=\n", "[A, B]", {}),
    "half-open": ('A="x\n', "[A]", {}),
    "bad key": ("A B=1\n", "[A]", {}),
    "windows": ("A=1\r\nB='2'\r\n", "[A, B]", {}),
    "defaults": ("E=\n", '{A: "${X:-a}${X-b}${E:-c}${E-d}", B: "${E:+f}${E+g}${X:+h}${X+i}"}', {}),
    "nested": ("Y=y\n", '{A: "${X:-${Y:-z}}", B: "${Y:+${X:-in}}", C: "$${Y}", D: "$1 $ a$"}', {}),
    "required": ("E=\n", '{A: "${E:?must}"}', {}),
    "required but empty": ("E=\n", '{A: "${E?must}"}', {}),
    "unclosed": ("E=\n", '{A: "${E"}', {}),
    "scalars": ("", '{A: 3001, B: 1.50, C: true, D: yes, E: 010, F: 0x1F, G: 1e3, H: "", I: , J: ~, K: on}', {}),
    "list": ("M=m\n", '["A=1", "B=", "C=x=y", "D", M, "P=${M}"]', {}),
    "block": ("A=1\n", "{A: |-\n        one\n        two $${x} ${A}\n      }", {}),
}


@pytest.mark.parametrize("case", TABLE)
def test_it_reads_as_the_real_one(tmp_path: Path, both: Both, case: str) -> None:
    dotenv, environment, process = TABLE[case]
    (tmp_path / "e.env").write_text(dotenv, newline="")
    (tmp_path / "c.yaml").write_text(f"services:\n  a:\n    image: x\n    environment: {environment}\n")
    mine, real = both(tmp_path, ["-f", "c.yaml", "--env-file", "e.env", "config", "--format", "json"], process)
    assert environments(mine) == environments(real)


PROJECTS = {
    "the stack": STACK,
    "env files": """
services:
  a:
    image: x
    env_file: [a.env, {path: no.env, required: false}]
    environment: {PORT: 1, T: true, M: , N: }
  b: {image: x, env_file: a.env, depends_on: {a: {condition: service_healthy}}}
""",
    "anchors": """
x-env: &env {A: 1, B: two}
services:
  a: {image: x, environment: {<<: *env, B: "${M}"}, labels: [l=1], command: sleep 10, mem_limit: 256m}
  b:
    image: x
    networks: {back: {aliases: [bee]}}
    volumes: ["./d:/d:ro", "/etc/hosts:/h", "v:/data", /anonymous]
    ports: ["127.0.0.1:9:8/udp", 7]
networks: {back: }
""",
    "override": None,
}


def without_create_path(model: Any) -> Any:
    """Leave out what version 5 writes as an empty map."""
    for service in (model or {"services": {}})["services"].values():
        for volume in service.get("volumes", []):
            volume.pop("bind", None)
    return model


@pytest.mark.parametrize("raw", [False, True], ids=["interpolated", "raw"])
@pytest.mark.parametrize("case", PROJECTS)
def test_it_models_a_project_as_the_real_one(tmp_path: Path, both: Both, case: str, raw: bool) -> None:
    (tmp_path / ".env").write_text("ADMIN=me\nM=em\nSMTP_PASSWORD='p$w\"'\n")
    (tmp_path / "a.env").write_text("EF=x\nPORT=2\nEF2=${M}-${EF}-${T}\nM\nQ='${M}'\n")
    (tmp_path / "compose.yaml").write_text(PROJECTS[case] or STACK)
    if case == "override":
        text = "services:\n  notify: {environment: {PORT: 9, NEW: n}, ports: ['1:1']}\n"
        (tmp_path / "compose.override.yaml").write_text(text)
    mine, real = both(tmp_path, ["-p", "p", "config", *(["--no-interpolate"] if raw else []), "--format", "json"], {})
    assert mine is not None
    assert without_create_path(mine) == without_create_path(real)


def world(fake: Docker) -> Any:
    """Say what stands on an engine, but for what each program names for itself."""
    own = {f"{LABEL}.{key}" for key in ("config-hash", "version", "image", "depends_on", "replace")}
    return {
        item.name: {
            "labels": {key: value for key, value in item.labels.items() if key not in own},
            "environment": item.environment,
            "running": item.running,
            "mounts": sorted((mount["Destination"], mount["Source"], mount["RW"]) for mount in item.mounts),
            "aliases": {name: sorted(endpoint.aliases) for name, endpoint in item.endpoints.items()},
            "health": {key: value for key, value in (item.config.get("Healthcheck") or {}).items() if value},
            "ports": item.host.get("PortBindings") or {},
            "restart": item.host.get("RestartPolicy", {}).get("Name") or "no",
        }
        for item in fake.containers.values()
    }


def test_it_leaves_the_engine_as_the_real_one_does(tmp_path: Path, real: Real) -> None:
    up = ["-p", "p", "up", "-d", "--no-deps", "--no-build", "--pull", "never"]
    (tmp_path / "compose.yaml").write_text(STACK)
    worlds: dict[str, list[Any]] = {"stand-in": [], "real": []}
    for who, seen in worlds.items():
        fake = Docker()
        fake.add_image("notify:local", Volumes={"/cache": {}})
        fake.add_image("mail:local")
        with Server(fake) as server:
            for text, services in (("ADMIN=me", ["notify", "mail"]), ("ADMIN=me\nSMTP_HOST=other", ["notify"])):
                (tmp_path / ".env").write_text(text)
                before = {item.name: item.id for item in fake.containers.values()}
                environment = {"DOCKER_HOST": server.url.replace("http://", "tcp://")}
                run = real if who == "real" else stand_in_with
                code, _, error = run([*up, *services], tmp_path, environment)
                assert code == 0, error
                kept = sorted(item.name for item in fake.containers.values() if before.get(item.name) == item.id)
                anonymous = [it for it in world(fake)["core-notify"]["mounts"] if it[0] == "/cache"]
                seen.append((without_anonymous(world(fake)), kept, len(fake.volumes), len(anonymous)))
    assert worlds["stand-in"] == worlds["real"]
    assert worlds["real"][1][1] == ["p-mail-1"]


def stand_in_with(arguments: list[str], directory: Path, environment: Mapping[str, str]) -> tuple[int, str, str]:
    return stand_in(arguments, directory, environment["DOCKER_HOST"])


def without_anonymous(state: Any) -> Any:
    for container in state.values():
        container["mounts"] = [mount for mount in container["mounts"] if mount[0] != "/cache"]
    return state


PIECES = r"$ $$ { } ${A} ${B:-x} ${C-y} ${A:+z} ${D $A $ZZ $1 \ \\ \n \$ \" \' # a é = : \0101 \a - ${A:-${B:-q}}"
FRAGMENTS = st.lists(
    st.sampled_from([*PIECES.split(" "), '"', "'", " ", " #", "\t", "\n", "b c", "\r"]), max_size=7
).map("".join)
VALUES = FRAGMENTS.flatmap(lambda text: st.sampled_from([text, f'"{text}"', f"'{text}'"]))


@settings(max_examples=tries(40), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(value="\na\ta")
@example(value="\na\ta\n")
@example(value="\nexport\tA")
@example(value="\na b")
@given(value=VALUES)
def test_any_env_file_is_read_as_by_the_real_one(both: Both, value: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "e.env").write_text(f"B=bee\nV={value}\n", newline="")
        (directory / "c.yaml").write_text("services:\n  a: {image: x, environment: [V]}\n")
        arguments = ["-f", "c.yaml", "-p", "p", "--env-file", "e.env", "config", "--format", "json"]
        mine, real = both(directory, arguments, {"A": "aval"})
    assert environments(mine) == environments(real)


@settings(max_examples=tries(40), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=FRAGMENTS)
def test_any_text_is_interpolated_as_by_the_real_one(both: Both, value: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        model = {"services": {"a": {"image": "x", "environment": {"V": value}}}}
        (directory / "c.yaml").write_text(json.dumps(model))
        mine, real = both(directory, ["-f", "c.yaml", "-p", "p", "config", "--format", "json"], {"A": "aval", "B": ""})
    assert environments(mine) == environments(real)
