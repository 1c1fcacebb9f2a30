"""What became of each mail, a line each: as text for a person, as JSON for programs.

Who is written to is masked but for addresses that the directory holds: the output is made to be shown to who helps, and
the domain alone decides why a mail does not get on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from datetime import datetime
from typing import Any

from reconciler.report import values
from reconciler.report.text import Style
from reconciler.traffic import Fate, Message, Recipient, Refusal, Traffic, masked, reason

PLAIN = Style()
_MARKS = {
    Fate.DELIVERED: ("✓", "green"),
    Fate.SENT: ("✓", "green"),
    Fate.QUEUED: ("·", None),
    Fate.DEFERRED: ("!", "yellow"),
    Fate.BOUNCED: ("✗", "red"),
}
_STUCK = (Fate.DEFERRED, Fate.BOUNCED)

Known = Collection[str] | None
"""Addresses that are shown as they are; None shows all."""


def text(traffic: Traffic, known: Known, style: Style = PLAIN) -> str:
    """Render each mail of the time, the oldest first; ends with a newline."""
    lines = [style.title(_title(traffic))]
    for message in traffic.messages:
        for item in message.recipients:
            lines += _lines(message, item, known, style)
    lines += [_refusal(item, known, style) for item in traffic.refusals]
    lines += [f"? {values.escape(why)}" for why in traffic.unread]
    return "\n".join(lines) + "\n"


def _title(traffic: Traffic) -> str:
    counts = Counter(item.fate for message in traffic.messages for item in message.recipients)
    since = f"since {traffic.since:%H:%M:%S} UTC" if traffic.since else "in the queue"
    told = [f"{counts[fate]} {fate}" for fate in Fate if counts[fate]]
    told += [f"{len(traffic.refusals)} not handed in"] if traffic.refusals else []
    return f"Mail {since}: {', '.join(told) or 'none'}"


def _lines(message: Message, item: Recipient, known: Known, style: Style) -> list[str]:
    mark, colour = _MARKS[item.fate]
    of = f" ({', '.join(message.services)})" if message.services else " (a bounce)" if message.bounce else ""
    sender = _shown(message.sender, known) or "<>"
    where = f" by {item.host}" if item.fate in (Fate.SENT, Fate.BOUNCED) and item.host else ""
    due = f", tried again at {item.due:%H:%M:%S} UTC" if item.due and item.fate is Fate.DEFERRED else ""
    head = f"{message.when:%H:%M:%S} {item.fate}{where}{due}: {sender}{of} to {_shown(item.address, known)}"
    lines = [f"{style.paint(mark, colour)} {values.escape(f'{head}, id {message.id:x}')}"]
    if item.fate in _STUCK:
        why = reason(item.words)
        lines += [f"    {values.escape(_shown(item.words or 'no answer is known', known))}"]
        lines += [f"    cause: {why.cause}", f"    → {why.remedy}"]
    return lines


def _refusal(item: Refusal, known: Known, style: Style) -> str:
    mark = style.paint("✗", "red")
    return f"{mark} {item.when:%H:%M:%S} not handed in by {item.service}: {values.escape(_shown(item.words, known))}"


def _shown(words: str, known: Known) -> str:
    return words if known is None else masked(words, known)


def document(traffic: Traffic, known: Known) -> dict[str, Any]:
    """Return the same as JSON: ``mail`` and ``refused`` beside the checks."""
    return {
        "since": _time(traffic.since),
        "mail": [_entry(message, item, known) for message in traffic.messages for item in message.recipients],
        "refused": [
            {"service": item.service, "at": _time(item.when), "words": _shown(item.words, known)}
            for item in traffic.refusals
        ],
        "unread": list(traffic.unread),
    }


def _entry(message: Message, item: Recipient, known: Known) -> dict[str, Any]:
    why = reason(item.words) if item.fate in _STUCK else None
    return {
        "id": f"{message.id:x}",
        "at": _time(message.when),
        "from": _shown(message.sender, known),
        "to": _shown(item.address, known),
        "status": str(item.fate),
        "host": item.host,
        "words": _shown(item.words, known),
        "again": _time(item.due),
        "cause": why.cause if why else "",
        "remedy": why.remedy if why else "",
        "services": list(message.services),
        "bounce": message.bounce,
    }


def _time(when: datetime | None) -> str | None:
    return f"{when:%Y-%m-%dT%H:%M:%SZ}" if when else None
