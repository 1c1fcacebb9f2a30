"""How DKIM keys stand: a table with what is wrong below it, as text, Markdown and JSON. DNS is foreign input."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from reconciler.dkim.findings import Agrees, Finding, Mismatch, Shown, Signing, Standing
from reconciler.problem import Problem, Severity
from reconciler.report import json, prose, text, values

COLUMNS = ("domain", "selector", "algorithm", "stage", "age", "server", "DNS", "agree")
_GAP = "  "
_AGREES = {Agrees.YES: "green", Agrees.NO: "red", Agrees.UNTOLD: "yellow"}
_WORST = {Severity.REFUSED: "red", Severity.ERROR: "red", Severity.WARNING: "yellow"}
_SERVER = {
    Signing.SIGNS: "signs",
    Signing.IDLE: "does not sign",
    Signing.ANOTHER: "another key",
    Signing.ABSENT: "no key",
    Signing.UNTOLD: "?",
    Signing.UNREAD: "?",
}
# What stands beside the count of name servers, the worst first.
_DNS = {
    Mismatch.STILL_PUBLISHED: "still there",
    Mismatch.SEVERAL_RECORDS: "several records",
    Mismatch.DOUBLED: "doubled",
    Mismatch.DAMAGED: "damaged",
    Mismatch.REVOKED: "revoked",
    Mismatch.NO_KEY_RECORD: "no key record",
    Mismatch.WRONG_ALGORITHM: "wrong k=",
    Mismatch.HASH_EXCLUDED: "h= without sha256",
    Mismatch.MAIL_EXCLUDED: "s= without mail",
    Mismatch.ANOTHER_KEY_PUBLISHED: "another key",
    Mismatch.NOT_PUBLISHED: "missing",
    Mismatch.PARTLY_PUBLISHED: "in part",
    Mismatch.UNREAD: "not read",
    Mismatch.TESTING: "testing",
    Mismatch.ALIAS: "CNAME",
}
_ON_SERVER = {
    Mismatch.SERVER_LACKS_KEY,
    Mismatch.SERVER_HAS_ANOTHER_KEY,
    Mismatch.SERVER_DOES_NOT_SIGN,
    Mismatch.SERVER_SIGNS_UNDECLARED,
    Mismatch.SERVER_SIGNS_TOO_EARLY,
    Mismatch.SERVER_STILL_SIGNS,
    Mismatch.SIGNING_UNTOLD,
}


def table(
    standings: Sequence[Standing],
    style: text.Style,
    problems: Sequence[Problem] = (),
    width: int | None = None,
) -> str:
    """Render keys for a person, what is wrong below them. ``problems`` are those of the server that was asked.

    ``width`` is that of the terminal: where the table does not fit, each key gets lines of its own.
    """
    rows = [_row(standing) for standing in standings]
    widths = [max(len(cell) for cell in column) for column in zip(COLUMNS, *rows, strict=True)]
    if width is None or sum(widths) + len(_GAP) * (len(widths) - 1) <= width:
        lines = list(_grid(standings, rows, widths, style))
    else:
        lines = [line for standing, row in zip(standings, rows, strict=True) for line in _block(standing, row, style)]
    listed = [text.problem(item, style) for item in (*problems, *_problems(standings))]
    sections = ["\n".join(lines), "\n".join(listed), style.title(conclusion(standings))]
    return "\n\n".join(section for section in sections if section) + "\n"


def page(standings: Sequence[Standing], problems: Sequence[Problem] = ()) -> str:
    """Render the same as Markdown."""
    lines = [f"### {conclusion(standings)}", ""]
    if standings:
        lines += [f"| {' | '.join(COLUMNS)} |", "|-" * len(COLUMNS) + "|"]
        lines += [f"| {' | '.join(_cell(cell) for cell in _row(standing))} |" for standing in standings]
        lines += [""]
    for item in (*problems, *_problems(standings)):
        hint = f" → {prose.prose(item.hint)}" if item.hint else ""
        lines.append(f"- {prose.code(item.where)} {prose.prose(item.summary)}{hint}")
    return "\n".join(lines).rstrip() + "\n"


def document(standings: Sequence[Standing], problems: Sequence[Problem] = (), *, complete: bool) -> dict[str, Any]:
    """Return the same for programs. ``complete`` is whether the server and every name server could be read."""
    return {
        "format_version": json.FORMAT_VERSION,
        "complete": complete,
        "keys": [_object(standing) for standing in standings],
        "problems": [json.problem(item) for item in problems],
    }


def conclusion(standings: Sequence[Standing]) -> str:
    """Sum up in one line."""
    if not standings:
        return "No DKIM key is declared, and the server has none."
    number = {word: sum(item.agrees is word for item in standings) for word in Agrees}
    said = [
        f"{len(standings)} {'key' if len(standings) == 1 else 'keys'}: server and DNS agree about {number[Agrees.YES]}"
    ]
    said += [f"disagree about {number[Agrees.NO]}"] if number[Agrees.NO] else []
    said += [f"{number[Agrees.UNTOLD]} can't be told"] if number[Agrees.UNTOLD] else []
    return ", ".join(said) + "."


def _problems(standings: Sequence[Standing]) -> Iterator[Problem]:
    """Yield the findings, a fault of a name server once and not for each key."""
    seen = set()
    for standing in standings:
        for finding in standing.findings:
            if finding.kind is not Mismatch.UNREAD or finding.problem.summary not in seen:
                seen.add(finding.problem.summary)
                yield finding.problem


# ------------------------------------------------------------------------------------------------------------ cells
def _row(standing: Standing) -> tuple[str, ...]:
    """Return one text a column, safe to print."""
    idle = standing.stage != "active" and standing.signing in (Signing.ABSENT, Signing.IDLE)  # as it should be
    cells = (
        standing.domain,
        standing.selector,
        standing.algorithm or "?",
        standing.stage or "not declared",
        "?" if standing.age is None else f"{standing.age} d",
        "no" if idle else _SERVER[standing.signing],
        _dns(standing),
        str(standing.agrees),
    )
    return tuple(values.shorten(values.escape(cell)) for cell in cells)


def _dns(standing: Standing) -> str:
    """Say how many name servers show the key, and the worst of what is wrong."""
    shown = standing.shown
    right = sum(item.carries(standing.key) if standing.key else bool(item.values) for item in shown)
    if standing.stage == "retired":
        right = sum(bool(item.values) for item in shown)
    kinds = {finding.kind for finding in standing.findings}
    word = next((word for kind, word in _DNS.items() if kind in kinds), "")
    return f"{right}/{len(shown)} {word}".rstrip()


def _colours(standing: Standing) -> Iterator[str | None]:
    """Yield a colour a column: of the worst finding that the column is about."""
    yield from (None, None, None)
    yield _worst(standing, {Mismatch.PENDING_OVERDUE, Mismatch.RETIRING_OVERDUE}) or (
        None if standing.stage else "yellow"
    )
    yield _worst(standing, {Mismatch.OLD})
    yield "yellow" if standing.signing is Signing.UNREAD else _worst(standing, _ON_SERVER)
    yield _worst(standing, set(_DNS))
    yield _AGREES[standing.agrees]


def _worst(standing: Standing, kinds: set[Mismatch]) -> str | None:
    found = {finding.problem.severity for finding in standing.findings if finding.kind in kinds}
    return next((_WORST[severity] for severity in Severity if severity in found), None)


def _grid(
    standings: Sequence[Standing], rows: Sequence[Sequence[str]], widths: Sequence[int], style: text.Style
) -> Iterator[str]:
    if not rows:
        return
    yield style.title(_line(COLUMNS, widths))
    for standing, row in zip(standings, rows, strict=True):
        colours = list(_colours(standing))
        padded = [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)]
        padded[-1] = row[-1]
        yield _GAP.join(style.paint(cell, colour) for cell, colour in zip(padded, colours, strict=True))


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return _GAP.join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()


def _block(standing: Standing, row: Sequence[str], style: text.Style) -> Iterator[str]:
    """Render a key on lines of its own, for a narrow terminal."""
    yield style.title(values.escape(standing.address))
    cells = list(zip(COLUMNS, row, _colours(standing), strict=True))[2:]
    yield from (f"  {name:<10}{style.paint(cell, colour)}" for name, cell, colour in cells)


def _cell(cell: str) -> str:
    return prose.cell(prose.code(cell))


# ------------------------------------------------------------------------------------------------------------- JSON
def _object(standing: Standing) -> dict[str, Any]:
    return {
        "address": standing.address,
        "domain": standing.domain,
        "selector": standing.selector,
        "algorithm": standing.algorithm or None,
        "stage": standing.stage or None,
        "since": standing.since.isoformat() if standing.since else None,
        "age_days": standing.age,
        "public_key": standing.key,
        "server": str(standing.signing),
        "agree": str(standing.agrees),
        "nameservers": [_nameserver(item, standing.key) for item in standing.shown],
        "findings": [_finding(item) for item in standing.findings],
    }


def _nameserver(shown: Shown, key: str | None) -> dict[str, Any]:
    return {
        "server": shown.server,
        "shows": None if shown.unread or key is None else shown.carries(key),
        "values": list(shown.values),
        "alias": shown.alias or None,
        "mismatches": [str(kind) for kind in shown.defects],
        "unread": shown.unread or None,
    }


def _finding(finding: Finding) -> dict[str, str]:
    return {"mismatch": str(finding.kind), **json.problem(finding.problem)}
