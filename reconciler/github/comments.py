"""The one comment of a stack on a pull request: written once, brought up to date from then on."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from reconciler.github.api import Repository, documented
from reconciler.problem import Problem, ReconcilerError, Refused

LIMIT = 65536
"""Characters that GitHub takes for a comment or an issue."""
_MARKER = re.compile(r"<!-- reconciler:[a-z]{1,20}:[a-z0-9-]{1,24} -->")


@dataclass(frozen=True, slots=True)
class Posted:
    """What became of a text: ``created``, ``updated``, ``unchanged``, ``closed`` or ``none``, and where it is."""

    what: str
    url: str = ""


def marker(body: str) -> str:
    """Return the hidden comment in a text's first line, by which it is found again. Raises `ReconcilerError`."""
    first = body.partition("\n")[0].strip()
    if not _MARKER.fullmatch(first):
        hint = "give it what `reconciler plan --output markdown` prints, unchanged"
        raise ReconcilerError(Problem("--body", "does not begin with the mark of a stack", hint))
    if len(body) > LIMIT:
        raise ReconcilerError(Problem("--body", f"has {len(body)} characters, of which GitHub takes {LIMIT}"))
    return first


def ours(entries: Iterator[Mapping[str, Any]], mark: str, login: str) -> list[dict[str, Any]]:
    """Return those of some comments or issues that we wrote: by our own login, with the mark as first line."""
    return [dict(item) for item in entries if _is_by(item, login) and _first(item) == mark]


def _is_by(item: Mapping[str, Any], login: str) -> bool:
    user = item.get("user")
    if not isinstance(user, dict):
        return False
    return user.get("login") == login or (user.get("login") == f"{login}[bot]" and user.get("type") == "Bot")


def _first(item: Mapping[str, Any]) -> str:
    return str(item.get("body") or "").partition("\n")[0].strip()


def with_foot(body: str, head: str, run: str) -> str:
    """Add the commit that a text is about, and the job's run, where both still fit."""
    link = f" · [run]({run})" if re.fullmatch(r"https?://[A-Za-z0-9._~:/-]{1,300}", run) else ""
    longer = f"{body.rstrip()}\n\n<sub>of {head}{link}</sub>\n"
    return longer if len(longer.encode()) <= LIMIT else body


def comment(repository: Repository, pull: int, head: str, body: str) -> Posted:
    """Put a text on a pull request, in place of the one with the same mark that we wrote before.

    ``head`` is the commit that the text is about. Raises `Refused` where the pull request is at another one by now or
    is closed, as when an old job runs again: a plan that is past must not stand where the newest is read. Somebody
    else's comment is never touched. Raises `GitHubError`.
    """
    mark = marker(body)
    with documented(repository, f"pull request {pull}"):
        _is_current(repository, pull, head)
        return _put(repository, pull, mark, body)


def _put(repository: Repository, pull: int, mark: str, body: str) -> Posted:
    found = ours(repository.pages(f"/issues/{pull}/comments"), mark, repository.viewer())
    if not found:
        made = repository.send("POST", f"/issues/{pull}/comments", {"body": body})
        return Posted("created", _url(made))
    kept, *more = found
    for item in more:  # two jobs wrote at the same time
        repository.send("DELETE", f"/issues/comments/{int(item['id'])}")
    if same(kept, body):
        return Posted("unchanged", _url(kept))
    return Posted("updated", _url(repository.send("PATCH", f"/issues/comments/{int(kept['id'])}", {"body": body})))


def _is_current(repository: Repository, pull: int, head: str) -> None:
    found = repository.get(f"/pulls/{pull}")
    now, state = found["head"]["sha"], found["state"]
    if state != "open":
        raise Refused(Problem(f"pull request {pull}", "is closed, so no plan was posted"))
    if now != head:
        summary = f"is at {str(now)[:12]} by now, and this is the plan of {head[:12]}, so it was not posted"
        raise Refused(Problem(f"pull request {pull}", summary, "the job of the newer commit posts its own"))


def same(item: Mapping[str, Any], body: str) -> bool:
    """Whether a text is there already; GitHub gives line ends back as it likes."""
    return str(item.get("body") or "").replace("\r\n", "\n").strip() == body.strip()


def _url(item: Any) -> str:
    return str(item.get("html_url") or "") if isinstance(item, dict) else ""
