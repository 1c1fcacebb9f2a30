"""What follows the line's address: where it may stand, which answers count, and what becomes of the records."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_network

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from reconciler.desired.derivation import Facts, desire, follows_line, zone_records
from reconciler.desired.load import load
from reconciler.desired.public_ip import SLOT, Line, Told, agreed, filled, follows, of_router, stray
from reconciler.dns.records import record
from reconciler.plan import diff
from reconciler.problem import InvalidDirectory, Severity
from reconciler.resources import UNKNOWN, Live, Observation
from reconciler.target import Action

OLD, NEW, THIRD = "91.12.34.56", "84.152.10.20", "8.9.10.11"
HEAD = """\
version: 1
stack: mana
targets: {cloudflare: {token: {env: TOKEN}}}
"""
ZONE = (
    HEAD
    + """\
dns:
  mana.how:
    - {type: A, name: mail, content: {public_ip: true}}
    - {type: TXT, name: "@", content: "v=spf1 ip4:{public_ip} mx -all"}
    - {type: TXT, name: "@", content: google-site-verification=abc}
    - {type: A, name: www, content: 192.0.2.1}
"""
)
A, SPF = "dns/mana.how/A/mail", "dns/mana.how/TXT/@[spf1]"
UNTOLD = Line(why="no two agree", hint="wait")


def spec(path, text):
    (path / "a.yaml").write_text(text)
    return load(path).spec


def line_asked(declared):
    return follows_line(declared, zone_records(declared))


def planned(path, line, *live, text=ZONE, owner="mana"):
    declared = spec(path, text)
    seen = {"cloudflare": Observation("cloudflare", tuple(Live(item, str(at), owner) for at, item in enumerate(live)))}
    return diff(desire(declared, seen, Facts(line=line)), seen, stack="mana")


def live(address, *more):
    return (
        record("mana.how", "A", "mail", address),
        record("mana.how", "TXT", "@", f"v=spf1 ip4:{address} mx -all"),
        record("mana.how", "TXT", "@", "google-site-verification=abc"),
        record("mana.how", "A", "www", "192.0.2.1"),
        *more,
    )


def changes(plan):
    return {change.address: (change.actions, change.after and change.after.content) for change in plan.changes}


# ------------------------------------------------------------------------------------------------------- the spec
def refused(path, content, type="A"):
    with pytest.raises(InvalidDirectory) as caught:
        spec(path, HEAD + f"dns: {{mana.how: [{{type: {type}, name: x, content: {content}}}]}}\n")
    (problem,) = caught.value.problems
    assert problem.where.startswith("a.yaml:4:")
    assert problem.hint
    return problem.summary


@pytest.mark.parametrize(
    ("type", "content", "words"),
    [
        ("AAAA", "{public_ip: true}", "every machine has an IPv6 address of its own"),
        ("CNAME", "{public_ip: true}", "only an A record follows"),
        ("TXT", "{public_ip: true}", "only an A record follows"),
        ("A", "{public_ip: false}", "not true"),
        ("A", "{public_ip}", "not true"),
        ("A", "{env: HOME}", "must be text"),
        ("A", '"{public_ip}"', "where nothing follows"),
        ("TXT", '"hello {public_ip}"', "where nothing follows"),
        ("TXT", '"v=DMARC1; p=none; rua=mailto:{public_ip}"', "where nothing follows"),
        ("CNAME", '"{public_ip}"', "where nothing follows"),
        ("TXT", '"v=spf1 ip4:{public_ipv4} -all"', "has a single {"),
        ("TXT", '"v=spf1 ip4:{public_ip -all"', "has a single {"),
        ("TXT", '"v=spf1 ip4:{public_ip}} -all"', "has a single }"),
    ],
)
def test_it_stands_in_an_a_record_or_in_spf_and_nowhere_else(tmp_path, type, content, words):
    assert words in refused(tmp_path, content, type)


def test_a_part_of_data_does_not_follow(tmp_path):
    text = 'dns: {mana.how: [{type: CAA, name: x, data: {flags: 0, tag: issue, value: "{public_ip}"}}]}\n'
    with pytest.raises(InvalidDirectory) as caught:
        spec(tmp_path, HEAD + text)
    assert "where nothing follows" in str(caught.value)


def test_two_that_follow_at_one_name_and_a_second_spf_are_mistakes(tmp_path):
    twice = "    - {type: A, name: mail, content: {public_ip: true}}\n"
    with pytest.raises(InvalidDirectory) as caught:
        spec(tmp_path, ZONE + twice)
    assert "is the same record as" in str(caught.value)
    with pytest.raises(InvalidDirectory) as caught:
        spec(tmp_path, ZONE + '    - {type: TXT, name: "@", content: "v=spf1 -all"}\n')
    assert "second SPF record" in str(caught.value)


def test_macros_of_spf_are_left_alone_and_doubled_braces_are_braces(tmp_path):
    text = '"v=spf1 ip4:{public_ip} exists:%{ir}.%{{d}}.x -all"'
    plan = planned(tmp_path, Line(NEW), text=HEAD + f'dns: {{mana.how: [{{type: TXT, name: "@", content: {text}}}]}}\n')
    assert [change.after.content for change in plan.changes] == [f"v=spf1 ip4:{NEW} exists:%{{ir}}.%{{d}}.x -all"]


def test_a_text_without_the_address_follows_nothing(tmp_path):
    declared = HEAD + 'dns: {mana.how: [{type: TXT, name: "@", content: "v=spf1 exists:%{i}.x {{x}} -all"}]}\n'
    assert not line_asked(spec(tmp_path, declared))
    (change,) = planned(tmp_path, None, text=declared).changes
    assert (change.after.content, change.notes) == ("v=spf1 exists:%{i}.x {x} -all", ())


words = st.text(st.sampled_from("ab:. {}%"), max_size=12)
addresses = st.integers(0, 2**32 - 1).map(IPv4Address).map(str)


@given(st.lists(words, min_size=1, max_size=4), addresses)
@example(["{", "}"], OLD)
@example(["%", ""], OLD)
def test_a_text_with_its_braces_doubled_comes_back_with_the_address_in_each_place(parts, address):
    written = SLOT.join(part.replace("{", "{{").replace("}", "}}") for part in parts)
    assert filled(written, address) == address.join(parts)
    assert follows(written) == (len(parts) > 1)
    assert not stray(written)


macros = st.from_regex(r"%\{[slodiphcrtv][0-9]{0,2}r?[-.+,/_=]{0,2}\}", fullmatch=True)


@given(st.lists(st.one_of(macros, st.just(SLOT), st.sampled_from(["a ", " ", ":"])), max_size=8), addresses)
def test_spf_s_own_macros_stay_beside_the_address(pieces, address):
    written = "".join(pieces)
    assert filled(written, address) == "".join(address if piece == SLOT else piece for piece in pieces)
    assert not stray(written)


# ---------------------------------------------------------------------------------------------------- who is believed
def told(*said):
    return [Told(f"ns{at}", item if item[:1].isdigit() else "", item) for at, item in enumerate(said)]


@pytest.mark.parametrize(
    ("said", "address"),
    [
        ((NEW, NEW, NEW), NEW),
        ((NEW, "no answer", NEW), NEW),
        ((NEW, OLD, NEW), NEW),
        ((NEW, OLD, THIRD), ""),
        ((NEW, OLD), ""),
        ((NEW, NEW, OLD, OLD), ""),
        ((NEW, "no answer", "refused"), ""),
        (("no answer",) * 3, ""),
        ((), ""),
    ],
)
def test_two_have_to_agree(said, address):
    line = agreed(told(*said))
    assert (line.address, bool(line.why)) == (address, not address)
    assert line.told == {item for item in said if item[:1].isdigit()}
    assert all(item in line.why for item in said if not address)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("100.64.0.1", "CGNAT"),
        ("100.127.255.255", "CGNAT"),
        ("192.0.0.2", "DS-Lite"),
        ("10.0.0.1", "another router"),
        ("172.31.0.1", "another router"),
        ("192.168.178.20", "another router"),
        ("127.0.0.1", "none of the Internet"),
        ("203.0.113.7", "none of the Internet"),
        ("198.18.0.1", "none of the Internet"),
        ("169.254.1.1", "none of the Internet"),
        ("224.0.1.1", "none of the Internet"),
        ("240.0.0.1", "none of the Internet"),
        ("255.255.255.255", "none of the Internet"),
    ],
)
def test_an_address_that_nobody_reaches_is_a_problem_and_no_value(address, words):
    for line in (agreed(told(address, address)), of_router(Told("router", address))):
        assert (line.address, line.useless) == ("", True)
        assert words in line.why
        assert "no mail can be received" in line.why
        assert line.hint


@given(addresses)
def test_only_what_the_whole_internet_reaches_is_a_value(address):
    found = of_router(Told("router", address))
    inside = [
        ip_network(item) for item in ("10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "192.168.0.0/16", "224.0.0.0/3")
    ]
    assert found.address in ("", address)
    assert bool(found.address) != found.useless
    if any(IPv4Address(address) in network for network in inside):
        assert found.useless


# ------------------------------------------------------------------------------------------------------- the records
def test_the_plan_shows_the_address_and_that_it_is_followed(tmp_path):
    plan = planned(tmp_path, Line(NEW, told=frozenset({NEW})), *live(OLD))
    assert changes(plan) == {
        A: ((Action.UPDATE,), NEW),
        SPF: ((Action.UPDATE,), f"v=spf1 ip4:{NEW} mx -all"),
    }
    assert {change.notes for change in plan.changes} == {("follows the line's address",)}
    assert plan.problems == ()
    assert not planned(tmp_path, Line(NEW), *live(NEW)).changes


def test_a_long_ttl_is_told_with_the_change_alone(tmp_path):
    text = ZONE.replace("name: mail,", "name: mail, ttl: 3600,")
    (note,) = next(change.notes for change in planned(tmp_path, Line(NEW), *live(OLD), text=text).changes)
    assert "3600" in note
    quick = ZONE.replace("name: mail,", "name: mail, ttl: 300,")
    assert all("ttl" not in change.notes[0] for change in planned(tmp_path, Line(NEW), *live(OLD), text=quick).changes)


def test_a_plan_that_was_saved_counts_for_its_address_alone(tmp_path):
    prints = {planned(tmp_path, Line(address), *live(OLD)).fingerprint for address in (NEW, THIRD, NEW)}
    assert len(prints) == 2


def test_while_it_can_not_be_told_the_records_stay_and_the_rest_is_planned(tmp_path):
    other = live(OLD)[:2]
    plan = planned(tmp_path, UNTOLD, *other)
    assert set(changes(plan)) == {"dns/mana.how/TXT/@[google-site-verification]", "dns/mana.how/A/www"}
    assert [(item.where, item.severity) for item in plan.problems] == [
        (A, Severity.WARNING),
        ("dns/mana.how/TXT/@", Severity.WARNING),
    ]
    assert plan.complete
    assert plan.unchanged == 2


def test_what_else_is_declared_of_such_a_record_is_healed_meanwhile(tmp_path):
    text = ZONE.replace("name: mail,", "name: mail, ttl: 120,")
    (change,) = planned(tmp_path, UNTOLD, *live(OLD), text=text).changes
    assert (change.address, change.after.content, set(change.fields)) == (A, OLD, {"ttl"})


def test_a_record_that_is_not_there_yet_waits_and_takes_nothing_away(tmp_path):
    alias = record("mana.how", "CNAME", "mail", "elsewhere.example")
    plan = planned(tmp_path, UNTOLD, alias, *live(OLD)[2:])
    assert changes(plan) == {}
    plan = planned(tmp_path, Line(NEW), alias, *live(OLD)[2:])
    assert changes(plan)[A] == ((Action.DELETE, Action.CREATE), NEW)


def test_which_of_several_it_was_is_not_guessed(tmp_path):
    two = record("mana.how", "A", "mail", THIRD)
    assert changes(planned(tmp_path, UNTOLD, *live(OLD, two))) == {}
    fixed = ZONE + f"    - {{type: A, name: mail, content: {THIRD}}}\n"
    plan = planned(tmp_path, UNTOLD, *live(OLD, two), text=fixed)
    assert (changes(plan), plan.unchanged) == ({}, 5)


def test_what_is_live_and_not_ours_is_not_taken_for_it(tmp_path):
    assert changes(planned(tmp_path, UNTOLD, *live(OLD), owner=None)) == {}
    plan = planned(tmp_path, Line(NEW), live(OLD)[0], owner=None)
    assert A not in changes(plan)
    assert any(item.severity is Severity.REFUSED and item.where == A for item in plan.problems)


def test_an_address_of_no_use_is_an_error_and_the_records_stay(tmp_path):
    plan = planned(tmp_path, agreed(told("100.64.1.1", "100.64.1.1")), *live(OLD))
    assert changes(plan) == {}
    assert {item.severity for item in plan.problems} == {Severity.ERROR}
    assert all("CGNAT" in item.summary for item in plan.problems)


def test_the_published_address_stays_while_anybody_still_names_it(tmp_path):
    disputed = agreed(told(NEW, NEW, OLD))
    assert disputed.address == NEW
    plan = planned(tmp_path, disputed, *live(OLD))
    assert changes(plan) == {}
    assert {item.severity for item in plan.problems} == {Severity.WARNING}
    assert set(changes(planned(tmp_path, agreed(told(NEW, NEW, THIRD)), *live(OLD)))) == {A, SPF}


def test_before_anything_is_observed_it_is_unknown_or_the_last_answer(tmp_path):
    declared = spec(tmp_path, ZONE)
    assert line_asked(declared)
    contents = [item.content for item in desire(declared).resources]
    assert contents.count(UNKNOWN) == 2
    assert NEW in [item.content for item in desire(declared, None, Facts(line=Line(NEW))).resources]


def test_a_provider_s_own_spf_follows_too(tmp_path):
    text = (
        HEAD
        + """\
smtp:
  provider: own
  providers:
    own:
      host: mail.mana.how
      port: 465
      username: x
      password: {env: P}
      dns: {mana.how: [{type: TXT, name: news, content: "v=spf1 ip4:{public_ip} -all"}]}
dns: {mana.how: []}
"""
    )
    assert line_asked(spec(tmp_path, text))
    assert changes(planned(tmp_path, Line(NEW), text=text)) == {
        "dns/mana.how/TXT/news": ((Action.CREATE,), f"v=spf1 ip4:{NEW} -all")
    }
