"""A user's two domains, twelve accounts, a shared mailbox and three lists, without raw settings, on both servers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from .stagefixtures import Stack
from .test_faults import lost

NAMES = ("ada", "ben", "cleo", "dan", "eve", "finn", "gil", "hana", "ida", "jon")
HOMES = ("mana.how", "mana.test")
ADDRESSES = [f"{name}@{HOMES[number % 2]}" for number, name in enumerate(NAMES)]  # with noreply and postmaster, twelve
BOX = "  %s:\n    {password: {env: NOREPLY_PASSWORD}, login: %s, groups: [%s]}\n"
BOXES = "".join(BOX % (ADDRESSES[at], name, "staff@mana.how" if at < 3 else "") for at, name in enumerate(NAMES))
PEOPLE = f"""\
accounts:
{BOXES}
groups:
  staff@mana.how: {{description: Staff, aliases: [team@mana.test]}}
lists:
  news@mana.how: {{description: The news, members: [ada@mana.how, Reader@Elsewhere.org, staff@mana.how]}}
  all@mana.test: {{aliases: [everybody@mana.how], members: [{", ".join(ADDRESSES)}]}}
  quiet@mana.test: {{members: []}}
domains:
  mana.how: {{description: The first, catch_all: ada@mana.how}}
  mana.test: {{catch_all: staff@mana.how}}
"""
ALIASES = (
    "  mana.how: {description: The first, catch_all: ada@mana.how, aliases: [mana.example], sub_addressing: false}\n"
)


@pytest.fixture(params=["rest", "jmap"])
def mail(request: pytest.FixtureRequest) -> Iterator[Stack]:
    """The example, with all these people, before its first apply."""
    stack: Stack = request.getfixturevalue("stack" if request.param == "rest" else "newer")
    stack.write("people.yaml", PEOPLE)
    stack.edit("stalwart.yaml", "\nstalwart:\n", "\nstalwart:\n  default_domain: mana.how\n")
    return stack


def settled(stack: Stack, *argv: str) -> str:
    """Apply, and see that a second plan is empty."""
    said = stack.expect(0, "apply", "--yes", *argv).out
    stack.expect(0, "plan", "--detailed-exitcode", *argv)
    return said


def delivered(stack: Stack, address: str) -> set[str]:
    """Return whom a mail reaches: by login up to 0.15, by address from 0.16."""
    server: Any = stack.stage.stalwart
    return set(server.mailboxes(address))


def person(stack: Stack, *names: str) -> set[str]:
    """Name accounts as `delivered` does."""
    return {name if stack.generation == "rest" else f"{name}@{HOMES[NAMES.index(name) % 2]}" for name in names}


def staff(stack: Stack) -> set[str]:
    found = delivered(stack, "staff@mana.how")
    assert len(found) == 1, "the shared mailbox itself gets it"
    return found


def everyone_gets_mail(stack: Stack) -> None:
    assert delivered(stack, "team@mana.test") == staff(stack)
    assert delivered(stack, "news@mana.how") == {"reader@elsewhere.org", *person(stack, "ada"), *staff(stack)}
    assert delivered(stack, "everybody@mana.how") == person(stack, *NAMES)
    assert delivered(stack, "quiet@mana.test") == set()
    assert delivered(stack, "nobody@mana.how") == person(stack, "ada")
    assert delivered(stack, "nobody@mana.test") == staff(stack)


def lose(stack: Stack) -> None:
    stack.watch.server_lost = True
    stack.watch.touched.add("mana-mail")
    stack.stage.recreate_mail_server()
    if stack.generation == "jmap":
        stack.jmap.wipe_data()


def listing(stack: Stack) -> Any:
    """Return what the plan counts as it should be, and whom mail reaches."""
    plan = stack.expect(0, "plan", "--output", "json").json
    boxes = [f"{name}@{home}" for name in (*NAMES, "staff", "team", "news", "all", "quiet", "x") for home in HOMES]
    return [{name: sorted(delivered(stack, name)) for name in boxes}, len(plan["changes"])]


def test_one_apply_makes_them_and_they_come_back_after_a_loss(mail: Stack) -> None:
    said = mail.expect(2, "plan", "--detailed-exitcode").out
    assert "group/staff@mana.how" in said
    assert "aliases: [team@mana.test]" in said
    settled(mail)
    everyone_gets_mail(mail)
    before = listing(mail)
    lose(mail)
    reasons = {name: item["reason"] for name, item in mail.changes().items()}
    for name in ("group/staff@mana.how", "list/news@mana.how", "list/quiet@mana.test", "domain/mana.test"):
        assert reasons[name] == "lost"
    settled(mail)
    everyone_gets_mail(mail)
    assert listing(mail) == before


def test_drift_is_shown_and_mended(mail: Stack) -> None:
    settled(mail)
    text = PEOPLE.replace("staff@mana.how]}\n  all", "staff@mana.how, new@elsewhere.org]}\n  all")
    text = text.replace("description: Staff, aliases: [team@mana.test]", "aliases: []")
    text = text.replace("mana.test: {catch_all: staff@mana.how}", "mana.test: {catch_all: null, description: Second}")
    text = text.replace("login: ada, groups: [staff@mana.how]", "login: ada, groups: []")
    mail.write("people.yaml", text)
    settled(mail)  # the world drifts to another wish
    assert delivered(mail, "team@mana.test") == set()
    assert "new@elsewhere.org" in delivered(mail, "news@mana.how")
    assert delivered(mail, "nobody@mana.test") == set()
    mail.write("people.yaml", PEOPLE)
    changes = mail.changes()
    assert set(changes) == {"group/staff@mana.how", "list/news@mana.how", "domain/mana.test", "account/ada@mana.how"}
    assert {item["reason"] for item in changes.values()} == {"differs"}
    settled(mail)
    everyone_gets_mail(mail)


def test_nothing_goes_but_by_removed(mail: Stack) -> None:
    settled(mail)
    without = re.sub(r"(?ms)^groups:.*", "", PEOPLE).replace("groups: [staff@mana.how]", "groups: []")
    mail.write("people.yaml", without + "domains: {mana.how: {catch_all: null}, mana.test: {catch_all: null}}\n")
    settled(mail)
    assert len(staff(mail)) == 1
    assert delivered(mail, "all@mana.test") == person(mail, *NAMES)
    mail.write("gone.yaml", "removed: [group/staff@mana.how, list/all@mana.test, list/news@mana.how]\n")
    said = mail.expect(2, "plan", "--detailed-exitcode").out
    assert "its mailbox and every mail in it are destroyed" in said
    settled(mail)
    for address in ("staff@mana.how", "team@mana.test", "all@mana.test", "news@mana.how"):
        assert delivered(mail, address) == set()
    assert delivered(mail, "ben@mana.test") == person(mail, "ben")


def test_a_group_with_a_member_and_a_domain_with_a_list_stay(mail: Stack) -> None:
    settled(mail)
    mail.write("gone.yaml", "removed: [group/staff@mana.how]\n")
    assert "ada@mana.how belongs to staff@mana.how" in mail.expect(3, "validate").text
    without = re.sub(r"(?ms)^groups:.*", "", PEOPLE).replace(", groups: [staff@mana.how]", "")
    mail.write("people.yaml", without)
    refused = mail.expect(4, "apply", "--yes").text
    assert "account/ada@mana.how, account/ben@mana.test, account/cleo@mana.how still belong to it" in refused


def test_what_one_generation_can_not_do_is_said(mail: Stack) -> None:
    text = re.sub(r"(?m)^  mana\.how: .*\n", ALIASES, PEOPLE)
    mail.write("people.yaml", text)
    if mail.generation == "rest":
        said = json.dumps(mail.run("plan", "--output", "json").json["problems"])
        assert said.count("that needs 0.16") == 2
        return
    settled(mail)
    assert delivered(mail, "ben@mana.test") == person(mail, "ben")
    assert delivered(mail, "ada@mana.example") == person(mail, "ada")
    assert delivered(mail, "cleo+shop@mana.how") == person(mail, "ada"), "the catch-all gets it"


@pytest.mark.long
def test_a_lost_answer_at_each_write_converges(mail: Stack) -> None:
    settled(mail)
    mail.write(
        "people.yaml", PEOPLE.replace("Staff", "All staff").replace("The news", "All news").replace("The first", "1")
    )

    number = len(mail.writes())
    while mail.run("plan", "--detailed-exitcode").code == 2:
        mail.tape.at[len(mail.writes())] = lost
        mail.run("apply", "--yes")
        assert len(mail.writes()) - number < 20
    settled(mail)
    everyone_gets_mail(mail)


def test_an_import_says_them_and_a_restore_from_it_is_the_same(mail: Stack) -> None:
    settled(mail)
    everyone_gets_mail(mail)
    before = mail.writes()
    username = "admin" if mail.generation == "rest" else "admin@mana.how"
    what = ("import", "--stalwart", "http://localhost:8443", "--username", username, "--out", "imported")
    what += ("--compose", "docker-compose.macmini.yml", "--stack", "mana")
    done = mail.expect(0, *what, "--output", "json").json
    assert mail.writes() == before
    assert {"groups.yaml", "domains.yaml"} <= set(done["files"])
    text = (mail.example.path / "imported" / "groups.yaml").read_text()
    assert "reader@elsewhere.org" in text
    new = ("--state", "imported", "--data", ".imported")
    mail.expect(0, "plan", *new, "--detailed-exitcode")
    lose(mail)
    mail.run("apply", *new, "--yes")
    everyone_gets_mail(mail)
