"""The comparison of what should be with what is: pure values, no systems."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.dns.records import dkim_record, record
from reconciler.plan import Desired, diff, phases, public
from reconciler.problem import Problem, Severity
from reconciler.resources import (
    UNKNOWN,
    UNMANAGED,
    Account,
    Different,
    Domain,
    Group,
    Listener,
    Live,
    Login,
    Observation,
    Same,
    SecretRef,
    Signature,
    Unreadable,
    Variable,
)
from reconciler.target import Action, Reason

ZONE = "mana.how"
SECRET = SecretRef("env", "PASSWORD")


def cloudflare(*live, **more):
    return {"cloudflare": Observation("cloudflare", live, **more)}


def stalwart(*live, **more):
    return {"stalwart": Observation("stalwart", tuple(Live(item) for item in live), **more)}


def ours(resource, id="1"):
    return Live(resource, id, "mana")


def plan(resources, observations, **more):
    desired = Desired(resources, **more)
    return diff(desired, observations, stack="mana")


def test_what_is_missing_is_created():
    wanted = record(ZONE, "A", "mail", "192.0.2.1")
    result = plan([wanted], cloudflare())
    assert [(item.address, item.actions, item.reason) for item in result.changes] == [
        ("dns/mana.how/A/mail", (Action.CREATE,), Reason.MISSING)
    ]


def test_what_is_ours_and_as_desired_is_left_alone():
    wanted = record(ZONE, "A", "mail", "192.0.2.1")
    result = plan([wanted], cloudflare(ours(wanted)))
    assert (result.changes, result.adopted, result.unchanged) == ((), (), 1)


def test_a_changed_field_updates_the_same_record():
    live = ours(record(ZONE, "A", "mail", "192.0.2.1", ttl=60))
    result = plan([record(ZONE, "A", "mail", "192.0.2.1", ttl=300)], cloudflare(live))
    (change,) = result.changes
    assert change.before is live
    assert change.fields == {"ttl": (60, 300)}


def test_an_equal_record_of_nobody_is_adopted_and_no_pending_change():
    wanted = record(ZONE, "A", "mail", "192.0.2.1")
    result = plan([wanted], cloudflare(Live(wanted, "1")))
    assert result.changes == ()
    assert [change.address for change in result.adopted] == ["dns/mana.how/A/mail"]


@pytest.mark.parametrize("owner", [None, "other"])
def test_a_host_that_is_not_ours_and_differs_is_refused(owner):
    wanted = record(ZONE, "A", "mail", "192.0.2.1")
    result = plan([wanted], cloudflare(Live(record(ZONE, "A", "mail", "192.0.2.9"), "1", owner)))
    assert result.changes == ()
    assert [(item.severity, item.scope) for item in result.problems] == [(Severity.REFUSED, "dns/mana.how")]


def test_adopt_takes_a_differing_record_over():
    wanted = record(ZONE, "A", "mail", "192.0.2.1")
    result = plan(
        [wanted],
        cloudflare(Live(record(ZONE, "A", "mail", "192.0.2.9"), "1")),
        adopt=frozenset({"dns/mana.how/A/mail"}),
    )
    (change,) = result.changes
    assert change.adopts
    assert change.fields == {"content": ("192.0.2.9", "192.0.2.1")}
    assert not result.problems


def test_another_text_of_nobody_stays_beside_ours():
    spf = record(ZONE, "TXT", "@", "v=spf1 mx ~all")
    other = Live(record(ZONE, "TXT", "@", "google-site-verification=abc"), "1")
    result = plan([spf], cloudflare(other))
    assert [change.address for change in result.changes] == ["dns/mana.how/TXT/@[spf1]"]
    assert result.unmanaged == ("dns/mana.how/TXT/@[google-site-verification]",)


def test_a_second_spf_of_nobody_is_refused():
    live = Live(record(ZONE, "TXT", "@", "v=spf1 include:other.example -all"), "1")
    result = plan([record(ZONE, "TXT", "@", "v=spf1 mx ~all")], cloudflare(live))
    assert result.changes == ()
    assert result.refused


def test_one_of_two_values_changes_and_the_other_stays():
    first, second = record(ZONE, "A", "mail", "192.0.2.1"), record(ZONE, "A", "mail", "192.0.2.2")
    result = plan([first, record(ZONE, "A", "mail", "192.0.2.3")], cloudflare(ours(second, "2"), ours(first, "1")))
    (change,) = result.changes
    assert change.before.id == "2"
    assert change.address == "dns/mana.how/A/mail[192.0.2.3]"


def test_a_single_value_that_changes_keeps_its_plain_address():
    live = ours(record(ZONE, "A", "mail", "192.0.2.1"))
    (change,) = plan([record(ZONE, "A", "mail", "192.0.2.2")], cloudflare(live)).changes
    assert change.address == "dns/mana.how/A/mail"


def test_an_equal_record_whose_comment_leaves_no_room_is_reported_and_not_adopted():
    wanted = record(ZONE, "A", "mail", "192.0.2.1")
    result = plan([wanted], cloudflare(Live(replace(wanted, comment="x" * 99), "1")))
    assert (result.changes, result.adopted) == ((), ())
    assert [item.severity for item in result.problems] == [Severity.WARNING]


def test_what_is_ours_and_no_longer_declared_is_deleted_and_foreign_stays():
    result = plan(
        [], cloudflare(ours(record(ZONE, "A", "old", "192.0.2.1")), Live(record(ZONE, "A", "www", "192.0.2.2"), "2"))
    )
    assert [(item.address, item.deletes, item.reason) for item in result.changes] == [
        ("dns/mana.how/A/old", True, Reason.NOT_IN_DESIRED)
    ]
    assert result.unmanaged == ("dns/mana.how/A/www",)


def test_prune_never_only_reports():
    desired = Desired([])
    result = diff(desired, cloudflare(ours(record(ZONE, "A", "old", "192.0.2.1"))), stack="mana", prune=False)
    assert (result.changes, result.unmanaged) == ((), ("dns/mana.how/A/old",))


def test_a_change_of_type_is_one_change_and_no_deletion():
    result = plan(
        [record(ZONE, "A", "mail", "192.0.2.1")], cloudflare(ours(record(ZONE, "CNAME", "mail", "host.example")))
    )
    (change,) = result.changes
    assert change.actions == (Action.DELETE, Action.CREATE)
    assert not change.deletes
    assert change.fields["type"] == ("CNAME", "A")


def test_an_unread_zone_is_not_planned_and_not_pruned():
    seen = cloudflare(ours(record("other.how", "A", "old", "192.0.2.1")), unread=frozenset({"dns/mana.how"}))
    result = plan([record(ZONE, "A", "mail", "192.0.2.1")], seen)
    assert [item.address for item in result.changes] == ["dns/other.how/A/old"]
    assert not result.complete


def test_an_error_stops_what_it_names_and_nothing_else():
    problem = Problem("smtp/one/HOST", "is a literal", scope="smtp/one")
    seen = {
        "compose": Observation(
            "compose",
            (Live(Variable("one", "HOST", "a", "a")), Live(Variable("two", "HOST", "a", "a"))),
            problems=(problem,),
        )
    }
    result = plan([Variable("one", "HOST", "b", "b"), Variable("two", "HOST", "b", "b")], seen)
    assert [item.address for item in result.changes] == ["smtp/two/HOST"]
    assert result.errors == (problem,)


def test_a_lost_server_loses_and_nothing_is_deleted_anywhere():
    seen = stalwart(lost=True) | cloudflare(ours(record(ZONE, "A", "old", "192.0.2.1")))
    result = plan([Domain(ZONE), Account("a@mana.how", password=SECRET)], seen)
    assert {(item.address, item.reason) for item in result.changes} == {
        ("domain/mana.how", Reason.LOST),
        ("account/a@mana.how", Reason.LOST),
    }
    assert result.unmanaged == ("dns/mana.how/A/old",)


def test_a_record_of_a_key_that_a_lost_server_does_not_show_stays_as_it_is():
    unknown = record(ZONE, "TXT", "s1._domainkey", UNKNOWN)
    live = ours(record(ZONE, "TXT", "s1._domainkey", "v=DKIM1; k=ed25519; p=abc"))
    result = plan([unknown], stalwart(lost=True) | cloudflare(live))
    assert not [item for item in result.changes if item.target == "cloudflare"]


def test_the_record_of_a_declared_selector_is_never_removed():
    live = ours(record(ZONE, "TXT", "s1._domainkey", "v=DKIM1; k=ed25519; p=abc"))
    result = plan([], cloudflare(live), kept=frozenset({("dns", ZONE, "TXT", "s1._domainkey")}))
    assert result.changes == ()


@pytest.mark.parametrize(
    ("verdict", "changes"),
    [(Same(SECRET), 0), (Same(SecretRef("env", "OLD")), 1), (Different(), 1), (Unreadable("?"), 0)],
)
def test_a_secret_is_compared_by_its_verdict(verdict, changes):
    result = plan([Account("a@mana.how", password=SECRET)], stalwart(Account("a@mana.how", password=verdict)))
    assert len(result.changes) == changes
    assert all(item.reason is Reason.SECRET_DIFFERS for item in result.changes)


def test_a_password_that_is_not_enforced_is_set_only_on_creation():
    wanted = Account("a@mana.how", password=SECRET, enforce_password=False)
    assert plan([wanted], stalwart(Account("a@mana.how", password=Different()))).changes == ()
    (change,) = plan([wanted], stalwart()).changes
    assert change.after.password == SECRET


def test_accounts_go_only_when_removed_names_them():
    seen = stalwart(Account("old@mana.how"), Account("other@mana.how"))
    result = plan([], seen, removed=frozenset({"account/old@mana.how"}))
    assert [(item.address, item.reason) for item in result.changes] == [("account/old@mana.how", Reason.REMOVED)]
    assert result.unmanaged == ("account/other@mana.how",)


def test_moved_renames_and_keeps_the_mailbox():
    seen = stalwart(Account("old@mana.how", login="old", email="old@mana.how"))
    wanted = Account("new@mana.how", login="new", email="new@mana.how")
    result = plan([wanted], seen, moved={"account/old@mana.how": "account/new@mana.how"})
    (change,) = result.changes
    assert change.actions == (Action.UPDATE,)
    assert change.fields["email"] == ("old@mana.how", "new@mana.how")


def test_a_port_that_does_not_answer_is_a_restart_and_not_pending():
    wanted = Listener("submission", ("[::]:587",), "smtp")
    result = plan([wanted], stalwart(Listener("submission", ("[::]:587",), "smtp", open=False)))
    assert [change.actions for change in result.changes] == [(Action.RESTART,)]
    assert result.pending == ()


def test_consumers_need_their_account_and_accounts_their_domain():
    login = Login("stalwart", 587, "a", SECRET, verify_tls=False, account="a@mana.how")
    seen = stalwart() | {"compose": Observation("compose")}
    wanted = [Variable("notify", "SMTP_USER", "a", "a", login), Account("a@mana.how"), Domain(ZONE)]
    needs = {item.address: item.needs for item in plan(wanted, seen).changes}
    assert needs["smtp/notify/SMTP_USER"] == {"account/a@mana.how"}
    assert needs["account/a@mana.how"] == {"domain/mana.how"}


def test_a_domain_and_a_group_that_are_there_hold_nobody_back():
    """What else they say may fail by itself, and `--only` of an account leaves it alone."""
    group, account = Group("crew@mana.how"), Account("a@mana.how", groups=("crew@mana.how",))
    live = stalwart(replace(Domain(ZONE), catch_all=None), replace(group, description=None))
    wanted = [replace(Domain(ZONE), catch_all="a@mana.how"), replace(group, description="Crew"), account]
    needs = {item.address: item.needs for item in plan(wanted, live).changes}
    assert needs.keys() == {"domain/mana.how", "group/crew@mana.how", "account/a@mana.how"}
    assert needs["account/a@mana.how"] == frozenset()
    new = {item.address: item.needs for item in plan(wanted, stalwart()).changes}
    assert new["account/a@mana.how"] == {"domain/mana.how", "group/crew@mana.how"}


def test_keys_wait_until_their_domain_is_ours():
    live = stalwart(replace(Domain(ZONE), manual=False))
    wanted = [replace(Domain(ZONE), manual=True), Signature(ZONE, "s1", "ed25519", "KEY")]
    needs = {item.address: item.needs for item in plan(wanted, live).changes}
    assert needs["dkim/mana.how/s1"] == {"domain/mana.how"}


def test_additions_come_first_and_removals_last_in_one_phase_when_nothing_is_between():
    seen = cloudflare(ours(record(ZONE, "A", "old", "192.0.2.1")))
    result = plan([record(ZONE, "A", "mail", "192.0.2.1")], seen)
    assert len(phases(result.changes)) == 1
    result = plan([record(ZONE, "A", "mail", "192.0.2.1"), Domain(ZONE)], seen | stalwart(Account("x@mana.how")))
    assert [phase[0].target for phase in phases(result.changes)] == ["cloudflare", "stalwart", "cloudflare"]


def test_a_fingerprint_covers_values_and_names_of_secrets_but_no_order():
    first, second = record(ZONE, "A", "a", "192.0.2.1"), record(ZONE, "A", "b", "192.0.2.2")
    assert plan([first, second], cloudflare()).fingerprint == plan([second, first], cloudflare()).fingerprint
    assert plan([first], cloudflare()).fingerprint != plan([second], cloudflare()).fingerprint
    old, new = (plan([Account("a@x.how", password=SecretRef("env", name))], stalwart()) for name in ("A", "B"))
    assert old.fingerprint != new.fingerprint


def test_nothing_secret_has_a_public_value():
    assert public(SECRET) == "{env: PASSWORD}"
    assert public(Different()) == "(another secret)"


names = st.sampled_from(["@", "mail", "www", "a.b"])
records = st.builds(
    lambda name, address, ttl: record(ZONE, "A", name, f"192.0.2.{address}", ttl=ttl),
    names,
    st.integers(1, 4),
    st.sampled_from([1, 60, 300]),
) | st.builds(lambda name, text: record(ZONE, "TXT", name, text), names, st.sampled_from(["x", "y", "v=spf1 -all"]))


def unique(items):
    return list({(item.type, item.name, item.content): item for item in items}.values())


def carried_out(result, live):
    """What is live after a plan, as a system that obeys would have it."""
    gone = {id(change.before) for change in result.changes if change.before is not None}
    kept = [item for item in live if id(item) not in gone]
    made = [Live(change.after, f"n{i}", "mana") for i, change in enumerate(result.changes) if change.after is not None]
    adopted = {id(change.before) for change in result.adopted}
    return [Live(item.resource, item.id, "mana") if id(item) in adopted else item for item in kept] + made


@given(
    st.lists(records, max_size=6), st.lists(st.tuples(records, st.sampled_from(["mana", None, "other"])), max_size=6)
)
def test_a_plan_carried_out_leaves_nothing_to_do_and_foreign_records_alone(wanted, existing):
    wanted = unique(wanted)
    live = [Live(item, str(index), owner) for index, (item, owner) in enumerate(existing)]
    first = plan(wanted, cloudflare(*live))
    assert all(change.before is None or change.before.owner == "mana" for change in first.changes)
    after = carried_out(first, live)
    second = plan(wanted, cloudflare(*after))
    assert second.changes == ()
    assert second.adopted == ()
    assert [item for item in after if item.owner == "other"] == [item for item in live if item.owner == "other"]


def test_signatures_of_one_selector_are_compared_by_key():
    live = Signature(ZONE, "s1", "ed25519", "AAAA")
    result = plan([Signature(ZONE, "s1", "ed25519", "BBBB")], stalwart(live))
    assert result.changes[0].fields == {"public_key": ("AAAA", "BBBB")}


def test_a_key_needs_its_record_in_a_parent_zone_too():
    old, new = (Signature("sub.mana.how", "s1", "ed25519", text) for text in ("AAAA", "BBBB"))
    published = dkim_record(ZONE, "sub.mana.how", "s1", "ed25519", "BBBB")
    result = plan([new, published], stalwart(old) | cloudflare())
    needs = {change.address: change.needs for change in result.changes}
    assert needs["dkim/sub.mana.how/s1"] == {"dns/mana.how/TXT/s1._domainkey.sub"}


def test_a_change_of_type_waits_while_a_server_is_lost():
    wanted = [Domain(ZONE), record(ZONE, "CNAME", "www", "other.example")]
    live = cloudflare(ours(record(ZONE, "A", "www", "192.0.2.1")))
    assert [item.address for item in plan(wanted, live | stalwart(lost=True)).changes] == ["domain/mana.how"]
    later = plan(wanted, live | stalwart(Domain(ZONE)))
    assert [item.actions for item in later.changes] == [(Action.DELETE, Action.CREATE)]


def test_a_renamed_account_gets_its_password_as_it_could_not_be_compared():
    old = Account("old@mana.how", "old", "old@mana.how")
    new = Account("new@mana.how", "new", "new@mana.how", password=SECRET)
    (change,) = plan([new], stalwart(old), moved={old.address: new.address}).changes
    assert change.fields["password"] == (Different(compared=False), SECRET)
    kept = Account("new@mana.how", "new", "new@mana.how", password=SECRET, enforce_password=False)
    (change,) = plan([kept], stalwart(old), moved={old.address: new.address}).changes
    assert "password" not in change.fields


NAMES = st.sampled_from(["a", "b", "c"])
PEOPLE = st.lists(
    st.builds(
        lambda name, quota, aliases, secret: Account(
            f"{name}@mana.how",
            name,
            f"{name}@mana.how",
            roles=("user",),
            quota=quota,
            aliases=aliases,
            password=SECRET if secret else UNMANAGED,
        ),
        NAMES,
        st.sampled_from([None, 0, 5, UNMANAGED]),
        st.sampled_from([(), ("x@mana.how",), UNMANAGED]),
        st.booleans(),
    ),
    max_size=3,
    unique_by=lambda item: item.name,
)


def carried_out_at(server, result):
    """Return what is live after all changes, as a server would have it."""
    live = {item.address: item for item in server}
    for change in result.changes:
        if change.after is None:
            del live[change.address]
            continue
        had = change.before.resource if change.before else None
        values = {name: value for name, value in change.after.values() if value is not UNMANAGED}
        if values.get("password"):
            values["password"] = Same(values["password"])
        if had is not None:
            live.pop(had.address, None)
        live[change.address] = replace(had or change.after, **{"name": change.after.name} | values)
    return list(live.values())


@given(PEOPLE, PEOPLE, st.sets(NAMES), st.booleans())
def test_accounts_come_to_rest_and_only_named_ones_go(wanted, server, gone, lost):
    server = [replace(item, password=Different()) for item in server]
    removed = frozenset(f"account/{name}@mana.how" for name in gone) - {item.address for item in wanted}
    lost = lost and not server
    first = plan(wanted, stalwart(*server, lost=lost), removed=removed)
    deleted = {change.address for change in first.changes if change.deletes}
    assert deleted == removed & {item.address for item in server}
    after = carried_out_at(server, first)
    second = plan(wanted, stalwart(*after), removed=removed)
    assert second.changes == ()
    assert first.fingerprint == plan(wanted[::-1], stalwart(*server[::-1], lost=lost), removed=removed).fingerprint


# ------------------------------------------------------------------------------- zones, marks, what can't be understood
SPF = record(ZONE, "TXT", "@", "v=spf1 mx -all")
CODE = record(ZONE, "TXT", "@", "brevo-code:abc")


@pytest.mark.parametrize(
    "live", [[SPF], [SPF, CODE], [SPF, CODE, record(ZONE, "MX", "@", "mail.mana.how", priority=10)]]
)
def test_l4_where_only_a_provider_has_records_nothing_else_of_ours_is_touched(live):
    result = plan([CODE], cloudflare(*(ours(item, str(index)) for index, item in enumerate(live))), zones=frozenset())
    assert [item.actions for item in result.changes] == ([] if CODE in live else [(Action.CREATE,)])
    assert len(result.unmanaged) == len([item for item in live if item != CODE])
    assert result.owned == {}


def test_l4_a_change_of_type_in_a_zone_that_is_not_declared_removes_nothing():
    alias = record(ZONE, "CNAME", "mail", "b1.brevo.com")
    result = plan([alias], cloudflare(ours(record(ZONE, "A", "mail", "192.0.2.1"))), zones=frozenset({"other.how"}))
    assert result.changes == ()
    assert "can't be made beside dns/mana.how/A/mail, which stays" in result.refused[0].summary


def test_l4_a_providers_own_record_still_follows_it():
    old, new = (record(ZONE, "CNAME", "b1._domainkey", f"{name}.brevo.com") for name in ("old", "new"))
    (change,) = plan([new], cloudflare(ours(old)), zones=frozenset()).changes
    assert change.fields == {"content": ("old.brevo.com", "new.brevo.com")}


def unread(resource, owner=None):
    return Live(resource, "1", owner, "it can't be understood", unread=True)


@pytest.mark.parametrize("owner", [None, "mana", "other"])
@pytest.mark.parametrize("type", ["SRV", "CAA", "MX", "A", "TXT"])
def test_l10_what_cant_be_understood_is_unmanaged_and_blocks_what_may_be_the_same(owner, type):
    live = unread(replace(record(ZONE, "A", "x", "192.0.2.1"), type=type, content="None"), owner)
    assert plan([], cloudflare(live)).changes == ()
    assert plan([], cloudflare(live)).unmanaged == (f"dns/mana.how/{type}/x",)
    contents = {
        "SRV": "0 0 1 a.b",
        "CAA": '0 issue "a.b"',
        "MX": "1 a.b",
        "A": "192.0.2.2",
        "TXT": "text",
    }
    result = plan([record(ZONE, type, "x", contents[type])], cloudflare(live))
    assert result.changes == result.adopted == ()
    assert "it can't be understood" in result.refused[0].summary
    assert plan([record(ZONE, "SSHFP", "x", "1 1 " + "ab" * 20)], cloudflare(live)).refused == ()
    assert plan([record(ZONE, "CNAME", "x", "a.b")], cloudflare(live)).refused != () or type not in ("A", "MX")


def test_what_an_alias_allows_beside_it_is_told_before_it_is_sent():
    alias = Live(record(ZONE, "CNAME", "mail", "a.example"), "1")
    result = plan([record(ZONE, "A", "mail", "192.0.2.1")], cloudflare(alias))
    assert result.changes == ()
    assert "can't be made beside dns/mana.how/CNAME/mail, which stays" in result.refused[0].summary


def test_u6_the_unchanged_password_of_what_moves_is_not_called_another_one():
    live = Live(Account("old@mana.how", "old", "old@mana.how"), "old")
    wanted = Account("new@mana.how", "new", "new@mana.how", password=SecretRef("env", "P"))
    moved = {"account/old@mana.how": "account/new@mana.how"}
    (change,) = diff(
        Desired([wanted], moved=moved), {"stalwart": Observation("stalwart", [live])}, stack="mana"
    ).changes
    assert change.fields["password"][0] == Different(compared=False)
