"""Stalwart up to 0.15 over real HTTP: observing, applying, and what goes wrong on the way."""

import json
from dataclasses import replace

import httpx
import pytest

from reconciler.keys import public_half
from reconciler.problem import Severity
from reconciler.resources import (
    UNKNOWN,
    Account,
    AllowedIp,
    Different,
    Domain,
    Listener,
    Same,
    SecretRef,
    Setting,
    Signature,
    Unreadable,
)
from reconciler.simulator.wire import Fault, Reply, Server
from reconciler.target import Action, Status

DONE = Status.DONE


def ref(name):
    return SecretRef("env", name)


def statuses(outcomes):
    return {address: item.status.value for address, item in outcomes.items()}


def accounts(observation):
    return {item.resource.name: item.resource for item in observation.live if isinstance(item.resource, Account)}


def signatures(observation):
    return {item.id: item.resource for item in observation.live if isinstance(item.resource, Signature)}


# ---------------------------------------------------------------------------------------------------------- the round
def test_an_empty_server_becomes_what_is_wanted_and_stays(world, wanted):
    plan = world.plan(wanted)
    assert plan.lost == {"stalwart"}
    outcomes = world.apply(wanted)
    assert set(statuses(outcomes).values()) == {"done"}
    world.server.forget()
    again = world.plan(wanted)
    assert (again.changes, again.problems, again.unread) == ((), (), frozenset())
    assert again.unmanaged == tuple(
        sorted(f"stalwart/listeners/{item.name}" for item in world.fake.listeners if item.name != "submission")
    )
    assert sum(world.server.counts.values()) == 3  # one of them tells the generation
    assert world.server.writes() == []
    assert world.fake.signing() == {
        ("mana.how", "mana2026", "ed25519-sha256"),
        ("mana.how", "rsa2026", "rsa-sha256"),
    }
    assert world.fake.core.hostname == "mail.mana.how"
    assert world.fake.core.rates["server.auto-ban.scan.rate"] is None
    assert not any(key.startswith("reconciler.") for key in world.fake.settings.merged())


def test_people_can_log_in_with_the_passwords_that_are_wanted(world, wanted):
    world.apply(wanted)
    for login, password in (("noreply", "n0reply secret"), ("postmaster", "p0stmaster secret")):
        answer = httpx.get(f"{world.server.url}/api/account/auth", auth=(login, password), verify=False)
        assert answer.status_code == 200, login


def test_few_requests_carry_a_restore(world, wanted):
    plan = world.plan(wanted)
    world.server.forget()
    list(world.target.apply(plan.changes, world.reveal))
    writes = world.server.writes()
    assert writes.count("POST /api/principal") == 4
    assert writes.count("POST /api/settings") == 2  # everything, and that it is in force
    assert world.server.counts["GET /api/reload"] == 1


def test_a_wiped_volume_is_recognised_and_restored_with_the_same_keys(world, wanted):
    world.apply(wanted)
    before = signatures(world.observe(wanted))
    world.fake.wipe()
    plan = world.plan(wanted)
    assert plan.lost == {"stalwart"}
    assert {str(change.reason) for change in plan.changes if change.kind in ("domain", "account", "dkim")} == {"lost"}
    world.apply(wanted)
    assert signatures(world.observe(wanted)) == before
    assert world.plan(wanted).changes == ()


def test_one_domain_that_is_left_is_no_loss(world, wanted):
    world.make(type="domain", name="mana.how")
    assert not world.observe(wanted).lost


def test_what_is_not_ours_stays_as_it_is(world, wanted):
    world.make(type="domain", name="other.example")
    world.make(type="individual", name="guest", emails=["guest@other.example"], roles=["user"], secrets=["$app$x$y"])
    world.make(type="group", name="staff")
    world.store({"queue.route.relay.address": "smtp.example.net", "server.blocked-ip.203.0.113.9": ""})
    before = world.fake.dump()
    world.apply(wanted)
    after = world.fake.dump()
    assert [item for item in before["directory"]["principals"] if item not in after["directory"]["principals"]] == []
    changed = {key for key in before["database"] if after["database"].get(key) != before["database"][key]}
    assert changed <= {"queue.limiter.inbound.ip.rate", "report.domain"}


# ---------------------------------------------------------------------------------------------------------- accounts
def test_each_field_of_an_account_is_changed_alone(world, wanted):
    world.make(type="group", name="staff")
    world.apply(wanted)
    changed = Account(
        "postmaster@mana.how",
        "postmaster",
        "postmaster@mana.how",
        "Reports",
        ("admin",),
        ("dmarc@mana.how", "tls@mana.how"),
        ("staff",),
        None,
        ref("NOREPLY"),
    )
    wanted = [changed if item.address == changed.address else item for item in wanted]
    plan = world.plan(wanted)
    assert [set(change.fields) for change in plan.changes] == [
        {"description", "roles", "aliases", "groups", "quota", "password"}
    ]
    world.server.forget()
    assert statuses(world.apply(wanted)) == {changed.address: "done"}
    assert world.server.writes() == ["PATCH /api/principal/postmaster"]
    assert world.plan(wanted).changes == ()


def test_cleared_fields_are_cleared(world, wanted):
    world.apply(wanted)
    changed = Account(
        "postmaster@mana.how", "postmaster", "postmaster@mana.how", None, ("user",), (), (), None, ref("POSTMASTER")
    )
    wanted = [changed if item.address == changed.address else item for item in wanted]
    world.apply(wanted)
    found = world.principal("postmaster")
    assert found["emails"] == ["postmaster@mana.how"]
    assert "quota" not in found
    assert world.plan(wanted).changes == ()


def test_a_moved_account_keeps_its_mailbox(world, wanted):
    world.apply(wanted)
    number = world.principal("noreply")["id"]
    moved = replace(wanted[2], name="post@mana.how", login="post", email="post@mana.how")
    wanted = [moved if item is wanted[2] else item for item in wanted]
    outcomes = world.apply(wanted, moved={"account/noreply@mana.how": moved.address})
    assert statuses(outcomes) == {moved.address: "done"}
    assert world.principal("post")["id"] == number
    assert world.principal("post")["emails"] == ["post@mana.how"]
    assert world.plan(wanted).changes == ()


def test_a_changed_login_is_a_change_and_no_second_account(world, wanted):
    world.apply(wanted)
    changed = replace(wanted[2], login="sender")
    wanted = [changed if item is wanted[2] else item for item in wanted]
    plan = world.plan(wanted)
    assert [(item.address, item.actions, set(item.fields)) for item in plan.changes] == [
        ("account/noreply@mana.how", (Action.UPDATE,), {"login"})
    ]
    world.apply(wanted)
    assert world.plan(wanted).changes == ()


def test_removed_accounts_and_domains_go(world, wanted):
    world.apply(wanted)
    names = frozenset({"account/noreply@mana.how", "dkim/mana.how/rsa2026", "stalwart/listeners/pop3"})
    rest = [item for item in wanted if item.address not in names]
    outcomes = world.apply(rest, removed=names)
    assert statuses(outcomes) == dict.fromkeys(names, "done")
    assert world.call("GET", "/api/principal/noreply")["error"] == "notFound"
    assert not any(".rsa-mana.how." in key or ".pop3." in key for key in world.fake.settings.merged())
    assert any(".pop3s." in key for key in world.fake.settings.merged())
    assert world.plan(rest, removed=names).changes == ()


def test_a_login_that_a_group_holds_is_a_problem_before_anything_is_written(world, wanted):
    world.make(type="group", name="noreply")
    problems = world.observe(wanted).problems
    assert [(item.where, item.scope) for item in problems] == [("account/noreply@mana.how",) * 2]
    assert "name of a group" in str(problems[0])


# ---------------------------------------------------------------------------------------------------------- passwords
def test_verdicts_tell_same_different_and_unreadable(world, wanted):
    world.apply(wanted)
    seen = accounts(world.observe(wanted))
    assert seen["noreply@mana.how"].password == Same(ref("NOREPLY"))
    world.secrets["NOREPLY"] = "another"
    assert accounts(world.observe(wanted))["noreply@mana.how"].password == Different()
    del world.secrets["NOREPLY"]
    observation = world.observe(wanted)
    assert isinstance(accounts(observation)["noreply@mana.how"].password, Unreadable)
    assert [item.scope for item in observation.problems] == ["account/noreply@mana.how"]
    assert accounts(observation)["postmaster@mana.how"].password == Same(ref("POSTMASTER"))


def test_an_account_that_is_not_managed_reveals_no_secret(world):
    world.apply([Domain("mana.how"), Account("me@mana.how", "me", "me@mana.how", password=ref("NOREPLY"))])
    world.revealed.clear()
    world.observe([Account("me@mana.how", "me", "me@mana.how", password=ref("NOREPLY"), enforce_password=False)])
    assert "NOREPLY" not in world.revealed


def test_a_password_in_clear_text_is_replaced_by_a_hash(world, wanted):
    world.apply(wanted)
    operation = {"action": "addItem", "field": "secrets", "value": "n0reply secret"}
    world.call("PATCH", "/api/principal/noreply", [operation])
    observation = world.observe(wanted)
    assert [str(item.severity) for item in observation.problems] == ["warning"]
    assert "n0reply" not in str(observation.problems).replace("noreply", "")
    world.apply(wanted)
    assert world.principal("noreply")["secrets"][0].startswith("$argon2id$")
    assert world.plan(wanted).changes == ()


@pytest.mark.parametrize("value", ["x" * 513, "two\nlines"])
def test_a_value_that_is_no_password_fails_alone_and_is_not_repeated(world, wanted, value):
    world.secrets["NOREPLY"] = value
    (bad,) = world.plan(wanted).errors
    assert bad.scope == "account/noreply@mana.how"
    assert value not in str(bad)
    outcomes = world.apply(wanted)
    assert bad.scope not in outcomes
    assert set(statuses(outcomes).values()) == {"done"}


def test_our_own_password_can_be_rotated(world, wanted):
    world.apply(wanted)
    world.secrets["NEW"] = "rotated passw0rd"
    world.connect(passwords=[ref("NEW"), ref("ADMIN")])
    wanted = [replace(item, password=ref("NEW")) if item.address == "account/admin" else item for item in wanted]
    assert statuses(world.apply(wanted)) == {"account/admin": "done"}
    assert world.plan(wanted).changes == ()
    world.connect(passwords=[ref("NEW")])
    assert world.plan(wanted).changes == ()


# ---------------------------------------------------------------------------------------------------------- signatures
def test_a_key_without_a_private_half_is_made_by_the_server(world):
    wanted = [Domain("mana.how"), Signature("mana.how", "mana2026", "ed25519", UNKNOWN)]
    outcomes = world.apply(wanted)
    assert set(statuses(outcomes).values()) == {"done"}
    ((name, made),) = signatures(world.observe(wanted)).items()
    assert name == "ed25519-mana.how"
    assert (made.selector, made.signs) == ("mana2026", True)
    assert made.public_key == world.call("GET", f"/api/dkim/{name}")["data"]


def test_a_pending_key_is_stored_and_does_not_sign_until_it_takes_over(world, wanted, keys):
    world.apply(wanted)
    public = public_half("ed25519", keys["ED2"])
    pending = Signature("mana.how", "mana2027", "ed25519", public, signs=False, private_key=ref("ED2"))
    world.apply([*wanted, pending])
    assert ("mana.how", "mana2027", "ed25519-sha256") not in world.fake.signing()
    assert world.plan([*wanted, pending]).changes == ()
    rest = [item for item in wanted if item.address != "dkim/mana.how/mana2026"]
    turned = [*rest, replace(pending, signs=True)]
    assert set(statuses(world.apply(turned)).values()) == {"done"}
    assert {selector for _, selector, _ in world.fake.signing()} == {"mana2027", "rsa2026"}
    assert world.plan(turned).changes == ()
    old = signatures(world.observe())["ed25519-mana.how-mana2026"]
    assert (old.signs, old.public_key) == (False, public_half("ed25519", keys["ED"]))  # nothing is lost


def test_two_keys_trade_places(world, wanted, keys):
    old = wanted[4]
    new = Signature("mana.how", "mana2027", "ed25519", public_half("ed25519", keys["ED2"]), False, ref("ED2"))
    world.apply([*wanted, new])
    traded = [item for item in wanted if item is not old]
    traded += [replace(old, signs=False, private_key=None), replace(new, signs=True, private_key=None)]
    assert set(statuses(world.apply(traded)).values()) == {"done"}
    assert {selector for _, selector, _ in world.fake.signing()} == {"mana2027", "rsa2026"}
    assert world.plan(traded).changes == ()


def test_a_key_that_is_not_the_declared_one_is_refused_without_showing_it(world, wanted, keys):
    world.secrets["ED"] = keys["ED2"]
    (bad,) = world.plan(wanted).errors
    assert bad.where == "dkim/mana.how/mana2026"
    assert "not the private half" in str(bad)
    assert "PRIVATE" not in str(bad)
    outcomes = world.apply(wanted)
    assert bad.where not in outcomes
    assert outcomes["dkim/mana.how/rsa2026"].status is DONE


def test_a_custom_sign_rule_makes_it_unknown_which_keys_sign(world, wanted):
    world.apply(wanted)
    world.store({"auth.dkim.sign.0.else": "['rsa-mana.how']"})
    observation = world.observe(wanted)
    assert ["auth.dkim.sign" in str(item) for item in observation.problems] == [True]
    assert world.plan(wanted).changes == ()


# ---------------------------------------------------------------------------------------------------------- settings
def test_absent_ban_rates_are_the_servers_defaults(world):
    wanted = [Setting("auto_ban/scan", "30/1d"), Setting("auto_ban/auth", "off"), Setting("auto_ban/abuse", None)]
    assert [change.address for change in world.plan(wanted).changes] == ["stalwart/auto_ban/auth"]
    world.apply(wanted)
    assert world.plan(wanted).changes == ()


@pytest.mark.parametrize("off", ["false", "never", "disable", "0", ""])
def test_every_spelling_of_off_is_off(world, off):
    world.store({"server.auto-ban.scan.rate": off})
    assert world.plan([Setting("auto_ban/scan", "off")]).changes == ()


def test_a_raw_setting_is_put_back_to_its_default(world):
    world.store({"http.rate-limit.account": "500/1m"})
    wanted = [Setting("settings/http.rate-limit.account", None), Setting("settings/queue.x", 5)]
    world.apply(wanted)
    assert "http.rate-limit.account" not in world.fake.settings.merged()
    assert world.plan(wanted).changes == ()


def test_a_raw_setting_without_a_default_can_not_be_put_back(world):
    key = "queue.limiter.inbound.ip.rate"
    problem = world.apply([Setting(f"settings/{key}", None)])[f"stalwart/settings/{key}"].problem
    assert "Missing property" in problem.summary
    assert "write a value" in problem.hint
    assert world.fake.settings.merged()[key] == "5/1s"
    assert "reconciler.pending" not in world.fake.settings.merged()


def test_a_raw_setting_may_be_a_secret(world):
    wanted = [Setting("settings/queue.route.relay.auth.secret", ref("NOREPLY"))]
    world.apply(wanted)
    assert world.fake.settings.merged()["queue.route.relay.auth.secret"] == "n0reply secret"
    plan = world.plan(wanted)
    assert plan.changes == ()
    world.secrets["NOREPLY"] = "another"
    assert len(world.plan(wanted).changes) == 1


def test_a_bad_value_is_taken_back_and_the_others_are_in_force(world, wanted):
    world.store({"http.rate-limit.account": "999/1m"})
    wanted = [*wanted, Setting("settings/http.rate-limit.account", "often")]
    outcomes = world.apply(wanted)
    bad = outcomes.pop("stalwart/settings/http.rate-limit.account")
    assert bad.status is Status.FAILED
    assert 'Invalid rate value "often"' in str(bad.problem)
    assert set(statuses(outcomes).values()) == {"done"}
    assert world.fake.settings.merged()["http.rate-limit.account"] == "999/1m"
    assert world.fake.core.hostname == "mail.mana.how"


def test_a_run_killed_before_the_reload_is_seen_by_the_next(world, wanted):
    plan = world.plan(wanted)
    world.server.faults.append(Fault("GET", "/api/reload", times=9, refuse=True))
    outcomes = list(world.target.apply(plan.changes, world.reveal))
    assert {item.status for item in outcomes if item.change.kind == "stalwart"} == {Status.UNKNOWN}
    world.server.faults.clear()
    assert {"stalwart/hostname", "dkim/mana.how/mana2026"} <= {item.address for item in world.plan(wanted).changes}
    world.apply(wanted)
    assert world.plan(wanted).changes == ()
    assert world.fake.core.hostname == "mail.mana.how"


@pytest.mark.parametrize(
    ("before", "wanted"),
    [
        ("off", Setting("auto_ban/scan", "30/1d")),  # what a server does that has no such key
        ("500/1m", Setting("settings/http.rate-limit.account", None)),
    ],
)
def test_what_was_written_and_not_put_in_force_is_never_taken_for_the_usual_value(world, before, wanted):
    setting = replace(wanted, value=before)
    world.apply([setting])
    world.server.faults.append(Fault("GET", "/api/reload", times=9, refuse=True))
    list(world.target.apply(world.plan([wanted]).changes, world.reveal))
    world.server.faults.clear()
    assert [item.address for item in world.plan([wanted]).changes] == [wanted.address]
    world.apply([wanted])
    assert "reconciler.pending" not in world.fake.settings.merged()
    assert world.plan([wanted]).changes == ()


def test_what_was_written_and_is_not_wanted_any_more_before_it_was_in_force_goes(world):
    extra = AllowedIp("10.0.0.0/8")
    world.server.faults.append(Fault("GET", "/api/reload", times=9, refuse=True))
    list(world.target.apply(world.plan([extra]).changes, world.reveal))
    world.server.faults.clear()
    assert extra.address in {item.resource.address for item in world.observe([]).live}


def test_server_hostname_shadows_ours(world):
    world.store({"server.hostname": "old.mana.how"})
    wanted = [Setting("hostname", "mail.mana.how")]
    (problem,) = world.observe(wanted).problems
    assert "server.hostname" in problem.summary
    world.call("DELETE", "/api/settings/server.hostname")
    world.apply(wanted)
    assert world.fake.core.hostname == "mail.mana.how"
    assert world.observe(wanted).problems == ()


def test_addresses_are_compared_by_meaning(world):
    world.store({"server.allowed-ip.172.18.0.1/16": "", "server.allowed-ip.10.0.0.5": ""})
    assert world.plan([AllowedIp("172.18.0.0/16"), AllowedIp("10.0.0.5/32")]).changes == ()
    assert world.plan([AllowedIp("10.0.0.5")]).changes == ()


def test_allowed_addresses_are_written_first(world, wanted):
    world.apply(wanted)
    (body,) = (
        item.json() for item in world.server.requests if item.path == "/api/settings" and b"signature." in item.body
    )
    assert "reconciler.pending" in json.dumps(body[0])
    first = body[1]
    assert first["values"] == [["server.allowed-ip.172.18.0.0/16", ""]]


def test_a_listener_is_changed_without_its_other_settings(world):
    world.store({"server.listener.submission.tls.certificate": "x", "server.listener.submission.bind.1": "1.2.3.4:1"})
    wanted = [Listener("submission", ("[::]:587", "[::]:2587"), "smtp"), Listener("submissions", ("[::]:465",), "smtp")]
    outcomes = world.apply(wanted)
    assert "docker restart" in outcomes["stalwart/listeners/submission"].notes[0]
    found = {key: value for key, value in world.fake.settings.merged().items() if ".listener.submission" in key}
    assert found["server.listener.submission.tls.certificate"] == "x"
    assert found["server.listener.submissions.tls.implicit"] == "false"
    assert {found[f"server.listener.submission.bind.{index}"] for index in (0, 1)} == {"[::]:587", "[::]:2587"}
    assert world.plan(wanted).changes == ()


def test_many_settings_go_in_requests_the_server_can_read(world):
    wanted = [Setting(f"settings/x.{index}", "y" * 50_000) for index in range(40)]
    assert set(statuses(world.apply(wanted)).values()) == {"done"}
    assert world.plan(wanted).changes == ()


# ---------------------------------------------------------------------------------------------------- lost answers
@pytest.mark.parametrize("path", ["/api/principal$", "/api/settings$"])
def test_a_lost_answer_is_looked_up_and_never_sent_twice(world, wanted, path):
    plan = world.plan(wanted)
    world.server.forget()
    world.server.faults.append(Fault("POST", path, lose=True))
    outcomes = list(world.target.apply(plan.changes, world.reveal))
    assert {item.status for item in outcomes} == {DONE}
    assert world.server.counts["POST /api/principal"] == 4
    assert world.plan(wanted).changes == ()


def test_a_lost_answer_to_a_change_is_looked_up(world, wanted):
    world.apply(wanted)
    changed = replace(wanted[2], description="Sends")
    wanted = [changed if item is wanted[2] else item for item in wanted]
    plan = world.plan(wanted)
    world.server.faults.append(Fault("PATCH", "", lose=True))
    (outcome,) = world.target.apply(plan.changes, world.reveal)
    assert outcome.status is DONE


def test_a_write_that_never_arrived_is_unknown_and_done_by_the_next_run(world, wanted):
    plan = world.plan(wanted)
    world.server.faults.append(Fault("POST", "/api/principal$", after=2, refuse=True))
    outcomes = {item.change.address: item.status for item in world.target.apply(plan.changes, world.reveal)}
    assert list(outcomes.values()).count(Status.UNKNOWN) == 1
    assert set(statuses(world.apply(wanted)).values()) == {"done"}
    assert world.plan(wanted).changes == ()


@pytest.mark.parametrize("cut", range(8))
def test_a_run_cut_off_at_any_request_is_finished_by_the_next(world, wanted, cut):
    plan = world.plan(wanted)
    world.server.faults.append(Fault(times=999, after=cut, lose=True))
    list(world.target.apply(plan.changes, world.reveal))
    world.server.faults.clear()
    world.apply(wanted)
    assert world.plan(wanted).changes == ()
    assert world.fake.core.hostname == "mail.mana.how"
    assert len(world.fake.signing()) == 2


# ---------------------------------------------------------------------------------------------------- what goes wrong
def unread(world):
    observation = world.observe()
    assert observation.unread == {"stalwart"}
    assert not observation.lost
    (problem,) = observation.problems
    assert world.server.url in problem.where
    assert problem.hint
    assert problem.severity is Severity.ERROR
    return str(problem)


def test_each_password_is_tried_once_and_never_again(world):
    world.secrets |= {"A": "wrong-one", "B": "wrong-two"}
    world.connect(passwords=[ref("A"), ref("B")])
    text = unread(world)
    assert "refuses the password of admin" in text
    assert "wrong" not in text
    for _ in range(3):
        unread(world)
    assert world.server.counts["GET /api/principal"] == 2
    world.secrets["B"] = world.secrets["ADMIN"]
    assert world.observe().complete


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply.of({"title": "x"}, 402), "one-time code"),
        (Reply.of({"title": "Forbidden"}, 403), "does not let admin read"),
        (Reply.of({"title": "Too Many Authentication Attempts"}, 429), "has banned this address"),
        (Reply(302, headers={"Location": "https://other.example/"}), "redirects to https://other.example/"),
        (Reply(200, b"<html>", "text/html"), "answers text/html where JSON belongs"),
        (Reply(200, b'{"data": {"items": [', "application/json"), "where JSON belongs"),
        (Reply.of({"data": {"items": [], "total": 3}}), "lists 0 of 3"),
        (Reply.of({"data": {"items": "x", "total": 1}}), "can't be understood"),
        (Reply.of({"title": "Internal Server Error"}, 500), "500"),
        (Reply.of({}, 503), "503"),
        (Reply.of({}, 404), "/api/principal"),
    ],
)
def test_an_answer_that_is_none_is_a_problem(world, reply, words):
    world.server.faults.append(Fault(path="/api/", reply=reply))
    assert words in unread(world)


def test_nothing_answers(world):
    world.connect(url="http://127.0.0.1:9")
    (problem,) = world.observe().problems
    assert "can't be reached" in str(problem)
    world.connect(url=world.server.url.replace("http:", "https:"))
    (problem,) = world.observe().problems
    assert "does not speak TLS" in str(problem)


def test_a_missing_password_is_named(world):
    del world.secrets["ADMIN"]
    (problem,) = world.observe().problems
    assert "ADMIN" in str(problem)
    assert [item.path for item in world.server.requests] == ["/.well-known/oauth-protected-resource"]


@pytest.mark.parametrize("host", ["192.0.2.1", "mail.mana.how", "10.1.2.3"])
def test_credentials_are_not_sent_in_clear_to_another_machine(world, host):
    world.connect(url=f"http://{host}:8080")
    (problem,) = world.observe().problems
    assert "allow_plain_http" in problem.hint
    assert world.revealed == []


def test_the_server_goes_away_in_the_middle(world, wanted):
    plan = world.plan(wanted)
    world.server.faults.append(Fault(times=999, after=2, reply=Reply.of({}, 503)))
    outcomes = list(world.target.apply(plan.changes, world.reveal))
    assert [item.status.value for item in outcomes][:4] == ["done", "done", "failed", "skipped"]
    world.server.faults.clear()
    world.apply(wanted)
    assert world.plan(wanted).changes == ()


def test_an_account_whose_domain_failed_is_skipped(world, wanted):
    world.make(type="group", name="mana.how")
    outcomes = world.apply(wanted)
    assert outcomes["domain/mana.how"].status is Status.FAILED
    assert outcomes["account/noreply@mana.how"].status is Status.SKIPPED
    assert outcomes["account/admin"].status is DONE


def test_a_read_only_config_file_stops_only_what_lives_there(world, wanted):
    world.fake.settings.read_only = True
    outcomes = world.apply(wanted)
    assert outcomes["stalwart/auto_ban/scan"].status is Status.FAILED
    assert "read-only" in outcomes["stalwart/auto_ban/scan"].problem.hint
    assert outcomes["stalwart/hostname"].status is DONE
    world.fake.settings.read_only = False
    world.apply(wanted)
    assert world.plan(wanted).changes == ()


# ---------------------------------------------------------------------------------------------------- generations
def jmap(request):
    if request.path == "/.well-known/oauth-protected-resource":
        return Reply.of({"resource": "https://mail.mana.how"})
    return Reply.of({"title": "Not Found"}, 404)


def test_a_newer_server_is_refused_before_it_is_told_a_password(world):
    with Server(jmap) as server:
        world.connect(url=server.url, generation="rest")
        (problem,) = world.observe().problems
        assert "is 0.16 or later (JMAP), but targets.stalwart.generation is rest" in str(problem)
        assert len(server.requests) == 1
        assert "authorization" not in server.requests[0].headers
    assert world.revealed == []


@pytest.mark.parametrize(
    "reply", [Reply(200, b"<html>", "text/html"), Reply.of({}, 401), Reply.of([]), Reply.of({"title": "x"}, 500)]
)
def test_what_is_no_stalwart_is_told_no_password(world, reply):
    with Server(lambda _: reply) as server:
        world.connect(url=server.url)
        (problem,) = world.observe().problems
        assert "as no Stalwart does" in str(problem)
        assert all("authorization" not in item.headers for item in server.requests)
        world.connect(url=server.url, generation="rest")  # a proxy may hide the path
        world.observe()
        assert any("authorization" in item.headers for item in server.requests)


def test_an_older_server_is_refused_where_the_newer_one_is_declared(world):
    world.connect(generation="jmap")
    assert "generation is jmap" in unread(world)
    assert world.revealed == []


def test_unicode_and_odd_characters_survive(world):
    wanted = [
        Domain("mana.how"),
        Account("ü/'\"$@mana.how", "ü/'\"$", "ü/'\"$@mana.how", 'Größe "$x"\nzwei', ("user",), password=ref("NOREPLY")),
    ]
    world.secrets["NOREPLY"] = "pässwörd $x \"'\\"
    world.apply(wanted)
    assert world.plan(wanted).changes == ()
    world.apply([Domain("mana.how")], removed=frozenset({wanted[1].address}))
    assert accounts(world.observe()) == {}


def test_a_key_the_server_does_not_make_fails_alone(world):
    refusal = Reply.of({"title": "Forbidden", "status": 403, "detail": "no"}, 403)
    world.server.faults.append(Fault("POST", "/api/dkim", reply=refusal))
    wanted = [Domain("mana.how"), Signature("mana.how", "s1", "ed25519", UNKNOWN), Setting("auto_ban/scan", "off")]
    outcomes = world.apply(wanted)
    assert outcomes["dkim/mana.how/s1"].status is Status.FAILED
    assert "403" in str(outcomes["dkim/mana.how/s1"].problem)
    assert outcomes["stalwart/auto_ban/scan"].status is DONE
    world.server.faults.append(Fault("POST", "/api/dkim", lose=True))
    assert set(statuses(world.apply(wanted)).values()) == {"done"}
    assert world.plan([*wanted[:1], *wanted[2:]]).changes == ()


def test_what_needs_a_skipped_change_is_skipped_itself(world):
    wanted = [
        Account("a@gone.how", "a", "a@gone.how"),
        Setting("hostname", "mail.mana.how"),
        Setting("default_domain", "mana.how"),
    ]
    account, *words = world.plan(wanted).changes
    first = replace(words[0], needs=frozenset({account.address}))
    second = replace(words[1], needs=frozenset({first.address}))
    outcomes = list(world.target.apply([account, first, second], world.reveal))
    assert [item.status.value for item in outcomes] == ["failed", "skipped", "skipped"]
    assert outcomes[2].problem.summary == f"{first.address} was not done"
