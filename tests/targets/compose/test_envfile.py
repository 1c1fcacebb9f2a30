from __future__ import annotations

import itertools
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from properties import tries

from reconciler import files
from reconciler.problem import Severity, TargetUnreadable
from reconciler.targets.compose.envfile import EnvFile

HOSTILE = [
    "",
    " ",
    "a b",
    "p$ssw0rd",
    "$$",
    "${X}",
    '"',
    "'",
    "\\",
    "\\\\",
    "\\n",
    "\n",
    "\r\n",
    "#x",
    "a #b",
    "ü€",
    "\t",
]


def parsers() -> list[list[str]]:
    """The stand-in, and the real parser of Compose where it is installed."""
    found = [[sys.executable, "-m", "reconciler.simulator.compose"]]
    if (
        shutil.which("docker")
        and not subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode
    ):
        found.append(["docker", "compose"])
    return found


def read_back(parser: list[str], content: bytes, names: list[str]) -> dict[str, str]:
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "c.json").write_text(
            json.dumps({"services": {"s": {"image": "x", "environment": {name: f"${{{name}}}" for name in names}}}})
        )
        (Path(directory) / "e.env").write_bytes(content)
        done = subprocess.run(
            [*parser, "-f", f"{directory}/c.json", "--env-file", f"{directory}/e.env", "config", "--format", "json"],
            env={"PATH": os.environ["PATH"], "HOME": os.environ["HOME"]},
            capture_output=True,
            check=True,
            stdin=subprocess.DEVNULL,
        )
    found = json.loads(done.stdout)["services"]["s"]["environment"]
    return {name: value.replace("$$", "$") for name, value in found.items()}


def env_file(content: bytes, path: Path = Path("/nowhere/.env")) -> EnvFile:
    return EnvFile(path, "mana", content)


VALUES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30) | st.sampled_from(
    HOSTILE
)


@pytest.mark.parametrize("parser", parsers(), ids=lambda parser: "docker" if parser[0] == "docker" else "stand-in")
@settings(max_examples=6, deadline=None)
@example(HOSTILE)
@given(st.lists(VALUES, min_size=20, max_size=60))
def test_any_value_reaches_compose_as_it_is(parser: list[str], values: list[str]) -> None:
    written = {f"V{index}": value for index, value in enumerate(values)}
    content = env_file(b"V0=old\nOTHER='kept $V1'\n").having(written).content
    assert read_back(parser, content, list(written)) == written


OTHER_BYTES = st.binary(max_size=80) | st.sampled_from(
    [
        b"",
        b"A=1",
        b"A=1\n",
        b"A=1\r\nB=2\r\n",
        b"\xef\xbb\xbfA=1\n",
        b"# >>> reconciler other\nA=1\n# <<< reconciler other\n",
    ]
)


@settings(max_examples=tries(100), deadline=None)
@given(OTHER_BYTES, st.dictionaries(st.sampled_from("ABCD"), VALUES, min_size=1), VALUES)
def test_every_other_byte_is_kept_and_our_values_are_read_again(
    other: bytes, values: dict[str, str], more: str
) -> None:
    first = env_file(other).having(values)
    assert first.content.startswith(other)
    assert first.ours == values
    second = first.having({**values, "E": more})
    assert second.content.startswith(other)
    assert second.ours == {**values, "E": more}
    back = second.having(values)
    assert back.content.startswith(other)
    assert back.ours == values
    assert second.having({}).content in (other, other + b"\n", other + b"\r\n")


def test_the_block_moves_behind_what_was_added_after_it() -> None:
    once = env_file(b"A=1\n").having({"X": "ours"})
    edited = env_file(once.content + b"X=later\n")
    assert [(item.variable, item.line) for item in edited.others()] == [("A", 1), ("X", 5)]
    again = edited.having(edited.ours)
    assert again.content.startswith(b"A=1\nX=later\n# >>> reconciler mana")
    assert again.ours == {"X": "ours"}


MARKED = b"# >>> reconciler mana\nX=theirs\n# <<< reconciler mana\n"


@pytest.mark.parametrize(
    "other",
    [
        b'NOTE="how it looks:\n' + MARKED + b'end"\n',  # inside of somebody's value
        b"# >>> reconciler mana: the end was taken off\nA=1\nB=2\n",
        b"# <<< reconciler mana\nA=1\n",
        b"# >>> reconciler mana: a\nA=1\n# >>> reconciler other\n",
    ],
)
def test_what_only_looks_like_our_block_is_kept_to_the_byte(other: bytes) -> None:
    content = other
    for values in ({"X": "1"}, {"X": "2", "Y": "3"}, {"X": "4"}):
        file = env_file(content).having(values)
        assert file.content.startswith(other)
        assert file.ours == values
        content = file.content


def test_line_ends_are_the_files_own() -> None:
    assert b"\n" not in env_file(b"A=1\r\n").having({"X": "a\nb"}).content.replace(b"\r\n", b"")


def test_a_block_of_another_stack_is_not_ours() -> None:
    theirs = env_file(b"").having({"X": "theirs"}).content.replace(b"mana", b"mana-two")
    both = env_file(theirs).having({"Y": "ours"})
    assert both.ours == {"Y": "ours"}
    assert both.content.startswith(theirs)


def test_assignments_inside_a_quoted_value_are_none() -> None:
    content = b"A=\"first\nX=inside\n\"\nexport X = 1\n Y: 2\n#X=3\nZ='it\\'s\nY=inside'\n"
    assert [(item.variable, item.line) for item in env_file(content).others()] == [
        ("A", 1),
        ("X", 4),
        ("Y", 5),
        ("Z", 7),
    ]


# ----------------------------------------------------------------------------------------------------- on the disk
@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / ".env"
    path.write_bytes(b"A=1\n")
    path.chmod(0o640)
    return path


def replaced(path: Path) -> EnvFile:
    before = EnvFile.read(path, "mana")
    after = before.having({"X": "new"})
    before.replace_on_disk(after)
    return after


def test_mode_and_owner_are_kept_and_nothing_is_left_beside_it(path: Path) -> None:
    if os.geteuid() == 0:
        os.chown(path, 1234, 1235)
    before = path.stat()
    after = replaced(path)
    assert path.read_bytes() == after.content
    now = path.stat()
    assert (now.st_mode, now.st_uid, now.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert stat.S_IMODE(now.st_mode) == 0o640
    assert [item.name for item in path.parent.iterdir()] == [".env"]


def test_a_symbolic_link_stays_one(path: Path) -> None:
    (link := path.parent / "link").symlink_to(".env")
    after = replaced(link)
    assert link.is_symlink()
    assert path.read_bytes() == after.content


def test_the_other_name_of_a_hard_link_shows_the_same(path: Path) -> None:
    (other := path.parent / "other").hardlink_to(path)
    after = replaced(path)
    assert other.read_bytes() == after.content
    assert other.samefile(path)


def test_extended_attributes_are_kept(path: Path) -> None:
    try:
        os.setxattr(path, "user.note", b"mine")
    except (OSError, AttributeError):
        pytest.skip("no extended attributes here")
    replaced(path)
    assert os.getxattr(path, "user.note") == b"mine"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.chmod(0o440), "it is read-only"),
        (lambda path: path.unlink(), "No such file"),
        (lambda path: shutil.rmtree(path.parent), "No such file"),
        (lambda path: path.write_bytes(b"A=2\n"), "changed by someone else"),
    ],
)
def test_what_can_not_be_written_is_said_and_left_alone(path: Path, spoil: object, said: str) -> None:
    before = EnvFile.read(path, "mana")
    spoil(path)  # type: ignore[operator]
    content = path.read_bytes() if path.exists() else None
    with pytest.raises(TargetUnreadable, match=said) as error:
        before.replace_on_disk(before.having({"X": "new"}))
    assert error.value.problems[0].hint
    assert (path.read_bytes() if path.exists() else None) == content


def mounted(tmp_path: Path, *options: str) -> Path:
    """A file system of its own, or a skip where none can be mounted."""
    (point := tmp_path / "mounted").mkdir()
    if subprocess.run(["mount", *options, str(point)], capture_output=True, check=False).returncode:
        pytest.skip("mounting needs root and a kernel that lets it")
    return point


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    point = mounted(tmp_path, "-t", "tmpfs", "-o", "size=16k", "tmpfs")
    try:
        (path := point / ".env").write_bytes(b"A=1\n")
        (point / "filler").write_bytes(b"x" * 12288)
        before = EnvFile.read(path, "mana")
        with pytest.raises(TargetUnreadable, match="No space left"):
            before.replace_on_disk(before.having({"X": "x" * 5000}))
        assert path.read_bytes() == b"A=1\n"
        assert {item.name for item in point.iterdir()} == {".env", "filler"}
    finally:
        subprocess.run(["umount", str(point)], check=True)


def test_a_bind_mounted_file_is_written_in_place(path: Path) -> None:
    (point := path.parent / "mounted.env").write_bytes(b"")
    if subprocess.run(["mount", "--bind", str(path), str(point)], capture_output=True, check=False).returncode:
        pytest.skip("mounting needs root and a kernel that lets it")
    try:
        after = replaced(point)
        assert path.read_bytes() == point.read_bytes() == after.content
        assert {item.name for item in path.parent.iterdir()} == {".env", "mounted.env"}
    finally:
        subprocess.run(["umount", str(point)], check=True)


# ------------------------------------------------------------------------------------------------ which file it may be
BASHRC = b"""\
# ~/.bashrc
export EDITOR=vi
case $- in
    *i*) ;;
esac
alias ll='ls -l'
"""


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (BASHRC, 3),
        (b"A=1\nssh-ed25519 AAAA me@x\n", 2),
        (b"[core]\n\tbare = false\n", 1),
        (b"#!/bin/sh\nexec rm -rf x\n", 2),
        (b"A=1\n\0\n", 2),
        (b"root:x:0:0:root:/root:/bin/bash\n- x\n", 2),
        (b"", 0),
        (b"\xef\xbb\xbfA=1\r\n\r\n# x\r\nexport B: 'x\r\ny'\r\nBARE\nexport C\n  D = 2 # y\n", 0),
        (b"A=\"one\ntwo ( )\nthree\"\nB='\n[x]\n'\n", 0),
    ],
)
def test_t9_what_is_no_env_file_is_told_by_its_first_foreign_line(tmp_path: Path, content: bytes, line: int) -> None:
    path = tmp_path / ".env"
    path.write_bytes(content)
    if line == 0:
        assert EnvFile.read(path, "mana").content == content
        return
    with pytest.raises(TargetUnreadable) as caught:
        EnvFile.read(path, "mana")
    (problem,) = caught.value.problems
    assert f"line {line} " in problem.summary
    assert problem.severity is Severity.REFUSED
    assert path.read_bytes() == content


@given(values=st.dictionaries(st.from_regex(r"[A-Z_]{1,8}", fullmatch=True), st.text(max_size=20), max_size=4))
def test_t9_whatever_we_write_is_an_env_file(values: dict[str, str]) -> None:
    usable = {name: value for name, value in values.items() if "\0" not in value}
    assert env_file(b"A=1\n").having(usable).foreign_line() == 0


WRITER = """
import sys
from pathlib import Path
from reconciler.targets.compose.envfile import EnvFile
stack, path = sys.argv[1], Path(sys.argv[2])
seen = EnvFile.read(path, stack)
print("read", flush=True)
sys.stdin.readline()
for number in range(30):
    with seen.held() as now:
        after = now.having({**now.ours, f"{stack.upper()}_{number}": str(number)})
        now.replace_on_disk(after)
        seen = after
"""


def test_t14_two_stacks_on_one_env_file_keep_both_blocks(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_bytes(b"A=1")
    command = [sys.executable, "-c", WRITER]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    writers = [subprocess.Popen([*command, stack, str(path)], **pipes) for stack in ("one", "two")]
    for writer in writers:
        assert writer.stdout.readline() == "read\n"
    for writer in writers:
        writer.stdin.write("\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate(timeout=120)
        assert writer.returncode == 0
    for stack in ("one", "two"):
        assert EnvFile.read(path, stack).ours == {f"{stack.upper()}_{number}": str(number) for number in range(30)}
    assert path.read_bytes().startswith(b"A=1\n")
    assert [item.name for item in tmp_path.iterdir()] == [".env"]


KILLED = """
import os, signal, sys
from pathlib import Path
from reconciler.targets.compose.envfile import EnvFile
EVENTS = {"open", "os.mkdir", "os.link", "os.rename", "os.remove", "os.chmod", "os.rmdir", "os.chown", "os.utime",
          "os.listdir", "os.scandir", "fcntl.flock", "os.setxattr", "os.truncate"}
path, deadly = Path(sys.argv[1]), int(sys.argv[2])
seen, calls = EnvFile.read(path, "mana"), 0
def count(event, arguments):
    global calls
    calls += event in EVENTS
    if event in EVENTS and calls == deadly:
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(count)
with seen.held() as now:
    now.replace_on_disk(now.having({"SMTP_PASSWORD": "canary"}))
print(calls)
"""


def test_t13_a_kill_at_any_moment_leaves_one_file_at_most_that_git_ignores_and_the_next_run_removes(
    tmp_path: Path,
) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    path = tmp_path / ".env.macmini"
    (tmp_path / ".gitignore").write_text("/.env*\n")
    moments, left_behind = 0, 0
    for deadly in itertools.count(1):
        path.write_bytes(b"A=1\n")
        path.chmod(0o640)
        done = subprocess.run(
            [sys.executable, "-c", KILLED, str(path), str(deadly)], capture_output=True, text=True, check=False
        )
        whole = env_file(b"A=1\n", path).having({"SMTP_PASSWORD": "canary"}).content
        assert path.read_bytes() in (b"A=1\n", whole)
        said = subprocess.run(
            ["git", "-C", str(tmp_path), "status", "--porcelain", "-uall"], capture_output=True, text=True, check=True
        ).stdout
        assert said.split() == ["??", ".gitignore"]
        found = [item for item in tmp_path.rglob("*") if item.is_file() and ".git/" not in str(item)]
        secret = [item for item in found if item != path and b"canary" in item.read_bytes()]
        assert len(secret) <= 1
        assert all(item.stat().st_mode & 0o777 in (0o600, 0o640) for item in secret)
        left_behind += len(secret)
        files.sweep_for(path)  # as the next plan or apply does
        assert not list(tmp_path.rglob(".new-*"))
        if done.returncode == 0:
            break
        moments += 1
    assert moments > 10
    assert left_behind > 0  # it was killed while there was something


# -------------------------------------------------------------------------------------------- what else is in the file
def test_who_is_killed_leaves_word_of_what_was(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("A=1\n")
    before = EnvFile.read(path, "x").having({"HOST": "old", "LEFT": "1"})
    marked = before.having({"HOST": "new $", "LEFT": "1", "MORE": "2"}, ["app", "side"], before.ours)
    assert marked.recreating == ("app", "side")
    assert marked.ours == {"HOST": "new $", "LEFT": "1", "MORE": "2"}
    assert marked.formerly == before.ours == {"HOST": "old", "LEFT": "1"}
    clean = marked.having(marked.ours)
    assert (clean.recreating, clean.ours, clean.formerly) == ((), marked.ours, marked.ours)
    assert marked.having(marked.formerly).content == before.content
    assert marked.having({}).content == b"A=1\n"
    word = before.having(before.ours, ["app"], before.ours, ["job"])
    assert (word.recreating, word.resting, word.interrupted) == (("app",), ("job",), ("app", "job"))
    assert word.having(word.ours).content == before.content
    alone = EnvFile.read(path, "x").having({}, [], {}, ["job"])
    assert (alone.resting, alone.ours, alone.having({}).content) == (("job",), {}, b"A=1\n")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("A=1\n", "1"),
        ("A=0\nA = 1 \n", "1"),
        ("A='$x'\n", "$x"),
        ('A="x y"\n', "x y"),
        ("A=\n", ""),
        ("A=op://vault/item\n", "op://vault/item"),
        ('A="$x"\n', None),
        ("A=${B}\n", None),
        ("A=1 # or 2\n", None),
        ('A="x\\n"\n', None),
        ("B=1\n", None),
    ],
)
def test_what_a_variable_is_given_plainly(tmp_path: Path, content: str, said: str | None) -> None:
    (tmp_path / ".env").write_text(content)
    file = EnvFile.read(tmp_path / ".env", "x")
    assert file.plain("A") == said
    assert file.filled("${A}/$A/${A:-d}/${C:-e}") == ("${A}/$A/d/e" if not said else f"{said}/{said}/{said}/e")


def test_what_its_values_take_in(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=${B}-$C\nexport D='$E'\nF\n# G\n")
    assert dict(EnvFile.read(tmp_path / ".env", "x").takes()) == {"A": ("B", "C"), "D": (), "F": ("F",)}


def test_our_block_stays_in_front_of_what_is_made_of_it_and_goes_behind_what_sets_it(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("A=1\n")
    block = EnvFile.read(path, "x").having({"HOST": "old"}).content
    path.write_bytes(block + b"URL=smtp://${HOST}\nRAW='${HOST}'\nALL=$URL/x\n")
    file = EnvFile.read(path, "x")
    assert [(item.variable, item.line) for item in file.made_of("HOST")] == [("URL", 5), ("ALL", 7)]
    assert file.having({"HOST": "new"}).content == file.content.replace(b'"old"', b'"new"')
    path.write_bytes(block + b"HOST=theirs\n")
    assert EnvFile.read(path, "x").having({"HOST": "new"}).content.endswith(b"# <<< reconciler x\n")


def test_variables_in_the_blocks_of_other_stacks_are_known(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("A=1\n")
    path.write_bytes(EnvFile.read(path, "other").having({"HOST": "theirs"}).content)
    file = EnvFile.read(path, "x").having({"PORT": "1"})
    assert file.theirs() == {"HOST": "other"}


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"A=ENC[canary]\nsops_mac=ENC[x]\n", "sops"), ("A=canary\n".encode("utf-16"), "UTF-16")],
)
def test_a_file_in_another_form_is_refused_without_a_byte_of_it(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / ".env"
    path.write_bytes(content)
    with pytest.raises(TargetUnreadable) as error:
        EnvFile.read(path, "x")
    [problem] = error.value.problems
    assert problem.severity is Severity.REFUSED
    assert said in problem.summary
    assert "canary" not in str(problem)
