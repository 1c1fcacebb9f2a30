"""The files of a directory: which ones are desired state, read without blocking, following or swallowing too much."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from reconciler.desired.yaml import Mistake
from reconciler.problem import Place, printable

LARGEST = 1 << 20
LARGEST_WHOLE = 8 << 20  # bytes of all files; ten thousand records and five thousand accounts take one and a half
MAX_ENTRIES = 10_000  # files and directories that are looked at


@dataclass(frozen=True, slots=True)
class File:
    """A file of the directory: its name relative to it, with ``/``, and what it holds."""

    name: str
    content: bytes


@dataclass(slots=True)
class _Walk:
    root: str  # with every link resolved
    mistakes: list[Mistake]
    entries: int = 0
    size: int = 0
    above: list[str] = field(default_factory=list)  # real paths of the directories we are in


def read_files(
    directory: Path,
    mistakes: list[Mistake],
    overlay: Mapping[str, bytes] = MappingProxyType({}),
    *,
    alone: bool = False,
) -> list[File]:
    """Read every YAML file of a directory and its sub-directories, by name; dot files are left out.

    ``overlay`` holds files as they are going to be: it counts in place of what is there, new names beside it;
    ``alone`` it is all, whatever is there.
    What can't be read, or should not be, goes to ``mistakes``: a ``*.yml``, a link that leaves the directory, a file
    over 1 MiB (which is not read), something that is no file, and what is too much together, of which no more is read:
    a thousand links cost nothing and may each lead to the largest file. The directory itself may be a link.
    """
    walk = _Walk(os.path.realpath(directory), mistakes)
    if not alone and not os.path.isdir(walk.root):  # noqa: PTH112 - the whole module works on the texts that os.scandir gives
        why = "is not a directory" if os.path.lexists(directory) else "does not exist"
        hint = "say where it is with --state DIR, or write one with `reconciler init`"
        mistakes.append(Mistake(Place(printable(str(directory), 400)), (), why, hint))
        return []
    found = len(mistakes)
    names = () if alone else _names(walk, walk.root, "")
    there = (_read(walk, name, path) for name, path in names if name not in overlay)
    new = (_sized(walk, name, content) for name, content in overlay.items())
    files = [file for file in (*there, *new) if file is not None]
    if overlay:
        files.sort(key=lambda file: file.name.split("/"))  # as they are listed, a directory among the files
    if not files and len(mistakes) == found:
        place = Place(printable(str(directory), 400))
        mistakes.append(Mistake(place, (), "holds no *.yaml file", "write one with `reconciler init`"))
    return files


def _names(walk: _Walk, path: str, prefix: str) -> Iterator[tuple[str, str]]:
    """Yield name and path of every file that should be read, sorted."""
    walk.above.append(os.path.realpath(path))
    try:
        entries = sorted(os.scandir(path), key=lambda entry: entry.name)
    except OSError as error:
        _mistake(walk, prefix or ".", f"can't be listed: {error.strerror}", "give us the right to read it")
        entries = []
    for entry in entries:
        walk.entries += 1
        if entry.name.startswith(".") or walk.entries > MAX_ENTRIES:
            continue
        name = prefix + entry.name
        if os.path.isdir(entry.path):  # noqa: PTH112 - entry.is_dir() raises on a link to itself
            if _inside(walk, name, entry.path):
                yield from _names(walk, entry.path, f"{name}/")
        elif _is_yaml(walk, name) and _inside(walk, name, entry.path):
            yield name, entry.path
    if not prefix and walk.entries > MAX_ENTRIES:
        _mistake(walk, ".", f"holds more than {MAX_ENTRIES} files", "is this the right directory?")
    walk.above.pop()


def _is_yaml(walk: _Walk, name: str) -> bool:
    stem, suffix = os.path.splitext(name)  # noqa: PTH122
    if suffix.lower() in {".yml", ".yaml"} and suffix != ".yaml":
        _mistake(walk, name, f"ends in {suffix} and would not be read", f"rename it to {printable(stem)}.yaml")
    return suffix == ".yaml" and not name.endswith(".sops.yaml")


def _inside(walk: _Walk, name: str, path: str) -> bool:
    """Check that a link neither leaves the directory nor leads back to where we come from."""
    if not os.path.islink(path):  # noqa: PTH114
        return True
    real = os.path.realpath(path)
    if real != walk.root and not real.startswith(walk.root.rstrip(os.sep) + os.sep):
        _mistake(walk, name, "is a link that leaves the directory", "copy what it leads to into the directory")
        return False
    if real in walk.above:
        _mistake(walk, name, "is a link that leads back to where it stands", "remove it")
        return False
    return True


def _read(walk: _Walk, name: str, path: str) -> File | None:
    if walk.size > LARGEST_WHOLE:
        return None
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 - before opening: a device may act on it
            _mistake(walk, name, "is no regular file", "remove it, or rename it so that it does not end in .yaml")
            return None
        # Without O_NONBLOCK a pipe that took the file's place meanwhile would hold us for ever.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:  # noqa: PTH123
            content = stream.read(LARGEST + 1) if os.fstat(stream.fileno()).st_size <= LARGEST else None
    except OSError as error:
        _mistake(walk, name, f"can't be read: {error.strerror}", "give us the right to read it, or remove it")
        return None
    return _sized(walk, name, content)


def _sized(walk: _Walk, name: str, content: bytes | None) -> File | None:
    """Make a file of what was read; None, for more than was read, is too much."""
    if content is None or len(content) > LARGEST:
        _mistake(walk, name, "is larger than 1 MiB", "spread it over several files")
        return None
    within, walk.size = walk.size <= LARGEST_WHOLE, walk.size + len(content)
    if walk.size > LARGEST_WHOLE:
        if within:
            _mistake(walk, ".", f"holds more than {LARGEST_WHOLE >> 20} MiB of YAML", "is this the right directory?")
        return None
    return File(printable(name, 400), content)


def text(file: File, mistakes: list[Mistake]) -> str | None:
    """Decode a file. A byte order mark at its head, as some Windows editors write it, does no harm."""
    try:
        return file.content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = file.content[: error.start]
        line, column = before.count(b"\n") + 1, len(before) - (before.rfind(b"\n") + 1) + 1
        utf16 = file.content[:2] in {b"\xff\xfe", b"\xfe\xff"}
        summary = "is UTF-16, not UTF-8" if utf16 else "is not UTF-8"
        mistakes.append(Mistake(Place(file.name, line, column), (), summary, "save it as UTF-8"))
        return None


def _mistake(walk: _Walk, name: str, summary: str, hint: str) -> None:
    walk.mistakes.append(Mistake(Place(printable(name, 400)), (), summary, hint))
