"""The files of a service are what systemd and launchd understand, whatever the paths on this machine are."""

from __future__ import annotations

import json
import plistlib
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.daemon.services import Layout, compose, launchd, systemd

PLACE = Layout(Path("/usr/bin/env"), Path("/srv/mail/desired-state"), Path("/srv/mail/.reconciler"), "root")


def verified(folder: Path, text: str) -> str:
    """Return what systemd says of a unit; nothing where it is right."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("no systemd-analyze here")
    unit = folder / "reconciler.service"
    unit.write_text(text)
    ended = subprocess.run([program, "verify", str(unit)], capture_output=True, text=True, check=False, timeout=60)
    return "\n".join(line for line in ended.stderr.splitlines() if "reconciler.service" in line)


@pytest.mark.parametrize("folder", ["/srv/mail", "/srv/my mail", "/srv/100%", "/srv/$HOME"])
def test_systemd_takes_the_unit(tmp_path: Path, folder: str) -> None:
    place = Layout(PLACE.program, Path(folder, "desired-state"), Path(folder, ".reconciler"), "root")
    (text,) = systemd(place).values()
    assert verified(tmp_path, text) == ""


def exposure(folder: Path, text: str) -> float:
    """Return by how much a unit is exposed, as systemd judges it: from 0 to 10."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("no systemd-analyze here")
    (folder / "reconciler.service").write_text(text)
    command = [program, "security", "--offline=true", "--no-pager", str(folder / "reconciler.service")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    found = re.search(r"Overall exposure level for reconciler.service: ([\d.]+)", ended.stdout)
    if found is None:
        pytest.skip("this systemd-analyze judges no unit that is not installed")
    return float(found[1])


def test_the_unit_is_little_exposed(tmp_path: Path) -> None:
    """What is left is what it needs: a network, sockets, files of a user, and a place in the file system."""
    (text,) = systemd(replace(PLACE, user="mail")).values()
    assert exposure(tmp_path, text) <= 2.0
    bare = "\n".join(line for line in text.splitlines() if not line.startswith(("Protect", "SystemCall", "Capability")))
    assert exposure(tmp_path, bare) > 5.0, "and it is those lines that make it so"


def test_systemd_finds_what_is_wrong_in_one(tmp_path: Path) -> None:
    (text,) = systemd(PLACE).values()
    assert "Failed to parse" in verified(tmp_path, text.replace("WatchdogSec=1800", "WatchdogSec=often"))


def test_the_unit_says_where_it_writes_and_how_it_ends() -> None:
    (text,) = systemd(PLACE).values()
    lines = text.splitlines()
    assert "ExecStart=/usr/bin/env daemon --state /srv/mail/desired-state --data /srv/mail/.reconciler" in lines
    assert "ReadWritePaths=/srv/mail/.reconciler /srv/mail" in lines
    assert {"ProtectSystem=strict", "NoNewPrivileges=yes", "SuccessExitStatus=143", "Type=notify"} <= set(lines)


@given(
    st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0/", min_codepoint=32), min_size=1), min_size=1)
)
def test_launchd_gets_each_argument_as_it_is(names: list[str]) -> None:
    state = Path("/", *names)
    (text,) = launchd(Layout(PLACE.program, state, PLACE.data, "me")).values()
    found = plistlib.loads(text.encode())
    assert found["ProgramArguments"][1:4] == ["daemon", "--state", str(state)]
    assert found["KeepAlive"] == {"SuccessfulExit": False}


@pytest.mark.parametrize("folder", ["/srv/mail", "/srv/my mail: 100%", "/srv/$HOME", '/srv/"x"', "/srv/a:b#c"])
def test_compose_takes_the_service_and_mounts_the_project_where_it_is(tmp_path: Path, folder: str) -> None:
    asked = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    if asked.returncode:
        pytest.skip("no docker compose here")
    ((name, text),) = compose(Layout(PLACE.program, Path(folder, "desired-state"), PLACE.data, "root", 999)).items()
    (tmp_path / name).write_text(text)
    command = ["docker", "compose", "-f", str(tmp_path / name), "config", "--format", "json"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    service = json.loads(ended.stdout)["services"]["reconciler"]
    assert ended.stderr == ""
    mounts = {item["target"].replace("$$", "$"): item["source"].replace("$$", "$") for item in service["volumes"]}
    assert mounts[folder] == folder
    assert service["environment"]["RECONCILER_STATE"].replace("$$", "$") == f"{folder}/desired-state"
    assert (service["read_only"], service["cap_drop"], service["group_add"]) == (True, ["ALL"], ["999"])
