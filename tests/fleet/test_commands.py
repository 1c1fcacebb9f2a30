"""`reconciler fleet` as a user calls it: what it prints, how it ends, and what is wrong with a database."""

from __future__ import annotations

import json
import sys

import pytest
from click.testing import CliRunner

from reconciler.cli import program
from reconciler.fleet import database
from reconciler.problem import ReconcilerError

pytestmark = pytest.mark.xdist_group("fleet")


@pytest.fixture
def call(hand, monkeypatch):
    """Call a command in this process; returns its exit code, and what it printed."""
    monkeypatch.setenv("RECONCILER_DATABASE", hand.conninfo)
    monkeypatch.chdir(hand.folder)

    def run(*words):
        done = CliRunner().invoke(program, ["fleet", *words])
        return done.exit_code, done.stdout, done.stderr

    return run


def test_status_tells_the_fleet_in_a_few_lines_and_a_stack_in_full(hand, call):
    hand.turn("one", "two")
    code, out, _ = call("status")
    assert code == 0
    assert out.splitlines()[0] == "3 stacks: 2 in_sync, 1 starting"
    assert "not looked at yet" in out
    code, out, _ = call("status", "one", "--output", "json")
    (one,) = json.loads(out)["stacks"]
    assert (one["stack"], one["state"], one["commit"]) == ("one", "in_sync", hand.estate.origin.head)
    hand.estate._write_secrets("two", STALWART_ADMIN_PASSWORD="mistyped")
    hand.turn("two")
    code, out, _ = call("status", "two")
    assert code == 1, "a person is needed"
    assert "stalwart: is left alone until a person acts" in out
    assert "waits for the worker that knows its refused login" in out


def test_history_lists_the_cycles_of_a_stack_and_knows_no_other(hand, call):
    hand.turn("one")
    hand.turn("one")
    _, out, _ = call("history", "one")
    assert [line.split()[3] for line in out.splitlines()] == ["nothing", "done"]
    code, _, err = call("history", "onne")
    assert code == 1
    assert "onne: is no stack of the fleet" in err
    assert "did you mean one?" in err


def test_a_suspension_holds_until_it_is_taken_back_or_ends(hand, call):
    assert call("suspend", "one", "--reason", "moving")[0] == 0
    assert call("suspend", "two", "--reason", "a moment", "--until", "1s")[0] == 0
    hand.sql(
        "UPDATE fleet_stacks SET suspended = jsonb_set(suspended, '{until}', '\"2020-01-01T00:00:00Z\"') "
        "WHERE name = 'two'"
    )
    hand.turn()
    assert [hand.row(name).state for name in ("one", "two")] == ["suspended", "in_sync"]
    assert hand.estate.tape.of("one") == []
    assert call("resume", "one")[0] == 0
    hand.turn("one")
    assert hand.row("one").state == "in_sync"


def test_the_whole_fleet_is_suspended_and_goes_on(hand, call):
    call("suspend", "--all", "--reason", "the provider moves")
    hand.turn()
    assert hand.estate.tape.writes == []
    assert "The whole fleet is suspended by" in call("status")[1]
    call("resume", "--all")
    hand.turn()
    assert {row.state for row in hand.table.rows()} == {"in_sync"}


def test_who_names_nobody_is_asked_whom(call):
    assert call("retry")[0] != 0
    assert call("retry", "one", "--all")[0] != 0


def test_retry_makes_due_and_forgets_what_failed(hand, call):
    hand.turn()
    hand.estate._write_secrets("one", STALWART_ADMIN_PASSWORD="mistyped")
    hand.turn("one")
    assert call("retry", "one")[0] == 0
    row = hand.row("one")
    assert (row.home, row.carried, row.cause, row.waits <= 0) == (None, None, "request", True)


# ------------------------------------------------------------------------------------------------------------ database
@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("postgresql://me:hunter2@127.0.0.1:1/fleet", "does not answer: .*refused.*start it, or correct the address"),
        ("postgresql://me:hunter2@host.invalid/fleet", "does not answer: .*host.invalid"),
        ("nonsense hunter2", "is no address of a database .postgresql://USER@HOST/NAME"),
    ],
)
def test_a_database_that_can_not_be_reached_is_told_without_its_password(monkeypatch, address, told):
    monkeypatch.setattr(database, "_PATIENCE", 1.0)
    with (
        pytest.raises(ReconcilerError, match=told) as caught,
        database.pool(database.conninfo({"RECONCILER_DATABASE": address}), 1),
    ):
        pass
    assert "hunter2" not in str(caught.value)


def test_where_the_database_is_must_be_said(monkeypatch):
    with pytest.raises(ReconcilerError, match="RECONCILER_DATABASE: is not set: a fleet is kept in PostgreSQL"):
        database.conninfo({})


def test_its_address_may_stand_in_a_file(tmp_path):
    path = tmp_path / "address"
    path.write_text("postgresql://me:hunter2@db/fleet\n")
    info = database.conninfo({"RECONCILER_DATABASE_FILE": str(path)})
    assert "hunter2" in info
    assert database.shown(info) == "the database (host=db dbname=fleet user=me)"


def test_a_server_that_is_too_old_is_refused(hand, monkeypatch):
    monkeypatch.setattr(database, "_OLDEST", 990000)
    with pytest.raises(ReconcilerError, match=r"is PostgreSQL 1[5-9], and a fleet needs 15 or later"):
        database.check(hand.pool)


def test_tables_of_an_older_engine_are_renewed_by_init_alone(hand):
    hand.sql("UPDATE fleet SET engine = '3.3.9', migrated = '03.03.00_50_post'")  # what 3.4 has brought is not there
    hand.sql("DELETE FROM pg_enum WHERE enumlabel = 'retried'")
    hand.sql("DROP FUNCTION procrastinate_retry_job_v2")
    with pytest.raises(ReconcilerError, match=r"has the tables of an older release.*call `reconciler fleet init` once"):
        database.check(hand.pool)
    assert database.init(hand.pool) is False
    database.check(hand.pool)
    assert hand.sql("SELECT 1 FROM pg_proc WHERE proname = 'procrastinate_retry_job_v2'")
    assert database.init(hand.pool) is False


# --------------------------------------------------------------------------------------------------- without the extra
def test_without_the_extra_all_else_works_and_the_fleet_says_what_to_install(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] in ("psycopg", "psycopg_pool", "procrastinate")]:
        monkeypatch.delitem(sys.modules, name)
    for name in [name for name in sys.modules if name.startswith("reconciler.fleet")]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("psycopg", "psycopg_pool", "procrastinate"):
        monkeypatch.setitem(sys.modules, name, None)
    run = CliRunner().invoke
    assert run(program, ["fleet", "work", "--help"]).exit_code == 0
    done = run(program, ["fleet", "status"])
    assert done.exit_code == 1
    assert "needs psycopg, psycopg_pool, procrastinate, which is not installed here" in done.stderr
    assert "pip install 'mail-reconciler[fleet]'" in done.stderr
