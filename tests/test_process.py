"""Programs that we start: what they get, how long and loud they may be, and that they die with us."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from reconciler import process
from reconciler.process import COMPOSE, GIT, SOPS, SSH, CannotRun, Ended, Kind

KINDS = [GIT, SOPS, COMPOSE, SSH]
ENVIRON = {
    "PATH": os.environ.get("PATH", os.defpath),
    "HOME": "/home/of-the-user",
    "CLOUDFLARE_API_TOKEN": "canary",
    "RECONCILER_TOKEN": "canary",
    "AWS_SECRET_ACCESS_KEY": "canary",
    "VAULT_TOKEN": "canary",
    "GIT_SSH_COMMAND": "canary",
    "GIT_DIR": "canary",
    "LD_PRELOAD": "canary",
    "COMPOSE_FILE": "canary",
    "SMTP_HOST": "canary",
}


def sh(script: str, kind: Kind = SSH, environ: Mapping[str, str] = ENVIRON, **options: Any) -> Ended:
    return process.run(kind, ["sh", "-c", script], {**ENVIRON, **environ}, **options)


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(200):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError


def alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has buried does not."""
    try:
        os.kill(pid, 0)
        said = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    except ProcessLookupError:
        return False
    return not said.startswith("Z") and bool(said)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_t7_a_child_gets_no_more_than_its_kind_needs(kind: Kind) -> None:
    assert "canary" not in sh("env", kind).output


def test_t7_more_is_passed_where_the_environment_says_so_and_to_whom() -> None:
    named = {"RECONCILER_PASS_ENV": "sops:AWS_*, VAULT_TOKEN"}
    seen = {kind.name: sh("env", kind, environ=named).output.count("=canary") for kind in KINDS}
    assert seen == {"git": 0, "sops": 2, "compose": 1, "ssh": 1}


@pytest.mark.parametrize("path", ["", ".", "bin:", ":/nowhere"])
def test_t1_a_program_is_never_taken_from_the_folder_we_are_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    for folder in (tmp_path, tmp_path / "bin"):
        folder.mkdir(exist_ok=True)
        (folder / "only-here").write_text("#!/bin/sh\n")
        (folder / "only-here").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CannotRun) as caught:
        process.run(SSH, ["only-here"], {"PATH": path})
    assert caught.value.missing


def test_t1_a_child_has_no_terminal_no_descriptor_and_a_folder_that_was_chosen(tmp_path: Path) -> None:
    with (tmp_path / "open").open("w") as ours:
        os.set_inheritable(ours.fileno(), True)
        assert sh(f"pwd; cat; (: </dev/tty) 2>/dev/null || echo none; ls -l /dev/fd/ | grep -c {tmp_path}").output == (
            "/\nnone\n0\n"
        )
    assert sh("pwd", folder=tmp_path).output == f"{tmp_path}\n"


def test_what_is_given_and_said_may_be_larger_than_a_pipe() -> None:
    given = "x" * 500_000
    assert sh("cat; cat /dev/null >&2", given=given).output == given
    assert sh("exit 3", given=given).status == 3


def test_output_and_time_are_bounded_and_nothing_of_it_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "MOST", 1 << 20)
    began = time.monotonic()
    for script in (
        "yes canary",
        "yes canary >&2",
        "echo canary; sleep 60",
        "sleep 60 & wait",
        "exec >&- 2>&-; sleep 60",
    ):
        with pytest.raises(CannotRun) as caught:
            sh(script, limit=0.5)
        assert "canary" not in repr(caught.value)
        assert caught.value.__cause__ is None
    assert time.monotonic() - began < 20


def test_who_holds_its_output_open_after_its_end_is_not_waited_for() -> None:
    began = time.monotonic()
    done = sh("sleep 30 & echo $!")
    assert time.monotonic() - began < 10
    os.kill(int(done.output), signal.SIGKILL)


RUN = """
import os, sys
from reconciler import process
process.run(process.SSH, ["sh", "-c", "true"], os.environ)
process.run(process.COMPOSE, ["sh", "-c", sys.argv[1]], os.environ)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_t13_children_and_theirs_die_with_us_however_we_die(tmp_path: Path, number: int) -> None:
    script = f"sleep 300 & echo $$ $! >{tmp_path}/written; mv {tmp_path}/written {tmp_path}/pids; wait"
    with subprocess.Popen([sys.executable, "-c", RUN, script]) as parent:
        wait_for((tmp_path / "pids").exists)
        children = [int(item) for item in (tmp_path / "pids").read_text().split()]
        assert all(map(alive, children))
        parent.send_signal(number)
    wait_for(lambda: not any(map(alive, children)))


def test_t13_a_child_that_has_ended_is_forgotten(tmp_path: Path) -> None:
    """Its number may be another program's by the time we die."""
    log = tmp_path / "kills"
    script = process._Watcher._SCRIPT.replace("kill -s KILL --", f'echo >>"{log}"')
    lines = "+ 11\n+ 22\n- 11\n+ 3\n+ 33\n- 22\n- 3\n+ 44\n"
    subprocess.run(["sh", "-c", script], input=lines, text=True, check=True)
    assert log.read_text().split() == ["-33", "-44"]


@pytest.mark.skipif(sys.platform != "linux", reason="prlimit is Linux's")
def test_t11_no_program_takes_more_memory_than_it_may() -> None:
    script = "import time; time.sleep(0.5); x = bytearray(2 << 30)"
    done = process.run(process.COMPOSE, [sys.executable, "-c", script], os.environ)
    assert done.status != 0
    assert "MemoryError" in done.complaint


def test_t8_an_env_file_can_not_ask_compose_for_more_than_the_services() -> None:
    """The environment wins over the env file."""
    known = process.environment(process.COMPOSE, {"COMPOSE_REMOVE_ORPHANS": "true", "PATH": "/bin"})
    assert known["COMPOSE_REMOVE_ORPHANS"] == known["COMPOSE_IGNORE_ORPHANS"] == known["COMPOSE_MENU"] == "false"
    assert {"COMPOSE_PARALLEL_LIMIT", "COMPOSE_BAKE"} <= known.keys()


@pytest.mark.parametrize(
    ("asked", "shut"),
    [
        ("", {"AWS", "GOOGLE", "AZURE", "VAULT", "HUAWEICLOUD"}),
        ("HTTPS_PROXY sops:SOPS_X compose:AWS_* A", {"AWS", "GOOGLE", "AZURE", "VAULT", "HUAWEICLOUD"}),
        ("sops:AWS_PROFILE", {"GOOGLE", "AZURE", "VAULT", "HUAWEICLOUD"}),
        ("sops:V* GOOGLE_APPLICATION_CREDENTIALS", {"AWS", "AZURE", "HUAWEICLOUD"}),
        ("sops:HOME", set()),
        ("sops:*", set()),
    ],
)
def test_t7_key_services_are_shut_until_something_of_theirs_is_passed(asked: str, shut: set[str]) -> None:
    given = process.environment(process.SOPS, {"PATH": "/bin", process.PASS: asked})
    services = [name for values in process.SOPS.shut.values() for name in values]
    assert {name.partition("_")[0] for name in given if name in services} == shut
    assert (
        process.environment(process.SOPS, {"AWS_EC2_METADATA_DISABLED": "false", process.PASS: "sops:AWS_*"})[
            "AWS_EC2_METADATA_DISABLED"
        ]
        == "false"
    )
