"""`make demo`: what it shows in short, one act at length, and a word it does not know."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCREEN = 54  # lines


def demo(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "reconciler.simulator.demo", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False, timeout=300
    )


@pytest.mark.long
def test_it_fits_two_screens_and_leaves_nothing(tmp_path):
    done = demo(TMPDIR=str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) <= 2 * SCREEN
    assert "9 changes were made." in done.stdout
    assert sum("A login on port 587 as noreply@mana.how: 235 " in line for line in lines) == 3
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_one_act_at_length_begins_where_the_others_end():
    done = demo("recovery")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("$ reconciler ") == 2
    assert "entered as its recovery administrator" in done.stdout
    assert "+ account/noreply@mana.how (lost)" in done.stdout


def test_an_act_that_there_is_not():
    done = demo("swich")
    assert done.returncode == 2
    assert done.stderr == (
        "There is no act 'swich'. There are: "
        "all, apply, lost, switch, doctor, rotate, import, upgrade, recovery, daemon\n"
    )
