"""`reconciler simulate` as a process: what it prints leads a shell to the systems that it serves."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
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


@pytest.mark.parametrize("packed", [True, False])
def test_it_judges_by_the_schema_of_another_release(tmp_path: Path, facts: Callable[[str], Path], packed: bool) -> None:
    """What that release does not have is named by the plan, and the rest is applied."""
    schema = json.loads(gzip.decompress(facts("stalwart/schema-0.16.18.json.gz").read_bytes()))
    del schema["fields"]["x:UserAccount"]["properties"]["quotas"]
    content = json.dumps(schema).encode()
    (tmp_path / "schema").write_bytes(gzip.compress(content) if packed else content)
    example = copy(ROOT / "tests" / "example", tmp_path / "stack")
    example.move()
    base = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(ROOT), **example.secrets}
    command = [sys.executable, "-m", "reconciler", "simulate", "--schema", str(tmp_path / "schema")]
    with subprocess.Popen(command, cwd=example.path, env=base, stdout=subprocess.PIPE, text=True) as process:
        try:
            environment = base | words(process)
            plan = run(example, environment, "plan", "--target", "stalwart")
            assert "has no property quotas of Account" in plan.stdout, plan.stdout
            applied = run(example, environment, "apply", "--yes", "--target", "stalwart")
            assert "account/noreply@mana.how" in applied.stdout, applied.stdout + applied.stderr
            again = run(example, environment, "plan", "--target", "stalwart", "--output", "json")
            assert [item["address"] for item in json.loads(again.stdout)["changes"]] == []
        finally:
            process.send_signal(signal.SIGINT)


@pytest.mark.parametrize("content", [None, b"", b"{}", b"\x1f\x8bx", b"[" * 100_000])
def test_what_is_no_schema_is_told(tmp_path: Path, content: bytes | None) -> None:
    example = copy(ROOT / "tests" / "example", tmp_path / "stack")
    if content is not None:
        (tmp_path / "schema").write_bytes(content)
    base = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(ROOT), **example.secrets}
    done = run(example, base, "simulate", "--schema", str(tmp_path / "schema"))
    assert done.returncode == 1
    assert ("can't be read" if content is None else "is no schema of a Stalwart") in done.stderr
    assert "Traceback" not in done.stderr
