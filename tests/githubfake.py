"""A fake of GitHub's REST API at the wire, with its rules: who may do what, pages, limits, and what it refuses.

Facts: https://docs.github.com/rest (comments, issues, commit statuses, artifacts, rate limits).
"""

from __future__ import annotations

import io
import json
import re
import threading
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from reconciler.simulator.wire import Reply, Request, Server

REPOSITORY = "octo/mail"
ACTIONS = "github-actions[bot]"
LIMIT, DESCRIPTION, STATUSES = 65536, 140, 1000


@dataclass
class Token:
    """Whose it is, and what it may do: ``issues``, ``pull_requests``, ``statuses``, ``contents``, ``actions``.

    ``reads`` are the ones that it may only read.
    """

    login: str
    may: frozenset[str]
    reads: frozenset[str] = frozenset()


@dataclass
class GitHub:
    """One repository. Everything it holds is public to tests."""

    tokens: dict[str, Token] = field(default_factory=dict)
    pulls: dict[int, dict[str, Any]] = field(default_factory=dict)
    issues: dict[int, dict[str, Any]] = field(default_factory=dict)
    comments: list[dict[str, Any]] = field(default_factory=list)
    statuses: list[dict[str, Any]] = field(default_factory=list)
    artifacts: list[dict[str, Any]] = field(default_factory=list)
    history: list[str] = field(default_factory=list)
    """The commits of main, the oldest first."""
    brought: dict[str, list[str]] = field(default_factory=dict)
    """The commits of a pull request, the oldest first, by the merge commit that brought them."""
    files: dict[str, str] = field(default_factory=dict)
    """Paths of main, by the commit that each came with."""
    known: set[str] = field(default_factory=set)
    merged: dict[str, int] = field(default_factory=dict)
    remaining: int = 5000
    reset: float = 0.0
    burst: int | None = None
    """Writes until the secondary limit; None: none."""
    number: int = 100
    lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        self.server = Server(self)

    # ------------------------------------------------------------------------------------------------- what tests do
    def open(self, number: int, head: str, base: str = "main", *, fork: bool = False) -> None:
        self.known.add(head)
        user = {"login": "ann", "type": "User"}
        repo = {"id": 1, "full_name": REPOSITORY}
        theirs = {"id": 2, "full_name": "mallory/mail"} if fork else repo
        self.pulls[number] = {
            "number": number,
            "state": "open",
            "merged_at": None,
            "user": user,
            "merge_commit_sha": "0" * 40,  # of a merge that GitHub tried, and nobody made
            "head": {"sha": head, "repo": theirs},
            "base": {"ref": base, "repo": repo},
        }
        link = {"url": f"{self.server.url}/repos/{REPOSITORY}/pulls/{number}"}
        self.issues[number] = self._issue(number, user, {"title": "change", "body": ""}) | {"pull_request": link}

    def merge(self, number: int, commit: str, brought: Sequence[str] = ()) -> None:
        self.pulls[number] |= {"state": "closed", "merged_at": "2026-11-29T00:00:00Z", "merge_commit_sha": commit}
        self.issues[number]["state"] = "closed"
        self.push(commit)
        self.merged[commit] = number
        self.brought[commit] = [*brought]
        self.known |= {*brought}

    def close(self, number: int) -> None:
        self.pulls[number] |= {"state": "closed"}
        self.issues[number]["state"] = "closed"

    def push(self, commit: str) -> None:
        self.known.add(commit)
        self.history.append(commit)

    def say(self, number: int, login: str, body: str) -> dict[str, Any]:
        """Write a comment as somebody."""
        self.number += 1
        kind = "Bot" if login.endswith("[bot]") else "User"
        url = f"https://github.com/{REPOSITORY}/pull/{number}#issuecomment-{self.number}"
        made = {
            "id": self.number,
            "issue": number,
            "body": body,
            "user": {"login": login, "type": kind},
            "html_url": url,
        }
        self.comments.append(made)
        return made

    def leave(self, name: str, head: str, content: bytes, *, fork: bool = False, file: str = "plan.json") -> None:
        """Leave an artifact, as a run of this repository or of a fork."""
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(file, content)
        self.number += 1
        run = {"id": self.number, "repository_id": 1, "head_repository_id": 2 if fork else 1, "head_sha": head}
        at = f"2026-11-29T00:00:00.{self.number:06}Z"
        made = {"id": self.number, "name": name, "expired": False, "created_at": at, "workflow_run": run}
        self.artifacts.append({**made, "zip": packed.getvalue()})

    def of(self, number: int) -> list[str]:
        """Return the comments on a pull request or issue."""
        return [item["body"] for item in self.comments if item["issue"] == number]

    # ----------------------------------------------------------------------------------------------------- the wire
    def __call__(self, request: Request) -> Reply:
        with self.lock:
            return self._answered(request)

    def _answered(self, request: Request) -> Reply:  # noqa: PLR0911
        if request.path.startswith("/_store/"):
            return self._stored(request)
        token = self.tokens.get(request.headers.get("authorization", "").removeprefix("Bearer "))
        if token is None:
            return _no(401, "Bad credentials")
        if not request.headers.get("user-agent"):
            return _no(403, "Request forbidden by administrative rules.")
        if request.path == "/_runtime/artifacts":
            return self._uploaded(request)
        if (limited := self._limited(request)) is not None:
            return limited
        if request.path == "/user" and token.login.endswith("[bot]"):
            return _no(403, "Resource not accessible by integration")
        if request.path in ("/graphql", "/api/graphql"):
            return Reply.of({"data": {"viewer": {"login": token.login}}})
        prefix = f"/repos/{REPOSITORY}"
        if not request.path.startswith(prefix):
            return _no(404, "Not Found")
        return self._routed(request, token, request.path.removeprefix(prefix))

    def _limited(self, request: Request) -> Reply | None:
        if self.remaining <= 0 and time.time() < self.reset:
            headers = {"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int(self.reset) + 1)}
            body = json.dumps({"message": "API rate limit exceeded for installation ID 1."}).encode()
            return Reply(403, body, headers=headers)
        self.remaining = max(self.remaining, 1) - 1 if self.reset else self.remaining
        if request.method != "GET" and request.path != "/graphql" and self.burst is not None:
            self.burst -= 1
            if self.burst < 0:
                self.burst = None
                said = "You have exceeded a secondary rate limit and have been temporarily blocked."
                return Reply(403, json.dumps({"message": said}).encode(), headers={"retry-after": "1"})
        return None

    def _routed(self, request: Request, token: Token, path: str) -> Reply:
        for method, pattern, needs, action in self._routes():
            match = re.fullmatch(pattern, path)
            if match is None or request.method != method:
                continue
            allowed = token.may | (token.reads if method == "GET" else frozenset())
            if not allowed & needs:
                return _no(403, "Resource not accessible by integration")
            return action(request, token, *match.groups())
        return _no(404, "Not Found")

    def _routes(self) -> list[tuple[str, str, frozenset[str], Any]]:
        talk, issues, code = frozenset({"issues", "pull_requests"}), frozenset({"issues"}), frozenset({"contents"})
        pulls, said, runs = frozenset({"pull_requests"}), frozenset({"statuses"}), frozenset({"actions"})
        return [
            ("GET", r"/pulls", pulls, self._listed_pulls),
            ("GET", r"/pulls/(\d+)", pulls, self._pull),
            ("GET", r"/issues/(\d+)/comments", talk, self._listed_comments),
            ("POST", r"/issues/(\d+)/comments", talk, self._comment),
            ("PATCH", r"/issues/comments/(\d+)", talk, self._edited),
            ("DELETE", r"/issues/comments/(\d+)", talk, self._deleted),
            ("GET", r"/issues", issues, self._listed_issues),
            ("POST", r"/issues", issues, self._opened),
            ("PATCH", r"/issues/(\d+)", issues, self._changed),
            ("POST", r"/statuses/(\w+)", said, self._status),
            ("GET", r"/commits/(\w+)/statuses", said, self._listed_statuses),
            ("GET", r"/git/ref/heads/(.+)", code, self._ref),
            ("GET", r"/commits", code, self._commits),
            ("GET", r"/contents/(.+)", code, self._contents),
            ("GET", r"/commits/(\w+)/pulls", pulls, self._pulls_of),
            ("GET", r"/actions/artifacts", runs, self._listed_artifacts),
            ("GET", r"/actions/artifacts/(\d+)/zip", runs, self._zip),
        ]

    # --------------------------------------------------------------------------------------------- pulls and comments
    def _listed_pulls(self, request: Request, _token: Token) -> Reply:
        state, base = request.first("state", "open"), request.first("base")
        found = [item for item in self.pulls.values() if state in ("all", item["state"])]
        found = [item for item in found if not base or item["base"]["ref"] == base]
        newest_first = request.first("direction", "desc" if request.first("sort", "created") == "created" else "asc")
        return self._page(request, sorted(found, key=lambda it: it["number"], reverse=newest_first == "desc"))

    def _pull(self, _request: Request, _token: Token, number: str) -> Reply:
        found = self.pulls.get(int(number))
        return Reply.of(found) if found else _no(404, "Not Found")

    def _listed_comments(self, request: Request, _token: Token, number: str) -> Reply:
        return self._page(request, [item for item in self.comments if item["issue"] == int(number)])

    def _comment(self, request: Request, token: Token, number: str) -> Reply:
        if int(number) not in self.issues:
            return _no(404, "Not Found")
        body = request.json().get("body")
        return _wrong(body) or Reply.of(self.say(int(number), token.login, body), 201)

    def _edited(self, request: Request, token: Token, number: str) -> Reply:
        found = next((item for item in self.comments if item["id"] == int(number)), None)
        if found is None:
            return _no(404, "Not Found")
        body = request.json().get("body")
        if (wrong := _wrong(body)) is not None:
            return wrong
        found |= {"body": body, "edited_by": token.login}
        return Reply.of(found)

    def _deleted(self, _request: Request, _token: Token, number: str) -> Reply:
        before = len(self.comments)
        self.comments = [item for item in self.comments if item["id"] != int(number)]
        return Reply(204) if len(self.comments) < before else _no(404, "Not Found")

    # --------------------------------------------------------------------------------------------------------- issues
    def _issue(self, number: int, user: dict[str, str], given: dict[str, Any]) -> dict[str, Any]:
        url = f"https://github.com/{REPOSITORY}/issues/{number}"
        return {"number": number, "state": "open", "user": user, "html_url": url, **given}

    def _listed_issues(self, request: Request, _token: Token) -> Reply:
        state = request.first("state", "open")
        found = [item for item in self.issues.values() if state in ("all", item["state"])]
        newest_first = request.first("direction", "desc") == "desc"
        return self._page(request, sorted(found, key=lambda item: item["number"], reverse=newest_first))

    def _opened(self, request: Request, token: Token) -> Reply:
        given = request.json()
        if (wrong := _wrong(given.get("body")) or _wrong(given.get("title"))) is not None:
            return wrong
        self.number += 1
        user = {"login": token.login, "type": "Bot" if token.login.endswith("[bot]") else "User"}
        self.issues[self.number] = self._issue(self.number, user, given)
        return Reply.of(self.issues[self.number], 201)

    def _changed(self, request: Request, _token: Token, number: str) -> Reply:
        found = self.issues.get(int(number))
        if found is None:
            return _no(404, "Not Found")
        found |= request.json()
        return Reply.of(found)

    # ------------------------------------------------------------------------------------------------------- statuses
    def _status(self, request: Request, token: Token, commit: str) -> Reply:
        given = request.json()
        same = [item for item in self.statuses if (item["sha"], item["context"]) == (commit, given.get("context"))]
        if given.get("state") not in ("error", "failure", "pending", "success"):
            return _no(422, "Validation Failed")
        if commit not in self.known:
            return _no(422, f"No commit found for SHA: {commit}")
        if len(given.get("description") or "") > DESCRIPTION or len(same) >= STATUSES:
            return _no(422, "Validation Failed")
        made = {**given, "sha": commit, "creator": {"login": token.login}}
        self.statuses.append(made)
        return Reply.of(made, 201)

    def _listed_statuses(self, request: Request, _token: Token, commit: str) -> Reply:
        return self._page(request, [item for item in reversed(self.statuses) if item["sha"] == commit])

    # -------------------------------------------------------------------------------------------------------- commits
    def _ref(self, _request: Request, _token: Token, branch: str) -> Reply:
        if branch != "main" or not self.history:
            return _no(404, "Not Found")
        return Reply.of({"ref": "refs/heads/main", "object": {"type": "commit", "sha": self.history[-1]}})

    def _commits(self, request: Request, _token: Token) -> Reply:
        tip = request.first("sha") or self.history[-1]
        if tip not in self.history:
            return _no(404, "Not Found")
        listed: list[dict[str, Any]] = []
        line = self.history[: self.history.index(tip) + 1]
        for commit, before in zip(line, [None, *line], strict=False):
            others, last = self.brought.get(commit, ()), before
            for other in others:  # begun at what main was then
                listed.append({"sha": other, "parents": [{"sha": last}] if last else []})
                last = other
            parents = [item for item in (before, last if others else None) if item]
            listed.append({"sha": commit, "parents": [{"sha": item} for item in parents]})
        return self._page(request, listed[::-1])

    def _contents(self, request: Request, _token: Token, path: str) -> Reply:
        since, ref = self.files.get(path), request.first("ref") or self.history[-1]
        if since is None or self.history.index(ref) < self.history.index(since):
            return _no(404, "Not Found")
        return Reply.of({"type": "file", "path": path})

    def _pulls_of(self, request: Request, _token: Token, commit: str) -> Reply:
        number = self.merged.get(commit)
        return self._page(request, [self.pulls[number]] if number else [])

    # ------------------------------------------------------------------------------------------------------ artifacts
    def _uploaded(self, request: Request) -> Reply:
        """Take what the stand-in of actions/upload-artifact sends: the real one speaks another, undocumented API."""
        named, head = request.first("name"), request.first("head")
        run = request.first("run")
        mine = [i for i in self.artifacts if i["name"] == named and str(i["workflow_run"].get("of")) == run]
        if request.first("overwrite") == "true":
            self.artifacts = [item for item in self.artifacts if item not in mine]
        if any(item["name"] == named and str(item["workflow_run"].get("of")) == run for item in self.artifacts):
            return _no(409, "an artifact with this name already exists on the workflow run")
        self.leave(named, head, request.body, fork=request.first("fork") == "1", file=request.first("file"))
        self.artifacts[-1]["workflow_run"]["of"] = run
        return Reply.of({"id": self.artifacts[-1]["id"]}, 201)

    def _listed_artifacts(self, request: Request, _token: Token) -> Reply:
        shown = [{key: value for key, value in item.items() if key != "zip"} for item in self.artifacts]
        wanted = request.first("name")
        found = [item for item in reversed(shown) if not wanted or item["name"] == wanted]
        return self._page(request, found, "artifacts")

    def _zip(self, _request: Request, _token: Token, number: str) -> Reply:
        place = f"{self.server.url}/_store/{number}?sig=canary-signature"
        return Reply(302, b"", headers={"location": place})

    def _stored(self, request: Request) -> Reply:
        if request.headers.get("authorization") or request.first("sig") != "canary-signature":
            return _no(400, "the store takes no token")
        number = int(request.path.rpartition("/")[2])
        found = next((item for item in self.artifacts if item["id"] == number), None)
        return Reply(200, found["zip"], "application/zip") if found else _no(404, "Not Found")

    def _page(self, request: Request, items: list[Any], part: str = "") -> Reply:
        size = min(int(request.first("per_page", "30")), 100)
        page = int(request.first("page", "1"))
        shown = items[(page - 1) * size : page * size]
        headers = {}
        if page * size < len(items):
            headers["link"] = f'<{self.server.url}{request.path}?page={page + 1}>; rel="next"'
        body = {"total_count": len(items), part: shown} if part else shown
        return Reply(200, json.dumps(body).encode(), headers=headers)


def _wrong(text: Any) -> Reply | None:
    if not isinstance(text, str) or not text:
        return _no(422, "Validation Failed")
    if len(text) > LIMIT:
        return _no(422, f"body is too long (maximum is {LIMIT} characters)")
    return None


def _no(status: int, message: str) -> Reply:
    return Reply.of({"message": message, "documentation_url": "https://docs.github.com/rest"}, status)
