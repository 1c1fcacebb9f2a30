"""A 0.16 server from nothing: found, set up once, restarted, and lost again, over real HTTP against the fakes."""

import base64
import contextlib
import io
import json
import socket
import ssl
import stat
import tarfile
import threading

import passlib.hash
import pytest

from reconciler.desired import objects
from reconciler.desired.load import load
from reconciler.plan import Desired, diff
from reconciler.problem import Severity, TargetUnreadable
from reconciler.reconcile import apply, make_plan
from reconciler.refusals import Refusals
from reconciler.resources import Account, Domain, Listener, SecretRef, Setting
from reconciler.settings import Settings
from reconciler.simulator.docker import Docker as Engine
from reconciler.simulator.stalwart.jmap.server import StalwartJmap
from reconciler.simulator.wire import Fault, Reply, Server
from reconciler.stack import Stack
from reconciler.target import Status
from reconciler.targets.stalwart import ADMINISTRATOR, Setup
from reconciler.targets.stalwart.connection import Connection, Login
from reconciler.targets.stalwart.container import CONFIG, DATA, Container, Docker, Mount, causes, unrecoverable
from reconciler.url import parse

from ..conftest import World  # noqa: TID252 (the fixtures of the folder above)
from .changed import NEEDED, document

PROBE = "/.well-known/oauth-protected-resource"
IMAGE = "stalwartlabs/stalwart:v0.16.18"
BOUND = ("stalwart_etc:/etc/stalwart", "stalwart_data:/var/lib/stalwart")
RECOVERY = "r3covery-passw0rd"
HASH = passlib.hash.sha512_crypt.using(rounds=1000).hash("x")


def ref(name):
    return SecretRef("env", name)


@pytest.fixture
def wanted():
    """What a small stack declares: an administrator without an address, a sender, and what is in force on both."""
    return [
        Domain("mana.how"),
        Account("admin", "admin", "admin@mana.how", None, ("admin",), password=ref("ADMIN")),
        Account("noreply@mana.how", "noreply", "noreply@mana.how", None, ("user",), password=ref("NOREPLY")),
        Setting("hostname", "mail.mana.how"),
        Setting("default_domain", "mana.how"),
    ]


class Machine:
    """A 0.16 server in a container of a fake engine: what a restart of the one does to the other."""

    def __init__(self, tmp_path, *, recovery=True, configured=False):
        environment = {"STALWART_RECOVERY_ADMIN": f"admin:{RECOVERY}"} if recovery else {}
        self.fake = StalwartJmap(environment=environment, configured=configured)
        self.server = Server(self.fake)
        self.data = False  # whether there are files of a data store
        self.engine = Engine()
        self.engine.files = self._file
        self.engine.on_restart = self._restarted
        self.docker = Server(self.engine)
        secrets = {"ADMIN": "adm1n-passw0rd", "NOREPLY": "n0reply secret", "RECOVERY": f"admin:{RECOVERY}"}
        self.kept = tmp_path / "data" / "stalwart-administrator-mana.json"
        self.hidden = {}
        options = {
            "recovery": ref("RECOVERY") if recovery else None,
            "container": "mana-mail",
            "docker_host": self.docker.url.replace("http://", "tcp://"),
            "setup": Setup("mail.mana.how", "mana.how"),
            "kept": self.kept,
            "hide": lambda source, value: self.hidden.update({value: source}),
        }
        self.world = World(self.fake, self.server, secrets, options)
        self.engine.add_image(IMAGE, Volumes={"/etc/stalwart": {}, "/var/lib/stalwart": {}})
        labels = {"com.docker.compose.service": "stalwart"}
        self.container = self.engine.run("mana-mail", IMAGE, env=environment, labels=labels, binds=BOUND)
        self.container.logs = self.fake.printed.encode()

    def _file(self, _, path):
        if path == CONFIG:
            return json.dumps(self.fake.config).encode() if self.fake.config else None
        return b"SST" if path == DATA and self.data else None

    def _restarted(self, _):
        self.fake.restart()
        self.container.logs += self.fake.printed.encode()

    def sets(self):
        """Count how often the server was set up."""
        return sum(b"x:Bootstrap/set" in item.body for item in self.server.requests)

    def logins(self):
        """List the requests with credentials and how many different ones there were."""
        return [item.headers["authorization"] for item in self.server.requests if "authorization" in item.headers]

    def domains(self):
        return [item["name"] for _, item in self.fake.store.all("Domain")]

    def __enter__(self):
        self.server.start()
        self.docker.start()
        return self

    def __exit__(self, *_):
        self.server.stop()
        self.docker.stop()
        self.fake.close()
        assert not self.server.crashes
        assert not self.docker.crashes


@pytest.fixture
def machine(tmp_path):
    with Machine(tmp_path) as machine:
        yield machine


@pytest.fixture
def bare(tmp_path):
    """A server without a recovery administrator: its one-time password is in the container's log."""
    with Machine(tmp_path, recovery=False) as machine:
        yield machine


def only(observation):
    (problem,) = observation.problems
    return problem


def notice(observation):
    """The warning about bootstrap mode."""
    return next(item for item in observation.problems if "bootstrap mode" in item.summary)


# ---------------------------------------------------------------------------------------------------------- the plan
@pytest.mark.trap(38, "jmap")
def test_bootstrap_mode_is_told_though_the_container_is_healthy(machine, wanted):
    assert machine.world.call("GET", "/healthz/live")["status"] == 200
    machine.server.forget()
    observation = machine.world.observe(wanted)
    assert observation.lost
    assert observation.complete
    assert observation.generation == "jmap"
    where = f"Stalwart at {machine.server.url}"
    assert observation.head == (f"{where}: 0.16 or later (JMAP), in bootstrap mode: it serves no mail",)
    problem = only(observation)
    assert problem.severity is Severity.WARNING
    assert "counts as healthy" in problem.summary
    expected = "apply sets it up as mail.mana.how for mana.how, restarts the container mana-mail and makes the rest"
    assert problem.hint == expected
    assert [item.path for item in machine.server.requests] == [PROBE, "/jmap", "/api/schema"]
    assert machine.sets() == 0


def test_the_plan_says_which_name_is_taken_where_none_is_declared(machine, wanted):
    machine.world.connect(setup=Setup("", "mana.how"))
    hint = notice(machine.world.observe(wanted)).hint
    assert "as mail.mana.how (stalwart.hostname is not declared) for mana.how" in hint


def test_without_a_domain_nothing_is_planned(machine):
    machine.world.connect(setup=Setup("mail.mana.how", ""))
    observation = machine.world.observe()
    assert observation.unread == {"stalwart"}
    assert "default_domain: example.com" in only(observation).hint


def test_a_declared_generation_refuses_a_server_that_moved(machine, wanted):
    machine.world.connect(generation="rest")
    machine.server.forget()
    observation = machine.world.observe(wanted)
    assert observation.unread == {"stalwart"}
    assert "in bootstrap or recovery mode: it serves no mail, but targets.stalwart.generation is rest" in str(
        only(observation)
    )
    assert len(machine.server.requests) == 1


def test_recovery_mode_is_told_and_does_not_hide_what_is_there(machine, wanted):
    machine.fake.environment["STALWART_RECOVERY_MODE"] = "1"
    machine.fake.wipe_data()
    observation = machine.world.observe(wanted)
    assert observation.complete
    assert "is in recovery mode" in observation.problems[0].summary
    assert "STALWART_RECOVERY_MODE" in observation.problems[0].hint


def other(machine, change):
    """Let another release be the one in bootstrap mode."""
    changed = document()
    change(changed)
    machine.fake.schema = changed
    machine.fake.restart()


def test_a_release_that_the_directory_does_not_allow_is_never_set_up(machine, wanted):
    """Nobody gets an empty server back: what was mounted for the other line is not made for this one."""
    other(machine, lambda it: it["objects"].update({"x:OAuthGrant": {"type": "object"}}))
    machine.world.connect(release="0.16")
    seen = machine.world.observe(wanted)
    assert seen.unread == {"stalwart"}
    assert "is of release 1, but targets.stalwart.release is 0.16" in str(only(seen))
    machine.world.connect(release="1")
    assert machine.world.observe(wanted).complete
    machine.world.connect(release="0.16")
    changes = diff(Desired(tuple(wanted)), {"stalwart": machine.world.observe(wanted)}, stack="mana").changes
    with pytest.raises(TargetUnreadable, match=r"but targets\.stalwart\.release is 0\.16"):
        list(machine.world.target.apply(changes, machine.world.reveal))
    assert machine.sets() == 0


def test_what_a_release_does_not_have_is_told_before_it_is_set_up(machine, wanted):
    other(machine, lambda it: it["fields"]["x:UserAccount"]["properties"].pop("quotas"))
    wanted[2] = Account("noreply@mana.how", "noreply", "noreply@mana.how", None, ("user",), quota=1 << 30)
    plan = machine.world.plan(wanted)
    told = {item.scope: item.summary for item in plan.problems if item.severity is Severity.ERROR}
    assert told.keys() == {"account/noreply@mana.how"}
    assert "has no property quotas of Account" in told["account/noreply@mana.how"]
    assert sorted(item.address for item in plan.changes) == sorted(
        item.address for item in wanted if item.address not in told
    )
    assert [it.problem for it in machine.world.target.apply(plan.changes, machine.world.reveal) if it.problem] == []
    again = machine.world.plan(wanted)
    assert not again.changes
    assert {item.scope for item in again.problems if item.severity is Severity.ERROR} == told.keys()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda it: it["properties"].pop("generateDkimKeys"), "has no property generateDkimKeys of Bootstrap"),
        (lambda it: it["properties"].update({"purpose": NEEDED}), "needs purpose of Bootstrap"),
    ],
)
def test_a_release_that_is_set_up_otherwise_is_not_set_up(machine, wanted, change, why):
    other(machine, lambda it: change(it["fields"]["x:Bootstrap"]))
    seen = machine.world.observe(wanted)
    assert seen.unread == {"stalwart"}
    assert f"can't be set up: this release of Stalwart {why}" in only(seen).summary
    assert "v0.16.18" in only(seen).hint
    assert machine.sets() == 0


def test_what_another_release_took_since_the_plan_is_not_sent(machine, wanted):
    changes = machine.world.plan(wanted).changes
    other(machine, lambda it: it["fields"]["x:Bootstrap"]["properties"].pop("generateDkimKeys"))
    with pytest.raises(TargetUnreadable, match="has no property generateDkimKeys of Bootstrap"):
        list(machine.world.target.apply(changes, machine.world.reveal))
    assert machine.sets() == 0
    assert machine.fake.config is None
    assert not machine.kept.exists()


# ---------------------------------------------------------------------------------------------------------- the way out
def test_a_server_without_anything_becomes_what_is_wanted(machine, wanted):
    outcomes = machine.world.apply(wanted)
    assert {item.status for item in outcomes.values()} == {Status.DONE}
    assert machine.sets() == 1
    assert (machine.fake.config["@type"], machine.fake.config["path"]) == ("RocksDb", "/var/lib/stalwart/")
    assert machine.domains() == ["mana.how"]
    assert machine.fake.hostname == "mail.mana.how"
    assert machine.world.plan(wanted).changes == ()
    (domain,) = machine.fake.store.all("Domain")
    assert domain[1]["dkimManagement"] == {"@type": "Manual"}


@pytest.mark.trap(34, "both")
def test_no_login_is_refused_on_the_way(machine, wanted):
    answered = []
    machine.server.fake = lambda request: answered.append(machine.fake(request)) or answered[-1]
    machine.world.apply(wanted)
    machine.world.plan(wanted)
    assert [item.status for item in answered if item.status == 401] == []


def test_the_administrator_is_on_the_disk_before_the_restart_and_gone_after_the_login(machine, wanted):
    found = {}

    def restart(name):
        found.update(json.loads(machine.kept.read_bytes()))
        assert stat.S_IMODE(machine.kept.stat().st_mode) == 0o600
        machine._restarted(name)

    machine.engine.on_restart = restart
    machine.world.apply(wanted)
    assert found["username"] == "admin@mana.how"
    assert len(found["secret"]) == 16
    assert machine.hidden[found["secret"]] is not None
    assert machine.world.observe(wanted).complete
    assert not machine.kept.exists()
    assert machine.world.target._login.accepted.source == "declared"


def test_the_administrator_stays_while_the_declared_one_does_not_get_in(machine, wanted):
    machine.world.apply([item for item in wanted if item.address != "account/admin"])
    machine.world.observe(wanted)
    saved = json.loads(machine.kept.read_bytes())
    machine.world.connect(recovery=None)  # another process, to which nobody says more than the file
    assert machine.world.observe(wanted).complete
    assert machine.world.target._login.accepted.source == "saved"
    assert json.loads(machine.kept.read_bytes()) == saved
    machine.world.apply(wanted)
    machine.world.observe(wanted)
    assert not machine.kept.exists()


def test_no_secret_of_the_server_is_shown(machine, wanted):
    machine.engine.on_restart = lambda _: None  # it never comes out of bootstrap mode
    plan = machine.world.plan(wanted)
    with pytest.raises(Exception, match="again after its restart") as raised:
        list(machine.world.target.apply(plan.changes, machine.world.reveal))
    secret = json.loads(machine.kept.read_bytes())["secret"]
    login = machine.world.target._login
    text = repr(raised.value) + repr(plan) + "".join(machine.world.said) + repr(login)
    for value in (secret, RECOVERY, "adm1n"):
        assert value not in text


def test_the_one_time_password_comes_from_the_log(bare, wanted):
    bare.container.logs = b"   username: admin\n   password: ofAnEarlierStart\n" + bare.container.logs
    outcomes = bare.world.apply(wanted)
    assert {item.status for item in outcomes.values()} == {Status.DONE}
    assert bare.world.plan(wanted).changes == ()
    assert any(source.source == "log" for source in bare.hidden.values())


def test_where_nobody_gets_in_the_text_to_add_is_shown(bare, wanted):
    bare.container.logs = b""
    observation = bare.world.observe(wanted)
    assert observation.unread == {"stalwart"}
    hint = only(observation).hint
    assert "`STALWART_RECOVERY_ADMIN: ${STALWART_RECOVERY_ADMIN}` under `environment:`" in hint
    assert "recovery: {env: STALWART_RECOVERY_ADMIN}" in hint


def test_an_unreadable_recovery_matters_only_where_it_is_needed(machine, wanted):
    del machine.world.secrets["RECOVERY"]
    assert "RECOVERY" in str(only(machine.world.observe(wanted)))
    machine.world.secrets["RECOVERY"] = f"admin:{RECOVERY}"
    machine.world.apply(wanted)
    del machine.world.secrets["RECOVERY"]
    machine.world.connect()
    assert machine.world.observe(wanted).complete


@pytest.mark.parametrize(
    ("password", "why"), [("_clear", "looks like a hash to the server and is none"), (HASH, "is a hash")]
)
def test_a_recovery_password_that_nobody_logs_in_with_is_told_and_not_tried(machine, wanted, password, why):
    machine.world.apply(wanted)
    machine.fake.wipe_data()
    machine.world.secrets["RECOVERY"] = f"admin:{password}"
    machine.world.connect()
    before = len(machine.logins())
    problem = only(machine.world.observe(wanted))
    assert f"{{env: RECOVERY}} could not be tried: its password {why}" in problem.summary
    assert password not in str(problem)
    tried = [base64.b64decode(item.split()[1]).decode() for item in machine.logins()[before:]]
    assert {item.partition(":")[0] for item in tried} == {"admin@mana.how"}


def test_a_marked_clear_recovery_password_is_what_it_marks(machine, wanted):
    machine.fake.environment["STALWART_RECOVERY_ADMIN"] = "admin:{Plain}_clear"
    machine.fake.restart()
    machine.world.secrets["RECOVERY"] = "admin:{Plain}_clear"
    machine.world.connect()
    machine.world.apply(wanted)
    assert machine.world.observe(wanted).complete


def test_a_refused_setup_is_told_and_noted_nowhere(machine, wanted):
    machine.world.connect(setup=Setup("not_a_host", "mana.how"))
    plan = machine.world.plan(wanted)
    with pytest.raises(Exception, match="Invalid server hostname") as raised:
        list(machine.world.target.apply(plan.changes, machine.world.reveal))
    assert "stalwart.hostname" in raised.value.problems[0].hint
    assert not machine.kept.exists()
    assert machine.fake.config is None


def test_without_a_place_to_keep_the_administrator_nothing_is_sent(machine, wanted):
    machine.kept.parent.write_text("in the way")
    plan = machine.world.plan(wanted)
    with pytest.raises(Exception, match="can't be kept there") as raised:
        list(machine.world.target.apply(plan.changes, machine.world.reveal))
    assert "--data" in raised.value.problems[0].hint
    assert machine.sets() == 0


def test_a_container_of_another_name_is_told_with_the_way_by_hand(machine, wanted):
    machine.world.connect(container="mana-mial")
    first, second = machine.world.observe(wanted).problems
    assert "run `docker restart mana-mial`" in first.hint
    assert "correct targets.stalwart.container" in second.hint


def test_a_container_that_is_not_the_servers_is_never_restarted(machine, wanted):
    machine.engine.add_image("postgres:17")
    database = machine.engine.run("mana-db", "postgres:17")
    machine.engine.files = lambda item, path: machine._file(item, path) if item.name == "mana-mail" else None
    machine.world.connect(container="mana-db")
    plan = machine.world.plan(wanted)
    started = database.started
    with pytest.raises(Exception, match=f"the container mana-db has no {CONFIG}") as raised:
        list(machine.world.target.apply(plan.changes, machine.world.reveal))
    assert "is targets.stalwart.container the one behind the url?" in raised.value.problems[0].hint
    assert database.started == started
    machine.world.connect(container="mana-mail")
    assert {item.status for item in machine.world.apply(wanted).values()} == {Status.DONE}
    assert machine.sets() == 1


def test_a_config_that_can_not_be_written_is_to_be_mounted(machine, wanted):
    detail = "Failed to save data store settings: Read-only file system (os error 30)"
    failed = {"type": "invalidProperties", "properties": ["dataStore"], "description": detail}
    answered = [["x:Bootstrap/set", {"notUpdated": {"singleton": failed}}, "0"]]
    plan = machine.world.plan(wanted)
    machine.server.faults.append(Fault("POST", "/jmap", reply=Reply.of({"methodResponses": answered})))
    with pytest.raises(Exception, match="Read-only file system") as raised:
        list(machine.world.target.apply(plan.changes, machine.world.reveal))
    assert f"`- ./stalwart-config.json:{CONFIG}`" in raised.value.problems[0].hint
    assert not machine.kept.exists()


# ---------------------------------------------------------------------------------------------------------- never twice
@pytest.mark.trap(5, "both")
def test_a_lost_answer_is_never_asked_for_again(machine, wanted):
    plan = machine.world.plan(wanted)
    machine.server.faults.append(Fault("POST", "/jmap", lose=True))
    outcomes = list(machine.world.target.apply(plan.changes, machine.world.reveal))
    assert {item.status for item in outcomes} == {Status.DONE}
    assert machine.sets() == 1
    assert len(machine.fake.store.all("Tracer")) == 1
    assert machine.world.plan(wanted).changes == ()
    assert not machine.kept.exists()


@pytest.mark.parametrize("status", [502, 504])
def test_what_a_proxy_answers_instead_tells_nothing_of_the_setup(machine, wanted, status):
    machine.world.options["docker_host"] = "tcp://127.0.0.1:9"  # nobody can look into the container
    machine.world.connect()
    plan = machine.world.plan(wanted)

    def carried(request):
        answer = machine.fake(request)
        return Reply(status, b"<html>", "text/html") if b"x:Bootstrap/set" in request.body else answer

    machine.server.fake = carried
    list(machine.world.target.apply(plan.changes, machine.world.reveal))
    machine.world.connect()
    assert {item.status for item in machine.world.apply(wanted).values()} == {Status.SKIPPED}
    assert machine.sets() == 1
    assert machine.fake.config is not None


def test_a_request_that_never_arrived_is_told_and_nothing_restarted(machine, wanted):
    plan = machine.world.plan(wanted)
    machine.server.faults.append(Fault("POST", "/jmap", refuse=True))
    started = machine.container.started
    with pytest.raises(Exception, match=f"has no {CONFIG} afterwards"):
        list(machine.world.target.apply(plan.changes, machine.world.reveal))
    assert machine.container.started == started
    assert machine.world.apply(wanted)
    assert machine.world.plan(wanted).changes == ()


def test_where_it_can_not_be_restarted_apply_says_what_to_run_and_goes_on_later(machine, wanted):
    machine.world.options["docker_host"] = "tcp://127.0.0.1:9"
    machine.world.connect()
    hint = notice(machine.world.observe(wanted)).hint
    assert "then run `docker restart mana-mail`, then `reconciler apply` again" in hint
    outcomes = machine.world.apply(wanted)
    assert {item.status for item in outcomes.values()} == {Status.SKIPPED}
    problem = outcomes["domain/mana.how"].problem
    assert problem.where == "domain/mana.how"
    assert "run `docker restart mana-mail`, then `reconciler apply` again" in problem.hint
    machine.world.connect()
    problem = notice(machine.world.observe(wanted))
    assert "its restart is due" in problem.summary
    assert f"where it has been restarted since, it is not set up: remove {machine.kept}" in problem.hint
    assert {item.status for item in machine.world.apply(wanted).values()} == {Status.SKIPPED}
    assert machine.sets() == 1
    machine.fake.restart()
    machine.world.connect()
    assert {item.status for item in machine.world.apply(wanted).values()} == {Status.DONE}
    assert machine.world.plan(wanted).changes == ()


def test_a_server_that_only_waits_for_its_restart_is_not_set_up_again(machine, wanted):
    machine.world.connect(docker_host="tcp://127.0.0.1:9")
    machine.world.apply(wanted)
    machine.world.options |= {"kept": machine.kept.with_name("lost.json")}  # the data directory is gone
    machine.world.connect()
    observation = machine.world.observe(wanted)
    assert notice(observation).hint == "apply restarts the container mana-mail and makes the rest"
    assert {item.status for item in machine.world.apply(wanted).values()} == {Status.DONE}
    assert machine.sets() == 1


# ---------------------------------------------------------------------------------------------------- a full store
@pytest.mark.trap(39, "jmap")
def test_a_populated_store_without_config_is_never_set_up(machine, wanted):
    machine.world.apply(wanted)
    machine.fake.lose_config()
    machine.data = True
    observation = machine.world.observe(wanted)
    assert (observation.lost, observation.unread) == (False, {"stalwart"})
    problem = only(observation)
    assert problem.severity is Severity.ERROR
    assert '`{"@type":"RocksDb","path":"/var/lib/stalwart/"}`' in problem.hint
    assert f"`- ./stalwart-config.json:{CONFIG}`" in problem.hint
    assert machine.sets() == 1
    machine.fake.restore_config()
    assert machine.world.plan(wanted).changes == ()


@pytest.mark.trap(39, "jmap")
def test_a_store_that_only_the_server_knows_to_be_populated_is_refused_by_it(machine, wanted):
    machine.world.apply(wanted)
    machine.world.observe(wanted)
    machine.fake.lose_config()
    machine.world.connect()
    before = machine.domains()
    plan = machine.world.plan(wanted)
    with pytest.raises(Exception, match="it is not set up anew") as raised:
        list(machine.world.target.apply(plan.changes, machine.world.reveal))
    assert CONFIG in raised.value.problems[0].summary
    assert machine.domains() == before
    assert not machine.kept.exists()


def test_an_older_versions_data_wants_a_new_volume(machine, wanted):
    machine.engine.files = lambda _, path: b"x" if path in (DATA, f"{DATA}/etc/config.toml") else None
    problem = only(machine.world.observe(wanted))
    assert "before 0.16" in problem.summary
    assert f"mount a new volume at {DATA}" in problem.hint


@pytest.mark.trap(42, "both")
def test_a_server_that_fell_back_since_it_was_planned_is_told(machine, wanted):
    machine.world.apply(wanted)
    gone = [item for item in wanted if item.address != "account/noreply@mana.how"]
    plan = diff(
        Desired(tuple(gone), removed=frozenset({"account/noreply@mana.how"})),
        {"stalwart": machine.world.observe(gone)},
        stack="mana",
    )
    assert [change.deletes for change in plan.changes] == [True]
    machine.fake.lose_config()
    with pytest.raises(TargetUnreadable, match="is in bootstrap mode"):
        list(machine.world.target.apply(plan.changes, machine.world.reveal))


def test_a_path_in_the_url_is_suspected_before_the_version(machine, wanted):
    machine.world.connect(url=f"{machine.server.url}/jmap", generation="jmap")
    assert "take /jmap out of the url" in only(machine.world.observe(wanted)).hint


# ---------------------------------------------------------------------------------------------------- an empty store
@pytest.mark.trap(37, "both")
@pytest.mark.trap(38, "jmap")
@pytest.mark.trap(40, "both")
def test_an_emptied_store_is_restored_through_the_recovery_administrator(machine, wanted):
    machine.world.apply(wanted)
    machine.world.observe(wanted)
    machine.fake.wipe_data()
    machine.world.connect()
    machine.server.forget()
    observation = machine.world.observe(wanted)
    assert observation.lost
    assert machine.world.target._login.accepted.source == "recovery"
    assert len(set(machine.logins())) == 2  # the declared one, once, and recovery
    outcomes = machine.world.apply(wanted)
    assert {item.status for item in outcomes.values()} == {Status.DONE}
    again = machine.world.plan(wanted)
    assert (again.changes, again.errors) == ((), ())
    machine.world.connect(recovery=None)  # the reconciler's own administrator is there again
    assert machine.world.observe(wanted).complete


def test_a_loss_shows_its_cause_in_the_mounts(machine, wanted):
    machine.container.mounts = [item for item in machine.container.mounts if item["Destination"] != DATA]
    machine.fake.wipe_data()
    observation = machine.world.observe(wanted)
    assert observation.lost
    assert any(f"keeps data in {DATA}, and no named volume is mounted there" in str(item) for item in observation.cause)


def test_a_container_without_a_recovery_administrator_is_named_before_it_is_needed(bare, wanted):
    bare.world.apply(wanted)
    problem = next(item for item in bare.world.observe(wanted).problems if "STALWART_RECOVERY_ADMIN" in item.summary)
    assert problem.where == "container mana-mail"
    assert problem.severity is Severity.WARNING
    assert "under `environment:` of the service stalwart" in problem.hint


@pytest.mark.trap(10, "both")
def test_the_declared_administrator_logs_in_by_address(machine, wanted):
    """The recovery administrator shadows its bare name, and is no account of the directory."""
    machine.world.apply(wanted)
    machine.world.connect()
    observation = machine.world.observe(wanted)
    assert observation.complete
    assert machine.world.target._login.accepted.username == "admin@mana.how"
    names = {item.resource.address for item in observation.live if isinstance(item.resource, Account)}
    assert names == {"account/admin", "account/noreply@mana.how"}


# ---------------------------------------------------------------------------------------------------------- silence
@pytest.mark.trap(35, "both")
@pytest.mark.parametrize(
    ("generation", "words"),
    [("rest", ("server.blocked-ip",)), ("jmap", ("x:BlockedIp",)), (None, ("server.blocked-ip", "x:BlockedIp"))],
)
def test_silence_may_be_a_ban_and_how_it_goes_depends_on_the_generation(machine, generation, words):
    machine.world.connect(generation=generation)
    machine.server.faults.append(Fault(times=99, refuse=True))
    problem = only(machine.world.observe())
    assert "perhaps this address is banned" in problem.summary
    for word in ("server.blocked-ip", "x:BlockedIp"):
        assert (word in problem.hint) is (word in words)


class Closing:
    """A server that lets everybody connect, and closes before it says a word."""

    def __init__(self):
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self._serve).start()

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                self.socket.accept()[0].close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_silence_may_be_a_ban_before_tls_too(machine, scheme):
    with Closing() as closing:
        machine.world.connect(url=f"{scheme}://127.0.0.1:{closing.port}")
        problem = only(machine.world.observe())
    assert "perhaps this address is banned" in problem.summary


@pytest.mark.parametrize("url", ["http://[::1", "mail.mana.how", "http://:8080", "http://mail:x"])
def test_an_environment_that_names_no_url_is_told(machine, url):
    machine.world.connect(url=url)
    assert "is no URL" in only(machine.world.observe()).summary


def test_a_scheme_in_capitals_checks_the_certificate_too(machine):
    """Whoever answers must not be told a password; a context that checks nothing would let him."""
    with Connection(parse("HTTPS://mail.mana.how"), Login("admin", ()), str, str) as connection:
        assert connection._client._transport._pool._ssl_context.verify_mode is ssl.CERT_REQUIRED


def test_a_proxy_without_the_path_is_no_older_server(machine, wanted):
    def hiding(request):
        return Reply(404, b"<html>", "text/html") if request.path == PROBE else machine.fake(request)

    machine.fake.environment["STALWART_RECOVERY_ADMIN"] = "admin:pw"
    machine.world.apply(wanted)
    with Server(hiding) as proxy:
        machine.world.connect(url=proxy.url)
        assert "write `generation: rest` (up to 0.15) or jmap" in only(machine.world.observe(wanted)).hint
        assert not any("authorization" in item.headers for item in proxy.requests)
        machine.world.connect(url=proxy.url, generation="jmap")
        assert machine.world.observe(wanted).complete


def test_a_refused_recovery_administrator_is_told_with_where_to_look(machine, wanted):
    machine.world.apply(wanted)
    machine.fake.wipe_data()
    machine.world.secrets["RECOVERY"] = "admin:an0ther one"
    machine.world.connect()
    problem = only(machine.world.observe(wanted))
    assert "refuses the password of admin@mana.how and that of the recovery administrator" in problem.summary
    assert "{env: RECOVERY} and STALWART_RECOVERY_ADMIN of the container hold the same" in problem.hint
    assert "recreate the container" in problem.hint
    machine.world.secrets["RECOVERY"] = f"admin:{RECOVERY}"
    machine.world.connect()
    assert machine.world.observe(wanted).complete


def test_which_generation_it_is_is_asked_once_and_again_where_something_is_not_as_expected(machine, wanted):
    machine.world.apply(wanted)
    assert machine.world.observe(wanted).complete

    def probed():
        before = len(machine.server.requests)
        seen = machine.world.observe(wanted)
        return sum("well-known" in item.path for item in machine.server.requests[before:]), seen.complete, seen.lost

    assert [probed(), probed()] == [(0, True, False)] * 2
    machine.fake.wipe_all()
    machine.fake.restart()
    assert probed() == (1, True, True)


def test_where_nobody_watches_a_refused_login_is_not_sent_again_by_a_later_run(machine, wanted, tmp_path):
    machine.world.apply(wanted)
    assert machine.world.observe(wanted).complete
    machine.world.secrets["ADMIN"] = "an0ther one"
    del machine.world.secrets["RECOVERY"]

    def logins():
        before = len(machine.server.requests)
        machine.world.connect(refusals=Refusals(tmp_path / "refusals-mana.json"))
        assert "refuses the password" in only(machine.world.observe(wanted)).summary
        return sum("authorization" in item.headers for item in machine.server.requests[before:])

    assert [logins(), logins(), logins()] == [1, 0, 0]
    machine.container.id = "another"  # which may know the password
    assert [logins(), logins()] == [1, 0]
    machine.world.secrets["ADMIN"] = "a third one"
    assert [logins(), logins()] == [1, 0]


@pytest.mark.trap(41, "both")
def test_a_start_that_takes_its_time_is_waited_for(machine, wanted):
    def restart(name):
        machine._restarted(name)
        machine.server.faults.append(Fault(times=2, refuse=True))

    machine.engine.on_restart = restart
    assert {item.status for item in machine.world.apply(wanted).values()} == {Status.DONE}


@pytest.mark.trap(42, "both")
def test_an_image_that_moved_from_the_older_generation_is_told_as_what_it_is(machine, wanted):
    old = Mount("/opt/stalwart-mail", "stalwart_data", anonymous=False)
    container = Container("mana-mail", "stalwartlabs/stalwart:latest", mounts=(old,))
    texts = [str(item) for item in causes(container, "jmap")]
    assert "`- stalwart_etc:/etc/stalwart`" in texts[0]
    assert "`- stalwart_data_new:/var/lib/stalwart`" in texts[1]  # the old data is of no use there
    assert "take `- stalwart_data:/opt/stalwart-mail` out" in texts[2]
    assert "write `image: stalwartlabs/stalwart:v0.16.18`" in texts[3]


# ---------------------------------------------------------------------------------------------------- the container
def archive(*members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as made:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
            entry.size = len(content or b"")
            made.addfile(entry, io.BytesIO(content or b""))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("members", "holds"),
    [
        ([("stalwart", None)], False),
        ([("stalwart", None), ("stalwart/lost+found", None), ("stalwart/logs", None)], False),
        ([("stalwart", None), ("stalwart/CURRENT", b"x")], True),
        ([("stalwart", None), ("stalwart/000012.sst", b"x" * (1 << 20))], True),
        ([("config.json", b"{}")], True),
    ],
)
def test_a_directory_holds_something_when_a_file_is_in_it(machine, members, holds):
    machine.docker.faults.append(Fault("GET", "/archive", reply=Reply(200, archive(*members), "application/x-tar")))
    assert Docker("mana-mail", machine.world.options["docker_host"]).holds(DATA) is holds


def test_of_the_environment_only_names_are_kept(machine):
    found = Docker("mana-mail", machine.world.options["docker_host"]).inspect()
    assert "STALWART_RECOVERY_ADMIN" in found.environment
    assert RECOVERY not in repr(found)
    assert unrecoverable(found) is None


@pytest.mark.parametrize("value", ["", "admin", "admin:", ":secret"])
def test_a_recovery_administrator_that_the_server_does_not_take_is_none(machine, value):
    machine.engine.run("other", IMAGE, env={"STALWART_RECOVERY_ADMIN": value})
    found = Docker("other", machine.world.options["docker_host"]).inspect()
    assert "(user:password)" in unrecoverable(found).summary


@pytest.mark.parametrize("value", ["_clear-in-truth", "$clear-in-truth", "{clears}-in-truth"])
def test_a_recovery_administrator_whose_password_counts_as_a_hash_lets_nobody_in(machine, value):
    machine.engine.run("other", IMAGE, env={"STALWART_RECOVERY_ADMIN": f"admin:{value}"})
    warning = unrecoverable(Docker("other", machine.world.options["docker_host"]).inspect())
    assert "looks like a hash to the server and is none" in warning.summary
    assert "in-truth" not in repr(warning)


def test_a_recovery_administrator_with_a_hash_lets_somebody_in(machine):
    machine.engine.run("other", IMAGE, env={"STALWART_RECOVERY_ADMIN": f"admin:{HASH}"})
    assert unrecoverable(Docker("other", machine.world.options["docker_host"]).inspect()) is None


def test_one_bound_config_is_enough(machine):
    config = Mount(CONFIG, "/srv/stalwart-config.json", anonymous=False)
    data = Mount(DATA, "stalwart_data", anonymous=False)
    volumes = ("/etc/stalwart", DATA)
    assert causes(Container("mana-mail", IMAGE, volumes=volumes, mounts=(config, data)), "jmap") == ()


def test_everything_of_the_declared_bootstrap_object_is_sent(machine, wanted):
    declared = {
        "tracer": {"@type": "Stdout", "enable": True},
        "dataStore": {"@type": "Sqlite", "path": "/var/lib/x.db"},
    }
    fields, misfits = objects.declared("Bootstrap", "singleton", declared)
    assert not list(misfits)
    machine.world.connect(setup=Setup("mail.mana.how", "mana.how", fields))
    machine.world.apply(wanted)
    assert machine.fake.config["path"] == "/var/lib/x.db"
    (tracer,) = machine.fake.store.all("Tracer")
    assert tracer[1]["@type"] == "Stdout"
    assert any(isinstance(item, Listener) for item in (live.resource for live in machine.world.observe(wanted).live))


# ---------------------------------------------------------------------------------------------------------- as a whole
DIRECTORY = """\
version: 1
stack: mana
targets:
  stalwart:
    {url: "URL", username: admin, password: {env: ADMIN}, recovery: {env: RECOVERY}, container: mana-mail}
accounts:
  admin: {roles: [admin], password: {env: ADMIN}}
  noreply@mana.how: {password: {env: NOREPLY}}
stalwart:
  hostname: mail.mana.how
  objects: {Bootstrap: {singleton: {tracer: {"@type": Stdout, enable: true}}}}
"""


def test_one_run_of_the_program_takes_a_server_from_nothing_to_its_desired_state(machine, tmp_path):
    state, data = tmp_path / "desired-state", tmp_path / "data"
    state.mkdir()
    (state / "reconciler.yaml").write_text(DIRECTORY.replace("URL", machine.server.url))
    environ = machine.world.secrets | {"DOCKER_HOST": machine.world.options["docker_host"]}
    seen = {}

    def restart(name):
        seen.update(json.loads((data / f"{ADMINISTRATOR}-mana.json").read_bytes()))
        machine._restarted(name)

    machine.engine.on_restart = restart
    run = Stack(load(state), Settings.read(environ, state, data))
    result = apply(run, make_plan(run))
    assert result.proven, result.after
    assert {item.status for item in result.outcomes} == {Status.DONE}
    assert machine.fake.hostname == "mail.mana.how"
    (tracer,) = machine.fake.store.all("Tracer")
    assert tracer[1]["@type"] == "Stdout"
    assert seen["secret"] not in run.secrets.redact(f"it answered {seen['secret']}")
    assert not (data / f"{ADMINISTRATOR}-mana.json").exists()
    assert machine.sets() == 1


# ------------------------------------------------------------------------------- who is told what no reference reveals
class Evil:
    """A host that a pull request names as the server, which the resolver finds: it takes down what it is told."""

    def __init__(self, resource, monkeypatch):
        self.resource, self.server = resource, Server(self._answer)
        self.url = f"http://mail.evil.example:{self.server.port}"
        found = socket.getaddrinfo

        def resolve(host, *rest, **more):
            return found("127.0.0.1" if host == "mail.evil.example" else host, *rest, **more)

        monkeypatch.setattr(socket, "getaddrinfo", resolve)

    def _answer(self, request):
        if request.path == PROBE:
            return Reply.of({"resource": self.resource})
        return Reply.of({"title": "Unauthorized"}, 401)

    def told(self):
        """List the logins that it got."""
        found = [item.headers.get("authorization", "").removeprefix("Basic ") for item in self.server.requests]
        return [base64.b64decode(item).decode() for item in found if item]

    def options(self):
        return {"url": self.url, "allow_plain_http": True, "recovery": None}


def test_t5_the_administrator_of_one_server_is_not_tried_at_another(machine, wanted, monkeypatch):
    """No reference names that password, so nothing but the address that it was answered at may get it."""
    machine.server.faults.append(Fault(path="/jmap", after=2, refuse=True, times=99))  # it does not come back
    with contextlib.suppress(TargetUnreadable):
        list(machine.world.target.apply(machine.world.plan(wanted).changes, machine.world.reveal))
    saved = json.loads(machine.kept.read_bytes())
    evil = Evil("https://mail.evil.example", monkeypatch)
    with evil.server:
        machine.world.connect(**evil.options())
        observation = machine.world.observe(wanted)
    assert evil.told() == ["admin@mana.how:adm1n-passw0rd"]
    assert saved["secret"] not in str(observation)
    assert f"{machine.kept} could not be tried: is of {machine.server.url}" in str(only(observation))


@pytest.mark.parametrize("named", ["mana-mail", "other"])
def test_t5_what_a_log_shows_goes_to_its_own_container_alone(bare, wanted, monkeypatch, named):
    """A pull request chooses container and address: whatever such a log shows is nobody's to send there."""
    bare.engine.run("other", "other:1").logs = b"  username: ci\n  password: canary-of-another\n"
    evil = Evil("", monkeypatch)
    with evil.server:
        bare.world.connect(**evil.options(), container=named)
        observation = bare.world.observe(wanted)
    assert evil.told() == ["admin@mana.how:adm1n-passw0rd"]
    assert f"the log of {named} could not be tried: shows a password" in str(only(observation))


@pytest.mark.parametrize("way", ["the environment", "its alias"])
def test_what_a_log_shows_goes_where_the_container_is_for_certain(bare, wanted, monkeypatch, way):
    host = Evil("", monkeypatch)
    more = {"chosen_outside": True}
    if way == "its alias":
        bare.engine.run("mana-mail-2", IMAGE, networks={"mana": ["mail.evil.example"]}).logs = bare.container.logs
        more = {"allow_plain_http": False, "container": "mana-mail-2"}
    with host.server:
        bare.world.connect(**(host.options() | more))
        bare.world.observe(wanted)
    assert [item.partition(":")[0] for item in host.told()] == ["admin", "admin@mana.how"]
