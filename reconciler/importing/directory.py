"""The directory on disk: written beside its place, read back, and moved there in one step."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from reconciler.desired.load import load
from reconciler.problem import LeaseHeld, Problem, ReconcilerError


@contextlib.contextmanager
def beside(out: Path) -> Iterator[Path]:
    """Yield an empty directory that is going to be ``out``; relative references mean the same in both.

    What a killed import left there is removed. Raises `LeaseHeld` while another one writes, `ReconcilerError`.
    """
    place = out.resolve().with_name(f".{out.resolve().name}.import")
    with _telling(place):
        place.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            hint = "wait for it to end"
            raise LeaseHeld(Problem(str(out), "another import is writing there", hint)) from None
        try:
            _empty(place)
            yield place
        finally:
            if _is(place, descriptor):
                shutil.rmtree(place, ignore_errors=True)
    finally:
        os.close(descriptor)


def write(place: Path, files: Mapping[str, str], out: Path) -> None:
    """Write the files, read them back as the other commands do, and put all of them in their place at once.

    Raises `ReconcilerError`, `InvalidDirectory` among them; nothing is then in that place.
    """
    with _telling(out):
        for name, text in files.items():
            (place / name).write_text(text, encoding="utf-8")
            _settle(place / name)
        _settle(place)
        load(place)
        place.rename(out.resolve())
        _settle(out.resolve().parent)


def _empty(place: Path) -> None:
    for path in place.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _is(place: Path, descriptor: int) -> bool:
    """Whether the directory is still the one that was opened: it has not been moved."""
    try:
        return os.path.samestat(place.stat(), os.fstat(descriptor))
    except OSError:
        return False


def _settle(path: Path) -> None:
    """Have it on the disk before the next step: a power cut leaves no half directory either."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _telling(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        hint = "name a directory that can be written with --out"
        raise ReconcilerError(Problem(str(path), f"can't be written: {error.strerror}", hint)) from None
