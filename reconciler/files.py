"""Small files, mostly of secrets: read without waiting for anything, written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

MAX_BYTES = 65536  # a private key has 3,000; whatever is larger is not a secret
_UNSUPPORTED = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT})  # what O_TMPFILE answers on old file systems


class CannotRead(Exception):
    """Why something can't be read and what to do about it; neither holds what was read."""

    def __init__(self, summary: str, hint: str) -> None:
        super().__init__(summary, hint)
        self.summary = summary
        self.hint = hint


def read(path: Path, limit: int = MAX_BYTES) -> bytes:
    """Read a small regular file; never waits on a pipe. Raises `CannotRead`."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            content = file.read(limit + 1) if regular else b""
    except OSError as error:
        hint = "create it, or let reconciler's user read it"
        raise CannotRead(f"{path}: {os.strerror(error.errno or 0)}", hint) from None
    if not regular:
        raise CannotRead(f"{path}: is not a regular file", "name a small text file")
    if len(content) > limit:
        raise CannotRead(f"{path}: is too large for a secret ({limit // 1024} KiB at most)", "name a small text file")
    return content


def decoded(content: bytes, path: Path) -> str:
    """Return a file's text without its last line end, which editors add. Raises `CannotRead`."""
    try:
        return without_line_end(content.decode())
    except UnicodeDecodeError:
        raise CannotRead(f"{path}: is not UTF-8 text", "name a small text file") from None


def without_line_end(text: str) -> str:
    """Return a text without the line end it may close with."""
    return text.removesuffix("\n").removesuffix("\r")


def create(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Put a new file there, durable; no one ever sees a part of it. Raises FileExistsError and OSError.

    Where the system can (Linux), the file has no name until it is whole, so nothing is left when we are killed.
    """
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        descriptor = _nameless(path.parent)
        if descriptor is not None:
            with os.fdopen(descriptor, "wb") as file:
                _write(file.fileno(), content)
                os.fchmod(file.fileno(), mode)
                # src_dir_fd makes it linkat(2), which alone follows the link in /proc to the nameless file.
                os.link(f"/proc/self/fd/{file.fileno()}", path, src_dir_fd=folder, follow_symlinks=True)
        else:
            with _named(path, content) as name:
                name.chmod(mode)
                os.link(name, path)
        _sync(folder)
    finally:
        os.close(folder)


def replace(path: Path, content: bytes) -> None:
    """Put a file in the place of another, with its mode and owner, durable; whoever reads sees the one or the other.

    For content that may lie about: a kill can leave a dot file. Raises OSError.
    """
    there = path.stat()
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with _named(path, content) as name:
            with contextlib.suppress(PermissionError):  # only root can give a file away
                os.chown(name, there.st_uid, there.st_gid)
            name.chmod(stat.S_IMODE(there.st_mode))
            name.replace(path)
        _sync(folder)
    finally:
        os.close(folder)


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
def _named(path: Path, content: bytes) -> Iterator[Path]:
    """Make a file beside another for as long as it is needed; its name ends alike, so that git ignores both or none."""
    descriptor, name = tempfile.mkstemp(prefix=".", suffix=f"-{path.name}", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            _write(file.fileno(), content)
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _write(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]
    os.fsync(descriptor)


def _sync(folder: int) -> None:
    with contextlib.suppress(OSError):  # some file systems know no fsync of a directory
        os.fsync(folder)
