"""From observing to an empty second plan, with systems in memory."""

from __future__ import annotations

from dataclasses import replace

from systems import Wishing

from reconciler.dns.records import record
from reconciler.guards.evidence import Policy
from reconciler.plan import Desired
from reconciler.problem import Problem, Severity, TargetUnreadable
from reconciler.reconcile import apply, make_plan, permitted
from reconciler.resources import (
    UNKNOWN,
    Account,
    Domain,
    Live,
    Login,
    Record,
    SecretRef,
    Signature,
    Variable,
)
from reconciler.target import Status

ZONE = "mana.how"
SECRET = SecretRef("env", "PASSWORD")


def stack():
    login = Login("stalwart", 587, "a", SECRET, verify_tls=False, account="a@mana.how")
    return [
        Variable("notify", "SMTP_USER", "a", "a", login),
        record(ZONE, "A", "mail", "192.0.2.1"),
        Account("a@mana.how"),
        Domain(ZONE),
    ]


def test_an_apply_ends_with_an_empty_plan():
    job = Wishing(stack())
    result = apply(job, make_plan(job))
    assert [item.status for item in result.outcomes] == [Status.DONE] * 4
    assert result.proven
    assert make_plan(job).pending == ()


def test_a_target_that_is_down_leaves_the_others_going():
    job = Wishing(stack())
    job.world.turn(down=["cloudflare"])
    plan = make_plan(job)
    assert not plan.complete
    assert {item.target for item in plan.changes} == {"stalwart", "compose"}
    assert not apply(job, plan).proven


def test_a_failure_skips_only_what_needs_it():
    job = Wishing(stack())
    job.world.turn(fail=["account/a@mana.how"])
    states = {item.change.address: item.status for item in apply(job, make_plan(job)).outcomes}
    assert states == {
        "dns/mana.how/A/mail": Status.DONE,
        "domain/mana.how": Status.DONE,
        "account/a@mana.how": Status.FAILED,
        "smtp/notify/SMTP_USER": Status.SKIPPED,
    }


def test_dns_being_refused_does_not_delay_the_mail_server():
    job = Wishing(stack())
    job.world.turn(fail=["dns/mana.how/A/mail"])
    done = [item.change.target for item in apply(job, make_plan(job)).outcomes if item.status is Status.DONE]
    assert done == ["stalwart", "stalwart", "compose"]


def key_of_the_server(observations):
    """What a directory without a private key wants: the server's key, and its record once it is known."""
    live = observations["stalwart"].live if observations else ()
    key = next((item.resource.public_key for item in live if isinstance(item.resource, Signature)), UNKNOWN)
    text = UNKNOWN if key is UNKNOWN else f"v=DKIM1; p={key}"
    return Desired([Signature(ZONE, "s1", "ed25519", key), record(ZONE, "TXT", "s1._domainkey", text)])


def test_a_value_the_server_chooses_is_published_in_a_second_pass():
    job = Wishing(key_of_the_server, names=("cloudflare", "stalwart"))
    job.world.put(Domain("other.how"))
    result = apply(job, make_plan(job))
    assert result.proven
    (published,) = [item.resource for item in job.world.live if isinstance(item.resource, Record)]
    assert "NEWKEY" in published.content


def test_only_narrows_to_an_address_and_what_it_needs():
    job = Wishing(stack(), only=("smtp/notify",))
    assert {item.address for item in make_plan(job).changes} == {
        "smtp/notify/SMTP_USER",
        "account/a@mana.how",
        "domain/mana.how",
    }


def test_a_stop_is_heard_between_writes():
    heard = []
    job = Wishing(stack())
    result = apply(job, make_plan(job), heard.append, lambda: bool(heard))
    assert [item.status for item in result.outcomes] == [Status.DONE] + [Status.SKIPPED] * 3


def test_a_target_that_raises_fails_its_changes_and_not_the_others():
    def broken(changes, reveal, stopped):
        raise TargetUnreadable(Problem("cloudflare", "went away", "try again"))
        yield

    job = Wishing(stack())
    job.targets["cloudflare"].apply = broken
    states = [item.status for item in apply(job, make_plan(job)).outcomes]
    assert states == [Status.FAILED, Status.DONE, Status.DONE, Status.DONE]


def test_every_change_gets_one_outcome_even_if_a_target_forgets_some():
    job = Wishing(stack())
    job.targets["stalwart"].apply = lambda changes, reveal, stopped: iter(())
    plan = make_plan(job)
    assert len(apply(job, plan).outcomes) == len(plan.changes)


def test_guards_judge_the_plan():
    live = [Live(record(ZONE, "A", f"h{i}", "192.0.2.1"), str(i), "mana") for i in range(9)]
    job = Wishing([stack()[1]], names=("cloudflare",), policy=Policy(max_deletes=3))
    job.world.live = live
    assert not make_plan(job).applyable


def test_an_address_that_nothing_has_is_an_error_and_not_nothing_to_do():
    job = Wishing(stack(), only=("account/b@mana.how",))
    plan = make_plan(job)
    assert plan.changes == ()
    assert [(item.where, item.hint) for item in plan.errors] == [
        ("--only account/b@mana.how", "did you mean account/a@mana.how?")
    ]


def test_what_only_asked_to_remove_is_gone_and_that_is_no_error():
    gone = record(ZONE, "A", "old", "192.0.2.9")
    job = Wishing([], names=("cloudflare",), only=(gone.address,))
    job.world.put(gone, "mana")
    result = apply(job, make_plan(job))
    assert (result.proven, result.after.errors, job.world.live) == (True, (), [])


def test_where_nobody_watches_a_guard_stops_only_its_own_scope():
    job = Wishing([record(ZONE, "A", "mail", "192.0.2.1"), record("other.how", "A", "mail", "192.0.2.1")])
    plan = make_plan(job)
    refusal = Problem("dns/mana.how/A/mail", "is forbidden", "ask", Severity.REFUSED, f"dns/{ZONE}")
    plan = replace(plan, problems=(refusal,))
    assert [change.address for change in permitted(plan).changes] == ["dns/other.how/A/mail"]
    assert [change.address for change in permitted(replace(plan, problems=())).changes] == [
        change.address for change in plan.changes
    ]


def test_what_needs_something_forbidden_is_not_done_either():
    job = Wishing(stack())
    plan = permitted(make_plan(job), ["account/a@mana.how"])
    assert sorted(change.address for change in plan.changes) == ["dns/mana.how/A/mail", "domain/mana.how"]


def test_a_refused_target_stops_whole():
    job = Wishing(stack())
    plan = make_plan(job)
    refusal = Problem("stalwart/x", "is forbidden", "ask", Severity.REFUSED, "stalwart")
    left = permitted(replace(plan, problems=(refusal,)))
    assert {change.target for change in left.changes} == {"cloudflare"}


def test_a_target_that_is_held_is_not_asked():
    job = Wishing(stack())
    job.world.turn(down=["cloudflare"])  # it would say so
    job.held = {"cloudflare": Problem("cloudflare", "is held", "wait", scope="cloudflare")}
    plan = make_plan(job)
    assert [item.summary for item in plan.errors] == ["is held"]
    assert {item.target for item in plan.changes} == {"stalwart", "compose"}
