"""Compose repeats values of its files in its errors: none of them is passed on."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.problem import TargetUnreadable
from reconciler.targets.compose.program import Program
from reconciler.targets.compose.words import own_words

COMPOSE = """\
services:
  app:
    image: x
    environment:
      SMTP_PASSWORD: "pa$$ss${canary-one"
      OTHER: ${A:?canary-two}
      - listed=canary-three
    command: canary-four
"""
SAID = [
    "invalid interpolation format for services.app.environment.SMTP_PASSWORD.\n\npa$ss${canary-one",
    'invalid format: "pa$ss${canary-one". You may need to escape any $',
    "required variable A is missing a value: canary-two",
    'failed to read .env: line 3: unexpected character "+" in variable name "PA+SS=canary-five',
    "invalid containerPort: canary-four",
    "cannot parse 'canary-three and more' in `canary-four`",
]


@pytest.mark.parametrize("said", SAID)
def test_t2_what_compose_quotes_is_not_repeated(tmp_path: Path, said: str) -> None:
    (tmp_path / "compose.yml").write_text(COMPOSE)
    (tmp_path / ".env").write_text("A=canary-two\nB='canary-six'\n")
    (tmp_path / "said").write_text(said)
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ncat {tmp_path}/said >&2\nexit 1\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    with pytest.raises(TargetUnreadable) as caught:
        Program((str(program),), (tmp_path / "compose.yml",), tmp_path / ".env", None, None).config()
    [problem] = caught.value.problems
    assert "canary" not in str(problem)
    assert "pa$ss" not in str(problem)


def test_names_that_compose_quotes_stay(tmp_path: Path) -> None:
    (tmp_path / "compose.yml").write_text(COMPOSE)
    (tmp_path / ".env").write_text("")
    program = tmp_path / "program"
    program.write_text('#!/bin/sh\necho \'service "app" depends on undefined service "canary"\' >&2\nexit 1\n')
    program.chmod(0o755)
    with pytest.raises(TargetUnreadable) as caught:
        Program((str(program),), (tmp_path / "compose.yml",), tmp_path / ".env", None, None).config()
    assert 'service "app" depends on undefined service "…"' in caught.value.problems[0].summary


# ------------------------------------------------------------------------------------ what real programs said
APP = "services:\n  app:\n    image: x\n"
# compose file, env file, other files, what must be said
LEAKS = {
    "an included file's env file": (
        "include: [{path: inc.yml, env_file: other}]\n" + APP,
        "",
        {"inc.yml": "services: {b: {image: '${NOPE:?leak ${STOLEN}}'}}\n", "other": "STOLEN=canary_live_x\n"},
        "required variable NOPE is missing a value",
    ),
    "a port": (APP + "    ports: ['${S2}']\n", "S2=alpha:canary99\n", {}, "invalid containerPort: …"),
    "a number": (APP + "    ports: ['${S2}']\n", "S2=alpha:line 73519: canary\n", {}, "address: …"),
    "several lines": (
        APP + "    ports: ['${S2}']\n",
        'S2="alpha:x\\nrequired variable canary_a is missing\\nservice canary_b\\nline 73519: services.canary"\n',
        {},
        "…",
    ),
    "a duration": (APP + "    healthcheck: {interval: '${S2}'}\n", "S2=canary:99\n", {}, "invalid duration"),
    "a size": (APP + "    mem_limit: '${S2}'\n", "S2=canary-99\n", {}, "services[app].mem_limit"),
    "a dependency": (
        APP + "    depends_on: ['${S2}']\n",
        "S2=canary\n",
        {},
        'service "app" depends on undefined service',
    ),
    "a network": (APP + "    networks: ['${S2}']\n", "S2=canary\n", {}, 'service "app" refers to undefined network …'),
    "a path": (APP + "    env_file: '${S2}'\n", "S2=canary/secret\n", {}, "env file … not found"),
    "an included path": ("include: ['${S2}']\n" + APP, "S2=canary/secret\n", {}, "no such file or directory"),
    "a pattern": (APP + "    pull_policy: '${S2}'\n", "S2=canary\n", {}, "services.app.pull_policy"),
    "an env file of a service": (
        APP + "    env_file: other\n",
        "",
        {"other": "canary words and more\n"},
        "failed to read {folder}/other: line 1: key cannot contain a space",
    ),
}
HINTS = {
    "services: [": "did not find expected node content",
    "services:\n  app: {image: x\n  b: 2\n": "did not find expected ',' or",
    APP + "    foo: 1\n": "services.app additional properties 'foo' not allowed",
    APP + "    environment: {A: '${B:?x}'}\n": "services.app.environment.A: required variable B is missing a value",
    APP + "    depends_on: [b]\n": 'service "app" depends on undefined service "…": invalid compose project',
    APP + "    image: y\n": 'mapping key "image" already defined at line',
    APP + "    env_file: no/file.env\n": "env file {folder}/no/file.env not found",
    APP + "    extends: {file: q.yml, service: z}\n": "open {folder}/q.yml: no such file or directory",
    "services: {app: {}}\n": 'service "app" has neither an image nor a build context specified',
    APP + "    restart: 5\n": "validating {folder}/compose.yml: services.app.restart must be a string",
    APP + "    environment: [A=1, 5]\n": "services.app.environment.[1]: unexpected type int",
}
REAL = [item for item in os.environ.get("RECONCILER_REAL_COMPOSE", "").split(os.pathsep) if item]
real = pytest.mark.skipif(not REAL, reason="RECONCILER_REAL_COMPOSE names no program")


def complaint(program: str, folder: Path, compose: str, env: str = "", **files: str) -> str:
    for name, text in {"compose.yml": compose, ".env": env, **files}.items():
        (folder / name).write_text(text)
    with pytest.raises(TargetUnreadable) as caught:
        Program((program,), (folder / "compose.yml",), folder / ".env", None, None).config()
    return str(caught.value.problems[0])


@real
@pytest.mark.parametrize("kind", LEAKS)
def test_t2_no_value_that_compose_reads_anywhere_is_in_its_error(tmp_path: Path, kind: str) -> None:
    compose, env, files, said = LEAKS[kind]
    for program in REAL:
        found = complaint(program, tmp_path, compose, env, **files)
        assert "canary" not in found
        assert "73519" not in found
        assert said.format(folder=tmp_path) in found


@real
@pytest.mark.parametrize("compose", HINTS)
def test_what_helps_in_compose_s_errors_stays(tmp_path: Path, compose: str) -> None:
    for program in REAL:
        assert HINTS[compose].format(folder=tmp_path) in complaint(program, tmp_path, compose)


@given(st.lists(st.text("abcxyz019-_:/@+.?\"'`,;[](){}", min_size=1, max_size=12), min_size=1, max_size=5))
def test_t2_no_word_of_a_stranger_is_shown(words: list[str]) -> None:
    secret = [f"canary{word}" for word in words]
    for text in (
        f"invalid containerPort: {' '.join(secret)}",
        "\n".join(secret),
        f'service {secret[0]} "{secret[-1]}"',
    ):
        assert "canary" not in own_words(text, {"app", "B"}, {"/x/compose.yml"})


@real
def test_t11_a_file_without_end_takes_no_more_memory_than_there_is_for_it(tmp_path: Path) -> None:
    for program in REAL:
        assert "memory" in complaint(program, tmp_path, APP + "    env_file: /dev/zero\n")


@pytest.mark.parametrize(
    "line", ["-" * (1 << 20), "${A-" * (1 << 18), "{" * (1 << 20), ", " * (1 << 19), "$" * (1 << 20)]
)
def test_t11_a_hostile_compose_file_is_looked_at_in_no_time(tmp_path: Path, line: str) -> None:
    (tmp_path / "program").write_text("#!/bin/sh\necho no >&2\nexit 1\n")
    (tmp_path / "program").chmod(0o755)
    began = time.process_time()
    complaint(str(tmp_path / "program"), tmp_path, line + "\n")
    assert time.process_time() - began < 10


def test_t11_a_long_complaint_is_looked_at_in_no_time() -> None:
    began = time.process_time()
    for part in ("a ", "\"'", "canary", "\n", "line 1: "):
        own_words(part * (1 << 20), (), ())
    assert time.process_time() - began < 10
