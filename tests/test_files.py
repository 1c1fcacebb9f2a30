"""Files are written whole or not at all, and locks hold for a name."""

from __future__ import annotations

import errno
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reconciler import files


@contextmanager
def full_disk(largest: int) -> Iterator[None]:
    """Let no file of this process grow beyond some bytes."""
    limits, former = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, former)


def test_a_private_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / ".reconciler" / "passwords.json"
    files.write_private(path, b"first")
    path.chmod(0o644)
    files.write_private(path, b"second")
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"second", 0o600)
    limits, former = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4, limits[1]))  # the disk is full
    try:
        with pytest.raises(OSError, match="too large"):
            files.write_private(path, b"the third")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, former)
    assert path.read_bytes() == b"second"
    assert {item.name for item in path.parent.iterdir()} == {".gitignore", path.name}


def test_a_new_file_has_its_mode_and_replaces_nothing(tmp_path: Path) -> None:
    path = tmp_path / "key"
    files.create(path, b"first")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(FileExistsError):
        files.create(path, b"second")
    assert path.read_bytes() == b"first"
    files.create(tmp_path / "plain", b"", files.usual_mode())
    (tmp_path / "like").touch()
    assert (tmp_path / "plain").stat().st_mode == (tmp_path / "like").stat().st_mode


@pytest.mark.parametrize("in_place", [False, True])
def test_other_content_keeps_the_mode_and_a_link(tmp_path: Path, *, in_place: bool) -> None:
    path, link = tmp_path / "a.yaml", tmp_path / "link.yaml"
    path.write_bytes(b"before, and longer")
    path.chmod(0o640)
    link.symlink_to(path.name)
    files.replace(link, b"after", in_place=in_place)
    assert link.is_symlink()
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"after", 0o640)
    assert {item.name for item in tmp_path.iterdir()} == {"a.yaml", "link.yaml"}


@pytest.mark.parametrize("in_place", [False, True])
def test_what_is_read_only_is_left_alone(tmp_path: Path, *, in_place: bool) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"before")
    path.chmod(0o440)
    with pytest.raises(PermissionError, match="read-only"):
        files.replace(path, b"after", in_place=in_place)
    assert path.read_bytes() == b"before"


def test_a_full_disk_leaves_a_file_with_two_names_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_bytes(b"A=1\n")
    (tmp_path / "other").hardlink_to(path)
    with full_disk(8), pytest.raises(OSError, match="too large"):
        files.replace(path, b"A=1\nB=2\nC=3\n", in_place=True)
    assert (tmp_path / "other").read_bytes() == b"A=1\n"


# -------------------------------------------------------------------------------------------------------------- locks
HOLD = """
import sys
from pathlib import Path
from reconciler import files
with files.locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process holds the lock until its standard input ends."""
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_a_lock_that_is_held_too_long_is_an_error_that_says_so(tmp_path: Path) -> None:
    with held(tmp_path):
        began = time.monotonic()
        with pytest.raises(BlockingIOError) as caught, files.locked(tmp_path, 0.1):
            pass
        assert time.monotonic() - began < 5
    assert (caught.value.errno, caught.value.strerror) == (errno.EAGAIN, "another process is at work there")


def test_a_killed_holder_frees_it_to_who_waits(tmp_path: Path) -> None:
    with held(tmp_path) as process:
        timer = threading.Timer(0.2, process.kill)
        timer.start()
        with files.locked(tmp_path, 30):
            assert process.wait() == -signal.SIGKILL
        timer.join()


MAKER = """
from reconciler import files
with files.folder() as place:
    (place / "deep").mkdir()
    (place / "deep/file").write_text("what somebody committed")
    print(place, flush=True)
    input()
"""


def test_t13_a_folder_that_a_kill_has_left_goes_with_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    own = tmp_path / "reconciler-mystates"
    own.mkdir()
    (tmp_path / "reconciler-aaaaaaaa.tmp").symlink_to(own)
    environ = {**os.environ, "TMPDIR": str(tmp_path)}
    made = [
        subprocess.Popen([sys.executable, "-c", MAKER], stdin=-1, stdout=-1, text=True, env=environ) for _ in range(2)
    ]
    places = [Path(str(process.stdout and process.stdout.readline().strip())) for process in made]
    made[0].kill()
    made[0].communicate()
    with files.folder():
        assert all(place.is_dir() for place in places)  # it may be about to be locked
    monkeypatch.setattr(files, "_FRESH", -1.0)
    with files.folder() as place:
        assert [item.is_dir() for item in places] == [False, True]
        assert stat.S_IMODE(place.stat().st_mode) == 0o700
    made[1].communicate("\n")
    assert sorted(item.name for item in tmp_path.iterdir()) == ["reconciler-aaaaaaaa.tmp", "reconciler-mystates"]


def test_who_waited_holds_what_has_the_name_by_then(tmp_path: Path) -> None:
    path = tmp_path / "env"
    path.write_bytes(b"first")
    with held(path) as process:

        def turn() -> None:
            files.replace(path, b"second")
            process.kill()

        timer = threading.Timer(0.2, turn)
        timer.start()
        with files.locked(path, 30) as descriptor:
            assert files.has_name(descriptor, path)
            assert os.pread(descriptor, 100, 0) == b"second"
            with pytest.raises(BlockingIOError), files.locked(path, 0):
                pass
        timer.join()


def test_what_is_no_regular_file_is_not_even_opened(tmp_path: Path) -> None:
    """A watchdog or a tape acts on that; so does a pipe, whose writer waits to be heard."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    program = f"print('ready', flush=True); open({str(pipe)!r}, 'w')"
    writer = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        time.sleep(0.2)
        with pytest.raises(files.CannotRead, match="is not a regular file"):
            files.read(pipe)
        with pytest.raises(subprocess.TimeoutExpired):
            writer.wait(0.5)
    finally:
        writer.kill()
        writer.communicate()


def test_a_path_loses_its_detours_where_it_leads_to_the_same_place(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "far/away").mkdir(parents=True)
    (tmp_path / "link").symlink_to("far/away")
    assert files.plain(tmp_path / "state/../secrets/a") == tmp_path / "secrets/a"
    assert files.plain(tmp_path / "link/../a") == tmp_path / "link/../a"
    assert files.plain(Path("state/../a")) == Path("a")
