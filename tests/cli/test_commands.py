"""The commands as a user calls them: what they print where, and how they end."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from daemon import states
from whoami import NameServer, says

from reconciler import journal
from reconciler.cli import COMMANDS, program
from reconciler.daemon.memory import Memory
from reconciler.resources import Record, Unreadable

MINE = Record("mana.how", "A", "old", "192.0.2.9")
FOREIGN = Record("mana.how", "TXT", "foreign", "not ours")


def applied(run: Any) -> None:
    result = run("apply", "--yes")
    assert result.exit_code == 0, result.output


# ------------------------------------------------------------------------------------------------------ the frame
def test_help_names_every_command_and_the_completion(run: Any) -> None:
    result = run("--help")
    assert result.exit_code == 0
    assert all(f"\n  {name} " in result.stdout for name in COMMANDS)
    assert "_RECONCILER_COMPLETE=bash_source" in result.stdout


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "fleet"])  # which is about many directories
def test_every_command_has_help_and_the_common_options(run: Any, name: str) -> None:
    result = run(name, "--help")
    assert result.exit_code == 0
    assert all(option in result.stdout for option in ("--state", "--data", "--target", "--output", "--no-color", "-v"))


@pytest.mark.parametrize(
    "args",
    [
        ["plan", "--bad"],
        ["nonsense"],
        ["plan", "--output", "xml"],
        ["apply", "a", "b"],
        ["plan", "--allow-deletes", "-1"],
    ],
)
def test_a_wrong_command_line_ends_with_1_because_2_means_pending(run: Any, args: list[str]) -> None:
    result = run(*args)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "Error: " in result.stderr


def test_a_wrong_command_line_is_json_where_json_was_asked_for(run: Any) -> None:
    for args in (["--output", "json", "plan", "--bad"], ["plan", "--output=json", "--bad"]):
        result = run(*args)
        assert result.exit_code == 1
        assert "--bad" in json.loads(result.stdout)["problems"][0]["summary"]


def test_options_stand_before_or_behind_the_command(run: Any, place: Any) -> None:
    before = run("--state", str(place.state), "--output", "json", "plan")
    behind = run("plan", "--output", "json", "--state", str(place.state))
    mixed = run("--state", "/nowhere", "plan", "--state", str(place.state), "--output", "json")
    assert before.stdout == behind.stdout == mixed.stdout
    assert before.exit_code == 0


def test_targets_add_up(run: Any) -> None:
    document = json.loads(run("--target", "stalwart", "plan", "--target", "cloudflare", "--output", "json").stdout)
    assert {change["target"] for change in document["changes"]} == {"stalwart", "cloudflare"}
    document = json.loads(run("plan", "--target", "cloudflare", "--output", "json").stdout)
    assert {change["target"] for change in document["changes"]} == {"cloudflare"}


def test_an_invalid_directory_ends_with_3_and_every_mistake(run: Any, place: Any) -> None:
    place.write("dns:\n  mana.how:\n    - {type: A, name: mail, content: 192.0.2.1, ttl: 5}\nbad: 1\n")
    for command in ("plan", "apply", "validate", "status", "explain x"):
        result = run(*command.split())
        assert result.exit_code == 3
        assert "dns.yaml:3:" in result.stderr
        assert "dns.yaml:4:" in result.stderr
        assert result.stdout == ""
    document = json.loads(run("validate", "--output", "json").stdout)
    assert document["valid"] is False
    assert len(document["problems"]) == 2


@pytest.mark.parametrize("command", ["plan", "apply --yes", "validate", "doctor"])
def test_u15_an_invalid_directory_is_told_as_markdown_where_that_was_asked_for(
    run: Any, place: Any, command: str
) -> None:
    place.write("bad: 1\nworse: <b>2</b>\n")
    result = run(*command.split(), "--output", "markdown")
    assert result.exit_code == 3
    assert result.stdout.startswith("### ⛔ nothing was done\n")
    assert "dns.yaml:1:" in result.stdout
    assert "dns.yaml:2:" in result.stdout
    assert "<b>" not in result.stdout


def test_u19_a_mistyped_command_is_told_with_the_one_that_is_meant(run: Any) -> None:
    for typed, said in (("plann", "did you mean `plan`?"), ("doktor", "did you mean `doctor`?"), ("xyzzy", "--help")):
        result = run(typed)
        assert result.exit_code == 1
        assert said in result.stderr


def test_u19_colours_can_be_forced_and_switched_off(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for environ, options, coloured in (
        ({"FORCE_COLOR": "1"}, (), True),
        ({"FORCE_COLOR": "0"}, (), False),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, (), False),
        ({"FORCE_COLOR": "1"}, ("--no-color",), False),
        ({}, (), False),
    ):
        for name in ("FORCE_COLOR", "NO_COLOR"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        assert ("\x1b[" in run("plan", *options).stdout) is coloured, environ


def test_an_unexpected_exception_is_called_a_bug_and_tells_no_secret(run: Any, place: Any) -> None:
    place.world.turn(boom="lost my way with")
    quiet = run("plan")
    assert quiet.exit_code == 1
    assert "this is a bug" in quiet.stdout
    assert "Traceback" not in quiet.stderr
    loud = run("plan", "-v")
    assert "Traceback" in loud.stderr
    assert "lost my way with [redacted {env: NOREPLY_PASSWORD}]" in loud.stderr
    assert json.loads(run("plan", "--output", "json").stdout)["problems"]


def test_a_secret_that_is_missing_is_named(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOREPLY_PASSWORD")
    result = run("plan")
    assert result.exit_code == 1
    assert "NOREPLY_PASSWORD is not set" in result.stdout
    assert "dns/mana.how/A/mail" in result.stdout, "the other target goes on"


# ------------------------------------------------------------------------------------------------------ directory
def test_init_writes_a_directory_that_is_valid_and_nothing_twice(run: Any, tmp_path: Path) -> None:
    made = tmp_path / "new"
    assert run("init", "--state", str(made)).exit_code == 0
    assert run("validate", "--state", str(made)).exit_code == 0
    before = {path: path.read_bytes() for path in made.iterdir()}
    again = run("init", "--state", str(made))
    assert again.exit_code == 1
    assert "nothing was written" in again.stderr
    assert {path: path.read_bytes() for path in made.iterdir()} == before


def test_l5_init_gives_each_directory_a_name_of_its_own(run: Any, tmp_path: Path) -> None:
    names = set()
    for place in ("one/desired-state", "two/desired-state", "one/x", "a very long name, and Ünï/desired-state"):
        told = json.loads(run("init", "--state", str(tmp_path / place), "--output", "json").stdout)
        assert f"stack: {told['stack']} " in (tmp_path / place / "reconciler.yaml").read_text()
        assert re.fullmatch(r"[a-z0-9-]{1,24}", told["stack"])
        assert run("validate", "--state", str(tmp_path / place)).exit_code == 0
        names.add(told["stack"])
    assert len(names) == 4
    assert run("init", "--state", str(tmp_path / "own"), "--stack", "mine").exit_code == 0
    assert "stack: mine " in (tmp_path / "own" / "reconciler.yaml").read_text()
    assert run("init", "--state", str(tmp_path / "bad"), "--stack", "Not One").exit_code == 1
    assert not (tmp_path / "bad").exists()


def test_a_list_s_member_that_nobody_is_is_told_by_validate(run: Any, place: Any) -> None:
    members = "norepyl@mana.how, noreply+x@mana.how, noreply@mana.how, who@elsewhere.example, ghost@mana.how"
    place.write(f"lists:\n  all@mana.how: {{members: [{members}]}}\n")
    told = json.loads(run("validate", "--output", "json").stdout)["problems"]
    assert [(item["where"].rpartition(": ")[2], item["severity"], item["hint"]) for item in told] == [
        ("lists.all@mana.how.members[0]", "warning", "did you mean noreply@mana.how?"),
        ("lists.all@mana.how.members[4]", "warning", "declare it, unless somebody on the server has it"),
    ]
    place.write("domains: {mana.how: {catch_all: noreply@mana.how}}\n", "domains.yaml")
    assert json.loads(run("validate", "--output", "json").stdout)["problems"] == []


def test_a_slip_in_a_zone_is_told_by_validate(run: Any, place: Any) -> None:
    place.write("dns: {mana.hwo: [{type: A, name: mail, content: 192.0.2.1}]}")
    said = run("validate")
    assert said.exit_code == 0
    assert "dns.yaml:1:7: dns.mana.hwo" in said.stdout
    assert "is the zone of no mail domain that is declared" in said.stdout
    assert "→ did you mean mana.how?" in said.stdout
    [problem] = json.loads(run("validate", "--output", "json").stdout)["problems"]
    assert (problem["severity"], problem["hint"]) == ("warning", "did you mean mana.how?")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("'@'", "'v=spf1 ip4:192.0.2.1 includ:x.example -all'", "SPF: includ:x.example is no mechanism"),
        ("_dmarc", "'v=DMARC1\\; p=none\\; rua=mailto:a@mana.how'", "DMARC: stands in the brackets, quotes or escapes"),
        ("_dmarc", "v=DMARC1; p=qurantine", "DMARC: p=qurantine is not one of none, quarantine and reject"),
        ("_smtp._tls", "'v=TLSRPTv1; rua=a@mana.how'", "TLSRPT: a@mana.how has no mailto: before it"),
        ("'@'", "'v=spf1 ip4:{public_ip} a -all,'", "SPF: -all, has a , behind it"),
    ],
)
def test_a_policy_that_receivers_cannot_read_is_told_and_its_hint_clears_it(
    run: Any, place: Any, name: str, content: str, said: str
) -> None:
    entry = "dns: {mana.how: [{type: TXT, name: " + name + ", content: "
    text = entry + content + "}]}"
    place.write(text)
    told = run("validate")
    assert told.exit_code == 0
    assert f"dns.yaml:1:{len(entry) + 1}: dns.mana.how[0].content" in told.stdout
    assert said in told.stdout
    [problem] = json.loads(run("validate", "--output", "json").stdout)["problems"]
    assert problem["severity"] == "warning"
    place.write(entry + problem["hint"].removeprefix("write content: ") + "}]}")
    assert json.loads(run("validate", "--output", "json").stdout)["problems"] == []


def test_a_policy_at_the_wrong_name_is_told_at_its_name(run: Any, place: Any) -> None:
    place.write("dns: {mana.how: [{type: TXT, name: dmarc, content: v=DMARC1; p=none}]}")
    [problem] = json.loads(run("validate", "--output", "json").stdout)["problems"]
    assert problem["where"].endswith("dns.mana.how[0].name")
    assert problem["hint"] == "write name: _dmarc"
    place.write("dns: {mana.how: [{type: TXT, name: _dmarc, content: v=DMARC1; p=none}]}")
    assert json.loads(run("validate", "--output", "json").stdout)["problems"] == []


@pytest.mark.parametrize("zones", ["mana.how: [], mana.hwo: []", "other.org: []", "dev.mana.how: []"])
def test_a_zone_that_may_be_meant_is_no_slip(run: Any, place: Any, zones: str) -> None:
    place.write(f"dns: {{{zones}}}")
    said = run("validate").stdout
    assert "is valid: " in said
    assert "did you mean" not in said


def test_a_variable_of_a_shell_has_a_hint_of_its_own(run: Any, place: Any) -> None:
    place.write("accounts: {a@mana.how: {password: '${NOREPLY_PASSWORD:-x}'}}", "more.yaml")
    said = run("validate")
    assert said.exit_code == 3
    assert "write {env: NOREPLY_PASSWORD} in its place" in said.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["dkim", "--help"]])
def test_no_line_of_a_list_of_commands_is_cut_off(run: Any, arguments: list[str]) -> None:
    assert "..." not in run(*arguments).stdout.partition("Commands:")[2]


def test_problems_name_paths_without_detours(run: Any, place: Any) -> None:
    place.write("accounts: {b@mana.how: {password: {file: ../secrets/b}}}", "more.yaml")
    said = run("plan").output
    assert f"{place.root}/secrets/b: No such file" in said
    assert "/../" not in said


def test_validate_counts(run: Any, place: Any) -> None:
    result = run("validate")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"{place.state} is valid: 1 account, 2 DNS records.\n"
    document = json.loads(run("validate", "--output", "json").stdout)
    assert (document["valid"], document["counts"]) == (True, {"accounts": 1, "records": 2})


def test_schema_is_json(run: Any) -> None:
    assert "properties" in json.loads(run("schema").stdout)


# ------------------------------------------------------------------------------------------------------ plan
def test_plan_writes_nothing_and_says_what_would_be(run: Any, place: Any) -> None:
    result = run("plan")
    assert (result.exit_code, result.stderr) == (0, "")
    assert place.world.live == []
    assert not place.data.exists()
    assert result.stdout.startswith("mana at 3f2a9c1\n  set by the environment: RECONCILER_STATE=")
    assert "Stalwart is empty: new, or its volume was recreated." in result.stdout
    assert "  + dns/mana.how/A/www  192.0.2.2, ttl: 300\n" in result.stdout
    assert "password: {env: NOREPLY_PASSWORD}" in result.stdout
    assert result.stdout.endswith("\nPlan: 4 to create, 0 to change, 0 to delete. 0 unchanged.\n")
    assert "\x1b" not in result.stdout


def test_the_exit_code_says_pending_only_when_asked(run: Any) -> None:
    assert run("plan").exit_code == 0
    assert run("plan", "--detailed-exitcode").exit_code == 2
    applied(run)
    assert run("plan", "--detailed-exitcode").exit_code == 0


def test_adopting_is_no_pending_change(run: Any, place: Any) -> None:
    applied(run)
    place.world.live = [
        item if item.resource.target == "stalwart" else type(item)(item.resource) for item in place.world.live
    ]
    result = run("plan", "--detailed-exitcode")
    assert result.exit_code == 0
    assert "Adopted, equal already" in result.stdout
    assert "2 to adopt" in result.stdout
    applied(run)
    assert {item.owner for item in place.world.live if item.resource.target == "cloudflare"} == {"mana"}


def test_an_unread_target_ends_with_1_and_the_rest_is_shown(run: Any, place: Any) -> None:
    place.world.turn(unread=["stalwart"])
    result = run("plan", "--detailed-exitcode")
    assert result.exit_code == 1
    assert "✗ stalwart: does not answer\n    → start it" in result.stdout
    assert "+ dns/mana.how/A/mail" in result.stdout
    document = json.loads(run("plan", "--output", "json").stdout)
    assert (document["complete"], document["unread"]) == (False, ["stalwart"])


def test_a_refused_plan_ends_with_4(run: Any, place: Any) -> None:
    place.world.put(Record("mana.how", "A", "www", "198.51.100.1"))
    result = run("plan", "--detailed-exitcode")
    assert result.exit_code == 4
    assert "refused: exists, is not ours and differs" in result.stdout
    assert run("plan", "--adopt", "dns/mana.how/A/www").exit_code == 0


def test_only_and_allow_deletes(run: Any, place: Any) -> None:
    applied(run)
    for name in "abcdefgh":
        place.world.put(Record("mana.how", "A", name, "192.0.2.9"), owner="mana")
    assert run("plan").exit_code == 4
    assert run("plan", "--allow-deletes", "8").exit_code == 0
    document = json.loads(run("plan", "--only", "dns/mana.how/A/b", "--output", "json").stdout)
    assert [change["address"] for change in document["changes"]] == ["dns/mana.how/A/b"]


def test_unmanaged_is_named_where_it_is_little_and_listed_with_v(run: Any, place: Any) -> None:
    place.world.put(FOREIGN)
    assert "Not declared and left alone: dns/mana.how/TXT/foreign." in run("plan").stdout
    for number in range(9):
        place.world.put(Record("mana.how", "TXT", f"foreign{number}", "not ours"))
    assert "dns/mana.how/TXT/foreign" not in run("plan").stdout
    assert "10 live resources are not declared and left alone (-v lists)" in run("plan").stdout
    assert "  dns/mana.how/TXT/foreign" in run("plan", "-v").stdout


def test_results_and_logs_go_different_ways(run: Any) -> None:
    result = run("plan", "--output", "json", "-v")
    assert json.loads(result.stdout)["stack"] == "mana"
    assert "Connecting" in result.stderr
    assert run("plan", "--output", "json").stderr == ""


def test_markdown_is_a_comment(run: Any) -> None:
    result = run("plan", "--output", "markdown")
    assert result.stdout.startswith("<!-- reconciler:plan:mana -->")
    assert run("validate", "--output", "markdown").stdout.startswith("```\n")


# ------------------------------------------------------------------------------------------------------ apply
def test_apply_does_it_and_proves_it(run: Any, place: Any) -> None:
    result = run("apply", "--yes")
    assert result.exit_code == 0
    assert place.world.addresses == [
        "account/noreply@mana.how",
        "dns/mana.how/A/mail",
        "dns/mana.how/A/www",
        "domain/mana.how",
    ]
    for part in (
        "  ✓ + dns/mana.how/A/mail",
        "4 changes were made.",
        "A second plan is empty: 4 resources",
        "If it held mailboxes",
    ):
        assert part in result.stdout
    second = run("apply", "--yes")
    assert second.exit_code == 0
    assert second.stdout.endswith("Nothing to do: 4 resources are as they should be.\n")


def test_a_quiet_apply_tells_what_failed_and_the_end_and_not_what_went_well(run: Any, place: Any) -> None:
    place.world.turn(fail=["dns/mana.how/A/www"])
    result = run("-q", "apply", "--yes")
    assert result.exit_code == 6
    assert "✗ + dns/mana.how/A/www  failed\n      the system says no\n      → ask it nicely" in result.stdout
    assert "✓" not in result.stdout
    place.world.turn()
    again = run("-q", "apply", "--yes")
    assert again.exit_code == 0
    assert "✓" not in again.stdout
    assert "A second plan is empty" in again.stdout


def test_apply_without_a_terminal_needs_yes(run: Any, place: Any) -> None:
    result = run("apply")
    assert result.exit_code == 1
    assert "there is no terminal to ask on, so nothing was written" in result.stderr
    assert "--yes" in result.stderr
    assert place.world.live == []
    place.world.live = []
    applied(run)
    assert run("apply").exit_code == 0, "nothing to do, nothing to ask"


def test_a_refused_plan_writes_nothing_at_all(run: Any, place: Any) -> None:
    place.world.put(Record("mana.how", "A", "www", "198.51.100.1"))
    before = place.world.file.read_bytes()
    for output in ("text", "json", "markdown"):
        result = run("apply", "--yes", "--output", output)
        assert result.exit_code == 4
        assert "is not ours and differs" in result.stdout
    assert place.world.file.read_bytes() == before
    assert json.loads(run("apply", "--yes", "--output", "json").stdout)["problems"][0]["severity"] == "refused"


def test_one_failure_is_an_apply_in_part(run: Any, place: Any) -> None:
    place.world.turn(fail=["dns/mana.how/A/www"])
    result = run("apply", "--yes")
    assert result.exit_code == 6
    assert "✗ + dns/mana.how/A/www  failed\n      the system says no\n      → ask it nicely" in result.stdout
    assert "1 still to be made:\n  + dns/mana.how/A/www" in result.stdout
    assert "A second plan is empty" not in result.stdout
    place.world.turn()
    applied(run)


def test_nothing_done_is_1(run: Any, place: Any) -> None:
    applied(run)
    place.world.alter("dns/mana.how/A/www", ttl=60)
    place.world.turn(fail=["dns/mana.how/A/www"])
    assert run("apply", "--yes").exit_code == 1


def test_a_lost_answer_is_no_failure_when_it_was_done_after_all(run: Any, place: Any) -> None:
    place.world.turn(unknown=["dns/mana.how/A/www"])
    result = run("apply", "--yes")
    assert result.exit_code == 0
    assert "the answer was lost" in result.stdout
    place.world.alter("dns/mana.how/A/www", ttl=60)
    place.world.alter("dns/mana.how/A/mail", ttl=60)
    place.world.turn(lose=["dns/mana.how/A/www"])
    assert run("apply", "--yes").exit_code == 6


def test_an_unread_target_does_not_stop_the_others(run: Any, place: Any) -> None:
    place.world.turn(unread=["stalwart"])
    result = run("apply", "--yes")
    assert result.exit_code == 6
    assert place.world.addresses == ["dns/mana.how/A/mail", "dns/mana.how/A/www"]
    assert run("apply", "--yes").exit_code == 1, "nothing left to do but what can't be read"


def test_apply_as_json_is_one_document(run: Any, place: Any) -> None:
    result = run("apply", "--yes", "--output", "json")
    document = json.loads(result.stdout)
    assert (document["result"], document["after"]["changes"]) == ("done", [])
    assert {row["status"] for row in document["outcomes"]} == {"done"}
    assert document["plan"]["changes"]
    assert result.stderr == ""
    assert json.loads(run("apply", "--output", "json").stdout)["result"] == "nothing"
    place.world.alter("dns/mana.how/A/mail", ttl=60)
    assert json.loads(run("apply", "--output", "json").stdout)["problems"][0]["where"] == "apply"


def test_a_journal_that_can_not_be_written_is_a_warning(run: Any, place: Any) -> None:
    place.data.mkdir()
    (place.data / "journal.jsonl").mkdir()
    result = run("apply", "--yes")
    assert result.exit_code == 0
    assert "the journal can't be written" in result.stderr
    assert len(place.world.live) == 4


def test_long_runs_are_counted_while_they_happen(run: Any, place: Any) -> None:
    records = "".join(f"    - {{type: A, name: h{index:02}, content: 192.0.2.1}}\n" for index in range(30))
    place.write(f"dns:\n  mana.how:\n{records}")
    result = run("apply", "--yes", "--target", "cloudflare")
    assert result.stdout.count("✓ + dns/") == 20
    assert "… and 10 more done" in result.stdout
    assert "30 changes were made" in result.stdout


# ------------------------------------------------------------------------------------------------------ saved plans
def test_a_saved_plan_is_applied_while_it_is_true(run: Any, place: Any, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    planned = run("plan", "--out", str(file))
    assert "reconciler apply" in planned.stderr
    assert json.loads(file.read_text())["format_version"] == "1.0"
    assert [path.name for path in tmp_path.glob(".plan*")] == []
    assert run("apply", str(file), "--yes").exit_code == 0
    assert len(place.world.live) == 4
    stale = run("apply", str(file), "--yes")
    assert stale.exit_code == 4
    assert "is stale: dns/mana.how/A/mail: is as it should be by now" in stale.stderr


def test_a_stale_plan_writes_nothing(run: Any, place: Any, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    run("plan", "--out", str(file))
    place.write("dns:\n  mana.how:\n    - {type: A, name: mail, content: 192.0.2.7}\n")
    result = run("apply", str(file), "--yes")
    assert result.exit_code == 4
    assert "the directory has changed" in result.stderr
    assert "dns/mana.how/A/mail: what is wanted is another" in result.stderr
    assert place.world.live == []


def test_a_saved_plan_keeps_its_options(run: Any, place: Any, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    run("plan", "--only", "dns/mana.how/A/mail", "--target", "cloudflare", "--out", str(file))
    assert run("apply", str(file), "--yes").exit_code == 0
    assert place.world.addresses == ["dns/mana.how/A/mail"]
    mixed = run("apply", str(file), "--yes", "--only", "account/x")
    assert mixed.exit_code == 1
    assert "a saved plan knows its options" in mixed.stderr


@pytest.mark.parametrize("content", ["", "[]", '{"format_version": "2.0"}', "\x00", '{"format_version": "1.0"}'])
def test_what_is_no_plan_is_not_applied(run: Any, place: Any, tmp_path: Path, content: str) -> None:
    file = tmp_path / "plan.json"
    file.write_text(content)
    result = run("apply", str(file), "--yes")
    assert result.exit_code == 1
    assert "plan.json" in result.stderr
    assert place.world.live == []


def test_a_plan_with_damaged_options_is_not_applied(run: Any, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    run("plan", "--out", str(file))
    document = json.loads(file.read_text())
    for options in ({"only": "x"}, {"only": [1]}, {"allow_deletes": "9"}, {"allow_deletes": True}):
        file.write_text(json.dumps(document | {"options": options}))
        result = run("apply", str(file), "--yes")
        assert (result.exit_code, "damaged" in result.stderr) == (1, True)


def test_a_plan_that_can_not_be_saved_is_an_error(run: Any) -> None:
    result = run("plan", "--out", "/nowhere/plan.json")
    assert result.exit_code == 1
    assert "/nowhere/plan.json: can't be written" in result.stderr


# -------------------------------------------------------------------------------------------------- how things stand
def test_status(run: Any, place: Any) -> None:
    assert "Nothing was applied from here yet" in run("status").stdout
    applied(run)
    place.world.alter("dns/mana.how/A/mail", ttl=60)
    result = run("status")
    assert result.exit_code == 0
    assert "Stalwart    in sync" in result.stdout
    assert "Cloudflare  1 change pending" in result.stdout
    assert ": done, 20" in result.stdout
    document = json.loads(run("status", "--output", "json").stdout)
    cloudflare = document["targets"]["cloudflare"]
    assert {"state": "pending", "pending": 1, "restarts": 0, "unread": []}.items() <= cloudflare.items()
    assert document["state"] == "pending"
    assert [item["status"] for item in document["conditions"]] == ["False", "False", "False"]
    assert {item["address"]: item["state"] for item in document["resources"]}["dns/mana.how/A/mail"] == "pending"
    assert document["last_apply"]["result"] == "done"
    assert document["lease"] is None
    assert document["cycle"] is None
    place.world.turn(unread=["stalwart"])
    unread = run("status")
    assert unread.exit_code == 1
    assert "Stalwart    could not be read\n" in unread.stdout


def test_status_tells_what_a_daemon_last_told(run: Any, place: Any) -> None:
    applied(run)
    now = datetime.now(UTC)
    kept = states.calm(next="", cycle=replace(states.cycle(), ended=now.strftime("%Y-%m-%dT%H:%M:%SZ")))
    Memory(place.data).keep(kept)
    said = run("status").stdout
    assert "The daemon's last cycle ended " in said
    assert said.rstrip().endswith("the next one is due within 300 s of that.")
    document = json.loads(run("status", "--output", "json").stdout)
    assert document["cycle"]["number"] == 7
    assert document["revision"] == "3f2a9c1", "and what is seen now is its own"
    Memory(place.data).keep(states.calm())
    assert "It seems not to run any more." in run("status").stdout


def test_history(run: Any, place: Any) -> None:
    assert "Nothing was applied from here yet" in run("history").stdout
    applied(run)
    place.world.alter("dns/mana.how/A/mail", ttl=60)
    applied(run)
    listed = run("history").stdout.splitlines()
    assert len(listed) == 2
    assert "1 done" in listed[0]
    assert "4 done" in listed[1]
    latest = listed[0].split()[0]
    details = run("history", latest).stdout
    assert "dns/mana.how/A/mail  ttl: 60 → auto" in details
    document = json.loads(run("history", "--output", "json").stdout)
    assert document["applies"][0]["id"] == latest
    assert document["applies"][0]["whole"] is True
    missing = run("history", "nope")
    assert missing.exit_code == 1
    assert "no such apply" in missing.stderr
    place.write("nonsense: 1", "bad.yaml")
    assert run("history").stdout.splitlines() == listed, "history does not need a valid directory"


def test_history_says_how_many_changes_of_an_old_apply_are_listed_no_longer(
    run: Any, place: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "LARGEST", 4000)
    monkeypatch.setattr(journal, "_KEPT", 0)
    log = journal.Journal(place.data, "mana")
    rows = [journal.Written(f"dns/mana.how/A/{name}", ("create",), "done") for name in ("mail", "www")]
    for changed in (rows, *[rows[:1]] * 20):
        entry = journal.entry("mana", {"GITHUB_ACTOR": "anna"}, targets=("cloudflare",))
        log.begin(entry)
        log.end(entry, "done", changed, whole=True)
    first = run("history").stdout.splitlines()[-1]
    assert "1 done, 1 no longer listed" in first
    details = run("history", first.split()[0]).stdout
    assert "dns/mana.how/A/www" in details
    assert "1 change of it is no longer listed" in details


def test_history_names_the_directory_where_two_of_one_stack_share_it(run: Any, place: Any) -> None:
    applied(run)
    shutil.copytree(place.state, place.root / "copy")
    place.world.alter("dns/mana.how/A/mail", ttl=60)
    copy = ("--state", str(place.root / "copy"), "--data", str(place.data))
    assert run("apply", "--yes", *copy).exit_code == 0
    assert [line.split()[-1] for line in run("history").stdout.splitlines()] == ["../copy", f"../{place.state.name}"]
    assert "of       ../copy" in run("history", run("history").stdout.split()[0]).stdout
    mine, theirs = (json.loads(run("status", "--output", "json", *of).stdout)["last_apply"] for of in ((), copy))
    assert (mine["directory"], theirs["directory"]) == (f"../{place.state.name}", "../copy")


def test_a_journal_of_a_newer_version_is_refused_politely(run: Any, place: Any) -> None:
    applied(run)
    with (place.data / "journal.jsonl").open("a") as file:
        file.write('{"v":9,"id":"x","stack":"mana"}\n')
    result = run("history")
    assert result.exit_code == 1
    assert "a newer reconciler wrote this journal" in result.stderr
    assert "a newer reconciler wrote this journal" in run("status").stdout
    assert run("plan").exit_code == 0


def test_explain(run: Any, place: Any) -> None:
    missing = run("explain", "dns/mana.how/A/mail").stdout
    assert "declared  dns.yaml:3:" in missing
    assert "live      is not there" in missing
    assert "[missing]" in missing
    assert "never from here" in missing
    applied(run)
    place.world.alter("dns/mana.how/A/www", ttl=60)
    place.world.put(FOREIGN)
    differs = run("explain", "dns/mana.how/A/www").stdout
    assert "wanted    192.0.2.2, ttl: 300" in differs
    assert "live      192.0.2.2, ttl: 60" in differs
    assert "ttl: 60 → 300" in differs
    assert "create done in apply" in differs
    assert "nothing: it is as it should be" in run("explain", "account/noreply@mana.how").stdout
    assert "left alone" in run("explain", "dns/mana.how/TXT/foreign").stdout
    document = json.loads(run("explain", "dns/mana.how/A/www", "--output", "json").stdout)
    assert document["resources"][0]["change"]["reason"] == "differs"
    unknown = run("explain", "dns/mana.how/A/wwww")
    assert unknown.exit_code == 1
    assert "did you mean dns/mana.how/A/www" in unknown.stderr


def test_explain_says_what_can_not_be_told(run: Any, place: Any) -> None:
    applied(run)
    place.world.alter("account/noreply@mana.how", password=Unreadable("not checked since 2026-11-20 14:03Z"))
    assert run("plan", "--detailed-exitcode").exit_code == 0
    said = run("explain", "account/noreply@mana.how").stdout
    assert "live      as wanted; password can't be told: not checked since 2026-11-20 14:03Z" in said
    document = json.loads(run("explain", "account/noreply@mana.how", "--output", "json").stdout)
    assert document["resources"][0]["untold"] == ["password can't be told: not checked since 2026-11-20 14:03Z"]


def test_a_saved_plan_remembers_that_passwords_were_checked(run: Any, place: Any) -> None:
    file = place.root / "plan.json"
    assert run("plan", "--check-passwords", "--out", str(file)).exit_code == 0
    document = json.loads(file.read_text())
    assert document["options"]["check_passwords"] is True
    assert run("apply", str(file), "--yes", "--check-passwords").exit_code == 1  # the plan says it
    document["options"]["check_passwords"] = "yes"
    damaged = place.root / "damaged.json"
    damaged.write_text(json.dumps(document))
    assert "options are damaged" in run("apply", str(damaged), "--yes").stderr
    assert run("apply", str(file), "--yes").exit_code == 0


# ------------------------------------------------------------------------------------------------------ quick to start
@pytest.mark.parametrize("args", [["--help"], ["plan", "--help"], ["validate"]])
def test_what_needs_no_system_imports_no_client(place: Any, args: list[str]) -> None:
    code = (
        "import sys\nfrom reconciler.cli import program\n"
        f"try: program({args!r}, prog_name='reconciler')\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'cloudflare', 'docker', 'httpx', 'structlog', 'requests', 'cryptography'} & set(sys.modules)\n"
        "heavy |= {'pydantic', 'ruamel'} & set(sys.modules) if '--help' in sys.argv[1:] else set()\n"
        "assert not heavy, heavy"
    )
    command = [sys.executable, "-c", code, *args]
    done = subprocess.run(command, env=place.environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_group_is_what_the_entry_point_names() -> None:
    assert program.name == "program"
    assert program.list_commands(None) == list(COMMANDS)  # type: ignore[arg-type]


@pytest.mark.parametrize("word", ["mana", "true", "create", "dns/", "null", "after", '": "', "fingerprint", "1234"])
def test_a_password_that_is_a_word_of_ours_breaks_no_output(
    run: Any, place: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    plain = json.loads(run("plan", "--output", "json").stdout)
    monkeypatch.setenv("NOREPLY_PASSWORD", word)
    saved = tmp_path / "plan.json"
    document = json.loads(run("plan", "--output", "json", "--out", str(saved)).stdout)
    assert document.keys() == plain.keys()
    for name in ("stack", "fingerprint", "desired_hash"):
        assert document[name] == plain[name]
    assert [item["actions"] for item in document["changes"]] == [item["actions"] for item in plain["changes"]]
    assert run("plan").stdout.startswith("mana at ")
    assert run("apply", str(saved), "--yes").exit_code == 0
    assert len(place.world.live) == 4


@pytest.mark.parametrize("name", ["STALWART_URL", "CLOUDFLARE_BASE_URL", "DOCKER_HOST"])
def test_a_password_in_a_url_is_refused_and_not_repeated(run: Any, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "https://admin:canary-in-url@mail.example.com")
    result = run("plan")  # which looks for the canary
    assert result.exit_code == 1
    assert f"{name}: holds a password" in result.stderr


# --------------------------------------------------------------------------------------------------------- a home line
LINE = """\
dns:
  mana.how:
    - {type: A, name: mail, content: {public_ip: true}}
    - {type: TXT, name: "@", content: "v=spf1 ip4:{public_ip} -all"}
    - {type: TXT, name: "@", content: hello}
"""


@pytest.fixture
def line(place: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Two name servers that tell the line's address, which a directory follows."""
    started = [NameServer(says("91.12.34.56")) for _ in range(2)]
    monkeypatch.setenv("RECONCILER_WHOAMI", " ".join(f"me/A@127.0.0.1:{item.port}" for item in started))
    monkeypatch.setattr("reconciler.observe.line.AGE", 0.0)
    monkeypatch.setattr("reconciler.observe.line._ATTEMPT", 0.2)  # how long one that says nothing is waited for
    place.write(LINE)
    yield started
    for item in started:
        item.close()


def test_validate_asks_nobody_for_the_line_s_address(run: Any, line: Any) -> None:
    assert run("validate").exit_code == 0
    assert [item.asked for item in line] == [[], []]


def test_a_plan_shows_the_line_s_address_and_that_it_is_followed(run: Any, line: Any) -> None:
    said = run("plan").stdout
    assert "91.12.34.56" in said
    assert "v=spf1 ip4:91.12.34.56 -all" in said
    assert said.count("follows the line's address") == 2
    assert "RECONCILER_WHOAMI=" in said
    notes = {item["address"]: item["notes"] for item in json.loads(run("plan", "--output", "json").stdout)["changes"]}
    assert notes["dns/mana.how/A/mail"] == ["follows the line's address"]
    assert notes["dns/mana.how/TXT/@[hello]"] == []


def test_a_saved_plan_counts_for_the_address_that_it_shows(run: Any, line: Any, place: Any) -> None:
    run("plan", "--out", "saved.json")
    for item in line:
        item.fill = says("84.152.10.20")
    stale = run("apply", "saved.json", "--yes")
    assert stale.exit_code == 4
    assert "dns/mana.how/A/mail" not in place.world.addresses
    run("plan", "--out", "saved.json")
    assert run("apply", "saved.json", "--yes").exit_code == 0
    assert "dns/mana.how/A/mail" in place.world.addresses


def test_explain_tells_of_the_line(run: Any, line: Any, place: Any) -> None:
    applied(run)
    for name in ("A/mail", "TXT/@[spf1]"):
        said = run("explain", f"dns/mana.how/{name}").stdout
        assert "91.12.34.56" in said
        assert "follows the line's address" in said
        assert "nothing: it is as it should be" in said
    assert "follows" not in run("explain", "dns/mana.how/TXT/@[hello]").stdout
    line[1].fill = lambda *_: None
    said = run("explain", "dns/mana.how/TXT/@[spf1]").stdout
    assert 'wanted    "v=spf1 ip4:91.12.34.56 -all"; follows the line\'s address' in said
    said = run("explain", "dns/mana.how/A/mail").stdout
    assert "the line's address can't be told: no two agree" in said
    assert run("plan").exit_code == 0


# ------------------------------------------------------------------------------------- cases from the field, section 5
def test_u3_what_could_not_be_planned_is_counted(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOREPLY_PASSWORD")
    result = run("plan")
    assert "1 could not be planned." in result.stdout.splitlines()[-1]


def test_u8_only_takes_the_beginning_of_addresses_and_patterns(run: Any) -> None:
    def planned(*only: str) -> set[str]:
        document = json.loads(run("plan", "--output", "json", *(f"--only={item}" for item in only)).stdout)
        assert document["problems"] == []
        return {change["address"] for change in document["changes"]}

    records = {"dns/mana.how/A/mail", "dns/mana.how/A/www"}
    assert planned("dns/mana.how/") == planned("dns/mana.how") == planned("dns/*") == planned("dns/*/A/*") == records
    assert planned("dns/*/A/w*") == {"dns/mana.how/A/www"}
    assert planned("account/*@mana.how") >= {"account/noreply@mana.how"}


def test_u8_only_of_what_can_not_be_planned_says_why(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOREPLY_PASSWORD")
    result = run("plan", "--only", "account/noreply@mana.how")
    assert "NOREPLY_PASSWORD" in result.stdout
    assert "nothing of that address" not in result.output
    monkeypatch.setenv("NOREPLY_PASSWORD", "x")
    assert "did you mean account/noreply@mana.how" in run("plan", "--only", "account/noreplay@mana.how").output


def test_u4_init_writes_an_example_that_simulate_can_serve(run: Any, tmp_path: Path) -> None:
    state = tmp_path / "try" / "desired-state"
    result = run("init", "--example", "--state", str(state))
    assert result.exit_code == 0, result.output
    assert f"reconciler simulate --state {state}" in result.stdout
    assert run("validate", "--state", str(state)).exit_code == 0
    assert (state.parent / "secrets" / "rsa2026.pem").stat().st_mode & 0o077 == 0
    assert "secrets/" in (state.parent / ".gitignore").read_text()
    again = run("init", "--example", "--state", str(state))
    assert again.exit_code == 1
    assert "is there already" in again.stderr


def test_u11_the_directory_is_found_from_below_within_a_checkout_alone(
    run: Any, place: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RECONCILER_STATE")
    below = place.root / "docs" / "deep"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert run("validate").exit_code != 0
    (place.root / ".git").mkdir()
    result = run("validate")
    assert result.exit_code == 0, result.output
    assert "../../desired-state is valid" in result.stdout
    (below / ".git").mkdir()  # another checkout: what is above is not its
    assert run("validate").exit_code != 0


def test_u16_validate_names_a_secret_that_git_tracks_and_init_keeps_them_out(run: Any, place: Any) -> None:
    def git(*words: str) -> None:
        subprocess.run(["git", "-C", str(place.root), *words], check=True, capture_output=True)

    git("init")
    key = place.root / "secrets" / "key.pem"
    key.parent.mkdir()
    key.write_text("x")
    place.write("accounts:\n  b@mana.how: {password: {file: ../secrets/key.pem}}\n", "more.yaml")
    assert "git tracks it" not in run("validate").stdout
    git("add", "secrets/key.pem")
    said = run("validate").stdout
    assert "more.yaml:2:" in said
    assert "git tracks it" in said
    assert run("init", "--state", str(place.root / "new" / "state")).exit_code == 0
    assert ".reconciler/" in (place.root / "new" / ".gitignore").read_text()


def test_u18_quiet_says_what_is_to_be_done_and_nothing_else(run: Any, place: Any) -> None:
    loud, quiet = run("plan").stdout, run("plan", "-q").stdout
    assert "set by the environment" in loud
    assert "set by the environment" not in quiet
    assert [line for line in loud.splitlines() if line.startswith("  +")] == [
        line for line in quiet.splitlines() if line.startswith("  +")
    ]
    assert loud.splitlines()[-1] == quiet.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "begun", "offered"),
    [
        ("plan --only", "dns/", {"dns/mana.how/A/mail", "dns/mana.how/A/www"}),
        ("apply --adopt", "account/n", {"account/noreply@mana.how"}),
        ("explain", "domain/", {"domain/mana.how"}),
        ("plan --only", "nothing", set()),
    ],
)
def test_u19_a_shell_completes_addresses(place: Any, words: str, begun: str, offered: set[str]) -> None:
    environment = place.environment() | {
        "_RECONCILER_COMPLETE": "bash_complete",
        "COMP_WORDS": f"reconciler {words} {begun}",
        "COMP_CWORD": str(len(words.split()) + 1),
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    command = [sys.executable, "-m", "reconciler"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert {line.partition(",")[2] for line in done.stdout.splitlines() if line} == offered, done.stderr


def test_u19_a_shell_is_offered_nothing_where_the_directory_is_invalid(place: Any) -> None:
    place.write("nonsense: 1\n")
    test_u19_a_shell_completes_addresses(place, "plan --only", "dns/", set())


def test_u9_a_port_that_is_taken_is_named(run: Any, tmp_path: Path) -> None:
    import socket

    state = tmp_path / "try" / "desired-state"
    assert run("init", "--example", "--state", str(state)).exit_code == 0
    with socket.create_server(("127.0.0.1", 0)) as taken:
        words = ["simulate", "--port", str(taken.getsockname()[1]), "--state", str(state)]
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[2])}
        command = [sys.executable, "-m", "reconciler", *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "is taken by another program" in done.stderr
    assert "this is a bug" not in done.stderr


def test_d11_a_change_that_a_system_refuses_is_told_with_where_it_is_declared(run: Any, place: Any) -> None:
    place.world.turn(fail=["dns/mana.how/A/www"])
    result = run("apply", "--yes")
    assert result.exit_code == 6
    assert "the system says no" in result.stdout
    assert "declared at dns.yaml:4:7" in result.stdout
