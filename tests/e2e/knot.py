"""Knot DNS with zones of a test's own: an authoritative server that others wrote, on loopback."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import dns.exception
import dns.message
import dns.query
import pytest

CONFIG = """\
server:
  listen: 127.0.0.1@{port}
  rundir: {folder}
  udp-workers: 1
  tcp-workers: 1
  background-workers: 1
database:
  storage: {folder}
control:
  listen: {folder}/control
template:
  - id: default
    storage: {folder}
    file: "%s.zone"
    journal-content: none
    zonefile-load: whole
zone:
{zones}
"""
SOA = "@ 300 IN SOA ns1.{zone}. hostmaster.{zone}. 1 7200 3600 1209600 300\n@ 300 IN NS ns1.{zone}.\n"

Zones = Mapping[str, Sequence[str]]
"""From a zone to its lines, as a zone file has them, names relative to the zone."""


@contextlib.contextmanager
def knot(folder: Path, zones: Zones) -> Iterator[str]:
    """Serve zones until the context ends; yields ``HOST:PORT``. Skips where there is no Knot."""
    program = shutil.which("knotd") or shutil.which("knotd", path="/usr/sbin")
    if program is None:
        pytest.skip("knotd is missing (Debian's package knot)")
    folder.mkdir(parents=True, exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    for zone, lines in zones.items():
        text = f"$ORIGIN {zone}.\n$TTL 300\n{SOA.format(zone=zone)}" + "\n".join(lines) + "\n"
        (folder / f"{zone}.zone").write_text(text)
    named = "\n".join(f"  - domain: {zone}" for zone in zones)
    (folder / "knot.conf").write_text(CONFIG.format(port=port, folder=folder, zones=named))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, "-c", folder / "knot.conf"], stdout=log, stderr=log)
    try:
        _wait(process, port, zones, folder / "log")
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def _wait(process: subprocess.Popen[bytes], port: int, zones: Zones, log: Path) -> None:
    """Wait until it answers for each zone. Over TCP, which says at once that nobody listens yet."""
    until = time.monotonic() + 30
    for zone in zones:
        while True:
            with contextlib.suppress(dns.exception.DNSException, OSError):
                reply = dns.query.tcp(dns.message.make_query(zone, "SOA"), "127.0.0.1", 5, port)
                if reply.answer:
                    break
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.005)
