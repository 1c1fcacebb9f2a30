"""Groups, lists and what domains say of themselves on 0.16, against the fake over real HTTP."""

import pytest

from reconciler.reconcile import Status
from reconciler.resources import Account, Domain, Group, MailingList, SecretRef
from reconciler.simulator.wire import Fault

STAFF, NEWS = "staff@mana.how", "news@mana.how"
REMOVED = frozenset({f"group/{STAFF}", f"list/{NEWS}"})


def user(name, **more):
    return Account(name, email=name, **({"roles": ("user",), "password": SecretRef("env", "NOREPLY")} | more))


def done(newer, wanted, **more):
    """Apply, and see that all of it is done and a second plan has nothing left."""
    outcomes = newer.apply(wanted, **more)
    assert [(name, item.problem) for name, item in outcomes.items() if item.status is not Status.DONE] == []
    again = newer.plan(wanted, **more)
    assert (again.pending, again.errors) == ((), ())
    return outcomes


@pytest.fixture
def wanted():
    """Two domains, a shared mailbox with two people in it, and a list."""
    return [
        Domain("mana.how", description="Ours", catch_all="till@mana.how", aliases=("mana.io",), sub_addressing=True),
        Domain("mana.dev", sub_addressing=False),
        Group(STAFF, "Staff", ("team@mana.how", "staff@mana.dev")),
        user("till@mana.how", groups=(STAFF,)),
        user("jan@mana.dev", groups=(STAFF,)),
        MailingList(NEWS, "News", ("letter@mana.dev",), ("till@mana.how", "a@gmail.com", STAFF)),
    ]


def test_one_request_makes_all_of_it_on_an_empty_server(newer, wanted):
    plan = newer.plan(wanted)
    newer.requests()
    outcomes = list(newer.target.apply(plan.changes, newer.reveal))
    assert {item.status for item in outcomes} == {Status.DONE}
    assert len([calls for calls in newer.requests() if calls[0][0].endswith("/set")]) == 1
    assert newer.plan(wanted).pending == ()
    who = newer.fake.mailboxes
    assert who("team@mana.how") == who("staff@mana.io") == {STAFF}
    assert who("letter@mana.dev") == {"till@mana.how", "a@gmail.com", STAFF}
    assert who("nobody@mana.io") == {"till@mana.how"}
    assert (who("till+x@mana.how"), who("jan+x@mana.dev")) == ({"till@mana.how"}, set())


def test_they_come_back_after_a_loss(newer, wanted):
    done(newer, wanted)
    newer.fake.wipe_data()
    assert newer.plan(wanted).lost == {"stalwart"}
    done(newer, wanted)
    assert newer.fake.mailboxes("letter@mana.dev") == {"till@mana.how", "a@gmail.com", STAFF}


@pytest.mark.parametrize(
    "after",
    [
        Group(STAFF, None, ("team@mana.how",)),
        Group(STAFF, "All", ("crew@mana.how", "staff@mana.dev")),
        Group(STAFF, "Staff", ()),
        MailingList(NEWS, None, ("letter@mana.dev",), ("b@gmail.com",)),
        MailingList(NEWS, "News", (), ()),
        Domain("mana.how", description=None, catch_all=None, aliases=(), sub_addressing=False),
        Domain("mana.how", description="B", catch_all="a@b.org", aliases=("mana.net", "mana.io"), sub_addressing=True),
        user("till@mana.how", groups=()),
    ],
)
def test_what_differs_is_mended_and_nothing_else(newer, wanted, after):
    done(newer, wanted)
    now = [after if item.address == after.address else item for item in wanted]
    assert [change.address for change in newer.plan(now).changes] == [after.address]
    done(newer, now)
    assert [change.address for change in newer.plan(wanted).changes] == [after.address]
    done(newer, wanted)


def test_a_group_is_named_by_its_local_part_too(newer, wanted):
    done(newer, [user("jan@mana.dev", groups=("staff",)) if item.name == "jan@mana.dev" else item for item in wanted])


def test_what_is_not_declared_of_them_stays(newer, wanted):
    done(newer, wanted)
    bare = [Domain("mana.how"), Group(STAFF), MailingList(NEWS)]
    assert newer.plan(bare).changes == ()


def test_recipients_are_compared_in_lower_case_and_in_punycode(newer, wanted):
    done(newer, wanted)
    (news,) = newer.objects("MailingList")
    newer.update("MailingList", news["id"], recipients={"A@Gmail.com": True, "x@B\xfccher.example": True, "junk": True})
    members = ("a@gmail.com", "x@xn--bcher-kva.example")
    same = [MailingList(NEWS, members=members) if item.address == f"list/{NEWS}" else item for item in wanted]
    assert newer.plan(same).changes == ()
    less = [MailingList(NEWS, members=members[:1]) if item.address == f"list/{NEWS}" else item for item in wanted]
    done(newer, less)
    assert set(newer.objects("MailingList")[0]["recipients"]) == {"a@gmail.com", "junk"}


def test_sub_addressing_by_a_rule_of_its_own_is_neither(newer, wanted):
    done(newer, wanted)
    domain = next(item for item in newer.objects("Domain") if item["name"] == "mana.how")
    rule = {"@type": "Custom", "customRule": {"match": {}, "else": "rcpt"}}
    newer.update("Domain", domain["id"], subAddressing=rule)
    assert newer.plan([Domain("mana.how")]).changes == ()
    done(newer, wanted)


# ----------------------------------------------------------------------------------------------------------- removing
def test_a_group_and_a_list_go_by_removed_and_nobody_else(newer, wanted):
    done(newer, wanted)
    left = [item for item in wanted if item.address not in REMOVED]
    assert newer.plan(left[:2]).changes == ()
    kept = [item if item.kind == "domain" else user(item.name, groups=()) for item in left]
    done(newer, kept, removed=REMOVED)
    assert newer.fake.mailboxes(NEWS) == {"till@mana.how"}  # the catch-all's
    assert {item["name"] for item in newer.objects("Account")} >= {"till", "jan"}


def test_a_group_goes_though_somebody_undeclared_is_in_it(newer, wanted):
    done(newer, wanted)
    done(newer, wanted[:2], removed=REMOVED)
    assert newer.fake.mailboxes("till@mana.how") == {"till@mana.how"}


def test_all_of_a_domain_goes_at_once(newer, wanted):
    done(newer, wanted)
    gone = frozenset({f"group/{STAFF}", f"list/{NEWS}", "account/jan@mana.dev", "domain/mana.dev"})
    done(newer, [Domain("mana.how"), user("till@mana.how")], removed=gone)
    assert {item["name"] for item in newer.objects("Domain")} == {"mana.how"}


# ------------------------------------------------------------------------------------------ addresses that change hands
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([Group(STAFF, aliases=("x@mana.how",)), user("a@mana.how")], [Group(STAFF, aliases=()), user("x@mana.how")]),
        (
            [MailingList(NEWS, aliases=("x@mana.how", "y@mana.how"))],
            [MailingList(NEWS, aliases=("y@mana.how",)), Group("x@mana.how")],
        ),
        (
            [user("a@mana.how", aliases=("x@mana.how", "y@mana.how", "z@mana.how"))],
            [
                user("a@mana.how", aliases=("v@mana.how",)),
                MailingList("x@mana.how"),
                Group(STAFF, None, ("z@mana.how",)),
            ],
        ),
        (
            [Group(STAFF, None, ("x@mana.how",)), MailingList(NEWS, None, ("y@mana.how",))],
            [Group(STAFF, None, ("y@mana.how",)), MailingList(NEWS, None, ("x@mana.how",))],
        ),
        ([Domain("mana.dev", aliases=("x.org", "y.org"))], [Domain("mana.dev", aliases=("y.org",)), Domain("x.org")]),
        (
            [Domain("mana.dev", aliases=("x.org",)), Domain("mana.io", aliases=("y.org",))],
            [Domain("mana.dev", aliases=("y.org",)), Domain("mana.io", aliases=("x.org",))],
        ),
    ],
)
def test_a_name_is_given_up_before_another_takes_it(newer, before, after):
    done(newer, [Domain("mana.how"), *before])
    done(newer, [Domain("mana.how"), *after])


def test_an_account_that_leaves_its_address_to_a_group_joins_it(newer):
    done(newer, [Domain("mana.how"), user("info@mana.how")])
    moved = {"account/info@mana.how": "account/till@mana.how"}
    wanted = [Domain("mana.how"), user("till@mana.how", groups=("info@mana.how",)), Group("info@mana.how")]
    done(newer, [*wanted, user("new@mana.how", groups=("info@mana.how",))], moved=moved)
    assert newer.fake.mailboxes("info@mana.how") == {"info@mana.how"}


def test_a_domain_becomes_an_alias_when_it_has_gone(newer):
    done(newer, [Domain("mana.how"), Domain("mana.dev")])
    done(newer, [Domain("mana.how", aliases=("mana.dev",))], removed=frozenset({"domain/mana.dev"}))


@pytest.mark.parametrize("wanted", [Domain("x.org"), Domain("mana.how", aliases=("x.org",))])
def test_a_name_that_is_the_alias_of_another_domain_is_told(newer, wanted):
    done(newer, [Domain("mana.how"), Domain("mana.dev", aliases=("x.org",))])
    plan = newer.plan([wanted, Domain("mana.dev")])
    assert "x.org is an alias of mana.dev" in plan.errors[0].summary
    assert plan.changes == ()


# ------------------------------------------------------------------------------------------------------ interruptions
@pytest.mark.parametrize("fault", ["lose", "refuse"])
@pytest.mark.parametrize("which", [0, 1])
def test_a_lost_answer_converges(newer, wanted, fault, which):
    if which:
        done(newer, wanted)
        left = [item if item.kind == "domain" else user(item.name, groups=()) for item in wanted[:2] + wanted[3:5]]
        more = {"removed": REMOVED}
    else:
        left, more = wanted, {}
    plan = newer.plan(left, **more)
    newer.server.faults.append(Fault(path="/jmap", after=which, **{fault: True}))
    list(newer.target.apply(plan.changes, newer.reveal))
    newer.apply(left, **more)
    assert newer.plan(left, **more).pending == ()


def test_a_group_that_can_t_be_made_skips_only_who_joins_it(newer, wanted):
    done(newer, wanted[:2])
    plan = newer.plan(wanted)
    newer.create("MailingList", name="staff", domainId=newer.objects("Domain")[0]["id"])
    outcomes = {item.change.address: item for item in newer.target.apply(plan.changes, newer.reveal)}
    assert outcomes[f"group/{STAFF}"].status is Status.FAILED
    assert "addresses are unique" in outcomes[f"group/{STAFF}"].problem.hint
    assert {outcomes[f"account/{name}"].status for name in ("till@mana.how", "jan@mana.dev")} == {Status.SKIPPED}
    assert outcomes[f"list/{NEWS}"].status is Status.DONE
