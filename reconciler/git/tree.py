"""A commit's files, written to a folder that is whole or not there."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from reconciler import files, git
from reconciler.git.objects import LINK, OTHER_REPOSITORY, PROGRAM, Entry, Objects
from reconciler.problem import printable

LARGEST = 8 << 20  # bytes of a file
MOST = 50_000  # files
TOTAL = 512 << 20  # bytes of all
_LONGEST_NAME, _LONGEST_PATH = 255, 1000  # bytes that any disk holds, of a name and of all in a path or a link
_AT_ONCE = 4 << 20  # bytes that are asked for at once
_OF_NAMES = {  # what a disk says of a name, which is the commit's fault and no lack of room
    errno.ENAMETOOLONG: "is too long for this disk",
    errno.EILSEQ: "is no text that this disk takes",
    errno.EINVAL: "is none that this disk takes",
    errno.EEXIST: "is the same as another one on this disk",
    errno.ENOTDIR: "is the same as another one on this disk",
}
_NEW, _OLD = ".new-", ".old-"
_KEPT = 2  # trees: the one in use, and the one that another daemon, or a cycle that still runs, may use


class Unfit(Exception):
    """Why a commit's files are of no use, and what to do."""

    def __init__(self, summary: str, hint: str) -> None:
        super().__init__(summary, hint)
        self.summary, self.hint = summary, hint


def write(objects: Objects, commit: str, place: Path, below: bytes = b"") -> None:
    """Write all files of a commit, or those in a folder of it, in place of what is there.

    Raises `Unfit`, `Damaged` and OSError.

    Nothing is made durable: `is_whole` tells, after a power cut, whether all of it is there. Links are written as they
    are, after everything else, so that none is followed. What is larger than `LARGEST`, calls itself ``.git`` or has a
    name that few disks hold is left out: no file of ours does.
    """
    entries = list(_bounded(objects.entries(commit, below)))
    new, old = (place.parent / f"{begun}{place.name}" for begun in (_NEW, _OLD))
    for left in (new, old):
        shutil.rmtree(left, ignore_errors=True)
    new.mkdir(parents=True)
    top = Path(os.path.realpath(new))
    for batch in _batches(sorted(entries, key=lambda entry: entry.mode == LINK)):
        for entry, content in objects.contents(batch):
            _put_named(top, entry, content)
    if place.exists():
        place.rename(old)
    new.rename(place)
    shutil.rmtree(old, ignore_errors=True)


def is_whole(objects: Objects, commit: str, place: Path, below: bytes = b"") -> bool:
    """Whether a folder holds all that `write` would write there. Raises `Unfit` and `Damaged`."""
    return all(_holds(place / os.fsdecode(entry.path), entry) for entry in _bounded(objects.entries(commit, below)))


def _holds(path: Path, entry: Entry) -> bool:
    try:
        content = os.fsencode(path.readlink()) if entry.mode == LINK else files.read(path, LARGEST)
    except (OSError, files.CannotRead):
        return False
    return git.blob(content, len(entry.object_id)) == entry.object_id


def sweep(folder: Path, used: Iterable[str]) -> None:
    """Remove the trees that nobody uses any more, and what a kill has left of one."""
    wanted = set(used)
    others = sorted((item for item in folder.iterdir() if item.name not in wanted), key=_age)
    spare = [item for item in others if not item.name.startswith(".")][: max(0, _KEPT - 1)]
    for item in others:
        if item not in spare:
            shutil.rmtree(item, ignore_errors=True)


def _age(place: Path) -> float:
    return -place.lstat().st_mtime


def _bounded(entries: Iterable[Entry]) -> Iterator[Entry]:
    number = total = 0
    for entry in entries:
        parts = entry.path.lower().split(b"/")
        if b".." in parts or b"." in parts or b"" in parts:
            raise Unfit("names a file outside of itself", "look who made that: no git writes it")
        if entry.mode == OTHER_REPOSITORY:
            continue
        if why := _left_out(entry, parts):
            if entry.path.lower().endswith((b".yaml", b".yml")) and b".git" not in parts:
                raise Unfit(f"holds a YAML file {why}: {_shown(entry.path)}", "take it out, or rename it")
            continue
        number, total = number + 1, total + entry.size
        if number > MOST or total > TOTAL:
            hint = "keep the directory in a repository of its own"
            raise Unfit(f"holds more than {MOST:,} files or {TOTAL >> 20} MiB", hint)
        yield entry


def _left_out(entry: Entry, parts: Iterable[bytes]) -> str:
    """Say why a file is of no use to anybody here; empty where it may be."""
    if b".git" in parts:
        return "in a folder of git's"
    if entry.size > LARGEST:
        return f"of more than {LARGEST >> 20} MiB"
    if max(map(len, parts)) > _LONGEST_NAME or len(entry.path) > _LONGEST_PATH:
        return "whose name is too long"
    if entry.mode == LINK and not 0 < entry.size <= _LONGEST_PATH:
        return "that is a link to nowhere"
    return ""


def _shown(path: bytes) -> str:
    return printable(os.fsdecode(path))


def _batches(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    batch: list[Entry] = []
    size = 0
    for entry in entries:
        if batch and size + entry.size > _AT_ONCE:
            yield batch
            batch, size = [], 0
        batch.append(entry)
        size += entry.size
    if batch:
        yield batch


def _put_named(folder: Path, entry: Entry, content: bytes) -> None:
    """Write one file. Raises `Unfit` for a name that can't be, and OSError."""
    try:
        _put(folder / os.fsdecode(entry.path), entry.mode, content)
    except OSError as error:
        if error.errno not in _OF_NAMES:
            raise
        summary = f"has a file whose name {_OF_NAMES[error.errno]}: {_shown(entry.path)}"
        raise Unfit(
            summary, "rename it, or have it written to another one: --data for the daemon, $TMPDIR for others"
        ) from None


def _put(path: Path, mode: str, content: bytes) -> None:
    # A link of before may have its folder's name: in a tree that no git writes, or where a disk does not look at case.
    # What it leads to would then be written in.
    if mode == LINK and os.path.realpath(path.parent) != os.fspath(path.parent):
        raise OSError(errno.ENOTDIR, "a link stands in the place of its folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    if mode == LINK:
        if content and b"\0" not in content:
            path.symlink_to(os.fsdecode(content))
        return
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o755 if mode == PROGRAM else 0o644), "wb") as file:
        file.write(content)
