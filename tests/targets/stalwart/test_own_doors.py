"""Our own way in, and values that are a list: what is left of them on a fake server afterwards."""

from dataclasses import replace

import pytest

from reconciler import guards
from reconciler.desired import objects
from reconciler.desired.spec.stalwart import Stalwart
from reconciler.guards import doors
from reconciler.guards.evidence import Evidence, Policy
from reconciler.plan import Desired, diff
from reconciler.problem import Severity
from reconciler.resources import Account, AllowedIp, Domain, Listener, Live, Observation, Setting
from reconciler.target import Status
from reconciler.targets.stalwart.jmap import api, batch

from .conftest import ref

DOMAIN = Domain("mana.how")
ADMIN = Account("admin", "admin", None, "Boss", ("admin",), password=ref("ADMIN"))
RELAY = "session.rcpt.relay"


def refused(world, wanted, door=None, **more):
    """Plan and guard as the program does; the addresses that are refused."""
    desired = Desired(tuple(wanted), **more)
    seen = {"stalwart": world.observe(wanted)}
    plan = diff(desired, seen, stack="mana")
    policy = Policy(passwords=(ref("ADMIN"),), door=door)
    found = guards.check(Evidence(plan, desired, seen, policy))
    return {item.where for item in found if item.severity is Severity.REFUSED}


@pytest.mark.parametrize(
    ("key", "value", "wrong"),
    [
        ("http.allowed-endpoint", "404", True),
        ("http.allowed-endpoint", "200", False),
        ("http.allowed-endpoint.0000.else", "403", True),
        ("server.http.allowed-endpoint", "404", True),
        ("server.blocked-ip.0.0.0.0/0", "", True),
        ("server.blocked-ip.127.0.0.1", "", True),
        ("server.blocked-ip.172.16.0.0/12", "", True),
        ("server.blocked-ip.8.8.8.8", "", False),
        ("storage.data", "other", True),
        ("storage.blob", "other", True),
        ("storage.fts", "other", False),
        ("store.rocksdb.path", "/elsewhere", True),
        ("http.rate-limit.account", "1/1d", True),
        ("http.rate-limit.anonymous", "10/1m", True),
        ("http.rate-limit.account", "2000/1m", False),
        ("http.rate-limit.account", "false", False),
        ("server.max-connections", "1", True),
        ("server.max-connections", "8192", False),
        ("config.local-keys.0000", "storage.*", True),
    ],
)
def test_l2_no_setting_shuts_us_out(world, key, value, wrong):
    world.apply([DOMAIN, ADMIN])
    setting = Setting(f"settings/{key}", value)
    assert (setting.address in refused(world, [DOMAIN, ADMIN, setting])) is wrong


def test_l2_what_is_allowed_may_be_blocked_besides(world):
    world.apply([DOMAIN, ADMIN])
    setting = Setting("settings/server.blocked-ip.172.18.0.5", "")
    assert refused(world, [DOMAIN, ADMIN, setting, AllowedIp("172.18.0.0/16")]) == set()


@pytest.mark.parametrize(("code", "wrong"), [("404", True), ("200", False)])
def test_l2_no_object_shuts_us_out(newer, code, wrong):
    admin = replace(ADMIN, name="admin@mana.how", email="admin@mana.how")
    newer.apply([DOMAIN, admin])
    values, misfits = objects.declared("Http", "singleton", {"allowedEndpoints": {"else": code}})
    assert not misfits
    setting = Setting("objects/Http/allowedEndpoints", values["allowedEndpoints"])
    assert (setting.address in refused(newer, [DOMAIN, admin, setting])) is wrong


@pytest.mark.parametrize(
    ("kind", "values", "wrong"),
    [
        ("Http", {"rateLimitAuthenticated": {"count": 5, "period": "1m"}}, True),
        ("Http", {"rateLimitAnonymous": {"count": 500, "period": "1m"}}, False),
        ("SystemSettings", {"maxConnections": 2}, True),
        ("SystemSettings", {"maxConnections": 4096}, False),
        *(("Jmap", {name: least - 1}, True) for name, least in doors.SPOKEN.items()),
        *(("Jmap", {name: least}, False) for name, least in doors.SPOKEN.items()),
        ("Jmap", {"maxConcurrentRequests": None}, False),
        ("Jmap", {"parseLimitEmail": 1}, False),
    ],
)
def test_l2_no_rate_or_number_turns_us_away(newer, kind, values, wrong):
    admin = replace(ADMIN, name="admin@mana.how", email="admin@mana.how")
    newer.apply([DOMAIN, admin])
    made, misfits = objects.declared(kind, "singleton", values)
    assert not misfits
    [(name, value)] = made.items()
    setting = Setting(f"objects/{kind}/{name}", value)
    assert (setting.address in refused(newer, [DOMAIN, admin, setting])) is wrong


@pytest.mark.parametrize(
    ("word", "have", "want", "wrong"),
    [
        ("objects/BlobStore/@type", "Default", "S3", "mail elsewhere"),
        ("objects/BlobStore/bucket", "a", "b", "mail elsewhere"),
        ("objects/DataStore/path", "/a", "/b", "data elsewhere"),
        ("objects/BlobStore/timeout", "1s", "2s", ""),
        ("objects/SearchStore/@type", "Default", "Meilisearch", ""),
    ],
)
def test_l2_the_stores_stay_where_mail_and_data_are(word, have, want, wrong):
    wanted = (Setting(word, want),)
    seen = {"stalwart": Observation("stalwart", live=(Live(Setting(word, have), id="x"),), login="admin", account="a")}
    plan = diff(Desired(wanted), seen, stack="mana")
    found = guards.check(Evidence(plan, Desired(wanted), seen, Policy()))
    assert [wrong in item.summary for item in found if item.severity is Severity.REFUSED] == [True] * bool(wrong)


def test_l2_what_our_requests_count_on_is_what_they_have():
    assert tuple(doors.SPOKEN[name] for name in ("maxMethodCalls", "getMaxResults")) == (api.CALLS, api.OBJECTS)
    assert doors.SPOKEN["setMaxObjects"] >= api.OBJECTS
    assert doors.SPOKEN["maxRequestSize"] > batch._LARGEST


@pytest.mark.parametrize(
    ("word", "have", "want", "warned"),
    [
        ("settings/certificate.default.cert", "%{file:/etc/a.pem}%", "%{file:/etc/b.pem}%", True),
        ("settings/certificate.default.default", "true", None, True),
        ("settings/acme.letsencrypt.domains.0000", "mail.mana.how", "other.mana.how", True),
        ("settings/server.tls.certificate", "default", "other", True),
        ("objects/SystemSettings/defaultCertificateId", "a", "b", True),
        ("settings/imap.auth.max-failures", "3", "4", False),
    ],
)
def test_l2_a_certificate_that_may_shut_us_out_is_warned_of(word, have, want, warned):
    """Only where we come by TLS: elsewhere nobody looks at it before us."""
    wanted = (Setting(word, want),)
    seen = {"stalwart": Observation("stalwart", live=(Live(Setting(word, have), id="x"),), login="admin", account="a")}
    plan = diff(Desired(wanted), seen, stack="mana")
    for door in (("https", 443), ("http", 8080), None):
        found = guards.check(Evidence(plan, Desired(wanted), seen, Policy(door=door)))
        said = [item.severity for item in found if "shuts us out" in item.summary and item.where == wanted[0].address]
        assert said == [Severity.WARNING] * (warned and door == ("https", 443))


@pytest.mark.parametrize("generation", ["rest", "jmap"])
def test_l2_a_network_of_proxies_is_warned_of(request, generation):
    world = request.getfixturevalue("world" if generation == "rest" else "newer")
    admin = ADMIN if generation == "rest" else replace(ADMIN, name="admin@mana.how", email="admin@mana.how")
    world.apply([DOMAIN, admin])
    setting = Setting("settings/server.proxy.trusted-networks.0000", "172.16.0.0/12")
    if generation == "jmap":
        setting = Setting("objects/SystemSettings/proxyTrustedNetworks", ("172.16.0.0/12",))
    wanted = [DOMAIN, admin, setting]
    seen = {"stalwart": world.observe(wanted)}
    plan = diff(Desired(tuple(wanted)), seen, stack="mana")
    found = guards.check(Evidence(plan, Desired(tuple(wanted)), seen, Policy(passwords=(ref("ADMIN"),))))
    assert [item.summary for item in found if item.where == setting.address] == [
        "whoever comes from there has to speak the PROXY protocol: it may shut us out"
    ]


def test_l2_the_listener_that_we_get_in_by_stays_where_it_is(world):
    wanted = [DOMAIN, ADMIN]
    world.apply(wanted)
    found = [it.resource for it in world.observe(wanted).live if isinstance(it.resource, Listener)]
    ours = {item.name: item for item in found if item.protocol == "http"}
    plain = next(item for item in ours.values() if not item.tls_implicit)
    port = int(plain.bind[0].rpartition(":")[2])
    elsewhere = [replace(item, bind=("127.0.0.1:1",), open=True) for item in ours.values()]
    assert refused(world, [*wanted, *elsewhere]) >= {item.address for item in elsewhere}
    turned = [replace(item, tls_implicit=not item.tls_implicit, open=True) for item in ours.values()]
    assert refused(world, [*wanted, *turned]) >= {item.address for item in turned}
    gone = {"removed": frozenset({plain.address})}
    assert refused(world, wanted, door=("http", port), **gone) == {plain.address}
    assert refused(world, wanted, door=("http", 18000), **gone) == {plain.address}
    assert refused(world, wanted, door=("https", 443), **gone) == set()
    both = replace(plain, bind=(*plain.bind, "[::]:18080"), open=True)
    assert refused(world, [*wanted, both], door=("http", port)) == set()


def stored(world):
    found = world.call("GET", f"/api/settings/keys?prefixes={RELAY}&keys={RELAY}")["data"]
    return {key: value for key, value in found.items() if key.startswith(RELAY)}


LISTED = [
    Setting(f"settings/{RELAY}.0.if", "rcpt_domain = 'a'"),
    Setting(f"settings/{RELAY}.0.then", "true"),
    Setting(f"settings/{RELAY}.1.else", "false"),
]


@pytest.mark.parametrize("value", [None, "false"])
def test_l14_a_list_becomes_one_value_or_none(world, value):
    world.apply(LISTED)
    wanted = [Setting(f"settings/{RELAY}", value)]
    assert {item.status for item in world.apply(wanted).values()} == {Status.DONE}
    assert stored(world) == ({} if value is None else {RELAY: value})
    assert world.plan(wanted).changes == ()


def test_l14_one_value_becomes_a_list(world):
    world.apply([Setting(f"settings/{RELAY}", "true")])
    assert {item.status for item in world.apply(LISTED).values()} == {Status.DONE}
    assert RELAY not in stored(world)
    assert world.plan(LISTED).changes == ()


def test_l14_an_empty_yaml_list_clears():
    assert Stalwart.model_validate({"settings": {RELAY: []}}).settings == {RELAY: None}


def test_l1_an_account_without_a_role_comes_back_without_one(world):
    wanted = [DOMAIN, Account("till@mana.how", "till", "till@mana.how", None, ())]
    assert {item.status for item in world.apply(wanted).values()} == {Status.DONE}
    assert not world.principal("till").get("roles")
    assert world.plan(wanted).changes == ()


def test_w11_the_account_that_we_log_in_with_is_never_locked(world):
    world.apply([DOMAIN, ADMIN])
    assert refused(world, [DOMAIN, replace(ADMIN, locked=True)]) == {"account/admin"}
    other = replace(ADMIN, name="other@mana.how", login="other", email="other@mana.how")
    assert refused(world, [DOMAIN, ADMIN, replace(other, locked=True)]) == set()


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        ({"proxy_networks": ("0.0.0.0/0",)}, True),
        ({"proxy_networks": ()}, False),
        ({"max_connections": 1}, True),
        ({"max_connections": 100}, False),
        ({"tls": False}, False),  # we come without
    ],
)
def test_w7_no_option_of_the_listener_that_we_come_by_shuts_us_out(world, options, wrong):
    world.apply([DOMAIN, ADMIN])
    web = Listener("http", ("[::]:8080",), "http", **options)
    assert refused(world, [DOMAIN, ADMIN, web], door=("http", 8080)) == ({web.address} if wrong else set())
    mail = Listener("submission", ("[::]:587",), "smtp", **options)
    assert refused(world, [DOMAIN, ADMIN, mail], door=("http", 8080)) == set()
