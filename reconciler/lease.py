"""One reconciler at a time for one stack: a lock that the kernel frees when its holder dies.

The lease is an `flock` on `lease-STACK` in the data directory, so all that write to a stack from one machine must
share that directory. The file's content only tells people who holds it; it stays when the lease is freed and means
nothing then. A data directory that can't be written refuses the lease, and with it an apply: two writers at once are
worse than none. A full disk does not: the empty file is the lock. A holder that was stopped (SIGSTOP) keeps it.

The file lies in a checkout, from which `git clean` removes it. So its holder looks whether it still has its name before
it writes; and on Linux a name in the kernel, which nobody can remove, is held beside it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from reconciler import files
from reconciler.journal import now
from reconciler.problem import LeaseHeld, Problem, ReconcilerError

_WAIT = 0.04  # seconds: `holder` takes the lock for a moment
_BUSY = frozenset({errno.EAGAIN, errno.EACCES, errno.EADDRINUSE})
_UNWRITABLE = frozenset({errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT})


class Lease:
    """The right to write to a stack, held between entering and leaving.

    Entering raises `LeaseHeld`, which names the holder, and ReconcilerError where no lease can be taken.
    """

    def __init__(self, data: Path, stack: str, command: str = "") -> None:
        self.path = data / f"lease-{stack}"
        self.stack, self.command = stack, command
        self._descriptor: int | None = None
        self._name: socket.socket | None = None

    def __enter__(self) -> Self:
        try:
            descriptor = _open(self.path)
        except OSError as error:
            raise self._impossible(error) from None
        try:
            files.lock(descriptor, _WAIT)
            self._name = _name_in_kernel(self.path)
        except OSError as error:
            os.close(descriptor)
            raise self._held() if error.errno in _BUSY else self._impossible(error) from None
        self._descriptor = descriptor
        files.sweep(self.path.parent)
        with contextlib.suppress(OSError):  # only words: a full disk or a read-only file does not matter
            _describe(descriptor, self.command)
        return self

    def __exit__(self, *error: object) -> None:
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)  # which frees the lock
            self._descriptor = None
        if self._name is not None:
            self._name.close()
            self._name = None

    @property
    def lost(self) -> bool:
        """Whether its file has gone while it was held: another reconciler may be at work from now on."""
        return self._descriptor is not None and not files.has_name(self._descriptor, self.path)

    def loss(self) -> Problem:
        """Say that it was lost, so that nothing more was written."""
        summary = "the lease was removed while it was held, so nothing more was written"
        hint = "keep `git clean` and others away from it (--data names another directory), and apply again"
        return Problem(str(self.path), summary, hint)

    def holder(self) -> Mapping[str, Any] | None:
        """Say who holds the lease (``pid host since command``, where known), or None. Takes and changes nothing."""
        try:
            files.check_own(self.path.parent)
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            files.lock(descriptor, shared=True)
        except OSError:
            return _described(descriptor)
        finally:
            os.close(descriptor)
        return None

    def _held(self) -> LeaseHeld:
        holder = self.holder() or {}
        told = f"process {holder.get('pid', '?')} on {holder.get('host', '?')} since {holder.get('since', '?')}"
        command = f" ({holder['command']})" if holder.get("command") else ""
        summary = f"another reconciler is at work on it: {told}{command}" if holder else "another reconciler is at work"
        return LeaseHeld(Problem(f"stack {self.stack}", summary, "wait until it ends; if it hangs, end that process"))

    def _impossible(self, error: OSError) -> ReconcilerError:
        summary = f"no lease can be taken there, so nothing may be written: {error.strerror or type(error).__name__}"
        hint = "name a directory on a local, writable disk with --data, the same for all who write to this stack"
        return ReconcilerError(Problem(str(self.path), summary, hint))


def _open(path: Path) -> int:
    """Open the lock's file, making it where it is missing. Raises OSError."""
    flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a child (docker compose) must not inherit the lock
    try:
        files.make_private(path.parent)
        return os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o600)
    except OSError as error:
        if error.errno not in _UNWRITABLE:
            raise
        try:
            return os.open(path, os.O_RDONLY | flags)  # flock needs no right to write
        except FileNotFoundError:
            raise error from None


def _name_in_kernel(path: Path) -> socket.socket | None:
    """Take a name that stands for the lease's path, where there are such names. Raises OSError where it is taken."""
    if sys.platform != "linux":
        return None
    place = f"{os.getuid()} {path.parent.resolve() / path.name}"
    held = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        held.bind(f"\0reconciler-lease-{hashlib.sha256(place.encode()).hexdigest()}")
    except OSError as error:
        held.close()
        if error.errno == errno.EADDRINUSE:
            raise
        return None  # a sandbox may know no such sockets: the file is the lease
    return held


def _describe(descriptor: int, command: str) -> None:
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": now(), "command": command}
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(holder).encode(), 0)


def _described(descriptor: int) -> dict[str, Any]:
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
    except (OSError, ValueError, RecursionError):
        return {"pid": "?"}
    return holder if isinstance(holder, dict) else {"pid": "?"}
