"""What a person is told of a sequence of states: changes, once each, and when it is well again."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email import message_from_string, policy
from email.header import Header
from email.message import Message
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from reconciler.daemon.notices import Kind, Known, Notice, due, harmless, text
from reconciler.daemon.state import (
    Cause,
    Contest,
    Cycle,
    Loss,
    ProviderState,
    Result,
    Revision,
    Sourced,
    State,
    TargetState,
)
from reconciler.desired.load import Directory, load
from reconciler.failover import Failover
from reconciler.plan import Plan
from reconciler.problem import Problem, Severity
from reconciler.suspension import Suspension

BEGAN = datetime(2026, 11, 1, tzinfo=UTC)
STEP = timedelta(minutes=5)
SECRET = "planted-Secret-7Q2x"
WELL = (TargetState("stalwart", "in_sync", ""), TargetState("cloudflare", "in_sync", ""))


def iso(when: datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


class Daemon:
    """A daemon's states, one cycle after the other, and what was told."""

    def __init__(self, started: datetime = BEGAN) -> None:
        self.now, self.number, self.known = started, 0, Known()
        self.started = iso(started)
        self.told: list[Notice] = []

    def cycle(self, after: timedelta = STEP, **fields: object) -> list[Notice]:
        self.now += after
        self.number += 1
        cycle = Cycle(self.number, Cause.INTERVAL, iso(self.now), iso(self.now), 1.0, Result.DONE)
        source = fields.pop("source", Sourced("/srv/mail", reached=iso(self.now)))
        problems = fields.pop("problems", ())
        state = State("mana", self.started, 300.0, source, replace(cycle, problems=problems), targets=WELL)
        return self.hear(replace(state, **fields))

    def hear(self, state: State) -> list[Notice]:
        notices, self.known = due(self.known, state, self.now)
        self.known = Known.parse(json.loads(json.dumps(self.known.as_dict())))  # as over a restart
        self.told += notices
        return list(notices)

    def fails(self, times: int, summary: str = "can't be reached: timed out", **settings: object) -> list[Notice]:
        problem = Problem("https://mail.mana.how", summary, "start it", scope="stalwart")
        ill = TargetState("stalwart", "unreadable", "", failures=times, problem=problem, **settings)
        return self.cycle(targets=(ill, WELL[1]))


def kinds(notices: list[Notice]) -> list[Kind]:
    return [item.kind for item in notices]


def body(notice: Notice) -> str:
    return "\n".join(text(notice, lambda it: it))


# -------------------------------------------------------------------------------------------- when something is told
def test_what_passes_is_not_told_and_what_lasts_is_once() -> None:
    daemon = Daemon()
    assert daemon.fails(1) == daemon.fails(2) == daemon.cycle() == []
    assert daemon.fails(1) == daemon.fails(2) == []
    (alert,) = daemon.fails(3, "can't be reached: no answer within 31 seconds")
    assert "mana: stalwart: can't be read" in body(alert)
    assert "what to do: start it" in body(alert)
    assert daemon.fails(4, "HTTP 503 after 7 tries (request 9f3a77c1)") == []
    (recovery,) = daemon.cycle()
    assert recovery.kind is Kind.RECOVERY
    assert "well again: stalwart" in body(recovery)
    assert daemon.cycle() == []


def test_it_reminds_after_an_hour_and_then_daily() -> None:
    daemon = Daemon()
    daemon.fails(3)
    told = [(daemon.now - BEGAN, kinds(found)) for count in range(4, 12 * 60) if (found := daemon.fails(count))]
    first = STEP + timedelta(hours=1)
    assert told == [
        (first, [Kind.REMINDER]),
        (first + timedelta(days=1), [Kind.REMINDER]),
        (first + timedelta(days=2), [Kind.REMINDER]),
    ]


def test_a_clock_that_goes_back_neither_floods_nor_silences() -> None:
    daemon = Daemon()
    daemon.fails(3)
    daemon.now -= timedelta(days=3)
    assert [daemon.fails(count) for count in range(4, 10)] == [[]] * 6


def test_a_person_is_called_at_once_where_only_one_helps() -> None:
    refused = Problem("stalwart", "refuses our login", "correct the password", scope="stalwart")
    held = TargetState("stalwart", "held", "", failures=1, problem=refused)
    guard = Problem("dns/mana.how", "would delete 12 records", "say --allow-deletes", Severity.REFUSED, "dns/mana.how")
    for fields in ({"targets": (held, WELL[1])}, {"plan": Plan("mana", problems=(guard,))}):
        daemon = Daemon()
        assert kinds(daemon.cycle(**fields)) == [Kind.ALERT]
        assert daemon.cycle(**fields) == []
        assert kinds(daemon.cycle(plan=Plan("mana"))) == [Kind.RECOVERY]


def test_numbers_names_of_files_and_times_make_no_new_trouble() -> None:
    daemon = Daemon()
    for count in range(1, 6):
        summary = f"would delete {count} record{'s' * (count > 1)} after {count}h: 'a{count}', /x/{count}"
        guard = Problem("dns/mana.how", summary, "", Severity.REFUSED, "dns/mana.how")
        daemon.cycle(plan=Plan("mana", problems=(guard,)))
    assert kinds(daemon.told) == [Kind.ALERT]


def test_one_outage_is_one_message() -> None:
    daemon = Daemon()
    ill = tuple(TargetState(name, "unreadable", "", failures=3) for name in ("stalwart", "cloudflare", "compose"))
    many = tuple(Problem(f"account/a{n}@mana.how", "is not there", scope="stalwart") for n in range(50))
    (alert,) = daemon.cycle(targets=ill, plan=Plan("mana", problems=many))
    assert [item.target for item in alert.troubles] == ["stalwart", "cloudflare", "compose"]
    assert body(alert).startswith("mana: stalwart: can't be read (and 2 more)")
    assert kinds(daemon.cycle()) == [Kind.RECOVERY]


def test_nothing_is_well_again_before_somebody_looked() -> None:
    daemon = Daemon()
    guard = Problem("account/a@mana.how", "is an administrator", "", Severity.REFUSED, "stalwart")
    daemon.cycle(plan=Plan("mana", problems=(guard,)))
    waiting = TargetState("stalwart", "held", "", failures=1, retry=iso(daemon.now + STEP))
    assert daemon.cycle(targets=(waiting, WELL[1])) == []
    before = State("mana", iso(daemon.now), 300.0, Sourced("/srv/mail"))
    assert daemon.hear(before) == []  # restarted
    assert daemon.cycle(targets=()) == []
    assert kinds(daemon.cycle()) == [Kind.RECOVERY]


def directory(folder: Path) -> Directory:
    (folder / "reconciler.yaml").write_text("version: 1\nstack: mana\n")
    return load(folder)


def test_a_revision_that_is_not_taken_is_told_at_once_and_a_silent_source_later(tmp_path: Path) -> None:
    good = Revision(directory(tmp_path), commit="a" * 40)
    unsigned = Problem("git", "commit bbbbbbb is not signed", "sign it")
    held_back = Sourced("git", "main", good, "b" * 40, problems=(unsigned,))
    daemon = Daemon()
    (alert,) = daemon.cycle(source=replace(held_back, reached=iso(BEGAN)))
    assert "a newer revision is not taken" in body(alert)
    another = Problem("git", "commit ccccccc is not signed", "sign it")
    assert daemon.cycle(source=replace(held_back, seen="c" * 40, problems=(another,))) == []
    assert kinds(daemon.cycle()) == [Kind.RECOVERY]
    gone = Sourced("git", "main", good, good.commit, iso(BEGAN), (Problem("git", "can't be reached"),))
    assert [kinds(daemon.cycle(source=gone)) for _ in range(4)] == [[], [], [Kind.ALERT], []]
    daemon = Daemon()
    stale = replace(gone, problems=())
    assert [kinds(daemon.cycle(source=stale)) for _ in range(5)] == [[], [], [], [Kind.ALERT], []]


def test_a_contested_field_is_told_with_both_values() -> None:
    daemon = Daemon()
    contest = Contest("dns/mana.how/TXT/@", "content", "ours", "theirs", 3, iso(BEGAN), "")
    (alert,) = daemon.cycle(contested=(contest,))
    assert "we want ours, and it becomes theirs" in body(alert)
    assert daemon.cycle(contested=(replace(contest, times=4),)) == []
    assert kinds(daemon.cycle()) == [Kind.RECOVERY]


def test_one_loss_is_told_as_healed_and_two_within_a_week_are_an_alert() -> None:
    daemon = Daemon()
    first = Loss("stalwart", iso(BEGAN))
    assert kinds(daemon.cycle(losses=(first,))) == [Kind.HEALED]
    assert daemon.cycle(losses=(first,)) == []
    assert daemon.cycle(timedelta(days=1)) == []
    assert daemon.cycle(losses=(first,)) == []
    (alert,) = daemon.cycle(losses=(first, Loss("stalwart", iso(daemon.now))))
    assert alert.kind is Kind.ALERT
    assert "its volume is broken" in body(alert)
    daemon = Daemon()
    apart = Loss("stalwart", iso(BEGAN - timedelta(days=8)))
    assert kinds(daemon.cycle(losses=(apart, first))) == [Kind.HEALED]


def test_a_suspension_is_told_when_it_is_too_long() -> None:
    for until, hours in (("", 24), (iso(BEGAN + timedelta(hours=2)), 2), (iso(BEGAN + timedelta(hours=50)), 50)):
        held = Suspension("upgrade", "till@mac", iso(BEGAN), until)
        daemon = Daemon()
        assert daemon.cycle(timedelta(hours=hours, minutes=-1), suspended=held) == []
        (alert,) = daemon.cycle(suspended=held)
        assert "till(at)mac" not in body(alert)  # no chat takes that for a name
        assert "till@mac" in body(alert)
        assert kinds(daemon.cycle()) == [Kind.RECOVERY]
    assert kinds(Daemon().cycle(suspended=Suspension("x.json is damaged", "", ""))) == [Kind.ALERT]


# ------------------------------------------------------------------------------------------------------- any sequence
TARGET = st.builds(
    lambda name, state, failures, retry, summary: TargetState(
        name, state, "", failures=failures, retry=retry, problem=Problem(name, summary, scope=name) if summary else None
    ),
    name=st.just("stalwart"),
    state=st.sampled_from(["in_sync", "pending", "unreadable", "held", "refused", "lost"]),
    failures=st.integers(0, 5),
    retry=st.sampled_from(["", "2026-11-02T00:00:00Z"]),
    summary=st.sampled_from(["", f"refuses {SECRET}", "moved 3 times", "moved 4 times"]),
)
PROBLEM = st.builds(
    lambda summary, severity, scope: Problem(scope, f"{summary} {SECRET}", f"ask {SECRET}", severity, scope),
    summary=st.sampled_from(["deletes 3", "deletes 5", "is proxied", "@everyone [x](http://evil)"]),
    severity=st.sampled_from(list(Severity)),
    scope=st.sampled_from(["stalwart", "cloudflare", "dns/mana.how", ""]),
)
WORLD = st.fixed_dictionaries(
    {
        "target": TARGET,
        "problems": st.lists(PROBLEM, max_size=2),
        "minutes": st.sampled_from([5, 90, 1500]),
        "contested": st.booleans(),
        "restarted": st.booleans(),
        "source": st.sampled_from(["", "broken"]),
    }
)


@given(st.lists(WORLD, max_size=25))
def test_any_sequence_tells_nothing_twice_and_no_secret(worlds: list[dict]) -> None:
    daemon, ill = Daemon(), set()
    contest = Contest("dns/mana.how/TXT/@", "content", SECRET, "x", 3, iso(BEGAN), "")
    for world in worlds:
        if world["restarted"]:
            daemon.number, daemon.started = 0, iso(daemon.now)
        broken = (Problem("git", f"is unsigned {SECRET}"),) if world["source"] else ()
        found = daemon.cycle(
            timedelta(minutes=world["minutes"]),
            targets=(world["target"], WELL[1]),
            problems=tuple(world["problems"]),
            contested=(contest,) * world["contested"],
            source=Sourced("git", seen="b" if broken else "", reached=iso(daemon.now), problems=broken),
        )
        assert len(found) <= len(Kind)
        for notice in found:
            title, words = text(notice, lambda it: it.replace(SECRET, "{env: X}"))
            assert SECRET not in title + words
            assert "@everyone" not in words
            assert "](" not in words
            assert "\n" not in title
            if notice.kind is Kind.ALERT:
                assert not notice.keys & ill  # told already, and no recovery since
                ill |= notice.keys
            else:
                assert notice.keys <= ill
                ill -= notice.keys if notice.kind is Kind.RECOVERY else set()
        assert SECRET not in json.dumps({**daemon.known.as_dict(), "alerts": list(daemon.known.alerts)})
    well = [daemon.cycle() for _ in range(2)]
    assert {key for notices in well for notice in notices for key in notice.keys} == ill
    assert well[1] == []


@given(st.text(max_size=400))
def test_any_name_is_one_harmless_line(words: str) -> None:
    line = harmless(words)
    assert line.isprintable()
    assert len(line) <= 300
    assert not set("<>`|*~") & set(line)
    for name in ("@everyone", "@here", "@channel", " @bob", "-@bob", ".@bob", "+@bob"):
        assert name not in harmless(f"a {words} {name} {words}")


def test_a_mail_s_subject_is_what_was_made_harmless() -> None:
    """A mail's reader decodes what stands there: `=?utf-8?B?...?=` would bring back what was taken out."""
    word = Header("\u202e<b>\r\nBcc: a@b", "utf-8").encode()
    message = Message()
    message["Subject"] = Header(harmless(f"mana: {word} fails")).encode()  # as Apprise does
    assert str(message_from_string(message.as_string(), policy=policy.default)["Subject"]).startswith("mana: = ?utf-8?")


def test_an_address_stays_one() -> None:
    assert harmless("account/noreply@mana.how") == "account/noreply@mana.how"
    assert harmless("ask @bob or x@everyone <!here> [in](http://evil)") == (
        "ask (at)bob or x(at)everyone ‹!here› [in] (http://evil)"
    )


def test_what_comes_and_goes_within_an_outage_is_no_news() -> None:
    daemon = Daemon()
    guard = Problem("account/a@mana.how", "is an administrator", "", Severity.REFUSED, "stalwart")
    other = Problem("account/b@mana.how", "would lose its mail", "", Severity.REFUSED, "stalwart")
    told = [
        kinds(daemon.cycle(plan=Plan("mana", problems=problems)))
        for problems in ((guard,), (guard, other), (other,), (guard, other), (guard,), ())
    ]
    assert told == [[Kind.ALERT], [Kind.ALERT], [], [], [], [Kind.RECOVERY]]
    assert len(daemon.told[-1].troubles) == 2


def test_a_secret_is_taken_out_before_a_text_is_made_harmless() -> None:
    secret = "a*b@all <c>"
    refused = Problem("stalwart", f"refuses '{secret}'", f"not {secret}", Severity.REFUSED, "stalwart")
    (alert,) = Daemon().cycle(problems=(refused,))
    title, words = text(alert, lambda it: it.replace(secret, "{env: X}"))
    assert "why: stalwart: refuses '{env: X}'" in words
    assert "what to do: not {env: X}" in words
    assert title


def test_no_text_of_a_problem_is_remembered() -> None:
    daemon = Daemon()
    refused = Problem(
        "stalwart", "refuses extraordinary words", "try something unheard of", Severity.REFUSED, "stalwart"
    )
    held = TargetState("stalwart", "held", "", failures=1, problem=refused)
    for fields in (
        {"problems": (refused,)},
        {"targets": (held,)},
        {"source": Sourced("x", seen="b", problems=(refused,))},
    ):
        daemon.cycle(**fields)
    assert len(daemon.told) >= 3
    assert "extraordinary" not in json.dumps(daemon.known.as_dict())
    assert "unheard" not in json.dumps(daemon.known.as_dict())


# ------------------------------------------------------------------------------------------------------------- failover
OVER = Failover("stalwart", "brevo", "2026-11-01T00:30:00Z", "stalwart:587: no mail server answers", "basis")


def test_a_failover_is_told_once_and_so_is_its_end() -> None:
    daemon = Daemon()
    down = ProviderState("stalwart", "brevo", taken=False, why=OVER.why)
    assert daemon.cycle(provider=down) == []
    (told,) = daemon.cycle(provider=replace(down, failover=OVER))
    assert kinds([told]) == [Kind.ALERT]
    assert "goes through brevo in place of stalwart" in body(told)
    assert "no mail server answers" in body(told)
    assert daemon.cycle(provider=replace(down, taken=True, failover=OVER)) == []
    (over,) = daemon.cycle(provider=replace(down, taken=True, why=""))
    assert kinds([over]) == [Kind.RECOVERY]


def test_a_refused_login_and_a_standby_that_can_not_be_used_are_told_at_once() -> None:
    refused = ProviderState("stalwart", "brevo", taken=False, why="535", refused=True)
    assert kinds(Daemon().cycle(provider=refused)) == [Kind.ALERT]
    daemon = Daemon()
    blocked = replace(refused, refused=False, obstacles=("brevo1._domainkey.mana.how (CNAME) can't be seen",))
    (told,) = daemon.cycle(provider=blocked)
    assert "brevo can't stand in" in body(told)
    assert "_domainkey" in body(told)


def test_a_port_that_is_closed_for_a_moment_is_not_told() -> None:
    daemon, down = Daemon(), ProviderState("stalwart", "brevo", taken=False, why="closed")
    well = ProviderState("stalwart", "brevo", taken=True)
    assert daemon.cycle(provider=down) == daemon.cycle(provider=down) == daemon.cycle(provider=well) == []
    daemon.cycle(provider=down)
    daemon.cycle(provider=down)
    assert kinds(daemon.cycle(provider=down)) == [Kind.ALERT]
