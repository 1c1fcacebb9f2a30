"""Programs that we start: what they get, how long and loud they may be, and that they die with us."""

from __future__ import annotations

import os
import signal
import socket
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


IN_THE_GAP = """
import os, signal, socket, sys
from reconciler import process

def die_before_it_is_told(sign, pid):
    print(pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

ours, theirs = socket.socketpair()
options = {"fed": {"fed": True}, "not fed": {"fed": False}, "socket": {"end": theirs.fileno()}}[sys.argv[1]]
process._WATCHER.tell = die_before_it_is_told
process.spawn(process.SSH, ["sh", "-c", 'echo >"$0"; sleep 300', sys.argv[2]], os.environ, **options)
"""


@pytest.mark.parametrize("options", ["fed", "not fed", "socket"])
def test_t13_no_program_begins_that_is_not_watched(tmp_path: Path, options: str) -> None:
    """We are killed after the child was made, and before whoever would end it knows of it."""
    command = [sys.executable, "-c", IN_THE_GAP, options, str(tmp_path / "began")]
    ended = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    assert ended.returncode == -signal.SIGKILL
    wait_for(lambda: not alive(int(ended.stdout)))
    assert not (tmp_path / "began").exists()


def test_a_program_gets_its_arguments_and_input_as_they_are() -> None:
    odd = ["", " ", "-n", "$HOME", '"; exit 9; "', "<&1", "*", "a\nb", "\\n", "é"]
    assert process.run(SSH, ["printf", "%s|", *odd], ENVIRON).output == "|".join([*odd, ""])
    for given in ("\n", "\nx", "go\n\n", "no line end"):
        assert process.run(SSH, ["cat"], ENVIRON, given=given).output == given
    assert sh("cat; echo out; echo err >&2; exit 7") == Ended(7, b"out\n", b"err\n")


def test_a_socket_is_the_input_and_the_output_of_a_program() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        child = process.spawn(SSH, ["cat"], ENVIRON, end=theirs.fileno())
    with ours:
        ours.sendall(b"said")
        ours.shutdown(socket.SHUT_WR)
        with ours.makefile("rb") as answer:
            assert answer.read() == b"said"
    assert child.wait(10) == 0
    process.forget(child)


def test_what_is_no_program_is_told(tmp_path: Path) -> None:
    (tmp_path / "no-program").write_text("#!/nowhere/at-all\n")
    (tmp_path / "no-program").chmod(0o755)
    with pytest.raises(CannotRun, match="can't be run") as caught:
        process.run(SSH, ["no-program"], {"PATH": str(tmp_path)})
    assert not caught.value.missing
    with pytest.raises(CannotRun, match="can't be run: No such file"):
        process.run(SSH, ["true"], ENVIRON, tmp_path / "nowhere")


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
