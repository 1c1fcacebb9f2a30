"""The fake serves its schema, and judges by another one: as the real server of that release would answer."""

import copy
import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from reconciler.simulator.stalwart.jmap import schema as schemas
from reconciler.simulator.stalwart.jmap.registry import own_table
from reconciler.simulator.stalwart.jmap.server import SCHEMA, StalwartJmap
from reconciler.simulator.wire import Server

AUTH = ("admin", "rec0very secret")


@pytest.fixture
def document() -> dict[str, Any]:
    return copy.deepcopy(schemas.document())


@pytest.fixture
def fake() -> Iterator[StalwartJmap]:
    with StalwartJmap(environment={"STALWART_RECOVERY_ADMIN": ":".join(AUTH)}) as fake:
        yield fake


def properties(document: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = document["fields"][f"x:{name}"]["properties"]
    return found


def asked(fake: StalwartJmap, *calls: Any) -> Any:
    with Server(fake) as server:
        listed = [[f"x:{method}", arguments, str(n)] for n, (method, arguments) in enumerate(calls)]
        body = {"using": ["urn:stalwart:jmap"], "methodCalls": listed}
        answer = httpx.post(f"{server.url}/jmap", json=body, auth=AUTH).json()["methodResponses"]
        assert not server.crashes
    return answer[0][1] if len(answer) == 1 else [item[1] for item in answer]


def judged(fake: StalwartJmap, document: dict[str, Any]) -> StalwartJmap:
    fake.schema = document
    fake.restart()
    return fake


def test_the_schema_is_shown_to_who_logs_in(fake: StalwartJmap) -> None:
    with Server(fake) as server:
        assert httpx.get(f"{server.url}/api/schema").status_code == 401
        first = httpx.get(f"{server.url}/api/schema", auth=AUTH)
        assert (first.status_code, first.headers["location"]) == (302, f"/api/schema/{SCHEMA}")
        found = httpx.get(f"{server.url}/api/schema/{SCHEMA}", auth=AUTH)
        assert httpx.get(f"{server.url}/api/schema/other", auth=AUTH).headers["location"] == f"/api/schema/{SCHEMA}"
    assert found.headers["content-encoding"] == "gzip"
    assert found.json() == schemas.document()


def test_judged_by_its_own_schema_nothing_changes(fake: StalwartJmap, document: dict[str, Any]) -> None:
    before = asked(fake, ("NetworkListener/get", {"ids": None}), ("Authentication/get", {"ids": ["singleton"]}))
    other = judged(StalwartJmap(environment=fake.environment), document)
    after = asked(other, ("NetworkListener/get", {"ids": None}), ("Authentication/get", {"ids": ["singleton"]}))
    drop = ("id", "defaultAdminRoleIds", "defaultUserRoleIds", "defaultGroupRoleIds", "defaultTenantRoleIds")

    def shown(answers: Any) -> Any:
        listed = [item for answer in answers for item in answer["list"]]
        return [{key: value for key, value in item.items() if key not in drop} for item in listed]

    assert shown(after) == shown(before)


def test_judged_by_the_real_schema_a_fresh_server_says_the_same(
    fake: StalwartJmap, facts: Callable[[str], Path]
) -> None:
    """Its defaults are written otherwise there: ``1d`` for milliseconds, lists, expressions of one value."""
    real = json.loads(gzip.decompress(facts("stalwart/schema-0.16.18.json.gz").read_bytes()))
    names = sorted(name for name, kind in own_table().objects.items() if kind == "singleton" and name != "Bootstrap")
    calls = [(f"{name}/get", {"ids": ["singleton"]}) for name in names]
    own, other = fake, judged(StalwartJmap(environment=fake.environment), real)
    for first in range(0, len(calls) - 1, 15):  # never one alone, which is answered by itself
        some = calls[first : first + 16]
        for mine, theirs in zip(asked(own, *some), asked(other, *some), strict=True):
            for said, known in zip(theirs["list"], mine["list"], strict=True):
                different = {key: (known.get(key), it) for key, it in said.items() if known.get(key) != it}
                assert not different


def test_another_schema_has_another_address(fake: StalwartJmap, document: dict[str, Any]) -> None:
    del document["objects"]["x:AllowedIp"]
    with Server(judged(fake, document)) as server:
        place = httpx.get(f"{server.url}/api/schema", auth=AUTH).headers["location"]
        assert SCHEMA not in place
        assert httpx.get(f"{server.url}{place}", auth=AUTH).json() == document


def test_an_object_that_is_gone_is_an_unknown_method(fake: StalwartJmap, document: dict[str, Any]) -> None:
    del document["objects"]["x:AllowedIp"]
    answer = asked(judged(fake, document), ("AllowedIp/get", {"ids": None}))
    assert answer["type"] == "unknownMethod"


def test_a_property_that_is_gone_is_not_read_and_refused(fake: StalwartJmap, document: dict[str, Any]) -> None:
    del properties(document, "Domain")["catchAllAddress"]
    body = {"name": "example.org", "catchAllAddress": "a@example.org"}
    fake = judged(fake, document)
    answer = asked(fake, ("Domain/set", {"create": {"a": body}}))
    assert answer["notCreated"]["a"]["type"] == "invalidPatch"
    made, read = asked(fake, ("Domain/set", {"create": {"a": {"name": "example.org"}}}), ("Domain/get", {"ids": None}))
    assert made["created"]
    assert "catchAllAddress" not in read["list"][0]


def test_a_renamed_property_goes_on_under_its_new_name(fake: StalwartJmap, document: dict[str, Any]) -> None:
    found = properties(document, "Domain")
    found["catchAll"] = {**found.pop("catchAllAddress"), "was": "catchAllAddress"}
    fake = judged(fake, document)
    asked(fake, ("Domain/set", {"create": {"a": {"name": "example.org", "catchAll": "all@example.org"}}}))
    (domain,) = asked(fake, ("Domain/get", {"ids": None}))["list"]
    assert domain["catchAll"] == "all@example.org"
    asked(fake, ("Account/set", {"create": {"a": {"@type": "User", "name": "all", "domainId": domain["id"]}}}))
    assert fake.mailboxes("nobody@example.org") == {"all@example.org"}


def test_a_new_required_property_is_missed_by_new_objects_alone(fake: StalwartJmap, document: dict[str, Any]) -> None:
    needed = {"type": {"type": "string", "format": "string"}, "update": "mutable"}
    properties(document, "NetworkListener")["purpose"] = needed
    fake = judged(fake, document)
    body = {"name": "submission", "bind": {"[::]:587": True}, "protocol": "smtp"}
    answer = asked(fake, ("NetworkListener/set", {"create": {"a": body}}))
    assert answer["notCreated"]["a"]["validationErrors"] == [{"type": "Required", "property": "purpose"}]
    assert asked(fake, ("NetworkListener/set", {"create": {"a": body | {"purpose": "mail"}}}))["created"]
    first = asked(fake, ("NetworkListener/get", {"ids": None}))["list"][0]
    assert asked(fake, ("NetworkListener/set", {"update": {first["id"]: {"tlsImplicit": True}}}))["updated"]


def test_a_value_or_variant_that_is_gone_is_refused(fake: StalwartJmap, document: dict[str, Any]) -> None:
    values = document["enums"]["NetworkListenerProtocol"]
    values.remove({"name": "manageSieve"})
    variants = document["schemas"]["x:Account"]["variants"]
    variants[:] = [item for item in variants if item["name"] != "Group"]
    fake = judged(fake, document)
    (domain,) = asked(fake, ("Domain/set", {"create": {"a": {"name": "example.org"}}}))["created"].values()
    body = {"name": "own", "bind": {"[::]:4191": True}, "protocol": "manageSieve"}
    group = {"@type": "Group", "name": "all", "domainId": domain["id"]}
    listener, account = asked(
        fake, ("NetworkListener/set", {"create": {"a": body}}), ("Account/set", {"create": {"a": group}})
    )
    assert listener["notCreated"]["a"]["type"] == "invalidPatch"
    assert account["notCreated"]["a"]["type"] == "invalidPatch"


def test_a_changed_type_and_default_count(fake: StalwartJmap, document: dict[str, Any]) -> None:
    properties(document, "UserAccount")["quotas"]["type"] = {"type": "number", "format": "size"}
    document["fields"]["x:Domain"]["defaults"]["dkimManagement"] = {"@type": "Manual"}
    fake = judged(fake, document)
    (made,) = asked(fake, ("Domain/set", {"create": {"a": {"name": "example.org"}}}))["created"].values()
    user = {"@type": "User", "name": "a", "domainId": made["id"]}
    answer = asked(fake, ("Account/set", {"create": {"a": user | {"quotas": {"maxDiskQuota": 1}}}}))
    assert answer["notCreated"]["a"]["type"] == "invalidPatch"
    asked(fake, ("Account/set", {"create": {"a": user | {"quotas": 5}}}))
    domains, accounts = asked(fake, ("Domain/get", {"ids": None}), ("Account/get", {"ids": None}))
    assert domains["list"][0]["dkimManagement"] == {"@type": "Manual"}
    assert accounts["list"][0]["quotas"] == 5


def test_the_schema_is_small_enough_to_be_read_at_once() -> None:
    assert len(gzip.compress(json.dumps(schemas.document()).encode())) < 1 << 20
