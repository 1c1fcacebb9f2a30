"""How things stand, as one value: `reconciler status --output json`, `/status.json` and the page are made of it.

It is additive to what `reconciler status` printed before there was a daemon, and holds no secret: a value stands in it
as reports show it. What is not known is None.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from reconciler.address import Address
from reconciler.daemon.state import Contest, Cycle, Sourced, State, TargetState
from reconciler.journal import Entry
from reconciler.problem import Problem, Severity
from reconciler.reconcile import Fact
from reconciler.report import doctor, json, summary, values
from reconciler.target import Change


class Word(enum.StrEnum):
    """How a stack stands, in one word; of several that are true the first counts."""

    SUSPENDED = "suspended"  # a person said that nothing is to be written for now
    STARTING = "starting"  # the first cycle has not ended
    REFUSED = "refused"  # a guard forbids something until a person says otherwise
    LOST = "lost"  # a system is empty: new, or its volume was lost
    UNREADABLE = "unreadable"
    HELD = "held"  # a system is left alone: for a while, or until a person acts
    FAILED = "failed"  # something can't be planned or applied
    CONTESTED = "contested"  # somebody else keeps changing a field back
    STALE = "stale"  # as desired by the last good revision, and a newer one can't be taken
    HEALING = "healing"  # the daemon has something left to do
    PENDING = "pending"  # something is left to do, and no daemon tells of it
    IN_SYNC = "in_sync"


_REASONS: Mapping[Word, str] = {
    Word.SUSPENDED: "Suspended",
    Word.STARTING: "Starting",
    Word.REFUSED: "GuardRefused",
    Word.LOST: "VolumeLost",
    Word.UNREADABLE: "Unreadable",
    Word.HELD: "BackingOff",
    Word.FAILED: "CannotApply",
    Word.CONTESTED: "Contested",
    Word.STALE: "SourceFailed",
    Word.HEALING: "Healing",
    Word.PENDING: "ChangesPending",
    Word.IN_SYNC: "InSync",
}
_RETRIED = frozenset({Word.STARTING, Word.HEALING, Word.LOST, Word.UNREADABLE, Word.HELD})  # goes on by itself
_STALLED = frozenset({Word.REFUSED, Word.FAILED, Word.CONTESTED, Word.STALE})  # a person is needed
_HELD = "held"


def document(state: State, now: datetime) -> dict[str, Any]:
    """Return how things stand; ``now`` is what ages count to."""
    last = state.healed[-1] if state.healed else None
    word = standing(state)
    return json.problems(tuple(problems(state))) | {
        "stack": state.stack,
        "revision": _revision(state),
        "complete": state.plan is not None and state.plan.complete,
        "targets": {item.name: _target(item) for item in state.targets},
        "last_apply": {key: value for key, value in asdict(last).items() if key != "written"} if last else None,
        "lease": dict(state.lease) if state.lease else None,
        "state": str(Word.SUSPENDED if state.suspended else word),
        "since": _since(state, word) or None,
        "summary": sentence(state),
        "conditions": list(_conditions(state, word)),
        "source": _source(state.source, now),
        "cycle": _cycle(state.cycle) if state.cycle else None,
        "started": state.started or None,
        "interval": state.interval or None,
        "next": state.next or None,
        "suspended": asdict(state.suspended) if state.suspended else None,
        "provider": asdict(state.provider) if state.provider else None,
        "contested": [asdict(item) for item in state.contested],
        "losses": [asdict(item) for item in state.losses],
        "healed": [_applied(entry) for entry in reversed(state.healed)],
        "resources": [_resource(fact, state) for _, fact in sorted(state.facts.items()) if not fact.unmanaged],
        "examined": state.examined or None,
        "checks": doctor.document(state.findings)["checks"],
        "unmanaged": sum(fact.unmanaged for fact in state.facts.values()),
    }


def problems(state: State) -> Iterator[Problem]:
    """Yield all that is wrong, each once: what stops something first."""
    found = [
        *((*state.plan.problems, *state.plan.held) if state.plan else ()),
        *state.source.problems,
        *(state.cycle.problems if state.cycle else ()),
        *(item.problem for item in state.targets if item.problem),
        *state.problems,
    ]
    order = (Severity.REFUSED, Severity.ERROR, Severity.WARNING)
    yield from sorted(dict.fromkeys(found), key=lambda item: order.index(item.severity))


# ------------------------------------------------------------------------------------------------------- in one word
def standing(state: State) -> Word:
    """Say how a stack stands, whether it is suspended or not."""
    if state.plan is None:
        return Word.STARTING if state.cycle is None else Word.FAILED
    named = {item.state for item in state.targets}
    true = {word for word in Word if word in named}
    true |= {Word.HEALING} if Word.PENDING in true and state.cycle is not None else set()
    true |= {Word.FAILED} if state.plan.errors else set()
    true |= {Word.CONTESTED} if state.contested else set()
    true |= {Word.STALE} if any(item.severity is not Severity.WARNING for item in state.source.problems) else set()
    return next((word for word in Word if word in true), Word.IN_SYNC)


def _concerned(state: State, word: Word) -> list[TargetState]:
    """Return the targets that stand as the word says, all where it says no target's."""
    alike = {Word.HEALING: Word.PENDING}.get(word, word)
    return [item for item in state.targets if item.state == alike] or list(state.targets)


def _since(state: State, word: Word) -> str:
    """Say since when it stands so: everything since the last of them came to it, a trouble since the first of them."""
    if state.suspended:
        return state.suspended.since
    if word is Word.STARTING:
        return state.started
    if word is Word.CONTESTED:
        return min(item.since for item in state.contested)
    times = [item.since for item in _concerned(state, word)]
    if word in (Word.FAILED, Word.STALE) or not all(times):
        return ""
    return (max if word is Word.IN_SYNC else min)(times, default="")


def sentence(state: State) -> str:
    """Say it in one sentence, for a person."""
    if state.suspended:
        who = f" by {state.suspended.who}" if state.suspended.who else ""
        until = f" until {state.suspended.until}" if state.suspended.until else ""
        return f"Suspended{who}{until}: {state.suspended.reason}."
    word = standing(state)
    named = " and ".join(summary.target_name(item.name) for item in _concerned(state, word))
    left = sum(item.pending for item in state.targets)
    changes = "1 change is" if left == 1 else f"{left:,} changes are"
    return {
        Word.STARTING: "The first cycle has not ended yet.",
        Word.REFUSED: f"A guard refuses changes in {named}: a person has to decide.",
        Word.LOST: f"{named}: empty, so new or lost; {changes} left to make.",
        Word.UNREADABLE: f"{named} could not be read.",
        Word.HELD: _holding(state, named),
        Word.FAILED: "Something can't be planned or applied: see the problems.",
        Word.CONTESTED: "Somebody else keeps changing a value back, so it is left alone for a while.",
        Word.STALE: "Everything is as the last good revision says, and a newer one can't be taken.",
        Word.HEALING: f"{changes} left to make in {named}.",
        Word.PENDING: f"{changes} pending in {named}.",
        Word.IN_SYNC: "Everything is as desired.",
    }[word]


def _holding(state: State, named: str) -> str:
    retries = [item.retry for item in state.targets if item.state == _HELD]
    return f"{named}: left alone until {max(retries) if retries and all(retries) else 'a person acts'}."


def waiting(state: State) -> tuple[str, ...]:
    """Name the targets that are left alone until a person acts, as after a refused login."""
    return tuple(item.name for item in state.targets if item.state == _HELD and not item.retry)


def is_stalled(state: State, word: Word) -> bool:
    """Whether a person is needed where a stack stands as ``word`` says."""
    return word in _STALLED or bool(waiting(state))


def _conditions(state: State, word: Word) -> Iterator[dict[str, Any]]:
    """Yield kstatus' three conditions (https://pkg.go.dev/sigs.k8s.io/cli-utils/pkg/kstatus/status)."""
    waits, stalled = bool(waiting(state)), is_stalled(state, word)
    reason, message = ("AuthFailed" if word is Word.HELD and waits else _REASONS[word]), sentence(state)
    ready = "Unknown" if word is Word.STARTING else str(word is Word.IN_SYNC)
    goes_on = word in _RETRIED and not stalled and not state.suspended
    for kind, status in (("Ready", ready), ("Reconciling", str(goes_on)), ("Stalled", str(stalled))):
        tells = kind == "Ready" or status == "True"
        yield (
            {"type": kind, "status": status, "reason": reason, "message": message}
            if tells
            else {
                "type": kind,
                "status": status,
                "reason": "No",
                "message": "",
            }
        )


# ------------------------------------------------------------------------------------------------------------ parts
def _known(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return them with None for an empty text."""
    return {name: None if value == "" else value for name, value in fields.items()}


def _revision(state: State) -> str:
    good = state.source.revision
    return state.plan.revision if state.plan else good.commit if good else ""


def _target(item: TargetState) -> dict[str, Any]:
    known = _known({name: getattr(item, name) for name in TargetState.__slots__ if name != "name"})
    return known | {"unread": list(item.unread), "problem": json.problem(item.problem) if item.problem else None}


def _source(source: Sourced, now: datetime) -> dict[str, Any]:
    good = source.revision
    names = ("commit", "subject", "author", "committer", "when", "signer")
    told = _known({name: getattr(good, name) if good else "" for name in names})
    first = next((item for item in source.problems), None)
    return {
        "where": source.where,
        "branch": source.branch or None,
        **told,
        "seen": source.seen or None,
        "reached": source.reached or None,
        "age": seconds_since(source.reached, now),
        "problem": json.problem(first) if first else None,
    }


def seconds_since(when: str, now: datetime) -> float | None:
    """Return the seconds since a time of ours, None where it is not known."""
    try:
        then = datetime.strptime(when, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None
    return max(0.0, (now - then).total_seconds())


def _cycle(cycle: Cycle) -> dict[str, Any]:
    return {
        "number": cycle.number,
        "cause": str(cycle.cause),
        "began": cycle.began,
        "ended": cycle.ended,
        "seconds": cycle.seconds,
        "result": str(cycle.result),
        "drift": sorted(cycle.drift),
        "lost": sorted(cycle.lost),
        "outcomes": [
            {"address": item.change.address, "actions": _actions(item.change), "status": str(item.status)}
            for item in cycle.outcomes
        ],
    }


def _actions(change: Change) -> list[str]:
    return [str(action) for action in change.actions] or ["adopt"]


def _applied(entry: Entry) -> dict[str, Any]:
    names = ("id", "began", "ended", "who", "revision", "result")
    told = _known({name: getattr(entry, name) for name in names})
    rows = [
        {"address": item.address, "actions": list(item.actions), "status": item.status, "reason": item.reason}
        for item in entry.written
    ]
    return told | {"lost": list(entry.lost), "changes": rows}


# -------------------------------------------------------------------------------------------------------- resources
def _resource(fact: Fact, state: State) -> dict[str, Any]:
    resource = fact.wanted or (fact.change.resource if fact.change else None)
    stops = [item for item in fact.problems if item.severity is not Severity.WARNING]
    problem = next(iter((*stops, *fact.problems)), None)
    return {
        "address": fact.address,
        "kind": resource.kind if resource else Address.parse(fact.address).kind,
        "target": resource.target if resource else None,
        "state": _resource_state(fact, stops, state.contested),
        "place": fact.place or None,
        "wanted": (values.brief(fact.wanted) or None) if fact.wanted else None,
        "change": _change(fact.change) if fact.change else None,
        "untold": [values.label(name) for name, _ in fact.untold],
        "problem": json.problem(problem) if problem else None,
    }


def _resource_state(fact: Fact, stops: Iterable[Problem], contested: Iterable[Contest]) -> str:
    """Say ``in_sync pending lost restart adopted unreadable contested refused failed``."""
    if fact.unread:
        return "unreadable"
    if any(item.address == fact.address for item in contested):
        return "contested"
    for problem in stops:
        return "refused" if problem.severity is Severity.REFUSED else "failed"
    if fact.change is None:
        return "in_sync"
    if fact.adopted:
        return "adopted"
    return {"lost": "lost"}.get(str(fact.change.reason), "restart" if fact.change.restarts else "pending")


def _change(change: Change) -> dict[str, Any]:
    """Return what is left to do to a resource; ``fields`` are lines for a person."""
    lines = values.transitions(change) if change.before is not None and not change.deletes else []
    return {"actions": _actions(change), "reason": str(change.reason), "fields": lines}
