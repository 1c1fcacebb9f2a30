"""Whom a fleet believes: who signs, and what a customer's directory can get at that is another customer's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from daemon.origin import key, run, signed
from fleet.estate import DIRECTORY
from fleet.test_rings import HEAD, settle

from reconciler.daemon.remote import Remote
from reconciler.daemon.store import Signers
from reconciler.fleet.secrets import environment
from reconciler.fleet.source import InventoryBranch
from reconciler.fleet.worker import Sharing
from reconciler.problem import ReconcilerError
from reconciler.secrets.age import keys_file, ssh_keys

pytestmark = pytest.mark.xdist_group("fleet")


@pytest.fixture
def ada(tmp_path: Path) -> tuple[Path, Signers]:
    file, line = key(tmp_path, "ada")
    allowed = tmp_path / "allowed_signers"
    allowed.write_text(line)
    return file, Signers(allowed)


def push(origin, files, file=None):
    """Commit, signed by a key where one is named, and push."""
    origin.commit(files, push=False)
    if file is not None:
        run(origin.tree, *signed(file), "commit", "-q", "--amend", "--no-edit", "-S")
    origin.push()
    return origin.head


def believing(hand, signers):
    """Let the fleet's hand believe these signers alone."""
    hand.tending.signers = signers
    made = hand.worker

    def worker(*words, **named):
        work = made(*words, **named)
        sharing = Sharing(hand.table, work.place.data, hand.environ, signers)
        return replace(work, shared=sharing.files, place=replace(work.place, signers=signers))

    hand.worker = worker


def test_t1_the_inventory_is_taken_only_where_somebody_signed_it_whom_we_know(tmp_path, ada):
    from daemon.origin import ENVIRON, Origin

    origin = Origin(tmp_path / "git")
    good = push(origin, {"fleet.yaml": "stacks: {}\n"}, ada[0])
    found = InventoryBranch(Remote.read(str(origin.bare), "main"), "fleet.yaml", tmp_path / "data", ENVIRON, ada[1])
    assert found.read() == ("stacks: {}\n", good)
    push(origin, {"fleet.yaml": "stacks: {evil: {repo: /evil}}\n"})
    with pytest.raises(ReconcilerError, match="signed by nobody whom we know"):
        found.read()


def test_t1_shared_files_reach_no_stack_unless_somebody_signed_them_whom_we_know(hand, ada):
    file, signers = ada
    origin = hand.estate.origin
    believing(hand, signers)
    good = push(origin, {"shared/policy.yaml": "policy: {max_deletes: 7}\n"}, file)
    hand.inventory("  one: {ring: 0}\n  two:\n  three:\n", HEAD.replace("REPO", str(origin.bare)))
    hand.tend()
    hand.turn()
    settle(hand)
    assert hand.row("one").taken["own"]["max_deletes"] == 7
    push(origin, {"shared/policy.yaml": "policy: {max_deletes: 900}\n"})
    hand.look()
    hand.turn()
    assert {hand.row(name).shared for name in hand.estate.names} == {good}
    assert hand.row("one").taken["own"]["max_deletes"] == 7
    assert any("signed by nobody whom we know" in item.summary for item in hand.said)
    # Another worker, that believes anybody, has given it to a ring: what was good goes on being healed.
    hand.sql("UPDATE fleet_rollout SET revision = %s", origin.head)
    hand.estate.wipe("one")
    hand.turn()
    assert hand.row("one").shared == good
    assert hand.estate.accounts("one")
    # A later commit that leaves them as they are speaks for them.
    spoken = origin.head
    push(origin, {"elsewhere": "1"}, file)
    hand.look()
    hand.turn()
    assert hand.row("one").shared == spoken


def test_t1_a_signature_speaks_for_what_is_there_then_and_not_for_what_it_mended(hand, ada):
    origin = hand.estate.origin
    hand.inventory("  one:\n  two:\n  three:\n", HEAD.replace("REPO", str(origin.bare)))
    bad = push(origin, {"shared/policy.yaml": "policy: {max_deletes: 900}\n"})
    good = push(origin, {"shared/policy.yaml": "policy: {max_deletes: 7}\n"}, ada[0])
    sharing = Sharing(hand.table, hand.folder / "data", hand.environ, ada[1])
    assert sharing.files(good)[1]
    with pytest.raises(ReconcilerError, match="signed by nobody"):
        sharing.files(bad)


@pytest.mark.parametrize("shared", ["{repo: /nonexistent}", "{repo: REPO, directory: misspelt}"])
def test_l4_shared_files_that_can_not_be_had_take_nothing_away(hand, shared):
    """Of a fleet whose database is new, with what they declared in force."""
    hand.inventory("  one:\n  two:\n  three:\n", f"shared: {shared}\n".replace("REPO", str(hand.estate.origin.bare)))
    for _ in range(2):
        hand.tend()
        hand.turn()
    assert hand.estate.tape.of("one") == []
    assert hand.row("one").state == "failed"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("  cloudflare:", "  compose: {file: ../../compose.yml, env_file: ../../env}\n  cloudflare:"),
        ("username: admin", "username: admin, container: others-mail"),
    ],
)
def test_t1_a_directory_reaches_no_docker_engine_that_the_workers_do_not_give_it(hand, capfd, old, new):
    """A container of its own choice is the whole machine, with all customers' secrets; another's is its recovery."""
    hand.tend()
    hand.turn("one")
    text = DIRECTORY.format(name="one", address="192.0.2.7")
    evil = hand.estate.origin.commit(
        {"stacks/one/reconciler.yaml": text.replace(old, new), "compose.yml": "services: {}"}
    )
    hand.look()
    hand.turn("one")
    assert "needs a Docker Engine, and the workers give this stack none" in capfd.readouterr().err
    assert hand.row("one").commit != evil
    assert hand.estate.address("one") == "192.0.2.1"
    hand.estate._write_secrets("one", DOCKER_HOST="tcp://127.0.0.1:9")
    hand.turn("one")
    assert hand.row("one").commit == evil


def test_t7_keys_in_the_home_of_the_worker_are_none_of_a_stack(tmp_path, monkeypatch):
    keys = tmp_path / ".config/sops/age/keys.txt"
    keys.parent.mkdir(parents=True)
    keys.write_text("AGE-SECRET-KEY-1...\n")
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/id_ed25519").write_text("key")
    given = {"PATH": "/bin", "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / ".config")}
    found = environment(given, None, "one")
    assert "HOME" not in found
    monkeypatch.chdir(tmp_path)
    assert not [path for path in (keys_file(found), *ssh_keys(found)) if path.exists()]


# ------------------------------------------------------------------------------------------------- a forced push
def forced_back(origin, number=1):
    """Take the newest commits back by force, as who may push and can't sign would: each older one is signed well."""
    run(origin.tree, "reset", "-q", "--hard", f"HEAD~{number}")
    run(origin.tree, "push", "-q", "--force", "origin", "main")
    return origin.head


def following(hand, origin, *, data="data", accept=""):
    """Let the fleet's hand follow an inventory in a branch, as a worker with its own data directory does."""
    remote = Remote.read(str(origin.bare), "main")
    hand.tending = hand.scheduler(data)
    hand.tending.inventory = InventoryBranch(remote, "fleet.yaml", hand.folder / data, hand.environ, accept=accept)
    hand.tending.accept = accept


@pytest.mark.parametrize("data", ["data", "of-a-new-worker"])
def test_t1_an_inventory_that_is_forced_back_is_not_taken_until_a_person_says_so(hand, tmp_path, data):
    from daemon.origin import Origin

    origin = Origin(tmp_path / "inventory")
    text = (hand.folder / "fleet.yaml").read_text()
    origin.commit({"fleet.yaml": text.replace("interval: 60s", "interval: 90s")})
    origin.commit({"fleet.yaml": text})
    following(hand, origin)
    hand.tending.look()
    assert hand.table.whole().interval == 60
    old = forced_back(origin)
    following(hand, origin, data=data)
    hand.tending.look()
    hand.tending.look()
    whole = hand.table.whole()
    assert whole.interval == 60
    assert [item.where for item in whole.problems] == [f"{origin.bare} (main)"]
    assert f"--accept-rewritten {old[:12]}" in whole.problems[0].hint
    assert len([item for item in hand.said if "not taken" in item.summary]) == 1
    following(hand, origin, data=data, accept=old[:12])
    hand.tending.look()
    assert (hand.table.whole().interval, hand.table.whole().problems) == (90, ())
    following(hand, origin)  # and then it counts for all
    origin.commit({"fleet.yaml": text.replace("interval: 60s", "interval: 30s")})
    hand.tending.look()
    assert (hand.table.whole().interval, hand.table.whole().problems) == (30, ())


@pytest.mark.parametrize("data", ["data", "of-a-new-worker"])
def test_t1_shared_files_that_are_forced_back_reach_no_stack_until_a_person_says_so(hand, data):
    origin = hand.estate.origin
    origin.commit({"shared/policy.yaml": "policy: {max_deletes: 900}\n"})
    good = origin.commit({"shared/policy.yaml": "policy: {max_deletes: 7}\n"})
    hand.inventory("  one:\n  two:\n  three:\n", "poll: 1s\nshared: {repo: REPO}\n".replace("REPO", str(origin.bare)))
    for _ in range(2):
        hand.tend()
        hand.turn()
    assert hand.row("one").taken["own"]["max_deletes"] == 7
    forced_back(origin)
    old = origin.commit({"elsewhere": "1"})
    hand.tending = hand.scheduler(data)
    hand.look()
    hand.turn()
    assert {hand.row(name).shared for name in hand.estate.names} == {good}
    assert any("which is not taken" in item.summary for item in hand.said)
    assert any("not taken" in why for _, why in hand.table.unseen())
    hand.tending.accept = old[:12]
    hand.tending._shared = (("", "", ""), "")  # it is started anew
    hand.look()
    assert hand.table.unseen() == []
    assert hand.table.revision(0) not in ("", good)


def test_another_repository_for_shared_files_is_no_forced_push(hand, tmp_path):
    from daemon.origin import Origin

    origins = hand.estate.origin, Origin(tmp_path / "other")
    for number, origin in enumerate(origins):
        made = origin.commit({"shared/policy.yaml": f"policy: {{max_deletes: {number + 5}}}\n"})
        hand.inventory("  one:\n", f"poll: 1s\nshared: {{repo: {origin.bare}}}\n")
        hand.look()
        hand.look()
        assert hand.table.revision(0) == made
    assert hand.said == []


class Slow:
    """An inventory whose reading takes so long that others read it, too, meanwhile."""

    def __init__(self, found, meanwhile):
        self.where, self._found, self._meanwhile = found.where, found, meanwhile

    def read(self, former=""):
        said = self._found.read(former)
        self._meanwhile()
        return said


@pytest.mark.parametrize("branch", [True, False])
def test_t14_who_has_read_an_older_inventory_takes_nothing_back(hand, tmp_path, branch):
    """A stack that is suspended in an emergency would be written to until the next look."""
    from daemon.origin import Origin

    origin, text = Origin(tmp_path / "inventory"), (hand.folder / "fleet.yaml").read_text()

    def write(told):
        origin.commit({"fleet.yaml": told})
        (hand.folder / "fleet.yaml").write_text(told)

    def scheduler():
        made = hand.scheduler()
        if branch:
            remote = Remote.read(str(origin.bare), "main")
            made.inventory = InventoryBranch(remote, "fleet.yaml", hand.folder / "data", hand.environ)
        return made

    def meanwhile():
        write(text.replace("interval: 60s", "interval: 90s").replace("\n  one:", "\n  one: {suspended: stop}\n  x:"))
        scheduler().look()
        assert (hand.table.whole().interval, hand.row("one").declared["suspended"]) == (90, "stop")

    write(text.replace("interval: 60s", "interval: 70s"))
    slow = scheduler()
    slow.inventory = Slow(slow.inventory, meanwhile)
    slow.look()
    assert (hand.table.whole().interval, hand.row("one").declared["suspended"]) == (90, "stop")
    assert hand.said == []


def test_t1_shared_files_that_are_forced_back_while_a_worker_looks_away_reach_no_stack(hand):
    """It remembers that the older commit was good, and has not seen the newer one."""
    origin = hand.estate.origin
    first = origin.commit({"shared/policy.yaml": "policy: {max_deletes: 900}\n"})
    hand.inventory("  one:\n  two:\n  three:\n", "poll: 1s\nshared: {repo: REPO}\n".replace("REPO", str(origin.bare)))
    hand.look()
    hand.look()
    assert hand.table.revision(0) == first
    awake = hand.scheduler("another")
    away, hand.tending = hand.tending, awake
    good = origin.commit({"shared/policy.yaml": "policy: {max_deletes: 7}\n"})
    hand.look()
    assert hand.table.revision(0) == good
    hand.table.seen(str(origin.bare), "main", good, first)  # as any worker does who sees the branch forced back
    away.roll()
    assert hand.table.revision(0) == good


def test_t14_rings_are_not_forgotten_for_an_inventory_of_before(hand):
    """All of them would get the newest at once."""
    origin = hand.estate.origin
    good = origin.commit({"shared/policy.yaml": "policy: {max_deletes: 7}\n"})
    former = hand.table.whole().inventory
    hand.inventory("  one:\n  two:\n  three:\n", "poll: 1s\nshared: {repo: REPO}\n".replace("REPO", str(origin.bare)))
    hand.look()
    hand.look()
    hand.table.end_rollout(0, former)
    assert hand.table.revision(0) == good
