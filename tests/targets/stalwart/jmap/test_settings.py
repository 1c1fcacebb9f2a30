"""Settings over JMAP: neutral words, allowed addresses, listeners and raw objects, to an empty second plan."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from reconciler.desired.derivation import desire
from reconciler.desired.load import load
from reconciler.desired.objects import Parts
from reconciler.desired.raw_keys import notes
from reconciler.plan import Desired, Plan, diff
from reconciler.problem import Problem
from reconciler.report import json as report_json
from reconciler.report import text
from reconciler.resources import (
    UNMANAGED,
    AllowedIp,
    Different,
    Domain,
    Listener,
    Live,
    Observation,
    Resource,
    Same,
    SecretRef,
    Setting,
    Signature,
    Unreadable,
)
from reconciler.simulator.stalwart.jmap.server import StalwartJmap as Fake
from reconciler.simulator.wire import Server
from reconciler.target import Change, Reason
from reconciler.targets.stalwart.connection import Connection, Login
from reconciler.targets.stalwart.jmap.api import JmapApi, Selection, merged
from reconciler.targets.stalwart.jmap.batch import Unwritable, Write, run
from reconciler.targets.stalwart.jmap.kind import NOT_SHOWN, Effect, Ids, Reading
from reconciler.targets.stalwart.jmap.kinds.listener import ListenerKind
from reconciler.targets.stalwart.jmap.kinds.raw_objects import ObjectKind
from reconciler.targets.stalwart.jmap.kinds.setting import AllowedIpKind, SettingKind
from reconciler.targets.stalwart.jmap.run import kind_of
from reconciler.targets.stalwart.jmap.target import KINDS as ALL
from reconciler.url import parse

TOKEN = "a-secret-token-of-the-relay"
HEAD = """
version: 1
stack: t
targets: {stalwart: {url: "http://localhost", username: admin, password: {env: ADMIN}, generation: jmap}}
stalwart: """


KINDS = (SettingKind(), ObjectKind(), AllowedIpKind(), ListenerKind())


@dataclass
class World:
    """One fake server, asked and written as the target does it, and what came of the last apply."""

    fake: Fake
    api: JmapApi
    path: Path
    secrets: dict[str, str] = field(default_factory=dict)
    judge: Any = None
    failures: dict[str, str] = field(default_factory=dict)
    reports: list[Problem] = field(default_factory=list)

    def reveal(self, ref: Any) -> str:
        return self.secrets[ref.name]

    def read(self, wanted: list[Resource]) -> dict[str, Any]:
        return self.api.read(merged([Selection("Domain", properties=("name",)), *reads(wanted)]))

    def reading(self, wanted: Sequence[Resource]) -> Reading:
        registry = self.read(list(wanted))
        secrets = self.judge or (lambda *_: NOT_SHOWN)
        return Reading(registry, wanted, Ids(registry), "", self.reveal, self.reports.append, secrets=secrets)

    def live(self, wanted: Sequence[Resource]) -> list[Live]:
        reading = self.reading(wanted)
        return [item for kind in KINDS for item in kind.live(reading)]

    def plan(self, *wanted: Resource) -> Plan:
        self.reports.clear()
        live = [item for item in self.live(wanted) if _is_of(item, wanted)]
        live += [
            Live(Domain(item["name"])) for item in self.api.read([Selection("Domain", properties=("name",))])["Domain"]
        ]
        seen = Observation("stalwart", live=live, problems=tuple(self.reports), generation="jmap")
        return diff(Desired(wanted), {"stalwart": seen}, stack="t")

    def apply(self, *wanted: Resource) -> Plan:
        """Write what the plan says, put it in force, and plan again."""
        changes = self.plan(*wanted).changes
        self.failures.clear()
        writes = []
        for item in drafts(changes, self.reading(wanted)):
            if isinstance(item, Unwritable):
                self.failures[item.change.address] = item.problem.summary
            else:
                writes.append(item)
        reload = [Write("Action", "create", "r", {"@type": "ReloadSettings"})] if writes else []
        for write, failure, _ in run(self.api, [*writes, *reload], lambda: False):
            if failure is not None:
                self.failures |= {
                    item.address: str(getattr(failure, "words", failure.__str__)()) for item in write.changes
                }
        return self.plan(*wanted)

    def yaml(self, said: str) -> list[Resource]:
        """Return what a directory with this ``stalwart:`` wants."""
        (self.path / "a.yaml").write_text(HEAD + said)
        spec = load(self.path).spec
        seen = {"stalwart": Observation("stalwart", generation="jmap")}
        return [item for item in desire(spec, seen).resources if not isinstance(item, Domain)]

    def get(self, kind: str, /, **wanted: Any) -> Any:
        """Read objects over the wire; those whose properties are as said, or the singleton."""
        found = self.api.read([Selection(kind, singleton=not wanted)])[kind]
        found = [item for item in found if all(item[key] == value for key, value in wanted.items())]
        return found[0] if len(found) == 1 else found

    def call(self, method: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        (response,) = self.api.call((method, arguments))
        assert not {"notCreated", "notUpdated"} & response.arguments.keys(), response.arguments
        return response.arguments


def reads(wanted: Sequence[Resource]) -> list[Selection]:
    return merged(item for kind in KINDS for item in kind.reads(wanted))


def drafts(changes: Sequence[Change], reading: Reading) -> list[Write | Unwritable]:
    ours = {kind: [item for item in changes if kind.has(item.resource)] for kind in KINDS}
    return [item for kind, changes in ours.items() for item in kind.writes(changes, reading)]


def effects(change: Change) -> frozenset[Effect]:
    kind = kind_of(ALL, change.resource)
    assert kind is not None
    return kind.effects(change)


def _is_of(item: Live, wanted: tuple[Resource, ...]) -> bool:
    """The server's own listeners are nobody's here."""
    return not isinstance(item.resource, Listener) or item.resource.name in {getattr(it, "name", "") for it in wanted}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    fake = Fake(environment={"STALWART_RECOVERY_ADMIN": "admin:adm1n-passw0rd"})
    secrets = {"ADMIN": "adm1n-passw0rd", "TOKEN": TOKEN}
    login = Login("admin", (SecretRef("env", "ADMIN"),))
    with (
        Server(fake) as server,
        Connection(parse(server.url), login, lambda ref: secrets[ref.name], print) as connection,
    ):
        world = World(fake, JmapApi(connection), tmp_path, secrets)
        world.call("x:Domain/set", {"create": {"d": {"name": "mana.how", "dkimManagement": {"@type": "Manual"}}}})
        yield world


def reasons(plan: Plan) -> dict[str, Reason]:
    return {change.address: change.reason for change in plan.changes}


# --------------------------------------------------------------------------------------------------------------- words
@pytest.mark.trap(24, "jmap")
def test_the_first_write_of_a_name_carries_the_other_one_too(world):
    hostname = Setting("hostname", "mail.mana.how")
    assert not world.apply(Domain("mana.how"), hostname).changes
    assert world.failures == {}
    stored = world.get("SystemSettings")
    assert (stored["defaultHostname"], stored["defaultDomainId"]) == (
        "mail.mana.how",
        world.get("Domain", name="mana.how")["id"],
    )


@pytest.mark.trap(24, "jmap")
def test_both_names_go_in_one_write(world):
    wanted = (Domain("mana.how"), Setting("hostname", "mail.mana.how"), Setting("default_domain", "mana.how"))
    writes = drafts(world.plan(*wanted).changes, world.reading(wanted))
    assert [(item.object, item.verb, len(item.changes)) for item in writes] == [("SystemSettings", "update", 2)]
    assert not world.apply(*wanted).changes


def test_names_without_a_domain_say_what_is_missing(world):
    for wanted, missing in (
        (Setting("hostname", "mail.mana.how"), "stalwart.default_domain"),
        (Setting("default_domain", "mana.how"), "stalwart.hostname"),
    ):
        plan = world.plan(wanted)
        (problem,) = plan.errors
        assert (plan.changes, problem.scope, missing in problem.hint) == ((), wanted.address, True)


def test_a_later_write_of_a_name_leaves_the_other_one_alone(world):
    world.apply(Domain("mana.how"), Setting("hostname", "mail.mana.how"))
    world.call("x:Domain/set", {"create": {"d": {"name": "example.org"}}})
    assert not world.apply(Setting("default_domain", "example.org")).changes
    stored = world.get("SystemSettings")
    assert stored["defaultHostname"] == "mail.mana.how"
    assert stored["defaultDomainId"] == world.get("Domain", name="example.org")["id"]


def test_a_name_has_no_case_and_can_not_be_cleared(world):
    world.apply(Domain("mana.how"), Setting("hostname", "mail.mana.how"))
    assert not world.plan(Setting("hostname", "Mail.Mana.How")).changes
    plan = world.plan(Setting("hostname", None))
    assert not plan.changes
    assert [problem.where for problem in plan.errors] == ["stalwart/hostname"]


@pytest.mark.parametrize(
    ("said", "stored"),
    [
        ("off", None),
        ("7/1h", {"count": 7, "period": 3_600_000}),
        ("30/24h", {"count": 30, "period": 86_400_000}),
        (None, {"count": 30, "period": 86_400_000}),
    ],
)
def test_ban_rates_arrive_and_compare(world, said, stored):
    world.call("x:Security/set", {"update": {"singleton": {"scanBanRate": {"count": 1, "period": 1000}}}})
    plan = world.plan(Setting("auto_ban/scan", said))
    assert plan.changes[0].fields == {"value": ("1/1s", said)}
    assert not world.apply(Setting("auto_ban/scan", said)).changes
    assert world.get("Security")["scanBanRate"] == stored


def test_the_default_ban_rates_are_no_change(world):
    rates = {"auth": "100/1d", "abuse": "35/1d", "loiter": "150/1440m", "scan": None}
    assert not world.plan(*(Setting(f"auto_ban/{word}", rate) for word, rate in rates.items())).changes


# ------------------------------------------------------------------------------------------- allowed addresses
@pytest.mark.trap(19, "jmap")
@pytest.mark.trap(34, "both")
def test_an_allowed_network_is_the_same_however_it_was_typed(world):
    world.call("x:AllowedIp/set", {"create": {"a": {"address": "172.18.0.1/16"}}})
    assert not world.plan(AllowedIp("172.18.0.0/16")).changes
    assert not world.apply(AllowedIp("172.18.0.0/16"), AllowedIp("10.1.2.3"), AllowedIp("fd00::/8")).changes
    assert world.failures == {}
    assert {item["address"] for item in world.get("AllowedIp", expiresAt=None)} == {
        "172.18.0.1/16",
        "10.1.2.3",
        "fd00::/8",
    }
    change = Change("stalwart/allowed_ips/10.1.2.3", (), Reason.MISSING, after=AllowedIp("10.1.2.3"))
    assert effects(change) == {Effect.RELOAD}


# --------------------------------------------------------------------------------------------------------- listeners
def test_listeners_are_made_and_changed(world):
    sieve = Listener("sieve2", ("0.0.0.0:4191", "[::]:4191"), "managesieve", open=UNMANAGED)
    submission = Listener("submission", ("[::]:587",), "smtp", open=UNMANAGED)
    assert not world.apply(submission, sieve).changes
    assert world.get("NetworkListener", name="sieve2")["protocol"] == "manageSieve"
    other = Listener("submission", ("[::]:588",), "smtp", tls_implicit=True, open=UNMANAGED)
    plan = world.plan(other)
    assert effects(plan.changes[0]) == {Effect.RESTART}
    assert not world.apply(other).changes
    stored = world.get("NetworkListener", name="submission")
    assert (stored["bind"], stored["tlsImplicit"], stored["useTls"]) == ({"[::]:588": True}, True, True)


def test_a_bind_address_is_the_same_however_it_is_written(world):
    world.apply(Listener("submission", ("[::]:587",), "smtp", open=UNMANAGED))
    assert not world.plan(Listener("submission", ("[0::0]:587",), "smtp", open=UNMANAGED)).changes


def test_a_removed_listener_is_destroyed(world):
    submission = Listener("submission", ("[::]:587",), "smtp", open=UNMANAGED)
    world.apply(submission)
    live = Live(submission, id=world.get("NetworkListener", name="submission")["id"])
    change = Change(submission.address, (), Reason.REMOVED, live)
    (write,) = drafts([change], world.reading([]))
    list(run(world.api, [write], lambda: False))
    assert world.get("NetworkListener", name="submission") == []


def test_what_puts_a_change_in_force():
    def of(resource: Resource) -> frozenset[Effect]:
        return effects(Change(resource.address, (), Reason.MISSING, after=resource))

    assert of(Setting("hostname", "x")) == {Effect.RELOAD}
    assert of(Setting("objects/Http/useXForwarded", value=True)) == {Effect.RELOAD}
    assert of(Setting("objects/SearchStore/@type", "Default")) == {Effect.RESTART}
    assert of(Signature("mana.how", "s", "rsa", "")) == {Effect.CACHES}
    assert of(Domain("mana.how")) == frozenset()


def test_the_plan_says_what_puts_a_change_in_force():
    assert notes(Listener("x", (), "smtp"), "jmap") == ("in force only after a restart of the container",)
    assert notes(Setting("objects/SearchStore/@type", "Default"), "jmap") == (
        "in force only after a restart of the container",
    )
    in_force = ("in force after the reload that ends apply",)
    assert notes(Setting("objects/Http/useXForwarded", value=True), "jmap") == in_force
    assert notes(AllowedIp("192.0.2.0/24"), "jmap") == in_force
    assert notes(Setting("hostname", "mail.example.org"), "rest") == ()


# ------------------------------------------------------------------------------------------------------- raw objects
@pytest.mark.trap(4, "jmap")
@pytest.mark.trap(33, "jmap")
def test_raw_objects_arrive_in_the_server_s_own_encoding(world):
    wanted = world.yaml("""
      objects:
        Http: {singleton: {useXForwarded: true, rateLimitAnonymous: 200/1m, responseHeaders: {X-A: b}}}
        Security: {singleton: {scanBanPaths: ["*.php*", "*.asp*"], scanBanPeriod: 12h}}
        MtaStageData: {singleton: {maxMessageSize: {match: [{if: "true", then: "1000"}], else: "2000"}}}
        SpamPyzor: {singleton: {enable: false}}
        MtaRoute:
          relay: {"@type": Relay, address: smtp.example.org, port: 465, implicitTls: true}
""")
    assert not world.apply(*wanted).changes
    assert world.failures == {}
    http = world.get("Http")
    assert http["rateLimitAnonymous"] == {"count": 200, "period": 60_000}
    assert (http["useXForwarded"], http["responseHeaders"]) == (True, {"X-A": "b"})
    security = world.get("Security")
    assert (security["scanBanPaths"], security["scanBanPeriod"]) == ({"*.php*": True, "*.asp*": True}, 43_200_000)
    expression = {"match": {"0": {"if": "true", "then": "1000"}}, "else": "2000"}
    assert world.get("MtaStageData")["maxMessageSize"] == expression
    route = world.get("MtaRoute", name="relay")
    assert (route["@type"], route["port"], route["implicitTls"]) == ("Relay", 465, True)
    assert {item["name"] for item in world.api.read([Selection("MtaRoute")])["MtaRoute"]} >= {"relay", "local", "mx"}


def test_only_what_is_declared_is_compared_and_written(world):
    world.call("x:Http/set", {"update": {"singleton": {"enableHsts": True}}})
    world.call("x:Security/set", {"update": {"singleton": {"authBanRate": {"count": 9, "period": 1000}}}})
    assert not world.apply(*world.yaml("{objects: {Http: {singleton: {usePermissiveCors: true}}}}")).changes
    http = world.get("Http")
    assert (http["enableHsts"], http["usePermissiveCors"]) == (True, True)
    assert world.get("Security")["authBanRate"] == {"count": 9, "period": 1000}


def test_inside_an_object_only_what_differs_is_written(world):
    tracer = "{objects: {Tracer: {Stdout: {enable: true, level: %s}}}}"
    assert not world.apply(*world.yaml(tracer % "info")).changes
    assert world.failures == {}
    world.call("x:Tracer/set", {"update": {world.get("Tracer", **{"@type": "Stdout"})["id"]: {"ansi": True}}})
    assert not world.apply(*world.yaml(tracer % "debug")).changes
    assert world.get("Tracer", level="debug")["ansi"] is True
    assert len(world.get("Tracer", enable=True)) > 1  # the server's own is another one


def test_null_and_an_empty_list_clear(world):
    world.apply(*world.yaml("{objects: {Http: {singleton: {rateLimitAnonymous: 5/1s, responseHeaders: {A: b}}}}}"))
    wanted = world.yaml("{objects: {Http: {singleton: {rateLimitAnonymous: null, responseHeaders: null}}}}")
    assert not world.apply(*wanted).changes
    http = world.get("Http")
    assert (http["rateLimitAnonymous"], http["responseHeaders"]) == (None, {})


def test_another_type_gets_everything_that_is_declared(world):
    world.apply(*world.yaml('{objects: {MtaRoute: {out: {"@type": Mx, description: to all}}}}'))
    wanted = world.yaml('{objects: {MtaRoute: {out: {"@type": Relay, description: to all, address: a.example.org}}}}')
    assert not world.apply(*wanted).changes
    assert world.failures == {}
    route = world.get("MtaRoute", name="out")
    assert (route["@type"], route["address"], route["description"]) == ("Relay", "a.example.org", "to all")


def test_objects_refer_to_each_other_by_name_even_while_both_are_made(world):
    wanted = world.yaml("""
      objects:
        Role:
          top: {roleIds: [below], enabledPermissions: [authenticate]}
          below: {enabledPermissions: [emailSend]}
        MailingList: {Team@Mana.how: {recipients: [a@mana.how, b@mana.how]}}
""")
    assert not world.apply(*wanted).changes
    assert world.failures == {}
    below = world.get("Role", description="below")["id"]
    assert world.get("Role", description="top")["roleIds"] == {below: True}
    mailing = world.get("MailingList", name="team")
    assert (mailing["emailAddress"], len(mailing["recipients"])) == ("team@mana.how", 2)


def test_a_reference_to_nothing_fails_alone(world):
    world.apply(*world.yaml("{objects: {Role: {top: {roleIds: [nobody]}}, Http: {singleton: {enableHsts: true}}}}"))
    assert world.failures == {
        "stalwart/objects/Role/top/roleIds": "refers to the Role nobody, which is not there: make it first"
    }
    assert world.get("Http")["enableHsts"] is True


def test_two_objects_of_one_name_are_left_alone(world):
    for _ in range(2):
        world.call("x:Role/set", {"create": {"r": {"description": "twin"}}})
    plan = world.plan(*world.yaml("{objects: {Role: {twin: {enabledPermissions: [emailSend]}}}}"))
    assert not plan.changes
    assert "2 Role objects called twin" in plan.errors[0].summary


def test_a_name_may_be_made_of_two_properties(world):
    assert not world.apply(*world.yaml("{objects: {MemoryLookupKey: {spam/k: {isGlobPattern: true}}}}")).changes
    assert world.get("MemoryLookupKey", key="k", namespace="spam")["isGlobPattern"] is True


# -------------------------------------------------------------------------------------------------------------- secrets
RELAY = '{objects: {MtaRoute: {relay: {"@type": Relay, address: %s, authUsername: u, authSecret: {env: TOKEN}}}}}'


@pytest.mark.trap(17, "jmap")
@pytest.mark.trap(23, "both")
def test_a_secret_is_written_once_and_then_told_as_not_comparable(world):
    wanted = world.yaml(RELAY % "a.example.org")
    assert not world.apply(*wanted).changes
    assert world.get("MtaRoute", name="relay")["authSecret"] == {"@type": "Value", "secret": "****"}
    assert TOKEN in json.dumps(world.fake.dump())
    plan = world.plan(*wanted)
    told = {name: live.resource.value for name, _, live in plan.compared if isinstance(live.resource, Setting)}
    assert isinstance(told["stalwart/objects/MtaRoute/relay/authSecret"], Unreadable)


@pytest.mark.trap(17, "jmap")
def test_what_is_read_is_never_written_back(world):
    world.apply(*world.yaml(RELAY % "a.example.org"))
    assert not world.apply(*world.yaml(RELAY % "b.example.org")).changes
    stored = json.dumps(world.fake.dump())
    assert TOKEN in stored
    assert '"****"' not in stored


def test_a_secret_goes_with_a_change_beside_it(world):
    world.apply(*world.yaml(RELAY % "a.example.org"))
    key = world.get("MtaRoute", name="relay")["id"]
    world.call("x:MtaRoute/set", {"update": {key: {"authSecret": {"@type": "File", "filePath": "/run/x"}}}})
    plan = world.plan(*world.yaml(RELAY % "a.example.org"))
    assert list(reasons(plan)) == ["stalwart/objects/MtaRoute/relay/authSecret"]
    assert not world.apply(*world.yaml(RELAY % "a.example.org")).changes
    assert TOKEN in json.dumps(world.fake.dump())


def test_who_knows_a_secret_may_say_so(world):
    ref = SecretRef("env", "TOKEN")
    wanted = world.yaml(RELAY % "a.example.org")
    world.apply(*wanted)
    world.judge = lambda address, it: Same(it)
    assert [item.resource.value for item in _settings(world, wanted)][-1] == Parts({"@type": "Value", "secret": ref})
    world.judge = lambda address, it: Different()
    assert list(reasons(world.plan(*wanted))) == ["stalwart/objects/MtaRoute/relay/authSecret"]


def _settings(world: World, wanted: list[Resource]) -> list[Live]:
    found = world.live(wanted)
    return sorted(
        (item for item in found if isinstance(item.resource, Setting)),
        key=lambda item: "authSecret" in item.resource.word,
    )


def test_no_secret_is_in_a_plan(world):
    wanted = world.yaml(RELAY % "a.example.org")
    plan = world.plan(*wanted)
    for said in (json.dumps(report_json.plan(plan)), repr(plan), text.plan(plan) if hasattr(text, "plan") else ""):
        assert TOKEN not in said
    world.apply(*wanted)
    assert "****" not in json.dumps(report_json.plan(world.plan(*wanted)))


# --------------------------------------------------------------------------------------------------------- both, bounds
@pytest.mark.trap(3, "jmap")
def test_one_refused_object_fails_alone(world):
    wanted = world.yaml("""
      objects:
        MtaRoute: {bad: {"@type": Relay, description: no address}}
        Http: {singleton: {enableHsts: true}}
""")
    world.apply(*wanted)
    assert set(world.failures) == {"stalwart/objects/MtaRoute/bad/@type", "stalwart/objects/MtaRoute/bad/description"}
    assert world.get("Http")["enableHsts"] is True


@pytest.mark.trap(5, "both")
def test_applying_twice_writes_nothing_more(world):
    wanted = [
        Domain("mana.how"),
        Setting("hostname", "mail.mana.how"),
        AllowedIp("10.0.0.0/8"),
        *world.yaml(RELAY % "a.example.org"),
    ]
    world.apply(*wanted)
    before = world.fake.dump()
    assert not world.apply(*wanted).changes
    assert world.fake.dump() == before


def test_settings_of_the_other_generation_are_passed_over(world):
    assert list(reads([Setting("settings/queue.x", "1")])) == list(reads([]))
    found = list(world.live([Setting("settings/queue.x", "1")]))
    assert [item.resource.word for item in found if isinstance(item.resource, Setting)] == []
