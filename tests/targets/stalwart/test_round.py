"""What the directory takes is there after an apply, seen again, and comes back after a loss: every kind, odd names."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from properties import tries

from reconciler.desired.derivation import Facts, desire, private_keys
from reconciler.desired.load import load
from reconciler.desired.spec import Spec
from reconciler.importing import Request, write
from reconciler.importing.found import Found
from reconciler.keys import public_half
from reconciler.plan import Plan, diff, phases
from reconciler.problem import InvalidDirectory, Refused, Severity
from reconciler.resources import Account, Signature
from reconciler.secrets import Secrets
from reconciler.simulator.stalwart.jmap.server import StalwartJmap
from reconciler.simulator.stalwart.rest.server import StalwartRest
from reconciler.simulator.wire import Server
from reconciler.target import Outcome, Status
from reconciler.targets.stalwart import ports
from reconciler.targets.stalwart.jmap.bootstrap import Setup

from .conftest import ADMIN, NewWorld, World, ref
from .imported import plan_after, resources, survey, told

HEAD = {
    "version": 1,
    "stack": "mana",
    "targets": {"stalwart": {"url": "http://localhost:1", "username": "admin", "password": {"env": "ADMIN"}}},
}
SECRETS = {"ADMIN": ADMIN, "P1": "a secret", "P2": "ünï sécret", "RECOVERY": "admin:rec0very secret"}
SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]


@contextmanager
def empty(generation: str, secrets: Mapping[str, str]) -> Iterator[World]:
    """Make a server behind an empty store."""
    if generation == "rest":
        fake: Any = StalwartRest(environment={"STALWART_ADMIN_PASSWORD": ADMIN})
    else:
        fake = StalwartJmap(environment={"STALWART_RECOVERY_ADMIN": SECRETS["RECOVERY"]}, configured=True)
    options = {"recovery": ref("RECOVERY"), "setup": Setup("mail.mana.how", "mana.how")}
    kind, options = (World, {}) if generation == "rest" else (NewWorld, options)
    with fake, Server(fake) as server:
        yield kind(fake, server, dict(secrets), options)
        assert not server.crashes


def spec(folder: Path, said: Mapping[str, Any]) -> Spec:
    """Load a directory. Raises `InvalidDirectory`."""
    folder = folder / "state"
    folder.mkdir(exist_ok=True)
    (folder / "a.yaml").write_text(json.dumps({**HEAD, **said}, ensure_ascii=False), encoding="utf-8")
    return load(folder).spec


def plan(world: World, wanted: Spec) -> Plan:
    """Plan as the program does: what the server wants is known when it was observed."""
    halves = {(it, kind): public_half(kind, world.secrets[it.name]) for it, kind in private_keys(wanted, check=True)}
    early = desire(wanted, None, Facts(halves))
    seen = {"stalwart": world.observe(early.resources)}
    return diff(desire(wanted, seen, Facts(halves)), seen, stack="mana")


def apply(world: World, wanted: Spec) -> dict[str, Outcome]:
    runs = phases(plan(world, wanted).changes)
    return {item.change.address: item for run in runs for item in world.target.apply(run, world.reveal)}


def errors(found: Plan) -> set[tuple[str, str]]:
    return {(item.where, item.scope) for item in found.problems if item.severity is Severity.ERROR}


def settles(world: World, wanted: Spec) -> Plan:
    """Apply: everything is done, nothing is left, and no more is told than before. Return the plan after it."""
    before = errors(plan(world, wanted))
    assert [str(item.problem) for item in apply(world, wanted).values() if item.status is not Status.DONE] == []
    again = plan(world, wanted)
    assert [item.address for item in again.pending] == []
    assert errors(again) <= before
    return again


@pytest.fixture
def rest() -> Iterator[World]:
    with empty("rest", SECRETS) as world:
        yield world


@pytest.fixture
def jmap() -> Iterator[World]:
    with empty("jmap", SECRETS) as world:
        yield world


def addresses(world: World) -> set[str]:
    """All that is on the server, by its address."""
    return {item.resource.address for item in world.observe().live}


# ------------------------------------------------------------------------------------- one value costs no other
HOUSE = {
    "groups": {"staff@mana.how": {}},
    "accounts": {"till@mana.how": {"password": {"env": "P1"}, "groups": ["staff@mana.how"]}},
    "lists": {"news@mana.how": {"members": ["till@mana.how"]}},
}
ALL = {"domain/mana.how", "group/staff@mana.how", "account/till@mana.how", "list/news@mana.how"}


def test_l1_a_catch_all_that_can_not_be_costs_nobody_his_mailbox(rest: World, tmp_path: Path) -> None:
    wanted = spec(tmp_path, {**HOUSE, "domains": {"mana.how": {"catch_all": "me@gmail.com"}}})
    again = settles(rest, wanted)
    assert addresses(rest) >= ALL
    assert errors(again) == {("domain/mana.how", "")}


def test_l11_a_description_that_is_too_long_costs_nobody_his_mailbox(rest: World, tmp_path: Path) -> None:
    long = {"description": "é" * 257}
    said = {kind: {name: {**entry, **long} for name, entry in HOUSE[kind].items()} for kind in HOUSE}
    again = settles(rest, spec(tmp_path, {**said, "domains": {"mana.how": long}}))
    assert addresses(rest) >= ALL
    assert errors(again) == {(address, "") for address in ALL}
    assert rest.principal("till")["memberOf"] == ["staff"]


def test_l11_sub_addressing_that_is_switched_off_for_all_costs_no_domain(rest: World, tmp_path: Path) -> None:
    rest.store({"session.rcpt.sub-addressing": "false"})
    rest.call("GET", "/api/reload")
    again = settles(rest, spec(tmp_path, {**HOUSE, "domains": {"mana.how": {"sub_addressing": True}}}))
    assert addresses(rest) >= ALL
    assert errors(again) == {("domain/mana.how", "")}


def test_l1_a_catch_all_whose_owner_can_not_be_made_keeps_no_key_from_signing(
    rest: World, tmp_path: Path, keys: Mapping[str, str]
) -> None:
    rest.secrets |= keys
    key = {"selector": "s1", "algorithm": "ed25519", "private_key": {"env": "ED"}}
    owner = {"accounts": {"till@mana.how": {"password": {"env": "GONE"}}}}
    domain = {"domains": {"mana.how": {"catch_all": "till@mana.how"}}, "dkim": {"mana.how": [key]}}
    outcomes = apply(rest, spec(tmp_path, {**owner, **domain}))
    assert outcomes["domain/mana.how"].status is Status.FAILED
    assert outcomes["dkim/mana.how/s1"].status is Status.DONE
    assert {selector for _, selector, _ in rest.fake.signing()} == {"s1"}


def test_l1_what_can_not_be_without_something_is_told_once_at_that(jmap: NewWorld, tmp_path: Path) -> None:
    jmap.create("Domain", name="mana.example.org", aliases={"mana.how": True}, dkimManagement={"@type": "Manual"})
    more = {"accounts": {**HOUSE["accounts"], "a@mana.net": {"password": {"env": "P1"}}}}
    found = plan(jmap, spec(tmp_path, {**HOUSE, **more}))
    assert [item.address for item in found.changes] == ["domain/mana.net", "account/a@mana.net"]
    assert {item.where for item in found.errors} == {"domain/mana.how"}
    (told,) = [item.summary for item in found.errors if "keeps back" in item.summary]
    assert all(address in told for address in ALL - {"domain/mana.how"})


def test_l11_a_login_or_a_locale_that_can_not_be_said_costs_no_account(rest: World) -> None:
    rest.make(type="domain", name="mana.how")
    rest.make(type="individual", name="a/b", emails=["a/b@mana.how"], roles=["user"], secrets=["x"])
    rest.make(
        type="individual", name="till", emails=["till@mana.how"], roles=["user"], secrets=["x"], locale="en_US.UTF-8"
    )
    found = survey(rest)
    assert {"account/a/b@mana.how", "account/till@mana.how"} <= resources(found, Account).keys()
    assert ["en_US.UTF-8" in text for text in told(found) if "locale" in text] == [True] or told(found)
    assert plan_after(rest, found)[0].changes == ()


def test_l7_a_domain_that_the_server_has_in_another_spelling_gets_no_second_one(rest: World, tmp_path: Path) -> None:
    rest.make(type="domain", name="bücher.de")
    rest.make(type="individual", name="info", emails=["info@bücher.de"], roles=["user"], secrets=["x"])
    rest.make(type="group", name="staff", emails=["staff@bücher.de"], roles=["user"])
    said = {"accounts": {"info@bücher.de": {"password": {"env": "P1"}}}, "groups": {"staff@bücher.de": {}}}
    found = plan(rest, spec(tmp_path, {**said, "lists": {"news@bücher.de": {}}}))
    assert (found.changes, {item.where for item in found.errors}) == ((), {"domain/xn--bcher-kva.de"})
    rest.make(type="domain", name="xn--bcher-kva.de")  # of two it is the one that DNS knows
    assert not plan(rest, spec(tmp_path, {"lists": {"news@bücher.de": {}}})).errors


# -------------------------------------------------------------------------------------- what is meant, and nothing else
def test_l16_a_group_of_another_domain_is_another_group(jmap: NewWorld, tmp_path: Path) -> None:
    """A slip in an address must not let somebody read the mail of the group that is called alike."""
    jmap.create("Domain", name="other.org", dkimManagement={"@type": "Manual"})
    groups = {"accounts": {"till@mana.how": {"password": {"env": "P1"}, "groups": ["staff@other.org"]}}}
    again = settles(jmap, spec(tmp_path, {**HOUSE, **groups}))
    assert [it["memberGroupIds"] for it in jmap.objects("Account") if it["name"] == "till"] == [{}]
    assert errors(again) == {("account/till@mana.how", "")}


@pytest.mark.parametrize(("milliseconds", "seconds"), [(90_000, "90"), (100, "0.1"), (60_000, "60")])
def test_l11_a_time_is_read_as_the_directory_writes_it(jmap: NewWorld, milliseconds: int, seconds: str) -> None:
    body = {"name": "x", "bind": {"127.0.0.1:2525": True}, "protocol": "smtp", "tlsTimeout": milliseconds}
    jmap.create("NetworkListener", **body)
    (found,) = [it.resource for it in jmap.observe().live if it.resource.address == "stalwart/listeners/x"]
    assert str(found.tls_timeout) == seconds


def test_l9_names_that_differ_in_marks_alone_are_two_things(jmap: NewWorld, tmp_path: Path) -> None:
    names = ["a.b", "a-b", "a b", "a/b"]
    ports = {name: {"bind": f"127.0.0.1:{2500 + number}", "protocol": "smtp"} for number, name in enumerate(names)}
    settles(jmap, spec(tmp_path, {"stalwart": {"listeners": ports}}))
    assert {it["name"] for it in jmap.objects("NetworkListener")} >= set(names)


def test_l9_a_listener_with_a_dot_is_told_where_it_can_not_be(rest: World, tmp_path: Path) -> None:
    port = {"bind": "127.0.0.1:2525", "protocol": "smtp"}
    again = settles(rest, spec(tmp_path, {"stalwart": {"listeners": {"a.b": port, "ab": port}}}))
    assert errors(again) == {("stalwart/listeners/a.b", "stalwart/listeners/a.b")}
    assert not [key for key in rest.fake.settings.merged() if key.startswith("server.listener.a.")]


def test_l9_to_have_no_role_is_to_be_a_user(jmap: NewWorld, tmp_path: Path) -> None:
    again = settles(jmap, spec(tmp_path, {"accounts": {"till@mana.how": {"password": {"env": "P1"}, "roles": []}}}))
    assert [item.where for item in again.problems if "has no role" in item.summary] == ["account/till@mana.how"]


def test_l3_the_domain_of_a_retired_key_may_be_an_alias_or_go(jmap: NewWorld, tmp_path: Path) -> None:
    retired = {"mana.net": [{"selector": "s1", "algorithm": "ed25519", "stage": "retired"}]}
    settles(jmap, spec(tmp_path, {**HOUSE, "domains": {"mana.how": {"aliases": ["mana.net"]}}, "dkim": retired}))
    assert "domain/mana.net" not in addresses(jmap)
    gone = spec(tmp_path, {**HOUSE, "domains": {"mana.how": {"aliases": []}}, "removed": ["domain/mana.net"]})
    jmap.update("Domain", jmap.objects("Domain")[0]["id"], aliases={})
    jmap.create("Domain", name="mana.net", dkimManagement={"@type": "Manual"})
    settles(jmap, gone)
    assert "domain/mana.net" not in addresses(jmap)


# ---------------------------------------------------------------------------------------------------- all that is taken
DOMAINS = ["mana.how", "MANA.how", "other.org", "bücher.de", "xn--bcher-kva.de", "BÜCHER.de", "a.mana.how", "straße.de"]
LOCALS = [
    "till",
    "TILL",
    "o'brien",
    "a.b",
    "a+b",
    "é",
    "x" * 64,
    "#",
    "=",
    "a/b",
    "%41",
    "null",
    "1e3",
    "-rf",
    "*x",
    "ß",
]
EMAILS = st.builds("{}@{}".format, st.sampled_from(LOCALS), st.sampled_from(DOMAINS))
TEXTS = st.sampled_from(
    ["Boss", "", " outer ", "x y " * 200, "ä\nö", "tab\t", "'\"\\", "%{env:HOME}%", "null", "😀", None]
)
SEVERAL = st.lists(EMAILS, max_size=3)
NETWORKS = st.sampled_from(["172.18.0.0/16", "172.18.0.1/16", "2001:DB8::/32", "10.0.0.1", "::1", "::ffff:1.2.3.4"])
BINDS = st.sampled_from(["[::]:587", ["0.0.0.0:2525", "[::]:2525"], ["[::]:2525"] * 2, "[0:0::1]:26"])
KEYS = {"ed25519": ["ED", "ED2"], "rsa": ["RSA"]}


def maybe(**parts: Any) -> Any:
    return st.fixed_dictionaries({}, optional=parts)


PASSWORD = st.sampled_from([{"env": "P1"}, {"env": "P2"}])
ACCOUNTS = maybe(
    description=TEXTS,
    roles=st.sampled_from([["user"], ["admin"], ["user", "admin"], [], ["User"]]),
    aliases=SEVERAL,
    quota=st.sampled_from(["1 GiB", "1", None]),
    groups=st.lists(EMAILS, max_size=1),
    enforce_password=st.booleans(),
    login=st.sampled_from(["lg1", "LOGIN", "l@x.y", "ü"]),
    locked=st.booleans(),
    locale=st.sampled_from(["de_DE", "de-DE", None]),
)
LISTENERS = st.fixed_dictionaries(
    {"bind": BINDS, "protocol": st.sampled_from(["smtp", "imap", "lmtp", "managesieve"])},
    optional={
        "tls": st.sampled_from(["implicit", "starttls", "none"]),
        "tls_disable": st.sampled_from([["TLSv1.2"], [], None]),
        "proxy_networks": st.lists(NETWORKS, max_size=2),
        "max_connections": st.sampled_from([1, 8192, None]),
        "send_buffer": st.sampled_from(["64 KiB", None]),
        "tls_timeout": st.sampled_from(["1m", "90s"]),
    },
)
RATES = st.sampled_from(["off", "30/1d", "1/1h", "100/60s", "30/24h", None])
SETTINGS = {
    "queue.limiter.inbound.ip.rate": st.sampled_from(["50/1s", "51/1s"]),
    "session.rcpt.relay": st.sampled_from(
        ["true", [], [{"if": "rcpt_domain = 'a'", "then": "true"}, {"else": "false"}]]
    ),
    "report.analysis.addresses": st.sampled_from([["a@x", "b@x"], ["c@x"], [], "x@y"]),
    "lookup.mine.name": st.sampled_from(["x", " x ", "", "x\ny", "%{env:X}%"]),
    "imap.auth.allow-plain-text": st.sampled_from([True, "true", "off", None]),
    "queue.schedule.dsn.retry": st.sampled_from([["1h", "2h"], ["9h"], []]),
}
SCRIPT = st.fixed_dictionaries(
    {"contents": st.sampled_from(["keep;", "keep;\n", " # x\nkeep;\n\n"])}, optional={"isActive": st.booleans()}
)


@st.composite
def keys_of(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(["ed25519", "rsa"]))
    selector = draw(st.sampled_from(["s1", "S2", "rsa_default", "a.b", "_x", "x" * 63]))
    return {"selector": selector, "algorithm": kind, "private_key": {"env": draw(st.sampled_from(KEYS[kind]))}}


def parts(generation: str) -> dict[str, Any]:
    """One entry at a time, so that what is invalid costs no more than itself."""
    domains, own = st.sampled_from(DOMAINS), SETTINGS if generation == "rest" else {}
    words = {
        "hostname": st.sampled_from(["mail.mana.how", "MAIL.mana.how", "bücher.de"]),
        "default_domain": domains,
        "allowed_ips": st.lists(NETWORKS, max_size=3),
        "auto_ban": maybe(auth=RATES, abuse=RATES, loiter=RATES, scan=RATES),
        "listeners": st.dictionaries(st.sampled_from(["submission", "Extra", "a-b", "a.b", "ü", "1"]), LISTENERS),
        "settings": maybe(**own),
    }
    script = {"objects": SCRIPT.map(lambda it: {"SieveSystemScript": {"scr": it}})} if generation == "jmap" else {}
    shared = {"description": TEXTS, "aliases": SEVERAL}
    return {
        "groups": st.tuples(EMAILS, maybe(**shared)),
        "accounts": st.tuples(EMAILS, st.builds(lambda one, two: {**one, "password": two}, ACCOUNTS, PASSWORD)),
        "lists": st.tuples(EMAILS, maybe(**shared, members=SEVERAL)),
        "domains": st.tuples(
            domains,
            maybe(
                description=TEXTS, catch_all=EMAILS, aliases=st.lists(domains, max_size=1), sub_addressing=st.booleans()
            ),
        ),
        "dkim": st.tuples(domains, st.lists(keys_of(), min_size=1, max_size=2)),
        "stalwart": st.one_of(*(st.tuples(st.just(name), made) for name, made in (words | script).items())),
    }


TRY = settings(
    max_examples=tries(24),
    deadline=None,
    suppress_health_check=SLOW,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # an example is small enough, and a try takes half a second
)


def drawn(data: st.DataObject, generation: str, folder: Path) -> Spec:
    """Make a directory of entries that are valid beside each other."""
    known, said = parts(generation), dict[str, dict[str, Any]]()
    wanted = spec(folder, {})
    for kind in data.draw(st.lists(st.sampled_from(sorted(known)), min_size=1, max_size=9)):
        name, entry = data.draw(known[kind])
        more = {**said, kind: {**said.get(kind, {}), name: entry}}
        try:
            wanted, said = spec(folder, more), more
        except InvalidDirectory:
            continue
    return wanted


def live(world: World, wanted: Spec) -> dict[str, Any]:
    return {it.resource.address: it.resource for it in world.observe(desire(wanted).resources).live}


@pytest.mark.parametrize("generation", ["rest", "jmap"])
@given(data=st.data())
@TRY
def test_l9_what_validates_is_there_seen_again_and_comes_back(
    generation: str, tmp_path: Path, keys: Mapping[str, str], data: st.DataObject
) -> None:
    wanted = drawn(data, generation, tmp_path)
    with empty(generation, SECRETS | keys) as world:
        settles(world, wanted)
        was = live(world, wanted)
    with empty(generation, SECRETS | keys) as world:
        settles(world, wanted)
        assert live(world, wanted) == was


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every listener answers: one that does not is left out of an import."""
    monkeypatch.setattr(ports, "open_listeners", lambda listeners, *_: {item.name: True for item in listeners})


@pytest.mark.parametrize("generation", ["rest", "jmap"])
@given(data=st.data())
@TRY
def test_l15_what_is_imported_needs_no_change_and_comes_back(
    generation: str, tmp_path: Path, keys: Mapping[str, str], answering: None, data: st.DataObject
) -> None:
    """By way of the files that an import writes."""
    wanted = drawn(data, generation, tmp_path)
    with empty(generation, SECRETS | keys) as world:
        apply(world, wanted)
        try:
            server = survey(world)
        except Refused:  # there is nothing
            return
        out = tmp_path / "imported"
        shutil.rmtree(out, ignore_errors=True)
        shutil.rmtree(tmp_path / "secrets", ignore_errors=True)
        request = Request(out, world.server.url)
        environ = {"STALWART_ADMIN_PASSWORD": ADMIN}
        result = write(Found(request, "mana", server=server, environ=environ))
        stored = Secrets(out, environ)
        world.secrets |= environ | {ref.name: stored(ref) for ref in result.secrets}
        imported = load(out).spec
        again = plan(world, imported)
        assert ([item.address for item in again.pending], [str(it) for it in again.errors]) == ([], []), server.omitted
        was, secrets = live(world, imported), dict(world.secrets)
    with empty(generation, secrets) as world:
        settles(world, imported)
        now = live(world, imported)
        lost = {address: (item, now.get(address)) for address, item in was.items() if now.get(address) != item}
        unread = (Signature,) if generation == "jmap" else ()  # which shows no private key: a new one is made
        assert [address for address, (item, _) in lost.items() if not isinstance(item, unread)] == [], lost
