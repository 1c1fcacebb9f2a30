"""`reconciler doctor`: its options, its page, and its words."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from reconciler.checks import CHECKS
from reconciler.checks.check import Finding, Remedy, Status, Unread, Verdict, find, ok, unknown, warn, worst
from reconciler.report import doctor as report
from reconciler.report.text import Style

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/doctor.md"
MARK = "<!-- the table is made by tests/cli/test_doctor.py from the checks -->\n"


def test_the_page_has_the_table_of_the_checks() -> None:
    """`RECONCILER_WRITE_DOCTOR=1` writes it."""
    head, mark, table = PAGE.read_text().partition(MARK)
    assert mark
    wanted = "\n" + report.table(CHECKS)
    if os.environ.get("RECONCILER_WRITE_DOCTOR"):
        PAGE.write_text(head + mark + wanted)
    else:
        assert table == wanted


def test_ids_are_stable_words_with_their_room_and_each_check_tells_all() -> None:
    ids = [item.id for item in CHECKS]
    assert len(set(ids)) == len(ids)
    for item in CHECKS:
        assert re.fullmatch(r"(plan|container|services|smtp|router|dns|mail|probe)/[a-z0-9]+(-[a-z0-9]+)*", item.id)
        assert all((item.symptom, item.cause, item.remedy, item.reference)), item.id
        assert "|" not in item.symptom + item.cause + item.remedy  # it stands in a table


def test_a_reference_is_a_page_that_is_there_or_what_anybody_can_look_up() -> None:
    for item in CHECKS:
        page = item.reference.partition("#")[0]
        public = re.match(r"RFC \d{4}|(Cloudflare|Docker|Docker Compose|Stalwart|FRITZ!Box), ", page)
        assert public or (ROOT / page).is_file(), item.id


def test_what_was_not_gathered_is_unknown_and_what_is_not_declared_is_skipped() -> None:
    for check in CHECKS:
        item = find(replace(check, part=lambda _: Unread("no answer")), None)
        assert (item.status, item.verdict.summary, item.remedy) == (Status.UNKNOWN, "no answer", Remedy())
        assert find(replace(check, part=lambda _: None), None).status is Status.SKIP


def test_quiet_shows_what_is_not_well_and_nothing_where_all_is() -> None:
    quiet, check = Style(quiet=True), replace(CHECKS[0], id="dns/spf", cause="why", remedy="keep one")
    well, wrong = Finding(check, ok("as it should be")), Finding(check, Verdict(Status.ERROR, "two records", ("a",)))
    assert report.text("mana", [well], quiet) == ""
    said = report.text("mana", [well, wrong], quiet)
    assert said.startswith("✗ dns/spf: two records\n    a\n    cause: why\n")
    assert "mana" not in said
    assert "checks" not in said


def test_the_worst_speaks_and_the_others_are_evidence() -> None:
    told = worst([ok("a"), warn("b", "seen"), Verdict(Status.ERROR, "c", ("d",)), unknown("e")], "fine")
    assert told == Verdict(Status.ERROR, "c", ("d", "b", "seen", "e"))
    assert worst([ok("a"), ok("b")], "fine") == ok("fine", "a", "b")
    assert worst([], "fine").status is Status.SKIP


def test_the_text_shows_what_is_wrong_first_and_counts_what_is_well() -> None:
    one, two, three = CHECKS[:3]
    found = (
        Finding(one, ok("fine")),
        Finding(two, warn("look \x1b[31m here")),
        Finding(three, Verdict(Status.ERROR, "broken", ("seen",), "why", Remedy("do this", "reconciler apply"))),
    )
    said = report.text("mana", found)
    assert said.index(three.id) < said.index(two.id)
    assert one.id not in said
    assert "\x1b" not in said
    assert "    seen\n    cause: why\n    → do this: `reconciler apply`" in said
    assert said.endswith("3 checks: 1 wrong, 1 to look at, 1 well.\n")
    assert report.conclusion(found[:1]) == "All is well: 1 checks."
    entry = report.document(found)["checks"][2]
    assert entry["remedy"] == {"text": "do this", "command": "reconciler apply", "change": ""}
    assert set(entry) == {"id", "status", "summary", "evidence", "cause", "remedy", "reference"}


def test_list_names_the_checks_and_a_slip_is_told(run: Any) -> None:
    listed = run("doctor", "--list")
    assert listed.exit_code == 0
    assert [line.split()[0] for line in listed.stdout.splitlines()] == [item.id for item in CHECKS]
    chosen = json.loads(run("doctor", "--list", "--only", "smtp", "--output", "json").stdout)["checks"]
    assert {item["id"].partition("/")[0] for item in chosen} == {"smtp"}
    wrong = run("doctor", "--only", "smtp/logn")
    assert wrong.exit_code == 1
    assert "did you mean smtp/login?" in wrong.stdout + wrong.stderr
    assert run("doctor", "--fix", "--output", "json").exit_code == 1


def test_what_is_not_known_for_one_reason_is_told_once_and_json_has_all() -> None:
    dark = [find(replace(check, part=lambda _: Unread("no password is set")), None) for check in CHECKS[:6]]
    other = find(replace(CHECKS[-1], part=lambda _: Unread("nobody answers")), None)
    said = report.text("mana", [*dark, other])
    assert said.count("no password is set") == 1
    assert f"? {CHECKS[-1].id}: nobody answers\n" in said
    assert "checks of plan" in said
    assert all(item.check.id in report.text("mana", dark, Style(verbose=True)) for item in dark)
    assert len(report.document([*dark, other])["checks"]) == len(dark) + 1
    assert f"{len(dark) + 1} checks: {len(dark) + 1} not known." in said
