"""The loop over systems in memory: what it heals, whom it leaves alone, what it says it knows."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest
from systems import Connected, System, World
from whoami import NameServer, says

from reconciler import files, journal
from reconciler.daemon import loop as loops
from reconciler.daemon.applied import losses
from reconciler.daemon.board import Bell, Board
from reconciler.daemon.events import Watcher
from reconciler.daemon.loop import Loop
from reconciler.daemon.pace import Pace
from reconciler.daemon.parts import Parts
from reconciler.daemon.state import Cause, Result, Revision, Sourced, State
from reconciler.desired.load import load
from reconciler.dns.records import record
from reconciler.journal import Entry, Journal
from reconciler.observe import line as lines
from reconciler.problem import Problem, TargetUnreadable
from reconciler.resources import Observation, SecretRef
from reconciler.settings import Settings

DIRECTORY = """\
version: 1
stack: mana
targets:
  cloudflare: {token: {env: TOKEN}}
  stalwart: {url: "http://127.0.0.1:8080", username: admin, password: {env: ADMIN}}
domains: {mana.how: {}}
dns:
  mana.how:
    - {type: A, name: mail, content: 192.0.2.1}
    - {type: TXT, name: "@", content: hello}
"""
MAIL = "dns/mana.how/A/mail"


@dataclass
class Given:
    """A source that gives what the test says."""

    sourced: Sourced
    pause: float = 2.0

    def newest(self):
        revision = self.sourced.revision
        return revision.directory.digest if revision else ""

    def poll(self):
        return self.sourced


@dataclass
class Watched:
    """A loop, its world, and the moment that it takes for now."""

    loop: Loop
    world: World
    source: Given
    directory: object
    now: float = field(default_factory=time.monotonic)

    def cycle(self, cause=Cause.INTERVAL):
        return self.loop.cycle(cause)

    def revise(self, text):
        (self.directory / "reconciler.yaml").write_text(text)
        self.source.sourced = Sourced("here", revision=Revision(load(self.directory)), reached=journal.now())


@pytest.fixture
def watched(tmp_path, monkeypatch):
    world = World()
    monkeypatch.setattr(Connected, "world", world)
    monkeypatch.setattr(loops, "Stack", Connected)
    state = tmp_path / "desired-state"
    state.mkdir()
    settings = Settings.read({"TOKEN": "t", "ADMIN": "a"}, state, tmp_path / "data")
    source = Given(Sourced("here"))
    board = Board(State("", journal.now(), 300.0, Sourced("here")))
    made = Watched(Loop(source, lambda: settings, board, Bell(), interval=300.0), world, source, state)
    made.revise(DIRECTORY)
    return made


def content(world, address=MAIL):
    return next(item.resource.content for item in world.live if item.resource.address == address)


# ------------------------------------------------------------------------------------------------------------- healing
def test_a_first_cycle_makes_everything_and_a_second_finds_nothing_to_do(watched):
    first, second = watched.cycle(Cause.START), watched.cycle()
    assert (first.cycle.result, second.cycle.result) == (Result.DONE, Result.NOTHING)
    assert sorted(watched.world.addresses) == ["dns/mana.how/A/mail", "dns/mana.how/TXT/@", "domain/mana.how"]
    assert not second.plan.pending
    assert [(item.name, item.state) for item in second.targets] == [("stalwart", "in_sync"), ("cloudflare", "in_sync")]
    assert len(second.healed) == 1


def test_drift_is_healed_within_one_cycle_and_called_so(watched):
    watched.cycle()
    watched.world.alter(MAIL, content="198.51.100.7")
    state = watched.cycle()
    assert content(watched.world) == "192.0.2.1"
    assert state.cycle.drift == {MAIL}


def test_a_new_revision_is_applied_and_is_no_drift(watched):
    watched.cycle()
    watched.revise(DIRECTORY.replace("192.0.2.1", "192.0.2.2"))
    state = watched.cycle(Cause.REVISION)
    assert content(watched.world) == "192.0.2.2"
    assert not state.cycle.drift


def test_who_hears_of_a_cycle_is_not_told_that_the_next_one_is_due_before_it(watched):
    told = []
    watched.loop.ended = lambda _stack, state: told.append(state.next) or ()
    watched.cycle()
    watched.loop.bell.ring(Cause.REQUEST)
    watched.loop._wait()
    assert watched.loop.board.state.next
    watched.cycle()
    assert told == ["", ""]


def test_without_any_good_revision_nothing_is_done(watched):
    problem = Problem("here", "is invalid", "mend it")
    watched.source.sourced = Sourced("here", problems=(problem,))
    state = watched.cycle()
    assert (state.cycle.result, state.cycle.problems) == (Result.FAILED, (problem,))
    assert watched.world.live == []


def test_an_exception_that_nobody_thought_of_ends_the_cycle_and_not_the_loop(watched, monkeypatch):
    told = []
    watched.loop.unexpected = told.append
    with monkeypatch.context() as patched:
        patched.setattr(loops.cycles, "heal", lambda *_: 1 / 0)
        state = watched.cycle()
    assert state.cycle.result is Result.FAILED
    assert "ZeroDivisionError" in state.cycle.problems[0].summary
    assert [type(item) for item in told] == [ZeroDivisionError]
    assert watched.cycle().cycle.result is Result.DONE


# -------------------------------------------------------------------------------------------------------- one by itself
def test_a_target_that_is_down_backs_off_and_the_others_go_on(watched):
    watched.world.turn(down=["stalwart"])
    state = watched.cycle()
    assert state.cycle.result is Result.PARTIAL
    assert content(watched.world) == "192.0.2.1"
    stalwart = next(item for item in state.targets if item.name == "stalwart")
    assert (stalwart.state, stalwart.failures, bool(stalwart.retry)) == ("unreadable", 1, True)
    watched.world.turn()  # it answers again, but is not asked before its time
    assert next(item for item in watched.cycle().targets if item.name == "stalwart").state == "unreadable"
    watched.loop._paces.known["stalwart"] = Pace(1, time.monotonic() - 1)
    assert watched.cycle(Cause.RETRY).cycle.result is Result.DONE
    assert "domain/mana.how" in watched.world.addresses


@pytest.mark.parametrize("cause", [Cause.ENGINE, Cause.HANGUP, Cause.REQUEST])
def test_who_knows_that_something_happened_ends_the_back_off(watched, cause):
    watched.world.turn(down=["stalwart"])
    watched.cycle()
    watched.world.turn()
    watched.cycle(cause)
    assert "domain/mana.how" in watched.world.addresses


def test_a_container_that_has_just_come_is_asked_each_second_until_it_answers(watched):
    watched.world.turn(down=["stalwart"])
    for _ in range(4):
        watched.cycle(Cause.ENGINE)
        assert watched.loop._paces.next() - time.monotonic() == pytest.approx(1.0, abs=0.2)
    watched.loop._paces.starting = 0.0  # a minute later
    watched.cycle(Cause.RETRY)
    watched.loop._paces.known["stalwart"] = Pace(5, 0.0)
    watched.cycle(Cause.RETRY)
    assert watched.loop._paces.next() - time.monotonic() > 30


def test_a_new_revision_ends_the_back_off(watched):
    watched.world.turn(fail=[MAIL])
    assert watched.cycle().cycle.result is Result.PARTIAL
    watched.world.turn()
    watched.revise(DIRECTORY + "x-note: another revision\n")
    assert watched.cycle().cycle.result is Result.DONE


def test_a_guard_stops_only_its_zone(watched):
    watched.cycle()
    for number in range(5):
        watched.world.put(record("mana.how", "A", f"old{number}", "192.0.2.9"), owner="mana")
    watched.world.alter("domain/mana.how", description="changed by hand")
    watched.world.live = [item for item in watched.world.live if item.resource.address != "domain/mana.how"]
    state = watched.cycle()
    assert "domain/mana.how" in watched.world.addresses
    assert sum(item.startswith("dns/mana.how/A/old") for item in watched.world.addresses) == 5
    assert state.cycle.result is Result.PARTIAL
    assert next(item for item in state.targets if item.name == "cloudflare").state == "refused"


def test_a_refused_login_needs_a_person_and_is_told_so(watched, monkeypatch):
    refused = Problem("stalwart", "refuses the password", "correct it", scope="stalwart", lasting=True)

    def observe(self, wanted, reveal):
        raise TargetUnreadable(refused) if self.name == "stalwart" else AssertionError

    watched.cycle()
    monkeypatch.setattr("systems.System.observe", observe)
    states = [watched.cycle(Cause.ENGINE) for _ in range(2)]
    stalwart = next(item for item in states[-1].targets if item.name == "stalwart")
    assert (stalwart.state, stalwart.retry, stalwart.problem) == ("held", "", refused)


# ----------------------------------------------------------------------------------------------------------- contested
def test_a_field_that_somebody_keeps_changing_back_is_left_alone_and_told_with_both_values(watched):
    watched.cycle()
    states = []
    for _ in range(5):
        watched.world.alter(MAIL, content="198.51.100.7")
        states.append(watched.cycle())
    assert content(watched.world) == "198.51.100.7"
    (contest,) = states[-1].contested
    assert (contest.address, contest.field, contest.times) == (MAIL, "content", 3)
    assert (contest.ours, contest.theirs) == ("192.0.2.1", "198.51.100.7")
    assert [bool(item.contested) for item in states] == [False, False, False, True, True]


def test_what_is_not_contested_is_healed_beside_it(watched):
    watched.cycle()
    for _ in range(4):
        watched.world.alter(MAIL, content="198.51.100.7")
        watched.world.alter("dns/mana.how/TXT/@", content="hello")
        watched.cycle()
    watched.world.live = [item for item in watched.world.live if item.resource.address != "domain/mana.how"]
    watched.cycle()
    assert "domain/mana.how" in watched.world.addresses


def test_a_person_or_a_revision_ends_a_contest(watched):
    watched.cycle()
    for _ in range(4):
        watched.world.alter(MAIL, content="198.51.100.7")
        watched.cycle()
    assert content(watched.world) == "198.51.100.7"
    watched.cycle(Cause.REQUEST)
    assert content(watched.world) == "192.0.2.1"


# ------------------------------------------------------------------------------------------------------------ at a time
def test_while_another_reconciler_is_at_work_it_only_looks(watched):
    settings = watched.loop.settings()
    stack = Connected(load(watched.directory), settings)
    with stack.lease("reconciler apply"):
        state = watched.cycle()
    assert state.cycle.result is Result.BUSY
    assert "another reconciler is at work" in state.cycle.problems[0].summary
    assert watched.world.live == []
    assert state.plan.pending


def test_the_stack_is_kept_while_nothing_it_goes_by_has_changed(watched):
    made = []
    watched.loop.renewed = made.append
    watched.cycle()
    watched.cycle()
    assert len(made) == 1
    watched.revise(DIRECTORY + "x-note: another\n")
    watched.cycle()
    assert len(made) == 2
    watched.cycle(Cause.HANGUP)
    assert len(made) == 3


def test_what_one_cycle_has_heard_stays_without_secrets_while_the_next_begins_with_a_new_stack(watched):
    """The page shows the last cycle's texts then, and a server may have put a password into one."""
    (watched.directory.parent / "word").write_text("the-word-of-noreply")
    made = []
    watched.loop.renewed = lambda stack: made.append((stack, stack.secrets.redact("refuses the-word-of-noreply")))
    watched.cycle()
    made[-1][0].secrets(SecretRef("file", "../word"))
    (watched.directory.parent / "word").write_text("another-word-by-now")
    watched.revise(DIRECTORY.replace("192.0.2.1", "192.0.2.2"))
    watched.cycle()
    watched.loop._kept = None
    watched.cycle()
    assert len({id(stack) for stack, _ in made}) == 3
    assert [said for _, said in made[1:]] == ["refuses [redacted {file: ../word}]"] * 2


def test_a_data_directory_that_is_no_longer_ours_ends_no_daemon_and_is_told(watched, monkeypatch):
    """Somebody merges `.reconciler/x`, and `git pull` puts it there while the daemon runs."""
    settings = watched.loop.settings()
    parts = Parts(settings, watched.loop.board, watched.loop.bell, str)
    parts._watcher = Watcher(None, watched.loop.bell)
    told = []
    monkeypatch.setattr(Parts, "_told", lambda _, stack, state: told.append((stack, state)) or ())
    watched.loop.ended = parts.ended
    assert watched.cycle().problems == ()
    settings.data.chmod(0o777)
    watched.loop._kept = None
    state = watched.cycle()
    assert state.cycle.result is Result.FAILED
    assert [item.where for item in (*state.problems, *state.cycle.problems)] == [str(settings.data)] * 2
    assert [(stack is not None, said.cycle.result) for stack, said in told] == [
        (True, Result.DONE),
        (True, Result.FAILED),
    ]
    settings.data.chmod(0o700)
    assert watched.cycle().cycle.result is Result.NOTHING


def test_a_ring_begins_the_next_cycle_at_once_and_a_signal_ends_the_wait(watched):
    stop = threading.Event()
    watched.loop.around = replace(watched.loop.around, stopped=stop.is_set)
    causes = []
    watched.loop.ended = lambda _, state: causes.append(state.cycle.cause) or ()
    thread = threading.Thread(target=watched.loop.run)
    thread.start()
    watched.loop.board.wait(1, 10)
    watched.loop.bell.ring(Cause.REQUEST)
    for _ in range(200):
        if len(causes) > 1:
            break
        time.sleep(0.02)
    stop.set()
    thread.join(5)
    assert not thread.is_alive()
    assert causes == [Cause.START, Cause.REQUEST]


# --------------------------------------------------------------------------------------------------------------- losses
def entry(began, *, lost=(), whole=True, targets=("stalwart", "cloudflare")):
    return Entry("1", "mana", began, "me", targets=targets, lost=lost, whole=whole)


def test_a_loss_is_what_was_whole_before_and_a_new_server_is_none():
    new = entry("2026-11-01T00:00:00Z", lost=("stalwart",))
    once = entry("2026-11-20T00:00:00Z", lost=("stalwart",))
    twice = entry("2026-11-22T00:00:00Z", lost=("stalwart",))
    assert losses([new]) == ()
    found = losses([new, once, twice])
    assert [item.when for item in found] == [once.began, twice.began]


def test_losses_of_seven_days_count_whoever_applied_and_are_seen_when_they_are_written(watched):
    def lost(days):
        log = Journal(watched.loop.settings().own_data(), "mana")
        made = journal.entry("mana", {}, targets=("cloudflare",), lost=("cloudflare",))
        log.begin(replace(made, began=journal.before(timedelta(days=days))))
        log.end(made, "done", [], whole=True)

    watched.cycle(Cause.START)
    assert watched.loop.board.state.losses == ()
    lost(8)
    lost(6)
    watched.cycle(Cause.INTERVAL)
    assert [item.target for item in watched.loop.board.state.losses] == ["cloudflare"]
    lost(0)
    watched.cycle(Cause.INTERVAL)
    assert len(watched.loop.board.state.losses) == 2
    assert len(watched.loop.board.state.healed) == 4, "and each apply is at hand"


def test_a_cycle_reads_the_journal_only_where_somebody_wrote_to_it(watched, monkeypatch):
    watched.cycle(Cause.START)
    watched.cycle(Cause.INTERVAL)
    read, reading = [], files.read_own
    monkeypatch.setattr(files, "read_own", lambda path: read.append(path.name) or reading(path))
    watched.cycle(Cause.INTERVAL)
    assert journal.FILE not in read
    watched.world.alter(MAIL, content="198.51.100.7")
    watched.cycle(Cause.INTERVAL)
    assert journal.FILE in read


# --------------------------------------------------------------------------------------------------------------- source
def test_a_source_that_hangs_does_not_keep_from_healing(watched, monkeypatch):
    monkeypatch.setattr(loops, "_MOMENT", 0.05)
    watched.cycle()
    going, poll = threading.Event(), watched.source.poll
    watched.source.poll = lambda: going.wait(10) and poll()
    watched.world.alter(MAIL, content="198.51.100.7")
    watched.cycle()
    assert content(watched.world) == "192.0.2.1"
    watched.revise(DIRECTORY.replace("192.0.2.1", "192.0.2.2"))
    going.set()
    watched.loop._poll.ended.wait(10)
    watched.cycle()
    assert content(watched.world) == "192.0.2.2"


def test_a_source_that_breaks_its_promise_costs_a_cycle_and_not_the_loop(watched):
    watched.cycle()
    watched.source.poll = lambda: 1 / 0
    watched.world.alter(MAIL, content="198.51.100.7")
    state = watched.cycle()
    assert "ZeroDivisionError" in state.source.problems[0].summary
    assert content(watched.world) == "192.0.2.1"


# --------------------------------------------------------------------------------------------------------- a home line
HOME = DIRECTORY.replace("content: 192.0.2.1", "content: {public_ip: true}").replace(
    "content: hello", 'content: "v=spf1 ip4:{public_ip} -all"'
)
SPF = "dns/mana.how/TXT/@"
ADDRESSES = [f"91.12.34.{number}" for number in range(1, 9)]


@pytest.fixture
def askers(watched, monkeypatch):
    """Two name servers that tell the line's address, and a stack that follows it; each cycle may ask anew."""
    started = [NameServer(says(ADDRESSES[0])) for _ in range(2)]
    asked = " ".join(f"me/{kind}@127.0.0.1:{item.port}" for kind, item in zip(("A", "TXT"), started, strict=True))
    state = watched.loop.settings().state
    environ = {"TOKEN": "t", "ADMIN": "a", "RECONCILER_WHOAMI": asked}
    watched.loop.settings = lambda: Settings.read(environ, state, state.parent / "data")
    monkeypatch.setattr(lines, "AGE", 0.0)
    watched.revise(HOME)
    yield started
    for item in started:
        item.close()


def published(world):
    return content(world), content(world, SPF)


def at(address):
    return address, f"v=spf1 ip4:{address} -all"


def test_the_records_follow_the_line_within_one_cycle(watched, askers):
    watched.cycle(Cause.START)
    assert published(watched.world) == at(ADDRESSES[0])
    for item in askers:
        item.fill = says(ADDRESSES[1])
    state = watched.cycle()
    assert published(watched.world) == at(ADDRESSES[1])
    assert state.cycle.result is Result.DONE
    assert watched.cycle().cycle.result is Result.NOTHING


@pytest.mark.parametrize("other", [says(ADDRESSES[1]), lambda *_: None])
def test_while_the_askers_disagree_nothing_changes_and_the_rest_is_healed(watched, askers, other, monkeypatch):
    monkeypatch.setattr("reconciler.observe.line._ATTEMPT", 0.2)
    watched.cycle(Cause.START)
    askers[1].fill = other
    watched.world.alter(MAIL, ttl=600)
    watched.world.live = [item for item in watched.world.live if item.resource.address != "domain/mana.how"]
    for _ in range(2):
        state = watched.cycle()
        assert published(watched.world) == at(ADDRESSES[0])
    assert not state.plan.pending
    assert not state.plan.errors
    assert [item.where for item in state.plan.problems] == [MAIL, SPF]
    assert next(item.resource.ttl for item in watched.world.live if item.resource.address == MAIL) == 1
    assert "domain/mana.how" in watched.world.addresses


def test_a_line_that_changes_often_is_no_contest_and_somebody_who_changes_it_back_is(watched, askers):
    watched.cycle(Cause.START)
    for address in ADDRESSES[1:]:
        for item in askers:
            item.fill = says(address)
        state = watched.cycle()
        assert published(watched.world) == at(address)
        assert not state.contested
    for _ in range(3):
        watched.world.alter(MAIL, content="91.1.1.1")
        watched.cycle()
    watched.world.alter(MAIL, content="91.1.1.1")
    assert [item.address for item in watched.cycle().contested] == [MAIL]
    assert content(watched.world) == "91.1.1.1"


def test_the_line_is_asked_once_a_minute_at_most(watched, askers, monkeypatch):
    monkeypatch.setattr(lines, "AGE", 60.0)
    for _ in range(4):
        watched.cycle()
    watched.revise(HOME.replace("name: mail", "name: post"))  # a new stack
    watched.cycle(Cause.REVISION)
    assert [len(item.asked) for item in askers] == [1, 1]


def test_who_follows_nothing_asks_nobody(watched, askers):
    watched.revise(DIRECTORY)
    watched.cycle(Cause.REVISION)
    assert [item.asked for item in askers] == [[], []]


# -------------------------------------------------------------------------------------------------------- for ever
@pytest.fixture
def running(watched, monkeypatch):
    """Start the loop, which nobody wakes, with an interval of a moment; it ends with the test."""
    stop = threading.Event()
    monkeypatch.setattr(watched.source.__class__, "newest", lambda _: "never another")
    watched.loop.interval = 0.2
    watched.loop.around = replace(watched.loop.around, stopped=stop.is_set)
    thread = threading.Thread(target=watched.loop.run)
    thread.start()
    yield watched
    stop.set()
    thread.join(10)
    assert not thread.is_alive()


def until(holds):
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_row_7_without_any_hint_drift_and_revisions_are_seen_within_the_interval(running):
    until(lambda: MAIL in running.world.addresses)
    running.world.alter(MAIL, content="198.51.100.7")
    until(lambda: content(running.world) == "192.0.2.1")
    running.revise(DIRECTORY.replace("192.0.2.1", "192.0.2.2"))
    until(lambda: content(running.world) == "192.0.2.2")


def test_row_8_a_revision_that_comes_while_another_is_applied_is_the_next_ones(watched):
    def revised(_outcome):
        watched.revise(DIRECTORY.replace("192.0.2.1", "192.0.2.2"))

    watched.loop.around = replace(watched.loop.around, hear=revised)
    watched.cycle(Cause.START)
    watched.loop.around = replace(watched.loop.around, hear=lambda _: None)
    assert watched.loop._wait() is Cause.REVISION, "at once, not after the interval"
    watched.cycle(Cause.REVISION)
    assert content(watched.world) == "192.0.2.2"


def test_row_31_a_cycle_that_never_ends_is_heard_by_the_silence(running, monkeypatch):
    until(lambda: running.loop.board.state.cycle is not None)
    board, going = running.loop.board, threading.Event()
    with monkeypatch.context() as patched:
        patched.setattr(System, "observe", lambda *_: going.wait(20) and Observation("stalwart"))
        until(lambda: board.silence > 3 * running.loop.interval)
        going.set()
    until(lambda: board.silence < 3 * running.loop.interval)
