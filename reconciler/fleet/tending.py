"""What each worker does beside the stacks' cycles: it looks for what is new, makes jobs of what is due, takes over.

Several do so at once. Each step is one that the table lets one of them take, or that does no harm twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from reconciler.daemon.remote import Remote
from reconciler.daemon.store import Signers
from reconciler.fleet import inventory
from reconciler.fleet.database import DatabaseAway
from reconciler.fleet.engine import Queue
from reconciler.fleet.notices import Notices
from reconciler.fleet.overview import state_of, summary
from reconciler.fleet.rings import Member, given, judged
from reconciler.fleet.source import Branch, Inventory
from reconciler.fleet.table import Row, Table
from reconciler.problem import Problem, ReconcilerError

STEP = 0.5  # seconds between two looks at what is due
_AT_ONCE = 8  # repositories that are asked
_TOLD = 5.0  # seconds between two looks at what people are told
_LASTS = 3  # steps in a row without the database: cut connections are no news
_PURGED = 60.0  # seconds between two purges


@dataclass(slots=True)
class Tending:
    """One worker's, which has the stacks of some ``groups``.

    ``say`` is told of what is wrong with the inventory and of stacks that were taken over, ``unexpected`` of exceptions
    that should not be. ``signers`` must have signed the shared files, where there are any; ``accept`` names a commit
    of theirs that may come though its history is another.
    """

    table: Table
    queue: Queue
    inventory: Inventory | None
    data: Path
    groups: Collection[str]
    environ: Mapping[str, str] = field(repr=False)
    say: Callable[[Problem], None] = lambda _: None
    telling: Notices | None = None
    signers: Signers = field(default_factory=Signers)
    unexpected: Callable[[Exception], None] = lambda _: None
    accept: str = ""
    _purged: float = 0.0
    _looked: float = 0.0
    _told: tuple[Problem, ...] = ()
    _shared: tuple[tuple[str, str, str], str] = (("", "", ""), "")

    def run(self, stopped: Callable[[], bool]) -> None:
        """Go on until ``stopped``."""
        away = 0  # steps in a row
        while not stopped():
            try:
                self.step()
                away = 0
            except DatabaseAway as error:
                away += 1
                if away == _LASTS:
                    self.say(error.problems[0])
            except ReconcilerError as error:
                for problem in error.problems:
                    self.say(problem)
            except Exception as error:  # noqa: BLE001 (what nobody thought of must not leave the fleet without a tender)
                self.unexpected(error)
            time.sleep(STEP)

    def step(self) -> None:
        """Do all of it once."""
        whole = self.table.whole()
        if self.inventory is not None and self.table.turn(whole.poll):
            self.look()
        self._pushes(whole.poll)
        self.roll()
        for stack in self.queue.take_over(whole.lease):
            self.say(Problem(f"stack {stack}", "was taken over: nothing was heard of its end, or its worker"))
        self.table.clear_forgotten()
        self.table.clear_homes()
        self.queue.fill()
        if self.telling is not None and time.monotonic() - self._looked > _TOLD:
            rows, found = self.table.rows(), (self.table.unseen(), self.table.rollout())
            self.telling.tell(summary(rows, whole, *found))
            self._looked = time.monotonic()
        if time.monotonic() - self._purged > _PURGED:
            self.queue.purge()
            self._purged = time.monotonic()

    # -------------------------------------------------------------------------------------------------- what is new
    def look(self) -> None:
        """Take the newest inventory; where it is invalid, the last good one holds."""
        assert self.inventory is not None
        try:
            whole = self.table.whole()
            former = whole.followed("inventory", self.inventory.where)
            text, revision = self.inventory.read(former)
            if revision != whole.inventory or whole.problems:
                self.table.adopt(inventory.read(text), revision, whole.inventory, self.inventory.where)
                self._told = ()
            elif revision != former:  # it is the same in another place
                self.table.follow("inventory", self.inventory.where, revision, former)
        except ReconcilerError as error:
            self.table.not_adopted(error.problems)
            for problem in error.problems:
                if problem not in self._told:
                    self.say(problem)
            self._told = error.problems

    def _pushes(self, poll: float) -> None:
        """Ask the repositories that are ours to ask for commits, and have the stacks looked at that these change."""
        branches = list(self.table.look(poll, self.groups))
        if not branches:
            return
        with ThreadPoolExecutor(min(_AT_ONCE, len(branches))) as pool:
            list(pool.map(lambda item: self._pushed(*item), branches))

    def _pushed(self, address: str, name: str, before: str) -> None:
        try:
            branch = Branch(Remote.read(address, name), self.data, self.environ, accept=self.accept)
            newest = branch.newest()
            strayed = self._strayed(branch, address, name, newest)
        except ReconcilerError as error:
            self.table.not_seen(address, name, error.problems[0].summary)
            return
        names: Sequence[str] = ()
        if newest != before:
            paths = branch.changed(before, newest) if before else None
            concerned = [row for row in self.table.rows() if _follows(row, address, name)]
            names = [row.name for row in concerned if paths is None or _touched(row, paths)]
        self.table.seen(address, name, before, newest, names, strayed.summary if strayed else "")

    def _strayed(self, branch: Branch, address: str, name: str, commit: str) -> Problem | None:
        """Say why a commit is no later one of the shared files; None where it is, or where these are elsewhere."""
        whole = self.table.whole()
        if whole.shared is None or (whole.shared["repo"], whole.shared["branch"]) != (address, name):
            return None
        return branch.strayed(commit, whole.followed("shared", f"{address} {name}"))

    # --------------------------------------------------------------------------------------------------------- rings
    def roll(self) -> None:
        """Judge the rings, and pass the shared files on that went well."""
        whole = self.table.whole()
        rings = whole.rings or ({"healthy": 0, "failures": 0},)
        if whole.shared is None:
            self.table.end_rollout(0, whole.inventory)
            return
        self.table.end_rollout(len(rings), whole.inventory)
        rows, standing = self.table.rows(), self.table.rollout()
        for number, now in standing.items():
            if now.settled:
                continue
            members = [_member(row) for row in rows if row.ring == number]
            healthy, stopped = judged(members, now.revision, rings[number]["failures"])
            self.table.judge(number, now.revision, healthy=healthy, stopped=stopped)
            if healthy and now.settles(rings[number]):
                self.table.settle(number, now.revision)
            if stopped and not now.stopped:
                self.say(
                    Problem(f"ring {number}", stopped, "push what mends it; it goes on by itself once all are well")
                )
        standing = self.table.rollout()  # before the newest is: who is stopped in between gives nothing older
        for step in given(self._newest(whole.shared), len(rings), standing):
            self.table.give(step)

    def _newest(self, shared: Mapping[str, str]) -> str:
        """Return the newest revision of the shared files; empty where that is not known by now, or not signed.

        What was found out is remembered together with what counted then: as soon as another worker has taken a later
        one, an older one that is on the branch again is judged anew.
        """
        where = f"{shared['repo']} {shared['branch']}"
        seen = self.table.last_seen(shared["repo"], shared["branch"])
        state = (seen, shared["directory"], self.table.whole().followed("shared", where))
        if state != self._shared[0]:
            try:
                remote = Remote.read(shared["repo"], shared["branch"])
                branch = Branch(remote, self.data, self.environ, self.signers, self.accept)
                if seen and not branch.has(seen):
                    branch.newest()
                self._shared = (state, self._taken(branch, where, *state))
            except ReconcilerError:
                return ""
        return self._shared[1]

    def _taken(self, branch: Branch, where: str, seen: str, directory: str, former: str) -> str:
        """Return the revision of the shared files at a commit that leads on from what counted; empty where none may."""
        if not seen:
            return ""
        last = branch.last(seen, directory)
        strayed = branch.strayed(seen, former)
        if strayed is not None or not branch.vouched(last, directory):
            self.say(strayed or branch.unsigned(seen))
            return ""
        return last if seen == former or self.table.follow("shared", where, seen, former) else ""


def _member(row: Row) -> Member:
    why = row.troubles[0][2] if row.troubles else ""
    return Member(row.name, state_of(row), row.tried, row.shared, row.sound, why)


def _follows(row: Row, address: str, branch: str) -> bool:
    return (row.declared["repo"], row.declared["branch"]) == (address, branch)


def _touched(row: Row, paths: Sequence[str]) -> bool:
    """Whether a path lies in a stack's directory. What lies elsewhere, a compose file, is seen by each cycle anyway."""
    directory = str(row.declared["directory"]).strip("/")
    return directory in ("", ".") or any(path == directory or path.startswith(f"{directory}/") for path in paths)
