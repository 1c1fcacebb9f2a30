"""Tries the key that services share where the directory says so: one GET that changes nothing, and one without a key.

A key goes to a container of the very service that it is for, on this machine, and nowhere else; which key, its caller's
container says. One that was refused is not sent again to the same container.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from reconciler import http, url
from reconciler.checks.evidence import KeyTrial
from reconciler.desired.spec.scalars import link_end
from reconciler.stack import Stack

if TYPE_CHECKING:
    from reconciler.desired.spec.smtp import Link
    from reconciler.targets.compose.doors import Doors
    from reconciler.targets.compose.snapshot import Snapshot

_BOUNDS = http.Bounds(1 << 16, seconds=4.0, silence=3.0, connect=2.0, cut=True)
_REFUSED = (401, 403)
_PLAIN = range(0x21, 0x7F)  # what a header may hold without being read in two ways


def tried(stack: Stack, snapshot: Snapshot, doors: Doors) -> Iterator[KeyTrial]:
    """Try the key of every caller of every link whose ``check`` says where."""
    for link in stack.spec.smtp.links:
        if link.check is not None:
            yield from _tried(stack, snapshot, doors, link)


def _tried(stack: Stack, snapshot: Snapshot, doors: Doors, link: Link) -> Iterator[KeyTrial]:
    check = link.check
    if check is None:
        raise AssertionError(link)
    service, where = check.service, f"{check.service}:{check.port}{check.path}"
    places = doors.of_service(service, check.port)
    bare, why = _asked(places, check.path, {})
    if bare is None:
        yield KeyTrial(service, where, why=why)
        return
    if bare not in _REFUSED:  # it asks for no key, so none is sent
        yield KeyTrial(service, where, bare=bare, why=f"it answers {bare} without a key, and not 401 or 403")
        return
    made = [item.id for item in snapshot.replicas(service)]
    for caller in link.ends:
        name, variable = link_end(caller)
        for key in dict.fromkeys(snapshot.running(name, variable) if name != service else ()):
            facts = (where, *made, key or "")
            if not key or any(ord(character) not in _PLAIN for character in key):
                yield KeyTrial(service, where, caller, bare=bare, why="the key is empty, or no header may hold it")
            elif stack.refusals.holds(*facts):
                yield KeyTrial(service, where, caller, 401, bare, "as it did before; it was not sent again")
            else:
                status, why = _asked(places, check.path, {check.header: key})
                if status in _REFUSED:
                    stack.refusals.add(*facts)
                yield KeyTrial(service, where, caller, status, bare, why)


def _asked(places: Sequence[tuple[str, int]], path: str, headers: Mapping[str, str]) -> tuple[int | None, str]:
    """Return the status of the first place that answers, or why none does. A redirect is not followed."""
    why = "nothing that answers by this name runs in the project on this machine"
    for host, port in places:
        try:
            with http.client(url.Url("http", host, port), _BOUNDS, admits=url.is_home, name="service") as client:
                return http.exchange(client, "GET", path, headers=dict(headers)).status, ""
        except http.Unanswered as error:
            why = f"no answer: {error}"
    return None, why
