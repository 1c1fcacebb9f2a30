"""Every reason to refuse, each on the smallest plan that gives it, and its opposite."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler import guards
from reconciler.desired.dns import dkim_record, head, record
from reconciler.plan import Desired, diff
from reconciler.problem import Severity
from reconciler.resources import (
    Account,
    AllowedIp,
    Domain,
    Live,
    Login,
    Observation,
    SecretRef,
    Setting,
    Signature,
    Variable,
)

ZONE = "mana.how"
KEY = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="  # RFC 8463, appendix A
OTHER = "AAAAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURoA="
SECRET = SecretRef("env", "PASSWORD")


def host(name, last=1, **more):
    return record(ZONE, "A", name, f"192.0.2.{last}", **more)


def ours(*records):
    return [Live(item, f"{index}", "mana") for index, item in enumerate(records)]


def judge(resources, *, dns=None, mail=None, policy=None, public=frozenset(), lost=False, **more):
    observations = {}
    if dns is not None:
        observations["cloudflare"] = Observation("cloudflare", dns)
    if mail is not None:
        observations["stalwart"] = Observation("stalwart", [Live(item) for item in mail], lost=lost)
    if any(isinstance(item, Variable) for item in resources):
        observations["compose"] = Observation("compose")
    desired = Desired(resources, **more)
    plan = diff(desired, observations, stack="mana", head=head)
    evidence = guards.Evidence(plan, desired, observations, policy or guards.Policy(), public)
    return guards.check(evidence)


def refused(problems):
    return [item.scope for item in problems if item.severity is Severity.REFUSED]


def test_an_empty_directory_is_refused_while_something_is_ours():
    assert "dns/mana.how" in refused(judge([], dns=ours(host("a"))))
    assert judge([], dns=[Live(host("a"))]) == ()


def test_more_deletions_than_allowed_show_the_arithmetic():
    live = ours(*(host(f"h{i}", i) for i in range(10)))
    wanted = [host(f"h{i}", i) for i in range(6)]
    (problem,) = judge(wanted, dns=live)
    assert "deletes 4 resources, policy.max_deletes allows 3" in problem.summary
    assert "--allow-deletes 4" in problem.hint
    assert judge(wanted, dns=live, policy=guards.Policy(allow_deletes=4)) == ()
    assert refused(judge(wanted, dns=live, policy=guards.Policy(allow_deletes=2)))


def test_removed_does_not_count_as_a_deletion():
    mail = [Domain(f"d{i}.how") for i in range(5)]
    names = frozenset(f"domain/d{i}.how" for i in range(5))
    assert judge([Domain(ZONE)], mail=[*mail, Domain(ZONE)], removed=names, policy=guards.Policy(max_deletes=0)) == ()


@pytest.mark.parametrize(("left", "verdict"), [(3, []), (1, ["dns/mana.how"])])
def test_more_than_half_of_a_zone_is_refused_within_max_deletes(left, verdict):
    live = ours(*(host(f"h{i}", i) for i in range(4)))
    policy = guards.Policy(max_deletes=10)
    wanted = [host(f"h{i}", i) for i in range(left)]
    assert refused(judge(wanted, dns=live, policy=policy)) == verdict
    assert judge(wanted, dns=live, policy=replace(policy, allow_deletes=4)) == ()


def test_the_last_record_of_a_zone_needs_a_word():
    other = record("other.how", "A", "a", "192.0.2.1")
    live = ours(host("a"), other)
    assert refused(judge([other], dns=live)) == ["dns/mana.how"]
    assert judge([other], dns=live, policy=guards.Policy(allow_deletes=1)) == ()


def test_a_domain_with_accounts_stays():
    mail = [Domain(ZONE), Account("a@mana.how", email="a@mana.how")]
    assert refused(judge([Domain("x.how")], mail=mail, removed=frozenset({"domain/mana.how"}))) == ["stalwart"]
    both = frozenset({"domain/mana.how", "account/a@mana.how"})
    assert refused(judge([Domain("x.how")], mail=mail, removed=both)) == []


def test_an_alias_in_another_account_keeps_its_domain():
    mail = [Domain(ZONE), Account("a@x.how", aliases=("info@mana.how",))]
    assert refused(judge([Domain("x.how")], mail=mail, removed=frozenset({"domain/mana.how"}))) == ["stalwart"]


def test_removing_an_account_is_said_loudly_and_refused_while_it_is_in_use():
    gone = frozenset({"account/a@mana.how"})
    (problem,) = judge([Domain(ZONE)], mail=[Account("a@mana.how")], removed=gone)
    assert problem.severity is Severity.WARNING
    assert "every mail in it" in problem.summary
    login = Login("stalwart", 587, "a", SECRET, verify_tls=False, account="a@mana.how")
    consumer = Variable("notify", "SMTP_USER", "a", "a", login)
    assert refused(judge([consumer], mail=[Account("a@mana.how")], removed=gone)) == ["stalwart"]
    policy = guards.Policy(administrator="admin")
    own = frozenset({"account/admin"})
    assert refused(judge([Domain(ZONE)], mail=[Account("admin", login="admin")], removed=own, policy=policy))


@pytest.mark.parametrize(("name", "text"), [("@", "v=spf1 -all"), ("_dmarc", "v=DMARC1; p=none")])
def test_a_second_policy_record_is_refused(name, text):
    first, second = record(ZONE, "TXT", name, text), record(ZONE, "TXT", name, text.replace("1", "1 ", 1) + " x")
    assert refused(judge([first, second], dns=[])) == ["dns/mana.how"]
    assert judge([first], dns=[]) == ()


def test_two_policies_that_were_there_before_only_warn():
    live = [Live(record(ZONE, "TXT", "@", f"v=spf1 {way}all"), way) for way in "-~"]
    (problem,) = judge([host("a")], dns=live)
    assert problem.severity is Severity.WARNING


def test_an_exchange_must_not_be_proxied_or_an_alias():
    mx = record(ZONE, "MX", "@", "mail.mana.how", priority=10)
    assert judge([mx, host("mail")], dns=[]) == ()
    assert refused(judge([mx, host("mail", proxied=True)], dns=[])) == ["dns/mana.how"]
    assert refused(judge([mx, record(ZONE, "CNAME", "mail", "host.example")], dns=[])) == ["dns/mana.how"]
    assert refused(judge([mx], dns=[Live(host("mail", proxied=True))])) == ["dns/mana.how"]


def test_a_selector_that_still_signs_keeps_its_record():
    published = ours(dkim_record(ZONE, ZONE, "s1", "ed25519", KEY), host("a"), host("b"))
    signing = Signature(ZONE, "s1", "ed25519", KEY)
    rest = [host("a"), host("b")]
    assert refused(judge(rest, dns=published, mail=[signing])) == ["dns/mana.how"]
    assert judge(rest, dns=published, mail=[replace(signing, signs=False)]) == ()
    assert judge(rest, dns=published, mail=[signing], removed=frozenset({"dkim/mana.how/s1"})) == ()


def test_whether_it_signs_must_be_known_before_a_selector_goes():
    published = ours(dkim_record(ZONE, ZONE, "s1", "ed25519", KEY), host("a"), host("b"))
    assert refused(judge([host("a"), host("b")], dns=published)) == ["dns/mana.how"]


def test_a_key_takes_over_only_when_its_record_is_published():
    new = dkim_record(ZONE, ZONE, "s2", "ed25519", OTHER)
    old = Signature(ZONE, "s1", "ed25519", KEY)
    wanted = [Signature(ZONE, "s2", "ed25519", OTHER), new]
    assert refused(judge(wanted, dns=[], mail=[old])) == ["stalwart"]
    assert judge(wanted, dns=ours(new), mail=[old]) == ()


def test_a_first_key_and_a_restored_one_only_warn():
    wanted = [Signature(ZONE, "s1", "ed25519", KEY), dkim_record(ZONE, ZONE, "s1", "ed25519", KEY)]
    for problems in (judge(wanted, dns=[], mail=[]), judge(wanted, dns=[], mail=[], lost=True)):
        assert [item.severity for item in problems] == [Severity.WARNING]


def test_an_administrator_is_no_consumer():
    login = Login("stalwart", 587, "admin", SECRET, verify_tls=False, account="boss@mana.how")
    wanted = [Account("boss@mana.how", roles=("admin",)), Variable("notify", "SMTP_USER", "admin", "admin", login)]
    assert refused(judge(wanted, mail=[])) == ["smtp/notify"]


def test_a_secret_that_everybody_knows_is_refused():
    wanted = [Account("a@mana.how", password=SECRET)]
    assert refused(judge(wanted, mail=[], public=frozenset({SECRET}))) == ["stalwart"]
    assert judge(wanted, mail=[]) == ()


def test_allowing_everyone_is_warned_about():
    (problem,) = judge([AllowedIp("0.0.0.0/0")], mail=[])
    assert problem.severity is Severity.WARNING


# ------------------------------------------------------------------------------------------------- addresses, logins
def mailbox(name, *aliases, **more):
    return Account(
        f"{name}@{ZONE}", name, f"{name}@{ZONE}", aliases=tuple(f"{item}@{ZONE}" for item in aliases), **more
    )


def judge_accounts(wanted, live, **more):
    observation = Observation("stalwart", [Live(item, str(item.login)) for item in live])
    desired = Desired(wanted, **more)
    plan = diff(desired, {"stalwart": observation}, stack="mana", head=head)
    return guards.check(guards.Evidence(plan, desired, {"stalwart": observation}, guards.Policy()))


def test_an_address_of_another_account_is_taken_only_when_it_is_given_up():
    assert refused(judge_accounts([mailbox("a", "info")], [mailbox("a"), mailbox("b", "info")])) == ["stalwart"]
    assert judge_accounts([mailbox("a", "info"), mailbox("b")], [mailbox("a"), mailbox("b", "info")]) == ()
    (problem,) = judge_accounts([mailbox("info")], [mailbox("b", "info")])
    assert problem.severity is Severity.REFUSED
    moved = {f"account/b@{ZONE}": f"account/c@{ZONE}"}
    assert judge_accounts([mailbox("c"), mailbox("b2", "b")], [mailbox("b")], moved=moved) == ()


def test_an_address_of_an_account_that_goes_is_free_in_the_next_run():
    gone = frozenset({f"account/b@{ZONE}"})
    problems = judge_accounts([mailbox("a", "info")], [mailbox("b", "info")], removed=gone)
    (problem,) = [item for item in problems if item.severity is Severity.REFUSED]
    assert f"--only account/b@{ZONE}" in problem.hint


@pytest.mark.parametrize(
    ("host", "verdict"), [("stalwart", "stalwart"), ("mail.mana.how", "stalwart"), ("a.brevo.com", "")]
)
def test_an_account_is_in_use_by_its_name_or_alias_at_our_own_server(host, verdict):
    login = Login(host, 587, f"Info@{ZONE}", SECRET, verify_tls=True)
    wanted = [Domain(ZONE), Variable("notify", "SMTP_USER", "x", "x", login)]
    gone = frozenset({f"account/b@{ZONE}"})
    problems = judge(wanted, mail=[Domain(ZONE), mailbox("b", "info")], removed=gone)
    assert refused(problems) == ([verdict] if verdict else [])


def test_an_administrator_is_no_consumer_by_name_either():
    login = Login("stalwart", 587, "admin", SECRET, verify_tls=False)
    wanted = [
        Account("admin", "admin", None, roles=("admin",)),
        Variable("notify", "SMTP_USER", "admin", "admin", login),
    ]
    assert refused(judge(wanted, mail=[])) == ["smtp/notify"]
    away = replace(login, host="smtp.brevo.com")
    assert judge([wanted[0], replace(wanted[1], login=away)], mail=[]) == ()


def test_a_key_does_not_take_over_while_its_record_was_not_looked_at():
    new = dkim_record(ZONE, ZONE, "s2", "ed25519", OTHER)
    wanted = [Signature(ZONE, "s2", "ed25519", OTHER), new]
    assert refused(judge(wanted, mail=[Signature(ZONE, "s1", "ed25519", KEY)])) == ["stalwart"]
    assert [item.severity for item in judge(wanted, mail=[])] == [Severity.WARNING]


def test_a_secret_of_a_setting_may_be_known_as_well():
    wanted = [Setting("settings/queue.route.relay.auth.secret", SECRET)]
    assert refused(judge(wanted, mail=[], public=frozenset({SECRET}))) == ["stalwart"]
