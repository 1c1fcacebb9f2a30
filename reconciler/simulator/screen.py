"""What the audience of the demo sees: titles, sentences, edits as diffs, and commands with what they print."""

from __future__ import annotations

import contextlib
import difflib
import io
import os
import pty
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

WIDTH = 100
INDENT = 10  # of what is shown of an act in short
_WIRES = "  set by the environment: "  # the head of every plan; here it only says how the stage is wired
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_AGAIN = ["  … the same plan …\n"]


def title(text: str) -> None:
    """Print an act's title."""
    sys.stdout.write(f"\n{text}\n{'=' * len(text)}\n")


def say(text: str) -> None:
    """Print a sentence or two."""
    sys.stdout.write(f"\n{textwrap.fill(' '.join(text.split()), WIDTH, break_on_hyphens=False)}\n")


def say_lines(*lines: str) -> None:
    """Print lines as they are."""
    sys.stdout.write("".join(f"  {line}".rstrip() + "\n" for line in lines))


def prompt(command: str) -> None:
    """Print a command as it stands in a shell."""
    sys.stdout.write(f"\n$ {command}\n")


def show_edit(name: str, old: str, new: str) -> None:
    """Print what was changed in a file, each change between the lines around it."""
    diff = list(difflib.unified_diff(old.splitlines(), new.splitlines(), n=1, lineterm=""))
    say_lines(name, *(" …" if line.startswith("@@") else line for line in diff[3:]))


class Aside(io.StringIO):
    """Takes what is shown for as long as it is entered. An exception lets it be seen after all."""

    def __init__(self) -> None:
        super().__init__()
        self._stage = sys.stdout

    def isatty(self) -> bool:
        """Answer as the real one does, so that colours stay."""
        return self._stage.isatty()

    def __enter__(self) -> Self:
        """Take the place of standard output."""
        sys.stdout = self
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Give it back."""
        sys.stdout = self._stage
        if kind is not None:
            sys.stdout.write(self.getvalue())


def gist(text: str, patterns: Sequence[str]) -> None:
    """Print the last line that each pattern is found in. Raises `Ended` where there is none: the act went otherwise."""
    lines = [line.strip() for line in text.splitlines()]
    for pattern in patterns:
        fitting = [line for line in lines if re.search(pattern, _COLOURS.sub("", line))]
        if not fitting:
            raise Ended(f"no line was printed that has: {pattern}")
        sys.stdout.write(f"{' ' * INDENT}{fitting[-1]}\n")


class Ended(Exception):
    """A program that was to go on has ended, or did not say what it was to say."""


@dataclass(slots=True)
class Screen:
    """Shows a program's runs. What the run before has just shown, such as the plan that an apply repeats, is folded."""

    _before: list[str] = field(default_factory=list)
    _wired: bool = False

    def run(self, command: Sequence[str], cwd: Path, environment: Mapping[str, str]) -> int:
        """Run a program, show what it prints while it does, and return its exit code."""
        sys.stdout.flush()
        # On a terminal the program gets one too, for its colours.
        ours, theirs = pty.openpty() if sys.stdout.isatty() else os.pipe()
        process = subprocess.Popen(command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=theirs)
        os.close(theirs)
        with process:
            for line in self._folded(_lines(ours)):
                sys.stdout.write(line)
                sys.stdout.flush()
        return process.returncode

    @contextlib.contextmanager
    def watching(
        self, command: Sequence[str], cwd: Path, environment: Mapping[str, str]
    ) -> Iterator[Callable[[str], None]]:
        """Show what a program that goes on prints; the callable shows it up to a line that has a text.

        It is ended as Ctrl-C does. Raises `Ended` where the program ends before it prints the text.
        """
        sys.stdout.flush()
        ours, theirs = pty.openpty() if sys.stdout.isatty() else os.pipe()
        process = subprocess.Popen(
            command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        lines = _lines(ours)

        def until(text: str) -> None:
            for line in lines:
                sys.stdout.write(textwrap.shorten(line, WIDTH) + "\n" if len(line) > WIDTH else line)
                sys.stdout.flush()
                if text in line:
                    return
            raise Ended(f"it ended with {process.wait()} before it said: {text}")

        with process:
            try:
                yield until
            finally:
                process.send_signal(signal.SIGINT)

    def _folded(self, lines: Iterator[str]) -> Iterator[str]:
        """Leave out how the stage is wired but for the first time, and a beginning that was shown just now."""
        before, self._before = self._before, []
        same: list[str] | None = []  # as long as everything is as before
        for line in lines:
            if line.startswith(_WIRES):
                if not self._wired:
                    yield line
                self._wired = True
                continue
            self._before.append(line)
            if same is not None and before[len(same) : len(same) + 1] == [line]:
                same.append(line)
                continue
            yield from _AGAIN if same and same == before else same or []
            same = None
            yield line
        yield from same or []


def _lines(descriptor: int) -> Iterator[str]:
    with open(descriptor, encoding="utf-8") as stream, contextlib.suppress(OSError):  # EIO is how a terminal ends
        yield from stream
