"""What a person is told: only changes of how things stand, each once, a reminder, and when it is well again. Pure.

One outage is one message: what goes wrong in the same cycle is told together, and what changes about a target that is
known to be ill waits until that target is well. What tells two troubles apart is a target and a class of errors, never
a time, a number or an id: those change with every cycle.
"""

from __future__ import annotations

import enum
import hashlib
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from reconciler.address import Address, target_of
from reconciler.daemon.state import ProviderState, Result, State, TargetState
from reconciler.problem import Problem, Severity

PATIENCE = 3  # cycles in a row that something passing has to last before it is told
LONG = timedelta(hours=24)  # a suspension without an end
_REMINDERS = (timedelta(hours=1), timedelta(days=1))  # the first after it was told, and all others
_STALE = 3  # intervals without an answer of the source
_STALE_AT_LEAST = timedelta(minutes=15)
_WEEK = timedelta(days=7)
_BROKEN = 2  # losses within a week
_LONGEST = 300  # characters of a cause or a remedy
_MOST = 10  # troubles that one message names
SOURCE, STACK, MAIL = "source", "stack", "mail"
_BLIND = ("held", "unreadable")


class Kind(enum.StrEnum):
    """What a message is about."""

    ALERT = "alert"  # something is wrong since now
    REMINDER = "reminder"  # it still is
    RECOVERY = "recovery"  # it is well again
    HEALED = "healed"  # something was lost and is restored
    TEST = "test"


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing that is wrong. ``target`` and ``error`` tell it apart from others.

    ``title`` is in words of ours; ``cause`` and ``remedy`` are texts of problems. It is told after ``patience`` cycles
    in a row; ``times`` counts them where the state does so itself. ``since`` is when it began, where that is known.
    """

    target: str
    error: str
    title: str
    cause: str = ""
    remedy: str = ""
    since: str = ""
    patience: int = 1
    times: int | None = None

    @property
    def key(self) -> str:
        """What it is remembered by."""
        return f"{self.target} {self.error}"


@dataclass(frozen=True, slots=True)
class Notice:
    """One message."""

    kind: Kind
    stack: str
    troubles: tuple[Trouble, ...]

    @property
    def keys(self) -> frozenset[str]:
        """The troubles it is about."""
        return frozenset(item.key for item in self.troubles)


@dataclass(frozen=True, slots=True)
class Alert:
    """A trouble as it is remembered. ``told`` is when it last was, empty where it was not yet. Times are ISO 8601."""

    target: str
    error: str
    title: str
    since: str
    times: int = 0
    told: str = ""
    reminded: int = 0

    @property
    def trouble(self) -> Trouble:
        """What is told when it is over."""
        return Trouble(self.target, self.error, self.title, since=self.since)


@dataclass(frozen=True, slots=True)
class Known:
    """What a person was told, and what may have to be. ``cycle`` is the last one that was counted, no knowledge."""

    alerts: Mapping[str, Alert] = field(default_factory=dict)
    losses: frozenset[tuple[str, str]] = frozenset()
    cycle: str = field(default="", compare=False)

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        alerts = {key: asdict(item) for key, item in self.alerts.items()}
        return {"alerts": alerts, "losses": sorted(map(list, self.losses)), "cycle": self.cycle}

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Read it. Raises ValueError, TypeError or LookupError for what is damaged."""
        alerts = {str(key): _alert(item) for key, item in value["alerts"].items()}
        return cls(alerts, frozenset((str(a), str(b)) for a, b in value["losses"]), str(value["cycle"]))


def _alert(value: Mapping[str, Any]) -> Alert:
    alert = Alert(**value)
    texts = (alert.target, alert.error, alert.title, alert.since, alert.told)
    if not all(isinstance(text, str) for text in texts) or not {type(alert.times), type(alert.reminded)} == {int}:
        raise ValueError("alert")
    for text in (alert.since, *([alert.told] if alert.told else [])):
        if _moment(text) is None:
            raise ValueError("time")
    return alert


# ------------------------------------------------------------------------------------------------------- what is due
def due(known: Known, state: State, now: datetime) -> tuple[tuple[Notice, ...], Known]:
    """Say what a person is told now, and what is to be remembered of it.

    ``now`` is in UTC. A state before the first cycle, or of one that was stopped, tells nothing.
    """
    if state.cycle is None or state.cycle.result is Result.STOPPED:
        return (), known
    cycle = f"{state.started} {state.cycle.number}"
    found = {item.key: item for item in troubles(state, now)}
    alerts = {key: _seen(known.alerts.get(key), item, now, cycle != known.cycle) for key, item in found.items()}
    fresh = [key for key, item in alerts.items() if not item.told and item.times >= found[key].patience]
    again = [key for key, item in alerts.items() if item.told and _may_remind(item, now)]
    for key in (*fresh, *again):
        count = alerts[key].reminded + (key in again)
        alerts[key] = replace(alerts[key], told=_written(now), reminded=count)
    ill = {item.target for item in alerts.values() if item.told}
    over = []
    for key, item in known.alerts.items():
        if key not in found and (item.target in ill or _is_blind(state, item.target)):
            alerts[key] = item
        elif key not in found and item.told:
            over.append(item.trouble)
    healed = [
        Trouble(loss.target, f"lost {loss.when}", "was found empty and has been restored", since=loss.when)
        for loss in state.losses
        if (loss.target, loss.when) not in known.losses and _broken(loss.target).key not in fresh
    ]
    said = (
        (Kind.ALERT, [_dated(found[key], alerts[key]) for key in fresh]),
        (Kind.REMINDER, [_dated(found[key], alerts[key]) for key in again]),
        (Kind.HEALED, healed),
        (Kind.RECOVERY, over),
    )
    notices = tuple(Notice(kind, state.stack, tuple(items)) for kind, items in said if items)
    return notices, Known(alerts, _losses(known, state, now), cycle)


def _seen(before: Alert | None, trouble: Trouble, now: datetime, counted: bool) -> Alert:  # noqa: FBT001
    """Remember that something is wrong, and for how many cycles by now."""
    if before is None:
        since = trouble.since if _moment(trouble.since) else _written(now)
        before = Alert(trouble.target, trouble.error, trouble.title, since)
        counted = True
    times = trouble.times if trouble.times is not None else before.times + counted
    return replace(before, title=trouble.title, times=min(times, trouble.patience))


def _may_remind(alert: Alert, now: datetime) -> bool:
    told = min(_moment(alert.told) or now, now)  # a clock that went back reminds no earlier, and not never
    return now - told >= _REMINDERS[min(alert.reminded, 1)]


def _is_blind(state: State, target: str) -> bool:
    """Whether nobody looked: what was wrong there may still be."""
    names = {item.name: item for item in state.targets}
    if target in names:
        return names[target].state in _BLIND
    return not names and target not in (SOURCE, STACK, MAIL)


def _dated(trouble: Trouble, alert: Alert) -> Trouble:
    return replace(trouble, since=alert.since)


def _losses(known: Known, state: State, now: datetime) -> frozenset[tuple[str, str]]:
    told = {*known.losses, *((loss.target, loss.when) for loss in state.losses)}
    return frozenset(loss for loss in told if now - (_moment(loss[1]) or now) < 2 * _WEEK)


# ------------------------------------------------------------------------------------------------------ what is wrong
def troubles(state: State, now: datetime) -> Iterator[Trouble]:
    """Yield all that a person would have to know of, whether it was told or not."""
    yield from _of_source(state, now)
    ill = list(_of_targets(state))
    yield from ill
    yield from _of_problems(state, {item.target for item in ill})
    yield from _of_provider(state.provider)
    for contest in state.contested:
        target = Address.parse(contest.address).target or STACK
        title = f"somebody keeps changing {contest.address} {contest.field} back"
        cause = f"we want {contest.ours}, and it becomes {contest.theirs}: it is left alone for a while"
        remedy = "find who changes it; or write their value into the directory"
        yield Trouble(target, f"contested {contest.address} {contest.field}", title, cause, remedy, contest.since)
    for target in sorted({loss.target for loss in state.losses}):
        when = [loss.when for loss in state.losses if loss.target == target and _lately(loss.when, now)]
        if len(when) >= _BROKEN:
            yield replace(_broken(target), cause=f"it was empty at {' and at '.join(sorted(when))}")
    yield from _of_suspension(state, now)


def _broken(target: str) -> Trouble:
    title = "lost its data more than once within a week: its volume is broken"
    remedy = "look whether the volume is declared, named and mounted where the server keeps its data, and at the disk"
    return Trouble(target, "losses", title, remedy=remedy)


def _lately(when: str, now: datetime) -> bool:
    return now - (_moment(when) or now) <= _WEEK


def _of_source(state: State, now: datetime) -> Iterator[Trouble]:
    source = state.source
    problems = [item for item in source.problems if item.severity is not Severity.WARNING]
    commit = source.revision.commit if source.revision else ""
    if problems and source.seen != commit:
        title = "a newer revision is not taken; the one before goes on being healed to"
        yield from _by_class(SOURCE, ((title, problem, 1) for problem in problems))
    elif problems:
        yield _of(
            SOURCE,
            "unreachable",
            "nothing newer can be taken; what was good before goes on being healed to",
            problems[0],
            PATIENCE,
        )
    elif (reached := _moment(source.reached)) and now - reached > _patient(state):
        title, hint = "has not answered for long", "look at the log: `reconciler daemon` asks it in every cycle"
        yield Trouble(SOURCE, "stale", title, "the revision that is kept up may be old", hint, source.reached)


def _patient(state: State) -> timedelta:
    return max(timedelta(seconds=_STALE * state.interval), _STALE_AT_LEAST)


def _of_targets(state: State) -> Iterator[Trouble]:
    """Yield what is wrong with a target as a whole: a person is needed at once, or it fails again and again."""
    for target in state.targets:
        problem = target.problem or _blamed(state, target)
        if target.state == "held" and not target.retry:
            title = "is left alone until a person acts"
            yield _of(target.name, f"held {_class(problem)}", title, problem, since=target.since)
        elif target.failures or target.state == "unreadable":
            title = "can't be read" if target.state == "unreadable" else "fails"
            times = target.failures or None
            yield replace(_of(target.name, "fails", title, problem, PATIENCE, since=target.since), times=times)


def _blamed(state: State, target: TargetState) -> Problem | None:
    """Return what a cycle says of a target that fails."""
    failed = (outcome.problem for outcome in state.cycle.outcomes if outcome.problem) if state.cycle else ()
    said = (*failed, *_problems(state))
    return next((item for item in said if _whose(item, {target.name}) == target.name), None)


def _of_problems(state: State, ill: Collection[str]) -> Iterator[Trouble]:
    """Yield what is wrong at single addresses, and what guards forbid; of a target that is ill that is said already."""
    names = {item.name for item in state.targets}
    found: dict[str, list[tuple[str, Problem, int]]] = {}
    held = state.plan.held if state.plan else ()
    for problem in _problems(state):
        target = _whose(problem, names)
        refused = problem.severity is Severity.REFUSED
        passing = "something is in the way" if target == STACK else "is not as desired"
        title = "a guard forbids what the directory asks for" if refused else passing
        title = "a change waits for approval" if problem in held else title
        if target not in ill:
            found.setdefault(target, []).append((title, problem, 1 if refused else PATIENCE))
    for target, items in found.items():
        yield from _by_class(target, items)


def _problems(state: State) -> tuple[Problem, ...]:
    planned = (*state.plan.problems, *state.plan.held) if state.plan else ()
    cycled = state.cycle.problems if state.cycle else ()
    told = set(state.source.problems)
    every = dict.fromkeys((*planned, *cycled))
    return tuple(item for item in every if item.severity is not Severity.WARNING and item not in told)


def _whose(problem: Problem, names: Collection[str]) -> str:
    """Name the target that a problem belongs to; the stack where it belongs to none."""
    for text in (problem.scope, problem.where):
        target = target_of(text)
        if target in names:
            return target
    return STACK


def _by_class(target: str, items: Iterable[tuple[str, Problem, int]]) -> Iterator[Trouble]:
    """Yield one trouble for each class of problems, which says how many there are."""
    classes: dict[str, list[tuple[str, Problem, int]]] = {}
    for item in items:
        classes.setdefault(f"{item[1].severity} {_class(item[1])}", []).append(item)
    for name, members in classes.items():
        title, problem, patience = members[0]
        one = _of(target, name, title, problem, patience)
        more = f" (and {len(members) - 1} like it)" if len(members) > 1 else ""
        yield replace(one, cause=one.cause + more)


def _of(target: str, error: str, title: str, problem: Problem | None, patience: int = 1, *, since: str = "") -> Trouble:
    cause = f"{problem.where}: {problem.summary}" if problem else ""
    return Trouble(target, error, title, cause, problem.hint if problem else "", since, patience)


def _of_provider(provider: ProviderState | None) -> Iterator[Trouble]:
    """Yield that the standby is in use, that it can't be, or that the provider takes no mail."""
    if provider is None:
        return
    first, to, failover = provider.provider, provider.to, provider.failover
    remedy = f"mend {first}; see the log of its server. A refused login is tried again when its password is another"
    if failover is not None:
        back = f"nothing has to be done for {to}; {remedy}"
        yield Trouble(MAIL, "failed over", f"goes through {to} in place of {first}", failover.why, back, failover.since)
    elif provider.obstacles:
        cause = f"{provider.why}; {'; '.join(provider.obstacles)}"
        title = f"is not taken by {first}, and {to} can't stand in"
        yield Trouble(MAIL, "no standby", title, cause, remedy, provider.since)
    elif provider.taken is False:
        patience = 1 if provider.refused else PATIENCE
        yield Trouble(MAIL, "not taken", f"is not taken by {first}", provider.why, remedy, provider.since, patience)


def _of_suspension(state: State, now: datetime) -> Iterator[Trouble]:
    """Yield one that is too long; a word that can't be read is told at once, as it has no beginning."""
    held = state.suspended
    if held is None:
        return
    end, since = _moment(held.until), _moment(held.since)
    if (end or (since + LONG if since else now)) <= now:
        remedy = "`reconciler resume`, or suspend it again with a later --until"
        yield Trouble(STACK, "suspended", "is still suspended: nothing is healed", str(held), remedy, held.since)


_QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'|`[^`]*`")
_CHANGING = re.compile(r"(?<!\S)\S*[\d/@#]\S*|\b[0-9a-f]{7,64}\b")
_PLURAL = re.compile(r"s\b")


def _class(problem: Problem | None) -> str:
    """Return a digest of a problem's summary without all that may be another the next time: no text is remembered."""
    text = _CHANGING.sub("#", _QUOTED.sub("#", problem.summary if problem else ""))
    words = _PLURAL.sub("", " ".join(text.lower().split()))
    return hashlib.sha256(words.encode()).hexdigest()[:12]


def _moment(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _written(now: datetime) -> str:
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# --------------------------------------------------------------------------------------------------------- in words
_HEADS = {
    Kind.ALERT: "",
    Kind.REMINDER: "still: ",
    Kind.RECOVERY: "well again: ",
    Kind.HEALED: "healed: ",
    Kind.TEST: "",
}
_CLOSING = {
    Kind.ALERT: "`reconciler status` shows all of it.",
    Kind.REMINDER: "`reconciler status` shows all of it.",
    Kind.RECOVERY: "Nothing has to be done.",
    Kind.HEALED: "Nothing has to be done; if it happens again, the volume is broken.",
    Kind.TEST: "",
}


def text(notice: Notice, redact: Callable[[str], str]) -> tuple[str, str]:
    """Return title and body as plain text. ``redact`` replaces secrets, before anything else is done to a text."""

    def plain(words: str) -> str:
        return harmless(redact(words))

    first, more = notice.troubles[0], len(notice.troubles) - 1
    head = f"{notice.stack}: {_HEADS[notice.kind]}{first.target}: {first.title}"
    title = plain(head) + (f" (and {more} more)" if more else "")
    blocks = ["\n".join(_lines(item, plain)) for item in notice.troubles[:_MOST]]
    left = len(notice.troubles) - _MOST
    closing = [f"And {left} more."] if left > 0 else []
    closing += [_CLOSING[notice.kind].replace("`", "")] if _CLOSING[notice.kind] else []
    return title, "\n\n".join((*blocks, *closing))


def _lines(item: Trouble, plain: Callable[[str], str]) -> Iterator[str]:
    yield plain(f"{item.target}: {item.title}")
    for name, words in (("since", item.since), ("why", item.cause), ("what to do", item.remedy)):
        if words:
            yield f"{name}: {plain(words)}"


# What calls people in some chats, also from within a word.
_CALL = re.compile(r"(?<!\w)@|@(?=(?:all|channel|everyone|group|here|room|team)\b)", re.IGNORECASE)
_MARKS = str.maketrans({"<": "‹", ">": "›", "`": "'", "|": "¦", "*": "∗", "~": "∼"})


def harmless(words: str) -> str:
    """Return a text as one line without markup, links in words, or names that would call somebody.

    Nor is any of it an encoded word (RFC 2047), which a mail's subject would be decoded by into what was taken out.
    """
    line = " ".join("".join(c if c.isprintable() or c.isspace() else " " for c in words).split())
    line = _CALL.sub("(at)", line).replace("](", "] (").replace("=?", "= ?").translate(_MARKS)
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"


def trial(stack: str) -> Notice:
    """Return the notice that tries whether notices arrive."""
    return Notice(Kind.TEST, stack, (Trouble(STACK, "test", "this is a test: notices arrive here"),))
