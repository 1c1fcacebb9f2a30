"""What stays of a journal that has grown too large. Pure: lines come in as they were parsed, and go out.

The newest applies stay as they are. Of an older one stays what somebody still asks for: that it was the last that left
nothing to do, or the first (what is lost later was there once); that it found something lost; and the last change of an
address, which `explain` and the guards go by. How many of its other changes were left out is noted at it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Line = Mapping[str, Any]
_LOSSES = 20  # of one target: more than a week of a broken volume needs to be told
_OWNERS = (
    64  # stacks and directories of YAML with one data directory; what a CI checks out may have a new name each time
)
_OUT = ("done", "unknown")  # how a change ended that may be in force


@dataclass(slots=True)
class _Apply:
    """The lines of one apply. ``size`` is in bytes, ``rows`` are its changes."""

    began: Line
    size: int = 0
    rows: list[Line] = field(default_factory=list)
    rest: list[Line] = field(default_factory=list)  # all but the first, in their order

    @property
    def owner(self) -> tuple[str, str]:
        return self.began["stack"], self.began.get("directory", "")

    @property
    def whole(self) -> bool:
        return any(line.get("whole") is True for line in self.rest if line["event"] == "ended")


def kept(lines: Iterable[tuple[Line, int]], budget: int) -> Iterator[Line]:
    """Yield the lines that stay: the newest applies within ``budget`` bytes, and what is needed of the others.

    ``lines`` come with their size in bytes.
    """
    applies = list(_grouped(lines).values())
    owners = set(list(dict.fromkeys(apply.owner for apply in reversed(applies)))[:_OWNERS])
    known = {number: apply for number, apply in enumerate(applies) if apply.owner in owners}
    needed, rows, whole = _needed(known), _rows(known), _newest(applies, budget)
    for number, apply in enumerate(applies):
        if number >= whole:
            yield from (apply.began, *apply.rest)
        elif number in needed or number in rows:
            yield from _shortened(apply, rows[number])


def _grouped(lines: Iterable[tuple[Line, int]]) -> dict[str, _Apply]:
    found: dict[str, _Apply] = {}
    for line, size in lines:
        if line["event"] == "began":
            found[line["id"]] = _Apply(line)
        elif line["id"] not in found:
            continue
        else:
            found[line["id"]].rest.append(line)
            found[line["id"]].rows += line["written"] if line["event"] == "written" else ()
        found[line["id"]].size += size
    return found


def _newest(applies: Sequence[_Apply], budget: int) -> int:
    """Return the number of the first of the newest applies that fit."""
    for number in range(len(applies), 0, -1):
        budget -= applies[number - 1].size
        if budget < 0:
            return number
    return 0


def _needed(applies: Mapping[int, _Apply]) -> set[int]:
    """Number the applies of which somebody asks for more than a change."""
    newest, first, lost = dict[Any, int](), dict[Any, int](), defaultdict[Any, list[int]](list)
    for number, apply in applies.items():
        newest[apply.owner] = number  # it may be under way
        for target in apply.began.get("lost", ()):
            lost[apply.owner, target].append(number)
        for target in ("", *apply.began.get("targets", ())) if apply.whole else ():
            newest[apply.owner, target] = number
            first.setdefault((apply.owner, target), number)
    return {*newest.values(), *first.values(), *(number for found in lost.values() for number in found[-_LOSSES:])}


def _rows(applies: Mapping[int, _Apply]) -> defaultdict[int, set[int]]:
    """Number the changes of each apply that are the last of their address, and the last that may be in force.

    What was removed and is the last of its address is gone: that need not be known for ever.
    """
    told, in_force = dict[Any, tuple[int, int]](), dict[Any, tuple[int, int]]()
    for number, apply in applies.items():
        for index, row in enumerate(apply.rows):
            name = (apply.owner, row["address"])
            told[name] = (number, index)
            if row["status"] not in _OUT:
                continue
            in_force[name] = (number, index)
            if row["actions"] == ["delete"] and row["status"] == "done":
                del told[name], in_force[name]
    found = defaultdict[int, set[int]](set)
    for number, index in (*told.values(), *in_force.values()):
        found[number].add(index)
    return found


def _shortened(apply: _Apply, rows: set[int]) -> Iterator[Line]:
    """Leave out all changes of an apply but some."""
    out = len(apply.rows) - len(rows)
    yield {**apply.began, "forgotten": apply.began.get("forgotten", 0) + out}
    for line in apply.rest:
        if line["event"] != "written":
            yield line
        elif rows:
            yield {**line, "written": [apply.rows[index] for index in sorted(rows)]}
