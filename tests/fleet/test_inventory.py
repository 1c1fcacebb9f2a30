"""The inventory: what it says, and how its mistakes are told."""

from __future__ import annotations

import pytest

from reconciler.fleet.inventory import read, ring
from reconciler.problem import InvalidDirectory, ReconcilerError

GOOD = """\
version: 1
interval: 10m
rings: [{healthy: 5s, failures: 1}, {}]
defaults: {repo: /srv/git/customers.git, directory: "stacks/{stack}"}
stacks:
  acme: {ring: 0, account: cf, server: mx1, group: eu}
  globex:
  initech: {directory: elsewhere, suspended: moved on Friday}
"""


def test_stacks_have_what_defaults_say_and_their_own_place():
    fleet = read(GOOD)
    assert [entry.directory for entry in fleet.stacks.values()] == ["stacks/acme", "stacks/globex", "elsewhere"]
    assert {entry.repo for entry in fleet.stacks.values()} == {"/srv/git/customers.git"}
    assert [ring(fleet, entry) for entry in fleet.stacks.values()] == [0, 1, 1]
    assert (fleet.interval, fleet.rings[0].healthy, fleet.stacks["acme"].group) == (600, 5, "eu")
    assert fleet.stacks["initech"].suspended == "moved on Friday"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "fleet.yaml: names no stack (write stacks: and below it NAME: {repo: URL})"),
        ("stacks: [a]", "fleet.yaml:1:1: stacks: must be a map"),
        ("stacks: {a: {repo: /x}, a: {repo: /y}}", "fleet.yaml:1:25: stacks.a: stands twice (the first is at"),
        ("stacks: {a: {rnig: 0, repo: /x}}", "fleet.yaml:1:14: stacks.a.rnig: is not known (did you mean ring?)"),
        ("stacks: {A_: {repo: /x}}", "stacks.A_: is no stack's name (1 to 24 of a-z, 0-9 and -"),
        ("stacks: {a: {}}", "stacks.a.repo: is missing"),
        ("stacks: {a: {repo: 'https://me:secret@host/x'}}", "stacks.a.repo: its address holds a user name or password"),
        ("stacks: {a: {repo: /x}, b: {repo: /x}}", "stacks.b: is the directory of a (one directory is one stack"),
        ("stacks: {a: {repo: /x, ring: 1}}", "stacks.a.ring: is no ring (no rings are declared)"),
        ("stacks: {a: {repo: /x, directory: ../y}}", "stacks.a.directory: is no path in a repository"),
        ("interval: soon\nstacks: {a: {repo: /x}}", "fleet.yaml:1:11: interval: is no time"),
        (f"rings: [{'{}, ' * 21}]\nstacks: {{a: {{repo: /x}}}}", "rings: has 21 rings (20 are the most)"),
    ],
)
def test_a_mistake_is_told_with_its_place_and_what_to_do(text, told):
    with pytest.raises(InvalidDirectory) as caught:
        read(text)
    assert told in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("password", ["pa/ss", "12/ss", "p@ss", "p/s@s", "a@b/c"])
def test_t2_a_password_that_ends_a_urls_host_too_early_is_told_and_not_shown(password):
    from reconciler.fleet.database import conninfo

    with pytest.raises(ReconcilerError) as error:
        conninfo({"RECONCILER_DATABASE": f"postgresql://rec:{password}@db.example/fleet"})
    assert "%2F" in str(error.value)
    assert password not in str(error.value)
    assert "db.example" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://rec:pa%2Fs%40s@db.example:5433/fleet?sslmode=require",
        "postgresql://rec@[::1]/fleet",
        "postgresql://a,b:5433/fleet",
        "postgresql:///fleet?host=/run/postgresql",
        "host=db user=rec password='p@/s' dbname=fleet",
    ],
)
def test_an_address_of_a_database_is_taken_as_libpq_takes_it(text):
    from reconciler.fleet.database import conninfo, shown

    assert "fleet" in shown(conninfo({"RECONCILER_DATABASE": text}))
