"""What we keep in the data directory, however it is damaged: that knowledge is lost, said so once, and nothing else."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler import files, journal
from reconciler.journal import Journal
from reconciler.lease import Lease
from reconciler.problem import LeaseHeld, ReconcilerError, SecretUnreadable, Severity
from reconciler.report.json import load as load_plan
from reconciler.stack import Choice
from reconciler.targets.stalwart.jmap.bootstrap import Administrator
from reconciler.targets.stalwart.jmap.password_checks import LoginRecords
from reconciler.targets.stalwart.jmap.pending import Pending

SERVER = "https://mail.example"
LINE = {"v": 1, "event": "began", "id": "ab12", "stack": "mana", "began": "2026-01-01T00:00:00Z", "who": "a@b"}
ENDED = {"v": 1, "event": "ended", "id": "ab12", "stack": "mana", "ended": "x", "seconds": 1, "whole": True}
RECORD = {
    "state": "accepted",
    "key": "aaaa",
    "fingerprint": "f",
    "since": "2026-01-01T00:00:00+00:00",
    "tried": None,
    "refused": None,
    "container": "",
}
WHOLE: dict[str, Any] = {
    "passwords": {"version": 1, "servers": {SERVER: {"a@b": RECORD}}},
    "pending": {"server": SERVER, "addresses": ["stalwart/hostname"]},
    "administrator": {"username": "a", "secret": "s"},
    "journal": LINE,
    "plan": {
        "format_version": "1.0",
        "stack": "mana",
        "revision": "",
        "desired_hash": "",
        "fingerprint": "",
        "complete": True,
        "changes": [{"address": "a/b"}],
        "adopted": [],
        "options": {},
    },
}


def passwords(path: Path) -> list[Any]:
    records = LoginRecords(path, SERVER)
    records.get("a@b")
    records.refused_since(records._known["a@b"].since) if "a@b" in records._known else None
    return [records.problem]


def pending(path: Path) -> list[Any]:
    return [Pending(path, SERVER).problem]


def administrator(path: Path) -> list[Any]:
    with contextlib.suppress(SecretUnreadable):  # another server's: then the declared passwords are tried alone
        Administrator(path, SERVER).read()
    return []


def log(path: Path) -> list[Any]:
    if path.name != journal.FILE:
        path.rename(path.with_name(journal.FILE))
    known = Journal(path.parent, "mana")
    known.last_whole()
    problem = known.problem
    try:
        entries = known.entries()
    except ReconcilerError:
        return [problem]
    for entry in entries:
        assert isinstance(entry.began, str)
        " ".join((*entry.targets, *entry.lost, *(item.address for item in entry.written)))
    return [problem]


def plan(path: Path) -> list[Any]:
    try:
        saved = load_plan(files.read(path).decode(errors="replace"), "plan.json")
        Choice.saved(saved.options)
        sorted(saved.changes)
    except (ReconcilerError, files.CannotRead, ValueError):
        pass
    return []


READERS: dict[str, Callable[[Path], list[Any]]] = {
    "passwords": passwords,
    "pending": pending,
    "administrator": administrator,
    "journal": log,
    "plan": plan,
}
DAMAGES: dict[str, bytes] = {
    "empty": b"",
    "binary": bytes(range(256)),
    "not UTF-8": b'{"version": "\xff\xfe"}',
    "truncated": b'{"version": 1, "serv',
    "deep": b"[" * 100_000,
    "deep maps": b'{"servers":' * 50_000,
    "a long number": b'{"version": 1' + b"0" * 6000 + b"}",
    "infinite": b'{"version": 1e999, "v": 1e999, "server": NaN}',
    "a list": b"[1, 2]",
    "a text": b'"x"',
    "null": b"null",
    "surrogates": b'{"server": "\\ud800", "addresses": ["\\ud800"], "username": "\\ud800", "secret": 1}',
}
TOLD = ("passwords", "pending", "journal")


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("damage", DAMAGES)
def test_t12_a_damaged_file_of_ours_is_a_warning_at_most(tmp_path: Path, name: str, damage: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(DAMAGES[damage])
    said = READERS[name](path)
    if name in TOLD and not (name == "journal" and damage == "empty") and damage != "surrogates":
        (problem,) = said
        assert problem.severity is Severity.WARNING
        assert problem.hint


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("what", ["folder", "pipe", "link", "unreadable"])
def test_t12_something_else_in_its_place_is_a_warning_at_most(tmp_path: Path, name: str, what: str) -> None:
    path = tmp_path / ("journal.jsonl" if name == "journal" else "file")
    (tmp_path / "elsewhere").write_text(json.dumps(WHOLE[name]))
    {
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
        "link": lambda: path.symlink_to("elsewhere"),
        "unreadable": lambda: os.mknod(path, stat.S_IFSOCK | 0o600),  # for root, too: it can't be opened
    }[what]()
    if what == "link" and name == "plan":  # which is the user's own
        return
    said = READERS[name](path)
    assert not said or said[0].severity is Severity.WARNING


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in inner for place in _places(item, (*path, key)))]


def _with(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = _with(value[path[0]], path[1:], new)
    return copy


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(name=st.sampled_from(sorted(READERS)), data=st.data(), new=JSON)
def test_t12_any_part_of_any_other_form_is_a_warning_at_most(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject, new: Any
) -> None:
    place = data.draw(st.sampled_from(_places(WHOLE[name])))
    path = tmp_path_factory.mktemp("own") / "file"
    text = json.dumps(_with(WHOLE[name], place, new))
    path.write_text(f"{text}\n{json.dumps(ENDED)}\n" if name == "journal" else text)
    READERS[name](path)


@given(st.binary(max_size=60), st.integers(0, 400))
def test_t12_any_bytes_anywhere_are_a_warning_at_most(
    tmp_path_factory: pytest.TempPathFactory, junk: bytes, at: int
) -> None:
    for name, reader in READERS.items():
        path = tmp_path_factory.mktemp("own") / "file"
        content = json.dumps(WHOLE[name]).encode()
        path.write_bytes(content[:at] + junk + content[at + len(junk) :])
        reader(path)


def test_t12_a_line_that_a_kill_tore_is_no_damage(tmp_path: Path) -> None:
    whole = json.dumps(LINE, separators=(",", ":"))
    (tmp_path / journal.FILE).write_text(f"{whole}\n{whole[:30]}\n{json.dumps(ENDED, separators=(',', ':'))}\n")
    known = Journal(tmp_path, "mana")
    assert known.last_whole() is not None
    assert known.problem is None


@pytest.mark.parametrize(
    "content", [b"[" * 5000, b"\xff", b'{"pid": [1], "host": {}}', b'{"pid": 1e999}', b"x" * 99_999]
)
def test_t12_a_damaged_lease_names_nobody(tmp_path: Path, content: bytes) -> None:
    with Lease(tmp_path, "mana") as lease:
        lease.path.write_bytes(content)
        with pytest.raises(LeaseHeld), Lease(tmp_path, "mana"):
            pass


# ------------------------------------------------------------------------------------------------- where it may lie
@pytest.mark.parametrize("what", ["link", "file"])
def test_t10_a_link_in_place_of_the_data_directory_is_not_followed(tmp_path: Path, what: str) -> None:
    elsewhere, data = tmp_path / "elsewhere", tmp_path / ".reconciler"
    elsewhere.mkdir()
    (elsewhere / journal.FILE).write_text(json.dumps(LINE) + "\n")
    (elsewhere / "passwords.json").write_text(json.dumps(WHOLE["passwords"]))
    before = {item.name: item.read_bytes() for item in elsewhere.iterdir()}
    data.symlink_to(elsewhere) if what == "link" else data.write_text("")
    with pytest.raises(ReconcilerError, match="nothing may be written"), Lease(data, "mana"):
        pass
    log = Journal(data, "mana")
    assert log.begin(journal.entry("mana", {})) is not None
    assert log.last_whole() is None
    assert log.problem is not None
    records = LoginRecords(data / "passwords.json", SERVER)
    assert records.get("a@b") is None
    assert records.problem is not None
    Pending(data / "pending.json", SERVER).note(["stalwart/hostname"])
    Administrator(data / "administrator.json", "http://127.0.0.1:8080").discard()
    assert {item.name: item.read_bytes() for item in elsewhere.iterdir()} == before


HOLD = """
import sys
from pathlib import Path
from reconciler.lease import Lease
with Lease(Path(sys.argv[1]), "mana") as lease:
    print("held", flush=True)
    for _ in sys.stdin:
        print(lease.lost, flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no names in the kernel")
def test_t10_a_lease_that_git_clean_removes_is_missed_and_lets_nobody_else_in(tmp_path: Path) -> None:
    data = tmp_path / ".reconciler"
    command = [sys.executable, "-c", HOLD, str(data)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"

        def lost() -> str:
            print("?", file=holder.stdin)
            return holder.stdout.readline()  # type: ignore[union-attr]

        assert lost() == "False\n"
        subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
        subprocess.run(["git", "-C", str(tmp_path), "clean", "-qfdx"], check=True)
        assert not data.exists()
        assert lost() == "True\n"
        with pytest.raises(LeaseHeld), Lease(data, "mana"):
            pass
        assert lost() == "True\n"
        holder.stdin.close()
        holder.wait()
    with Lease(data, "mana") as lease:
        assert not lease.lost
