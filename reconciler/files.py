"""Files and locks: read without waiting for anything, written whole or not at all, by one process at a time.

Nobody ever sees a part of what is written here. What a kill leaves behind is at most one file, which git ignores where
what it was going to be is edited or secret, and which the next one who writes there takes over.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

FOLDER = ".reconciler"
"""The name of a folder of ours, which git ignores."""

_BEGUN = ".new-"  # how the name of a file begins that is not in its place yet
_PASSING = ("reconciler-", ".tmp")  # how the name of a folder begins and ends that is there for a while
_PASSING_NAME = re.compile(r"reconciler-[a-z0-9_]{8}\.tmp")
_FRESH = 60.0  # seconds in which a folder may have been made and not locked yet
MAX_BYTES = 65536  # a private key has 3,000; whatever is larger is not a secret
_LARGEST_OWN = 256 << 20  # bytes: a journal of many years
_UNSUPPORTED = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT})  # what O_TMPFILE answers on old file systems
_NO_RENAME = frozenset({errno.EPERM, errno.EACCES, errno.EBUSY, errno.EXDEV})  # EBUSY: a file that is bind-mounted
_WRITABLE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH
_PATIENCE = 60.0  # seconds to wait for a lock: what is done under one takes a second, sops with a key far away more
_HELD: set[tuple[int, int, int, int]] = set()  # process, thread, device and number of what is locked by us
_LOOK = 0.02  # seconds between two looks at a lock


class CannotRead(Exception):
    """Why something can't be read and what to do about it; neither holds what was read."""

    def __init__(self, summary: str, hint: str) -> None:
        super().__init__(summary, hint)
        self.summary = summary
        self.hint = hint


def read(path: Path, limit: int = MAX_BYTES) -> bytes:
    """Read a small regular file; never waits on a pipe. Raises `CannotRead`."""
    try:
        content = _regular(path, limit)
    except OSError as error:
        hint = "create it, or let reconciler's user read it"
        raise CannotRead(f"{path}: {os.strerror(error.errno or 0)}", hint) from None
    if content is None:
        raise CannotRead(f"{path}: is not a regular file", "name a small text file")
    if len(content) > limit:
        raise CannotRead(f"{path}: is too large for a secret ({limit // 1024} KiB at most)", "name a small text file")
    return content


def _regular(path: Path, limit: int) -> bytes | None:
    """Read a byte more than ``limit`` at most; None for what is no regular file. Raises OSError."""
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # before it is opened: a watchdog or a tape acts on that
        return None
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        return file.read(limit + 1) if stat.S_ISREG(os.fstat(descriptor).st_mode) else None


def open_own(path: Path, flags: int = os.O_RDONLY) -> int:
    """Open a file of a folder of ours: no pipe in its place holds us up, no link leads elsewhere, no child inherits it.

    One that is made is for its owner only. Returns a descriptor; raises OSError.
    """
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def read_own(path: Path) -> bytes:
    """Read a file of a folder of ours, whatever has been put in its place. Raises OSError."""
    check_own(path.parent)
    descriptor = open_own(path)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        if status.st_size > _LARGEST_OWN:
            raise OSError(errno.EFBIG, f"it is larger than {_LARGEST_OWN >> 20} MiB")
        return file.read(_LARGEST_OWN)


def recall(path: Path, parse: Callable[[Any], T]) -> tuple[T | None, str]:
    """Return what a JSON file of ours says, as ``parse`` reads it, or None and why it says nothing.

    A file that is not there says nothing either, for no reason. ``parse`` may raise whatever damage makes it raise.
    """
    try:
        return parse(json.loads(read_own(path))), ""
    except FileNotFoundError:
        return None, ""
    except OSError as error:
        return None, f"can't be read: {error.strerror or type(error).__name__}"
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError):
        return None, "is damaged"


def plain(path: Path) -> Path:
    """Return a path without ``..`` where it still leads to the same place: ``..`` may come behind a link."""
    if ".." not in path.parts:
        return path
    short = Path(os.path.normpath(path))
    return short if os.path.realpath(short) == os.path.realpath(path) else path


def is_of_kernel(path: Path) -> bool:
    """Whether a path leads to no file but to what the kernel tells of processes, such as their environment."""
    try:
        return path.stat().st_dev == Path("/proc/self").stat().st_dev
    except OSError:
        return False


def decoded(content: bytes, path: Path) -> str:
    """Return a file's text without its last line end, which editors add. Raises `CannotRead`."""
    try:
        return without_line_end(content.decode())
    except UnicodeDecodeError:
        raise CannotRead(f"{path}: is not UTF-8 text", "name a small text file") from None


def without_line_end(text: str) -> str:
    """Return a text without the line end it may close with."""
    return text.removesuffix("\n").removesuffix("\r")


# ------------------------------------------------------------------------------------------------------------ writing
def create(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Put a new file there, durable; no one ever sees a part of it. Raises FileExistsError and OSError.

    Where the system can (Linux), the file has no name until it is whole, so nothing is left when we are killed.
    """
    with _settled(path.parent) as folder:
        descriptor = _nameless(path.parent)
        if descriptor is not None:
            with os.fdopen(descriptor, "wb") as file:
                write_all(file.fileno(), content)
                os.fchmod(file.fileno(), mode)
                # src_dir_fd makes it linkat(2), which alone follows the link in /proc to the nameless file.
                os.link(f"/proc/self/fd/{file.fileno()}", path, src_dir_fd=folder, follow_symlinks=True)
        else:
            with _named(path, content) as name:
                name.chmod(mode)
                os.link(name, path)


def write(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Put a file there, new or in the place of another, whose mode and owner do not count. Raises OSError."""
    with _settled(path.parent), _named(path, content) as name:
        name.chmod(mode)
        name.replace(path)


def write_private(path: Path, content: bytes) -> None:
    """Write a file of a folder that is ours alone, and make the folder where it is missing. Raises OSError."""
    make_private(path.parent)
    write(path, content)


def replace(path: Path, content: bytes, *, in_place: bool = False) -> None:
    """Put other content into a file that is there; mode, owner and attributes stay. Raises OSError.

    Whoever reads sees the one or the other. With ``in_place`` a file whose owner, hard link or mount a rename would
    lose is overwritten instead, and gets back what it held where that fails; without it only root keeps an owner.
    """
    path = path.resolve()  # a symbolic link stays one
    status = path.stat()
    if not status.st_mode & _WRITABLE or not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, "it is read-only")  # a rename would get past a mode that says "hands off"
    if in_place and status.st_nlink > 1:
        _overwrite(path, content)
        return
    try:
        with _settled(path.parent), aside(path, content) as name:
            if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
                with contextlib.nullcontext() if in_place else contextlib.suppress(PermissionError):
                    os.chown(name, status.st_uid, status.st_gid)
            shutil.copystat(path, name)  # the mode, and the attributes that hold access lists
            os.utime(name)  # but for the time
            name.replace(path)
    except OSError as error:
        if not in_place or error.errno not in _NO_RENAME:
            raise
        _overwrite(path, content)


def usual_mode() -> int:
    """Return the mode of a file that is no secret, as the umask wants it."""
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def make_private(folder: Path) -> None:
    """Make a folder for its owner only. Raises OSError, also where a link stands in its place."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    check_own(folder)
    ignore = folder / ".gitignore"
    if not ignore.exists():  # it lies in the checkout, and is of this machine alone
        with contextlib.suppress(FileExistsError):
            create(ignore, b"*\n", 0o644)


def drop_private(folder: Path) -> None:
    """Remove a folder that `make_private` made, where nothing of ours is left in it."""
    with contextlib.suppress(OSError):
        if {item.name for item in folder.iterdir()} <= {".gitignore"} and not folder.is_symlink():
            (folder / ".gitignore").unlink(missing_ok=True)
            folder.rmdir()


def check_own(folder: Path) -> None:
    """Raise OSError for what is no folder, or a link to one: in a checkout others would choose where it leads."""
    mode = folder.lstat().st_mode
    if stat.S_ISLNK(mode):
        raise OSError(errno.ELOOP, "it is a symbolic link, which is not followed")
    if not stat.S_ISDIR(mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))


def strangers(folder: Path) -> str:
    """Say who else may write in a folder that is there; empty where nobody may but its group, whom its owner chose.

    Its owner may, who is to be us, root, or who became root to start us (sudo). What we can't read can't mislead us.
    """
    try:
        status = folder.stat()
    except OSError:
        return ""
    us = os.geteuid()
    sudo = os.environ.get("SUDO_UID", "") if us == 0 else ""
    known = {0, us, int(sudo) if sudo.isdecimal() else us}
    if status.st_uid not in known and os.access(folder, os.R_OK | os.X_OK):
        return f"belongs to user {status.st_uid}"
    return "may be written by every user of this machine" if status.st_mode & stat.S_IWOTH else ""


def write_all(descriptor: int, content: bytes) -> None:
    """Write bytes at a descriptor's place and see them on disk. Raises OSError."""
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]
    os.fsync(descriptor)


def settle(folder: Path) -> None:
    """See the names in a folder on disk. Raises OSError where it can't be opened."""
    with _settled(folder):
        pass


@contextlib.contextmanager
def _settled(folder: Path) -> Iterator[int]:
    """Open a folder in which a name is about to change, and see the change on disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
        with contextlib.suppress(OSError):  # some file systems know no fsync of a directory
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _nameless(folder: Path) -> int | None:
    if not hasattr(os, "O_TMPFILE") or not Path("/proc/self/fd").exists():
        return None
    try:
        return os.open(folder, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return None
        raise


@contextlib.contextmanager
def begun(path: Path, scratch: Path | None = None) -> Iterator[tuple[int, Path]]:
    """Make an empty, locked file that may take another one's place, in a folder of ours or beside it: open, and named.

    It has one name for each file, so that one process at a time is at it, and a kill leaves one at most, which the next
    one who writes there takes over. Raises OSError, BlockingIOError where another one is at it for too long.
    """
    name = (scratch or path.parent) / f"{_BEGUN}{path.name}"
    descriptor = _taken(name)
    try:
        if os.fstat(descriptor).st_size:  # left behind
            os.ftruncate(descriptor, 0)
        yield descriptor, name
    finally:
        if has_name(descriptor, name):
            name.unlink(missing_ok=True)
        os.close(descriptor)


@contextlib.contextmanager
def _named(path: Path, content: bytes, scratch: Path | None = None) -> Iterator[Path]:
    """Make a file that is going to be another for as long as it is needed."""
    with begun(path, scratch) as (descriptor, name):
        write_all(descriptor, content)
        yield name


def _taken(name: Path) -> int:
    """Open a file of ours that nobody else writes, new or left behind."""
    while True:
        descriptor = open_own(name, os.O_RDWR | os.O_CREAT)
        try:
            lock(descriptor, _PATIENCE)
            if has_name(descriptor, name):
                os.fchmod(descriptor, 0o600)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def sweep_for(path: Path) -> None:
    """Remove what a kill has left of a file that is replaced, wherever it was made."""
    for above in (path.parent, path.parent.parent):
        sweep(above / FOLDER)


def sweep(folder: Path) -> None:
    """Remove from a folder of ours what a kill has left there; what is being written stays."""
    try:
        check_own(folder)
        begun = [Path(item.path) for item in os.scandir(folder) if item.name.startswith(_BEGUN)]
    except OSError:
        return
    for name in begun:
        with contextlib.suppress(OSError):
            descriptor = open_own(name)
            try:
                lock(descriptor)
                if has_name(descriptor, name):
                    name.unlink()
            finally:
                os.close(descriptor)


@contextlib.contextmanager
def on_trial(path: Path, content: bytes) -> Iterator[Path]:
    """Yield where a program finds what a file may become: without a name (Linux), so that no kill leaves it, or aside.

    Raises OSError.
    """
    descriptor = _nameless(Path(tempfile.gettempdir()))
    if descriptor is None:
        with aside(path, content) as name:
            yield name
        return
    try:
        write_all(descriptor, content)
        yield Path(f"/proc/{os.getpid()}/fd/{descriptor}")
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def aside(path: Path, content: bytes) -> Iterator[Path]:
    """Make a file for a while that is going to be another.

    It is for its owner only and in a folder that git ignores: one of ours that is there, in its own folder or the one
    above, or one that is made for that time. Raises OSError.
    """
    with _scratch(path.parent) as folder, _named(path, content, folder) as name:
        yield name


@contextlib.contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    for above in (folder, folder.parent):
        place = above / FOLDER
        if place.is_dir() and not place.is_symlink() and place.stat().st_dev == folder.stat().st_dev:
            make_private(place)
            sweep(place)
            yield place
            return
    place = folder / FOLDER
    try:
        make_private(place)
        yield place
    finally:
        drop_private(place)


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """Make a folder in $TMPDIR for a while, for its owner only; what a kill has left of others goes. Raises OSError."""
    _sweep_folders(Path(tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(prefix=_PASSING[0], suffix=_PASSING[1]) as made:
        descriptor = os.open(made, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with contextlib.suppress(OSError):  # where none can be locked, none is swept either
                lock(descriptor)
            yield Path(made)
        finally:
            os.close(descriptor)


def _sweep_folders(place: Path) -> None:
    """Remove what `folder` made in a place and nobody uses any more; others may do the same at the same time."""
    try:
        names = [item.path for item in os.scandir(place) if re.fullmatch(_PASSING_NAME, item.name)]
    except OSError:
        return
    for name in names:
        with contextlib.suppress(OSError):
            descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                status = os.fstat(descriptor)
                if status.st_uid == os.getuid() and time.time() - status.st_ctime > _FRESH:
                    lock(descriptor)
                    shutil.rmtree(name)
            finally:
                os.close(descriptor)


def _overwrite(path: Path, content: bytes) -> None:
    before = path.read_bytes()
    with path.open("r+b", buffering=0) as file:
        try:
            write_all(file.fileno(), content)
            file.truncate()
        except OSError:
            file.seek(0)
            write_all(file.fileno(), before)
            file.truncate()
            raise
        finally:
            os.fsync(file.fileno())


# -------------------------------------------------------------------------------------------------------------- locks
def lock(descriptor: int, wait: float = 0.0, *, shared: bool = False) -> None:
    """Take the lock of an open file or folder (flock), which the kernel frees when it is closed.

    Raises BlockingIOError where another one holds it for longer than ``wait`` seconds, OSError where none can be taken.
    """
    deadline = time.monotonic() + wait
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise BlockingIOError(errno.EAGAIN, "another process is at work there") from None
            time.sleep(_LOOK)
        else:
            return


@contextlib.contextmanager
def locked(path: Path, wait: float = _PATIENCE, *, again: bool = False) -> Iterator[int]:
    """Hold the lock of a file or folder that is there, and yield its descriptor. Raises as `lock` does.

    What has the name when the lock is taken is what is locked: a file may be replaced while its lock is waited for.
    With ``again`` a thread that holds it already holds it on.
    """
    while True:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        status = os.fstat(descriptor)
        mine = (os.getpid(), threading.get_ident(), status.st_dev, status.st_ino)
        known = mine in _HELD
        held = again and known
        try:
            if not held:
                lock(descriptor, wait)
            if has_name(descriptor, path):
                _HELD.add(mine)
                yield descriptor
                return
        finally:
            if not known:
                _HELD.discard(mine)
            os.close(descriptor)


def has_name(descriptor: int, path: Path) -> bool:
    """Whether a path still leads to the file that was opened."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except OSError:
        return False
