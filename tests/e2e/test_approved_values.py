"""Where each change is to be approved, a secret that gets another value is one: with both generations of the server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from reconciler import keys
from reconciler.simulator.wire import Reply

from .stagefixtures import Stack
from .test_canaries import forms

NEXT, LATER = "canary-next-password-41", "canary-later-password-42"
ACCOUNT = "account/noreply@mana.how"


@pytest.fixture(params=["applied", "newer_applied"])
def stack(request: pytest.FixtureRequest) -> Iterator[Stack]:
    """A stack all of which was agreed, changes of which are to be approved from now on."""
    made: Stack = request.getfixturevalue(request.param)
    made.edit("reconciler.yaml", "max_deletes: 3 ", "approval: plan\n  max_deletes: 3 ")
    made.expect(0, "daemon", "--once")
    made.tape.forget()
    yield made
    for path in made.data.rglob("*"):
        if path.is_file():
            told = path.read_bytes()
            found = [form for value in (NEXT, LATER, *made.secrets.values()) for form in forms(value)]
            assert [form for form in found if len(form) > 7 and form.encode() in told] == [], path


def held(stack: Stack) -> dict[str, str]:
    told = json.loads((stack.data / "approval-mana.json").read_text())["held"]
    return {str(address): str(name) for address, name in told.items()}


def in_force(stack: Stack) -> dict[str, Any]:
    """Return what accounts, records and consumers have."""
    return stack.everything() | {"stalwart": stack.meaning()}


def test_another_value_of_a_password_reaches_nobody_before_it_is_approved(stack: Stack) -> None:
    before = in_force(stack)
    stack.env["NOREPLY_PASSWORD"] = NEXT
    stack.expect(4, "daemon", "--once")
    assert in_force(stack) == before
    assert stack.writes() == []
    waits = held(stack)
    assert ACCOUNT in waits
    assert any(address.startswith("smtp/") for address in waits)
    told = stack.expect(0, "status").text
    assert "{env: NOREPLY_PASSWORD} has another value than was agreed" in " ".join(told.split())
    assert stack.run("apply", "--yes").code == 4  # nor by hand, without a word of approval
    assert in_force(stack) == before
    stack.expect(0, "approve", *waits.values())
    stack.env["NOREPLY_PASSWORD"] = LATER  # than the one that was approved
    stack.expect(4, "daemon", "--once")
    assert in_force(stack) == before
    stack.expect(0, "approve", *held(stack).values())
    stack.expect(0, "daemon", "--once")
    assert in_force(stack) != before
    stack.expect(0, "plan", "--detailed-exitcode", "--check-passwords")
    stack.expect(0, "daemon", "--once")


def test_a_person_approves_it_by_hand_as_well(stack: Stack) -> None:
    before = in_force(stack)
    stack.env["NOREPLY_PASSWORD"] = NEXT
    plan = stack.run("plan", "--output", "json").json
    names = {item["address"]: item["fingerprint"] for item in plan["changes"]}
    assert {item["where"] for item in plan["held"]} == set(names)
    stack.expect(0, "apply", "--yes", *(part for name in names.values() for part in ("--approve", name[:16])))
    assert in_force(stack) != before
    stack.expect(0, "daemon", "--once")
    stack.expect(0, "plan", "--detailed-exitcode")


def test_a_private_key_that_is_another_is_not_published_while_the_server_can_not_be_asked(stack: Stack) -> None:
    path = stack.example.path / "secrets/rsa2026.pem"
    published = {name: record["content"] for name, record in stack.ours().items() if "_domainkey" in str(name)}
    former = path.read_bytes()
    path.write_text(keys.generate("rsa"))
    fault = stack.fault("stalwart", reply=Reply.of({}, 503), times=10**6)
    stack.run("daemon", "--once")
    assert {name: record["content"] for name, record in stack.ours().items() if "_domainkey" in str(name)} == published
    assert any("/TXT/" in address and "_domainkey" in address for address in held(stack))
    stack.stage.stalwart_server.faults.remove(fault)
    path.write_bytes(former)
    stack.expect(0, "daemon", "--once")
    stack.expect(0, "plan", "--detailed-exitcode")


def test_what_doctor_mends_is_held_to_approval_as_well(stack: Stack) -> None:
    old = "{type: A, name: mail, content: 194.191.241.139}"
    stack.edit("dns.yaml", old, old.replace("194.191.241.139", "192.0.2.66"))
    stack.env["NOREPLY_PASSWORD"] = NEXT
    published = {name: record["content"] for name, record in stack.ours().items()}
    before = in_force(stack)
    lost = next(item for item in stack.marked() if "_domainkey" in item["name"])
    stack.stage.cloudflare.remove("mana.how", lost["id"])
    done = stack.expect(6, "doctor", "--only", "dns/dkim", "--fix", "--yes")
    assert "Held, until a person approves them" in done.text
    assert {name: record["content"] for name, record in stack.ours().items()} == published
    assert in_force(stack)["env"] == before["env"]
    assert {item["address"] for item in stack.run("plan", "--output", "json").json["changes"]} >= {
        "dns/mana.how/A/mail"
    }


def test_what_heals_beside_a_held_value_does_not_bring_it_along(stack: Stack) -> None:
    """The service is recreated for the sake of its host, and the account is written for that of its description."""

    def passwords() -> list[str]:
        return [line for line in stack.example.env_file.read_text().splitlines() if line.startswith("SMTP_PASSWORD=")]

    before, running = passwords(), dict(stack.container("mana-core-notify").environment)
    stack.env["NOREPLY_PASSWORD"] = NEXT
    text = stack.example.env_file.read_text()
    stack.example.env_file.write_text(f"SMTP_HOST=elsewhere.example\n{text}")
    done = stack.expect(6, "daemon", "--once")
    assert "smtp/mana-notify/SMTP_HOST" in done.text
    assert passwords() == before
    assert stack.container("mana-core-notify").environment == running
    configured = stack.run("plan", "--output", "json").json["changes"]
    assert "smtp/mana-notify/SMTP_HOST" not in [item["address"] for item in configured]
    stack.watch = type(stack.watch)(stack)
    waits = held(stack)
    assert ACCOUNT in waits
    assert "smtp/mana-notify/SMTP_PASSWORD" in waits
    assert "smtp/mana-notify/SMTP_HOST" not in waits
