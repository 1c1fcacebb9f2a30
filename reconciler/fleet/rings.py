"""A shared revision's way through the rings: who gets it when, and what stops it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from reconciler.daemon.document import Word
from reconciler.names import SHOWN

_GOING_ON = frozenset(map(str, (Word.STARTING, Word.HEALING, Word.PENDING, Word.LOST)))
_NAMED = 5  # stacks that a reason names


@dataclass(frozen=True, slots=True)
class Member:
    """A stack of a ring. ``tried`` is the revision that it was given last, ``good`` the one that it took.

    One that is not ``sound`` was ill before it was given that, and has been since: it proves nothing.
    """

    name: str
    state: str
    tried: str
    good: str
    sound: bool
    why: str = ""


@dataclass(frozen=True, slots=True)
class Standing:
    """How a ring stands. ``age`` is for how many seconds it has been healthy, None where it is not.

    One that is ``settled`` was healthy for its time: what happens there later is nothing that the revision did.
    """

    ring: int
    revision: str
    age: float | None = None
    stopped: str = ""
    settled: bool = False

    def settles(self, rule: Mapping[str, int]) -> bool:
        """Whether it has been healthy for its time now."""
        return self.age is not None and self.age >= rule["healthy"]


@dataclass(frozen=True, slots=True)
class Given:
    """A ring gets a revision. ``settled`` is whether it was healthy with its ``former`` one."""

    ring: int
    revision: str
    former: str
    settled: bool


def given(newest: str, rings: int, standing: Mapping[int, Standing]) -> Iterator[Given]:
    """Yield which rings get another revision now.

    The first ring gets the newest; a later one that of the ring before it, once that was healthy with it for its time.
    A ring that has none yet gets the newest at once: it has nothing better.
    """
    before: Standing | None = None
    for number in range(rings):
        now = standing.get(number, Standing(number, ""))
        wanted = newest if number == 0 or not now.revision else _passed_on(before)
        if wanted and wanted != now.revision:
            yield Given(number, wanted, now.revision, now.settled or not now.revision)
            before = Standing(number, wanted)
        else:
            before = now


def _passed_on(before: Standing | None) -> str:
    return before.revision if before is not None and before.settled else ""


def judged(members: Collection[Member], revision: str, limit: int) -> tuple[bool, str]:
    """Say whether a ring is healthy with its revision, and why it goes no further where that is stopped."""
    awake = [item for item in members if item.state != Word.SUSPENDED]
    if members and not awake:
        return False, "all stacks of the ring are suspended, so none can tell"
    counted = [item for item in awake if item.sound]
    ill = [item for item in counted if item.tried == revision and _is_ill(item)]
    if len(ill) > limit:
        return False, _reason(ill, len(awake), revision, limit)
    if members and not counted:
        return False, "no stack of the ring was well before, so none can tell"
    waiting = [item for item in counted if item.tried != revision or item.state in _GOING_ON]
    return not waiting, ""


def _is_ill(item: Member) -> bool:
    return item.state not in _GOING_ON and (item.state != Word.IN_SYNC or item.good != item.tried)


def _reason(ill: Sequence[Member], total: int, revision: str, limit: int) -> str:
    names = ", ".join(f"{item.name} ({item.why or item.state})" for item in ill[:_NAMED])
    more = f" and {len(ill) - _NAMED} more" if len(ill) > _NAMED else ""
    return f"{revision[:SHOWN]} made {len(ill)} of {total} stacks ill, and {limit} may be: {names}{more}"
