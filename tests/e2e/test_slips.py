"""A slip of the pen in an address, a stack's name, a zone: what is there stays, and the remedy is told."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

OLD, TYPED = "postmaster@mana.how", "postmaster@mana.hwo"


@pytest.fixture(params=["rest", "jmap"])
def kept(request: pytest.FixtureRequest) -> Any:
    """The example, applied: both servers know the accounts."""
    return request.getfixturevalue("applied" if request.param == "rest" else "newer_applied")


def reached(stack: Any, address: str) -> int:
    return len(stack.stage.stalwart.mailboxes(address))


def retype(stack: Any, typed: str) -> None:
    stack.edit("accounts.yaml", f"  {OLD}:\n", f"  {typed}:\n")


@pytest.mark.parametrize("typed", [TYPED, "postmater@mana.how"])
def test_l7_a_retyped_address_takes_nothing_away_and_needs_moved(kept: Any, typed: str) -> None:
    retype(kept, typed)
    refused = kept.expect(4, "apply", "--yes")
    assert f"moved: [{{from: account/{OLD}, to: account/{typed}}}]" in refused.text.replace("\n", " ")
    assert reached(kept, OLD) == 1
    assert (typed == TYPED) is ("did you mean mana.how?" in refused.text)
    assert kept.changes().keys() >= {f"account/{typed}"}, "nothing of it was done"


def test_l7_what_is_moved_keeps_its_mailbox(kept: Any) -> None:
    retype(kept, "chief@mana.how")
    kept.write("moved.yaml", f"moved: [{{from: account/{OLD}, to: account/chief@mana.how}}]\n")
    kept.expect(0, "apply", "--yes")
    kept.expect(0, "plan", "--detailed-exitcode")
    assert reached(kept, "chief@mana.how") == 1
    assert reached(kept, OLD) == 0


def test_l7_what_is_taken_out_is_named_with_the_lines_to_write(kept: Any) -> None:
    path = kept.example.state / "accounts.yaml"
    text = path.read_text()
    path.write_text(text[: text.index(f"  {OLD}:")])
    found = kept.expect(0, "plan", "--output", "json").json["problems"]
    [problem] = [item for item in found if item["where"] == f"account/{OLD}"]
    assert f"removed: [account/{OLD}]" in problem["hint"]
    assert "moved: " in problem["hint"]


def test_l5_another_directory_of_one_name_is_told_whose_records_would_go(applied: Any) -> None:
    other = applied.example.path / "elsewhere" / "desired-state"
    other.mkdir(parents=True)
    shutil.copy(applied.example.state / "reconciler.yaml", other)
    (other / "dns.yaml").write_text("dns: {mana.how: [{type: TXT, name: x, content: another}]}\n")
    argv = ("--state", str(other), "--target", "cloudflare", "--output", "json")
    found = applied.run("plan", *argv).json["problems"]
    [problem] = [item for item in found if item["where"] == "stack mana"]
    assert "dns/mana.how/MX/@" in problem["summary"]
    assert "stack: mana" in problem["hint"]
    before = applied.records()
    applied.expect(4, "apply", "--yes", *argv)
    assert applied.records() == before
    mine = applied.run("plan", "--output", "json").json["problems"]
    assert [item for item in mine if item["where"] == "stack mana"] == []


def test_l4_a_zone_that_is_taken_out_is_unmanaged_while_a_provider_stands_by_there(applied: Any) -> None:
    before = {item["id"]: item for item in applied.marked()}
    (applied.example.state / "dns.yaml").write_text("dns: {}\n")
    records = "      dns: {mana.how: [{type: TXT, name: brevo, content: code}]}\n"
    applied.edit(
        "smtp.yaml",
        "      host: smtp-relay.brevo.com\n",
        f"      standby: true\n{records}      host: smtp-relay.brevo.com\n",
    )
    applied.expect(0, "apply", "--yes", "--target", "cloudflare")
    after = {item["id"]: item for item in applied.marked()}
    assert {name: after.get(name) for name in before} == before
    assert [item["name"] for name, item in after.items() if name not in before] == ["brevo.mana.how"]


# --------------------------------------------------------------------------------------------- a stack, and its zones
def told(stack: Any, where: str) -> list[dict[str, Any]]:
    return [item for item in stack.run("plan", "--output", "json").json["problems"] if item["where"] == where]


def test_a_stack_that_is_renamed_is_told_whose_records_those_are(applied: Any) -> None:
    assert not told(applied, "stack anew")
    applied.edit("reconciler.yaml", "stack: mana ", "stack: anew ")
    [problem] = told(applied, "stack anew")
    assert "mark of the stack mana, and none that of anew" in problem["summary"]
    assert "write `stack: mana` again" in problem["hint"]
    applied.edit("reconciler.yaml", "stack: anew ", "stack: mana ")
    assert not told(applied, "stack anew")


def test_a_zone_that_is_taken_out_is_named_once_and_its_records_stay(applied: Any) -> None:
    before = applied.records()
    (applied.example.state / "dns.yaml").unlink()
    [problem] = told(applied, "dns/mana.how")
    assert problem["severity"] == "warning"
    assert "is no longer declared: its records stay as they are" in problem["summary"]
    applied.edit("accounts.yaml", "1 GiB", "2 GiB")
    applied.expect(0, "apply", "--yes")
    assert applied.records() == before
    assert not told(applied, "dns/mana.how")


def test_a_zone_whose_records_are_given_up_first_is_not_missed(applied: Any) -> None:
    (applied.example.state / "dns.yaml").write_text("dns: {mana.how: []}\n")
    (applied.example.state / "dkim.yaml").unlink()
    applied.write("removed.yaml", "removed: [dkim/mana.how/mana2026, dkim/mana.how/rsa2026]\n")
    applied.expect(0, "apply", "--yes", "--allow-deletes", "50")
    applied.expect(0, "apply", "--yes", "--allow-deletes", "50")
    assert not applied.marked()
    (applied.example.state / "dns.yaml").unlink()
    assert not told(applied, "dns/mana.how")
