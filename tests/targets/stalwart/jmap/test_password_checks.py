"""When a password of 0.16 is tried, what is kept of it, and that trying never gets us banned."""

import base64
import json
import stat
import threading
from datetime import UTC, datetime, timedelta
from functools import partial

import httpx
import pytest

from reconciler.desired.load import load
from reconciler.problem import Problem, SecretUnreadable, Severity, TargetUnreadable
from reconciler.reconcile import apply, make_plan
from reconciler.report import json as report
from reconciler.resources import Different, Same, SecretRef, Unreadable
from reconciler.settings import Settings
from reconciler.simulator.stalwart.jmap.server import StalwartJmap as Fake
from reconciler.simulator.wire import Fault, Reply, Server
from reconciler.stack import Choice, Stack
from reconciler.target import Reason
from reconciler.targets.stalwart.connection import Connection, Login
from reconciler.targets.stalwart.jmap.password_checks import FILE, MOST_REFUSED, PasswordChecks, try_login
from reconciler.targets.stalwart.passwords import hashed
from reconciler.url import parse

ADMIN = "rec0very-secret"
GOOD, OTHER = "correct-Horse-7-battery", "another-Staple-8-table"
NOW, DAY = timedelta(0), timedelta(days=1)
NOREPLY, POSTMASTER, INFO = "noreply@mana.how", "postmaster@mana.how", "info@mana.how"
USING = ["urn:ietf:params:jmap:core", "urn:stalwart:jmap"]


def ref(account):
    return SecretRef("env", account)


class World:
    """A 0.16 server with accounts, the secrets that are declared, and runs that share a data directory and a clock."""

    def __init__(self, fake, server, client, data):
        self.fake, self.server, self.client, self.file = fake, server, client, data / FILE
        self.now = datetime(2026, 11, 20, 14, 3, tzinfo=UTC)
        self.declared = {}
        self.ids = {}
        self.container = "c1"
        domain = {"name": "mana.how", "dkimManagement": {"@type": "Manual"}, "dnsManagement": {"@type": "Manual"}}
        self.domain = self.call("x:Domain/set", create={"d": domain})["created"]["d"]["id"]

    def call(self, method, **arguments):
        body = {"using": USING, "methodCalls": [[method, arguments, "0"]]}
        answer = self.client.post("/jmap", json=body, auth=("recovery", ADMIN))
        return answer.json()["methodResponses"][0][1]

    def make(self, account, password, declared=None):
        """Make an account as somebody else would, and declare it."""
        secret = {"0": {"@type": "Password", "secret": password}}
        body = {"@type": "User", "name": account.partition("@")[0], "domainId": self.domain, "credentials": secret}
        self.ids[account] = self.call("x:Account/set", create={"a": body})["created"]["a"]["id"]
        self.declared[account] = declared or password

    def set_password(self, account, password):
        answer = self.call("x:Account/set", update={self.ids[account]: {"credentials/0/secret": password}})
        assert self.ids[account] in answer["updated"]

    def reveal(self, secret):
        if secret.name not in self.declared:
            raise SecretUnreadable(Problem(str(secret), "is not set", "set it"))
        return self.declared[secret.name]

    def run(self, due=None, file="", **more):
        """Begin a run: a later one knows only what an earlier one has saved."""
        return Run(self, PasswordChecks(file or self.file, self.server.url, due, clock=lambda: self.now, **more))

    @property
    def tries(self):
        return self.server.counts["GET /jmap/session"]

    @property
    def failures(self):
        return sum(count for key, count in self.fake.dump()["counts"].items() if "127.0.0.1" in key)


class Run:
    def __init__(self, world, checks):
        self.world, self.checks = world, checks

    def observe(self):
        """Return the verdicts of all declared accounts, as an observation does."""
        world, login = self.world, Login("recovery", ())
        with Connection(parse(world.server.url), login, world.reveal, lambda _: None) as connection:
            attempt = partial(try_login, connection)
            verdicts = {
                account: self.checks.verdict(account, ref(account), world.reveal, attempt, world.container)
                for account in world.declared
            }
        self.checks.save()
        return verdicts

    def apply(self):
        """Write the passwords that are different, and look again."""
        for account, verdict in self.observe().items():
            if verdict == Different():
                self.world.set_password(account, self.world.declared[account])
                self.checks.written(account, self.world.declared[account], self.world.container)
        return self.observe()


@pytest.fixture
def world(tmp_path):
    environment = {"STALWART_RECOVERY_ADMIN": f"recovery:{ADMIN}"}
    with Fake(environment=environment, trust_loopback=False) as fake, Server(fake) as server:
        with httpx.Client(base_url=server.url, verify=False) as client:
            yield World(fake, server, client, tmp_path / "data")
        assert not server.crashes


# ---------------------------------------------------------------------------------------------------- when it is tried
@pytest.mark.trap(17, "jmap")
def test_a_password_is_not_tried_unless_that_is_due(world):
    world.make(NOREPLY, OTHER, declared=GOOD)
    run = world.run()
    assert run.observe() == {NOREPLY: Unreadable("never checked")}
    assert run.checks.words() == ("passwords of 1 account: never checked; --check-passwords tries them",)
    assert (world.tries, run.checks.problems(), world.file.exists()) == (0, (), False)


@pytest.mark.trap(17, "jmap")
def test_asked_for_each_password_is_tried_once_in_a_run(world):
    world.make(NOREPLY, GOOD)
    world.make(POSTMASTER, OTHER, declared=GOOD)
    run = world.run(NOW)
    for _ in range(3):
        assert run.observe() == {NOREPLY: Same(ref(NOREPLY)), POSTMASTER: Different()}
    assert (world.tries, world.failures) == (2, 1)
    assert run.checks.words() == ("passwords of 1 account: accepted just now",)
    later = world.run()
    assert later.observe() == {NOREPLY: Unreadable("not checked since 2026-11-20 14:03Z"), POSTMASTER: Different()}
    assert world.tries == 2


@pytest.mark.trap(34, "both")
def test_a_refusal_is_followed_by_a_write_and_never_by_a_second_try(world):
    world.make(NOREPLY, OTHER, declared=GOOD)
    for _ in range(5):
        assert world.run(NOW).observe() == {NOREPLY: Different()}
    assert (world.tries, world.failures) == (1, 1)
    written = Unreadable("not checked since it was written at 2026-11-20 14:03Z")
    assert world.run(NOW).apply() == {NOREPLY: written}
    assert world.tries == 1
    assert world.run(NOW).observe() == {NOREPLY: Same(ref(NOREPLY))}
    assert (world.tries, world.failures) == (2, 1)


def test_a_day_must_pass_between_two_tries_of_an_account(world):
    world.make(NOREPLY, GOOD)
    begin = world.now
    for hour in range(73):
        world.now = begin + timedelta(hours=hour)
        world.run(DAY).observe()
    assert world.tries == 4


def test_a_clock_that_was_set_back_keeps_nothing_from_being_tried(world):
    world.make(NOREPLY, GOOD)
    world.run(DAY).observe()
    world.now -= timedelta(days=400)
    for _ in range(3):
        assert isinstance(world.run(DAY).observe()[NOREPLY], Same | Unreadable)
    assert world.tries == 2


def test_a_hash_is_never_tried(world):
    world.make(NOREPLY, OTHER, declared=hashed(GOOD))
    run = world.run(NOW)
    assert run.observe() == {NOREPLY: Unreadable("a hash, which can't be tried")}
    assert (world.tries, run.checks.words()) == (0, ("passwords of 1 account: a hash, which can't be tried",))
    run.checks.written(NOREPLY, world.declared[NOREPLY])
    run.checks.save()
    world.declared[NOREPLY] = hashed(GOOD)  # with another salt
    assert world.run().observe() == {NOREPLY: Different()}


@pytest.mark.trap(18, "jmap")
def test_a_weak_password_that_was_stored_as_a_hash_is_tried_as_any_other(world):
    world.make(NOREPLY, hashed("mana"), declared="mana")
    assert world.run(NOW).observe() == {NOREPLY: Same(ref(NOREPLY))}


def test_a_login_that_wants_a_one_time_code_knows_the_password(world):
    world.make(NOREPLY, GOOD)
    world.server.faults.append(Fault("GET", "/jmap/session", reply=Reply.of({"title": "MFA code required"}, 402)))
    assert world.run(NOW).observe() == {NOREPLY: Same(ref(NOREPLY))}


def test_a_secret_that_can_not_be_read_is_the_callers_to_tell(world):
    with pytest.raises(SecretUnreadable):
        world.run(NOW).checks.verdict(NOREPLY, ref(NOREPLY), world.reveal, lambda *_: True)


# ------------------------------------------------------------------------------------------------------ what was known
def test_a_secret_that_changed_is_written_without_any_try(world):
    world.make(NOREPLY, GOOD)
    run = world.run()
    run.checks.written(NOREPLY, GOOD, "c1")
    run.checks.save()
    assert world.run().observe() == {NOREPLY: Unreadable("not checked since it was written at 2026-11-20 14:03Z")}
    world.declared[NOREPLY] = OTHER
    assert world.run().observe() == {NOREPLY: Different()}
    assert world.run(NOW).observe() == {NOREPLY: Different()}
    assert world.tries == 0
    world.run().apply()
    assert world.run(NOW).observe() == {NOREPLY: Same(ref(NOREPLY))}
    assert world.failures == 0


def refused_again(world):
    """Have a password refused, written, and refused again: as a directory that takes the write and ignores it."""
    world.make(NOREPLY, OTHER, declared=GOOD)
    assert world.run(NOW).apply()[NOREPLY].why.startswith("not checked since it was written")
    world.set_password(NOREPLY, OTHER)
    run = world.run(NOW)
    assert run.observe() == {NOREPLY: Unreadable("refused again after it was written")}
    return run


@pytest.mark.trap(34, "both")
def test_refused_again_after_the_write_it_is_tried_no_more(world):
    problem = refused_again(world).checks.problems()[0]
    assert (problem.where, problem.severity) == ("account/noreply@mana.how", Severity.ERROR)
    assert "recovery administrator of that name" in problem.hint
    tries = world.tries
    for _ in range(10):
        world.now += DAY
        run = world.run(DAY)
        assert run.observe() == {NOREPLY: Unreadable("refused again after it was written")}
        assert run.checks.problems() == (problem,)
    assert world.tries == tries
    assert run.checks.words() == ("passwords of 1 account: refused again after it was written",)


def test_another_secret_is_written_after_that(world):
    refused_again(world)
    world.declared[NOREPLY] = "third-Stable-9-cable"
    assert world.run().observe() == {NOREPLY: Different()}
    world.run().apply()
    run = world.run(NOW)
    assert run.observe() == {NOREPLY: Same(ref(NOREPLY))}
    assert run.checks.problems() == ()


def test_another_container_is_tried_after_that(world):
    refused_again(world)
    tries, world.container = world.tries, ""  # while Docker can't be asked, it is the same one
    assert world.run(NOW).checks.problems() == ()
    assert world.run(NOW).observe() == {NOREPLY: Unreadable("refused again after it was written")}
    world.container = "c2"
    assert world.run(NOW).observe() == {NOREPLY: Different()}
    assert world.tries == tries + 1


def test_another_address_begins_anew(world):
    refused_again(world)
    world.declared = {}
    world.make(INFO, GOOD)
    assert world.run().observe() == {INFO: Unreadable("never checked")}
    assert world.run(NOW).observe() == {INFO: Same(ref(INFO))}


def test_a_person_who_changes_an_enforced_password_twice_has_it_written_twice(world):
    world.make(NOREPLY, GOOD)
    run = world.run()
    run.checks.written(NOREPLY, GOOD)  # we made the account
    run.checks.save()
    for _ in range(2):
        world.set_password(NOREPLY, OTHER)
        assert world.run(NOW).observe() == {NOREPLY: Different()}
        world.run().apply()
        assert world.run(NOW).observe() == {NOREPLY: Same(ref(NOREPLY))}


# -------------------------------------------------------------------------------------------------- our administrator
def test_our_own_login_is_a_check_at_no_extra_request(world):
    world.make(NOREPLY, GOOD)
    run = world.run()
    run.checks.answered(NOREPLY, GOOD, "c1", accepted=True)
    assert run.observe() == {NOREPLY: Same(ref(NOREPLY))}
    written = world.file.stat().st_mtime_ns
    run = world.run()
    run.checks.answered(NOREPLY, GOOD, "c1", accepted=True)
    assert run.observe() == {NOREPLY: Same(ref(NOREPLY))}
    assert (world.tries, run.checks.words()) == (0, ())
    assert world.file.stat().st_mtime_ns == written  # a plan a minute does not wear the disk out
    assert world.run().observe() == {NOREPLY: Unreadable("not checked since 2026-11-20 14:03Z")}


def test_our_own_login_that_was_refused_is_written_and_then_stops(world):
    world.make(NOREPLY, OTHER, declared=GOOD)
    run = world.run(NOW)
    for _ in range(3):
        run.checks.answered(NOREPLY, GOOD, "c1", accepted=False)
        assert run.observe() == {NOREPLY: Different()}
    run.apply()
    again = world.run()
    again.checks.answered(NOREPLY, GOOD, "c1", accepted=False)
    assert again.observe() == {NOREPLY: Unreadable("refused again after it was written")}
    assert world.tries == 0


# --------------------------------------------------------------------------------------------------------------- bans
def test_what_is_no_answer_is_no_refusal_and_ends_the_checking(world):
    world.make(NOREPLY, GOOD)
    world.make(POSTMASTER, GOOD)
    faults = [Fault("GET", "/jmap/session", lose=True), Fault("GET", "/jmap/session", refuse=True)]
    faults += [
        Fault("GET", "/jmap/session", reply=Reply.of({"title": title}, status))
        for status, title in ((429, "Too Many Requests"), (429, "Too Many Authentication Attempts"), (503, ""))
    ]
    for fault in faults:
        world.server.faults[:] = [fault]
        world.server.forget()
        world.file.unlink(missing_ok=True)
        run = world.run(NOW)
        for _ in range(2):
            assert run.observe() == {account: Unreadable("never checked") for account in (NOREPLY, POSTMASTER)}
        (problem,) = run.checks.problems()
        assert problem.severity is Severity.WARNING
        assert "no more passwords are tried in this run" in problem.summary
        assert problem.scope == ""  # what was read stays good
        assert world.tries == 1


def test_a_login_that_is_forbidden_tells_neither(world):
    world.make(NOREPLY, GOOD)
    world.make(POSTMASTER, GOOD)
    world.server.faults.append(Fault("GET", "/jmap/session", reply=Reply.of({"title": "Forbidden"}, 403)))
    run = world.run(NOW)
    verdicts = run.observe()
    assert verdicts == {NOREPLY: Unreadable("a login was answered neither way"), POSTMASTER: Same(ref(POSTMASTER))}
    assert run.checks.problems() == ()


def test_a_lost_answer_is_not_asked_for_again_before_a_day_has_passed(world):
    world.make(NOREPLY, OTHER, declared=GOOD)
    for _ in range(10):
        world.server.faults[:] = [Fault("GET", "/jmap/session", lose=True)]
        world.run(DAY).observe()
        world.now += timedelta(minutes=1)
    assert (world.tries, world.failures) == (1, 1)


@pytest.mark.trap(34, "both")
def test_a_server_that_refuses_everyone_does_not_ban_us(world):
    """A store that came back from an old backup: all passwords are old ones."""
    for number in range(MOST_REFUSED + 5):
        world.make(f"user{number}@mana.how", hashed(OTHER), declared=GOOD)
    run = world.run(NOW)
    verdicts = run.observe()
    assert list(verdicts.values()).count(Different()) == MOST_REFUSED
    assert f"refused {MOST_REFUSED} logins within a day" in str(run.checks.problems()[0])
    for _ in range(20):
        world.now += timedelta(minutes=30)
        world.run(NOW).observe()
    assert world.failures == MOST_REFUSED
    assert world.fake.dump()["blocked"] == []
    world.run().apply()
    world.now += DAY
    verdicts = world.run(NOW).apply()
    world.now += DAY
    verdicts = world.run(NOW).observe()
    assert all(isinstance(verdict, Same) for verdict in verdicts.values())


@pytest.mark.trap(34, "both")
def test_a_banned_address_tries_nothing_more(world):
    world.make(NOREPLY, GOOD)
    world.make(POSTMASTER, GOOD)
    while not world.fake.dump()["blocked"]:
        world.client.get("/jmap/session", auth=("nobody@mana.how", "x"))
    world.server.forget()
    run = world.run(NOW)
    assert set(run.observe().values()) == {Unreadable("never checked")}
    assert "perhaps this address is banned" in str(run.checks.problems()[0])
    assert world.tries == 1


def test_an_answer_about_the_server_is_named(world):
    world.server.faults.append(Fault("GET", "/jmap/session", reply=Reply.of({}, 404)))
    with (
        Connection(parse(world.server.url), Login("recovery", ()), world.reveal, lambda _: None) as connection,
        pytest.raises(TargetUnreadable, match="answers 404 to a login"),
    ):
        try_login(connection, NOREPLY, GOOD)


# --------------------------------------------------------------------------------------------------------- what is kept
def test_the_file_is_private_holds_no_value_and_keeps_other_servers(world):
    world.make(NOREPLY, GOOD)
    world.run(NOW).observe()
    other = PasswordChecks(world.file, "https://mail.example.org/", clock=lambda: world.now)
    other.written(NOREPLY, OTHER)
    other.save()
    text = world.file.read_text()
    assert stat.S_IMODE(world.file.stat().st_mode) == 0o600
    assert not any(form in text for form in (GOOD, OTHER, base64.b64encode(GOOD.encode()).decode()))
    assert sorted(json.loads(text)["servers"]) == sorted([world.server.url, "https://mail.example.org"])
    assert sorted(path.name for path in world.file.parent.iterdir()) == [".gitignore", FILE]
    assert world.run().observe() == {NOREPLY: Unreadable("not checked since 2026-11-20 14:03Z")}


def test_equal_passwords_do_not_show_as_equal(world):
    run = world.run()
    for account in (NOREPLY, POSTMASTER):
        run.checks.written(account, GOOD)
    run.checks.save()
    records = json.loads(world.file.read_text())["servers"][world.server.url].values()
    assert len({record["fingerprint"] for record in records}) == 2


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"\xff",
        b"[]",
        b'{"version": 2, "servers": {}}',
        b'{"version": 1, "servers": 5}',
        b'{"version": 1, "servers": {"URL": []}}',
        b'{"version": 1, "servers": {"URL": {"noreply@mana.how": {"state": "accepted"}}}}',
        b'{"version": 1, "servers": {"URL": {"else@mana.how": {"state": "x", "key": 1}}}}',
    ],
)
def test_a_damaged_file_is_a_warning_and_is_begun_anew(world, damage):
    world.make(NOREPLY, GOOD)
    world.file.parent.mkdir()
    world.file.write_bytes(damage.replace(b"URL", world.server.url.encode()))
    run = world.run()
    assert run.observe() == {NOREPLY: Unreadable("never checked")}
    (problem,) = run.checks.problems()
    assert (problem.where, problem.severity) == (str(world.file), Severity.WARNING)
    assert "is damaged" in problem.summary
    assert world.run(NOW).observe() == {NOREPLY: Same(ref(NOREPLY))}
    assert world.run().checks.problems() == ()


def test_a_damaged_record_costs_no_other_one(world):
    world.make(NOREPLY, GOOD)
    world.make(POSTMASTER, GOOD)
    world.run(NOW).observe()
    document = json.loads(world.file.read_text())
    document["servers"][world.server.url][POSTMASTER]["since"] = "yesterday"
    world.file.write_text(json.dumps(document))
    verdicts = {NOREPLY: Unreadable("not checked since 2026-11-20 14:03Z"), POSTMASTER: Unreadable("never checked")}
    assert world.run().observe() == verdicts


def test_a_try_that_can_not_be_noted_is_not_made(world):
    world.make(NOREPLY, GOOD)
    blocked = world.file.parent
    blocked.write_text("a file where the directory should be")
    run = world.run(NOW)
    assert run.observe() == {NOREPLY: Unreadable("never checked")}
    assert any("--data" in problem.hint for problem in run.checks.problems())
    assert all(problem.severity is Severity.WARNING for problem in run.checks.problems())
    nowhere = Run(world, PasswordChecks(None, world.server.url, NOW))
    assert nowhere.observe() == {NOREPLY: Unreadable("never checked")}
    assert world.tries == 0


def test_a_link_in_place_of_the_file_is_not_followed(world, tmp_path):
    world.make(NOREPLY, GOOD)
    target = tmp_path / "target"
    target.write_text("mine")
    world.file.parent.mkdir()
    world.file.symlink_to(target)
    run = world.run(NOW)
    run.observe()
    assert "can't be" in run.checks.problems()[0].summary
    assert (target.read_text(), world.tries) == ("mine", 0)


def test_losing_the_data_directory_loses_this_knowledge_only(world):
    world.make(NOREPLY, GOOD)
    world.run(NOW).observe()
    world.file.unlink()
    assert world.run().observe() == {NOREPLY: Unreadable("never checked")}


def test_two_processes_keep_what_the_other_one_wrote(world):
    accounts = [f"user{number}@mana.how" for number in range(20)]
    runs = [world.run() for _ in accounts]  # all begin before any ends

    def end(run, account):
        run.checks.written(account, GOOD)
        run.checks.save()

    threads = [threading.Thread(target=end, args=pair) for pair in zip(runs, accounts, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(json.loads(world.file.read_text())["servers"][world.server.url]) == sorted(accounts)


def test_the_head_counts_what_is_not_known(world):
    world.make(NOREPLY, GOOD)
    world.run(NOW).observe()
    world.now += DAY
    world.make(INFO, GOOD)
    world.make(POSTMASTER, hashed(GOOD))
    run = world.run()
    run.observe()
    (line,) = run.checks.words()
    assert line == (
        "passwords of 3 accounts: 1 not checked since 2026-11-20 14:03Z, 1 never checked, 1 a hash, which can't be "
        "tried; --check-passwords tries them"
    )


# -------------------------------------------------------------------------------------------------------- as a whole
DIRECTORY = """\
version: 1
stack: mana
targets:
  stalwart: {url: "URL", username: admin@mana.how, password: {env: ADMIN}, recovery: {env: RECOVERY}}
accounts:
  admin@mana.how: {roles: [admin], password: {env: ADMIN}}
  noreply@mana.how: {password: {env: NOREPLY}}
  free@mana.how: {password: {env: FREE}, enforce_password: false}
  postmaster@mana.how: {password: {env: POSTMASTER}}
stalwart: {hostname: mail.mana.how, default_domain: mana.how}
"""


@pytest.fixture
def stack(world, tmp_path):
    """Return what one run of the program works with: the declared stack on the fake server."""
    state = tmp_path / "desired-state"
    state.mkdir()
    (state / "reconciler.yaml").write_text(DIRECTORY.replace("URL", world.server.url))
    environ = {
        "RECOVERY": f"recovery:{ADMIN}",
        "ADMIN": GOOD,
        "NOREPLY": GOOD,
        "FREE": GOOD,
        "POSTMASTER": hashed(GOOD),
    }

    def begin(*, check_passwords=False, **changed):
        environ.update(changed)
        settings = Settings.read(environ, state, world.file.parent)
        return Stack(load(state), settings, Choice(check_passwords=check_passwords))

    return begin


def addresses(plan):
    assert plan.complete, plan.problems
    return [change.address for change in plan.changes]


def test_a_restore_counts_as_written_and_only_the_enforced_clear_ones_are_ever_tried(world, stack):
    work = stack(check_passwords=True)
    plan = make_plan(work)
    assert {f"account/{name}@mana.how" for name in ("admin", "noreply", "free", "postmaster")} < set(addresses(plan))
    after = apply(work, plan).after
    assert (addresses(after), world.tries) == ([], 0)
    line = next(line for line in after.head if "passwords" in line and "accepted just now" not in line)
    assert line.startswith("passwords of 2 accounts: 1 not checked since ")
    assert make_plan(stack()).head[-1].endswith("1 a hash, which can't be tried; --check-passwords tries them")
    assert addresses(make_plan(stack(check_passwords=True))) == []
    (tried,) = [request for request in world.server.requests if request.path == "/jmap/session"]
    assert base64.b64decode(tried.headers["authorization"].split()[1]).decode() == f"noreply@mana.how:{GOOD}"
    assert world.failures == 1  # our own login, before the restore


def test_a_rotated_secret_is_written_without_a_try_and_a_foreign_change_after_one(world, stack):
    work = stack()
    apply(work, make_plan(work))
    work = stack(NOREPLY=OTHER)
    plan = make_plan(work)
    assert addresses(plan) == ["account/noreply@mana.how"]
    assert plan.changes[0].reason is Reason.SECRET_DIFFERS
    assert apply(work, plan).proven
    assert world.tries == 0
    (account,) = world.call("x:Account/query", filter={"name": "noreply"})["ids"]
    world.ids[NOREPLY] = account
    world.set_password(NOREPLY, "somebody-Else-3-knows")
    assert addresses(make_plan(stack())) == []
    assert addresses(make_plan(stack(check_passwords=True))) == ["account/noreply@mana.how"]
    work = stack()  # what was refused is known from then on
    assert apply(work, make_plan(work)).proven
    assert addresses(make_plan(stack(check_passwords=timedelta(days=1)))) == []
    assert world.tries == 1
    assert addresses(make_plan(stack(check_passwords=True))) == []
    assert world.tries == 2


def test_no_value_is_in_a_plan_or_in_the_data_directory(world, stack):
    work = stack(check_passwords=True)
    apply(work, make_plan(work))
    work = stack(check_passwords=True, NOREPLY=OTHER)
    texts = [report.dumps(report.plan(make_plan(work))), world.file.read_text()]
    assert not any(value in text for text in texts for value in (GOOD, OTHER, ADMIN))
