"""A plan as Markdown, for a comment on a pull request: safe whatever the values hold, and never too long."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby

from reconciler.difference import Difference
from reconciler.plan import Plan, Unmerged
from reconciler.problem import Problem, Severity
from reconciler.report import difference, summary, values
from reconciler.target import Change

LIMIT = 65536  # characters GitHub takes for a comment
_MARGIN = 500  # for the last lines: what is left out, and the fingerprint
_TABLES = 600  # for the headings of a table for each target, and its fold
_HEAD = 20  # lines of the head; each system has one or two
_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~>$])")  # $ begins a formula at GitHub


def marker(stack: str, what: str = "plan") -> str:
    """Return the hidden comment by which the one comment of a stack is found again."""
    return f"<!-- reconciler:{what}:{re.sub('[^a-z0-9-]', '', stack.lower())} -->"


def plan(plan: Plan, limit: int = LIMIT) -> str:
    """Render a plan in at most ``limit`` characters.

    Problems that stop it, deletions and what may touch the flow of mail stand outside the fold. What does not fit is
    left out, from the end of the fold first, and the text says so; deletions become bare addresses before one goes.
    """
    page = Page(limit)
    page.add([marker(plan.stack), *_head(plan)])
    if plan.unmerged is not None:
        _unmerged(page, plan.unmerged)
    page.add(_receivers(plan, page.room // 4))
    page.add([escape(summary.conclusion(plan)[:1000])])
    page.notices(list(_notices(plan)), page.room // 4)
    deletions = [change for change in plan.changes if change.deletes]
    risky = [change for change in plan.changes if not change.deletes and _risky(change)]
    rest = [change for change in plan.changes if not change.deletes and not _risky(change)]
    shown = page.table(_rows(deletions), bare=[f"- delete {code(change.address)}" for change in deletions])
    page.table(_rows(risky))
    page.table(_rows(rest), fold="Other changes")
    page.list(list(_extra(plan)), fold="Adopted, not declared, and warnings")
    page.add(_truncated(page.left_out, shown, len(deletions)) if page.left_out else [])
    return "\n\n".join([*page.parts, f"<sub>plan `{plan.fingerprint[:12]}`</sub>"]) + "\n"


def _unmerged(page: Page, of: Unmerged) -> None:
    """Add what of an unmerged revision is not used and not read, which a reviewer has to see."""
    page.add([f"> {escape(line)}\n" for line in summary.unmerged(of)])
    bare = [f"- not used before the merge: {code(item.address)}" for item in of.unused]
    page.table(list(map(difference_row, of.unused)), bare=bare, third="not used before the merge")
    unread = ((code(str(ref)), code(difference.spot(place))) for ref, place in of.unread)
    page.notices([f"- not read before the merge: {ref} ({place})" for ref, place in unread], page.room // 4)


class Page:
    """What is written so far, the characters that are left, and how many lines did not fit."""

    def __init__(self, limit: int = LIMIT) -> None:
        self.room, self.left_out, self.parts = limit - _MARGIN, 0, list[str]()

    def add(self, lines: Sequence[str]) -> None:
        """Add lines, whether or not they fit."""
        if lines:
            self.parts.append("\n".join(lines))
            self.room -= len(self.parts[-1]) + 2

    def notices(self, lines: Sequence[str], room: int) -> None:
        """Add what fits, each line by itself: a long one hides none of the others."""
        shown = [line for line in lines if len(line) <= room // 4] or list(lines)
        shown = _fitting(shown, room)
        self.left_out += len(lines) - len(shown)
        self.add(shown)

    def table(
        self, rows: Sequence[tuple[str, str]], fold: str = "", *, bare: Sequence[str] = (), third: str = "why"
    ) -> int:
        """Add a table for each heading, with ``third`` over its third column.

        ``bare`` are the lines to show in place of all of it, where that does not fit.
        """
        if bare and sum(len(row) + 1 for _, row in rows) + _TABLES > self.room:
            return self.list(bare)
        shown = _fitting([row for _, row in rows], self.room - _TABLES)
        self.left_out += len(rows) - len(shown)
        self.add(_fold(fold, _tables(rows[: len(shown)], third), len(rows)))
        return len(shown)

    def list(self, lines: Sequence[str], fold: str = "") -> int:
        """Add the lines that fit, and return how many those are."""
        shown = _fitting(lines, self.room - _TABLES)
        self.left_out += len(lines) - len(shown)
        self.add(_fold(fold, "\n".join(shown), len(lines)))
        return len(shown)


def _fitting(lines: Sequence[str], room: int) -> list[str]:
    taken = []
    for line in lines:
        room -= len(line) + 1
        if room < 0:
            break
        taken.append(line)
    return taken


def escape(text: str) -> str:
    """Make a text mean nothing to Markdown, HTML, or to whom it would mention."""
    import html  # not above: its table of entities takes longer than the rest of a plan's report

    visible = _SPECIAL.sub(r"\\\1", html.escape(values.escape(text), quote=False).replace("&gt;", ">"))
    # A word joiner keeps @name and #1 from notifying and linking, and a URL from becoming a link.
    return (
        visible.replace("@", "@&#8288;")
        .replace("\\#", "\\#&#8288;")
        .replace("://", ":&#8288;//")
        .replace("www.", "www&#8288;.")
    )


def code(text: str) -> str:
    """Set a text as code on one line, where nothing is a mention or HTML: its fence is longer than any run in it."""
    safe = values.escape(text)
    fence = "`" * (max((len(run) for run in re.findall("`+", safe)), default=0) + 1)
    blank = " " if safe.startswith("`") or safe.endswith("`") or not safe.strip() else ""
    return f"{fence}{blank}{safe}{blank}{fence}"


def _head(plan: Plan) -> Iterator[str]:
    number = summary.counts(plan)
    risk = sum(summary.mail_flow(change) for change in plan.changes)
    parts = [f"{number.create} create", f"{number.change} change", f"{number.delete} delete"]
    parts += [f"{number.adopt} adopt"] if number.adopt else []
    parts += [f"{number.restart} restart due"] if number.restart else []
    parts += [f"⚠ {risk} may touch the flow of mail"] if risk else []
    yield f"### {escape(plan.stack)}: {' · '.join(parts)}"
    yield ""
    if plan.revision:
        yield f"Revision {code(values.shorten(plan.revision))}\n"
    yield from (f"- {code(values.shorten(line))}" for line in plan.head[:_HEAD])


def _receivers(plan: Plan, room: int) -> list[str]:
    """Name each host that secrets go to, which a reviewer has to see: with the secrets, alone, or the first ones."""
    whole = [f"- {code(line)}" for line in summary.receivers(plan)]
    if sum(len(line) + 1 for line in whole) <= room:
        return whole
    hosts = [f"- secrets go to {code(item.host)}" for item in plan.receivers]
    shown = _fitting(hosts, room)
    if len(shown) == len(hosts):
        return shown
    rest = (
        f"- **and to {len(hosts) - len(shown)} more hosts, which do not fit into a comment: do not approve it unread**"
    )
    return [*shown, rest]


def _notices(plan: Plan) -> Iterator[str]:
    yield from (f"> {escape(line)}\n" for line in summary.loss(plan))
    stopping = summary.stopping(plan)
    yield f"**{len(stopping)} {'problem stops' if len(stopping) == 1 else 'problems stop'} it**\n" if stopping else ""
    yield from (f"> {problem(item)}\n" for item in stopping)


def problem(problem: Problem) -> str:
    """Render a problem on one line."""
    word = {Severity.REFUSED: "**Refused** ", Severity.ERROR: "**Error** ", Severity.WARNING: ""}[problem.severity]
    hint = f" → {escape(problem.hint)}" if problem.hint else ""
    return f"{word}{code(values.shorten(problem.where))} {escape(problem.summary)}{hint}"


def _risky(change: Change) -> bool:
    return summary.mail_flow(change) or summary.sign(change) == "±"


def _rows(changes: Sequence[Change]) -> list[tuple[str, str]]:
    return [(summary.target_name(change.target), _row(change)) for change in changes]


def _row(change: Change) -> str:
    whole = change.before is None or change.deletes
    what = values.brief(change.shown) if whole else ""
    cells = [what] if what else [] if whole or change.restarts else values.transitions(change)
    texts = [cell(text) for text in cells] + [escape(note) for note in change.notes]
    reason = str(change.reason).replace("_", " ")
    return f"| {summary.sign(change)} | {cell(change.address)} | {reason} | {'<br>'.join(texts)} |"


def difference_row(item: Difference) -> tuple[str, str]:
    """Return the heading and the row of a difference between two directories."""
    texts = [cell(line) for line in difference.what(item)] + [escape(line) for line in difference.told(item)]
    where = cell(difference.at(item)) if item.place else ""
    row = f"| {difference.sign(item)} | {cell(item.address)} | {where} | {'<br>'.join(texts)} |"
    return difference.heading(item), row


def cell(text: str) -> str:
    """Set a text as code in a table, where GitHub reads a pipe as a column unless a backslash stands before it."""
    return code(text).replace("|", "\\|")


def _tables(rows: Sequence[tuple[str, str]], third: str) -> str:
    tables = []
    for heading, members in groupby(sorted(rows, key=lambda row: row[0]), key=lambda row: row[0]):
        lines = [f"**{escape(heading)}**", "", f"| | resource | {third} | what |", "|-|-|-|-|"]
        tables.append("\n".join([*lines, *(row for _, row in members)]))
    return "\n\n".join(tables)


def _extra(plan: Plan) -> Iterator[str]:
    yield from (f"- {problem(item)}" for item in summary.warnings(plan))
    yield from (f"- adopted {code(change.address)}" for change in plan.adopted)
    yield from (f"- not declared, left alone: {code(address)}" for address in plan.unmanaged)


def _fold(title: str, body: str, number: int) -> list[str]:
    if not body or not title:
        return [body] if body else []
    return [f"<details><summary>{title} ({number})</summary>\n\n{body}\n\n</details>"]


def _truncated(left_out: int, shown: int, deletions: int) -> list[str]:
    kept = f" {shown} of {deletions} deletions are shown." if shown < deletions else " All deletions are shown."
    whole = "Read the whole plan with `reconciler plan` before you approve it."
    return [f"**Truncated:** {left_out} lines do not fit into a comment.{kept} {whole}"]


def fenced(text: str) -> str:
    """Set a text as a block of code; the fence is longer than any run of backticks in it."""
    fence = "`" * max(3, max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    return f"{fence}\n{text.rstrip()}\n{fence}\n"
