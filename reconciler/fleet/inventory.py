"""The inventory: a YAML file that names the stacks of a fleet and says how they are kept. Pure.

Where it is and whom to believe is the workers' own configuration; what it says holds for all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, PlainValidator, ValidationError, model_validator

from reconciler.daemon.remote import Remote
from reconciler.desired.load import Places, explain
from reconciler.desired.spec.scalars import Count, List, Model, OpenMap, Short, Text, empty_map, matching, wrong
from reconciler.desired.spec.targets import Duration
from reconciler.desired.yaml import Mapping, Mistake, Node, parse, value
from reconciler.problem import InvalidDirectory, Place, Problem, ReconcilerError

FILE = "fleet.yaml"
NAME = "{stack}"
"""What stands for a stack's name in ``directory``."""

RINGS = 20
"""The most that there may be."""

_WORD = r"[a-z0-9][a-z0-9-]{0,47}"
_HINT = "1 to 48 of a-z, 0-9 and -"


def _version(said: Any) -> int:
    if said != "1":
        raise wrong("must be 1", "this version of the reconciler knows no other format")
    return 1


Word = Annotated[Text, matching(_WORD, "is no name", _HINT)]
Name = Annotated[
    Text, matching(r"[a-z0-9-]{1,24}", "is no stack's name", "1 to 24 of a-z, 0-9 and -, as its directory says")
]


class Where(Model):
    """A directory in a branch of a repository."""

    repo: Text
    branch: Text = "main"
    directory: Text

    @model_validator(mode="after")
    def _is_one(self) -> Where:
        try:
            Remote.read(self.repo, self.branch)
        except ReconcilerError as error:
            problem = error.problems[0]
            raise wrong(problem.summary, problem.hint, "repo") from None
        parts = self.directory.split("/")
        if self.directory.startswith("/") or ".." in parts or ".git" in parts or not self.directory.isprintable():
            raise wrong("is no path in a repository", "write it like desired-state", "directory")
        return self


class Entry(Where):
    """One stack. What is not said here, ``defaults`` say.

    Stacks with the same ``account`` share a limit of requests at Cloudflare, those with the same ``server`` are written
    one after the other. ``project`` is where relative paths of ``targets.compose`` are seen from on the worker.
    """

    directory: Text = "desired-state"
    ring: Short | None = None
    group: Word = "default"
    account: Word | None = None
    server: Word | None = None
    suspended: Text | None = None
    project: Text | None = None


class Ring(Model):
    """A part of the fleet that gets a shared revision together: it goes on after ``healthy`` seconds without trouble.

    More than ``failures`` stacks that it made ill stop it.
    """

    healthy: Duration = 1800
    failures: Count = 0


class Shared(Where):
    """The files that every stack has beside its own."""

    directory: Text = "shared"


def _few(rings: tuple[Ring, ...]) -> tuple[Ring, ...]:
    if len(rings) > RINGS:
        raise wrong(f"has {len(rings)} rings", f"{RINGS} are the most")
    return rings


class Fleet(Model):
    """The whole inventory. Times are seconds.

    ``interval`` is from cycle to cycle of a stack, ``poll`` how often repositories are asked for commits, ``lease`` how
    long nothing is heard of a worker before others take its stacks over. ``requests`` is how many a Cloudflare account
    takes in five minutes.
    """

    version: Annotated[Literal[1], PlainValidator(_version)] = 1
    interval: Duration = 300
    poll: Duration = 30
    lease: Duration = 60
    requests: Count = 1000
    rings: Annotated[tuple[Ring, ...], List, AfterValidator(_few)] = ()
    shared: Shared | None = None
    defaults: Annotated[dict[str, Any], BeforeValidator(empty_map)] = {}  # noqa: RUF012 (pydantic copies it)
    stacks: Annotated[dict[Name, Entry], OpenMap]


def read(text: str, file: str = FILE) -> Fleet:
    """Read an inventory. Raises `InvalidDirectory` with every mistake in it, by file and line."""
    mistakes: list[Mistake] = []
    node = parse(text, file, mistakes)
    fleet = _judged(node, file, mistakes)
    if mistakes or fleet is None:
        raise InvalidDirectory(*(item.problem() for item in sorted(set(mistakes), key=_order)))
    return fleet


def _order(mistake: Mistake) -> Any:
    return (mistake.place, mistake.summary)


def _judged(node: Node | None, file: str, mistakes: list[Mistake]) -> Fleet | None:
    if not isinstance(node, Mapping):
        if not mistakes:
            mistakes.append(Mistake(Place(file), (), "names no stack", "write stacks: and below it NAME: {repo: URL}"))
        return None
    values, places = value(node), Places(node)
    if not _have_defaults(values):
        mistakes.append(Mistake(places.near(("stacks",))[0], ("stacks",), "must be a map", "write NAME: {...} lines"))
        return None
    try:
        fleet = Fleet.model_validate(values)
    except ValidationError as error:
        mistakes.extend(mistake for mistake, _ in explain(error, places, Fleet))
        return None
    mistakes.extend(_contradictions(fleet, places))
    return fleet


def _have_defaults(values: dict[str, Any]) -> bool:
    """Complete the stacks by the defaults, in place. False where there are none that could be."""
    stacks, defaults = values.get("stacks") or {}, values.get("defaults") or {}
    if not isinstance(stacks, dict) or not isinstance(defaults, dict):
        return False
    for name, entry in stacks.items():
        said = {} if entry is None else entry
        if isinstance(said, dict):
            stacks[name] = said = {**defaults, **said}
            if isinstance(said.get("directory"), str):
                said["directory"] = said["directory"].replace(NAME, name)
    return True


def _contradictions(fleet: Fleet, places: Places) -> Iterator[Mistake]:
    seen: dict[tuple[str, str, str], str] = {}
    last = max(len(fleet.rings) - 1, 0)
    for name, entry in fleet.stacks.items():
        place, path = places.near(("stacks", name))[0], ("stacks", name)
        where = (Remote.read(entry.repo, entry.branch).address, entry.branch, entry.directory)
        if (other := seen.setdefault(where, name)) != name:
            hint = f"one directory is one stack: take one of them out, or give it another directory (stacks.{other})"
            yield Mistake(place, path, f"is the directory of {other}", hint)
        if entry.ring is not None and entry.ring > last:
            told = f"rings go from 0 to {last}" if fleet.rings else "no rings are declared"
            yield Mistake(places.near((*path, "ring"))[0], (*path, "ring"), "is no ring", told)


def ring(fleet: Fleet, entry: Entry) -> int:
    """Return the ring of a stack: the last one where it names none."""
    return entry.ring if entry.ring is not None else max(len(fleet.rings) - 1, 0)


def missing(where: str) -> ReconcilerError:
    """Say that there is no inventory."""
    return ReconcilerError(Problem(where, "is no inventory: there is no such file", f"write one ({FILE})"))
