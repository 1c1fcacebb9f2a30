"""JMAP calls: reading whole listings in few requests, the four levels of errors, and packing writes."""

import json
from dataclasses import replace

import pytest

from reconciler.problem import TargetUnreadable
from reconciler.resources import SecretRef
from reconciler.simulator.wire import Reply, Server
from reconciler.targets.stalwart.connection import Connection, Login, NotFound
from reconciler.targets.stalwart.jmap.api import (
    CALLS,
    OBJECTS,
    Bootstrapping,
    Failure,
    JmapApi,
    Rejected,
    Response,
    Selection,
)
from reconciler.targets.stalwart.jmap.batch import Write, run
from reconciler.targets.stalwart.release import JMAP
from reconciler.url import parse


class Registry:
    """A registry of bare objects with the real limits; ``change`` may spoil what it answers."""

    def __init__(self):
        self.kinds = {}
        self.requests = []
        self.change = lambda method, arguments: arguments
        self.made = 0

    def fill(self, kind, number):
        self.kinds[kind] = {f"{kind}{index}": {"id": f"{kind}{index}", "name": str(index)} for index in range(number)}

    def __call__(self, request):
        calls = request.json()["methodCalls"]
        self.requests.append(calls)
        if len(calls) > CALLS:
            return Reply.of({"type": "urn:ietf:params:jmap:error:limit", "limit": "maxCallsInRequest"}, 400)
        known = {}
        answers = [[*self.answer(method, arguments, known), tag] for method, arguments, tag in calls]
        return Reply.of({"methodResponses": answers})

    def answer(self, method, arguments, known):
        kind, _, verb = method.removeprefix("x:").partition("/")
        found = getattr(self, verb)(self.kinds.setdefault(kind, {}), arguments, known)
        return ("error", found) if "type" in found else (method, self.change(method, found))

    def get(self, items, arguments, _):
        ids = arguments["ids"]
        if ids is not None and len(ids) > OBJECTS:
            return {"type": "requestTooLarge"}
        wanted = list(items)[:OBJECTS] if ids is None else ids
        return {
            "list": [items[key] for key in wanted if key in items],
            "notFound": [key for key in wanted if key not in items],
        }

    def query(self, items, arguments, _):
        start = arguments["position"]
        return {"ids": list(items)[start : start + min(arguments["limit"], 5000)], "total": len(items)}

    def set(self, items, arguments, known):
        if sum(map(len, arguments.values())) > OBJECTS:
            return {"type": "requestTooLarge"}
        refs = {str(value) for body in arguments.get("create", {}).values() for value in body.values()}
        for ref in refs:
            if ref.startswith("#") and ref not in known:
                return {"type": "invalidResultReference", "description": f'reference "{ref}"'}
        created, refused = {}, {}
        for key, body in arguments.get("create", {}).items():
            if body.get("name") == "bad":
                refused[key] = {"type": "invalidPatch", "description": "Invalid name", "properties": ["name"]}
                continue
            self.made += 1
            created[key] = {"id": f"id{self.made}"}
            known[f"#{key}"] = f"id{self.made}"
            items[f"id{self.made}"] = {name: known.get(value, value) for name, value in body.items()}
        return {"created": created, "notCreated": refused, "updated": dict.fromkeys(arguments.get("update", {}))}


@pytest.fixture
def registry():
    return Registry()


@pytest.fixture
def api(registry):
    login = Login("admin", [SecretRef("env", "ADMIN")])
    with (
        Server(registry) as server,
        Connection(parse(server.url), login, lambda _: "secret", lambda _: None) as connection,
    ):
        yield JmapApi(connection)


def to(reply):
    """Return an API whose server always answers this."""
    login = Login("admin", [SecretRef("env", "ADMIN")])
    return Server(lambda _: reply), lambda url: Connection(parse(url), login, lambda _: "secret", lambda _: None)


# ----------------------------------------------------------------------------------------------------------- reading
def test_kinds_and_singletons_are_read_in_one_request(api, registry):
    registry.fill("Domain", 3)
    registry.fill("Account", 499)
    registry.kinds["Security"] = {"singleton": {"id": "singleton"}}
    found = api.read([Selection("Domain"), Selection("Account"), Selection("Security", singleton=True)])
    assert {name: len(items) for name, items in found.items()} == {"Domain": 3, "Account": 499, "Security": 1}
    assert len(registry.requests) == 1


@pytest.mark.parametrize(("number", "requests"), [(500, 1), (501, 2), (1000, 2), (7500, 3), (12001, 4)])
@pytest.mark.trap(6, "jmap")
def test_large_listings_are_read_whole(api, registry, number, requests):
    registry.fill("Account", number)
    registry.fill("Domain", 2)
    found = api.read([Selection("Domain"), Selection("Account")])
    assert len(found["Account"]) == number
    assert len({item["id"] for item in found["Account"]}) == number
    assert len(registry.requests) <= requests


def test_two_requests_read_any_usual_number_of_kinds(api, registry):
    kinds = [Selection(f"K{number}") for number in range(20)] + [
        Selection(f"S{number}", singleton=True) for number in range(12)
    ]
    for kind in kinds:
        registry.fill(kind.name, 10)
    found = api.read(kinds)
    assert len(registry.requests) == 2
    assert all(len(items) == 10 for name, items in found.items() if name.startswith("K"))


def test_a_kind_without_a_query_is_asked_for_one_when_it_is_full(api, registry):
    kinds = [Selection(f"K{number}") for number in range(40)]
    for kind in kinds:
        registry.fill(kind.name, 1)
    registry.fill("K39", 700)
    assert len(api.read(kinds)["K39"]) == 700


def test_a_listing_cut_short_is_no_listing(api, registry):
    registry.fill("Account", 10)
    registry.change = lambda method, found: found | {"list": found["list"][:4]} if method.endswith("/get") else found
    with pytest.raises(TargetUnreadable, match="lists 8 of 10 Account objects"):
        api.read([Selection("Account")])
    few = [f"Account{number}" for number in range(4)]
    registry.change = lambda method, found: found | {"ids": few} if method.endswith("/query") else found
    with pytest.raises(TargetUnreadable, match="of 10 Account objects"):
        api.read([Selection("Account")])


def test_what_goes_while_it_is_read_is_gone(api, registry):
    registry.fill("Account", 600)

    def goes(method, found):
        registry.kinds["Account"].pop("Account599", None)
        return found

    registry.change = goes
    assert len(api.read([Selection("Account")])["Account"]) == 599


def test_only_the_named_properties_are_asked_for(api, registry):
    api.read([Selection("Domain", properties=("name",))])
    ((_, arguments, _), _) = registry.requests[0]
    assert arguments == {"ids": None, "properties": ["name"]}


# ------------------------------------------------------------------------------------------------------------ errors
@pytest.mark.parametrize(
    ("reply", "error", "words"),
    [
        (Reply.of({"type": "urn:ietf:params:jmap:error:limit", "limit": "maxCallsInRequest"}, 400), Rejected, "limit"),
        (Reply.of({"type": "urn:ietf:params:jmap:error:notRequest", "detail": "hunter2"}, 400), Rejected, "notRequest"),
        (Reply.of({"detail": 'Unknown capability: "urn:stalwart:jmap"'}, 400), NotFound, "no management over JMAP"),
        (Reply.of({"title": "Not Found"}, 404), NotFound, "no management over JMAP"),
        (Reply.of({}, 403), TargetUnreadable, "does not let admin in"),
        (Reply.of({}, 401), TargetUnreadable, "refuses"),
        (Reply.of({}, 503), TargetUnreadable, "503"),
        (Reply(200, b"<html>", "text/html"), TargetUnreadable, "text/html that can't be understood"),
        (Reply.of({"methodResponses": "x"}), TargetUnreadable, "can't be understood"),
    ],
)
def test_a_request_that_fails_as_a_whole(reply, error, words):
    server, connect = to(reply)
    with server, connect(server.url) as connection, pytest.raises(error, match=words) as caught:
        JmapApi(connection).call(("x:Domain/get", {}))
    assert "hunter2" not in str(caught.value)


def test_bootstrap_mode_is_told_by_any_call():
    said = {"type": "forbidden", "description": "The server is in bootstrap mode. Only the 'Bootstrap' object type ..."}
    server, connect = to(Reply.of({"methodResponses": [["error", said, "0"]]}))
    with server, connect(server.url) as connection, pytest.raises(Bootstrapping, match="serves no mail"):
        JmapApi(connection).read([Selection("Domain")])


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ({"type": "forbidden"}, "does not let admin read Domain objects"),
        ({"type": "unknownMethod"}, "knows no Domain objects"),
        (
            {"type": "serverFail", "description": "broken"},
            "does not list Domain objects: the server answers serverFail: broken",
        ),
    ],
)
def test_a_call_that_fails_while_reading(error, words):
    server, connect = to(Reply.of({"methodResponses": [["error", error, "0"], ["error", error, "1"]]}))
    with server, connect(server.url) as connection, pytest.raises(TargetUnreadable, match=words):
        JmapApi(connection).read([Selection("Domain")])


@pytest.mark.trap(3, "jmap")
def test_an_object_fails_in_its_own_map_or_in_none():
    response = Response("x:Domain/set", {"created": {"a": {"id": "b"}}, "updated": {"c": None}, "destroyed": ["d"]})
    assert [response.failure(key) for key in "acd"] == [None, None, None]
    assert response.failure("e").type == "unanswered"
    response = Response("x:Domain/set", {"notCreated": {"a": {"type": "invalidPatch"}}})
    assert response.failure("a").type == "invalidPatch"
    response = Response("x:Domain/set", {"type": "forbidden"}, Failure("forbidden"))
    assert response.failure("a").type == "forbidden"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            {"type": "validationFailed", "validationErrors": [{"type": "Required", "property": "defaultDomainId"}]},
            "defaultDomainId: Required",
        ),
        (
            {
                "type": "validationFailed",
                "validationErrors": [{"type": "MinValue", "property": "count", "required": 1}],
            },
            "count: MinValue 1",
        ),
        (
            {"type": "invalidPatch", "description": "Invalid property", "properties": ["nonesuch"]},
            "of nonesuch: Invalid property",
        ),
        (
            {"type": "primaryKeyViolation", "properties": ["email"], "objectId": {"object": "Account", "id": "d"}},
            "another object with this email",
        ),
        (
            {
                "type": "objectIsLinked",
                "linkedObjects": [{"object": "Account", "id": "b"}, {"object": "Account", "id": "c"}],
            },
            "2 of Account",
        ),
        ({"type": "notFound"}, "does not have it any more"),
        ({"type": "invalidProperties", "description": "not $6$abc$def"}, "not shown"),
        (None, "did not say"),
    ],
)
def test_failures_have_words(error, words):
    assert words in Failure.of(error).words()


# ------------------------------------------------------------------------------------------------------------ writing
def never():
    return False


def test_writes_of_a_kind_share_calls_and_calls_share_a_request(api, registry):
    writes = [
        Write("Account", "create", f"a{number}", {"name": str(number), "domainId": "#d"}, place=2)
        for number in range(1001)
    ]
    writes.append(Write("Domain", "create", "d", {"name": "x"}, place=1))
    writes.append(Write("AllowedIp", "create", "i", {"address": "::1"}))
    done = list(run(api, writes, never))
    assert all(problem is None for _, problem, _ in done)
    (calls,) = registry.requests
    assert [name for name, _, _ in calls] == ["x:AllowedIp/set", "x:Domain/set", *["x:Account/set"] * 3]
    assert len({item["domainId"] for item in registry.kinds["Account"].values()}) == 1


def test_what_refers_to_different_things_does_not_fail_together(api, registry):
    writes = [Write("Domain", "create", name, {"name": name}) for name in ("bad", "good")]
    writes += [Write("Account", "create", f"a{name}", {"domainId": f"#{name}"}) for name in ("bad", "good")]
    found = {write.id: problem and problem.type for write, problem, _ in run(api, writes, never)}
    assert found == {"bad": "invalidPatch", "good": None, "abad": "invalidResultReference", "agood": None}
    assert len(registry.requests) == 1


def test_references_become_ids_in_later_requests(api, registry):
    domains = [
        Write("Domain", "create", f"d{number}", {"name": "bad" if number == 20 else "x"}) for number in range(21)
    ]
    accounts = [Write("Account", "create", f"a{number}", {"domainId": f"#d{number}"}) for number in range(21)]
    found = {write.id: problem for write, problem, _ in run(api, [*domains, *accounts], never)}
    assert len(registry.requests) == 2
    assert {key for key, problem in found.items() if problem} == {"d20", "a20"}
    assert all(item["domainId"].startswith("id") for item in registry.kinds["Account"].values())


def test_updates_of_one_object_are_one(api, registry):
    writes = [Write("Security", "update", "singleton", {"a": 1}), Write("Security", "update", "singleton", {"b": 2})]
    (done,) = run(api, writes, never)
    assert done[1] is None
    assert registry.requests == [[["x:Security/set", {"update": {"singleton": {"a": 1, "b": 2}}}, "0"]]]


def test_ranks_of_a_kind_do_not_share_a_call(api, registry):
    writes = [Write("Account", "update", "b", {"x": 1}, rank=2), Write("Account", "update", "a", {"x": None}, rank=1)]
    list(run(api, writes, never))
    (calls,) = registry.requests
    assert [list(arguments["update"]) for _, arguments, _ in calls] == [["a"], ["b"]]


@pytest.mark.trap(8, "jmap")
def test_a_large_request_is_cut(api, registry):
    writes = [Write("Account", "create", f"a{number}", {"description": "x" * (3 << 20)}) for number in range(4)]
    assert all(problem is None for _, problem, _ in run(api, writes, never))
    assert [len(json.dumps(calls)) < 9 << 20 for calls in registry.requests] == [True, True]


def test_a_stop_comes_between_requests(api, registry):
    writes = [Write(f"K{number}", "create", f"k{number}", {}) for number in range(20)]
    stops = iter([False, True])
    assert len(list(run(api, writes, lambda: next(stops)))) == CALLS
    assert len(registry.requests) == 1


# ----------------------------------------------------------------------------------------------------------- releases
def test_a_release_may_call_objects_and_properties_otherwise(api, registry):
    release = replace(JMAP, objects={"Domain": "MailDomain"}, properties={"Domain": {"aliases": "otherNames"}})
    renamed = JmapApi(api.connection, release)
    create = Write("Domain", "create", "d", {"name": "mana.how", "aliases": "mana.example"})
    ((_, failure, answer),) = run(renamed, [create], never)
    assert failure is None
    list(run(renamed, [Write("Domain", "update", answer["id"], {"aliases/0": None})], never))
    assert registry.kinds == {"MailDomain": {"id1": {"name": "mana.how", "otherNames": "mana.example"}}}
    assert registry.requests[-1][0][1] == {"update": {"id1": {"otherNames/0": None}}}
    registry.kinds["MailDomain"]["id1"] = {"id": "id1", "name": "mana.how", "otherNames": {"mana.example": True}}
    found = renamed.read([Selection("Domain", properties=("name", "aliases"))])
    assert found == {"Domain": [{"id": "id1", "name": "mana.how", "aliases": {"mana.example": True}}]}
    assert registry.requests[-1][0][1]["properties"] == ["name", "otherNames"]
