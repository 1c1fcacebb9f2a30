"""Commit statuses: what the daemon says of a revision, and how a workflow waits for it."""

from __future__ import annotations

import enum
import time
from collections.abc import Callable
from dataclasses import dataclass

from reconciler.github.api import GitHubError, Repository, is_commit
from reconciler.problem import Problem, ReconcilerError, printable

LONGEST = 140
"""Characters that GitHub takes for a description."""
_WHOLE = 1 << 20  # characters of a sentence, before it is cut


class Word(enum.StrEnum):
    """How a revision stands, in GitHub's words."""

    PENDING = "pending"
    SUCCESS = "success"
    FAILURE = "failure"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Status:
    """What is said of one commit, in one sentence without secrets."""

    commit: str
    word: Word
    description: str


def context(stack: str) -> str:
    """Return the name of a stack's status."""
    return f"reconciler/{stack}"


def put(repository: Repository, name: str, status: Status) -> None:
    """Set a status. Twice does no harm. Raises `GitHubError`."""
    said = {"state": str(status.word), "context": name, "description": short(status.description)}
    repository.send("POST", f"/statuses/{status.commit}", said)


def short(text: str) -> str:
    """Return a sentence as a description may have it: on one line, cut at a word, and each character to be seen.

    It quotes what strangers named: half a character could not even be sent, and GitHub shows a reordering one as it is.
    """
    line = printable(" ".join(text.split()), _WHOLE)
    return line if len(line) <= LONGEST else line[: LONGEST - 2].rpartition(" ")[0] + " …"


def newest(repository: Repository, commit: str, name: str) -> Status | None:
    """Return the last status of a commit under a name; None where there is none yet. Raises `GitHubError`."""
    for item in repository.pages(f"/commits/{commit}/statuses"):  # the newest first
        if item.get("context") == name:
            word = item.get("state")
            known = Word(word) if word in list(Word) else Word.ERROR
            return Status(commit, known, str(item.get("description") or ""))
    return None


def tip(repository: Repository, branch: str) -> str:
    """Return the newest commit of a branch. Raises `GitHubError`."""
    found = repository.get(f"/git/ref/heads/{branch}")
    commit = found["object"]["sha"] if isinstance(found, dict) and isinstance(found.get("object"), dict) else ""
    if not is_commit(str(commit)):
        raise GitHubError(Problem(f"branch {branch}", "GitHub does not say which commit it is at"))
    return str(commit)


@dataclass(frozen=True, slots=True)
class Clock:
    """Time, which tests make run faster."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


def wait(
    repository: Repository,
    branch: str,
    name: str,
    limit: float,
    *,
    hear: Callable[[str], None] = lambda _: None,
    pause: float = 15.0,
    clock: Clock | None = None,
) -> Status:
    """Wait until the tip of a branch has a status that is final, at most ``limit`` seconds; asks every ``pause``.

    The tip is looked up anew each time: where a newer commit comes meanwhile, it is the one that will be put in force.
    ``hear`` is told what is waited for. Raises `ReconcilerError` where time is up, and `GitHubError`.
    """
    clock, said = clock or Clock(), ""
    until = clock.now() + limit
    while True:
        commit = tip(repository, branch)
        found = newest(repository, commit, name)
        if found is not None and found.word is not Word.PENDING:
            return found
        now = f"{commit[:12]}: {found.description if found else 'the daemon has not said anything yet'}"
        if now != said:
            hear(now)
            said = now
        if clock.now() + pause > until:
            summary = f"has no final status {name} after {limit:.0f} seconds"
            hint = "see whether the daemon runs and has daemon.github: `reconciler status` on the server"
            raise ReconcilerError(Problem(f"commit {commit[:12]}", summary, hint))
        clock.sleep(pause)
