"""The plans that pull requests last showed, out of the artifacts that our workflow left with their comments.

An artifact is believed only where a run of this repository's own branches made it: a fork's run leaves its artifacts
here, too, under any name.
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from reconciler import http
from reconciler.github import workflows
from reconciler.github.api import GitHubError, Repository, documented, is_commit
from reconciler.github.statuses import Word, newest
from reconciler.problem import Problem
from reconciler.url import NoUrl, Url, parse

FILE = "plan.json"
_LARGEST = 16 << 20  # bytes of a plan; one of 3,000 changes has about 2 MiB
_DEEPEST = 50  # commits whose plans are fetched
_FARTHEST = 300  # commits that are looked at for the last one in force; a pull request may bring many by a rebase
_BOUNDS = http.Bounds(_LARGEST, seconds=60.0, silence=15.0)


def name(head: str) -> str:
    """Return how the artifact of a pull request's head is called."""
    return f"reconciler-plan-{head}"


@dataclass(frozen=True, slots=True)
class Approved:
    """What is to be applied: ``base`` is the last commit in force, empty where none ever was.

    ``plans`` (JSON) are those last posted for the heads that were merged since, by the numbers of their pull requests.
    """

    base: str
    plans: Mapping[int, bytes]

    def arguments(self, folder: Path) -> list[str]:
        """Return how ``reconciler apply`` is told, with the plans in a folder as ``NUMBER.json``.

        Each plan's own revision, the merge that GitHub made for its pull request, stands for the head that was merged.
        """
        found = ["--base", self.base] if self.base else []
        for number, content in self.plans.items():
            plan = http.parsed(content)
            revision = str(plan.get("revision", "")) if isinstance(plan, dict) else ""
            if re.fullmatch(r"[0-9a-f]{7,64}", revision):
                found += ["--approved", str(folder / f"{number}.json"), "--head", revision]
        return found


def approved(repository: Repository, tip: str, branch: str, status: str) -> Approved:
    """Return what was approved of the commits from ``tip`` back to the newest that is in force.

    That is the one whose commit status of the name ``status`` is a success. Raises `GitHubError`, also where none is
    near: its policy bounds what the newer ones may say of theirs, and without it they would speak for themselves. Where
    the workflow itself is newer than that, nothing ever was in force.
    """
    with documented(repository, "the plans that were shown"):
        return _approved(repository, tip, branch, status)


def _approved(repository: Repository, tip: str, branch: str, status: str) -> Approved:
    seen, plans = set[int](), dict[int, bytes]()
    for count, commit in enumerate(_line(repository, tip)):
        found = newest(repository, commit, status)
        if found is not None and found.word is Word.SUCCESS:
            return Approved(commit, plans)
        if count >= _FARTHEST:
            if repository.find(f"/contents/{workflows.APPLY}", ref=commit) is None:
                break  # nothing was applied from here then: it is the first time
            summary = f"none of its last {_FARTHEST} commits is in force, so that no policy is known to hold"
            hint = "say it of the one that is: `reconciler github status --commit COMMIT --stack NAME --result success`"
            raise GitHubError(Problem(f"branch {branch}", summary, hint))
        for number, head in _merged(repository, commit, branch) if count < _DEEPEST else ():
            if number not in seen and (content := plan_of(repository, head)) is not None:
                plans[number] = content
            seen.add(number)
    return Approved("", plans)


def _line(repository: Repository, tip: str) -> Iterator[str]:
    """Yield the commits that were a branch's newest, from ``tip`` back: not those that a merge brought besides.

    Who opens a pull request chooses how many its commits are, and what is said of them.
    """
    known: dict[str, Mapping[str, Any]] = {}
    for item in repository.pages("/commits", sha=tip):
        if not is_commit(commit := str(item["sha"])):
            raise ValueError(commit)
        known[commit] = item
        while (entry := known.pop(tip, None)) is not None:
            yield tip
            parents = entry["parents"]
            if not parents:
                return
            tip = str(parents[0]["sha"])


def _merged(repository: Repository, commit: str, branch: str) -> Iterator[tuple[int, str]]:
    """Yield number and head of the pull requests that brought a commit."""
    for pull in repository.pages(f"/commits/{commit}/pulls"):
        head = str(pull["head"]["sha"])
        if pull.get("merged_at") and pull["base"]["ref"] == branch and is_commit(head):
            yield int(pull["number"]), head


def plan_of(repository: Repository, head: str) -> bytes | None:
    """Return the plan last posted for a head; None where there is none that may be believed, or it was cut.

    Raises `GitHubError`.
    """
    found = [
        item
        for item in repository.pages("/actions/artifacts", "artifacts", name=name(head))
        if not item.get("expired") and _is_own(item, head)
    ]
    if not found:
        return None
    last = max(found, key=lambda item: (str(item.get("created_at", "")), int(item["id"])))
    return _unzipped(repository, _downloaded(repository, int(last["id"])))


def _is_own(artifact: Mapping[str, Any], head: str) -> bool:
    run = artifact.get("workflow_run")
    if not isinstance(run, dict) or run.get("head_sha") != head:
        return False
    return run.get("repository_id") is not None and run["repository_id"] == run.get("head_repository_id")


def _downloaded(repository: Repository, number: int) -> bytes:
    """Return an artifact's archive. GitHub sends us on to a store, which does not get the token."""
    problem = Problem(f"GitHub {repository.name}", f"artifact {number} can't be downloaded", "run the job again")
    answer = repository.raw(f"/actions/artifacts/{number}/zip")
    if answer.status == 200:  # noqa: PLR2004 (HTTP)
        return answer.body
    address, target = _place(answer.headers.get("location", ""), problem)
    try:
        with http.client(address, _BOUNDS, proxied=True, name="github") as client:
            stored = http.exchange(client, "GET", target)
    except http.Unanswered:
        raise GitHubError(problem, 2.0) from None
    if stored.status != 200:  # noqa: PLR2004 (HTTP)
        raise GitHubError(problem)
    return stored.body


def _place(location: str, problem: Problem) -> tuple[Url, str]:
    parts = urlsplit(location)
    try:
        address = parse(f"{parts.scheme}://{parts.netloc}")
    except NoUrl:
        raise GitHubError(problem) from None
    if not (address.tls or address.is_loopback):
        raise GitHubError(problem)
    return address, f"{parts.path}?{parts.query}" if parts.query else parts.path


def _unzipped(repository: Repository, archive: bytes) -> bytes | None:
    """Return the plan of an archive; None where it was cut, and so could not be approved."""
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as opened, opened.open(FILE) as file:
            content = file.read(_LARGEST + 1)
    except KeyError:
        return None
    except (zipfile.BadZipFile, zlib.error, OSError, RuntimeError, NotImplementedError, EOFError, ValueError):
        raise GitHubError(Problem(f"GitHub {repository.name}", "the plan's artifact is no archive")) from None
    if len(content) > _LARGEST:
        raise GitHubError(Problem(f"GitHub {repository.name}", "the plan's artifact is too large"))
    return content
