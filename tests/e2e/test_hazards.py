"""What will lose data one day is told while all is well, with what helps, by every plan and apply."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

TAG = "is not pinned"


@pytest.fixture(autouse=True)
def _as_it_was(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let the watch over what is not ours begin anew: the container is changed on purpose."""
    (name,) = {"applied", "newer_applied"} & set(request.fixturenames)
    stack = request.getfixturevalue(name)
    yield
    stack.applied.restore(stack)


def hazards(stack: Any) -> list[dict[str, str]]:
    done = stack.expect(0, "plan", "--output", "json")
    return [item for item in done.json["problems"] if item["where"] == "container mana-mail"]


def test_a_plan_without_changes_warns_of_the_volume_and_the_tag(applied: Any) -> None:
    stack = applied
    mount, tag = hazards(stack)
    assert (mount["severity"], tag["severity"]) == ("warning", "warning")
    assert "docker cp -a mana-mail:/opt/stalwart saved" in mount["hint"]
    assert "`- stalwart_data:/opt/stalwart` under the service's `volumes:`" in mount["hint"]
    assert "`image: stalwartlabs/stalwart:v0.15.5`" in tag["hint"]
    for command in (("plan",), ("plan", "--output", "markdown"), ("apply", "--yes")):
        said = re.sub(r"[\\`]", "", stack.expect(0, *command).out)
        assert "stalwart_data is mounted at /opt/stalwart-mail, where the image" in said, command
        assert mount["hint"].rpartition("write")[2].replace("`", "") in said, command
        assert TAG in said, command
    # It is no pending change, stops nothing, and is what doctor says in the same words.
    assert stack.expect(0, "plan", "--detailed-exitcode").code == 0
    found = json.loads(stack.run("doctor", "--only", "container", "--output", "json").out)["checks"]
    summaries = {item["id"]: item for item in found}
    assert mount["summary"] in summaries["container/volume-path"]["summary"]
    assert summaries["container/volume-path"]["remedy"]["text"] == mount["hint"]


def test_what_the_warning_says_to_write_silences_it(applied: Any) -> None:
    """Nothing is lost on the way: the volume holds what was saved, as the page shows."""
    stack = applied
    compose = stack.example.compose_file.name
    stack.example.edit(compose, "- stalwart_data:/opt/stalwart-mail\n", "- stalwart_data:/opt/stalwart\n")
    stack.example.edit(compose, "stalwartlabs/stalwart:latest", "stalwartlabs/stalwart:v0.15.5")
    stack.stage.up("stalwart")
    stack.expect(0, "apply", "--yes")
    assert hazards(stack) == []
    said = stack.expect(0, "plan").out
    assert "keeps nothing" not in said
    assert TAG not in said


def test_a_healthy_stack_of_the_newer_generation_hears_of_its_tag_alone(newer_applied: Any) -> None:
    (tag,) = hazards(newer_applied)
    assert TAG in tag["summary"]
    for mount in newer_applied.container("mana-mail").mounts:
        if mount["Destination"] == "/var/lib/stalwart":
            mount.update(Name="f" * 64)  # as a container has it whose compose file names no volume there
    volume, _ = hazards(newer_applied)
    assert "keeps data in /var/lib/stalwart, and no named volume is mounted there" in volume["summary"]
