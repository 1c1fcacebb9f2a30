"""A 0.16 server in a container: listeners that open on its restart, and what a restart puts in force."""

import pytest

from reconciler.problem import Severity
from reconciler.resources import Listener, Setting
from reconciler.simulator.docker import Docker as Engine
from reconciler.simulator.stalwart.jmap.server import StalwartJmap as Fake
from reconciler.simulator.wire import Fault, Server
from reconciler.target import Action, Status

IMAGE = "stalwartlabs/stalwart:v0.16.18"
SUBMISSION = Listener("submission", ("[::]:587",), "smtp")


@pytest.fixture
def new_fake():
    with Fake(environment={"STALWART_RECOVERY_ADMIN": "admin:rec0very secret"}, open_ports=True) as fake:
        yield fake


@pytest.fixture
def engine():
    return Engine()


@pytest.fixture
def contained(newer, new_fake, engine):
    """Put the server into a container that publishes 587, and whose restart is the server's."""
    engine.add_image(IMAGE, Volumes={"/etc/stalwart": {}, "/var/lib/stalwart": {}})
    engine.on_restart = lambda name: new_fake.restart() if name == "mana-mail" else None
    published = {"587/tcp": ("127.0.0.1", new_fake.route(587))}
    engine.run("mana-mail", IMAGE, ports=published, env={"STALWART_RECOVERY_ADMIN": "admin:rec0very secret"})
    with Server(engine) as server:
        newer.connect(container="mana-mail", docker_host=server.url.replace("http://", "tcp://"))
        newer.starts = engine.named("mana-mail").started
        yield newer
        assert not server.crashes


def test_everything_is_in_force_after_one_restart(contained, newly_wanted, engine):
    outcomes = contained.apply(newly_wanted)
    assert {address: str(item.problem) for address, item in outcomes.items() if item.status is not Status.DONE} == {}
    assert not any(item.notes for item in outcomes.values())
    assert [text for text in contained.said if "restarting" in text] == ["restarting the container mana-mail"]
    assert contained.plan(newly_wanted).changes == ()
    found = {
        item.resource.name: item.resource
        for item in contained.observe(newly_wanted).live
        if "listeners" in item.resource.address
    }
    assert found["submission"].open is True


def test_a_restart_puts_in_force_what_a_reload_could_not(contained, newly_wanted):
    contained.fake.no_dns = True
    outcomes = contained.apply(newly_wanted)
    assert {item.status for item in outcomes.values()} == {Status.DONE}
    assert contained.fake.hostname == "mail.mana.how"


def test_a_listener_that_does_not_answer_is_a_restart_that_is_due(contained):
    contained.create("NetworkListener", name="submission", bind={"[::]:587": True}, protocol="smtp")
    (change,) = contained.plan([SUBMISSION]).changes
    assert change.actions == (Action.RESTART,)
    contained.requests()
    (outcome,) = contained.target.apply([change], contained.reveal)
    assert outcome.status is Status.DONE
    assert contained.requests() == []
    assert contained.plan([SUBMISSION]).changes == ()


def test_without_a_recovery_administrator_a_warning_says_what_to_add(newer, new_fake, engine):
    engine.add_image(IMAGE, Volumes={"/etc/stalwart": {}, "/var/lib/stalwart": {}})
    engine.run("mana-mail", IMAGE)
    with Server(engine) as server:
        newer.connect(container="mana-mail", docker_host=server.url.replace("http://", "tcp://"))
        found = [str(problem) for problem in newer.observe().problems]
    assert any("STALWART_RECOVERY_ADMIN" in text for text in found)


@pytest.mark.parametrize(("tag", "warned"), [("v0.16.27", False), ("v1.1.0", True), ("latest", False)])
def test_an_unknown_newer_release_is_read_as_the_newest_known_one_and_a_warning_names_both(
    newer, new_fake, engine, tag, warned
):
    image = f"stalwartlabs/stalwart:{tag}"
    engine.add_image(image, Volumes={"/etc/stalwart": {}, "/var/lib/stalwart": {}})
    engine.run("mana-mail", image)
    with Server(engine) as server:
        newer.connect(container="mana-mail", docker_host=server.url.replace("http://", "tcp://"))
        seen = newer.observe()
    assert seen.complete
    found = [item for item in seen.problems if "not known here" in item.summary]
    assert [("1.1" in item.summary, "0.16.18" in item.summary) for item in found] == [(True, True)] * warned
    assert all(item.severity is Severity.WARNING for item in found)


def test_a_server_that_does_not_come_back_is_told(contained, monkeypatch):
    monkeypatch.setattr("reconciler.targets.stalwart.work._COMES_BACK", 0.3)
    plan = contained.plan([SUBMISSION, Setting("auto_ban/scan", "off")])

    contained.server.faults.append(Fault(path="/healthz/live", times=999, refuse=True))
    outcomes = {item.change.address: item for item in contained.target.apply(plan.changes, contained.reveal)}
    assert outcomes["stalwart/listeners/submission"].status is Status.FAILED
    assert "after the restart" in outcomes["stalwart/listeners/submission"].problem.summary
    assert outcomes["stalwart/auto_ban/scan"].status is Status.DONE
