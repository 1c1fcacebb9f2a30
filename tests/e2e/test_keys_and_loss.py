"""DKIM keys that replace each other, and servers that lost what they had, through the commands of a user."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from reconciler.keys import public_half

DAY = dt.date(2027, 3, 1)


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


def publish(stack: Any, before: str, new: str) -> None:
    """Publish the new key beside those that sign; ``before`` is dkim.yaml without it."""
    (stack.example.state / "dkim.yaml").write_text(f"{before}{new}      stage: pending\n")
    stack.expect(0, "apply", "--yes")
    assert ("new" in published(stack), signing(stack)) == (True, {"mana2026", "rsa2026"})
    stack.tape.forget()


def hand_over(stack: Any, before: str, new: str, stage: str) -> None:
    """Let the new key sign from `DAY` on, and the old one of its algorithm leave."""
    head, old, rest = re.split(r"(    - selector: mana2026\n(?:      .*\n)+)", before)
    left = "" if stage == "removed" else f"{old}      stage: {stage}\n      since: {DAY}\n"
    (stack.example.state / "dkim.yaml").write_text(f"{head}{left}{rest}{new}      since: {DAY}\n")
    stack.write("removed.yaml", f"removed: [{'dkim/mana.how/mana2026' if stage == 'removed' else ''}]\n")


def refused(stack: Any, *words: str) -> None:
    """See that an apply is refused in these words, and that nothing was written."""
    done = stack.expect(4, "apply", "--yes")
    assert all(word in done.text for word in words), done.text
    assert stack.writes() == []


def test_a_key_takes_over_when_every_name_server_shows_it(applied: Any) -> None:
    stack, names, new = applied, applied.stage.dns, new_key(applied, "new")
    before = (stack.example.state / "dkim.yaml").read_text()
    stack.be(DAY)
    hand_over(stack, before, new, "retiring")
    refused(stack, "would sign before", *names.servers)
    (stack.example.state / "removed.yaml").unlink()
    names.hold(1)
    publish(stack, before, new)
    hand_over(stack, before, new, "retiring")
    refused(stack, "would sign before", f"{names.servers[1]} does not show it yet")
    names.release(1)
    names.stop(0)
    refused(stack, "would sign before", f"{names.servers[0]} could not be asked")
    names.start(0)
    stack.expect(0, "apply", "--yes")
    assert signing(stack) == {"new", "rsa2026"}
    assert "mana2026" in published(stack)
    stored = stack.settings()
    assert stored["signature.ed25519-mana.how.selector"] == "new"
    assert "mana2026" not in [value for name, value in stored.items() if name.endswith(".selector")]
    assert pending(stack) == 0


@pytest.mark.parametrize("stage", ["retired", "removed"])
def test_a_key_that_another_took_over_from_stays_published_for_a_week(applied: Any, stage: str) -> None:
    stack, new = applied, new_key(applied, "new")
    before = (stack.example.state / "dkim.yaml").read_text()
    stack.be(DAY)
    publish(stack, before, new)
    hand_over(stack, before, new, stage)
    for day in (0, 30):  # however old the day in the directory is: it signs until this very plan
        stack.be(DAY + dt.timedelta(days=day))
        refused(stack, "dns/mana.how/TXT/mana2026._domainkey", "takes over, in this very plan")
    stack.be(DAY)
    hand_over(stack, before, new, "retiring")
    stack.expect(0, "apply", "--yes")
    stack.tape.forget()
    hand_over(stack, before, new, stage)
    for day in (0, 1, 7):  # on the last of them its last mail may be seven days old
        stack.be(DAY + dt.timedelta(days=day))
        refused(stack, "dns/mana.how/TXT/mana2026._domainkey", "may still be in a queue")
    stack.be(DAY + dt.timedelta(days=8))
    stack.expect(0, "apply", "--yes")
    assert (signing(stack), "mana2026" in published(stack)) == ({"new", "rsa2026"}, False)
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
