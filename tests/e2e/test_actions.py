"""The workflows that users get, run by act: what each event does to the pull request, the issue and the systems."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from githubfake import ACTIONS, GitHub, Token
from ruamel.yaml import YAML

from reconciler.github.workflows import ACTION, Place, files

from .hosting import DNS, JOB, Hosted, install

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("act")]
SLOW = DNS.replace("192.0.2.2, ttl: 300", "192.0.2.2, ttl: 3600")
WAYS = {
    "plan": frozenset({"pull_requests"}),
    "apply": frozenset({"statuses"}),
    "drift": frozenset({"issues"}),
}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The packages, and what the action's own script makes of them."""
    if shutil.which("act") is None:
        pytest.skip("act is not installed (.ci/run installs it)")
    house, temp = tmp_path_factory.mktemp("house"), tmp_path_factory.mktemp("runner")
    script = YAML(typ="safe").load(files(Place("mana"))[ACTION])["runs"]["steps"][0]["run"]
    install(house, temp, script)
    [prepared] = temp.iterdir()
    return house, prepared


@pytest.fixture
def hosted(house: tuple[Path, Path], tmp_path: Path) -> Iterator[Callable[..., Hosted]]:
    github = GitHub({JOB: Token(ACTIONS, frozenset({"issues", "pull_requests", "statuses", "contents", "actions"}))})
    with github.server:
        made: list[Hosted] = []

        def host(apply: str = "push") -> Hosted:
            made.append(Hosted(tmp_path, *house, github, apply))
            made[-1].server.start()
            return made[-1]

        yield host
        for item in made:
            item.server.stop()
    assert github.server.crashes == []


def test_validate(hosted: Callable[..., Hosted]) -> None:
    here = hosted()
    here.branch("slow", {"desired-state/dns.yaml": SLOW})
    ran = here.pull_request(7, "slow")
    print(ran.log)
    assert ran.code == 0
