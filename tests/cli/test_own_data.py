"""A data directory that a commit made: nothing in it is believed, by any command."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from reconciler import files

if TYPE_CHECKING:
    from pathlib import Path

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


@pytest.mark.parametrize("command", [["plan"], ["apply", "--yes"], ["status"], ["history"]])
@pytest.mark.parametrize("whose", ["everybody's", "another one's"])
def test_t12_a_data_directory_that_others_write_is_refused(
    place: Place, run: Run, monkeypatch: pytest.MonkeyPatch, command: list[str], whose: str
) -> None:
    """In /tmp another user may have been there first, with passwords that were "accepted"."""
    place.data.mkdir()
    place.data.chmod(0o777 if whose == "everybody's" else 0o755)
    (place.data / "passwords.json").write_text("{}")
    real = os.geteuid()
    if whose != "everybody's":
        monkeypatch.setattr(os, "geteuid", lambda: real + 4321)
        if not real:
            os.chown(place.data, 1234, -1)
    refused = run(*command)
    assert refused.exit_code == 4, refused.output
    assert f"{place.data}: " in refused.output
    assert "what lies there is believed" in " ".join(refused.output.split())
    assert not place.world.addresses
    assert sorted(item.name for item in place.data.iterdir()) == ["passwords.json"]
    place.data.chmod(0o775)  # its owner has chosen the group
    os.chown(place.data, real, -1)
    monkeypatch.setattr(os, "geteuid", lambda: real)
    assert run(*command).exit_code != 4


def test_t12_who_became_root_to_start_it_has_made_the_data_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = tmp_path.stat().st_uid or 1234
    if not os.geteuid():
        os.chown(tmp_path, owner, -1)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.delenv("SUDO_UID", raising=False)
    assert files.strangers(tmp_path) == f"belongs to user {owner}"
    monkeypatch.setenv("SUDO_UID", str(owner))
    assert files.strangers(tmp_path) == ""
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    assert files.strangers(tmp_path) == f"belongs to user {owner}"


@pytest.mark.parametrize("command", [["validate"], ["plan"], ["apply", "--yes"], ["history"], ["init"]])
@pytest.mark.parametrize("asked", ["--state", "--data"])
def test_t10_a_link_of_a_checkout_that_leads_out_of_it_is_not_followed(
    place: Place, run: Run, command: list[str], asked: str
) -> None:
    subprocess.run(["git", "-C", str(place.root), "init", "-q"], check=True)
    elsewhere = place.root.parent / f"{place.root.name}-elsewhere"
    (elsewhere / "state").mkdir(parents=True)
    (elsewhere / "state" / "users.yaml").write_text("tokens_of_others: 1\n")
    (place.root / "infra").symlink_to(elsewhere)
    refused = run(*command, asked, str(place.root / "infra" / "state"))
    assert refused.exit_code == 4, refused.output
    assert f"{place.root / 'infra'}: is a link that leads out of its checkout" in refused.output
    assert "tokens_of_others" not in refused.output
    assert sorted(item.name for item in elsewhere.iterdir()) == ["state"]
    assert not place.world.addresses


@pytest.mark.parametrize(
    ("command", "name"), [(["import", "--compose", "compose.yaml"], "out"), (["plan"], "plan.json")]
)
@pytest.mark.parametrize("way", ["infra", "{root}/infra", "infra/below"])
def test_what_is_written_with_out_is_not_led_out_of_a_checkout(
    place: Place, run: Run, command: list[str], name: str, way: str
) -> None:
    subprocess.run(["git", "-C", str(place.root), "init", "-q"], check=True)
    (place.root / "compose.yaml").write_text("services: {a: {image: a}}\n")
    elsewhere = place.root.parent / f"{place.root.name}-elsewhere"
    (elsewhere / "below").mkdir(parents=True)
    (place.root / "infra").symlink_to(elsewhere)
    refused = run(*command, "--out", f"{way.format(root=place.root)}/{name}")
    assert refused.exit_code == 4, refused.output
    assert f"{place.root / 'infra'}: is a link that leads out of its checkout" in refused.output
    assert [item.name for item in elsewhere.rglob("*")] == ["below"]
