"""How GitHub is spoken to: limits, pages, lost answers, refusals; and that the token goes nowhere else."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from githubfake import REPOSITORY, GitHub, Token

from reconciler.github.api import GitHubError, NotFound, Repository, Unheard, api_address, is_repository
from reconciler.problem import ReconcilerError
from reconciler.simulator.wire import Fault, Reply

HEAD = "a" * 40


def waiting(repository: Repository, patience: float = 600.0) -> tuple[Repository, list[float]]:
    slept: list[float] = []
    return replace(repository, patience=patience, sleep=slept.append), slept


def test_a_secondary_limit_is_waited_for_as_long_as_it_says(github: GitHub, repository: Repository) -> None:
    github.open(7, HEAD)
    github.burst = 0
    patient, slept = waiting(repository)
    patient.send("POST", "/issues/7/comments", {"body": "hello"})
    assert slept == [1.0]
    assert github.of(7) == ["hello"]


def test_the_hourly_limit_is_waited_for_until_its_reset(github: GitHub, repository: Repository) -> None:
    github.open(7, HEAD)
    github.remaining, github.reset = 0, time.time() + 90
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        github.reset = time.time() - 1

    assert replace(repository, patience=600.0, sleep=sleep).get("/pulls/7")["number"] == 7
    assert len(slept) == 1
    assert 85 < slept[0] < 95


def test_a_limit_longer_than_patience_is_told_with_its_time_and_not_asked_again(
    github: GitHub, repository: Repository
) -> None:
    github.remaining, github.reset = 0, time.time() + 3000
    patient, slept = waiting(repository, 300.0)
    with pytest.raises(GitHubError) as caught:
        patient.get("/pulls/7")
    assert caught.value.retry is not None
    assert caught.value.retry > 2900
    assert "limit of requests is reached" in str(caught.value)
    assert (slept, len(github.server.requests)) == ([], 1)


def test_a_limit_without_a_time_is_left_alone_for_a_minute(github: GitHub, repository: Repository) -> None:
    github.open(7, HEAD)
    body = {"message": "You have exceeded a secondary rate limit."}
    github.server.faults = [Fault(reply=Reply.of(body, 403)), Fault(reply=Reply.of({"message": "slow down"}, 429))]
    patient, slept = waiting(repository)
    assert patient.get("/pulls/7")["number"] == 7
    assert slept == [60.0, 60.0]


def test_a_missing_permission_is_no_limit(github: GitHub, repository: Repository) -> None:
    github.tokens[repository.token] = Token("github-actions[bot]", frozenset())
    github.open(7, HEAD)
    patient, slept = waiting(repository)
    with pytest.raises(GitHubError, match="Resource not accessible") as caught:
        patient.get("/pulls/7")
    assert caught.value.retry is None
    assert slept == []


def test_a_fault_of_theirs_is_tried_again_a_write_without_an_answer_is_not(
    github: GitHub, repository: Repository
) -> None:
    github.open(7, HEAD)
    patient, slept = waiting(repository)
    github.server.faults = [Fault(reply=Reply.of({"message": "oops"}, 502), times=2)]
    assert patient.get("/pulls/7")["number"] == 7
    assert len(slept) == 2
    github.server.faults = [Fault("POST", lose=True)]
    with pytest.raises(Unheard):
        patient.send("POST", "/issues/7/comments", {"body": "once"})
    assert github.of(7) == ["once"]


def test_every_page_of_a_listing_is_read(github: GitHub, repository: Repository) -> None:
    github.open(7, HEAD)
    for number in range(250):
        github.say(7, "bob", f"comment {number}")
    assert [item["body"] for item in repository.pages("/issues/7/comments")] == [f"comment {n}" for n in range(250)]
    assert github.server.counts[f"GET /repos/{REPOSITORY}/issues/7/comments"] == 3


def test_what_is_missing_is_told_from_what_fails(github: GitHub, repository: Repository) -> None:
    assert repository.find("/pulls/99") is None
    with pytest.raises(NotFound):
        repository.get("/pulls/99")
    github.server.faults = [Fault(reply=Reply(200, b"<html>a proxy</html>", "text/html"))]
    with pytest.raises(GitHubError, match="not what GitHub documents"):
        list(repository.pages("/issues"))


def test_whose_a_token_is_comes_from_graphql_which_knows_apps(github: GitHub, repository: Repository) -> None:
    assert repository.viewer() == "github-actions[bot]"
    github.server.faults = [Fault(reply=Reply.of({"errors": []}))]
    with pytest.raises(GitHubError, match="whose the token is"):
        repository.viewer()


@pytest.mark.parametrize("name", ["", "octo", "octo/", "/mail", "octo/mail/x", "octo/..", "octo/a b", "../mail"])
def test_what_is_no_repository(name: str) -> None:
    assert not is_repository(name)


def test_no_token_goes_in_clear_over_a_network() -> None:
    with pytest.raises(ReconcilerError, match="clear text"):
        api_address("http://github.example.com/api/v3")
    with pytest.raises(ReconcilerError, match="GITHUB_TOKEN"):
        Repository.of(REPOSITORY, "two words")
    assert "canary" not in repr(Repository.of(REPOSITORY, "ghs_canary"))


def test_a_redirect_does_not_take_the_token_along(github: GitHub, repository: Repository) -> None:
    github.server.faults = [Fault(reply=Reply(301, b"{}", headers={"location": "http://127.0.0.1:9/elsewhere"}))]
    assert repository.raw("/pulls/7").status == 301
    assert len(github.server.requests) == 1
