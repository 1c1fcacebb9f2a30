"""One reconciler at a time for one stack: a lock that the kernel frees when its holder dies, and a time for who hangs.

The lease is an `flock` on `lease-STACK` in the data directory, so all that write to a stack must share that directory,
on a local disk of one machine. The file says who holds it, its number, and when it runs out; each lease has a higher
number than the one before. Its holder puts the end off with every write and every answer, never by a clock or a thread
of its own: what hangs makes no progress. Who finds the end passed puts a new file, locked, in the place of the old one.
The former holder's file then has no name, which it looks at before each write.

A lease is never judged by a process's number (another container counts its own), a wall clock or the file's age. Time
is the kernel's since it booted, suspension included, and counts only for who runs under that kernel. A data directory
that can't be written refuses the lease, and with it an apply: two writers at once are worse than none. A full disk does
not: the empty file is the lock. A file without an end, such as an older version's, is held for as long as its lock is.

The file lies in a checkout, from which `git clean` removes it. So on Linux a name in the kernel, which nobody can
remove, is held beside it: it keeps others out while the file that they find is new. ([0008](../docs/adr/0008-lease.md))
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from reconciler import files
from reconciler.journal import now
from reconciler.problem import LeaseHeld, LeaseLost, Problem, ReconcilerError

DURATION = 600.0  # seconds without progress; the longest wait for one answer is 310, for Cloudflare's rate limit
_WAIT = 0.04  # seconds: `holder` takes the lock for a moment
_TRIES = 50  # how often a file that is another one by then is opened again
_PAUSE = 0.5  # seconds between two tries of who waits for the lease
_SIZE = 512  # bytes of the file: written at once and in place, so that a full disk does not stop it
QUIET = 5.0  # seconds of silence that are worth a word
_LATEST = 2.0**40  # seconds; no machine is up for longer
_UNWRITABLE = frozenset({errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT})
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # macOS counts sleep in the latter
_BOOT = Path("/proc/sys/kernel/random/boot_id")


def clock() -> float:
    """Return the seconds since this kernel booted, suspension included: the same in each of its containers."""
    return time.clock_gettime(_CLOCK)


def boot() -> str:
    """Return the name of this kernel's run; empty where the system has none (macOS)."""
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return ""


@dataclass(frozen=True, slots=True)
class Holder:
    """What the lease's file says. ``pid`` and ``host`` are as the holder sees them, for people alone.

    ``renewed`` and ``expires`` are seconds of `clock` under the kernel ``boot``; None where the file says none.
    """

    pid: int | str = "?"
    host: str = "?"
    since: str = "?"
    command: str = ""
    number: int = 0
    boot: str = ""
    renewed: float | None = None
    expires: float | None = None

    @classmethod
    def read(cls, descriptor: int) -> Self:
        """Read an open file, whatever it holds."""
        try:
            found = json.loads(os.pread(descriptor, 4096, 0))
        except (OSError, ValueError, RecursionError):
            return cls()
        if not isinstance(found, dict):
            return cls()
        words = {name: found[name] for name in _WORDS if isinstance(found.get(name), str)}
        pid, number = (_whole(found.get(name)) for name in ("pid", "number"))
        return cls(pid or "?", number=number, renewed=_time(found, "renewed"), expires=_time(found, "expires"), **words)

    @property
    def is_comparable(self) -> bool:
        """Whether its times are of the clock that we see."""
        return self.expires is not None and self.boot == boot()

    @property
    def silence(self) -> float | None:
        """Seconds since it last made progress; None where that can't be told from here."""
        return clock() - self.renewed if self.renewed is not None and self.is_comparable else None

    @property
    def has_expired(self) -> bool:
        """Whether another may take its place."""
        return self.expires is not None and self.is_comparable and clock() >= self.expires

    def __str__(self) -> str:
        """Render for people."""
        command = f" ({self.command})" if self.command else ""
        silence = self.silence or 0.0
        quiet = f", last heard of {silence:.0f} s ago" if silence >= QUIET else ""
        return f"process {self.pid} on {self.host} since {self.since}{command}{quiet}"


_WORDS = ("host", "since", "command", "boot")


def _whole(value: Any) -> int:
    return value if type(value) is int and 0 < value < 1 << 53 else 0  # what JSON has elsewhere, too


def _time(found: Mapping[str, Any], name: str) -> float | None:
    value = found.get(name)
    return value if isinstance(value, float) and 0 <= value < _LATEST else None


class Lease:
    """The right to write to a stack, held between entering and leaving; a `reconciler.fence.Fence`.

    Entering raises `LeaseHeld`, which names the holder, and ReconcilerError where no lease can be taken. It waits up to
    ``wait`` seconds for a holder to end, and tells ``told`` who that is. ``number`` is higher than all before it.
    """

    def __init__(
        self,
        data: Path,
        stack: str,
        command: str = "",
        wait: float = 0.0,
        told: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.path = data / f"lease-{stack}"
        self.stack, self.command, self.number = stack, command, 0
        self._wait, self._told = wait, told
        self._descriptor: int | None = None
        self._name: socket.socket | None = None
        self._mine = Holder()
        self._end = math.inf  # that stands in the file, so that others may judge by it
        self._using = threading.RLock()

    def __enter__(self) -> Self:
        until, waiting = time.monotonic() + self._wait, None
        while True:
            try:
                self._take()
                break
            except LeaseHeld as error:
                if (left := until - time.monotonic()) <= 0:
                    raise
                other = self._other()
                if waiting != (waiting := other and (other.number, other.pid)):
                    self._told(f"Waiting for the lease: {error.problems[0].summary}")
                time.sleep(min(_PAUSE, left))
        files.sweep(self.path.parent)
        return self

    def __exit__(self, *error: object) -> None:
        with self._using:
            if self._descriptor is not None:
                with contextlib.suppress(OSError):
                    _put(self._descriptor, {"number": self.number})
                os.close(self._descriptor)  # which frees the lock
                self._descriptor = None
            if self._name is not None:
                self._name.close()
                self._name = None

    # --------------------------------------------------------------------------------------------------------- taking
    def _take(self) -> None:
        try:
            descriptor = self._locked()
        except BlockingIOError:
            raise self._held() from None
        except OSError as error:
            raise self._impossible(error) from None
        former = Holder.read(descriptor).number
        try:
            self._name = _name_in_kernel(self.path)
        except OSError:  # held by who lost its file: it counts where ours is new, else he lost the lease with it
            if not former:
                os.close(descriptor)
                raise self._held() from None
        self._descriptor, self.number, self._end = descriptor, former + 1, math.inf
        self._mine = Holder(os.getpid(), socket.gethostname(), now(), self.command, self.number, boot())
        if not self._is_confirmed():  # another one has read the end of who died before us, and took it from under us
            self.__exit__()
            raise self._held()

    def _locked(self) -> int:
        """Return the lease's file, open and locked. Raises BlockingIOError where another one holds it, and OSError."""
        for _ in range(_TRIES):
            descriptor = _open(self.path)
            try:
                files.lock(descriptor, _WAIT)
                if files.has_name(descriptor, self.path):
                    return descriptor
            except BlockingIOError:
                if not Holder.read(descriptor).has_expired:
                    os.close(descriptor)
                    raise
            except BaseException:
                os.close(descriptor)
                raise
            else:  # another one was put in its place while its lock was waited for
                os.close(descriptor)
                continue
            os.close(descriptor)
            if (descriptor := self._overtaken()) >= 0:
                return descriptor
        raise OSError(errno.ESTALE, "its file is another one each time it is opened")

    def _overtaken(self) -> int:
        """Put a new file in the place of one whose end has passed, and return it; -1 where that is so no longer."""
        with files.begun(self.path) as (descriptor, name):
            held, locked = self._look()
            if not (locked and held.has_expired):
                return -1
            _put(descriptor, {"number": held.number})
            name.replace(self.path)
            return os.dup(descriptor)

    def _held(self) -> LeaseHeld:
        other = self._other()
        summary = f"another reconciler is at work on it: {other}" if other else "another reconciler is at work"
        hint = "wait until it ends; if it hangs, end that process"
        if other is not None and other.is_comparable:
            hint = f"wait until it ends (--wait 15m); one that hangs loses the lease after {DURATION / 60:.0f} minutes"
        elif other is not None and other.boot:
            hint = (
                "it runs on another machine, real or virtual, whose clock can't be compared: if it hangs, end it there"
            )
        return LeaseHeld(Problem(f"stack {self.stack}", summary, hint))

    def _impossible(self, error: OSError) -> ReconcilerError:
        summary = f"no lease can be taken there, so nothing may be written: {error.strerror or type(error).__name__}"
        hint = "name a directory on a local, writable disk with --data, the same for all who write to this stack"
        if error.errno in (errno.EACCES, errno.EPERM) and (owner := _owner(self.path)) not in (None, os.geteuid()):
            hint = f"it is user {owner}'s: apply as that user, as all do who write to this stack; or {hint}"
        return ReconcilerError(Problem(str(self.path), summary, hint))

    # -------------------------------------------------------------------------------------------------------- holding
    @property
    def lost(self) -> bool:
        """Whether its file has lost its name while it was held: another reconciler may be at work from now on."""
        with self._using:
            return self._descriptor is not None and not files.has_name(self._descriptor, self.path)

    def check(self) -> None:
        """See right before a write that it is still held, and put its end off. Raises `LeaseLost`."""
        with self._using:
            if self._descriptor is None or not (self._is_put_off() or self._is_confirmed()):
                raise LeaseLost(self.loss())

    def renew(self) -> None:
        """Put its end off, as work goes on."""
        with self._using:
            self._put_off()

    def loss(self) -> Problem:
        """Say that it was lost, so that nothing more was written."""
        other, _ = self._look()
        if other.number > self.number:
            summary = (
                f"the lease was lost: nothing was heard of this process for {DURATION:.0f} s, and another reconciler "
                "took it, so nothing more was written"
            )
            return Problem(str(self.path), summary, "it was stopped, or hung; look at `reconciler status`")
        summary = "the lease was removed while it was held, so nothing more was written"
        hint = "keep `git clean` and others away from it (--data names another directory), and apply again"
        return Problem(str(self.path), summary, hint)

    def _put_off(self) -> bool:
        """Put the end off. False where it can't be written, or has passed by now: others may have judged by it."""
        if self._descriptor is None:
            return False
        renewed = clock()
        expires = renewed + DURATION
        try:
            _put(self._descriptor, asdict(replace(self._mine, renewed=renewed, expires=expires)))
        except OSError:
            return False
        if clock() >= self._end:
            return False
        self._end = expires
        return True

    def _is_put_off(self) -> bool:
        """Whether it is held by what it knows itself: before the end in its file nobody may take it."""
        end = self._end
        return self._put_off() and not self.lost and clock() < end

    def _is_confirmed(self) -> bool:
        """Whether it is held although its end has passed, or can't be written; nobody takes it meanwhile."""
        try:
            with files.begun(self.path):
                if self.lost:
                    return False
                self._end = math.inf  # nobody is there to judge by the former one
                self._put_off()
                return True
        except BlockingIOError:  # somebody is about to take it
            return False
        except OSError:  # nobody can put a file in its place
            return not self.lost

    # -------------------------------------------------------------------------------------------------------- looking
    def holder(self) -> Mapping[str, Any] | None:
        """Say who holds the lease, or None: ``pid host since command number silence``; the last in seconds or None.

        Takes and changes nothing.
        """
        if (other := self._other()) is None:
            return None
        told = {name: getattr(other, name) for name in ("pid", "host", "since", "command", "number")}
        return told | {"silence": other.silence}

    def _other(self) -> Holder | None:
        found, locked = self._look()
        return found if locked else None

    def _look(self) -> tuple[Holder, bool]:
        """Read the file that has the name now, and tell whether somebody holds its lock."""
        try:
            files.check_own(self.path.parent)
            descriptor = files.open_own(self.path)
        except OSError:
            return Holder(), False
        try:
            files.lock(descriptor, shared=True)
        except OSError:
            return Holder.read(descriptor), True
        else:
            return Holder.read(descriptor), False
        finally:
            os.close(descriptor)


def _open(path: Path) -> int:
    """Open the lock's file, making it where it is missing. Raises OSError."""
    try:
        files.make_private(path.parent)
        return files.open_own(path, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        if error.errno not in _UNWRITABLE:
            raise
        try:
            return files.open_own(path)  # flock needs no right to write
        except FileNotFoundError:
            raise error from None


def _put(descriptor: int, said: Mapping[str, Any]) -> None:
    """Write the file at once and in place. Raises OSError."""
    content = json.dumps(said).ljust(_SIZE).encode()
    os.pwrite(descriptor, content, 0)
    if os.fstat(descriptor).st_size != len(content):
        os.ftruncate(descriptor, len(content))


def _owner(path: Path) -> int | None:
    """Return the user whose file, or else folder, it is."""
    for place in (path, path.parent):
        with contextlib.suppress(OSError):
            return place.lstat().st_uid
    return None


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
