"""Compose repeats values of its files in its errors: none of them is passed on."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from reconciler.problem import TargetUnreadable
from reconciler.targets.compose.program import Program

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
