"""From observing to an empty second plan, with targets that keep their world in memory."""

from __future__ import annotations

from dataclasses import replace

from reconciler.dns.records import record
from reconciler.guards.evidence import Policy
from reconciler.plan import Desired
from reconciler.problem import Problem, TargetUnreadable
from reconciler.reconcile import Work, apply, make_plan
from reconciler.resources import (
    UNKNOWN,
    Account,
    Domain,
    Live,
    Login,
    Observation,
    SecretRef,
    Signature,
    Variable,
)
from reconciler.target import Outcome, Status

ZONE = "mana.how"
SECRET = SecretRef("env", "PASSWORD")


class World:
    """A system in memory. ``fails`` are addresses that can't be changed, ``down`` makes it unreadable."""

    def __init__(self, name, *live):
        self.name, self.live, self.fails, self.down, self.calls = name, list(live), set(), False, []

    def observe(self, wanted, reveal):
        if self.down:
            raise TargetUnreadable(Problem(self.name, "is down", "start it", scope=self.name))
        return Observation(self.name, tuple(self.live))

    def apply(self, changes, reveal, stopped):
        self.calls.append([change.address for change in changes])
        for change in changes:
            if stopped():
                return
            if change.address in self.fails:
                yield Outcome(change, Status.FAILED, Problem(change.address, "refused", "look"))
                continue
            if change.before in self.live:
                self.live.remove(change.before)
            if change.after is not None:
                self.live.append(Live(self.made(change.after), "x", "mana"))
            yield Outcome(change, Status.DONE)

    def made(self, resource):
        return replace(resource, public_key="NEWKEY") if isinstance(resource, Signature) else resource


def work(targets, desire, **more):
    wish = desire if callable(desire) else lambda _: Desired(desire)
    return Work("mana", wish, {target.name: target for target in targets}, reveal=str, **more)


def stack():
    login = Login("stalwart", 587, "a", SECRET, verify_tls=False, account="a@mana.how")
    return [
        Variable("notify", "SMTP_USER", "a", "a", login),
        record(ZONE, "A", "mail", "192.0.2.1"),
        Account("a@mana.how"),
        Domain(ZONE),
    ]


def worlds():
    return [World("cloudflare"), World("stalwart"), World("compose")]


def test_an_apply_ends_with_an_empty_plan():
    job = work(worlds(), stack())
    result = apply(job, make_plan(job))
    assert [item.status for item in result.outcomes] == [Status.DONE] * 4
    assert result.proven
    assert make_plan(job).pending == ()


def test_a_target_that_is_down_leaves_the_others_going():
    cloudflare, stalwart, compose = worlds()
    cloudflare.down = True
    job = work([cloudflare, stalwart, compose], stack())
    plan = make_plan(job)
    assert not plan.complete
    assert {item.target for item in plan.changes} == {"stalwart", "compose"}
    assert not apply(job, plan).proven


def test_a_failure_skips_only_what_needs_it():
    targets = worlds()
    targets[1].fails.add("account/a@mana.how")
    job = work(targets, stack())
    states = {item.change.address: item.status for item in apply(job, make_plan(job)).outcomes}
    assert states == {
        "dns/mana.how/A/mail": Status.DONE,
        "domain/mana.how": Status.DONE,
        "account/a@mana.how": Status.FAILED,
        "smtp/notify/SMTP_USER": Status.SKIPPED,
    }


def test_dns_being_refused_does_not_delay_the_mail_server():
    targets = worlds()
    targets[0].fails.add("dns/mana.how/A/mail")
    job = work(targets, stack())
    done = [item.change.target for item in apply(job, make_plan(job)).outcomes if item.status is Status.DONE]
    assert done == ["stalwart", "stalwart", "compose"]


def key_of_the_server(observations):
    """What a directory without a private key wants: the server's key, and its record once it is known."""
    live = observations["stalwart"].live if observations else ()
    key = next((item.resource.public_key for item in live if isinstance(item.resource, Signature)), UNKNOWN)
    text = UNKNOWN if key is UNKNOWN else f"v=DKIM1; p={key}"
    return Desired([Signature(ZONE, "s1", "ed25519", key), record(ZONE, "TXT", "s1._domainkey", text)])


def test_a_value_the_server_chooses_is_published_in_a_second_pass():
    cloudflare, stalwart, _ = worlds()
    stalwart.live.append(Live(Domain("other.how")))
    job = work([cloudflare, stalwart], key_of_the_server)
    result = apply(job, make_plan(job))
    assert result.proven
    assert "NEWKEY" in cloudflare.live[0].resource.content


def test_only_narrows_to_an_address_and_what_it_needs():
    job = replace(work(worlds(), stack()), only=("smtp/notify",))
    assert {item.address for item in make_plan(job).changes} == {
        "smtp/notify/SMTP_USER",
        "account/a@mana.how",
        "domain/mana.how",
    }


def test_a_stop_is_heard_between_writes():
    heard = []
    job = work(worlds(), stack())
    result = apply(job, make_plan(job), heard.append, lambda: bool(heard))
    assert [item.status for item in result.outcomes] == [Status.DONE] + [Status.SKIPPED] * 3


def test_a_target_that_raises_fails_its_changes_and_not_the_others():
    targets = worlds()

    def broken(changes, reveal, stopped):
        raise TargetUnreadable(Problem("cloudflare", "went away", "try again"))
        yield

    targets[0].apply = broken
    job = work(targets, stack())
    states = [item.status for item in apply(job, make_plan(job)).outcomes]
    assert states == [Status.FAILED, Status.DONE, Status.DONE, Status.DONE]


def test_every_change_gets_one_outcome_even_if_a_target_forgets_some():
    targets = worlds()
    targets[1].apply = lambda changes, reveal, stopped: iter(())
    job = work(targets, stack())
    plan = make_plan(job)
    assert len(apply(job, plan).outcomes) == len(plan.changes)


def test_guards_judge_the_plan():
    live = [Live(record(ZONE, "A", f"h{i}", "192.0.2.1"), str(i), "mana") for i in range(9)]
    job = work([World("cloudflare", *live)], [stack()[1]], policy=Policy(max_deletes=3))
    assert not make_plan(job).applyable


def test_an_address_that_nothing_has_is_an_error_and_not_nothing_to_do():
    job = replace(work(worlds(), stack()), only=("account/b@mana.how",))
    plan = make_plan(job)
    assert plan.changes == ()
    assert [(item.where, item.hint) for item in plan.errors] == [
        ("--only account/b@mana.how", "did you mean account/a@mana.how?")
    ]


def test_what_only_asked_to_remove_is_gone_and_that_is_no_error():
    gone = record(ZONE, "A", "old", "192.0.2.9")
    target = World("cloudflare", Live(gone, "1", "mana"))
    job = replace(work([target], []), only=(gone.address,))
    result = apply(job, make_plan(job))
    assert (result.proven, result.after.errors, target.live) == (True, (), [])
