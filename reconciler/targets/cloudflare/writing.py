"""Changes of one zone on their way, in as few atomic batches as there can be."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from reconciler.dns import text, types
from reconciler.dns.records import marked
from reconciler.names import absolute
from reconciler.resources import UNKNOWN, UNMANAGED, Live, Record
from reconciler.target import Change, Outcome, Status, Stopped, differences
from reconciler.targets.cloudflare.listing import EDIT_RECORDS, Zone, listing
from reconciler.targets.cloudflare.transport import CONTRADICTED, QUOTA, Failure, Lost, Refused, Session, Unsent

BATCH_LIMIT = 200  # operations; what every plan allows


class _Now:
    """A zone's records by id and by group."""

    def __init__(self, lives: Iterable[Live]) -> None:
        self.ids: dict[str | None, Live] = {}
        self.groups: dict[tuple[str, ...], list[Live]] = defaultdict(list)
        for live in lives:
            self.ids[live.id] = live
            self.groups[live.resource.group].append(live)


@dataclass(frozen=True, slots=True)
class _Operation:
    """What one change sends: a deletion, a patch, a new record, or, for a change of type, the first and the last."""

    change: Change
    delete: str | None = None
    patch: dict[str, Any] | None = None
    post: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        return sum(part is not None for part in (self.delete, self.patch, self.post))

    @property
    def growth(self) -> int:
        return (self.post is not None) - (self.delete is not None)

    def holds(self, now: _Now) -> bool:
        """Say whether what is live now is what this operation makes."""
        after = self.change.after
        if self.delete in now.ids or after is None:
            return self.delete not in now.ids
        if self.patch is None:
            return any(not differences(after, item.resource) for item in now.groups.get(after.group, ()))
        item = now.ids.get(self.patch["id"])
        if item is None or differences(after, item.resource):
            return False
        return "comment" not in self.patch or (item.detail or "") == self.patch["comment"]

    def outcome(self, status: Status, failure: Failure | None = None) -> Outcome:
        problem = None if failure is None else failure.problem(self.change.address)
        return Outcome(self.change, status, problem, self.notes if status is Status.DONE else ())


def _forbidden(change: Change, stack: str) -> Failure | None:
    """Say why a change must not be made, whatever the plan says: the last fence before others' records."""
    live = change.before
    if change.after is not None and cast("Record", change.after).content is UNKNOWN:
        return Unsent("its content is not known yet", "plan again")
    if live is None:
        return None
    if live.fixed:
        return Unsent(f"it can't be changed: {live.fixed}", "remove it where it was made")
    if live.owner not in (None, stack) or (change.after is None and live.owner is None):
        owner = f"the stack {live.owner}" if live.owner else "nobody we know"
        return Unsent(f"it belongs to {owner}", "remove it at Cloudflare, if it should go")
    return None


def _operation(change: Change, stack: str) -> _Operation:
    live, after = change.before, cast("Record | None", change.after)
    if after is None:
        return _Operation(change, delete=cast("Live", live).id)
    if live is not None and cast("Record", live.resource).type == after.type:
        return _patching(change, live, after, stack)
    own = None if after.comment is UNMANAGED else cast("str | None", after.comment)
    comment, notes = _comment(own, stack)
    post = {"type": after.type, "name": absolute(after.name, after.zone), "ttl": after.ttl, **_value(after)}
    if types.TYPES.get(after.type, types.OTHER).proxiable:
        post["proxied"] = after.proxied
    post["comment"] = comment
    return _Operation(change, delete=None if live is None else live.id, post=post, notes=notes)


def _patching(change: Change, live: Live, after: Record, stack: str) -> _Operation:
    """Send what must change, and nothing else: what a PATCH leaves out stays (a PUT would put defaults there)."""
    before, fields = cast("Record", live.resource), change.fields.keys()
    body: dict[str, Any] = {}
    if fields & {"content", "data", "priority"}:
        body |= _value(after)
    if "proxied" in fields:
        body |= {"proxied": after.proxied, "ttl": after.ttl}
    elif "ttl" in fields:
        body["ttl"] = after.ttl
    kept = live.detail if live.owner is None else before.comment  # another's text is kept to the byte
    own = kept if after.comment in (UNMANAGED, before.comment) else after.comment
    comment, notes = _comment(cast("str | None", own), stack)
    if comment != (live.detail or ""):
        body["comment"] = comment
    return _Operation(change, patch={"id": live.id, **body} if body else None, notes=notes)


def _comment(own: str | None, stack: str) -> tuple[str, tuple[str, ...]]:
    comment = marked(own, stack)
    if comment is not None:
        return comment, ()
    return own or "", ("our mark does not fit into its comment: it is kept as declared, but never removed by us",)


def _value(record: Record) -> dict[str, Any]:
    """Return what a record says, in the API's words. A priority of 0 must be sent (RFC 7505)."""
    content = text.quoted(str(record.content)) if record.type == "TXT" else record.content
    value: dict[str, Any] = {"content": content}
    if record.data is not None:
        value = {"data": types.wire(record.type, dict(record.data))}
    return value if record.priority is None else value | {"priority": record.priority}


_Unit = list[_Operation]
"""Operations at one name: they may need each other, and so are never torn apart."""


class Writing:
    """The changes of one zone on their way."""

    def __init__(self, session: Session, zone: Zone, stack: str) -> None:
        self._session = session
        self._zone = zone
        self._stack = stack
        self._ended: Failure | None = None  # why nothing else is sent

    def run(self, changes: Sequence[Change], stopped: Stopped) -> Iterator[Outcome]:
        """Write the changes and yield one outcome each, but for what was not begun when ``stopped`` said so."""
        units: dict[str, _Unit] = defaultdict(list)
        for change in changes:
            if failure := _forbidden(change, self._stack):
                yield Outcome(change, Status.FAILED, failure.problem(change.address))
                continue
            operation = _operation(change, self._stack)
            if operation.size:
                units[cast("Record", change.resource).name].append(operation)
            else:
                yield operation.outcome(Status.DONE)
        for batch in _packed(units.values()):
            if stopped():
                return
            yield from self._write(batch)

    def _write(self, units: Sequence[_Unit], *, again: bool = False, settled: bool = False) -> Iterator[Outcome]:
        """Write units as one batch, which happens as a whole or not at all.

        ``again`` says that an answer to it was lost before, ``settled`` that the zone was listed on its account.
        """
        if not units:
            return
        if self._ended is not None:
            yield from _each(units, Status.SKIPPED, self._ended)
            return
        try:
            self._batch(units)
        except Refused as refusal:
            yield from self._refused(units, refusal, settled=settled)
        except Lost as loss:
            yield from self._lost(units, loss, again=again)
        except Failure as failure:
            self._ended = failure
            yield from _each(units, Status.FAILED, failure)
        else:
            yield from _each(units, Status.DONE)

    def _batch(self, units: Sequence[_Unit]) -> None:
        operations = [operation for unit in units for operation in unit]
        # A DS needs an NS at its name: it goes before the NS, and comes after it.
        deletes = sorted(
            (item for item in operations if item.delete), key=lambda item: _type(item.change.before) != "DS"
        )
        posts = sorted((item for item in operations if item.post), key=lambda item: item.post["type"] == "DS")  # type: ignore[index]
        body: dict[str, list[Any]] = {
            "deletes": [{"id": item.delete} for item in deletes],
            "patches": [item.patch for item in operations if item.patch],
            "posts": [item.post for item in posts],
        }
        body = {verb: items for verb, items in body.items() if items}
        path = f"/zones/{self._zone.id}/dns_records/batch"
        result = self._session.post(path, body, EDIT_RECORDS).get("result")
        if not isinstance(result, dict) or not all(_did(items, result.get(verb)) for verb, items in body.items()):
            raise Lost("the answer to the batch does not say what was done", "plan again")

    def _refused(self, units: Sequence[_Unit], refusal: Refused, *, settled: bool) -> Iterator[Outcome]:
        """Write what a refusal does not mean: one record must not hold up the rest."""
        if refusal.final:
            self._ended = refusal
            yield from _each(units, Status.FAILED, refusal)
        elif QUOTA in refusal.codes:
            growing = [sum(operation.growth for operation in unit) > 0 for unit in units]
            yield from _each(
                [unit for unit, grows in zip(units, growing, strict=True) if grows], Status.FAILED, refusal
            )
            rest = [unit for unit, grows in zip(units, growing, strict=True) if not grows]
            yield from self._write(rest) if len(rest) < len(units) else _each(rest, Status.FAILED, refusal)
        elif refusal.codes & CONTRADICTED and not settled:
            yield from self._contradicted(units, refusal)
        else:
            yield from self._parted(units, refusal)

    def _contradicted(self, units: Sequence[_Unit], refusal: Refused) -> Iterator[Outcome]:
        """The zone changed since the plan: list it, settle what that settles, and write the rest."""
        try:
            now = self._relist()
        except Failure as failure:
            self._ended = failure
            yield from _each(units, Status.FAILED, failure)
            return
        rest: list[_Unit] = []
        for unit in units:
            left = []
            for operation in unit:
                before = operation.change.before
                if operation.holds(now):
                    yield operation.outcome(Status.DONE)
                elif before is not None and before.id not in now.ids:
                    yield operation.outcome(Status.FAILED, Unsent("it changed since the plan", "plan again"))
                else:
                    left.append(operation)
            if left:
                rest.append(left)
        if sum(map(len, rest)) == sum(map(len, units)):
            yield from self._parted(rest, refusal)
        else:
            yield from self._write(rest)

    def _parted(self, units: Sequence[_Unit], refusal: Refused) -> Iterator[Outcome]:
        """Write a refused batch in parts: the API names no operation, but its text may, and halving always tells."""
        named = self._named(units, refusal.text)
        if len(units) == 1:
            yield from _each(units, Status.FAILED, refusal)
        elif named is not None:
            yield from self._write([unit for unit in units if unit is not named], settled=True)
            yield from self._write([named], settled=True)
        else:
            middle = len(units) // 2
            yield from self._write(units[:middle], settled=True)
            yield from self._write(units[middle:], settled=True)

    def _named(self, units: Sequence[_Unit], text: str) -> _Unit | None:
        def means(unit: _Unit) -> bool:
            name = absolute(cast("Record", unit[0].change.resource).name, self._zone.name)
            return re.search(rf"(?<![\w.-]){re.escape(name)}(?![\w-]|\.\w)", text) is not None

        named = [unit for unit in units if means(unit)]
        return named[0] if len(named) == 1 else None

    def _lost(self, units: Sequence[_Unit], loss: Lost, *, again: bool) -> Iterator[Outcome]:
        """An answer is lost: only the zone can tell what happened, and a batch that did not may be sent once more."""
        try:
            now = self._relist()
        except Failure:
            self._ended = loss
            yield from _each(units, Status.UNKNOWN, loss)
            return
        operations = [operation for unit in units for operation in unit]
        true = [operation.holds(now) for operation in operations]
        if not any(true) and not again:
            yield from self._write(units, again=True)
            return
        if not all(true):
            self._ended = loss
        for operation, holds in zip(operations, true, strict=True):
            yield operation.outcome(Status.DONE) if holds else operation.outcome(Status.UNKNOWN, loss)

    def _relist(self) -> _Now:
        return _Now(listing(self._session, self._zone.name, self._zone.id))


def _did(asked: Sequence[Any], told: Any) -> bool:
    """Whether what a batch is said to have done is what was asked of it: as many, and of the same ids where it has."""
    if not isinstance(told, list) or not all(isinstance(item, dict) for item in told) or len(told) != len(asked):
        return False
    ids = {item["id"] for item in asked if "id" in item}
    return ids <= {item["id"] for item in told if isinstance(item.get("id"), str)}


def _type(live: Live | None) -> str:
    return "" if live is None else cast("Record", live.resource).type


def _each(units: Iterable[_Unit], status: Status, failure: Failure | None = None) -> Iterator[Outcome]:
    for unit in units:
        for operation in unit:
            yield operation.outcome(status, failure)


def _packed(units: Iterable[_Unit]) -> list[list[_Unit]]:
    """Pack units into as few batches as they fit into; only a name with more than a batch's worth is torn apart."""
    batches: list[list[_Unit]] = []
    room: list[tuple[int, list[_Unit]]] = []
    for unit in (part for whole in units for part in _parts(whole)):
        size = sum(operation.size for operation in unit)
        index = next((index for index, (left, _) in enumerate(room) if left >= size), len(room))
        if index == len(room):
            batches.append([])
            room.append((BATCH_LIMIT, batches[-1]))
        left, batch = room.pop(index)
        batch.append(unit)
        if left > size:
            room.insert(index, (left - size, batch))
    return batches


def _parts(unit: _Unit) -> Iterator[_Unit]:
    """Cut what is too large for a batch, removals first."""
    if sum(operation.size for operation in unit) <= BATCH_LIMIT:
        yield unit
        return
    ordered = sorted(unit, key=lambda operation: operation.growth)
    step = BATCH_LIMIT // 2
    yield from (ordered[at : at + step] for at in range(0, len(ordered), step))
