"""GitHub's API, faked at the wire, and the command line against it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from click.testing import CliRunner, Result
from githubfake import ACTIONS, REPOSITORY, GitHub, Token

from reconciler.cli import program
from reconciler.github.api import Repository

TOKEN = "ghs_canary0Token"
EVERYTHING = frozenset({"issues", "pull_requests", "statuses", "contents", "actions"})


@pytest.fixture
def github() -> Iterator[GitHub]:
    fake = GitHub({TOKEN: Token(ACTIONS, EVERYTHING)})
    with fake.server:
        yield fake
    assert fake.server.crashes == []


@pytest.fixture
def repository(github: GitHub) -> Repository:
    return Repository.of(REPOSITORY, TOKEN, github.server.url)


@pytest.fixture
def call(github: GitHub) -> Callable[..., Result]:
    def call(*arguments: str, token: str = TOKEN, url: str = "") -> Result:
        env = {"GITHUB_TOKEN": token, "GITHUB_REPOSITORY": REPOSITORY, "GITHUB_API_URL": url or github.server.url}
        result = CliRunner(env=env).invoke(program, ["github", *arguments])
        assert TOKEN not in result.output
        return result

    return call
