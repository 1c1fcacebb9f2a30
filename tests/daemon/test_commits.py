"""What GitHub is told of revisions: at the wire, with its limits, and never in the way of healing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import pytest
from daemon.states import record, update
from githubfake import REPOSITORY, GitHub, Token

from reconciler.daemon.board import Bell, Board
from reconciler.daemon.commits import Commits, verdict
from reconciler.daemon.parts import Parts
from reconciler.daemon.state import Cause, Cycle, Result, Revision, Sourced, State, TargetState
from reconciler.desired.load import Directory, load
from reconciler.plan import Plan
from reconciler.problem import Problem, Severity
from reconciler.reconcile import Fact
from reconciler.settings import Settings
from reconciler.simulator.wire import Fault, Reply
from reconciler.stack import Stack

ONE, TWO = "1" * 40, "2" * 40
TOKEN, CANARY = "ghp_canaryDaemonToken", "canary-Zk93-word"
DIRECTORY = f"""\
version: 1
stack: mana
targets: {{cloudflare: {{token: {{env: CLOUDFLARE}}}}}}
daemon: {{github: {{repository: {REPOSITORY}, token: {{env: GITHUB}}}}}}
"""


class Time:
    def __init__(self) -> None:
        self.now = datetime(2026, 11, 29, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Time:
    return Time()


@pytest.fixture
def github() -> Iterator[GitHub]:
    fake = GitHub({TOKEN: Token("ann", frozenset({"statuses"}))})
    fake.known |= {ONE, TWO}
    with fake.server:
        yield fake
    assert fake.server.crashes == []


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    (tmp_path / "state").mkdir()
    (tmp_path / "state/reconciler.yaml").write_text(DIRECTORY)
    environ = {"PATH": "/usr/bin", "GITHUB": TOKEN, "CLOUDFLARE": CANARY}
    settings = Settings.read(environ, tmp_path / "state", tmp_path / "data")
    made = Stack(load(tmp_path / "state"), settings, revision=ONE)
    for ref in (made.spec.targets.cloudflare[0].token,):
        made.secrets(ref)
    return made


@pytest.fixture
def box(github: GitHub, stack: Stack, clock: Time) -> Callable[[], Commits]:
    return lambda: Commits(stack.data, "mana", github.server.url, clock)


def state(result: Result = Result.DONE, *problems: Problem, commit: str = ONE, retry: str = "") -> State:
    at = "2026-11-29T00:00:00Z"
    cycle = Cycle(1, Cause.REVISION, at, at, 1.0, result, problems=problems)
    source = Sourced("/srv", "main", Revision(cast("Directory", None), commit), commit, at)
    target = TargetState("cloudflare", "in_sync", at, retry=retry)
    return State("mana", at, 300.0, source, cycle, targets=(target,))


def said(github: GitHub) -> list[tuple[str, str]]:
    return [(item["sha"][:1], item["state"]) for item in github.statuses]


def eventually(true: Callable[[], object], seconds: float = 30.0) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.01)


REFUSED = Problem("dns/mana.how", f"would remove 4 records {CANARY}", severity=Severity.REFUSED)
FAILED = Problem("https://api.cloudflare.com", "can't be reached")


# ------------------------------------------------------------------------------------------------------ what is said
@pytest.mark.parametrize(
    ("given", "word", "sentence"),
    [
        (state(Result.NOTHING), "success", "is in force"),
        (state(Result.DONE), "success", "is in force"),
        (state(Result.PARTIAL, REFUSED), "failure", "is not in force as a whole: dns/mana.how: would remove 4 records"),
        (state(Result.FAILED, FAILED), "failure", "can't be reached"),
        (state(Result.FAILED, FAILED, retry="2026-11-29T00:01:00Z"), "pending", "is tried again: https://api.cloud"),
        (state(Result.PARTIAL, REFUSED, FAILED, retry="2026-11-29T00:01:00Z"), "failure", "would remove"),
        (state(Result.PARTIAL), "failure", "something is left to do"),
        (state(Result.SUSPENDED), "pending", "suspended"),
        (state(Result.BUSY), "pending", "another reconciler"),
    ],
)
def test_each_end_has_one_word_and_one_sentence(given: State, word: str, sentence: str) -> None:
    [status] = verdict(given)
    assert (status.commit, status.word) == (ONE, word)
    assert sentence in status.description


def test_what_waits_for_a_person_at_one_address_is_said_before_what_passes() -> None:
    change = update(record("www"), record("www", ttl=300))
    held = Problem(change.address, "was not approved", severity=Severity.REFUSED)
    given = state(Result.PARTIAL, retry="2026-11-29T00:01:00Z")
    known = {change.address: Fact(change.address, change=change, problems=(held,))}
    [status] = verdict(replace(given, plan=Plan("mana", (change,)), facts=known))
    assert (status.word, status.description) == (
        "failure",
        "is not in force as a whole: dns/mana.how/A/www: was not approved",
    )


def test_what_says_nothing_of_a_commit_says_nothing() -> None:
    assert verdict(state(Result.STOPPED)) == ()
    assert verdict(state(commit="")) == ()
    assert verdict(State("mana", "", 300.0, Sourced("/srv"))) == ()


def test_a_revision_that_is_not_taken_is_told_beside_the_one_that_is_kept_up() -> None:
    given = state()
    wrong = Problem("dns.yaml:5:1: dns", "is no map")
    given = replace(given, source=replace(given.source, seen=TWO, problems=(wrong,)))
    assert [(it.commit, it.word) for it in verdict(given)] == [(ONE, "success"), (TWO, "failure")]
    assert verdict(given)[1].description == "is not taken: dns.yaml:5:1: dns: is no map"


# --------------------------------------------------------------------------------------------------------- at the wire
def test_a_revision_is_told_when_it_is_taken_and_when_it_ended(
    github: GitHub, stack: Stack, box: Callable[[], Commits]
) -> None:
    commits = box()
    commits.taken(stack)
    eventually(lambda: said(github) == [("1", "pending")])
    commits.tell(stack, state(Result.PARTIAL, REFUSED))
    eventually(lambda: said(github) == [("1", "pending"), ("1", "failure")])
    commits.taken(stack)  # the stack is renewed each hour
    assert CANARY not in repr(github.statuses)
    commits.tell(stack, state())
    eventually(lambda: said(github)[-1] == ("1", "success"))
    eventually(lambda: commits._thread is None)
    assert {item["context"] for item in github.statuses} == {"reconciler/mana"}
    commits.taken(stack)
    commits.tell(stack, state(Result.FAILED, FAILED))  # what goes wrong later is no matter of the revision
    box().taken(stack)  # a restart
    time.sleep(0.2)
    assert len(github.statuses) == 3


@pytest.mark.parametrize("away", [False, True])
def test_one_cycle_waits_a_moment_until_github_knows(
    github: GitHub, stack: Stack, clock: Time, monkeypatch: pytest.MonkeyPatch, away: bool
) -> None:
    settings = replace(stack.settings, environ={**stack.settings.environ, "GITHUB_API_URL": github.server.url})
    once = Parts(settings, cast("Board", None), Bell(), lambda text: text)
    monkeypatch.setattr("reconciler.daemon.parts._PATIENCE", 0.2 if away else 30.0)
    if away:
        github.server.faults = [Fault(times=100, delay=1.0, reply=Reply.of({"message": "oops"}, 500))]
    began = time.monotonic()
    with once.once():
        once.taken(stack)
        assert once.ended(stack, state()) == ()
    assert time.monotonic() - began < 30
    if not away:
        assert said(github)[-1] == ("1", "success")
        assert once.unsaid == ()
        return
    assert github.statuses == []
    eventually(lambda: once.unsaid)
    assert TOKEN not in repr(once.unsaid)


def test_each_word_is_sent_once_however_many_cycles_there_are(
    github: GitHub, stack: Stack, box: Callable[[], Commits]
) -> None:
    commits = box()
    for _ in range(5):
        commits.tell(stack, state(Result.PARTIAL, REFUSED))
        eventually(lambda: said(github) == [("1", "failure")])
    for number in range(40):
        commits.tell(stack, state(Result.PARTIAL, replace(REFUSED, summary=f"number {number}")))
        eventually(lambda: commits._thread is None)
    assert len(github.statuses) == 20
    commits.tell(stack, state())
    eventually(lambda: said(github)[-1] == ("1", "success"))


def test_nothing_waits_for_github_and_what_waits_survives_a_restart(
    github: GitHub, stack: Stack, box: Callable[[], Commits], clock: Time
) -> None:
    github.server.faults = [Fault(delay=1.0, reply=Reply.of({"message": "oops"}, 500))]
    commits, began = box(), time.monotonic()
    commits.taken(stack)
    commits.tell(stack, state())
    assert time.monotonic() - began < 0.5
    eventually(lambda: commits.problems)
    assert commits.problems[0].severity is Severity.WARNING
    assert TOKEN not in repr(commits.problems)
    commits.close()
    clock.now += timedelta(seconds=59)
    box().tell(stack, state())
    assert github.statuses == []
    clock.now += timedelta(seconds=2)
    again = box()
    again.tell(stack, state())
    eventually(lambda: said(github) == [("1", "success")])  # the pending one is past
    eventually(lambda: not again.problems)
    assert TOKEN not in (stack.data / "statuses-mana.json").read_text()


def test_it_is_not_asked_again_before_a_limit_is_over(
    github: GitHub, stack: Stack, box: Callable[[], Commits], clock: Time
) -> None:
    github.remaining, github.reset = 0, time.time() + 1800
    commits = box()
    commits.tell(stack, state())
    eventually(lambda: commits.problems)
    asked = len(github.server.requests)
    clock.now += timedelta(seconds=1700)
    for _ in range(3):
        commits.tell(stack, state())
    assert len(github.server.requests) == asked
    github.reset = 0.0
    github.remaining = 5000
    clock.now += timedelta(seconds=200)
    commits.tell(stack, state())
    eventually(lambda: said(github) == [("1", "success")])


def test_a_token_that_may_not_or_is_not_there_is_told_and_stops_nothing(
    github: GitHub, stack: Stack, box: Callable[[], Commits], clock: Time
) -> None:
    github.tokens[TOKEN] = Token("ann", frozenset())
    commits = box()
    commits.tell(stack, state())
    eventually(lambda: commits.problems)
    assert "Resource not accessible" in commits.problems[0].summary
    github.tokens[TOKEN] = Token("ann", frozenset({"statuses"}))
    clock.now += timedelta(minutes=2)
    commits.tell(stack, state())
    eventually(lambda: said(github) == [("1", "success")] and not commits.problems)
    bare = Stack(stack.directory, replace(stack.settings, environ={"PATH": "/usr/bin"}), revision=TWO)
    commits.taken(bare)
    assert [item.where for item in commits.problems] == ["daemon.github"]


def test_a_commit_that_github_does_not_know_keeps_no_other_from_being_told(
    github: GitHub, stack: Stack, box: Callable[[], Commits]
) -> None:
    """As after a push by force, which left the commit nowhere."""
    github.known.discard(TWO)
    commits = box()
    gone = replace(state(), source=replace(state().source, seen=TWO, problems=(FAILED,)))
    commits.tell(stack, replace(gone, cycle=None))
    eventually(lambda: commits.problems)
    assert "No commit found" in commits.problems[0].summary
    eventually(lambda: commits._thread is None)
    commits.tell(stack, gone)
    eventually(lambda: said(github) == [("1", "success")] and not commits.problems)


def test_what_strangers_named_is_sent_as_what_can_be_seen(
    github: GitHub, stack: Stack, box: Callable[[], Commits]
) -> None:
    odd = Problem("a\udcff\u202e.yaml:5", "is no\r\n map\x1b[2J\0")
    commits = box()
    commits.tell(stack, state(Result.PARTIAL, odd))
    eventually(lambda: github.statuses)
    shown = r"is not in force as a whole: a\udcff\u202e.yaml:5: is no map\x1b[2J\x00"
    assert github.statuses[0]["description"] == shown
    eventually(lambda: commits._thread is None)


def test_memory_that_is_damaged_says_things_anew(github: GitHub, stack: Stack, box: Callable[[], Commits]) -> None:
    stack.data.mkdir(exist_ok=True)
    (stack.data / "statuses-mana.json").write_text('{"version": 1, "sent": [], "waiting": {}}')
    box().tell(stack, state())
    eventually(lambda: said(github) == [("1", "success")])


def test_the_token_never_goes_in_clear_over_a_network(stack: Stack) -> None:
    commits = Commits(stack.data, "mana", "http://github.example.com/api/v3")
    commits.tell(stack, state())
    assert "clear text" in commits.problems[0].summary


def test_a_plan_names_github_among_those_who_get_secrets(stack: Stack) -> None:
    told = {item.host: [str(ref) for ref in item.secrets] for item in stack.receivers}
    assert told["https://api.github.com"] == ["{env: GITHUB}"]
