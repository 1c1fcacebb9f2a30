"""What the fleet knows, in PostgreSQL: each method is one statement or one transaction, by the database's clock.

Raises `database.DatabaseAway` where it does not answer.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from reconciler.fleet import database
from reconciler.fleet.inventory import RINGS, Fleet, ring
from reconciler.fleet.rings import Given, Standing
from reconciler.problem import Problem, printable
from reconciler.suspension import Suspension

_KEPT = 50  # runs of each stack
_MEMORY = 3600.0  # seconds that a stack waits for the data that remembers its refused login
_SLACK = 5.0  # seconds by which a due time may lie further ahead than it was set: clocks are adjusted
_FRESH = 60.0  # seconds for which a commit counts as the newest that was seen
_AHEAD = 300.0  # seconds: no request waits longer for its turn, unless the clock went back
_BURST = 0.2  # of what an account takes in its window may go out at once
_WINDOW = (
    300.0  # seconds in which Cloudflare counts (https://developers.cloudflare.com/fundamentals/api/reference/limits/)
)

QUEUE = "worker_group || '/' || ring || CASE WHEN home IS NULL THEN '' ELSE '@' || home END"
"""What a stack waits in, as the table has it; `queues` are those that a worker takes stacks from."""


def queues(groups: Collection[str], home: str, rings: Collection[int] | None = None) -> list[str]:
    """Return what a worker listens to; ``home`` names its data, which alone remembers some stacks' refused logins."""
    taken = range(RINGS) if rings is None else sorted(rings)
    return [name for group in sorted(groups) for at in taken for name in (f"{group}/{at}", f"{group}/{at}@{home}")]


Troubles = tuple[tuple[str, str, str], ...]
"""What is wrong with a stack: the target, the class of errors, and a title in words of ours."""
UNSERVED = "unserved"
"""The class of what a directory asks for and a fleet does not do: it is shown, and nobody is woken."""


@dataclass(frozen=True, slots=True)
class Row:
    """One stack as the table has it. Times are the database's; ``declared`` is its entry in the inventory."""

    name: str
    declared: Mapping[str, Any]
    ring: int
    worker_group: str
    listed: bool
    suspended: Suspension | None
    cause: str
    generation: int
    worker: str | None
    began: datetime | None
    applying: str | None
    state: str
    since: datetime
    stalled: bool
    home: str | None
    taken: Mapping[str, Any] | None
    shared: str
    tried: str
    sound: bool
    failures: int
    carried: Mapping[str, Any] | None
    troubles: Troubles
    pending: int
    proven: datetime | None
    ended: datetime | None
    seconds: float | None
    age: float
    """Seconds since its last cycle ended."""
    waits: float
    """Seconds until it is due; negative where it has been."""
    lasts: float
    """Seconds since it stands as ``state`` says."""

    @classmethod
    def of(cls, found: DictRow) -> Row:
        """Make it of what the database answers."""
        fields = {name: found[name] for name in cls.__slots__}
        fields["suspended"] = _holding(found["suspended"])
        fields["troubles"] = tuple((str(a), str(b), str(c)) for a, b, c in found["troubles"])
        return cls(**fields)

    @property
    def account(self) -> str:
        """Whose limit of requests at Cloudflare it shares."""
        return str(self.declared.get("account") or self.name)

    @property
    def commit(self) -> str:
        """The revision that it is healed to, empty where there is none yet."""
        return str(self.taken["commit"]) if self.taken else ""


_ROW = f"""
SELECT {", ".join(name for name in Row.__slots__ if name not in ("age", "waits", "lasts"))},
    coalesce(extract(epoch FROM clock_timestamp() - ended), 0)::float8 AS age,
    CASE WHEN due = 'infinity' THEN 0 ELSE extract(epoch FROM due - clock_timestamp())::float8 END AS waits,
    extract(epoch FROM clock_timestamp() - since)::float8 AS lasts
FROM fleet_stacks
"""  # noqa: S608 (of ours)


def _holding(said: Mapping[str, str] | None) -> Suspension | None:
    """Return a suspension that holds now; one that has ended is none."""
    found = Suspension(**said) if said else None
    return None if found is None or found.has_ended(datetime.now(UTC)) else found


@dataclass(frozen=True, slots=True)
class Ended:
    """What a cycle tells the table: how the stack stands, and when it is to be looked at again, in seconds from now."""

    result: str
    state: str
    wait: float
    cause: str
    stalled: bool = False
    home: str | None = None
    taken: Mapping[str, Any] | None = None
    shared: str = ""
    tried: str = ""
    failures: int = 0
    carried: Mapping[str, Any] = field(default_factory=dict)
    troubles: Troubles = ()
    pending: int = 0
    changed: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Run:
    """One cycle of a stack. ``ended`` is None where its worker was killed, or lost the stack to another."""

    stack: str
    generation: int
    began: datetime
    ended: datetime | None
    worker: str
    cause: str
    result: str
    revision: str
    shared: str
    changed: int
    troubles: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Whole:
    """What holds for all stacks. ``settings`` are the inventory's, empty before there was one."""

    settings: Mapping[str, Any]
    inventory: str
    problems: tuple[Problem, ...]
    suspended: Suspension | None

    @property
    def interval(self) -> float:
        """Seconds from cycle to cycle."""
        return float(self._said("interval"))

    @property
    def poll(self) -> float:
        """Seconds between two looks for commits."""
        return float(self._said("poll"))

    @property
    def lease(self) -> float:
        """Seconds without a word of a worker before others take its stacks over."""
        return float(self._said("lease"))

    @property
    def rings(self) -> Sequence[Mapping[str, int]]:
        """The rings as they are declared, none where there is one alone."""
        return tuple(self._said("rings"))

    def followed(self, what: str, where: str) -> str:
        """Return the commit of the inventory or of the shared files that counted last; empty where none did there."""
        place, commit = self.settings.get("followed", {}).get(what, ("", ""))
        return str(commit) if place == where else ""

    @property
    def shared(self) -> Mapping[str, str] | None:
        """Where the shared files are, if there are any."""
        return self.settings.get("shared")

    @property
    def requests(self) -> float:
        """How many an account takes in five minutes."""
        return float(self._said("requests"))

    def _said(self, name: str) -> Any:
        return self.settings.get(name, Fleet.model_fields[name].default)


class Table:
    """All of it. Any thread may ask."""

    def __init__(self, pool: database.Pool) -> None:
        self.pool = pool

    @contextmanager
    def transaction(self) -> Iterator[psycopg.Connection[DictRow]]:
        """Lend a connection for what is done as a whole or not at all."""
        with database.connection(self.pool) as at, at.transaction():
            yield at

    def _all(self, query: Any, **values: Any) -> list[DictRow]:
        with database.connection(self.pool) as at:
            return at.execute(query, values).fetchall()

    def _one(self, query: Any, **values: Any) -> DictRow | None:
        with database.connection(self.pool) as at:
            return at.execute(query, values).fetchone()

    def _do(self, query: Any, **values: Any) -> int:
        with database.connection(self.pool) as at:
            return at.execute(query, values).rowcount

    # -------------------------------------------------------------------------------------------------- the inventory
    def whole(self) -> Whole:
        """Return what holds for all stacks."""
        found = self._one("SELECT settings, inventory, problems, suspended FROM fleet")
        assert found is not None
        problems = tuple(Problem(**item) for item in found["problems"])
        return Whole(found["settings"], found["inventory"], problems, _holding(found["suspended"]))

    def turn(self, seconds: float) -> bool:
        """Whether it is ours to look for a newer inventory: nobody has for so long."""
        query = """UPDATE fleet SET looked = clock_timestamp()
            WHERE looked IS NULL OR looked > clock_timestamp()
                OR looked <= clock_timestamp() - %(s)s * interval '1 s'"""
        return self._do(query, s=seconds) > 0

    def adopt(self, fleet: Fleet, revision: str, former: str, where: str) -> bool:
        """Take an inventory, and write down that it counts, from ``where``: what comes next leads on from it.

        False, and nothing of it, where another one than ``former`` counts by now: somebody who was faster has taken it,
        and it may be newer. A stack that it does not name any more is left alone; what is known of it stays.
        """
        settings = fleet.model_dump(mode="json", exclude={"stacks", "defaults"})
        rows = [
            (name, Jsonb(entry.model_dump(mode="json")), ring(fleet, entry), entry.group)
            for name, entry in sorted(fleet.stacks.items())
        ]
        names = sorted(fleet.stacks)
        with self.transaction() as at:
            if at.execute("SELECT 1 FROM fleet WHERE inventory = %s FOR UPDATE", (former,)).fetchone() is None:
                return False
            with at.cursor() as cursor:
                cursor.executemany(
                    """INSERT INTO fleet_stacks (name, declared, ring, worker_group) VALUES (%s, %s, %s, %s)
                    ON CONFLICT (name) DO UPDATE SET declared = EXCLUDED.declared, ring = EXCLUDED.ring,
                        worker_group = EXCLUDED.worker_group, listed = true,
                        due = CASE WHEN fleet_stacks.declared = EXCLUDED.declared AND fleet_stacks.listed
                            THEN fleet_stacks.due ELSE clock_timestamp() END,
                        cause = CASE WHEN fleet_stacks.declared = EXCLUDED.declared AND fleet_stacks.listed
                            THEN fleet_stacks.cause ELSE 'revision' END""",
                    rows,
                )
            at.execute("UPDATE fleet_stacks SET listed = false WHERE listed AND NOT name = ANY(%s)", (names,))
            values = (revision, Jsonb(settings), Jsonb({"inventory": [where, revision]}))
            at.execute(
                """UPDATE fleet SET inventory = %s, problems = '[]', settings = %s || jsonb_build_object('followed',
                    coalesce(settings->'followed', '{}') || %s)""",
                values,
            )
            at.execute(_UNUSED)
        return True

    def follow(self, what: str, where: str, commit: str, former: str) -> bool:
        """Write down which commit of the inventory or of the shared files counts: what comes next leads on from it.

        False where another one than ``former`` counts by now, as for `adopt`.
        """
        now = Jsonb({what: [where, commit]})
        query = """UPDATE fleet SET settings = settings || jsonb_build_object('followed',
                coalesce(settings->'followed', '{}') || %(now)s)
            WHERE %(former)s = CASE WHEN settings->'followed'->%(what)s->>0 = %(where)s
                THEN settings->'followed'->%(what)s->>1 ELSE '' END"""
        return self._do(query, now=now, what=what, where=where, former=former) > 0

    def not_adopted(self, problems: Iterable[Problem]) -> None:
        """Say why a newer inventory is not taken: the last good one holds."""
        told = [asdict(item) | {"severity": str(item.severity)} for item in problems]
        self._do("UPDATE fleet SET problems = %(told)s", told=Jsonb(told))

    # ----------------------------------------------------------------------------------------------------- the stacks
    def rows(self, names: Collection[str] | None = None) -> list[Row]:
        """Return the stacks that the inventory names, or some of all, by name."""
        if names is None:
            return [Row.of(row) for row in self._all(_ROW + " WHERE listed ORDER BY name")]
        return [
            Row.of(row) for row in self._all(_ROW + " WHERE name = ANY(%(names)s) ORDER BY name", names=list(names))
        ]

    def claim(self, name: str, worker: str, listens: Collection[str] | None = None) -> Row | None:
        """Take a stack that is due: whoever had it may write nothing from now on.

        None where it is not due by now, not listed, or waits for other workers than those that ``listen`` so. A job is
        a hint alone: it may have been made before the stack was taken, moved, or refused a login.
        """
        values = {"worker": worker, "name": name, "listens": None if listens is None else list(listens)}
        with self.transaction() as at:
            if at.execute(_CLAIM, values).fetchone() is None:
                return None
            found = at.execute(_ROW + " WHERE name = %s", (name,)).fetchone()
            assert found is not None
            row = Row.of(found)
            at.execute(
                "INSERT INTO fleet_runs (stack, generation, began, worker, cause) VALUES (%s, %s, %s, %s, %s)",
                (name, row.generation, row.began, worker, row.cause),
            )
            return row

    def holds(self, row: Row) -> bool:
        """Whether a stack is still whose it was, and its cycle has not ended: asked right before each write."""
        query = f"SELECT 1 FROM fleet_stacks WHERE {_HELD}"  # noqa: S608 (of ours)
        return self._one(query, **_held(row)) is not None

    def occupy(self, row: Row, server: str) -> bool:
        """Take the right to write to a mail server, until the cycle ends. False where another stack has it."""
        query = f"UPDATE fleet_stacks SET applying = %(server)s WHERE {_HELD}"  # noqa: S608
        try:
            return self._do(query, server=server, **_held(row)) > 0
        except psycopg.errors.UniqueViolation:
            return False

    def is_wanted(self, row: Row, now: datetime) -> bool:
        """Whether what was read of a stack when its cycle began holds: it may be moved, left out or suspended since."""
        found, whole = self.rows([row.name]), self.whole()
        words = (whole.suspended, *(item.suspended for item in found))
        held = any(word is not None and not word.has_ended(now) for word in words)
        return not held and any(item.listed and item.declared == row.declared for item in found)

    def leave(self, row: Row) -> None:
        """Give it back."""
        self._do(f"UPDATE fleet_stacks SET applying = NULL WHERE {_HELD}", **_held(row))  # noqa: S608

    def end(self, row: Row, ended: Ended) -> bool:
        """Write down how a cycle ended. False where another worker has the stack by now: then nothing is written."""
        values = asdict(ended) | _held(row)
        values |= {key: Jsonb(values[key]) for key in ("carried", "troubles")}
        values["taken"] = Jsonb(ended.taken) if ended.taken is not None else None
        with self.transaction() as at:
            if at.execute(_END, values).fetchone() is None:
                return False
            at.execute(_END_RUN, values | {"revision": (ended.taken or {}).get("commit", "")})
            query = "DELETE FROM fleet_runs WHERE stack = %s AND generation <= %s"
            at.execute(query, (row.name, row.generation - _KEPT))
            return True

    def due(self, names: Collection[str], cause: str, *, fresh: bool = False) -> int:
        """Have stacks looked at now; ``fresh`` forgets how they failed, and that one worker alone may try a login."""
        more = ", failures = 0, carried = NULL, home = NULL" if fresh else ""
        return self._do(_MAKE_DUE.format(more=more), names=list(names), cause=cause)

    def clear_forgotten(self) -> None:
        """Have stacks looked at whose due time lies further ahead than it was ever set: the clock went back."""
        query = """UPDATE fleet_stacks SET due = clock_timestamp(), wait = 0 WHERE listed AND due <> 'infinity'
            AND due > clock_timestamp() + (wait + %(slack)s) * interval '1 s'"""
        self._do(query, slack=_SLACK)

    def clear_homes(self) -> None:
        """Let any worker take stacks that have waited in vain for the data that remembers a refused login."""
        query = """UPDATE fleet_stacks SET home = NULL
            WHERE listed AND home IS NOT NULL AND due < clock_timestamp() - %(memory)s * interval '1 s'"""
        self._do(query, memory=_MEMORY)

    # ---------------------------------------------------------------------------------------------------- suspensions
    def suspend(self, names: Collection[str] | None, suspension: Suspension | None) -> int:
        """Give or take back a person's word that nothing is written: to some stacks, or (None) to the whole fleet."""
        said = Jsonb(asdict(suspension)) if suspension else None
        if names is None:
            return self._do("UPDATE fleet SET suspended = %(said)s", said=said)
        query = """UPDATE fleet_stacks SET suspended = %(said)s, due = least(due, clock_timestamp()), wait = 0
            WHERE name = ANY(%(names)s)"""
        return self._do(query, said=said, names=list(names))

    # --------------------------------------------------------------------------------------------------- repositories
    def look(self, seconds: float, groups: Collection[str]) -> Iterator[tuple[str, str, str]]:
        """Yield the branches that are ours to look at, as nobody has for so long: address, branch, last commit seen.

        They are those of some groups' stacks, which others may not be allowed to read, and that of the shared files.
        """
        query = """INSERT INTO fleet_repositories (address, branch, looked)
            SELECT declared->>'repo', declared->>'branch', now() FROM fleet_stacks
                WHERE listed AND worker_group = ANY(%(groups)s)
            UNION SELECT settings->'shared'->>'repo', settings->'shared'->>'branch', now() FROM fleet
                WHERE settings->'shared'->>'repo' IS NOT NULL
            ON CONFLICT (address, branch) DO UPDATE SET looked = clock_timestamp()
            WHERE fleet_repositories.looked > clock_timestamp()
                OR fleet_repositories.looked <= clock_timestamp() - %(s)s * interval '1 s'
            RETURNING address, branch, seen"""
        for row in self._all(query, s=seconds, groups=list(groups)):
            yield row["address"], row["branch"], row["seen"]

    def last_seen(self, address: str, branch: str, *, fresh: bool = False) -> str:
        """Return a branch's newest commit, as it was last seen; empty where it was not, or (``fresh``) not just now."""
        query = """SELECT seen FROM fleet_repositories WHERE address = %(address)s AND branch = %(branch)s
            AND (NOT %(fresh)s OR problem = '' AND looked BETWEEN clock_timestamp() - %(age)s * interval '1 s'
                AND clock_timestamp())"""
        found = self._one(query, address=address, branch=branch, fresh=fresh, age=_FRESH)
        return str(found["seen"]) if found else ""

    def seen(  # noqa: PLR0917 (it is one statement)
        self, address: str, branch: str, before: str, commit: str, stacks: Collection[str] = (), problem: str = ""
    ) -> None:
        """Write down a branch's newest commit, and have the ``stacks`` looked at that it changes: both or neither.

        ``problem`` is why it may not count. Nothing where the last one seen is not ``before`` any more: somebody has
        seen a newer one meanwhile.
        """
        query = """UPDATE fleet_repositories SET seen = %(commit)s, problem = %(problem)s
            WHERE address = %(address)s AND branch = %(branch)s AND seen = %(before)s"""
        values = {"address": address, "branch": branch, "before": before, "commit": commit}
        values["problem"] = printable(problem, 300)
        with self.transaction() as at:
            if at.execute(query, values).rowcount and stacks:
                at.execute(_MAKE_DUE.format(more=""), {"names": list(stacks), "cause": "revision"})

    def not_seen(self, address: str, branch: str, problem: str) -> None:
        """Write down why a branch's newest commit can't be told."""
        query = (
            "UPDATE fleet_repositories SET problem = %(problem)s WHERE address = %(address)s AND branch = %(branch)s"
        )
        self._do(query, address=address, branch=branch, problem=printable(problem, 300))

    def unseen(self) -> list[tuple[str, str]]:
        """Return the repositories that don't answer, with what is wrong."""
        rows = self._all("SELECT address, branch, problem FROM fleet_repositories WHERE problem <> '' ORDER BY 1, 2")
        return [(f"{row['address']} ({row['branch']})", row["problem"]) for row in rows]

    # ---------------------------------------------------------------------------------------------------------- rings
    def revision(self, ring: int) -> str:
        """Return the revision of the shared files that a ring has got; empty without any."""
        found = self._one("SELECT revision FROM fleet_rollout WHERE ring = %(ring)s", ring=ring)
        return str(found["revision"]) if found else ""

    def rollout(self) -> dict[int, Standing]:
        """Return how each ring stands with its revision."""
        query = """SELECT ring, revision, stopped, settled,
            extract(epoch FROM clock_timestamp() - healthy)::float8 AS age FROM fleet_rollout ORDER BY ring"""
        return {row["ring"]: Standing(**row) for row in self._all(query)}

    def give(self, given: Given) -> None:
        """Give a ring a revision: its stacks are due. Nothing where it has got another one meanwhile."""
        with self.transaction() as at:
            done = at.execute(
                """INSERT INTO fleet_rollout AS known (ring, revision) VALUES (%(ring)s, %(revision)s)
                ON CONFLICT (ring) DO UPDATE SET revision = EXCLUDED.revision, since = clock_timestamp(),
                    healthy = NULL, stopped = '', settled = false
                    WHERE known.revision = %(former)s""",
                asdict(given),
            )
            if done.rowcount:
                at.execute(
                    """UPDATE fleet_stacks SET due = clock_timestamp(), wait = 0, cause = 'revision',
                        sound = CASE WHEN %(settled)s THEN state IN ('in_sync', 'starting') ELSE sound END
                    WHERE ring = %(ring)s AND listed""",
                    asdict(given),
                )

    def judge(self, ring: int, revision: str, *, healthy: bool, stopped: str) -> None:
        """Write down how a ring stands with a revision."""
        query = """UPDATE fleet_rollout SET stopped = %(stopped)s,
            healthy = CASE WHEN %(healthy)s THEN coalesce(least(healthy, clock_timestamp()), clock_timestamp()) END
            WHERE ring = %(ring)s AND revision = %(revision)s"""
        self._do(query, ring=ring, revision=revision, healthy=healthy, stopped=stopped)

    def settle(self, ring: int, revision: str) -> None:
        """Write down that a ring was healthy for its time with a revision."""
        query = "UPDATE fleet_rollout SET settled = true WHERE ring = %(ring)s AND revision = %(revision)s"
        self._do(query, ring=ring, revision=revision)

    def end_rollout(self, rings: int, inventory: str) -> None:
        """Forget the rings from a number on, which an inventory has no more; none where another one counts by now."""
        query = "DELETE FROM fleet_rollout USING fleet WHERE ring >= %(rings)s AND inventory = %(inventory)s"
        self._do(query, rings=rings, inventory=inventory)

    # ------------------------------------------------------------------------------------------------------- accounts
    def pay(self, account: str, requests: float) -> float:
        """Take the turn for one request at an account; return how many seconds to wait until then.

        The next turn's time lies a request's share of the window behind the last, and never so far in the past that
        more than a burst went out at once: GCRA (https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm).
        """
        query = """INSERT INTO fleet_accounts AS known (account, next)
            VALUES (%(account)s, clock_timestamp() + (%(share)s - %(burst)s) * interval '1 s')
            ON CONFLICT (account) DO UPDATE SET next = %(share)s * interval '1 s' + CASE
                WHEN known.next > clock_timestamp() + %(ahead)s * interval '1 s' THEN clock_timestamp()
                ELSE greatest(known.next, clock_timestamp() - %(burst)s * interval '1 s') END
            RETURNING extract(epoch FROM next - clock_timestamp())::float8 AS wait"""
        share = _WINDOW / max(requests, 1.0)
        found = self._one(query, account=account, share=share, burst=_BURST * _WINDOW, ahead=_AHEAD)
        return max(0.0, float(found["wait"]) - share) if found else 0.0

    # -------------------------------------------------------------------------------------------------------- notices
    def to_tell(self, causes: Collection[tuple[str, str, str]]) -> list[tuple[str, str, str, bool]]:
        """Take the turn to tell of what is wrong now: target, class, title, and whether it was told before.

        Each cause is told once, and an hour later, and then each day, again. Whoever has the turn has a minute to say
        that it was `told`: then it is another's.
        """
        query = """INSERT INTO fleet_notices AS known (target, class, title, tried)
            SELECT target, class, title, clock_timestamp() FROM unnest(%(targets)s::text[], %(classes)s::text[],
                %(titles)s::text[]) AS found (target, class, title)
            ON CONFLICT (target, class) DO UPDATE SET tried = clock_timestamp(), title = EXCLUDED.title
            WHERE (known.told IS NULL OR known.told NOT BETWEEN clock_timestamp() - CASE
                    WHEN known.reminded = 0 THEN interval '1 hour' ELSE interval '1 day' END AND clock_timestamp())
                AND known.tried NOT BETWEEN clock_timestamp() - interval '1 min' AND clock_timestamp()
            RETURNING target, class, title, told IS NOT NULL AS again"""
        targets, classes, titles = ([item[at] for item in causes] for at in range(3))
        rows = self._all(query, targets=targets, classes=classes, titles=titles)
        return [(row["target"], row["class"], row["title"], row["again"]) for row in rows]

    def told(self, causes: Collection[tuple[str, str]]) -> None:
        """Say that somebody was told."""
        query = """UPDATE fleet_notices SET told = clock_timestamp(), reminded = reminded + (told IS NOT NULL)::integer
            WHERE (target, class) IN (SELECT * FROM unnest(%(targets)s::text[], %(classes)s::text[]))"""
        self._do(query, targets=[item[0] for item in causes], classes=[item[1] for item in causes])

    def over(self, causes: Collection[tuple[str, str]]) -> list[tuple[str, str]]:
        """Forget what is wrong no more; return what was told of it: target and title."""
        query = """DELETE FROM fleet_notices WHERE (target, class) NOT IN
            (SELECT * FROM unnest(%(targets)s::text[], %(classes)s::text[])) RETURNING target, title, told"""
        rows = self._all(query, targets=[item[0] for item in causes], classes=[item[1] for item in causes])
        return [(row["target"], row["title"]) for row in rows if row["told"] is not None]

    # -------------------------------------------------------------------------------------------------------- history
    def history(self, name: str, number: int) -> list[Run]:
        """Return the last cycles of a stack, the latest first."""
        query = "SELECT * FROM fleet_runs WHERE stack = %(name)s ORDER BY generation DESC LIMIT %(number)s"
        return [Run(**row) for row in self._all(query, name=name, number=number)]


# When it began tells apart two who have one generation: a standby that took over may lack the last of its primary.
_HELD = "name = %(name)s AND generation = %(generation)s AND began = %(began)s AND worker IS NOT NULL"


def _held(row: Row) -> dict[str, Any]:
    return {"name": row.name, "generation": row.generation, "began": row.began}


_CLAIM = f"""
UPDATE fleet_stacks SET generation = generation + 1, worker = %(worker)s, began = clock_timestamp(), applying = NULL,
    due = 'infinity'
WHERE name = %(name)s AND listed AND due <= clock_timestamp()
    AND (%(listens)s::text[] IS NULL OR {QUEUE} = ANY(%(listens)s)) RETURNING name
"""  # noqa: S608 (of ours)
_MAKE_DUE = """
UPDATE fleet_stacks SET due = clock_timestamp(), wait = 0, cause = %(cause)s{more}
WHERE name = ANY(%(names)s) AND listed
"""
# Whatever became of a repository that nobody follows any more is no concern of ours.
_UNUSED = """
DELETE FROM fleet_repositories AS known WHERE NOT EXISTS (
    SELECT 1 FROM fleet_stacks WHERE listed AND declared->>'repo' = address AND declared->>'branch' = known.branch)
    AND NOT EXISTS (SELECT 1 FROM fleet WHERE settings->'shared'->>'repo' = address
        AND settings->'shared'->>'branch' = known.branch)
"""
_END = f"""
UPDATE fleet_stacks SET worker = NULL, applying = NULL, ended = clock_timestamp(), seconds = %(seconds)s,
    since = CASE WHEN state = %(state)s THEN since ELSE clock_timestamp() END,
    proven = CASE WHEN %(state)s = 'in_sync' THEN clock_timestamp() ELSE proven END,
    state = %(state)s, sound = sound OR %(state)s = 'in_sync', stalled = %(stalled)s, home = %(home)s,
    taken = coalesce(%(taken)s, taken), shared = %(shared)s, tried = %(tried)s, failures = %(failures)s,
    carried = %(carried)s, troubles = %(troubles)s, pending = %(pending)s,
    wait = CASE WHEN due = 'infinity' THEN %(wait)s ELSE wait END,
    cause = CASE WHEN due = 'infinity' THEN %(cause)s ELSE cause END,
    due = CASE WHEN due = 'infinity' THEN clock_timestamp() + %(wait)s * interval '1 s' ELSE due END
WHERE {_HELD} RETURNING name
"""  # noqa: S608
_END_RUN = """
UPDATE fleet_runs SET ended = clock_timestamp(), result = %(result)s, revision = %(revision)s, shared = %(tried)s,
    changed = %(changed)s, troubles = %(troubles)s
WHERE stack = %(name)s AND generation = %(generation)s
"""
