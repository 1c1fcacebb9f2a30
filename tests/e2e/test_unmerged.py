"""A pull request is planned with whom to trust as main says: it reveals nothing, runs nothing, reaches nobody else."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from daemon.origin import run as git

from reconciler.simulator.wire import Reply, Request, Server

from .stagefixtures import Done, Stack
from .test_canaries import OUTPUTS, forms

CANARIES = {
    "AWS_SECRET": "canary-aws-Zk93/word+x",
    "NEW_PASSWORD": "canary-new-password-77",
}
OUTSIDE = "canary-in-a-file-outside"


class Pull:
    """A repository with main in the work tree, a pull request's head beside it, and a host that nobody should ask."""

    def __init__(self, stack: Stack) -> None:
        self.stack, self.top = stack, stack.example.path
        self.asked: list[str] = []
        self.evil = Server(self._answer).start()
        (self.top.parent / "outside").write_text(OUTSIDE)
        stack.env |= CANARIES | {"CREDENTIALS_DIRECTORY": str(self.top.parent)}
        ours = ("desired-state", "desired-state/**", "docker-compose.macmini.yml", ".gitignore", "more", "more/**")
        (self.top / ".gitignore").write_text("*\n" + "".join(f"!/{name}\n" for name in ours))
        git(self.top, "init", "-q", "-b", "main")
        self.commit()

    def _answer(self, request: Request) -> Reply:
        self.asked.append(f"{request.method} {request.path}")
        return Reply.of({})

    def commit(self) -> str:
        git(self.top, "add", "-A")
        git(self.top, "commit", "-q", "--allow-empty", "-m", "a change")
        return git(self.top, "rev-parse", "HEAD")

    def propose(self, *edits: tuple[str, str, str], at_head: bool = False, **files: str) -> str:
        """Commit edits (file, old, new) and new files to a branch; main is in the work tree again."""
        git(self.top, "checkout", "-q", "-B", "topic", "main")
        for name, old, new in edits:
            self.stack.edit(name, old, new)
        for name, text in files.items():
            self.stack.write(f"{name}.yaml", text)
        head = self.commit()
        if not at_head:
            git(self.top, "checkout", "-q", "main")
        return head

    def plan(self, *argv: str, code: int | None = 0, **options: Any) -> Done:
        """Plan the head in every form; no secret is in any of them, and nobody else was asked."""
        said = {}
        for output in OUTPUTS:
            done = self.stack.run("plan", "--base", "main", "--head", "topic", *argv, "--output", output, **options)
            self.search(done)
            assert code is None or done.code == code, done.text
            said[output] = done
        assert self.asked == []
        assert self.stack.writes() == []
        return said["json"]

    def search(self, done: Done) -> None:
        values = [*CANARIES.values(), OUTSIDE, *self.stack.secrets.values()]
        found = [form for value in values for form in forms(value) if len(form) > 5 and form in done.text]
        assert found == []
        assert "root:" not in done.text

    def changes(self, *argv: str, **options: Any) -> dict[str, dict[str, Any]]:
        return {item["address"]: item for item in self.plan(*argv, **options).json["changes"]}


@pytest.fixture(params=["applied", "newer_applied"])
def pull(request: pytest.FixtureRequest) -> Iterator[Pull]:
    made = Pull(request.getfixturevalue(request.param))
    made.stack.tape.forget()
    yield made
    made.evil.stop()


@pytest.fixture
def older(applied: Stack) -> Iterator[Pull]:
    made = Pull(applied)
    applied.tape.forget()
    yield made
    made.evil.stop()


TTL = (
    "dns.yaml",
    "{type: A, name: mail, content: 194.191.241.139}",
    "{type: A, name: mail, content: 194.191.241.139, ttl: 600}",
)
ACCOUNT = "accounts:\n  new@mana.how: {password: {env: NEW_PASSWORD}}\n"


# ------------------------------------------------------------------------------------------------ what it is good for
def test_a_plan_of_what_is_merged_is_the_plan_as_it_is(pull: Pull) -> None:
    pull.stack.edit("dns.yaml", TTL[1], TTL[2])
    pull.commit()
    usual = pull.stack.run("plan", "--output", "json")
    merged = pull.stack.run("plan", "--base", "main", "--head", "HEAD", "--output", "json")
    assert merged.code == usual.code == 0
    assert merged.json == usual.json
    assert merged.json["unmerged"] is None
    assert [item["address"] for item in merged.json["changes"]] == ["dns/mana.how/A/mail"]
    pull.stack.expect(0, "plan", "--base", "main", "--out", "plan.json")
    pull.stack.expect(0, "apply", "plan.json", "--yes")
    pull.stack.expect(0, "plan", "--detailed-exitcode")


def test_a_pull_request_is_planned_and_its_plan_can_not_be_applied(pull: Pull) -> None:
    head = pull.propose(TTL, more=ACCOUNT)
    document = pull.plan().json
    assert document["unmerged"]["head"] == head
    assert document["unmerged"]["base"] == git(pull.top, "rev-parse", "main")
    assert document["revision"] == head[:12]
    assert document["applyable"] is False
    changes = {item["address"]: item for item in document["changes"]}
    assert set(changes) == {"dns/mana.how/A/mail", "account/new@mana.how"}
    assert "{env: NEW_PASSWORD} is not read before the merge" in changes["account/new@mana.how"]["notes"]
    assert changes["dns/mana.how/A/mail"]["notes"] == []
    [unread] = document["unmerged"]["unread"]
    assert unread == {"reference": "{env: NEW_PASSWORD}", "file": "more.yaml", "line": 2}
    assert pull.plan("--detailed-exitcode", code=2).code == 2

    pull.stack.expect(0, "plan", "--base", "main", "--head", "topic", "--out", "plan.json")
    refused = pull.stack.expect(4, "apply", "plan.json", "--yes")
    assert "is a plan of what is not merged" in refused.err
    saved = json.loads((pull.top / "plan.json").read_text())
    saved["unmerged"] = None  # as whoever could edit the file would
    (pull.top / "plan.json").write_text(json.dumps(saved))
    git(pull.top, "merge", "-q", "--ff-only", "topic")
    assert "stale" in pull.stack.expect(4, "apply", "plan.json", "--yes").err
    assert pull.stack.writes() == []
    pull.stack.expect(0, "apply", "--yes")


def test_a_change_of_a_reference_is_shown_and_not_compared(pull: Pull) -> None:
    """It holds the very value that is live: had it been read, nothing would differ."""
    pull.stack.env["AWS_SECRET"] = pull.stack.secrets["POSTMASTER_PASSWORD"]
    pull.propose(("accounts.yaml", "password: {env: POSTMASTER_PASSWORD}", "password: {env: AWS_SECRET}"))
    change = pull.changes()["account/postmaster@mana.how"]
    assert change["reason"] == "secret_differs"
    assert change["notes"] == ["{env: AWS_SECRET} is not read before the merge"]
    assert change["after"]["password"] == "{env: AWS_SECRET}"
    assert change["before"]["password"] is None


def test_a_reference_that_main_has_elsewhere_is_not_read_here(pull: Pull) -> None:
    """Else whoever writes a pull request could try out one secret as another."""
    pull.stack.env["POSTMASTER_PASSWORD"] = pull.stack.secrets["NOREPLY_PASSWORD"]  # so that they would be equal
    pull.propose(("accounts.yaml", "password: {env: NOREPLY_PASSWORD}", "password: {env: POSTMASTER_PASSWORD}"))
    changes = pull.changes(code=None)
    assert changes["account/noreply@mana.how"]["notes"] == ["{env: POSTMASTER_PASSWORD} is not read before the merge"]


# ---------------------------------------------------------------------------------------------------- whom to trust
def test_a_live_value_is_not_shown_because_the_head_guesses_it(pull: Pull) -> None:
    guess = "canary-live-value"
    container = next(it for it in pull.stack.stage.docker.containers.values() if it.name == "mana-core-notify")
    kept = [item for item in container.config["Env"] if not item.startswith("SMTP_HOST=")]
    container.config["Env"] = [*kept, f"SMTP_HOST={guess}"]
    provider = f"    guess: {{host: x.example, port: 587, username: {guess}, password: {{env: K}}}}\n"
    pull.propose(
        ("smtp.yaml", "  consumers:", f"{provider}  consumers:"),
        ("accounts.yaml", "accounts:", f"accounts:\n  {guess}: {{}}"),
    )
    [change] = [item for address, item in pull.changes(code=None).items() if address.endswith("SMTP_HOST")]
    assert guess not in json.dumps(change)


def test_systems_policy_and_daemon_are_those_of_main(pull: Pull) -> None:
    for old, system in (("http://localhost:8443", "STALWART_URL"), ("", "CLOUDFLARE_BASE_URL")):
        url = pull.stack.stage.environment[system]
        if old:
            pull.stack.edit("reconciler.yaml", old, url)
        else:
            token = "token: {env: CLOUDFLARE_API_TOKEN}"
            pull.stack.edit("reconciler.yaml", token, f"{token}\n    base_url: {url}")
    pull.commit()
    text = (pull.stack.example.state / "reconciler.yaml").read_text()
    for system in ("STALWART_URL", "CLOUDFLARE_BASE_URL"):
        text = text.replace(pull.stack.stage.environment[system], pull.evil.url)
    text = text.replace("max_deletes: 3", "max_deletes: 99").replace(
        "../docker-compose.macmini.yml", "../more/evil.yml"
    )
    text += "\ndaemon: {plans: true, notices: [{env: AWS_SECRET}]}\n"
    (pull.top / "more").mkdir()
    (pull.top / "more/evil.yml").write_text(
        "include: [/etc/passwd]\nservices: {x: {image: x, provider: {type: evil}}}\n"
    )
    git(pull.top, "checkout", "-q", "-b", "topic")
    (pull.stack.example.state / "reconciler.yaml").write_text(text)
    pull.commit()
    git(pull.top, "checkout", "-q", "main")
    pull.stack.zygote.calls.clear()
    document = pull.plan(drop=("STALWART_URL", "CLOUDFLARE_BASE_URL")).json
    assert document["complete"]
    assert document["changes"] == []
    unused = {item["address"]: item for item in document["unmerged"]["unused"]}
    assert set(unused) == {
        "targets.stalwart",
        "targets.cloudflare[{env: CLOUDFLARE_API_TOKEN}]",
        "targets.compose",
        "policy",
        "daemon",
    }
    assert unused["targets.stalwart"]["after"]["url"] == pull.evil.url
    assert {"host": pull.evil.url, "secrets": []} not in document["receivers"]
    assert all(item["host"] != pull.evil.url for item in document["receivers"])
    files = {call["argv"][call["argv"].index("-f") + 1] for call in pull.stack.zygote.calls if "-f" in call["argv"]}
    assert files == {str(pull.stack.example.compose_file)}


def test_a_looser_policy_lets_nothing_more_go(pull: Pull) -> None:
    for number in range(4):
        pull.stack.edit(
            "dns.yaml", "  mana.how:\n", f"  mana.how:\n    - {{type: A, name: x{number}, content: 192.0.2.1}}\n"
        )
    pull.commit()
    pull.stack.expect(0, "apply", "--yes")
    pull.stack.tape.forget()
    git(pull.top, "checkout", "-q", "-b", "topic")
    dns = pull.stack.example.state / "dns.yaml"
    dns.write_text("".join(line for line in dns.read_text().splitlines(keepends=True) if "name: x" not in line))
    pull.stack.edit("reconciler.yaml", "max_deletes: 3", "max_deletes: 99")
    pull.commit()
    git(pull.top, "checkout", "-q", "main")
    done = pull.plan(code=4)
    assert "max_deletes" in done.out


def test_the_stack_s_name_is_that_of_main(pull: Pull) -> None:
    """Else a pull request could make another stack's records go, and have its files of the data directory believed."""
    pull.propose(("reconciler.yaml", "stack: mana ", "stack: other "))
    document = pull.plan().json
    assert document["stack"] == "mana"
    assert document["changes"] == []
    assert [item["address"] for item in document["unmerged"]["unused"]] == ["stack"]


def test_the_administrator_s_password_is_the_one_that_main_says(pull: Pull) -> None:
    """The login may refer to an account, whose reference a pull request may change."""
    login = "password: {env: STALWART_ADMIN_PASSWORD}\n    recovery"
    pull.stack.edit("reconciler.yaml", login, login.replace("{env: STALWART_ADMIN_PASSWORD}", "{account: admin}"))
    pull.commit()
    pull.propose(("accounts.yaml", "password: {env: STALWART_ADMIN_PASSWORD}", "password: {env: AWS_SECRET}"))
    document = pull.plan(code=None).json
    assert document["complete"]
    assert not any("login" in item["summary"] for item in document["problems"])


# ------------------------------------------------------------------------------------------------ secrets it names
REFERENCES = {
    "env": "{env: AWS_SECRET}",
    "file": "{file: /etc/passwd}",
    "outside": "{file: ../../outside}",
    "of the kernel": "{file: /proc/self/environ}",
    "credential": "{credential: outside}",
    "age": "{age: ../../outside}",
    "sops": "{sops: '../more/new.sops.yaml#key'}",
    "account": "{account: admin}",
}


@pytest.mark.parametrize("name", REFERENCES)
def test_a_reference_that_is_new_reads_and_runs_nothing(pull: Pull, tmp_path: Path, name: str) -> None:
    ref = REFERENCES[name]
    log = _recording(tmp_path, "sops", "age", "gpg")
    (pull.top / "more").mkdir(exist_ok=True)
    (pull.top / "more/new.sops.yaml").write_text(SOPS)
    provider = "      password: {env: BREVO_SMTP_KEY}\n"
    settings = "  settings: {}" if pull.stack.generation == "rest" else "  objects: {}"
    new = f"  settings: {{queue.route.relay.auth.secret: {ref}, queue.route.relay.address: '{pull.evil.url[7:]}'}}"
    if pull.stack.generation == "jmap":
        relay = f"{{'@type': Relay, address: '127.0.0.1', port: {pull.evil.port}, authSecret: {ref}}}"
        new = f"  objects: {{MtaRoute: {{relay: {relay}}}}}"
    edits = [
        ("accounts.yaml", "password: {env: POSTMASTER_PASSWORD}", f"password: {ref}"),
        ("smtp.yaml", provider, f"      password: {ref}\n"),
        ("smtp.yaml", "value: {env: MANA_SERVICE_KEY}", f"value: {ref}"),
        ("dkim.yaml", "private_key: {file: ../secrets/mana2026.pem}", f"private_key: {ref}"),
    ]
    if name == "account":  # nobody's own password, and no key of one's own
        edits = edits[1:3]
    if any(settings in path.read_text() for path in pull.stack.example.state.glob("*.yaml")) and name != "account":
        edits.append(("stalwart.yaml", settings, new))
    pull.propose(*edits, more="" if name == "account" else f"accounts:\n  evil@mana.how: {{password: {ref}}}\n")
    path = f"{tmp_path}:{os.environ['PATH']}"
    document = pull.plan("--check-passwords", code=None, PATH=path).json
    assert document.get("complete"), document["problems"]
    assert not log.exists(), log.read_text()
    held = [item["reference"] for item in document["unmerged"]["unread"]]
    assert len(held) == 1
    assert held[0].replace("'", "") == ref.replace("'", "")
    noted = {
        item["address"] for item in document["changes"] if any("not read before" in note for note in item["notes"])
    }
    if name != "account":
        assert noted >= {"account/postmaster@mana.how", "account/evil@mana.how"}
    assert noted >= {"smtp/mana-auth/MANA_SERVICE_KEY", "smtp/mana-notify/SERVICE_KEY"}
    assert [item for item in document["problems"] if item["severity"] == "error"] == []


SOPS = """\
key: ENC[AES256_GCM,data:x]
sops:
  hc_vault: [{vault_address: 'http://127.0.0.1:1', enc: x}]
  mac: ENC[AES256_GCM,data:x]
"""


def _recording(folder: Path, *programs: str) -> Path:
    """Put programs there that only write down that they were called."""
    log = folder / "called"
    for name in programs:
        (folder / name).write_text(f'#!/bin/sh\necho "{name} $*" >> {log}\nprintf \'{{"key": "canary-of-{name}"}}\'\n')
        (folder / name).chmod(0o755)
    return log


def test_a_file_of_sops_that_the_head_changes_is_not_decrypted(pull: Pull, tmp_path: Path) -> None:
    """What it would have decrypted is the head's; it could name a key service of its own, too."""
    log = _recording(tmp_path, "sops")
    path = f"{tmp_path}:{os.environ['PATH']}"
    (pull.top / "more").mkdir()
    (pull.top / "more/mail.sops.yaml").write_text(SOPS)
    old, new = "password: {env: POSTMASTER_PASSWORD}", "password: {sops: '../more/mail.sops.yaml#key'}"
    pull.stack.edit("accounts.yaml", old, new)
    pull.commit()
    pull.propose(TTL)
    pull.plan(PATH=path)
    [called] = set(log.read_text().splitlines())
    assert called == f"sops decrypt --output-type json {pull.top}/more/mail.sops.yaml"
    log.unlink()
    git(pull.top, "checkout", "-q", "topic")
    (pull.top / "more/mail.sops.yaml").write_text(SOPS.replace("data:x", "data:y"))
    pull.commit()
    git(pull.top, "checkout", "-q", "main")
    document = pull.plan(PATH=path).json
    assert not log.exists()
    assert [item["reference"] for item in document["unmerged"]["unread"]] == ["{sops: ../more/mail.sops.yaml#key}"]
    assert all("127.0.0.1:1" not in item["host"] for item in document["receivers"])
    changes = {item["address"]: item["notes"] for item in document["changes"]}
    assert "is not read before the merge" in str(changes["account/postmaster@mana.how"])


def test_a_folder_that_the_head_makes_a_link_leads_nowhere(pull: Pull) -> None:
    """Main names a file that git does not have; the head puts a link in the place of its folder."""
    git(pull.top, "checkout", "-q", "-b", "topic")
    kept = pull.top.parent / "kept"
    (pull.top / "secrets").rename(kept)
    (pull.top / "secrets").symlink_to("/etc")
    (pull.top / ".gitignore").write_text((pull.top / ".gitignore").read_text() + "!/secrets\n")
    pull.commit()
    (pull.top / "secrets").unlink()
    git(pull.top, "checkout", "-q", "-f", "main")
    kept.rename(pull.top / "secrets")
    document = pull.plan(code=None).json
    unread = {item["reference"] for item in document["unmerged"]["unread"]}
    assert unread == {"{file: ../secrets/mana2026.pem}", "{file: ../secrets/rsa2026.pem}"}


def test_an_api_of_a_provider_is_asked_with_no_key_that_is_new(older: Pull) -> None:
    more = "      preset: brevo\n      standby: true\n      api_key: {env: STALWART_ADMIN_PASSWORD}\n"
    older.propose(("smtp.yaml", "      verify_tls: true\n", f"      verify_tls: true\n{more}"))
    older.stack.stage.brevo_server.forget()
    document = older.plan(code=None).json
    assert older.stack.stage.brevo_server.requests == []
    assert any(
        "{env: STALWART_ADMIN_PASSWORD} is not read before the merge" in it["summary"] for it in document["problems"]
    )


# ------------------------------------------------------------------------------------------------- hostile files
@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("tag.yaml", "accounts: !!python/object/apply:os.system ['touch ran']\n", "has a tag"),
        ("bomb.yaml", "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
            f"x-{n}: &{chr(98 + n)} [{', '.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(8)), "anchors explode"),
        ("large.yaml", "#" * (1 << 20) + "#\n", "is larger than 1 MiB"),
        ("a.yml", "", "ends in .yml"),
        ("deep.yaml", "[" * 100_000, "is nested deeper"),
        ("evil\x1b[2J.yaml", "x", "must be a map"),
    ],
)  # fmt: skip
def test_a_hostile_file_is_an_error_and_no_more(older: Pull, name: str, content: str, said: str) -> None:
    git(older.top, "checkout", "-q", "-b", "topic")
    (older.stack.example.state / name).write_text(content)
    older.commit()
    git(older.top, "checkout", "-q", "main")
    done = older.plan(code=3)
    assert said in done.text
    assert "\x1b" not in done.text
    assert not list(older.top.rglob("ran"))


def test_a_link_out_of_the_directory_is_not_followed(older: Pull) -> None:
    git(older.top, "checkout", "-q", "-b", "topic")
    (older.stack.example.state / "out.yaml").symlink_to("/etc/passwd")
    older.commit()
    git(older.top, "checkout", "-q", "main")
    problems = older.plan(code=3).json["problems"]
    assert ("out.yaml", "is a link that leaves the directory") in [(it["where"], it["summary"]) for it in problems]


def test_what_the_repository_configures_is_not_run(older: Pull, tmp_path: Path) -> None:
    log = _recording(tmp_path, "evil")
    git(older.top, "checkout", "-q", "-b", "topic")
    (older.top / "desired-state/.gitattributes").write_text("*.yaml filter=evil\n")
    older.commit()
    git(older.top, "checkout", "-q", "main")
    for key in ("filter.evil.smudge", "filter.evil.process", "core.fsmonitor"):
        git(older.top, "config", key, str(tmp_path / "evil"))
    older.plan()
    assert not log.exists()


# ------------------------------------------------------------------------------------------ the work tree elsewhere
def test_with_the_head_in_the_work_tree_only_main_s_own_files_are_used(pull: Pull) -> None:
    """As a workflow that checks the pull request out: compose is not run on its files, and none beside them is read."""
    evil = "services:\n  mana-notify: {image: evil}\n"
    git(pull.top, "checkout", "-q", "-b", "topic")
    pull.stack.example.compose_file.write_text(evil)
    pull.stack.edit("dns.yaml", TTL[1], TTL[2])
    pull.commit()
    pull.stack.zygote.calls.clear()
    document = pull.plan(code=1).json
    assert pull.stack.zygote.calls == []
    assert document["unread"] == ["compose"]
    assert {"targets.compose", "the work tree"} <= {item["where"] for item in document["problems"]}
    assert "dns/mana.how/A/mail" in {item["address"] for item in document["changes"]}
    assert pull.stack.example.compose_file.read_text() == evil
    git(pull.top, "checkout", "-q", "-f", "main")


def test_a_path_in_full_into_the_work_tree_is_not_read_while_another_revision_is_there(pull: Pull) -> None:
    old = "password: {env: STALWART_ADMIN_PASSWORD}\n    recovery"
    new = f"password: {{file: {pull.top}/more/admin}}\n    recovery"
    pull.stack.edit("reconciler.yaml", old, new)
    pull.commit()
    pull.propose()
    git(pull.top, "checkout", "-q", "topic")
    (pull.top / "more").mkdir(exist_ok=True)
    (pull.top / "more/admin").symlink_to(pull.top.parent / "outside")
    pull.commit()
    pull.stack.stage.stalwart_server.forget()
    document = pull.plan(code=1).json
    assert "stalwart" in document["unread"] or pull.stack.generation == "jmap"  # where another one gets in
    sent = str([(item.headers, item.body) for item in pull.stack.stage.stalwart_server.requests])
    assert [form for form in forms(OUTSIDE) if form in sent] == []
    git(pull.top, "checkout", "-q", "-f", "main")


def test_head_alone_is_a_mistake(older: Pull) -> None:
    done = older.stack.run("plan", "--head", "topic")
    assert done.code == 1
    assert "--base" in done.err


def test_a_head_that_is_invalid_is_told_under_the_mark_of_the_comment(pull: Pull) -> None:
    head = pull.propose(more="nonsense: {mine: 1}\n")
    done = pull.stack.run("plan", "--base", "main", "--head", head, "--output", "markdown")
    assert done.code == 3
    mark, facts, *_ = done.out.splitlines()
    assert mark == "<!-- reconciler:plan:mana -->"
    assert '"approvable": false' in facts
    assert "more.yaml:1:" in done.out
