"""What must not be lost: each row on a fake of each generation, by what is on the server afterwards."""

import re
from dataclasses import replace

import bcrypt
import pytest

from reconciler import guards
from reconciler.desired.raw_keys import list_of
from reconciler.desired.spec.mail import Key
from reconciler.guards.evidence import Evidence, Policy
from reconciler.keys import private_pem, public_half
from reconciler.plan import Desired, diff
from reconciler.problem import Severity
from reconciler.resources import Account, Domain, Group, Listener, Live, MailingList, Observation, Setting, Signature
from reconciler.simulator.stalwart.rest.server import StalwartRest as Fake
from reconciler.simulator.wire import Server
from reconciler.target import Status
from reconciler.targets.stalwart.rest.kind import fresh

from .conftest import ADMIN, World, ref
from .imported import plan_after, resources, survey, told

DOMAIN = Domain("mana.how")
MIGRATED = "{BLF-CRYPT}" + bcrypt.hashpw(b"an 0ld passw0rd", bcrypt.gensalt(4)).decode().replace("$2b$", "$2y$")


@pytest.fixture(params=["rest", "jmap"])
def either(request):
    """A fake server of each generation."""
    return request.getfixturevalue("world" if request.param == "rest" else "newer")


def person(name, **more):
    return Account(f"{name}@mana.how", **{"login": name, "email": f"{name}@mana.how", "roles": ("user",)} | more)


def accepted(world, name, password):
    """Whether one gets in with an address (0.16) or a login (0.15), over HTTP."""
    import httpx

    path, user = ("/jmap/session", f"{name}@mana.how") if "RECOVERY" in world.secrets else ("/api/principal/x", name)
    return httpx.get(f"{world.server.url}{path}", auth=(user, password), verify=False).status_code != 401


def errors(problems):
    return [item for item in problems if item.severity is not Severity.WARNING]


# ------------------------------------------------------------------------------------------------------ L12, passwords
def test_l12_a_migrated_hash_logs_in(either):
    either.secrets["P"] = MIGRATED
    wanted = [DOMAIN, person("till", password=ref("P"))]
    assert {item.status for item in either.apply(wanted).values()} == {Status.DONE}
    assert accepted(either, "till", "an 0ld passw0rd")
    assert not accepted(either, "till", MIGRATED)
    assert either.plan(wanted).pending == ()


@pytest.mark.parametrize("value", ["{SHA384}abc", "$y$j9T$abc$def", "{PLAIN-MD5}5f4dcc3b5aa765d61d8327deb882cf99"])
def test_l12_a_hash_that_logs_nobody_in_is_told_by_the_plan(either, value):
    either.secrets["P"] = value
    (problem,) = errors(either.plan([DOMAIN, person("till", password=ref("P"))]).problems)
    assert (problem.scope, value in str(problem)) == ("account/till@mana.how", False)


def test_l12_a_hash_that_only_one_generation_knows_is_told(newer):
    newer.secrets["P"] = "{CRYPT}_J9..rasmBYk8r9AiWNc"
    (problem,) = errors(newer.plan([DOMAIN, person("till", password=ref("P"))]).problems)
    assert (problem.scope, "BSDi" in problem.summary) == ("account/till@mana.how", True)


def test_l12_a_clear_value_is_unwrapped_and_its_administrator_stays_in(world):
    world.secrets |= {"P": "{PLAIN}x {SHA}", "ADMIN": "{PLAIN}" + ADMIN}
    admin = Account("admin", "admin", None, roles=("admin",), password=ref("ADMIN"))
    wanted = [DOMAIN, admin, person("till", password=ref("P"))]
    assert {item.status for item in world.apply(wanted).values()} == {Status.DONE}
    assert accepted(world, "till", "x {SHA}")
    assert world.plan(wanted).pending == ()
    assert accepted(world, "admin", ADMIN)


@pytest.mark.parametrize(
    ("stored", "password"),
    [("{PLAIN}s3cret", "s3cret"), ("{CLEAR}{SHA}x", "{SHA}x"), ("s3cret", "s3cret"), ("_J9..rasmBYk8r9AiWNc", None)],
)
def test_l12_a_live_password_comes_back_after_a_loss(world, stored, password):
    if password is None:
        from passlib.hash import bsdi_crypt

        stored, password = bsdi_crypt.hash("s3cret"), "s3cret"
    world.make(type="domain", name="mana.how")
    world.make(type="individual", name="till", emails=["till@mana.how"], roles=["user"], secrets=[stored])
    assert accepted(world, "till", password)
    found = survey(world)
    with Fake(environment={"STALWART_ADMIN_PASSWORD": ADMIN}) as empty, Server(empty) as server:
        new = World(empty, server, {"ADMIN": ADMIN})
        plan, wanted = plan_after(new, found)
        assert {item.status for item in new.target.apply(plan.changes, new.reveal)} == {Status.DONE}
        assert accepted(new, "till", password)
        assert new.plan(wanted).pending == ()


def test_l12_a_live_password_that_logs_nobody_in_is_told_by_import(world):
    world.make(type="domain", name="mana.how")
    world.make(type="individual", name="till", emails=["till@mana.how"], roles=["user"], secrets=["$y$j9T$a$b"])
    found = survey(world)
    assert "till@mana.how" not in found.hashes
    assert any("verifies no login" in text for text in told(found))


# ------------------------------------------------------------------------------------------------- L2, our own access
ADMIN_OLD = Account("admin", "admin", None, "Boss", ("admin",), password=ref("ADMIN"))
ADMIN_NEW = Account("admin@mana.how", "admin", "admin@mana.how", "Boss", ("admin",), password=ref("ADMIN"))
SECOND = person("boss", roles=("admin",), password=ref("NOREPLY"))


def refusals(world, wanted, passwords=None, username="", **more):
    """Plan and guard as the program does; who is refused, by address."""
    desired = Desired(tuple(wanted), **more)
    seen = {"stalwart": world.observe(wanted)}
    plan = diff(desired, seen, stack="mana")
    policy = Policy(passwords=passwords or (ref("ADMIN"),), username=username)
    return {
        it.where: it for it in guards.check(Evidence(plan, desired, seen, policy)) if it.severity is Severity.REFUSED
    }


@pytest.fixture
def settled(either):
    """A server with its administrator and another one, who gets in as the first."""
    admin = ADMIN_OLD if either.secrets.get("RECOVERY") is None else ADMIN_NEW
    wanted = [DOMAIN, admin, SECOND]
    assert {item.status for item in either.apply(wanted).values()} == {Status.DONE}
    assert either.plan(wanted).pending == ()
    return either, admin, wanted


def test_l2_nothing_is_refused_that_leaves_us_in(settled):
    world, admin, wanted = settled
    more = replace(admin, description="Another", aliases=("root@mana.how",), roles=("admin", "user"))
    if "RECOVERY" in world.secrets:
        more = replace(more, roles=("admin",))
    assert refusals(world, [DOMAIN, more, SECOND]) == {}
    assert refusals(world, wanted, removed=frozenset({"account/boss@mana.how"})) == {}


def test_l2_our_account_is_not_removed(settled):
    world, admin, _ = settled
    assert admin.address in refusals(world, [DOMAIN, SECOND], removed=frozenset({admin.address}))


def test_l2_our_role_is_not_taken_away(settled):
    world, admin, _ = settled
    assert admin.address in refusals(world, [DOMAIN, replace(admin, roles=("user",)), SECOND])


def test_l2_our_password_stays_one_that_we_try(settled):
    world, admin, _ = settled
    world.secrets["OTHER"] = "an0ther passw0rd"
    changed = [DOMAIN, replace(admin, password=ref("OTHER")), SECOND]
    found = refusals(world, changed)
    assert "OTHER" in found[admin.address].summary
    assert "an0ther" not in str(found)
    assert refusals(world, changed, passwords=(ref("OTHER"), ref("ADMIN"))) == {}


def test_l2_our_account_keeps_the_name_that_we_log_in_with(settled):
    world, admin, _ = settled
    if admin is ADMIN_OLD:
        moved = replace(admin, login="root")
        assert admin.address in refusals(world, [DOMAIN, moved, SECOND])
        return
    moved = replace(admin, name="root@mana.how", email="root@mana.how")
    moves = {"moved": {admin.address: moved.address}}
    assert moved.address in refusals(world, [DOMAIN, moved, SECOND], **moves)
    assert refusals(world, [DOMAIN, replace(moved, aliases=("admin@mana.how",)), SECOND], **moves) == {}


def test_l2_we_are_who_the_server_says(newer):
    wanted = [DOMAIN, replace(ADMIN_NEW, aliases=("root@mana.how",)), SECOND]
    newer.apply(wanted)
    newer.connect(username="root@mana.how")
    assert newer.observe(wanted).account == newer.observe(wanted).account != ""
    assert ADMIN_NEW.address in refusals(newer, [DOMAIN, SECOND], removed=frozenset({ADMIN_NEW.address}))
    assert ADMIN_NEW.address in refusals(newer, [DOMAIN, replace(ADMIN_NEW, aliases=()), SECOND])


def test_l2_settings_that_lock_us_out_are_refused(world):
    wanted = [DOMAIN, ADMIN_OLD, SECOND]
    world.apply(wanted)
    bad = Setting("settings/storage.directory", "ldap")
    assert bad.address in refusals(world, [*wanted, bad])
    secret = Setting("settings/authentication.fallback-admin.secret", "x")
    assert refusals(world, [DOMAIN, secret], removed=frozenset()) == {}
    with Fake(environment={"STALWART_ADMIN_PASSWORD": ADMIN}) as empty, Server(empty) as server:
        new = World(empty, server, {"ADMIN": ADMIN})
        assert secret.address in refusals(new, [DOMAIN, secret])


def test_l2_objects_that_lock_us_out_are_refused(newer):
    wanted = [DOMAIN, ADMIN_NEW, SECOND]
    newer.apply(wanted)
    role = Setting("objects/Role/System Administrator/enabledPermissions", ("authenticate",))
    assert role.address in refusals(newer, [*wanted, role])
    other = Setting("objects/Authentication/defaultUserRoleIds", ())
    assert refusals(newer, [*wanted, other]) == {}


def test_l2_no_role_below_ours_loses_rights():
    """Roles consist of roles: what one of them loses, whoever has the uppermost loses."""
    base, top = ("objects/Role/base/", "objects/Role/top/")
    made = [
        Setting(f"{base}enabledPermissions", ("authenticate", "emailSend")),
        Setting(f"{top}roleIds", ("base",)),
    ]
    admin = replace(ADMIN_NEW, roles=("top",))
    us = Live(admin, id="us")
    seen = {
        "stalwart": Observation(
            "stalwart", [us, *(Live(it, id=it.word) for it in made)], generation="jmap", account="us", login=admin.name
        )
    }
    less = Setting(f"{base}enabledPermissions", ("authenticate",))
    for wanted, wrong in ((made[0], False), (less, True)):
        desired = Desired((wanted,))
        plan = diff(desired, seen, stack="mana")
        found = guards.check(Evidence(plan, desired, seen, Policy()))
        assert (less.address in {it.where for it in found if it.severity is Severity.REFUSED}) is wrong


def test_l2_a_bare_name_stays_the_one_of_our_account(newer):
    """From 0.16 it is completed with the default domain (authentication.rs, add_missing_domain)."""
    other = Domain("other.how")
    wanted = [DOMAIN, other, ADMIN_NEW, SECOND]
    wanted += [Setting("hostname", "mail.mana.how")]
    newer.apply([*wanted, Setting("default_domain", "mana.how")])
    moved = Setting("default_domain", "other.how")
    newer.connect(username="admin")
    assert moved.address in refusals(newer, [*wanted, moved], username="admin")
    assert refusals(newer, [*wanted, moved], username="admin@mana.how") == {}


def test_l2_the_last_door_is_not_closed(world):
    wanted = [DOMAIN, ADMIN_OLD, SECOND]
    world.apply(wanted)
    listeners = [it.resource for it in world.observe(wanted).live if isinstance(it.resource, Listener)]
    doors = frozenset(item.address for item in listeners if item.protocol == "http")
    assert refusals(world, wanted, removed=doors).keys() == doors
    assert refusals(world, wanted, removed=frozenset(sorted(doors)[1:])) == {}


# ------------------------------------------------------------------------------------------ L3, a domain with something
def test_l3_a_domain_stays_while_anything_lives_there(either):
    extra = Domain("lists.example.com")
    inside = [
        Group("team@lists.example.com"),
        MailingList("news@lists.example.com", members=("till@mana.how",)),
        person("alias", aliases=("sales@lists.example.com",), password=ref("NOREPLY")),
    ]
    for item in inside:
        wanted = [DOMAIN, extra, item]
        assert {it.status for it in either.apply(wanted).values()} == {Status.DONE}
        gone = {"removed": frozenset({extra.address})}
        assert extra.address in refusals(either, [DOMAIN], **gone), item
        stays = [DOMAIN, replace(item, aliases=())] if isinstance(item, Account) else [DOMAIN]
        removed = frozenset({extra.address} | (set() if isinstance(item, Account) else {item.address}))
        assert extra.address not in refusals(either, stays, removed=removed) or isinstance(item, Account)
        outcomes = either.apply([DOMAIN, extra], removed=frozenset({item.address}))
        assert {it.status for it in outcomes.values()} <= {Status.DONE}


def test_l3_a_domain_stays_while_a_catch_all_takes_its_mail(either):
    extra = Domain("lists.example.com", catch_all="till@mana.how")
    till = person("till", password=ref("NOREPLY"))
    either.apply([DOMAIN, extra, till])
    gone = {"removed": frozenset({extra.address})}
    assert extra.address in refusals(either, [DOMAIN, till], **gone)
    either.apply([DOMAIN, replace(extra, catch_all=None), till])
    assert refusals(either, [DOMAIN, till], **gone) == {}


# ----------------------------------------------------------------------- L1, what refers to nothing; L16, names in twos
@pytest.mark.parametrize(
    "more", [{"groups": ("staff@mana.how",)}, {"roles": ("user", "newsletter")}, {"roles": ("x",)}]
)
def test_l1_an_account_is_made_without_what_the_server_does_not_know(either, more):
    wanted = [DOMAIN, person("till", password=ref("NOREPLY"), **more)]
    (problem,) = errors(either.plan(wanted).problems)
    assert (problem.where, problem.scope) == ("account/till@mana.how", "")
    assert {item.status for item in either.apply(wanted).values()} == {Status.DONE}
    assert accepted(either, "till", "n0reply secret")
    assert either.plan(wanted).changes == ()
    assert errors(either.plan(wanted).problems) == [problem]


def test_l1_a_member_that_nobody_is_gets_a_warning(either):
    news = MailingList("news@mana.how", members=("gone@mana.how", "till+x@mana.how", "a@elsewhere.com"))
    plan = either.plan([DOMAIN, person("till", password=ref("NOREPLY")), news])
    said = [str(item) for item in plan.problems if item.where == news.address]
    assert said == [] or ["gone@mana.how" in said[0], len(said)] == [True, 1]
    either.apply([DOMAIN, person("till", password=ref("NOREPLY")), news])
    (problem,) = [it for it in either.plan([DOMAIN, news]).problems if it.where == news.address]
    assert "gone@mana.how" in problem.summary
    assert [
        it
        for it in either.plan([replace(DOMAIN, catch_all="till@mana.how"), news]).problems
        if it.where == news.address
    ] == []


def test_l16_a_role_is_found_exactly_first(newer):
    keys = {name: newer.create("Role", description=name) for name in ("twin", "Twin")}
    for name, key in keys.items():
        wanted = [DOMAIN, person("till", roles=(name,), password=ref("NOREPLY"))]
        assert {item.status for item in newer.apply(wanted).values()} == {Status.DONE}
        assert [it["roles"]["roleIds"] for it in newer.objects("Account") if it["name"] == "till"] == [{key: True}]
        assert newer.plan(wanted).changes == ()
    (problem,) = errors(newer.plan([DOMAIN, person("x", roles=("TWIN",), password=ref("NOREPLY"))]).problems)
    assert (problem.scope, "several" in problem.summary) == ("account/x@mana.how", True)


def test_l16_a_role_that_is_alone_is_found_in_any_case(newer):
    key = newer.create("Role", description="Helper")
    wanted = [DOMAIN, person("till", roles=("helper",), password=ref("NOREPLY"))]
    newer.apply(wanted)
    assert [it["roles"]["roleIds"] for it in newer.objects("Account") if it["name"] == "till"] == [{key: True}]
    assert newer.plan(wanted).changes == ()


def test_l16_a_group_of_two_domains_is_no_group_by_its_local_part(either):
    other = Domain("other.example.com")
    groups = [Group("staff@mana.how"), Group("staff@other.example.com")]
    either.apply([DOMAIN, other, *groups])
    if "RECOVERY" in either.secrets:
        found = errors(either.plan([DOMAIN, person("x", groups=("staff",), password=ref("NOREPLY"))]).problems)
        assert ["several" in item.summary for item in found] == [True]
    wanted = [DOMAIN, other, *groups, person("x", groups=("staff@other.example.com",), password=ref("NOREPLY"))]
    assert {item.status for item in either.apply(wanted).values()} == {Status.DONE}
    assert either.plan(wanted).changes == ()


# -------------------------------------------------------------- L11, what can't be said; L15, domains that are not here
def aliases(world, name="alice"):
    """The addresses of an account beside its first, as the server has them."""
    if "RECOVERY" not in world.secrets:
        return sorted(world.principal(name)["emails"][1:])
    (item,) = [it for it in world.objects("Account") if it["name"] == name]
    return sorted(alias["name"] for alias in item["aliases"].values())


def test_l11_one_address_that_can_t_be_said_costs_no_other_one(world):
    world.make(type="domain", name="mana.how")
    world.make(type="domain", name="old.example.com")
    odd = ["alice@mana.how", "al@mana.how", "@mana.how", "a(b)@mana.how", "x@old.example.com"]
    world.make(type="individual", name="alice", emails=odd, roles=["user"], secrets=["x"])
    world.call("DELETE", "/api/principal/old.example.com")
    found = survey(world)
    (account,) = resources(found, Account).values()
    assert account.aliases == ("al@mana.how",)
    assert resources(found, Domain)["domain/mana.how"].catch_all == "alice@mana.how"
    plan, wanted = plan_after(world, found)
    assert [change.address for change in plan.changes if "password" not in change.fields] == []
    more = [replace(it, aliases=("al@mana.how", "ali@mana.how")) if isinstance(it, Account) else it for it in wanted]
    world.apply(more)
    assert aliases(world) == sorted([*odd[1:], "ali@mana.how"])
    moved = [replace(it, name="ally@mana.how", email="ally@mana.how") if isinstance(it, Account) else it for it in more]
    moved = [replace(it, catch_all="ally@mana.how") if isinstance(it, Domain) else it for it in moved]
    world.apply(moved, moved={"account/alice@mana.how": "account/ally@mana.how"})
    assert world.principal("alice")["emails"][0] == "ally@mana.how"
    assert aliases(world) == sorted([*odd[1:], "ali@mana.how"])


def test_l11_members_that_can_t_be_said_stay(world):
    world.make(type="domain", name="mana.how")
    world.make(type="list", name="news", emails=["news@mana.how"], externalMembers=["a@x.example.com", "nobody"])
    found = survey(world)
    (news,) = resources(found, MailingList).values()
    assert news.members == ("a@x.example.com",)
    plan, wanted = plan_after(world, found)
    assert plan.changes == ()
    more = [replace(it, members=("b@x.example.com",)) if isinstance(it, MailingList) else it for it in wanted]
    assert [str(item.problem) for item in world.apply(more).values() if item.problem] == []
    assert sorted(world.principal("news")["externalMembers"]) == ["b@x.example.com", "nobody"]


def test_l15_a_domain_that_the_server_has_not_is_not_made_by_an_import(world):
    world.make(type="domain", name="mana.how")
    world.make(type="domain", name="other.example.com")
    world.make(type="individual", name="alice", emails=["alice@mana.how", "al@other.example.com"], roles=["user"])
    world.make(type="individual", name="bob", emails=["bob@other.example.com", "bob@mana.how"], roles=["user"])
    world.make(type="group", name="crew", emails=["crew@other.example.com", "crew@mana.how"], roles=["user"])
    world.make(type="list", name="news", emails=["news@other.example.com"])
    world.call("DELETE", "/api/principal/other.example.com")
    found = survey(world)
    assert "other.example.com" not in str([item.resource for item in found.live])
    assert resources(found, Account)["account/bob"].aliases == ("bob@mana.how",)
    assert sum("does not have" in text for text in told(found)) >= 3
    plan, _ = plan_after(world, found)
    assert plan.changes == ()


def test_l15_what_is_called_like_an_address_gets_none_by_an_import(world):
    world.make(type="domain", name="mana.how")
    world.make(type="group", name="all@mana.how", roles=["user"])
    world.make(type="list", name="news@mana.how", emails=["post@mana.how"])
    found = survey(world)
    assert sum("does not have that address" in text for text in told(found)) == 1
    plan, _ = plan_after(world, found)
    assert plan.changes == ()


# ---------------------------------------------------------------------------- L14, a list of settings is one value
RELAY = "session.rcpt.relay"


def entries(**values):
    return [
        Setting(f"settings/{RELAY}.{key.removeprefix('n').replace('_', '.')}", value) for key, value in values.items()
    ]


def stored(world, prefix=RELAY):
    found = world.call("GET", f"/api/settings/keys?prefixes={prefix}&keys=")["data"]
    return {key.removeprefix(f"{prefix}."): value for key, value in found.items()}


def test_l14_what_is_taken_out_of_a_list_goes(world):
    long = entries(
        n0_if="rcpt_domain = 'a'", n0_then="true", n1_if="rcpt_domain = 'b'", n1_then="true", n2_else="false"
    )
    assert {item.status for item in world.apply(long).values()} == {Status.DONE}
    assert world.plan(long).changes == ()
    short = entries(n0_if="rcpt_domain = 'a'", n0_then="true", n1_else="false")
    assert {item.status for item in world.apply(short).values()} == {Status.DONE}
    assert stored(world) == {"0.if": "rcpt_domain = 'a'", "0.then": "true", "1.else": "false"}
    assert world.plan(short).changes == ()


def test_l14_a_list_that_only_gets_shorter_is_a_change(world):
    listed = [Setting(f"settings/report.analysis.addresses.{n}", f"{n}@mana.how") for n in range(3)]
    world.apply(listed)
    outcomes = world.apply(listed[:2])
    assert {item.status for item in outcomes.values()} == {Status.DONE}
    assert stored(world, "report.analysis.addresses") == {"0": "0@mana.how", "1": "1@mana.how"}
    assert world.plan(listed[:2]).changes == ()


def test_l14_a_broken_list_is_taken_back_and_named(world):
    good = entries(n0_if="rcpt_domain = 'a'", n0_then="true", n1_else="false")
    world.apply(good)
    before = stored(world)
    broken = [*entries(n0_else="true", n1_else="false"), Setting("settings/queue.limiter.inbound.ip.rate", "51/1s")]
    outcomes = world.apply(broken)
    failed = {address for address, item in outcomes.items() if item.status is not Status.DONE}
    assert failed
    assert all(address.startswith(f"stalwart/settings/{RELAY}") for address in failed)
    assert stored(world) == before
    assert stored(world, "queue.limiter.inbound.ip")["rate"] == "51/1s"
    assert world.plan([*good, broken[-1]]).changes == ()


def test_l14_a_list_is_imported_whole(world):
    usual = next(key for key in fresh()["keys"] if list_of(key) == "queue.schedule.dsn.retry")
    world.make(type="domain", name="mana.how")
    world.store({"queue.schedule.dsn.retry.9999": "9h"})
    world.call("GET", "/api/reload")
    found = survey(world)
    assert {usual, "queue.schedule.dsn.retry.9999"} <= found.settings.keys()
    plan, _ = plan_after(world, found)
    assert plan.changes == ()


def test_l14_a_yaml_list_is_written_whole():
    from reconciler.desired.spec.stalwart import Stalwart

    entry = {
        RELAY: [{"if": "rcpt_domain = 'a'", "then": "true"}, {"else": "false"}],
        "report.analysis.addresses": ["a", "b"],
    }
    assert Stalwart.model_validate({"settings": entry}).settings == {
        f"{RELAY}.0000.if": "rcpt_domain = 'a'",
        f"{RELAY}.0000.then": "true",
        f"{RELAY}.0001.else": "false",
        "report.analysis.addresses.0000": "a",
        "report.analysis.addresses.0001": "b",
    }


# -------------------------------------------------------------------------------- L13, signatures with ids of one's own
def stored_signature(world, key, name, selector, algorithm):
    pem = private_pem(algorithm, world.secrets[key])
    parts = {"algorithm": f"{algorithm}-sha256", "domain": "mana.how", "selector": selector, "private-key": pem}
    world.store({f"signature.{name}.{part}": value for part, value in parts.items()})


def declared_signature(world, key, selector, algorithm):
    return Signature("mana.how", selector, algorithm, public_half(algorithm, world.secrets[key]), private_key=ref(key))


def signing(world):
    """The selectors that sign mail from the domain, by the rule that is in force, as the server sees it."""
    rule = world.fake.core.sign
    names = [name for _, value in rule for name in re.findall(r"'([^']+)'", value)]
    return sorted(it.selector for name, it in world.fake.core.signatures.items() if name in names)


@pytest.mark.parametrize("single", [True, False])
def test_l13_signatures_with_ids_of_one_s_own_sign_and_come_back(world, single):
    world.make(type="domain", name="mana.how")
    stored_signature(world, "RSA", "rsa", "rsa_default", "rsa")
    stored_signature(world, "ED", "ed25519", "ED2024", "ed25519")
    stored_signature(world, "ED2", "spare", "spare", "ed25519")
    rule = {"auth.dkim.sign": "['rsa', 'ed25519']"}
    if not single:
        rule = {
            "auth.dkim.sign.0.if": "is_local_domain('*', sender_domain)",
            "auth.dkim.sign.0.then": "['rsa', 'ed25519']",
            "auth.dkim.sign.1.else": "false",
        }
    world.store(rule)
    world.call("GET", "/api/reload")
    wanted = [
        DOMAIN,
        declared_signature(world, "RSA", "rsa_default", "rsa"),
        declared_signature(world, "ED", "ED2024", "ed25519"),
    ]
    assert world.plan(wanted).changes == ()
    found = survey(world)
    assert resources(found, Signature).keys() == {"dkim/mana.how/rsa_default", "dkim/mana.how/ed2024"}
    plan, _ = plan_after(world, found)
    assert plan.changes == ()
    before = signing(world)
    with Fake(environment={"STALWART_ADMIN_PASSWORD": ADMIN}) as empty, Server(empty) as server:
        new = World(empty, server, {"ADMIN": ADMIN} | world.secrets)
        plan, again = plan_after(new, found)
        assert {item.status for item in new.target.apply(plan.changes, new.reveal)} == {Status.DONE}
        assert [name.lower() for name in before] == signing(new) == ["ed2024", "rsa_default"]
        assert new.plan(again).changes == ()


def test_l13_an_active_key_that_no_rule_names_is_an_error_with_a_hint_that_works(world):
    rule = {"0.if": "sender_domain = 'other.example.com'", "0.then": "['mine']", "1.else": "false"}
    world.make(type="domain", name="mana.how")
    world.store({f"auth.dkim.sign.{key}": value for key, value in rule.items()})
    world.call("GET", "/api/reload")
    wanted = [DOMAIN, declared_signature(world, "ED", "ed2026", "ed25519")]
    (problem,) = errors(world.plan(wanted).problems)
    assert (problem.where, problem.scope) == ("dkim/mana.how/ed2026", "dkim/mana.how/ed2026")
    assert all(f"auth.dkim.sign.{key}: null" in problem.hint for key in rule)
    cleared = [Setting(f"settings/auth.dkim.sign.{key}", None) for key in rule]
    assert {item.status for item in world.apply([*wanted, *cleared]).values()} == {Status.DONE}
    assert world.plan([*wanted, *cleared]).changes == ()
    assert stored(world, "auth.dkim") == {}


def test_l13_a_key_takes_an_id_that_the_rule_names(world):
    rule = [Setting("settings/auth.dkim.sign", "['mine-rsa', 'mine-ed25519']")]
    wanted = [
        DOMAIN,
        *rule,
        declared_signature(world, "ED", "ed2026", "ed25519"),
        declared_signature(world, "RSA", "rsa2026", "rsa"),
    ]
    assert {item.status for item in world.apply(wanted).values()} == {Status.DONE}
    assert signing(world) == ["ed2026", "rsa2026"]
    assert world.plan(wanted).changes == ()
    turned = [DOMAIN, *rule, declared_signature(world, "ED2", "ed2027", "ed25519"), wanted[-1]]
    world.apply(turned)
    assert signing(world) == ["ed2027", "rsa2026"]
    assert world.plan(turned).changes == ()


@pytest.mark.parametrize("domain", ["MANA.HOW", "Mana.How"])
def test_l13_a_domain_that_a_signature_has_in_capitals_is_the_same_one(world, domain):
    world.make(type="domain", name="mana.how")
    stored_signature(world, "RSA", "mine", "rsa_default", "rsa")
    world.store({"signature.mine.domain": domain, "auth.dkim.sign": "['mine']"})
    world.call("GET", "/api/reload")
    wanted = [DOMAIN, declared_signature(world, "RSA", "rsa_default", "rsa")]
    assert world.plan(wanted).changes == ()
    found = survey(world)
    assert resources(found, Signature).keys() == {"dkim/mana.how/rsa_default"}
    plan, _ = plan_after(world, found)
    assert plan.changes == ()
    other = [DOMAIN, declared_signature(world, "ED", "ed2026", "ed25519")]
    removed = world.plan(other, removed={"dkim/mana.how/rsa_default"})
    assert [str(item.problem) for item in world.apply(other, removed={"dkim/mana.how/rsa_default"}).values()] == [
        "None" for _ in removed.changes
    ]
    assert stored(world, "signature.mine") == {}


@pytest.mark.parametrize("selector", ["rsa_default", "ED2024", "_a", "a.b_c", "x" * 63])
def test_l13_any_selector_that_dns_allows_can_be_said(selector):
    assert Key.model_validate({"selector": selector, "algorithm": "rsa"}).selector == selector.lower()


@pytest.mark.parametrize("selector", ["", "-a", "a b", "a..b", "x" * 64, "ä"])
def test_l13_what_is_no_label_is_no_selector(selector):
    with pytest.raises(ValueError, match="selector"):
        Key.model_validate({"selector": selector, "algorithm": "rsa"})
