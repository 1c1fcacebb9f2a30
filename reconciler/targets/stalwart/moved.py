"""A moved image, seen coming or just after: a tag that means another image by now, a store that is too old for it."""

from __future__ import annotations

import contextlib
import re

from reconciler.problem import Problem, Severity
from reconciler.targets.stalwart.connection import TARGET
from reconciler.targets.stalwart.container import Container, Docker, DockerUnreachable, keeper, version
from reconciler.targets.stalwart.release import JMAP, MOVER, PINS

_TOO_OLD = re.compile(
    r"created by a Stalwart version prior to (?P<since>\d+\.\d+)[^\n]*cannot be opened"
    r"|You must first upgrade to version (?P<first>\d+\.\d+)"
)
"""What a release prints that does not open an older store, and ends (releases.md)."""

_NEVER = "its volume is never to be emptied: the mail is in it"


def pin(container: Container, generation: str) -> str:
    """Say what to write as image: what is known to work with this program, and since when."""
    release = PINS[generation]
    repository = container.image.partition("@")[0]
    head, _, tag = repository.rpartition(":")
    repository = head if head and "/" not in tag else repository
    return f"`image: {repository}:v{release.name}` (known good on {release.good})"


def tag_moved(container: Container | None, generation: str) -> Problem | None:
    """Warn of a tag that means another image by now than the one that the container was made from."""
    if container is None or not container.newer:
        return None
    summary = (
        f"the image {container.image} has moved: it is {container.newer} by now, and whatever recreates the container "
        "starts that one; a newer release may not open the store of an older one"
    )
    hint = f"write the release that runs, or {pin(container, generation)}; docs/stalwart-releases.md tells each move"
    return Problem(f"container {container.name}", summary, hint, Severity.WARNING)


def store_too_old(docker: Docker | None) -> Problem | None:
    """Say of a server that can't be asked that it ends at each start, as its store was made by an older release."""
    if docker is None:
        return None
    with contextlib.suppress(DockerUnreachable):
        container, words = docker.last_words()
        if (found := _TOO_OLD.search(words)) is not None:
            return _too_old(container, found)
    return None


def _too_old(container: Container, found: re.Match[str]) -> Problem:
    generation = keeper(container)
    told = version(container)
    named = f"{container.image} (release {'.'.join(map(str, told))})" if told else container.image
    since = f"before {found['since']}" if found["since"] else f"and the image wants {found['first']} in between"
    summary = (
        f"ends at each start and serves no mail: its store was made by a release {since}, and the image {named} does "
        "not open it"
    )
    hint = (
        f"stop it, so that it does not try again (`docker compose stop {container.service}`), write "
        f"{pin(container, generation)}, or the release that it ran before, and start it; {_NEVER}. "
        f"{_onward(generation)}"
    )
    return Problem(f"container {container.name}", summary, hint, Severity.ERROR, TARGET)


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
