"""Writing over JMAP: from single objects to as few requests as the server's limits allow, and back to each one."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from reconciler.problem import Problem, TargetUnreadable
from reconciler.target import Change
from reconciler.targets.stalwart.jmap.api import CALLS, OBJECTS, UNSUPPORTED, Failure, JmapApi, Rejected

_LARGEST = 8 << 20  # bytes of a request; the server takes 10 MB
RELEASE, LATE = -1, 9
"""Ranks: a write that only gives something up comes before all others, one that takes what goes after all removals."""

_UNREFERRED = Failure("invalidResultReference")

Verb = Literal["create", "update", "destroy"]


@dataclass(frozen=True, slots=True)
class Write:
    """One object to be created, changed or destroyed.

    ``object`` is its kind (``Account``), ``id`` the server's id, or of a creation the name that others refer to it by
    (``#NAME`` as a value in their bodies). ``changes`` are those that it is part of. Writes of one kind and verb share
    a call unless their ``rank`` differs: within a call the server keeps no order. The ``last`` ones of a change are
    made only after its others have been. ``place`` is that of its kind among all kinds.
    """

    object: str
    verb: Verb
    id: str
    body: Mapping[str, Any] = field(default_factory=dict, repr=False)
    changes: tuple[Change, ...] = ()
    rank: int = 0
    last: bool = False
    place: int = 0


@dataclass(frozen=True, slots=True)
class Unwritable:
    """A change that can't even be sent, and why."""

    change: Change
    problem: Problem


Done = tuple[Write, Failure | TargetUnreadable | None, Mapping[str, Any]]
"""A write, what came in place of success (a `TargetUnreadable` for all of a request), and what the server set."""


def run(api: JmapApi, writes: Iterable[Write], stopped: Callable[[], bool]) -> Iterator[Done]:
    """Carry writes out, request by request; nothing is sent twice.

    ``stopped`` is asked before each request. After a request without an answer no other one is begun: what then is
    not yielded was not tried.
    """
    queue = _referred_first(sorted(_merged(writes), key=_order))
    ids: dict[str, str | None] = {f"#{it.id}": None for it in queue if it.verb == "create"}  # None: not (yet) made
    sent: set[str] = set()
    while queue and not stopped():
        ready = []
        for write in queue:
            unreferred = any(ref in sent and ids[ref] is None for ref in references(write, ids))
            why = "" if unreferred else api.objection(write.object, write.verb, write.body)
            if unreferred or why:
                sent.add(f"#{write.id}")
                yield write, Failure(UNSUPPORTED, why) if why else _UNREFERRED, {}
            else:
                ready.append(_resolved(write, ids))
        calls, queue = _packed(ready, ids)
        sent.update(f"#{write.id}" for call in calls for write in call if write.verb == "create")
        for done in _sent(api, calls):
            write, problem, answer = done
            if write.verb == "create" and problem is None:
                ids[f"#{write.id}"] = str(answer.get("id"))
            yield done
            if isinstance(problem, TargetUnreadable):
                queue = []


def _sent(api: JmapApi, calls: Sequence[Sequence[Write]]) -> Iterator[Done]:
    try:
        responses = api.call(*map(_call, calls))
    except TargetUnreadable as error:
        yield from ((write, error, {}) for call in calls for write in call)
        return
    except Rejected as error:
        failure = Failure(error.error or "rejected", error.summary)
        yield from ((write, failure, {}) for call in calls for write in call)
        return
    for call, response in zip(calls, responses, strict=True):
        for write in call:
            yield write, response.failure(write.id), response.created(write.id) or response.updated(write.id)


def _call(writes: Sequence[Write]) -> tuple[str, Mapping[str, Any]]:
    """Make one call of writes of the same kind and verb."""
    verb = writes[0].verb
    body = [item.id for item in writes] if verb == "destroy" else {item.id: item.body for item in writes}
    return f"x:{writes[0].object}/set", {verb: body}


def _packed(queue: Sequence[Write], ids: Mapping[str, str | None]) -> tuple[list[list[Write]], list[Write]]:
    """Fill one request: its calls, and what is left over.

    A reference that can't be resolved fails the whole call (observed.md, 0.16.18), so writes share a call only with
    those that refer to the same objects of this very request.
    """
    calls: list[list[Write]] = []
    open_calls: dict[tuple[Any, ...], list[Write]] = {}
    size = 0
    for position, write in enumerate(queue):
        key = (write.object, write.verb, write.rank, frozenset(references(write, ids)))
        call = open_calls.get(key, [])
        begins = not call or len(call) >= OBJECTS
        length = len(json.dumps(write.body)) + len(write.id) + 16
        if (begins and len(calls) >= CALLS) or (size and size + length > _LARGEST):
            return calls, list(queue[position:])
        if begins:
            call = open_calls[key] = []
            calls.append(call)
        call.append(write)
        size += length
    return calls, []


def _order(write: Write) -> tuple[int, int, int]:
    """Sort key: kind after kind, destroying backwards at the end, actions last of all."""
    if write.verb == "destroy":
        return 1, -write.place, write.rank
    stages = {RELEASE: -1, LATE: 2}
    return 3 if write.object == "Action" else stages.get(write.rank, 0), write.place, write.rank


def _referred_first(queue: Sequence[Write]) -> list[Write]:
    """Put what others refer to before them, whatever the order of the kinds: a role before who has it."""
    made = {f"#{write.id}": write for write in queue if write.verb == "create"}
    ordered: dict[int, Write] = {}

    def put(write: Write, above: frozenset[int]) -> None:
        if id(write) not in ordered and id(write) not in above:
            for reference in references(write, made):
                put(made[reference], above | {id(write)})
            ordered[id(write)] = write

    for write in queue:
        put(write, frozenset())
    return list(ordered.values())


def _merged(writes: Iterable[Write]) -> list[Write]:
    """Make one write of all updates of one object, such as several words of one singleton."""
    merged: dict[tuple[Any, ...], Write] = {}
    for number, write in enumerate(writes):
        key = (write.object, write.id, write.rank) if write.verb == "update" else (number,)
        other = merged.get(key)
        if other is not None:
            merged[key] = replace(other, body={**other.body, **write.body}, changes=other.changes + write.changes)
        else:
            merged[key] = write
    return list(merged.values())


def references(value: Any, creations: Collection[str]) -> Iterator[str]:
    """Yield the references to creations of this run that stand in a write's body, as values or as keys of a set."""
    if isinstance(value, Write):
        yield from references(value.body, creations)
    elif isinstance(value, str):
        if value in creations:
            yield value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from references(name, creations)
            yield from references(inner, creations)


def _resolved(write: Write, ids: Mapping[str, str | None]) -> Write:
    """Put the ids that are known in place of references: those hold only within one request."""
    return replace(write, body=_with_ids(write.body, ids)) if any(references(write, ids)) else write


def _with_ids(value: Any, ids: Mapping[str, str | None]) -> Any:
    if isinstance(value, str):
        return ids.get(value) or value
    if isinstance(value, Mapping):
        return {_with_ids(name, ids): _with_ids(inner, ids) for name, inner in value.items()}
    return value


def bare(network: str) -> str:
    """Write a single address without its mask, as people and the server do."""
    return network.removesuffix("/32") if ":" not in network else network.removesuffix("/128")
