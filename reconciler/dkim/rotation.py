"""The life of a DKIM key as states, never as a remembered step: what the next one is, and when it is due. Pure.

``pending`` (published, not signing) becomes ``active`` once every authoritative name server shows it, and the key that
signed until then ``retiring``: published for seven more days, since queues retry for days and verifiers may be late
(RFC 6376 section 3.1, RFC 5321 section 4.5.4.1). Then it is ``retired``, and its record goes.
"""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from reconciler.desired.spec.mail import Key
from reconciler.dns.publication import Answers, Publication, Question, publication, question
from reconciler.dns.records import dkim_record
from reconciler.names import host
from reconciler.problem import Problem, Severity
from reconciler.resources import UNKNOWN, Record, Signature

RETIRING = dt.timedelta(days=7)

SHOWN = "as soon as every name server shows it"

Fields = Mapping[str, str | dt.date]


def free(since: dt.date) -> dt.date:
    """Return the first day on which a key may go that retired on ``since``.

    A day has no hours here: it may have signed until the end of that day, and seven full days follow. So it is the
    eighth day after.
    """
    return since + RETIRING + dt.timedelta(days=1)


class Turn(enum.StrEnum):
    """What a step does."""

    START = "start"  # a new key is needed, which will be pending
    ACTIVATE = "activate"
    RETIRE = "retire"
    DATE = "date"  # the stage stays, its day is corrected
    WAIT = "wait"
    BLOCKED = "blocked"  # what has to be known could not be found out
    REST = "rest"


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """What is known besides the entries.

    ``halves`` are public keys by selector, of entries that only name the private one. ``server`` is what the mail
    server has; None where it could not be observed, or was not.
    """

    answers: Answers = field(default_factory=dict)
    halves: Mapping[str, str] = field(default_factory=dict)
    server: Collection[Signature] | None = None


@dataclass(frozen=True, slots=True)
class Needs:
    """What has to be known for the next steps: nothing else is asked. ``halves`` are entries without a public key."""

    questions: frozenset[Question] = frozenset()
    halves: tuple[Key, ...] = ()
    server: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """The next step of one algorithm.

    ``selector`` is the key it is about (of `START`: the one that signs), ``changes`` the fields to write by selector.
    ``said`` is what happens, ``then`` when the next step is due, in words; ``due`` is that day, where it is one.
    """

    algorithm: str
    move: Turn
    selector: str = ""
    changes: Mapping[str, Fields] = field(default_factory=dict)
    said: str = ""
    then: str = ""
    due: dt.date | None = None
    problems: tuple[Problem, ...] = ()


def needs(domain: str, keys: Sequence[Key], today: dt.date) -> Needs:
    """Say what has to be known to tell the next steps of a domain's keys."""
    found = [_Rotation(domain, keys, algorithm, today, KeyFacts()).needs() for algorithm in algorithms(keys)]
    return Needs(
        frozenset(item for each in found for item in each.questions),
        tuple(key for each in found for key in each.halves),
        any(each.server for each in found),
    )


def steps(domain: str, keys: Sequence[Key], today: dt.date, seen: KeyFacts) -> tuple[Step, ...]:
    """Return the next step of each algorithm that a domain has keys of.

    A rotation starts only while none is under way: otherwise the call that ends one of an algorithm would begin
    another of the one that was done sooner.
    """
    found = [_Rotation(domain, keys, algorithm, today, seen).step() for algorithm in algorithms(keys)]
    under_way = [item for item in found if item.move not in (Turn.START, Turn.REST)]
    if not under_way:
        return tuple(found)
    said = f"a new key comes with the next rotation, when that of {under_way[0].algorithm} is done"
    return tuple(replace(item, move=Turn.REST, said=said) if item.move is Turn.START else item for item in found)


def algorithms(keys: Sequence[Key]) -> tuple[str, ...]:
    """Name the algorithms, each once."""
    return tuple(dict.fromkeys(key.algorithm for key in keys))


@dataclass(frozen=True, slots=True)
class _Rotation:
    """One algorithm of a domain. The directory is valid: at most one key of it is active."""

    domain: str
    keys: Sequence[Key]
    algorithm: str
    today: dt.date
    seen: KeyFacts

    def at(self, stage: str) -> list[Key]:
        """Return the keys at a stage, the oldest first; one without a day is the oldest."""
        found = [key for key in self.keys if (key.algorithm, key.stage) == (self.algorithm, stage)]
        return sorted(found, key=lambda key: key.since or dt.date.min)

    @property
    def active(self) -> Key | None:
        """The key that signs."""
        return next(iter(self.at("active")), None)

    def needs(self) -> Needs:
        """Say what has to be known for the next step."""
        pending, active, retiring = self.at("pending"), self.active, self.at("retiring")
        if pending and (active is None or not retiring):
            return self._asked(pending[0], [active] if active else [])
        if any(self.free(key) <= self.today for key in retiring):
            return replace(self._asked(active, [active]) if active else Needs(), server=True)
        return Needs()

    def _asked(self, shown: Key, known: Sequence[Key]) -> Needs:
        halves = tuple(key for key in known if key.public_key is None)
        held = any(key.private_key is None for key in halves)
        return Needs(frozenset({question(self.record(shown))}), halves, server=held)

    def step(self) -> Step:
        """Return the next step."""
        pending, active, retiring = self.at("pending"), self.active, self.at("retiring")
        if pending and active is None:
            return self._several(pending, self._first(pending[0]))
        if retiring:
            return self._retiring(retiring)
        if pending and active is not None:
            return self._several(pending, self._take_over(pending[0], active))
        if active is not None:
            return Step(self.algorithm, Turn.START, active.selector)
        command = f"reconciler dkim generate {self.domain} --algorithm {self.algorithm}"
        return Step(self.algorithm, Turn.REST, said=f"no key signs any more; a new one: {command}")

    def _several(self, pending: Sequence[Key], step: Step) -> Step:
        """Tell that only one of several pending keys goes on."""
        if len(pending) == 1:
            return step
        others = ", ".join(key.selector for key in pending[1:])
        summary = f"{pending[0].selector} comes first; {others} follows in a rotation of its own"
        hint = "or delete the entry that is not wanted"
        return replace(step, problems=(*step.problems, self._problem(pending[0], summary, hint, Severity.WARNING)))

    # ---------------------------------------------------------------------------------------------------- pending
    def _first(self, key: Key) -> Step:
        """A domain's first key has nothing to take over from: mail without a signature is no better (facts.md 2.2)."""
        shown = self.publication(key)
        said = f"{key.selector} is active since {self.today}: no other key signs, so it does at once"
        warned: tuple[Problem, ...] = ()
        if not shown.everywhere:
            hint = "mail sent before every name server shows it may fail DKIM"
            warned = (self._problem(key, f"signs before it is published: {shown.words}", hint, Severity.WARNING),)
        return self._step(Turn.ACTIVATE, key, {key.selector: self._now("active")}, said=said, problems=warned)

    def _take_over(self, key: Key, active: Key) -> Step:
        shown, public = self.publication(key), self.public(active)
        if shown.unread or not (shown.shown or shown.missing):
            hint = "run it again when every name server can be asked; `reconciler dkim list` shows them"
            return self._blocked(key, f"stays pending: {shown.words}", hint)
        if shown.missing:
            said = f"{key.selector} stays pending, and {active.selector} goes on signing: {shown.words}"
            then = SHOWN if shown.shown else f"{SHOWN}; none does yet, so apply it first"
            return self._step(Turn.WAIT, key, said=said, then=then)
        if public is None:
            return self._blocked(
                active, "can't retire: its public half, which stays published, is not known", self._remedy(active)
            )
        retiring = self._now("retiring") | ({} if active.public_key else {"public_key": public})
        said = (
            f"{key.selector} is active and {active.selector} retiring, both since {self.today}: "
            f"every name server ({len(shown.shown)} asked) shows {key.selector}"
        )
        changes = {key.selector: self._now("active"), active.selector: retiring}
        due = free(self.today)
        then = f"{active.selector} can be retired on {due}, seven full days after it signed last"
        return self._step(Turn.ACTIVATE, key, changes, said=said, then=then, due=due)

    # --------------------------------------------------------------------------------------------------- retiring
    def free(self, key: Key) -> dt.date:
        """Return the day a retiring key may go: counted from when it retired or, if later, the active one began.

        Without a day it begins to count today.
        """
        active = self.active
        began = [key.since or self.today, *([active.since] if active and active.since else [])]
        return free(max(began))

    def _retiring(self, keys: Sequence[Key]) -> Step:
        """Step with all keys that retire; what one writes does not wait for another that is not due."""
        found = [self._retire(key) for key in keys]
        first = min(found, key=lambda step: list(Turn).index(step.move))
        blocked = any(step.move is Turn.BLOCKED for step in found)
        days = [step.due for step in found if step.due]
        return replace(
            first,
            move=Turn.BLOCKED if blocked else first.move,
            changes={} if blocked else {name: facts for step in found for name, facts in step.changes.items()},
            said="; ".join(step.said for step in found if step.said),
            then="; ".join(step.then for step in found if step.then),
            due=min(days, default=None),
            problems=tuple(problem for step in found for problem in step.problems),
        )

    def _retire(self, key: Key) -> Step:
        due, active = self.free(key), self.active
        if key.since is None:
            changes = {key.selector: {"since": self.today}}
            said = f"{key.selector} is retiring, and nothing says since when: it counts from {self.today}"
            return self._step(Turn.DATE, key, changes, said=said, then=f"it can be retired on {due}", due=due)
        if self.today < due:
            said = f"{key.selector} is retiring since {key.since}: mail that it signed may still be in a queue"
            if key.since > self.today:
                said = f"{key.selector} is retiring since {key.since}, a day to come: correct it if it is a slip"
            return self._step(Turn.WAIT, key, said=said, then=f"it can be retired on {due}", due=due)
        return self._due(key, active)

    def _due(self, key: Key, active: Key | None) -> Step:
        """Retire a key whose days are over, if nothing signs with it and all see the key that signs in its place."""
        if self.seen.server is None:
            hint = "run it again where Stalwart can be reached"
            return self._blocked(key, "stays retiring: whether the server still signs with it can't be told", hint)
        if any(item.selector == key.selector and item.signs is not False for item in self.seen.server):
            return self._still_signs(key, active)
        if active is not None and not (shown := self.publication(active)).everywhere:
            if shown.missing and not shown.unread:
                said = f"{key.selector} stays retiring until {active.selector}, which signs now, is published"
                return self._step(Turn.WAIT, key, said=f"{said}: {shown.words}", then=SHOWN)
            summary = f"stays retiring until {active.selector} is published: {shown.words or 'its key is not known'}"
            return self._blocked(key, summary, "run it again when every name server can be asked")
        said = f"{key.selector} is retired since {self.today}: its record goes, and the rotation is done"
        return self._step(Turn.RETIRE, key, {key.selector: self._now("retired")}, said=said)

    def _still_signs(self, key: Key, active: Key | None) -> Step:
        """Begin to count again: the seven days are those after the last signature."""
        names = [key.selector, *([active.selector] if active else [])]
        said = f"the server still signs with {key.selector}, so the days count from {self.today}, not {key.since}"
        due = free(self.today)
        then = f"apply first, today; then it can be retired on {due}"
        changes = {name: {"since": self.today} for name in names}
        return self._step(Turn.DATE, key, changes, said=said, then=then, due=due)

    # ---------------------------------------------------------------------------------------------------- what is known
    def public(self, key: Key) -> str | None:
        """Return a key's public half: as declared, as derived, or as the server shows it."""
        held = [item.public_key for item in self.seen.server or () if item.selector == key.selector]
        known = [key.public_key, self.seen.halves.get(key.selector), *held]
        return next((item for item in known if isinstance(item, str) and item), None)

    def record(self, key: Key) -> Record:
        """Return the record that publishes a key, in whatever zone."""
        name = host(self.domain)
        return dkim_record(name, name, key.selector, key.algorithm, self.public(key) or UNKNOWN)

    def publication(self, key: Key) -> Publication:
        """Say how far a key is published; nowhere, while it is not known what its record has to be."""
        return publication(self.record(key), self.seen.answers) if self.public(key) else Publication()

    # ---------------------------------------------------------------------------------------------------- words
    def _now(self, stage: str) -> dict[str, str | dt.date]:
        return {"stage": stage, "since": self.today}

    def _step(
        self,
        move: Turn,
        key: Key,
        changes: Mapping[str, Fields] | None = None,
        *,
        said: str = "",
        then: str = "",
        due: dt.date | None = None,
        problems: tuple[Problem, ...] = (),
    ) -> Step:
        return Step(self.algorithm, move, key.selector, changes or {}, said, then, due, problems)

    def _blocked(self, key: Key, summary: str, hint: str) -> Step:
        problem = self._problem(key, summary, hint, Severity.ERROR)
        return self._step(Turn.BLOCKED, key, said=f"{key.selector} {summary}", problems=(problem,))

    def _problem(self, key: Key, summary: str, hint: str, severity: Severity) -> Problem:
        return Problem(f"dkim/{host(self.domain)}/{key.selector}", summary, hint, severity)

    @staticmethod
    def _remedy(key: Key) -> str:
        if key.private_key:
            return f"let {key.private_key} be read here, or write public_key beside it: what p= holds in DNS"
        return "run it again where Stalwart, which holds the key, can be reached; or write what p= holds in DNS"
