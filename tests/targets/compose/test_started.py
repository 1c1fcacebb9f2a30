"""Whether what runs was started as we would, told by the labels that other tools leave."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from targets.compose.test_compose import (  # noqa: F401 (a fixture)
    HOST,
    NOTIFY,
    PASSWORD,
    World,
    errors,
    reveal,
    statuses,
    world,
)

from reconciler.problem import Problem
from reconciler.target import Status

# ruff: noqa: F811 - the fixture is asked for by its name

LABEL = "com.docker.compose.project"


def relabel(world: World, **labels: str) -> None:
    world.engine.named(NOTIFY).labels.update({f"{LABEL}.{name}": text for name, text in labels.items()})


def strangers(world: World, **options: Any) -> list[Problem]:
    return list(errors(world.target(**options).observe([HOST], reveal)).values())


@pytest.mark.parametrize("tool", ["Compose 1", "Dockge", "Komodo"])
def test_what_was_started_from_these_files_is_joined(world: World, tool: str) -> None:
    """Compose 1 names files as seen from the project directory; the others keep them where they say."""
    if tool == "Compose 1":
        relabel(world, config_files=world.compose_file.name, working_dir=str(world.directory))
        world.engine.named(NOTIFY).labels.pop(f"{LABEL}.environment_file")
    else:
        relabel(world, config_files=str(world.compose_file), environment_file=str(world.env_file))
    assert strangers(world) == []
    assert statuses(world.apply(HOST, PASSWORD)) == {Status.DONE}


@pytest.mark.parametrize(
    "labels",
    [
        {"config_files": "/data/compose/7/docker-compose.yml", "environment_file": "/data/compose/7/stack.env"},
        {"config_files": "/tmp/ansible.x1/docker-compose.yml"},
        {"config_files": "-"},
    ],
    ids=["Portainer", "Ansible", "standard input"],
)
def test_what_was_started_from_files_that_are_not_here_can_be_taken_over(
    world: World, labels: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    relabel(world, **labels)
    ids = world.ids()
    [problem] = strangers(world)
    assert "`" in problem.hint
    assert world.ids() == ids
    monkeypatch.setenv("DOCKER_HOST", world.docker_host)
    command = problem.hint.split("`")[1]  # the remedy, carried out
    subprocess.run(command, shell=True, check=True, capture_output=True)
    assert {name for name in world.ids() if world.ids()[name] != ids[name]} == {NOTIFY}
    assert strangers(world) == []
    assert statuses(world.apply(HOST, PASSWORD)) == {Status.DONE}


def test_another_project_directory_can_be_declared(world: World) -> None:
    (above := world.directory.parent).joinpath("unused").touch()
    relabel(world, working_dir=str(above))
    [problem] = strangers(world)
    assert problem.hint == f"declare that: targets.compose.directory: {above}"
    assert strangers(world, directory=above) == []


def test_a_profile_that_is_not_active_says_how_to_make_it_so(world: World) -> None:
    world.edit("    container_name: mana-core-notify\n", "    container_name: mana-core-notify\n    profiles: [mail]\n")
    [problem] = strangers(world)
    assert "COMPOSE_PROFILES" in problem.hint


def test_another_service_may_have_been_started_in_another_way(world: World, tmp_path: Path) -> None:
    other = next(item for item in world.engine.containers.values() if item.name != NOTIFY)
    other.labels[f"{LABEL}.config_files"] = f"{world.compose_file},{tmp_path / 'debug.yml'}"
    assert strangers(world) == []


def test_a_container_outside_of_the_project_in_its_namespace_is_named(world: World) -> None:
    stranger = world.engine.run(
        "stranger",
        "mana-auth:local",
    )
    stranger.host["NetworkMode"] = f"container:{world.engine.named(NOTIFY).id}"
    [problem] = strangers(world)
    assert "stranger lives in its namespace" in problem.summary
