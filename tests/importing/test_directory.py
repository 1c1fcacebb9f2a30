"""The directory appears whole or not at all, and a killed import can be run again."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from reconciler.desired.load import load
from reconciler.importing import directory, write
from reconciler.problem import InvalidDirectory, LeaseHeld, ReconcilerError, Refused
from reconciler.resources import Account, Domain

if TYPE_CHECKING:
    from reconciler.importing.found import Found

    from .conftest import Parts

# Forks, so that an import takes milliseconds; each child is killed one event later than the one before.
KILLED = """
import os, signal, sys
from pathlib import Path
from tests.importing.conftest import Parts
from tests.importing.test_directory import a_stack, texts
from reconciler.importing import write

EVENTS = {"os.mkdir", "os.rename", "os.link", "os.remove", "os.rmdir", "fcntl.flock", "fcntl.fcntl", "os.chmod"}
base = Path(sys.argv[1])


def child(folder, number):
    left = [number]

    def heard(event, arguments):
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if event in EVENTS or writes:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(heard)
    write(a_stack(Parts(folder)))
    os._exit(0)


def run(folder, number):
    pid = os.fork()
    if pid == 0:
        try:
            child(folder, number)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


(base / "whole").mkdir()
assert run(base / "whole", 10**9) == 0
whole = texts(base / "whole" / "desired-state")
number, code = 0, -9
while code == -9:
    number += 1
    folder = base / str(number)
    folder.mkdir()
    code = run(folder, number)
    out = folder / "desired-state"
    if out.exists():
        assert texts(out) == whole, number
    else:
        assert run(folder, 10**9) == 0, number  # what is left over is in nobody's way
        assert texts(out) == whole, number
    assert sorted(path.name for path in folder.iterdir()) == ["desired-state", "secrets"], number
assert code == 0, code
print(number)
"""


def a_stack(parts: Parts) -> Found:
    accounts = [Account(f"{name}@mana.how", email=f"{name}@mana.how", roles=("user",)) for name in ("a", "b")]
    server = parts.server(Domain("mana.how"), *accounts, hashes={item.name: FIXED for item in accounts})
    return parts.found(server=server, zone=[parts.record("MX", "@", "mail.mana.how", priority=10)])


FIXED = "$6$salt$" + "x" * 86


def texts(path: Path) -> dict[str, str]:
    return {item.name: item.read_text() for item in path.iterdir()}


@pytest.mark.long
def test_killed_at_every_moment(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    environment = {"PATH": os.environ.get("PATH", os.defpath), "PYTHONPATH": str(root), "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        cwd=root,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 8


def test_what_is_written_is_valid_and_no_secret_is_in_it(parts: Parts) -> None:
    found = a_stack(parts)
    result = write(found)
    assert list(load(parts.out).spec.accounts) == ["a@mana.how", "b@mana.how"]
    assert FIXED not in "".join(texts(parts.out).values()) + repr(result) + repr(found)
    assert [str(ref) for ref in result.secrets] == ["{file: ../secrets/a@mana.how}", "{file: ../secrets/b@mana.how}"]


def test_an_empty_directory_is_taken_and_a_stores_own_folder_comes_along(parts: Parts) -> None:
    parts.out.mkdir()
    found = a_stack(parts)
    write(replace(found, request=replace(found.request, store="file:own")))
    assert (parts.out / "own" / "a@mana.how").read_text().strip() == FIXED


def test_another_value_under_a_name_is_never_overwritten(parts: Parts) -> None:
    folder = parts.out.parent / "secrets"
    folder.mkdir()
    (folder / "a@mana.how").write_text("somebody's own\n")
    with pytest.raises(Refused):
        write(a_stack(parts))
    assert (folder / "a@mana.how").read_text() == "somebody's own\n"
    assert not parts.out.exists()
    assert list(parts.out.parent.glob(".*")) == []


def test_two_imports_at_once(parts: Parts) -> None:
    with directory.beside(parts.out, {}), pytest.raises(LeaseHeld):
        write(a_stack(parts))


def test_what_would_not_load_is_not_written(parts: Parts) -> None:
    with directory.beside(parts.out, {}) as place, pytest.raises(InvalidDirectory):
        directory.write(place, {"reconciler.yaml": "version: 1\n"}, parts.out)
    assert not parts.out.exists()


def test_a_place_that_cant_be_written(parts: Parts) -> None:
    parts.out.parent.joinpath("file").write_text("")
    place = directory.beside(parts.out.parent / "file" / "out", {})
    with pytest.raises(ReconcilerError, match="can't be written"), place:
        pass


def test_where_a_committed_link_leads_nothing_is_removed(
    parts: Parts, tmp_path_factory: pytest.TempPathFactory
) -> None:
    victim = tmp_path_factory.mktemp("victim")
    (victim / "kept").write_text("mine\n")
    (parts.out.parent / ".desired-state.import").symlink_to(victim)
    with pytest.raises(ReconcilerError, match="symbolic link"):
        write(a_stack(parts))
    assert texts(victim) == {"kept": "mine\n"}
    assert not parts.out.exists()


def test_what_somebody_committed_beside_it_is_not_removed(parts: Parts) -> None:
    top, theirs = parts.out.parent, parts.out.parent / ".desired-state.import"
    theirs.mkdir()
    (theirs / "kept").write_text("theirs\n")
    for arguments in (["init", "-q"], ["add", "-A"]):
        subprocess.run(["git", "-C", str(top), *arguments], check=True)
    with pytest.raises(Refused, match=r"\.desired-state\.import/kept, which git tracks"):
        write(a_stack(parts))
    assert texts(theirs) == {"kept": "theirs\n"}
    subprocess.run(["git", "-C", str(top), "rm", "-rq", "--cached", "."], check=True)
    write(a_stack(parts))  # what a killed import left is in nobody's way
    assert not theirs.exists()


def test_the_request_is_judged_before_anything_is_asked(parts: Parts) -> None:
    request = parts.found(server=parts.server(), zone=[]).request
    with pytest.raises(ReconcilerError) as caught:
        request.check({})
    assert [item.where for item in caught.value.problems] == ["STALWART_ADMIN_PASSWORD", "CLOUDFLARE_API_TOKEN"]
