"""What the daemon must survive beside kills (`test_killed.py`) and unwell systems (`test_faults.py`)."""

from __future__ import annotations

import copy
import re
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from reconciler.simulator.wire import Fault, Reply

from .stagefixtures import Done, Stack, wait_for
from .test_faults import unlike
from .test_killed import DAEMON, QUICK, change

RECORDS = r"/dns_records\?"


def cycle(stack: Stack, code: int = 0) -> Done:
    """Run one cycle of a daemon that has just started."""
    return stack.expect(code, *DAEMON, bug=QUICK)


@pytest.fixture(params=["applied", "newer_applied"], ids=["rest", "jmap"])
def settled(request: pytest.FixtureRequest) -> Stack:
    """The example after its first apply, with either generation of Stalwart."""
    found: Stack = request.getfixturevalue(request.param)
    return found


def test_row_4_what_an_old_answer_shows_is_removed_by_its_id_and_never_by_its_name(applied: Stack) -> None:
    """Ours is gone already, and somebody else's is at that name: the listing that we got knows of neither."""
    cloud = applied.stage.cloudflare
    [before] = [item for item in applied.records() if item["name"].startswith("_dmarc")]
    old = {"result": applied.records(), "success": True, "errors": [], "messages": []}
    old["result_info"] = {"page": 1, "per_page": 5000, "total_pages": 1, "total_count": len(old["result"])}
    cloud.remove("mana.how", before["id"])
    theirs = cloud.add("mana.how", type="TXT", name="_dmarc", content="v=DMARC1; p=none", comment="theirs")
    text = (applied.example.state / "dns.yaml").read_text()
    (applied.example.state / "dns.yaml").write_text(re.sub(r".*_dmarc.*\n", "", text))
    applied.fault("cloudflare", path=RECORDS, change=lambda _: Reply.of(old), times=1)
    done = applied.run(*DAEMON, bug=QUICK)
    assert done.code in (0, 6), done.text
    applied.watch.adopted.add(theirs)
    [now] = [item for item in applied.records() if item["name"].startswith("_dmarc")]
    assert (now["id"], now["comment"]) == (theirs, "theirs")
    cycle(applied)
    assert theirs in {item["id"] for item in applied.records()}


def test_row_6_a_volume_from_an_old_backup_is_brought_up_to_date_and_removes_nothing(settled: Stack) -> None:
    """A volume of before the last change: its passwords, keys and words are the old ones."""
    stack, backup = settled, copy.deepcopy(settled.stage.stalwart.dump())
    stack.edit("stalwart.yaml", "scan: off", "scan: 30/1d")
    stack.edit("accounts.yaml", "Sends every", "Sends each")
    stack.edit("accounts.yaml", "abuse@mana.how, dmarc@mana.how", "abuse@mana.how, dmarc@mana.how, tls@mana.how")
    cycle(stack)
    final, records = stack.meaning(), stack.records()
    stack.stage.stalwart.load(backup)
    stack.tape.forget()
    cycle(stack)
    assert without_notes(unlike(stack.meaning(), final)) == {}
    assert stack.records() == records, "byte for byte"
    assert not [line for line in stack.writes() if not line.startswith("stalwart")]


def without_notes(differing: dict[str, Any]) -> dict[str, Any]:
    """Leave out our note of what is due as it was when the last reload came."""
    return {name: value for name, value in differing.items() if name != "running reconciler.pending"}


def test_row_22_from_one_state_to_another_and_back_leaves_nothing_behind(settled: Stack) -> None:
    """Both ways end where a first apply of that state ends."""
    stack = settled
    files = {path: path.read_text() for path in stack.example.state.glob("*.yaml")}
    final = stack.meaning()
    stack.secrets["NOREPLY_NEXT"] = "the-next-password"
    try:
        change(stack)
        cycle(stack)
        stack.env.clear()
        (stack.example.state / "removed.yaml").unlink()
        for path, text in files.items():
            path.write_text(text)
        cycle(stack)
        assert without_notes(unlike(stack.meaning(), final)) == {}
        stack.expect(0, "plan", "--detailed-exitcode")
    finally:
        del stack.secrets["NOREPLY_NEXT"]


def test_row_23_a_bad_revision_that_was_accepted_is_left_behind_by_the_next(applied: Stack) -> None:
    """What the server refuses of it is told; the way back needs no hand."""
    final = applied.meaning()
    text = (applied.example.state / "stalwart.yaml").read_text()
    bad = text.replace("settings: {}", "settings: {http.rate-limit.account: often}")
    (applied.example.state / "stalwart.yaml").write_text(bad.replace("scan: off", "scan: 7/1d"))
    applied.edit("dns.yaml", "194.191.241.139", "194.191.241.140")
    done = cycle(applied, 6)
    assert "Invalid rate value" in done.text
    assert "194.191.241.140" in {item["content"] for item in applied.records()}, "the rest of it is in force"
    (applied.example.state / "stalwart.yaml").write_text(text)
    applied.edit("dns.yaml", "194.191.241.140", "194.191.241.139")
    cycle(applied)
    assert without_notes(unlike(applied.meaning(), final)) == {}
    applied.expect(0, "plan", "--detailed-exitcode")


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "cut off": lambda content: content[: len(content) // 2],
    "no text": lambda content: bytes(255 - byte for byte in content),
    "another JSON": lambda _: b"[7]",
}


def kept(stack: Stack) -> list[Path]:
    return [path for path in sorted(stack.data.rglob("*")) if path.is_file()]


@pytest.mark.parametrize("damage", DAMAGE)
def test_row_24_files_of_ours_that_are_damaged_keep_nothing_from_being_healed(applied: Stack, damage: str) -> None:
    cycle(applied)
    assert len(kept(applied)) >= 3
    for path in kept(applied):
        path.write_bytes(DAMAGE[damage](path.read_bytes()))
    drift(applied)
    done = cycle(applied)
    assert "Traceback" not in done.text
    assert "194.191.241.139" in {item["content"] for item in applied.records()}
    cycle(applied)


def drift(stack: Stack) -> None:
    """Change a record by hand."""
    [record] = [item for item in stack.marked() if item["type"] == "A"]
    stack.stage.cloudflare.edit("mana.how", record["id"], content="192.0.2.66")


def test_row_24_a_disk_without_space_keeps_nothing_from_being_healed(applied: Stack) -> None:
    """Each file of ours can grow by 20 bytes at most, as on a disk that is all but full."""
    drift(applied)
    full = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)"
    limit = "resource.setrlimit(resource.RLIMIT_FSIZE, (20, 20))"
    before = {path: path.read_bytes() for path in kept(applied) if path.name.startswith("journal")}
    done = applied.run(*DAEMON, bug=f"{QUICK}; {full}; {limit}")
    assert done.code in (0, 6), done.text
    assert "this is a bug" not in done.text
    assert "194.191.241.139" in {item["content"] for item in applied.records()}
    for path, content in before.items():
        assert path.read_bytes().startswith(content), "no line of the past is torn"
    cycle(applied)


def test_row_26_a_token_that_was_revoked_stops_its_target_alone(stack: Stack) -> None:
    done = stack.run(*DAEMON, bug=QUICK, CLOUDFLARE_API_TOKEN="of-yesterday-" + "x" * 27)
    assert done.code == 6, done.text
    assert not [line for line in stack.writes() if line.startswith("cloudflare")]
    assert [line for line in stack.writes() if line.startswith("stalwart")]
    tries = [item for item in stack.stage.cloudflare_server.requests if item.path.endswith("/zones")]
    assert len(tries) <= 2
    assert "of-yesterday" not in done.text
    cycle(stack)
    stack.expect(0, "plan", "--detailed-exitcode")


def test_row_29_files_of_a_newer_version_keep_nothing_from_being_healed_and_stay_readable_to_it(
    applied: Stack,
) -> None:
    cycle(applied)
    newer = re.compile(rb'"v": ?1\b')
    aged = {path: newer.sub(b'"v":99', content) for path in kept(applied) if newer.search(content := path.read_bytes())}
    assert {path.name.partition("-")[0] for path in aged} == {"journal.jsonl", "folder", "settled"}
    for path, content in aged.items():
        path.write_bytes(content)
    drift(applied)
    done = applied.run(*DAEMON, bug=QUICK)
    assert done.code in (0, 6), done.text
    assert "this is a bug" not in done.text
    assert "194.191.241.139" in {item["content"] for item in applied.records()}
    journal = applied.data / "journal.jsonl"
    assert journal.read_bytes().startswith(aged[journal]), "what the newer one wrote is there for it"
    assert "a newer reconciler wrote this journal" in applied.run("history").err


def test_a_secret_that_somebody_put_into_a_record_is_in_no_file_of_ours(applied: Stack) -> None:
    secret = applied.environ()["NOREPLY_PASSWORD"]
    [record] = [item for item in applied.marked() if item["name"].startswith("_dmarc")]
    applied.stage.cloudflare.edit("mana.how", record["id"], content=f'"it is {secret}"')
    done = cycle(applied)
    assert secret not in done.text
    assert [path for path in kept(applied) if secret.encode() in path.read_bytes()] == []


def test_row_31_a_long_compose_up_is_work_and_no_hang(applied: Stack) -> None:
    """With an interval of a second, /healthz says all the time that the daemon is well."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        listen = f"127.0.0.1:{free.getsockname()[1]}"
    begun, going_on = threading.Event(), threading.Event()

    def order(argv: list[str]) -> dict[str, Any]:
        if "up" in argv:
            begun.set()
            going_on.wait(60)
        return {}

    applied.zygote.order = order
    applied.env["NOREPLY_PASSWORD"] = "the-next-one"
    running = applied.start("daemon", "--interval", "1s", "--listen", listen)
    try:
        assert begun.wait(60)
        until, answers = time.monotonic() + 6, []
        while time.monotonic() < until:
            answers.append(httpx.get(f"http://{listen}/healthz", trust_env=False))
            time.sleep(0.2)
        assert {answer.status_code for answer in answers} == {200}, answers[-1].text
        silent = httpx.get(f"http://{listen}/metrics", trust_env=False).text
        assert "reconciler_last_reconcile_timestamp_seconds" not in silent, "the first cycle has not ended"
    finally:
        going_on.set()
        running.kill(signal.SIGTERM)
        running.wait()


def test_a_lost_server_that_takes_a_while_to_start_is_restored_when_it_answers(settled: Stack) -> None:
    """The engine tells of its container at once; the pauses between tries of what fails would be too long."""
    stack, signing = settled, settled.meaning()["signing"]
    with socket.create_server(("127.0.0.1", 0)) as free:
        listen = f"127.0.0.1:{free.getsockname()[1]}"
    slow = "import reconciler.daemon.pace as p; p._FIRST = 600.0"
    running = stack.start("daemon", "--interval", "1h", "--listen", listen, bug=slow)
    stack.watch.server_lost = True
    stack.watch.touched |= {"mana-mail"}
    try:
        wait_for(lambda: '"msg": "cycle"' in running.errors())
        starting = Fault(refuse=True, times=10_000)
        stack.stage.stalwart_server.faults.append(starting)
        lost = "" if stack.stage.generation == "rest" else "/var/lib/stalwart"
        stack.stage.recreate_mail_server(lost=lost)
        wait_for(lambda: '"cause": "engine"' in running.errors())
        left = starting.times
        wait_for(lambda: starting.times <= left - 3)  # it tries, and tries again
        assert '"result": "done"' not in running.errors()
        stack.stage.stalwart_server.faults.remove(starting)
        wait_for(lambda: '"result": "done"' in running.errors())
    finally:
        running.kill(signal.SIGTERM)
        running.wait()
    assert stack.meaning()["signing"] == signing
    stack.expect(0, "plan", "--detailed-exitcode")
