"""What the authoritative name servers show, and whether a record is among it. Pure: `nameservers` asks them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from reconciler import keys
from reconciler.dns import text
from reconciler.dns.records import policy, record
from reconciler.resources import Record


@dataclass(frozen=True, slots=True, order=True)
class Question:
    """A full name (lower case, Punycode, no last dot) and a type (``TXT``, ``CNAME``, ``MX``, ``A``, ``AAAA``)."""

    host: str
    type: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What one authoritative name server shows.

    ``values`` are TXT values with their strings joined (RFC 7208 section 3.3), hosts without the last dot, an MX as
    ``10 mail.example.com``; empty where the name or the type does not exist. ``unread`` says why the server could not
    be asked; empty where it answered. ``alias`` is the name that a CNAME led to, whose values these then are. Where the
    servers could not be found out, one answer stands for them, and ``server`` is ``the name servers of HOST``.
    """

    server: str
    values: tuple[str, ...] = ()
    unread: str = ""
    alias: str = ""


Answers = Mapping[Question, tuple[Answer, ...]]
"""One answer of every authoritative name server of the question's zone; empty where there is no such zone."""

Look = Callable[[Collection[Question]], Answers]
"""Asks every authoritative name server, side by side and within seconds. Never raises for a server's fault."""


@dataclass(frozen=True, slots=True)
class Publication:
    """How far a record is published: which name servers show it, which do not, and which could not be asked."""

    shown: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unread: tuple[tuple[str, str], ...] = ()  # the server, and why

    @property
    def everywhere(self) -> bool:
        """Whether every authoritative name server was asked and shows it."""
        return bool(self.shown) and not self.missing and not self.unread

    @property
    def words(self) -> str:
        """What keeps it from being everywhere, for a person; empty where nothing does."""
        said = []
        if self.missing:
            said.append(f"{', '.join(self.missing)} {'does' if len(self.missing) == 1 else 'do'} not show it yet")
        said += [f"{server} could not be asked ({why})" for server, why in self.unread]
        if not (self.shown or said):
            said.append("no authoritative name server was found")
        return "; ".join(said)


def question(record: Record) -> Question:
    """Return what to ask for a record."""
    return Question(record.host, record.type)


def publication(record: Record, answers: Answers) -> Publication:
    """Judge by what was answered whether every name server shows a record: by meaning, as records compare."""
    shown, missing, unread = list[str](), list[str](), list[tuple[str, str]]()
    for answer in answers.get(question(record), ()):
        if answer.unread:
            unread.append((answer.server, answer.unread))
        elif _shows(answer, record):
            shown.append(answer.server)
        else:
            missing.append(answer.server)
    return Publication(tuple(shown), tuple(missing), tuple(unread))


def _shows(answer: Answer, wanted: Record) -> bool:
    """Whether an answer has the record. A second key at a DKIM name leaves receivers the choice (RFC 6376 3.6.2.2)."""
    shown = [_read(value, wanted) for value in answer.values]
    if policy(wanted) is text.DKIM:
        return len(shown) == 1 and shown[0] is not None and _verifies(str(shown[0].content), wanted.content)
    facts = (wanted.content, wanted.priority, wanted.data)
    return any(item is not None and (item.content, item.priority, item.data) == facts for item in shown)


def _read(value: str, wanted: Record) -> Record | None:
    """Make a record of a value as name servers show it; None of what makes none. Quotes in it are part of it."""
    content = text.quoted(value) if wanted.type == "TXT" else value
    try:
        return record(wanted.zone, wanted.type, f"{wanted.host}.", content)
    except ValueError:
        return None


def _verifies(value: str, wanted: object) -> bool:
    """Whether receivers verify with a key record what they would with ours: tags beside ours may restrict nothing.

    Revoked, only being tested (``t=y``), or not for mail is as good as not there (RFC 6376 section 3.6.1).
    """
    if not isinstance(wanted, str):
        return False
    shown, ours = keys.read(value), keys.read(wanted)
    if not (shown.sound and ours.sound and ours.tag("p")):
        return False
    same = all(shown.tag(tag) == ours.tag(tag) for tag in ("v", "k", "p"))
    usable = "sha256" in shown.words("h") and bool({"*", "email"} & shown.words("s")) and "y" not in shown.words("t")
    return same and usable
