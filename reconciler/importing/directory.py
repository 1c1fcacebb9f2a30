"""The directory on disk: written beside its place, read back, and moved there in one step."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from reconciler import files
from reconciler.desired.load import load
from reconciler.problem import LeaseHeld, Problem, ReconcilerError


@contextlib.contextmanager
def beside(out: Path) -> Iterator[Path]:
    """Yield an empty directory that is going to be ``out``; relative references mean the same in both.

    What a killed import left there is removed. Raises `LeaseHeld` while another one writes, `ReconcilerError`.
    """
    place = out.resolve().with_name(f".{out.resolve().name}.import")
    with contextlib.ExitStack() as held:
        with _telling(place):
            place.mkdir(parents=True, exist_ok=True)
            try:
                descriptor = held.enter_context(files.locked(place, 0))
            except BlockingIOError:
                hint = "wait for it to end"
                raise LeaseHeld(Problem(str(out), "another import is writing there", hint)) from None
        try:
            _empty(place)
            yield place
        finally:
            if files.has_name(descriptor, place):  # it has not been moved
                shutil.rmtree(place, ignore_errors=True)


def write(place: Path, texts: Mapping[str, str], out: Path) -> None:
    """Write the files, read them back as the other commands do, and put all of them in their place at once.

    Raises `ReconcilerError`, `InvalidDirectory` among them; nothing is then in that place.
    """
    with _telling(out):
        for name, text in texts.items():
            files.create(place / name, text.encode(), files.usual_mode())
        load(place)
        place.rename(out.resolve())
        files.settle(out.resolve().parent)


def _empty(place: Path) -> None:
    for path in place.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


@contextlib.contextmanager
def _telling(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        hint = "name a directory that can be written with --out"
        raise ReconcilerError(Problem(str(path), f"can't be written: {error.strerror}", hint)) from None
