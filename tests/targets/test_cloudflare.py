"""The Cloudflare target against the fake, over real HTTP: the state of the world, and an empty second plan."""

import base64
import gc
import json
import re
import subprocess
import sys
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from properties import tries

from reconciler.dns.records import dkim_record
from reconciler.dns.records import record as make_record
from reconciler.names import absolute
from reconciler.plan import Desired, diff, phases
from reconciler.problem import Problem, SecretUnreadable, Severity
from reconciler.resources import UNKNOWN, UNMANAGED, SecretRef
from reconciler.simulator.cloudflare import Cloudflare as Fake
from reconciler.simulator.cloudflare import Token
from reconciler.simulator.wire import Fault, Reply, Request, Server
from reconciler.target import Change, Reason, Status
from reconciler.targets.cloudflare import Cloudflare
from reconciler.targets.cloudflare.listing import Access
from reconciler.targets.cloudflare.transport import HINTS

ZONE = "mana.how"
TOKEN = SecretRef("env", "CLOUDFLARE_API_TOKEN")
VALUE = "canary-token-0123456789"
ED25519 = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="


@dataclass
class World:
    """A fake on a port, a target for it, and the way from desired records to the state of the world."""

    fake: Fake
    server: Server
    zones: tuple[str, ...] = (ZONE,)
    waits: list[str] = field(default_factory=list)
    rest: dict = field(default_factory=dict)
    target: Cloudflare = None

    def __post_init__(self):
        options = {"tokens": [Access(TOKEN)], "base_url": f"{self.server.url}/client/v4"} | self.rest
        self.target = Cloudflare(stack="main", zones=self.zones, progress=self.waits.append, **options)

    def reveal(self, ref):
        return VALUE

    def observe(self):
        return self.target.observe([], self.reveal)

    def plan(self, records, *, seen=None, adopt=()):
        seen = seen or self.observe()
        return diff(Desired(list(records), adopt=frozenset(adopt)), {"cloudflare": seen}, stack="main")

    def execute(self, plan):
        return [
            outcome
            for phase in phases([*plan.changes, *plan.adopted])
            for outcome in self.target.apply(phase, self.reveal)
        ]

    def apply(self, records, **rest):
        """Apply, and check that everything went well and a second plan is empty."""
        records = list(records)
        outcomes = self.execute(self.plan(records, **rest))
        assert [outcome.problem for outcome in outcomes if outcome.status is not Status.DONE] == []
        again = self.plan(records)
        assert again.changes == again.adopted == again.problems == ()
        return outcomes

    def contents(self, zone=ZONE):
        return sorted((item["type"], item["name"], item["content"]) for item in self.fake.records(zone))

    def batches(self):
        return [item.json() for item in self.server.requests if item.path.endswith("/batch")]

    def fault(self, **what):
        self.server.faults.append(Fault(**what))


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    """Wait less between two tries of a read: how long is no matter of these tests."""
    monkeypatch.setattr("reconciler.targets.cloudflare.transport._PAUSE", 0.01)


@pytest.fixture
def worlds():
    """Make worlds that end with the test."""
    made = []

    def make(zones=(ZONE,), *, rest=None, **options):
        fake = Fake(list(zones), tokens=options.pop("tokens", {VALUE: Token()}), **options)
        made.append(World(fake, Server(fake).start(), tuple(zones), rest=rest or {}))
        return made[-1]

    yield make
    for world in made:
        world.target.close()
        world.server.stop()
        assert world.server.crashes == []


@pytest.fixture
def world(worlds):
    return worlds(quota=100_000)


def rec(type, name="www", content=None, **rest):
    return make_record(ZONE, type, name, content, **rest)


def many(count, **rest):
    return [rec("A", f"host{number}", f"10.0.{number // 256}.{number % 256}", **rest) for number in range(count)]


# ------------------------------------------------------------------------------ semantics.md section 4, case by case
LONG = "v=DKIM1; k=rsa; h=sha256; p="
TEXTS = [
    *("x" * size for size in (1, 254, 255, 256, 509, 510, 511, 764, 765, 766)),
    "it's",
    "`so`",
    'one " inside',
    'two "" inside',
    '"leading',
    'trailing"',
    "a;b",
    "a ; b",
    "inner  space",
    " leading space",
    "trailing space ",
    "v=spf1 a mx a:mail.mana.how include:spf.brevo.com ~all",
    *("a" + "\\" * count + "b" for count in (1, 2, 3, 4)),
    "\\" * 3,
    '"',
    "ünï 例え",
    "tab\tnew\nline",
]
CASES = {
    "A": [[rec("A", content="192.0.2.1")], [rec("A", content="192.0.2.2")], []],
    "AAAA": [[rec("AAAA", content="2001:db8::1")], [rec("AAAA", content="2001:db8::2")], []],
    "apex": [[rec("A", "@", "192.0.2.1")], [rec("A", "@", "192.0.2.2")], []],
    "wildcard": [[rec("A", "*", "192.0.2.1")], [rec("A", "*.apps", "192.0.2.1")], []],
    "several values at one label": [
        [rec("A", content="192.0.2.1")],
        [rec("A", content="192.0.2.1"), rec("A", content="192.0.2.2")],
        [rec("A", content="192.0.2.1"), rec("A", content="192.0.2.3")],
        [rec("A", content="192.0.2.3")],
    ],
    "many types at one label": [
        [rec("A", content="192.0.2.1"), rec("TXT", content="a"), rec("MX", content="10 mail")],
        [rec("AAAA", content="2001:db8::1"), rec("TXT", content="b"), rec("CAA", content="0 issue x.example")],
    ],
    "MX": [
        [rec("MX", "@", "10 mail.mana.how"), rec("MX", content="10 mail.mana.how")],
        [rec("MX", "@", "10 mx.mana.how"), rec("MX", content="20 mail.mana.how")],
        [rec("MX", "@", "10 mail.mana.how"), rec("MX", "@", "20 mail.mana.how")],
        [rec("MX", "@", "20 mail.mana.how"), rec("MX", "@", "30 mail.mana.how")],
        [rec("MX", "@", "10 @")],
    ],
    "two MX swap": [
        [rec("MX", "@", "10 a.mana.how"), rec("MX", "@", "20 b.mana.how")],
        [rec("MX", "@", "20 a.mana.how"), rec("MX", "@", "10 b.mana.how")],
    ],
    "null MX": [
        [rec("MX", content="."), rec("MX", "@", "10 mail.mana.how")],
        [rec("MX", content="10 mail.mana.how"), rec("MX", "@", ".")],
        [rec("MX", content="."), rec("MX", "@", "10 mail.mana.how")],
    ],
    "TTL": [
        [rec("A", content="192.0.2.1", ttl=300)],
        [rec("A", content="192.0.2.1", ttl=600)],
        [rec("A", content="192.0.2.1", ttl="auto"), rec("A", content="192.0.2.2")],
        [rec("A", content="192.0.2.1", ttl=60), rec("A", content="192.0.2.2", ttl=86400)],
    ],
    "TTL of SRV": [
        [rec("SRV", "_s._tcp", "10 5 587 mail", ttl=300)],
        [rec("SRV", "_s._tcp", "10 5 587 mail", ttl=600)],
    ],
    "type changes": [
        [rec("A", content="192.0.2.1")],
        [rec("MX", content="10 mail.mana.how")],
        [rec("A", content="192.0.2.1")],
        [rec("CNAME", content="mail.mana.how")],
        [rec("A", content="192.0.2.1"), rec("A", content="192.0.2.2"), rec("TXT", content="x")],
        [rec("CNAME", content="mail.mana.how"), rec("TXT", content="x")],
    ],
    "NS of a sub-zone": [
        [rec("NS", "sub", "ns1.example")],
        [rec("NS", "sub", "ns1.example"), rec("NS", "sub", "ns2.example")],
        [rec("NS", "sub", "ns2.example"), rec("DS", "sub", "1 13 2 " + "ab" * 32)],
        [rec("TXT", "sub", "a zone no more")],
        [rec("NS", "sub", "ns2.example"), rec("DS", "sub", "1 13 2 " + "ab" * 32)],
        [],
    ],
    **{
        f"TXT {text[:24]!r} of {len(text)}": [[rec("TXT", content=text)], [rec("TXT", content=text + "x")]]
        for text in TEXTS
    },
    "long DKIM": [[rec("TXT", "x._domainkey", LONG + "A" * 800)], [rec("TXT", "x._domainkey", LONG + "B" * 800)]],
    "DKIM": [
        [dkim_record(ZONE, ZONE, "mana2026", "ed25519", ED25519)],
        [rec("TXT", "mana2026._domainkey", f"k=ed25519; p={ED25519};")],
        [rec("TXT", "mana2026._domainkey", f"k=ed25519; t=y; p={ED25519};")],
    ],
    "case": [[rec("CNAME", "WWW", "Mail.Mana.How.")], [rec("CNAME", "www", "mail.mana.how")]],
    "IDN": [
        [rec("A", "münchen", "192.0.2.1"), rec("CNAME", "例え", "münchen.example"), rec("A", "*.例え", "192.0.2.1")],
        [rec("A", "xn--mnchen-3ya", "192.0.2.2"), rec("CNAME", "例え", "例え.example")],
    ],
    "CAA": [
        [rec("CAA", "@", "0 issue letsencrypt.org")],
        [rec("CAA", "@", "128 issue letsencrypt.org")],
        [rec("CAA", "@", "128 issuewild letsencrypt.org")],
        [rec("CAA", "@", '0 issue ";"')],
        [rec("CAA", "@", '0 issue "letsencrypt.org; accounturi=https://x.example/1; validationmethods=dns-01"')],
    ],
    "SRV": [
        [rec("SRV", "_s._tcp", "10 5 587 mail.mana.how")],
        [rec("SRV", "_s._tcp", "20 5 587 mail.mana.how")],
        [rec("SRV", "_s._tcp", "20 6 587 mail.mana.how")],
        [rec("SRV", "_s._tcp", "20 6 465 mail.mana.how")],
        [rec("SRV", "_s._tcp", "20 6 465 mx.mana.how"), rec("SRV", "_s._tcp", "20 6 587 mx.mana.how")],
        [rec("SRV", "_s._tcp", "0 0 0 .")],
    ],
    "TLSA": [
        [rec("TLSA", "_25._tcp.mail", content)]
        for content in ("3 1 1 abcd", "2 1 1 ABCD", "2 0 1 abcd", "2 0 2 abcd", "2 0 2 abce")
    ],
    "SMIMEA": [[rec("SMIMEA", "x._smimecert", "3 1 1 abcd")], [rec("SMIMEA", "x._smimecert", "3 1 1 abce")]],
    "SSHFP": [[rec("SSHFP", content=content)] for content in ("4 2 abcd", "1 2 abcd", "1 1 abcd", "1 1 ABCE")],
    "HTTPS": [
        [rec("HTTPS", "@", '1 . alpn="h3,h2"')],
        [rec("HTTPS", "@", '1 . alpn="h2" ipv4hint="192.0.2.1"')],
        [rec("HTTPS", "@", "0 www.mana.how")],
    ],
    "SVCB": [[rec("SVCB", "_x", '1 a.example port="53"')], [rec("SVCB", "_x", '2 a.example port="53"')]],
    "DS": [
        [rec("NS", "sub", "ns1.example"), rec("DS", "sub", "1 13 2 " + "ab" * 32)],
        [rec("NS", "sub", "ns1.example"), rec("DS", "sub", "2 13 2 " + "AB" * 32)],
    ],
    "NAPTR": [
        [rec("NAPTR", content='10 20 "S" "SIP+D2U" "" _sip._udp.mana.how')],
        [rec("NAPTR", content='10 20 "U" "E2U+sip" "!^.*$!sip:a@b.example!" .')],
    ],
    "URI": [[rec("URI", "_x._tcp", '5 1 "https://a.example"')], [rec("URI", "_x._tcp", '6 1 "https://a.example"')]],
    "LOC": [[rec("LOC", content="52 22 23.5 N 4 53 32 E -2m 1m 10000m 10m")]],
    "CERT": [[rec("CERT", content="1 2 3 AAAA")]],
    "DNSKEY": [[rec("DNSKEY", "sub", "257 3 13 AAAA")]],
    "OPENPGPKEY": [[rec("OPENPGPKEY", "x._openpgpkey", "AAAA")]],
    "PTR": [[rec("PTR", "1", "Host.Example.")], [rec("PTR", "1", "other.example")]],
    "proxied": [
        [rec("A", content="192.0.2.1", ttl=300), rec("CNAME", "c", "www.mana.how", ttl=300)],
        [rec("A", content="8.8.8.8", proxied=True), rec("CNAME", "c", "www.mana.how", proxied=True, ttl=300)],
        [rec("A", content="8.8.8.8", ttl=300), rec("CNAME", "c", "www.mana.how")],
    ],
    "comment": [
        [rec("A", content="192.0.2.1", comment="one")],
        [rec("A", content="192.0.2.1", comment="two words")],
        [rec("A", content="192.0.2.1")],
        [rec("A", content="192.0.2.1", comment="")],
        [rec("A", content="192.0.2.1", comment="x" * 84)],
    ],
}


def served(records):
    """What the world should hold of desired records."""
    return sorted((item.type, absolute(item.name, ZONE), item.data or item.content, item.priority) for item in records)


def held(world, stack="main"):
    """What the world holds that is ours, read with nothing of the target."""
    found = []
    for raw in world.fake.records(ZONE):
        if f"reconciler:{stack}" in (raw["comment"] or ""):
            item = make_record(
                ZONE, raw["type"], raw["name"], raw["content"], priority=raw.get("priority"), data=raw.get("data")
            )
            found.append(item)
    return served(found)


@pytest.mark.parametrize("name", CASES)
def test_every_step_of_a_case_ends_as_desired_and_plans_empty(world, name):
    foreign = [
        world.fake.add(ZONE, type="TXT", name="foreign", content="unquoted; by hand", ttl=1),
        world.fake.add(ZONE, type="A", name="elsewhere", content="192.0.2.99", ttl=1, comment="reconciler:other"),
        world.fake.add(ZONE, type="NS", name="@", content="ada.ns.cloudflare.com", ttl=1),
        world.fake.add(
            ZONE,
            type="MX",
            name="routed",
            content="route1.mx.cloudflare.net",
            priority=5,
            ttl=1,
            meta={"read_only": True},
        ),
    ]
    before = [item for item in world.fake.records(ZONE) if item["id"] in foreign]
    for step in (*CASES[name], CASES[name][0], []):
        world.server.forget()
        world.apply(step)
        assert len(world.batches()) <= 1
        assert held(world) == served(step)
        assert [item for item in world.fake.records(ZONE) if item["id"] in foreign] == before


def test_an_update_patches_the_same_record_and_only_what_changed(world):
    world.apply([rec("A", content="192.0.2.1", comment="web"), rec("MX", "@", "10 mail.mana.how")])
    before = {item["type"]: item["id"] for item in world.fake.records(ZONE)}
    world.server.forget()
    world.apply([rec("A", content="192.0.2.1", comment="web", ttl=300), rec("MX", "@", "20 mail.mana.how")])
    assert {item["type"]: item["id"] for item in world.fake.records(ZONE)} == before
    (batch,) = world.batches()
    patches = sorted(batch["patches"], key=str)
    assert batch.keys() == {"patches"}
    assert {"id": before["A"], "ttl": 300} in patches
    assert {"id": before["MX"], "content": "mail.mana.how", "priority": 20} in patches


def test_a_change_of_type_is_one_batch_even_at_the_edge_of_two(world):
    world.apply([*many(199), rec("CNAME", content="mail.mana.how")])
    world.server.forget()
    world.apply([*many(199, ttl=300), rec("A", content="192.0.2.1")])
    assert [[len(batch[verb]) for verb in batch] for batch in world.batches()] == [[199], [1, 1]]


# ---------------------------------------------------------------------------------------------------------- ownership
class TestOwnership:
    def test_an_equal_record_is_adopted_and_keeps_its_text(self, world):
        world.fake.add(ZONE, type="A", name="www", content="192.0.2.1", ttl=1, comment="  since 2019, ask  Ada")
        plan = world.plan([rec("A", content="192.0.2.1")])
        assert plan.changes == ()
        assert [change.address for change in plan.adopted] == ["dns/mana.how/A/www"]
        world.apply([rec("A", content="192.0.2.1")])
        assert [item["comment"] for item in world.fake.records(ZONE)] == ["  since 2019, ask  Ada reconciler:main"]

    def test_adoption_shares_the_batch(self, world):
        world.fake.add(ZONE, type="TXT", name="www", content="unquoted", ttl=1)
        world.server.forget()
        world.apply([rec("TXT", content="unquoted"), rec("A", content="192.0.2.1")])
        assert len(world.batches()) == 1
        assert ("TXT", "www.mana.how", "unquoted") in world.contents()

    def test_a_mark_that_does_not_fit_is_left_out_and_reported(self, world):
        text = "x" * 99
        world.fake.add(ZONE, type="A", name="www", content="192.0.2.1", ttl=1, comment=text)
        before = world.fake.records(ZONE)
        world.server.forget()
        wanted = rec("A", content="192.0.2.1")
        change = Change(wanted.address, (), Reason.DIFFERS, world.observe().live[0], wanted, adopts=True)
        (outcome,) = world.execute(replace(world.plan([wanted]), adopted=(change,)))
        assert outcome.status is Status.DONE
        assert "does not fit" in outcome.notes[0]
        assert world.fake.records(ZONE) == before
        assert world.server.writes() == []

    def test_a_foreign_record_that_differs_is_taken_over_only_when_told(self, world):
        world.fake.add(ZONE, type="A", name="www", content="192.0.2.9", ttl=300, comment="theirs")
        refused = world.plan([rec("A", content="192.0.2.1")])
        assert refused.changes == ()
        assert refused.refused
        world.apply([rec("A", content="192.0.2.1")], adopt=["dns/mana.how/A/www"])
        (record,) = world.fake.records(ZONE)
        assert (record["content"], record["ttl"], record["comment"]) == ("192.0.2.1", 1, "theirs reconciler:main")

    def test_a_mark_taken_off_by_hand_stops_a_removal(self, world):
        world.apply([rec("A", content="192.0.2.1")])
        world.fake.edit(ZONE, world.fake.records(ZONE)[0]["id"], comment="mine now, was reconciler:main once")
        assert world.plan([]).changes == ()

    def test_others_are_never_written_whatever_a_plan_says(self, world):
        for name, rest in {"a": {"comment": "reconciler:other"}, "b": {}, "c": {"meta": {"read_only": True}}}.items():
            world.fake.add(ZONE, type="A", name=name, content="192.0.2.1", ttl=1, **rest)
        before = world.fake.records(ZONE)
        ours = world.observe()
        ours = replace(ours, live=[replace(live, owner="main", fixed="") for live in ours.live])
        changes = world.plan([], seen=ours).changes
        real = {live.id: live for live in world.observe().live}
        outcomes = list(
            world.target.apply([replace(item, before=real[item.before.id]) for item in changes], world.reveal)
        )
        assert [outcome.status for outcome in outcomes] == [Status.FAILED] * 3
        assert world.fake.records(ZONE) == before

    def test_what_is_not_known_yet_is_not_written(self, world):
        (outcome,) = world.execute(world.plan([rec("TXT", "x._domainkey", UNKNOWN)]))
        assert outcome.status is Status.FAILED
        assert world.server.writes() == []

    def test_a_comment_that_is_not_managed_is_kept(self, world):
        world.apply([rec("A", content="192.0.2.1", comment="why it is here")])
        world.apply([rec("A", content="192.0.2.2")])
        assert [item["comment"] for item in world.fake.records(ZONE)] == ["why it is here reconciler:main"]

    def test_cloudflare_s_own_records_are_listed_as_fixed_and_soa_and_apex_ns_not_at_all(self, world):
        world.fake.add(
            ZONE, type="MX", name="@", content="route1.mx.cloudflare.net", priority=5, ttl=1, meta={"read_only": True}
        )
        world.fake.add(ZONE, type="NS", name="@", content="ada.ns.cloudflare.com", ttl=1)
        (live,) = world.observe().live
        assert "Email Routing" in live.fixed

    def test_a_type_nobody_knows_is_listed_and_left_alone(self, world):
        def change(reply):
            answer = json.loads(reply.body)
            answer["result"].append({"id": "f" * 32, "type": "NEW", "name": "x.mana.how", "content": "?"})
            answer["result"].append({"id": "e" * 32, "type": "A", "name": "y.mana.how", "content": None})
            answer["result_info"]["total_count"] += 2
            return replace(reply, body=json.dumps(answer).encode())

        world.fault(path="dns_records", change=change)
        seen = world.observe()
        assert seen.complete
        assert [live.resource.address for live in seen.live] == ["dns/mana.how/NEW/x", "dns/mana.how/A/y"]


# -------------------------------------------------------------------------------------------------- request budgets
class TestBudgets:
    @pytest.mark.parametrize("count", [0, 1, 99, 100, 101, 600, 1200, 5000])
    def test_a_zone_of_up_to_5000_records_takes_two_requests(self, world, count):
        for number in range(count):
            world.fake.add(ZONE, type="A", name=f"h{number}", content="192.0.2.1", ttl=1)
        seen = world.observe()
        assert seen.complete
        assert len(seen.live) == count
        assert sum(world.server.counts.values()) == 2

    def test_5001_records_take_three(self, world):
        for number in range(5001):
            world.fake.add(ZONE, type="A", name=f"h{number}", content="192.0.2.1", ttl=1)
        assert len(world.observe().live) == 5001
        assert sum(world.server.counts.values()) == 3

    @pytest.mark.parametrize("count", [99, 100, 101, 600, 1200])
    def test_a_server_with_smaller_pages_is_read_to_the_end(self, worlds, count):
        world = worlds(quota=9999, per_page_max=100)
        for number in range(count):
            world.fake.add(ZONE, type="A", name=f"h{number}", content="192.0.2.1", ttl=1)
        assert len(world.observe().live) == count
        assert sum(world.server.counts.values()) == 1 + -(-count // 100)

    @pytest.mark.parametrize(("count", "batches"), [(1, 1), (199, 1), (200, 1), (201, 2), (1000, 5)])
    def test_as_few_batches_as_there_can_be(self, world, count, batches):
        world.execute(world.plan(many(count)))
        assert len(world.server.writes()) == batches
        assert sum(world.server.counts.values()) == 2 + batches
        assert len(world.fake.records(ZONE)) == count
        assert world.plan(many(count)).changes == ()

    def test_a_mixed_batch_across_the_boundary(self, world):
        world.apply(many(150))
        world.server.forget()
        world.apply([*many(100, ttl=300), *(rec("TXT", f"t{number}", "x") for number in range(100))])
        assert len(world.batches()) == 2

    def test_more_values_at_one_name_than_fit_into_a_batch(self, world):
        world.apply(rec("A", "@", f"10.0.{number // 256}.{number % 256}") for number in range(301))
        assert len(world.fake.records(ZONE)) == 301

    def test_no_change_writes_nothing(self, world):
        world.apply(many(3))
        world.server.forget()
        assert world.execute(world.plan(many(3))) == []
        assert world.server.writes() == []

    def test_several_zones_share_one_lookup(self, worlds):
        zones = ("a.example", "b.example", "c.example")
        world = worlds(zones)
        wanted = [make_record(zone, "A", "www", "192.0.2.1") for zone in zones]
        world.execute(world.plan(wanted))
        assert world.server.counts["GET /client/v4/zones"] == 1
        assert len(world.server.writes()) == 3
        assert all(len(world.fake.records(zone)) == 1 for zone in zones)
        assert world.plan(wanted).changes == ()

    def test_zones_beyond_the_first_page_are_found(self, worlds):
        world = worlds(tuple(f"z{number}.example" for number in range(120)))
        assert world.observe().complete
        assert world.server.counts["GET /client/v4/zones"] == 3


# ------------------------------------------------------------------------------------------------------ bad listings
def edited(edit):
    """A fault that lets ``edit`` change an answer's JSON."""

    def change(reply):
        answer = json.loads(reply.body)
        edit(answer)
        return replace(reply, body=json.dumps(answer).encode())

    return change


def shorten(answer):
    del answer["result"][-1]


def repeat(answer):
    answer["result"][-1] = answer["result"][0]


TORN = {
    "a record is missing": shorten,
    "a record is listed twice": repeat,
    "the total is larger": lambda answer: answer["result_info"].update(total_count=99),
    "the total is smaller": lambda answer: answer["result_info"].update(total_count=1),
    "more pages than records": lambda answer: answer["result_info"].update(total_pages=7),
    "no total": lambda answer: answer.pop("result_info"),
    "no list": lambda answer: answer.update(result={"id": "x"}),
    "null": lambda answer: answer.update(result=None),
    "a record is no object": lambda answer: answer["result"].__setitem__(0, "x"),
    "a record without id": lambda answer: answer["result"][0].pop("id"),
    "a record without name": lambda answer: answer["result"][0].pop("name"),
    "an empty listing with 200": lambda answer: answer.update(result=[]),
}


@pytest.mark.parametrize("name", TORN)
def test_a_listing_that_contradicts_itself_is_read_once_more_and_then_not_trusted(world, name):
    world.apply(many(3))
    before = world.fake.records(ZONE)
    world.fault(path="dns_records", change=edited(TORN[name]), times=99)
    seen = world.observe()
    assert seen.unread == {"dns/mana.how"}
    assert seen.live == []
    assert seen.problems[0].scope == "dns/mana.how"
    assert "listing of mana.how" in seen.problems[0].summary
    assert world.plan([], seen=seen).changes == ()
    world.server.faults = []
    world.fault(path="dns_records", change=edited(TORN[name]))
    assert world.observe().complete
    assert world.fake.records(ZONE) == before


def test_a_record_that_moves_between_pages_is_not_lost(worlds):
    world = worlds(quota=999, per_page_max=100)
    ids = [world.fake.add(ZONE, type="A", name=f"h{number:03}", content="192.0.2.1", ttl=1) for number in range(201)]

    def remove(reply):  # page 1 has been read; now everything moves up by one
        world.fake.remove(ZONE, ids[0])
        return reply

    world.fault(path="dns_records.*page=1", change=remove)
    seen = world.observe()
    assert seen.complete
    assert len(seen.live) == 200


@pytest.mark.parametrize("count", [201, 250, 1000])
@pytest.mark.parametrize("gone", [0, 99, 150])
def test_a_record_that_moves_while_another_one_comes_is_not_lost(worlds, monkeypatch, count, gone):
    """The total stays: only the order tells. A record that is not seen would be made a second time."""
    monkeypatch.setattr(sys.modules["reconciler.targets.cloudflare.listing"], "_PAGE", 100)
    world = worlds(quota=9999, per_page_max=100)
    ids = [world.fake.add(ZONE, type="A", name=f"h{number:04}", content="192.0.2.1", ttl=1) for number in range(count)]

    def exchange(reply):  # the page of the one that goes has been read, and the next one begins one later
        world.fake.remove(ZONE, ids[gone])
        world.fake.add(ZONE, type="A", name="zzz", content="192.0.2.1", ttl=1)
        return reply

    world.fault(path=f"dns_records.*page={gone // 100 + 1}(&|$)", change=exchange)
    seen = world.observe()
    assert seen.complete
    found = {item.id for item in seen.live}
    assert found == {item["id"] for item in world.fake.records(ZONE)}
    assert world.server.faults == [] or world.server.faults[0].times == 0


@pytest.mark.parametrize("twin", [False, True], ids=["alone", "with a pending twin"])
def test_l8_a_zone_that_moves_while_another_one_comes_is_not_lost(worlds, twin):
    """The total stays, and of a zone that moved to a page that was read only a twin may be seen, which is not meant."""
    names = tuple(f"z{number}.example" for number in range(120))
    world = worlds(names, quota=9999)
    if twin:
        world.fake.add_twin("z50.example", "elsewhere", status="pending")

    def exchange(reply):
        world.fake.drop_zone("z10.example")
        world.fake.add_twin("new.example", "elsewhere")
        return reply

    world.fault(path="/zones\\?.*page=1(&|$)", change=exchange)
    seen = world.observe()
    assert seen.unread == {"dns/z10.example"}  # which is gone by the time it is asked for, or was seen
    plan = world.plan([make_record("z50.example", "A", "www", "192.0.2.1")], seen=seen)
    assert [item.status for item in world.execute(plan)] == [Status.DONE]
    assert [item["name"] for item in world.fake.records("z50.example")] == ["www.z50.example"]


def test_a_listing_of_zones_that_contradicts_itself_is_read_once_more(worlds):
    world = worlds(tuple(f"z{number}.example" for number in range(120)), quota=9999)
    world.fault(path="/zones\\?.*page=2(&|$)", change=edited(shorten))
    assert world.observe().complete


@pytest.mark.parametrize("count", [99, 100, 101, 199, 200, 1000, 2400])
def test_pages_that_overlap_are_read_to_the_end(worlds, monkeypatch, count):
    monkeypatch.setattr(sys.modules["reconciler.targets.cloudflare.listing"], "_PAGE", 100)
    world = worlds(quota=9999, per_page_max=100)
    for number in range(count):
        world.fake.add(ZONE, type="A", name=f"h{number}", content="192.0.2.1", ttl=1)
    assert len({item.id for item in world.observe().live}) == count


PAGE = Reply(200, b"<html>Welcome to the hotel</html>", "text/html")
BAD = {
    "no JSON": (Reply(200, b"{"), "not the API's JSON"),
    "an HTML page": (PAGE, "not the API's JSON"),
    "an HTML error": (replace(PAGE, status=403), "HTTP 403"),
    "a redirect": (Reply(302, b"", headers={"Location": "https://other.example/"}), "HTTP 302"),
    "a list": (Reply.of([1]), "not the API's JSON"),
    "a number in depth": (Reply(200, b"[" * 100_000), "not the API's JSON"),
    "success: false with 200": (Reply.of({"success": False, "errors": []}), "no reason is given"),
    "errors that are none": (Reply.of({"success": False, "errors": ["x", {"code": "y"}]}), "no reason is given"),
    "a huge answer": (Reply(200, b" " * (65 << 20)), "too large"),
    "503": (Reply(503, b"upstream"), "failed with 503"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("path", [r"/zones\?", "dns_records"])
def test_a_bad_answer_leaves_the_zone_unread_with_a_cause_and_a_remedy(world, name, path):
    reply, cause = BAD[name]
    world.fault(path=path, reply=reply, times=99)
    seen = world.observe()
    assert seen.unread == {"dns/mana.how"}
    (problem,) = seen.problems
    assert cause in problem.summary
    assert world.server.url in problem.summary
    assert problem.hint
    assert VALUE not in repr(seen)


@pytest.mark.parametrize("what", [{"refuse": True}, {"lose": True}, {"reply": Reply(500, b"")}])
def test_a_read_survives_two_faults(world, what):
    world.apply(many(2))
    world.fault(path="dns_records", times=2, **what)
    assert len(world.observe().live) == 2


def test_a_zone_that_fails_does_not_affect_the_others(worlds):
    world = worlds(("a.example", "b.example"))
    world.fake.add("b.example", type="A", name="www", content="192.0.2.1", ttl=1)
    world.fault(path=world.fake.zone_id("a.example"), reply=Reply(500, b""), times=99)
    seen = world.observe()
    assert seen.unread == {"dns/a.example"}
    assert [live.resource.zone for live in seen.live] == ["b.example"]


@pytest.mark.parametrize(
    ("base_url", "cause"),
    [
        ("http://127.0.0.1:9/client/v4", "can't connect"),
        ("https://nowhere.invalid/client/v4", "can't connect"),
        ("http://nowhere.invalid/client/v4", "in clear text"),  # also where the environment says so
        ("http://192.0.2.1/client/v4", "in clear text"),
        ("127.0.0.1/client/v4", "can't connect"),
    ],
)
def test_an_unreachable_host_is_a_problem(base_url, cause):
    target = Cloudflare(stack="main", zones=[ZONE], tokens=[Access(TOKEN)], base_url=base_url)
    seen = target.observe([], lambda _: VALUE)
    target.close()
    assert seen.unread == {"dns/mana.how"}
    assert cause in seen.problems[0].summary
    assert base_url in seen.problems[0].summary or "is no URL" in seen.problems[0].summary


def test_a_server_without_tls_is_told_as_such(world):
    world.rest = {"base_url": world.server.url.replace("http:", "https:")}
    world.__post_init__()
    (problem,) = world.observe().problems
    assert "TLS failed" in problem.summary
    assert problem.hint


def test_a_slow_answer_times_out(worlds):
    world = worlds(rest={"timeout": 0.05})
    world.fault(path="dns_records", delay=0.3, times=99)
    (problem,) = world.observe().problems
    assert "no answer" in problem.summary


# ---------------------------------------------------------------------------------------------------------- the token
TOKENS = {
    "unknown": ({}, VALUE, "revoked, expired or mistyped"),
    "disabled": ({VALUE: Token(status="disabled")}, VALUE, "revoked, expired or mistyped"),
    "bound to other addresses": ({VALUE: Token(elsewhere=True)}, VALUE, "IP addresses"),
    "without the zone": ({VALUE: Token(zones=frozenset({"other.example"}))}, VALUE, "Zone → Zone → Read"),
    "without DNS": ({VALUE: Token(dns="none")}, VALUE, "Zone → DNS → Read"),
    "malformed for the API": ({}, "a.b!", "not the Global API Key"),
    "with a line break": ({}, f"{VALUE}\n", "without quotes or a line break"),
    "empty": ({}, "", "put the API token there"),
}


@pytest.mark.parametrize("name", TOKENS)
def test_a_token_that_does_not_do_is_told_and_tried_once(worlds, name):
    tokens, value, hint = TOKENS[name]
    world = worlds(tokens=tokens)
    world.reveal = lambda _: value
    (problem,) = world.observe().problems
    assert hint in problem.hint
    assert "{env: CLOUDFLARE_API_TOKEN}" in problem.hint + problem.summary
    assert problem.scope == "dns/mana.how"
    assert value == "" or value not in str(problem)
    assert max(world.server.counts.values(), default=0) <= 1


def test_a_token_that_may_only_read_plans_and_says_what_apply_lacks(worlds):
    world = worlds(tokens={VALUE: Token(dns="read")})
    (one, other) = world.execute(world.plan(many(2)))
    assert one.status is other.status is Status.FAILED
    assert "Zone → DNS → Edit" in one.problem.hint
    assert one.problem.where == "dns/mana.how/A/host0"
    assert len(world.server.writes()) == 1


def test_a_secret_that_can_not_be_read_is_a_problem(world):
    def reveal(ref):
        raise SecretUnreadable(Problem(str(ref), "is not set", "export it"))

    seen = world.target.observe([], reveal)
    assert seen.unread == {"dns/mana.how"}
    assert seen.problems[0].hint == "export it"
    assert seen.problems[0].summary.endswith(": is not set"), "the remedy is said once"
    assert world.server.requests == []


def test_each_zone_has_its_token(worlds):
    tokens = {"one": Token(zones=frozenset({"a.example"})), "two": Token(zones=frozenset({"b.example"}))}
    refs = [Access(SecretRef("env", "one"), ["A.example."]), Access(SecretRef("env", "two"))]
    world = worlds(("a.example", "b.example"), tokens=tokens, rest={"tokens": refs})
    world.reveal = lambda ref: ref.name
    assert world.observe().complete
    world.rest = {"tokens": refs[:1]}
    world.__post_init__()
    seen = world.observe()
    assert seen.unread == {"dns/b.example"}
    assert "no token" in seen.problems[0].summary


def test_the_environment_does_not_replace_the_token(world, monkeypatch):
    monkeypatch.setenv("CLOUDFLARE_API_KEY", "x")
    monkeypatch.setenv("CLOUDFLARE_EMAIL", "x@mana.how")
    assert world.observe().complete


def test_a_pending_zone_is_a_warning(world):
    world.fault(path=r"/zones\?", change=edited(lambda answer: answer["result"][0].update(status="pending")))
    seen = world.observe()
    assert seen.complete
    assert [(item.severity, "pending" in item.summary) for item in seen.problems] == [(Severity.WARNING, True)]


# ------------------------------------------------------------------------------------------------------ rate limits
@pytest.mark.parametrize("after", ["0", "1", "Thu, 01 Jan 1970 00:00:00 GMT"])
@pytest.mark.parametrize("path", [r"/zones\?", r"dns_records\?", "batch"])
def test_a_429_is_waited_for_and_then_done_once(world, after, path):
    world.fault(path=path, reply=Reply(429, b"", headers={"Retry-After": after}), times=2 if after == "0" else 1)
    world.apply([rec("A", content="192.0.2.1")])
    assert len(world.fake.records(ZONE)) == 1
    assert any("429" in line for line in world.waits)


def test_a_429_that_asks_for_more_patience_than_there_is_ends(worlds):
    world = worlds(rest={"patience": 5.0})
    plan = world.plan(many(2))
    world.fault(reply=Reply(429, b"", headers={"Retry-After": "300"}), times=99)
    assert "429" in world.observe().problems[0].summary
    outcomes = world.execute(plan)
    assert {outcome.status for outcome in outcomes} == {Status.FAILED}
    assert world.waits == []
    assert world.fake.records(ZONE) == []


def test_a_429_that_asks_for_no_pause_is_not_asked_for_ever(worlds):
    world = worlds(rest={"patience": 0.5})
    world.fault(reply=Reply(429, b"", headers={"Retry-After": "0"}), times=9999)
    assert "429" in world.observe().problems[0].summary
    assert len(world.server.requests) < 20


def test_a_signal_ends_the_wait_for_a_rate_limit(world):
    plan = world.plan(many(2))
    world.fault(path="batch", reply=Reply(429, b"", headers={"Retry-After": "300"}), times=99)
    outcomes = list(world.target.apply(list(plan.changes), world.reveal, lambda: bool(world.waits)))
    assert {outcome.status for outcome in outcomes} == {Status.FAILED}
    assert "stopped" in outcomes[0].problem.summary
    assert len(world.batches()) == 1


# ------------------------------------------------------------------------------------------------------ lost answers
LOST = {
    "the answer is lost": {"lose": True},
    "500 after the work": {"change": lambda reply: Reply(500, b"")},
    "no JSON after the work": {"change": lambda reply: Reply(200, b"<html>")},
    "half an answer after the work": {"change": lambda reply: Reply.of({"success": True, "result": {"posts": []}})},
    "the connection breaks before the work": {"refuse": True},
    "502 before the work": {"reply": Reply(502, b"")},
}


@pytest.mark.parametrize("name", LOST)
def test_a_lost_answer_is_looked_up_and_nothing_is_written_twice(world, name):
    world.apply([rec("A", "old", "192.0.2.1"), rec("A", "kept", "192.0.2.1"), rec("CNAME", "typed", "x.example")])
    world.fake.add(ZONE, type="A", name="adopted", content="192.0.2.1", ttl=1)
    wanted = [
        rec("A", "new", "192.0.2.1"),
        rec("A", "kept", "192.0.2.2"),
        rec("A", "typed", "192.0.2.1"),
        rec("A", "adopted", "192.0.2.1"),
    ]
    world.fault(path="batch", **LOST[name])
    world.apply(wanted)
    assert [(kind, host.partition(".")[0]) for kind, host, _ in world.contents()] == [
        ("A", "adopted"),
        ("A", "kept"),
        ("A", "new"),
        ("A", "typed"),
    ]


def test_an_answer_lost_twice_is_unknown_and_what_follows_is_skipped(world):
    plan = world.plan(many(201))
    world.server.forget()
    world.fault(path="batch", reply=Reply(502, b""), times=99)
    outcomes = world.execute(plan)
    assert [outcome.status for outcome in outcomes] == [Status.UNKNOWN] * 200 + [Status.SKIPPED]
    assert len(world.server.writes()) == 2
    world.server.faults = []
    world.apply(many(201))


def test_an_answer_lost_with_the_zone_unreadable_is_unknown_and_not_sent_again(world):
    plan = world.plan(many(2))
    world.server.forget()
    world.fault(path="batch", lose=True)
    world.fault(method="GET", reply=Reply(502, b""), times=99)
    assert {outcome.status for outcome in world.execute(plan)} == {Status.UNKNOWN}
    assert len(world.server.writes()) == 1
    world.server.faults = []
    assert world.plan(many(2)).changes == ()


def test_a_server_that_can_not_be_reached_fails_without_asking_again(world):
    plan = world.plan(many(201))
    world.server.stop()
    world.target.close()  # else the kept connection would still be served
    outcomes = world.execute(plan)
    assert [outcome.status for outcome in outcomes] == [Status.FAILED] * 200 + [Status.SKIPPED]
    assert "can't connect" in outcomes[0].problem.summary


# ----------------------------------------------------------------------------------------- refusals of one among many
class TestCulprits:
    @pytest.mark.parametrize(
        ("bad", "hint"),
        [
            (rec("A", "bad", "192.0.2.1", ttl=7), "60 to 86400"),
            (rec("A", "bad", "1.1.1.1", proxied=True), "proxied: false"),
            (rec("A", "bad", "192.0.2.1", comment="a\nb"), ""),
            (rec("CNAME", "bad", "bad.mana.how"), ""),
        ],
    )
    def test_one_record_does_not_hold_up_the_others(self, world, bad, hint):
        world.apply(many(20))
        wanted = [*many(40, ttl=300), bad, rec("TXT", "more", "x")]
        outcomes = world.execute(world.plan(wanted))
        failed = [outcome for outcome in outcomes if outcome.status is not Status.DONE]
        assert [outcome.problem.where for outcome in failed] == [bad.address]
        assert hint in failed[0].problem.hint
        assert "DNS Validation Error" not in failed[0].problem.summary
        assert [change.address for change in world.plan(wanted).changes] == [bad.address]
        assert held(world) == served([item for item in wanted if item is not bad])

    def test_the_rest_of_a_name_stays_together(self, world):
        world.apply([rec("CNAME", content="mail.mana.how")])
        before = world.fake.records(ZONE)
        outcomes = world.execute(world.plan([rec("A", content="192.0.2.1", ttl=7), *many(5)]))
        assert sum(outcome.status is Status.DONE for outcome in outcomes) == 5
        assert [item for item in world.fake.records(ZONE) if item["id"] == before[0]["id"]] == before

    def test_a_cname_that_came_in_between(self, world):
        plan = world.plan([rec("A", content="192.0.2.1"), *many(5)])
        world.fake.add(ZONE, type="CNAME", name="www", content="x.example", ttl=1)
        failed = [outcome for outcome in world.execute(plan) if outcome.status is not Status.DONE]
        assert [outcome.problem.where for outcome in failed] == ["dns/mana.how/A/www"]
        assert "CNAME" in failed[0].problem.hint
        assert len(world.fake.records(ZONE)) == 6

    def test_an_equal_record_that_came_in_between_is_as_good(self, world):
        plan = world.plan([rec("A", content="192.0.2.1"), *many(5)])
        world.fake.add(ZONE, type="A", name="www", content="192.0.2.1", ttl=1)
        assert {outcome.status for outcome in world.execute(plan)} == {Status.DONE}
        assert world.plan([rec("A", content="192.0.2.1"), *many(5)]).changes == ()

    def test_a_record_that_went_in_between(self, world):
        world.apply([rec("A", content="192.0.2.1"), rec("A", "gone", "192.0.2.1"), *many(5)])
        plan = world.plan([rec("A", content="192.0.2.2"), *many(5, ttl=300)])
        for item in world.fake.records(ZONE):
            if item["name"] in ("www.mana.how", "gone.mana.how"):
                world.fake.remove(ZONE, item["id"])
        outcomes = {outcome.change.resource.name: outcome for outcome in world.execute(plan)}
        failed = outcomes.pop("www")
        assert (failed.status, failed.problem.summary) == (Status.FAILED, "it changed since the plan")
        assert {outcome.status for outcome in outcomes.values()} == {Status.DONE}
        world.apply([rec("A", content="192.0.2.2"), *many(5, ttl=300)])

    def test_a_full_zone_takes_what_does_not_grow_it(self, worlds):
        world = worlds(quota=5)
        world.apply(many(5))
        wanted = [*many(5, ttl=300), rec("TXT", "one", "x"), rec("TXT", "more", "x")]
        failed = [outcome for outcome in world.execute(world.plan(wanted)) if outcome.status is not Status.DONE]
        assert {outcome.problem.where for outcome in failed} == {"dns/mana.how/TXT/one", "dns/mana.how/TXT/more"}
        assert all("larger plan" in outcome.problem.hint for outcome in failed)
        assert held(world) == served(many(5))
        world.apply([*many(3), rec("TXT", "one", "x"), rec("TXT", "more", "x")])

    def test_an_error_that_names_a_record_saves_the_search(self, world):
        plan = world.plan(many(100))
        world.server.forget()
        error = {"code": 1004, "message": "DNS Validation Error"}
        error["error_chain"] = [
            {"code": 9999, "message": "host7.mana.how: is not liked, unlike host7.mana.how.example"}
        ]
        world.fault(path="batch", reply=Reply.of({"success": False, "errors": [error]}, 400))
        assert {outcome.status for outcome in world.execute(plan)} == {Status.DONE}
        assert [len(batch["posts"]) for batch in world.batches()] == [100, 99, 1]

    def test_a_smaller_limit_than_known_is_found_out(self, world, monkeypatch):
        monkeypatch.setattr("reconciler.targets.cloudflare.writing.BATCH_LIMIT", 250)  # the fake stays at 200
        world.apply(many(250))

    def test_all_are_wrong(self, world):
        outcomes = world.execute(world.plan(many(9, ttl=7)))
        assert {outcome.status for outcome in outcomes} == {Status.FAILED}
        assert {outcome.problem.where for outcome in outcomes} == {item.address for item in many(9)}
        assert world.fake.records(ZONE) == []


def test_an_apply_without_observing_first_finds_its_zone(world):
    plan = world.plan(many(1))
    world.__post_init__()
    assert [outcome.status for outcome in world.target.apply(plan.changes, world.reveal)] == [Status.DONE]


# ---------------------------------------------------------------------------------------------------------- any to any
HOSTS = st.sampled_from(["@", "www", "mail", "*"])
TTLS = st.sampled_from([1, 60, 300])
COMMENTS = st.sampled_from([UNMANAGED, None, "why", "so it is"])
PLAIN = st.one_of(
    st.builds(
        lambda name, last, **rest: rec("A", name, f"192.0.2.{last}", **rest),
        HOSTS,
        st.integers(1, 4),
        ttl=TTLS,
        comment=COMMENTS,
    ),
    st.builds(
        lambda name, text, **rest: rec("TXT", name, text, **rest),
        HOSTS,
        st.sampled_from([*TEXTS[10:], "a", "b"]),
        ttl=TTLS,
        comment=COMMENTS,
    ),
    st.builds(
        lambda name, rank, host, **rest: rec("MX", name, f"{rank} {host}", **rest),
        HOSTS,
        st.integers(0, 2),
        st.sampled_from(["a.mana.how", "b.mana.how"]),
        ttl=TTLS,
    ),
    st.builds(
        lambda rank, port: rec("SRV", "_s._tcp", f"{rank} 0 {port} mail.mana.how"),
        st.integers(0, 2),
        st.sampled_from([587, 465]),
    ),
    st.builds(
        lambda flag, value: rec("CAA", "@", data={"flags": flag, "tag": "issue", "value": value}),
        st.sampled_from([0, 128]),
        st.sampled_from([";", "x.example"]),
    ),
)
ALIASES = st.dictionaries(st.sampled_from(["www", "mail"]), st.sampled_from(["a.mana.how", "b.example"]), max_size=2)


@st.composite
def desired_sets(draw):
    """Records that can stand beside each other: no value twice at a name, nothing but TXT and MX beside a CNAME."""
    aliases = draw(ALIASES)
    found = {}
    for record in draw(st.lists(PLAIN, max_size=8)):
        if not (record.type == "A" and record.name in aliases):
            found.setdefault((record.type, record.name, record.content, record.priority), record)
    return [*found.values(), *(rec("CNAME", name, host) for name, host in aliases.items())]


@given(desired_sets(), desired_sets())
@settings(max_examples=tries(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_from_anything_to_anything(worlds, first, second):
    world = worlds()
    for name, rest in {
        "theirs": {"comment": "by hand"},
        "others": {"comment": "x reconciler:other"},
        "bare": {},
    }.items():
        world.fake.add(ZONE, type="TXT", name=name, content="unquoted", ttl=120, **rest)
    foreign = world.fake.records(ZONE)
    ids = {item["id"] for item in foreign}
    for step in (first, second):
        world.apply(step)
        assert held(world) == served(step)
        ours = [item for item in world.fake.records(ZONE) if item["id"] not in ids]
        assert len(ours) == len(step)
        assert [item for item in world.fake.records(ZONE) if item["id"] in ids] == foreign
    assert all(re.search(r"(^|\s)reconciler:main$", item["comment"]) for item in ours)


def test_a_target_that_goes_closes_its_connections(world):
    target = Cloudflare(stack="main", zones=[ZONE], tokens=[Access(TOKEN)], base_url=f"{world.server.url}/client/v4")
    assert target.observe([], world.reveal).complete
    del target
    gc.collect()  # an open socket would now be a ResourceWarning, and that an error


def test_importing_the_target_is_cheap():
    code = "import sys, reconciler.targets.cloudflare; print({'cloudflare', 'httpx', 'idna'} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout == "set()\n"


def test_nothing_shows_the_token(world):
    plan = world.plan([rec("TXT", content=base64.b64encode(b"x").decode())])
    world.fault(
        path="batch",
        change=lambda _: Reply.of({"success": False, "errors": [{"code": 1, "message": f"bad {VALUE}"}]}, 400),
    )
    (outcome,) = world.execute(plan)
    assert VALUE not in repr(outcome)
    assert VALUE not in repr(vars(world.target))


# ------------------------------------------------------------------------------------------- what can't be understood
ODD = [
    {"type": "SRV", "name": f"_x._tcp.{ZONE}", "content": None, "data": None},
    {"type": "CAA", "name": ZONE, "content": "0 issue", "data": {"flags": "x"}},
    {"type": "TXT", "name": ZONE, "content": ""},
    {"type": "MX", "name": ZONE, "content": "bad host", "priority": 1},
    {"type": "MX", "name": ZONE, "content": None, "priority": "x"},
    {"type": "A", "name": f'we"ird.{ZONE}', "content": "192.0.2.1"},
    {"type": "A", "name": f"..{ZONE}", "content": "192.0.2.1"},
    {"type": "A", "name": "a.other.example", "content": "192.0.2.1"},
    {"type": "A", "name": f"t.{ZONE}", "content": "192.0.2.1", "ttl": "x"},
    {"type": "CNAME", "name": f"t.{ZONE}", "content": ["x"]},
    {"type": "LOC", "name": f"loc.{ZONE}", "content": "x", "data": {"lat_degrees": "nan"}},
    {"type": "URI", "name": f"u.{ZONE}", "content": "x", "priority": [1], "data": {"weight": 1, "target": "x"}},
    {"type": "XYZZY", "name": f"new.{ZONE}", "content": "of a later day"},
    {"type": "TXT", "name": f"nul.{ZONE}", "content": '"a\\000b"'},
]


@pytest.mark.parametrize("raw", ODD, ids=lambda raw: f"{raw['type']} {raw['name']}")
@pytest.mark.parametrize("comment", [None, "reconciler:main"])
def test_l10_what_cant_be_understood_stays_whosever_it_is(world, raw, comment):
    zone = world.fake._zones[ZONE]
    zone.put({"id": "a1", "ttl": 1, "proxied": False, "comment": comment, "meta": {}} | raw)
    (live,) = world.observe().live
    assert live.unread
    world.apply([rec("A", "mail", "192.0.2.7")])
    assert "a1" in zone.records


def test_l10_a_name_of_the_zone_itself_is_named_so(world):
    world.fake._zones[ZONE].put({"id": "a1", "type": "CAA", "name": ZONE, "content": None, "ttl": 1, "meta": {}})
    assert [live.resource.address for live in world.observe().live] == [f"dns/{ZONE}/CAA/@"]


# ---------------------------------------------------------------------------------------------- zones of one name
def shown(found):
    return " ".join(problem.summary for problem in found.problems)


@pytest.mark.parametrize("zones", [(ZONE,), (ZONE, "a.example")])
@pytest.mark.parametrize("status", ["pending", "moved", "initializing", "deactivated"])
@pytest.mark.parametrize("own", [True, False])
def test_l8_the_active_one_of_two_zones_of_one_name_is_written(worlds, zones, status, own):
    world = worlds(zones)
    twin = world.fake.add_twin(ZONE, "the other one", status="active" if not own else status)
    world.fake.change_zone(ZONE, status="active" if own else status)
    world.apply([rec("A", "mail", "192.0.2.1")])
    written, other = (ZONE, twin) if own else (twin, ZONE)
    assert [item["content"] for item in world.fake.records(written)] == ["192.0.2.1"]
    assert world.fake.records(other) == []


@pytest.mark.parametrize("zones", [(ZONE,), (ZONE, "a.example")])
@pytest.mark.parametrize("status", ["active", "pending"])
def test_l8_two_zones_that_are_left_are_refused_with_both_accounts_named(worlds, zones, status):
    world = worlds(zones)
    world.fake.add_twin(ZONE, "the other one", status=status)
    world.fake.change_zone(ZONE, status=status)
    seen = world.observe()
    assert seen.unread == {f"dns/{ZONE}"}
    assert "the account simulator" in shown(seen)
    assert "the account the other one" in shown(seen)
    assert world.plan([rec("A", "mail", "192.0.2.1")]).changes == ()


@pytest.mark.parametrize("by", ["name", "case", "account", "zone"])
def test_l8_an_account_or_a_zones_id_chooses(worlds, by):
    world = worlds()
    twin = world.fake.add_twin(ZONE, "The Other One")
    account = world.fake._zones[twin].account_id
    choices = {
        "name": {"account": "The Other One"},
        "case": {"account": "the other one"},
        "account": {"account": account},
        "zone": {"zone_id": twin},
    }
    world.rest = {"tokens": [Access(TOKEN, [ZONE], **choices[by])]}
    world.__post_init__()
    world.apply([rec("A", "mail", "192.0.2.1")])
    assert len(world.fake.records(twin)) == 1
    assert world.fake.records(ZONE) == []


def test_l8_a_zone_that_is_in_no_such_account_is_named_with_where_it_is(worlds):
    world = worlds(rest={"tokens": [Access(TOKEN, account="nobody's")]})
    assert "elsewhere only" in shown(world.observe())
    assert "the account simulator" in shown(world.observe())


@pytest.mark.parametrize("type", ["partial", "secondary"])
def test_d8_a_zone_whose_records_are_kept_elsewhere_is_warned_of(world, type):
    world.fake.change_zone(ZONE, type=type)
    (problem,) = world.observe().problems
    assert f"type {type}" in problem.summary
    assert problem.severity is Severity.WARNING


# ---------------------------------------------------------------------------------------- the zone's own name servers
def test_l9_name_servers_of_the_zone_that_bear_our_mark_are_seen_and_others_are_cloudflares(world):
    ours = world.fake.add(ZONE, type="NS", name="@", content="ns1.example.net", ttl=300, comment="reconciler:main")
    world.fake.add(ZONE, type="NS", name="@", content="ada.ns.cloudflare.com", ttl=86400)
    assert [live.id for live in world.observe().live] == [ours]
    world.apply([rec("A", "mail", "192.0.2.1")])
    assert world.contents() == [("A", f"mail.{ZONE}", "192.0.2.1"), ("NS", ZONE, "ada.ns.cloudflare.com")]


@pytest.mark.parametrize("name", ["mail", "*.dev", "_25._tcp", "-edge-", "0/25", "Bücher", "x" * 63])
def test_d12_names_that_cloudflare_takes_are_taken(world, name):
    world.apply([rec("TXT", name, "v=spf1 -all")])
    assert len(world.fake.records(ZONE)) == 1


def test_d12_a_priority_that_stands_within_the_data_alone_is_read_and_kept(worlds):
    world = worlds(priority_in_data=True)
    world.apply([rec("MX", "@", "mail.mana.how", priority=10), rec("URI", "_x._tcp", '10 1 "https://x.example"')])
    world.apply([rec("MX", "@", "mail.mana.how", priority=20), rec("URI", "_x._tcp", '10 1 "https://x.example"')])
    assert [item["priority"] for item in world.fake.records(ZONE) if item["type"] == "MX"] == [20]


D11 = [
    (9000, "a b", {"type": "A", "content": "192.0.2.1"}),
    (9005, "x", {"type": "A", "content": "mail"}),
    (9006, "x", {"type": "AAAA", "content": "192.0.2.1"}),
    (9007, "x", {"type": "CNAME", "content": "a b"}),
    (9009, "x", {"type": "MX", "content": "a b", "priority": 1}),
    (9015, "x", {"type": "TXT", "content": "a" * 5000}),
    (9039, "x", {"type": "CNAME", "content": f"x.{ZONE}"}),
    (9051, "x", {"type": "TXT", "content": "\u201cx\u201d"}),
    (9101, "_x._tcp", {"type": "SRV", "data": {"priority": 0, "weight": 0, "port": 99999, "target": "x.example"}}),
    (9150, "x", {"type": "SRV", "data": {"priority": 0, "weight": 0, "port": 25, "target": "x.example"}}),
]


def api_answer(world, body):
    """What the fake says to one record."""
    headers = {"authorization": f"Bearer {VALUE}"}
    path = f"/client/v4/zones/{world.fake.zone_id(ZONE)}/dns_records/batch"
    return world.fake(Request("POST", path, path, {}, headers, json.dumps({"posts": [body]}).encode(), ""))


@pytest.mark.parametrize(("code", "name", "body"), D11, ids=lambda value: str(value) if isinstance(value, int) else "")
def test_d11_what_the_api_refuses_comes_with_a_remedy(world, code, name, body):
    """Such a record passes no check of ours; that the API refuses it all the same, and with what, the fake says."""
    answer = api_answer(world, {"name": name, "ttl": 1, **body})
    world.fault(path=r"/batch$", reply=answer)
    good = rec("A", "fine", "192.0.2.1")
    (outcome,) = world.execute(world.plan([good]))
    assert outcome.status is Status.FAILED
    assert f"({code})" in outcome.problem.summary
    assert outcome.problem.hint == HINTS[code]


def test_d11_every_code_that_is_known_has_a_remedy():
    assert {9000, *range(9005, 9010), 9015, 9036, 9039, 9051, 9101, 9150, 83011} <= HINTS.keys()


# -------------------------------------------------------------------------------------------------------- odd answers
@pytest.mark.parametrize("odd", [None, 5, "x", "xx", {}, {"a": 1}, [], [None], [{}], [{"id": 5}]])
@pytest.mark.parametrize("verb", ["deletes", "patches", "posts"])
def test_t12_a_batch_whose_answer_says_something_else_is_looked_after(world, verb, odd):
    world.apply([rec("A", "kept", "192.0.2.1"), rec("A", "old", "192.0.2.2")])

    def change(reply):
        body = json.loads(reply.body)
        body["result"][verb] = odd
        return Reply.of(body)

    world.fault(path="/batch$", change=change)
    wanted = [rec("A", "kept", "192.0.2.9"), rec("A", "new", "192.0.2.3")]
    outcomes = world.execute(world.plan(wanted))
    assert {item.status for item in outcomes} == {Status.DONE}  # the zone itself was asked
    assert world.contents() == [("A", "kept.mana.how", "192.0.2.9"), ("A", "new.mana.how", "192.0.2.3")]
    listed = len([item for item in world.server.requests if item.path.endswith("/dns_records")])
    assert listed == (4 if (verb, odd) != ("posts", [{}]) and (verb, odd) != ("posts", [{"id": 5}]) else 3)


@pytest.mark.parametrize("id", [None, 5, True, ["a"], {"a": 1}])
def test_t12_a_zone_without_an_id_is_none(world, id):
    def change(reply):
        body = json.loads(reply.body)
        body["result"][0]["id"] = id
        return Reply.of(body)

    world.fault(path="/zones\\?", change=change, times=3)
    seen = world.observe()
    assert seen.unread == {f"dns/{ZONE}"}


@pytest.mark.parametrize("odd", [True, [], {}, ["a"]])
@pytest.mark.parametrize("part", ["priority", "ttl"])
def test_t12_a_number_that_is_none_makes_a_record_unreadable(world, part, odd):
    world.apply([rec("MX", "@", "mx.mana.how", priority=1)])

    def change(reply):
        body = json.loads(reply.body)
        body["result"][0][part] = odd
        return Reply.of(body)

    world.fault(path="/dns_records", change=change)
    [live] = world.observe().live
    assert live.unread


def test_l8_a_twin_on_another_page_is_a_twin(world):
    """A listing by name is whole or nothing, too: what is not shown may be the zone that is meant."""

    def change(reply):
        body = json.loads(reply.body)
        body["result_info"] |= {"total_count": 2, "total_pages": 2}
        return Reply.of(body)

    world.fault(path="/zones\\?.*page=1(&|$)", change=change, times=2)
    seen = world.observe()
    assert seen.unread == {f"dns/{ZONE}"}
    assert "changed while it was read" in str(seen.problems[0])
