"""What `pip install` brings: built without a network, and run with nothing of the checkout beside it (U20)."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling", reason="what builds the package is not installed")
    out = tmp_path_factory.mktemp("wheel")
    words = ("wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", str(out), str(ROOT))
    subprocess.run([sys.executable, "-m", "pip", "--disable-pip-version-check", *words], check=True)
    (found,) = out.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def house(wheel: Path) -> Path:
    """A venv with the wheel in it; what it needs comes from this one, behind it."""
    there = wheel.with_name("venv")
    venv.create(there, with_pip=False)
    (site,) = there.glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    (site / "needs.pth").write_text("\n".join(item for item in sys.path if item.endswith("site-packages")) + "\n")
    return there


def run(house: Path, cwd: Path, *words: str) -> subprocess.CompletedProcess[str]:
    known = {name: os.environ[name] for name in ("PATH", "TMPDIR", "LANG") if name in os.environ}
    environment = {**known, "HOME": str(cwd), "NO_COLOR": "1"}
    command = [str(house / "bin/python"), *words]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def test_u20_the_wheel_says_what_it_is(wheel: Path, house: Path) -> None:
    (info,) = house.glob("lib/python*/site-packages/mail_reconciler-*.dist-info")
    said = Parser().parsestr((info / "METADATA").read_text("utf-8"))
    assert said["Name"] == "mail-reconciler"
    assert said["Summary"]
    assert said["License-Expression"] == "Apache-2.0"
    assert said["Requires-Python"] == ">=3.11"
    assert "stalwart" in said["Keywords"]
    assert "Topic :: Communications :: Email" in said.get_all("Classifier", [])
    assert said["Description-Content-Type"] == "text/markdown"
    assert "reconciler import" in said.get_payload()
    assert (info / "licenses" / "LICENSE").is_file()
    assert "reconciler = reconciler.__main__:main" in (info / "entry_points.txt").read_text("utf-8")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert not [name for name in names if name.startswith(("tests/", "bench/", "docs/"))]


def test_u20_it_runs_from_the_wheel_alone(house: Path, tmp_path: Path) -> None:
    where = run(house, tmp_path, "-c", "import reconciler; print(reconciler.__file__)")
    assert Path(where.stdout.strip()).is_relative_to(house)
    for words in (("--version",), ("schema",), ("init", "--example"), ("validate",)):
        done = run(house, tmp_path, "-m", "reconciler", *words)
        assert done.returncode == 0, (words, done.stdout[-500:], done.stderr)
    assert (tmp_path / "desired-state" / "dkim.yaml").is_file()


def test_u20_the_demo_plays_from_the_wheel(house: Path, tmp_path: Path) -> None:
    done = run(house, tmp_path, "-m", "reconciler.simulator.demo")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "Traceback" not in done.stderr
