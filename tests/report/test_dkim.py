"""How DKIM keys are shown: a table that fits, colours that mean something, and nothing foreign that breaks out."""

from __future__ import annotations

import datetime as dt
import json as stdlib_json
from typing import Any

import click
import pytest
from gfm import render

from reconciler.dkim.findings import Agrees, Finding, Mismatch, Shown, Signing, Standing
from reconciler.problem import Problem, Severity
from reconciler.report import dkim, json
from reconciler.report.text import Style

KEY = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
RECORD = f"v=DKIM1; k=ed25519; p={KEY}"
BOTH = (Shown("ns1.example", KEY, (RECORD,)), Shown("ns2.example", KEY, (RECORD,)))
PLAIN, COLOURED = Style(), Style(colour=True)


def finding(kind: Mismatch, summary: str = "is wrong", severity: Severity = Severity.ERROR) -> Finding:
    return Finding(kind, Problem("dkim/mana.how/ed202611", summary, "mend it", severity))


def standing(*findings: Finding, **fields: Any) -> Standing:
    usual: dict[str, Any] = {
        "domain": "mana.how",
        "selector": "ed202611",
        "algorithm": "ed25519",
        "stage": "active",
        "since": dt.date(2026, 11, 10),
        "age": 12,
        "key": KEY,
        "signing": Signing.SIGNS,
        "shown": BOTH,
        "agrees": Agrees.YES,
    }
    return Standing(**usual | fields, findings=findings)


def test_the_table_says_all_of_each_key() -> None:
    weak = standing(
        finding(Mismatch.NOT_PUBLISHED, "is not published"),
        selector="rsa202611",
        algorithm="rsa",
        shown=(Shown("ns1.example"), Shown("ns2.example")),
        agrees=Agrees.NO,
    )
    assert dkim.table([standing(), weak], PLAIN) == (
        "domain    selector   algorithm  stage   age   server  DNS          agree\n"
        "mana.how  ed202611   ed25519    active  12 d  signs   2/2          yes\n"
        "mana.how  rsa202611  rsa        active  12 d  signs   0/2 missing  no\n"
        "\n"
        "✗ dkim/mana.how/ed202611: is not published\n"
        "    → mend it\n"
        "\n"
        "2 keys: server and DNS agree about 1, disagree about 1.\n"
    )


def test_no_key_at_all_is_said() -> None:
    assert dkim.table([], PLAIN) == "No DKIM key is declared, and the server has none.\n"
    assert dkim.document([], complete=True)["keys"] == []


@pytest.mark.parametrize("width", [1, 20, 60])
def test_a_narrow_terminal_gets_lines_for_each_key(width: int) -> None:
    shown = dkim.table([standing()], PLAIN, width=width)
    assert shown.startswith("dkim/mana.how/ed202611\n  algorithm ed25519\n  stage     active\n")
    assert "  agree     yes\n" in shown


def test_a_wide_terminal_gets_the_table() -> None:
    assert dkim.table([standing()], PLAIN, width=80) == dkim.table([standing()], PLAIN)


@pytest.mark.parametrize(
    ("fields", "colour"),
    [
        ({"agrees": Agrees.YES}, "green"),
        ({"agrees": Agrees.NO}, "red"),
        ({"agrees": Agrees.UNTOLD}, "yellow"),
    ],
)
@pytest.mark.parametrize("width", [None, 20])
def test_colours_mean_something_and_can_be_turned_off(fields: Any, colour: str, width: int | None) -> None:
    item = standing(**fields)
    coloured = dkim.table([item], COLOURED, width=width)
    assert click.style(str(item.agrees), fg=colour) in coloured
    assert click.unstyle(coloured) == dkim.table([item], PLAIN, width=width)


def test_a_column_has_the_colour_of_the_worst_finding_that_it_is_about() -> None:
    item = standing(
        finding(Mismatch.TESTING, severity=Severity.WARNING),
        finding(Mismatch.SERVER_DOES_NOT_SIGN),
        signing=Signing.IDLE,
    )
    line = dkim.table([item], COLOURED).splitlines()[1]
    assert click.style("does not sign", fg="red") in line
    assert click.style("2/2 testing", fg="yellow") in line
    assert click.style("active", fg="red") not in line


def test_what_every_key_would_say_of_a_name_server_is_said_once() -> None:
    away = finding(Mismatch.UNREAD, "the name server ns2.example could not be asked: timed out", Severity.WARNING)
    shown = dkim.table([standing(away), standing(away, selector="b")], PLAIN)
    assert shown.count("ns2.example could not be asked") == 1
    assert shown.count("2/2 not read") == 2


def test_problems_of_the_server_stand_first() -> None:
    problem = Problem("Stalwart at http://localhost:8443", "does not answer", "start it")
    shown = dkim.table([standing(finding(Mismatch.REVOKED))], PLAIN, [problem])
    assert shown.index("does not answer") < shown.index("is wrong")


HOSTILE = 'x"\x1b[31m\u202e|`<b>@everyone\r\n![a](http://e.example)' + "y" * 500


@pytest.fixture
def hostile() -> Standing:
    shown = (Shown(HOSTILE, None, (HOSTILE,), (Mismatch.NO_KEY_RECORD,), alias=HOSTILE),)
    return standing(finding(Mismatch.ALIAS, HOSTILE), selector=HOSTILE, domain=HOSTILE, shown=shown, agrees=Agrees.NO)


@pytest.mark.parametrize("width", [None, 20])
def test_nothing_foreign_moves_the_cursor_or_breaks_a_line(hostile: Standing, width: int | None) -> None:
    shown = dkim.table([hostile], PLAIN, width=width)
    assert all(char == "\n" or (char.isprintable() and char != "\u202e") for char in shown)
    assert not any(line.startswith("![a]") for line in shown.splitlines())


def test_nothing_foreign_breaks_out_of_markdown(hostile: Standing) -> None:
    shown = dkim.page([hostile])
    assert all(char == "\n" or char.isprintable() for char in shown)
    table = [line for line in shown.splitlines() if line.startswith("|")]
    assert len(table) == 3
    page = render(shown)
    assert page.rows() == [len(dkim.COLUMNS)] * 2
    assert page.names <= {"h3", "table", "thead", "tbody", "tr", "th", "td", "code", "ul", "li", "p"}
    assert page.read() == []


def test_markdown_says_the_same() -> None:
    shown = dkim.page([standing(finding(Mismatch.REVOKED, "is revoked"))])
    assert shown.startswith("### 1 key: server and DNS agree about 1.\n\n| domain | selector |")
    assert "| `mana.how` | `ed202611` | `ed25519` | `active` | `12 d` | `signs` | `2/2 revoked` | `yes` |" in shown
    assert "- `dkim/mana.how/ed202611` is revoked → mend it" in shown


def test_json_has_each_name_server(hostile: Standing) -> None:
    away = Shown("ns3.example", unread="timed out")
    item = standing(finding(Mismatch.UNREAD, "could not be asked", Severity.WARNING), shown=(*BOTH, away))
    document = stdlib_json.loads(json.dumps(dkim.document([item, hostile], complete=False)))
    assert (document["format_version"], document["complete"], document["problems"]) == ("1.0", False, [])
    key = document["keys"][0]
    assert key["nameservers"][0] == {
        "server": "ns1.example",
        "shows": True,
        "values": [RECORD],
        "alias": None,
        "mismatches": [],
        "unread": None,
    }
    assert (key["nameservers"][2]["shows"], key["nameservers"][2]["unread"]) == (None, "timed out")
    assert key["findings"] == [
        {
            "mismatch": "unread",
            "where": "dkim/mana.how/ed202611",
            "summary": "could not be asked",
            "hint": "mend it",
            "severity": "warning",
            "scope": "",
        }
    ]
    assert (key["since"], key["age_days"], key["server"], key["agree"]) == ("2026-11-10", 12, "signs", "yes")
    assert document["keys"][1]["selector"] == HOSTILE


@pytest.mark.parametrize(
    ("fields", "cell"),
    [
        ({"stage": "", "age": None, "signing": Signing.UNREAD, "algorithm": ""}, "?          not declared  ?    ?"),
        ({"stage": "retired", "shown": (Shown("a"), Shown("b"))}, "0/2"),
    ],
)
def test_what_is_not_known_is_a_question_mark(fields: Any, cell: str) -> None:
    assert cell in dkim.table([standing(**fields)], PLAIN)
