"""What was applied, when, by whom and from which revision: a log that people read, never an input.

One file, `journal.jsonl`, in the data directory; one line when an apply begins, two when it ends. Losing it loses
history, never safety, so nothing here ever stops an apply: what can't be written becomes a warning.

It does not grow for ever: above `LARGEST` a shorter one takes its place, in which older applies have lost what nobody
asks for (`reconciler.compaction`). That is one rename: whoever is killed leaves the one or the other, whoever reads
sees the one or the other, and who waits to write finds that the file has lost its name and opens the new one.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from reconciler import compaction, files
from reconciler.problem import Problem, ReconcilerError, Severity

VERSION = 1
FILE = "journal.jsonl"
LARGEST = 2 << 20  # bytes; two thousand applies. It is read for each plan, which takes 0.1 s then
_KEPT = 1 << 20  # bytes of the newest applies that stay as they are
_ROOM = 2  # times as large as it was made it may become: a large stack needs more than `LARGEST`
_SHORTENED = "shortened"
_TRIES = 100  # how often a file that has lost its name meanwhile is opened again
_PATIENCE = 10.0  # seconds to wait for the journal's lock
_WRITTEN = "written"
_BEGUN = f'{{"v":{VERSION},'  # how each line of ours begins
_EVENTS = ("began", _WRITTEN, "ended")
_SKIPPED = f'{{"v":{VERSION},"event":"{_WRITTEN}"'
_ACTORS = ("GITHUB_ACTOR", "GITLAB_USER_LOGIN", "BUILDKITE_BUILD_CREATOR", "CIRCLE_USERNAME")


@dataclass(frozen=True, slots=True)
class Written:
    """How one change of an apply went. ``before`` and ``after`` are as in the plan's JSON: without any secret."""

    address: str
    actions: tuple[str, ...]
    status: str  # done | failed | unknown | skipped
    reason: str = ""
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None
    summary: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """One apply. ``ended`` is None, and ``result`` empty, where it was killed before it could say how it went.

    ``result`` is ``done``, ``partial``, ``failed`` or ``stopped``; ``whole`` says that observing again found nothing
    left to do in ``targets``. ``failover`` names the one that it was applied with, empty for none. Times are UTC in
    ISO 8601. ``directory`` is the one that was applied, as seen from the data directory: empty where an older
    reconciler wrote it down. ``forgotten`` is how many of its changes are listed no longer.
    """

    id: str
    stack: str
    began: str
    who: str
    directory: str = ""
    revision: str = ""
    desired_hash: str = ""
    fingerprint: str = ""
    failover: str = ""
    targets: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    ended: str | None = None
    seconds: float = 0.0
    result: str = ""
    whole: bool = False
    written: tuple[Written, ...] = ()
    forgotten: int = 0


class Journal:
    """The journal of one stack in a data directory, which several stacks may share; of all where ``stack`` is None.

    Two directories may say that they are one stack. With ``state``, the directory of YAML, the other one's applies are
    none of this journal. ``problem`` warns, once it was read, of what is lost of it.
    """

    def __init__(self, data: Path, stack: str | None, state: Path | None = None) -> None:
        self.path = data / FILE
        self.stack = stack
        self.directory = "" if state is None else os.path.relpath(state.resolve(), data.resolve())
        self.problem: Problem | None = None
        self._began: dict[str, float] = {}
        self._whole: dict[str | None, Entry] = {}
        self._read: tuple[int, ...] | None = None
        self._all: tuple[tuple[int, ...] | None, list[Entry]] = (None, [])

    def begin(self, entry: Entry) -> Problem | None:
        """Note that an apply begins. Returns a warning where that could not be written."""
        self._began[entry.id] = time.monotonic()  # a clock that is set meanwhile changes no duration
        names = ("id", "stack", "began", "who", "revision", "desired_hash", "fingerprint", "failover")
        facts = {name: getattr(entry, name) for name in (*names, "targets", "lost")}
        return self._append({"event": "began", **facts, "directory": self.directory})

    def end(self, entry: Entry, result: str, written: Sequence[Written], *, whole: bool) -> Problem | None:
        """Note how an apply ended. Returns a warning where that could not be written."""
        seconds = round(time.monotonic() - self._began.pop(entry.id, time.monotonic()), 3)
        common = {"id": entry.id, "stack": entry.stack}
        rows = [{name: getattr(item, name) for name in Written.__slots__} for item in written]
        ended = {"ended": now(), "seconds": seconds, "result": result, "whole": whole}
        return self._append({"event": _WRITTEN, **common, "written": rows}, {"event": "ended", **common, **ended})

    def entries(self) -> list[Entry]:
        """Return its applies, oldest first. A damaged line is left out, and is a ``problem``.

        What was read is kept for as long as nobody writes to the file: several parts of one plan ask. Raises
        ReconcilerError where the file can't be read, or a newer reconciler wrote it.
        """
        if (mark := self.mark) is None or mark != self._all[0]:
            self._all = (mark, self._entries(detailed=True))
        return list(self._all[1])

    def last_whole(self, target: str | None = None) -> Entry | None:
        """Return the last apply after which nothing was left to do, at all or in one target.

        It only adds words, so a journal that can't be read says None. ``written`` is empty: see `entries`. What was
        read is kept for as long as nobody writes to the file: a daemon asks in each cycle.
        """
        if (mark := self.mark) is None or mark != self._read:
            self._whole, self._read = self._wholes(), mark
        return self._whole.get(target)

    @property
    def mark(self) -> tuple[int, ...] | None:
        """What changes with the file; None where there is none."""
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_size, status.st_mtime_ns

    def _wholes(self) -> dict[str | None, Entry]:
        """Find the last apply that left nothing to do, by target, and at all (None)."""
        try:
            entries = self._entries(detailed=False)
        except ReconcilerError as error:
            self.problem = replace(error.problems[0], severity=Severity.WARNING)
            return {}
        return {target: item for item in entries if item.whole for target in (None, *item.targets)}

    def _entries(self, *, detailed: bool) -> list[Entry]:
        found: dict[str, Entry] = {}
        damaged, self.problem = 0, None
        for number, raw in enumerate(self._lines(), 1):
            if not detailed and raw.startswith(_SKIPPED):
                continue  # every plan asks when the stack was last whole: thousands of changes need not be parsed
            line = _parsed(raw)
            if line.get("v", 0) > VERSION:
                summary = f"a newer reconciler wrote this journal (format {line['v']}, this version reads {VERSION})"
                raise ReconcilerError(Problem(str(self.path), summary, "use that version, or move the file away"))
            known = bool(line) and (self._is_anothers(line) or _take(found, line))
            if not known and raw and not raw.startswith(_BEGUN):  # one that is torn was written when we were killed
                damaged = damaged or number
        if damaged:
            summary = f"is damaged (line {damaged}), so not all is known of what was applied before"
            hint = "move the file away to begin a new one"
            self.problem = Problem(str(self.path), summary, hint, Severity.WARNING)
        return list(found.values())

    def _is_anothers(self, line: Mapping[str, Any]) -> bool:
        """Whether a line is another stack's, or begins an apply of another directory; an old one names none."""
        mine = line.get("directory") or self.directory
        return self.stack not in (None, line.get("stack")) or (bool(self.directory) and mine != self.directory)

    def _lines(self) -> Sequence[str]:
        try:
            return files.read_own(self.path).decode(errors="replace").split("\n")
        except FileNotFoundError:
            return ()
        except OSError as error:
            summary = f"the journal can't be read: {error.strerror or type(error).__name__}"
            raise ReconcilerError(Problem(str(self.path), summary, "let reconciler's user read it")) from None

    def _append(self, *lines: Mapping[str, Any]) -> Problem | None:
        try:
            _append(self.path, b"".join(_line({"v": VERSION} | dict(line)) for line in lines))
        except OSError as error:
            summary = f"the journal can't be written: {error.strerror}"
            hint = "history will lack this apply; free space, or name a writable directory with --data"
            return Problem(str(self.path), summary, hint, Severity.WARNING)
        return None


def entry(stack: str, environ: Mapping[str, str], **facts: Any) -> Entry:
    """Make the entry of an apply that begins now, with an id of its own."""
    return Entry(os.urandom(4).hex(), stack, now(), who(environ), **facts)


def now() -> str:
    """Return the time, UTC, in ISO 8601 to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def before(span: timedelta) -> str:
    """Return the time that was so long ago, as `now` does."""
    return (datetime.now(UTC) - span).strftime("%Y-%m-%dT%H:%M:%SZ")


def who(environ: Mapping[str, str]) -> str:
    """Name who is at work: ``user@host``, or the person for whom a CI runs."""
    import getpass
    import socket

    actor = next((environ[name] for name in _ACTORS if environ.get(name)), "")
    if actor:
        return f"{actor} (CI)"
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container may run a user id that has no name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def _append(path: Path, content: bytes) -> None:
    """Append lines and see them on disk; one that a full disk tears is taken back. Raises OSError."""
    files.make_private(path.parent)
    shortened = False
    for _ in range(_TRIES):
        descriptor = files.open_own(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(22, "not a regular file")
            files.lock(descriptor, _PATIENCE)  # other stacks write here too, each for a moment
            if not files.has_name(descriptor, path):
                continue
            if not shortened and (lines := _shorter(descriptor, len(content))):
                shortened = True  # once: what is to be written may be larger than all the rest
                with contextlib.suppress(OSError):  # on a full disk what is here is all there is
                    files.write_private(path, lines)
                    continue
            _write(descriptor, content)
        finally:
            os.close(descriptor)
        return
    raise BlockingIOError(errno.EAGAIN, "others replace it all the time")


def _write(descriptor: int, content: bytes) -> None:
    size = os.fstat(descriptor).st_size
    torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
    try:
        files.write_all(descriptor, b"\n" + content if torn else content)
    except OSError:
        os.ftruncate(descriptor, size)
        raise


def _shorter(descriptor: int, more: int) -> bytes:
    """Return what is to take the place of a journal that would become too large; nothing where it may stay."""
    size = os.fstat(descriptor).st_size
    if size + more <= LARGEST:
        return b""
    raw = os.pread(descriptor, size, 0).split(b"\n")
    first = _parsed(raw[0].decode(errors="replace"))
    made = first.get("size", 0) if first.get("event") == _SHORTENED else 0
    if type(made) is int and size + more <= made * _ROOM:
        return b""
    lines = list(_understood(raw))
    if any(line.get("v", 0) > VERSION for line, _ in lines):  # nobody here knows what of it is needed
        return b""
    body = b"".join(_line(line) for line in compaction.kept(lines, _KEPT))
    return _line({"v": VERSION, "event": _SHORTENED, "id": "", "size": len(body)}) + body


def _understood(raw: Sequence[bytes]) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield the lines that say something, with their size; of damaged ones nobody knows what they said."""
    found: dict[str, Entry] = {}
    for item in raw:
        line = _parsed(item.decode(errors="replace"))
        newer = line.get("v", 0) > VERSION
        if newer or (line.get("event") in _EVENTS and isinstance(line.get("stack"), str) and _take(found, line)):
            yield line, len(item) + 1


def _line(line: Mapping[str, Any]) -> bytes:
    return json.dumps(line, separators=(",", ":"), default=str).encode() + b"\n"


def _parsed(raw: str) -> dict[str, Any]:
    try:
        line = json.loads(raw)
    except (ValueError, RecursionError):  # torn by a crash, or damaged
        return {}
    usable = isinstance(line, dict) and all(isinstance(line.get(key), kind) for key, kind in (("id", str), ("v", int)))
    return line if usable else {}


def _take(found: dict[str, Entry], line: Mapping[str, Any]) -> bool:
    """Add what one line says. A line of the right form with the wrong content is left out, and told by False."""
    try:
        fields = _typed(Entry, line)
        if line["event"] == "began":
            found[line["id"]] = Entry(**fields)
        elif line["event"] == "ended" and line["id"] in found:
            found[line["id"]] = replace(found[line["id"]], **fields)
        elif line["event"] == _WRITTEN and line["id"] in found:
            written = tuple(Written(**_typed(Written, item)) for item in line["written"])
            found[line["id"]] = replace(found[line["id"]], written=written)
    except (KeyError, TypeError, AttributeError):
        return False
    return True


_KINDS: Mapping[str, type | tuple[type, ...]] = {
    "seconds": (int, float),
    "forgotten": int,
    "whole": bool,
    **dict.fromkeys(("targets", "lost", "actions"), list),
    **dict.fromkeys(("before", "after"), (dict, type(None))),
    "ended": (str, type(None)),
}


def _typed(kind: type, line: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that a line has of a class. Raises TypeError for one of another type; the others are texts."""
    found = {name: value for name, value in line.items() if name in kind.__slots__ and name != "written"}  # type: ignore[attr-defined]
    for name, value in found.items():
        if not isinstance(value, _KINDS.get(name, str)) or (isinstance(value, list) and not all(map(_is_text, value))):
            raise TypeError(name)
    return {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}


def _is_text(value: Any) -> bool:
    return isinstance(value, str)
