"""The target for Stalwart from 0.16, against the fake over real HTTP."""

from collections import Counter
from dataclasses import replace

import pytest

from reconciler.keys import public_half
from reconciler.problem import Severity
from reconciler.resources import (
    KINDS,
    UNKNOWN,
    UNMANAGED,
    Account,
    AllowedIp,
    Domain,
    Listener,
    SecretRef,
    Setting,
    Signature,
)
from reconciler.simulator.wire import Fault, Reply
from reconciler.target import Status
from reconciler.targets.stalwart.jmap import target

NOREPLY = "noreply@mana.how"


def ref(name):
    return SecretRef("env", name)


def statuses(outcomes):
    return {item.status for item in outcomes.values()}


def user(name, **more):
    """Return an account as the directory gives it."""
    return Account(name, email=name, **({"roles": ("user",), "password": ref("NOREPLY")} | more))


def live(newer, wanted, address):
    return next(item.resource for item in newer.observe(wanted).live if item.resource.address == address)


def account(newer, local):
    return next(item for item in newer.objects("Account") if item["name"] == local)


def logs_in(newer, name, password):
    import httpx

    return httpx.get(f"{newer.server.url}/jmap/session", auth=(name, password), verify=False).status_code == 200


def faulty(newer, wanted, **fault):
    """Apply while something happens to the first request after the plan; outcomes by address."""
    plan = newer.plan(wanted)
    newer.requests()
    newer.server.faults.append(Fault(path="/jmap", **fault))
    return {item.change.address: item for item in newer.target.apply(plan.changes, newer.reveal)}


@pytest.fixture
def settled(newer, newly_wanted):
    """Return a server on which the example was applied."""
    assert statuses(newer.apply(newly_wanted)) == {Status.DONE}
    newer.requests()
    return newer


# ------------------------------------------------------------------------------------------------------- the whole
def test_an_empty_server_becomes_what_is_wanted_in_one_write(newer, newly_wanted):
    observation = newer.observe(newly_wanted)
    assert (observation.lost, observation.generation, observation.unread) == (True, "jmap", frozenset())
    assert "0.16 or later (JMAP)" in observation.head[0]
    newer.requests()
    outcomes = newer.apply(newly_wanted)
    assert statuses(outcomes) == {Status.DONE}
    reading, writing = newer.requests()
    assert all(name.endswith(("/get", "/query")) for name, _, _ in reading)
    assert writing[0][0] == "x:AllowedIp/set"
    assert writing[-1][0] == "x:Action/set"
    assert newer.fake.signing() == {
        ("mana.how", "mana2026", "ed25519-sha256"),
        ("mana.how", "rsa2026", "rsa-sha256"),
    }
    assert logs_in(newer, NOREPLY, "n0reply secret")
    assert logs_in(newer, "postmaster", "p0stmaster secret")


def test_a_second_plan_is_empty_and_takes_one_request(settled, newly_wanted):
    again = settled.plan(newly_wanted)
    assert again.pending == ()
    assert again.problems == ()
    assert len(settled.requests()) == 1


@pytest.mark.trap(40, "jmap")
def test_after_a_wipe_everything_comes_back(settled, newly_wanted):
    settled.fake.wipe_data()
    plan = settled.plan(newly_wanted)
    assert plan.lost == {"stalwart"}
    settled.requests()
    assert statuses(settled.apply(newly_wanted)) == {Status.DONE}
    assert len(settled.requests()) == 2
    assert settled.plan(newly_wanted).pending == ()


def test_a_thousand_accounts_take_at_most_two_writes(newer):
    wanted = [user(f"user{number}@mana.how", password=ref("POSTMASTER")) for number in range(1000)]
    wanted.append(Domain("mana.how"))
    plan = newer.plan(wanted)
    newer.requests()
    outcomes = list(newer.target.apply(plan.changes, newer.reveal))
    assert {item.status for item in outcomes} == {Status.DONE}
    assert len(newer.requests()) <= 2
    again = newer.plan(wanted)
    assert again.pending == ()
    assert again.complete
    assert len(newer.requests()) == 2


def test_many_domains_take_few_requests(newer):
    wanted = [Domain(f"d{number}.example.org") for number in range(40)]
    wanted += [user(f"a@d{number}.example.org", password=ref("POSTMASTER")) for number in range(40)]
    plan = newer.plan(wanted)
    newer.requests()
    assert {item.status for item in newer.target.apply(plan.changes, newer.reveal)} == {Status.DONE}
    assert len(newer.requests()) <= 3
    assert newer.plan(wanted).pending == ()


# ------------------------------------------------------------------------------------------------------- accounts
def changed(newer, before, after, **more):
    """Apply one account, then another state of it, and return the outcome and the calls of the write."""
    assert statuses(newer.apply([Domain("mana.how"), before])) == {Status.DONE}
    plan = newer.plan([Domain("mana.how"), after], **more)
    newer.requests()
    (outcome,) = newer.target.apply(plan.changes, newer.reveal)
    assert newer.plan([Domain("mana.how"), after], **more).pending == ()
    return outcome, next((calls for calls in newer.requests() if calls[0][0].endswith("/set")), [])


@pytest.mark.parametrize(
    ("field", "old", "new", "patch"),
    [
        ("description", None, "No reply", {"description": "No reply"}),
        ("description", "No reply", None, {"description": None}),
        ("quota", None, 1 << 30, {"quotas/maxDiskQuota": 1 << 30}),
        ("quota", 1 << 30, None, {"quotas/maxDiskQuota": None}),
        ("roles", ("user",), ("admin",), {"roles": {"@type": "Admin"}}),
        ("aliases", ("a@mana.how", "b@mana.how"), ("a@mana.how",), {"aliases/1": None}),
        ("aliases", ("a@mana.how", "b@mana.how"), (), {"aliases/0": None, "aliases/1": None}),
    ],
)
@pytest.mark.trap(4, "jmap")
def test_an_update_names_only_what_differs(newer, field, old, new, patch):
    outcome, calls = changed(newer, user(NOREPLY, **{field: old}), user(NOREPLY, **{field: new}))
    assert outcome.status is Status.DONE
    ((_, arguments, _),) = calls
    assert list(arguments["update"].values()) == [patch]


def test_a_new_alias_leaves_what_others_wrote_beside_it(newer):
    newer.apply([Domain("mana.how"), user(NOREPLY, aliases=("a@mana.how",))])
    stored = account(newer, "noreply")
    alias = {"enabled": False, "name": "off", "domainId": stored["domainId"], "description": "kept"}
    newer.update("Account", stored["id"], **{"aliases/5": alias, "aliases/0/description": "first"})
    outcomes = newer.apply([Domain("mana.how"), user(NOREPLY, aliases=("a@mana.how", "b@mana.how"))])
    assert statuses(outcomes) == {Status.DONE}
    found = {item["name"]: item for item in account(newer, "noreply")["aliases"].values()}
    assert (found["a"]["description"], found["off"]["enabled"], found["b"]["enabled"]) == ("first", False, True)


def test_a_disabled_alias_that_is_declared_is_enabled(newer):
    newer.apply([Domain("mana.how"), user(NOREPLY, aliases=("a@mana.how",))])
    newer.update("Account", account(newer, "noreply")["id"], **{"aliases/0/enabled": False})
    assert statuses(newer.apply([Domain("mana.how"), user(NOREPLY, aliases=("a@mana.how",))])) == {Status.DONE}
    assert account(newer, "noreply")["aliases"]["0"]["enabled"] is True


def test_addresses_change_hands_in_one_request(newer):
    one, two = "one@mana.how", "two@mana.how"
    newer.apply([Domain("mana.how"), user(one, aliases=("x@mana.how",)), user(two, aliases=("y@mana.how",))])
    wanted = [Domain("mana.how"), user(one, aliases=("y@mana.how",)), user(two, aliases=("x@mana.how",))]
    newer.observe(wanted)
    assert statuses(newer.apply(wanted)) == {Status.DONE}
    assert newer.plan(wanted).pending == ()


def test_an_alias_becomes_an_account_of_its_own(newer):
    newer.apply([Domain("mana.how"), user("one@mana.how", aliases=("info@mana.how",))])
    wanted = [Domain("mana.how"), user("one@mana.how", aliases=()), user("info@mana.how")]
    assert statuses(newer.apply(wanted)) == {Status.DONE}
    assert newer.plan(wanted).pending == ()


@pytest.mark.trap(9, "jmap")
def test_an_account_is_renamed_with_its_mailbox(newer):
    newer.apply([Domain("mana.how"), user(NOREPLY)])
    before = account(newer, "noreply")["id"]
    wanted = [Domain("mana.how"), Domain("example.org"), user("robot@example.org")]
    moved = {"account/noreply@mana.how": "account/robot@example.org"}
    assert statuses(newer.apply(wanted, moved=moved)) == {Status.DONE}
    assert account(newer, "robot")["id"] == before
    assert logs_in(newer, "robot@example.org", "n0reply secret")
    assert newer.plan(wanted).pending == ()


def test_a_primary_address_is_taken_over_after_it_was_left(newer):
    newer.apply([Domain("mana.how"), user(NOREPLY)])
    wanted = [Domain("mana.how"), user("robot@mana.how", aliases=()), user("a@mana.how", aliases=(NOREPLY,))]
    moved = {"account/noreply@mana.how": "account/robot@mana.how"}
    assert statuses(newer.apply(wanted, moved=moved)) == {Status.DONE}


@pytest.mark.trap(30, "jmap")
def test_a_removed_account_is_destroyed_and_nobody_else(settled, newly_wanted):
    left = [item for item in newly_wanted if item.address != f"account/{NOREPLY}"]
    before = {item["name"] for item in settled.objects("Account")}
    outcomes = settled.apply(left, removed=frozenset({f"account/{NOREPLY}"}))
    assert statuses(outcomes) == {Status.DONE}
    assert before - {item["name"] for item in settled.objects("Account")} == {"noreply"}


def test_what_was_to_be_removed_must_still_be_the_same(settled, newly_wanted):
    left = [item for item in newly_wanted if item.address != f"account/{NOREPLY}"]
    plan = settled.plan(left, removed=frozenset({f"account/{NOREPLY}"}))
    settled.update("Account", account(settled, "noreply")["id"], name="somebody")
    (outcome,) = settled.target.apply(plan.changes, settled.reveal)
    assert outcome.status is Status.FAILED
    assert "plan again" in outcome.problem.hint
    assert account(settled, "somebody")
    settled.call("Account/set", destroy=[account(settled, "somebody")["id"]])
    (outcome,) = settled.target.apply(plan.changes, settled.reveal)
    assert outcome.status is Status.DONE


@pytest.mark.trap(17, "jmap")
def test_a_password_is_replaced_and_other_credentials_stay(newer):
    newer.apply([Domain("mana.how"), user(NOREPLY)])
    stored = account(newer, "noreply")
    assert list(stored["credentials"]) == ["0"]
    newer.requests()
    newer.secrets["NOREPLY"] = "an0ther secret"
    (outcome,) = newer.apply([Domain("mana.how"), user(NOREPLY)]).values()
    ((_, arguments, _),) = newer.requests()[-1]
    ((patch,),) = [arguments["update"].values()]
    assert list(patch) == ["credentials/0/secret"]
    assert patch["credentials/0/secret"].startswith("$argon2id$")
    assert outcome.status is Status.DONE
    assert logs_in(newer, NOREPLY, "an0ther secret")


def test_an_account_without_a_password_gets_one(newer):
    newer.apply([Domain("mana.how"), user(NOREPLY, password=UNMANAGED)])
    assert account(newer, "noreply")["credentials"] == {}
    assert statuses(newer.apply([Domain("mana.how"), user(NOREPLY)])) == {Status.DONE}
    assert logs_in(newer, NOREPLY, "n0reply secret")


def test_a_password_its_owner_may_change_is_only_set_at_creation(newer):
    free = user(NOREPLY, enforce_password=False)
    assert statuses(newer.apply([Domain("mana.how"), free])) == {Status.DONE}
    assert logs_in(newer, NOREPLY, "n0reply secret")
    newer.secrets["NOREPLY"] = "an0ther secret"
    assert newer.plan([Domain("mana.how"), free]).pending == ()


def test_groups_and_roles_are_found_by_name(newer):
    newer.apply([Domain("mana.how")])
    domain = newer.objects("Domain")[0]["id"]
    newer.create("Account", **{"@type": "Group"}, name="staff", domainId=domain)
    newer.create("Account", **{"@type": "Group"}, name="sales", domainId=domain)
    newer.create("Role", description="Newsletter")
    wanted = [Domain("mana.how"), user(NOREPLY, groups=("staff", "sales@mana.how"), roles=("user", "newsletter"))]
    assert statuses(newer.apply(wanted)) == {Status.DONE}
    assert newer.plan(wanted).pending == ()
    assert len(account(newer, "noreply")["memberGroupIds"]) == 2
    wanted = [Domain("mana.how"), user(NOREPLY, groups=("sales@mana.how",), roles=("user",))]
    assert statuses(newer.apply(wanted)) == {Status.DONE}
    assert newer.plan(wanted).pending == ()
    assert account(newer, "noreply")["roles"] == {"@type": "User"}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"roles": ("user", "newsletter")}, "the server has no role newsletter; it has admin, group"),
        ({"groups": ("staff",)}, "the server has no group staff"),
    ],
)
def test_what_an_account_asks_for_in_vain_is_told_at_plan_time(newer, more, words):
    newer.apply([Domain("mana.how")])
    newer.create("Account", **{"@type": "Group"}, name="crew", domainId=newer.objects("Domain")[0]["id"])
    plan = newer.plan([Domain("mana.how"), user(NOREPLY, **more)])
    (problem,) = plan.errors
    assert words in problem.summary
    assert "kept without it" in problem.hint
    assert statuses(newer.apply([Domain("mana.how"), user(NOREPLY, **more)])) == {Status.DONE}
    assert account(newer, "noreply")["roles"] == {"@type": "User"}


def test_a_bare_name_is_an_address_of_the_default_domain(newer):
    bare = Account("admin", "admin", roles=("admin",), password=ref("ADMIN"))
    wanted = [Domain("mana.how"), bare, Setting("hostname", "mail.mana.how"), Setting("default_domain", "mana.how")]
    assert statuses(newer.apply(wanted)) == {Status.DONE}
    assert account(newer, "admin")["emailAddress"] == "admin@mana.how"
    assert newer.plan(wanted).pending == ()
    assert live(newer, wanted, "account/admin").email == "admin@mana.how"


def test_a_bare_name_needs_a_default_domain(newer):
    newer.connect(setup=None)
    (problem,) = newer.plan([Account("admin", "admin", roles=("admin",))]).errors
    assert "declare stalwart.default_domain" in problem.hint


def test_two_names_of_one_account_are_told(newer):
    bare = Account("admin", "admin", roles=("admin",), password=ref("ADMIN"))
    newer.apply([Domain("mana.how"), bare])
    plan = newer.plan([Domain("mana.how"), bare, user("admin@mana.how")])
    assert "is the same account from 0.16" in str(plan.errors[0])


@pytest.mark.trap(11, "jmap")
def test_an_account_gets_a_role_even_where_none_is_declared(newer):
    newer.apply([Domain("mana.how"), user(NOREPLY, roles=UNMANAGED)])
    assert account(newer, "noreply")["roles"] == {"@type": "User"}
    assert logs_in(newer, NOREPLY, "n0reply secret")


@pytest.mark.trap(10, "jmap")
@pytest.mark.trap(31, "jmap")
def test_what_the_server_made_is_never_removed(settled, newly_wanted, keys):
    domain = settled.objects("Domain")[0]["id"]
    body = {"@type": "Dkim1Ed25519Sha256", "domainId": domain, "selector": "old", "stage": "retired"}
    settled.create("DkimSignature", **body, privateKey={"@type": "Text", "secret": keys["ED2"]})
    kinds = ("Role", "NetworkListener", "DkimSignature", "Account")
    before = {kind: len(settled.objects(kind)) for kind in kinds}
    plan = settled.plan(newly_wanted)
    assert plan.pending == ()
    assert "dkim/mana.how/old" in plan.unmanaged
    assert not any("account/admin" in address for address in plan.unmanaged)
    list(settled.target.apply(plan.changes, settled.reveal))
    assert {kind: len(settled.objects(kind)) for kind in kinds} == before


# ------------------------------------------------------------------------------------------------------- domains
@pytest.mark.trap(26, "jmap")
@pytest.mark.trap(27, "jmap")
def test_a_domain_made_by_us_is_manual(newer):
    newer.apply([Domain("mana.how")])
    (domain,) = newer.objects("Domain")
    managed = ("dkimManagement", "dnsManagement", "certificateManagement")
    assert {domain[name]["@type"] for name in managed} == {"Manual"}


@pytest.mark.trap(28, "jmap")
def test_two_writers_are_a_problem_until_the_domain_is_adopted(newer):
    newer.create("Domain", name="mana.how", dkimManagement={"@type": "Automatic"})
    warning = next(it for it in newer.plan([Domain("mana.how"), user(NOREPLY)]).problems if "Automatic" in it.summary)
    assert (warning.severity, "two writers" in warning.summary) == (Severity.WARNING, False)
    own = Signature("mana.how", "s1", "ed25519", UNKNOWN, private_key=SecretRef("env", "KEY"))
    plan = newer.plan([Domain("mana.how"), user(NOREPLY), own])
    (problem,) = plan.errors
    assert problem.where == "domain/mana.how"
    assert "adopt: [domain/mana.how]" in problem.hint
    assert [change.address for change in plan.changes] == [f"account/{NOREPLY}", own.address]
    wanted = [Domain("mana.how", manual=True), user(NOREPLY)]
    assert newer.plan(wanted).errors == ()
    assert statuses(newer.apply(wanted)) == {Status.DONE}
    assert newer.objects("Domain")[0]["dkimManagement"] == {"@type": "Manual"}
    plan = newer.plan([Domain("mana.how"), user(NOREPLY)])
    assert (plan.pending, plan.errors) == ((), ())


def test_a_domain_that_is_another_one_s_alias_is_told_at_plan_time(newer):
    newer.create("Domain", name="mana.example.org", aliases={"mana.how": True}, dkimManagement={"@type": "Manual"})
    plan = newer.plan([Domain("mana.how"), user(NOREPLY)])
    assert plan.changes == ()
    cause, rest = plan.errors
    assert "an alias of mana.example.org" in cause.summary
    assert (rest.where, f"account/{NOREPLY}" in rest.summary) == (cause.where, True)


@pytest.mark.trap(24, "jmap")
def test_a_domain_in_use_is_not_removed(settled, newly_wanted):
    plan = settled.plan([], removed=frozenset({"domain/mana.how"}))
    (outcome,) = settled.target.apply(plan.changes, settled.reveal)
    assert outcome.status is Status.FAILED
    assert "3 of Account, 2 of DkimSignature, SystemSettings" in outcome.problem.summary
    assert "it is the default domain" in outcome.problem.hint


def test_a_bad_domain_skips_only_what_needs_it(newer):
    wanted = [Domain("bad_name"), Domain("mana.how"), user("a@bad_name"), user(NOREPLY), user("b@mana.how")]
    outcomes = newer.apply(wanted)
    assert {address: item.status for address, item in outcomes.items()} == {
        "domain/bad_name": Status.FAILED,
        "account/a@bad_name": Status.SKIPPED,
        "domain/mana.how": Status.DONE,
        f"account/{NOREPLY}": Status.DONE,
        "account/b@mana.how": Status.DONE,
    }
    assert outcomes["account/a@bad_name"].problem.summary == "domain/bad_name was not done"


# ------------------------------------------------------------------------------------------------------- signatures
def key(keys, name="ED", algorithm="ed25519", selector="s1", **more):
    return Signature("mana.how", selector, algorithm, public_half(algorithm, keys[name]), private_key=ref(name), **more)


def test_a_key_is_replaced_in_place(newer, keys):
    newer.apply([Domain("mana.how"), key(keys)])
    (before,) = newer.objects("DkimSignature")
    wanted = [Domain("mana.how"), key(keys, "ED2")]
    assert statuses(newer.apply(wanted)) == {Status.DONE}
    (after,) = newer.objects("DkimSignature")
    assert (after["id"], after["publicKey"]) == (before["id"], public_half("ed25519", keys["ED2"]))
    assert newer.plan(wanted).pending == ()


def test_another_algorithm_is_another_object_and_the_new_one_comes_first(newer, keys):
    newer.apply([Domain("mana.how"), key(keys)])
    wanted = [Domain("mana.how"), key(keys, "RSA", "rsa")]
    newer.observe(wanted)
    newer.requests()
    assert statuses(newer.apply(wanted)) == {Status.DONE}
    _, *writing = newer.requests()
    written = [arguments for calls in writing for name, arguments, _ in calls if name == "x:DkimSignature/set"]
    verbs = [verb for arguments in written for verb in arguments]
    assert verbs == ["create", "destroy"]
    assert [item["@type"] for item in newer.objects("DkimSignature")] == ["Dkim1RsaSha256"]
    assert newer.fake.signing() == {("mana.how", "s1", "rsa-sha256")}


def test_the_old_key_stays_when_the_new_one_is_refused(newer, keys):
    newer.apply([Domain("mana.how"), key(keys)])
    wanted = [Domain("mana.how"), key(keys, "RSA", "rsa")]

    def refuse(reply):
        return Reply(reply.status, reply.body.replace(b'"created"', b'"notCreated"'))

    assert statuses(faulty(newer, wanted, change=refuse)) == {Status.FAILED}
    assert ("mana.how", "s1", "ed25519-sha256") in newer.fake.signing()


@pytest.mark.trap(27, "jmap")
def test_a_new_selector_signs_at_once_though_the_signers_were_cached(newer, keys):
    newer.apply([Domain("mana.how"), key(keys)])
    assert newer.fake.signing()
    newer.apply([Domain("mana.how"), key(keys), key(keys, "ED2", selector="s2")])
    assert ("mana.how", "s2", "ed25519-sha256") in newer.fake.signing()


def test_a_pending_key_is_made_to_sign(newer, keys):
    newer.apply([Domain("mana.how"), key(keys)])
    newer.update("DkimSignature", newer.objects("DkimSignature")[0]["id"], stage="pending")
    plan = newer.plan([Domain("mana.how"), key(keys)])
    assert list(plan.changes[0].fields) == ["signs"]
    assert statuses(newer.apply([Domain("mana.how"), key(keys)])) == {Status.DONE}
    assert newer.objects("DkimSignature")[0]["stage"] == "active"


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.trap(27, "jmap")
def test_doubles_are_reported_with_the_remedy(newer, keys, same):
    newer.apply([Domain("mana.how"), key(keys)])
    (first,) = newer.objects("DkimSignature")
    body = {"@type": "Dkim1Ed25519Sha256", "domainId": first["domainId"], "selector": "s1"}
    other = newer.create("DkimSignature", **body, privateKey={"@type": "Text", "secret": keys["ED" if same else "ED2"]})
    plan = newer.plan([Domain("mana.how"), key(keys)])
    assert plan.pending == ()
    (problem,) = (item for item in plan.problems if item.where.startswith("dkim/"))
    assert problem.severity is Severity.WARNING
    assert ("the same key" if same else "different keys") in problem.summary
    spare = {first["id"], other} if same else {other}
    assert any(f'"destroy": ["{item}"]' in problem.hint for item in spare)


def test_a_login_that_nothing_declares_and_the_server_refuses_is_told(newer):
    newer.apply([Domain("mana.how")])
    (problem,) = newer.plan([Domain("mana.how")]).problems
    assert problem.severity is Severity.WARNING
    assert "declared password of admin" in problem.summary
    admin = Account("admin", email="admin@mana.how", roles=("admin",), password=SecretRef("env", "ADMIN"))
    assert not [
        item for item in newer.plan([Domain("mana.how"), admin]).problems if "declared password" in item.summary
    ]


def test_a_removed_key_goes_with_its_doubles(newer, keys):
    newer.apply([Domain("mana.how"), key(keys)])
    (first,) = newer.objects("DkimSignature")
    body = {"@type": "Dkim1Ed25519Sha256", "domainId": first["domainId"], "selector": "s1"}
    newer.create("DkimSignature", **body, privateKey={"@type": "Text", "secret": keys["ED2"]})
    outcomes = newer.apply([Domain("mana.how")], removed=frozenset({"dkim/mana.how/s1"}))
    assert statuses(outcomes) == {Status.DONE}
    assert newer.fake.signing() == set()


@pytest.mark.parametrize("algorithm", ["ed25519", "rsa"])
def test_a_key_that_nobody_gives_is_made(newer, algorithm):
    wanted = [Domain("mana.how"), Signature("mana.how", "own", algorithm, UNKNOWN)]
    assert statuses(newer.apply(wanted)) == {Status.DONE}
    assert newer.fake.signing() == {("mana.how", "own", f"{algorithm}-sha256")}
    found = live(newer, wanted, "dkim/mana.how/own")
    assert newer.plan([Domain("mana.how"), replace(found, private_key=None)]).pending == ()


def test_an_rsa_key_that_is_too_short_is_told_at_plan_time(newer):
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

    encoding = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    pem = newer.secrets["SHORT"] = generate_private_key(65537, 1024).private_bytes(*encoding).decode()
    short = Signature("mana.how", "s1", "rsa", public_half("rsa", pem), private_key=ref("SHORT"))
    (problem,) = newer.plan([Domain("mana.how"), short]).errors
    assert "1024 bits" in problem.summary
    newer.create("Domain", name="mana.how", dkimManagement={"@type": "Manual"})
    text = {"@type": "Text", "secret": pem}
    body = {
        "@type": "Dkim1RsaSha256",
        "domainId": newer.objects("Domain")[0]["id"],
        "selector": "s",
        "privateKey": text,
    }
    refused = newer.call("DkimSignature/set", create={"x": body})["notCreated"]["x"]
    assert "TooSmall" in refused["description"]


def test_a_key_that_does_not_fit_is_told_at_plan_time(newer, keys):
    newer.apply([Domain("mana.how")])
    wrong = replace(key(keys), private_key=ref("ED2"))
    plan = newer.plan([Domain("mana.how"), wrong])
    assert plan.changes == ()
    assert "not the private half" in str(plan.errors[0])
    missing = replace(key(keys), private_key=None)
    assert "private_key is missing" in str(newer.plan([Domain("mana.how"), missing]).errors[0])


# ------------------------------------------------------------------------------------------------------- in force
@pytest.mark.trap(19, "jmap")
def test_a_reload_that_fails_is_told_with_the_remedy(newer, newly_wanted):
    newer.fake.no_dns = True
    newer.fake.restart()
    outcomes = newer.apply([item for item in newly_wanted if not isinstance(item, Listener)])
    outcome = outcomes["stalwart/hostname"]
    assert outcome.status is Status.FAILED
    assert "is stored but not in force" in outcome.problem.summary
    assert "SpamPyzor: Invalid address" in outcome.problem.summary
    assert "working DNS" in outcome.problem.hint
    done = {address for address, item in outcomes.items() if item.status is Status.DONE}
    assert {f"account/{NOREPLY}", "dkim/mana.how/mana2026", "domain/mana.how"} <= done


@pytest.fixture
def unreloaded(newer, newly_wanted, tmp_path):
    """Return a server that stored the example's settings and can't reload, and the settings."""
    newer.connect(pending=tmp_path / "pending.json")
    wanted = [item for item in newly_wanted if not isinstance(item, Listener)]
    newer.fake.no_dns = True
    newer.fake.restart()
    newer.apply(wanted)
    return newer, wanted


@pytest.mark.trap(19, "jmap")
def test_what_is_stored_and_not_in_force_stays_due_until_a_reload_succeeds(unreloaded, tmp_path):
    newer, wanted = unreloaded
    for _ in range(2):
        newer.connect(pending=tmp_path / "pending.json")  # another run
        due = {item.address: dict(item.fields) for item in newer.plan(wanted).changes}
        words = ("auto_ban/scan", "default_domain", "hostname", "allowed_ips/172.18.0.0/16")
        assert due == {f"stalwart/{word}": {"in_force": (False, True)} for word in words}
        assert statuses(newer.apply(wanted)) == {Status.FAILED}
    newer.fake.no_dns = False
    newer.fake.restart()
    newer.update("SystemSettings", "singleton", defaultHostname="mail.mana.how")
    assert statuses(newer.apply(wanted)) == {Status.DONE}
    assert newer.fake.hostname == "mail.mana.how"
    assert newer.plan(wanted).changes == ()


def test_a_network_taken_back_before_it_was_in_force_stays_due(unreloaded, tmp_path):
    newer, wanted = unreloaded
    address = "stalwart/allowed_ips/172.18.0.0/16"
    left = [item for item in wanted if item.address != address]
    newer.apply(left, removed=frozenset({address}))
    assert newer.call("AllowedIp/get", ids=None)["list"] == []
    assert address in {item.address for item in newer.plan(left, removed=frozenset({address})).changes}
    newer.fake.no_dns = False
    newer.fake.restart()
    assert statuses(newer.apply(left, removed=frozenset({address}))) == {Status.DONE}
    assert newer.plan(left, removed=frozenset({address})).changes == ()


def test_a_run_killed_between_storing_and_reloading_is_made_good(newer, newly_wanted, tmp_path):
    newer.connect(pending=tmp_path / "pending.json")
    wanted = [item for item in newly_wanted if not isinstance(item, Listener)]
    plan = newer.plan(wanted)

    class Killed(BaseException):
        pass

    sent = newer.target._connect

    def only_writes(reveal):
        connection = sent(reveal)
        send = connection.send

        def cut(method, path, body=None, reads=False):
            body["methodCalls"] = [call for call in body["methodCalls"] if call[0] != "x:Action/set"]
            send(method, path, body=body, reads=reads)
            raise Killed

        connection.send = cut
        return connection

    newer.target._jmap._connect = only_writes
    with pytest.raises(Killed):
        list(newer.target.apply(plan.changes, newer.reveal))
    assert newer.fake.hostname != "mail.mana.how"
    newer.connect(pending=tmp_path / "pending.json")
    assert "stalwart/hostname" in {item.address for item in newer.plan(wanted).changes}
    assert statuses(newer.apply(wanted)) == {Status.DONE}
    assert newer.fake.hostname == "mail.mana.how"
    assert newer.plan(wanted).changes == ()


@pytest.mark.trap(19, "jmap")
def test_settings_are_in_force_at_once(newer):
    wanted = [Domain("mana.how"), Setting("hostname", "mail.mana.how"), Setting("default_domain", "mana.how")]
    wanted += [user(NOREPLY), AllowedIp("172.18.0.0/16")]
    assert statuses(newer.apply(wanted)) == {Status.DONE}
    assert newer.fake.hostname == "mail.mana.how"
    assert logs_in(newer, "noreply", "n0reply secret")


def test_a_reload_comes_once_for_all(newer, newly_wanted):
    newer.observe(newly_wanted)
    newer.requests()
    newer.apply(newly_wanted)
    calls = [call for request in newer.requests() for call in request]
    actions = [item["@type"] for name, it, _ in calls if name == "x:Action/set" for item in it["create"].values()]
    assert actions == ["ReloadSettings"]


def test_without_docker_it_is_said_what_opens_a_listener(newer):
    (outcome,) = newer.apply([Listener("submission", ("[::]:587",), "smtp")]).values()
    assert outcome.status is Status.DONE
    assert "docker restart" in outcome.notes[0]


# ---------------------------------------------------------------------------------------------------- answers that fail
@pytest.mark.trap(5, "jmap")
def test_after_a_lost_answer_what_is_there_is_done_and_nothing_is_sent_twice(newer, newly_wanted):
    outcomes = faulty(newer, newly_wanted, lose=True)
    assert statuses(outcomes) == {Status.DONE}
    calls = Counter(name for request in newer.requests() for name, _, _ in request)
    assert (calls["x:Account/set"], calls["x:DkimSignature/set"]) == (1, 1)
    assert newer.fake.hostname == "mail.mana.how"
    assert newer.plan(newly_wanted).pending == ()


def test_what_a_lost_answer_leaves_open_is_unknown(newer):
    newer.apply([Domain("mana.how"), user(NOREPLY)])
    newer.secrets["NOREPLY"] = "an0ther secret"
    (outcome,) = faulty(newer, [Domain("mana.how"), user(NOREPLY)], lose=True).values()
    assert outcome.status is Status.UNKNOWN
    assert "perhaps this address is banned" in outcome.problem.summary
    assert logs_in(newer, NOREPLY, "an0ther secret")


def test_what_was_not_carried_out_is_unknown_and_made_by_the_next_run(newer, newly_wanted):
    outcomes = faulty(newer, newly_wanted, refuse=True)
    assert statuses(outcomes) == {Status.UNKNOWN}
    assert newer.call("Account/get", ids=None)["list"] == []
    assert statuses(newer.apply(newly_wanted)) == {Status.DONE}


def test_a_server_that_goes_is_told_for_each_change(newer, newly_wanted):
    busy = Reply.of({"title": "Service Unavailable"}, 503)
    outcomes = faulty(newer, newly_wanted, times=9, reply=busy)
    assert statuses(outcomes) == {Status.FAILED}
    assert "answers 503" in str(outcomes["stalwart/hostname"].problem)


@pytest.mark.trap(3, "jmap")
def test_what_is_in_neither_map_failed(newer):
    def silent(reply):
        return Reply(reply.status, reply.body.replace(b'"created"', b'"nothing"'))

    (outcome,) = faulty(newer, [Domain("mana.how")], change=silent).values()
    assert outcome.status is Status.FAILED
    assert "did not say whether it did this" in outcome.problem.summary


def test_a_refused_object_fails_alone(newer):
    newer.apply([Domain("mana.how")])
    domain = newer.objects("Domain")[0]["id"]
    newer.create("MailingList", name="noreply", domainId=domain, recipients={"a@mana.how": True})
    outcomes = newer.apply([Domain("mana.how"), user(NOREPLY), user("b@mana.how")])
    assert outcomes[f"account/{NOREPLY}"].status is Status.FAILED
    assert "addresses are unique" in outcomes[f"account/{NOREPLY}"].problem.hint
    assert outcomes["account/b@mana.how"].status is Status.DONE


def test_a_stop_begins_no_further_request(newer):
    wanted = [Domain("mana.how"), *(user(f"user{number}@mana.how", password=UNMANAGED) for number in range(3))]
    plan = newer.plan(wanted)
    newer.requests()
    assert list(newer.target.apply(plan.changes, newer.reveal, lambda: True)) == []
    assert newer.requests() == []


def test_an_account_without_rights_is_told(newer):
    newer.apply([Domain("mana.how"), user("admin@mana.how", password=ref("ADMIN"))])
    newer.connect(recovery=None)
    (problem,) = newer.observe([Domain("mana.how")]).problems
    assert "does not let admin" in problem.summary
    assert "the role admin" in problem.hint


def test_no_secret_is_told_anywhere(newer, newly_wanted):
    echo = Reply.of({"type": "urn:ietf:params:jmap:error:notRequest", "detail": "n0reply secret"}, 400)
    outcomes = faulty(newer, newly_wanted, reply=echo)
    assert statuses(outcomes) == {Status.FAILED}
    text = f"{newer.plan(newly_wanted)} {outcomes}"
    assert all(value not in text for name, value in newer.secrets.items() if name != "POSTMASTER")
    assert "$6$" not in text
    assert "$argon2" not in text


def test_an_own_new_password_is_used_from_the_next_request_on(newer, newly_wanted):
    newer.apply(newly_wanted)
    newer.secrets["ADMIN"] = "a n3w password"
    newer.connect(passwords=[ref("ADMIN"), ref("OLD")], recovery=None)
    newer.secrets["OLD"] = "adm1n-passw0rd"
    assert statuses(newer.apply(newly_wanted)) == {Status.DONE}
    assert logs_in(newer, "admin@mana.how", "a n3w password")
    assert newer.plan(newly_wanted).pending == ()


def test_each_kind_of_the_target_has_a_home():
    assert {kind.resource for kind in target.KINDS} == {kind for kind in KINDS if kind.target == "stalwart"}
