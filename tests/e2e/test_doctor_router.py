"""`reconciler doctor` and the way in from the Internet: a router at TR-064's wire beside the whole stage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from reconciler.checks.check import Status
from reconciler.simulator.router import Mapping, Router
from reconciler.simulator.wire import Server

from .test_doctor import BESIDE, LINE, Defect, World, bad, defect, published, told, world

__all__ = ["world"]
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
HERE = "127.0.0.1"  # how the router sees the machine of the stage
PORTS = (25, 465, 587)
SESSION = (
    'INFO SMTP connection started (smtp.connection-start) listenerId = "smtp", localIp = 172.18.0.2, localPort = 25, '
    "remoteIp = {}, remotePort = 4711"
)


class Home(World):
    """The world of the other tests behind a router, which the directory declares."""

    router: Router

    def forward(self, port: int, **other: Any) -> None:
        """Change the forward of a port."""
        (item,) = [item for item in self.router.mappings if item.external == port]
        for name, value in other.items():
            setattr(item, name, value)


@pytest.fixture
def home(world: World) -> Iterator[Home]:
    found = Home(**{name: getattr(world, name) for name in World.__dataclass_fields__})
    doors = {int(name.partition("/")[0]): bindings for name, bindings in found.mail.host["PortBindings"].items()}
    mappings = [Mapping(port, int(doors[port][0]["HostPort"]), HERE) for port in PORTS]
    found.router = Router(wan=LINE, mappings=[*mappings, Mapping(8080, 80, "192.168.178.20")])
    server = found.open.enter_context(Server(found.router))
    address = server.url.removeprefix("http://")
    found.stack.write(
        "router.yaml",
        f"router:\n  address: {address}\n  forwards: [25, 465, 587]\n  username: {found.router.user}\n"
        "  password: {env: ROUTER_PASSWORD}\n",
    )
    found.env["ROUTER_PASSWORD"] = found.router.password
    found.log(SESSION.format("209.85.220.41"))
    yield found
    assert not server.crashes


def test_no_false_alarm_behind_a_router_that_forwards(home: Home) -> None:
    found = home.examine()
    assert bad(found) == {}
    assert {name for name, item in found.items() if item.status is Status.UNKNOWN} == set()
    assert home.router.refused == 0
    assert home.router.password not in str([str(item.verdict) for item in found.values()])


def forward(port: int, **other: Any) -> Callable[[Any], object]:
    return lambda home: home.forward(port, **other)


def gone(*ports: int) -> Callable[[Any], object]:
    def plant(home: Home) -> None:
        home.router.mappings = [item for item in home.router.mappings if item.external not in ports]

    return plant


def has(**other: Any) -> Callable[[Any], object]:
    return lambda home: [setattr(home.router, name, value) for name, value in other.items()]


def hidden(home: Home) -> None:
    home.mail.logs = b""
    for _ in range(6):
        home.log(SESSION.format("172.18.0.1"))


DEFECTS: dict[str, Defect] = {
    "no forward": defect(gone(25), "router/forwards", "does not lead port 25 to anybody"),
    "no forward at all": defect(gone(*PORTS), "router/forwards", "does not lead port 587 to anybody"),
    "to another machine": defect(
        forward(25, client="192.168.178.20"), "router/forwards", f"192.168.178.20, and the mail server runs on {HERE}"
    ),
    "by UDP": defect(forward(465, protocol="UDP"), "router/forwards", "by UDP alone"),
    "switched off": defect(forward(587, enabled=False), "router/forwards", "is switched off"),
    "to another port": defect(forward(25, internal=2526), "router/forwards", "leads it to port 2526"),
    "for one sender alone": defect(forward(25, remote="203.0.113.7"), "router/forwards", "lets 203.0.113.7 in alone"),
    "the container is published elsewhere": defect(
        published("25/tcp", HostPort="9925"), "router/forwards", "the mail server is at 9925"
    ),
    "a shared address": defect(has(wan="100.64.9.9"), "router/address", "CGNAT"),
    "a router behind a router": defect(has(wan="192.168.1.2"), "router/address", "another router stands between"),
    "no IPv4": defect(has(wan="0.0.0.0"), "router/address", "no IPv4 address on the Internet"),
    "another line": defect(has(wan="84.152.10.20"), "router/address", f"{LINE}, and the router has 84.152.10.20"),
    "a wrong password": defect(has(password="another"), "router/answers", "refuses the login"),
    "a user without rights": defect(has(user="somebody"), "router/answers", "refuses the login"),
    "Docker hides who comes": defect(hidden, "router/from-outside", "does not see who it talks to"),
}


@pytest.mark.few(of=lambda name: DEFECTS[name].check)
@pytest.mark.parametrize("name", DEFECTS)
def test_a_planted_defect_of_the_way_in_is_told_by_its_cause(home: Home, name: str) -> None:
    planted = DEFECTS[name]
    planted.plant(home)
    found = home.examine("router", "container")
    assert set(bad(found)) == {planted.check}
    assert planted.words in told(found, planted.check)
    assert found[planted.check].remedy.text


@pytest.mark.long
@pytest.mark.parametrize("name", DEFECTS)
def test_it_is_told_beside_two_others(home: Home, name: str) -> None:
    rooms = [[item for item in BESIDE if BESIDE[item].check.startswith(room)] for room in ("dns/", "services/")]
    beside = [BESIDE[names[list(DEFECTS).index(name) % len(names)]] for names in rooms]
    planted = [*reversed(beside), DEFECTS[name]]
    for item in planted:
        item.plant(home)
    found = home.examine()
    for item in planted:
        assert item.check in bad(found), item.check
        assert item.words in told(found, item.check)


def test_the_remedy_says_which_menu_and_which_ports(home: Home) -> None:
    gone(25, 587)(home)
    remedy = home.examine("router")["router/forwards"].remedy.text
    doors = {int(name.partition("/")[0]): int(it[0]["HostPort"]) for name, it in home.mail.host["PortBindings"].items()}
    assert "Internet > Permit Access > Port Sharing" in remedy
    assert f"hinzufügen), {HERE}, New Sharing" in remedy
    assert f"port to device {doors[25]}, external 25; port to device {doors[587]}, external 587" in remedy
    assert "external 465" not in remedy


def test_the_menu_of_another_make_is_not_known(home: Home) -> None:
    gone(25)(home)
    home.router.model = "Archer AX55"
    remedy = home.examine("router")["router/forwards"].remedy.text
    assert "Archer AX55" in remedy
    assert "Permit Access" not in remedy


@pytest.mark.parametrize("plant", [has(tr064=False, upnp=False), has(tr064=False)])
def test_a_router_that_does_not_tell_is_unknown_with_the_steps_to_look_by_hand(home: Home, plant: Any) -> None:
    plant(home)
    found = home.examine("router")
    assert bad(found) == {}
    assert found["router/forwards"].status is Status.UNKNOWN
    assert "external 25" in found["router/forwards"].remedy.text


def test_a_login_that_was_refused_is_not_sent_again(home: Home) -> None:
    home.router.password = "another"
    from reconciler.desired.load import load
    from reconciler.doctor import router as gathered
    from reconciler.settings import Settings
    from reconciler.stack import Stack

    environ = home.stack.environ(ROUTER_PASSWORD=home.env["ROUTER_PASSWORD"])
    settings = Settings.read(environ, home.stack.example.state, home.stack.data)
    stack = Stack(load(settings.state), settings)
    first, second = gathered.gather(stack), gathered.gather(stack)
    assert home.router.refused == 1
    assert "401" in first.refuses
    assert second.refuses == "it was refused before"


def test_nothing_is_proved_while_nobody_came(home: Home) -> None:
    home.mail.logs = b""
    found = home.examine("router")["router/from-outside"]
    assert found.status is Status.UNKNOWN
    assert "nc -vz mail.mana.how 25" in found.remedy.text


def test_the_plans_head_names_the_router_among_those_who_get_secrets(home: Home) -> None:
    said = home.stack.expect(0, "plan", ROUTER_PASSWORD="x-router-password").out
    assert "{env: ROUTER_PASSWORD}" in said
    assert "x-router-password" not in said
