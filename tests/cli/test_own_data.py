"""A data directory that a commit made: nothing in it is believed, by any command."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Place, Run


@pytest.mark.parametrize("command", [["plan"], ["apply", "--yes"], ["status"], ["explain", "dns"], ["history"]])
@pytest.mark.parametrize("name", ["passwords.json", "administrator-mana.json", "journal.jsonl", ".gitignore"])
def test_t12_a_data_directory_out_of_a_commit_is_refused(place: Place, run: Run, command: list[str], name: str) -> None:
    place.data.mkdir(mode=0o700)
    (place.data / name).write_text("")
    for arguments in (["init", "-q"], ["add", "-f", str(place.data)]):
        subprocess.run(["git", "-C", str(place.root), *arguments], check=True, capture_output=True)
    refused = run(*command)
    assert refused.exit_code == 4, refused.output
    assert f".reconciler/{name}, which git tracks" in refused.output
    assert "--data" in refused.output
    assert not place.world.addresses
    assert run(*command, "--data", str(place.root / "other")).exit_code != 4
