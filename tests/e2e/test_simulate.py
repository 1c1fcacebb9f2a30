"""`reconciler simulate` as a process: what it prints leads a shell to the systems that it serves."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import dns.message
import dns.query
import httpx
import pytest

from reconciler.simulator.example import Example, copy
from reconciler.simulator.stage import PORTS

ROOT = Path(__file__).parents[2]


def free_ports() -> int:
    """Return the first of as many ports in a row as a stage takes, all of them free."""
    for first in range(21000, 32000, PORTS):
        with contextlib.suppress(OSError), contextlib.ExitStack() as held:
            for port in range(first, first + PORTS):
                held.enter_context(socket.create_server(("127.0.0.1", port)))
            return first
    pytest.fail("no ports are free")


def words(process: subprocess.Popen[str]) -> dict[str, str]:
    """Read what is to be exported."""
    assert process.stdout is not None
    exports = {}
    for line in process.stdout:
        if line.startswith("export "):
            name, _, value = shlex.split(line)[1].partition("=")
            exports[name] = value
        if "and then" in line:
            return exports
    pytest.fail("it ended before it served")


def run(example: Example, environment: dict[str, str], *argv: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "reconciler", *argv]
    return subprocess.run(
        command, cwd=example.path, env=environment, capture_output=True, text=True, check=False, timeout=120
    )


def test_it_serves_everything_on_ports_in_a_row(tmp_path: Path) -> None:
    example = copy(ROOT / "tests" / "example", tmp_path / "stack")
    base = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(ROOT), **example.secrets}
    first = free_ports()
    command = [sys.executable, "-m", "reconciler", "simulate", "--port", str(first)]
    with subprocess.Popen(command, cwd=example.path, env=base, stdout=subprocess.PIPE, text=True) as process:
        try:
            exports = words(process)
            brevo, *servers = (f"127.0.0.1:{first + number}" for number in (3, 4, 5))
            assert exports["BREVO_BASE_URL"] == f"http://{brevo}"
            assert exports["RECONCILER_NAMESERVERS"].split() == servers
            assert run(example, base | exports, "apply", "--yes").returncode == 0
            for number in (4, 5):
                query = dns.message.make_query("mail.mana.how", "A")
                reply = dns.query.udp(query, "127.0.0.1", port=first + number, timeout=5)
                assert [item.address for item in reply.answer[0]] == ["194.191.241.139"]
            key = {"api-key": "xkeysib-simulated"}
            found = httpx.get(f"http://{brevo}/v3/senders/domains/mana.how", headers=key, trust_env=False).json()
            assert found["dns_records"]["dmarc_record"]["status"], "it looks where the name servers look"
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
