"""Requests to GitHub's API: its rules of waiting, its pages, and its refusals in words.

Rules: https://docs.github.com/rest/using-the-rest-api/rate-limits-for-the-rest-api, and .../best-practices-for-using-
the-rest-api: one request at a time; after a refusal for its limits nothing is asked until the time it names.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from reconciler import __version__, http
from reconciler.problem import Problem, ReconcilerError
from reconciler.url import NoUrl, Url, parse

API = "https://api.github.com"
_BOUNDS = http.Bounds(16 << 20, seconds=30.0, silence=15.0)
_PAGE, _PAGES = 100, 50  # entries of a page, which is GitHub's most; pages that are read
_MINUTE = 60.0  # what GitHub asks to wait where it names no time
_BRIEF = 2.0  # seconds before the second try after a fault of theirs
_TRIES = 3
_REFUSED, _MISSING, _INVALID, _MANY = (401, 403), 404, 422, 429
_FAULT = 500


class GitHubError(ReconcilerError):
    """What was asked of GitHub was not done.

    ``retry`` is how many seconds to wait before it is asked again, None where waiting mends nothing.
    """

    def __init__(self, problem: Problem, retry: float | None = None) -> None:
        super().__init__(problem)
        self.problem, self.retry = problem, retry


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository, and how it is spoken to.

    ``address`` is the API's (``https://HOST/api/v3`` at GitHub Enterprise Server); ``patience`` how many seconds a call
    may wait in all for limits to pass.
    """

    name: str
    token: str = field(repr=False)
    address: Url
    patience: float = 0.0
    sleep: Callable[[float], None] = time.sleep

    @classmethod
    def of(cls, name: str, token: str, url: str = "", patience: float = 0.0) -> Repository:
        """Name one. Raises `ReconcilerError` for what is none, and for what would send the token in clear."""
        if not is_repository(name):
            raise ReconcilerError(Problem("repository", "is no repository's name", "write it like OWNER/NAME"))
        if not re.fullmatch(r"[!-~]+", token):
            hint = "export GITHUB_TOKEN; in a workflow: env: {GITHUB_TOKEN: ${{ github.token }}}"
            raise ReconcilerError(Problem("GITHUB_TOKEN", "is not set, or is no token", hint))
        return cls(name, token, api_address(url), patience)

    @property
    def site(self) -> str:
        """Where people see it: the host of the API, but at github.com."""
        if self.address.host == "api.github.com":
            return "https://github.com"
        return f"{self.address.scheme}://{self.address.authority}"

    # ----------------------------------------------------------------------------------------------------- requests
    def get(self, path: str, **query: str | int) -> Any:
        """Return what lies at a path below the repository. Raises `GitHubError`."""
        return self._asked("GET", self._place(path), query).json()

    def find(self, path: str, **query: str | int) -> Any:
        """Return what lies at a path; None where nothing does. Raises `GitHubError`."""
        try:
            return self.get(path, **query)
        except GitHubError as error:
            if isinstance(error, NotFound):
                return None
            raise

    def pages(self, path: str, part: str = "", **query: str | int) -> Iterator[Mapping[str, Any]]:
        """Yield every entry of a listing, page by page; ``part`` names the list in the answer. Raises `GitHubError`."""
        for page in range(1, _PAGES + 1):
            answer = self._asked("GET", self._place(path), {**query, "per_page": _PAGE, "page": page})
            found = answer.json()
            entries = found.get(part) if part and isinstance(found, dict) else found
            if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
                raise GitHubError(Problem(self._where, f"GET {path}: the answer is not what GitHub documents"), _MINUTE)
            yield from entries
            if 'rel="next"' not in answer.headers.get("link", ""):
                return
        summary = f"GET {path}: there are more than {_PAGES * _PAGE} entries"
        raise GitHubError(Problem(self._where, summary, "close or delete some of them"))

    def send(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Write to a path below the repository and return the answer. Raises `GitHubError`."""
        return self._asked(method, self._place(path), {}, body).json()

    def raw(self, path: str) -> http.Answer:
        """Return an answer as it is, a redirect too, which is not followed. Raises `GitHubError`."""
        return self._asked("GET", self._place(path), {})

    def viewer(self) -> str:
        """Return as whom the token speaks, such as ``github-actions[bot]``. Raises `GitHubError`.

        ``GET /user`` refuses the tokens of Apps, which a workflow's is, so GraphQL is asked, which knows both.
        """
        root = self.address.path.removesuffix("/v3")
        answer = self._asked("POST", f"{root}/graphql", {}, {"query": "query{viewer{login}}"}, reads=True).json()
        try:
            login = answer["data"]["viewer"]["login"]
        except (TypeError, LookupError):
            login = None
        if not isinstance(login, str) or not login:
            raise GitHubError(Problem(self._where, "does not say whose the token is", "use a token of GitHub's own"))
        return login

    # ---------------------------------------------------------------------------------------------------- one request
    @property
    def _where(self) -> str:
        return f"GitHub {self.name}"

    def _place(self, path: str) -> str:
        return f"{self.address.path}/repos/{quote(self.name)}{path}"

    def _asked(
        self,
        method: str,
        path: str,
        query: Mapping[str, str | int],
        body: Mapping[str, Any] | None = None,
        *,
        reads: bool = False,
    ) -> http.Answer:
        """Ask until there is an answer, as long as patience lasts. Raises `GitHubError`.

        A write whose answer was lost is not repeated: it may have been carried out.
        """
        left = self.patience
        for last in (*[False] * (_TRIES - 1), True):
            try:
                return self._once(method, path, query, body, reads=reads)
            except GitHubError as error:
                if last or error.retry is None or error.retry > left or (isinstance(error, Unheard) and not reads):
                    raise
                left -= error.retry
                self.sleep(error.retry)
        raise AssertionError("the last try returns or raises")

    def _once(
        self, method: str, path: str, query: Mapping[str, str | int], body: Mapping[str, Any] | None, *, reads: bool
    ) -> http.Answer:
        bare = Url(self.address.scheme, self.address.host, self.address.port)
        headers = {
            "authorization": f"Bearer {self.token}",
            "accept": "application/vnd.github+json",
            "x-github-api-version": "2022-11-28",
            "user-agent": f"reconciler/{__version__}",
        }
        what = f"{method} {path}"
        given: dict[str, Any] = {"json": body} if body is not None else {}
        try:
            with http.client(bare, _BOUNDS, proxied=True, headers=headers, name="github") as client:
                answer = http.exchange(client, method, path, params=query, reads=reads, **given)
        except http.Unsent as error:
            raise GitHubError(Problem(self._where, f"{what}: {error}", _NETWORK), _BRIEF) from None
        except http.Unanswered as error:
            kind = GitHubError if method == "GET" else Unheard
            raise kind(Problem(self._where, f"{what}: no answer: {error}", _NETWORK), _BRIEF) from None
        if answer.status < 400:  # noqa: PLR2004 (HTTP)
            return answer
        raise refusal(self._where, what, answer)


class NotFound(GitHubError):
    """Nothing is there, or nothing that the token may see."""


class Invalid(GitHubError):
    """GitHub can't take what was sent, however often."""


class Unheard(GitHubError):
    """A write was sent and its answer never came."""


_NETWORK = "check the network; https://www.githubstatus.com says whether GitHub is well"


def refusal(where: str, what: str, answer: http.Answer) -> GitHubError:
    """Say what an answer of 400 or more means, and when to ask again. GitHub's own words are kept when short."""
    said = http.short(str(answer.word("message")), 200)
    problem = Problem(where, f"{what}: GitHub answers {answer.status}: {said}", _hint(answer.status))
    if (pause := limited(answer)) is not None:
        summary = f"{what}: GitHub's limit of requests is reached"
        return GitHubError(Problem(where, summary, f"it may be asked again in {pause:.0f} seconds"), pause)
    if answer.status >= _FAULT:
        return GitHubError(problem, _BRIEF)
    return {_MISSING: NotFound, _INVALID: Invalid}.get(answer.status, GitHubError)(problem)


def limited(answer: http.Answer) -> float | None:
    """Return how many seconds GitHub wants to be left alone; None where it refused for another reason."""
    if answer.status not in (403, _MANY):
        return None
    if (asked := http.retry_after(answer.headers)) is not None:
        return max(1.0, asked)
    reset = answer.headers.get("x-ratelimit-reset", "")
    if answer.headers.get("x-ratelimit-remaining") == "0" and re.fullmatch(r"[0-9]{1,12}", reset):
        return max(1.0, int(reset) - time.time())
    if answer.status == _MANY or "secondary rate limit" in answer.word("message").lower():
        return _MINUTE
    return None


def _hint(status: int) -> str:
    if status in _REFUSED:
        return "give the token what this needs; docs/github.md lists the permissions"
    if status == _MISSING:
        return "correct the repository's name, or give the token access to it: GitHub says no more to strangers"
    return "see docs/github.md" if status == _INVALID else _NETWORK if status >= _FAULT else ""


@contextmanager
def documented(repository: Repository, what: str) -> Iterator[None]:
    """Say of what is read out of answers meanwhile, and is not there or is another thing, that GitHub documents it so.

    Raises `GitHubError`.
    """
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError):
        summary = f"{what}: an answer is not what GitHub documents"
        hint = "see whether GITHUB_API_URL is GitHub's; https://www.githubstatus.com says whether GitHub is well"
        raise GitHubError(Problem(f"GitHub {repository.name}", summary, hint)) from None


def api_address(text: str) -> Url:
    """Parse the API's URL, `API` where it is empty. Raises `ReconcilerError` for one that gets the token in clear."""
    try:
        address = parse(text or API)
    except NoUrl as error:
        raise ReconcilerError(Problem("GITHUB_API_URL", error.summary, error.hint)) from None
    if not (address.tls or address.is_loopback):
        raise ReconcilerError(Problem("GITHUB_API_URL", "would get the token in clear text", "write an https:// URL"))
    return address


def is_repository(name: str) -> bool:
    """Whether a text is a repository's name: ``OWNER/NAME``."""
    return re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,38}/(?!\.{1,2}$)[A-Za-z0-9._-]{1,100}", name) is not None


def is_commit(text: str) -> bool:
    """Whether a text is the whole name of a commit."""
    return re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", text) is not None
