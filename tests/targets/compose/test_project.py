from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from reconciler.resources import Variable
from reconciler.targets.compose import judge
from reconciler.targets.compose.envfile import EnvFile
from reconciler.targets.compose.project import (
    ComposeFiles,
    ComposeLine,
    Interpolation,
    Project,
    interpolation,
    named_files,
    not_yaml,
    open_up,
)
from reconciler.targets.compose.snapshot import Snapshot, Values


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (None, Interpolation("KEY")),
        ("$X", Interpolation("X")),
        ("${X}", Interpolation("X")),
        ("${X:-a b}", Interpolation("X", ":-", "a b")),
        ("${X-}", Interpolation("X", "-", "")),
        ("${X:?needed}", Interpolation("X", ":?", "needed")),
        ("${X:-${Y:-z}}", Interpolation("X", ":-", "${Y:-z}")),
        ("${X}${Y}", None),
        ("${X:-a}${Y:-b}", None),
        ("${X} ", None),
        ("x${X}", None),
        ("${X:+y}", None),
        ("${X+y}", None),
        ("$$X", None),
        ("$${X}", None),
        ("true", None),
        ("", None),
    ],
)
def test_what_the_env_file_decides_on_alone(raw: str | None, expected: Interpolation | None) -> None:
    assert interpolation("KEY", raw) == expected


def test_uses_are_found_wherever_they_stand() -> None:
    written = {
        "services": {
            "a": {"image": "x:${TAG}", "environment": ["ONE=${X}", "BARE", "NOT=$$X"], "command": ["run", "$X"]},
            "b": {"environment": {"TWO": "p-${X:-1}", "NUMBER": 5, "TRUTH": True, "NONE": None}},
        }
    }
    project = Project.of(written, {"name": "p", "services": {"b": {"environment": {"TWO": "p-$$1"}}}})
    assert project.uses == {"X": ("a.ONE", "a", "b.TWO"), "BARE": ("a.BARE",), "TAG": ("a",), "NONE": ("b.NONE",)}
    assert project.written["b"] == {"TWO": "p-${X:-1}", "NUMBER": "5", "TRUTH": "true", "NONE": None}
    assert project.configured("b", "TWO") == "p-$1"


def test_a_service_of_an_inactive_profile_is_named() -> None:
    """`config` lists it only as written: seen with Compose 2.40.3."""
    written = {"services": {"a": {"profiles": ["later"], "environment": {"X": "${X}"}}}}
    project = Project.of(written, {"name": "p", "services": {}})
    snapshot = Snapshot("2.40.3", project, EnvFile(Path(".env"), "mana", b""), (), {}, {})
    view = Values(str).view(snapshot, Variable("a", "X", "1", "1"))
    [problem, *_] = judge.problems([view], snapshot, ComposeFiles(()))
    assert (problem.scope, problem.hint) == ("smtp/a", "set COMPOSE_PROFILES in the env file")


FILES = {
    "base.yml": "services:\n  base:\n    environment:\n      FAR: x\n",
    "more.yml": "services:\n  included:\n    environment: {FLOW: x}\n",
    "first.yml": """\
include: [more.yml]
x-env: &env
  MERGED: x
services:
  web:
    extends: {file: base.yml, service: base}
    environment:
      <<: *env
      "QUOTED": x
  list:
    environment:
      - ITEM=x
""",
    "second.yml": "services:\n  web:\n    environment:\n      QUOTED: y\n",
}


@pytest.fixture
def places(tmp_path: Path) -> ComposeFiles:
    for name, content in FILES.items():
        (tmp_path / name).write_text(content)
    return ComposeFiles([tmp_path / "first.yml", tmp_path / "second.yml"])


@pytest.mark.parametrize(
    ("service", "name", "place", "entry"),
    [
        ("web", "QUOTED", "second.yml:4", "QUOTED: ${V:-x}"),
        ("web", "MERGED", "first.yml:3", "MERGED: ${V:-x}"),
        ("web", "FAR", "base.yml:4", "FAR: ${V:-x}"),
        ("included", "FLOW", "more.yml:3", 'FLOW: "${V:-x}"'),
        ("list", "ITEM", "first.yml:12", "- ITEM=${V:-x}"),
    ],
)
def test_an_entry_is_found_where_it_stands_and_keeps_its_form(
    places: ComposeFiles, service: str, name: str, place: str, entry: str
) -> None:
    found = places.of(service, name)
    assert found is not None
    assert str(found) == place
    assert found.entry(name, open_up("V", "x", secret=False)) == entry


def test_what_is_nowhere_has_no_place(places: ComposeFiles, tmp_path: Path) -> None:
    assert places.of("web", "NOWHERE") is None
    assert places.of("nowhere") is None
    (tmp_path / "first.yml").write_text("a: [")
    assert ComposeFiles([tmp_path / "first.yml"]).of("web") is None


def test_text_that_yaml_would_read_otherwise_is_quoted() -> None:
    place = ComposeLine(Path("c.yml"), 1)
    assert place.entry("FROM", open_up("FROM", 'Mana "x" <a@b>', secret=False)) == 'FROM: "${FROM:-Mana \\"x\\" <a@b>}"'
    assert ComposeLine(Path("c.yml"), 1, listed=True).entry("A", "${A:-b c}") == '- "A=${A:-b c}"'


def test_t11_merges_of_merges_are_followed_once_each(tmp_path: Path) -> None:
    merges = "".join(f"x-{n}: &m{n} {{<<: [{', '.join([f'*m{n - 1}'] * 12)}]}}\n" for n in range(1, 9))
    text = f"x-0: &m0 {{A: 1}}\n{merges}services:\n  app:\n    environment:\n      <<: *m7\n      B: 2\n"
    (tmp_path / "compose.yml").write_text(text)
    began = time.monotonic()
    places = ComposeFiles([tmp_path / "compose.yml"])
    assert str(places.of("app", "A")) == "compose.yml:1"
    assert str(places.of("app", "B")).startswith("compose.yml:")
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    "text", ["[" * 60_000, "{a: b:c}\n" + "? " * 30_000, "{a: b:c, d: " + "[[a]," * 2_000, "[" * 900_000]
)
def test_t11_no_compose_file_holds_us_up(tmp_path: Path, text: str) -> None:
    """Of brackets within brackets both parsers take far more than their share: minutes for the first of these."""
    (tmp_path / "compose.yml").write_text(text)
    assert ComposeFiles([tmp_path / "compose.yml"]).of("mail") is None
    not_yaml(tmp_path / "compose.yml")
    assert named_files([tmp_path / "compose.yml"]) == {tmp_path / "compose.yml", tmp_path / ".env"}


def test_t11_files_that_include_each_other_are_read_once(tmp_path: Path) -> None:
    """Compose refuses it, and then its words are held against all files."""
    for name in "ab":
        text = f"include: [{', '.join(['a.yml', 'b.yml'] * 50)}]\nservices: {{{name}: {{image: x}}}}\n"
        (tmp_path / f"{name}.yml").write_text(text)
    found = ComposeFiles([tmp_path / "a.yml"])
    assert sorted(file.name for file, _ in found.files) == ["a.yml", "b.yml"]
    assert found.of("b") is not None


@pytest.mark.parametrize("named", ["/proc/self/pagemap", "/dev/zero", "/proc/kcore", "fifo", "/proc/self/mem"])
def test_t9_what_is_no_file_is_not_read_as_one(tmp_path: Path, named: str) -> None:
    """What the kernel shows of a process's memory is a file of no size that does not end."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "compose.yml").write_text(f"include: [{named}]\nservices: {{mail: {{image: x}}}}\n")
    found = ComposeFiles([tmp_path / "compose.yml"])
    assert [root is None for _, root in found.files] == [True, False]
    assert not_yaml(tmp_path / "fifo") is None
