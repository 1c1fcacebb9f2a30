"""The whole way of a change: branch, comment, merge, approval, drift; and what a hostile pull request gets: nothing.

The daemon is the real program. It follows a real repository, GitHub is faked at the wire, the systems are the stage's.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from daemon.origin import Origin
from daemon.origin import run as git
from githubfake import REPOSITORY, GitHub, Token

from reconciler import keys
from reconciler.simulator.wire import Reply, Server

from .stagefixtures import Running, Stack
from .test_canaries import forms

pytestmark = [pytest.mark.long]

CANARIES = {
    "GITHUB_STATUS": "ghp_canaryDaemonToken",
    "NEW_PASSWORD": "canary-new-password-77",
    "AWS_SECRET": "canary-aws-Zk93/word+x",
}
DAEMON = f"""
daemon:
  interval: 2s
  plans: true
  github: {{repository: {REPOSITORY}, token: {{env: GITHUB_STATUS}}}}
"""
SLOW, ACCOUNT, KEY = "dns/mana.how/A/mail", "account/new@mana.how", "dns/mana.how/TXT/mana2027._domainkey"
BY_HAND = "dns/mana.test/A/by-hand"


class Story:
    """A stack that a daemon keeps by a repository at GitHub."""

    def __init__(self, stack: Stack, place: Path, github: GitHub) -> None:
        self.stack, self.github, self.origin, self.place = stack, github, Origin(place / "git"), place
        self.asked: list[str] = []
        self.evil = Server(lambda request: self.asked.append(request.path) or Reply.of({})).start()
        self.private, self.public = _pair()
        stack.env |= {**CANARIES, "DKIM_2027": self.private, "GITHUB_API_URL": github.server.url}
        self.data, self.printed, self.ended = place / "daemon", "", False
        texts = {path.name: path.read_text() for path in stack.example.state.glob("*.yaml")}
        for (
            name,
            text,
        ) in texts.items():  # what git does not have is named in full: the daemon has a checkout of its own
            texts[name] = text.replace("{file: ../secrets/", f"{{file: {stack.example.path}/secrets/")
        urls, token = stack.stage.environment, "    token: {env: CLOUDFLARE_API_TOKEN}\n"
        base = f"{token}    base_url: {urls['CLOUDFLARE_BASE_URL']}\n"
        for old, new in (
            ("max_deletes: 3 ", "approval: plan\n  max_deletes: 3 "),
            ("url: http://localhost:8443", f"url: {urls['STALWART_URL']}"),
            (token, base),
        ):
            assert old in texts["reconciler.yaml"]
            texts["reconciler.yaml"] = texts["reconciler.yaml"].replace(old, new)
        texts["reconciler.yaml"] += DAEMON
        self.push(self.origin.commit(_paths(texts)))

    def push(self, commit: str) -> str:
        self.origin.push()
        self.github.push(commit)
        return commit

    def text(self, name: str) -> str:
        return (self.origin.tree / "desired-state" / name).read_text()

    def propose(self, number: int, files: dict[str, str]) -> str:
        git(self.origin.tree, "checkout", "-q", "-b", f"topic-{number}", "main")
        head = self.origin.commit(_paths(files), push=False)
        git(self.origin.tree, "push", "-q", "origin", f"HEAD:refs/pull/{number}/head")
        git(self.origin.tree, "checkout", "-q", "main")
        self.github.open(number, head)
        return head

    def merge(self, number: int) -> str:
        git(self.origin.tree, "merge", "-q", "--no-ff", "-m", "merged", f"topic-{number}")
        self.origin.push()
        self.github.merge(number, self.origin.head)
        return self.origin.head

    # ------------------------------------------------------------------------------------------------- what is there
    def status(self, commit: str) -> tuple[str, str]:
        """Return the last word on a commit, and the sentence."""
        said = [item for item in self.github.statuses if item["sha"] == commit]
        return (said[-1]["state"], said[-1]["description"]) if said else ("", "")

    def comment(self, number: int, head: str) -> str:
        """Return the one comment, as soon as it is of a head."""
        self.until(lambda: any(f"of {head}" in text for text in self.github.of(number)))
        [found] = self.github.of(number)
        return found

    def until(self, holds: Callable[[], Any], seconds: float = 240.0) -> None:
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end, (self.github.statuses, self.daemon.errors()[-5000:])
            time.sleep(0.2)

    def record(self, name: str, zone: str = "mana.how") -> dict[str, Any]:
        return next((item for item in self.stack.records(zone) if item["name"] == f"{name}.{zone}"), {})

    # ------------------------------------------------------------------------------------------------------ programs
    def start(self) -> None:
        where = ("--repo", f"file://{self.origin.bare}", "--state", str(self.stack.example.state))
        drop = ("STALWART_URL", "CLOUDFLARE_BASE_URL")  # which would win over what any revision says
        own = ("--data", str(self.data), "--listen", "127.0.0.1:0")
        self.daemon: Running = self.stack.start("daemon", *where, *own, drop=drop)

    def end(self) -> None:
        if not self.ended:
            self.daemon.kill(signal.SIGTERM)
            self.printed += self.daemon.wait().text
            self.ended = True

    def call(self, code: int, *argv: str, **env: str) -> str:
        state = ("--state", str(self.origin.tree / "desired-state"), "--data", str(self.data))
        done = self.stack.expect(code, *argv, *state, **env)
        self.printed += done.text
        return done.out

    def drift(self) -> list[str]:
        """Do what the workflow does twice a day; return how the issues stand."""
        plan, body = self.place / "plan.json", self.place / "plan.md"
        body.write_text(self.call(0, "plan", "--target", "cloudflare", "--out", str(plan), "--output", "markdown"))
        token = {"GITHUB_TOKEN": CANARIES["GITHUB_STATUS"], "GITHUB_REPOSITORY": REPOSITORY}
        self.printed += self.stack.expect(0, "github", "issue", "--plan", str(plan), "--body", str(body), **token).text
        return [item["state"] for item in self.github.issues.values() if "pull_request" not in item]

    def search(self) -> None:
        """Nothing that anybody may read holds a secret."""
        said = repr((self.github.comments, self.github.statuses, self.github.issues)) + self.printed
        files = [path for path in self.data.rglob("*") if path.is_file() and "/objects/" not in str(path)]
        said += "".join(path.read_bytes().decode("utf-8", "replace") for path in files)
        body = self.private.splitlines()[1]
        values = [*CANARIES.values(), *self.stack.secrets.values(), body]
        assert [form for value in values for form in forms(value) if len(form) > 5 and form in said] == []


def _paths(texts: dict[str, str]) -> dict[str, str | bytes | None]:
    return {f"desired-state/{name}": text for name, text in texts.items()}


def _pair() -> tuple[str, str]:
    private = keys.generate("ed25519")
    return private, keys.public_half("ed25519", private)


@pytest.fixture
def story(applied: Stack, tmp_path: Path) -> Iterator[Story]:
    may = frozenset({"statuses", "pull_requests", "issues"})
    github = GitHub({CANARIES["GITHUB_STATUS"]: Token("mana-bot", may)})
    with github.server:
        made = Story(applied, tmp_path / "story", github)
        made.start()
        try:
            yield made
        finally:
            made.end()
            made.evil.stop()
    assert github.server.crashes == []


def test_from_a_branch_to_what_is_in_force_and_back_from_a_hand_edit(story: Story) -> None:
    first = story.origin.head
    story.until(lambda: story.status(first)[0] == "success")

    # A branch changes a TTL, adds an account and begins to rotate a key; the comment says so.
    dns, dkim = story.text("dns.yaml"), story.text("dkim.yaml")
    mail = "{type: A, name: mail, content: 194.191.241.139}"
    assert mail in dns
    new = f"    - {{selector: mana2027, algorithm: ed25519, stage: pending, public_key: {story.public}, "
    head = story.propose(
        7,
        {
            "dns.yaml": dns.replace(mail, mail.replace("}", ", ttl: 600}")),
            "more.yaml": "accounts:\n  new@mana.how: {password: {env: NEW_PASSWORD}}\n",
            "dkim.yaml": dkim.replace("  mana.how:\n", f"  mana.how:\n{new}private_key: {{env: DKIM_2027}}}}\n"),
        },
    )
    told = story.comment(7, head)
    for words in (SLOW, ACCOUNT, KEY, "600", "not read before the merge", '"approvable": true'):
        assert words in told
    assert f"{story.github.server.url}/{REPOSITORY}/blob/{head}/desired-state/dns.yaml#L" in told
    assert story.record("mail")["ttl"] != 600

    # A hostile one points elsewhere, loosens the policy, names a foreign secret: it gains nothing.
    evil = story.text("reconciler.yaml")
    for system in ("STALWART_URL", "CLOUDFLARE_BASE_URL"):
        evil = evil.replace(story.stack.stage.environment[system], story.evil.url)
    evil = evil.replace("max_deletes: 3", "max_deletes: 99").replace("approval: plan", "approval: merge")
    assert evil.count(story.evil.url) == 2
    hostile = story.propose(
        8,
        {
            "reconciler.yaml": evil,
            "dns.yaml": "\n".join(line for line in dns.splitlines() if "name: mail" not in line) + "\n",
            "more.yaml": "accounts:\n  evil@mana.how: {password: {env: AWS_SECRET}}\n  '@everyone': {}\n",
        },
    )
    told = story.comment(8, hostile)
    assert "nothing could be planned" in told  # '@everyone' is no address
    git(story.origin.tree, "checkout", "-q", "topic-8")
    mended = story.origin.commit(
        _paths({"more.yaml": "accounts:\n  evil@mana.how: {password: {env: AWS_SECRET}}\n"}), push=False
    )
    git(story.origin.tree, "push", "-q", "origin", "HEAD:refs/pull/8/head")
    git(story.origin.tree, "checkout", "-q", "main")
    story.github.pulls[8]["head"]["sha"] = mended
    story.github.known.add(mended)
    told = story.comment(8, mended)
    for words in ("not used before the merge", "targets.stalwart", "policy", "{env: AWS_SECRET}"):
        assert words in told
    assert story.asked == []

    # Main moves meanwhile, past any pull request; then the first one is merged.
    more = "dns:\n  mana.test:\n    - {type: A, name: by-hand, content: 192.0.2.77}\n"
    story.github.push(story.origin.commit(_paths({"moved.yaml": more}), push=False))  # and no plan is posted between
    merged = story.merge(7)
    story.until(lambda: story.status(merged)[0] == "failure")
    assert BY_HAND in story.status(merged)[1]
    assert "approved" in story.status(merged)[1]
    assert story.record("mail")["ttl"] == 600
    assert story.record("mana2027._domainkey")
    assert story.stack.principal("new") is not None
    assert story.record("by-hand", "mana.test") == {}

    # A person lets through what was held, by its fingerprint.
    held = json.loads((story.data / "approval-mana.json").read_text())["held"]
    assert list(held) == [BY_HAND]
    story.call(0, "approve", held[BY_HAND][:16])
    story.until(lambda: story.record("by-hand", "mana.test"))
    story.until(lambda: story.status(merged)[0] == "success")

    # A hand edit becomes an issue while nobody heals, and both are over when somebody does.
    story.call(0, "suspend", "--reason", "to see it")
    story.until(lambda: json.loads((story.data / "daemon-mana.json").read_text())["state"] == "suspended")
    assert story.drift() == []
    story.stack.stage.cloudflare.edit("mana.how", story.record("mail")["id"], content="198.51.100.7")
    assert story.drift() == ["open"]
    assert story.record("mail")["content"] == "198.51.100.7"
    story.call(0, "resume")
    story.until(lambda: story.record("mail")["content"] == "194.191.241.139")
    assert story.drift() == ["closed"]
    story.call(0, "plan", "--target", "cloudflare", "--detailed-exitcode")

    story.end()
    story.search()
    assert story.asked == []
