"""The one issue that says that something live differs from main: opened, brought up to date, closed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from reconciler.github.api import Repository, documented
from reconciler.github.comments import Posted, ours, same
from reconciler.problem import Problem, ReconcilerError

_CLOSING = "Everything is as main says again."


def differs(plan: Any) -> bool | None:
    """Whether a plan (as JSON) shows that something differs from what is desired; None where it can't tell.

    Raises `ReconcilerError` for what is no plan. A restart that is due is no difference.
    """
    try:
        changes, complete = [item["actions"] for item in plan["changes"]], plan["complete"]
    except (TypeError, LookupError):
        raise ReconcilerError(Problem("--plan", "is no plan", "save it with `reconciler plan --out`")) from None
    if any(actions != ["restart"] for actions in changes):
        return True
    return False if complete is True else None


def title(plan: Mapping[str, Any]) -> str:
    """Return an issue's title; what an address holds is left to its text."""
    number = sum(item["actions"] != ["restart"] for item in plan["changes"])
    stack = re.sub("[^a-z0-9-]", "", str(plan.get("stack", "")))
    return f"{stack}: {number} {'resource differs' if number == 1 else 'resources differ'} from the main branch"


def mark(plan: Mapping[str, Any]) -> str:
    """Return the hidden comment by which a stack's issue is found again."""
    return f"<!-- reconciler:drift:{re.sub('[^a-z0-9-]', '', str(plan.get('stack', '')))} -->"


def tell(repository: Repository, plan: Any, body: str) -> Posted:
    """Open the issue where something differs, bring its text up to date, close it where nothing does.

    ``plan`` is a plan as JSON, ``body`` the same as Markdown. Where the plan can't tell, an open issue stays as it is.
    Raises `GitHubError`, and `ReconcilerError` for what is no plan.
    """
    verdict, first = differs(plan), mark(plan)
    text = {"title": title(plan), "body": f"{first}\n{body.partition('-->')[2].strip()}\n"}
    with documented(repository, "the issue about drift"):
        return _brought(repository, verdict, first, text)


def _brought(repository: Repository, verdict: bool | None, first: str, text: Mapping[str, str]) -> Posted:  # noqa: FBT001
    listed = repository.pages("/issues", state="open", sort="created", direction="asc")
    issues = (item for item in listed if "pull_request" not in item)
    found = ours(issues, first, repository.viewer())
    if not found:
        return Posted("created", repository.send("POST", "/issues", text)["html_url"]) if verdict else Posted("none")
    kept, *more = found
    for item in more:
        _close(repository, item, f"The same as #{kept['number']}.")
    url = str(kept["html_url"])
    if verdict is False:
        _close(repository, kept, _CLOSING)
        return Posted("closed", url)
    if verdict is None or (kept["title"] == text["title"] and same(kept, text["body"])):
        return Posted("unchanged", url)
    repository.send("PATCH", f"/issues/{int(kept['number'])}", text)
    return Posted("updated", url)


def _close(repository: Repository, issue: Mapping[str, Any], why: str) -> None:
    number = int(issue["number"])
    repository.send("POST", f"/issues/{number}/comments", {"body": why})
    repository.send("PATCH", f"/issues/{number}", {"state": "closed", "state_reason": "completed"})
