"""What must not be lost: each row on a fake of each generation, by what is on the server afterwards."""

import bcrypt
import pytest

from reconciler.problem import Severity
from reconciler.resources import Account, Domain
from reconciler.simulator.stalwart.rest.server import StalwartRest as Fake
from reconciler.simulator.wire import Server
from reconciler.target import Status

from .conftest import ADMIN, World, ref
from .imported import plan_after, survey, told

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
    return httpx.get(f"{world.server.url}{path}", auth=(user, password)).status_code != 401


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
