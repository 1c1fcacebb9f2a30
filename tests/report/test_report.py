"""A plan in its three forms: what it says, what it never says, and that no value can break out of it."""

from __future__ import annotations

import json as stdlib_json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest

from reconciler.plan import Plan
from reconciler.problem import Problem, ReconcilerError, Severity
from reconciler.report import json, markdown, summary, text, values
from reconciler.resources import (
    UNKNOWN,
    Account,
    Different,
    Domain,
    Listener,
    Live,
    Record,
    Same,
    SecretPart,
    SecretRef,
    SecretText,
    Setting,
    Signature,
    Unreadable,
    Variable,
)
from reconciler.secrecy import Public
from reconciler.target import Action, Change, Reason

REF = SecretRef("env", "NOREPLY_PASSWORD")
SCHEMA = Path(__file__).parents[2] / "docs" / "plan.schema.json"


def record(name: str, content: Any = "192.0.2.1", **fields: Any) -> Record:
    return Record("mana.how", fields.pop("type", "A"), name, content, **fields)


def create(resource: Any, reason: Reason = Reason.MISSING, **fields: Any) -> Change:
    return Change(resource.address, (Action.CREATE,), reason, None, resource, **fields)


def update(before: Any, after: Any, reason: Reason = Reason.DIFFERS, **fields: Any) -> Change:
    return Change(after.address, (Action.UPDATE,), reason, Live(before), after, **fields)


def delete(resource: Any, reason: Reason = Reason.NOT_IN_DESIRED) -> Change:
    return Change(resource.address, (Action.DELETE,), reason, Live(resource, owner="mana"), None)


def a_plan(**fields: Any) -> Plan:
    return Plan(
        **{"stack": "mana", "revision": "3f2a9c1", "desired_hash": "d" * 64, "head": ("Stalwart 0.15.5 (REST)",)}
        | fields
    )


EVERYTHING = a_plan(
    changes=(
        create(record("mail", ttl=300)),
        update(record("www", ttl=1), record("www", ttl=300)),
        Change(
            "dns/mana.how/CNAME/old",
            (Action.DELETE, Action.CREATE),
            Reason.DIFFERS,
            Live(record("old"), owner="mana"),
            record("old", "mail.mana.how", type="CNAME"),
        ),
        create(Domain("mana.how"), Reason.LOST),
        create(Account("noreply@mana.how", roles=("user",), quota=2**30, password=REF), Reason.LOST),
        update(
            Account("postmaster@mana.how", password=Different()),
            Account("postmaster@mana.how", password=SecretRef("env", "P")),
            Reason.SECRET_DIFFERS,
            notes=("every login with the old password ends",),
        ),
        create(Signature("mana.how", "rsa2026", "rsa", UNKNOWN)),
        Change(
            "stalwart/listeners/submission",
            (Action.RESTART,),
            Reason.DIFFERS,
            Live(Listener("submission", ("[::]:587",), "smtp", open=False)),
            Listener("submission", ("[::]:587",), "smtp"),
            notes=("run: docker restart mana-mail",),
        ),
        update(
            Variable("mana-notify", "SMTP_HOST", Public("stalwart"), Public("stalwart")),
            Variable("mana-notify", "SMTP_HOST", "smtp-relay.brevo.com", "smtp-relay.brevo.com"),
        ),
        delete(record("gone", "v=spf1 -all", type="TXT")),
    ),
    adopted=(Change("dns/mana.how/MX/@", (), Reason.DIFFERS, Live(record("@")), record("@"), adopts=True),),
    unmanaged=("dns/mana.how/A/foreign",),
    problems=(
        Problem("dns/mana.how/A/api", "exists and differs", "use --adopt", Severity.REFUSED, "dns/mana.how"),
        Problem("stalwart", "drops comments", severity=Severity.WARNING),
        Problem("compose", "does not answer", "start it", scope="compose"),
    ),
    lost=frozenset({"stalwart"}),
    unread=frozenset({"compose"}),
    unchanged=41,
)


# ------------------------------------------------------------------------------------------------------ text
def test_text_says_what_a_person_needs_in_the_order_they_need_it() -> None:
    said = text.plan(replace(EVERYTHING, last_whole="2026-11-01T10:00:00Z"))
    order = [
        "mana at 3f2a9c1",
        "Stalwart 0.15.5 (REST)",
        "✗ dns/mana.how/A/api: refused: exists and differs\n    → use --adopt",
        "✗ compose: does not answer",
        "Stalwart is empty: new, or its volume was recreated. It was last whole on 2026-11-01T10:00:00Z.",
        "Mailboxes are not back",
        "Cloudflare:",
        "  + dns/mana.how/A/mail  192.0.2.1, ttl: 300",
        "± dns/mana.how/CNAME/old",
        "  ~ dns/mana.how/A/www  ttl: auto → 300",
        "Stalwart:",
        "  + domain/mana.how (lost)",
        "  + account/noreply@mana.how (lost)  quota: 1 GiB, password: {env: NOREPLY_PASSWORD}",
        "  ~ account/postmaster@mana.how  password: another secret is set → {env: P}",
        "      every login with the old password ends",
        "rsa, key (known after apply)",
        "  ↻ stalwart/listeners/submission (restart is due)",
        "      run: docker restart mana-mail",
        "Compose:",
        "  ~ smtp/mana-notify/SMTP_HOST  stalwart → smtp-relay.brevo.com",
        "  - dns/mana.how/TXT/gone (no longer declared)",
        "Adopted",
        "  = dns/mana.how/MX/@",
        "Not declared and left alone: dns/mana.how/A/foreign.",
        "! stalwart: drops comments",
        "Plan: 4 to create, 4 to change, 1 to delete, 1 to adopt. 41 unchanged. 1 restart is due. Refused",
    ]
    positions = [said.find(part) for part in order]
    assert -1 not in positions, order[positions.index(-1)] + "\n" + said
    stable = [position for part, position in zip(order, positions, strict=True) if "dns/mana.how/A/www" not in part]
    assert stable == sorted(stable), said
    assert "\x1b" not in said


def test_quiet_leaves_out_what_asks_for_nothing_and_never_what_is_lost_or_warned_of() -> None:
    plan = replace(EVERYTHING, last_whole="2026-11-01T10:00:00Z")
    said, whole = text.plan(plan, text.Style(quiet=True)), text.plan(plan)
    left_out = ["mana at 3f2a9c1", "  Stalwart 0.15.5 (REST)", "Not declared and left alone: dns/mana.how/A/foreign."]
    left_out += ["Adopted, equal already and from now on marked as ours:", "  = dns/mana.how/MX/@"]
    assert [line for line in whole.splitlines() if line and line not in said.splitlines()] == [
        *left_out[:2],
        *left_out[3:],
        left_out[2],
    ]
    assert "Stalwart is empty" in said
    assert "Mailboxes are not back" in said
    assert "! stalwart: drops comments" in said


def test_of_an_account_that_goes_nothing_is_said_that_holds_for_most() -> None:
    gone = delete(Account("clara@mana.how", login="clara", email="clara@mana.how", locked=False), Reason.REMOVED)
    assert text.change(gone) == "- account/clara@mana.how (asked for)"
    assert "locked: yes" in values.brief(Account("clara@mana.how", locked=True))


def test_colours_only_add_to_the_text() -> None:
    plain, coloured = text.plan(EVERYTHING), text.plan(EVERYTHING, text.Style(colour=True))
    assert click.unstyle(coloured) == plain
    assert "\x1b[31m- dns/mana.how/TXT/gone\x1b[0m" in coloured


def test_drift_is_called_so() -> None:
    changed = update(record("www", ttl=60), record("www", ttl=300))
    assert "A/www (drift)  ttl: 60 → 300" in text.plan(a_plan(changes=(changed,), drift=(changed.address,)))
    assert "drift" not in text.plan(a_plan(changes=(changed,)))


def test_an_empty_plan_is_one_sentence() -> None:
    said = text.plan(a_plan(unchanged=41))
    assert said.endswith("\nNothing to do: 41 resources are as they should be.\n")
    assert "Nothing to do: 1 resource is as it should be." in text.plan(a_plan(unchanged=1))


def test_a_plan_that_is_not_complete_never_says_that_all_is_well() -> None:
    said = text.plan(a_plan(unread=frozenset({"dns/mana.how"}), unchanged=3))
    assert "as they should be" not in said
    assert "Not complete: dns/mana.how could not be read." in said


def test_long_runs_of_creations_are_counted_but_nothing_else_is() -> None:
    many = tuple(create(record(f"h{index:03}")) for index in range(200))
    gone = tuple(delete(record(f"g{index:03}")) for index in range(30))
    changed = tuple(update(record(f"c{index:03}", ttl=1), record(f"c{index:03}", ttl=60)) for index in range(30))
    noted = (create(record("noted"), notes=("read me",)),)
    plan = a_plan(changes=(*changed, *many, *noted, *gone))
    said = text.plan(plan)
    assert "+ 200 × dns/mana.how/… (listed with -v)" in said
    assert said.count("  - dns/") == 30
    assert said.count("  ~ dns/") == 30
    assert "read me" in said
    assert text.plan(plan, text.Style(verbose=True)).count("  + dns/") == 201
    assert text.plan(a_plan(changes=many[:20])).count("  + dns/") == 20


@pytest.mark.parametrize(
    ("hostile", "visible"),
    [
        ("a\nPlan: 0 to delete", "a\\nPlan"),
        ("\x1b[2J\x1b[31m", "\\x1b[2J"),
        ("abc\u202egnp.exe", "\\u202e"),
        ("zero\u200bwidth", "\\u200b"),
        ("\r+ dns", "\\r+ dns"),
        ("\ud800", "\\ud800"),
        ("\x00\x7f\x9b", "\\x00\\x7f\\x9b"),
    ],
)
def test_no_value_can_forge_a_line_or_move_the_cursor(hostile: str, visible: str) -> None:
    change = update(record(hostile, "old", type="TXT"), record(hostile, hostile + "!", type="TXT", comment=hostile))
    plan = a_plan(
        stack=hostile,
        revision=hostile,
        head=(hostile,),
        changes=(replace(change, notes=(hostile,)), create(record("x", hostile, type="TXT"))),
        problems=(Problem(hostile, hostile, hostile),),
        unmanaged=(hostile,),
        unread=frozenset({hostile}),
    )
    said = text.plan(plan, text.Style(verbose=True))
    assert visible in said
    assert hostile not in said
    assert hostile not in markdown.plan(plan)
    assert all(char == "\n" or char.isprintable() for char in said)


def test_long_values_are_cut_in_the_middle_with_their_length() -> None:
    said = values.shown("content", "v=DKIM1;p=" + "A" * 390 + "end")
    assert said.startswith("v=DKIM1;p=AAA")
    assert said.endswith("end (403 characters)")
    assert len(said) < 140


def test_of_two_long_values_the_difference_is_visible() -> None:
    said = values.transition("content", "A" * 200 + "old" + "B" * 200, "A" * 200 + "new" + "B" * 200)
    assert "old" in said
    assert "new" in said


def test_of_a_domain_only_what_is_unusual_is_said() -> None:
    assert values.brief(Domain("mana.how", sub_addressing=True)) == ""
    assert values.brief(Domain("mana.how", sub_addressing=False)) == "sub addressing: no"


def test_a_secret_is_its_name_or_a_word() -> None:
    template = SecretText(("smtp://noreply:", SecretPart(REF, "url"), "@stalwart:587"))
    assert values.shown("", template) == "smtp://noreply:{env: NOREPLY_PASSWORD}@stalwart:587"
    assert values.transition("password", Different(), REF) == "another secret is set → {env: NOREPLY_PASSWORD}"
    assert values.transition("password", None, REF) == "none → {env: NOREPLY_PASSWORD}"
    assert values.shown("password", Same(REF)) == "{env: NOREPLY_PASSWORD}"
    assert "no hash" in values.shown("password", Unreadable("no hash"))


def test_what_is_live_in_clear_where_a_secret_belongs_is_not_shown() -> None:
    change = update(
        Variable("mana-notify", "SMTP_PASSWORD", "canary-1", "canary-2"),
        Variable("mana-notify", "SMTP_PASSWORD", REF, REF),
    )
    url = update(
        Variable("api", "MAIL_URL", "smtp://me:canary-3@old:587", "smtp://me:canary-3@old:587"),
        Variable("api", "MAIL_URL", "smtp://new:587", "smtp://new:587"),
    )
    plan = a_plan(changes=(change, url))
    for said in (text.plan(plan), markdown.plan(plan), json.dumps(json.plan(plan))):
        assert "canary" not in said
        assert "NOREPLY_PASSWORD" in said


# ------------------------------------------------------------------------------------------------------ JSON
def check(value: Any, schema: dict[str, Any], root: dict[str, Any], at: str = "$") -> None:
    """The part of JSON Schema that plan.schema.json uses."""
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
    types = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "null": type(None)}
    if "type" in schema:
        wanted = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        assert isinstance(value, tuple(types[name] for name in wanted)), (at, value)
    if "enum" in schema:
        assert value in schema["enum"], (at, value)
    if "const" in schema:
        assert value == schema["const"], (at, value)
    if "pattern" in schema:
        assert re.search(schema["pattern"], value), (at, value)
    if isinstance(value, dict):
        assert set(schema.get("required", ())) <= set(value), (at, set(schema["required"]) - set(value))
        for name, item in value.items():
            inner = schema.get("properties", {}).get(name, schema.get("additionalProperties"))
            if inner:
                check(item, inner, root, f"{at}.{name}")
    if isinstance(value, list) and "items" in schema:
        for index, item in enumerate(value):
            check(item, schema["items"], root, f"{at}[{index}]")


def test_json_is_as_the_schema_and_the_contract_say() -> None:
    schema = stdlib_json.loads(SCHEMA.read_text())
    document = stdlib_json.loads(json.dumps(json.plan(EVERYTHING)))
    check(document, schema, schema)
    assert set(document) == set(schema["properties"])
    assert {
        "address",
        "target",
        "kind",
        "actions",
        "before",
        "after",
        "before_sensitive",
        "after_sensitive",
        "reason",
    } <= {*document["changes"][0]}
    assert document["format_version"] == "1.0"
    assert document["fingerprint"] == EVERYTHING.fingerprint
    assert (document["complete"], document["applyable"]) == (False, False)


def test_json_of_a_change() -> None:
    created, updated, retyped, *_ = [json.change(change) for change in EVERYTHING.changes]
    assert (created["before"], created["after"]["ttl"], created["after"]["name"]) == (None, 300, "mail")
    assert (updated["before"]["ttl"], updated["after"]["ttl"]) == (1, 300)
    assert retyped["actions"] == ["delete", "create"]
    secret = json.change(EVERYTHING.changes[5])
    assert secret["before"]["password"] is None
    assert secret["after"]["password"] == "{env: P}"
    assert secret["before_sensitive"] == secret["after_sensitive"] == {"password": True}
    assert secret["reason"] == "secret_differs"
    waiting = json.change(EVERYTHING.changes[6])
    assert (waiting["after"]["public_key"], waiting["after_unknown"]) == (None, {"public_key": True})
    assert json.change(EVERYTHING.changes[-1])["after"] is None


def test_secrets_deep_inside_a_setting_are_names_too() -> None:
    change = create(Setting("objects/Http", {"singleton": {"token": REF, "on": True}}))
    document = json.change(change)
    assert document["after"]["value"] == {"singleton": {"token": "{env: NOREPLY_PASSWORD}", "on": True}}
    assert document["after_sensitive"] == {"value": True}
    assert "{singleton: {token: {env: NOREPLY_PASSWORD}, on: yes}}" in text.change(change)


def test_a_saved_plan_is_read_back_and_still_true() -> None:
    options = {"targets": [], "only": ["account/x"], "adopt": [], "allow_deletes": 2}
    saved = json.load(json.dumps(json.plan(EVERYTHING, options)), "plan.json")
    assert saved.options == options
    assert json.stale(saved, EVERYTHING) == []


def test_a_stale_plan_says_what_has_changed() -> None:
    saved = json.load(json.dumps(json.plan(EVERYTHING)), "plan.json")
    first, second, *rest = EVERYTHING.changes
    now = replace(
        EVERYTHING,
        changes=(update(record("www", ttl=60), record("www", ttl=300)), *rest, create(record("new"))),
        desired_hash="e" * 64,
    )
    said = json.stale(saved, now)
    assert said[0] == "the directory has changed"
    assert f"{first.address}: is as it should be by now, or can't be planned any more" in said
    assert f"{second.address}: what is live is another" in said
    assert "dns/mana.how/A/new: needs a change that the plan does not have (create)" in said
    assert len(said) == 4
    assert "stack other" in json.stale(saved, replace(now, stack="other"))[0].replace("is other", "stack other")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "has no format_version"),
        ('{"format_version": "2.0"}', "format 2.0"),
        ('{"format_version": "1.7", "stack": "x"}', "not a whole one"),
        ('{"format_version": 1}', "no format_version"),
    ],
)
def test_what_is_no_saved_plan_is_refused_with_a_word(content: str, said: str) -> None:
    with pytest.raises(ReconcilerError, match=said) as caught:
        json.load(content, "plan.json")
    assert caught.value.problems[0].where == "plan.json"
    assert caught.value.problems[0].hint


def test_a_newer_minor_is_read() -> None:
    document = json.plan(EVERYTHING) | {"format_version": "1.9", "new_field": 1}
    assert json.load(json.dumps(document), "plan.json").fingerprint == EVERYTHING.fingerprint


# ------------------------------------------------------------------------------------------------------ outcomes
def test_outcomes_say_why_and_how_long() -> None:
    change = EVERYTHING.changes[0]
    assert text.line(text.OutcomeLine(change, "done", seconds=1.23), text.Style()) == "  ✓ + dns/mana.how/A/mail  1.2 s"
    problem = Problem(change.address, "the zone is locked", "unlock it")
    said = text.line(text.OutcomeLine(change, "failed", problem), text.Style())
    assert said == "  ✗ + dns/mana.how/A/mail  failed\n      the zone is locked\n      → unlock it"


def test_the_end_of_a_restore_says_that_mailboxes_are_not_back() -> None:
    restored = replace(EVERYTHING, last_whole="2026-11-01T10:00:00Z")
    said = "\n".join(text.ending(restored, a_plan(unchanged=51), ["done"] * 10, "done", "ab12"))
    assert "10 changes were made. Apply ab12 in the journal." in said
    assert "A second plan is empty: 51 resources are as they should be." in said
    assert summary.MAILBOXES in said
    new = text.ending(EVERYTHING, a_plan(unchanged=51), ["done"] * 10, "done", "ab12")
    assert summary.MAILBOXES not in new, "a server that was never whole lost nothing"
    assert "If it held mailboxes" in text.plan(EVERYTHING)
    assert summary.MAILBOXES in text.plan(restored)


def test_a_remedy_that_problems_share_stands_once() -> None:
    warnings = [Problem(f"dkim/mana.how/{name}", "signs early", "wait", Severity.WARNING) for name in ("a", "b")]
    assert text.plan(a_plan(problems=tuple(warnings))).count("→ wait") == 1


def test_the_end_says_what_remains() -> None:
    said = "\n".join(text.ending(a_plan(), replace(EVERYTHING, lost=frozenset()), ["failed"], "failed"))
    assert "9 still to be made:" in said
    assert "A second plan is empty" not in said
    assert "compose could not be read" in said
    assert "A restart is due: stalwart/listeners/submission (run: docker restart mana-mail)" in said


def test_u17_keys_of_rsa_are_told_apart_and_quotes_do_not_clash() -> None:
    begin = "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA"
    keys = [Signature("mana.how", name, "rsa", f"{begin}{name * 8}IDAQAB") for name in ("one", "two")]
    assert values.brief(keys[0]) != values.brief(keys[1])
    caa = Record("mana.how", "CAA", "@", '0 issue "letsencrypt.org"')
    assert values.brief(caa) == "'0 issue \"letsencrypt.org\"'"


def test_d6_blanks_that_are_none_are_seen_in_a_plan() -> None:
    assert values.escape("v=DMARC1;\u00a0p=none\u200b\u2003x y") == "v=DMARC1;\\xa0p=none\\u200b\\u2003x y"


def test_u6_a_password_that_was_not_compared_is_not_called_another() -> None:
    assert values.shown("password", Different(compared=False)) == "not compared under its old name"
    assert values.shown("password", Different()) == "another secret is set"


def test_u12_what_nobody_declares_is_named_and_a_servers_own_listeners_are_not() -> None:
    stock = tuple(f"stalwart/listeners/{name}" for name in ("imap", "pop3s", "sieve", "http"))
    made = Plan("mana", unmanaged=("account/old@mana.how", *stock))
    assert "Not declared and left alone: account/old@mana.how." in text.plan(made)
    assert "listeners" not in text.plan(made)
    assert "stalwart/listeners/imap" in text.plan(made, text.Style(verbose=True))
    assert "left alone" not in text.plan(Plan("mana", unmanaged=stock))
    many = tuple(f"account/{number}@mana.how" for number in range(9))
    assert "9 live resources are not declared" in text.plan(Plan("mana", unmanaged=many))


@pytest.mark.parametrize("width", [40, 60, 80])
@pytest.mark.parametrize("colour", [False, True])
def test_u18_lines_are_broken_between_words_and_what_follows_is_indented(width: int, colour: bool) -> None:
    style = text.Style(colour=colour, width=width)
    plain, broken = text.plan(EVERYTHING, text.Style(colour=colour)), text.plan(EVERYTHING, style)
    assert broken.split() == plain.split()
    lines = [click.unstyle(line) for line in broken.split("\n")]
    assert [line for line in lines if len(line) > width and " " in line.strip()] == []
    assert "".join(lines).replace(" ", "") == click.unstyle(plain).replace("\n", "").replace(" ", "")
