"""Tells people of the fleet: once for each cause, at however many stacks it is, and once when it is over.

What was told stands in the table, so any worker that has destinations may tell, and one of them does. Destinations are
addresses of Apprise, a line each, in a file of the workers' own: they are secrets, and are called by their line.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from reconciler import files
from reconciler.daemon import outbox
from reconciler.daemon.delivery import SCHEMES, scheme
from reconciler.daemon.destinations import Destination
from reconciler.daemon.notices import Kind, harmless
from reconciler.daemon.outbox import TYPES, Letter
from reconciler.fleet.database import DatabaseAway
from reconciler.fleet.overview import Summary, named
from reconciler.fleet.table import Table
from reconciler.problem import Problem, ReconcilerError

_FLEET = "fleet"


def destinations(path: Path) -> tuple[Destination, ...]:
    """Read who is told. Raises `ReconcilerError`, which quotes no address."""
    try:
        lines = files.decoded(files.read(path), path).splitlines()
    except files.CannotRead as error:
        raise ReconcilerError(Problem(str(path), error.summary, error.hint)) from None
    found = []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if "://" not in text or scheme(text) not in SCHEMES:
            hint = "write an address of Apprise, such as ntfys://ntfy.sh/TOPIC, slack://... or mailtos://..."
            raise ReconcilerError(Problem(f"{path}:{number}", "is no address that notices can be sent to", hint))
        found.append(Destination(f"{path.name}:{number}", text, internal=True))
    return tuple(found)


def causes(told: Summary) -> list[tuple[str, str, str]]:
    """Return what people have to know of now: target, class of errors, and a title."""
    found = [
        (item.target, item.error, f"{item.title}: {len(item.stacks)} of {told.total} stacks ({named(item.stacks)})")
        for item in told.causes
        if item.lasting
    ]
    for problem in told.problems:
        target = problem.where if problem.where.startswith("ring ") else _FLEET
        found.append((target, problem.where[:200], f"{problem.where}: {problem.summary}"))
    return list({(target, error): (target, error, title) for target, error, title in found}.values())


class Notices:
    """One worker's. `tell` does not wait for anybody: what is due is sent in a thread."""

    def __init__(
        self,
        table: Table,
        places: Sequence[Destination],
        environ: Mapping[str, str],
        say: Callable[[Problem], None] = lambda _: None,
    ) -> None:
        self._table, self._places, self._environ, self._say = table, places, environ, say
        self._thread: threading.Thread | None = None

    def tell(self, told: Summary) -> None:
        """Send what is due. While the last messages are under way nothing is taken."""
        if not self._places or (self._thread is not None and self._thread.is_alive()):
            return
        wrong = causes(told)
        due = self._table.to_tell(wrong)
        over = self._table.over([item[:2] for item in wrong])
        if due or over:
            self._thread = threading.Thread(target=self._send, args=(due, over), name="telling", daemon=True)
            self._thread.start()

    def _send(self, due: Sequence[tuple[str, str, str, bool]], over: Sequence[tuple[str, str]]) -> None:
        for kind, again in ((Kind.ALERT, False), (Kind.REMINDER, True)):
            items = [item for item in due if item[3] is again]
            if items and self._arrives(letter(kind, [(target, title) for target, _, title, _ in items])):
                self._tell_table(items)
        if over:
            self._arrives(letter(Kind.RECOVERY, over))

    def _tell_table(self, items: Sequence[tuple[str, str, str, bool]]) -> None:
        try:
            self._table.told([item[:2] for item in items])
        except DatabaseAway as error:  # in a minute it is told again, which is better than never
            self._say(error.problems[0])

    def _arrives(self, message: Letter) -> bool:
        """Whether anybody got it."""
        arrived = False
        for place in self._places:
            why = outbox.deliver(place, message, self._environ)
            arrived = arrived or not why
            if why:
                self._say(Problem(place.name, f"a notice did not arrive: {why}", "it is tried again in a minute"))
        return arrived


_HEADS = {Kind.ALERT: "", Kind.REMINDER: "still: ", Kind.RECOVERY: "well again: "}


def letter(kind: Kind, items: Sequence[tuple[str, str]]) -> Letter:
    """Write one message of several causes, each with its target and title."""
    lines = [harmless(f"{target}: {title}") for target, title in items]
    more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
    closing = "" if kind is Kind.RECOVERY else "\n\nreconciler fleet status shows all of it."
    return Letter(TYPES[kind], f"fleet: {_HEADS[kind]}{lines[0]}{more}", "\n".join(lines) + closing, "")
