"""What the journal says of a stack: the last applies, and what was lost. Read again only where somebody wrote to it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from reconciler import journal
from reconciler.daemon.state import Loss
from reconciler.journal import Entry, Journal
from reconciler.problem import ReconcilerError
from reconciler.stack import Stack

_HISTORY = 20  # applies that are kept at hand
_LOSSES = timedelta(days=7)


@dataclass(slots=True)
class Applied:
    """One data directory's; whoever applied it, and from wherever. ``latest`` are oldest first."""

    latest: tuple[Entry, ...] = ()
    _losses: tuple[Loss, ...] = ()
    _read: tuple[object, ...] | None = None

    def look(self, stack: Stack) -> None:
        """Read the journal where it is another than before; one that can't be read says nothing."""
        log = Journal(stack.data, stack.name)
        mark = (log.path, stack.name, log.mark)
        if mark == self._read:
            return
        try:
            entries = log.entries()
        except ReconcilerError:
            entries = []
        self.latest, self._losses, self._read = tuple(entries[-_HISTORY:]), losses(entries), mark

    @property
    def losses(self) -> tuple[Loss, ...]:
        """Those of the last seven days."""
        since = journal.before(_LOSSES)
        return tuple(loss for loss in self._losses if loss.when >= since)


def losses(entries: list[Entry]) -> tuple[Loss, ...]:
    """Return what was found empty although it had been whole before: a new server is no loss."""
    whole: set[str] = set()
    found = []
    for entry in entries:
        found += [Loss(name, entry.began) for name in entry.lost if name in whole]
        whole |= set(entry.targets) if entry.whole else set()
    return tuple(found)
