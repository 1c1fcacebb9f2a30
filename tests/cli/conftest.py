"""A directory of YAML, systems in a file, and two ways to call the program: inside this process, and as a real one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import systems
from click.testing import CliRunner, Result

from reconciler.cli import program

SCRIPT = Path(systems.__file__)
CANARY = "canary-Zk93-word"
RECONCILER = """\
version: 1
stack: mana
targets:
  stalwart: {url: "http://localhost:8443", username: admin, password: {env: STALWART_ADMIN_PASSWORD}}
  cloudflare: {token: {env: CLOUDFLARE_API_TOKEN}}
policy: {max_deletes: 3}
"""
ACCOUNTS = """\
accounts:
  noreply@mana.how:
    password: {env: NOREPLY_PASSWORD}
"""
DNS = """\
dns:
  mana.how:
    - {type: A, name: mail, content: 192.0.2.1}
    - {type: A, name: www, content: 192.0.2.2, ttl: 300}
"""

Run = Callable[..., Result]


class Place:
    """A user's directory, with the systems it describes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.state = root / "desired-state"
        self.data = root / ".reconciler"
        self.world = systems.World(root)
        self.state.mkdir()
        self.write(RECONCILER, "reconciler.yaml")
        self.write(ACCOUNTS, "accounts.yaml")
        self.write(DNS)

    def write(self, text: str, name: str = "dns.yaml") -> None:
        (self.state / name).write_text(text)

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "SYSTEMROOT")}
        return kept | {
            "TEST_WORLD": str(self.root),
            "RECONCILER_STATE": str(self.state),
            "NOREPLY_PASSWORD": CANARY,
            "STALWART_ADMIN_PASSWORD": "canary-admin",
            "PYTHONWARNINGS": "error",
        }

    def popen(self, *args: str, **options: Any) -> subprocess.Popen[str]:
        environment = self.environment() | options.pop("environment", {})
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        return subprocess.Popen([sys.executable, str(SCRIPT), *args], text=True, env=environment, **streams)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    place = Place(tmp_path)
    for name in list(os.environ):
        if name not in ("PATH", "HOME", "LANG"):
            monkeypatch.delenv(name)
    for name, value in place.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return place


@pytest.fixture
def run(place: Place) -> Iterator[Run]:
    """Call the program inside this process."""
    runner = CliRunner()

    def call(*args: str, **options: Any) -> Result:
        result = runner.invoke(program, list(args), prog_name="reconciler", **options)
        assert "canary" not in result.output
        return result

    with systems.connected():
        yield call


@pytest.fixture
def wait_for() -> Callable[[Callable[[], Any]], None]:
    """Wait until something holds."""

    def wait(holds: Callable[[], Any]) -> None:
        end = time.monotonic() + 60
        while not holds():
            assert time.monotonic() < end, "waited for a minute"
            time.sleep(0.01)

    return wait
