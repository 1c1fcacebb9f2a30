"""The directory: YAML as a person would write it, put in its place in one step.

Short, one thing a line, quotes only where they are needed, comments kept with it. `reconciler.desired.yaml` reads it
back; what is written here means the same there, whatever the text.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reconciler import files, git
from reconciler.desired.load import load
from reconciler.problem import LeaseHeld, Problem, ReconcilerError, Refused
from reconciler.resources import SecretRef

_IGNORE = ".gitignore"  # what a kill leaves behind is nothing to commit


@contextlib.contextmanager
def beside(out: Path, environ: Mapping[str, str]) -> Iterator[Path]:
    """Yield an empty directory that is going to be ``out``; relative references mean the same in both.

    What a killed import left there is removed. Raises `LeaseHeld` while another one writes, `Refused` for what no
    import can have left there, `ReconcilerError`.
    """
    place = out.resolve().with_name(f".{out.resolve().name}.import")
    with contextlib.ExitStack() as held:
        with _telling(place):
            place.mkdir(parents=True, exist_ok=True)
            files.check_own(place)
            _refuse_tracked(place, environ)
            try:
                descriptor = held.enter_context(files.locked(place, 0))
            except BlockingIOError:
                hint = "wait for it to end"
                raise LeaseHeld(Problem(str(out), "another import is writing there", hint)) from None
        try:
            _empty(place)
            files.create(place / _IGNORE, b"*\n", files.usual_mode())
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
        with files.locked(place.parent):  # `init` may have written there by now
            if out.is_dir() and (name := next((item.name for item in out.iterdir()), "")):
                summary = f"is not empty by now ({name}), so nothing was written"
                raise ReconcilerError(Problem(str(out), summary, "name another one with --out"))
            (place / _IGNORE).unlink()
            place.rename(out.resolve())
        files.settle(out.resolve().parent)


def _refuse_tracked(place: Path, environ: Mapping[str, str]) -> None:
    """Refuse to empty what git has a file of: git ignores all that an import leaves there, so somebody committed it."""
    if (file := git.tracked(place, environ)) is not None:
        summary = f"holds {file}, which git tracks: an import would write there, and removes what it finds"
        raise Refused(
            Problem(str(place), summary, "take it out of git (`git rm -r`), or name another place with --out")
        )


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


WIDTH = 120  # characters of a line, where it can be broken
_LONGEST_KEY = 1000  # characters; YAML takes 1,024 before the colon
_PLAIN = re.compile(r"[A-Za-z_./][\w./@+-]*|\d+(\.\d+){3}(/\d+)?|\d+ [KMGT]iB", re.ASCII)
_SENTENCE = re.compile(r"[A-Za-z][\w./@+-]*(:[\w/][\w./@+-]*)*( [\w./@+(][\w./@+()-]*[,;]?)*", re.ASCII)
_WORDS = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})
_NUMBER = re.compile(r"[.+-]?\d*(\.\d*)?(e\d+)?|\.(inf|nan)", re.IGNORECASE)
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})  # what breaks, hides or reorders what a person reads


class Inline(dict[str, Any]):
    """A map on one line: ``{type: A, name: mail}``."""


@dataclass(frozen=True, slots=True)
class Noted:
    """A value with comments: lines above it, and one beside its key. ``out`` makes all of it a comment."""

    value: Any
    above: tuple[str, ...] = ()
    beside: str = ""
    out: bool = False


def document(content: Mapping[str, Any], *head: str) -> str:
    """Write a file: its comment, then its keys."""
    lines = [f"# {line}" for line in head]
    for number, (key, item) in enumerate(content.items()):
        entry = list(_entry(_head(key, ""), item, ""))
        lines += ["", *entry] if number and len(entry) > 1 else entry
    return "".join(f"{line}\n" for line in lines)


def _map(content: Mapping[str, Any], pad: str) -> Iterator[str]:
    for key, item in content.items():
        yield from _entry(_head(key, pad), item, pad)


def _head(key: str, pad: str) -> str:
    """Write a key; a long one takes a line of its own, behind a question mark (YAML 1.2 section 7.4.2)."""
    text = scalar(key)
    return f"{pad}{text}:" if len(text) <= _LONGEST_KEY else f"{pad}? {text}\n{pad}:"


def _entry(head: str, item: Any, pad: str) -> Iterator[str]:
    *above, head = head.split("\n")
    yield from above
    if isinstance(item, Noted):
        yield from _noted(item, pad, _entry(head, item.value, pad))
    elif (short := _inline(item, len(head) + 1)) is not None:
        yield f"{head} {short}"
    elif isinstance(item, Mapping):
        yield head
        yield from _map(item, f"{pad}  ")
    else:
        yield head
        for element in item:
            yield from _element(element, f"{pad}  ")


def _element(item: Any, pad: str) -> Iterator[str]:
    """Write an element of a list; a map's first key stands behind the dash."""
    if isinstance(item, Noted):
        yield from _noted(item, pad, _element(item.value, pad))
    elif (short := _inline(item, len(pad) + 2, listed=True)) is not None:
        yield f"{pad}- {short}"
    else:
        lines = list(_map(item, f"{pad}  "))
        first = next(at for at, line in enumerate(lines) if not line.lstrip().startswith("#"))
        yield from (line.replace("  #", "#", 1) for line in lines[:first])
        yield f"{pad}- {lines[first][len(pad) + 2 :]}"
        yield from lines[first + 1 :]


def _noted(note: Noted, pad: str, lines: Iterator[str]) -> Iterator[str]:
    yield from (f"{pad}# {line}" for line in note.above)
    for number, line in enumerate(lines):
        text = f"{line}  # {note.beside}" if note.beside and not number else line
        yield f"{pad}# {text[len(pad) :]}" if note.out else text


def _inline(item: Any, column: int, *, listed: bool = False) -> str | None:
    """Write a value on the line it begins on; None for one that takes lines of its own."""
    if isinstance(item, SecretRef | Inline):
        return _flow(item)
    if isinstance(item, Mapping):
        return None if item else "{}"
    if not _is_list(item):
        return scalar(item)
    lines = not listed and any(isinstance(part, Noted | Mapping | SecretRef) for part in item)
    text = _flow(item)
    return text if listed or (not lines and len(text) + column <= WIDTH) else None


def _is_list(item: Any) -> bool:
    return isinstance(item, Sequence) and not isinstance(item, str)


def _flow(item: Any) -> str:
    if isinstance(item, Noted):
        return _flow(item.value)
    if isinstance(item, SecretRef):
        return f"{{{item.source}: {scalar(item.name, flow=True)}}}"
    if isinstance(item, Mapping):
        keys = [(scalar(key, flow=True), _flow(value)) for key, value in item.items()]
        return "{" + ", ".join(f"{'? ' * (len(key) > _LONGEST_KEY)}{key}: {value}" for key, value in keys) + "}"
    if _is_list(item):
        return "[" + ", ".join(map(_flow, item)) + "]"
    return scalar(item, flow=True)


def scalar(value: Any, *, flow: bool = False) -> str:
    """Write a text, a number, a truth value or nothing; a text in quotes where YAML could take it for another thing."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        return str(value)
    plain = _PLAIN.fullmatch(value) or (not flow and _SENTENCE.fullmatch(value))
    if plain and value.lower() not in _WORDS and not _NUMBER.fullmatch(value):
        return value
    return "".join(map(_seen, json.dumps(value, ensure_ascii=False)))


def _seen(char: str) -> str:
    if char.isprintable() or unicodedata.category(char) not in _UNSEEN:
        return char
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"  # noqa: PLR2004 (YAML 1.2, 5.7)
