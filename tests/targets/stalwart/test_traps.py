"""One test for each trap of Stalwart up to 0.15, by its number in ``stalwart/traps.md``; those of 0.16 lie beside."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.keys import public_half, public_key
from reconciler.resources import (
    UNMANAGED,
    Account,
    Different,
    Domain,
    Listener,
    Same,
    SecretRef,
    Setting,
    Signature,
)
from reconciler.simulator.wire import Fault, Reply, Server
from reconciler.target import Status
from reconciler.targets.stalwart.container import Container, causes

# The traps marked [15] or [both], then [16] or [both]; traps.md itself is not part of the package.
NUMBERS = {
    *(1, 2, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 19, 20, 21, 22, 23, 25, 26),
    *(28, 29, 30, 31, 32, 34, 35, 36, 37, 40, 41),
}
NEWER_NUMBERS = {*(3, 4, 5, 6, 8, 9, 10, 11, 17, 18, 19, 23, 24, 26, 27, 28, 29, 30, 31, 33, 34, 35, 38, 39, 40, 41)}
TESTS = Path(__file__).parents[2]


def ref(name):
    return SecretRef("env", name)


def account(observation, name):
    return next(item.resource for item in observation.live if item.resource.address == f"account/{name}")


NOREPLY = Account("noreply@mana.how", "noreply", "noreply@mana.how", None, ("user",), password=ref("NOREPLY"))


# ---------------------------------------------------------------------------------------------------------- protocol
@pytest.mark.trap(1, "rest")
def test_an_error_with_status_200_is_an_error(world, wanted):
    outcomes = world.apply([NOREPLY])  # its domain is not there
    outcome = outcomes[NOREPLY.address]
    assert outcome.status is Status.FAILED
    assert "knows no mana.how" in str(outcome.problem)
    assert {item.status for item in outcomes.values()} == {Status.FAILED}


@pytest.mark.trap(2, "rest")
def test_settings_are_texts_in_pairs_with_assert_empty(world):
    wanted = [Setting("settings/x.number", 5), Setting("settings/x.truth", value=True)]
    assert {item.status for item in world.apply(wanted).values()} == {Status.DONE}
    assert world.fake.settings.merged()["x.truth"] == "true"
    assert world.plan(wanted).changes == ()


@pytest.mark.trap(5, "both")
def test_an_apply_that_stops_half_way_is_finished_by_the_next(world, wanted):
    plan = world.plan(wanted)
    world.server.faults.append(Fault(times=99, after=3, refuse=True))
    assert {item.status for item in world.target.apply(plan.changes, world.reveal)} > {Status.DONE}
    world.server.faults.clear()
    world.apply(wanted)
    assert world.plan(wanted).changes == ()


@pytest.mark.trap(6, "rest")
def test_the_listing_asks_for_all_and_checks_the_total(world):
    world.make(type="domain", name="mana.how")
    for number in range(60):
        world.make(type="individual", name=f"user{number}", emails=[f"user{number}@mana.how"], roles=["user"])
    assert sum(isinstance(item.resource, Account) for item in world.observe().live) == 60

    def shorten(reply):
        import json

        body = json.loads(reply.body)
        body["data"]["items"] = body["data"]["items"][:50]
        return Reply.of(body)

    world.server.faults.append(Fault("GET", "/api/principal", change=shorten))
    observation = world.observe()
    assert observation.unread == {"stalwart"}
    assert "lists 50 of 61" in str(observation.problems[0])


@pytest.mark.trap(7, "rest")
def test_a_key_with_few_rights_may_list(world):
    names = [f"{kind}-list" for kind in ("individual", "group", "domain", "mailing-list", "principal")]
    rights = ["authenticate", "settings-list", *names]
    world.make(type="apiKey", name="scoped", secrets=["key-secret"], enabledPermissions=rights)
    world.secrets["KEY"] = "key-secret"
    world.connect(username="scoped", passwords=[ref("KEY")])
    assert world.observe().problems == ()


@pytest.mark.trap(8, "both")
def test_the_rate_limit_is_waited_for(world, wanted):
    limit = Reply.of({"title": "Too Many Requests", "status": 429}, 429, Retry_After="0")
    plan = world.plan(wanted)
    world.server.faults.append(Fault("POST", "/api/principal", times=2, reply=limit))
    assert {item.status for item in world.target.apply(plan.changes, world.reveal)} == {Status.DONE}
    assert any("rate limit" in text for text in world.said)
    assert world.plan(wanted).changes == ()


# ---------------------------------------------------------------------------------------------------------- identity
@pytest.mark.trap(9, "rest")
def test_names_are_looked_up_in_lower_case(world):
    wanted = [Domain("mana.how"), replace(NOREPLY, login="noreply", email="noreply@mana.how")]
    world.make(type="domain", name="mana.how")
    world.make(type="individual", name="NoReply", emails=["NoReply@mana.how"], roles=["user"])
    assert {item.address for item in world.plan(wanted).changes} == {NOREPLY.address}  # its password
    world.apply(wanted)
    assert world.plan(wanted).changes == ()
    world.apply([], removed=frozenset({NOREPLY.address}))
    assert world.call("GET", "/api/principal/noreply")["error"] == "notFound"


@pytest.mark.trap(10, "rest")
def test_the_fallback_administrator_is_another_and_left_alone(world, wanted):
    before = {key: value for key, value in world.fake.settings.file.items() if "fallback" in key}
    assert not any(isinstance(item.resource, Account) for item in world.observe(wanted).live)
    world.apply(wanted)
    world.apply([item for item in wanted if item.address != "account/admin"], removed=frozenset({"account/admin"}))
    assert {key: value for key, value in world.fake.settings.file.items() if "fallback" in key} == before
    assert world.observe(wanted).complete


@pytest.mark.trap(11, "rest")
def test_an_account_always_gets_roles(world):
    world.apply([Domain("mana.how"), replace(NOREPLY, roles=UNMANAGED)])
    assert world.principal("noreply")["roles"] == ["user"]


@pytest.mark.trap(12, "rest")
def test_changing_roles_keeps_groups_and_lists(world):
    world.apply([Domain("mana.how"), NOREPLY])
    world.make(type="group", name="staff")
    world.make(type="list", name="news")
    for field, value in (("memberOf", "staff"), ("lists", "news")):
        world.call("PATCH", "/api/principal/noreply", [{"action": "addItem", "field": field, "value": value}])
    world.apply([Domain("mana.how"), replace(NOREPLY, roles=("admin",))])
    found = world.principal("noreply")
    assert (found["roles"], found["memberOf"], found["lists"]) == (["admin"], ["staff"], ["news"])


@pytest.mark.trap(13, "rest")
def test_order_of_aliases_and_absent_values_are_no_drift(world):
    aliases = tuple(sorted(("zeta@mana.how", "alpha@mana.how")))
    wanted = [Domain("mana.how"), replace(NOREPLY, aliases=aliases, groups=(), description=None, quota=None)]
    world.apply(wanted)
    world.call("PATCH", "/api/principal/noreply", [{"action": "set", "field": "description", "value": ""}])
    assert world.plan(wanted).changes == ()
    world.call("PATCH", "/api/principal/noreply", [{"action": "set", "field": "quota", "value": 0}])
    assert [set(item.fields) for item in world.plan(wanted).changes] == [{"quota"}]
    world.apply(wanted)
    assert world.plan(wanted).changes == ()


# ---------------------------------------------------------------------------------------------------------- secrets
@pytest.mark.trap(14, "rest")
def test_nothing_observed_or_reported_holds_a_secret(world, wanted, keys):
    world.apply(wanted)
    world.call("PATCH", "/api/principal/noreply", [{"action": "addItem", "field": "secrets", "value": "in-clear-text"}])
    world.store({"signature.ed25519-mana.how.private-key": "-----BEGIN PRIVATE KEY-----\nbroken\n"})
    observation = world.observe(wanted)
    outcomes = world.target.apply(world.plan(wanted).changes, world.reveal)
    text = repr(observation) + repr(list(outcomes)) + repr(world.plan(wanted))
    stored = [secret for item in world.fake.dump()["directory"]["principals"] for secret in item.get("secrets", [])]
    for secret in (*world.secrets.values(), *stored, "in-clear-text", "BEGIN PRIVATE", "broken\n"):
        assert secret not in text
    assert len(observation.problems) == 2


@pytest.mark.trap(15, "rest")
def test_passwords_are_sent_as_a_hash_and_only_enforced_ones_are_set_again(world):
    wanted = [Domain("mana.how"), NOREPLY]
    world.apply(wanted)
    assert all(b"n0reply secret" not in item.body for item in world.server.requests)
    world.secrets["NOREPLY"] = "changed"
    assert account(world.observe(wanted), "noreply@mana.how").password == Different()
    free = [Domain("mana.how"), replace(NOREPLY, enforce_password=False)]
    world.revealed.clear()
    assert world.plan(free).changes == ()
    assert world.revealed == []


@pytest.mark.trap(16, "rest")
def test_a_new_password_keeps_app_passwords_and_one_time_seeds(world):
    world.apply([Domain("mana.how"), NOREPLY])
    own = ["$app$phone$$6$saltsaltsaltsalt$x", "otpauth://totp/x?secret=ABC"]
    for secret in own:
        world.call("PATCH", "/api/principal/noreply", [{"action": "addItem", "field": "secrets", "value": secret}])
    assert world.plan([Domain("mana.how"), NOREPLY]).changes == ()
    world.secrets["NOREPLY"] = "changed"
    world.apply([Domain("mana.how"), NOREPLY])
    secrets = world.principal("noreply")["secrets"]
    assert set(own) < set(secrets)
    assert len(secrets) == 3
    assert account(world.observe([NOREPLY]), "noreply@mana.how").password == Same(ref("NOREPLY"))


# ---------------------------------------------------------------------------------------------------------- settings
@pytest.mark.trap(19, "rest")
def test_a_reload_with_errors_is_no_success(world):
    world.fake.spam_host_broken = True
    wanted = [Setting("hostname", "mail.mana.how")]
    (outcome,) = world.apply(wanted).values()
    assert outcome.status is Status.FAILED
    assert "spam-filter.pyzor.host" in str(outcome.problem)
    assert len(world.plan(wanted).changes) == 1  # stored, and not in force
    remedy = [*wanted, Setting("settings/spam-filter.pyzor.enable", "false")]
    assert {item.status for item in world.apply(remedy).values()} == {Status.DONE}
    assert world.fake.core.hostname == "mail.mana.how"
    assert world.plan(remedy).changes == ()


@pytest.mark.trap(20, "rest")
def test_a_database_key_in_the_file_is_named_and_not_fought(world):
    world.fake.config_toml += 'lookup.default.hostname = "old.mana.how"\n'
    world.fake.restart()
    (outcome,) = world.apply([Setting("hostname", "mail.mana.how")]).values()
    assert outcome.status is Status.FAILED
    assert "config.toml" in outcome.problem.hint


@pytest.mark.trap(21, "rest")
def test_what_is_edited_in_the_file_counts_after_a_restart(world):
    world.fake.config_toml += 'lookup.default.hostname = "old.mana.how"\n'
    world.fake.restart()
    wanted = [Setting("hostname", "mail.mana.how")]
    (outcome,) = world.apply(wanted).values()
    assert "restart the container: a reload does not read the file" in outcome.problem.hint
    world.fake.config_toml = world.fake.config_toml.replace('lookup.default.hostname = "old.mana.how"\n', "")
    (outcome,) = world.apply(wanted).values()
    assert outcome.status is Status.FAILED
    world.fake.restart()
    world.apply(wanted)
    assert world.plan(wanted).changes == ()


@pytest.mark.trap(22, "rest")
def test_removing_takes_no_neighbour_along(world, keys):
    pems = {"mana.how": "ED", "mana.how.au": "ED2"}
    wanted = [
        Signature(domain, "s1", "ed25519", public_half("ed25519", keys[name]), private_key=ref(name))
        for domain, name in pems.items()
    ]
    wanted += [Listener("mail", ("[::]:2525",), "smtp"), Listener("mail2", ("[::]:2526",), "smtp")]
    world.apply(wanted)
    gone = frozenset({"dkim/mana.how/s1", "stalwart/listeners/mail"})
    rest = [item for item in wanted if item.address not in gone]
    world.apply(rest, removed=gone)
    assert world.plan(rest).changes == ()
    names = set(world.fake.settings.merged())
    assert {"signature.ed25519-mana.how.au.selector", "server.listener.mail2.bind"} <= names
    assert not {"signature.ed25519-mana.how.selector", "server.listener.mail.bind"} & names


@pytest.mark.trap(23, "rest")
def test_a_macro_in_place_of_a_key_is_told(world, wanted):
    world.apply(wanted)
    world.store({"signature.ed25519-mana.how.private-key": "%{file:/opt/key.pem}%"})
    (problem,) = world.observe(wanted).problems
    assert "macro" in str(problem)


# ---------------------------------------------------------------------------------------------------------- DKIM, DNS
@pytest.mark.trap(25, "rest")
def test_keys_get_the_ids_that_sign_and_forms_the_server_reads(world, wanted):
    world.apply(wanted)
    for name in ("ed25519-mana.how", "rsa-mana.how"):
        assert "data" in world.call("GET", f"/api/dkim/{name}")
    assert "RSA PRIVATE" in world.fake.settings.merged()["signature.rsa-mana.how.private-key"]


@pytest.mark.trap(26, "both")
def test_a_restore_brings_the_published_key_back_before_the_server_makes_one(world, wanted):
    world.apply(wanted)
    published = world.call("GET", "/api/dkim/rsa-mana.how")["data"]
    world.fake.wipe()
    world.server.forget()
    world.apply(wanted)
    assert world.call("GET", "/api/dkim/rsa-mana.how")["data"] == published
    assert "POST /api/dkim" not in world.server.counts
    bare = [replace(item, private_key=None) if isinstance(item, Signature) else item for item in wanted]
    world.fake.wipe()
    problem = next(item for item in world.plan(bare).errors if item.where == "dkim/mana.how/rsa2026")
    assert "private_key is not given" in str(problem)
    assert "dkim/mana.how/rsa2026" not in world.apply(bare)


@pytest.mark.trap(28, "rest")
def test_the_servers_own_opinion_of_dns_is_never_asked(world, wanted):
    world.apply(wanted)
    world.plan(wanted)
    assert not any("/api/dns/" in item.path for item in world.server.requests)


@pytest.mark.trap(29, "jmap")
@pytest.mark.trap(29, "both")
def test_a_long_key_is_the_same_however_dns_cuts_it(world, wanted):
    world.apply(wanted)
    found = next(item.resource for item in world.observe(wanted).live if item.id == "rsa-mana.how")
    assert len(found.public_key) > 255
    cut = f"{found.public_key[:255]} \n\t{found.public_key[255:]}"
    assert public_key("rsa", cut) == found.public_key


# ---------------------------------------------------------------------------------------------------------- pruning
@pytest.mark.trap(30, "both")
def test_nothing_is_deleted_because_it_is_not_declared(world, wanted):
    world.apply(wanted)
    plan = world.plan([])
    assert plan.changes == ()
    assert {"domain/mana.how", "account/noreply@mana.how", "dkim/mana.how/rsa2026"} <= set(plan.unmanaged)
    plan = world.plan(wanted[:1] + wanted[2:], removed=frozenset({"account/admin"}))
    assert [(item.address, item.deletes) for item in plan.changes] == [("account/admin", True)]


@pytest.mark.trap(31, "both")
def test_what_the_server_made_itself_is_left(world, wanted):
    before = dict(world.fake.dump()["database"])
    world.apply(wanted)
    after = world.fake.dump()["database"]
    kept = {key for key in before if key != "queue.limiter.inbound.ip.rate"}
    assert {key: after.get(key) for key in kept} == {key: before[key] for key in kept}


@pytest.mark.trap(32, "rest")
def test_the_report_domain_that_the_server_sets_is_no_drift(world):
    wanted = [Domain("mana.how")]
    world.apply(wanted)
    assert world.fake.settings.merged()["report.domain"] == "mana.how"
    plan = world.plan(wanted)
    assert (plan.changes, [item for item in plan.unmanaged if "report" in item]) == ((), [])
    assert world.plan([*wanted, Setting("default_domain", "mana.how")]).changes == ()


# ---------------------------------------------------------------------------------------------------------- bans
@pytest.mark.trap(34, "both")
def test_a_refused_password_is_never_tried_again(world, wanted):
    world.fake.bans.trust_loopback = False
    plan = world.plan(wanted)
    world.secrets["ADMIN"] = "wrong"
    world.connect()
    world.server.forget()
    for _ in range(150):
        observation = world.observe(wanted)
    assert "refuses the password" in str(observation.problems[0])
    outcomes = list(world.target.apply(plan.changes, world.reveal))
    assert {item.status for item in outcomes} == {Status.FAILED, Status.SKIPPED}
    assert all("refuses the password" in str(item.problem) for item in outcomes)
    assert sum("authorization" in item.headers for item in world.server.requests) == 1
    assert world.fake.dump()["blocked"] == []


@pytest.mark.trap(35, "rest")
def test_a_closed_connection_is_called_a_ban_with_the_way_out(world):
    world.fake.bans.trust_loopback = False
    world.store({"server.blocked-ip.127.0.0.1": ""})
    world.call("GET", "/api/reload/server.blocked-ip")
    observation = world.observe()
    (problem,) = observation.problems
    assert "perhaps this address is banned" in problem.summary
    assert "server.blocked-ip.ADDRESS" in problem.hint
    assert "/api/reload/server.blocked-ip" in problem.hint
    assert not observation.lost


@pytest.mark.trap(36, "rest")
def test_no_name_makes_a_path_that_only_scanners_ask_for(world):
    world.fake.bans.trust_loopback = False
    wanted = [
        Domain("mana.how"),
        replace(NOREPLY, name="x.php@mana.how", login="../wp-admin/x.php", email="x.php@mana.how"),
    ]
    world.apply(wanted)
    changed = [wanted[0], replace(wanted[1], description="changed")]
    world.apply(changed)
    assert world.plan(changed).changes == ()
    world.apply([], removed=frozenset({wanted[1].address}))
    assert world.fake.dump()["blocked"] == []
    assert not any("../" in item.raw_path for item in world.server.requests)


# -------------------------------------------------------------------------------------------------------- fresh volume
@pytest.mark.trap(37, "rest")
def test_a_changed_first_password_is_explained(world, wanted):
    world.fake.environment["STALWART_ADMIN_PASSWORD"] = world.secrets["ADMIN"] = "changed later"
    world.fake.restart()
    (problem,) = world.observe(wanted).problems
    assert "STALWART_ADMIN_PASSWORD" in problem.hint
    assert "empty volume" in problem.hint


@pytest.mark.trap(40, "both")
def test_loss_is_seen_by_what_is_missing_and_not_by_health(world, wanted):
    world.apply(wanted)
    world.fake.wipe()
    assert world.call("GET", "/healthz/ready")["status"] == 200
    world.server.forget()
    assert world.observe(wanted).lost
    assert not any("healthz" in item.path for item in world.server.requests)


@pytest.mark.trap(41, "both")
def test_a_server_that_is_still_starting_is_no_loss(world, wanted):
    world.server.faults.append(Fault(reply=Reply.of({}, 503)))
    observation = world.observe(wanted)
    assert (observation.lost, observation.unread) == (False, {"stalwart"})
    assert "starting" in observation.problems[0].hint
    world.connect(url="http://127.0.0.1:9")
    assert "wait: a first start downloads" in world.observe(wanted).problems[0].hint


@pytest.mark.trap(42, "both")
def test_a_moved_tag_is_told_and_the_other_generation_refused(world, wanted):
    assert "is not pinned" in str(causes(Container("mana-mail", "stalwartlabs/stalwart:latest"))[-1])

    def newer(request):
        if request.path == "/.well-known/oauth-protected-resource":
            return Reply.of({"resource": ""})
        return Reply.of({"title": "Not Found"}, 404)

    with Server(newer) as server:
        world.connect(url=server.url, generation="rest")
        observation = world.observe(wanted)
    assert (observation.lost, observation.unread) == (False, {"stalwart"})
    assert "generation is rest" in str(observation.problems[0])


# ---------------------------------------------------------------------------------------------------------- all of them
def carried(*generations, beside=None):
    """Return the numbers that tests of some generations carry, anywhere but in one file."""
    texts = [path.read_text() for path in TESTS.rglob("test_*.py") if path != beside]
    found = [match for text in texts for match in re.findall(r'\btrap\((\d+), "(\w+)"', text)]
    return {int(number) for number, generation in found if generation in generations}


def carried_by_newer():
    """Return the numbers with a test against 0.16; in this file "both" is tested against 0.15."""
    return carried("jmap") | carried("both", beside=Path(__file__))


def test_every_trap_has_a_test():
    assert NUMBERS - carried("rest", "both") == set()
    assert NEWER_NUMBERS - carried_by_newer() == set()


def test_the_list_of_traps_is_whole(facts):
    page = facts("stalwart/traps.md")
    for numbers, mark in ((NUMBERS, r"\[(15|both)\]"), (NEWER_NUMBERS, r"\[(16|both)\]")):
        marked = {
            int(match[1])
            for line in page.read_text().splitlines()
            if (match := re.match(r"(\d+)\. ", line)) and re.search(mark, line)
        }
        assert marked == numbers
