"""A plan as Markdown, for a comment on a pull request: read at a glance, safe whatever values hold, never too long."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from reconciler.difference import Difference
from reconciler.plan import Plan, Unmerged
from reconciler.problem import Problem
from reconciler.report import difference, risk, summary, values
from reconciler.report.comment import LIMIT, Page, fitting, marker, problem, told
from reconciler.report.prose import cell, code, prose
from reconciler.target import Change

_NAMED = 10  # unread systems that are named
_SHOWN = 12  # characters of a plan's fingerprint that are shown


def plan(plan: Plan, limit: int = LIMIT, links: Mapping[str, str] | None = None) -> str:
    """Render a plan in at most ``limit`` bytes. ``links`` maps addresses to where they are declared.

    What stops it, deletions and what touches the flow of mail stand outside the fold. What does not fit is left out,
    from the end of the fold first, and the text says so at its top; links go first, and deletions become bare addresses
    before one goes.
    """
    page, hidden = _page(plan, limit, links or {})
    if page.left_out and links:
        page, hidden = _page(plan, limit, {})
    cut = [_cut(page.left_out, hidden)] if page.left_out else []
    title, *below = page.parts
    facts = _facts(plan, whole=not page.left_out)
    return "\n\n".join(["\n".join([marker(plan.stack), facts, title]), *cut, *below, _foot(plan)]) + "\n"


def failed(problems: Sequence[Problem], limit: int = LIMIT) -> str:
    """Say why a command did nothing."""
    page = Page(limit)
    page.add(["### ⛔ nothing was done"])
    page.notices([f"> {problem(item)}" for item in problems], page.room)
    return "\n\n".join(page.parts) + "\n"


def unplanned(stack: str, revision: str, problems: Sequence[Problem], limit: int = LIMIT) -> str:
    """Say why nothing could be planned of a revision, in place of its plan."""
    page = Page(limit)
    page.add([f"### ⛔ {prose(stack)}: nothing could be planned"])
    page.notices([f"> {problem(item)}" for item in problems], page.room)
    left = [f"**Cut:** {page.left_out:,} more mistakes; `reconciler validate` shows them."] if page.left_out else []
    title, *below = page.parts
    facts = _facts(Plan(stack, revision=revision), whole=False)
    return "\n\n".join(["\n".join([marker(stack), facts, title]), *left, *below]) + "\n"


def is_whole(plan: Plan, limit: int = LIMIT) -> bool:
    """Whether a comment shows all of a plan: what nobody could read, nobody can approve."""
    if sum(len(change.address) for change in plan.changes) > limit:
        return False
    return not _page(plan, limit, {})[0].left_out


def _page(plan: Plan, limit: int, links: Mapping[str, str]) -> tuple[Page, int]:
    """Render it but for what is known last; return how many deletions did not fit, too."""
    page, words = Page(limit), risk.touched(plan)
    page.add([_title(plan)])
    page.add([_state(plan, list(words.values()))])
    page.notices([f"> {prose(line)}" for line in summary.loss(plan)], page.room)
    page.notices([f"> {problem(item)}" for item in summary.stopping(plan)], page.room // 4)
    if plan.unmerged is not None:
        _unmerged(page, plan.unmerged)
    receivers = page.aside(_receivers(plan, page.room // 4, page))
    page.notices([f"> **Held** {told(item)}" for item in plan.held], page.room // 4)

    def rows(heading: str, changes: Sequence[Change]) -> list[tuple[str, str]]:
        made, room = [], page.room
        for item in changes:  # behind what does not fit nothing is shown, so nothing is made: there may be thousands
            row = _row(item, words, links) if room >= 0 else ""
            room -= len(row)
            made.append((heading or summary.target_name(item.target), row))
        return made

    rest = list(plan.changes)
    deletions = _take(rest, lambda change: change.deletes)
    bare = [f"- delete {code(change.address)}" for change in deletions]
    hidden = len(deletions) - page.table(rows("Deletions", deletions), bare=bare)
    risky = _take(rest, lambda change: change.address in words or summary.sign(change) in "±↻")
    page.table(rows("Mail flow, changes of type, restarts", risky))
    page.table(rows("", rest), fold="Other changes")
    page.list(list(_extra(plan)), fold=_extra_title(plan))
    page.parts += receivers
    page.list([f"- {prose(values.shorten(line))}" for line in plan.head], fold="Planned with")
    return page, hidden


def _unmerged(page: Page, of: Unmerged) -> None:
    """Add what of an unmerged revision is not used and not read, which a reviewer has to see."""
    page.add(["\n".join(f"> {prose(line)}" for line in summary.unmerged(of))])
    bare = [f"- not used before the merge: {code(item.address)}" for item in of.unused]
    page.table(list(map(difference_row, of.unused)), bare=bare, third="not used before the merge")
    unread = ((code(str(ref)), code(difference.spot(place))) for ref, place in of.unread)
    page.notices([f"- not read before the merge: {ref} ({place})" for ref, place in unread], page.room // 4)


def difference_row(item: Difference) -> tuple[str, str]:
    """Return the heading and the row of a difference between two directories."""
    texts = [cell(code(line)) for line in difference.what(item)] + [cell(prose(line)) for line in difference.told(item)]
    where = cell(code(difference.at(item))) if item.place else ""
    row = f"| {difference.sign(item)} | {cell(code(item.address))} | {where} | {'<br>'.join(texts)} |"
    return difference.heading(item), row


def _take(changes: list[Change], which: Callable[[Change], bool]) -> list[Change]:
    """Take out of a list what a table of its own is for."""
    taken = [change for change in changes if which(change)]
    changes[:] = [change for change in changes if not which(change)]
    return taken


# ------------------------------------------------------------------------------------------------- its first lines
def _title(plan: Plan) -> str:
    number = summary.counts(plan)
    named = {"create": number.create, "change": number.change, "delete": number.delete, "adopt": number.adopt}
    parts = [f"{count:,} {word}" for word, count in named.items() if count]
    parts += [f"{number.restart:,} restart due"] if number.restart else []
    parts += [f"{len(plan.held):,} held"] if plan.held else []
    stops = bool(summary.stopping(plan) or plan.unread)
    nothing = "nothing could be planned" if stops and not plan.unchanged else "nothing to do"
    sign = "⛔ " if stops else "" if parts else "✅ "
    return f"### {sign}{prose(plan.stack)}: {' · '.join(parts) or nothing}"


def _state(plan: Plan, words: Sequence[str]) -> str:
    """Say what is at risk, and whether it may be applied at all."""
    said = risk.line(plan, words)
    lines = [f"⚠️ **Risk:** {said}"] if said else []
    lines += ["No deletion, and nothing that touches the flow of mail."] if plan.changes and not said else []
    lines += ["**Refused:** nothing will be written."] if plan.refused else []
    unread = ", ".join(code(scope) for scope in sorted(plan.unread)[:_NAMED])
    more = f" and {len(plan.unread) - _NAMED} more" if len(plan.unread) > _NAMED else ""
    lines += [f"**Not complete:** {unread}{more} could not be read, so this plan can't be approved."] if unread else []
    return "  \n".join([*lines, f"{plan.unchanged:,} unchanged."])


def _facts(plan: Plan, *, whole: bool) -> str:
    """Tell programs what this is a plan of, in a hidden line that no value can end."""
    facts = {
        "revision": re.sub(r"[^0-9a-f+]", "", plan.revision)[:64],
        "fingerprint": plan.fingerprint,
        "approvable": plan.complete and whole,
    }
    return f"<!-- reconciler:facts {json.dumps(facts)} -->"


def _cut(lines: int, deletions: int) -> str:
    kept = f"{deletions:,} deletions are among them." if deletions else "All deletions are shown."
    whole = "Read it whole with `reconciler plan`."
    return f"**Cut:** {lines:,} lines do not fit into a comment, so this plan can't be approved. {kept} {whole}"


def _foot(plan: Plan) -> str:
    of = f" of revision {code(values.shorten(plan.revision))}" if plan.revision else ""
    return f"<sub>Plan {code(plan.fingerprint[:_SHOWN])}{of}</sub>"


def _receivers(plan: Plan, room: int, page: Page) -> list[str]:
    """Name each host that secrets go to, which a reviewer has to see: with the secrets, alone, or the first ones."""
    whole = fitting(map(_receiver, summary.receivers(plan)), room)
    if len(whole) == len(plan.receivers):
        return whole
    hosts = [f"- Secrets go to {code(item.host)}" for item in plan.receivers]
    shown = fitting(hosts, room)
    left = len(hosts) - len(shown)
    page.left_out += left
    return [*shown, f"- **and to {left:,} more hosts, which do not fit into a comment**"] if left else shown


def _receiver(line: str) -> str:
    host, _, secrets = line.removeprefix("secrets go to ").partition(": ")
    return f"- Secrets go to {code(host)}: {code(secrets)}"


# ----------------------------------------------------------------------------------------------------- its changes
def _row(change: Change, words: Mapping[str, str], links: Mapping[str, str]) -> str:
    whole = change.before is None or change.deletes
    what = values.brief(change.shown) if whole else ""
    cells = [what] if what else [] if whole or change.restarts else values.transitions(change)
    texts = [cell(code(text)) for text in cells] + [cell(prose(note)) for note in change.notes]
    reason = ", ".join(word for word in (words.get(change.address), str(change.reason).replace("_", " ")) if word)
    return f"| {summary.sign(change)} | {_linked(change.address, links)} | {reason} | {'<br>'.join(texts)} |"


def _linked(address: str, links: Mapping[str, str]) -> str:
    shown = cell(code(address))
    return f"[{shown}]({links[address]})" if address in links else shown


def _extra(plan: Plan) -> Iterator[str]:
    yield from (f"- {problem(item)}" for item in summary.warnings(plan))
    yield from (f"- adopted {code(change.address)}" for change in plan.adopted)
    yield from (f"- not declared, left alone: {code(address)}" for address in plan.unmanaged)


def _extra_title(plan: Plan) -> str:
    warnings = len(summary.warnings(plan))
    numbers = {
        "warning" if warnings == 1 else "warnings": warnings,
        "adopted": len(plan.adopted),
        "not declared": len(plan.unmanaged),
    }
    return ", ".join(f"{number:,} {word}" for word, number in numbers.items() if number)
