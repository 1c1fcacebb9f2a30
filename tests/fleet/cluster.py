"""A real PostgreSQL of the tests' own: `initdb` and `pg_ctl` in a temporary folder; as user postgres, not as root."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg

from reconciler.fleet import database

VERSIONS = Path("/usr/lib/postgresql")  # where Debian has them, with a folder for each
OPTIONS = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "shared_buffers": "32MB",
    "max_connections": "60",
    "max_wal_size": "64MB",
    "min_wal_size": "32MB",
    "autovacuum": "off",
    "log_statement": "all",  # what a log would ever show is looked through for secrets
    "listen_addresses": "127.0.0.1",
}


def binaries() -> Path | None:
    """Find the newest there is, 15 or later."""
    named = [path for path in VERSIONS.glob("*/bin") if path.parent.name.isdigit() and (path / "initdb").exists()]
    found = [path for path in named if int(path.parent.name) >= 15]
    if not found and (initdb := shutil.which("initdb")):
        return Path(initdb).resolve().parent
    return max(found, key=lambda path: int(path.parent.name), default=None)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def _roomy() -> str:
    """Return where a small database may be: in memory where there is room."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > 500 << 20
    return str(memory) if roomy and os.access(memory, os.W_OK) else "/tmp"


class Cluster:
    """One server; `database` makes an empty database and says where it is."""

    def __init__(self, programs: Path) -> None:
        self.programs, self.port, self.number, self.template = programs, free_port(), 0, ""
        self.folder = Path(tempfile.mkdtemp(prefix="reconciler-postgres-", dir=_roomy()))
        self.data, self.log = self.folder / "data", self.folder / "log"
        if os.geteuid() == 0:
            os.chown(self.folder, pwd.getpwnam("postgres").pw_uid, -1)
        self._run("initdb", "-D", str(self.data), "-A", "trust", "-U", "postgres", "--no-sync", "-E", "UTF8")
        lines = [f"{name} = '{value}'" for name, value in OPTIONS.items()]
        lines += [f"port = {self.port}", f"unix_socket_directories = '{self.folder}'"]
        with (self.data / "postgresql.conf").open("a") as file:
            file.write("\n".join(lines) + "\n")
        self.start()

    def _run(self, program: str, *arguments: str) -> None:
        user = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}
        command = [str(self.programs / program), *arguments]
        with (self.folder / "said").open("ab") as said:
            subprocess.run(command, check=True, stdout=said, stderr=said, cwd=self.folder, **user)

    def start(self) -> None:
        self._run("pg_ctl", "-D", str(self.data), "-l", str(self.log), "-w", "-s", "start")

    def stop(self, mode: str = "immediate") -> None:
        self._run("pg_ctl", "-D", str(self.data), "-m", mode, "-w", "-s", "stop")

    def database(self) -> str:
        self.number += 1
        name = f"fleet{self.number}"
        with psycopg.connect(self.address("postgres"), autocommit=True) as at:
            at.execute(f"CREATE DATABASE {name}")
        return self.address(name)

    def fleet(self) -> str:
        """Make a database with a fleet's tables, which are made once."""
        if not self.template:
            self.template = self.database()
            with database.pool(self.template, 1) as pool:
                database.init(pool)
        self.number += 1
        with psycopg.connect(self.address("postgres"), autocommit=True) as at:
            at.execute(f"CREATE DATABASE fleet{self.number} TEMPLATE {self.template.rpartition('/')[2]}")
        return self.address(f"fleet{self.number}")

    def drop(self, address: str) -> None:
        with (
            contextlib.suppress(psycopg.OperationalError),
            psycopg.connect(self.address("postgres"), autocommit=True) as at,
        ):
            at.execute(f"DROP DATABASE IF EXISTS {address.rpartition('/')[2]} WITH (FORCE)")

    def address(self, name: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{name}"

    def cut(self) -> None:
        """End every connection but our own."""
        with psycopg.connect(self.address("postgres"), autocommit=True) as at:
            at.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")

    def close(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            os.kill(int((self.data / "postmaster.pid").read_text().split()[0]), signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)


PATIENCE = 180.0
"""Seconds for what takes one on a machine that has nothing else to do: no test measures how long anything takes."""


def wait_for(holds, seconds=PATIENCE, why="waited in vain"):
    """Wait until something holds, and return what it gave."""
    end = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < end, why() if callable(why) else why
        time.sleep(0.05)
    return found
