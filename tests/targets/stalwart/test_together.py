"""Changes that touch each other in one plan: who holds what first, and what is left when all is done."""

import base64

import pytest

from reconciler.keys import public_half
from reconciler.plan import phases
from reconciler.problem import Severity
from reconciler.reconcile import Outcome, Status
from reconciler.resources import Account, AllowedIp, Domain, Setting, Signature
from reconciler.simulator.stalwart.passwords import verify
from reconciler.simulator.wire import Fault

from .conftest import ref

DOMAIN = Domain("mana.how")


def person(name: str, **more) -> Account:
    more = {"login": name, "email": f"{name}@mana.how", "roles": ("user",), "password": ref("NOREPLY")} | more
    return Account(f"{more['email']}", **more)


def carry_out(world, wanted, **more) -> list[Outcome]:
    """Apply phase by phase, as `reconcile` does."""
    plan = world.plan(wanted, **more)
    assert plan.complete, plan.problems
    return [item for phase in phases(plan.changes) for item in world.target.apply(phase, world.reveal)]


def settled(world, wanted, **more) -> bool:
    """Apply, and say whether everything is done and nothing is left."""
    outcomes = carry_out(world, wanted, **more)
    assert [str(item.problem) for item in outcomes if item.status is not Status.DONE] == []
    again = world.plan(wanted, **more)
    assert [item.address for item in again.changes] == []
    assert [str(item) for item in again.problems if item.severity is Severity.ERROR] == []
    return True


def key(keys, selector, name="ED", **more) -> Signature:
    public = public_half("ed25519", keys[name])
    return Signature("mana.how", selector, "ed25519", public, private_key=ref(name), **more)


# ------------------------------------------------------------------------------------------------- two keys, one id
@pytest.mark.parametrize("apart", [False, True], ids=["one phase", "a phase each"])
def test_a_new_key_takes_the_id_of_one_that_goes_in_the_same_plan(world, keys, apart):
    assert settled(world, [DOMAIN, key(keys, "old")])
    wanted, gone = [DOMAIN, key(keys, "new", "ED2")], frozenset({"dkim/mana.how/old"})
    plan = world.plan(wanted, removed=gone)
    runs = [[change] for change in plan.changes] if apart else [plan.changes]
    outcomes = [item for run in runs for item in world.target.apply(run, world.reveal)]
    assert [str(item.problem) for item in outcomes if item.status is not Status.DONE] == []
    stored = world.fake.settings.merged()
    assert stored["signature.ed25519-mana.how.selector"] == "new"
    assert [name for name in stored if name.endswith(".selector")] == ["signature.ed25519-mana.how.selector"]
    assert {selector for _, selector, _ in world.fake.signing()} == {"new"}
    assert world.plan(wanted, removed=gone).changes == ()


def test_a_key_comes_back_under_its_old_selector(world, keys):
    assert settled(world, [DOMAIN, key(keys, "old")])
    assert settled(world, [DOMAIN, key(keys, "new", "ED2")])
    assert settled(world, [DOMAIN, key(keys, "old")], removed=frozenset({"dkim/mana.how/new"}))
    assert {selector for _, selector, _ in world.fake.signing()} == {"old"}


# --------------------------------------------------------------------------------------------- addresses that wander
def test_an_alias_wanders_from_one_account_to_another(world):
    for first, second in (("aaa", "zzz"), ("zzz", "aaa")):
        assert settled(world, [DOMAIN, person(first, aliases=("info@mana.how",)), person(second, aliases=())])


def test_an_alias_becomes_the_address_of_a_new_account(world):
    assert settled(world, [DOMAIN, person("zzz", aliases=("info@mana.how",))])
    assert settled(world, [DOMAIN, person("zzz", aliases=()), person("info")])


def test_two_accounts_swap_their_addresses(world):
    def pair(first, second):
        return [
            DOMAIN,
            person("one", email=f"{first}@mana.how", aliases=(f"{first}-too@mana.how",)),
            person("two", email=f"{second}@mana.how", aliases=(f"{second}-too@mana.how",)),
        ]

    assert settled(world, pair("a", "b"))
    assert settled(world, pair("b", "a"))
    assert world.principal("one")["emails"] == ["b@mana.how", "b-too@mana.how"]
    assert world.principal("two")["emails"] == ["a@mana.how", "a-too@mana.how"]


def test_a_name_that_something_else_holds_is_told_before_anything_is_written(world):
    world.make(type="domain", name="mana.how")
    world.make(type="list", name="news")
    world.make(type="group", name="crew")
    for wanted in (person("crew"), person("news")):
        plan = world.plan([DOMAIN, wanted])
        assert plan.changes == ()
        assert {item.where for item in plan.errors} == {wanted.address}
        assert all(item.hint for item in plan.errors)


def test_moved_takes_every_other_change_along(world):
    assert settled(world, [DOMAIN, person("old", password=ref("NOREPLY"))])
    world.secrets["OTHER"] = "an0ther secret"
    wanted = [DOMAIN, person("new", password=ref("OTHER"), aliases=("old@mana.how",), quota=5, description="New")]
    assert settled(world, wanted, moved={"account/old@mana.how": "account/new@mana.how"})
    found = world.principal("new")
    assert (found["emails"], found["quota"]) == (["new@mana.how", "old@mana.how"], 5)
    assert verify(found["secrets"][0], "an0ther secret")


# ------------------------------------------------------------------------------------------------------- small values
@pytest.mark.parametrize(
    ("first", "then"),
    [
        ({"description": "x"}, {"description": None}),
        ({"quota": 5}, {"quota": None}),
        ({"quota": 5}, {"quota": 0}),
        ({"quota": None}, {"quota": 0}),
        ({"aliases": ("b@mana.how", "a@mana.how")}, {"aliases": ()}),
        ({"roles": ("admin", "user")}, {"roles": ("user",)}),
        ({"roles": ("user",)}, {"roles": ("user", "admin")}),
        ({"groups": ("crew",)}, {"groups": ()}),
    ],
)
def test_every_value_can_be_set_and_cleared(world, first, then):
    world.make(type="domain", name="mana.how")
    world.make(type="group", name="crew")
    assert settled(world, [DOMAIN, person("me", **first)])
    assert settled(world, [DOMAIN, person("me", **then)])
    assert settled(world, [DOMAIN, person("me", **first)])


# --------------------------------------------------------------------------------------------------- our own password
def test_each_password_is_tried_once_though_we_change_our_own_account(world):
    """Not the password is changed but the description: what was refused stays refused."""
    world.secrets |= {"NEW": "not yet valid", "OWN": "0wn password"}
    boss = Account("boss", "boss", None, roles=("admin",), password=ref("OWN"))
    assert settled(world, [boss])
    world.connect(username="boss", passwords=[ref("NEW"), ref("OWN")])
    boss = Account("boss", "boss", None, "The boss", ("admin",), password=ref("OWN"))
    assert settled(world, [boss])
    sent = [item.headers.get("authorization") for item in world.server.requests]
    new = "Basic " + base64.b64encode(b"boss:not yet valid").decode()
    assert sent.count(new) == 1


def test_our_own_new_password_comes_into_force_on_the_way(world):
    world.secrets |= {"NEW": "the new password", "OWN": "0wn password"}
    boss = Account("boss", "boss", None, roles=("admin",), password=ref("OWN"))
    assert settled(world, [boss])
    world.connect(username="boss", passwords=[ref("NEW"), ref("OWN")])
    boss = Account("boss", "boss", None, roles=("admin",), password=ref("NEW"))
    assert settled(world, [boss, DOMAIN, person("me")])


# ------------------------------------------------------------------------------------------------ secrets in settings
def test_a_setting_may_be_a_secret(world):
    word = "settings/queue.route.brevo.auth.secret"
    wanted = [Setting(word, ref("NOREPLY"))]
    assert settled(world, wanted)
    assert world.fake.settings.merged()["queue.route.brevo.auth.secret"] == world.secrets["NOREPLY"]
    world.store({"queue.route.brevo.auth.secret": "some0ne else's"})
    for wanted in ([Setting(word, ref("NOREPLY"))], [Setting(word, None)]):
        plan = world.plan(wanted)
        assert len(plan.changes) == 1
        assert "some0ne" not in repr(plan)
    assert settled(world, [Setting(word, None)])
    assert "queue.route.brevo.auth.secret" not in world.fake.settings.merged()


def test_what_a_change_needs_is_read_before_anything_is_written(world, keys):
    """A missing account's password, a missing key's private half, a setting's secret: not only when it is too late."""
    lacking = [
        person("me", password=ref("MISSING")),
        Signature("mana.how", "s1", "ed25519", public_half("ed25519", keys["ED"]), private_key=ref("MISSING")),
        Signature("mana.how", "s2", "ed25519", public_half("ed25519", keys["ED"]), private_key=ref("ED2")),
        Setting("settings/queue.route.brevo.auth.secret", ref("MISSING")),
    ]
    for wanted in lacking:
        plan = world.plan([DOMAIN, wanted])
        assert [item.address for item in plan.changes] == ["domain/mana.how"]
        (problem,) = plan.errors
        assert wanted.address in (problem.where, problem.scope)
        assert problem.hint


# ------------------------------------------------------------------------------------------------- killed on the way
@pytest.mark.parametrize("kind", ["setting", "key", "network"])
def test_what_was_removed_and_not_reloaded_is_still_to_be_removed(world, keys, kind):
    before = {
        "setting": [Setting("settings/http.rate-limit.account", "500/1m")],
        "key": [DOMAIN, key(keys, "old")],
        "network": [AllowedIp("10.0.0.0/8")],
    }[kind]
    after = [Setting("settings/http.rate-limit.account", None)] if kind == "setting" else []
    removed = frozenset(item.address for item in before if not isinstance(item, Setting | Domain))
    assert settled(world, before)
    running = world.fake.dump()["running"]
    plan = world.plan(after, removed=removed)
    world.server.faults.append(Fault(path="/api/reload", times=9, refuse=True))
    list(world.target.apply(plan.changes, world.reveal))
    world.server.faults.clear()
    assert world.fake.dump()["running"] == running
    assert settled(world, after, removed=removed)
    assert world.fake.dump()["running"] != running
