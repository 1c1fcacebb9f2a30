"""Domains of Stalwart up to 0.15: nothing but a name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from reconciler.resources import Domain, Live
from reconciler.targets.stalwart.passwords import Hashes
from reconciler.targets.stalwart.rest.kind import Reading
from reconciler.targets.stalwart.rest.principals import Principal


class Domains(Principal[Domain]):
    """The mail domains; accounts need them first."""

    resource, types = Domain, ("domain",)
    undeclared = frozenset(("description", "lists"))

    def live(self, reading: Reading) -> Iterator[Live]:
        """Yield all domains."""
        yield from (Live(Domain(item["name"]), id=item["name"]) for item in self.own(reading.items))

    def name(self, resource: Domain) -> str:
        """Return its name."""
        return resource.name

    def body(self, resource: Domain, hashes: Hashes) -> dict[str, Any]:
        """Return what creates it."""
        del hashes
        return {"type": "domain", "name": resource.name}
