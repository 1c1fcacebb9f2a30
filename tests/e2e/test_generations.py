"""The example on a Stalwart from 0.16: set up, restored, and moved to from 0.15."""

from __future__ import annotations

import json
import re
import shutil
import stat
from collections.abc import Callable
from typing import Any

from reconciler.simulator.stalwart.passwords import verify
from reconciler.simulator.wire import Reply

from . import jmapstage
from .asking import (
    ADMIN,
    PROBE,
    as_declared,
    consumer,
    everything_is_right,
    problems,
    settled,
    unrecoverable,
    wire,
)
from .stagefixtures import Stack, Watch


# ------------------------------------------------------------------------------------------- from nothing to sending
def test_an_empty_server_becomes_the_example(newer: Stack) -> None:
    assert "10 resources" in newer.expect(2, "plan", "--detailed-exitcode").out
    wire(newer)
    newer.expect(0, "apply", "--yes")
    asked = wire(newer)
    recovery = newer.secrets["STALWART_RECOVERY_ADMIN"].partition(":")[0]
    assert asked[:4] == [PROBE, (ADMIN, "read"), (recovery, "read"), (recovery, "write")]
    assert asked[4:6] == [PROBE, (ADMIN, "read")], "the declared administrator gets in, nobody else is tried"
    assert asked[6:] == [(ADMIN, "/api/schema")], "the process is another one: is it another release?"
    everything_is_right(newer)
    assert consumer(newer) == as_declared(newer)
    assert sum(line.endswith("/restart") for line in newer.writes()) == 1
    settled(newer)


def test_a_server_in_bootstrap_mode_becomes_the_example(bare: Stack) -> None:
    plan = bare.expect(2, "plan", "--detailed-exitcode", "--output", "json").json
    assert "in bootstrap mode: it serves no mail" in json.dumps(plan)
    assert bare.writes() == []
    kept: list[tuple[int, Any]] = []

    def look(work: Callable[[], Reply]) -> Reply:
        """Look at the file when the server has answered, and before anything else is done."""
        [path] = bare.data.glob("stalwart-administrator*")
        kept.append((stat.S_IMODE(path.stat().st_mode), json.loads(path.read_bytes())))
        return work()

    [first] = [number for number, line in enumerate(writes_of(bare)) if line.endswith("/restart")][:1]
    bare.tape.at[first] = look
    wire(bare)
    bare.expect(0, "apply", "--yes")
    asked = wire(bare)
    assert [what for _, what in asked].count("x:Bootstrap/set") == 1
    assert [what for _, what in asked].count("write") == 1
    [(mode, administrator)] = kept
    assert mode == 0o600
    assert administrator["username"] == ADMIN
    assert not verify(bare.principal(ADMIN)["credentials"]["0"]["secret"], administrator["secret"]), "it was replaced"
    assert list(bare.data.glob("stalwart-administrator*")) == [], "the declared administrator has logged in"
    everything_is_right(bare)
    assert consumer(bare) == as_declared(bare)
    settled(bare)


def writes_of(stack: Stack) -> list[str]:
    """Apply to see which writes come; the stack is as before."""
    stack.expect(0, "apply", "--yes")
    writes = stack.writes()
    stack.bare.restore(stack)
    return writes


def test_without_a_recovery_administrator_the_logs_password_gets_in(bare: Stack) -> None:
    unrecoverable(bare)
    [printed] = jmapstage.secrets_of(bare.container("mana-mail").logs.decode())
    done = bare.expect(0, "apply", "--yes", drop=("STALWART_RECOVERY_ADMIN",))
    assert printed not in done.text
    everything_is_right(bare)
    bare.expect(0, "plan", "--detailed-exitcode", drop=("STALWART_RECOVERY_ADMIN",))


def test_a_container_without_the_recovery_variable_is_named_until_the_hint_is_followed(newer_applied: Stack) -> None:
    stack = newer_applied
    named = [item for item in problems(stack) if "STALWART_RECOVERY_ADMIN" in item["summary"]]
    assert named == []
    unrecoverable(stack)
    [found] = [item for item in problems(stack) if "STALWART_RECOVERY_ADMIN" in item["summary"]]
    assert (found["severity"], found["where"]) == ("warning", "container mana-mail")
    declared, line = re.findall(r"`(STALWART_RECOVERY_ADMIN.*?)`", found["hint"])
    stack.example.edit(
        "docker-compose.macmini.yml", "    environment:\n\nvolumes", f"    environment:\n      {declared}\n\nvolumes"
    )
    text = stack.example.env_file.read_text()
    stack.example.env_file.write_text(re.sub("STALWART_RECOVERY_ADMIN=.*", line.replace("PASSWORD", "a-new-one"), text))
    stack.stage.recreate_mail_server()
    assert stack.jmap.environment["STALWART_RECOVERY_ADMIN"] == "admin:a-new-one"
    assert not [item for item in problems(stack) if "STALWART_RECOVERY_ADMIN" in item["summary"]]
    stack.watch = Watch(stack)


# -------------------------------------------------------------------------------------------------- what was lost
def test_data_lost_behind_config_json_are_restored_in_one_write(newer_applied: Stack) -> None:
    stack = newer_applied
    records, keys = stack.records(), jmapstage.public_keys(stack.stage)
    stack.watch.server_lost = True
    stack.jmap.wipe_data()
    plan = stack.expect(2, "plan", "--detailed-exitcode", "--output", "json").json
    assert {item["reason"] for item in plan["changes"] if item["target"] == "stalwart"} == {"lost"}
    assert not [item for item in plan["changes"] if "delete" in item["actions"]]
    wire(stack)
    stack.expect(0, "apply", "--yes")
    asked = wire(stack)
    assert asked == [
        PROBE,
        (ADMIN, "read"),
        ("admin", "read"),
        ("admin", "write"),
        PROBE,
        (ADMIN, "read"),
        (ADMIN, "/api/schema"),
    ]
    everything_is_right(stack)
    assert jmapstage.public_keys(stack.stage) == keys
    assert stack.records() == records, "byte for byte, modified_on too"
    assert consumer(stack) == as_declared(stack)
    settled(stack)


def test_a_server_that_lost_everything_is_restored(newer_applied: Stack) -> None:
    stack = newer_applied
    records, keys = stack.records(), jmapstage.public_keys(stack.stage)
    stack.watch.server_lost = True
    stack.jmap.wipe_all()
    assert "in bootstrap mode" in stack.expect(2, "plan", "--detailed-exitcode").text
    stack.expect(0, "apply", "--yes")
    everything_is_right(stack)
    assert (jmapstage.public_keys(stack.stage), stack.records()) == (keys, records)
    settled(stack)


def test_data_without_config_json_are_never_set_up_anew(newer_applied: Stack) -> None:
    stack = newer_applied
    stack.jmap.lose_config()
    before = stack.everything()
    plan = stack.expect(1, "plan", "--output", "json").json
    assert (plan["changes"], plan["unread"]) == ([], ["stalwart"])
    [error] = [item for item in plan["problems"] if item["severity"] == "error"]
    assert "/etc/stalwart/config.json" in error["summary"]
    assert "`- ./stalwart-config.json:/etc/stalwart/config.json`" in error["hint"]
    stack.expect(1, "apply", "--yes")
    assert stack.everything() == before
    assert stack.writes() == []
    [config] = re.findall(r"`({.*?})`", error["hint"])
    stack.jmap.config = json.loads(config)
    stack.jmap.restart()
    settled(stack)


# ---------------------------------------------------------------------------------------------- from 0.15 to 0.16
def test_the_directory_of_a_015_makes_the_same_on_a_016(applied: Stack, newer: Stack) -> None:
    old, new = applied, newer
    texts = {name: record["content"].replace('" "', "") for (_, name), record in old.ours().items()}
    keys = {
        selector: texts[f"{selector}._domainkey"].strip('"').partition("p=")[2] for selector in ("mana2026", "rsa2026")
    }
    moved(old, new)
    records = new.records()
    assert (consumer(new), 587 in new.jmap.ports) == (as_declared(new, "noreply"), False)
    plan = new.expect(2, "plan", "--detailed-exitcode", "--output", "json").json
    assert {item["target"] for item in plan["changes"]} == {"stalwart", "compose"}
    assert [item["address"] for item in plan["changes"] if item["target"] == "compose"] == [
        "smtp/mana-notify/SMTP_USER"
    ]
    new.expect(0, "apply", "--yes")
    everything_is_right(new)
    assert jmapstage.public_keys(new.stage) == keys, "what is published since 0.15"
    assert new.records() == records
    assert not [line for line in new.writes() if line.startswith("cloudflare")]
    assert consumer(new) == as_declared(new)
    settled(new)


def moved(old: Stack, new: Stack) -> None:
    """Take the directory, its data, the zone and the env file to where 0.16 runs in a new container."""
    for name in ("desired-state", "secrets", ".reconciler"):
        shutil.rmtree(new.example.path / name, ignore_errors=True)
        shutil.copytree(old.example.path / name, new.example.path / name)
    [line] = [line for line in new.example.env_file.read_text().splitlines() if "RECOVERY" in line]
    new.example.env_file.write_text(f"{line}\n{old.example.env_file.read_text()}")
    new.stage.cloudflare.load(old.stage.cloudflare.dump())
    kept = ("CLOUDFLARE_API_TOKEN", "STALWART_RECOVERY_ADMIN")
    new.env.update({name: value for name, value in old.secrets.items() if name not in kept})
    assert new.stage.project is not None
    new.stage.project.up(new.stage.docker_host)
    new.tape.forget()
    new.watch = Watch(new)
