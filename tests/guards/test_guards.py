"""Every reason to refuse, each on the smallest plan that gives it, and its opposite."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

import pytest

from reconciler import guards
from reconciler.dns.publication import Answer, question
from reconciler.dns.records import dkim_record, record
from reconciler.guards.evidence import Evidence, Policy
from reconciler.plan import Desired, diff
from reconciler.problem import Problem, Severity
from reconciler.resources import (
    UNKNOWN,
    UNMANAGED,
    Account,
    AllowedIp,
    Different,
    Domain,
    Group,
    Live,
    Login,
    MailingList,
    Observation,
    SecretPart,
    SecretRef,
    SecretText,
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
    plan = diff(desired, observations, stack="mana")
    evidence = Evidence(plan, desired, observations, policy or Policy(), public)
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
    assert judge(wanted, dns=live, policy=Policy(allow_deletes=4)) == ()
    assert refused(judge(wanted, dns=live, policy=Policy(allow_deletes=2)))


def test_removed_does_not_count_as_a_deletion():
    mail = [Domain(f"d{i}.how") for i in range(5)]
    names = frozenset(f"domain/d{i}.how" for i in range(5))
    assert judge([Domain(ZONE)], mail=[*mail, Domain(ZONE)], removed=names, policy=Policy(max_deletes=0)) == ()


@pytest.mark.parametrize(("left", "verdict"), [(3, []), (1, ["dns/mana.how"])])
def test_more_than_half_of_a_zone_is_refused_within_max_deletes(left, verdict):
    live = ours(*(host(f"h{i}", i) for i in range(4)))
    policy = Policy(max_deletes=10)
    wanted = [host(f"h{i}", i) for i in range(left)]
    assert refused(judge(wanted, dns=live, policy=policy)) == verdict
    assert judge(wanted, dns=live, policy=replace(policy, allow_deletes=4)) == ()


def test_the_last_record_of_a_zone_needs_a_word():
    other = record("other.how", "A", "a", "192.0.2.1")
    live = ours(host("a"), other)
    assert refused(judge([other], dns=live)) == ["dns/mana.how"]
    assert judge([other], dns=live, policy=Policy(allow_deletes=1)) == ()


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
    policy = Policy(administrator="admin")
    own = frozenset({"account/admin"})
    assert refused(judge([Domain(ZONE)], mail=[Account("admin", login="admin")], removed=own, policy=policy))


POLICIES = [
    ("@", "v=spf1 -all"),
    ("_dmarc", "v=DMARC1; p=none"),
    ("_smtp._tls", "v=TLSRPTv1; rua=mailto:a@mana.how"),
    ("_mta-sts", "v=STSv1; id=1"),
    ("default._bimi", "v=BIMI1; l="),
]


@pytest.mark.parametrize(("name", "text"), POLICIES)
def test_a_second_policy_record_is_refused(name, text):
    first, second = record(ZONE, "TXT", name, text), record(ZONE, "TXT", name, text.replace("1", "1 ", 1) + " x")
    assert refused(judge([first, second], dns=[])) == ["dns/mana.how"]
    assert judge([first], dns=[]) == ()


def test_a_policy_that_receivers_cannot_read_warns_and_stops_nothing():
    (problem,) = judge([record(ZONE, "TXT", "@", "v=spf1 ip4:192.0.2.300 -all")], dns=[])
    assert (problem.where, problem.severity) == ("dns/mana.how/TXT/@", Severity.WARNING)
    assert "ip4:192.0.2.300 is no IPv4 address" in problem.summary
    alias = record(ZONE, "CNAME", "_dmarc", "policy.mana.how")
    assert judge([alias, record(ZONE, "TXT", "policy", "v=DMARC1; p=none")], dns=[]) == ()


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
    both = judge(rest, dns=published, mail=[signing], removed=frozenset({"dkim/mana.how/s1"}))
    assert [item.severity for item in both] == [Severity.WARNING]  # mail that it signed may still wait


def test_a_record_of_the_same_key_may_be_put_right_while_it_signs():
    wanted = dkim_record(ZONE, ZONE, "s1", "ed25519", KEY)
    published = ours(replace(wanted, content=str(wanted.content).replace("h=sha256", "h=sha256; t=y")))
    assert refused(judge([wanted], dns=published, mail=[Signature(ZONE, "s1", "ed25519", KEY)])) == []


def test_whether_it_signs_must_be_known_before_a_selector_goes():
    published = ours(dkim_record(ZONE, ZONE, "s1", "ed25519", KEY), host("a"), host("b"))
    assert refused(judge([host("a"), host("b")], dns=published)) == ["dns/mana.how"]


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
    observation = Observation("stalwart", [Live(item, str(getattr(item, "login", item.name))) for item in live])
    desired = Desired(wanted, **more)
    plan = diff(desired, {"stalwart": observation}, stack="mana")
    return guards.check(Evidence(plan, desired, {"stalwart": observation}, Policy()))


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


def test_addresses_are_one_space_over_accounts_groups_and_lists():
    staff, news = Group(f"staff@{ZONE}", aliases=(f"team@{ZONE}",)), MailingList(f"news@{ZONE}", aliases=())
    (problem,) = judge_accounts([mailbox("a", "team")], [staff])
    assert (problem.severity, problem.where) == (Severity.REFUSED, f"account/a@{ZONE}")
    assert f"team@{ZONE} is an address of group/staff@{ZONE}" in problem.summary
    assert judge_accounts([mailbox("a", "team"), replace(staff, aliases=())], [staff]) == ()
    kept = judge_accounts([mailbox("a", "team"), replace(staff, aliases=UNMANAGED, description="x")], [staff])
    assert refused(kept) == ["stalwart"]
    assert refused(judge_accounts([replace(staff, aliases=(news.name,))], [news])) == ["stalwart"]
    assert refused(judge_accounts([news], [mailbox("b", "news")])) == ["stalwart"]
    assert judge_accounts([news], [replace(news, aliases=(f"n@{ZONE}",))]) == ()
    gone = frozenset({news.address})
    (problem,) = judge_accounts([mailbox("news")], [news], removed=gone)
    assert f"--only list/news@{ZONE}" in problem.hint


def test_a_name_is_one_domain_s_own_or_an_alias():
    one, other = Domain(ZONE, aliases=("mana.net",)), Domain("mana.dev")
    assert refused(judge_accounts([Domain("mana.net")], [one])) == ["stalwart"]
    assert judge_accounts([Domain("mana.net"), replace(one, aliases=())], [one]) == ()
    assert refused(judge_accounts([replace(one, aliases=(other.name,))], [one, other])) == ["stalwart"]
    assert judge_accounts([replace(one, description="x")], [one, other]) == ()


def test_a_group_goes_with_its_mailbox_and_only_when_nobody_is_in_it():
    staff = Group(f"staff@{ZONE}")
    member = Account(f"a@{ZONE}", email=f"a@{ZONE}", groups=(staff.name,))
    gone = frozenset({staff.address})
    (problem,) = judge([Domain(ZONE)], mail=[staff, Domain(ZONE)], removed=gone)
    assert problem.severity is Severity.WARNING
    assert "every mail in it" in problem.summary
    assert refused(judge([Domain(ZONE)], mail=[staff, member], removed=gone)) == ["stalwart"]
    (problem, _) = judge([Domain(ZONE)], mail=[staff, member], removed=gone)
    assert f"account/a@{ZONE} still belongs to it" in problem.summary
    assert refused(judge([replace(member, groups=UNMANAGED)], mail=[staff, member], removed=gone)) == ["stalwart"]
    assert refused(judge([replace(member, groups=())], mail=[staff, member], removed=gone)) == []
    assert refused(judge([Domain(ZONE)], mail=[staff, member], removed=gone | {member.address})) == []
    assert judge([Domain(ZONE)], mail=[MailingList(f"l@{ZONE}")], removed=frozenset({f"list/l@{ZONE}"})) == ()


@pytest.mark.parametrize("owner", [Group(f"a@{ZONE}"), MailingList("l@x.how", aliases=(f"l@{ZONE}",))])
def test_a_domain_of_a_group_or_a_list_stays(owner):
    gone = frozenset({f"domain/{ZONE}"})
    (problem,) = judge([Domain("x.how")], mail=[Domain(ZONE), owner], removed=gone)
    assert problem.severity is Severity.REFUSED
    assert owner.address in problem.hint
    elsewhere = MailingList("l@x.how", members=(f"a@{ZONE}",))
    assert judge([Domain("x.how")], mail=[Domain(ZONE), elsewhere], removed=gone) == ()


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


def test_a_secret_of_a_setting_may_be_known_as_well():
    wanted = [Setting("settings/queue.route.relay.auth.secret", SECRET)]
    assert refused(judge(wanted, mail=[], public=frozenset({SECRET}))) == ["stalwart"]


ALIAS = record(ZONE, "CNAME", "brevo1._domainkey", "b1.mana-how.dkim.brevo.com")
CODE = record(ZONE, "TXT", "@", "brevo-code:0a1b")
RELAY = "smtp-relay.brevo.com"


def judge_switch(before, shown=(), *, provided=(ALIAS, CODE), port="587"):
    """Judge a consumer that gets Brevo's host, port and password; ``shown`` has what each name server shows."""
    login = Login(RELAY, 587, "me", SECRET, verify_tls=True, provider="brevo")
    wanted = {"HOST": RELAY, "PORT": "587", "URL": SecretText((f"smtp://{RELAY}/", SecretPart(SECRET)))}
    running = {"HOST": before, "PORT": port, "URL": None if before is None else Different()}
    names = ("HOST", "PORT") if isinstance(before, str) else ("URL",)
    desired = Desired(
        [Variable("notify", name, wanted[name], wanted[name], login) for name in names],
        provided={"brevo": provided} if provided is not None else {},
    )
    live = [Live(Variable("notify", name, running[name], running[name])) for name in names]
    observations = {"compose": Observation("compose", live)}
    plan = diff(desired, observations, stack="mana")
    evidence = Evidence(plan, desired, observations, Policy())
    values = {question(ALIAS): [ALIAS.content], question(CODE): [CODE.content, "v=spf1 -all"]}
    answers = {
        asked: tuple(Answer(f"ns{i}", tuple(values[asked]) if asked in show else ()) for i, show in enumerate(shown))
        for asked in guards.questions(evidence)
    }
    return guards.check(replace(evidence, answers=answers))


BOTH = {question(ALIAS), question(CODE)}


@pytest.mark.parametrize("before", ["stalwart", None])
def test_a_switch_to_a_provider_warns_once_while_a_name_server_lags(before):
    (problem,) = judge_switch(before, [BOTH, set()])
    assert problem.severity is Severity.WARNING
    assert problem.where == "smtp/notify"
    assert "brevo1._domainkey.mana.how (CNAME), mana.how (TXT)" in problem.summary
    assert "ns1 does not show it yet" in problem.summary
    assert "`standby: true` at smtp.providers.brevo" in problem.hint
    assert judge_switch(before, [BOTH, BOTH]) == ()


def test_another_password_or_port_of_the_same_provider_is_no_switch():
    assert judge_switch(RELAY, [set(), set()], port="465") == ()


def test_a_provider_without_known_records_warns_and_one_that_needs_none_does_not():
    (problem,) = judge_switch("stalwart", provided=())
    assert problem.severity is Severity.WARNING
    assert "not known" in problem.summary
    assert "api_key" in problem.hint
    assert judge_switch("stalwart", provided=None) == ()


# ---------------------------------------------------------------------------------------------------------- rotation
TODAY = dt.date(2026, 11, 22)
SPKI = (  # RFC 6376, appendix C
    "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDwIRP/UC3SBsEmGqZ9ZJW3/DkMoGeLnQg1fWn7/zYtIxN2SnFCjxOCKG9v3b4jYfcTNh5ijSsq"
    "631uBItLa7od+v/RtdC2UzJ1lWT947qR+Rcac2gbto/NMqJ0fzfVjH4OuKhitdY9tf6mcwGjaNBcWToIMmPSPDdQPNUYckcQ2QIDAQAB"
)
OLD_RECORD = dkim_record(ZONE, ZONE, "s1", "ed25519", KEY)
NEW_RECORD = dkim_record(ZONE, ZONE, "s2", "ed25519", OTHER)
OLD = Signature(ZONE, "s1", "ed25519", KEY)
NEW = Signature(ZONE, "s2", "ed25519", OTHER, since=TODAY)
RETIRE = frozenset({OLD.address})
RETIRED = frozenset({OLD.address, OLD_RECORD.address})


def rotate(wanted, *, dns=(), mail=(), said=(), days=0, allow=None, lost=False, unread=frozenset(), **more):
    """Judge a plan of Cloudflare and Stalwart, with what the name servers say about every question; name those too."""
    observations = {
        "cloudflare": Observation("cloudflare", ours(*dns)),
        "stalwart": Observation("stalwart", [Live(item, item.selector) for item in mail], lost=lost, unread=unread),
    }
    desired = Desired(wanted, **more)
    plan = diff(desired, observations, stack="mana")
    policy = Policy(allow_deletes=allow)
    evidence = Evidence(plan, desired, observations, policy, today=TODAY + dt.timedelta(days=days))
    asked = guards.questions(evidence)
    return guards.check(replace(evidence, answers={item: tuple(said) for item in asked})), asked


def test_a_key_takes_over_only_when_every_name_server_shows_its_record():
    taking = {"dns": [NEW_RECORD, OLD_RECORD], "mail": [OLD], "removed": RETIRE}
    wanted = [NEW, NEW_RECORD, OLD_RECORD]
    here = Answer("ns1", (NEW_RECORD.content,))
    problems, asked = rotate(wanted, said=[here, replace(here, server="ns2")], **taking)
    assert problems == ()
    assert [item.host for item in asked] == ["s2._domainkey.mana.how"]
    for other in (
        Answer("ns2"),
        Answer("ns2", unread="no answer in time"),
        Answer("ns2", (OLD_RECORD.content,)),
        Answer("ns2", (NEW_RECORD.content, OLD_RECORD.content)),
        Answer("ns2", ("v=DKIM1; k=ed25519; p=",)),
        Answer("ns2", (f"v=DKIM1; k=ed25519; t=y; p={OTHER}",)),
    ):
        (problem,) = rotate(wanted, said=[here, other], **taking)[0]
        assert (problem.severity, problem.scope) == (Severity.REFUSED, "dkim/mana.how")
        assert "ns2" in problem.summary
        assert "run it again later" in problem.hint
    assert refused(rotate(wanted, said=(), **taking)[0])


def test_a_key_that_nobody_shows_has_to_be_published_first():
    problems, _ = rotate([NEW, NEW_RECORD], mail=[OLD], said=[Answer("ns1")])
    assert "`stage: pending`, apply" in problems[0].hint
    unknown = replace(NEW, public_key=UNKNOWN)
    problems, _ = rotate([unknown, dkim_record(ZONE, ZONE, "s2", "ed25519", UNKNOWN)], mail=[OLD], said=[Answer("ns1")])
    assert "dkim generate" in problems[0].hint
    problems, _ = rotate([NEW], mail=[OLD], said=[Answer("ns1")])  # its zone is somebody else's
    assert refused(problems) == ["dkim/mana.how"]


def test_a_take_over_long_after_the_day_in_the_directory_is_told():
    taking = {"dns": [NEW_RECORD], "mail": [OLD], "removed": RETIRE, "said": [Answer("ns1", (NEW_RECORD.content,))]}
    assert rotate([NEW, NEW_RECORD], **taking, days=1)[0] == ()
    (problem,) = rotate([NEW, NEW_RECORD], **taking, days=4)[0]
    assert problem.severity is Severity.WARNING
    assert "write `since: 2026-11-26`" in problem.hint
    (problem,) = rotate([replace(NEW, since=None), NEW_RECORD], **taking)[0]
    assert problem.severity is Severity.WARNING


@pytest.mark.parametrize(
    "live",
    [
        [],  # the domain's first key
        [Signature(ZONE, "r1", "rsa", SPKI)],
        [Signature("other.how", "s1", "ed25519", KEY)],
        [replace(OLD, signs=False)],
    ],
)
def test_where_nobody_else_of_its_algorithm_signs_no_name_server_is_asked(live):
    problems, asked = rotate([NEW, NEW_RECORD], mail=live)
    assert [item.severity for item in problems] == [Severity.WARNING]
    assert asked == frozenset()


def test_a_restore_waits_for_no_name_server():
    problems, asked = rotate([NEW, NEW_RECORD], mail=[OLD], lost=True)
    assert refused(problems) == []
    assert asked == frozenset()


@pytest.mark.parametrize(
    "live",
    [
        replace(OLD, signs=UNMANAGED),  # the server's rule is not the default: it may sign
        replace(OLD, signs=False, in_force=False),  # stored, and the server may still go by what was before
        Signature(ZONE, "s1", "", UNMANAGED, UNMANAGED),  # its removal was never put in force
        replace(NEW, public_key=KEY),  # the same selector
        replace(OLD, domain="Mana.HOW"),
    ],
)
def test_a_key_that_may_sign_is_taken_over_from(live):
    problems, _ = rotate([NEW, NEW_RECORD], dns=[NEW_RECORD], mail=[live], said=[Answer("ns1")])
    assert "dkim/mana.how" in refused(problems)


def test_a_key_that_was_moved_aside_takes_over_again_only_when_it_is_published():
    wanted = [replace(OLD, since=TODAY), OLD_RECORD]
    mail = [replace(OLD, signs=False), NEW]
    said = [Answer("ns1", (OLD_RECORD.content,))]
    assert rotate(wanted, dns=[OLD_RECORD], mail=mail, said=said)[0] == ()
    assert refused(rotate(wanted, dns=[], mail=mail, said=[Answer("ns1")])[0])


def test_international_domains_are_one_however_a_server_writes_them():
    new = Signature("xn--mller-kva.de", "s2", "ed25519", OTHER)
    old = Signature("müller.de", "s1", "ed25519", KEY)
    problems, asked = rotate([new], mail=[old], said=[Answer("ns1")])
    assert refused(problems) == ["dkim/xn--mller-kva.de"]
    assert [item.host for item in asked] == ["s2._domainkey.xn--mller-kva.de"]


# What is there one day after another: the new key signs, the old one's record is to go.
AFTER = {"dns": [NEW_RECORD, OLD_RECORD], "mail": [NEW], "removed": RETIRED}


def test_the_record_of_a_key_that_was_taken_over_from_stays_a_week():
    said = [Answer("ns1", (NEW_RECORD.content,))]
    for days in range(8):
        problems, _ = rotate([NEW, NEW_RECORD], said=said, days=days, **AFTER)
        assert refused(problems) == ["dns/mana.how"]
        assert "2026-11-30" in problems[0].summary
    assert rotate([NEW, NEW_RECORD], said=said, days=8, **AFTER)[0] == ()
    assert rotate([NEW, NEW_RECORD], said=said, days=1, allow=1, **AFTER)[0] == ()
    problems, _ = rotate([replace(NEW, since=None), NEW_RECORD], said=said, days=90, **AFTER)
    assert "write `since`" in problems[0].hint


@pytest.mark.parametrize("said", [Answer("ns1"), Answer("ns1", unread="it fails"), Answer("ns1", (OTHER,))])
def test_the_record_stays_until_every_name_server_shows_the_heir(said):
    both = [Answer("ns0", (NEW_RECORD.content,)), said]
    (problem,) = rotate([NEW, NEW_RECORD], said=both, days=30, **AFTER)[0]
    assert (problem.severity, problem.scope) == (Severity.REFUSED, "dns/mana.how")
    assert rotate([NEW, NEW_RECORD], said=both, days=30, allow=1, **AFTER)[0] == ()


@pytest.mark.parametrize("mail", [[], [replace(NEW, signs=False)], [replace(NEW, in_force=False)]])
def test_the_record_stays_until_the_heir_signs(mail):
    problems, _ = rotate(
        [NEW, NEW_RECORD], said=[Answer("ns1", (NEW_RECORD.content,))], days=30, **AFTER | {"mail": mail}
    )
    assert (
        "until the server signs with s2" in next(item for item in problems if item.severity is Severity.REFUSED).summary
    )


def test_a_key_does_not_go_in_the_plan_that_takes_over_from_it():
    """The directory's days may be long over when it is applied at last: the key signed until now."""
    said = [Answer("ns1", (NEW_RECORD.content,))]
    problems, _ = rotate([NEW, NEW_RECORD], said=said, days=30, **AFTER | {"mail": [OLD]})
    assert refused(problems) == ["dns/mana.how"]
    emergency, _ = rotate([NEW, NEW_RECORD], said=said, allow=1, **AFTER | {"mail": [OLD]})
    assert refused(emergency) == []


def test_no_word_removes_the_record_of_a_key_that_signs():
    said = [Answer("ns1", (NEW_RECORD.content,))]
    kept = AFTER | {"mail": [OLD, NEW], "removed": frozenset({OLD_RECORD.address})}
    for live in (kept["mail"], [replace(OLD, signs=UNMANAGED), NEW], [replace(OLD, signs=False, in_force=False), NEW]):
        problems, _ = rotate([NEW, NEW_RECORD], said=said, days=30, allow=9, **kept | {"mail": live})
        assert "still signs" in problems[0].summary
    unread, _ = rotate([NEW, NEW_RECORD], said=said, days=30, allow=9, **AFTER, unread=frozenset({"stalwart"}))
    assert "can't be told" in unread[0].summary


def test_an_old_rsa_record_that_names_no_algorithm_is_kept_all_the_same():
    old = record(ZONE, "TXT", "r1._domainkey", f"p={SPKI}")
    new = Signature(ZONE, "r2", "rsa", SPKI, since=TODAY)
    problems, _ = rotate([new], dns=[old], mail=[new], said=[Answer("ns1", (f"p={SPKI}",))], days=3)
    assert refused(problems)[0] == "dns/mana.how"


@pytest.mark.parametrize("content", ["v=DKIM1; k=ed25519; p=", "no key at all", "v=DKIM1; k=rsa; p=" + SPKI])
def test_what_verifies_no_mail_of_that_algorithm_may_go(content):
    old = record(ZONE, "TXT", "s1._domainkey", content)
    problems, _ = rotate([NEW, NEW_RECORD], days=1, **AFTER | {"dns": [NEW_RECORD, old, host("a")]}, said=[])
    assert refused(problems) == []


def test_a_record_that_fits_its_key_is_not_overwritten_while_the_key_signs():
    wanted = dkim_record(ZONE, ZONE, "s1", "ed25519", OTHER)
    problems, _ = rotate([wanted], dns=[OLD_RECORD], mail=[OLD])
    assert refused(problems) == ["dns/mana.how"]
    assert rotate([wanted], dns=[OLD_RECORD], mail=[replace(OLD, signs=False)])[0] == ()
    assert rotate([wanted], dns=[OLD_RECORD], mail=[replace(OLD, public_key=OTHER)])[0] == ()  # it mends
    alias = record(ZONE, "CNAME", "s1._domainkey", "elsewhere.example")
    assert refused(rotate([alias], dns=[OLD_RECORD], mail=[OLD])[0]) == ["dns/mana.how"]


def test_a_key_goes_on_signing_while_its_heir_can_not_be_planned():
    unusable = Problem(NEW.address, "private_key can't be read", scope=NEW.address)
    desired = Desired([NEW, NEW_RECORD, OLD_RECORD], removed=RETIRE, problems=(unusable,))
    seen = {"stalwart": Observation("stalwart", [Live(OLD, "s1")])}
    assert diff(desired, seen, stack="mana").changes == ()
    taken = diff(replace(desired, problems=()), seen, stack="mana").changes
    assert [(item.address, sorted(item.needs)) for item in taken] == [(NEW.address, []), (OLD.address, [NEW.address])]


def test_a_record_goes_after_its_key_and_the_key_after_its_heir():
    observations = {
        "cloudflare": Observation("cloudflare", ours(NEW_RECORD, OLD_RECORD)),
        "stalwart": Observation("stalwart", [Live(OLD, "s1")]),
    }
    plan = diff(Desired([NEW, NEW_RECORD], removed=RETIRED), observations, stack="mana")
    assert [(item.address, sorted(item.needs)) for item in plan.changes] == [
        (NEW.address, []),
        (OLD.address, [NEW.address]),
        (OLD_RECORD.address, [OLD.address]),
    ]


def test_d5_a_wildcard_behind_the_proxy_takes_no_mail_and_serves_no_srv():
    exchange = record(ZONE, "MX", "@", "in.mana.how", priority=1)
    service = record(ZONE, "SRV", "_imaps._tcp", "0 1 993 in.mana.how")
    star = host("*", proxied=True)
    assert refused(judge([exchange, star], dns=[])) == ["dns/mana.how"]
    assert refused(judge([exchange, star, host("in")], dns=[])) == []
    assert refused(judge([exchange, star, record(ZONE, "TXT", "a.in", "x")], dns=[])) == []  # the name exists
    (problem,) = judge([service, star], dns=[])
    assert (problem.where, problem.severity) == ("dns/mana.how/SRV/_imaps._tcp", Severity.WARNING)
    assert judge([service, star, host("in")], dns=[]) == ()


def test_d7_the_zones_own_alias_is_flattened_and_may_be_an_exchange():
    apex = record(ZONE, "CNAME", "@", "host.example")
    assert judge([apex, record(ZONE, "MX", "@", ZONE, priority=1)], dns=[]) == ()


def test_d8_an_exchange_whose_host_has_no_address_declared_or_live_is_warned_of():
    exchange = record(ZONE, "MX", "@", "in.mana.how", priority=1)
    service = record(ZONE, "SRV", "_imaps._tcp", "0 1 993 in.mana.how")
    found = judge([exchange, service], dns=[])
    assert [(item.where, item.severity) for item in found] == [
        ("dns/mana.how/MX/@", Severity.WARNING),
        ("dns/mana.how/SRV/_imaps._tcp", Severity.WARNING),
    ]
    assert judge([exchange, service], dns=[Live(host("in"), "1")]) == ()  # somebody else keeps it
    assert judge([exchange, host("in")], dns=[]) == ()
    assert judge([replace(exchange, content="mx.example.net")], dns=[]) == ()


def test_d3_a_ds_needs_the_delegation_that_it_signs_declared_or_live():
    signer = record(ZONE, "DS", "sub", f"1 13 2 {'ab' * 32}")
    delegation = record(ZONE, "NS", "sub", "ns1.example")
    assert refused(judge([signer, host("a")], dns=ours(host("a")))) == ["dns/mana.how"]
    assert judge([signer, delegation], dns=[]) == ()
    assert judge([signer], dns=[Live(delegation, "1")]) == ()
    # Somebody else's DS keeps its NS: Cloudflare takes none away from under it.
    others = [*ours(host("a"), host("b"), delegation), Live(signer, "9")]
    assert refused(judge([host("a"), host("b")], dns=others)) == ["dns/mana.how"]
