"""Which release answers, what is asked to know it, and what becomes of what it does not have."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reconciler.desired import objects
from reconciler.problem import Severity
from reconciler.resources import Account, Domain, Listener, Resource, Setting
from reconciler.simulator.stalwart.jmap.schema import fingerprint
from reconciler.simulator.stalwart.jmap.server import SCHEMA
from reconciler.simulator.wire import Fault, Reply
from reconciler.targets.stalwart import release as releases
from reconciler.targets.stalwart import schema as schemas
from reconciler.targets.stalwart.jmap.recognition import Recognition
from reconciler.targets.stalwart.jmap.target import KINDS
from reconciler.targets.stalwart.release import JMAP, KNOWN, PINS, line, recognised
from reconciler.targets.stalwart.schema import Schema, known

from ..conftest import NewWorld  # noqa: TID252 (the fixtures of the folder above)
from .changed import NEEDED, Document, document
from .needs import derive

SHARED = Path(os.environ.get("RECONCILER_SHARED", Path(__file__).parents[5] / "shared"))
REAL = SHARED / "stalwart" / "schema-0.16.18.json.gz"


@pytest.fixture
def world(newer: NewWorld, tmp_path: Path) -> NewWorld:
    newer.options["recognised"] = tmp_path / "stalwart-release-mana.json"
    newer.connect()
    return newer


def asked(world: NewWorld) -> list[str]:
    """Return what was asked beside the probe since the last time."""
    found = [item.path for item in world.server.requests if item.path != "/.well-known/oauth-protected-resource"]
    world.server.requests.clear()
    return found


@pytest.fixture
def settled(world: NewWorld, newly_wanted: list[Resource]) -> NewWorld:
    """A server that lets its declared administrator in, of which nothing is remembered."""
    world.apply(newly_wanted)
    world.options["recognised"].unlink()
    world.connect()
    asked(world)
    return world


def become(world: NewWorld, schema: Document | None) -> None:
    """Let another release answer, as after a recreated container."""
    world.fake.schema = schema
    world.fake.restart()


def errors(problems: Sequence[Any]) -> dict[str, str]:
    return {item.scope: item.summary for item in problems if item.severity is Severity.ERROR}


# ------------------------------------------------------------------------------------------------- what is asked
def test_a_release_that_is_known_is_asked_for_once(settled: NewWorld, newly_wanted: list[Resource]) -> None:
    settled.plan(newly_wanted)
    assert asked(settled) == ["/api/schema", "/jmap"]
    settled.connect()
    settled.plan(newly_wanted)
    assert asked(settled) == ["/jmap"]


def test_after_a_restart_it_is_asked_for_again_and_nothing_read_twice(
    settled: NewWorld, newly_wanted: list[Resource]
) -> None:
    settled.plan(newly_wanted)
    asked(settled)
    settled.fake.restart()
    settled.connect()
    settled.plan(newly_wanted)
    assert asked(settled) == ["/jmap", "/api/schema"]
    settled.connect()
    settled.plan(newly_wanted)
    assert asked(settled) == ["/jmap"]


def test_a_schema_that_is_not_known_is_fetched_once(settled: NewWorld, newly_wanted: list[Resource]) -> None:
    changed = document()
    changed["objects"]["x:Exchange"] = {"type": "singleton"}
    become(settled, changed)
    plan = settled.plan(newly_wanted)
    paths = asked(settled)
    assert [path.rpartition("/")[0] for path in paths] == ["/api", "/api/schema", ""]
    assert any("is of a release that is not known here" in item.summary for item in plan.problems)
    for _ in range(2):
        settled.connect()
        settled.plan(newly_wanted)
        assert asked(settled) == ["/jmap"]
    settled.fake.restart()
    settled.connect()
    settled.plan(newly_wanted)
    assert asked(settled) == ["/jmap", "/api/schema"]


def test_a_schema_that_is_remembered_says_what_the_fetched_one_said(
    world: NewWorld, newly_wanted: list[Resource]
) -> None:
    """On the branch before 1.0 every second plan of an empty server found properties that nobody said."""
    changed = document()
    changed["objects"]["x:Exchange"] = {"type": "singleton"}
    become(world, changed)
    first = world.plan(newly_wanted)
    world.connect()
    assert errors(world.plan(newly_wanted).problems) == errors(first.problems) == {}
    world.apply(newly_wanted)
    world.connect()
    assert not world.plan(newly_wanted).changes


def test_another_address_is_another_server(settled: NewWorld, newly_wanted: list[Resource]) -> None:
    settled.plan(newly_wanted)
    asked(settled)
    settled.connect(url=settled.server.url.replace("127.0.0.1", "localhost"))
    settled.plan(newly_wanted)
    assert asked(settled) == ["/api/schema", "/jmap"]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"server": 1}', b'{"server": "URL", "fingerprint": "../../x"}']
)
def test_a_memory_that_is_broken_is_no_memory(settled: NewWorld, newly_wanted: list[Resource], content: bytes) -> None:
    settled.options["recognised"].write_bytes(content.replace(b"URL", settled.server.url.encode()))
    settled.connect()
    settled.plan(newly_wanted)
    assert asked(settled) == ["/api/schema", "/jmap"]


def test_where_something_else_answers_in_its_place_it_is_read_as_the_known_one(
    world: NewWorld, newly_wanted: list[Resource]
) -> None:
    world.server.faults.append(Fault(path="/api/schema", times=99, reply=Reply(404, b"no", "text/html")))
    plan = world.plan(newly_wanted)
    assert any("does not tell its release" in item.summary for item in plan.problems)
    assert plan.complete
    assert len(plan.changes) == len(newly_wanted)


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[[[", b'{"objects": [], "schemas": {}, "fields": {}, "enums": {}}', b"\x1f\x8bx"]
)
def test_what_is_no_schema_stops_before_anything_is_read(
    world: NewWorld, newly_wanted: list[Resource], body: bytes
) -> None:
    changed = document()
    changed["objects"]["x:Exchange"] = {"type": "singleton"}
    become(world, changed)
    world.server.faults.append(Fault(path="/api/schema/.", times=9, reply=Reply(200, body)))
    plan = world.plan(newly_wanted)
    assert not plan.complete
    assert not plan.changes
    assert any("no schema" in item.summary for item in plan.problems)


def test_a_schema_that_is_larger_than_any_is_none(world: NewWorld, newly_wanted: list[Resource]) -> None:
    changed = document()
    changed["enums"]["Endless"] = [{"name": "x" * 150 + str(number)} for number in range(60_000)]
    become(world, changed)
    assert any("no schema" in item.summary for item in world.plan(newly_wanted).problems)


# ----------------------------------------------------------------------------------------- what it does not have
def test_exactly_who_needs_what_is_gone_is_told(world: NewWorld, newly_wanted: list[Resource]) -> None:
    changed = document()
    del changed["fields"]["x:UserAccount"]["properties"]["quotas"]
    become(world, changed)
    wanted = [*newly_wanted, Account("q@mana.how", "q", "q@mana.how", roles=("user",), quota=1 << 20)]
    have = {item.address for item in newly_wanted if isinstance(getattr(item, "quota", None), int)}
    plan = world.plan(wanted)
    told = errors(plan.problems)
    assert told.keys() == {"account/q@mana.how", *have}
    assert "has no property quotas of Account" in told["account/q@mana.how"]
    done = list(world.target.apply(plan.changes, world.reveal))
    assert [item.problem for item in done if item.problem] == []
    again = world.plan(wanted)
    assert not again.changes
    assert errors(again.problems) == told


def test_what_a_table_renames_is_read_and_written_by_its_new_name(
    world: NewWorld, newly_wanted: list[Resource], monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = document()
    found = changed["fields"]["x:Domain"]["properties"]
    found["remark"] = {**found.pop("description"), "was": "description"}
    changed["objects"]["x:SigningKey"] = {**changed["objects"].pop("x:DkimSignature"), "was": "x:DkimSignature"}
    changed["schemas"]["x:SigningKey"] = changed["schemas"]["x:DkimSignature"]
    become(world, changed)
    names = {"objects": {"DkimSignature": "SigningKey"}, "properties": {"Domain": {"description": "remark"}}}
    later = replace(releases.NEXT, name="1.1.0", fingerprint=fingerprint(changed), **names)
    monkeypatch.setattr(releases, "NEXT", later)
    wanted = [*newly_wanted, Domain("example.org", description="Ours")]
    outcomes = world.apply(wanted)
    assert [item.problem for item in outcomes.values() if item.problem] == []
    (domain,) = [item for item in world.objects("Domain") if item["name"] == "example.org"]
    assert domain["remark"] == "Ours"
    assert len(world.fake.signing()) == 2
    assert not world.plan(wanted).changes


def test_a_changed_default_is_no_drift(world: NewWorld, newly_wanted: list[Resource]) -> None:
    world.apply(newly_wanted)
    changed = document()
    changed["fields"]["x:Domain"]["defaults"] |= {"isEnabled": False, "dkimManagement": {"@type": "Manual"}}
    changed["fields"]["x:UserAccount"]["defaults"] = {"locale": "en-US"}
    become(world, changed)
    assert not world.plan(newly_wanted).changes


def test_a_new_required_property_stops_who_would_be_made_and_nobody_who_is_there(
    world: NewWorld, newly_wanted: list[Resource]
) -> None:
    world.apply(newly_wanted)
    changed = document()
    changed["fields"]["x:NetworkListener"]["properties"]["purpose"] = NEEDED
    become(world, changed)
    wanted = [*newly_wanted, Listener("more", ("[::]:2525",), "smtp")]
    plan = world.plan(wanted)
    assert errors(plan.problems).keys() == {"stalwart/listeners/more"}
    assert "needs purpose" in errors(plan.problems)["stalwart/listeners/more"]


def test_an_action_that_is_gone_stops_what_it_would_put_in_force(world: NewWorld) -> None:
    changed = document()
    variants = changed["schemas"]["x:Action"]["variants"]
    variants[:] = [item for item in variants if item["name"] != "ReloadSettings"]
    become(world, changed)
    plan = world.plan([Domain("mana.how"), Setting("auto_ban/scan", "off")])
    assert errors(plan.problems).keys() == {"stalwart/auto_ban/scan"}


def test_a_locale_is_the_same_in_both_spellings(world: NewWorld) -> None:
    changed = document()
    changed["enums"]["Locale"] = [{"name": "en-US"}, {"name": "de-DE"}]
    changed["fields"]["x:Search"]["properties"]["defaultLanguage"]["type"] = {"type": "enum", "enumName": "Locale"}
    changed["fields"]["x:Search"]["defaults"]["defaultLanguage"] = "en-US"
    become(world, changed)
    word = objects.word("Search", "", "defaultLanguage")
    assert not world.plan([Setting(word, "en_US")]).changes
    outcomes = world.apply([Setting(word, "de_DE")])
    assert [item.problem for item in outcomes.values() if item.problem] == []
    assert world.objects("Search")[0]["defaultLanguage"] == "de-DE"
    assert not world.plan([Setting(word, "de_DE")]).changes


def test_raw_objects_are_judged_by_the_schema_that_is_there(world: NewWorld) -> None:
    changed = document()
    del changed["fields"]["x:Http"]["properties"]["useXForwarded"]
    become(world, changed)
    wanted = [Setting(objects.word("Http", "", name), True) for name in ("useXForwarded", "usePermissiveCors")]
    plan = world.plan(wanted)
    assert errors(plan.problems).keys() == {"stalwart/objects/Http/useXForwarded"}
    assert [item.address for item in plan.changes] == ["stalwart/objects/Http/usePermissiveCors"]


def test_nothing_is_lost_where_it_can_only_not_be_read(world: NewWorld, newly_wanted: list[Resource]) -> None:
    world.apply(newly_wanted)
    changed = document()
    for name in ("Account", "Domain", "DkimSignature"):
        changed["objects"][f"x:{name}s"] = changed["objects"].pop(f"x:{name}")
    become(world, changed)
    seen = world.observe(newly_wanted)
    assert not seen.lost
    plan = world.plan(newly_wanted)
    assert not [item.address for item in plan.changes if item.kind in ("account", "domain", "dkim")]


# ----------------------------------------------------------------------------------------------- refusing others
@pytest.mark.parametrize("later", [True, False])
@pytest.mark.parametrize("known_before", [True, False])
def test_a_release_that_the_directory_does_not_allow_is_refused(
    world: NewWorld, newly_wanted: list[Resource], later: bool, known_before: bool
) -> None:
    changed = document()
    changed["objects"]["x:OAuthGrant"] = {"type": "object"}
    become(world, changed if later else None)
    if known_before:
        world.plan(newly_wanted)
    world.connect(release="0.16")
    plan = world.plan(newly_wanted)
    assert plan.complete is not later
    if later:
        assert "is of release 1, but targets.stalwart.release is 0.16" in plan.problems[0].summary
        assert not plan.changes
    world.connect(release="1")
    assert world.plan(newly_wanted).complete is later


# -------------------------------------------------------------------------------------------------- what we need
def test_all_that_is_read_is_named_in_the_table_of_needs() -> None:
    for kind in KINDS:
        for selection in (*kind.objects, *kind.surveyed):
            assert known().knows(selection.name)
            for name in selection.properties:
                assert name in ("id", "@type") or known().found(selection.name, name), (selection.name, name)


def test_all_that_is_written_is_named_in_the_table_of_needs(world: NewWorld, newly_wanted: list[Resource]) -> None:
    """With the known release nothing is judged while it is written: here it is."""
    world.apply(newly_wanted)
    world.apply(
        [*newly_wanted, Domain("example.org", description="x", catch_all="admin@mana.how", sub_addressing=False)]
    )
    sent = [item.json()["methodCalls"] for item in world.server.requests if item.path == "/jmap"]
    judged = 0
    for method, arguments, _ in (call for calls in sent for call in calls):
        name, _, verb = method.removeprefix("x:").partition("/")
        for part in ("create", "update") if verb == "set" else ():
            for body in (arguments.get(part) or {}).values():
                assert list(known().objections(name, part, body)) == []
                judged += 1
    assert judged > 10


@pytest.mark.skipif(not REAL.exists(), reason="the real schema is not here")
def test_the_table_of_needs_is_what_the_real_schema_says() -> None:
    table = derive(json.loads(gzip.decompress(REAL.read_bytes())))
    assert table == schemas._own()


@pytest.mark.skipif(not REAL.exists(), reason="the real schema is not here")
def test_all_that_is_known_is_usable_by_the_real_schema() -> None:
    real = Schema.served(json.loads(gzip.decompress(REAL.read_bytes())))
    mine = known()
    unusable = [
        (name, variant, key)
        for name in mine.table["objects"]
        for variant in mine.variants(name) or (None,)
        for key in mine.properties(name, variant)
        if not real.usable(name, variant, key)
    ]
    assert unusable == []
    kept = Schema.kept(json.loads(real.dump()))
    assert kept.table == real.table
    assert {name: list(kept.variants(name)) for name in kept.table["unions"]} == {
        name: list(real.variants(name)) for name in real.table["unions"]
    }


# ----------------------------------------------------------------------------------------------------- the table
def test_a_fingerprint_is_a_release() -> None:
    assert recognised(SCHEMA) is JMAP
    assert line(JMAP) == "0.16"
    assert line(releases.REST) == "0.15"
    assert line(releases.NEXT) == "1"
    assert line(recognised("other", Schema.served(document()))) == "0.16"
    for found, name in (("aJJKvnpsjjwAEzJ0eKDWdfSLK_RvBKsLhk8BwCq-7qA", "0.16.0"), (SCHEMA, "0.16.18"), ("x", "")):
        assert (recognised(found).name, line(recognised(found))) == (name, "0.16")


def test_an_earlier_release_has_its_name_and_is_asked_what_it_has(
    world: NewWorld, newly_wanted: list[Resource], monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = document()
    del changed["fields"]["x:UserAccount"]["properties"]["quotas"]
    monkeypatch.setattr(releases, "_OTHERS", {fingerprint(changed): "0.16.3"})
    become(world, changed)
    plan = world.plan(newly_wanted)
    (told,) = [item.summary for item in plan.problems if "was not tried with" in item.summary]
    assert "is of release 0.16.3, which this program was not tried with" in told
    assert set(errors(plan.problems)) == {
        it.address for it in newly_wanted if isinstance(getattr(it, "quota", None), int)
    }


def test_what_to_pin_has_a_date() -> None:
    assert {release.generation for release in KNOWN} == PINS.keys()
    assert all(release.good for release in PINS.values())


@pytest.mark.parametrize("what", ["deep", "binary", "pipe", "link", "folder"])
def test_t12_a_damaged_memory_of_the_release_is_asked_anew(tmp_path, what):
    file = tmp_path / "release.json"
    whole = {"server": "http://x", "fingerprint": "f", "state": "s", "container": ""}
    (tmp_path / "elsewhere").write_text(json.dumps(whole))
    {
        "deep": lambda: file.write_text("[" * 100_000),
        "binary": lambda: file.write_bytes(b"\xff\x00"),
        "pipe": lambda: os.mkfifo(file),
        "link": lambda: file.symlink_to("elsewhere"),
        "folder": file.mkdir,
    }[what]()
    assert Recognition(file, "http://x").release is None
    assert not Recognition(file, "http://x").is_same("s", None)
