"""The status page as HTML: a status document and a template (https://jinja.palletsprojects.com), every text escaped."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from reconciler.daemon.document import seconds_since
from reconciler.report import summary, values
from reconciler.resources import KINDS

_MOST = 300  # rows of one kind that stand on the page beside those in trouble; `/status.json` has all
_KINDS = {
    "account": "Accounts",
    "group": "Groups",
    "list": "Mailing lists",
    "domain": "Domains",
    "dkim": "Keys",
    "dns": "Records",
    "smtp": "Consumers",
    "stalwart": "Server settings",
}
_KINDS |= {kind.kind: f"{kind.kind}s".capitalize() for kind in KINDS if kind.kind not in _KINDS}
# How a state reads, and how much it should be noticed.
_STATES = {
    "in_sync": ("as desired", "good"),
    "adopted": ("equal, to be marked as ours", "note"),
    "restart": ("restart is due", "note"),
    "starting": ("starting", "note"),
    "suspended": ("suspended", "note"),
    "healing": ("healing", "note"),
    "pending": ("change pending", "note"),
    "held": ("left alone", "bad"),
    "contested": ("contested", "bad"),
    "stale": ("source failed", "bad"),
    "lost": ("lost", "bad"),
    "failed": ("failed", "bad"),
    "refused": ("refused by a guard", "bad"),
    "unreadable": ("could not be read", "bad"),
}
_SAID = {
    "start": "the daemon began",
    "interval": "it was time",
    "retry": "a pause was over",
    "revision": "a new revision",
    "engine": "a container changed",
    "hangup": "SIGHUP",
    "request": "somebody asked",
    "failover": "consumers are switched",
    "nothing": "nothing to do",
    "done": "mended, and proven",
    "partial": "something is left to do",
    "failed": "nothing could be done",
    "suspended": "only looked, being suspended",
    "busy": "only looked, as another one is at work",
}
_UNITS = ((86_400, "day"), (3600, "hour"), (60, "minute"))


@dataclass(frozen=True, slots=True)
class Group:
    """The resources of one kind: those in trouble, then the others, of which ``left_out`` are too many to show."""

    kind: str
    title: str
    rows: Sequence[Mapping[str, Any]]
    trouble: int
    total: int
    left_out: int


def render(document: Mapping[str, Any], hangs: str, now: datetime | None = None) -> str:
    """Return the page. ``hangs`` says why the loop seems to hang, empty while it does not."""
    now = now or datetime.now(UTC)
    return _template().render(
        status=document, hangs=hangs, groups=_groups(document["resources"]), ago=functools.partial(_ago, now)
    )


@functools.cache
def _template() -> Template:
    return templates(Path(__file__).parent / "templates").get_template("page.html")


def templates(folder: Path) -> Environment:
    """Return a folder's templates: every text is escaped, and states are said as on each page of ours."""
    made = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_visible,
    )
    made.globals |= {"words": lambda state: _STATES.get(state, (state, "note")), "target_name": summary.target_name}
    made.globals["said"] = lambda word: _SAID.get(word, word)
    return made


def _visible(value: Any) -> Any:
    """Show characters that could hide or reorder what is read; markup is a kind of str, and left to itself."""
    return values.escape(value) if type(value) is str else value


def _groups(resources: Sequence[Mapping[str, Any]]) -> list[Group]:
    found = []
    for kind, title in _KINDS.items():
        rows = [item for item in resources if item["kind"] == kind]
        calm = [item for item in rows if item["state"] == "in_sync"]
        trouble = [item for item in rows if item["state"] != "in_sync"]
        if rows:
            shown = [*trouble, *calm[:_MOST]]
            found.append(Group(kind, title, shown, len(trouble), len(rows), len(rows) - len(shown)))
    return found


def _ago(now: datetime, when: str) -> str:
    """Say how long ago a time was, or in how long it will be."""
    seconds = seconds_since(when, now)
    ahead = (datetime.fromisoformat(when) - now).total_seconds() if seconds == 0 else 0.0
    length = ahead if ahead > 0 else seconds or 0.0
    said = next((_number(int(length // size), unit) for size, unit in _UNITS if length >= size), "")
    if not said:
        return "in less than a minute" if ahead > 0 else "less than a minute ago"
    return f"in {said}" if ahead > 0 else f"{said} ago"


def _number(number: int, unit: str) -> str:
    return f"{number} {unit}{'' if number == 1 else 's'}"
