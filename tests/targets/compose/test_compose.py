from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from e2e.stagefixtures import Zygote

from reconciler.plan import Desired, diff
from reconciler.problem import Problem, SecretUnreadable, Severity, TargetUnreadable
from reconciler.resources import (
    UNKNOWN,
    Different,
    Login,
    Observation,
    Resource,
    Same,
    Secret,
    SecretPart,
    SecretRef,
    SecretText,
    Unreadable,
    Variable,
)
from reconciler.simulator.compose import main as stand_in
from reconciler.simulator.docker import CRASH_LOOPING, FAILING, HEALTHY, SLOW, Behaviour, Container, Docker
from reconciler.simulator.wire import Fault, Reply, Server
from reconciler.target import Change, Outcome, Status
from reconciler.targets.compose import Compose, Patience
from reconciler.targets.compose.engine import Engine
from reconciler.targets.compose.envfile import EnvFile
from reconciler.targets.compose.program import Program
from reconciler.targets.compose.project import Project
from reconciler.targets.compose.snapshot import _far, read

COMPOSE = """\
services:
  mana-auth:
    image: mana-auth:local
    environment:
      MANA_SERVICE_KEY: ${MANA_SERVICE_KEY}
      MANA_NOTIFY_URL: http://mana-notify:3013

  mana-notify:
    image: mana-notify:local
    container_name: mana-core-notify
    restart: always
    depends_on: [stalwart]
    environment:
      SERVICE_KEY: ${MANA_SERVICE_KEY:-dev-service-key}
      SMTP_HOST: ${SMTP_HOST:-stalwart}
      SMTP_PORT: ${SMTP_PORT:-587}
      SMTP_PASSWORD: ${SMTP_PASSWORD:-}
      SMTP_INSECURE_TLS: "true"

  stalwart:
    image: stalwartlabs/stalwart:latest
    environment:
      - ADMIN=${STALWART_ADMIN_PASSWORD}
"""

ENV = """\
# kept as it is
COMPOSE_PROJECT_NAME=mana-stack
MANA_SERVICE_KEY=canary-service-key
STALWART_ADMIN_PASSWORD=canary-admin-password
"""

SECRETS = {
    "NEW": "canary $new \"pass'word\\",
    "MANA_SERVICE_KEY": "canary-service-key",
    "NEXT_KEY": "canary-next-key",
}


def ref(name: str) -> SecretRef:
    return SecretRef("env", name)


def reveal(secret: Secret) -> str:
    if isinstance(secret, SecretText):
        return "".join(part if isinstance(part, str) else reveal(part.ref) for part in secret.parts)
    if secret.name not in SECRETS:
        raise SecretUnreadable(Problem(f"env {secret.name}", "is not set", f"export {secret.name}"))
    return SECRETS[secret.name]


def text(*parts: str | SecretRef) -> SecretText:
    return SecretText(tuple(part if isinstance(part, str) else SecretPart(part) for part in parts))


def wanted(service: str, name: str, value: Any, **more: Any) -> Variable:
    return Variable(service, name, value, value, **more)


@dataclass
class World:
    """A directory with a compose file and an env file, and the engine on which the project runs."""

    directory: Path
    engine: Docker
    server: Server
    program: tuple[str, ...]
    progress: list[str] = field(default_factory=list)
    target_options: dict[str, Any] = field(default_factory=dict)

    @property
    def compose_file(self) -> Path:
        return self.directory / "docker-compose.macmini.yml"

    @property
    def env_file(self) -> Path:
        return self.directory / ".env.macmini"

    @property
    def docker_host(self) -> str:
        return self.server.url.replace("http://", "tcp://")

    def target(self, **options: Any) -> Compose:
        defaults: dict[str, Any] = {
            "file": self.compose_file,
            "env_file": self.env_file,
            "project": None,
            "stack": "mana",
            "program": self.program,
            "docker_host": self.docker_host,
            "progress": self.progress.append,
            "patience": Patience(ready=0.5, settle=0.2, pause=0.05),
            "public": ("stalwart", "587"),
        }
        return Compose(**{**defaults, **self.target_options, **options})

    def up(self, *services: str) -> None:
        files = ["-f", str(self.compose_file), "--env-file", str(self.env_file)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DOCKER_HOST", self.docker_host)
            assert stand_in([*files, "up", "-d", "--no-deps", "--no-build", "--pull", "never", *services]) == 0

    def edit(self, before: str, after: str) -> None:
        content = self.compose_file.read_text()
        assert before in content
        self.compose_file.write_text(content.replace(before, after))

    def running(self, name: str) -> dict[str, str]:
        return self.engine.named(name).environment

    def ids(self) -> dict[str, str]:
        return {item.name: item.id for item in self.engine.containers.values()}

    def plan(self, *variables: Resource, **options: Any) -> tuple[Observation, tuple[Change, ...]]:
        """Return what is seen, and the changes that no refusal stands in the way of."""
        seen = self.target(**options).observe(variables, reveal)
        plan = diff(Desired(list(variables)), {"compose": seen}, stack="mana")
        refused = {problem.scope for problem in plan.refused}
        scopes = ((f"smtp/{change.resource.service}", change) for change in plan.changes)
        return seen, tuple(change for scope, change in scopes if scope not in refused)

    def apply(self, *variables: Resource, **options: Any) -> list[Outcome]:
        _, changes = self.plan(*variables, **options)
        return list(self.target(**options).apply(changes, reveal))


@pytest.fixture
def world(tmp_path: Path, zygote: Zygote) -> Iterator[World]:
    (tmp_path / "docker-compose.macmini.yml").write_text(COMPOSE)
    (tmp_path / ".env.macmini").write_text(ENV)
    (tmp_path / ".env.macmini").chmod(0o600)
    engine = Docker()
    for image in ("mana-auth:local", "mana-notify:local", "stalwartlabs/stalwart:latest"):
        engine.add_image(image, Env=["PATH=/bin"])
    zygote.forget()
    with Server(engine) as server:
        made = World(tmp_path, engine, server, (str(zygote.client),))
        made.up()
        yield made
        assert server.crashes == []


NOTIFY = "mana-core-notify"


def errors(seen: Observation) -> dict[str, Problem]:
    return {item.where: item for item in seen.problems if item.severity is not Severity.WARNING}


def warnings(seen: Observation) -> list[str]:
    return [str(item) for item in seen.problems if item.severity is Severity.WARNING]


def statuses(outcomes: list[Outcome]) -> set[Status]:
    return {item.status for item in outcomes}


def assert_silent(*said: object) -> None:
    """No secret's value, old or new, stands in anything that was said."""
    text = repr(said)
    assert "canary" not in text
    assert SECRETS["NEW"] not in text


HOST = wanted("mana-notify", "SMTP_HOST", "smtp-relay.brevo.com")
PASSWORD = wanted("mana-notify", "SMTP_PASSWORD", ref("NEW"))
KEYS = (wanted("mana-auth", "MANA_SERVICE_KEY", ref("NEXT_KEY")), wanted("mana-notify", "SERVICE_KEY", ref("NEXT_KEY")))


# -------------------------------------------------------------------------------------------------------- observing
def test_what_runs_and_what_the_files_give_is_compared(world: World) -> None:
    world.env_file.write_text(ENV + "SMTP_HOST=edited\n")
    seen, changes = world.plan(
        HOST,
        PASSWORD,
        wanted("mana-notify", "SMTP_PORT", "587"),
        wanted("mana-auth", "MANA_SERVICE_KEY", ref("MANA_SERVICE_KEY")),
    )
    assert [item.resource for item in seen.live] == [
        Variable("mana-notify", "SMTP_HOST", "stalwart", "edited"),
        Variable("mana-notify", "SMTP_PASSWORD", Different(), Different()),
        Variable("mana-notify", "SMTP_PORT", "587", "587"),
        Variable("mana-auth", "MANA_SERVICE_KEY", Same(ref("MANA_SERVICE_KEY")), Same(ref("MANA_SERVICE_KEY"))),
    ]
    assert {change.address for change in changes} == {"smtp/mana-notify/SMTP_HOST", "smtp/mana-notify/SMTP_PASSWORD"}
    assert not errors(seen)
    assert seen.head == ("compose project mana-stack, Docker Compose 2.40.3",)
    assert seen.networks == {"default": ("172.18.0.0/16",)}
    assert [item.detail.also_used_by for item in seen.live][3] == ("mana-notify.SERVICE_KEY",)
    assert_silent(seen, changes)


def test_a_text_with_a_secret_and_candidates_get_verdicts(world: World) -> None:
    whole = text("canary-", ref("REST"))
    SECRETS_HERE = {"REST": "service-key"}

    def reveal_here(secret: Secret) -> str:
        if isinstance(secret, SecretText):
            return "".join(part if isinstance(part, str) else reveal_here(part.ref) for part in secret.parts)
        return SECRETS_HERE[secret.name]

    unknown = wanted("mana-auth", "MANA_SERVICE_KEY", UNKNOWN, candidates=(text("x", ref("REST")), whole))
    seen = world.target().observe([unknown], reveal_here)
    assert seen.live[0].resource == Variable("mana-auth", "MANA_SERVICE_KEY", Same(whole), Same(whole))


def test_a_value_still_unknown_shows_the_plain_live_one(world: World) -> None:
    seen = world.target().observe([wanted("mana-notify", "SMTP_HOST", UNKNOWN)], reveal)
    assert seen.live[0].resource == Variable("mana-notify", "SMTP_HOST", "stalwart", "stalwart")
    assert not seen.problems


def test_a_secret_that_can_not_be_read_blocks_its_service_only(world: World) -> None:
    seen, changes = world.plan(wanted("mana-notify", "SMTP_PASSWORD", ref("MISSING")), HOST, KEYS[0])
    assert isinstance(seen.live[0].resource, Variable)
    assert isinstance(seen.live[0].resource.running, Unreadable)
    assert [(item.where, item.scope) for item in errors(seen).values()] == [("env MISSING", "smtp/mana-notify")]
    assert [change.address for change in changes] == ["smtp/mana-auth/MANA_SERVICE_KEY"]


def test_one_off_and_dead_containers_do_not_count_and_of_twins_the_newest(world: World) -> None:
    labels = dict(world.engine.named(NOTIFY).labels)
    world.engine.run(
        "once", "mana-notify:local", env={"SMTP_HOST": "x"}, labels=labels | {"com.docker.compose.oneoff": "True"}
    )
    world.engine.named(NOTIFY).created -= 100
    world.engine.run("0123456789ab_mana-core-notify", "mana-notify:local", env={"SMTP_HOST": "newer"}, labels=labels)
    seen, _ = world.plan(HOST)
    assert seen.live[0].resource == Variable("mana-notify", "SMTP_HOST", "newer", "stalwart")


def test_a_consumer_without_a_container_is_started(world: World) -> None:
    world.engine.containers.pop(world.engine.named(NOTIFY).id)
    seen, _ = world.plan(HOST)
    assert seen.live[0].resource == Variable("mana-notify", "SMTP_HOST", None, "stalwart")
    assert any("no container of it runs: apply starts one" in item for item in warnings(seen))
    assert statuses(world.apply(HOST)) == {Status.DONE}
    assert world.running(NOTIFY)["SMTP_HOST"] == "smtp-relay.brevo.com"


# --------------------------------------------------------------------------------------------- what can't be switched
@pytest.mark.parametrize(
    ("entry", "line", "said"),
    [
        ('SMTP_INSECURE_TLS: "true"', "SMTP_INSECURE_TLS: ${SMTP_INSECURE_TLS:-true}", "holds a literal"),
        ("SMTP_INSECURE_TLS: a b", "SMTP_INSECURE_TLS: ${SMTP_INSECURE_TLS:-}", "holds a literal"),
        ("SMTP_INSECURE_TLS: ${A}-$B", "SMTP_INSECURE_TLS: ${SMTP_INSECURE_TLS:-${A}-$B}", "more than one variable"),
        (
            "SMTP_INSECURE_TLS: x-${A:-b}",
            "SMTP_INSECURE_TLS: ${SMTP_INSECURE_TLS:-}",
            "more than one variable",
        ),
        ("SMTP_INSECURE_TLS: ${A:+b}", "SMTP_INSECURE_TLS: ${SMTP_INSECURE_TLS:-}", "more than one variable"),
        ("SMTP_INSECURE_TLS: b}", "SMTP_INSECURE_TLS: ${SMTP_INSECURE_TLS:-}", "holds a literal"),
    ],
)
def test_a_literal_is_named_with_its_line_and_the_text_to_put_there(
    world: World, entry: str, line: str, said: str
) -> None:
    world.edit('SMTP_INSECURE_TLS: "true"', entry)
    seen, changes = world.plan(HOST, wanted("mana-notify", "SMTP_INSECURE_TLS", "false"), KEYS[0])
    problem = errors(seen)["smtp/mana-notify/SMTP_INSECURE_TLS"]
    assert "docker-compose.macmini.yml:18" in problem.summary
    assert said in problem.summary
    assert problem.hint == f"put there: `{line}`"
    assert [change.address for change in changes] == ["smtp/mana-auth/MANA_SERVICE_KEY"]


def test_a_literal_in_a_list_keeps_its_form_and_a_secret_one_is_not_repeated(world: World) -> None:
    world.edit("- ADMIN=${STALWART_ADMIN_PASSWORD}", "- ADMIN=canary-literal")
    seen, _ = world.plan(wanted("stalwart", "ADMIN", ref("NEW")))
    problem = errors(seen)["smtp/stalwart/ADMIN"]
    assert "docker-compose.macmini.yml:23" in problem.summary
    assert problem.hint == "put there: `- ADMIN=${ADMIN:-}`"
    assert_silent(seen)


def test_a_literal_that_is_right_is_fine(world: World) -> None:
    seen, changes = world.plan(wanted("mana-notify", "SMTP_INSECURE_TLS", "true"))
    assert (seen.problems, changes) == ((), ())


def test_an_entry_that_is_not_there_is_named_with_the_text_to_add(world: World) -> None:
    (world.directory / "notify.env").write_text("FROM_FILE=canary-other\n")
    world.edit("    depends_on: [stalwart]\n", "    depends_on: [stalwart]\n    env_file: notify.env\n")
    seen, _ = world.plan(wanted("mana-notify", "SMTP_FROM", "a@b.c"), wanted("mana-notify", "FROM_FILE", ref("NEW")))
    assert (
        errors(seen)["smtp/mana-notify/SMTP_FROM"].hint == "add to the service's environment: `SMTP_FROM: ${SMTP_FROM}`"
    )
    assert "env_file" in errors(seen)["smtp/mana-notify/FROM_FILE"].summary
    assert_silent(seen)


def test_a_name_in_use_is_not_proposed_again(world: World) -> None:
    world.edit("PORT: ${SMTP_PORT:-587}", 'PORT: "587"')
    world.edit("MANA_NOTIFY_URL: http://mana-notify:3013", "OTHER: ${SMTP_PORT:-1}")
    seen, _ = world.plan(wanted("mana-notify", "SMTP_PORT", "465"))
    assert errors(seen)["smtp/mana-notify/SMTP_PORT"].hint == "put there: `SMTP_PORT: ${MANA_NOTIFY_SMTP_PORT:-587}`"


def test_an_empty_value_where_empty_means_unset(world: World) -> None:
    seen, _ = world.plan(wanted("mana-notify", "SMTP_HOST", ""))
    assert errors(seen)["smtp/mana-notify/SMTP_HOST"].hint == "put there: `SMTP_HOST: ${SMTP_HOST-stalwart}`"


def test_one_variable_can_not_have_two_values(world: World) -> None:
    seen, changes = world.plan(wanted("mana-auth", "MANA_SERVICE_KEY", "a"), wanted("mana-notify", "SERVICE_KEY", "b"))
    assert {item.scope for item in errors(seen).values()} == {"smtp/mana-auth", "smtp/mana-notify"}
    assert changes == ()


def test_a_service_that_is_not_there(world: World) -> None:
    seen, changes = world.plan(wanted("mana-notfy", "X", "1"), KEYS[0])
    assert "has mana-auth, mana-notify, stalwart" in errors(seen)["smtp/mana-notfy"].hint
    assert [change.address for change in changes] == ["smtp/mana-auth/MANA_SERVICE_KEY"]


def test_who_else_uses_a_variable_is_listed(world: World) -> None:
    seen, _ = world.plan(KEYS[0])
    assert any("MANA_SERVICE_KEY changes, which mana-notify.SERVICE_KEY also uses" in item for item in warnings(seen))


def test_an_old_line_outside_our_block_is_named(world: World) -> None:
    world.env_file.write_text("SMTP_PASSWORD=canary-old\n" + ENV)
    seen, _ = world.plan(PASSWORD)
    assert any(item.startswith(".env.macmini:1: SMTP_PASSWORD is set here too") for item in warnings(seen))
    assert_silent(seen)


def test_a_line_behind_our_block_that_holds_is_told_as_such(world: World) -> None:
    """Somebody appended a line: the last one wins. Where it changes something, our block moves behind it."""
    assert statuses(world.apply(HOST)) == {Status.DONE}
    ours = world.env_file.read_text()
    world.env_file.write_text(ours + "SMTP_HOST=smtp-relay.brevo.com\n")
    seen, changes = world.plan(HOST)
    assert changes == ()
    [problem] = seen.problems
    assert (problem.where, "behind our block: this line holds" in problem.summary) == (".env.macmini:8", True)
    world.env_file.write_text(ours + "SMTP_HOST=somewhere.else\n")
    assert statuses(world.apply(HOST)) == {Status.DONE}
    assert world.env_file.read_text().index("somewhere.else") < world.env_file.read_text().index("# >>> reconciler")
    seen, changes = world.plan(HOST)
    assert changes == ()
    assert "has no effect" in seen.problems[0].hint


def test_services_that_compose_restarts_along_are_shown(world: World) -> None:
    world.edit(
        "    environment:\n      MANA_SERVICE",
        "    depends_on: {mana-notify: {condition: service_started, restart: true}}\n"
        "    environment:\n      MANA_SERVICE",
    )
    seen, _ = world.plan(HOST)
    assert any("mana-auth depends on it with restart: true" in item for item in warnings(seen))


def test_links_without_a_value_are_held_against_each_other(world: World) -> None:
    group = [("mana-auth", "MANA_SERVICE_KEY"), ("mana-notify", "SERVICE_KEY")]
    assert not world.target(shared=[group]).observe([], reveal).problems
    world.env_file.write_text(ENV.replace("canary-service-key", "canary-next"))
    world.up("mana-auth")
    [problem] = world.target(shared=[group]).observe([], reveal).problems
    assert problem.hint == "docker compose up -d --no-deps mana-notify"
    world.edit("${MANA_SERVICE_KEY:-dev-service-key}", "canary-another")
    [problem] = world.target(shared=[group]).observe([], reveal).problems
    assert "the compose files give them different values" in problem.summary
    assert_silent(problem)


# ---------------------------------------------------------------------------------------------- is it that stack?
@pytest.mark.parametrize("project", ["other", None])
def test_a_second_stack_is_refused(world: World, project: str | None) -> None:
    if project is None:
        world.env_file.write_text(ENV.replace("mana-stack", "other"))
    seen = world.target(project=project).observe([HOST], reveal)
    [problem] = seen.problems
    assert (problem.severity, problem.scope) == (Severity.REFUSED, "compose")
    assert problem.hint == "set targets.compose.project: mana-stack"


def test_another_file_than_the_one_that_runs_is_refused(world: World) -> None:
    (copy := world.directory / "copy.yml").write_text(COMPOSE)
    seen = world.target(file=copy).observe([HOST], reveal)
    [problem] = seen.problems
    assert problem.severity is Severity.REFUSED
    assert f"runs from {world.compose_file}, not from {copy}" in problem.summary
    ids = world.ids()
    changes = diff(Desired([HOST]), {"compose": seen}, stack="mana").changes
    assert statuses(list(world.target(file=copy).apply(changes, reveal))) == {Status.FAILED}
    assert world.env_file.read_text() == ENV
    assert world.ids() == ids


# ------------------------------------------------------------------------------------------------- what is not there
@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("echo 1.29.2", "Compose 1.29.2 is too old"),
        ("echo v2.19.1", "Compose 2.19.1 is too old"),
        ("exit 1", "no Compose plugin"),
    ],
)
def test_an_old_compose_is_refused(world: World, version: str, said: str) -> None:
    program = world.directory / "old"
    program.write_text(f"#!/bin/sh\n{version}\n")
    program.chmod(0o755)
    seen = world.target(program=[str(program)]).observe([HOST], reveal)
    assert seen.unread == {"compose"}
    assert said in seen.problems[0].summary
    assert "2.20" in seen.problems[0].hint


def test_everything_that_is_missing_is_said_at_once(world: World) -> None:
    world.env_file.unlink()
    seen = world.target(docker_host="tcp://127.0.0.1:1", program=["no-such-program"]).observe([HOST], reveal)
    said = " ".join(str(item) for item in seen.problems)
    assert "no-such-program is not installed" in said
    assert "Docker Engine tcp://127.0.0.1:1: can't be reached: Connection refused" in said
    assert "the env file does not exist" in said
    assert len(seen.problems) == 3


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("docker-compose.macmini.yml", None, "the compose file does not exist"),
        ("docker-compose.macmini.yml", "services: [", "is not YAML: did not find expected node content"),
        ("docker-compose.macmini.yml", COMPOSE + "      - B=${UNSET:?needed}\n", "UNSET"),
        (".env.macmini", ENV + 'A="canary-unterminated\n', "line 5"),
        (".env.macmini", ENV + "A canary-words\n", "line 5"),
    ],
)
def test_files_that_can_not_be_read_are_named_without_their_values(
    world: World, file: str, content: str | None, said: str
) -> None:
    if content is None:
        (world.directory / file).unlink()
    else:
        (world.directory / file).write_text(content)
    seen = world.target().observe([HOST], reveal)
    assert seen.unread == {"compose"}
    [problem] = seen.problems
    assert said in problem.summary
    assert problem.hint
    assert_silent(seen)


@pytest.mark.parametrize(
    ("content", "line", "said"),
    [
        ("services:\n  a:\n    image: x\n   canary: 1\n", 4, "did not find expected key"),
        (
            "services:\n  a:\n    environment:\n      A: canary: c\n",
            4,
            "mapping values are not allowed in this context",
        ),
        ("services:\n  a: [canary, 2\n", 3, "did not find expected ',' or ']'"),
        ("services:\n\tcanary: 1\n", 2, "found character that cannot start any token"),
    ],
)
def test_a_compose_file_that_is_no_yaml_is_told_with_its_line(world: World, content: str, line: int, said: str) -> None:
    file = world.directory / "docker-compose.macmini.yml"
    file.write_text(content)
    [problem] = world.target().observe([HOST], reveal).problems
    assert problem.where == f"{file}:{line}"
    assert problem.summary == f"is not YAML: {said}"
    assert "config -q` says the same" in problem.hint
    assert_silent(problem)


@pytest.mark.parametrize("fault", [Reply(500, b'{"message": "sick"}'), Reply(200, b"nonsense"), None])
def test_a_sick_engine_is_a_problem(world: World, fault: Reply | None) -> None:
    world.server.faults.append(Fault(path="/containers/", times=9, reply=fault, refuse=fault is None))
    seen = world.target().observe([HOST], reveal)
    assert seen.unread == {"compose"}
    assert seen.problems[0].where == f"Docker Engine {world.docker_host}"


def test_our_own_environment_reaches_no_container(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMTP_HOST", "from-our-environment")
    monkeypatch.setenv("COMPOSE_PROJECT_NAME", "from-our-environment")
    seen, _ = world.plan(HOST)
    assert seen.live[0].resource == Variable("mana-notify", "SMTP_HOST", "stalwart", "stalwart")


# --------------------------------------------------------------------------------------------------------- applying
def test_the_example_switches_once_its_literal_is_opened_up_and_back(world: World, serve: Callable) -> None:
    mail = serve(SECRETS["NEW"])

    def brevo() -> tuple[Variable, ...]:
        login = mail.login(host="smtp-relay.brevo.com")
        return (
            wanted("mana-notify", "SMTP_HOST", "smtp-relay.brevo.com", login=login),
            wanted("mana-notify", "SMTP_PORT", str(mail.port), login=login),
            wanted("mana-notify", "SMTP_PASSWORD", ref("NEW"), login=login),
            wanted("mana-notify", "SMTP_INSECURE_TLS", "false", login=login),
        )

    world.target_options["routes"] = {("smtp-relay.brevo.com", mail.port): ("127.0.0.1", mail.port)}
    before = world.ids()
    seen, changes = world.plan(*brevo())
    assert changes == ()
    hint = errors(seen)["smtp/mana-notify/SMTP_INSECURE_TLS"].hint
    world.edit('SMTP_INSECURE_TLS: "true"', hint.removeprefix("put there: ").strip("`"))

    outcomes = world.apply(*brevo())
    assert statuses(outcomes) == {Status.DONE}
    assert len(mail.attempts) == 1
    environment = world.running(NOTIFY)
    assert environment["SMTP_HOST"] == "smtp-relay.brevo.com"
    assert environment["SMTP_PASSWORD"] == SECRETS["NEW"]
    assert environment["SMTP_INSECURE_TLS"] == "false"
    after = world.ids()
    assert after.pop(NOTIFY) != before.pop(NOTIFY)
    assert after == before
    assert world.env_file.read_text().startswith(ENV)
    assert world.env_file.stat().st_mode & 0o777 == 0o600
    seen, changes = world.plan(*brevo())
    assert (changes, seen.problems) == ((), ())
    assert_silent(outcomes, seen, world.progress)

    home = (wanted("mana-notify", "SMTP_HOST", "stalwart"), wanted("mana-notify", "SMTP_INSECURE_TLS", "true"))
    assert statuses(world.apply(*home)) == {Status.DONE}
    assert world.running(NOTIFY)["SMTP_HOST"] == "stalwart"
    assert world.plan(*home)[1] == ()


def test_a_refused_login_stops_everything_and_is_tried_once(world: World, serve: Callable) -> None:
    mail = serve("another password")
    login = mail.login(host="stalwart")
    ids = world.ids()
    variables = (wanted("mana-notify", "SMTP_PASSWORD", ref("NEW"), login=login), HOST)
    outcomes = world.apply(*variables, routes={("stalwart", mail.port): ("127.0.0.1", mail.port)})
    assert statuses(outcomes) == {Status.FAILED}
    assert outcomes[0].problem is not None
    assert "refuses the login: 535" in outcomes[0].problem.summary
    assert len(mail.attempts) == 1
    assert world.env_file.read_text() == ENV
    assert world.ids() == ids
    assert_silent(outcomes)


def test_a_login_is_tried_once_for_all_who_use_it(world: World, serve: Callable) -> None:
    """Two consumers whose logins are told apart here are still one name and one password at one server."""
    mail = serve("another password")
    world.edit("MANA_NOTIFY_URL: http://mana-notify:3013", "MANA_NOTIFY_URL: ${NOTIFY:-x}")
    world.up("mana-auth")
    first, second = (mail.login(host="stalwart"), replace(mail.login(host="stalwart"), account="noreply@mana.how"))
    variables = (
        wanted("mana-auth", "MANA_NOTIFY_URL", "y", login=first),
        wanted("mana-notify", "SMTP_HOST", "z", login=second),
    )
    outcomes = world.apply(*variables, routes={("stalwart", mail.port): ("127.0.0.1", mail.port)})
    assert statuses(outcomes) == {Status.FAILED}
    assert len(mail.attempts) == 1
    assert world.env_file.read_text() == ENV


def test_a_plan_tries_no_login(world: World, serve: Callable) -> None:
    mail = serve(SECRETS["NEW"])
    routes = {("stalwart", mail.port): ("127.0.0.1", mail.port)}
    login = mail.login(host="stalwart")
    world.target(routes=routes).observe([wanted("mana-notify", "SMTP_PASSWORD", ref("NEW"), login=login)], reveal)
    assert mail.attempts == []


@pytest.mark.parametrize("verify_tls", [False, True])
def test_a_password_goes_to_another_machine_only_where_it_proves_who_it_is(
    world: World, serve: Callable, monkeypatch: pytest.MonkeyPatch, verify_tls: bool
) -> None:
    """The consumer talks to its neighbour in the project's network; from here the way leads over other networks."""
    mail = serve(SECRETS["NEW"])
    world.edit(
        "    image: stalwartlabs/stalwart:latest\n",
        f'    image: stalwartlabs/stalwart:latest\n    ports: ["{mail.port}:587"]\n',
    )
    world.up("stalwart")
    monkeypatch.setattr(Engine, "remote", True)
    login = Login("stalwart", 587, "noreply", ref("NEW"), verify_tls=verify_tls)
    [outcome] = world.apply(wanted("mana-notify", "SMTP_PASSWORD", ref("NEW"), login=login))
    assert mail.attempts == []
    if verify_tls:
        assert outcome.problem is not None
        assert "certificate is not trusted" in outcome.problem.summary
    else:
        assert outcome.status is Status.DONE
        assert "was not tried: it is on another machine" in outcome.notes[0]


def test_a_context_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONTEXT", "nowhere")
    with pytest.raises(TargetUnreadable, match="no Docker context nowhere"):
        Engine(None)


def test_a_mail_server_of_the_project_is_tried_at_its_own_address(world: World, serve: Callable) -> None:
    mail = serve(SECRETS["NEW"])
    for endpoint in world.engine.named("mana-stack-stalwart-1").endpoints.values():
        endpoint.address = "127.0.0.1"
    outcomes = world.apply(wanted("mana-notify", "SMTP_PASSWORD", ref("NEW"), login=mail.login(host="stalwart")))
    assert statuses(outcomes) == {Status.DONE}
    assert len(mail.attempts) == 1


def test_a_mail_server_of_the_project_is_tried_as_published(world: World, serve: Callable) -> None:
    mail = serve(SECRETS["NEW"])
    world.edit(
        "    image: stalwartlabs/stalwart:latest\n",
        f'    image: stalwartlabs/stalwart:latest\n    ports: ["{mail.port}:587"]\n',
    )
    world.up("stalwart")
    login = Login("stalwart", 587, "noreply", ref("NEW"), verify_tls=False)
    assert statuses(world.apply(wanted("mana-notify", "SMTP_PASSWORD", ref("NEW"), login=login))) == {Status.DONE}
    assert mail.attempts == [("noreply", SECRETS["NEW"])]


def test_a_mail_server_that_can_not_be_reached_is_a_note(world: World) -> None:
    login = Login("stalwart", 1, "noreply", ref("NEW"), verify_tls=True)
    for endpoint in world.engine.named("mana-stack-stalwart-1").endpoints.values():
        endpoint.address = "127.0.0.1"
    [outcome] = world.apply(wanted("mana-notify", "SMTP_PASSWORD", ref("NEW"), login=login))
    assert outcome.status is Status.DONE
    assert "stalwart:1 could not be tried from here: 127.0.0.1:1 Connection refused" in outcome.notes[0]


def test_the_running_container_counts_not_the_file(world: World) -> None:
    """Killed between writing the file and recreating the service: the next run goes on."""
    world.env_file.write_text(ENV + "SMTP_HOST=smtp-relay.brevo.com\n")
    content, modified = world.env_file.read_text(), world.env_file.stat().st_mtime_ns
    assert statuses(world.apply(HOST)) == {Status.DONE}
    assert world.running(NOTIFY)["SMTP_HOST"] == "smtp-relay.brevo.com"
    assert (world.env_file.read_text(), world.env_file.stat().st_mtime_ns) == (content, modified)


def test_what_already_runs_is_not_recreated(world: World) -> None:
    world.env_file.write_text(ENV + "SMTP_HOST=smtp-relay.brevo.com\n")
    world.up("mana-notify")
    world.env_file.write_text(ENV)
    ids = world.ids()
    assert statuses(world.apply(HOST)) == {Status.DONE}
    assert world.ids() == ids
    assert world.plan(HOST)[1] == ()


def test_a_shared_variable_switches_both_services(world: World) -> None:
    assert statuses(world.apply(*KEYS)) == {Status.DONE}
    assert world.running(NOTIFY)["SERVICE_KEY"] == SECRETS["NEXT_KEY"]
    assert world.running("mana-stack-mana-auth-1")["MANA_SERVICE_KEY"] == SECRETS["NEXT_KEY"]
    assert world.plan(*KEYS)[1] == ()


def crashing_with(name: str, value: str, behaviour: Behaviour) -> Callable[[Container], Behaviour]:
    return lambda it: behaviour if it.environment.get(name) == value else HEALTHY


@pytest.mark.parametrize(
    ("behaviour", "check", "said"),
    [
        (CRASH_LOOPING, False, "crashes"),
        (FAILING, True, "health check"),
        (Behaviour(verdict_after=120, passes=False), True, "did not pass within"),
    ],
)
def test_a_service_that_does_not_come_up_is_brought_back(
    world: World, behaviour: Behaviour, check: bool, said: str
) -> None:
    if check:
        world.engine.add_image(
            "mana-notify:local", Healthcheck={"Test": ["CMD-SHELL", "wget -q localhost"], "Interval": 120_000_000_000}
        )
        world.up("mana-notify")
    world.engine.script = crashing_with("SMTP_HOST", "smtp-relay.brevo.com", behaviour)
    outcomes = world.apply(HOST, PASSWORD)
    assert statuses(outcomes) == {Status.FAILED}
    assert outcomes[0].problem is not None
    assert said in outcomes[0].problem.summary
    assert "rolled back: it runs with its former values" in outcomes[0].problem.summary
    assert world.running(NOTIFY)["SMTP_HOST"] == "stalwart"
    assert world.running(NOTIFY)["SMTP_PASSWORD"] == ""
    assert world.env_file.read_text() == ENV
    assert_silent(outcomes, world.progress)


def test_the_log_of_what_failed_is_quoted_without_secrets(world: World) -> None:
    def noisy(it: Container) -> Behaviour:
        it.logs = f"started\npassword {SECRETS['NEW']} refused, and canary-service-key\n".encode()
        return CRASH_LOOPING if it.environment.get("SMTP_HOST") == "smtp-relay.brevo.com" else HEALTHY

    world.engine.script = noisy
    outcomes = world.apply(HOST, PASSWORD)
    assert outcomes[0].problem is not None
    assert "(its log ends: started | password *** refused, and ***)" in outcomes[0].problem.summary
    assert_silent(outcomes)


def test_a_slow_health_check_is_run_at_once(world: World) -> None:
    world.engine.add_image("mana-notify:local", Healthcheck={"Test": ["CMD", "check"], "Interval": 120_000_000_000})
    world.up("mana-notify")
    world.engine.script = lambda _: SLOW
    assert statuses(world.apply(HOST, patience=Patience(ready=30, settle=0.2, pause=0.05))) == {Status.DONE}


def test_services_that_share_a_variable_go_back_together(world: World) -> None:
    world.engine.script = crashing_with("SERVICE_KEY", SECRETS["NEXT_KEY"], CRASH_LOOPING)
    outcomes = world.apply(*KEYS)
    assert statuses(outcomes) == {Status.FAILED}
    assert world.running("mana-stack-mana-auth-1")["MANA_SERVICE_KEY"] == SECRETS["MANA_SERVICE_KEY"]
    assert world.env_file.read_text() == ENV
    assert_silent(outcomes)


def test_one_service_that_fails_leaves_the_other_switched(world: World) -> None:
    world.edit("MANA_NOTIFY_URL: http://mana-notify:3013", "MANA_NOTIFY_URL: ${NOTIFY:-x}")
    world.up("mana-auth")
    world.engine.script = crashing_with("SMTP_HOST", "smtp-relay.brevo.com", CRASH_LOOPING)
    outcomes = world.apply(wanted("mana-auth", "MANA_NOTIFY_URL", "y"), HOST)
    assert [item.status for item in outcomes] == [Status.DONE, Status.FAILED]
    assert world.running("mana-stack-mana-auth-1")["MANA_NOTIFY_URL"] == "y"
    assert 'NOTIFY="y"' in world.env_file.read_text()
    assert "SMTP_HOST" not in world.env_file.read_text()


def test_an_up_that_fails_is_rolled_back(world: World) -> None:
    changes = world.plan(HOST)[1]
    del world.engine.images["mana-notify:local"]
    outcomes = list(world.target().apply(changes, reveal))
    assert statuses(outcomes) == {Status.FAILED}
    assert outcomes[0].problem is not None
    assert "compose up mana-notify failed" in outcomes[0].problem.summary
    assert any("failed when it was only rehearsed" in item.summary for item in world.plan(HOST)[0].problems)
    assert world.env_file.read_text() == ENV


def test_an_engine_that_dies_while_waiting_leaves_the_former_file(world: World) -> None:
    changes = world.plan(HOST)[1]
    world.server.faults.append(Fault(method="GET", path=r"/containers/[0-9a-f]+/json", after=6, times=999, refuse=True))
    [outcome] = world.target().apply(changes, reveal)
    assert outcome.status is Status.FAILED
    assert outcome.problem is not None
    assert "the env file is as before, but mana-notify: " in outcome.problem.summary
    assert world.env_file.read_text() == ENV


def test_after_a_killed_run_the_container_that_ran_knows_the_former_value(world: World) -> None:
    [change] = world.plan(HOST)[1]
    world.env_file.write_text(ENV + '# >>> reconciler mana\nSMTP_HOST="smtp-relay.brevo.com"\n# <<< reconciler mana\n')
    world.engine.script = crashing_with("SMTP_HOST", "smtp-relay.brevo.com", CRASH_LOOPING)
    [outcome] = world.target().apply([change], reveal)
    assert outcome.status is Status.FAILED
    assert world.running(NOTIFY)["SMTP_HOST"] == "stalwart"


def test_a_read_only_env_file_changes_nothing(world: World) -> None:
    world.env_file.chmod(0o400)
    ids = world.ids()
    [outcome] = world.apply(HOST)
    assert outcome.problem is not None
    assert "it is read-only" in outcome.problem.summary
    assert (world.env_file.read_text(), world.ids()) == (ENV, ids)


def test_a_literal_that_came_back_after_the_plan_stops_the_whole_service(world: World) -> None:
    world.edit('SMTP_INSECURE_TLS: "true"', "SMTP_INSECURE_TLS: ${SMTP_INSECURE_TLS:-true}")
    _, changes = world.plan(HOST, wanted("mana-notify", "SMTP_INSECURE_TLS", "false"))
    world.edit("SMTP_INSECURE_TLS: ${SMTP_INSECURE_TLS:-true}", 'SMTP_INSECURE_TLS: "true"')
    assert statuses(list(world.target().apply(changes, reveal))) == {Status.FAILED}
    assert world.env_file.read_text() == ENV


def test_no_temporary_file_stays(
    world: World, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    world.apply(PASSWORD)
    assert list(place.iterdir()) == []
    assert {item.name for item in world.directory.iterdir()} == {".env.macmini", "docker-compose.macmini.yml"}


def test_the_hash_of_a_password_feeds_no_consumer(world: World) -> None:
    """Contract: the account takes a hash as well as a clear value, whoever logs in does not."""
    hashed = "$6$rounds=5000$saltsalt$" + "x" * 86

    def reveal_here(secret: Secret) -> str:
        return hashed

    account = wanted("mana-notify", "SMTP_PASSWORD", ref("NEW"), clear=(ref("NEW"),))
    seen = world.target().observe([account], reveal_here)
    (problem,) = [item for item in seen.problems if item.severity is Severity.ERROR]
    assert (problem.where, problem.scope) == ("smtp/mana-notify/SMTP_PASSWORD", "smtp/mana-notify")
    assert "is a hash" in problem.summary
    assert "clear value" in problem.hint
    assert "saltsalt" not in repr(seen)
    other = wanted("mana-notify", "SMTP_PASSWORD", ref("NEW"))
    assert not [item for item in world.target().observe([other], reveal_here).problems if "hash" in item.summary]


# -------------------------------------------------------------------------------------------- what it may not be led to
def refusal(world: World, **options: Any) -> Problem:
    """Return why everything is refused; no program is shown the file and nothing is written to it."""
    seen = world.target(**options).observe([PASSWORD], reveal)
    assert seen.unread
    (problem,) = [item for item in seen.problems if item.severity is Severity.REFUSED]
    assert problem.hint
    assert_silent(seen)
    return problem


def test_t9_an_env_file_outside_the_project_is_refused(world: World, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("home") / ".bashrc"
    elsewhere.write_text(ENV)
    (world.directory / "link").symlink_to(elsewhere)
    (world.directory / "folder").symlink_to(elsewhere.parent)
    up = world.directory / ".." / elsewhere.parent.name / elsewhere.name
    for path in (elsewhere, up, world.directory / "link", world.directory / "folder" / ".bashrc"):
        assert "leads out of the compose project's folder" in refusal(world, env_file=path).summary
    assert elsewhere.read_text() == ENV


def test_t9_what_is_no_env_file_is_refused_and_compose_is_not_shown_it(world: World) -> None:
    script = world.directory / "deploy.sh"
    script.write_text("#!/bin/sh\nrm -rf canary-service-key\n")
    assert "line 2" in refusal(world, env_file=script).summary
    for name in (
        world.compose_file.name,
        "other.yaml",
        ".git/config",
        ".GIT/config",
        ".reconciler/env",
        ".Reconciler/env",
    ):
        path = world.directory / name
        path.parent.mkdir(exist_ok=True)
        before = path.read_text() if path.exists() else path.write_text("A: 1\n") and path.read_text()
        assert "no env file" in refusal(world, env_file=path).summary
        assert path.read_text() == before
    os.mkfifo(world.directory / "pipe")
    seen = world.target(env_file=world.directory / "pipe").observe([PASSWORD], reveal)
    assert "not a regular file" in seen.problems[0].summary


def test_t9_a_link_within_the_project_is_followed(world: World) -> None:
    (world.directory / "real").mkdir()
    world.env_file.rename(world.directory / "real" / "env")
    world.env_file.symlink_to(world.directory / "real" / "env")
    assert statuses(world.apply(PASSWORD)) == {Status.DONE}
    assert world.env_file.is_symlink()
    assert "SMTP_PASSWORD" in world.env_file.read_text()


def test_t8_services_are_never_options(world: World, tmp_path: Path) -> None:
    log = tmp_path / "arguments"
    program = tmp_path / "compose"
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >>"{log}"\n')
    program.chmod(0o755)
    called = world.target(program=(str(program),)).program(world.docker_host)
    called.up(Project("p", {}, {}), ["-V", "--remove-orphans", "mana-notify"])
    arguments = log.read_text().split()
    assert arguments[arguments.index("--") + 1 :] == ["-V", "--remove-orphans", "mana-notify"]
    assert world.target(project=None).program(world.docker_host).command == world.program


def test_t14_another_stack_s_block_that_came_meanwhile_stays(world: World) -> None:
    _, changes = world.plan(PASSWORD)
    target = world.target()
    theirs = EnvFile.read(world.env_file, "other")
    applied = target.apply(changes, reveal)
    theirs.replace_on_disk(theirs.having({"OTHERS": "1"}))
    assert statuses(list(applied)) == {Status.DONE}
    assert EnvFile.read(world.env_file, "other").ours == {"OTHERS": "1"}
    assert set(EnvFile.read(world.env_file, "mana").ours) == {"SMTP_PASSWORD"}


def test_t13_a_trial_that_is_killed_leaves_nothing(world: World, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The process is killed while Compose reads what the env file may become; so is Compose."""
    temporary = tmp_path_factory.mktemp("tmp")
    program = temporary.parent / "slow-compose"
    mark = temporary.parent / "trying"
    program.write_text(
        f'#!/bin/sh\ncase "$*" in *"/.env.macmini config"*) ;; *" config --format"*) cat "$4" >/dev/null\n'
        f'echo $$ >"{mark}"; sleep 300 ;; esac\nexec "{sys.executable}" -m reconciler.simulator.compose "$@"\n'
    )
    program.chmod(0o755)
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from reconciler.targets.compose.program import Program\n"
        "from reconciler import files\n"
        "folder = Path(sys.argv[1])\n"
        "compose_file = folder / 'docker-compose.macmini.yml'\n"
        "program = Program((sys.argv[2],), (compose_file,), folder / '.env.macmini', None, None)\n"
        "with files.on_trial(program.env_file, b'A=canary') as path:\n"
        "    program.config(env_file=path)\n"
    )
    environ = {**os.environ, "TMPDIR": str(temporary)}
    with subprocess.Popen([sys.executable, "-c", code, str(world.directory), str(program)], env=environ) as process:
        for _ in range(400):
            if mark.exists() and mark.read_text().strip():
                break
            time.sleep(0.05)
        child = int(mark.read_text())
        process.kill()
    for _ in range(400):
        if not Path(f"/proc/{child}").exists() or " Z " in Path(f"/proc/{child}/stat").read_text():
            break
        time.sleep(0.05)
    else:
        raise AssertionError("Compose is still at work")
    left = [*temporary.rglob("*"), *world.directory.rglob("*")]
    assert not [item for item in left if item.is_file() and b"A=canary" in item.read_bytes()]


# ------------------------------------------------------------------------------ what a pull request may write there
NAMING = {
    "name: p${SECRET_WORD}\n": "",
    "name: ${SECRET_WORD}\n": "",
    "": "COMPOSE_PROJECT_NAME=abc${SECRET_WORD}\n",
}


@pytest.mark.parametrize("compose", NAMING)
def test_t2_an_interpolated_project_name_is_not_shown(world: World, compose: str) -> None:
    world.compose_file.write_text(compose + COMPOSE)
    naming = NAMING[compose]
    world.env_file.write_text(f"SECRET_WORD=canaryword\n{naming}MANA_SERVICE_KEY=x\nSTALWART_ADMIN_PASSWORD=y\n")
    seen = world.target().observe([HOST], reveal)
    assert_silent(seen.head, [str(item) for item in seen.problems])
    assert "compose project named by a variable" in seen.head[0]


def test_a_project_name_that_is_no_secret_is_shown(world: World) -> None:
    assert "compose project mana-stack" in world.target().observe([HOST], reveal).head[0]
    world.env_file.write_text(ENV.replace("COMPOSE_PROJECT_NAME=mana-stack\n", ""))
    for text, options, name in (("name: literal\n", {}, "literal"), ("", {"project": "declared"}, "declared")):
        world.compose_file.write_text(text + COMPOSE)
        assert f"compose project {name}," in world.target(**options).observe([HOST], reveal).head[0]
    assert f"compose project {world.directory.name}," in world.target().observe([HOST], reveal).head[0]


@pytest.mark.parametrize("service", ["mana-notify", "mana-auth"])
@pytest.mark.parametrize("entry", ["provider: {type: canary}", "models: [m]", "use_api_socket: true"])
def test_t8_a_service_that_compose_runs_a_program_for_is_refused(world: World, entry: str, service: str) -> None:
    image = f"    image: {service}:local\n"
    world.edit(image, f"{image}    {entry}\n")
    if service == "mana-auth":  # it is brought up along with the consumer
        world.edit(image, f"{image}    depends_on: {{mana-notify: {{condition: service_started, restart: true}}}}\n")
    seen, changes = world.plan(PASSWORD)
    [problem] = [item for item in seen.problems if item.severity is Severity.REFUSED]
    assert "Compose would run a program of this machine" in problem.summary
    assert problem.scope == "smtp/mana-notify"
    assert problem.hint
    assert changes == ()


FOLLOWERS = {
    "shares the namespace of one that shares it": (
        "  b: {image: b:local, network_mode: 'service:mana-notify'}\n"
        "  c: {image: b:local, network_mode: 'service:b', provider: {type: canary}}\n"
    ),
    "shares it, and depends without restart": (
        "  c: {image: b:local, network_mode: 'service:mana-notify', provider: {type: canary},\n"
        "      depends_on: {mana-notify: {condition: service_started, restart: false}}}\n"
    ),
    "is restarted with one that shares it": (
        "  b: {image: b:local, ipc: 'service:mana-notify'}\n"
        "  c: {image: b:local, use_api_socket: true,\n"
        "      depends_on: {b: {condition: service_started, restart: true}}}\n"
    ),
}


@pytest.mark.parametrize("services", FOLLOWERS.values(), ids=FOLLOWERS)
def test_t8_nor_is_a_program_run_for_what_is_brought_up_along_with_it(world: World, services: str) -> None:
    world.compose_file.write_text(COMPOSE.replace("services:\n", f"services:\n{services}"))
    seen, changes = world.plan(PASSWORD)
    [problem] = [item for item in seen.problems if item.severity is Severity.REFUSED]
    assert "Compose would run a program of this machine for c, which is brought up with it" in problem.summary
    assert (problem.scope, changes) == ("smtp/mana-notify", ())


@pytest.mark.parametrize("entry", [{"provider": {"type": "canary"}}, {"models": ["m"]}, {"use_api_socket": True}])
def test_t8_compose_is_not_called_where_it_would_run_a_program(tmp_path: Path, entry: dict[str, Any]) -> None:
    command = tmp_path / "compose"
    command.write_text(f"#!/bin/sh\ntouch '{tmp_path}/ran'\n")
    command.chmod(0o755)
    program = Program([str(command)], [tmp_path / "compose.yaml"], tmp_path / ".env", None, None)
    services = {"a": {}, "b": {"pid": "service:a"}, "c": {"network_mode": "service:b", **entry}, "d": {}}
    project = Project("p", {}, {}, services=services)
    for asked in (["a"], ["b"], ["c"], ["d", "a"]):
        with pytest.raises(TargetUnreadable, match="run a program of this machine for c"):
            program.up(project, asked)
        with pytest.raises(TargetUnreadable, match="run a program of this machine for c"):
            program.rehearse(project, asked, {}, tmp_path / ".env", tmp_path / "more.yaml")
    assert not (tmp_path / "ran").exists()
    program.up(project, ["d"])
    assert (tmp_path / "ran").exists()


def test_t2_a_path_of_a_stack_on_another_machine_is_not_interpolated(world: World) -> None:
    world.edit("    restart: always\n", "    restart: always\n    volumes: ['./x${MANA_SERVICE_KEY}:/x']\n")
    program = world.target().program(world.docker_host)
    with Engine(world.docker_host) as engine:
        snapshot = read(program, engine, "mana", ["mana-notify"])
    [problem] = _far(snapshot, program, "/elsewhere/compose.yml")
    assert_silent(str(problem))
    assert f"a path of this machine, below {world.directory}" in problem.summary
