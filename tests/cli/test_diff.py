"""`reconciler diff`, as a user and a workflow call it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from daemon.origin import run as git

from reconciler.report.markdown import LIMIT


@pytest.fixture
def base(place: Any) -> str:
    """Commit the directory; what it is at."""
    git(place.root, "init", "-q", "-b", "main")
    (place.root / ".gitignore").write_text("*\n!desired-state/\n!desired-state/**\n")
    return commit(place)


def commit(place: Any) -> str:
    git(place.root, "add", "-A")
    git(place.root, "commit", "-q", "--allow-empty", "-m", "a change")
    return git(place.root, "rev-parse", "HEAD")


HOSTILE = (
    "stack: mana\ntargets:\n  stalwart: {url: 'https://evil.example', username: admin, password: {env: AWS_SECRET}}\n"
)
HOSTILE += "  cloudflare: {token: {env: CLOUDFLARE_API_TOKEN}}\npolicy: {max_deletes: 99}\n"


def test_what_changes_is_told_with_its_place_and_no_system_is_asked(
    run: Any, place: Any, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(*_: Any, **__: Any) -> None:
        raise AssertionError("a system was asked")

    monkeypatch.setattr("socket.socket.connect", asked)
    monkeypatch.setattr("reconciler.stack.Stack.__init__", asked)
    place.write("dns:\n  mana.how:\n    - {type: A, name: www, content: 192.0.2.2, ttl: 600}\n")
    place.write(HOSTILE, "reconciler.yaml")
    result = run("diff", "main")
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    for line in (
        f"mana  {base[:12]} → the files on disk",
        "⚠ ~ targets.stalwart  (reconciler.yaml:3)",
        "      url: http://localhost:8443 → https://evil.example",
        "      url is another: secrets go there",
        "⚠ ~ policy  max_deletes: 3 → 99  (reconciler.yaml:5)",
        "⚠ - dns/mana.how/A/mail  192.0.2.1  (was dns.yaml:3)",
        "  ~ dns/mana.how/A/www  ttl: 300 → 600  (dns.yaml:3)",
        "  {env: AWS_SECRET}  reconciler.yaml:3",
        "Difference: 0 to create, 3 to change, 1 to delete. 2 resources are the same. 3 to look at (⚠).",
    ):
        assert line in result.stdout.splitlines(), (line, result.stdout)
    assert not place.data.exists()


def test_another_order_and_comments_are_no_difference(run: Any, place: Any, base: str) -> None:
    (place.state / "accounts.yaml").rename(place.state / "people.yaml")
    zone = '# said\ndns:\n  "mana.how":\n  - {ttl: 300, content: 192.0.2.2, name: www, type: A}\n'
    place.write(zone + "  - {name: mail, type: A, content: '192.0.2.1'}  # the server\n")
    for args in (("diff", "main"), ("diff", base, commit(place))):
        result = run(*args, "--detailed-exitcode")
        assert result.exit_code == 0
        assert "No difference in meaning: 4 resources are the same." in result.stdout


def test_the_exit_code_is_2_only_where_it_is_asked_for(run: Any, place: Any, base: str) -> None:
    place.write("dns: {mana.how: []}\n")
    assert run("diff", base).exit_code == 0
    assert run("diff", base, "--detailed-exitcode").exit_code == 2
    assert run("diff", "--detailed-exitcode", base, "HEAD").exit_code == 0


def test_the_json_has_changes_as_a_plan_has(run: Any, place: Any, base: str) -> None:
    place.write("accounts:\n  noreply@mana.how:\n    password: {env: OTHER}\n", "accounts.yaml")
    place.write(
        "dns:\n  mana.how:\n    - {type: A, name: mail, content: 192.0.2.9}\n    - {type: TXT, name: a, content: b}\n"
    )
    head = commit(place)
    result = run("diff", base, head, "--output", "json")
    document = json.loads(result.stdout)
    assert (document["format_version"], document["base"], document["head"]) == ("1.0", base, head)
    assert (document["stack"], document["directory"], document["problems"]) == ("mana", "desired-state", [])
    changes = {item["address"]: item for item in document["changes"]}
    known = {"address", "target", "kind", "actions", "before", "after", "before_sensitive", "after_sensitive", "reason"}
    assert all(item.keys() >= known | {"file", "line"} for item in changes.values())
    account = changes["account/noreply@mana.how"]
    assert (account["file"], account["line"], account["reason"]) == ("accounts.yaml", 3, "secret_differs")
    assert (account["before"]["password"], account["after"]["password"]) == ("{env: NOREPLY_PASSWORD}", "{env: OTHER}")
    assert account["before_sensitive"] == account["after_sensitive"] == {"password": True}
    gone = changes["dns/mana.how/A/www"]
    assert (gone["after"], gone["actions"], gone["reason"], gone["side"]) == (
        None,
        ["delete"],
        "not_in_desired",
        "base",
    )
    assert gone["risks"] == ["deletion"]
    assert changes["dns/mana.how/TXT/a"]["before"] is None
    assert document["secrets"] == [{"reference": "{env: OTHER}", "file": "accounts.yaml", "line": 3}]
    assert document["summary"] == {"create": 1, "change": 2, "delete": 1, "leave": 0, "risks": 1}
    planned = json.loads(run("plan", "--output", "json").stdout)["changes"][0]
    assert known <= planned.keys()


def test_a_target_narrows_it(run: Any, place: Any, base: str) -> None:
    place.write("dns: {mana.how: []}\n")
    place.write("", "accounts.yaml")
    place.write(HOSTILE, "reconciler.yaml")
    found = json.loads(run("diff", base, "--target", "stalwart", "--output", "json").stdout)["changes"]
    assert {item["target"] for item in found} == {"stalwart", None}


def test_an_invalid_head_ends_with_3_and_every_mistake(run: Any, place: Any, base: str) -> None:
    place.write("dns:\n  mana.how:\n    - {type: X}\nnonsense: 1\n")
    for args in ((base,), (base, commit(place))):
        result = run("diff", *args)
        assert result.exit_code == 3
        assert result.stdout == ""
        assert "dns.yaml:3:14: dns.mana.how[0].type" in result.stderr
        assert "dns.yaml:4:1: nonsense" in result.stderr
    document = json.loads(run("diff", base, "HEAD", "--output", "json").stdout)
    assert [item["where"].partition(":")[0] for item in document["problems"]] == ["dns.yaml"] * len(
        document["problems"]
    )


def test_an_invalid_base_is_a_problem_and_no_obstacle(run: Any, place: Any, base: str) -> None:
    good = (place.state / "dns.yaml").read_text()
    place.write(good + "nonsense: 1\n")
    broken = commit(place)
    place.write(good.replace("192.0.2.1", "192.0.2.9"))
    result = run("diff", broken, commit(place), "--output", "json")
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert [item["address"] for item in document["changes"]] == ["dns/mana.how/A/mail"]
    assert [item["severity"] for item in document["problems"]] == ["warning", "warning"]
    assert document["problems"][0]["where"] == broken
    assert "dns.yaml:5:1: nonsense" in document["problems"][1]["where"]


def test_a_base_without_the_directory_says_nothing(run: Any, place: Any, base: str) -> None:
    git(place.root, "checkout", "-q", "--orphan", "empty")
    git(place.root, "commit", "-q", "--allow-empty", "-m", "nothing")
    git(place.root, "rm", "-rfq", "--cached", ".")
    git(place.root, "commit", "-q", "--allow-empty", "-m", "nothing")
    result = run("diff", "HEAD", "main", "--output", "json")
    document = json.loads(result.stdout)
    assert document["summary"]["create"] >= 5
    assert document["problems"][1]["where"] == "desired-state"


def test_a_revision_that_is_not_here_is_an_error_with_the_remedy(run: Any, place: Any, base: str) -> None:
    for args in (("nonsense",), ("main", "nonsense"), ("--", "--output=x")):
        result = run("diff", *args)
        assert result.exit_code == 1
        assert "is no revision here" in result.stderr
    document = json.loads(run("diff", "nonsense", "--output", "json").stdout)
    assert document["problems"][0]["where"] == "nonsense"


def test_outside_of_a_repository_that_is_told(run: Any, place: Any) -> None:
    result = run("diff", "main")
    assert result.exit_code == 1
    assert "lies in no repository of git" in result.stderr


def test_a_comment_of_anything_holds_no_markup_of_it_and_fits(run: Any, place: Any, base: str) -> None:
    evil = "</details>|`@octocat` <img src=x> [a](https://evil.example) #1 ::error::x"
    place.write(
        f"accounts:\n  noreply@mana.how:\n    password: {{env: A}}\n    description: {json.dumps(evil)}\n",
        "accounts.yaml",
    )
    records = "".join(f"    - {{type: A, name: host-{number:04}, content: 192.0.2.7}}\n" for number in range(2000))
    place.write(f"dns:\n  mana.how:\n{records}")
    result = run("diff", base, "--output", "markdown")
    assert result.exit_code == 0
    assert len(result.stdout) <= LIMIT
    assert result.stdout.startswith("<!-- reconciler:diff:mana -->\n### mana: 2000 create")
    assert result.stdout.count("</details>") == result.stdout.count("<details>") + 1  # in code, where it means nothing
    assert "| ``description" in result.stdout
    assert "\\|`@octocat`" in result.stdout
    assert "**Truncated:**" in result.stdout
    head = result.stdout.partition("<details>")[0]
    assert "dns/mana.how/A/mail" in head
    assert "dns/mana.how/A/www" in head


def test_no_secret_is_read_and_none_is_shown(run: Any, place: Any, base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET", "canary-aws")
    place.write(HOSTILE, "reconciler.yaml")
    hostile = "accounts:\n  noreply@mana.how: {password: {file: /etc/passwd}}\n"
    place.write(hostile + "  a@mana.how: {password: {sops: 'x.sops.yaml#k'}}\n", "accounts.yaml")
    for output in ("text", "json", "markdown"):
        result = run("diff", base, "--output", output, "-v")
        assert result.exit_code == 0
        assert "root:" not in result.output
        assert "{file: /etc/passwd}" in result.stdout
