"""A moved image, seen coming or just after: a tag that means another image by now, a store that it does not open."""

from __future__ import annotations

import contextlib
import re

from reconciler.problem import Problem, Severity
from reconciler.targets.stalwart.connection import TARGET
from reconciler.targets.stalwart.container import (
    Container,
    Docker,
    DockerUnreachable,
    keeper,
    misplaced,
    pin,
    runs,
    version,
)
from reconciler.targets.stalwart.release import JMAP, MOVER, PINS, REST

_REFUSES = re.compile(
    r"created by a Stalwart version prior to \d+\.\d+(?: \(schema version (?P<schema>\d+)\))?[^\n]*cannot be opened"
    r"|You must first upgrade to version \d+\.\d+"
    r"|(?P<steps>Upgrading to version 0\.16 is a multi-step process)"
    r"|Unknown database schema version, expected \d+ or below, found (?P<newer>\d+)"
    r"|(?P<taken>Failed to write node id to store)"
)
"""What a release prints that does not open a store of another line, and ends (releases.md, ``crates/migration``)."""

_SCHEMA_OF_REST = 5  # of the stores of 0.15, in the server's own count; 0.16 has 6

_NEVER = "its volume is never to be emptied: the mail is in it"


def tag_moves(container: Container | None, generation: str, *, lost: bool) -> Problem | None:
    """Warn of a tag that means another image by now than the one that the container was made from, or will one day.

    Of a server that is ``lost`` its `container.causes` say the latter.
    """
    if container is None or not container.newer:
        return None if container is None or lost or container.holds_line else _unpinned(container, generation)
    summary = (
        f"the image {container.image} has moved: it is {container.newer} by now, and whatever recreates the container "
        "starts that one; a newer release may not open the store of an older one"
    )
    hint = f"write the release that runs, or {pin(container, generation)}; docs/stalwart-releases.md tells each move"
    return Problem(f"container {container.name}", summary, hint, Severity.WARNING)


def hazards(container: Container | None, generation: str, *, lost: bool) -> tuple[Problem, ...]:
    """Warn of what will lose data one day, while that can still be helped: the mounts and the tag of a container.

    Of a server that is ``lost`` its `container.causes` tell what has.
    """
    places = () if container is None or lost else misplaced(container, generation)
    moves = tag_moves(container, generation, lost=lost)
    return (*places, moves) if moves else places


def _unpinned(container: Container, generation: str) -> Problem:
    summary = (
        f"the image {container.image} is not pinned: its tag means another release from time to time, which may not "
        "open the store of this one"
    )
    hint = f"write {runs(container) or pin(container, generation)}; docs/stalwart-releases.md tells each move"
    return Problem(f"container {container.name}", summary, hint, Severity.WARNING)


def store_refused(docker: Docker | None) -> Problem | None:
    """Say of a server that can't be asked that it ends at each start, as a release of another line made its store."""
    if docker is None:
        return None
    with contextlib.suppress(DockerUnreachable):
        return refused_by(*docker.last_words())
    return None


def refused_by(container: Container, words: str) -> Problem | None:
    """Say the same of a server whose last words are known; None where they do not say so."""
    found = list(_REFUSES.finditer(words))
    refusals = [item for item in found if not item["taken"]]
    return _refused(container, refusals[-1]) if refusals else _taken(container) if found else None


def _taken(container: Container) -> Problem:
    """Say of a store that another process was the last to open: 1.0 says it after a first try on one of 0.16, too."""
    summary = (
        f"ends at each start and serves no mail: the image {container.image} takes its store for another process's "
        "(`Failed to write node id to store`)"
    )
    hint = (
        f"stop it (`docker compose stop {container.service}`); where its tag has moved, write the release that it ran "
        f"before and start it, else see that no second server has the volume; {_NEVER}"
    )
    return Problem(f"container {container.name}", summary, hint, Severity.ERROR, TARGET)


def _refused(container: Container, found: re.Match[str]) -> Problem:
    generation, told = _generation(container, found), version(container)
    named = f"{container.image} (release {'.'.join(map(str, told))})" if told else container.image
    elsewhere = told == PINS[generation].version  # then the store is of no line that is known to be good
    made = "another" if elsewhere else "a newer" if found["newer"] else "an older"
    summary = (
        f"ends at each start and serves no mail: the image {named} does not open its store, which {made} release made"
    )
    before = "the release that it ran before"
    hint = (
        f"stop it, so that it does not try again (`docker compose stop {container.service}`), write "
        f"{before if elsewhere else f'{pin(container, generation)}, or {before},'} and start it; {_NEVER}"
    )
    if not elsewhere and not found["newer"]:
        hint += f". {_onward(generation)}"
    return Problem(f"container {container.name}", summary, hint, Severity.ERROR, TARGET)


def _generation(container: Container, found: re.Match[str]) -> str:
    """Return the generation that made a store: what the server says of it is surer than where it is mounted."""
    if number := found["schema"] or found["newer"]:
        return (REST if int(number) <= _SCHEMA_OF_REST else JMAP).generation
    return REST.generation if found["steps"] else keeper(container)


def _onward(generation: str) -> str:
    """Say how one gets to a newer line of releases on purpose."""
    if generation == JMAP.generation:
        return (
            f"To go on to 1.x: stalwart-migrate moves the store of {MOVER} to a new, empty one; on a fresh 1.x apply "
            "makes accounts, keys and settings, and stored mail comes only with the mover"
        )
    return (
        "To go on from 0.15: on a fresh server apply makes accounts, keys and settings; stored mail comes only with "
        "Stalwart's own migration, from 0.15 to 1.x account by account"
    )
