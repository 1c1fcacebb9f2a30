"""What was once this directory's, told from a journal and from commits."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from reconciler import past
from reconciler.dns.records import dkim_record, record
from reconciler.git import added
from reconciler.journal import Entry, Written
from reconciler.resources import Account

ZONE = "mana.how"
KEY = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
SPF = record(ZONE, "TXT", "@", "v=spf1 mx include:spf.brevo.com -all")
MAIL = record(ZONE, "A", "mail", "192.0.2.1")
BOX = Account("postmaster@mana.how")


def entries(*written: Written) -> list[Entry]:
    return [Entry("1", "mana", "now", "me", written=written)]


@pytest.mark.parametrize(
    ("rows", "known"),
    [
        ([("create", "done", "192.0.2.1")], True),
        ([("adopt", "done", "192.0.2.1")], True),
        ([("create", "unknown", "192.0.2.1")], True),
        ([("create", "failed", "192.0.2.1")], False),
        ([("create", "done", "192.0.2.9")], False),
        ([("delete", "done", None)], False),
    ],
)
def test_l5_a_record_was_written_from_here_with_its_value(rows, known):
    written = [
        Written("dns/mana.how/A/mail[192.0.2.1]", (action,), status, after=content and {"content": content})
        for action, status, content in rows
    ]
    assert past.applied(entries(*written), [MAIL]) == ({MAIL} if known else set())


@pytest.mark.parametrize(("actions", "known"), [(("create",), 1), (("update",), 1), (("create", "delete"), 0), ((), 0)])
def test_l7_an_account_was_kept_from_here_until_it_was_removed(actions, known):
    written = [Written(BOX.address, (action,), "done") for action in actions]
    assert len(past.applied(entries(*written), [BOX])) == known


@pytest.mark.parametrize(
    ("text", "item"),
    [
        ('- {type: TXT, name: "@", content: "v=spf1 mx include:spf.brevo.com -all"}', SPF),
        ("- type: TXT\n  name: '@'\n  content: >-\n    v=spf1 mx\n    include:spf.brevo.com -all\n", SPF),
        ("- {type: a, name: Mail, content: 192.0.2.1}", MAIL),
        ("dkim: {mana.how: [{selector: s1, algorithm: ed25519}]}", dkim_record(ZONE, ZONE, "s1", "ed25519", KEY)),
        ("  postmaster@mana.how:", BOX),
        ("accounts: {Postmaster@Mana.How: {}}", BOX),
        (
            "- {type: SRV, name: _imaps._tcp, data: {priority: 0, weight: 1, port: 993, target: mail.mana.how.}}",
            record(ZONE, "SRV", "_imaps._tcp", "0 1 993 mail.mana.how"),
        ),
    ],
)
def test_l5_a_commit_declared_it_however_it_is_written(text, item):
    assert past.committed(text, [item]) == {item}


@pytest.mark.parametrize(
    ("text", "item"),
    [
        ("- {type: A, name: mailer, content: 192.0.2.1}", MAIL),
        ("- {type: A, name: mail, content: 192.0.2.2}", MAIL),
        ("  old-postmaster@mana.how:\n  postmaster@mana.how.example:", BOX),
        ("", SPF),
    ],
)
def test_l5_what_only_looks_like_it_is_no_declaration(text, item):
    assert past.committed(text, [item]) == set()


def git(folder: Path, *arguments: str) -> None:
    name = ("-c", "user.name=a", "-c", "user.email=a@b.example", "-c", "init.defaultBranch=main")
    environ = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    subprocess.run(["git", *name, *arguments], cwd=folder, check=True, capture_output=True, env=environ)


@pytest.fixture
def repository(tmp_path):
    state = tmp_path / "one" / "desired-state"
    state.mkdir(parents=True)
    git(tmp_path / "one", "init", "-q")
    for text in ("- {type: A, name: mail, content: 192.0.2.1}\n", "gone: true\n"):
        (state / "a.yaml").write_text(text)
        git(tmp_path / "one", "add", ".")
        git(tmp_path / "one", "commit", "-qm", "x")
    return state


def test_l5_commits_tell_what_is_not_declared_any_more(repository, tmp_path):
    told = added(repository, os.environ)
    assert past.committed(told, [MAIL, SPF]) == {MAIL}
    other = tmp_path / "one" / "another"
    other.mkdir()
    assert added(other, os.environ) == ""  # of another directory of the same repository
    assert added(tmp_path, os.environ) == ""


def test_l5_a_shallow_checkout_can_not_tell(repository, tmp_path):
    git(tmp_path, "clone", "-q", "--depth=1", f"file://{repository.parent}", "two")
    assert added(tmp_path / "two" / "desired-state", os.environ) is None


def test_t1_nothing_that_the_repository_configures_is_run(repository, tmp_path):
    ran, config = tmp_path / "ran", repository.parent / ".git" / "config"
    script = tmp_path / "script"
    script.write_text(f"#!/bin/sh\ntouch {ran}\ncat\n")
    script.chmod(0o755)
    config.write_text(
        f"{config.read_text()}\n[core]\n fsmonitor = {script}\n pager = {script}\n sshCommand = {script}\n"
        f'[diff]\n external = {script}\n[diff "x"]\n textconv = {script}\n command = {script}\n'
        f"[log]\n showSignature = true\n[gpg]\n program = {script}\n[pager]\n log = {script}\n"
    )
    (repository.parent / ".gitattributes").write_text("*.yaml diff=x filter=x\n")
    assert past.committed(added(repository, os.environ), [MAIL]) == {MAIL}
    assert not ran.exists()
