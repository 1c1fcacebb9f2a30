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

from reconciler.simulator.example import MENDED, MISPLACED, Example, copy
from reconciler.simulator.stage import PORTS

from .stagefixtures import Done, Zygote

ROOT = Path(__file__).parents[2]
Run = Callable[..., Done]


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


@pytest.fixture
def run(zygote: Zygote) -> Run:
    """Run the program beside the one that simulates."""

    def call(example: Example, environment: dict[str, str], *argv: str) -> Done:
        return zygote.run(argv, example.path, environment)

    return call


def test_it_serves_everything_on_ports_in_a_row(tmp_path: Path, run: Run) -> None:
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
            assert run(example, base | exports, "apply", "--yes").code == 0
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
def test_it_judges_by_the_schema_of_another_release(
    tmp_path: Path, run: Run, facts: Callable[[str], Path], packed: bool
) -> None:
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
            assert "has no property quotas of Account" in plan.out, plan.out
            applied = run(example, environment, "apply", "--yes", "--target", "stalwart")
            assert "account/noreply@mana.how" in applied.out, applied.out + applied.err
            again = run(example, environment, "plan", "--target", "stalwart", "--output", "json")
            assert [item["address"] for item in json.loads(again.out)["changes"]] == []
        finally:
            process.send_signal(signal.SIGINT)


@pytest.mark.parametrize("content", [None, b"", b"{}", b"\x1f\x8bx", b"[" * 100_000])
def test_what_is_no_schema_is_told(tmp_path: Path, run: Run, content: bytes | None) -> None:
    example = copy(ROOT / "tests" / "example", tmp_path / "stack")
    if content is not None:
        (tmp_path / "schema").write_bytes(content)
    base = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(ROOT), **example.secrets}
    done = run(example, base, "simulate", "--schema", str(tmp_path / "schema"))
    assert done.code == 1
    assert ("can't be read" if content is None else "is no schema of a Stalwart") in done.err
    assert "Traceback" not in done.err


def engine(environment: dict[str, str], method: str, path: str) -> int:
    """Ask the engine what the program `docker` asks it."""
    url = environment["DOCKER_HOST"].replace("tcp://", "http://")
    return httpx.request(method, f"{url}{path}", trust_env=False).status_code


def up(example: Example, environment: dict[str, str]) -> None:
    """Bring the project up as a person does."""
    files = ["-f", str(example.compose_file), "--env-file", str(example.env_file)]
    command = [*shlex.split(environment["RECONCILER_COMPOSE"]), *files, "up", "-d"]
    done = subprocess.run(command, cwd=example.path, env=environment, check=False, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("generation", ["rest", "jmap"])
def test_a_server_that_is_lost_by_hand_comes_back(tmp_path: Path, run: Run, generation: str) -> None:
    """The README's scene on a copy of one's own: whoever removes container and volume loses the server, and no more."""
    example = copy(ROOT / "tests" / "example", tmp_path / "stack")
    if generation == "jmap":
        example.move()
        volume, options = "stalwart_data_new", ["--generation", "jmap"]
    else:
        example.edit(example.compose_file.name, MISPLACED, MENDED)
        volume, options = "stalwart_data", []
    base = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(ROOT), **example.secrets}
    command = [sys.executable, "-m", "reconciler", "simulate", *options]
    with subprocess.Popen(command, cwd=example.path, env=base, stdout=subprocess.PIPE, text=True) as process:
        try:
            environment = base | words(process)

            both = ("--target", "stalwart", "--target", "cloudflare")

            def pending() -> list[str]:
                done = run(example, environment, "plan", "--output", "json", *both)
                return [item["address"] for item in json.loads(done.out)["changes"]]

            applied = run(example, environment, "apply", "--yes", *both)
            assert applied.code == 0, applied.out + applied.err
            assert pending() == []
            assert engine(environment, "DELETE", "/containers/mana-mail?force=1") == 204
            gone = run(example, environment, "plan", "--target", "stalwart")
            assert "start its service" in gone.out
            up(example, environment)
            assert pending() == [], "its volume was there"

            assert engine(environment, "DELETE", "/containers/mana-mail?force=1") == 204
            url = environment["DOCKER_HOST"].replace("tcp://", "http://")
            listed = httpx.get(f"{url}/volumes", trust_env=False).json()["Volumes"]
            [name] = [item["Name"] for item in listed if item["Name"].endswith(volume)]
            assert engine(environment, "DELETE", f"/volumes/{name}") == 204
            up(example, environment)
            assert "Stalwart is empty" in run(example, environment, "plan", *both).out
            changes = pending()
            assert "account/noreply@mana.how" in changes
            assert not [address for address in changes if address.startswith("dns/")], "DNS stays"
            again = run(example, environment, "apply", "--yes", *both)
            assert again.code == 0, again.out + again.err
            assert pending() == []
        finally:
            process.send_signal(signal.SIGINT)


def test_what_was_given_is_named_for_the_other_shell_and_never_shown(tmp_path: Path) -> None:
    example = copy(ROOT / "tests" / "example", tmp_path / "stack")
    given = {"NOREPLY_PASSWORD": "canary-1", "POSTMASTER_PASSWORD": "canary-2"}
    base = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(ROOT), **given}
    command = [sys.executable, "-m", "reconciler", "simulate"]
    with subprocess.Popen(command, cwd=example.path, env=base, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            printed = list(iter(process.stdout.readline, "# Ctrl-C ends it; nothing of it stays.\n"))
        finally:
            process.send_signal(signal.SIGINT)
    assert "canary" not in "".join(printed)
    exported = {line.split()[1].partition("=")[0] for line in printed if line.startswith("export ")}
    named = {line.split()[1] for line in printed if line.startswith("#   ")}
    assert named == set(given)
    assert named | exported >= {"STALWART_ADMIN_PASSWORD", "CLOUDFLARE_API_TOKEN", *given}
