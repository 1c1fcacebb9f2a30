"""When a target that failed is asked again, and when we stop fighting over a field. Pure: times are seconds, monotonic.

A target that can't be read or written backs off by itself, with jitter, so that the others go on and a service that
is down is not knocked at all the time. A field that somebody else keeps changing back is left alone for a while.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

_FIRST = 5.0  # seconds until the first new try
_LONGEST_WRITING = 3600.0  # seconds between tries of what fails when it is written: each may restart a service
_EAGER = 1.0  # seconds until what has only just been made is asked again
_SHORTEST_CAP = 30.0  # seconds; an interval of two seconds is for tests and people who watch


@dataclass(frozen=True, slots=True)
class Pace:
    """How often a target failed in a row, and when it is asked again."""

    failures: int = 0
    retry: float = 0.0

    def failed(self, now: float, interval: float, dice: float, *, writing: bool, starting: bool = False) -> Pace:
        """Return it after one more failure; ``dice`` is a random number from 0 to 1.

        What can't be read is tried at least once an interval, and each second while it is ``starting``. What fails when
        it is written waits up to an hour.
        """
        if starting and not writing:
            return Pace(self.failures + 1, now + _EAGER)
        longest = _LONGEST_WRITING if writing else max(interval, _SHORTEST_CAP)
        pause = min(_FIRST * 2 ** min(self.failures, 20), longest)
        return Pace(self.failures + 1, now + pause * (0.5 + dice / 2))


# ----------------------------------------------------------------------------------------------------------- contests
_FLIPS = 3  # times that a field is mended within the hour before that is called a contest
_WINDOW = 3600.0
_PAUSE = 900.0  # seconds that a contested field is left alone at first; doubled each time
_LONGEST_PAUSE = 86_400.0

Field = tuple[str, str]
"""An address, and the name of a field of it."""


@dataclass(frozen=True, slots=True)
class Mending:
    """What is known of one field that was mended although no revision had changed it."""

    times: tuple[float, ...] = ()
    pause: float = _PAUSE
    until: float = 0.0  # it is left alone so long
    since: float = 0.0


@dataclass(frozen=True, slots=True)
class Contests:
    """The fields that were mended of late, and those among them that somebody else keeps changing back."""

    known: Mapping[Field, Mending] = field(default_factory=dict)

    def mended(self, fields: Iterable[Field], now: float) -> Contests:
        """Note that drift in these fields was mended; who was mended too often is contested from now on."""
        known = {name: item for name, item in self.known.items() if _matters(item, now)}
        for name in fields:
            before = known.get(name, Mending())
            times = (*(at for at in before.times if at > now - _WINDOW), now)
            again = before.until > 0.0
            if len(times) >= _FLIPS or again:
                pause = min(before.pause * 2, _LONGEST_PAUSE) if again else _PAUSE
                known[name] = Mending(times[-_FLIPS:], pause, now + pause, before.since or times[0])
            else:
                known[name] = replace(before, times=times)
        return Contests(known)

    def open(self, now: float) -> Mapping[Field, Mending]:
        """Return the fields that are left alone now."""
        return {name: item for name, item in self.known.items() if item.until > now}


def _matters(item: Mending, now: float) -> bool:
    """Whether it may still count: mended within the hour, or contested less than two pauses ago."""
    return any(at > now - _WINDOW for at in item.times) or item.until + item.pause > now


# -------------------------------------------------------------------------------------- what goes on in another process
@dataclass(frozen=True, slots=True)
class Carried:
    """What a cycle has to know of those before it: how targets failed, and who fights over which field. No value.

    ``digest`` is that of the directory: another one is a reason to try anew. ``lasting`` are the targets among them
    that wait for a person.
    """

    digest: str = ""
    paces: Mapping[str, Pace] = field(default_factory=dict)
    lasting: frozenset[str] = frozenset()
    contests: Contests = field(default_factory=Contests)

    def as_json(self, now: float) -> dict[str, Any]:
        """Return it as JSON has it, with times as seconds from ``now``: no two machines have one monotonic clock."""
        mended = [
            [*name, [at - now for at in item.times], item.pause, item.until and item.until - now, item.since - now]
            for name, item in self.contests.known.items()
        ]
        paces = {name: [pace.failures, pace.retry - now] for name, pace in self.paces.items()}
        return {"digest": self.digest, "paces": paces, "lasting": sorted(self.lasting), "contests": mended}

    @classmethod
    def parse(cls, said: Mapping[str, Any], now: float, age: float) -> Self:
        """Read what was written ``age`` seconds ago. Raises LookupError, TypeError and ValueError for damage."""
        then = now - age
        paces = {str(name): Pace(int(item[0]), then + float(item[1])) for name, item in said["paces"].items()}
        known = {
            (str(address), str(name)): Mending(
                tuple(then + float(at) for at in times),
                float(pause),
                until and then + float(until),
                then + float(since),
            )
            for address, name, times, pause, until, since in said["contests"]
        }
        return cls(str(said["digest"]), paces, frozenset(map(str, said["lasting"])), Contests(known))
