"""DKIM keys that replace each other, and servers that lost what they had, through the commands of a user."""

from __future__ import annotations

import re
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from reconciler.keys import public_half


def new_key(stack: Any, selector: str) -> str:
    """Make a key, and return its entry in dkim.yaml without the stage."""
    pem = ed25519.Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    (stack.example.path / "secrets" / f"{selector}.pem").write_text(pem)
    public = public_half("ed25519", pem)
    return (
        f"    - selector: {selector}\n      algorithm: ed25519\n      public_key: {public}\n"
        f"      private_key: {{file: ../secrets/{selector}.pem}}\n"
    )


def pending(stack: Any) -> int:
    return int(stack.run("plan", "--detailed-exitcode").code)


def signing(stack: Any) -> set[str]:
    return {selector for _, selector, _ in stack.stage.stalwart.signing()}


def published(stack: Any) -> set[str]:
    names = [name for kind, name in stack.ours() if kind == "TXT" and "_domainkey" in name]
    return {name.partition("._domainkey")[0] for name in names}


def hand_over(stack: Any, new: str, stage: str) -> None:
    """Let the new key sign, and the old one of its algorithm leave."""
    path = stack.example.state / "dkim.yaml"
    text = path.read_text().replace(f"{new}      stage: pending\n", "")
    head, old, rest = re.split(r"(    - selector: mana2026\n(?:      .*\n)+)", text)
    left = "" if stage == "removed" else f"{old}      stage: {stage}\n"
    path.write_text(f"{head}{left}{rest}{new}")
    if stage == "removed":
        stack.write("removed.yaml", "removed: [dkim/mana.how/mana2026]\n")


@pytest.mark.parametrize("stage", ["retiring", "retired", "removed"])
def test_a_key_takes_over_from_another_in_one_plan(applied: Any, stage: str) -> None:
    stack, new, path = applied, new_key(applied, "new"), applied.example.state / "dkim.yaml"
    before = path.read_text()
    hand_over(stack, new, stage)
    assert "would sign before" in stack.expect(4, "apply", "--yes").text
    assert stack.writes() == []
    path.write_text(before + f"{new}      stage: pending\n")
    (stack.example.state / "removed.yaml").unlink(missing_ok=True)
    stack.expect(0, "apply", "--yes")
    assert ("new" in published(stack), signing(stack)) == (True, {"mana2026", "rsa2026"})
    hand_over(stack, new, stage)
    stack.expect(0, "apply", "--yes")
    assert signing(stack) == {"new", "rsa2026"}
    assert ("mana2026" in published(stack)) == (stage == "retiring")
    stored = stack.settings()
    assert stored["signature.ed25519-mana.how.selector"] == "new"
    assert "mana2026" not in [value for name, value in stored.items() if name.endswith(".selector")]
    assert pending(stack) == 0


def test_a_lost_key_of_the_servers_own_changes_its_record_only_in_the_next_run(applied: Any) -> None:
    stack = applied
    stack.edit("dkim.yaml", "      private_key: {file: ../secrets/rsa2026.pem}\n", "")
    assert pending(stack) == 0
    before = {key: item["content"] for key, item in stack.ours().items()}
    stack.watch.server_lost = True
    stack.watch.touched.add("mana-mail")
    stack.stage.recreate_mail_server()
    stack.edit(
        "dns.yaml",
        '    - {type: TXT, name: _dmarc, content: "v=DMARC1; p=quarantine; rua=mailto:postmaster@mana.how"}\n',
        "",
    )
    plan = stack.run("plan", "--output", "json").json
    assert {item["reason"] for item in plan["changes"] if item["target"] == "stalwart"} == {"lost"}
    assert not any("delete" in item["actions"] for item in plan["changes"])
    stack.run("apply", "--yes")
    assert {key: item["content"] for key, item in stack.ours().items()} == before
    after = stack.changes()
    assert after["dns/mana.how/TXT/rsa2026._domainkey"]["actions"] == ["update"]
    assert after["dns/mana.how/TXT/_dmarc"]["actions"] == ["delete"]
    stack.expect(0, "apply", "--yes")
    assert pending(stack) == 0


def test_a_half_wiped_server_is_not_lost(applied: Any) -> None:
    stack = applied
    for name in ("noreply", "postmaster", "admin"):
        stack.stage.stalwart.directory.delete(stack.principal(name))
    changes = stack.changes()
    assert {item["reason"] for item in changes.values()} == {"missing"}
    stack.expect(0, "apply", "--yes")
    assert pending(stack) == 0
