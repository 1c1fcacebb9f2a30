"""`reconciler doctor` tries the key that services share: against a real HTTP server in the place of mana-notify."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from reconciler.checks.check import Status
from reconciler.simulator.wire import Reply, Request, Server

from .test_doctor import BESIDE, Defect, World, bad, defect, running, told, world

__all__ = ["world"]
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
LINK = "      in: [mana-auth.MANA_SERVICE_KEY, mana-notify.SERVICE_KEY]\n"
CHECK = "      check: {service: mana-notify, port: 3013, path: /api/v1/templates, header: X-Service-Key}\n"


class Notify:
    """What mana-notify is over HTTP: it compares the key with the one that its process began with."""

    def __init__(self, key: str) -> None:
        self.key, self.asks, self.status = key, True, 200
        self.keys: list[str] = []

    def __call__(self, request: Request) -> Reply:
        assert request.method == "GET"
        given = request.headers.get("x-service-key", "")
        self.keys.append(given)
        if request.path != "/api/v1/templates":
            return Reply(404)
        if self.asks and given != self.key:
            return Reply(401, b'{"error":"unauthorized"}')
        return Reply(self.status, b"[]")


@pytest.fixture
def keyed(world: World) -> Iterator[tuple[World, Notify]]:
    world.stack.edit("smtp.yaml", LINK, LINK + CHECK)
    notify = Notify(world.notify.environment["SERVICE_KEY"])
    server = world.open.enter_context(Server(notify))
    world.routes["mana-notify:3013"] = int(server.url.rpartition(":")[2])
    yield world, notify
    assert not server.crashes


def test_no_false_alarm_where_the_key_is_taken(keyed: tuple[World, Notify]) -> None:
    world, notify = keyed
    found = world.examine()
    assert bad(found) == {}
    assert {name for name, item in found.items() if item.status is Status.UNKNOWN} == set()
    assert notify.keys == ["", world.auth.environment["MANA_SERVICE_KEY"]]
    assert notify.key not in str([str(item.verdict) for item in found.values()])


def does(change: Callable[[World, Notify], object], check: str, words: str) -> Defect:
    return defect(lambda pair: change(*pair), check, words)  # type: ignore[arg-type, misc]


DEFECTS = {
    "the process has an older key": does(
        lambda _, notify: setattr(notify, "key", "older"), "services/key-taken", "mana-auth (MANA_SERVICE_KEY): 401"
    ),
    "nobody asks for a key": does(
        lambda _, notify: setattr(notify, "asks", False), "services/key-taken", "without any key: 200"
    ),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_a_planted_defect_of_the_key_is_told_by_its_cause(keyed: tuple[World, Notify], name: str) -> None:
    planted = DEFECTS[name]
    planted.plant(keyed)  # type: ignore[arg-type]
    found = keyed[0].examine("services")
    assert set(bad(found)) == {planted.check}
    assert planted.words in told(found, planted.check)
    assert found[planted.check].remedy.text


def test_it_is_told_beside_two_others(keyed: tuple[World, Notify]) -> None:
    world, notify = keyed
    beside = [next(it for it in BESIDE.values() if it.check.startswith(room)) for room in ("dns/", "container/")]
    notify.key = "older"
    for item in beside:
        item.plant(world)
    found = world.examine()
    for check, words in (("services/key-taken", "401"), *((item.check, item.words) for item in beside)):
        assert check in bad(found)
        assert words in told(found, check)


def test_a_key_that_differs_is_tried_as_the_caller_has_it(keyed: tuple[World, Notify]) -> None:
    world, notify = keyed
    running("auth", "MANA_SERVICE_KEY", "another-key")(world)
    found = world.examine("services")
    assert {"services/key", "services/key-taken"} <= set(bad(found))
    assert notify.keys == ["", "another-key"]


@pytest.mark.parametrize(
    ("status", "words"), [(503, "it answers 503"), (404, "without a key, and not 401")], ids=["503", "404"]
)
def test_a_service_in_trouble_is_unknown(keyed: tuple[World, Notify], status: int, words: str) -> None:
    world, notify = keyed
    notify.status, notify.asks = status, status == 503
    item = world.examine("services")["services/key-taken"]
    assert item.status is Status.UNKNOWN
    assert words in item.verdict.summary


def test_no_key_is_sent_where_nobody_asks_for_one_and_none_twice_once_it_was_refused(
    keyed: tuple[World, Notify],
) -> None:
    from reconciler.desired.load import load
    from reconciler.doctor import services
    from reconciler.settings import Settings
    from reconciler.stack import Stack

    world, notify = keyed
    routes = f"mana-notify:3013=127.0.0.1:{world.routes['mana-notify:3013']}"
    environ = world.stack.environ()
    environ["RECONCILER_ROUTES"] += f" {routes}"
    settings = Settings.read(environ, world.stack.example.state, world.stack.data)
    stack: Any = Stack(load(settings.state), settings)
    notify.asks = False
    assert services.gather(stack).trials[0].bare == 200
    assert notify.keys == [""]
    notify.asks, notify.key = True, "older"
    first, second = (services.gather(stack).trials[0] for _ in range(2))
    assert (first.status, second.status) == (401, 401)
    assert "not sent again" in second.why
    assert [key for key in notify.keys if key] == [world.auth.environment["MANA_SERVICE_KEY"]]


def test_a_key_goes_to_containers_of_the_service_on_this_machine_alone(world: World) -> None:
    from reconciler.desired.load import load
    from reconciler.settings import Settings
    from reconciler.stack import Stack
    from reconciler.targets.compose.doors import Doors

    settings = Settings.read(world.stack.environ(), world.stack.example.state, world.stack.data)
    stack: Any = Stack(load(settings.state), settings)
    with stack.targets["compose"].standing({"mana-notify": set()}) as (snapshot, doors):
        (inside,) = [item.address for item in world.notify.endpoints.values()]
        assert doors.of_service("mana-notify", 3013) == [("127.0.0.1", 3013), (inside, 3013)]
        assert doors.of_service("elsewhere", 3013) == []
        assert doors.of_service("mana-notify", 22) == [(inside, 22)]
        assert Doors(snapshot, SimpleNamespace(remote=True), {}).of_service("mana-notify", 3013) == []  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("check", "words"),
    [
        ("{service: other, port: 1, path: /x, header: X}", "is no service of this link"),
        ("{service: mana-notify, port: 1, path: 'http://evil.example/x', header: X}", "is no path"),
        ("{service: mana-notify, port: 1, path: /x, header: 'X: y'}", "is no header's name"),
        ("{service: mana-notify, port: 0, path: /x, header: X}", "must be a port"),
    ],
)
def test_a_key_goes_to_the_services_of_its_link_alone(world: World, check: str, words: str) -> None:
    world.stack.edit("smtp.yaml", LINK, f"{LINK}      check: {check}\n")
    assert words in world.stack.expect(3, "validate").text
