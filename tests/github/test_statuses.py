"""Waiting for the daemon: always for the tip of the branch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from click.testing import Result
from githubfake import GitHub

from reconciler.github.api import Repository
from reconciler.github.statuses import Clock, Status, Word, newest, put, short, wait
from reconciler.problem import ReconcilerError

ONE, TWO = "1" * 40, "2" * 40
NAME = "reconciler/mana"


class Time:
    """Time that passes as it is slept; things happen meanwhile."""

    def __init__(self, *events: Callable[[], None]) -> None:
        self.now, self._events = 0.0, list(events)
        self.clock = Clock(lambda: self.now, self._sleep)

    def _sleep(self, seconds: float) -> None:
        self.now += seconds
        if self._events:
            self._events.pop(0)()


def test_the_tip_is_waited_for_also_where_it_moves_meanwhile(github: GitHub, repository: Repository) -> None:
    github.push(ONE)
    time = Time(
        lambda: put(repository, NAME, Status(ONE, Word.PENDING, "is being applied")),
        lambda: github.push(TWO),
        lambda: put(repository, NAME, Status(ONE, Word.FAILURE, "was overtaken")),
        lambda: put(repository, NAME, Status(TWO, Word.SUCCESS, "in force")),
    )
    heard: list[str] = []
    found = wait(repository, "main", NAME, 900, hear=heard.append, clock=time.clock)
    assert (found.commit, found.word) == (TWO, Word.SUCCESS)
    assert heard[:2] == [f"{ONE[:12]}: the daemon has not said anything yet", f"{ONE[:12]}: is being applied"]


def test_a_failure_ends_it_and_time_does(github: GitHub, repository: Repository) -> None:
    github.push(ONE)
    put(repository, NAME, Status(ONE, Word.SUCCESS, "an older word"))
    put(repository, NAME, Status(ONE, Word.FAILURE, "cloudflare can't be read"))
    assert wait(repository, "main", NAME, 10).word is Word.FAILURE
    github.push(TWO)
    time = Time()
    with pytest.raises(ReconcilerError, match="no final status reconciler/mana after 60 seconds"):
        wait(repository, "main", NAME, 60, clock=time.clock)
    assert time.now <= 60


def test_the_command_ends_as_the_daemon_did(github: GitHub, call: Callable[..., Result]) -> None:
    github.push(ONE)
    assert (
        call("status", "--commit", ONE, "--stack", "mana", "--result", "failure", "--description", "x").exit_code == 0
    )
    ended = call("wait", "--stack", "mana", "--limit", "5s")
    assert (ended.exit_code, "failure: x" in ended.output) == (1, True)
    call("status", "--commit", ONE, "--stack", "mana", "--result", "success")
    assert call("wait", "--stack", "mana", "--limit", "5s").exit_code == 0


def test_another_name_is_another_thing(github: GitHub, repository: Repository) -> None:
    github.push(ONE)
    for number in range(120):
        put(repository, f"ci/{number}", Status(ONE, Word.SUCCESS, ""))
    put(repository, NAME, Status(ONE, Word.PENDING, "waits"))
    for number in range(120):
        put(repository, f"ci/{number}", Status(ONE, Word.SUCCESS, ""))
    found = newest(repository, ONE, NAME)
    assert found is not None
    assert found.word is Word.PENDING


def test_a_description_fits() -> None:
    assert len(short("word " * 100)) <= 140
    assert short("two\nlines") == "two lines"
