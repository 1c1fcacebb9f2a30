"""Compose is asked again where one of the files that it reads is not as it was, and only there."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from reconciler.problem import Problem, TargetUnreadable
from reconciler.targets.compose.project import named_files
from reconciler.targets.compose.written import WrittenFiles

FILE = """\
include: [more.yml]
services:
  web:
    image: nginx
    env_file: [{path: web.env, required: false}, other.env]
    extends: {file: base.yml, service: base}
"""


class Counted:
    """Stands for the program: counts how often it was asked."""

    def __init__(self, folder: Path) -> None:
        self.files, self.env_file = (folder / "docker-compose.yml",), folder / ".env.mana"
        self.asked, self.broken = 0, False

    def version(self) -> str:
        return "2.40.3"

    def config(self, *, interpolate: bool = True) -> dict[str, object]:
        self.asked += interpolate
        if self.broken:
            raise TargetUnreadable(Problem("docker compose", "fails"))
        return {"asked": self.asked}


@pytest.fixture
def program(tmp_path: Path) -> Counted:
    (tmp_path / "docker-compose.yml").write_text(FILE)
    (tmp_path / "more.yml").write_text("services: {db: {image: postgres, label_file: labels}}\n")
    (tmp_path / "base.yml").write_text("services: {base: {image: nginx}}\n")
    for name in (".env.mana", "other.env", "labels"):
        (tmp_path / name).write_text("A=1\n")
    return Counted(tmp_path)


def ask(files: WrittenFiles, program: Counted) -> object:
    with ThreadPoolExecutor(3) as pool:
        said = files.ask(program, pool)  # type: ignore[arg-type]
    files.settled()
    return said.effective.exception() or said.effective.result()


def test_a_rehearsal_counts_for_a_moment_while_nothing_changes(
    program: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, steps, now = WrittenFiles(), {("Container", "web"): {"Recreate"}}, [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    files.keep("this", steps)
    assert files.rehearsal("this") is None  # the files have never been read
    ask(files, program)
    files.keep("this", steps)
    assert (files.rehearsal("this"), files.rehearsal("that")) == (steps, None)
    now[0] += 60
    assert files.rehearsal("this") is None
    files.keep("this", steps)
    (program.files[0].parent / "more.yml").write_text("services: {}\n")
    assert files.rehearsal("this") is None
    ask(files, program)
    assert files.rehearsal("this") is None


def test_it_is_asked_once_while_nothing_changes(program: Counted) -> None:
    files = WrittenFiles()
    assert [ask(files, program) for _ in range(4)] == [{"asked": 1}] * 4


@pytest.mark.parametrize(
    "name", ["docker-compose.yml", "more.yml", "base.yml", ".env.mana", "other.env", "labels", "web.env", ".env"]
)
def test_it_is_asked_again_where_a_file_that_it_reads_has_changed_or_come(program: Counted, name: str) -> None:
    files = WrittenFiles()
    ask(files, program)
    path = program.files[0].parent / name
    path.write_text((path.read_text() if path.exists() else "") + "# more\n")
    assert ask(files, program) == {"asked": 2}
    assert ask(files, program) == {"asked": 2}


def test_a_failure_is_not_remembered(program: Counted) -> None:
    files, program.broken = WrittenFiles(), True
    assert isinstance(ask(files, program), TargetUnreadable)
    program.broken = False
    assert ask(files, program) == {"asked": 2}


def test_where_a_variable_names_a_file_nothing_is_remembered(program: Counted) -> None:
    program.files[0].write_text("services: {web: {image: nginx, env_file: '${WHICH}.env'}}\n")
    files = WrittenFiles()
    assert [ask(files, program) for _ in range(2)] == [{"asked": 1}, {"asked": 2}]


def test_files_that_name_each_other_in_a_circle_end(tmp_path: Path) -> None:
    one, two = tmp_path / "one.yml", tmp_path / "two.yml"
    one.write_text("include: [two.yml]\n")
    two.write_text("include: [one.yml]\nx: &x {include: [three.yml], y: *x}\n")
    found = named_files([one])
    assert found is not None
    assert {path.name for path in found} >= {"one.yml", "two.yml", ".env"}


def test_a_colon_within_a_flow_is_read(tmp_path: Path) -> None:
    """As go-yaml does, and the parser in C does not."""
    (tmp_path / "one.yml").write_text("include: [two.yml]\nservices: {a: {image: mail:local}}\n")
    assert {path.name for path in named_files([tmp_path / "one.yml"]) or ()} == {"one.yml", "two.yml", ".env"}


@pytest.mark.parametrize("key", ["[a, b]", "{a: b}", "&k include", "'env_file'"])
def test_any_key_is_read(tmp_path: Path, key: str) -> None:
    (tmp_path / "one.yml").write_text(f"? {key}\n: two.yml\n")
    named = {path.name for path in named_files([tmp_path / "one.yml"]) or ()}
    assert named == {"one.yml", ".env", *(["two.yml"] if "_" in key or "include" in key else [])}
