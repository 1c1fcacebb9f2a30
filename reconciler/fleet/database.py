"""The way to the fleet's PostgreSQL: where it is, whether it is one that we can work with, and what is wrong there.

Where it is stands in the environment alone, since it may hold a password: nothing here shows more than host and name.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import re
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, cast

import psycopg
from procrastinate.schema import SchemaManager
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import DictRow, dict_row
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout

from reconciler import __version__, files
from reconciler.problem import Problem, ReconcilerError

VERSION = 1
"""Of our tables. Another number is another form of them."""

_OLDEST = 150000  # of PostgreSQL, as it numbers itself: 15
_PATIENCE = 10.0  # seconds for a connection
_NAMES = ("host", "hostaddr", "port", "dbname", "user", "service")
_ERRORS = (psycopg.OperationalError, psycopg.InterfaceError, psycopg.InternalError, PoolTimeout, PoolClosed)
_WAY = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3, "tcp_user_timeout": 30_000}
"""How soon we notice that the other side is gone without a word, where the address does not say otherwise."""
_LIMITS = """
SET idle_in_transaction_session_timeout = '10s'; -- whoever is stopped within one must not hold up the fleet
SET lock_timeout = '30s'
"""
Pool = ConnectionPool[psycopg.Connection[DictRow]]


class DatabaseAway(ReconcilerError):
    """The database does not answer: nothing is known to be ours, so nothing is written anywhere."""


def conninfo(environ: Mapping[str, str]) -> str:
    """Return where the database is, for libpq (https://www.postgresql.org/docs/15/libpq-connect.html).

    ``RECONCILER_DATABASE_FILE`` names a file that says it, ``RECONCILER_DATABASE`` says it itself; without both libpq's
    own variables count (``PGHOST`` ...). Raises `ReconcilerError`, which quotes nothing of it.
    """
    where, text = "RECONCILER_DATABASE", environ.get("RECONCILER_DATABASE", "")
    if path := environ.get("RECONCILER_DATABASE_FILE", ""):
        where = "RECONCILER_DATABASE_FILE"
        try:
            text = files.decoded(files.read(Path(path)), Path(path)).strip()
        except files.CannotRead as error:
            raise ReconcilerError(Problem(where, error.summary, error.hint)) from None
    if not (text or environ.get("PGHOST") or environ.get("PGSERVICE") or environ.get("PGDATABASE")):
        hint = (
            "write it like postgresql://USER@HOST/NAME; PGPASSFILE or a file of RECONCILER_DATABASE_FILE for a password"
        )
        raise ReconcilerError(Problem(where, "is not set: a fleet is kept in PostgreSQL", hint))
    try:
        way = {name: value for name, value in _WAY.items() if name not in conninfo_to_dict(text)}
        made = make_conninfo(
            text, connect_timeout=int(_PATIENCE), application_name="reconciler", client_encoding="utf8", **way
        )
    except psycopg.Error:
        raise ReconcilerError(Problem(where, "is no address of a database", "postgresql://USER@HOST/NAME")) from None
    if "://" in text and _is_torn(conninfo_to_dict(made)):
        hint = "write / as %2F and @ as %40 in a password, or name a file with PGPASSFILE"
        raise ReconcilerError(Problem(where, "has a password that libpq would take for host and name", hint))
    return made


def _is_torn(known: Mapping[str, Any]) -> bool:
    """Whether libpq splits a URL elsewhere than was meant: after an @ or / in a password, whose rest would be shown."""
    host, port = str(known.get("host") or ""), str(known.get("port") or "")
    return "@" in f"{host}{known.get('dbname') or ''}" or re.fullmatch("[0-9,]*", port) is None


def shown(conninfo: str) -> str:
    """Name the database for people."""
    known = conninfo_to_dict(conninfo)
    said = " ".join(f"{name}={known[name]}" for name in _NAMES if known.get(name))
    return f"the database ({said})" if said else "the database"


def away(conninfo: str, error: Exception) -> DatabaseAway:
    """Say that it can't be reached. What libpq says names hosts and users, and never a password."""
    said = " ".join(str(error).split()) or type(error).__name__
    summary = f"does not answer: {said[:300]}"
    hint = "start it, or correct the address; workers go on by themselves as soon as it answers"
    if re.search("password|authentication|no pg_hba", said):
        hint = "correct the login (PGPASSFILE, pg_hba.conf)"
    return DatabaseAway(Problem(shown(conninfo), summary, hint))


@contextlib.contextmanager
def pool(conninfo: str, most: int) -> Iterator[Pool]:
    """Open connections, ``most`` at a time. Raises `DatabaseAway`."""
    logging.getLogger("psycopg.pool").setLevel(logging.CRITICAL)  # what is wrong with the way we tell ourselves
    options = {"autocommit": True, "row_factory": dict_row}
    made = cast(
        "Pool",
        ConnectionPool(
            conninfo,
            min_size=1,
            max_size=most,
            kwargs=options,
            open=False,
            timeout=_PATIENCE,
            check=ConnectionPool.check_connection,
            configure=_limited,
        ),
    )
    try:
        made.open(wait=True, timeout=_PATIENCE)
        yield made
    except PoolTimeout as error:
        raise away(conninfo, _why(conninfo) or error) from None
    finally:
        made.close(timeout=1)


def _limited(made: psycopg.Connection[Any]) -> None:
    made.execute(_LIMITS)


def _why(conninfo: str) -> Exception | None:
    """Say why there is no connection: a pool does not."""
    try:
        psycopg.connect(conninfo).close()
    except psycopg.Error as error:
        return error
    return None


@contextlib.contextmanager
def connection(pool: Pool) -> Iterator[psycopg.Connection[DictRow]]:
    """Lend a connection. Raises `DatabaseAway` for what is the way's fault, and psycopg's errors for what is ours."""
    try:
        with pool.connection() as lent, _writable(lent):
            yield lent
    except _ERRORS as error:
        raise away(_place(pool), error) from None


@contextlib.contextmanager
def _writable(lent: psycopg.Connection[DictRow]) -> Iterator[None]:
    """Keep no connection to a server that has become a standby: the next one may lead to its successor."""
    try:
        yield
    except psycopg.errors.ReadOnlySqlTransaction:
        lent.close()
        raise


def _place(pool: Pool) -> str:
    return pool.conninfo if isinstance(pool.conninfo, str) else ""


# ------------------------------------------------------------------------------------------------------------- tables
def check(pool: Pool, release: str = __version__) -> None:
    """Raise `ReconcilerError` where the database is not one that this release can work with."""
    with connection(pool) as at:
        _check_server(pool, at)
        found = _found(at)
    place = shown(_place(pool))
    if found is None:
        raise ReconcilerError(Problem(place, "holds no fleet yet", "call `reconciler fleet init`"))
    if found["version"] > VERSION or _numbers(found["release"]) > _numbers(release):
        summary = f"is kept by reconciler {found['release']}, and this is {release}, which is older"
        raise ReconcilerError(Problem(place, summary, f"install reconciler {found['release']} or later here"))
    engine = importlib.metadata.version("procrastinate")
    if found["version"] < VERSION or _numbers(found["engine"]) < _numbers(engine):
        summary = f"has the tables of an older release ({found['release']}, procrastinate {found['engine']})"
        raise ReconcilerError(Problem(place, summary, "call `reconciler fleet init` once, which renews them"))
    if _numbers(found["engine"])[:1] > _numbers(engine)[:1]:
        summary = f"has the tables of procrastinate {found['engine']}, and here is {engine}, which is older"
        raise ReconcilerError(Problem(place, summary, f"install procrastinate {found['engine']} here"))


def init(pool: Pool, release: str = __version__) -> bool:
    """Make the tables, or renew them; tell whether they were made. Raises `ReconcilerError`.

    Renewing them says that no release older than this one may work here from now on.
    """
    with connection(pool) as at:
        _check_server(pool, at)
        at.execute("SELECT pg_advisory_lock(hashtext('reconciler fleet init'))")
        try:
            return _renewed(pool, at, release)
        finally:
            at.execute("SELECT pg_advisory_unlock(hashtext('reconciler fleet init'))")


def _renewed(pool: Pool, at: psycopg.Connection[DictRow], release: str) -> bool:
    engine, found, names = importlib.metadata.version("procrastinate"), _found(at), sorted(_migrations())
    if found is None:
        own = resources.files("reconciler.fleet").joinpath("schema.sql").read_text(encoding="utf-8")
        with at.transaction():
            at.execute(SchemaManager.get_schema(), prepare=False)
            at.execute(own, prepare=False)
            values = (VERSION, release, engine, names[-1])
            at.execute("INSERT INTO fleet (version, release, engine, migrated) VALUES (%s, %s, %s, %s)", values)
        return True
    if found["version"] > VERSION or _numbers(found["release"]) > _numbers(release):
        summary = f"is kept by reconciler {found['release']}, and this is {release}, which is older"
        hint = f"install reconciler {found['release']} or later here"
        raise ReconcilerError(Problem(shown(_place(pool)), summary, hint))
    for name in names:
        if name > found["migrated"]:
            with at.transaction():  # one by one: a later one may use what an earlier one has added to a type
                at.execute(_migrations()[name].read_text(encoding="utf-8"), prepare=False)
                at.execute("UPDATE fleet SET migrated = %s", (name,))
    at.execute("UPDATE fleet SET version = %s, release = %s, engine = %s", (VERSION, release, engine))
    return False


def _migrations() -> Mapping[str, Path]:
    """Return what brings the engine's tables from one release to the next, in the order of the names."""
    return {path.name: path for path in Path(SchemaManager.get_migrations_path()).glob("*.sql")}


def _check_server(pool: Pool, at: psycopg.Connection[DictRow]) -> None:
    if at.info.server_version < _OLDEST:
        summary = f"is PostgreSQL {at.info.server_version // 10000}, and a fleet needs 15 or later"
        raise ReconcilerError(Problem(shown(_place(pool)), summary, "name a newer server"))


def _found(at: psycopg.Connection[DictRow]) -> dict[str, Any] | None:
    there = at.execute("SELECT to_regclass('fleet') IS NOT NULL AS there").fetchone()
    if there is None or not there["there"]:
        return None
    return at.execute("SELECT version, release, engine, migrated FROM fleet").fetchone()


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])
