"""Groups, lists and catch-alls of Stalwart up to 0.15 over real HTTP: made, mended, moved, taken away."""

from dataclasses import replace

import pytest

from reconciler.problem import Severity
from reconciler.resources import UNMANAGED, Account, Domain, Group, MailingList, SecretRef, Setting
from reconciler.simulator.wire import Fault
from reconciler.target import Status

STAFF = Group("staff@mana.how", "Staff", ("team@mana.how",))
NEWS = MailingList("news@mana.how", "News", ("neues@second.org",), ("till@mana.how", "staff@mana.how", "a@gmail.com"))
TILL = Account(
    *("till@mana.how", "till", "till@mana.how", None, ("user",), ("t@mana.how",), ("staff@mana.how",)),
    password=SecretRef("env", "NOREPLY"),
)
HOUSE = [
    *(Domain("mana.how", description="Ours", catch_all="till@mana.how"), Domain("second.org", catch_all=None)),
    *(STAFF, TILL, NEWS),
]


def settled(world, wanted, **more):
    """Apply, and see that nothing is left; return how each change went."""
    outcomes = world.apply(wanted, **more)
    assert {address: str(item.problem) for address, item in outcomes.items() if item.status is not Status.DONE} == {}
    plan = world.plan(wanted, **more)
    assert (plan.changes, plan.errors) == ((), ())
    return outcomes


def changed(resource, **fields):
    """Return the house with one thing otherwise."""
    return [replace(item, **fields) if item is resource else item for item in HOUSE]


@pytest.fixture
def house(world):
    settled(world, HOUSE)
    return world


# ---------------------------------------------------------------------------------------------------------- the round
def test_one_apply_makes_everything_and_mail_arrives(house):
    assert house.fake.mailboxes("team@mana.how") == {"staff"}
    assert house.fake.mailboxes("neues@second.org") == {"till", "staff", "a@gmail.com"}
    assert house.fake.mailboxes("anything@mana.how") == {"till"}
    assert house.fake.mailboxes("anything@second.org") == set()
    assert house.principal("till")["memberOf"] == ["staff"]
    assert house.principal("till")["emails"][0] == "till@mana.how"


def test_a_lost_volume_comes_back_the_same(house):
    before = {name: house.principal(name) for name in ("staff", "till", "news", "mana.how")}
    house.fake.wipe()
    plan = house.plan(HOUSE)
    assert {str(item.reason) for item in plan.changes} == {"lost"}
    settled(house, HOUSE)
    for name, was in before.items():
        now = house.principal(name)
        kept = ("emails", "description", "members", "externalMembers", "memberOf", "roles")
        assert {part: now.get(part) for part in kept} == {part: was.get(part) for part in kept}


@pytest.mark.few
@pytest.mark.parametrize("cut", range(14))
@pytest.mark.parametrize("lose", [True, False])
def test_a_run_cut_off_at_any_request_is_finished_by_the_next(world, cut, lose):
    plan = world.plan(HOUSE)
    world.server.faults.append(Fault(times=999, after=cut, lose=lose, refuse=not lose))
    list(world.target.apply(plan.changes, world.reveal))
    world.server.faults.clear()
    settled(world, HOUSE)
    assert world.fake.mailboxes("anything@mana.how") == {"till"}


@pytest.mark.parametrize("cut", range(9))
def test_one_lost_answer_is_looked_up(world, cut):
    plan = world.plan(HOUSE)
    world.server.faults.append(Fault("(POST|PATCH)", "/api/principal", after=cut, lose=True))
    outcomes = list(world.target.apply(plan.changes, world.reveal))
    assert {item.status for item in outcomes} == {Status.DONE}
    assert world.plan(HOUSE).changes == ()


# -------------------------------------------------------------------------------------------------------------- drift
def test_drift_is_shown_and_mended(house):
    patches = {
        "staff": [{"action": "set", "field": "emails", "value": ["staff@mana.how", "odd@mana.how"]}],
        "news": [{"action": "set", "field": "externalMembers", "value": ["b@gmail.com"]}],
        "mana.how": [{"action": "set", "field": "description", "value": "Theirs"}],
        "till": [{"action": "removeItem", "field": "emails", "value": "@mana.how"}],
    }
    for name, operations in patches.items():
        assert house.call("PATCH", f"/api/principal/{name}", operations) == {"data": None}
    shown = {item.address: set(item.fields) for item in house.plan(HOUSE).changes}
    assert shown == {
        "group/staff@mana.how": {"aliases"},
        "list/news@mana.how": {"members"},
        "domain/mana.how": {"description", "catch_all"},
    }
    settled(house, HOUSE)
    assert house.fake.mailboxes("anything@mana.how") == {"till"}


def test_each_field_is_cleared_and_what_is_unmanaged_stays(house):
    settled(house, [*HOUSE[:2], Group("staff@mana.how"), TILL, MailingList("news@mana.how")])
    assert house.principal("staff")["emails"] == ["staff@mana.how", "team@mana.how"]
    bare = [Group("staff@mana.how", None, ()), TILL, MailingList("news@mana.how", None, (), ())]
    settled(house, [Domain("mana.how", description=None, catch_all=None), HOUSE[1], *bare])
    assert house.principal("staff")["emails"] == ["staff@mana.how"]
    assert "externalMembers" not in house.principal("news")
    assert house.fake.mailboxes("anything@mana.how") == set()


def test_a_group_that_lost_its_primary_address_gets_it_back(house):
    operation = {"action": "set", "field": "emails", "value": ["odd@mana.how", "team@mana.how"]}
    house.call("PATCH", "/api/principal/staff", [operation])
    assert {item.address: set(item.fields) for item in house.plan(HOUSE).changes} == {
        STAFF.address: {"aliases", "primary"}
    }
    settled(house, HOUSE)
    assert house.principal("staff")["emails"] == ["staff@mana.how", "team@mana.how"]


def test_accounts_leave_and_join_groups(house):
    settled(house, changed(TILL, groups=()))
    assert not house.principal("till").get("memberOf")
    settled(house, HOUSE)
    assert house.principal("till")["memberOf"] == ["staff"]
    assert house.principal("till")["roles"] == ["user"]


# ----------------------------------------------------------------------------------------------------- found, not made
def test_a_live_group_is_found_by_its_address_or_its_bare_name(world):
    world.make(type="domain", name="mana.how")
    world.make(type="group", name="crew", emails=["crew@mana.how"], roles=["user"])
    world.make(type="group", name="staff", roles=["user"])
    wanted = [Domain("mana.how"), Group("crew@mana.how"), Group("staff@mana.how", None, ("team@mana.how",))]
    member = replace(TILL, groups=("crew@mana.how", "staff@mana.how"))
    settled(world, [*wanted, member])
    assert world.principal("staff")["emails"] == ["staff@mana.how", "team@mana.how"]
    assert world.principal("till")["memberOf"] == ["crew", "staff"]
    for spelled in (("crew", "staff"), ("crew@mana.how", "team@mana.how")):
        assert world.plan([*wanted, replace(TILL, groups=spelled)]).changes == ()


def test_a_group_that_gets_no_mail_is_told(world):
    world.make(type="domain", name="mana.how")
    world.make(type="group", name="mute", emails=["mute@mana.how"])
    (problem,) = world.plan([Domain("mana.how"), Group("mute@mana.how")]).problems
    assert (problem.severity, "email-receive" in problem.summary) == (Severity.WARNING, True)
    operation = {"action": "addItem", "field": "enabledPermissions", "value": "email-receive"}
    world.call("PATCH", "/api/principal/mute", [operation])
    assert world.plan([Domain("mana.how"), Group("mute@mana.how")]).problems == ()


def test_an_account_is_made_without_a_group_that_nobody_makes_and_the_plan_says_so(world):
    wanted = [Domain("mana.how"), replace(TILL, groups=("gone",))]
    (problem,) = world.plan(wanted).errors
    assert (problem.where, "no group gone" in problem.summary) == (TILL.address, True)
    assert {item.status for item in world.apply(wanted).values()} == {Status.DONE}
    plan = world.plan(wanted)
    assert (plan.changes, [item.summary for item in plan.errors]) == ((), [problem.summary])
    world.make(type="group", name="gone")
    assert [set(item.fields) for item in world.plan(wanted).changes] == [{"groups"}]
    settled(world, wanted)


def test_members_that_are_names_are_seen_as_addresses_and_become_some(house):
    operation = {"action": "addItem", "field": "members", "value": "till"}
    house.call("PATCH", "/api/principal/news", [operation])
    house.call("PATCH", "/api/principal/news", [{**operation, "field": "externalMembers", "value": "x@y.com"}])
    remove = {"action": "removeItem", "field": "externalMembers"}
    for address in ("till@mana.how", "x@y.com"):
        house.call("PATCH", "/api/principal/news", [{**remove, "value": address}])
    assert house.plan(HOUSE).changes == ()
    assert house.plan(changed(NEWS, members=("t@mana.how", "staff@mana.how", "a@gmail.com"))).changes == ()
    settled(house, changed(NEWS, members=("a@gmail.com",)))
    found = house.principal("news")
    assert (found.get("members") or [], found["externalMembers"]) in (([], ["a@gmail.com"]), ([], "a@gmail.com"))
    assert house.fake.mailboxes("news@mana.how") == {"a@gmail.com"}


def test_members_are_compared_in_lower_case_and_punycode(house):
    house.call("DELETE", "/api/principal/news")
    house.make(type="list", name="news", emails=["news@mana.how"], externalMembers=["A@Bücher.example", "a@gmail.com"])
    wanted = changed(NEWS, description=None, aliases=(), members=("a@xn--bcher-kva.example", "a@gmail.com"))
    assert house.plan(wanted).changes == ()


# --------------------------------------------------------------------------------------------------------- catch-alls
def test_a_catch_all_moves_and_aliases_stay(house):
    wanted = changed(HOUSE[0], catch_all="team@mana.how")
    settled(house, wanted)
    assert house.fake.mailboxes("anything@mana.how") == {"staff"}
    assert house.principal("till")["emails"] == ["till@mana.how", "t@mana.how"]
    wanted = [replace(item, aliases=("a@mana.how", "team@mana.how")) if item is STAFF else item for item in wanted]
    settled(house, wanted)
    assert house.fake.mailboxes("anything@mana.how") == {"staff"}, "addresses are set around it"


@pytest.mark.parametrize("kind", [Group, MailingList])
def test_a_catch_all_follows_its_address_to_another_owner_in_one_apply(house, kind):
    domain = Domain("second.org", catch_all="t@mana.how")
    settled(house, changed(HOUSE[1], catch_all="t@mana.how"))
    other = kind("info@mana.how", aliases=("t@mana.how",))
    settled(house, [HOUSE[0], domain, STAFF, replace(TILL, aliases=()), NEWS, other])
    assert "@second.org" in house.principal("info")["emails"]
    assert "@second.org" not in house.principal("till")["emails"]


def test_a_catch_all_survives_another_primary_address(house):
    wanted = changed(TILL, name="tilo@mana.how", login="till", email="tilo@mana.how")
    wanted[0] = Domain("mana.how")
    wanted[-1] = replace(NEWS, members=UNMANAGED)
    settled(house, wanted, moved={TILL.address: "account/tilo@mana.how"})
    assert house.fake.mailboxes("anything@mana.how") == {"till"}
    assert house.principal("till")["emails"][0] == "tilo@mana.how"


def test_the_switches_of_all_domains_are_minded(house):
    house.store({"session.rcpt.sub-addressing": "false", "session.rcpt.catch-all": "false"})
    wanted = changed(HOUSE[0], sub_addressing=True)
    said = [str(item) for item in house.plan(wanted).problems]
    assert ["sub-addressing" in said[0], "catch-all" in said[1]] == [True, True]
    back = [Setting(f"settings/session.rcpt.{name}", None) for name in ("sub-addressing", "catch-all")]
    settled(house, [*wanted, *back])


# ----------------------------------------------------------------------------------------------- addresses and removal
def test_an_address_goes_from_an_account_to_a_group_and_on_to_a_list(house):
    to_group = [replace(TILL, aliases=()) if item is TILL else item for item in HOUSE]
    to_group = [replace(item, aliases=("t@mana.how", "team@mana.how")) if item is STAFF else item for item in to_group]
    settled(house, to_group)
    to_list = [
        replace(item, aliases=("team@mana.how",)) if item.address == STAFF.address else item for item in to_group
    ]
    to_list = [replace(item, aliases=("t@mana.how",)) if item is NEWS else item for item in to_list]
    settled(house, to_list)
    assert house.fake.mailboxes("t@mana.how") == house.fake.mailboxes("news@mana.how")


def test_two_of_different_kinds_swap_their_aliases(house):
    swapped = [replace(item, aliases=("t@mana.how",)) if item is STAFF else item for item in HOUSE]
    swapped = [replace(item, aliases=("team@mana.how",)) if item is TILL else item for item in swapped]
    settled(house, swapped)
    settled(house, HOUSE)


def test_nothing_goes_but_what_removed_names(house):
    rest = [item for item in changed(TILL, groups=()) if item.address not in (STAFF.address, NEWS.address)]
    rest = [replace(item, catch_all="till@mana.how") if item is HOUSE[0] else item for item in rest]
    assert house.plan(rest).unmanaged[:2] == (STAFF.address, NEWS.address)
    settled(house, rest)
    gone = frozenset({STAFF.address, NEWS.address})
    assert set(settled(house, rest, removed=gone)) == gone
    for name in ("staff", "news"):
        assert house.call("GET", f"/api/principal/{name}")["error"] == "notFound"


def test_a_name_that_somebody_else_has_is_left_to_them(world):
    world.make(type="individual", name="news", roles=["user"])
    other = [Group("till@second.org"), Group("office@mana.how"), Group("office@second.org")]
    member = replace(TILL, groups=("till@second.org", "office@second.org"))
    settled(world, [Domain("mana.how"), Domain("second.org"), *other, member, replace(NEWS, aliases=())])
    assert world.principal("till")["memberOf"] == ["office@second.org", "till@second.org"]
    assert world.principal("office")["emails"] in (["office@mana.how"], "office@mana.how")
    assert world.principal("news@mana.how")["type"] == "list"


@pytest.mark.parametrize("kind", [Group, MailingList])
def test_two_domains_may_have_the_same_local_part_in_one_apply(world, kind):
    first, second = kind("all@mana.how", "First"), kind("all@second.org", "Second")
    settled(world, [Domain("mana.how"), Domain("second.org"), first, second])
    assert world.principal("all")["emails"] == ["all@mana.how"]
    assert world.principal("all@second.org")["emails"] == ["all@second.org"]


def test_a_list_in_a_list_is_told(world):
    world.make(type="domain", name="mana.how")
    world.make(type="list", name="all", emails=["all@mana.how"])
    (problem,) = world.plan([Domain("mana.how"), MailingList("news@mana.how", members=("all@mana.how",))]).problems
    assert (problem.where, problem.severity) == ("list/news@mana.how", Severity.WARNING)
