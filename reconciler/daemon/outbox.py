"""Tells people: what is due is written down, sent beside the loop, and kept until it has arrived.

Each destination is by itself: one that hangs or refuses holds up neither the loop nor the others. What waits for one
goes as one message when it answers again. All of it lies in the data directory, so that a restart repeats nothing and
loses nothing; a kill between a message's arrival and our note of it sends that one twice.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from reconciler import process
from reconciler.daemon import backlog, notices
from reconciler.daemon.destinations import Destination, destinations
from reconciler.daemon.notices import Kind, Known, Notice
from reconciler.daemon.state import State
from reconciler.problem import Problem
from reconciler.stack import Stack

_VERSION = 1
_LIMIT = 45.0  # seconds for one message, from starting Python to the service's answer
_KEPT = 50  # messages that wait for one destination; the oldest go first, and how many went is told
_TOGETHER = 10  # of those that waited, told in full
_ENDING = 1.0  # seconds that `close` waits
TYPES = {
    Kind.ALERT: "failure",
    Kind.REMINDER: "warning",
    Kind.RECOVERY: "success",
    Kind.HEALED: "warning",
    Kind.TEST: "info",
}
"""What Apprise calls them."""

# Its home is nowhere: what it asks would take logins from a .netrc there. A proxy is passed by RECONCILER_PASS_ENV.
NOTICE = process.Kind("notice", ("LANG", "TZ"), {"HOME": "/nonexistent"})


@dataclass(frozen=True, slots=True)
class Letter:
    """A message as it goes out, without secrets."""

    kind: str
    title: str
    body: str
    when: str


@dataclass(frozen=True, slots=True)
class Queue:
    """What waits for one destination: ``tries`` in vain, the next one at ``next``. ``dropped`` went unread."""

    letters: tuple[Letter, ...] = ()
    tries: int = 0
    next: str = ""
    why: str = ""
    dropped: int = 0

    def with_more(self, letters: Sequence[Letter]) -> Self:
        """Put letters at its end."""
        every = (*self.letters, *letters)
        return replace(self, letters=every[-_KEPT:], dropped=self.dropped + max(0, len(every) - _KEPT))

    @classmethod
    def parse(cls, value: Mapping[str, Any]) -> Self:
        """Read it. Raises TypeError or ValueError for what is damaged."""
        letters = tuple(Letter(**item) for item in value["letters"])
        if not all(isinstance(text, str) for item in letters for text in asdict(item).values()):
            raise ValueError("letter")
        read = cls(letters, int(value["tries"]), str(value["next"]), str(value["why"]), int(value["dropped"]))
        if read.next:
            datetime.fromisoformat(read.next)
        return read


@dataclass(frozen=True, slots=True)
class _Kept:
    known: Known = field(default_factory=Known)
    queues: Mapping[str, Queue] = field(default_factory=dict)

    def as_json(self) -> bytes:
        queues = {name: asdict(queue) for name, queue in self.queues.items()}
        return json.dumps({"version": _VERSION, "known": self.known.as_dict(), "queues": queues}).encode()

    @classmethod
    def parse(cls, value: Any) -> Self:
        if value["version"] != _VERSION:
            raise ValueError("version")
        return cls(
            Known.parse(value["known"]), {str(name): Queue.parse(item) for name, item in value["queues"].items()}
        )


def _now() -> datetime:
    return datetime.now(UTC)


class Outbox:
    """What is told of one stack. The loop calls `tell` after each cycle, which does not wait for anybody."""

    def __init__(
        self, data: Path, stack: str, environ: Mapping[str, str] = os.environ, clock: Callable[[], datetime] = _now
    ) -> None:
        """Recall what was told; where that is damaged or gone, people are told anew."""
        self._environ, self._clock = environ, clock
        self._memory = backlog.Memory(data / f"notices-{stack}.json", _Kept.parse, _Kept())
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._places: tuple[Destination, ...] = ()
        self._wrong: tuple[Problem, ...] = ()

    def tell(self, stack: Stack, state: State) -> None:
        """Decide what is due, write it down, and begin to send what waits."""
        names = [str(ref) for ref in stack.spec.daemon.notices]
        self._places, self._wrong = destinations(stack.directory.spec, stack.secrets) if names else ((), ())
        with self._lock:
            known = self._memory.kept.known
            due, known = notices.due(known, state, self._clock()) if names else ((), known)
            letters = [self._letter(item, stack.secrets.redact) for item in due]
            queues = {name: self._memory.kept.queues.get(name, Queue()).with_more(letters) for name in names}
            self._memory.keep(_Kept(known, queues))
            waits = any(queue.letters and self._is_due(queue) for queue in queues.values())
            if waits and self._places and self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._send, name="notices", daemon=True)
                self._thread.start()

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What stands between people and notices: destinations that can't be told, and why."""
        with self._lock:
            kept, wrong, lost = self._memory.kept, self._wrong, self._memory.problems
        unsent = (
            Problem(name, f"a notice can't be sent there: {queue.why}", "try `reconciler daemon --test-notice`")
            for name, queue in kept.queues.items()
            if queue.why
        )
        return (*wrong, *unsent, *lost)

    def close(self) -> None:
        """Begin nothing more. What is under way is not waited for: it is written down as not sent."""
        self._closed = True
        thread = self._thread
        if thread is not None:
            thread.join(_ENDING)

    def _letter(self, notice: Notice, redact: Callable[[str], str]) -> Letter:
        title, body = notices.text(notice, redact)
        return Letter(TYPES[notice.kind], title, body, self._clock().strftime("%Y-%m-%d %H:%M UTC"))

    def _is_due(self, queue: Queue) -> bool:
        return backlog.is_due(queue.next, self._clock())

    # -------------------------------------------------------------------------------------------- beside the loop
    def _send(self) -> None:
        """Send what is due to each, the ones that took the last message first, until nothing is."""
        while (chosen := self._next()) is not None:
            place, queue = chosen
            why = deliver(place, _together(queue), self._environ)
            with self._lock:
                now = self._memory.kept.queues.get(place.name)
                if now is not None:
                    after = _after(now, queue, why, self._clock())
                    self._memory.keep(
                        replace(self._memory.kept, queues={**self._memory.kept.queues, place.name: after})
                    )

    def _next(self) -> tuple[Destination, Queue] | None:
        with self._lock:
            queues = self._memory.kept.queues
            waiting = [(item, queues[item.name]) for item in self._places if item.name in queues]
            due = [pair for pair in waiting if pair[1].letters and self._is_due(pair[1])]
            if not due or self._closed:
                self._thread = None
                return None
            return min(due, key=lambda pair: pair[1].tries)


def _after(now: Queue, sent: Queue, why: str, when: datetime) -> Queue:
    """Return what waits after a try: letters may have come meanwhile."""
    if not why:
        left = tuple(item for item in now.letters if item not in sent.letters)
        return Queue(left, dropped=max(0, now.dropped - sent.dropped))
    return replace(now, tries=now.tries + 1, next=(when + backlog.pause(now.tries)).isoformat(), why=why)


def _together(queue: Queue) -> Letter:
    """Make one message of all that waits."""
    if len(queue.letters) == 1 and not queue.dropped:
        return queue.letters[0]
    newest, count = queue.letters[-1], len(queue.letters) + queue.dropped
    left = count - len(queue.letters[-_TOGETHER:])
    blocks = [f"{item.when}: {item.title}\n{item.body}" for item in queue.letters[-_TOGETHER:]]
    more = [f"{left} earlier ones are left out."] if left else []
    kind = next((item.kind for item in queue.letters if item.kind == TYPES[Kind.ALERT]), newest.kind)
    return Letter(kind, f"{newest.title} (and {count - 1} before)", "\n\n".join((*more, *blocks)), newest.when)


def deliver(place: Destination, letter: Letter, environ: Mapping[str, str]) -> str:
    """Send a letter by a process of its own. Return why it did not arrive, empty where it did; never the URL."""
    order = {"url": place.url, "title": letter.title, "body": letter.body, "kind": letter.kind}
    command = (sys.executable, "-I", "-m", "reconciler.daemon.delivery")
    given = json.dumps({**order, "internal": place.internal})
    try:
        ended = process.run(NOTICE, command, environ, given=given, limit=_LIMIT)
        return str(json.loads(ended.said)["why"])
    except process.CannotRun as error:
        return error.why
    except (ValueError, LookupError, TypeError):
        return "the process that sends it ended without a word"


@dataclass(frozen=True, slots=True)
class Arrival:
    """What became of a test: ``why`` it did not arrive is empty where it did."""

    name: str
    why: str = ""


def try_each(stack: Stack, environ: Mapping[str, str]) -> tuple[Arrival, ...]:
    """Send a test to each destination, one after the other, and say for each whether it arrived."""
    places, wrong = destinations(stack.directory.spec, stack.secrets)
    title, body = notices.text(notices.trial(stack.name), stack.secrets.redact)
    letter = Letter(TYPES[Kind.TEST], title, body, "")
    arrived = (Arrival(place.name, deliver(place, letter, environ)) for place in places)
    return (*arrived, *(Arrival(item.where, f"{item.summary} ({item.hint})") for item in wrong))
