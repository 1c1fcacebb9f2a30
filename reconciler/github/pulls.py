"""The pull requests of a repository's own branches: which are open, and what was merged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from reconciler.github.api import Repository, is_commit


@dataclass(frozen=True, slots=True)
class Pull:
    """An open pull request, and the newest commit of its branch."""

    number: int
    head: str


def opened(repository: Repository, branch: str) -> Iterator[Pull]:
    """Yield the open pull requests to a branch, the oldest first; a fork's is none. Raises `GitHubError`.

    Whoever may push to a branch of the repository could change its workflows, too; whoever has a fork could not.
    """
    for item in repository.pages("/pulls", state="open", base=branch, sort="created", direction="asc"):
        head, number = item.get("head"), item.get("number")
        if not isinstance(head, dict) or not isinstance(number, int) or number < 1 or not _is_to(item, branch):
            continue
        if _is_own(head, repository.name) and is_commit(str(head.get("sha"))):
            yield Pull(number, str(head["sha"]))


def merge_of(repository: Repository, pull: Pull, branch: str) -> str:
    """Return the commit by which a pull request's head came into a branch; empty where it did not.

    However it was merged: after a squash or a rebase git does not tell. Raises `GitHubError`.
    """
    found = repository.find(f"/pulls/{pull.number}")
    if not isinstance(found, dict) or not found.get("merged_at") or not _is_to(found, branch):
        return ""
    head, commit = found.get("head"), str(found.get("merge_commit_sha"))
    same = isinstance(head, dict) and head.get("sha") == pull.head
    return commit if same and is_commit(commit) else ""


def _is_to(item: Mapping[str, Any], branch: str) -> bool:
    base = item.get("base")
    return isinstance(base, dict) and base.get("ref") == branch


def _is_own(head: Mapping[str, Any], name: str) -> bool:
    """Whether a head lies in the repository itself: GitHub does not tell names apart by case."""
    repo = head.get("repo")
    return isinstance(repo, dict) and str(repo.get("full_name")).lower() == name.lower()
