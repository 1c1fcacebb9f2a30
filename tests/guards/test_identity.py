"""Whose records would go, and who would be renamed or made a second time by a slip."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler import guards
from reconciler.dns.records import record
from reconciler.guards.evidence import Evidence, Past, Policy
from reconciler.plan import Desired, diff
from reconciler.problem import Problem, Severity
from reconciler.resources import Account, Domain, Group, Live, MailingList, Observation

ZONE = "mana.how"


def host(name, last=1):
    return record(ZONE, "A", name, f"192.0.2.{last}")


def ours(*records):
    return [Live(item, f"{index}", "mana") for index, item in enumerate(records)]


def refused(problems):
    return [item.scope for item in problems if item.severity is Severity.REFUSED]


def recall(resources, *, dns=(), mail=(), past=Past(committed=frozenset()), lost=False, **more):  # noqa: B008 (frozen)
    observations = {
        "cloudflare": Observation("cloudflare", dns),
        "stalwart": Observation("stalwart", [Live(item, f"{index}") for index, item in enumerate(mail)], lost=lost),
    }
    desired = Desired(resources, **more)
    plan = diff(desired, observations, stack="mana")
    return guards.check(Evidence(plan, desired, observations, Policy(max_deletes=99), past=past))


def said(problems):
    return [(item.where, item.severity) for item in problems if item.severity is not Severity.ERROR]


FOREIGN = [host("a"), host("b"), host("c")]
KEPT = [host(f"k{index}") for index in range(9)]


@pytest.mark.parametrize(
    ("past", "warned"),
    [
        (Past(committed=frozenset()), True),
        (Past(committed=frozenset(FOREIGN[:1])), True),
        (Past(committed=frozenset(FOREIGN[:2])), False),
        (Past(frozenset(FOREIGN), frozenset()), False),
        (Past(frozenset(FOREIGN[:2]), frozenset()), True),
        (Past(frozenset(FOREIGN[:2]), frozenset(FOREIGN[2:])), False),
        (Past(), False),  # nobody can tell
    ],
)
def test_l5_records_that_were_never_ours_are_named_before_they_go(past, warned):
    found = [item for item in recall(KEPT, dns=ours(*KEPT, *FOREIGN), past=past) if item.where == "stack mana"]
    assert bool(found) is warned
    if warned:
        assert "dns/mana.how/A/c" in found[0].summary
        assert "stack: mana" in found[0].hint


def box(name, **more):
    return Account(name, login=name.partition("@")[0], email=name, **more)


OLD, NEW = "postmaster@mana.how", "postmaster@mana.hwo"


def test_l7_another_address_for_a_login_needs_moved():
    retyped, live = box(NEW), replace(box(OLD), name=NEW)  # up to 0.15 it is found by its login
    (problem,) = recall([retyped], mail=[live])
    assert (problem.where, problem.severity) == (f"account/{NEW}", Severity.REFUSED)
    assert f"moved: [{{from: account/{OLD}, to: account/{NEW}}}]" in problem.hint
    assert recall([retyped], mail=[live], moved={f"account/{OLD}": f"account/{NEW}"}) == ()
    assert recall([replace(retyped, aliases=(OLD,))], mail=[replace(live, aliases=())]) == ()
    assert recall([retyped], mail=[replace(live, email=None)]) == ()


@pytest.mark.parametrize("make", [box, Group, MailingList])
@pytest.mark.parametrize("new", [NEW, "postmater@mana.how", "postmaster@other.example"])
def test_l7_a_second_empty_mailbox_needs_moved(make, new):
    old, kind = make(OLD), make.kind if make is not box else "account"
    known = Past(frozenset({old}))
    (problem,) = recall([make(new)], mail=[old], past=known)
    assert (problem.where, problem.severity) == (f"{kind}/{new}", Severity.REFUSED)
    for line in (f"moved: [{{from: {kind}/{OLD}, to: {kind}/{new}}}]", f"removed: [{kind}/{OLD}]"):
        assert line in problem.hint
    assert refused(recall([make(new)], mail=[old], past=Past(committed=frozenset({old})))) == ["stalwart"]
    assert said(recall([make(new)], mail=[old])) == [(f"{kind}/{new}", Severity.WARNING)]
    assert recall([make(new), old], mail=[old], past=known) == ()
    assert refused(recall([make(new)], mail=[old], past=known, removed=frozenset({f"{kind}/{OLD}"}))) == []


def test_l7_from_0_16_what_is_moved_is_no_second_one():
    moved = {f"account/{OLD}": f"account/{NEW}"}
    assert recall([box(NEW)], mail=[box(OLD)], moved=moved, past=Past(frozenset({box(OLD)}))) == ()


def test_l7_what_was_ours_and_nobody_declares_is_named():
    (problem,) = recall([box("x@mana.how")], mail=[box("x@mana.how"), box(OLD)], past=Past(frozenset({box(OLD)})))
    assert (problem.where, problem.severity) == (f"account/{OLD}", Severity.WARNING)
    assert f"removed: [account/{OLD}]" in problem.hint
    assert "moved: " in problem.hint
    assert recall([box("x@mana.how")], mail=[box("x@mana.how"), box(OLD)]) == ()
    assert recall([box("y@mana.how")], mail=[], past=Past(frozenset({box(OLD)})), lost=True) == ()


@pytest.mark.parametrize(
    ("name", "zones", "keyed", "hint"),
    [
        ("mana.hwo", {"mana.how"}, {"mana.how"}, "did you mean mana.how?"),
        ("mana.hwo", {"mana.how"}, set(), "did you mean mana.how?"),
        ("lists.mana.hwo", {"mana.how"}, set(), "declare its zone"),
        ("elsewhere.example", set(), {"mana.how"}, "declare its zone"),
        ("lists.mana.how", {"mana.how"}, set(), ""),
        ("keyed.example", {"mana.how"}, {"keyed.example"}, ""),
        ("mana.hwo", set(), set(), ""),
    ],
)
def test_l7_a_mail_domain_without_zone_and_key_is_named(name, zones, keyed, hint):
    found = recall([Domain(name)], zones=frozenset(zones), keyed=frozenset(keyed))
    assert said(found) == ([(f"domain/{name}", Severity.WARNING)] if hint else [])
    assert all(hint in item.hint for item in found)


@pytest.mark.parametrize(
    ("zone", "domains", "keyed", "meant"),
    [
        ("mana.hwo", {"mana.how"}, set(), "mana.how"),
        ("mana.hwo", set(), {"mana.how"}, "mana.how"),
        ("other.example", {"mana.how"}, set(), ""),
        ("mana.hwo", {"mail.mana.hwo"}, set(), ""),
    ],
)
def test_a_zone_that_nobody_finds_is_told_as_the_slip_that_it_is(zone, domains, keyed, meant):
    desired = Desired(tuple(map(Domain, domains)), zones=frozenset({zone}), keyed=frozenset(keyed))
    lost = Problem(zone, "no zone of this name", "add it at Cloudflare", scope=f"dns/{zone}")
    said = guards.zone_meant(lost, desired).hint
    assert said == (f"did you mean {meant}? Otherwise add it at Cloudflare" if meant else "add it at Cloudflare")
    elsewhere = replace(lost, scope="stalwart")
    assert guards.zone_meant(elsewhere, desired) == elsewhere


def test_l5_a_change_of_type_takes_anothers_record_away_too():
    alias, address = record(ZONE, "CNAME", "a", "b.example"), host("a")
    (problem,) = recall([alias], dns=ours(address))
    assert (problem.where, problem.severity) == ("stack mana", Severity.WARNING)
    assert "dns/mana.how/A/a" in problem.summary
    assert recall([alias], dns=ours(address), past=Past(frozenset({address}))) == ()


def test_l7_a_slip_in_the_domain_is_one_although_nothing_was_applied_yet():
    more = {"zones": frozenset({"mana.how"}), "past": Past()}
    assert refused(recall([box(NEW)], mail=[box(OLD)], **more)) == ["stalwart"]
    assert refused(recall([box("postmaster@b.mana.how")], mail=[box(OLD)], **more)) == []


def test_s2_many_undeclared_and_many_new_ones_are_compared_in_a_moment():
    old = [box(f"user{index}@mana.how") for index in range(1500)]
    new = [box(f"other{index}@mana.how") for index in range(1500)]
    assert len(recall(new, mail=old, past=Past(frozenset(old)))) == len(old)
