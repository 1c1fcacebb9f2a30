"""The commits of a repository, and their files exactly as they were committed.

What is in a commit was written by others: nothing of it is run, converted or followed, and only git reads it, by
commands that look at objects alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reconciler import git
from reconciler.process import GIT_STORE, Ended, Kind, run

LINK, PROGRAM, OTHER_REPOSITORY = "120000", "100755", "160000"
"""What git calls the modes of what is no plain file; the last one is a submodule, whose files no commit here has."""

_LIMIT = 120.0  # seconds for anything in one repository


class Damaged(Exception):
    """The repository does not hold what it should."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file, a link, or another repository's place in a commit. ``size`` is its bytes, ``mode`` git's."""

    path: bytes
    mode: str
    object_id: str
    size: int


class Objects:
    """What a repository holds. Its methods raise `CannotRun` where git can't be run."""

    def __init__(self, place: Path, environ: Mapping[str, str]) -> None:
        """``place`` is the repository itself: a bare one, or the ``.git`` of a checkout."""
        self.place, self._environ = place, environ

    def commit(self, revision: str) -> str:
        """Return the commit that a person means by a name (``main``, ``v1^``); empty where there is none."""
        named = f"{revision}^{{commit}}"
        ended = self._ask("rev-parse", "--verify", "--quiet", "--end-of-options", named)
        return ended.output.strip() if ended.status == 0 else ""

    def entries(self, commit: str, below: bytes = b"") -> Iterator[Entry]:
        """Yield what a commit has, or of it what lies in a folder. Raises `Damaged`."""
        within = ("--", os.fsdecode(below)) if below else ()
        listed = self._ask(
            "ls-tree", "-r", "-z", "-l", "--full-tree", commit, *within, options=("--literal-pathspecs",)
        )
        for line in good(listed).said.split(b"\0")[:-1]:
            facts, _, path = line.partition(b"\t")
            mode, _, object_id, size = facts.decode().split()
            yield Entry(path, mode, object_id, int(size) if size != "-" else 0)

    def contents(self, entries: Sequence[Entry]) -> Iterator[tuple[Entry, bytes]]:
        """Yield what some files hold. Raises `Damaged`."""
        asked = "".join(f"{entry.object_id}\n" for entry in entries)
        said, at = good(self._ask("cat-file", "--batch", given=asked)).said, 0
        for entry in entries:
            head = f"{entry.object_id} blob {entry.size}\n".encode()
            content = said[at + len(head) : at + len(head) + entry.size]
            if not said.startswith(head, at) or git.blob(content, len(entry.object_id)) != entry.object_id:
                raise Damaged
            yield entry, content
            at += len(head) + entry.size + 1

    def changed(self, base: str, head: str) -> tuple[bytes, ...]:
        """Return the paths that differ between two commits. Raises `Damaged` where either is not here."""
        listed = good(self._ask("diff-tree", "-r", "-z", "--name-only", "--no-renames", base, head)).said
        return tuple(listed.split(b"\0")[:-1])

    def last(self, commit: str, below: str) -> str:
        """Return the newest commit, of one and those before it, that changed something below a folder.

        Empty where none did. Raises `Damaged`.
        """
        options = ("--literal-pathspecs",)
        listed = self._ask("rev-list", "-1", "--end-of-options", commit, "--", below or ".", options=options)
        return good(listed).output.strip()

    def merged(self, base: str, head: str) -> tuple[str, ...]:
        """Return the commits that became part of a branch between two of its commits: the newest, and what was merged.

        Raises `Damaged` where either is not here.
        """
        return (head, *(commit for line in self._line(base, head) for commit in line[2:]))

    def came(self, base: str, head: str) -> frozenset[str]:
        """Return the commits by which a branch went from one of its commits to another, and what they merged.

        Raises `Damaged` where either is not here.
        """
        return frozenset(commit for first, *parents in self._line(base, head) for commit in (first, *parents[1:]))

    def since(self, base: str, head: str) -> tuple[str, ...]:
        """Return the commits that a branch got after one of it, the oldest first. Raises `Damaged`."""
        return tuple(first for first, *_ in reversed(self._line(base, head)))

    def _line(self, base: str, head: str) -> list[list[str]]:
        """Return each commit of a branch after one of it, with its parents behind it."""
        span = (f"^{base}", head)
        listed = good(self._ask("rev-list", "--first-parent", "--parents", "--end-of-options", *span)).output
        return [line.split() for line in listed.splitlines()]

    def tracked(self) -> frozenset[bytes]:
        """Return the files that the checkout's index has. Raises `Damaged`."""
        return frozenset(good(self._ask("ls-files", "-z", "--cached")).said.split(b"\0")[:-1])

    def is_shallow(self) -> bool:
        """Whether only the newest commits are here."""
        return self._ask("rev-parse", "--is-shallow-repository").output == "true\n"

    def _ask(self, *arguments: str, given: str = "", options: Sequence[str] = (), kind: Kind = GIT_STORE) -> Ended:
        command = ["git", *git.OPTIONS, *options, f"--git-dir={self.place}", *arguments]
        return run(kind, command, self._environ, given=given, limit=_LIMIT)


def good(ended: Ended) -> Ended:
    """Return how git ended. Raises `Damaged` where it found fault."""
    if ended.status:
        raise Damaged
    return ended
