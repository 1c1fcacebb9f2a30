"""One reconciler at a time for one stack: a lock that the kernel frees when its holder dies.

The lease is an `flock` on `lease-STACK` in the data directory, so all that write to a stack from one machine must
share that directory. The file's content only tells people who holds it; it stays when the lease is freed and means
nothing then. A data directory that can't be written refuses the lease, and with it an apply: two writers at once are
worse than none. A full disk does not: the empty file is the lock. A holder that was stopped (SIGSTOP) keeps it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from reconciler import files
from reconciler.journal import now
from reconciler.problem import LeaseHeld, Problem, ReconcilerError

_WAIT = 0.04  # seconds: `holder` takes the lock for a moment
_BUSY = frozenset({errno.EAGAIN, errno.EACCES})
_UNWRITABLE = frozenset({errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT})


class Lease:
    """The right to write to a stack, held between entering and leaving.

    Entering raises `LeaseHeld`, which names the holder, and ReconcilerError where no lease can be taken.
    """

    def __init__(self, data: Path, stack: str, command: str = "") -> None:
        self.path = data / f"lease-{stack}"
        self.stack, self.command = stack, command
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        try:
            descriptor = _open(self.path)
        except OSError as error:
            raise self._impossible(error) from None
        try:
            files.lock(descriptor, _WAIT)
        except OSError as error:
            os.close(descriptor)
            raise self._held() if error.errno in _BUSY else self._impossible(error) from None
        self._descriptor = descriptor
        with contextlib.suppress(OSError):  # only words: a full disk or a read-only file does not matter
            _describe(descriptor, self.command)
        return self

    def __exit__(self, *error: object) -> None:
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)  # which frees the lock
            self._descriptor = None

    def holder(self) -> Mapping[str, Any] | None:
        """Say who holds the lease (``pid host since command``, where known), or None. Takes and changes nothing."""
        try:
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
        summary = f"no lease can be taken there, so nothing may be written: {os.strerror(error.errno or 0)}"
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


def _describe(descriptor: int, command: str) -> None:
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": now(), "command": command}
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(holder).encode(), 0)


def _described(descriptor: int) -> dict[str, Any]:
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
    except (OSError, ValueError):
        return {"pid": "?"}
    return holder if isinstance(holder, dict) else {"pid": "?"}
